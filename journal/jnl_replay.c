/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jnl_replay.c - reads a log and brings homes up to date (J2, J7).
 *
 * Pass 1 walks the records from the header's tail in order of sequence.  A record whose blocks are not all there ends the log;
 * a record that is whole but says something impossible is an error.  From each record the table (at most one entry a block of
 * the log) learns the last copy of every block; a revoke takes away a copy of a lower sequence.  Because records come in order,
 * that is exactly "no later revoke exists".  Then the rest of the log is searched for a proof that the record that ended it
 * had once been flushed; such a proof is an error.
 * Pass 2 reads each remaining copy and its home, and writes where the home is older or broken.
 *
 * Invariants
 *  RP1 Nothing is written before the whole log has been checked.
 *  RP2 Memory is bounded by the length of the log: the table, one window, one batch.
 *  RP3 The log itself is only read.
 *  RP4 No home is written before a FLUSH that began after the log was read (J3 holds for replay too).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "journal/jnl_internal.h"
#include "utils/base/base.h"
#include "utils/base/crc32c.h"
#include "utils/base/prng.h"

#define WINDOW_BLK 256u
#define BATCH 32u

struct copy {
	uint64_t blkno, generation, seq;
	uint64_t record_seq;		/* 0: no entry */
	uint32_t pos, crc;
	bool revoked;
};

struct rp {
	struct blk *blk;
	const struct jnl_geometry *g;
	const struct jnl_replay_limits *lim;
	struct jnl_home *home;
	struct jnl_replay_stats *st;
	struct csv_err *err;
	uint32_t cap;
	struct copy *table;		/* open addressing */
	uint32_t mask, n;
	uint8_t *win;
	uint32_t win_pos, win_n;
	uint64_t start_seq;		/* from the last record's tail */
};

/* One record that was found whole. */
struct found { uint32_t descs, images, nblk; uint64_t stable_seq, tail_seq; };

/* ---- reading --------------------------------------------------------------------------------------------------------- */

static int log_get(struct rp *p, uint32_t pos, const void **ret_block)
{
	int r;

	if (pos < p->win_pos || pos >= p->win_pos + p->win_n) {
		uint32_t n = csv_min(WINDOW_BLK, p->g->len_blk - pos);

		p->win_n = 0;
		r = jnl_log_io(p->blk, p->g, BLK_READ, pos, p->win, n);
		if (r < 0)
			return csv_err_set(p->err, r, "block %u of the log: read: %s", pos, csv_err_describe(r));
		p->win_pos = pos;
		p->win_n = n;
	}
	*ret_block = p->win + ((size_t)(pos - p->win_pos) << CSV_BLOCK_SHIFT);
	return 0;
}

static bool frame_ok(const struct rp *p, const void *block, uint32_t magic, uint32_t pos)
{
	struct csv_owner owner = { CSV_OWN_SLOT, p->g->slot };

	return !mhdr_check(block, p->g->uuid, magic, p->g->start_blk + pos, &owner, NULL);
}

static struct copy *table_at(struct rp *p, uint64_t blkno)
{
	uint64_t x = blkno;
	uint32_t i = csv_splitmix64(&x) & p->mask;

	while (p->table[i].record_seq && p->table[i].blkno != blkno)
		i = (i + 1) & p->mask;
	return &p->table[i];
}

#define BAD(p, seq, fmt, ...) csv_err_set((p)->err, -CSV_E_CORRUPT, "record %" PRIu64 ": " fmt, seq, ##__VA_ARGS__)

/* ---- pass 1 ------------------------------------------------------------------------------------------------------------ */

/* The blocks of record `seq` at `pos`: 1 whole, 0 not (the log ends here), <0. `room`: blocks it can have. */
static int record_find(struct rp *p, uint64_t seq, uint32_t pos, uint32_t room, struct found *ret)
{
	const struct csv_jcommit *c;
	const struct csv_jdesc *d;
	const void *block;
	struct found f;
	uint32_t crc = 0;
	int r;

	r = log_get(p, pos, &block);
	if (r < 0)
		return r;
	d = block;
	if (!frame_ok(p, d, CSV_MAGIC_JDESC, pos) || le64_get(d->incarnation) != p->g->incarnation ||
	    le64_get(d->record_seq) != seq)
		return 0;
	f.descs = le32_get(d->descs);
	f.images = le32_get(d->images);
	if (le32_get(d->index))
		return BAD(p, seq, "descriptor: index %u, must be 0", le32_get(d->index));
	if (f.descs < 1 || f.descs >= room)
		return BAD(p, seq, "descriptor: descs %u, must be 1..%u", f.descs, room - 1);
	if (f.images > room - 1 - f.descs)
		return BAD(p, seq, "descriptor: images %u, must be 0..%u", f.images, room - 1 - f.descs);
	f.nblk = f.descs + f.images + 1;
	for (uint32_t i = 0; i < f.nblk - 1; i++) {
		r = log_get(p, jnl_pos_add(p->cap, pos, i), &block);
		if (r < 0)
			return r;
		crc = csv_crc32c(crc, block, CSV_BLOCK_SIZE);
	}
	pos = jnl_pos_add(p->cap, pos, f.nblk - 1);
	r = log_get(p, pos, &block);
	if (r < 0)
		return r;
	c = block;
	if (!frame_ok(p, c, CSV_MAGIC_JCOMMIT, pos) || le64_get(c->incarnation) != p->g->incarnation ||
	    le64_get(c->record_seq) != seq || le32_get(c->record_crc) != crc)
		return 0;
	f.stable_seq = le64_get(c->stable_seq);
	f.tail_seq = le64_get(c->tail_seq);
	if (le32_get(c->record_blk) != f.nblk)
		return BAD(p, seq, "commit: record_blk %u, must be %u", le32_get(c->record_blk), f.nblk);
	if (f.stable_seq >= seq)
		return BAD(p, seq, "commit: stable_seq %" PRIu64 ", must be below its own", f.stable_seq);
	if (f.tail_seq > seq)
		return BAD(p, seq, "commit: tail_seq %" PRIu64 ", must be at most its own", f.tail_seq);
	if (le32_get(c->tail_blk) < 1 || le32_get(c->tail_blk) > p->cap)
		return BAD(p, seq, "commit: tail_blk %u, must be 1..%u", le32_get(c->tail_blk), p->cap);
	*ret = f;
	return 1;
}

static bool magic_is_logged(uint32_t magic)
{
	return magic == CSV_MAGIC_INODE || magic == CSV_MAGIC_GROUP || magic == CSV_MAGIC_BITMAP || magic == CSV_MAGIC_BTNODE;
}

static int tag_check(struct rp *p, uint64_t seq, const struct csv_jtag *t)
{
	const struct jnl_replay_limits *l = p->lim;
	uint64_t blkno = le64_get(t->blkno);
	bool extra = l->extra_last_blk && blkno >= l->extra_first_blk && blkno <= l->extra_last_blk;

	if (!extra && (blkno < l->data_start_blk || blkno >= l->total_blk))
		return BAD(p, seq, "tag: blkno %" PRIu64 ", must be %" PRIu64 "..%" PRIu64, blkno, l->data_start_blk, l->total_blk - 1);
	if (le32_get(t->owner_type) == CSV_OWN_NONE || le32_get(t->owner_type) >= CSV_OWN_TYPES)
		return BAD(p, seq, "tag of block %" PRIu64 ": owner_type %u, must be 1..%d", blkno, le32_get(t->owner_type),
			   CSV_OWN_TYPES - 1);
	if (le32_get(t->flags) & ~CSV_JTAG_REVOKE)
		return BAD(p, seq, "tag of block %" PRIu64 ": flags 0x%x, must be 0 or %u", blkno, le32_get(t->flags), CSV_JTAG_REVOKE);
	return 0;
}

static int image_check(struct rp *p, uint64_t seq, const struct csv_jtag *t, const void *image)
{
	const struct csv_mhdr *h = image;
	struct csv_owner owner = { le32_get(t->owner_type), le64_get(t->owner_id) };
	uint64_t blkno = le64_get(t->blkno);
	uint32_t crc = csv_crc32c(0, image, CSV_BLOCK_SIZE);
	int r;

	if (le32_get(t->crc) != crc)
		return BAD(p, seq, "tag of block %" PRIu64 ": crc 0x%08x, the image has 0x%08x", blkno, le32_get(t->crc), crc);
	if (!magic_is_logged(le32_get(h->magic)))
		return BAD(p, seq, "image of block %" PRIu64 ": magic 0x%08x (%s), must be inode, group header, bitmap or tree node",
			   blkno, le32_get(h->magic), mhdr_magic_name(le32_get(h->magic)));
	r = mhdr_check(image, p->g->uuid, le32_get(h->magic), blkno, &owner, p->err);
	if (r < 0) {
		csv_err_prefix(p->err, "record %" PRIu64 ": image", seq);
		return r;
	}
	if (le64_get(h->generation) != le64_get(t->generation) || le64_get(h->seq) != le64_get(t->seq))
		return BAD(p, seq, "image of block %" PRIu64 ": generation %" PRIu64 " seq %" PRIu64 ", its tag says %" PRIu64 " and %" PRIu64,
			   blkno, le64_get(h->generation), le64_get(h->seq), le64_get(t->generation), le64_get(t->seq));
	return 0;
}

static int tag_apply(struct rp *p, uint64_t seq, const struct csv_jtag *t, uint32_t image_pos)
{
	struct copy *c = table_at(p, le64_get(t->blkno));
	const void *image;
	int r;

	if (le32_get(t->flags) & CSV_JTAG_REVOKE) {
		p->st->revokes++;
		if (c->record_seq && c->record_seq < seq)
			c->revoked = true;
		return 0;
	}
	r = log_get(p, image_pos, &image);
	if (r < 0)
		return r;
	r = image_check(p, seq, t, image);
	if (r < 0)
		return r;
	if (c->record_seq == seq)
		return BAD(p, seq, "block %" PRIu64 " comes twice in it", le64_get(t->blkno));
	p->st->blocks_seen++;
	if (!c->record_seq)
		p->n++;
	csv_assert(p->n <= p->mask);
	*c = (struct copy){
		.blkno = le64_get(t->blkno), .generation = le64_get(t->generation), .seq = le64_get(t->seq),
		.record_seq = seq, .pos = image_pos, .crc = le32_get(t->crc),
	};
	return 0;
}

/* All tags of a whole record.  Copies of the tags: the window moves when an image is read. */
static int record_apply(struct rp *p, uint64_t seq, uint32_t pos, const struct found *f)
{
	struct csv_jtag tag[CSV_JDESC_TAGS];
	uint32_t images = 0, n;
	const struct csv_jdesc *d;
	const void *block;
	int r;

	for (uint32_t i = 0; i < f->descs; i++) {
		uint32_t at = jnl_pos_add(p->cap, pos, i);

		r = log_get(p, at, &block);
		if (r < 0)
			return r;
		d = block;
		if (!frame_ok(p, d, CSV_MAGIC_JDESC, at) || le64_get(d->record_seq) != seq || le32_get(d->index) != i)
			return BAD(p, seq, "descriptor %u: magic, crc, blkno, owner, record_seq or index is not its own", i);
		n = le32_get(d->tags);
		if (n > CSV_JDESC_TAGS)
			return BAD(p, seq, "descriptor %u: tags %u, must be 0..%zu", i, n, CSV_JDESC_TAGS);
		memcpy(tag, d + 1, n * sizeof(tag[0]));
		for (uint32_t k = 0; k < n; k++) {
			bool revoke = le32_get(tag[k].flags) & CSV_JTAG_REVOKE;

			r = tag_check(p, seq, &tag[k]);
			if (r < 0)
				return r;
			if (!revoke && images == f->images)
				return BAD(p, seq, "descriptors have more image tags than images %u", f->images);
			r = tag_apply(p, seq, &tag[k], jnl_pos_add(p->cap, pos, f->descs + images));
			if (r < 0)
				return r;
			images += !revoke;
		}
	}
	if (images != f->images)
		return BAD(p, seq, "descriptors have %u image tags, images is %u", images, f->images);
	return 0;
}

/* Record `seq` at `pos` is not whole: does a record written later prove that it once was (J2)? */
static int search_proof(struct rp *p, uint64_t seq, uint32_t pos, uint32_t blocks)
{
	const struct csv_jcommit *c;
	const void *block;
	int r;

	for (uint32_t i = 0; i < blocks; i++) {
		uint32_t at = jnl_pos_add(p->cap, pos, i);

		r = log_get(p, at, &block);
		if (r < 0)
			return r;
		c = block;
		if (le32_get(c->h.magic) != CSV_MAGIC_JCOMMIT || le64_get(c->incarnation) != p->g->incarnation ||
		    le64_get(c->record_seq) <= seq || le64_get(c->stable_seq) < seq)
			continue;
		if (frame_ok(p, c, CSV_MAGIC_JCOMMIT, at))
			return BAD(p, seq, "damaged or missing, but record %" PRIu64 " says that everything up to %" PRIu64
				   " had been flushed: the device lost or changed it", le64_get(c->record_seq), le64_get(c->stable_seq));
	}
	return 0;
}

static int scan(struct rp *p, uint32_t pos, uint64_t seq)
{
	uint32_t done = 0;
	struct found f;
	int r;

	p->st->first_seq = p->start_seq = seq;
	p->st->last_seq = seq - 1;
	while (p->cap - done >= 2) {
		r = record_find(p, seq, pos, p->cap - done, &f);
		if (r < 0)
			return r;
		if (!r)
			break;
		r = record_apply(p, seq, pos, &f);
		if (r < 0)
			return r;
		p->st->records++;
		p->st->last_seq = seq;
		p->start_seq = csv_max(p->start_seq, f.tail_seq);
		pos = jnl_pos_add(p->cap, pos, f.nblk);
		done += f.nblk;
		seq++;
	}
	return search_proof(p, seq, pos, p->cap - done);
}

/* ---- pass 2 ------------------------------------------------------------------------------------------------------------ */

static int by_home(const void *a, const void *b)
{
	const struct copy *x = a, *y = b;

	return x->blkno < y->blkno ? -1 : x->blkno > y->blkno;
}

/* True when what is at home must be overwritten by the copy (J7). */
static bool home_is_older(const struct rp *p, const void *home, const struct copy *c)
{
	const struct csv_mhdr *h = home;

	if (!mhdr_crc_ok(home, p->g->uuid) || le64_get(h->blkno) != c->blkno)
		return true;
	return mhdr_age_cmp(le64_get(h->generation), le64_get(h->seq), c->generation, c->seq) < 0;
}

static int homes_read(struct rp *p, const struct copy *c, uint32_t n, uint8_t *buf)
{
	struct jnl_wave w;
	int r = 0;

	jnl_wave_init(&w, p->blk);
	for (uint32_t i = 0; i < n; i++)
		jnl_wave_add(&w, BLK_READ, p->g->start_blk + c[i].pos, buf + i * CSV_BLOCK_SIZE, 1);
	for (uint32_t i = 0; i < n && !p->home; i++)
		jnl_wave_add(&w, BLK_READ, c[i].blkno, buf + (BATCH + i) * CSV_BLOCK_SIZE, 1);
	r = jnl_wave_wait(&w);
	for (uint32_t i = 0; i < n && p->home && !r; i++)
		r = p->home->read(p->home, c[i].blkno, buf + (BATCH + i) * CSV_BLOCK_SIZE);
	if (r < 0)
		return csv_err_set(p->err, r, "blocks %" PRIu64 "..%" PRIu64 ": read: %s", c[0].blkno, c[n - 1].blkno, csv_err_describe(r));
	return 0;
}

static int homes_write(struct rp *p, const struct copy *c, uint32_t n, uint8_t *buf)
{
	struct jnl_wave w;
	int r = 0;

	jnl_wave_init(&w, p->blk);
	for (uint32_t i = 0; i < n && !r; i++) {
		uint8_t *image = buf + i * CSV_BLOCK_SIZE;

		if (csv_crc32c(0, image, CSV_BLOCK_SIZE) != c[i].crc) {
			jnl_wave_wait(&w);
			return BAD(p, c[i].record_seq, "image of block %" PRIu64 ": changed while it was replayed", c[i].blkno);
		}
		if (!home_is_older(p, buf + (BATCH + i) * CSV_BLOCK_SIZE, &c[i])) {
			p->st->skipped_newer++;
			continue;
		}
		p->st->blocks_written++;
		if (p->home)
			r = p->home->write(p->home, c[i].blkno, image);
		else
			jnl_wave_add(&w, BLK_WRITE, c[i].blkno, image, 1);
	}
	if (!p->home)
		r = jnl_wave_wait(&w);
	if (r < 0)
		return csv_err_set(p->err, r, "blocks %" PRIu64 "..%" PRIu64 ": write: %s", c[0].blkno, c[n - 1].blkno, csv_err_describe(r));
	return 0;
}

static int write_homes(struct rp *p)
{
	uint8_t *buf = blk_alloc(2 * BATCH * CSV_BLOCK_SIZE);
	uint32_t n = 0;
	int r = 0;

	if (!buf)
		return csv_err_set(p->err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i <= p->mask; i++) {
		struct copy *c = &p->table[i];

		if (!c->record_seq || c->record_seq < p->start_seq)
			continue;
		if (c->revoked)
			p->st->skipped_revoked++;
		else
			p->table[n++] = *c;
	}
	qsort(p->table, n, sizeof(*p->table), by_home);
	/*
	 * What was read may have been in the device's cache only: the owner of the log died before its FLUSH.  Without this one a
	 * power loss could keep some of the homes written below and lose the record they come from.
	 */
	if (n && !p->home) {
		r = blk_flush(p->blk);
		if (r < 0)
			csv_err_set(p->err, r, "flush: %s", csv_err_describe(r));
	}
	for (uint32_t i = 0; i < n && !r; i += BATCH) {
		uint32_t k = csv_min(BATCH, n - i);

		r = homes_read(p, &p->table[i], k, buf);
		if (!r)
			r = homes_write(p, &p->table[i], k, buf);
	}
	if (!r && !p->home && p->st->blocks_written) {
		r = blk_flush(p->blk);
		if (r < 0)
			csv_err_set(p->err, r, "flush: %s", csv_err_describe(r));
	}
	free(buf);
	return r;
}

/* ---- all ------------------------------------------------------------------------------------------------------------------ */

static int header_read(struct rp *p, uint32_t *ret_tail, uint64_t *ret_seq)
{
	const struct csv_jhead *h = (const void *)p->win;
	int r = blk_read(p->blk, p->g->start_blk << CSV_BLOCK_SHIFT, p->win, CSV_BLOCK_SIZE);

	if (r < 0)
		return csv_err_set(p->err, r, "header: read: %s", csv_err_describe(r));
	r = jnl_head_check(p->win, p->g, p->err);
	if (r < 0)
		return r;
	if (le64_get(h->incarnation) != p->g->incarnation)
		return csv_err_set(p->err, -CSV_E_CORRUPT, "header: incarnation %" PRIu64 ", the slot's is %" PRIu64,
				   le64_get(h->incarnation), p->g->incarnation);
	*ret_tail = le32_get(h->tail_blk);
	*ret_seq = le64_get(h->first_seq);
	return 0;
}

int jnl_replay(struct blk *blk, const struct jnl_geometry *g, const struct jnl_replay_limits *lim, struct jnl_home *home,
	       struct jnl_replay_stats *ret_stats, struct csv_err *err)
{
	struct jnl_replay_stats st = { 0 };
	struct rp p = { .blk = blk, .g = g, .lim = lim, .home = home, .st = &st, .err = err, .cap = g->len_blk - 1 };
	uint64_t seq = 0;
	uint32_t tail = 0;
	int r = jnl_geometry_check(blk, g, err);

	if (r < 0)
		goto out;
	p.mask = (1u << (csv_ilog2(g->len_blk) + 1)) - 1;
	p.table = calloc((size_t)p.mask + 1, sizeof(*p.table));
	p.win = blk_alloc(csv_min(WINDOW_BLK, g->len_blk) * CSV_BLOCK_SIZE);
	if (!p.table || !p.win) {
		r = csv_err_set(err, -ENOMEM, "out of memory for a log of %u blocks", g->len_blk);
		goto out;
	}
	r = header_read(&p, &tail, &seq);
	if (!r)
		r = scan(&p, tail, seq);
	if (!r && st.records)
		r = write_homes(&p);
out:
	free(p.table);
	free(p.win);
	if (r < 0) {
		csv_err_prefix(err, "journal %u", g->slot);
		return r;
	}
	if (ret_stats)
		*ret_stats = st;
	return 0;
}

int jnl_inspect(struct blk *blk, const struct jnl_geometry *g, struct jnl_info *ret_info, struct csv_err *err)
{
	struct csv_jhead *h = blk_alloc(CSV_BLOCK_SIZE);
	int r = jnl_geometry_check(blk, g, err);

	if (!h)
		r = csv_err_set(err, -ENOMEM, "out of memory");
	if (!r) {
		r = blk_read(blk, g->start_blk << CSV_BLOCK_SHIFT, h, CSV_BLOCK_SIZE);
		if (r < 0)
			csv_err_set(err, r, "header: read: %s", csv_err_describe(r));
	}
	if (!r)
		r = jnl_head_check(h, g, err);
	if (!r)
		*ret_info = (struct jnl_info){
			.incarnation = le64_get(h->incarnation), .first_seq = le64_get(h->first_seq), .tail_blk = le32_get(h->tail_blk),
		};
	else
		csv_err_prefix(err, "journal %u", g->slot);
	free(h);
	return r;
}
