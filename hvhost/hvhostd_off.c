/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_off.c - a guest that switched itself off stays off: `want` of its definition says stopped before its lease does.
 *
 * The state machine proposes RELEASE with the reason "the guest shut itself down"; the proposal waits here until the definition is written (on a
 * thread: the volume may hang), at most HVD_STORE_MS.  Without it a cold start would read "run" and start the VM again.
 *
 * What a membership change does: the proposal of a view that is gone is dropped, the state machine makes a new one from the new view's record.
 */
#include "hvhost/hvhostd_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "hvhost/hvhostd_store.h"

static int want_stopped(const char *volume, const char *vm, struct csv_err *err)
{
	struct vm_def d;
	int rc = store_def_read(volume, vm, &d, err);

	if (rc || d.want == VM_WANT_STOPPED)
		return rc;
	d.want = VM_WANT_STOPPED;
	return store_def_write(volume, &d, err);
}

struct one { struct hvd *d; char vm[LEASE_NAME_BYTES]; };

static void off_coro(void *arg)
{
	struct one *o = arg;
	struct hvd *d = o->d;
	struct csv_err err = CSV_ERR_INIT;
	struct hvd_vm *v;
	int rc = work_run_vm(&d->work, want_stopped, d->opt.volume, o->vm, HVD_STORE_MS, &err);

	if (rc)
		hvd_event(d, "warning", o->vm, "", "VM %s: its guest switched itself off, and its definition could not be told: %s", o->vm, err.text);
	v = hvd_vm_find(d, o->vm);
	if (v) {
		const struct vmsm *sm = vm_sm(v->vm);

		v->off_writing = false;
		if (sm->prop == LEASE_RELEASE && sm->ring == v->off_ring && d->settled && d->ring == v->off_ring)
			hvd_line_propose(d, v, &v->off_cas, v->off_ring);
	}
	free(o);
}

void hvd_off_propose(struct hvd *d, struct hvd_vm *v, const struct lease_cas *cas, uint64_t ring)
{
	struct one *o;

	v->off_cas = *cas;
	v->off_ring = ring;
	if (v->off_writing)
		return;		/* it proposes the newest when it is done */
	o = malloc(sizeof(*o));
	if (!o)
		csv_panic("out of memory");
	o->d = d;
	snprintf(o->vm, sizeof(o->vm), "%s", v->name);
	v->off_writing = true;
	if (sched_spawn(d->sched, "off", off_coro, o))
		csv_panic("out of memory");
}
