/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * btree_world.h - for the unit tests of the B+tree: a tree in an inode of its own, on fake cache, locks and journal (core_fake.h), and the
 * sorted array that it must equal.
 */
#ifndef CSVFS_TESTS_UNIT_BTREE_WORLD_H
#define CSVFS_TESTS_UNIT_BTREE_WORLD_H

#include "tests/unit/core_fake.h"

#include "csvfs/btree_internal.h"
#include "utils/base/prng.h"

#define MB (1ull << 20)

struct btw {
	struct fake_core *f;
	struct csv_prng rnd;
	struct buf *root;
	struct btree t;
	struct alloc_resv resv;
	int64_t blocks;
	uint32_t max_credit_use;	/* most of what bt_credits() promised, in percent */
	/* the model */
	uint64_t *key;
	uint32_t *len;
	uint8_t *fill;			/* value = len bytes of this */
	uint32_t n, max;
};

struct btw_op { uint64_t key; uint32_t len; uint8_t fill; int what; };
enum { OP_INSERT, OP_REPLACE, OP_DELETE };

void btw_init(struct btw *w, uint64_t seed, enum csv_bt_kind kind, uint64_t dev_bytes);
/* In a coroutine. */
void btw_open(struct btw *w);
void btw_done(struct btw *w);

/* The model: where a key is or belongs. */
uint32_t btw_find(const struct btw *w, uint64_t key);
void btw_insert(struct btw *w, uint32_t i, uint64_t key, uint32_t len, uint8_t fill);
void btw_delete(struct btw *w, uint32_t i);

/* One change with exactly the room that was asked for; fake_core counts. */
int btw_run_op(struct btw *w, const struct btw_op *o);
/* Random ones, on tree and model. */
void btw_random_ops(struct btw *w, uint32_t ops, uint64_t key_space, uint32_t len_max, uint32_t check_every);
/* Deletes everything. */
void btw_empty(struct btw *w);

/* Every node by itself, and the whole against the model. */
void btw_check(struct btw *w);
uint32_t btw_depth(const struct btw *w);

#endif
