/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * publish.h - what of an inode the data plane may do by itself (internal to csvfs/).  Control thread only.
 */
#ifndef CSVFS_CSVFS_PUBLISH_H
#define CSVFS_CSVFS_PUBLISH_H

#include "csvfs/inode.h"

struct dp_map;

/* Key of an inode in the data plane: its node id without the generation.  The raw view of an image has this bit. */
#define DP_KEY_RAW (1ull << 62)

/*
 * After a request was served by the slow path, lock and block still held: puts a map in force if the cached lock allows `write`
 * (or reading) in place.  Awaits block reads.  Never fails: without a map the slow path serves.
 */
void inode_publish(struct iref *r, bool write);
/* May the cached lock serve this in place?  (P1) */
bool inode_lock_allows(const struct inode *ip, bool write);
/* A map that was just built may be used for this: `size` of what it shows, and whether that may be written at all. */
void inode_dp_map_rights(const struct inode *ip, struct dp_map *m, uint64_t size, bool writable);
/* The lock and the block of `ip` are held: the data plane's object of its raw view, gate open when it is new.  NULL: none, or no memory. */
struct dp_inode *inode_dp_raw(struct inode *ip);
/* Before the lock leaves or weakens (P2).  Awaits the drain.  Remembers in-place writes for the file times. */
void inode_dp_revoke(struct inode *ip);
/* Takes note of in-place writes since the last call: pending_mtime_ns, data_gen. */
void inode_dp_collect(struct inode *ip);
/* The map of the raw view alone goes, as when vmap leaves or the view is closed.  Awaits the drain. */
void inode_dp_revoke_raw(struct inode *ip);
/* The in-core inode goes; revoked before. */
void inode_dp_free(struct inode *ip);

#endif
