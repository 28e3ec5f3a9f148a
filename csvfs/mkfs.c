/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mkfs.c - making a volume.  Invariants in mkfs.h.  Thread: the control thread, in a coroutine.
 *
 * Groups are written as one request of header and bitmaps each, WRITERS of them under way: a volume of 100 TB has some 93,000.
 */
#include "csvfs/mkfs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "csvfs/btree.h"
#include "journal/journal.h"
#include "journal/mhdr.h"
#include "utils/base/text.h"

#define WRITERS 32u
#define GROUP_BYTES (CSV_GROUP_FIRST_FREE * CSV_BLOCK_SIZE)
#define FIRST_INCARNATION 1u
#define MIB_BLOCKS 256u

typedef unsigned long long ull;

/* ---- planning ---------------------------------------------------------------------------------------------------------------- */

static uint32_t journal_default_mib(uint64_t dev_bytes, uint32_t slots)
{
	uint32_t mib = CSVFS_MKFS_JOURNAL_MIB;

	/* At most a quarter of the device for all journals together. */
	while (mib > CSVFS_MKFS_JOURNAL_MIB_MIN && (uint64_t)mib * slots > (dev_bytes >> 20) / 4)
		mib /= 2;
	return mib;
}

static int options_check(uint64_t dev_bytes, uint32_t min_io, const struct csvfs_mkfs_options *o, struct csv_err *err)
{
	static const uint8_t zero[16];

	if (min_io != 512 && min_io != 4096)
		return csv_err_set(err, -EINVAL, "the device has sectors of %u bytes: csvfs needs 512 or 4096", min_io);
	if (dev_bytes < CSVFS_MKFS_BYTES_MIN)
		return csv_err_set(err, -ENOSPC, "the device has %llu bytes: a volume needs at least %llu MiB", (ull)dev_bytes,
				   CSVFS_MKFS_BYTES_MIN >> 20);
	if (dev_bytes / CSV_BLOCK_SIZE > CSV_INO_MAX)
		return csv_err_set(err, -EFBIG, "the device has %llu bytes: a volume has at most %llu", (ull)dev_bytes,
				   CSV_INO_MAX * CSV_BLOCK_SIZE);
	if (o->slots > CSV_SLOTS_MAX)
		return csv_err_set(err, -EINVAL, "%u slots: must be between 1 and %u", o->slots, CSV_SLOTS_MAX);
	if (o->journal_mib && (o->journal_mib < CSVFS_MKFS_JOURNAL_MIB_MIN || o->journal_mib > CSVFS_MKFS_JOURNAL_MIB_MAX))
		return csv_err_set(err, -EINVAL, "journals of %u MiB: must be between %u and %u MiB", o->journal_mib,
				   CSVFS_MKFS_JOURNAL_MIB_MIN, CSVFS_MKFS_JOURNAL_MIB_MAX);
	if (!memcmp(o->uuid, zero, sizeof(zero)))
		return csv_err_set(err, -EINVAL, "the volume's uuid must not be zero");
	for (const char *p = o->label; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return csv_err_set(err, -EINVAL, "the label must not contain control characters");
	return 0;
}

int csvfs_mkfs_plan(uint64_t dev_bytes, uint32_t min_io, const struct csvfs_mkfs_options *o, struct csv_geom *ret, struct csv_err *err)
{
	struct csv_geom g = { .from_blk = CSV_SB_BLOCK };
	uint32_t journal_mib;
	uint64_t end;
	int rc = options_check(dev_bytes, min_io, o, err);

	if (rc)
		return rc;
	memcpy(g.uuid, o->uuid, sizeof(g.uuid));
	memcpy(g.hash_key, o->hash_key, sizeof(g.hash_key));
	memcpy(g.label, o->label, strnlen(o->label, sizeof(g.label) - 1));
	g.total_blk = dev_bytes / CSV_BLOCK_SIZE;
	g.min_io = min_io;
	g.slots = o->slots ? o->slots : CSVFS_MKFS_SLOTS;
	journal_mib = o->journal_mib ? o->journal_mib : journal_default_mib(dev_bytes, g.slots);
	g.journal_blk = journal_mib * MIB_BLOCKS;
	g.slot_start_blk = CSV_SB_BLOCK + 1;
	g.hbeat_start_blk = g.slot_start_blk + g.slots;
	g.orphan_start_blk = g.hbeat_start_blk + g.slots;
	g.journal_start_blk = csv_round_up(g.orphan_start_blk + g.slots, CSV_SYSTEM_ALIGN_BLOCKS);
	end = g.journal_start_blk + (uint64_t)g.slots * g.journal_blk;
	g.data_start_blk = csv_round_up(end + 1, CSV_SYSTEM_ALIGN_BLOCKS);	/* a copy of the superblock in between */
	g.groups = csv_groups_fit(g.total_blk, g.data_start_blk);
	if (!g.groups)
		return csv_err_set(err, -ENOSPC,
				   "the device has %llu MiB, %u slots with journals of %u MiB take %llu MiB of it: take fewer slots (-n) or "
				   "smaller journals (-j)", (ull)dev_bytes >> 20, g.slots, journal_mib, (ull)g.data_start_blk / MIB_BLOCKS);
	g.root_ino = g.data_start_blk + CSV_GROUP_FIRST_FREE;
	g.lockspace = csv_lockspace_of(g.uuid);
	g.mkfs_time_ns = o->now_ns;
	g.protocol_level = CSV_PROTOCOL_LEVEL;
	g.journal_level = CSV_JOURNAL_LEVEL;
	g.seq = 1;
	*ret = g;
	return 0;
}

/* ---- is it in use? ----------------------------------------------------------------------------------------------------------- */

struct beats { uint8_t raw[CSV_SLOTS_MAX][CSV_ATOMIC_BYTES]; };

static int beats_read(struct blk *b, const struct csv_geom *g, void *buf, struct beats *ret, struct csv_err *err)
{
	for (uint32_t s = 0; s < g->slots; s++) {
		int rc = blk_read(b, csv_hbeat_blk(g, s) * CSV_BLOCK_SIZE, buf, CSV_BLOCK_SIZE);

		if (rc)
			return csv_err_set(err, rc, "heartbeat %u: reading block %llu: %s", s, (ull)csv_hbeat_blk(g, s), csv_err_describe(rc));
		memcpy(ret->raw[s], buf, CSV_ATOMIC_BYTES);
	}
	return 0;
}

/* The node in a slot, for messages. */
static void slot_who(struct blk *b, const struct csv_geom *g, uint32_t slot, void *buf, char *ret, size_t size, bool *ret_active)
{
	struct csv_slot_info i;

	*ret_active = false;
	snprintf(ret, size, "an unknown node");
	if (blk_read(b, csv_slot_blk(g, slot) * CSV_BLOCK_SIZE, buf, CSV_BLOCK_SIZE) || csv_slot_decode(g, slot, buf, &i, NULL))
		return;
	*ret_active = i.state == CSV_SLOT_ACTIVE;
	snprintf(ret, size, "node %u (%s)", i.nodeid, i.node_name[0] ? i.node_name : "no name");
}

/* The label, or the uuid of a volume without one. */
#define NAME_TEXT 48
static const char *volume_name(const struct csv_geom *g, char ret[static NAME_TEXT])
{
	char uuid[CSV_UUID_TEXT_BYTES];

	if (g->label[0])
		snprintf(ret, NAME_TEXT, "\"%s\"", g->label);
	else
		snprintf(ret, NAME_TEXT, "%s", csv_uuid_to_text(g->uuid, uuid));
	return ret;
}

static int use_check(struct blk *b, const struct csv_geom *g, bool force, uint32_t wait_ms, struct beats *beat, void *buf,
		     struct csv_err *err)
{
	char who[96], name[NAME_TEXT];
	bool active;
	int rc;

	rc = beats_read(b, g, buf, &beat[0], err);
	if (rc)
		return rc;
	coro_sleep_ns(b->sched, (uint64_t)wait_ms * NS_PER_MS);
	rc = beats_read(b, g, buf, &beat[1], err);
	if (rc)
		return rc;
	for (uint32_t s = 0; s < g->slots; s++) {
		if (!memcmp(beat[0].raw[s], beat[1].raw[s], CSV_ATOMIC_BYTES))
			continue;
		slot_who(b, g, s, buf, who, sizeof(who), &active);
		return csv_err_set(err, -CSV_E_BUSY_ELSEWHERE,
				   "volume %s is mounted now: %s writes heartbeats in slot %u; unmount it there first (-f does not help)",
				   volume_name(g, name), who, s);
	}
	for (uint32_t s = 0; s < g->slots && !force; s++) {
		slot_who(b, g, s, buf, who, sizeof(who), &active);
		if (active)
			return csv_err_set(err, -EBUSY,
					   "volume %s: slot %u is in use by %s, which gave no sign of life for %u ms; if that node is "
					   "switched off for certain, use -f", volume_name(g, name), s, who, wait_ms);
	}
	if (!force)
		return csv_err_set(err, -EEXIST, "the device holds the csvfs volume %s already; to make a new one and lose all it holds, use -f",
				   volume_name(g, name));
	return 0;
}

int csvfs_mkfs_check(struct blk *b, bool force, uint32_t wait_ms, struct csv_err *err)
{
	struct csv_err why = CSV_ERR_INIT;
	struct beats *beat;
	struct csv_geom g;
	void *buf;
	int rc = csv_super_read(b, &g, NULL, &why);

	if (rc == -EINVAL)
		return 0;	/* none */
	if (rc == -CSV_E_CORRUPT || rc == -CSV_E_UNSUPPORTED)
		return force ? 0 : csv_err_set(err, -EEXIST, "the device holds a csvfs volume that cannot be read (%s); to make a new one, use -f",
					       why.text);
	if (rc) {
		if (err)
			*err = why;
		return rc;
	}
	beat = calloc(2, sizeof(*beat));
	buf = blk_alloc(CSV_BLOCK_SIZE);
	rc = beat && buf ? use_check(b, &g, force, wait_ms, beat, buf, err) : csv_err_set(err, -ENOMEM, "out of memory");
	free(buf);
	free(beat);
	return rc;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------------- */

static int put_block(struct blk *b, uint64_t blkno, const void *buf, const char *what, struct csv_err *err)
{
	int rc = blk_write(b, blkno * CSV_BLOCK_SIZE, buf, CSV_BLOCK_SIZE);

	return rc ? csv_err_set(err, rc, "%s: writing block %llu: %s", what, (ull)blkno, csv_err_describe(rc)) : 0;
}

static int flush(struct blk *b, struct csv_err *err)
{
	int rc = blk_flush(b);

	return rc ? csv_err_set(err, rc, "flushing the device: %s", csv_err_describe(rc)) : 0;
}

/* MK2: whatever was there is no volume any more. */
static int wipe(struct blk *b, const struct csv_geom *g, void *buf, struct csv_err *err)
{
	struct csv_geom old;
	int rc, have_old = csv_super_read(b, &old, NULL, NULL) == 0;

	memset(buf, 0, CSV_BLOCK_SIZE);
	for (uint32_t i = 0; i < CSV_SUPER_COPIES; i++) {
		rc = put_block(b, csv_super_blk(g, i), buf, "superblock", err);
		if (!rc && have_old)
			rc = put_block(b, csv_super_blk(&old, i), buf, "superblock of the old volume", err);
		if (rc)
			return rc;
	}
	return flush(b, err);
}

static void inode_fill(const struct csv_geom *g, uint64_t blkno, struct csv_owner owner, enum csv_bt_kind kind, void *ret_block)
{
	struct csv_inode *d = ret_block;

	memset(ret_block, 0, CSV_BLOCK_SIZE);
	mhdr_init(ret_block, CSV_MAGIC_INODE, blkno, 1, owner);
	le32_set(&d->gen, 1);
	le32_set(&d->nlink, 1);
	le64_set(&d->atime_ns, g->mkfs_time_ns);
	le64_set(&d->mtime_ns, g->mkfs_time_ns);
	le64_set(&d->ctime_ns, g->mkfs_time_ns);
	le64_set(&d->btime_ns, g->mkfs_time_ns);
	le64_set(&d->change, 1);
	le32_set(&d->orphan_slot, CSV_NO_SLOT);
	le32_set(&d->body, CSV_BODY_TREE);
	bt_root_init(d->body_bytes, CSV_BODY_BYTES, kind);
}

static int write_slots(struct blk *b, const struct csv_geom *g, void *buf, struct csv_err *err)
{
	struct csv_slot_info slot = { .state = CSV_SLOT_FREE, .incarnation = FIRST_INCARNATION, .since_real_ns = g->mkfs_time_ns, .seq = 1 };
	struct csv_hbeat_info beat = { .seq = 1 };

	for (uint32_t s = 0; s < g->slots; s++) {
		struct jnl_geometry jg = { .slot = s, .start_blk = csv_journal_blk(g, s), .len_blk = g->journal_blk,
					   .incarnation = FIRST_INCARNATION };
		struct csv_inode *d = buf;
		int rc;

		csv_slot_encode(g, s, &slot, buf);
		rc = put_block(b, csv_slot_blk(g, s), buf, "slot state", err);
		if (!rc) {
			csv_hbeat_encode(g, s, &beat, buf);
			rc = put_block(b, csv_hbeat_blk(g, s), buf, "heartbeat", err);
		}
		if (!rc) {
			inode_fill(g, csv_orphan_blk(g, s), (struct csv_owner){ CSV_OWN_ORPHAN, s }, CSV_BT_ORPHANS, buf);
			le32_set(&d->flags, CSV_INO_ORPHANS);
			mhdr_seal(buf, g->uuid);
			rc = put_block(b, csv_orphan_blk(g, s), buf, "orphan inode", err);
		}
		if (!rc) {
			memcpy(jg.uuid, g->uuid, sizeof(jg.uuid));
			rc = jnl_format(b, &jg, err);
		}
		if (rc)
			return rc;
	}
	return 0;
}

static void root_fill(const struct csv_geom *g, const struct csvfs_mkfs_options *o, void *ret_block)
{
	struct csv_inode *d = ret_block;

	inode_fill(g, g->root_ino, (struct csv_owner){ CSV_OWN_INODE, g->root_ino }, CSV_BT_DIR, ret_block);
	le32_set(&d->mode, S_IFDIR | 0755);
	le32_set(&d->nlink, 2);
	le32_set(&d->uid, o->root_uid);
	le32_set(&d->gid, o->root_gid);
	le64_set(&d->parent, g->root_ino);
	mhdr_seal(ret_block, g->uuid);
}

/* Header and bitmaps of one group. */
static void group_fill(const struct csv_geom *g, uint32_t group, uint8_t *ret)
{
	const struct csv_owner owner = { CSV_OWN_GROUP, group };
	uint32_t blocks = csv_group_blocks(g, group), taken = CSV_GROUP_FIRST_FREE + (group == 0);
	struct csv_bitmap *first = (struct csv_bitmap *)(ret + CSV_BLOCK_SIZE);
	struct csv_group *d = (struct csv_group *)ret;
	uint64_t start = csv_group_start(g, group);

	memset(ret, 0, GROUP_BYTES);
	mhdr_init(ret, CSV_MAGIC_GROUP, start, 1, owner);
	le32_set(&d->group, group);
	le32_set(&d->blocks, blocks);
	le32_set(&d->free_blk, blocks - taken);
	le32_set(&d->largest_run, blocks - taken);
	le64_set(&d->next_generation, 2);
	le32_set(&d->inodes, group == 0);
	for (uint32_t i = 0; i < CSV_GROUP_FIRST_FREE; i++)
		csv_bits_set(first->bits, i, CSV_BLK_META);
	if (group == 0)
		csv_bits_set(first->bits, (uint32_t)(g->root_ino - start), CSV_BLK_INODE);
	mhdr_seal(ret, g->uuid);
	for (uint32_t i = 0; i < CSV_GROUP_BITMAPS; i++) {
		uint8_t *p = ret + (size_t)(1 + i) * CSV_BLOCK_SIZE;

		mhdr_init(p, CSV_MAGIC_BITMAP, start + 1 + i, 1, owner);
		mhdr_seal(p, g->uuid);
	}
}

struct writer {
	struct blk_req req;
	struct writers *all;
	struct cds_list_head node;	/* idle ones */
	uint32_t group;
};
struct writers {
	struct sched *sched;
	struct cds_list_head idle;
	struct waitq wq;
	struct writer w[WRITERS];
	uint32_t busy, failed_group;
	int status;
};

static void writer_done(struct blk_req *r)
{
	struct writer *w = container_of(r, struct writer, req);
	struct writers *all = w->all;

	if (r->result && !all->status) {
		all->status = r->result;
		all->failed_group = w->group;
	}
	all->busy--;
	cds_list_add(&w->node, &all->idle);
	sched_wake_all(all->sched, &all->wq);
}

static int write_groups(struct blk *b, const struct csv_geom *g, const struct csvfs_mkfs_options *o, struct csv_err *err)
{
	struct writers *all = calloc(1, sizeof(*all));
	uint8_t *data = blk_alloc(WRITERS * GROUP_BYTES);
	int rc = 0;

	if (!all || !data) {
		free(all);
		free(data);
		return csv_err_set(err, -ENOMEM, "out of memory");
	}
	all->sched = b->sched;
	CDS_INIT_LIST_HEAD(&all->idle);
	waitq_init(&all->wq);
	for (uint32_t i = 0; i < WRITERS; i++) {
		all->w[i].all = all;
		cds_list_add(&all->w[i].node, &all->idle);
	}
	for (uint32_t group = 0; group < g->groups && !all->status; group++) {
		struct writer *w;

		while (cds_list_empty(&all->idle))
			sched_wait(b->sched, &all->wq);
		w = cds_list_first_entry(&all->idle, struct writer, node);
		cds_list_del(&w->node);
		w->group = group;
		w->req = (struct blk_req){ .op = BLK_WRITE, .off = csv_group_start(g, group) * CSV_BLOCK_SIZE, .len = GROUP_BYTES,
					   .buf = data + (size_t)(w - all->w) * GROUP_BYTES, .done = writer_done };
		group_fill(g, group, w->req.buf);
		all->busy++;
		blk_submit(b, &w->req);
		if (o->progress)
			o->progress(o->arg, group, g->groups);
	}
	while (all->busy)
		sched_wait(b->sched, &all->wq);
	rc = all->status;
	if (rc)
		csv_err_set(err, rc, "group %u: writing block %llu: %s", all->failed_group, (ull)csv_group_start(g, all->failed_group),
			    csv_err_describe(rc));
	else if (o->progress)
		o->progress(o->arg, g->groups, g->groups);
	free(all);
	free(data);
	return rc;
}

static int write_all(struct blk *b, const struct csv_geom *g, const struct csvfs_mkfs_options *o, void *buf, struct csv_err *err)
{
	int rc = wipe(b, g, buf, err);

	if (!rc)
		rc = write_slots(b, g, buf, err);
	if (!rc)
		rc = write_groups(b, g, o, err);
	if (!rc) {
		root_fill(g, o, buf);
		rc = put_block(b, g->root_ino, buf, "root directory", err);
	}
	if (!rc)
		rc = flush(b, err);
	/* The copies, then the one that is looked at first. */
	for (uint32_t i = CSV_SUPER_COPIES; !rc && i > 0; i--) {
		csv_super_encode(g, csv_super_blk(g, i - 1), buf);
		rc = put_block(b, csv_super_blk(g, i - 1), buf, "superblock", err);
		if (!rc)
			rc = flush(b, err);
	}
	return rc;
}

int csvfs_mkfs(struct blk *b, const struct csvfs_mkfs_options *o, struct csv_geom *ret, struct csv_err *err)
{
	struct csv_geom g;
	void *buf;
	int rc = csvfs_mkfs_plan(b->size_bytes, b->min_io, o, &g, err);

	if (rc)
		return rc;
	buf = blk_alloc(CSV_BLOCK_SIZE);
	if (!buf)
		return csv_err_set(err, -ENOMEM, "out of memory");
	rc = write_all(b, &g, o, buf, err);
	free(buf);
	if (!rc && ret)
		*ret = g;
	return rc;
}
