/*
 * real_blk.c - the block port on libaio.
 *
 * Invariants
 *  RB1 Submitted in batches, one io_submit a turn of the loop; what the kernel does not take at once (EAGAIN) stays queued in order
 *      and goes with the next completion.
 *  RB2 An iocb lives in a struct of ours from blk_submit() until its event was reaped; the number in the kernel never exceeds AIO_DEPTH.
 *  RB3 Writes reach the device by libaio only (R15): the kernel waits for them before this process is gone.
 */
#include "utils/env/real.h"

#include <errno.h>
#include <libaio.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "utils/base/base.h"

#define AIO_DEPTH 1024
#define SUBMIT_BATCH 64

struct rreq {
	struct iocb cb;
	struct blk_req *r;
	struct rreq *next;
};

struct rblk {
	struct blk blk;
	struct blk_file file;
	struct loop *loop;
	struct loop_hook hook;
	io_context_t aio;
	int ev_fd;
	unsigned in_kernel;
	struct rreq *head, *tail;	/* not yet submitted */
	struct rreq *free;
	uint64_t submit_ns_max;
};

static struct rblk *rblk_of(const struct blk *b)
{
	return container_of(b, struct rblk, blk);
}

static struct rreq *rreq_get(struct rblk *b)
{
	struct rreq *q = b->free;

	if (q) {
		b->free = q->next;
		return q;
	}
	return calloc(1, sizeof(*q));
}

static void rreq_put(struct rblk *b, struct rreq *q)
{
	q->next = b->free;
	b->free = q;
}

static void rreq_done(struct rblk *b, struct rreq *q, long res)
{
	struct blk_req *r = q->r;
	int result = 0;

	if (res < 0)
		result = (int)res;
	else if (r->op != BLK_FLUSH && (unsigned long)res != r->len)
		result = -EIO;
	rreq_put(b, q);
	blk_complete(&b->blk, r, result);
}

/* ---- submission --------------------------------------------------------------------------------------------- */

static void submit_queued(struct rblk *b)
{
	struct iocb *batch[SUBMIT_BATCH];

	while (b->head && b->in_kernel < AIO_DEPTH) {
		struct rreq *q;
		unsigned n = 0;
		uint64_t t0;
		int rc;

		for (q = b->head; q && n < SUBMIT_BATCH && b->in_kernel + n < AIO_DEPTH; q = q->next)
			batch[n++] = &q->cb;
		t0 = sched_now_ns(b->blk.sched);
		rc = io_submit(b->aio, (long)n, batch);
		b->submit_ns_max = csv_max(b->submit_ns_max, sched_now_ns(b->blk.sched) - t0);
		if (rc == -EAGAIN || rc == -EINTR) {
			if (!b->in_kernel)
				continue;	/* no completion would come to try again */
			return;
		}
		if (rc <= 0) {			/* the first is refused: its own error */
			q = b->head;
			b->head = q->next;
			if (!b->head)
				b->tail = NULL;
			blk_complete_later(&b->blk, q->r, rc ? rc : -EIO);
			rreq_put(b, q);
			continue;
		}
		b->in_kernel += (unsigned)rc;
		while (rc-- > 0)
			b->head = b->head->next;
		if (!b->head)
			b->tail = NULL;
	}
}

static void on_turn(struct loop_hook *h)
{
	submit_queued(container_of(h, struct rblk, hook));
}

/* ---- discard: fallocate and BLKDISCARD block, so each runs on a thread of its own ------------------------------ */

struct discard { struct loop_msg msg; struct rblk *b; struct blk_req *r; int result; };

static void discard_done(struct loop_msg *m)
{
	struct discard *d = container_of(m, struct discard, msg);

	blk_complete(&d->b->blk, d->r, d->result);
	free(d);
}

static void *discard_main(void *arg)
{
	struct discard *d = arg;

	d->result = blk_file_discard(&d->b->file, d->r->off, d->r->len);
	loop_post(d->b->loop, &d->msg);
	return NULL;
}

static void submit_discard(struct rblk *b, struct blk_req *r)
{
	struct discard *d = calloc(1, sizeof(*d));
	pthread_attr_t at;
	pthread_t th;
	int rc;

	if (!d) {
		blk_complete_later(&b->blk, r, -ENOMEM);
		return;
	}
	*d = (struct discard){ .msg.fn = discard_done, .b = b, .r = r };
	pthread_attr_init(&at);
	pthread_attr_setdetachstate(&at, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&th, &at, discard_main, d);
	pthread_attr_destroy(&at);
	if (rc) {
		blk_complete_later(&b->blk, r, -rc);
		free(d);
	}
}

static void rblk_submit(struct blk *blk, struct blk_req *r)
{
	struct rblk *b = rblk_of(blk);
	struct rreq *q;

	if (r->op == BLK_DISCARD) {
		submit_discard(b, r);
		return;
	}
	q = rreq_get(b);
	if (!q) {
		blk_complete_later(blk, r, -ENOMEM);
		return;
	}
	q->r = r;
	q->next = NULL;
	if (r->op == BLK_READ)
		io_prep_pread(&q->cb, b->file.fd, r->buf, r->len, (long long)r->off);
	else if (r->op == BLK_WRITE)
		io_prep_pwrite(&q->cb, b->file.fd, r->buf, r->len, (long long)r->off);
	else
		io_prep_fdsync(&q->cb, b->file.fd);
	io_set_eventfd(&q->cb, b->ev_fd);
	q->cb.data = q;
	if (b->tail)
		b->tail->next = q;
	else
		b->head = q;
	b->tail = q;
}

/* ---- completion ---------------------------------------------------------------------------------------------- */

static int on_aio(void *arg, int fd, int revents)
{
	struct rblk *b = arg;
	struct io_event ev[64];
	struct timespec zero = { 0, 0 };
	uint64_t v;
	int n, i;

	(void)revents;
	if (read(fd, &v, sizeof(v)) < 0 && errno != EAGAIN && errno != EINTR)
		csv_panic("aio eventfd: %s", strerror(errno));
	do {
		n = io_getevents(b->aio, 0, (long)ARRAY_SIZE(ev), ev, &zero);
		csv_assertf(n >= 0 || n == -EINTR, "io_getevents: %s", strerror(-n));
		for (i = 0; i < n; i++) {
			b->in_kernel--;
			rreq_done(b, ev[i].data, (long)ev[i].res);
		}
	} while (n == (int)ARRAY_SIZE(ev) || n == -EINTR);
	return 0;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static void rblk_destroy(struct rblk *b)
{
	struct rreq *q;

	while ((q = b->free)) {
		b->free = q->next;
		free(q);
	}
	if (b->aio)
		io_destroy(b->aio);
	if (b->ev_fd >= 0)
		close(b->ev_fd);
	blk_file_close(&b->file);
	free(b);
}

static void rblk_close(struct blk *blk)
{
	struct rblk *b = rblk_of(blk);

	csv_assert(!b->in_kernel && !b->head);
	loop_del_hook(b->loop, &b->hook);
	loop_del_fd(b->loop, b->ev_fd);
	rblk_destroy(b);
}

static const struct blk_ops rblk_ops = { rblk_submit, rblk_close };

int real_blk_open(const char *path, unsigned flags, struct loop *l, struct blk **ret_blk, struct csv_err *err)
{
	struct rblk *b = calloc(1, sizeof(*b));
	int rc;

	if (!b)
		return csv_err_set(err, -ENOMEM, "%s: out of memory", path);
	b->ev_fd = -1;
	rc = blk_file_open(path, flags, &b->file, err);
	if (rc) {
		free(b);
		return rc;
	}
	b->loop = l;
	b->blk.ops = &rblk_ops;
	b->blk.sched = loop_sched(l);
	b->blk.size_bytes = b->file.size_bytes;
	b->blk.min_io = b->file.min_io;
	b->blk.io_align = b->file.io_align;
	b->ev_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rc = b->ev_fd < 0 ? -errno : io_setup(AIO_DEPTH, &b->aio);
	if (!rc)
		rc = loop_add_fd(l, b->ev_fd, POLLIN, on_aio, b);
	if (rc) {
		rblk_destroy(b);
		return csv_err_set(err, rc, "%s: cannot set up asynchronous I/O: %s; see /proc/sys/fs/aio-max-nr", path, strerror(-rc));
	}
	b->hook.fn = on_turn;
	loop_add_hook(l, &b->hook);
	*ret_blk = &b->blk;
	return 0;
}

int real_blk_fd(const struct blk *b)
{
	return rblk_of(b)->file.fd;
}

uint64_t real_blk_submit_ns_max(const struct blk *b)
{
	return rblk_of(b)->submit_ns_max;
}
