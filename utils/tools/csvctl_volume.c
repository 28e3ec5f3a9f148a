/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_volume.c - asking the daemons of the volumes mounted on this node.
 *
 * Which there are: /run/csvfs/LOCKSPACE.lock was written by a daemon; whether it lives is said by its control socket.
 */
#include "utils/tools/csvctl_admin.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <mntent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "utils/rpc/rpc_client.h"

#define RUN_DIR "/run/csvfs"

struct mounted { char lockspace[17], dir[PATH_MAX], device[PATH_MAX], uuid[40]; };

static void read_line(const char *line, const char *key, char *ret, size_t size)
{
	size_t n = strlen(key);

	if (!strncmp(line, key, n) && line[n] == ' ')
		snprintf(ret, size, "%s", line + n + 1);
}

static bool read_lock(const char *name, struct mounted *m)
{
	char path[PATH_MAX], line[PATH_MAX + 16];
	size_t n = strlen(name);
	FILE *f;

	if (n != 21 || strcmp(name + 16, ".lock") || strspn(name, "0123456789abcdef") < 16)
		return false;
	memset(m, 0, sizeof(*m));
	snprintf(m->lockspace, sizeof(m->lockspace), "%.16s", name);
	snprintf(path, sizeof(path), RUN_DIR "/%s", name);
	snprintf(m->dir, sizeof(m->dir), "volume %s", m->lockspace);
	f = fopen(path, "re");
	if (!f)
		return errno == EACCES;		/* the daemon itself will say who may ask */
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		read_line(line, "dir", m->dir, sizeof(m->dir));
		read_line(line, "device", m->device, sizeof(m->device));
		read_line(line, "uuid", m->uuid, sizeof(m->uuid));
	}
	fclose(f);
	return true;
}

static bool is_named(const struct mounted *m, const char *name, const json_t *reply)
{
	const char *label = json_string_value(json_object_get(json_array_get(json_object_get(reply, "items"), 0), "name"));
	char real[PATH_MAX];

	if (!strcmp(name, m->dir) || !strcmp(name, m->device) || !strcmp(name, m->uuid) || !strcmp(name, m->lockspace))
		return true;
	if (label && !strcmp(name, label))
		return true;
	return strchr(name, '/') && realpath(name, real) && (!strcmp(real, m->dir) || !strcmp(real, m->device));
}

/* Figures of several volumes are added up. */
static void add_stats(json_t *sum, const json_t *more)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)more, key, v)
		if (json_is_integer(v))
			json_object_set_new(sum, key, json_integer(json_integer_value(json_object_get(sum, key)) + json_integer_value(v)));
}

static void merge(struct cc *cc, const json_t *reply)
{
	const char *key;
	json_t *v;

	json_array_extend(json_object_get(cc->reply, "items"), json_object_get(reply, "items"));
	json_array_extend(json_object_get(cc->reply, "warnings"), json_object_get(reply, "warnings"));
	json_object_foreach((json_t *)reply, key, v) {
		if (!strcmp(key, "stats")) {
			if (!json_object_get(cc->reply, key))
				json_object_set_new(cc->reply, key, json_object());
			add_stats(json_object_get(cc->reply, key), v);
		} else if (!strcmp(key, "refusals")) {
			if (!json_object_get(cc->reply, key))
				json_object_set_new(cc->reply, key, json_array());
			json_array_extend(json_object_get(cc->reply, key), v);
		}
	}
}

/* The kernel keeps a mount whose daemon is gone. */
static bool mount_is_dead(const struct mounted *m)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	const struct mntent *e;
	bool there = false;
	struct statfs sf;

	if (!f)
		return false;
	while ((e = getmntent(f)))
		there |= !strcmp(e->mnt_type, "fuse.csvfs") && !strcmp(e->mnt_dir, m->dir) && !strcmp(e->mnt_fsname, m->device);
	endmntent(f);
	return there && statfs(m->dir, &sf) && errno == ENOTCONN;
}

struct ask { struct cc *cc; const char *const *want; unsigned n_want, n; uint64_t found; const char *verb; const json_t *args; };

static enum rpc_code ask_one(struct ask *a, const struct mounted *m)
{
	char service[64];
	json_t *who = NULL, *reply = NULL;
	struct csv_err err = CSV_ERR_INIT;
	enum rpc_code code;
	int rc;

	snprintf(service, sizeof(service), "csvfs-%s", m->lockspace);
	rc = rpc_call(service, "volume.list", NULL, a->cc->timeout_ms, &who, &err);
	if (rc == -ECONNREFUSED) {	/* not mounted any more */
		if (mount_is_dead(m))
			rpc_reply_warn(a->cc->reply, "%s: the mount is dead, its csvfsd is gone (its log says why); mount the volume anew: mount -t csvfs %s %s",
				       m->dir, m->device, m->dir);
		return RPC_OK;
	}
	if (rc)
		return cc_fail(a->cc, rpc_code_of(rc), "%s: %s", m->dir, err.text);
	for (unsigned i = 0; i < a->n_want; i++)
		if (is_named(m, a->want[i], who)) {
			a->found |= 1ull << i;
			rc = 1;
		}
	if (a->n_want && !rc) {
		json_decref(who);
		return RPC_OK;
	}
	if (!strcmp(a->verb, "volume.list"))
		reply = json_incref(who);
	json_decref(who);
	rc = reply ? 0 : rpc_call(service, a->verb, a->args, a->cc->timeout_ms, &reply, &err);
	if (rc)
		return cc_fail(a->cc, rpc_code_of(rc), "%s: %s", m->dir, err.text);
	a->n++;
	code = rpc_reply_code(reply);
	if (code)
		cc_fail(a->cc, code, "%s", json_string_value(json_object_get(reply, "message")));
	merge(a->cc, reply);
	json_decref(reply);
	return code;
}

enum rpc_code cc_ask_volumes(struct cc *cc, const char *const *want, unsigned n_want, const char *verb, const json_t *args, unsigned *ret_n)
{
	struct ask a = { .cc = cc, .want = want, .n_want = n_want, .verb = verb, .args = args };
	enum rpc_code code = RPC_OK, one;
	struct dirent **list = NULL;
	int n = scandir(RUN_DIR, &list, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		struct mounted *m = malloc(sizeof(*m));

		if (m && read_lock(list[i]->d_name, m)) {
			one = ask_one(&a, m);
			if (one)
				code = one;
		}
		free(m);
		free(list[i]);
	}
	free(list);
	for (unsigned i = 0; i < n_want && !code; i++)
		if (!(a.found & 1ull << i))
			code = cc_fail(cc, RPC_NOT_FOUND, "%s: no such volume is mounted on this node; csvctl volume list shows those that are",
				       want[i]);
	*ret_n = a.n;
	return code;
}

/* A volume that waits: for whom, as far as this node's corosync knows. */
static void warn_no_quorum(struct cc *cc)
{
	struct admin_seen seen;
	bool paused = false;
	json_t *it;
	size_t i;

	json_array_foreach(json_object_get(cc->reply, "items"), i, it) {
		const char *state = json_string_value(json_object_get(it, "state"));

		paused |= state && !strcmp(state, "PAUSED");
	}
	if (paused && admin_look(&seen) && !seen.quorate)
		rpc_reply_warn(cc->reply, "no quorum: %u node%s here; what is locked already goes on, all else waits; start more nodes, see: csvctl cluster status",
			       seen.n, seen.n == 1 ? " is" : "s are");
}

enum rpc_code cc_volume_list(struct cc *cc)
{
	unsigned n;
	enum rpc_code code = cc_ask_volumes(cc, NULL, 0, "volume.list", NULL, &n);

	if (!code && !n && cc->format == CC_TABLE && !json_array_size(json_object_get(cc->reply, "warnings")))
		fputs("csvctl: no volume is mounted on this node; mount one: mount -t csvfs DEVICE DIR\n", stderr);
	warn_no_quorum(cc);
	return code;
}

enum rpc_code cc_volume_show(struct cc *cc)
{
	unsigned n;
	enum rpc_code code = cc_ask_volumes(cc, cc->arg, cc->n_args, "volume.show", NULL, &n);

	if (!code && !n)
		return cc_fail(cc, RPC_NOT_FOUND, "no volume is mounted on this node; mount one: mount -t csvfs DEVICE DIR");
	warn_no_quorum(cc);
	return code;
}

static enum rpc_code ask_one_or_all(struct cc *cc, const char *verb, json_t *args)
{
	const char *volume = cc_opt(cc, "volume");
	enum rpc_code code;
	unsigned n;

	code = cc_ask_volumes(cc, &volume, volume ? 1 : 0, verb, args, &n);
	json_decref(args);
	if (!code && !n)
		return cc_fail(cc, RPC_NOT_FOUND, "no volume is mounted on this node");
	return code;
}

/* The number of a file's inode is in its st_ino (R29), and its volume is the one that it is on. */
static enum rpc_code ask_path(struct cc *cc, const char *path)
{
	char dir[PATH_MAX];
	struct stat st, up;
	enum rpc_code code;
	unsigned n;

	if (cc_opt(cc, "volume"))
		return cc_fail(cc, RPC_USAGE, "--path says which volume: leave --volume out");
	if (!realpath(path, dir) || stat(dir, &st))
		return cc_fail(cc, errno == ENOENT ? RPC_NOT_FOUND : RPC_FAILED, "%s: %s", path, strerror(errno));
	for (char *slash; (slash = strrchr(dir, '/')) && slash > dir; ) {	/* up to where the volume is mounted */
		*slash = '\0';
		if (stat(dir, &up) || up.st_dev != st.st_dev) {
			*slash = '/';
			break;
		}
	}
	{
		const char *volume = dir;
		json_t *args = json_pack("{s:I}", "ino", (json_int_t)(st.st_ino & ((UINT64_C(1) << 40) - 1)));

		code = cc_ask_volumes(cc, &volume, 1, "lock.list", args, &n);
		json_decref(args);
	}
	return code;
}

enum rpc_code cc_lock_list(struct cc *cc)
{
	const char *path = cc_opt(cc, "path");

	return path ? ask_path(cc, path) : ask_one_or_all(cc, "lock.list", NULL);
}

enum rpc_code cc_vhd_users(struct cc *cc)
{
	return ask_one_or_all(cc, "image.list", NULL);
}

enum rpc_code cc_lock_show(struct cc *cc)
{
	const char *path = cc_opt(cc, "path");
	enum rpc_code code;

	if (!path == !cc->n_args)
		return cc_fail(cc, RPC_USAGE, "lock show wants the NAME of a lock, or --path P; see: csvctl lock show --help");
	if (path)
		return ask_path(cc, path);
	code = ask_one_or_all(cc, "lock.show", json_pack("{s:s}", "name", cc->arg[0]));
	/* several volumes: one that has it is enough */
	if (code == RPC_NOT_FOUND && json_array_size(json_object_get(cc->reply, "items")))
		return cc_fail(cc, RPC_OK, "%s", "");
	return code;
}
