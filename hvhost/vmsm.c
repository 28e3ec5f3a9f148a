/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmsm.c - one VM on one node: its facts, and what others may know of it.  The picture, the table of steps and the invariants: vmsm.h.
 *
 * vmsm_step() notes the event's facts, then vmsm_decide() looks at the record and says what to do.
 * What a membership change does: UNSETTLED, then RECORD of the new view; in between only undecided() of vmsm_decide.c may act (VM5).
 */
#include "hvhost/vmsm_internal.h"

#include <errno.h>

#include "utils/base/err.h"

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

static void on_done(struct vmsm_out *o, const struct vmsm_event *ev)
{
	struct vmsm *sm = o->sm;

	if (sm->busy != ev->done)
		return;
	sm->busy = 0;
	if (!ev->status) {
		if (ev->done == VMSM_A_MIGRATE_CONTINUE && sm->mig == VMSM_M_PRESWITCH)
			sm->mig = VMSM_M_DEVICE;
		if (ev->done == VMSM_A_CONT && (sm->rec.flags & LEASE_MOVED))
			vmsm_out_act(o, VMSM_A_ANNOUNCE_SELF);
		return;
	}
	if (ev->done == VMSM_A_MIGRATE)
		sm->mig = VMSM_M_FAILED;
	else if (ev->done == VMSM_A_MIGRATE_CONTINUE)
		sm->give_up = 1;
	else if (!sm->cool) {
		sm->cool = 1;
		vmsm_out_timer(o, VMSM_T_RETRY, sm->conf.retry_ms);
	}
}

static void on_gone(struct vmsm_out *o, const struct vmsm_event *ev)
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
		vmsm_out_note(o, VMSM_NOTE_QEMU_LOST);
	forget_qemu(sm);
}

static void on_spawned(struct vmsm_out *o, const struct vmsm_event *ev)
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
	vmsm_out_note(o, VMSM_NOTE_START_FAILED);
	forget_qemu(sm);
}

static void on_outcome(struct vmsm_out *o, const struct vmsm_event *ev)
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
	vmsm_out_timer(o, VMSM_T_RETRY, sm->conf.retry_ms);
}

static void on_timer(struct vmsm_out *o, enum vmsm_timer t)
{
	struct vmsm *sm = o->sm;

	if (!vmsm_timer_is_armed(sm, t))
		return;
	sm->timers &= ~(1u << t);
	switch (t) {
	case VMSM_T_READY:
		if (vmsm_mig_now(sm) == VMSM_M_NONE)
			sm->give_up = 1;
		return;
	case VMSM_T_HANDOFF:
		if (sm->settled && sm->rec.state == LEASE_HANDOFF && vmsm_node_is_me(sm, sm->rec.owner, sm->rec.owner_inc) &&
		    vmsm_qemu_is_there(sm) && !vmsm_qemu_is_complete(sm))
			vmsm_qemu_kill(o);
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
	struct vmsm_out o = { sm, ret, 0 };

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
		if (vmsm_qemu_is_there(sm) || sm->qemu == VMSM_Q_STARTING)
			vmsm_qemu_kill(&o);
		break;
	default:
		break;
	}
	vmsm_decide(&o);
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
	switch (vmsm_mig_now(sm)) {
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
