/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jnl_internal.h - the inside of the journal (journal.h has the invariants J1..J9).
 *
 *	running txn --close, last handle ends, seal--> committing txn + record --write, FLUSH--> record in `records`
 *
 *  log:	1 ........................................................ len-1 (circular)
 *		      ^hdr tail        ^logical tail           ^head
 *		      |-- home already --|-- some block not home --|   free
 *
 * A jnl_rec is one copy of a block in the log.  At any time at most one of a block is in the table (`rec_hash`): the last
 * durable one, home or not, as long as a replay could reach it; and at most one is sealed in the committing transaction.
 *
 * Internal invariants
 *  I1  used = blocks from the header's tail to head; a record is written only into what is not used (the header on disk, flushed,
 *      never points at overwritten space).
 *  I2  used + room of the running transaction + reserve for a release's revokes <= capacity: made sure in jnl_begin(), so that
 *      neither a commit nor a release waits for log space.
 *  I3  start_seq: a replay applies no record below it (header, or tail in the last durable commit).  A rec leaves the table when
 *      its record falls below start_seq, when a newer copy is durable, or when its revoke is durable; never before.
 *  I4  rec.writing from the submission of its home write until the FLUSH after it; meanwhile neither the rec nor its image goes, and
 *      neither a newer copy nor a revoke of it becomes durable for the users (a late home write would overwrite a new life).
 *  I5  The space worker waits for a commit only while no rec is `writing`.  The commit worker waits for handles and block I/O.
 */
#ifndef CSVFS_JOURNAL_JNL_INTERNAL_H
#define CSVFS_JOURNAL_JNL_INTERNAL_H

#include <urcu/hlist.h>

#include "journal/journal.h"
#include "journal/mhdr.h"

#define JNL_LEVEL 1u
#define JNL_LEN_MIN 32u
#define JNL_LEN_MAX (1u << 20)		/* 4 GiB */
#define JNL_SEQ_MAX (1ull << 62)
#define JNL_WAVE 64u			/* requests in flight at once */
#define JNL_PIECE_BLK 256u		/* blocks of one request: 1 MiB */

struct jnl_record {
	struct cds_list_head node;	/* j->records, oldest first */
	struct cds_list_head recs;	/* copies in this record that are still in the table */
	uint64_t seq;
	uint32_t pos, nblk;
	uint32_t live;			/* copies not home; +1 while it is committing */
	void *buf;			/* the whole record; freed when live falls to 0 */
};

struct jnl_own {
	struct cds_hlist_node hash;
	struct cds_list_head recs;
	struct cds_list_head touch_node;	/* owners of the newest transaction that touched it */
	struct csv_owner owner;
	uint64_t last_seq;		/* newest transaction that changed or freed a block of it */
	unsigned releasing;
};

struct jnl_rec {
	struct cds_hlist_node hash;
	struct cds_list_head record_node, own_node, rev_node;
	struct jnl_record *record;
	struct jnl_own *own;
	struct jnl_buf *b;		/* NULL: evicted, freed, or home */
	struct jnl_txn *revoked_in;	/* not durable yet */
	struct csv_owner owner;
	uint64_t blkno, generation, seq;
	void *image;			/* in record->buf; NULL when home */
	bool writing;
};

struct jnl_txn {
	uint64_t seq;
	struct cds_list_head bufs;	/* jnl_buf.run_node */
	struct cds_list_head revokes;	/* jnl_rec.rev_node */
	struct cds_list_head callbacks;	/* jnl_on_commit.node */
	struct cds_list_head owners;	/* jnl_own.touch_node */
	uint32_t n_bufs, n_revokes;
	uint32_t room_blocks, room_revokes;	/* used and promised */
	uint32_t handles;
	bool closed, publishes;
};

struct jnl_release_req {
	struct cds_list_head node;
	const struct csv_owner *owner;
	uint32_t n;
	bool done;
	int result;
};

struct jnl {
	struct jnl_config cfg;
	struct jnl_geometry g;
	struct sched *s;
	struct blk *blk;
	uint32_t cap;			/* len_blk - 1 */

	/* log space */
	uint32_t head, hdr_tail, used;
	uint64_t hdr_first_seq, start_seq;
	struct cds_list_head records;
	void *hdr_buf;

	struct jnl_txn *running, *committing;
	struct jnl_record *committing_record;
	uint64_t stable_seq, commit_wanted;
	int err;			/* J9 */

	struct cds_hlist_head *rec_hash, *own_hash;
	uint32_t rec_mask, own_mask, n_recs;
	struct cds_list_head rec_pool, own_pool;
	uint32_t n_rec_pool, n_own_pool, n_own;

	struct co_mutex begin_lock;
	struct waitq begin_wq;		/* the one in jnl_begin(): space, or a new running transaction */
	struct waitq handles_wq;	/* commit worker: last handle of a closed transaction */
	struct waitq stable_wq;		/* stable_seq moved, or failed */
	struct waitq space_wq;		/* the space worker did something, or failed */
	struct waitq writing_wq;	/* some rec stopped writing */
	bool commit_worker, space_worker, shutting_down;
	struct cds_list_head releases;
	uint32_t ckpt_target;		/* UINT32_MAX: none */

	struct timer commit_timer;
	struct job fail_job;
	bool fail_told;
	char fail_text[160];
	struct cds_list_head late_callbacks;	/* registered after the failure */

	struct jnl_stats st;
};

/* ---- jnl_log.c: circular space, header, I/O --------------------------------------------------------------------- */

struct jnl_wave;
struct jnl_io { struct blk_req req; struct jnl_wave *wave; };
/* A group of requests in flight; await with jnl_wave_wait(). */
struct jnl_wave {
	struct blk *blk;
	unsigned n, left;
	int result;			/* the first error */
	struct waitq wq;
	struct jnl_io io[JNL_WAVE];
};
void jnl_wave_init(struct jnl_wave *w, struct blk *blk);
/* Submits; awaits before when JNL_WAVE are in flight. */
void jnl_wave_add(struct jnl_wave *w, enum blk_op op, uint64_t blkno, void *buf, uint32_t nblk);
int jnl_wave_wait(struct jnl_wave *w);

static inline uint32_t jnl_pos_add(uint32_t cap, uint32_t pos, uint32_t n)
{
	return 1 + (pos - 1 + n) % cap;
}
/* Reads or writes nblk log blocks from pos on, wrapping. */
int jnl_log_io(struct blk *blk, const struct jnl_geometry *g, enum blk_op op, uint32_t pos, void *buf, uint32_t nblk);
int jnl_geometry_check(const struct blk *blk, const struct jnl_geometry *g, struct csv_err *err);
/* Checks a header block; -CSV_E_CORRUPT, -CSV_E_UNSUPPORTED.  The incarnation is the caller's to judge. */
int jnl_head_check(const void *block, const struct jnl_geometry *g, struct csv_err *err);
int jnl_flush(struct jnl *j, const char *what);		/* failure ends the journal */
uint32_t jnl_record_blocks(uint32_t images, uint32_t revokes);
uint32_t jnl_release_reserve(uint32_t recs);
/* Where a replay would have to start now. */
void jnl_logical_tail(const struct jnl *j, uint32_t *ret_pos, uint64_t *ret_seq, uint32_t *ret_used);
/* Writes the header with the logical tail, FLUSH, frees the space (J4).  Awaits. */
int jnl_header_advance(struct jnl *j);
/* The journal is over (J9).  Returns -CSV_E_WITHDRAWN. */
int jnl_fail(struct jnl *j, int err, const char *what);

/* ---- jnl_txn.c: recs, owners, transactions ---------------------------------------------------------------------- */

struct jnl_txn *jnl_txn_new(uint64_t seq);
void jnl_txn_free(struct jnl_txn *t);
bool jnl_txn_empty(const struct jnl_txn *t);
struct jnl_rec *jnl_rec_find(struct jnl *j, uint64_t blkno);
struct jnl_rec *jnl_rec_take(struct jnl *j);		/* from the pool: never fails */
void jnl_rec_put(struct jnl *j, struct jnl_rec *r);	/* back to the pool */
/* Out of the table; its record and owner lose it.  Its buffer stops being busy for it. */
void jnl_rec_drop(struct jnl *j, struct jnl_rec *r);
/* Into the table. */
void jnl_rec_insert(struct jnl *j, struct jnl_rec *r);
/* The copy is home and flushed: the buffer may be clean now. */
void jnl_rec_home(struct jnl *j, struct jnl_rec *r);
/* The revoke of r is logged in t. */
void jnl_rec_revoke(struct jnl_txn *t, struct jnl_rec *r);
struct jnl_own *jnl_own_find(struct jnl *j, struct csv_owner o);
/* Transaction t changes or frees a block of o. */
struct jnl_own *jnl_own_touch(struct jnl *j, struct jnl_txn *t, struct csv_owner o);
void jnl_own_tidy(struct jnl *j, struct jnl_own *own);			/* frees it when it holds nothing */
/* Every rec of records below seq leaves the table. */
void jnl_start_advance(struct jnl *j, uint64_t seq);
void jnl_run_callbacks(struct cds_list_head *list, int status);

/* ---- jnl_commit.c, jnl_checkpoint.c ------------------------------------------------------------------------------ */

void jnl_commit_request(struct jnl *j, uint64_t seq);
int jnl_commit_wait(struct jnl *j, uint64_t seq);
void jnl_space_kick(struct jnl *j, uint32_t target_blk);
/* Background checkpoint when the log is more than half full. */
void jnl_space_check(struct jnl *j);

#endif
