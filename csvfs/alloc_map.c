/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * alloc_map.c - the bitmaps of a locked group: searching, taking, giving back, busy blocks.  Nothing here awaits.
 *
 * Searching works on words of 32 blocks (64 bits of two-bit states), turned into 32-bit masks "free and not busy".
 *
 * Where things go: a free block at the hint itself first (files stay contiguous).  Inodes next to other inodes: a word that holds
 * inodes and has room, else a word that is all free (R29: aligned chunks of 32 blocks).  Data and tree nodes stay out of words that
 * hold inodes as long as there is other room; runs of >= 1 MiB begin at whole MiB where that costs nothing.
 */
#include <errno.h>
#include <stdlib.h>

#include "csvfs/alloc_internal.h"

#define EVEN_BITS 0x5555555555555555ull
#define ALIGN_BLOCKS 256u
#define INODE_NEAR_WORDS 512u

typedef unsigned long long ull;

/* ---- words -------------------------------------------------------------------------------------------------------------------- */

static uint8_t *group_bits(const struct alloc_group *g, uint32_t bitmap)
{
	return ((struct csv_bitmap *)buf_data(g->bitmap[bitmap]))->bits;
}

static uint64_t word_get(const struct alloc_group *g, uint32_t w)
{
	struct le64 v;

	memcpy(&v, group_bits(g, w / WORDS_A_BITMAP) + (size_t)(w % WORDS_A_BITMAP) * 8, sizeof(v));
	return le64_get(v);
}

/* Every second bit of x, pushed together. */
static uint32_t squeeze(uint64_t x)
{
	x = (x | x >> 1) & 0x3333333333333333ull;
	x = (x | x >> 2) & 0x0f0f0f0f0f0f0f0full;
	x = (x | x >> 4) & 0x00ff00ff00ff00ffull;
	x = (x | x >> 8) & 0x0000ffff0000ffffull;
	return (uint32_t)(x | x >> 16);
}

static uint32_t mask_inside(const struct group_mem *m, uint32_t w)
{
	uint32_t first = w * ENTRIES_A_WORD;

	if (first + ENTRIES_A_WORD <= m->blocks)
		return UINT32_MAX;
	return first >= m->blocks ? 0 : (1u << (m->blocks - first)) - 1;
}

/* What the bitmap calls free. */
static uint32_t mask_free(const struct alloc_group *g, uint32_t w)
{
	uint64_t v = word_get(g, w);

	return squeeze(~(v | v >> 1) & EVEN_BITS) & mask_inside(g->mem, w);
}

static uint32_t mask_inodes(const struct alloc_group *g, uint32_t w)
{
	uint64_t v = word_get(g, w);

	return squeeze(v & v >> 1 & EVEN_BITS) & mask_inside(g->mem, w);
}

/* Free and not busy (A2); `no_inodes`: nothing in words that hold inodes. */
static uint32_t mask_avail(const struct alloc_group *g, uint32_t w, bool no_inodes)
{
	uint32_t mask = mask_free(g, w);
	struct busy_epoch *e;

	if (!mask || (no_inodes && mask_inodes(g, w)))
		return 0;
	if (!(g->mem->fs->mutate & CSV_MUT_REUSE_BEFORE_COMMIT)) {
		cds_list_for_each_entry(e, &g->mem->busy, node)
			mask &= ~e->map[w];
	}
	return mask;
}

static uint32_t group_words(const struct group_mem *m)
{
	return (uint32_t)csv_div_round_up(m->blocks, ENTRIES_A_WORD);
}

static bool block_is_avail(const struct alloc_group *g, uint32_t entry)
{
	return entry < g->mem->blocks && (mask_avail(g, entry / ENTRIES_A_WORD, false) >> entry % ENTRIES_A_WORD & 1);
}

/* ---- searching ------------------------------------------------------------------------------------------------------------------ */

/* From `from` to the end; true when a run of `want` was found (its beginning, cut), else the longest seen is in *best. */
static bool scan(const struct alloc_group *g, uint32_t from, uint32_t want, bool no_inodes, struct free_run *best)
{
	uint32_t words = group_words(g->mem), start = 0, len = 0;

	for (uint32_t w = from / ENTRIES_A_WORD; w < words; w++) {
		uint32_t mask = mask_avail(g, w, no_inodes), bit = 0;

		if (w == from / ENTRIES_A_WORD)
			mask &= UINT32_MAX << from % ENTRIES_A_WORD;
		while (bit < ENTRIES_A_WORD) {
			uint32_t rest = mask >> bit, n;

			if (!(rest & 1)) {
				len = 0;
				if (!rest)
					break;
				bit += (uint32_t)__builtin_ctz(rest);
				continue;
			}
			n = csv_min(~rest ? (uint32_t)__builtin_ctz(~rest) : ENTRIES_A_WORD, ENTRIES_A_WORD - bit);
			if (!len)
				start = w * ENTRIES_A_WORD + bit;
			len += n;
			bit += n;
			if (len > best->len)
				*best = (struct free_run){ start, csv_min(len, want) };
			if (len >= want)
				return true;
		}
	}
	return false;
}

static bool find_run(struct alloc_group *g, uint32_t from, uint32_t want, bool no_inodes, struct free_run *ret)
{
	*ret = (struct free_run){ 0, 0 };
	if (from >= g->mem->blocks)
		from = CSV_GROUP_FIRST_FREE;
	if (scan(g, from, want, no_inodes, ret))
		return true;
	*ret = (struct free_run){ 0, 0 };
	return scan(g, CSV_GROUP_FIRST_FREE, want, no_inodes, ret);
}

void map_find_run(struct alloc_group *g, uint32_t from, uint32_t want, struct free_run *ret)
{
	if (!find_run(g, from, want, false, ret))
		g->mem->largest_run = ret->len;
}

/* An inode's place: near `from` with other inodes, else the first word that is all free, else anything. */
static void find_inode(struct alloc_group *g, uint32_t from, struct free_run *ret)
{
	uint32_t words = group_words(g->mem), w0 = from < g->mem->blocks ? from / ENTRIES_A_WORD : 0;

	for (uint32_t i = 0; i < csv_min(words, INODE_NEAR_WORDS); i++) {
		uint32_t w = (w0 + i) % words, mask = mask_avail(g, w, false);

		if (mask && (mask_inodes(g, w) || mask == UINT32_MAX)) {
			*ret = (struct free_run){ w * ENTRIES_A_WORD + (uint32_t)__builtin_ctz(mask), 1 };
			return;
		}
	}
	find_run(g, from, 1, false, ret);
}

static bool hint_entry(const struct alloc_group *g, uint64_t hint_blk, uint32_t *ret)
{
	uint64_t start = csv_group_start(&g->mem->fs->geo, g->group);

	if (hint_blk < start || hint_blk - start >= g->mem->blocks)
		return false;
	*ret = (uint32_t)(hint_blk - start);
	return true;
}

/* The best run of at most `want` blocks in this group for `state`. */
static void choose(struct alloc_group *g, uint64_t hint_blk, uint32_t want, enum csv_blk_state state, struct free_run *ret)
{
	struct group_mem *m = g->mem;
	uint32_t hint, from;
	bool near = hint_entry(g, hint_blk, &hint);

	if (near && block_is_avail(g, hint)) {
		/* From the hint as far as it goes. */
		*ret = (struct free_run){ hint, 1 };
		while (ret->len < want && block_is_avail(g, hint + ret->len))
			ret->len++;
		return;
	}
	from = near ? hint : state == CSV_BLK_DATA ? m->cursor : CSV_GROUP_FIRST_FREE;
	if (state == CSV_BLK_INODE) {
		find_inode(g, from, ret);
		return;
	}
	if (want >= ALIGN_BLOCKS && m->largest_run >= want + ALIGN_BLOCKS - 1 &&
	    find_run(g, from, want + ALIGN_BLOCKS - 1, true, ret)) {
		ret->start = (uint32_t)csv_round_up(ret->start, ALIGN_BLOCKS);
		ret->len = want;
		return;
	}
	want = csv_min(want, csv_max(m->largest_run, 1u));
	if (!find_run(g, from, want, true, ret) && !ret->len)
		map_find_run(g, from, want, ret);
}

/* ---- numbers -------------------------------------------------------------------------------------------------------------------- */

void group_store(struct alloc_group *g)
{
	struct csv_group *d = buf_data(g->hdr);
	struct group_mem *m = g->mem;

	m->largest_run = csv_min(m->largest_run, m->free_blk);
	le32_set(&d->free_blk, m->free_blk);
	le32_set(&d->largest_run, m->largest_run);
	le32_set(&d->inodes, m->inodes);
}

static void mark(struct alloc_group *g, struct jnl_handle *h, uint32_t first, uint32_t len, enum csv_blk_state state)
{
	uint32_t last_bitmap = UINT32_MAX;

	for (uint32_t e = first; e < first + len; e++) {
		uint32_t b = e / CSV_BITMAP_BLOCKS_COVERED;

		if (b != last_bitmap)
			buf_dirty(h, g->bitmap[b]);
		last_bitmap = b;
		csv_bits_set(group_bits(g, b), e % CSV_BITMAP_BLOCKS_COVERED, state);
	}
}

static enum csv_blk_state entry_state(const struct alloc_group *g, uint32_t entry)
{
	return csv_bits_get(group_bits(g, entry / CSV_BITMAP_BLOCKS_COVERED), entry % CSV_BITMAP_BLOCKS_COVERED);
}

/* ---- taking --------------------------------------------------------------------------------------------------------------------- */

static struct alloc_group *group_at(const struct alloc_resv *r, uint64_t blk)
{
	uint32_t group = csv_group_of(&r->fs->geo, blk);

	for (uint32_t i = 0; i < r->n; i++)
		if (r->g[i].group == group)
			return (struct alloc_group *)&r->g[i];
	return NULL;
}

/* The hint's group where it has a promise left, else any that has. */
static struct alloc_group *group_to_take(const struct alloc_resv *r, uint64_t hint_blk)
{
	struct alloc_group *g = group_at(r, hint_blk);

	if (g && g->promised)
		return g;
	for (uint32_t i = 0; i < r->n; i++)
		if (r->g[i].promised)
			return (struct alloc_group *)&r->g[i];
	return NULL;
}

static int nothing_there(const struct alloc_group *g)
{
	fs_log(g->mem->fs, LOG_L_ERR, "group %u: field free_blk = %u (busy %u): no free block in its bitmaps; run fsck.csvfs", g->group,
	       g->mem->free_blk, g->mem->busy_blk);
	return -CSV_E_CORRUPT;
}

int alloc_take(struct alloc_resv *r, struct jnl_handle *h, uint64_t hint_blk, uint32_t want, enum csv_blk_state state, uint64_t *ret_blk,
	       uint32_t *ret_len, uint64_t *ret_generation)
{
	struct alloc_group *g = group_to_take(r, hint_blk);
	struct csv_group *d;
	struct free_run run;

	csv_assert(want > 0 && state != CSV_BLK_FREE && (state == CSV_BLK_DATA || ret_generation));
	if (!g)
		return -ENOSPC;
	choose(g, hint_blk, csv_min(want, g->promised), state, &run);
	if (!run.len)
		return nothing_there(g);
	csv_assert(run.len <= g->promised && run.start >= CSV_GROUP_FIRST_FREE && run.start + run.len <= g->mem->blocks);

	buf_dirty(h, g->hdr);
	mark(g, h, run.start, run.len, state);
	g->promised -= run.len;
	g->mem->free_blk -= run.len;
	if (state == CSV_BLK_INODE)
		g->mem->inodes += run.len;
	if (state == CSV_BLK_DATA)
		g->mem->cursor = run.start + run.len;
	if (state != CSV_BLK_DATA) {
		d = buf_data(g->hdr);
		*ret_generation = le64_get(d->next_generation);
		le64_set(&d->next_generation, *ret_generation + run.len);	/* A3 */
	}
	group_store(g);
	r->fs->alloc->takes++;
	*ret_blk = csv_group_start(&r->fs->geo, g->group) + run.start;
	*ret_len = run.len;
	return 0;
}

enum alloc_look alloc_look(const struct alloc_resv *r, uint64_t blk)
{
	struct alloc_group *g = group_at(r, blk);
	uint32_t entry;

	if (!g || !g->promised || !hint_entry(g, blk, &entry))
		return ALLOC_LOOK_OTHER;
	if (entry_state(g, entry) != CSV_BLK_FREE)
		return ALLOC_LOOK_USED;
	return block_is_avail(g, entry) ? ALLOC_LOOK_FREE : ALLOC_LOOK_BUSY;
}

int alloc_peek(const struct alloc_resv *r, uint64_t hint_blk, uint64_t *ret_blk)
{
	struct alloc_group *g = group_to_take(r, hint_blk);
	struct free_run run;

	if (!g)
		return -ENOSPC;
	choose(g, hint_blk, 1, CSV_BLK_INODE, &run);
	if (!run.len)
		return nothing_there(g);
	*ret_blk = csv_group_start(&r->fs->geo, g->group) + run.start;
	return 0;
}

/* ---- giving back ------------------------------------------------------------------------------------------------------------------ */

bool alloc_resv_covers(const struct alloc_resv *r, uint64_t blk)
{
	return r && group_at(r, blk);
}

int alloc_may_give(const struct alloc_resv *r, uint64_t blk, uint32_t len, enum csv_blk_state state)
{
	struct csvfs *fs = r->fs;
	struct alloc_group *g;
	uint64_t first;

	csv_assert(state != CSV_BLK_FREE);
	if (!csv_run_is_allocatable(&fs->geo, blk, len)) {
		fs_log(fs, LOG_L_ERR, "blocks %llu + %u are to be freed: must lie inside one group, behind its bitmaps; run fsck.csvfs", (ull)blk,
		       len);
		return -CSV_E_CORRUPT;
	}
	g = group_at(r, blk);
	if (!g)
		return -EXDEV;
	first = blk - csv_group_start(&fs->geo, g->group);
	for (uint32_t i = 0; i < len; i++) {
		enum csv_blk_state st = entry_state(g, (uint32_t)first + i);

		if (st == state)
			continue;
		fs_log(fs, LOG_L_ERR, "block %llu is to be freed as %s: group %u says %s; run fsck.csvfs", (ull)blk + i,
		       csv_blk_state_name(state), g->group, csv_blk_state_name(st));
		return -CSV_E_CORRUPT;
	}
	return 0;
}

static void busy_over(struct jnl_on_commit *c, int status)
{
	struct busy_epoch *e = container_of(c, struct busy_epoch, c);
	struct group_mem *m = e->mem;

	(void)status;		/* < 0: the journal is dead and this node writes nothing any more */
	cds_list_del(&e->node);
	m->busy_blk -= e->blocks;
	if (m->spare) {
		free(e);
		return;
	}
	memset(e->map, 0, sizeof(e->map));
	e->blocks = 0;
	e->txn = NULL;
	m->spare = e;
}

int busy_prepare(struct group_mem *m)
{
	if (m->spare)
		return 0;
	m->spare = calloc(1, sizeof(*m->spare));
	if (!m->spare)
		return -ENOMEM;
	m->spare->mem = m;
	return 0;
}

static int busy_epoch_of(struct group_mem *m, struct jnl_handle *h, struct busy_epoch **ret)
{
	struct busy_epoch *e;
	int rc;

	cds_list_for_each_entry(e, &m->busy, node) {
		if (e->txn == h->txn) {
			*ret = e;
			return 0;
		}
	}
	rc = busy_prepare(m);
	if (rc)
		return rc;
	e = m->spare;
	m->spare = NULL;
	e->txn = h->txn;
	e->c.fn = busy_over;
	cds_list_add(&e->node, &m->busy);
	jnl_on_commit(h, &e->c);
	*ret = e;
	return 0;
}

/* The length of the free run around [first, first + len), busy blocks counted as free: they soon are. */
static uint32_t run_around(const struct alloc_group *g, uint32_t first, uint32_t len)
{
	uint32_t lo = first, hi = first + len, end = g->mem->blocks;

	while (lo > CSV_GROUP_FIRST_FREE) {
		uint32_t w = (lo - 1) / ENTRIES_A_WORD;

		if (lo % ENTRIES_A_WORD == 0 && mask_free(g, w) == UINT32_MAX && w * ENTRIES_A_WORD >= CSV_GROUP_FIRST_FREE)
			lo -= ENTRIES_A_WORD;
		else if (entry_state(g, lo - 1) == CSV_BLK_FREE)
			lo--;
		else
			break;
	}
	while (hi < end) {
		if (hi % ENTRIES_A_WORD == 0 && mask_free(g, hi / ENTRIES_A_WORD) == UINT32_MAX)
			hi += ENTRIES_A_WORD;
		else if (entry_state(g, hi) == CSV_BLK_FREE)
			hi++;
		else
			break;
	}
	return hi - lo;
}

int alloc_give(struct alloc_resv *r, struct jnl_handle *h, uint64_t blk, uint32_t len, enum csv_blk_state state)
{
	int rc = alloc_may_give(r, blk, len, state);
	struct busy_epoch *e;
	struct alloc_group *g;
	uint32_t first;

	if (rc)
		return rc;
	g = group_at(r, blk);
	first = (uint32_t)(blk - csv_group_start(&r->fs->geo, g->group));
	rc = busy_epoch_of(g->mem, h, &e);
	if (rc)
		return rc;
	buf_dirty(h, g->hdr);
	mark(g, h, first, len, CSV_BLK_FREE);
	for (uint32_t i = first; i < first + len; i++) {
		csv_assert(!(e->map[i / ENTRIES_A_WORD] >> i % ENTRIES_A_WORD & 1) || r->fs->mutate & CSV_MUT_REUSE_BEFORE_COMMIT);
		if (!(e->map[i / ENTRIES_A_WORD] >> i % ENTRIES_A_WORD & 1)) {
			e->map[i / ENTRIES_A_WORD] |= 1u << i % ENTRIES_A_WORD;
			e->blocks++;
			g->mem->busy_blk++;
		}
	}
	g->mem->free_blk += len;
	if (state == CSV_BLK_INODE)
		g->mem->inodes -= len;
	g->mem->largest_run = csv_max(g->mem->largest_run, run_around(g, first, len));
	group_store(g);
	r->fs->alloc->gives++;
	return 0;
}
