/* SPDX-License-Identifier: GPL-2.0-only */
/* Algorithms: Blackman and Vigna, https://prng.di.unimi.it (public domain). */
#include "utils/base/prng.h"

static uint64_t rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

uint64_t csv_splitmix64(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void csv_prng_init(struct csv_prng *prng, uint64_t seed)
{
	for (size_t i = 0; i < ARRAY_SIZE(prng->s); i++)
		prng->s[i] = csv_splitmix64(&seed);
}

void csv_prng_fork(struct csv_prng *parent, struct csv_prng *ret_child)
{
	csv_prng_init(ret_child, csv_prng_u64(parent));
}

uint64_t csv_prng_u64(struct csv_prng *prng)
{
	uint64_t *s = prng->s;
	uint64_t result = rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

uint64_t csv_prng_below(struct csv_prng *prng, uint64_t below)
{
	uint64_t x, reject;

	csv_assert(below > 0);
	/* 2^64 mod below: numbers under it would make the low results likelier */
	reject = -below % below;
	do {
		x = csv_prng_u64(prng);
	} while (x < reject);
	return x % below;
}

uint64_t csv_prng_range(struct csv_prng *prng, uint64_t first, uint64_t last)
{
	csv_assert(first <= last);
	if (first == 0 && last == UINT64_MAX)
		return csv_prng_u64(prng);
	return first + csv_prng_below(prng, last - first + 1);
}

bool csv_prng_chance(struct csv_prng *prng, uint64_t num, uint64_t den)
{
	return csv_prng_below(prng, den) < num;
}

void csv_prng_bytes(struct csv_prng *prng, void *p, size_t size_bytes)
{
	uint8_t *at = p;

	while (size_bytes) {
		struct le64 v = le64_of(csv_prng_u64(prng));
		size_t n = csv_min(size_bytes, sizeof(v));

		memcpy(at, v.b, n);
		at += n;
		size_bytes -= n;
	}
}
