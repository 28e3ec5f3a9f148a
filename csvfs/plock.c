/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * plock.c - see plock.h for the protocol and its invariants.
 *
 * Life of a request here:
 *
 *	NEW --cluster_send--> SENT --own delivery--> APPLIED (held in the table; waits for ACKs) --all acks, settled--> done
 *	                        |                      ^
 *	                        |                      | granted
 *	                        `------------------> WAITING
 *	any of them --view change--> NEW, asked again when the tables are built;  unlocks are done at once then (PL3: they only
 *	take from what this node will say it holds)
 *
 * What this node holds (PL3) is `mine`, behind which comes the log of own changes that are applied and not all confirmed yet: in the
 * order of application, because an unlock may overtake the confirmation of a lock.  At a view change the confirmed ones of the
 * log go into `mine`; the others are forgotten and asked for again.
 */
#include "csvfs/plock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <urcu/list.h>

#include "utils/base/base.h"
#include "utils/base/cursor.h"
#include "utils/base/err.h"

#define SETTLE_EVERY_MS 10u
#define ENTRY_BYTES 44u
#define LIST_HEAD_BYTES 4u
#define LIST_MAX ((CLUSTER_MSG_MAX - 256u - LIST_HEAD_BYTES) / ENTRY_BYTES)

/* Ordered messages, and on the mesh ACK alone: le64 request. */
enum msg { MSG_LOCK = 1, MSG_UNLOCK = 2, MSG_GET = 3, MSG_CANCEL = 4, MSG_LIST = 5 };
/* LOCK, UNLOCK, GET, CANCEL: u8 type, u8 kind, u8 plock_type, u8 wait, le32 pid, le64 key, id, start, end, request */
#define OP_BYTES 48u
/* LIST: u8 type, u8 last, le16 count, then entries: u8 kind, u8 plock_type, le16 0, le32 pid, le64 key, id, start, end, (le32 0) */

struct op { enum msg type; enum plock_kind kind; bool wait; uint64_t key, request; struct plock lk; };

enum req_state { REQ_NEW, REQ_SENT, REQ_WAITING, REQ_APPLIED, REQ_DONE };
struct req {
	struct cds_list_head node;
	struct op op;
	enum req_state state;
	bool cancelled;
	int result;
	uint64_t acked;			/* by index in the view */
	bool found;			/* GET */
	struct plock conflict;
	struct waitq wq;
};

struct change { struct cds_list_head node; struct op op; bool confirmed; };
struct stashed { struct cds_list_head node; struct cluster_node from; size_t len; uint8_t buf[]; };
struct owed { struct cds_list_head node; struct cluster_node to; uint64_t request; };	/* an ACK not given yet: not settled */

struct plock_ctl {
	struct env *env;
	struct plock_user user;
	bool stopped, failed, closing;
	uint64_t busy;			/* read by any thread */
	struct cluster_node self;	/* of the last view */
	struct plock_table *table;	/* of all, PL2 */
	struct plock_table *mine;
	struct cds_list_head log;	/* struct change */
	struct cds_list_head reqs;	/* oldest first */
	uint64_t next_request;
	/* a view being built: who has told all it holds; what came meanwhile */
	bool said;			/* we have told what we hold: what changes from now on must be told, too */
	bool ready;
	uint64_t told;
	struct cds_list_head stash;
	struct cds_list_head owed;
	struct timer settle;
	bool no_ack, not_settled, unlock_untold;
};

static void apply(struct plock_ctl *c, struct cluster_node from, const struct op *op);

static void fail(struct plock_ctl *c, const char *why)
{
	if (c->failed)
		return;
	c->failed = true;
	c->user.fail(c->user.arg, why);
}

static bool is_settled(const struct plock_ctl *c)
{
	return c->not_settled || c->user.settled(c->user.arg);
}

static bool is_self(const struct plock_ctl *c, struct cluster_node n)
{
	return n.nodeid == c->self.nodeid && n.incarnation == c->self.incarnation;
}

static void busy_add(struct plock_ctl *c, int64_t n)
{
	__atomic_add_fetch(&c->busy, (uint64_t)n, __ATOMIC_RELAXED);
}

uint64_t plock_busy(const struct plock_ctl *c)
{
	return __atomic_load_n(&c->busy, __ATOMIC_RELAXED);
}

/* ---- what this node holds --------------------------------------------------------------------------------------------------------- */

static void nobody_waits(void *arg, struct cluster_node node, uint64_t request)
{
	(void)arg;
	(void)node;
	(void)request;
	csv_panic("a lock was granted in a table in which nobody waits");
}

static void mine_apply(struct plock_ctl *c, const struct op *op)
{
	uint64_t before = plock_table_count(c->mine);
	struct plock lk = op->lk;
	int err;

	lk.node = (struct cluster_node){ 0, 0 };	/* ours; asked for in whichever life */
	err = op->type == MSG_LOCK ? plock_table_put(c->mine, op->key, op->kind, &lk) : plock_table_unlock(c->mine, op->key, op->kind, &lk);

	if (err)
		fail(c, "out of memory for the locks of programs");
	busy_add(c, (int64_t)(plock_table_count(c->mine) - before));
}

static void change_free(struct plock_ctl *c, struct change *ch)
{
	cds_list_del(&ch->node);
	free(ch);
	busy_add(c, -1);
}

static void log_fold(struct plock_ctl *c)
{
	struct change *ch, *next;

	cds_list_for_each_entry_safe(ch, next, &c->log, node) {
		if (!ch->confirmed)
			return;
		mine_apply(c, &ch->op);
		change_free(c, ch);
	}
}

static void log_add(struct plock_ctl *c, const struct op *op, bool confirmed)
{
	struct change *ch = calloc(1, sizeof(*ch));

	if (!ch) {
		fail(c, "out of memory for the locks of programs");
		return;
	}
	ch->op = *op;
	ch->confirmed = confirmed;
	cds_list_add_tail(&ch->node, &c->log);
	busy_add(c, 1);
	log_fold(c);
}

static void log_confirm(struct plock_ctl *c, uint64_t request)
{
	struct change *ch;

	cds_list_for_each_entry(ch, &c->log, node)
		if (ch->op.request == request)
			ch->confirmed = true;
	log_fold(c);
}

/* A view ended: what was not confirmed is not held. */
static void log_settle(struct plock_ctl *c)
{
	struct change *ch, *next;

	cds_list_for_each_entry_safe(ch, next, &c->log, node) {
		if (ch->confirmed)
			mine_apply(c, &ch->op);
		change_free(c, ch);
	}
}

/* ---- messages --------------------------------------------------------------------------------------------------------------------- */

static size_t op_put(const struct op *op, uint8_t buf[OP_BYTES])
{
	struct csv_cursor c;

	csv_cursor_init(&c, buf, OP_BYTES);
	csv_put_u8(&c, (uint8_t)op->type);
	csv_put_u8(&c, (uint8_t)op->kind);
	csv_put_u8(&c, (uint8_t)op->lk.type);
	csv_put_u8(&c, op->wait);
	csv_put_u32(&c, op->lk.pid);
	csv_put_u64(&c, op->key);
	csv_put_u64(&c, op->lk.id);
	csv_put_u64(&c, op->lk.start);
	csv_put_u64(&c, op->lk.end);
	csv_put_u64(&c, op->request);
	csv_assert(!csv_cur_error(&c));
	return csv_cur_used(&c);
}

static bool op_get(const void *buf, size_t len, struct cluster_node from, struct op *ret)
{
	struct csv_cursor c;
	uint8_t kind, type, wait;

	if (len != OP_BYTES)
		return false;
	csv_cursor_init_ro(&c, buf, len);
	ret->type = (enum msg)csv_cur_u8(&c);
	kind = csv_cur_u8(&c);
	type = csv_cur_u8(&c);
	wait = csv_cur_u8(&c);
	ret->lk.pid = csv_cur_u32(&c);
	ret->key = csv_cur_u64(&c);
	ret->lk.id = csv_cur_u64(&c);
	ret->lk.start = csv_cur_u64(&c);
	ret->lk.end = csv_cur_u64(&c);
	ret->request = csv_cur_u64(&c);
	if (csv_cur_error(&c) || kind >= PLOCK_KINDS || type > PLOCK_WRITE || wait > 1 || ret->lk.start > ret->lk.end)
		return false;
	ret->kind = (enum plock_kind)kind;
	ret->lk.type = (enum plock_type)type;
	ret->lk.node = from;
	ret->wait = wait;
	return true;
}

struct list_msg { struct plock_ctl *c; uint8_t *buf; struct csv_cursor cur; unsigned count; };

static void list_send(struct list_msg *l, bool last)
{
	struct csv_cursor head;
	int err;

	csv_cursor_init(&head, l->buf, LIST_HEAD_BYTES);
	csv_put_u8(&head, MSG_LIST);
	csv_put_u8(&head, last);
	csv_put_u16(&head, (uint16_t)l->count);
	err = cluster_send(l->c->env->cluster, CHAN_PLOCK, l->buf, csv_cur_used(&l->cur));
	if (err && err != -ENOTCONN)		/* without a view: said again in the next */
		fail(l->c, "out of memory while the locks of programs were announced");
	csv_cursor_init(&l->cur, l->buf, LIST_HEAD_BYTES + LIST_MAX * ENTRY_BYTES);
	csv_cur_skip(&l->cur, LIST_HEAD_BYTES);
	l->count = 0;
}

static bool list_add(void *arg, const struct plock_walk *w)
{
	struct list_msg *l = arg;

	if (l->count == LIST_MAX)
		list_send(l, false);
	csv_put_u8(&l->cur, (uint8_t)w->kind);
	csv_put_u8(&l->cur, (uint8_t)w->lk.type);
	csv_put_u16(&l->cur, 0);
	csv_put_u32(&l->cur, w->lk.pid);
	csv_put_u64(&l->cur, w->key);
	csv_put_u64(&l->cur, w->lk.id);
	csv_put_u64(&l->cur, w->lk.start);
	csv_put_u64(&l->cur, w->lk.end);
	csv_put_u32(&l->cur, 0);
	csv_assert(!csv_cur_error(&l->cur));
	l->count++;
	return true;
}

static void list_tell(struct plock_ctl *c)
{
	struct list_msg l = { .c = c, .buf = malloc(LIST_HEAD_BYTES + LIST_MAX * ENTRY_BYTES) };

	if (!l.buf) {
		fail(c, "out of memory while the locks of programs were announced");
		return;
	}
	csv_cursor_init(&l.cur, l.buf, LIST_HEAD_BYTES + LIST_MAX * ENTRY_BYTES);
	csv_cur_skip(&l.cur, LIST_HEAD_BYTES);
	plock_table_walk(c->mine, list_add, &l);
	list_send(&l, true);
	free(l.buf);
}

/* False: malformed.  Entries are the sender's own, so one that lies harms its own locks and those it claims. */
static bool list_heard(struct plock_ctl *c, struct cluster_node from, const void *buf, size_t len, bool *ret_last)
{
	struct csv_cursor cur;
	uint16_t count;

	csv_cursor_init_ro(&cur, buf, len);
	csv_cur_skip(&cur, 1);
	*ret_last = csv_cur_u8(&cur);
	count = csv_cur_u16(&cur);
	if (csv_cur_error(&cur) || count > LIST_MAX || csv_cur_left(&cur) != (size_t)count * ENTRY_BYTES)
		return false;
	for (uint16_t i = 0; i < count; i++) {
		struct plock lk = { .node = from };
		uint8_t kind = csv_cur_u8(&cur), type = csv_cur_u8(&cur);
		uint64_t key;

		csv_cur_skip(&cur, 2);
		lk.pid = csv_cur_u32(&cur);
		key = csv_cur_u64(&cur);
		lk.id = csv_cur_u64(&cur);
		lk.start = csv_cur_u64(&cur);
		lk.end = csv_cur_u64(&cur);
		csv_cur_skip(&cur, 4);
		if (kind >= PLOCK_KINDS || type > PLOCK_WRITE || lk.start > lk.end)
			return false;
		lk.type = (enum plock_type)type;
		if (plock_table_put(c->table, key, (enum plock_kind)kind, &lk))
			fail(c, "out of memory for the locks of programs");
	}
	return true;
}

/* ---- requests ---------------------------------------------------------------------------------------------------------------------- */

static struct req *req_find(struct plock_ctl *c, uint64_t request)
{
	struct req *r;

	cds_list_for_each_entry(r, &c->reqs, node)
		if (r->op.request == request)
			return r;
	return NULL;
}

static void req_done(struct plock_ctl *c, struct req *r, int result)
{
	if (r->state == REQ_DONE)
		return;
	r->state = REQ_DONE;
	r->result = result;
	sched_wake_all(c->env->sched, &r->wq);
}

static void req_send(struct plock_ctl *c, struct req *r)
{
	uint8_t buf[OP_BYTES];
	int err;

	r->state = REQ_SENT;
	r->acked = 0;
	err = cluster_send(c->env->cluster, CHAN_PLOCK, buf, op_put(&r->op, buf));
	if (err == -ENOTCONN)
		r->state = REQ_NEW;
	else if (err)
		req_done(c, r, err);
}

static int view_index(const struct cluster_view *v, uint32_t nodeid)
{
	for (uint32_t i = 0; v && i < v->n; i++)
		if (v->m[i].nodeid == nodeid)
			return (int)i;
	return -1;
}

static uint64_t view_mask(const struct cluster_view *v)
{
	return v->n == 64 ? ~0ull : (1ull << v->n) - 1;
}

/* PL1 */
static void req_look(struct plock_ctl *c, struct req *r)
{
	const struct cluster_view *v = cluster_current(c->env->cluster);

	if (r->state != REQ_APPLIED || !v || (!c->no_ack && (r->acked | 1ull << view_index(v, c->self.nodeid)) != view_mask(v)))
		return;
	if (!is_settled(c)) {
		timer_set(c->env->sched, &c->settle, sched_now_ns(c->env->sched) + SETTLE_EVERY_MS * NS_PER_MS);
		return;
	}
	log_confirm(c, r->op.request);
	req_done(c, r, 0);
}

static void ack_owe(struct plock_ctl *c, struct cluster_node to, uint64_t request)
{
	struct owed *o = calloc(1, sizeof(*o));

	if (!o) {
		fail(c, "out of memory for the locks of programs");
		return;
	}
	o->to = to;
	o->request = request;
	cds_list_add_tail(&o->node, &c->owed);
}

static void ack_give(struct plock_ctl *c)
{
	struct owed *o, *next;

	if (!cds_list_empty(&c->owed) && !is_settled(c)) {
		timer_set(c->env->sched, &c->settle, sched_now_ns(c->env->sched) + SETTLE_EVERY_MS * NS_PER_MS);
		return;
	}
	cds_list_for_each_entry_safe(o, next, &c->owed, node) {
		struct le64 m = le64_of(o->request);

		/* A failure is a member that cannot be reached: the view will change. */
		mesh_send(c->env->mesh, o->to.nodeid, CHAN_PLOCK, &m, sizeof(m));
		cds_list_del(&o->node);
		free(o);
	}
}

/* The table says that this request holds its lock now. */
static void held(struct plock_ctl *c, struct cluster_node node, uint64_t request)
{
	struct req *r;

	if (!is_self(c, node)) {
		ack_owe(c, node, request);
		return;
	}
	r = req_find(c, request);
	if (c->closing && (!r || r->state == REQ_DONE))
		return;			/* who asked is gone, and so is this node soon */
	csv_assertf(r && (r->state == REQ_SENT || r->state == REQ_WAITING), "a lock of this node was granted that nobody here asked for");
	r->state = REQ_APPLIED;
	log_add(c, &r->op, false);
}

static void on_granted(void *arg, struct cluster_node node, uint64_t request)
{
	held(arg, node, request);
}

static void look_at_all(struct plock_ctl *c)
{
	struct req *r, *next;

	ack_give(c);
	cds_list_for_each_entry_safe(r, next, &c->reqs, node)
		req_look(c, r);
}

static void settle_timer(struct timer *t)
{
	look_at_all(container_of(t, struct plock_ctl, settle));
}

/* ---- applying ------------------------------------------------------------------------------------------------------------------------ */

static void apply_own_end(struct plock_ctl *c, uint64_t request, int result)
{
	struct req *r = req_find(c, request);

	if (r && r->state != REQ_DONE)
		req_done(c, r, result);
}

static void apply_lock(struct plock_ctl *c, struct cluster_node from, const struct op *op)
{
	int err = plock_table_lock(c->table, op->key, op->kind, &op->lk, op->request, op->wait);
	struct req *r;

	if (err == -ENOMEM)
		fail(c, "out of memory for the locks of programs");
	/* flock gives the old lock up before it asks for the new one, whatever comes of that. */
	if (is_self(c, from) && op->kind == PLOCK_FLOCK && err) {
		struct op gone = *op;

		gone.type = MSG_UNLOCK;
		gone.request = 0;
		log_add(c, &gone, true);
	}
	if (!err) {
		held(c, from, op->request);
	} else if (is_self(c, from)) {
		r = req_find(c, op->request);
		if (r && err == -EAGAIN && op->wait)
			r->state = REQ_WAITING;
		else
			apply_own_end(c, op->request, err);
	}
}

static void apply_get(struct plock_ctl *c, const struct op *op)
{
	struct req *r = req_find(c, op->request);
	const struct plock *in_the_way = plock_table_conflict(c->table, op->key, op->kind, &op->lk);

	if (!r || r->state == REQ_DONE)
		return;
	r->found = in_the_way != NULL;
	if (in_the_way)
		r->conflict = *in_the_way;
	req_done(c, r, 0);
}

static void apply(struct plock_ctl *c, struct cluster_node from, const struct op *op)
{
	int err;

	switch (op->type) {
	case MSG_LOCK:
		apply_lock(c, from, op);
		break;
	case MSG_UNLOCK:
		err = plock_table_unlock(c->table, op->key, op->kind, &op->lk);
		if (err == -ENOMEM)
			fail(c, "out of memory for the locks of programs");
		if (is_self(c, from)) {
			if (!err)
				log_add(c, op, true);
			apply_own_end(c, op->request, err);
		}
		break;
	case MSG_GET:
		if (is_self(c, from))
			apply_get(c, op);
		break;
	case MSG_CANCEL:
		if (plock_table_cancel(c->table, from, op->request) && is_self(c, from))
			apply_own_end(c, op->request, -EINTR);
		break;
	case MSG_LIST:
		break;
	}
}

static void became_ready(struct plock_ctl *c)
{
	struct stashed *s, *next;
	struct req *r, *next_req;
	struct op op;

	c->ready = true;
	cds_list_for_each_entry_safe(s, next, &c->stash, node) {
		if (op_get(s->buf, s->len, s->from, &op))
			apply(c, s->from, &op);
		cds_list_del(&s->node);
		free(s);
	}
	cds_list_for_each_entry_safe(r, next_req, &c->reqs, node) {
		if (r->state != REQ_NEW)
			continue;
		if (r->cancelled)
			req_done(c, r, -EINTR);
		else
			req_send(c, r);
	}
	look_at_all(c);
}

static void stash(struct plock_ctl *c, struct cluster_node from, const void *buf, size_t len)
{
	struct stashed *s = malloc(sizeof(*s) + len);

	if (!s) {
		fail(c, "out of memory for the locks of programs");
		return;
	}
	s->from = from;
	s->len = len;
	memcpy(s->buf, buf, len);
	cds_list_add_tail(&s->node, &c->stash);
}

static void on_message(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	const struct cluster_view *v;
	struct plock_ctl *c = arg;
	struct op op;
	bool last;

	v = cluster_current(c->env->cluster);
	if (c->stopped || c->failed || !v || !len)
		return;
	if (*(const uint8_t *)buf == MSG_LIST) {
		/* A second list, or one that makes no sense: not of a member that behaves, and no message of ours. */
		if (c->ready || c->told & 1ull << view_index(v, from.nodeid) || !list_heard(c, from, buf, len, &last) || !last)
			return;
		c->told |= 1ull << view_index(v, from.nodeid);
		if (c->told == view_mask(v))
			became_ready(c);
		return;
	}
	if (!op_get(buf, len, from, &op) || op.type < MSG_LOCK || op.type > MSG_CANCEL)
		return;
	if (!c->ready) {
		stash(c, from, buf, len);
		return;
	}
	apply(c, from, &op);
	look_at_all(c);
}

static void on_ack(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	const struct cluster_view *v;
	struct plock_ctl *c = arg;
	struct le64 request;
	struct req *r;

	v = cluster_current(c->env->cluster);
	if (c->stopped || len != sizeof(request) || !v || view_index(v, from.nodeid) < 0)
		return;
	memcpy(&request, buf, sizeof(request));
	r = req_find(c, le64_get(request));
	if (!r)
		return;
	r->acked |= 1ull << view_index(v, from.nodeid);
	req_look(c, r);
}

/* ---- views ---------------------------------------------------------------------------------------------------------------------------- */

static void view_end(struct plock_ctl *c)
{
	struct stashed *s, *next_stashed;
	struct owed *o, *next_owed;
	struct req *r, *next;

	c->ready = c->said = false;
	c->told = 0;
	cds_list_for_each_entry_safe(s, next_stashed, &c->stash, node) {
		cds_list_del(&s->node);
		free(s);
	}
	cds_list_for_each_entry_safe(o, next_owed, &c->owed, node) {
		cds_list_del(&o->node);
		free(o);
	}
	timer_del(c->env->sched, &c->settle);
	log_settle(c);
	cds_list_for_each_entry_safe(r, next, &c->reqs, node) {
		if (r->state == REQ_DONE)
			continue;
		r->state = REQ_NEW;
		r->acked = 0;
		if (r->op.type == MSG_UNLOCK) {
			log_add(c, &r->op, true);
			req_done(c, r, 0);
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
		busy_add(c, -(int64_t)plock_table_count(c->mine));
		plock_table_clear(c->mine);
		if (c->user.lost)
			c->user.lost(c->user.arg);
	}
	list_tell(c);
	c->said = true;
}

struct plock_ctl *plock_new(struct env *env, const struct plock_user *user)
{
	struct plock_ctl *c = calloc(1, sizeof(*c));
	const struct cluster_user u = { .suspend = on_suspend, .view = on_view, .msg = on_message, .arg = c };

	if (!c)
		return NULL;
	c->env = env;
	c->user = *user;
	CDS_INIT_LIST_HEAD(&c->log);
	CDS_INIT_LIST_HEAD(&c->reqs);
	CDS_INIT_LIST_HEAD(&c->stash);
	CDS_INIT_LIST_HEAD(&c->owed);
	timer_init(&c->settle, settle_timer);
	c->table = plock_table_new(on_granted, c);
	c->mine = plock_table_new(nobody_waits, c);
	if (!c->table || !c->mine) {
		plock_free(c);
		return NULL;
	}
	cluster_register(env->cluster, CHAN_PLOCK, &u);
	mesh_register(env->mesh, CHAN_PLOCK, on_ack, c);
	return c;
}

void plock_stop(struct plock_ctl *c)
{
	struct req *r, *next;

	if (c->stopped)
		return;
	view_end(c);
	c->stopped = true;
	cds_list_for_each_entry_safe(r, next, &c->reqs, node)
		req_done(c, r, -CSV_E_WITHDRAWN);
}

void plock_close(struct plock_ctl *c)
{
	struct req *r, *next;

	c->closing = true;
	cds_list_for_each_entry_safe(r, next, &c->reqs, node)
		req_done(c, r, -CSV_E_WITHDRAWN);
}

void plock_free(struct plock_ctl *c)
{
	struct stashed *s, *next_stashed;
	struct change *ch, *next;
	struct owed *o, *next_owed;

	if (!c)
		return;
	timer_del(c->env->sched, &c->settle);
	cds_list_for_each_entry_safe(ch, next, &c->log, node)
		change_free(c, ch);
	cds_list_for_each_entry_safe(s, next_stashed, &c->stash, node)
		free(s);
	cds_list_for_each_entry_safe(o, next_owed, &c->owed, node)
		free(o);
	plock_table_free(c->table);
	plock_table_free(c->mine);
	free(c);
}

/* ---- the door --------------------------------------------------------------------------------------------------------------------------- */

static void cancel(struct plock_ctl *c, struct req *r)
{
	struct op op = r->op;
	uint8_t buf[OP_BYTES];

	r->cancelled = true;
	if (r->state == REQ_NEW) {
		req_done(c, r, -EINTR);
		return;
	}
	op.type = MSG_CANCEL;
	/* Lost with the view: then the request is asked for again, or rather not (became_ready). */
	cluster_send(c->env->cluster, CHAN_PLOCK, buf, op_put(&op, buf));
}

/* Awaits its end; what was cancelled may have been granted first, then it is held. */
static void req_run(struct plock_ctl *c, struct req *r, enum msg type, const struct plock_who *who, enum plock_type lock_type, uint64_t start,
		    uint64_t end, bool wait)
{
	*r = (struct req){ .op = { .type = type, .kind = who->kind, .wait = wait, .key = who->key, .request = ++c->next_request } };
	r->op.lk = (struct plock){ .node = c->self, .id = who->id, .type = lock_type, .pid = who->pid, .start = start, .end = end };
	if (c->stopped || c->closing) {
		r->result = -CSV_E_WITHDRAWN;
		return;
	}
	waitq_init(&r->wq);
	cds_list_add_tail(&r->node, &c->reqs);
	busy_add(c, 1);
	if (c->ready || (c->said && type == MSG_UNLOCK && !c->unlock_untold)) {
		req_send(c, r);
	} else if (type == MSG_UNLOCK) {
		log_add(c, &r->op, true);
		req_done(c, r, 0);
	}
	while (r->state != REQ_DONE) {
		if (r->cancelled || type == MSG_UNLOCK)
			sched_wait(c->env->sched, &r->wq);
		else if (sched_wait_intr(c->env->sched, &r->wq) == -EINTR && r->state != REQ_DONE)
			cancel(c, r);
	}
	cds_list_del(&r->node);
	busy_add(c, -1);
}

int plock_set(struct plock_ctl *c, const struct plock_who *who, enum plock_type type, uint64_t start, uint64_t end, bool wait)
{
	struct req r;

	req_run(c, &r, MSG_LOCK, who, type, start, end, wait);
	return r.result;
}

int plock_clear(struct plock_ctl *c, const struct plock_who *who, uint64_t start, uint64_t end)
{
	struct req r;

	req_run(c, &r, MSG_UNLOCK, who, PLOCK_READ, start, end, false);
	return r.result == -CSV_E_WITHDRAWN ? 0 : r.result;
}

int plock_get(struct plock_ctl *c, const struct plock_who *who, enum plock_type type, uint64_t start, uint64_t end, bool *ret_found,
	      struct plock *ret)
{
	const struct plock lk = { .node = c->self, .id = who->id, .type = type, .start = start, .end = end };
	struct req r;

	/* What is confirmed to anybody is applied here (PL1), so "nothing" needs no message; what is there may just be given up. */
	if (c->ready && !c->stopped && !plock_table_conflict(c->table, who->key, who->kind, &lk)) {
		*ret_found = false;
		return 0;
	}
	req_run(c, &r, MSG_GET, who, type, start, end, false);
	*ret_found = r.found;
	*ret = r.conflict;
	return r.result;
}

bool plock_concerns(const struct plock_ctl *c, const struct plock_who *who)
{
	const struct change *ch;
	const struct req *r;

	cds_list_for_each_entry(r, &c->reqs, node)
		if (r->op.key == who->key && r->op.kind == who->kind && r->op.lk.id == who->id)
			return true;
	cds_list_for_each_entry(ch, &c->log, node)
		if (ch->op.key == who->key && ch->op.kind == who->kind && ch->op.lk.id == who->id)
			return true;
	return plock_table_holds(c->mine, who->key, who->kind, (struct cluster_node){ 0, 0 }, who->id);
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
