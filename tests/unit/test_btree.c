/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * test_btree - the B+tree and the real allocator below it, on fake cache, locks and journal (core_fake.h), against a sorted array.
 */
#include "tests/unit/core_fake.h"

#include <errno.h>

#include "csvfs/btree_internal.h"
#include "tests/unit/unit.h"
#include "utils/base/prng.h"

#define MB (1ull << 20)

/* ---- a tree in an inode of its own ------------------------------------------------------------------------------------------------ */

struct world {
	struct fake_core *f;
	struct csv_prng rnd;
	struct buf *root;
	struct btree t;
	struct alloc_resv resv;
	int64_t blocks;
	uint32_t max_credit_use;	/* most of what bt_credits() promised, in percent */
	/* the model */
	uint64_t *key;
	uint32_t *len;
	uint8_t *fill;			/* value = len bytes of this */
	uint32_t n, max;
};

static void world_init(struct world *w, uint64_t seed, enum csv_bt_kind kind, uint64_t dev_bytes)
{
	memset(w, 0, sizeof(*w));
	w->f = fake_core_new(dev_bytes, 2);
	csv_prng_init(&w->rnd, seed);
	w->max = 200000;
	w->key = malloc(w->max * sizeof(*w->key));
	w->len = malloc(w->max * sizeof(*w->len));
	w->fill = malloc(w->max);
	w->t = (struct btree){ .fs = &w->f->fs, .area_off = CSV_BLOCK_SIZE - CSV_BODY_BYTES, .area_len = CSV_BODY_BYTES,
			       .owner = { CSV_OWN_INODE, w->f->fs.geo.root_ino }, .kind = kind, .resv = &w->resv, .blocks = &w->blocks };
	alloc_resv_init(&w->f->fs, &w->resv);
}

/* In a coroutine. */
static void world_open(struct world *w)
{
	struct jnl_handle h;

	ck_assert_int_eq(buf_read(&w->f->fs, w->f->fs.geo.root_ino, w->t.owner, CSV_MAGIC_INODE, &w->root), 0);
	w->t.root = w->root;
	fake_begin(w->f, 1, 0, &h);
	buf_dirty(&h, w->root);
	bt_root_init((uint8_t *)buf_data(w->root) + w->t.area_off, w->t.area_len, w->t.kind);
	fake_end(w->f, &h);
}

static void world_done(struct world *w)
{
	buf_put(&w->f->fs, w->root);
	fake_core_free(w->f);
	free(w->key);
	free(w->len);
	free(w->fill);
}

static uint32_t model_find(const struct world *w, uint64_t key)
{
	uint32_t lo = 0, hi = w->n;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (w->key[mid] < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void model_insert(struct world *w, uint32_t i, uint64_t key, uint32_t len, uint8_t fill)
{
	csv_assert(w->n < w->max);
	memmove(&w->key[i + 1], &w->key[i], (w->n - i) * sizeof(*w->key));
	memmove(&w->len[i + 1], &w->len[i], (w->n - i) * sizeof(*w->len));
	memmove(&w->fill[i + 1], &w->fill[i], w->n - i);
	w->n++;
	w->key[i] = key;
	w->len[i] = len;
	w->fill[i] = fill;
}

static void model_delete(struct world *w, uint32_t i)
{
	w->n--;
	memmove(&w->key[i], &w->key[i + 1], (w->n - i) * sizeof(*w->key));
	memmove(&w->len[i], &w->len[i + 1], (w->n - i) * sizeof(*w->len));
	memmove(&w->fill[i], &w->fill[i + 1], w->n - i);
}

static void item_check(const struct world *w, uint32_t i, const struct bt_item *it)
{
	bool same = it->key == w->key[i] && it->len == w->len[i];

	for (uint32_t k = 0; same && k < it->len; k++)
		same = it->val[k] == w->fill[i];
	if (!same)	/* each ck_assert writes to a pipe */
		ck_abort_msg("item %u: key %llu, %u bytes of %u; must be key %llu, %u bytes of %u", i, (unsigned long long)it->key, it->len,
			     it->val[0], (unsigned long long)w->key[i], w->len[i], w->fill[i]);
}

/* One change with exactly the room that was asked for; fake_core counts. */
struct op { uint64_t key; uint32_t len; uint8_t fill; int what; };
enum { OP_INSERT, OP_REPLACE, OP_DELETE };

static int run_op(struct world *w, const struct op *o)
{
	uint8_t val[CSV_BT_VALUE_MAX];
	uint32_t groups[ALLOC_GROUPS_MAX], n = 0, credits, gives, used;
	struct jnl_handle h;
	int rc;

	memset(val, o->fill, sizeof(val));
	if (o->what == OP_DELETE) {
		rc = bt_path_groups(&w->t, o->key, groups, &n, ALLOC_GROUPS_MAX);
		if (rc)
			return rc;
		rc = alloc_lock_groups(&w->resv, groups, n);
		gives = bt_freed_nodes(&w->t, 1);
	} else {
		rc = alloc_reserve(&w->resv, w->f->fs.geo.root_ino, bt_new_nodes(&w->t, 1), 1, false);
		gives = bt_new_nodes(&w->t, 1);
	}
	if (!rc) {
		credits = bt_credits(&w->t, 1) + alloc_credits(&w->resv, gives);
		fake_begin(w->f, credits, gives, &h);
		if (o->what == OP_DELETE)
			rc = bt_delete(&w->t, &h, o->key);
		else if (o->what == OP_INSERT)
			rc = bt_insert(&w->t, &h, o->key, val, o->len);
		else
			rc = bt_replace(&w->t, &h, o->key, val, o->len);
		fake_end(w->f, &h);
		used = credits ? w->f->peak_blocks * 100 / credits : 0;
		w->max_credit_use = csv_max(w->max_credit_use, used);
	}
	alloc_resv_done(&w->resv);
	return rc;
}

/* Every node by itself, and the whole against the model. */
struct walk { struct world *w; uint32_t i; };

static int walk_fn(void *arg, const struct bt_item *it)
{
	struct walk *k = arg;

	if (k->i >= k->w->n)
		ck_abort_msg("more than %u items", k->w->n);
	item_check(k->w, k->i++, it);
	return 0;
}

static void tree_check(struct world *w)
{
	struct walk k = { .w = w };
	uint64_t free_blk, first = 0;

	ck_assert_int_eq(bt_walk(&w->t, 0, walk_fn, &k), 0);
	ck_assert_uint_eq(k.i, w->n);
	/* Each node is accounted for: blocks of the tree + blocks that are free = what was free at first. */
	for (uint32_t g = 0; g < w->f->fs.geo.groups; g++)
		first += csv_group_blocks(&w->f->fs.geo, g) - CSV_GROUP_FIRST_FREE - (g == 0);
	ck_assert_int_eq(alloc_count_free(&w->f->fs, true, &free_blk), 0);
	ck_assert_int_eq((int64_t)(first - free_blk), w->blocks);
}

static uint32_t depth(const struct world *w)
{
	return area_level(bt_root_area(&w->t)) + 1;
}

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

static void random_ops(struct world *w, uint32_t ops, uint64_t key_space, uint32_t len_max, uint32_t check_every)
{
	uint32_t grow = 70;

	for (uint32_t i = 0; i < ops; i++) {
		uint64_t key = csv_prng_below(&w->rnd, key_space);
		uint32_t at = model_find(w, key);
		bool there = at < w->n && w->key[at] == key;
		struct op o = { .key = key, .len = 1 + (uint32_t)csv_prng_below(&w->rnd, len_max), .fill = (uint8_t)csv_prng_u64(&w->rnd) };
		int rc;

		/* Long tides: the tree grows deep and shrinks to nothing, some times. */
		if (i % (ops / 8) == 0)
			grow = (i / (ops / 8)) % 2 ? 20 : 80;
		if (csv_prng_chance(&w->rnd, 1, 10)) {
			struct bt_item it;

			rc = bt_lookup(&w->t, key, &it);
			ck_assert_int_eq(rc, there ? 0 : -ENOENT);
			if (there)
				item_check(w, at, &it);
			rc = bt_seek_ge(&w->t, key, &it);
			ck_assert_int_eq(rc, at < w->n ? 0 : -ENOENT);
			if (!rc)
				item_check(w, at, &it);
			rc = bt_seek_le(&w->t, key, &it);
			ck_assert_int_eq(rc, there || at > 0 ? 0 : -ENOENT);
			if (!rc)
				item_check(w, there ? at : at - 1, &it);
		} else if (csv_prng_below(&w->rnd, 100) < grow) {
			o.what = there ? OP_REPLACE : OP_INSERT;
			ck_assert_int_eq(run_op(w, &o), 0);
			if (there)
				model_delete(w, at);
			model_insert(w, at, o.key, o.len, o.fill);
		} else if (w->n) {
			/* mostly something that is there */
			if (!there && csv_prng_chance(&w->rnd, 9, 10)) {
				at = csv_min(at, w->n - 1);
				o.key = w->key[at];
				there = true;
			}
			o.what = OP_DELETE;
			ck_assert_int_eq(run_op(w, &o), there ? 0 : -ENOENT);
			if (there)
				model_delete(w, at);
		}
		if (i % 97 == 0)
			fake_commit_all(w->f);
		if (i % 5003 == 0)
			fake_evict(w->f);
		if (i % check_every == 0)
			tree_check(w);
	}
	tree_check(w);
}

static void empty_it(struct world *w)
{
	while (w->n) {
		uint32_t i = (uint32_t)csv_prng_below(&w->rnd, w->n);
		struct op o = { .key = w->key[i], .what = OP_DELETE };

		ck_assert_int_eq(run_op(w, &o), 0);
		model_delete(w, i);
		if (w->n % 64 == 0)
			fake_commit_all(w->f);
	}
	tree_check(w);
	ck_assert_int_eq(w->blocks, 0);
	ck_assert_uint_eq(depth(w), 1);
}

static void random_run(void *arg)
{
	struct world *w = arg;

	world_open(w);
	random_ops(w, 100000, 40000, CSV_BT_VALUE_MAX, 9001);
	printf("random: %u items, depth %u, %lld nodes, at most %u %% of the credits used\n", w->n, depth(w), (long long)w->blocks,
	       w->max_credit_use);
	empty_it(w);
}

START_TEST(random_100000_operations_equal_a_sorted_array)
{
	struct world w;

	world_init(&w, 1 + (uint64_t)_i, CSV_BT_XATTR, 512 * MB);
	fake_run(w.f, random_run, &w);
	world_done(&w);
}
END_TEST

static void small_run(void *arg)
{
	struct world *w = arg;

	world_open(w);
	random_ops(w, 4000, 300, 400, 50);
	empty_it(w);
}

START_TEST(random_small_trees_are_checked_often)
{
	struct world w;

	world_init(&w, 1000 + (uint64_t)_i, CSV_BT_XATTR, 128 * MB);
	fake_run(w.f, small_run, &w);
	world_done(&w);
}
END_TEST

/* ---- inner nodes ------------------------------------------------------------------------------------------------------------------- */

/*
 * Thins out ranges as wide as some inner nodes, with inserts at the lower edges of what is left: first children take keys below
 * their own, then the nodes are merged.
 */
static void inner_run(void *arg)
{
	struct world *w = arg;

	world_open(w);
	for (int round = 0; round < 12; round++) {
		while (w->n < 12000) {
			uint64_t key = csv_prng_below(&w->rnd, 1u << 24);
			uint32_t at = model_find(w, key);
			struct op o = { .key = key, .len = 500, .fill = (uint8_t)key, .what = OP_INSERT };

			if (at < w->n && w->key[at] == key)
				continue;
			ck_assert_int_eq(run_op(w, &o), 0);
			model_insert(w, at, key, o.len, o.fill);
			if (w->n % 256 == 0)
				fake_commit_all(w->f);
		}
		ck_assert_uint_eq(depth(w), 3);
		for (int window = 0; window < 4; window++) {
			uint32_t wide = 500 + (uint32_t)csv_prng_below(&w->rnd, 2500), from, left;

			wide = csv_min(wide, w->n);
			from = (uint32_t)csv_prng_below(&w->rnd, w->n - wide + 1);
			for (left = wide; left > wide / 12; left--) {
				/* from the front of runs: it is first children that go */
				uint32_t at = from + (uint32_t)csv_prng_below(&w->rnd, left) / 40 * 40;
				struct op o = { .key = w->key[at], .what = OP_DELETE };

				ck_assert_int_eq(run_op(w, &o), 0);
				model_delete(w, at);
				if (csv_prng_chance(&w->rnd, 1, 8) && at > 0 && w->key[at] - w->key[at - 1] > 1) {
					struct op in = { .key = w->key[at - 1] + 1 + csv_prng_below(&w->rnd, w->key[at] - w->key[at - 1] - 1), .len = 500,
							 .fill = 1, .what = OP_INSERT };

					ck_assert_int_eq(run_op(w, &in), 0);
					model_insert(w, at, in.key, in.len, in.fill);
					left++;
				}
			}
			fake_commit_all(w->f);
			tree_check(w);
		}
	}
	empty_it(w);
}

START_TEST(inner_nodes_merge_and_keep_every_key_in_reach)
{
	struct world w;

	world_init(&w, 9, CSV_BT_XATTR, 512 * MB);
	fake_run(w.f, inner_run, &w);
	world_done(&w);
}
END_TEST

/* ---- order of keys ----------------------------------------------------------------------------------------------------------------- */

static void ordered_run(void *arg)
{
	struct world *w = arg;
	const uint32_t n = 20000;
	uint32_t nodes[2];

	world_open(w);
	for (int down = 0; down < 2; down++) {
		for (uint32_t i = 0; i < n; i++) {
			uint64_t key = down ? n - 1 - i : i;
			struct op o = { .key = key, .len = 16, .fill = (uint8_t)key, .what = OP_INSERT };

			ck_assert_int_eq(run_op(w, &o), 0);
			model_insert(w, down ? 0 : w->n, key, 16, (uint8_t)key);
		}
		tree_check(w);
		nodes[down] = (uint32_t)w->blocks;
		fake_commit_all(w->f);
		/* from the front, from the back */
		while (w->n) {
			uint32_t i = down ? w->n - 1 : 0;
			struct op o = { .key = w->key[i], .what = OP_DELETE };

			ck_assert_int_eq(run_op(w, &o), 0);
			model_delete(w, i);
		}
		tree_check(w);
		ck_assert_int_eq(w->blocks, 0);
		fake_commit_all(w->f);
	}
	/* 125 extents fit in a node: ascending keys fill them. */
	ck_assert_uint_le(nodes[0], n / 125 + 4);
	printf("20000 extents: %u nodes in ascending, %u in descending order\n", nodes[0], nodes[1]);
}

START_TEST(ascending_keys_fill_nodes_and_all_orders_empty_the_tree)
{
	struct world w;

	world_init(&w, 3, CSV_BT_XATTR, 256 * MB);
	fake_run(w.f, ordered_run, &w);
	world_done(&w);
}
END_TEST

/* A file of 64 TiB in extents of 1 MiB has 67 million extents; its keys, spread: depth and lookups of the tree of its ends. */
static void huge_run(void *arg)
{
	struct world *w = arg;
	const uint64_t file_blk = (64ull << 40) / CSV_BLOCK_SIZE, step = 262144;	/* a whole group each */
	uint64_t n = 0;
	struct bt_item it;

	world_open(w);
	for (uint64_t lblk = 0; lblk < file_blk; lblk += step, n++) {
		struct op o = { .key = lblk, .len = sizeof(struct csv_extent), .fill = (uint8_t)n, .what = OP_INSERT };

		ck_assert_int_eq(run_op(w, &o), 0);
		model_insert(w, w->n, lblk, o.len, o.fill);
		if (n % 128 == 0)
			fake_commit_all(w->f);
	}
	tree_check(w);
	ck_assert_int_eq(bt_seek_le(&w->t, file_blk - 1, &it), 0);
	ck_assert_uint_eq(it.key, file_blk - step);
	ck_assert_int_eq(bt_seek_le(&w->t, UINT64_MAX, &it), 0);
	ck_assert_uint_eq(it.key, file_blk - step);
	ck_assert_int_eq(bt_seek_ge(&w->t, file_blk, &it), -ENOENT);
	printf("64 TiB in %llu extents: depth %u, %lld nodes\n", (unsigned long long)n, depth(w), (long long)w->blocks);
	ck_assert_uint_le(depth(w), 3);
}

START_TEST(extents_of_a_64_tib_file_fit)
{
	struct world w;

	world_init(&w, 4, CSV_BT_EXTENTS, 256 * MB);
	fake_run(w.f, huge_run, &w);
	world_done(&w);
}
END_TEST

/* ---- errors leave the tree as it was ------------------------------------------------------------------------------------------------- */

struct image { uint64_t blk; uint8_t data[CSV_BLOCK_SIZE]; };

static uint32_t snapshot_node(struct world *w, struct area a, struct image *im, uint32_t n)
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

static uint32_t snapshot(struct world *w, struct image *im)
{
	im[0].blk = w->root->jb.blkno;
	memcpy(im[0].data, buf_data(w->root), CSV_BLOCK_SIZE);
	return snapshot_node(w, bt_root_area(&w->t), im, 1);
}

static void fault_run(void *arg)
{
	struct world *w = arg;
	struct image *before = malloc(2000 * sizeof(*before)), *after = malloc(2000 * sizeof(*after));
	uint32_t by_kind[4] = { 0 };

	world_open(w);
	random_ops(w, 3000, 1000, CSV_BT_VALUE_MAX, 1000);
	for (int round = 0; round < 1200; round++) {
		uint64_t key = csv_prng_below(&w->rnd, 2000);
		uint32_t at = model_find(w, key);
		bool there = at < w->n && w->key[at] == key;
		struct op o = { .key = key, .len = 400 + (uint32_t)csv_prng_below(&w->rnd, 113), .fill = (uint8_t)round };
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
			rc = run_op(w, &o);
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
			model_delete(w, at);
		if (o.what != OP_DELETE)
			model_insert(w, at, o.key, o.len, o.fill);
	}
	tree_check(w);
	printf("faults: %u reads, %u new blocks, %u locks\n", by_kind[0], by_kind[1], by_kind[2]);
	ck_assert_uint_gt(by_kind[0], 1000);
	ck_assert_uint_gt(by_kind[1], 20);
	ck_assert_uint_gt(by_kind[2], 100);
	free(before);
	free(after);
}

START_TEST(the_kth_failure_leaves_the_tree_untouched)
{
	struct world w;

	world_init(&w, 5, CSV_BT_XATTR, 128 * MB);
	fake_run(w.f, fault_run, &w);
	world_done(&w);
}
END_TEST

/* ---- full volume --------------------------------------------------------------------------------------------------------------------- */

static void full_run(void *arg)
{
	struct world *w = arg;
	int rc = 0;
	uint64_t key = 0;

	world_open(w);
	for (; !rc; key++) {
		struct op o = { .key = key * 2654435761u % 1000003, .len = 512, .fill = 1, .what = OP_INSERT };
		uint32_t at = model_find(w, o.key);

		rc = run_op(w, &o);
		if (!rc)
			model_insert(w, at, o.key, o.len, o.fill);
		if (key % 64 == 0)
			fake_commit_all(w->f);
	}
	ck_assert_int_eq(rc, -ENOSPC);
	tree_check(w);
	/* deleting always goes */
	empty_it(w);
}

START_TEST(a_full_volume_refuses_and_still_deletes)
{
	struct world w;

	world_init(&w, 6, CSV_BT_XATTR, 64 * MB);
	fake_run(w.f, full_run, &w);
	world_done(&w);
}
END_TEST

/* ---- batches: what several deletes in one transaction need ------------------------------------------------------------------------------- */

static void batch_run(void *arg)
{
	struct world *w = arg;

	world_open(w);
	for (int round = 0; round < 30; round++) {
		while (w->n < 3000) {
			uint64_t key = csv_prng_below(&w->rnd, 1000000);
			uint32_t at = model_find(w, key);
			struct op o = { .key = key, .len = 16, .fill = 9, .what = OP_INSERT };

			if (at < w->n && w->key[at] == key)
				continue;
			ck_assert_int_eq(run_op(w, &o), 0);
			model_insert(w, at, key, 16, 9);
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
				model_delete(w, from);
			}
			fake_end(w->f, &h);
			alloc_resv_done(&w->resv);
			fake_commit_all(w->f);
		}
		tree_check(w);
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
			uint32_t at = model_find(w, key);

			ck_assert_int_eq(bt_insert(&w->t, &h, key, val, sizeof(val)), 0);
			model_insert(w, at, key, sizeof(val), 3);
		}
		fake_end(w->f, &h);
		alloc_resv_done(&w->resv);
		fake_commit_all(w->f);
	}
	tree_check(w);
}

START_TEST(batches_stay_within_their_credits)
{
	struct world w;

	world_init(&w, 7, CSV_BT_XATTR, 512 * MB);
	fake_run(w.f, batch_run, &w);
	world_done(&w);
}
END_TEST

/* ---- broken nodes ------------------------------------------------------------------------------------------------------------------------ */

static void corrupt_run(void *arg)
{
	struct world *w = arg;
	struct bt_item it;
	uint32_t found = 0, tried = 0;

	world_open(w);
	random_ops(w, 2000, 100000, 300, 1000);
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
	tree_check(w);
}

START_TEST(a_broken_node_is_an_error_that_names_it)
{
	struct world w;

	world_init(&w, 8, CSV_BT_XATTR, 128 * MB);
	fake_run(w.f, corrupt_run, &w);
	world_done(&w);
}
END_TEST

UNIT_MAIN("btree", UNIT_TEST(area_check_names_every_broken_field), UNIT_TEST(area_check_survives_noise),
	  UNIT_SLOW(random_100000_operations_equal_a_sorted_array, 0, 2, 120), UNIT_SLOW(random_small_trees_are_checked_often, 0, 20, 60),
	  UNIT_SLOW(ascending_keys_fill_nodes_and_all_orders_empty_the_tree, 0, 1, 60), UNIT_SLOW(inner_nodes_merge_and_keep_every_key_in_reach, 0, 1, 120), UNIT_SLOW(extents_of_a_64_tib_file_fit, 0, 1, 120),
	  UNIT_SLOW(the_kth_failure_leaves_the_tree_untouched, 0, 1, 120), UNIT_SLOW(a_full_volume_refuses_and_still_deletes, 0, 1, 60),
	  UNIT_SLOW(batches_stay_within_their_credits, 0, 1, 60), UNIT_TEST(a_broken_node_is_an_error_that_names_it))
