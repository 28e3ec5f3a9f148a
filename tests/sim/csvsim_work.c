/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_work.c - the workers of a node: one operation after the other, by the dice; which answers are in order.
 */
#include <errno.h>

#include "tests/sim/csvsim_work.h"
#include "utils/base/base.h"

bool cs_worker_dead(const struct cs_worker *w)
{
	return csvfs_state(w->n->fs, NULL) == CSVFS_WITHDRAWN;
}

bool cs_uncertain(const struct cs_worker *w, long long ret)
{
	return cs_worker_dead(w) || ret == -CSV_E_WITHDRAWN || (ret == -EIO && w->n->disk_failed);
}

bool cs_refused(struct cs_worker *w, long long ret)
{
	if (ret != -CSV_E_WITHDRAWN || csvfs_may_rejoin(w->n->fs) == -CSV_E_WITHDRAWN)
		return false;
	cs_node_dead(w->n);		/* the model has it before the answer */
	cs_count(w->n->sim, "op.refused_by_heal");
	return true;
}

bool cs_judge(struct cs_worker *w, long long ret, const char *op)
{
	struct cs_sim *s = w->n->sim;

	if (ret >= 0)
		return true;
	if (ret == -ENOSPC && s->full) {
		cs_count(s, "op.no_space");
		return false;
	}
	if (ret == -EINTR && w->cancelled) {
		cs_count(s, "fault.interrupted");
		return false;
	}
	if (!cs_uncertain(w, ret))
		cs_fail(s, "n%u %s: %lld (%s)", w->n->node, op, ret, csv_err_describe((int)ret));
	return false;
}

bool cs_soft(struct cs_worker *w, long long ret, const char *op)
{
	switch (ret) {
	case -ENOENT: case -EEXIST: case -ENOTEMPTY: case -EISDIR: case -ENOTDIR: case -EINVAL: case -EPERM: case -ESTALE: case -EMLINK:
		cs_count(w->n->sim, "op.refused");
		return false;
	default:
		return cs_judge(w, ret, op);
	}
}

/* ---- the worker --------------------------------------------------------------------------------------------------------------------------------- */

static const struct { const char *name; unsigned weight; } kinds[] = {
	{ "create", 8 }, { "mkdir", 4 }, { "unlink", 6 }, { "rmdir", 4 }, { "rename", 8 }, { "link", 4 }, { "lookup", 6 }, { "file", 12 },
	{ "fsync", 3 }, { "sync", 1 }, { "readdir", 2 }, { "wild", 26 }, { "data", 26 },
};

static void one(struct cs_worker *w)
{
	unsigned sum = 0, k, at;

	for (k = 0; k < ARRAY_SIZE(kinds); k++)
		sum += kinds[k].weight;
	at = (unsigned)cs_below(w, sum);
	for (k = 0; at >= kinds[k].weight; k++)
		at -= kinds[k].weight;
	w->doing = kinds[k].name;
	w->doing_since_ns = sim_world_now_ns(w->n->sim->w);
	switch (k) {
	case 0: cs_work_make(w, false); break;
	case 1: cs_work_make(w, true); break;
	case 2: cs_work_remove(w, false); break;
	case 3: cs_work_remove(w, true); break;
	case 4: cs_work_rename(w); break;
	case 5: cs_work_link(w); break;
	case 6: cs_work_lookup(w); break;
	case 7: cs_work_file(w); break;
	case 8: cs_work_fsync_name(w); break;
	case 9: cs_work_sync(w); break;
	case 10: cs_work_list(w, (unsigned)cs_below(w, CS_DIRS)); break;
	case 11: cs_work_wild(w); break;
	default: cs_work_data(w); break;
	}
	cs_work_give(w);
	w->doing = NULL;
}

void cs_worker_main(void *arg)
{
	struct cs_worker *w = arg;
	struct cs_sim *s = w->n->sim;

	while (s->ops_left && !s->failed && !cs_worker_dead(w) && !w->n->leave) {
		s->ops_left--;
		s->last_op_ns = sim_world_now_ns(s->w);
		one(w);
		if (w->cancelled) {
			cs_worker_again(w);
			return;
		}
		if (cs_chance(w, 1, 4))
			coro_sleep_ns(w->n->env->sched, cs_below(w, 2 * NS_PER_MS));
		else
			coro_yield(w->n->env->sched);
	}
	if (w->opened)
		csvfs_release(w->n->fs, w->opened);
	w->opened = 0;
	w->done = true;
	w->n->workers--;
}
