/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * image.c - who writes an image how: as a plain file, or through its raw view; never both at once in the whole cluster (R41).
 *
 * Resource `use i`:	raw view open (any node)	CW	with itself compatible: many nodes at once
 *			plain file open for writing	PR	with itself compatible, with CW not
 * A node holds it once for all its openers.
 *
 * Plain writers are everybody who writes a file, and most files never become images.  So a plain writer of a file that does not have the
 * IMAGE flag costs no message while this node holds `inode i` EX: whoever opens a raw view sets the flag first, and needs that EX for it.
 * When EX leaves, and not before, PR is taken (image_before_release):
 *
 *	node 1 (writes the file)		node 2 (opens .raw/FILE)
 *	inode EX, no flag; a writer: only counted
 *						to set the flag: wants inode EX
 *	before EX leaves: use PR
 *	inode -> NL
 *						flag set; use CW: not granted -> EBUSY
 *
 * Invariants
 *  IM1 On one node, raw openers > 0 excludes plain writers > 0.
 *  IM2 Raw openers > 0: `use i` is held CW.  Plain writers > 0: it is held PR, or inode EX has been held since the first of them came,
 *      when the file was no image.
 *  IM3 A request that conflicts is answered within WAIT_MS: a lock that is merely cached elsewhere comes at once, one that is used does not.
 *      Only a living node's use is answered with busy: while a view is being agreed on, or a lost node is not recovered, it waits.
 *
 * Locks: use_mx is taken after `inode i` is given back or inside its release; nobody who holds use_mx waits for `inode i`.
 */
#include "csvfs/image.h"

#include <errno.h>
#include <stdlib.h>

#include "csvfs/inode_table.h"
#include "csvfs/vraw.h"

#define WAIT_MS 1000u

/* ---- the lock, at most WAIT_MS of waiting -------------------------------------------------------------------------------------- */

struct want {
	struct csvfs *fs;
	struct inode *ip;
	enum dlm_mode mode;
	struct coro *coro;
	bool done, over;		/* over: nobody waits for it any more, perhaps before it began */
	int err;
	struct waitq wq;
};

static void want_coro(void *arg)
{
	struct want *w = arg;
	struct sched *s = w->fs->env->sched;

	w->coro = sched_self(s);
	w->err = w->over ? -EINTR : glock_get(w->fs, OWN_USE(w->ip->ino), w->mode, GLOCK_LASTING, &w->ip->use_gh);
	w->done = true;
	sched_wake_all(s, &w->wq);
}

/* Of the usable view; 0: there is none. */
static uint64_t ring_of(const struct csvfs *fs)
{
	const struct cluster_view *v = cluster_current(fs->env->cluster);

	return v ? v->ring.seq : 0;
}

static bool find_lost(void *arg, const struct csvfs_recovery_info *i)
{
	*(bool *)arg |= !i->replayed;
	return i->replayed;
}

static bool is_any_lost(struct csvfs *fs)
{
	bool lost = false;

	csvfs_recovery_walk(fs, find_lost, &lost);
	return lost;
}

/* use_mx is held.  -CSV_E_BUSY_ELSEWHERE: somebody uses it the other way. */
static int lock_use(struct csvfs *fs, struct inode *ip, enum dlm_mode mode)
{
	struct sched *s = fs->env->sched;
	struct want w = { .fs = fs, .ip = ip, .mode = mode };
	uint64_t end = fs_now_ns(fs) + WAIT_MS * NS_PER_MS, ring = ring_of(fs);
	int err;

	waitq_init(&w.wq);
	ip->use_gh = (struct glock_holder){ .gl = NULL };
	err = fs_spawn(fs, "image use", want_coro, &w);
	if (err)
		return err;
	while (!w.done && !err) {
		err = sched_wait_until(s, &w.wq, end, true);
		/* The time counts while locks can be granted, in one view, and no lock of a lost node can be what is in the way. */
		if (err == -ETIMEDOUT && (!recover_view_ok(fs) || ring_of(fs) != ring || is_any_lost(fs))) {
			ring = ring_of(fs);
			end = fs_now_ns(fs) + WAIT_MS * NS_PER_MS;
			err = 0;
		}
	}
	w.over = true;
	if (!w.done && w.coro)
		sched_cancel(s, w.coro);
	while (!w.done)
		sched_wait(s, &w.wq);		/* granted after all, or taken back: at once */
	if (!w.err)
		return 0;
	if (w.err == -EINTR)
		return err == -EINTR ? -EINTR : -CSV_E_BUSY_ELSEWHERE;
	return w.err;
}

/* ---- opening and closing -------------------------------------------------------------------------------------------------------- */

/* `inode i` is held by the caller: can nobody have opened the raw view? */
static bool is_ours_alone(const struct inode *ip)
{
	return ip->gl->mode == DLM_EX && !(ip->flags & CSV_INO_IMAGE);
}

static int use_get(struct csvfs *fs, struct inode *ip, enum csvfs_use use, bool ours_alone)
{
	bool raw = use == CSVFS_USE_RAW;
	int err = 0;

	if (raw ? ip->plain_writers : ip->raw_opens)
		return -EBUSY;
	if (!ip->use_held && (raw || !ours_alone)) {
		err = lock_use(fs, ip, raw ? DLM_CW : DLM_PR);
		ip->use_held = !err;
	}
	if (err)
		return err;
	if (raw)
		ip->raw_opens++;
	else
		ip->plain_writers++;
	return 0;
}

int csvfs_image_open(struct csvfs *fs, uint64_t ino, uint32_t gen, enum csvfs_use use)
{
	struct sched *s = fs->env->sched;
	struct glock *gl = glock_ref(fs, OWN_INODE(ino));
	struct inode *ip = gl ? inode_of_glock(gl) : NULL;
	struct iref r;
	int err = ip ? 0 : -ENOMEM;

	/* On a read-only mount the flag may be missing: then only readers of the view are left unseen by the first plain writer. */
	if (!err && use == CSVFS_USE_RAW && !fs_check_write(fs))
		err = csvfs_set_image(fs, ino, gen);
	if (!err)
		err = inode_get(fs, ino, gen, DLM_CR, INODE_ATTR, &r);
	if (err) {
		glock_unref(gl);
		return err;
	}
	if (use == CSVFS_USE_PLAIN && is_ours_alone(ip) && !ip->use_mx.owner) {
		/* EX cannot leave while we hold the inode, and nothing is awaited. */
		err = use_get(fs, ip, use, true);
		inode_put(&r);
	} else {
		inode_put(&r);
		err = co_mutex_lock_intr(s, &ip->use_mx);
		if (!err) {
			err = use_get(fs, ip, use, false);
			co_mutex_unlock(s, &ip->use_mx);
		}
	}
	if (err)
		glock_unref(gl);
	return err;
}

void csvfs_image_close(struct csvfs *fs, uint64_t ino, enum csvfs_use use)
{
	struct glock *gl = glock_find(fs, OWN_INODE(ino));
	struct inode *ip = gl ? gl->obj : NULL;
	uint32_t *n = ip ? use == CSVFS_USE_RAW ? &ip->raw_opens : &ip->plain_writers : NULL;

	csv_assertf(n && *n, "image %llu is not in use that way", (unsigned long long)ino);
	co_mutex_lock(fs->env->sched, &ip->use_mx);
	if (--*n == 0) {
		if (use == CSVFS_USE_RAW)
			vraw_close(ip);
		if (ip->use_held)
			glock_put(&ip->use_gh);
		ip->use_held = false;
	}
	co_mutex_unlock(fs->env->sched, &ip->use_mx);
	glock_unref(gl);
}

void image_before_release(struct inode *ip)
{
	struct csvfs *fs = ip->fs;
	struct sched *s = fs->env->sched;

	if (!ip->plain_writers || ip->use_held)
		return;
	co_mutex_lock(s, &ip->use_mx);
	if (ip->plain_writers && !ip->use_held) {
		int err = lock_use(fs, ip, DLM_PR);

		ip->use_held = !err;
		/* Cannot be anybody's (IM2) but the failing volume's own doing. */
		if (err && fs_check(fs) == 0)
			fs_log(fs, LOG_L_WARN, "inode %llu: its writers here cannot be made known to the other nodes (%s); do not open its raw view "
					       "before they have closed it", (unsigned long long)ip->ino, csv_err_describe(err));
	}
	co_mutex_unlock(s, &ip->use_mx);
}

/* ---- size of the disk, while its view is open here ------------------------------------------------------------------------------- */

uint64_t csvfs_raw_size(struct csvfs *fs, uint64_t ino)
{
	struct glock *gl = glock_find(fs, OWN_INODE(ino));
	const struct inode *ip = gl ? gl->obj : NULL;

	return ip && ip->raw_opens ? ip->raw_size : 0;
}
