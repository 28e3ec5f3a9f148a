/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_conf.c - reading and writing corosync.conf, and files as a whole.
 */
#include "utils/tools/csvctl_conf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "utils/base/base.h"
#include "utils/base/file.h"
#include "utils/base/text.h"

#define TOKEN_ROUNDS 3u
#define TOKEN_MS 3000		/* corosync's default */
#define TOKEN_COEFFICIENT_MS 650

/* ---- reading ------------------------------------------------------------------------------------------------------------------- */

struct parse {
	const char *path;
	unsigned line, depth;
	char section[4][32];
	struct conf *c;
	struct csv_err *err;
};

static int take_text(const struct parse *p, const char *key, const char *value, char *ret, size_t size)
{
	if (strlen(value) >= size)
		return csv_err_set(p->err, -E2BIG, "%s: line %u: %s is longer than %zu characters", p->path, p->line, key, size - 1);
	memcpy(ret, value, strlen(value) + 1);
	return 0;
}

static int take_number(const struct parse *p, const char *key, const char *value, uint32_t *ret)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(value, &end, 10);
	if (end == value || *end || errno || v > UINT32_MAX || *value == '-')
		return csv_err_set(p->err, -EINVAL, "%s: line %u: %s: %.40s: write a number", p->path, p->line, key, value);
	*ret = (uint32_t)v;
	return 0;
}

static int take_flag(const struct parse *p, const char *key, const char *value, bool *ret)
{
	uint32_t v = 0;
	int rc;

	if (!strcmp(value, "on") || !strcmp(value, "yes") || !strcmp(value, "off") || !strcmp(value, "no")) {
		*ret = !strcmp(value, "on") || !strcmp(value, "yes");
		return 0;
	}
	rc = take_number(p, key, value, &v);
	*ret = v != 0;
	return rc;
}

static int node_key(const struct parse *p, const char *key, const char *value)
{
	struct conf_node *n = &p->c->node[p->c->n - 1];
	unsigned ring;
	int end = 0;

	if (!strcmp(key, "nodeid"))
		return take_number(p, key, value, &n->nodeid);
	if (!strcmp(key, "name"))
		return take_text(p, key, value, n->name, sizeof(n->name));
	if (sscanf(key, "ring%u_addr%n", &ring, &end) == 1 && !key[end]) {
		if (ring >= CONF_ADDRS_MAX || n->n_addrs >= CONF_ADDRS_MAX)
			return csv_err_set(p->err, -E2BIG, "%s: line %u: %s: at most %d addresses a node", p->path, p->line, key, CONF_ADDRS_MAX);
		return take_text(p, key, value, n->addr[n->n_addrs++], sizeof(n->addr[0]));
	}
	return 0;
}

static bool in(const struct parse *p, const char *a, const char *b, const char *c)
{
	const char *want[] = { a, b, c };
	unsigned n = c ? 3 : b ? 2 : 1;

	if (p->depth != n)
		return false;
	for (unsigned i = 0; i < n; i++)
		if (strcmp(p->section[i], want[i]) != 0)
			return false;
	return true;
}

static int key_value(const struct parse *p, const char *key, const char *value)
{
	struct conf *c = p->c;

	if (in(p, "nodelist", "node", NULL))
		return node_key(p, key, value);
	if (in(p, "totem", NULL, NULL)) {
		if (!strcmp(key, "cluster_name"))
			return take_text(p, key, value, c->cluster, sizeof(c->cluster));
		if (!strcmp(key, "transport"))
			return take_text(p, key, value, c->transport, sizeof(c->transport));
		if (!strcmp(key, "crypto_cipher"))
			return take_text(p, key, value, c->cipher, sizeof(c->cipher));
		if (!strcmp(key, "crypto_hash"))
			return take_text(p, key, value, c->hash, sizeof(c->hash));
		if (!strcmp(key, "keyfile"))
			return take_text(p, key, value, c->keyfile, sizeof(c->keyfile));
		if (!strcmp(key, "secauth"))
			return take_flag(p, key, value, &c->secauth);
		if (!strcmp(key, "token"))
			return take_number(p, key, value, &c->token_ms);
		if (!strcmp(key, "consensus"))
			return take_number(p, key, value, &c->consensus_ms);
	}
	if (in(p, "quorum", NULL, NULL)) {
		if (!strcmp(key, "provider"))
			return take_text(p, key, value, c->provider, sizeof(c->provider));
		if (!strcmp(key, "expected_votes"))
			return take_number(p, key, value, &c->expected_votes);
		if (!strcmp(key, "two_node"))
			return take_flag(p, key, value, &c->two_node);
	}
	if (in(p, "quorum", "device", NULL) && !strcmp(key, "model"))
		return take_text(p, key, value, c->qdevice, sizeof(c->qdevice));
	if (in(p, "quorum", "device", "net") && !strcmp(key, "host"))
		return take_text(p, key, value, c->qdevice_host, sizeof(c->qdevice_host));
	return 0;
}

static int parse_line(struct parse *p, char *s)
{
	size_t n;
	char *value;

	s = csv_trim(s);
	n = strlen(s);
	if (!n || *s == '#')
		return 0;
	if (!strcmp(s, "}")) {
		if (!p->depth)
			return csv_err_set(p->err, -EINVAL, "%s: line %u: a } without its section: remove it", p->path, p->line);
		p->depth--;
		return 0;
	}
	if (s[n - 1] == '{') {
		s[n - 1] = '\0';
		s = csv_trim(s);
		if (p->depth == ARRAY_SIZE(p->section))
			return csv_err_set(p->err, -EINVAL, "%s: line %u: sections in sections in sections: is a } missing?", p->path, p->line);
		if (take_text(p, "a section's name", s, p->section[p->depth], sizeof(p->section[0])))
			return p->err ? p->err->code : -E2BIG;
		p->depth++;
		if (in(p, "nodelist", "node", NULL)) {
			if (p->c->n == ARRAY_SIZE(p->c->node))
				return csv_err_set(p->err, -E2BIG, "%s: line %u: more than %d nodes", p->path, p->line, CLUSTER_NODES_MAX);
			p->c->n++;
		}
		return 0;
	}
	value = strchr(s, ':');
	if (!value)
		return csv_err_set(p->err, -EINVAL, "%s: line %u: '%.40s': write KEY: VALUE, SECTION { or }", p->path, p->line, s);
	*value++ = '\0';
	return key_value(p, csv_trim(s), csv_trim(value));
}

int conf_parse(const char *text, const char *path, struct conf *ret, struct csv_err *err)
{
	struct conf *c = calloc(1, sizeof(*c));
	struct parse p = { .path = path, .c = c, .err = err };
	char *all = strdup(text), *next = all, *line;
	int rc = 0;

	if (!c || !all)
		rc = csv_err_set(err, -ENOMEM, "%s: out of memory", path);
	while (!rc && (line = strsep(&next, "\n"))) {
		p.line++;
		rc = parse_line(&p, line);
	}
	if (!rc && p.depth)
		rc = csv_err_set(err, -EINVAL, "%s: the section %s is not closed: a } is missing", path, p.section[p.depth - 1]);
	if (!rc)
		*ret = *c;
	free(all);
	free(c);
	return rc;
}

const struct conf_node *conf_node_find(const struct conf *c, const char *name)
{
	for (unsigned i = 0; i < c->n; i++)
		if (!strcmp(c->node[i].name, name))
			return &c->node[i];
	return NULL;
}

bool conf_has_crypto(const struct conf *c)
{
	const char *cipher = *c->cipher ? c->cipher : c->secauth ? "aes256" : "none";
	const char *hash = *c->hash ? c->hash : c->secauth ? "sha256" : "none";

	return strcmp(cipher, "none") != 0 && strcmp(hash, "none") != 0;
}

bool conf_is_example(const struct conf *c)
{
	return !strcmp(c->cluster, "debian") && c->n == 1 && c->node[0].n_addrs == 1 && !strcmp(c->node[0].addr[0], "127.0.0.1");
}

uint32_t conf_token_ms(const struct conf *c)
{
	return (c->token_ms ? c->token_ms : TOKEN_MS) + (c->n > 2 ? (c->n - 2) * TOKEN_COEFFICIENT_MS : 0);
}

bool conf_name_ok(const char *s)
{
	size_t n = strlen(s);

	return n && n < 64 && s[0] != '-' && s[0] != '.' &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == n;
}

/* ---- writing -------------------------------------------------------------------------------------------------------------------- */

char *conf_render(const struct conf *c, const char *note)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	fputs("# The same on every node; made by csvctl cluster init. See corosync.conf(5).\n", f);
	if (note)
		fprintf(f, "# %s\n", note);
	fprintf(f, "totem {\n\tversion: 2\n\tcluster_name: %s\n\ttransport: knet\n", c->cluster);
	fprintf(f, "\t# Without these two anyone on the network can take part.\n\tcrypto_cipher: %s\n\tcrypto_hash: %s\n", c->cipher, c->hash);
	fprintf(f, "\t# Milliseconds; corosync adds 650 for each node beyond two, and takes 1.2 times that as consensus.\n\ttoken: %" PRIu32 "\n",
		c->token_ms ? c->token_ms : TOKEN_MS);
	fprintf(f, "\t# After a message the token goes round so often before it rests: 30 would cost every node some 20 ms of processor a message.\n"
		"\tseqno_unchanged_const: %u\n}\n", TOKEN_ROUNDS);
	fputs("quorum {\n\tprovider: corosync_votequorum\n", f);
	if (*c->qdevice)
		fprintf(f, "\tdevice {\n\t\tmodel: %s\n\t\tvotes: 1\n\t\tnet {\n\t\t\thost: %s\n\t\t\talgorithm: ffsplit\n\t\t\ttls: on\n\t\t}\n\t}\n",
			c->qdevice, c->qdevice_host);
	else
		fprintf(f, "\texpected_votes: %u\n", c->n);
	fputs("}\nsystem {\n\t# It stays in the control group it was started in.\n\tmove_to_root_cgroup: no\n}\n"
	      "logging {\n\tto_stderr: no\n\tto_syslog: yes\n\tto_logfile: yes\n\tlogfile: /var/log/corosync/corosync.log\n\ttimestamp: hires\n}\n"
	      "nodelist {\n", f);
	for (unsigned i = 0; i < c->n; i++) {
		const struct conf_node *n = &c->node[i];

		fprintf(f, "\tnode {\n\t\tnodeid: %" PRIu32 "\n\t\tname: %s\n", n->nodeid, n->name);
		for (unsigned k = 0; k < n->n_addrs; k++)
			fprintf(f, "\t\tring%u_addr: %s\n", k, n->addr[k]);
		fputs("\t}\n", f);
	}
	fputs("}\n", f);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

/* ---- files ---------------------------------------------------------------------------------------------------------------------- */

int conf_file_read(const char *path, size_t max, char **ret_data, size_t *ret_n, struct csv_err *err)
{
	int fd = strcmp(path, "-") != 0 ? open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY) : dup(STDIN_FILENO), rc = 0;
	char *data = malloc(max + 2);
	size_t n = 0;

	if (!data)
		rc = csv_err_set(err, -ENOMEM, "%s: out of memory", path);
	else if (fd < 0)
		rc = csv_err_set(err, -errno, "%s: %s", path, strerror(errno));
	while (!rc) {
		ssize_t r = read(fd, data + n, max + 1 - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			rc = csv_err_set(err, -errno, "%s: cannot be read: %s", path, strerror(errno));
		if (r <= 0)
			break;
		n += (size_t)r;
		if (n > max)
			rc = csv_err_set(err, -EFBIG, "%s: longer than %zu bytes: this is not what is expected there", path, max);
	}
	if (fd >= 0)
		close(fd);
	if (rc) {
		free(data);
		return rc;
	}
	data[n] = '\0';
	*ret_data = data;
	*ret_n = n;
	return 0;
}

static bool same_content(const char *path, const void *data, size_t n)
{
	char *old = NULL;
	size_t old_n = 0;
	bool same = !conf_file_read(path, CONF_FILE_MAX, &old, &old_n, NULL) && old_n == n && !memcmp(old, data, n);

	free(old);
	return same;
}

static int make_dirs(char *dir)
{
	for (char *s = dir + 1; *s; s++) {
		if (*s != '/')
			continue;
		*s = '\0';
		if (mkdir(dir, 0755) && errno != EEXIST)
			return -errno;
		*s = '/';
	}
	return mkdir(dir, 0755) && errno != EEXIST ? -errno : 0;
}

/* The new name, in one step; an old file stays as PATH.old. */
static int put_in_place(const char *new, const char *path, bool replace)
{
	char old[PATH_MAX + 8];

	if (!link(new, path))
		return unlink(new) ? -errno : 0;
	if (errno != EEXIST || !replace)
		return -errno;
	snprintf(old, sizeof(old), "%s.old", path);
	if (unlink(old) && errno != ENOENT)
		return -errno;
	if (link(path, old) && errno != ENOENT)
		return -errno;
	return rename(new, path) ? -errno : 0;
}

int conf_file_write(const char *path, const void *data, size_t n, mode_t mode, bool replace, struct csv_err *err)
{
	char dir[PATH_MAX], new[PATH_MAX + 16];
	int fd, rc;

	if (strlen(path) >= sizeof(dir))
		return csv_err_set(err, -ENAMETOOLONG, "%.60s...: the path is too long", path);
	strcpy(dir, path);
	dirname(dir);
	rc = make_dirs(dir);
	if (rc)
		return csv_err_set(err, rc, "%s: cannot be made: %s", dir, strerror(-rc));
	if (same_content(path, data, n)) {
		if (chmod(path, mode))
			return csv_err_set(err, -errno, "%s: chmod: %s", path, strerror(errno));
		return 0;
	}
	snprintf(new, sizeof(new), "%s.XXXXXX", path);
	fd = mkostemp(new, O_CLOEXEC);
	if (fd < 0)
		return csv_err_set(err, -errno, "%s: cannot be written: %s", path, strerror(errno));
	rc = fchmod(fd, mode) ? -errno : csv_write_all(fd, data, n);
	if (!rc && fsync(fd))
		rc = -errno;
	if (close(fd) && !rc)
		rc = -errno;
	if (!rc)
		rc = put_in_place(new, path, replace);
	if (!rc)
		rc = csv_dir_sync(dir);
	if (rc) {
		unlink(new);
		if (rc == -EEXIST)
			return csv_err_set(err, rc, "%s: is there already and something else: to replace it: --force=REASON", path);
		return csv_err_set(err, rc, "%s: cannot be written: %s", path, strerror(-rc));
	}
	return 0;
}
