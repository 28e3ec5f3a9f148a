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
#define VHDX_LOG_REPLAY_MAX (64u << 20)				/* a longer one is not replayed by us */
#define VHDX_FILE_SIZE_MAX (1ull << 52)				/* 1 << 32 MiB: no image that we take is longer */

/* In memory: a header that was believed. */
struct vhdx_header {
	uint64_t sequence;
	uint8_t file_guid[16], data_guid[16], log_guid[16];
	uint32_t log_bytes;
	uint64_t log_off;
};

#endif
