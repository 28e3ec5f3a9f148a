/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvfs/fuse_met.h: files that a CREATE met.
 */
#include "csvfs/fuse_met.h"
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#include "utils/env/clock.h"

#define DIR 7u
#define NOW (100 * NS_PER_SEC)

static struct mets t;
static uint64_t ino;
static uint32_t gen;

static bool take(pid_t tid, uint64_t dir, const char *name, uint64_t now) { return met_take(&t, tid, dir, name, now, &ino, &gen); }

START_TEST(it_is_given_once_to_the_thread_that_met_it)
{
	memset(&t, 0, sizeof(t));
	met_remember(&t, 11, DIR, "a", 100, 3, NOW);
	ck_assert(!take(12, DIR, "a", NOW));
	ck_assert(!take(11, DIR + 1, "a", NOW));
	ck_assert(!take(11, DIR, "ab", NOW));
	ck_assert(take(11, DIR, "a", NOW + 1));
	ck_assert_uint_eq(ino, 100);
	ck_assert_uint_eq(gen, 3);
	ck_assert(!take(11, DIR, "a", NOW + 2));
}
END_TEST

START_TEST(it_is_not_given_when_its_open_is_long_over)
{
	memset(&t, 0, sizeof(t));
	met_remember(&t, 11, DIR, "a", 100, 3, NOW);
	ck_assert(!take(11, DIR, "a", NOW + 60 * NS_PER_SEC));
	ck_assert(!take(11, DIR, "a", NOW));		/* and is forgotten by then */
}
END_TEST

START_TEST(a_thread_that_cannot_be_known_is_given_nothing)
{
	memset(&t, 0, sizeof(t));
	met_remember(&t, 0, DIR, "a", 100, 3, NOW);
	ck_assert(!take(0, DIR, "a", NOW));
	ck_assert(!take(0, 0, "", NOW));
}
END_TEST

START_TEST(the_oldest_is_forgotten_and_the_longest_name_is_kept)
{
	char name[CSV_NAME_MAX + 1];

	memset(&t, 0, sizeof(t));
	memset(name, 'x', sizeof(name));
	name[CSV_NAME_MAX] = '\0';
	met_remember(&t, 11, DIR, "first", 100, 3, NOW);
	for (unsigned i = 0; i < METS; i++)
		met_remember(&t, 20 + (pid_t)i, DIR, name, 200 + i, i, NOW);
	ck_assert(!take(11, DIR, "first", NOW));
	for (unsigned i = 0; i < METS; i++) {
		ck_assert(take(20 + (pid_t)i, DIR, name, NOW));
		ck_assert_uint_eq(ino, 200 + i);
	}
}
END_TEST

START_TEST(an_open_that_came_too_late_is_known_once_to_its_thread)
{
	memset(&t, 0, sizeof(t));
	met_remember(&t, 11, DIR, "a", 100, 3, NOW);
	met_stale(&t, 11, NOW);
	met_stale(&t, 0, NOW);
	ck_assert(!met_stale_take(&t, 12, NOW));
	ck_assert(!met_stale_take(&t, 0, NOW));
	ck_assert(met_stale_take(&t, 11, NOW));
	ck_assert(!met_stale_take(&t, 11, NOW));
	met_stale(&t, 11, NOW);
	ck_assert(!met_stale_take(&t, 11, NOW + 60 * NS_PER_SEC));
	ck_assert(take(11, DIR, "a", NOW));
}
END_TEST

START_TEST(what_a_thread_met_is_forgotten_when_it_does_something_else)
{
	memset(&t, 0, sizeof(t));
	met_remember(&t, 11, DIR, "a", 100, 3, NOW);
	met_remember(&t, 12, DIR, "a", 100, 3, NOW);
	met_stale(&t, 11, NOW);
	met_forget(&t, 11);
	ck_assert(!take(11, DIR, "a", NOW));
	ck_assert(!met_stale_take(&t, 11, NOW));
	ck_assert(take(12, DIR, "a", NOW));
}
END_TEST

UNIT_MAIN("fuse_met", UNIT_TEST(an_open_that_came_too_late_is_known_once_to_its_thread),
	  UNIT_TEST(what_a_thread_met_is_forgotten_when_it_does_something_else), UNIT_TEST(it_is_given_once_to_the_thread_that_met_it),
	  UNIT_TEST(it_is_not_given_when_its_open_is_long_over),
	  UNIT_TEST(a_thread_that_cannot_be_known_is_given_nothing), UNIT_TEST(the_oldest_is_forgotten_and_the_longest_name_is_kept))
