/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_cluster.c - cluster status and nodes: what corosync says, and what the volumes mounted here see of it.
 */
#include "utils/tools/csvctl_admin.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <corosync/cmap.h>
#include <corosync/quorum.h>

#include "utils/env/real.h"

static void on_quorum(quorum_handle_t h, uint32_t quorate, uint64_t ring, uint32_t n, uint32_t *list)
{
	struct admin_seen *s;

	(void)ring;
	if (quorum_context_get(h, (const void **)&s) != CS_OK)
		return;
	s->quorate = quorate;
	s->n = csv_min(n, (uint32_t)ARRAY_SIZE(s->id));
	memcpy(s->id, list, s->n * sizeof(*list));
	s->got = true;
}

bool admin_look(struct admin_seen *ret)
{
	quorum_callbacks_t cb = { .quorum_notify_fn = on_quorum };
	quorum_handle_t h;
	uint32_t type;

	memset(ret, 0, sizeof(*ret));
	if (quorum_initialize(&h, &cb, &type) != CS_OK)
		return false;
	if (quorum_context_set(h, ret) == CS_OK && quorum_trackstart(h, CS_TRACK_CURRENT) == CS_OK)
		quorum_dispatch(h, CS_DISPATCH_ONE);
	quorum_finalize(h);
	return ret->got;
}

/* Follows corosync's word until there is quorum; false: time is over, corosync is gone, or a signal came. */
static bool follow(struct cc *cc, int64_t until, struct admin_seen *ret)
{
	quorum_callbacks_t cb = { .quorum_notify_fn = on_quorum };
	struct pollfd p = { .events = POLLIN };
	quorum_handle_t h;
	uint32_t type;

	memset(ret, 0, sizeof(*ret));
	if (quorum_initialize(&h, &cb, &type) != CS_OK)
		return false;
	if (quorum_context_set(h, ret) == CS_OK && quorum_fd_get(h, &p.fd) == CS_OK &&
	    quorum_trackstart(h, CS_TRACK_CURRENT | CS_TRACK_CHANGES) == CS_OK)
		while (!ret->quorate && !*cc->cancelled && cc_now_ms() < until) {
			if (poll(&p, 1, (int)csv_min(until - cc_now_ms(), (int64_t)1000)) > 0 && quorum_dispatch(h, CS_DISPATCH_ALL) != CS_OK)
				break;
		}
	quorum_finalize(h);
	return ret->quorate;
}

enum rpc_code cc_cluster_wait(struct cc *cc)
{
	int64_t from = cc_now_ms(), until = from + cc->timeout_ms;
	struct cluster_facts f;
	struct admin_seen s;
	bool said = false;

	while (!follow(cc, until, &s)) {
		if (*cc->cancelled)
			return cc_fail(cc, RPC_INTERRUPTED, "interrupted");
		if (cc_now_ms() >= until)
			return cc_fail(cc, RPC_TIMEOUT, s.got ? "no quorum after %d s: %u nodes are here; start more nodes, see: corosync-quorumtool -s" :
				       "corosync does not answer after %d s: start it: systemctl start corosync", cc->timeout_ms / 1000, s.n);
		if (cc->progress && !said)
			fputs("csvctl: waiting for corosync\n", stderr);
		said = true;
		poll(NULL, 0, 500);	/* it may be starting: there is nothing to wait at */
	}
	if (cluster_facts_read(&f, NULL))
		memset(&f, 0, sizeof(f));
	rpc_reply_add_take(cc->reply, json_pack("{s:s, s:b, s:i, s:I}", "name", f.cluster_name, "quorate", true, "members", (int)s.n, "waited_ms",
						(json_int_t)(cc_now_ms() - from)));
	return RPC_OK;
}

static enum rpc_code facts(struct cc *cc, struct cluster_facts *f, struct admin_seen *s)
{
	struct csv_err err = CSV_ERR_INIT;
	int rc = cluster_facts_read(f, &err);

	if (rc == -EACCES)
		return cc_fail(cc, RPC_PERMISSION, "%s", err.text);
	if (rc)
		return cc_fail(cc, RPC_NO_QUORUM, "%s", err.text);
	if (!admin_look(s))
		return cc_fail(cc, RPC_NO_QUORUM, "corosync: its quorum service does not answer; see: corosync-quorumtool -s");
	return RPC_OK;
}

/* The volumes' own answers to `verb`, taken out of the reply again. */
static json_t *from_volumes(struct cc *cc, const char *verb, enum rpc_code *ret_code)
{
	unsigned n;
	json_t *items;

	*ret_code = cc_ask_volumes(cc, NULL, 0, verb, NULL, &n);
	items = json_incref(json_object_get(cc->reply, "items"));
	json_object_set_new(cc->reply, "items", json_array());
	return items;
}

enum rpc_code cc_cluster_status(struct cc *cc)
{
	struct cluster_facts f;
	struct admin_seen s;
	enum rpc_code code = facts(cc, &f, &s), vcode;
	json_t *vols, *list;
	const json_t *v;
	size_t i;

	if (code)
		return code;
	list = json_array();
	vols = from_volumes(cc, "volume.list", &vcode);
	json_array_foreach(vols, i, v)
		json_array_append_new(list, json_pack("{s:O, s:O, s:O, s:O, s:O?}", "dir", json_object_get(v, "dir"), "state",
						      json_object_get(v, "state"), "reason", json_object_get(v, "reason"), "members",
						      json_object_get(v, "members"), "protocol", json_object_get(v, "protocol")));
	json_decref(vols);
	rpc_reply_add_take(cc->reply, json_pack("{s:s, s:s, s:i, s:b, s:i, s:i, s:b, s:b, s:b, s:i, s:i, s:o}", "name", f.cluster_name, "node",
						f.node_name, "nodeid", (int)f.self, "quorate", s.quorate, "members", (int)s.n, "nodes",
						(int)f.nodes, "crypto", f.crypto, "two_node", f.two_node, "qdevice", f.has_qdevice,
						"token_ms", (int)f.token_ms, "consensus_ms", (int)f.consensus_ms, "volumes", list));
	if (!f.crypto)
		rpc_reply_warn(cc->reply, "corosync.conf: crypto_cipher and crypto_hash are not set: anyone on the cluster's network can take "
					  "part in it; set them (for instance aes256 and sha256) and make a key with corosync-keygen");
	if (f.two_node && !f.has_qdevice)
		rpc_reply_warn(cc->reply, "corosync.conf: two_node is set without a quorum device: volumes cannot be mounted");
	if (!s.quorate)
		return cc_fail(cc, RPC_NO_QUORUM, "no quorum: %u of %u nodes are here; start more nodes, see: corosync-quorumtool -s", s.n, f.nodes);
	return vcode;
}

/* Names by corosync's node list. */
static json_t *configured(void)
{
	json_t *all = json_array();
	cmap_handle_t h;

	if (cmap_initialize(&h) != CS_OK)
		return all;
	for (unsigned i = 0; i < CLUSTER_NODES_MAX; i++) {
		char key[64], *name = NULL;
		uint32_t id;

		snprintf(key, sizeof(key), "nodelist.node.%u.nodeid", i);
		if (cmap_get_uint32(h, key, &id) != CS_OK)
			continue;
		snprintf(key, sizeof(key), "nodelist.node.%u.name", i);
		if (cmap_get_string(h, key, &name) != CS_OK)
			name = NULL;
		snprintf(key, sizeof(key), "node%u", id);
		json_array_append_new(all, json_pack("{s:s, s:i}", "name", name ? name : key, "nodeid", (int)id));
		free(name);
	}
	cmap_finalize(h);
	return all;
}

enum rpc_code cc_node_list(struct cc *cc)
{
	struct cluster_facts f;
	struct admin_seen s;
	enum rpc_code code = facts(cc, &f, &s), vcode;
	json_t *in, *nodes, *n, *v;
	size_t i, k;

	if (code)
		return code;
	in = from_volumes(cc, "node.list", &vcode);
	nodes = configured();
	json_array_foreach(nodes, i, n) {
		json_int_t id = json_integer_value(json_object_get(n, "nodeid"));
		json_t *vols = json_array();
		bool online = false;

		for (k = 0; k < s.n; k++)
			online |= s.id[k] == id;
		json_array_foreach(in, k, v)
			if (json_integer_value(json_object_get(v, "nodeid")) == id)
				json_array_append(vols, json_object_get(v, "volume"));
		json_object_set_new(n, "online", json_boolean(online));
		json_object_set_new(n, "self", json_boolean(id == f.self));
		json_object_set_new(n, "volumes", vols);
		json_array_append(json_object_get(cc->reply, "items"), n);
	}
	cc_node_add_status(cc);
	json_decref(nodes);
	json_decref(in);
	if (!s.quorate)
		return cc_fail(cc, RPC_NO_QUORUM, "no quorum: %u of %u nodes are here; start more nodes, see: corosync-quorumtool -s", s.n, f.nodes);
	return vcode;
}

enum rpc_code cc_node_find(struct cc *cc, const char *name, struct cc_node *ret)
{
	static const char digits[] = "0123456789";
	struct csv_err err = CSV_ERR_INIT;
	struct cluster_facts f;
	json_t *all, *n;
	size_t i;
	int rc = cluster_facts_read(&f, &err);

	if (rc)
		return cc_fail(cc, rc == -EACCES ? RPC_PERMISSION : RPC_NO_QUORUM, "%s", err.text);
	if (!name)
		name = f.node_name;
	ret->id = 0;
	all = configured();
	json_array_foreach(all, i, n) {
		json_int_t nid = json_integer_value(json_object_get(n, "nodeid"));
		const char *is = json_string_value(json_object_get(n, "name"));
		bool by_id = *name && strspn(name, digits) == strlen(name) && strtoll(name, NULL, 10) == nid;

		if (by_id || !strcmp(is, name)) {
			ret->id = (uint32_t)nid;
			snprintf(ret->name, sizeof(ret->name), "%s", is);
		}
	}
	json_decref(all);
	if (!ret->id)
		return cc_fail(cc, RPC_NOT_FOUND, "%s: no such node in corosync's node list; see: csvctl node list", name);
	return RPC_OK;
}
