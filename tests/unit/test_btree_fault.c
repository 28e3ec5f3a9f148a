/* SPDX-License-Identifier: GPL-2.0-only */
/* test_btree_fault - the B+tree when something fails: a read, a lock, the room of the volume, a node that is broken. */
#include "tests/unit/btree_world.h"

#include <errno.h>

#include "tests/unit/unit.h"

/* ---- errors leave the tree as it was ------------------------------------------------------------------------------------------------- */

struct image { uint64_t blk; uint8_t data[CSV_BLOCK_SIZE]; };

static uint32_t snapshot_node(struct btw *w, struct area a, struct image *im, uint32_t n)
{
	for (uint32_t i = 0; area_level(a) > 0 && i < area_count(a); i++) {
		struct bt_node c;

		ck_assert_int_eq(bt_child_read(&w->t, area_child(a, i), area_level(a) - 1, false, 0, false, 0, &c), 0);
		im[n].blk = c.blk;
		memcpy(im[n++].data, buf_data(c.b), CSV_BLOCK_SIZE);
		n = snapshot_node(w, c.a, im, n);
		buf_put(&w->f->fs, c.b);
	}
	return n;
}

static uint32_t snapshot(struct btw *w, struct image *im)
{
	im[0].blk = w->root->jb.blkno;
	memcpy(im[0].data, buf_data(w->root), CSV_BLOCK_SIZE);
	return snapshot_node(w, bt_root_area(&w->t), im, 1);
}

static void fault_run(void *arg)
{
	struct btw *w = arg;
	struct image *before = malloc(2000 * sizeof(*before)), *after = malloc(2000 * sizeof(*after));
	uint32_t by_kind[4] = { 0 };

	btw_open(w);
	btw_random_ops(w, 3000, 1000, CSV_BT_VALUE_MAX, 1000);
	for (int round = 0; round < 1200; round++) {
		uint64_t key = csv_prng_below(&w->rnd, 2000);
		uint32_t at = btw_find(w, key);
		bool there = at < w->n && w->key[at] == key;
		struct btw_op o = { .key = key, .len = 400 + (uint32_t)csv_prng_below(&w->rnd, 113), .fill = (uint8_t)round };
		uint64_t *fault[3] = { &w->f->fail_read, &w->f->fail_new, &w->f->fail_lock };
		uint32_t n0 = 0, n1;

		/* as long at a time in one direction as splits, and merges, take to come */
		if (w->n && round % 100 >= 50 && !there)
			o.key = w->key[at = csv_min(at, w->n - 1)], there = true;
		o.what = !there ? OP_INSERT : round % 100 < 50 ? OP_REPLACE : OP_DELETE;
		for (uint64_t k = 1;; k++) {
			uint64_t faults = w->f->faults;
			int kind = round % 3, rc;

			fake_commit_all(w->f);
			n0 = snapshot(w, before);
			for (uint32_t g = 0; g < w->f->fs.geo.groups; g++)
				fake_release(w->f, fake_lock_of(w->f, OWN_GROUP(g)));
			fake_evict(w->f);
			*fault[kind] = k;
			rc = btw_run_op(w, &o);
			*fault[kind] = 0;
			if (w->f->faults == faults) {
				ck_assert_int_eq(rc, 0);
				break;
			}
			by_kind[kind]++;
			ck_assert_int_lt(rc, 0);
			n1 = snapshot(w, after);
			ck_assert_uint_eq(n0, n1);
			for (uint32_t i = 0; i < n0; i++) {
				ck_assert_uint_eq(before[i].blk, after[i].blk);
				ck_assert_int_eq(memcmp(before[i].data + sizeof(struct csv_mhdr), after[i].data + sizeof(struct csv_mhdr),
							CSV_BLOCK_SIZE - sizeof(struct csv_mhdr)), 0);
			}
		}
		if (o.what != OP_INSERT)
			btw_delete(w, at);
		if (o.what != OP_DELETE)
			btw_insert(w, at, o.key, o.len, o.fill);
	}
	btw_check(w);
	printf("faults: %u reads, %u new blocks, %u locks\n", by_kind[0], by_kind[1], by_kind[2]);
	ck_assert_uint_gt(by_kind[0], 1000);
	ck_assert_uint_gt(by_kind[1], 20);
	ck_assert_uint_gt(by_kind[2], 100);
	free(before);
	free(after);
}

START_TEST(the_kth_failure_leaves_the_tree_untouched)
{
	struct btw w;

	btw_init(&w, 5, CSV_BT_XATTR, 128 * MB);
	fake_run(w.f, fault_run, &w);
	btw_done(&w);
}
END_TEST

/* ---- full volume --------------------------------------------------------------------------------------------------------------------- */

static void full_run(void *arg)
{
	struct btw *w = arg;
	int rc = 0;
	uint64_t key = 0;

	btw_open(w);
	for (; !rc; key++) {
		struct btw_op o = { .key = key * 2654435761u % 1000003, .len = 512, .fill = 1, .what = OP_INSERT };
		uint32_t at = btw_find(w, o.key);

		rc = btw_run_op(w, &o);
		if (!rc)
			btw_insert(w, at, o.key, o.len, o.fill);
		if (key % 64 == 0)
			fake_commit_all(w->f);
	}
	ck_assert_int_eq(rc, -ENOSPC);
	btw_check(w);
	/* deleting always goes */
	btw_empty(w);
}

START_TEST(a_full_volume_refuses_and_still_deletes)
{
	struct btw w;

	btw_init(&w, 6, CSV_BT_XATTR, 64 * MB);
	fake_run(w.f, full_run, &w);
	btw_done(&w);
}
END_TEST

/* ---- broken nodes ------------------------------------------------------------------------------------------------------------------------ */

static void corrupt_run(void *arg)
{
	struct btw *w = arg;
	struct bt_item it;
	uint32_t found = 0, tried = 0;

	btw_open(w);
	btw_random_ops(w, 2000, 100000, 300, 1000);
	fake_commit_all(w->f);
	for (uint32_t i = 0; i < area_count(bt_root_area(&w->t)); i++) {
		uint64_t blk = area_child(bt_root_area(&w->t), i);
		struct bt_node c;

		for (int what = 0; what < 4; what++) {
			uint8_t good[CSV_BLOCK_SIZE];
			struct area a;
			int rc = 0;

			ck_assert_int_eq(bt_child_read(&w->t, blk, area_level(bt_root_area(&w->t)) - 1, false, 0, false, 0, &c), 0);
			memcpy(good, buf_data(c.b), sizeof(good));
			a = c.a;
			if (what == 0)		/* a key that belongs elsewhere */
				area_set_key(a, 0, i ? 0 : UINT64_MAX);
			else if (what == 1)	/* the wrong level: would lead round in a circle */
				a.p[0] ^= 1;
			else if (what == 2)	/* empty */
				area_init(a, CSV_BT_XATTR, area_level(a));
			else			/* of another kind */
				a.p[8] = CSV_BT_DIR;
			for (uint32_t k = 0; k < w->n && !rc; k++)
				rc = bt_lookup(&w->t, w->key[k], &it);
			tried++;
			found += rc == -CSV_E_CORRUPT;
			memcpy(buf_data(c.b), good, sizeof(good));
			buf_put(&w->f->fs, c.b);
		}
	}
	ck_assert_uint_gt(tried, 10);
	ck_assert_uint_eq(found, tried);
	ck_assert_uint_ge(w->f->log_lines, found);
	ck_assert_msg(strstr(w->f->log_last, "run fsck.csvfs") && strstr(w->f->log_last, "tree node in block"), "%s", w->f->log_last);
	btw_check(w);
}

START_TEST(a_broken_node_is_an_error_that_names_it)
{
	struct btw w;

	btw_init(&w, 8, CSV_BT_XATTR, 128 * MB);
	fake_run(w.f, corrupt_run, &w);
	btw_done(&w);
}
END_TEST

UNIT_MAIN("btree_fault",
	  UNIT_SLOW(the_kth_failure_leaves_the_tree_untouched, 0, 1, 120),
	  UNIT_SLOW(a_full_volume_refuses_and_still_deletes, 0, 1, 60),
	  UNIT_TEST(a_broken_node_is_an_error_that_names_it))
