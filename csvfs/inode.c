/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * inode.c - taking inodes, what their locks carry, making new ones.  Invariants in inode.h; the disk form is in inode_disk.c.
 *
 * What an inode's lock does when it leaves this node (glock coroutine, no holder present):
 *
 *	gate_close	the data plane stops and drains what the new mode does not allow; to NL: open files get their lock
 *	before_release	leaving EX: the time of in-place writes goes into the block (a transaction of its own)
 *	fill_lvb	attributes -> value block: `stat` elsewhere needs no I/O
 *	inval		to NL: attributes are forgotten; the kernel's caches go
 */
#include "csvfs/inode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "csvfs/image.h"
#include "csvfs/inode_table.h"
#include "csvfs/publish.h"

#define GEN_MASK 0x3fffffu	/* what fits into a node id beside the number (R29) */

/* ---- the table ------------------------------------------------------------------------------------------------------------- */

int inode_table_init(struct csvfs *fs)
{
	fs->inodes = calloc(1, sizeof(*fs->inodes));
	if (!fs->inodes)
		return -ENOMEM;
	waitq_init(&fs->inodes->flush_wq);
	return 0;
}

void inode_table_free(struct csvfs *fs)
{
	free(fs->inodes);
	fs->inodes = NULL;
}

static struct inode *inode_of(struct glock *gl)
{
	struct inode *ip = gl->obj;

	if (ip)
		return ip;
	ip = calloc(1, sizeof(*ip));
	if (!ip)
		return NULL;
	ip->fs = gl->fs;
	ip->gl = gl;
	ip->ino = gl->owner.id;
	ip->orphan_slot = CSV_NO_SLOT;
	co_mutex_init(&ip->open_mx);
	co_mutex_init(&ip->use_mx);
	co_mutex_init(&ip->vraw_mx);
	gl->obj = ip;
	return ip;
}

static void forget(struct inode *ip)
{
	ip->loaded = ip->verified = ip->has_body = ip->freed = ip->alone = false;
}

/* The in-core inode of a reference; made when it is not there yet. */
struct inode *inode_of_glock(struct glock *gl)
{
	return inode_of(gl);
}

/* ---- glock hooks ------------------------------------------------------------------------------------------------------------- */

static void lock_gate_close(struct glock *gl, enum dlm_mode to)
{
	const struct inode *ip = gl->obj;

	if (!ip)
		return;
	/* In place an image may be used under CW as under EX (R25), and its blocks stay where they are. */
	if (to == DLM_CW && ip->flags & CSV_INO_IMAGE)
		inode_dp_collect(gl->obj);
	else
		inode_dp_revoke(gl->obj);
	if (to == DLM_NL)
		inode_keep_open(gl->obj);
}

static void lock_before_release(struct glock *gl, enum dlm_mode to)
{
	struct inode *ip = gl->obj;
	struct iref r = { .ip = ip };
	struct jnl_handle h;

	(void)to;
	if (ip)
		image_before_release(ip);
	if (gl->mode != DLM_EX || !ip || !ip->loaded || ip->freed || ip->pending_mtime_ns == 0)
		return;
	/* A failure loses a time stamp: the lock must go all the same. */
	if (buf_read(gl->fs, ip->ino, OWN_INODE(ip->ino), CSV_MAGIC_INODE, &r.buf))
		return;
	if (op_begin(gl->fs, 1, 0, &h) == 0) {
		inode_dirty(&h, &r);
		inode_touch(ip, INODE_T_CTIME);
		inode_store(&r);
		ip->commit_seq = op_end(gl->fs, &h);
	}
	buf_put(gl->fs, r.buf);
}

static void lock_fill_lvb(struct glock *gl, uint8_t *lvb)
{
	struct inode *ip = gl->obj;

	memset(lvb, 0, DLM_LVB_LEN);
	if (ip)
		ip->alone = false;
	if (ip && ip->loaded && !ip->freed)
		inode_to_lvb(ip, (struct csv_lvb_inode *)lvb);
}

static void lock_inval(struct glock *gl, enum dlm_mode to)
{
	struct csvfs *fs = gl->fs;
	struct inode *ip = gl->obj;
	bool data;

	if (!ip)
		return;
	/* Under CW or CR others may write data; attributes change only under EX, which they exclude. */
	data = S_ISREG(ip->mode) && to < DLM_PR;
	if (fs->ev.invalidate && ip->loaded && (to == DLM_NL || data))
		fs->ev.invalidate(fs->ev.arg, ip->ino, data);
	if (to == DLM_NL)
		forget(ip);
}

static void lock_free(struct glock *gl)
{
	struct inode *ip = gl->obj;

	if (!ip)
		return;
	inode_dp_free(ip);
	free(ip);
	gl->obj = NULL;
}

const struct glock_ops inode_glock_ops = {
	.gate_close = lock_gate_close,
	.before_release = lock_before_release,
	.fill_lvb = lock_fill_lvb,
	.inval = lock_inval,
	.free = lock_free,
};

void inode_forget(struct csvfs *fs, uint64_t ino)
{
	struct glock *gl = glock_find(fs, OWN_INODE(ino));
	struct inode *ip = gl ? gl->obj : NULL;

	if (!ip)
		return;
	forget(ip);
	ip->freed = true;		/* fill_lvb: says nothing from now on */
	ip->pending_mtime_ns = 0;
	ip->spec_first = ip->spec_end = 0;
}

/* ---- taking one ---------------------------------------------------------------------------------------------------------------- */

static bool may_be_inode(const struct csvfs *fs, uint64_t ino)
{
	return ino < CSV_INO_MAX && csv_blk_is_allocatable(&fs->geo, ino);
}

/* IN1, IN2.  The lock is held in some mode. */
static int load(struct inode *ip, uint32_t gen, unsigned flags, struct iref *r)
{
	struct csvfs *fs = ip->fs;
	uint8_t lvb[DLM_LVB_LEN];
	struct csv_err err = CSV_ERR_INIT;
	struct buf *b;
	int e;

	if (ip->freed)
		return -ESTALE;
	if (!ip->loaded && glock_lvb(ip->gl, lvb))
		inode_from_lvb((const struct csv_lvb_inode *)lvb, ip);
	if (ip->loaded && gen && ip->gen != gen)
		return -ESTALE;
	if (ip->loaded && (flags & INODE_ATTR))
		return 0;
	if (!ip->verified && !(flags & INODE_TRUSTED)) {
		enum csv_blk_state st;

		e = alloc_state(fs, ip->ino, &st);
		if (e)
			return e;
		if (st != CSV_BLK_INODE)
			return -ESTALE;
	}
	e = buf_read(fs, ip->ino, OWN_INODE(ip->ino), CSV_MAGIC_INODE, &b);
	if (e)
		return e;
	if (!ip->loaded || !ip->has_body) {
		e = inode_decode(buf_data(b), ip->ino, ip, &err);
		if (!e && ip->flags & CSV_INO_ORPHANS)
			e = csv_err_set(&err, -CSV_E_CORRUPT, "inode %llu: flags: an orphan tree where a file must be",
					(unsigned long long)ip->ino);
		if (e) {
			fs_log(fs, LOG_L_ERR, "%s; run fsck.csvfs", err.text);
			buf_put(fs, b);
			return e;
		}
		ip->loaded = true;
	}
	ip->verified = true;
	if (gen && ip->gen != gen) {
		buf_put(fs, b);
		return -ESTALE;
	}
	r->buf = b;
	return 0;
}

int inode_get(struct csvfs *fs, uint64_t ino, uint32_t gen, enum dlm_mode mode, unsigned flags, struct iref *ret)
{
	int err;

	*ret = IREF_INIT;
	err = fs_check(fs);
	if (err)
		return err;
	if (!may_be_inode(fs, ino))
		return -ESTALE;
	err = glock_get(fs, OWN_INODE(ino), mode,
			(flags & INODE_NOQUEUE ? GLOCK_NOQUEUE : 0) | (flags & INODE_NOINTR ? GLOCK_NOINTR : 0) |
			(mode == DLM_CR && flags & INODE_ATTR ? GLOCK_PR_WELCOME : 0), &ret->gh);
	if (err) {
		*ret = IREF_INIT;
		return err;
	}
	ret->ip = inode_of(ret->gh.gl);
	err = ret->ip ? load(ret->ip, gen, flags, ret) : -ENOMEM;
	if (err)
		inode_put(ret);
	return err;
}

int inode_get_held(struct csvfs *fs, uint64_t ino, struct iref *ret)
{
	struct glock *gl = glock_find(fs, OWN_INODE(ino));

	csv_assertf(gl && gl->mode == DLM_EX, "inode %llu is not locked", (unsigned long long)ino);
	*ret = IREF_INIT;
	ret->ip = inode_of(gl);
	return ret->ip ? load(ret->ip, 0, INODE_TRUSTED, ret) : -ENOMEM;
}

void inode_put(struct iref *r)
{
	if (r->buf)
		buf_put(r->ip->fs, r->buf);
	glock_put(&r->gh);
	*r = IREF_INIT;
}

void inode_to_attr(const struct inode *ip, struct csvfs_attr *ret)
{
	*ret = (struct csvfs_attr){
		.ino = ip->ino, .gen = ip->gen, .mode = ip->mode, .uid = ip->uid, .gid = ip->gid, .nlink = ip->nlink,
		.flags = ip->flags, .size = ip->size, .blocks_512 = (uint64_t)ip->blocks * (CSV_BLOCK_SIZE / 512),
		.rdev = ip->rdev, .change = ip->change, .atime_ns = ip->atime_ns,
		.mtime_ns = ip->mtime_ns, .ctime_ns = ip->ctime_ns, .btime_ns = ip->btime_ns,
	};
	if (ip->pending_mtime_ns) {
		ret->mtime_ns = csv_max(ip->mtime_ns, ip->pending_mtime_ns);
		ret->ctime_ns = csv_max(ip->ctime_ns, ip->pending_mtime_ns);
	}
}

/* ---- changing ------------------------------------------------------------------------------------------------------------------ */

int op_begin(struct csvfs *fs, uint32_t blocks, uint32_t revokes, struct jnl_handle *ret_h)
{
	uint32_t *flags = coro_flags(fs->env->sched);
	int err;

	csv_assert(!(*flags & CORO_IN_TXN));
	err = jnl_begin(fs->jnl, blocks, revokes, ret_h);
	if (!err)
		*flags |= CORO_IN_TXN;
	return err;
}

uint64_t op_end(struct csvfs *fs, struct jnl_handle *h)
{
	*coro_flags(fs->env->sched) &= ~CORO_IN_TXN;
	return jnl_end(h);
}

int op_broken(struct csvfs *fs, uint64_t ino, const char *what, int err)
{
	fs_withdraw(fs, "inode %llu: %s failed half way (%s); unmount, run fsck.csvfs, mount again", (unsigned long long)ino,
		    what, csv_err_describe(err));
	return err;
}

struct csv_inode *inode_raw(struct iref *r)
{
	csv_assert(r->buf);
	return buf_data(r->buf);
}

void inode_dirty(struct jnl_handle *h, struct iref *r)
{
	csv_assert(r->buf);
	buf_dirty(h, r->buf);
}

void inode_store(struct iref *r)
{
	struct inode *ip = r->ip;

	if (ip->pending_mtime_ns) {
		ip->mtime_ns = csv_max(ip->mtime_ns, ip->pending_mtime_ns);
		ip->ctime_ns = csv_max(ip->ctime_ns, ip->pending_mtime_ns);
		ip->pending_mtime_ns = 0;
	}
	inode_encode(ip, buf_data(r->buf));
}

int64_t inode_now(struct inode *ip)
{
	return csv_max((int64_t)clock_real_ns(ip->fs->env->clock), ip->ctime_ns + 1);
}

void inode_touch(struct inode *ip, unsigned which)
{
	int64_t now = inode_now(ip);

	/* ctime only ever grows, so mtime taken from it does too - unless a user set mtime by hand. */
	ip->ctime_ns = now;
	if (which & INODE_T_MTIME) {
		ip->mtime_ns = now;
		ip->pending_mtime_ns = 0;
	}
	ip->change++;
}

void inode_tree(struct iref *r, enum csv_bt_kind kind, struct alloc_resv *resv, struct btree *ret)
{
	csv_assert(r->buf && r->ip->body == CSV_BODY_TREE);
	*ret = (struct btree){
		.fs = r->ip->fs, .root = r->buf, .area_off = offsetof(struct csv_inode, body_bytes),
		.area_len = CSV_BODY_BYTES, .owner = OWN_INODE(r->ip->ino), .kind = kind, .resv = resv,
		.blocks = &r->ip->blocks,
	};
}

/* ---- a new one ------------------------------------------------------------------------------------------------------------------ */

int inode_new(struct jnl_handle *h, struct alloc_resv *resv, struct iref *r, const struct inode_init *init)
{
	struct inode *ip = r->ip;
	uint64_t blk, generation;
	uint32_t len;
	int err;

	err = alloc_take(resv, h, ip->ino, 1, CSV_BLK_INODE, &blk, &len, &generation);
	if (err)
		return err;
	csv_assertf(blk == ip->ino, "took block %llu for inode %llu", (unsigned long long)blk, (unsigned long long)ip->ino);
	err = buf_new(ip->fs, h, blk, OWN_INODE(blk), CSV_MAGIC_INODE, generation, &r->buf);
	if (err)
		return op_broken(ip->fs, blk, "making the inode's block", err);
	/* The group's counter makes a generation unique among the lives of this block. */
	ip->gen = (uint32_t)generation & GEN_MASK ? (uint32_t)generation & GEN_MASK : 1;
	ip->mode = init->mode;
	ip->uid = init->uid;
	ip->gid = init->gid;
	ip->nlink = init->nlink;
	ip->flags = init->flags;
	ip->size = 0;
	ip->blocks = 0;
	ip->ctime_ns = 0;
	ip->pending_mtime_ns = 0;
	ip->ctime_ns = ip->mtime_ns = ip->atime_ns = ip->btime_ns = inode_now(ip);
	ip->change = 1;
	ip->map_version = 1;
	ip->parent = init->parent;
	ip->rdev = init->rdev;
	ip->orphan_slot = CSV_NO_SLOT;
	ip->project = 0;
	ip->body = CSV_BODY_NONE;
	ip->body_len = 0;
	ip->spec_first = ip->spec_end = 0;
	ip->data_gen = ip->data_flushed = 0;
	ip->freed = false;
	ip->loaded = ip->verified = ip->has_body = ip->alone = true;
	if (S_ISDIR(ip->mode)) {
		ip->body = CSV_BODY_TREE;
		bt_root_init(inode_raw(r)->body_bytes, CSV_BODY_BYTES, CSV_BT_DIR);
	}
	inode_store(r);
	return 0;
}
