/*
 * utils/env/sched.h: coroutines, run queue, wait queues, timers, jobs.  Many of them, and their stacks: test_env_coro.c.
 */
#include <stdio.h>
#include "tests/unit/unit.h"

#include <errno.h>
#include <signal.h>

#include "tests/unit/env_fake.h"
#include "utils/base/prng.h"

static struct fake_clock clk;
static struct sched *s;
static char trace[4096];

static void setup(void)
{
	fake_clock_init(&clk);
	s = sched_new(&clk.clock);
	ck_assert_ptr_nonnull(s);
	trace[0] = '\0';
}

static void teardown(void)
{
	sched_free(s);
	s = NULL;
}

static void mark(const char *what)
{
	strcat(trace, what);
}

/* ---- order ---------------------------------------------------------------------------------- */

static void says(void *arg)
{
	mark(arg);
	coro_yield(s);
	mark(arg);
}

START_TEST(coroutines_take_turns_in_the_order_they_were_made)
{
	setup();
	ck_assert_int_eq(sched_spawn(s, "a", says, "a"), 0);
	ck_assert_int_eq(sched_spawn(s, "b", says, "b"), 0);
	ck_assert_int_eq(sched_spawn(s, "c", says, "c"), 0);
	ck_assert_str_eq(trace, "");	/* S1: making one does not run it */
	ck_assert_uint_eq(sched_ready(s), 3);
	ck_assert_uint_eq(sched_coros(s), 3);
	sched_run(s);
	ck_assert_str_eq(trace, "abcabc");
	ck_assert_uint_eq(sched_coros(s), 0);
	teardown();
}
END_TEST

static struct waitq wq;
static int got;

static void waits(void *arg)
{
	sched_wait(s, &wq);
	mark(arg);
}

static void makes_others(void *arg)
{
	mark("<");
	if ((uintptr_t)arg > 0)
		ck_assert_int_eq(sched_spawn(s, "inner", makes_others, (void *)((uintptr_t)arg - 1)), 0);
	coro_yield(s);
	mark(">");
}

START_TEST(a_coroutine_may_make_others)
{
	setup();
	ck_assert_int_eq(sched_spawn(s, "outer", makes_others, (void *)3), 0);
	sched_run(s);
	ck_assert_str_eq(trace, "<<><><>>");
	ck_assert_uint_eq(sched_coros(s), 0);
	teardown();
}
END_TEST

START_TEST(waking_only_moves_to_the_run_queue)
{
	setup();
	waitq_init(&wq);
	sched_spawn(s, "a", waits, "a");
	sched_spawn(s, "b", waits, "b");
	sched_run(s);
	ck_assert(!waitq_empty(&wq));
	sched_wake_one(s, &wq);
	ck_assert_str_eq(trace, "");
	sched_run(s);
	ck_assert_str_eq(trace, "a");
	sched_wake_all(s, &wq);
	ck_assert(waitq_empty(&wq));
	sched_run(s);
	ck_assert_str_eq(trace, "ab");
	teardown();
}
END_TEST

static unsigned pick_random(void *arg, unsigned n)
{
	return csv_prng_below(arg, n);
}

static void order_of_seed(uint64_t seed, char ret[64])
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g", "h" };
	struct csv_prng prng;

	setup();
	csv_prng_init(&prng, seed);
	sched_set_pick(s, pick_random, &prng);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		sched_spawn(s, names[i], says, (void *)names[i]);
	sched_run(s);
	snprintf(ret, 64, "%.60s", trace);
	teardown();
}

START_TEST(same_picks_give_the_same_order)
{
	char one[64], two[64], other[64];

	order_of_seed(7, one);
	order_of_seed(7, two);
	order_of_seed(8, other);
	ck_assert_str_eq(one, two);
	ck_assert_str_ne(one, other);
	ck_assert_uint_eq(strlen(one), 16);
}
END_TEST

/* ---- time-outs and cancel -------------------------------------------------------------------- */

static void waits_until(void *arg)
{
	(void)arg;
	got = sched_wait_until(s, &wq, NS_PER_SEC + 5 * NS_PER_MS, true);
	mark("x");
}

START_TEST(a_time_out_ends_a_wait_at_its_deadline)
{
	setup();
	waitq_init(&wq);
	sched_spawn(s, "w", waits_until, NULL);
	fake_run_until(&clk, s, NS_PER_SEC + 5 * NS_PER_MS - 1);
	ck_assert_str_eq(trace, "");
	ck_assert_uint_eq(sched_next_deadline(s), NS_PER_SEC + 5 * NS_PER_MS);
	fake_run_until(&clk, s, NS_PER_SEC + 5 * NS_PER_MS);
	ck_assert_str_eq(trace, "x");
	ck_assert_int_eq(got, -ETIMEDOUT);
	ck_assert(waitq_empty(&wq));
	ck_assert_uint_eq(sched_next_deadline(s), UINT64_MAX);
	teardown();
}
END_TEST

START_TEST(a_wake_before_the_deadline_disarms_the_timer)
{
	setup();
	waitq_init(&wq);
	sched_spawn(s, "w", waits_until, NULL);
	sched_run(s);
	sched_wake_one(s, &wq);
	ck_assert_uint_eq(sched_next_deadline(s), UINT64_MAX);
	fake_run_until(&clk, s, 2 * NS_PER_SEC);
	ck_assert_str_eq(trace, "x");
	ck_assert_int_eq(got, 0);
	teardown();
}
END_TEST

static void waits_intr_twice(void *arg)
{
	(void)arg;
	got = sched_wait_intr(s, &wq);
	mark(got == -EINTR ? "i" : "w");
	mark(coro_cancelled(s) ? "c" : "-");
	got = sched_wait_intr(s, &wq);
	mark(got == -EINTR ? "i" : "w");
	/* not interruptible: waits in spite of the flag */
	got = sched_wait(s, &wq);
	mark(got == 0 ? "w" : "?");
}

START_TEST(cancel_ends_present_and_later_interruptible_waits_only)
{
	struct coro *c;

	setup();
	waitq_init(&wq);
	ck_assert_int_eq(sched_spawn_ret(s, "w", waits_intr_twice, NULL, &c), 0);
	ck_assert_str_eq(coro_name(c), "w");
	sched_run(s);
	sched_cancel(s, c);
	ck_assert_str_eq(trace, "");
	ck_assert(waitq_empty(&wq));
	sched_run(s);
	ck_assert_str_eq(trace, "ici");
	sched_wake_one(s, &wq);
	sched_run(s);
	ck_assert_str_eq(trace, "iciw");
	teardown();
}
END_TEST

START_TEST(cancel_before_the_first_wait_counts)
{
	struct coro *c;

	setup();
	waitq_init(&wq);
	sched_spawn_ret(s, "w", waits_intr_twice, NULL, &c);
	sched_cancel(s, c);
	sched_run(s);
	ck_assert_str_eq(trace, "ici");
	sched_wake_one(s, &wq);
	sched_run(s);
	teardown();
}
END_TEST

START_TEST(a_wake_that_came_before_the_cancel_is_not_lost)
{
	struct coro *c;

	setup();
	waitq_init(&wq);
	sched_spawn_ret(s, "w", waits_intr_twice, NULL, &c);
	sched_run(s);
	sched_wake_one(s, &wq);
	sched_cancel(s, c);
	sched_run(s);
	ck_assert_str_eq(trace, "wci");
	sched_wake_one(s, &wq);
	sched_run(s);
	teardown();
}
END_TEST

static void sleeps(void *arg)
{
	coro_sleep_ns(s, (uintptr_t)arg * NS_PER_MS);
	snprintf(trace + strlen(trace), 32, "%u ", (unsigned)(uintptr_t)arg);
}

START_TEST(sleepers_wake_in_the_order_of_their_deadlines)
{
	setup();
	sched_spawn(s, "s", sleeps, (void *)30);
	sched_spawn(s, "s", sleeps, (void *)10);
	sched_spawn(s, "s", sleeps, (void *)20);
	fake_run_until(&clk, s, 2 * NS_PER_SEC);
	ck_assert_str_eq(trace, "10 20 30 ");
	teardown();
}
END_TEST

/* ---- completions and mutexes ------------------------------------------------------------------- */

static struct completion comp;

static void completes(void *arg)
{
	got += completion_wait(s, &comp);
	mark(arg);
}

START_TEST(a_completion_gives_its_status_to_everybody_also_later)
{
	setup();
	got = 0;
	completion_init(&comp);
	sched_spawn(s, "a", completes, "a");
	sched_spawn(s, "b", completes, "b");
	sched_run(s);
	completion_done(s, &comp, -5);
	sched_spawn(s, "c", completes, "c");
	sched_run(s);
	ck_assert_uint_eq(strlen(trace), 3);
	ck_assert_int_eq(got, -15);
	teardown();
}
END_TEST

START_TEST(a_completion_done_twice_is_a_bug)
{
	setup();
	completion_init(&comp);
	completion_done(s, &comp, 0);
	completion_done(s, &comp, 0);
}
END_TEST

static struct co_mutex mx;
static unsigned inside;

static void locks(void *arg)
{
	co_mutex_lock(s, &mx);
	ck_assert_uint_eq(inside, 0);
	inside++;
	mark(arg);
	coro_yield(s);
	coro_yield(s);
	inside--;
	co_mutex_unlock(s, &mx);
	co_mutex_lock(s, &mx);	/* behind everybody who waits already */
	ck_assert_uint_eq(inside, 0);
	mark(arg);
	co_mutex_unlock(s, &mx);
}

START_TEST(a_mutex_excludes_and_is_fair)
{
	setup();
	co_mutex_init(&mx);
	inside = 0;
	sched_spawn(s, "a", locks, "a");
	sched_spawn(s, "b", locks, "b");
	sched_spawn(s, "c", locks, "c");
	sched_run(s);
	ck_assert_str_eq(trace, "abcabc");
	ck_assert_ptr_null(mx.owner);
	teardown();
}
END_TEST

static void locks_unless_cancelled(void *arg)
{
	int rc = co_mutex_lock_intr(s, &mx);

	mark(rc ? "x" : arg);
	if (rc)
		return;
	ck_assert_uint_eq(inside, 0);
	inside++;
	coro_yield(s);
	inside--;
	co_mutex_unlock(s, &mx);
}

/* Whoever does not wait any more is passed over; who was given it before the cancel has it. */
START_TEST(a_wait_for_a_mutex_can_be_cancelled)
{
	struct coro *b, *c;

	setup();
	co_mutex_init(&mx);
	inside = 0;
	sched_spawn(s, "a", locks_unless_cancelled, "a");
	sched_spawn_ret(s, "b", locks_unless_cancelled, "b", &b);
	sched_spawn_ret(s, "c", locks_unless_cancelled, "c", &c);
	while (waitq_empty(&mx.wq) || mx.wq.head.next == mx.wq.head.prev)
		ck_assert(sched_step(s));
	sched_cancel(s, b);
	while (mx.owner != c)
		ck_assert(sched_step(s));
	sched_cancel(s, c);			/* too late: it has it, and does not know yet */
	sched_run(s);
	ck_assert_str_eq(trace, "axc");
	ck_assert_ptr_null(mx.owner);
	teardown();
}
END_TEST

/* ---- assertions ---------------------------------------------------------------------------------- */

static void awaits_where_forbidden(void *arg)
{
	(void)arg;
	*coro_flags(s) |= CORO_NO_AWAIT;
	sched_wait(s, &wq);
}

START_TEST(an_await_under_no_await_is_a_bug)
{
	setup();
	waitq_init(&wq);
	sched_spawn(s, "w", awaits_where_forbidden, NULL);
	sched_run(s);
}
END_TEST

static void job_waits(struct job *j)
{
	(void)j;
	sched_wait(s, &wq);
}

START_TEST(an_await_in_a_job_is_a_bug)
{
	struct job j;

	setup();
	waitq_init(&wq);
	job_init(&j, job_waits);
	sched_post(s, &j);
	sched_run(s);
}
END_TEST

/* ---- per-coroutine words -------------------------------------------------------------------------- */

static void has_its_own(void *arg)
{
	ck_assert_ptr_null(*coro_local(s));
	ck_assert_uint_eq(*coro_flags(s), 0);
	*coro_local(s) = arg;
	*coro_flags(s) |= CORO_IN_TXN;
	coro_yield(s);
	ck_assert_ptr_eq(*coro_local(s), arg);
	ck_assert_uint_eq(*coro_flags(s), CORO_IN_TXN);
	ck_assert_str_eq(coro_name(sched_self(s)), "own");
	mark(".");
}

START_TEST(flags_and_local_belong_to_one_coroutine)
{
	int x, y;

	setup();
	ck_assert_ptr_null(sched_self(s));
	sched_spawn(s, "own", has_its_own, &x);
	sched_spawn(s, "own", has_its_own, &y);
	sched_run(s);
	sched_spawn(s, "own", has_its_own, &x);	/* on a used stack: still clean */
	sched_run(s);
	ck_assert_str_eq(trace, "...");
	teardown();
}
END_TEST

/* ---- jobs and timers --------------------------------------------------------------------------------- */

static unsigned job_runs;

static void job_counts(struct job *j)
{
	if (++job_runs == 1)
		sched_post(s, j);	/* may post itself again */
}

START_TEST(a_job_posted_twice_runs_once_and_may_post_itself)
{
	struct job j, never;

	setup();
	job_runs = 0;
	job_init(&j, job_counts);
	job_init(&never, job_counts);
	sched_post(s, &j);
	sched_post(s, &j);
	sched_post(s, &never);
	sched_unpost(s, &never);
	sched_unpost(s, &never);
	ck_assert_uint_eq(sched_ready(s), 1);
	sched_run(s);
	ck_assert_uint_eq(job_runs, 2);
	teardown();
}
END_TEST

static struct timer ta, tb;

static void timer_a(struct timer *t)
{
	mark("a");
	timer_set(s, t, 0);		/* always due */
	timer_del(s, &tb);
}

static void timer_b(struct timer *t)
{
	(void)t;
	mark("b");
}

START_TEST(timers_rearm_are_removed_and_never_starve_the_caller)
{
	setup();
	timer_init(&ta, timer_a);
	timer_init(&tb, timer_b);
	timer_set(s, &tb, 300);
	timer_set(s, &ta, 200);
	timer_set(s, &ta, 100);
	ck_assert_uint_eq(sched_next_deadline(s), 100);
	sched_run_timers(s, 99);
	ck_assert_str_eq(trace, "");
	sched_run_timers(s, 1000);	/* ends although ta is always due */
	ck_assert_str_eq(trace, "aa");
	ck_assert(!tb.armed && ta.armed);
	teardown();
}
END_TEST

static void never_ends(void *arg)
{
	(void)arg;
	sched_wait(s, &wq);
	abort();
}

START_TEST(free_forgets_what_is_suspended_queued_or_armed)
{
	struct job j;

	setup();
	waitq_init(&wq);
	for (unsigned i = 0; i < 100; i++)
		sched_spawn(s, "never", never_ends, NULL);
	sched_run(s);
	sched_spawn(s, "not yet", never_ends, NULL);
	job_init(&j, job_counts);
	sched_post(s, &j);
	timer_init(&tb, timer_b);
	timer_set(s, &tb, 1);
	job_runs = 0;
	teardown();
	ck_assert_uint_eq(job_runs, 0);
	ck_assert_str_eq(trace, "");
}
END_TEST

UNIT_MAIN("env_sched",
	  UNIT_TEST(coroutines_take_turns_in_the_order_they_were_made),
	  UNIT_TEST(a_coroutine_may_make_others),
	  UNIT_TEST(waking_only_moves_to_the_run_queue),
	  UNIT_TEST(same_picks_give_the_same_order),
	  UNIT_TEST(a_time_out_ends_a_wait_at_its_deadline),
	  UNIT_TEST(a_wake_before_the_deadline_disarms_the_timer),
	  UNIT_TEST(cancel_ends_present_and_later_interruptible_waits_only),
	  UNIT_TEST(cancel_before_the_first_wait_counts),
	  UNIT_TEST(a_wake_that_came_before_the_cancel_is_not_lost),
	  UNIT_TEST(sleepers_wake_in_the_order_of_their_deadlines),
	  UNIT_TEST(a_completion_gives_its_status_to_everybody_also_later),
	  UNIT_TEST(a_wait_for_a_mutex_can_be_cancelled),
	  UNIT_SIGNAL(a_completion_done_twice_is_a_bug, SIGABRT),
	  UNIT_TEST(a_mutex_excludes_and_is_fair),
	  UNIT_SIGNAL(an_await_under_no_await_is_a_bug, SIGABRT),
	  UNIT_SIGNAL(an_await_in_a_job_is_a_bug, SIGABRT),
	  UNIT_TEST(flags_and_local_belong_to_one_coroutine),
	  UNIT_TEST(a_job_posted_twice_runs_once_and_may_post_itself),
	  UNIT_TEST(timers_rearm_are_removed_and_never_starve_the_caller),
	  UNIT_TEST(free_forgets_what_is_suspended_queued_or_armed))
