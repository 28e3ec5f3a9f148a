/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvfsd_options.c - csvfsd [-f] [-d] DEVICE DIR [-o OPTION,...], as mount(8) calls it too.
 */
#include "csvfs/csvfsd_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

static const char usage[] =
	"usage: csvfsd [-f] [-d] DEVICE DIR [-o OPTION[,OPTION...]]\n"
	"Mounts the cluster shared volume on DEVICE at DIR. The node must be a member of a quorate corosync cluster.\n"
	"\n"
	"  -f              stay in the foreground, log to standard error\n"
	"  -d, -o debug    log more; among it every operation that took 10 ms or longer\n"
	"  -o ro           read-only\n"
	"  -o fence=FILE   which fence agent switches which node (default /etc/csvfs/fence.conf)\n"
	"  -o workers=N    data-plane threads (default: one a core, at most 8)\n"
	"  -o nomlock      do not lock the daemon's memory\n"
	"  -o notls        do not encrypt what the daemons say to each other; on all nodes or on none\n"
	"  -o nosuid,nodev,noexec,noatime,...  as in mount(8)\n"
	"\n"
	"Unmount with umount(8). See csvfsd(8), mkfs.csvfs(8), csvctl(8).\n";

/* Understood by the kernel's part of the mount. */
static bool is_mount_flag(const char *o)
{
	static const char *const known[] = { "rw", "ro", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "noatime", "atime", "sync",
					     "async", "dirsync" };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(o, known[i]))
			return true;
	return false;
}

/* Said by mount(8) or /etc/fstab to others. */
static bool is_for_others(const char *o)
{
	static const char *const known[] = { "defaults", "auto", "noauto", "_netdev", "nofail", "user", "nouser", "users", "group",
					     "owner", "relatime", "norelatime", "strictatime", "nostrictatime", "nodiratime",
					     "diratime", "lazytime", "nolazytime" };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(o, known[i]))
			return true;
	return !strncmp(o, "x-", 2) || !strncmp(o, "comment=", 8);
}

static int option_one(struct csvfsd_options *r, char *o, struct csv_err *err)
{
	size_t used = strlen(r->fuse_opts);
	unsigned long n;
	char *end;

	if (!*o || is_for_others(o))
		return 0;
	if (is_mount_flag(o)) {
		if (!strcmp(o, "ro"))
			r->read_only = true;
		if (used + strlen(o) + 2 > sizeof(r->fuse_opts))
			return csv_err_set(err, -EINVAL, "-o %s: too many mount options", o);
		snprintf(r->fuse_opts + used, sizeof(r->fuse_opts) - used, ",%s", o);
		return 0;
	}
	if (!strncmp(o, "fence=", 6)) {
		r->fence_conf = o + 6;
		return 0;
	}
	if (!strcmp(o, "debug")) {
		r->debug = true;
		return 0;
	}
	if (!strcmp(o, "notls")) {
		r->no_tls = true;
		return 0;
	}
	if (!strcmp(o, "nomlock")) {
		r->no_mlock = true;
		return 0;
	}
	if (!strncmp(o, "workers=", 8)) {
		n = strtoul(o + 8, &end, 10);
		if (*end || n < 1 || n > 64)
			return csv_err_set(err, -EINVAL, "-o %s: the number of data-plane threads must be 1 to 64", o);
		r->workers = (unsigned)n;
		return 0;
	}
	return csv_err_set(err, -EINVAL, "-o %s: unknown option; csvfsd --help lists them", o);
}

static int option_list(struct csvfsd_options *r, char *list, struct csv_err *err)
{
	char *save = NULL, *o;
	int rc = 0;

	for (o = strtok_r(list, ",", &save); o && !rc; o = strtok_r(NULL, ",", &save))
		rc = option_one(r, o, err);
	return rc;
}

static int word(struct csvfsd_options *r, const char *a, struct csv_err *err)
{
	if (!r->device)
		r->device = a;
	else if (!r->dir)
		r->dir = a;
	else
		return csv_err_set(err, -EINVAL, "%s: one DEVICE and one DIR are enough; csvfsd --help shows the use", a);
	return 0;
}

int csvfsd_options_parse(int argc, char **argv, struct csvfsd_options *ret, struct csv_err *err)
{
	struct csvfsd_options r = { .fence_conf = "/etc/csvfs/fence.conf" };
	int i, rc = 0;

	for (i = 1; i < argc && !rc; i++) {
		char *a = argv[i];

		if (!strcmp(a, "--help") || !strcmp(a, "-h")) {
			fputs(usage, stdout);
			return 1;
		}
		if (!strcmp(a, "--version") || !strcmp(a, "-V")) {
			printf("csvfsd %s\n", PACKAGE_VERSION);
			return 1;
		}
		if (!strcmp(a, "-f"))
			r.foreground = true;
		else if (!strcmp(a, "-d"))
			r.debug = true;
		else if (!strcmp(a, "-v") || !strcmp(a, "-s") || !strcmp(a, "-n"))
			;			/* mount(8) may pass them on */
		else if (!strcmp(a, "-o") && i + 1 < argc)
			rc = option_list(&r, argv[++i], err);
		else if (!strncmp(a, "-o", 2) && a[2])
			rc = option_list(&r, a + 2, err);
		else if (a[0] == '-')
			rc = csv_err_set(err, -EINVAL, "%s: unknown option; csvfsd --help lists them", a);
		else
			rc = word(&r, a, err);
	}
	if (!rc && !r.dir)
		rc = csv_err_set(err, -EINVAL, "%s is missing; csvfsd --help shows the use", r.device ? "DIR" : "DEVICE");
	if (!rc)
		*ret = r;
	return rc;
}
