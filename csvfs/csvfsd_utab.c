/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvfsd_utab.c - an entry in /run/mount/utab, so that umount(8) calls umount.csvfs, which waits until the daemon has left.
 *
 * Without it umount(8) asks statfs(2) for the type, is told "fuse" - the kernel has one number for all of them - and unmounts by itself:
 * it would return while this node is still writing back.  With the entry it calls umount.SUFFIX as uhelper= says.  umount(8) removes
 * the entry; the daemon does, too, for those who unmount without it.
 *
 * The file is libmount's: lines of KEY=VALUE, changed by rename under a lock on utab.lock.  A node without /run/mount, or with a full
 * /run, has no entry: mounting goes on, only umount(8) does not wait (and the next mount does, lock_volume()).
 */
#include "csvfs/csvfsd_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define UTAB_DIR "/run/mount"
#define UTAB UTAB_DIR "/utab"
#define LOCK_TRIES 100u
#define LOCK_EVERY_MS 5

/* As libmount writes names with blanks: \040. */
static void quote(const char *s, char *ret, size_t size)
{
	size_t n = 0;

	for (; *s && n + 5 < size; s++) {
		if (strchr(" \t\n\\", *s))
			n += (size_t)snprintf(ret + n, size - n, "\\%03o", (unsigned char)*s);
		else
			ret[n++] = *s;
	}
	ret[n] = 0;
}

static int lock_utab(void)
{
	int fd;

	if (mkdir(UTAB_DIR, 0755) && errno != EEXIST)
		return -1;
	fd = open(UTAB ".lock", O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
	for (unsigned i = 0; fd >= 0 && i < LOCK_TRIES; i++) {
		if (!flock(fd, LOCK_EX | LOCK_NB))
			return fd;
		poll(NULL, 0, LOCK_EVERY_MS);
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The table without what it says of `target`, and with `line` when there is one. */
static bool rewrite(const char *target, const char *line)
{
	char buf[3 * PATH_MAX], key[PATH_MAX + 16];
	FILE *in = fopen(UTAB, "re"), *out = fopen(UTAB ".csvfs", "we");
	bool ok = out, whole = true, skip = false;

	snprintf(key, sizeof(key), " TARGET=%s ", target);
	while (ok && in && fgets(buf, sizeof(buf), in)) {
		if (whole)
			skip = strstr(buf, key) != NULL;
		whole = strchr(buf, '\n');
		if (!skip)
			ok = fputs(buf, out) >= 0;
	}
	if (ok && line)
		ok = fputs(line, out) >= 0;
	if (in)
		fclose(in);
	if (out) {
		ok = !fchmod(fileno(out), 0644) && ok;
		ok = !fclose(out) && ok && !rename(UTAB ".csvfs", UTAB);
		if (!ok)
			unlink(UTAB ".csvfs");
	}
	return ok;
}

static bool change(const char *device, const char *dir, bool add)
{
	char d[PATH_MAX], src[PATH_MAX], target[PATH_MAX], line[2 * PATH_MAX + 64];
	int fd;
	bool ok;

	if (!realpath(dir, d))
		snprintf(d, sizeof(d), "%s", dir);
	quote(device, src, sizeof(src));
	quote(d, target, sizeof(target));
	snprintf(line, sizeof(line), "SRC=%s TARGET=%s ROOT=/ OPTS=uhelper=csvfs\n", src, target);
	fd = lock_utab();
	if (fd < 0)
		return false;
	ok = rewrite(target, add ? line : NULL);
	close(fd);
	return ok;
}

bool utab_add(const char *device, const char *dir)
{
	return change(device, dir, true);
}

void utab_remove(const char *device, const char *dir)
{
	change(device, dir, false);
}
