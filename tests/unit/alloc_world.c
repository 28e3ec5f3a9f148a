/* SPDX-License-Identifier: GPL-2.0-only */
/* alloc_world.c - a volume, one reservation, one block or run at a time. */
#include "tests/unit/alloc_world.h"

void alw_run(uint64_t bytes, uint32_t slots, void (*fn)(void *arg))
{
	struct alw w = { .f = fake_core_new(bytes, slots) };

	w.fs = &w.f->fs;
	csv_prng_init(&w.rnd, 42);
	alloc_resv_init(w.fs, &w.r);
	fake_run(w.f, fn, &w);
	fake_core_free(w.f);
}

int alw_take(struct alw *w, uint64_t hint, uint32_t want, enum csv_blk_state st, uint64_t *ret_blk, uint32_t *ret_len)
{
	struct jnl_handle h;
	uint64_t gen = 0;
	int rc = alloc_reserve(&w->r, hint, want, 1, false);

	if (!rc) {
		fake_begin(w->f, alloc_credits(&w->r, 1), 0, &h);
		rc = alloc_take(&w->r, &h, hint, want, st, ret_blk, ret_len, &gen);
		fake_end(w->f, &h);
	}
	alloc_resv_done(&w->r);
	return rc;
}

int alw_give(struct alw *w, uint64_t blk, uint32_t len, enum csv_blk_state st)
{
	uint32_t group = alloc_group_of(w->fs, blk);
	struct jnl_handle h;
	int rc = alloc_lock_groups(&w->r, &group, 1);

	if (!rc) {
		fake_begin(w->f, alloc_credits(&w->r, 1), 0, &h);
		rc = alloc_give(&w->r, &h, blk, len, st);
		fake_end(w->f, &h);
	}
	alloc_resv_done(&w->r);
	return rc;
}
