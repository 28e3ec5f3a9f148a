/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_join.c - cluster join: takes the configuration and the key of a cluster over, after looking whether they fit this host.
 */
#include "utils/tools/csvctl_admin.h"

#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "utils/env/real_fence_helper.h"

/* ---- which node is this? ------------------------------------------------------------------------------------------------------------ */

static bool same_addr(const struct sockaddr *a, const struct sockaddr *b)
{
	if (a->sa_family != b->sa_family)
		return false;
	if (a->sa_family == AF_INET)
		return ((const struct sockaddr_in *)a)->sin_addr.s_addr == ((const struct sockaddr_in *)b)->sin_addr.s_addr;
	return a->sa_family == AF_INET6 && !memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr, &((const struct sockaddr_in6 *)b)->sin6_addr,
						   sizeof(struct in6_addr));
}

int admin_addr_local(const char *addr, bool *ret_local, struct csv_err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_DGRAM }, *found = NULL, *a;
	struct ifaddrs *all = NULL, *i;
	int rc = getaddrinfo(addr, NULL, &hints, &found);

	*ret_local = false;
	if (rc)
		return csv_err_set(err, -ENOENT, "%s: %s", addr, gai_strerror(rc));
	if (getifaddrs(&all)) {
		freeaddrinfo(found);
		return csv_err_set(err, -errno, "this host's addresses cannot be read: %s", strerror(errno));
	}
	for (a = found; a; a = a->ai_next)
		for (i = all; i; i = i->ifa_next)
			*ret_local |= i->ifa_addr && same_addr(i->ifa_addr, a->ai_addr);
	freeifaddrs(all);
	freeaddrinfo(found);
	return 0;
}

const struct conf_node *admin_self(const struct conf *c, struct csv_err *err)
{
	const struct conf_node *me = NULL;
	char names[256] = "";
	bool local;

	for (unsigned i = 0; i < c->n; i++) {
		const struct conf_node *n = &c->node[i];

		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s=%s", *names ? " " : "", n->name, n->addr[0]);
		for (unsigned k = 0; k < n->n_addrs; k++) {
			if (admin_addr_local(n->addr[k], &local, NULL) || !local || me == n)
				continue;
			if (me) {
				csv_err_set(err, -EEXIST, "this host has addresses of two nodes, %s and %s: correct the node list", me->name, n->name);
				return NULL;
			}
			me = n;
		}
	}
	if (!me)
		csv_err_set(err, -ENOENT, "this host has none of the cluster's addresses (%s): configure its network, or correct the node list", names);
	return me;
}

bool admin_votes_bad(const struct conf *c, char *ret, size_t size)
{
	static const char third[] = "A third vote: a third node, which may be a small machine that mounts nothing, or a quorum device: a host outside "
				    "that runs corosync-qnetd, and --qdevice HOST";

	if (*c->qdevice)
		return false;
	if (c->two_node)
		snprintf(ret, size, "two_node without a quorum device: both halves of a split would go on, each with the other's virtual machines. %s",
			 third);
	else if (c->n < 2)
		snprintf(ret, size, "%u node is no cluster: nobody could take over. Give at least three --node, or two and --qdevice HOST", c->n);
	else if (c->n == 2)
		snprintf(ret, size, "two nodes without a third vote: when one is lost the other has no quorum and stops. %s", third);
	else
		return false;
	return true;
}

/* ---- checks ------------------------------------------------------------------------------------------------------------------------ */

static enum rpc_code fits(struct cc *cc, const char *from, const struct admin_set *s, struct conf *c, const struct conf_node **ret_me)
{
	const char *root = cc_opt(cc, "root"), *name = cc_opt(cc, "node"), *force = cc_opt(cc, "force");
	char host[256] = "", why[sizeof(((struct csv_err *)0)->text)];
	struct csv_err err = CSV_ERR_INIT;
	const struct conf_node *me;

	if (conf_parse(s->file[ADMIN_COROSYNC].data, "corosync.conf", c, &err))
		return cc_fail(cc, RPC_FAILED, "%s: %s", from, err.text);
	if (s->file[ADMIN_KEY].n < CONF_KEY_MIN || s->file[ADMIN_KEY].n > CONF_KEY_MAX)
		return cc_fail(cc, RPC_FAILED, "%s: its key has %zu bytes: %d to %d; make one with corosync-keygen", from, s->file[ADMIN_KEY].n, CONF_KEY_MIN,
			       CONF_KEY_MAX);
	if (!conf_has_crypto(c) && !force)
		return cc_fail(cc, RPC_REFUSED, "%s: crypto_cipher and crypto_hash are not both set: anyone on the network could take part; set them on "
			       "the other nodes first (aes256, sha256)", from);
	if (c->two_node && admin_votes_bad(c, why, sizeof(why)) && !force)
		return cc_fail(cc, RPC_REFUSED, "%s: %s", from, why);
	me = name ? conf_node_find(c, name) : root ? NULL : admin_self(c, &err);
	if (name && !me)
		return cc_fail(cc, RPC_NOT_FOUND, "%s: %s: no node of the cluster %s has that name", from, name, c->cluster);
	if (!me && root)
		return cc_fail(cc, RPC_USAGE, "--root: say which node it will be: --node NAME");
	if (!me)
		return cc_fail(cc, RPC_NOT_FOUND, "%s: %s", from, err.text);
	if (name && !root && admin_self(c, &err) != me)
		return cc_fail(cc, RPC_CONFLICT, "%s: %s: not this host: %s", from, name, err.code ? err.text : "it has the addresses of another node");
	gethostname(host, sizeof(host) - 1);
	if (!root && strcmp(host, me->name) != 0 && strncmp(host, me->name, strcspn(host, ".")) != 0)
		rpc_reply_warn(cc->reply, "this host is called %s, and %s in the cluster: one name for both is easier to read", host, me->name);
	*ret_me = me;
	return RPC_OK;
}

/* What will be missing here: warnings. */
static void fence_fits(struct cc *cc, const struct admin_set *s, const struct conf *c)
{
	struct csv_err err = CSV_ERR_INIT;

	bool seen[CLUSTER_NODES_MAX] = { 0 };

	if (cc->dry_run)
		return;
	for (unsigned i = 0; i < c->n; i++) {
		struct fence_conf f;
		int rc = fence_conf_read(s->file[ADMIN_FENCE].path, c->node[i].nodeid, &f, &err);

		seen[i] = rc != -ENOENT;
		if (rc && seen[i])
			rpc_reply_warn(cc->reply, "%s", err.text);
		else if (!rc && access(f.agent, X_OK) && !cc_opt(cc, "root"))
			rpc_reply_warn(cc->reply, "%s: the fence agent of %s is not on this host: apt-get install fence-agents", f.agent, c->node[i].name);
	}
	admin_fence_warn(cc, c, seen);
}

enum rpc_code cc_cluster_join(struct cc *cc)
{
	const char *from = cc->arg[0], *force = cc_opt(cc, "force");
	struct conf *c = calloc(1, sizeof(*c));
	const struct conf_node *me = NULL;
	struct admin_set s;
	int64_t ahead, unsure;
	enum rpc_code code;

	admin_set_init(&s, cc_opt(cc, "root"));
	if (!c)
		return cc_fail(cc, RPC_FAILED, "out of memory");
	code = force && !*force ? cc_fail(cc, RPC_USAGE, "--force: say why: --force=REASON") : RPC_OK;
	if (!code)
		code = admin_bundle_fetch(cc, from, &s, &ahead, &unsure);
	if (!code)
		code = fits(cc, from, &s, c, &me);
	if (!code)
		code = admin_set_put(cc, &s);
	if (!code) {
		fence_fits(cc, &s, c);
		json_object_set_new(cc->reply, "cluster", json_string(c->cluster));
		json_object_set_new(cc->reply, "node", json_string(me->name));
		json_object_set_new(cc->reply, "nodeid", json_integer(me->nodeid));
		if (ahead != INT64_MIN && (ahead > 1000 + unsure || ahead < -1000 - unsure))
			rpc_reply_warn(cc->reply, "the clock of %s is %lld ms %s this host's: set up time synchronisation (chrony)", from,
				       (long long)(ahead < 0 ? -ahead : ahead), ahead < 0 ? "behind" : "ahead of");
		if (!cc->dry_run)
			cc_fail(cc, RPC_OK, "this is %s of %s; next: systemctl enable --now corosync, then csvctl cluster validate", me->name, c->cluster);
	}
	admin_set_done(&s);
	free(c);
	return code;
}
