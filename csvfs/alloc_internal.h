/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * alloc_internal.h - what the files of the allocator share.
 *
 *	alloc.c		reservations: which group, locks, reading		alloc_map.c	bitmaps: searching, taking, giving, busy blocks
 *	alloc_glock.c	what hangs off a group's glock, value block		alloc_hint.c	what is believed of groups that are not locked
 *
 * Invariants
 *  AI1 A group_mem's numbers (free, largest, inodes) are believed while `loaded`: the group's EX is cached here since they were read.
 *  AI2 hint[g] is only a hint, but for `exact`: it came with the value block of a lock that is cached here still.
 *  AI3 summary[s] is at least the largest hint of its groups: what it says is full is full by all hints.
 */
#ifndef CSVFS_CSVFS_ALLOC_INTERNAL_H
#define CSVFS_CSVFS_ALLOC_INTERNAL_H

#include "csvfs/alloc.h"
#include "csvfs/csvfs_internal.h"

#define SUMMARY_GROUPS 512u
#define RESERVE_GROUPS 16u		/* the first so many groups hold the reserve */
#define RESERVE_BLOCKS_MAX 16384u	/* 64 MiB */
#define ENTRIES_A_WORD 32u
#define WORDS_A_BITMAP (CSV_BITMAP_BYTES / 8u)
#define GROUP_WORDS (CSV_GROUP_BLOCKS / ENTRIES_A_WORD)

struct group_hint { uint32_t free_blk, largest_run; bool known, exact, local; };	/* local: on the list below */

struct alloc_ctl {
	struct group_hint *hint;	/* geo.groups of them */
	uint32_t *summary;		/* most free blocks of SUMMARY_GROUPS groups */
	struct cds_list_head local;	/* group_mem whose EX is cached here, latest use first */
	uint32_t n_local;
	uint32_t home;			/* where this node begins to look */
	uint32_t count_next;		/* statfs: which header is read next */
	uint64_t counted_ns;
	bool counting;			/* headers are being read */
	struct waitq count_wq;
	uint64_t probes, takes, gives;
};

/* Blocks freed by one transaction that is not durable yet (A2): one bit a block. */
struct busy_epoch {
	struct jnl_on_commit c;
	struct group_mem *mem;
	struct jnl_txn *txn;		/* NULL: spare */
	struct cds_list_head node;
	uint32_t blocks;
	uint32_t map[GROUP_WORDS];
};

/* In memory of one group; glock->obj. */
struct group_mem {
	struct csvfs *fs;
	struct glock *gl;
	uint32_t group, blocks;
	bool loaded;			/* AI1 */
	uint32_t free_blk, largest_run, inodes;
	uint32_t busy_blk;		/* of all epochs */
	struct cds_list_head busy;	/* epochs, those of transactions under way */
	struct busy_epoch *spare;
	uint32_t cursor;		/* where the next data goes */
	uint64_t lvb_seq;
	struct cds_list_head local_node;
};

/* ---- alloc_hint.c ----------------------------------------------------------------------------------------------------------------- */
void hint_set(struct csvfs *fs, uint32_t group, uint32_t free_blk, uint32_t largest, bool exact);
bool hint_allows(const struct csvfs *fs, uint32_t group, uint32_t blocks, uint32_t run);
/* The next group from `from` on (no wrap) whose hint allows it; groups where none is left. */
uint32_t hint_next(struct csvfs *fs, uint32_t from, uint32_t blocks, uint32_t run);
/* Blocks of the group that only freeing operations may use. */
uint32_t reserve_of(const struct csvfs *fs, uint32_t group);

/* ---- alloc_glock.c ---------------------------------------------------------------------------------------------------------------- */
struct group_mem *group_mem_get(struct glock *gl);	/* NULL: out of memory */
void group_mem_local(struct group_mem *m);		/* EX is cached here: to the front of the list */
void busy_epochs_drop(struct group_mem *m);

/* ---- alloc_map.c ------------------------------------------------------------------------------------------------------------------ */
/* Free and not busy. */
static inline uint32_t mem_avail(const struct group_mem *m)
{
	return m->free_blk > m->busy_blk ? m->free_blk - m->busy_blk : 0;
}
struct free_run { uint32_t start, len; };
/*
 * The first free run of `want` blocks at or behind `from` (wrapping once), cut to `want`; else the longest there is.  After a whole
 * round without one the group's largest_run is corrected.  len 0: nothing is free.
 */
void map_find_run(struct alloc_group *g, uint32_t from, uint32_t want, struct free_run *ret);
/* Room for one more transaction's busy blocks.  -ENOMEM. */
int busy_prepare(struct group_mem *m);
/* Writes numbers into the header's block (dirtied by the caller). */
void group_store(struct alloc_group *g);

#endif
