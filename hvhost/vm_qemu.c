/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vm_qemu.c - what one QEMU is: its monitor's events, and looking when that is not enough.
 *
 * RESUME and the migration's events are believed as they come; STOP alone says too little (a guest's I/O error, its own shutdown, the
 * migration, ourselves), so a look follows and the machine is told after it.
 */
#include "hvhost/vm_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vm_qemu *vm_qemu_new(struct vm *vm, uint64_t id)
{
	struct vm_qemu *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->vm = vm;
	q->id = id;
	q->refs = 1;
	q->state = VMSM_Q_STARTING;
	q->since_boot_ns = clock_boot_ns(vm->h->env->clock);
	vm_get(vm);
	return q;
}

void vm_qemu_get(struct vm_qemu *q)
{
	q->refs++;
}

void vm_qemu_put(struct vm_qemu *q)
{
	struct vm *vm = q->vm;

	if (--q->refs)
		return;
	vm->h->ops->release(vm->h, q);
	free(q);
	vm_put(vm);
}

void vm_qemu_kill(struct vm_qemu *q)
{
	if (q->gone || q->killing)
		return;
	q->killing = true;
	q->state = VMSM_Q_DYING;
	q->vm->h->ops->kill(q->vm->h, q);
}

/* ---- QEMU's words ------------------------------------------------------------------------------------------------------ */

static enum vmsm_qemu state_of(const char *run)
{
	static const struct { const char *run; enum vmsm_qemu q; } table[] = {
		{ "running", VMSM_Q_RUNNING }, { "suspended", VMSM_Q_RUNNING }, { "prelaunch", VMSM_Q_PRELAUNCH },
		{ "inmigrate", VMSM_Q_INCOMING }, { "io-error", VMSM_Q_IOERROR },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!strcmp(run, table[i].run))
			return table[i].q;
	return VMSM_Q_PAUSED;
}

static enum vmsm_mig mig_of(const char *status)
{
	static const struct { const char *status; enum vmsm_mig m; } table[] = {
		{ "none", VMSM_M_NONE }, { "setup", VMSM_M_ACTIVE }, { "active", VMSM_M_ACTIVE }, { "cancelling", VMSM_M_ACTIVE },
		{ "wait-unplug", VMSM_M_ACTIVE }, { "pre-switchover", VMSM_M_PRESWITCH }, { "device", VMSM_M_DEVICE },
		{ "completed", VMSM_M_COMPLETED }, { "failed", VMSM_M_FAILED }, { "cancelled", VMSM_M_FAILED },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!strcmp(status, table[i].status))
			return table[i].m;
	return VMSM_M_ACTIVE;		/* a newer QEMU's word: under way */
}

void vm_status(struct vm_qemu *q)
{
	enum vmsm_mig mig = q->continued && q->mig == VMSM_M_PRESWITCH ? VMSM_M_DEVICE : q->mig;
	struct vmsm_event ev = { .ev = VMSM_EV_STATUS, .qemu = q->state, .mig = q->migrating ? VMSM_M_ASKED : mig };

	if (q->known && !q->gone && q->vm->q == q && !q->killing)
		vm_event(q->vm, &ev);
	sched_wake_all(vm_sched(q->vm), &q->vm->wq);
	q->vm->h->ops->changed(q->vm->h, q->vm);
}

/* ---- looking ------------------------------------------------------------------------------------------------------------- */

static void run_is(struct vm_qemu *q, const char *run)
{
	enum vmsm_qemu state = state_of(run);

	if (state != q->state)
		q->since_boot_ns = clock_boot_ns(q->vm->h->env->clock);
	snprintf(q->run, sizeof(q->run), "%s", run);
	q->state = state;
	q->stopped = state != VMSM_Q_RUNNING;
	if (!strcmp(run, "shutdown"))
		q->guest_off = true;
	if (state != VMSM_Q_IOERROR && q->io_error) {
		q->io_error = q->no_space = false;
		q->why[0] = '\0';
	}
}

int vm_qemu_look(struct vm_qemu *q)
{
	struct sched *s = vm_sched(q->vm);
	struct csv_err err = CSV_ERR_INIT;
	json_t *st = NULL, *mg = NULL;
	int rc;

	if (!q->qmp || q->gone)
		return -EPIPE;
	rc = qmp_call(q->qmp, s, "query-status", NULL, VM_LOOK_MS, &st, &err);
	if (!rc && q->qmp)
		rc = qmp_call(q->qmp, s, "query-migrate", NULL, VM_LOOK_MS, &mg, &err);
	if (!rc && !q->gone && !q->killing && json_is_string(json_object_get(st, "status"))) {
		const char *m = json_string_value(json_object_get(mg, "status"));

		q->missed = 0;
		run_is(q, json_string_value(json_object_get(st, "status")));
		q->mig = m ? mig_of(m) : VMSM_M_NONE;
		if (!strcmp(q->run, "internal-error")) {
			snprintf(q->why, sizeof(q->why), "QEMU reports an internal error of the processor's virtualization");
			vm_qemu_kill(q);
		} else if (!strcmp(q->run, "shutdown") && q->known) {
			/* The guest has switched itself off: nothing of it is left to keep (QA4). */
			vm_qemu_kill(q);
		}
		vm_status(q);
	} else if (rc == -ETIMEDOUT) {
		q->missed++;
		q->vm->h->ops->changed(q->vm->h, q->vm);
	}
	json_decref(st);
	json_decref(mg);
	return rc;
}

static void look_coro(void *arg)
{
	struct vm_qemu *q = arg;

	do {
		q->look_again = false;
		vm_qemu_look(q);
	} while (q->look_again && q->qmp && !q->gone);
	q->looking = false;
	vm_qemu_put(q);
}

void vm_qemu_look_soon(struct vm_qemu *q)
{
	if (!q->qmp || q->gone)
		return;
	if (q->looking) {
		q->look_again = true;
		return;
	}
	q->looking = true;
	vm_qemu_get(q);
	if (sched_spawn(vm_sched(q->vm), "look", look_coro, q)) {
		q->looking = false;
		vm_qemu_put(q);
	}
}

/* ---- events --------------------------------------------------------------------------------------------------------------- */

static void on_migration(struct vm_qemu *q, const char *status)
{
	enum vmsm_mig m = mig_of(status);
	bool source = !q->incoming || q->mark.bound;

	q->mig = m;
	if (source && q->known && (m == VMSM_M_PRESWITCH || m == VMSM_M_COMPLETED || m == VMSM_M_DEVICE) && q->stopped) {
		/* On the pause's critical way: the guest was stopped before, by the order of QEMU's events. */
		if (q->state == VMSM_Q_RUNNING)
			q->state = VMSM_Q_PAUSED;
		vm_status(q);
		return;
	}
	vm_qemu_look_soon(q);
}

void vm_qemu_event(struct vm_qemu *q, const char *name, const json_t *data, uint64_t stamp_us)
{
	struct vm *vm = q->vm;
	uint64_t now = clock_boot_ns(vm->h->env->clock);

	(void)stamp_us;
	if (q->gone)
		return;
	if (!strcmp(name, "STOP")) {
		q->stopped = true;
		if (!vm->move.stop_ns || vm->move.stop_ns < vm->move.at_ns[2])
			vm->move.stop_ns = now;
		vm_qemu_look_soon(q);
	} else if (!strcmp(name, "RESUME")) {
		q->stopped = q->io_error = q->no_space = false;
		q->state = VMSM_Q_RUNNING;
		snprintf(q->run, sizeof(q->run), "running");
		vm->move.stop_ns = 0;
		vm->move.resume_ns = now;
		vm_status(q);
	} else if (!strcmp(name, "MIGRATION")) {
		const char *s = json_string_value(json_object_get(data, "status"));

		if (s)
			on_migration(q, s);
	} else if (!strcmp(name, "BLOCK_IO_ERROR")) {
		const char *reason = json_string_value(json_object_get(data, "reason"));
		const char *node = json_string_value(json_object_get(data, "node-name"));

		q->io_error = true;
		q->no_space = json_is_true(json_object_get(data, "nospace"));
		snprintf(q->why, sizeof(q->why), "%s: %s%s", node ? node : "a disk", reason ? reason : "I/O error", q->no_space ?
			 "; free some on the volume, and it goes on by itself" : "");
	} else if (!strcmp(name, "SHUTDOWN")) {
		if (json_is_true(json_object_get(data, "guest")))
			q->guest_off = true;
		vm_qemu_look_soon(q);
	}
}
