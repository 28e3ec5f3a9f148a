/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * inode_pool.c - numbers for new inodes whose locks this node holds already.  Invariants in inode_pool.h.
 *
 *	inode_pool_take()	group locked: looks for a number; when few are left, lists more of the group's free blocks in `want`
 *	lockers			no group locked: lock EX (NOQUEUE) of each in `want` -> given back, stays cached -> `ready`
 *
 * How many: as many as were made in about the last RATE_NS, within bounds; so a node that makes many outlives the time in which a lost
 * member is agreed on.  Who removes files as fast as he makes them uses the same numbers again.
 *
 * What a membership change does: locks cached here stay; lockers wait in the lock manager for the new view.
 */
#include "csvfs/inode_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define POOL_MIN 32u
#define POOL_MAX 1024u
#define WANT_MAX 256u		/* asked for at a time */
#define NEAR_MAX 24u		/* neighbours in a list; then ever larger steps: somebody else may be busy just there */
#define STEP 16u
#define LOCKERS 4u
#define RATE_NS (8 * NS_PER_SEC)
#define ROUNDS_MAX 5u
#define PAUSE_NS (2 * NS_PER_MS)

struct locker { struct csvfs *fs; struct coro *coro; };

struct inode_pool {
	uint64_t ready[POOL_MAX], want[WANT_MAX];
	uint32_t n_ready, n_want, busy;	/* busy: locks being asked for right now */
	uint64_t gained;		/* ever */
	uint64_t refused;		/* the last number whose lock is in use elsewhere; 0: none */
	uint32_t rate;			/* taken in the last RATE_NS, decaying */
	uint64_t rate_ns;
	struct locker locker[LOCKERS];
	unsigned running;
	struct waitq wq;		/* a lock came or was refused; a locker ended */
};

/* ---- lists -------------------------------------------------------------------------------------------------------------------------- */

static bool list_has(const uint64_t *list, uint32_t n, uint64_t ino)
{
	for (uint32_t i = 0; i < n; i++)
		if (list[i] == ino)
			return true;
	return false;
}

static void ready_del(struct inode_pool *p, uint32_t i)
{
	p->ready[i] = p->ready[--p->n_ready];
}

static void ready_forget(struct inode_pool *p, uint64_t ino)
{
	for (uint32_t i = 0; i < p->n_ready; i++) {
		if (p->ready[i] == ino) {
			ready_del(p, i);
			return;
		}
	}
}

/* A full pool forgets one: its lock stays cached until somebody wants it. */
static void ready_put(struct inode_pool *p, uint64_t ino)
{
	if (list_has(p->ready, p->n_ready, ino))
		return;
	if (p->n_ready == POOL_MAX)
		ready_del(p, 0);
	p->ready[p->n_ready++] = ino;
}

void inode_pool_add(struct csvfs *fs, uint64_t ino)
{
	ready_put(fs->pool, ino);
}

/* ---- lockers ------------------------------------------------------------------------------------------------------------------------ */

/* Somebody has an old handle of that number in his hands. */
static bool looked_at(const struct inode *ip)
{
	return ip && (ip->opens || ip->open_mx.owner);
}

/* -EAGAIN: in use somewhere; else the locker ends. */
static int lock_one(struct csvfs *fs, uint64_t ino)
{
	struct glock_holder gh;
	int err = glock_get(fs, OWN_INODE(ino), DLM_EX, GLOCK_NOQUEUE, &gh);

	if (!err && looked_at(gh.gl->obj))
		err = -EAGAIN;
	glock_put(&gh);
	if (err)
		return err;
	ready_put(fs->pool, ino);
	fs->pool->gained++;
	return 0;
}

static void locker_coro(void *arg)
{
	struct locker *l = arg;
	struct csvfs *fs = l->fs;
	struct inode_pool *p = fs->pool;
	int err = 0;

	l->coro = sched_self(fs->env->sched);
	while (p->n_want && !fs->stopping && !fs_check(fs) && (!err || err == -EAGAIN)) {
		uint64_t ino = p->want[0];

		memmove(p->want, p->want + 1, --p->n_want * sizeof(p->want[0]));
		p->busy++;
		err = lock_one(fs, ino);
		if (err == -EAGAIN)
			p->refused = ino;
		p->busy--;
		sched_wake_all(fs->env->sched, &p->wq);
	}
	l->fs = NULL;
	l->coro = NULL;
	p->running--;
	sched_wake_all(fs->env->sched, &p->wq);
}

static void lockers_start(struct csvfs *fs)
{
	struct inode_pool *p = fs->pool;

	for (unsigned i = 0; i < LOCKERS && p->running < p->n_want && !fs->stopping; i++) {
		struct locker *l = &p->locker[i];

		if (l->fs)
			continue;
		l->fs = fs;
		if (fs_spawn(fs, "inode pool", locker_coro, l) < 0) {
			l->fs = NULL;
			return;		/* out of memory: who waits tries again */
		}
		p->running++;
	}
}

/* Lists free blocks near `from`; the group that has them is locked by the reservation. */
static void ask_for(struct csvfs *fs, const struct alloc_resv *resv, uint64_t from, uint64_t not, uint32_t n)
{
	struct inode_pool *p = fs->pool;
	uint64_t blk;

	for (uint32_t i = 0, tries = 0; i < n && tries < 2 * n && p->n_want < WANT_MAX; tries++) {
		if (alloc_peek(resv, from, &blk))
			break;
		from = blk + 1 + (i < NEAR_MAX ? 0 : i % STEP);
		if (blk == not || list_has(p->want, p->n_want, blk) || list_has(p->ready, p->n_ready, blk))
			continue;
		p->want[p->n_want++] = blk;
		i++;
	}
	lockers_start(fs);
}

/* ---- taking ------------------------------------------------------------------------------------------------------------------------- */

static uint32_t target(struct csvfs *fs)
{
	struct inode_pool *p = fs->pool;
	uint64_t now = fs_now_ns(fs), gone = csv_min(now - p->rate_ns, (uint64_t)RATE_NS);

	p->rate -= (uint32_t)(p->rate * gone / RATE_NS);
	p->rate_ns = now;
	return csv_min(csv_max(p->rate, POOL_MIN), POOL_MAX);
}

/* -EAGAIN: not this one. */
static int take_one(struct csvfs *fs, uint64_t ino, struct iref *ret)
{
	struct inode *ip;
	int err;

	*ret = IREF_INIT;
	err = glock_get(fs, OWN_INODE(ino), DLM_EX, GLOCK_LOCAL_ONLY, &ret->gh);
	if (err)
		return err;
	ret->ip = ip = inode_of_glock(ret->gh.gl);
	err = !ip ? -ENOMEM : looked_at(ip) ? -EAGAIN : 0;
	if (err)
		inode_put(ret);
	return err;
}

/* The nearest of the pool that is free in the reservation's groups; 0: none.  Counts them. */
static uint64_t nearest(struct csvfs *fs, const struct alloc_resv *resv, uint64_t hint_blk, uint32_t *ret_usable)
{
	struct inode_pool *p = fs->pool;
	uint64_t best = 0, best_far = UINT64_MAX;

	*ret_usable = 0;
	for (uint32_t i = 0; i < p->n_ready;) {
		uint64_t ino = p->ready[i], far = ino > hint_blk ? ino - hint_blk : hint_blk - ino;

		switch (alloc_look(resv, ino)) {
		case ALLOC_LOOK_FREE:
			++*ret_usable;
			if (far < best_far) {
				best = ino;
				best_far = far;
			}
			break;
		case ALLOC_LOOK_USED:
			ready_del(p, i);
			continue;
		default:		/* busy until a commit, or not ours to see */
			break;
		}
		i++;
	}
	return best;
}

int inode_pool_take(struct csvfs *fs, struct alloc_resv *resv, uint64_t hint_blk, struct iref *n)
{
	struct inode_pool *p = fs->pool;
	uint32_t usable, want = target(fs);
	uint64_t ino;
	int err;

	if (n->ip && alloc_look(resv, n->ip->ino) == ALLOC_LOOK_FREE)
		return 0;
	inode_put(n);
	err = alloc_peek(resv, hint_blk, &ino);
	if (err)
		return err;
	err = take_one(fs, ino, n);
	while (err == -EAGAIN && (ino = nearest(fs, resv, hint_blk, &usable))) {
		ready_forget(p, ino);	/* held here for something else, or gone meanwhile */
		err = take_one(fs, ino, n);
	}
	if (err == -EAGAIN) {
		ask_for(fs, resv, hint_blk, 0, want);
		return err;
	}
	if (err)
		return err;
	ready_forget(p, ino);
	p->rate++;
	nearest(fs, resv, hint_blk, &usable);
	if (usable + p->n_want + p->busy < want / 2)
		ask_for(fs, resv, ino + 1, ino, want - usable);
	return 0;
}

/* Of those that came last, the nearest. */
static void take_gained(struct csvfs *fs, uint64_t hint_blk, uint64_t gained, struct iref *n)
{
	struct inode_pool *p = fs->pool;
	uint32_t new = (uint32_t)csv_min(gained, (uint64_t)p->n_ready), best = p->n_ready;
	uint64_t best_far = UINT64_MAX;

	for (uint32_t i = p->n_ready - new; i < p->n_ready; i++) {
		uint64_t far = p->ready[i] > hint_blk ? p->ready[i] - hint_blk : hint_blk - p->ready[i];

		if (far < best_far) {
			best = i;
			best_far = far;
		}
	}
	if (best < p->n_ready && !take_one(fs, p->ready[best], n))
		ready_del(p, best);
}

/* In its turn, however long that takes: a node that does not answer is lost at some time, and a lost one recovered. */
static int take_queued(struct csvfs *fs, uint64_t ino, struct iref *n)
{
	int err = glock_get(fs, OWN_INODE(ino), DLM_EX, 0, &n->gh);

	fs->pool->refused = 0;
	if (err)
		return err;
	n->ip = inode_of_glock(n->gh.gl);
	err = !n->ip ? -ENOMEM : 0;
	if (err || looked_at(n->ip))
		inode_put(n);
	return err;
}

int inode_pool_wait(struct csvfs *fs, uint64_t hint_blk, unsigned *rounds, struct iref *n)
{
	struct inode_pool *p = fs->pool;
	struct sched *s = fs->env->sched;
	uint64_t gained = p->gained;

	while (p->gained == gained && (p->n_want || p->busy)) {
		if (fs_check(fs))
			return -CSV_E_WITHDRAWN;
		lockers_start(fs);
		if (!p->running)
			break;
		if (sched_wait_intr(s, &p->wq) == -EINTR)
			return -EINTR;
	}
	if (fs_check(fs))
		return -CSV_E_WITHDRAWN;
	if (p->gained != gained) {
		take_gained(fs, hint_blk, p->gained - gained, n);
		return 0;
	}
	/* What is only cached elsewhere goes soon after it was asked for. */
	if (++*rounds <= ROUNDS_MAX || !p->refused) {
		if (coro_cancelled(s))
			return -EINTR;
		coro_sleep_ns(s, PAUSE_NS);
		return 0;
	}
	return take_queued(fs, p->refused, n);
}

/* ---- beginning and end --------------------------------------------------------------------------------------------------------------- */

int inode_pool_init(struct csvfs *fs)
{
	fs->pool = calloc(1, sizeof(*fs->pool));
	if (!fs->pool)
		return -ENOMEM;
	waitq_init(&fs->pool->wq);
	return 0;
}

void inode_pool_stop(struct csvfs *fs)
{
	struct inode_pool *p = fs->pool;

	if (!p)
		return;
	p->n_want = 0;
	for (unsigned i = 0; i < LOCKERS; i++)
		if (p->locker[i].coro)
			sched_cancel(fs->env->sched, p->locker[i].coro);
	while (p->running)
		sched_wait(fs->env->sched, &p->wq);
}

void inode_pool_free(struct csvfs *fs)
{
	free(fs->pool);
	fs->pool = NULL;
}
