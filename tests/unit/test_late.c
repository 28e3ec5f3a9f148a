/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nodes that come late: after a time without quorum the network heals piece by piece, and who is missing at first may be on its way
 * (csvfs/recover.c, RC6).  And what is not held up for it: new names, where most votes stayed together (dlm.h).
 */
#include "tests/unit/core_lost.h"

static bool first_info(void *arg, const struct csvfs_recovery_info *i)
{
	*(struct csvfs_recovery_info *)arg = *i;
	return false;
}

#define ROUND_MS 3600u		/* token + consensus of three nodes, as Debian's corosync has it */

/* All three apart, nobody has quorum; then the network heals for nodes 1 and 2 first. */
static void apart_then_two_meet(void)
{
	cw_setup();
	cw.round_ns = ROUND_MS * NS_PER_MS;
	for (unsigned id = 1; id <= 3; id++)
		cw_mount(id);
	set(3, 97);
	cw.no_quorum = true;
	cw_partition(1u << 3);
	cw_settle(2000);
	ck_assert_int_eq(csvfs_state(cw_n(1)->fs, NULL), CSVFS_PAUSED);
	cw.no_quorum = false;
	cw_new_ring();
	cw_settle(50);
	ck_assert_int_eq(csvfs_state(cw_n(1)->fs, NULL), CSVFS_ACTIVE);
	ck_assert_int_eq(csvfs_state(cw_n(3)->fs, NULL), CSVFS_PAUSED);
}

/* RC6 */
START_TEST(who_comes_a_moment_late_after_a_time_without_quorum_is_not_fenced)
{
	struct csvfs_recovery_info info = { 0 };

	apart_then_two_meet();
	cw_start(2, get_coro);
	cw_settle(ROUND_MS - 600);
	ck_assert_uint_eq(cw.fence_calls, 0);
	ck_assert(!cw_n(2)->done);		/* no proof: what it held stays locked */
	ck_assert_uint_eq(geom_slot_state(2), CSV_SLOT_ACTIVE);
	csvfs_recovery_walk(cw_n(1)->fs, first_info, &info);
	ck_assert_msg(strstr(info.why, "may be on its way"), "%s", info.why);
	cw_partition(0);
	ck_assert_msg(cw_run(10000, cw_is_done, cw_n(2)), "%s", cw.all_log);
	ck_assert_int_eq(cw_n(2)->ret, 0);
	ck_assert_uint_eq(got_value, 97);
	cw_settle(20000);
	ck_assert_msg(cw.fence_calls == 0, "%u fence calls\n%s", cw.fence_calls, cw.all_log);
	ck_assert_int_eq(csvfs_may_rejoin(cw_n(3)->fs), 0);	/* it has given back; a new life may take over */
	cw_teardown();
}
END_TEST

START_TEST(who_does_not_come_within_a_round_is_fenced_then)
{
	uint64_t t0;

	apart_then_two_meet();
	t0 = cw.clk.now_ns - 50 * NS_PER_MS;	/* the view, at the latest */
	cw_power_cut(3);
	ck_assert_uint_eq(get(2), 97);
	ck_assert_uint_eq(cw.fence_calls, 1);
	ck_assert_uint_ge(cw.clk.now_ns - t0, cw.round_ns + cw.fence_ns);
	ck_assert_uint_lt(cw.clk.now_ns - t0, cw.round_ns + cw.fence_ns + 500 * NS_PER_MS);
	cw_teardown();
}
END_TEST

START_TEST(whom_a_quorate_view_loses_is_fenced_at_once)
{
	uint64_t t0;

	cw_setup();
	cw.round_ns = 3600 * NS_PER_SEC;
	cw_mount(1);
	cw_mount(2);
	cw_mount(3);
	set(3, 12);
	t0 = cw.clk.now_ns;
	cw_power_cut(3);
	ck_assert_uint_eq(get(2), 12);
	ck_assert_uint_eq(cw.fence_calls, 1);
	ck_assert_uint_lt(cw.clk.now_ns - t0, cw.fence_ns + 500 * NS_PER_MS);
	cw_teardown();
}
END_TEST

/* It was waited for, it came; that it goes again is a loss. */
START_TEST(who_came_and_goes_again_within_the_round_is_fenced_at_once)
{
	uint64_t t0;

	apart_then_two_meet();
	cw_start(2, get_coro);
	cw_partition(0);
	cw_settle(5);
	ck_assert_uint_eq(cw.fence_calls, 0);
	ck_assert(cluster_has_seen(cw_n(1)->env.cluster, 3));
	cw_n(3)->hold_writes = true;		/* so that it gives nothing back before */
	t0 = cw.clk.now_ns;
	cw_power_cut(3);
	ck_assert(cw_run(10000, cw_is_done, cw_n(2)));
	ck_assert_uint_eq(got_value, 97);
	ck_assert_uint_lt(cw.clk.now_ns - t0, cw.fence_ns + 500 * NS_PER_MS);
	cw_teardown();
}
END_TEST

static bool node_1_joined(void *arg)
{
	(void)arg;
	return cw_n(1)->in_group;
}

/* The lowest id decides who is fenced; it comes to quorum only in the ring in which node 4 is lost, which the others have seen go. */
START_TEST(a_coordinator_that_has_just_come_believes_who_saw_the_loss)
{
	uint64_t t0;

	cw_setup();
	cw.round_ns = 3600 * NS_PER_SEC;
	cw_mount(2);
	cw_mount(3);
	cw_mount(4);
	set(4, 13);
	cw_boot(1);
	cw_start(1, cw_mount_coro);
	ck_assert(cw_run(1000, node_1_joined, NULL));
	t0 = cw.clk.now_ns;
	cw_power_cut(4);
	ck_assert_uint_eq(get(2), 13);
	ck_assert_uint_ge(cw.fence_calls, 1);
	ck_assert(cw_logged("n1 node 4: proven gone"));
	ck_assert_msg(cw.clk.now_ns - t0 < cw.fence_ns + 500 * NS_PER_MS, "%" PRIu64 " ms\n%s", (uint64_t)((cw.clk.now_ns - t0) / NS_PER_MS), cw.all_log);
	cw_teardown();
}
END_TEST

static void look_at_something_new(void *arg)
{
	struct cw_node *n = arg;
	struct glock_holder gh;

	n->ret = glock_get(n->fs, OWN_USE(4711), DLM_PR, 0, &gh);
	if (!n->ret)
		glock_put(&gh);
	n->done = true;
}

/*
 * Rings were tried between the last view and this one.  Where the engine says how many votes there are, two of three are known to have
 * been together all the time, and what nobody has ever locked need not wait until node 3 is proven gone (dlm.h).
 */
static bool new_names_flow_before_the_proof(uint32_t votes)
{
	bool ret;

	cw_setup();
	cw.votes = votes;
	for (unsigned id = 1; id <= 3; id++)
		cw_mount(id);
	cw.fence_fail = 100000;
	cw.ring_seq += 8;
	cw_partition(1u << 3);
	cw_settle(100);
	cw_start(2, look_at_something_new);
	ret = cw_run(5000, cw_is_done, cw_n(2));
	if (ret)
		ck_assert_int_eq(cw_n(2)->ret, 0);
	cw.fence_fail = 0;
	cw_power_cut(3);
	ck_assert(cw_run(60000, cw_is_done, cw_n(2)));
	cw_teardown();
	return ret;
}

START_TEST(new_names_need_no_proof_where_most_votes_stayed_together)
{
	ck_assert(new_names_flow_before_the_proof(3));
}
END_TEST

START_TEST(new_names_wait_where_nobody_knows_how_many_votes_there_are)
{
	ck_assert(!new_names_flow_before_the_proof(0));
	ck_assert(!new_names_flow_before_the_proof(4));		/* or two are not most of them */
}
END_TEST

UNIT_MAIN("late", UNIT_TEST(who_comes_a_moment_late_after_a_time_without_quorum_is_not_fenced),
	  UNIT_TEST(who_does_not_come_within_a_round_is_fenced_then),
	  UNIT_TEST(whom_a_quorate_view_loses_is_fenced_at_once),
	  UNIT_TEST(who_came_and_goes_again_within_the_round_is_fenced_at_once),
	  UNIT_TEST(a_coordinator_that_has_just_come_believes_who_saw_the_loss),
	  UNIT_TEST(new_names_need_no_proof_where_most_votes_stayed_together),
	  UNIT_TEST(new_names_wait_where_nobody_knows_how_many_votes_there_are))
