/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every operation with its k-th request to the disk failing, k = 1, 2, ... until none fails: an error or a withdrawn volume, and what a
 * second node replays afterwards is consistent; what had been there before and was not touched is still there.
 */
#include "tests/unit/core_ops.h"

static uint8_t big[1 << 20], back[1 << 20];
static uint64_t the_dir, the_file, the_pieces;
static int result;

#define PIECES 150u

static void base(struct csvfs *fs)
{
	struct csvfs_attr a;
	char name[16];

	the_dir = mk(fs, root(fs), "dir", S_IFDIR | 0755).ino;
	for (unsigned i = 0; i < 60; i++) {
		snprintf(name, sizeof(name), "entry-%u", i);
		mk(fs, the_dir, name, S_IFREG | 0644);
	}
	mk(fs, the_dir, "empty", S_IFDIR);
	the_file = mk(fs, root(fs), "file", S_IFREG).ino;
	fill(big, 300000, 0, 1);
	IS(csvfs_write(fs, the_file, 0, 0, big, 300000, 0, NULL), 300000);
	the_pieces = mk(fs, root(fs), "pieces", S_IFREG).ino;
	for (unsigned i = 0; i < PIECES; i++)
		IS(csvfs_write(fs, the_pieces, 0, i * 8192, big, 4096, 0, NULL), 4096);
	OK(csvfs_symlink(fs, root(fs), 0, "link", "target", 0, 0, &a));
	OK(csvfs_create(fs, root(fs), 0, "inline", S_IFREG, 0, 0, 0, false, &a));
	IS(csvfs_write(fs, a.ino, 0, 0, "witness", 7, 0, NULL), 7);
	OK(csvfs_sync(fs));
}

static void still_there(struct csvfs *fs)
{
	struct csvfs_attr a;

	OK(csvfs_lookup(fs, root(fs), 0, "inline", &a));
	IS(csvfs_read(fs, a.ino, 0, 0, back, 100), 7);
	ck_assert_int_eq(memcmp(back, "witness", 7), 0);
	OK(csvfs_lookup(fs, the_dir, 0, "entry-7", &a));
}

/* ---- the operations ------------------------------------------------------------------------------------------------------------- */

static struct csvfs_attr ra;
static void op_create(struct csvfs *fs) { result = csvfs_create(fs, the_dir, 0, "new", S_IFREG, 0, 0, 0, false, &ra); }
static void op_mkdir(struct csvfs *fs) { result = csvfs_create(fs, the_dir, 0, "new", S_IFDIR, 0, 0, 0, false, &ra); }
static void op_symlink(struct csvfs *fs)
{
	memset(big, 'x', 4000);
	big[4000] = 0;
	result = csvfs_symlink(fs, the_dir, 0, "new", (char *)big, 0, 0, &ra);
}
static void op_link(struct csvfs *fs) { result = csvfs_link(fs, the_file, 0, the_dir, 0, "new", &ra); }
static void op_unlink(struct csvfs *fs) { result = csvfs_unlink(fs, the_dir, 0, "entry-5"); }
static void op_unlink_big(struct csvfs *fs) { result = csvfs_unlink(fs, root(fs), 0, "pieces"); }
static void op_rmdir(struct csvfs *fs) { result = csvfs_rmdir(fs, the_dir, 0, "empty"); }
static void op_rename(struct csvfs *fs) { result = csvfs_rename(fs, the_dir, 0, "entry-5", root(fs), 0, "file", 0); }
static void op_exchange(struct csvfs *fs) { result = csvfs_rename(fs, the_dir, 0, "empty", root(fs), 0, "file", RENAME_EXCHANGE); }
static void op_write(struct csvfs *fs)
{
	fill(big, 200001, 250001, 2);
	result = (int)csvfs_write(fs, the_file, 0, 250001, big, 200001, 0, NULL);
}
static void op_grow_inline(struct csvfs *fs)
{
	result = csvfs_lookup(fs, the_dir, 0, "entry-9", &ra);
	if (!result)
		result = (int)csvfs_write(fs, ra.ino, 0, 0, "abc", 3, 0, NULL);
	if (result >= 0)
		result = (int)csvfs_write(fs, ra.ino, 0, 5000, "def", 3, 0, NULL);
}
static void op_truncate(struct csvfs *fs) { result = csvfs_setattr(fs, the_pieces, 0, &(struct csvfs_attr){ .size = 4097 }, CSVFS_SET_SIZE, &ra); }
static void op_extend(struct csvfs *fs) { result = csvfs_setattr(fs, the_file, 0, &(struct csvfs_attr){ .size = 900000 }, CSVFS_SET_SIZE, &ra); }
static void op_fallocate(struct csvfs *fs) { result = csvfs_fallocate(fs, the_pieces, 0, 0, 0, 1 << 21); }
static void op_punch(struct csvfs *fs) { result = csvfs_fallocate(fs, the_pieces, 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 800001); }
static void op_zero(struct csvfs *fs) { result = csvfs_fallocate(fs, the_pieces, 0, FALLOC_FL_ZERO_RANGE, 5000, 800001); }
static void op_chmod(struct csvfs *fs) { result = csvfs_setattr(fs, the_file, 0, &(struct csvfs_attr){ .mode = 0600 }, CSVFS_SET_MODE, &ra); }

/* ---- what they leave behind when they said 0 ---------------------------------------------------------------------------------------- */

static void is_new(struct csvfs *fs) { OK(has(fs, the_dir, "new")); }
static void is_unlinked(struct csvfs *fs) { IS(has(fs, the_dir, "entry-5"), -ENOENT); }
static void is_big_unlinked(struct csvfs *fs) { IS(has(fs, root(fs), "pieces"), -ENOENT); }
static void is_rmdir(struct csvfs *fs) { IS(has(fs, the_dir, "empty"), -ENOENT); }
static void is_renamed(struct csvfs *fs)
{
	is_unlinked(fs);
	ck_assert_uint_eq(look(fs, root(fs), "file").size, 0);
}
static void is_exchanged(struct csvfs *fs)
{
	ck_assert_uint_eq(look(fs, the_dir, "empty").ino, the_file);
	ck_assert(S_ISDIR(look(fs, root(fs), "file").mode));
}
static void is_written(struct csvfs *fs)
{
	IS(csvfs_read(fs, the_file, 0, 0, back, sizeof(back)), 450002);
	fill(big, 250001, 0, 1);
	ck_assert(!memcmp(back, big, 250001));
	fill(big, 200001, 250001, 2);
	ck_assert(!memcmp(back + 250001, big, 200001));
}
static void is_grown(struct csvfs *fs)
{
	static const char want[5003] = "abc";

	IS(csvfs_read(fs, look(fs, the_dir, "entry-9").ino, 0, 0, back, 6000), 5003);
	ck_assert(!memcmp(back, want, 5000) && !memcmp(back + 5000, "def", 3));
}
static void is_truncated(struct csvfs *fs)
{
	struct csvfs_attr a = attr(fs, the_pieces);

	ck_assert_uint_eq(a.size, 4097);
	ck_assert_uint_eq(a.blocks_512, 8);
}
static void is_extended(struct csvfs *fs)
{
	ck_assert_uint_eq(attr(fs, the_file).size, 900000);
	IS(csvfs_read(fs, the_file, 0, 0, back, sizeof(back)), 900000);
	fill(big, 300000, 0, 1);
	ck_assert(!memcmp(back, big, 300000));
	memset(big, 0, 600000);
	ck_assert(!memcmp(back + 300000, big, 600000));
}
static void is_allocated(struct csvfs *fs) { ck_assert_uint_ge(attr(fs, the_pieces).blocks_512, (1 << 21) / 512); }
static void is_zero(struct csvfs *fs)
{
	IS(csvfs_read(fs, the_pieces, 0, 5000, back, 800001), 800001);
	memset(big, 0, 800001);
	ck_assert(!memcmp(back, big, 800001));
}
static void is_chmoded(struct csvfs *fs) { ck_assert_uint_eq(attr(fs, the_file).mode & 07777, 0600); }

static const struct { const char *name; void (*fn)(struct csvfs *fs), (*effect)(struct csvfs *fs); } ops[] = {
	{ "create", op_create, is_new }, { "mkdir", op_mkdir, is_new }, { "symlink", op_symlink, is_new }, { "link", op_link, is_new },
	{ "unlink", op_unlink, is_unlinked }, { "unlink of many pieces", op_unlink_big, is_big_unlinked },
	{ "rmdir", op_rmdir, is_rmdir }, { "rename", op_rename, is_renamed }, { "exchange", op_exchange, is_exchanged },
	{ "write", op_write, is_written }, { "grow inline", op_grow_inline, is_grown }, { "truncate", op_truncate, is_truncated },
	{ "extend", op_extend, is_extended }, { "fallocate", op_fallocate, is_allocated }, { "punch", op_punch, is_zero },
	{ "zero range", op_zero, is_zero }, { "chmod", op_chmod, is_chmoded },
};

static int sync_result;
static void (*the_op)(struct csvfs *fs), (*the_effect)(struct csvfs *fs);
static void op_and_sync(struct csvfs *fs)
{
	the_op(fs);
	sync_result = csvfs_sync(fs);
	/* the reaper may be at work */
	coro_sleep_ns(fs->env->sched, 200 * NS_PER_MS);
}

/* Cold caches: a new mount.  Returns whether a request failed. */
static bool with_fault(uint64_t k, bool stay)
{
	bool hit, withdrawn;
	const char *why;

	cw_setup();
	cw_mount(1);
	on_node(1, base);
	cw_umount(1);
	cw_mount(1);
	co_fault.stay = stay;
	co_fail_at(1, k);
	on_node(1, op_and_sync);
	hit = co_fault.hit;
	co_fault.at = 0;
	withdrawn = csvfs_state(cw_n(1)->fs, &why) == CSVFS_WITHDRAWN;
	if (!hit)
		ck_assert_msg(result >= 0 && sync_result == 0 && !withdrawn, "no fault, but %d, %d, %s", result, sync_result, why);
	cw_power_cut(1);
	cc_fsck();
	cw_mount(2);
	on_node(2, still_there);
	if (result >= 0 && sync_result == 0)
		on_node(2, the_effect);
	cw_umount(2);
	cc_check();
	cw_teardown();
	return hit;
}

START_TEST(a_failing_disk_leaves_a_consistent_volume)
{
	uint64_t k = 1;

	the_op = ops[_i / 2].fn;
	the_effect = ops[_i / 2].effect;
	while (with_fault(k, _i % 2)) {
		k++;
		ck_assert_uint_lt(k, 2000);
	}
	printf("%s: %llu requests failed one by one%s\n", ops[_i / 2].name, (unsigned long long)k - 1,
	       _i % 2 ? ", and all after them" : "");
	ck_assert_uint_gt(k, 3);
}
END_TEST

/* ---- a power cut in the middle of a truncate of many batches --------------------------------------------------------------------- */

static bool stop_syncing;

static void syncer(void *arg)
{
	struct csvfs *fs = arg;

	/* every batch of the truncate is committed by itself */
	while (!stop_syncing && csvfs_sync(fs) == 0)
		coro_yield(fs->env->sched);
}

static void truncate_and_sync(struct csvfs *fs)
{
	stop_syncing = false;
	sched_spawn(fs->env->sched, "syncer", syncer, fs);
	op_truncate(fs);
	stop_syncing = true;
	sync_result = csvfs_sync(fs);
}

/* Entries in the orphan tree of slot 0 as it is on the disk, just replayed. */
static unsigned cw_intents(void)
{
	const struct csv_inode *d = (const void *)(cw.disk + (csv_orphan_blk(&cw_n(2)->fs->geo, 0) << CSV_BLOCK_SHIFT));

	return le16_get(((const struct csv_bt_head *)d->body_bytes)->count);
}

static bool cut_hit(void *arg)
{
	return co_fault.hit || cw_is_done(arg);
}

static unsigned old_size, new_size, unfinished;

static void truncated_or_not(struct csvfs *fs)
{
	struct csvfs_attr a;

	coro_sleep_ns(fs->env->sched, 3 * NS_PER_SEC);
	a = attr(fs, the_pieces);
	if (a.size == (PIECES - 1) * 8192 + 4096) {
		old_size++;
		for (unsigned i = 0; i < PIECES; i++) {
			IS(csvfs_read(fs, the_pieces, 0, i * 8192, back, 4096), 4096);
			ck_assert(back[0] != 0);
		}
		return;
	}
	new_size++;
	ck_assert_uint_eq(a.size, 4097);
	ck_assert_uint_eq(attr(fs, the_pieces).blocks_512, 8);
	/* growing again shows zeros only */
	OK(csvfs_setattr(fs, the_pieces, 0, &(struct csvfs_attr){ .size = 1000000 }, CSVFS_SET_SIZE, &ra));
	IS(csvfs_read(fs, the_pieces, 0, 4097, back, 900000), 900000);
	memset(big, 0, 900000);
	ck_assert(!memcmp(back, big, 900000));
}

START_TEST(a_truncate_cut_off_in_its_middle_is_finished)
{
	bool hit = true;

	old_size = new_size = unfinished = 0;
	for (uint64_t k = 1; hit; k++) {
		cw_setup();
		cw_mount(1);
		on_node(1, base);
		co_fault.stay = true;
		co_fail_at(1, k);
		co_body = truncate_and_sync;
		cw_start(1, co_main);
		ck_assert(cw_run(600000, cut_hit, cw_n(1)));
		hit = co_fault.hit;
		co_fault.at = 0;
		cw_power_cut(1);
		cc_fsck();
		cw_mount(2);
		unfinished += cw_intents();
		on_node(2, truncated_or_not);
		cw_umount(2);
		ck_assert_uint_eq(cc_check(), 0);
		cw_teardown();
	}
	printf("truncate of 150 pieces, power cut at each request: old size %u times, new size %u times, of these unfinished %u times\n", old_size,
	       new_size, unfinished);
	ck_assert(old_size > 2 && new_size > 2 && unfinished > 0);
}
END_TEST

UNIT_MAIN("ops_fault", UNIT_SLOW(a_truncate_cut_off_in_its_middle_is_finished, 0, 1, 60),
	   UNIT_SLOW(a_failing_disk_leaves_a_consistent_volume, 0, 2 * (int)ARRAY_SIZE(ops), 60))
