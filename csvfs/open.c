/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * open.c - open handles of this node and fsync.
 *
 * Whoever frees an orphan holds `inode i` EX and then `open i` EX (R8).  So as long as this node has any mode of `inode i`, what is open
 * here cannot be freed, and an open costs no lock of its own.  `open i` PR is taken when `inode i` is about to leave this node while
 * the file is open here, before it leaves:
 *
 *	here (open, inode i CR)			freer elsewhere
 *						inode i EX: waits for us
 *	asked for inode i
 *	open i PR: granted without waiting,
 *	  an EX holder would have inode i
 *	inode i NL				granted
 *						open i EX, noqueue: refused, left to the last close
 *
 * The other order cannot be: a freer that has open i EX has inode i EX, so nobody can open the file, and who asks then finds -ESTALE.
 *
 * Invariant OP1: opens > 0 implies that this node has `inode i` >= CR or `open i` PR.
 */
#include "csvfs/fmap.h"

#include <errno.h>
#include <sys/stat.h>

#include "csvfs/inode_table.h"
#include "csvfs/publish.h"

#define RETRY_NS (10 * NS_PER_MS)

/* Who opens a file reads it: PR at once instead of CR now and PR later (R6), but not where CW is what readers take (R25). */
static int get_for_open(struct csvfs *fs, struct inode *ip, uint32_t gen, struct iref *ret)
{
	int err = inode_get(fs, ip->ino, gen, DLM_CR, INODE_ATTR, ret);

	if (err || ip->gl->mode != DLM_CR || !S_ISREG(ip->mode) || ip->flags & CSV_INO_IMAGE || ip->opens)
		return err;
	inode_put(ret);
	return inode_get(fs, ip->ino, gen, DLM_PR, INODE_ATTR, ret);
}

int csvfs_open(struct csvfs *fs, uint64_t ino, uint32_t gen)
{
	struct glock *gl;
	struct inode *ip;
	struct iref r;
	int err;

	err = fs_check(fs);
	if (err)
		return err;
	if (ino >= CSV_INO_MAX || !csv_blk_is_allocatable(&fs->geo, ino))
		return -ESTALE;
	gl = glock_ref(fs, OWN_INODE(ino));
	ip = gl ? inode_of_glock(gl) : NULL;
	if (!ip) {
		glock_unref(gl);
		return -ENOMEM;
	}
	err = co_mutex_lock_intr(fs->env->sched, &ip->open_mx);
	if (err) {
		glock_unref(gl);
		return err;
	}
	err = get_for_open(fs, ip, gen, &r);
	if (!err) {
		if (r.ip->nlink == 0 && ip->opens == 0)
			err = -ESTALE;
		else
			ip->opens++;	/* under the lock: OP1 */
		inode_put(&r);
	}
	co_mutex_unlock(fs->env->sched, &ip->open_mx);
	if (err || ip->opens > 1)
		glock_unref(gl);
	return err;
}

/* `open i` is of no use here any more.  Not cached: whoever wants to free the inode asks once only. */
static void open_give_up(struct inode *ip)
{
	struct csvfs *fs = ip->fs;
	struct glock *gl = glock_ref(fs, OWN_OPEN(ip->ino));

	ip->open_held = false;
	glock_put(&ip->open_gh);
	if (gl && fs_check(fs) == 0)
		glock_drop(gl, DLM_NL);
	glock_unref(gl);
}

void inode_keep_open(struct inode *ip)
{
	struct csvfs *fs = ip->fs;
	int err;

	if (!ip->opens || ip->open_held)
		return;
	do {
		err = glock_get(fs, OWN_OPEN(ip->ino), DLM_PR, GLOCK_LASTING | GLOCK_NOINTR, &ip->open_gh);
	} while (err == -ENOMEM && fs_check(fs) == 0 && (coro_sleep_ns(fs->env->sched, RETRY_NS), true));
	if (err)
		return;		/* withdrawn: no lock leaves */
	ip->open_held = true;
	if (!ip->opens)		/* closed meanwhile */
		open_give_up(ip);
}

static void keep_time(struct iref *r, void *arg)
{
	(void)arg;
	inode_touch(r->ip, INODE_T_CTIME);	/* inode_store() takes the pending time */
}

/* What this node owes the inode when it stops using it: the time of its writes, and blocks it took for writes that never came. */
static void give_back(struct csvfs *fs, struct inode *ip)
{
	struct glock_holder neg = { .gl = NULL };
	struct iref r;

	inode_dp_collect(ip);
	if (!ip->pending_mtime_ns && ip->spec_end == 0)
		return;
	/* Blocks behind an image's end may be somebody's who is about to add them (vraw.h, VR4). */
	if (ip->flags & CSV_INO_IMAGE && ip->spec_end && glock_get(fs, OWN_VNEG(ip->ino), DLM_EX, GLOCK_NOINTR, &neg))
		return;
	/* Failure costs a time stamp, or blocks until the file is truncated or removed. */
	if (inode_get(fs, ip->ino, 0, DLM_EX, INODE_NOINTR, &r)) {
		glock_put(&neg);
		return;
	}
	inode_gate_close(ip);
	if (ip->nlink && ip->body == CSV_BODY_TREE && ip->spec_end > fmap_blocks(ip->size))
		trunc_trim(&r, csv_max(ip->spec_first, fmap_blocks(ip->size)), ip->spec_end);
	ip->spec_first = ip->spec_end = 0;
	if (ip->pending_mtime_ns)
		fmap_change(&r, keep_time, NULL);
	inode_gate_open(ip);
	inode_put(&r);
	glock_put(&neg);
}

void csvfs_release(struct csvfs *fs, uint64_t ino)
{
	struct sched *s = fs->env->sched;
	uint32_t slot = CSV_NO_SLOT;
	struct glock *gl;
	struct inode *ip;
	struct iref r;

	gl = glock_find(fs, OWN_INODE(ino));
	ip = gl ? gl->obj : NULL;
	csv_assertf(ip && ip->opens, "inode %llu is not open", (unsigned long long)ino);
	co_mutex_lock(s, &ip->open_mx);
	if (ip->opens > 1) {
		ip->opens--;
		co_mutex_unlock(s, &ip->open_mx);
		return;
	}
	if (fs_check(fs) == 0)
		give_back(fs, ip);
	ip->opens = 0;
	if (ip->open_held)
		open_give_up(ip);
	if (fs_check(fs) == 0 && inode_get(fs, ino, 0, DLM_CR, INODE_ATTR | INODE_NOINTR, &r) == 0) {
		bool orphan = r.ip->nlink == 0;

		inode_put(&r);
		/* A value block does not say which slot's. */
		if (orphan && inode_get(fs, ino, 0, DLM_PR, INODE_NOINTR, &r) == 0) {
			if (r.ip->nlink == 0)
				slot = r.ip->orphan_slot;
			inode_put(&r);
		}
	}
	co_mutex_unlock(s, &ip->open_mx);
	glock_unref(gl);
	if (slot != CSV_NO_SLOT)
		orphan_reap_later(fs, slot, ino);
}

/* ---- fsync -------------------------------------------------------------------------------------------------------------------- */

/* A device FLUSH that begins after this call; any number of callers share one. */
static int shared_flush(struct csvfs *fs)
{
	struct inode_table *t = fs->inodes;
	uint64_t need = t->flushes_begun + 1;

	if (fs->mutate & CSV_MUT_FSYNC_NO_FLUSH)
		return 0;
	while (t->flushes_done < need) {
		if (t->flush_busy) {
			sched_wait(fs->env->sched, &t->flush_wq);
			continue;
		}
		t->flush_busy = true;
		t->flushes_begun++;
		t->flush_err = blk_flush(fs->env->blk);
		t->flush_busy = false;
		t->flushes_done = t->flushes_begun;
		/* Never tried again: what a failed FLUSH lost is unknown (R22). */
		if (t->flush_err && fs_check(fs) == 0)
			fs_withdraw(fs, "FLUSH of the device failed (%s); check the storage, then mount again",
				    csv_err_describe(t->flush_err));
		sched_wake_all(fs->env->sched, &t->flush_wq);
	}
	return fs_check(fs) ? -CSV_E_WITHDRAWN : t->flush_err;
}

int csvfs_fsync(struct csvfs *fs, uint64_t ino, uint32_t gen, bool data_only)
{
	uint64_t seq, data_gen;
	struct glock *gl;
	struct inode *ip;
	bool committed;
	struct iref r;
	int err;

	(void)data_only;	/* size and mapping are needed for the data anyway, and times ride along */
	/* With NL this makes an EX holder elsewhere commit and write back; what is cached here costs nothing (R22). */
	err = inode_get(fs, ino, gen, DLM_CR, INODE_ATTR, &r);
	if (err)
		return err;
	ip = r.ip;
	inode_dp_collect(ip);
	seq = ip->commit_seq;
	data_gen = ip->data_gen;
	gl = glock_ref(fs, OWN_INODE(ino));
	inode_put(&r);

	committed = seq && jnl_stable_seq(fs->jnl) < seq;
	if (committed && !(fs->mutate & CSV_MUT_FSYNC_NO_COMMIT))
		err = jnl_commit(fs->jnl, seq);
	/*
	 * The commit's own FLUSH began after the slow path's data writes (each ends with a transaction).  In-place writes of the data
	 * plane, and of other nodes, need one of their own.
	 */
	if (!err && (ip->dp || ip->dp_raw || ip->flags & CSV_INO_IMAGE || (!committed && data_gen > ip->data_flushed)))
		err = shared_flush(fs);
	if (!err)
		ip->data_flushed = csv_max(ip->data_flushed, data_gen);
	glock_unref(gl);
	return err;
}

int csvfs_sync(struct csvfs *fs)
{
	int err = fs_check(fs);

	if (!err && fs->jnl && !fs->opt.read_only && !(fs->mutate & CSV_MUT_FSYNC_NO_COMMIT))
		err = jnl_commit(fs->jnl, 0);
	return err ? err : shared_flush(fs);
}

struct find_open { struct csvfs *fs; uint64_t ino; };

bool inode_is_open(struct csvfs *fs, struct csv_owner owner)
{
	struct glock *gl = owner.type == CSV_OWN_INODE ? glock_find(fs, owner) : NULL;

	return gl && gl->obj && ((struct inode *)gl->obj)->opens;
}

static bool is_open(void *arg, const struct glock_info *i)
{
	struct find_open *f = arg;

	if (!inode_is_open(f->fs, i->owner))
		return true;
	f->ino = i->owner.id;
	return false;
}

void csvfs_release_all(struct csvfs *fs)
{
	struct find_open f = { .fs = fs };

	do {
		f.ino = 0;
		glock_walk(fs, is_open, &f);
		if (f.ino)
			csvfs_release(fs, f.ino);
	} while (f.ino);
}

/* ---- from one life of this node to the next -------------------------------------------------------------------------------------- */

struct walk_open { struct csvfs *fs; void (*fn)(void *arg, const struct csvfs_opened *o); void *arg; };

static bool walk_one(void *arg, const struct glock_info *i)
{
	const struct walk_open *w = arg;
	const struct inode *ip;

	if (!inode_is_open(w->fs, i->owner))
		return true;
	ip = glock_find(w->fs, i->owner)->obj;
	w->fn(w->arg, &(struct csvfs_opened){ ip->ino, ip->gen, ip->opens });
	return true;
}

void csvfs_open_walk(struct csvfs *fs, void (*fn)(void *arg, const struct csvfs_opened *o), void *arg)
{
	glock_walk(fs, walk_one, &(struct walk_open){ fs, fn, arg });
}

int csvfs_open_adopt(struct csvfs *fs, const struct csvfs_opened *o)
{
	struct glock *gl = glock_ref(fs, OWN_INODE(o->ino));
	struct inode *ip = gl ? inode_of_glock(gl) : NULL;
	struct iref r;
	int err;

	if (!ip) {
		glock_unref(gl);
		return -ENOMEM;
	}
	co_mutex_lock(fs->env->sched, &ip->open_mx);
	err = inode_get(fs, o->ino, o->gen, DLM_CR, INODE_ATTR, &r);
	if (!err || err == -ESTALE) {
		ip->opens += o->opens;		/* under the lock where there is one: OP1 */
		if (!err)
			inode_put(&r);
		err = 0;
	}
	co_mutex_unlock(fs->env->sched, &ip->open_mx);
	if (err)
		glock_unref(gl);	/* else the reference is that of the handles */
	return err;
}
