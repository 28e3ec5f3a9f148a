/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jnl_log.c - the log as a circle of blocks: header, space, opening and closing, failure, and I/O in waves.
 *
 * The header is rewritten in place.  All its fields lie in the first 512 bytes and the rest is always zero, so a torn write
 * leaves either the old or the new header (a sector is atomic).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "journal/jnl_internal.h"
#include "utils/base/base.h"

csv_static_assert(sizeof(struct csv_jhead) <= 512, "the journal header is one atomic sector");

/* ---- waves -------------------------------------------------------------------------------------------------------- */

void jnl_wave_init(struct jnl_wave *w, struct blk *blk)
{
	w->blk = blk;
	w->n = w->left = 0;
	w->result = 0;
	waitq_init(&w->wq);
}

static void wave_done(struct blk_req *r)
{
	struct jnl_io *io = container_of(r, struct jnl_io, req);
	struct jnl_wave *w = io->wave;

	if (r->result < 0 && !w->result)
		w->result = r->result;
	if (!--w->left)
		sched_wake_all(w->blk->sched, &w->wq);
}

int jnl_wave_wait(struct jnl_wave *w)
{
	while (w->left)
		sched_wait(w->blk->sched, &w->wq);
	w->n = 0;
	return w->result;
}

void jnl_wave_add(struct jnl_wave *w, enum blk_op op, uint64_t blkno, void *buf, uint32_t nblk)
{
	struct jnl_io *io;

	if (w->n == JNL_WAVE)
		jnl_wave_wait(w);
	io = &w->io[w->n++];
	memset(io, 0, sizeof(*io));
	io->wave = w;
	io->req.op = op;
	io->req.off = blkno << CSV_BLOCK_SHIFT;
	io->req.len = nblk << CSV_BLOCK_SHIFT;
	io->req.buf = buf;
	io->req.done = wave_done;
	w->left++;
	blk_submit(w->blk, &io->req);
}

int jnl_log_io(struct blk *blk, const struct jnl_geometry *g, enum blk_op op, uint32_t pos, void *buf, uint32_t nblk)
{
	struct jnl_wave w;
	uint8_t *p = buf;

	jnl_wave_init(&w, blk);
	while (nblk) {
		uint32_t n = csv_min(csv_min(nblk, JNL_PIECE_BLK), g->len_blk - pos);

		jnl_wave_add(&w, op, g->start_blk + pos, p, n);
		p += (size_t)n << CSV_BLOCK_SHIFT;
		nblk -= n;
		pos = jnl_pos_add(g->len_blk - 1, pos, n);
	}
	return jnl_wave_wait(&w);
}

/* ---- space -------------------------------------------------------------------------------------------------------- */

uint32_t jnl_record_blocks(uint32_t images, uint32_t revokes)
{
	uint32_t descs = csv_div_round_up((uint64_t)images + revokes, CSV_JDESC_TAGS);

	return (descs ? descs : 1) + images + 1;
}

/* One record that revokes every copy there is. */
uint32_t jnl_release_reserve(uint32_t recs)
{
	return csv_div_round_up(recs, CSV_JDESC_TAGS) + 2;
}

void jnl_logical_tail(const struct jnl *j, uint32_t *ret_pos, uint64_t *ret_seq, uint32_t *ret_used)
{
	struct jnl_record *r;

	cds_list_for_each_entry(r, &j->records, node) {
		if (!r->live)
			continue;
		*ret_pos = r->pos;
		*ret_seq = r->seq;
		*ret_used = (j->head + j->cap - r->pos) % j->cap;
		/* head == pos: full when there is a record there */
		if (!*ret_used)
			*ret_used = j->cap;
		return;
	}
	*ret_pos = j->head;
	*ret_seq = j->running->seq;
	*ret_used = 0;
}

/* ---- failure ------------------------------------------------------------------------------------------------------- */

static void fail_run(struct job *job)
{
	struct jnl *j = container_of(job, struct jnl, fail_job);

	if (!j->fail_told) {
		j->fail_told = true;
		if (j->cfg.failed)
			j->cfg.failed(j->cfg.arg, j->err, j->fail_text);
	}
	if (j->committing)
		jnl_run_callbacks(&j->committing->callbacks, -CSV_E_WITHDRAWN);
	jnl_run_callbacks(&j->running->callbacks, -CSV_E_WITHDRAWN);
	jnl_run_callbacks(&j->late_callbacks, -CSV_E_WITHDRAWN);
}

int jnl_fail(struct jnl *j, int err, const char *what)
{
	csv_assert(err < 0);
	if (!j->err) {
		j->err = err;
		snprintf(j->fail_text, sizeof(j->fail_text), "journal %u: %s: %s", j->g.slot, what, csv_err_describe(err));
		log_to(j->cfg.log, LOG_L_ERR, "%s; this node gives the volume up", j->fail_text);
		timer_del(j->s, &j->commit_timer);
		sched_post(j->s, &j->fail_job);
	}
	sched_wake_all(j->s, &j->begin_wq);
	sched_wake_all(j->s, &j->handles_wq);
	sched_wake_all(j->s, &j->stable_wq);
	sched_wake_all(j->s, &j->space_wq);
	sched_wake_all(j->s, &j->writing_wq);
	return -CSV_E_WITHDRAWN;
}

int jnl_flush(struct jnl *j, const char *what)
{
	int r = blk_flush(j->blk);

	j->st.flushes++;
	return r < 0 ? jnl_fail(j, r, what) : 0;
}

/* ---- header --------------------------------------------------------------------------------------------------------- */

static void head_fill(void *block, const struct jnl_geometry *g, uint32_t tail, uint64_t first_seq)
{
	struct csv_jhead *h = block;

	memset(block, 0, CSV_BLOCK_SIZE);
	mhdr_init(block, CSV_MAGIC_JHEAD, g->start_blk, 0, (struct csv_owner){ CSV_OWN_SLOT, g->slot });
	le64_set(&h->incarnation, g->incarnation);
	le64_set(&h->first_seq, first_seq);
	le32_set(&h->tail_blk, tail);
	le32_set(&h->len_blk, g->len_blk);
	le32_set(&h->level, JNL_LEVEL);
	mhdr_seal(block, g->uuid);
}

int jnl_head_check(const void *block, const struct jnl_geometry *g, struct csv_err *err)
{
	const struct csv_jhead *h = block;
	struct csv_owner owner = { CSV_OWN_SLOT, g->slot };
	int r = mhdr_check(block, g->uuid, CSV_MAGIC_JHEAD, g->start_blk, &owner, err);

	if (r < 0)
		return r;
	if (le32_get(h->incompat))
		return csv_err_set(err, -CSV_E_UNSUPPORTED, "header: incompat 0x%x: a feature this program does not know; use a newer one",
				   le32_get(h->incompat));
	if (le32_get(h->level) != JNL_LEVEL)
		return csv_err_set(err, -CSV_E_UNSUPPORTED, "header: level %u, this program knows %u; use a newer one",
				   le32_get(h->level), JNL_LEVEL);
	if (le32_get(h->len_blk) != g->len_blk)
		return csv_err_set(err, -CSV_E_CORRUPT, "header: len_blk %u, must be %u", le32_get(h->len_blk), g->len_blk);
	if (le32_get(h->tail_blk) < 1 || le32_get(h->tail_blk) >= g->len_blk)
		return csv_err_set(err, -CSV_E_CORRUPT, "header: tail_blk %u, must be 1..%u", le32_get(h->tail_blk), g->len_blk - 1);
	if (le64_get(h->first_seq) < 1 || le64_get(h->first_seq) > JNL_SEQ_MAX)
		return csv_err_set(err, -CSV_E_CORRUPT, "header: first_seq %" PRIu64 ", must be 1..2^62", le64_get(h->first_seq));
	return 0;
}

int jnl_header_advance(struct jnl *j)
{
	uint32_t tail, used;
	uint64_t seq;
	struct jnl_record *r, *tmp;
	int ret;

	jnl_logical_tail(j, &tail, &seq, &used);
	if (seq == j->hdr_first_seq)
		return 0;
	head_fill(j->hdr_buf, &j->g, tail, seq);
	ret = blk_write(j->blk, j->g.start_blk << CSV_BLOCK_SHIFT, j->hdr_buf, CSV_BLOCK_SIZE);
	if (ret < 0)
		return jnl_fail(j, ret, "header: write");
	ret = jnl_flush(j, "header: flush");
	if (ret < 0)
		return ret;
	j->hdr_tail = tail;
	j->hdr_first_seq = seq;
	jnl_start_advance(j, seq);
	cds_list_for_each_entry_safe(r, tmp, &j->records, node) {
		if (r->seq >= seq)
			break;
		csv_assert(!r->live && cds_list_empty(&r->recs));
		j->used -= r->nblk;
		cds_list_del(&r->node);
		free(r);
	}
	sched_wake_all(j->s, &j->begin_wq);
	sched_wake_all(j->s, &j->space_wq);
	return 0;
}

/* ---- format, open, close -------------------------------------------------------------------------------------------- */

int jnl_geometry_check(const struct blk *blk, const struct jnl_geometry *g, struct csv_err *err)
{
	uint64_t total = blk->size_bytes >> CSV_BLOCK_SHIFT;

	if (g->len_blk < JNL_LEN_MIN || g->len_blk > JNL_LEN_MAX)
		return csv_err_set(err, -CSV_E_CORRUPT, "journal_blk %u, must be %u..%u", g->len_blk, JNL_LEN_MIN, JNL_LEN_MAX);
	if (g->start_blk > total || g->len_blk > total - g->start_blk)
		return csv_err_set(err, -CSV_E_CORRUPT, "blocks %" PRIu64 "+%u, the device has %" PRIu64, g->start_blk, g->len_blk, total);
	return 0;
}

int jnl_format(struct blk *blk, const struct jnl_geometry *g, struct csv_err *err)
{
	void *buf;
	int r = jnl_geometry_check(blk, g, err);

	if (r < 0)
		goto out;
	buf = blk_alloc(CSV_BLOCK_SIZE);
	if (!buf)
		return csv_err_set(err, -ENOMEM, "journal %u: out of memory", g->slot);
	head_fill(buf, g, 1, 1);
	/*
	 * What the caller has read (the slot is FREE, what it held is home) may be in the device's cache only, written by a node
	 * that died before its FLUSH.  It must be durable before the old log goes.
	 */
	r = blk_flush(blk);
	if (!r)
		r = blk_write(blk, g->start_blk << CSV_BLOCK_SHIFT, buf, CSV_BLOCK_SIZE);
	if (!r)
		r = blk_flush(blk);
	if (r < 0)
		csv_err_set(err, r, "header: write: %s", csv_err_describe(r));
	free(buf);
out:
	if (r < 0)
		csv_err_prefix(err, "journal %u", g->slot);
	return r;
}

static void commit_timer_fn(struct timer *t)
{
	struct jnl *j = container_of(t, struct jnl, commit_timer);

	if (j->err)
		return;
	if (!jnl_txn_empty(j->running))
		jnl_commit_request(j, j->running->seq);
	else if (j->running->handles)
		timer_set(j->s, t, sched_now_ns(j->s) + j->cfg.commit_interval_ms * NS_PER_MS);
}

static struct cds_hlist_head *hash_new(uint32_t want, uint32_t *ret_mask)
{
	uint32_t n = 1u << (csv_ilog2(want) + 1);

	*ret_mask = n - 1;
	return calloc(n, sizeof(struct cds_hlist_head));
}

/* The log must be empty: no descriptor of its next sequence at its tail. */
static int open_check(struct jnl *j, void *buf, struct csv_err *err)
{
	const struct csv_jhead *h = buf;
	const struct csv_jdesc *d = buf;
	int r = blk_read(j->blk, j->g.start_blk << CSV_BLOCK_SHIFT, buf, CSV_BLOCK_SIZE);

	if (r < 0)
		return csv_err_set(err, r, "header: read: %s", csv_err_describe(r));
	r = jnl_head_check(buf, &j->g, err);
	if (r < 0)
		return r;
	if (le64_get(h->incarnation) != j->g.incarnation)
		return csv_err_set(err, -CSV_E_CORRUPT, "header: incarnation %" PRIu64 ", must be %" PRIu64 "; format it first",
				   le64_get(h->incarnation), j->g.incarnation);
	j->hdr_tail = j->head = le32_get(h->tail_blk);
	j->hdr_first_seq = j->start_seq = le64_get(h->first_seq);
	r = blk_read(j->blk, (j->g.start_blk + j->head) << CSV_BLOCK_SHIFT, buf, CSV_BLOCK_SIZE);
	if (r < 0)
		return csv_err_set(err, r, "block %u of the log: read: %s", j->head, csv_err_describe(r));
	if (!mhdr_check(buf, j->g.uuid, CSV_MAGIC_JDESC, j->g.start_blk + j->head, NULL, NULL) &&
	    le64_get(d->incarnation) == j->g.incarnation && le64_get(d->record_seq) == j->hdr_first_seq)
		return csv_err_set(err, -CSV_E_CORRUPT, "record %" PRIu64 " is in it: replay it and format it first", j->hdr_first_seq);
	return 0;
}

int jnl_open(const struct jnl_config *cfg, const struct jnl_geometry *g, struct jnl **ret_jnl, struct csv_err *err)
{
	struct jnl *j;
	int r = jnl_geometry_check(cfg->blk, g, err);

	if (r < 0)
		return csv_err_prefix(err, "journal %u", g->slot), r;
	j = calloc(1, sizeof(*j));
	if (!j)
		return csv_err_set(err, -ENOMEM, "journal %u: out of memory", g->slot);
	j->cfg = *cfg;
	if (!j->cfg.commit_interval_ms)
		j->cfg.commit_interval_ms = 5000;
	j->g = *g;
	j->s = cfg->sched;
	j->blk = cfg->blk;
	j->cap = g->len_blk - 1;
	j->ckpt_target = UINT32_MAX;
	CDS_INIT_LIST_HEAD(&j->records);
	CDS_INIT_LIST_HEAD(&j->rec_pool);
	CDS_INIT_LIST_HEAD(&j->own_pool);
	CDS_INIT_LIST_HEAD(&j->releases);
	CDS_INIT_LIST_HEAD(&j->late_callbacks);
	co_mutex_init(&j->begin_lock);
	waitq_init(&j->begin_wq);
	waitq_init(&j->handles_wq);
	waitq_init(&j->stable_wq);
	waitq_init(&j->space_wq);
	waitq_init(&j->writing_wq);
	timer_init(&j->commit_timer, commit_timer_fn);
	job_init(&j->fail_job, fail_run);
	j->hdr_buf = blk_alloc(CSV_BLOCK_SIZE);
	j->rec_hash = hash_new(g->len_blk, &j->rec_mask);
	j->own_hash = hash_new(g->len_blk / 4, &j->own_mask);
	if (!j->hdr_buf || !j->rec_hash || !j->own_hash) {
		r = csv_err_set(err, -ENOMEM, "out of memory");
		goto fail;
	}
	r = open_check(j, j->hdr_buf, err);
	if (r < 0)
		goto fail;
	j->stable_seq = j->hdr_first_seq - 1;
	j->running = jnl_txn_new(j->hdr_first_seq);
	if (!j->running) {
		r = csv_err_set(err, -ENOMEM, "out of memory");
		goto fail;
	}
	*ret_jnl = j;
	return 0;
fail:
	csv_err_prefix(err, "journal %u", g->slot);
	jnl_free(j);
	return r;
}

int jnl_shutdown(struct jnl *j)
{
	csv_assert(j->err || !j->running->handles);
	j->shutting_down = true;
	if (!j->err)
		jnl_commit_wait(j, j->running->seq);
	if (!j->err)
		jnl_checkpoint(j, 0);
	while (j->commit_worker || j->space_worker || j->fail_job.queued) {
		if (j->fail_job.queued)
			coro_yield(j->s);
		else
			sched_wait(j->s, j->commit_worker ? &j->stable_wq : &j->space_wq);
	}
	timer_del(j->s, &j->commit_timer);
	if (j->err)
		return -CSV_E_WITHDRAWN;
	csv_assert(jnl_is_empty(j));
	return 0;
}

void jnl_free(struct jnl *j)
{
	struct jnl_record *r, *rtmp;
	struct jnl_rec *c, *ctmp;
	struct jnl_own *o, *otmp;
	struct cds_hlist_node *pos, *n;

	if (!j)
		return;
	timer_del(j->s, &j->commit_timer);
	sched_unpost(j->s, &j->fail_job);
	cds_list_for_each_entry_safe(r, rtmp, &j->records, node) {
		cds_list_for_each_entry_safe(c, ctmp, &r->recs, record_node)
			free(c);
		free(r->buf);
		free(r);
	}
	cds_list_for_each_entry_safe(c, ctmp, &j->rec_pool, own_node)
		free(c);
	cds_list_for_each_entry_safe(o, otmp, &j->own_pool, recs)
		free(o);
	for (uint32_t i = 0; j->own_hash && i <= j->own_mask; i++)
		cds_hlist_for_each_safe(pos, n, &j->own_hash[i])
			free(cds_hlist_entry(pos, struct jnl_own, hash));
	jnl_txn_free(j->running);
	jnl_txn_free(j->committing);
	free(j->rec_hash);
	free(j->own_hash);
	free(j->hdr_buf);
	free(j);
}

bool jnl_is_empty(const struct jnl *j)
{
	return !j->used && !j->committing && jnl_txn_empty(j->running);
}

uint64_t jnl_stable_seq(const struct jnl *j)
{
	return j->stable_seq;
}

void jnl_stats(const struct jnl *j, struct jnl_stats *ret)
{
	*ret = j->st;
	ret->used_blk = j->used;
	ret->len_blk = j->g.len_blk;
}
