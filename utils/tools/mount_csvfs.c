/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mount_csvfs.c - what mount(8) calls for "mount -t csvfs DEVICE DIR -o ...": runs csvfsd, which returns when the volume is mounted.
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
	exec_csvfsd(a);
	fprintf(stderr, "mount.csvfs: csvfsd cannot be run: %s; is csvfs installed completely?\n", strerror(errno));
	return 32;
}
