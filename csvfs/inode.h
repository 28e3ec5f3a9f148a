/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * inode.h - in-core inodes (internal to csvfs/): attributes of an inode as they are under its lock, and the one way to take them.
 *
 * A struct inode hangs off glock->obj of resource (CSV_OWN_INODE, ino) and lives as long as the glock.  An operation takes it
 * with inode_get(): the lock, the attributes, and (unless only attributes were asked for) the inode's block, pinned.
 *
 * Invariants
 *  IN1 Attributes are believed only while `loaded` is set: since the last grant they came from the block (verified and decoded) or
 *      from a valid value block of the right version and generation.  Losing the lock (to NL) clears it.
 *  IN2 A number is believed to be an inode only when (R29) the caller read it from a directory entry or orphan entry whose lock it
 *      still holds (INODE_TRUSTED), a valid value block of its generation says so, or the bitmap says so; `verified` keeps the
 *      positive answer while the lock is held.
 *  IN3 Attributes change only under EX inside a transaction, and every change is encoded into the block in that transaction
 *      (inode_dirty() before, inode_store() after).  The body (inline data, root of the tree) exists only in the block.
 *  IN4 The value block written when EX leaves says what the block says; for a freed inode, and when nothing was loaded, it says
 *      nothing (version 0).
 *  IN5 A metadata change that fails half way inside a transaction ends in csvfs_withdraw(): it is never committed.
 */
#ifndef CSVFS_CSVFS_INODE_H
#define CSVFS_CSVFS_INODE_H

#include "csvfs/csvfs_internal.h"

struct dp_inode;
struct vraw;

struct inode {
	struct csvfs *fs;
	struct glock *gl;		/* whose obj this is */
	uint64_t ino;

	bool loaded, verified, freed;	/* IN1, IN2, IN4 */
	bool alone;			/* made here, its lock EX ever since: nobody elsewhere has it open */
	uint32_t gen, mode, uid, gid, nlink, flags;
	uint64_t size;			/* bytes; directory: entries */
	int64_t blocks;			/* signed for struct btree */
	int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
	uint64_t change, map_version, parent, rdev;
	uint32_t orphan_slot, project;
	uint32_t body, body_len;	/* known only when `has_body`: a value block does not say */
	bool has_body;

	/* Open handles of this node; while > 0 the glock is referenced, and `open_gh` holds (CSV_OWN_OPEN, ino) PR unless this lock is held (open.c). */
	uint32_t opens;
	struct glock_holder open_gh;
	bool open_held;
	struct co_mutex open_mx;

	/* Written in place under CW: to be stored when EX is held next, at the last close at latest (R25). 0: none. */
	int64_t pending_mtime_ns;
	uint64_t commit_seq;		/* transaction of the last change made here (fsync) */
	uint64_t data_gen, data_flushed;	/* writes to data made here; how many of them a FLUSH covers (fsync) */
	uint64_t hint_blk;		/* directory: where the next inode may go */
	/* Speculative preallocation of this node, in blocks; given back at the last close. */
	uint64_t spec_first, spec_end;

	/* Who uses it how (image.c); while one of the counts is > 0 the glock is referenced. */
	uint32_t plain_writers, raw_opens;
	bool use_held;			/* use_gh holds `use i`: PR for plain writers, CW for the raw view */
	struct glock_holder use_gh;
	struct co_mutex use_mx;

	struct dp_inode *dp;		/* published map (R23), NULL: the data plane knows nothing of it */
	struct dp_inode *dp_raw;	/* the same for the raw view of an image */
	uint64_t raw_size;		/* bytes of the virtual disk while its raw view is in use here, else 0 */
	struct vraw *vraw;		/* and what is known of that disk (vraw.h) */
	struct co_mutex vraw_mx;	/* openers, one at a time */
};

/* One operation's hold on an inode.  Zero-initialised: empty, inode_put() allowed. */
/* (the holder is linked into lists: an iref is filled in place and never copied) */
struct iref { struct inode *ip; struct buf *buf; struct glock_holder gh; };
#define IREF_INIT ((struct iref){ .ip = NULL })

#define INODE_TRUSTED 1u	/* (ino, gen) come from an entry whose lock is held: no bitmap check */
#define INODE_ATTR 2u		/* attributes suffice: ref.buf may be NULL, a value block will do (CR) */
#define INODE_NOQUEUE 4u	/* as GLOCK_NOQUEUE */
#define INODE_NOINTR 8u		/* as GLOCK_NOINTR */

/*
 * Awaits.  gen 0: not compared.  -ESTALE: not an inode, freed, or of another generation.  An orphan (nlink 0) is returned like any
 * other: callers that want a linked one look.
 */
int inode_get(struct csvfs *fs, uint64_t ino, uint32_t gen, enum dlm_mode mode, unsigned flags, struct iref *ret);
/* The same without taking the lock: somebody up the call chain holds it EX.  inode_put() gives only the block back. */
int inode_get_held(struct csvfs *fs, uint64_t ino, struct iref *ret);
struct inode *inode_of_glock(struct glock *gl);			/* NULL: out of memory */
void inode_put(struct iref *r);
void inode_to_attr(const struct inode *ip, struct csvfs_attr *ret);

/* ---- changing ------------------------------------------------------------------------------------------------------------ */

/* jnl_begin() with the per-coroutine mark that nothing but block I/O may be awaited now.  `op_end` returns the sequence. */
int op_begin(struct csvfs *fs, uint32_t blocks, uint32_t revokes, struct jnl_handle *ret_h);
uint64_t op_end(struct csvfs *fs, struct jnl_handle *h);
/* A change failed after the first one of its transaction (IN5): logs, withdraws, returns err. */
int op_broken(struct csvfs *fs, uint64_t ino, const char *what, int err);

void inode_dirty(struct jnl_handle *h, struct iref *r);		/* before the first change of its block */
void inode_store(struct iref *r);				/* attributes -> block */
/* R34: now = max(real time, stored ctime + 1 ns); raises `change`.  Whichever of mtime/ctime is asked for. */
#define INODE_T_MTIME 1u
#define INODE_T_CTIME 2u
void inode_touch(struct inode *ip, unsigned which);
/* Its mode without the set-id bits that somebody else's change takes away (attr.c). */
uint32_t inode_killed_mode(const struct inode *ip);
int64_t inode_now(struct inode *ip);

/* Tree in the inode's body.  `resv` may be NULL for reading.  A regular file must have body TREE. */
void inode_tree(struct iref *r, enum csv_bt_kind kind, struct alloc_resv *resv, struct btree *ret);
struct csv_inode *inode_raw(struct iref *r);

/*
 * A new inode.  Its number and lock come from inode_pool_take() before the transaction; ret->buf stays NULL until inode_new() inside the
 * transaction makes the block; attributes from `init` (mode, uid, gid, rdev, parent, nlink, flags).
 */
struct inode_init { uint32_t mode, uid, gid, nlink, flags; uint64_t rdev, parent; };
int inode_new(struct jnl_handle *h, struct alloc_resv *resv, struct iref *r, const struct inode_init *init);

/* The lock is about to go to NL: what is open here stays protected (open.c).  Awaits. */
void inode_keep_open(struct inode *ip);
bool inode_is_open(struct csvfs *fs, struct csv_owner owner);	/* open on this node; any owner may be asked about */

/* ---- disk form ------------------------------------------------------------------------------------------------------------- */

/* Pure.  Header was verified already.  Checks every field; -CSV_E_CORRUPT with err naming block, field, value and what is allowed. */
int inode_decode(const struct csv_inode *d, uint64_t ino, struct inode *ret, struct csv_err *err);
void inode_encode(const struct inode *ip, struct csv_inode *ret);

/* Freeing (R8, R20) is inode_free_blocks_batch() and inode_forget() of csvfs_internal.h. */

/* ---- data plane (R23) ----------------------------------------------------------------------------------------------------------- */

/* Around every local operation that needs the mapping or the blocks for itself.  Nests.  No-ops while ip->dp is NULL.  Close awaits. */
void inode_gate_close(struct inode *ip);
void inode_gate_open(struct inode *ip);
/*
 * What may be done in place of [off, off + len): `fn` gets each written extent in bytes, ascending, cut to the range; nonzero stops.
 * Lock held >= CR, block pinned.
 */
int inode_map_range(struct iref *r, uint64_t off, uint64_t len, int (*fn)(void *arg, uint64_t off, uint64_t len, uint64_t dev_off),
		    void *arg);

#endif
