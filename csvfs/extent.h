/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * extent.h - mapping of a file: logical block -> device block, in the inode's extent tree (internal to csvfs/).
 *
 * Invariants
 *  EX1 Extents are ascending and do not overlap; each lies inside the data part of one group; neighbours that continue each other (logical,
 *      physical, same flags, together <= CSV_GROUP_BLOCKS) are merged when one of them is touched.
 *  EX2 Every extent read from the tree is checked (range, length, flags, overlap with its neighbour) before it is used; -CSV_E_CORRUPT names
 *      inode, key and field.
 *  EX3 A mapping becomes written only after its data was written (R21): by ext_convert() in a transaction that publishes data.
 *  EX4 Changing calls need EX, a handle with ext_credits() of room, and tree nodes reserved (ext_new_nodes()).
 */
#ifndef CSVFS_CSVFS_EXTENT_H
#define CSVFS_CSVFS_EXTENT_H

#include "csvfs/inode.h"

struct extent {
	uint64_t lblk, phys;		/* phys 0: hole */
	uint32_t flags;			/* enum csv_ext_flag */
	uint64_t len;			/* blocks; a hole may be longer than an extent can */
};
#define EXT_LBLK_END (CSV_FILE_SIZE_MAX >> CSV_BLOCK_SHIFT)
static inline bool ext_is_written(const struct extent *e) { return e->phys && !(e->flags & CSV_EXT_UNWRITTEN); }
static inline uint64_t ext_end(const struct extent *e) { return e->lblk + e->len; }

/* The extent or hole that contains `lblk`, from `lblk` on (cut at its front).  The hole at the end ends at EXT_LBLK_END. */
int ext_map(struct btree *t, uint64_t lblk, struct extent *ret);
/* The last extent of the tree, whole; -ENOENT when there is none. */
int ext_last(struct btree *t, struct extent *ret);
/* Whole extents: the first that starts at or after / the last that starts at or before `lblk`; -ENOENT. */
int ext_next(struct btree *t, uint64_t lblk, struct extent *ret);
int ext_prev(struct btree *t, uint64_t lblk, struct extent *ret);

/* Room for `ops` changing calls. */
uint32_t ext_credits(const struct btree *t, uint32_t ops);
uint32_t ext_new_nodes(const struct btree *t, uint32_t ops);

/* Maps a hole: [lblk, lblk + len) -> phys. */
int ext_insert(struct btree *t, struct jnl_handle *h, uint64_t lblk, uint64_t phys, uint32_t len, uint32_t flags);
/* The part [lblk, lblk + len) of ONE extent gets new flags (unwritten -> written, or back). */
int ext_convert(struct btree *t, struct jnl_handle *h, uint64_t lblk, uint32_t len, uint32_t flags);
/* The part [lblk, lblk + len) of ONE extent becomes a hole; the blocks are the caller's to give back. */
int ext_remove(struct btree *t, struct jnl_handle *h, uint64_t lblk, uint32_t len);

#endif
