/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mhdr: the header in front of every metadata block: fill, seal, verify.  Used by all who read or write metadata
 * (journal, csvfs, checker, mkfs, guard); pure, any thread.
 *
 * Invariants
 *  MH1 The checksum covers the whole block with the crc field as zero; of slot-state and heartbeat blocks (by magic) only the
 *      first 512 bytes, which are one atomic write.
 *  MH2 It is seeded with crc32c(0, uuid): a block of another volume never passes.  The superblock, which holds the uuid, is
 *      seeded with 0: pass uuid = NULL.
 *  MH3 A block is believed only after mhdr_check(); the order is magic, crc, own number, owner, so a torn block is called torn.
 */
#ifndef CSVFS_JOURNAL_MHDR_H
#define CSVFS_JOURNAL_MHDR_H

#include <stdbool.h>
#include <stdint.h>

#include "csvfs/csvfs_format.h"
#include "utils/base/err.h"

/* Fills the header of a fresh block: seq 0, crc 0, reserved 0.  Only the header is written. */
void mhdr_init(void *block, uint32_t magic, uint64_t blkno, uint64_t generation, struct csv_owner owner);
/* Computes and stores the crc (the length comes from the magic in the block). */
void mhdr_seal(void *block, const uint8_t *uuid);
/* What the crc field must be. */
uint32_t mhdr_crc(const void *block, const uint8_t *uuid);
bool mhdr_crc_ok(const void *block, const uint8_t *uuid);
/*
 * 0, or -CSV_E_CORRUPT with "block N (group header): owner_id 7, must be 3" in err.  owner may be NULL: any owner.
 * The magic decides how many bytes of `block` are read: 512 or 4096.
 */
int mhdr_check(const void *block, const uint8_t *uuid, uint32_t magic, uint64_t blkno, const struct csv_owner *owner,
	       struct csv_err *err);

/* For people: "group header", "inode 42". */
const char *mhdr_magic_name(uint32_t magic);
const char *mhdr_owner_name(uint32_t owner_type);	/* "inode", "group", ...; "?" when unknown */

static inline struct csv_owner mhdr_owner(const void *block)
{
	const struct csv_mhdr *h = block;

	return (struct csv_owner){ le32_get(h->owner_type), le64_get(h->owner_id) };
}

static inline bool csv_owner_eq(struct csv_owner a, struct csv_owner b)
{
	return a.type == b.type && a.id == b.id;
}

/* -1, 0, 1: which of two images of one block is of a later life, or later in the same life (R18). */
static inline int mhdr_age_cmp(uint64_t gen_a, uint64_t seq_a, uint64_t gen_b, uint64_t seq_b)
{
	if (gen_a != gen_b)
		return gen_a < gen_b ? -1 : 1;
	return seq_a < seq_b ? -1 : seq_a > seq_b;
}

#endif
