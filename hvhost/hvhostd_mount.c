/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_mount.c - see hvhostd_mount.h.
 */
#include "hvhost/hvhostd_mount.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "utils/base/base.h"
#include "utils/rpc/rpc_client.h"

#define LINKS_MAX 8

const char *mount_state_name(enum mount_state st)
{
	static const char *const name[] = { "unknown", "alive", "waits", "joining", "none", "dead" };

	return (size_t)st < ARRAY_SIZE(name) ? name[st] : "unknown";
}

bool mount_is_place(enum mount_state st)
{
	return st == MOUNT_ALIVE || st == MOUNT_WAITS;
}

/* ---- the verdict ----------------------------------------------------------------------------------------------------------------- */

/* csvfsd's words end with what to type, where a person must do something. */
static void command_in(const char *why, char *ret, size_t size)
{
	const char *c = strstr(why, "csvctl ");

	snprintf(ret, size, "%s", c ? c : "");
	ret[strcspn(ret, ";")] = '\0';
}

static void mount_anew(const char *dir, struct mount_report *ret)
{
	snprintf(ret->command, sizeof(ret->command), "umount -l %.120s; mount %.120s", dir, dir);
}

static void judge_answered(const char *dir, const struct mount_facts *f, struct mount_report *ret)
{
	if (!strcmp(f->state, "WITHDRAWN")) {
		ret->state = MOUNT_DEAD;
		snprintf(ret->reason, sizeof(ret->reason), "the volume at %.100s was given up on this node: %s", dir, f->why);
		mount_anew(dir, ret);
		return;
	}
	ret->state = f->mounted && strcmp(f->state, "JOINING") ? MOUNT_WAITS : MOUNT_JOINING;
	if (ret->state == MOUNT_WAITS && !strcmp(f->state, "ACTIVE")) {		/* its csvfsd waits for nothing */
		if (f->statfs_rc == -EINPROGRESS)
			snprintf(ret->reason, sizeof(ret->reason), "the volume at %.100s answers slowly: its disk is busy, or does not answer", dir);
		else
			snprintf(ret->reason, sizeof(ret->reason), "the volume at %.100s is mounted, and answers: %s", dir, strerror(-f->statfs_rc));
		return;
	}
	snprintf(ret->reason, sizeof(ret->reason), "the volume at %.100s %s: %s", dir, ret->state == MOUNT_WAITS ? "waits" : "is not mounted yet",
		 *f->why ? f->why : "it is being mounted");
	command_in(f->why, ret->command, sizeof(ret->command));
}

static void judge_silent(const char *dir, const struct mount_facts *f, struct mount_report *ret)
{
	if (!f->mounted && f->rpc_rc != -ETIMEDOUT) {
		ret->state = MOUNT_NONE;
		snprintf(ret->reason, sizeof(ret->reason), "no csvfs volume is mounted at %.100s", dir);
		snprintf(ret->command, sizeof(ret->command), "mount %.120s", dir);
		return;
	}
	ret->state = MOUNT_DEAD;
	if (f->rpc_rc == -ETIMEDOUT)
		snprintf(ret->reason, sizeof(ret->reason), "the csvfsd of the volume at %.100s does not answer; is it stopped?", dir);
	else
		snprintf(ret->reason, sizeof(ret->reason), "the volume at %.100s is dead: its csvfsd is gone (%s)", dir,
			 f->statfs_rc && f->statfs_rc != -EINPROGRESS ? strerror(-f->statfs_rc) : "nobody serves the mount");
	mount_anew(dir, ret);
}

void mount_judge(const char *dir, const struct mount_facts *f, struct mount_report *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (f->mounted && !f->statfs_rc)
		ret->state = MOUNT_ALIVE;
	else if (!f->rpc_rc)
		judge_answered(dir, f, ret);
	else
		judge_silent(dir, f, ret);
}

/* ---- the mount ------------------------------------------------------------------------------------------------------------------------ */

/* All of the path is resolved but its last part, which may be a mount that hangs. */
static void resolve_up(const char *dir, char ret[static PATH_MAX])
{
	char up[PATH_MAX], real[PATH_MAX];
	const char *base;
	size_t n;

	snprintf(up, sizeof(up), "%s", dir);
	for (n = strlen(up); n > 1 && up[n - 1] == '/'; n--)
		up[n - 1] = '\0';
	base = strrchr(up, '/');
	if (!base || base == up) {
		snprintf(ret, PATH_MAX, "%s", up);
		return;
	}
	up[base - up] = '\0';
	base++;
	if (!realpath(up, real))
		snprintf(real, sizeof(real), "%s", up);
	if (snprintf(ret, PATH_MAX, "%s/%s", strcmp(real, "/") ? real : "", base) >= PATH_MAX)
		ret[0] = '\0';
}

void mount_dir(const char *dir, char *ret, size_t size)
{
	char at[PATH_MAX], to[PATH_MAX], next[2 * PATH_MAX];
	ssize_t n;

	resolve_up(dir, at);
	snprintf(ret, size, "%s", at);
	for (int i = 0; i < LINKS_MAX; i++) {
		/* The kernel says of a mount that it is no link without asking who serves it. */
		n = readlink(at, to, sizeof(to) - 1);
		if (n <= 0) {
			snprintf(ret, size, "%s", at);
			return;
		}
		to[n] = '\0';
		snprintf(next, sizeof(next), "%.*s%s", *to == '/' ? 0 : (int)(strrchr(at, '/') - at + 1), at, to);
		if (strlen(next) >= PATH_MAX)
			return;
		resolve_up(next, at);
	}
}

/* "\040" and such, in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; to++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*to = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to = *s++;
		}
	}
	*to = '\0';
}

bool mount_is_there(const char *mountinfo, const char *dir)
{
	FILE *f = fopen(mountinfo, "re");
	char *line = NULL, *at, *type;
	bool there = false;
	size_t size = 0;

	/* "36 35 98:0 /root /at options shared:1 - type source options"; the last one at a place is on top */
	while (f && getline(&line, &size, f) > 0) {
		char *save = NULL;

		at = strtok_r(line, " \n", &save);
		for (int i = 0; at && i < 4; i++)
			at = strtok_r(NULL, " \n", &save);
		for (type = at; type && strcmp(type, "-");)
			type = strtok_r(NULL, " \n", &save);
		type = type ? strtok_r(NULL, " \n", &save) : NULL;
		if (!at || !type)
			continue;
		unescape(at);
		if (!strcmp(at, dir))
			there = !strcmp(type, "fuse.csvfs");
	}
	free(line);
	if (f)
		fclose(f);
	return there;
}

/* ---- its csvfsd ------------------------------------------------------------------------------------------------------------------------- */

/* LOCKSPACE.lock: the daemon that holds or held it says which folder it serves. */
static bool serves(const char *run_dir, const char *lock, const char *dir)
{
	char path[PATH_MAX], line[PATH_MAX + 16];
	bool is = false;
	FILE *f;

	if (strlen(lock) != 21 || strcmp(lock + 16, ".lock"))
		return false;
	snprintf(path, sizeof(path), "%s/%s", run_dir, lock);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "dir ", 4))
			is = !strcmp(line + 4, dir);
	}
	if (f)
		fclose(f);
	return is;
}

/* What a person is to know: what must be done by hand first, then why it is in this state. */
static void why_of(const json_t *reply, const json_t *item, char *ret, size_t size)
{
	const char *reason = json_string_value(json_object_get(item, "reason"));
	const json_t *w;
	size_t i;

	snprintf(ret, size, "%s", reason ? reason : "");
	json_array_foreach(json_object_get(reply, "warnings"), i, w)
		if (json_is_string(w) && strstr(json_string_value(w), "csvctl node confirm-fenced")) {
			snprintf(ret, size, "%s", json_string_value(w));
			return;
		}
}

void mount_ask(const char *run_dir, const char *dir, int timeout_ms, struct mount_facts *f)
{
	struct csv_err err = CSV_ERR_INIT;
	struct dirent **list = NULL;
	int n = scandir(run_dir, &list, NULL, alphasort);
	char service[64];

	f->rpc_rc = -ENOENT;
	f->state[0] = f->why[0] = '\0';
	for (int i = 0; i < n; i++) {
		json_t *reply = NULL;

		/* a folder may have been that of another volume before: the one whose daemon lives counts */
		if (f->rpc_rc && f->rpc_rc != -ETIMEDOUT && serves(run_dir, list[i]->d_name, dir)) {
			snprintf(service, sizeof(service), "csvfs-%.16s", list[i]->d_name);
			f->rpc_rc = rpc_call(service, "volume.list", NULL, timeout_ms, &reply, &err);
			if (!f->rpc_rc) {
				const json_t *item = json_array_get(json_object_get(reply, "items"), 0);
				const char *st = json_string_value(json_object_get(item, "state"));

				/* no item: it is between two lives (it joins anew) */
				snprintf(f->state, sizeof(f->state), "%s", st ? st : "PAUSED");
				if (item)
					why_of(reply, item, f->why, sizeof(f->why));
				else
					snprintf(f->why, sizeof(f->why), "%s", json_string_value(json_object_get(reply, "message")) ? : "");
			}
			json_decref(reply);
		}
		free(list[i]);
	}
	free(list);
}
