/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * btree.c - the B+tree: finding.  Changing is btree_change.c, the content of a node btree_area.c; invariants in btree.h.
 *
 * A path is read from the root down.  Each step narrows the range [lo, hi) that the child's keys must lie in: a node that was
 * swapped for another one, or a pointer that goes up or round in a circle, is found here (level, range) and named.
 * Thread: the control thread; the tree's lock is held by the caller.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "csvfs/btree_internal.h"
#include "csvfs/csvfs_internal.h"

typedef unsigned long long ull;

int bt_corrupt(struct btree *t, uint64_t blk, const char *fmt, ...)
{
	char text[300], owner[CSV_OWNER_TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fs_log(t->fs, LOG_L_ERR, "%s: tree node in block %llu: %s; run fsck.csvfs", csv_owner_to_text(t->owner, owner), (ull)blk, text);
	return -CSV_E_CORRUPT;
}

struct area bt_root_area(const struct btree *t)
{
	csv_assertf(t->area_off + t->area_len <= CSV_BLOCK_SIZE, "root area %u + %u", t->area_off, t->area_len);
	return (struct area){ (uint8_t *)buf_data(t->root) + t->area_off, t->area_len };
}

static int node_check(struct btree *t, const struct bt_node *n, uint32_t level, bool lo_set, uint64_t lo, bool hi_set, uint64_t hi)
{
	struct csv_err err = CSV_ERR_INIT;
	uint32_t count;

	if (bt_area_check(n->a.p, n->a.len, t->kind, &err))
		return bt_corrupt(t, n->blk, "%s", err.text);
	count = area_count(n->a);
	if (n->b == t->root)
		return 0;
	if (area_level(n->a) != level)
		return bt_corrupt(t, n->blk, "field level = %u: must be %u", area_level(n->a), level);
	if (count == 0)
		return bt_corrupt(t, n->blk, "field count = 0: must be at least 1");
	if (lo_set && area_key(n->a, 0) < lo)
		return bt_corrupt(t, n->blk, "slot 0: field key = %llu: must be at least %llu", (ull)area_key(n->a, 0), (ull)lo);
	if (hi_set && area_key(n->a, count - 1) >= hi)
		return bt_corrupt(t, n->blk, "slot %u: field key = %llu: must be below %llu", count - 1, (ull)area_key(n->a, count - 1),
				  (ull)hi);
	return 0;
}

int bt_child_read(struct btree *t, uint64_t blk, uint32_t level, bool lo_set, uint64_t lo, bool hi_set, uint64_t hi,
		  struct bt_node *ret)
{
	struct bt_node n = { .blk = blk };
	int rc;

	if (!csv_blk_is_allocatable(&t->fs->geo, blk))
		return bt_corrupt(t, t->root->jb.blkno, "child pointer %llu at level %u: must be a block inside a group", (ull)blk, level + 1);
	rc = buf_read(t->fs, blk, t->owner, CSV_MAGIC_BTNODE, &n.b);
	if (rc)
		return rc;
	n.a = (struct area){ (uint8_t *)buf_data(n.b) + offsetof(struct csv_btnode, area), CSV_BT_NODE_AREA };
	rc = node_check(t, &n, level, lo_set, lo, hi_set, hi);
	if (rc) {
		buf_put(t->fs, n.b);
		return rc;
	}
	*ret = n;
	return 0;
}

int bt_path_read(struct btree *t, uint64_t key, struct bt_path *ret)
{
	struct bt_node *n = &ret->lv[0];
	uint32_t level;
	int rc;

	*ret = (struct bt_path){ .depth = 1 };
	*n = (struct bt_node){ .b = t->root, .a = bt_root_area(t), .blk = t->root->jb.blkno };
	rc = node_check(t, n, 0, false, 0, false, 0);
	if (rc)
		return rc;
	for (level = area_level(n->a); level > 0; level--) {
		n->idx = area_find_child(n->a, key);
		if (n->idx > 0) {
			ret->lo = area_key(n->a, n->idx);
			ret->lo_set = true;
		}
		if (n->idx + 1 < area_count(n->a)) {
			ret->hi = area_key(n->a, n->idx + 1);
			ret->hi_set = true;
		}
		rc = bt_child_read(t, area_child(n->a, n->idx), level - 1, ret->lo_set, ret->lo, ret->hi_set, ret->hi,
				   &ret->lv[ret->depth]);
		if (rc) {
			bt_path_done(t, ret);
			return rc;
		}
		n = &ret->lv[ret->depth++];
	}
	n->idx = area_find(n->a, key, &ret->hit);
	return 0;
}

void bt_path_done(struct btree *t, struct bt_path *p)
{
	for (uint32_t i = 1; i < p->depth; i++)
		buf_put(t->fs, p->lv[i].b);
	p->depth = 1;
}

/* Item `i` of the path's leaf. */
static void item_get(const struct bt_path *p, uint32_t i, struct bt_item *ret)
{
	struct area a = p->lv[p->depth - 1].a;	/* (its parents' keys say where a leaf may begin, not where the next one does) */
	struct area_item it;

	area_get(a, i, &it);
	ret->key = it.key;
	ret->next = i + 1 < area_count(a) ? area_key(a, i + 1) : UINT64_MAX;
	ret->len = it.len;
	memcpy(ret->val, it.val, it.len);
}

int bt_lookup(struct btree *t, uint64_t key, struct bt_item *ret)
{
	struct bt_path p;
	int rc = bt_path_read(t, key, &p);

	if (rc)
		return rc;
	if (p.hit)
		item_get(&p, p.lv[p.depth - 1].idx, ret);
	rc = p.hit ? 0 : -ENOENT;
	bt_path_done(t, &p);
	return rc;
}

int bt_seek_ge(struct btree *t, uint64_t key, struct bt_item *ret)
{
	for (;;) {
		struct bt_path p;
		struct bt_node *leaf;
		int rc = bt_path_read(t, key, &p);

		if (rc)
			return rc;
		leaf = &p.lv[p.depth - 1];
		if (leaf->idx < area_count(leaf->a))
			item_get(&p, leaf->idx, ret);
		else
			rc = p.hi_set ? -EAGAIN : -ENOENT;
		bt_path_done(t, &p);
		if (rc != -EAGAIN)
			return rc;
		csv_assert(p.hi > key);
		key = p.hi;
	}
}

int bt_seek_le(struct btree *t, uint64_t key, struct bt_item *ret)
{
	for (;;) {
		struct bt_path p;
		struct bt_node *leaf;
		int rc = bt_path_read(t, key, &p);

		if (rc)
			return rc;
		leaf = &p.lv[p.depth - 1];
		if (p.hit)
			item_get(&p, leaf->idx, ret);
		else if (leaf->idx > 0)
			item_get(&p, leaf->idx - 1, ret);
		else
			rc = p.lo_set && p.lo > 0 ? -EAGAIN : -ENOENT;
		bt_path_done(t, &p);
		if (rc != -EAGAIN)
			return rc;
		csv_assert(p.lo <= key);
		key = p.lo - 1;
	}
}

int bt_walk(struct btree *t, uint64_t key, int (*fn)(void *arg, const struct bt_item *i), void *arg)
{
	struct bt_item it;
	struct bt_path p;
	int rc;

	do {
		struct bt_node *leaf;

		rc = bt_path_read(t, key, &p);
		if (rc)
			return rc;
		leaf = &p.lv[p.depth - 1];
		for (uint32_t i = leaf->idx; !rc && i < area_count(leaf->a); i++) {
			item_get(&p, i, &it);
			rc = fn(arg, &it);
		}
		bt_path_done(t, &p);
		key = p.hi;
	} while (!rc && p.hi_set);
	return rc;
}

/* ---- room for changes --------------------------------------------------------------------------------------------------------- */

/* The root is filled again only after tens of splits below it. */
#define ROOT_SPLIT_EVERY 32u

static uint32_t depth_after(const struct btree *t, uint32_t ops)
{
	return csv_min(area_level(bt_root_area(t)) + 1 + csv_div_round_up(ops, ROOT_SPLIT_EVERY), (uint64_t)CSV_BT_LEVELS);
}

uint32_t bt_new_nodes(const struct btree *t, uint32_t inserts)
{
	/* Every node on the path is split; where the root overflows, its content goes one level down into a node, or two. */
	return inserts ? inserts * (depth_after(t, inserts) - 1) + 2 * (1 + inserts / ROOT_SPLIT_EVERY) : 0;
}

int bt_insert_fits(struct btree *t, uint64_t key, uint32_t len)
{
	struct bt_path p;
	int rc = bt_path_read(t, key, &p);

	if (rc)
		return rc;
	rc = area_fits(p.lv[p.depth - 1].a, len);
	bt_path_done(t, &p);
	return rc;
}

uint32_t bt_credits(const struct btree *t, uint32_t inserts)
{
	/* The root, the other nodes of each path, and what is new.  A delete changes its path only. */
	return inserts ? 1 + inserts * (depth_after(t, inserts) - 1) + bt_new_nodes(t, inserts) : 0;
}

uint32_t bt_freed_nodes(const struct btree *t, uint32_t deletes)
{
	/* One a level below the root, and one that moves into the root. */
	return deletes * (area_level(bt_root_area(t)) + 1);
}

int bt_path_groups(struct btree *t, uint64_t key, uint32_t *group, uint32_t *inout_n, uint32_t max)
{
	struct bt_path p;
	int rc = bt_path_read(t, key, &p);

	if (rc)
		return rc;
	for (uint32_t i = 1; !rc && i < p.depth; i++) {
		uint32_t g = csv_group_of(&t->fs->geo, p.lv[i].blk), k = 0;

		while (k < *inout_n && group[k] != g)
			k++;
		if (k < *inout_n)
			continue;
		if (*inout_n == max)
			rc = -E2BIG;
		else
			group[(*inout_n)++] = g;
	}
	bt_path_done(t, &p);
	return rc;
}
