/*
 * blk.c - the part of the block port that is the same for every device: checks, counts, the gate, and awaiting.
 *
 * Thread: the control thread.
 */
#include "utils/env/blk.h"

#include <errno.h>
#include <stdlib.h>

#include "utils/base/base.h"
#include "utils/base/err.h"

#define BLK_BUF_ALIGN 4096

static void later_run(struct job *j)
{
	struct blk *b = container_of(j, struct blk, later_job);
	struct blk_req *r = b->later_head;

	/* One a turn: done() may close the device, and each is a thing of its own for the scheduler's pick. */
	b->later_head = r->next;
	if (!b->later_head)
		b->later_tail = NULL;
	else
		sched_post(b->sched, j);
	b->inflight--;
	r->done(r);
}

void blk_complete(struct blk *b, struct blk_req *r, int result)
{
	csv_assert(b->inflight > 0);
	b->inflight--;
	r->result = result;
	r->done(r);
}

void blk_complete_later(struct blk *b, struct blk_req *r, int result)
{
	r->result = result;
	r->next = NULL;
	if (b->later_tail)
		b->later_tail->next = r;
	else
		b->later_head = r;
	b->later_tail = r;
	if (!b->later_job.fn)
		job_init(&b->later_job, later_run);
	sched_post(b->sched, &b->later_job);
}

static void check_alignment(const struct blk *b, const struct blk_req *r)
{
	if (r->op == BLK_FLUSH) {
		csv_assert(r->len == 0);
		return;
	}
	csv_assertf(r->len > 0 && r->off % b->io_align == 0 && r->len % b->io_align == 0,
		    "op %d offset %llu length %u, alignment %u", r->op, (unsigned long long)r->off, r->len, b->io_align);
	if (r->op != BLK_DISCARD)
		csv_assertf((uintptr_t)r->buf % b->io_align == 0, "buffer %p, alignment %u", r->buf, b->io_align);
}

void blk_submit(struct blk *b, struct blk_req *r)
{
	check_alignment(b, r);
	b->inflight++;
	if (b->gate_closed) {
		blk_complete_later(b, r, -CSV_E_WITHDRAWN);
		return;
	}
	if (r->via.kind != BLK_VIA_LOCAL) {
		blk_complete_later(b, r, -EOPNOTSUPP);
		return;
	}
	if (r->op != BLK_FLUSH && (r->off > b->size_bytes || r->len > b->size_bytes - r->off)) {
		blk_complete_later(b, r, -ERANGE);
		return;
	}
	switch (r->op) {
	case BLK_READ: b->n_reads++; break;
	case BLK_WRITE: b->n_writes++; break;
	case BLK_FLUSH: b->n_flushes++; break;
	case BLK_DISCARD: b->n_discards++; break;
	}
	b->ops->submit(b, r);
}

void blk_gate_close(struct blk *b)
{
	b->gate_closed = true;
}

void blk_gate_open(struct blk *b)
{
	csv_assertf(b->inflight == 0, "%u requests in flight", b->inflight);
	b->gate_closed = false;
}

void blk_close(struct blk *b)
{
	if (!b)
		return;
	csv_assertf(b->inflight == 0, "%u requests in flight", b->inflight);
	b->ops->close(b);
}

struct await {
	struct blk_req req;
	struct sched *sched;
	struct completion done;
};

static void await_done(struct blk_req *r)
{
	struct await *a = container_of(r, struct await, req);

	completion_done(a->sched, &a->done, r->result);
}

static int await(struct blk *b, enum blk_op op, uint64_t off, void *buf, uint32_t len)
{
	struct await a = {
		.req = { .op = op, .off = off, .len = len, .buf = buf, .done = await_done },
		.sched = b->sched,
	};

	completion_init(&a.done);
	blk_submit(b, &a.req);
	return completion_wait(b->sched, &a.done);
}

int blk_read(struct blk *b, uint64_t off, void *buf, uint32_t len)
{
	return await(b, BLK_READ, off, buf, len);
}

int blk_write(struct blk *b, uint64_t off, const void *buf, uint32_t len)
{
	return await(b, BLK_WRITE, off, (void *)buf, len);
}

int blk_flush(struct blk *b)
{
	return await(b, BLK_FLUSH, 0, NULL, 0);
}

int blk_discard(struct blk *b, uint64_t off, uint32_t len)
{
	return await(b, BLK_DISCARD, off, NULL, len);
}

void *blk_alloc(uint32_t len)
{
	return aligned_alloc(BLK_BUF_ALIGN, csv_round_up(len ? len : 1, BLK_BUF_ALIGN));
}
