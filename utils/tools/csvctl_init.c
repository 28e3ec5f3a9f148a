/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_init.c - cluster init: corosync.conf, its key and fence.conf for a new cluster, from names and addresses.
 *
 * Nothing that is there is replaced without --force=REASON (Debian's example of a corosync.conf does not count), and what was
 * replaced stays beside it as PATH.old.
 */
#include "utils/tools/csvctl_admin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "utils/env/real_fence_helper.h"

/* ---- the set of files ------------------------------------------------------------------------------------------------------------ */

void admin_set_init(struct admin_set *s, const char *root)
{
	static const struct { const char *path; mode_t mode; bool secret; } want[ADMIN_FILES] = {
		[ADMIN_KEY] = { CONF_AUTHKEY, 0400, true },
		[ADMIN_FENCE] = { CONF_FENCE, 0600, false },
		[ADMIN_COROSYNC] = { CONF_COROSYNC, 0644, false },
	};

	memset(s, 0, sizeof(*s));
	for (int i = 0; i < ADMIN_FILES; i++) {
		snprintf(s->file[i].path, sizeof(s->file[i].path), "%s%s", root ? root : "", want[i].path);
		s->file[i].mode = want[i].mode;
		s->file[i].secret = want[i].secret;
	}
}

void admin_set_done(struct admin_set *s)
{
	for (int i = 0; i < ADMIN_FILES; i++) {
		if (s->file[i].data)
			explicit_bzero(s->file[i].data, s->file[i].n);
		free(s->file[i].data);
		s->file[i].data = NULL;
	}
}

enum rpc_code admin_set_read(struct cc *cc, struct admin_set *s)
{
	for (int i = 0; i < ADMIN_FILES; i++) {
		struct admin_file *f = &s->file[i];
		struct csv_err err = CSV_ERR_INIT;
		int rc = conf_file_read(f->path, CONF_FILE_MAX, &f->data, &f->n, &err);

		if (rc == -ENOENT && i == ADMIN_FENCE) {
			f->data = strdup("");
			continue;
		}
		if (rc == -ENOENT)
			return cc_fail(cc, RPC_NOT_FOUND, "%s: not there: this host is in no cluster yet; see: csvctl cluster init --help", f->path);
		if (rc)
			return cc_fail(cc, rpc_code_of(rc), "%s", err.text);
	}
	return RPC_OK;
}

/* How a file that is to be written stands to the one that is there. */
enum stand { STAND_NEW, STAND_SAME, STAND_EXAMPLE, STAND_OTHER };
static enum stand stand_of(const struct admin_file *f)
{
	struct conf *c = malloc(sizeof(*c));
	enum stand st = STAND_OTHER;
	char *old = NULL;
	size_t n = 0;
	int rc = conf_file_read(f->path, CONF_FILE_MAX, &old, &n, NULL);

	if (rc == -ENOENT)
		st = STAND_NEW;
	else if (!rc && n == f->n && !memcmp(old, f->data, n))
		st = STAND_SAME;
	else if (!rc && c && !f->secret && !conf_parse(old, f->path, c, NULL) && conf_is_example(c))
		st = STAND_EXAMPLE;
	if (old)
		explicit_bzero(old, n);
	free(old);
	free(c);
	return st;
}

/* For people who look before they do it; a key is not shown. */
static void show(const struct admin_file *f)
{
	printf("# ---- %s (mode %04o)\n", f->path, (unsigned)f->mode);
	if (f->secret)
		printf("# %zu random bytes\n", f->n);
	else
		fwrite(f->data, 1, f->n, stdout);
	putchar('\n');
}

enum rpc_code admin_set_put(struct cc *cc, struct admin_set *s)
{
	static const char *const done[] = { "written", "unchanged", "replaced the package's example", "replaced" };
	static const char *const would[] = { "would be written", "unchanged", "would replace the package's example", "would be replaced" };
	const char *force = cc_opt(cc, "force");
	enum stand st[ADMIN_FILES];
	struct csv_err err = CSV_ERR_INIT;

	for (int i = 0; i < ADMIN_FILES; i++) {
		st[i] = stand_of(&s->file[i]);
		if (st[i] == STAND_OTHER && !force)
			return cc_fail(cc, RPC_CONFLICT, "%s: is there already: nothing was changed; if it is not needed any more: "
				       "--force=REASON (it is kept as %s.old)", s->file[i].path, s->file[i].path);
	}
	for (int i = 0; i < ADMIN_FILES; i++) {
		struct admin_file *f = &s->file[i];

		if (cc->dry_run && cc->format == CC_TABLE)
			show(f);
		if (!cc->dry_run && conf_file_write(f->path, f->data, f->n, f->mode, st[i] >= STAND_EXAMPLE, &err))
			return cc_fail(cc, rpc_code_of(err.code), "%s", err.text);
		if (!cc->dry_run && force && st[i] == STAND_OTHER)
			syslog(LOG_NOTICE, "csvctl %s %s: %s replaced: %s", cc->cmd->noun, cc->cmd->verb, f->path, force);
		rpc_reply_add_take(cc->reply, json_pack("{s:s, s:s, s:s, s:I, s:o}", "path", f->path, "action", (cc->dry_run ? would : done)[st[i]],
							"mode", i == ADMIN_KEY ? "0400" : i == ADMIN_FENCE ? "0600" : "0644", "size_bytes",
							(json_int_t)f->n, "content", f->secret || !cc->dry_run ? json_null() : json_string(f->data)));
	}
	json_object_set_new(cc->reply, "dry_run", json_boolean(cc->dry_run));
	return RPC_OK;
}

/* ---- arguments -------------------------------------------------------------------------------------------------------------------- */

/* NAME=ADDRESS[,ADDRESS]... */
static enum rpc_code add_node(struct cc *cc, struct conf *c, const char *arg)
{
	struct conf_node *n = &c->node[c->n];
	const char *eq = strchr(arg, '='), *s;
	size_t len;

	if (c->n == ARRAY_SIZE(c->node))
		return cc_fail(cc, RPC_USAGE, "--node %s: more than %d nodes", arg, CLUSTER_NODES_MAX);
	if (!eq || !eq[1])
		return cc_fail(cc, RPC_USAGE, "--node %s: write NAME=ADDRESS, for instance host1=192.0.2.1", arg);
	snprintf(n->name, sizeof(n->name), "%.*s", (int)csv_min((size_t)(eq - arg), sizeof(n->name) - 1), arg);
	if ((size_t)(eq - arg) >= sizeof(n->name) || !conf_name_ok(n->name))
		return cc_fail(cc, RPC_USAGE, "--node %s: a name is 1 to 63 of letters, digits and . _ -", arg);
	if (conf_node_find(c, n->name))
		return cc_fail(cc, RPC_USAGE, "--node %s: the name is given twice", arg);
	for (s = eq + 1; *s; s += len + (s[len] == ',')) {
		len = strcspn(s, ",");
		if (!len || len >= sizeof(n->addr[0]) || memchr(s, ' ', len) || memchr(s, '\n', len) || memchr(s, '#', len))
			return cc_fail(cc, RPC_USAGE, "--node %s: \"%.*s\" is no address", arg, (int)len, s);
		if (n->n_addrs == CONF_ADDRS_MAX)
			return cc_fail(cc, RPC_USAGE, "--node %s: more than %d addresses", arg, CONF_ADDRS_MAX);
		memcpy(n->addr[n->n_addrs++], s, len);
	}
	if (c->n && n->n_addrs != c->node[0].n_addrs)
		return cc_fail(cc, RPC_USAGE, "--node %s: %u addresses, but %s has %u: every node must be on every network", arg, n->n_addrs,
			       c->node[0].name, c->node[0].n_addrs);
	for (unsigned i = 0; i < c->n; i++)
		for (unsigned k = 0; k < n->n_addrs; k++)
			if (!strcmp(c->node[i].addr[k], n->addr[k]))
				return cc_fail(cc, RPC_USAGE, "--node %s: %s is the address of %s", arg, n->addr[k], c->node[i].name);
	n->nodeid = ++c->n;
	return RPC_OK;
}

/* NODE=AGENT[,KEY=VALUE]...; a comma in a value is written \, */
static enum rpc_code add_fence(struct cc *cc, const struct conf *c, const char *arg, FILE *out, bool *seen)
{
	char name[64], word[1024];
	const char *s = strchr(arg, '=');
	const struct conf_node *node;
	bool first = true;

	snprintf(name, sizeof(name), "%.*s", s ? (int)csv_min((size_t)(s - arg), sizeof(name) - 1) : 0, arg);
	node = conf_node_find(c, name);
	if (!s || !s[1])
		return cc_fail(cc, RPC_USAGE, "--fence %.20s: write NODE=AGENT,KEY=VALUE,..., for instance host1=fence_ipmilan,ip=198.51.100.1", arg);
	if (!node)
		return cc_fail(cc, RPC_USAGE, "--fence %s=...: no --node has that name", name);
	if (seen[node->nodeid - 1])
		return cc_fail(cc, RPC_USAGE, "--fence %s=...: given twice", name);
	seen[node->nodeid - 1] = true;
	fprintf(out, "\n# %s\n[node %" PRIu32 "]\n", name, node->nodeid);
	for (s++; *s || first; first = false) {
		size_t n = 0;

		for (; *s && *s != ','; s++) {
			if (*s == '\\' && s[1])
				s++;
			if (*s == '\n' || n + 1 == sizeof(word))
				return cc_fail(cc, RPC_USAGE, "--fence %s=...: a value is too long or has a line end", name);
			word[n++] = *s;
		}
		word[n] = '\0';
		s += *s == ',';
		if (first && access(word, X_OK) && word[0] == '/' && !cc_opt(cc, "root"))
			return cc_fail(cc, RPC_NOT_FOUND, "--fence %s=%s: no such program", name, word);
		if (first) {
			fprintf(out, "agent=%s%s\n", word[0] == '/' ? "" : "/usr/sbin/", word);
			continue;
		}
		if (!strchr(word, '=') || word[0] == '=' || !strncmp(word, "action=", 7))
			return cc_fail(cc, RPC_USAGE, "--fence %s=...: \"%.30s\" is not KEY=VALUE (action is chosen by csvfs)", name, word);
		fprintf(out, "%s\n", word);
	}
	return RPC_OK;
}

void admin_fence_warn(struct cc *cc, const struct conf *c, const bool *seen)
{
	char names[400] = "";

	for (unsigned i = 0; i < c->n; i++)
		if (!seen[i] && strlen(names) < 320)
			snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", *names ? ", " : "", c->node[i].name);
	if (*names)
		rpc_reply_warn(cc->reply, "no fence agent for %s: when such a node is lost, what it had locked waits until you confirm by hand that it "
					  "is off; write one into %s", names, CONF_FENCE);
}

static enum rpc_code fence_text(struct cc *cc, const struct conf *c, char **ret, size_t *ret_n)
{
	const char *file = cc_opt(cc, "fence-file"), *arg;
	struct csv_err err = CSV_ERR_INIT;
	enum rpc_code code = RPC_OK;
	bool seen[CLUSTER_NODES_MAX] = { 0 };
	unsigned i, n = 0;
	FILE *f;

	if (file && cc_opt(cc, "fence"))
		return cc_fail(cc, RPC_USAGE, "--fence and --fence-file: only one of them");
	if (file) {
		if (conf_file_read(file, CONF_FILE_MAX, ret, ret_n, &err))
			return cc_fail(cc, rpc_code_of(err.code), "%s", err.text);
		for (i = 0; i < c->n; i++) {
			struct fence_conf fc;

			if (fence_conf_read(file, c->node[i].nodeid, &fc, &err))
				return cc_fail(cc, RPC_USAGE, "%s", err.text);
		}
		return RPC_OK;
	}
	*ret = NULL;
	f = open_memstream(ret, ret_n);
	if (!f)
		return cc_fail(cc, RPC_FAILED, "out of memory");
	fputs("# How a lost node is switched off: the same on every node, see fence.conf(5). A section for each node id of corosync.conf.\n", f);
	for (i = 0; !code && (arg = cc_opt_nth(cc, "fence", i)); i++, n++)
		code = add_fence(cc, c, arg, f, seen);
	for (i = 0; !code && i < c->n; i++)
		if (!seen[i])
			fprintf(f, "\n# %s: nothing yet\n#[node %" PRIu32 "]\n#agent=/usr/sbin/fence_...\n", c->node[i].name, c->node[i].nodeid);
	if (fclose(f) && !code)
		code = cc_fail(cc, RPC_FAILED, "out of memory");
	if (code)
		return code;
	admin_fence_warn(cc, c, seen);
	return RPC_OK;
}

static enum rpc_code conf_of_args(struct cc *cc, struct conf *c)
{
	const char *name = cc_opt(cc, "name"), *token = cc_opt(cc, "token"), *qdevice = cc_opt(cc, "qdevice"), *arg;
	enum rpc_code code = RPC_OK;
	char *end, why[sizeof(((struct csv_err *)0)->text)];
	unsigned long v;

	if (!conf_name_ok(name))
		return cc_fail(cc, RPC_USAGE, "--name %s: 1 to 63 of letters, digits and . _ -", name);
	strcpy(c->cluster, name);
	strcpy(c->cipher, "aes256");
	strcpy(c->hash, "sha256");
	for (unsigned i = 0; !code && (arg = cc_opt_nth(cc, "node", i)); i++)
		code = add_node(cc, c, arg);
	if (code)
		return code;
	if (token) {
		v = strtoul(token, &end, 10);
		if (*end || end == token || v < 500 || v > 60000)
			return cc_fail(cc, RPC_USAGE, "--token %s: 500 to 60000 milliseconds", token);
		c->token_ms = (uint32_t)v;
	}
	if (qdevice) {
		if (!*qdevice || strlen(qdevice) >= sizeof(c->qdevice_host) || strpbrk(qdevice, " \t\n#{}"))
			return cc_fail(cc, RPC_USAGE, "--qdevice %s: the name or address of the host that runs corosync-qnetd", qdevice);
		strcpy(c->qdevice, "net");
		strcpy(c->qdevice_host, qdevice);
		rpc_reply_warn(cc->reply, "quorum device %s: on it, install and start corosync-qnetd; here, install corosync-qdevice, make its "
					  "certificates with corosync-qdevice-net-certutil, and start it", qdevice);
	}
	if (admin_votes_bad(c, why, sizeof(why)) && !cc_opt(cc, "force"))
		return cc_fail(cc, RPC_REFUSED, "%s", why);
	return RPC_OK;
}

enum rpc_code cc_cluster_init(struct cc *cc)
{
	const char *root = cc_opt(cc, "root"), *force = cc_opt(cc, "force");
	struct conf *c = calloc(1, sizeof(*c));
	struct csv_err err = CSV_ERR_INIT;
	struct admin_set s;
	struct admin_file *key = &s.file[ADMIN_KEY], *conf = &s.file[ADMIN_COROSYNC];
	enum rpc_code code;

	admin_set_init(&s, root);
	if (!c)
		return cc_fail(cc, RPC_FAILED, "out of memory");
	code = force && !*force ? cc_fail(cc, RPC_USAGE, "--force: say why: --force=REASON") : conf_of_args(cc, c);
	if (!code)
		code = fence_text(cc, c, &s.file[ADMIN_FENCE].data, &s.file[ADMIN_FENCE].n);
	if (code)
		goto out;
	key->data = malloc(CONF_KEY_BYTES);
	key->n = CONF_KEY_BYTES;
	conf->data = conf_render(c, NULL);
	if (!conf->data || !key->data || getrandom(key->data, key->n, 0) != (ssize_t)key->n) {
		code = cc_fail(cc, RPC_FAILED, "out of memory, or of random numbers");
		goto out;
	}
	conf->n = strlen(conf->data);
	code = admin_set_put(cc, &s);
	if (code)
		goto out;
	json_object_set_new(cc->reply, "cluster", json_string(c->cluster));
	json_object_set_new(cc->reply, "nodes", json_integer(c->n));
	json_object_set_new(cc->reply, "token_ms", json_integer(conf_token_ms(c)));
	json_object_set_new(cc->reply, "consensus_ms", json_integer(conf_token_ms(c) * 6 / 5));
	if (!root && !admin_self(c, &err))
		rpc_reply_warn(cc->reply, "%s", err.text);
	if (!cc->dry_run)
		cc_fail(cc, RPC_OK, "next, on each other node: csvctl cluster join THIS-HOST (or a file of csvctl cluster bundle); then on all: "
			"systemctl enable --now corosync, and csvctl cluster validate");
out:
	admin_set_done(&s);
	free(c);
	return code;
}
