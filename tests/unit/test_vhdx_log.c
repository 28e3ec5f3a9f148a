/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The log of a VHDX: which entries are in force, and that replaying them, also in parts and again, gives the same.
 */
#include <errno.h>

#include "tests/unit/vimg_case.h"

#define SEC VHDX_LOG_SECTOR

static uint8_t pattern[8][SEC];

/* 64 MiB in blocks of 1 MiB, block 0 at 4 MiB, for the log to write to. */
static int image(void)
{
	int fd = case_make(VIMG_VHDX, VIMG_DYNAMIC, 64 * MIB, MIB);
	struct csv_err err = CSV_ERR_INIT;
	struct vdisk d;

	ck_assert_int_eq(vdisk_open(fd, true, &d, &err), 0);
	ck_assert_int_eq(vdisk_write(&d, 0, "0", 1, &err), 0);
	vdisk_close(&d);
	for (unsigned k = 0; k < ARRAY_SIZE(pattern); k++)
		memset(pattern[k], 'a' + (int)k, SEC);
	return fd;
}

/* One data sector to sector `to` of block 0. */
static uint64_t put1(int fd, uint64_t at, uint64_t tail, uint64_t seq, unsigned to, unsigned what)
{
	struct log_write w = { .off = 4 * MIB + to * SEC, .data = pattern[what] };

	return log_entry(fd, MIB, at, tail, seq, &w, 1, 5 * MIB, 5 * MIB);
}

static char at_sector(struct vdisk *d, unsigned n)
{
	struct csv_err err = CSV_ERR_INIT;
	uint8_t s[SEC];

	ck_assert_int_eq(vdisk_read(d, n * SEC, s, SEC, &err), 0);
	for (unsigned k = 1; k < SEC; k++)
		ck_assert_uint_eq(s[k], n || s[1] ? s[1] : 0);
	return (char)(s[1] ? s[1] : '.');
}

/* Each sector of block 0 after the replay as a letter. */
static void replay_is(int fd, const char *want)
{
	struct csv_err err = CSV_ERR_INIT;
	char got[16] = "";
	struct vdisk d;

	log_on(fd);
	ck_assert_msg(!vdisk_open(fd, true, &d, &err), "%s", err.text);
	ck_assert(d.replayed);
	ck_assert(!d.v.log_dirty);
	for (unsigned k = 0; want[k]; k++)
		got[k] = at_sector(&d, k);
	ck_assert_str_eq(got, want);
	vdisk_close(&d);
	/* and it is clean now */
	ck_assert_msg(!vdisk_open(fd, true, &d, &err), "%s", err.text);
	ck_assert(!d.replayed);
	vdisk_close(&d);
	close(fd);
}

START_TEST(entries_are_applied_in_order)
{
	int fd = image();
	uint64_t at = put1(fd, 0, 0, 10, 1, 0);

	at = put1(fd, at, 0, 11, 2, 1);
	put1(fd, at, 0, 12, 1, 2);
	replay_is(fd, ".cb.");
}
END_TEST

START_TEST(what_comes_before_the_tail_is_not_applied)
{
	int fd = image();
	uint64_t one = put1(fd, 0, 0, 10, 1, 0);

	put1(fd, one, one, 11, 2, 1);
	replay_is(fd, "..b.");
}
END_TEST

START_TEST(a_half_written_entry_at_the_end_is_no_entry)
{
	int fd = image();
	uint64_t at = put1(fd, 0, 0, 10, 1, 0);

	put1(fd, at, 0, 11, 2, 1);
	poke(fd, LOG_AT + at + SEC + 100, "torn", 4);
	replay_is(fd, ".a..");
}
END_TEST

START_TEST(a_gap_in_the_numbers_ends_a_sequence_and_the_highest_sequence_rules)
{
	int fd = image();
	uint64_t at = put1(fd, 0, 0, 20, 1, 0);

	put1(fd, at, at, 10, 2, 1);		/* older, though behind */
	replay_is(fd, ".a..");
	fd = image();
	at = put1(fd, 0, 0, 10, 1, 0);
	put1(fd, at, at, 20, 2, 1);
	replay_is(fd, "..b.");
}
END_TEST

START_TEST(a_sequence_goes_round_the_end_of_the_log)
{
	int fd = image();
	uint64_t from = MIB - 3 * SEC, at = put1(fd, from, from, 7, 1, 0);	/* two sectors */

	at = put1(fd, at, from, 8, 2, 1);					/* head in the last sector, data in the first */
	ck_assert_uint_eq(at, MIB + SEC);
	put1(fd, at, from, 9, 3, 2);
	replay_is(fd, ".abc");
}
END_TEST

START_TEST(a_log_that_is_full_to_the_last_sector_is_replayed)
{
	int fd = image();
	struct log_write w[255];
	uint64_t at = 4 * SEC;

	/* two sectors of descriptors and 253 of data: all but one */
	for (unsigned k = 0; k < 253; k++)
		w[k] = (struct log_write){ .off = 4 * MIB + (k % 250) * SEC, .data = pattern[k % 5] };
	ck_assert_uint_eq(log_entry(fd, MIB, at, at, 5, w, 253, 5 * MIB, 5 * MIB), at + 255 * SEC);
	replay_is(fd, "abcde");
	fd = image();
	for (unsigned k = 0; k < 253; k++)
		w[k] = (struct log_write){ .off = 4 * MIB + k * SEC, .data = pattern[k % 5] };
	w[253] = (struct log_write){ .off = 4 * MIB, .zero = SEC };
	at = log_entry(fd, MIB, 8 * SEC, 8 * SEC, 5, w, 254, 5 * MIB, 5 * MIB);
	ck_assert_uint_eq(at, (8 + 2 + 253) * SEC);
	log_entry(fd, MIB, at, 8 * SEC, 6, NULL, 0, 5 * MIB, 5 * MIB);	/* an entry that writes nothing fills the rest */
	replay_is(fd, ".bcde");
}
END_TEST

START_TEST(entries_of_an_earlier_log_are_of_no_account)
{
	int fd = image();
	static const uint8_t other[16] = { 99 };
	uint64_t at = put1(fd, 0, 0, 10, 1, 0);

	put1(fd, at, 0, 11, 2, 1);
	poke(fd, LOG_AT + at + offsetof(struct vhdx_log_entry, log_guid), other, 16);
	log_seal(fd, MIB, at);
	replay_is(fd, ".a..");
}
END_TEST

START_TEST(zeroes_are_written_over_more_than_one_sector)
{
	int fd = image();
	struct csv_err err = CSV_ERR_INIT;
	struct log_write w[] = { { .off = 4 * MIB + SEC, .zero = 2 * SEC }, { .off = 4 * MIB + 2 * SEC, .data = pattern[3] } };
	struct vdisk d;
	uint8_t x[4 * SEC];

	memset(x, 'x', sizeof(x));
	ck_assert_int_eq(vdisk_open(fd, true, &d, &err), 0);
	ck_assert_int_eq(vdisk_write(&d, 0, x, sizeof(x), &err), 0);
	vdisk_close(&d);
	log_entry(fd, MIB, 0, 0, 1, w, 2, 5 * MIB, 5 * MIB);
	replay_is(fd, "x.dx");
}
END_TEST

START_TEST(a_file_is_made_as_long_as_the_log_says)
{
	int fd = image();
	struct csv_err err = CSV_ERR_INIT;
	struct log_write w = { .data = pattern[7] };
	uint8_t bat[SEC];
	struct le64 e = le64_of(8 * MIB | 6);
	struct vdisk d;
	uint8_t x[2] = { 1, 1 };

	/* block 3 at 8 MiB of a file that is 5 MiB long */
	peek(fd, BAT_AT, bat, SEC);
	memcpy(bat + 8 * 3, &e, 8);
	w = (struct log_write){ .off = BAT_AT, .data = bat };
	log_entry(fd, MIB, 0, 0, 1, &w, 1, 5 * MIB, 8 * MIB + 4711);
	log_on(fd);
	ck_assert_msg(!vdisk_open(fd, false, &d, &err), "%s", err.text);	/* through the log, nothing written */
	ck_assert_uint_eq(vdisk_fd_size(fd), 5 * MIB);
	ck_assert_uint_eq(d.usage.present, 2);
	ck_assert_int_eq(vdisk_read(&d, 3 * MIB, x, 2, &err), 0);
	ck_assert_uint_eq(x[0] | x[1], 0);
	vdisk_close(&d);
	ck_assert_msg(!vdisk_open(fd, true, &d, &err), "%s", err.text);
	ck_assert_uint_eq(vdisk_fd_size(fd), 9 * MIB);
	ck_assert_uint_eq(d.usage.present, 2);
	vdisk_close(&d);
	close(fd);
}
END_TEST

/* Interrupted after each of its writes, and done again: always the same file in the end. */
START_TEST(a_replay_that_was_cut_off_anywhere_gives_the_same_when_it_is_done_again)
{
	struct csv_err err = CSV_ERR_INIT;
	int fd = image(), whole = case_file();
	const struct vimg_replay *r;
	struct vimg_read rd;
	struct vimg_open *o;
	struct vdisk d;
	uint64_t at = 0;
	uint8_t *copy;
	uint32_t sum;
	size_t n;

	for (unsigned k = 0; k < 12; k++)
		at = put1(fd, at, 0, 100 + k, (k * 5) % 7, k % 8);
	log_on(fd);
	n = vdisk_fd_size(fd);
	copy = malloc(n);
	peek(fd, 0, copy, n);
	poke(whole, 0, copy, n);
	ck_assert_int_eq(vdisk_open(whole, true, &d, &err), 0);
	vdisk_close(&d);
	sum = case_sum(whole);
	for (size_t cut = 0; cut <= 12; cut++) {
		poke(fd, 0, copy, n);
		o = vimg_open_new(n);
		while (vimg_open_next(o, &rd, &err) > 0)
			peek(fd, rd.off, rd.buf, rd.len);
		r = vimg_open_replay(o);
		ck_assert_uint_eq(r->n, 12);
		for (size_t k = 0; k < cut; k++)
			poke(fd, r->patch[k].off, r->patch[k].data, r->patch[k].len / (k + 1 == cut ? 2 : 1));	/* the last one is torn */
		vimg_open_free(o);
		ck_assert_msg(!vdisk_open(fd, true, &d, &err), "%s", err.text);
		ck_assert(d.replayed);
		vdisk_close(&d);
		ck_assert_uint_eq(case_sum(fd), sum);
	}
	free(copy);
	close(fd);
	close(whole);
}
END_TEST

/* As QEMU reads it: the overlay and the replay are the same. */
START_TEST(reading_through_the_log_is_reading_after_the_replay)
{
	struct csv_err err = CSV_ERR_INIT;
	struct csv_prng r;
	int fd = image();
	struct vimg_read rd;
	struct vimg_open *o;
	struct vdisk d;
	uint64_t at = 0;
	static uint8_t a[32 * SEC], b[32 * SEC];

	csv_prng_init(&r, (uint64_t)_i);
	for (unsigned k = 0; k < 20; k++) {
		struct log_write w[5];
		unsigned n = (unsigned)csv_prng_range(&r, 1, 5);

		for (unsigned j = 0; j < n; j++)
			w[j] = (struct log_write){ .off = 4 * MIB + csv_prng_below(&r, 24) * SEC, .data = pattern[csv_prng_below(&r, 8)],
						   .zero = csv_prng_chance(&r, 1, 3) ? SEC * csv_prng_range(&r, 1, 8) : 0 };
		at = log_entry(fd, MIB, at, 0, 100 + k, w, n, 5 * MIB, 5 * MIB);
	}
	log_on(fd);
	peek(fd, 4 * MIB, a, sizeof(a));
	o = vimg_open_new(vdisk_fd_size(fd));
	while (vimg_open_next(o, &rd, &err) > 0)
		peek(fd, rd.off, rd.buf, rd.len);
	/* in odd pieces */
	for (size_t off = 0; off < sizeof(a);) {
		size_t n = csv_min((size_t)csv_prng_range(&r, 1, 3 * SEC), sizeof(a) - off);

		vimg_replay_overlay(vimg_open_replay(o), 4 * MIB + off, a + off, n);
		off += n;
	}
	vimg_open_free(o);
	ck_assert_int_eq(vdisk_open(fd, true, &d, &err), 0);
	vdisk_close(&d);
	peek(fd, 4 * MIB, b, sizeof(b));
	ck_assert_mem_eq(a, b, sizeof(a));
	close(fd);
}
END_TEST

/* Every sector claims to begin an entry as long as the log: checksums of 256 x 1 MiB are not calculated. */
START_TEST(made_up_heads_do_not_keep_us_busy)
{
	int fd = image();
	struct csv_err err = CSV_ERR_INIT;
	struct vdisk d;

	for (uint64_t at = 0; at < MIB; at += SEC) {
		log_entry(fd, MIB, at, at, 10 + at, NULL, 0, 5 * MIB, 5 * MIB);
		poke32(fd, LOG_AT + at + 8, MIB);
	}
	log_on(fd);
	ck_assert_int_eq(vdisk_open(fd, true, &d, &err), -CSV_E_CORRUPT);
	ck_assert_msg(strstr(err.text, "no whole sequence") != NULL, "%s", err.text);
	close(fd);
}
END_TEST

UNIT_MAIN("vhdx_log", UNIT_TEST(entries_are_applied_in_order), UNIT_TEST(what_comes_before_the_tail_is_not_applied),
	  UNIT_TEST(a_half_written_entry_at_the_end_is_no_entry),
	  UNIT_TEST(a_gap_in_the_numbers_ends_a_sequence_and_the_highest_sequence_rules), UNIT_TEST(a_sequence_goes_round_the_end_of_the_log),
	  UNIT_TEST(a_log_that_is_full_to_the_last_sector_is_replayed), UNIT_TEST(entries_of_an_earlier_log_are_of_no_account),
	  UNIT_TEST(zeroes_are_written_over_more_than_one_sector), UNIT_TEST(a_file_is_made_as_long_as_the_log_says),
	  UNIT_TEST(a_replay_that_was_cut_off_anywhere_gives_the_same_when_it_is_done_again),
	  UNIT_LOOP(reading_through_the_log_is_reading_after_the_replay, 0, 20), UNIT_TEST(made_up_heads_do_not_keep_us_busy))
