/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_conv.c - conversions at the master: in which order, and circles of them (D2, D7).
 *
 * A converting lock holds its old mode and wants another one.  "x is in the way of y": x holds what does not go with what y wants.
 *
 * Invariants
 *  1. The list is in order of arrival and its first one, F, goes first.  Before it goes only who is in its way, or in the way of such
 *     a one, and so on (the closure of F): F could not be granted before them in any order.  Each may do so once a hold: it is
 *     asked to make way as soon as it holds, and a node that comes back is behind F.  So F does not starve.
 *  2. No circle of conversions that are in each other's way stands: the one that would close it is refused with DEADLOCK and holds
 *     what it held, or a member that allows it is demoted.
 *     Without circles, and with all holders that do not convert going when asked, F is granted in the end: follow from F who
 *     is in whose way; the way ends at a holder that does not convert, or at one that can be granted.
 *     Where neither mode covers the other (PR, CW) the holder keeps what both cover before it asks.
 *  3. A mode is taken away only by its holder's own DOWN.  DEMOTE asks for it; the master's list changes when that comes.
 *
 *	A  PR -> EX		B  PR -> EX, may be demoted		master
 *	CONVERT ------------------------------------------------------>	A waits for B
 *				CONVERT -------------------------------> a circle
 *				<------------------------------- DEMOTE
 *				now NL;   DOWN ------------------------> A gets EX, B waits
 *
 * What a view change does: the list is forgotten; the holders report their old modes, and convert anew.
 */
#include "dlm/dlm_internal.h"

static bool in_way(const struct dlm *d, const struct dlm_lkb *x, const struct dlm_lkb *of)
{
	return x != of && !dlm_compat(d, x->mode, of->want);
}

/* ---- order (1) ----------------------------------------------------------------------------------------------------------- */

static struct dlm_lkb *mark_closure(const struct dlm *d, struct dlm_res *r)
{
	struct dlm_lkb *first = cds_list_first_entry(&r->converting, struct dlm_lkb, node), *x, *y;
	bool more = true;

	cds_list_for_each_entry(x, &r->converting, node)
		x->mark = x == first;
	while (more) {
		more = false;
		cds_list_for_each_entry(x, &r->converting, node) {
			if (x->mark)
				continue;
			cds_list_for_each_entry(y, &r->converting, node)
				if (y->mark && in_way(d, x, y))
					x->mark = more = true;
		}
	}
	return first;
}

const struct dlm_lkb *dlm_conv_before(const struct dlm *d, struct dlm_res *r, const struct dlm_lkb *k)
{
	const struct dlm_lkb *first = mark_closure(d, r);

	return k->mark ? NULL : first;
}

static struct dlm_lkb *next_to_grant(const struct dlm *d, struct dlm_res *r)
{
	struct dlm_lkb *k;

	mark_closure(d, r);
	cds_list_for_each_entry(k, &r->converting, node)
		if ((k->mark || d->cfg.no_fifo) && !k->demoting && dlm_res_grantable(d, r, k->want, k->past_phantoms, k))
			return k;
	return NULL;
}

void dlm_conv_settle(struct dlm *d, struct dlm_res *r)
{
	struct dlm_lkb *k;

	while (!cds_list_empty(&r->converting)) {
		k = next_to_grant(d, r);
		if (!k)
			break;
		dlm_res_grant(d, r, k);
	}
	cds_list_for_each_entry(k, &r->converting, node)
		dlm_res_ask(d, r, k->want, k);
}

/* ---- circles (2) ------------------------------------------------------------------------------------------------------------ */

/* Members of a circle through k, k first; 0: there is none.  Who is being demoted is as good as gone. */
static uint32_t circle_of(const struct dlm *d, struct dlm_res *r, struct dlm_lkb *k, struct dlm_lkb **ret_member)
{
	struct dlm_lkb *at[CLUSTER_NODES_MAX] = { k }, *x;
	uint32_t from[CLUSTER_NODES_MAX] = { 0 }, n = 1, len = 0;

	cds_list_for_each_entry(x, &r->converting, node)
		x->mark = x == k || x->demoting;
	for (uint32_t i = 0; i < n; i++) {
		if (i && in_way(d, k, at[i])) {
			ret_member[len++] = k;
			for (; i; i = from[i])
				ret_member[len++] = at[i];
			return len;
		}
		cds_list_for_each_entry(x, &r->converting, node) {
			if (x->mark || !in_way(d, x, at[i]))
				continue;
			csv_assert(n < CLUSTER_NODES_MAX);		/* one a node */
			x->mark = true;
			from[n] = i;
			at[n++] = x;
		}
	}
	return 0;
}

static void demote(struct dlm *d, struct dlm_res *r, struct dlm_lkb *k)
{
	struct dlm_msg m = { .type = DLM_M_DEMOTE, .name = r->name, .reqid = k->convid };

	d->st.demotions++;
	if (d->cfg.demote_unasked) {
		k->mode = DLM_NL;
		return;
	}
	k->demoting = true;
	dlm_send(d, k->who.nodeid, &m);
}

/* False: k is to be refused. */
static bool break_circles(struct dlm *d, struct dlm_res *r, struct dlm_lkb *k)
{
	struct dlm_lkb *member[CLUSTER_NODES_MAX + 1];
	uint32_t n;

	while (!d->cfg.no_circle && !k->demoting && k->mode != DLM_NL && (n = circle_of(d, r, k, member)) > 0) {
		struct dlm_lkb *give = NULL;

		d->st.circles++;
		for (uint32_t i = 0; i < n && !give; i++)
			if (member[i]->demote_ok)
				give = member[i];
		if (!give)
			return false;
		demote(d, r, give);
	}
	return true;
}

/* ---- requests --------------------------------------------------------------------------------------------------------------- */

static void back_to_granted(struct dlm_res *r, struct dlm_lkb *k)
{
	k->want = DLM_NL;
	cds_list_del(&k->node);
	cds_list_add_tail(&k->node, &r->granted);
}

void dlm_conv_enter(struct dlm *d, struct dlm_res *r, struct dlm_lkb *k, const struct dlm_msg *m)
{
	bool now;

	k->mode = dlm_mode_meet(k->mode, m->mode);	/* the holder has done so already */
	now = cds_list_empty(&r->converting) && dlm_res_grantable(d, r, m->mode, m->flags & DLM_F_PAST, k);

	if (!now && m->flags & DLM_F_NOQUEUE) {
		dlm_res_ask(d, r, m->mode, k);
		dlm_res_refuse(d, r, k->who, m, 0);
		dlm_res_settle(d, r);
		return;
	}
	r->conv_seq++;
	k->want = m->mode;
	k->convid = m->reqid;
	k->past_phantoms = m->flags & DLM_F_PAST;
	k->pr_welcome = k->demoting = false;
	k->demote_ok = m->flags & DLM_F_DEMOTE;
	k->fresh = now;
	if (!now)
		k->since_ns = dlm_now_ns(d);
	cds_list_del(&k->node);
	cds_list_add_tail(&k->node, &r->converting);
	if (!break_circles(d, r, k)) {
		back_to_granted(r, k);
		dlm_res_refuse(d, r, k->who, m, DLM_F_DEADLOCK);
	}
	dlm_touched(d, r);
	dlm_res_settle(d, r);
}

void dlm_conv_request(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_res *r = dlm_res_find(d, &m->name);
	struct dlm_lkb *k = r ? dlm_lkb_find(&r->granted, from) : NULL;
	struct dlm_lkb *c = r ? dlm_lkb_find(&r->converting, from) : NULL;

	if (c && c->convid == m->reqid) {
		d->st.stale_messages++;			/* the same twice */
		return;
	}
	if (!k || k->phantom || k->reqid != m->gen || dlm_mode_covers(k->mode, m->mode)) {
		dlm_bad_msg(d, from, "converts what it does not hold, or to what it has, mode", m->mode);
		return;
	}
	r->alone = r->user == from.nodeid ? r->alone + 1 : 0;
	r->user = from.nodeid;
	if (dlm_move_wanted(d, r, k))
		dlm_move_start(d, r, k, m);
	else
		dlm_conv_enter(d, r, k, m);
}
