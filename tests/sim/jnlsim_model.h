/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jnlsim_model.h - what the journal promises, as a model of all that was ever written, and the check of a device image.
 *
 * Test blocks belong to owners (a lock each).  Block 0 of an owner is its anchor: it says of the others whether they are metadata
 * (and in which life) or free, in which case a file's data may lie there.  Every change of a block makes a *version*, with the
 * version it was made from as its parent; a transaction is a set of versions.
 *
 * Of any image of the device, after replay of all active journals:
 *  - every block that the history says is metadata passes its check and is one known version, whole;
 *  - of each transaction all versions are in the history of what is there, or none (atomicity);
 *  - of each transaction that was durable when the image was taken, all are;
 *  - data that was flushed into a freed block, and is still what that block holds, is untouched.
 */
#ifndef CSVFS_TESTS_SIM_JNLSIM_MODEL_H
#define CSVFS_TESTS_SIM_JNLSIM_MODEL_H

#include "csvfs/csvfs_format.h"
#include "tests/sim/sim_store.h"

#define JM_OWNERS 10u
#define JM_PER 5u			/* blocks of an owner, the anchor first */
#define JM_BLOCKS (JM_OWNERS * JM_PER)
#define JM_TXN_MAX 16u
#define JM_NODES 3u
#define JM_NEVER UINT32_MAX

/* layout of the device */
#define JM_SLOT_BLK(slot) (32u + (slot))
#define JM_JNL_LEN 64u
#define JM_JNL_BLK(slot) (64u + (slot) * JM_JNL_LEN)
#define JM_DATA 512u
#define JM_TOTAL 1024u
#define JM_BLK(b) (JM_DATA + 7u * (b))	/* home of block b */

/* Content behind the header. */
struct jm_content {
	struct le64 version;
	struct { struct le32 life, freed; } of[JM_PER];		/* anchors */
};
#define JM_TAIL (CSV_BLOCK_SIZE - 8)

struct jm_ver { uint32_t parent, b, life; };
struct jm_life { uint32_t b, final_ver, free_ver; uint64_t gen; uint32_t data_at; uint64_t data; };
struct jm_txn { uint32_t n, v[JM_TXN_MAX], begin_at, durable_at; };

struct jm {
	struct jm_ver *ver;
	struct jm_life *life;
	struct jm_txn *txn;
	uint32_t n_ver, n_life, n_txn;
	uint8_t uuid[16];
	struct clock clk;		/* for the replays of images */
	struct sched *sched;
};

void jm_init(struct jm *m);
void jm_done(struct jm *m);
uint32_t jm_ver_new(struct jm *m, uint32_t b, uint32_t parent, uint32_t life);
uint32_t jm_life_new(struct jm *m, uint32_t b, uint64_t gen);
uint32_t jm_txn_new(struct jm *m, uint32_t begin_at);
void jm_data_fill(void *block, uint64_t data);		/* what a file's data looks like */
static inline struct csv_owner jm_owner(uint32_t b)
{
	return (struct csv_owner){ CSV_OWN_INODE, 100 + b / JM_PER };
}

/* A fresh volume: all blocks metadata in their first life, slots free. */
void jm_mkfs(struct jm *m, struct sim_store *s);
void jm_slot_fill(const struct jm *m, void *block, uint32_t slot, bool active, uint64_t incarnation);

/* Replays every active journal of the image and checks it.  `at`: when it was taken (effects).  false: text says why. */
bool jm_check(const struct jm *m, struct sim_store *image, uint32_t at, char *text, size_t size);

#endif
