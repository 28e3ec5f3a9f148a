/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_work.h - what may block (files of the volume), on a thread of its own, awaited by a coroutine.
 *
 * A volume that hangs keeps its threads; everything else goes on, and further work is refused when WORK_MAX threads hang.
 */
#ifndef CSVFS_HVHOST_HVHOSTD_WORK_H
#define CSVFS_HVHOST_HVHOSTD_WORK_H

#include "utils/base/err.h"
#include "utils/env/loop.h"

#define WORK_MAX 64u

struct work_pool { struct loop *l; unsigned busy; };

/*
 * In a coroutine: runs fn(arg) elsewhere and returns what it returned, with ret_ran true: `arg` is the caller's again.  Else ret_ran is
 * false and `arg` gone (given to drop, now or when the thread comes back): -EBUSY too many hang, -ETIMEDOUT after timeout_ms, with err.
 */
int work_run(struct work_pool *p, int (*fn)(void *arg), void *arg, unsigned timeout_ms, void (*drop)(void *arg), bool *ret_ran,
	     struct csv_err *err);
/* The same for something short about one VM on the volume; both names are copied for the thread. */
int work_run_vm(struct work_pool *p, int (*fn)(const char *volume, const char *vm, struct csv_err *err), const char *volume, const char *vm,
		unsigned timeout_ms, struct csv_err *err);

#endif
