/* SPDX-License-Identifier: GPL-2.0-only */
/* sparse_blk.c - blocks in an open hash table, contents in chunks that only grow. */
#include "tests/unit/sparse_blk.h"

#include <stdlib.h>
#include <string.h>

#include "utils/base/base.h"

#define BLOCK 4096u
#define CHUNK (4u << 20)

struct entry { uint64_t blk1; /* block + 1; 0: empty */ uint8_t *data; uint16_t len, room; };
struct sparse {
	struct blk blk;
	struct entry *tab;
	uint64_t size, used, bytes;
	uint8_t **chunk;
	uint32_t n_chunks, at;
};

static uint8_t *store(struct sparse *s, uint32_t len)
{
	uint8_t *p;

	if (!s->n_chunks || s->at + len > CHUNK) {
		s->chunk = realloc(s->chunk, (s->n_chunks + 1) * sizeof(*s->chunk));
		s->chunk[s->n_chunks++] = malloc(CHUNK);
		s->at = 0;
		s->bytes += CHUNK;
	}
	p = s->chunk[s->n_chunks - 1] + s->at;
	s->at += len;
	return p;
}

static struct entry *find(struct entry *tab, uint64_t size, uint64_t blk)
{
	uint64_t i = blk * 0x9e3779b97f4a7c15ull >> 20;

	for (;; i++) {
		struct entry *e = &tab[i & (size - 1)];

		if (!e->blk1 || e->blk1 == blk + 1)
			return e;
	}
}

static void grow(struct sparse *s)
{
	struct entry *tab = calloc(s->size * 2, sizeof(*tab));

	for (uint64_t i = 0; i < s->size; i++)
		if (s->tab[i].blk1)
			*find(tab, s->size * 2, s->tab[i].blk1 - 1) = s->tab[i];
	free(s->tab);
	s->tab = tab;
	s->size *= 2;
	s->bytes += s->size / 2 * sizeof(*tab);
}

static void write_block(struct sparse *s, uint64_t blk, const uint8_t *p)
{
	uint32_t len = BLOCK;
	struct entry *e;

	while (len && !p[len - 1])
		len--;
	e = find(s->tab, s->size, blk);
	if (!e->blk1) {
		if (!len)
			return;
		if (++s->used > s->size / 2) {
			grow(s);
			e = find(s->tab, s->size, blk);
		}
		e->blk1 = blk + 1;
	}
	if (len > e->room) {
		e->room = (uint16_t)len;
		e->data = store(s, len);
	}
	memcpy(e->data, p, len);
	e->len = (uint16_t)len;
}

static void sparse_submit(struct blk *b, struct blk_req *r)
{
	struct sparse *s = container_of(b, struct sparse, blk);

	for (uint32_t i = 0; i < r->len; i += BLOCK) {
		uint8_t *p = (uint8_t *)r->buf + i;
		struct entry *e;

		csv_assert(r->off % BLOCK == 0 && r->len % BLOCK == 0);
		if (r->op == BLK_WRITE) {
			write_block(s, (r->off + i) / BLOCK, p);
			continue;
		}
		e = find(s->tab, s->size, (r->off + i) / BLOCK);
		memset(p, 0, BLOCK);
		if (e->blk1)
			memcpy(p, e->data, e->len);
	}
	blk_complete_later(b, r, 0);
}

static void sparse_close(struct blk *b)
{
	struct sparse *s = container_of(b, struct sparse, blk);

	for (uint32_t i = 0; i < s->n_chunks; i++)
		free(s->chunk[i]);
	free(s->chunk);
	free(s->tab);
	free(s);
}

static const struct blk_ops sparse_ops = { .submit = sparse_submit, .close = sparse_close };

struct blk *sparse_blk_new(struct sched *sched, uint64_t size_bytes, uint32_t min_io)
{
	struct sparse *s = calloc(1, sizeof(*s));

	s->blk = (struct blk){ .ops = &sparse_ops, .sched = sched, .size_bytes = size_bytes, .min_io = min_io, .io_align = min_io };
	s->size = 1024;
	s->tab = calloc(s->size, sizeof(*s->tab));
	return &s->blk;
}

uint64_t sparse_blk_bytes(struct blk *b)
{
	return container_of(b, struct sparse, blk)->bytes;
}
