/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jnl_txn.c - handles, the running transaction, and the table of copies in the log (recs) by block and by owner.
 *
 * Nothing here fails inside a handle: jnl_begin() fills the pools of recs and owners for all room that the running transaction
 * has promised.
 */
#include <errno.h>
#include <stdlib.h>

#include "journal/jnl_internal.h"
#include "utils/base/base.h"
#include "utils/base/prng.h"

#define POOL_KEEP 4096u

/* ---- recs ---------------------------------------------------------------------------------------------------------- */

static struct cds_hlist_head *rec_bucket(struct jnl *j, uint64_t blkno)
{
	uint64_t x = blkno;

	return &j->rec_hash[csv_splitmix64(&x) & j->rec_mask];
}

struct jnl_rec *jnl_rec_find(struct jnl *j, uint64_t blkno)
{
	struct jnl_rec *r;

	cds_hlist_for_each_entry_2(r, rec_bucket(j, blkno), hash)
		if (r->blkno == blkno)
			return r;
	return NULL;
}

struct jnl_rec *jnl_rec_take(struct jnl *j)
{
	struct jnl_rec *r;

	csv_assert(j->n_rec_pool > 0);
	r = cds_list_first_entry(&j->rec_pool, struct jnl_rec, own_node);
	cds_list_del(&r->own_node);
	j->n_rec_pool--;
	memset(r, 0, sizeof(*r));
	return r;
}

void jnl_rec_put(struct jnl *j, struct jnl_rec *r)
{
	if (j->n_rec_pool >= POOL_KEEP + j->running->room_blocks) {
		free(r);
		return;
	}
	cds_list_add(&r->own_node, &j->rec_pool);
	j->n_rec_pool++;
}

static void record_unlive(struct jnl_record *rec)
{
	csv_assert(rec->live > 0);
	if (!--rec->live) {
		free(rec->buf);
		rec->buf = NULL;
	}
}

void jnl_rec_insert(struct jnl *j, struct jnl_rec *r)
{
	struct jnl_own *own = jnl_own_find(j, r->owner);

	csv_assert(own && !jnl_rec_find(j, r->blkno));
	r->own = own;
	cds_list_add_tail(&r->own_node, &own->recs);
	cds_hlist_add_head(&r->hash, rec_bucket(j, r->blkno));
	j->n_recs++;
}

void jnl_rec_drop(struct jnl *j, struct jnl_rec *r)
{
	struct jnl_own *own = r->own;

	csv_assert(!r->writing);
	if (r->b)
		r->b->logged = NULL;
	if (r->revoked_in) {
		cds_list_del(&r->rev_node);
		r->revoked_in->n_revokes--;
	}
	cds_list_del(&r->record_node);
	if (r->image)
		record_unlive(r->record);
	cds_list_del(&r->own_node);
	cds_hlist_del(&r->hash);
	j->n_recs--;
	jnl_rec_put(j, r);
	jnl_own_tidy(j, own);
}

void jnl_rec_home(struct jnl *j, struct jnl_rec *r)
{
	struct jnl_buf *b = r->b;

	(void)j;
	r->image = NULL;
	r->b = NULL;
	record_unlive(r->record);
	if (!b)
		return;
	b->logged = NULL;
	if (!jnl_buf_busy(b) && b->clean)
		b->clean(b);
}

void jnl_rec_revoke(struct jnl_txn *t, struct jnl_rec *r)
{
	csv_assert(!r->revoked_in);
	r->revoked_in = t;
	cds_list_add_tail(&r->rev_node, &t->revokes);
	t->n_revokes++;
}

void jnl_start_advance(struct jnl *j, uint64_t seq)
{
	struct jnl_record *rec;
	struct jnl_rec *r, *tmp;

	if (seq <= j->start_seq)
		return;
	j->start_seq = seq;
	cds_list_for_each_entry(rec, &j->records, node) {
		if (rec->seq >= seq)
			break;
		cds_list_for_each_entry_safe(r, tmp, &rec->recs, record_node)
			jnl_rec_drop(j, r);
	}
}

/* ---- owners --------------------------------------------------------------------------------------------------------- */

static struct cds_hlist_head *own_bucket(struct jnl *j, struct csv_owner o)
{
	uint64_t x = o.id ^ (uint64_t)o.type << 56;

	return &j->own_hash[csv_splitmix64(&x) & j->own_mask];
}

struct jnl_own *jnl_own_find(struct jnl *j, struct csv_owner o)
{
	struct jnl_own *own;

	cds_hlist_for_each_entry_2(own, own_bucket(j, o), hash)
		if (csv_owner_eq(own->owner, o))
			return own;
	return NULL;
}

struct jnl_own *jnl_own_touch(struct jnl *j, struct jnl_txn *t, struct csv_owner o)
{
	struct jnl_own *own = jnl_own_find(j, o);

	if (!own) {
		csv_assert(j->n_own_pool > 0);
		own = cds_list_first_entry(&j->own_pool, struct jnl_own, recs);
		cds_list_del(&own->recs);
		j->n_own_pool--;
		memset(own, 0, sizeof(*own));
		CDS_INIT_LIST_HEAD(&own->recs);
		CDS_INIT_LIST_HEAD(&own->touch_node);
		own->owner = o;
		cds_hlist_add_head(&own->hash, own_bucket(j, o));
		j->n_own++;
	}
	csv_assertf(!own->releasing, "%s %llu is being released", mhdr_owner_name(o.type), (unsigned long long)o.id);
	if (own->last_seq != t->seq) {
		own->last_seq = t->seq;
		cds_list_del(&own->touch_node);
		cds_list_add_tail(&own->touch_node, &t->owners);
	}
	return own;
}

void jnl_own_tidy(struct jnl *j, struct jnl_own *own)
{
	if (!cds_list_empty(&own->recs) || own->last_seq > j->stable_seq || own->releasing)
		return;
	cds_hlist_del(&own->hash);
	cds_list_del(&own->touch_node);
	j->n_own--;
	if (j->n_own_pool >= POOL_KEEP + j->running->room_blocks + j->running->room_revokes) {
		free(own);
		return;
	}
	cds_list_add(&own->recs, &j->own_pool);
	j->n_own_pool++;
}

static int pools_fill(struct jnl *j, uint32_t recs, uint32_t owns)
{
	while (j->n_rec_pool < recs) {
		struct jnl_rec *r = malloc(sizeof(*r));

		if (!r)
			return -ENOMEM;
		cds_list_add(&r->own_node, &j->rec_pool);
		j->n_rec_pool++;
	}
	while (j->n_own_pool < owns) {
		struct jnl_own *o = malloc(sizeof(*o));

		if (!o)
			return -ENOMEM;
		cds_list_add(&o->recs, &j->own_pool);
		j->n_own_pool++;
	}
	return 0;
}

/* ---- transactions ---------------------------------------------------------------------------------------------------- */

struct jnl_txn *jnl_txn_new(uint64_t seq)
{
	struct jnl_txn *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->seq = seq;
	CDS_INIT_LIST_HEAD(&t->bufs);
	CDS_INIT_LIST_HEAD(&t->revokes);
	CDS_INIT_LIST_HEAD(&t->callbacks);
	CDS_INIT_LIST_HEAD(&t->owners);
	return t;
}

void jnl_txn_free(struct jnl_txn *t)
{
	free(t);
}

bool jnl_txn_empty(const struct jnl_txn *t)
{
	return !t->n_bufs && !t->n_revokes && !t->publishes && cds_list_empty((struct cds_list_head *)&t->callbacks);
}

void jnl_run_callbacks(struct cds_list_head *list, int status)
{
	while (!cds_list_empty(list)) {
		struct jnl_on_commit *c = cds_list_first_entry(list, struct jnl_on_commit, node);

		cds_list_del(&c->node);
		c->fn(c, status);
	}
}

/* ---- the user's side -------------------------------------------------------------------------------------------------- */

void jnl_buf_init(struct jnl_buf *b, uint64_t blkno, void *data, struct csv_owner owner)
{
	memset(b, 0, sizeof(*b));
	b->blkno = blkno;
	b->data = data;
	b->owner = owner;
	CDS_INIT_LIST_HEAD(&b->run_node);
}

bool jnl_buf_busy(const struct jnl_buf *b)
{
	return b->running || b->committing || b->logged;
}

/* Blocks that must be free for the running transaction to grow by this (I2). */
static uint32_t need_blocks(const struct jnl *j, uint32_t blocks, uint32_t revokes)
{
	const struct jnl_txn *t = j->running;

	return jnl_record_blocks(t->room_blocks + blocks, t->room_revokes + revokes) +
	       jnl_release_reserve(j->n_recs + t->room_blocks + blocks);
}

int jnl_begin(struct jnl *j, uint32_t blocks, uint32_t revokes, struct jnl_handle *ret_h)
{
	uint32_t quarter = j->cap / 4, need;
	bool stalled = false;
	int r;

	csv_assert(!(*coro_flags(j->s) & CORO_IN_TXN));
	/* The first test also keeps the sums below from wrapping. */
	if (blocks > quarter || revokes > quarter * CSV_JDESC_TAGS || jnl_record_blocks(blocks, revokes) > quarter)
		return -E2BIG;
	co_mutex_lock(j->s, &j->begin_lock);
	for (;;) {
		struct jnl_txn *t = j->running;

		if (j->err || j->shutting_down) {
			r = -CSV_E_WITHDRAWN;
			break;
		}
		if (t->closed) {
			sched_wait(j->s, &j->begin_wq);
			continue;
		}
		if (t->room_blocks + t->room_revokes &&
		    jnl_record_blocks(t->room_blocks + blocks, t->room_revokes + revokes) > quarter) {
			jnl_commit_request(j, t->seq);
			sched_wait(j->s, &j->begin_wq);
			continue;
		}
		need = need_blocks(j, blocks, revokes);
		if (j->used + need > j->cap) {
			if (!stalled)
				j->st.stalls++;
			stalled = true;
			jnl_space_kick(j, csv_min(j->cap - csv_min(need, j->cap), j->cap / 4));
			sched_wait(j->s, &j->begin_wq);
			continue;
		}
		r = pools_fill(j, t->room_blocks + blocks, t->room_blocks + t->room_revokes + blocks + revokes);
		if (r < 0)
			break;
		if (!j->commit_timer.armed)
			timer_set(j->s, &j->commit_timer, sched_now_ns(j->s) + j->cfg.commit_interval_ms * NS_PER_MS);
		t->handles++;
		t->room_blocks += blocks;
		t->room_revokes += revokes;
		*ret_h = (struct jnl_handle){ .j = j, .txn = t, .blocks_left = blocks, .revokes_left = revokes };
		*coro_flags(j->s) |= CORO_IN_TXN;
		j->st.handles++;
		break;
	}
	co_mutex_unlock(j->s, &j->begin_lock);
	return r;
}

void jnl_dirty(struct jnl_handle *h, struct jnl_buf *b)
{
	struct jnl_txn *t = h->txn;

	csv_assert(t && t->handles);
	if (b->running) {
		csv_assert(b->running == t);
		return;
	}
	csv_assertf(h->blocks_left > 0, "block %llu: no room left in this handle", (unsigned long long)b->blkno);
	h->blocks_left--;
	jnl_own_touch(h->j, t, b->owner);
	b->running = t;
	cds_list_add_tail(&b->run_node, &t->bufs);
	t->n_bufs++;
}

void jnl_revoke(struct jnl_handle *h, struct jnl_buf *b)
{
	struct jnl_txn *t = h->txn;
	struct jnl_rec *r;

	csv_assert(t && t->handles);
	jnl_own_touch(h->j, t, b->owner);
	if (b->running) {
		csv_assert(b->running == t);
		cds_list_del(&b->run_node);
		t->n_bufs--;
		b->running = NULL;
	}
	r = b->sealed ? b->sealed : jnl_rec_find(h->j, b->blkno);
	if (b->sealed)
		b->sealed->b = NULL;
	if (b->logged)
		b->logged->b = NULL;
	b->sealed = b->logged = NULL;
	b->committing = NULL;
	/* Without a copy that a replay could reach there is nothing to cancel. */
	if (!r || r->revoked_in)
		return;
	csv_assertf(h->revokes_left > 0, "block %llu: no room for a revoke left in this handle", (unsigned long long)b->blkno);
	h->revokes_left--;
	jnl_rec_revoke(t, r);
	h->j->st.revokes++;
}

void jnl_publishes_data(struct jnl_handle *h)
{
	h->txn->publishes = true;
}

void jnl_on_commit(struct jnl_handle *h, struct jnl_on_commit *c)
{
	struct jnl *j = h->j;

	if (j->err) {
		cds_list_add_tail(&c->node, &j->late_callbacks);
		sched_post(j->s, &j->fail_job);
		return;
	}
	cds_list_add_tail(&c->node, &h->txn->callbacks);
}

uint64_t jnl_end(struct jnl_handle *h)
{
	struct jnl *j = h->j;
	struct jnl_txn *t = h->txn;
	uint64_t seq = t->seq;

	csv_assert(t->handles > 0);
	*coro_flags(j->s) &= ~CORO_IN_TXN;
	t->room_blocks -= h->blocks_left;
	t->room_revokes -= h->revokes_left;
	if (!--t->handles)
		sched_wake_all(j->s, &j->handles_wq);
	sched_wake_all(j->s, &j->begin_wq);
	memset(h, 0, sizeof(*h));
	return seq;
}

bool jnl_owner_busy(struct jnl *j, struct csv_owner owner)
{
	struct jnl_own *own = jnl_own_find(j, owner);

	return own && (own->last_seq > j->stable_seq || !cds_list_empty(&own->recs));
}
