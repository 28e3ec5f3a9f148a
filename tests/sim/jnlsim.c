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
#include "tests/sim/jnlsim.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "journal/mhdr.h"

#define WORKERS 3u
#define LOSSY_PER_WINDOW 20u
#define MUTANT_SEEDS 200u

void js_fail(struct js *js, const char *fmt, ...)
{
	va_list ap;

	if (js->failed)
		return;
	js->failed = js->stop = true;
	va_start(ap, fmt);
	vsnprintf(js->text, sizeof(js->text), fmt, ap);
	va_end(ap);
}

/* ---- lives of the nodes --------------------------------------------------------------------------------------------------------- */

static int slot_write(struct js_node *n, unsigned of, bool active, uint64_t incarnation)
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
	struct js_node *n = arg;
	struct js *js = n->js;
	struct jnl_config cfg = {
		.sched = sim_world_sched(js->w, n->id), .blk = n->blk, .failed = failed, .arg = n, .commit_interval_ms = 20,
		.mutate_no_revoke_on_release = js->no_revoke, .mutate_home_before_flush = js->home_early,
	};
	struct csv_err err = CSV_ERR_INIT;

	if (jnl_format(n->blk, &n->g, &err) < 0 || slot_write(n, n->id, true, n->g.incarnation) < 0)
		return;
	if (jnl_open(&cfg, &n->g, &n->j, &err) < 0) {
		js_fail(js, "node %u: %s", n->id, err.text);
		return;
	}
	n->state = N_UP;
	n->workers = WORKERS + 1;
	csv_assert(!sched_spawn(cfg.sched, "releaser", js_releaser, n));
	for (unsigned i = 0; i < WORKERS; i++)
		csv_assert(!sched_spawn(cfg.sched, "worker", js_worker, n));
}

static void boot(struct js_node *n)
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

static void power_cut(struct js_node *n)
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
			js->lock[o] = (struct js_lock){ 0 };
}

struct recovery { struct js_node *by, *dead; };

static void recover_main(void *arg)
{
	static const struct jnl_replay_limits lim = { .total_blk = JM_TOTAL, .data_start_blk = JM_DATA };
	struct recovery *rec = arg;
	struct js_node *by = rec->by, *dead = rec->dead;
	struct js *js = by->js;
	struct jnl_geometry g = dead->g;
	struct csv_err err = CSV_ERR_INIT;
	struct jnl_replay_stats st = { 0 };
	uint8_t *buf = blk_alloc(CSV_BLOCK_SIZE);
	int r;

	r = blk_read(by->blk, JM_SLOT_BLK(g.slot) * (uint64_t)CSV_BLOCK_SIZE, buf, CSV_BLOCK_SIZE);
	if (!r && mhdr_check(buf, g.uuid, CSV_MAGIC_SLOT, JM_SLOT_BLK(g.slot), NULL, &err))
		js_fail(js, "recovery of node %u: %s", dead->id, err.text);
	if (!r && le32_get(((struct csv_slot *)buf)->state) == CSV_SLOT_ACTIVE) {
		r = jnl_replay(by->blk, &g, &lim, NULL, &st, &err);
		if (r == -CSV_E_CORRUPT)
			js_fail(js, "recovery of node %u: %s", dead->id, err.text);
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
		struct js_node *dead = &js->node[i];

		if (dead->state != N_DEAD)
			continue;
		for (unsigned k = 1; k <= JM_NODES; k++) {
			struct js_node *by = &js->node[k];

			if (by->state != N_UP || by->recovering)
				continue;
			/* the others' view of the death takes its time; ghosts come meanwhile */
			if (!js_chance(js, 1, 600))
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
	struct js_node *n = &js->node[1 + js_below(js, JM_NODES)];

	if (n->state == N_UP && js_chance(js, 1, 3000)) {
		power_cut(n);
	} else if (n->state == N_UP && js_chance(js, 1, 20000)) {
		sim_disk_fail_at(js->disk, n->id, 1 + js_below(js, 20), -EIO);
	} else if (n->state == N_UP && !n->workers) {
		power_cut(n);			/* withdrawn after an error */
	} else if (n->state == N_BOOTING && js_chance(js, 1, 20000)) {
		power_cut(n);
	}
	if (!being_recovered(js))
		recover_one(js, rec);
	if (n->state == N_DOWN && js_chance(js, 1, 300))
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
		js_fail(js, "%s image after write %u of %u: %s", kind, at, sim_disk_recorded(js->disk), text);
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
		struct js_node *n = &js->node[i];

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
		js_fail(js, "nothing moves after %u operations", js->ops);
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
