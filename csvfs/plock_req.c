/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * plock_req.c - requests: from the program here to all members and back; applying what all say.
 *
 *	NEW --cluster_send--> SENT --own delivery--> APPLIED (held in the table; waits for ACKs) --all acks, settled--> done
 *	                        |                      ^
 *	                        |                      | granted
 *	                        `------------------> WAITING
 *	APPLIED --a signal, and a lost node is not proven off--> taken back: not held
 *	any of them --view change--> NEW, asked again when the tables are built;  unlocks are done at once then (PL3: they only
 *	take from what this node will say it holds), and so are locks whose program does not want to wait any more (but PL5)
 */
#include "csvfs/plock_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "utils/base/base.h"
#include "utils/base/cursor.h"
#include "utils/base/err.h"

#define SETTLE_EVERY_MS 10u
/* LOCK, UNLOCK, GET, CANCEL: u8 type, u8 kind, u8 plock_type, u8 wait, le32 pid, le64 key, id, start, end, request */
#define OP_BYTES 48u

struct stashed { struct cds_list_head node; struct cluster_node from; size_t len; uint8_t buf[]; };
struct owed { struct cds_list_head node; struct cluster_node to; uint64_t request; };	/* an ACK not given yet: not settled */

static bool is_settled(const struct plock_ctl *c)
{
	return c->not_settled || c->user.settled(c->user.arg);
}

static bool is_self(const struct plock_ctl *c, struct cluster_node n)
{
	return n.nodeid == c->self.nodeid && n.incarnation == c->self.incarnation;
}

/* ---- as a message */

static size_t op_put(const struct plock_op *op, uint8_t buf[OP_BYTES])
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

static bool op_get(const void *buf, size_t len, struct cluster_node from, struct plock_op *ret)
{
	struct csv_cursor c;
	uint8_t kind, type, wait;

	if (len != OP_BYTES)
		return false;
	csv_cursor_init_ro(&c, buf, len);
	ret->type = (enum plock_msg)csv_cur_u8(&c);
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

/* ---- what becomes of them */

static struct plock_req *req_find(struct plock_ctl *c, uint64_t request)
{
	struct plock_req *r;

	cds_list_for_each_entry(r, &c->reqs, node)
		if (r->op.request == request)
			return r;
	return NULL;
}

void plock_req_done(struct plock_ctl *c, struct plock_req *r, int result)
{
	if (r->state == PLOCK_REQ_DONE)
		return;
	r->state = PLOCK_REQ_DONE;
	r->result = result;
	sched_wake_all(c->env->sched, &r->wq);
}

static void req_send(struct plock_ctl *c, struct plock_req *r)
{
	struct plock_op op = r->op;
	uint8_t buf[OP_BYTES];
	int err;

	r->state = PLOCK_REQ_SENT;
	r->acked = 0;
	op.wait |= r->gave_up;		/* PL5: where it wants more than it had, somebody may have come between */
	err = cluster_send(c->env->cluster, CHAN_PLOCK, buf, op_put(&op, buf));
	if (err == -ENOTCONN)
		r->state = PLOCK_REQ_NEW;
	else if (err)
		plock_req_done(c, r, err);
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

static void take_back(struct plock_ctl *c, struct plock_req *r);

/* PL1 */
static void req_look(struct plock_ctl *c, struct plock_req *r)
{
	const struct cluster_view *v = cluster_current(c->env->cluster);

	if (r->state != PLOCK_REQ_APPLIED || !v || (!c->no_ack && (r->acked | 1ull << view_index(v, c->self.nodeid)) != view_mask(v)))
		return;
	if (!is_settled(c)) {
		if (r->cancelled)
			take_back(c, r);
		timer_set(c->env->sched, &c->settle, sched_now_ns(c->env->sched) + SETTLE_EVERY_MS * NS_PER_MS);
		return;
	}
	plock_log_confirm(c, r->op.request);
	plock_req_done(c, r, 0);
}

static void ack_owe(struct plock_ctl *c, struct cluster_node to, uint64_t request)
{
	struct owed *o = calloc(1, sizeof(*o));

	if (!o) {
		plock_ctl_fail(c, "out of memory for the locks of programs");
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
	struct plock_req *r;

	if (!request)
		return;			/* taken back so far: nobody asked for it, nobody waits */
	if (!is_self(c, node)) {
		ack_owe(c, node, request);
		return;
	}
	r = req_find(c, request);
	if (c->closing && (!r || r->state == PLOCK_REQ_DONE))
		return;			/* who asked is gone, and so is this node soon */
	csv_assertf(r && (r->state == PLOCK_REQ_SENT || r->state == PLOCK_REQ_WAITING),
		    "a lock of this node was granted that nobody here asked for");
	r->state = PLOCK_REQ_APPLIED;
	r->gave_up |= plock_log_weakens(c, &r->op);
	plock_log_add(c, &r->op, false);
}

void plock_req_on_granted(void *arg, struct cluster_node node, uint64_t request)
{
	held(arg, node, request);
}

static void look_at_all(struct plock_ctl *c)
{
	struct plock_req *r, *next;

	ack_give(c);
	cds_list_for_each_entry_safe(r, next, &c->reqs, node)
		req_look(c, r);
}

void plock_req_on_timer(struct timer *t)
{
	look_at_all(container_of(t, struct plock_ctl, settle));
}

static void op_say(struct plock_ctl *c, const struct plock_op *op)
{
	uint8_t buf[OP_BYTES];
	int err = cluster_send(c->env->cluster, CHAN_PLOCK, buf, op_put(op, buf));

	if (err && err != -ENOTCONN)		/* without a view: the next one's tables are made of what is held */
		plock_ctl_fail(c, "out of memory for the locks of programs");
}

static bool owner_asks_more(const struct plock_ctl *c, const struct plock_req *r)
{
	const struct plock_req *o;

	cds_list_for_each_entry(o, &c->reqs, node)
		if (o != r && o->state != PLOCK_REQ_DONE && o->op.key == r->op.key && o->op.kind == r->op.kind && o->op.lk.id == r->op.lk.id)
			return true;
	return false;
}

/*
 * Its program does not want to wait for the proof about a lost node.  Everybody has it in the table: what is said now leads there from it
 * to what its owner had, by steps down only.  Not while another thread of the owner asks, too: what that one gets would be taken along.
 * While nobody is lost the others' words are here in a moment: a program's signals shall not break what is as good as held.
 */
static void take_back(struct plock_ctl *c, struct plock_req *r)
{
	if (r->gave_up || is_settled(c) || owner_asks_more(c, r))
		return;
	plock_log_take_back(c, &r->op, op_say);
	plock_req_done(c, r, -EINTR);
}

/* ---- applying */

static void apply_own_end(struct plock_ctl *c, uint64_t request, int result)
{
	struct plock_req *r = req_find(c, request);

	if (r && r->state != PLOCK_REQ_DONE)
		plock_req_done(c, r, result);
}

static void apply_lock(struct plock_ctl *c, struct cluster_node from, const struct plock_op *op)
{
	int err = plock_table_lock(c->table, op->key, op->kind, &op->lk, op->request, op->wait);
	struct plock_req *r;

	if (err == -ENOMEM)
		plock_ctl_fail(c, "out of memory for the locks of programs");
	/* flock gives the old lock up before it asks for the new one, whatever comes of that. */
	if (is_self(c, from) && op->kind == PLOCK_FLOCK && err) {
		struct plock_op gone = *op;

		gone.type = PLOCK_MSG_UNLOCK;
		gone.request = 0;
		plock_log_add(c, &gone, true);
	}
	if (!err) {
		held(c, from, op->request);
	} else if (is_self(c, from)) {
		r = req_find(c, op->request);
		if (r && err == -EAGAIN && op->wait)
			r->state = PLOCK_REQ_WAITING;
		else
			apply_own_end(c, op->request, err);
	}
}

static void apply_get(struct plock_ctl *c, const struct plock_op *op)
{
	struct plock_req *r = req_find(c, op->request);
	const struct plock *in_the_way = plock_table_conflict(c->table, op->key, op->kind, &op->lk);

	if (!r || r->state == PLOCK_REQ_DONE)
		return;
	r->found = in_the_way != NULL;
	if (in_the_way)
		r->conflict = *in_the_way;
	plock_req_done(c, r, 0);
}

static void apply(struct plock_ctl *c, struct cluster_node from, const struct plock_op *op)
{
	struct plock_req *r;
	int err;

	switch (op->type) {
	case PLOCK_MSG_LOCK:
		apply_lock(c, from, op);
		break;
	case PLOCK_MSG_UNLOCK:
		err = plock_table_unlock(c->table, op->key, op->kind, &op->lk);
		if (err == -ENOMEM)
			plock_ctl_fail(c, "out of memory for the locks of programs");
		if (is_self(c, from)) {
			if (!err)
				plock_log_add(c, op, true);
			apply_own_end(c, op->request, err);
		}
		break;
	case PLOCK_MSG_GET:
		if (is_self(c, from))
			apply_get(c, op);
		break;
	case PLOCK_MSG_CANCEL:
		if (plock_table_cancel(c->table, from, op->request)) {
			if (is_self(c, from))
				apply_own_end(c, op->request, -EINTR);
			break;
		}
		r = is_self(c, from) ? req_find(c, op->request) : NULL;
		if (r && r->state == PLOCK_REQ_APPLIED)		/* granted first */
			take_back(c, r);
		break;
	case PLOCK_MSG_LIST:
		break;
	}
}

static void became_ready(struct plock_ctl *c)
{
	struct stashed *s, *next;
	struct plock_req *r, *next_req;
	struct plock_op op;

	c->ready = true;
	cds_list_for_each_entry_safe(s, next, &c->stash, node) {
		if (op_get(s->buf, s->len, s->from, &op))
			apply(c, s->from, &op);
		cds_list_del(&s->node);
		free(s);
	}
	cds_list_for_each_entry_safe(r, next_req, &c->reqs, node) {
		if (r->state != PLOCK_REQ_NEW)
			continue;
		if (r->cancelled && !r->gave_up)
			plock_req_done(c, r, -EINTR);
		else
			req_send(c, r);
	}
	look_at_all(c);
}

static void stash(struct plock_ctl *c, struct cluster_node from, const void *buf, size_t len)
{
	struct stashed *s = malloc(sizeof(*s) + len);

	if (!s) {
		plock_ctl_fail(c, "out of memory for the locks of programs");
		return;
	}
	s->from = from;
	s->len = len;
	memcpy(s->buf, buf, len);
	cds_list_add_tail(&s->node, &c->stash);
}

void plock_req_on_message(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	const struct cluster_view *v;
	struct plock_ctl *c = arg;
	struct plock_op op;
	bool last;

	v = cluster_current(c->env->cluster);
	if (c->stopped || c->failed || !v || !len)
		return;
	if (*(const uint8_t *)buf == PLOCK_MSG_LIST) {
		/* A second list, or one that makes no sense: not of a member that behaves, and no message of ours. */
		if (c->ready || c->told & 1ull << view_index(v, from.nodeid) || !plock_list_heard(c, from, buf, len, &last) || !last)
			return;
		c->told |= 1ull << view_index(v, from.nodeid);
		if (c->told == view_mask(v))
			became_ready(c);
		return;
	}
	if (!op_get(buf, len, from, &op) || op.type < PLOCK_MSG_LOCK || op.type > PLOCK_MSG_CANCEL)
		return;
	if (!c->ready) {
		stash(c, from, buf, len);
		return;
	}
	apply(c, from, &op);
	look_at_all(c);
}

void plock_req_on_ack(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	const struct cluster_view *v;
	struct plock_ctl *c = arg;
	struct le64 request;
	struct plock_req *r;

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

void plock_req_forget_view(struct plock_ctl *c)
{
	struct stashed *s, *next_stashed;
	struct owed *o, *next_owed;

	cds_list_for_each_entry_safe(s, next_stashed, &c->stash, node) {
		cds_list_del(&s->node);
		free(s);
	}
	cds_list_for_each_entry_safe(o, next_owed, &c->owed, node) {
		cds_list_del(&o->node);
		free(o);
	}
}

/* ---- of a program here */

static void cancel(struct plock_ctl *c, struct plock_req *r)
{
	struct plock_op op = r->op;
	uint8_t buf[OP_BYTES];

	r->cancelled = true;
	if (r->gave_up)
		return;			/* PL5 */
	if (r->state == PLOCK_REQ_NEW) {
		plock_req_done(c, r, -EINTR);
		return;
	}
	if (r->state == PLOCK_REQ_APPLIED) {
		take_back(c, r);
		return;
	}
	op.type = PLOCK_MSG_CANCEL;
	/* Lost with the view: then it ends with that (view_end). */
	cluster_send(c->env->cluster, CHAN_PLOCK, buf, op_put(&op, buf));
}

/* Awaits its end; what was cancelled may have been confirmed first, then it is held. */
void plock_req_run(struct plock_ctl *c, struct plock_req *r, enum plock_msg type, const struct plock_who *who, enum plock_type lock_type,
		   uint64_t start, uint64_t end, bool wait)
{
	*r = (struct plock_req){ .op = { .type = type, .kind = who->kind, .wait = wait, .key = who->key, .request = ++c->next_request } };
	r->op.lk = (struct plock){ .node = c->self, .id = who->id, .type = lock_type, .pid = who->pid, .start = start, .end = end };
	if (c->stopped || c->closing) {
		r->result = -CSV_E_WITHDRAWN;
		return;
	}
	waitq_init(&r->wq);
	cds_list_add_tail(&r->node, &c->reqs);
	plock_busy_add(c, 1);
	if (c->ready || (c->said && type == PLOCK_MSG_UNLOCK && !c->unlock_untold)) {
		req_send(c, r);
	} else if (type == PLOCK_MSG_UNLOCK) {
		plock_log_add(c, &r->op, true);
		plock_req_done(c, r, 0);
	}
	while (r->state != PLOCK_REQ_DONE) {
		if (r->cancelled || type == PLOCK_MSG_UNLOCK)
			sched_wait(c->env->sched, &r->wq);
		else if (sched_wait_intr(c->env->sched, &r->wq) == -EINTR && r->state != PLOCK_REQ_DONE)
			cancel(c, r);
	}
	cds_list_del(&r->node);
	plock_busy_add(c, -1);
}
