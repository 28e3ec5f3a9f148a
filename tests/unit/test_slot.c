/* SPDX-License-Identifier: GPL-2.0-only */
/* Slots: taking, preferring one's own, full, unreadable; the heartbeat; quorum at mount. */
#include "tests/unit/core_world.h"

static void mount_fails(unsigned id)
{
	cw_boot(id);
	cw_do(id, cw_mount_coro);
	ck_assert_int_lt(cw_n(id)->ret, 0);
	cw_off(id, false);
}

START_TEST(each_node_gets_a_slot_of_its_own)
{
	struct csv_slot_info s;
	struct cw_node *n;

	cw_setup();
	for (unsigned id = 1; id <= 3; id++) {
		cw_mount(id);
		n = cw_n(id);
		ck_assert_uint_eq(csvfs_slot(n->fs), id - 1);
		ck_assert_int_eq(csv_slot_decode(&n->fs->geo, id - 1, cw.disk + (csv_slot_blk(&n->fs->geo, id - 1) << CSV_BLOCK_SHIFT), &s, NULL), 0);
		ck_assert_int_eq(s.state, CSV_SLOT_ACTIVE);
		ck_assert_uint_eq(s.nodeid, id);
		ck_assert_uint_eq(s.incarnation, n->incarnation);
		ck_assert_str_eq(s.node_name, n->opt.node_name);
	}
	cw_teardown();
}
END_TEST

START_TEST(a_mount_without_a_free_slot_names_who_has_them)
{
	cw_setup();
	for (unsigned id = 1; id <= 3; id++)
		cw_mount(id);
	mount_fails(4);
	ck_assert_int_eq(cw_n(4)->ret, -CSV_E_BUSY_ELSEWHERE);
	ck_assert_str_eq(cw_n(4)->err.text,
			 "all 3 slots are in use: slot 0 by n1 (node 1), slot 1 by n2 (node 2), slot 2 by n3 (node 3); unmount the volume on one of "
			 "these nodes, or make a volume with more slots (mkfs.csvfs -n)");
	cw_umount(2);
	cw_mount(4);
	ck_assert_uint_eq(csvfs_slot(cw_n(4)->fs), 1);
	cw_teardown();
}
END_TEST

START_TEST(a_node_takes_the_slot_it_had_last)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_umount(1);
	cw_umount(2);
	cw_mount(2);
	ck_assert_uint_eq(csvfs_slot(cw_n(2)->fs), 1);
	cw_mount(1);
	ck_assert_uint_eq(csvfs_slot(cw_n(1)->fs), 0);
	cw_teardown();
}
END_TEST

START_TEST(two_that_mount_at_the_same_time_get_different_slots)
{
	cw_setup();
	cw_boot(1);
	cw_boot(2);
	cw_start(1, cw_mount_coro);
	cw_start(2, cw_mount_coro);
	ck_assert(cw_run(60000, cw_is_done, cw_n(1)));
	ck_assert(cw_run(60000, cw_is_done, cw_n(2)));
	ck_assert_int_eq(cw_n(1)->ret, 0);
	ck_assert_int_eq(cw_n(2)->ret, 0);
	ck_assert_uint_ne(csvfs_slot(cw_n(1)->fs), csvfs_slot(cw_n(2)->fs));
	cw_teardown();
}
END_TEST

START_TEST(an_unreadable_slot_is_never_taken_for_free)
{
	struct csv_geom g;

	cw_setup();
	ck_assert_int_eq(csv_super_decode(cw.disk + CSV_SB_BLOCK * CSV_BLOCK_SIZE, CSV_SB_BLOCK, 0, 0, &g, NULL), 0);
	cw.disk[(csv_slot_blk(&g, 1) << CSV_BLOCK_SHIFT) + 100] ^= 4;
	mount_fails(1);
	ck_assert_int_eq(cw_n(1)->ret, -CSV_E_CORRUPT);
	ck_assert_msg(strstr(cw_n(1)->err.text, "slot") && strstr(cw_n(1)->err.text, "crc"), "%s", cw_n(1)->err.text);
	cw_teardown();
}
END_TEST

START_TEST(the_heartbeat_counts_twice_a_second_and_stops_at_unmount)
{
	struct csv_hbeat_info a, b;
	struct csv_geom g;
	const void *blk;

	cw_setup();
	cw_mount(1);
	g = cw_n(1)->fs->geo;
	blk = cw.disk + (csv_hbeat_blk(&g, 0) << CSV_BLOCK_SHIFT);
	cw_settle(100);
	ck_assert_int_eq(csv_hbeat_decode(&g, 0, blk, &a, NULL), 0);
	ck_assert_uint_eq(a.incarnation, cw_n(1)->incarnation);
	cw_settle(10000);
	ck_assert_int_eq(csv_hbeat_decode(&g, 0, blk, &b, NULL), 0);
	ck_assert_uint_ge(b.counter - a.counter, 19);
	ck_assert_uint_le(b.counter - a.counter, 21);
	cw_umount(1);
	ck_assert_int_eq(csv_hbeat_decode(&g, 0, blk, &a, NULL), 0);
	cw_settle(10000);
	ck_assert_int_eq(csv_hbeat_decode(&g, 0, blk, &b, NULL), 0);
	ck_assert_uint_eq(a.counter, b.counter);
	cw_teardown();
}
END_TEST

START_TEST(without_quorum_a_mount_says_so_and_writes_nothing)
{
	uint64_t writes;

	cw_setup();
	cw.no_quorum = true;
	cw_boot(1);
	cw_do(1, cw_mount_coro);
	writes = cw_n(1)->blk.n_writes;
	ck_assert_int_eq(cw_n(1)->ret, -CSV_E_NOQUORUM);
	ck_assert_msg(strstr(cw_n(1)->err.text, "no quorum"), "%s", cw_n(1)->err.text);
	ck_assert_uint_eq(writes, 0);
	cw_teardown();
}
END_TEST

START_TEST(a_device_without_a_volume_is_refused_before_joining)
{
	cw_setup();
	memset(cw.disk, 0, CW_BYTES);
	mount_fails(1);
	ck_assert_msg(cw_n(1)->err.text[0], "no text");
	ck_assert(!cw_n(1)->in_group);
	cw_teardown();
}
END_TEST

static struct glock_holder open_gh;

static void hold_open_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = glock_get(n->fs, OWN_OPEN(4711), DLM_PR, GLOCK_LASTING, &open_gh);
	n->done = true;
}

START_TEST(unmount_with_open_files_is_busy_and_works_after_their_close)
{
	cw_setup();
	cw_mount(1);
	cw_do(1, hold_open_coro);
	ck_assert_int_eq(cw_n(1)->ret, 0);
	cw_do(1, cw_umount_coro);
	ck_assert_int_eq(cw_n(1)->ret, -EBUSY);
	ck_assert_int_eq(csvfs_state(cw_n(1)->fs, NULL), CSVFS_ACTIVE);
	glock_put(&open_gh);
	cw_umount(1);
	cw_teardown();
}
END_TEST

UNIT_MAIN("slot", UNIT_TEST(each_node_gets_a_slot_of_its_own), UNIT_TEST(a_mount_without_a_free_slot_names_who_has_them),
	  UNIT_TEST(a_node_takes_the_slot_it_had_last), UNIT_TEST(two_that_mount_at_the_same_time_get_different_slots),
	  UNIT_TEST(an_unreadable_slot_is_never_taken_for_free), UNIT_TEST(the_heartbeat_counts_twice_a_second_and_stops_at_unmount),
	  UNIT_TEST(without_quorum_a_mount_says_so_and_writes_nothing), UNIT_TEST(a_device_without_a_volume_is_refused_before_joining),
	  UNIT_TEST(unmount_with_open_files_is_busy_and_works_after_their_close))
