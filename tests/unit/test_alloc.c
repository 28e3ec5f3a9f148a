/* SPDX-License-Identifier: GPL-2.0-only */
/* test_alloc - allocation groups on fake cache, locks and journal (core_fake.h), against an array of block states. */
#include "tests/unit/core_fake.h"

#include <errno.h>
#include <time.h>

#include "tests/unit/sparse_blk.h"
#include "tests/unit/unit.h"
#include "utils/base/prng.h"

#define MB (1ull << 20)
#define GB (1ull << 30)

typedef unsigned long long ull;

struct world {
	struct fake_core *f;
	struct csvfs *fs;
	struct csv_prng rnd;
	struct alloc_resv r;
};

static void with_world(uint64_t bytes, uint32_t slots, void (*fn)(void *arg))
{
	struct world w = { .f = fake_core_new(bytes, slots) };

	w.fs = &w.f->fs;
	csv_prng_init(&w.rnd, 42);
	alloc_resv_init(w.fs, &w.r);
	fake_run(w.f, fn, &w);
	fake_core_free(w.f);
}

/* One reservation, one take, one transaction. */
static int take_one(struct world *w, uint64_t hint, uint32_t want, enum csv_blk_state st, uint64_t *ret_blk, uint32_t *ret_len)
{
	struct jnl_handle h;
	uint64_t gen = 0;
	int rc = alloc_reserve(&w->r, hint, want, 1, false);

	if (!rc) {
		fake_begin(w->f, alloc_credits(&w->r, 1), 0, &h);
		rc = alloc_take(&w->r, &h, hint, want, st, ret_blk, ret_len, &gen);
		fake_end(w->f, &h);
	}
	alloc_resv_done(&w->r);
	return rc;
}

static int give_one(struct world *w, uint64_t blk, uint32_t len, enum csv_blk_state st)
{
	uint32_t group = alloc_group_of(w->fs, blk);
	struct jnl_handle h;
	int rc = alloc_lock_groups(&w->r, &group, 1);

	if (!rc) {
		fake_begin(w->f, alloc_credits(&w->r, 1), 0, &h);
		rc = alloc_give(&w->r, &h, blk, len, st);
		fake_end(w->f, &h);
	}
	alloc_resv_done(&w->r);
	return rc;
}

/* ---- against a model ------------------------------------------------------------------------------------------------------------------ */

enum { M_FREE, M_DATA, M_META, M_INODE, M_BUSY };
struct run { uint64_t blk; uint32_t len; enum csv_blk_state st; };

static void model_check(struct world *w, const uint8_t *model, uint64_t first, uint64_t n)
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
	struct world *w = arg;
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
			ck_assert_int_eq(give_one(w, x.blk, x.len, x.st), 0);
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
	with_world(1300 * MB, 2, model_run);
}
END_TEST

/* ---- busy blocks -------------------------------------------------------------------------------------------------------------------------- */

/* Frees a block and looks for it among everything that can be had before the commit. */
static bool comes_back_before_commit(struct world *w)
{
	uint64_t blk, b;
	uint32_t len;
	bool back = false;

	ck_assert_int_eq(take_one(w, 0, 1, CSV_BLK_DATA, &blk, &len), 0);
	fake_commit_all(w->f);
	ck_assert_int_eq(give_one(w, blk, 1, CSV_BLK_DATA), 0);
	for (int i = 0; i < 50 && !back; i++) {
		ck_assert_int_eq(take_one(w, blk, 1, CSV_BLK_DATA, &b, &len), 0);
		back = b == blk;
	}
	return back;
}

static void busy_run(void *arg)
{
	struct world *w = arg;
	uint64_t blk, b;
	uint32_t len;

	ck_assert(!comes_back_before_commit(w));
	/* after the commit it does */
	ck_assert_int_eq(take_one(w, 0, 1, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_int_eq(give_one(w, blk, 1, CSV_BLK_DATA), 0);
	fake_commit_all(w->f);
	ck_assert_int_eq(take_one(w, blk, 1, CSV_BLK_DATA, &b, &len), 0);
	ck_assert_uint_eq(b, blk);
}

START_TEST(a_freed_block_is_not_given_out_before_the_commit)
{
	with_world(64 * MB, 2, busy_run);
}
END_TEST

static void mutation_run(void *arg)
{
	struct world *w = arg;

	w->fs->mutate = CSV_MUT_REUSE_BEFORE_COMMIT;
	ck_assert(comes_back_before_commit(w));
}

/* The guard removed: the test above would fail. */
START_TEST(without_the_guard_it_is)
{
	with_world(64 * MB, 2, mutation_run);
}
END_TEST

static void release_run(void *arg)
{
	struct world *w = arg;
	struct fake_lock *l = fake_lock_of(w->f, OWN_GROUP(0));
	const struct csv_lvb_group *v = (const struct csv_lvb_group *)l->lvb;
	uint64_t blk, commits;
	uint32_t len, n = csv_group_blocks(&w->fs->geo, 0) - CSV_GROUP_FIRST_FREE - 1;

	ck_assert_int_eq(take_one(w, 0, 10, CSV_BLK_DATA, &blk, &len), 0);
	fake_commit_all(w->f);
	ck_assert_int_eq(give_one(w, blk, 4, CSV_BLK_DATA), 0);
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
	with_world(64 * MB, 2, release_run);
}
END_TEST

static void busy_space_run(void *arg)
{
	struct world *w = arg;
	struct run *run = malloc(4096 * sizeof(*run));
	uint32_t n = 0, len;
	uint64_t blk, commits;
	int rc;

	for (;; n++) {
		rc = take_one(w, 0, 64, CSV_BLK_DATA, &run[n].blk, &run[n].len);
		if (rc)
			break;
	}
	ck_assert_int_eq(rc, -ENOSPC);
	fake_commit_all(w->f);
	for (uint32_t i = 0; i < 10; i++)
		ck_assert_int_eq(give_one(w, run[i].blk, run[i].len, CSV_BLK_DATA), 0);
	commits = w->f->n_commits;
	ck_assert_int_eq(take_one(w, 0, 64, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_uint_eq(w->f->n_commits, commits + 1);
	free(run);
}

START_TEST(what_was_freed_is_committed_before_no_space_is_said)
{
	with_world(64 * MB, 2, busy_space_run);
}
END_TEST

/* ---- which group ---------------------------------------------------------------------------------------------------------------------------- */

static void local_run(void *arg)
{
	struct world *w = arg;
	uint64_t blk, last = 0, asked;
	uint32_t len;

	w->fs->slot = 3;
	ck_assert_int_eq(take_one(w, 0, 16, CSV_BLK_DATA, &last, &len), 0);
	/* a node begins in its own part */
	ck_assert_uint_eq(alloc_group_of(w->fs, last), 3 * w->fs->geo.groups / w->fs->geo.slots);
	asked = w->f->n_locks_asked;
	for (int i = 0; i < 1000; i++) {
		ck_assert_int_eq(take_one(w, last + 16, 16, CSV_BLK_DATA, &blk, &len), 0);
		ck_assert_uint_eq(blk, last + 16);	/* contiguous */
		ck_assert_uint_eq(len, 16);
		last = blk;
	}
	/* also when the hint lies in a group that is not ours */
	ck_assert_int_eq(take_one(w, csv_group_start(&w->fs->geo, 7) + 500, 16, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_uint_eq(w->f->n_locks_asked, asked);
}

START_TEST(groups_cached_here_are_used_without_a_message)
{
	with_world(12 * GB, 4, local_run);
}
END_TEST

static void elsewhere_run(void *arg)
{
	struct world *w = arg;
	uint32_t groups = w->fs->geo.groups, len;
	uint64_t blk;

	for (uint32_t g = 0; g < groups; g++)
		fake_lock_of(w->f, OWN_GROUP(g))->held_elsewhere = g != 5;
	ck_assert_int_eq(take_one(w, 0, 16, CSV_BLK_DATA, &blk, &len), 0);
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
	with_world(12 * GB, 4, elsewhere_run);
}
END_TEST

static void again_run(void *arg)
{
	struct world *w = arg;
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
	with_world(4 * GB + 100 * MB, 2, again_run);
}
END_TEST

static void lvb_run(void *arg)
{
	struct world *w = arg;
	struct csv_lvb_group full = { .version = le32_of(CSV_LVB_VERSION), .free_blk = le32_of(3), .largest_run = le32_of(1), .seq = le64_of(9) };
	uint32_t len;
	uint64_t blk;

	for (uint32_t g = 0; g < w->fs->geo.groups - 1; g++) {
		struct fake_lock *l = fake_lock_of(w->f, OWN_GROUP(g));

		memcpy(l->lvb, &full, sizeof(full));
		l->lvb_valid = true;
	}
	ck_assert_int_eq(take_one(w, 0, 16, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_uint_eq(alloc_group_of(w->fs, blk), w->fs->geo.groups - 1);
	ck_assert_uint_eq(w->f->n_reads, 18);	/* of the one group that has room */
	/* and the next does not even ask for their locks */
	fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(w->fs->geo.groups - 1)));
	w->f->n_locks_asked = 0;
	ck_assert_int_eq(take_one(w, 0, 16, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_uint_eq(w->f->n_locks_asked, 1);
}

START_TEST(value_blocks_spare_the_reading_of_full_groups)
{
	with_world(12 * GB, 2, lvb_run);
}
END_TEST

/* ---- no space ----------------------------------------------------------------------------------------------------------------------------------- */

static void enospc_run(void *arg)
{
	struct world *w = arg;
	uint64_t blk, left, total = 0;
	uint32_t len;

	/* hints that lie do not matter: all groups are looked at before no space is said */
	for (uint32_t g = 0; g < w->fs->geo.groups; g++)
		hint_set(w->fs, g, 0, 0, false);
	while (take_one(w, 0, 1000, CSV_BLK_DATA, &blk, &len) == 0)
		total += len;
	while (take_one(w, 0, 1, CSV_BLK_META, &blk, &len) == 0)
		total += len;
	ck_assert_int_eq(alloc_count_free(w->fs, true, &left), 0);
	ck_assert_uint_eq(left, alloc_reserved_blocks(w->fs));
	ck_assert_uint_gt(left, 100);
	ck_assert_uint_le(left, 16384);
	/* what frees may use the reserve */
	ck_assert_int_eq(alloc_reserve(&w->r, 0, 5, 1, true), 0);
	alloc_resv_done(&w->r);
	/* one block somewhere is found */
	ck_assert_int_eq(give_one(w, blk, 1, CSV_BLK_META), 0);
	fake_commit_all(w->f);
	for (uint32_t g = 0; g < w->fs->geo.groups; g++) {
		fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(g)));
		fake_lock_of(w->f, OWN_GROUP(g))->lvb_valid = false;
		hint_set(w->fs, g, 0, 0, false);
	}
	ck_assert_int_eq(take_one(w, 0, 1, CSV_BLK_META, &blk, &len), 0);
	ck_assert_int_eq(take_one(w, 0, 1, CSV_BLK_META, &blk, &len), -ENOSPC);
	printf("full: %llu blocks taken, %llu left for freeing\n", (ull)total, (ull)left);
}

START_TEST(no_space_is_said_after_a_look_at_every_group)
{
	with_world(3 * GB, 2, enospc_run);
}
END_TEST

/* ---- shape --------------------------------------------------------------------------------------------------------------------------------------- */

static void shape_run(void *arg)
{
	struct world *w = arg;
	uint64_t inode[100], blk;
	uint32_t words = 0, len;

	/* inodes and data in turns: inodes share aligned chunks of 32 blocks, data stays out of them */
	for (int i = 0; i < 100; i++) {
		ck_assert_int_eq(take_one(w, w->fs->geo.root_ino, 1, CSV_BLK_INODE, &inode[i], &len), 0);
		ck_assert_int_eq(take_one(w, 0, 3, CSV_BLK_DATA, &blk, &len), 0);
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
		ck_assert_int_eq(take_one(w, 0, 256, CSV_BLK_DATA, &blk, &len), 0);
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
	with_world(512 * MB, 2, shape_run);
}
END_TEST

static void run_run(void *arg)
{
	struct world *w = arg;
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
			ck_assert_int_eq(give_one(w, b + 1, 500, CSV_BLK_DATA), 0);
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
	with_world(2 * GB + 200 * MB, 2, run_run);
}
END_TEST

/* ---- errors --------------------------------------------------------------------------------------------------------------------------------------- */

static void wrong_run(void *arg)
{
	struct world *w = arg;
	uint64_t blk;
	uint32_t len;
	enum csv_blk_state st;

	ck_assert_int_eq(take_one(w, 0, 8, CSV_BLK_DATA, &blk, &len), 0);
	ck_assert_int_eq(give_one(w, blk, 8, CSV_BLK_META), -CSV_E_CORRUPT);
	ck_assert_msg(strstr(w->f->log_last, "is to be freed as metadata: group 0 says data"), "%s", w->f->log_last);
	ck_assert_int_eq(give_one(w, blk + 4, 8, CSV_BLK_DATA), -CSV_E_CORRUPT);
	ck_assert_int_eq(give_one(w, blk, 8, CSV_BLK_DATA), 0);
	ck_assert_int_eq(give_one(w, blk, 8, CSV_BLK_DATA), -CSV_E_CORRUPT);
	ck_assert_int_eq(give_one(w, csv_group_start(&w->fs->geo, 0), 1, CSV_BLK_META), -CSV_E_CORRUPT);
	/* a group that is not in the reservation */
	ck_assert_int_eq(alloc_may_give(&w->r, blk, 1, CSV_BLK_DATA), -EXDEV);
	ck_assert_int_eq(alloc_state(w->fs, 3, &st), -EINVAL);
	ck_assert_int_eq(alloc_state(w->fs, w->fs->geo.total_blk, &st), -EINVAL);
	ck_assert_int_eq(alloc_state(w->fs, w->fs->geo.root_ino, &st), 0);
	ck_assert_int_eq(st, CSV_BLK_INODE);
}

START_TEST(freeing_what_the_bitmap_does_not_know_is_corruption)
{
	with_world(64 * MB, 2, wrong_run);
}
END_TEST

static void corrupt_run(void *arg)
{
	struct world *w = arg;
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
		ck_assert_int_eq(take_one(w, csv_group_start(&w->fs->geo, 0) + 30, 1, CSV_BLK_DATA, &blk, &len), 0);
		ck_assert_uint_eq(alloc_group_of(w->fs, blk), 1);
		ck_assert_msg(strstr(w->f->log_last, bad[i].text) && strstr(w->f->log_last, "group 0"), "case %zu: %s", i, w->f->log_last);
		/* alone it is an error, not "no space" */
		fake_commit_all(w->f);
		fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(1)));
		ck_assert_int_eq(give_one(w, csv_group_start(&w->fs->geo, 0) + 30, 1, CSV_BLK_DATA), -CSV_E_CORRUPT);
		ck_assert_uint_eq(w->f->n_pins, 0);
		fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(0)));
		ck_assert_int_eq(blk_write(w->f->env.blk, at * CSV_BLOCK_SIZE, good, CSV_BLOCK_SIZE), 0);
	}
	free(good);
	free(block);
}

START_TEST(a_broken_group_is_named_and_the_others_serve)
{
	with_world(1500 * MB, 2, corrupt_run);
}
END_TEST

static void fault_run(void *arg)
{
	struct world *w = arg;
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
			rc = take_one(w, 0, 16, CSV_BLK_DATA, &blk, &len);
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
	with_world(1500 * MB, 2, fault_run);
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
	struct world w = { .f = x->f, .fs = &x->f->fs };
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
	ck_assert_int_eq(take_one(&w, 0, 256, CSV_BLK_DATA, &blk, &len), 0);
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
	ck_assert_int_eq(take_one(&w, 0, 256, CSV_BLK_DATA, &blk, &len), 0);
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
	ck_assert_int_eq(take_one(&w, blk, 1, CSV_BLK_DATA, &approx, &len), 0);
	ck_assert_uint_eq(approx, blk);
	ck_assert_int_eq(give_one(&w, blk, 1, CSV_BLK_DATA), 0);
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

UNIT_MAIN("alloc", UNIT_SLOW(random_takes_and_gives_equal_the_model, 0, 1, 60), UNIT_TEST(a_freed_block_is_not_given_out_before_the_commit),
	  UNIT_TEST(without_the_guard_it_is), UNIT_TEST(a_group_leaves_only_after_the_commit_of_what_was_freed),
	  UNIT_TEST(what_was_freed_is_committed_before_no_space_is_said), UNIT_TEST(groups_cached_here_are_used_without_a_message),
	  UNIT_TEST(groups_held_elsewhere_are_left_alone), UNIT_TEST(the_lock_order_is_kept_by_eagain),
	  UNIT_TEST(value_blocks_spare_the_reading_of_full_groups), UNIT_TEST(no_space_is_said_after_a_look_at_every_group),
	  UNIT_TEST(inodes_cluster_and_large_runs_are_aligned), UNIT_TEST(a_wanted_run_leads_to_a_group_that_has_it),
	  UNIT_TEST(freeing_what_the_bitmap_does_not_know_is_corruption), UNIT_TEST(a_broken_group_is_named_and_the_others_serve),
	  UNIT_TEST(the_kth_failure_leaves_nothing_locked), UNIT_SLOW(a_volume_of_100_tb_with_64_slots, 0, 1, 120))
