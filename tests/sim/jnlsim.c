/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jnlsim - three nodes, their journals and nothing else, on the simulated shared disk.
 *
 * Workers on each node run random transactions over blocks whose owners they hold exclusively; an owner that another node wants is
 * released (jnl_release) and handed over.  Nodes lose power at any step, ghosts of their writes land until they are fenced, a
 * survivor replays their journal, they come back.  The whole stream of writes is recorded; afterwards the device is
 * materialised after every write, and with random allowed losses in every flush window, and must satisfy the model
 * (jnlsim_model.h) after replay of all journals.
 *
 *	jnlsim [--seeds FIRST-LAST] [--ops N] [--mutate no-revoke|home-before-flush] [--verbose]
 *
 * Without arguments: 30 seeds, then each mutation, which must be caught.
 */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "journal/journal.h"
#include "journal/mhdr.h"
#include "tests/sim/jnlsim_model.h"
#include "tests/sim/sim_disk.h"
#include "utils/base/base.h"

#define WORKERS 3u
#define LOSSY_PER_WINDOW 20u
#define MUTANT_SEEDS 200u

enum node_state { N_DOWN, N_BOOTING, N_UP, N_DEAD /* until its journal is replayed */, N_DONE };

struct cblk { struct jnl_buf jb; uint32_t version, life; bool freed, valid; uint8_t data[CSV_BLOCK_SIZE]; };

struct node {
	struct js *js;
	unsigned id, workers;
	enum node_state state;
	struct blk *blk;
	struct jnl *j;
	struct jnl_geometry g;
	uint8_t *slot_buf;
	struct cblk *cache;		/* JM_BLOCKS */
	bool recovering;		/* it replays somebody's journal */
	uint32_t undurable[512], n_undurable;	/* its transactions, with ... */
	uint64_t undurable_seq[512];		/* ... their sequences */
};

struct lock { unsigned holder; bool in_use, wanted; };

struct js {
	struct sim_world *w;
	struct sim_disk *disk;
	struct jm m;
	struct node node[JM_NODES + 1];
	struct lock lock[JM_OWNERS];
	uint64_t gen, incarnation, data;
	uint32_t ops, ops_max;
	bool stop, failed, no_revoke, home_early;
	char text[600];
	uint64_t images, lossy;
};

static void fail(struct js *js, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct js *js, const char *fmt, ...)
{
	va_list ap;

	if (js->failed)
		return;
	js->failed = js->stop = true;
	va_start(ap, fmt);
	vsnprintf(js->text, sizeof(js->text), fmt, ap);
	va_end(ap);
}

static uint64_t below(struct js *js, uint64_t n)
{
	return sim_world_below(js->w, n);
}

static bool chance(struct js *js, unsigned num, unsigned den)
{
	return sim_world_chance(js->w, num, den);
}

static void nap(struct node *n)
{
	coro_sleep_ns(sim_world_sched(n->js->w, n->id), 50000 + below(n->js, 200000));
}

static struct jm_content *content(struct cblk *c)
{
	return (struct jm_content *)(c->data + sizeof(struct csv_mhdr));
}

/* ---- locks and cache ---------------------------------------------------------------------------------------------------- */

/* What was durable when the lock came must be there: the model's check on images says whether it is the right version. */
static int load_owner(struct node *n, uint32_t owner)
{
	struct js *js = n->js;
	uint8_t *buf = blk_alloc(CSV_BLOCK_SIZE);
	struct cblk *anchor = &n->cache[owner * JM_PER];
	struct csv_err err = CSV_ERR_INIT;
	int r = 0;

	for (uint32_t i = 0; i < JM_PER && !r; i++) {
		uint32_t b = owner * JM_PER + i;
		struct cblk *c = &n->cache[b];
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
			fail(js, "node %u got owner %u: %s", n->id, owner, err.text);
			break;
		}
		memcpy(c->data, buf, CSV_BLOCK_SIZE);
		c->version = le64_get(content(c)->version);
		if (c->version >= js->m.n_ver || js->m.ver[c->version].b != b) {
			fail(js, "node %u: block %u has version %u, never written there", n->id, b, c->version);
			r = -EIO;
		}
	}
	free(buf);
	return r;
}

static void drop_owner(struct node *n, uint32_t owner)
{
	for (uint32_t i = 0; i < JM_PER; i++) {
		struct cblk *c = &n->cache[owner * JM_PER + i];

		csv_assert(!c->valid || !jnl_buf_busy(&c->jb));
		c->valid = false;
	}
}

/* false: the node is about to die. */
static bool lock_get(struct node *n, uint32_t owner)
{
	struct js *js = n->js;
	struct lock *l = &js->lock[owner];

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

static void lock_put(struct node *n, uint32_t owner)
{
	csv_assert(n->js->lock[owner].holder == n->id);
	n->js->lock[owner].in_use = false;
}

/* Everything of this node up to the journal's stable sequence is durable from now on. */
static void note_durable(struct node *n)
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

static void releaser(void *arg)
{
	struct node *n = arg;
	struct js *js = n->js;

	while (!js->stop) {
		struct csv_owner owner[JM_OWNERS];
		uint32_t which[JM_OWNERS], k = 0;

		for (uint32_t o = 0; o < JM_OWNERS; o++) {
			struct lock *l = &js->lock[o];

			if (l->holder != n->id || l->in_use || !(l->wanted || chance(js, 1, 100)))
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
				fail(js, "owner %u is busy after its release", which[i]);
			drop_owner(n, which[i]);
			js->lock[which[i]] = (struct lock){ 0 };
		}
		nap(n);
	}
	n->workers--;
}

/* ---- operations ------------------------------------------------------------------------------------------------------------- */

struct op { struct node *n; struct jnl_handle h; uint32_t txn; uint32_t freed, n_blocks; uint32_t b[JM_TXN_MAX]; };

static void set_version(struct op *op, uint32_t b)
{
	struct js *js = op->n->js;
	struct cblk *c = &op->n->cache[b];
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
	struct cblk *c = &op->n->cache[b], *anchor = &op->n->cache[b - b % JM_PER];

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
	struct cblk *c = &op->n->cache[b], *anchor = &op->n->cache[b - b % JM_PER];

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
	uint32_t first = owner * JM_PER, b = first + 1 + below(js, JM_PER - 1);
	struct cblk *c = &op->n->cache[b];

	if (c->freed) {
		if (chance(js, 1, 2))
			do_alloc(op, b);
	} else if (!op->freed && chance(js, 1, 4)) {
		do_free(op, b);
		if (chance(js, 1, 8)) {		/* and used again for metadata in the same transaction */
			op->freed = 0;
			do_alloc(op, b);
		}
	}
	for (uint32_t i = 0; i < JM_PER; i++)
		if (!op->n->cache[first + i].freed && chance(js, 1, 2))
			set_version(op, first + i);
}

/* A freed block is a file's now: data, flushed, that no replay may touch. */
static void write_data(struct node *n, uint32_t b)
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

static bool one_op(struct node *n)
{
	struct js *js = n->js;
	struct op op = { .n = n };
	uint32_t o[2] = { below(js, JM_OWNERS), below(js, JM_OWNERS) }, k = o[0] == o[1] ? 1 : 2;
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
	if (chance(js, 1, 4)) {		/* a read in the middle, as a real operation may do */
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
	if (chance(js, 1, 4) || op.freed) {
		if (jnl_commit(n->j, seq) < 0)
			return false;
		note_durable(n);
		sim_world_count(js->w, "op.commit", 1);
		if (op.freed && chance(js, 3, 4))
			write_data(n, op.freed);
	}
	ok = true;
	for (uint32_t i = 0; i < k; i++)
		lock_put(n, o[i]);
	return ok;
}

static void worker(void *arg)
{
	struct node *n = arg;
	struct js *js = n->js;

	while (!js->stop && one_op(n)) {
		if (chance(js, 1, 60)) {
			if (jnl_checkpoint(n->j, below(js, 20)) < 0)
				break;
			sim_world_count(js->w, "op.checkpoint", 1);
		}
		if (chance(js, 1, 3))
			nap(n);
	}
	n->workers--;
}

/* ---- lives of the nodes --------------------------------------------------------------------------------------------------------- */

static int slot_write(struct node *n, unsigned of, bool active, uint64_t incarnation)
{
	int r;

	jm_slot_fill(&n->js->m, n->slot_buf, of - 1, active, incarnation);
	r = blk_write(n->blk, JM_SLOT_BLK(of - 1) * (uint64_t)CSV_BLOCK_SIZE, n->slot_buf, 512);
	return r ? r : blk_flush(n->blk);
}

static void failed(void *arg, int err, const char *what)
{
	(void)arg;
	(void)err;
	(void)what;
}

static void boot_main(void *arg)
{
	struct node *n = arg;
	struct js *js = n->js;
	struct jnl_config cfg = {
		.sched = sim_world_sched(js->w, n->id), .blk = n->blk, .failed = failed, .arg = n, .commit_interval_ms = 20,
		.mutate_no_revoke_on_release = js->no_revoke, .mutate_home_before_flush = js->home_early,
	};
	struct csv_err err = CSV_ERR_INIT;

	if (jnl_format(n->blk, &n->g, &err) < 0 || slot_write(n, n->id, true, n->g.incarnation) < 0)
		return;
	if (jnl_open(&cfg, &n->g, &n->j, &err) < 0) {
		fail(js, "node %u: %s", n->id, err.text);
		return;
	}
	n->state = N_UP;
	n->workers = WORKERS + 1;
	csv_assert(!sched_spawn(cfg.sched, "releaser", releaser, n));
	for (unsigned i = 0; i < WORKERS; i++)
		csv_assert(!sched_spawn(cfg.sched, "worker", worker, n));
}

static void boot(struct node *n)
{
	struct js *js = n->js;

	sim_disk_unfence(js->disk, n->id);
	sim_world_boot(js->w, n->id);
	n->blk = sim_disk_blk(js->disk, n->id);
	n->g = (struct jnl_geometry){
		.slot = n->id - 1, .start_blk = JM_JNL_BLK(n->id - 1), .len_blk = JM_JNL_LEN, .incarnation = ++js->incarnation,
	};
	memcpy(n->g.uuid, js->m.uuid, 16);
	n->state = N_BOOTING;
	n->recovering = false;
	n->n_undurable = 0;
	memset(n->cache, 0, JM_BLOCKS * sizeof(*n->cache));
	csv_assert(!sched_spawn(sim_world_sched(js->w, n->id), "boot", boot_main, n));
}

static void power_cut(struct node *n)
{
	struct js *js = n->js;

	jnl_free(n->j);
	n->j = NULL;
	sim_world_power_cut(js->w, n->id);
	/* Whoever replayed for somebody else: that one is still to be recovered. */
	n->state = N_DEAD;
	n->recovering = false;
	sim_world_count(js->w, "fault.power_cut", 1);
}

static void locks_free(struct js *js, unsigned node)
{
	for (uint32_t o = 0; o < JM_OWNERS; o++)
		if (js->lock[o].holder == node)
			js->lock[o] = (struct lock){ 0 };
}

struct recovery { struct node *by, *dead; };

static void recover_main(void *arg)
{
	static const struct jnl_replay_limits lim = { .total_blk = JM_TOTAL, .data_start_blk = JM_DATA };
	struct recovery *rec = arg;
	struct node *by = rec->by, *dead = rec->dead;
	struct js *js = by->js;
	struct jnl_geometry g = dead->g;
	struct csv_err err = CSV_ERR_INIT;
	struct jnl_replay_stats st = { 0 };
	uint8_t *buf = blk_alloc(CSV_BLOCK_SIZE);
	int r;

	r = blk_read(by->blk, JM_SLOT_BLK(g.slot) * (uint64_t)CSV_BLOCK_SIZE, buf, CSV_BLOCK_SIZE);
	if (!r && mhdr_check(buf, g.uuid, CSV_MAGIC_SLOT, JM_SLOT_BLK(g.slot), NULL, &err))
		fail(js, "recovery of node %u: %s", dead->id, err.text);
	if (!r && le32_get(((struct csv_slot *)buf)->state) == CSV_SLOT_ACTIVE) {
		r = jnl_replay(by->blk, &g, &lim, NULL, &st, &err);
		if (r == -CSV_E_CORRUPT)
			fail(js, "recovery of node %u: %s", dead->id, err.text);
		if (!r)
			r = slot_write(by, dead->id, false, g.incarnation + 1);
	} else if (!r) {
		/* Somebody before us replayed it, and may have died before its FLUSH. */
		r = blk_flush(by->blk);
	}
	free(buf);
	by->recovering = false;
	if (!r) {
		sim_world_count(js->w, "op.replay", 1);
		sim_world_count(js->w, "replay.written", st.blocks_written);
		sim_world_count(js->w, "replay.revoked", st.skipped_revoked);
		sim_world_count(js->w, "replay.newer", st.skipped_newer);
		locks_free(js, dead->id);
		dead->state = N_DOWN;
	}
}

static void recover_one(struct js *js, struct recovery *rec)
{
	for (unsigned i = 1; i <= JM_NODES; i++) {
		struct node *dead = &js->node[i];

		if (dead->state != N_DEAD)
			continue;
		for (unsigned k = 1; k <= JM_NODES; k++) {
			struct node *by = &js->node[k];

			if (by->state != N_UP || by->recovering)
				continue;
			/* the others' view of the death takes its time; ghosts come meanwhile */
			if (!chance(js, 1, 600))
				return;
			sim_disk_fence(js->disk, dead->id);
			by->recovering = true;
			rec[i] = (struct recovery){ by, dead };
			for (unsigned x = 1; x <= JM_NODES; x++)
				if (x != i && js->node[x].recovering && rec[x].by == by)
					rec[x].by = NULL;
			csv_assert(!sched_spawn(sim_world_sched(js->w, by->id), "recover", recover_main, &rec[i]));
			return;
		}
	}
}

static bool anybody(struct js *js, enum node_state st)
{
	for (unsigned i = 1; i <= JM_NODES; i++)
		if (js->node[i].state == st)
			return true;
	return false;
}

static bool being_recovered(struct js *js)
{
	for (unsigned i = 1; i <= JM_NODES; i++)
		if (js->node[i].recovering)
			return true;
	return false;
}

/* Between steps: deaths, errors, recoveries, boots. */
static void chaos(struct js *js, struct recovery *rec)
{
	struct node *n = &js->node[1 + below(js, JM_NODES)];

	if (n->state == N_UP && chance(js, 1, 3000)) {
		power_cut(n);
	} else if (n->state == N_UP && chance(js, 1, 20000)) {
		sim_disk_fail_at(js->disk, n->id, 1 + below(js, 20), -EIO);
	} else if (n->state == N_UP && !n->workers) {
		power_cut(n);			/* withdrawn after an error */
	} else if (n->state == N_BOOTING && chance(js, 1, 20000)) {
		power_cut(n);
	}
	if (!being_recovered(js))
		recover_one(js, rec);
	if (n->state == N_DOWN && chance(js, 1, 300))
		boot(n);
	/* All dead: somebody comes back with an incarnation of its own only after the others' slots are clean. */
	if (!anybody(js, N_UP) && !anybody(js, N_BOOTING) && !anybody(js, N_DOWN))
		js->stop = true;
}

/* ---- after the run ---------------------------------------------------------------------------------------------------------------- */

static bool check_image(struct js *js, struct sim_store *image, uint32_t at, const char *kind)
{
	char text[500];
	bool ok = jm_check(&js->m, image, at, text, sizeof(text));

	if (!ok)
		fail(js, "%s image after write %u of %u: %s", kind, at, sim_disk_recorded(js->disk), text);
	sim_store_free(image);
	return ok;
}

static bool check_stream(struct js *js)
{
	struct sim_cursor *c = sim_cursor_new(js->disk);
	struct csv_prng p;
	bool ok;

	csv_prng_init(&p, sim_disk_recorded(js->disk));
	do {
		uint32_t writes = sim_cursor_window(c), n = writes ? csv_div_round_up(LOSSY_PER_WINDOW, writes) : 0;

		ok = check_image(js, sim_cursor_image(c), sim_cursor_at(c), "prefix");
		js->images++;
		for (uint32_t i = 0; ok && sim_cursor_volatile(c) && i < n; i++) {
			ok = check_image(js, sim_cursor_image_lossy(c, &p), sim_cursor_at(c), "lossy");
			js->lossy++;
		}
	} while (ok && sim_cursor_next(c));
	sim_cursor_free(c);
	return ok;
}

static bool run_seed(uint64_t seed, uint32_t ops, int mutant, bool verbose, struct sim_counters *total, char *ret_text, size_t size,
		     uint64_t *ret_images)
{
	struct sim_disk_config cfg = { .size_bytes = (uint64_t)JM_TOTAL * CSV_BLOCK_SIZE, .write_ns = 400000, .ghost_ns = 3 * NS_PER_MS };
	struct recovery rec[JM_NODES + 1] = { 0 };
	struct js *js = calloc(1, sizeof(*js));
	uint32_t idle = 0;
	bool ok;

	csv_assert(js);
	js->w = sim_world_new(seed, JM_NODES);
	sim_world_verbose(js->w, verbose);
	js->ops_max = ops;
	js->no_revoke = mutant == 1;
	js->home_early = mutant == 2;
	js->gen = 1;
	js->incarnation = 10;
	jm_init(&js->m);
	js->disk = sim_disk_new(js->w, &cfg, NULL);
	jm_mkfs(&js->m, sim_disk_store(js->disk));
	sim_disk_record(js->disk);
	for (unsigned i = 1; i <= JM_NODES; i++) {
		struct node *n = &js->node[i];

		n->js = js;
		n->id = i;
		n->cache = calloc(JM_BLOCKS, sizeof(*n->cache));
		n->slot_buf = blk_alloc(CSV_BLOCK_SIZE);
		boot(n);
	}
	/* When nothing moves by itself, the dice of chaos() do: somebody is booted, recovered or cut. */
	while (!js->stop && js->ops < js->ops_max && idle < 1000000) {
		idle = sim_world_step(js->w) ? 0 : idle + 1;
		chaos(js, rec);
	}
	if (!js->failed && js->ops < js->ops_max && anybody(js, N_UP))
		fail(js, "nothing moves after %u operations", js->ops);
	/* The power goes everywhere. */
	for (unsigned i = 1; i <= JM_NODES; i++)
		if (sim_world_is_up(js->w, i))
			power_cut(&js->node[i]);
	ok = !js->failed && check_stream(js);
	if (ok) {
		sim_disk_power_loss(js->disk);
		sim_world_count(js->w, "fault.power_loss", 1);
		if (!jm_check(&js->m, sim_disk_store(js->disk), JM_NEVER - 1, js->text, sizeof(js->text)))
			ok = false;
	}
	sim_counters_add(total, sim_world_counters(js->w));
	snprintf(ret_text, size, "%s", js->text);
	*ret_images += js->images + js->lossy;
	for (unsigned i = 1; i <= JM_NODES; i++) {
		free(js->node[i].cache);
		free(js->node[i].slot_buf);
	}
	sim_disk_free(js->disk);
	sim_world_free(js->w);
	jm_done(&js->m);
	free(js);
	return ok;
}

static const char *const mutants[] = { "none", "no-revoke", "home-before-flush" };

static bool run_seeds(uint64_t first, uint64_t last, uint32_t ops, bool verbose)
{
	static const char *const want[] = {
		"op.transaction", "op.commit", "op.release", "op.free", "op.alloc", "op.data", "op.checkpoint", "op.replay",
		"fault.power_cut", "fault.ghost_write", "fault.disk_error", "fault.power_loss", "replay.written", "replay.revoked",
		"replay.newer",
	};
	struct sim_counters total = { 0 };
	uint64_t images = 0;
	char text[700];

	for (uint64_t seed = first; seed <= last; seed++)
		if (!run_seed(seed, ops, 0, verbose, &total, text, sizeof(text), &images)) {
			printf("FAIL seed %" PRIu64 ": %s\n  again: tests/sim/jnlsim --seeds %" PRIu64 "-%" PRIu64 " --ops %u\n", seed, text, seed,
			       seed, ops);
			return false;
		}
	sim_counters_print(&total, "jnlsim ");
	printf("jnlsim: %" PRIu64 " seeds, %" PRIu64 " device images replayed and checked\n", last - first + 1, images);
	/* One seed run again need not have all. */
	for (unsigned i = 0; i < ARRAY_SIZE(want) && last - first + 1 >= 30; i++)
		sim_counters_want(&total, want[i]);
	if (sim_counters_missing(&total)) {
		printf("FAIL: no %s in any seed\n", sim_counters_missing(&total));
		return false;
	}
	return true;
}

static bool run_mutant(int mutant, uint32_t ops)
{
	struct sim_counters total = { 0 };
	uint64_t images = 0;
	char text[700];

	for (uint64_t seed = 1; seed <= MUTANT_SEEDS; seed++)
		if (!run_seed(seed, ops, mutant, false, &total, text, sizeof(text), &images)) {
			printf("mutation %s: caught at seed %" PRIu64 ": %s\n", mutants[mutant], seed, text);
			return true;
		}
	printf("FAIL: mutation %s was not caught in %u seeds\n", mutants[mutant], MUTANT_SEEDS);
	return false;
}

/* A power cut forgets suspended coroutines with all they had allocated: no leak, but the point. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

int main(int argc, char **argv)
{
	uint64_t first = 1, last = 30;
	uint32_t ops = 40;
	int mutant = -1;
	bool verbose = false, seeds = false, ok = true;

	/* Thousands of images: do not give memory back to the kernel each time. */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--seeds") && i + 1 < argc) {
			if (sscanf(argv[++i], "%" SCNu64 "-%" SCNu64, &first, &last) < 2)
				last = first;
			seeds = true;
		} else if (!strcmp(argv[i], "--ops") && i + 1 < argc) {
			ops = atoi(argv[++i]);
		} else if (!strcmp(argv[i], "--mutate") && i + 1 < argc) {
			i++;
			for (int k = 1; k < (int)ARRAY_SIZE(mutants); k++)
				if (!strcmp(argv[i], mutants[k]))
					mutant = k;
		} else if (!strcmp(argv[i], "--verbose")) {
			verbose = true;
		} else {
			fprintf(stderr, "usage: jnlsim [--seeds FIRST-LAST] [--ops N] [--mutate no-revoke|home-before-flush] [--verbose]\n");
			return 2;
		}
	}
	if (mutant > 0)
		return run_mutant(mutant, ops) ? 0 : 1;
	ok = run_seeds(first, last, ops, verbose);
	for (int k = 1; k < (int)ARRAY_SIZE(mutants) && !seeds; k++)
		ok = run_mutant(k, ops) && ok;
	return ok ? 0 : 1;
}
