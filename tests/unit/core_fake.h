/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * core_fake.h - a csvfs core of fakes below the B+tree and the allocator: block cache, group locks and transactions in memory.
 *
 * What it checks, always: a block is changed only pinned and under its owner's lock inside a transaction that has room for it
 * (credits are counted), revokes are counted, a freed block is not pinned elsewhere, every pin is put, locks are in order.
 * What it can do: fail the k-th read, allocation of memory for a block, or lock; say that other nodes hold a group; evict the cache;
 * commit, or leave transactions uncommitted; take a lock away in the order of a release.
 *
 * Everything runs in coroutines of a real scheduler: fake_run().
 */
#ifndef CSVFS_TESTS_UNIT_CORE_FAKE_H
#define CSVFS_TESTS_UNIT_CORE_FAKE_H

#include "csvfs/alloc_internal.h"
#include "csvfs/btree.h"
#include "csvfs/csvfs_internal.h"
#include "csvfs/mkfs.h"
#include "tests/unit/env_fake.h"
#include "utils/env/sync_blk.h"

#define FAKE_HASH 65536u

struct fake_lock {
	struct glock gl;
	unsigned holders;
	bool held_elsewhere;		/* NOQUEUE and LOCAL_ONLY refuse it */
	bool lvb_valid;
	uint8_t lvb[DLM_LVB_LEN];	/* the resource's */
	struct fake_lock *next;
	uint64_t grants;
};

/* Handles join the running one until fake_commit_all(); the counters are of the handle that is open. */
struct fake_txn {
	uint32_t blocks, revokes, used_blocks, used_revokes;
	bool open;
	struct cds_list_head on_commit;
	uint64_t *dirty;
	uint32_t n_dirty, max_dirty;
};

struct fake_core {
	struct fake_clock clock;
	struct sched *sched;
	struct env env;
	struct csvfs fs;
	struct buf *hash[FAKE_HASH];
	struct fake_lock *lock[FAKE_HASH];
	struct fake_txn *running;	/* NULL: none */
	uint64_t n_bufs, n_pins, n_reads, n_locks_asked, n_commits;
	uint32_t peak_blocks, peak_revokes;	/* of the latest transaction */
	/* faults: the k-th from now, 0: none */
	uint64_t fail_read, fail_new, fail_lock, fail_commit;
	uint64_t faults;		/* that hit */
	uint32_t log_lines;
	char log_last[512];
	struct logger logger;
};

/* A volume made by csvfs_mkfs() on a memory device. */
struct fake_core *fake_core_new(uint64_t dev_bytes, uint32_t slots);
/* On a device and geometry of the caller's. */
struct fake_core *fake_core_new_on(struct blk *(*make)(struct sched *s, void *arg), void *arg, const struct csv_geom *geo);
void fake_core_free(struct fake_core *f);	/* checks that nothing is pinned */
void fake_run(struct fake_core *f, void (*fn)(void *arg), void *arg);

void fake_begin(struct fake_core *f, uint32_t blocks, uint32_t revokes, struct jnl_handle *ret_h);
void fake_end(struct fake_core *f, struct jnl_handle *h);
void fake_commit_all(struct fake_core *f);
/* Drops clean and unpinned blocks; dirty ones are written to the device first (as after a checkpoint). */
void fake_evict(struct fake_core *f);
struct fake_lock *fake_lock_of(struct fake_core *f, struct csv_owner o);
/* Somebody else asks for it: release order of a glock, then NL. */
void fake_release(struct fake_core *f, struct fake_lock *l);
struct buf *fake_buf_find(struct fake_core *f, uint64_t blkno);

#endif
