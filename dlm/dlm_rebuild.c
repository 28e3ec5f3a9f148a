/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_rebuild.c - rounds 2 to 4 of a recovery (the states REBUILD, STRAY and RESOLVE of dlm_recover.c): from old tables and the
 * holders' reports to a directory in which every name has one master that knows all holders.
 *
 *	REBUILD	master -REG-> dir1, dir2		old directory node -LOSTREC-> dir1		holder -REPORT-> its master
 *	STRAY	whoever has a report without a living master (its own, or one that was sent to it in error) -STRAY-> dir1
 *	RESOLVE	dir1: a master has registered: -FWD-> it.  None: dir1 takes it over, -NEWREC-> dir2
 *		the master of a report that came by dir1 -ADOPT-> holder
 *
 * Names go in lists of up to 32 KiB a message; the mark that ends a round comes behind them (per-pair FIFO).
 */
#include <stdlib.h>

#include "dlm/dlm_internal.h"

struct dlm_stray { struct cds_list_head node; struct dlm_msg m; };

#define ROUND_OF_STATE(s) ((uint8_t)((s) - DLM_S_REBUILD + 2))

/* ---- lists of names ---------------------------------------------------------------------------------------------------- */

static void batch_flush(struct dlm *d, uint32_t i)
{
	struct csv_cursor *c = &d->batch[i].cur;

	if (!d->batch[i].type)
		return;
	dlm_header_finish(c);
	d->batch[i].type = 0;
	dlm_send_raw(d, d->part.m[i].nodeid, d->batch[i].buf, csv_cur_used(c));
}

static void batch_put(struct dlm *d, uint32_t to, const struct dlm_msg *m)
{
	const struct cluster_node *who = cluster_view_find(&d->part, to);
	uint32_t i;

	if (!who)
		return;			/* dir2 of a single participant */
	i = who - d->part.m;
	if (d->batch[i].type && (d->batch[i].type != m->type || csv_cur_left(&d->batch[i].cur) < DLM_ENTRY_BYTES_MAX))
		batch_flush(d, i);
	if (!d->batch[i].type) {
		if (!d->batch[i].buf)
			d->batch[i].buf = dlm_alloc(DLM_LIST_BYTES);
		csv_cursor_init(&d->batch[i].cur, d->batch[i].buf, DLM_LIST_BYTES);
		dlm_header_encode(&d->batch[i].cur, m->type, 0, d->view.ring);
		d->batch[i].type = m->type;
	}
	dlm_body_encode(&d->batch[i].cur, m);
}

static void batches_drop(struct dlm *d)
{
	for (uint32_t i = 0; i < CLUSTER_NODES_MAX; i++) {
		free(d->batch[i].buf);
		d->batch[i].buf = NULL;
		d->batch[i].type = 0;
	}
}

/* Next round: everything of this one goes before the mark (per-pair FIFO). */
void dlm_rebuild_end_round(struct dlm *d)
{
	uint8_t buf[DLM_HEADER_BYTES];
	struct csv_cursor c;

	csv_cursor_init(&c, buf, sizeof(buf));
	dlm_header_encode(&c, DLM_M_END, ROUND_OF_STATE(d->state), d->view.ring);
	dlm_header_finish(&c);
	for (uint32_t i = 0; i < d->part.n; i++) {
		batch_flush(d, i);
		dlm_send_raw(d, d->part.m[i].nodeid, buf, sizeof(buf));
	}
}

static void orphan_free(struct dlm *d, struct dlm_orphan *o)
{
	dlm_lkbs_free(&o->reports);
	dlm_table_del(&d->orphans, &o->hh);
	free(o);
}

void dlm_rebuild_drop(struct dlm *d)
{
	struct dlm_orphan *o, *otmp;
	struct dlm_stray *s, *stmp;
	struct dlm_res *r, *rtmp;

	dlm_table_each(o, otmp, &d->orphans)
		orphan_free(d, o);
	cds_list_for_each_entry_safe(s, stmp, &d->strays, node) {
		cds_list_del(&s->node);
		free(s);
	}
	batches_drop(d);
	if (d->state < DLM_S_REBUILD || d->state >= DLM_S_READY)
		return;				/* nothing is reported yet; what was is granted */
	dlm_table_each(r, rtmp, &d->resources) {
		dlm_lkbs_free(&r->reports);
		if (r->orphan)
			dlm_res_free(d, r);
	}
}

/* ---- round 2: register and report ------------------------------------------------------------------------------------------- */

static void stray_add(struct dlm *d, const struct dlm_msg *m, uint32_t who)
{
	struct dlm_stray *s = dlm_alloc(sizeof(*s));

	s->m = *m;
	s->m.type = DLM_M_STRAY;
	s->m.node = who;
	cds_list_add_tail(&s->node, &d->strays);
}

static void report_locks(struct dlm *d)
{
	struct dlm_client *c, *tmp;
	struct dlm_owed *o, *otmp;

	/* What we gave up without telling is in these reports, or in their absence. */
	cds_list_for_each_entry_safe(o, otmp, &d->owed, node) {
		cds_list_del(&o->node);
		free(o);
	}
	dlm_table_each(c, tmp, &d->clients) {
		struct dlm_msg m = { .type = DLM_M_REPORT, .name = c->name, .reqid = c->reqid, .mode = c->l->granted };

		if (c->l->granted == DLM_NL)
			continue;
		if (c->lvb_valid && c->l->granted >= DLM_PR) {
			m.flags = DLM_F_LVB;
			m.lvb_seq = c->lvb_seq;
			memcpy(m.lvb, c->lvb, DLM_LVB_LEN);
		}
		if (dlm_part_is(d, c->master))
			batch_put(d, c->master.nodeid, &m);
		else
			stray_add(d, &m, d->self);
	}
}

void dlm_rebuild_start(struct dlm *d)
{
	struct dlm_res *r, *rtmp;
	struct dlm_rec *rec, *tmp;
	uint32_t dir1, dir2;

	d->state = DLM_S_REBUILD;
	dlm_table_each(r, rtmp, &d->resources) {
		struct dlm_msg m = { .type = DLM_M_REG, .name = r->name };

		dlm_dirs(d, &r->name, &dir1, &dir2);
		batch_put(d, dir1, &m);
		batch_put(d, dir2, &m);
	}
	dlm_table_each(rec, tmp, &d->dir_old) {
		struct dlm_msg m = { .type = DLM_M_LOSTREC, .name = rec->name };
		const struct dlm_rec *o;

		for (o = rec; o && dlm_part_is(d, o->master); o = o->also)
			;
		if (!o)
			continue;
		dlm_dirs(d, &rec->name, &dir1, &dir2);
		batch_put(d, dir1, &m);
	}
	report_locks(d);
	dlm_rebuild_end_round(d);
}

static struct dlm_orphan *orphan_get(struct dlm *d, const struct dlm_name *name)
{
	struct dlm_entry *e = dlm_table_find(&d->orphans, name);
	struct dlm_orphan *o;

	if (e)
		return container_of(e, struct dlm_orphan, hh);
	o = dlm_alloc(sizeof(*o));
	o->name = *name;
	CDS_INIT_LIST_HEAD(&o->reports);
	dlm_table_add(&d->orphans, &o->hh);
	return o;
}

static void report_add(struct dlm *d, struct cds_list_head *list, struct cluster_node from, struct cluster_node who,
		       const struct dlm_msg *m)
{
	struct dlm_lkb *k;

	cds_list_for_each_entry(k, list, node) {
		if (node_eq(k->who, who)) {
			dlm_bad_msg(d, from, "reports a lock twice", m->reqid);
			return;
		}
		if (!dlm_compat(d, k->mode, m->mode)) {
			dlm_bad_msg(d, from, "reports a lock that conflicts with another node's, mode", m->mode);
			return;
		}
	}
	k = dlm_lkb_new(who, m->reqid, m->mode, dlm_now_ns(d));
	if (m->flags & DLM_F_LVB) {
		k->lvb = dlm_alloc(DLM_LVB_LEN);
		memcpy(k->lvb, m->lvb, DLM_LVB_LEN);
		k->lvb_seq = m->lvb_seq;
		k->lvb_valid = true;
	}
	cds_list_add_tail(&k->node, list);
}

static void on_reg(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	uint32_t dir1, dir2;

	dlm_dirs(d, &m->name, &dir1, &dir2);
	if (dir1 != d->self && dir2 != d->self) {
		dlm_bad_msg(d, from, "registers at a node that is no directory node of the name", dir1);
	} else if (dlm_rec_find(&d->dir, &m->name)) {
		dlm_bad_msg(d, from, "registers a name that another master has registered", m->name.len);
	} else {
		dlm_rec_add(&d->dir, &m->name, from, 0);
		if (dir1 == d->self)
			dlm_dir_count(d, from, 1);
	}
}

static void on_report(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_res *r = dlm_res_find(d, &m->name);

	if (r)
		report_add(d, &r->reports, from, from, m);
	else
		stray_add(d, m, from.nodeid);	/* it thinks we took it over in a recovery that we never finished */
}

/* ---- rounds 3 and 4: what has no master ---------------------------------------------------------------------------------------- */

void dlm_rebuild_stray(struct dlm *d)
{
	struct dlm_stray *s, *tmp;
	uint32_t dir1, dir2;

	d->state = DLM_S_STRAY;
	cds_list_for_each_entry_safe(s, tmp, &d->strays, node) {
		dlm_dirs(d, &s->m.name, &dir1, &dir2);
		batch_put(d, dir1, &s->m);
		cds_list_del(&s->node);
		free(s);
	}
	dlm_rebuild_end_round(d);
}

static bool anybody_unproven(const struct dlm_lost_list *l)
{
	for (uint32_t i = 0; i < l->n; i++)
		if (l->e[i].proof != DLM_REPLAYED)
			return true;
	return false;
}

static void pass_on(struct dlm *d, struct dlm_orphan *o, uint32_t master)
{
	struct dlm_lkb *k;

	cds_list_for_each_entry(k, &o->reports, node) {
		struct dlm_msg m = { .type = DLM_M_FWD, .name = o->name, .reqid = k->reqid, .mode = k->mode,
				     .node = k->who.nodeid };

		if (k->lvb_valid) {
			m.flags = DLM_F_LVB;
			m.lvb_seq = k->lvb_seq;
			memcpy(m.lvb, k->lvb, DLM_LVB_LEN);
		}
		batch_put(d, master, &m);
	}
}

static void adopt(struct dlm *d, const struct dlm_name *name, struct cluster_node holder, uint64_t reqid)
{
	struct dlm_msg m = { .type = DLM_M_ADOPT, .name = *name, .reqid = reqid };

	batch_put(d, holder.nodeid, &m);
}

static void take_over(struct dlm *d, struct dlm_orphan *o)
{
	struct dlm_res *r = dlm_res_new(d, &o->name);
	struct dlm_msg m = { .type = DLM_M_NEWREC, .name = o->name };
	uint32_t dir1, dir2;

	dlm_dirs(d, &o->name, &dir1, &dir2);
	r->orphan = true;
	cds_list_splice(&o->reports, &r->reports);
	CDS_INIT_LIST_HEAD(&o->reports);
	dlm_rec_add(&d->dir, &o->name, d->me, 0);
	dlm_dir_count(d, d->me, 1);
	batch_put(d, dir2, &m);
}

/* After all NEWRECs: a list is of one type, to and fro between two would make a message of each entry. */
static void adopt_orphans(struct dlm *d)
{
	struct dlm_res *r, *tmp;
	struct dlm_lkb *k;

	dlm_table_each(r, tmp, &d->resources) {
		if (!r->orphan)
			continue;
		cds_list_for_each_entry(k, &r->reports, node)
			adopt(d, &r->name, k->who, k->reqid);
	}
}

void dlm_rebuild_resolve(struct dlm *d)
{
	bool unproven = anybody_unproven(&d->agreed->lost);
	struct dlm_orphan *o, *tmp;

	d->state = DLM_S_RESOLVE;
	dlm_table_each(o, tmp, &d->orphans) {
		struct dlm_rec *rec = dlm_rec_find(&d->dir, &o->name);

		if (rec)
			pass_on(d, o, rec->master.nodeid);
		else if ((unproven || !cds_list_empty(&o->reports)) && !d->cfg.no_remaster)
			take_over(d, o);
		orphan_free(d, o);
	}
	adopt_orphans(d);
	dlm_rebuild_end_round(d);
}

static void on_fwd(struct dlm *d, struct cluster_node from, struct cluster_node who, const struct dlm_msg *m)
{
	struct dlm_res *r = dlm_res_find(d, &m->name);

	if (!r || r->orphan) {
		dlm_bad_msg(d, from, "passes on a lock of a resource that is not ours", m->node);
		return;
	}
	report_add(d, &r->reports, from, who, m);
	adopt(d, &r->name, who, m->reqid);
}

/* A list has come in: what it called for goes before our next mark, and that may be sent already. */
void dlm_rebuild_answers(struct dlm *d)
{
	for (uint32_t i = 0; i < d->part.n; i++)
		if (d->batch[i].type == DLM_M_ADOPT)
			batch_flush(d, i);
}

/* ---- one entry of a list that came in ------------------------------------------------------------------------------------------ */

void dlm_rebuild_entry(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	const struct cluster_node *who = cluster_view_find(&d->part, m->node);
	uint32_t dir1, dir2;

	switch (m->type) {
	case DLM_M_REG:
		on_reg(d, from, m);
		return;
	case DLM_M_REPORT:
		on_report(d, from, m);
		return;
	case DLM_M_ADOPT:
		dlm_client_adopt(d, from, m);
		return;
	}
	dlm_dirs(d, &m->name, &dir1, &dir2);
	switch (m->type) {
	case DLM_M_LOSTREC:
		if (dir1 == d->self) {
			orphan_get(d, &m->name);
			return;
		}
		break;
	case DLM_M_STRAY:
		if (dir1 == d->self && who) {
			report_add(d, &orphan_get(d, &m->name)->reports, from, *who, m);
			return;
		}
		break;
	case DLM_M_FWD:
		if (dir1 == from.nodeid && who) {
			on_fwd(d, from, *who, m);
			return;
		}
		break;
	case DLM_M_NEWREC:
		if (dir1 == from.nodeid && dir2 == d->self && !dlm_rec_find(&d->dir, &m->name)) {
			dlm_rec_add(&d->dir, &m->name, from, 0);
			return;
		}
		break;
	}
	dlm_bad_msg(d, from, "recovery message to or from the wrong node, type", m->type);
}
