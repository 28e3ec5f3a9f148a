/* SPDX-License-Identifier: GPL-2.0-only */
/* test_alloc_group - where the allocator looks: groups cached here and held elsewhere, a full volume, runs and their shape, 100 TB. */
#include "tests/unit/alloc_world.h"

#include <errno.h>
#include <time.h>

#include "tests/unit/sparse_blk.h"
#include "tests/unit/unit.h"

/* ---- which group ---------------------------------------------------------------------------------------------------------------------------- */

static void local_run(void *arg)
{
	struct alw *w = arg;
	uint64_t blk, last = 0, asked;
	uint32_t len;

	w->fs->slot = 3;
	ck_assert_int_eq(alw_take(w, 0, 16, CSV_BLK_DATA, &last, &len), 0);
	/* a node begins in its own part */
	ck_assert_uint_eq(alloc_group_of(w->fs, last), 3 * w->fs->geo.groups / w->fs->geo.slots);
	asked = w->f->n_locks_asked;
	for (int i = 0; i < 1000; i++) {
		ck_assert_int_eq(alw_take(w, last + 16, 16, CSV_BLK_DATA, &blk, &len), 0);
		ck_assert_uint_eq(blk, last + 16);	/* contiguous */
		ck_assert_uint_eq(len, 16);
		last = blk;
	}
	/* also when the hint lies in a group that is not ours */
	ck_assert_int_eq(alw_take(w, csv_group_start(&w->fs->geo, 7) + 500, 16, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_uint_eq(w->f->n_locks_asked, asked);
}

START_TEST(groups_cached_here_are_used_without_a_message)
{
	alw_run(12 * GB, 4, local_run);
}
END_TEST

static void elsewhere_run(void *arg)
{
	struct alw *w = arg;
	uint32_t groups = w->fs->geo.groups, len;
	uint64_t blk;

	for (uint32_t g = 0; g < groups; g++)
		fake_lock_of(w->f, OWN_GROUP(g))->held_elsewhere = g != 5;
	ck_assert_int_eq(alw_take(w, 0, 16, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_uint_eq(alloc_group_of(w->fs, blk), 5);
	/* holding one already, others that are held elsewhere must not be waited for */
	ck_assert_int_eq(alloc_reserve(&w->r, 0, 200000, 1, false), 0);
	ck_assert_int_eq(w->r.n, 1);
	for (uint32_t g = 6; g < groups; g++)
		fake_lock_of(w->f, OWN_GROUP(g))->held_elsewhere = false;
	ck_assert_int_eq(alloc_reserve(&w->r, 0, 200000, 1, false), 0);
	ck_assert_uint_eq(w->r.n, 2);
	ck_assert_uint_gt(w->r.g[1].group, 5);
	alloc_resv_done(&w->r);
	for (uint32_t g = 6; g < groups; g++)
		fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(g)));
	ck_assert_int_eq(alloc_reserve(&w->r, csv_group_start(&w->fs->geo, 11), 200000, 1, false), 0);
	fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(w->r.g[0].group == 5 ? 6 : 5)));
	alloc_resv_done(&w->r);
}

START_TEST(groups_held_elsewhere_are_left_alone)
{
	alw_run(12 * GB, 4, elsewhere_run);
}
END_TEST

static void again_run(void *arg)
{
	struct alw *w = arg;
	uint32_t last = w->fs->geo.groups - 1;

	for (uint32_t g = 0; g < last; g++)
		fake_lock_of(w->f, OWN_GROUP(g))->held_elsewhere = true;
	ck_assert_int_eq(alloc_lock_groups(&w->r, &last, 1), 0);
	/* all others come before it in the lock order and are held elsewhere */
	ck_assert_int_eq(alloc_reserve(&w->r, 0, 262000, 1, false), -EAGAIN);
	ck_assert_int_eq(alloc_lock_groups(&w->r, (uint32_t[]){ 2 }, 1), -EAGAIN);
	alloc_resv_done(&w->r);
	ck_assert_uint_eq(w->f->n_pins, 0);
}

START_TEST(the_lock_order_is_kept_by_eagain)
{
	alw_run(4 * GB + 100 * MB, 2, again_run);
}
END_TEST

static void lvb_run(void *arg)
{
	struct alw *w = arg;
	struct csv_lvb_group full = { .version = le32_of(CSV_LVB_VERSION), .free_blk = le32_of(3), .largest_run = le32_of(1), .seq = le64_of(9) };
	uint32_t len;
	uint64_t blk;

	for (uint32_t g = 0; g < w->fs->geo.groups - 1; g++) {
		struct fake_lock *l = fake_lock_of(w->f, OWN_GROUP(g));

		memcpy(l->lvb, &full, sizeof(full));
		l->lvb_valid = true;
	}
	ck_assert_int_eq(alw_take(w, 0, 16, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_uint_eq(alloc_group_of(w->fs, blk), w->fs->geo.groups - 1);
	ck_assert_uint_eq(w->f->n_reads, 18);	/* of the one group that has room */
	/* and the next does not even ask for their locks */
	fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(w->fs->geo.groups - 1)));
	w->f->n_locks_asked = 0;
	ck_assert_int_eq(alw_take(w, 0, 16, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_uint_eq(w->f->n_locks_asked, 1);
}

START_TEST(value_blocks_spare_the_reading_of_full_groups)
{
	alw_run(12 * GB, 2, lvb_run);
}
END_TEST

/* ---- no space ----------------------------------------------------------------------------------------------------------------------------------- */

static void enospc_run(void *arg)
{
	struct alw *w = arg;
	uint64_t blk, left, total = 0;
	uint32_t len;

	/* hints that lie do not matter: all groups are looked at before no space is said */
	for (uint32_t g = 0; g < w->fs->geo.groups; g++)
		hint_set(w->fs, g, 0, 0, false);
	while (alw_take(w, 0, 1000, CSV_BLK_DATA, &blk, &len) == 0)
		total += len;
	while (alw_take(w, 0, 1, CSV_BLK_META, &blk, &len) == 0)
		total += len;
	ck_assert_int_eq(alloc_count_free(w->fs, true, &left), 0);
	ck_assert_uint_eq(left, alloc_reserved_blocks(w->fs));
	ck_assert_uint_gt(left, 100);
	ck_assert_uint_le(left, 16384);
	/* what frees may use the reserve */
	ck_assert_int_eq(alloc_reserve(&w->r, 0, 5, 1, true), 0);
	alloc_resv_done(&w->r);
	/* one block somewhere is found */
	ck_assert_int_eq(alw_give(w, blk, 1, CSV_BLK_META), 0);
	fake_commit_all(w->f);
	for (uint32_t g = 0; g < w->fs->geo.groups; g++) {
		fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(g)));
		fake_lock_of(w->f, OWN_GROUP(g))->lvb_valid = false;
		hint_set(w->fs, g, 0, 0, false);
	}
	ck_assert_int_eq(alw_take(w, 0, 1, CSV_BLK_META, &blk, &len), 0);
	ck_assert_int_eq(alw_take(w, 0, 1, CSV_BLK_META, &blk, &len), -ENOSPC);
	printf("full: %llu blocks taken, %llu left for freeing\n", (ull)total, (ull)left);
}

START_TEST(no_space_is_said_after_a_look_at_every_group)
{
	alw_run(3 * GB, 2, enospc_run);
}
END_TEST

/* ---- shape --------------------------------------------------------------------------------------------------------------------------------------- */

static void shape_run(void *arg)
{
	struct alw *w = arg;
	uint64_t inode[100], blk;
	uint32_t words = 0, len;

	/* inodes and data in turns: inodes share aligned chunks of 32 blocks, data stays out of them */
	for (int i = 0; i < 100; i++) {
		ck_assert_int_eq(alw_take(w, w->fs->geo.root_ino, 1, CSV_BLK_INODE, &inode[i], &len), 0);
		ck_assert_int_eq(alw_take(w, 0, 3, CSV_BLK_DATA, &blk, &len), 0);
		for (int k = 0; k <= i; k++)
			ck_assert_uint_ne(blk / 32, inode[k] / 32);
	}
	for (int i = 0; i < 100; i++) {
		bool first = true;

		for (int k = 0; k < i; k++)
			first = first && inode[k] / 32 != inode[i] / 32;
		words += first;
	}
	ck_assert_uint_le(words, 5);
	/* large runs begin at whole MiB */
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(alw_take(w, 0, 256, CSV_BLK_DATA, &blk, &len), 0);
		ck_assert_uint_eq(len, 256);
		ck_assert_uint_eq(blk % 256, 0);
	}
	/* what is peeked at is what is taken */
	for (int i = 0; i < 50; i++) {
		uint64_t peek, got, gen;
		struct jnl_handle h;

		ck_assert_int_eq(alloc_reserve(&w->r, w->fs->geo.root_ino, 1, 1, false), 0);
		ck_assert_int_eq(alloc_peek(&w->r, w->fs->geo.root_ino + (uint64_t)i * 7, &peek), 0);
		fake_begin(w->f, alloc_credits(&w->r, 1), 0, &h);
		ck_assert_int_eq(alloc_take(&w->r, &h, peek, 1, CSV_BLK_INODE, &got, &len, &gen), 0);
		ck_assert_uint_eq(got, peek);
		/* not more than was promised */
		ck_assert_int_eq(alloc_take(&w->r, &h, peek, 1, CSV_BLK_INODE, &got, &len, &gen), -ENOSPC);
		fake_end(w->f, &h);
		alloc_resv_done(&w->r);
	}
}

START_TEST(inodes_cluster_and_large_runs_are_aligned)
{
	alw_run(512 * MB, 2, shape_run);
}
END_TEST

static void run_run(void *arg)
{
	struct alw *w = arg;
	uint64_t blk;
	uint32_t len;

	/* group 0 full of holes of 500 blocks */
	for (uint64_t b = w->fs->geo.root_ino + 1, end = csv_group_start(&w->fs->geo, 1); b < end; b += 1024) {
		uint32_t n = (uint32_t)csv_min(1024ull, end - b);
		struct jnl_handle h;

		ck_assert_int_eq(alloc_reserve(&w->r, b, n, 1, true), 0);
		fake_begin(w->f, alloc_credits(&w->r, 1), 0, &h);
		ck_assert_int_eq(alloc_take(&w->r, &h, b, n, CSV_BLK_DATA, &blk, &len, NULL), 0);
		fake_end(w->f, &h);
		alloc_resv_done(&w->r);
		ck_assert(blk == b && len == n);
		if (n == 1024)
			ck_assert_int_eq(alw_give(w, b + 1, 500, CSV_BLK_DATA), 0);
	}
	fake_commit_all(w->f);
	/* 500 are to be had here; more in one run only in the other group */
	ck_assert_int_eq(alloc_reserve(&w->r, w->fs->geo.root_ino, 400, 400, false), 0);
	ck_assert_uint_eq(w->r.g[0].group, 0);
	alloc_resv_done(&w->r);
	ck_assert_int_eq(alloc_reserve(&w->r, w->fs->geo.root_ino, 2000, 2000, false), 0);
	ck_assert_uint_eq(w->r.g[0].group, 1);
	alloc_resv_done(&w->r);
	/* when no group has such a run, any room will do */
	for (uint32_t g = 1; g < w->fs->geo.groups; g++) {
		fake_lock_of(w->f, OWN_GROUP(g))->held_elsewhere = true;
		fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(g)));
	}
	ck_assert_int_eq(alloc_reserve(&w->r, w->fs->geo.root_ino, 2000, 2000, false), 0);
	ck_assert_uint_eq(w->r.g[0].group, 0);
	alloc_resv_done(&w->r);
}

START_TEST(a_wanted_run_leads_to_a_group_that_has_it)
{
	alw_run(2 * GB + 200 * MB, 2, run_run);
}
END_TEST

/* ---- 100 TB --------------------------------------------------------------------------------------------------------------------------------------- */

static struct blk *make_sparse(struct sched *s, void *arg)
{
	return sparse_blk_new(s, *(uint64_t *)arg, 4096);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

struct huge { struct fake_core *f; struct csvfs_mkfs_options o; uint32_t told; };

static void huge_progress(void *arg, uint32_t done, uint32_t groups)
{
	struct huge *x = arg;

	csv_assert(done >= x->told && done <= groups);
	x->told = done;
}

static void huge_run(void *arg)
{
	struct huge *x = arg;
	struct alw w = { .f = x->f, .fs = &x->f->fs };
	struct csv_err err = CSV_ERR_INIT;
	uint64_t blk, approx, asked, writes;
	double t0 = seconds(), t1, t2, t3;
	struct csv_geom d;
	uint32_t len;

	ck_assert_msg(csvfs_mkfs(w.f->env.blk, &x->o, &w.fs->geo, &err) == 0, "%s", err.text);
	t1 = seconds();
	ck_assert_uint_eq(x->told, w.fs->geo.groups);
	ck_assert_int_eq(csv_super_read(w.f->env.blk, &d, NULL, &err), 0);
	ck_assert_uint_eq(d.slots, 64);
	ck_assert_uint_eq(d.groups, w.fs->geo.groups);
	writes = w.f->env.blk->n_writes;
	ck_assert_uint_le(writes, d.groups + 64 * 8 + 16);	/* one request a group */

	ck_assert_int_eq(alloc_init(w.fs), 0);
	alloc_resv_init(w.fs, &w.r);
	w.fs->slot = 63;
	ck_assert_int_eq(alw_take(&w, 0, 256, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_uint_eq(alloc_group_of(w.fs, blk), (uint32_t)(63ull * d.groups / 64));
	/* nearly all of it full by hints, as after long use: what is left is found by way of the summaries */
	for (uint32_t g = 0; g < d.groups; g++)
		hint_set(w.fs, g, 100, 10, false);
	for (uint32_t s = 0; s < d.groups; s += SUMMARY_GROUPS)
		hint_next(w.fs, s, 101, 1);
	hint_set(w.fs, 4711, 100000, 100000, false);
	fake_commit_all(w.f);
	fake_release(w.f, fake_lock_of(w.f, OWN_GROUP(alloc_group_of(w.fs, blk))));
	hint_set(w.fs, alloc_group_of(w.fs, blk), 100, 10, false);
	asked = w.f->n_locks_asked;
	t2 = seconds();
	for (int i = 0; i < 1000; i++)
		ck_assert_uint_eq(hint_next(w.fs, 0, 256, 256), 4711);
	t3 = seconds();
	ck_assert_int_eq(alw_take(&w, 0, 256, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_uint_eq(alloc_group_of(w.fs, blk), 4711);
	ck_assert_uint_eq(w.f->n_locks_asked, asked + 1);
	/* the last block of the last group */
	for (uint32_t g = 0; g < d.groups; g++)
		hint_set(w.fs, g, 200000, 200000, false);
	fake_commit_all(w.f);
	fake_release(w.f, fake_lock_of(w.f, OWN_GROUP(4711)));
	uint32_t last = d.groups - 1;
	ck_assert_int_eq(alloc_lock_groups(&w.r, &last, 1), 0);
	blk = csv_group_start(&d, last) + csv_group_blocks(&d, last) - 1;
	ck_assert_int_eq(alloc_may_give(&w.r, blk, 1, CSV_BLK_DATA), -CSV_E_CORRUPT);
	alloc_resv_done(&w.r);
	ck_assert_int_eq(alw_take(&w, blk, 1, CSV_BLK_DATA, &approx, &len), 0);
	ck_assert_uint_eq(approx, blk);
	ck_assert_int_eq(alw_give(&w, blk, 1, CSV_BLK_DATA), 0);
	ck_assert_int_eq(alloc_count_free(w.fs, false, &approx), 0);
	ck_assert_uint_gt(approx, d.total_blk / 2);
	printf("100 TB: %u groups made in %.2f s (%.0f MB of memory), %.1f us a search over full groups\n", d.groups, t1 - t0,
	       (double)sparse_blk_bytes(w.f->env.blk) / 1e6, (t3 - t2) * 1e3);
}

START_TEST(a_volume_of_100_tb_with_64_slots)
{
	uint64_t bytes = 100000000000000ull;
	struct huge x = { .o = { .slots = 64, .uuid = { 7 }, .progress = huge_progress } };

	x.o.arg = &x;
	x.f = fake_core_new_on(make_sparse, &bytes, NULL);
	fake_run(x.f, huge_run, &x);
	fake_core_free(x.f);
}
END_TEST

UNIT_MAIN("alloc_group",
	  UNIT_TEST(groups_cached_here_are_used_without_a_message),
	  UNIT_TEST(groups_held_elsewhere_are_left_alone),
	  UNIT_TEST(the_lock_order_is_kept_by_eagain),
	  UNIT_TEST(value_blocks_spare_the_reading_of_full_groups),
	  UNIT_TEST(no_space_is_said_after_a_look_at_every_group),
	  UNIT_TEST(inodes_cluster_and_large_runs_are_aligned),
	  UNIT_TEST(a_wanted_run_leads_to_a_group_that_has_it),
	  UNIT_SLOW(a_volume_of_100_tb_with_64_slots, 0, 1, 120))
