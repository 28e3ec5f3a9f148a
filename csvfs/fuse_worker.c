/*
 * fuse_worker.c - the data plane's threads: receive requests, do in-place I/O with libaio, answer from the completion.
 *
 *	epoll_wait(/dev/fuse, aio eventfd)
 *	  -> receive up to BATCH requests	each: in place -> iocb in the batch, or fop -> control thread
 *	  -> one io_submit for the batch
 *	  -> io_getevents -> reply, leave the gate
 *
 * Invariants
 *  W1  A thread touches its own aio context only; a request stays with the thread that received it.
 *  W2  Volume writes go through libaio only (R15): the kernel waits for them before the process is gone.
 *  W3  At stop a worker leaves only with no I/O of its own in flight.
 */
#include "csvfs/fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <urcu.h>

#include "utils/base/base.h"

#define BATCH 32u
#define AIO_DEPTH 1024u

/* One request in flight: one iocb for each piece of the device. */
struct wio {
	struct dp_io io;
	fuse_req_t req;
	struct iobuf *buf;
	unsigned left;
	int err;
	struct wio *next;
	struct iocb cb[DP_SEGS_MAX];
};

struct worker {
	struct fused *d;
	pthread_t thread;
	io_context_t aio;
	int ev_fd, ep_fd, stop_fd;
	struct iobuf *cur;
	bool stopping;
	unsigned inflight;		/* iocbs in the kernel or in the batch */
	struct iocb *batch[BATCH * DP_SEGS_MAX];
	unsigned n_batch;
	struct wio *free;
};

static __thread struct worker *this_worker;	/* set once, at the top of the thread */

struct worker *worker_of_thread(void)
{
	return this_worker;
}

struct iobuf *worker_take_current(struct worker *w)
{
	struct iobuf *b = w->cur;

	w->cur = NULL;
	return b;
}

static struct wio *wio_get(struct worker *w)
{
	struct wio *x = w->free;

	if (x) {
		w->free = x->next;
		return x;
	}
	return calloc(1, sizeof(*x));
}

static void wio_put(struct worker *w, struct wio *x)
{
	x->next = w->free;
	w->free = x;
}

static void queue_segments(struct worker *w, struct wio *x)
{
	unsigned i;

	x->left = x->io.nseg;
	x->err = 0;
	for (i = 0; i < x->io.nseg; i++) {
		struct dp_seg *s = &x->io.seg[i];
		struct iocb *cb = &x->cb[i];
		char *p = iobuf_payload(x->buf) + s->buf_off;

		if (x->io.write)
			io_prep_pwrite(cb, w->d->dev_fd, p, s->len, (long long)s->dev_off);
		else
			io_prep_pread(cb, w->d->dev_fd, p, s->len, (long long)s->dev_off);
		io_set_eventfd(cb, w->ev_fd);
		cb->data = x;
		w->batch[w->n_batch++] = cb;
		w->inflight++;
	}
}

/* Room for one more request in the batch and in the aio context. */
static bool has_room(const struct worker *w)
{
	return w->n_batch + DP_SEGS_MAX <= ARRAY_SIZE(w->batch) && w->inflight + DP_SEGS_MAX <= AIO_DEPTH;
}

static bool start(struct worker *w, fuse_req_t req, struct node n, bool write, uint64_t off, uint32_t len, struct iobuf *buf)
{
	struct fused *d = w->d;
	struct wio *x;

	if (!has_room(w))
		return false;
	x = wio_get(w);
	if (!x)
		return false;
	x->io = (struct dp_io){ .ino = (uint64_t)n.view << 62 | n.ino, .gen = n.gen, .write = write, .off = off, .len = len };
	if (dp_io_begin(d->dp, &x->io) != DP_SUBMIT) {
		wio_put(w, x);
		return false;
	}
	x->buf = buf ? buf : iobuf_get(d);
	if (!x->buf) {
		dp_io_end(d->dp, &x->io);
		wio_put(w, x);
		return false;
	}
	x->req = req;
	queue_segments(w, x);
	return true;
}

bool worker_try_read(struct worker *w, fuse_req_t req, struct node n, uint64_t off, uint32_t len)
{
	return start(w, req, n, false, off, len, NULL);
}

bool worker_try_write(struct worker *w, fuse_req_t req, struct node n, uint64_t off, uint32_t len, struct iobuf *buf)
{
	return start(w, req, n, true, off, len, buf);
}

static void finish(struct worker *w, struct wio *x)
{
	struct fused *d = w->d;

	/* The gate first: the answer may make the caller do something that waits for the drain. */
	dp_io_end(d->dp, &x->io);
	if (x->err)
		fuse_reply_err(x->req, -x->err);
	else if (x->io.write)
		fuse_reply_write(x->req, x->io.len);
	else
		fuse_reply_buf(x->req, iobuf_payload(x->buf), x->io.len);
	iobuf_put(d, x->buf);
	wio_put(w, x);
}

static void iocb_done(struct worker *w, struct iocb *cb, long res)
{
	struct wio *x = cb->data;

	w->inflight--;
	if (res < 0)
		x->err = (int)res;
	else if ((unsigned long)res != cb->u.c.nbytes)
		x->err = -EIO;
	if (--x->left == 0)
		finish(w, x);
}

static void submit_batch(struct worker *w)
{
	unsigned at = 0;

	while (at < w->n_batch) {
		int n = io_submit(w->aio, w->n_batch - at, w->batch + at);

		if (n == -EAGAIN || n == -EINTR)
			continue;		/* the context was sized for AIO_DEPTH: room comes with the kernel's own progress */
		if (n <= 0) {
			iocb_done(w, w->batch[at], n < 0 ? n : -EIO);
			n = 1;
		}
		at += (unsigned)n;
	}
	w->n_batch = 0;
}

static void reap(struct worker *w)
{
	struct io_event ev[64];
	struct timespec zero = { 0, 0 };
	int i, n;

	do {
		n = io_getevents(w->aio, 0, (long)ARRAY_SIZE(ev), ev, &zero);
		for (i = 0; i < n; i++)
			iocb_done(w, ev[i].obj, (long)ev[i].res);
	} while (n == (int)ARRAY_SIZE(ev));
}

/* One request; false when none is waiting. */
static bool receive_one(struct worker *w)
{
	struct fused *d = w->d;
	struct fuse_buf fb;
	int res;

	if (!w->cur)
		w->cur = iobuf_get(d);
	if (!w->cur)
		return false;	/* the request stays with the kernel until memory is there */
	fb = (struct fuse_buf){ .mem = w->cur->base + BUF_HEAD };
	res = fuse_session_receive_buf(d->se, &fb);
	if (res == -EINTR)
		return true;
	if (res <= 0) {
		if (res != -EAGAIN)
			w->stopping = true;	/* 0: unmounted; anything else: the connection is of no use */
		return false;
	}
	fuse_session_process_buf(d->se, &fb);
	return true;
}

/*
 * One at a time while nothing else is under way, else what is there: a queue of one is submitted at once, and the read that would only
 * say "no more" is left out; a deeper one is gathered into one io_submit().
 */
static void take_requests(struct worker *w)
{
	unsigned k, want = w->inflight ? BATCH : 1;

	for (k = 0; !w->stopping && k < want && has_room(w) && receive_one(w); k++)
		;
	submit_batch(w);
}

static void serve(struct worker *w)
{
	struct epoll_event ev[3];
	int n, i;

	while (!w->stopping || w->inflight) {
		bool requests = false;

		n = epoll_wait(w->ep_fd, ev, (int)ARRAY_SIZE(ev), -1);
		for (i = 0; i < n; i++) {
			if (ev[i].data.fd == w->stop_fd)
				w->stopping = true;
			else if (ev[i].data.fd != w->ev_fd)
				requests = true;
		}
		/* Answers first: whoever gets one may send the next request. */
		if (w->inflight)
			reap(w);
		if (requests)
			take_requests(w);
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	this_worker = w;
	rcu_register_thread();
	serve(w);
	rcu_unregister_thread();
	fuse_session_exit(w->d->se);
	if (!__atomic_exchange_n(&w->d->ended, 1, __ATOMIC_SEQ_CST))
		loop_post(w->d->loop, &w->d->ended_msg);
	return NULL;
}

static void worker_free(struct worker *w)
{
	struct wio *x;

	if (!w)
		return;
	while ((x = w->free)) {
		w->free = x->next;
		free(x);
	}
	iobuf_put(w->d, w->cur);
	if (w->aio)
		io_destroy(w->aio);
	if (w->ep_fd >= 0)
		close(w->ep_fd);
	if (w->ev_fd >= 0)
		close(w->ev_fd);
	if (w->stop_fd >= 0)
		close(w->stop_fd);
	free(w);
}

static int watch(struct worker *w, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.fd = fd };

	return epoll_ctl(w->ep_fd, EPOLL_CTL_ADD, fd, &e) ? -errno : 0;
}

static int worker_new(struct fused *d, struct worker **ret_w)
{
	struct worker *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	w->d = d;
	w->ep_fd = -1;
	w->ev_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	w->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	w->ep_fd = epoll_create1(EPOLL_CLOEXEC);
	err = io_setup(AIO_DEPTH, &w->aio);
	if (!err && (w->ev_fd < 0 || w->stop_fd < 0 || w->ep_fd < 0))
		err = -EMFILE;
	if (!err)
		err = watch(w, fuse_session_fd(d->se), EPOLLIN | EPOLLEXCLUSIVE);
	if (!err)
		err = watch(w, w->ev_fd, EPOLLIN | EPOLLET);
	if (!err)
		err = watch(w, w->stop_fd, EPOLLIN);
	if (err) {
		worker_free(w);
		return err;
	}
	*ret_w = w;
	return 0;
}

int workers_start(struct fused *d, unsigned n, struct csv_err *err)
{
	int fd = fuse_session_fd(d->se), e = 0;
	unsigned i;

	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK))
		return csv_err_set(err, -errno, "/dev/fuse: cannot make it non-blocking: %s", strerror(errno));
	d->worker = calloc(n, sizeof(struct worker *));
	for (i = 0; d->worker && i < n && !e; i++) {
		e = worker_new(d, &d->worker[i]);
		if (e)
			break;
		e = -pthread_create(&d->worker[i]->thread, NULL, worker_main, d->worker[i]);
		if (e) {
			worker_free(d->worker[i]);
			break;
		}
		d->n_workers = i + 1;
	}
	if (d->worker && !e)
		return 0;
	workers_stop(d);
	return csv_err_set(err, e ? e : -ENOMEM, "cannot start data-plane thread %u of %u: %s", i + 1, n, strerror(e ? -e : ENOMEM));
}

void workers_stop(struct fused *d)
{
	unsigned i, n = d->n_workers;
	uint64_t one = 1;

	for (i = 0; i < n; i++)
		if (write(d->worker[i]->stop_fd, &one, sizeof(one)) < 0)
			log_to(d->log, LOG_L_ERR, "data plane: thread %u cannot be told to stop: %s", i, strerror(errno));
	for (i = 0; i < n; i++)
		pthread_join(d->worker[i]->thread, NULL);
	d->n_workers = 0;
	for (i = 0; i < n; i++)
		worker_free(d->worker[i]);
	free(d->worker);
	d->worker = NULL;
}
