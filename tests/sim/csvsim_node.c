/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_node.c - the lives of a node: boot, mount, workers, and the end: power cut or death (nothing of it runs any more), withdrawal,
 * or unmount; after the last two its process exits and is started again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/csvsim.h"
#include "utils/base/base.h"
#include "csvfs/csvfs_internal.h"

/* ---- the end -------------------------------------------------------------------------------------------------------------- */

static void pending_over(struct cs_sim *s, struct cs_worker *w)
{
	for (unsigned i = 0; i < w->pend.n; i++) {
		if (w->pend.p[i].change)
			cs_name_maybe(s, w->pend.p[i].name, w->pend.p[i].to);
		cs_name_give(w->pend.p[i].name);
	}
	w->pend.n = 0;
}

void cs_node_dead(struct cs_node *n)
{
	if (n->model_dead)
		return;
	n->model_dead = true;
	if (cs_life_of(n->sim, n->self)->released) {	/* all of it is home */
		cs_names_left(n->sim, n->self);
		return;
	}
	cs_names_dead(n->sim, n->self);
	cs_data_dead(n->sim, n->self);
}

/* Its memory is abandoned, as a crash does: the process of this seed ends soon. */
void cs_node_down(void *arg, unsigned node)
{
	struct cs_sim *s = arg;
	struct cs_node *n = &s->node[node];

	cs_node_dead(n);
	cs_locks_life_over(n);
	for (unsigned i = 0; i < CS_WORKERS; i++) {
		pending_over(s, &n->w[i]);
		n->w[i].reading = 0;
	}
	for (unsigned i = 0; i < CS_DP_THREADS; i++)
		n->d[i].w.reading = 0;
	if (n->state != CS_ENDED)
		s->check_due = true;
	n->state = CS_DOWN;
	n->fs = n->seen = NULL;
}

struct exit_args { struct cs_sim *s; unsigned node; uint64_t life; };

static void exit_due(void *arg)
{
	struct exit_args *a = arg;

	if (!sim_world_is_up(a->s->w, a->node) || sim_world_life(a->s->w, a->node) != a->life)
		return;
	sim_net_exit(a->s->net, a->node);
	if (!a->s->quiet)
		sim_net_boot_later(a->s->net, a->node);
}

static void exit_soon(struct cs_node *n)
{
	struct exit_args a = { n->sim, n->node, sim_world_life(n->sim->w, n->node) };

	n->state = CS_ENDED;
	sim_world_at_copy(n->sim->w, sim_world_now_ns(n->sim->w), exit_due, &a, sizeof(a));
}

/* ---- mount, work, unmount ---------------------------------------------------------------------------------------------------- */

static void drained(struct job *j)
{
	struct cs_node *n = container_of(j, struct cs_node, drain_job);

	dp_table_drained(n->dp);
}

static void notify(void *arg)
{
	struct cs_node *n = arg;

	sched_post(n->env->sched, &n->drain_job);
}

static void spawn(struct cs_node *n, struct cs_worker *w, unsigned id, void (*fn)(void *arg), void *arg)
{
	w->n = n;
	w->id = id;
	csv_prng_fork(sim_world_prng(n->sim->w), &w->prng);
	n->workers++;
	csv_assert(sched_spawn_ret(n->env->sched, "worker", fn, arg, &w->coro) == 0);
}

/* An interrupt stays with its coroutine: the worker goes on as another. */
void cs_worker_again(struct cs_worker *w)
{
	w->cancelled = false;
	csv_assert(sched_spawn_ret(w->n->env->sched, "worker", cs_worker_main, w, &w->coro) == 0);
}

static void workers_start(struct cs_node *n)
{
	for (unsigned i = 0; i < CS_WORKERS; i++)
		spawn(n, &n->w[i], i, cs_worker_main, &n->w[i]);
	for (unsigned i = 0; i < CS_DP_THREADS; i++)
		spawn(n, &n->d[i].w, CS_WORKERS + i, cs_dp_main, &n->d[i]);
}

/* R4: of those two one goes, and nobody else. */
static void evicted(struct cs_node *n)
{
	struct cs_sim *s = n->sim;

	cs_count(s, "fault.evicted");
	if ((n->node != s->cut_from && n->node != s->cut_to) || sim_world_now_ns(s->w) > s->cut_end_ns + 10 * NS_PER_SEC)
		cs_fail(s, "R4: n%u was evicted, but all reach it: %s", n->node, n->err.text);
}

static void mount_failed(struct cs_node *n, int ret)
{
	struct cs_sim *s = n->sim;

	cs_count(s, "op.mount_failed");
	if (ret == -CSV_E_WITHDRAWN && strstr(n->err.text, "evicted:"))
		evicted(n);
	if (s->opt.no_faults || ret == -CSV_E_CORRUPT)
		cs_fail(s, "n%u mount: %d %s", n->node, ret, n->err.text);
	exit_soon(n);
}

static void life(void *arg)
{
	struct cs_node *n = arg;
	struct cs_sim *s = n->sim;
	struct csvfs_options opt = { .incarnation = n->self.incarnation, .noatime = true, .mutate = s->opt.mutate };
	struct dp_config cfg = { .sched = n->env->sched, .io_align = n->env->blk->io_align, .notify = notify, .yield = cs_dp_yield, .arg = n,
				 .mutate_not_gated = s->opt.mutate & CSV_MUT_MAP_NOT_GATED };
	struct csvfs *fs;
	int ret;

	snprintf(opt.node_name, sizeof(opt.node_name), "n%u", n->node);
	ret = csvfs_mount(n->env, &opt, NULL, &n->seen, &n->err);
	if (ret < 0) {
		mount_failed(n, ret);
		return;
	}
	fs = n->seen;
	n->dp = dp_table_new(&cfg);
	csv_assert(n->dp);
	job_init(&n->drain_job, drained);
	csvfs_set_dataplane(fs, n->dp);
	n->fs = fs;
	if (s->go)
		cs_disk_open(n);
	n->state = CS_UP;
	cs_count(s, "op.mount");
	while (!s->go && csvfs_state(fs, NULL) != CSVFS_WITHDRAWN)
		coro_sleep_ns(n->env->sched, NS_PER_MS);
	cs_disk_open(n);
	if (!s->failed && s->ops_left)
		workers_start(n);
	while ((n->workers || !n->leave) && (csvfs_state(fs, NULL) != CSVFS_WITHDRAWN || n->workers))
		coro_sleep_ns(n->env->sched, 5 * NS_PER_MS);
	n->state = CS_ENDING;
	if (csvfs_state(fs, NULL) == CSVFS_WITHDRAWN)
		cs_count(s, "fault.withdrawn");
	if (csvfs_evicted(fs))
		evicted(n);
	cs_disk_close(n);
	if (s->opt.verbose)
		cs_dump_used(n);
	ret = csvfs_umount(fs, &n->err);
	if (ret < 0 && csvfs_state(fs, NULL) != CSVFS_WITHDRAWN) {
		cs_fail(s, "n%u unmount: %d %s", n->node, ret, n->err.text);
	} else if (ret >= 0 && n->leave && !n->model_dead) {
		cs_count(s, "op.umount");
		n->model_dead = true;		/* an orderly end: all is durable */
		cs_names_left(s, n->self);
		for (unsigned i = 0; i < s->n_files; i++)
			cs_data_synced(s, &s->file[i], n->self, cs_now(s));
	}
	n->fs = n->seen = NULL;
	exit_soon(n);
}

void cs_node_start(void *arg, unsigned node, struct env *env)
{
	struct cs_sim *s = arg;
	struct cs_node *n = &s->node[node];
	struct cluster_node old = n->self;

	/* A machine that starts again has nothing of its last life on its way. */
	sim_disk_fence(s->disk, node);
	sim_disk_unfence(s->disk, node);
	if (old.nodeid)
		cs_oracle_fenced(s, old);
	memset(n, 0, sizeof(*n));
	n->sim = s;
	n->node = node;
	n->env = env;
	n->self = (struct cluster_node){ node, cluster_incarnation(env->cluster) };
	n->state = CS_MOUNTING;
	n->err = CSV_ERR_INIT;
	env->blk = sim_disk_blk(s->disk, node);
	cluster_set_round(env->cluster, s->plain ? 0 : CS_ROUND_NS);
	csv_assert(sched_spawn(env->sched, "life", life, n) == 0);
}

/* ---- something to be done on a node ---------------------------------------------------------------------------------------------- */

struct task { void (*fn)(void *arg); void *arg; bool done; };

static void task_main(void *arg)
{
	struct task *t = arg;

	t->fn(t->arg);
	t->done = true;
}

static bool task_done(void *arg)
{
	return ((struct task *)arg)->done;
}

bool cs_node_run(struct cs_sim *s, unsigned node, void (*fn)(void *arg), void *arg, uint64_t ms)
{
	struct task *t = calloc(1, sizeof(*t));

	csv_assert(t && s->node[node].state == CS_UP);
	t->fn = fn;
	t->arg = arg;
	csv_assert(sched_spawn(s->node[node].env->sched, "task", task_main, t) == 0);
	return sim_world_run(s->w, sim_world_now_ns(s->w) + ms * NS_PER_MS, task_done, t);
}
