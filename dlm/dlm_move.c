/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_move.c - a resource goes to the node that is its only user, so that using it costs no messages any more.
 *
 * It goes when that user, U, asks for a conversion: U is busy then, gives nothing up and forgets nothing before it is answered, so
 * what M, the master, knows of U is true, and U's one message on the way can be a CANCEL.
 *
 *	U			M			dir1			dir2
 *	CONVERT ------------->	forgets the resource
 *				MOVE(gen, value) ---->	new record: U
 *				(remembers U)		RECORD ------------->	copy
 *	<------------------------------------------------------------- MASTER_YOU, MOVED
 *	is master, answers itself
 *	MOVED -------------->	forgets U
 *
 * Invariants
 *  1. Only M grants before MOVE, nobody until MASTER_YOU, only U from then on: so never two masters.
 *  2. P3 holds: U hears of it when both directory nodes have the record.
 *  3. At every moment somebody alive besides U knows that U may hold the name: M by its list, then M by its note in dir_old (until
 *     MOVED), then dir1 and dir2.  So when U is lost on the way a phantom stands for it: the note makes it a "name of
 *     a lost master" (dlm_recover.c), and M and U lost together leave it to the records, which name one of the two.
 *
 * What reaches M for the name meanwhile: a REQUEST gets RETRY (its sender asks dir1), a FORWARD goes BACK (behind MOVE, so dir1
 * decides anew), a CANCEL of U is dropped: U remembers, and looks when MASTER_YOU comes.  What reaches U too early it keeps.
 *
 * What a view change does: U has its lock and its conversion as before; it reports the lock, dir1 of the new view takes the name over
 * if U has not become master.  M's note counts as an older directory.
 */
#include <errno.h>
#include <stdlib.h>

#include "dlm/dlm_internal.h"

#define MOVE_AFTER 2u		/* conversions in a row by the only user */

bool dlm_move_wanted(struct dlm *d, struct dlm_res *r, const struct dlm_lkb *k)
{
	return k->who.nodeid != d->self && r->alone >= MOVE_AFTER && r->recorded && dlm_running(d) &&
	       cds_list_empty(&r->waiting) && cds_list_empty(&r->converting) && r->granted.next == &k->node &&
	       r->granted.prev == &k->node;
}

static void note_del(struct dlm *d, const struct dlm_name *name, struct cluster_node to)
{
	struct dlm_rec *rec = dlm_rec_find(&d->dir_old, name), **at, *head = rec;

	for (at = &rec; *at && !node_eq((*at)->master, to); at = &(*at)->also)
		;
	if (!*at)
		return;
	if (*at == head && !head->also) {
		dlm_rec_del(&d->dir_old, head);
	} else if (*at == head) {		/* the head carries the hash entry: the next one's content takes its place */
		struct dlm_rec *gone = head->also;

		head->master = gone->master;
		head->gen = gone->gen;
		head->also = gone->also;
		free(gone);
	} else {
		struct dlm_rec *gone = *at;

		*at = gone->also;
		free(gone);
	}
}

void dlm_move_start(struct dlm *d, struct dlm_res *r, struct dlm_lkb *k, const struct dlm_msg *conv)
{
	struct dlm_msg m = { .type = DLM_M_MOVE, .name = r->name, .reqid = conv->reqid, .gen = r->gen, .node = k->who.nodeid };
	uint32_t dir1;

	if (r->lvb_valid) {
		m.flags = DLM_F_LVB;
		m.lvb_seq = r->lvb_seq;
		memcpy(m.lvb, r->lvb, DLM_LVB_LEN);
	}
	d->st.moves++;
	note_del(d, &r->name, k->who);
	if (!d->cfg.move_unrecorded)
		dlm_rec_add(&d->dir_old, &r->name, k->who, 0);
	dlm_dir_removed(d, r, &dir1);
	dlm_res_count(d, k->who, -1);
	dlm_res_free(d, r);
	dlm_send(d, dir1, &m);
}

void dlm_move_arrive(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_client *c = dlm_client_find(d, &m->name);
	struct dlm_msg done = { .type = DLM_M_MOVED, .name = m->name };
	struct dlm_msg conv = { .type = DLM_M_CONVERT, .name = m->name };
	struct dlm_res *r = dlm_res_find(d, &m->name);
	struct dlm_lkb *k;

	if (r || !c || !c->converting || c->state != DLM_C_MASTER || c->convid != m->reqid || node_eq(c->master, d->me)) {
		dlm_bad_msg(d, from, "moves to us what we do not convert, request", m->reqid);
		return;
	}
	dlm_send(d, c->master.nodeid, &done);
	c->master = d->me;
	r = dlm_res_new(d, &m->name);
	r->gen = m->gen;
	r->recorded = true;
	r->lvb_valid = m->flags & DLM_F_LVB;
	if (r->lvb_valid) {
		r->lvb_seq = m->lvb_seq;
		memcpy(r->lvb, m->lvb, DLM_LVB_LEN);
	}
	k = dlm_lkb_new(d->me, c->reqid, c->l->granted, dlm_now_ns(d));
	cds_list_add_tail(&k->node, &r->granted);
	dlm_res_count(d, d->me, 1);
	r->user = r->last_holder = d->self;
	if (c->cancel) {
		dlm_client_finish(d, c, c->deadlock ? -EDEADLK : -ECANCELED);
	} else {
		conv.reqid = c->convid;
		conv.gen = c->reqid;
		conv.mode = c->l->wanted;
		conv.flags = dlm_wire_flags(c->flags);
		dlm_conv_enter(d, r, k, &conv);
	}
	dlm_dir_take_early(d, &m->name, false);
}

void dlm_move_done(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	note_del(d, &m->name, from);
}
