/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_chase.c - owners that wait for each other in a circle, across nodes and resources (D8).
 *
 * Edges are chased (Chandy, Misra, Haas, "Distributed deadlock detection", 1983; every request of an owner must be granted, so one
 * circle is enough).  Who has waited DLM_PROBE_NS sends a PROBE along its request:
 *
 *	request of X --PROBE--> master: who is in its way? --CHASE--> node of each of them: which owner is that,
 *	and what does that one wait for? --PROBE--> master of that ... until it comes to a lock of X: a circle.
 *
 * Invariants
 *  1. A probe goes on only along owners smaller than X.  So only the greatest of a circle finds it, and it alone gives in.
 *  2. Being seen once proves nothing: while the probe travels edges come and go behind it, and a circle may be put together of what was never
 *     there at one time.  An edge is named by the ids of the request and of the hold (or request) in its way; one that is
 *     gone never comes back under the same ids: a hold only gets weaker, an order in a queue never turns.  (Who must
 *     let the first conversion pass depends on the other ones: there the number of changes of that list is part of the name.)
 *     So when a probe begun after another has come home comes home on the same way (hash of all ids), every edge was there
 *     from the first to the second, hence all at the moment when the second began.
 *  3. The order of a queue may turn in a recovery: a view change makes all attempts void.
 *  4. Nothing here decides about grants: a lost or forged probe costs time, or one request its -EDEADLK.
 *  5. The attempts of a node are numbered, and a request sends on only what is newer than the last of that node.  So an attempt goes along
 *     every request at most once, however the ways cross.  Owners of one node look one after the other, else the newer would cut the older off.
 *
 * In the way of a waiting request are holders that do not go with it, all conversions and all that wait longer; in the way of
 * a conversion holders that do not go with it, and the first conversion when it is behind that (dlm_conv.c).  Locks without owner
 * (they are given up on demand) and phantoms end the way.
 */
#include <stdlib.h>

#include "dlm/dlm_internal.h"
#include "utils/base/prng.h"

#define HOPS 200u
#define TURN_MIN_NS (5 * NS_PER_MS)

static uint64_t mix(uint64_t h, uint64_t x)
{
	h ^= x + 0x9e3779b97f4a7c15ull;
	return csv_splitmix64(&h);
}

/* ---- who looks --------------------------------------------------------------------------------------------------------------- */

static bool looks(const struct dlm_client *c)
{
	return c->l->owner && c->state != DLM_C_IDLE && !c->cancel;
}

static void send_probe(struct dlm *d, const struct dlm_client *c, const struct dlm_msg *from)
{
	struct dlm_msg m = *from;

	m.type = DLM_M_PROBE;
	m.name = c->name;
	m.reqid = dlm_client_reqid(c);
	dlm_send(d, c->master.nodeid, &m);
}

static void begin(struct dlm *d, struct dlm_client *c)
{
	struct dlm_chase *h = c->chase;
	struct dlm_msg m = { .node = d->self };

	if (!h)
		c->chase = h = dlm_alloc(sizeof(*h));
	memcpy(h->before, h->seen, sizeof(h->before));
	h->n_before = h->n_seen;
	h->n_seen = 0;
	h->round = ++d->next_round;
	d->st.probes++;
	if (h->n_before && d->second_look)
		d->second_look(d->second_look_arg, c->l);
	m.probe.owner = c->l->owner;
	m.probe.reqid = dlm_client_reqid(c);
	m.probe.round = h->round;
	send_probe(d, c, &m);
}

static uint64_t looked_ns(const struct dlm_client *c)
{
	return c->chase ? c->chase->looked_ns : 0;
}

/* One after the other (5), who has not looked for longest first. */
static void probe_timer(struct timer *t)
{
	struct dlm *d = container_of(t, struct dlm, probe_timer);
	uint64_t now = dlm_now_ns(d);
	struct dlm_client *c, *next = NULL;
	bool more = false;
	unsigned n = 0;

	cds_list_for_each_entry(c, &d->asked, order) {
		if (!looks(c))
			continue;
		more = true;
		if (c->state != DLM_C_MASTER || now - c->since_ns < DLM_PROBE_NS)
			continue;
		n++;
		if (!next || looked_ns(c) < looked_ns(next))
			next = c;
	}
	if (next) {
		begin(d, next);
		next->chase->again = false;
		next->chase->looked_ns = now;
	}
	if (more)
		timer_set(d->env->sched, t, now + csv_max(DLM_PROBE_NS / csv_max(n, 1u), (uint64_t)TURN_MIN_NS));
}

void dlm_chase_init(struct dlm *d)
{
	timer_init(&d->probe_timer, probe_timer);
}

void dlm_chase_asked(struct dlm *d, const struct dlm_client *c)
{
	if (looks(c) && !d->probe_timer.armed)
		timer_set(d->env->sched, &d->probe_timer, dlm_now_ns(d) + DLM_PROBE_NS);
}

void dlm_chase_suspend(struct dlm *d)
{
	struct dlm_client *c;

	cds_list_for_each_entry(c, &d->asked, order) {
		free(c->chase);
		c->chase = NULL;
	}
}

static bool seen_before(const struct dlm_chase *h, uint64_t path)
{
	for (unsigned i = 0; i < h->n_before; i++)
		if (h->before[i] == path)
			return true;
	return false;
}

/* A probe of ours has come to a lock of the same owner. */
static void came_home(struct dlm *d, const struct dlm_msg *m)
{
	struct dlm_client *c;
	struct dlm_chase *h;

	cds_list_for_each_entry(c, &d->asked, order)
		if (looks(c) && c->l->owner == m->probe.owner && dlm_client_reqid(c) == m->probe.reqid)
			break;
	if (&c->order == &d->asked || !c->chase || c->chase->round != m->probe.round || c->state != DLM_C_MASTER) {
		d->st.stale_messages++;
		return;
	}
	h = c->chase;
	if (seen_before(h, m->probe.path) || d->cfg.deadlock_unverified) {
		if (d->cfg.no_victim)
			return;
		d->st.deadlocks++;
		c->deadlock = true;
		dlm_client_cancel(d, c);
		return;
	}
	if (h->n_seen < DLM_PATHS)
		h->seen[h->n_seen++] = m->probe.path;
	if (!h->again) {
		h->again = true;
		begin(d, c);
	}
}

/* ---- on the way ------------------------------------------------------------------------------------------------------------------- */

static void chase(struct dlm *d, const struct dlm_msg *probe, const struct cluster_node *waiter, const struct dlm_lkb *b, uint64_t id)
{
	struct dlm_msg m = *probe;

	if (b->phantom)
		return;
	m.type = DLM_M_CHASE;
	m.reqid = id;
	m.probe.path = mix(mix(mix(mix(m.probe.path, waiter->nodeid), probe->reqid), b->who.nodeid), id);
	dlm_send(d, b->who.nodeid, &m);
}

static void chase_holders(struct dlm *d, struct dlm_res *r, const struct dlm_msg *m, const struct dlm_lkb *k, enum dlm_mode mode)
{
	struct dlm_lkb *b;

	dlm_each_holder(b, r)
		if (b != k && !dlm_compat(d, b->mode, mode))
			chase(d, m, &k->who, b, b->reqid);
}

void dlm_chase_probe(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_res *r = dlm_res_find(d, &m->name);
	struct dlm_lkb *k = r ? dlm_lkb_find(&r->waiting, from) : NULL, *b;
	const struct dlm_lkb *first;

	if (m->probe.hops >= HOPS || (k && k->reqid != m->reqid))
		return;
	if (k) {
		chase_holders(d, r, m, k, k->mode);
		cds_list_for_each_entry(b, &r->converting, node)
			if (dlm_compat(d, b->mode, k->mode))		/* else it was among the holders */
				chase(d, m, &from, b, b->convid);
		for (b = cds_list_first_entry(&r->waiting, struct dlm_lkb, node); b != k;
		     b = cds_list_entry(b->node.next, struct dlm_lkb, node))
			chase(d, m, &from, b, b->reqid);
		return;
	}
	k = r ? dlm_lkb_find(&r->converting, from) : NULL;
	if (!k || k->convid != m->reqid) {
		d->st.stale_messages++;			/* granted meanwhile, or moved */
		return;
	}
	chase_holders(d, r, m, k, k->want);
	first = dlm_conv_before(d, r, k);
	if (first && dlm_compat(d, first->mode, k->want)) {
		struct dlm_msg on = *m;

		on.probe.path = mix(on.probe.path, r->conv_seq);
		chase(d, &on, &from, first, first->convid);
	}
}

static bool greater(uint64_t owner_a, uint32_t node_a, uint64_t owner_b, uint32_t node_b)
{
	return owner_a != owner_b ? owner_a > owner_b : node_a > node_b;
}

void dlm_chase_holder(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	const struct cluster_node *origin = cluster_view_find(&d->part, m->node);
	struct dlm_client *c = dlm_client_find(d, &m->name), *w;
	struct dlm_msg on = *m;

	(void)from;
	if (!c || (c->reqid != m->reqid && dlm_client_reqid(c) != m->reqid) || (c->l->granted == DLM_NL && !c->l->busy)) {
		d->st.stale_messages++;
		return;
	}
	if (!c->l->owner || !origin)
		return;
	on.probe.hops++;
	if (m->node == d->self && c->l->owner == m->probe.owner) {
		came_home(d, m);
		return;
	}
	if (greater(c->l->owner, d->self, m->probe.owner, m->node) && !d->cfg.all_victims)
		return;
	cds_list_for_each_entry(w, &d->asked, order) {
		if (!looks(w) || w->l->owner != c->l->owner || w->state != DLM_C_MASTER)
			continue;
		if (!w->chase)
			w->chase = dlm_alloc(sizeof(*w->chase));
		if (w->chase->passed[origin - d->part.m] >= m->probe.round)
			continue;
		w->chase->passed[origin - d->part.m] = m->probe.round;
		on.probe.path = mix(m->probe.path, dlm_client_reqid(w));
		send_probe(d, w, &on);
	}
}
