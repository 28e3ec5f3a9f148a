/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_fake.h - lock managers on a few nodes of the simulated world, without faults of its own, for the unit tests of dlm.
 * Proofs about lost nodes are given by the test.
 */
#ifndef CSVFS_TESTS_UNIT_DLM_FAKE_H
#define CSVFS_TESTS_UNIT_DLM_FAKE_H

#include "dlm/dlm_internal.h"
#include "tests/sim/sim_net.h"
#include "tests/unit/unit.h"

#define DW_NODES 5

struct dw_lock {
	struct dlm_lock l;
	int done, status, basts;	/* done: how many times */
	enum dlm_mode last_bast;
};

struct dw_node {
	struct dlm *dlm;
	struct env *env;
	uint64_t incarnation;
	int recovered, purged, surveys;
	uint64_t ticket;
	unsigned n_lost;
	struct cluster_node lost[16];
};

struct dw {
	struct sim_world *w;
	struct sim_net *net;
	unsigned nodes;
	struct dw_node n[DW_NODES + 1];
	unsigned n_active;		/* what a survey finds; answered at once unless hold_survey */
	struct cluster_node active[8];
	bool hold_survey;
	bool own_votes;			/* mutation: cluster_mutate_own_votes(), of lives that begin from now on */
	struct dlm_config cfg;
};

static inline void dw_recovered(void *arg, const struct cluster_view *v)
{
	struct dw_node *n = arg;

	(void)v;
	n->recovered++;
}

static inline void dw_lost(void *arg, const struct cluster_node *who, uint32_t k)
{
	struct dw_node *n = arg;

	for (uint32_t i = 0; i < k; i++) {
		ck_assert_uint_lt(n->n_lost, 16);
		n->lost[n->n_lost++] = who[i];
	}
}

static inline void dw_purged(void *arg)
{
	((struct dw_node *)arg)->purged++;
}

static struct dw *dw_of_survey;

static inline void dw_survey(void *arg, uint64_t ticket)
{
	struct dw_node *n = arg;

	n->surveys++;
	n->ticket = ticket;
	if (!dw_of_survey->hold_survey)
		dlm_surveyed(n->dlm, ticket, dw_of_survey->active, dw_of_survey->n_active);
}

static inline void dw_start(void *arg, unsigned node, struct env *env)
{
	struct dw *d = arg;
	struct dw_node *n = &d->n[node];
	struct dlm_events ev = { .recovered = dw_recovered, .lost = dw_lost, .purged = dw_purged, .survey = dw_survey, .arg = n };

	memset(n, 0, sizeof(*n));
	n->env = env;
	if (d->own_votes)
		cluster_mutate_own_votes(env->cluster);
	n->incarnation = cluster_incarnation(env->cluster);
	n->dlm = dlm_new(env, &ev);
	ck_assert_ptr_nonnull(n->dlm);
	dlm_set_config(n->dlm, &d->cfg);
}

static inline void dw_down(void *arg, unsigned node)
{
	struct dw *d = arg;

	dlm_free(d->n[node].dlm);
	d->n[node].dlm = NULL;
}

static inline void dw_run_ms(struct dw *d, uint64_t ms)
{
	sim_world_run(d->w, sim_world_now_ns(d->w) + ms * NS_PER_MS, NULL, NULL);
}

static inline struct cluster_node dw_id(struct dw *d, unsigned node)
{
	return (struct cluster_node){ node, d->n[node].incarnation };
}

static inline struct dw *dw_new_cfg(unsigned nodes, uint64_t seed, struct dlm_config cfg)
{
	struct dw *d = calloc(1, sizeof(*d));
	struct sim_net_hooks hooks = { .start = dw_start, .down = dw_down, .arg = d };

	d->nodes = nodes;
	d->cfg = cfg;
	dw_of_survey = d;
	d->w = sim_world_new(seed, nodes);
	d->net = sim_net_new(d->w, 1, &hooks);
	for (unsigned i = 1; i <= nodes; i++)
		sim_net_boot(d->net, i);
	sim_net_repair_all(d->net);		/* no faults but those that the test makes */
	dw_run_ms(d, 2000);
	for (unsigned i = 1; i <= nodes; i++)
		ck_assert_msg(dlm_is_recovered(d->n[i].dlm), "node %u of %u does not run", i, nodes);
	return d;
}

static inline struct dw *dw_new(unsigned nodes)
{
	return dw_new_cfg(nodes, 1, (struct dlm_config){ 0 });
}

static inline void dw_free(struct dw *d)
{
	sim_net_free(d->net);
	sim_world_free(d->w);
	free(d);
}

static inline void dw_done(struct dlm_lock *l, int status)
{
	struct dw_lock *k = l->arg;

	k->done++;
	k->status = status;
}

static inline void dw_bast(struct dlm_lock *l, enum dlm_mode blocked)
{
	struct dw_lock *k = l->arg;

	k->basts++;
	k->last_bast = blocked;
}

static inline void dw_init(struct dw *d, unsigned node, struct dw_lock *k, const char *name)
{
	memset(k, 0, sizeof(*k));
	dlm_lock_init(d->n[node].dlm, &k->l, name, strlen(name));
	k->l.done = dw_done;
	k->l.bast = dw_bast;
	k->l.arg = k;
}

/* Asks and gives it 50 ms; true when it was granted. */
static inline bool dw_lock(struct dw *d, unsigned node, struct dw_lock *k, enum dlm_mode mode, unsigned flags)
{
	int before = k->done;

	dlm_request(d->n[node].dlm, &k->l, mode, flags);
	ck_assert_int_eq(k->done, before);	/* never from inside the call */
	dw_run_ms(d, 50);
	return k->done == before + 1 && k->status == 0;
}

/* Nodes 1 and 2 both hold PR of one resource; node 1 is its master. */
static inline void dw_two_readers(struct dw *d, struct dw_lock *x, struct dw_lock *y)
{
	dw_init(d, 1, x, "r");
	dw_init(d, 2, y, "r");
	ck_assert(dw_lock(d, 1, x, DLM_PR, 0));
	ck_assert(dw_lock(d, 2, y, DLM_PR, 0));
}

static inline void dw_down_to(struct dw *d, unsigned node, struct dw_lock *k, enum dlm_mode mode)
{
	dlm_downgrade(d->n[node].dlm, &k->l, mode);
	dw_run_ms(d, 50);
}

static inline uint64_t dw_messages(struct dw *d)
{
	uint64_t sum = 0;

	for (unsigned i = 1; i <= d->nodes; i++)
		sum += d->n[i].dlm ? d->n[i].dlm->st.messages_sent : 0;
	return sum;
}

static inline void dw_proof(struct dw *d, struct cluster_node who, bool replayed)
{
	for (unsigned i = 1; i <= d->nodes; i++) {
		if (!d->n[i].dlm)
			continue;
		if (replayed)
			dlm_replayed(d->n[i].dlm, who);
		else
			dlm_fence_confirmed(d->n[i].dlm, who);
	}
	dw_run_ms(d, 50);
}

/* A name whose directory nodes are these (0: any). */
static inline const char *dw_name(struct dw *d, uint32_t dir1, uint32_t dir2, char ret[16])
{
	for (unsigned i = 0; i < 10000; i++) {
		struct dlm_name n = { 0 };
		uint32_t a, b;

		snprintf(ret, 16, "name%u", i);
		n.len = strlen(ret);
		memcpy(n.b, ret, n.len);
		dlm_dirs(d->n[1].dlm, &n, &a, &b);
		if ((!dir1 || a == dir1) && (!dir2 || b == dir2))
			return ret;
	}
	ck_abort_msg("no name has directory nodes %u and %u", dir1, dir2);
	return NULL;
}

#endif
