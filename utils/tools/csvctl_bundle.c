/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_bundle.c - a cluster's configuration as one text, for the way from one node to the next: as a file, or over ssh.
 *
 * A JSON object: csvfs_bundle (1), cluster, time_ms (of its making), files {key, fence, corosync: base64}, sha256 over the three
 * contents.  It holds the cluster's key and the fence agents' passwords: 0600, and over ssh only.
 */
#include "utils/tools/csvctl_admin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const names[ADMIN_FILES] = { [ADMIN_KEY] = "key", [ADMIN_FENCE] = "fence", [ADMIN_COROSYNC] = "corosync" };

static int64_t clock_ms(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

static void digest(const struct admin_set *s, char ret_hex[static 2 * crypto_hash_sha256_BYTES + 1])
{
	unsigned char sum[crypto_hash_sha256_BYTES];
	crypto_hash_sha256_state st;

	crypto_hash_sha256_init(&st);
	for (int i = 0; i < ADMIN_FILES; i++) {
		uint64_t n = s->file[i].n;

		crypto_hash_sha256_update(&st, (const unsigned char *)&n, sizeof(n));
		crypto_hash_sha256_update(&st, (const unsigned char *)s->file[i].data, s->file[i].n);
	}
	crypto_hash_sha256_final(&st, sum);
	sodium_bin2hex(ret_hex, 2 * sizeof(sum) + 1, sum, sizeof(sum));
}

char *admin_bundle_encode(const struct admin_set *s, const char *cluster)
{
	json_t *files = json_object(), *o;
	char hex[2 * crypto_hash_sha256_BYTES + 1], *text;

	for (int i = 0; i < ADMIN_FILES; i++) {
		size_t n = sodium_base64_encoded_len(s->file[i].n, sodium_base64_VARIANT_ORIGINAL);
		char *b = malloc(n);

		if (!b)
			break;
		sodium_bin2base64(b, n, (const unsigned char *)s->file[i].data, s->file[i].n, sodium_base64_VARIANT_ORIGINAL);
		json_object_set_new(files, names[i], json_string(b));
		explicit_bzero(b, n);
		free(b);
	}
	digest(s, hex);
	o = json_pack("{s:i, s:s, s:I, s:o, s:s}", "csvfs_bundle", 1, "cluster", cluster, "time_ms", (json_int_t)clock_ms(CLOCK_REALTIME), "files",
		      files, "sha256", hex);
	text = o && json_object_size(files) == ADMIN_FILES ? json_dumps(o, JSON_INDENT(1)) : NULL;
	json_decref(o);
	return text;
}

static int64_t bundle_time(const char *text)
{
	json_t *o = json_loads(text, 0, NULL);
	json_int_t t = json_integer_value(json_object_get(o, "time_ms"));

	json_decref(o);
	return t;
}

int admin_bundle_decode(const char *text, const char *from, struct admin_set *s, struct csv_err *err)
{
	char hex[2 * crypto_hash_sha256_BYTES + 1];
	const char *want;
	json_error_t je;
	json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, &je), *files = json_object_get(o, "files");
	int rc = 0;

	if (!o)
		return csv_err_set(err, -EINVAL, "%s: not a bundle of csvctl cluster bundle: line %d: %s", from, je.line, je.text);
	if (json_integer_value(json_object_get(o, "csvfs_bundle")) != 1)
		rc = csv_err_set(err, -EINVAL, "%s: not a bundle of csvctl cluster bundle, or of a newer version: csvfs_bundle is not 1", from);
	for (int i = 0; !rc && i < ADMIN_FILES; i++) {
		const char *b = json_string_value(json_object_get(files, names[i]));
		size_t n = b ? strlen(b) : 0;

		s->file[i].data = malloc(n + 1);
		if (!b)
			rc = csv_err_set(err, -EINVAL, "%s: files.%s is missing: make the bundle anew", from, names[i]);
		else if (!s->file[i].data)
			rc = csv_err_set(err, -ENOMEM, "%s: out of memory", from);
		else if (n / 4 * 3 > CONF_FILE_MAX + 3 || sodium_base642bin((unsigned char *)s->file[i].data, n, b, n, NULL, &s->file[i].n, NULL,
									   sodium_base64_VARIANT_ORIGINAL))
			rc = csv_err_set(err, -EINVAL, "%s: files.%s is no base64, or too long: make the bundle anew", from, names[i]);
		else
			s->file[i].data[s->file[i].n] = '\0';
	}
	want = json_string_value(json_object_get(o, "sha256"));
	if (!rc) {
		digest(s, hex);
		if (!want || strcmp(want, hex) != 0)
			rc = csv_err_set(err, -EINVAL, "%s: its check sum does not fit: damaged on its way; make the bundle anew", from);
	}
	if (!rc && (strlen(s->file[ADMIN_COROSYNC].data) != s->file[ADMIN_COROSYNC].n || strlen(s->file[ADMIN_FENCE].data) != s->file[ADMIN_FENCE].n))
		rc = csv_err_set(err, -EINVAL, "%s: a NUL byte in a text: make the bundle anew", from);
	json_decref(o);
	return rc;
}

/* ---- fetching it ------------------------------------------------------------------------------------------------------------------ */

/* What `ssh HOST csvctl cluster bundle -` says; the terminal stays its own, for a password. */
static int over_ssh(const char *host, int timeout_ms, char **ret, struct csv_err *err)
{
	char *text = calloc(1, 4 * CONF_FILE_MAX), *argv[] = { "ssh", "-o", "ConnectTimeout=10", "--", (char *)host, "csvctl cluster bundle -", NULL };
	int64_t until = clock_ms(CLOCK_BOOTTIME) + timeout_ms;
	int p[2], status = 0, rc = 0;
	size_t n = 0;
	pid_t pid;

	if (!text || pipe2(p, O_CLOEXEC)) {
		free(text);
		return csv_err_set(err, -ENOMEM, "%s: out of memory", host);
	}
	pid = fork();
	if (!pid) {
		dup2(p[1], STDOUT_FILENO);
		execvp(argv[0], argv);
		fprintf(stderr, "ssh: %s: install openssh-client, or bring a file of csvctl cluster bundle\n", strerror(errno));
		_exit(127);
	}
	close(p[1]);
	while (pid > 0) {
		struct pollfd pf = { .fd = p[0], .events = POLLIN };
		int64_t left = until - clock_ms(CLOCK_BOOTTIME);
		ssize_t r;

		if (left <= 0) {
			kill(pid, SIGTERM);
			rc = csv_err_set(err, -ETIMEDOUT, "%s: no answer over ssh after %d s; see --timeout", host, timeout_ms / 1000);
			break;
		}
		if (poll(&pf, 1, (int)csv_min(left, (int64_t)1000)) <= 0)
			continue;
		r = read(p[0], text + n, 4 * CONF_FILE_MAX - 1 - n);
		if (r <= 0)
			break;
		n += (size_t)r;
	}
	close(p[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		rc = csv_err_set(err, -EAGAIN, "%s: ssh cannot be started", host);
	if (!rc && status)
		rc = csv_err_set(err, -EIO, "%s: ssh %s csvctl cluster bundle failed (exit %d): what it said is above; or bring a file of csvctl "
				 "cluster bundle", host, host, WIFEXITED(status) ? WEXITSTATUS(status) : 255);
	if (rc) {
		free(text);
		return rc;
	}
	*ret = text;
	return 0;
}

enum rpc_code admin_bundle_fetch(struct cc *cc, const char *from, struct admin_set *s, int64_t *ret_clock_ms, int64_t *ret_unsure_ms)
{
	struct csv_err err = CSV_ERR_INIT;
	char *text = NULL;
	struct stat st;
	size_t n;
	int64_t before = clock_ms(CLOCK_REALTIME), after;
	int rc;

	*ret_clock_ms = INT64_MIN;
	*ret_unsure_ms = 0;
	if (!strcmp(from, "-") || strchr(from, '/') || !access(from, F_OK)) {
		rc = conf_file_read(from, 4 * CONF_FILE_MAX, &text, &n, &err);
		if (!rc && strcmp(from, "-") != 0 && !stat(from, &st) && S_ISREG(st.st_mode) && (st.st_mode & 077))
			rpc_reply_warn(cc->reply, "%s: others may read it, and it holds the cluster's key: chmod 600, and remove it when all have joined", from);
	} else if (from[0] == '-') {
		return cc_fail(cc, RPC_USAGE, "%s: not a host", from);
	} else {
		rc = over_ssh(from, csv_max(cc->timeout_ms, 10000), &text, &err);
		after = clock_ms(CLOCK_REALTIME);
		if (!rc && bundle_time(text)) {
			*ret_clock_ms = bundle_time(text) - (before + after) / 2;
			*ret_unsure_ms = (after - before + 1) / 2;
		}
	}
	if (!rc)
		rc = admin_bundle_decode(text, from, s, &err);
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
	return rc ? cc_fail(cc, rc == -EINVAL ? RPC_FAILED : rpc_code_of(rc), "%s", err.text) : RPC_OK;
}

/* ---- cluster bundle ----------------------------------------------------------------------------------------------------------------- */

enum rpc_code cc_cluster_bundle(struct cc *cc)
{
	const char *to = cc->arg[0];
	struct conf *c = calloc(1, sizeof(*c));
	struct csv_err err = CSV_ERR_INIT;
	struct admin_set s;
	char *text = NULL;
	enum rpc_code code;

	admin_set_init(&s, cc_opt(cc, "root"));
	code = c ? admin_set_read(cc, &s) : cc_fail(cc, RPC_FAILED, "out of memory");
	if (!code && conf_parse(s.file[ADMIN_COROSYNC].data, s.file[ADMIN_COROSYNC].path, c, &err))
		code = cc_fail(cc, RPC_FAILED, "%s", err.text);
	if (!code && !(text = admin_bundle_encode(&s, c->cluster)))
		code = cc_fail(cc, RPC_FAILED, "out of memory");
	if (!code && !strcmp(to, "-")) {
		/* the text alone, for the other end of a pipe */
		puts(text);
		cc->format = CC_TABLE;
	} else if (!code) {
		if (!cc->dry_run && conf_file_write(to, text, strlen(text), 0600, cc_opt(cc, "force"), &err))
			code = cc_fail(cc, rpc_code_of(err.code), "%s", err.text);
		else
			rpc_reply_add_take(cc->reply, json_pack("{s:s, s:s, s:i}", "path", to, "cluster", c->cluster, "nodes", (int)c->n));
	}
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
	free(c);
	admin_set_done(&s);
	return code;
}
