/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jnl_commit.c - the commit worker: closes the running transaction, seals copies, writes one record, flushes, wakes.
 *
 * One coroutine, alive only while there is something to commit.  Whoever asks during a commit is served by the next one, all
 * together: one record and one flush.
 *
 *	close -> last handle ends -> seal (no await: J5) -> [FLUSH when data is published: J1] -> write -> FLUSH -> durable
 *
 * A record is one run of blocks (wrapping): descriptors, images, commit block.  The commit block's checksum covers all of it, so
 * all is written at once and one FLUSH is enough; a record of which a piece is missing is the end of the log.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "journal/jnl_internal.h"
#include "utils/base/base.h"
#include "utils/base/crc32c.h"

static void *record_block(struct jnl_record *rec, uint32_t i)
{
	return (uint8_t *)rec->buf + ((size_t)i << CSV_BLOCK_SHIFT);
}

static uint64_t record_blkno(struct jnl *j, struct jnl_record *rec, uint32_t i)
{
	return j->g.start_blk + jnl_pos_add(j->cap, rec->pos, i);
}

static void tag_set(struct jnl *j, struct jnl_record *rec, uint32_t i, const struct jnl_rec *r, uint32_t crc, uint32_t flags)
{
	struct csv_jdesc *d = record_block(rec, i / CSV_JDESC_TAGS);
	struct csv_jtag *t = (struct csv_jtag *)(d + 1) + i % CSV_JDESC_TAGS;

	(void)j;
	le64_set(&t->blkno, r->blkno);
	le32_set(&t->owner_type, r->owner.type);
	le32_set(&t->crc, crc);
	le64_set(&t->owner_id, r->owner.id);
	le64_set(&t->generation, r->generation);
	le64_set(&t->seq, r->seq);
	le32_set(&t->flags, flags);
	le32_set(&d->tags, i % CSV_JDESC_TAGS + 1);
}

/* The copy of one block: sequence raised in both, crc sealed in the copy (J5). */
static struct jnl_rec *seal_block(struct jnl *j, struct jnl_txn *t, struct jnl_record *rec, struct jnl_buf *b, void *image)
{
	struct csv_mhdr *h = b->data;
	struct jnl_rec *r = jnl_rec_take(j);

	csv_assertf(le64_get(h->blkno) == b->blkno && csv_owner_eq(mhdr_owner(h), b->owner),
		    "block %" PRIu64 " (%s %" PRIu64 ") says it is %" PRIu64 " (%s %" PRIu64 ")", b->blkno,
		    mhdr_owner_name(b->owner.type), b->owner.id, le64_get(h->blkno), mhdr_owner_name(le32_get(h->owner_type)),
		    le64_get(h->owner_id));
	le64_set(&h->seq, le64_get(h->seq) + 1);
	memcpy(image, h, CSV_BLOCK_SIZE);
	mhdr_seal(image, j->g.uuid);
	r->record = rec;
	r->b = b;
	r->owner = b->owner;
	r->blkno = b->blkno;
	r->generation = le64_get(h->generation);
	r->seq = le64_get(h->seq);
	r->image = image;
	cds_list_add_tail(&r->record_node, &rec->recs);
	cds_list_del(&b->run_node);
	b->running = NULL;
	b->committing = t;
	b->sealed = r;
	return r;
}

static void seal_frame(struct jnl *j, struct jnl_txn *t, struct jnl_record *rec, uint32_t images, uint32_t descs)
{
	struct csv_owner owner = { CSV_OWN_SLOT, j->g.slot };
	struct csv_jcommit *c = record_block(rec, rec->nblk - 1);
	uint32_t tail, used;
	uint64_t tail_seq;

	for (uint32_t i = 0; i < descs; i++) {
		struct csv_jdesc *d = record_block(rec, i);

		mhdr_init(d, CSV_MAGIC_JDESC, record_blkno(j, rec, i), 0, owner);
		le64_set(&d->h.seq, t->seq);
		le64_set(&d->incarnation, j->g.incarnation);
		le64_set(&d->record_seq, t->seq);
		le32_set(&d->images, i ? 0 : images);
		le32_set(&d->descs, i ? 0 : descs);
		le32_set(&d->index, i);
		mhdr_seal(d, j->g.uuid);
	}
	mhdr_init(c, CSV_MAGIC_JCOMMIT, record_blkno(j, rec, rec->nblk - 1), 0, owner);
	le64_set(&c->h.seq, t->seq);
	le64_set(&c->incarnation, j->g.incarnation);
	le64_set(&c->record_seq, t->seq);
	le64_set(&c->stable_seq, j->stable_seq);
	jnl_logical_tail(j, &tail, &tail_seq, &used);
	/* Nothing older is needed: the tail is this record itself. */
	if (!used) {
		tail = rec->pos;
		tail_seq = t->seq;
	}
	le32_set(&c->tail_blk, tail);
	le32_set(&c->record_blk, rec->nblk);
	le64_set(&c->tail_seq, tail_seq);
	le32_set(&c->record_crc, csv_crc32c(0, rec->buf, (size_t)(rec->nblk - 1) << CSV_BLOCK_SHIFT));
	mhdr_seal(c, j->g.uuid);
}

/* Turns the running transaction into the committing one and its record.  Awaits nothing. */
static int seal(struct jnl *j)
{
	struct jnl_txn *t = j->running, *next = jnl_txn_new(t->seq + 1);
	struct jnl_record *rec = calloc(1, sizeof(*rec));
	uint32_t images = t->n_bufs, descs, i = 0;
	struct jnl_buf *b, *tmp;
	struct jnl_rec *r;

	if (!next || !rec)
		goto nomem;
	CDS_INIT_LIST_HEAD(&rec->recs);
	rec->nblk = jnl_record_blocks(images, t->n_revokes);
	csv_assertf(j->used + rec->nblk <= j->cap, "used %u + %u of %u", j->used, rec->nblk, j->cap);
	descs = rec->nblk - 1 - images;
	rec->buf = blk_alloc(rec->nblk << CSV_BLOCK_SHIFT);
	if (!rec->buf)
		goto nomem;
	memset(rec->buf, 0, (size_t)descs << CSV_BLOCK_SHIFT);
	memset(record_block(rec, rec->nblk - 1), 0, CSV_BLOCK_SIZE);
	rec->seq = t->seq;
	rec->pos = j->head;
	rec->live = images + 1;			/* 1: pinned until it is durable */

	cds_list_for_each_entry_safe(b, tmp, &t->bufs, run_node) {
		void *image = record_block(rec, descs + i);

		r = seal_block(j, t, rec, b, image);
		tag_set(j, rec, i++, r, csv_crc32c(0, image, CSV_BLOCK_SIZE), 0);
	}
	csv_assert(i == images);
	cds_list_for_each_entry(r, &t->revokes, rev_node)
		tag_set(j, rec, i++, r, 0, CSV_JTAG_REVOKE);
	csv_assert(i == images + t->n_revokes);
	seal_frame(j, t, rec, images, descs);

	cds_list_add_tail(&rec->node, &j->records);
	j->head = jnl_pos_add(j->cap, j->head, rec->nblk);
	j->used += rec->nblk;
	j->committing = t;
	j->committing_record = rec;
	j->running = next;
	timer_del(j->s, &j->commit_timer);
	sched_wake_all(j->s, &j->begin_wq);
	return 0;
nomem:
	free(next);
	free(rec);
	return jnl_fail(j, -ENOMEM, "commit: out of memory for the record");
}

/*
 * I4: a late home write of a copy that this commit replaces or cancels would overwrite what comes after it.  Looked up anew after
 * every wait: the table changes meanwhile.
 */
static bool still_writing(struct jnl *j)
{
	struct jnl_rec *r, *old;

	cds_list_for_each_entry(r, &j->committing->revokes, rev_node)
		if (r->writing)
			return true;
	cds_list_for_each_entry(r, &j->committing_record->recs, record_node) {
		old = jnl_rec_find(j, r->blkno);
		if (old && old->writing)
			return true;
	}
	return false;
}

/* The record is on disk: its revokes and copies take effect in the table. */
static int make_durable(struct jnl *j)
{
	struct jnl_txn *t = j->committing;
	struct jnl_record *rec = j->committing_record;
	struct csv_jcommit *c = record_block(rec, rec->nblk - 1);
	uint64_t tail_seq = le64_get(c->tail_seq);
	struct jnl_rec *r, *tmp, *old;
	struct jnl_own *own, *otmp;

	while (still_writing(j)) {
		sched_wait(j->s, &j->writing_wq);
		if (j->err)
			return -CSV_E_WITHDRAWN;
	}
	/* No await from here on. */
	cds_list_for_each_entry_safe(r, tmp, &t->revokes, rev_node) {
		csv_assert(!r->writing && r->record->seq < t->seq);
		jnl_rec_drop(j, r);
	}
	cds_list_for_each_entry(r, &rec->recs, record_node) {
		old = jnl_rec_find(j, r->blkno);
		if (old)
			jnl_rec_drop(j, old);
		jnl_rec_insert(j, r);
		if (!r->b)
			continue;
		r->b->committing = NULL;
		r->b->sealed = NULL;
		r->b->logged = r;
	}
	if (!--rec->live) {
		free(rec->buf);
		rec->buf = NULL;
	}
	j->stable_seq = t->seq;
	j->committing = NULL;
	j->committing_record = NULL;
	jnl_start_advance(j, tail_seq);
	cds_list_for_each_entry_safe(own, otmp, &t->owners, touch_node)
		jnl_own_tidy(j, own);
	/* What stays is touched by nobody now. */
	while (!cds_list_empty(&t->owners)) {
		own = cds_list_first_entry(&t->owners, struct jnl_own, touch_node);
		cds_list_del(&own->touch_node);
		CDS_INIT_LIST_HEAD(&own->touch_node);
	}
	jnl_run_callbacks(&t->callbacks, 0);
	jnl_txn_free(t);
	return 0;
}

static int home_too_early(struct jnl *j)	/* the mutation: breaks J3 on purpose */
{
	struct jnl_wave w;
	struct jnl_rec *r;

	jnl_wave_init(&w, j->blk);
	cds_list_for_each_entry(r, &j->committing_record->recs, record_node)
		jnl_wave_add(&w, BLK_WRITE, r->blkno, r->image, 1);
	return jnl_wave_wait(&w);
}

static int commit_one(struct jnl *j)
{
	uint64_t begin_ns = sched_now_ns(j->s);
	struct jnl_txn *t = j->running;
	struct jnl_record *rec;
	char what[48];
	int r;

	t->closed = true;
	while (t->handles && !j->err)
		sched_wait(j->s, &j->handles_wq);
	if (j->err)
		return -CSV_E_WITHDRAWN;
	if (jnl_txn_empty(t)) {
		/* What it was wanted for has undone itself. */
		t->closed = false;
		j->commit_wanted = t->seq - 1;
		sched_wake_all(j->s, &j->begin_wq);
		sched_wake_all(j->s, &j->stable_wq);
		return 0;
	}
	r = seal(j);
	if (r < 0)
		return r;
	rec = j->committing_record;
	snprintf(what, sizeof(what), "commit of record %" PRIu64, t->seq);
	if (t->publishes) {
		r = jnl_flush(j, what);
		if (r < 0)
			return r;
	}
	if (j->cfg.mutate_home_before_flush && home_too_early(j) < 0)
		return jnl_fail(j, -EIO, what);
	r = jnl_log_io(j->blk, &j->g, BLK_WRITE, rec->pos, rec->buf, rec->nblk);
	if (r < 0)
		return jnl_fail(j, r, what);
	r = jnl_flush(j, what);
	if (r < 0)
		return r;
	j->st.commits++;
	j->st.commit_blocks += rec->nblk;
	j->st.commit_ns_last = sched_now_ns(j->s) - begin_ns;
	r = make_durable(j);
	sched_wake_all(j->s, &j->stable_wq);
	if (!r)
		jnl_space_check(j);
	return r;
}

static void commit_main(void *arg)
{
	struct jnl *j = arg;

	while (!j->err && j->commit_wanted >= j->running->seq)
		if (commit_one(j) < 0)
			break;
	j->commit_worker = false;
	sched_wake_all(j->s, &j->stable_wq);
	sched_wake_all(j->s, &j->space_wq);
}

void jnl_commit_request(struct jnl *j, uint64_t seq)
{
	csv_assert(seq <= j->running->seq);
	if (j->err || seq <= j->commit_wanted)
		return;
	j->commit_wanted = seq;
	if (j->commit_worker)
		return;
	if (sched_spawn(j->s, "jnl-commit", commit_main, j) < 0) {
		jnl_fail(j, -ENOMEM, "commit: out of memory for the coroutine");
		return;
	}
	j->commit_worker = true;
}

int jnl_commit_wait(struct jnl *j, uint64_t seq)
{
	while (!j->err && j->stable_seq < seq) {
		if (seq == j->running->seq && jnl_txn_empty(j->running)) {
			/* Nothing in it; what came before it is wanted all the same. */
			if (--seq <= j->stable_seq)
				break;
		}
		jnl_commit_request(j, seq);
		sched_wait(j->s, &j->stable_wq);
	}
	return j->err ? -CSV_E_WITHDRAWN : 0;
}

int jnl_commit(struct jnl *j, uint64_t seq)
{
	csv_assert(!(*coro_flags(j->s) & CORO_IN_TXN));
	csv_assert(seq <= j->running->seq);
	if (j->err)
		return -CSV_E_WITHDRAWN;
	return jnl_commit_wait(j, seq ? seq : j->running->seq);
}
