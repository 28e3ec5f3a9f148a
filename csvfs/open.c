/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * open.c - open handles of this node and fsync.
 *
 * open: `open i` PR is taken with nothing else held, then the inode is looked at.  Whoever frees an orphan holds `open i` EX (R8), so an inode
 * that is still linked when seen under our PR cannot be freed before we give it up:
 *
 *	opener			freer (nlink 0, inode EX)
 *	open i PR		open i EX, noqueue		one of the two is first:
 *	inode CR: nlink?	free				opener first: the freer gets -EAGAIN and leaves it to the last close
 *								freer first: the opener finds -ESTALE
 */
#include "csvfs/fmap.h"

#include <errno.h>
#include <sys/stat.h>

#include "csvfs/inode_table.h"
#include "csvfs/publish.h"

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
	co_mutex_lock(fs->env->sched, &ip->open_mx);
	if (ip->opens == 0) {
		ip->open_gh = (struct glock_holder){ .gl = NULL };
		err = glock_get(fs, OWN_OPEN(ino), DLM_PR, GLOCK_LASTING, &ip->open_gh);
		if (err)
			goto out;
	}
	err = inode_get(fs, ino, gen, DLM_CR, INODE_ATTR, &r);
	if (!err) {
		if (r.ip->nlink == 0 && ip->opens == 0)
			err = -ESTALE;
		inode_put(&r);
	}
	if (err && ip->opens == 0)
		glock_put(&ip->open_gh);
	if (!err)
		ip->opens++;
out:
	co_mutex_unlock(fs->env->sched, &ip->open_mx);
	if (err || ip->opens > 1)
		glock_unref(gl);
	return err;
}

static void keep_time(struct iref *r, void *arg)
{
	(void)arg;
	inode_touch(r->ip, INODE_T_CTIME);	/* inode_store() takes the pending time */
}

/* What this node owes the inode when it stops using it: the time of its writes, and blocks it took for writes that never came. */
static void give_back(struct csvfs *fs, struct inode *ip)
{
	struct iref r;

	inode_dp_collect(ip);
	if (!ip->pending_mtime_ns && ip->spec_end == 0)
		return;
	/* Failure costs a time stamp, or blocks until the file is truncated or removed. */
	if (inode_get(fs, ip->ino, 0, DLM_EX, INODE_NOINTR, &r))
		return;
	inode_gate_close(ip);
	if (ip->nlink && ip->body == CSV_BODY_TREE && ip->spec_end > fmap_blocks(ip->size))
		trunc_trim(&r, csv_max(ip->spec_first, fmap_blocks(ip->size)), ip->spec_end);
	ip->spec_first = ip->spec_end = 0;
	if (ip->pending_mtime_ns)
		fmap_change(&r, keep_time, NULL);
	inode_gate_open(ip);
	inode_put(&r);
}

void csvfs_release(struct csvfs *fs, uint64_t ino)
{
	struct sched *s = fs->env->sched;
	uint32_t slot = CSV_NO_SLOT;
	struct glock *gl, *ogl;
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
	ogl = glock_ref(fs, OWN_OPEN(ino));
	glock_put(&ip->open_gh);
	if (fs_check(fs) == 0) {
		/* Not cached: whoever wants to free it asks once only. */
		if (ogl)
			glock_drop(ogl, DLM_NL);
		if (inode_get(fs, ino, 0, DLM_CR, INODE_ATTR | INODE_NOINTR, &r) == 0) {
			bool orphan = r.ip->nlink == 0;

			inode_put(&r);
			/* A value block does not say which slot's. */
			if (orphan && inode_get(fs, ino, 0, DLM_PR, INODE_NOINTR, &r) == 0) {
				if (r.ip->nlink == 0)
					slot = r.ip->orphan_slot;
				inode_put(&r);
			}
		}
	}
	if (ogl)
		glock_unref(ogl);
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
	if (committed)
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

	if (!err && fs->jnl && !fs->opt.read_only)
		err = jnl_commit(fs->jnl, 0);
	return err ? err : shared_flush(fs);
}

struct find_open { struct csvfs *fs; uint64_t ino; };

static bool is_open(void *arg, const struct glock_info *i)
{
	struct find_open *f = arg;
	struct glock *gl;

	if (i->owner.type != CSV_OWN_OPEN || !i->holders)
		return true;
	gl = glock_find(f->fs, OWN_INODE(i->owner.id));
	if (!gl || !gl->obj || !((struct inode *)gl->obj)->opens)
		return true;		/* being reaped, not open */
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
