/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * umount_csvfs.c - what umount(8) calls for a csvfs mount (as umount.fuse.csvfs): unmounts, then waits until the daemon has
 * committed, written back and given its slot free, so that "umount returned" means "this node is out of the volume".
 *
 * Which daemon: its lock file in /run/csvfs names the mount point and the process; the lock is held until the daemon is gone.  When
 * somebody mounts again at once, the lock may pass to the next daemon before we see it free: then the file names another process.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <unistd.h>

#define RUN_DIR "/run/csvfs"
#define EVERY_MS 5

/* Lock file of the volume mounted at `dir`, open; -1: none. */
static int lock_of(const char *dir)
{
	DIR *d = opendir(RUN_DIR);
	struct dirent *e;
	int found = -1;

	while (d && found < 0 && (e = readdir(d))) {
		char path[PATH_MAX], line[PATH_MAX + 8];
		FILE *f;

		if (!strstr(e->d_name, ".lock"))
			continue;
		snprintf(path, sizeof(path), RUN_DIR "/%s", e->d_name);
		f = fopen(path, "re");
		if (!f)
			continue;
		while (fgets(line, sizeof(line), f)) {
			line[strcspn(line, "\n")] = 0;
			if (!strncmp(line, "dir ", 4) && !strcmp(line + 4, dir))
				found = open(path, O_RDONLY | O_CLOEXEC);
		}
		fclose(f);
	}
	if (d)
		closedir(d);
	return found;
}

static int daemon_of(int fd)
{
	char buf[64];
	ssize_t n = pread(fd, buf, sizeof(buf) - 1, 0);
	int pid = 0;

	buf[n < 0 ? 0 : n] = 0;
	sscanf(buf, "pid %d", &pid);
	return pid;
}

/* The file is empty for a moment while the next daemon writes itself down. */
static void wait_gone(int fd, int pid)
{
	int now = pid;

	while (flock(fd, LOCK_SH | LOCK_NB) && (errno == EWOULDBLOCK || errno == EINTR) && (now == pid || !now)) {
		poll(NULL, 0, EVERY_MS);
		now = daemon_of(fd);
	}
}

int main(int argc, char **argv)
{
	const char *arg = NULL;
	char dir[PATH_MAX];
	int i, flags = UMOUNT_NOFOLLOW, fd, pid;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-l"))
			flags |= MNT_DETACH;
		else if (!strcmp(argv[i], "-f"))
			flags |= MNT_FORCE;
		else if (!strcmp(argv[i], "-t") || !strcmp(argv[i], "-N"))
			i++;
		else if (argv[i][0] != '-')
			arg = argv[i];
	}
	if (!arg || !realpath(arg, dir)) {
		fprintf(stderr, "umount.csvfs: %s: %s\n", arg ? arg : "DIR", arg ? strerror(errno) : "is missing");
		return 1;
	}
	fd = lock_of(dir);
	pid = fd < 0 ? 0 : daemon_of(fd);
	if (umount2(dir, flags)) {
		fprintf(stderr, "umount.csvfs: %s: %s%s\n", dir, strerror(errno),
			errno == EBUSY ? "; some process has a file or its working directory there (fuser -m DIR names it)" : "");
		return 32;
	}
	if (fd < 0 || flags & (MNT_DETACH | MNT_FORCE))
		return 0;
	wait_gone(fd, pid);
	return 0;
}
