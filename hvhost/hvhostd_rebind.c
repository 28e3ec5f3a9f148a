/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_rebind.c - VMs that an I/O error has stopped: when their volume can be read again, their disks are opened anew (vm_rebind.c).
 *
 * By level, once a second: who stands in io-error is tried, at first at once, then after 1, 2, 4 ... 30 s; whoever ran for a minute since
 * begins anew.  Who was stopped by a full volume needs room there, and nothing opened anew.  The volume is asked on a thread (its definition is read there): a mount that hangs holds up nobody.
 */
#include "hvhost/hvhostd_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "hvhost/hvhostd_store.h"

#define LOOK_NS NS_PER_SEC
#define PAUSE_MAX_S 30u
#define CALM_NS (60 * NS_PER_SEC)
#define ROOM_BYTES (16u << 20)	/* a full volume has room again: for some blocks of an image */

static int volume_serves(const char *volume, const char *vm, struct csv_err *err)
{
	struct vm_def d;

	return store_def_read(volume, vm, &d, err);
}

/* For one that a full volume has stopped. */
static int volume_has_room(const char *volume, const char *vm, struct csv_err *err)
{
	struct statvfs v;

	if (statvfs(volume, &v))
		return csv_err_set(err, -errno, "%s: %s", volume, strerror(errno));
	if ((uint64_t)v.f_bavail * v.f_frsize < ROOM_BYTES)
		return csv_err_set(err, -ENOSPC, "%s: %llu KiB are free", volume, (unsigned long long)v.f_bavail * v.f_frsize / 1024);
	return volume_serves(volume, vm, err);
}

struct one { struct hvd *d; bool no_space; char vm[LEASE_NAME_BYTES]; };

static void rebind_coro(void *arg)
{
	struct one *o = arg;
	struct csv_err err = CSV_ERR_INIT;
	struct hvd_vm *v;
	int rc = work_run_vm(&o->d->work, o->no_space ? volume_has_room : volume_serves, o->d->opt.volume, o->vm, HVD_STORE_MS, &err);

	v = hvd_vm_find(o->d, o->vm);
	if (!rc && v)
		rc = vm_rebind(v->vm, &err);
	v = hvd_vm_find(o->d, o->vm);
	if (v) {
		v->rebinding = false;
		v->rebind_at_ns = sched_now_ns(o->d->sched) + v->rebind_s * NS_PER_SEC;
		v->rebind_s = csv_min(v->rebind_s ? v->rebind_s * 2 : 1, PAUSE_MAX_S);
	}
	if (rc)
		log_to(&o->d->log, LOG_L_INFO, "%s: stands still because of an I/O error, it cannot go on yet: %s", o->vm, err.text);
	free(o);
}

static void look(struct hvd *d, struct hvd_vm *v)
{
	struct vm_qemu *q = vm_current(v->vm);
	uint64_t now = sched_now_ns(d->sched);
	struct one *o;

	if (v->rebinding)
		return;
	if (!q || q->state != VMSM_Q_IOERROR) {
		if (now > v->rebind_at_ns + CALM_NS)
			v->rebind_s = 0;
		return;
	}
	if (now < v->rebind_at_ns)
		return;
	o = malloc(sizeof(*o));
	if (!o)
		csv_panic("out of memory");
	o->d = d;
	o->no_space = q->no_space;
	snprintf(o->vm, sizeof(o->vm), "%s", v->name);
	v->rebinding = true;
	if (sched_spawn(d->sched, "rebind", rebind_coro, o))
		csv_panic("out of memory");
}

static void on_frozen(struct timer *t)
{
	struct hvd *d = container_of(t, struct hvd, frozen);
	struct hvd_vm *v, *tmp;

	HASH_ITER(hh, d->vms, v, tmp)
		look(d, v);
	timer_set(d->sched, t, sched_now_ns(d->sched) + LOOK_NS);
}

void hvd_frozen_begin(struct hvd *d)
{
	timer_init(&d->frozen, on_frozen);
	timer_set(d->sched, &d->frozen, sched_now_ns(d->sched) + LOOK_NS);
}
