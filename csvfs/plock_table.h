/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * plock_table.h - the table of file locks (flock, POSIX and OFD ranges) as every member computes it for itself (plock.h).
 *
 * Pure and deterministic: the same calls in the same order give the same answers on every node; no clock, no random number, no address
 * decides anything.
 *
 * A file is named by a 64-bit key.  Ranges are bytes, both ends included; UINT64_MAX is "to the end, however far it grows".
 *
 *	PLOCK_POSIX	fcntl(2) locks, traditional and OFD: ranges; an owner's own locks never conflict, they replace each other
 *	PLOCK_FLOCK	flock(2): the whole file (0 .. UINT64_MAX); changing the type gives the old lock up first, as flock(2) says
 *
 * The two kinds do not see each other, as on a local file system.
 *
 * Invariants
 *  PT1 Of one file and kind no two locks of different owners overlap where one of them is for writing.
 *  PT2 Of one file, kind and owner no two locks overlap, and no two of the same type touch.
 *  PT3 A request waits only while something it conflicts with is held; who waits longer is looked at first.
 *
 * Memory: out of memory in one replica alone would make it another table than the others have: -ENOMEM must end the node's part in
 * the volume.  What is promised to be refused everywhere alike is -ENOLCK (PLOCK_PER_FILE_MAX).
 */
#ifndef CSVFS_CSVFS_PLOCK_TABLE_H
#define CSVFS_CSVFS_PLOCK_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "utils/env/cluster.h"

#define PLOCK_PER_FILE_MAX 16384u	/* held and waiting, of one kind */

enum plock_kind { PLOCK_POSIX = 0, PLOCK_FLOCK = 1, PLOCK_KINDS = 2 };
enum plock_type { PLOCK_READ = 0, PLOCK_WRITE = 1 };

struct plock {
	struct cluster_node node;	/* with id: the owner.  The life that holds it; */
	uint64_t id;			/* the kernel's number for the process (POSIX) or the open file (OFD, flock) there */
	enum plock_type type;
	uint32_t pid;			/* for F_GETLK and for people */
	uint64_t start, end;
};

struct plock_table;
/* `granted`: a request that waited holds its lock now; may be called by every function that takes something away. */
struct plock_table *plock_table_new(void (*granted)(void *arg, struct cluster_node node, uint64_t request), void *arg);
void plock_table_free(struct plock_table *t);
/* Everything goes, nobody is told. */
void plock_table_clear(struct plock_table *t);

/*
 * 0: held now.  -EAGAIN: conflicts; with `wait` it is queued as (lk->node, request).  -EDEADLK: waiting would never end (POSIX only).
 * -ENOLCK, -ENOMEM.
 */
int plock_table_lock(struct plock_table *t, uint64_t key, enum plock_kind kind, const struct plock *lk, uint64_t request, bool wait);
/* 0, -ENOMEM, -ENOLCK (a hole in the middle makes one lock two). */
int plock_table_unlock(struct plock_table *t, uint64_t key, enum plock_kind kind, const struct plock *range);
/* A waiting request gives up; false: it does not wait (any more). */
bool plock_table_cancel(struct plock_table *t, struct cluster_node node, uint64_t request);
/* Adds without asking: what a member says it holds. */
int plock_table_put(struct plock_table *t, uint64_t key, enum plock_kind kind, const struct plock *lk);
/* The lock that would be in the way of lk, NULL: none.  Valid until the next call. */
const struct plock *plock_table_conflict(const struct plock_table *t, uint64_t key, enum plock_kind kind, const struct plock *lk);
/* Has this owner any lock on the file? */
bool plock_table_holds(const struct plock_table *t, uint64_t key, enum plock_kind kind, struct cluster_node node, uint64_t id);

/* Has the owner of `range` any of it for writing? */
bool plock_table_writes(const struct plock_table *t, uint64_t key, enum plock_kind kind, const struct plock *range);

struct plock_walk { uint64_t key, request; enum plock_kind kind; bool waiting; struct plock lk; };
/* All of it, in an order that is the same everywhere only within a file; fn returns false to end. */
void plock_table_walk(const struct plock_table *t, bool (*fn)(void *arg, const struct plock_walk *w), void *arg);
uint64_t plock_table_count(const struct plock_table *t);	/* held */

#endif
