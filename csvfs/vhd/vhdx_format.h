/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vhdx_format.h - the disk form of VHDX (MS-VHDX) and what of it is believed.
 *
 *	0	"vhdxfile"
 *	64K	header 1, 128K header 2: 4 KiB each; the valid one with the higher sequence number rules
 *	192K	region table 1, 256K region table 2: 64 KiB each, the same
 *	>= 1M	log, metadata region, BAT, blocks: aligned to 1 MiB
 *
 * Pure.  Integers are little-endian.  GUIDs are compared and kept as the 16 bytes of the file.
 */
#ifndef CSVFS_CSVFS_VHD_VHDX_FORMAT_H
#define CSVFS_CSVFS_VHD_VHDX_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "utils/base/base.h"
#include "utils/base/err.h"

#define VHDX_MIB (1ull << 20)
#define VHDX_FILE_ID "vhdxfile"
#define VHDX_HEADER_OFF(n) ((uint64_t)((n) + 1) << 16)		/* n: 0, 1 */
#define VHDX_HEADER_BYTES 4096u
#define VHDX_REGION_OFF(n) ((uint64_t)((n) + 3) << 16)
#define VHDX_REGION_BYTES 65536u
#define VHDX_REGION_ENTRIES_MAX 2047u
#define VHDX_HEAD_AREA VHDX_MIB
#define VHDX_META_TABLE_BYTES 65536u
#define VHDX_META_ENTRIES_MAX 2047u
#define VHDX_META_USER_MAX 1024u
#define VHDX_META_ITEM_MAX VHDX_MIB
#define VHDX_SIZE_MAX (64ull << 40)
#define VHDX_BLOCK_MIN (1u << 20)
#define VHDX_BLOCK_MAX (256u << 20)
#define VHDX_CHUNK_SECTORS (1u << 23)				/* sectors that one bitmap block stands for */
#define VHDX_LOG_SECTOR 4096u
#define VHDX_LOG_REPLAY_MAX (32u << 20)				/* a longer one is not replayed by us */
#define VHDX_LOG_EXTEND_MAX (4ull << 30)			/* by which a replay may make the file longer */
#define VHDX_LOG_PATCHES_MAX 65536u
#define VHDX_LOG_LOWEST VHDX_REGION_OFF(0)			/* what lies before it is never logged */
#define VHDX_FILE_SIZE_MAX (1ull << 47)				/* 128 TiB: 64 TiB of blocks and as much again that is not used */

/* ---- on the disk ---------------------------------------------------------------------------------------------------------------- */

struct vhdx_header_disk {
	uint8_t signature[4];				/* "head" */
	struct le32 checksum;				/* crc32c of the 4 KiB, with this field 0 */
	struct le64 sequence_number;
	uint8_t file_write_guid[16], data_write_guid[16], log_guid[16];
	struct le16 log_version, version;
	struct le32 log_length;
	struct le64 log_offset;
	uint8_t reserved[4016];
};
csv_assert_size(struct vhdx_header_disk, VHDX_HEADER_BYTES);
csv_assert_offset(struct vhdx_header_disk, log_offset, 72);

struct vhdx_region_head { uint8_t signature[4]; struct le32 checksum, entry_count, reserved; };	/* "regi"; checksum of the 64 KiB */
struct vhdx_region_entry { uint8_t guid[16]; struct le64 file_offset; struct le32 length, flags; };
csv_assert_size(struct vhdx_region_head, 16);
csv_assert_size(struct vhdx_region_entry, 32);
#define VHDX_REGION_REQUIRED 1u

struct vhdx_meta_head { uint8_t signature[8]; struct le16 reserved, entry_count; uint8_t reserved2[20]; };	/* "metadata" */
struct vhdx_meta_entry { uint8_t item_id[16]; struct le32 offset, length, flags, reserved2; };
csv_assert_size(struct vhdx_meta_head, 32);
csv_assert_size(struct vhdx_meta_entry, 32);
#define VHDX_META_IS_USER 1u
#define VHDX_META_IS_VIRTUAL_DISK 2u
#define VHDX_META_IS_REQUIRED 4u
#define VHDX_PARAM_LEAVE_ALLOCATED 1u
#define VHDX_PARAM_HAS_PARENT 2u

struct vhdx_log_entry {
	uint8_t signature[4];				/* "loge" */
	struct le32 checksum;				/* of the whole entry */
	struct le32 entry_length, tail;
	struct le64 sequence_number;
	struct le32 descriptor_count, reserved;
	uint8_t log_guid[16];
	struct le64 flushed_file_offset, last_file_offset;
};
struct vhdx_log_desc {
	uint8_t signature[4];				/* "desc": a sector of data; "zero" */
	uint8_t trailing[4];				/* "desc": last 4 bytes of the sector */
	union { uint8_t leading[8]; struct le64 zero_length; };
	struct le64 file_offset, sequence_number;
};
struct vhdx_log_data {
	uint8_t signature[4];				/* "data" */
	struct le32 sequence_high;
	uint8_t bytes[4084];				/* 8 .. 4091 of the sector */
	struct le32 sequence_low;
};
csv_assert_size(struct vhdx_log_entry, 64);
csv_assert_size(struct vhdx_log_desc, 32);
csv_assert_size(struct vhdx_log_data, VHDX_LOG_SECTOR);

/* ---- in memory ------------------------------------------------------------------------------------------------------------------- */

/* A header that was believed. */
struct vhdx_header {
	uint64_t sequence;
	uint8_t file_guid[16], data_guid[16], log_guid[16];
	uint16_t log_version, version;
	uint32_t log_bytes;
	uint64_t log_off;
};

#define VHDX_OTHER_REGIONS_MAX 12u
struct vhdx_region { uint64_t off; uint32_t len; };
struct vhdx_regions {
	struct vhdx_region bat, meta;
	uint32_t n_other;
	struct vhdx_region other[VHDX_OTHER_REGIONS_MAX];	/* unknown ones that need not be understood */
};

enum vhdx_item { VHDX_FILE_PARAMETERS, VHDX_VIRTUAL_SIZE, VHDX_LOGICAL_SECTOR, VHDX_PHYSICAL_SECTOR, VHDX_PAGE_83, VHDX_PARENT_LOCATOR,
		 VHDX_ITEMS };
/* Where known items lie in the metadata region; len 0: not there. */
struct vhdx_meta { struct { uint32_t off, len; } item[VHDX_ITEMS]; };

struct vhdx_params {
	uint32_t block_size;
	bool leave_allocated, has_parent;
	uint64_t virtual_size;
	uint32_t sector_size, physical_sector_size;
	uint8_t page83[16];
};

extern const uint8_t vhdx_guid_bat[16], vhdx_guid_meta[16], vhdx_guid_item[VHDX_ITEMS][16];
extern const uint8_t vhdx_guid_zero[16];

/* The crc32c of `p` with the four bytes at `checksum_off` taken as 0. */
uint32_t vhdx_checksum(const void *p, size_t size, size_t checksum_off);

/* Of two times 4 KiB, from VHDX_HEADER_OFF(0) and (1): the one that rules, all its fields checked. */
int vhdx_header_choose(const void *h0, const void *h1, uint64_t file_size, struct vhdx_header *ret, unsigned *ret_current,
		       bool *ret_other_bad, struct csv_err *err);
/* Signature and checksum only. */
bool vhdx_header_is_valid(const void *p);
void vhdx_header_encode(const struct vhdx_header *h, void *ret4096);

/* Of two times 64 KiB.  Regions overlap neither one another nor the log. */
int vhdx_region_choose(const void *r0, const void *r1, const struct vhdx_header *h, uint64_t file_size, struct vhdx_regions *ret,
		       bool *ret_other_bad, struct csv_err *err);
/* 64 KiB for these two regions. */
void vhdx_region_encode(const struct vhdx_regions *r, void *ret64k);

/* Of the region's first 64 KiB. */
int vhdx_meta_decode(const void *table, uint32_t region_len, struct vhdx_meta *ret, struct csv_err *err);
/* One item's bytes, m->item[item].len of them; to be called for each of the first five, in ascending order. */
int vhdx_item_decode(enum vhdx_item item, const void *p, struct vhdx_params *ret, struct csv_err *err);
/* They agree with one another, and with what is there. */
int vhdx_params_check(const struct vhdx_params *p, const struct vhdx_meta *m, const struct vhdx_region *bat, struct csv_err *err);
/* 64 KiB of table and 40 bytes of items; returns the number of bytes written to `ret`, at most VHDX_META_TABLE_BYTES + 64. */
size_t vhdx_meta_encode(const struct vhdx_params *p, void *ret);

static inline uint32_t vhdx_chunk_ratio(const struct vhdx_params *p)
{
	return (uint32_t)((uint64_t)VHDX_CHUNK_SECTORS * p->sector_size / p->block_size);
}
/* Entries of the BAT for these parameters. */
uint64_t vhdx_bat_entries(const struct vhdx_params *p);

#endif
