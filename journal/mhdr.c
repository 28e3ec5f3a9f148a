/* SPDX-License-Identifier: GPL-2.0-only */
/* mhdr.c - fill, seal and verify the header of metadata blocks (mhdr.h). */
#include "journal/mhdr.h"

#include <inttypes.h>

#include "utils/base/crc32c.h"

#define SECTOR_BYTES 512u

static uint32_t covered_bytes(uint32_t magic)
{
	return magic == CSV_MAGIC_SLOT || magic == CSV_MAGIC_HBEAT ? SECTOR_BYTES : CSV_BLOCK_SIZE;
}

void mhdr_init(void *block, uint32_t magic, uint64_t blkno, uint64_t generation, struct csv_owner owner)
{
	struct csv_mhdr *h = block;

	memset(h, 0, sizeof(*h));
	le32_set(&h->magic, magic);
	le64_set(&h->blkno, blkno);
	le64_set(&h->generation, generation);
	le32_set(&h->owner_type, owner.type);
	le64_set(&h->owner_id, owner.id);
}

static uint32_t crc_of(const void *block, const uint8_t *uuid, uint32_t bytes)
{
	static const uint8_t zero[sizeof(struct le32)];
	const uint8_t *p = block;
	size_t at = offsetof(struct csv_mhdr, crc), after = at + sizeof(zero);
	uint32_t crc = uuid ? csv_crc32c(0, uuid, 16) : 0;

	crc = csv_crc32c(crc, p, at);
	crc = csv_crc32c(crc, zero, sizeof(zero));
	return csv_crc32c(crc, p + after, bytes - after);
}

uint32_t mhdr_crc(const void *block, const uint8_t *uuid)
{
	const struct csv_mhdr *h = block;

	return crc_of(block, uuid, covered_bytes(le32_get(h->magic)));
}

void mhdr_seal(void *block, const uint8_t *uuid)
{
	struct csv_mhdr *h = block;

	le32_set(&h->crc, mhdr_crc(block, uuid));
}

bool mhdr_crc_ok(const void *block, const uint8_t *uuid)
{
	const struct csv_mhdr *h = block;

	return le32_get(h->crc) == mhdr_crc(block, uuid);
}

const char *mhdr_magic_name(uint32_t magic)
{
	switch (magic) {
	case CSV_MAGIC_SUPER: return "superblock";
	case CSV_MAGIC_GROUP: return "group header";
	case CSV_MAGIC_BITMAP: return "bitmap";
	case CSV_MAGIC_INODE: return "inode";
	case CSV_MAGIC_BTNODE: return "tree node";
	case CSV_MAGIC_SLOT: return "slot state";
	case CSV_MAGIC_HBEAT: return "heartbeat";
	case CSV_MAGIC_JDESC: return "journal descriptor";
	case CSV_MAGIC_JCOMMIT: return "journal commit";
	case CSV_MAGIC_JHEAD: return "journal header";
	default: return "unknown kind";
	}
}

const char *mhdr_owner_name(uint32_t owner_type)
{
	static const char *const name[CSV_OWN_TYPES] = {
		[CSV_OWN_NONE] = "none", [CSV_OWN_SLOT] = "slot", [CSV_OWN_INODE] = "inode", [CSV_OWN_GROUP] = "group",
		[CSV_OWN_OPEN] = "open", [CSV_OWN_VMAP] = "vmap", [CSV_OWN_VNEG] = "vneg", [CSV_OWN_MOUNT] = "mount",
		[CSV_OWN_RENAME] = "rename", [CSV_OWN_ORPHAN] = "orphan", [CSV_OWN_REPLAY] = "replay",
		[CSV_OWN_PLOCK] = "plock", [CSV_OWN_USE] = "use",
	};

	return owner_type < CSV_OWN_TYPES && name[owner_type] ? name[owner_type] : "?";
}

int mhdr_check(const void *block, const uint8_t *uuid, uint32_t magic, uint64_t blkno, const struct csv_owner *owner,
	       struct csv_err *err)
{
	const struct csv_mhdr *h = block;
	const char *kind = mhdr_magic_name(magic);
	uint32_t got = le32_get(h->magic), crc;

	if (got != magic)
		return csv_err_set(err, -CSV_E_CORRUPT, "block %" PRIu64 " (%s): magic 0x%08x (%s), must be 0x%08x", blkno, kind,
				   got, mhdr_magic_name(got), magic);
	crc = crc_of(block, uuid, covered_bytes(magic));
	if (le32_get(h->crc) != crc)
		return csv_err_set(err, -CSV_E_CORRUPT, "block %" PRIu64 " (%s): crc 0x%08x, must be 0x%08x", blkno, kind,
				   le32_get(h->crc), crc);
	if (le64_get(h->blkno) != blkno)
		return csv_err_set(err, -CSV_E_CORRUPT, "block %" PRIu64 " (%s): blkno %" PRIu64 ", must be its own number", blkno,
				   kind, le64_get(h->blkno));
	if (!owner)
		return 0;
	if (le32_get(h->owner_type) != owner->type)
		return csv_err_set(err, -CSV_E_CORRUPT, "block %" PRIu64 " (%s): owner_type %u (%s), must be %u (%s)", blkno, kind,
				   le32_get(h->owner_type), mhdr_owner_name(le32_get(h->owner_type)), owner->type,
				   mhdr_owner_name(owner->type));
	if (le64_get(h->owner_id) != owner->id)
		return csv_err_set(err, -CSV_E_CORRUPT, "block %" PRIu64 " (%s): owner_id %" PRIu64 ", must be %" PRIu64, blkno,
				   kind, le64_get(h->owner_id), owner->id);
	return 0;
}
