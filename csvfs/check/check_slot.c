/* SPDX-License-Identifier: GPL-2.0-only */
/* check_slot.c - superblock copies, slot states, heartbeats, journals. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "csvfs/check/check_internal.h"

/* ---- superblock ------------------------------------------------------------------------------------------------------ */

static const char *first_difference(const struct csv_struct *st, const uint8_t *a, const uint8_t *b)
{
	for (uint32_t i = 0; i < st->fields; i++) {
		const struct csv_field *f = &st->field[i];
		const struct csv_struct *sub = strncmp(f->type, "struct csv_", 11) ? NULL : csv_struct_by_name(f->type + 7);
		const char *name;

		if (!strcmp(f->name, "crc") || !memcmp(a + f->offset, b + f->offset, (size_t)f->size * f->count))
			continue;
		name = sub ? first_difference(sub, a + f->offset, b + f->offset) : f->name;
		if (name)
			return name;
	}
	return st->magic ? "(behind the last one)" : NULL;
}

/* 1 in order and equal to g, 0 not (why in err). */
static int copy_good(struct blk *b, const struct csv_geom *g, uint32_t copy, void *block, void *want, struct csv_err *err)
{
	uint64_t blkno = csv_super_blk(g, copy), dev_blk = b->size_bytes >> CSV_BLOCK_SHIFT;
	struct csv_geom mine;
	int r = blk_read(b, blkno << CSV_BLOCK_SHIFT, block, CSV_BLOCK_SIZE);

	if (r < 0)
		return csv_err_set(err, r, "block %" PRIu64 ": read: %s", blkno, csv_err_describe(r));
	if (csv_super_decode(block, blkno, dev_blk, b->min_io, &mine, err) < 0)
		return 0;
	csv_super_encode(g, blkno, want);
	if (!memcmp(block, want, CSV_BLOCK_SIZE))
		return 1;
	csv_err_set(err, -CSV_E_CORRUPT, "field %s: differs from the copy in block %" PRIu64 ": must be equal",
		    first_difference(csv_struct_by_magic(CSV_MAGIC_SUPER), block, want), g->from_blk);
	return 0;
}

void ck_super_copies(struct ck *c)
{
	void *want = blk_alloc(CSV_BLOCK_SIZE);

	if (!want) {
		ck_fatal(c, -ENOMEM, "out of memory");
		return;
	}
	for (uint32_t i = 0; i < CSV_SUPER_COPIES && !c->fatal; i++) {
		struct csv_err err = CSV_ERR_INIT;
		int r = copy_good(c->dev, &c->g, i, c->buf, want, &err);

		if (r < 0)
			ck_fatal(c, r, "%s", err.text);
		else if (!r) {
			ck_finding(c, "%s in block %" PRIu64 ": %s", i ? "copy of the superblock" : "superblock", csv_super_blk(&c->g, i), err.text);
			c->res->super_bad = true;
		}
	}
	free(want);
}

int check_repair_super(struct blk *b, struct csv_err *err)
{
	void *block = blk_alloc(CSV_BLOCK_SIZE), *want = blk_alloc(CSV_BLOCK_SIZE);
	struct csv_geom g;
	int r = block && want ? csv_super_read(b, &g, NULL, err) : -ENOMEM, fixed = 0;

	for (uint32_t i = CSV_SUPER_COPIES; !r && i > 0; i--) {
		struct csv_err why = CSV_ERR_INIT;

		r = copy_good(b, &g, i - 1, block, want, &why);
		if (r < 0) {
			if (err)
				*err = why;
			break;
		}
		if (r) {
			r = 0;
			continue;
		}
		csv_super_encode(&g, csv_super_blk(&g, i - 1), want);
		r = blk_write(b, csv_super_blk(&g, i - 1) << CSV_BLOCK_SHIFT, want, CSV_BLOCK_SIZE);
		if (!r)
			r = blk_flush(b);
		if (r < 0)
			csv_err_set(err, r, "block %" PRIu64 ": write: %s", csv_super_blk(&g, i - 1), csv_err_describe(r));
		fixed++;
	}
	free(block);
	free(want);
	return r < 0 ? r : fixed;
}

/* ---- slots and heartbeats ------------------------------------------------------------------------------------------------ */

static void slot_text(struct blk *b, const struct csv_geom *g, uint32_t slot, void *buf, char *ret, size_t size)
{
	struct csv_slot_info i;

	if (blk_read(b, csv_slot_blk(g, slot) << CSV_BLOCK_SHIFT, buf, CSV_BLOCK_SIZE) < 0 || csv_slot_decode(g, slot, buf, &i, NULL) < 0)
		snprintf(ret, size, "slot %u (unknown node)", slot);
	else
		snprintf(ret, size, "slot %u (node %u%s%s)", slot, i.nodeid, i.node_name[0] ? ", " : "", i.node_name);
}

int check_alive(struct blk *b, uint32_t wait_ms, char *ret_who, size_t size, struct csv_err *err)
{
	uint8_t *old = calloc(CSV_SLOTS_MAX, CSV_ATOMIC_BYTES), *buf = blk_alloc(CSV_BLOCK_SIZE);
	struct csv_geom g;
	int r = old && buf ? csv_super_read(b, &g, NULL, err) : csv_err_set(err, -ENOMEM, "out of memory");
	bool alive = false;

	for (int round = 0; round < 2 && !r && !alive; round++) {
		if (round)
			coro_sleep_ns(b->sched, (uint64_t)wait_ms * NS_PER_MS);
		for (uint32_t s = 0; s < g.slots && !r && !alive; s++) {
			r = blk_read(b, csv_hbeat_blk(&g, s) << CSV_BLOCK_SHIFT, buf, CSV_BLOCK_SIZE);
			if (r < 0)
				csv_err_set(err, r, "heartbeat %u: read: %s", s, csv_err_describe(r));
			else if (!round)
				memcpy(old + s * CSV_ATOMIC_BYTES, buf, CSV_ATOMIC_BYTES);
			else if (memcmp(old + s * CSV_ATOMIC_BYTES, buf, CSV_ATOMIC_BYTES)) {
				alive = true;
				slot_text(b, &g, s, buf, ret_who, size);
			}
		}
	}
	free(old);
	free(buf);
	return r < 0 ? r : alive;
}

static bool slot_check(struct ck *c, uint32_t slot, struct csv_slot_info *ret)
{
	struct csv_err err = CSV_ERR_INIT;
	char who[24];

	snprintf(who, sizeof(who), "slot %u", slot);
	if (ck_read(c, csv_slot_blk(&c->g, slot), c->buf) < 0)
		return false;
	if (csv_slot_decode(&c->g, slot, c->buf, ret, &err) < 0) {
		ck_finding(c, "%s", err.text);		/* names the slot */
		return false;
	}
	ck_mhdr_reserved(c, c->buf, who);
	return true;
}

static void hbeat_check(struct ck *c, uint32_t slot)
{
	struct csv_err err = CSV_ERR_INIT;
	struct csv_hbeat_info i;
	char who[24];

	snprintf(who, sizeof(who), "heartbeat %u", slot);
	if (ck_read(c, csv_hbeat_blk(&c->g, slot), c->buf) < 0)
		return;
	if (csv_hbeat_decode(&c->g, slot, c->buf, &i, &err) < 0)
		ck_finding(c, "%s", err.text);
	else
		ck_mhdr_reserved(c, c->buf, who);
}

void ck_slots(struct ck *c)
{
	struct csv_slot_info info[CSV_SLOTS_MAX];
	bool have[CSV_SLOTS_MAX];

	for (uint32_t s = 0; s < c->g.slots && !c->fatal; s++) {
		have[s] = slot_check(c, s, &info[s]);
		hbeat_check(c, s);
		if (!have[s] || info[s].state != CSV_SLOT_ACTIVE)
			continue;
		c->res->slots_active++;
		ck_note(c, "slot %u is in use by node %u%s%s: mounted there, or that node was lost; checked is what its journal makes of the volume",
			s, info[s].nodeid, info[s].node_name[0] ? ", " : "", info[s].node_name);
		for (uint32_t k = 0; k < s; k++)
			if (have[k] && info[k].state == CSV_SLOT_ACTIVE && info[k].nodeid == info[s].nodeid &&
			    info[k].incarnation == info[s].incarnation)
				ck_finding(c, "slot %u: field nodeid = %u, incarnation %" PRIu64 ": slot %u is in use by the same: must be one slot a mount",
					   s, info[s].nodeid, info[s].incarnation, k);
	}
}

/* ---- journals ------------------------------------------------------------------------------------------------------------ */

void ck_journals(struct ck *c)
{
	const struct csv_geom *g = &c->g;
	struct jnl_replay_limits lim = {
		.total_blk = g->total_blk, .data_start_blk = g->data_start_blk,
		.extra_first_blk = csv_orphan_blk(g, 0), .extra_last_blk = csv_orphan_blk(g, g->slots - 1),
	};

	for (uint32_t s = 0; s < g->slots && !c->fatal; s++) {
		struct jnl_geometry jg = { .slot = s, .start_blk = csv_journal_blk(g, s), .len_blk = g->journal_blk };
		struct jnl_replay_stats st = { 0 };
		struct csv_err err = CSV_ERR_INIT;
		struct csv_slot_info info;
		struct jnl_info ji;
		int r;

		memcpy(jg.uuid, g->uuid, sizeof(jg.uuid));
		if (ck_read(c, csv_slot_blk(g, s), c->buf) < 0)
			return;
		r = jnl_inspect(c->dev, &jg, &ji, &err);
		if (!r && !csv_slot_decode(g, s, c->buf, &info, NULL) && info.state == CSV_SLOT_ACTIVE) {
			jg.incarnation = info.incarnation;
			r = jnl_replay(c->dev, &jg, &lim, &c->home, &st, &err);
		}
		if (!r && !ck_read(c, jg.start_blk, c->buf)) {
			char who[24];

			snprintf(who, sizeof(who), "journal %u", s);
			ck_mhdr_reserved(c, c->buf, who);
			if (!ck_all_zero((uint8_t *)c->buf + sizeof(struct csv_jhead), CSV_BLOCK_SIZE - sizeof(struct csv_jhead)))
				ck_finding(c, "%s: block %" PRIu64 ": bytes behind the header: must be 0", who, jg.start_blk);
		}
		if (r == -CSV_E_CORRUPT || r == -CSV_E_UNSUPPORTED)
			ck_finding(c, "%s", err.text);
		else if (r < 0)
			ck_fatal(c, r, "%s", err.text);
		c->res->records += st.records;
		c->res->replayed_blk += st.blocks_written;
		if (c->o->progress)
			c->o->progress(c->o->arg, "journals", s + 1, g->slots);
	}
}
