/*
 * alloc.h - allocation groups (internal to csvfs/).
 *
 * Invariants
 *  A1  A group's header and bitmaps change only under group g EX inside a transaction.
 *  A2  A freed block is neither allocated nor discarded before the freeing transaction is durable (R19): until then it is "busy";
 *      busy blocks are kept per group in memory, and a group is not released with any.
 *  A3  Generations: every metadata block gets group.next_generation++ at allocation (R18).
 *  A4  alloc_reserve() locks and reads everything; alloc_take()/alloc_give() inside the transaction never await.
 *  A5  -ENOSPC only after a true scan of all groups; a reserve (1 %, at most 64 MiB) is left for operations that free.
 */
#ifndef CSVFS_CSVFS_ALLOC_H
#define CSVFS_CSVFS_ALLOC_H

#include "csvfs/buf.h"
#include "csvfs/glock.h"

#define ALLOC_GROUPS_MAX 8

/* Group locks held for one transaction, with their blocks pinned.  Not to be copied or moved while in use. */
struct alloc_group {
	uint32_t group;
	struct glock_holder gh;
	struct buf *hdr, *bitmap[CSV_GROUP_BITMAPS];
	struct group_mem *mem;
	uint32_t promised;		/* blocks alloc_take() may still take here */
	uint32_t promised_total;
	bool frees;			/* locked for freeing */
};
struct alloc_resv {
	struct csvfs *fs;
	uint32_t n;
	struct alloc_group g[ALLOC_GROUPS_MAX];
};
void alloc_resv_init(struct csvfs *fs, struct alloc_resv *r);
/*
 * Finds and locks a group near `hint_blk` with `blocks` free, one run of >= `run` where possible.  Groups already locked here are
 * preferred, then those whose value block promises room.  `for_free`: may use the reserve (A5).  Awaits.
 *
 * May be called again on the same reservation: groups it has already are used first; a further one is only tried where the lock order
 * allows (-EAGAIN: a group with room is held elsewhere and may not be waited for: release everything and begin anew).
 * -ENOSPC; a large file asks for less then: what is needed may be there in several groups.
 */
int alloc_reserve(struct alloc_resv *r, uint64_t hint_blk, uint32_t blocks, uint32_t run, bool for_free);
/*
 * Locks the groups of blocks that are to be freed (before the transaction; any order, doubles allowed).  -E2BIG over ALLOC_GROUPS_MAX.
 * -EAGAIN only when the reservation had groups already: as above.
 */
int alloc_lock_groups(struct alloc_resv *r, const uint32_t *group, uint32_t n);
/* Credits a transaction needs for `runs` takes or gives in this reservation. */
uint32_t alloc_credits(const struct alloc_resv *r, uint32_t runs);
/* One run of at least 1 and at most `want` blocks near `hint_blk`. `state` data, meta or inode; generation for meta and inode. */
/*
 * Never more than was promised by alloc_reserve(): -ENOSPC, nothing changed.  A free block at `hint_blk` itself is always taken first.
 * ret_generation (NULL for data): of the first block, the others follow.
 */
int alloc_take(struct alloc_resv *r, struct jnl_handle *h, uint64_t hint_blk, uint32_t want, enum csv_blk_state state, uint64_t *ret_blk,
	       uint32_t *ret_len, uint64_t *ret_generation);
/* The free block that alloc_take() of an inode would take next at or behind the hint (R29: near other inodes).  -ENOSPC. */
int alloc_peek(const struct alloc_resv *r, uint64_t hint_blk, uint64_t *ret_blk);
/* May alloc_take() of one block give this one?  BUSY: freed, not yet durable.  OTHER: not in a group that has room promised here. */
enum alloc_look { ALLOC_LOOK_FREE, ALLOC_LOOK_BUSY, ALLOC_LOOK_USED, ALLOC_LOOK_OTHER };
enum alloc_look alloc_look(const struct alloc_resv *r, uint64_t blk);
/* -CSV_E_CORRUPT when the bitmap disagrees with `state`. */
int alloc_give(struct alloc_resv *r, struct jnl_handle *h, uint64_t blk, uint32_t len, enum csv_blk_state state);
/* Would alloc_give() accept this?  0, -CSV_E_CORRUPT, -EXDEV (group not in the reservation). */
int alloc_may_give(const struct alloc_resv *r, uint64_t blk, uint32_t len, enum csv_blk_state state);
/* Is the group of this block locked in the reservation?  r may be NULL. */
bool alloc_resv_covers(const struct alloc_resv *r, uint64_t blk);
void alloc_resv_done(struct alloc_resv *r);
/* What the bitmap says of a block, under group PR (R29: believed only if "inode").  Awaits.  -EINVAL: in no group. */
int alloc_state(struct csvfs *fs, uint64_t blk, enum csv_blk_state *ret_state);
/* Their locks come here and stay cached, for alloc_lock_groups() not to wait; nothing is held afterwards.  Awaits; any order. */
int alloc_call_groups(struct csvfs *fs, const uint32_t *group, uint32_t n);
uint32_t alloc_group_of(const struct csvfs *fs, uint64_t blk);	/* UINT32_MAX when in no group */
/* Free blocks over all groups, from value blocks and caches where possible (approximate unless `exact`).  Awaits. */
int alloc_count_free(struct csvfs *fs, bool exact, uint64_t *ret_free);
/* Blocks that only operations that free may use (A5). */
uint64_t alloc_reserved_blocks(const struct csvfs *fs);
extern const struct glock_ops alloc_group_glock_ops;

#endif
