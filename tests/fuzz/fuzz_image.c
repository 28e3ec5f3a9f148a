/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuzz_image.c - images whose headers, tables and logs are changed (decoders vhd, vhdx): the unit test of the same, as fuzzers.
 *
 * An input is what tests/unit/test_vimg_fuzz.c takes: the area, flags, then changes.
 */
#define VIMG_LIBFUZZER
#include "tests/unit/test_vimg_fuzz.c"

#include "tests/fuzz/fuzz.h"

#define VHD_AREAS 4u

static void image_sample(struct fuzz_input *in, unsigned first, unsigned end)
{
	static const uint64_t edges[] = { 0, 1, 2, 4, 5, 6, 7, 511, 512, 4095, 4096, 65536, MIB, 2 * MIB, 3 * MIB, 4 * MIB | 6, 5 * MIB | 6, 6 * MIB,
					  1ull << 31, UINT32_MAX, 1ull << 32, 1ull << 52, 1ull << 63, UINT64_MAX, UINT64_MAX - 511 };
	unsigned n = (unsigned)csv_prng_below(in->prng, 4);

	in->b[0] = (uint8_t)(first + csv_prng_below(in->prng, end - first));
	in->b[1] = (uint8_t)(csv_prng_chance(in->prng, 7, 8) ? csv_prng_u64(in->prng) & 0xa : csv_prng_u64(in->prng) & 0xf);
	in->len = 2;
	for (; n; n--) {
		uint64_t v = edges[csv_prng_below(in->prng, ARRAY_SIZE(edges))];
		unsigned size = 1u << csv_prng_below(in->prng, 4);

		if (in->b[0] < VHD_AREAS)
			v = __builtin_bswap64(v) >> (64 - 8 * size);
		in->b[in->len++] = in->b[0];
		in->b[in->len++] = (uint8_t)(csv_prng_u64(in->prng) & ~(size - 1ull));
		in->b[in->len++] = (uint8_t)csv_prng_below(in->prng, 2);
		in->b[in->len++] = (uint8_t)(size - 1);
		memcpy(in->b + in->len, &v, size);
		in->len += size;
	}
}

static void vhd_sample(struct fuzz_input *in) { image_sample(in, 0, VHD_AREAS); }
static void vhdx_sample(struct fuzz_input *in) { image_sample(in, VHD_AREAS, AREAS); }

static bool image_run(struct fuzz_input *in)
{
	return fuzz_one(in->b, in->len) == 0;
}

const struct fuzz_decoder fuzz_image[] = {
	{ .name = "vhd", .gentle = true, .sample = vhd_sample, .run = image_run },	/* decoder vhd */
	{ .name = "vhdx", .gentle = true, .sample = vhdx_sample, .run = image_run },	/* decoder vhdx */
	{ 0 },
};
