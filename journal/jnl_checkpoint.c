/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jnl_checkpoint.c - the space worker: writes homes, moves the tail, and runs releases.
 *
 * One coroutine, alive only while there is work; releases go before checkpoints, all waiting ones as one batch:
 *
 *	release:    commit + FLUSH -> homes + FLUSH -> revokes committed + FLUSH -> the lock may leave
 *	checkpoint: homes of the oldest records + FLUSH -> header with the new tail + FLUSH -> space
 *
 * The third step of a release is left out only where the header's tail can be moved beyond every copy of those blocks at the same
 * cost, or where no copy is within a replay's reach any more (I3).  If the revokes do not fit (somebody's reserve was used up by
 * earlier releases), the whole log is written home instead: that needs block I/O only, never log space (J8).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "journal/jnl_internal.h"
#include "utils/base/base.h"

#define BATCH 256u

struct batch {
	uint32_t n;
	struct jnl_rec *r[BATCH];
};

static int by_blkno(const void *a, const void *b)
{
	const struct jnl_rec *x = *(struct jnl_rec *const *)a, *y = *(struct jnl_rec *const *)b;

	return x->blkno < y->blkno ? -1 : x->blkno > y->blkno;
}

/* Writes the last committed copies home, then FLUSH (J6, J4). */
static int batch_home(struct jnl *j, struct batch *v)
{
	struct jnl_wave w;
	int r;

	qsort(v->r, v->n, sizeof(v->r[0]), by_blkno);
	jnl_wave_init(&w, j->blk);
	for (uint32_t i = 0; i < v->n; i++) {
		v->r[i]->writing = true;
		jnl_wave_add(&w, BLK_WRITE, v->r[i]->blkno, v->r[i]->image, 1);
	}
	r = jnl_wave_wait(&w);
	if (r < 0)
		return jnl_fail(j, r, "checkpoint: write in place");
	r = jnl_flush(j, "checkpoint: flush");
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < v->n; i++) {
		v->r[i]->writing = false;
		jnl_rec_home(j, v->r[i]);
	}
	sched_wake_all(j->s, &j->writing_wq);
	return 0;
}

/* ---- checkpoint ---------------------------------------------------------------------------------------------------- */

/* Copies of the oldest records, as many records as must go to get down to target. */
static void batch_oldest(struct jnl *j, uint32_t target, struct batch *v)
{
	struct jnl_record *rec;
	struct jnl_rec *r;

	v->n = 0;
	cds_list_for_each_entry(rec, &j->records, node) {
		uint32_t used = (j->head + j->cap - rec->pos) % j->cap;

		if ((used ? used : j->cap) <= target || rec == j->committing_record)
			return;
		cds_list_for_each_entry(r, &rec->recs, record_node) {
			if (!r->image || r->revoked_in)
				continue;
			if (v->n == BATCH)
				return;
			v->r[v->n++] = r;
		}
	}
}

static int checkpoint_step(struct jnl *j, uint32_t target)
{
	struct jnl_record *rec;
	struct jnl_rec *r;
	uint32_t tail, used;
	uint64_t seq;
	struct batch v;

	jnl_logical_tail(j, &tail, &seq, &used);
	if (used > target) {
		batch_oldest(j, target, &v);
		if (v.n)
			return batch_home(j, &v);
	}
	if (seq != j->hdr_first_seq)
		return jnl_header_advance(j);
	/* What holds the tail waits for a commit: its own, or that of its revoke. */
	cds_list_for_each_entry(rec, &j->records, node) {
		if (!rec->live)
			continue;
		if (rec == j->committing_record)
			return jnl_commit_wait(j, rec->seq);
		cds_list_for_each_entry(r, &rec->recs, record_node)
			if (r->image && r->revoked_in)
				return jnl_commit_wait(j, r->revoked_in->seq);
	}
	csv_panic("journal %u: nothing holds the tail, %u blocks used, target %u", j->g.slot, j->used, target);
}

/* ---- release -------------------------------------------------------------------------------------------------------- */

#define for_each_owner(j, reqs, req, i, own)                                                       \
	cds_list_for_each_entry(req, reqs, node)                                                   \
		for (i = 0; i < req->n; i++)                                                       \
			if ((own = jnl_own_find(j, req->owner[i])))

static int release_commit(struct jnl *j, struct cds_list_head *reqs)
{
	struct jnl_release_req *req;
	struct jnl_own *own;
	uint64_t want = 0;
	uint32_t i;

	for_each_owner(j, reqs, req, i, own)
		want = csv_max(want, own->last_seq);
	return want > j->stable_seq ? jnl_commit_wait(j, want) : 0;
}

/* An owner named twice must not come twice into one batch. */
static bool batch_has(const struct batch *v, const struct jnl_rec *r)
{
	for (uint32_t i = 0; i < v->n; i++)
		if (v->r[i] == r)
			return true;
	return false;
}

static void batch_owners(struct jnl *j, struct cds_list_head *reqs, struct batch *v)
{
	struct jnl_release_req *req;
	struct jnl_own *own;
	struct jnl_rec *r;
	uint32_t i;

	v->n = 0;
	for_each_owner(j, reqs, req, i, own) {
		cds_list_for_each_entry(r, &own->recs, own_node) {
			csv_assert(!r->revoked_in);
			if (r->image && v->n < BATCH && !batch_has(v, r))
				v->r[v->n++] = r;
		}
	}
}

static int release_homes(struct jnl *j, struct cds_list_head *reqs)
{
	struct batch v;
	int r;

	for (;;) {
		batch_owners(j, reqs, &v);
		if (!v.n)
			return 0;
		r = batch_home(j, &v);
		if (r < 0)
			return r;
	}
}

static int release_revokes(struct jnl *j, struct cds_list_head *reqs)
{
	struct jnl_release_req *req;
	struct jnl_own *own;
	struct jnl_rec *r;
	struct jnl_txn *t;
	uint64_t newest, tail_seq;
	uint32_t i, n, tail, used;
	int ret;

	for (;;) {
		n = 0;
		newest = 0;
		for_each_owner(j, reqs, req, i, own)
			cds_list_for_each_entry(r, &own->recs, own_node) {
				newest = csv_max(newest, r->record->seq);
				n++;
			}
		if (!n)
			return 0;
		jnl_logical_tail(j, &tail, &tail_seq, &used);
		if (tail_seq > newest) {
			ret = jnl_header_advance(j);
		} else {
			t = j->running;
			if (j->used + jnl_record_blocks(t->room_blocks, t->room_revokes + n) <= j->cap)
				break;
			ret = checkpoint_step(j, 0);
		}
		if (ret < 0)
			return ret;
	}
	for_each_owner(j, reqs, req, i, own)
		cds_list_for_each_entry(r, &own->recs, own_node)
			if (!r->revoked_in)
				jnl_rec_revoke(t, r);
	t->room_revokes += n;
	j->st.revokes += n;
	return jnl_commit_wait(j, t->seq);
}

static void release_batch(struct jnl *j)
{
	struct jnl_release_req *req, *tmp;
	struct cds_list_head reqs;
	struct jnl_own *own;
	uint32_t i;
	int r;

	CDS_INIT_LIST_HEAD(&reqs);
	cds_list_for_each_entry_safe(req, tmp, &j->releases, node) {
		cds_list_del(&req->node);
		cds_list_add_tail(&req->node, &reqs);
	}
	r = j->err ? -CSV_E_WITHDRAWN : release_commit(j, &reqs);
	if (!r)
		r = release_homes(j, &reqs);
	if (!r && !j->cfg.mutate_no_revoke_on_release)
		r = release_revokes(j, &reqs);
	cds_list_for_each_entry_safe(req, tmp, &reqs, node) {
		for (i = 0; i < req->n; i++) {
			own = jnl_own_find(j, req->owner[i]);
			if (!own)
				continue;
			csv_assert(own->releasing > 0);
			own->releasing--;
			jnl_own_tidy(j, own);
		}
		cds_list_del(&req->node);
		req->result = r;
		req->done = true;
	}
	sched_wake_all(j->s, &j->space_wq);
}

int jnl_release(struct jnl *j, const struct csv_owner *owner, uint32_t n)
{
	struct jnl_release_req req = { .owner = owner, .n = n };
	struct jnl_own *own;
	bool busy = false;

	csv_assert(!(*coro_flags(j->s) & CORO_IN_TXN));
	if (j->err)
		return -CSV_E_WITHDRAWN;
	for (uint32_t i = 0; i < n && !busy; i++)
		busy = jnl_owner_busy(j, owner[i]);
	if (!busy)
		return 0;
	for (uint32_t i = 0; i < n; i++) {
		own = jnl_own_find(j, owner[i]);
		if (own)
			own->releasing++;
	}
	cds_list_add_tail(&req.node, &j->releases);
	j->st.releases++;
	jnl_space_kick(j, UINT32_MAX);
	while (!req.done)
		sched_wait(j->s, &j->space_wq);
	return req.result;
}

/* ---- the worker ------------------------------------------------------------------------------------------------------ */

static void space_main(void *arg)
{
	struct jnl *j = arg;

	for (;;) {
		if (!cds_list_empty(&j->releases)) {
			release_batch(j);
			continue;
		}
		if (j->err || j->used <= j->ckpt_target)
			break;
		if (checkpoint_step(j, j->ckpt_target) < 0)
			continue;
		if (j->used <= j->ckpt_target) {
			j->st.checkpoints++;
			j->ckpt_target = UINT32_MAX;
		}
	}
	j->ckpt_target = UINT32_MAX;
	j->space_worker = false;
	sched_wake_all(j->s, &j->space_wq);
}

void jnl_space_kick(struct jnl *j, uint32_t target_blk)
{
	if (target_blk < j->ckpt_target)
		j->ckpt_target = target_blk;
	if (j->space_worker)
		return;
	if (sched_spawn(j->s, "jnl-space", space_main, j) < 0) {
		jnl_fail(j, -ENOMEM, "checkpoint: out of memory for the coroutine");
		/* Nothing runs that could answer them. */
		if (!cds_list_empty(&j->releases))
			release_batch(j);
		return;
	}
	j->space_worker = true;
}

void jnl_space_check(struct jnl *j)
{
	if (j->used > j->cap / 2)
		jnl_space_kick(j, j->cap / 4);
}

int jnl_checkpoint(struct jnl *j, uint32_t keep_blk)
{
	uint64_t until = j->running->seq;

	csv_assert(!(*coro_flags(j->s) & CORO_IN_TXN));
	/* What is committed later is not this caller's. */
	while (!j->err && j->used > keep_blk && j->hdr_first_seq < until) {
		jnl_space_kick(j, keep_blk);
		sched_wait(j->s, &j->space_wq);
	}
	return j->err ? -CSV_E_WITHDRAWN : 0;
}
