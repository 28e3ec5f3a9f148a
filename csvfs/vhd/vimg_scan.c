/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vimg_scan.c - all blocks of an image at once: none overlaps another, and what is free between them.  See vimg.h.
 *
 *	VHDX	everything is aligned to 1 MiB: one bit a MiB of the file
 *	VHD	records begin at any sector: their places are collected and sorted, what is between them kept as a list
 *
 * Invariants
 *  VS1 A place that vimg_scan_place() gives is inside the file, overlaps no area and no block, nor (VHDX) space that an absent block says
 *      it has kept; and is given once.
 *  VS2 Kept space means nothing where it collides with a block that is there: it is not an error.
 *  VS3 Of the disk's last block only a part may be needed.  Others must keep clear of that part; the rest is its own unless somebody is there.
 */
#include "csvfs/vhd/vimg_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 4096u

struct gap { uint64_t off, len; };
struct vimg_scan {
	const struct vimg *v;
	uint64_t file_size;
	uint64_t at;			/* entries fed */
	uint64_t present;
	uint64_t last_off, last_len;	/* record of the disk's last block, 0: absent; as long as others where nothing is in the way (VS3) */
	/* VHDX */
	uint64_t units;
	uint8_t *used, *kept;		/* a bit a MiB */
	uint64_t hint;			/* below it no place is free */
	/* VHD */
	uint32_t *start;		/* sectors */
	uint64_t n_start;
	struct gap *gap;
	size_t n_gaps, max_gaps;
};

#define BAD(err, ...) csv_err_set(err, -CSV_E_CORRUPT, __VA_ARGS__)

/* ---- bits ------------------------------------------------------------------------------------------------------------------------ */

static bool bit(const uint8_t *map, uint64_t n)
{
	return map[n / 8] & (1u << n % 8);
}

static void bits_set(uint8_t *map, uint64_t from, uint64_t n, bool on)
{
	for (uint64_t k = from; k < from + n; k++)
		map[k / 8] = (uint8_t)(on ? map[k / 8] | 1u << k % 8 : map[k / 8] & ~(1u << k % 8));
}

static uint64_t units_of(uint64_t bytes)
{
	return csv_div_round_up(bytes, VHDX_MIB);
}

/* The first of n units from `from` on of which `map` has one; or from + n. */
static uint64_t bits_find(const uint8_t *map, uint64_t from, uint64_t n)
{
	uint64_t k = from;

	while (k < from + n && !bit(map, k))
		k++;
	return k;
}

/* ---- begin ------------------------------------------------------------------------------------------------------------------------- */

struct vimg_scan *vimg_scan_new(const struct vimg *v, uint64_t file_size)
{
	struct vimg_scan *s = calloc(1, sizeof(*s));

	csv_assertf(v->has_bat, "a scan of an image without BAT");
	if (!s)
		return NULL;
	s->v = v;
	s->file_size = file_size;
	if (v->format == VIMG_VHD) {
		s->start = calloc(v->blocks, sizeof(*s->start));
	} else {
		s->units = units_of(file_size);
		s->used = calloc(1, s->units / 8 + 1);
		s->kept = calloc(1, s->units / 8 + 1);
	}
	if (!s->start && (!s->used || !s->kept)) {
		vimg_scan_free(s);
		return NULL;
	}
	for (uint32_t k = 0; s->used && k < v->n_areas; k++) {
		uint64_t from = v->area[k].off / VHDX_MIB, end = csv_min(units_of(v->area[k].off + v->area[k].len), s->units);

		if (from < end)
			bits_set(s->used, from, end - from, true);
	}
	return s;
}

void vimg_scan_free(struct vimg_scan *s)
{
	if (!s)
		return;
	free(s->used);
	free(s->kept);
	free(s->start);
	free(s->gap);
	free(s);
}

/* ---- feed ----------------------------------------------------------------------------------------------------------------------------- */

static int use_units(struct vimg_scan *s, const char *what, uint64_t n, uint64_t off, uint64_t len, struct csv_err *err)
{
	uint64_t from = off / VHDX_MIB, count = units_of(len), hit = bits_find(s->used, from, count);

	if (hit < from + count)
		return BAD(err, "BAT: entry of %s %" PRIu64 ": offset is %" PRIu64 " (%" PRIu64 " bytes), must not overlap another block, as it does at %"
				PRIu64, what, n, off, len, (uint64_t)(hit * VHDX_MIB));
	bits_set(s->used, from, count, true);
	return 0;
}

/* An entry between those of blocks: of the bitmap of `chunk`. */
static int feed_bitmap(struct vimg_scan *s, uint64_t chunk, const void *raw, struct csv_err *err)
{
	uint64_t x = le64_get(*(const struct le64 *)raw), off = x & ~(VHDX_MIB - 1), end;
	unsigned state = x & 7;

	if (x & 0xffff8)
		return BAD(err, "BAT: entry of bitmap %" PRIu64 ": is 0x%" PRIx64 ", its reserved bits 3 to 19 must be 0", chunk, x);
	if (!state)
		return 0;
	if (state != 6 || !s->v->has_parent)
		return BAD(err, "BAT: entry of bitmap %" PRIu64 ": state is %u, must be 0%s", chunk, state,
			   s->v->has_parent ? " or 6" : " as the disk has no parent");
	if (csv_add_overflow(off, VHDX_MIB, &end) || end > s->file_size)
		return BAD(err, "BAT: entry of bitmap %" PRIu64 ": offset is %" PRIu64 ", must end before the file's end at %" PRIu64, chunk, off,
			   s->file_size);
	return use_units(s, "bitmap", chunk, off, VHDX_MIB, err);
}

static int feed_block(struct vimg_scan *s, uint64_t block, const void *raw, struct csv_err *err)
{
	const struct vimg *v = s->v;
	struct vimg_entry e;
	int rc = vimg_entry_decode(v, s->file_size, block, raw, &e, err);

	if (rc)
		return rc;
	if (e.state != VIMG_PRESENT && e.state != VIMG_PARTIAL) {
		if (e.data_off)
			bits_set(s->kept, e.data_off / VHDX_MIB, units_of(vimg_block_len(v, block)), true);
		return 0;
	}
	s->present++;
	if (block == v->blocks - 1) {
		s->last_off = e.data_off - v->bitmap_bytes;
		s->last_len = v->bitmap_bytes + v->block_size;
	}
	if (v->format == VIMG_VHDX)
		return use_units(s, "block", block, e.data_off, vimg_block_len(v, block), err);
	s->start[s->n_start++] = (uint32_t)(e.bitmap_off / VIMG_SECTOR);
	return 0;
}

int vimg_scan_feed(struct vimg_scan *s, const void *raw, size_t len, struct csv_err *err)
{
	const struct vimg *v = s->v;
	const uint8_t *p = raw;
	int rc = 0;

	csv_assertf(len % v->entry_bytes == 0 && s->at * v->entry_bytes + len <= v->bat_bytes, "%zu bytes of BAT after %llu entries", len,
		    (unsigned long long)s->at);
	for (; len && !rc; len -= v->entry_bytes, p += v->entry_bytes, s->at++) {
		uint64_t ratio = v->chunk_ratio, chunk = ratio ? s->at / (ratio + 1) : 0, k = ratio ? s->at % (ratio + 1) : s->at;

		if (ratio && k == ratio)
			rc = feed_bitmap(s, chunk, p, err);
		else if (chunk * ratio + k < v->blocks)
			rc = feed_block(s, chunk * ratio + k, p, err);
		else if (le64_get(*(const struct le64 *)p))	/* differencing: the last chunk is filled up */
			rc = BAD(err, "BAT: entry %" PRIu64 ": is 0x%" PRIx64 ", must be 0 behind the last block", s->at,
				 le64_get(*(const struct le64 *)p));
	}
	return rc;
}

/* ---- end ------------------------------------------------------------------------------------------------------------------------------- */

static int by_sector(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Of a record in this gap; UINT64_MAX: none fits. */
static uint64_t place_in(const struct vimg *v, const struct gap *g)
{
	uint64_t off = csv_round_up(g->off + v->bitmap_bytes, ALIGN) - v->bitmap_bytes;

	return off + v->bitmap_bytes + v->block_size <= g->off + g->len ? off : UINT64_MAX;
}

/* Gaps too small for a record are forgotten. */
static int add_gap(struct vimg_scan *s, uint64_t off, uint64_t end)
{
	struct gap g = { off, end - off };

	if (off >= end || place_in(s->v, &g) == UINT64_MAX)
		return 0;
	if (s->n_gaps == s->max_gaps) {
		size_t max = s->max_gaps ? s->max_gaps * 2 : 16;
		struct gap *more = reallocarray(s->gap, max, sizeof(*more));

		if (!more)
			return -ENOMEM;
		s->gap = more;
		s->max_gaps = max;
	}
	s->gap[s->n_gaps++] = g;
	return 0;
}

static int end_vhd(struct vimg_scan *s, struct vimg_usage *u, struct csv_err *err)
{
	const struct vimg *v = s->v;
	uint64_t at = 0, len = v->bitmap_bytes + v->block_size, data_end = vimg_data_end(v, s->file_size);
	uint64_t n = 0, rest = 0;	/* rest: of the last block, where it is behind `at` */
	uint32_t a = 0;

	qsort(s->start, s->n_start, sizeof(*s->start), by_sector);
	while (n < s->n_start || a < v->n_areas) {
		bool area = a < v->n_areas && (n == s->n_start || v->area[a].off < s->start[n] * (uint64_t)VIMG_SECTOR);
		uint64_t off = area ? v->area[a].off : s->start[n] * (uint64_t)VIMG_SECTOR;
		uint64_t end = off + (area ? v->area[a].len : off == s->last_off ? vimg_record_len(v, v->blocks - 1) : len);

		if (off < at && !area)
			return BAD(err, "BAT: two entries: offset %" PRIu64 " of one (%" PRIu64 " bytes) lies in the other, which ends at %" PRIu64 "; blocks "
					"must not overlap", off, len, at);
		if (rest && off < rest)
			s->last_len = vimg_record_len(v, v->blocks - 1);
		if (add_gap(s, csv_max(at, csv_min(rest, off)), off))
			return csv_err_set(err, -ENOMEM, "out of memory");
		if (end > at)
			at = end;
		rest = !area && off == s->last_off ? off + len : 0;
		a += area;
		n += !area;
	}
	u->data_end = at;
	if (rest > data_end)
		s->last_len = vimg_record_len(v, v->blocks - 1);
	if (add_gap(s, csv_max(at, csv_min(rest, data_end)), data_end))
		return csv_err_set(err, -ENOMEM, "out of memory");
	for (size_t k = 0; k < s->n_gaps; k++) {
		u->free_bytes += s->gap[k].len;
		u->free_blocks += (s->gap[k].off + s->gap[k].len - place_in(v, &s->gap[k])) / v->stride;
		/* the last needs no stride */
		u->free_blocks += (s->gap[k].off + s->gap[k].len - place_in(v, &s->gap[k])) % v->stride >= len;
	}
	return 0;
}

static void end_vhdx(struct vimg_scan *s, struct vimg_usage *u)
{
	uint64_t whole = s->file_size / VHDX_MIB, run = 0, need = s->v->block_size / VHDX_MIB;

	if (s->last_off) {
		uint64_t len = vimg_block_len(s->v, s->v->blocks - 1), from = s->last_off / VHDX_MIB + units_of(len);
		uint64_t end = s->last_off / VHDX_MIB + need;

		if (end > s->units || bits_find(s->used, from, end - from) < end)
			s->last_len = len;
		else
			bits_set(s->kept, from, end - from, true);
	}
	for (uint64_t k = 0; k <= whole; k++) {
		uint8_t taken = k < whole ? s->used[k / 8] | s->kept[k / 8] : 0xff;

		/* A file may be 2^27 MiB long: whole bytes at once. */
		if (k % 8 == 0 && k + 8 <= whole && (!taken || taken == 0xff)) {
			u->free_blocks += taken ? run / need : 0;
			run = taken ? 0 : run + 8;
			u->free_bytes += taken ? 0 : 8 * VHDX_MIB;
			k += 7;
		} else if (k < whole && !(taken & 1u << k % 8)) {
			run++;
			u->free_bytes += VHDX_MIB;
		} else {
			u->free_blocks += run / need;
			run = 0;
		}
	}
	for (uint64_t k = s->units; k-- && !u->data_end;)
		if (bit(s->used, k))
			u->data_end = csv_min((k + 1) * VHDX_MIB, s->file_size);
}

int vimg_scan_end(struct vimg_scan *s, struct vimg_usage *ret, struct csv_err *err)
{
	struct vimg_usage u = { .present = s->present };
	int rc = 0;

	csv_assertf(s->at * s->v->entry_bytes == s->v->bat_bytes, "%llu entries of BAT were fed", (unsigned long long)s->at);
	if (s->v->format == VIMG_VHD)
		rc = end_vhd(s, &u, err);
	else
		end_vhdx(s, &u);
	if (!rc)
		*ret = u;
	return rc;
}

/* ---- places ------------------------------------------------------------------------------------------------------------------------------ */

static bool place_vhdx(struct vimg_scan *s, uint64_t *ret_off)
{
	uint64_t need = s->v->block_size / VHDX_MIB, whole = s->file_size / VHDX_MIB, run = 0;

	for (uint64_t k = s->hint; k < whole; k++) {
		run = bit(s->used, k) || bit(s->kept, k) ? 0 : run + 1;
		if (run < need)
			continue;
		bits_set(s->used, k + 1 - need, need, true);
		*ret_off = (k + 1 - need) * VHDX_MIB;
		s->hint = k + 1;
		return true;
	}
	s->hint = whole - csv_min(whole, need);
	return false;
}

bool vimg_scan_place(struct vimg_scan *s, uint64_t *ret_off)
{
	struct gap *g;
	uint64_t off, end;

	if (s->v->format == VIMG_VHDX)
		return place_vhdx(s, ret_off);
	if (!s->n_gaps)
		return false;
	g = &s->gap[s->n_gaps - 1];
	off = place_in(s->v, g);
	end = g->off + g->len;
	g->off = off + s->v->bitmap_bytes + s->v->block_size;
	g->len = end - g->off;
	if (place_in(s->v, g) == UINT64_MAX)
		s->n_gaps--;
	*ret_off = off;
	return true;
}

void vimg_scan_free_place(struct vimg_scan *s, uint64_t off)
{
	bool last = off == s->last_off;
	uint64_t len = last ? s->last_len : s->v->bitmap_bytes + s->v->block_size;

	if (last)
		s->last_off = 0;
	if (s->v->format == VIMG_VHD) {
		/* Without memory the place is found again by the next scan. */
		(void)!add_gap(s, off, off + len);
		return;
	}
	bits_set(s->used, off / VHDX_MIB, csv_min(units_of(len), s->units - off / VHDX_MIB), false);
	if (last)
		bits_set(s->kept, off / VHDX_MIB, csv_min(units_of(len), s->units - off / VHDX_MIB), false);
	s->hint = csv_min(s->hint, off / VHDX_MIB);
}

int vimg_scan_grown(struct vimg_scan *s, uint64_t file_size)
{
	uint64_t units = units_of(file_size);
	uint8_t *map[2] = { s->used, s->kept };

	if (s->v->format == VIMG_VHD || units <= s->units) {
		s->file_size = csv_max(s->file_size, file_size);
		return 0;
	}
	for (int k = 0; k < 2; k++) {
		map[k] = realloc(map[k], units / 8 + 1);
		if (!map[k])
			return -ENOMEM;
		*(k ? &s->kept : &s->used) = map[k];
		/* bits of the byte that both share are clear above the old end */
		memset(map[k] + s->units / 8 + 1, 0, units / 8 - s->units / 8);
	}
	bits_set(s->used, s->file_size / VHDX_MIB, units - s->file_size / VHDX_MIB, true);
	s->units = units;
	s->file_size = file_size;
	return 0;
}
