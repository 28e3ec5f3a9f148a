/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jnl_fake.h - what the journal's unit tests share: a small volume in memory with one journal, test blocks, and a recorder of
 * requests.  Homes are blocks JF_DATA.. ; a test block carries one number behind its header.
 */
#ifndef CSVFS_TESTS_UNIT_JNL_FAKE_H
#define CSVFS_TESTS_UNIT_JNL_FAKE_H

#include "tests/unit/unit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "journal/journal.h"
#include "journal/mhdr.h"
#include "tests/unit/env_fake.h"
#include "utils/base/crc32c.h"
#include "utils/base/prng.h"
#include "utils/env/sync_blk.h"

#define JF_BLOCKS 4096u
#define JF_JNL 64u		/* where the journal begins */
#define JF_DATA 1024u
#define JF_OPS_MAX 65536

struct jf_op { enum blk_op op; uint64_t blkno; uint32_t nblk; };

struct jf {
	struct fake_clock clk;
	struct sched *s;
	struct blk *blk;
	struct jnl *j;
	struct jnl_geometry g;
	struct jnl_config cfg;
	unsigned failed;		/* calls of failed() */
	int failed_err;
	char failed_what[200];
	struct jf_op *op;
	unsigned n_ops;
};

struct tb {
	struct jnl_buf jb;		/* first: tests cast */
	unsigned cleaned;
	uint8_t data[CSV_BLOCK_SIZE] __attribute__((aligned(8)));
};

static inline void jf_failed(void *arg, int err, const char *what)
{
	struct jf *f = arg;

	f->failed++;
	f->failed_err = err;
	snprintf(f->failed_what, sizeof(f->failed_what), "%s", what);
}

static inline void jf_hook(void *arg, const struct blk_req *r)
{
	struct jf *f = arg;

	if (f->n_ops < JF_OPS_MAX)
		f->op[f->n_ops++] = (struct jf_op){ r->op, r->off / CSV_BLOCK_SIZE, r->len / CSV_BLOCK_SIZE };
}

/* Runs fn as a coroutine until nothing is left to do (timers excepted). */
struct jf_call { void (*fn)(struct jf *f, void *arg); struct jf *f; void *arg; bool done; };
static inline void jf_call_main(void *arg)
{
	struct jf_call *c = arg;

	c->fn(c->f, c->arg);
	c->done = true;
}
static inline void jf_run(struct jf *f, void (*fn)(struct jf *f, void *arg), void *arg)
{
	struct jf_call c = { fn, f, arg, false };

	ck_assert_int_eq(sched_spawn(f->s, "test", jf_call_main, &c), 0);
	sched_run(f->s);
	ck_assert_msg(c.done, "the test's coroutine hangs");
}

static inline void jf_open_coro(struct jf *f, void *arg)
{
	struct csv_err err = CSV_ERR_INIT;
	int r;

	(void)arg;
	r = jnl_format(f->blk, &f->g, &err);
	ck_assert_msg(!r, "format: %s", err.text);
	r = jnl_open(&f->cfg, &f->g, &f->j, &err);
	ck_assert_msg(!r, "open: %s", err.text);
}

/* Formats and opens a journal of len_blk blocks. */
static inline struct jf *jf_new(uint32_t len_blk)
{
	struct jf *f = calloc(1, sizeof(*f));

	fake_clock_init(&f->clk);
	f->s = sched_new(&f->clk.clock);
	ck_assert_int_eq(mem_blk_new(f->s, (uint64_t)JF_BLOCKS * CSV_BLOCK_SIZE, 4096, &f->blk), 0);
	f->op = calloc(JF_OPS_MAX, sizeof(*f->op));
	f->g = (struct jnl_geometry){ .uuid = "0123456789abcde", .slot = 3, .start_blk = JF_JNL, .len_blk = len_blk, .incarnation = 7 };
	f->cfg = (struct jnl_config){ .sched = f->s, .blk = f->blk, .failed = jf_failed, .arg = f };
	jf_run(f, jf_open_coro, NULL);
	mem_blk_set_hook(f->blk, jf_hook, f);
	return f;
}

static inline void jf_free(struct jf *f)
{
	jnl_free(f->j);
	blk_close(f->blk);
	sched_free(f->s);
	free(f->op);
	free(f);
}

static inline uint8_t *jf_home(struct jf *f, uint64_t blkno)
{
	return mem_blk_data(f->blk) + blkno * CSV_BLOCK_SIZE;
}

static inline struct csv_owner jf_inode(uint64_t id)
{
	return (struct csv_owner){ CSV_OWN_INODE, id };
}

static inline void tb_clean(struct jnl_buf *b)
{
	container_of(b, struct tb, jb)->cleaned++;
}

static inline void tb_init(struct tb *b, uint64_t blkno, struct csv_owner owner, uint64_t generation)
{
	memset(b, 0, sizeof(*b));
	mhdr_init(b->data, CSV_MAGIC_INODE, blkno, generation, owner);
	jnl_buf_init(&b->jb, blkno, b->data, owner);
	b->jb.clean = tb_clean;
}

static inline void tb_set(struct tb *b, uint64_t value)
{
	le64_set((struct le64 *)(b->data + 64), value);
	le64_set((struct le64 *)(b->data + CSV_BLOCK_SIZE - 8), value);
}

static inline uint64_t tb_value(const void *block)
{
	return le64_get(*(const struct le64 *)((const uint8_t *)block + 64));
}

/* The value at home; UINT64_MAX when the block there does not pass its check. */
static inline uint64_t jf_home_value(struct jf *f, uint64_t blkno)
{
	const uint8_t *p = jf_home(f, blkno);

	if (mhdr_check(p, f->g.uuid, CSV_MAGIC_INODE, blkno, NULL, NULL))
		return UINT64_MAX;
	ck_assert_uint_eq(tb_value(p), le64_get(*(const struct le64 *)(p + CSV_BLOCK_SIZE - 8)));
	return tb_value(p);
}

/* One transaction that sets one block; its sequence. */
static inline uint64_t jf_put(struct jf *f, struct tb *b, uint64_t value)
{
	struct jnl_handle h;

	ck_assert_int_eq(jnl_begin(f->j, 1, 0, &h), 0);
	jnl_dirty(&h, &b->jb);
	tb_set(b, value);
	return jnl_end(&h);
}

#endif
