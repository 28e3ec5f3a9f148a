/* SPDX-License-Identifier: GPL-2.0-only */
/* btree_world.c - a tree and the sorted array that it must equal: made, changed, held against each other. */
#include "tests/unit/btree_world.h"

#include <errno.h>

#include "tests/unit/unit.h"

void btw_init(struct btw *w, uint64_t seed, enum csv_bt_kind kind, uint64_t dev_bytes)
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

void btw_open(struct btw *w)
{
	struct jnl_handle h;

	ck_assert_int_eq(buf_read(&w->f->fs, w->f->fs.geo.root_ino, w->t.owner, CSV_MAGIC_INODE, &w->root), 0);
	w->t.root = w->root;
	fake_begin(w->f, 1, 0, &h);
	buf_dirty(&h, w->root);
	bt_root_init((uint8_t *)buf_data(w->root) + w->t.area_off, w->t.area_len, w->t.kind);
	fake_end(w->f, &h);
}

void btw_done(struct btw *w)
{
	buf_put(&w->f->fs, w->root);
	fake_core_free(w->f);
	free(w->key);
	free(w->len);
	free(w->fill);
}

uint32_t btw_find(const struct btw *w, uint64_t key)
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

void btw_insert(struct btw *w, uint32_t i, uint64_t key, uint32_t len, uint8_t fill)
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

void btw_delete(struct btw *w, uint32_t i)
{
	w->n--;
	memmove(&w->key[i], &w->key[i + 1], (w->n - i) * sizeof(*w->key));
	memmove(&w->len[i], &w->len[i + 1], (w->n - i) * sizeof(*w->len));
	memmove(&w->fill[i], &w->fill[i + 1], w->n - i);
}

static void item_check(const struct btw *w, uint32_t i, const struct bt_item *it)
{
	bool same = it->key == w->key[i] && it->len == w->len[i];

	for (uint32_t k = 0; same && k < it->len; k++)
		same = it->val[k] == w->fill[i];
	if (!same)	/* each ck_assert writes to a pipe */
		ck_abort_msg("item %u: key %llu, %u bytes of %u; must be key %llu, %u bytes of %u", i, (unsigned long long)it->key, it->len,
			     it->val[0], (unsigned long long)w->key[i], w->len[i], w->fill[i]);
}

int btw_run_op(struct btw *w, const struct btw_op *o)
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

struct walk { struct btw *w; uint32_t i; };

static int walk_fn(void *arg, const struct bt_item *it)
{
	struct walk *k = arg;

	if (k->i >= k->w->n)
		ck_abort_msg("more than %u items", k->w->n);
	item_check(k->w, k->i++, it);
	return 0;
}

void btw_check(struct btw *w)
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

uint32_t btw_depth(const struct btw *w)
{
	return area_level(bt_root_area(&w->t)) + 1;
}

void btw_random_ops(struct btw *w, uint32_t ops, uint64_t key_space, uint32_t len_max, uint32_t check_every)
{
	uint32_t grow = 70;

	for (uint32_t i = 0; i < ops; i++) {
		uint64_t key = csv_prng_below(&w->rnd, key_space);
		uint32_t at = btw_find(w, key);
		bool there = at < w->n && w->key[at] == key;
		struct btw_op o = { .key = key, .len = 1 + (uint32_t)csv_prng_below(&w->rnd, len_max), .fill = (uint8_t)csv_prng_u64(&w->rnd) };
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
			ck_assert_int_eq(btw_run_op(w, &o), 0);
			if (there)
				btw_delete(w, at);
			btw_insert(w, at, o.key, o.len, o.fill);
		} else if (w->n) {
			/* mostly something that is there */
			if (!there && csv_prng_chance(&w->rnd, 9, 10)) {
				at = csv_min(at, w->n - 1);
				o.key = w->key[at];
				there = true;
			}
			o.what = OP_DELETE;
			ck_assert_int_eq(btw_run_op(w, &o), there ? 0 : -ENOENT);
			if (there)
				btw_delete(w, at);
		}
		if (i % 97 == 0)
			fake_commit_all(w->f);
		if (i % 5003 == 0)
			fake_evict(w->f);
		if (i % check_every == 0)
			btw_check(w);
	}
	btw_check(w);
}

void btw_empty(struct btw *w)
{
	while (w->n) {
		uint32_t i = (uint32_t)csv_prng_below(&w->rnd, w->n);
		struct btw_op o = { .key = w->key[i], .what = OP_DELETE };

		ck_assert_int_eq(btw_run_op(w, &o), 0);
		btw_delete(w, i);
		if (w->n % 64 == 0)
			fake_commit_all(w->f);
	}
	btw_check(w);
	ck_assert_int_eq(w->blocks, 0);
	ck_assert_uint_eq(btw_depth(w), 1);
}
