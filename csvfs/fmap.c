/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fmap.c - allocating unwritten blocks and making them written.  Invariants in fmap.h.
 */
#include "csvfs/fmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RUNS 8u			/* runs taken in one transaction */
#define CONVERTS 8u		/* extents converted in one transaction */

int fmap_change(struct iref *r, void (*fn)(struct iref *r, void *arg), void *arg)
{
	struct csvfs *fs = r->ip->fs;
	struct jnl_handle h;
	int err = op_begin(fs, 1, 0, &h);

	if (err)
		return err;
	inode_dirty(&h, r);
	fn(r, arg);
	inode_store(r);
	r->ip->commit_seq = op_end(fs, &h);
	return 0;
}

static void set_tree(struct iref *r, void *arg)
{
	(void)arg;
	r->ip->body = CSV_BODY_TREE;
	r->ip->body_len = 0;
	r->ip->map_version++;
	bt_root_init(inode_raw(r)->body_bytes, CSV_BODY_BYTES, CSV_BT_EXTENTS);
}

/* The inline data goes to a block; nobody needs a lock for that but the group's. */
static int inline_to_block(struct iref *r)
{
	struct csvfs *fs = r->ip->fs;
	struct alloc_resv resv;
	struct jnl_handle h;
	struct btree t;
	uint64_t blk;
	uint32_t got;
	void *block;
	int err;

	block = blk_alloc(CSV_BLOCK_SIZE);
	if (!block)
		return -ENOMEM;
	memset(block, 0, CSV_BLOCK_SIZE);
	memcpy(block, inode_raw(r)->body_bytes, r->ip->body_len);
	alloc_resv_init(fs, &resv);
	/* An empty root takes one item without a new node. */
	err = alloc_reserve(&resv, r->ip->ino + 1, 3, 1, false);
	if (!err)
		err = op_begin(fs, 4 + alloc_credits(&resv, 3), 0, &h);
	if (err)
		goto out;
	err = alloc_take(&resv, &h, r->ip->ino + 1, 1, CSV_BLK_DATA, &blk, &got, NULL);
	if (!err) {
		err = blk_write(fs->env->blk, blk << CSV_BLOCK_SHIFT, block, CSV_BLOCK_SIZE);
		if (err) {
			int e2 = alloc_give(&resv, &h, blk, 1, CSV_BLK_DATA);

			if (e2)
				op_broken(fs, r->ip->ino, "moving inline data to a block", e2);
		}
	}
	if (!err) {
		inode_dirty(&h, r);
		set_tree(r, NULL);
		inode_tree(r, CSV_BT_EXTENTS, &resv, &t);
		err = ext_insert(&t, &h, 0, blk, 1, 0);
		if (err)
			op_broken(fs, r->ip->ino, "moving inline data to a block", err);
		r->ip->blocks++;
		inode_store(r);
		jnl_publishes_data(&h);
	}
	r->ip->commit_seq = op_end(fs, &h);
out:
	alloc_resv_done(&resv);
	free(block);
	return err;
}

int fmap_make_tree(struct iref *r)
{
	if (r->ip->body == CSV_BODY_TREE)
		return 0;
	if (r->ip->body == CSV_BODY_INLINE && r->ip->size)
		return inline_to_block(r);
	return fmap_change(r, set_tree, NULL);
}

/* ---- filling holes ------------------------------------------------------------------------------------------------------------- */

/* Near what comes before it in the file, else near the inode. */
static uint64_t hint_for(struct btree *t, struct iref *r, uint64_t lblk)
{
	struct extent e;

	if (lblk && ext_prev(t, lblk - 1, &e) == 0)
		return e.phys + e.len;
	return r->ip->ino + 1;
}

/* As many as that many blocks can be in: what is reserved for tree nodes is room that the last blocks of a full volume do not have. */
static uint32_t runs_for(uint64_t blocks)
{
	return (uint32_t)csv_min(blocks, (uint64_t)RUNS);
}

/* One transaction: up to `want` blocks for the hole at `lblk`. */
static int fill_txn(struct iref *r, struct alloc_resv *resv, uint64_t hint, uint64_t lblk, uint64_t want, uint64_t *ret_got)
{
	struct csvfs *fs = r->ip->fs;
	uint32_t runs = runs_for(want);
	uint64_t got = 0;
	struct jnl_handle h;
	struct btree t;
	int err;

	inode_tree(r, CSV_BT_EXTENTS, resv, &t);
	err = op_begin(fs, 1 + ext_credits(&t, runs) + alloc_credits(resv, runs + ext_new_nodes(&t, runs)), bt_freed_nodes(&t, runs),
		       &h);
	if (err)
		return err;
	inode_dirty(&h, r);
	for (unsigned i = 0; i < runs && got < want; i++) {
		uint64_t blk;
		uint32_t len;

		err = alloc_take(resv, &h, hint, (uint32_t)(want - got), CSV_BLK_DATA, &blk, &len, NULL);
		if (err)
			break;
		err = ext_insert(&t, &h, lblk + got, blk, len, CSV_EXT_UNWRITTEN);
		if (err) {
			op_broken(fs, r->ip->ino, "adding an extent", err);
			break;
		}
		r->ip->blocks += len;
		got += len;
		hint = blk + len;
	}
	if (got)
		r->ip->map_version++;
	inode_store(r);
	r->ip->commit_seq = op_end(fs, &h);
	if (got == 0)
		return err ? err : -ENOSPC;
	*ret_got = got;
	return 0;
}

static int fill_hole(struct iref *r, uint64_t lblk, uint64_t want, uint64_t *ret_got)
{
	struct btree t;
	uint64_t hint;
	uint32_t ask;
	int err;

	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	hint = hint_for(&t, r, lblk);
	ask = (uint32_t)csv_min(want, (uint64_t)CSV_GROUP_BLOCKS / 2);
	for (;;) {
		struct alloc_resv resv;

		alloc_resv_init(r->ip->fs, &resv);
		err = alloc_reserve(&resv, hint, ask + ext_new_nodes(&t, runs_for(ask)), csv_min(ask, FMAP_CHUNK_BLOCKS), false);
		if (!err)
			err = fill_txn(r, &resv, hint, lblk, ask, ret_got);
		alloc_resv_done(&resv);
		if (err != -ENOSPC || ask == 1)
			return err;
		ask = csv_max(ask / 4, 1u);	/* what is needed may lie in several groups */
	}
}

int fmap_fill(struct iref *r, uint64_t first, uint64_t end, uint64_t spare, uint64_t *ret_end)
{
	uint64_t at = first;
	struct btree t;
	int err = 0;

	err = fmap_make_tree(r);
	if (err)
		return err;
	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	while (at < end) {
		uint64_t want, got;
		struct extent e;

		err = ext_map(&t, at, &e);
		if (err)
			break;
		if (e.phys) {
			at = ext_end(&e);
			continue;
		}
		want = csv_min(e.len, end - at);
		if (at + want == end)
			want = csv_min(e.len, want + spare);
		err = fill_hole(r, at, want, &got);
		if (err)
			break;
		at += got;
	}
	if (err && (err != -ENOSPC || at <= first))
		return err;
	*ret_end = csv_min(at, end);
	if (spare && at > end) {
		if (r->ip->spec_end != end)
			r->ip->spec_first = end;
		r->ip->spec_end = at;
	}
	return 0;
}

/* ---- changing flags ---------------------------------------------------------------------------------------------------------------- */

/* The next extent in [at, end) that has (or has not) the flag, cut to the range; len 0: none. */
static int next_with(struct btree *t, uint64_t at, uint64_t end, bool unwritten, struct extent *ret)
{
	*ret = (struct extent){ .len = 0 };
	while (at < end) {
		struct extent e;
		int err = ext_map(t, at, &e);

		if (err)
			return err;
		if (e.phys && !!(e.flags & CSV_EXT_UNWRITTEN) == unwritten) {
			*ret = e;
			ret->len = csv_min(e.len, end - e.lblk);
			return 0;
		}
		at = ext_end(&e);
	}
	return 0;
}

static int count_with(struct btree *t, uint64_t at, uint64_t end, bool unwritten, uint32_t max, uint32_t *ret_n)
{
	uint32_t n = 0;

	while (at < end && n < max) {
		struct extent e;
		int err = next_with(t, at, end, unwritten, &e);

		if (err)
			return err;
		if (!e.len)
			break;
		n++;
		at = ext_end(&e);
	}
	*ret_n = n;
	return 0;
}

/*
 * One transaction: up to CONVERTS extents from `*inout_at` on get the other flag.  publish: the data is there; the size follows what is
 * written, `size` at the end.
 */
static int convert_txn(struct iref *r, uint64_t *inout_at, uint64_t end, bool publish, uint64_t size)
{
	struct csvfs *fs = r->ip->fs;
	uint64_t at = *inout_at;
	struct alloc_resv resv;
	struct jnl_handle h;
	struct btree t;
	uint32_t n;
	int err;

	alloc_resv_init(fs, &resv);
	inode_tree(r, CSV_BT_EXTENTS, &resv, &t);
	err = count_with(&t, at, end, publish, CONVERTS, &n);
	if (!err && n)
		err = alloc_reserve(&resv, r->ip->ino, ext_new_nodes(&t, n), 1, true);
	if (!err)
		err = op_begin(fs, 1 + (n ? ext_credits(&t, n) + alloc_credits(&resv, ext_new_nodes(&t, n)) : 0),
			       bt_freed_nodes(&t, n), &h);
	if (err)
		goto out;
	inode_dirty(&h, r);
	for (uint32_t i = 0; i < n; i++) {
		struct extent e;

		err = next_with(&t, at, end, publish, &e);
		if (!err && e.len)
			err = ext_convert(&t, &h, e.lblk, (uint32_t)e.len, publish ? 0 : CSV_EXT_UNWRITTEN);
		if (err) {
			op_broken(fs, r->ip->ino, "converting extents", err);
			break;
		}
		if (!e.len)
			break;
		at = ext_end(&e);
	}
	if (n < CONVERTS)
		at = end;
	if (n)
		r->ip->map_version++;
	if (publish) {
		uint64_t reach = at == end ? size : csv_min(size, at << CSV_BLOCK_SHIFT);

		if (reach > r->ip->size)
			r->ip->size = reach;
		inode_touch(r->ip, INODE_T_MTIME | INODE_T_CTIME);
		jnl_publishes_data(&h);
	}
	inode_store(r);
	r->ip->commit_seq = op_end(fs, &h);
	*inout_at = at;
out:
	alloc_resv_done(&resv);
	return err;
}

int fmap_publish(struct iref *r, uint64_t first, uint64_t end, uint64_t size)
{
	uint64_t at = first;
	int err;

	do {
		err = convert_txn(r, &at, end, true, size);
	} while (!err && at < end);
	return err;
}

int fmap_unpublish(struct iref *r, uint64_t first, uint64_t end)
{
	uint64_t at = first;
	int err = 0;

	while (!err && at < end)
		err = convert_txn(r, &at, end, false, 0);
	return err;
}

int fmap_all_written(struct iref *r, uint64_t first, uint64_t end)
{
	struct btree t;

	if (r->ip->body != CSV_BODY_TREE)
		return 0;
	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	for (uint64_t at = first; at < end;) {
		struct extent e;
		int err = ext_map(&t, at, &e);

		if (err)
			return err;
		if (!ext_is_written(&e))
			return 0;
		at = ext_end(&e);
	}
	return 1;
}
