/*
 * journal.h - redo log of whole metadata blocks, one per slot, circular, group commit.
 *
 * All calls on the control thread, from coroutines where they say "awaits".  Pure: disk through struct blk.
 * The journal is blind to locks; csvfs/glock.c calls jnl_release() before a lock leaves the node.
 *
 * Invariants (R17, R18, R2; checked in the simulator)
 *  J1  A transaction that publishes data (new extent, unwritten->written, size) is submitted after a FLUSH begun after its
 *      data writes completed.  Pure metadata needs one FLUSH.
 *  J2  Each commit record carries sequence, incarnation, tail and `stable` (highest sequence known flushed).  Replay ends at
 *      the first bad record s; that is an error only if a valid record of this incarnation has stable >= s.
 *  J3  No in-place write before the FLUSH of its commit.
 *  J4  The tail moves only after a FLUSH following the in-place writes.
 *  J5  What is logged or written in place is a copy sealed at commit: the running transaction may change a block meanwhile.
 *  J6  A block is in at most one running and one committing transaction; its home is written from the last committed copy.
 *  J7  Replay writes a block only if no later revoke exists and the block at home fails its whole-block crc or has a
 *      lower (generation, seq).  Replaying twice equals replaying once.
 *  J8  Revokes: a freed metadata block's revoke is in the freeing transaction; a revoke cancels copies with a lower log
 *      sequence only.  Room for the revokes of a release is reserved up front: a release never waits for log space.
 *  J9  A failed write or FLUSH ends the journal: failed() once, every later call answers -CSV_E_WITHDRAWN.
 */
#ifndef CSVFS_JOURNAL_JOURNAL_H
#define CSVFS_JOURNAL_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <urcu/list.h>

#include "csvfs/csvfs_format.h"
#include "utils/base/err.h"
#include "utils/env/blk.h"
#include "utils/env/log.h"
#include "utils/env/sched.h"

struct jnl;
struct jnl_txn;				/* one running compound transaction; handles join it */

/*
 * The journal's part of a cached metadata block; embedded in struct buf (csvfs/buf.h).
 * `data` is the live 4 KiB image with a struct csv_mhdr in front; the journal raises mhdr.seq at commit and seals the crc
 * of its own copy.  The cache must keep the buffer while jnl_buf_busy().
 */
struct jnl_buf {
	uint64_t blkno;
	void *data;
	struct csv_owner owner;		/* the resource (type, id) whose lock covers this block */
	/* the journal's own */
	struct jnl_txn *running;
	struct jnl_txn *committing;
	struct jnl_rec *sealed;		/* its copy in the committing transaction, else NULL */
	struct jnl_rec *logged;		/* last committed copy not yet home, else NULL */
	struct cds_list_head run_node;
	/* Called when the last reason for being busy is gone.  Never inside a call of the user. */
	void (*clean)(struct jnl_buf *b);
};
void jnl_buf_init(struct jnl_buf *b, uint64_t blkno, void *data, struct csv_owner owner);
bool jnl_buf_busy(const struct jnl_buf *b);	/* dirty in some transaction or not yet home */

struct jnl_geometry {
	uint8_t uuid[16];
	uint32_t slot;
	uint64_t start_blk;		/* first block on the device */
	uint32_t len_blk;
	uint64_t incarnation;		/* of the slot's present life */
};

struct jnl_config {
	struct sched *sched;
	struct blk *blk;
	struct logger *log;
	void (*failed)(void *arg, int err, const char *what);	/* J9; once, from the run queue */
	void *arg;
	uint32_t commit_interval_ms;	/* background commit of a running transaction; default 5000 */
	/* Test mutations, all false in production; each removes one guard and must be caught by the simulator. */
	bool mutate_no_revoke_on_release, mutate_home_before_flush;
};

/*
 * Writes an empty log for this incarnation (awaits; flushed).  Used by mkfs and by whoever takes a slot: under slot EX, of a FREE
 * slot, *before* the slot's state names the incarnation.  So the log of an ACTIVE slot is always of the slot's incarnation.
 */
int jnl_format(struct blk *blk, const struct jnl_geometry *g, struct csv_err *err);
/* Opens an empty log; -CSV_E_CORRUPT when it is not empty (replay first) or of another incarnation. Awaits. */
int jnl_open(const struct jnl_config *cfg, const struct jnl_geometry *g, struct jnl **ret_jnl, struct csv_err *err);
/*
 * Commits, writes everything home, leaves an empty log (awaits); no handle may be open.  On a failed journal it only waits until
 * nothing of it runs any more and answers -CSV_E_WITHDRAWN.  After it jnl_free().
 */
int jnl_shutdown(struct jnl *j);
/*
 * Drops everything, as a crash would, without touching the user's buffers.  After jnl_shutdown(), or directly before
 * sched_free() (the journal's coroutines must never run again).  NULL allowed.
 */
void jnl_free(struct jnl *j);

/* ---- transactions (handles) ------------------------------------------------------------------------------------ */

struct jnl_handle { struct jnl *j; struct jnl_txn *txn; uint32_t blocks_left, revokes_left; };

/*
 * Joins the running transaction, with room for `blocks` distinct blocks and `revokes`.  Awaits log space before, never
 * inside.  0, -CSV_E_WITHDRAWN, -E2BIG (would never fit: > a quarter of the log; split the operation by an intent).
 */
int jnl_begin(struct jnl *j, uint32_t blocks, uint32_t revokes, struct jnl_handle *ret_h);
/* The caller is about to change b->data (b covered by an exclusive lock).  Uses one block of room the first time. */
void jnl_dirty(struct jnl_handle *h, struct jnl_buf *b);
/* b is freed: its pending copies die, a revoke is logged.  The buffer is clean for the cache afterwards. */
void jnl_revoke(struct jnl_handle *h, struct jnl_buf *b);
/* This transaction makes data visible that was written by completed but maybe unflushed writes (J1). */
void jnl_publishes_data(struct jnl_handle *h);
/* Called when the transaction's commit is durable, or with <0 when it never will be (busy blocks of R19, and the like). */
struct jnl_on_commit { struct cds_list_head node; void (*fn)(struct jnl_on_commit *c, int status); };
void jnl_on_commit(struct jnl_handle *h, struct jnl_on_commit *c);
/* Ends the handle.  Returns the sequence number of its transaction, for jnl_commit(). Never fails, never awaits. */
uint64_t jnl_end(struct jnl_handle *h);

/* ---- durability --------------------------------------------------------------------------------------------------- */

/* Awaits until transaction `seq` (0: the running one) is committed and flushed. One flush for any number of callers. */
int jnl_commit(struct jnl *j, uint64_t seq);
/* Highest sequence that is durable. */
uint64_t jnl_stable_seq(const struct jnl *j);
/*
 * Before the lock of these owners leaves (R2), batched: commit + FLUSH -> homes of their blocks + FLUSH -> revokes of those
 * blocks committed + FLUSH.  After it none of their blocks is busy and no replay of this log can touch them.  Awaits.
 * No handle may be open for these owners.  Owners with nothing busy cost nothing.
 */
int jnl_release(struct jnl *j, const struct csv_owner *owner, uint32_t n);
/* Writes homes and moves the tail until at most `keep_blk` blocks of log are used.  Awaits. */
int jnl_checkpoint(struct jnl *j, uint32_t keep_blk);
bool jnl_owner_busy(struct jnl *j, struct csv_owner owner);
bool jnl_is_empty(const struct jnl *j);

struct jnl_stats { uint64_t commits, commit_blocks, handles, revokes, flushes, releases, checkpoints, commit_ns_last, stalls; uint32_t used_blk, len_blk; };
void jnl_stats(const struct jnl *j, struct jnl_stats *ret);

/* ---- replay --------------------------------------------------------------------------------------------------------- */

/* Where replayed blocks come from and go to: the device, or an overlay in memory for the checker. Both await. */
struct jnl_home {
	int (*read)(struct jnl_home *h, uint64_t blkno, void *buf);
	int (*write)(struct jnl_home *h, uint64_t blkno, const void *buf);
};
struct jnl_replay_stats { uint32_t records, blocks_seen, blocks_written, revokes, skipped_newer, skipped_revoked; uint64_t first_seq, last_seq; };
/* Reads and checks the header alone (dump, checker); any incarnation.  Awaits. */
struct jnl_info { uint64_t incarnation, first_seq; uint32_t tail_blk; };
int jnl_inspect(struct blk *blk, const struct jnl_geometry *g, struct jnl_info *ret_info, struct csv_err *err);

/*
 * Two passes, idempotent (J7).  Reads the log from `blk`; homes through `home` (NULL: straight to blk, flushed at the end).
 * Every number in the log is checked before use: `total_blk` bounds homes, blocks inside [sys_start, sys_end) of the system
 * area are refused.  -CSV_E_CORRUPT with err naming record and field; 0 with an empty log: nothing to do.
 * For ACTIVE slots only: a FREE one has nothing to replay, and its log may be of any life.  The log itself is not changed.
 */
struct jnl_replay_limits { uint64_t total_blk; uint64_t data_start_blk; uint64_t extra_first_blk, extra_last_blk; /* orphan inodes etc. */ };
int jnl_replay(struct blk *blk, const struct jnl_geometry *g, const struct jnl_replay_limits *lim, struct jnl_home *home,
	       struct jnl_replay_stats *ret_stats, struct csv_err *err);

#endif
