/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * format.c - geometry, and decoding and encoding of superblock, slot states and heartbeats.  Invariants in format.h.
 * Any thread, but csv_super_read() (a coroutine).
 */
#include "csvfs/format.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "journal/mhdr.h"
#include "utils/env/blk.h"

typedef unsigned long long ull;

/* ---- geometry ---------------------------------------------------------------------------------------------------------------- */

uint64_t csv_lockspace_of(const uint8_t uuid[static 16])
{
	uint64_t a = 0, b = 0;

	for (int i = 0; i < 8; i++) {
		a |= (uint64_t)uuid[i] << (8 * i);
		b |= (uint64_t)uuid[8 + i] << (8 * i);
	}
	a ^= b * 0x9e3779b97f4a7c15ull;
	return a ? a : 1;
}

uint32_t csv_groups_fit(uint64_t total_blk, uint64_t data_start_blk)
{
	uint64_t room, n;

	/* The last block is a copy of the superblock. */
	if (total_blk > CSV_INO_MAX || total_blk < 1 || data_start_blk >= total_blk - 1)
		return 0;
	room = total_blk - 1 - data_start_blk;
	n = room / CSV_GROUP_BLOCKS;
	if (room % CSV_GROUP_BLOCKS >= CSV_GROUP_BLOCKS_MIN)
		n++;
	return (uint32_t)n;
}

static void check_slot(const struct csv_geom *g, uint32_t slot)
{
	csv_assertf(slot < g->slots, "slot %u of %u", slot, g->slots);
}

uint64_t csv_slot_blk(const struct csv_geom *g, uint32_t slot)
{
	check_slot(g, slot);
	return g->slot_start_blk + slot;
}

uint64_t csv_hbeat_blk(const struct csv_geom *g, uint32_t slot)
{
	check_slot(g, slot);
	return g->hbeat_start_blk + slot;
}

uint64_t csv_orphan_blk(const struct csv_geom *g, uint32_t slot)
{
	check_slot(g, slot);
	return g->orphan_start_blk + slot;
}

uint64_t csv_journal_blk(const struct csv_geom *g, uint32_t slot)
{
	check_slot(g, slot);
	return g->journal_start_blk + (uint64_t)slot * g->journal_blk;
}

uint64_t csv_group_start(const struct csv_geom *g, uint32_t group)
{
	csv_assertf(group < g->groups, "group %u of %u", group, g->groups);
	return g->data_start_blk + (uint64_t)group * CSV_GROUP_BLOCKS;
}

uint32_t csv_group_blocks(const struct csv_geom *g, uint32_t group)
{
	return (uint32_t)csv_min((uint64_t)CSV_GROUP_BLOCKS, g->total_blk - 1 - csv_group_start(g, group));
}

uint32_t csv_group_bitmaps(const struct csv_geom *g, uint32_t group)
{
	csv_assertf(group < g->groups, "group %u of %u", group, g->groups);
	return CSV_GROUP_BITMAPS;
}

uint64_t csv_bitmap_blk(const struct csv_geom *g, uint32_t group, uint32_t index)
{
	csv_assertf(index < CSV_GROUP_BITMAPS, "bitmap %u", index);
	return csv_group_start(g, group) + 1 + index;
}

uint32_t csv_group_of(const struct csv_geom *g, uint64_t blk)
{
	uint64_t n;

	if (blk < g->data_start_blk || blk >= g->total_blk - 1)
		return CSV_NO_GROUP;
	n = (blk - g->data_start_blk) / CSV_GROUP_BLOCKS;
	return n < g->groups ? (uint32_t)n : CSV_NO_GROUP;
}

bool csv_run_is_allocatable(const struct csv_geom *g, uint64_t blk, uint64_t len)
{
	uint32_t group = csv_group_of(g, blk);
	uint64_t in;

	if (group == CSV_NO_GROUP || len == 0)
		return false;
	in = blk - csv_group_start(g, group);
	return in >= CSV_GROUP_FIRST_FREE && len <= csv_group_blocks(g, group) - in;
}

bool csv_blk_is_allocatable(const struct csv_geom *g, uint64_t blk)
{
	return csv_run_is_allocatable(g, blk, 1);
}

uint64_t csv_super_blk(const struct csv_geom *g, uint32_t copy)
{
	csv_assertf(copy < CSV_SUPER_COPIES, "copy %u", copy);
	return copy == 0 ? CSV_SB_BLOCK : copy == 1 ? g->data_start_blk - 1 : g->total_blk - 1;
}

bool csv_bitmap_pos(const struct csv_geom *g, uint64_t blk, struct csv_bitmap_pos *ret)
{
	uint32_t group = csv_group_of(g, blk), in;

	if (group == CSV_NO_GROUP)
		return false;
	in = (uint32_t)(blk - csv_group_start(g, group));
	ret->group = group;
	ret->bitmap = in / CSV_BITMAP_BLOCKS_COVERED;
	ret->entry = in % CSV_BITMAP_BLOCKS_COVERED;
	return true;
}

/* Terminated and fit for a terminal; a name is for people only. */
static void text_decode(char *ret, const uint8_t *p, uint32_t len)
{
	uint32_t i;

	for (i = 0; i < len && p[i]; i++)
		ret[i] = p[i] < 0x20 || p[i] == 0x7f ? '?' : (char)p[i];
	memset(ret + i, 0, len + 1 - i);
}

/* ---- superblock -------------------------------------------------------------------------------------------------------------- */

static int bad(struct csv_err *err, const char *field, uint64_t v, uint64_t lo, uint64_t hi)
{
	if (lo == hi)
		return csv_err_set(err, -CSV_E_CORRUPT, "superblock: field %s = %llu: must be %llu", field, (ull)v, (ull)lo);
	return csv_err_set(err, -CSV_E_CORRUPT, "superblock: field %s = %llu: must be between %llu and %llu", field, (ull)v, (ull)lo,
			   (ull)hi);
}

#define BOUND(field, v, lo, hi)                                              \
	do {                                                                 \
		uint64_t v_ = (v), lo_ = (lo), hi_ = (hi);                   \
                                                                             \
		if (v_ < lo_ || v_ > hi_)                                    \
			return bad(err, field, v_, lo_, hi_);                \
	} while (0)

/* The areas in their order (F3); total_blk is bounded already, so nothing here overflows. */
static int super_check_layout(const struct csv_geom *g, uint32_t groups, struct csv_err *err)
{
	uint64_t last = g->total_blk - 1;

	BOUND("slots", g->slots, 1, CSV_SLOTS_MAX);
	BOUND("journal_blk", g->journal_blk, CSV_JOURNAL_BLOCKS_MIN, CSV_JOURNAL_BLOCKS_MAX);
	BOUND("slot_start_blk", g->slot_start_blk, CSV_SB_BLOCK + 1, last);
	BOUND("hbeat_start_blk", g->hbeat_start_blk, g->slot_start_blk + g->slots, last);
	BOUND("orphan_start_blk", g->orphan_start_blk, g->hbeat_start_blk + g->slots, last);
	BOUND("journal_start_blk", g->journal_start_blk, g->orphan_start_blk + g->slots, last);
	BOUND("data_start_blk", g->data_start_blk, g->journal_start_blk + (uint64_t)g->slots * g->journal_blk + 1, last);
	BOUND("groups", groups, csv_max(1u, csv_groups_fit(g->total_blk, g->data_start_blk)),
	      csv_max(1u, csv_groups_fit(g->total_blk, g->data_start_blk)));
	if (csv_groups_fit(g->total_blk, g->data_start_blk) == 0)
		return csv_err_set(err, -CSV_E_CORRUPT,
				   "superblock: field data_start_blk = %llu: leaves no room for a group before block %llu",
				   (ull)g->data_start_blk, (ull)last);
	return 0;
}

static int super_check_versions(const struct csv_super *s, struct csv_err *err)
{
	uint32_t version = le32_get(s->version);

	if (version == 0)
		return csv_err_set(err, -CSV_E_CORRUPT, "superblock: field version = 0: must be at least 1");
	if (version > CSV_FORMAT_VERSION)
		return csv_err_set(err, -CSV_E_UNSUPPORTED,
				   "superblock: field version = %u: this program knows versions up to %u; use a newer csvfs", version,
				   CSV_FORMAT_VERSION);
	if (le64_get(s->incompat))
		return csv_err_set(err, -CSV_E_UNSUPPORTED,
				   "superblock: field incompat = %#llx: this program knows none of these features; use a newer csvfs",
				   (ull)le64_get(s->incompat));
	if (le32_get(s->protocol_level) > CSV_PROTOCOL_LEVEL)
		return csv_err_set(err, -CSV_E_UNSUPPORTED,
				   "superblock: field protocol_level = %u: this program speaks levels up to %u; use a newer csvfs",
				   le32_get(s->protocol_level), CSV_PROTOCOL_LEVEL);
	if (le32_get(s->journal_level) > CSV_JOURNAL_LEVEL)
		return csv_err_set(err, -CSV_E_UNSUPPORTED,
				   "superblock: field journal_level = %u: this program knows levels up to %u; use a newer csvfs",
				   le32_get(s->journal_level), CSV_JOURNAL_LEVEL);
	BOUND("protocol_level", le32_get(s->protocol_level), 1, CSV_PROTOCOL_LEVEL);
	BOUND("journal_level", le32_get(s->journal_level), 1, CSV_JOURNAL_LEVEL);
	return 0;
}

int csv_super_decode(const void *block, uint64_t blkno, uint64_t dev_blk, uint32_t dev_sector, struct csv_geom *ret,
		     struct csv_err *err)
{
	static const uint8_t zero[16];
	const struct csv_super *s = block;
	const struct csv_owner owner = { CSV_OWN_MOUNT, 0 };
	struct csv_geom g = { .from_blk = blkno };
	uint32_t i;
	int rc;

	if (le32_get(s->h.magic) != CSV_MAGIC_SUPER)
		return csv_err_set(err, -EINVAL, "superblock: field magic = %08x: not a csvfs volume (block %llu must begin with %08x); is this the right device?",
				   le32_get(s->h.magic), (ull)blkno, CSV_MAGIC_SUPER);
	rc = mhdr_check(block, NULL, CSV_MAGIC_SUPER, blkno, &owner, err);
	if (!rc)
		rc = super_check_versions(s, err);
	if (rc)
		return rc;
	BOUND("block_size", le32_get(s->block_size), CSV_BLOCK_SIZE, CSV_BLOCK_SIZE);

	memcpy(g.uuid, s->uuid, sizeof(g.uuid));
	if (!memcmp(g.uuid, zero, sizeof(zero)))
		return csv_err_set(err, -CSV_E_CORRUPT, "superblock: field uuid = 0: must not be zero");
	text_decode(g.label, s->label, sizeof(s->label));
	for (i = (uint32_t)strlen(g.label); i < sizeof(s->label); i++)
		if (s->label[i])
			return csv_err_set(err, -CSV_E_CORRUPT, "superblock: field label: byte %u = %u behind its end: must be 0", i,
					   s->label[i]);
	g.compat = le64_get(s->compat);
	g.ro_compat = le64_get(s->ro_compat);
	g.incompat = le64_get(s->incompat);
	g.ro_only = g.ro_compat != 0;
	g.lockspace = le64_get(s->lockspace);
	if (g.lockspace != csv_lockspace_of(g.uuid))
		return csv_err_set(err, -CSV_E_CORRUPT, "superblock: field lockspace = %016llx: must be %016llx for this uuid",
				   (ull)g.lockspace, (ull)csv_lockspace_of(g.uuid));
	memcpy(g.hash_key, s->hash_key, sizeof(g.hash_key));
	g.mkfs_time_ns = le64_get(s->mkfs_time_ns);
	g.protocol_level = le32_get(s->protocol_level);
	g.journal_level = le32_get(s->journal_level);
	g.seq = le64_get(s->h.seq);

	g.total_blk = le64_get(s->total_blk);
	BOUND("total_blk", g.total_blk, CSV_SB_BLOCK + 2, CSV_INO_MAX);
	if (dev_blk && g.total_blk > dev_blk)
		return csv_err_set(err, -CSV_E_CORRUPT,
				   "superblock: field total_blk = %llu: the device has only %llu blocks: it was made shorter, or is not "
				   "the whole volume", (ull)g.total_blk, (ull)dev_blk);
	g.min_io = le32_get(s->min_io);
	if (g.min_io != 512 && g.min_io != CSV_BLOCK_SIZE)
		return csv_err_set(err, -CSV_E_CORRUPT, "superblock: field min_io = %u: must be 512 or 4096", g.min_io);
	if (dev_sector > g.min_io)
		return csv_err_set(err, -CSV_E_UNSUPPORTED,
				   "superblock: field min_io = %u: the device has sectors of %u bytes, the volume was made for %u; copy "
				   "it to a device with sectors of %u bytes, or run mkfs.csvfs here", g.min_io, dev_sector, g.min_io,
				   g.min_io);
	g.slots = le32_get(s->slots);
	g.slot_start_blk = le64_get(s->slot_start_blk);
	g.hbeat_start_blk = le64_get(s->hbeat_start_blk);
	g.orphan_start_blk = le64_get(s->orphan_start_blk);
	g.journal_start_blk = le64_get(s->journal_start_blk);
	g.journal_blk = le32_get(s->journal_blk);
	g.data_start_blk = le64_get(s->data_start_blk);
	rc = super_check_layout(&g, le32_get(s->groups), err);
	if (rc)
		return rc;
	g.groups = le32_get(s->groups);
	g.root_ino = le64_get(s->root_ino);
	if (!csv_blk_is_allocatable(&g, g.root_ino))
		return csv_err_set(err, -CSV_E_CORRUPT, "superblock: field root_ino = %llu: must be a block inside a group (%llu..%llu)",
				   (ull)g.root_ino, (ull)g.data_start_blk + CSV_GROUP_FIRST_FREE, (ull)g.total_blk - 2);
	g.system_ino = le64_get(s->system_ino);
	if (g.system_ino && !csv_blk_is_allocatable(&g, g.system_ino))
		return csv_err_set(err, -CSV_E_CORRUPT, "superblock: field system_ino = %llu: must be 0 or a block inside a group",
				   (ull)g.system_ino);
	if (blkno != csv_super_blk(&g, 0) && blkno != csv_super_blk(&g, 1) && blkno != csv_super_blk(&g, 2))
		return csv_err_set(err, -CSV_E_CORRUPT, "superblock: field data_start_blk = %llu: block %llu is no place for a copy",
				   (ull)g.data_start_blk, (ull)blkno);
	*ret = g;
	return 0;
}

void csv_super_encode(const struct csv_geom *g, uint64_t blkno, void *ret_block)
{
	struct csv_super *s = ret_block;

	memset(ret_block, 0, CSV_BLOCK_SIZE);
	mhdr_init(ret_block, CSV_MAGIC_SUPER, blkno, 0, (struct csv_owner){ CSV_OWN_MOUNT, 0 });
	le64_set(&s->h.seq, g->seq);
	memcpy(s->uuid, g->uuid, sizeof(s->uuid));
	memcpy(s->label, g->label, csv_min(strlen(g->label), sizeof(s->label)));
	le32_set(&s->version, CSV_FORMAT_VERSION);
	le32_set(&s->block_size, CSV_BLOCK_SIZE);
	le64_set(&s->compat, g->compat);
	le64_set(&s->ro_compat, g->ro_compat);
	le64_set(&s->incompat, g->incompat);
	le64_set(&s->total_blk, g->total_blk);
	le64_set(&s->data_start_blk, g->data_start_blk);
	le32_set(&s->groups, g->groups);
	le32_set(&s->slots, g->slots);
	le64_set(&s->slot_start_blk, g->slot_start_blk);
	le64_set(&s->hbeat_start_blk, g->hbeat_start_blk);
	le64_set(&s->orphan_start_blk, g->orphan_start_blk);
	le64_set(&s->journal_start_blk, g->journal_start_blk);
	le32_set(&s->journal_blk, g->journal_blk);
	le32_set(&s->min_io, g->min_io);
	le64_set(&s->root_ino, g->root_ino);
	le64_set(&s->system_ino, g->system_ino);
	le64_set(&s->lockspace, g->lockspace);
	memcpy(s->hash_key, g->hash_key, sizeof(s->hash_key));
	le64_set(&s->mkfs_time_ns, g->mkfs_time_ns);
	le32_set(&s->protocol_level, g->protocol_level);
	le32_set(&s->journal_level, g->journal_level);
	mhdr_seal(ret_block, NULL);
}

static int super_try(struct blk *b, uint64_t blkno, void *buf, struct csv_geom *ret, struct csv_err *err)
{
	uint64_t dev_blk = b->size_bytes / CSV_BLOCK_SIZE;
	int rc;

	csv_err_clear(err);
	if (blkno >= dev_blk)
		return csv_err_set(err, -EINVAL, "superblock: the device has %llu bytes: too short for a csvfs volume", (ull)b->size_bytes);
	rc = blk_read(b, blkno * CSV_BLOCK_SIZE, buf, CSV_BLOCK_SIZE);
	if (rc)
		return csv_err_set(err, rc, "superblock: reading block %llu: %s", (ull)blkno, csv_err_describe(rc));
	return csv_super_decode(buf, blkno, dev_blk, b->min_io, ret, err);
}

int csv_super_read(struct blk *b, struct csv_geom *ret, struct csv_err *ret_note, struct csv_err *err)
{
	struct csv_err first = CSV_ERR_INIT, e = CSV_ERR_INIT;
	uint64_t dev_blk = b->size_bytes / CSV_BLOCK_SIZE, try[2];
	const struct csv_super *s;
	void *buf = blk_alloc(CSV_BLOCK_SIZE);
	int rc;

	if (ret_note)
		csv_err_clear(ret_note);
	if (!buf)
		return csv_err_set(err, -ENOMEM, "superblock: out of memory");
	memset(buf, 0, CSV_BLOCK_SIZE);
	rc = super_try(b, CSV_SB_BLOCK, buf, ret, &first);
	if (rc && rc != -CSV_E_UNSUPPORTED && rc != -CSV_E_WITHDRAWN) {
		/* Where the copies are: the end of the device, and what the bad block says (its copy's checksum decides). */
		s = buf;
		try[0] = dev_blk ? dev_blk - 1 : 0;
		try[1] = le64_get(s->data_start_blk) - 1;
		for (int i = 0; i < 2 && rc; i++) {
			if (try[i] <= CSV_SB_BLOCK || try[i] >= dev_blk)
				continue;
			rc = super_try(b, try[i], buf, ret, &e);
			if (rc == -CSV_E_UNSUPPORTED)
				first = e;
			if (!rc && ret_note)
				csv_err_set(ret_note, first.code, "%s; using the copy in block %llu; run fsck.csvfs", first.text,
					    (ull)try[i]);
			if (rc == -CSV_E_UNSUPPORTED)
				break;
		}
		if (rc)
			rc = first.code;
	}
	free(buf);
	if (rc == -CSV_E_CORRUPT)
		csv_err_set(err, rc, "%s; the copies are no better: see that the whole device is there, else restore from a backup", first.text);
	else if (rc && err)
		*err = first;
	return rc;
}

/* ---- slots and heartbeats ------------------------------------------------------------------------------------------------------ */

static void atomic_init(void *ret_block, uint32_t magic, uint64_t blkno, uint32_t slot, uint64_t seq)
{
	struct csv_mhdr *h = ret_block;

	memset(ret_block, 0, CSV_BLOCK_SIZE);
	mhdr_init(ret_block, magic, blkno, 0, (struct csv_owner){ CSV_OWN_SLOT, slot });
	le64_set(&h->seq, seq);
}

static int atomic_check(const struct csv_geom *g, const void *block, uint32_t magic, uint64_t blkno, uint32_t slot, struct csv_err *err)
{
	const struct csv_owner owner = { CSV_OWN_SLOT, slot };
	int rc = mhdr_check(block, g->uuid, magic, blkno, &owner, err);

	if (rc && err)
		csv_err_prefix(err, "slot %u", slot);
	return rc;
}

int csv_slot_decode(const struct csv_geom *g, uint32_t slot, const void *block, struct csv_slot_info *ret, struct csv_err *err)
{
	const struct csv_slot *s = block;
	char name[sizeof(s->node_name) + 1];
	struct csv_slot_info i = { 0 };
	uint32_t state;
	int rc = atomic_check(g, block, CSV_MAGIC_SLOT, csv_slot_blk(g, slot), slot, err);

	if (rc)
		return rc;
	state = le32_get(s->state);
	if (state != CSV_SLOT_FREE && state != CSV_SLOT_ACTIVE)
		return csv_err_set(err, -CSV_E_CORRUPT, "slot %u: field state = %u: must be 0 (free) or 1 (active)", slot, state);
	i.state = (enum csv_slot_state)state;
	i.nodeid = le32_get(s->nodeid);
	i.incarnation = le64_get(s->incarnation);
	if (state == CSV_SLOT_ACTIVE && (!i.nodeid || !i.incarnation))
		return csv_err_set(err, -CSV_E_CORRUPT, "slot %u: field %s = 0: must not be 0 in an active slot", slot,
				   i.nodeid ? "incarnation" : "nodeid");
	i.since_real_ns = le64_get(s->since_real_ns);
	i.proof_kind = le32_get(s->proof_kind);
	if (i.proof_kind >= CSV_PROOF_KINDS)
		return csv_err_set(err, -CSV_E_CORRUPT, "slot %u: field proof_kind = %u: must be between 0 and %u", slot, i.proof_kind,
				   CSV_PROOF_KINDS - 1);
	i.proof_nodeid = le32_get(s->proof_nodeid);
	i.proof_incarnation = le64_get(s->proof_incarnation);
	text_decode(name, s->node_name, sizeof(s->node_name));
	memcpy(i.node_name, name, sizeof(i.node_name));
	i.node_name[sizeof(i.node_name) - 1] = 0;
	i.seq = le64_get(s->h.seq);
	*ret = i;
	return 0;
}

void csv_slot_encode(const struct csv_geom *g, uint32_t slot, const struct csv_slot_info *in, void *ret_block)
{
	struct csv_slot *s = ret_block;

	atomic_init(ret_block, CSV_MAGIC_SLOT, csv_slot_blk(g, slot), slot, in->seq);
	le32_set(&s->state, in->state);
	le32_set(&s->nodeid, in->nodeid);
	le64_set(&s->incarnation, in->incarnation);
	le64_set(&s->since_real_ns, in->since_real_ns);
	le32_set(&s->proof_kind, in->proof_kind);
	le32_set(&s->proof_nodeid, in->proof_nodeid);
	le64_set(&s->proof_incarnation, in->proof_incarnation);
	memcpy(s->node_name, in->node_name, strnlen(in->node_name, sizeof(in->node_name) - 1));
	mhdr_seal(ret_block, g->uuid);
}

int csv_hbeat_decode(const struct csv_geom *g, uint32_t slot, const void *block, struct csv_hbeat_info *ret, struct csv_err *err)
{
	const struct csv_hbeat *s = block;
	int rc = atomic_check(g, block, CSV_MAGIC_HBEAT, csv_hbeat_blk(g, slot), slot, err);

	if (rc)
		return rc;
	ret->incarnation = le64_get(s->incarnation);
	ret->counter = le64_get(s->counter);
	ret->flags = le32_get(s->flags);
	ret->nodeid = le32_get(s->nodeid);
	ret->seq = le64_get(s->h.seq);
	return 0;
}

void csv_hbeat_encode(const struct csv_geom *g, uint32_t slot, const struct csv_hbeat_info *in, void *ret_block)
{
	struct csv_hbeat *s = ret_block;

	atomic_init(ret_block, CSV_MAGIC_HBEAT, csv_hbeat_blk(g, slot), slot, in->seq);
	le64_set(&s->incarnation, in->incarnation);
	le64_set(&s->counter, in->counter);
	le32_set(&s->flags, in->flags);
	le32_set(&s->nodeid, in->nodeid);
	mhdr_seal(ret_block, g->uuid);
}
