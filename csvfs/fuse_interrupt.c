/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuse_interrupt.c - signals of the caller while its request is on the control plane (F5).
 *
 *	any signal -> FUSE_INTERRUPT, once -> watched -> every WATCH_MS: is SIGKILL pending for the caller's thread?
 *		yes: the operation is cancelled and answers EINTR to a thread that dies anyway
 *		no: it goes on; the caller sees its result, then its signal handler runs
 */
#include "csvfs/fuse_internal.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "utils/base/base.h"

#define WATCH_MS 100u

/* True also when the thread is gone: nobody waits for the answer. */
static bool is_dying(pid_t tid)
{
	char path[32], line[128];
	uint64_t pending = 0;
	FILE *f;

	if (tid <= 0)
		return false;	/* of another pid namespace: unknown, so it goes on */
	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	f = fopen(path, "re");
	if (!f)
		return true;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "SigPnd: %" SCNx64, &pending) == 1)
			break;
	fclose(f);
	return pending & 1ull << (SIGKILL - 1);
}

static void look(struct timer *t)
{
	struct fused *d = container_of(t, struct fused, watch_timer);
	struct fop *op, *tmp;

	cds_list_for_each_entry_safe(op, tmp, &d->watched, watch_node) {
		if (!is_dying(op->tid))
			continue;
		fop_unwatch(op);
		sched_cancel(d->sched, op->coro);
	}
	if (!cds_list_empty(&d->watched))
		timer_set(d->sched, t, sched_now_ns(d->sched) + WATCH_MS * NS_PER_MS);
}

void fop_watch_init(struct fused *d)
{
	CDS_INIT_LIST_HEAD(&d->watched);
	timer_init(&d->watch_timer, look);
}

/* A number that comes after the answer finds nothing. */
void fop_interrupt(struct fused *d, uint64_t id)
{
	struct fop *op;

	HASH_FIND(hh, d->ops, &id, sizeof(id), op);
	if (!op || !cds_list_empty(&op->watch_node))
		return;
	if (op->kind == FOP_SETLK && op->lock.wait) {
		sched_cancel(d->sched, op->coro);	/* fcntl(2), flock(2): a signal ends the waiting */
		return;
	}
	cds_list_add_tail(&op->watch_node, &d->watched);
	look(&d->watch_timer);
}

void fop_unwatch(struct fop *op)
{
	cds_list_del_init(&op->watch_node);
}
