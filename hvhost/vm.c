/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vm.c - see vm.h: facts into the state machine, its actions into commands.
 */
#include "hvhost/vm_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "utils/base/text.h"

#define QUIT_MS 2000u
#define RESUMED_NS (150 * NS_PER_MS)

void vm_get(struct vm *vm)
{
	vm->refs++;
}

void vm_put(struct vm *vm)
{
	if (!--vm->refs)
		free(vm);
}

void vm_note(struct vm *vm, const char *severity, const char *command, const char *fmt, ...)
{
	char text[480];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (strcmp(severity, "info"))
		snprintf(vm->why, sizeof(vm->why), "%.230s", text);
	vm->h->ops->event(vm->h, vm, severity, text, command);
}

/* ---- letters to the other side --------------------------------------------------------------------------------------------- */

struct letter { struct vm *vm; uint32_t node; uint64_t txid; json_t *body; };

static void letter_coro(void *arg)
{
	struct letter *l = arg;
	struct vm *vm = l->vm;

	coro_sleep_ns(vm_sched(vm), RESUMED_NS);
	if (vm->freed)
		json_decref(l->body);
	else
		vm->h->ops->say(vm->h, vm, l->node, l->txid, l->body);
	vm_put(vm);
	free(l);
}

/*
 * "It runs here" makes the source's QEMU end, the record close, events and tables go round: work for every node.  The guest, which
 * stood still a moment ago, goes first.
 */
static void say(struct vm *vm, const struct vmsm_action *a)
{
	struct letter *l = a->say == VMSM_SAY_RESUMED ? malloc(sizeof(*l)) : NULL;

	if (!l) {
		vm->h->ops->say(vm->h, vm, a->node, a->txid, vm_letter(vm, a->say));
		return;
	}
	*l = (struct letter){ vm, a->node, a->txid, vm_letter(vm, a->say) };
	vm_get(vm);
	if (sched_spawn(vm_sched(vm), "letter", letter_coro, l))
		csv_panic("out of memory");
}

/* ---- actions that talk to QEMU: each a coroutine, DONE after a look (VH1) ------------------------------------------------ */

struct act { struct vm *vm; struct vm_qemu *q; struct vmsm_action a; };

static int command_of(const struct act *a, struct csv_err *err)
{
	static const struct { enum vmsm_act act; const char *command; } table[] = {
		{ VMSM_A_CONT, "cont" }, { VMSM_A_STOP, "stop" }, { VMSM_A_MIGRATE_CANCEL, "migrate_cancel" },
		{ VMSM_A_POWERDOWN, "system_powerdown" },
	};
	struct sched *s = vm_sched(a->vm);
	struct qmp *qmp = a->q->qmp;

	if (!qmp)
		return csv_err_set(err, -EPIPE, "the monitor's connection is gone");
	if (a->a.act == VMSM_A_MIGRATE_CONTINUE)
		return qmp_call(qmp, s, "migrate-continue", json_pack("{s:s}", "state", "pre-switchover"), VM_QMP_MS, NULL, err);
	if (a->a.act == VMSM_A_ANNOUNCE_SELF)
		return qmp_call(qmp, s, "announce-self", json_pack("{s:i, s:i, s:i, s:i}", "initial", 50, "max", 550, "rounds", 5, "step", 100),
				VM_QMP_MS, NULL, err);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].act == a->a.act)
			/* The dangerous ones have no time limit: unanswered means unknown, and unknown waits. */
			return qmp_call(qmp, s, table[i].command, NULL, UINT32_MAX, NULL, err);
	csv_panic("no command for action %d", a->a.act);
}

static bool is_answered(enum vmsm_act act)
{
	return act != VMSM_A_ANNOUNCE_SELF && act != VMSM_A_POWERDOWN;
}

static void act_coro(void *arg)
{
	struct act *a = arg;
	struct vmsm_event ev = { .ev = VMSM_EV_DONE, .done = a->a.act };
	struct csv_err err = CSV_ERR_INIT;

	if (a->a.act == VMSM_A_MIGRATE) {
		ev.status = vm_migrate(a->vm, a->q, a->a.txid, &err);
		a->q->migrating = false;
	} else {
		ev.status = command_of(a, &err);
		a->q->continued |= a->a.act == VMSM_A_MIGRATE_CONTINUE && !ev.status;
		if (a->a.act == VMSM_A_MIGRATE_CANCEL && !ev.status)
			vm_cancel_wait(a->vm, a->q);
	}
	if (ev.status && ev.status != -EPIPE)
		vm_note(a->vm, "warning", "", "VM %s: %s", a->vm->name, err.text);
	if (ev.status && a->a.act == VMSM_A_MIGRATE)
		snprintf(a->vm->move.reason, sizeof(a->vm->move.reason), "%.230s", err.text);
	if (is_answered(a->a.act)) {
		vm_qemu_look(a->q);
		if (a->vm->q == a->q && !a->q->gone && !a->q->killing)
			vm_event(a->vm, &ev);
		if (!ev.status && a->a.act == VMSM_A_MIGRATE)
			vm_migration_watch(a->vm, a->q);
	}
	vm_qemu_put(a->q);
	vm_put(a->vm);
	free(a);
}

static void quit_coro(void *arg)
{
	struct vm_qemu *q = arg;

	if (q->qmp)
		qmp_call(q->qmp, vm_sched(q->vm), "quit", NULL, QUIT_MS, NULL, NULL);
	for (int i = 0; i < 20 && !q->gone; i++)
		coro_sleep_ns(vm_sched(q->vm), QUIT_MS / 20 * NS_PER_MS);
	vm_qemu_kill(q);
	vm_qemu_put(q);
}

static void act_start(struct vm *vm, const struct vmsm_action *action)
{
	struct act *a;

	if (!vm->q)
		return;			/* gone meanwhile: GONE has been told or will be */
	a = malloc(sizeof(*a));
	if (!a)
		csv_panic("out of memory");
	*a = (struct act){ vm, vm->q, *action };
	if (action->act == VMSM_A_MIGRATE) {
		vm->q->migrating = true;
		vm->q->continued = false;
	}
	vm_get(vm);
	vm_qemu_get(vm->q);
	if (sched_spawn(vm_sched(vm), vmsm_act_name(action->act), act_coro, a))
		csv_panic("out of memory");
}

static void quit_start(struct vm *vm)
{
	if (!vm->q || vm->q->quitting)
		return;
	vm->q->quitting = true;
	vm_qemu_get(vm->q);
	if (sched_spawn(vm_sched(vm), "quit", quit_coro, vm->q))
		csv_panic("out of memory");
}

/* ---- starting one ----------------------------------------------------------------------------------------------------------- */

static void spawn(struct vm *vm, const struct vmsm_action *a)
{
	struct vm_qemu *q;

	csv_assert(!vm->q);
	q = vm_qemu_new(vm, ++vm->h->next_id);
	if (!q)
		csv_panic("out of memory");
	q->config = a->config;
	q->incoming = a->act == VMSM_A_SPAWN_INCOMING;
	q->txid = q->incoming ? a->txid : 0;
	q->mark = vm->sm.mark;
	vm->q = q;
	vm->failed = false;
	vm->h->ops->spawn(vm->h, q);
	vm->h->ops->changed(vm->h, vm);
}

static int check_uuid(struct vm_qemu *q, struct csv_err *err)
{
	json_t *r = NULL;
	uint8_t uuid[16];
	const char *s;
	int rc = qmp_call(q->qmp, vm_sched(q->vm), "query-uuid", NULL, VM_QMP_MS, &r, err);

	s = json_string_value(json_object_get(r, "UUID"));
	if (!rc && (!s || csv_uuid_parse(s, uuid) || memcmp(uuid, q->uuid, sizeof(uuid))))
		rc = csv_err_set(err, -EPROTO, "the QEMU that answers has the uuid %s, which is not this VM's", s ? s : "(none)");
	json_decref(r);
	return rc;
}

/* Its monitor answers: make it ready, look, and tell the machine. */
static void up_coro(void *arg)
{
	struct vm_qemu *q = arg;
	struct vm *vm = q->vm;
	struct csv_err err = CSV_ERR_INIT;
	bool fresh = !q->known && !q->mark.bound && vm->sm.qemu == VMSM_Q_STARTING, adopt = !q->known && !fresh;
	int rc = check_uuid(q, &err);

	if (!rc && fresh && q->incoming)
		rc = vm_incoming(vm, q, &err);
	if (!rc && adopt && q->incoming && !q->mark.bound)
		vm_incoming_again(vm, q);
	if (!rc)
		rc = vm_qemu_look(q);
	if (rc == -EPROTO && q->qmp) {
		vm_note(vm, "error", "", "VM %s: %s: killed", vm->name, err.text);
		vm_qemu_kill(q);
	} else if (rc && fresh && !q->gone) {
		q->err = err;
		vm_qemu_kill(q);
	} else if (!rc && !q->gone && !q->killing && vm->q == q && !q->known) {
		struct vmsm_event ev = { .ev = adopt ? VMSM_EV_ADOPT : VMSM_EV_SPAWNED, .qemu = q->state, .mig = q->mig, .mark = q->mark };

		q->known = true;
		vm_event(vm, &ev);
		vm->h->ops->changed(vm->h, vm);
	}
	/* Looks that came in between saw a QEMU that the machine did not know yet. */
	vm_qemu_look_soon(q);
	sched_wake_all(vm_sched(vm), &vm->wq);
	vm_qemu_put(q);
}

void vm_qemu_up(struct vm_qemu *q, struct qmp *qmp)
{
	q->qmp = qmp;
	q->missed = 0;
	if (q->known)
		vm_qemu_look_soon(q);
	else {
		vm_qemu_get(q);
		if (sched_spawn(vm_sched(q->vm), "up", up_coro, q))
			csv_panic("out of memory");
	}
}

void vm_qemu_down(struct vm_qemu *q)
{
	q->qmp = NULL;
	q->vm->h->ops->changed(q->vm->h, q->vm);
}

void vm_qemu_gone(struct vm_qemu *q, const struct csv_err *err)
{
	struct vm *vm = q->vm;
	bool spawning = vm->sm.qemu == VMSM_Q_STARTING;

	csv_assert(!q->gone);
	q->gone = true;
	q->qmp = NULL;
	q->state = VMSM_Q_NONE;
	if (err)
		q->err = *err;
	if (vm->q == q) {
		struct vmsm_event ev = { .ev = VMSM_EV_GONE, .guest_off = q->guest_off };

		vm->q = NULL;
		if (spawning && !q->known) {
			ev = (struct vmsm_event){ .ev = VMSM_EV_SPAWNED, .status = q->err.code ? q->err.code : -ECHILD };
			vm->failed = true;
			vm_note(vm, "error", "", "VM %s: QEMU could not be started: %s", vm->name, q->err.code ? q->err.text :
				"it ended at once, its log says why");
		} else if (vm->sm.qemu == VMSM_Q_UNKNOWN) {
			ev = (struct vmsm_event){ .ev = VMSM_EV_ADOPT, .qemu = VMSM_Q_NONE };	/* it died before it was adopted */
		}
		vm_event(vm, &ev);
	}
	sched_wake_all(vm_sched(vm), &vm->wq);
	vm->h->ops->changed(vm->h, vm);
	vm_qemu_put(q);
}

/* ---- the rest of the world ------------------------------------------------------------------------------------------------------ */

static void on_timer(struct timer *t)
{
	struct vm_timer *vt = container_of(t, struct vm_timer, t);
	struct vmsm_event ev = { .ev = VMSM_EV_TIMER, .timer = vt->which };

	vm_event(vt->vm, &ev);
}

static void log_event(struct vm *vm, enum vmsm_note n)
{
	static const struct { enum vmsm_note n; const char *severity, *text; } table[] = {
		{ VMSM_NOTE_REAPED, "warning", "a QEMU was here that may not be: ended" },
		{ VMSM_NOTE_STALE, "warning", "the QEMU here has memory older than the disk: ended, the VM starts anew" },
		{ VMSM_NOTE_QEMU_LOST, "error", "its QEMU died" },
		{ VMSM_NOTE_MIGRATION_FAILED, "warning", "the migration failed, it goes on here" },
		{ VMSM_NOTE_START_FAILED, "error", "it could not be started" },
		{ VMSM_NOTE_NO_SHUTDOWN, "warning", "the guest did not shut down in time: ended" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (table[i].n != n)
			continue;
		if (n == VMSM_NOTE_MIGRATION_FAILED) {
			vm_note(vm, table[i].severity, "", "VM %s: %s%s%s", vm->name, table[i].text, *vm->move.reason ? ": " : "",
				vm->move.reason);
		} else {
			vm_note(vm, table[i].severity, "", "VM %s: %s", vm->name, table[i].text);
		}
	}
}

static void mark_write(struct vm *vm)
{
	int rc;

	if (!vm->q)
		return;
	vm->q->mark = vm->sm.mark;
	rc = vm->h->ops->mark(vm->h, vm->q, &vm->sm.mark);
	/* Without the mark a later hvhostd would not know what this QEMU may do: better none than that. */
	if (rc) {
		vm_note(vm, "error", "", "VM %s: its mark cannot be written: %s", vm->name, strerror(-rc));
		vm_qemu_kill(vm->q);
	}
}

static void do_action(struct vm *vm, const struct vmsm_action *a)
{
	struct sched *s = vm_sched(vm);

	switch (a->act) {
	case VMSM_A_SPAWN:
	case VMSM_A_SPAWN_INCOMING:
		spawn(vm, a);
		break;
	case VMSM_A_KILL:
		if (vm->q)
			vm_qemu_kill(vm->q);
		break;
	case VMSM_A_QUIT:
		vm_move_step(vm, 7);
		quit_start(vm);
		break;
	case VMSM_A_MARK:
		mark_write(vm);
		break;
	case VMSM_A_PROPOSE:
		if (a->cas.move == LEASE_HANDOVER)
			vm_move_step(vm, 5);
		vm->h->ops->propose(vm->h, vm, &a->cas, a->ring);
		break;
	case VMSM_A_SAY:
		say(vm, a);
		break;
	case VMSM_A_TIMER:
		timer_set(s, &vm->timer[a->timer].t, sched_now_ns(s) + a->ms * NS_PER_MS);
		break;
	case VMSM_A_EVENT:
		log_event(vm, a->note);
		break;
	default:
		if (a->act == VMSM_A_MIGRATE)
			vm_move_begin(vm, a->txid, a->node);
		else if (a->act == VMSM_A_MIGRATE_CONTINUE)
			vm_move_step(vm, 3);
		act_start(vm, a);
		if (a->act == VMSM_A_MIGRATE_CONTINUE)
			vm_stream_watch(vm, vm->q);
	}
}

void vm_event(struct vm *vm, struct vmsm_event *ev)
{
	struct vmsm_action a[VMSM_ACTIONS_MAX];
	unsigned n;

	if (vm->freed)
		return;
	n = vmsm_step(&vm->sm, ev, a);
	csv_assert(n <= VMSM_ACTIONS_MAX);
	if (ev->ev == VMSM_EV_STATUS && ev->mig == VMSM_M_COMPLETED)
		vm_move_step(vm, 4);
	for (unsigned i = 0; i < n; i++)
		do_action(vm, &a[i]);
}

/* ---- life --------------------------------------------------------------------------------------------------------------------- */

struct vm *vm_new(struct vm_host *h, const char *name)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return NULL;
	vm->h = h;
	vm->refs = 1;
	snprintf(vm->name, sizeof(vm->name), "%s", name);
	vmsm_init(&vm->sm, name, &h->conf);
	waitq_init(&vm->wq);
	for (unsigned i = 0; i < VMSM_T_END; i++) {
		vm->timer[i] = (struct vm_timer){ .vm = vm, .which = (enum vmsm_timer)i };
		timer_init(&vm->timer[i].t, on_timer);
	}
	return vm;
}

void vm_free(struct vm *vm)
{
	if (!vm || vm->freed)
		return;
	vm->freed = true;
	for (unsigned i = 0; i < VMSM_T_END; i++)
		timer_del(vm_sched(vm), &vm->timer[i].t);
	if (vm->q)
		vm_qemu_put(vm->q);
	vm->q = NULL;
	vm_put(vm);
}

void vm_conf_set(struct vm *vm, const struct vmsm_conf *conf)
{
	vm->sm.conf = *conf;
}

void vm_mutate(struct vm *vm, uint32_t mutate)
{
	vm->sm.mutate = mutate;
}

void vm_qemu_done_with(struct vm_qemu *q)
{
	vm_qemu_put(q);
}

const char *vm_name(const struct vm *vm)
{
	return vm->name;
}

const struct vmsm *vm_sm(const struct vm *vm)
{
	return &vm->sm;
}

struct vm_qemu *vm_current(const struct vm *vm)
{
	return vm->q;
}

bool vm_idle(const struct vm *vm)
{
	return !vm->q && !vm->sm.ended && !vm->rebinding && vm->refs == 1 && vm->sm.qemu == VMSM_Q_NONE && vm->sm.settled &&
	       !vm->sm.prop && vm->sm.rec.state == LEASE_NONE;
}

void vm_adopt_none(struct vm *vm)
{
	struct vmsm_event ev = { .ev = VMSM_EV_ADOPT, .qemu = VMSM_Q_NONE };

	vm_event(vm, &ev);
}

void vm_remember(struct vm *vm, uint64_t ended)
{
	vmsm_remember(&vm->sm, ended);
}

struct vm_qemu *vm_adopt(struct vm *vm, uint64_t id, uint64_t txid, uint32_t config, const struct vmsm_mark *mark)
{
	struct vm_qemu *q;

	csv_assert(!vm->q);
	q = vm_qemu_new(vm, id);
	if (!q)
		return NULL;
	q->txid = txid;
	q->config = config;
	q->mark = *mark;
	q->incoming = txid != 0;
	vm->q = q;
	return q;
}

void vm_look(struct vm *vm)
{
	if (vm->q && vm->q->known)
		vm_qemu_look_soon(vm->q);
}

/* ---- leases and letters ---------------------------------------------------------------------------------------------------------- */

void vm_record(struct vm *vm, const struct lease *l, uint64_t ring, bool open, bool peer_here)
{
	struct vmsm_event ev = { .ev = VMSM_EV_RECORD, .rec = *l, .ring = ring, .open = open, .peer_here = peer_here };

	bool was_source = vm->sm.have_rec && lease_is_intent(&vm->sm.rec) && vm->sm.rec.owner == vm->sm.conf.self;
	uint64_t was_txid = vm->sm.rec.txid;

	vm_event(vm, &ev);
	if (vm->move.txid && !vm->move.told_end && l->owner != vm->sm.conf.self && l->state == LEASE_HANDOFF)
		vm_move_step(vm, 6);
	if (was_source && l->txid != was_txid) {
		/* It came to nothing, perhaps before QEMU was told of it. */
		if (vm->move.txid != was_txid)
			vm_move_begin(vm, was_txid, 0);
		vm_move_end(vm, vm->move.cancelled ? "cancelled" : "failed", *vm->move.reason ? vm->move.reason :
			    "the target was not there, or did not get ready");
	}
	vm->h->ops->changed(vm->h, vm);
}

void vm_unsettled(struct vm *vm)
{
	struct vmsm_event ev = { .ev = VMSM_EV_UNSETTLED };

	vm_event(vm, &ev);
}

void vm_outcome(struct vm *vm, int status)
{
	struct vmsm_event ev = { .ev = VMSM_EV_OUTCOME, .status = status };

	vm_event(vm, &ev);
}

void vm_heard(struct vm *vm, uint64_t txid, const json_t *body)
{
	struct vmsm_event ev = { .ev = VMSM_EV_HEARD, .txid = txid };
	struct csv_err err = CSV_ERR_INIT;

	if (vm_letter_read(vm, txid, body, &ev.said, &err)) {
		vm_note(vm, "warning", "", "VM %s: a letter of the other side is not understood: %s", vm->name, err.text);
		return;
	}
	vm_event(vm, &ev);
}

void vm_cancel(struct vm *vm, uint64_t txid)
{
	struct vmsm_event ev = { .ev = VMSM_EV_CANCEL, .txid = txid };

	if (vm->move.txid == txid)
		vm->move.cancelled = true;
	vm_event(vm, &ev);
}

bool vm_kill(struct vm *vm)
{
	struct vmsm_event ev = { .ev = VMSM_EV_KILL };

	if (!vm->q || !vm->sm.mark.bound)
		return false;
	vm_note(vm, "warning", "", "VM %s: switched off, its guest not asked", vm->name);
	vm_event(vm, &ev);
	return true;
}

void vm_storage_ok(struct vm *vm)
{
	struct vmsm_event ev = { .ev = VMSM_EV_STORAGE_OK };

	vm_event(vm, &ev);
}

int vm_inventory(struct vm *vm, struct leasedb_item *ret, bool *ret_there)
{
	if (vm->sm.qemu == VMSM_Q_UNKNOWN)
		return -EAGAIN;
	memset(ret, 0, sizeof(*ret));
	*ret_there = vmsm_inventory(&vm->sm, ret);
	return 0;
}
