/* SPDX-License-Identifier: GPL-2.0-only */
/* jnlsim_model.c - model and check of the journal's simulation (jnlsim_model.h). */
#include "tests/sim/jnlsim_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "journal/journal.h"
#include "journal/mhdr.h"
#include "utils/base/base.h"

#define TXN_LOOK_BACK 150u	/* older ones are ancestors of these */

static void *grow(void *v, uint32_t n, size_t size)
{
	if (n & (n - 1))
		return v;
	v = realloc(v, (n ? 2 * (size_t)n : 1) * size);
	csv_assert(v);
	return v;
}

static uint64_t zero_clock(struct clock *c)
{
	(void)c;
	return 0;
}

void jm_init(struct jm *m)
{
	static const struct clock_ops ops = { zero_clock, zero_clock, zero_clock };

	memset(m, 0, sizeof(*m));
	m->clk.ops = &ops;
	m->sched = sched_new(&m->clk);
	csv_assert(m->sched);
	memcpy(m->uuid, "journal of sim.", 16);
	/* number 0 means none */
	jm_ver_new(m, 0, 0, 0);
	jm_life_new(m, 0, 0);
}

void jm_done(struct jm *m)
{
	sched_free(m->sched);
	free(m->ver);
	free(m->life);
	free(m->txn);
}

uint32_t jm_ver_new(struct jm *m, uint32_t b, uint32_t parent, uint32_t life)
{
	m->ver = grow(m->ver, m->n_ver, sizeof(*m->ver));
	m->ver[m->n_ver] = (struct jm_ver){ .parent = parent, .b = b, .life = life };
	return m->n_ver++;
}

uint32_t jm_life_new(struct jm *m, uint32_t b, uint64_t gen)
{
	m->life = grow(m->life, m->n_life, sizeof(*m->life));
	m->life[m->n_life] = (struct jm_life){ .b = b, .gen = gen, .data_at = JM_NEVER };
	return m->n_life++;
}

uint32_t jm_txn_new(struct jm *m, uint32_t begin_at)
{
	m->txn = grow(m->txn, m->n_txn, sizeof(*m->txn));
	m->txn[m->n_txn] = (struct jm_txn){ .begin_at = begin_at, .durable_at = JM_NEVER };
	return m->n_txn++;
}

void jm_data_fill(void *block, uint64_t data)
{
	struct le64 *p = block;

	for (unsigned i = 0; i < CSV_BLOCK_SIZE / 8; i++)
		le64_set(&p[i], data * 0x9e3779b97f4a7c15ull + i);
}

void jm_slot_fill(const struct jm *m, void *block, uint32_t slot, bool active, uint64_t incarnation)
{
	struct csv_slot *s = block;

	memset(block, 0, CSV_BLOCK_SIZE);
	mhdr_init(block, CSV_MAGIC_SLOT, JM_SLOT_BLK(slot), 0, (struct csv_owner){ CSV_OWN_SLOT, slot });
	le32_set(&s->state, active ? CSV_SLOT_ACTIVE : CSV_SLOT_FREE);
	le64_set(&s->incarnation, incarnation);
	mhdr_seal(block, m->uuid);
}

void jm_mkfs(struct jm *m, struct sim_store *s)
{
	uint8_t *block = blk_alloc(CSV_BLOCK_SIZE);
	struct jm_content *c = (void *)(block + sizeof(struct csv_mhdr));

	for (uint32_t slot = 0; slot < JM_NODES; slot++) {
		jm_slot_fill(m, block, slot, false, 1);
		sim_store_write(s, (uint64_t)JM_SLOT_BLK(slot) * CSV_BLOCK_SIZE, block, CSV_BLOCK_SIZE);
	}
	for (uint32_t b = 0; b < JM_BLOCKS; b++) {
		uint32_t life = jm_life_new(m, b, 1), v = jm_ver_new(m, b, 0, life);

		memset(block, 0, CSV_BLOCK_SIZE);
		mhdr_init(block, CSV_MAGIC_INODE, JM_BLK(b), 1, jm_owner(b));
		le64_set(&c->version, v);
		for (uint32_t i = 0; b % JM_PER == 0 && i < JM_PER; i++)
			le32_set(&c->of[i].life, life + i);
		le64_set((struct le64 *)(block + JM_TAIL), v);
		mhdr_seal(block, m->uuid);
		sim_store_write(s, (uint64_t)JM_BLK(b) * CSV_BLOCK_SIZE, block, CSV_BLOCK_SIZE);
	}
	free(block);
}

/* ---- check ----------------------------------------------------------------------------------------------------------- */

struct chk {
	const struct jm *m;
	struct sim_store *image;
	uint32_t at;
	char *text;
	size_t size;
	uint32_t cur[JM_BLOCKS];	/* version there; 0: no metadata */
	uint32_t life[JM_BLOCKS];
	bool freed[JM_BLOCKS];
	bool replayed;
};

#define FAIL(c, ...) ((void)snprintf((c)->text, (c)->size, __VA_ARGS__), false)

static bool is_ancestor(const struct jm *m, uint32_t v, uint32_t of)
{
	while (of > v)
		of = m->ver[of].parent;
	return of == v;
}

static void replay_all(void *arg)
{
	static const struct jnl_replay_limits lim = { .total_blk = JM_TOTAL, .data_start_blk = JM_DATA };
	struct { struct chk *c; struct blk *blk; } *a = arg;
	struct csv_err err = CSV_ERR_INIT;
	struct jnl_replay_stats st;
	uint8_t *block = blk_alloc(CSV_BLOCK_SIZE);
	struct chk *c = a->c;

	for (uint32_t slot = 0; slot < JM_NODES; slot++) {
		struct jnl_geometry g = { .slot = slot, .start_blk = JM_JNL_BLK(slot), .len_blk = JM_JNL_LEN };
		const struct csv_slot *s = (void *)block;

		memcpy(g.uuid, c->m->uuid, 16);
		sim_store_read(c->image, (uint64_t)JM_SLOT_BLK(slot) * CSV_BLOCK_SIZE, block, CSV_BLOCK_SIZE);
		if (mhdr_check(block, c->m->uuid, CSV_MAGIC_SLOT, JM_SLOT_BLK(slot), NULL, &err)) {
			(void)FAIL(c, "%s", err.text);
			goto out;
		}
		if (le32_get(s->state) != CSV_SLOT_ACTIVE)
			continue;
		g.incarnation = le64_get(s->incarnation);
		if (jnl_replay(a->blk, &g, &lim, NULL, &st, &err) < 0) {
			(void)FAIL(c, "replay: %s", err.text);
			goto out;
		}
	}
	c->replayed = true;
out:
	free(block);
}

static bool replay_image(struct chk *c)
{
	struct sched *s = c->m->sched;
	struct { struct chk *c; struct blk *blk; } a = { c, sim_store_blk(c->image, s) };

	csv_assert(!sched_spawn(s, "replay", replay_all, &a));
	sched_run(s);
	blk_close(a.blk);
	return c->replayed;
}

static bool read_meta(struct chk *c, uint32_t b, uint32_t life, uint8_t *block)
{
	const struct jm_content *t = (const void *)(block + sizeof(struct csv_mhdr));
	struct csv_owner owner = jm_owner(b);
	struct csv_err err = CSV_ERR_INIT;
	uint64_t v;

	sim_store_read(c->image, (uint64_t)JM_BLK(b) * CSV_BLOCK_SIZE, block, CSV_BLOCK_SIZE);
	if (mhdr_check(block, c->m->uuid, CSV_MAGIC_INODE, JM_BLK(b), &owner, &err))
		return FAIL(c, "block %u is metadata by its anchor: %s", b, err.text);
	v = le64_get(t->version);
	if (v != le64_get(*(struct le64 *)(block + JM_TAIL)))
		return FAIL(c, "block %u: torn under a good checksum", b);
	if (!v || v >= c->m->n_ver || c->m->ver[v].b != b)
		return FAIL(c, "block %u: version %" PRIu64 " was never written there", b, v);
	if (life && c->m->ver[v].life != life)
		return FAIL(c, "block %u: version %" PRIu64 " is of life %u, the anchor says %u", b, v, c->m->ver[v].life, life);
	if (le64_get(((struct csv_mhdr *)block)->generation) != c->m->life[c->m->ver[v].life].gen)
		return FAIL(c, "block %u: generation is not that of its life", b);
	c->cur[b] = v;
	return true;
}

static bool read_owner(struct chk *c, uint32_t owner, uint8_t *block)
{
	struct jm_content *t = (void *)(block + sizeof(struct csv_mhdr));
	uint8_t want[CSV_BLOCK_SIZE], anchor[CSV_BLOCK_SIZE];
	uint32_t first = owner * JM_PER;

	if (!read_meta(c, first, 0, block))
		return false;
	memcpy(anchor, block, sizeof(anchor));
	t = (void *)(anchor + sizeof(struct csv_mhdr));
	for (uint32_t i = 1; i < JM_PER; i++) {
		uint32_t b = first + i, life = le32_get(t->of[i].life);
		const struct jm_life *l = &c->m->life[life];

		if (!life || life >= c->m->n_life || l->b != b)
			return FAIL(c, "block %u: life %u of its anchor was never its own", b, life);
		c->life[b] = life;
		c->freed[b] = le32_get(t->of[i].freed);
		if (!c->freed[b]) {
			if (!read_meta(c, b, life, block))
				return false;
		} else if (l->data_at <= c->at) {
			sim_store_read(c->image, (uint64_t)JM_BLK(b) * CSV_BLOCK_SIZE, block, CSV_BLOCK_SIZE);
			jm_data_fill(want, l->data);
			if (memcmp(want, block, CSV_BLOCK_SIZE))
				return FAIL(c, "block %u: flushed data of a file was overwritten (freed block resurrected)", b);
		}
	}
	return true;
}

/* Is version v in the history of what is there? */
static bool included(const struct chk *c, uint32_t v)
{
	const struct jm *m = c->m;
	uint32_t b = m->ver[v].b, life = m->ver[v].life, anchor = c->cur[b - b % JM_PER];

	if (b % JM_PER == 0)
		return is_ancestor(m, v, anchor);
	if (c->life[b] == life && !c->freed[b])
		return is_ancestor(m, v, c->cur[b]);
	return m->life[life].free_ver && is_ancestor(m, m->life[life].free_ver, anchor) && is_ancestor(m, v, m->life[life].final_ver);
}

static bool check_txn(struct chk *c, uint32_t i)
{
	const struct jm_txn *t = &c->m->txn[i];
	uint32_t n = 0, bad = 0;

	for (uint32_t k = 0; k < t->n; k++) {
		if (included(c, t->v[k]))
			n++;
		else
			bad = c->m->ver[t->v[k]].b;
	}
	if (n && n != t->n)
		return FAIL(c, "transaction %u is torn: %u of %u blocks, not block %u", i, n, t->n, bad);
	if (!n && t->n && t->durable_at <= c->at)
		return FAIL(c, "transaction %u was durable at %u and is gone at %u (block %u)", i, t->durable_at, c->at, bad);
	return true;
}

bool jm_check(const struct jm *m, struct sim_store *image, uint32_t at, char *text, size_t size)
{
	struct chk c = { .m = m, .image = image, .at = at, .text = text, .size = size };
	uint8_t block[CSV_BLOCK_SIZE];
	uint32_t n = 0;

	if (!replay_image(&c))
		return false;
	for (uint32_t o = 0; o < JM_OWNERS; o++)
		if (!read_owner(&c, o, block))
			return false;
	for (uint32_t i = m->n_txn; i-- > 0 && n < TXN_LOOK_BACK;) {
		if (m->txn[i].begin_at > at)
			continue;
		n++;
		if (!check_txn(&c, i))
			return false;
	}
	return true;
}
