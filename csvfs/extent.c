/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * extent.c - the extent tree of a file.  Invariants in extent.h.
 *
 * A changing call looks everything up before it changes anything; each of its tree operations is atomic by itself, and a failure after
 * the first of them is answered by the caller with op_broken() (IN5).
 */
#include "csvfs/extent.h"

#include <errno.h>
#include <string.h>

typedef unsigned long long ull;

/* A changing call replaces, deletes or inserts at most this many items. */
#define ITEMS_PER_OP 4u

static int corrupt(const struct btree *t, uint64_t key, const char *field, uint64_t val, const char *allowed)
{
	fs_log(t->fs, LOG_L_ERR, "inode %llu: extent at block %llu: %s %llu: must be %s; run fsck.csvfs", (ull)t->owner.id,
	       (ull)key, field, (ull)val, allowed);
	return -CSV_E_CORRUPT;
}

static int decode(const struct btree *t, const struct bt_item *it, struct extent *ret)
{
	struct csv_extent d;
	struct extent e;

	if (it->len != sizeof(d))
		return corrupt(t, it->key, "length of the value", it->len, "16");
	memcpy(&d, it->val, sizeof(d));
	e = (struct extent){ .lblk = it->key, .phys = le64_get(d.phys), .len = le32_get(d.len), .flags = le32_get(d.flags) };
	if (e.lblk >= EXT_LBLK_END)
		return corrupt(t, it->key, "key", e.lblk, "below 2^48");
	if (e.len == 0 || e.len > CSV_GROUP_BLOCKS || e.len > EXT_LBLK_END - e.lblk)
		return corrupt(t, it->key, "len", e.len, "1..262144 and inside the largest file");
	if (e.len > it->next - e.lblk)
		return corrupt(t, it->key, "len", e.len, "clear of the next extent");
	if (!csv_run_is_allocatable(&t->fs->geo, e.phys, e.len))
		return corrupt(t, it->key, "phys", e.phys, "inside the data of one group");
	if (e.flags & ~CSV_EXT_FLAGS_KNOWN) {
		fs_log(t->fs, LOG_L_ERR, "inode %llu: extent at block %llu: flags %u are of a later version", (ull)t->owner.id,
		       (ull)e.lblk, e.flags);
		return -CSV_E_UNSUPPORTED;
	}
	*ret = e;
	return 0;
}

static void encode(const struct extent *e, struct csv_extent *ret)
{
	csv_assert(e->phys && e->len && e->len <= CSV_GROUP_BLOCKS);
	le64_set(&ret->phys, e->phys);
	le32_set(&ret->len, (uint32_t)e->len);
	le32_set(&ret->flags, e->flags);
}

/* The whole extent that starts at or before / at or after. */
static int seek_le(struct btree *t, uint64_t lblk, struct extent *ret)
{
	struct bt_item it, next;
	int err = bt_seek_le(t, lblk, &it);

	if (!err && it.next == UINT64_MAX && it.key < EXT_LBLK_END && !bt_seek_ge(t, it.key + 1, &next))
		it.next = next.key;		/* of another leaf */
	return err ? err : decode(t, &it, ret);
}

static int seek_ge(struct btree *t, uint64_t lblk, struct extent *ret)
{
	struct bt_item it;
	int err = bt_seek_ge(t, lblk, &it);

	return err ? err : decode(t, &it, ret);
}

int ext_next(struct btree *t, uint64_t lblk, struct extent *ret)
{
	return seek_ge(t, lblk, ret);
}

int ext_prev(struct btree *t, uint64_t lblk, struct extent *ret)
{
	return seek_le(t, lblk, ret);
}

int ext_last(struct btree *t, struct extent *ret)
{
	return seek_le(t, EXT_LBLK_END, ret);
}

int ext_map(struct btree *t, uint64_t lblk, struct extent *ret)
{
	struct extent e, next;
	int err;

	csv_assert(lblk < EXT_LBLK_END);
	err = seek_le(t, lblk, &e);
	if (err && err != -ENOENT)
		return err;
	if (err == 0 && lblk < ext_end(&e)) {
		uint64_t cut = lblk - e.lblk;

		*ret = (struct extent){ .lblk = lblk, .phys = e.phys + cut, .len = e.len - cut, .flags = e.flags };
		return 0;
	}
	err = seek_ge(t, lblk + 1, &next);
	if (err && err != -ENOENT)
		return err;
	*ret = (struct extent){ .lblk = lblk, .len = (err ? EXT_LBLK_END : next.lblk) - lblk };
	return 0;
}

uint32_t ext_credits(const struct btree *t, uint32_t ops)
{
	return bt_credits(t, ops * ITEMS_PER_OP);
}

uint32_t ext_new_nodes(const struct btree *t, uint32_t ops)
{
	return bt_new_nodes(t, ops * ITEMS_PER_OP);
}

/* ---- changing ------------------------------------------------------------------------------------------------------------- */

static bool continues(const struct extent *a, const struct extent *b)
{
	return ext_end(a) == b->lblk && a->phys + a->len == b->phys && a->flags == b->flags &&
	       a->len + b->len <= CSV_GROUP_BLOCKS;
}

static int put_new(struct btree *t, struct jnl_handle *h, const struct extent *e)
{
	struct csv_extent d;

	encode(e, &d);
	return bt_insert(t, h, e->lblk, &d, sizeof(d));
}

static int put_over(struct btree *t, struct jnl_handle *h, const struct extent *e)
{
	struct csv_extent d;

	encode(e, &d);
	return bt_replace(t, h, e->lblk, &d, sizeof(d));
}

/* Neighbours of [lblk, end): what ends at or before lblk, what begins at or after end; len 0 when there is none. */
static int neighbours(struct btree *t, uint64_t lblk, uint64_t end, struct extent *ret_left, struct extent *ret_right)
{
	int err;

	*ret_left = *ret_right = (struct extent){ .len = 0 };
	if (lblk) {
		err = seek_le(t, lblk - 1, ret_left);
		if (err && err != -ENOENT)
			return err;
		if (!err && ext_end(ret_left) > lblk)
			return corrupt(t, ret_left->lblk, "len", ret_left->len, "clear of the next extent");
	}
	err = seek_ge(t, end, ret_right);
	return err == -ENOENT ? 0 : err;
}

/*
 * A merge takes an item away, which may empty its node: that is freed only where its group happens to be locked (T4), and nobody can know
 * before.  Two extents that could be one are no fault.  1: the item is gone; 0: it stays, there is no merge.
 */
static int absorb(struct btree *t, struct jnl_handle *h, uint64_t lblk)
{
	int err = bt_delete(t, h, lblk);

	return err == -EXDEV ? 0 : err ? err : 1;
}

int ext_insert(struct btree *t, struct jnl_handle *h, uint64_t lblk, uint64_t phys, uint32_t len, uint32_t flags)
{
	struct extent e = { .lblk = lblk, .phys = phys, .len = len, .flags = flags }, left, right;
	bool over = false;
	int err;

	err = neighbours(t, lblk, lblk, &left, &right);
	if (err)
		return err;
	if (right.len && right.lblk < lblk + len)
		return -EEXIST;
	if (left.len && continues(&left, &e)) {
		e = (struct extent){ .lblk = left.lblk, .phys = left.phys, .len = left.len + len, .flags = flags };
		over = true;
	}
	if (right.len && continues(&e, &right)) {
		err = absorb(t, h, right.lblk);
		if (err < 0)
			return err;
		e.len += err ? right.len : 0;
	}
	return over ? put_over(t, h, &e) : put_new(t, h, &e);
}

/* The whole extent that covers [lblk, lblk + len). */
static int covering(struct btree *t, uint64_t lblk, uint32_t len, struct extent *ret)
{
	int err = seek_le(t, lblk, ret);

	if (err)
		return err;
	csv_assertf(len && lblk >= ret->lblk && lblk + len <= ext_end(ret), "extent %llu+%llu does not cover %llu+%u",
		    (ull)ret->lblk, (ull)ret->len, (ull)lblk, len);
	return 0;
}

/* Takes `mid` out of `e`: what is left of it at the front stays under e's key, the rest becomes an extent of its own. */
static int cut_out(struct btree *t, struct jnl_handle *h, const struct extent *e, uint64_t lblk, uint32_t len, bool keep_key)
{
	struct extent front = *e, back = *e;
	int err = 0;

	front.len = lblk - e->lblk;
	back.lblk = lblk + len;
	back.phys += back.lblk - e->lblk;
	back.len = ext_end(e) - back.lblk;
	if (back.len)
		err = put_new(t, h, &back);
	if (err)
		return err;
	if (front.len)
		return put_over(t, h, &front);
	return keep_key ? 0 : bt_delete(t, h, e->lblk);
}

int ext_convert(struct btree *t, struct jnl_handle *h, uint64_t lblk, uint32_t len, uint32_t flags)
{
	struct extent e, mid, left, right;
	bool own_key, over = false;
	int err;

	err = covering(t, lblk, len, &e);
	if (err)
		return err;
	if (e.flags == flags)
		return 0;
	err = neighbours(t, e.lblk, ext_end(&e), &left, &right);
	if (err)
		return err;
	mid = (struct extent){ .lblk = lblk, .phys = e.phys + (lblk - e.lblk), .len = len, .flags = flags };
	own_key = lblk == e.lblk;

	/* Grown onto the left neighbour: then mid's own key goes. */
	if (own_key && left.len && continues(&left, &mid)) {
		err = absorb(t, h, lblk);
		if (err < 0)
			return err;
		over = err;
	}
	if (over)
		mid = (struct extent){ .lblk = left.lblk, .phys = left.phys, .len = left.len + len, .flags = flags };
	if (lblk + len == ext_end(&e) && right.len && continues(&mid, &right)) {
		err = absorb(t, h, right.lblk);
		if (err < 0)
			return err;
		mid.len += err ? right.len : 0;
	}
	/* Its own key is gone already, or gets another value below. */
	err = cut_out(t, h, &e, lblk, len, own_key);
	if (err)
		return err;
	return over || own_key ? put_over(t, h, &mid) : put_new(t, h, &mid);
}

int ext_remove(struct btree *t, struct jnl_handle *h, uint64_t lblk, uint32_t len)
{
	struct extent e;
	int err;

	err = covering(t, lblk, len, &e);
	return err ? err : cut_out(t, h, &e, lblk, len, false);
}

/* ---- for the data plane -------------------------------------------------------------------------------------------------------- */

int inode_map_range(struct iref *r, uint64_t off, uint64_t len, int (*fn)(void *arg, uint64_t off, uint64_t len, uint64_t dev_off),
		    void *arg)
{
	uint64_t end, lblk;
	struct btree t;

	if (r->ip->body != CSV_BODY_TREE || off >= r->ip->size || len == 0)
		return 0;
	end = len > r->ip->size - off ? r->ip->size : off + len;
	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	lblk = off >> CSV_BLOCK_SHIFT;
	while (lblk << CSV_BLOCK_SHIFT < end) {
		struct extent e;
		uint64_t from, to;
		int err = ext_map(&t, lblk, &e);

		if (err)
			return err;
		from = csv_max(off, e.lblk << CSV_BLOCK_SHIFT);
		to = csv_min(end, ext_end(&e) << CSV_BLOCK_SHIFT);
		if (ext_is_written(&e)) {
			err = fn(arg, from, to - from, (e.phys << CSV_BLOCK_SHIFT) + (from - (e.lblk << CSV_BLOCK_SHIFT)));
			if (err)
				return err;
		}
		lblk = ext_end(&e);
	}
	return 0;
}
