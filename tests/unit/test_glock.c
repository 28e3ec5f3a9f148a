/* SPDX-License-Identifier: GPL-2.0-only */
/* Cached cluster locks: sharing on one node, giving up in release order, fairness between nodes, lock order. */
#include "tests/unit/core_world.h"

#include <signal.h>
#include <sys/stat.h>

#define RES OWN_RENAME		/* a lock without operations of its own */

/* ---- a script of one coroutine: get, wait for `release`, put ------------------------------------------------------------------------- */

struct user {
	struct cw_node *n;
	struct csv_owner res;
	enum dlm_mode mode;
	unsigned flags;
	struct glock_holder gh;
	struct completion release;
	int ret;
	bool holds, done;
	unsigned order;
	struct coro *coro;
};
static unsigned order;

static void user_coro(void *arg)
{
	struct user *u = arg;

	u->ret = glock_get(u->n->fs, u->res, u->mode, u->flags, &u->gh);
	if (!u->ret) {
		u->holds = true;
		u->order = ++order;
		completion_wait(u->n->env.sched, &u->release);
		u->holds = false;
		glock_put(&u->gh);
	}
	u->done = true;
}

static void user_start(struct user *u, unsigned id, struct csv_owner res, enum dlm_mode mode, unsigned flags)
{
	memset(u, 0, sizeof(*u));
	u->n = cw_n(id);
	u->res = res;
	u->mode = mode;
	u->flags = flags;
	completion_init(&u->release);
	ck_assert_int_eq(sched_spawn_ret(u->n->env.sched, "user", user_coro, u, &u->coro), 0);
	cw_settle(20);
}

static void user_release(struct user *u)
{
	completion_done(u->n->env.sched, &u->release, 0);
	cw_settle(20);
	ck_assert(u->done);
}

static enum dlm_mode cached(unsigned id, struct csv_owner res)
{
	struct glock *gl = glock_find(cw_n(id)->fs, res);

	return gl ? gl->mode : DLM_NL;
}

static void two_nodes(void)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_settle(1000);
}

START_TEST(a_released_lock_stays_cached_and_costs_no_message)
{
	struct user u;
	struct dlm_stats a, b;

	two_nodes();
	user_start(&u, 1, RES, DLM_EX, 0);
	user_release(&u);
	ck_assert_int_eq(cached(1, RES), DLM_EX);
	dlm_stats(cw_n(1)->fs->dlm, &a);
	for (unsigned i = 0; i < 10; i++) {
		user_start(&u, 1, RES, i % 2 ? DLM_PR : DLM_EX, 0);
		ck_assert(u.holds);
		user_release(&u);
	}
	dlm_stats(cw_n(1)->fs->dlm, &b);
	ck_assert_uint_eq(a.messages_sent, b.messages_sent);
	cw_teardown();
}
END_TEST

START_TEST(exclusive_excludes_other_coroutines_of_the_node_and_shared_does_not)
{
	struct user a, b, c;

	two_nodes();
	user_start(&a, 1, RES, DLM_PR, 0);
	user_start(&b, 1, RES, DLM_PR, 0);
	user_start(&c, 1, RES, DLM_EX, 0);
	ck_assert(a.holds && b.holds && !c.holds);
	user_release(&a);
	ck_assert(!c.holds);
	user_release(&b);
	ck_assert(c.holds);
	user_start(&a, 1, RES, DLM_PR, 0);
	ck_assert(!a.holds);
	user_release(&c);
	ck_assert(a.holds);
	user_release(&a);
	cw_teardown();
}
END_TEST

START_TEST(local_requests_are_served_first_come_first_served)
{
	struct user u[6];

	two_nodes();
	order = 0;
	for (unsigned i = 0; i < 6; i++)
		user_start(&u[i], 1, RES, i == 2 ? DLM_PR : DLM_EX, 0);
	for (unsigned i = 0; i < 6; i++) {
		ck_assert_msg(u[i].holds, "%u does not hold", i);
		ck_assert_uint_eq(u[i].order, i + 1);
		user_release(&u[i]);
	}
	cw_teardown();
}
END_TEST

START_TEST(another_node_waits_for_the_holder_and_gets_the_lock_when_it_ends)
{
	struct user a, b;

	two_nodes();
	user_start(&a, 1, RES, DLM_EX, 0);
	user_start(&b, 2, RES, DLM_EX, 0);
	cw_settle(1000);
	ck_assert(a.holds && !b.holds);
	user_release(&a);
	ck_assert(b.holds);
	ck_assert_int_eq(cached(1, RES), DLM_NL);
	user_release(&b);
	cw_teardown();
}
END_TEST

START_TEST(exclusive_weakens_to_what_the_other_asks_for)
{
	struct user a, b;

	two_nodes();
	user_start(&a, 1, RES, DLM_EX, 0);
	user_release(&a);
	user_start(&b, 2, RES, DLM_PR, 0);
	ck_assert(b.holds);
	ck_assert_int_eq(cached(1, RES), DLM_PR);
	user_start(&a, 1, RES, DLM_CR, 0);
	ck_assert(a.holds && b.holds);
	user_release(&a);
	user_release(&b);
	user_start(&a, 1, RES, DLM_EX, 0);
	user_release(&a);
	user_start(&b, 2, RES, DLM_CW, 0);
	ck_assert(b.holds);
	ck_assert_int_eq(cached(1, RES), DLM_CW);
	user_release(&b);
	cw_teardown();
}
END_TEST

START_TEST(noqueue_waits_for_nobody)
{
	struct user a, b;

	two_nodes();
	user_start(&a, 1, RES, DLM_PR, 0);
	user_start(&b, 1, RES, DLM_EX, GLOCK_NOQUEUE);
	ck_assert(b.done);
	ck_assert_int_eq(b.ret, -EAGAIN);
	user_start(&b, 2, RES, DLM_EX, GLOCK_NOQUEUE);
	ck_assert(b.done);
	ck_assert_int_eq(b.ret, -EAGAIN);
	user_release(&a);
	cw_settle(100);
	user_start(&b, 2, RES, DLM_EX, GLOCK_NOQUEUE);	/* the first try asked for it */
	ck_assert(b.holds);
	user_release(&b);
	cw_teardown();
}
END_TEST

START_TEST(local_only_never_sends)
{
	struct user a, b;
	struct dlm_stats x, y;

	two_nodes();
	user_start(&a, 1, RES, DLM_PR, 0);
	user_release(&a);
	dlm_stats(cw_n(1)->fs->dlm, &x);
	user_start(&a, 1, RES, DLM_PR, GLOCK_LOCAL_ONLY);
	ck_assert(a.holds);
	user_start(&b, 1, RES, DLM_EX, GLOCK_LOCAL_ONLY);
	ck_assert_int_eq(b.ret, -EAGAIN);
	user_start(&b, 1, OWN_OPEN(99), DLM_PR, GLOCK_LOCAL_ONLY);
	ck_assert_int_eq(b.ret, -EAGAIN);
	dlm_stats(cw_n(1)->fs->dlm, &y);
	ck_assert_uint_eq(x.messages_sent, y.messages_sent);
	user_release(&a);
	cw_teardown();
}
END_TEST

START_TEST(a_cancelled_wait_answers_eintr_and_leaves_no_trace)
{
	struct user a, b, c;

	two_nodes();
	user_start(&a, 1, RES, DLM_EX, 0);
	user_start(&b, 2, RES, DLM_EX, 0);
	ck_assert(!b.holds);
	sched_cancel(b.n->env.sched, b.coro);
	cw_settle(20);
	ck_assert(b.done);
	ck_assert_int_eq(b.ret, -EINTR);
	user_start(&c, 2, RES, DLM_PR, 0);
	ck_assert(!c.holds);
	user_release(&a);
	ck_assert(c.holds);
	user_release(&c);
	cw_teardown();
}
END_TEST

static uint64_t counter[3];
static bool stop_counting;

static void count_coro(void *arg)
{
	struct cw_node *n = arg;
	struct glock_holder gh;

	while (!stop_counting) {
		ck_assert_int_eq(glock_get(n->fs, RES, DLM_EX, 0, &gh), 0);
		counter[n->id]++;
		coro_sleep_ns(n->env.sched, 50000);
		glock_put(&gh);
		coro_yield(n->env.sched);
	}
	n->done = true;
}

START_TEST(two_nodes_that_fight_for_a_lock_both_get_on)
{
	struct cw_node *a, *b;

	two_nodes();
	a = cw_n(1);
	b = cw_n(2);
	counter[1] = counter[2] = 0;
	stop_counting = false;
	cw_start(1, count_coro);
	cw_start(2, count_coro);
	cw_settle(2000);
	stop_counting = true;
	ck_assert(cw_run(1000, cw_is_done, a) && cw_run(1000, cw_is_done, b));
	printf("2 s of world time: node 1 %" PRIu64 " operations, node 2 %" PRIu64 "\n", counter[1], counter[2]);
	ck_assert_uint_ge(counter[1], 5000);
	ck_assert_uint_ge(counter[2], 5000);
	/* neither more than twice the other */
	ck_assert_uint_le(counter[1], 2 * counter[2]);
	ck_assert_uint_le(counter[2], 2 * counter[1]);
	cw_teardown();
}
END_TEST

static uint32_t change_value;

static void change_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = cw_group_set(n->fs, change_value, false);
	n->done = true;
}

static uint32_t read_value;

static void read_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = cw_group_get(n->fs, &read_value);
	n->done = true;
}

START_TEST(an_uncommitted_change_is_home_before_another_node_reads)
{
	two_nodes();
	for (uint32_t i = 1; i <= 20; i++) {
		change_value = i;
		cw_do(1 + i % 2, change_coro);
		cw_do(2 - i % 2, read_coro);
		ck_assert_uint_eq(read_value, i);
		ck_assert_uint_eq(cw_group_on_disk(&cw_n(1)->fs->geo), i);
	}
	cw_teardown();
}
END_TEST

/* ---- unmount -------------------------------------------------------------------------------------------------------------------------- */

#define MANY 3u			/* the small volume has one group: orphan trees of the slots */

static void many_ex_coro(void *arg)
{
	struct cw_node *n = arg;

	for (uint32_t i = 0; i < MANY; i++) {
		struct glock_holder gh;

		ck_assert_int_eq(glock_get(n->fs, OWN_ORPHAN(i), DLM_EX, 0, &gh), 0);
		glock_put(&gh);
	}
	n->done = true;
}

START_TEST(unmount_gives_every_cached_lock_up)
{
	struct user u;

	two_nodes();
	cw_do(1, many_ex_coro);
	user_start(&u, 1, RES, DLM_EX, 0);
	user_release(&u);
	for (uint32_t i = 0; i < MANY; i++)
		ck_assert_int_eq(cached(1, OWN_ORPHAN(i)), DLM_EX);
	cw_umount(1);
	cw_do(2, many_ex_coro);
	user_start(&u, 2, RES, DLM_EX, 0);
	ck_assert(u.holds);
	user_release(&u);
	ck_assert_uint_eq(cw.fence_calls, 0);
	cw_teardown();
}
END_TEST

/* ---- many locks demanded at once ------------------------------------------------------------------------------------------------------ */

static void many_inodes_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csvfs_attr a;
	char name[16];

	for (unsigned i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		ck_assert_int_eq(csvfs_create(n->fs, csvfs_root_ino(n->fs), 0, name, S_IFREG | 0644, 0, 0, 0, false, &a), 0);
	}
	n->done = true;
}

static uint64_t ino_of[50];
static unsigned stats_left;

static void stat_one_coro(void *arg)
{
	struct csvfs_attr a;
	uint64_t *ino = arg;

	ck_assert_int_eq(csvfs_getattr(cw_n(2)->fs, *ino, 0, &a), 0);
	stats_left--;
}

static void lookup_all_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csvfs_attr a;
	char name[16];

	for (unsigned i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		ck_assert_int_eq(csvfs_lookup(n->fs, csvfs_root_ino(n->fs), 0, name, &a), 0);
		ino_of[i] = a.ino;
	}
	n->done = true;
}

static bool all_stated(void *arg)
{
	(void)arg;
	return !stats_left;
}

START_TEST(locks_demanded_together_are_written_back_together)
{
	struct jnl_stats a, b;

	two_nodes();
	cw_do(1, many_inodes_coro);
	cw_do(1, lookup_all_coro);
	jnl_stats(csvfs_jnl(cw_n(1)->fs), &a);
	stats_left = 50;
	for (unsigned i = 0; i < 50; i++)
		ck_assert_int_eq(sched_spawn(cw_n(2)->env.sched, "stat", stat_one_coro, &ino_of[i]), 0);
	ck_assert(cw_run(10000, all_stated, NULL));
	jnl_stats(csvfs_jnl(cw_n(1)->fs), &b);
	printf("50 locks demanded at once: %" PRIu64 " releases, %" PRIu64 " flushes\n", b.releases - a.releases, b.flushes - a.flushes);
	ck_assert_uint_ge(b.releases - a.releases, 1);
	ck_assert_uint_le(b.releases - a.releases, 10);
	ck_assert_uint_le(b.flushes - a.flushes, 12);	/* not one a lock */
	cw_teardown();
}
END_TEST

/* ---- written back while unused ------------------------------------------------------------------------------------------------------- */

START_TEST(unused_locks_are_written_back_together_and_then_leave_without_a_flush)
{
	struct jnl_stats a, b, c;

	two_nodes();
	cw_do(1, many_inodes_coro);
	jnl_stats(csvfs_jnl(cw_n(1)->fs), &a);
	cw_settle(3000);
	jnl_stats(csvfs_jnl(cw_n(1)->fs), &b);
	ck_assert_int_eq(cached(1, OWN_INODE(csvfs_root_ino(cw_n(1)->fs))), DLM_EX);
	ck_assert(!jnl_owner_busy(csvfs_jnl(cw_n(1)->fs), OWN_INODE(csvfs_root_ino(cw_n(1)->fs))));
	/* Two rounds at most (the first may come while files are still being made), each commit, homes, revokes or a new tail. */
	ck_assert_uint_gt(b.flushes, a.flushes);
	ck_assert_uint_le(b.flushes - a.flushes, 8);
	cw_do(2, lookup_all_coro);
	jnl_stats(csvfs_jnl(cw_n(1)->fs), &c);
	printf("50 new files: %" PRIu64 " flushes in the background, %" PRIu64 " when another node looks\n", b.flushes - a.flushes,
	       c.flushes - b.flushes);
	ck_assert_uint_eq(c.flushes, b.flushes);
	cw_teardown();
}
END_TEST

START_TEST(a_lock_that_must_be_written_back_takes_unused_ones_along)
{
	struct jnl_stats a, b;

	two_nodes();
	cw_do(1, many_inodes_coro);
	cw_settle(100);		/* unused, but not for long enough to be written back unasked */
	jnl_stats(csvfs_jnl(cw_n(1)->fs), &a);
	cw_do(2, lookup_all_coro);
	jnl_stats(csvfs_jnl(cw_n(1)->fs), &b);
	printf("50 new files, looked at by another node one by one: %" PRIu64 " flushes\n", b.flushes - a.flushes);
	ck_assert_uint_gt(b.flushes, a.flushes);
	ck_assert_uint_le(b.flushes - a.flushes, 8);
	cw_teardown();
}
END_TEST

static void in_use_coro(void *arg)
{
	struct cw_node *n = arg;

	for (unsigned i = 0; i < 200; i++) {
		ck_assert_int_eq(cw_group_set(n->fs, i, false), 0);
		coro_sleep_ns(n->env.sched, 20 * NS_PER_MS);
	}
	n->done = true;
}

START_TEST(a_lock_in_steady_use_is_not_written_back_in_the_background)
{
	struct jnl_stats a, b;

	two_nodes();
	jnl_stats(csvfs_jnl(cw_n(1)->fs), &a);
	cw_do(1, in_use_coro);
	jnl_stats(csvfs_jnl(cw_n(1)->fs), &b);
	ck_assert_uint_eq(a.releases, b.releases);
	cw_teardown();
}
END_TEST

START_TEST(unmount_waits_for_the_background_and_loses_nothing)
{
	/* At every moment around the background's turn. */
	for (unsigned ms = 990; ms <= 1010; ms += 2) {
		two_nodes();
		cw_do(1, many_inodes_coro);
		cw_settle(ms);
		cw_umount(1);
		cw_do(2, lookup_all_coro);
		ck_assert_uint_eq(cw.fence_calls, 0);
		cw_teardown();
	}
}
END_TEST

START_TEST(cached_locks_work_while_no_view_is_usable_and_new_ones_wait)
{
	struct user a, b;

	two_nodes();
	user_start(&a, 1, RES, DLM_EX, 0);
	user_release(&a);
	cw.no_quorum = true;
	cw_new_ring();
	cw_settle(100);
	ck_assert_int_eq(csvfs_state(cw_n(1)->fs, NULL), CSVFS_PAUSED);
	user_start(&a, 1, RES, DLM_PR, 0);
	ck_assert(a.holds);
	user_start(&b, 1, OWN_OPEN(77), DLM_PR, 0);
	ck_assert(!b.holds);
	cw.no_quorum = false;
	cw_new_ring();
	cw_settle(1000);
	ck_assert(b.holds);
	ck_assert_int_eq(csvfs_state(cw_n(1)->fs, NULL), CSVFS_ACTIVE);
	user_release(&a);
	user_release(&b);
	cw_teardown();
}
END_TEST

START_TEST(a_withdrawal_ends_every_wait)
{
	struct user a, b, c;

	two_nodes();
	user_start(&a, 1, RES, DLM_EX, 0);
	user_start(&b, 1, RES, DLM_EX, 0);
	user_start(&c, 2, RES, DLM_EX, 0);
	csvfs_withdraw(cw_n(1)->fs, "test");
	cw_settle(20);
	ck_assert(b.done);
	ck_assert_int_eq(b.ret, -CSV_E_WITHDRAWN);
	user_release(&a);
	cw_settle(10000);
	ck_assert(c.holds);		/* proof by its own word, nothing to replay */
	user_release(&c);
	cw_teardown();
}
END_TEST

/* ---- lock order ------------------------------------------------------------------------------------------------------------------------- */

static struct csv_owner first_res, second_res;
static bool in_txn;

static void order_coro(void *arg)
{
	struct cw_node *n = arg;
	struct glock_holder a, b;

	ck_assert_int_eq(glock_get(n->fs, first_res, DLM_EX, 0, &a), 0);
	if (in_txn)
		*coro_flags(n->env.sched) |= CORO_IN_TXN;
	n->ret = glock_get(n->fs, second_res, DLM_EX, 0, &b);
	glock_put(&b);
	glock_put(&a);
	n->done = true;
}

static void order_case(struct csv_owner first, struct csv_owner second, bool txn)
{
	cw_setup();
	cw_mount(1);
	first_res = first;
	second_res = second;
	in_txn = txn;
	cw_do(1, order_coro);
	ck_assert_int_eq(cw_n(1)->ret, 0);
	cw_teardown();
}

START_TEST(rename_then_orphan_then_group_is_in_order)
{
	order_case(OWN_RENAME, OWN_ORPHAN(0), false);
	order_case(OWN_ORPHAN(1), OWN_GROUP(0), false);
}
END_TEST

START_TEST(group_then_orphan_is_caught)
{
	order_case(OWN_GROUP(0), OWN_ORPHAN(0), false);
}
END_TEST

START_TEST(the_same_lock_twice_is_caught)
{
	order_case(OWN_RENAME, OWN_RENAME, false);
}
END_TEST

START_TEST(a_lock_inside_a_transaction_is_caught)
{
	order_case(OWN_RENAME, OWN_ORPHAN(0), true);
}
END_TEST

UNIT_MAIN("glock", UNIT_TEST(a_released_lock_stays_cached_and_costs_no_message),
	  UNIT_TEST(exclusive_excludes_other_coroutines_of_the_node_and_shared_does_not),
	  UNIT_TEST(local_requests_are_served_first_come_first_served),
	  UNIT_TEST(another_node_waits_for_the_holder_and_gets_the_lock_when_it_ends), UNIT_TEST(exclusive_weakens_to_what_the_other_asks_for),
	  UNIT_TEST(noqueue_waits_for_nobody), UNIT_TEST(local_only_never_sends), UNIT_TEST(a_cancelled_wait_answers_eintr_and_leaves_no_trace),
	  UNIT_TEST(two_nodes_that_fight_for_a_lock_both_get_on), UNIT_TEST(an_uncommitted_change_is_home_before_another_node_reads),
	  UNIT_TEST(unmount_gives_every_cached_lock_up), UNIT_TEST(locks_demanded_together_are_written_back_together),
	  UNIT_TEST(unused_locks_are_written_back_together_and_then_leave_without_a_flush),
	  UNIT_TEST(a_lock_that_must_be_written_back_takes_unused_ones_along),
	  UNIT_TEST(a_lock_in_steady_use_is_not_written_back_in_the_background), UNIT_TEST(unmount_waits_for_the_background_and_loses_nothing),
	  UNIT_TEST(cached_locks_work_while_no_view_is_usable_and_new_ones_wait),
	  UNIT_TEST(a_withdrawal_ends_every_wait), UNIT_TEST(rename_then_orphan_then_group_is_in_order),
	  UNIT_SIGNAL(group_then_orphan_is_caught, SIGABRT), UNIT_SIGNAL(the_same_lock_twice_is_caught, SIGABRT),
	  UNIT_SIGNAL(a_lock_inside_a_transaction_is_caught, SIGABRT))
