/*
 * hvhost/vm_converge.c: throttle, then a longer pause, then the end.
 */
#include "tests/unit/unit.h"

#include <string.h>

#include "hvhost/vm_converge.h"
#include "utils/base/prng.h"

#define FIRST 30
#define BUDGET 500

/* Runs passes of a guest that needs `need` ms whatever is done; which act came after how many. */
static unsigned passes_until(struct vm_converge *c, enum vm_converge_act want, uint64_t need, unsigned throttle_step, unsigned max)
{
	struct vm_converge_sample s = { .passes = c->passes, .remaining = 1 << 20, .need_ms = need };

	s.throttle = c->throttle;
	for (unsigned n = 1; n <= max; n++) {
		enum vm_converge_act a;

		s.passes++;
		if (throttle_step && n % 2 == 0 && s.throttle < c->throttle_max)
			s.throttle += throttle_step;
		a = vm_converge_look(c, &s);
		if (a == want)
			return n;
		ck_assert_msg(a == VM_CONVERGE_GO, "act %d after %u passes", a, n);
	}
	return 0;
}

START_TEST(a_guest_that_gets_slower_is_left_alone)
{
	struct vm_converge_sample s = { .need_ms = 100000 };
	struct vm_converge c;

	vm_converge_init(&c, FIRST, BUDGET, 80);
	for (unsigned i = 1; i < 60; i++) {
		s.passes = i;
		s.need_ms = s.need_ms * 9 / 10;
		ck_assert_int_eq(vm_converge_look(&c, &s), VM_CONVERGE_GO);
	}
	ck_assert_uint_eq(c.limit_ms, FIRST);
}
END_TEST

START_TEST(nothing_longer_is_tried_while_the_throttle_grows)
{
	struct vm_converge c;

	vm_converge_init(&c, FIRST, BUDGET, 80);
	/* 20, 30 … 80 by QEMU: 8 steps of two passes, then 3 without progress */
	ck_assert_uint_ge(passes_until(&c, VM_CONVERGE_PAUSE, 100, 10, 100), 16);
	ck_assert_uint_eq(c.throttle, 80);
}
END_TEST

START_TEST(a_throttle_that_does_not_come_is_not_waited_for)
{
	struct vm_converge c;
	unsigned n;

	vm_converge_init(&c, FIRST, BUDGET, 80);
	n = passes_until(&c, VM_CONVERGE_PAUSE, 100, 0, 100);
	ck_assert_msg(n > 0 && n <= 3 + CO_STUCK * (CO_PATIENCE + 1), "%u passes", n);
}
END_TEST

START_TEST(without_throttle_the_pause_grows_after_three_passes_to_the_budget_then_it_is_cancelled)
{
	struct vm_converge c;
	unsigned last = FIRST, n = 0;

	vm_converge_init(&c, FIRST, BUDGET, 0);
	ck_assert_uint_eq(passes_until(&c, VM_CONVERGE_PAUSE, 2000, 0, 100), 3 + CO_STUCK);	/* two are not judged, one is the mark */
	while (c.limit_ms < BUDGET) {
		ck_assert_uint_gt(c.limit_ms, last);
		last = c.limit_ms;
		ck_assert_uint_eq(passes_until(&c, VM_CONVERGE_PAUSE, 2000, 0, 100), CO_STUCK);
		ck_assert_uint_lt(++n, 10);
	}
	ck_assert_uint_eq(c.limit_ms, BUDGET);
	ck_assert_uint_eq(passes_until(&c, VM_CONVERGE_CANCEL, 2000, 0, 100), CO_STUCK);
}
END_TEST

START_TEST(a_pause_that_would_do_is_taken_at_once)
{
	struct vm_converge c;

	vm_converge_init(&c, FIRST, BUDGET, 0);
	ck_assert_uint_gt(passes_until(&c, VM_CONVERGE_PAUSE, 300, 0, 100), 0);
	ck_assert_uint_eq(c.limit_ms, 375);
}
END_TEST

START_TEST(a_budget_below_the_aim_is_cancelled_and_never_exceeded)
{
	struct vm_converge c;

	vm_converge_init(&c, FIRST, 10, 0);
	ck_assert_uint_gt(passes_until(&c, VM_CONVERGE_CANCEL, 300, 0, 100), 0);
	ck_assert_uint_eq(c.limit_ms, FIRST);
}
END_TEST

/* An older QEMU, or one between two numbers, gives bytes only. */
START_TEST(bytes_are_judged_where_no_time_is_told)
{
	struct vm_converge_sample s = { .remaining = 1000000 };
	enum vm_converge_act a = VM_CONVERGE_GO;
	struct vm_converge c;

	vm_converge_init(&c, FIRST, BUDGET, 0);
	for (unsigned i = 1; i < 20; i++) {
		s.passes = i;
		s.remaining -= 50000;
		ck_assert_int_eq(vm_converge_look(&c, &s), VM_CONVERGE_GO);
	}
	for (unsigned i = 20; i < 40 && a == VM_CONVERGE_GO; i++) {
		s.passes = i;
		a = vm_converge_look(&c, &s);
	}
	ck_assert_int_eq(a, VM_CONVERGE_PAUSE);
	ck_assert_uint_eq(c.limit_ms, 2 * FIRST);
}
END_TEST

START_TEST(one_pass_seen_often_is_one_pass)
{
	struct vm_converge_sample s = { .passes = 7, .need_ms = 90 };
	struct vm_converge c;

	vm_converge_init(&c, FIRST, BUDGET, 0);
	for (unsigned i = 0; i < 100; i++)
		ck_assert_int_eq(vm_converge_look(&c, &s), VM_CONVERGE_GO);
}
END_TEST

/* CO1, CO2 */
START_TEST(whatever_qemu_says_it_ends_and_stays_within_the_budget)
{
	struct csv_prng p;
	struct vm_converge c;
	struct vm_converge_sample s = { 0 };
	enum vm_converge_act a = VM_CONVERGE_GO;
	unsigned before = FIRST, n;

	csv_prng_init(&p, (uint64_t)_i + 1);
	vm_converge_init(&c, FIRST, 1 + (unsigned)csv_prng_below(&p, 1000), (unsigned)csv_prng_below(&p, 100));
	for (n = 0; a != VM_CONVERGE_CANCEL && n < 3000; n++) {
		s.passes += csv_prng_below(&p, 3);
		s.need_ms = 400 + csv_prng_below(&p, 600);		/* no progress but by chance */
		s.throttle = csv_prng_below(&p, 4) ? s.throttle : (unsigned)csv_prng_below(&p, 100);
		a = vm_converge_look(&c, &s);
		ck_assert_uint_ge(c.limit_ms, before);
		ck_assert_uint_le(c.limit_ms, csv_max(c.budget_ms, (unsigned)FIRST));
		before = c.limit_ms;
	}
	ck_assert_msg(a == VM_CONVERGE_CANCEL, "%u samples, and no end", n);
}
END_TEST

START_TEST(people_read_what_was_done)
{
	struct vm_converge c;
	char text[80];

	vm_converge_init(&c, FIRST, BUDGET, 80);
	vm_converge_text(&c, FIRST, text, sizeof(text));
	ck_assert_str_eq(text, "");
	c.throttle = 40;
	vm_converge_text(&c, FIRST, text, sizeof(text));
	ck_assert_str_eq(text, "throttled to 40 %");
	c.limit_ms = 120;
	vm_converge_text(&c, FIRST, text, sizeof(text));
	ck_assert_str_eq(text, "throttled to 40 %, pause up to 120 ms");
}
END_TEST

UNIT_MAIN("mig_converge", UNIT_TEST(a_guest_that_gets_slower_is_left_alone), UNIT_TEST(nothing_longer_is_tried_while_the_throttle_grows),
	  UNIT_TEST(a_throttle_that_does_not_come_is_not_waited_for),
	  UNIT_TEST(without_throttle_the_pause_grows_after_three_passes_to_the_budget_then_it_is_cancelled),
	  UNIT_TEST(a_pause_that_would_do_is_taken_at_once), UNIT_TEST(a_budget_below_the_aim_is_cancelled_and_never_exceeded),
	  UNIT_TEST(bytes_are_judged_where_no_time_is_told), UNIT_TEST(one_pass_seen_often_is_one_pass),
	  UNIT_LOOP(whatever_qemu_says_it_ends_and_stays_within_the_budget, 0, 50), UNIT_TEST(people_read_what_was_done))
