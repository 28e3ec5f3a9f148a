/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuse_met.h - open(2) of a name whose file other nodes make, move and replace at this moment.
 *
 * FUSE opens in steps: LOOKUP, then CREATE when nothing was there, or else OPEN of what was. In between another node may have made the file, so
 * that CREATE meets one whose permissions the kernel must check, or may have deleted it. Both answer ESTALE, and the kernel goes through it all once
 * more (namei of Linux: LOOKUP_REVAL), once only: at the second ESTALE the program gets it. So the second time is made to succeed:
 *
 *  what CREATE met is kept open and remembered for the thread; its next LOOKUP of that name finds it, when there is none again;
 *  that LOOKUP, and the one after an OPEN that came too late, keeps open what it finds.
 *
 * Kept open (MET_NS), a file that is deleted meanwhile is the one without a name that open(2) would have found a moment earlier.
 *
 * Invariant: an answer is given once, to the thread that met the file, and only while its open(2) can still be under way: MET_NS at most, and
 * not after any other request of the thread.
 *
 * Control thread.
 */
#ifndef CSVFS_CSVFS_FUSE_MET_H
#define CSVFS_CSVFS_FUSE_MET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "csvfs/csvfs.h"
#include "utils/env/clock.h"

#define MET_NS (1 * NS_PER_SEC)
#define METS 16u	/* of more at a time the oldest is forgotten: ESTALE, as without */

struct met { pid_t tid; uint64_t dir, ino, until_ns; uint32_t gen; char name[CSV_NAME_MAX + 1]; };
struct mets { struct met m[METS]; unsigned next; };

/* tid 0: unknown, not remembered. */
void met_remember(struct mets *t, pid_t tid, uint64_t dir, const char *name, uint64_t ino, uint32_t gen, uint64_t now_ns);
bool met_take(struct mets *t, pid_t tid, uint64_t dir, const char *name, uint64_t now_ns, uint64_t *ret_ino, uint32_t *ret_gen);/* It does something else: its open(2) is over. */
void met_forget(struct mets *t, pid_t tid);

/* An OPEN of the thread came too late. */
void met_stale(struct mets *t, pid_t tid, uint64_t now_ns);
bool met_stale_take(struct mets *t, pid_t tid, uint64_t now_ns);

#endif
