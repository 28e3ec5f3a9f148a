/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nodes that give themselves up: withdrawn ones, and minorities that were healed before anybody fenced them (R9, R11).
 */
#include "tests/unit/core_lost.h"

START_TEST(a_withdrawn_node_speaks_when_drained_and_needs_no_fence)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	set(1, 50);
	csvfs_withdraw(cw_n(1)->fs, "test");
	arg_value = 51;
	cw_do(1, set_coro);
	ck_assert_int_eq(cw_n(1)->ret, -CSV_E_WITHDRAWN);
	ck_assert_uint_eq(get(2), 50);
	ck_assert_uint_eq(cw.fence_calls, 0);
	ck_assert(cw_n(1)->fs->left);
	cw_do(1, cw_umount_coro);
	ck_assert_int_eq(cw_n(1)->ret, 0);
	cw_teardown();
}
END_TEST

START_TEST(a_withdrawn_node_that_cannot_drain_says_nothing_and_is_fenced)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	set(1, 60);
	cw_n(1)->hold_writes = true;
	arg_value = 61;
	cw_start(1, set_coro);
	cw_settle(20);
	ck_assert(replay_has_begun(cw_n(1)));	/* something is in flight */
	csvfs_withdraw(cw_n(1)->fs, "test");
	cw.fence_fail = 1000;
	cw_settle(5000);
	ck_assert_uint_eq(cw.fence_calls, 0);
	cw_settle(8000);
	ck_assert(cw_n(1)->fs->left);
	ck_assert_uint_ge(cw.fence_calls, 1);
	cw_start(2, get_coro);
	cw_settle(60000);
	ck_assert(!cw_n(2)->done);		/* no proof: what it held stays locked */
	cw_off(1, false);
	cw.fence_fail = 0;
	ck_assert(cw_run(60000, cw_is_done, cw_n(2)));
	ck_assert_uint_eq(got_value, 60);
	cw_teardown();
}
END_TEST

START_TEST(a_healed_minority_writes_back_frees_its_slot_and_gives_up)
{
	const char *reason;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_mount(3);
	set(1, 90);
	ck_assert_uint_ne(cw_group_on_disk(&cw_n(1)->fs->geo), 90);
	cw.fence_fail = 100000;			/* an agent that cannot reach it */
	cw_partition(1u << 1);
	cw_start(2, get_coro);
	cw_settle(3000);
	ck_assert(!cw_n(2)->done);
	ck_assert_int_eq(csvfs_state(cw_n(1)->fs, NULL), CSVFS_PAUSED);
	ck_assert_int_eq(csvfs_state(cw_n(2)->fs, NULL), CSVFS_ACTIVE);
	cw_partition(0);
	ck_assert(cw_run(10000, cw_is_done, cw_n(2)));
	ck_assert_int_eq(cw_n(2)->ret, 0);
	ck_assert_uint_eq(got_value, 90);
	cw_settle(2000);
	ck_assert_int_eq(csvfs_state(cw_n(1)->fs, &reason), CSVFS_WITHDRAWN);
	ck_assert_msg(strstr(reason, "the others went on without this node"), "%s", reason);
	ck_assert(cw_n(1)->fs->left);
	ck_assert_uint_eq(geom_slot_state(0), CSV_SLOT_FREE);
	cw_do(1, cw_umount_coro);
	cw_off(1, false);
	cw_mount(1);
	set(1, 91);
	arg_value = 0;
	ck_assert_uint_eq(get(3), 91);
	cw_teardown();
}
END_TEST

/* Each waits for the other's word that it holds no proof. */
START_TEST(two_healed_at_once_both_write_back_and_free_their_slots)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_mount(3);
	set(1, 95);
	cw.fence_fail = 100000;
	cw_partition(1u << 1 | 1u << 2);
	cw_start(3, get_coro);
	cw_settle(3000);
	ck_assert(!cw_n(3)->done);
	cw_partition(0);
	ck_assert_msg(cw_run(5000, cw_is_done, cw_n(3)), "%s", cw.all_log);
	ck_assert_int_eq(cw_n(3)->ret, 0);
	ck_assert_uint_eq(got_value, 95);
	cw_settle(2000);
	for (unsigned id = 1; id <= 2; id++) {
		ck_assert_int_eq(csvfs_may_rejoin(cw_n(id)->fs), 0);
		ck_assert_uint_eq(geom_slot_state(id - 1), CSV_SLOT_FREE);
	}
	cw_teardown();
}
END_TEST

static bool is_withdrawn(void *arg)
{
	return csvfs_state(((struct cw_node *)arg)->fs, NULL) == CSVFS_WITHDRAWN;
}

static bool hold;

/* An operation that has begun before. */
static void hold_coro(void *arg)
{
	struct cw_node *n = arg;
	struct glock_holder gh;

	n->ret = glock_get(n->fs, OWN_GROUP(1), DLM_PR, 0, &gh);
	n->done = true;
	while (hold)
		coro_sleep_ns(n->env.sched, NS_PER_MS);
	glock_put(&gh);
}

/*
 * Its unmount begins while it still waits for an operation under way (or for what the others know), and ends its journal first.  Only who has written everything
 * home may say FREE: what did not get home is in the log, for the others to replay.
 */
static void heal_and_unmount_at_once(bool fails)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_mount(3);
	set(1, 93);
	hold = true;
	cw_do(1, hold_coro);
	ck_assert_int_eq(cw_n(1)->ret, 0);
	cw.fence_fail = 100000;
	cw_partition(1u << 1);
	cw_settle(3000);
	set(1, 94);			/* the lock is cached; committed, not home */
	cw_partition(0);
	ck_assert(cw_run(10000, is_withdrawn, cw_n(1)));
	cw_n(1)->fail_writes = fails;
	cw_start(1, cw_umount_coro);
	cw_settle(100);
	hold = false;
	ck_assert(cw_run(30000, cw_is_done, cw_n(1)));
	ck_assert_int_eq(cw_n(1)->ret, 0);
	cw_off(1, false);
	ck_assert_uint_eq(get(2), 94);
	ck_assert_uint_eq(geom_slot_state(0), CSV_SLOT_FREE);
	ck_assert_uint_eq(slot_on_disk(&cw_n(2)->fs->geo, 0).proof_kind, fails ? CSV_PROOF_WITHDRAW : CSV_PROOF_RELEASE);
	cw_teardown();
}

START_TEST(a_healed_minority_that_is_unmounted_meanwhile_gives_back_all_the_same)
{
	heal_and_unmount_at_once(false);
}
END_TEST

START_TEST(a_healed_minority_whose_write_back_fails_leaves_its_log_to_be_replayed)
{
	heal_and_unmount_at_once(true);
}
END_TEST

/* R10: the next owner's heartbeat must not be overwritten by the last one of the owner before. */
START_TEST(a_healed_minority_gives_its_slot_back_after_its_last_heartbeat)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_mount(3);
	cw.fence_fail = 100000;
	cw_partition(1u << 1);
	cw_n(1)->hold_off = csv_hbeat_blk(&cw_n(1)->fs->geo, 0) << CSV_BLOCK_SHIFT;
	cw_n(1)->hold_writes = true;
	cw_settle(3000);
	ck_assert(replay_has_begun(cw_n(1)));	/* it is on its way */
	cw_partition(0);
	ck_assert(cw_run(10000, is_withdrawn, cw_n(1)));
	cw_settle(1000);
	ck_assert_uint_eq(geom_slot_state(0), CSV_SLOT_ACTIVE);
	cw_land(cw_n(1));
	cw_settle(1000);
	ck_assert_uint_eq(geom_slot_state(0), CSV_SLOT_FREE);
	ck_assert(cw_n(1)->fs->left);
	cw_do(1, cw_umount_coro);
	cw_off(1, false);
	cw_teardown();
}
END_TEST

START_TEST(a_minority_that_was_fenced_meanwhile_gives_up_without_a_write)
{
	uint64_t writes;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_mount(3);
	set(1, 92);
	cw.fence_lies = true;			/* confirmed although it lives: as after a wrong word of the operator */
	cw_partition(1u << 1);
	ck_assert_uint_eq(get(2), 92);
	arg_value = 93;
	cw_do(2, set_coro);
	writes = cw_n(1)->blk.n_writes;
	cw_partition(0);
	cw_settle(5000);
	ck_assert_int_eq(csvfs_state(cw_n(1)->fs, NULL), CSVFS_WITHDRAWN);
	/* at most its heartbeat */
	ck_assert_uint_le(cw_n(1)->blk.n_writes, writes + 1);
	ck_assert_uint_eq(get(3), 93);
	cw_teardown();
}
END_TEST

UNIT_MAIN("withdraw", UNIT_TEST(a_withdrawn_node_speaks_when_drained_and_needs_no_fence),
	  UNIT_TEST(a_withdrawn_node_that_cannot_drain_says_nothing_and_is_fenced),
	  UNIT_TEST(a_healed_minority_writes_back_frees_its_slot_and_gives_up),
	  UNIT_TEST(two_healed_at_once_both_write_back_and_free_their_slots),
	  UNIT_TEST(a_healed_minority_that_is_unmounted_meanwhile_gives_back_all_the_same),
	  UNIT_TEST(a_healed_minority_whose_write_back_fails_leaves_its_log_to_be_replayed),
	  UNIT_TEST(a_healed_minority_gives_its_slot_back_after_its_last_heartbeat),
	  UNIT_TEST(a_minority_that_was_fenced_meanwhile_gives_up_without_a_write))
