/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_client.c - the caller's locks: requests, conversions, downgrades, cancel, and what comes back.
 *
 * What a request does at each point, and what a membership change does to it:
 *
 *	state		meaning					answer				view change
 *	UNSENT		no usable view				-				stays
 *	DIR		dir1 asked, master unknown		GRANT REFUSED QUEUED MASTER_YOU	-> UNSENT
 *	MASTER		master asked				GRANT REFUSED CANCELLED RETRY	-> UNSENT
 *			(the only state of a conversion		  DEMOTE
 *			besides UNSENT)
 *	IDLE		NL, or granted				BAST				reported by recovery
 *
 * A conversion holds its old mode on the way, and recovery reports that.  Demoted to NL it has none, and after a view change goes on
 * as a plain request.  Cancelling ends it with the old mode, whatever is left of that; in UNSENT at once, in DIR as soon as the
 * master is known, in MASTER by a message that crosses the answer: what comes first counts.
 *
 * Invariants
 *  1. l->granted is what this node may do, always: it grows only when a GRANT of the current view arrives, and falls at once
 *     in dlm_downgrade().  Recovery believes it more than any master.
 *  2. An answer counts only with the request id of the request under way and from the node that was asked.
 *  3. Callbacks come from d->due_job alone (never inside a caller's call), done() before bast(), in order of events.
 */
#include <errno.h>
#include <stdlib.h>

#include "dlm/dlm_internal.h"

struct dlm_client *dlm_client_find(struct dlm *d, const struct dlm_name *name)
{
	struct dlm_entry *e = dlm_table_find(&d->clients, name);

	return e ? container_of(e, struct dlm_client, hh) : NULL;
}

void dlm_client_due(struct dlm *d, struct dlm_client *c)
{
	if (!c->is_due) {
		c->is_due = true;
		cds_list_add_tail(&c->due, &d->due);
	}
	sched_post(d->env->sched, &d->due_job);
}

void dlm_client_finish(struct dlm *d, struct dlm_client *c, int status)
{
	csv_assert(c->l->busy && !c->done_due);
	cds_list_del(&c->order);
	c->state = DLM_C_IDLE;
	c->cancel = c->deadlock = c->converting = false;
	free(c->chase);
	c->chase = NULL;
	c->status = status;
	c->done_due = true;
	c->since_ns = dlm_now_ns(d);
	dlm_client_due(d, c);
	dlm_dir_early_done(d, &c->name);
}

/* ---- sending --------------------------------------------------------------------------------------------------------- */

void dlm_client_send(struct dlm *d, struct dlm_client *c)
{
	struct dlm_msg m = { .type = DLM_M_REQUEST, .name = c->name, .reqid = c->reqid, .mode = c->l->wanted,
			     .flags = dlm_wire_flags(c->flags) };
	uint32_t to, dir2;

	c->sent_ns = dlm_now_ns(d);
	if (c->converting) {
		csv_assert(dlm_part_is(d, c->master));		/* who holds knows its master */
		m.type = DLM_M_CONVERT;
		m.reqid = c->convid;
		m.gen = c->reqid;
		c->state = DLM_C_MASTER;
		dlm_send(d, c->master.nodeid, &m);
		return;
	}
	m.flags &= ~DLM_F_DEMOTE;
	if (dlm_res_find(d, &c->name))
		c->master = d->me;
	else if (node_eq(c->master, d->me) || !dlm_part_is(d, c->master))
		c->master = (struct cluster_node){ 0, 0 };
	if (c->master.incarnation) {
		to = c->master.nodeid;
		c->state = DLM_C_MASTER;
	} else {
		dlm_dirs(d, &c->name, &to, &dir2);
		m.flags |= DLM_F_DIR;
		c->state = DLM_C_DIR;
	}
	dlm_send(d, to, &m);
}

static void send_cancel(struct dlm *d, struct dlm_client *c)
{
	struct dlm_msg m = { .type = DLM_M_CANCEL, .name = c->name, .reqid = dlm_client_reqid(c) };

	dlm_send(d, c->master.nodeid, &m);
}

static struct dlm_guess *guess_of(struct dlm *d, const struct dlm_name *name)
{
	return &d->guess[dlm_name_hash(name) % DLM_GUESSES];
}

/* ---- the caller -------------------------------------------------------------------------------------------------------- */

void dlm_lock_init(struct dlm *d, struct dlm_lock *l, const void *name, uint8_t name_len)
{
	struct dlm_client *c = dlm_alloc(sizeof(*c));
	const struct dlm_guess *g;

	csv_assert(name_len && name_len <= DLM_NAME_MAX);
	memset(l->name, 0, sizeof(l->name));
	memcpy(l->name, name, name_len);
	l->name_len = name_len;
	l->granted = l->wanted = DLM_NL;
	l->busy = l->demoted = false;
	l->owner = 0;
	memset(l->lvb, 0, sizeof(l->lvb));
	l->lvb_valid = false;
	l->lvb_seq = 0;
	l->priv = c;
	CDS_INIT_LIST_HEAD(&l->node);
	c->name.len = name_len;
	memcpy(c->name.b, name, name_len);
	c->l = l;
	g = guess_of(d, &c->name);
	if (!memcmp(&g->name, &c->name, sizeof(c->name)))
		c->master = g->master;
	csv_assert(!dlm_client_find(d, &c->name));	/* one a node and resource */
	dlm_table_add(&d->clients, &c->hh);
}

void dlm_lock_done(struct dlm *d, struct dlm_lock *l)
{
	struct dlm_client *c = l->priv;

	csv_assert(c && l->granted == DLM_NL && !l->busy);
	if (c->is_due)
		cds_list_del(&c->due);
	dlm_hold_forget(d, c);
	if (c->master.incarnation && !node_eq(c->master, d->me))
		*guess_of(d, &c->name) = (struct dlm_guess){ c->name, c->master };
	dlm_table_del(&d->clients, &c->hh);
	l->priv = NULL;
	free(c);
}

static void ask(struct dlm *d, struct dlm_lock *l, enum dlm_mode mode, unsigned flags)
{
	struct dlm_client *c = l->priv;

	l->busy = true;
	l->demoted = false;
	l->wanted = mode;
	c->flags = flags;
	c->cancel = c->deadlock = c->converting = false;
	c->since_ns = dlm_now_ns(d);
	c->state = DLM_C_UNSENT;
	cds_list_add_tail(&c->order, &d->asked);
}

void dlm_request(struct dlm *d, struct dlm_lock *l, enum dlm_mode mode, unsigned flags)
{
	struct dlm_client *c = l->priv;

	csv_assert(c && !l->busy && l->granted == DLM_NL && (unsigned)mode <= DLM_EX);
	d->st.requests++;
	c->reqid = ++d->next_reqid;
	c->bast_due = DLM_NL;
	ask(d, l, mode, flags & ~DLM_DEMOTE);
	if (mode == DLM_NL)
		dlm_client_finish(d, c, 0);		/* goes with everything: nobody needs to know */
	else if (d->state == DLM_S_PURGED || d->left || d->leaving)
		dlm_client_finish(d, c, -ENOTCONN);
	else if (dlm_running(d))
		dlm_client_send(d, c);
	if (c->state != DLM_C_IDLE && dlm_running(d) && !node_eq(c->master, d->me))
		d->st.remote_requests++;
	dlm_chase_asked(d, c);
}

void dlm_convert(struct dlm *d, struct dlm_lock *l, enum dlm_mode mode, unsigned flags)
{
	struct dlm_client *c = l->priv;

	csv_assert(c && !l->busy && l->granted != DLM_NL && (unsigned)mode <= DLM_EX && !dlm_mode_covers(l->granted, mode));
	d->st.conversions++;
	c->convid = ++d->next_reqid;
	ask(d, l, mode, flags & ~DLM_PR_WELCOME);
	c->converting = true;
	l->granted = dlm_mode_meet(l->granted, mode);
	if (d->state == DLM_S_PURGED || d->left || d->leaving)
		dlm_client_finish(d, c, -ENOTCONN);
	else if (dlm_running(d))
		dlm_client_send(d, c);
	dlm_chase_asked(d, c);
}

static void write_value(struct dlm_client *c, struct dlm_msg *m)
{
	struct dlm_lock *l = c->l;

	l->lvb_valid = true;
	l->lvb_seq++;
	memcpy(c->lvb, l->lvb, DLM_LVB_LEN);
	c->lvb_valid = true;
	c->lvb_seq = l->lvb_seq;
	m->flags |= DLM_F_LVB;
	m->lvb_seq = l->lvb_seq;
	memcpy(m->lvb, l->lvb, DLM_LVB_LEN);
}

/* What the master is to know of our hold, now or as soon as there is a view. */
static void send_down(struct dlm *d, struct dlm_client *c, const struct dlm_msg *m)
{
	struct dlm_owed *o;

	if (dlm_running(d)) {
		dlm_send(d, c->master.nodeid, m);
	} else if (d->state != DLM_S_PURGED) {
		o = dlm_alloc(sizeof(*o));
		o->master = c->master;
		o->m = *m;
		cds_list_add_tail(&o->node, &d->owed);
	}
}

void dlm_downgrade(struct dlm *d, struct dlm_lock *l, enum dlm_mode mode)
{
	struct dlm_client *c = l->priv;
	struct dlm_msg m = { .type = DLM_M_DOWN, .mode = mode };

	csv_assert(c && !l->busy && mode < l->granted && dlm_mode_covers(l->granted, mode));
	d->st.downgrades++;
	m.name = c->name;
	m.reqid = c->reqid;
	if (c->undivided)
		m.gen = dlm_now_ns(d) - c->granted_ns;
	c->undivided = false;
	if (l->granted >= DLM_PW)
		write_value(c, &m);
	l->granted = l->wanted = mode;
	if (mode == DLM_NL)
		dlm_hold_forget(d, c);
	c->since_ns = dlm_now_ns(d);
	send_down(d, c, &m);
}

void dlm_cancel(struct dlm *d, struct dlm_lock *l)
{
	struct dlm_client *c = l->priv;

	csv_assert(c);
	if (!l->busy || c->done_due || c->cancel)
		return;
	d->st.cancels++;
	dlm_client_cancel(d, c);
}

static int cancelled(const struct dlm_client *c)
{
	return c->deadlock ? -EDEADLK : -ECANCELED;
}

void dlm_client_cancel(struct dlm *d, struct dlm_client *c)
{
	struct dlm_msg down = { .type = DLM_M_DOWN, .name = c->name, .reqid = c->reqid, .mode = c->l->granted };

	c->cancel = true;
	if (c->state == DLM_C_UNSENT) {
		/* What dlm_convert() gave up stays given up, and recovery may have reported more before. */
		if (c->converting)
			send_down(d, c, &down);
		dlm_client_finish(d, c, cancelled(c));
	} else if (c->state == DLM_C_MASTER) {
		send_cancel(d, c);
	}
	/* DIR: when the master is known */
}

/* ---- answers ----------------------------------------------------------------------------------------------------------- */

static void granted(struct dlm *d, struct dlm_client *c, const struct dlm_msg *m)
{
	struct dlm_lock *l = c->l;
	bool own_value = c->converting && l->granted >= DLM_PW;		/* still being written */

	if ((m->gen || m->flags & DLM_F_NOW) && !node_eq(c->master, d->me))
		dlm_hold_measure(d, dlm_now_ns(d) - c->sent_ns, m->gen);
	if (c->converting)
		c->reqid = c->convid;
	l->granted = l->wanted = m->mode;
	c->granted_ns = dlm_now_ns(d);
	c->undivided = true;
	c->rest_end_ns = 0;
	dlm_hold_forget(d, c);
	if (own_value) {
		dlm_client_finish(d, c, 0);
		return;
	}
	l->lvb_valid = c->lvb_valid = m->flags & DLM_F_LVB;
	if (l->lvb_valid) {
		memcpy(l->lvb, m->lvb, DLM_LVB_LEN);
		memcpy(c->lvb, m->lvb, DLM_LVB_LEN);
		l->lvb_seq = c->lvb_seq = m->lvb_seq;
	}
	dlm_client_finish(d, c, 0);
}

void dlm_client_answer(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_client *c = dlm_client_find(d, &m->name);

	if (!c || dlm_client_reqid(c) != m->reqid || (c->state != DLM_C_DIR && c->state != DLM_C_MASTER)) {
		/* Every request is answered once: an answer to none is the peer's mistake.  QUEUED alone may come late. */
		dlm_bad_msg(d, from, "answer to nothing we asked, type", m->type);
		return;
	}
	if (c->state == DLM_C_MASTER && !node_eq(c->master, from)) {
		dlm_bad_msg(d, from, "answer from a node that was not asked, type", m->type);
		return;
	}
	if (m->type == DLM_M_GRANT && m->mode != c->l->wanted &&
	    !(m->mode == DLM_PR && c->l->wanted == DLM_CR && c->flags & DLM_PR_WELCOME)) {
		dlm_bad_msg(d, from, "grant of a mode that was not asked for", m->mode);
		return;
	}
	if (c->converting && (m->type == DLM_M_RETRY || m->type == DLM_M_QUEUED)) {
		dlm_bad_msg(d, from, "answer that a conversion cannot get, type", m->type);
		return;
	}
	if (c->state == DLM_C_DIR && (m->type == DLM_M_RETRY || m->type == DLM_M_CANCELLED)) {
		dlm_bad_msg(d, from, "answer of a master where none was asked, type", m->type);
		return;
	}
	if (m->type != DLM_M_REFUSED || !(m->flags & DLM_F_FULL))
		c->master = from;
	switch (m->type) {
	case DLM_M_GRANT:
		granted(d, c, m);
		break;
	case DLM_M_REFUSED:
		dlm_client_finish(d, c, m->flags & DLM_F_FULL ? -ENOLCK : m->flags & DLM_F_DEADLOCK ? -EDEADLK : -EAGAIN);
		d->st.noqueue_refused++;
		break;
	case DLM_M_QUEUED:
		c->state = DLM_C_MASTER;
		if (c->cancel)
			send_cancel(d, c);
		dlm_dir_early_done(d, &c->name);
		break;
	case DLM_M_CANCELLED:
		dlm_client_finish(d, c, cancelled(c));
		break;
	case DLM_M_RETRY:
		c->master = (struct cluster_node){ 0, 0 };
		if (c->cancel)
			dlm_client_finish(d, c, cancelled(c));
		else
			dlm_client_send(d, c);
		break;
	}
}

/* D7: our conversion waits in a circle, and we have allowed that its old mode goes (DLM_DEMOTE). */
void dlm_client_demote(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_client *c = dlm_client_find(d, &m->name);
	struct dlm_msg down = { .type = DLM_M_DOWN, .name = m->name };

	if (!c || c->state != DLM_C_MASTER || !c->converting || c->convid != m->reqid || !node_eq(c->master, from) ||
	    !(c->flags & DLM_DEMOTE) || c->l->granted == DLM_NL) {
		dlm_bad_msg(d, from, "takes away what is not ours to give, request", m->reqid);
		return;
	}
	down.reqid = c->reqid;
	if (c->l->granted >= DLM_PW && c->l->lvb_valid)
		write_value(c, &down);
	c->l->granted = DLM_NL;
	c->l->demoted = true;
	dlm_hold_forget(d, c);
	dlm_send(d, from.nodeid, &down);
}

void dlm_client_bast(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_client *c = dlm_client_find(d, &m->name);

	if (!c || c->reqid != m->reqid || c->l->granted == DLM_NL || !node_eq(c->master, from)) {
		d->st.stale_messages++;
		return;
	}
	c->bast_due = dlm_mode_join(c->bast_due, m->mode);
	dlm_client_due(d, c);
}

/* ---- callbacks --------------------------------------------------------------------------------------------------------- */

static void due_one(struct dlm *d, struct dlm_client *c)
{
	struct dlm_lock *l = c->l;
	enum dlm_mode blocked = c->bast_due;

	if (c->done_due) {
		c->done_due = false;
		l->busy = false;
		l->wanted = l->granted;
		if (blocked != DLM_NL)
			dlm_client_due(d, c);	/* the lock may be gone after done() */
		if (l->done)
			l->done(l, c->status);
		return;
	}
	if (l->busy)
		return;				/* converting: after done() */
	if (blocked == DLM_NL || dlm_compatible(l->granted, blocked)) {
		c->bast_due = DLM_NL;
	} else if (!dlm_hold_back(d, c)) {
		c->bast_due = DLM_NL;
		if (l->bast)
			l->bast(l, blocked);
	}
}

void dlm_due(struct job *j)
{
	struct dlm *d = container_of(j, struct dlm, due_job);
	struct dlm_client *c;

	if (d->leave_due) {
		d->leave_due = false;
		if (d->leave_done)
			d->leave_done(d->leave_arg);
	}
	if (d->survey_due) {
		d->survey_due = false;
		d->ev.survey(d->ev.arg, d->ticket);
	}
	if (d->purged_due) {
		d->purged_due = false;
		if (d->ev.purged)
			d->ev.purged(d->ev.arg);
	}
	if (d->lost_due) {
		struct cluster_node who[CLUSTER_NODES_MAX];
		uint32_t n = 0;

		d->lost_due = false;
		for (uint32_t i = 0; i < d->past.lost.n && n < CLUSTER_NODES_MAX; i++) {
			struct dlm_lost *e = &d->past.lost.e[i];

			if (e->told || dlm_part_is(d, e->who))
				continue;	/* (the latter: proven in advance, still here) */
			e->told = true;
			if (e->proof != DLM_REPLAYED)
				who[n++] = e->who;
		}
		if (n == CLUSTER_NODES_MAX) {		/* the rest in another call */
			d->lost_due = true;
			sched_post(d->env->sched, j);
		}
		if (n && d->ev.lost)
			d->ev.lost(d->ev.arg, who, n);
	}
	if (d->recovered_due && !d->lost_due) {
		d->recovered_due = false;
		if (d->ev.recovered)
			d->ev.recovered(d->ev.arg, &d->recovered_view);
	}
	if (cds_list_empty(&d->due))
		return;
	c = cds_list_first_entry(&d->due, struct dlm_client, due);
	cds_list_del(&c->due);
	c->is_due = false;
	sched_post(d->env->sched, j);
	due_one(d, c);
}

/* ---- views -------------------------------------------------------------------------------------------------------------- */

void dlm_client_suspend(struct dlm *d)
{
	struct dlm_client *c, *tmp;

	cds_list_for_each_entry_safe(c, tmp, &d->asked, order) {
		if (c->converting && c->l->granted == DLM_NL) {		/* demoted: nothing is left to convert */
			c->converting = false;
			c->reqid = c->convid;
		}
		if (c->cancel)
			dlm_client_finish(d, c, cancelled(c));
		else
			c->state = DLM_C_UNSENT;
	}
	dlm_chase_suspend(d);
}

void dlm_client_resume(struct dlm *d)
{
	struct dlm_owed *o, *otmp;
	struct dlm_client *c, *tmp;

	cds_list_for_each_entry_safe(o, otmp, &d->owed, node) {
		if (dlm_part_is(d, o->master))
			dlm_send(d, o->master.nodeid, &o->m);
		cds_list_del(&o->node);
		free(o);
	}
	cds_list_for_each_entry_safe(c, tmp, &d->asked, order)
		dlm_client_send(d, c);
}

void dlm_client_purge(struct dlm *d)
{
	struct dlm_client *c, *tmp;

	cds_list_for_each_entry_safe(c, tmp, &d->asked, order)
		dlm_client_finish(d, c, -ENOTCONN);
}

/* The master of a hold that we reported to the directory. */
void dlm_client_adopt(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_client *c = dlm_client_find(d, &m->name);
	struct dlm_owed *o;

	if (c && c->reqid == m->reqid && c->l->granted != DLM_NL)
		c->master = from;
	cds_list_for_each_entry(o, &d->owed, node)
		if (o->m.reqid == m->reqid && !memcmp(&o->m.name, &m->name, sizeof(m->name)))
			o->master = from;
}
