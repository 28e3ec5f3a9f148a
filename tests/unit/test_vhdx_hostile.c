/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Hostile VHDX (and the BAT of VHD): every case is refused with the field, its value and what is allowed; nothing is written.
 */
#include <errno.h>

#include "tests/unit/vimg_case.h"

/* 5 GiB in blocks of 1 MiB: one entry of a bitmap lies among the 5121 of the BAT.  Blocks 0 to 3 are at 4, 5, 6, 7 MiB. */
static int good_vhdx(void)
{
	int fd = case_make(VIMG_VHDX, VIMG_DYNAMIC, 5 * GIB, MIB);
	struct csv_err err = CSV_ERR_INIT;
	struct vdisk d;

	ck_assert_msg(!vdisk_open(fd, true, &d, &err), "%s", err.text);
	for (uint64_t b = 0; b < 4; b++)
		ck_assert_int_eq(vdisk_write(&d, b * MIB, "data", 4, &err), 0);
	ck_assert_uint_eq(d.file_size, 8 * MIB);
	vdisk_close(&d);
	/* both headers alike, so that a case can change both */
	uint8_t h[VHDX_HEADER_BYTES];
	peek(fd, H(d.v.vhdx_current), h, sizeof(h));
	poke(fd, H(!d.v.vhdx_current), h, sizeof(h));
	return fd;
}

/* A log of one entry: BAT sector as it is, and 8 KiB of zeroes in block 3. */
static void one_entry(int fd)
{
	uint8_t bat[VHDX_LOG_SECTOR];

	peek(fd, BAT_AT, bat, sizeof(bat));
	log_on(fd);
	log_entry(fd, MIB, 0, 0, 77, (struct log_write[]){ { .off = BAT_AT, .data = bat }, { .off = 7 * MIB, .zero = 8192 } }, 2, 8 * MIB, 8 * MIB);
}

#define CASE(name) static void name(int fd)
#define E_FIELD(f) (LOG_AT + offsetof(struct vhdx_log_entry, f))
#define D_FIELD(n, f) (LOG_AT + 64 + 32 * (n) + offsetof(struct vhdx_log_desc, f))
#define ENTRY32(field, x) do { one_entry(fd); poke32(fd, field, x); log_seal(fd, MIB, 0); } while (0)
#define ENTRY64(field, x) do { one_entry(fd); poke64(fd, field, x); log_seal(fd, MIB, 0); } while (0)

/* file */
CASE(empty) { ck_assert(!ftruncate(fd, 0)); }
CASE(signature) { poke(fd, 0, "vhdxfilf", 8); }
CASE(cut_in_headers) { ck_assert(!ftruncate(fd, 100000)); }
CASE(cut_before_log) { ck_assert(!ftruncate(fd, MIB)); }
CASE(cut_before_bat) { ck_assert(!ftruncate(fd, 3 * MIB)); }
CASE(cut_in_block) { ck_assert(!ftruncate(fd, 8 * MIB - 512)); }
CASE(too_long) { ck_assert(!ftruncate(fd, (1ll << 47) + 4096)); }
CASE(both_formats)
{
	struct vhd_info i;
	uint8_t f[512], uuid[16] = { 1 };

	ck_assert(!vhd_fixed_new(8 * MIB - 512, uuid, 1700000000, &i, NULL));
	vhd_footer_encode(&i, f);
	poke(fd, 8 * MIB - 512, f, 512);
}
/* headers */
CASE(both_headers) { poke(fd, H(0) + 80, "x", 1); poke(fd, H(1) + 80, "x", 1); }
CASE(header_signatures) { poke(fd, H(0), "x", 1); poke(fd, H(1), "x", 1); }
CASE(equal_sequence) { poke64(fd, H(0) + H_FIELD(data_write_guid), 1); reseal_at(fd, H(0), VHDX_HEADER_BYTES); }
CASE(version_2) { header32(fd, H_FIELD(log_version), 2 << 16); }
CASE(log_version_1) { header32(fd, H_FIELD(log_version), 1 << 16 | 1); }
CASE(log_offset_0) { header64(fd, H_FIELD(log_offset), 0); }
CASE(log_offset_unaligned) { header64(fd, H_FIELD(log_offset), MIB + 4096); }
CASE(log_offset_wraps) { header64(fd, H_FIELD(log_offset), UINT64_MAX - MIB + 1); }
CASE(log_length_unaligned) { header32(fd, H_FIELD(log_length), MIB + 4096); }
CASE(log_length_0_with_guid) { log_on(fd); header32(fd, H_FIELD(log_length), 0); }
CASE(log_3g) { header32(fd, H_FIELD(log_length), 3u << 30); }
CASE(log_64m_dirty)
{
	ck_assert(!ftruncate(fd, 200 * MIB));
	header64(fd, H_FIELD(log_offset), 100 * MIB);
	header32(fd, H_FIELD(log_length), 64 * MIB);
	log_on(fd);
}
CASE(log_over_metadata) { header64(fd, H_FIELD(log_offset), META_AT); }
CASE(sequence_max) { header64(fd, H_FIELD(sequence_number), UINT64_MAX); }
/* regions */
CASE(both_regions) { poke(fd, VHDX_REGION_OFF(0) + 80, "x", 1); poke(fd, VHDX_REGION_OFF(1) + 80, "x", 1); }
CASE(region_signatures) { poke(fd, VHDX_REGION_OFF(0), "x", 1); poke(fd, VHDX_REGION_OFF(1), "x", 1); }
CASE(region_count_0) { region32(fd, 8, 0); }
CASE(region_count_1) { region32(fd, 8, 1); }
CASE(region_count_2048) { region32(fd, 8, 2048); }
CASE(region_reserved) { region32(fd, 12, 1); }
CASE(region_twice) { region_bytes(fd, REGION(1, guid), vhdx_guid_bat, 16); }
CASE(region_flags) { region32(fd, REGION(0, flags), 3); }
CASE(region_unknown) { region32(fd, 8, 3); region64(fd, REGION(2, guid), 0x1122334455667788); region32(fd, REGION(2, flags), 1); }
CASE(bat_over_header) { region64(fd, REGION(0, file_offset), 0); }
CASE(bat_unaligned) { region64(fd, REGION(0, file_offset), BAT_AT + 512); }
CASE(bat_past_end) { region64(fd, REGION(0, file_offset), 8 * MIB); }
CASE(bat_wraps) { region64(fd, REGION(0, file_offset), UINT64_MAX - MIB + 1); }
CASE(bat_length_0) { region32(fd, REGION(0, length), 0); }
CASE(bat_length_4g) { region32(fd, REGION(0, length), UINT32_MAX - MIB + 1); }
CASE(bat_is_metadata) { region64(fd, REGION(0, file_offset), META_AT); }
CASE(bat_over_log) { region64(fd, REGION(0, file_offset), LOG_AT); }
CASE(metadata_past_end) { region64(fd, REGION(1, file_offset), 1ull << 40); }
CASE(bat_too_small) { poke64(fd, ITEM(8), 200 * GIB); }
/* metadata */
CASE(meta_signature) { poke(fd, META_AT, "x", 1); }
CASE(meta_2048) { poke32(fd, META_AT + 8, 2048 << 16); }
CASE(meta_missing) { poke32(fd, META_AT + 8, 4 << 16); }
CASE(item_past_region) { poke32(fd, META(0, offset), MIB - 4); }
CASE(item_wraps) { poke32(fd, META(0, offset), UINT32_MAX - 3); }
CASE(item_below_64k) { poke32(fd, META(0, offset), 4096); }
CASE(item_overlaps) { poke32(fd, META(1, offset), 65536 + 4); }
CASE(item_length) { poke32(fd, META(1, length), 4); }
CASE(item_length_0) { poke32(fd, META(1, length), 0); poke32(fd, META(1, offset), 0); }
CASE(item_twice) { poke(fd, META(4, item_id), vhdx_guid_item[3], 16); poke32(fd, META(4, length), 4); }
CASE(item_flags) { poke32(fd, META(2, flags), 0xe); }
CASE(item_reserved) { poke32(fd, META(2, reserved2), 9); }
CASE(item_unknown) { poke32(fd, META_AT + 8, 6 << 16); poke64(fd, META(5, item_id), 5); poke32(fd, META(5, flags), 4); }
CASE(item_user_required) { poke32(fd, META_AT + 8, 6 << 16); poke64(fd, META(5, item_id), 5); poke32(fd, META(5, flags), 5); }
CASE(item_id_0) { poke32(fd, META_AT + 8, 6 << 16); }
CASE(items_of_users)
{
	poke32(fd, META_AT + 8, 1030 << 16);
	for (unsigned k = 5; k < 1030; k++) {
		poke64(fd, META(k, item_id), k);
		poke32(fd, META(k, flags), 1);
	}
}
CASE(block_0) { poke32(fd, ITEM(0), 0); }
CASE(block_512k) { poke32(fd, ITEM(0), 512 << 10); }
CASE(block_3m) { poke32(fd, ITEM(0), 3 << 20); }
CASE(block_512m) { poke32(fd, ITEM(0), 512 << 20); }
CASE(params_reserved) { poke32(fd, ITEM(4), 4); }
CASE(parent_without_locator) { poke32(fd, ITEM(4), 2); }
CASE(locator_without_parent)
{
	poke32(fd, META_AT + 8, 6 << 16);
	poke(fd, META(5, item_id), vhdx_guid_item[VHDX_PARENT_LOCATOR], 16);
	poke32(fd, META(5, offset), 70000);
	poke32(fd, META(5, length), 20);
	poke32(fd, META(5, flags), 4);
}
CASE(differencing) { locator_without_parent(fd); poke32(fd, ITEM(4), 2); }
CASE(size_0) { poke64(fd, ITEM(8), 0); }
CASE(size_unaligned) { poke64(fd, ITEM(8), 5 * GIB + 1); }
CASE(size_65t) { poke64(fd, ITEM(8), 65ull << 40); }
CASE(size_2_52) { poke64(fd, ITEM(8), ((1ull << 32) + 25) << 20); }
CASE(size_2_64) { poke64(fd, ITEM(8), UINT64_MAX - 511); }
CASE(sector_0) { poke32(fd, ITEM(16), 0); }
CASE(sector_520) { poke32(fd, ITEM(16), 520); }
CASE(sector_4096_of_odd) { poke32(fd, ITEM(16), 4096); poke64(fd, ITEM(8), 5 * GIB - 512); }
CASE(physical_0) { poke32(fd, ITEM(20), 0); }
/* BAT */
CASE(state_4) { poke64(fd, BAT_AT + 8, 5 * MIB | 4); }
CASE(state_5) { poke64(fd, BAT_AT + 8, 5 * MIB | 5); }
CASE(state_7) { poke64(fd, BAT_AT + 8, 5 * MIB | 7); }
CASE(reserved_bits) { poke64(fd, BAT_AT + 8, 5 * MIB | 1 << 19 | 6); }
CASE(block_past_end) { poke64(fd, BAT_AT + 8, 8 * MIB | 6); }
CASE(block_2_63) { poke64(fd, BAT_AT + 8, 1ull << 63 | 6); }
CASE(block_wraps) { poke64(fd, BAT_AT + 8, (UINT64_MAX - MIB + 1) | 6); }
CASE(block_in_header) { poke64(fd, BAT_AT + 8, 6); }
CASE(block_in_log) { poke64(fd, BAT_AT + 8, LOG_AT | 6); }
CASE(block_in_metadata) { poke64(fd, BAT_AT + 8, META_AT | 6); }
CASE(block_in_bat) { poke64(fd, BAT_AT + 8, BAT_AT | 6); }
CASE(block_twice) { poke64(fd, BAT_AT + 8 * 5000, 5 * MIB | 6); }
CASE(bitmap_without_parent) { poke64(fd, BAT_AT + 8 * 4096, 8 * MIB | 6); }
/* log */
CASE(log_empty) { log_on(fd); }
CASE(entry_length_0) { ENTRY32(E_FIELD(entry_length), 0); }
CASE(entry_length_odd) { ENTRY32(E_FIELD(entry_length), 8193); }
CASE(entry_length_2m) { ENTRY32(E_FIELD(entry_length), 2 * MIB); }
CASE(entry_length_short) { ENTRY32(E_FIELD(entry_length), 4096); }
CASE(entry_checksum) { one_entry(fd); poke(fd, LOG_AT + 5000, "x", 1); }
CASE(entry_sequence_0) { ENTRY64(E_FIELD(sequence_number), 0); }
CASE(entry_descs) { ENTRY32(E_FIELD(descriptor_count), 1000); }
CASE(entry_descs_wrap) { ENTRY32(E_FIELD(descriptor_count), 0x08000002); }
CASE(entry_tail_out) { ENTRY32(E_FIELD(tail), MIB); }
CASE(entry_tail_odd) { ENTRY32(E_FIELD(tail), 512); }
CASE(entry_tail_elsewhere) { ENTRY32(E_FIELD(tail), 65536); }
CASE(desc_signature) { ENTRY32(D_FIELD(0, signature), 0x12345678); }
CASE(desc_sequence) { ENTRY64(D_FIELD(1, sequence_number), 78); }
CASE(data_signature) { ENTRY32(LOG_AT + 4096, 0); }
CASE(data_torn_high) { ENTRY32(LOG_AT + 4096 + 4, 1); }
CASE(data_torn_low) { ENTRY32(LOG_AT + 8188, 76); }
CASE(zero_odd) { ENTRY64(D_FIELD(1, zero_length), 4097); }
CASE(zero_0) { ENTRY64(D_FIELD(1, zero_length), 0); }
CASE(zero_wraps) { ENTRY64(D_FIELD(1, zero_length), UINT64_MAX - 4095); }
CASE(zero_past_end) { ENTRY64(D_FIELD(1, zero_length), 2 * MIB); }
CASE(desc_odd) { ENTRY64(D_FIELD(0, file_offset), BAT_AT + 512); }
CASE(desc_2_63) { ENTRY64(D_FIELD(0, file_offset), 1ull << 63); }
CASE(desc_in_headers) { ENTRY64(D_FIELD(0, file_offset), H(1)); }
CASE(desc_at_0) { ENTRY64(D_FIELD(1, file_offset), 0); }
CASE(desc_in_log) { ENTRY64(D_FIELD(0, file_offset), LOG_AT + 8192); }
CASE(zero_over_log) { one_entry(fd); poke64(fd, D_FIELD(1, file_offset), LOG_AT - 4096); log_seal(fd, MIB, 0); }
CASE(flushed_beyond) { ENTRY64(E_FIELD(flushed_file_offset), 9 * MIB); }
CASE(last_2_63) { ENTRY64(E_FIELD(last_file_offset), 1ull << 63); }
CASE(last_100g) { ENTRY64(E_FIELD(last_file_offset), 100 * GIB); }
/* 69: what the log writes is judged, not only what is there before */
CASE(replay_breaks_bat)
{
	uint8_t bat[VHDX_LOG_SECTOR];
	struct le64 bad = le64_of(5 * MIB | 6);

	peek(fd, BAT_AT, bat, sizeof(bat));
	memcpy(bat + 8 * 9, &bad, 8);
	log_on(fd);
	log_entry(fd, MIB, 0, 0, 1, &(struct log_write){ .off = BAT_AT, .data = bat }, 1, 8 * MIB, 8 * MIB);
}
CASE(replay_breaks_metadata)
{
	log_on(fd);
	log_entry(fd, MIB, 0, 0, 1, &(struct log_write){ .off = META_AT, .zero = 4096 }, 1, 8 * MIB, 8 * MIB);
}
CASE(replay_breaks_regions)
{
	log_on(fd);
	log_entry(fd, MIB, 0, 0, 1, &(struct log_write){ .off = VHDX_REGION_OFF(0), .zero = 131072 }, 1, 8 * MIB, 8 * MIB);
}

static const struct hostile {
	const char *name;
	void (*change)(int fd);
	const char *names, *value, *allowed;
	int code;		/* 0: -CSV_E_CORRUPT */
} hostile[] = {
#define C(f, ...) { #f, f, __VA_ARGS__ }
	C(empty, "file:", "0 bytes", "conectix", -EMEDIUMTYPE),
	C(signature, "signature", "8388608 bytes", "vhdxfile", -EMEDIUMTYPE),
	C(cut_in_headers, "file:", "100000", "1048576 or more", 0),
	C(cut_before_log, "log_offset", "is 1048576", "inside the file of 1048576", 0),
	C(cut_before_bat, "BAT: file_offset", "3145728", "inside the file of 3145728", 0),
	C(cut_in_block, "entry of block 3: offset", "7340032", "before the file's end at 8388096", 0),
	C(too_long, "file:", "140737488359424", "128 TiB", 0),
	C(both_formats, "file:", "footer of a VHD", "must be one of them", 0),
	C(both_headers, "header 0: checksum", "header 1: checksum", "must be 0x", 0),
	C(header_signatures, "header 0: signature", "header 1: signature", "\"head\"", 0),
	C(equal_sequence, "sequence_number", "is 3", "must differ", 0),
	C(version_2, "version", "is 2", "must be 1", 0),
	C(log_version_1, "log_version", "is 1", "must be 0", 0),
	C(log_offset_0, "log_offset", "is 0", "multiple of 1 MiB", 0),
	C(log_offset_unaligned, "log_offset", "1052672", "multiple of 1 MiB", 0),
	C(log_offset_wraps, "log_offset", "18446744073708503040", "inside the file", 0),
	C(log_length_unaligned, "log_length", "1052672", "multiple of 1 MiB", 0),
	C(log_length_0_with_guid, "log_length", "is 0", "log_guid is not zero", 0),
	C(log_3g, "log_length", "3221225472", "inside the file", 0),
	C(log_64m_dirty, "log_length", "67108864", "at most 33554432", -CSV_E_UNSUPPORTED),
	C(log_over_metadata, "metadata: file_offset", "2097152", "not overlap the log", 0),
	C(sequence_max, "sequence_number", "18446744073709551615", "must be less", -EROFS),
	C(both_regions, "region table 0: checksum", "region table 1: checksum", "must be 0x", 0),
	C(region_signatures, "region table 0: signature", "region table 1: signature", "\"regi\"", 0),
	C(region_count_0, "entry_count", "is 0", "1 to 2047", 0),
	C(region_count_1, "region", "\"metadata\"", "missing", 0),
	C(region_count_2048, "entry_count", "2048", "1 to 2047", 0),
	C(region_reserved, "reserved", "0x1", "must be 0", 0),
	C(region_twice, "BAT", "twice", "must be once", 0),
	C(region_flags, "BAT: flags", "0x3", "0 or 1", 0),
	C(region_unknown, "55667788-3344-1122", "flags", "must be understood", -CSV_E_UNSUPPORTED),
	C(bat_over_header, "BAT: file_offset", "is 0", "1 MiB or more", 0),
	C(bat_unaligned, "BAT: file_offset", "3146240", "multiple of 1 MiB", 0),
	C(bat_past_end, "BAT: file_offset", "8388608", "inside the file", 0),
	C(bat_wraps, "BAT: file_offset", "18446744073708503040", "inside the file", 0),
	C(bat_length_0, "BAT: length", "is 0", "not 0", 0),
	C(bat_length_4g, "length", "4293918720", "inside the file", 0),
	C(bat_is_metadata, "BAT: file_offset", "2097152", "not overlap the metadata", 0),
	C(bat_over_log, "BAT: file_offset", "1048576", "not overlap the log", 0),
	C(metadata_past_end, "metadata: file_offset", "1099511627776", "inside the file", 0),
	C(bat_too_small, "BAT: length", "1048576", "at least 1638792", 0),
	C(meta_signature, "metadata: signature", "not", "\"metadata\"", 0),
	C(meta_2048, "entry_count", "2048", "at most 2047", 0),
	C(meta_missing, "page 83 data", "metadata", "missing", 0),
	C(item_past_region, "file parameters: offset", "1048572", "region's end at 1048576", 0),
	C(item_wraps, "file parameters: offset", "4294967292", "region's end at 1048576", 0),
	C(item_below_64k, "file parameters: offset", "4096", "between 65536", 0),
	C(item_overlaps, "virtual disk size: offset", "65540", "not overlap the item at 65536", 0),
	C(item_length, "virtual disk size: length", "is 4", "must be 8", 0),
	C(item_length_0, "virtual disk size: length", "is 0", "must be 8", 0),
	C(item_twice, "physical sector size", "twice", "must be once", 0),
	C(item_flags, "logical sector size: flags", "0xe", "bits 0 to 2", 0),
	C(item_reserved, "logical sector size: reserved", "0x9", "must be 0", 0),
	C(item_unknown, "00000005-0000", "flags", "must be understood", -CSV_E_UNSUPPORTED),
	C(item_user_required, "00000005-0000", "of a user's", "must be understood", -CSV_E_UNSUPPORTED),
	C(item_id_0, "item_id", "all zero", "must be", 0),
	C(items_of_users, "entry_count", "1030", "more than 1024", 0),
	C(block_0, "block_size", "is 0", "1 MiB to 256 MiB", 0),
	C(block_512k, "block_size", "524288", "1 MiB to 256 MiB", 0),
	C(block_3m, "block_size", "3145728", "power of two", 0),
	C(block_512m, "block_size", "536870912", "1 MiB to 256 MiB", 0),
	C(params_reserved, "file parameters: flags", "0x4", "bits 0 and 1", 0),
	C(parent_without_locator, "has_parent", "is set", "\"parent locator\" is missing", 0),
	C(locator_without_parent, "has_parent", "is not set", "must be", 0),
	C(differencing, "differencing", "disks", "not supported yet", -CSV_E_UNSUPPORTED),
	C(size_0, "virtual disk size", "is 0", "64 TiB", 0),
	C(size_unaligned, "virtual disk size", "5368709121", "multiple of the logical sector size 512", 0),
	C(size_65t, "virtual disk size", "71468255805440", "64 TiB", 0),
	C(size_2_52, "virtual disk size", "4503599653584896", "64 TiB", 0),
	C(size_2_64, "virtual disk size", "18446744073709551104", "64 TiB", 0),
	C(sector_0, "logical sector size", "is 0", "512 or 4096", 0),
	C(sector_520, "logical sector size", "520", "512 or 4096", 0),
	C(sector_4096_of_odd, "virtual disk size", "5368708608", "multiple of the logical sector size 4096", 0),
	C(physical_0, "physical sector size", "is 0", "512 or 4096", 0),
	C(state_4, "entry of block 1: state", "is 4", "0 to 3, 6 or 7", 0),
	C(state_5, "entry of block 1: state", "is 5", "0 to 3, 6 or 7", 0),
	C(state_7, "entry of block 1: state", "is 7", "no parent", 0),
	C(reserved_bits, "entry of block 1", "0x580006", "bits 3 to 19 must be 0", 0),
	C(block_past_end, "entry of block 1: offset", "8388608", "before the file's end", 0),
	C(block_2_63, "entry of block 1: offset", "9223372036854775808", "before the file's end", 0),
	C(block_wraps, "entry of block 1: offset", "18446744073708503040", "before the file's end", 0),
	C(block_in_header, "entry of block 1: offset", "is 0", "not overlap the headers", 0),
	C(block_in_log, "entry of block 1: offset", "1048576", "not overlap the log", 0),
	C(block_in_metadata, "entry of block 1: offset", "2097152", "not overlap the metadata region", 0),
	C(block_in_bat, "entry of block 1: offset", "3145728", "not overlap the BAT", 0),
	C(block_twice, "entry of block 4999: offset", "5242880", "not overlap another block", 0),
	C(bitmap_without_parent, "entry of bitmap 0: state", "is 6", "must be 0", 0),
	C(log_empty, "log_guid", "is set", "no whole sequence", 0),
	C(entry_length_0, "entry_length", "is 0", "multiple of 4096", 0),
	C(entry_length_odd, "entry_length", "8193", "multiple of 4096", 0),
	C(entry_length_2m, "entry_length", "2097152", "up to the log's 1048576", 0),
	C(entry_length_short, "entry_length", "4096", "a sector for each", 0),
	C(entry_checksum, "entry at 0: checksum", "is 0x", "must be 0x", 0),
	C(entry_sequence_0, "sequence_number", "is 0", "must not be", 0),
	C(entry_descs, "descriptor_count", "1000", "fit in its entry_length of 8192", 0),
	C(entry_descs_wrap, "descriptor_count", "134217730", "fit in its entry_length of 8192", 0),
	C(entry_tail_out, "tail", "1048576", "below the log's 1048576", 0),
	C(entry_tail_odd, "tail", "512", "multiple of 4096", 0),
	C(entry_tail_elsewhere, "tail", "65536", "one of the sequence's entries", 0),
	C(desc_signature, "descriptor 0: signature", "neither", "\"desc\" nor \"zero\"", 0),
	C(desc_sequence, "descriptor 1: sequence_number", "78", "must be 77", 0),
	C(data_signature, "sector 1: signature", "not", "\"data\"", 0),
	C(data_torn_high, "sequence_high", "4294967373", "must be 77", 0),
	C(data_torn_low, "sequence_low", "76", "must be 77", 0),
	C(zero_odd, "zero_length", "4097", "multiple of 4096", 0),
	C(zero_0, "zero_length", "is 0", "not 0", 0),
	C(zero_wraps, "descriptor 1: file_offset", "18446744073709547520", "inside the file", 0),
	C(zero_past_end, "descriptor 1: file_offset", "2097152 bytes", "inside the file", 0),
	C(desc_odd, "descriptor 0: file_offset", "3146240", "multiple of 4096", 0),
	C(desc_2_63, "descriptor 0: file_offset", "9223372036854775808", "inside the file", 0),
	C(desc_in_headers, "descriptor 0: file_offset", "131072", "behind the headers", 0),
	C(desc_at_0, "descriptor 1: file_offset", "is 0", "behind the headers", 0),
	C(desc_in_log, "descriptor 0: file_offset", "1056768", "not overlap the log", 0),
	C(zero_over_log, "descriptor 1: file_offset", "1044480", "not overlap the log", 0),
	C(flushed_beyond, "flushed_file_offset", "9437184", "at most the file's 8388608", 0),
	C(last_2_63, "last_file_offset", "9223372036854775808", "at most", 0),
	C(last_100g, "last_file_offset", "107374182400", "4 GiB", 0),
	C(replay_breaks_bat, "entry of block 9: offset", "5242880", "not overlap another block", 0),
	C(replay_breaks_metadata, "metadata: signature", "not", "\"metadata\"", 0),
	C(replay_breaks_regions, "region table 0: signature", "region table 1", "\"regi\"", 0),
};

static void has(const struct hostile *h, const char *text, const char *what)
{
	ck_assert_msg(strstr(text, what) != NULL, "%s: \"%s\" does not say \"%s\"", h->name, text, what);
}

/* Takes fd: a good image, of which the change is refused. */
static void is_refused(const struct hostile *h, int fd)
{
	int rc, want = h->code ? h->code : -CSV_E_CORRUPT;
	struct csv_err err = CSV_ERR_INIT;
	uint32_t before;
	struct vdisk d;

	/* it is the change that is refused */
	ck_assert_msg(!vdisk_open(fd, false, &d, &err), "%s", err.text);
	vdisk_close(&d);
	h->change(fd);
	before = vdisk_fd_size(fd) < GIB ? case_sum(fd) : 0;
	rc = vdisk_open(fd, true, &d, &err);
	ck_assert_msg(rc == want, "%s: %d (%s), want %d", h->name, rc, err.text, want);
	has(h, err.text, h->names);
	has(h, err.text, h->value);
	has(h, err.text, h->allowed);
	ck_assert_msg(!before || case_sum(fd) == before, "%s: the file was changed", h->name);
	close(fd);
}

START_TEST(a_hostile_vhdx_is_refused_naming_field_value_and_what_is_allowed)
{
	is_refused(&hostile[_i], good_vhdx());
}
END_TEST

/* ---- what must not be refused ------------------------------------------------------------------------------------------------------- */

START_TEST(one_bad_header_or_region_table_is_made_up_for_by_the_other)
{
	static const uint64_t at[] = { VHDX_HEADER_OFF(0) + 80, VHDX_HEADER_OFF(1) + 80, VHDX_REGION_OFF(0) + 80, VHDX_REGION_OFF(1) + 80 };
	struct csv_err err = CSV_ERR_INIT;
	int fd = good_vhdx();
	char text[8] = "";
	struct vdisk d;

	poke(fd, at[_i], "x", 1);
	ck_assert_msg(!vdisk_open(fd, true, &d, &err), "%s", err.text);
	ck_assert_int_eq(d.v.vhdx_region_bad, _i >= 2);
	ck_assert_int_eq(vdisk_read(&d, 3 * MIB, text, 4, &err), 0);
	ck_assert_str_eq(text, "data");
	vdisk_close(&d);
	close(fd);
}
END_TEST

START_TEST(the_header_with_the_higher_sequence_number_rules)
{
	int fd = good_vhdx();
	struct csv_err err = CSV_ERR_INIT;
	struct vdisk d;

	poke64(fd, H(_i) + H_FIELD(sequence_number), 1000);
	poke64(fd, H(!_i) + H_FIELD(log_offset), 12345);	/* of no account */
	reseal_at(fd, H(_i), VHDX_HEADER_BYTES);
	reseal_at(fd, H(!_i), VHDX_HEADER_BYTES);
	ck_assert_msg(!vdisk_open(fd, true, &d, &err), "%s", err.text);
	ck_assert_uint_eq(d.v.vhdx_header.sequence, 1001);
	ck_assert_uint_eq(peek64(fd, H(!_i) + H_FIELD(sequence_number)), 1001);	/* written over the other one */
	ck_assert_uint_eq(peek64(fd, H(_i) + H_FIELD(sequence_number)), 1000);
	vdisk_close(&d);
	close(fd);
}
END_TEST

START_TEST(regions_that_need_not_be_understood_are_kept_clear_of)
{
	int fd = good_vhdx();
	struct csv_err err = CSV_ERR_INIT;
	struct vdisk d;

	region32(fd, 8, 3);
	region64(fd, REGION(2, guid), 0x4711);
	region64(fd, REGION(2, file_offset), 8 * MIB);
	region32(fd, REGION(2, length), MIB);
	ck_assert(!ftruncate(fd, 10 * MIB));
	ck_assert_msg(!vdisk_open(fd, true, &d, &err), "%s", err.text);
	ck_assert_int_eq(vdisk_write(&d, 100 * MIB, "x", 1, &err), 0);
	ck_assert_int_eq(vdisk_write(&d, 200 * MIB, "x", 1, &err), 0);
	ck_assert_uint_eq(peek64(fd, BAT_AT + 8 * 100), 9 * MIB | 6);
	ck_assert_uint_eq(peek64(fd, BAT_AT + 8 * 200), 10 * MIB | 6);
	vdisk_close(&d);
	close(fd);
}
END_TEST

START_TEST(what_a_guest_writes_does_not_change_the_format_of_its_disk)
{
	struct csv_err err = CSV_ERR_INIT;
	int vhdx = good_vhdx(), vhd = case_make(VIMG_VHD, VIMG_FIXED, 9 * MIB, 0);
	uint8_t footer[512], head[320 << 10];
	struct vdisk d;

	/* a footer that does not fit the file, in the last sector of a VHDX */
	peek(vhd, 9 * MIB, footer, 512);
	poke(vhdx, 8 * MIB - 512, footer, 512);
	ck_assert_msg(!vdisk_open(vhdx, false, &d, &err), "%s", err.text);
	ck_assert_int_eq(d.v.format, VIMG_VHDX);
	vdisk_close(&d);
	/* a whole VHDX's headers in a fixed VHD */
	peek(vhdx, 0, head, sizeof(head));
	poke(vhd, 0, head, sizeof(head));
	ck_assert_msg(!vdisk_open(vhd, false, &d, &err), "%s", err.text);
	ck_assert_int_eq(d.v.format, VIMG_VHD);
	ck_assert_uint_eq(d.v.virtual_size, 9 * MIB);
	vdisk_close(&d);
	close(vhdx);
	close(vhd);
}
END_TEST

/* ---- the BAT of a VHD ------------------------------------------------------------------------------------------------------------------ */

/* 16 MiB in blocks of 2 MiB; header at 512, table at 1536 (one sector); block 0 at 3584 (data at 4096). */
static int good_vhd(void)
{
	int fd = case_make(VIMG_VHD, VIMG_DYNAMIC, 16 * MIB, 2 * MIB);
	struct csv_err err = CSV_ERR_INIT;
	struct vdisk d;

	ck_assert_msg(!vdisk_open(fd, true, &d, &err), "%s", err.text);
	for (uint64_t b = 0; b < 3; b++)
		ck_assert_int_eq(vdisk_write(&d, 2 * b * MIB, "data", 4, &err), 0);
	vdisk_close(&d);
	return fd;
}

static void poke_be32(int fd, uint64_t off, uint32_t x)
{
	struct be32 v = be32_of(x);

	poke(fd, off, &v, 4);
}

CASE(vhd_entry_0) { poke_be32(fd, 1536 + 4 * 5, 0); }
CASE(vhd_entry_1) { poke_be32(fd, 1536 + 4 * 5, 1); }
CASE(vhd_entry_2) { poke_be32(fd, 1536 + 4 * 5, 3); }
CASE(vhd_entry_past_end) { poke_be32(fd, 1536 + 4 * 5, (uint32_t)(vdisk_fd_size(fd) / 512)); }
CASE(vhd_entry_fffffffe) { poke_be32(fd, 1536 + 4 * 5, 0xfffffffe); }
CASE(vhd_entry_twice) { poke_be32(fd, 1536 + 4 * 5, 7); }
CASE(vhd_entry_overlaps) { poke_be32(fd, 1536 + 4 * 5, 8); }
CASE(vhd_saved) { struct vhd_footer f; uint64_t at = vdisk_fd_size(fd) - 512; peek(fd, at, &f, 512); f.saved_state = 1;
	f.checksum = be32_of(vhd_checksum(&f, 512, 64)); poke(fd, at, &f, 512); poke(fd, 0, &f, 512); }
CASE(vhd_tiny_blocks) { struct vhd_dyn_header d; struct vhd_footer f; uint64_t size = 2040 * GIB; uint64_t end = 2 * GIB + 1048576;
	ck_assert(!ftruncate(fd, (off_t)end)); peek(fd, 512, &d, 1024); peek(fd, 0, &f, 512);
	f.current_size = be64_of(size); f.cylinders = be16_of(65535); f.heads = 16; f.sectors = 255; f.checksum = be32_of(vhd_checksum(&f, 512, 64));
	d.block_size = be32_of(4096); d.max_table_entries = be32_of((uint32_t)(size / 4096)); d.checksum = be32_of(vhd_checksum(&d, 1024, 36));
	poke(fd, 0, &f, 512); poke(fd, end - 512, &f, 512); poke(fd, 512, &d, 1024); }

static const struct hostile hostile_vhd[] = {
	C(vhd_entry_0, "entry of block 5: offset", "is 0", "not overlap the copy of the footer", 0),
	C(vhd_entry_1, "entry of block 5: offset", "is 512", "not overlap the dynamic header", 0),
	C(vhd_entry_2, "entry of block 5: offset", "is 1536", "not overlap the block table", 0),
	C(vhd_entry_past_end, "entry of block 5: offset", "6304256", "before the footer at", 0),
	C(vhd_entry_fffffffe, "entry of block 5: offset", "2199023254528", "before the footer at", 0),
	C(vhd_entry_twice, "two entries: offset", "3584", "must not overlap", 0),
	C(vhd_entry_overlaps, "two entries: offset", "4096", "must not overlap", 0),
	C(vhd_saved, "saved_state", "is 1", "drop its saved state", -EROFS),
	C(vhd_tiny_blocks, "block_size", "4096", "not supported", -CSV_E_UNSUPPORTED),
};

START_TEST(a_hostile_vhd_is_refused_naming_field_value_and_what_is_allowed)
{
	is_refused(&hostile_vhd[_i], good_vhd());
}
END_TEST

UNIT_MAIN("vhdx_hostile", UNIT_LOOP(a_hostile_vhdx_is_refused_naming_field_value_and_what_is_allowed, 0, (int)ARRAY_SIZE(hostile)),
	  UNIT_LOOP(one_bad_header_or_region_table_is_made_up_for_by_the_other, 0, 4),
	  UNIT_LOOP(the_header_with_the_higher_sequence_number_rules, 0, 2), UNIT_TEST(regions_that_need_not_be_understood_are_kept_clear_of),
	  UNIT_TEST(what_a_guest_writes_does_not_change_the_format_of_its_disk),
	  UNIT_LOOP(a_hostile_vhd_is_refused_naming_field_value_and_what_is_allowed, 0, (int)ARRAY_SIZE(hostile_vhd)))
