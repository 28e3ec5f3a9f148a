/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * check_volume.h - what the checker's unit tests share: a volume in memory made by the real core, with one of everything, and the checker
 * run on it.
 */
#ifndef CSVFS_TESTS_UNIT_CHECK_VOLUME_H
#define CSVFS_TESTS_UNIT_CHECK_VOLUME_H

#ifndef CW_BYTES
#define CW_BYTES (2200ull << 20)	/* two groups and a short one; memory is used only where something is written */
#endif
#ifndef CV_BIG_BYTES
#define CV_BIG_BYTES (1200ull << 20)	/* over the first group's end */
#endif

#include "csvfs/check/check.h"
#include "tests/unit/core_ops.h"

#define CV_LINES 4000

struct cv {
	struct check_result res;
	struct csv_err err;
	int r;
	uint32_t n;
	char *line[CV_LINES];		/* errors and notes */
	uint64_t mem;
	uint64_t dir, big, many, fixed, inl, link, dev, sub, root, orphan;	/* inodes of cv_populate() */
	struct csv_geom g;
};
static struct cv cv;

static void cv_report(void *arg, enum check_level level, const char *line)
{
	(void)arg;
	(void)level;
	if (cv.n < CV_LINES)
		cv.line[cv.n++] = strdup(line);
}

static void cv_check_coro(void *arg)
{
	struct cw_node *n = arg;
	struct check_options o = { .report = cv_report, .mem_bytes = cv.mem, .max_lines = CV_LINES };

	cv.err = CSV_ERR_INIT;
	cv.r = check_volume(&n->blk, &o, &cv.res, &cv.err);
	n->done = true;
}

/* Node 4 is never mounted: it is the checker's. */
static csv_unused void cv_check(void)
{
	while (cv.n)
		free(cv.line[--cv.n]);
	memset(&cv.res, 0, sizeof(cv.res));
	if (!cw_n(4)->on)
		cw_boot(4);
	cw_do(4, cv_check_coro);
}

static csv_unused const char *cv_lines(void)
{
	static char text[4096];
	size_t at = 0;

	text[0] = 0;
	if (cv.r)
		at = snprintf(text, sizeof(text), "%d: %s\n", cv.r, cv.err.text);
	for (uint32_t i = 0; i < cv.n && at < sizeof(text) - 200; i++)
		at += snprintf(text + at, sizeof(text) - at, "%s\n", cv.line[i]);
	return text;
}

static csv_unused bool cv_says(const char *what)
{
	if (cv.r && strstr(cv.err.text, what))
		return true;
	for (uint32_t i = 0; i < cv.n; i++)
		if (strstr(cv.line[i], what))
			return true;
	return false;
}

#define CV_CLEAN() ck_assert_msg(!cv.r && !cv.res.errors, "the volume must be in order:\n%s", cv_lines())
#define CV_SAYS(what) ck_assert_msg(cv_says(what), "must say \"%s\", but says:\n%s", what, cv_lines())

static csv_unused uint8_t *cv_blk(uint64_t blkno)
{
	return cw.disk + (blkno << CSV_BLOCK_SHIFT);
}

static csv_unused void cv_seal(uint64_t blkno)
{
	const struct csv_mhdr *h = (void *)cv_blk(blkno);

	mhdr_seal(cv_blk(blkno), le32_get(h->magic) == CSV_MAGIC_SUPER ? NULL : cv.g.uuid);
}

static void cv_fill(struct csvfs *fs)
{
	static uint8_t buf[65536];
	struct csvfs_attr a;
	char name[64];
	uint64_t off;

	cv.g = fs->geo;
	cv.root = root(fs);
	cv.dir = mk(fs, cv.root, "dir", S_IFDIR | 0755).ino;
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "a file with a name of some length %u", i);
		mk(fs, cv.dir, name, S_IFREG | 0644);
	}
	cv.sub = mk(fs, cv.dir, "sub", S_IFDIR | 0700).ino;
	cv.dev = mk(fs, cv.sub, "fifo", S_IFIFO | 0600).ino;
	fill(buf, sizeof(buf), 0, 1);
	/* one extent a block: a tree of two levels */
	cv.many = mk(fs, cv.root, "many extents", S_IFREG | 0644).ino;
	for (unsigned i = 0; i < 400; i++)
		IS(csvfs_write(fs, cv.many, 0, i * 16384ull, buf, 4096, 0, &off), 4096);
	/* mostly unwritten */
	cv.big = mk(fs, cv.root, "big", S_IFREG | 0644).ino;
	OK(csvfs_fallocate(fs, cv.big, 0, 0, 0, CV_BIG_BYTES));
	IS(csvfs_write(fs, cv.big, 0, 0, buf, sizeof(buf), 0, &off), (long long)sizeof(buf));
	cv.fixed = mk(fs, cv.sub, "fixed", S_IFREG | 0644).ino;
	IS(csvfs_write(fs, cv.fixed, 0, 0, buf, sizeof(buf), 0, &off), (long long)sizeof(buf));
	OK(csvfs_link(fs, cv.fixed, 0, cv.root, 0, "second name", &a));
	cv.inl = mk(fs, cv.root, "inline", S_IFREG | 0644).ino;
	IS(csvfs_write(fs, cv.inl, 0, 0, buf, 100, 0, &off), 100);
	OK(csvfs_symlink(fs, cv.root, 0, "link", "dir/sub/fixed", 1, 2, &a));
	cv.link = a.ino;
	OK(csvfs_sync(fs));
}

/* Unmounted, in order. */
static csv_unused void cv_populate(void)
{
	cw_setup();
	cw_mount(1);
	on_node(1, cv_fill);
	cw_umount(1);
}

static void cv_orphans_coro(struct csvfs *fs)
{
	static uint8_t buf[4096];
	uint64_t off;

	cv.orphan = mk(fs, cv.root, "open and gone", S_IFREG | 0644).ino;
	IS(csvfs_write(fs, cv.orphan, 0, 8192, buf, sizeof(buf), 0, &off), (long long)sizeof(buf));
	OK(csvfs_open(fs, cv.orphan, 0));
	OK(csvfs_unlink(fs, cv.root, 0, "open and gone"));
	OK(csvfs_sync(fs));
}

/* Node 1 lost its power with an orphan open; its slot is active, its journal full of records. */
static csv_unused void cv_populate_and_crash(void)
{
	cw_setup();
	cw_mount(1);
	on_node(1, cv_fill);
	on_node(1, cv_orphans_coro);
	cw_power_cut(1);
}

static void cv_replay_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csv_slot_info s;
	struct jnl_replay_limits lim = { .total_blk = cv.g.total_blk, .data_start_blk = cv.g.data_start_blk,
					 .extra_first_blk = csv_orphan_blk(&cv.g, 0), .extra_last_blk = csv_orphan_blk(&cv.g, cv.g.slots - 1) };

	for (uint32_t i = 0; i < cv.g.slots; i++) {
		struct jnl_geometry jg = { .slot = i, .start_blk = csv_journal_blk(&cv.g, i), .len_blk = cv.g.journal_blk };

		ck_assert_int_eq(csv_slot_decode(&cv.g, i, cv_blk(csv_slot_blk(&cv.g, i)), &s, NULL), 0);
		if (s.state != CSV_SLOT_ACTIVE)
			continue;
		memcpy(jg.uuid, cv.g.uuid, 16);
		jg.incarnation = s.incarnation;
		ck_assert_int_eq(jnl_replay(&n->blk, &jg, &lim, NULL, NULL, NULL), 0);
		s.state = CSV_SLOT_FREE;
		csv_slot_encode(&cv.g, i, &s, cv_blk(csv_slot_blk(&cv.g, i)));
	}
	n->done = true;
}

/* All journals replayed onto the volume, slots free, orphans left. */
static csv_unused void cv_populate_with_orphans(void)
{
	cv_populate_and_crash();
	cw_boot(4);
	cw_do(4, cv_replay_coro);
}

/* ---- calls on a volume that is damaged: whether one of them said so is all that is kept of what they answer */

static bool cv_damaged;

static csv_unused void cv_note(long long rc)
{
	cv_damaged |= rc == -CSV_E_CORRUPT;
}

static bool cv_some_names(void *arg, const struct csvfs_dirent *e)
{
	unsigned *left = arg;

	return e->name_len && (*left)-- > 1;
}

/* All that reads, whatever the object is. */
static csv_unused void cv_read_all(struct csvfs *fs, uint64_t ino, size_t bytes, unsigned names)
{
	static uint8_t buf[65536];
	struct csvfs_attr a;
	uint64_t off = 0;

	csv_assert(bytes <= sizeof(buf));
	cv_note(csvfs_getattr(fs, ino, 0, &a));
	cv_note(csvfs_readdir(fs, ino, 0, 0, cv_some_names, &names));
	cv_note(csvfs_readlink(fs, ino, 0, (char *)buf, 4096));
	cv_note(csvfs_read(fs, ino, 0, 0, buf, bytes));
	cv_note(csvfs_read(fs, ino, 0, 3 << 20, buf, bytes));
	cv_note(csvfs_lseek(fs, ino, 0, 5000, SEEK_HOLE, &off));
	cv_note(csvfs_lseek(fs, ino, 0, 5000, SEEK_DATA, &off));
}

static csv_unused void cv_teardown(void)
{
	while (cv.n)
		free(cv.line[--cv.n]);
	cw_teardown();
}

#endif
