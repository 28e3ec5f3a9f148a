/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vimg_case.h - images in memory (memfd) for the tests of csvfs/vhd, and hands that change them: fields, checksums, logs.
 */
#ifndef CSVFS_TESTS_UNIT_VIMG_CASE_H
#define CSVFS_TESTS_UNIT_VIMG_CASE_H

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "tests/unit/vimg_disk.h"
#include "utils/base/crc32c.h"
#include "utils/base/prng.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static inline int case_file(void)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	csv_assertf(fd >= 0, "no memfd");	/* not Check's: there is a fuzzer without Check */
	return fd;
}

static inline struct vimg_spec case_spec(enum vimg_format f, enum vimg_type t, uint64_t size, uint32_t block)
{
	struct vimg_spec s = { .format = f, .type = t, .size = size, .block_size = block, .now_s = 1700000000 };

	for (unsigned k = 0; k < 48; k++)
		s.guid[k / 16][k % 16] = (uint8_t)(k + 1);
	return s;
}

static inline int case_make(enum vimg_format f, enum vimg_type t, uint64_t size, uint32_t block)
{
	struct vimg_spec s = case_spec(f, t, size, block);
	struct csv_err err = CSV_ERR_INIT;
	int fd = case_file();

	csv_assertf(!vdisk_make(fd, &s, &err), "%s", err.text);
	return fd;
}

static inline void poke(int fd, uint64_t off, const void *p, size_t n)
{
	csv_assertf(!vdisk_pwrite(fd, p, n, off), "write");
}

static inline void peek(int fd, uint64_t off, void *p, size_t n)
{
	csv_assertf(!vdisk_pread(fd, p, n, off), "read");
}

static inline void poke32(int fd, uint64_t off, uint32_t x)
{
	struct le32 v = le32_of(x);

	poke(fd, off, &v, 4);
}

static inline void poke64(int fd, uint64_t off, uint64_t x)
{
	struct le64 v = le64_of(x);

	poke(fd, off, &v, 8);
}

static inline uint64_t peek64(int fd, uint64_t off)
{
	struct le64 v;

	peek(fd, off, &v, 8);
	return le64_get(v);
}

/* Of all bytes: has it been changed? */
static inline uint32_t case_sum(int fd)
{
	uint64_t size = vdisk_fd_size(fd);
	uint32_t crc = csv_crc32c(0, &size, sizeof(size));
	static uint8_t buf[1 << 20];

	for (uint64_t at = 0; at < size; at += sizeof(buf)) {
		size_t n = csv_min((uint64_t)sizeof(buf), size - at);

		peek(fd, at, buf, n);
		crc = csv_crc32c(crc, buf, n);
	}
	return crc;
}

/* The checksum of VHDX structures of `n` bytes at `off` is at its byte 4. */
static inline void reseal_at(int fd, uint64_t off, size_t n)
{
	uint8_t *p = malloc(n);

	peek(fd, off, p, n);
	poke32(fd, off + 4, vhdx_checksum(p, n, 4));
	free(p);
}

/* ---- VHDX: as vimg_make() lays it out -------------------------------------------------------------------------------------------- */

#define H(n) VHDX_HEADER_OFF(n)
#define LOG_AT MIB
#define META_AT (2 * MIB)
#define BAT_AT (3 * MIB)
#define H_FIELD(f) offsetof(struct vhdx_header_disk, f)

/* Both headers. */
static inline void header64(int fd, size_t field, uint64_t x)
{
	for (int n = 0; n < 2; n++) {
		poke64(fd, H(n) + field, x);
		reseal_at(fd, H(n), VHDX_HEADER_BYTES);
	}
}

static inline void header32(int fd, size_t field, uint32_t x)
{
	for (int n = 0; n < 2; n++) {
		poke32(fd, H(n) + field, x);
		reseal_at(fd, H(n), VHDX_HEADER_BYTES);
	}
}

static inline void header_bytes(int fd, size_t field, const void *p, size_t n)
{
	for (int k = 0; k < 2; k++) {
		poke(fd, H(k) + field, p, n);
		reseal_at(fd, H(k), VHDX_HEADER_BYTES);
	}
}

/* Both region tables. */
static inline void region_bytes(int fd, size_t at, const void *p, size_t n)
{
	for (int k = 0; k < 2; k++) {
		poke(fd, VHDX_REGION_OFF(k) + at, p, n);
		reseal_at(fd, VHDX_REGION_OFF(k), VHDX_REGION_BYTES);
	}
}

static inline void region32(int fd, size_t at, uint32_t x)
{
	struct le32 v = le32_of(x);

	region_bytes(fd, at, &v, 4);
}

static inline void region64(int fd, size_t at, uint64_t x)
{
	struct le64 v = le64_of(x);

	region_bytes(fd, at, &v, 8);
}

#define REGION(n, f) (16 + 32 * (n) + offsetof(struct vhdx_region_entry, f))	/* 0: BAT, 1: metadata */
#define META(n, f) (META_AT + 32 + 32 * (n) + offsetof(struct vhdx_meta_entry, f))
#define ITEM(off) (META_AT + VHDX_META_TABLE_BYTES + (off))

/* ---- logs ---------------------------------------------------------------------------------------------------------------------------- */

static const uint8_t CASE_LOG_GUID[16] = { 0x10, 9, 8, 7, 6, 5, 4, 3, 2, 1 };

struct log_write { uint64_t off, zero; const uint8_t *data; };		/* zero: length; else data of 4096 */

static inline void log_sector(int fd, uint32_t log_bytes, uint64_t at, const void *p)
{
	poke(fd, LOG_AT + at % log_bytes, p, VHDX_LOG_SECTOR);
}

/* The checksum of an entry in the log. */
static inline void log_seal(int fd, uint32_t log_bytes, uint64_t at)
{
	uint8_t s[VHDX_LOG_SECTOR];
	uint32_t crc, len;
	struct le32 l;

	peek(fd, LOG_AT + at % log_bytes, s, sizeof(s));
	memcpy(&l, s + 8, 4);
	len = le32_get(l);
	crc = vhdx_checksum(s, sizeof(s), 4);
	for (uint64_t k = 1; k < len / VHDX_LOG_SECTOR && k < log_bytes / VHDX_LOG_SECTOR; k++) {
		peek(fd, LOG_AT + (at + k * VHDX_LOG_SECTOR) % log_bytes, s, sizeof(s));
		crc = csv_crc32c(crc, s, sizeof(s));
	}
	poke32(fd, LOG_AT + at % log_bytes + 4, crc);
}

/* An entry at `at` of the log; returns where the next one goes. */
static inline uint64_t log_entry(int fd, uint32_t log_bytes, uint64_t at, uint64_t tail, uint64_t seq, const struct log_write *w, uint32_t n,
				 uint64_t flushed, uint64_t last)
{
	uint32_t heads = (uint32_t)csv_div_round_up(n + 2, 128), data = 0;
	uint8_t *area = calloc(heads, VHDX_LOG_SECTOR);
	struct vhdx_log_entry *e = (void *)area;
	struct vhdx_log_desc *d = (void *)(area + sizeof(*e));

	for (uint32_t k = 0; k < n; k++) {
		struct vhdx_log_data s = { .signature = "data" };

		memcpy(d[k].signature, w[k].zero ? "zero" : "desc", 4);
		d[k].file_offset = le64_of(w[k].off);
		d[k].sequence_number = le64_of(seq);
		if (w[k].zero) {
			d[k].zero_length = le64_of(w[k].zero);
			continue;
		}
		memcpy(d[k].leading, w[k].data, 8);
		memcpy(s.bytes, w[k].data + 8, 4084);
		memcpy(d[k].trailing, w[k].data + 4092, 4);
		memcpy(s.signature, "data", 4);
		s.sequence_high = le32_of((uint32_t)(seq >> 32));
		s.sequence_low = le32_of((uint32_t)seq);
		log_sector(fd, log_bytes, at + (uint64_t)(heads + data++) * VHDX_LOG_SECTOR, &s);
	}
	memcpy(e->signature, "loge", 4);
	e->entry_length = le32_of((heads + data) * VHDX_LOG_SECTOR);
	e->tail = le32_of((uint32_t)(tail % log_bytes));
	e->sequence_number = le64_of(seq);
	e->descriptor_count = le32_of(n);
	memcpy(e->log_guid, CASE_LOG_GUID, 16);
	e->flushed_file_offset = le64_of(flushed);
	e->last_file_offset = le64_of(last);
	for (uint32_t k = 0; k < heads; k++)
		log_sector(fd, log_bytes, at + (uint64_t)k * VHDX_LOG_SECTOR, area + k * VHDX_LOG_SECTOR);
	free(area);
	log_seal(fd, log_bytes, at);
	return at + (uint64_t)(heads + data) * VHDX_LOG_SECTOR;
}

static inline void log_on(int fd)
{
	header_bytes(fd, H_FIELD(log_guid), CASE_LOG_GUID, 16);
}

#endif
