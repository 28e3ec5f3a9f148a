/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_dp.c - the data plane's workers as logical threads: coroutines that take the steps of dataplane.h and let others run between
 * any two of them, submit by themselves (past the control plane's gate, as threads with a queue of their own do), and go the slow way
 * where they are told to.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/csvsim.h"
#include "utils/base/base.h"

struct seg { struct blk_req req; struct dp_req *of; };
struct dp_req { struct sched *sched; struct completion done; unsigned left; int result; struct seg seg[DP_SEGS_MAX]; };

/* A thread is stopped anywhere, mostly for a moment, now and then for long. */
void cs_dp_yield(void *arg, const char *step)
{
	struct cs_node *n = arg;
	struct sched *s = n->env->sched;

	(void)step;
	switch (sim_world_below(n->sim->w, 8)) {
	case 0: case 1: case 2:
		return;
	case 3:
		coro_sleep_ns(s, sim_world_below(n->sim->w, 3 * NS_PER_MS));
		return;
	default:
		coro_yield(s);
		return;
	}
}

static void seg_done(struct blk_req *r)
{
	struct dp_req *q = container_of(r, struct seg, req)->of;

	if (r->result)
		q->result = r->result;
	if (--q->left == 0)
		completion_done(q->sched, &q->done, 0);
}

static int submit(struct cs_dp *d)
{
	struct blk *b = d->w.n->env->blk;
	struct dp_req q = { .sched = b->sched, .left = d->io.nseg };

	completion_init(&q.done);
	for (uint32_t i = 0; i < d->io.nseg; i++) {
		const struct dp_seg *g = &d->io.seg[i];

		q.seg[i].of = &q;
		q.seg[i].req = (struct blk_req){ .op = d->io.write ? BLK_WRITE : BLK_READ, .off = g->dev_off, .len = g->len,
						 .buf = d->buf + g->buf_off, .done = seg_done };
		b->inflight++;
		b->ops->submit(b, &q.seg[i].req);
	}
	completion_wait(b->sched, &q.done);
	return q.result;
}

static void one(struct cs_dp *d)
{
	struct cs_worker *w = &d->w;
	struct cs_sim *s = w->n->sim;
	struct cs_file *f = w->n->disk_open && csv_prng_chance(&w->prng, 1, 2) ? &s->file[CS_FILES] : &s->file[3 + csv_prng_below(&w->prng, 2)];
	uint32_t count = 8 * (1 + (uint32_t)csv_prng_below(&w->prng, 2));
	uint32_t first = csv_round_down((uint32_t)csv_prng_below(&w->prng, f->sectors - count), 8u);
	bool write = csv_prng_chance(&w->prng, 1, 2);
	uint64_t value = write ? s->next_value++ : 0, token = 0, started = cs_now(s);
	ssize_t n = (ssize_t)count * CS_SECTOR;

	w->doing = write ? "in-place write" : "in-place read";
	w->doing_since_ns = sim_world_now_ns(s->w);
	d->io = (struct dp_io){ .ino = (f->kind == CS_DISK ? CS_RAW : 0) | f->ino, .gen = f->gen, .write = write, .off = (uint64_t)first * CS_SECTOR, .len = count * CS_SECTOR };
	memset(d->buf, 0, count * CS_SECTOR);
	w->reading = write ? 0 : started;
	if (write) {
		cs_data_fill(d->buf, count, value);
		cs_data_begin(s, f, first, count, w->n->self, value, &token);
	}
	if (dp_io_begin(w->n->dp, &d->io) == DP_SUBMIT) {
		int err;

		d->in_flight = true;
		err = submit(d);
		d->in_flight = false;
		dp_io_end(w->n->dp, &d->io);
		cs_count(s, write ? "op.fast_write" : "op.fast_read");
		if (f->kind == CS_DISK)
			cs_count(s, write ? "op.disk_fast_write" : "op.disk_fast_read");
		if (err)
			n = err;
	} else if (write) {
		n = cs_io_write(w->n, f, d->io.off, d->buf, d->io.len);
		cs_count(s, "op.slow_write");
	} else {
		n = cs_io_read(w->n, f, d->io.off, d->buf, d->io.len);
		cs_count(s, "op.slow_read");
	}
	w->doing = NULL;
	if (cs_worker_dead(w) || !cs_judge(w, n, "in-place")) {
		w->reading = 0;
		if (write)
			cs_data_uncertain(s, f, first, count, token);
		return;
	}
	if (write) {
		cs_data_end(s, f, first, (uint32_t)n / CS_SECTOR, token);
		cs_data_uncertain(s, f, first + (uint32_t)n / CS_SECTOR, count - (uint32_t)n / CS_SECTOR, token);
	} else {
		cs_data_read(s, f, first, count, d->buf, w->n->self, started, "in-place read");
	}
	w->reading = 0;
}

void cs_dp_main(void *arg)
{
	struct cs_dp *d = arg;
	struct cs_worker *w = &d->w;
	struct cs_sim *s = w->n->sim;

	d->buf = blk_alloc(64 << 10);
	csv_assert(d->buf);
	while (s->ops_left && !s->failed && !cs_worker_dead(w) && !w->n->leave) {
		one(d);		/* besides the operations that are counted */
		coro_sleep_ns(w->n->env->sched, csv_prng_below(&w->prng, 8 * NS_PER_MS));
	}
	free(d->buf);
	w->done = true;
	w->n->workers--;
}
