/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_res.c - the master's part: who holds a resource, who waits, who must be asked to make way.
 *
 * Invariants
 *  1. The waiting list is in order of arrival.  A grant goes to its head, or to a newcomer when it is empty, and only while nothing
 *     waits for conversion (dlm_conv.c): so a stream of compatible newcomers starves nobody, and NOQUEUE is refused when anybody waits.
 *  2. Nothing is granted unless this node runs (D5), the record is at both directory nodes (P3), and the mode goes with
 *     everything granted, phantoms included (D1, D6; DLM_PAST_PHANTOMS is the caller's own exception).
 *  3. Every holder that is in the way of a waiter or of a conversion has been sent a BAST that covers its mode (lkb->asked).
 *  4. A node has at most one entry per resource, so "who" finds it; reqid tells its present hold from an earlier one.
 */
#include <stdlib.h>

#include "dlm/dlm_internal.h"

struct dlm_lkb *dlm_lkb_new(struct cluster_node who, uint64_t reqid, uint8_t mode, uint64_t now_ns)
{
	struct dlm_lkb *k = dlm_alloc(sizeof(*k));

	k->who = who;
	k->reqid = reqid;
	k->mode = mode;
	k->since_ns = now_ns;
	return k;
}

void dlm_lkb_free(struct dlm_lkb *k)
{
	cds_list_del(&k->node);
	free(k->lvb);
	free(k->next);
	free(k);
}

void dlm_lkbs_free(struct cds_list_head *list)
{
	struct dlm_lkb *k, *tmp;

	cds_list_for_each_entry_safe(k, tmp, list, node)
		dlm_lkb_free(k);
}

struct dlm_lkb *dlm_lkb_find(struct cds_list_head *list, struct cluster_node who)
{
	struct dlm_lkb *k;

	cds_list_for_each_entry(k, list, node)
		if (node_eq(k->who, who))
			return k;
	return NULL;
}

/* Entries of a peer are counted against its limit. */
void dlm_res_count(struct dlm *d, struct cluster_node who, int by)
{
	int i = dlm_part_index(d, who);

	if (i >= 0)
		d->peer[i].locks += by;
}

static void lkb_drop(struct dlm *d, struct dlm_lkb *k)
{
	if (!k->phantom)
		dlm_res_count(d, k->who, -1);
	dlm_lkb_free(k);
}

struct dlm_res *dlm_res_find(struct dlm *d, const struct dlm_name *name)
{
	struct dlm_entry *e = dlm_table_find(&d->resources, name);

	return e ? container_of(e, struct dlm_res, hh) : NULL;
}

struct dlm_res *dlm_res_new(struct dlm *d, const struct dlm_name *name)
{
	struct dlm_res *r = dlm_alloc(sizeof(*r));

	r->name = *name;
	CDS_INIT_LIST_HEAD(&r->granted);
	CDS_INIT_LIST_HEAD(&r->converting);
	CDS_INIT_LIST_HEAD(&r->waiting);
	CDS_INIT_LIST_HEAD(&r->reports);
	dlm_table_add(&d->resources, &r->hh);
	dlm_touched(d, r);
	return r;
}

void dlm_res_free(struct dlm *d, struct dlm_res *r)
{
	dlm_lkbs_free(&r->granted);
	dlm_lkbs_free(&r->converting);
	dlm_lkbs_free(&r->waiting);
	dlm_lkbs_free(&r->reports);
	dlm_table_del(&d->resources, &r->hh);
	free(r);
}

/* About to tell dir1: what comes for it from there afterwards is too late (dlm_dir.c). */
void dlm_dir_removed(struct dlm *d, const struct dlm_res *r, uint32_t *ret_dir1)
{
	const struct cluster_node *to;
	uint32_t dir2;

	dlm_dirs(d, &r->name, ret_dir1, &dir2);
	to = cluster_view_find(&d->part, *ret_dir1);
	if (to) {
		struct dlm_peer *p = &d->peer[dlm_part_index(d, *to)];

		p->removed_gen = csv_max(p->removed_gen, r->gen);
	}
}

/* Tells the directory and forgets it. */
static void res_remove(struct dlm *d, struct dlm_res *r)
{
	struct dlm_msg m = { .type = DLM_M_REMOVE, .name = r->name, .gen = r->gen };
	uint32_t dir1;

	dlm_dir_removed(d, r, &dir1);
	dlm_res_free(d, r);
	dlm_send(d, dir1, &m);
}

static bool is_empty(struct dlm_res *r)
{
	return cds_list_empty(&r->granted) && cds_list_empty(&r->converting) && cds_list_empty(&r->waiting);
}

/* `but`: a holder that is not in its own way; NULL: none. */
bool dlm_res_grantable(const struct dlm *d, const struct dlm_res *r, enum dlm_mode mode, bool past_phantoms, const struct dlm_lkb *but)
{
	struct dlm_lkb *k;

	if (!r->recorded || !dlm_running(d))
		return false;
	dlm_each_holder(k, r)
		if (k != but && !dlm_compat(d, k->mode, mode) && !(k->phantom && past_phantoms))
			return false;
	return true;
}

/* Invariant 3 for one waiter or conversion. */
void dlm_res_ask(struct dlm *d, struct dlm_res *r, enum dlm_mode mode, const struct dlm_lkb *but)
{
	struct dlm_lkb *k;

	dlm_each_holder(k, r) {
		struct dlm_msg m = { .type = DLM_M_BAST, .name = r->name, .reqid = k->reqid };

		if (k == but || k->phantom || dlm_compat(d, k->mode, mode) || dlm_mode_covers(k->asked, mode))
			continue;
		k->asked = dlm_mode_join(k->asked, mode);
		m.mode = k->asked;
		d->st.basts++;
		r->st.basts++;
		r->asked_away = true;
		dlm_send(d, k->who.nodeid, &m);
	}
}

/* Statistics of a grant: who waited how long, whether it went from one node to another on demand. */
static void count_grant(struct dlm *d, struct dlm_res *r, const struct dlm_lkb *k)
{
	uint64_t waited = dlm_now_ns(d) - k->since_ns;

	d->st.grants++;
	r->st.grants++;
	if (!k->fresh) {
		r->st.waits++;
		r->wait_ns += waited;
		r->st.wait_ms_max = csv_max(r->st.wait_ms_max, waited / NS_PER_MS);
	}
	if (r->asked_away && r->last_holder && r->last_holder != k->who.nodeid) {
		r->st.bounces++;
		d->st.bounces++;
	}
	r->last_holder = k->who.nodeid;
	r->asked_away = false;
}

void dlm_res_grant(struct dlm *d, struct dlm_res *r, struct dlm_lkb *k)
{
	struct dlm_msg m = { .type = DLM_M_GRANT, .name = r->name, .flags = k->fresh ? DLM_F_NOW : 0 };

	cds_list_del(&k->node);
	if (k->want) {
		r->conv_seq++;
		k->mode = k->want;
		k->reqid = k->convid;
		k->want = DLM_NL;
		k->demoting = false;
	} else if (k->pr_welcome && cds_list_empty(&r->waiting) && cds_list_empty(&r->converting) &&
		   dlm_res_grantable(d, r, DLM_PR, false, NULL)) {
		k->mode = DLM_PR;
	}
	m.reqid = k->reqid;
	m.mode = k->mode;
	m.gen = k->fresh ? 0 : dlm_now_ns(d) - k->since_ns;
	cds_list_add_tail(&k->node, &r->granted);
	dlm_touched(d, r);
	count_grant(d, r, k);
	k->since_ns = dlm_now_ns(d);
	k->asked = DLM_NL;
	if (r->lvb_valid) {
		m.flags |= DLM_F_LVB;
		m.lvb_seq = r->lvb_seq;
		memcpy(m.lvb, r->lvb, DLM_LVB_LEN);
	}
	dlm_send(d, k->who.nodeid, &m);
}

void dlm_res_settle(struct dlm *d, struct dlm_res *r)
{
	struct dlm_lkb *k, *tmp;

	if (!dlm_running(d))
		return;
	if (!cds_list_empty(&r->converting))
		dlm_conv_settle(d, r);
	cds_list_for_each_entry_safe(k, tmp, &r->waiting, node) {
		if (!cds_list_empty(&r->converting) && !d->cfg.conv_last)
			break;
		if (dlm_res_grantable(d, r, k->mode, k->past_phantoms, NULL))
			dlm_res_grant(d, r, k);
		else if (!d->cfg.no_fifo)
			break;
	}
	cds_list_for_each_entry(k, &r->waiting, node)
		dlm_res_ask(d, r, k->mode, NULL);
	if (is_empty(r) && r->recorded)
		res_remove(d, r);
}

void dlm_res_refuse(struct dlm *d, struct dlm_res *r, struct cluster_node who, const struct dlm_msg *m, uint8_t flags)
{
	struct dlm_msg no = { .type = DLM_M_REFUSED, .name = m->name, .reqid = m->reqid, .flags = flags };

	r->st.refused++;
	dlm_send(d, who.nodeid, &no);
}

void dlm_res_request(struct dlm *d, struct dlm_res *r, struct cluster_node who, const struct dlm_msg *m, bool forwarded)
{
	struct dlm_lkb *k = dlm_lkb_find(&r->granted, who);
	bool now = (cds_list_empty(&r->waiting) || d->cfg.no_fifo) && (cds_list_empty(&r->converting) || d->cfg.conv_last) &&
		   dlm_res_grantable(d, r, m->mode, m->flags & DLM_F_PAST, NULL);
	int i = dlm_part_index(d, who);

	r->user = who.nodeid;
	r->alone = 0;
	/*
	 * It gave its hold up, forgot the lock and who is master, and asks again through the directory: that way may be the
	 * shorter one.  The request waits for the DOWN, which is coming on the direct way.
	 *
	 *	holder -DOWN----------------> master
	 *	holder -REQUEST-> dir1 -FORWARD-> master
	 */
	if (k && forwarded && m->reqid > k->reqid && !k->phantom && !k->next) {
		k->next = dlm_alloc(sizeof(*k->next));
		*k->next = *m;
		return;
	}
	if (k || dlm_lkb_find(&r->converting, who)) {
		dlm_bad_msg(d, who, "request for a lock that it holds, mode", k ? k->mode : DLM_NL);
		return;
	}
	k = dlm_lkb_find(&r->waiting, who);
	if (k) {
		if (k->reqid == m->reqid)
			d->st.stale_messages++;		/* the same twice */
		else
			dlm_bad_msg(d, who, "second request while one waits", m->reqid);
		return;
	}
	if (who.nodeid != d->self && d->peer[i].locks >= d->cfg.peer_locks_max) {
		dlm_res_refuse(d, r, who, m, DLM_F_FULL);
		dlm_res_settle(d, r);
		return;
	}
	if (!now && m->flags & DLM_F_NOQUEUE) {
		dlm_res_ask(d, r, m->mode, NULL);
		dlm_res_refuse(d, r, who, m, 0);
		dlm_res_settle(d, r);
		return;
	}
	k = dlm_lkb_new(who, m->reqid, m->mode, dlm_now_ns(d));
	k->past_phantoms = m->flags & DLM_F_PAST;
	k->fresh = now;
	k->pr_welcome = m->flags & DLM_F_PR && m->mode == DLM_CR;
	cds_list_add_tail(&k->node, &r->waiting);
	dlm_touched(d, r);
	dlm_res_count(d, who, 1);
	if (forwarded && !now) {
		struct dlm_msg q = { .type = DLM_M_QUEUED, .name = m->name, .reqid = m->reqid };

		dlm_send(d, who.nodeid, &q);		/* it does not know yet who is master, and may want to cancel */
	}
	dlm_res_settle(d, r);
}

static void count_hold(struct dlm *d, struct dlm_res *r, const struct dlm_lkb *k)
{
	uint64_t held = dlm_now_ns(d) - k->since_ns;

	r->st.holds++;
	r->hold_ns += held;
	r->st.hold_ms_max = csv_max(r->st.hold_ms_max, held / NS_PER_MS);
}

void dlm_res_down(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_res *r = dlm_res_find(d, &m->name);
	struct dlm_lkb *k = r ? dlm_lkb_find(&r->granted, from) : NULL;

	if (r && !k)
		k = dlm_lkb_find(&r->converting, from);
	if (!k || k->phantom || k->reqid != m->reqid) {
		d->st.stale_messages++;
		return;
	}
	if (k->want && (!k->demoting || m->mode != DLM_NL)) {
		dlm_bad_msg(d, from, "downgrade of a lock that converts, to mode", m->mode);
		return;
	}
	if (!dlm_mode_covers(k->mode, m->mode) || (m->flags & DLM_F_LVB && k->mode < DLM_PW)) {
		dlm_bad_msg(d, from, "downgrade to a mode that its own does not cover", m->mode);
		return;
	}
	if (m->flags & DLM_F_LVB) {
		memcpy(r->lvb, m->lvb, DLM_LVB_LEN);
		r->lvb_seq = m->lvb_seq;
		r->lvb_valid = true;
	}
	if (k->want) {
		r->conv_seq++;
		k->mode = DLM_NL;		/* demoted (D7): it goes on converting from there */
		k->demoting = false;
		dlm_touched(d, r);
		dlm_res_settle(d, r);
		return;
	}
	if (m->gen && from.nodeid != d->self)
		dlm_hold_measure(d, dlm_now_ns(d) - k->since_ns, m->gen);
	if (m->mode == DLM_NL)
		count_hold(d, r, k);
	k->mode = m->mode;
	k->asked = DLM_NL;
	k->since_ns = dlm_now_ns(d);
	if (m->mode == DLM_NL) {
		struct dlm_msg *next = k->next;

		k->next = NULL;
		lkb_drop(d, k);
		if (next) {
			dlm_res_request(d, r, from, next, true);	/* settles, and may remove r */
			free(next);
			return;
		}
	}
	dlm_res_settle(d, r);
}

void dlm_res_cancel(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_msg yes = { .type = DLM_M_CANCELLED, .name = m->name, .reqid = m->reqid };
	struct dlm_res *r = dlm_res_find(d, &m->name);
	struct dlm_lkb *k = r ? dlm_lkb_find(&r->waiting, from) : NULL;

	if (d->cfg.cancel_lost)
		return;
	if (r && !k)
		k = dlm_lkb_find(&r->converting, from);
	if (!k || (k->want ? k->convid : k->reqid) != m->reqid) {
		d->st.stale_messages++;			/* granted or refused meanwhile: that answer is on its way */
		return;
	}
	r->conv_seq++;
	if (k->want && k->mode != DLM_NL) {		/* a conversion: it holds what it held */
		k->want = DLM_NL;
		k->demoting = false;
		cds_list_del(&k->node);
		cds_list_add_tail(&k->node, &r->granted);
		dlm_touched(d, r);
	} else {
		lkb_drop(d, k);
	}
	dlm_send(d, from.nodeid, &yes);
	dlm_res_settle(d, r);
}

/* ---- the lost ------------------------------------------------------------------------------------------------------ */

void dlm_phantom_add(struct dlm *d, struct dlm_res *r, struct cluster_node who, enum dlm_mode mode)
{
	struct dlm_lkb *k;

	if (mode == DLM_NL || d->cfg.no_phantom)
		return;
	if (d->cfg.weak_phantom)
		mode = DLM_CR;
	k = dlm_lkb_new(who, 0, mode, dlm_now_ns(d));
	k->phantom = true;
	cds_list_add_tail(&k->node, &r->granted);
}

static bool phantom_falls(enum dlm_mode mode, enum dlm_proof proof)
{
	return proof == DLM_REPLAYED || (proof == DLM_FENCED && mode < DLM_PW);
}

void dlm_res_proof(struct dlm *d, struct cluster_node who, enum dlm_proof proof)
{
	struct dlm_res *r, *rtmp;
	struct dlm_lkb *k, *tmp;

	dlm_table_each(r, rtmp, &d->resources) {
		bool changed = false;

		cds_list_for_each_entry_safe(k, tmp, &r->granted, node) {
			if (!k->phantom || !node_eq(k->who, who) || !phantom_falls(k->mode, proof))
				continue;
			dlm_lkb_free(k);
			changed = true;
		}
		if (changed)
			dlm_res_settle(d, r);
	}
}

/* ---- end of a recovery ----------------------------------------------------------------------------------------------- */

/* Rule R7.  The value survives when somebody who held at least PR did, or when nobody who could write it is in doubt. */
static void finish_lvb(struct dlm *d, struct dlm_res *r, bool writer_in_doubt)
{
	struct dlm_lkb *k, *best = NULL;

	if (d->cfg.keep_lvb && !r->orphan)
		return;
	cds_list_for_each_entry(k, &r->reports, node)
		if (k->mode >= DLM_PR && k->lvb_valid && (!best || k->lvb_seq > best->lvb_seq))
			best = k;
	if (!r->orphan && !writer_in_doubt)
		return;
	r->lvb_valid = false;
	if (best) {
		memcpy(r->lvb, best->lvb, DLM_LVB_LEN);
		r->lvb_seq = best->lvb_seq;
		r->lvb_valid = true;
	}
}

/* Conversions are held locks for recovery; who still wants more asks again.  Demoted ones hold nothing. */
static void finish_converting(struct dlm_res *r)
{
	struct dlm_lkb *k, *tmp;

	cds_list_for_each_entry_safe(k, tmp, &r->converting, node) {
		if (k->mode == DLM_NL) {
			dlm_lkb_free(k);
			continue;
		}
		k->want = DLM_NL;
		k->demoting = false;
		cds_list_del(&k->node);
		cds_list_add_tail(&k->node, &r->granted);
	}
}

/* Lost nodes of the old list stay as phantoms; what the living say of themselves replaces what we thought of them. */
static bool finish_old_list(struct dlm *d, struct dlm_res *r)
{
	struct dlm_lkb *k, *tmp;
	bool in_doubt = false;

	cds_list_for_each_entry_safe(k, tmp, &r->granted, node) {
		struct dlm_lost *lost = dlm_lost_find(&d->past.lost, k->who);

		if (dlm_part_is(d, k->who)) {
			struct dlm_lkb *now = dlm_lkb_find(&r->reports, k->who);

			/* It has given some of PW/EX up, and with it perhaps written a value that never arrived. */
			if (k->mode >= DLM_PW && (!now || now->reqid != k->reqid || now->mode != k->mode))
				in_doubt = true;
			dlm_lkb_free(k);
			continue;
		}
		if (k->mode >= DLM_PW)
			in_doubt = true;
		k->phantom = true;
		k->asked = DLM_NL;
		if ((lost && phantom_falls(k->mode, lost->proof)) || d->cfg.no_phantom)
			dlm_lkb_free(k);
		else if (d->cfg.weak_phantom)
			k->mode = DLM_CR;
	}
	return in_doubt;
}

static void finish_inferred(struct dlm *d, struct dlm_res *r)
{
	uint32_t count[6] = { 0 };
	enum dlm_mode mode;
	struct dlm_lkb *k;

	cds_list_for_each_entry(k, &r->reports, node)
		count[k->mode]++;
	mode = dlm_mode_phantom(count);
	for (uint32_t i = 0; i < d->past.lost.n; i++)
		if (!phantom_falls(mode, d->past.lost.e[i].proof))
			dlm_phantom_add(d, r, d->past.lost.e[i].who, mode);
}

void dlm_res_finish(struct dlm *d, struct dlm_res *r)
{
	struct dlm_lkb *k, *tmp;
	bool in_doubt;

	finish_converting(r);
	in_doubt = finish_old_list(d, r);
	if (r->orphan)
		finish_inferred(d, r);
	finish_lvb(d, r, in_doubt);
	cds_list_for_each_entry_safe(k, tmp, &r->waiting, node)
		if (!d->cfg.no_purge || dlm_part_is(d, k->who))
			dlm_lkb_free(k);		/* who still wants it asks again */
	cds_list_for_each_entry_safe(k, tmp, &r->reports, node) {
		free(k->lvb);
		k->lvb = NULL;
		k->asked = DLM_NL;
		cds_list_del(&k->node);
		cds_list_add_tail(&k->node, &r->granted);
		dlm_res_count(d, k->who, 1);
	}
	r->orphan = r->asked_away = false;
	r->last_holder = r->user = r->alone = 0;
	r->recorded = true;
	r->gen = 0;
	dlm_touched(d, r);
}
