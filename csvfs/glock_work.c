/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * glock_work.c - transitions of a glock: asking the dlm, giving up in release order, the minimum hold (glock.h).
 *
 * Whatever must be awaited is done by the glock's worker, a coroutine that lives while there is something to do:
 *
 *	                 head waiter's mode not covered, NL cached
 *	      CACHED(NL) ------------------------------------------> ASKING --granted--> CACHED(mode)
 *	          ^                                                     |
 *	          |                                                  refused (NOQUEUE), taken back
 *	          +-----------------------------------------------------+
 *
 *	                 blocked elsewhere and minimum hold over;
 *	                 head waiter not covered; drop asked for            no holder left
 *	      CACHED(mode) --------------------------------> DRAINING ------------------> GIVING UP ---> CACHED(weaker or NL)
 *
 * In CACHED local requests are granted as the modes allow, in ASKING, DRAINING and GIVING UP none is.
 *
 * What a membership change does: CACHED, DRAINING: nothing (what we hold stays in force).  ASKING: the dlm keeps the request and asks
 * the new view.  GIVING UP: goes on; the dlm tells the others when there is a view.  Withdrawal ends the worker in any state; the
 * cached mode is then never given up: the others take it by proof and replay.
 *
 * Release order (R2), in give_up(): gate -> pending changes into a transaction -> jnl_release() of all owners that are leaving at
 * this moment -> value block -> caches -> dlm_downgrade().
 */
#include "csvfs/glock_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define RELEASE_BATCH 64u
#define COMPANY 192u		/* unused locks written back beside them */

/* ---- releases, collected ---------------------------------------------------------------------------------------------------------- */

/* One jnl_release() for what waits now, and for unused locks with it; whoever comes meanwhile is in the next. */
static void release_run(struct csvfs *fs, struct glock_table *t)
{
	struct glock_release *batch[RELEASE_BATCH];
	struct csv_owner owner[RELEASE_BATCH + COMPANY];
	struct glock_company *company;
	uint32_t n = 0, more;
	int ret;

	while (n < RELEASE_BATCH && !cds_list_empty(&t->releases)) {
		struct glock_release *r = cds_list_first_entry(&t->releases, struct glock_release, node);

		cds_list_del(&r->node);
		owner[n] = r->owner;
		batch[n++] = r;
	}
	if (fs->jnl) {
		company = glock_company_take(t, owner + n, COMPANY, &more);
		ret = jnl_release(fs->jnl, owner, n + more);
		glock_company_put(company);
	} else {		/* shut down while these waited: in order, then all is home; or withdrawn, then nothing leaves */
		ret = fs->state == CSVFS_WITHDRAWN ? -CSV_E_WITHDRAWN : 0;
	}
	for (uint32_t i = 0; i < n; i++) {
		batch[i]->status = ret;
		batch[i]->done = true;
	}
}

static int release_owner(struct csvfs *fs, struct csv_owner owner)
{
	struct glock_table *t = fs->glocks;
	struct glock_release r = { .owner = owner };

	/* Nothing was ever logged, or it is written back already. */
	if (!fs->jnl || !jnl_owner_busy(fs->jnl, owner))
		return 0;
	cds_list_add_tail(&r.node, &t->releases);
	while (!r.done) {
		if (t->releasing) {
			sched_wait(fs->env->sched, &t->release_wq);
			continue;
		}
		t->releasing = true;
		release_run(fs, t);
		t->releasing = false;
		sched_wake_all(fs->env->sched, &t->release_wq);
	}
	return r.status;
}

/* ---- giving up ------------------------------------------------------------------------------------------------------------------------ */

static bool gone(const struct glock_priv *p)
{
	return p->gl.fs->state == CSVFS_WITHDRAWN;
}

static void give_up(struct glock_priv *p, enum dlm_mode to)
{
	struct glock *gl = &p->gl;
	struct csvfs *fs = gl->fs;
	const struct glock_ops *ops = gl->ops;
	bool exclusive = gl->mode == DLM_EX || gl->mode == DLM_PW;
	int ret;

	p->transition = true;
	if (ops && ops->gate_close)
		ops->gate_close(gl, to);
	if (exclusive) {
		if (ops && ops->before_release && !gone(p))
			ops->before_release(gl, to);
		if (gone(p))
			return;
		ret = release_owner(fs, gl->owner);
		if (ret < 0) {
			if (!gone(p))
				fs_withdraw(fs, "%s %" PRIu64 ": write back before the lock leaves: %s", mhdr_owner_name(gl->owner.type),
					    gl->owner.id, csv_err_describe(ret));
			return;		/* GL4: what is not written back does not leave */
		}
	}
	if (gone(p))
		return;
	if (exclusive && ops && ops->fill_lvb)
		ops->fill_lvb(gl, p->dl.lvb);
	if (ops && ops->inval)
		ops->inval(gl, to);
	if (gone(p))
		return;
	if (to == DLM_NL)
		buf_drop_owner(fs, gl->owner);
	gl->mode = to;
	glock_touched(gl);
	dlm_downgrade(fs->dlm, &p->dl, to);
	p->transition = false;
	p->demoting = false;
	if (p->drop && to <= p->drop_to)
		p->drop = false;
	sched_wake_all(gl_sched(p), &p->changed_wq);
}

/* ---- asking ---------------------------------------------------------------------------------------------------------------------------- */

void glock_dlm_done(struct dlm_lock *l, int status)
{
	struct glock_priv *p = l->arg;

	p->dlm_done = true;
	p->dlm_status = status;
	sched_wake_all(gl_sched(p), &p->worker_wq);
}

static struct glock_waiter *head_waiter(struct glock_priv *p)
{
	return cds_list_empty(&p->waiters) ? NULL : cds_list_first_entry(&p->waiters, struct glock_waiter, node);
}

static void ask(struct glock_priv *p)
{
	struct glock *gl = &p->gl;
	struct glock_waiter *w = head_waiter(p), *next;
	bool noqueue = w->flags & GLOCK_NOQUEUE, cancelled = false;

	p->transition = true;
	p->dlm_done = false;
	p->blocked = false;
	dlm_request(gl->fs->dlm, &p->dl, w->h->mode,
		    (noqueue ? DLM_NOQUEUE : 0) | (w->flags & GLOCK_PR_WELCOME ? DLM_PR_WELCOME : 0));
	while (!p->dlm_done) {
		if (gone(p))
			return;
		if (cds_list_empty(&p->waiters) && !cancelled) {
			cancelled = true;
			dlm_cancel(gl->fs->dlm, &p->dl);
		}
		sched_wait(gl_sched(p), &p->worker_wq);
	}
	if (gone(p))
		return;
	p->transition = false;
	switch (p->dlm_status) {
	case 0:
		gl->mode = p->dl.granted;
		glock_touched(gl);
		p->granted_ns = fs_now_ns(gl->fs);
		if (gl->ops && gl->ops->granted)
			gl->ops->granted(gl, gl->mode, p->dl.lvb, p->dl.lvb_valid);
		break;
	case -EAGAIN:
		w = head_waiter(p);
		if (w && (w->flags & GLOCK_NOQUEUE))
			glock_waiter_end(p, w, -EAGAIN);
		break;
	case -ECANCELED:
		break;
	default:			/* not in the cluster any more */
		cds_list_for_each_entry_safe(w, next, &p->waiters, node)
			glock_waiter_end(p, w, -CSV_E_WITHDRAWN);
		break;
	}
}

/* ---- deciding ---------------------------------------------------------------------------------------------------------------------------- */

/* The strongest mode we may keep while `blocked` is granted elsewhere. */
static enum dlm_mode keep_mode(enum dlm_mode cached, enum dlm_mode blocked)
{
	if (dlm_compatible(cached, blocked))
		return cached;
	if (cached >= DLM_PW && (blocked == DLM_CR || blocked == DLM_PR))
		return DLM_PR;
	if (cached >= DLM_PW && blocked == DLM_CW)
		return DLM_CW;
	return DLM_NL;
}

void glock_dlm_bast(struct dlm_lock *l, enum dlm_mode blocked)
{
	struct glock_priv *p = l->arg;

	if (p->blocked && p->blocked_mode != blocked) {
		/* Two wishes: what satisfies both.  PR and CW together leave only NL. */
		if ((p->blocked_mode == DLM_PR && blocked == DLM_CW) || (p->blocked_mode == DLM_CW && blocked == DLM_PR))
			blocked = DLM_EX;
		else
			blocked = csv_max(p->blocked_mode, blocked);
	}
	if (!p->blocked)
		p->bounces++;
	p->blocked = true;
	p->blocked_mode = blocked;
	glock_kick(p);
}

enum step { STEP_NONE, STEP_WAIT, STEP_HOLD, STEP_GIVE_UP, STEP_ASK };

static enum step decide(struct glock_priv *p, enum dlm_mode *ret_to, uint64_t *ret_deadline_ns)
{
	struct glock *gl = &p->gl;
	struct glock_waiter *w = head_waiter(p);
	enum dlm_mode to = gl->mode;
	uint64_t hold_end = p->granted_ns + gl->fs->glocks->min_hold_ns;
	bool held_back = false;

	if (p->blocked) {
		enum dlm_mode keep = keep_mode(gl->mode, p->blocked_mode);

		if (keep == gl->mode)
			p->blocked = false;		/* stale */
		else if (fs_now_ns(gl->fs) < hold_end)
			held_back = true;
		else
			to = keep;
	}
	if (p->drop) {
		if (gl->mode <= p->drop_to) {
			p->drop = false;
			sched_wake_all(gl_sched(p), &p->changed_wq);
		} else {
			to = glock_covers(to, p->drop_to) ? p->drop_to : DLM_NL;
		}
	}
	if (w && gl->mode != DLM_NL && !glock_covers(gl->mode, w->h->mode))
		to = DLM_NL;				/* GL3 */
	if (to != gl->mode) {
		*ret_to = to;
		p->demoting = true;
		return cds_list_empty(&p->holders) && !p->cleaning ? STEP_GIVE_UP : STEP_WAIT;
	}
	p->demoting = false;
	if (w && gl->mode == DLM_NL)
		return STEP_ASK;
	if (held_back) {
		*ret_deadline_ns = hold_end;
		return STEP_HOLD;
	}
	return w ? STEP_WAIT : STEP_NONE;	/* waiters that are covered wait for holders here */
}

static void grant_waiters(struct glock_priv *p)
{
	struct glock_waiter *w, *next;

	cds_list_for_each_entry_safe(w, next, &p->waiters, node) {
		if (!glock_grantable(p, w->h->mode)) {
			/* Never waits for a holder of this node. */
			if ((w->flags & GLOCK_NOQUEUE) && !p->transition && !p->demoting && glock_covers(p->gl.mode, w->h->mode)) {
				glock_waiter_end(p, w, -EAGAIN);
				continue;
			}
			break;
		}
		glock_waiter_end(p, w, 0);
	}
}

static void worker(void *arg)
{
	struct glock_priv *p = arg;
	enum dlm_mode to = DLM_NL;
	uint64_t deadline = 0;

	while (!gone(p)) {
		enum step step;

		grant_waiters(p);
		step = decide(p, &to, &deadline);
		if (step == STEP_NONE)
			break;
		if (step == STEP_WAIT)
			sched_wait(gl_sched(p), &p->worker_wq);
		else if (step == STEP_HOLD)
			sched_wait_until(gl_sched(p), &p->worker_wq, deadline, false);
		else if (step == STEP_GIVE_UP)
			give_up(p, to);
		else
			ask(p);
	}
	p->worker = false;
	glock_put_ref(p);
}

int glock_kick(struct glock_priv *p)
{
	struct csvfs *fs = p->gl.fs;
	int ret;

	if (p->worker) {
		sched_wake_all(gl_sched(p), &p->worker_wq);
		return 0;
	}
	if (fs->state == CSVFS_WITHDRAWN)
		return -CSV_E_WITHDRAWN;
	ret = fs_spawn(fs, "glock", worker, p);
	if (ret < 0) {
		timer_set(fs->env->sched, &fs->glocks->retry, fs_now_ns(fs) + 10 * NS_PER_MS);
		return ret;
	}
	if (!p->refs)			/* cached and unused: off the LRU list */
		glock_unlru(p);
	p->refs++;
	p->worker = true;
	return 0;
}
