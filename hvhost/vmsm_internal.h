/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmsm_internal.h - shared by vmsm.c (facts), vmsm_decide.c (what the record and the facts call for) and vmsm_act.c (the list of actions).
 *
 * One event is one struct vmsm_out on vmsm_step()'s stack.  An action that will be answered is also noted in the state.
 */
#ifndef CSVFS_HVHOST_VMSM_INTERNAL_H
#define CSVFS_HVHOST_VMSM_INTERNAL_H

#include "hvhost/vmsm.h"

struct vmsm_out { struct vmsm *sm; struct vmsm_action *a; unsigned n; };

/* ---- what the facts amount to */

static inline bool vmsm_timer_is_armed(const struct vmsm *sm, enum vmsm_timer t)
{
	return sm->timers >> t & 1;
}

static inline bool vmsm_node_is_me(const struct vmsm *sm, uint32_t nodeid, uint64_t inc)
{
	return nodeid == sm->conf.self && inc == sm->conf.self_inc;
}

/* Exists, answers, and is not on its way out. */
static inline bool vmsm_qemu_is_there(const struct vmsm *sm)
{
	return sm->qemu >= VMSM_Q_PRELAUNCH && sm->qemu <= VMSM_Q_IOERROR;
}

static inline bool vmsm_qemu_is_stopped(const struct vmsm *sm)
{
	return sm->qemu == VMSM_Q_PAUSED || sm->qemu == VMSM_Q_PRELAUNCH;
}

/* What the source's migration has come to, of this record's txid. */
static inline enum vmsm_mig vmsm_mig_now(const struct vmsm *sm)
{
	return sm->rec.txid && sm->mark.moving == sm->rec.txid ? (enum vmsm_mig)sm->mig : VMSM_M_NONE;
}

static inline bool vmsm_qemu_is_free(const struct vmsm *sm)
{
	return !sm->busy && !sm->cool;
}

static inline bool vmsm_qemu_is_incoming(const struct vmsm *sm, uint64_t txid)
{
	return sm->mark.txid == txid && (sm->qemu == VMSM_Q_INCOMING || sm->qemu == VMSM_Q_PAUSED);
}

static inline bool vmsm_qemu_is_complete(const struct vmsm *sm)
{
	return vmsm_qemu_is_incoming(sm, sm->rec.txid) && sm->qemu == VMSM_Q_PAUSED && sm->mig == VMSM_M_COMPLETED;
}

/* vmsm_decide.c: looks at all facts; never asks which event it was */
void vmsm_decide(struct vmsm_out *o);

/* vmsm_act.c: the world */
struct vmsm_action *vmsm_out_act(struct vmsm_out *o, enum vmsm_act what);	/* the caller fills in the rest */
void vmsm_out_note(struct vmsm_out *o, enum vmsm_note n);
void vmsm_out_mark(struct vmsm_out *o);
void vmsm_out_timer(struct vmsm_out *o, enum vmsm_timer t, uint32_t ms);
/* Nothing while one is open, or after it was refused. */
void vmsm_out_propose(struct vmsm_out *o, enum lease_move move, enum lease_reason reason);
void vmsm_out_say(struct vmsm_out *o, enum vmsm_said what, uint32_t node);	/* now, and again every announce_ms while it is true */
/* vmsm_act.c: QEMU */
void vmsm_qemu_command(struct vmsm_out *o, enum vmsm_act what);		/* one that VMSM_EV_DONE answers */
void vmsm_qemu_cont(struct vmsm_out *o);				/* VM1 */
void vmsm_qemu_kill(struct vmsm_out *o);
void vmsm_qemu_reap(struct vmsm_out *o);

#endif
