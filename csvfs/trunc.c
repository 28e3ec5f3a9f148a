/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * trunc.c - giving blocks back: truncate, punch, and the batches that free an orphan.  Invariants in fmap.h.
 *
 * A truncate that fits into one transaction is one.  A larger one (R20) first sets the new size together with an intent in the orphan tree and
 * inode.orphan_slot; then it frees in batches from the end; then the intent goes.  After a crash whoever recovers the slot finishes it
 * (orphan.c); whoever wants to add to the file before that finishes it himself (fmap_settle()).
 *
 *	size 10 G ---- txn: size 0, intent ---- txn: -8 groups ---- ... ---- txn: intent gone
 *	                                     ^ crash here: size is 0 for everybody, blocks behind it are freed later
 *
 * A file without links is freed anyway: there the size goes down batch by batch, without an intent.
 */
#include "csvfs/fmap.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define VICTIMS_MAX 32u
#define RETRIES 64

/* Parts of extents that are to be freed together, and the groups that takes. */
struct victims {
	uint32_t n, groups;
	bool more;			/* there is more in the range */
	struct extent e[VICTIMS_MAX];
	uint32_t group[ALLOC_GROUPS_MAX];
};

/* false: does not fit any more. */
static int victim_add(struct victims *v, struct btree *t, const struct extent *e, bool *ret_fits)
{
	uint32_t group[ALLOC_GROUPS_MAX], n = v->groups, g, k;
	int err;

	*ret_fits = false;
	if (v->n == VICTIMS_MAX)
		return 0;
	memcpy(group, v->group, sizeof(group));
	g = csv_group_of(&t->fs->geo, e->phys);
	for (k = 0; k < n && group[k] != g; k++)
		;
	if (k == n) {
		/* One is left for the nodes that a cut in the middle of an extent may need. */
		if (n + 1 >= ALLOC_GROUPS_MAX)
			return 0;
		group[n++] = g;
	}
	err = bt_path_groups(t, e->lblk, group, &n, ALLOC_GROUPS_MAX - 1);
	if (err == -E2BIG && v->n)
		return 0;
	if (err)
		return err;
	memcpy(v->group, group, sizeof(group));
	v->groups = n;
	v->e[v->n++] = *e;
	*ret_fits = true;
	return 0;
}

/* From the end of the file down to `keep`. */
static int gather_tail(struct btree *t, uint64_t keep, struct victims *v)
{
	uint64_t before = EXT_LBLK_END;

	*v = (struct victims){ .n = 0 };
	while (before > 0) {
		struct extent e;
		bool fits;
		int err = ext_prev(t, before - 1, &e);

		if (err == -ENOENT)
			return 0;
		if (err)
			return err;
		if (ext_end(&e) <= keep)
			return 0;
		before = e.lblk;
		if (e.lblk < keep) {
			e.phys += keep - e.lblk;
			e.len -= keep - e.lblk;
			e.lblk = keep;
		}
		err = victim_add(v, t, &e, &fits);
		if (err)
			return err;
		if (!fits) {
			v->more = true;
			return 0;
		}
	}
	return 0;
}

static int gather_range(struct btree *t, uint64_t first, uint64_t end, bool unwritten_only, struct victims *v)
{
	*v = (struct victims){ .n = 0 };
	for (uint64_t at = first; at < end;) {
		struct extent e;
		bool fits = true;
		int err = ext_map(t, at, &e);

		if (err)
			return err;
		e.len = csv_min(e.len, end - at);
		if (e.phys && !(unwritten_only && ext_is_written(&e)))
			err = victim_add(v, t, &e, &fits);
		if (err)
			return err;
		if (!fits) {
			v->more = true;
			return 0;
		}
		at = ext_end(&e);
	}
	return 0;
}

struct plan {
	struct victims v;
	struct alloc_resv resv;
	bool splits;			/* a cut in the middle of an extent */
};

/* Locks the groups.  plan_done() in any case. */
static int plan_lock(struct iref *r, struct plan *p)
{
	struct csvfs *fs = r->ip->fs;
	uint32_t nodes;
	struct btree t;
	int err = 0;

	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	nodes = p->splits ? ext_new_nodes(&t, 1) : 0;
	for (int i = 0; i < RETRIES; i++) {
		alloc_resv_init(fs, &p->resv);
		if (p->v.groups)
			err = alloc_lock_groups(&p->resv, p->v.group, p->v.groups);
		if (!err && nodes)
			err = alloc_reserve(&p->resv, r->ip->ino, nodes, 1, true);
		if (err != -EAGAIN)
			break;
		alloc_resv_done(&p->resv);
		coro_sleep_ns(fs->env->sched, NS_PER_MS);
	}
	for (uint32_t i = 0; !err && i < p->v.n; i++)
		err = alloc_may_give(&p->resv, p->v.e[i].phys, (uint32_t)p->v.e[i].len, CSV_BLK_DATA);
	if (err == -CSV_E_CORRUPT)
		fs_log(fs, LOG_L_ERR, "inode %llu: holds blocks that the bitmap does not call data; run fsck.csvfs",
		       (unsigned long long)r->ip->ino);
	return err;
}

/* Opens the transaction: with fewer victims where the log is too small for all. */
static int plan_begin(struct iref *r, struct plan *p, struct jnl_handle *ret_h)
{
	struct btree t;

	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	for (;;) {
		/* One item goes for each; a cut in the middle makes one more. */
		uint32_t items = p->v.n + (p->splits ? 2 : 0), revokes = bt_freed_nodes(&t, items);
		uint32_t blocks = 1 + bt_credits(&t, items) + alloc_credits(&p->resv, p->v.n + revokes + bt_new_nodes(&t, items));
		int err = op_begin(r->ip->fs, blocks, revokes, ret_h);

		if (err != -E2BIG || p->v.n <= 1)
			return err;
		p->v.n /= 2;
		p->v.more = true;
	}
}

static void plan_done(struct plan *p)
{
	alloc_resv_done(&p->resv);
}

/* Inside the transaction. */
static void plan_free(struct iref *r, struct jnl_handle *h, struct plan *p)
{
	struct inode *ip = r->ip;
	struct btree t;

	inode_tree(r, CSV_BT_EXTENTS, &p->resv, &t);
	for (uint32_t i = 0; i < p->v.n; i++) {
		const struct extent *e = &p->v.e[i];
		int err = ext_remove(&t, h, e->lblk, (uint32_t)e->len);

		if (!err)
			err = alloc_give(&p->resv, h, e->phys, (uint32_t)e->len, CSV_BLK_DATA);
		if (err) {
			op_broken(ip->fs, ip->ino, "freeing blocks", err);
			return;
		}
		ip->blocks -= (int64_t)e->len;
	}
	if (p->v.n)
		ip->map_version++;
}

/* Nothing is left: a small file may live in the inode again. */
static void drop_tree(struct iref *r)
{
	struct inode *ip = r->ip;

	if (ip->body != CSV_BODY_TREE || ip->size || ip->blocks || (ip->flags & CSV_INO_IMAGE) || !S_ISREG(ip->mode))
		return;
	ip->body = CSV_BODY_NONE;
	memset(inode_raw(r)->body_bytes, 0, CSV_BODY_BYTES);
}

/* One batch at and behind block `keep`; lower: the size follows what is freed, down to `size`. */
static int tail_batch(struct iref *r, uint64_t keep, bool lower, uint64_t size, bool *ret_done)
{
	struct csvfs *fs = r->ip->fs;
	struct jnl_handle h;
	struct btree t;
	struct plan p = { .splits = false };
	int err;

	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	err = gather_tail(&t, keep, &p.v);
	if (err)
		return err;
	if (p.v.n == 0 && (!lower || r->ip->size <= size)) {
		*ret_done = true;
		return 0;
	}
	err = plan_lock(r, &p);
	if (!err)
		err = plan_begin(r, &p, &h);
	if (!err) {
		inode_dirty(&h, r);
		plan_free(r, &h, &p);
		if (lower) {
			uint64_t left = p.v.more ? p.v.e[p.v.n - 1].lblk << CSV_BLOCK_SHIFT : size;

			r->ip->size = csv_min(r->ip->size, csv_max(left, size));
		}
		if (!p.v.more)
			drop_tree(r);
		inode_store(r);
		r->ip->commit_seq = op_end(fs, &h);
		*ret_done = !p.v.more;
	}
	plan_done(&p);
	return err;
}

int inode_free_blocks_batch(struct csvfs *fs, uint64_t ino, uint64_t target, bool *ret_done)
{
	struct iref r;
	int err = inode_get_held(fs, ino, &r);

	if (err)
		return err;
	if (r.ip->body != CSV_BODY_TREE || S_ISDIR(r.ip->mode)) {
		*ret_done = true;
	} else {
		inode_gate_close(r.ip);
		err = tail_batch(&r, fmap_blocks(target), true, target, ret_done);
		inode_gate_open(r.ip);
	}
	inode_put(&r);
	return err;
}

/* ---- truncate ------------------------------------------------------------------------------------------------------------------- */

struct resize { uint64_t size; };

static void set_inline_size(struct iref *r, void *arg)
{
	uint64_t size = ((struct resize *)arg)->size, old = r->ip->size;
	uint8_t *body = inode_raw(r)->body_bytes;

	if (size > old)
		memset(body + old, 0, size - old);
	else
		memset(body + size, 0, old - size);
	r->ip->body = size ? CSV_BODY_INLINE : CSV_BODY_NONE;
	r->ip->body_len = (uint32_t)size;
	r->ip->size = size;
	inode_touch(r->ip, INODE_T_MTIME | INODE_T_CTIME);
}

static void set_size(struct iref *r, void *arg)
{
	r->ip->size = ((struct resize *)arg)->size;
	inode_touch(r->ip, INODE_T_MTIME | INODE_T_CTIME);
}

static int grow(struct iref *r, uint64_t size)
{
	int err = fmap_make_tree(r);

	if (!err)
		err = fmap_settle(r);
	if (!err)
		err = fdata_zero_tail(r);
	return err ? err : fmap_change(r, set_size, &(struct resize){ size });
}

/* The new size and the intent; nothing is freed yet. */
static int intent_txn(struct iref *r, uint64_t size)
{
	struct csvfs *fs = r->ip->fs;
	struct alloc_resv resv;
	struct jnl_handle h;
	struct orphan_ref o;
	int err;

	err = orphan_lock(fs, fs->slot, &o);
	if (err)
		return err;
	alloc_resv_init(fs, &resv);
	err = alloc_reserve(&resv, r->ip->ino, orphan_new_blocks(&o), 1, true);
	if (!err)
		err = op_begin(fs, 1 + orphan_credits(&o) + alloc_credits(&resv, orphan_new_blocks(&o)), 0, &h);
	if (!err) {
		inode_dirty(&h, r);
		err = orphan_add(&o, &resv, &h, r->ip->ino, r->ip->gen, CSV_ORPHAN_TRUNCATE, size);
		if (!err) {
			r->ip->size = size;
			r->ip->orphan_slot = o.slot;
			inode_touch(r->ip, INODE_T_MTIME | INODE_T_CTIME);
		}
		inode_store(r);
		r->ip->commit_seq = op_end(fs, &h);
	}
	alloc_resv_done(&resv);
	orphan_unlock(&o);
	return err;
}

static int intent_done(struct iref *r)
{
	struct csvfs *fs = r->ip->fs;
	uint32_t group[ALLOC_GROUPS_MAX], n = 0;
	struct alloc_resv resv;
	struct jnl_handle h;
	struct orphan_ref o;
	int err;

	err = orphan_lock(fs, r->ip->orphan_slot, &o);
	if (err)
		return err;
	alloc_resv_init(fs, &resv);
	err = orphan_groups(&o, r->ip->ino, group, &n, ALLOC_GROUPS_MAX);
	if (!err && n)
		err = alloc_lock_groups(&resv, group, n);
	if (!err)
		err = op_begin(fs, 1 + orphan_credits(&o) + alloc_credits(&resv, orphan_revokes(&o)), orphan_revokes(&o), &h);
	if (!err) {
		inode_dirty(&h, r);
		err = orphan_del(&o, &resv, &h, r->ip->ino);
		if (err == -ENOENT)
			err = 0;
		if (!err)
			r->ip->orphan_slot = CSV_NO_SLOT;
		inode_store(r);
		r->ip->commit_seq = op_end(fs, &h);
	}
	alloc_resv_done(&resv);
	orphan_unlock(&o);
	return err;
}

int fmap_settle(struct iref *r)
{
	bool done = false;
	int err = 0;

	if (r->ip->orphan_slot == CSV_NO_SLOT || r->ip->nlink == 0)
		return 0;
	while (!err && !done && r->ip->body == CSV_BODY_TREE) {
		err = tail_batch(r, fmap_blocks(r->ip->size), false, 0, &done);
		coro_yield(r->ip->fs->env->sched);	/* everybody else on this thread has a turn */
	}
	return err ? err : intent_done(r);
}

/* All in one transaction.  -E2BIG: it does not fit. */
static int shrink_txn(struct iref *r, struct plan *p, uint64_t size)
{
	struct jnl_handle h;
	int err = plan_lock(r, p);

	if (!err)
		err = plan_begin(r, p, &h);
	if (!err && p->v.more) {
		op_end(r->ip->fs, &h);
		err = -E2BIG;
	}
	if (!err) {
		inode_dirty(&h, r);
		plan_free(r, &h, p);
		r->ip->size = size;
		inode_touch(r->ip, INODE_T_MTIME | INODE_T_CTIME);
		drop_tree(r);
		inode_store(r);
		r->ip->commit_seq = op_end(r->ip->fs, &h);
	}
	plan_done(p);
	return err;
}

static int shrink(struct iref *r, uint64_t size)
{
	struct inode *ip = r->ip;
	uint64_t keep = fmap_blocks(size);
	struct plan p = { .splits = false };
	bool done = false;
	struct btree t;
	int err;

	err = fmap_settle(r);
	if (err)
		return err;
	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	err = gather_tail(&t, keep, &p.v);
	if (err)
		return err;
	err = p.v.more ? -E2BIG : shrink_txn(r, &p, size);
	if (err != -E2BIG)
		return err;
	if (ip->nlink == 0) {
		for (err = 0; !err && !done; coro_yield(ip->fs->env->sched))
			err = tail_batch(r, keep, true, size, &done);
		return err ? err : fmap_change(r, set_size, &(struct resize){ size });
	}
	err = intent_txn(r, size);
	if (err)
		return err;
	/* The file has its new size; freeing is only a matter of time. */
	err = fmap_settle(r);
	if (err && fs_check(ip->fs) == 0) {
		orphan_reap_later(ip->fs, ip->orphan_slot, ip->ino);
		err = 0;
	}
	return err;
}

int trunc_set_size(struct iref *r, uint64_t size)
{
	struct inode *ip = r->ip;
	int err;

	if (size > CSV_FILE_SIZE_MAX)
		return -EFBIG;
	if (ip->body != CSV_BODY_TREE && size <= CSV_BODY_BYTES && !(ip->flags & CSV_INO_IMAGE))
		return fmap_change(r, set_inline_size, &(struct resize){ size });
	if (size > ip->size)
		return grow(r, size);
	err = fmap_make_tree(r);
	if (err)
		return err;
	ip->spec_first = ip->spec_end = 0;
	return shrink(r, size);
}

/* ---- punch ------------------------------------------------------------------------------------------------------------------------ */

static int free_range(struct iref *r, uint64_t first, uint64_t end, bool trim)
{
	struct csvfs *fs = r->ip->fs;

	if (r->ip->body != CSV_BODY_TREE)
		return 0;
	/* Every batch leaves a consistent file with a larger hole: no intent is needed. */
	for (;;) {
		struct plan p = { .splits = true };
		struct jnl_handle h;
		struct btree t;
		bool more;
		int err;

		inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
		err = gather_range(&t, first, end, trim, &p.v);
		if (err || p.v.n == 0)
			return err;
		err = plan_lock(r, &p);
		if (!err)
			err = plan_begin(r, &p, &h);
		if (!err) {
			inode_dirty(&h, r);
			plan_free(r, &h, &p);
			if (!trim)
				inode_touch(r->ip, INODE_T_MTIME | INODE_T_CTIME);
			inode_store(r);
			r->ip->commit_seq = op_end(fs, &h);
		}
		more = p.v.more;
		plan_done(&p);
		if (err || !more)
			return err;
		coro_yield(fs->env->sched);
	}
}

int trunc_punch(struct iref *r, uint64_t first, uint64_t end)
{
	return free_range(r, first, end, false);
}

int trunc_trim(struct iref *r, uint64_t first, uint64_t end)
{
	return free_range(r, first, end, true);
}
