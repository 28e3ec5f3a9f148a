/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * plock.c - locks of programs: life, views, and the door.  The protocol and its invariants: plock.h.
 *
 * A view change ends the view here (view_end): what was told or came for it is forgotten, what is not confirmed is asked for again
 * (plock_req.c), what is confirmed is told to the new view (plock_hold.c).
 */
#include "csvfs/plock_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "utils/base/err.h"

void plock_ctl_fail(struct plock_ctl *c, const char *why)
{
	if (c->failed)
		return;
	c->failed = true;
	c->user.fail(c->user.arg, why);
}

static void nobody_waits(void *arg, struct cluster_node node, uint64_t request)
{
	(void)arg;
	(void)node;
	(void)request;
	csv_panic("a lock was granted in a table in which nobody waits");
}

/* ---- views */

static void view_end(struct plock_ctl *c)
{
	struct plock_req *r, *next;

	c->ready = c->said = false;
	c->told = 0;
	plock_req_forget_view(c);
	timer_del(c->env->sched, &c->settle);
	plock_log_settle(c);
	cds_list_for_each_entry_safe(r, next, &c->reqs, node) {
		if (r->state == PLOCK_REQ_DONE)
			continue;
		r->state = PLOCK_REQ_NEW;
		r->acked = 0;
		if (r->op.type == PLOCK_MSG_UNLOCK) {
			plock_log_add(c, &r->op, true);
			plock_req_done(c, r, 0);
		} else if (r->cancelled && !r->gave_up) {
			plock_req_done(c, r, -EINTR);	/* it is not held: not confirmed, so not said; and there may be no next view for long */
		}
	}
}

static void on_suspend(void *arg)
{
	struct plock_ctl *c = arg;

	if (!c->stopped)
		view_end(c);
}

static void on_view(void *arg, const struct cluster_view *v)
{
	struct plock_ctl *c = arg;
	struct plock_req *r;
	const struct cluster_node *m = cluster_view_find(v, cluster_self(c->env->cluster));
	bool reborn;

	if (c->stopped || !m)
		return;
	view_end(c);
	reborn = c->self.incarnation && c->self.incarnation != m->incarnation;
	c->self = *m;
	plock_table_clear(c->table);
	if (reborn) {
		/* PL4 */
		plock_busy_add(c, -(int64_t)plock_table_count(c->mine));
		plock_table_clear(c->mine);
		cds_list_for_each_entry(r, &c->reqs, node)
			r->gave_up = false;
		if (c->user.lost)
			c->user.lost(c->user.arg);
	}
	plock_list_tell(c);
	c->said = true;
}

struct plock_ctl *plock_new(struct env *env, const struct plock_user *user)
{
	struct plock_ctl *c = calloc(1, sizeof(*c));
	const struct cluster_user u = { .suspend = on_suspend, .view = on_view, .msg = plock_req_on_message, .arg = c };

	if (!c)
		return NULL;
	c->env = env;
	c->user = *user;
	CDS_INIT_LIST_HEAD(&c->log);
	CDS_INIT_LIST_HEAD(&c->reqs);
	CDS_INIT_LIST_HEAD(&c->stash);
	CDS_INIT_LIST_HEAD(&c->owed);
	timer_init(&c->settle, plock_req_on_timer);
	c->table = plock_table_new(plock_req_on_granted, c);
	c->mine = plock_table_new(nobody_waits, c);
	if (!c->table || !c->mine) {
		plock_free(c);
		return NULL;
	}
	cluster_register(env->cluster, CHAN_PLOCK, &u);
	mesh_register(env->mesh, CHAN_PLOCK, plock_req_on_ack, c);
	return c;
}

void plock_stop(struct plock_ctl *c)
{
	struct plock_req *r, *next;

	if (c->stopped)
		return;
	view_end(c);
	c->stopped = true;
	cds_list_for_each_entry_safe(r, next, &c->reqs, node)
		plock_req_done(c, r, -CSV_E_WITHDRAWN);
}

void plock_close(struct plock_ctl *c)
{
	struct plock_req *r, *next;

	c->closing = true;
	cds_list_for_each_entry_safe(r, next, &c->reqs, node)
		plock_req_done(c, r, -CSV_E_WITHDRAWN);
}

void plock_free(struct plock_ctl *c)
{
	if (!c)
		return;
	timer_del(c->env->sched, &c->settle);
	plock_log_free(c);
	plock_req_forget_view(c);
	plock_table_free(c->table);
	plock_table_free(c->mine);
	free(c);
}

/* ---- the door */

int plock_set(struct plock_ctl *c, const struct plock_who *who, enum plock_type type, uint64_t start, uint64_t end, bool wait)
{
	struct plock_req r;

	plock_req_run(c, &r, PLOCK_MSG_LOCK, who, type, start, end, wait);
	return r.result;
}

int plock_clear(struct plock_ctl *c, const struct plock_who *who, uint64_t start, uint64_t end)
{
	struct plock_req r;

	plock_req_run(c, &r, PLOCK_MSG_UNLOCK, who, PLOCK_READ, start, end, false);
	return r.result == -CSV_E_WITHDRAWN ? 0 : r.result;
}

int plock_get(struct plock_ctl *c, const struct plock_who *who, enum plock_type type, uint64_t start, uint64_t end, bool *ret_found,
	      struct plock *ret)
{
	const struct plock lk = { .node = c->self, .id = who->id, .type = type, .start = start, .end = end };
	struct plock_req r;

	/* What is confirmed to anybody is applied here (PL1), so "nothing" needs no message; what is there may just be given up. */
	if (c->ready && !c->stopped && !plock_table_conflict(c->table, who->key, who->kind, &lk)) {
		*ret_found = false;
		return 0;
	}
	plock_req_run(c, &r, PLOCK_MSG_GET, who, type, start, end, false);
	*ret_found = r.found;
	*ret = r.conflict;
	return r.result;
}

bool plock_concerns(const struct plock_ctl *c, const struct plock_who *who)
{
	const struct plock_req *r;

	cds_list_for_each_entry(r, &c->reqs, node)
		if (r->op.key == who->key && r->op.kind == who->kind && r->op.lk.id == who->id)
			return true;
	return plock_log_concerns(c, who) || plock_table_holds(c->mine, who->key, who->kind, (struct cluster_node){ 0, 0 }, who->id);
}

void plock_walk(const struct plock_ctl *c, bool (*fn)(void *arg, const struct plock_walk *w), void *arg)
{
	plock_table_walk(c->table, fn, arg);
}

void plock_mutate_no_ack(struct plock_ctl *c)
{
	c->no_ack = true;
}

void plock_mutate_not_settled(struct plock_ctl *c)
{
	c->not_settled = true;
}

void plock_mutate_unlock_untold(struct plock_ctl *c)
{
	c->unlock_untold = true;
}

uint64_t plock_busy(const struct plock_ctl *c)
{
	return __atomic_load_n(&c->busy, __ATOMIC_RELAXED);
}
