/* SPDX-License-Identifier: GPL-2.0-only */
/* state.c - state of a mounted volume and its counted background coroutines (FS3). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "csvfs/csvfs_internal.h"

struct spawned { struct csvfs *fs; void (*fn)(void *arg); void *arg; };

static void spawned_run(void *arg)
{
	struct spawned sp = *(struct spawned *)arg;

	free(arg);
	sp.fn(sp.arg);
	sp.fs->coros--;
	sched_wake_all(sp.fs->env->sched, &sp.fs->state_wq);
}

int fs_spawn(struct csvfs *fs, const char *name, void (*fn)(void *arg), void *arg)
{
	struct spawned *sp = malloc(sizeof(*sp));
	int ret;

	if (!sp)
		return -ENOMEM;
	*sp = (struct spawned){ fs, fn, arg };
	ret = sched_spawn(fs->env->sched, name, spawned_run, sp);
	if (ret < 0)
		free(sp);
	else
		fs->coros++;
	return ret;
}

bool fs_sleep_ms(struct csvfs *fs, uint32_t ms)
{
	uint64_t end = fs_now_ns(fs) + ms * NS_PER_MS;

	while (!fs->stopping && fs->state != CSVFS_WITHDRAWN && fs_now_ns(fs) < end)
		sched_wait_until(fs->env->sched, &fs->state_wq, end, false);
	return !fs->stopping && fs->state != CSVFS_WITHDRAWN;
}

static void state_report(struct job *j)
{
	struct csvfs *fs = container_of(j, struct csvfs, state_job);

	if (fs->ev.state)
		fs->ev.state(fs->ev.arg, fs->state, fs->reason);
}

void fs_state_init(struct csvfs *fs)
{
	waitq_init(&fs->state_wq);
	job_init(&fs->state_job, state_report);
	fs->state = CSVFS_JOINING;
	fs->slot = CSV_NO_SLOT;
}

void fs_set_state(struct csvfs *fs, enum csvfs_state st, const char *fmt, ...)
{
	va_list ap;

	if (fs->state == CSVFS_WITHDRAWN)
		return;			/* FS2 */
	fs->state = st;
	va_start(ap, fmt);
	vsnprintf(fs->reason, sizeof(fs->reason), fmt, ap);
	va_end(ap);
	if (st == CSVFS_WITHDRAWN && fs->plocks)
		plock_stop(fs->plocks);
	sched_post(fs->env->sched, &fs->state_job);
	sched_wake_all(fs->env->sched, &fs->state_wq);
}

int fs_check_write(const struct csvfs *fs)
{
	if (fs->state == CSVFS_WITHDRAWN)
		return -CSV_E_WITHDRAWN;
	return fs->opt.read_only || fs->geo.ro_only ? -EROFS : 0;
}

enum csvfs_state csvfs_state(const struct csvfs *fs, const char **ret_reason)
{
	if (ret_reason)
		*ret_reason = fs->reason;
	return fs->state;
}

int csvfs_errno(int err)
{
	return err < 0 ? csv_err_to_errno(err) : 0;
}

uint64_t csvfs_root_ino(const struct csvfs *fs) { return fs->geo.root_ino; }
struct dlm *csvfs_dlm(struct csvfs *fs) { return fs->dlm; }
struct jnl *csvfs_jnl(struct csvfs *fs) { return fs->jnl; }
uint32_t csvfs_slot(const struct csvfs *fs) { return fs->slot; }
const struct csv_super *csvfs_super(const struct csvfs *fs) { return fs->sb_block; }
