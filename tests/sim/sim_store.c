/* SPDX-License-Identifier: GPL-2.0-only */
/* sim_store.c - sparse content of a simulated device (sim_store.h). */
#include "tests/sim/sim_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "utils/base/base.h"
#include "utils/base/crc32c.h"
#include "utils/base/prng.h"

#define BLOCK 4096u

struct entry { uint64_t blkno; uint8_t *data; };	/* data NULL: unused */

struct sim_store {
	const struct sim_store *base;
	uint64_t size_bytes;
	struct entry *e;
	uint64_t mask, n;
};

static void table_alloc(struct sim_store *s, uint64_t slots)
{
	s->mask = slots - 1;
	s->n = 0;
	s->e = calloc(slots, sizeof(*s->e));
	csv_assert(s->e);
}

static struct entry *find(const struct sim_store *s, uint64_t blkno)
{
	uint64_t x = blkno, i = csv_splitmix64(&x) & s->mask;

	while (s->e[i].data && s->e[i].blkno != blkno)
		i = (i + 1) & s->mask;
	return &s->e[i];
}

static void grow(struct sim_store *s)
{
	struct entry *old = s->e;
	uint64_t slots = s->mask + 1;

	table_alloc(s, slots * 2);
	for (uint64_t i = 0; i < slots; i++)
		if (old[i].data) {
			*find(s, old[i].blkno) = old[i];
			s->n++;
		}
	free(old);
}

struct sim_store *sim_store_new(uint64_t size_bytes)
{
	struct sim_store *s = calloc(1, sizeof(*s));

	csv_assert(s && size_bytes % BLOCK == 0);
	s->size_bytes = size_bytes;
	table_alloc(s, 64);
	return s;
}

struct sim_store *sim_store_overlay(const struct sim_store *base)
{
	struct sim_store *s = sim_store_new(base->size_bytes);

	s->base = base;
	return s;
}

struct sim_store *sim_store_clone(const struct sim_store *from)
{
	struct sim_store *s = calloc(1, sizeof(*s));

	csv_assert(s);
	s->size_bytes = from->size_bytes;
	s->base = from->base;
	table_alloc(s, from->mask + 1);
	for (uint64_t i = 0; i <= from->mask; i++)
		if (from->e[i].data)
			sim_store_write(s, from->e[i].blkno * BLOCK, from->e[i].data, BLOCK);
	return s;
}

void sim_store_free(struct sim_store *s)
{
	if (!s)
		return;
	for (uint64_t i = 0; i <= s->mask; i++)
		free(s->e[i].data);
	free(s->e);
	free(s);
}

uint64_t sim_store_size(const struct sim_store *s)
{
	return s->size_bytes;
}

static const uint8_t *block_get(const struct sim_store *s, uint64_t blkno)
{
	for (; s; s = s->base) {
		const struct entry *e = find(s, blkno);

		if (e->data)
			return e->data;
	}
	return NULL;
}

void sim_store_read(const struct sim_store *s, uint64_t off, void *buf, uint64_t len)
{
	uint8_t *p = buf;

	csv_assert(off <= s->size_bytes && len <= s->size_bytes - off);
	while (len) {
		uint64_t n = csv_min(len, BLOCK - off % BLOCK);
		const uint8_t *data = block_get(s, off / BLOCK);

		if (data)
			memcpy(p, data + off % BLOCK, n);
		else
			memset(p, 0, n);
		p += n;
		off += n;
		len -= n;
	}
}

static uint8_t *block_make(struct sim_store *s, uint64_t blkno, bool whole)
{
	struct entry *e = find(s, blkno);
	uint8_t *data;

	if (e->data)
		return e->data;
	if (s->n * 4 >= (s->mask + 1) * 3) {
		grow(s);
		e = find(s, blkno);
	}
	data = malloc(BLOCK);
	csv_assert(data);
	if (!whole)
		sim_store_read(s, blkno * BLOCK, data, BLOCK);
	e->blkno = blkno;
	e->data = data;
	s->n++;
	return data;
}

void sim_store_write(struct sim_store *s, uint64_t off, const void *buf, uint64_t len)
{
	const uint8_t *p = buf;

	csv_assert(off <= s->size_bytes && len <= s->size_bytes - off);
	while (len) {
		uint64_t n = csv_min(len, BLOCK - off % BLOCK);
		uint8_t *data = block_make(s, off / BLOCK, n == BLOCK);

		if (p) {
			memcpy(data + off % BLOCK, p, n);
			p += n;
		} else {
			memset(data + off % BLOCK, 0, n);
		}
		off += n;
		len -= n;
	}
}

void sim_store_zero(struct sim_store *s, uint64_t off, uint64_t len)
{
	sim_store_write(s, off, NULL, len);
}

static uint64_t layer_hash(const struct sim_store *top, const struct sim_store *layer)
{
	static const uint8_t zero[BLOCK];
	uint64_t sum = 0;

	for (uint64_t i = 0; i <= layer->mask; i++) {
		const struct entry *e = &layer->e[i];
		uint64_t x;

		/* what is covered from above counts there; a block of zeroes counts as none */
		if (!e->data || block_get(top, e->blkno) != e->data || !memcmp(e->data, zero, BLOCK))
			continue;
		x = e->blkno << 32 ^ csv_crc32c(0, e->data, BLOCK);
		sum += csv_splitmix64(&x);
	}
	return sum;
}

uint64_t sim_store_hash(const struct sim_store *s)
{
	uint64_t sum = 0;

	for (const struct sim_store *l = s; l; l = l->base)
		sum += layer_hash(s, l);
	return sum;
}

/* ---- as a device -------------------------------------------------------------------------------------------------- */

struct store_blk { struct blk blk; struct sim_store *s; };

static void store_submit(struct blk *b, struct blk_req *r)
{
	struct sim_store *s = container_of(b, struct store_blk, blk)->s;

	switch (r->op) {
	case BLK_READ: sim_store_read(s, r->off, r->buf, r->len); break;
	case BLK_WRITE: sim_store_write(s, r->off, r->buf, r->len); break;
	case BLK_DISCARD: sim_store_zero(s, r->off, r->len); break;
	case BLK_FLUSH: break;
	}
	blk_complete_later(b, r, 0);
}

static void store_close(struct blk *b)
{
	free(container_of(b, struct store_blk, blk));
}

struct blk *sim_store_blk(struct sim_store *s, struct sched *sched)
{
	static const struct blk_ops ops = { .submit = store_submit, .close = store_close };
	struct store_blk *b = calloc(1, sizeof(*b));

	csv_assert(b);
	b->s = s;
	b->blk.ops = &ops;
	b->blk.sched = sched;
	b->blk.size_bytes = s->size_bytes;
	b->blk.min_io = 512;
	b->blk.io_align = 512;
	return &b->blk;
}
