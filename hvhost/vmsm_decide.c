/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmsm_decide.c - what is to be done, from the record and the facts; which event has just come is not asked.
 *
 * One function for each place of a VM in the table of steps (vmsm.h): its record's state, and whether this node is owner or peer.
 * Without settled records only undecided() may act (VM5).
 */
#include "hvhost/vmsm_internal.h"

/* Its memory is of another epoch than the record (VM1). */
static void stale(struct vmsm_out *o)
{
	if (o->sm->mutate & VMSM_MUT_NO_REAPER)
		return;
	vmsm_out_note(o, VMSM_NOTE_STALE);
	vmsm_qemu_kill(o);
}

/* Is the QEMU that is here the one that RUNNING(here) speaks of?  false: it has been seen to. */
static bool right_one(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;
	bool returned = (sm->rec.flags & LEASE_RETURNED) && sm->mark.offered == sm->rec.txid;

	if (sm->qemu == VMSM_Q_NONE) {
		enum lease_reason why = sm->guest_off ? LEASE_REASON_GUEST_OFF : LEASE_REASON_LOST_QEMU;

		vmsm_out_propose(o, LEASE_RELEASE, sm->rec.want == LEASE_WANT_STOPPED ? LEASE_REASON_NONE : why);
		return false;
	}
	if (sm->mutate & VMSM_MUT_NO_REAPER)
		return true;
	if ((sm->mark.bound == sm->rec.epoch || returned) && sm->qemu != VMSM_Q_INCOMING)
		return true;
	stale(o);
	return false;
}

static void as_wanted(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;

	if (sm->rec.flags & LEASE_GUESSED)	/* it stays as it is until the definition is read */
		return;
	switch (sm->rec.want) {
	case LEASE_WANT_RUN:
		sm->asked_off = 0;
		if (vmsm_qemu_is_stopped(sm) || (sm->qemu == VMSM_Q_IOERROR && !sm->storage_bad))
			vmsm_qemu_cont(o);
		return;
	case LEASE_WANT_PAUSED:
		if (sm->qemu == VMSM_Q_RUNNING && vmsm_qemu_is_free(sm))
			vmsm_qemu_command(o, VMSM_A_STOP);
		return;
	default:
		if (sm->qemu != VMSM_Q_RUNNING) {
			vmsm_qemu_kill(o);
			return;
		}
		if (!sm->asked_off) {
			sm->asked_off = 1;
			vmsm_out_act(o, VMSM_A_POWERDOWN);
			vmsm_out_timer(o, VMSM_T_STOP, sm->conf.stop_ms);
		} else if (!vmsm_timer_is_armed(sm, VMSM_T_STOP)) {
			vmsm_out_note(o, VMSM_NOTE_NO_SHUTDOWN);
			vmsm_qemu_kill(o);
		}
	}
}

static void running(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;

	if (!right_one(o))
		return;
	/* a migration that the record does not know any more */
	if (sm->mark.moving && sm->mig >= VMSM_M_ASKED && sm->mig <= VMSM_M_PRESWITCH && sm->rec.txid != sm->mark.moving) {
		if (vmsm_qemu_is_free(sm))
			vmsm_qemu_command(o, VMSM_A_MIGRATE_CANCEL);
		return;
	}
	as_wanted(o);
}

/* The migration is over for the source: back to work, then the record. */
static void go_on(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;

	if (vmsm_qemu_is_stopped(sm) && sm->rec.want == LEASE_WANT_RUN) {
		vmsm_qemu_cont(o);
		return;
	}
	if (sm->busy)
		return;
	vmsm_out_propose(o, LEASE_ABORT, LEASE_REASON_NONE);
}

static void cancel_migration(struct vmsm_out *o)
{
	if (vmsm_qemu_is_free(o->sm))
		vmsm_qemu_command(o, VMSM_A_MIGRATE_CANCEL);
}

/* Steps 2 to 5. */
static void source(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;
	struct vmsm_action *a;

	if (!right_one(o))
		return;
	if (!sm->peer_here)
		sm->give_up = 1;
	switch (vmsm_mig_now(sm)) {
	case VMSM_M_NONE:
		if (sm->give_up) {
			go_on(o);
		} else if (sm->ready && vmsm_qemu_is_free(sm)) {
			sm->mark.moving = sm->rec.txid;
			sm->mig = VMSM_M_ASKED;
			vmsm_out_mark(o);
			a = vmsm_out_act(o, VMSM_A_MIGRATE);
			a->txid = sm->rec.txid;
			a->node = sm->rec.peer;
			sm->busy = VMSM_A_MIGRATE;
		} else {
			if (!sm->ready && !vmsm_timer_is_armed(sm, VMSM_T_READY))
				vmsm_out_timer(o, VMSM_T_READY, sm->conf.ready_ms);
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
		else if (vmsm_qemu_is_free(sm))
			vmsm_qemu_command(o, VMSM_A_MIGRATE_CONTINUE);
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
			vmsm_out_mark(o);
			vmsm_out_propose(o, LEASE_HANDOVER, LEASE_REASON_NONE);
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
			vmsm_out_note(o, VMSM_NOTE_MIGRATION_FAILED);
		sm->give_up = 1;
		go_on(o);
		return;
	default:
		return;
	}
}

/* The target refused, or is proven dead: the copy here is the only one, and nobody has written since. */
static void returned(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;

	if (!right_one(o))
		return;
	if (sm->mark.bound != sm->rec.epoch) {
		sm->mark.bound = sm->rec.epoch;
		sm->mark.offered = 0;		/* the outcome is final: this memory is the newest again */
		vmsm_out_mark(o);
	}
	go_on(o);
}

/* Step 6 done here: RUNNING(here), the source still has its paused copy. */
static void moved_target(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;

	if (!right_one(o))
		return;
	if (sm->qemu == VMSM_Q_RUNNING || sm->rec.want != LEASE_WANT_RUN) {
		if (!sm->peer_here)
			vmsm_out_propose(o, LEASE_CLOSE, LEASE_REASON_NONE);
		else
			vmsm_out_say(o, VMSM_SAY_RESUMED, sm->rec.peer);
	}
	as_wanted(o);
}

/* Step 7: the copy here is of no use any more, once the target is seen running. */
static void moved_source(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;

	if (sm->qemu == VMSM_Q_NONE) {
		vmsm_out_propose(o, LEASE_CLOSE, LEASE_REASON_NONE);
	} else if (sm->qemu == VMSM_Q_RUNNING) {
		vmsm_qemu_reap(o);
	} else if (sm->resumed && vmsm_qemu_is_there(sm) && !(sm->mutate & VMSM_MUT_NO_REAPER)) {
		vmsm_out_act(o, VMSM_A_QUIT);
		sm->qemu = VMSM_Q_DYING;
		sm->busy = 0;
	}
}

/* Step 1 on the target. */
static void target(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;
	struct vmsm_action *a;

	if (sm->qemu == VMSM_Q_NONE) {
		if (sm->failed && sm->failed_key == sm->rec.txid) {
			vmsm_out_say(o, VMSM_SAY_FAILED, sm->rec.owner);
			return;
		}
		memset(&sm->mark, 0, sizeof(sm->mark));
		sm->mark.txid = sm->rec.txid;
		sm->mark.config = sm->rec.config;
		vmsm_out_mark(o);
		a = vmsm_out_act(o, VMSM_A_SPAWN_INCOMING);
		a->txid = sm->rec.txid;
		a->node = sm->rec.owner;
		a->config = sm->rec.config;
		sm->qemu = VMSM_Q_STARTING;
		return;
	}
	if (!vmsm_qemu_is_incoming(sm, sm->rec.txid)) {
		vmsm_qemu_reap(o);
		return;
	}
	if ((sm->mutate & VMSM_MUT_STEP4) && vmsm_qemu_is_complete(sm) && !sm->peer_here) {
		sm->mark.bound = sm->rec.epoch + 1;
		vmsm_out_mark(o);
		vmsm_out_propose(o, LEASE_ACCEPT, LEASE_REASON_NONE);
		return;
	}
	if (sm->qemu == VMSM_Q_INCOMING && sm->mig != VMSM_M_COMPLETED)
		vmsm_out_say(o, VMSM_SAY_READY, sm->rec.owner);
}

/* Steps 5 and 6 on the target: HANDOFF(here). */
static void handoff_target(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;

	if (sm->qemu == VMSM_Q_NONE) {
		vmsm_out_propose(o, LEASE_REFUSE, LEASE_REASON_NONE);
		return;
	}
	if (!vmsm_qemu_is_incoming(sm, sm->rec.txid)) {
		vmsm_qemu_reap(o);
		return;
	}
	if (vmsm_qemu_is_complete(sm)) {
		if (sm->mark.bound != sm->rec.epoch) {
			sm->mark.bound = sm->rec.epoch;
			vmsm_out_mark(o);
		}
		vmsm_out_propose(o, LEASE_ACCEPT, LEASE_REASON_NONE);
	} else if (!vmsm_timer_is_armed(sm, VMSM_T_HANDOFF)) {
		vmsm_out_timer(o, VMSM_T_HANDOFF, sm->conf.handoff_ms);
	}
}

/* Step 5 done on the source: nothing, until the record says RUNNING(somebody). */
static void handoff_source(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;

	if (sm->qemu == VMSM_Q_RUNNING)
		vmsm_qemu_reap(o);
	if ((sm->mutate & VMSM_MUT_HANDOFF) && !sm->peer_here && sm->qemu == VMSM_Q_PAUSED)
		vmsm_qemu_cont(o);
}

static void recovering(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;
	struct vmsm_action *a;

	if ((sm->mutate & VMSM_MUT_NO_REAPER) && vmsm_qemu_is_there(sm)) {
		vmsm_out_propose(o, LEASE_STARTED, LEASE_REASON_NONE);
		return;
	}
	if (sm->qemu == VMSM_Q_NONE) {
		if (sm->rec.want == LEASE_WANT_STOPPED) {
			vmsm_out_propose(o, LEASE_FAILED, LEASE_REASON_NONE);
		} else if (sm->failed && sm->failed_key == sm->rec.epoch) {
			vmsm_out_propose(o, LEASE_FAILED, LEASE_REASON_START_FAILED);
		} else {
			memset(&sm->mark, 0, sizeof(sm->mark));
			sm->mark.bound = sm->rec.epoch;
			sm->mark.config = sm->rec.config;
			vmsm_out_mark(o);
			a = vmsm_out_act(o, VMSM_A_SPAWN);
			a->config = sm->rec.config;
			sm->qemu = VMSM_Q_STARTING;
		}
		return;
	}
	if (sm->qemu != VMSM_Q_PRELAUNCH || sm->mark.bound != sm->rec.epoch || sm->mark.txid || sm->mark.resumed)
		vmsm_qemu_reap(o);
	else if (sm->rec.want == LEASE_WANT_STOPPED)
		vmsm_qemu_kill(o);
	else
		vmsm_out_propose(o, LEASE_STARTED, LEASE_REASON_NONE);
}

/*
 * No settled records (VM5).  A source that stands still for a migration that came to nothing goes on: it is the owner by the last
 * record, it has offered nothing, and nobody takes a lease from an owner without a proof about it.
 */
static void undecided(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;
	enum vmsm_mig now = vmsm_mig_now(sm);

	if (!sm->have_rec || !lease_is_intent(&sm->rec) || !vmsm_node_is_me(sm, sm->rec.owner, sm->rec.owner_inc) ||
	    sm->mark.bound != sm->rec.epoch || sm->mark.offered || sm->prop || sm->open)
		return;
	if (now == VMSM_M_PRESWITCH || now == VMSM_M_DEVICE) {
		sm->give_up = 1;
		cancel_migration(o);
	} else if ((now == VMSM_M_COMPLETED || now == VMSM_M_FAILED) && sm->qemu == VMSM_Q_PAUSED && sm->rec.want == LEASE_WANT_RUN) {
		sm->give_up = 1;
		vmsm_qemu_cont(o);
	}
}

void vmsm_decide(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;
	const struct lease *r = &sm->rec;
	bool mine = vmsm_node_is_me(sm, r->owner, r->owner_inc), peer = r->txid && vmsm_node_is_me(sm, r->peer, r->peer_inc);

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
			vmsm_qemu_reap(o);
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
			vmsm_qemu_reap(o);
		return;
	case LEASE_HANDOFF:
		if (mine)
			handoff_target(o);
		else if (peer)
			handoff_source(o);
		else
			vmsm_qemu_reap(o);
		return;
	case LEASE_BLOCKED:
		if (r->reason == LEASE_REASON_COLD)
			return;
		if (mine)
			vmsm_out_propose(o, LEASE_UNBLOCK, LEASE_REASON_NONE);
		else if (!peer || sm->qemu == VMSM_Q_RUNNING)
			vmsm_qemu_reap(o);
		return;
	default:
		vmsm_qemu_reap(o);
	}
}
