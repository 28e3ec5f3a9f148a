/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * namei.c - making, linking and removing names (rename: rename.c).
 *
 * Every operation: directory EX -> entry -> inode EX -> orphan tree -> groups -> transaction -> change -> end.  Whatever can fail
 * (locks, reads, room) is done before the first change; a failure after it is op_broken() (IN5).
 *
 * Invariants
 *  NA1 An entry and the link count of the inode it names change in one transaction.
 *  NA2 The last link goes together with the entry in the orphan tree and inode.orphan_slot (R8); freeing is a matter of its own
 *      (orphan.c), after all locks of the operation were put.
 *  NA3 A new inode's lock is taken before the transaction that makes it, so nobody sees it half made.
 */
#include "csvfs/namei.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "csvfs/inode_pool.h"

typedef unsigned long long ull;

#define REAP_NOW_BLOCKS 4096	/* files up to 16 MiB give their space back before unlink returns */

int namei_dir_get(struct csvfs *fs, uint64_t dir, uint32_t gen, struct iref *ret)
{
	int err = inode_get(fs, dir, gen, DLM_EX, 0, ret);

	if (err)
		return err;
	err = !S_ISDIR(ret->ip->mode) ? -ENOTDIR : ret->ip->nlink == 0 ? -ENOENT :
	      ret->ip->flags & CSV_INO_IMMUTABLE ? -EPERM : 0;
	if (err)
		inode_put(ret);
	return err;
}

int namei_entry_get(struct iref *dir, const struct dir_entry *e, struct iref *ret)
{
	struct csvfs *fs = dir->ip->fs;
	int err = inode_get(fs, e->ino, e->gen, DLM_EX, INODE_TRUSTED, ret);

	if (!err && ret->ip->nlink > 0 && (ret->ip->mode & S_IFMT) == (uint32_t)e->type << 12) {
		/* An unfinished truncate ends here: it and the last unlink would both claim inode.orphan_slot. */
		err = fmap_settle(ret);
		if (err)
			inode_put(ret);
		return err;
	}
	if (err && err != -ESTALE)
		return err;
	fs_log(fs, LOG_L_ERR, "inode %llu: entry \"%s\" names inode %llu generation %u type %u, which is not there; run fsck.csvfs",
	       (ull)dir->ip->ino, e->name, (ull)e->ino, e->gen, e->type);
	if (!err)
		inode_put(ret);
	return -CSV_E_CORRUPT;
}

void namei_reap(struct csvfs *fs, const struct reap *r)
{
	if (!r->ino)
		return;
	/* Best effort: the entry in the orphan tree stays until somebody succeeds. */
	if (r->now)
		orphan_reap_now(fs, r->slot, r->ino);
	else
		orphan_reap_later(fs, r->slot, r->ino);
}

void namei_last_link(struct iref *r, uint32_t slot, struct reap *ret)
{
	r->ip->nlink = 0;
	r->ip->orphan_slot = slot;
	if (r->ip->opens)
		return;		/* csvfs_release() of the last handle does it */
	*ret = (struct reap){ .ino = r->ip->ino, .slot = slot, .now = r->ip->blocks <= REAP_NOW_BLOCKS };
}

/* ---- making ------------------------------------------------------------------------------------------------------------------- */

struct make {
	const char *name, *target;
	uint32_t mode, uid, gid;
	uint64_t rdev;
	bool open;
};

static uint64_t pick_hint(const struct iref *d, uint32_t mode)
{
	struct csvfs *fs = d->ip->fs;

	/* Directories of the root are trees of their own: spread.  Everything else near its directory. */
	if (S_ISDIR(mode) && d->ip->ino == fs->geo.root_ino)
		return csv_group_start(&fs->geo, (uint32_t)(env_rnd(fs->env) % fs->geo.groups)) + CSV_GROUP_FIRST_FREE;
	return d->ip->hint_blk ? d->ip->hint_blk : d->ip->ino + 1;
}

/* The target of a symbolic link: inline, or a block of its own when it is longer than the body. */
static int put_target(struct jnl_handle *h, struct alloc_resv *resv, struct iref *n, const char *target)
{
	size_t len = strlen(target);
	uint64_t blk, generation;
	struct btree t;
	uint32_t got;
	void *block;
	int err;

	n->ip->size = len;
	if (len <= CSV_BODY_BYTES) {
		n->ip->body = CSV_BODY_INLINE;
		n->ip->body_len = (uint32_t)len;
		memcpy(inode_raw(n)->body_bytes, target, len);
		return 0;
	}
	block = blk_alloc(CSV_BLOCK_SIZE);
	if (!block)
		return -ENOMEM;
	memset(block, 0, CSV_BLOCK_SIZE);
	memcpy(block, target, len);
	err = alloc_take(resv, h, n->ip->ino + 1, 1, CSV_BLK_DATA, &blk, &got, &generation);
	if (!err)
		err = blk_write(n->ip->fs->env->blk, blk << CSV_BLOCK_SHIFT, block, CSV_BLOCK_SIZE);
	free(block);
	if (err)
		return err;
	n->ip->body = CSV_BODY_TREE;
	bt_root_init(inode_raw(n)->body_bytes, CSV_BODY_BYTES, CSV_BT_EXTENTS);
	inode_tree(n, CSV_BT_EXTENTS, resv, &t);
	err = ext_insert(&t, h, 0, blk, 1, 0);
	n->ip->blocks++;
	jnl_publishes_data(h);
	return err;
}

static int make_txn(struct iref *d, struct iref *n, struct alloc_resv *resv, const struct dir_entry *slot, const struct make *m)
{
	struct csvfs *fs = d->ip->fs;
	bool is_dir = S_ISDIR(m->mode);
	struct inode_init init = { .mode = m->mode, .uid = m->uid, .gid = m->gid, .nlink = is_dir ? 2 : 1,
				   .rdev = S_ISCHR(m->mode) || S_ISBLK(m->mode) ? m->rdev : 0,
				   .parent = is_dir ? d->ip->ino : 0 };
	struct jnl_handle h;
	struct btree t;
	uint32_t runs;
	int err;

	if (d->ip->mode & S_ISGID) {
		init.gid = d->ip->gid;
		if (is_dir)
			init.mode |= S_ISGID;
	}
	inode_tree(d, CSV_BT_DIR, resv, &t);
	runs = bt_new_nodes(&t, 1) + 2;
	err = op_begin(fs, 2 + bt_credits(&t, 1) + alloc_credits(resv, runs), 0, &h);
	if (err)
		return err;
	err = inode_new(&h, resv, n, &init);
	if (err) {
		op_end(fs, &h);
		return err;
	}
	if (m->target) {
		err = put_target(&h, resv, n, m->target);
		inode_store(n);
	}
	if (!err) {
		inode_dirty(&h, d);
		err = dir_insert(&t, &h, slot->key, m->name, n->ip->ino, n->ip->gen, (uint8_t)(m->mode >> 12));
	}
	if (err)
		op_broken(fs, n->ip->ino, "making a name", err);
	d->ip->size++;
	d->ip->nlink += is_dir;
	d->ip->hint_blk = n->ip->ino + 1;
	inode_touch(d->ip, INODE_T_MTIME | INODE_T_CTIME);
	inode_store(d);
	d->ip->commit_seq = n->ip->commit_seq = op_end(fs, &h);
	return err;
}

/* Room for a new inode in this directory, and its number, locked.  Waits without any group (IP2). */
static int make_room(struct iref *d, uint32_t mode, struct alloc_resv *resv, struct iref *n)
{
	struct csvfs *fs = d->ip->fs;
	uint64_t hint = pick_hint(d, mode);
	unsigned rounds = 0;
	struct btree t;
	int err;

	inode_tree(d, CSV_BT_DIR, NULL, &t);
	for (;;) {
		err = alloc_reserve(resv, hint, 2 + bt_new_nodes(&t, 1), 1, false);
		if (!err)
			err = inode_pool_take(fs, resv, hint, n);
		if (err != -EAGAIN)
			return err;
		alloc_resv_done(resv);
		err = inode_pool_wait(fs, hint, &rounds, n);
		if (err)
			return err;
		if (n->ip)
			hint = n->ip->ino;
	}
}

static int make(struct csvfs *fs, uint64_t dir, uint32_t gen, const struct make *m, struct csvfs_attr *ret)
{
	struct iref d = IREF_INIT, n = IREF_INIT;
	struct alloc_resv resv;
	struct dir_entry e;
	size_t len;
	int err;

	err = fs_check_write(fs);
	if (!err)
		err = dir_name_check(m->name, &len);
	if (err)
		return err;
	err = namei_dir_get(fs, dir, gen, &d);
	if (err)
		return err;
	alloc_resv_init(fs, &resv);
	err = dir_find(&d, m->name, &e);
	if (err != -ENOENT) {
		err = err ? err : -EEXIST;
		goto out;
	}
	err = S_ISDIR(m->mode) && d.ip->nlink >= CSV_LINK_MAX ? -EMLINK : 0;
	if (err)
		goto out;
	err = make_room(&d, m->mode, &resv, &n);
	if (err)
		goto out;
	err = make_txn(&d, &n, &resv, &e, m);
	if (!err && m->open) {
		n.ip->opens = 1;
		csv_assert(glock_ref(fs, OWN_INODE(n.ip->ino)) == n.ip->gl);
	}
	if (!err)
		inode_to_attr(n.ip, ret);
out:
	alloc_resv_done(&resv);
	inode_put(&n);
	inode_put(&d);
	return err;
}

int csvfs_create(struct csvfs *fs, uint64_t dir, uint32_t gen, const char *name, uint32_t mode, uint32_t uid, uint32_t gid,
		 uint64_t rdev, bool open, struct csvfs_attr *ret)
{
	struct make m = { .name = name, .mode = mode & (S_IFMT | 07777), .uid = uid, .gid = gid, .rdev = rdev, .open = open };

	switch (mode & S_IFMT) {
	case 0:
		m.mode |= S_IFREG;
		break;
	case S_IFREG: case S_IFDIR: case S_IFIFO: case S_IFSOCK: case S_IFCHR: case S_IFBLK:
		break;
	default:
		return -EINVAL;
	}
	return make(fs, dir, gen, &m, ret);
}

int csvfs_symlink(struct csvfs *fs, uint64_t dir, uint32_t gen, const char *name, const char *target, uint32_t uid, uint32_t gid,
		  struct csvfs_attr *ret)
{
	struct make m = { .name = name, .target = target, .mode = S_IFLNK | 0777, .uid = uid, .gid = gid };
	size_t len = strlen(target);

	if (len == 0)
		return -ENOENT;
	if (len > CSV_SYMLINK_MAX)
		return -ENAMETOOLONG;
	return make(fs, dir, gen, &m, ret);
}

int csvfs_readlink(struct csvfs *fs, uint64_t ino, uint32_t gen, char *buf, size_t size)
{
	struct iref r;
	int err;

	err = inode_get(fs, ino, gen, DLM_PR, 0, &r);
	if (err)
		return err;
	if (!S_ISLNK(r.ip->mode)) {
		err = -EINVAL;
	} else if (r.ip->size >= size) {
		err = -ENAMETOOLONG;
	} else if (r.ip->body == CSV_BODY_INLINE) {
		memcpy(buf, inode_raw(&r)->body_bytes, r.ip->size);
	} else {
		void *block = blk_alloc(CSV_BLOCK_SIZE);
		struct extent e;
		struct btree t;

		inode_tree(&r, CSV_BT_EXTENTS, NULL, &t);
		err = block ? ext_map(&t, 0, &e) : -ENOMEM;
		if (!err && !ext_is_written(&e)) {
			fs_log(fs, LOG_L_ERR, "inode %llu: a symbolic link without a target; run fsck.csvfs", (ull)ino);
			err = -CSV_E_CORRUPT;
		}
		if (!err)
			err = blk_read(fs->env->blk, e.phys << CSV_BLOCK_SHIFT, block, CSV_BLOCK_SIZE);
		if (!err)
			memcpy(buf, block, r.ip->size);
		free(block);
	}
	if (!err)
		buf[r.ip->size] = 0;
	inode_put(&r);
	return err;
}

/* ---- one more name ---------------------------------------------------------------------------------------------------------------- */

static int link_txn(struct iref *d, struct iref *r, struct alloc_resv *resv, uint64_t key, const char *name)
{
	struct csvfs *fs = d->ip->fs;
	struct jnl_handle h;
	struct btree t;
	int err;

	inode_tree(d, CSV_BT_DIR, resv, &t);
	err = op_begin(fs, 2 + bt_credits(&t, 1) + alloc_credits(resv, bt_new_nodes(&t, 1)), 0, &h);
	if (err)
		return err;
	inode_dirty(&h, d);
	err = dir_insert(&t, &h, key, name, r->ip->ino, r->ip->gen, (uint8_t)(r->ip->mode >> 12));
	if (!err) {
		d->ip->size++;
		inode_touch(d->ip, INODE_T_MTIME | INODE_T_CTIME);
		inode_store(d);
		inode_dirty(&h, r);
		r->ip->nlink++;
		inode_touch(r->ip, INODE_T_CTIME);
		inode_store(r);
	}
	d->ip->commit_seq = r->ip->commit_seq = op_end(fs, &h);
	return err;
}

int csvfs_link(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t dir, uint32_t dir_gen, const char *name, struct csvfs_attr *ret)
{
	struct iref d = IREF_INIT, r = IREF_INIT;
	struct csvfs_attr a;
	struct alloc_resv resv;
	struct dir_entry e;
	uint32_t nodes;
	size_t len;
	int err;

	err = fs_check_write(fs);
	if (!err)
		err = dir_name_check(name, &len);
	/* A type never changes; a directory's lock must not be asked for behind the other's (lock order). */
	if (!err)
		err = csvfs_getattr(fs, ino, gen, &a);
	if (!err && (ino == dir || S_ISDIR(a.mode)))
		err = -EPERM;
	if (err)
		return err;
	err = namei_dir_get(fs, dir, dir_gen, &d);
	if (err)
		return err;
	alloc_resv_init(fs, &resv);
	err = dir_find(&d, name, &e);
	if (err != -ENOENT) {
		err = err ? err : -EEXIST;
		goto out;
	}
	err = inode_get(fs, ino, a.gen, DLM_EX, 0, &r);
	if (err)
		goto out;
	err = r.ip->nlink == 0 ? -ENOENT : r.ip->nlink >= CSV_LINK_MAX ? -EMLINK : r.ip->flags & CSV_INO_IMMUTABLE ? -EPERM : 0;
	if (err)
		goto out;
	err = dir_new_nodes(&d, e.key, name, &nodes);
	if (!err)
		err = alloc_reserve(&resv, d.ip->ino, nodes, 1, false);
	if (!err)
		err = link_txn(&d, &r, &resv, e.key, name);
	if (!err)
		inode_to_attr(r.ip, ret);
out:
	alloc_resv_done(&resv);
	inode_put(&r);
	inode_put(&d);
	return err;
}

/* ---- one name less ------------------------------------------------------------------------------------------------------------------ */

static int remove_txn(struct iref *d, struct iref *r, struct orphan_ref *o, struct alloc_resv *resv, uint64_t key, struct reap *reap)
{
	struct csvfs *fs = d->ip->fs;
	bool is_dir = S_ISDIR(r->ip->mode), last = o != NULL;
	uint32_t blocks, revokes, runs;
	struct jnl_handle h;
	struct btree t;
	int err;

	inode_tree(d, CSV_BT_DIR, resv, &t);
	revokes = bt_freed_nodes(&t, 1);
	runs = revokes + (last ? orphan_new_blocks(o) : 0);
	blocks = 2 + bt_credits(&t, 1) + (last ? orphan_credits(o) : 0);
	err = op_begin(fs, blocks + alloc_credits(resv, runs), revokes, &h);
	if (err)
		return err;
	inode_dirty(&h, d);
	err = bt_delete(&t, &h, key);
	if (err)
		goto out;
	inode_dirty(&h, r);
	if (last) {
		err = orphan_add(o, resv, &h, r->ip->ino, r->ip->gen, CSV_ORPHAN_UNLINKED, 0);
		if (err)
			op_broken(fs, r->ip->ino, "removing a name", err);
		namei_last_link(r, o->slot, reap);
	} else {
		r->ip->nlink--;
	}
	d->ip->size--;
	d->ip->nlink -= is_dir;
	inode_touch(d->ip, INODE_T_MTIME | INODE_T_CTIME);
	inode_store(d);
	inode_touch(r->ip, INODE_T_CTIME);
	inode_store(r);
out:
	d->ip->commit_seq = r->ip->commit_seq = op_end(fs, &h);
	return err;
}

static int remove_name(struct csvfs *fs, uint64_t dir, uint32_t gen, const char *name, bool want_dir)
{
	struct iref d = IREF_INIT, r = IREF_INIT;
	uint32_t group[ALLOC_GROUPS_MAX], n = 0;
	struct orphan_ref o;
	struct reap reap = { .ino = 0 };
	struct alloc_resv resv;
	struct dir_entry e;
	struct btree t;
	bool last, locked = false;
	int err;

	err = namei_dir_get(fs, dir, gen, &d);
	if (err)
		return err;
	alloc_resv_init(fs, &resv);
	err = dir_find(&d, name, &e);
	if (err == -ENOSPC)
		err = -ENOENT;
	if (!err && want_dir != (e.type == S_IFDIR >> 12))
		err = want_dir ? -ENOTDIR : -EISDIR;
	if (!err)
		err = namei_entry_get(&d, &e, &r);
	if (err)
		goto out;
	if (want_dir && r.ip->size)
		err = -ENOTEMPTY;
	else if (r.ip->flags & CSV_INO_IMMUTABLE)
		err = -EPERM;
	if (err)
		goto out;
	last = want_dir || r.ip->nlink == 1;
	inode_tree(&d, CSV_BT_DIR, NULL, &t);
	err = bt_path_groups(&t, e.key, group, &n, ALLOC_GROUPS_MAX - 1);
	if (!err && last)
		err = alloc_call_groups(fs, group, n);	/* OR5 */
	if (!err && last)
		err = orphan_lock(fs, fs->slot, &o);
	if (err)
		goto out;
	locked = last;
	if (n)
		err = alloc_lock_groups(&resv, group, n);
	if (!err && last)
		err = alloc_reserve(&resv, d.ip->ino, orphan_new_blocks(&o), 1, true);
	if (!err)
		err = remove_txn(&d, &r, last ? &o : NULL, &resv, e.key, &reap);
out:
	alloc_resv_done(&resv);
	if (locked)
		orphan_unlock(&o);
	inode_put(&r);
	inode_put(&d);
	namei_reap(fs, &reap);
	return err;
}

int csvfs_unlink(struct csvfs *fs, uint64_t dir, uint32_t gen, const char *name)
{
	size_t len;
	int err = fs_check_write(fs);

	if (!err)
		err = dir_name_check(name, &len);
	if (err == -EEXIST)
		err = -EISDIR;
	return err ? err : remove_name(fs, dir, gen, name, false);
}

int csvfs_rmdir(struct csvfs *fs, uint64_t dir, uint32_t gen, const char *name)
{
	size_t len;
	int err = fs_check_write(fs);

	if (!err)
		err = dir_name_check(name, &len);
	if (err == -EEXIST)
		err = name[1] ? -ENOTEMPTY : -EINVAL;
	return err ? err : remove_name(fs, dir, gen, name, true);
}
