/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mkfs_csvfs.c - mkfs.csvfs: makes a csvfs volume on a block device or a regular file.
 *
 * Everything that can refuse comes before the first write: options, the device, who has it mounted (here: mount table, exclusive
 * open, loop devices; elsewhere: heartbeats), other signatures on it.  The work itself is csvfs/mkfs.c.
 */
#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <limits.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "csvfs/mkfs.h"
#include "utils/base/text.h"
#include "utils/tools/vtool.h"

#include "config.h"

#define WATCH_MS 2000u			/* csvfsd beats every 500 ms */

enum { EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };
static volatile sig_atomic_t writing;

struct tool {
	struct vtool v;
	bool force;
	struct csvfs_mkfs_options opt;
	struct csv_geom geom;
};

static void usage(FILE *out)
{
	fputs("usage: mkfs.csvfs [-f] [-L LABEL] [-n SLOTS] [-j JOURNAL_MIB] DEVICE\n"
	      "\n"
	      "  DEVICE          a block device, or a regular file\n"
	      "  -L LABEL        name of the volume, at most 32 bytes\n"
	      "  -n SLOTS        nodes that can mount it at once: 1 to 64, default 8\n"
	      "  -j JOURNAL_MIB  journal of each slot: 4 to 1024 MiB, default 64 (less on a small device)\n"
	      "  -f              even where there is something on it (never over a volume that is mounted)\n"
	      "  -h, -V          this text; version\n"
	      "\n"
	      "exit: 0 made, 1 refused or failed, 2 usage, 130 interrupted\n", out);
}

/* ---- who uses it on this node ---------------------------------------------------------------------------------------------------- */

static bool same_device(const struct stat *a, const char *path)
{
	struct stat b;

	if (stat(path, &b) < 0)
		return false;
	if (S_ISBLK(a->st_mode))
		return S_ISBLK(b.st_mode) && a->st_rdev == b.st_rdev;
	return a->st_dev == b.st_dev && a->st_ino == b.st_ino;
}

static int check_mounts(struct tool *t, const struct stat *st)
{
	FILE *f = setmntent("/proc/self/mounts", "r");
	struct mntent *m;
	int rc = 0;

	while (f && !rc && (m = getmntent(f)))
		if (m->mnt_fsname[0] == '/' && same_device(st, m->mnt_fsname))
			rc = csv_err_set(&t->v.err, -EBUSY, "it is mounted on %s: unmount it first (umount %s)", m->mnt_dir, m->mnt_dir);
	if (f)
		endmntent(f);
	return rc;
}

/* A regular file may be the backing file of a loop device. */
static int check_loops(struct tool *t, const struct stat *st)
{
	glob_t g = { 0 };
	int rc = 0;

	if (!S_ISREG(st->st_mode) || glob("/sys/block/loop*/loop/backing_file", 0, NULL, &g))
		return 0;
	for (size_t i = 0; i < g.gl_pathc && !rc; i++) {
		char path[PATH_MAX] = "";
		FILE *f = fopen(g.gl_pathv[i], "r");

		if (f && fgets(path, sizeof(path), f)) {
			path[strcspn(path, "\n")] = 0;
			if (same_device(st, path))
				rc = csv_err_set(&t->v.err, -EBUSY, "it is the backing file of /dev/%.*s: use that device, or detach it (losetup -d)",
						 (int)strcspn(g.gl_pathv[i] + strlen("/sys/block/"), "/"),
						 g.gl_pathv[i] + strlen("/sys/block/"));
		}
		if (f)
			fclose(f);
	}
	globfree(&g);
	return rc;
}

/* ---- what else is on it ------------------------------------------------------------------------------------------------------------ */

static blkid_probe probe_new(int fd)
{
	blkid_probe pr = blkid_new_probe();

	if (!pr || blkid_probe_set_device(pr, fd, 0, 0)) {
		blkid_free_probe(pr);
		return NULL;
	}
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_MAGIC);
	blkid_probe_enable_partitions(pr, 1);
	blkid_probe_set_partitions_flags(pr, BLKID_PARTS_MAGIC);
	return pr;
}

/* Without -f: refuses over a signature.  With it: erases them all, so that nothing takes the device for what it was. */
static int check_signatures(struct tool *t, bool erase)
{
	int fd = open(t->v.path, (erase ? O_RDWR : O_RDONLY) | O_CLOEXEC), rc = 0;
	blkid_probe pr = fd < 0 ? NULL : probe_new(fd);
	const char *type = NULL, *label = NULL;

	if (!pr) {
		rc = csv_err_set(&t->v.err, fd < 0 ? -errno : -EIO, "looking for other file systems on it: %s", strerror(fd < 0 ? errno : EIO));
		goto out;
	}
	while (!rc && blkid_do_probe(pr) == 0) {
		if (blkid_probe_lookup_value(pr, "TYPE", &type, NULL) && blkid_probe_lookup_value(pr, "PTTYPE", &type, NULL))
			continue;
		if (blkid_probe_lookup_value(pr, "LABEL", &label, NULL))
			label = NULL;
		if (!erase)
			rc = csv_err_set(&t->v.err, -EEXIST, "it holds %s%s%s%s: to lose what is on it, use -f", type, label ? " (label \"" : "",
					 label ? label : "", label ? "\")" : "");
		else if (blkid_do_wipe(pr, 0) < 0)
			rc = csv_err_set(&t->v.err, -EIO, "erasing the signature of %s failed", type);
	}
	if (!rc && erase && fsync(fd) < 0)
		rc = csv_err_set(&t->v.err, -errno, "erasing old signatures: %s", strerror(errno));
out:
	blkid_free_probe(pr);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* Until the last write there is no superblock, so half a volume is none. */
static void on_signal(int sig)
{
	static const char before[] = "\nmkfs.csvfs: interrupted; nothing was written\n";
	static const char during[] = "\nmkfs.csvfs: interrupted; what was there is lost, and there is no volume yet: run it again\n";
	ssize_t r = writing ? write(STDERR_FILENO, during, sizeof(during) - 1) : write(STDERR_FILENO, before, sizeof(before) - 1);

	(void)sig;
	(void)r;
	_exit(EXIT_INTERRUPTED);
}

static void signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

/* ---- the work ---------------------------------------------------------------------------------------------------------------------- */

static void show_progress(void *arg, uint32_t done, uint32_t groups)
{
	struct tool *t = arg;

	if (!vtool_progress_due(&t->v, done == groups))
		return;
	fprintf(stderr, "\r\033[Kwriting groups: %u of %u (%u %%)", done, groups, (unsigned)((uint64_t)done * 100 / groups));
	if (done == groups)
		fputs("\r\033[K", stderr);
	fflush(stderr);
}

static int work(void *arg)
{
	struct tool *t = arg;
	struct csv_geom plan;
	int rc;

	rc = csvfs_mkfs_plan(t->v.blk->size_bytes, t->v.blk->min_io, &t->opt, &plan, &t->v.err);
	if (!rc)
		rc = csvfs_mkfs_check(t->v.blk, t->force, WATCH_MS, &t->v.err);
	writing = !rc && t->force;
	if (!rc)
		rc = check_signatures(t, t->force);
	writing = !rc;
	return rc ? rc : csvfs_mkfs(t->v.blk, &t->opt, &t->geom, &t->v.err);
}

static int run(struct tool *t)
{
	struct stat st;
	int rc;

	if (stat(t->v.path, &st) == 0) {
		rc = check_mounts(t, &st);
		if (!rc)
			rc = check_loops(t, &st);
		if (rc) {
			csv_err_prefix(&t->v.err, "%s", t->v.path);
			return rc;
		}
	}
	return vtool_run(&t->v, BLK_O_EXCL | BLK_O_BUFFERED, "mkfs", work, t);
}

static void show_result(const struct tool *t)
{
	char size[CSV_SIZE_TEXT_BYTES], uuid[CSV_UUID_TEXT_BYTES];

	printf("%s: csvfs volume%s%s%s, %s, %u group%s, %u slots with journals of %u MiB, sectors of %u bytes, uuid %s\n", t->v.path,
	       t->geom.label[0] ? " \"" : "", t->geom.label, t->geom.label[0] ? "\"" : "",
	       csv_size_to_text(t->geom.total_blk * CSV_BLOCK_SIZE, size), t->geom.groups, t->geom.groups == 1 ? "" : "s", t->geom.slots,
	       t->geom.journal_blk / 256, t->geom.min_io, csv_uuid_to_text(t->geom.uuid, uuid));
}

static bool number(const char *text, const char *what, uint32_t lo, uint32_t hi, uint32_t *ret)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(text, &end, 10);
	if (errno || *end || end == text || *text == '-' || v < lo || v > hi) {
		fprintf(stderr, "mkfs.csvfs: %s \"%s\": must be a number between %u and %u\n", what, text, lo, hi);
		return false;
	}
	*ret = (uint32_t)v;
	return true;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = { { "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' }, { 0 } };
	struct tool t = { 0 };
	int c;

	while ((c = getopt_long(argc, argv, "fL:n:j:hV", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			t.force = true;
			break;
		case 'L':
			if (strlen(optarg) >= sizeof(t.opt.label)) {
				fprintf(stderr, "mkfs.csvfs: label \"%s\": %zu bytes, at most %zu\n", optarg, strlen(optarg), sizeof(t.opt.label) - 1);
				return EXIT_USAGE;
			}
			strcpy(t.opt.label, optarg);
			break;
		case 'n':
			if (!number(optarg, "-n", 1, CSV_SLOTS_MAX, &t.opt.slots))
				return EXIT_USAGE;
			break;
		case 'j':
			if (!number(optarg, "-j", CSVFS_MKFS_JOURNAL_MIB_MIN, CSVFS_MKFS_JOURNAL_MIB_MAX, &t.opt.journal_mib))
				return EXIT_USAGE;
			break;
		case 'h':
			usage(stdout);
			return 0;
		case 'V':
			puts("mkfs.csvfs " PACKAGE_VERSION);
			return 0;
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (optind != argc - 1) {
		usage(stderr);
		return EXIT_USAGE;
	}
	signals();
	vtool_init(&t.v, argv[optind]);
	uuid_generate(t.opt.uuid);
	if (getrandom(t.opt.hash_key, sizeof(t.opt.hash_key), 0) != (ssize_t)sizeof(t.opt.hash_key)) {
		fprintf(stderr, "mkfs.csvfs: no random numbers: %s\n", strerror(errno));
		return EXIT_FAILURE;
	}
	t.opt.now_ns = clock_real_ns(&t.v.clock);
	t.opt.progress = show_progress;
	t.opt.arg = &t;
	if (run(&t)) {
		fprintf(stderr, "mkfs.csvfs: %s\n", t.v.err.text);
		return EXIT_FAILURE;
	}
	show_result(&t);
	return EXIT_SUCCESS;
}
