/* SPDX-License-Identifier: GPL-2.0-only */
/* vtool.c - see vtool.h. */
#include "utils/tools/vtool.h"

#include <errno.h>
#include <unistd.h>

#define PROGRESS_NS (200 * NS_PER_MS)

void vtool_init(struct vtool *t, const char *path)
{
	*t = (struct vtool){ .path = path, .err = CSV_ERR_INIT, .tty = isatty(STDERR_FILENO) };
	real_clock_init(&t->clock);
}

static void work(void *arg)
{
	struct vtool *t = arg;

	t->rc = t->fn(t->arg);
	loop_stop(t->loop);
}

int vtool_run(struct vtool *t, unsigned flags, const char *name, int (*fn)(void *arg), void *arg)
{
	int rc;

	t->fn = fn;
	t->arg = arg;
	t->sched = sched_new(&t->clock);
	if (!t->sched)
		return csv_err_set(&t->err, -ENOMEM, "out of memory");
	rc = loop_new(t->sched, &t->loop, &t->err);
	if (!rc)	/* names the device itself */
		rc = real_blk_open(t->path, flags, t->loop, &t->blk, &t->err);
	if (!rc) {
		rc = sched_spawn(t->sched, name, work, t);
		if (!rc) {
			loop_run(t->loop);
			rc = t->rc;
		}
		if (rc < 0)
			csv_err_prefix(&t->err, "%s", t->path);
		blk_close(t->blk);
	}
	loop_free(t->loop);
	sched_free(t->sched);
	return rc;
}

bool vtool_progress_due(struct vtool *t, bool last)
{
	uint64_t now = clock_mono_ns(&t->clock);

	if (!t->tty || (!last && now - t->shown_ns < PROGRESS_NS))
		return false;
	t->shown_ns = now;
	return true;
}
