/* SPDX-License-Identifier: GPL-2.0-only */
/* Operations and unmounts while locks of lost nodes stand, or while somebody waits for a lock that leaves. */
#define CW_BYTES (4ull << 30)		/* several groups */
#include "tests/unit/core_world.h"

#include <sys/stat.h>

#include "csvfs/alloc.h"

/* Nodes die here in the middle of coroutines, whose memory nobody frees then: not a leak of the core. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

#define FILES 400u

static unsigned made;

static void create_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csvfs_attr a;
	char name[24];

	n->ret = 0;
	for (unsigned i = 0; i < FILES && !n->ret; i++) {
		snprintf(name, sizeof(name), "n%u-%u", n->id, made);
		n->ret = csvfs_create(n->fs, csvfs_root_ino(n->fs), 0, name, S_IFREG | 0644, 0, 0, 0, false, &a);
		made += !n->ret;
	}
	n->done = true;
}

/*
 * Two of three nodes are lost, and no directory knows any more who has what: every number that nobody here has locked counts as
 * locked by the lost until they are replayed.  A new file waits for that; it is not refused.
 */
START_TEST(creating_files_waits_for_the_recovery_of_two_lost_nodes)
{
	uint64_t t0;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_mount(3);
	made = 0;
	cw_do(1, create_coro);
	ck_assert_int_eq(cw_n(1)->ret, 0);
	cw.fence_ns = 20 * NS_PER_SEC;
	cw_off(2, false);
	cw_off(3, false);
	cw.ring_seq += 40;		/* rings without us: views may have been that nobody here knows of */
	cw_new_ring();
	t0 = cw.clk.now_ns;
	cw_do(1, create_coro);
	ck_assert_msg(cw_n(1)->ret == 0, "file %u: %d\n%s", made, cw_n(1)->ret, cw.all_log);
	ck_assert_uint_eq(made, 2 * FILES);
	ck_assert_uint_eq(cw.fence_calls, 2);
	ck_assert_uint_ge(cw.clk.now_ns - t0, cw.fence_ns);
	printf("%u files made %" PRIu64 " ms after the loss of two nodes (agent: %" PRIu64 " ms)\n", FILES,
	       (uint64_t)((cw.clk.now_ns - t0) / NS_PER_MS), (uint64_t)(cw.fence_ns / NS_PER_MS));
	cw_umount(1);
	cw_teardown();
}
END_TEST

static void orphan_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csvfs_attr a;

	ck_assert_int_eq(csvfs_create(n->fs, csvfs_root_ino(n->fs), 0, "f", S_IFREG | 0644, 0, 0, 0, false, &a), 0);
	ck_assert_int_eq(csvfs_open(n->fs, a.ino, a.gen), 0);
	ck_assert_int_eq(csvfs_unlink(n->fs, csvfs_root_ino(n->fs), 0, "f"), 0);
	ck_assert_int_eq(csvfs_sync(n->fs), 0);
	n->done = true;
}

START_TEST(an_unmount_does_not_wait_for_a_reaper_that_waits_for_a_lost_node)
{
	uint64_t t0;
	uint32_t slot;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_mount(3);
	cw_do(2, orphan_coro);			/* the lock of its orphans is there */
	cw.fence_fail = 100000;			/* and stays: nobody can prove that node 2 is gone */
	slot = csvfs_slot(cw_n(2)->fs);
	cw_power_cut(2);
	cw_settle(500);
	orphan_scan_later(cw_n(1)->fs, slot);
	cw_settle(500);
	t0 = cw.clk.now_ns;
	cw_start(1, cw_umount_coro);
	ck_assert_msg(cw_run(60000, cw_is_done, cw_n(1)), "the unmount hangs\n%s", cw.all_log);
	ck_assert_int_eq(cw_n(1)->ret, 0);
	printf("unmounted after %" PRIu64 " ms\n", (uint64_t)((cw.clk.now_ns - t0) / NS_PER_MS));
	cw_off(1, false);
	cw_teardown();
}
END_TEST

static void take_ex_coro(void *arg)
{
	struct cw_node *n = arg;
	struct glock_holder gh;

	n->ret = glock_get(n->fs, OWN_GROUP(0), DLM_EX, 0, &gh);
	glock_put(&gh);
	n->done = true;
}

static bool is_wanted(void *arg)
{
	struct cw_node *n = arg;
	struct dlm_stats st;

	dlm_stats(csvfs_dlm(n->fs), &st);
	return st.waiting > 0;
}

/* Another node has asked for the lock, its minimum hold is not over, and nobody here uses it: only its worker keeps it. */
START_TEST(an_unmount_gives_back_a_lock_in_its_minimum_hold)
{
	cw_setup();
	cw_boot(1);
	cw_n(1)->opt.min_hold_us = 100000;
	cw_do(1, cw_mount_coro);
	ck_assert_int_eq(cw_n(1)->ret, 0);
	cw_mount(2);
	cw_settle(1000);
	cw_do(1, take_ex_coro);
	cw_start(2, take_ex_coro);
	ck_assert(cw_run(50, is_wanted, cw_n(1)));
	cw_umount(1);
	ck_assert(cw_run(10000, cw_is_done, cw_n(2)));
	ck_assert_int_eq(cw_n(2)->ret, 0);
	ck_assert_uint_eq(cw.fence_calls, 0);
	cw_umount(2);
	cw_teardown();
}
END_TEST

static const char *make_name, *unlink_name;
static struct csvfs_attr made_attr;

static void make_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = csvfs_create(n->fs, csvfs_root_ino(n->fs), 0, make_name, S_IFREG | 0644, 0, 0, 0, false, &made_attr);
	n->done = true;
}

/* Its inode lock comes here, its group stays where it is. */
static void chmod_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csvfs_attr set = { .mode = 0600 }, a;

	n->ret = csvfs_setattr(n->fs, made_attr.ino, made_attr.gen, &set, CSVFS_SET_MODE, &a);
	if (!n->ret)
		n->ret = csvfs_sync(n->fs);
	n->done = true;
}

static void unlink_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = csvfs_unlink(n->fs, csvfs_root_ino(n->fs), 0, unlink_name);
	n->done = true;
}

static uint32_t their_group;

static void group_coro(void *arg)
{
	struct cw_node *n = arg;
	struct glock_holder gh;

	ck_assert_int_eq(glock_get(n->fs, OWN_GROUP(their_group), DLM_EX, 0, &gh), 0);
	coro_sleep_ns(n->env.sched, 3600 * NS_PER_SEC);
}

static void does_at_once(unsigned id, void (*fn)(void *arg))
{
	cw_start(id, fn);
	ck_assert_msg(cw_run(1000, cw_is_done, cw_n(id)), "node %u waits\n%s", id, cw.all_log);
	ck_assert_int_eq(cw_n(id)->ret, 0);
}

/*
 * The space of a removed file lies in a group that a lost node has locked: giving it back waits for that node, without the lock of
 * this node's orphans, which everybody needs who removes a file.
 */
START_TEST(a_file_in_a_lost_nodes_group_does_not_stop_others_from_being_removed)
{
	uint64_t theirs;

	cw_setup();
	for (unsigned id = 1; id <= 3; id++)
		cw_mount(id);
	make_name = "theirs";
	cw_do(2, make_coro);
	ck_assert_int_eq(cw_n(2)->ret, 0);
	theirs = made_attr.ino;
	their_group = alloc_group_of(cw_n(2)->fs, theirs);
	cw_do(1, chmod_coro);
	ck_assert_int_eq(cw_n(1)->ret, 0);
	make_name = "ours";
	cw_do(1, make_coro);
	ck_assert_int_eq(cw_n(1)->ret, 0);
	ck_assert_uint_ne(alloc_group_of(cw_n(1)->fs, made_attr.ino), alloc_group_of(cw_n(1)->fs, theirs));
	cw_start(2, group_coro);	/* its group is in use there */
	cw_settle(100);
	cw.fence_fail = 100000;
	cw_power_cut(2);
	cw_settle(1000);
	unlink_name = "theirs";
	does_at_once(1, unlink_coro);
	unlink_name = "ours";
	does_at_once(1, unlink_coro);
	make_name = "more";
	does_at_once(1, make_coro);
	unlink_name = "more";
	does_at_once(1, unlink_coro);
	cw.fence_fail = 0;
	cw_settle(60000);
	ck_assert(!recover_is_pending(cw_n(1)->fs));
	cw_umount(3);
	cw_umount(1);
	cw_teardown();
}
END_TEST

static struct csvfs_attr opened;

static void create_one_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = csvfs_create(n->fs, csvfs_root_ino(n->fs), 0, "one", S_IFREG | 0644, 0, 0, 0, false, &opened);
	n->done = true;
}

struct opener { struct coro *coro; bool done; int ret; };

static void opener_coro(void *arg)
{
	struct opener *o = arg;

	o->ret = csvfs_open(cw_n(1)->fs, opened.ino, opened.gen);
	o->done = true;
}

static bool opener_done(void *arg)
{
	return ((struct opener *)arg)->done;
}

/* R27: the first waits for the lost node's lock, the second for the first. */
START_TEST(who_waits_behind_another_opener_can_be_killed)
{
	struct opener a = { 0 }, b = { 0 };

	cw_setup_bytes(4ull << 30);
	for (unsigned id = 1; id <= 3; id++)
		cw_mount(id);
	cw_do(2, create_one_coro);
	ck_assert_int_eq(cw_n(2)->ret, 0);
	cw.fence_fail = 100000;
	cw_power_cut(2);
	cw_settle(500);
	ck_assert_int_eq(sched_spawn_ret(cw_n(1)->env.sched, "a", opener_coro, &a, &a.coro), 0);
	ck_assert_int_eq(sched_spawn_ret(cw_n(1)->env.sched, "b", opener_coro, &b, &b.coro), 0);
	cw_settle(500);
	ck_assert(!a.done && !b.done);
	sched_cancel(cw_n(1)->env.sched, b.coro);
	ck_assert_msg(cw_run(1000, opener_done, &b), "it waits for as long as the first does");
	ck_assert_int_eq(b.ret, -EINTR);
	ck_assert(!a.done);
	sched_cancel(cw_n(1)->env.sched, a.coro);
	ck_assert(cw_run(1000, opener_done, &a));
	ck_assert_int_eq(a.ret, -EINTR);
	cw_teardown();
}
END_TEST

#define ASKERS 10u

static struct blk_req *stalled[1024];
static unsigned n_stalled;
static bool stalls;

static void stall_submit(struct blk *b, struct blk_req *r)
{
	if (!stalls || r->op != BLK_READ) {
		cw_blk_submit(b, r);
		return;
	}
	ck_assert_uint_lt(n_stalled, ARRAY_SIZE(stalled));
	stalled[n_stalled++] = r;
}
static const struct blk_ops stall_ops = { stall_submit, cw_blk_close };

struct asker { bool done; int ret; struct csvfs_statfs st; };

static void ask_space_coro(void *arg)
{
	struct asker *a = arg;

	a->ret = csvfs_statfs(cw_n(1)->fs, &a->st);
	a->done = true;
}

static void ask_space(struct asker *a)
{
	ck_assert_int_eq(sched_spawn(cw_n(1)->env.sched, "space", ask_space_coro, a), 0);
	cw_settle(1000);
}

/* csvctl and hvhostd ask again and again; the disk may not answer for hours (R13: all wait). */
START_TEST(asking_a_stalled_disk_for_its_free_space_heaps_nothing_up)
{
	struct asker first = { 0 }, a[ASKERS] = { 0 }, last = { 0 };
	unsigned reads = 0;

	cw_setup_bytes(4ull << 30);
	cw_mount(1);
	cw_n(1)->blk.ops = &stall_ops;
	ask_space(&first);
	ck_assert(first.done && !first.ret);
	stalls = true;
	for (unsigned i = 0; i < ASKERS; i++) {
		ask_space(&a[i]);
		if (i == 0)
			reads = n_stalled;
	}
	ck_assert_uint_gt(reads, 0);
	ck_assert_msg(n_stalled == reads, "%u reads wait after %u questions, %u after the first", n_stalled, ASKERS, reads);
	for (unsigned i = 1; i < ASKERS; i++) {
		ck_assert_msg(a[i].done && !a[i].ret, "question %u waits for the disk", i);
		ck_assert_uint_eq(a[i].st.bfree, first.st.bfree);
	}
	stalls = false;
	for (unsigned i = 0; i < n_stalled; i++)
		cw_blk_submit(&cw_n(1)->blk, stalled[i]);
	cw_settle(10);
	ck_assert(a[0].done && !a[0].ret);
	ask_space(&last);
	ck_assert(last.done && !last.ret);
	ck_assert_uint_eq(last.st.bfree, first.st.bfree);
	cw_umount(1);
	cw_teardown();
}
END_TEST

UNIT_MAIN("lost_locks", UNIT_TEST(a_file_in_a_lost_nodes_group_does_not_stop_others_from_being_removed),
	  UNIT_TEST(who_waits_behind_another_opener_can_be_killed),
	  UNIT_TEST(asking_a_stalled_disk_for_its_free_space_heaps_nothing_up),
	  UNIT_TEST(creating_files_waits_for_the_recovery_of_two_lost_nodes),
	  UNIT_TEST(an_unmount_does_not_wait_for_a_reaper_that_waits_for_a_lost_node),
	  UNIT_TEST(an_unmount_gives_back_a_lock_in_its_minimum_hold))
