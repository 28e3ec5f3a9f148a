/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Recovery of lost nodes: which proofs count, that replay follows the proof, who does it, what people are told.
 */
#include "tests/unit/core_lost.h"

static bool first_info(void *arg, const struct csvfs_recovery_info *i)
{
	*(struct csvfs_recovery_info *)arg = *i;
	return false;
}

START_TEST(what_a_dead_node_committed_is_there_after_fence_and_replay)
{
	struct csvfs_recovery_info info = { 0 };
	struct csv_slot_info s;
	uint64_t life, t0;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	set(1, 77);
	ck_assert_uint_ne(cw_group_on_disk(&cw_n(1)->fs->geo), 77);	/* committed, not home */
	life = cw_n(1)->incarnation;
	cw_power_cut(1);
	t0 = cw.clk.now_ns;
	ck_assert_uint_eq(get(2), 77);
	ck_assert_uint_eq(cw.fence_calls, 1);
	ck_assert_uint_ge(cw.clk.now_ns - t0, cw.fence_ns);
	s = slot_on_disk(&cw_n(2)->fs->geo, 0);
	ck_assert_int_eq(s.state, CSV_SLOT_FREE);
	ck_assert_uint_eq(s.proof_kind, CSV_PROOF_AGENT);
	ck_assert_uint_eq(s.proof_nodeid, 1);
	ck_assert_uint_eq(s.proof_incarnation, life);
	csvfs_recovery_walk(cw_n(2)->fs, first_info, &info);
	ck_assert_uint_eq(info.who.nodeid, 1);
	ck_assert(info.fenced && info.replayed && info.slot == 0 && info.stats.records > 0);
	ck_assert(info.lost_ns <= info.fenced_ns && info.fenced_ns <= info.replay_start_ns && info.replay_start_ns <= info.replayed_ns);
	printf("fence %" PRIu64 " ms, replay to REPLAYED %" PRIu64 " us of world time, %u records\n",
	       (uint64_t)((info.fenced_ns - info.lost_ns) / NS_PER_MS), (uint64_t)((info.replayed_ns - info.replay_start_ns) / 1000),
	       info.stats.records);
	cw_umount(2);
	cw_teardown();
}
END_TEST

START_TEST(failed_fencing_is_told_and_tried_again_until_it_succeeds)
{
	uint64_t t0;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	set(1, 5);
	cw.fence_fail = 3;
	cw_power_cut(1);
	t0 = cw.clk.now_ns;
	ck_assert_uint_eq(get(2), 5);
	ck_assert_uint_eq(cw.fence_calls, 4);
	ck_assert_uint_ge(cw.clk.now_ns - t0, 7 * NS_PER_SEC);	/* 1 + 2 + 4 s of back-off */
	ck_assert(cw_logged("node 1 could not be fenced: fence_test n1: no answer from the power switch"));
	ck_assert(cw_logged("csvctl node confirm-fenced 1"));
	cw_teardown();
}
END_TEST

START_TEST(a_dead_process_on_a_living_node_needs_no_fence)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	set(1, 6);
	cw_process_dies(1);
	ck_assert_uint_eq(get(2), 6);
	ck_assert_uint_eq(cw.fence_calls, 0);
	ck_assert_uint_eq(slot_on_disk(&cw_n(2)->fs->geo, 0).proof_kind, CSV_PROOF_PROCESS);
	cw_teardown();
}
END_TEST

/* As a daemon leaves it that ran in views of which nobody here was a member. */
static void leave_slot_of_a_stranger(void *arg)
{
	struct cw_node *n = arg;
	struct csv_slot_info s;
	struct jnl_geometry g;
	struct csv_err err = CSV_ERR_INIT;

	slot_geometry(n->fs, 2, 4711, &g);
	n->ret = jnl_format(n->fs->env->blk, &g, &err);
	if (!n->ret)
		n->ret = slot_read(n->fs, 2, &s, &err);
	s.state = CSV_SLOT_ACTIVE;
	s.nodeid = 4;
	s.incarnation = 4711;
	if (!n->ret)
		n->ret = slot_write(n->fs, 2, &s);
	n->done = true;
}

static bool slot_2_is_free(void *arg)
{
	(void)arg;
	return slot_on_disk(&cw_n(1)->fs->geo, 2).state == CSV_SLOT_FREE;
}

START_TEST(a_life_that_nobody_met_is_found_by_its_slot_and_given_time_to_return)
{
	uint64_t t0;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_do(1, leave_slot_of_a_stranger);
	ck_assert_int_eq(cw_n(1)->ret, 0);
	cw.ring_seq += 40;		/* rings without us: views may have been in which nobody of us took part */
	cw_new_ring();
	t0 = cw.clk.now_ns;
	ck_assert(!cw_run(9000, slot_2_is_free, NULL));
	ck_assert_uint_eq(cw.fence_calls, 0);
	ck_assert(cw_logged("node 4: its slot is in use and nobody here has met it"));
	ck_assert(cw_run(20000, slot_2_is_free, NULL));
	ck_assert_uint_ge(cw.clk.now_ns - t0, 10 * NS_PER_SEC);
	ck_assert_uint_eq(cw.fence_calls, 1);
	ck_assert_uint_eq(slot_on_disk(&cw_n(1)->fs->geo, 2).proof_nodeid, 4);
	set(1, 9);			/* and the locks flow again */
	ck_assert_uint_eq(get(2), 9);
	cw_teardown();
}
END_TEST

/* corosync, stopped on node 1, says PROCDOWN of its daemon, which may live and write. */
START_TEST(the_engines_word_about_a_process_is_no_proof)
{
	uint64_t t0;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	set(1, 6);
	cw_n(2)->raw->process_ended(cw_n(2)->raw_arg, 1);
	t0 = cw.clk.now_ns;
	cw_power_cut(1);
	ck_assert_uint_eq(get(2), 6);
	ck_assert_uint_eq(cw.fence_calls, 1);
	ck_assert_uint_ge(cw.clk.now_ns - t0, 3 * NS_PER_SEC);	/* time for its witness */
	ck_assert_uint_eq(slot_on_disk(&cw_n(2)->fs->geo, 0).proof_kind, CSV_PROOF_AGENT);
	cw_teardown();
}
END_TEST

START_TEST(the_witness_of_a_dead_process_is_a_proof_for_its_life_alone)
{
	uint64_t life;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	set(1, 6);
	life = cw_n(1)->incarnation;
	cw_n(2)->raw->process_ended(cw_n(2)->raw_arg, 1);
	cw_power_cut(1);
	cw_settle(500);
	cw_n(2)->raw->process_gone(cw_n(2)->raw_arg, 1, life + 1);
	cw_settle(500);
	ck_assert_uint_eq(slot_on_disk(&cw_n(2)->fs->geo, 0).state, CSV_SLOT_ACTIVE);
	cw_n(2)->raw->process_gone(cw_n(2)->raw_arg, 1, life);
	ck_assert_uint_eq(get(2), 6);
	ck_assert_uint_eq(cw.fence_calls, 0);
	ck_assert_uint_eq(slot_on_disk(&cw_n(2)->fs->geo, 0).proof_kind, CSV_PROOF_PROCESS);
	cw_teardown();
}
END_TEST

/* A node that is up for months: what it knows of lives long over must leave room for what matters. */
START_TEST(recovery_works_after_any_number_of_lives_that_left_in_order)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	for (uint64_t i = 1; i <= 300; i++) {
		cw_n(2)->raw->process_gone(cw_n(2)->raw_arg, 3, 1000000 + i);
		cw_new_ring();
		cw_settle(20);
	}
	set(1, 6);
	cw_power_cut(1);
	ck_assert_uint_eq(get(2), 6);
	cw_teardown();
}
END_TEST

START_TEST(a_new_life_of_the_same_node_proves_the_old_one_gone)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	set(1, 8);
	cw.fence_ns = 3600 * NS_PER_SEC;	/* an agent that would take an hour */
	cw_power_cut(1);
	cw_settle(50);
	cw_mount(1);
	ck_assert_uint_eq(get(1), 8);
	ck_assert_uint_eq(get(2), 8);
	ck_assert(cw_logged("came back with a new life"));
	ck_assert_uint_eq(csvfs_slot(cw_n(1)->fs), 0);	/* its old slot again */
	cw_teardown();
}
END_TEST

START_TEST(a_clean_unmount_needs_neither_fence_nor_replay)
{
	struct csv_slot_info s;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	set(1, 9);
	cw_umount(1);
	ck_assert_uint_eq(get(2), 9);
	set(2, 10);
	ck_assert_uint_eq(cw.fence_calls, 0);
	s = slot_on_disk(&cw_n(2)->fs->geo, 0);
	ck_assert_int_eq(s.state, CSV_SLOT_FREE);
	ck_assert_uint_eq(s.proof_kind, CSV_PROOF_RELEASE);
	cw_umount(2);
	cw_teardown();
}
END_TEST

START_TEST(after_the_last_unmount_everything_is_home_and_all_slots_are_free)
{
	struct csv_geom g;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	set(1, 21);
	set(2, 22);
	cw_umount(1);
	cw_umount(2);
	ck_assert_int_eq(csv_super_decode(cw.disk + CSV_SB_BLOCK * CSV_BLOCK_SIZE, CSV_SB_BLOCK, 0, 0, &g, NULL), 0);
	ck_assert_uint_eq(cw_group_on_disk(&g), 22);
	for (uint32_t i = 0; i < CW_SLOTS; i++)
		ck_assert_uint_eq(geom_slot_state(i), CSV_SLOT_FREE);
	cw_teardown();
}
END_TEST

START_TEST(the_first_mounter_waits_for_owners_then_fences_and_replays)
{
	uint64_t t0;

	cw_setup();
	cw_mount(1);
	set(1, 30);
	cw_power_cut(1);
	t0 = cw.clk.now_ns;
	cw_mount(2);
	ck_assert_uint_ge(cw.clk.now_ns - t0, 10 * NS_PER_SEC);
	ck_assert_uint_lt(cw.clk.now_ns - t0, 15 * NS_PER_SEC);
	ck_assert_uint_eq(cw.fence_calls, 1);
	ck_assert_uint_eq(get(2), 30);
	cw_teardown();
}
END_TEST

START_TEST(a_node_mounting_again_alone_replays_its_own_old_slot_at_once)
{
	uint64_t t0;

	cw_setup();
	cw_mount(1);
	set(1, 31);
	cw_power_cut(1);
	t0 = cw.clk.now_ns;
	cw_mount(1);
	ck_assert_uint_lt(cw.clk.now_ns - t0, 2 * NS_PER_SEC);
	ck_assert_uint_eq(cw.fence_calls, 0);
	ck_assert_uint_eq(get(1), 31);
	cw_teardown();
}
END_TEST

START_TEST(a_replayer_that_dies_is_recovered_first_and_the_next_finishes)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_mount(3);
	set(1, 40);
	cw_n(2)->hold_writes = true;		/* its replay gets stuck half way; the heartbeat as well */
	cw_power_cut(1);
	cw_settle(400);
	ck_assert(replay_has_begun(cw_n(2)));
	ck_assert_uint_eq(geom_slot_state(0), CSV_SLOT_ACTIVE);
	cw_power_cut(2);
	ck_assert_uint_eq(get(3), 40);
	ck_assert_uint_eq(geom_slot_state(0), CSV_SLOT_FREE);
	cw_settle(2000);
	ck_assert_uint_eq(geom_slot_state(1), CSV_SLOT_FREE);
	ck_assert_uint_eq(cw.fence_calls, 2);
	cw_teardown();
}
END_TEST

/*
 * Who mounts replays before it has a slot of its own.  When it dies at that, nobody who comes later has met it and no slot is ACTIVE for
 * it, but its writes may still be on their way.  The slot whose log it replayed names it.
 */
START_TEST(a_replayer_without_a_slot_is_fenced_before_its_work_is_done_again)
{
	struct csv_geom g;

	cw_setup();
	cw_mount(1);
	set(1, 40);
	g = cw_n(1)->fs->geo;
	ck_assert_uint_ne(cw_group_on_disk(&g), 40);
	cw_power_cut(1);
	cw_boot(2);
	cw_n(2)->hold_off = csv_group_start(&g, 0) << CSV_BLOCK_SHIFT;
	cw_n(2)->hold_writes = true;
	cw_start(2, cw_mount_coro);
	ck_assert(cw_run(60000, replay_has_begun, cw_n(2)));
	cw_power_cut(2);
	cw_mount(3);
	ck_assert_uint_eq(get(3), 40);
	set(3, 71);
	cw_umount(3);
	ck_assert_uint_eq(cw_group_on_disk(&g), 71);
	cw_land(cw_n(2));
	ck_assert_uint_eq(cw_group_on_disk(&g), 71);
	ck_assert_uint_eq(cw.fence_calls, 3);	/* 1 by 2; 1 and 2 by 3 */
	cw_teardown();
}
END_TEST

/*
 * Node 1 dies with a home write on its way.  Node 2 recovers it, changes the same block and writes it home.  Then the late write
 * lands, unless the fence came first.  Returns what is on the disk.
 */
static uint32_t late_write_scenario(uint32_t mutate)
{
	struct csv_geom g;
	uint32_t ret;

	cw_setup();
	cw_mount(1);
	cw_boot(2);
	cw_n(2)->opt.mutate = mutate;
	cw_do(2, cw_mount_coro);
	ck_assert_int_eq(cw_n(2)->ret, 0);
	set(1, 70);
	g = cw_n(1)->fs->geo;
	cw_n(1)->hold_writes = true;
	cw_start(2, get_coro);		/* node 1 must give the lock up: home write */
	cw_settle(20);
	ck_assert(replay_has_begun(cw_n(1)));
	cw_power_cut(1);
	ck_assert(cw_run(60000, cw_is_done, cw_n(2)));
	ck_assert_uint_eq(got_value, 70);
	set(2, 71);
	cw_umount(2);
	cw_land(cw_n(1));
	ret = cw_group_on_disk(&g);
	cw_teardown();
	return ret;
}

START_TEST(no_write_of_a_dead_node_lands_after_its_replay)
{
	ck_assert_uint_eq(late_write_scenario(0), 71);
}
END_TEST

START_TEST(replay_before_fence_would_lose_a_change)
{
	/* Negative control: the same scenario without the guard must end wrong. */
	ck_assert_uint_ne(late_write_scenario(CSV_MUT_REPLAY_BEFORE_FENCE), 71);
}
END_TEST

START_TEST(locks_the_dead_node_did_not_hold_are_granted_before_the_fence)
{
	struct cw_node *n;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	n = cw_n(2);
	set(2, 80);			/* cached EX here */
	cw.fence_ns = 3600 * NS_PER_SEC;
	cw_power_cut(1);
	cw_settle(100);
	ck_assert_uint_eq(get(2), 80);
	ck_assert_int_eq(csvfs_state(n->fs, NULL), CSVFS_ACTIVE);
	cw_teardown();
}
END_TEST

static bool all_three_mounted(void *arg)
{
	(void)arg;
	return cw_n(1)->done && cw_n(2)->done && cw_n(3)->done;
}

/*
 * Power comes back for all; node 2 reads the slots, node 1 decides who is fenced, node 3 needs a moment longer.  Fenced now, it would be
 * switched off while it starts.
 */
START_TEST(who_starts_a_moment_later_than_the_others_is_not_fenced)
{
	cw_setup();
	for (unsigned id = 1; id <= 3; id++)
		cw_mount(id);
	set(3, 97);
	for (unsigned id = 1; id <= 3; id++)
		cw_off(id, false);
	cw.ring_seq += 40;
	cw_boot(2);
	cw_start(2, cw_mount_coro);
	cw_settle(50);
	cw_boot(1);
	cw_start(1, cw_mount_coro);
	cw_settle(1500);
	cw_boot(3);
	cw_start(3, cw_mount_coro);
	ck_assert_msg(cw_run(60000, all_three_mounted, NULL), "%s", cw.all_log);
	for (unsigned id = 1; id <= 3; id++)
		ck_assert_msg(cw_n(id)->ret == 0, "node %u: %s", id, cw_n(id)->err.text);
	ck_assert_msg(cw.fence_calls == 0, "%u fence calls\n%s", cw.fence_calls, cw.all_log);
	ck_assert_uint_eq(get(1), 97);
	cw_teardown();
}
END_TEST

static void confirm_coro(void *arg)
{
	struct cw_node *n = arg;

	csv_err_clear(&n->err);
	n->ret = csvfs_confirm_fenced(n->fs, 1, &n->err);
	n->done = true;
}

START_TEST(an_operators_word_is_a_proof_unless_the_heartbeat_moves)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_mount(3);
	set(1, 95);
	cw_do(3, confirm_coro);
	ck_assert_int_eq(cw_n(3)->ret, -ENOENT);
	cw.fence_fail = 100000;
	cw_partition(1u << 1);			/* lost, but it beats on */
	cw_settle(1000);
	cw_do(3, confirm_coro);
	ck_assert_msg(cw_n(3)->ret == -CSV_E_BUSY_ELSEWHERE && strstr(cw_n(3)->err.text, "heartbeat"), "%d %s", cw_n(3)->ret,
		      cw_n(3)->err.text);
	cw_off(1, false);
	cw_do(3, confirm_coro);
	ck_assert_msg(cw_n(3)->ret == 0, "%s", cw_n(3)->err.text);
	ck_assert_uint_eq(get(2), 95);
	ck_assert_uint_eq(slot_on_disk(&cw_n(2)->fs->geo, 0).proof_kind, CSV_PROOF_OPERATOR);
	cw_teardown();
}
END_TEST

UNIT_MAIN("recover", UNIT_TEST(what_a_dead_node_committed_is_there_after_fence_and_replay),
	  UNIT_TEST(failed_fencing_is_told_and_tried_again_until_it_succeeds),
	  UNIT_TEST(a_dead_process_on_a_living_node_needs_no_fence),
	  UNIT_TEST(a_life_that_nobody_met_is_found_by_its_slot_and_given_time_to_return),
	  UNIT_TEST(the_engines_word_about_a_process_is_no_proof),
	  UNIT_TEST(the_witness_of_a_dead_process_is_a_proof_for_its_life_alone),
	  UNIT_TEST(recovery_works_after_any_number_of_lives_that_left_in_order),
	  UNIT_TEST(a_new_life_of_the_same_node_proves_the_old_one_gone),
	  UNIT_TEST(a_clean_unmount_needs_neither_fence_nor_replay),
	  UNIT_TEST(after_the_last_unmount_everything_is_home_and_all_slots_are_free),
	  UNIT_TEST(the_first_mounter_waits_for_owners_then_fences_and_replays),
	  UNIT_TEST(a_node_mounting_again_alone_replays_its_own_old_slot_at_once),
	  UNIT_TEST(a_replayer_that_dies_is_recovered_first_and_the_next_finishes),
	  UNIT_TEST(a_replayer_without_a_slot_is_fenced_before_its_work_is_done_again),
	  UNIT_TEST(no_write_of_a_dead_node_lands_after_its_replay), UNIT_TEST(replay_before_fence_would_lose_a_change),
	  UNIT_TEST(who_starts_a_moment_later_than_the_others_is_not_fenced),
	  UNIT_TEST(an_operators_word_is_a_proof_unless_the_heartbeat_moves),
	  UNIT_TEST(locks_the_dead_node_did_not_hold_are_granted_before_the_fence))
