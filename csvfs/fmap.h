/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fmap.h - blocks of a regular file: getting, filling, publishing and giving them back (internal to csvfs/).
 *
 * All under `inode i` EX with the gate closed (R21, R23), but fmap_read(), which needs any lock that covers the data.
 *
 * Invariants
 *  FM1 Blocks are allocated unwritten, filled, and only then made written, in a transaction that publishes data (R17 J1, R21).
 *  FM2 Bytes behind the end of file inside its last block are unspecified on disk: whoever moves the end forward zeroes them first.  Blocks wholly
 *      behind the end of file are unwritten or hold zeros - but while a truncate is unfinished (inode.orphan_slot set, nlink > 0): fmap_settle()
 *      before anything is added.
 *  FM3 Freeing goes in batches of a few groups, each a transaction of its own that leaves a consistent file.
 */
#ifndef CSVFS_CSVFS_FMAP_H
#define CSVFS_CSVFS_FMAP_H

#include "csvfs/extent.h"

#define FMAP_CHUNK_BLOCKS 256u		/* 1 MiB: allocation and conversion in large files go by this */
static inline uint64_t fmap_blocks(uint64_t bytes) { return (bytes + CSV_BLOCK_SIZE - 1) >> CSV_BLOCK_SHIFT; }

/* ---- fmap.c: getting and publishing ------------------------------------------------------------------------------------------- */

/* Body NONE or INLINE -> TREE; inline data goes to a block of its own. */
int fmap_make_tree(struct iref *r);
/*
 * Every hole in [first, end) becomes unwritten; `spare` more blocks behind `end` where it is cheap.  Stops early when the volume is full:
 * *ret_end is how far it got (> first), -ENOSPC when nothing.
 */
int fmap_fill(struct iref *r, uint64_t first, uint64_t end, uint64_t spare, uint64_t *ret_end);
/* Unwritten parts of [first, end) become written (their data was written); the size grows to `size` with it; times are touched. */
int fmap_publish(struct iref *r, uint64_t first, uint64_t end, uint64_t size);
/* Written parts of [first, end) become unwritten, with nothing else. */
int fmap_unpublish(struct iref *r, uint64_t first, uint64_t end);
/* 1: every block of [first, end) is written; 0: not; <0. */
int fmap_all_written(struct iref *r, uint64_t first, uint64_t end);
/* A change of the inode alone, in a transaction: `fn` changes attributes. */
int fmap_change(struct iref *r, void (*fn)(struct iref *r, void *arg), void *arg);

/* ---- fdata.c: bytes -------------------------------------------------------------------------------------------------------------- */

/* [off, off + len) lies below the end of file. Holes and unwritten blocks read as zeros. */
int fdata_read(struct iref *r, uint64_t off, void *buf, uint64_t len);
/* The range is mapped.  buf NULL: zeros.  What shares a block with it is kept; what lies behind `eof` becomes zeros. */
int fdata_write(struct iref *r, uint64_t off, const void *buf, uint64_t len, uint64_t eof);
/* In place, io_align-ed, all written: no read-modify-write (CW suffices). */
int fdata_write_inplace(struct iref *r, uint64_t off, const void *buf, uint64_t len);
/* Zeros from the end of file to the end of its block, where that is written: before the end moves forward (FM2). */
int fdata_zero_tail(struct iref *r);

/* ---- trunc.c: giving back ---------------------------------------------------------------------------------------------------------- */

int trunc_set_size(struct iref *r, uint64_t size);
/* Finishes a truncate that was left unfinished (FM2). */
int fmap_settle(struct iref *r);
/* [first, end) becomes a hole. */
int trunc_punch(struct iref *r, uint64_t first, uint64_t end);
/* The same for blocks that were allocated for nothing: leaves the times alone, and what was written. */
int trunc_trim(struct iref *r, uint64_t first, uint64_t end);

#endif
