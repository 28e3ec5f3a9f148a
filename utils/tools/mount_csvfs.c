/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mount_csvfs.c - what mount(8) calls for "mount -t csvfs DEVICE DIR -o ...": runs csvfsd, which returns when the volume is mounted.
 * As mount.fuse.csvfs, for "mount -o remount,..." of a mount that is there: the flags are the kernel's alone, mount(8) sets them by itself.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* csvfsd beside this program (build tree), else where it is installed. */
static void exec_csvfsd(char **argv)
{
	char self[PATH_MAX], path[PATH_MAX + 16];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		self[n] = 0;
		snprintf(path, sizeof(path), "%s/csvfsd", dirname(self));
		if (!access(path, X_OK))
			execv(path, argv);
	}
	execvp("csvfsd", argv);
}

static int has_option(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (; *list; list += strcspn(list, ","), list += *list == ',')
		if (strcspn(list, ",") == n && !strncmp(list, name, n))
			return 1;
	return 0;
}

/* Returns only when it is none, or mount(8) cannot be run. */
static void exec_remount(int argc, char **argv)
{
	const char *opts = NULL, *dir = NULL;
	int i;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-o") && i + 1 < argc)
			opts = argv[++i];
		else if ((!strcmp(argv[i], "-t") || !strcmp(argv[i], "-N")) && i + 1 < argc)
			i++;
		else if (*argv[i] != '-')
			dir = argv[i];		/* the last one: DEVICE comes before it */
	}
	if (!opts || !dir || !has_option(opts, "remount"))
		return;
	execlp("mount", "mount", "-i", "-o", opts, dir, (char *)NULL);
	fprintf(stderr, "mount.csvfs: %s: mount(8) cannot be run: %s\n", dir, strerror(errno));
	exit(32);
}

int main(int argc, char **argv)
{
	char **a = calloc((size_t)argc + 2, sizeof(char *));
	int i, n = 0, fake = 0;

	if (!a)
		return 2;
	a[n++] = "csvfsd";
	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-f") || !strcmp(argv[i], "--fake"))
			fake = 1;		/* mount(8): everything but the mount */
		else if (!strcmp(argv[i], "-t") || !strcmp(argv[i], "-N"))
			i++;			/* type and namespace: mount(8) has seen to them */
		else
			a[n++] = argv[i];
	}
	if (fake)
		return 0;
	exec_remount(argc, argv);
	exec_csvfsd(a);
	fprintf(stderr, "mount.csvfs: csvfsd cannot be run: %s; is csvfs installed completely?\n", strerror(errno));
	return 32;
}
