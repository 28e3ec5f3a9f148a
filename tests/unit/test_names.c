/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvfs/names.h: paths of files that were looked up just now.
 */
#include "csvfs/names.h"
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#define ROOT 5u

static struct names *t;
static char path[NAMES_PATH_BYTES];

static void setup(void) { t = names_new(ROOT); ck_assert_ptr_nonnull(t); }
static void teardown(void) { names_free(t); }

START_TEST(the_path_is_that_of_the_last_lookup_and_nothing_is_guessed)
{
	setup();
	ck_assert(!names_path(t, 100, path));
	names_seen(t, ROOT, "vms", 7);
	names_seen(t, 7, "web1", 8);
	ck_assert(!names_path(t, 100, path));
	names_seen(t, 8, "disk.vhdx", 100);
	ck_assert(names_path(t, 100, path));
	ck_assert_str_eq(path, "vms/web1/disk.vhdx");
	names_seen(t, ROOT, "spare.vhdx", 100);		/* another name of it */
	ck_assert(names_path(t, 100, path));
	ck_assert_str_eq(path, "spare.vhdx");
	names_seen(t, 99, "x", 100);			/* a directory that nobody looked up */
	ck_assert(!names_path(t, 100, path));
	ck_assert_str_eq(path, "");
	ck_assert(!names_path(t, ROOT, path));
	names_seen(t, 8, ".", 8);
	names_seen(t, 8, "..", 7);
	names_seen(t, 8, "disk.vhdx", 100);
	ck_assert(names_path(t, 100, path));
	ck_assert_str_eq(path, "vms/web1/disk.vhdx");
	teardown();
}
END_TEST

START_TEST(a_circle_a_long_path_and_control_characters_do_no_harm)
{
	char name[256], longest[256];

	setup();
	names_seen(t, 8, "a", 7);
	names_seen(t, 7, "b", 8);
	ck_assert(!names_path(t, 8, path) || strlen(path) < sizeof(path));
	names_seen(t, 9, "self", 9);
	ck_assert(!names_path(t, 9, path) || strlen(path) < sizeof(path));
	names_seen(t, ROOT, "two\nlines\x1b[31m\x7f", 20);
	ck_assert(names_path(t, 20, path));
	ck_assert_str_eq(path, "two?lines?[31m?");
	names_seen(t, ROOT, "M\xfcller/\xc3\xa4", 20);		/* of another character set; and of ours */
	ck_assert(names_path(t, 20, path));
	ck_assert_str_eq(path, "M?ller/\xc3\xa4");
	memset(longest, 'x', 255);
	longest[255] = '\0';
	memcpy(name, longest, 256);
	name[254] = 'y';
	for (unsigned n = 1; n < 256; n++) {		/* every length of the last part, in a folder of every length */
		for (unsigned k = 1; k < 256; k += 18) {
			names_seen(t, ROOT, longest + 255 - k, 30);
			names_seen(t, 30, name + 255 - n, 31);
			ck_assert(names_path(t, 31, path));
			if (n + k + 1 + 4 < sizeof(path))
				ck_assert_uint_eq(strlen(path), n + k + 1);
			ck_assert_int_eq(path[strlen(path) - 1], 'y');
			ck_assert(strlen(path) == n + k + 1 || !strncmp(path, "...", 3));
			ck_assert(strlen(path) <= n + 3 || path[strlen(path) - n - 1] == '/');
		}
	}
	teardown();
}
END_TEST

/* Whatever was looked up: a path that is told is one that was. */
START_TEST(what_took_anothers_place_is_not_taken_for_it)
{
	char name[40], want[80];

	setup();
	names_seen(t, ROOT, "dir", 7);
	for (uint64_t i = 0; i < 100000; i++) {
		uint64_t ino = 1000 + i * 977;

		snprintf(name, sizeof(name), "f%u", (unsigned)ino);
		names_seen(t, 7, name, ino);
		if (!names_path(t, ino, path)) {
			names_seen(t, ROOT, "dir", 7);
			continue;
		}
		snprintf(want, sizeof(want), "dir/%s", name);
		ck_assert_str_eq(path, want);
		ck_assert(i < 2000 || !names_path(t, 1000 + (i - 2000) * 977, path) || strstr(path, "dir/f"));
	}
	teardown();
}
END_TEST

START_TEST(without_memory_nothing_is_known)
{
	names_seen(NULL, ROOT, "x", 1);
	ck_assert(!names_path(NULL, 1, path));
	names_free(NULL);
}
END_TEST

UNIT_MAIN("names", UNIT_TEST(the_path_is_that_of_the_last_lookup_and_nothing_is_guessed),
	  UNIT_TEST(a_circle_a_long_path_and_control_characters_do_no_harm), UNIT_TEST(what_took_anothers_place_is_not_taken_for_it),
	  UNIT_TEST(without_memory_nothing_is_known))
