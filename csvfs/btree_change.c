/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * btree_change.c - the B+tree: inserting, replacing, deleting.  Invariants in btree.h.
 *
 * Both directions plan first (everything that can fail: reading siblings, taking blocks) and then act (nothing fails).
 *
 * Insert: nodes that overflow are split from the leaf up; each split puts one key into the parent.  A root that overflows hands its
 * content to a new node and becomes its parent.
 *
 *	root [..]            root [0]              a split at the right edge of the tree leaves the left node full: keys that
 *	             ->        |                   come in ascending order (extents of a growing file) fill nodes to the brim
 *	                     node [.. x]
 *
 * Delete: a node that becomes empty is freed; one that becomes thin swallows a neighbour whose group is locked (T4).  It is always
 * the neighbour that goes, so every key of the caller's later deletes stays on a node whose group the caller has locked.
 */
#include <errno.h>

#include "csvfs/btree_internal.h"
#include "csvfs/csvfs_internal.h"

/* ---- nodes come and go -------------------------------------------------------------------------------------------------------- */

static void node_free_take(struct btree *t, struct jnl_handle *h, struct buf *b)
{
	uint64_t blk = b->jb.blkno;
	int rc;

	buf_forget_take(t->fs, h, b);
	rc = alloc_give(t->resv, h, blk, 1, CSV_BLK_META);
	csv_assertf(rc == 0, "block %llu was checked and cannot be freed: %d", (unsigned long long)blk, rc);
	(*t->blocks)--;
}

static int node_new(struct btree *t, struct jnl_handle *h, uint64_t hint, struct bt_node *ret)
{
	uint64_t blk, generation;
	uint32_t len;
	int rc = alloc_take(t->resv, h, hint, 1, CSV_BLK_META, &blk, &len, &generation);

	if (rc)
		return rc;
	rc = buf_new(t->fs, h, blk, t->owner, CSV_MAGIC_BTNODE, generation, &ret->b);
	if (rc) {
		int rc2 = alloc_give(t->resv, h, blk, 1, CSV_BLK_META);

		csv_assertf(rc2 == 0, "block %llu just taken: %d", (unsigned long long)blk, rc2);
		return rc;
	}
	ret->blk = blk;
	ret->idx = 0;
	ret->a = (struct area){ (uint8_t *)buf_data(ret->b) + offsetof(struct csv_btnode, area), CSV_BT_NODE_AREA };
	(*t->blocks)++;
	return 0;
}

static int nodes_new(struct btree *t, struct jnl_handle *h, uint64_t hint, struct bt_node *ret, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		int rc = node_new(t, h, hint, &ret[i]);

		if (rc) {
			while (i--)
				node_free_take(t, h, ret[i].b);
			return rc;
		}
		hint = ret[i].blk + 1;
	}
	return 0;
}

/* ---- insert -------------------------------------------------------------------------------------------------------------------- */

/*
 * One more item at `pos` of `left`, which has no room for it: the upper part goes to the empty `right`.  Both end with at least one
 * item: the largest item is far smaller than half an area.
 */
static void area_split(struct area left, struct area right, uint32_t pos, const struct area_item *add, bool edge)
{
	struct area_item item[AREA_ITEMS_MAX + 1];
	uint8_t old[CSV_BT_NODE_AREA];
	struct area from = { old, left.len };
	uint32_t n, k, total = 0, below = 0;
	enum csv_bt_kind kind;

	memcpy(old, left.p, left.len);
	n = area_list(from, item);
	memmove(&item[pos + 1], &item[pos], (n - pos) * sizeof(item[0]));
	item[pos] = *add;
	n++;
	for (uint32_t i = 0; i < n; i++)
		total += AREA_ITEM_BYTES(item[i].len);
	if (edge && pos == n - 1) {
		k = n - 1;
	} else {
		for (k = 0; k < n - 1 && (k == 0 || below + AREA_ITEM_BYTES(item[k].len) <= total / 2); k++)
			below += AREA_ITEM_BYTES(item[k].len);
	}
	kind = (enum csv_bt_kind)le32_get(((struct csv_bt_head *)old)->kind);
	area_init(left, kind, area_level(from));
	area_init(right, kind, area_level(from));
	area_append(left, item, 0, k);
	area_append(right, item, k, n);
}

/* The root's content moves into `child`, which becomes the root's only child. */
static void root_push_down(struct btree *t, struct area root, const struct bt_node *child)
{
	struct area_item item[AREA_ITEMS_MAX];
	struct le64 ptr = le64_of(child->blk);
	uint32_t level = area_level(root), n = area_list(root, item);
	uint64_t first = n ? item[0].key : 0;

	area_init(child->a, t->kind, level);
	area_append(child->a, item, 0, n);
	area_init(root, t->kind, level + 1);
	area_insert(root, 0, first, &ptr, sizeof(ptr));
}

static bool path_is_right_edge(const struct bt_path *p)
{
	return !p->hi_set;
}

/*
 * Puts `add` into the leaf of the path (its place is free) and splits upwards as far as needed, using up `fresh` in order.  Nothing
 * fails here.
 */
static void put_and_split(struct btree *t, struct jnl_handle *h, struct bt_path *p, struct area_item add, struct bt_node *fresh,
			  uint32_t n_fresh)
{
	bool edge = path_is_right_edge(p), leaf = true;
	uint32_t used = 0;
	struct le64 ptr;

	for (uint32_t i = p->depth - 1;; i--) {
		struct bt_node *n = &p->lv[i], *down = NULL;
		uint32_t pos = leaf ? n->idx : n->idx + 1;

		buf_dirty(h, n->b);
		/* The first child also takes smaller keys; its own key must stay below that of its new neighbour. */
		if (!leaf && area_key(n->a, n->idx) >= add.key)
			area_set_key(n->a, n->idx, area_key(p->lv[i + 1].a, 0));
		if (area_fits(n->a, add.len)) {
			area_insert(n->a, pos, add.key, add.val, add.len);
			break;
		}
		if (i == 0) {
			down = &fresh[used++];
			root_push_down(t, n->a, down);
			if (area_fits(down->a, add.len)) {
				area_insert(down->a, pos, add.key, add.val, add.len);
				break;
			}
			n = down;
		}
		csv_assertf(used < n_fresh, "%u new nodes do not suffice", n_fresh);
		area_split(n->a, fresh[used].a, pos, &add, edge);
		add.key = area_key(fresh[used].a, 0);
		ptr = le64_of(fresh[used].blk);
		add.val = (const uint8_t *)&ptr;
		add.len = sizeof(ptr);
		used++;
		if (down) {
			struct area root = p->lv[0].a;

			if (area_key(root, 0) >= add.key)
				area_set_key(root, 0, area_key(down->a, 0));
			area_insert(root, 1, add.key, add.val, add.len);
			break;
		}
		leaf = false;
	}
	csv_assertf(used == n_fresh, "%u of %u new nodes used", used, n_fresh);
}

/* How many new nodes it takes to put an item of `len` into the leaf from which `freed` bytes go first.  -EFBIG: too deep. */
static int split_count(const struct btree *t, const struct bt_path *p, uint32_t len, uint32_t freed, uint32_t *ret_n)
{
	uint32_t need = AREA_ITEM_BYTES(len), n = 0;

	for (uint32_t i = p->depth - 1;; i--) {
		struct area a = p->lv[i].a;
		uint32_t used = area_used(a) - freed + need;

		if (used <= area_room(a))
			break;
		n++;
		if (i == 0) {
			if (area_level(bt_root_area(t)) + 1 >= CSV_BT_LEVELS)
				return -EFBIG;
			if (used > CSV_BT_NODE_AREA - sizeof(struct csv_bt_head))
				n++;
			break;
		}
		need = AREA_CHILD_BYTES;
		freed = 0;
	}
	*ret_n = n;
	return 0;
}

static int put(struct btree *t, struct jnl_handle *h, uint64_t key, const void *val, uint32_t len, bool replace)
{
	struct area_item add = { .key = key, .val = val, .len = len }, old;
	struct bt_node fresh[CSV_BT_LEVELS + 1], *leaf;
	uint32_t n_fresh, freed = 0;
	struct bt_path p;
	int rc;

	csv_assertf(len >= 1 && len <= CSV_BT_VALUE_MAX, "value of %u bytes", len);
	rc = bt_path_read(t, key, &p);
	if (rc)
		return rc;
	leaf = &p.lv[p.depth - 1];
	if (p.hit != replace) {
		rc = replace ? -ENOENT : -EEXIST;
		goto out;
	}
	if (replace) {
		area_get(leaf->a, leaf->idx, &old);
		freed = AREA_ITEM_BYTES(old.len);
	}
	rc = split_count(t, &p, len, freed, &n_fresh);
	if (!rc)
		rc = nodes_new(t, h, p.depth > 1 ? leaf->blk + 1 : t->root->jb.blkno, fresh, n_fresh);
	if (rc)
		goto out;
	if (replace) {
		buf_dirty(h, leaf->b);
		area_remove(leaf->a, leaf->idx);
	}
	put_and_split(t, h, &p, add, fresh, n_fresh);
	for (uint32_t i = 0; i < n_fresh; i++)
		buf_put(t->fs, fresh[i].b);
out:
	bt_path_done(t, &p);
	return rc;
}

int bt_insert(struct btree *t, struct jnl_handle *h, uint64_t key, const void *val, uint32_t len)
{
	return put(t, h, key, val, len, false);
}

int bt_replace(struct btree *t, struct jnl_handle *h, uint64_t key, const void *val, uint32_t len)
{
	return put(t, h, key, val, len, true);
}

/* ---- delete -------------------------------------------------------------------------------------------------------------------- */

enum act { ACT_NONE, ACT_FREE, ACT_EAT_RIGHT, ACT_EAT_LEFT };

/* What becomes of each level; sib[i] is pinned where act[i] eats. */
struct del_plan {
	enum act act[CSV_BT_LEVELS];
	struct bt_node sib[CSV_BT_LEVELS];
	bool collapse;
	struct bt_node last;		/* the root's last child, pinned, when it is not on the path */
};

static bool node_is_thin(uint32_t used)
{
	return used < (CSV_BT_NODE_AREA - sizeof(struct csv_bt_head)) / 3;
}

static int may_free(struct btree *t, uint64_t blk)
{
	return alloc_may_give(t->resv, blk, 1, CSV_BLK_META);
}

/* A neighbour of lv[i] that lv[i], with `used` bytes left, can swallow whole. */
static int plan_eat(struct btree *t, const struct bt_path *p, uint32_t i, uint32_t used, struct del_plan *d)
{
	const struct bt_node *up = &p->lv[i - 1];
	uint32_t count = area_count(up->a), level = area_level(p->lv[i].a);

	for (int side = 0; side < 2; side++) {
		bool right = side == 0;
		uint32_t k = right ? up->idx + 1 : up->idx - 1;
		bool lo_set, hi_set;
		uint64_t blk;
		int rc;

		if (right ? k >= count : up->idx == 0)
			continue;
		blk = area_child(up->a, k);
		if (!alloc_resv_covers(t->resv, blk))
			continue;
		/* Bounds from the parent; those it has from above were checked with the parent itself. */
		lo_set = k > 0;
		hi_set = k + 1 < count;
		rc = bt_child_read(t, blk, level, lo_set, lo_set ? area_key(up->a, k) : 0, hi_set,
				   hi_set ? area_key(up->a, k + 1) : 0, &d->sib[i]);
		if (rc)
			return rc;
		if (area_used(d->sib[i].a) + used <= area_room(p->lv[i].a) / 4 * 3) {
			rc = may_free(t, blk);
			d->act[i] = rc ? ACT_NONE : right ? ACT_EAT_RIGHT : ACT_EAT_LEFT;
			if (!rc)
				return 0;
		}
		buf_put(t->fs, d->sib[i].b);
		d->sib[i].b = NULL;
		if (rc)
			return rc;
	}
	return 0;
}

/* `count`: children the root will have; `freed1`: the child on the path goes; `used1`: what that child will hold otherwise. */
static int plan_collapse(struct btree *t, const struct bt_path *p, uint32_t count, bool freed1, uint32_t used1, struct del_plan *d)
{
	struct area root = p->lv[0].a;
	uint32_t room = area_room(root) / 4 * 3, k;
	uint64_t blk;
	int rc;

	if (count != 1)
		return 0;
	if (!freed1) {
		d->collapse = used1 <= room && alloc_resv_covers(t->resv, p->lv[1].blk);
		return d->collapse ? may_free(t, p->lv[1].blk) : 0;
	}
	k = p->lv[0].idx == 0 ? 1 : 0;
	blk = area_child(root, k);
	if (!alloc_resv_covers(t->resv, blk))
		return 0;
	rc = bt_child_read(t, blk, area_level(root) - 1, k > 0, area_key(root, k), k == 0, area_key(root, 1), &d->last);
	if (rc)
		return rc;
	d->collapse = area_used(d->last.a) <= room;
	return d->collapse ? may_free(t, blk) : 0;
}

static int plan_delete(struct btree *t, const struct bt_path *p, struct del_plan *d)
{
	const struct bt_node *leaf = &p->lv[p->depth - 1];
	struct area_item it;
	uint32_t gone, used = 0;
	bool goes = true;	/* an item goes from the level looked at */
	int rc = 0;

	area_get(leaf->a, leaf->idx, &it);
	gone = AREA_ITEM_BYTES(it.len);
	for (uint32_t i = p->depth - 1; i > 0 && goes; i--) {
		const struct bt_node *n = &p->lv[i];

		used = area_used(n->a) - gone;
		gone = AREA_CHILD_BYTES;
		if (area_count(n->a) == 1) {
			d->act[i] = ACT_FREE;
			rc = alloc_resv_covers(t->resv, n->blk) ? may_free(t, n->blk) : -EXDEV;
			if (rc)
				return rc;
			continue;
		}
		if (node_is_thin(used)) {
			rc = plan_eat(t, p, i, used, d);
			if (rc)
				return rc;
		}
		goes = d->act[i] != ACT_NONE;
		if (goes)
			used += area_used(d->sib[i].a);
		else if (i > 1)
			used = area_used(p->lv[1].a);
	}
	if (p->depth == 1)
		return 0;
	return plan_collapse(t, p, area_count(p->lv[0].a) - (goes ? 1 : 0), d->act[1] == ACT_FREE, used, d);
}

static void plan_done(struct btree *t, struct del_plan *d)
{
	for (int i = 0; i < CSV_BT_LEVELS; i++)
		if (d->sib[i].b)
			buf_put(t->fs, d->sib[i].b);
	if (d->last.b)
		buf_put(t->fs, d->last.b);
}

/* lv[i] swallows its neighbour; the parent loses one slot. */
static void eat(struct btree *t, struct jnl_handle *h, struct bt_path *p, uint32_t i, struct del_plan *d)
{
	struct area_item item[AREA_ITEMS_MAX];
	struct bt_node *n = &p->lv[i], *up = &p->lv[i - 1], *sib = &d->sib[i];
	bool right = d->act[i] == ACT_EAT_RIGHT;
	uint32_t k = right ? up->idx + 1 : up->idx;	/* the slot of the right one of both */
	uint32_t mine = area_count(n->a), n_items = area_list(sib->a, item);
	uint64_t first = area_key(up->a, k);

	/* First children take keys below their own: as inner children they need the bound written down. */
	if (right) {
		if (area_level(n->a) > 0)
			item[0].key = first;
		area_append(n->a, item, 0, n_items);
	} else {
		if (area_level(n->a) > 0)
			area_set_key(n->a, 0, first);
		for (uint32_t j = 0; j < n_items; j++)
			area_insert(n->a, j, item[j].key, item[j].val, item[j].len);
	}
	csv_assert(area_count(n->a) == mine + n_items);
	if (!right) {
		/* The pair keeps the left key: our pointer moves into the slot of the left one. */
		uint64_t left_key = area_key(up->a, k - 1);

		area_remove(up->a, k - 1);
		area_set_key(up->a, k - 1, left_key);
	} else {
		area_remove(up->a, k);
	}
	node_free_take(t, h, sib->b);
	sib->b = NULL;
}

static void root_collapse(struct btree *t, struct jnl_handle *h, struct bt_path *p, struct del_plan *d)
{
	struct bt_node *n = d->last.b ? &d->last : &p->lv[1];
	struct area_item item[AREA_ITEMS_MAX];
	uint32_t count = area_list(n->a, item);
	struct area root = p->lv[0].a;

	buf_dirty(h, t->root);
	area_init(root, t->kind, area_level(n->a));
	area_append(root, item, 0, count);
	node_free_take(t, h, n->b);
	n->b = NULL;
}

int bt_delete(struct btree *t, struct jnl_handle *h, uint64_t key)
{
	struct del_plan d = { .collapse = false };
	struct bt_path p;
	struct bt_node *n;
	uint32_t i;
	int rc;

	rc = bt_path_read(t, key, &p);
	if (rc)
		return rc;
	rc = p.hit ? plan_delete(t, &p, &d) : -ENOENT;
	if (rc)
		goto out;

	i = p.depth - 1;
	n = &p.lv[i];
	buf_dirty(h, n->b);
	area_remove(n->a, n->idx);
	for (; i > 0 && d.act[i] != ACT_NONE; i--) {
		struct bt_node *up = &p.lv[i - 1];

		buf_dirty(h, up->b);
		if (d.act[i] == ACT_FREE) {
			node_free_take(t, h, p.lv[i].b);
			p.lv[i].b = NULL;
			area_remove(up->a, up->idx);
		} else {
			eat(t, h, &p, i, &d);
		}
	}
	if (area_count(p.lv[0].a) == 0)
		area_init(p.lv[0].a, t->kind, 0);
	else if (d.collapse)
		root_collapse(t, h, &p, &d);
out:
	plan_done(t, &d);
	bt_path_done(t, &p);
	return rc;
}
