/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * inode_pool.h - numbers for new inodes whose locks this node holds already (internal to csvfs/).
 *
 * The lock of a number that was never used here is found through a directory spread over all members: one of them may be dead and not
 * yet known to be.  So the locks of free blocks near where inodes are made are taken ahead, in the background.  Nothing of this is on the disk.
 *
 * Invariants
 *  IP1 A number in the pool is a hint: its lock was EX here when it was put in.  Who takes it gets the lock without a message, or not at
 *      all, and the block must be free by the bitmap of a group it has locked.
 *  IP2 No group is locked while a lock from elsewhere is awaited (inode_pool_wait()): others of this node go on in that group.
 *  IP3 The background never waits behind others for a lock (NOQUEUE), only for a master that does not answer; an operation does, when
 *      all that it was offered stays in use elsewhere.
 */
#ifndef CSVFS_CSVFS_INODE_POOL_H
#define CSVFS_CSVFS_INODE_POOL_H

#include "csvfs/inode.h"

int inode_pool_init(struct csvfs *fs);
void inode_pool_stop(struct csvfs *fs);		/* fs->stopping is set: returns when nothing is asked for any more; awaits */
void inode_pool_free(struct csvfs *fs);

/*
 * A number for a new inode in the reservation's groups, its lock EX in n; near the hint where possible.  What n holds already is taken if
 * it is free there, else put.  Does not await.  -EAGAIN: there is none here; some were asked for: put the reservation,
 * inode_pool_wait(), begin anew.  -ENOSPC, -ENOMEM.
 */
int inode_pool_take(struct csvfs *fs, struct alloc_resv *resv, uint64_t hint_blk, struct iref *n);
/*
 * Waits for a lock that inode_pool_take() asked for.  0: try again, with n where one came: held, so that two nodes who want the last free
 * block do not take its lock and its group from each other for ever.  -EINTR, -CSV_E_WITHDRAWN.  `rounds` counts for one operation,
 * from 0: where all numbers stay in use elsewhere, it waits in turn for the lock of one.
 */
int inode_pool_wait(struct csvfs *fs, uint64_t hint_blk, unsigned *rounds, struct iref *n);
/* An inode was just freed, its lock is EX here: its number is as good as any. */
void inode_pool_add(struct csvfs *fs, uint64_t ino);

#endif
