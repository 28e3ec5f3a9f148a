/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_dir.c - the directory: which node is master of a name.
 *
 * All about a record is decided by dir1 in one order (P2); dir2 only copies.
 *
 *	first lock			C -> dir1 REQUEST, dir1 -> dir2 RECORD, dir2 -> C MASTER_YOU
 *	later ones			D -> dir1 REQUEST, dir1 -> C FORWARD, C -> D GRANT (or QUEUED)
 *	last lock gone			C -> dir1 REMOVE(gen), dir1 -> dir2 UNRECORD(gen)
 *	only user is D			C -> dir1 MOVE(gen), dir1 -> dir2 RECORD, dir2 -> D MASTER_YOU (dlm_move.c)
 *
 * Two messages to C travel on different ways, so C can get a FORWARD for a name of which it is no master:
 *
 *	too late: C has sent REMOVE, dir1 had not seen it.	C sends it BACK to dir1: behind the REMOVE, so dir1 decides anew.
 *	too early: C's MASTER_YOU is still on its way from dir2.	C keeps it until that comes.
 *
 * C tells them apart by the generation: what it has removed itself is not above the highest generation it has removed at that
 * dir1 in this view.  (A too early one may be taken for a late one, when a newer record went first: then it goes BACK, and
 * comes again.  The other way round does not happen.)
 *
 * Rule R1: a name without a record proves "unlocked" - unless both its directory nodes of an earlier view are gone (struct
 * dlm_amnesia).  Then dir1 becomes its master itself, with EX phantoms of all suspects.
 */
#include <errno.h>
#include <stdlib.h>

#include "dlm/dlm_internal.h"
#include "utils/base/cursor.h"
#include "utils/base/prng.h"

/* ---- ranking ------------------------------------------------------------------------------------------------------- */

static uint64_t weight(uint64_t hash, uint32_t nodeid)
{
	uint64_t x = hash ^ (nodeid * 0x9e3779b97f4a7c15ull);

	return csv_splitmix64(&x);
}

void dlm_rank(const struct dlm_name *name, const struct cluster_node *m, uint32_t n, const struct cluster_node **ret_first,
	      const struct cluster_node **ret_second)
{
	const struct cluster_node *first = NULL, *second = NULL;
	uint64_t hash = dlm_name_hash(name), w1 = 0, w2 = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t w = weight(hash, m[i].nodeid);

		if (!first || w > w1) {
			second = first;
			w2 = w1;
			first = &m[i];
			w1 = w;
		} else if (!second || w > w2) {
			second = &m[i];
			w2 = w;
		}
	}
	*ret_first = first;
	*ret_second = second;
}

void dlm_dirs(const struct dlm *d, const struct dlm_name *name, uint32_t *ret_dir1, uint32_t *ret_dir2)
{
	const struct cluster_node *first, *second;

	dlm_rank(name, d->part.m, d->part.n, &first, &second);
	*ret_dir1 = first ? first->nodeid : 0;
	*ret_dir2 = second && !d->cfg.one_directory ? second->nodeid : 0;
}

static bool i_am_dir1(const struct dlm *d, const struct dlm_name *name)
{
	uint32_t dir1, dir2;

	dlm_dirs(d, name, &dir1, &dir2);
	return dir1 == d->self;
}

/* ---- records ------------------------------------------------------------------------------------------------------- */

struct dlm_rec *dlm_rec_find(const struct dlm_table *table, const struct dlm_name *name)
{
	struct dlm_entry *e = dlm_table_find(table, name);

	return e ? container_of(e, struct dlm_rec, hh) : NULL;
}

struct dlm_rec *dlm_rec_add(struct dlm_table *table, const struct dlm_name *name, struct cluster_node master, uint64_t gen)
{
	struct dlm_rec *r = dlm_alloc(sizeof(*r)), *old = dlm_rec_find(table, name);

	r->name = *name;
	r->master = master;
	r->gen = gen;
	if (old) {
		r->also = old->also;
		old->also = r;
	} else {
		dlm_table_add(table, &r->hh);
	}
	return r;
}

static void rec_free(struct dlm_rec *r)
{
	while (r) {
		struct dlm_rec *next = r->also;

		free(r);
		r = next;
	}
}

void dlm_rec_del(struct dlm_table *table, struct dlm_rec *r)
{
	dlm_table_del(table, &r->hh);
	rec_free(r);
}

void dlm_rec_clear(struct dlm_table *table)
{
	struct dlm_rec *r, *tmp;

	dlm_table_each(r, tmp, table)
		rec_free(r);
	dlm_table_clear(table);
}

/* Of dir1: records of a master are counted against its limit. */
void dlm_dir_count(struct dlm *d, struct cluster_node master, int by)
{
	int i = dlm_part_index(d, master);

	if (i >= 0)
		d->peer[i].records += by;
}

/* ---- dir1 ---------------------------------------------------------------------------------------------------------- */

/* Were both directory nodes of this name lost? */
static bool amnesia_applies(const struct dlm_name *name, const struct dlm_amnesia *a)
{
	const struct cluster_node *first, *second;

	if (!a->n)
		return true;
	dlm_rank(name, a->m, a->n, &first, &second);
	return a->gone & 1ull << (first - a->m) && (!second || a->gone & 1ull << (second - a->m));
}

static void suspect_add(struct dlm *d, struct dlm_res **r, const struct dlm_name *name, struct cluster_node who)
{
	struct dlm_lost *lost = dlm_lost_find(&d->past.lost, who);
	struct dlm_lkb *k;

	if (!lost || lost->proof == DLM_REPLAYED || d->cfg.no_phantom)
		return;
	if (!*r)
		*r = dlm_res_new(d, name);
	cds_list_for_each_entry(k, &(*r)->granted, node)
		if (node_eq(k->who, who))
			return;
	dlm_phantom_add(d, *r, who, DLM_EX);
}

/* A resource of our own with phantoms when the name is under suspicion, else NULL. */
static struct dlm_res *suspicious(struct dlm *d, const struct dlm_name *name)
{
	struct dlm_res *r = NULL;

	for (uint32_t i = 0; i < d->past.n_amnesia; i++) {
		const struct dlm_amnesia *a = &d->past.amnesia[i];

		if (!amnesia_applies(name, a))
			continue;
		for (uint32_t j = 0; j < a->n_suspect && a->n_suspect <= CLUSTER_NODES_MAX; j++)
			suspect_add(d, &r, name, a->suspect[j]);
		for (uint32_t j = 0; j < d->past.lost.n && a->n_suspect > CLUSTER_NODES_MAX; j++)
			suspect_add(d, &r, name, d->past.lost.e[j].who);
	}
	return r;
}

static void forward(struct dlm *d, const struct dlm_rec *rec, struct cluster_node who, const struct dlm_msg *m)
{
	struct dlm_msg f = { .type = DLM_M_FORWARD, .name = m->name, .reqid = m->reqid, .mode = m->mode, .node = who.nodeid,
			     .flags = m->flags & (DLM_F_NOQUEUE | DLM_F_PAST | DLM_F_PR), .gen = rec->gen };

	dlm_send(d, rec->master.nodeid, &f);
}

void dlm_dir_ask(struct dlm *d, struct cluster_node who, const struct dlm_msg *m)
{
	struct dlm_rec *rec = dlm_rec_find(&d->dir, &m->name);
	struct dlm_msg tell = { .name = m->name, .reqid = m->reqid };
	struct cluster_node master = who;
	uint32_t dir1, dir2;
	struct dlm_res *r;
	int i;

	dlm_dirs(d, &m->name, &dir1, &dir2);
	if (dir1 != d->self) {
		dlm_bad_msg(d, who, "asks the wrong directory node", dir1);
		return;
	}
	if (rec) {
		forward(d, rec, who, m);
		return;
	}
	r = suspicious(d, &m->name);
	if (r)
		master = d->me;
	i = dlm_part_index(d, master);
	if (who.nodeid != d->self && !r && d->peer[i].records >= d->cfg.peer_locks_max) {
		tell.type = DLM_M_REFUSED;
		tell.flags = DLM_F_FULL;
		dlm_send(d, who.nodeid, &tell);
		return;
	}
	rec = dlm_rec_add(&d->dir, &m->name, master, ++d->next_gen);
	dlm_dir_count(d, master, 1);
	tell.gen = rec->gen;
	tell.node = master.nodeid;
	if (r) {
		r->gen = rec->gen;
		r->recorded = !dir2;
		tell.reqid = 0;
		forward(d, rec, who, m);
		if (!dir2)
			return;
	}
	tell.type = dir2 ? DLM_M_RECORD : DLM_M_MASTER_YOU;
	if (!dir2)
		tell.node = 0;
	dlm_send(d, dir2 ? dir2 : who.nodeid, &tell);
}

void dlm_dir_remove(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_rec *rec = dlm_rec_find(&d->dir, &m->name);
	struct dlm_msg u = { .type = DLM_M_UNRECORD, .name = m->name, .gen = m->gen };
	uint32_t dir1, dir2;

	dlm_dirs(d, &m->name, &dir1, &dir2);
	if (dir1 != d->self) {
		dlm_bad_msg(d, from, "removes a record at the wrong directory node", dir1);
		return;
	}
	if (!rec || rec->gen != m->gen || !node_eq(rec->master, from)) {
		d->st.stale_messages++;
		return;
	}
	dlm_dir_count(d, rec->master, -1);
	dlm_rec_del(&d->dir, rec);
	if (dir2)
		dlm_send(d, dir2, &u);
}

/* The master gives the resource to its only user: a record as new as for a first lock, and the value goes along. */
void dlm_dir_move(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	const struct cluster_node *to = cluster_view_find(&d->part, m->node);
	struct dlm_rec *rec = dlm_rec_find(&d->dir, &m->name);
	struct dlm_msg tell = *m;
	uint32_t dir1, dir2;

	dlm_dirs(d, &m->name, &dir1, &dir2);
	if (dir1 != d->self || !to || !rec || rec->gen != m->gen || !node_eq(rec->master, from)) {
		dlm_bad_msg(d, from, "moves what is not its own here, to node", m->node);
		return;
	}
	dlm_dir_count(d, from, -1);
	rec->master = *to;
	rec->gen = ++d->next_gen;
	dlm_dir_count(d, rec->master, 1);
	tell.gen = rec->gen;
	tell.flags |= DLM_F_MOVED;
	tell.type = dir2 ? DLM_M_RECORD : DLM_M_MASTER_YOU;
	dlm_send(d, dir2 ? dir2 : to->nodeid, &tell);
}

/* ---- dir2 ---------------------------------------------------------------------------------------------------------- */

void dlm_dir_record(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	const struct cluster_node *master = cluster_view_find(&d->part, m->node);
	struct dlm_msg you = *m;
	struct dlm_rec *rec = dlm_rec_find(&d->dir, &m->name);
	uint32_t dir1, dir2;

	dlm_dirs(d, &m->name, &dir1, &dir2);
	if (dir1 != from.nodeid || dir2 != d->self || !master) {
		dlm_bad_msg(d, from, "record from no directory node, or of no member", m->node);
		return;
	}
	if (rec)
		dlm_rec_del(&d->dir, rec);
	dlm_rec_add(&d->dir, &m->name, *master, m->gen);
	you.type = DLM_M_MASTER_YOU;
	you.node = 0;
	dlm_send(d, master->nodeid, &you);
}

void dlm_dir_unrecord(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_rec *rec = dlm_rec_find(&d->dir, &m->name);
	uint32_t dir1, dir2;

	dlm_dirs(d, &m->name, &dir1, &dir2);
	if (dir1 != from.nodeid || dir2 != d->self) {
		dlm_bad_msg(d, from, "removal of a record from no directory node", dir1);
		return;
	}
	if (rec && rec->gen == m->gen)
		dlm_rec_del(&d->dir, rec);
	else
		d->st.stale_messages++;
}

/* ---- the master to be ------------------------------------------------------------------------------------------------ */

void dlm_dir_take_early(struct dlm *d, const struct dlm_name *name, bool back)
{
	struct dlm_held *h, *tmp;

	cds_list_for_each_entry_safe(h, tmp, &d->early, node) {
		struct dlm_header hd;
		struct csv_cursor c;
		struct dlm_msg m;

		if (dlm_header_decode(h->buf, h->len, &c, &hd) || dlm_body_decode(&c, hd.type, &m) ||
		    memcmp(&m.name, name, sizeof(*name)))
			continue;
		cds_list_del(&h->node);
		if (back) {
			m.type = DLM_M_BACK;
			dlm_send(d, h->from.nodeid, &m);
		} else {
			dlm_dir_forward(d, h->from, &m);
		}
		dlm_held_free(d, h);
	}
}

void dlm_dir_early_done(struct dlm *d, const struct dlm_name *name)
{
	if (!cds_list_empty(&d->early))
		dlm_dir_take_early(d, name, true);
}

void dlm_dir_master_you(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_client *c = dlm_client_find(d, &m->name);
	struct dlm_res *r = dlm_res_find(d, &m->name);
	uint32_t dir1, dir2;

	dlm_dirs(d, &m->name, &dir1, &dir2);
	if (from.nodeid != (dir2 ? dir2 : dir1)) {
		dlm_bad_msg(d, from, "makes us master and is no directory node of the name", dir2);
		return;
	}
	if (m->flags & DLM_F_MOVED) {
		dlm_move_arrive(d, from, m);
		return;
	}
	if (r) {
		if (r->recorded || r->gen != m->gen) {
			dlm_bad_msg(d, from, "makes us master of what we have", m->gen);
			return;
		}
		r->recorded = true;
		dlm_res_settle(d, r);
		return;
	}
	if (!c || c->state != DLM_C_DIR || c->reqid != m->reqid) {
		struct dlm_msg no = { .type = DLM_M_REMOVE, .name = m->name, .gen = m->gen };
		const struct cluster_node *to = cluster_view_find(&d->part, dir1);
		struct dlm_peer *p = to ? &d->peer[dlm_part_index(d, *to)] : NULL;

		/* The record must not stay: it would send everybody to us, and we send them back. */
		dlm_bad_msg(d, from, "makes us master of what we did not ask for", m->reqid);
		if (p) {
			p->removed_gen = csv_max(p->removed_gen, m->gen);
			dlm_send(d, dir1, &no);
		}
		return;
	}
	r = dlm_res_new(d, &m->name);
	r->gen = m->gen;
	r->recorded = true;
	c->master = d->me;
	c->state = DLM_C_MASTER;
	if (!c->cancel) {
		struct dlm_msg own = { .type = DLM_M_REQUEST, .name = c->name, .reqid = c->reqid, .mode = c->l->wanted,
				       .flags = dlm_wire_flags(c->flags) };

		dlm_res_request(d, r, d->me, &own, false);
	}
	dlm_dir_take_early(d, &m->name, false);
	if (c->cancel)
		dlm_client_finish(d, c, -ECANCELED);
	r = dlm_res_find(d, &m->name);
	if (r)
		dlm_res_settle(d, r);
}

void dlm_dir_forward(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	const struct cluster_node *who = cluster_view_find(&d->part, m->node);
	struct dlm_res *r = dlm_res_find(d, &m->name);
	struct dlm_client *c = dlm_client_find(d, &m->name);
	int i = dlm_part_index(d, from);
	uint32_t dir1, dir2;

	if (m->type == DLM_M_BACK) {
		if (!who || !i_am_dir1(d, &m->name))
			dlm_bad_msg(d, from, "sends back what is not ours or of no member", m->node);
		else
			dlm_dir_ask(d, *who, m);
		return;
	}
	dlm_dirs(d, &m->name, &dir1, &dir2);
	if (!who || dir1 != from.nodeid) {
		dlm_bad_msg(d, from, "forwards and is no directory node of the name, or for no member", m->node);
	} else if (r) {
		dlm_res_request(d, r, *who, m, true);
	} else if (c && (c->state == DLM_C_DIR || c->converting) && m->gen > d->peer[i].removed_gen) {
		uint8_t buf[DLM_MSG_BYTES_MAX];

		dlm_hold(d, &d->early, from, buf, dlm_msg_encode(m, d->view.ring, buf));
	} else {
		struct dlm_msg back = *m;

		back.type = DLM_M_BACK;
		dlm_send(d, from.nodeid, &back);
	}
}
