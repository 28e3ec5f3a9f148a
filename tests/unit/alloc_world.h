/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * alloc_world.h - for the unit tests of allocation groups: a volume on fake cache, locks and journal (core_fake.h), with one reservation.
 */
#ifndef CSVFS_TESTS_UNIT_ALLOC_WORLD_H
#define CSVFS_TESTS_UNIT_ALLOC_WORLD_H

#include "tests/unit/core_fake.h"

#include "utils/base/prng.h"

#define MB (1ull << 20)
#define GB (1ull << 30)

typedef unsigned long long ull;

struct alw {
	struct fake_core *f;
	struct csvfs *fs;
	struct csv_prng rnd;
	struct alloc_resv r;
};

/* fn runs as a coroutine, its argument is the struct alw. */
void alw_run(uint64_t bytes, uint32_t slots, void (*fn)(void *arg));
/* One reservation, one take, one transaction. */
int alw_take(struct alw *w, uint64_t hint, uint32_t want, enum csv_blk_state st, uint64_t *ret_blk, uint32_t *ret_len);
int alw_give(struct alw *w, uint64_t blk, uint32_t len, enum csv_blk_state st);

#endif
