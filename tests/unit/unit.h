/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * unit: what a Check program needs around its tests. A program has one suite of named cases:
 *
 *	START_TEST(crc_of_the_standard_text)
 *	{
 *		ck_assert_uint_eq(csv_crc32c(0, "123456789", 9), 0xe3069283);
 *	}
 *	END_TEST
 *
 *	UNIT_MAIN("base", UNIT_TEST(crc_of_the_standard_text), UNIT_LOOP(seeds, 0, 30))
 *
 * Test names are claims. The environment variable CK_RUN_CASE=name runs one; CK_FORK=no keeps it
 * in this process for a debugger. Output: one "PASS|FAIL name" line a test, and totals.
 */
#ifndef CSV_TESTS_UNIT_H
#define CSV_TESTS_UNIT_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "utils/base/base.h"

struct unit_case {
	const char *name;
	const TTest *test;
	int signal; /* the test must die of this signal; 0: it must pass */
	int first, end;
	double timeout_s;
};

#define UNIT_TEST(fn)		  {.name = #fn, .test = fn, .end = 1}
/* _i runs from first to end - 1 */
#define UNIT_LOOP(fn, first_, end_) {.name = #fn, .test = fn, .first = first_, .end = end_}
/* the test must end by this signal: SIGABRT for a csv_assert that must fire */
#define UNIT_SIGNAL(fn, sig)	  {.name = #fn, .test = fn, .signal = sig, .end = 1}
/* for the few that need more than Check's 4 s */
#define UNIT_SLOW(fn, first_, end_, seconds) \
	{.name = #fn, .test = fn, .first = first_, .end = end_, .timeout_s = seconds}

static inline int unit_main(const char *name, const struct unit_case *cases, size_t count)
{
	Suite *suite = suite_create(name);
	SRunner *runner;
	int failed;

	for (size_t i = 0; i < count; i++) {
		TCase *tcase = tcase_create(cases[i].name);

		/* slower machines and sanitizers: five times Check's default */
		tcase_set_timeout(tcase, cases[i].timeout_s > 0 ? cases[i].timeout_s : 20);
		if (cases[i].signal)
			tcase_add_loop_test_raise_signal(tcase, cases[i].test, cases[i].signal,
							 cases[i].first, cases[i].end);
		else
			tcase_add_loop_test(tcase, cases[i].test, cases[i].first, cases[i].end);
		suite_add_tcase(suite, tcase);
	}
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	printf("unit %s: %d run, %d failed\n", name, srunner_ntests_run(runner), failed);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#define UNIT_MAIN(name, ...)                                                               \
	int main(void)                                                                     \
	{                                                                                  \
		const struct unit_case cases[] = {__VA_ARGS__};                            \
                                                                                           \
		return unit_main(name, cases, ARRAY_SIZE(cases));                          \
	}

#endif
