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

struct program { unsigned node, owner; enum plock_type type; uint64_t end; bool wait, done; int ret; struct coro *coro; };

static void lock_coro(void *arg)
{
	struct program *p = arg;
	const struct plock_who who = { .key = 4711, .kind = PLOCK_POSIX, .id = p->owner, .pid = p->owner };

	p->ret = plock_set(csvfs_plocks(cw_n(p->node)->fs), &who, p->type, 0, p->end, p->wait);
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

UNIT_MAIN("plock_views", UNIT_TEST(a_downgrade_that_others_have_made_use_of_is_not_taken_back_by_a_signal),
	  UNIT_TEST(a_program_that_is_interrupted_as_quorum_goes_does_not_wait_for_it))
