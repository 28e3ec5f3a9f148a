/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Images of all formats: what is written is read, entries lie where they must, new blocks come where nothing is, and a power cut at any
 * write leaves a whole image with the old content.
 */
#include <errno.h>

#include "tests/unit/vimg_case.h"

static const struct kind { const char *name; enum vimg_format f; enum vimg_type t; uint64_t size; uint32_t block, sector; } kinds[] = {
	{ "fixed VHD", VIMG_VHD, VIMG_FIXED, 8 * MIB - 512, 0, 0 },
	{ "dynamic VHD", VIMG_VHD, VIMG_DYNAMIC, 17 * MIB + 512, 0, 0 },
	{ "dynamic VHD, small blocks", VIMG_VHD, VIMG_DYNAMIC, 7 * MIB + 1536, 512 << 10, 0 },
	{ "dynamic VHD, large blocks", VIMG_VHD, VIMG_DYNAMIC, 30 * MIB, 8 << 20, 0 },
	{ "fixed VHDX", VIMG_VHDX, VIMG_FIXED, 9 * MIB + 512, 1 << 20, 0 },
	{ "dynamic VHDX", VIMG_VHDX, VIMG_DYNAMIC, 17 * MIB + 512, 0, 0 },
	{ "dynamic VHDX, 4096", VIMG_VHDX, VIMG_DYNAMIC, 17 * MIB + 4096, 1 << 20, 4096 },
	{ "dynamic VHDX, large blocks", VIMG_VHDX, VIMG_DYNAMIC, 30 * MIB, 8 << 20, 0 },
};

/* Small, for what is done once for every write. */
static const struct kind small[] = {
	{ "fixed VHD", VIMG_VHD, VIMG_FIXED, MIB - 512, 0, 0 },
	{ "dynamic VHD", VIMG_VHD, VIMG_DYNAMIC, 2 * MIB + 1536, 512 << 10, 0 },
	{ "fixed VHDX", VIMG_VHDX, VIMG_FIXED, 2 * MIB + 512, 1 << 20, 0 },
	{ "dynamic VHDX", VIMG_VHDX, VIMG_DYNAMIC, 3 * MIB + 512, 1 << 20, 0 },
	{ "dynamic VHDX, 4096", VIMG_VHDX, VIMG_DYNAMIC, 3 * MIB + 4096, 1 << 20, 4096 },
};

static int make(const struct kind *k)
{
	struct vimg_spec s = case_spec(k->f, k->t, k->size, k->block);
	struct csv_err err = CSV_ERR_INIT;
	int fd = case_file();

	s.sector_size = k->sector;
	ck_assert_msg(!vdisk_make(fd, &s, &err), "%s: %s", k->name, err.text);
	return fd;
}

static void must_open(int fd, bool writing, struct vdisk *d, const char *name)
{
	struct csv_err err = CSV_ERR_INIT;

	ck_assert_msg(!vdisk_open(fd, writing, d, &err), "%s: %s", name, err.text);
}

static void must_be(struct vdisk *d, const uint8_t *model, const char *name)
{
	uint8_t *all = malloc(d->v.virtual_size);
	struct csv_err err = CSV_ERR_INIT;
	uint64_t k = 0;

	ck_assert_msg(!vdisk_read(d, 0, all, d->v.virtual_size, &err), "%s: %s", name, err.text);
	while (k < d->v.virtual_size && all[k] == model[k])
		k++;
	ck_assert_msg(k == d->v.virtual_size, "%s: byte %llu is %u, want %u", name, (unsigned long long)k, all[k], model[k]);
	free(all);
}

START_TEST(what_is_written_is_read)
{
	const struct kind *k = &kinds[_i % ARRAY_SIZE(kinds)];
	static uint8_t buf[600 << 10];
	struct csv_err err = CSV_ERR_INIT;
	uint8_t *model = calloc(1, k->size);
	struct csv_prng r;
	struct vdisk d;
	int fd = make(k);

	csv_prng_init(&r, (uint64_t)_i);
	must_open(fd, true, &d, k->name);
	ck_assert_uint_eq(d.v.virtual_size, k->size);
	ck_assert_int_eq(d.v.type, k->t);
	must_be(&d, model, k->name);
	for (unsigned n = 0; n < 60; n++) {
		uint64_t len = csv_prng_range(&r, 1, sizeof(buf)), at = csv_prng_below(&r, k->size - len), b;

		if (csv_prng_chance(&r, 1, 10)) {
			vdisk_close(&d);
			must_open(fd, true, &d, k->name);
		} else if (csv_prng_chance(&r, 1, 6) && k->t == VIMG_DYNAMIC) {
			b = csv_prng_below(&r, d.v.blocks);
			ck_assert_int_eq(vdisk_free_block(&d, b, &err), 0);
			memset(model + b * d.v.block_size, 0, vimg_block_len(&d.v, b));
		} else {
			csv_prng_bytes(&r, buf, len);
			ck_assert_msg(!vdisk_write(&d, at, buf, len, &err), "%s: %s", k->name, err.text);
			memcpy(model + at, buf, len);
		}
	}
	must_be(&d, model, k->name);
	vdisk_close(&d);
	must_open(fd, false, &d, k->name);
	must_be(&d, model, k->name);
	/* places of blocks given back were used again */
	if (k->t == VIMG_DYNAMIC)
		ck_assert_uint_le(d.usage.present + d.usage.free_blocks, d.v.blocks);
	vdisk_close(&d);
	close(fd);
	free(model);
}
END_TEST

/* ---- BAT -------------------------------------------------------------------------------------------------------------------------------- */

START_TEST(entries_of_bitmaps_lie_between_those_of_blocks)
{
	int fd = case_make(VIMG_VHDX, VIMG_DYNAMIC, 20 * GIB, MIB);
	struct vdisk d;

	must_open(fd, false, &d, "1 MiB");
	ck_assert_uint_eq(d.v.chunk_ratio, 4096);
	ck_assert_uint_eq(d.v.bat_bytes, (20480 + 4) * 8);	/* none behind the last block */
	ck_assert_uint_eq(vimg_entry_off(&d.v, 4095), BAT_AT + 8 * 4095);
	ck_assert_uint_eq(vimg_entry_off(&d.v, 4096), BAT_AT + 8 * 4097);
	ck_assert_uint_eq(vimg_entry_off(&d.v, 8192), BAT_AT + 8 * 8194);
	vdisk_close(&d);
	close(fd);
}
END_TEST

START_TEST(the_blocks_of_a_part_of_the_bat_are_those_whose_entries_lie_in_it)
{
	struct csv_prng r;
	int fd = case_make(_i ? VIMG_VHDX : VIMG_VHD, VIMG_DYNAMIC, 40 * GIB, MIB);
	struct vdisk d;

	csv_prng_init(&r, 5);
	must_open(fd, false, &d, "blocks_at");
	for (unsigned n = 0; n < 3000; n++) {
		uint64_t step = d.v.entry_bytes, all = d.v.bat_bytes / step + 40;
		uint64_t from = csv_prng_below(&r, all), len = csv_prng_range(&r, 0, n % 2 ? 3 : all - from), first, count;
		uint64_t off = d.v.bat_off - 20 * step + from * step, end = off + len * step;

		vimg_blocks_at(&d.v, off, len * step, &first, &count);
		ck_assert_uint_le(first + count, d.v.blocks);
		if (!count)
			continue;
		ck_assert_uint_ge(vimg_entry_off(&d.v, first), off);
		ck_assert_uint_lt(vimg_entry_off(&d.v, first + count - 1), end);
		if (first)
			ck_assert_uint_lt(vimg_entry_off(&d.v, first - 1), off);
		if (first + count < d.v.blocks)
			ck_assert_uint_ge(vimg_entry_off(&d.v, first + count), end);
	}
	vdisk_close(&d);
	close(fd);
}
END_TEST

START_TEST(an_entry_written_is_read_alike)
{
	struct csv_prng r;
	int fd = case_make(_i ? VIMG_VHDX : VIMG_VHD, VIMG_DYNAMIC, GIB, 0);
	struct csv_err err = CSV_ERR_INIT;
	uint64_t file_size = 800 * MIB;
	struct vdisk d;

	csv_prng_init(&r, 5);
	must_open(fd, false, &d, "entries");
	for (unsigned n = 0; n < 3000; n++) {
		struct vimg_entry e = { .state = n % 4 }, got;
		uint64_t block = csv_prng_below(&r, d.v.blocks);
		uint8_t raw[8];

		if (!_i && n % 4 != VIMG_ABSENT)
			e.state = VIMG_PRESENT;
		if (e.state == VIMG_PRESENT)
			vimg_record_make(&d.v, csv_prng_range(&r, 4, 700) * MIB, &e);
		vimg_entry_encode(&d.v, block, &e, raw);
		ck_assert_msg(!vimg_entry_decode(&d.v, file_size, block, raw, &got, &err), "%s", err.text);
		ck_assert_int_eq(got.state, e.state);
		ck_assert_uint_eq(got.data_off, e.data_off);
		ck_assert_uint_eq(got.bitmap_off, e.bitmap_off);
	}
	vdisk_close(&d);
	close(fd);
}
END_TEST

START_TEST(space_that_an_absent_block_has_kept_is_given_to_nobody_else)
{
	int fd = case_make(VIMG_VHDX, VIMG_DYNAMIC, 64 * MIB, MIB);
	struct csv_err err = CSV_ERR_INIT;
	struct vdisk d;

	ck_assert(!ftruncate(fd, 6 * MIB));
	poke64(fd, BAT_AT, 4 * MIB | 2);		/* zero, with its space */
	poke64(fd, BAT_AT + 8, 77 * MIB | 3);		/* beyond the file: says nothing */
	must_open(fd, true, &d, "kept");
	ck_assert_uint_eq(d.usage.free_blocks, 1);
	ck_assert_int_eq(vdisk_write(&d, 8 * MIB, "x", 1, &err), 0);
	ck_assert_int_eq(vdisk_write(&d, 9 * MIB, "x", 1, &err), 0);
	ck_assert_uint_eq(peek64(fd, BAT_AT + 64), 5 * MIB | 6);
	ck_assert_uint_eq(peek64(fd, BAT_AT + 72), 6 * MIB | 6);
	vdisk_close(&d);
	close(fd);
}
END_TEST

/* The part of the last block that the disk does not have: room for nobody, but no error if somebody is there. */
START_TEST(what_follows_a_short_last_block_is_its_own_unless_somebody_is_there)
{
	struct csv_err err = CSV_ERR_INIT;
	int vhdx = case_make(VIMG_VHDX, VIMG_DYNAMIC, 9 * MIB, 4 * MIB), vhd = case_make(VIMG_VHD, VIMG_DYNAMIC, 3 * MIB, 2 * MIB);
	uint64_t off;
	struct vdisk d;

	must_open(vhdx, true, &d, "vhdx");
	ck_assert_int_eq(vdisk_write(&d, 8 * MIB, "x", 1, &err), 0);		/* block 2 at 4 MiB, 1 MiB of 4 needed */
	vdisk_close(&d);
	must_open(vhdx, true, &d, "vhdx");
	ck_assert_uint_eq(d.usage.free_bytes, 0);
	vimg_scan_free_place(d.scan, 4 * MIB);
	ck_assert(vimg_scan_place(d.scan, &off));
	ck_assert_uint_eq(off, 4 * MIB);
	vdisk_close(&d);
	poke64(vhdx, BAT_AT, 5 * MIB | 6);					/* block 0 behind that 1 MiB */
	ck_assert(!ftruncate(vhdx, 9 * MIB));
	must_open(vhdx, true, &d, "vhdx");
	ck_assert_uint_eq(d.usage.present, 2);
	vimg_scan_free_place(d.scan, 4 * MIB);
	ck_assert(!vimg_scan_place(d.scan, &off));
	vdisk_close(&d);

	must_open(vhd, true, &d, "vhd");
	ck_assert_int_eq(vdisk_write(&d, 2 * MIB, "x", 1, &err), 0);		/* block 1 at 3584, 1 MiB of 2 needed */
	ck_assert_int_eq(vdisk_write(&d, 0, "x", 1, &err), 0);
	vdisk_close(&d);
	must_open(vhd, true, &d, "vhd");
	ck_assert_uint_eq(d.usage.free_bytes, 0);
	vimg_scan_free_place(d.scan, 3584);
	ck_assert(vimg_scan_place(d.scan, &off));
	ck_assert_uint_eq(off, 3584);
	vdisk_close(&d);
	poke(vhd, 1536, (uint8_t[]){ 0, 0, 8, 15 }, 4);				/* block 0 behind that 1 MiB */
	poke(vhd, 2063 * 512, (uint8_t[]){ 0xff }, 1);
	must_open(vhd, true, &d, "vhd");
	ck_assert_uint_eq(d.usage.present, 2);
	vimg_scan_free_place(d.scan, 3584);
	while (vimg_scan_place(d.scan, &off))
		ck_assert_uint_ge(off, 2063 * 512 + 512 + 2 * MIB);
	vdisk_close(&d);
	close(vhdx);
	close(vhd);
}
END_TEST

START_TEST(what_is_free_is_counted_as_it_is_given_out)
{
	struct csv_prng r;

	csv_prng_init(&r, (uint64_t)_i);
	for (unsigned n = 0; n < 30; n++) {
		uint32_t block = (uint32_t)MIB << csv_prng_below(&r, 3);
		int fd = case_make(VIMG_VHDX, VIMG_DYNAMIC, 256 * MIB, block);
		uint64_t units = csv_prng_range(&r, 10, 300), off, given = 0, used = 4;
		uint8_t map[400] = { 1, 1, 1, 1 };
		struct vdisk d;

		ck_assert(!ftruncate(fd, (off_t)(units * MIB)));
		for (uint64_t b = 0; b < 256 * MIB / block; b++) {
			uint64_t at = csv_prng_range(&r, 4, units - 1), k, need = block / MIB;

			for (k = 0; k < need && at + k < units && !map[at + k]; k++)
				;
			if (k < need || csv_prng_chance(&r, 1, 2))
				continue;
			memset(map + at, 1, need);
			used += need;
			poke64(fd, BAT_AT + 8 * b, at * MIB | 6);
		}
		must_open(fd, false, &d, "free");
		ck_assert_uint_eq(d.usage.free_bytes, (units - used) * MIB);
		while (vimg_scan_place(d.scan, &off)) {
			given++;
			for (uint64_t k = off / MIB; k < (off + block) / MIB; k++) {
				ck_assert_uint_lt(k, units);
				ck_assert_uint_eq(map[k], 0);
				map[k] = 1;
			}
		}
		ck_assert_uint_eq(given, d.usage.free_blocks);
		ck_assert_int_eq(vimg_scan_grown(d.scan, (units + 9) * MIB), 0);
		ck_assert(!vimg_scan_place(d.scan, &off));
		vdisk_close(&d);
		close(fd);
	}
}
END_TEST

/* ---- adding ------------------------------------------------------------------------------------------------------------------------------ */

START_TEST(blocks_are_appended_aligned_and_behind_everything)
{
	const struct kind *k = &kinds[_i];
	struct csv_err err = CSV_ERR_INIT;
	int fd = make(k);
	struct vimg_place p;
	struct vimg_entry e;
	struct vimg_write w;
	struct vdisk d;

	must_open(fd, false, &d, k->name);
	for (uint32_t n = 1; d.v.has_bat && n < 100; n += 31) {
		ck_assert_int_eq(vimg_append(&d.v, d.file_size, n, &p, &err), 0);
		ck_assert_uint_ge(p.off, vimg_data_end(&d.v, d.file_size));
		vimg_record_make(&d.v, p.off + (n - 1) * (uint64_t)d.v.stride, &e);
		ck_assert_uint_eq(e.data_off % (k->f == VIMG_VHD ? 4096 : MIB), 0);
		ck_assert_uint_le(e.data_off + d.v.block_size, vimg_data_end(&d.v, p.file_size));
		vimg_tail(&d.v, p.file_size, &w);
		ck_assert_uint_eq(w.len, k->f == VIMG_VHD ? 512 : 0);
		/* where QEMU adds the next one */
		if (w.len)
			ck_assert_uint_eq(w.off, e.data_off + d.v.block_size);
		if (w.len)
			ck_assert_uint_eq(w.off + w.len, p.file_size);
		else
			ck_assert_uint_eq(p.file_size % MIB, 0);
	}
	vdisk_close(&d);
	close(fd);
}
END_TEST

START_TEST(what_a_format_cannot_say_is_not_appended)
{
	int vhd = case_make(VIMG_VHD, VIMG_DYNAMIC, GIB, 0), vhdx = case_make(VIMG_VHDX, VIMG_DYNAMIC, GIB, 0);
	struct csv_err err = CSV_ERR_INIT;
	struct vimg_place p;
	struct vdisk d;

	must_open(vhd, false, &d, "vhd");
	ck_assert_int_eq(vimg_append(&d.v, (2047ull << 30), 1, &p, &err), 0);
	ck_assert_int_eq(vimg_append(&d.v, (2048ull << 30), 1, &p, &err), -EFBIG);
	ck_assert_int_eq(vimg_append(&d.v, INT64_MAX, UINT32_MAX, &p, &err), -EFBIG);
	ck_assert_int_eq(vimg_append(&d.v, d.file_size, UINT32_MAX, &p, &err), -EFBIG);
	vdisk_close(&d);
	must_open(vhdx, false, &d, "vhdx");
	ck_assert_int_eq(vimg_append(&d.v, 127ull << 40, 1, &p, &err), 0);
	ck_assert_int_eq(vimg_append(&d.v, 128ull << 40, 1, &p, &err), -EFBIG);
	vdisk_close(&d);
	close(vhd);
	close(vhdx);
}
END_TEST

/* Programs leave things in a footer that the specification does not know. */
START_TEST(the_footer_that_moves_stays_what_it_is)
{
	int fd = make(&kinds[1]);
	struct csv_err err = CSV_ERR_INIT;
	uint8_t a[512], b[512], sum[4];
	uint64_t size = vdisk_fd_size(fd);
	struct vdisk d;

	peek(fd, 0, a, 512);
	memcpy(a + 300, "something", 9);
	a[85] = 1;	/* hidden */
	*(struct be32 *)sum = be32_of(vhd_checksum(a, 512, 64));
	memcpy(a + 64, sum, 4);
	poke(fd, 0, a, 512);
	poke(fd, size - 512, a, 512);
	must_open(fd, true, &d, "footer");
	ck_assert_int_eq(vdisk_write(&d, 0, "x", 1, &err), 0);
	ck_assert_uint_gt(d.file_size, size);
	peek(fd, d.file_size - 512, b, 512);
	ck_assert_mem_eq(a, b, 512);
	vdisk_close(&d);
	must_open(fd, false, &d, "footer");
	vdisk_close(&d);
	close(fd);
}
END_TEST

/* Power is cut at the n-th write, for every n; then the image is opened, holds what it held, and what was leaked is used again. */
START_TEST(a_power_cut_at_any_write_leaves_a_whole_image)
{
	const struct kind *k = &small[_i];
	struct csv_err err = CSV_ERR_INIT;
	uint8_t *model = calloc(1, k->size), *before, got[16];
	int fd = make(k);
	struct vdisk d;
	unsigned left, n;
	size_t size;
	uint64_t grown = 0;

	must_open(fd, true, &d, k->name);
	memcpy(model + 1000, "kept", 4);
	ck_assert_int_eq(vdisk_write(&d, 1000, "kept", 4, &err), 0);
	vdisk_close(&d);
	size = vdisk_fd_size(fd);
	before = malloc(size);
	peek(fd, 0, before, size);
	for (n = 0; ; n++) {
		int rc;

		ck_assert(!ftruncate(fd, 0));
		poke(fd, 0, before, size);
		left = n;
		rc = vdisk_open_until(fd, true, &left, &d, &err);
		if (!rc) {
			rc = vdisk_write(&d, k->size - 16, "what comes anew.", 16, &err);
			vdisk_close(&d);
		}
		must_open(fd, true, &d, k->name);
		ck_assert_int_eq(vdisk_read(&d, k->size - 16, got, 16, &err), 0);
		ck_assert_msg(!memcmp(got, "what comes anew.", 16) || !memcmp(got, (uint8_t[16]){ 0 }, 16), "%s, cut at write %u: \"%.16s\"",
			      k->name, n, got);
		ck_assert_int_eq(vdisk_write(&d, k->size - 16, (uint8_t[16]){ 0 }, 16, &err), 0);
		must_be(&d, model, k->name);
		grown = csv_max(grown, d.file_size);
		vdisk_close(&d);
		if (!rc)
			break;
	}
	ck_assert_uint_gt(n, d.v.has_bat ? 2 : 0);
	/* never longer than without a cut */
	ck_assert_uint_eq(grown, vdisk_fd_size(fd));
	free(before);
	free(model);
	close(fd);
}
END_TEST

/* ---- bitmaps of VHD ------------------------------------------------------------------------------------------------------------------------ */

/* As Virtual PC writes them: a bit for each sector that was written. */
START_TEST(sectors_whose_bit_is_clear_read_as_zeroes_until_they_are_written)
{
	const struct kind *k = &kinds[1];
	struct csv_err err = CSV_ERR_INIT;
	uint8_t *model = calloc(1, k->size), map[512], x[4096];
	int fd = make(k);
	struct vimg_entry e;
	struct vdisk d;

	must_open(fd, true, &d, k->name);
	memset(x, 'x', sizeof(x));
	for (unsigned at = 0; at < 65536; at += sizeof(x))
		ck_assert_int_eq(vdisk_write(&d, at, x, sizeof(x), &err), 0);
	ck_assert_int_eq(vdisk_entry(&d, 0, &e, &err), 0);
	peek(fd, e.bitmap_off, map, sizeof(map));
	ck_assert(vimg_bitmap_is_full(&d.v, map));
	memset(map, 0, sizeof(map));
	map[0] = 0x81;		/* sectors 0 and 7 */
	map[1] = 0xff;		/* 8 to 15 */
	map[2] = 0x40;		/* 17 */
	map[511] = 0x01;	/* the last */
	poke(fd, e.bitmap_off, map, sizeof(map));
	memset(model, 'x', 512);
	memset(model + 7 * 512, 'x', 9 * 512);
	memset(model + 17 * 512, 'x', 512);
	must_be(&d, model, k->name);
	ck_assert_int_eq(vdisk_write(&d, 512 + 100, "new", 3, &err), 0);
	memcpy(model + 512 + 100, "new", 3);
	must_be(&d, model, k->name);
	peek(fd, e.bitmap_off, map, sizeof(map));
	ck_assert(vimg_bitmap_is_full(&d.v, map));
	vdisk_close(&d);
	free(model);
	close(fd);
}
END_TEST

START_TEST(clear_bits_are_found)
{
	struct vimg v = { .block_size = 512 << 10, .bitmap_bytes = 512 };	/* 1024 bits */
	uint8_t map[512];
	struct csv_prng r;

	csv_prng_init(&r, 3);
	for (unsigned n = 0; n < 500; n++) {
		uint32_t s = 0, count = 0, seen = 0, clear = 0;

		memset(map, 0xff, sizeof(map));
		memset(map + 128, 0, sizeof(map) - 128);	/* behind the block: of no account */
		for (unsigned k = csv_prng_below(&r, 30); k; k--)
			map[csv_prng_below(&r, 128)] &= (uint8_t)csv_prng_u64(&r);
		for (unsigned k = 0; k < 1024; k++)
			clear += !(map[k / 8] & (0x80 >> k % 8));
		for (; vimg_bitmap_next_clear(&v, map, s, &s, &count); s += count) {
			for (uint32_t k = s; k < s + count; k++)
				ck_assert(!(map[k / 8] & (0x80 >> k % 8)));
			seen += count;
		}
		ck_assert_uint_eq(seen, clear);
		ck_assert_int_eq(vimg_bitmap_is_full(&v, map), !clear);
	}
}
END_TEST

/* ---- making, headers ---------------------------------------------------------------------------------------------------------------------- */

START_TEST(images_that_cannot_be_are_not_made)
{
	static const struct { struct vimg_spec s; const char *says; int code; } bad[] = {
		{ { .format = VIMG_VHD, .type = VIMG_DYNAMIC, .size = 0 }, "size 0", -EINVAL },
		{ { .format = VIMG_VHD, .type = VIMG_DYNAMIC, .size = 2041ull << 30 }, "2040G", -EINVAL },
		{ { .format = VIMG_VHD, .type = VIMG_DYNAMIC, .size = GIB, .block_size = 3 << 20 }, "block-size 3145728", -EINVAL },
		{ { .format = VIMG_VHD, .type = VIMG_DYNAMIC, .size = GIB, .block_size = 4096 }, "512K to 64M", -EINVAL },
		{ { .format = VIMG_VHD, .type = VIMG_FIXED, .size = GIB, .block_size = 1 << 20 }, "no blocks", -EINVAL },
		{ { .format = VIMG_VHD, .type = VIMG_FIXED, .size = GIB, .sector_size = 4096 }, "sector-size 4096", -EINVAL },
		{ { .format = VIMG_VHDX, .type = VIMG_DYNAMIC, .size = 0 }, "size 0", -EINVAL },
		{ { .format = VIMG_VHDX, .type = VIMG_DYNAMIC, .size = 513 }, "size 513", -EINVAL },
		{ { .format = VIMG_VHDX, .type = VIMG_DYNAMIC, .size = 512, .sector_size = 4096 }, "sector size 4096", -EINVAL },
		{ { .format = VIMG_VHDX, .type = VIMG_DYNAMIC, .size = GIB, .sector_size = 520 }, "512 or 4096", -EINVAL },
		{ { .format = VIMG_VHDX, .type = VIMG_DYNAMIC, .size = (64ull << 40) + 512 }, "64T", -EINVAL },
		{ { .format = VIMG_VHDX, .type = VIMG_DYNAMIC, .size = GIB, .block_size = 512 << 10 }, "1024K to 256M", -EINVAL },
		{ { .format = VIMG_VHDX, .type = VIMG_DIFF, .size = GIB }, "not supported yet", -CSV_E_UNSUPPORTED },
	};

	for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
		struct csv_err err = CSV_ERR_INIT;
		struct vimg_made m;

		ck_assert_int_eq(vimg_make(&bad[k].s, &m, &err), bad[k].code);
		ck_assert_msg(strstr(err.text, bad[k].says) != NULL, "\"%s\" does not say \"%s\"", err.text, bad[k].says);
	}
}
END_TEST

START_TEST(the_largest_and_the_smallest_are_made_and_read)
{
	static const struct { enum vimg_format f; enum vimg_type t; uint64_t size; uint32_t block; } all[] = {
		{ VIMG_VHD, VIMG_DYNAMIC, 2040 * GIB, 0 }, { VIMG_VHD, VIMG_DYNAMIC, 512, 0 }, { VIMG_VHD, VIMG_FIXED, 512, 0 },
		{ VIMG_VHDX, VIMG_DYNAMIC, 64ull << 40, 0 }, { VIMG_VHDX, VIMG_DYNAMIC, 64ull << 40, 256 << 20 },
		{ VIMG_VHDX, VIMG_DYNAMIC, 512, 0 }, { VIMG_VHDX, VIMG_DYNAMIC, 4ull << 40, 1 << 20 }, { VIMG_VHDX, VIMG_FIXED, 64ull << 40, 0 },
	};
	int fd = case_make(all[_i].f, all[_i].t, all[_i].size, all[_i].block);
	struct csv_err err = CSV_ERR_INIT;
	struct vdisk d;
	char x[2] = "";

	must_open(fd, true, &d, "extreme");
	ck_assert_uint_eq(d.v.virtual_size, all[_i].size);
	ck_assert_int_eq(vdisk_write(&d, all[_i].size - 1, "x", 1, &err), 0);
	vdisk_close(&d);
	must_open(fd, false, &d, "extreme");
	ck_assert_int_eq(vdisk_read(&d, all[_i].size - 1, x, 1, &err), 0);
	ck_assert_str_eq(x, "x");
	vdisk_close(&d);
	close(fd);
}
END_TEST

START_TEST(each_opening_for_writing_changes_the_guids_and_the_header_that_rules)
{
	int fd = case_make(VIMG_VHDX, VIMG_DYNAMIC, GIB, 0);
	static const uint8_t g1[16] = { 1, 1 }, g2[16] = { 2, 2 }, g3[16] = { 3, 3 };
	struct csv_err err = CSV_ERR_INIT;
	struct vimg_write w;
	struct vdisk d;
	struct vimg v;
	unsigned cur;

	must_open(fd, false, &d, "header");
	v = d.v;
	vdisk_close(&d);
	cur = v.vhdx_current;
	ck_assert_int_eq(vimg_header_new(&v, g1, g2, &w, &err), 0);
	ck_assert_uint_eq(w.off, H(!cur));
	ck_assert_uint_eq(w.len, 4096);
	poke(fd, w.off, w.data, w.len);
	ck_assert_int_eq(vimg_header_new(&v, g3, NULL, &w, &err), 0);
	ck_assert_uint_eq(w.off, H(cur));
	poke(fd, w.off, w.data, w.len);
	must_open(fd, false, &d, "header");
	ck_assert_uint_eq(d.v.vhdx_header.sequence, 4);
	ck_assert_mem_eq(d.v.vhdx_header.file_guid, g3, 16);
	ck_assert_mem_eq(d.v.vhdx_header.data_guid, g2, 16);
	vdisk_close(&d);
	close(fd);
}
END_TEST

#define KINDS ((int)ARRAY_SIZE(kinds))
UNIT_MAIN("vimg", UNIT_SLOW(what_is_written_is_read, 0, 3 * KINDS, 60), UNIT_TEST(entries_of_bitmaps_lie_between_those_of_blocks),
	  UNIT_LOOP(the_blocks_of_a_part_of_the_bat_are_those_whose_entries_lie_in_it, 0, 2), UNIT_LOOP(an_entry_written_is_read_alike, 0, 2),
	  UNIT_TEST(space_that_an_absent_block_has_kept_is_given_to_nobody_else), UNIT_TEST(what_follows_a_short_last_block_is_its_own_unless_somebody_is_there),
	  UNIT_LOOP(what_is_free_is_counted_as_it_is_given_out, 0, 5), UNIT_LOOP(blocks_are_appended_aligned_and_behind_everything, 0, KINDS),
	  UNIT_TEST(what_a_format_cannot_say_is_not_appended), UNIT_TEST(the_footer_that_moves_stays_what_it_is), UNIT_SLOW(a_power_cut_at_any_write_leaves_a_whole_image, 0, (int)ARRAY_SIZE(small), 60),
	  UNIT_TEST(sectors_whose_bit_is_clear_read_as_zeroes_until_they_are_written), UNIT_TEST(clear_bits_are_found),
	  UNIT_TEST(images_that_cannot_be_are_not_made), UNIT_SLOW(the_largest_and_the_smallest_are_made_and_read, 0, 8, 60),
	  UNIT_TEST(each_opening_for_writing_changes_the_guids_and_the_header_that_rules))
