/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vhd_format.h - the disk form of VHD 1.0 ("Virtual Hard Disk Image Format Specification", 2006) and what of it is believed.
 *
 *	fixed		the disk's content from byte 0, then one footer of 512 bytes
 *	dynamic, diff	a copy of the footer, the dynamic header (1024 bytes), block table, blocks; the footer at the end
 *
 * Pure: memory in, memory out.  All integers are big-endian in one-member structs; every field is bounded before it is used; a
 * failure names the field, its value and what is allowed.
 *
 * Codes: -EMEDIUMTYPE this is not a VHD at all; -CSV_E_CORRUPT a damaged one; -CSV_E_UNSUPPORTED well-formed, but not for us.
 */
#ifndef CSVFS_CSVFS_VHD_VHD_FORMAT_H
#define CSVFS_CSVFS_VHD_VHD_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "utils/base/base.h"
#include "utils/base/err.h"

struct be16 { uint8_t b[2]; };
struct be32 { uint8_t b[4]; };
struct be64 { uint8_t b[8]; };

static inline uint16_t be16_get(struct be16 v) { return (uint16_t)(v.b[0] << 8 | v.b[1]); }
static inline uint32_t be32_get(struct be32 v)
{
	return (uint32_t)v.b[0] << 24 | (uint32_t)v.b[1] << 16 | (uint32_t)v.b[2] << 8 | v.b[3];
}
static inline uint64_t be64_get(struct be64 v)
{
	return (uint64_t)be32_get((struct be32){ { v.b[0], v.b[1], v.b[2], v.b[3] } }) << 32 |
	       be32_get((struct be32){ { v.b[4], v.b[5], v.b[6], v.b[7] } });
}
static inline struct be16 be16_of(uint16_t x) { return (struct be16){ { (uint8_t)(x >> 8), (uint8_t)x } }; }
static inline struct be32 be32_of(uint32_t x)
{
	return (struct be32){ { (uint8_t)(x >> 24), (uint8_t)(x >> 16), (uint8_t)(x >> 8), (uint8_t)x } };
}
static inline struct be64 be64_of(uint64_t x)
{
	return (struct be64){ { (uint8_t)(x >> 56), (uint8_t)(x >> 48), (uint8_t)(x >> 40), (uint8_t)(x >> 32), (uint8_t)(x >> 24),
				(uint8_t)(x >> 16), (uint8_t)(x >> 8), (uint8_t)x } };
}

#define VHD_SECTOR 512u
#define VHD_FOOTER_BYTES 512u
#define VHD_DYN_BYTES 1024u
#define VHD_COOKIE "conectix"
#define VHD_DYN_COOKIE "cxsparse"
#define VHD_VERSION 0x00010000u
#define VHD_FEATURE_TEMPORARY 1u
#define VHD_FEATURE_RESERVED 2u			/* must be set */
#define VHD_SIZE_MAX (2040ull << 30)
#define VHD_CHS_MAX (65535ull * 16 * 255)	/* sectors; this geometry says nothing about the size */
#define VHD_EPOCH_S 946684800ll			/* 2000-01-01 00:00 UTC */

/* On the disk. */
struct vhd_footer {
	uint8_t cookie[8];
	struct be32 features, version;
	struct be64 data_offset;
	struct be32 timestamp;
	uint8_t creator_app[4];
	struct be32 creator_version;
	uint8_t creator_os[4];
	struct be64 original_size, current_size;
	struct be16 cylinders;
	uint8_t heads, sectors;
	struct be32 disk_type, checksum;
	uint8_t uuid[16];
	uint8_t saved_state, hidden;
	uint8_t reserved[426];
};
csv_assert_size(struct vhd_footer, VHD_FOOTER_BYTES);
csv_assert_offset(struct vhd_footer, current_size, 48);
csv_assert_offset(struct vhd_footer, saved_state, 84);

struct vhd_dyn_header {
	uint8_t cookie[8];
	struct be64 data_offset, table_offset;
	struct be32 version, max_table_entries, block_size, checksum;
	uint8_t parent_uuid[16];
	struct be32 parent_timestamp, reserved1;
	uint8_t parent_name[512];			/* UTF-16 big endian */
	uint8_t locator[8][24];
	uint8_t reserved2[256];
};
csv_assert_size(struct vhd_dyn_header, VHD_DYN_BYTES);

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFF = 4 };
const char *vhd_type_name(enum vhd_type t);

struct vhd_geometry { uint32_t cylinders, heads, sectors; };
/* The geometry that the specification gives to a disk of so many sectors; it may stand for fewer of them. */
struct vhd_geometry vhd_geometry_of(uint64_t sectors);
static inline uint64_t vhd_geometry_sectors(struct vhd_geometry g) { return (uint64_t)g.cylinders * g.heads * g.sectors; }

/* In memory: a footer that was believed. */
struct vhd_info {
	enum vhd_type type;
	uint32_t features;
	uint64_t data_offset;
	int64_t created_s;		/* since 1970 */
	char creator_app[5];		/* printable: others are '?' */
	uint8_t creator_raw[4];
	uint32_t creator_version;
	uint8_t creator_os[4];
	uint64_t original_size, current_size;
	struct vhd_geometry geo;
	uint8_t uuid[16];
	bool saved_state;		/* a virtual machine sleeps on it: writing would tear its disk from its memory */

	uint64_t virtual_size;		/* bytes of the disk */
	bool size_from_chs;		/* the creator's programs take the size from the geometry */
	/* dynamic and differencing */
	uint64_t table_offset;
	uint32_t table_entries, block_size;
};

/* One's complement of the sum of all bytes but the four of the checksum. */
uint32_t vhd_checksum(const void *p, size_t size, size_t checksum_off);

/* Of 512 bytes; whether it fits the file is vhd_identify()'s. */
int vhd_footer_decode(const void *p, struct vhd_info *ret, struct csv_err *err);
/* Writes every field of `i`, and the checksum. */
void vhd_footer_encode(const struct vhd_info *i, void *ret512);
/* Of 1024 bytes; `i` is its footer, and gets the fields at its end.  `file_size` bounds the table. */
int vhd_dyn_header_decode(const void *p, uint64_t file_size, struct vhd_info *i, struct csv_err *err);
/* Of a dynamic disk: no parent. */
void vhd_dyn_header_encode(const struct vhd_info *i, void *ret1024);

/* What is read of a file to know what it is. */
struct vhd_probe {
	uint64_t file_size;
	uint8_t head[VHD_FOOTER_BYTES];		/* the first 512 bytes, zero-filled */
	uint8_t tail[VHD_FOOTER_BYTES];		/* the last 512, zero-filled at the front */
	bool has_dyn;
	uint8_t dyn[VHD_DYN_BYTES];		/* at vhd_probe_dyn_offset() */
};
/* Where the dynamic header is to be read: a whole one lies there.  0: there is none to read. */
uint64_t vhd_probe_dyn_offset(const struct vhd_probe *p);
/* The footer at the end rules: what a guest writes into the first sector of a fixed disk decides nothing. */
int vhd_identify(const struct vhd_probe *p, struct vhd_info *ret, struct csv_err *err);
/* May it be used as a disk by us?  Fixed ones may.  `writing`: also for writing. */
int vhd_may_open(const struct vhd_info *i, bool writing, struct csv_err *err);
/* For the checker only (clocks may be wrong): was it made after `now_s`? */
int vhd_check_time(const struct vhd_info *i, int64_t now_s, struct csv_err *err);

/* A new fixed disk: size is a multiple of 512, 512 .. VHD_SIZE_MAX; read by everybody as exactly that size.  */
int vhd_fixed_new(uint64_t size, const uint8_t uuid[static 16], int64_t now_s, struct vhd_info *ret, struct csv_err *err);

#endif
