/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * prng: deterministic pseudo-random numbers (xoshiro256**, seeded through splitmix64). Same seed,
 * same numbers, on every machine and for ever: seeds are kept in test scenarios.
 * For simulation, tests and jitter; never for keys. A generator belongs to one thread.
 */
#ifndef CSV_PRNG_H
#define CSV_PRNG_H

#include "utils/base/base.h"

struct csv_prng {
	uint64_t s[4];
};

/* One step of splitmix64: also good for mixing an integer once. */
uint64_t csv_splitmix64(uint64_t *state);

void csv_prng_init(struct csv_prng *prng, uint64_t seed);
/* An independent generator: what it draws does not depend on how much the parent draws later. */
void csv_prng_fork(struct csv_prng *parent, struct csv_prng *ret_child);

uint64_t csv_prng_u64(struct csv_prng *prng);
/* 0 … below-1, without bias; below > 0. */
uint64_t csv_prng_below(struct csv_prng *prng, uint64_t below);
/* first … last, both included. */
uint64_t csv_prng_range(struct csv_prng *prng, uint64_t first, uint64_t last);
/* True with probability num/den; num 0 and num >= den draw nothing less than the others. */
bool csv_prng_chance(struct csv_prng *prng, uint64_t num, uint64_t den);
void csv_prng_bytes(struct csv_prng *prng, void *p, size_t size_bytes);

#endif
