/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * test_btree - the B+tree and the real allocator below it, on fake cache, locks and journal (core_fake.h), against a sorted array.
 * What goes wrong: test_btree_fault.c.
 */
#include "tests/unit/btree_world.h"

#include <errno.h>

#include "tests/unit/unit.h"

/* ---- areas ------------------------------------------------------------------------------------------------------------------------- */

START_TEST(area_check_names_every_broken_field)
{
	static const struct { uint32_t off; uint32_t size; uint64_t val; const char *text; } bad[] = {
		{ 0, 2, 8, "level = 8" }, { 0, 2, 0xffff, "level = 65535" }, { 2, 2, 0xffff, "count = 65535" }, { 2, 2, 0, "garbage" },
		{ 4, 2, 10, "heap_off = 10" }, { 4, 2, 4000, "heap_off = 4000" }, { 6, 2, 1, "garbage = 1" }, { 8, 4, 2, "kind = 2" },
		{ 8, 4, 99, "kind = 99" }, { 12, 4, 1, "reserved = 1" },
		{ 16 + 16, 8, 5, "slot 1: field key = 5" }, { 16 + 16, 8, 4, "slot 1: field key = 4" },
		{ 16 + 8, 2, 0, "slot 0: field off = 0" }, { 16 + 8, 2, 0xffff, "slot 0: field off" }, { 16 + 10, 2, 0, "slot 0: field len = 0" },
		{ 16 + 10, 2, 17, "slot 0: field len = 17" }, { 16 + 12, 4, 7, "slot 0: field reserved = 7" },
	};
	uint8_t good[CSV_BODY_BYTES], p[CSV_BODY_BYTES];
	struct area a = { good, sizeof(good) };
	struct csv_extent e = { .phys = le64_of(7) };
	struct csv_err err = CSV_ERR_INIT;

	bt_root_init(good, sizeof(good), CSV_BT_EXTENTS);
	for (uint64_t i = 0; i < 20; i++)
		area_insert(a, (uint32_t)i, 5 + i * 10, &e, sizeof(e));
	ck_assert_int_eq(bt_area_check(good, sizeof(good), CSV_BT_EXTENTS, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		memcpy(p, good, sizeof(p));
		for (uint32_t k = 0; k < bad[i].size; k++)
			p[bad[i].off + k] = (uint8_t)(bad[i].val >> (8 * k));
		csv_err_clear(&err);
		ck_assert_int_eq(bt_area_check(p, sizeof(p), CSV_BT_EXTENTS, &err), -CSV_E_CORRUPT);
		ck_assert_msg(strstr(err.text, bad[i].text), "case %zu: \"%s\" does not name \"%s\"", i, err.text, bad[i].text);
	}
	/* two values in one place */
	memcpy(p, good, sizeof(p));
	memcpy(p + 16 + 8, p + 16 + 16 + 8, 2);
	ck_assert_int_eq(bt_area_check(p, sizeof(p), CSV_BT_EXTENTS, &err), -CSV_E_CORRUPT);
	ck_assert_msg(strstr(err.text, "overlaps"), "%s", err.text);
}
END_TEST

/* Whatever lies there, the check ends and what it accepts can be listed without leaving the area. */
START_TEST(area_check_survives_noise)
{
	uint8_t p[CSV_BODY_BYTES];
	struct area a = { p, sizeof(p) };
	struct csv_prng rnd;
	uint32_t accepted = 0;

	csv_prng_init(&rnd, 77);
	for (int round = 0; round < 200000; round++) {
		uint32_t n = (uint32_t)csv_prng_below(&rnd, 20);

		if (round % 16 == 0) {
			bt_root_init(p, sizeof(p), CSV_BT_XATTR);
			for (uint32_t i = 0; i < n; i++)
				area_insert(a, i, i * 3, p, 1 + (uint32_t)csv_prng_below(&rnd, 100));
		}
		p[csv_prng_below(&rnd, round % 3 ? 16 + 16 * (n + 1) : sizeof(p))] = (uint8_t)csv_prng_u64(&rnd);
		if (bt_area_check(p, sizeof(p), CSV_BT_XATTR, NULL) == 0) {
			accepted++;
			for (uint32_t i = 0; i < area_count(a) && area_level(a) == 0; i++) {
				struct area_item it;

				area_get(a, i, &it);
				ck_assert(it.val >= p && it.val + it.len <= p + sizeof(p) && it.len <= CSV_BT_VALUE_MAX);
			}
		}
	}
	ck_assert_uint_gt(accepted, 1000);
}
END_TEST

/* ---- against the model --------------------------------------------------------------------------------------------------------------- */

static void random_run(void *arg)
{
	struct btw *w = arg;

	btw_open(w);
	btw_random_ops(w, 100000, 40000, CSV_BT_VALUE_MAX, 9001);
	printf("random: %u items, depth %u, %lld nodes, at most %u %% of the credits used\n", w->n, btw_depth(w), (long long)w->blocks,
	       w->max_credit_use);
	btw_empty(w);
}

START_TEST(random_100000_operations_equal_a_sorted_array)
{
	struct btw w;

	btw_init(&w, 1 + (uint64_t)_i, CSV_BT_XATTR, 512 * MB);
	fake_run(w.f, random_run, &w);
	btw_done(&w);
}
END_TEST

static void small_run(void *arg)
{
	struct btw *w = arg;

	btw_open(w);
	btw_random_ops(w, 4000, 300, 400, 50);
	btw_empty(w);
}

START_TEST(random_small_trees_are_checked_often)
{
	struct btw w;

	btw_init(&w, 1000 + (uint64_t)_i, CSV_BT_XATTR, 128 * MB);
	fake_run(w.f, small_run, &w);
	btw_done(&w);
}
END_TEST

/* ---- inner nodes ------------------------------------------------------------------------------------------------------------------- */

/*
 * Thins out ranges as wide as some inner nodes, with inserts at the lower edges of what is left: first children take keys below
 * their own, then the nodes are merged.
 */
static void inner_run(void *arg)
{
	struct btw *w = arg;

	btw_open(w);
	for (int round = 0; round < 12; round++) {
		while (w->n < 12000) {
			uint64_t key = csv_prng_below(&w->rnd, 1u << 24);
			uint32_t at = btw_find(w, key);
			struct btw_op o = { .key = key, .len = 500, .fill = (uint8_t)key, .what = OP_INSERT };

			if (at < w->n && w->key[at] == key)
				continue;
			ck_assert_int_eq(btw_run_op(w, &o), 0);
			btw_insert(w, at, key, o.len, o.fill);
			if (w->n % 256 == 0)
				fake_commit_all(w->f);
		}
		ck_assert_uint_eq(btw_depth(w), 3);
		for (int window = 0; window < 4; window++) {
			uint32_t wide = 500 + (uint32_t)csv_prng_below(&w->rnd, 2500), from, left;

			wide = csv_min(wide, w->n);
			from = (uint32_t)csv_prng_below(&w->rnd, w->n - wide + 1);
			for (left = wide; left > wide / 12; left--) {
				/* from the front of runs: it is first children that go */
				uint32_t at = from + (uint32_t)csv_prng_below(&w->rnd, left) / 40 * 40;
				struct btw_op o = { .key = w->key[at], .what = OP_DELETE };

				ck_assert_int_eq(btw_run_op(w, &o), 0);
				btw_delete(w, at);
				if (csv_prng_chance(&w->rnd, 1, 8) && at > 0 && w->key[at] - w->key[at - 1] > 1) {
					struct btw_op in = { .key = w->key[at - 1] + 1 + csv_prng_below(&w->rnd, w->key[at] - w->key[at - 1] - 1), .len = 500,
							 .fill = 1, .what = OP_INSERT };

					ck_assert_int_eq(btw_run_op(w, &in), 0);
					btw_insert(w, at, in.key, in.len, in.fill);
					left++;
				}
			}
			fake_commit_all(w->f);
			btw_check(w);
		}
	}
	btw_empty(w);
}

START_TEST(inner_nodes_merge_and_keep_every_key_in_reach)
{
	struct btw w;

	btw_init(&w, 9, CSV_BT_XATTR, 512 * MB);
	fake_run(w.f, inner_run, &w);
	btw_done(&w);
}
END_TEST

/* ---- order of keys ----------------------------------------------------------------------------------------------------------------- */

static void ordered_run(void *arg)
{
	struct btw *w = arg;
	const uint32_t n = 20000;
	uint32_t nodes[2];

	btw_open(w);
	for (int down = 0; down < 2; down++) {
		for (uint32_t i = 0; i < n; i++) {
			uint64_t key = down ? n - 1 - i : i;
			struct btw_op o = { .key = key, .len = 16, .fill = (uint8_t)key, .what = OP_INSERT };

			ck_assert_int_eq(btw_run_op(w, &o), 0);
			btw_insert(w, down ? 0 : w->n, key, 16, (uint8_t)key);
		}
		btw_check(w);
		nodes[down] = (uint32_t)w->blocks;
		fake_commit_all(w->f);
		/* from the front, from the back */
		while (w->n) {
			uint32_t i = down ? w->n - 1 : 0;
			struct btw_op o = { .key = w->key[i], .what = OP_DELETE };

			ck_assert_int_eq(btw_run_op(w, &o), 0);
			btw_delete(w, i);
		}
		btw_check(w);
		ck_assert_int_eq(w->blocks, 0);
		fake_commit_all(w->f);
	}
	/* 125 extents fit in a node: ascending keys fill them. */
	ck_assert_uint_le(nodes[0], n / 125 + 4);
	printf("20000 extents: %u nodes in ascending, %u in descending order\n", nodes[0], nodes[1]);
}

START_TEST(ascending_keys_fill_nodes_and_all_orders_empty_the_tree)
{
	struct btw w;

	btw_init(&w, 3, CSV_BT_XATTR, 256 * MB);
	fake_run(w.f, ordered_run, &w);
	btw_done(&w);
}
END_TEST

/* A file of 64 TiB in extents of 1 MiB has 67 million extents; its keys, spread: depth and lookups of the tree of its ends. */
static void huge_run(void *arg)
{
	struct btw *w = arg;
	const uint64_t file_blk = (64ull << 40) / CSV_BLOCK_SIZE, step = 262144;	/* a whole group each */
	uint64_t n = 0;
	struct bt_item it;

	btw_open(w);
	for (uint64_t lblk = 0; lblk < file_blk; lblk += step, n++) {
		struct btw_op o = { .key = lblk, .len = sizeof(struct csv_extent), .fill = (uint8_t)n, .what = OP_INSERT };

		ck_assert_int_eq(btw_run_op(w, &o), 0);
		btw_insert(w, w->n, lblk, o.len, o.fill);
		if (n % 128 == 0)
			fake_commit_all(w->f);
	}
	btw_check(w);
	ck_assert_int_eq(bt_seek_le(&w->t, file_blk - 1, &it), 0);
	ck_assert_uint_eq(it.key, file_blk - step);
	ck_assert_int_eq(bt_seek_le(&w->t, UINT64_MAX, &it), 0);
	ck_assert_uint_eq(it.key, file_blk - step);
	ck_assert_int_eq(bt_seek_ge(&w->t, file_blk, &it), -ENOENT);
	printf("64 TiB in %llu extents: depth %u, %lld nodes\n", (unsigned long long)n, btw_depth(w), (long long)w->blocks);
	ck_assert_uint_le(btw_depth(w), 3);
}

START_TEST(extents_of_a_64_tib_file_fit)
{
	struct btw w;

	btw_init(&w, 4, CSV_BT_EXTENTS, 256 * MB);
	fake_run(w.f, huge_run, &w);
	btw_done(&w);
}
END_TEST

/* ---- batches: what several deletes in one transaction need ------------------------------------------------------------------------------- */

static void batch_run(void *arg)
{
	struct btw *w = arg;

	btw_open(w);
	for (int round = 0; round < 30; round++) {
		while (w->n < 3000) {
			uint64_t key = csv_prng_below(&w->rnd, 1000000);
			uint32_t at = btw_find(w, key);
			struct btw_op o = { .key = key, .len = 16, .fill = 9, .what = OP_INSERT };

			if (at < w->n && w->key[at] == key)
				continue;
			ck_assert_int_eq(btw_run_op(w, &o), 0);
			btw_insert(w, at, key, 16, 9);
		}
		while (w->n) {
			uint32_t k = 1 + (uint32_t)csv_prng_below(&w->rnd, 40), from, groups[ALLOC_GROUPS_MAX], n = 0;
			struct jnl_handle h;

			k = csv_min(k, w->n);
			from = (uint32_t)csv_prng_below(&w->rnd, w->n - k + 1);
			for (uint32_t i = from; i < from + k; i++)
				ck_assert_int_eq(bt_path_groups(&w->t, w->key[i], groups, &n, ALLOC_GROUPS_MAX), 0);
			ck_assert_int_eq(alloc_lock_groups(&w->resv, groups, n), 0);
			fake_begin(w->f, bt_credits(&w->t, k) + alloc_credits(&w->resv, bt_freed_nodes(&w->t, k)), bt_freed_nodes(&w->t, k), &h);
			for (uint32_t i = 0; i < k; i++) {
				ck_assert_int_eq(bt_delete(&w->t, &h, w->key[from]), 0);
				btw_delete(w, from);
			}
			fake_end(w->f, &h);
			alloc_resv_done(&w->resv);
			fake_commit_all(w->f);
		}
		btw_check(w);
		ck_assert_int_eq(w->blocks, 0);
	}
	/* and inserts */
	while (w->n < 20000) {
		uint32_t k = 1 + (uint32_t)csv_prng_below(&w->rnd, 40);
		struct jnl_handle h;
		uint8_t val[300] = { 3 };

		ck_assert_int_eq(alloc_reserve(&w->resv, 0, bt_new_nodes(&w->t, k), 1, false), 0);
		fake_begin(w->f, bt_credits(&w->t, k) + alloc_credits(&w->resv, bt_new_nodes(&w->t, k)), 0, &h);
		memset(val, 3, sizeof(val));
		for (uint32_t i = 0; i < k; i++) {
			uint64_t key = csv_prng_u64(&w->rnd);
			uint32_t at = btw_find(w, key);

			ck_assert_int_eq(bt_insert(&w->t, &h, key, val, sizeof(val)), 0);
			btw_insert(w, at, key, sizeof(val), 3);
		}
		fake_end(w->f, &h);
		alloc_resv_done(&w->resv);
		fake_commit_all(w->f);
	}
	btw_check(w);
}

START_TEST(batches_stay_within_their_credits)
{
	struct btw w;

	btw_init(&w, 7, CSV_BT_XATTR, 512 * MB);
	fake_run(w.f, batch_run, &w);
	btw_done(&w);
}
END_TEST

UNIT_MAIN("btree",
	  UNIT_TEST(area_check_names_every_broken_field),
	  UNIT_TEST(area_check_survives_noise),
	  UNIT_SLOW(random_100000_operations_equal_a_sorted_array, 0, 2, 120),
	  UNIT_SLOW(random_small_trees_are_checked_often, 0, 20, 60),
	  UNIT_SLOW(ascending_keys_fill_nodes_and_all_orders_empty_the_tree, 0, 1, 60),
	  UNIT_SLOW(inner_nodes_merge_and_keep_every_key_in_reach, 0, 1, 120),
	  UNIT_SLOW(extents_of_a_64_tib_file_fit, 0, 1, 120),
	  UNIT_SLOW(batches_stay_within_their_credits, 0, 1, 60))
