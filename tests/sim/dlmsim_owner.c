/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlmsim_owner.c - owners in the lock manager's simulation: each takes several locks in any order, converts some on the way, and gives
 * none up before it has all or one has failed.  So they wait for each other in circles, across nodes (D8).
 *
 * Oracle: when the lock manager looks a second time, this file looks at all tables of all nodes at that moment: the owner must be the
 * greatest of a circle that is there.  Who gets -EDEADLK for a plain request without that has been wronged.
 */
#include <errno.h>

#include "tests/sim/dlmsim.h"

static bool has_all(const struct ds_node *n)
{
	return !n->owner.steps || n->purged || n->leaving || n->sim->winding_down;
}

static void release_all(struct ds_node *n)
{
	for (unsigned i = DS_NAMES; i < DS_ALL; i++) {
		ds_give_up(&n->lock[i], DLM_NL);
		n->lock[i].l.owner = 0;
	}
	n->owner.id = 0;
}

static void next_step(struct ds_node *n)
{
	struct ds_lock *k = &n->lock[DS_NAMES + ds_rnd(n, DS_OWNED)];

	n->owner.steps--;
	n->owner.circle = false;
	if (k->l.granted != DLM_NL) {
		if (ds_convert(k, ds_rnd(n, 3) ? 0 : DLM_DEMOTE))
			n->owner.waits_for = k->name;
		else
			ds_set_timer(n, &n->owner.timer, ds_delay(n, NS_PER_MS));
		return;
	}
	n->owner.waits_for = k->name;
	k->l.owner = n->owner.id;
	if (ds_rnd(n, 16) == 0)
		ds_set_timer(n, &k->cancel, ds_delay(n, 300 * NS_PER_MS));
	ds_ask(k, DLM_CR + ds_rnd(n, 5), 0);
}

static void owner_timer(struct timer *t)
{
	struct ds_node *n = container_of(t, struct ds_node, owner.timer);

	if (!n->owner.id || n->owner.waits_for != DS_ALL)
		return;
	if (has_all(n))
		release_all(n);
	else
		next_step(n);
}

void ds_owner_init(struct ds_node *n)
{
	timer_init(&n->owner.timer, owner_timer);
	n->owner.waits_for = DS_ALL;
}

void ds_owner_start(struct ds_node *n)
{
	if (n->owner.id)
		return;
	for (unsigned i = DS_NAMES; i < DS_ALL; i++)
		if (n->lock[i].l.busy || n->lock[i].l.granted != DLM_NL)
			return;				/* the final sweep's */
	sim_world_count(n->sim->w, "op.owner", 1);
	n->owner.id = 1 + n->sim->next_owner++ / 2;		/* two nodes may have the same number */
	n->owner.steps = 2 + ds_rnd(n, 4);
	n->owner.waits_for = DS_ALL;
	ds_set_timer(n, &n->owner.timer, ds_delay(n, NS_PER_MS));
}

void ds_owner_done(struct ds_lock *k, int status)
{
	struct ds_node *n = k->n;

	timer_del(n->env->sched, &k->hold);
	if (!n->owner.id) {			/* the final sweep, or a purged node's */
		ds_set_timer(n, &k->hold, ds_delay(n, NS_PER_MS));
		return;
	}
	n->owner.waits_for = DS_ALL;
	if (status == -EDEADLK && !k->converting && !n->owner.circle)
		ds_fail(n->sim, "D8: n%u: owner %lu was to give in and was not the greatest of any circle", n->node,
			(unsigned long)n->owner.id);
	if (status)
		release_all(n);
	else
		ds_set_timer(n, &n->owner.timer, ds_delay(n, 3 * NS_PER_MS));
}

/* ---- oracle ------------------------------------------------------------------------------------------------------------------ */

static struct dlm_lkb *in_list(struct cds_list_head *list, uint32_t node, uint64_t id, bool conversion)
{
	struct dlm_lkb *k;

	cds_list_for_each_entry(k, list, node)
		if (k->who.nodeid == node && (conversion ? k->convid : k->reqid) == id)
			return k;
	return NULL;
}

/* Bit i: node i's owner is in the way of what node n's waits for. */
static uint64_t in_way_of(struct ds_sim *s, struct ds_node *n)
{
	unsigned name = n->owner.waits_for;
	struct dlm_client *c;
	uint64_t nodes = 0;

	if (!n->up || !n->owner.id || name == DS_ALL || !n->lock[name].l.busy)
		return 0;
	c = n->lock[name].l.priv;
	for (unsigned m = 1; m <= s->opt.nodes; m++) {
		struct dlm_lkb *k, *w, *x;
		enum dlm_mode mode;
		struct dlm_res *r;

		if (!s->node[m].up || !dlm_is_recovered(s->node[m].dlm) || !dlm_is_recovered(n->dlm) ||
		    !ring_eq(s->node[m].dlm->view.ring, n->dlm->view.ring))
			continue;
		r = dlm_res_find(s->node[m].dlm, &c->name);
		if (!r)
			continue;
		w = in_list(&r->waiting, n->node, c->reqid, false);
		x = in_list(&r->converting, n->node, c->convid, true);
		if (!w && !x)
			continue;
		mode = w ? w->mode : x->want;
		cds_list_for_each_entry(k, &r->granted, node)
			if (!k->phantom && !dlm_compatible(k->mode, mode))
				nodes |= 1ull << k->who.nodeid;
		cds_list_for_each_entry(k, &r->converting, node) {
			if (k == x)
				continue;
			if (w || !dlm_compatible(k->mode, mode) || k == cds_list_first_entry(&r->converting, struct dlm_lkb, node))
				nodes |= 1ull << k->who.nodeid;
		}
		for (k = w ? cds_list_first_entry(&r->waiting, struct dlm_lkb, node) : NULL; k && k != w;
		     k = cds_list_entry(k->node.next, struct dlm_lkb, node))
			nodes |= 1ull << k->who.nodeid;
	}
	for (unsigned i = 1; i <= s->opt.nodes; i++)
		if (nodes & 1ull << i && (!s->node[i].up || !s->node[i].lock[name].l.owner))
			nodes &= ~(1ull << i);
	return nodes;
}

static bool greater(const struct ds_node *a, const struct ds_node *b)
{
	return a->owner.id != b->owner.id ? a->owner.id > b->owner.id : a->node > b->node;
}

void ds_owner_second_look(void *arg, const struct dlm_lock *l)
{
	struct ds_node *n = arg;
	struct ds_sim *s = n->sim;
	uint64_t reached = in_way_of(s, n), done = 0;

	(void)l;
	sim_world_count(s->w, "op.second_look", 1);
	/* All that can be reached over owners smaller than this one. */
	while (reached & ~done) {
		unsigned i = __builtin_ctzll(reached & ~done);

		done |= 1ull << i;
		if (i != n->node && greater(n, &s->node[i]))
			reached |= in_way_of(s, &s->node[i]);
	}
	n->owner.circle = reached & 1ull << n->node;
}
