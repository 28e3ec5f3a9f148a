/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vtool.h - what the tools of a volume share (mkfs, fsck, dump): a device is opened, one coroutine works on it to its end; progress on
 * a terminal.
 */
#ifndef CSVFS_UTILS_TOOLS_VTOOL_H
#define CSVFS_UTILS_TOOLS_VTOOL_H

#include "utils/base/base.h"
#include "utils/base/err.h"
#include "utils/env/real.h"

struct vtool {
	const char *path;
	struct clock clock;
	struct sched *sched;
	struct loop *loop;
	struct blk *blk;
	struct csv_err err;
	bool tty;			/* standard error is a terminal */
	uint64_t shown_ns;
	int (*fn)(void *arg);
	void *arg;
	int rc;
};

void vtool_init(struct vtool *t, const char *path);
/* fn(arg) as a coroutine named `name`, t->blk open with `flags`.  What it returned, or why it was not called; err begins with the path. */
int vtool_run(struct vtool *t, unsigned flags, const char *name, int (*fn)(void *arg), void *arg);
/* Is it time to show progress (again)?  `last`: the work is done. */
bool vtool_progress_due(struct vtool *t, bool last);

#endif
