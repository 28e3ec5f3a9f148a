/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_agree.c - first round of a recovery: from what every member tells of its past, all compute the same: who takes part, who
 * is lost, which names have lost both their directory nodes.  Pure.
 *
 * A node's past is a list of *candidates*: the last view that ran there, and every later one for which it was ready.  A view
 * runs only when all its participants are ready, so a view that ran anywhere is a candidate of all its participants; and as
 * views are quorate, of at least one node of every later view - if its daemon still is the same (see 3).  Hence:
 *
 *  1. The newest candidate of all ("top") is the newest view that may have run.  Whoever has a past and is not in top has
 *     been gone while the others went on: purged (rule R11).  Whoever is in the lost list of a node with a newer past: too.
 *  2. Everybody in any candidate of a participant may hold locks.  Who of them takes no part is lost, until proven otherwise.
 *  3. There may have been views after top that nobody here knows: quorum counts engines, and all daemons that took part in such
 *     a view may have been on other nodes, or have restarted.  There were none when (a) this view is of top's totem ring, (b) it
 *     is of the very next one: totem raises its sequence by 4 each time, above all that the members have seen, and any
 *     quorate ring in between would share a node with both; or (c) participants with more than half of all votes that the engine expects
 *     have been with us since top (each has one at least), by the most votes that any member of this view has ever known: the node list
 *     may have grown where some of us were not.
 *     Else there is a *gap*: the disk is asked who else there may be (survey), and no name is known to be free.
 *  4. A candidate of which two or more are gone may have names that nobody knows any more.
 *
 * In doubt (a candidate that did not run) more nodes are purged and more names suspected than need be, never fewer.
 */
#include "dlm/dlm_internal.h"

struct dlm_lost *dlm_lost_find(struct dlm_lost_list *l, struct cluster_node who)
{
	for (uint32_t i = 0; i < l->n; i++)
		if (node_eq(l->e[i].who, who))
			return &l->e[i];
	return NULL;
}

/* The oldest proven entries are of no use any more but against a zombie with the same incarnation; that rule 1 stops as well. */
static void forget_tombs(struct dlm_lost_list *l, uint32_t keep)
{
	uint32_t tombs = 0, out = 0;

	for (uint32_t i = 0; i < l->n; i++)
		tombs += l->e[i].proof == DLM_REPLAYED;
	for (uint32_t i = 0; i < l->n; i++) {
		if (l->e[i].proof == DLM_REPLAYED && tombs > keep) {
			tombs--;
			continue;
		}
		l->e[out++] = l->e[i];
	}
	l->n = out;
}

void dlm_lost_set(struct dlm_lost_list *l, struct cluster_node who, enum dlm_proof proof)
{
	struct dlm_lost *e = dlm_lost_find(l, who);

	if (e) {
		if (proof > e->proof)
			e->proof = proof;
		return;
	}
	forget_tombs(l, l->n == DLM_LOST_MAX ? 0 : DLM_TOMBS_MAX);
	csv_assertf(l->n < DLM_LOST_MAX, "%u nodes are lost without a proof: fence them", l->n);
	l->e[l->n++] = (struct dlm_lost){ .who = who, .proof = proof };
}

static bool view_has(const struct cluster_view *v, struct cluster_node who)
{
	const struct cluster_node *m = cluster_view_find(v, who.nodeid);

	return m && m->incarnation == who.incarnation;
}

void dlm_past_add_cand(struct dlm_past *p, const struct cluster_view *v)
{
	if (p->n_cand == DLM_CAND_MAX) {
		/*
		 * Many views in a row for which we were ready and that did not come to run (or did, and we do not know).  Two of the
		 * middle become one with the members of both, so nobody who may hold a lock is forgotten; its directory nodes
		 * cannot be computed any more, so every name is suspected (n = 0 in dlm_agree()).
		 */
		struct cluster_view *a = &p->cand[1], *b = &p->cand[2];

		for (uint32_t i = 0; i < a->n && b->n < CLUSTER_NODES_MAX; i++)
			if (!view_has(b, a->m[i]))
				b->m[b->n++] = a->m[i];
		b->ring.nodeid = 0;
		memmove(a, b, (p->n_cand - 2) * sizeof(*a));
		p->n_cand--;
	}
	p->cand[p->n_cand++] = *v;
}

static struct ring_id newest(const struct dlm_past *p)
{
	return p->n_cand ? p->cand[p->n_cand - 1].ring : (struct ring_id){ 0, 0 };
}

/* ---- participants ----------------------------------------------------------------------------------------------------- */

/* order[]: members by the age of their past, newest first. */
static void sort_members(const struct cluster_view *v, struct dlm_past *const *past, uint32_t *order)
{
	for (uint32_t i = 0; i < v->n; i++) {
		uint32_t at = i;

		for (; at && ring_after(newest(past[i]), newest(past[order[at - 1]])); at--)
			order[at] = order[at - 1];
		order[at] = i;
	}
}

static const struct cluster_view *choose(const struct cluster_view *v, struct dlm_past *const *past, struct cluster_view *ret_part)
{
	const struct cluster_view *top = NULL;
	uint32_t order[CLUSTER_NODES_MAX] = { 0 };
	uint64_t purged = 0, accepted = 0;

	sort_members(v, past, order);
	for (uint32_t o = 0; o < v->n && !top; o++)
		if (past[order[o]]->n_cand && !past[order[o]]->purged)
			top = &past[order[o]]->cand[past[order[o]]->n_cand - 1];
	for (uint32_t o = 0; o < v->n; o++) {
		uint32_t i = order[o];
		struct dlm_lost_list *l = &past[i]->lost;

		if (past[i]->purged || (past[i]->n_cand && !view_has(top, v->m[i])))
			purged |= 1ull << i;
		if (purged & 1ull << i)
			continue;
		accepted |= 1ull << i;
		for (uint32_t k = 0; k < v->n && past[i]->n_cand; k++)
			if (!(accepted & 1ull << k) && dlm_lost_find(l, v->m[k]))
				purged |= 1ull << k;
	}
	ret_part->ring = v->ring;
	ret_part->n = 0;
	for (uint32_t i = 0; i < v->n; i++)
		if (accepted & 1ull << i)
			ret_part->m[ret_part->n++] = v->m[i];
	return top;
}

#define TOTEM_STEP 4

static bool is_gap(const struct cluster_view *top, const struct cluster_view *part, uint32_t votes)
{
	uint64_t then, now = part->ring.seq >> CLUSTER_ROUND_BITS;
	uint32_t together = 0;

	if (!top)
		return true;
	then = top->ring.seq >> CLUSTER_ROUND_BITS;
	if (now - then <= TOTEM_STEP)
		return false;
	for (uint32_t i = 0; i < part->n; i++)
		together += view_has(top, part->m[i]);
	return !votes || 2 * together <= votes;
}

/* ---- lost, forgotten ---------------------------------------------------------------------------------------------------- */

static void suspect(struct dlm_amnesia *a, struct cluster_node who)
{
	if (a->n_suspect > CLUSTER_NODES_MAX)
		return;
	for (uint32_t i = 0; i < a->n_suspect; i++)
		if (node_eq(a->suspect[i], who))
			return;
	if (a->n_suspect < CLUSTER_NODES_MAX)
		a->suspect[a->n_suspect] = who;
	a->n_suspect++;
}

static void merge_suspects(struct dlm_amnesia *to, const struct dlm_amnesia *from)
{
	if (from->n_suspect > CLUSTER_NODES_MAX)
		to->n_suspect = CLUSTER_NODES_MAX + 1;
	for (uint32_t i = 0; i < from->n_suspect && i < CLUSTER_NODES_MAX; i++)
		suspect(to, from->suspect[i]);
}

static void add_amnesia(struct dlm_agreed *ret, const struct dlm_amnesia *a)
{
	struct dlm_amnesia *e;

	for (uint32_t i = 0; i < ret->n_amnesia; i++) {
		e = &ret->amnesia[i];
		if (!ring_eq(e->ring, a->ring) || e->n != a->n)
			continue;
		e->gone |= a->gone;
		merge_suspects(e, a);
		return;
	}
	if (ret->n_amnesia < DLM_AMNESIA_MAX) {
		ret->amnesia[ret->n_amnesia++] = *a;
		return;
	}
	e = &ret->amnesia[DLM_AMNESIA_MAX - 1];		/* too many: any name */
	e->n = 0;
	merge_suspects(e, a);
}

static void find_amnesia(const struct cluster_view *cand, struct dlm_agreed *ret)
{
	struct dlm_amnesia a = { .ring = cand->ring, .n = cand->n };

	memcpy(a.m, cand->m, sizeof(a.m[0]) * cand->n);
	for (uint32_t i = 0; i < cand->n; i++)
		if (!view_has(&ret->part, cand->m[i]))
			a.gone |= 1ull << i;
	if (__builtin_popcountll(a.gone) < 2)
		return;
	if (!cand->ring.nodeid)
		a.n = 0;
	for (uint32_t i = 0; i < ret->lost.n; i++)
		if (ret->lost.e[i].proof != DLM_REPLAYED)
			suspect(&a, ret->lost.e[i].who);
	if (a.n_suspect)
		add_amnesia(ret, &a);
}

void dlm_agree_gap(struct dlm_agreed *a)
{
	struct dlm_amnesia any = { .ring = a->part.ring };

	for (uint32_t i = 0; i < a->lost.n; i++)
		if (a->lost.e[i].proof != DLM_REPLAYED)
			suspect(&any, a->lost.e[i].who);
	if (any.n_suspect)
		add_amnesia(a, &any);
}

static bool all_proven(struct dlm_lost_list *l, const struct dlm_amnesia *a)
{
	if (a->n_suspect > CLUSTER_NODES_MAX) {
		for (uint32_t i = 0; i < l->n; i++)
			if (l->e[i].proof != DLM_REPLAYED)
				return false;
		return true;
	}
	for (uint32_t i = 0; i < a->n_suspect; i++) {
		struct dlm_lost *e = dlm_lost_find(l, a->suspect[i]);

		if (e && e->proof != DLM_REPLAYED)
			return false;
	}
	return true;
}

void dlm_past_prune(struct dlm_past *p)
{
	uint32_t out = 0;

	for (uint32_t i = 0; i < p->n_amnesia; i++)
		if (!all_proven(&p->lost, &p->amnesia[i]))
			p->amnesia[out++] = p->amnesia[i];
	p->n_amnesia = out;
}

void dlm_agree(const struct cluster_view *v, struct dlm_past *const *past, struct dlm_agreed *ret_a)
{
	struct dlm_agreed *ret = ret_a;
	const struct cluster_view *top;

	memset(ret, 0, sizeof(*ret));
	top = choose(v, past, &ret->part);
	ret->gap = is_gap(top, &ret->part, v->votes);
	for (uint32_t i = 0; i < v->n; i++) {
		const struct dlm_past *p = past[i];

		if (!view_has(&ret->part, v->m[i]))
			continue;
		for (uint32_t k = 0; k < p->lost.n; k++)
			if (!view_has(&ret->part, p->lost.e[k].who))
				dlm_lost_set(&ret->lost, p->lost.e[k].who, p->lost.e[k].proof);
		for (uint32_t k = 0; k < p->n_cand; k++)
			for (uint32_t m = 0; m < p->cand[k].n; m++)
				if (!view_has(&ret->part, p->cand[k].m[m]))
					dlm_lost_set(&ret->lost, p->cand[k].m[m], DLM_LOST);
	}
	for (uint32_t i = 0; i < v->n; i++) {
		const struct dlm_past *p = past[i];

		if (!view_has(&ret->part, v->m[i]))
			continue;
		for (uint32_t k = 0; k < p->n_amnesia; k++)
			add_amnesia(ret, &p->amnesia[k]);
		for (uint32_t k = 0; k < p->n_cand; k++)
			find_amnesia(&p->cand[k], ret);
	}
}

/* ---- on the wire ----------------------------------------------------------------------------------------------------------- */

static void put_nodes(struct csv_cursor *c, const struct cluster_node *m, uint32_t n)
{
	csv_put_u32(c, n);
	for (uint32_t i = 0; i < n; i++) {
		csv_put_u32(c, m[i].nodeid);
		csv_put_u64(c, m[i].incarnation);
	}
}

static uint32_t get_nodes(struct csv_cursor *c, struct cluster_node *ret_m)
{
	uint32_t n = csv_cur_u32(c);

	if (n > CLUSTER_NODES_MAX) {
		csv_cur_fail(c);
		return 0;
	}
	for (uint32_t i = 0; i < n; i++) {
		ret_m[i].nodeid = csv_cur_u32(c);
		ret_m[i].incarnation = csv_cur_u64(c);
		if (!ret_m[i].nodeid || !ret_m[i].incarnation)
			csv_cur_fail(c);
	}
	return n;
}

static void put_ring(struct csv_cursor *c, struct ring_id r)
{
	csv_put_u32(c, r.nodeid);
	csv_put_u64(c, r.seq);
}

static struct ring_id get_ring(struct csv_cursor *c)
{
	struct ring_id r;

	r.nodeid = csv_cur_u32(c);
	r.seq = csv_cur_u64(c);
	return r;
}

void dlm_past_encode(struct csv_cursor *c, const struct dlm_past *p)
{
	csv_put_u8(c, p->purged);
	csv_put_u32(c, p->n_cand);
	for (uint32_t i = 0; i < p->n_cand; i++) {
		put_ring(c, p->cand[i].ring);
		put_nodes(c, p->cand[i].m, p->cand[i].n);
	}
	csv_put_u32(c, p->n_amnesia);
	for (uint32_t i = 0; i < p->n_amnesia; i++) {
		const struct dlm_amnesia *a = &p->amnesia[i];
		bool all = a->n_suspect > CLUSTER_NODES_MAX;

		put_ring(c, a->ring);
		put_nodes(c, a->m, a->n);
		csv_put_u64(c, a->gone);
		csv_put_u8(c, all);
		put_nodes(c, a->suspect, all ? 0 : a->n_suspect);
	}
	csv_put_u32(c, p->lost.n);
	for (uint32_t i = 0; i < p->lost.n; i++) {
		csv_put_u32(c, p->lost.e[i].who.nodeid);
		csv_put_u64(c, p->lost.e[i].who.incarnation);
		csv_put_u8(c, p->lost.e[i].proof);
	}
}

const char *dlm_past_decode(struct csv_cursor *c, struct dlm_past *ret_p)
{
	struct dlm_past *p = ret_p;
	uint8_t purged;

	memset(p, 0, sizeof(*p));
	purged = csv_cur_u8(c);
	if (purged > 1)
		return "purged is neither 0 nor 1";
	p->purged = purged;
	p->n_cand = csv_cur_u32(c);
	if (p->n_cand > DLM_CAND_MAX)
		return "too many candidate views";
	for (uint32_t i = 0; i < p->n_cand; i++) {
		p->cand[i].ring = get_ring(c);
		p->cand[i].n = get_nodes(c, p->cand[i].m);
	}
	p->n_amnesia = csv_cur_u32(c);
	if (p->n_amnesia > DLM_AMNESIA_MAX)
		return "too many views with lost directories";
	for (uint32_t i = 0; i < p->n_amnesia; i++) {
		struct dlm_amnesia *a = &p->amnesia[i];
		uint8_t all;

		a->ring = get_ring(c);
		a->n = get_nodes(c, a->m);
		a->gone = csv_cur_u64(c);
		all = csv_cur_u8(c);
		a->n_suspect = get_nodes(c, a->suspect);
		if (all > 1 || (all && a->n_suspect))
			return "suspects out of range";
		if (all)
			a->n_suspect = CLUSTER_NODES_MAX + 1;
	}
	p->lost.n = csv_cur_u32(c);
	if (p->lost.n > DLM_LOST_MAX)
		return "too many lost nodes";
	for (uint32_t i = 0; i < p->lost.n; i++) {
		p->lost.e[i].who.nodeid = csv_cur_u32(c);
		p->lost.e[i].who.incarnation = csv_cur_u64(c);
		p->lost.e[i].proof = csv_cur_u8(c);
		if (p->lost.e[i].proof > DLM_REPLAYED)
			return "proof out of range";
	}
	if (csv_cur_error(c))
		return "cut off, or a node without number or incarnation";
	return csv_cur_left(c) ? "longer than its content" : NULL;
}
