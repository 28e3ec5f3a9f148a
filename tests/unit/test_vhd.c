/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * VHD: footers written are read alike, sizes as other programs take them, and hostile images answered with the field's name.
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <string.h>

#include "csvfs/vhd/vhd_format.h"
#include "utils/base/prng.h"

#define MIB (1ull << 20)
static const uint8_t UUID[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
#define NOW_S 1700000000ll
#define DYN_AT 512u
#define DYN_FILE (512u + 1024u + 2048u + 8 * (2u * MIB + 512) + 512u)

static struct vhd_footer *footer(void *p)
{
	return p;
}

static void reseal(void *p)
{
	footer(p)->checksum = be32_of(vhd_checksum(p, 512, offsetof(struct vhd_footer, checksum)));
}

/* A good fixed image of 64 MiB. */
static struct vhd_probe fixed_probe(void)
{
	struct vhd_probe p = { .file_size = 64 * MIB + 512 };
	struct vhd_info i;

	ck_assert_int_eq(vhd_fixed_new(64 * MIB, UUID, NOW_S, &i, NULL), 0);
	vhd_footer_encode(&i, p.tail);
	return p;
}

static void dyn_reseal(struct vhd_dyn_header *d)
{
	d->checksum = be32_of(vhd_checksum(d, sizeof(*d), offsetof(struct vhd_dyn_header, checksum)));
}

/* A good dynamic image: 16 MiB, blocks of 2 MiB, table of 2 KiB behind the header. */
static struct vhd_probe dynamic_probe(void)
{
	struct vhd_probe p = { .file_size = DYN_FILE, .has_dyn = true };
	struct vhd_dyn_header d = { .cookie = { 0 } };
	struct vhd_info i;

	ck_assert_int_eq(vhd_fixed_new(16 * MIB, UUID, NOW_S, &i, NULL), 0);
	i.type = VHD_DYNAMIC;
	i.data_offset = DYN_AT;
	vhd_footer_encode(&i, p.tail);
	memcpy(p.head, p.tail, 512);
	memcpy(d.cookie, VHD_DYN_COOKIE, 8);
	d.data_offset = be64_of(UINT64_MAX);
	d.table_offset = be64_of(DYN_AT + 1024);
	d.version = be32_of(VHD_VERSION);
	d.max_table_entries = be32_of(8);
	d.block_size = be32_of(2 * MIB);
	dyn_reseal(&d);
	memcpy(p.dyn, &d, sizeof(d));
	return p;
}

START_TEST(a_footer_written_is_read_alike)
{
	struct vhd_info a, b;
	uint8_t buf[512];

	ck_assert_int_eq(vhd_fixed_new(5 * 1000 * 1000 * 512ull, UUID, NOW_S, &a, NULL), 0);
	a.features |= VHD_FEATURE_TEMPORARY;
	a.original_size = 12345 * 512;
	a.saved_state = true;
	vhd_footer_encode(&a, buf);
	ck_assert_int_eq(vhd_footer_decode(buf, &b, NULL), 0);
	ck_assert_mem_eq(&a, &b, sizeof(a));
}
END_TEST

/* As the specification's own code and QEMU give them. */
START_TEST(geometry_is_that_of_the_specification)
{
	static const struct { uint64_t sectors; struct vhd_geometry g; } want[] = {
		{ 68, { 1, 4, 17 } }, { 131072, { 963, 8, 17 } }, { 2048 * 20, { 602, 4, 17 } }, { 2097152, { 2080, 16, 63 } },
		{ 65535ull * 16 * 63, { 16191, 16, 255 } }, { 1ull << 40, { 65535, 16, 255 } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		struct vhd_geometry g = vhd_geometry_of(want[i].sectors);

		ck_assert_msg(!memcmp(&g, &want[i].g, sizeof(g)), "%llu sectors: %u/%u/%u, want %u/%u/%u",
			      (unsigned long long)want[i].sectors, g.cylinders, g.heads, g.sectors, want[i].g.cylinders, want[i].g.heads,
			      want[i].g.sectors);
	}
}
END_TEST

START_TEST(a_geometry_never_stands_for_more_than_the_disk_and_for_little_less)
{
	struct csv_prng r;

	csv_prng_init(&r, 7);
	for (int n = 0; n < 20000; n++) {
		uint64_t s = 68 + csv_prng_u64(&r) % (n % 2 ? VHD_CHS_MAX : 1u << 21), g = vhd_geometry_sectors(vhd_geometry_of(s));

		ck_assert_msg(g <= s && g + 16 * 255 > s, "%llu sectors: geometry %llu", (unsigned long long)s, (unsigned long long)g);
	}
}
END_TEST

START_TEST(the_size_is_taken_as_the_creator_takes_it)
{
	static const struct { const char *app; bool chs; } want[] = {
		{ "vpc ", true }, { "qemu", true }, { "vbox", true }, { "win ", false }, { "qem2", false }, { "tap\0", false },
		{ "CTXS", false }, { "d2v ", false }, { "d2v\0", false }, { "csvf", true },
	};
	struct vhd_info i;

	for (size_t k = 0; k < ARRAY_SIZE(want); k++) {
		struct vhd_probe p = fixed_probe();

		memcpy(footer(p.tail)->creator_app, want[k].app, 4);
		reseal(p.tail);
		ck_assert_int_eq(vhd_identify(&p, &i, NULL), 0);
		ck_assert_uint_eq(i.virtual_size, want[k].chs ? 963ull * 8 * 17 * 512 : 64 * MIB);
		/* the largest geometry says nothing */
		footer(p.tail)->cylinders = be16_of(65535);
		footer(p.tail)->heads = 16;
		footer(p.tail)->sectors = 255;
		reseal(p.tail);
		ck_assert_int_eq(vhd_identify(&p, &i, NULL), 0);
		ck_assert_uint_eq(i.virtual_size, 64 * MIB);
	}
}
END_TEST

START_TEST(sizes_that_no_vhd_can_have_are_refused_when_made)
{
	static const uint64_t bad[] = { 0, 511, 513, VHD_SIZE_MAX + 512, UINT64_MAX, UINT64_MAX - 511 };
	struct vhd_info i;
	struct csv_err err;

	for (size_t k = 0; k < ARRAY_SIZE(bad); k++)
		ck_assert_int_eq(vhd_fixed_new(bad[k], UUID, NOW_S, &i, &err), -EINVAL);
	ck_assert_int_eq(vhd_fixed_new(VHD_SIZE_MAX, UUID, NOW_S, &i, &err), 0);
	ck_assert_int_eq(vhd_fixed_new(512, UUID, NOW_S, &i, &err), 0);
}
END_TEST

START_TEST(what_a_guest_writes_into_its_first_sector_changes_nothing)
{
	struct vhd_probe p = fixed_probe(), dyn = dynamic_probe();
	struct vhd_info i;

	memcpy(p.head, dyn.tail, 512);
	ck_assert_int_eq(vhd_identify(&p, &i, NULL), 0);
	ck_assert_int_eq(i.type, VHD_FIXED);
	ck_assert_uint_eq(i.virtual_size, 64 * MIB);
	memcpy(p.head, "vhdxfile", 8);
	ck_assert_int_eq(vhd_identify(&p, &i, NULL), 0);
	ck_assert_int_eq(i.type, VHD_FIXED);
}
END_TEST

START_TEST(dynamic_ones_are_recognised_and_not_opened)
{
	struct vhd_probe p = dynamic_probe();
	struct csv_err err = { 0 };
	struct vhd_info i;

	ck_assert_int_eq(vhd_identify(&p, &i, &err), 0);
	ck_assert_int_eq(i.type, VHD_DYNAMIC);
	ck_assert_uint_eq(i.block_size, 2 * MIB);
	ck_assert_int_eq(vhd_may_open(&i, false, &err), -CSV_E_UNSUPPORTED);
	ck_assert_msg(strstr(err.text, "dynamic") && strstr(err.text, "not supported yet"), "%s", err.text);
}
END_TEST

START_TEST(a_disk_on_which_a_machine_sleeps_is_read_only)
{
	struct vhd_probe p = fixed_probe();
	struct csv_err err = { 0 };
	struct vhd_info i;

	footer(p.tail)->saved_state = 1;
	reseal(p.tail);
	ck_assert_int_eq(vhd_identify(&p, &i, &err), 0);
	ck_assert_int_eq(vhd_may_open(&i, false, &err), 0);
	ck_assert_int_eq(vhd_may_open(&i, true, &err), -EROFS);
	ck_assert_msg(strstr(err.text, "saved_state") != NULL, "%s", err.text);
}
END_TEST

/* ---- hostile images: number in the catalogue of the design, what is changed, what the message must name ------------------------- */

#define FIELD(name) static void name(struct vhd_probe *p, struct vhd_footer *f, struct vhd_dyn_header *d)
#define NOP (void)p; (void)f; (void)d
FIELD(length_0) { NOP; p->file_size = 0; memset(p->tail, 0, 512); }
FIELD(length_511) { NOP; p->file_size = 511; memset(p->tail, 0, 512); }
FIELD(length_footer_alone) { NOP; p->file_size = 512; }
FIELD(length_not_of_sectors) { NOP; p->file_size += 7; }
FIELD(length_beyond_63_bits) { NOP; p->file_size = (1ull << 63) + 512; }
FIELD(truncated) { NOP; p->file_size -= MIB; }
FIELD(too_long) { NOP; p->file_size += 4096; }
FIELD(tail_missing) { NOP; memset(f, 0, 512); }
FIELD(head_bad) { NOP; p->head[100] ^= 1; }
FIELD(head_no_cookie) { NOP; p->head[0] = 'x'; }
FIELD(head_differs) { NOP; footer(p->head)->current_size = be64_of(14 * MIB); footer(p->head)->cylinders = be16_of(100); reseal(p->head); }
FIELD(cookie) { NOP; f->cookie[0] = 'C'; }
FIELD(checksum) { NOP; f->timestamp.b[0] ^= 1; p->has_dyn = false; }
FIELD(reserved_feature) { NOP; f->features = be32_of(0); reseal(f); }
FIELD(unknown_feature) { NOP; f->features = be32_of(2 | 0x40); reseal(f); }
FIELD(version) { NOP; f->version = be32_of(0x00020000); reseal(f); }
FIELD(type_0) { NOP; f->disk_type = be32_of(0); reseal(f); }
FIELD(type_1) { NOP; f->disk_type = be32_of(1); reseal(f); }
FIELD(type_5) { NOP; f->disk_type = be32_of(5); reseal(f); }
FIELD(type_6) { NOP; f->disk_type = be32_of(6); reseal(f); }
FIELD(type_7) { NOP; f->disk_type = be32_of(7); reseal(f); }
FIELD(fixed_with_offset) { NOP; f->data_offset = be64_of(512); reseal(f); }
FIELD(offset_none) { NOP; f->data_offset = be64_of(UINT64_MAX); reseal(f); }
FIELD(offset_self) { NOP; f->data_offset = be64_of(0); reseal(f); }
FIELD(offset_past_end) { NOP; f->data_offset = be64_of(DYN_FILE); reseal(f); }
FIELD(offset_over_footer) { NOP; f->data_offset = be64_of(DYN_FILE - 1024); reseal(f); }
FIELD(offset_2_63) { NOP; f->data_offset = be64_of(1ull << 63); reseal(f); }
FIELD(offset_wraps) { NOP; f->data_offset = be64_of(UINT64_MAX - 511); reseal(f); }
FIELD(offset_unaligned) { NOP; f->data_offset = be64_of(513); reseal(f); }
FIELD(size_0) { NOP; f->current_size = be64_of(0); reseal(f); }
FIELD(size_all_ones) { NOP; f->current_size = be64_of(UINT64_MAX); reseal(f); }
FIELD(size_rounds_up_to_0) { NOP; f->current_size = be64_of(UINT64_MAX - 511); reseal(f); }
FIELD(size_over_2040g) { NOP; f->current_size = be64_of(VHD_SIZE_MAX + 512); reseal(f); }
FIELD(size_not_of_sectors) { NOP; f->current_size = be64_of(64 * MIB - 1); reseal(f); }
FIELD(chs_cylinders_0) { NOP; f->cylinders = be16_of(0); reseal(f); }
FIELD(chs_heads_0) { NOP; f->heads = 0; reseal(f); }
FIELD(chs_sectors_0) { NOP; f->sectors = 0; reseal(f); }
FIELD(chs_heads_255) { NOP; f->heads = 255; f->cylinders = be16_of(1); f->sectors = 1; reseal(f); }
FIELD(chs_too_large) { NOP; f->cylinders = be16_of(965); reseal(f); }
FIELD(saved_state_2) { NOP; f->saved_state = 2; reseal(f); }
FIELD(hidden_255) { NOP; f->hidden = 255; reseal(f); }
FIELD(uuid_null) { NOP; memset(f->uuid, 0, 16); reseal(f); }
FIELD(dyn_cookie) { NOP; d->cookie[7] = 0; }
FIELD(dyn_checksum) { NOP; d->reserved2[0] = 1; }
FIELD(dyn_version) { NOP; d->version = be32_of(0x00010001); dyn_reseal(d); }
FIELD(dyn_data_offset) { NOP; d->data_offset = be64_of(4096); dyn_reseal(d); }
FIELD(block_0) { NOP; d->block_size = be32_of(0); dyn_reseal(d); }
FIELD(block_not_power) { NOP; d->block_size = be32_of(3 * MIB); dyn_reseal(d); }
FIELD(block_256) { NOP; d->block_size = be32_of(256); dyn_reseal(d); }
FIELD(block_2_31) { NOP; d->block_size = be32_of(1u << 31); dyn_reseal(d); }
FIELD(entries_0) { NOP; d->max_table_entries = be32_of(0); dyn_reseal(d); }
FIELD(entries_2_30) { NOP; d->max_table_entries = be32_of(0x40000000); dyn_reseal(d); }
FIELD(entries_too_few) { NOP; d->max_table_entries = be32_of(7); dyn_reseal(d); }
FIELD(table_0) { NOP; d->table_offset = be64_of(0); dyn_reseal(d); }
FIELD(table_in_header) { NOP; d->table_offset = be64_of(1024); dyn_reseal(d); }
FIELD(table_unaligned) { NOP; d->table_offset = be64_of(1537); dyn_reseal(d); }
FIELD(table_past_end) { NOP; d->table_offset = be64_of(DYN_FILE); dyn_reseal(d); }
FIELD(table_wraps) { NOP; d->table_offset = be64_of(0x7ffffffffffffe00); dyn_reseal(d); }
FIELD(table_wraps_64) { NOP; d->table_offset = be64_of(UINT64_MAX - 511); dyn_reseal(d); }

static const struct hostile {
	unsigned number;
	bool dynamic;
	void (*change)(struct vhd_probe *p, struct vhd_footer *f, struct vhd_dyn_header *d);
	const char *names, *value, *allowed;
} hostile[] = {
	{ 1, false, length_0, "file:", "0 bytes", "1024 or more" },
	{ 1, false, length_511, "file:", "511 bytes", "1024 or more" },
	{ 1, false, length_footer_alone, "file:", "512 bytes", "1024 or more" },
	{ 2, false, length_not_of_sectors, "file:", "67109383", "multiple of 512" },
	{ 2, false, length_beyond_63_bits, "file:", "9223372036854776320", "multiple of 512" },
	{ 2, false, truncated, "truncated", "66060800", "67109376" },
	{ 2, false, too_long, "file:", "67113472", "67109376" },
	{ 3, true, tail_missing, "cookie is missing", "16777216", "conectix" },
	{ 4, true, head_bad, "copy of the footer at 0", "checksum", "must be" },
	{ 4, true, head_no_cookie, "copy of the footer at 0", "cookie", "conectix" },
	{ 5, true, head_differs, "differs from its copy", "14680064", "same" },
	{ 6, false, cookie, "cookie", "last 512", "conectix" },
	{ 7, false, checksum, "footer: checksum", "0x", "must be 0x" },
	{ 7, true, checksum, "good copy of the footer is at 0", "checksum", "must be 0x" },
	{ 8, false, reserved_feature, "features", "0x0", "must be set" },
	{ 9, false, unknown_feature, "features", "0x42", "only bits 0" },
	{ 10, false, version, "version", "0x00020000", "0x00010000" },
	{ 11, false, type_0, "disk_type", "is 0", "must be 2" },
	{ 11, false, type_1, "disk_type", "is 1", "must be 2" },
	{ 11, false, type_5, "disk_type", "is 5", "must be 2" },
	{ 11, false, type_6, "disk_type", "is 6", "must be 2" },
	{ 11, false, type_7, "disk_type", "is 7", "must be 2" },
	{ 12, false, fixed_with_offset, "data_offset", "512", "0xffffffffffffffff" },
	{ 12, true, offset_none, "data_offset", "0xffffffffffffffff", "place of the dynamic header" },
	{ 13, true, offset_self, "data_offset", "is 0", "512 or more" },
	{ 14, true, offset_past_end, "is 16785408", "data_offset", "before the footer" },
	{ 14, true, offset_over_footer, "is 16784384", "data_offset", "before the footer" },
	{ 14, true, offset_2_63, "data_offset", "9223372036854775808", "before the footer" },
	{ 14, true, offset_wraps, "data_offset", "18446744073709551104", "before the footer" },
	{ 16, true, offset_unaligned, "data_offset", "513", "multiple of 512" },
	{ 17, false, size_0, "current_size", "is 0", "512 to" },
	{ 18, false, size_all_ones, "current_size", "18446744073709551615", "512 to" },
	{ 18, false, size_rounds_up_to_0, "current_size", "18446744073709551104", "512 to" },
	{ 19, false, size_over_2040g, "current_size", "2190433321472", "2040 GiB" },
	{ 20, false, size_not_of_sectors, "current_size", "67108863", "multiple of 512" },
	{ 21, false, chs_cylinders_0, "geometry", "0/8/17", "1-65535" },
	{ 21, false, chs_heads_0, "geometry", "963/0/17", "1-16 heads" },
	{ 21, false, chs_sectors_0, "geometry", "963/8/0", "1-255 sectors" },
	{ 21, false, chs_heads_255, "geometry", "1/255/1", "1-16 heads" },
	{ 22, false, chs_too_large, "geometry", "965/8/17", "at most the 131072" },
	{ 23, false, saved_state_2, "saved_state", "is 2", "0 or 1" },
	{ 23, false, hidden_255, "hidden", "is 255", "0 or 1" },
	{ 24, false, uuid_null, "uuid", "all zero", "must be" },
	{ 26, true, dyn_cookie, "cookie", "dynamic header", "cxsparse" },
	{ 27, true, dyn_checksum, "dynamic header: checksum", "0x", "must be 0x" },
	{ 28, true, dyn_version, "dynamic header: version", "0x00010001", "0x00010000" },
	{ 29, true, dyn_data_offset, "dynamic header: data_offset", "4096", "0xffffffffffffffff" },
	{ 30, true, block_0, "block_size", "is 0", "power of two" },
	{ 31, true, block_not_power, "block_size", "3145728", "power of two" },
	{ 31, true, block_256, "block_size", "256", "from 4096" },
	{ 32, true, block_2_31, "block_size", "2147483648", "to 268435456" },
	{ 33, true, entries_0, "max_table_entries", "is 0", "must be 1 to" },
	{ 34, true, entries_2_30, "max_table_entries", "1073741824", "must be 1 to" },
	{ 35, true, entries_too_few, "max_table_entries", "is 7", "at least 8" },
	{ 36, true, table_0, "table_offset", "is 0", "behind the copy" },
	{ 36, true, table_in_header, "table_offset", "1024", "must not overlap" },
	{ 36, true, table_unaligned, "table_offset", "1537", "multiple of 512" },
	{ 36, true, table_past_end, "table_offset", "is 16785408", "before the footer" },
	{ 36, true, table_wraps, "table_offset", "9223372036854775296", "before the footer" },
	{ 36, true, table_wraps_64, "table_offset", "18446744073709551104", "before the footer" },
};

static void has(const struct hostile *h, const char *text, const char *what)
{
	ck_assert_msg(strstr(text, what) != NULL, "case %u: \"%s\" does not say \"%s\"", h->number, text, what);
}

START_TEST(a_hostile_image_is_refused_naming_field_value_and_what_is_allowed)
{
	const struct hostile *h = &hostile[_i];
	struct vhd_probe p = h->dynamic ? dynamic_probe() : fixed_probe();
	struct vhd_info i;
	struct csv_err err = { 0 };
	int rc;

	ck_assert_int_eq(vhd_identify(&p, &i, &err), 0);
	memset(&i, 0xa5, sizeof(i));
	h->change(&p, footer(p.tail), (struct vhd_dyn_header *)p.dyn);
	rc = vhd_identify(&p, &i, &err);
	ck_assert_msg(rc == -CSV_E_CORRUPT || rc == -EMEDIUMTYPE, "case %u: %d", h->number, rc);
	has(h, err.text, h->names);
	has(h, err.text, h->value);
	has(h, err.text, h->allowed);
	for (size_t k = 0; k < sizeof(i); k++)
		ck_assert_msg(((uint8_t *)&i)[k] == 0xa5, "case %u: the answer was written although it failed", h->number);
}
END_TEST

START_TEST(case_15_a_header_inside_the_table_is_refused)
{
	struct vhd_probe p = dynamic_probe();
	struct csv_err err = { 0 };
	struct vhd_info i;

	/* the header moves behind the start of a table that is 8 x 4 bytes long */
	footer(p.tail)->data_offset = be64_of(DYN_AT + 1024);
	reseal(p.tail);
	memcpy(p.head, p.tail, 512);
	ck_assert_int_eq(vhd_identify(&p, &i, &err), -CSV_E_CORRUPT);
	ck_assert_msg(strstr(err.text, "overlap") && strstr(err.text, "data_offset"), "%s", err.text);
}
END_TEST

START_TEST(case_25_a_creation_time_in_the_future_is_found)
{
	struct vhd_probe p = fixed_probe();
	struct csv_err err = { 0 };
	struct vhd_info i;

	ck_assert_int_eq(vhd_identify(&p, &i, &err), 0);
	ck_assert_int_eq(vhd_check_time(&i, NOW_S, &err), 0);
	ck_assert_int_eq(vhd_check_time(&i, NOW_S - 3 * 86400, &err), -CSV_E_CORRUPT);
	ck_assert_msg(strstr(err.text, "timestamp") && strstr(err.text, "259200"), "%s", err.text);
}
END_TEST

/* Any bytes: an answer, and a size within bounds when it is yes. With the checksum made right in half of the cases. */
START_TEST(random_footers_are_answered)
{
	struct csv_prng r;
	unsigned yes = 0;

	csv_prng_init(&r, (uint64_t)_i);
	for (int n = 0; n < 20000; n++) {
		struct vhd_probe p = n % 3 ? dynamic_probe() : fixed_probe();
		struct csv_err err = { 0 };
		struct vhd_info i;
		unsigned flips = 1 + csv_prng_u64(&r) % 4;

		while (flips--) {
			uint8_t *at = csv_prng_u64(&r) % 2 ? p.tail : p.dyn;

			at[csv_prng_u64(&r) % 96] = (uint8_t)csv_prng_u64(&r);
		}
		if (n % 2) {
			reseal(p.tail);
			memcpy(p.head, p.tail, n % 3 ? 512 : 0);
			dyn_reseal((struct vhd_dyn_header *)p.dyn);
		}
		if (vhd_identify(&p, &i, &err)) {
			ck_assert_msg(err.code < 0 && err.text[0], "refused without a word");
			continue;
		}
		yes++;
		ck_assert_uint_ge(i.virtual_size, 512);
		ck_assert_uint_le(i.virtual_size, VHD_SIZE_MAX);
		if (i.type == VHD_FIXED)
			ck_assert_uint_le(i.virtual_size, p.file_size - 512);
	}
	ck_assert_uint_gt(yes, 100);
}
END_TEST

UNIT_MAIN("vhd", UNIT_TEST(a_footer_written_is_read_alike), UNIT_TEST(geometry_is_that_of_the_specification),
	  UNIT_TEST(a_geometry_never_stands_for_more_than_the_disk_and_for_little_less), UNIT_TEST(the_size_is_taken_as_the_creator_takes_it),
	  UNIT_TEST(sizes_that_no_vhd_can_have_are_refused_when_made), UNIT_TEST(what_a_guest_writes_into_its_first_sector_changes_nothing),
	  UNIT_TEST(dynamic_ones_are_recognised_and_not_opened), UNIT_TEST(a_disk_on_which_a_machine_sleeps_is_read_only),
	  UNIT_LOOP(a_hostile_image_is_refused_naming_field_value_and_what_is_allowed, 0, (int)ARRAY_SIZE(hostile)),
	  UNIT_TEST(case_15_a_header_inside_the_table_is_refused), UNIT_TEST(case_25_a_creation_time_in_the_future_is_found),
	  UNIT_LOOP(random_footers_are_answered, 0, 4))
