/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * check_tree.c - walks a B+tree: every node checked (bt_area_check), levels falling by one, keys inside the range their parent gives,
 * no node twice.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "csvfs/check/check_internal.h"

struct range { uint64_t lo, hi; bool open; };	/* keys in [lo, hi), or [lo, ...] when open */

static const struct csv_bt_slot *slots(const void *area)
{
	return (const struct csv_bt_slot *)((const uint8_t *)area + sizeof(struct csv_bt_head));
}

static bool area_walk(struct ck *c, struct ck_tree *t, const void *area, uint32_t len, int level, struct range r, uint64_t blkno);

/* CK2: a node is descended into once a pass.  That it is reached twice is reported by the pass that has it in its window. */
static bool node_first_time(struct ck *c, struct ck_tree *t, uint64_t blkno)
{
	if (c->hunting)
		ck_mark(c, blkno, 1, CSV_BLK_META, t->name);
	else if (blkno >= c->win_first && blkno < c->win_end)
		return ck_mark(c, blkno, 1, CSV_BLK_META, t->name);
	if (ck_table_get(&c->far_nodes, blkno))
		return false;
	if (ck_table_put(&c->far_nodes, blkno, c) < 0)
		return ck_fatal(c, -ENOMEM, "out of memory"), false;
	return true;
}

static bool child_walk(struct ck *c, struct ck_tree *t, uint64_t blkno, int level, struct range r, uint64_t parent)
{
	struct csv_btnode *node;
	bool ok;

	if (!csv_blk_is_allocatable(&c->g, blkno)) {
		ck_finding(c, "%s: tree node in block %" PRIu64 ": child %" PRIu64 ": must be a block inside a group", t->name, parent, blkno);
		return false;
	}
	if (!node_first_time(c, t, blkno))
		return false;
	node = blk_alloc(CSV_BLOCK_SIZE);
	if (!node)
		return ck_fatal(c, -ENOMEM, "out of memory"), false;
	t->nodes++;
	ok = ck_read_meta(c, blkno, CSV_MAGIC_BTNODE, t->owner, node, t->name) &&
	     area_walk(c, t, node->area, CSV_BT_NODE_AREA, level, r, blkno);
	free(node);
	return ok;
}

/* level < 0: a root, whatever it says. */
static bool area_walk(struct ck *c, struct ck_tree *t, const void *area, uint32_t len, int level, struct range r, uint64_t blkno)
{
	const struct csv_bt_head *h = area;
	const struct csv_bt_slot *s = slots(area);
	struct csv_err err = CSV_ERR_INIT;
	uint32_t n;
	bool ok = true;

	if (bt_area_check(area, len, t->kind, &err) < 0) {
		ck_finding(c, "%s: tree node in block %" PRIu64 ": %s", t->name, blkno, err.text);
		return false;
	}
	n = le16_get(h->count);
	if (level >= 0 && le16_get(h->level) != level) {
		ck_finding(c, "%s: tree node in block %" PRIu64 ": field level = %u: must be %d, one below its parent", t->name, blkno,
			   le16_get(h->level), level);
		return false;
	}
	level = le16_get(h->level);
	for (uint32_t i = 0; i < n && !c->fatal; i++) {
		uint64_t key = le64_get(s[i].key);
		const uint8_t *val = (const uint8_t *)area + le16_get(s[i].off);
		struct range sub = { i ? key : r.lo, i + 1 < n ? le64_get(s[i + 1].key) : r.hi, i + 1 == n && r.open };
		struct bt_item it = { .key = key, .len = le16_get(s[i].len) };

		/* The first child also takes smaller keys: its key in the parent is no bound. */
		if ((key < r.lo && (level == 0 || i)) || (!r.open && key >= r.hi)) {
			ck_finding(c, "%s: tree node in block %" PRIu64 ": slot %u: field key = %" PRIu64 ": must be from %" PRIu64 " to below %"
				   PRIu64 ", as its parent says", t->name, blkno, i, key, r.lo, r.open ? UINT64_MAX : r.hi);
			return false;
		}
		if (level > 0) {
			ok = child_walk(c, t, le64_get(*(const struct le64 *)val), level - 1, sub, blkno) && ok;
			continue;
		}
		memcpy(it.val, val, it.len);
		if (!t->item(c, t, &it))
			return false;
	}
	return ok && !c->fatal;
}

bool ck_tree_walk(struct ck *c, struct ck_tree *t, const void *root_area, uint32_t area_len)
{
	return area_walk(c, t, root_area, area_len, -1, (struct range){ .open = true }, t->root_blk);
}
