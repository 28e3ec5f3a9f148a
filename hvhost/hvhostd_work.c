/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_work.c - see hvhostd_work.h.
 */
#include "hvhost/hvhostd_work.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "utils/base/base.h"

struct work {
	struct loop_msg msg;
	struct work_pool *p;
	int (*fn)(void *arg);
	void (*drop)(void *arg);
	void *arg;
	int rc;
	bool done, left;
	struct waitq wq;
};

static void *work_main(void *arg)
{
	struct work *w = arg;

	w->rc = w->fn(w->arg);
	loop_post(w->p->l, &w->msg);
	return NULL;
}

static void came_back(struct loop_msg *m)
{
	struct work *w = container_of(m, struct work, msg);

	w->p->busy--;
	w->done = true;
	if (w->left) {
		w->drop(w->arg);
		free(w);
	} else {
		sched_wake_all(loop_sched(w->p->l), &w->wq);
	}
}

int work_run(struct work_pool *p, int (*fn)(void *arg), void *arg, unsigned timeout_ms, void (*drop)(void *arg), bool *ret_ran,
	     struct csv_err *err)
{
	struct sched *s = loop_sched(p->l);
	uint64_t until = sched_now_ns(s) + timeout_ms * NS_PER_MS;
	struct work *w;
	pthread_attr_t at;
	pthread_t t;
	int rc;

	*ret_ran = false;
	w = p->busy < WORK_MAX ? calloc(1, sizeof(*w)) : NULL;
	if (!w) {
		drop(arg);
		return csv_err_set(err, -EBUSY, "%u accesses to the volume hang already: is its storage there?", p->busy);
	}
	*w = (struct work){ .msg.fn = came_back, .p = p, .fn = fn, .drop = drop, .arg = arg };
	waitq_init(&w->wq);
	pthread_attr_init(&at);
	pthread_attr_setdetachstate(&at, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&at, 256 * 1024);
	rc = pthread_create(&t, &at, work_main, w);
	pthread_attr_destroy(&at);
	if (rc) {
		drop(arg);
		free(w);
		return csv_err_set(err, -rc, "a thread cannot be made: %s", strerror(rc));
	}
	p->busy++;
	while (!w->done && sched_wait_until(s, &w->wq, until, false) != -ETIMEDOUT)
		;
	if (!w->done) {
		w->left = true;
		return csv_err_set(err, -ETIMEDOUT, "the volume does not answer within %u ms", timeout_ms);
	}
	rc = w->rc;
	*ret_ran = true;
	free(w);
	return rc;
}

struct vm_work { char *volume, *vm; struct csv_err err; int (*fn)(const char *volume, const char *vm, struct csv_err *err); };

static void vm_work_drop(void *arg)
{
	struct vm_work *w = arg;

	free(w->volume);
	free(w->vm);
	free(w);
}

static int vm_work_run(void *arg)
{
	struct vm_work *w = arg;

	return w->fn(w->volume, w->vm, &w->err);
}

int work_run_vm(struct work_pool *p, int (*fn)(const char *volume, const char *vm, struct csv_err *err), const char *volume, const char *vm,
		unsigned timeout_ms, struct csv_err *err)
{
	struct vm_work *w = calloc(1, sizeof(*w));
	bool ran;
	int rc;

	if (!w)
		csv_panic("out of memory");
	w->volume = strdup(volume);
	w->vm = strdup(vm);
	w->fn = fn;
	if (!w->volume || !w->vm)
		csv_panic("out of memory");
	rc = work_run(p, vm_work_run, w, timeout_ms, vm_work_drop, &ran, err);
	if (!ran)
		return rc;
	if (rc)
		*err = w->err;
	vm_work_drop(w);
	return rc;
}
