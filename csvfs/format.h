/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * format.h - what the numbers of csvfs_format.h mean: where things are on a volume, and the only way to believe a superblock,
 * a slot state or a heartbeat.  Pure (but csv_super_read()); used by the core, mkfs, the checker and the dump.
 *
 * Invariants
 *  F1  A struct csv_geom exists only after every field of a superblock was checked: all helpers on it are total for slots
 *      < g->slots and groups < g->groups (asserted), and no sum of its fields overflows.
 *  F2  Decoders check checksum, identity (magic, own block, owner) and range before they hand anything out, and name field, value
 *      and what is allowed.  Encoders mirror them: what is encoded decodes to the same.
 *  F3  Order on the device: superblock, slot states, heartbeats, orphan inodes, journals, copy of the superblock, groups, (rest too
 *      short for a group), copy of the superblock in the last block.  Nothing overlaps.
 */
#ifndef CSVFS_CSVFS_FORMAT_H_
#define CSVFS_CSVFS_FORMAT_H_

#include <stdio.h>

#include "csvfs/csvfs_format.h"
#include "utils/base/err.h"

struct blk;

/* ---- the structures described (generated from the field lists) ------------------------------------------------------------------ */

struct csv_field {
	const char *name;
	const char *type;		/* "le64", "uint8_t", "struct csv_mhdr" */
	uint32_t offset, size;		/* size of one element */
	uint32_t count;			/* > 1: array */
	const char *text;
};
struct csv_struct {
	const char *name, *text;
	uint32_t size, magic;		/* magic 0: not a block of its own */
	const struct csv_field *field;
	uint32_t fields;
};
extern const struct csv_struct csv_structs[];
extern const uint32_t csv_structs_n;
const struct csv_struct *csv_struct_by_magic(uint32_t magic);	/* NULL: unknown */
const struct csv_struct *csv_struct_by_name(const char *name);
uint64_t csv_field_get(const struct csv_field *f, const void *st, uint32_t index);	/* integers only */
/* The table of doc/format.md, as markdown. */
void csv_structs_print(FILE *out);

const char *csv_blk_state_name(uint32_t state);
/* "inode 4711", for messages.  Returns ret. */
#define CSV_OWNER_TEXT 40
char *csv_owner_to_text(struct csv_owner o, char ret[static CSV_OWNER_TEXT]);

/* ---- geometry ------------------------------------------------------------------------------------------------------------------- */

#define CSV_JOURNAL_BLOCKS_MIN 1024u		/* 4 MiB */
#define CSV_JOURNAL_BLOCKS_MAX 262144u		/* 1 GiB */
#define CSV_GROUP_BLOCKS_MIN 256u		/* a shorter rest at the end is not used */
#define CSV_SYSTEM_ALIGN_BLOCKS 256u		/* journals and groups start at whole MiB */
#define CSV_PROTOCOL_LEVEL 1u
#define CSV_JOURNAL_LEVEL 1u

struct csv_geom {
	uint8_t uuid[16];
	char label[33];			/* printable, terminated */
	uint64_t compat, ro_compat, incompat;
	bool ro_only;			/* unknown ro_compat bits: must not be mounted for writing */
	uint64_t total_blk, data_start_blk;
	uint32_t groups, slots;
	uint64_t slot_start_blk, hbeat_start_blk, orphan_start_blk, journal_start_blk;
	uint32_t journal_blk, min_io;
	uint64_t root_ino, system_ino, lockspace;
	uint8_t hash_key[16];
	uint64_t mkfs_time_ns;
	uint32_t protocol_level, journal_level;
	uint64_t seq;			/* of the superblock's last change */
	uint64_t from_blk;		/* which copy it was read from */
};

uint64_t csv_lockspace_of(const uint8_t uuid[static 16]);	/* never 0 */
/* Groups that fit between data_start_blk and the last block. */
uint32_t csv_groups_fit(uint64_t total_blk, uint64_t data_start_blk);

uint64_t csv_slot_blk(const struct csv_geom *g, uint32_t slot);
uint64_t csv_hbeat_blk(const struct csv_geom *g, uint32_t slot);
uint64_t csv_orphan_blk(const struct csv_geom *g, uint32_t slot);
uint64_t csv_journal_blk(const struct csv_geom *g, uint32_t slot);
uint64_t csv_group_start(const struct csv_geom *g, uint32_t group);
uint32_t csv_group_blocks(const struct csv_geom *g, uint32_t group);
uint32_t csv_group_bitmaps(const struct csv_geom *g, uint32_t group);	/* always CSV_GROUP_BITMAPS: for a short group too */
uint64_t csv_bitmap_blk(const struct csv_geom *g, uint32_t group, uint32_t index);
#define CSV_NO_GROUP UINT32_MAX
uint32_t csv_group_of(const struct csv_geom *g, uint64_t blk);		/* CSV_NO_GROUP */
/* May a file, a node or an inode lie there?  In a group, behind its header and bitmaps. */
bool csv_blk_is_allocatable(const struct csv_geom *g, uint64_t blk);
/* The same for a whole run, all in one group. */
bool csv_run_is_allocatable(const struct csv_geom *g, uint64_t blk, uint64_t len);
/* Copies of the superblock: 0 = CSV_SB_BLOCK, 1 = before the groups, 2 = last block. */
#define CSV_SUPER_COPIES 3u
uint64_t csv_super_blk(const struct csv_geom *g, uint32_t copy);

/* Where the state of a block is: false when it is in no group. */
struct csv_bitmap_pos { uint32_t group, bitmap, entry; };
bool csv_bitmap_pos(const struct csv_geom *g, uint64_t blk, struct csv_bitmap_pos *ret);
static inline enum csv_blk_state csv_bits_get(const uint8_t *bits, uint32_t entry)
{
	return (enum csv_blk_state)(bits[entry / 4] >> (entry % 4 * 2) & 3);
}
static inline void csv_bits_set(uint8_t *bits, uint32_t entry, enum csv_blk_state st)
{
	bits[entry / 4] = (uint8_t)((bits[entry / 4] & ~(3u << (entry % 4 * 2))) | (unsigned)st << (entry % 4 * 2));
}

/* ---- superblock ----------------------------------------------------------------------------------------------------------------- */

/*
 * `blkno`: where it was read.  dev_blk and dev_sector: the device (0: not compared).  0; -EINVAL: not csvfs at all;
 * -CSV_E_CORRUPT; -CSV_E_UNSUPPORTED: in order, but of a later version or for a device with smaller sectors.
 */
int csv_super_decode(const void *block, uint64_t blkno, uint64_t dev_blk, uint32_t dev_sector, struct csv_geom *ret,
		     struct csv_err *err);
/* Fills and seals a whole block as the copy at `blkno`. */
void csv_super_encode(const struct csv_geom *g, uint64_t blkno, void *ret_block);
/*
 * Awaits.  The superblock, or a copy when the primary is bad: then ret_note (NULL allowed) says so in ret_note->text, with
 * ret_note->code the primary's error.  A superblock in order that cannot be used (-CSV_E_UNSUPPORTED) is final.
 */
int csv_super_read(struct blk *b, struct csv_geom *ret, struct csv_err *ret_note, struct csv_err *err);

/* ---- slot states and heartbeats: 512 bytes of content in a 4 KiB block -------------------------------------------------------- */

#define CSV_ATOMIC_BYTES 512u

struct csv_slot_info {
	enum csv_slot_state state;
	uint32_t nodeid;
	uint64_t incarnation, since_real_ns;
	uint32_t proof_kind, proof_nodeid;
	uint64_t proof_incarnation;
	char node_name[64];		/* terminated, printable */
	uint64_t seq;			/* of the block: the writer raises it */
};
#define CSV_PROOF_KINDS 7u
int csv_slot_decode(const struct csv_geom *g, uint32_t slot, const void *block, struct csv_slot_info *ret, struct csv_err *err);
/* Fills a whole block; writing the first 512 bytes (or all of it where sectors are larger) is enough. */
void csv_slot_encode(const struct csv_geom *g, uint32_t slot, const struct csv_slot_info *in, void *ret_block);

struct csv_hbeat_info { uint64_t incarnation, counter; uint32_t flags, nodeid; uint64_t seq; };
#define CSV_HBEAT_WATCHDOG 1u
int csv_hbeat_decode(const struct csv_geom *g, uint32_t slot, const void *block, struct csv_hbeat_info *ret, struct csv_err *err);
void csv_hbeat_encode(const struct csv_geom *g, uint32_t slot, const struct csv_hbeat_info *in, void *ret_block);

#endif
