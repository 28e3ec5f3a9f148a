/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlmsim_oracle.c - what must hold in the lock manager's simulation after every step, seen from above: it knows what every node
 * really holds, the dead ones included.
 *
 *  D1  locks of living nodes (also of those that nobody reaches) and of the dead that have not been fenced (below PW) or
 *      replayed (PW, EX) all go together
 *  D2  a node is once on the lists of a master; a name has one master among those that run in the same view
 *  D3  a value block that is delivered as valid is the last one written; after a writer died unheard, none is valid before the
 *      next is written
 *  D4  at the end everything is answered, and nothing is left in any table
 *  D5  nothing is granted where no view is usable
 *  fairness: nobody is granted before one who waits longer for the same resource
 */
#include <inttypes.h>
#include <stdlib.h>

#include "tests/sim/dlmsim.h"

/* ---- D1, D5 ------------------------------------------------------------------------------------------------------------ */

static void check_grants(struct ds_sim *s, unsigned name)
{
	struct cluster_node who[SIM_NODES_MAX + 1024];
	uint8_t mode[SIM_NODES_MAX + 1024];
	unsigned n = 0;

	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		struct ds_node *nd = &s->node[i];

		if (!nd->up || nd->lock[name].l.granted == DLM_NL)
			continue;
		who[n] = (struct cluster_node){ i, nd->incarnation };
		mode[n++] = nd->lock[name].l.granted;
	}
	for (unsigned g = 0; g < s->n_ghost; g++) {
		if (s->ghost[g].name != name)
			continue;
		who[n] = s->ghost[g].who;
		mode[n++] = s->ghost[g].mode;
	}
	for (unsigned a = 0; a < n; a++)
		for (unsigned b = a + 1; b < n; b++)
			if (!dlm_compatible(mode[a], mode[b]))
				ds_fail(s, "D1: res%u: n%u.%" PRIu64 " holds %s and n%u.%" PRIu64 " holds %s", name, who[a].nodeid,
					who[a].incarnation, dlm_mode_name(mode[a]), who[b].nodeid, who[b].incarnation,
					dlm_mode_name(mode[b]));
}

static void check_steps(struct ds_sim *s)
{
	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		struct ds_node *n = &s->node[i];

		for (unsigned k = 0; n->up && k < DS_NAMES; k++) {
			struct ds_lock *l = &n->lock[k];

			if (l->l.granted == l->seen)
				continue;
			if (l->l.granted > l->seen && l->l.granted != DLM_NL && !dlm_is_recovered(n->dlm))
				ds_fail(s, "D5: n%u was granted res%u %s without a usable view", i, k,
					dlm_mode_name(l->l.granted));
			l->seen = l->l.granted;
			check_grants(s, k);
		}
	}
}

/* ---- D2, fairness -------------------------------------------------------------------------------------------------------- */

#define QUEUE_MAX 32

struct queue { uint32_t n_granted, n_waiting; struct { uint32_t node; uint64_t reqid; } granted[QUEUE_MAX], waiting[QUEUE_MAX]; };

static struct {
	uint64_t stamp;
	struct ring_id ring;
	struct queue q[DS_NAMES];
} before[SIM_NODES_MAX + 1];

static unsigned name_index(const struct dlm_name *name)
{
	return name->b[3] - '0';
}

static void read_queue(struct ds_sim *s, unsigned node, struct dlm_res *r, struct queue *q)
{
	struct dlm_lkb *k;

	q->n_granted = q->n_waiting = 0;
	cds_list_for_each_entry(k, &r->granted, node) {
		if (k->phantom)
			continue;
		if (q->n_granted == QUEUE_MAX) {
			ds_fail(s, "D2: n%u: more holders than nodes", node);
			return;
		}
		q->granted[q->n_granted].node = k->who.nodeid;
		q->granted[q->n_granted++].reqid = k->reqid;
	}
	cds_list_for_each_entry(k, &r->waiting, node) {
		if (q->n_waiting == QUEUE_MAX) {
			ds_fail(s, "D2: n%u: more waiters than nodes", node);
			return;
		}
		q->waiting[q->n_waiting].node = k->who.nodeid;
		q->waiting[q->n_waiting++].reqid = k->reqid;
	}
	for (uint32_t a = 0; a < q->n_granted + q->n_waiting; a++) {
		uint32_t na = a < q->n_granted ? q->granted[a].node : q->waiting[a - q->n_granted].node;

		for (uint32_t b = a + 1; b < q->n_granted + q->n_waiting; b++)
			if (na == (b < q->n_granted ? q->granted[b].node : q->waiting[b - q->n_granted].node))
				ds_fail(s, "D2: n%u: node %u is twice on the lists of one resource", node, na);
	}
}

static bool in_granted(const struct queue *q, uint32_t node, uint64_t reqid)
{
	for (uint32_t i = 0; i < q->n_granted; i++)
		if (q->granted[i].node == node && q->granted[i].reqid == reqid)
			return true;
	return false;
}

static int waiting_at(const struct queue *q, uint32_t node, uint64_t reqid)
{
	for (uint32_t i = 0; i < q->n_waiting; i++)
		if (q->waiting[i].node == node && q->waiting[i].reqid == reqid)
			return i;
	return -1;
}

static void check_fair(struct ds_sim *s, unsigned node, unsigned name, const struct queue *was, const struct queue *is)
{
	int first = INT32_MAX;		/* place of the longest waiting one that still waits */

	for (uint32_t i = 0; i < was->n_waiting; i++)
		if (waiting_at(is, was->waiting[i].node, was->waiting[i].reqid) >= 0) {
			first = i;
			break;
		}
	for (uint32_t i = 0; i < is->n_granted; i++) {
		int at;

		if (in_granted(was, is->granted[i].node, is->granted[i].reqid))
			continue;
		at = waiting_at(was, is->granted[i].node, is->granted[i].reqid);
		if (at < 0)
			at = was->n_waiting;
		if (at > first)
			ds_fail(s, "fairness: res%u at n%u: node %u was granted before node %u that waited longer", name, node,
				is->granted[i].node, was->waiting[first].node);
	}
}

static void check_masters(struct ds_sim *s)
{
	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		struct ds_node *n = &s->node[i];
		struct dlm_res *r, *tmp;
		struct queue now[DS_NAMES];
		uint64_t stamp;
		bool same;

		if (!n->up || !dlm_is_recovered(n->dlm)) {
			before[i].ring.seq = 0;
			continue;
		}
		stamp = n->dlm->st.messages_received + n->dlm->st.grants + n->dlm->st.requests + n->dlm->st.downgrades +
			n->dlm->st.cancels;
		stamp = stamp << 20 | HASH_COUNT(n->dlm->resources);
		same = ring_eq(before[i].ring, n->dlm->view.ring);
		if (same && before[i].stamp == stamp)
			continue;
		memset(now, 0, sizeof(now));
		HASH_ITER(hh, n->dlm->resources, r, tmp) {
			unsigned name = name_index(&r->name);

			read_queue(s, i, r, &now[name]);
			if (same)
				check_fair(s, i, name, &before[i].q[name], &now[name]);
			for (unsigned k = 1; k <= s->opt.nodes; k++)
				if (k != i && s->node[k].up && dlm_is_recovered(s->node[k].dlm) &&
				    ring_eq(s->node[k].dlm->view.ring, n->dlm->view.ring) &&
				    dlm_res_find(s->node[k].dlm, &r->name))
					ds_fail(s, "D2: res%u has two masters in one view: n%u and n%u", name, i, k);
		}
		before[i].stamp = stamp;
		before[i].ring = n->dlm->view.ring;
		memcpy(before[i].q, now, sizeof(now));
	}
}

void ds_oracle_step(void *arg)
{
	struct ds_sim *s = arg;

	if (s->failed)
		return;
	check_steps(s);
	check_masters(s);
	for (unsigned i = 1; i <= s->opt.nodes; i++)
		if (s->node[i].up && s->node[i].dlm->st.bad_messages)
			ds_fail(s, "n%u took a message for a bad one: %s", i, dlm_bad_reason(s->node[i].dlm));
}

void ds_oracle_free(struct ds_sim *s)
{
	(void)s;
	memset(before, 0, sizeof(before));
}

/* ---- the dead ---------------------------------------------------------------------------------------------------------------- */

static void ghosts_drop(struct ds_sim *s, struct cluster_node who, bool also_writers)
{
	unsigned out = 0;

	for (unsigned i = 0; i < s->n_ghost; i++)
		if (!node_eq(s->ghost[i].who, who) || (s->ghost[i].mode >= DLM_PW && !also_writers))
			s->ghost[out++] = s->ghost[i];
	s->n_ghost = out;
}

void ds_oracle_died(struct ds_sim *s, struct ds_node *n, bool process_only)
{
	(void)process_only;
	for (unsigned k = 0; k < DS_NAMES; k++) {
		struct dlm_lock *l = &n->lock[k].l;

		if (l->granted == DLM_NL)
			continue;
		csv_assert(s->n_ghost < ARRAY_SIZE(s->ghost));
		s->ghost[s->n_ghost++] = (struct ds_ghost){ { n->node, n->incarnation }, k, l->granted };
		if (l->granted >= DLM_PW)
			s->unknown[k] = true;
	}
}

void ds_oracle_fenced(struct ds_sim *s, unsigned node, uint64_t life)
{
	for (unsigned i = 0; i < s->n_ghost;) {
		struct ds_ghost *g = &s->ghost[i];

		if (g->who.nodeid == node && sim_net_life_of(s->net, g->who) <= life && g->mode < DLM_PW)
			*g = s->ghost[--s->n_ghost];
		else
			i++;
	}
}

void ds_oracle_replayed(struct ds_sim *s, struct cluster_node who)
{
	struct ds_node *n = &s->node[who.nodeid];

	if (n->up && n->incarnation == who.incarnation)
		ds_fail(s, "n%u.%" PRIu64 " was taken for fenced while it lives", who.nodeid, who.incarnation);
	ghosts_drop(s, who, true);
}

/* ---- value blocks --------------------------------------------------------------------------------------------------------------- */

/* About to leave PW/EX: the caller's new value. */
void ds_oracle_written(struct ds_lock *k)
{
	struct ds_sim *s = k->n->sim;

	if (k->l.granted == DLM_PW)
		s->floor[k->name] = s->version[k->name];
	s->version[k->name] = ++s->next_version;
	if (k->l.granted == DLM_EX)
		s->floor[k->name] = s->version[k->name];
	s->unknown[k->name] = false;
	for (unsigned i = 0; i < DLM_LVB_LEN; i += 8)
		memcpy(k->l.lvb + i, &s->next_version, 8);
}

void ds_oracle_granted(struct ds_lock *k)
{
	struct ds_sim *s = k->n->sim;
	uint64_t v[DLM_LVB_LEN / 8];

	if (k->l.granted == DLM_NL)
		return;
	sim_world_count(s->w, k->l.lvb_valid ? "op.lvb_valid" : "op.lvb_invalid", 1);
	if (!k->l.lvb_valid)
		return;
	memcpy(v, k->l.lvb, sizeof(v));
	for (unsigned i = 1; i < ARRAY_SIZE(v); i++)
		if (v[i] != v[0])
			ds_fail(s, "D3: res%u: torn value block", k->name);
	/* CR goes together with PW, whose downgrade may still be on its way to the master. */
	if (k->l.granted == DLM_CR ? v[0] < k->asked_floor || v[0] > s->version[k->name] :
	    s->unknown[k->name] || v[0] != s->version[k->name])
		ds_fail(s, "D3: n%u: res%u %s: value %" PRIu64 " delivered as valid, %" PRIu64 " is the last written%s", k->n->node,
			k->name, dlm_mode_name(k->l.granted), v[0], s->version[k->name],
			s->unknown[k->name] ? ", and a writer died after it" : "");
}

/* ---- D4 ---------------------------------------------------------------------------------------------------------------------------- */

void ds_oracle_end(struct ds_sim *s)
{
	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		struct ds_node *n = &s->node[i];

		if (!n->up) {
			ds_fail(s, "D4: n%u is not back", i);
			continue;
		}
		for (unsigned k = 0; k < DS_NAMES; k++)
			if (n->lock[k].l.busy)
				ds_fail(s, "D4: n%u: request for res%u %s is not answered (state %d, lock manager %d)", i, k,
					dlm_mode_name(n->lock[k].l.wanted), dlm_client_find(n->dlm,
					&(struct dlm_name){ .len = 4, .b = { 'r', 'e', 's', '0' + k } })->state, n->dlm->state);
		if (!ds_node_idle(n))
			ds_fail(s, "D4: n%u does not come to rest (lock manager state %d)", i, n->dlm->state);
		if (HASH_COUNT(n->dlm->resources) || HASH_COUNT(n->dlm->dir))
			ds_fail(s, "n%u keeps %u resources and %u records of locks that are gone", i,
				HASH_COUNT(n->dlm->resources), HASH_COUNT(n->dlm->dir));
	}
}
