/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * test_alloc - allocation groups on fake cache, locks and journal (core_fake.h), against an array of block states; freed blocks; errors.
 * Which group is taken: test_alloc_group.c.
 */
#include "tests/unit/alloc_world.h"

#include <errno.h>

#include "tests/unit/unit.h"

/* ---- against a model ------------------------------------------------------------------------------------------------------------------ */

enum { M_FREE, M_DATA, M_META, M_INODE, M_BUSY };
struct run { uint64_t blk; uint32_t len; enum csv_blk_state st; };

static void model_check(struct alw *w, const uint8_t *model, uint64_t first, uint64_t n)
{
	uint64_t want = 0, free_blk;

	for (uint64_t i = 0; i < n; i++)
		want += model[i] == M_FREE || model[i] == M_BUSY;
	ck_assert_int_eq(alloc_count_free(w->fs, true, &free_blk), 0);
	ck_assert_uint_eq(free_blk, want);
	for (int k = 0; k < 500; k++) {
		uint64_t i = csv_prng_below(&w->rnd, n);
		enum csv_blk_state st;

		csv_assert(alloc_state(w->fs, first + i, &st) == 0);
		csv_assertf(st == (model[i] == M_BUSY ? M_FREE : model[i]), "block %llu: %u, must be %u", (ull)(first + i), st, model[i]);
	}
}

static void model_run(void *arg)
{
	struct alw *w = arg;
	uint64_t first = w->fs->geo.data_start_blk, n = w->fs->geo.total_blk - 1 - first, gen_last[8] = { 0 };
	uint8_t *model = calloc(1, n);
	struct run *run = malloc(n * sizeof(*run));
	uint32_t runs = 0, reused = 0, enospc = 0, taken = 0, given = 0;

	for (uint32_t g = 0; g < w->fs->geo.groups; g++)
		memset(model + csv_group_start(&w->fs->geo, g) - first, M_META, CSV_GROUP_FIRST_FREE);
	model[w->fs->geo.root_ino - first] = M_INODE;
	for (int i = 0; i < 40000; i++) {
		int tide = i / 5000 % 2 ? 30 : 75;

		if ((int)csv_prng_below(&w->rnd, 100) < tide) {
			struct run x = { .st = (enum csv_blk_state)(1 + csv_prng_below(&w->rnd, 3)) };
			uint32_t want = x.st == CSV_BLK_DATA ? 1 + (uint32_t)csv_prng_below(&w->rnd, csv_prng_chance(&w->rnd, 1, 10) ? 3000 : 20) : 1;
			uint64_t hint = csv_prng_chance(&w->rnd, 1, 2) ? first + csv_prng_below(&w->rnd, n) : 0, gen = 0;
			struct jnl_handle h;
			int rc = alloc_reserve(&w->r, hint, want, want, false);

			if (rc) {
				ck_assert_int_eq(rc, -ENOSPC);
				enospc++;
				alloc_resv_done(&w->r);
				continue;
			}
			fake_begin(w->f, alloc_credits(&w->r, 1), 0, &h);
			ck_assert_int_eq(alloc_take(&w->r, &h, hint, want, x.st, &x.blk, &x.len, &gen), 0);
			fake_end(w->f, &h);
			alloc_resv_done(&w->r);
			csv_assert(x.len >= 1 && x.len <= want && csv_run_is_allocatable(&w->fs->geo, x.blk, x.len));
			for (uint32_t k = 0; k < x.len; k++) {
				csv_assertf(model[x.blk - first + k] == M_FREE, "block %llu was %u", (ull)x.blk + k, model[x.blk - first + k]);
				model[x.blk - first + k] = (uint8_t)x.st;
			}
			if (x.st != CSV_BLK_DATA) {
				uint32_t g = alloc_group_of(w->fs, x.blk);

				csv_assertf(gen > gen_last[g], "generation %llu after %llu", (ull)gen, (ull)gen_last[g]);
				gen_last[g] = gen;
			}
			run[runs++] = x;
			taken++;
		} else if (runs) {
			uint32_t k = (uint32_t)csv_prng_below(&w->rnd, runs), at = 0;
			struct run x = run[k];

			/* a part of it, sometimes */
			if (x.len > 1 && csv_prng_chance(&w->rnd, 1, 2)) {
				at = (uint32_t)csv_prng_below(&w->rnd, x.len);
				run[k].len = at;
				x.len -= at;
				x.blk += at;
			}
			if (!at)
				run[k] = run[--runs];
			ck_assert_int_eq(alw_give(w, x.blk, x.len, x.st), 0);
			memset(model + (x.blk - first), M_BUSY, x.len);
			given++;
		}
		if (csv_prng_chance(&w->rnd, 1, 50)) {
			fake_commit_all(w->f);
			for (uint64_t b = 0; b < n; b++)
				if (model[b] == M_BUSY)
					model[b] = M_FREE, reused++;
		}
		/* the lock goes elsewhere and comes back */
		if (csv_prng_chance(&w->rnd, 1, 200)) {
			uint32_t g = (uint32_t)csv_prng_below(&w->rnd, w->fs->geo.groups);
			uint64_t commits = w->f->n_commits;

			fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(g)));
			if (w->f->n_commits > commits)
				for (uint64_t b = 0; b < n; b++)
					if (model[b] == M_BUSY)
						model[b] = M_FREE, reused++;
		}
		if (i % 2000 == 0)
			model_check(w, model, first, n);
	}
	model_check(w, model, first, n);
	printf("model: %u taken, %u given, %u blocks free again, %u times no space\n", taken, given, reused, enospc);
	ck_assert_uint_gt(taken, 10000);
	ck_assert_uint_gt(reused, 10000);
	free(model);
	free(run);
}

START_TEST(random_takes_and_gives_equal_the_model)
{
	alw_run(1300 * MB, 2, model_run);
}
END_TEST

/* ---- busy blocks -------------------------------------------------------------------------------------------------------------------------- */

/* Frees a block and looks for it among everything that can be had before the commit. */
static bool comes_back_before_commit(struct alw *w)
{
	uint64_t blk, b;
	uint32_t len;
	bool back = false;

	ck_assert_int_eq(alw_take(w, 0, 1, CSV_BLK_DATA, &blk, &len), 0);
	fake_commit_all(w->f);
	ck_assert_int_eq(alw_give(w, blk, 1, CSV_BLK_DATA), 0);
	for (int i = 0; i < 50 && !back; i++) {
		ck_assert_int_eq(alw_take(w, blk, 1, CSV_BLK_DATA, &b, &len), 0);
		back = b == blk;
	}
	return back;
}

static void busy_run(void *arg)
{
	struct alw *w = arg;
	uint64_t blk, b;
	uint32_t len;

	ck_assert(!comes_back_before_commit(w));
	/* after the commit it does */
	ck_assert_int_eq(alw_take(w, 0, 1, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_int_eq(alw_give(w, blk, 1, CSV_BLK_DATA), 0);
	fake_commit_all(w->f);
	ck_assert_int_eq(alw_take(w, blk, 1, CSV_BLK_DATA, &b, &len), 0);
	ck_assert_uint_eq(b, blk);
}

START_TEST(a_freed_block_is_not_given_out_before_the_commit)
{
	alw_run(64 * MB, 2, busy_run);
}
END_TEST

static void mutation_run(void *arg)
{
	struct alw *w = arg;

	w->fs->mutate = CSV_MUT_REUSE_BEFORE_COMMIT;
	ck_assert(comes_back_before_commit(w));
}

/* The guard removed: the test above would fail. */
START_TEST(without_the_guard_it_is)
{
	alw_run(64 * MB, 2, mutation_run);
}
END_TEST

static void release_run(void *arg)
{
	struct alw *w = arg;
	struct fake_lock *l = fake_lock_of(w->f, OWN_GROUP(0));
	const struct csv_lvb_group *v = (const struct csv_lvb_group *)l->lvb;
	uint64_t blk, commits;
	uint32_t len, n = csv_group_blocks(&w->fs->geo, 0) - CSV_GROUP_FIRST_FREE - 1;

	ck_assert_int_eq(alw_take(w, 0, 10, CSV_BLK_DATA, &blk, &len), 0);
	fake_commit_all(w->f);
	ck_assert_int_eq(alw_give(w, blk, 4, CSV_BLK_DATA), 0);
	commits = w->f->n_commits;
	fake_release(w->f, l);		/* asserts inside that nothing is busy */
	ck_assert_uint_eq(w->f->n_commits, commits + 1);
	ck_assert_uint_eq(le32_get(v->version), CSV_LVB_VERSION);
	ck_assert_uint_eq(le32_get(v->free_blk), n - 6);
	ck_assert_uint_ge(le64_get(v->seq), 1);
	/* nothing busy: nothing committed */
	fake_release(w->f, l);
	ck_assert_uint_eq(w->f->n_commits, commits + 1);
}

START_TEST(a_group_leaves_only_after_the_commit_of_what_was_freed)
{
	alw_run(64 * MB, 2, release_run);
}
END_TEST

static void busy_space_run(void *arg)
{
	struct alw *w = arg;
	struct run *run = malloc(4096 * sizeof(*run));
	uint32_t n = 0, len;
	uint64_t blk, commits;
	int rc;

	for (;; n++) {
		rc = alw_take(w, 0, 64, CSV_BLK_DATA, &run[n].blk, &run[n].len);
		if (rc)
			break;
	}
	ck_assert_int_eq(rc, -ENOSPC);
	fake_commit_all(w->f);
	for (uint32_t i = 0; i < 10; i++)
		ck_assert_int_eq(alw_give(w, run[i].blk, run[i].len, CSV_BLK_DATA), 0);
	commits = w->f->n_commits;
	ck_assert_int_eq(alw_take(w, 0, 64, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_uint_eq(w->f->n_commits, commits + 1);
	free(run);
}

START_TEST(what_was_freed_is_committed_before_no_space_is_said)
{
	alw_run(64 * MB, 2, busy_space_run);
}
END_TEST

/* ---- errors --------------------------------------------------------------------------------------------------------------------------------------- */

static void wrong_run(void *arg)
{
	struct alw *w = arg;
	uint64_t blk;
	uint32_t len;
	enum csv_blk_state st;

	ck_assert_int_eq(alw_take(w, 0, 8, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_int_eq(alw_give(w, blk, 8, CSV_BLK_META), -CSV_E_CORRUPT);
	ck_assert_msg(strstr(w->f->log_last, "is to be freed as metadata: group 0 says data"), "%s", w->f->log_last);
	ck_assert_int_eq(alw_give(w, blk + 4, 8, CSV_BLK_DATA), -CSV_E_CORRUPT);
	ck_assert_int_eq(alw_give(w, blk, 8, CSV_BLK_DATA), 0);
	ck_assert_int_eq(alw_give(w, blk, 8, CSV_BLK_DATA), -CSV_E_CORRUPT);
	ck_assert_int_eq(alw_give(w, csv_group_start(&w->fs->geo, 0), 1, CSV_BLK_META), -CSV_E_CORRUPT);
	/* a group that is not in the reservation */
	ck_assert_int_eq(alloc_may_give(&w->r, blk, 1, CSV_BLK_DATA), -EXDEV);
	ck_assert_int_eq(alloc_state(w->fs, 3, &st), -EINVAL);
	ck_assert_int_eq(alloc_state(w->fs, w->fs->geo.total_blk, &st), -EINVAL);
	ck_assert_int_eq(alloc_state(w->fs, w->fs->geo.root_ino, &st), 0);
	ck_assert_int_eq(st, CSV_BLK_INODE);
}

START_TEST(freeing_what_the_bitmap_does_not_know_is_corruption)
{
	alw_run(64 * MB, 2, wrong_run);
}
END_TEST

static void corrupt_run(void *arg)
{
	struct alw *w = arg;
	static const struct { uint32_t block, off, size; uint64_t v; const char *text; } bad[] = {
		{ 0, offsetof(struct csv_group, group), 4, 7, "group = 7" }, { 0, offsetof(struct csv_group, blocks), 4, 7, "blocks = 7" },
		{ 0, offsetof(struct csv_group, free_blk), 4, 0xffffffff, "free_blk = 4294967295" },
		{ 0, offsetof(struct csv_group, free_blk), 4, 1, "free_blk = 1" }, { 0, offsetof(struct csv_group, inodes), 4, 5, "inodes = 5" },
		{ 0, offsetof(struct csv_group, largest_run), 4, 0x7fffffff, "largest_run" }, { 0, offsetof(struct csv_group, flags), 4, 1, "flags" },
		{ 0, offsetof(struct csv_group, refcount_root), 8, 1, "refcount_root" }, { 1, 64, 1, 0, "calls block 0 of the group free" },
		{ 9, 64, 1, 1, "free_blk" },
	};
	uint8_t *good = blk_alloc(CSV_BLOCK_SIZE), *block = blk_alloc(CSV_BLOCK_SIZE);

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint64_t at = csv_group_start(&w->fs->geo, 0) + bad[i].block, blk;
		uint32_t len;

		for (uint32_t g = 0; g < w->fs->geo.groups; g++) {
			fake_commit_all(w->f);
			fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(g)));
			fake_lock_of(w->f, OWN_GROUP(g))->lvb_valid = false;
			hint_set(w->fs, g, 200000, 200000, false);
		}
		ck_assert_int_eq(blk_read(w->f->env.blk, at * CSV_BLOCK_SIZE, good, CSV_BLOCK_SIZE), 0);
		memcpy(block, good, CSV_BLOCK_SIZE);
		for (uint32_t k = 0; k < bad[i].size; k++)
			block[bad[i].off + k] = (uint8_t)(bad[i].v >> (8 * k));
		mhdr_seal(block, w->fs->geo.uuid);
		ck_assert_int_eq(blk_write(w->f->env.blk, at * CSV_BLOCK_SIZE, block, CSV_BLOCK_SIZE), 0);
		w->f->log_last[0] = 0;
		/* the other group serves; the broken one is named */
		ck_assert_int_eq(alw_take(w, csv_group_start(&w->fs->geo, 0) + 30, 1, CSV_BLK_DATA, &blk, &len), 0);
		ck_assert_uint_eq(alloc_group_of(w->fs, blk), 1);
		ck_assert_msg(strstr(w->f->log_last, bad[i].text) && strstr(w->f->log_last, "group 0"), "case %zu: %s", i, w->f->log_last);
		/* alone it is an error, not "no space" */
		fake_commit_all(w->f);
		fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(1)));
		ck_assert_int_eq(alw_give(w, csv_group_start(&w->fs->geo, 0) + 30, 1, CSV_BLK_DATA), -CSV_E_CORRUPT);
		ck_assert_uint_eq(w->f->n_pins, 0);
		fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(0)));
		ck_assert_int_eq(blk_write(w->f->env.blk, at * CSV_BLOCK_SIZE, good, CSV_BLOCK_SIZE), 0);
	}
	free(good);
	free(block);
}

START_TEST(a_broken_group_is_named_and_the_others_serve)
{
	alw_run(1500 * MB, 2, corrupt_run);
}
END_TEST

static void fault_run(void *arg)
{
	struct alw *w = arg;
	uint64_t *fault[2] = { &w->f->fail_read, &w->f->fail_lock };
	uint32_t faults = 0;

	for (int kind = 0; kind < 2; kind++) {
		for (uint64_t k = 1;; k++) {
			uint64_t before = w->f->faults, blk;
			uint32_t len;
			int rc;

			fake_commit_all(w->f);
			for (uint32_t g = 0; g < w->fs->geo.groups; g++)
				fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(g)));
			*fault[kind] = k;
			rc = alw_take(w, 0, 16, CSV_BLK_DATA, &blk, &len);
			*fault[kind] = 0;
			ck_assert_uint_eq(w->f->n_pins, 0);
			if (w->f->faults == before) {
				ck_assert_int_eq(rc, 0);
				break;
			}
			ck_assert_int_lt(rc, 0);
			faults++;
		}
	}
	ck_assert_uint_ge(faults, 19);
}

START_TEST(the_kth_failure_leaves_nothing_locked)
{
	alw_run(1500 * MB, 2, fault_run);
}
END_TEST

UNIT_MAIN("alloc",
	  UNIT_SLOW(random_takes_and_gives_equal_the_model, 0, 1, 60),
	  UNIT_TEST(a_freed_block_is_not_given_out_before_the_commit),
	  UNIT_TEST(without_the_guard_it_is),
	  UNIT_TEST(a_group_leaves_only_after_the_commit_of_what_was_freed),
	  UNIT_TEST(what_was_freed_is_committed_before_no_space_is_said),
	  UNIT_TEST(freeing_what_the_bitmap_does_not_know_is_corruption),
	  UNIT_TEST(a_broken_group_is_named_and_the_others_serve),
	  UNIT_TEST(the_kth_failure_leaves_nothing_locked))
