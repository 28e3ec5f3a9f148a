/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlmsim_node.c - what a node does in the lock manager's simulation: random lock traffic, and the part of the file system that
 * brings proofs (fence, replay, withdrawal) as ordered messages.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/dlmsim.h"

enum fs_msg { FS_FENCED = 1, FS_REPLAYED = 2, FS_WITHDRAWN = 3 };
struct fs_wire { uint8_t type; uint8_t pad[3]; uint32_t nodeid; uint64_t incarnation; };

uint64_t ds_rnd(struct ds_node *n, uint64_t below)
{
	return env_rnd(n->env) % below;
}

void ds_set_timer(struct ds_node *n, struct timer *t, uint64_t in_ns)
{
	timer_set(n->env->sched, t, sched_now_ns(n->env->sched) + in_ns);
}

uint64_t ds_delay(struct ds_node *n, uint64_t typical_ns)
{
	return typical_ns / 2 + ds_rnd(n, typical_ns + 1);
}

/* ---- the slot table ------------------------------------------------------------------------------------------------------ */

void ds_slot_active(struct ds_sim *s, struct cluster_node who)
{
	csv_assert(s->n_active < ARRAY_SIZE(s->active));
	s->active[s->n_active++] = who;
}

void ds_slot_free(struct ds_sim *s, struct cluster_node who)
{
	for (unsigned i = 0; i < s->n_active; i++)
		if (node_eq(s->active[i], who))
			s->active[i--] = s->active[--s->n_active];
}

/* ---- proofs -------------------------------------------------------------------------------------------------------------- */

static struct ds_lost *lost_find(struct ds_node *n, struct cluster_node who)
{
	for (unsigned i = 0; i < n->n_lost; i++)
		if (node_eq(n->lost[i]->who, who))
			return n->lost[i];
	return NULL;
}

static void fs_send(struct ds_node *n, enum fs_msg type, struct cluster_node who)
{
	struct fs_wire m = { .type = type, .nodeid = who.nodeid, .incarnation = who.incarnation };

	cluster_send(n->env->cluster, CHAN_FS, &m, sizeof(m));	/* when it is lost, the timer tries again */
}

static void fence_done(struct fence_req *r)
{
	struct ds_lost *l = r->arg;

	l->fencing = false;
	if (r->result == 0)
		l->fenced = true;
}

static void lost_timer(struct timer *t)
{
	struct ds_lost *l = container_of(t, struct ds_lost, timer);
	struct ds_node *n = l->n;

	if (l->replayed || n->purged)
		return;
	if (!dlm_is_recovered(n->dlm)) {
		;
	} else if (l->fenced) {
		/* Its journal is replayed by us here and now. */
		fs_send(n, FS_FENCED, l->who);
		ds_oracle_replayed(n->sim, l->who);
		ds_slot_free(n->sim, l->who);
		fs_send(n, FS_REPLAYED, l->who);
	} else if (cluster_view_find(cluster_current(n->env->cluster), l->who.nodeid) &&
		   cluster_view_find(cluster_current(n->env->cluster), l->who.nodeid)->incarnation == l->who.incarnation) {
		;		/* it is back, and will be told to withdraw */
	} else if (!l->fencing) {
		l->fencing = true;
		l->req = (struct fence_req){ .node = l->who, .done = fence_done, .arg = l };
		n->env->fence->ops->submit(n->env->fence, &l->req);
	}
	ds_set_timer(n, t, ds_delay(n, 200 * NS_PER_MS));
}

static struct ds_lost *lost_add(struct ds_node *n, struct cluster_node who)
{
	struct ds_lost *l = calloc(1, sizeof(*l));

	csv_assert(l && n->n_lost < DS_LOST_MAX);
	l->n = n;
	l->who = who;
	timer_init(&l->timer, lost_timer);
	n->lost[n->n_lost++] = l;
	return l;
}

static void on_lost(void *arg, const struct cluster_node *who, uint32_t k)
{
	struct ds_node *n = arg;

	for (uint32_t i = 0; i < k; i++) {
		struct ds_lost *l = lost_find(n, who[i]);

		sim_world_count(n->sim->w, "op.lost_seen", 1);
		if (n->sim->left_clean[who[i].nodeid] == who[i].incarnation &&
		    n->sim->left_known[who[i].nodeid][n->node] == n->incarnation)
			ds_fail(n->sim, "n%u takes n%u for lost, and has been told that it leaves", n->node, who[i].nodeid);
		if (!l)
			l = lost_add(n, who[i]);
		ds_set_timer(n, &l->timer, ds_delay(n, 50 * NS_PER_MS * n->node));
	}
}

static void fs_msg(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct ds_node *n = arg;
	struct fs_wire m;
	struct cluster_node who;
	struct ds_lost *l;

	csv_assert(len == sizeof(m));
	memcpy(&m, buf, sizeof(m));
	who = (struct cluster_node){ m.nodeid, m.incarnation };
	if (from.nodeid == n->node && cluster_current(n->env->cluster)->n > 1) {
		/* Own delivery proves that it went out, not that anybody has it: they all have it when they go on with us. */
	}
	l = lost_find(n, who);
	if (!l)
		l = lost_add(n, who);
	if (m.type == FS_FENCED || m.type == FS_WITHDRAWN) {
		l->fenced = true;
		dlm_fence_confirmed(n->dlm, who);
	}
	if (m.type == FS_REPLAYED || m.type == FS_WITHDRAWN) {
		l->replayed = true;
		dlm_replayed(n->dlm, who);
	}
}

static void on_procdown(void *arg, struct cluster_node who)
{
	struct ds_node *n = arg;
	struct ds_lost *l = lost_find(n, who);

	sim_world_count(n->sim->w, "op.procdown_seen", 1);
	if (!l)
		l = lost_add(n, who);
	l->fenced = true;
}

static void on_recovered(void *arg, const struct cluster_view *v)
{
	struct ds_node *n = arg;

	(void)v;
	sim_world_count(n->sim->w, "op.recoveries", 1);
	if (n->withdrawn.incarnation)
		fs_send(n, FS_WITHDRAWN, n->withdrawn);
	/* What some may have missed at the end of the last view is said again. */
	for (unsigned i = 0; i < n->n_lost; i++)
		if (n->lost[i]->replayed && i + 8 > n->n_lost)
			fs_send(n, FS_REPLAYED, n->lost[i]->who);
}

static void on_survey(void *arg, uint64_t ticket)
{
	struct ds_node *n = arg;

	sim_world_count(n->sim->w, "op.survey", 1);
	n->ticket = ticket;
	ds_set_timer(n, &n->survey, ds_delay(n, 3 * NS_PER_MS));	/* reading the slots */
}

static void survey_timer(struct timer *t)
{
	struct ds_node *n = container_of(t, struct ds_node, survey);

	dlm_surveyed(n->dlm, n->ticket, n->sim->active, n->sim->n_active);
}

/* ---- traffic --------------------------------------------------------------------------------------------------------------- */

void ds_give_up(struct ds_lock *k, enum dlm_mode to)
{
	if (k->l.busy || k->l.granted <= to || !dlm_mode_covers(k->l.granted, to))
		return;
	if (k->l.granted >= DLM_PW)
		ds_oracle_written(k);
	sim_world_count(k->n->sim->w, "op.downgrade", 1);
	dlm_downgrade(k->n->dlm, &k->l, to);
	k->seen = k->l.granted;
}

static void forget(struct ds_lock *k);

static void hold_over(struct timer *t)
{
	struct ds_lock *k = container_of(t, struct ds_lock, hold);
	enum dlm_mode to = DLM_NL;

	if (k->l.busy)
		return;
	/* Sometimes only a step down. */
	if (!k->n->purged && !k->n->sim->winding_down && k->l.granted > DLM_CR && ds_rnd(k->n, 4) == 0)
		to = 1 + ds_rnd(k->n, k->l.granted - 1);
	if (!dlm_mode_covers(k->l.granted, to))
		to = DLM_NL;
	if (!k->n->purged && !k->n->leaving && !k->n->sim->winding_down && ds_rnd(k->n, 3) == 0 &&
	    ds_convert(k, (ds_rnd(k->n, 4) ? 0 : DLM_NOQUEUE) | (ds_rnd(k->n, 3) ? 0 : DLM_DEMOTE)))
		return;
	ds_give_up(k, to);
	if (k->l.granted != DLM_NL) {
		ds_set_timer(k->n, t, ds_delay(k->n, 20 * NS_PER_MS));
	} else if (!k->n->purged && !k->n->leaving && !k->n->sim->winding_down && ds_rnd(k->n, 8) == 0) {
		forget(k);
		ds_ask(k, 1 + ds_rnd(k->n, 5), 0);		/* on the heels of its own release */
	}
}

static void on_bast(struct dlm_lock *l, enum dlm_mode blocked)
{
	struct ds_lock *k = l->arg;

	sim_world_count(k->n->sim->w, "op.bast", 1);
	if (k->name >= DS_NAMES)
		return;				/* an owner's */
	sim_world_trace(k->n->sim->w, "bast", k->n->node, k->name, blocked);
	/* At once to what is compatible, or after a while to NL. */
	if (ds_rnd(k->n, 2)) {
		for (int m = l->granted - 1; m >= 0; m--) {
			if (dlm_compatible(m, blocked) && dlm_mode_covers(l->granted, m)) {
				ds_give_up(k, m);
				break;
			}
		}
		if (l->granted == DLM_NL)
			timer_del(k->n->env->sched, &k->hold);
		else
			ds_set_timer(k->n, &k->hold, ds_delay(k->n, 5 * NS_PER_MS));
	} else {
		ds_set_timer(k->n, &k->hold, ds_delay(k->n, NS_PER_MS));
	}
}

static void on_done(struct dlm_lock *l, int status)
{
	struct ds_lock *k = l->arg;
	struct sim_world *w = k->n->sim->w;

	timer_del(k->n->env->sched, &k->cancel);
	sim_world_trace(w, "done", (uint64_t)k->n->node << 32 | k->name, l->granted, status);
	if (l->demoted)
		sim_world_count(w, "op.demoted", 1);
	if (status == 0 || l->granted != DLM_NL)
		ds_set_timer(k->n, &k->hold, ds_delay(k->n, (k->n->purged ? 1 : 8) * NS_PER_MS));
	switch (status) {
	case 0:
		sim_world_count(w, "op.granted", 1);
		if (k->converting)
			sim_world_count(w, "op.converted", 1);
		ds_oracle_granted(k);
		break;
	case -EDEADLK:
		sim_world_count(w, l->owner ? "op.deadlock" : "op.circle", 1);
		if (!k->converting && !l->owner)
			ds_fail(k->n->sim, "D8: n%u: -EDEADLK for a request without an owner", k->n->node);
		break;
	case -EAGAIN:
		sim_world_count(w, "op.refused", 1);
		if (!k->noqueue)
			ds_fail(k->n->sim, "n%u: a request that could wait was refused", k->n->node);
		break;
	case -ECANCELED:
		sim_world_count(w, "op.cancelled", 1);
		if (!k->cancelled)
			ds_fail(k->n->sim, "n%u: a request that nobody cancelled ended as cancelled", k->n->node);
		break;
	case -ENOTCONN:
		sim_world_count(w, "op.notconn", 1);
		if (!k->n->purged && !k->n->leaving && !k->n->withdrawn.incarnation && !k->n->dlm->purged_told)
			ds_fail(k->n->sim, "n%u: -ENOTCONN without having been purged", k->n->node);
		break;
	default:
		ds_fail(k->n->sim, "n%u: request ended with %d", k->n->node, status);
	}
	if (status && k->converting && l->granted == DLM_NL && !l->demoted)
		ds_fail(k->n->sim, "D7: n%u: a conversion that failed took the old mode along", k->n->node);
	if (k->name >= DS_NAMES)
		ds_owner_done(k, status);
}

static void lock_setup(struct ds_lock *k);

/* As a cache does that needs room: with the lock goes the memory of who was master. */
static void forget(struct ds_lock *k)
{
	sim_world_count(k->n->sim->w, "op.forgotten", 1);
	timer_del(k->n->env->sched, &k->hold);
	timer_del(k->n->env->sched, &k->cancel);
	dlm_lock_done(k->n->dlm, &k->l);
	lock_setup(k);
}

void ds_ask(struct ds_lock *k, enum dlm_mode mode, unsigned flags)
{
	struct ds_node *n = k->n;

	k->noqueue = flags & DLM_NOQUEUE;
	k->cancelled = k->converting = false;
	k->asked_floor = n->sim->floor[k->name];
	k->asked_ns = sim_world_now_ns(n->sim->w);
	sim_world_count(n->sim->w, "op.request", 1);
	dlm_request(n->dlm, &k->l, mode, flags);
}

bool ds_convert(struct ds_lock *k, unsigned flags)
{
	unsigned n = 0, modes[6];

	for (unsigned m = DLM_CR; m <= DLM_EX && k->l.granted != DLM_NL; m++)
		if (!dlm_mode_covers(k->l.granted, m))
			modes[n++] = m;
	if (!n)
		return false;
	k->noqueue = flags & DLM_NOQUEUE;
	k->cancelled = false;
	k->converting = true;
	k->asked_floor = k->n->sim->floor[k->name];
	k->asked_ns = sim_world_now_ns(k->n->sim->w);
	timer_del(k->n->env->sched, &k->hold);
	if (ds_rnd(k->n, 8) == 0)
		ds_set_timer(k->n, &k->cancel, ds_delay(k->n, 2 * NS_PER_MS));
	sim_world_count(k->n->sim->w, "op.convert", 1);
	dlm_convert(k->n->dlm, &k->l, modes[ds_rnd(k->n, n)], flags);
	return true;
}

static void cancel_timer(struct timer *t)
{
	struct ds_lock *k = container_of(t, struct ds_lock, cancel);

	if (!k->l.busy)
		return;
	k->cancelled = true;
	sim_world_count(k->n->sim->w, "op.cancel", 1);
	dlm_cancel(k->n->dlm, &k->l);
}

static void left(void *arg);

static void op_timer(struct timer *t)
{
	struct ds_node *n = container_of(t, struct ds_node, op);
	struct ds_sim *s = n->sim;
	struct ds_lock *k = &n->lock[ds_rnd(n, DS_NAMES)];

	ds_set_timer(n, t, ds_delay(n, 2 * NS_PER_MS));
	if (n->leaving && !n->leave_called) {
		bool idle = true;

		for (unsigned i = 0; i < DS_ALL; i++)
			idle &= !n->lock[i].l.busy && n->lock[i].l.granted == DLM_NL;
		if (idle) {
			n->leave_called = true;
			dlm_leave(n->dlm, left, n);
		}
	}
	if (s->winding_down || n->purged || n->leaving || !s->ops_left)
		return;
	if (ds_rnd(n, 1500) == 0) {
		n->leaving = true;
		return;
	}
	if (ds_rnd(n, 20) == 0)
		ds_owner_start(n);
	if (k->l.busy || k->l.granted != DLM_NL)
		return;
	if (ds_rnd(n, 5) == 0)
		forget(k);
	s->ops_left--;
	if (ds_rnd(n, 8) == 0)
		ds_set_timer(n, &k->cancel, ds_delay(n, 2 * NS_PER_MS));
	ds_ask(k, ds_rnd(n, 20) ? 1 + ds_rnd(n, 5) : 0, (ds_rnd(n, 5) ? 0 : DLM_NOQUEUE) | (ds_rnd(n, 2) ? DLM_PR_WELCOME : 0));
}

/* ---- leaving, purged -------------------------------------------------------------------------------------------------------- */

struct exit_args { struct ds_sim *s; unsigned node; uint64_t life; };

static void exit_due(void *arg)
{
	struct exit_args *a = arg;

	if (!a->s->node[a->node].up || sim_world_life(a->s->w, a->node) != a->life)
		return;
	ds_slot_free(a->s, (struct cluster_node){ a->node, a->s->node[a->node].incarnation });
	if (!a->s->node[a->node].dlm->past.purged) {
		const struct cluster_view *v = &a->s->node[a->node].dlm->part;

		a->s->left_clean[a->node] = a->s->node[a->node].incarnation;
		memset(a->s->left_known[a->node], 0, sizeof(a->s->left_known[a->node]));
		for (uint32_t i = 0; i < v->n; i++)
			a->s->left_known[a->node][v->m[i].nodeid] = v->m[i].incarnation;
	}
	sim_net_exit(a->s->net, a->node);
	sim_world_count(a->s->w, "op.leave", 1);
	sim_net_boot_later(a->s->net, a->node);
}

static void left(void *arg)
{
	struct ds_node *n = arg;
	struct exit_args a = { n->sim, n->node, sim_world_life(n->sim->w, n->node) };

	sim_world_at_copy(n->sim->w, sim_world_now_ns(n->sim->w), exit_due, &a, sizeof(a));
}

static void on_purged(void *arg)
{
	struct ds_node *n = arg;

	sim_world_count(n->sim->w, "fault.purged", 1);
	n->purged = true;
	ds_set_timer(n, &n->drain, ds_delay(n, 5 * NS_PER_MS));
}

/* Drain, release everything, start the next life; its first word will be that the last one is over. */
static void drain_timer(struct timer *t)
{
	struct ds_node *n = container_of(t, struct ds_node, drain);

	for (unsigned i = 0; i < DS_ALL; i++) {
		struct ds_lock *k = &n->lock[i];

		ds_give_up(k, DLM_NL);
		timer_del(n->env->sched, &k->hold);
		if (k->l.busy || k->l.granted != DLM_NL) {
			ds_set_timer(n, t, ds_delay(n, NS_PER_MS));
			return;
		}
	}
	if (n->leaving)
		return;
	n->withdrawn = (struct cluster_node){ n->node, n->incarnation };
	n->incarnation = sim_net_next_incarnation(n->sim->net, n->node);
	ds_slot_free(n->sim, n->withdrawn);
	ds_slot_active(n->sim, (struct cluster_node){ n->node, n->incarnation });
	n->purged = false;
	for (unsigned i = 0; i < n->n_lost; i++)
		timer_del(n->env->sched, &n->lost[i]->timer);
	cluster_new_incarnation(n->env->cluster, n->incarnation);
}

/* ---- life -------------------------------------------------------------------------------------------------------------------- */

static void config(struct ds_node *n)
{
	const char *m = n->sim->opt.mutate;
	struct dlm_config c = { 0 };

	if (!m)
		return;
	c.no_phantom = !strcmp(m, "no-phantom");
	c.weak_phantom = !strcmp(m, "weak-phantom");
	c.keep_lvb = !strcmp(m, "keep-lvb");
	c.no_purge = !strcmp(m, "no-purge");
	c.one_directory = !strcmp(m, "one-directory");
	c.no_fifo = !strcmp(m, "no-fifo");
	c.bad_cell = !strcmp(m, "bad-cell");
	c.no_remaster = !strcmp(m, "no-remaster");
	c.no_barrier = !strcmp(m, "no-barrier");
	c.cancel_lost = !strcmp(m, "cancel-lost");
	c.conv_last = !strcmp(m, "conversions-last");
	c.no_circle = !strcmp(m, "no-circle");
	c.demote_unasked = !strcmp(m, "demote-unasked");
	c.no_victim = !strcmp(m, "no-victim");
	c.all_victims = !strcmp(m, "all-victims");
	c.deadlock_unverified = !strcmp(m, "deadlock-unverified");
	c.hold_uncapped = !strcmp(m, "hold-uncapped");
	c.old_ring = !strcmp(m, "old-ring");
	if (!strcmp(m, "no-resend"))
		mesh_mutate(n->env->mesh, MESH_MUTATE_NO_RESEND);
	if (c.old_ring)
		mesh_mutate(n->env->mesh, MESH_MUTATE_OLD_RING);
	dlm_set_config(n->dlm, &c);
	if (!strcmp(m, "ignore-ring"))
		cluster_mutate_ignore_ring(n->env->cluster);
	if (!strcmp(m, "own-votes"))
		cluster_mutate_own_votes(n->env->cluster);
}

static void lock_setup(struct ds_lock *k)
{
	char name[16];

	snprintf(name, sizeof(name), "res%c", '0' + k->name);
	timer_init(&k->hold, hold_over);
	timer_init(&k->cancel, cancel_timer);
	dlm_lock_init(k->n->dlm, &k->l, name, strlen(name));
	k->l.done = on_done;
	k->l.bast = on_bast;
	k->l.arg = k;
}

void ds_node_start(void *arg, unsigned node, struct env *env)
{
	struct ds_sim *s = arg;
	struct ds_node *n = &s->node[node];
	struct dlm_events ev = { .recovered = on_recovered, .lost = on_lost, .purged = on_purged,
				 .survey = on_survey, .arg = n };
	struct cluster_user u = { .msg = fs_msg, .procdown = on_procdown, .arg = n };

	memset(n, 0, sizeof(*n));
	n->sim = s;
	n->node = node;
	n->up = true;
	n->env = env;
	n->incarnation = cluster_incarnation(env->cluster);
	n->dlm = dlm_new(env, &ev);
	csv_assert(n->dlm);
	config(n);
	n->dlm->second_look = ds_owner_second_look;
	n->dlm->second_look_arg = n;
	ds_slot_active(s, (struct cluster_node){ node, n->incarnation });
	cluster_register(env->cluster, CHAN_FS, &u);
	for (unsigned i = 0; i < DS_ALL; i++) {
		n->lock[i].n = n;
		n->lock[i].name = i;
		lock_setup(&n->lock[i]);
	}
	ds_owner_init(n);
	timer_init(&n->op, op_timer);
	timer_init(&n->drain, drain_timer);
	timer_init(&n->survey, survey_timer);
	ds_set_timer(n, &n->op, ds_delay(n, 2 * NS_PER_MS));
}

void ds_node_down(void *arg, unsigned node)
{
	struct ds_sim *s = arg;
	struct ds_node *n = &s->node[node];

	ds_oracle_died(s, n, false);
	dlm_free(n->dlm);
	for (unsigned i = 0; i < n->n_lost; i++) {
		timer_del(n->env->sched, &n->lost[i]->timer);
		free(n->lost[i]);
	}
	n->n_lost = 0;
	n->up = false;
	n->dlm = NULL;
}

bool ds_node_idle(const struct ds_node *n)
{
	struct dlm_stats st;

	if (!n->up || n->purged || n->leaving || !dlm_is_recovered(n->dlm) || n->dlm->purged_told)
		return false;
	for (unsigned i = 0; i < DS_ALL; i++)
		if (n->lock[i].l.busy || n->lock[i].l.granted != DLM_NL)
			return false;
	dlm_stats(n->dlm, &st);
	return st.phantoms == 0;
}

/* One EX on everything: whoever is left over in a table somewhere is in the way. */
void ds_node_sweep(struct ds_node *n)
{
	for (unsigned i = 0; i < DS_ALL; i++)
		ds_ask(&n->lock[i], DLM_EX, 0);
}
