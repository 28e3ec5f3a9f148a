/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jnl_crash.h - what the tests of replay share: the journal dies where it stands, its log is replayed, the device looked at.
 */
#ifndef CSVFS_TESTS_UNIT_JNL_CRASH_H
#define CSVFS_TESTS_UNIT_JNL_CRASH_H

#include "tests/unit/jnl_fake.h"

static const struct jnl_replay_limits limits = { .total_blk = JF_BLOCKS, .data_start_blk = JF_DATA };

struct rep { int r; struct jnl_replay_stats st; struct csv_err err; struct jnl_replay_limits lim; };

static inline void replay_coro(struct jf *f, void *arg)
{
	struct rep *p = arg;

	p->r = jnl_replay(f->blk, &f->g, p->lim.total_blk ? &p->lim : &limits, NULL, &p->st, &p->err);
}

static inline struct rep replay(struct jf *f)
{
	struct rep p = { .r = 1 };

	jf_run(f, replay_coro, &p);
	return p;
}

#define REPLAY_OK(f)                                                                               \
	({                                                                                         \
		struct rep p_ = replay(f);                                                         \
		ck_assert_msg(!p_.r, "replay: %s", p_.err.text);                                   \
		p_.st;                                                                             \
	})

/* The journal dies where it stands; the device stays. */
static inline void crash(struct jf *f)
{
	jnl_free(f->j);
	f->j = NULL;
}

static inline void *snapshot(struct jf *f)
{
	void *p = malloc((size_t)JF_BLOCKS * CSV_BLOCK_SIZE);

	memcpy(p, mem_blk_data(f->blk), (size_t)JF_BLOCKS * CSV_BLOCK_SIZE);
	return p;
}

static inline void restore(struct jf *f, const void *p)
{
	memcpy(mem_blk_data(f->blk), p, (size_t)JF_BLOCKS * CSV_BLOCK_SIZE);
}

static inline bool device_is(struct jf *f, const void *p)
{
	return !memcmp(mem_blk_data(f->blk), p, (size_t)JF_BLOCKS * CSV_BLOCK_SIZE);
}

static struct tb tb[64];

static inline void tbs_init(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		tb_init(&tb[i], 2000 + i, jf_inode(i), 1);
}

/* Blocks 0..n-1 get value v, each in a record of its own. */
static inline void put_each(struct jf *f, void *arg)
{
	unsigned n = (uintptr_t)arg;

	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(jnl_commit(f->j, jf_put(f, &tb[i], 100 + i)), 0);
}

/* Record i of put_each(): descriptor, image, commit at log blocks 1+3i.. */
#define REC_BLK(i) (JF_JNL + 1u + 3u * (i))

static inline void free_block(struct jf *f, void *arg)
{
	struct tb *b = arg;
	struct jnl_handle h;

	ck_assert_int_eq(jnl_begin(f->j, 1, 1, &h), 0);
	jnl_revoke(&h, &b->jb);
	ck_assert(!jnl_buf_busy(&b->jb));
	jnl_dirty(&h, &tb[60].jb);		/* the bitmap, say */
	tb_set(&tb[60], 777);
	ck_assert_int_eq(jnl_commit(f->j, jnl_end(&h)), 0);
}

#endif
