/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fsck_csvfs.c - fsck.csvfs: checks a csvfs volume.
 *
 * The check itself is csvfs/check and only reads.  -y writes in this version nothing but superblock copies that differ from a
 * good one, and never to a volume that somebody has mounted; everything else is reported.  Journals of lost nodes are replayed by
 * the next mount, which has the fence proofs; the check sees the volume as that will leave it.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "csvfs/check/check.h"
#include "csvfs/csvfs_format.h"
#include "utils/base/text.h"
#include "utils/tools/vtool.h"

#include "config.h"

#define ALIVE_MS 3000u			/* csvfsd beats every 500 ms */

/* fsck(8) */
enum { FSCK_OK = 0, FSCK_FIXED = 1, FSCK_LEFT = 4, FSCK_FAILED = 8, FSCK_USAGE = 16, FSCK_CANCELLED = 32 };

struct tool {
	struct vtool v;
	bool fix, shown;
	struct check_options opt;
	struct check_result res;
	int exit;
};

static void usage(FILE *out)
{
	fputs("usage: fsck.csvfs [-n | -y] [-f] DEVICE\n"
	      "\n"
	      "  DEVICE  a block device, or a regular file, with a csvfs volume\n"
	      "  -n      only check, write nothing (the default)\n"
	      "  -y      repair what can be repaired: superblock copies.  Refused while the volume is mounted anywhere\n"
	      "  -f      accepted as by other checkers; the check is always complete\n"
	      "  -h, -V  this text; version\n"
	      "\n"
	      "exit: 0 in order, 1 repaired, 4 errors are left, 8 the check could not be made, 16 usage, 32 cancelled\n", out);
}

/* A check has nothing to put away; of a repair the copies that were written are good, and the next one finds the rest. */
static void on_signal(int sig)
{
	static const char text[] = "\nfsck.csvfs: cancelled; nothing is half done, begin anew whenever you like\n";
	ssize_t r = write(STDERR_FILENO, text, sizeof(text) - 1);

	(void)sig;
	(void)r;
	_exit(FSCK_CANCELLED);
}

static void signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

static void hide_progress(struct tool *t)
{
	if (t->shown)
		fputs("\r\033[K", stderr);
	t->shown = false;
}

static void report(void *arg, enum check_level level, const char *line)
{
	struct tool *t = arg;

	hide_progress(t);
	printf("%s: %s%s\n", t->v.path, level == CHECK_NOTE ? "note: " : "", line);
}

static void progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct tool *t = arg;

	if (!vtool_progress_due(&t->v, false))
		return;
	t->shown = true;
	fprintf(stderr, "\r\033[K%s: %" PRIu64 " of %" PRIu64, what, done, total);
}

static void summary(struct tool *t)
{
	const struct check_result *r = &t->res;
	char total[CSV_SIZE_TEXT_BYTES], used[CSV_SIZE_TEXT_BYTES];

	hide_progress(t);
	if (r->records)
		printf("%s: %" PRIu64 " journal records, %" PRIu64 " blocks replayed in memory; the next mount does it on the volume\n", t->v.path,
		       r->records, r->replayed_blk);
	printf("%s: %s: %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " others, %" PRIu64 " orphans; %s of %s used\n", t->v.path,
	       r->errors ? "NOT in order" : "in order", r->files, r->dirs, r->others, r->orphans,
	       csv_size_to_text((r->data_blk + r->meta_blk) * CSV_BLOCK_SIZE, used), csv_size_to_text(r->total_blk * CSV_BLOCK_SIZE, total));
	if (r->errors)
		printf("%s: %" PRIu64 " error%s\n", t->v.path, r->errors, r->errors == 1 ? "" : "s");
}

static int check(struct tool *t)
{
	int r = check_volume(t->v.blk, &t->opt, &t->res, &t->v.err);

	hide_progress(t);
	return r;
}

static int refuse_alive(struct tool *t)
{
	char who[160];
	int r = check_alive(t->v.blk, ALIVE_MS, who, sizeof(who), &t->v.err);

	if (r > 0)
		return csv_err_set(&t->v.err, -EBUSY, "it is mounted: %s writes heartbeats; unmount it on every node first, or use -n", who);
	return r;
}

/* Who has it: a living node (looked for again where the check took its time), or one that never released its slot. */
static int refuse_mounted(struct tool *t, uint64_t took_ns)
{
	int r = took_ns > ALIVE_MS * NS_PER_MS ? refuse_alive(t) : 0;

	if (r < 0)
		return r;
	if (t->res.slots_active)
		return csv_err_set(&t->v.err, -EBUSY,
				   "%u slot%s not been released: a node has it mounted, or was lost; mount it once (that replays the journals of "
				   "lost nodes) and unmount it everywhere, or use -n", t->res.slots_active,
				   t->res.slots_active == 1 ? " has" : "s have");
	return 0;
}

static int work(void *arg)
{
	struct tool *t = arg;
	int r = t->fix ? refuse_alive(t) : 0, fixed = 0;
	uint64_t begin_ns = clock_mono_ns(&t->v.clock);

	if (!r)
		r = check(t);
	if (!r && t->fix)
		r = refuse_mounted(t, clock_mono_ns(&t->v.clock) - begin_ns);
	if (!r && t->fix && t->res.super_bad) {
		fixed = r = check_repair_super(t->v.blk, &t->v.err);
		if (r > 0) {
			printf("%s: superblock: %d block%s written again from the good copy; checking once more\n", t->v.path, r, r == 1 ? "" : "s");
			r = check(t);
		}
	}
	if (!r)
		summary(t);
	if (!r && t->fix && t->res.errors)
		printf("%s: this version repairs superblock copies only; save what is readable, or restore from a backup\n", t->v.path);
	t->exit = r < 0 ? FSCK_FAILED : t->res.errors ? FSCK_LEFT : fixed ? FSCK_FIXED : FSCK_OK;
	return r < 0 ? r : 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = { { "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' }, { 0 } };
	struct tool t = { .exit = FSCK_FAILED };
	bool only = false;
	int c;

	while ((c = getopt_long(argc, argv, "nyfhV", longs, NULL)) != -1) {
		switch (c) {
		case 'n': only = true; break;
		case 'y': t.fix = true; break;
		case 'f': break;
		case 'h': usage(stdout); return FSCK_OK;
		case 'V': puts("fsck.csvfs " PACKAGE_VERSION); return FSCK_OK;
		default: usage(stderr); return FSCK_USAGE;
		}
	}
	if (optind != argc - 1 || (only && t.fix)) {
		usage(stderr);
		return FSCK_USAGE;
	}
	signals();
	vtool_init(&t.v, argv[optind]);
	t.opt = (struct check_options){ .report = report, .progress = progress, .arg = &t };
	if (vtool_run(&t.v, BLK_O_BUFFERED | (t.fix ? 0 : BLK_O_RDONLY), "fsck", work, &t) < 0) {
		fprintf(stderr, "fsck.csvfs: %s\n", t.v.err.text);
		return FSCK_FAILED;
	}
	return t.exit;
}
