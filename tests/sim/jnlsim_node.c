/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jnlsim_node.c - what a living node does: takes and gives owners with their blocks, and changes them in random transactions.
 */
#include "tests/sim/jnlsim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "journal/mhdr.h"

static void nap(struct js_node *n)
{
	coro_sleep_ns(sim_world_sched(n->js->w, n->id), 50000 + js_below(n->js, 200000));
}

static struct jm_content *content(struct js_blk *c)
{
	return (struct jm_content *)(c->data + sizeof(struct csv_mhdr));
}

/* ---- locks and cache ---------------------------------------------------------------------------------------------------- */

/* What was durable when the lock came must be there: the model's check on images says whether it is the right version. */
static int load_owner(struct js_node *n, uint32_t owner)
{
	struct js *js = n->js;
	uint8_t *buf = blk_alloc(CSV_BLOCK_SIZE);
	struct js_blk *anchor = &n->cache[owner * JM_PER];
	struct csv_err err = CSV_ERR_INIT;
	int r = 0;

	for (uint32_t i = 0; i < JM_PER && !r; i++) {
		uint32_t b = owner * JM_PER + i;
		struct js_blk *c = &n->cache[b];
		struct csv_owner o = jm_owner(b);

		csv_assert(!c->valid);
		c->life = i ? le32_get(content(anchor)->of[i].life) : js->m.ver[1 + b].life;
		c->freed = i && le32_get(content(anchor)->of[i].freed);
		jnl_buf_init(&c->jb, JM_BLK(b), c->data, o);
		c->valid = true;
		if (c->freed)
			continue;
		r = blk_read(n->blk, JM_BLK(b) * (uint64_t)CSV_BLOCK_SIZE, buf, CSV_BLOCK_SIZE);
		if (r < 0)
			break;
		r = mhdr_check(buf, js->m.uuid, CSV_MAGIC_INODE, JM_BLK(b), &o, &err);
		if (r < 0) {
			js_fail(js, "node %u got owner %u: %s", n->id, owner, err.text);
			break;
		}
		memcpy(c->data, buf, CSV_BLOCK_SIZE);
		c->version = le64_get(content(c)->version);
		if (c->version >= js->m.n_ver || js->m.ver[c->version].b != b) {
			js_fail(js, "node %u: block %u has version %u, never written there", n->id, b, c->version);
			r = -EIO;
		}
	}
	free(buf);
	return r;
}

static void drop_owner(struct js_node *n, uint32_t owner)
{
	for (uint32_t i = 0; i < JM_PER; i++) {
		struct js_blk *c = &n->cache[owner * JM_PER + i];

		csv_assert(!c->valid || !jnl_buf_busy(&c->jb));
		c->valid = false;
	}
}

/* false: the node is about to die. */
static bool lock_get(struct js_node *n, uint32_t owner)
{
	struct js *js = n->js;
	struct js_lock *l = &js->lock[owner];

	for (;;) {
		if (js->failed)
			return false;
		if (l->holder == n->id && !l->in_use) {
			l->in_use = true;
			return true;
		}
		if (!l->holder && !l->in_use) {
			l->holder = n->id;
			l->in_use = true;
			l->wanted = false;
			return !load_owner(n, owner);
		}
		if (l->holder != n->id)
			l->wanted = true;
		nap(n);
	}
}

static void lock_put(struct js_node *n, uint32_t owner)
{
	csv_assert(n->js->lock[owner].holder == n->id);
	n->js->lock[owner].in_use = false;
}

/* Everything of this node up to the journal's stable sequence is durable from now on. */
static void note_durable(struct js_node *n)
{
	struct js *js = n->js;
	uint32_t now = sim_disk_recorded(js->disk), kept = 0;

	for (uint32_t i = 0; i < n->n_undurable; i++) {
		struct jm_txn *t = &js->m.txn[n->undurable[i]];

		if (n->undurable_seq[i] <= jnl_stable_seq(n->j)) {
			t->durable_at = now;
			continue;
		}
		n->undurable[kept] = n->undurable[i];
		n->undurable_seq[kept++] = n->undurable_seq[i];
	}
	n->n_undurable = kept;
}

void js_releaser(void *arg)
{
	struct js_node *n = arg;
	struct js *js = n->js;

	while (!js->stop) {
		struct csv_owner owner[JM_OWNERS];
		uint32_t which[JM_OWNERS], k = 0;

		for (uint32_t o = 0; o < JM_OWNERS; o++) {
			struct js_lock *l = &js->lock[o];

			if (l->holder != n->id || l->in_use || !(l->wanted || js_chance(js, 1, 100)))
				continue;
			l->in_use = true;
			which[k] = o;
			owner[k++] = jm_owner(o * JM_PER);
		}
		if (k && jnl_release(n->j, owner, k) < 0)
			break;
		if (k) {
			note_durable(n);
			sim_world_count(js->w, "op.release", k);
		}
		for (uint32_t i = 0; i < k; i++) {
			if (jnl_owner_busy(n->j, owner[i]) && !js->no_revoke)
				js_fail(js, "owner %u is busy after its release", which[i]);
			drop_owner(n, which[i]);
			js->lock[which[i]] = (struct js_lock){ 0 };
		}
		nap(n);
	}
	n->workers--;
}

/* ---- operations ------------------------------------------------------------------------------------------------------------- */

struct op { struct js_node *n; struct jnl_handle h; uint32_t txn; uint32_t freed, n_blocks; uint32_t b[JM_TXN_MAX]; };

static void set_version(struct op *op, uint32_t b)
{
	struct js *js = op->n->js;
	struct js_blk *c = &op->n->cache[b];
	struct jm_txn *t = &js->m.txn[op->txn];

	jnl_dirty(&op->h, &c->jb);
	for (uint32_t i = 0; i < t->n; i++)
		if (t->v[i] == c->version)
			return;			/* this transaction's already */
	c->version = jm_ver_new(&js->m, b, c->version, c->life);
	csv_assert(t->n < JM_TXN_MAX);
	t->v[t->n++] = c->version;
	le64_set(&content(c)->version, c->version);
	le64_set((struct le64 *)(c->data + JM_TAIL), c->version);
}

static void do_free(struct op *op, uint32_t b)
{
	struct js *js = op->n->js;
	struct js_blk *c = &op->n->cache[b], *anchor = &op->n->cache[b - b % JM_PER];

	set_version(op, b - b % JM_PER);
	js->m.life[c->life].final_ver = c->version;
	js->m.life[c->life].free_ver = anchor->version;
	js->m.life[c->life].data_at = JM_NEVER;
	le32_set(&content(anchor)->of[b % JM_PER].freed, 1);
	c->freed = true;
	jnl_revoke(&op->h, &c->jb);
	op->freed = b;
	sim_world_count(js->w, "op.free", 1);
}

static void do_alloc(struct op *op, uint32_t b)
{
	struct js *js = op->n->js;
	struct js_blk *c = &op->n->cache[b], *anchor = &op->n->cache[b - b % JM_PER];

	set_version(op, b - b % JM_PER);
	c->life = jm_life_new(&js->m, b, ++js->gen);
	c->version = 0;
	c->freed = false;
	memset(c->data, 0, sizeof(c->data));
	mhdr_init(c->data, CSV_MAGIC_INODE, JM_BLK(b), js->gen, jm_owner(b));
	jnl_buf_init(&c->jb, JM_BLK(b), c->data, jm_owner(b));
	le32_set(&content(anchor)->of[b % JM_PER].life, c->life);
	le32_set(&content(anchor)->of[b % JM_PER].freed, 0);
	set_version(op, b);
	sim_world_count(js->w, "op.alloc", 1);
}

static void change_owner(struct op *op, uint32_t owner)
{
	struct js *js = op->n->js;
	uint32_t first = owner * JM_PER, b = first + 1 + js_below(js, JM_PER - 1);
	struct js_blk *c = &op->n->cache[b];

	if (c->freed) {
		if (js_chance(js, 1, 2))
			do_alloc(op, b);
	} else if (!op->freed && js_chance(js, 1, 4)) {
		do_free(op, b);
		if (js_chance(js, 1, 8)) {		/* and used again for metadata in the same transaction */
			op->freed = 0;
			do_alloc(op, b);
		}
	}
	for (uint32_t i = 0; i < JM_PER; i++)
		if (!op->n->cache[first + i].freed && js_chance(js, 1, 2))
			set_version(op, first + i);
}

/* A freed block is a file's now: data, flushed, that no replay may touch. */
static void write_data(struct js_node *n, uint32_t b)
{
	struct js *js = n->js;
	struct jm_life *l;
	uint8_t *buf = blk_alloc(CSV_BLOCK_SIZE);
	uint64_t data = ++js->data;

	jm_data_fill(buf, data);
	js->m.life[n->cache[b].life].data = data;
	if (!blk_write(n->blk, JM_BLK(b) * (uint64_t)CSV_BLOCK_SIZE, buf, CSV_BLOCK_SIZE) && !blk_flush(n->blk)) {
		l = &js->m.life[n->cache[b].life];
		l->data_at = sim_disk_recorded(js->disk);
		sim_world_count(js->w, "op.data", 1);
	}
	free(buf);
}

static bool one_op(struct js_node *n)
{
	struct js *js = n->js;
	struct op op = { .n = n };
	uint32_t o[2] = { js_below(js, JM_OWNERS), js_below(js, JM_OWNERS) }, k = o[0] == o[1] ? 1 : 2;
	bool ok = false;
	uint64_t seq;
	int r;

	if (o[0] > o[1]) {
		uint32_t x = o[0];

		o[0] = o[1];
		o[1] = x;
	}
	for (uint32_t i = 0; i < k; i++)
		if (!lock_get(n, o[i]))
			return false;
	r = jnl_begin(n->j, 2 * JM_PER, 4, &op.h);
	if (r < 0)
		return false;
	op.txn = jm_txn_new(&js->m, sim_disk_recorded(js->disk));
	for (uint32_t i = 0; i < k; i++)
		change_owner(&op, o[i]);
	if (js_chance(js, 1, 4)) {		/* a read in the middle, as a real operation may do */
		uint8_t *buf = blk_alloc(CSV_BLOCK_SIZE);

		blk_read(n->blk, JM_BLK(0) * (uint64_t)CSV_BLOCK_SIZE, buf, CSV_BLOCK_SIZE);
		free(buf);
	}
	seq = jnl_end(&op.h);
	if (n->n_undurable < ARRAY_SIZE(n->undurable)) {
		n->undurable[n->n_undurable] = op.txn;
		n->undurable_seq[n->n_undurable++] = seq;
	}
	js->ops++;
	sim_world_count(js->w, "op.transaction", 1);
	if (js_chance(js, 1, 4) || op.freed) {
		if (jnl_commit(n->j, seq) < 0)
			return false;
		note_durable(n);
		sim_world_count(js->w, "op.commit", 1);
		if (op.freed && js_chance(js, 3, 4))
			write_data(n, op.freed);
	}
	ok = true;
	for (uint32_t i = 0; i < k; i++)
		lock_put(n, o[i]);
	return ok;
}

void js_worker(void *arg)
{
	struct js_node *n = arg;
	struct js *js = n->js;

	while (!js->stop && one_op(n)) {
		if (js_chance(js, 1, 60)) {
			if (jnl_checkpoint(n->j, js_below(js, 20)) < 0)
				break;
			sim_world_count(js->w, "op.checkpoint", 1);
		}
		if (js_chance(js, 1, 3))
			nap(n);
	}
	n->workers--;
}
