/*
 * loop.h - the main loop of a control thread: libqb's loop for descriptors, our own run queue and timers (rule R28).
 *
 * Invariants
 *  L1  After every descriptor callback the run queue is drained, then the turn hooks run (batched I/O submission), until
 *      nothing is ready; then one timerfd is armed for the earliest timer.  libqb's own jobs and timers are not used: they
 *      may wait up to 50 ms, and jobs are not safe from other threads.
 *  L2  loop_post() is the only door for other threads: messages run on the control thread in the order of each poster.
 *
 * Threads: everything on the control thread but loop_post(), which any thread may call.
 */
#ifndef CSVFS_UTILS_ENV_LOOP_H
#define CSVFS_UTILS_ENV_LOOP_H

#include <stdint.h>
#include <urcu/wfcqueue.h>

#include "utils/base/err.h"
#include "utils/env/sched.h"

struct loop;

/* `s` is borrowed.  0 or -errno with err set. */
int loop_new(struct sched *s, struct loop **ret_loop, struct csv_err *err);
void loop_free(struct loop *l);			/* NULL allowed; messages not yet run are dropped */
struct sched *loop_sched(struct loop *l);
/* The libqb loop inside, for libqb's own IPC server and logging. */
struct qb_loop *loop_qb(struct loop *l);
/* Everything that a callback of libqb outside our own wrappers made ready runs now (L1).  Ends every foreign callback. */
void loop_turn(struct loop *l);

/* fn gets poll(2) events.  A negative return removes the descriptor.  Borrowed: fd, arg. */
int loop_add_fd(struct loop *l, int fd, int events, int (*fn)(void *arg, int fd, int revents), void *arg);
int loop_mod_fd(struct loop *l, int fd, int events);
void loop_del_fd(struct loop *l, int fd);

/* Called once a turn after the run queue is empty. Embedded, not owned. */
struct loop_hook { struct cds_list_head node; void (*fn)(struct loop_hook *h); };
void loop_add_hook(struct loop *l, struct loop_hook *h);
void loop_del_hook(struct loop *l, struct loop_hook *h);

/* A message from any thread; the loop's until fn is called, once, on the control thread. */
struct loop_msg { struct cds_wfcq_node node; void (*fn)(struct loop_msg *m); };
void loop_post(struct loop *l, struct loop_msg *m);

void loop_run(struct loop *l);			/* until loop_stop() */
void loop_stop(struct loop *l);

#endif
