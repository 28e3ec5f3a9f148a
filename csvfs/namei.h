/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * namei.h - what the operations on names share (namei.c, rename.c).
 */
#ifndef CSVFS_CSVFS_NAMEI_H
#define CSVFS_CSVFS_NAMEI_H

#include <stdlib.h>

#include "csvfs/dir.h"
#include "csvfs/fmap.h"

/* A directory that is going to change: EX, linked, not immutable. */
int namei_dir_get(struct csvfs *fs, uint64_t dir, uint32_t gen, struct iref *ret);
/* The inode an entry names, EX; the directory is held.  -CSV_E_CORRUPT when it is not what the entry says. */
int namei_entry_get(struct iref *dir, const struct dir_entry *e, struct iref *ret);

/* An orphan that may be freed once all locks are put.  ino 0: none. */
struct reap { uint64_t ino; uint32_t slot; bool now; };
/* Inside the transaction: nlink 0, orphan_slot; the entry in the orphan tree is the caller's. */
void namei_last_link(struct iref *r, uint32_t slot, struct reap *ret);
void namei_reap(struct csvfs *fs, const struct reap *r);

#endif
