/* SPDX-License-Identifier: GPL-2.0-only */
/* Programs' file locks when the view changes in the middle of a request, and the program does not want to wait any more. */
#include "tests/unit/core_world.h"

#include "csvfs/plock.h"

/* Nodes are taken away in the middle of coroutines, whose memory nobody frees then: not a leak of the core. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

struct program { unsigned node, owner; enum plock_type type; uint64_t start, end; bool wait, done; int ret; struct coro *coro; };

static void lock_coro(void *arg)
{
	struct program *p = arg;
	const struct plock_who who = { .key = 4711, .kind = PLOCK_POSIX, .id = p->owner, .pid = p->owner };

	p->ret = plock_set(csvfs_plocks(cw_n(p->node)->fs), &who, p->type, p->start, p->end, p->wait);
	p->done = true;
}

static bool is_done(void *arg)
{
	return ((struct program *)arg)->done;
}

static void ask(struct program *p)
{
	ck_assert_int_eq(sched_spawn_ret(cw_n(p->node)->env.sched, "program", lock_coro, p, &p->coro), 0);
	cw_settle(20);
}

/* A signal comes; the program has heard of it before anything else happens. */
static void interrupt(struct program *p)
{
	ck_assert(!p->done);
	sched_cancel(cw_n(p->node)->env.sched, p->coro);
	sched_run(cw_n(p->node)->env.sched);
}

static void three_nodes(void)
{
	cw_setup();
	for (unsigned id = 1; id <= 3; id++)
		cw_mount(id);
}

/*
 *	n1 has [0, 9] for writing, n2 waits to read it.  n1 asks for reading instead:
 *	all apply it, n2's lock is granted, everybody's word for that has come to n2: n2 reads
 *	n3's word to n1 is on its way; the view changes, and with it n1's request is not confirmed
 *
 * If n1's program were told now that it came to nothing, it would go on writing.
 */
START_TEST(a_downgrade_that_others_have_made_use_of_is_not_taken_back_by_a_signal)
{
	struct program writer = { .node = 1, .owner = 7, .type = PLOCK_WRITE, .end = 9 }, reader = { .node = 2, .owner = 8, .type = PLOCK_READ, .end = 9, .wait = true };
	struct program down = { .node = 1, .owner = 7, .type = PLOCK_READ, .end = 9 }, other = { .node = 3, .owner = 9, .type = PLOCK_READ, .end = 9 };

	three_nodes();
	ask(&writer);
	ck_assert(writer.done && !writer.ret);
	ask(&reader);
	ck_assert(!reader.done);
	cw_n(1)->deaf[2] = true;
	ask(&down);
	ck_assert_msg(reader.done && !reader.ret, "done %d: %d", reader.done, reader.ret);
	interrupt(&down);
	cw_settle(20);
	ck_assert(!down.done);
	cw_n(1)->deaf[2] = false;
	cw_new_ring();
	ck_assert_msg(cw_run(5000, is_done, &down), "%s", cw.all_log);
	ck_assert_msg(down.ret == 0, "%d: n1 writes on, and n2 reads", down.ret);
	ask(&other);
	ck_assert(other.done && !other.ret);
	cw_teardown();
}
END_TEST

/* R27: a program that is killed is not kept until there is quorum. */
START_TEST(a_program_that_is_interrupted_as_quorum_goes_does_not_wait_for_it)
{
	struct program holder = { .node = 2, .owner = 8, .type = PLOCK_WRITE, .end = 9 }, waiter = { .node = 1, .owner = 7, .type = PLOCK_WRITE, .end = 9, .wait = true };

	three_nodes();
	ask(&holder);
	ck_assert(holder.done && !holder.ret);
	ask(&waiter);
	cw.no_quorum = true;
	cw_new_ring();			/* on its way to all: what n1 says now is of the old ring and dropped */
	interrupt(&waiter);
	ck_assert_msg(cw_run(1000, is_done, &waiter), "it waits for quorum");
	ck_assert_int_eq(waiter.ret, -EINTR);
	cw.no_quorum = false;
	cw_new_ring();
	cw_settle(100);
	waiter = (struct program){ .node = 1, .owner = 7, .type = PLOCK_WRITE, .end = 9 };
	ask(&waiter);
	ck_assert(waiter.done);
	ck_assert_int_eq(waiter.ret, -EAGAIN);		/* the holder has it still, nobody else waits */
	cw_teardown();
}
END_TEST

/* Node 3 is lost, and nobody can prove it: no lock is confirmed. */
static void lose_node_3(void)
{
	cw.fence_fail = UINT32_MAX;
	cw_power_cut(3);
	cw_settle(2000);
}

static int at_once(unsigned node, unsigned owner, enum plock_type type, uint64_t start, uint64_t end)
{
	struct program p = { .node = node, .owner = owner, .type = type, .start = start, .end = end };

	ask(&p);
	ck_assert_msg(p.done, "%s", cw.all_log);
	return p.ret;
}

static void give_up(unsigned node, unsigned owner)
{
	const struct plock_who who = { .key = 4711, .kind = PLOCK_POSIX, .id = owner, .pid = owner };

	ck_assert(!plock_concerns(csvfs_plocks(cw_n(node)->fs), &who));
}

/* R27 */
START_TEST(a_program_that_is_killed_does_not_wait_for_the_proof_about_a_lost_node)
{
	struct program writer = { .node = 1, .owner = 7, .type = PLOCK_WRITE, .end = 9 };

	three_nodes();
	lose_node_3();
	ask(&writer);
	ck_assert(!writer.done);
	interrupt(&writer);
	ck_assert_msg(cw_run(1000, is_done, &writer), "it waits for the proof");
	ck_assert_int_eq(writer.ret, -EINTR);
	cw_settle(100);
	give_up(1, 7);
	cw.fence_fail = 0;
	cw_settle(60000);
	ck_assert_int_eq(at_once(2, 8, PLOCK_WRITE, 0, 9), 0);		/* nothing of it is left in any table */
	ck_assert_int_eq(at_once(1, 9, PLOCK_READ, 9, 9), -EAGAIN);
	cw_teardown();
}
END_TEST

START_TEST(what_a_program_had_before_a_request_that_was_interrupted_it_has_still)
{
	struct program more = { .node = 1, .owner = 7, .type = PLOCK_WRITE, .start = 2, .end = 29 };

	three_nodes();
	ck_assert_int_eq(at_once(1, 7, PLOCK_READ, 0, 4), 0);
	ck_assert_int_eq(at_once(1, 7, PLOCK_WRITE, 10, 14), 0);
	ck_assert_int_eq(at_once(1, 7, PLOCK_READ, 20, 24), 0);
	lose_node_3();
	ask(&more);
	ck_assert(!more.done);
	interrupt(&more);
	ck_assert(cw_run(1000, is_done, &more));
	ck_assert_int_eq(more.ret, -EINTR);
	cw.fence_fail = 0;
	cw_settle(60000);
	for (unsigned again = 0; again < 2; again++) {		/* in the tables of this view, and in those of the next */
		ck_assert_int_eq(at_once(2, 8, PLOCK_READ, 0, 9), 0);
		ck_assert_int_eq(at_once(2, 8, PLOCK_READ, 15, 29), 0);
		ck_assert_int_eq(at_once(2, 9, PLOCK_READ, 10, 10), -EAGAIN);
		ck_assert_int_eq(at_once(2, 9, PLOCK_READ, 14, 14), -EAGAIN);
		ck_assert_int_eq(at_once(2, 9, PLOCK_WRITE, 0, 0), -EAGAIN);
		ck_assert_int_eq(at_once(2, 8, PLOCK_WRITE, 4, 4), -EAGAIN);
		ck_assert_int_eq(at_once(2, 8, PLOCK_WRITE, 24, 24), -EAGAIN);
		ck_assert_int_eq(at_once(2, 8, PLOCK_WRITE, 5, 9), 0);
		ck_assert_int_eq(at_once(2, 8, PLOCK_WRITE, 15, 19), 0);
		ck_assert_int_eq(at_once(2, 8, PLOCK_WRITE, 25, 29), 0);
		cw_new_ring();
		cw_settle(200);
	}
	cw_teardown();
}
END_TEST

UNIT_MAIN("plock_views", UNIT_TEST(a_downgrade_that_others_have_made_use_of_is_not_taken_back_by_a_signal),
	  UNIT_TEST(a_program_that_is_interrupted_as_quorum_goes_does_not_wait_for_it),
	  UNIT_TEST(a_program_that_is_killed_does_not_wait_for_the_proof_about_a_lost_node),
	  UNIT_TEST(what_a_program_had_before_a_request_that_was_interrupted_it_has_still))
