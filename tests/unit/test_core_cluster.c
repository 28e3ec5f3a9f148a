/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Three nodes change one tree at the same time; nodes lose power and come back.  Afterwards: what was fsynced is there, nothing was
 * ever called corrupt, and when everything is removed every block is free again.
 */
#include "tests/unit/core_world.h"

#include <sys/stat.h>

#include "csvfs/check/check.h"

/* Nodes die here in the middle of coroutines, whose memory nobody frees then: not a leak of the core. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

#define NODES 3
#define DIRS 3
#define NAMES 12
#define DATA_MAX (200u * 1024)

static struct csv_prng prng;
static uint64_t dir_ino[DIRS], free_at_first, ops, creates, unlinks, renames, writes, cuts;
static uint32_t dir_gen[DIRS];
static bool stop_all;
static unsigned running;

static bool expected(int err)
{
	return err == 0 || err == -ENOENT || err == -EEXIST || err == -ESTALE || err == -EAGAIN || err == -ENOTEMPTY;
}

static void name_of(char *ret, size_t size, unsigned i)
{
	snprintf(ret, size, "file-%u", i);
}

static int one_op(struct csvfs *fs, struct csv_prng *p, uint8_t *buf)
{
	unsigned d = (unsigned)csv_prng_below(p, DIRS), d2 = (unsigned)csv_prng_below(p, DIRS);
	char a[32], b[32];
	struct csvfs_attr at;
	int err;

	name_of(a, sizeof(a), (unsigned)csv_prng_below(p, NAMES));
	name_of(b, sizeof(b), (unsigned)csv_prng_below(p, NAMES));
	switch (csv_prng_below(p, 8)) {
	case 0:
	case 1:
		err = csvfs_create(fs, dir_ino[d], dir_gen[d], a, S_IFREG | 0644, 0, 0, 0, false, &at);
		creates += !err;
		return err;
	case 2:
		err = csvfs_unlink(fs, dir_ino[d], dir_gen[d], a);
		unlinks += !err;
		return err;
	case 3:
		err = csvfs_rename(fs, dir_ino[d], dir_gen[d], a, dir_ino[d2], dir_gen[d2], b, 0);
		renames += !err;
		return err;
	case 4:
		err = csvfs_lookup(fs, dir_ino[d], dir_gen[d], a, &at);
		return err ? err : csvfs_getattr(fs, at.ino, at.gen, &at);
	default:
		err = csvfs_lookup(fs, dir_ino[d], dir_gen[d], a, &at);
		if (!err)
			err = csvfs_open(fs, at.ino, at.gen);
		if (err)
			return err;
		{
			uint64_t off = csv_prng_below(p, DATA_MAX), len = 1 + csv_prng_below(p, DATA_MAX / 2);
			ssize_t done = csvfs_write(fs, at.ino, at.gen, off, buf, len, 0, NULL);

			err = done < 0 ? (int)done : 0;
			writes += !err;
			if (!err && csv_prng_chance(p, 1, 3)) {
				struct csvfs_attr set = { .size = csv_prng_below(p, DATA_MAX) };

				err = csvfs_setattr(fs, at.ino, at.gen, &set, CSVFS_SET_SIZE, &at);
			}
			if (!err && csv_prng_chance(p, 1, 4))
				err = csvfs_fsync(fs, at.ino, at.gen, false);
		}
		csvfs_release(fs, at.ino);
		return err;
	}
}

static void work_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csv_prng p;
	uint8_t *buf = calloc(1, DATA_MAX);

	csv_prng_fork(&prng, &p);
	while (!stop_all) {
		int err = one_op(n->fs, &p, buf);

		ck_assert_msg(expected(err), "node %u: %d\n%s", n->id, err, cw.all_log);
		ops++;
		coro_sleep_ns(n->env.sched, 1 + csv_prng_below(&p, 300000));
	}
	free(buf);
	running--;
	n->done = true;
}

static void dirs_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csvfs_attr a;
	char name[16];

	for (unsigned i = 0; i < DIRS; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		ck_assert_int_eq(csvfs_create(n->fs, csvfs_root_ino(n->fs), 0, name, S_IFDIR | 0755, 0, 0, 0, false, &a), 0);
		dir_ino[i] = a.ino;
		dir_gen[i] = a.gen;
	}
	ck_assert_int_eq(csvfs_sync(n->fs), 0);
	n->done = true;
}

static void free_coro(void *arg)
{
	struct cw_node *n = arg;

	ck_assert_int_eq(alloc_count_free(n->fs, true, &free_at_first), 0);
	n->done = true;
}

static void remove_all_coro(void *arg)
{
	struct cw_node *n = arg;

	for (unsigned d = 0; d < DIRS; d++) {
		for (unsigned i = 0; i < NAMES; i++) {
			char name[32];
			int err;

			name_of(name, sizeof(name), i);
			err = csvfs_unlink(n->fs, dir_ino[d], dir_gen[d], name);
			ck_assert_msg(err == 0 || err == -ENOENT, "unlink %s: %d\n%s", name, err, cw.all_log);
		}
		{
			char name[16];

			snprintf(name, sizeof(name), "d%u", d);
			ck_assert_int_eq(csvfs_rmdir(n->fs, csvfs_root_ino(n->fs), 0, name), 0);
		}
	}
	n->done = true;
}

static void mount_and_work(unsigned id)
{
	cw_mount(id);
	running++;
	cw_start(id, work_coro);
}

static struct check_result checked;
static char findings[4096];

static void finding(void *arg, enum check_level level, const char *line)
{
	size_t at = strlen(findings);

	(void)arg;
	if (level == CHECK_ERROR)
		snprintf(findings + at, sizeof(findings) - at, "%s\n", line);
}

static void check_coro(void *arg)
{
	struct check_options o = { .report = finding };
	struct cw_node *n = arg;

	n->ret = check_volume(&n->blk, &o, &checked, &n->err);
	n->done = true;
}

/* On node 4, which mounts nothing. */
static void check_disk(uint64_t seed)
{
	findings[0] = 0;
	cw_boot(4);
	cw_do(4, check_coro);
	ck_assert_msg(cw_n(4)->ret == 0, "%s", cw_n(4)->err.text);
	ck_assert_msg(checked.errors == 0, "seed %" PRIu64 ": %" PRIu64 " findings:\n%s\n%s", seed, checked.errors, findings, cw.all_log);
	cw_off(4, false);
}

/* `lives`: power cuts in the run. */
static void run(uint64_t seed, unsigned lives)
{
	uint64_t before, after;

	cw_setup();
	csv_prng_init(&prng, seed);
	ops = creates = unlinks = renames = writes = cuts = 0;
	stop_all = false;
	running = 0;
	for (unsigned id = 1; id <= NODES; id++)
		cw_mount(id);
	cw_settle(1000);
	cw_do(1, free_coro);
	before = free_at_first;
	cw_do(1, dirs_coro);
	for (unsigned id = 1; id <= NODES; id++) {
		running++;
		cw_start(id, work_coro);
	}
	for (unsigned i = 0; i < lives; i++) {
		unsigned id = 1 + (unsigned)csv_prng_below(&prng, NODES);

		cw_settle(1 + csv_prng_below(&prng, 300));
		running--;
		if (csv_prng_chance(&prng, 1, 3)) {
			cw_process_dies(id);
		} else {
			if (csv_prng_chance(&prng, 1, 2)) {
				cw_n(id)->hold_writes = true;	/* some of its writes never arrive */
				cw_settle(csv_prng_below(&prng, 20));
			}
			if (csv_prng_chance(&prng, 1, 2))
				cw_land_some(cw_n(id), &prng);
			cw_power_cut(id);
		}
		cuts++;
		cw_settle(csv_prng_below(&prng, 400));
		mount_and_work(id);
	}
	cw_settle(300);
	stop_all = true;
	for (unsigned id = 1; id <= NODES; id++)
		ck_assert_msg(cw_run(60000, cw_is_done, cw_n(id)), "node %u hangs\n%s", id, cw.all_log);
	cw_do(2, remove_all_coro);
	cw_settle(20000);
	cw_do(3, free_coro);
	after = free_at_first;
	ck_assert_msg(!cw_logged("run fsck.csvfs"), "%s", cw.all_log);
	ck_assert_msg(!cw_logged("withdrawn"), "%s", cw.all_log);
	ck_assert_msg(after == before, "seed %" PRIu64 ": %" PRIu64 " blocks free at first, %" PRIu64 " at the end\n%s", seed, before, after,
		      cw.all_log);
	for (unsigned id = 1; id <= NODES; id++)
		cw_umount(id);
	check_disk(seed);
	ck_assert_uint_eq(checked.slots_active, 0);
	printf("seed %" PRIu64 ": %" PRIu64 " operations (%" PRIu64 " creates, %" PRIu64 " unlinks, %" PRIu64 " renames, %" PRIu64
	       " writes), %" PRIu64 " nodes died, %u fenced\n", seed, ops, creates, unlinks, renames, writes, cuts, cw.fence_calls);
	ck_assert_uint_gt(creates, 0);
	ck_assert_uint_gt(unlinks, 0);
	ck_assert_uint_gt(renames, 0);
	ck_assert_uint_gt(writes, 0);
	cw_teardown();
}

START_TEST(three_nodes_change_one_tree_and_every_block_comes_back)
{
	run((uint64_t)_i + 1, 0);
}
END_TEST

START_TEST(nodes_that_die_and_come_back_lose_and_leak_nothing)
{
	run((uint64_t)_i + 100 + (getenv("CW_SEED") ? strtoull(getenv("CW_SEED"), NULL, 10) : 0), 6);
}
END_TEST

/* The whole cluster loses power in the middle; of what was on its way some arrives.  Replay in memory alone must give a clean volume (G2). */
START_TEST(after_a_power_cut_of_all_nodes_replay_alone_gives_a_clean_volume)
{
	uint64_t seed = (uint64_t)_i + 200 + (getenv("CW_SEED") ? strtoull(getenv("CW_SEED"), NULL, 10) : 0);

	cw_setup();
	csv_prng_init(&prng, seed);
	stop_all = false;
	for (unsigned id = 1; id <= NODES; id++)
		cw_mount(id);
	cw_do(1, dirs_coro);
	for (unsigned id = 1; id <= NODES; id++)
		cw_start(id, work_coro);
	cw_settle(50 + csv_prng_below(&prng, 600));
	for (unsigned id = 1; id <= NODES; id++)
		cw_n(id)->hold_writes = true;
	cw_settle(csv_prng_below(&prng, 20));
	for (unsigned id = 1; id <= NODES; id++) {
		cw_land_some(cw_n(id), &prng);
		cw_off(id, false);
	}
	check_disk(seed);
	printf("seed %" PRIu64 ": %" PRIu64 " files, %" PRIu64 " orphans, %" PRIu64 " records of %u journals replayed in memory\n", seed,
	       checked.files, checked.orphans, checked.records, checked.slots_active);
	ck_assert_uint_eq(checked.slots_active, NODES);
	cw_mount(2);
	cw_settle(20000);
	cw_do(2, remove_all_coro);
	cw_umount(2);
	check_disk(seed);
	ck_assert_uint_eq(checked.files + checked.orphans, 0);
	cw_teardown();
}
END_TEST

UNIT_MAIN("core_cluster", UNIT_LOOP(three_nodes_change_one_tree_and_every_block_comes_back, 0, 4),
	  UNIT_LOOP(nodes_that_die_and_come_back_lose_and_leak_nothing, 0, 6),
	  UNIT_LOOP(after_a_power_cut_of_all_nodes_replay_alone_gives_a_clean_volume, 0, 6))
