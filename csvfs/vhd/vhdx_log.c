/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vhdx_log.c - a VHDX's log: which of its entries are in force, and what they write (MS-VHDX 2.3).
 *
 * The log is a circle of sectors of 4 KiB.  An entry lies on consecutive ones:
 *
 *	[ head 64 bytes, descriptors ][ descriptors ] ... [ data sector ] ...	one data sector for each descriptor "desc", in order
 *
 * Entries behind one another whose sequence numbers count up by one are a sequence.  It is whole if the place that its last entry
 * calls the tail is one of its entries.  The whole sequence with the highest number is in force; from its tail on it is replayed.
 *
 * Invariants
 *  VL1 An entry is believed only if its checksum is that of all its sectors, so what a crash has left half-written ends the sequence.
 *  VL2 No patch reaches the headers, the log or beyond what the file is made long to.
 *  VL3 The result depends on the log alone, never on what it writes to: replaying again, after half of it, gives the same.
 *  VL4 Entries that were really written overlap only where old ones are being overwritten, so that their lengths add up to twice the log
 *      at most.  Checksums of more than that are not calculated: made-up heads cannot keep us busy.
 */
#include "csvfs/vhd/vimg_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "utils/base/crc32c.h"

#define DESC_BYTES sizeof(struct vhdx_log_desc)
#define HEAD_DESCS ((uint32_t)(sizeof(struct vhdx_log_entry) / DESC_BYTES))		/* the head takes the room of so many */
#define SECTOR_DESCS ((uint32_t)(VHDX_LOG_SECTOR / DESC_BYTES))

struct entry { uint32_t at, len, tail, descs; uint64_t sequence, flushed, last; };
struct memo { enum { NOT_LOOKED, NO_ENTRY, ENTRY } is; struct entry e; };
struct ring {
	const uint8_t *log;
	const struct vhdx_header *h;
	uint64_t file_size;
	struct memo *memo;		/* of each sector: does an entry begin there? */
	uint64_t budget;		/* bytes of checksums left to be calculated (VL4) */
	struct csv_err why;		/* why the first entry of this log that was not believed was not */
};
struct sequence { uint32_t tail, head, from; uint64_t last_sequence; bool any; };

#define REFUSE(r, ...)									\
	({										\
		if (!(r)->why.code)							\
			csv_err_set(&(r)->why, -CSV_E_CORRUPT, __VA_ARGS__);		\
		false;									\
	})

static uint32_t advance(const struct ring *r, uint32_t at, uint64_t by)
{
	return (uint32_t)((at + by) % r->h->log_bytes);
}

/* Sector `n` of the entry at `at`. */
static const uint8_t *sector(const struct ring *r, uint32_t at, uint64_t n)
{
	return r->log + advance(r, at, n * VHDX_LOG_SECTOR);
}

static uint32_t desc_sectors(uint32_t descs)
{
	return (uint32_t)csv_div_round_up((uint64_t)descs + HEAD_DESCS, SECTOR_DESCS);
}

static const struct vhdx_log_desc *desc_of(const struct ring *r, uint32_t at, uint32_t n)
{
	return (const struct vhdx_log_desc *)sector(r, at, (n + HEAD_DESCS) / SECTOR_DESCS) + (n + HEAD_DESCS) % SECTOR_DESCS;
}

static bool is_zero_desc(const struct vhdx_log_desc *d)
{
	return !memcmp(d->signature, "zero", 4);
}

static bool desc_valid(struct ring *r, const struct entry *e, uint32_t n)
{
	const struct vhdx_log_desc *d = desc_of(r, e->at, n);
	uint64_t off = le64_get(d->file_offset), len = VHDX_LOG_SECTOR, end, seq = le64_get(d->sequence_number);

	if (!is_zero_desc(d) && memcmp(d->signature, "desc", 4))
		return REFUSE(r, "entry at %" PRIu32 ": descriptor %" PRIu32 ": signature is neither \"desc\" nor \"zero\"", e->at, n);
	if (seq != e->sequence)
		return REFUSE(r, "entry at %" PRIu32 ": descriptor %" PRIu32 ": sequence_number is %" PRIu64 ", must be %" PRIu64 " as the entry's",
			      e->at, n, seq, e->sequence);
	if (is_zero_desc(d)) {
		len = le64_get(d->zero_length);
		if (!len || len % VHDX_LOG_SECTOR)
			return REFUSE(r, "entry at %" PRIu32 ": descriptor %" PRIu32 ": zero_length is %" PRIu64 ", must be a multiple of 4096 and not 0",
				      e->at, n, len);
	}
	if (off % VHDX_LOG_SECTOR || off < VHDX_LOG_LOWEST)
		return REFUSE(r, "entry at %" PRIu32 ": descriptor %" PRIu32 ": file_offset is %" PRIu64 ", must be a multiple of 4096 behind the headers",
			      e->at, n, off);
	if (csv_add_overflow(off, len, &end) || end > csv_max(r->file_size, csv_round_up(e->last, VHDX_MIB)))
		return REFUSE(r, "entry at %" PRIu32 ": descriptor %" PRIu32 ": file_offset is %" PRIu64 " (%" PRIu64 " bytes), must end inside the file"
			      " (last_file_offset %" PRIu64 ")", e->at, n, off, len, e->last);
	if (off < r->h->log_off + r->h->log_bytes && end > r->h->log_off)
		return REFUSE(r, "entry at %" PRIu32 ": descriptor %" PRIu32 ": file_offset is %" PRIu64 " (%" PRIu64 " bytes), must not overlap the log"
			      " at %" PRIu64, e->at, n, off, len, r->h->log_off);
	return true;
}

static bool data_valid(struct ring *r, const struct entry *e, uint64_t nth)
{
	const struct vhdx_log_data *d = (const void *)sector(r, e->at, nth);
	uint64_t seq = (uint64_t)le32_get(d->sequence_high) << 32 | le32_get(d->sequence_low);

	if (memcmp(d->signature, "data", 4))
		return REFUSE(r, "entry at %" PRIu32 ": sector %" PRIu64 ": signature is not \"data\"", e->at, nth);
	if (seq != e->sequence)
		return REFUSE(r, "entry at %" PRIu32 ": sector %" PRIu64 ": sequence_high and sequence_low are %" PRIu64 ", must be %" PRIu64
			      " as the entry's", e->at, nth, seq, e->sequence);
	return true;
}

static uint32_t entry_checksum(const struct ring *r, const struct entry *e)
{
	uint32_t crc = vhdx_checksum(sector(r, e->at, 0), VHDX_LOG_SECTOR, offsetof(struct vhdx_log_entry, checksum));

	for (uint64_t n = 1; n < e->len / VHDX_LOG_SECTOR; n++)
		crc = csv_crc32c(crc, sector(r, e->at, n), VHDX_LOG_SECTOR);
	return crc;
}

/* What the head says, bounded: nothing behind the first sector has been looked at. */
static bool head_valid(struct ring *r, uint32_t at, struct entry *ret)
{
	const struct vhdx_log_entry *d = (const void *)sector(r, at, 0);
	uint32_t log = r->h->log_bytes;
	struct entry e = { .at = at, .len = le32_get(d->entry_length), .tail = le32_get(d->tail), .descs = le32_get(d->descriptor_count),
			   .sequence = le64_get(d->sequence_number), .flushed = le64_get(d->flushed_file_offset),
			   .last = le64_get(d->last_file_offset) };

	if (memcmp(d->signature, "loge", 4) || memcmp(d->log_guid, r->h->log_guid, 16))
		return false;	/* of an earlier log, or none */
	if (!e.len || e.len % VHDX_LOG_SECTOR || e.len > log)
		return REFUSE(r, "entry at %" PRIu32 ": entry_length is %" PRIu32 ", must be a multiple of 4096 up to the log's %" PRIu32, at, e.len, log);
	if (e.tail % VHDX_LOG_SECTOR || e.tail >= log)
		return REFUSE(r, "entry at %" PRIu32 ": tail is %" PRIu32 ", must be a multiple of 4096 below the log's %" PRIu32, at, e.tail, log);
	if (!e.sequence)
		return REFUSE(r, "entry at %" PRIu32 ": sequence_number is 0, must not be", at);
	if (desc_sectors(e.descs) > e.len / VHDX_LOG_SECTOR)
		return REFUSE(r, "entry at %" PRIu32 ": descriptor_count is %" PRIu32 ", must fit in its entry_length of %" PRIu32, at, e.descs, e.len);
	if (e.last > VHDX_FILE_SIZE_MAX || e.flushed > VHDX_FILE_SIZE_MAX)
		return REFUSE(r, "entry at %" PRIu32 ": %s is %" PRIu64 ", must be at most %" PRIu64, at,
			      e.last > VHDX_FILE_SIZE_MAX ? "last_file_offset" : "flushed_file_offset",
			      e.last > VHDX_FILE_SIZE_MAX ? e.last : e.flushed, (uint64_t)VHDX_FILE_SIZE_MAX);
	*ret = e;
	return true;
}

static bool entry_valid(struct ring *r, uint32_t at, struct entry *ret)
{
	const struct vhdx_log_entry *d = (const void *)sector(r, at, 0);
	uint64_t data;
	struct entry e;
	uint32_t want;

	if (!head_valid(r, at, &e))
		return false;
	if (e.len > r->budget)
		return REFUSE(r, "entry at %" PRIu32 ": entry_length is %" PRIu32 ", all of them together must not be more than 4 times the log", at,
			      e.len);
	r->budget -= e.len;
	want = entry_checksum(r, &e);
	if (le32_get(d->checksum) != want)
		return REFUSE(r, "entry at %" PRIu32 ": checksum is 0x%08" PRIx32 ", must be 0x%08" PRIx32 " for these contents", at,
			      le32_get(d->checksum), want);
	data = desc_sectors(e.descs);
	for (uint32_t n = 0; n < e.descs; n++) {
		if (!desc_valid(r, &e, n))
			return false;
		if (is_zero_desc(desc_of(r, at, n)))
			continue;
		if (data == e.len / VHDX_LOG_SECTOR)
			return REFUSE(r, "entry at %" PRIu32 ": entry_length is %" PRIu32 ", must have a sector for each of the descriptors that write"
				      " data", at, e.len);
		if (!data_valid(r, &e, data++))
			return false;
	}
	*ret = e;
	return true;
}

static bool entry_at(struct ring *r, uint32_t at, struct entry *ret)
{
	struct memo *m = &r->memo[at / VHDX_LOG_SECTOR];

	if (m->is == NOT_LOOKED)
		m->is = entry_valid(r, at, &m->e) ? ENTRY : NO_ENTRY;
	if (m->is == ENTRY)
		*ret = m->e;
	return m->is == ENTRY;
}

/* ---- which sequence ---------------------------------------------------------------------------------------------------------------- */

/* Is the tail one of the entries from `from` on? */
static bool tail_inside(struct ring *r, const struct sequence *s)
{
	uint32_t at = s->from;
	uint64_t seen = 0;
	struct entry e;

	while (seen < r->h->log_bytes) {
		if (at == s->tail)
			return true;
		if (!entry_at(r, at, &e) || advance(r, at, e.len) == s->head)
			break;
		seen += e.len;
		at = advance(r, at, e.len);
	}
	return REFUSE(r, "the last entry of the sequence at %" PRIu32 ": tail is %" PRIu32 ", must be one of the sequence's entries", s->from, s->tail);
}

/* The longest sequence that starts at `from`; false: none. *ret_bytes: how much of the log it takes. */
static bool sequence_at(struct ring *r, uint32_t from, struct sequence *ret, uint64_t *ret_bytes)
{
	struct sequence s = { .from = from, .head = from };
	uint64_t bytes = 0;
	struct entry e;

	while (bytes < r->h->log_bytes && entry_at(r, s.head, &e)) {
		if ((s.any && e.sequence != s.last_sequence + 1) || bytes + e.len > r->h->log_bytes)
			break;
		s.any = true;
		s.last_sequence = e.sequence;
		s.tail = e.tail;
		s.head = advance(r, s.head, e.len);
		bytes += e.len;
	}
	*ret_bytes = bytes;
	if (!s.any || !tail_inside(r, &s))
		return false;
	*ret = s;
	return true;
}

static struct sequence sequence_find(struct ring *r)
{
	struct sequence best = { .any = false }, s;
	uint64_t at = 0, bytes;

	while (at < r->h->log_bytes) {
		bool ok = sequence_at(r, (uint32_t)at, &s, &bytes);

		if (ok && (!best.any || s.last_sequence > best.last_sequence))
			best = s;
		at += ok ? bytes : VHDX_LOG_SECTOR;
	}
	return best;
}

/* ---- what it writes ------------------------------------------------------------------------------------------------------------------ */

typedef int entry_fn(struct ring *r, const struct entry *e, struct vimg_replay *ret, struct csv_err *err);

/* Entries from the tail to the head. */
static int walk(struct ring *r, const struct sequence *s, entry_fn *fn, struct vimg_replay *ret, struct csv_err *err)
{
	uint32_t at = s->tail;
	struct entry e;
	int rc;

	do {
		csv_assertf(entry_at(r, at, &e), "log entry at %u is none", at);
		rc = fn(r, &e, ret, err);
		if (rc)
			return rc;
		at = advance(r, at, e.len);
	} while (at != s->head);
	return 0;
}

/* First pass: how many, and whether the file is what it was when they were written. */
static int count_entry(struct ring *r, const struct entry *e, struct vimg_replay *ret, struct csv_err *err)
{
	uint64_t size = csv_round_up(e->last, VHDX_MIB);

	if (e->flushed > r->file_size)
		return csv_err_set(err, -CSV_E_CORRUPT, "log: entry at %" PRIu32 ": flushed_file_offset is %" PRIu64 ", must be at most the file's %"
				   PRIu64 " bytes: the file was cut off", e->at, e->flushed, r->file_size);
	if (size > r->file_size && size - r->file_size > VHDX_LOG_EXTEND_MAX)
		return csv_err_set(err, -CSV_E_CORRUPT, "log: entry at %" PRIu32 ": last_file_offset is %" PRIu64 ", must be at most 4 GiB behind the"
				   " file's end at %" PRIu64, e->at, e->last, r->file_size);
	if (ret->n + e->descs > VHDX_LOG_PATCHES_MAX)
		return csv_err_set(err, -CSV_E_UNSUPPORTED, "log: entry at %" PRIu32 ": descriptor_count is %" PRIu32 ", more than %u in the whole log"
				   " are not supported; replay it: qemu-img check -r all", e->at, e->descs, VHDX_LOG_PATCHES_MAX);
	ret->n += e->descs;
	if (size > ret->file_size)
		ret->file_size = size;
	return 0;
}

/* Second pass. */
static int add_entry(struct ring *r, const struct entry *e, struct vimg_replay *ret, struct csv_err *err)
{
	uint64_t nth = desc_sectors(e->descs);

	(void)err;
	for (uint32_t n = 0; n < e->descs; n++) {
		const struct vhdx_log_desc *d = desc_of(r, e->at, n);
		struct vimg_patch *p = &ret->patch[ret->n];
		uint8_t *to = ret->mem + ret->n++ * VHDX_LOG_SECTOR;
		const struct vhdx_log_data *s;

		*p = (struct vimg_patch){ .off = le64_get(d->file_offset), .len = VHDX_LOG_SECTOR };
		if (is_zero_desc(d)) {
			p->len = le64_get(d->zero_length);
			continue;
		}
		s = (const void *)sector(r, e->at, nth++);
		memcpy(to, d->leading, 8);
		memcpy(to + 8, s->bytes, sizeof(s->bytes));
		memcpy(to + 8 + sizeof(s->bytes), d->trailing, 4);
		p->data = to;
	}
	return 0;
}

static int replay(struct ring *r, struct vimg_replay *ret, struct csv_err *err)
{
	struct vimg_replay out = { .file_size = r->file_size };
	struct sequence s = sequence_find(r);
	int rc;

	if (!s.any)
		return csv_err_set(err, -CSV_E_CORRUPT, "log: log_guid is set, but there is no whole sequence of entries%s%s", r->why.code ? ": " : "",
				   r->why.code ? r->why.text : "");
	rc = walk(r, &s, count_entry, &out, err);
	if (rc)
		return rc;
	out.patch = calloc(out.n ? out.n : 1, sizeof(*out.patch));
	out.mem = malloc(out.n ? out.n * VHDX_LOG_SECTOR : 1);
	out.n = 0;
	rc = out.patch && out.mem ? walk(r, &s, add_entry, &out, err) : csv_err_set(err, -ENOMEM, "log: out of memory");
	if (rc) {
		vhdx_log_replay_done(&out);
		return rc;
	}
	*ret = out;
	return 0;
}

int vhdx_log_replay(const struct vhdx_header *h, uint64_t file_size, const void *log, struct vimg_replay *ret, struct csv_err *err)
{
	struct ring r = { .log = log, .h = h, .file_size = file_size, .budget = 4ull * h->log_bytes, .why = CSV_ERR_INIT };
	int rc;

	r.memo = calloc(h->log_bytes / VHDX_LOG_SECTOR, sizeof(*r.memo));
	rc = r.memo ? replay(&r, ret, err) : csv_err_set(err, -ENOMEM, "log: out of memory");
	free(r.memo);
	return rc;
}

void vhdx_log_replay_done(struct vimg_replay *r)
{
	free(r->patch);
	free(r->mem);
	*r = (struct vimg_replay){ .n = 0 };
}

void vimg_replay_overlay(const struct vimg_replay *r, uint64_t off, void *buf, size_t len)
{
	for (size_t k = 0; r && k < r->n; k++) {
		const struct vimg_patch *p = &r->patch[k];
		uint64_t from = csv_max(off, p->off), end = csv_min(off + len, p->off + p->len);

		if (from >= end)
			continue;
		if (p->data)
			memcpy((uint8_t *)buf + (from - off), p->data + (from - p->off), end - from);
		else
			memset((uint8_t *)buf + (from - off), 0, end - from);
	}
}
