/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * check_map.c - the map of what is referred to, two bits a block like the bitmaps, and its comparison with them, group by group.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "csvfs/check/check_internal.h"

/* The window begins and ends with whole groups, but for the last. */
int ck_map_window(struct ck *c, uint64_t first)
{
	const struct csv_geom *g = &c->g;
	uint32_t group;

	ck_table_forget(&c->far_nodes);
	c->n_twice = 0;
	c->win_first = first;
	c->win_end = csv_min(first + c->win_max, g->total_blk);
	if (!c->map)
		c->map = malloc(csv_div_round_up(csv_min(c->win_max, g->total_blk), 4));
	if (!c->map)
		return ck_fatal(c, -ENOMEM, "out of memory for a map of %" PRIu64 " blocks; take less memory", c->win_end - c->win_first);
	memset(c->map, 0, csv_div_round_up(c->win_end - c->win_first, 4));
	for (group = csv_group_of(g, csv_max(first, g->data_start_blk)); group < g->groups && csv_group_start(g, group) < c->win_end; group++)
		ck_mark(c, csv_group_start(g, group), CSV_GROUP_FIRST_FREE, CSV_BLK_META, "group");
	return 0;
}

static enum csv_blk_state map_get(const struct ck *c, uint64_t blkno)
{
	uint64_t i = blkno - c->win_first;

	return (enum csv_blk_state)(c->map[i / 4] >> (i % 4 * 2) & 3);
}

bool ck_marked(const struct ck *c, uint64_t blkno)
{
	return blkno >= c->win_first && blkno < c->win_end && map_get(c, blkno) != CSV_BLK_FREE;
}

static bool hunt(struct ck *c, uint64_t blkno, uint64_t len, const char *who)
{
	for (uint32_t i = 0; i < c->n_twice; i++) {
		uint64_t at = csv_max(blkno, c->twice[i].blkno), end = csv_min(blkno + len, c->twice[i].blkno + c->twice[i].len);

		if (at >= end)
			continue;
		c->quiet = false;
		ck_note(c, "block %" PRIu64 " (%" PRIu64 " in all), used more than once: by %s", at, end - at, who);
		c->quiet = true;
	}
	return true;
}

bool ck_mark(struct ck *c, uint64_t blkno, uint64_t len, enum csv_blk_state state, const char *who)
{
	uint64_t at = csv_max(blkno, c->win_first), end = csv_min(blkno + len, c->win_end), bad = 0, bad_n = 0;
	bool quiet = c->quiet;

	if (c->hunting)
		return hunt(c, blkno, len, who);
	while (at < end) {
		uint64_t i = at - c->win_first;

		if (i % 4 == 0 && end - at >= 4 && !c->map[i / 4]) {
			c->map[i / 4] = (uint8_t)(state * 0x55);
			at += 4;
			continue;
		}
		if (map_get(c, at) != CSV_BLK_FREE) {
			if (!bad_n++)
				bad = at;
		} else {
			c->map[i / 4] = (uint8_t)(c->map[i / 4] | state << (i % 4 * 2));
		}
		at++;
	}
	if (!bad_n)
		return true;
	if (c->n_twice < CK_TWICE_MAX) {
		c->twice[c->n_twice].blkno = bad;
		c->twice[c->n_twice++].len = end - bad;
	}
	/* Found in whichever pass has the block in its window. */
	c->quiet = false;
	ck_finding(c, "%s: block %" PRIu64 " (%" PRIu64 " in all, as %s): in use by somebody else already: must have one owner", who, bad, bad_n,
		   csv_blk_state_name(state));
	c->quiet = quiet;
	return false;
}

/* ---- groups ------------------------------------------------------------------------------------------------------------ */

struct cmp {
	uint64_t first;			/* of the run of equal differences */
	uint64_t n;
	enum csv_blk_state disk, found;
	uint32_t free_n, inodes;
};

static void cmp_flush(struct ck *c, struct cmp *m)
{
	if (!m->n)
		return;
	ck_finding(c, "block %" PRIu64 " (%" PRIu64 " in a row): bitmap state %s: must be %s: %s", m->first, m->n, csv_blk_state_name(m->disk),
		   csv_blk_state_name(m->found),
		   m->found == CSV_BLK_FREE ? "nothing refers to it" :
		   m->disk == CSV_BLK_FREE ? "it is in use, and could be given away" : "it is in use as something else");
	m->n = 0;
}

static void cmp_block(struct ck *c, struct cmp *m, uint64_t blkno, enum csv_blk_state disk)
{
	enum csv_blk_state found = map_get(c, blkno);

	m->free_n += disk == CSV_BLK_FREE;
	m->inodes += disk == CSV_BLK_INODE;
	switch (disk) {
	case CSV_BLK_FREE: c->res->free_blk++; break;
	case CSV_BLK_DATA: c->res->data_blk++; break;
	default: c->res->meta_blk++; break;
	}
	if (disk == found) {
		cmp_flush(c, m);
		return;
	}
	if (m->n && (m->disk != disk || m->found != found || m->first + m->n != blkno))
		cmp_flush(c, m);
	if (!m->n++) {
		m->first = blkno;
		m->disk = disk;
		m->found = found;
	}
}

/* 32 blocks at once where disk and map agree, which is nearly everywhere. */
static bool cmp_word(struct ck *c, struct cmp *m, uint64_t blkno, const uint8_t *bits)
{
	const uint64_t even = 0x5555555555555555ull;
	uint64_t v, w, lo, hi;
	uint32_t free_n, inodes, data;

	memcpy(&v, bits, sizeof(v));
	memcpy(&w, c->map + (blkno - c->win_first) / 4, sizeof(w));
	if (v != w)
		return false;
	cmp_flush(c, m);
	lo = v & even;
	hi = v >> 1 & even;
	free_n = 32 - (uint32_t)__builtin_popcountll(lo | hi);
	inodes = (uint32_t)__builtin_popcountll(lo & hi);
	data = (uint32_t)__builtin_popcountll(lo & ~hi);
	m->free_n += free_n;
	m->inodes += inodes;
	c->res->free_blk += free_n;
	c->res->data_blk += data;
	c->res->meta_blk += 32 - free_n - data;
	return true;
}

static void bitmap_check(struct ck *c, uint32_t group, uint32_t i, struct cmp *m, bool *all_read)
{
	struct csv_owner owner = { CSV_OWN_GROUP, group };
	const struct csv_bitmap *b = c->buf;
	uint32_t blocks = csv_group_blocks(&c->g, group), first = i * CSV_BITMAP_BLOCKS_COVERED;
	uint64_t start = csv_group_start(&c->g, group);
	char who[40];

	snprintf(who, sizeof(who), "group %u: bitmap %u", group, i);
	if (!ck_read_meta(c, csv_bitmap_blk(&c->g, group, i), CSV_MAGIC_BITMAP, owner, c->buf, who)) {
		*all_read = false;
		return;
	}
	for (uint32_t e = 0; e < CSV_BITMAP_BLOCKS_COVERED; e++) {
		enum csv_blk_state st;

		if (e % 32 == 0 && first + e + 32 <= blocks && cmp_word(c, m, start + first + e, b->bits + e / 4)) {
			e += 31;
			continue;
		}
		st = csv_bits_get(b->bits, e);
		if (first + e < blocks) {
			cmp_block(c, m, start + first + e, st);
		} else if (st != CSV_BLK_FREE) {
			ck_finding(c, "%s: entry %u = %s, behind the group's end (%u blocks): must be 0", who, e, csv_blk_state_name(st), blocks);
			break;
		}
	}
}

static void group_check(struct ck *c, uint32_t group)
{
	struct csv_owner owner = { CSV_OWN_GROUP, group };
	uint64_t start = csv_group_start(&c->g, group);
	uint32_t blocks = csv_group_blocks(&c->g, group);
	struct csv_group h;
	struct cmp m = { 0 };
	bool all_read = true, have;
	char who[24];

	snprintf(who, sizeof(who), "group %u", group);
	have = ck_read_meta(c, start, CSV_MAGIC_GROUP, owner, c->buf, who);
	memcpy(&h, c->buf, sizeof(h));
	if (have && !ck_all_zero((uint8_t *)c->buf + sizeof(h), CSV_BLOCK_SIZE - sizeof(h)))
		ck_finding(c, "%s: block %" PRIu64 ": bytes behind the header: must be 0", who, start);
	for (uint32_t i = 0; i < CSV_GROUP_BITMAPS && !c->fatal; i++)
		bitmap_check(c, group, i, &m, &all_read);
	cmp_flush(c, &m);
	if (!have || c->fatal)
		return;
#define FIELD(field, value, bad, fmt, ...)                                                                                         \
	do {                                                                                                                      \
		if (bad)                                                                                                          \
			ck_finding(c, "%s: block %" PRIu64 ": field " field " = %" PRIu64 ": must be " fmt, who, start,          \
				   (uint64_t)(value), ##__VA_ARGS__);                                                             \
	} while (0)
	FIELD("group", le32_get(h.group), le32_get(h.group) != group, "%u", group);
	FIELD("blocks", le32_get(h.blocks), le32_get(h.blocks) != blocks, "%u", blocks);
	FIELD("free_blk", le32_get(h.free_blk), all_read && le32_get(h.free_blk) != m.free_n, "%u, as the bitmaps say", m.free_n);
	FIELD("largest_run", le32_get(h.largest_run), le32_get(h.largest_run) > blocks, "at most %u", blocks);
	FIELD("inodes", le32_get(h.inodes), all_read && le32_get(h.inodes) != m.inodes, "%u, as the bitmaps say", m.inodes);
	FIELD("next_generation", le64_get(h.next_generation), le64_get(h.next_generation) <= c->max_gen[group],
	      "above %" PRIu64 ", which a block of the group has", c->max_gen[group]);
	FIELD("flags", le32_get(h.flags), le32_get(h.flags), "0");
	FIELD("refcount_root", le64_get(h.refcount_root), le64_get(h.refcount_root), "0");
#undef FIELD
}

void ck_groups_check(struct ck *c)
{
	const struct csv_geom *g = &c->g;

	for (uint32_t group = 0; group < g->groups && !c->fatal; group++) {
		uint64_t start = csv_group_start(g, group);

		if (start < c->win_first || start >= c->win_end)
			continue;
		group_check(c, group);
		if (c->o->progress)
			c->o->progress(c->o->arg, "groups", group + 1, g->groups);
	}
}
