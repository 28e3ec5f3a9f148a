/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * plock_hold.c - what this node holds (PL3), and telling it to the others in each new view.
 *
 * It is `mine`, behind which comes the log of own changes that are applied and not all confirmed yet: in the order of application,
 * because an unlock may overtake the confirmation of a lock.  At a view change the confirmed ones of the log go into `mine`; the
 * others are forgotten and asked for again.
 */
#include "csvfs/plock_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "utils/base/base.h"
#include "utils/base/cursor.h"
#include "utils/base/err.h"

#define ENTRY_BYTES 44u
#define LIST_HEAD_BYTES 4u
#define LIST_MAX ((CLUSTER_MSG_MAX - 256u - LIST_HEAD_BYTES) / ENTRY_BYTES)

struct change { struct cds_list_head node; struct plock_op op; bool confirmed; };

static void mine_apply(struct plock_ctl *c, const struct plock_op *op)
{
	uint64_t before = plock_table_count(c->mine);
	struct plock lk = op->lk;
	int err;

	lk.node = (struct cluster_node){ 0, 0 };	/* ours; asked for in whichever life */
	if (op->type == PLOCK_MSG_LOCK)
		err = plock_table_put(c->mine, op->key, op->kind, &lk);
	else
		err = plock_table_unlock(c->mine, op->key, op->kind, &lk);
	if (err)
		plock_ctl_fail(c, "out of memory for the locks of programs");
	plock_busy_add(c, (int64_t)(plock_table_count(c->mine) - before));
}

static void change_free(struct plock_ctl *c, struct change *ch)
{
	cds_list_del(&ch->node);
	free(ch);
	plock_busy_add(c, -1);
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

void plock_log_add(struct plock_ctl *c, const struct plock_op *op, bool confirmed)
{
	struct change *ch = calloc(1, sizeof(*ch));

	if (!ch) {
		plock_ctl_fail(c, "out of memory for the locks of programs");
		return;
	}
	ch->op = *op;
	ch->confirmed = confirmed;
	cds_list_add_tail(&ch->node, &c->log);
	plock_busy_add(c, 1);
	log_fold(c);
}

void plock_log_confirm(struct plock_ctl *c, uint64_t request)
{
	struct change *ch;

	cds_list_for_each_entry(ch, &c->log, node)
		if (ch->op.request == request)
			ch->confirmed = true;
	log_fold(c);
}

/* A view ended: what was not confirmed is not held. */
void plock_log_settle(struct plock_ctl *c)
{
	struct change *ch, *next;

	cds_list_for_each_entry_safe(ch, next, &c->log, node) {
		if (ch->confirmed)
			mine_apply(c, &ch->op);
		change_free(c, ch);
	}
}

void plock_log_free(struct plock_ctl *c)
{
	struct change *ch, *next;

	cds_list_for_each_entry_safe(ch, next, &c->log, node)
		change_free(c, ch);
}

bool plock_log_concerns(const struct plock_ctl *c, const struct plock_who *who)
{
	const struct change *ch;

	cds_list_for_each_entry(ch, &c->log, node)
		if (ch->op.key == who->key && ch->op.kind == who->kind && ch->op.lk.id == who->id)
			return true;
	return false;
}

bool plock_log_weakens(const struct plock_ctl *c, const struct plock_op *op)
{
	const struct plock own = { .id = op->lk.id, .start = op->lk.start, .end = op->lk.end };
	const struct change *ch;

	if (op->lk.type != PLOCK_READ)
		return false;
	cds_list_for_each_entry(ch, &c->log, node)
		if (ch->op.type == PLOCK_MSG_LOCK && ch->op.lk.type == PLOCK_WRITE && ch->op.key == op->key && ch->op.kind == op->kind &&
		    ch->op.lk.id == op->lk.id && ch->op.lk.start <= op->lk.end && op->lk.start <= ch->op.lk.end)
			return true;
	return plock_table_writes(c->mine, op->key, op->kind, &own);
}

/* ---- taking back */

struct own { const struct plock_op *op; struct plock_table *table; struct plock *v; uint32_t n; bool failed; };

static bool own_add(void *arg, const struct plock_walk *w)
{
	struct own *o = arg;

	if (w->key == o->op->key && w->kind == o->op->kind && w->lk.id == o->op->lk.id)
		o->failed |= plock_table_put(o->table, w->key, w->kind, &w->lk) != 0;
	return true;
}

static bool own_list(void *arg, const struct plock_walk *w)
{
	struct own *o = arg;

	o->v[o->n++] = w->lk;
	return true;
}

static int by_start(const void *a, const void *b)
{
	const struct plock *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static void no_grant(void *arg, struct cluster_node node, uint64_t request)
{
	(void)arg, (void)node, (void)request;
}

/* What its owner holds, in order.  False: out of memory. */
static bool own_read(struct plock_ctl *c, struct own *o)
{
	struct change *ch;

	o->table = plock_table_new(no_grant, NULL);
	if (!o->table)
		return false;
	plock_table_walk(c->mine, own_add, o);
	cds_list_for_each_entry(ch, &c->log, node) {
		struct plock lk = ch->op.lk;

		if (ch->op.key != o->op->key || ch->op.kind != o->op->kind || lk.id != o->op->lk.id)
			continue;
		lk.node = (struct cluster_node){ 0, 0 };
		o->failed |= (ch->op.type == PLOCK_MSG_LOCK ? plock_table_put(o->table, ch->op.key, ch->op.kind, &lk) :
							     plock_table_unlock(o->table, ch->op.key, ch->op.kind, &lk)) != 0;
	}
	o->v = calloc(plock_table_count(o->table) + 1, sizeof(*o->v));
	if (!o->v || o->failed)
		return false;
	plock_table_walk(o->table, own_list, o);
	qsort(o->v, o->n, sizeof(*o->v), by_start);
	return true;
}

static void part_say(struct plock_ctl *c, const struct plock_op *op, enum plock_msg type, uint64_t start, uint64_t end,
		     void (*say)(struct plock_ctl *c, const struct plock_op *op))
{
	struct plock_op part = *op;

	part.type = type;
	part.request = 0;
	part.wait = false;
	part.lk.type = PLOCK_READ;
	part.lk.start = start;
	part.lk.end = end;
	say(c, &part);
}

void plock_log_take_back(struct plock_ctl *c, const struct plock_op *op, void (*say)(struct plock_ctl *c, const struct plock_op *op))
{
	struct own o = { .op = op };
	struct change *ch, *next;
	uint64_t at = op->lk.start;
	bool end = false;

	cds_list_for_each_entry_safe(ch, next, &c->log, node)
		if (ch->op.request == op->request)
			change_free(c, ch);
	log_fold(c);
	if (!own_read(c, &o))
		plock_ctl_fail(c, "out of memory for the locks of programs");
	/* flock changes by giving up first, also on one node: who is interrupted then may have nothing left. */
	if (op->kind == PLOCK_FLOCK && op->lk.type == PLOCK_WRITE)
		o.n = 0;
	for (uint32_t i = 0; i < o.n && !end; i++) {
		const struct plock *h = &o.v[i];
		uint64_t first = csv_max(h->start, at), last = csv_min(h->end, op->lk.end);

		if (h->end < at || h->start > op->lk.end)
			continue;
		if (first > at)
			part_say(c, op, PLOCK_MSG_UNLOCK, at, first - 1, say);
		if (op->lk.type == PLOCK_WRITE && h->type == PLOCK_READ)
			part_say(c, op, PLOCK_MSG_LOCK, first, last, say);
		end = last == op->lk.end;
		at = last + 1;
	}
	if (!end)
		part_say(c, op, PLOCK_MSG_UNLOCK, at, op->lk.end, say);
	free(o.v);
	plock_table_free(o.table);
}

/* ---- lists */

/* LIST: u8 type, u8 last, le16 count, then entries: u8 kind, u8 plock_type, le16 0, le32 pid, le64 key, id, start, end, (le32 0) */
struct list_msg { struct plock_ctl *c; uint8_t *buf; struct csv_cursor cur; unsigned count; };

static void list_send(struct list_msg *l, bool last)
{
	struct csv_cursor head;
	int err;

	csv_cursor_init(&head, l->buf, LIST_HEAD_BYTES);
	csv_put_u8(&head, PLOCK_MSG_LIST);
	csv_put_u8(&head, last);
	csv_put_u16(&head, (uint16_t)l->count);
	err = cluster_send(l->c->env->cluster, CHAN_PLOCK, l->buf, csv_cur_used(&l->cur));
	if (err && err != -ENOTCONN)		/* without a view: said again in the next */
		plock_ctl_fail(l->c, "out of memory while the locks of programs were announced");
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

void plock_list_tell(struct plock_ctl *c)
{
	struct list_msg l = { .c = c, .buf = malloc(LIST_HEAD_BYTES + LIST_MAX * ENTRY_BYTES) };

	if (!l.buf) {
		plock_ctl_fail(c, "out of memory while the locks of programs were announced");
		return;
	}
	csv_cursor_init(&l.cur, l.buf, LIST_HEAD_BYTES + LIST_MAX * ENTRY_BYTES);
	csv_cur_skip(&l.cur, LIST_HEAD_BYTES);
	plock_table_walk(c->mine, list_add, &l);
	list_send(&l, true);
	free(l.buf);
}

/* False: malformed.  Entries are the sender's own, so one that lies harms its own locks and those it claims. */
bool plock_list_heard(struct plock_ctl *c, struct cluster_node from, const void *buf, size_t len, bool *ret_last)
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
			plock_ctl_fail(c, "out of memory for the locks of programs");
	}
	return true;
}
