/*
 * utils/env/coro.h under sched.h: very many coroutines at once, their stacks, what a switch costs.
 */
#include <stdio.h>
#include "tests/unit/unit.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/env_fake.h"
#include "utils/base/prng.h"

static struct fake_clock clk;
static struct sched *s;

static void setup(void)
{
	fake_clock_init(&clk);
	s = sched_new(&clk.clock);
	ck_assert_ptr_nonnull(s);
}

static void teardown(void)
{
	sched_free(s);
	s = NULL;
}

/* ---- many, random ------------------------------------------------------------------------------------------- */

static struct csv_prng prng;
static struct waitq queues[8];
static uint64_t steps, timeouts, wakes, cancels;
static unsigned ended;

static void wanders(void *arg)
{
	unsigned rounds = 2 + (uintptr_t)arg % 5;
	volatile char frame[2048];

	memset((char *)frame, (int)(uintptr_t)arg, sizeof(frame));
	while (rounds--) {
		struct waitq *q = &queues[csv_prng_below(&prng, ARRAY_SIZE(queues))];
		int rc = sched_wait_until(s, q, clk.now_ns + 1 + csv_prng_below(&prng, 1000), true);

		steps++;
		timeouts += rc == -ETIMEDOUT;
		wakes += rc == 0;
		cancels += rc == -EINTR;
		for (unsigned i = 0; i < sizeof(frame); i += 97)
			ck_assert_int_eq(frame[i], (char)(uintptr_t)arg);
		if (rc == -EINTR)
			break;
	}
	ended++;
}

START_TEST(ten_thousand_coroutines_wait_wake_time_out_and_end)
{
	static struct coro *some[FAKE_CORO_MANY];

	setup();
	csv_prng_init(&prng, 1);
	sched_set_pick(s, NULL, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(queues); i++)
		waitq_init(&queues[i]);
	for (uintptr_t i = 0; i < FAKE_CORO_MANY; i++)
		ck_assert_int_eq(sched_spawn_ret(s, "wanders", wanders, (void *)i, &some[i]), 0);
	ck_assert_uint_eq(sched_coros(s), FAKE_CORO_MANY);
	sched_run(s);
	for (unsigned i = 0; i < FAKE_CORO_MANY; i += 10)
		sched_cancel(s, some[i]);
	while (sched_coros(s)) {
		sched_run(s);
		sched_wake_one(s, &queues[csv_prng_below(&prng, ARRAY_SIZE(queues))]);
		if (csv_prng_chance(&prng, 1, 100))
			sched_wake_all(s, &queues[csv_prng_below(&prng, ARRAY_SIZE(queues))]);
		clk.now_ns += csv_prng_below(&prng, 4);
		sched_run_timers(s, clk.now_ns);
	}
	printf("%u coroutines: %llu waits = %llu woken + %llu timed out + %llu cancelled\n",
	       FAKE_CORO_MANY, (unsigned long long)steps, (unsigned long long)wakes,
	       (unsigned long long)timeouts, (unsigned long long)cancels);
	ck_assert_uint_eq(ended, FAKE_CORO_MANY);
	ck_assert_uint_eq(cancels, FAKE_CORO_MANY / 10);
	ck_assert_uint_gt(wakes, 0);
	ck_assert_uint_gt(timeouts, 0);
	ck_assert_uint_eq(sched_next_deadline(s), UINT64_MAX);
	teardown();
}
END_TEST

/* ---- stacks ------------------------------------------------------------------------------------------------- */

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winfinite-recursion"
static unsigned dig(unsigned depth)
{
	volatile char frame[512];

	frame[depth % sizeof(frame)] = (char)depth;
	return dig(depth + 1) + frame[depth % 7];
}
#pragma GCC diagnostic pop

static void digs(void *arg)
{
	(void)arg;
	_exit(dig(0) != 0);	/* not reached */
}

START_TEST(a_stack_overflow_dies_at_the_guard_page)
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		freopen("/dev/null", "w", stderr);	/* the sanitizers' long reports */
		setup();
		sched_spawn(s, "digs", digs, NULL);
		sched_run(s);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
#if defined(CTX_ASAN) || defined(CTX_TSAN)
	ck_assert_msg(WIFSIGNALED(status) || WEXITSTATUS(status) > 1, "status %d", status);
#else
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %d", status);
#endif
}
END_TEST

static int got;

static void uses_most_of_its_stack(void *arg)
{
	volatile char frame[40 << 10];

	for (unsigned i = 0; i < sizeof(frame); i += 512)
		frame[i] = 1;
	coro_yield(s);
	got += frame[1024] + (arg != NULL);
}

START_TEST(forty_kilobytes_of_stack_are_there_for_everybody)
{
	setup();
	got = 0;
	for (unsigned i = 0; i < 10; i++)
		sched_spawn(s, "big", uses_most_of_its_stack, NULL);
	sched_run(s);
	ck_assert_int_eq(got, 10);
	teardown();
}
END_TEST

static void yields_often(void *arg)
{
	for (uintptr_t n = (uintptr_t)arg; n; n--)
		coro_yield(s);
}

START_TEST(a_switch_needs_no_system_call)
{
	struct timespec t0, t1;
	double ns;

	setup();
	sched_spawn(s, "y", yields_often, (void *)200000);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	sched_run(s);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	ns = ((t1.tv_sec - t0.tv_sec) * 1e9 + (t1.tv_nsec - t0.tv_nsec)) / 200000;
	printf("one yield and return: %.0f ns\n", ns);
#if !defined(CTX_ASAN) && !defined(CTX_TSAN)
	ck_assert_msg(ns < 5000, "%.0f ns for a switch there and back", ns);
#endif
	teardown();
}
END_TEST

UNIT_MAIN("env_coro",
	  UNIT_SLOW(ten_thousand_coroutines_wait_wake_time_out_and_end, 0, 1, 60),
	  UNIT_TEST(a_stack_overflow_dies_at_the_guard_page),
	  UNIT_TEST(forty_kilobytes_of_stack_are_there_for_everybody),
	  UNIT_TEST(a_switch_needs_no_system_call))
