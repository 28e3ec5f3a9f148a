/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * journal: a crash at any request, of the journal or of a replay, leaves what was committed.
 */
#include "tests/unit/jnl_crash.h"

#define PAIRS 12u

struct load { uint64_t put[PAIRS], durable[PAIRS]; bool failed; unsigned steps; };

/* Pairs of blocks always change together, the values of a pair rise: whatever is found must be a pair. */
static void pair_load(struct jf *f, void *arg)
{
	struct load *l = arg;
	struct csv_prng p;

	csv_prng_init(&p, 3);
	for (unsigned i = 0; i < 120 && !l->failed; i++) {
		unsigned k = csv_prng_below(&p, PAIRS);
		struct csv_owner o = tb[2 * k].jb.owner;
		struct jnl_handle h;
		int r = jnl_begin(f->j, 2, 0, &h);

		if (!r) {
			jnl_dirty(&h, &tb[2 * k].jb);
			tb_set(&tb[2 * k], i + 1);
			jnl_dirty(&h, &tb[2 * k + 1].jb);
			tb_set(&tb[2 * k + 1], i + 1);
			l->put[k] = i + 1;
			jnl_end(&h);
			switch (csv_prng_below(&p, 8)) {
			case 0: case 1:
				r = jnl_commit(f->j, 0);
				for (unsigned n = 0; n < PAIRS && !r; n++)
					l->durable[n] = l->put[n];
				break;
			case 2:
				r = jnl_release(f->j, &o, 1);
				if (!r)
					l->durable[k] = l->put[k];
				break;
			case 3:
				r = jnl_checkpoint(f->j, csv_prng_below(&p, 20));
				break;
			}
		}
		if (r < 0) {
			ck_assert_int_eq(r, -CSV_E_WITHDRAWN);
			l->failed = true;
		}
		l->steps++;
	}
}

static void pairs_init(void)
{
	for (unsigned i = 0; i < 2 * PAIRS; i++)
		tb_init(&tb[i], 2000 + 17 * i % 64, jf_inode(i / 2), 1);
}

static uint64_t zero_if_none(uint64_t v)
{
	return v == UINT64_MAX ? 0 : v;
}

static void pairs_check(struct jf *f, const struct load *l, unsigned k)
{
	for (unsigned n = 0; n < PAIRS; n++) {
		uint64_t a = zero_if_none(jf_home_value(f, tb[2 * n].jb.blkno));
		uint64_t b = zero_if_none(jf_home_value(f, tb[2 * n + 1].jb.blkno));

		ck_assert_msg(a == b, "failure %u: pair %u is torn: %" PRIu64 " and %" PRIu64, k, n, a, b);
		ck_assert_msg(a >= l->durable[n] && a <= l->put[n], "failure %u: pair %u has %" PRIu64 ", committed %" PRIu64
			      ", last written %" PRIu64, k, n, a, l->durable[n], l->put[n]);
	}
}

START_TEST(whichever_request_fails_committed_transactions_survive_whole)
{
	unsigned k;

	for (k = 1; ; k++) {
		struct jf *f = jf_new(64);
		struct load l = { .failed = false };

		pairs_init();
		mem_blk_fail_at(f->blk, k, -EIO);
		jf_run(f, pair_load, &l);
		ck_assert_uint_eq(f->failed, l.failed);
		mem_blk_fail_at(f->blk, 0, 0);
		crash(f);
		REPLAY_OK(f);
		pairs_check(f, &l, k);
		jf_free(f);
		if (!l.failed)
			break;
	}
	printf("%u requests failed one by one\n", k - 1);
	ck_assert_uint_gt(k, 150);
}
END_TEST

START_TEST(whichever_request_of_a_replay_fails_the_next_replay_completes_it)
{
	struct jf *f = jf_new(64);
	struct load l = { .failed = false };
	void *before, *after;
	unsigned k;

	pairs_init();
	jf_run(f, pair_load, &l);
	crash(f);
	before = snapshot(f);
	ck_assert_uint_gt(REPLAY_OK(f).blocks_written, 0);
	after = snapshot(f);
	for (k = 1; ; k++) {
		struct rep p;

		restore(f, before);
		mem_blk_fail_at(f->blk, k, -EIO);
		p = replay(f);
		mem_blk_fail_at(f->blk, 0, 0);
		if (!p.r)
			break;
		ck_assert_int_eq(p.r, -EIO);
		ck_assert_msg(!strncmp(p.err.text, "journal 3: ", 11), "%s", p.err.text);
		REPLAY_OK(f);
		ck_assert(device_is(f, after));
	}
	ck_assert_uint_gt(k, 5);
	free(before);
	free(after);
	jf_free(f);
}
END_TEST

UNIT_MAIN("jnl_crash", UNIT_TEST(whichever_request_fails_committed_transactions_survive_whole),
	  UNIT_TEST(whichever_request_of_a_replay_fails_the_next_replay_completes_it))
