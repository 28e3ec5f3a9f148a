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
 *  fairness (D2): nobody is granted before one who waits longer for the same resource, or while a conversion waits; of conversions
 *      the first goes first but for those in its way
 *  D7  (with D4) conversions do not wait for each other; one that fails leaves the old mode
 *  D8  -EDEADLK goes to the greatest of a circle that there really was (dlmsim_owner.c); with D4: every circle ends
 *  D9  no bast is held back longer than DLM_HOLD_MAX_NS from the grant on
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

		for (unsigned k = 0; n->up && k < DS_ALL; k++) {
			struct ds_lock *l = &n->lock[k];

			if (l->l.granted == l->seen)
				continue;
			if (!dlm_mode_covers(l->seen, l->l.granted) && l->l.granted != DLM_NL && !dlm_is_recovered(n->dlm))
				ds_fail(s, "D5: n%u was granted res%u %s without a usable view", i, k,
					dlm_mode_name(l->l.granted));
			l->seen = l->l.granted;
			check_grants(s, k);
		}
	}
}

/* ---- D2, fairness -------------------------------------------------------------------------------------------------------- */

#define QUEUE_MAX 32

struct entry { uint32_t node; uint64_t reqid; uint8_t mode, want; bool mark; };
/* granted: without those that convert; reqid of those is the conversion's */
struct queue { uint32_t n_granted, n_converting, n_waiting; struct entry granted[QUEUE_MAX], converting[QUEUE_MAX], waiting[QUEUE_MAX]; };

static struct {
	uint64_t stamp;
	struct ring_id ring;
	struct queue q[DS_ALL];
} before[SIM_NODES_MAX + 1];

static unsigned name_index(const struct dlm_name *name)
{
	return name->b[3] - '0';
}

static bool put(struct entry *e, uint32_t *n, const struct dlm_lkb *k, uint64_t reqid)
{
	if (*n == QUEUE_MAX)
		return false;
	e[(*n)++] = (struct entry){ k->who.nodeid, reqid, k->mode, k->want, false };
	return true;
}

static void read_queue(struct ds_sim *s, unsigned node, struct dlm_res *r, struct queue *q)
{
	uint32_t times[SIM_NODES_MAX + 1] = { 0 };
	struct dlm_lkb *k;
	bool fits = true;

	q->n_granted = q->n_converting = q->n_waiting = 0;
	cds_list_for_each_entry(k, &r->granted, node)
		if (!k->phantom) {
			fits &= put(q->granted, &q->n_granted, k, k->reqid);
			times[k->who.nodeid]++;
			if (k->want)
				ds_fail(s, "D2: n%u: node %u is granted and converts", node, k->who.nodeid);
		}
	cds_list_for_each_entry(k, &r->converting, node) {
		fits &= put(q->converting, &q->n_converting, k, k->convid);
		times[k->who.nodeid]++;
	}
	cds_list_for_each_entry(k, &r->waiting, node) {
		fits &= put(q->waiting, &q->n_waiting, k, k->reqid);
		times[k->who.nodeid]++;
	}
	if (!fits)
		ds_fail(s, "D2: n%u: more holders or waiters than nodes", node);
	for (uint32_t i = 1; i <= SIM_NODES_MAX; i++)
		if (times[i] > 1)
			ds_fail(s, "D2: n%u: node %u is twice on the lists of one resource", node, i);
}

static int at(const struct entry *e, uint32_t n, uint32_t node, uint64_t reqid)
{
	for (uint32_t i = 0; i < n; i++)
		if (e[i].node == node && e[i].reqid == reqid)
			return i;
	return -1;
}

static const struct entry *held_by(const struct queue *q, uint32_t node)
{
	for (uint32_t i = 0; i < q->n_granted; i++)
		if (q->granted[i].node == node)
			return &q->granted[i];
	for (uint32_t i = 0; i < q->n_converting; i++)
		if (q->converting[i].node == node)
			return &q->converting[i];
	return NULL;
}

/* Does what `mode` stands in the way of the conversion `first`, or of one in its way, and so on? */
static bool is_in_way(struct queue *q, int first, uint32_t node, uint8_t mode)
{
	bool more = true;

	for (uint32_t i = 0; i < q->n_converting; i++)
		q->converting[i].mark = (int)i == first;
	while (more) {
		more = false;
		for (uint32_t y = 0; y < q->n_converting; y++) {
			if (!q->converting[y].mark)
				continue;
			if (q->converting[y].node != node && !dlm_compatible(mode, q->converting[y].want))
				return true;
			for (uint32_t x = 0; x < q->n_converting; x++)
				if (!q->converting[x].mark && !dlm_compatible(q->converting[x].mode, q->converting[y].want))
					q->converting[x].mark = more = true;
		}
	}
	return false;
}

static void check_fair(struct ds_sim *s, unsigned node, unsigned name, struct queue *was, const struct queue *is)
{
	int first = INT32_MAX, conv = -1;	/* places of the first request and conversion that still wait */

	for (uint32_t i = 0; i < was->n_waiting && first == INT32_MAX; i++)
		if (at(is->waiting, is->n_waiting, was->waiting[i].node, was->waiting[i].reqid) >= 0)
			first = i;
	for (uint32_t i = 0; i < was->n_converting && conv < 0; i++)
		if (at(is->converting, is->n_converting, was->converting[i].node, was->converting[i].reqid) >= 0)
			conv = i;
	/* Who has just come may have put others in the way of the first (behind all that were there: conv stays). */
	for (uint32_t i = 0; i < is->n_converting && was->n_converting < QUEUE_MAX; i++)
		if (at(was->converting, was->n_converting, is->converting[i].node, is->converting[i].reqid) < 0)
			was->converting[was->n_converting++] = is->converting[i];
	for (uint32_t i = 0; i < is->n_granted; i++) {
		const struct entry *g = &is->granted[i], *old = held_by(was, g->node);
		int place;

		if (at(was->granted, was->n_granted, g->node, g->reqid) >= 0 || (old && old->reqid > g->reqid))
			continue;		/* it held that already (or has it back after a conversion that failed) */
		place = at(was->converting, was->n_converting, g->node, g->reqid);
		if (conv >= 0 && (place < 0 || place > conv) && (!old || !is_in_way(was, conv, g->node, old->mode)))
			ds_fail(s, "fairness: res%u at n%u: node %u (%s -> %s) was granted before the conversion of node %u (%s -> %s)",
				name, node, g->node, old ? dlm_mode_name(old->mode) : "new", dlm_mode_name(g->mode),
				was->converting[conv].node, dlm_mode_name(was->converting[conv].mode),
				dlm_mode_name(was->converting[conv].want));
		if (old)
			continue;
		place = at(was->waiting, was->n_waiting, g->node, g->reqid);
		if (place < 0)
			place = was->n_waiting;
		if (place > first)
			ds_fail(s, "fairness: res%u at n%u: node %u was granted before node %u that waited longer", name, node,
				g->node, was->waiting[first].node);
	}
}

static void check_masters(struct ds_sim *s)
{
	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		struct ds_node *n = &s->node[i];
		struct dlm_res *r, *tmp;
		struct queue now[DS_ALL];
		uint64_t stamp;
		bool same;

		if (!n->up || !dlm_is_recovered(n->dlm)) {
			before[i].ring.seq = 0;
			continue;
		}
		stamp = n->dlm->st.messages_received + n->dlm->st.grants + n->dlm->st.requests + n->dlm->st.downgrades +
			n->dlm->st.cancels + n->dlm->st.conversions + n->dlm->st.basts + n->dlm->st.demotions;
		stamp = stamp << 20 | n->dlm->resources.n;
		same = ring_eq(before[i].ring, n->dlm->view.ring);
		if (same && before[i].stamp == stamp)
			continue;
		memset(now, 0, sizeof(now));
		dlm_table_each(r, tmp, &n->dlm->resources) {
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
	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		struct dlm_client *c;

		if (!s->node[i].up)
			continue;
		if (s->node[i].dlm->st.bad_messages)
			ds_fail(s, "n%u took a message for a bad one: %s", i, dlm_bad_reason(s->node[i].dlm));
		cds_list_for_each_entry(c, &s->node[i].dlm->rest, rest)
			if (c->rest_end_ns > c->granted_ns + DLM_HOLD_MAX_NS)
				ds_fail(s, "D9: n%u: who waits for res%c is to wait %.1f ms for the minimum hold alone", i, c->name.b[3],
					(c->rest_end_ns - c->granted_ns) / 1e6);
	}
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
	for (unsigned k = 0; k < DS_ALL; k++) {
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
		for (unsigned k = 0; k < DS_ALL; k++)
			if (n->lock[k].l.busy)
				ds_fail(s, "D4: n%u: request for res%u %s is not answered (state %d, lock manager %d)", i, k,
					dlm_mode_name(n->lock[k].l.wanted), dlm_client_find(n->dlm,
					&(struct dlm_name){ .len = 4, .b = { 'r', 'e', 's', '0' + k } })->state, n->dlm->state);
		if (!ds_node_idle(n))
			ds_fail(s, "D4: n%u does not come to rest (lock manager state %d)", i, n->dlm->state);
		if (n->dlm->resources.n || n->dlm->dir.n)
			ds_fail(s, "n%u keeps %u resources and %u records of locks that are gone", i,
				n->dlm->resources.n, n->dlm->dir.n);
		for (uint32_t p = 0; p < n->dlm->part.n; p++)
			if (n->dlm->peer[p].locks || n->dlm->peer[p].records)
				ds_fail(s, "n%u counts %u locks and %u records of n%u that are gone", i, n->dlm->peer[p].locks,
					n->dlm->peer[p].records, n->dlm->peer[p].who.nodeid);
	}
}
