/*
 * loop.c - see loop.h.
 */
#include "utils/env/loop.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <qb/qbloop.h>

#include "utils/base/base.h"

/* liburcu's queue is built without ThreadSanitizer: say by hand what it orders. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define msg_sent(m) __tsan_release(m)
#define msg_received(m) __tsan_acquire(m)
#else
#define msg_sent(m) ((void)(m))
#define msg_received(m) ((void)(m))
#endif

struct loop {
	struct sched *sched;
	struct qb_loop *qb;
	int event_fd, timer_fd;
	bool stopped;
	uint64_t armed_ns;		/* deadline in the timerfd; UINT64_MAX: none */
	struct cds_list_head hooks, fds;
	struct cds_wfcq_head head;	/* posted messages */
	struct cds_wfcq_tail tail;
};

struct loop_fd {
	struct cds_list_head node;
	struct loop *l;
	int fd;
	int (*fn)(void *arg, int fd, int revents);
	void *arg;
	bool in_call, gone;
};

/* ---- one turn --------------------------------------------------------------------------------------------- */

static void arm(struct loop *l)
{
	uint64_t d = sched_next_deadline(l->sched);
	struct itimerspec it = { 0 };

	if (d == l->armed_ns)
		return;
	l->armed_ns = d;
	if (d != UINT64_MAX) {
		if (!d)
			d = 1;		/* 0 would disarm */
		it.it_value.tv_sec = (time_t)(d / NS_PER_SEC);
		it.it_value.tv_nsec = (long)(d % NS_PER_SEC);
	}
	if (timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &it, NULL))
		csv_panic("timerfd_settime: %s", strerror(errno));
}

void loop_turn(struct loop *l)
{
	struct loop_hook *h, *tmp;

	do {
		sched_run_timers(l->sched, sched_now_ns(l->sched));
		sched_run(l->sched);
		cds_list_for_each_entry_safe(h, tmp, &l->hooks, node)
			h->fn(h);
	} while (sched_ready(l->sched));
	arm(l);
}

static void drain_fd(int fd)
{
	uint64_t v;

	if (read(fd, &v, sizeof(v)) < 0 && errno != EAGAIN && errno != EINTR)
		csv_panic("eventfd or timerfd %d: read: %s", fd, strerror(errno));
}

static int on_event(int fd, int revents, void *data)
{
	struct loop *l = data;
	struct cds_wfcq_node *n;

	(void)revents;
	drain_fd(fd);		/* before the queue: a message that comes now raises the eventfd anew */
	while ((n = __cds_wfcq_dequeue_blocking(&l->head, &l->tail))) {
		struct loop_msg *m = caa_container_of(n, struct loop_msg, node);

		msg_received(m);
		m->fn(m);
	}
	loop_turn(l);
	return 0;
}

static int on_timer(int fd, int revents, void *data)
{
	struct loop *l = data;

	(void)revents;
	drain_fd(fd);
	l->armed_ns = UINT64_MAX;
	loop_turn(l);
	return 0;
}

/* ---- descriptors -------------------------------------------------------------------------------------------- */

static int on_fd(int fd, int revents, void *data)
{
	struct loop_fd *f = data;
	struct loop *l = f->l;
	int rc;

	f->in_call = true;
	rc = f->fn(f->arg, fd, revents);
	f->in_call = false;
	if (f->gone) {
		free(f);
		rc = 0;		/* loop_del_fd() took it out of libqb already */
	} else if (rc < 0) {
		cds_list_del(&f->node);
		qb_loop_poll_del(l->qb, fd);
		free(f);
		rc = 0;
	}
	loop_turn(l);
	return 0;
}

int loop_add_fd(struct loop *l, int fd, int events, int (*fn)(void *arg, int fd, int revents), void *arg)
{
	struct loop_fd *f = calloc(1, sizeof(*f));
	int rc;

	if (!f)
		return -ENOMEM;
	f->l = l;
	f->fd = fd;
	f->fn = fn;
	f->arg = arg;
	rc = qb_loop_poll_add(l->qb, QB_LOOP_MED, fd, events, f, on_fd);
	if (rc) {
		free(f);
		return rc;
	}
	cds_list_add(&f->node, &l->fds);
	return 0;
}

int loop_mod_fd(struct loop *l, int fd, int events)
{
	struct loop_fd *f;

	cds_list_for_each_entry(f, &l->fds, node)
		if (f->fd == fd)
			return qb_loop_poll_mod(l->qb, QB_LOOP_MED, fd, events, f, on_fd);
	return -ENOENT;
}

void loop_del_fd(struct loop *l, int fd)
{
	struct loop_fd *f;

	cds_list_for_each_entry(f, &l->fds, node) {
		if (f->fd != fd)
			continue;
		cds_list_del(&f->node);
		qb_loop_poll_del(l->qb, fd);
		if (f->in_call)
			f->gone = true;
		else
			free(f);
		return;
	}
}

/* ---- hooks and messages ---------------------------------------------------------------------------------------- */

void loop_add_hook(struct loop *l, struct loop_hook *h)
{
	cds_list_add_tail(&h->node, &l->hooks);
}

void loop_del_hook(struct loop *l, struct loop_hook *h)
{
	(void)l;
	cds_list_del(&h->node);
}

void loop_post(struct loop *l, struct loop_msg *m)
{
	uint64_t one = 1;

	cds_wfcq_node_init(&m->node);
	msg_sent(m);
	/* True: the queue was not empty, so its first poster has raised the eventfd. */
	if (cds_wfcq_enqueue(&l->head, &l->tail, &m->node))
		return;
	while (write(l->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

int loop_new(struct sched *s, struct loop **ret_loop, struct csv_err *err)
{
	struct loop *l = calloc(1, sizeof(*l));
	int rc = -ENOMEM;

	if (!l)
		return csv_err_set(err, -ENOMEM, "main loop: out of memory");
	l->sched = s;
	l->armed_ns = UINT64_MAX;
	CDS_INIT_LIST_HEAD(&l->hooks);
	CDS_INIT_LIST_HEAD(&l->fds);
	cds_wfcq_init(&l->head, &l->tail);
	l->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	l->qb = qb_loop_create();
	if (l->event_fd < 0 || l->timer_fd < 0)
		rc = -errno;
	else if (l->qb)
		rc = qb_loop_poll_add(l->qb, QB_LOOP_HIGH, l->event_fd, POLLIN, l, on_event);
	if (!rc)
		rc = qb_loop_poll_add(l->qb, QB_LOOP_HIGH, l->timer_fd, POLLIN, l, on_timer);
	if (rc) {
		loop_free(l);
		return csv_err_set(err, rc, "main loop: cannot be set up: %s", strerror(-rc));
	}
	*ret_loop = l;
	return 0;
}

void loop_free(struct loop *l)
{
	struct loop_fd *f, *tmp;

	if (!l)
		return;
	cds_list_for_each_entry_safe(f, tmp, &l->fds, node) {
		qb_loop_poll_del(l->qb, f->fd);
		free(f);
	}
	if (l->event_fd >= 0) {
		if (l->qb)
			qb_loop_poll_del(l->qb, l->event_fd);
		close(l->event_fd);
	}
	if (l->timer_fd >= 0) {
		if (l->qb)
			qb_loop_poll_del(l->qb, l->timer_fd);
		close(l->timer_fd);
	}
	if (l->qb)
		qb_loop_destroy(l->qb);
	free(l);
}

struct sched *loop_sched(struct loop *l)
{
	return l->sched;
}

struct qb_loop *loop_qb(struct loop *l)
{
	return l->qb;
}

void loop_run(struct loop *l)
{
	l->stopped = false;
	loop_turn(l);
	if (!l->stopped)	/* libqb forgets a stop that comes before its run */
		qb_loop_run(l->qb);
}

void loop_stop(struct loop *l)
{
	l->stopped = true;
	qb_loop_stop(l->qb);
}
