/*
 * sched.c - run queue, coroutines, wait queues and timers of one control plane.
 *
 * The run queue holds jobs; a coroutine that is ready is a job whose function enters it.  So a pick (S2) chooses among
 * everything that can run.
 *
 * A waiting coroutine is on one wait queue and may have its timer armed; whoever ends the wait (wake, timer, cancel) takes
 * it off both, sets wait_result and puts it on the run queue.  A wake that came first wins over a later cancel: the
 * event that was handed over is never lost.
 *
 * Thread: the scheduler's own.
 */
#include "utils/env/sched.h"

#include <errno.h>
#include <stdlib.h>

#include "utils/base/base.h"
#include "utils/env/coro.h"

struct coro {
	struct job job;			/* on the run queue */
	struct cds_list_head all;	/* s->all */
	struct cds_list_head wait;	/* on wq */
	struct waitq *wq;		/* NULL: does not wait */
	struct sched *s;
	struct ctx *ctx;
	const char *name;
	void (*fn)(void *arg);
	void *arg;
	void *local;
	struct timer timer;
	int wait_result;
	uint32_t flags;
	bool intr;			/* cancel ends the present wait */
	bool cancelled;
};

struct sched {
	struct clock *clk;
	struct cds_list_head ready;
	unsigned n_ready;
	struct csv_heap timers;
	struct cds_list_head all;
	unsigned n_coro;
	struct coro *current;
	bool stepping;
	struct ctx_pool pool;
	unsigned (*pick)(void *arg, unsigned n);
	void *pick_arg;
	uint32_t no_flags;		/* for coro_flags() outside any coroutine */
	void *no_local;
};

#define TIMERS_RESERVE 256

struct sched *sched_new(struct clock *clk)
{
	struct sched *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->clk = clk;
	CDS_INIT_LIST_HEAD(&s->ready);
	CDS_INIT_LIST_HEAD(&s->all);
	csv_heap_init(&s->timers);
	if (csv_heap_reserve(&s->timers, TIMERS_RESERVE) < 0) {
		free(s);
		return NULL;
	}
	ctx_pool_init(&s->pool);
	return s;
}

void sched_free(struct sched *s)
{
	struct coro *c, *tmp;

	if (!s)
		return;
	csv_assert(!s->stepping);
	cds_list_for_each_entry_safe(c, tmp, &s->all, all) {
		ctx_abandon(c->ctx);
		free(c);
	}
	ctx_pool_done(&s->pool);
	csv_heap_done(&s->timers);
	free(s);
}

uint64_t sched_now_ns(struct sched *s)
{
	return clock_mono_ns(s->clk);
}

/* ---- jobs -------------------------------------------------------------------------------------------------- */

void job_init(struct job *j, void (*fn)(struct job *j))
{
	CDS_INIT_LIST_HEAD(&j->node);
	j->queued = false;
	j->fn = fn;
}

void sched_post(struct sched *s, struct job *j)
{
	if (j->queued)
		return;
	j->queued = true;
	cds_list_add_tail(&j->node, &s->ready);
	s->n_ready++;
}

void sched_unpost(struct sched *s, struct job *j)
{
	if (!j->queued)
		return;
	j->queued = false;
	cds_list_del(&j->node);
	s->n_ready--;
}

unsigned sched_ready(const struct sched *s)
{
	return s->n_ready;
}

void sched_set_pick(struct sched *s, unsigned (*pick)(void *arg, unsigned n), void *arg)
{
	s->pick = pick;
	s->pick_arg = arg;
}

bool sched_step(struct sched *s)
{
	struct cds_list_head *at = s->ready.next;
	struct job *j;

	csv_assert(!s->stepping);
	if (!s->n_ready)
		return false;
	if (s->pick && s->n_ready > 1) {
		unsigned i = s->pick(s->pick_arg, s->n_ready);

		csv_assert(i < s->n_ready);
		while (i--)
			at = at->next;
	}
	j = cds_list_entry(at, struct job, node);
	sched_unpost(s, j);
	s->stepping = true;
	j->fn(j);
	s->stepping = false;
	return true;
}

void sched_run(struct sched *s)
{
	while (sched_step(s))
		;
}

/* ---- timers ------------------------------------------------------------------------------------------------ */

void timer_init(struct timer *t, void (*fn)(struct timer *t))
{
	csv_heap_node_init(&t->node);
	t->armed = false;
	t->fn = fn;
}

void timer_set(struct sched *s, struct timer *t, uint64_t deadline_ns)
{
	if (t->armed) {
		csv_heap_rekey(&s->timers, &t->node, deadline_ns);
		return;
	}
	if (csv_heap_add(&s->timers, &t->node, deadline_ns) < 0) {
		/* A time-out that never comes would hang a cluster silently: stop loudly instead. */
		csv_panic("timer_set: out of memory for the timer heap");
	}
	t->armed = true;
}

void timer_del(struct sched *s, struct timer *t)
{
	if (!t->armed)
		return;
	csv_heap_remove(&s->timers, &t->node);
	t->armed = false;
}

uint64_t sched_next_deadline(const struct sched *s)
{
	struct csv_heap_node *n = csv_heap_peek(&s->timers);

	return n ? n->key : UINT64_MAX;
}

void sched_run_timers(struct sched *s, uint64_t now_ns)
{
	size_t left = s->timers.count;	/* a timer that re-arms itself for now does not keep us here for ever */
	struct csv_heap_node *n;

	csv_assert(!s->stepping);
	s->stepping = true;
	while (left-- && (n = csv_heap_peek(&s->timers)) && n->key <= now_ns) {
		struct timer *t = container_of(n, struct timer, node);

		timer_del(s, t);
		t->fn(t);
	}
	s->stepping = false;
}

/* ---- coroutines -------------------------------------------------------------------------------------------- */

static void coro_main(void *arg)
{
	struct coro *c = arg;

	c->fn(c->arg);
}

static void coro_run(struct job *j)
{
	struct coro *c = container_of(j, struct coro, job);
	struct sched *s = c->s;

	csv_assert(!s->current);
	s->current = c;
	if (ctx_enter(c->ctx)) {
		csv_assert(!c->wq && !c->job.queued);
		ctx_put(c->ctx);
		cds_list_del(&c->all);
		s->n_coro--;
		free(c);
	}
	s->current = NULL;
}

/* The running coroutine stops here until its job runs again. */
static void coro_switch_out(struct coro *c)
{
	csv_assert(c && c == c->s->current);
	csv_assert(!(c->flags & CORO_NO_AWAIT));
	ctx_leave(c->ctx);
}

static void wait_end(struct coro *c, int result)
{
	cds_list_del(&c->wait);
	c->wq = NULL;
	timer_del(c->s, &c->timer);
	c->wait_result = result;
	sched_post(c->s, &c->job);
}

static void wait_timer(struct timer *t)
{
	wait_end(container_of(t, struct coro, timer), -ETIMEDOUT);
}

int sched_spawn_ret(struct sched *s, const char *name, void (*fn)(void *arg), void *arg, struct coro **ret_coro)
{
	struct coro *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->ctx = ctx_get(&s->pool, coro_main, c);
	/* Each coroutine may wait with a time-out, so that timer_set() there cannot fail. */
	if (!c->ctx || csv_heap_reserve(&s->timers, s->timers.count + s->n_coro + TIMERS_RESERVE) < 0) {
		if (c->ctx)
			ctx_abandon(c->ctx);
		free(c);
		return -ENOMEM;
	}
	c->s = s;
	c->name = name;
	c->fn = fn;
	c->arg = arg;
	job_init(&c->job, coro_run);
	timer_init(&c->timer, wait_timer);
	cds_list_add_tail(&c->all, &s->all);
	s->n_coro++;
	sched_post(s, &c->job);
	if (ret_coro)
		*ret_coro = c;
	return 0;
}

int sched_spawn(struct sched *s, const char *name, void (*fn)(void *arg), void *arg)
{
	return sched_spawn_ret(s, name, fn, arg, NULL);
}

struct coro *sched_self(struct sched *s)
{
	return s->current;
}

void sched_each(const struct sched *s, void (*fn)(void *arg, const char *name), void *arg)
{
	const struct coro *c;

	cds_list_for_each_entry(c, &s->all, all)
		fn(arg, c->name);
}

unsigned sched_coros(const struct sched *s)
{
	return s->n_coro;
}

const char *coro_name(const struct coro *c)
{
	return c->name;
}

uint32_t *coro_flags(struct sched *s)
{
	return s->current ? &s->current->flags : &s->no_flags;
}

void **coro_local(struct sched *s)
{
	return s->current ? &s->current->local : &s->no_local;
}

void coro_yield(struct sched *s)
{
	csv_assert(s->current);
	sched_post(s, &s->current->job);
	coro_switch_out(s->current);
}

void coro_sleep_ns(struct sched *s, uint64_t ns)
{
	uint64_t now = sched_now_ns(s);
	struct waitq nobody;

	waitq_init(&nobody);
	sched_wait_until(s, &nobody, ns < UINT64_MAX - now ? now + ns : UINT64_MAX, false);
}

/* ---- waiting ----------------------------------------------------------------------------------------------- */

void waitq_init(struct waitq *q)
{
	CDS_INIT_LIST_HEAD(&q->head);
}

bool waitq_empty(const struct waitq *q)
{
	return q->head.next == &q->head;
}

int sched_wait_until(struct sched *s, struct waitq *q, uint64_t deadline_ns, bool intr)
{
	struct coro *c = s->current;

	csv_assert(c);
	csv_assert(!(c->flags & CORO_NO_AWAIT));
	csv_assert(!c->wq);
	if (intr && c->cancelled)
		return -EINTR;
	if (deadline_ns != UINT64_MAX) {
		if (deadline_ns <= sched_now_ns(s))
			return -ETIMEDOUT;
		timer_set(s, &c->timer, deadline_ns);
	}
	c->intr = intr;
	c->wq = q;
	cds_list_add_tail(&c->wait, &q->head);
	coro_switch_out(c);
	csv_assert(!c->wq && !c->timer.armed);
	return c->wait_result;
}

int sched_wait(struct sched *s, struct waitq *q)
{
	return sched_wait_until(s, q, UINT64_MAX, false);
}

int sched_wait_intr(struct sched *s, struct waitq *q)
{
	return sched_wait_until(s, q, UINT64_MAX, true);
}

void sched_wake_one(struct sched *s, struct waitq *q)
{
	struct coro *c;

	if (waitq_empty(q))
		return;
	c = cds_list_first_entry(&q->head, struct coro, wait);
	csv_assert(c->s == s);
	wait_end(c, 0);
}

void sched_wake_all(struct sched *s, struct waitq *q)
{
	while (!waitq_empty(q))
		sched_wake_one(s, q);
}

void sched_cancel(struct sched *s, struct coro *c)
{
	csv_assert(c->s == s);
	c->cancelled = true;
	if (c->wq && c->intr)
		wait_end(c, -EINTR);
}

bool coro_cancelled(struct sched *s)
{
	return s->current && s->current->cancelled;
}

/* ---- completion, mutex ------------------------------------------------------------------------------------- */

void completion_init(struct completion *c)
{
	c->done = false;
	c->status = 0;
	waitq_init(&c->wq);
}

void completion_done(struct sched *s, struct completion *c, int status)
{
	csv_assert(!c->done);
	c->done = true;
	c->status = status;
	sched_wake_all(s, &c->wq);
}

int completion_wait(struct sched *s, struct completion *c)
{
	if (!c->done)
		sched_wait(s, &c->wq);
	return c->status;
}

void co_mutex_init(struct co_mutex *m)
{
	m->owner = NULL;
	waitq_init(&m->wq);
}

void co_mutex_lock(struct sched *s, struct co_mutex *m)
{
	csv_assert(s->current && m->owner != s->current);
	if (!m->owner) {
		m->owner = s->current;
		return;
	}
	sched_wait(s, &m->wq);
	csv_assert(m->owner == s->current);		/* handed over by co_mutex_unlock() */
}

int co_mutex_lock_intr(struct sched *s, struct co_mutex *m)
{
	int rc;

	csv_assert(s->current && m->owner != s->current);
	if (!m->owner) {
		m->owner = s->current;
		return 0;
	}
	rc = sched_wait_intr(s, &m->wq);
	csv_assert((m->owner == s->current) == !rc);
	return rc;
}

void co_mutex_unlock(struct sched *s, struct co_mutex *m)
{
	csv_assert(m->owner == s->current);
	m->owner = NULL;
	if (!waitq_empty(&m->wq)) {
		m->owner = cds_list_first_entry(&m->wq.head, struct coro, wait);
		sched_wake_one(s, &m->wq);
	}
}
