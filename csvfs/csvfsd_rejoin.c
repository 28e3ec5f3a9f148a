/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvfsd_rejoin.c - a healed minority joins anew under its mount (R11): programs see a pause.
 *
 *	core				requests				here
 *	WITHDRAWN, writes back		answers -CSV_E_WITHDRAWN are kept,	state seen: one coroutine
 *	  what it had			  their requests wait
 *	slot FREE, left the group	new ones wait				nobody is in the core any more -> its open files noted -> its end
 *									ports made anew, a new incarnation -> mount
 *									files opened, images' uses announced again
 *	ACTIVE				all asked again from the beginning
 *
 * Invariants
 *  RJ1 A request is asked again only if the answer was -CSV_E_WITHDRAWN: then it has changed nothing (or, in steps, what it repeats).
 *  RJ2 The old core ends only when no request and no call of csvctl is inside it, and nothing of its I/O is under way.
 *  RJ3 What was open stays open, or nothing goes on: an image that somebody uses the other way meanwhile ends the mount with an error.
 *
 * A withdrawal for any other reason is final: waiting requests get their error.
 */
#include "csvfs/csvfsd_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "utils/base/base.h"

#define POLL_NS (5 * NS_PER_MS)
#define AGAIN_NS (1000 * NS_PER_MS)

struct rejoin {
	struct world *w;
	struct fused *f;
	const struct csvfsd_options *opt;
	struct csvfs_events ev;
	struct coro *coro;
	struct csvfs_opened *opened;
	size_t n, cap;
	bool noted;			/* the list is of handles that no life has yet */
	bool oom;
};

/* ---- requests (fuse_slow.c) ------------------------------------------------------------------------------------------------------- */

bool life_may_come_back(const struct fused *d)
{
	return !d->final && (d->rejoining || (d->fs && csvfs_may_rejoin(d->fs) != -CSV_E_WITHDRAWN));
}

int life_enter(struct fused *d)
{
	while (!d->final && (d->rejoining || (d->fs && csvfs_state(d->fs, NULL) == CSVFS_WITHDRAWN && life_may_come_back(d))))
		if (sched_wait_intr(d->sched, &d->life_wq) == -EINTR)
			return -EINTR;
	if (!d->fs)
		return -EIO;
	d->inside++;
	return 0;
}

void life_leave(struct fused *d)
{
	d->inside--;
	sched_wake_all(d->sched, &d->life_wq);
}

/* ---- the old life's end ------------------------------------------------------------------------------------------------------------ */

static void note_opened(void *arg, const struct csvfs_opened *o)
{
	struct rejoin *r = arg;

	if (r->n == r->cap) {
		size_t cap = r->cap ? 2 * r->cap : 64;
		struct csvfs_opened *more = realloc(r->opened, cap * sizeof(*more));

		r->oom |= !more;
		if (!more)
			return;
		r->opened = more;
		r->cap = cap;
	}
	r->opened[r->n++] = *o;
}

static void end_old(struct rejoin *r)
{
	struct fused *f = r->f;
	struct csvfs *old = f->fs;
	struct csv_err err = CSV_ERR_INIT;

	while (f->inside)
		sched_wait(f->sched, &f->life_wq);
	if (!r->noted) {
		r->n = 0;
		csvfs_open_walk(old, note_opened, r);
	}
	r->noted = true;
	if (r->ev.locks_lost)
		r->ev.locks_lost(r->ev.arg);	/* PL4: the next life begins with none */
	f->fs = NULL;
	csvfs_umount(old, &err);
	csvfs_free(old);
	dp_open_all(f->dp);
}

/* ---- the new one -------------------------------------------------------------------------------------------------------------------- */

static uint32_t gen_of(const struct rejoin *r, uint64_t ino)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->opened[i].ino == ino)
			return r->opened[i].gen;
	return 0;
}

static int open_again(struct rejoin *r, struct csvfs *fs, struct csv_err *err)
{
	int rc = 0;

	for (size_t i = 0; i < r->n && !rc; i++) {
		rc = csvfs_open_adopt(fs, &r->opened[i]);
		if (rc)
			csv_err_set(err, rc, "inode %llu, open here: %s", (unsigned long long)r->opened[i].ino, csv_err_describe(rc));
	}
	for (struct use *u = r->f->uses; u && !rc; u = u->next) {
		uint32_t gen = gen_of(r, u->ino);

		rc = csvfs_image_open(fs, u->ino, gen, u->kind);
		if (!rc && u->kind == CSVFS_USE_RAW)
			rc = csvfs_disk_open(fs, u->ino, gen, u->writing, u->path, err);
		if (rc)			/* RJ3 */
			csv_err_set(err, rc, "image %s%sinode %llu%s, open here by process %u (%s): %s", u->path, *u->path ? " (" : "",
				    (unsigned long long)u->ino, *u->path ? ")" : "", u->pid, u->process, csv_err_describe(rc));
	}
	return rc;
}

/* 0; -EAGAIN: not now, try again; else the end. */
static int start_new(struct rejoin *r)
{
	struct fused *f = r->f;
	struct csvfs_options o;
	struct csv_err err = CSV_ERR_INIT;
	struct csvfs *fs = NULL;
	int rc;

	f->moving = true;
	rc = world_next_life(r->w, &err);
	f->moving = !!rc;
	if (!rc) {
		use_start(f);
		csvfsd_core_options(r->w, r->opt, &o);
		rc = csvfs_mount(&r->w->env, &o, &r->ev, &fs, &err);
	}
	if (rc) {
		log_to(f->log, LOG_L_WARN, "%s: joining anew: %s; tried again", r->opt->dir, err.text);
		return -EAGAIN;
	}
	csvfs_set_dataplane(fs, f->dp);
	f->fs = fs;
	rc = open_again(r, fs, &err);
	if (rc && csvfs_may_rejoin(fs) != -CSV_E_WITHDRAWN)
		return 0;		/* cut off again meanwhile: the next life does it, with the same list */
	r->noted = rc;
	if (rc)
		csvfs_withdraw(fs, err.text);
	else
		log_to(f->log, LOG_L_NOTE, "%s: joined anew in slot %u; %zu open files went on", r->opt->dir, csvfs_slot(fs), r->n);
	return rc;
}

static bool wait_left(struct rejoin *r)
{
	int rc;

	while ((rc = csvfs_may_rejoin(r->f->fs)) == -EAGAIN && !r->f->final)
		coro_sleep_ns(r->f->sched, POLL_NS);
	return !rc && !r->f->final;
}

static void rejoin_coro(void *arg)
{
	struct rejoin *r = arg;
	struct fused *f = r->f;
	int rc = -EAGAIN;

	r->coro = sched_self(f->sched);
	while (rc == -EAGAIN && wait_left(r)) {
		end_old(r);
		if (r->oom)
			break;
		while ((rc = start_new(r)) == -EAGAIN && !f->final)
			coro_sleep_ns(f->sched, AGAIN_NS);
		if (f->fs && csvfs_state(f->fs, NULL) == CSVFS_WITHDRAWN && csvfs_may_rejoin(f->fs) != -CSV_E_WITHDRAWN)
			rc = -EAGAIN;	/* cut off again */
	}
	f->final |= rc != 0;
	f->rejoining = f->moving = false;
	free(r->opened);
	r->opened = NULL;
	r->n = r->cap = 0;
	r->coro = NULL;
	sched_wake_all(f->sched, &f->life_wq);
}

struct rejoin *rejoin_new(struct world *w, struct fused *f, const struct csvfsd_options *opt, const struct csvfs_events *ev)
{
	struct rejoin *r = calloc(1, sizeof(*r));

	if (r)
		*r = (struct rejoin){ .w = w, .f = f, .opt = opt, .ev = *ev };
	return r;
}

void rejoin_state(struct rejoin *r, enum csvfs_state st)
{
	struct fused *f = r->f;

	if (st != CSVFS_WITHDRAWN || f->rejoining || f->final || !f->fs || csvfs_may_rejoin(f->fs) == -CSV_E_WITHDRAWN)
		return;
	f->rejoining = true;
	if (sched_spawn(f->sched, "rejoin", rejoin_coro, r)) {
		f->rejoining = false;
		f->final = true;
		sched_wake_all(f->sched, &f->life_wq);
	}
}

void rejoin_stop(struct rejoin *r)
{
	struct fused *f = r->f;

	f->final = true;
	sched_wake_all(f->sched, &f->life_wq);
	if (r->coro)
		sched_cancel(f->sched, r->coro);
	while (f->rejoining)
		sched_wait(f->sched, &f->life_wq);
}
