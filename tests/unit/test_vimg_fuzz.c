/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Images with bytes changed: whatever they are, an answer, within bounds; what is opened can be read and written.  A loop for each
 * parser, which changes only what that parser reads, and one for all together; checksums are made right in most runs.
 *
 * Each run comes from (VIMG_FUZZ_SEED, its number).  Longer:	VIMG_FUZZ_RUNS=1000000 tests/unit/test_vimg_fuzz
 * Guided by coverage:	clang -g -O1 -fsanitize=fuzzer,address,undefined -DVIMG_LIBFUZZER -D_GNU_SOURCE -I. -o fuzz
 *				tests/unit/test_vimg_fuzz.c tests/unit/vimg_disk.c $(find csvfs/vhd utils/base -name '*.c') -lisal -luuid -lsodium -lcheck
 *			./fuzz -max_len=300
 */
#include <errno.h>

#include "tests/unit/vimg_case.h"

enum base { VHD_F, VHD_D, VHDX_D, VHDX_LOG, BASES };

static const struct area { const char *name; enum base base; uint64_t off, len; } areas[] = {
	{ "tail footer of a fixed VHD", VHD_F, MIB, 96 },
	{ "footers of a dynamic VHD", VHD_D, 0, 96 },
	{ "dynamic header", VHD_D, 512, 64 },
	{ "table of a VHD", VHD_D, 1536, 64 },
	{ "header of a VHDX", VHDX_D, VHDX_HEADER_OFF(1), 96 },
	{ "region tables", VHDX_D, VHDX_REGION_OFF(0), 16 + 96 },
	{ "metadata table", VHDX_D, META_AT, 32 + 32 * 6 },
	{ "metadata items", VHDX_D, META_AT + VHDX_META_TABLE_BYTES, 48 },
	{ "BAT of a VHDX", VHDX_D, BAT_AT, 256 },
	{ "log: heads and descriptors", VHDX_LOG, LOG_AT, 64 + 32 * 4 },
	{ "log: second entry", VHDX_LOG, LOG_AT + 3 * 4096, 64 + 32 * 4 },
	{ "log: data", VHDX_LOG, LOG_AT + 4096, 4096 },
	{ "signature", VHDX_D, 0, 16 },
};
#define AREAS ARRAY_SIZE(areas)
#define ALL 255u

static int base_make(enum base b)
{
	struct csv_err err = CSV_ERR_INIT;
	uint8_t bat[4096] = { 0 };
	struct le64 e = le64_of(5 * MIB | 6);
	int fd = case_file();
	struct vimg_spec s = case_spec(b <= VHD_D ? VIMG_VHD : VIMG_VHDX, b == VHD_F ? VIMG_FIXED : VIMG_DYNAMIC, b == VHD_F ? MIB : 16 * MIB,
				       b == VHD_F ? 0 : MIB);

	csv_assertf(!vdisk_make(fd, &s, &err), "%s", err.text);
	if (b == VHD_F)
		return fd;
	if (b == VHD_D) {		/* a record at 3584 */
		uint8_t footer[512];
		uint64_t size = vdisk_fd_size(fd);

		peek(fd, size - 512, footer, 512);
		poke(fd, 3584 + 512 + MIB, footer, 512);
		poke(fd, 3584, "\xff\xff", 2);
		poke(fd, 1536, "\0\0\0\7", 4);
		return fd;
	}
	csv_assertf(!ftruncate(fd, 6 * MIB), "truncate");
	poke64(fd, BAT_AT, 4 * MIB | 6);
	if (b == VHDX_LOG) {
		struct le64 first = le64_of(4 * MIB | 6);
		uint64_t at;

		memcpy(bat, &first, 8);
		memcpy(bat + 16, &e, 8);
		log_on(fd);
		at = log_entry(fd, MIB, 0, 0, 7, (struct log_write[]){ { .off = BAT_AT, .data = bat }, { .off = 5 * MIB, .zero = 8192 },
				{ .off = 4 * MIB, .data = bat } }, 3, 6 * MIB, 6 * MIB);
		csv_assertf(at == 3 * 4096, "log entry");
		log_entry(fd, MIB, at, 0, 8, &(struct log_write){ .off = 4 * MIB + 4096, .data = bat }, 1, 6 * MIB, 6 * MIB);
	}
	return fd;
}

static void reseal_vhd(int fd, uint64_t off, size_t n, size_t field)
{
	uint8_t b[1024];
	struct be32 sum;

	peek(fd, off, b, n);
	sum = be32_of(vhd_checksum(b, n, field));
	poke(fd, off + field, &sum, 4);
}

static void reseal(int fd, enum base b)
{
	uint64_t size = vdisk_fd_size(fd);
	uint8_t footer[512];

	if (b == VHD_D) {
		reseal_vhd(fd, 0, 512, offsetof(struct vhd_footer, checksum));
		reseal_vhd(fd, 512, 1024, offsetof(struct vhd_dyn_header, checksum));
		peek(fd, 0, footer, 512);
		if (size >= 1536 + 512)
			poke(fd, size - 512, footer, 512);
	} else if (b == VHD_F) {
		if (size >= 512)
			reseal_vhd(fd, size - 512, 512, offsetof(struct vhd_footer, checksum));
	} else if (size >= 320 << 10) {
		for (int k = 0; k < 2; k++) {
			reseal_at(fd, H(k), VHDX_HEADER_BYTES);
			reseal_at(fd, VHDX_REGION_OFF(k), VHDX_REGION_BYTES);
		}
		if (b == VHDX_LOG && size >= 6 * MIB) {
			log_seal(fd, MIB, 0);
			log_seal(fd, MIB, 3 * 4096);
		}
	}
}

/* 0: it was opened. */
static int try(int fd, bool writing)
{
	struct csv_err err = CSV_ERR_INIT;
	uint8_t buf[1024], x[3] = { 1, 2, 3 };
	struct vdisk d;
	int rc = vdisk_open(fd, writing, &d, &err);

	if (rc) {
		csv_assertf(err.code < 0 && err.text[0], "refused (%d) without a word", rc);
		return rc;
	}
	csv_assertf(d.v.virtual_size && d.v.virtual_size <= VHDX_SIZE_MAX, "%llu bytes", (unsigned long long)d.v.virtual_size);
	for (unsigned k = 0; k < 6; k++) {
		uint64_t at = d.v.virtual_size / 5 * k;

		at = at > d.v.virtual_size - sizeof(buf) ? d.v.virtual_size - csv_min((uint64_t)sizeof(buf), d.v.virtual_size) : at;
		rc = vdisk_read(&d, at, buf, csv_min((uint64_t)sizeof(buf), d.v.virtual_size - at), &err);
		csv_assertf(!rc, "read at %llu: %s", (unsigned long long)at, err.text);
	}
	if (writing && d.v.block_size <= 4 * MIB) {
		rc = vdisk_write(&d, d.v.virtual_size - 3, x, 3, &err);
		csv_assertf(!rc || rc == -EFBIG || rc == -ENOSPC, "write: %d %s", rc, err.text);
		if (!rc) {
			rc = vdisk_read(&d, d.v.virtual_size - 3, buf, 3, &err);
			csv_assertf(!rc && !memcmp(buf, x, 3), "read what was written: %d", rc);
		}
	}
	vdisk_close(&d);
	/* still good */
	rc = vdisk_open(fd, false, &d, &err);
	csv_assertf(!rc, "opened again: %s", err.text);
	vdisk_close(&d);
	return 0;
}

/*
 * data: area (ALL and above: named by each change), flags, then changes: [area] offset 2, length 1, bytes.
 * flags: 1 checksums stay wrong, 2 for writing, 4 cut off, 8 both header and region tables alike
 */
static int fuzz_one(const uint8_t *data, size_t size)
{
	enum base base = size < 2 ? VHDX_D : data[0] < AREAS ? areas[data[0]].base : data[0] % BASES;
	int fd = base_make(base), rc;
	uint8_t flags = size < 2 ? 0 : data[1];
	size_t at = 2;

	while (at + 4 < size) {
		const struct area *a = &areas[data[0] < AREAS ? data[0] : data[at] % AREAS];
		uint64_t off = (data[at + 1] | data[at + 2] << 8) % a->len, len = 1 + data[at + 3] % 8;

		at += 4;
		len = csv_min(csv_min(len, (uint64_t)(size - at)), a->len - off);
		if (len && a->base / 2 == base / 2)
			poke(fd, a->off + off, data + at, len);
		if (len && flags & 8 && a->off == VHDX_REGION_OFF(0))
			poke(fd, VHDX_REGION_OFF(1) + off, data + at, len);
		at += len;
	}
	if (flags & 4 && size > 4)
		csv_assertf(!ftruncate(fd, (off_t)((data[2] | data[3] << 8 | (uint64_t)data[4] << 16) % (7 * MIB))), "truncate");
	if (!(flags & 1))
		reseal(fd, base);
	rc = try(fd, flags & 2);
	close(fd);
	return rc;
}

#ifdef VIMG_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_one(data, size);
	return 0;
}

#else

static uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *t = getenv(name);

	return t ? strtoull(t, NULL, 0) : otherwise;
}

/* Values that formats break on, besides any bytes. */
static size_t interesting(struct csv_prng *r, uint8_t *out)
{
	static const uint64_t x[] = { 0, 1, 2, 4, 5, 6, 7, 511, 512, 4095, 4096, 65536, MIB, 2 * MIB, 3 * MIB, 4 * MIB | 6, 5 * MIB | 6, 6 * MIB,
				      1ull << 31, UINT32_MAX, 1ull << 32, 1ull << 52, 1ull << 63, UINT64_MAX, UINT64_MAX - 511, UINT64_MAX - MIB + 1 };
	uint64_t v = x[csv_prng_below(r, ARRAY_SIZE(x))] + (csv_prng_chance(r, 1, 4) ? csv_prng_u64(r) % 3 - 1 : 0);
	size_t n = csv_prng_chance(r, 1, 2) ? 8 : 4;

	if (csv_prng_chance(r, 1, 3)) {
		n = csv_prng_range(r, 1, 8);
		csv_prng_bytes(r, out, n);
	}
	else if (csv_prng_chance(r, 1, 2))
		for (size_t k = 0; k < n; k++)
			out[k] = (uint8_t)(v >> 8 * k);
	else
		for (size_t k = 0; k < n; k++)
			out[k] = (uint8_t)(v >> 8 * (n - 1 - k));
	return n;
}

START_TEST(changed_images_are_answered)
{
	uint64_t runs = env_number("VIMG_FUZZ_RUNS", _i < (int)AREAS ? 250 : 1000), seed = env_number("VIMG_FUZZ_SEED", 1);
	unsigned opened = 0;

	for (uint64_t run = 0; run < runs; run++) {
		uint8_t data[2 + 6 * 12];
		struct csv_prng r;
		size_t n = 2;

		csv_prng_init(&r, seed << 40 ^ (uint64_t)_i << 32 ^ run);
		data[0] = _i < (int)AREAS ? (uint8_t)_i : (uint8_t)(ALL - csv_prng_below(&r, 4));
		data[1] = (uint8_t)(csv_prng_chance(&r, 1, 8) | (csv_prng_chance(&r, 1, 3) ? 2 : 0) | (csv_prng_chance(&r, 1, 30) ? 4 : 0) |
				    (csv_prng_chance(&r, 3, 4) ? 8 : 0));
		for (unsigned k = (unsigned)csv_prng_range(&r, 1, 4); k; k--) {
			size_t len;
			uint64_t off = csv_prng_below(&r, 4096);

			if (csv_prng_chance(&r, 3, 4))
				off -= off % 4;
			data[n] = (uint8_t)csv_prng_u64(&r);
			data[n + 1] = (uint8_t)off;
			data[n + 2] = (uint8_t)(off >> 8);
			len = interesting(&r, data + n + 4);
			data[n + 3] = (uint8_t)(len - 1);
			n += 4 + len;
		}
		opened += !fuzz_one(data, n);
	}
	/* neither all refused nor none, or nothing is tried */
	ck_assert_msg(opened && opened < runs, "%s: %u of %llu opened", _i < (int)AREAS ? areas[_i].name : "all", opened, (unsigned long long)runs);
}
END_TEST

UNIT_MAIN("vimg_fuzz", UNIT_SLOW(changed_images_are_answered, 0, (int)AREAS + 1, getenv("VIMG_FUZZ_RUNS") ? 1e6 : 120))

#endif
