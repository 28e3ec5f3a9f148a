/* SPDX-License-Identifier: GPL-2.0-only */
/* utils/base: every claim of its headers. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "utils/base/crc32c.h"
#include "utils/base/cursor.h"
#include "utils/base/err.h"
#include "utils/base/heap.h"
#include "utils/base/prng.h"
#include "utils/base/siphash.h"
#include "utils/base/text.h"

/* ---- base.h -------------------------------------------------------------------------------- */

START_TEST(little_endian_integers_lie_low_byte_first)
{
	struct {
		struct le16 a;
		struct le32 b;
		struct le64 c;
	} v;
	static const uint8_t want[14] = {0x02, 0x01, 0x06, 0x05, 0x04, 0x03, 0x0e,
					 0x0d, 0x0c, 0x0b, 0x0a, 0x09, 0x08, 0x07};

	le16_set(&v.a, 0x0102);
	le32_set(&v.b, 0x03040506);
	le64_set(&v.c, 0x0708090a0b0c0d0e);
	ck_assert_uint_eq(sizeof(v), sizeof(want));
	ck_assert_mem_eq(&v, want, sizeof(want));
	ck_assert_uint_eq(le16_get(v.a), 0x0102);
	ck_assert_uint_eq(le32_get(v.b), 0x03040506);
	ck_assert_uint_eq(le64_get(v.c), 0x0708090a0b0c0d0e);
}
END_TEST

START_TEST(arithmetic_helpers_hold_at_their_edges)
{
	uint64_t x = 7;

	ck_assert_uint_eq(csv_round_up(0, 4096), 0);
	ck_assert_uint_eq(csv_round_up(1, 4096), 4096);
	ck_assert_uint_eq(csv_round_up(4096, 4096), 4096);
	ck_assert_uint_eq(csv_round_down(4095, 4096), 0);
	ck_assert_uint_eq(csv_round_up(10, 3), 12);
	ck_assert_uint_eq(csv_div_round_up(10, 3), 4);
	ck_assert_uint_eq(csv_div_round_up(9, 3), 3);
	ck_assert(!csv_is_power_of_2(0) && csv_is_power_of_2(1) && !csv_is_power_of_2(3));
	ck_assert_uint_eq(csv_ilog2(1), 0);
	ck_assert_uint_eq(csv_ilog2(4095), 11);
	ck_assert_uint_eq(csv_ilog2(UINT64_MAX), 63);
	ck_assert(csv_add_overflow(UINT64_MAX, 1, &x));
	ck_assert(csv_mul_overflow(1ull << 32, 1ull << 32, &x));
	ck_assert_uint_eq(x, 7);
	ck_assert(!csv_add_overflow(UINT64_MAX - 1, 1, &x));
	ck_assert_uint_eq(x, UINT64_MAX);
	ck_assert_int_eq(csv_min(-1, 1), -1);
	ck_assert_int_eq(csv_max(-1, 1), 1);
}
END_TEST

static void hook_checks_text(void *arg, const char *file, int line, const char *message)
{
	/* dying of another signal than SIGABRT tells the runner that the hook saw the text */
	if (strstr(file, "test_base.c") && line == *(int *)arg && strstr(message, "used 5 of 4"))
		raise(SIGUSR1);
}

START_TEST(failed_assertion_calls_the_hook_with_its_text)
{
	int used = 5, size = 4, line = __LINE__ + 3;

	csv_assert_hook_set(hook_checks_text, &line);
	csv_assertf(used <= size, "used %d of %d", used, size);
}
END_TEST

START_TEST(failed_assertion_aborts)
{
	csv_assert(_i == 1);
}
END_TEST

/* ---- err ----------------------------------------------------------------------------------- */

START_TEST(err_prefixes_stand_in_front)
{
	struct csv_err err = CSV_ERR_INIT;

	ck_assert_int_eq(csv_err_set(&err, -CSV_E_CORRUPT, "checksum is %x", 0xabc),
			 -CSV_E_CORRUPT);
	csv_err_prefix(&err, "record %d", 812);
	ck_assert_int_eq(csv_err_prefix(&err, "mount %s", "vol1"), -CSV_E_CORRUPT);
	ck_assert_str_eq(err.text, "mount vol1: record 812: checksum is abc");
	ck_assert_int_eq(err.code, -CSV_E_CORRUPT);
	csv_err_clear(&err);
	ck_assert_int_eq(err.code, 0);
	ck_assert_str_eq(err.text, "");
}
END_TEST

START_TEST(err_null_is_allowed)
{
	ck_assert_int_eq(csv_err_set(NULL, -ENOSPC, "x"), -ENOSPC);
	ck_assert_int_eq(csv_err_prefix(NULL, "x"), 0);
	csv_err_clear(NULL);
}
END_TEST

START_TEST(err_too_long_keeps_its_front)
{
	struct csv_err err = CSV_ERR_INIT;
	char full[sizeof(err.text)];
	char longer[1000];

	memset(longer, 'y', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	csv_err_set(&err, -EIO, "%s", longer);
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
	ck_assert_str_eq(err.text + sizeof(err.text) - 5, "y...");
	csv_err_prefix(&err, "front");
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
	ck_assert_mem_eq(err.text, "front: yyy", 10);
	ck_assert_str_eq(err.text + sizeof(err.text) - 4, "...");
	csv_err_prefix(&err, "%s", longer);
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
	ck_assert_mem_eq(err.text, "yyyyyyyyyy", 10);
	/* exactly full is not cut */
	memset(full, 'z', sizeof(full) - 1);
	full[sizeof(full) - 1] = '\0';
	csv_err_set(&err, -EIO, "%s", full);
	ck_assert_str_eq(err.text, full);
}
END_TEST

START_TEST(err_every_private_code_has_name_text_and_errno)
{
	char buf[16], other[16];

	for (int code = CSV_E_FIRST_ + 1; code < CSV_E_END_; code++) {
		const char *name = csv_err_name(-code, buf);

		ck_assert_ptr_nonnull(name);
		ck_assert_ptr_ne(name, buf);
		ck_assert_ptr_nonnull(csv_err_describe(-code));
		ck_assert_int_gt(csv_err_to_errno(-code), 0);
		ck_assert_int_lt(csv_err_to_errno(-code), CSV_E_FIRST_);
		for (int c = CSV_E_FIRST_ + 1; c < code; c++)
			ck_assert_str_ne(name, csv_err_name(-c, other));
	}
	ck_assert_str_eq(csv_err_name(-ENOSPC, buf), "ENOSPC");
	ck_assert_str_eq(csv_err_name(0, buf), "OK");
	ck_assert_str_eq(csv_err_name(-CSV_E_END_, buf), "E4104");
	ck_assert_int_eq(csv_err_to_errno(-ENOSPC), ENOSPC);
	ck_assert_int_eq(csv_err_to_errno(-CSV_E_BUSY_ELSEWHERE), EBUSY);
	ck_assert_int_eq(csv_err_to_errno(-CSV_E_END_), EIO);
	ck_assert_int_eq(csv_err_to_errno(0), 0);
}
END_TEST

/* ---- crc32c, siphash, prng ------------------------------------------------------------------ */

START_TEST(crc32c_matches_published_vectors)
{
	uint8_t buf[32];

	ck_assert_uint_eq(csv_crc32c(0, "123456789", 9), 0xe3069283);
	ck_assert_uint_eq(csv_crc32c(0, "", 0), 0);
	/* RFC 3720, B.4 */
	memset(buf, 0, sizeof(buf));
	ck_assert_uint_eq(csv_crc32c(0, buf, sizeof(buf)), 0x8a9136aa);
	memset(buf, 0xff, sizeof(buf));
	ck_assert_uint_eq(csv_crc32c(0, buf, sizeof(buf)), 0x62a8ab43);
	for (int i = 0; i < 32; i++)
		buf[i] = i;
	ck_assert_uint_eq(csv_crc32c(0, buf, sizeof(buf)), 0x46dd794e);
}
END_TEST

START_TEST(crc32c_chains_over_any_split)
{
	uint8_t buf[1500];
	struct csv_prng prng;
	uint32_t whole;

	csv_prng_init(&prng, 1);
	csv_prng_bytes(&prng, buf, sizeof(buf));
	whole = csv_crc32c(0, buf, sizeof(buf));
	for (size_t cut = 0; cut <= sizeof(buf); cut++)
		ck_assert_uint_eq(csv_crc32c(csv_crc32c(0, buf, cut), buf + cut,
					     sizeof(buf) - cut), whole);
}
END_TEST

/* Bit by bit, from the polynomial: catches a wrong table or alignment path. */
static uint32_t crc32c_slow(const uint8_t *p, size_t n)
{
	uint32_t crc = ~0u;

	while (n--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

START_TEST(crc32c_agrees_with_the_definition)
{
	uint8_t buf[4200];
	struct csv_prng prng;

	csv_prng_init(&prng, 2);
	csv_prng_bytes(&prng, buf, sizeof(buf));
	for (int i = 0; i < 300; i++) {
		size_t from = csv_prng_below(&prng, 64);
		size_t n = csv_prng_below(&prng, sizeof(buf) - from);

		ck_assert_uint_eq(csv_crc32c(0, buf + from, n), crc32c_slow(buf + from, n));
	}
}
END_TEST

START_TEST(siphash_matches_reference_vectors)
{
	/* Aumasson and Bernstein's vectors_sip64: key 00..0f, input 00..(n-1) */
	static const struct {
		size_t n;
		uint64_t hash;
	} want[] = {
		{0, 0x726fdb47dd0e0e31},  {1, 0x74f839c593dc67fd}, {2, 0x0d6c8009d9a94f5a},
		{7, 0xab0200f58b01d137},  {8, 0x93f5f5799a932462}, {15, 0xa129ca6149be45e5},
		{63, 0x958a324ceb064572},
	};
	uint8_t key[16], in[64];

	for (int i = 0; i < 16; i++)
		key[i] = i;
	for (int i = 0; i < 64; i++)
		in[i] = i;
	for (size_t i = 0; i < ARRAY_SIZE(want); i++)
		ck_assert_uint_eq(csv_siphash(key, in, want[i].n), want[i].hash);
	key[15] ^= 1;
	ck_assert_uint_ne(csv_siphash(key, in, 15), want[5].hash);
}
END_TEST

START_TEST(prng_same_seed_same_numbers_for_ever)
{
	struct csv_prng a, b, c;
	uint64_t state = 1234567;

	/* splitmix64: published outputs for this seed */
	ck_assert_uint_eq(csv_splitmix64(&state), 6457827717110365317u);
	ck_assert_uint_eq(csv_splitmix64(&state), 3203168211198807973u);
	ck_assert_uint_eq(csv_splitmix64(&state), 9817491932198370423u);
	/* xoshiro256**: published outputs for the state 1, 2, 3, 4 */
	a = (struct csv_prng){{1, 2, 3, 4}};
	ck_assert_uint_eq(csv_prng_u64(&a), 11520);
	ck_assert_uint_eq(csv_prng_u64(&a), 0);
	ck_assert_uint_eq(csv_prng_u64(&a), 1509978240);
	ck_assert_uint_eq(csv_prng_u64(&a), 1215971899390074240u);

	csv_prng_init(&a, 42);
	csv_prng_init(&b, 42);
	csv_prng_init(&c, 43);
	for (int i = 0; i < 100; i++) {
		uint64_t x = csv_prng_u64(&a);

		ck_assert_uint_eq(x, csv_prng_u64(&b));
		ck_assert_uint_ne(x, csv_prng_u64(&c));
	}
}
END_TEST

START_TEST(prng_ranges_hold_and_every_value_comes)
{
	unsigned count[7] = {0};
	struct csv_prng prng;
	unsigned yes = 0;

	csv_prng_init(&prng, 3);
	for (int i = 0; i < 7000; i++) {
		uint64_t x = csv_prng_range(&prng, 10, 16);

		ck_assert_uint_ge(x, 10);
		ck_assert_uint_le(x, 16);
		count[x - 10]++;
		yes += csv_prng_chance(&prng, 1, 4);
		ck_assert(!csv_prng_chance(&prng, 0, 4));
		ck_assert(csv_prng_chance(&prng, 4, 4));
	}
	for (int i = 0; i < 7; i++) {
		ck_assert_uint_gt(count[i], 850);
		ck_assert_uint_lt(count[i], 1150);
	}
	ck_assert_uint_gt(yes, 1600);
	ck_assert_uint_lt(yes, 1900);
	csv_prng_range(&prng, 0, UINT64_MAX);
	ck_assert_uint_eq(csv_prng_below(&prng, 1), 0);
}
END_TEST

START_TEST(prng_bytes_fills_exactly)
{
	struct csv_prng prng;

	for (size_t n = 0; n < 40; n++) {
		uint8_t buf[48];
		unsigned changed = 0;

		memset(buf, 0xee, sizeof(buf));
		csv_prng_init(&prng, n);
		csv_prng_bytes(&prng, buf + 4, n);
		for (size_t i = 0; i < sizeof(buf); i++) {
			if (i < 4 || i >= n + 4)
				ck_assert_uint_eq(buf[i], 0xee);
			else
				changed += buf[i] != 0xee;
		}
		ck_assert_uint_ge(changed + 2, n);
	}
}
END_TEST

/* ---- heap ---------------------------------------------------------------------------------- */

START_TEST(heap_equal_keys_come_in_order_of_adding)
{
	struct csv_heap_node n[20];
	struct csv_heap heap;

	csv_heap_init(&heap);
	for (int i = 0; i < 20; i++) {
		csv_heap_node_init(&n[i]);
		ck_assert_int_eq(csv_heap_add(&heap, &n[i], 5), 0);
	}
	csv_heap_rekey(&heap, &n[3], 5);
	for (int i = 0; i < 20; i++) {
		int want = i < 3 ? i : i < 19 ? i + 1 : 3;

		ck_assert_ptr_eq(csv_heap_pop(&heap), &n[want]);
	}
	ck_assert_ptr_null(csv_heap_pop(&heap));
	csv_heap_done(&heap);
}
END_TEST

/* Random adds, removes, rekeys and pops against a plain array searched from end to end. */
START_TEST(heap_agrees_with_a_sorted_model)
{
	struct csv_heap_node n[64];
	struct csv_heap heap;
	struct csv_prng prng;

	csv_prng_init(&prng, _i);
	csv_heap_init(&heap);
	for (size_t i = 0; i < ARRAY_SIZE(n); i++)
		csv_heap_node_init(&n[i]);
	for (int step = 0; step < 3000; step++) {
		struct csv_heap_node *x = &n[csv_prng_below(&prng, ARRAY_SIZE(n))];
		struct csv_heap_node *least = NULL;
		uint64_t key = csv_prng_below(&prng, 40);
		size_t inside = 0;

		if (!csv_heap_contains(x))
			ck_assert_int_eq(csv_heap_add(&heap, x, key), 0);
		else if (csv_prng_chance(&prng, 1, 3))
			csv_heap_remove(&heap, x);
		else if (csv_prng_chance(&prng, 1, 2))
			csv_heap_rekey(&heap, x, key);
		else
			ck_assert(!csv_heap_contains(csv_heap_pop(&heap)));
		for (size_t i = 0; i < ARRAY_SIZE(n); i++) {
			if (!csv_heap_contains(&n[i]))
				continue;
			inside++;
			ck_assert_ptr_eq(heap.node[n[i].slot], &n[i]);
			if (!least || n[i].key < least->key ||
			    (n[i].key == least->key && n[i].seq < least->seq))
				least = &n[i];
		}
		ck_assert_uint_eq(heap.count, inside);
		ck_assert_ptr_eq(csv_heap_peek(&heap), least);
	}
	csv_heap_done(&heap);
}
END_TEST

START_TEST(heap_adding_twice_asserts)
{
	struct csv_heap_node n;
	struct csv_heap heap;

	csv_heap_init(&heap);
	csv_heap_node_init(&n);
	ck_assert_int_eq(csv_heap_add(&heap, &n, 1), 0);
	ck_assert_int_eq(csv_heap_add(&heap, &n, 1), 0);
}
END_TEST

/* ---- cursor -------------------------------------------------------------------------------- */

START_TEST(cursor_round_trip_with_distinct_values)
{
	uint8_t buf[64], raw[5] = {9, 8, 7, 6, 5}, back[5];
	struct csv_cursor w, r;

	memset(buf, 0xee, sizeof(buf));
	csv_cursor_init(&w, buf, sizeof(buf));
	csv_put_u8(&w, 0x11);
	csv_put_u16(&w, 0x2233);
	csv_put_u32(&w, 0x44556677);
	csv_put_u64(&w, 0x8899aabbccddeeff);
	csv_put_bytes(&w, raw, sizeof(raw));
	csv_put_zero(&w, 3);
	ck_assert(!csv_cur_error(&w));
	ck_assert_uint_eq(csv_cur_used(&w), 23);
	ck_assert_uint_eq(csv_cur_left(&w), 41);
	ck_assert_uint_eq(buf[23], 0xee);

	csv_cursor_init_ro(&r, buf, csv_cur_used(&w));
	ck_assert_uint_eq(csv_cur_u8(&r), 0x11);
	ck_assert_uint_eq(csv_cur_u16(&r), 0x2233);
	ck_assert_uint_eq(csv_cur_u32(&r), 0x44556677);
	ck_assert_uint_eq(csv_cur_u64(&r), 0x8899aabbccddeeff);
	ck_assert_mem_eq(csv_cur_ref(&r, 2), raw, 2);
	csv_cur_bytes(&r, back, 3);
	ck_assert_mem_eq(back, raw + 2, 3);
	csv_cur_skip(&r, 3);
	ck_assert(!csv_cur_error(&r));
	ck_assert_uint_eq(csv_cur_left(&r), 0);
}
END_TEST

/* For every length: what does not fit fails, gives zeroes, touches nothing and stays failed. */
START_TEST(cursor_short_buffer_fails_and_stays_failed)
{
	for (size_t n = 0; n < 15; n++) {
		uint8_t buf[32], want[32], out[4] = {1, 2, 3, 4};
		struct csv_cursor c;

		memset(buf, 0xa5, sizeof(buf));
		memcpy(want, buf, sizeof(buf));
		csv_cursor_init(&c, buf + 8, n);
		ck_assert_uint_eq(csv_cur_u64(&c), n >= 8 ? 0xa5a5a5a5a5a5a5a5 : 0);
		ck_assert_uint_eq(csv_cur_u32(&c), n >= 12 ? 0xa5a5a5a5 : 0);
		csv_cur_bytes(&c, out, 4);
		ck_assert_mem_eq(out, "\0\0\0\0", 4);
		ck_assert(csv_cur_error(&c));
		ck_assert_uint_eq(csv_cur_u8(&c), 0);
		ck_assert_ptr_null(csv_cur_ref(&c, 0));
		csv_put_u8(&c, 1);
		csv_put_zero(&c, 1);
		ck_assert_mem_eq(buf, want, sizeof(buf));
		ck_assert(csv_cur_used(&c) <= n);
	}
}
END_TEST

START_TEST(cursor_huge_length_does_not_wrap)
{
	uint8_t buf[8] = {0};
	struct csv_cursor c;

	csv_cursor_init_ro(&c, buf, sizeof(buf));
	csv_cur_u8(&c);
	ck_assert_ptr_null(csv_cur_ref(&c, SIZE_MAX));
	ck_assert(csv_cur_error(&c));
	ck_assert_uint_eq(csv_cur_used(&c), 1);
}
END_TEST

START_TEST(cursor_writing_a_readonly_buffer_asserts)
{
	static const uint8_t buf[8];
	struct csv_cursor c;

	csv_cursor_init_ro(&c, buf, sizeof(buf));
	csv_put_u8(&c, 1);
}
END_TEST

/* ---- text ---------------------------------------------------------------------------------- */

START_TEST(hexdump_folds_equal_lines)
{
	char *text = NULL;
	uint8_t buf[70] = {0};
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	ck_assert_ptr_nonnull(out);
	memcpy(buf, "csvfs\n", 6);
	buf[69] = 0xff;
	csv_hexdump(out, buf, sizeof(buf), 0x1000);
	ck_assert_int_eq(fclose(out), 0);
	ck_assert_str_eq(text,
		"00001000  63 73 76 66 73 0a 00 00  00 00 00 00 00 00 00 00  |csvfs...........|\n"
		"00001010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n"
		"*\n"
		"00001040  00 00 00 00 00 ff                                 |......|\n");
	free(text);
}
END_TEST

START_TEST(uuid_round_trip)
{
	static const char text[] = "01234567-89ab-cdef-fedc-ba9876543210";
	char back[CSV_UUID_TEXT_BYTES];
	uint8_t uuid[16] = {0};

	ck_assert_int_eq(csv_uuid_parse(text, uuid), 0);
	ck_assert_uint_eq(uuid[1], 0x23);
	ck_assert_str_eq(csv_uuid_to_text(uuid, back), text);
	ck_assert_int_eq(csv_uuid_parse("01234567-89ab-cdef-fedc-ba987654321", uuid), -EINVAL);
	ck_assert_int_eq(csv_uuid_parse("", uuid), -EINVAL);
	ck_assert_uint_eq(uuid[1], 0x23);
}
END_TEST

START_TEST(text_that_is_none_is_made_one)
{
	static const struct { const char *is, *becomes; } want[] = {
		{ "", "" }, { "qemu-system-x86", "qemu-system-x86" }, { "a\nb\tc\x1b[31m\x7f", "a?b?c?[31m?" },
		{ "M\xc3\xbcller \xe2\x82\xac \xf0\x9f\x98\x80", "M\xc3\xbcller \xe2\x82\xac \xf0\x9f\x98\x80" },
		{ "M\xfcller", "M?ller" }, { "\xc3", "?" }, { "\xe2\x82", "??" }, { "\xc0\xaf", "??" }, { "\xe0\x80\xaf", "???" },
		{ "\xed\xa0\x80", "???" }, { "\xf4\x90\x80\x80", "????" }, { "\xc2\x85 x", "?? x" }, { "\xff\xfe", "??" },
		{ "\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		char *text = strdup(want[i].is);		/* its own size: a sanitizer sees who reads on */

		csv_text_clean(text);
		ck_assert_str_eq(text, want[i].becomes);
		free(text);
	}
}
END_TEST

START_TEST(sizes_read_and_write)
{
	static const struct {
		const char *text;
		int rc;
		uint64_t size;
	} want[] = {
		{"0", 0, 0},		     {"4096", 0, 4096},
		{"64K", 0, 65536},	     {"64k", 0, 65536},
		{"8GiB", 0, 8ull << 30},     {"1P", 0, 1ull << 50},
		{"", -EINVAL, 0},	     {"-1", -EINVAL, 0},
		{"8X", -EINVAL, 0},	     {"8G ", -EINVAL, 0},
		{"8GB", -EINVAL, 0},	     {"G", -EINVAL, 0},
		{"9223372036854775807", 0, INT64_MAX},
		{"9223372036854775808", -ERANGE, 0},
		{"18446744073709551617", -ERANGE, 0},
		{"99999P", -ERANGE, 0},
	};
	char buf[CSV_SIZE_TEXT_BYTES];

	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		uint64_t size = 4711;

		ck_assert_msg(csv_size_parse(want[i].text, &size) == want[i].rc, "'%s'",
			      want[i].text);
		ck_assert_uint_eq(size, want[i].rc ? 4711 : want[i].size);
	}
	ck_assert_str_eq(csv_size_to_text(0, buf), "0 B");
	ck_assert_str_eq(csv_size_to_text(1023, buf), "1023 B");
	ck_assert_str_eq(csv_size_to_text(1024, buf), "1 KiB");
	ck_assert_str_eq(csv_size_to_text(1536ull << 20, buf), "1.5 GiB");
	ck_assert_str_eq(csv_size_to_text((1ull << 30) - 1, buf), "1023.9 MiB");
	ck_assert_str_eq(csv_size_to_text(UINT64_MAX, buf), "15.9 EiB");
}
END_TEST

UNIT_MAIN("base",
	UNIT_TEST(little_endian_integers_lie_low_byte_first),
	UNIT_TEST(arithmetic_helpers_hold_at_their_edges),
	UNIT_SIGNAL(failed_assertion_calls_the_hook_with_its_text, SIGUSR1),
	UNIT_SIGNAL(failed_assertion_aborts, SIGABRT),
	UNIT_TEST(err_prefixes_stand_in_front),
	UNIT_TEST(err_null_is_allowed),
	UNIT_TEST(err_too_long_keeps_its_front),
	UNIT_TEST(err_every_private_code_has_name_text_and_errno),
	UNIT_TEST(crc32c_matches_published_vectors),
	UNIT_TEST(crc32c_chains_over_any_split),
	UNIT_TEST(crc32c_agrees_with_the_definition),
	UNIT_TEST(siphash_matches_reference_vectors),
	UNIT_TEST(prng_same_seed_same_numbers_for_ever),
	UNIT_TEST(prng_ranges_hold_and_every_value_comes),
	UNIT_TEST(prng_bytes_fills_exactly),
	UNIT_TEST(heap_equal_keys_come_in_order_of_adding),
	UNIT_LOOP(heap_agrees_with_a_sorted_model, 0, 5),
	UNIT_SIGNAL(heap_adding_twice_asserts, SIGABRT),
	UNIT_TEST(cursor_round_trip_with_distinct_values),
	UNIT_TEST(cursor_short_buffer_fails_and_stays_failed),
	UNIT_TEST(cursor_huge_length_does_not_wrap),
	UNIT_SIGNAL(cursor_writing_a_readonly_buffer_asserts, SIGABRT),
	UNIT_TEST(hexdump_folds_equal_lines),
	UNIT_TEST(uuid_round_trip),
	UNIT_TEST(sizes_read_and_write), UNIT_TEST(text_that_is_none_is_made_one))
