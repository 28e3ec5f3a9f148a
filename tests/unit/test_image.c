/* SPDX-License-Identifier: GPL-2.0-only */
/* An image and its raw view are one disk (R41): who has which open where, on several nodes of the real core. */
#include "tests/unit/core_world.h"

#include <sys/stat.h>

static struct csvfs_attr file;
static enum csvfs_use use;
static bool flag, made_open;

static void create_coro(void *arg)
{
	struct cw_node *n = arg;

	ck_assert_int_eq(csvfs_create(n->fs, csvfs_root_ino(n->fs), 0, "f", S_IFREG | 0644, 0, 0, 0, made_open, &file), 0);
	n->done = true;
}

static void open_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = csvfs_image_open(n->fs, file.ino, file.gen, use);
	n->done = true;
}

static void close_coro(void *arg)
{
	struct cw_node *n = arg;

	csvfs_image_close(n->fs, file.ino, use);
	n->done = true;
}

static void attr_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csvfs_attr a;

	ck_assert_int_eq(csvfs_getattr(n->fs, file.ino, file.gen, &a), 0);
	flag = a.flags & CSV_INO_IMAGE;
	n->done = true;
}

static void touch_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csvfs_attr a = { .mode = 0600 }, ret;

	ck_assert_int_eq(csvfs_setattr(n->fs, file.ino, file.gen, &a, CSVFS_SET_MODE, &ret), 0);
	n->done = true;
}

static int opens(unsigned id, enum csvfs_use u)
{
	use = u;
	cw_do(id, open_coro);
	return cw_n(id)->ret;
}

static void closes(unsigned id, enum csvfs_use u)
{
	use = u;
	cw_do(id, close_coro);
}

static void start(unsigned nodes)
{
	cw_setup();
	for (unsigned id = 1; id <= nodes; id++)
		cw_mount(id);
	cw_settle(2000);
	made_open = false;
	cw_do(1, create_coro);
}

#define RAW CSVFS_USE_RAW
#define PLAIN CSVFS_USE_PLAIN
#define ok(id, u) ck_assert_int_eq(opens(id, u), 0)
#define busy_elsewhere(id, u) ck_assert_int_eq(opens(id, u), -CSV_E_BUSY_ELSEWHERE)
#define busy_here(id, u) ck_assert_int_eq(opens(id, u), -EBUSY)

START_TEST(one_kind_on_several_nodes_at_once_the_other_nowhere)
{
	enum csvfs_use a = _i ? RAW : PLAIN, b = _i ? PLAIN : RAW;

	start(3);
	ok(1, a);
	ok(2, a);
	ok(2, a);
	busy_here(1, b);
	busy_here(2, b);
	busy_elsewhere(3, b);
	ok(3, a);
	closes(1, a);
	closes(3, a);
	closes(2, a);
	busy_elsewhere(1, b);
	busy_elsewhere(3, b);
	busy_here(2, b);
	closes(2, a);
	ok(3, b);
	ok(1, b);
	busy_elsewhere(2, a);
	closes(3, b);
	closes(1, b);
	for (unsigned id = 1; id <= 3; id++)
		cw_umount(id);
	cw_teardown();
}
END_TEST

START_TEST(a_busy_answer_comes_in_about_a_second_and_a_free_one_at_once)
{
	uint64_t t;

	start(2);
	ok(1, RAW);
	t = cw.clk.now_ns;
	busy_elsewhere(2, PLAIN);
	ck_assert_uint_ge(cw.clk.now_ns - t, 900 * NS_PER_MS);
	ck_assert_uint_le(cw.clk.now_ns - t, 1500 * NS_PER_MS);
	closes(1, RAW);
	t = cw.clk.now_ns;
	ok(2, PLAIN);			/* node 1 has the lock cached still */
	ck_assert_uint_le(cw.clk.now_ns - t, 100 * NS_PER_MS);
	closes(2, PLAIN);
	cw_teardown();
}
END_TEST

static uint64_t messages(unsigned id)
{
	struct dlm_stats s;

	dlm_stats(csvfs_dlm(cw_n(id)->fs), &s);
	return s.requests;
}

/* The file was made here, so the inode is held EX: writers are counted, no lock is asked for; but when another node looks, they are seen. */
START_TEST(a_writer_of_a_new_file_costs_no_lock_and_is_seen_all_the_same)
{
	uint64_t before;

	start(2);
	cw_settle(2000);	/* locks of numbers for files to come are fetched in advance */
	before = messages(1);
	ok(1, PLAIN);
	ck_assert_uint_eq(messages(1), before);
	busy_elsewhere(2, RAW);
	ck_assert_uint_gt(messages(1), before);
	closes(1, PLAIN);
	ok(2, RAW);
	cw_do(1, attr_coro);
	ck_assert(flag);
	/* EX comes back to node 1 by a change of attributes; of an image that proves nothing */
	cw_do(1, touch_coro);
	busy_elsewhere(1, PLAIN);
	closes(2, RAW);
	ok(1, PLAIN);
	closes(1, PLAIN);
	cw_teardown();
}
END_TEST

START_TEST(the_first_raw_opener_makes_it_an_image_for_ever)
{
	start(2);
	cw_do(2, attr_coro);
	ck_assert(!flag);
	ok(1, RAW);
	closes(1, RAW);
	cw_umount(1);
	cw_umount(2);
	cw_mount(3);
	cw_do(3, attr_coro);
	ck_assert(flag);
	cw_teardown();
}
END_TEST

START_TEST(what_a_dead_node_had_open_is_waited_for_until_it_is_recovered)
{
	start(3);
	ok(2, RAW);
	cw_do(1, attr_coro);		/* the inode itself is not held EX by node 2 any more */
	cw.fence_ns = 5000 * NS_PER_MS;
	cw_power_cut(2);
	use = PLAIN;
	cw_start(1, open_coro);
	ck_assert(!cw_run(4900, cw_is_done, cw_n(1)));
	ck_assert(cw_run(1000, cw_is_done, cw_n(1)));
	ck_assert_int_eq(cw_n(1)->ret, 0);
	busy_elsewhere(3, RAW);
	closes(1, PLAIN);
	ok(3, RAW);
	closes(3, RAW);
	cw_teardown();
}
END_TEST

START_TEST(a_change_of_view_is_waited_out_not_answered_with_busy)
{
	start(3);
	ok(1, RAW);			/* node 2 has nothing of the file cached */
	closes(1, RAW);
	cw.fence_fail = UINT32_MAX;	/* the majority waits for ever */
	cw_partition(1u << 2);
	use = PLAIN;
	cw_start(2, open_coro);
	ck_assert(!cw_run(5000, cw_is_done, cw_n(2)));
	cw_teardown();
}
END_TEST

static void late_open_coro(void *arg)
{
	struct cw_node *n = arg;

	coro_sleep_ns(n->env.sched, 10 * NS_PER_MS);
	open_coro(n);
}

static void look_at(unsigned id)
{
	cw_do(id, attr_coro);
	ck_assert(flag);
}

/* R27: the signal came before the lock was asked for. */
START_TEST(who_is_killed_on_the_way_does_not_wait_for_another_nodes_use)
{
	struct coro *opener;

	start(2);
	ok(1, RAW);
	closes(1, RAW);
	ok(2, PLAIN);
	look_at(1);		/* so that nothing is waited for before the use */
	use = RAW;
	cw_n(1)->done = false;
	ck_assert_int_eq(sched_spawn_ret(cw_n(1)->env.sched, "killed", late_open_coro, cw_n(1), &opener), 0);
	sched_run(cw_n(1)->env.sched);
	sched_cancel(cw_n(1)->env.sched, opener);
	ck_assert_msg(cw_run(3000, cw_is_done, cw_n(1)), "it waits for as long as node 2 has the file open");
	ck_assert_int_eq(cw_n(1)->ret, -EINTR);
	busy_elsewhere(1, RAW);
	closes(2, PLAIN);
	ok(1, RAW);
	closes(1, RAW);
	for (unsigned id = 1; id <= 2; id++)
		cw_umount(id);
	cw_teardown();
}
END_TEST

START_TEST(closing_on_a_withdrawn_volume_is_harmless)
{
	start(2);
	ok(1, PLAIN);
	ok(2, PLAIN);
	csvfs_withdraw(cw_n(1)->fs, "test");
	cw_settle(2000);
	ck_assert_int_lt(opens(1, PLAIN), 0);
	closes(1, PLAIN);
	closes(2, PLAIN);
	cw_teardown();
}
END_TEST

UNIT_MAIN("image", UNIT_LOOP(one_kind_on_several_nodes_at_once_the_other_nowhere, 0, 2),
	  UNIT_TEST(a_busy_answer_comes_in_about_a_second_and_a_free_one_at_once),
	  UNIT_TEST(a_writer_of_a_new_file_costs_no_lock_and_is_seen_all_the_same),
	  UNIT_TEST(the_first_raw_opener_makes_it_an_image_for_ever), UNIT_TEST(what_a_dead_node_had_open_is_waited_for_until_it_is_recovered),
	  UNIT_TEST(a_change_of_view_is_waited_out_not_answered_with_busy), UNIT_TEST(who_is_killed_on_the_way_does_not_wait_for_another_nodes_use),
	  UNIT_TEST(closing_on_a_withdrawn_volume_is_harmless))
