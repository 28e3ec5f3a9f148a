/*
 * real_cmap.c - reading corosync's configuration database.  Blocking; any one thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <corosync/cmap.h>
#include <corosync/corotypes.h>

#include "utils/base/base.h"
#include "utils/env/real.h"
#include "utils/env/real_internal.h"

#define AUTHKEY_DEFAULT "/etc/corosync/authkey"

static int cmap_open(cmap_handle_t *h, struct csv_err *err)
{
	cs_error_t rc = cmap_initialize(h);

	if (rc == CS_OK)
		return 0;
	if (rc == CS_ERR_LIBRARY || rc == CS_ERR_NOT_EXIST || rc == CS_ERR_TRY_AGAIN)
		return csv_err_set(err, -ECONNREFUSED, "corosync: does not answer (%s): start it: systemctl start corosync",
				   cs_strerror(rc));
	if (rc == CS_ERR_ACCESS)
		return csv_err_set(err, -EACCES, "corosync: permission denied: run as root");
	return csv_err_set(err, -EIO, "corosync: its configuration cannot be read: %s", cs_strerror(rc));
}

static uint32_t get_u32(cmap_handle_t h, const char *key)
{
	uint32_t v;

	return cmap_get_uint32(h, key, &v) == CS_OK ? v : 0;
}

static bool get_str(cmap_handle_t h, const char *key, char *ret, size_t size)
{
	char *s;

	if (cmap_get_string(h, key, &s) != CS_OK)
		return false;
	snprintf(ret, size, "%s", s);
	free(s);
	return ret[0] != '\0';
}

static bool is_set(cmap_handle_t h, const char *key)
{
	char s[64];

	return get_str(h, key, s, sizeof(s)) && strcmp(s, "none") != 0;
}

static int compare_nodes(const void *a, const void *b)
{
	const struct real_node *x = a, *y = b;

	return x->nodeid < y->nodeid ? -1 : x->nodeid > y->nodeid;
}

static int read_nodes(cmap_handle_t h, struct real_nodes *ret, struct csv_err *err)
{
	char key[CMAP_KEYNAME_MAXLEN + 1], want[CMAP_KEYNAME_MAXLEN + 1];
	cmap_iter_handle_t it;
	cmap_value_types_t type;
	size_t len;
	unsigned pos;
	int end;

	if (cmap_iter_init(h, "nodelist.node.", &it) != CS_OK)
		return csv_err_set(err, -EIO, "corosync: its node list cannot be read");
	ret->n = 0;
	while (cmap_iter_next(h, it, key, &len, &type) == CS_OK) {
		struct real_node *n = &ret->node[ret->n];

		end = 0;
		if (sscanf(key, "nodelist.node.%u.nodeid%n", &pos, &end) != 1 || !end || key[end])
			continue;
		if (ret->n == CLUSTER_NODES_MAX) {
			cmap_iter_finalize(h, it);
			return csv_err_set(err, -E2BIG, "corosync.conf: more than %d nodes: not supported", CLUSTER_NODES_MAX);
		}
		memset(n, 0, sizeof(*n));
		n->nodeid = get_u32(h, key);
		snprintf(want, sizeof(want), "nodelist.node.%u.name", pos);
		get_str(h, want, n->name, sizeof(n->name));
		for (unsigned ring = 0; ring < REAL_ADDRS_MAX; ring++) {
			snprintf(want, sizeof(want), "nodelist.node.%u.ring%u_addr", pos, ring);
			if (get_str(h, want, n->addr[n->n_addrs], sizeof(n->addr[0])))
				n->n_addrs++;
		}
		if (n->nodeid && n->n_addrs)
			ret->n++;
	}
	cmap_iter_finalize(h, it);
	if (!ret->n)
		return csv_err_set(err, -ENOENT, "corosync.conf: no nodelist with nodeid and ring0_addr: write one, it is "
				   "where members find each other");
	qsort(ret->node, ret->n, sizeof(ret->node[0]), compare_nodes);
	return 0;
}

int real_nodes_read(struct real_nodes *ret, struct csv_err *err)
{
	cmap_handle_t h;
	int rc = cmap_open(&h, err);

	if (rc < 0)
		return rc;
	rc = read_nodes(h, ret, err);
	if (!get_str(h, "totem.keyfile", ret->keyfile, sizeof(ret->keyfile)))
		snprintf(ret->keyfile, sizeof(ret->keyfile), "%s", AUTHKEY_DEFAULT);
	cmap_finalize(h);
	return rc;
}

const struct real_node *real_nodes_find(const struct real_nodes *n, uint32_t nodeid)
{
	for (unsigned i = 0; i < n->n; i++)
		if (n->node[i].nodeid == nodeid)
			return &n->node[i];
	return NULL;
}

int cluster_facts_read(struct cluster_facts *ret, struct csv_err *err)
{
	struct cluster_facts f = { .self = 0 };
	struct real_nodes *nodes = malloc(sizeof(*nodes));
	const struct real_node *me;
	cmap_handle_t h;
	uint8_t u8;
	int rc;

	if (!nodes)
		return csv_err_set(err, -ENOMEM, "corosync: out of memory");
	rc = cmap_open(&h, err);
	if (rc < 0) {
		free(nodes);
		return rc;
	}
	f.self = get_u32(h, "runtime.votequorum.this_node_id");
	f.token_ms = get_u32(h, "runtime.config.totem.token");
	f.consensus_ms = get_u32(h, "runtime.config.totem.consensus");
	/* The run-time word first: a qdevice may have switched two_node off. */
	if (cmap_get_uint8(h, "runtime.votequorum.two_node", &u8) == CS_OK ||
	    cmap_get_uint8(h, "quorum.two_node", &u8) == CS_OK)
		f.two_node = u8;
	f.has_qdevice = is_set(h, "quorum.device.model");
	f.crypto = is_set(h, "totem.crypto_cipher") && is_set(h, "totem.crypto_hash");
	get_str(h, "totem.cluster_name", f.cluster_name, sizeof(f.cluster_name));
	if (read_nodes(h, nodes, NULL) == 0) {
		f.nodes = nodes->n;
		me = real_nodes_find(nodes, f.self);
		if (me)
			snprintf(f.node_name, sizeof(f.node_name), "%s", me->name);
	}
	cmap_finalize(h);
	free(nodes);
	if (!f.self)
		return csv_err_set(err, -EINVAL, "corosync: no quorum provider: set provider: corosync_votequorum in the "
				   "quorum section of corosync.conf");
	*ret = f;
	return 0;
}
