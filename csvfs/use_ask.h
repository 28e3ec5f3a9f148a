/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * use_ask.h - who has an image open in the way that is in the way (R41): the question between nodes.
 *
 * The core refuses (csvfs_image_open); it knows no processes.  So whoever is refused asks the other members over the mesh:
 *
 *	refused here  --- question: who uses inode i the other way? --->  every member
 *		      <-- answer: process 4711 (qemu-system-x86), or nobody --
 *
 * Nothing but a line in the log depends on these messages being right.
 *
 * Invariants
 *  UA1 Each member answers a question once, or is taken to have said "nobody" when USE_ASK_MS are over.
 *  UA2 What another node says of a process is text fit for a log and for JSON, whatever it was.
 *
 * Control thread.
 */
#ifndef CSVFS_CSVFS_USE_ASK_H
#define CSVFS_CSVFS_USE_ASK_H

#include <stdbool.h>
#include <stdint.h>

#include "csvfs/csvfs.h"
#include "utils/base/base.h"
#include "utils/env/env.h"

#define USE_ASK_MS 300u
#define USE_PROCESS_BYTES 16u

struct use_other { uint32_t nodeid, pid; char process[USE_PROCESS_BYTES]; };

enum { USE_MSG_ASK = 1, USE_MSG_ANSWER = 2 };
struct use_msg {
	uint8_t type, kind, found, zero;	/* kind: enum csvfs_use of the one who was refused */
	struct le32 pid;
	struct le64 ino, ask;
	char process[USE_PROCESS_BYTES];
};

struct use_ask;
struct use_asks {
	struct env *env;
	struct use_ask *open;		/* questions under way */
	/* Who uses `ino` on this node the other way?  False: nobody. */
	bool (*find)(void *arg, uint64_t ino, enum csvfs_use kind, struct use_other *ret);
	void *arg;
};

/* Before the mesh starts; again for another one, with questions under way. */
void use_asks_start(struct use_asks *a, struct env *env, bool (*find)(void *arg, uint64_t ino, enum csvfs_use kind, struct use_other *ret), void *arg);
/* In a coroutine.  False: nobody said so in time. */
bool use_asks_others(struct use_asks *a, uint64_t ino, enum csvfs_use kind, struct use_other *ret);
/* The number of the question asked last that is still open; 0: none (tests). */
uint64_t use_asks_open(const struct use_asks *a);

#endif
