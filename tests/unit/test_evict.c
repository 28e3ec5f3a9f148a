/* SPDX-License-Identifier: GPL-2.0-only */
/* Members that cannot reach each other: who goes, and that this one goes and nobody else (csvfs/evict.c). */
#include "tests/unit/core_world.h"

#include <sys/stat.h>

/* Nodes end here in the middle of coroutines, whose memory nobody frees then: not a leak of the core. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

#define BIT(place) (1ull << (place))

/* ---- who goes ----------------------------------------------------------------------------------------------------------------------- */

START_TEST(nobody_goes_when_nobody_complains)
{
	uint64_t report[3] = { 0 };

	ck_assert_uint_eq(evict_choose(report, 0, 0, 3), 0);
	ck_assert_uint_eq(evict_choose(report, BIT(1), 0, 3), 0);
}
END_TEST

START_TEST(of_two_who_cannot_reach_each_other_the_higher_goes_whoever_complains)
{
	uint64_t low[3] = { BIT(2), 0, 0 }, high[3] = { 0, 0, BIT(0) }, both[3] = { BIT(2), 0, BIT(0) };

	ck_assert_uint_eq(evict_choose(low, 0, 0, 3), BIT(2));
	ck_assert_uint_eq(evict_choose(high, 0, 0, 3), BIT(2));
	ck_assert_uint_eq(evict_choose(both, 0, 0, 3), BIT(2));
}
END_TEST

START_TEST(who_is_not_mounted_yet_goes_before_those_who_are)
{
	uint64_t joiner[3] = { BIT(2), 0, BIT(0) }, alone[4] = { BIT(1) | BIT(2) | BIT(3), BIT(0), BIT(0), BIT(0) };

	ck_assert_uint_eq(evict_choose(joiner, BIT(0), 0, 3), BIT(0));
	ck_assert_uint_eq(evict_choose(joiner, BIT(1), 0, 3), BIT(2));
	ck_assert_uint_eq(evict_choose(alone, BIT(3), 0, 4), BIT(0) | BIT(3));
}
END_TEST

START_TEST(who_does_not_run_goes_before_who_complains)
{
	uint64_t report[3] = { 0, 0, BIT(0) };

	ck_assert_uint_eq(evict_choose(report, 0, BIT(0), 3), BIT(0));
	ck_assert_uint_eq(evict_choose(report, BIT(2), BIT(0), 3), BIT(0));
}
END_TEST

START_TEST(who_is_unreachable_for_all_goes_also_the_lowest)
{
	uint64_t by_others[3] = { 0, BIT(0), BIT(0) }, by_itself[3] = { BIT(1) | BIT(2), 0, 0 };

	ck_assert_uint_eq(evict_choose(by_others, 0, 0, 3), BIT(0));
	ck_assert_uint_eq(evict_choose(by_itself, 0, 0, 3), BIT(0));
}
END_TEST

START_TEST(without_any_network_the_lowest_remains)
{
	uint64_t report[3] = { BIT(1) | BIT(2), BIT(0) | BIT(2), BIT(0) | BIT(1) };

	ck_assert_uint_eq(evict_choose(report, 0, 0, 3), BIT(1) | BIT(2));
}
END_TEST

START_TEST(who_remains_reaches_everybody_who_remains)
{
	struct csv_prng p;

	csv_prng_init(&p, 1);
	for (unsigned round = 0; round < 2000; round++) {
		uint32_t n = 2 + (uint32_t)csv_prng_below(&p, CLUSTER_NODES_MAX - 1);
		uint64_t report[CLUSTER_NODES_MAX] = { 0 }, gone;

		for (unsigned i = 0; i < n; i++) {
			unsigned from = (unsigned)csv_prng_below(&p, n), to = (unsigned)csv_prng_below(&p, n);

			if (from != to)
				report[from] |= BIT(to);
		}
		gone = evict_choose(report, csv_prng_u64(&p) & csv_prng_u64(&p), csv_prng_u64(&p) & csv_prng_u64(&p), n);
		ck_assert_msg(n == CLUSTER_NODES_MAX || !(gone >> n), "round %u: %" PRIx64 " of %u nodes", round, gone, n);
		ck_assert_uint_ne(gone, n == CLUSTER_NODES_MAX ? UINT64_MAX : BIT(n) - 1);
		for (unsigned i = 0; i < n; i++)
			ck_assert_msg(gone >> i & 1 || !(report[i] & ~gone), "round %u: node %u remains and misses %" PRIx64, round, i,
				      report[i] & ~gone);
	}
}
END_TEST

/* ---- that it goes ------------------------------------------------------------------------------------------------------------------- */

static uint32_t value;

static void change_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = cw_group_set(n->fs, ++value, true);
	n->done = true;
}

static void setup(void)
{
	cw_setup();
	for (unsigned id = 1; id <= 3; id++)
		cw_mount(id);
	cw_settle(3000);
}

/* Each in turn wants what the one before has: whoever cannot be reached is waited for. */
static void all_work(unsigned a, unsigned b)
{
	cw_do(a, change_coro);
	ck_assert_msg(cw_n(a)->ret == 0, "node %u: %d\n%s", a, cw_n(a)->ret, cw.all_log);
	cw_do(b, change_coro);
	ck_assert_msg(cw_n(b)->ret == 0, "node %u: %d\n%s", b, cw_n(b)->ret, cw.all_log);
}

static enum csvfs_state state(unsigned id)
{
	return csvfs_state(cw_n(id)->fs, NULL);
}

static bool count_one(void *arg, const struct csvfs_eviction_info *i)
{
	*(uint32_t *)arg = *(uint32_t *)arg * 10 + i->who.nodeid;
	return true;
}

/* Ids of those evicted, as that node tells it, one after the other. */
static uint32_t told_by(unsigned id)
{
	uint32_t ids = 0;

	csvfs_eviction_walk(cw_n(id)->fs, count_one, &ids);
	return ids;
}

static void one_way_cut(unsigned from, unsigned to, unsigned asks, unsigned goes)
{
	unsigned stays = goes == from ? to : from, third = 6 - from - to;
	const char *why;

	setup();
	cw_do(asks == from ? to : from, change_coro);	/* it has what the other will ask for */
	cw_n(to)->deaf[from - 1] = true;
	cw_start(asks, change_coro);
	cw_settle(20000);
	ck_assert_msg(state(goes) == CSVFS_WITHDRAWN && csvfs_evicted(cw_n(goes)->fs), "node %u: state %d\n%s", goes, state(goes), cw.all_log);
	csvfs_state(cw_n(goes)->fs, &why);
	ck_assert_msg(strstr(why, "firewall") && strstr(why, "mount again"), "what people are told: %s", why);
	ck_assert_int_eq(state(stays), CSVFS_ACTIVE);
	ck_assert_int_eq(state(third), CSVFS_ACTIVE);
	ck_assert_uint_eq(told_by(stays), goes);
	ck_assert_uint_eq(told_by(third), goes);
	ck_assert_uint_eq(cw.fence_calls, 0);
	all_work(stays, third);
	cw_teardown();
}

START_TEST(a_cut_in_one_direction_evicts_the_higher_whoever_speaks_into_it)
{
	one_way_cut(1, 3, 1, 3);
	one_way_cut(1, 3, 3, 3);
	one_way_cut(3, 1, 3, 3);
	one_way_cut(1, 2, 1, 2);
}
END_TEST

START_TEST(a_cut_of_three_seconds_evicts_nobody)
{
	setup();
	cw_do(3, change_coro);
	cw_n(3)->deaf[0] = true;
	cw_start(1, change_coro);
	cw_settle(3000);
	cw_n(3)->deaf[0] = false;
	ck_assert(cw_run(5000, cw_is_done, cw_n(1)));
	cw_settle(20000);
	for (unsigned id = 1; id <= 3; id++) {
		ck_assert_int_eq(state(id), CSVFS_ACTIVE);
		ck_assert_uint_eq(told_by(id), 0);
	}
	cw_teardown();
}
END_TEST

/* A daemon that was stopped for long is called unreachable by both others.  When it runs again it reads that, and answers. */
static void stopped(unsigned who, unsigned asks)
{
	unsigned third = 6 - who - asks;

	setup();
	cw_do(who, change_coro);
	cw_n(who)->on = false;		/* nothing of it runs, the engine still has it */
	cw_start(asks, change_coro);
	cw_settle(20000);
	ck_assert_uint_eq(told_by(asks), who);
	ck_assert_uint_eq(told_by(third), who);
	ck_assert_msg(cw_logged("stopped or hangs"), "%s", cw.all_log);
	cw_n(who)->on = true;
	ck_assert(cw_run(10000, cw_is_done, cw_n(asks)));
	cw_settle(10000);
	for (unsigned id = 1; id <= 3; id++) {
		ck_assert_msg(state(id) == CSVFS_ACTIVE, "node %u: %d\n%s", id, state(id), cw.all_log);
		ck_assert_uint_eq(told_by(id), 0);
	}
	all_work(who, third);
	cw_teardown();
}

START_TEST(who_was_stopped_and_runs_again_stays)
{
	stopped(2, 1);
	stopped(1, 3);
	stopped(3, 2);
}
END_TEST

START_TEST(who_mounts_and_cannot_be_reached_fails_to_mount_and_the_others_go_on)
{
	setup();
	cw_umount(1);
	cw_boot(1);
	cw_n(1)->deaf[2] = true;
	cw_start(1, cw_mount_coro);
	ck_assert_msg(cw_run(60000, cw_is_done, cw_n(1)), "the mount waits for ever\n%s", cw.all_log);
	ck_assert_int_lt(cw_n(1)->ret, 0);
	ck_assert_msg(strstr(cw_n(1)->err.text, "node 3") && strstr(cw_n(1)->err.text, "firewall"), "%s", cw_n(1)->err.text);
	cw_settle(1000);
	ck_assert_int_eq(state(3), CSVFS_ACTIVE);
	all_work(2, 3);
	cw_teardown();
}
END_TEST

UNIT_MAIN("evict", UNIT_TEST(nobody_goes_when_nobody_complains), UNIT_TEST(of_two_who_cannot_reach_each_other_the_higher_goes_whoever_complains),
	  UNIT_TEST(who_is_not_mounted_yet_goes_before_those_who_are), UNIT_TEST(who_does_not_run_goes_before_who_complains), UNIT_TEST(who_is_unreachable_for_all_goes_also_the_lowest),
	  UNIT_TEST(without_any_network_the_lowest_remains), UNIT_TEST(who_remains_reaches_everybody_who_remains),
	  UNIT_TEST(a_cut_in_one_direction_evicts_the_higher_whoever_speaks_into_it), UNIT_TEST(a_cut_of_three_seconds_evicts_nobody),
	  UNIT_TEST(who_was_stopped_and_runs_again_stays), UNIT_TEST(who_mounts_and_cannot_be_reached_fails_to_mount_and_the_others_go_on))
