/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmsm.c - one VM on one node.  The picture, the table of steps and the invariants: vmsm.h.
 *
 * vmsm_step() notes the event's facts, then decide() looks at the record and says what to do; decide() never asks which event it was.
 * What a membership change does: UNSETTLED, then RECORD of the new view; in between only undecided() may act (VM5).
 */
#include "hvhost/vmsm.h"

#include <errno.h>

#include "utils/base/err.h"

struct out { struct vmsm *sm; struct vmsm_action *a; unsigned n; };

static struct vmsm_action *act(struct out *o, enum vmsm_act what)
{
	struct vmsm_action *a;

	csv_assert(o->n < VMSM_ACTIONS_MAX);
	a = &o->a[o->n++];
	memset(a, 0, sizeof(*a));
	a->act = what;
	return a;
}

static void note(struct out *o, enum vmsm_note n)
{
	act(o, VMSM_A_EVENT)->note = n;
}

static void mark(struct out *o)
{
	act(o, VMSM_A_MARK);
}

static bool armed(const struct vmsm *sm, enum vmsm_timer t)
{
	return sm->timers >> t & 1;
}

static void timer(struct out *o, enum vmsm_timer t, uint32_t ms)
{
	struct vmsm_action *a = act(o, VMSM_A_TIMER);

	a->timer = t;
	a->ms = ms;
	o->sm->timers |= 1u << t;
}

static bool is_me(const struct vmsm *sm, uint32_t nodeid, uint64_t inc)
{
	return nodeid == sm->conf.self && inc == sm->conf.self_inc;
}

/* Exists, answers, and is not on its way out. */
static bool is_there(const struct vmsm *sm)
{
	return sm->qemu >= VMSM_Q_PRELAUNCH && sm->qemu <= VMSM_Q_IOERROR;
}

static bool is_stopped(const struct vmsm *sm)
{
	return sm->qemu == VMSM_Q_PAUSED || sm->qemu == VMSM_Q_PRELAUNCH;
}

/* What the source's migration has come to, of this record's txid. */
static enum vmsm_mig moving(const struct vmsm *sm)
{
	return sm->rec.txid && sm->mark.moving == sm->rec.txid ? (enum vmsm_mig)sm->mig : VMSM_M_NONE;
}

/* ---- what it does to QEMU */

static bool qemu_free(const struct vmsm *sm)
{
	return !sm->busy && !sm->cool;
}

static void command(struct out *o, enum vmsm_act what)
{
	act(o, what);
	o->sm->busy = what;
}

/* VM1.  The callers have seen to RUNNING(here) and to the QEMU being the one of this epoch. */
static void cont(struct out *o)
{
	struct vmsm *sm = o->sm;

	if (sm->prop || sm->open || !qemu_free(sm))
		return;
	sm->mark.bound = sm->rec.epoch;
	sm->mark.resumed = 1;
	sm->mark.moving = 0;
	sm->mark.offered = 0;
	mark(o);
	command(o, VMSM_A_CONT);
}

static void kill_it(struct out *o)
{
	struct vmsm *sm = o->sm;

	act(o, VMSM_A_KILL);
	sm->qemu = VMSM_Q_DYING;
	sm->busy = 0;
}

/* A QEMU that has no right to be here: stopped at once where it executes, killed. */
static void reap(struct out *o)
{
	struct vmsm *sm = o->sm;

	if (!is_there(sm) || (sm->mutate & VMSM_MUT_NO_REAPER))
		return;
	if (sm->qemu == VMSM_Q_RUNNING && !sm->reaping) {
		sm->reaping = 1;
		note(o, VMSM_NOTE_REAPED);
		if (!sm->busy)
			command(o, VMSM_A_STOP);
		timer(o, VMSM_T_REAP, sm->conf.reap_ms);
		return;
	}
	if (sm->reaping && sm->qemu == VMSM_Q_RUNNING && armed(sm, VMSM_T_REAP))
		return;
	if (!sm->reaping && (sm->mark.resumed || !sm->mark.txid))
		note(o, VMSM_NOTE_REAPED);
	kill_it(o);
}

/* Its memory is of another epoch than the record (VM1). */
static void stale(struct out *o)
{
	if (o->sm->mutate & VMSM_MUT_NO_REAPER)
		return;
	note(o, VMSM_NOTE_STALE);
	kill_it(o);
}

static void propose(struct out *o, enum lease_move move, enum lease_reason reason)
{
	struct vmsm *sm = o->sm;
	struct vmsm_action *a;

	if (sm->prop || sm->open || sm->refused == move)
		return;
	a = act(o, VMSM_A_PROPOSE);
	memcpy(a->cas.vm, sm->vm, sizeof(a->cas.vm));
	a->ring = sm->ring;
	a->cas.version = sm->rec.version;
	a->cas.move = move;
	a->cas.role = LEASE_BY_AGENT;
	a->cas.want = sm->rec.want;
	a->cas.reason = reason;
	a->cas.by = sm->conf.self;
	a->cas.by_inc = sm->conf.self_inc;
	a->cas.txid = sm->rec.txid;
	if (move == LEASE_RELEASE && reason == LEASE_REASON_GUEST_OFF)
		a->cas.want = LEASE_WANT_STOPPED;
	sm->prop = move;
}

/* Said now, and again every announce_ms while it is true. */
static void say(struct out *o, enum vmsm_said what, uint32_t node)
{
	struct vmsm *sm = o->sm;
	struct vmsm_action *a;

	if (armed(sm, VMSM_T_ANNOUNCE))
		return;
	a = act(o, VMSM_A_SAY);
	a->say = what;
	a->txid = sm->rec.txid;
	a->node = node;
	timer(o, VMSM_T_ANNOUNCE, sm->conf.announce_ms);
}

/* ---- by what the record says */

/* Is the QEMU that is here the one that RUNNING(here) speaks of?  false: it has been seen to. */
static bool right_one(struct out *o)
{
	struct vmsm *sm = o->sm;
	bool returned = (sm->rec.flags & LEASE_RETURNED) && sm->mark.offered == sm->rec.txid;

	if (sm->qemu == VMSM_Q_NONE) {
		enum lease_reason why = sm->guest_off ? LEASE_REASON_GUEST_OFF : LEASE_REASON_LOST_QEMU;

		propose(o, LEASE_RELEASE, sm->rec.want == LEASE_WANT_STOPPED ? LEASE_REASON_NONE : why);
		return false;
	}
	if (sm->mutate & VMSM_MUT_NO_REAPER)
		return true;
	if ((sm->mark.bound == sm->rec.epoch || returned) && sm->qemu != VMSM_Q_INCOMING)
		return true;
	stale(o);
	return false;
}

static void as_wanted(struct out *o)
{
	struct vmsm *sm = o->sm;

	if (sm->rec.flags & LEASE_GUESSED)	/* it stays as it is until the definition is read */
		return;
	switch (sm->rec.want) {
	case LEASE_WANT_RUN:
		sm->asked_off = 0;
		if (is_stopped(sm) || (sm->qemu == VMSM_Q_IOERROR && !sm->storage_bad))
			cont(o);
		return;
	case LEASE_WANT_PAUSED:
		if (sm->qemu == VMSM_Q_RUNNING && qemu_free(sm))
			command(o, VMSM_A_STOP);
		return;
	default:
		if (sm->qemu != VMSM_Q_RUNNING) {
			kill_it(o);
			return;
		}
		if (!sm->asked_off) {
			sm->asked_off = 1;
			act(o, VMSM_A_POWERDOWN);
			timer(o, VMSM_T_STOP, sm->conf.stop_ms);
		} else if (!armed(sm, VMSM_T_STOP)) {
			note(o, VMSM_NOTE_NO_SHUTDOWN);
			kill_it(o);
		}
	}
}

static void running(struct out *o)
{
	struct vmsm *sm = o->sm;

	if (!right_one(o))
		return;
	/* a migration that the record does not know any more */
	if (sm->mark.moving && sm->mig >= VMSM_M_ASKED && sm->mig <= VMSM_M_PRESWITCH && sm->rec.txid != sm->mark.moving) {
		if (qemu_free(sm))
			command(o, VMSM_A_MIGRATE_CANCEL);
		return;
	}
	as_wanted(o);
}

/* The migration is over for the source: back to work, then the record. */
static void go_on(struct out *o)
{
	struct vmsm *sm = o->sm;

	if (is_stopped(sm) && sm->rec.want == LEASE_WANT_RUN) {
		cont(o);
		return;
	}
	if (sm->busy)
		return;
	propose(o, LEASE_ABORT, LEASE_REASON_NONE);
}

static void cancel_migration(struct out *o)
{
	if (qemu_free(o->sm))
		command(o, VMSM_A_MIGRATE_CANCEL);
}

/* Steps 2 to 5. */
static void source(struct out *o)
{
	struct vmsm *sm = o->sm;
	struct vmsm_action *a;

	if (!right_one(o))
		return;
	if (!sm->peer_here)
		sm->give_up = 1;
	switch (moving(sm)) {
	case VMSM_M_NONE:
		if (sm->give_up) {
			go_on(o);
		} else if (sm->ready && qemu_free(sm)) {
			sm->mark.moving = sm->rec.txid;
			sm->mig = VMSM_M_ASKED;
			mark(o);
			a = act(o, VMSM_A_MIGRATE);
			a->txid = sm->rec.txid;
			a->node = sm->rec.peer;
			sm->busy = VMSM_A_MIGRATE;
		} else {
			if (!sm->ready && !armed(sm, VMSM_T_READY))
				timer(o, VMSM_T_READY, sm->conf.ready_ms);
			as_wanted(o);
		}
		return;
	case VMSM_M_ASKED:
	case VMSM_M_ACTIVE:
		if (sm->give_up)
			cancel_migration(o);
		return;
	case VMSM_M_PRESWITCH:
		if (sm->give_up)
			cancel_migration(o);
		else if (qemu_free(sm))
			command(o, VMSM_A_MIGRATE_CONTINUE);
		return;
	case VMSM_M_DEVICE:
		/* A target that is lost now says nothing for as long as TCP tries.  What it has of the guest is not the right to run it. */
		if (sm->give_up)
			cancel_migration(o);
		return;
	case VMSM_M_COMPLETED:
		if (sm->qemu == VMSM_Q_PAUSED && !sm->give_up && !sm->busy) {
			if (sm->prop || sm->open)
				return;
			sm->mark.offered = sm->rec.txid;
			sm->mark.to = sm->rec.peer;
			sm->mark.to_inc = sm->rec.peer_inc;
			mark(o);
			propose(o, LEASE_HANDOVER, LEASE_REASON_NONE);
			return;
		}
		if (sm->busy)
			return;
		sm->give_up = 1;
		if ((sm->mutate & VMSM_MUT_NO_OPEN) && sm->prop == LEASE_HANDOVER)
			sm->prop = 0;
		go_on(o);
		return;
	case VMSM_M_FAILED:
		if (!sm->give_up)
			note(o, VMSM_NOTE_MIGRATION_FAILED);
		sm->give_up = 1;
		go_on(o);
		return;
	default:
		return;
	}
}

/* The target refused, or is proven dead: the copy here is the only one, and nobody has written since. */
static void returned(struct out *o)
{
	struct vmsm *sm = o->sm;

	if (!right_one(o))
		return;
	if (sm->mark.bound != sm->rec.epoch) {
		sm->mark.bound = sm->rec.epoch;
		sm->mark.offered = 0;		/* the outcome is final: this memory is the newest again */
		mark(o);
	}
	go_on(o);
}

/* Step 6 done here: RUNNING(here), the source still has its paused copy. */
static void moved_target(struct out *o)
{
	struct vmsm *sm = o->sm;

	if (!right_one(o))
		return;
	if (sm->qemu == VMSM_Q_RUNNING || sm->rec.want != LEASE_WANT_RUN) {
		if (!sm->peer_here)
			propose(o, LEASE_CLOSE, LEASE_REASON_NONE);
		else
			say(o, VMSM_SAY_RESUMED, sm->rec.peer);
	}
	as_wanted(o);
}

/* Step 7: the copy here is of no use any more, once the target is seen running. */
static void moved_source(struct out *o)
{
	struct vmsm *sm = o->sm;

	if (sm->qemu == VMSM_Q_NONE) {
		propose(o, LEASE_CLOSE, LEASE_REASON_NONE);
	} else if (sm->qemu == VMSM_Q_RUNNING) {
		reap(o);
	} else if (sm->resumed && is_there(sm) && !(sm->mutate & VMSM_MUT_NO_REAPER)) {
		act(o, VMSM_A_QUIT);
		sm->qemu = VMSM_Q_DYING;
		sm->busy = 0;
	}
}

static bool is_incoming_of(const struct vmsm *sm, uint64_t txid)
{
	return sm->mark.txid == txid && (sm->qemu == VMSM_Q_INCOMING || sm->qemu == VMSM_Q_PAUSED);
}

static bool is_complete(const struct vmsm *sm)
{
	return is_incoming_of(sm, sm->rec.txid) && sm->qemu == VMSM_Q_PAUSED && sm->mig == VMSM_M_COMPLETED;
}

/* Step 1 on the target. */
static void target(struct out *o)
{
	struct vmsm *sm = o->sm;
	struct vmsm_action *a;

	if (sm->qemu == VMSM_Q_NONE) {
		if (sm->failed && sm->failed_key == sm->rec.txid) {
			say(o, VMSM_SAY_FAILED, sm->rec.owner);
			return;
		}
		memset(&sm->mark, 0, sizeof(sm->mark));
		sm->mark.txid = sm->rec.txid;
		sm->mark.config = sm->rec.config;
		mark(o);
		a = act(o, VMSM_A_SPAWN_INCOMING);
		a->txid = sm->rec.txid;
		a->node = sm->rec.owner;
		a->config = sm->rec.config;
		sm->qemu = VMSM_Q_STARTING;
		return;
	}
	if (!is_incoming_of(sm, sm->rec.txid)) {
		reap(o);
		return;
	}
	if ((sm->mutate & VMSM_MUT_STEP4) && is_complete(sm) && !sm->peer_here) {
		sm->mark.bound = sm->rec.epoch + 1;
		mark(o);
		propose(o, LEASE_ACCEPT, LEASE_REASON_NONE);
		return;
	}
	if (sm->qemu == VMSM_Q_INCOMING && sm->mig != VMSM_M_COMPLETED)
		say(o, VMSM_SAY_READY, sm->rec.owner);
}

/* Steps 5 and 6 on the target: HANDOFF(here). */
static void handoff_target(struct out *o)
{
	struct vmsm *sm = o->sm;

	if (sm->qemu == VMSM_Q_NONE) {
		propose(o, LEASE_REFUSE, LEASE_REASON_NONE);
		return;
	}
	if (!is_incoming_of(sm, sm->rec.txid)) {
		reap(o);
		return;
	}
	if (is_complete(sm)) {
		if (sm->mark.bound != sm->rec.epoch) {
			sm->mark.bound = sm->rec.epoch;
			mark(o);
		}
		propose(o, LEASE_ACCEPT, LEASE_REASON_NONE);
	} else if (!armed(sm, VMSM_T_HANDOFF)) {
		timer(o, VMSM_T_HANDOFF, sm->conf.handoff_ms);
	}
}

/* Step 5 done on the source: nothing, until the record says RUNNING(somebody). */
static void handoff_source(struct out *o)
{
	struct vmsm *sm = o->sm;

	if (sm->qemu == VMSM_Q_RUNNING)
		reap(o);
	if ((sm->mutate & VMSM_MUT_HANDOFF) && !sm->peer_here && sm->qemu == VMSM_Q_PAUSED)
		cont(o);
}

static void recovering(struct out *o)
{
	struct vmsm *sm = o->sm;
	struct vmsm_action *a;

	if ((sm->mutate & VMSM_MUT_NO_REAPER) && is_there(sm)) {
		propose(o, LEASE_STARTED, LEASE_REASON_NONE);
		return;
	}
	if (sm->qemu == VMSM_Q_NONE) {
		if (sm->rec.want == LEASE_WANT_STOPPED) {
			propose(o, LEASE_FAILED, LEASE_REASON_NONE);
		} else if (sm->failed && sm->failed_key == sm->rec.epoch) {
			propose(o, LEASE_FAILED, LEASE_REASON_START_FAILED);
		} else {
			memset(&sm->mark, 0, sizeof(sm->mark));
			sm->mark.bound = sm->rec.epoch;
			sm->mark.config = sm->rec.config;
			mark(o);
			a = act(o, VMSM_A_SPAWN);
			a->config = sm->rec.config;
			sm->qemu = VMSM_Q_STARTING;
		}
		return;
	}
	if (sm->qemu != VMSM_Q_PRELAUNCH || sm->mark.bound != sm->rec.epoch || sm->mark.txid || sm->mark.resumed)
		reap(o);
	else if (sm->rec.want == LEASE_WANT_STOPPED)
		kill_it(o);
	else
		propose(o, LEASE_STARTED, LEASE_REASON_NONE);
}

/*
 * No settled records (VM5).  A source that stands still for a migration that came to nothing goes on: it is the owner by the last
 * record, it has offered nothing, and nobody takes a lease from an owner without a proof about it.
 */
static void undecided(struct out *o)
{
	struct vmsm *sm = o->sm;

	if (!sm->have_rec || !lease_is_intent(&sm->rec) || !is_me(sm, sm->rec.owner, sm->rec.owner_inc) || sm->mark.bound != sm->rec.epoch ||
	    sm->mark.offered || sm->prop || sm->open)
		return;
	if (moving(sm) == VMSM_M_PRESWITCH || moving(sm) == VMSM_M_DEVICE) {
		sm->give_up = 1;
		cancel_migration(o);
	} else if ((moving(sm) == VMSM_M_COMPLETED || moving(sm) == VMSM_M_FAILED) && sm->qemu == VMSM_Q_PAUSED && sm->rec.want == LEASE_WANT_RUN) {
		sm->give_up = 1;
		cont(o);
	}
}

static void decide(struct out *o)
{
	struct vmsm *sm = o->sm;
	const struct lease *r = &sm->rec;
	bool mine = is_me(sm, r->owner, r->owner_inc), peer = r->txid && is_me(sm, r->peer, r->peer_inc);

	if (sm->qemu == VMSM_Q_UNKNOWN || sm->qemu == VMSM_Q_STARTING || sm->qemu == VMSM_Q_DYING)
		return;
	if (!sm->settled) {
		undecided(o);
		return;
	}
	switch (r->state) {
	case LEASE_RECOVERING:
		if (mine)
			recovering(o);
		else
			reap(o);
		return;
	case LEASE_RUNNING:
		if (mine && r->txid && (r->flags & LEASE_MOVED))
			moved_target(o);
		else if (mine && r->txid && (r->flags & LEASE_RETURNED))
			returned(o);
		else if (mine && r->txid)
			source(o);
		else if (mine)
			running(o);
		else if (peer && (r->flags & LEASE_MOVED))
			moved_source(o);
		else if (peer && !(r->flags & LEASE_RETURNED))
			target(o);
		else
			reap(o);
		return;
	case LEASE_HANDOFF:
		if (mine)
			handoff_target(o);
		else if (peer)
			handoff_source(o);
		else
			reap(o);
		return;
	case LEASE_BLOCKED:
		if (r->reason == LEASE_REASON_COLD)
			return;
		if (mine)
			propose(o, LEASE_UNBLOCK, LEASE_REASON_NONE);
		else if (!peer || sm->qemu == VMSM_Q_RUNNING)
			reap(o);
		return;
	default:
		reap(o);
	}
}

/* ---- facts */

static void forget_qemu(struct vmsm *sm)
{
	sm->qemu = VMSM_Q_NONE;
	sm->mig = VMSM_M_NONE;
	sm->busy = 0;
	sm->reaping = 0;
	sm->asked_off = 0;
	sm->storage_bad = 0;
	memset(&sm->mark, 0, sizeof(sm->mark));
}

static void on_record(struct vmsm *sm, const struct vmsm_event *ev)
{
	if (ev->ring != sm->ring)	/* VM8 */
		sm->prop = 0;
	if (!sm->have_rec || ev->rec.txid != sm->rec.txid) {
		sm->ready = 0;
		sm->resumed = 0;
		sm->give_up = 0;
		sm->timers &= ~(1u << VMSM_T_READY | 1u << VMSM_T_ANNOUNCE | 1u << VMSM_T_HANDOFF);
	}
	if (ev->rec.state != sm->rec.state || ev->rec.owner != sm->rec.owner)
		sm->timers &= ~(1u << VMSM_T_ANNOUNCE);
	if (ev->rec.version != sm->rec.version || ev->ring != sm->ring)
		sm->refused = 0;
	sm->rec = ev->rec;
	sm->ring = ev->ring;
	sm->open = ev->open;
	sm->peer_here = ev->peer_here;
	sm->have_rec = 1;
	sm->settled = 1;
}

static void on_qemu(struct vmsm *sm, enum vmsm_qemu qemu, enum vmsm_mig mig)
{
	if (sm->qemu == VMSM_Q_DYING || sm->qemu == VMSM_Q_NONE)
		return;
	sm->qemu = qemu;
	/* An answer that was asked for before the switch-over went on: it does not come back. */
	if (sm->mig != VMSM_M_DEVICE || mig != VMSM_M_PRESWITCH)
		sm->mig = mig;
	if (qemu == VMSM_Q_IOERROR)
		sm->storage_bad = 1;
	if (qemu == VMSM_Q_RUNNING)
		sm->storage_bad = 0;
}

static void on_done(struct out *o, const struct vmsm_event *ev)
{
	struct vmsm *sm = o->sm;

	if (sm->busy != ev->done)
		return;
	sm->busy = 0;
	if (!ev->status) {
		if (ev->done == VMSM_A_MIGRATE_CONTINUE && sm->mig == VMSM_M_PRESWITCH)
			sm->mig = VMSM_M_DEVICE;
		if (ev->done == VMSM_A_CONT && (sm->rec.flags & LEASE_MOVED))
			act(o, VMSM_A_ANNOUNCE_SELF);
		return;
	}
	if (ev->done == VMSM_A_MIGRATE)
		sm->mig = VMSM_M_FAILED;
	else if (ev->done == VMSM_A_MIGRATE_CONTINUE)
		sm->give_up = 1;
	else if (!sm->cool) {
		sm->cool = 1;
		timer(o, VMSM_T_RETRY, sm->conf.retry_ms);
	}
}

static void on_gone(struct out *o, const struct vmsm_event *ev)
{
	struct vmsm *sm = o->sm;
	bool expected = sm->qemu == VMSM_Q_DYING;

	sm->ended = csv_max(sm->ended, sm->mark.bound);
	if (sm->mark.txid && !sm->mark.bound) {
		sm->failed = 1;		/* a target is made once for a txid */
		sm->failed_key = sm->mark.txid;
	}
	sm->guest_off = ev->guest_off;
	if (!expected && !ev->guest_off && sm->mark.resumed)
		note(o, VMSM_NOTE_QEMU_LOST);
	forget_qemu(sm);
}

static void on_spawned(struct out *o, const struct vmsm_event *ev)
{
	struct vmsm *sm = o->sm;

	if (sm->qemu != VMSM_Q_STARTING)
		return;
	if (!ev->status) {
		sm->guest_off = 0;
		sm->qemu = VMSM_Q_PRELAUNCH;
		on_qemu(sm, ev->qemu, ev->mig);
		return;
	}
	sm->failed = 1;
	sm->failed_key = sm->mark.txid ? sm->mark.txid : sm->mark.bound;
	note(o, VMSM_NOTE_START_FAILED);
	forget_qemu(sm);
}

static void on_outcome(struct out *o, const struct vmsm_event *ev)
{
	struct vmsm *sm = o->sm;
	uint8_t move = sm->prop;

	sm->prop = 0;
	sm->open = 0;
	if (!ev->status || ev->status == -ECANCELED || !move)
		return;
	if (move == LEASE_HANDOVER)
		sm->give_up = 1;
	sm->refused = move;
	timer(o, VMSM_T_RETRY, sm->conf.retry_ms);
}

static void on_timer(struct out *o, enum vmsm_timer t)
{
	struct vmsm *sm = o->sm;

	if (!armed(sm, t))
		return;
	sm->timers &= ~(1u << t);
	switch (t) {
	case VMSM_T_READY:
		if (moving(sm) == VMSM_M_NONE)
			sm->give_up = 1;
		return;
	case VMSM_T_HANDOFF:
		if (sm->settled && sm->rec.state == LEASE_HANDOFF && is_me(sm, sm->rec.owner, sm->rec.owner_inc) && is_there(sm) && !is_complete(sm))
			kill_it(o);
		return;
	case VMSM_T_RETRY:
		sm->refused = 0;
		sm->cool = 0;
		return;
	default:
		return;
	}
}

unsigned vmsm_step(struct vmsm *sm, const struct vmsm_event *ev, struct vmsm_action ret[VMSM_ACTIONS_MAX])
{
	struct out o = { sm, ret, 0 };

	switch (ev->ev) {
	case VMSM_EV_RECORD:
		on_record(sm, ev);
		break;
	case VMSM_EV_UNSETTLED:
		sm->settled = 0;
		break;
	case VMSM_EV_OUTCOME:
		on_outcome(&o, ev);
		break;
	case VMSM_EV_ADOPT:
		forget_qemu(sm);
		if (ev->qemu != VMSM_Q_NONE) {
			sm->mark = ev->mark;
			sm->qemu = VMSM_Q_PRELAUNCH;
			on_qemu(sm, ev->qemu, ev->mig);
		}
		break;
	case VMSM_EV_STATUS:
		on_qemu(sm, ev->qemu, ev->mig);
		break;
	case VMSM_EV_SPAWNED:
		on_spawned(&o, ev);
		break;
	case VMSM_EV_GONE:
		on_gone(&o, ev);
		break;
	case VMSM_EV_DONE:
		on_done(&o, ev);
		break;
	case VMSM_EV_HEARD:
		if (!sm->have_rec || ev->txid != sm->rec.txid)
			break;
		sm->ready |= ev->said == VMSM_SAY_READY;
		sm->resumed |= ev->said == VMSM_SAY_RESUMED;
		sm->give_up |= ev->said == VMSM_SAY_FAILED;
		break;
	case VMSM_EV_CANCEL:
		if (sm->have_rec && ev->txid == sm->rec.txid)
			sm->give_up = 1;
		break;
	case VMSM_EV_TIMER:
		on_timer(&o, ev->timer);
		break;
	case VMSM_EV_STORAGE_OK:
		sm->storage_bad = 0;
		break;
	case VMSM_EV_KILL:
		if (is_there(sm) || sm->qemu == VMSM_Q_STARTING)
			kill_it(&o);
		break;
	default:
		break;
	}
	decide(&o);
	return o.n;
}

/* ---- the rest */

struct vmsm_conf vmsm_conf_default(uint32_t self, uint64_t self_inc)
{
	struct vmsm_conf c = { self, 0, self_inc, 60000, 1000, 1000, 60000, 10000, 500 };

	return c;
}

void vmsm_init(struct vmsm *sm, const char *vm, const struct vmsm_conf *conf)
{
	csv_assert(lease_vm_valid(vm));
	memset(sm, 0, sizeof(*sm));
	memcpy(sm->vm, vm, strlen(vm));
	sm->conf = *conf;
}

void vmsm_remember(struct vmsm *sm, uint64_t ended)
{
	sm->ended = csv_max(sm->ended, ended);
}

bool vmsm_inventory(struct vmsm *sm, struct leasedb_item *ret)
{
	csv_assert(sm->qemu != VMSM_Q_UNKNOWN);
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->vm, sm->vm, sizeof(ret->vm));
	ret->ended = sm->mutate & VMSM_MUT_FORGET ? 0 : sm->ended;
	if (sm->qemu == VMSM_Q_NONE)
		return ret->ended != 0;
	ret->epoch = sm->mark.bound;
	ret->config = sm->mark.config;
	if (sm->qemu == VMSM_Q_RUNNING || sm->busy == VMSM_A_CONT)
		ret->flags = LEASEDB_ITEM_EXEC;
	else if (sm->qemu == VMSM_Q_DYING)
		ret->flags = sm->mark.resumed && !sm->mark.offered ? LEASEDB_ITEM_EXEC : 0;
	else if (sm->mark.resumed)
		ret->flags = sm->mark.offered ? LEASEDB_ITEM_RESUMED : LEASEDB_ITEM_SURE;
	if (ret->flags & LEASEDB_ITEM_RESUMED) {
		ret->peer = sm->mark.to;
		ret->peer_inc = sm->mark.to_inc;
	}
	return true;
}

const char *vmsm_qemu_name(enum vmsm_qemu q)
{
	static const char *const name[VMSM_Q_END] = { "unknown", "none", "starting", "prelaunch", "incoming", "running", "paused", "io-error", "dying" };

	return (unsigned)q < VMSM_Q_END ? name[q] : "?";
}

const char *vmsm_mig_name(enum vmsm_mig m)
{
	static const char *const name[VMSM_M_END] = { "none", "asked", "active", "pre-switchover", "device", "completed", "failed" };

	return (unsigned)m < VMSM_M_END ? name[m] : "?";
}

const char *vmsm_act_name(enum vmsm_act a)
{
	static const char *const name[] = { "nothing", "spawn", "spawn incoming", "cont", "stop", "migrate", "migrate-continue", "migrate_cancel",
		"announce-self", "powerdown", "kill", "quit", "mark", "propose", "say", "timer", "event" };

	return (unsigned)a < ARRAY_SIZE(name) ? name[a] : "?";
}

unsigned vmsm_migration_step(const struct vmsm *sm)
{
	const struct lease *r = &sm->rec;

	if (!sm->have_rec || !r->txid)
		return 0;
	if (r->state == LEASE_HANDOFF)
		return 6;
	if (r->state != LEASE_RUNNING)
		return 0;
	if (r->flags & LEASE_MOVED)
		return 7;
	switch (moving(sm)) {
	case VMSM_M_NONE:
		return 1;
	case VMSM_M_ASKED:
	case VMSM_M_ACTIVE:
		return 2;
	case VMSM_M_PRESWITCH:
	case VMSM_M_DEVICE:
		return 3;
	case VMSM_M_COMPLETED:
		return sm->mark.offered ? 5 : 4;
	default:
		return 0;
	}
}
