/*
 * sched.h - coroutines, run queue and timers of one control plane.
 *
 * One struct sched belongs to one thread (the control thread of a daemon) or, in the simulator, to one
 * simulated node.  Everything here is called from that thread only; other threads reach a control plane
 * through loop_post() (utils/env/loop.h).
 *
 * Invariants
 *  S1  A coroutine runs only from sched_step()/sched_run(); nothing here resumes one from inside another call.
 *      Waking only moves it to the run queue, so a callback never runs inside the call that started it.
 *  S2  The scheduler reads no clock and no random source but the ports it was given.  With the same picks and the same
 *      clock the order of execution is the same.
 *  S3  A coroutine that waits is on exactly one wait queue; leaving by time-out or cancel takes it off.
 *  S4  No await while CORO_NO_AWAIT is set in its flags (inside rcu_read_lock, inside a port callback): asserted.
 *
 * Stacks: 64 KiB with a guard page below, pooled.  Contexts are created with ucontext and switched with sigsetjmp /
 * siglongjmp (no system call a switch); ASan and TSan fibre hooks are always compiled in when those sanitizers are.
 */
#ifndef CSVFS_UTILS_ENV_SCHED_H
#define CSVFS_UTILS_ENV_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <urcu/list.h>

#include "utils/base/heap.h"
#include "utils/env/clock.h"

struct sched;
struct coro;

/* Owner: the caller, until sched_free().  NULL when out of memory.  `clk` is borrowed and must outlive it. */
struct sched *sched_new(struct clock *clk);

/*
 * Drops everything at once, as a crash would: suspended coroutines are forgotten (their stacks are returned, what they
 * had allocated is not), timers and jobs never fire.
 */
void sched_free(struct sched *s);

/* ---- coroutines ------------------------------------------------------------------------------------------ */

/* Puts a new coroutine on the run queue.  0, -ENOMEM.  `name` must be a literal (diagnostics). */
int sched_spawn(struct sched *s, const char *name, void (*fn)(void *arg), void *arg);
/* The same, and hands out the coroutine for sched_cancel(); valid until fn returns. */
int sched_spawn_ret(struct sched *s, const char *name, void (*fn)(void *arg), void *arg, struct coro **ret_coro);

struct coro *sched_self(struct sched *s);	/* NULL outside any coroutine */
const char *coro_name(const struct coro *c);
unsigned sched_coros(const struct sched *s);	/* alive */
void sched_each(const struct sched *s, void (*fn)(void *arg, const char *name), void *arg);	/* their names, oldest first */

/* Flags for lock-order and await assertions, see the users. */
#define CORO_NO_AWAIT	0x0001u		/* no await at all: asserted by every wait */
#define CORO_IN_TXN	0x0002u		/* inside a journal transaction: only block I/O may be awaited */
uint32_t *coro_flags(struct sched *s);	/* of the running coroutine; a dummy word outside any */
/* One pointer for the layer that runs the operation (for instance its per-operation lock list). */
void **coro_local(struct sched *s);

/* Runs something else that is ready first. */
void coro_yield(struct sched *s);
void coro_sleep_ns(struct sched *s, uint64_t ns);

/* ---- waiting --------------------------------------------------------------------------------------------- */

struct waitq { struct cds_list_head head; };
void waitq_init(struct waitq *q);
bool waitq_empty(const struct waitq *q);

/* Waits until woken.  Always returns 0. */
int sched_wait(struct sched *s, struct waitq *q);
/* -EINTR when sched_cancel() was called before or meanwhile (the flag stays set; see coro_cancelled). */
int sched_wait_intr(struct sched *s, struct waitq *q);
/* 0 woken, -ETIMEDOUT at `deadline_ns` of clock_mono_ns(), -EINTR when `intr` and cancelled. */
int sched_wait_until(struct sched *s, struct waitq *q, uint64_t deadline_ns, bool intr);
void sched_wake_one(struct sched *s, struct waitq *q);
void sched_wake_all(struct sched *s, struct waitq *q);

/* FUSE_INTERRUPT, time-outs: makes present and later _intr waits of `c` return -EINTR. */
void sched_cancel(struct sched *s, struct coro *c);
bool coro_cancelled(struct sched *s);

/* A result that is waited for by any number of coroutines.  Reusable after completion_init. */
struct completion { bool done; int status; struct waitq wq; };
void completion_init(struct completion *c);
void completion_done(struct sched *s, struct completion *c, int status);
int completion_wait(struct sched *s, struct completion *c);	/* the status */

/* A mutex for coroutines: FIFO, not recursive. */
struct co_mutex { struct coro *owner; struct waitq wq; };
void co_mutex_init(struct co_mutex *m);
void co_mutex_lock(struct sched *s, struct co_mutex *m);
int co_mutex_lock_intr(struct sched *s, struct co_mutex *m);	/* 0, -EINTR cancelled before it was given to the caller */
void co_mutex_unlock(struct sched *s, struct co_mutex *m);

/* ---- jobs and timers (plain callbacks, must not await) ---------------------------------------------------- */

/* Runs fn once from the run queue.  Embedded, not owned; posting a job that is queued already does nothing. */
struct job { struct cds_list_head node; bool queued; void (*fn)(struct job *j); };
void job_init(struct job *j, void (*fn)(struct job *j));
void sched_post(struct sched *s, struct job *j);
void sched_unpost(struct sched *s, struct job *j);

struct timer { struct csv_heap_node node; bool armed; void (*fn)(struct timer *t); };
void timer_init(struct timer *t, void (*fn)(struct timer *t));
void timer_set(struct sched *s, struct timer *t, uint64_t deadline_ns);	/* re-arms when armed */
void timer_del(struct sched *s, struct timer *t);

/* ---- driving it -------------------------------------------------------------------------------------------- */

/* Number of things ready to run; runs one of them; runs until nothing is ready. */
unsigned sched_ready(const struct sched *s);
bool sched_step(struct sched *s);
void sched_run(struct sched *s);
/* Deadline of the earliest timer, UINT64_MAX when none; fires what is due at `now_ns`. */
uint64_t sched_next_deadline(const struct sched *s);
void sched_run_timers(struct sched *s, uint64_t now_ns);
/* Lets the simulator choose which of `n` ready entries runs next (0 = oldest).  NULL restores FIFO. */
void sched_set_pick(struct sched *s, unsigned (*pick)(void *arg, unsigned n), void *arg);

uint64_t sched_now_ns(struct sched *s);		/* clock_mono_ns of its clock */

#endif
