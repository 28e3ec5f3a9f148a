/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmsm_act.c - the list of actions of one event: what QEMU is told to do, what is written, proposed, said and timed.
 *
 * Here are the guards that hold whatever was decided: CONT with no proposal open (VM1), the mark before what it speaks of (VM6), one
 * proposal at a time with the ring of its record (VM8).
 */
#include "hvhost/vmsm_internal.h"

#include "utils/base/err.h"

struct vmsm_action *vmsm_out_act(struct vmsm_out *o, enum vmsm_act what)
{
	struct vmsm_action *a;

	csv_assert(o->n < VMSM_ACTIONS_MAX);
	a = &o->a[o->n++];
	memset(a, 0, sizeof(*a));
	a->act = what;
	return a;
}

void vmsm_out_note(struct vmsm_out *o, enum vmsm_note n)
{
	vmsm_out_act(o, VMSM_A_EVENT)->note = n;
}

void vmsm_out_mark(struct vmsm_out *o)
{
	vmsm_out_act(o, VMSM_A_MARK);
}

void vmsm_out_timer(struct vmsm_out *o, enum vmsm_timer t, uint32_t ms)
{
	struct vmsm_action *a = vmsm_out_act(o, VMSM_A_TIMER);

	a->timer = t;
	a->ms = ms;
	o->sm->timers |= 1u << t;
}

void vmsm_out_propose(struct vmsm_out *o, enum lease_move move, enum lease_reason reason)
{
	struct vmsm *sm = o->sm;
	struct vmsm_action *a;

	if (sm->prop || sm->open || sm->refused == move)
		return;
	a = vmsm_out_act(o, VMSM_A_PROPOSE);
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
void vmsm_out_say(struct vmsm_out *o, enum vmsm_said what, uint32_t node)
{
	struct vmsm *sm = o->sm;
	struct vmsm_action *a;

	if (vmsm_timer_is_armed(sm, VMSM_T_ANNOUNCE))
		return;
	a = vmsm_out_act(o, VMSM_A_SAY);
	a->say = what;
	a->txid = sm->rec.txid;
	a->node = node;
	vmsm_out_timer(o, VMSM_T_ANNOUNCE, sm->conf.announce_ms);
}

/* ---- QEMU */

void vmsm_qemu_command(struct vmsm_out *o, enum vmsm_act what)
{
	vmsm_out_act(o, what);
	o->sm->busy = what;
}

/* VM1.  The callers have seen to RUNNING(here) and to the QEMU being the one of this epoch. */
void vmsm_qemu_cont(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;

	if (sm->prop || sm->open || !vmsm_qemu_is_free(sm))
		return;
	sm->mark.bound = sm->rec.epoch;
	sm->mark.resumed = 1;
	sm->mark.moving = 0;
	sm->mark.offered = 0;
	vmsm_out_mark(o);
	vmsm_qemu_command(o, VMSM_A_CONT);
}

void vmsm_qemu_kill(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;

	vmsm_out_act(o, VMSM_A_KILL);
	sm->qemu = VMSM_Q_DYING;
	sm->busy = 0;
}

/* A QEMU that has no right to be here: stopped at once where it executes, killed. */
void vmsm_qemu_reap(struct vmsm_out *o)
{
	struct vmsm *sm = o->sm;

	if (!vmsm_qemu_is_there(sm) || (sm->mutate & VMSM_MUT_NO_REAPER))
		return;
	if (sm->qemu == VMSM_Q_RUNNING && !sm->reaping) {
		sm->reaping = 1;
		vmsm_out_note(o, VMSM_NOTE_REAPED);
		if (!sm->busy)
			vmsm_qemu_command(o, VMSM_A_STOP);
		vmsm_out_timer(o, VMSM_T_REAP, sm->conf.reap_ms);
		return;
	}
	if (sm->reaping && sm->qemu == VMSM_Q_RUNNING && vmsm_timer_is_armed(sm, VMSM_T_REAP))
		return;
	if (!sm->reaping && (sm->mark.resumed || !sm->mark.txid))
		vmsm_out_note(o, VMSM_NOTE_REAPED);
	vmsm_qemu_kill(o);
}
