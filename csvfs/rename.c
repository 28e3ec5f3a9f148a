/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rename.c - one entry moves, replaces another, or two change places.
 *
 * Lock order among the up to four inodes:
 *	same directory		the directory; then source and target: directories first, then by number
 *	two directories		`rename` first: PR for a file (the shape of the tree stands still), EX for a directory (we change it);
 *				then the two directories by (depth, number): an ancestor is never asked for behind its descendant, and
 *				among unrelated ones the order is the same for everybody; then source and target as above.
 * With `rename` EX nobody else moves anything across directories, so a moved directory's lock, which may lie above the new parent's
 * depth, is waited for only by operations that go from a parent to its child.
 *
 * Names are looked up twice: first to know what has to be locked, then under the locks; when the answer changed, all is given back and
 * the whole begins again.
 */
#include "csvfs/namei.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define TRIES 64
#define DEPTH_MAX 1000000u

struct side {
	uint64_t dir;
	uint32_t dir_gen;
	const char *name;
	uint32_t depth;
	bool have;			/* the entry exists */
	struct dir_entry e;		/* key is free for it otherwise */
	struct iref d, r;		/* the directory; the inode of the entry */
};

struct rename {
	struct csvfs *fs;
	bool exchange, noreplace, same_dir, locked_orphans;
	struct side s, t;		/* source, target */
	struct glock_holder rename_gh;
	struct orphan_ref o;
	struct alloc_resv resv;
	struct reap reap;
};

static bool is_dir(const struct side *x) { return x->have && x->e.type == S_IFDIR >> 12; }
static bool entry_eq(const struct dir_entry *a, const struct dir_entry *b) { return a->ino == b->ino && a->gen == b->gen; }
static struct iref *dir_of(struct rename *r, struct side *x) { return r->same_dir ? &r->s.d : &x->d; }

static int find(struct iref *d, const char *name, struct dir_entry *ret, bool *ret_have)
{
	int err = dir_find(d, name, ret);

	*ret_have = err == 0;
	return err == -ENOENT ? 0 : err;
}

static int peek(struct rename *r, struct side *x)
{
	struct iref d;
	int err = inode_get(r->fs, x->dir, x->dir_gen, DLM_PR, 0, &d);

	if (err)
		return err;
	err = !S_ISDIR(d.ip->mode) ? -ENOTDIR : d.ip->nlink == 0 ? -ENOENT : find(&d, x->name, &x->e, &x->have);
	inode_put(&d);
	return err;
}

/* What the two names alone decide. */
static int check_names(const struct rename *r)
{
	if (!r->s.have)
		return -ENOENT;
	if (r->noreplace && r->t.have)
		return -EEXIST;
	if (r->exchange)
		return r->t.have ? 0 : -ENOENT;
	if (r->t.have && is_dir(&r->s) && !is_dir(&r->t))
		return -ENOTDIR;
	if (r->t.have && !is_dir(&r->s) && is_dir(&r->t))
		return -EISDIR;
	return 0;
}

/* From `x->dir` up to the root: its depth, and whether `ino` is on the way. */
static int walk_up(struct rename *r, struct side *x, uint64_t ino, bool *ret_met)
{
	uint64_t at = x->dir;

	*ret_met = false;
	for (x->depth = 0; x->depth < DEPTH_MAX; x->depth++) {
		struct iref d;
		uint64_t parent;
		int err;

		if (at == ino)
			*ret_met = true;
		err = inode_get(r->fs, at, at == x->dir ? x->dir_gen : 0, DLM_PR, 0, &d);
		if (err)
			return err;
		err = !S_ISDIR(d.ip->mode) ? -ENOTDIR : d.ip->nlink == 0 ? -ENOENT : 0;
		parent = d.ip->parent;
		inode_put(&d);
		if (err)
			return err;
		if (parent == at)
			return 0;
		at = parent;
	}
	fs_log(r->fs, LOG_L_ERR, "inode %llu: its parents go round in a circle; run fsck.csvfs", (unsigned long long)x->dir);
	return -CSV_E_CORRUPT;
}

static int lock_tree(struct rename *r)
{
	bool moves_dir = is_dir(&r->s) || (r->exchange && is_dir(&r->t)), met;
	int err;

	err = glock_get(r->fs, OWN_RENAME, moves_dir ? DLM_EX : DLM_PR, 0, &r->rename_gh);
	if (err)
		return err;
	err = walk_up(r, &r->t, is_dir(&r->s) ? r->s.e.ino : 0, &met);
	if (err || met)
		return err ? err : -EINVAL;	/* into itself */
	err = walk_up(r, &r->s, is_dir(&r->t) ? r->t.e.ino : 0, &met);
	if (err || met)
		return err ? err : r->exchange ? -EINVAL : -ENOTEMPTY;
	return 0;
}

static int lock_dirs(struct rename *r)
{
	struct side *first = &r->s, *second = &r->t;
	int err;

	if (r->same_dir)
		return namei_dir_get(r->fs, r->s.dir, r->s.dir_gen, &r->s.d);
	if (second->depth < first->depth || (second->depth == first->depth && second->dir < first->dir)) {
		first = &r->t;
		second = &r->s;
	}
	err = namei_dir_get(r->fs, first->dir, first->dir_gen, &first->d);
	return err ? err : namei_dir_get(r->fs, second->dir, second->dir_gen, &second->d);
}

/* -EAGAIN: not what was seen before. */
static int look_again(struct rename *r, struct side *x)
{
	struct dir_entry e;
	bool have;
	int err = find(dir_of(r, x), x->name, &e, &have);

	if (err)
		return err;
	if (have != x->have || (have && (!entry_eq(&e, &x->e) || e.type != x->e.type)))
		return -EAGAIN;
	x->e = e;
	return 0;
}

static int lock_inodes(struct rename *r)
{
	struct side *first = &r->s, *second = &r->t;
	int err;

	if (!r->t.have)
		return namei_entry_get(dir_of(r, &r->s), &r->s.e, &r->s.r);
	if (is_dir(second) > is_dir(first) || (is_dir(second) == is_dir(first) && second->e.ino < first->e.ino)) {
		first = &r->t;
		second = &r->s;
	}
	err = namei_entry_get(dir_of(r, first), &first->e, &first->r);
	return err ? err : namei_entry_get(dir_of(r, second), &second->e, &second->r);
}

static bool target_goes(const struct rename *r) { return r->t.have && !r->exchange; }
static bool target_last(const struct rename *r) { return target_goes(r) && (is_dir(&r->t) || r->t.r.ip->nlink == 1); }

static int check_inodes(struct rename *r)
{
	if (r->s.r.ip->flags & CSV_INO_IMMUTABLE)
		return -EPERM;
	if (r->t.have && r->t.r.ip->flags & CSV_INO_IMMUTABLE)
		return -EPERM;
	if (target_goes(r) && is_dir(&r->t) && r->t.r.ip->size)
		return -ENOTEMPTY;
	if (!r->same_dir && is_dir(&r->s) && !is_dir(&r->t) && r->t.d.ip->nlink >= CSV_LINK_MAX)
		return -EMLINK;
	if (!r->same_dir && r->exchange && is_dir(&r->t) && !is_dir(&r->s) && r->s.d.ip->nlink >= CSV_LINK_MAX)
		return -EMLINK;
	return 0;
}

static int get_room(struct rename *r)
{
	uint32_t group[ALLOC_GROUPS_MAX], n = 0, nodes = 0;
	struct btree st;
	int err;

	if (target_last(r)) {
		err = orphan_lock(r->fs, r->fs->slot, &r->o);
		if (err)
			return err;
		r->locked_orphans = true;
	}
	inode_tree(dir_of(r, &r->s), CSV_BT_DIR, NULL, &st);
	err = bt_path_groups(&st, r->s.e.key, group, &n, ALLOC_GROUPS_MAX - 1);
	if (!err && n)
		err = alloc_lock_groups(&r->resv, group, n);
	if (!err && !r->t.have)		/* else an entry of the same length takes its place */
		err = dir_new_nodes(dir_of(r, &r->t), r->t.e.key, r->t.name, &nodes);
	if (err)
		return err;
	return alloc_reserve(&r->resv, dir_of(r, &r->t)->ip->ino,
			     nodes + (r->locked_orphans ? orphan_new_blocks(&r->o) : 0), 1, false);
}

/* ---- the change ------------------------------------------------------------------------------------------------------------- */

static int put_entry(struct rename *r, struct jnl_handle *h, struct side *at, const struct dir_entry *what)
{
	struct btree t;

	inode_tree(dir_of(r, at), CSV_BT_DIR, &r->resv, &t);
	return (at->have ? dir_replace : dir_insert)(&t, h, at->e.key, at->name, what->ino, what->gen, what->type);
}

static int swap(struct rename *r, struct jnl_handle *h)
{
	struct inode *sd = dir_of(r, &r->s)->ip, *td = dir_of(r, &r->t)->ip;
	int err;

	err = put_entry(r, h, &r->t, &r->s.e);
	if (err)
		return err;
	err = put_entry(r, h, &r->s, &r->t.e);
	if (err)
		return op_broken(r->fs, sd->ino, "exchanging two names", err);
	sd->nlink += is_dir(&r->t);
	sd->nlink -= is_dir(&r->s);
	td->nlink += is_dir(&r->s);
	td->nlink -= is_dir(&r->t);
	if (is_dir(&r->s))
		r->s.r.ip->parent = td->ino;
	if (is_dir(&r->t))
		r->t.r.ip->parent = sd->ino;
	return 0;
}

static int move(struct rename *r, struct jnl_handle *h)
{
	struct inode *sd = dir_of(r, &r->s)->ip, *td = dir_of(r, &r->t)->ip;
	struct btree t;
	int err;

	err = put_entry(r, h, &r->t, &r->s.e);
	if (err)
		return err;
	inode_tree(dir_of(r, &r->s), CSV_BT_DIR, &r->resv, &t);
	err = bt_delete(&t, h, r->s.e.key);
	if (!err && target_last(r))
		err = orphan_add(&r->o, &r->resv, h, r->t.e.ino, r->t.e.gen, CSV_ORPHAN_UNLINKED, 0);
	if (err)
		return op_broken(r->fs, sd->ino, "renaming", err);
	sd->size--;
	td->size += !r->t.have;
	sd->nlink -= is_dir(&r->s);
	td->nlink += is_dir(&r->s);
	td->nlink -= is_dir(&r->t);
	if (is_dir(&r->s))
		r->s.r.ip->parent = td->ino;
	if (target_last(r))
		namei_last_link(&r->t.r, r->o.slot, &r->reap);
	else if (r->t.have)
		r->t.r.ip->nlink--;
	return 0;
}

static void store(struct iref *x, unsigned times)
{
	if (!x->ip)
		return;
	inode_touch(x->ip, times);
	inode_store(x);
}

static int change(struct rename *r)
{
	struct iref *all[4] = { &r->s.d, &r->t.d, &r->s.r, &r->t.r };
	uint32_t blocks, revokes;
	struct jnl_handle h;
	struct btree st, tt;
	uint64_t seq;
	int err;

	inode_tree(dir_of(r, &r->s), CSV_BT_DIR, NULL, &st);
	inode_tree(dir_of(r, &r->t), CSV_BT_DIR, NULL, &tt);
	revokes = bt_freed_nodes(&st, 1);
	blocks = 4 + bt_credits(&st, 1) + bt_credits(&tt, 1) + (r->locked_orphans ? orphan_credits(&r->o) : 0) +
		 alloc_credits(&r->resv, revokes + bt_new_nodes(&tt, 1) + (r->locked_orphans ? orphan_new_blocks(&r->o) : 0));
	err = op_begin(r->fs, blocks, revokes, &h);
	if (err)
		return err;
	for (int i = 0; i < 4; i++)
		if (all[i]->ip)
			inode_dirty(&h, all[i]);
	err = r->exchange ? swap(r, &h) : move(r, &h);
	if (!err) {
		store(&r->s.d, INODE_T_MTIME | INODE_T_CTIME);
		store(&r->t.d, INODE_T_MTIME | INODE_T_CTIME);
		store(&r->s.r, INODE_T_CTIME);
		store(&r->t.r, INODE_T_CTIME);
	}
	seq = op_end(r->fs, &h);
	for (int i = 0; i < 4; i++)
		if (all[i]->ip)
			all[i]->ip->commit_seq = seq;
	return err;
}

static int once(struct rename *r)
{
	int err;

	err = peek(r, &r->s);
	if (!err && r->s.have)
		err = peek(r, &r->t);
	if (!err)
		err = check_names(r);
	if (err)
		return err;
	if (r->t.have && entry_eq(&r->s.e, &r->t.e))
		return 0;		/* two names of one inode: nothing to do (POSIX) */
	if (!r->same_dir)
		err = lock_tree(r);
	if (!err)
		err = lock_dirs(r);
	if (!err)
		err = look_again(r, &r->s);
	if (!err)
		err = look_again(r, &r->t);
	if (!err)
		err = lock_inodes(r);
	if (!err)
		err = check_inodes(r);
	if (!err)
		err = get_room(r);
	return err ? err : change(r);
}

static void unlock(struct rename *r)
{
	alloc_resv_done(&r->resv);
	if (r->locked_orphans)
		orphan_unlock(&r->o);
	r->locked_orphans = false;
	inode_put(&r->t.r);
	inode_put(&r->s.r);
	inode_put(&r->t.d);
	inode_put(&r->s.d);
	glock_put(&r->rename_gh);
	r->rename_gh = (struct glock_holder){ .gl = NULL };
}

int csvfs_rename(struct csvfs *fs, uint64_t od, uint32_t od_gen, const char *on, uint64_t nd, uint32_t nd_gen, const char *nn,
		 unsigned flags)
{
	struct rename r = { .fs = fs, .exchange = flags & RENAME_EXCHANGE, .noreplace = flags & RENAME_NOREPLACE,
			    .same_dir = od == nd,
			    .s = { .dir = od, .dir_gen = od_gen, .name = on }, .t = { .dir = nd, .dir_gen = nd_gen, .name = nn } };
	size_t len;
	int err;

	if (flags & ~(unsigned)(RENAME_EXCHANGE | RENAME_NOREPLACE) || (r.exchange && r.noreplace))
		return -EINVAL;
	err = fs_check_write(fs);
	if (!err)
		err = dir_name_check(on, &len);
	if (!err)
		err = dir_name_check(nn, &len);
	if (err)
		return err == -EEXIST ? (r.noreplace ? -EEXIST : -EBUSY) : err;
	for (int i = 0; i < TRIES; i++) {
		alloc_resv_init(fs, &r.resv);
		err = once(&r);
		unlock(&r);
		if (err != -EAGAIN)
			break;
	}
	namei_reap(fs, &r.reap);
	return err == -EAGAIN ? -EBUSY : err;
}
