/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * check.h - is a volume in order?  The checker behind fsck.csvfs, and the oracle of the simulator.
 *
 * Reads only.  The journals of active slots are replayed into memory, and what is checked is the volume as that leaves it; so it can
 * be run on the device after any crash.  A volume that is mounted and written to changes under the checker: findings then mean little.
 *
 * Order: superblock and copies; slots, heartbeats, journals; then, for as many blocks at a time as the memory allows, everything
 * reachable from the root and the orphan trees is marked in a map of two bits a block and the map compared with the bitmaps; then
 * link counts and parents.
 *
 * Invariants
 *  CK1 Nothing is written.
 *  CK2 Every number from the disk is checked before it is used; each block is read through its header check; a block that is reached a
 *      second time is not descended into again.  So it ends, and memory is bounded: mem_bytes for the map, 64 bytes an inode,
 *      4 KiB a block in the journals.
 *  CK3 Each finding is one line: object, field, value, what is allowed.
 */
#ifndef CSVFS_CSVFS_CHECK_CHECK_H
#define CSVFS_CSVFS_CHECK_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "utils/base/err.h"
#include "utils/env/blk.h"

enum check_level {
	CHECK_NOTE,			/* something to know; the volume is in order */
	CHECK_ERROR,
};

struct check_options {
	/* Every finding, one line without newline.  May be NULL. */
	void (*report)(void *arg, enum check_level level, const char *line);
	/* Now and then; done of total blocks of work.  May be NULL. */
	void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
	void *arg;
	uint64_t mem_bytes;		/* for the map; 0: 512 MiB (8 TiB of volume at a time) */
	uint32_t max_lines;		/* of errors reported; 0: 1000.  All are counted. */
};

struct check_result {
	uint64_t errors, notes;
	uint64_t files, dirs, others;	/* orphans included */
	uint64_t orphans, truncating;	/* entries in orphan trees: unlinked, truncates under way */
	uint64_t data_blk, meta_blk, free_blk, total_blk;
	uint32_t slots_active, passes;
	uint64_t records, replayed_blk;	/* from the journals */
	bool super_bad;			/* the superblock itself, but not all of its copies */
};

/* Awaits.  0: the check ran, see ret; else why it could not (not csvfs, unreadable, out of memory). */
int check_volume(struct blk *b, const struct check_options *o, struct check_result *ret, struct csv_err *err);

/* Does somebody write heartbeats?  Awaits wait_ms.  1 yes (who: slot, node), 0 no. */
int check_alive(struct blk *b, uint32_t wait_ms, char *ret_who, size_t size, struct csv_err *err);
/* Rewrites superblock copies that differ from the good one, FLUSH.  Awaits.  How many, or an error. */
int check_repair_super(struct blk *b, struct csv_err *err);

#endif
