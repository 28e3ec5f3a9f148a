/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_validate.c - cluster validate: the cluster's part; that of the host is in csvctl_validate_host.c.  Nothing is changed.
 *
 * A finding names an object, what was looked at, the result (ok, warning, wrong), the reason, and what to do.
 */
#include "utils/tools/csvctl_admin.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <corosync/cmap.h>

#include "utils/env/real.h"
#include "utils/env/real_fence_helper.h"

#define CLOCK_APART_MS 1000

void val_add(struct val *v, enum val_result r, const char *object, const char *check, const char *action, const char *reason, ...)
{
	static const char *const name[] = { "ok", "warning", "wrong" };
	char text[sizeof(((struct csv_err *)0)->text)];
	va_list ap;

	va_start(ap, reason);
	vsnprintf(text, sizeof(text), reason, ap);
	va_end(ap);
	v->n[r]++;
	if (r != VAL_OK || cc_opt(v->cc, "all"))
		rpc_reply_add_take(v->cc->reply, json_pack("{s:s, s:s, s:s, s:s, s:s}", "object", object, "check", check, "result", name[r], "reason", text,
							   "action", action ? action : ""));
}

/* ---- the files --------------------------------------------------------------------------------------------------------------------- */

static void check_mode(struct val *v, const char *path, mode_t allowed, const char *check)
{
	char action[PATH_MAX + 64];
	struct stat st;

	if (stat(path, &st))
		return;
	if (st.st_uid || (st.st_mode & 07777 & ~allowed)) {
		snprintf(action, sizeof(action), "chown root %s; chmod %04o %s; and where others could read it, make a new one", path, (unsigned)allowed, path);
		val_add(v, VAL_WRONG, path, check, action, "mode %04o, owner %u: others than root may read or change it", (unsigned)st.st_mode & 07777, st.st_uid);
	} else {
		val_add(v, VAL_OK, path, check, NULL, "root's alone");
	}
}

static void check_key(struct val *v)
{
	const char *path = *v->conf->keyfile ? v->conf->keyfile : CONF_AUTHKEY;
	struct csv_err err = CSV_ERR_INIT;
	char *key = NULL;
	size_t n = 0;

	if (conf_file_read(path, CONF_KEY_MAX, &key, &n, &err)) {
		val_add(v, VAL_WRONG, path, "key", "take it over from a node that has it: csvctl cluster join HOST", "%s", err.text);
		return;
	}
	explicit_bzero(key, n);
	free(key);
	if (n < CONF_KEY_MIN)
		val_add(v, VAL_WRONG, path, "key", "make one with corosync-keygen and bring it to all nodes", "%zu bytes; at least %d are needed", n, CONF_KEY_MIN);
	check_mode(v, path, 0400, "key");
}

static void check_votes(struct val *v)
{
	const struct conf *c = v->conf;
	char why[sizeof(((struct csv_err *)0)->text)];

	if (admin_votes_bad(c, why, sizeof(why)))
		val_add(v, c->two_node ? VAL_WRONG : VAL_WARNING, CONF_COROSYNC, "votes",
			c->two_node ? "remove two_node, and add a third vote" : "add a node, or a quorum device", "%s", why);
	else if (c->n % 2 == 0 && !*c->qdevice)
		val_add(v, VAL_WARNING, CONF_COROSYNC, "votes", "add a node, or a quorum device",
			"%u nodes and no quorum device: when they split into halves, both stop", c->n);
	else
		val_add(v, VAL_OK, CONF_COROSYNC, "votes", NULL, "%u nodes%s", c->n, *c->qdevice ? " and a quorum device" : "");
	if (c->expected_votes && c->expected_votes < c->n)
		val_add(v, VAL_WRONG, CONF_COROSYNC, "votes", "remove expected_votes, or set it to the number of nodes",
			"expected_votes is %u, but there are %u nodes: two parts could be quorate at once", c->expected_votes, c->n);
	if (strcmp(c->provider, "corosync_votequorum") != 0)
		val_add(v, VAL_WRONG, CONF_COROSYNC, "quorum", "quorum { provider: corosync_votequorum }", "no quorum provider");
	if (c->consensus_ms && c->consensus_ms < conf_token_ms(c) * 6 / 5)
		val_add(v, VAL_WRONG, CONF_COROSYNC, "consensus", "remove consensus: it is computed", "consensus %u ms is less than 1.2 times the token of %u ms",
			c->consensus_ms, conf_token_ms(c));
}

static void check_nodes(struct val *v)
{
	const struct conf *c = v->conf;
	struct csv_err err = CSV_ERR_INIT;
	char host[256] = "";
	const struct conf_node *me = admin_self(c, &err);
	bool local;

	if (!me)
		val_add(v, VAL_WRONG, CONF_COROSYNC, "addresses", "correct the node list, or this host's network", "%s", err.text);
	gethostname(host, sizeof(host) - 1);
	if (me && strncmp(host, me->name, csv_max(strcspn(host, "."), strlen(me->name))) != 0)
		val_add(v, VAL_WARNING, me->name, "name", "use the host's name in the node list, or the other way round", "this host is called %s", host);
	for (unsigned i = 0; i < c->n; i++) {
		const struct conf_node *n = &c->node[i];
		unsigned bad = 0;

		if (!n->nodeid || !n->n_addrs || !*n->name) {
			val_add(v, VAL_WRONG, CONF_COROSYNC, "node list", "give every node a nodeid, a name and a ring0_addr", "node %u of the list lacks one of them", i + 1);
			continue;
		}
		for (unsigned k = 0; k < i; k++)
			if (c->node[k].nodeid == n->nodeid || !strcmp(c->node[k].name, n->name))
				val_add(v, VAL_WRONG, n->name, "node list", "give every node a nodeid and a name of its own", "same nodeid or name as %s", c->node[k].name);
		for (unsigned k = 0; k < n->n_addrs; k++)
			if (admin_addr_local(n->addr[k], &local, &err)) {
				bad++;
				val_add(v, VAL_WRONG, n->name, "addresses", "write an IP address, or put the name into /etc/hosts of all nodes", "%s", err.text);
			}
		if (!bad)
			val_add(v, VAL_OK, n->name, "addresses", NULL, "%u of them resolve", n->n_addrs);
	}
	if (c->n && c->node[0].n_addrs == 1)
		val_add(v, VAL_WARNING, CONF_COROSYNC, "networks", "give each node a second address on another network (ring1_addr)",
			"one network only: a switch or a cable that fails splits the cluster");
}

static bool check_files(struct val *v)
{
	const char *const test[] = { "corosync", "-t", NULL };
	struct csv_err err = CSV_ERR_INIT;
	char *text = NULL, said[200];
	size_t n;
	int rc = conf_file_read(CONF_COROSYNC, CONF_FILE_MAX, &text, &n, &err);

	if (!rc)
		rc = conf_parse(text, CONF_COROSYNC, v->conf, &err);
	free(text);
	if (rc) {
		val_add(v, VAL_WRONG, CONF_COROSYNC, "configuration", rc == -ENOENT ? "csvctl cluster init on the first node, csvctl cluster join on the others" :
			"correct the line", "%s", err.text);
		return false;
	}
	rc = val_run(said, sizeof(said), test);
	if (rc == 127)
		val_add(v, VAL_WRONG, "corosync", "program", "apt-get install corosync", "it is not installed");
	else if (rc)
		val_add(v, VAL_WRONG, CONF_COROSYNC, "configuration", "correct it", "corosync does not accept it: %s", said);
	if (conf_has_crypto(v->conf))
		val_add(v, VAL_OK, CONF_COROSYNC, "encryption", NULL, "%s, %s", v->conf->cipher, v->conf->hash);
	else
		val_add(v, VAL_WRONG, CONF_COROSYNC, "encryption", "in totem: crypto_cipher: aes256 and crypto_hash: sha256, the same on all nodes, and a key",
			"crypto_cipher and crypto_hash are not both set: anyone on the network can take part");
	check_key(v);
	check_votes(v);
	check_nodes(v);
	return true;
}

/* ---- what runs ------------------------------------------------------------------------------------------------------------------------ */

static bool is_member(const struct admin_seen *s, uint32_t id)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (s->id[i] == id)
			return true;
	return false;
}

static void check_links(struct val *v, const struct conf_node *n)
{
	cmap_handle_t h;

	if (cmap_initialize_map(&h, CMAP_MAP_STATS) != CS_OK)
		return;
	for (unsigned k = 0; k < n->n_addrs; k++) {
		char key[CMAP_KEYNAME_MAXLEN + 1], object[160];
		uint8_t up;

		snprintf(key, sizeof(key), "stats.knet.node%u.link%u.connected", n->nodeid, k);
		if (cmap_get_uint8(h, key, &up) != CS_OK || up)
			continue;
		snprintf(object, sizeof(object), "%s link %u", n->name, k);
		val_add(v, VAL_WRONG, object, "network", "look at cable, switch, address and firewall (UDP 5405 and up)", "%s does not answer", n->addr[k]);
	}
	cmap_finalize(h);
}

static void check_running(struct val *v, struct admin_seen *seen)
{
	const struct conf *c = v->conf;
	struct cluster_facts f;
	struct csv_err err = CSV_ERR_INIT;

	memset(seen, 0, sizeof(*seen));
	if (cluster_facts_read(&f, &err)) {
		val_add(v, VAL_WRONG, "corosync", "running", "systemctl enable --now corosync; journalctl -u corosync says why not", "%s", err.text);
		return;
	}
	if (!admin_look(seen)) {
		val_add(v, VAL_WRONG, "corosync", "quorum", "corosync-quorumtool -s; journalctl -u corosync", "its quorum service does not answer");
		return;
	}
	if (strcmp(f.cluster_name, c->cluster) != 0 || f.nodes != c->n || f.crypto != conf_has_crypto(c))
		val_add(v, VAL_WRONG, "corosync", "configuration", "systemctl restart corosync (unmount the volumes before)",
			"it runs with another configuration (cluster %s, %u nodes, encryption %s) than " CONF_COROSYNC " has (%s, %u, %s)", f.cluster_name, f.nodes,
			f.crypto ? "on" : "off", c->cluster, c->n, conf_has_crypto(c) ? "on" : "off");
	if (f.two_node && !f.has_qdevice)
		val_add(v, VAL_WRONG, "corosync", "votes", "remove two_node from " CONF_COROSYNC, "runs with two_node and no quorum device");
	if (seen->quorate)
		val_add(v, VAL_OK, c->cluster, "quorum", NULL, "%u of %u nodes are here", seen->n, c->n);
	else
		val_add(v, VAL_WRONG, c->cluster, "quorum", "start corosync on more nodes, or look at the network", "none: %u of %u nodes are here", seen->n, c->n);
	for (unsigned i = 0; i < c->n; i++) {
		const struct conf_node *n = &c->node[i];

		if (!is_member(seen, n->nodeid))
			val_add(v, VAL_WARNING, n->name, "member", "on it: systemctl status corosync; csvctl cluster validate --with THIS-HOST there compares key and configuration",
				"not a member: it is off, its corosync does not run, or it has another key");
		else if (conf_has_crypto(c))
			val_add(v, VAL_OK, n->name, "key", NULL, "a member, so it has the same key");
		if (n->nodeid != f.self && is_member(seen, n->nodeid))
			check_links(v, n);
	}
}

/* ---- fencing ------------------------------------------------------------------------------------------------------------------------- */

struct ask { pthread_t thread; uint32_t nodeid; unsigned most_s; bool on, started; int rc; struct csv_err err; struct fence_conf conf; };

static void *ask_status(void *arg)
{
	struct ask *a = arg;

	a->rc = fence_status(CONF_FENCE, a->nodeid, a->most_s, &a->on, &a->err);
	return NULL;
}

static void judge_fence(struct val *v, const struct ask *a, const struct conf_node *n, bool member)
{
	char object[PATH_MAX + 80];

	snprintf(object, sizeof(object), "%s (%s)", n->name, a->conf.agent);
	if (!a->started || a->rc)
		val_add(v, VAL_WRONG, object, "fence agent", "fence.conf(5) shows how to try it by hand", "%s", a->started ? a->err.text : "no thread for it");
	else if (member && !a->on)
		val_add(v, VAL_WRONG, object, "fence agent", "look which machine it switches: a wrong one would be switched off, or none",
			"says that %s is off, but it is a member of the cluster", n->name);
	else
		val_add(v, VAL_OK, object, "fence agent", NULL, "says that it is %s", a->on ? "on" : "off");
}

static void check_fence(struct val *v, const struct admin_seen *seen)
{
	const struct conf *c = v->conf;
	struct ask *ask = calloc(CLUSTER_NODES_MAX, sizeof(*ask));
	struct stat st;

	if (!ask)
		return;
	if (!stat(CONF_FENCE, &st))
		check_mode(v, CONF_FENCE, 0600, "passwords");
	for (unsigned i = 0; i < c->n; i++) {
		struct csv_err err = CSV_ERR_INIT;

		ask[i].nodeid = c->node[i].nodeid;
		ask[i].most_s = (unsigned)csv_max(v->cc->timeout_ms / 1000, 1);
		if (fence_conf_read(CONF_FENCE, ask[i].nodeid, &ask[i].conf, &err)) {
			val_add(v, VAL_WRONG, c->node[i].name, "fence agent", "write a section for it; see fence.conf(5)", "%s", err.text);
			continue;
		}
		if (access(ask[i].conf.agent, X_OK)) {
			val_add(v, VAL_WRONG, ask[i].conf.agent, "fence agent", "apt-get install fence-agents", "the agent of %s: %s", c->node[i].name, strerror(errno));
			continue;
		}
		for (unsigned k = 0; k < i; k++)
			if (!strcmp(ask[k].conf.agent, ask[i].conf.agent) && !strcmp(ask[k].conf.stdin_keys, ask[i].conf.stdin_keys))
				val_add(v, VAL_WRONG, c->node[i].name, "fence agent", "each node has an address, plug or port of its own",
					"the same agent with the same options as %s: one of them is not switched", c->node[k].name);
		ask[i].started = !cc_opt(v->cc, "no-fence") && !pthread_create(&ask[i].thread, NULL, ask_status, &ask[i]);
	}
	for (unsigned i = 0; i < c->n; i++)
		if (ask[i].started) {
			pthread_join(ask[i].thread, NULL);
			judge_fence(v, &ask[i], &c->node[i], is_member(seen, c->node[i].nodeid));
		}
	free(ask);
}

/* ---- other nodes ------------------------------------------------------------------------------------------------------------------------ */

static void compare_with(struct val *v, const char *from)
{
	static const char *const what[ADMIN_FILES] = { "key", "fence.conf", "corosync.conf" };
	struct admin_set mine, theirs;
	int64_t ahead, unsure;

	admin_set_init(&mine, NULL);
	admin_set_init(&theirs, NULL);
	if (admin_set_read(v->cc, &mine) || admin_bundle_fetch(v->cc, from, &theirs, &ahead, &unsure)) {
		val_add(v, VAL_WRONG, from, "comparison", "look at ssh, and at csvctl cluster bundle there", "%s",
			json_string_value(json_object_get(v->cc->reply, "message")));
	} else {
		for (int i = 0; i < ADMIN_FILES; i++) {
			const struct admin_file *a = &mine.file[i], *b = &theirs.file[i];

			if (a->n == b->n && !memcmp(a->data, b->data, a->n))
				val_add(v, VAL_OK, from, what[i], NULL, "the same");
			else
				val_add(v, VAL_WRONG, from, what[i], "decide which is right; csvctl cluster join HOST takes it over", "another one than here: %s",
					a->path);
		}
		if (ahead != INT64_MIN && (ahead > CLOCK_APART_MS + unsure || ahead < -CLOCK_APART_MS - unsure))
			val_add(v, VAL_WARNING, from, "clock", "set up time synchronisation: apt-get install chrony", "%lld ms %s", (long long)(ahead < 0 ? -ahead : ahead),
				ahead < 0 ? "behind" : "ahead");
		else if (ahead != INT64_MIN)
			val_add(v, VAL_OK, from, "clock", NULL, "the same within %lld ms", (long long)(CLOCK_APART_MS + unsure));
	}
	admin_set_done(&mine);
	admin_set_done(&theirs);
}

/* The devices of the volumes that are mounted here. */
static void check_devices(struct val *v)
{
	const char *device = cc_opt(v->cc, "device");
	json_t *items, *it, *found;
	unsigned n;
	size_t i;

	if (device) {
		val_device(v, device);
		return;
	}
	found = json_object_get(v->cc->reply, "items");
	json_incref(found);
	json_object_set_new(v->cc->reply, "items", json_array());
	cc_ask_volumes(v->cc, NULL, 0, "volume.list", NULL, &n);
	items = json_object_get(v->cc->reply, "items");
	json_incref(items);
	json_object_set_new(v->cc->reply, "items", found);
	json_array_foreach(items, i, it)
		if (json_string_value(json_object_get(it, "device")))
			val_device(v, json_string_value(json_object_get(it, "device")));
	json_decref(items);
}

enum rpc_code cc_cluster_validate(struct cc *cc)
{
	struct val v = { .cc = cc, .conf = calloc(1, sizeof(*v.conf)) };
	struct admin_seen seen = { .n = 0 };
	const char *with;

	if (!v.conf)
		return cc_fail(cc, RPC_FAILED, "out of memory");
	if (geteuid()) {
		free(v.conf);
		return cc_fail(cc, RPC_PERMISSION, "the key and fence.conf are root's: run as root");
	}
	if (check_files(&v)) {
		check_running(&v, &seen);
		check_fence(&v, &seen);
		for (unsigned i = 0; (with = cc_opt_nth(cc, "with", i)); i++)
			compare_with(&v, with);
	}
	val_host(&v);
	check_devices(&v);
	json_object_del(cc->reply, "message");
	json_object_set_new(cc->reply, "checks", json_integer(v.n[VAL_OK] + v.n[VAL_WARNING] + v.n[VAL_WRONG]));
	json_object_set_new(cc->reply, "wrong", json_integer(v.n[VAL_WRONG]));
	free(v.conf);
	return cc_fail(cc, v.n[VAL_WRONG] ? RPC_FAILED : RPC_OK, "%u in order, %u warnings, %u wrong", v.n[VAL_OK], v.n[VAL_WARNING], v.n[VAL_WRONG]);
}
