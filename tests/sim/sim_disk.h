/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sim_disk.h - the shared disk of a simulated cluster: one LUN, one volatile cache, a queue and a path for every node.
 *
 * Invariants
 *  D1  A write takes effect (for readers on every node) at one moment between its submission and its completion, in any order
 *      with others that are in flight.  What has taken effect is in the *cache*.
 *  D2  A FLUSH that completes with 0 has made durable everything that took effect before it was *submitted*, of all nodes.
 *      What took effect later is only in the cache.
 *  D3  After a power loss of the array each 512-byte sector holds its last durable content or that of any write since.
 *  D4  A node's power cut does not recall what it had submitted: each such write gets lost, or takes effect later (a ghost), until
 *      sim_disk_fence() of that node.  From the fence on nothing of that node takes effect.
 *  D5  A request that fails (sim_disk_fail_at) may have taken effect in part, sector by sector.
 *
 * The recorder keeps every write and flush in the order in which they took effect, so that the device can be materialised as of
 * any moment, with any allowed loss: sim_cursor.
 */
#ifndef CSVFS_TESTS_SIM_SIM_DISK_H
#define CSVFS_TESTS_SIM_SIM_DISK_H

#include "tests/sim/sim_store.h"
#include "tests/sim/sim_world.h"
#include "utils/env/blk.h"

struct sim_disk;

struct sim_disk_config {
	uint64_t size_bytes;
	uint32_t min_io, io_align;	/* 0: 512 */
	uint64_t read_ns, write_ns, flush_ns;	/* typical; 0: 100 us, 100 us, 1 ms */
	uint64_t ghost_ns;		/* how late a ghost write can come; 0: 2 s */
};

/* Registers itself with the world for power cuts.  `initial` is copied, NULL: zeroes. */
struct sim_disk *sim_disk_new(struct sim_world *w, const struct sim_disk_config *cfg, const struct sim_store *initial);
void sim_disk_free(struct sim_disk *d);			/* before the world */

/* The port of the node's present life; the disk's, gone with sim_disk_free(). */
struct blk *sim_disk_blk(struct sim_disk *d, unsigned node);
/* What a reader sees now, and direct access for tests (mkfs before the first boot, oracles); not recorded. */
struct sim_store *sim_disk_store(struct sim_disk *d);
/* Takes over the store's present content as durable (after direct writes). */
void sim_disk_settle(struct sim_disk *d);

/* ---- faults ------------------------------------------------------------------------------------------------------- */

/* Bars the node: its waiting requests and ghosts never take effect; what it submits from now on fails with -EIO. */
void sim_disk_fence(struct sim_disk *d, unsigned node);
void sim_disk_unfence(struct sim_disk *d, unsigned node);	/* when it is booted again */
bool sim_disk_is_fenced(const struct sim_disk *d, unsigned node);
/* Requests and ghosts of the node that can still take effect. */
unsigned sim_disk_pending(const struct sim_disk *d, unsigned node);
/* The array loses power: D3.  All nodes must be down (they lose power with it). */
void sim_disk_power_loss(struct sim_disk *d);
/* The k-th request of the node from now (1: the next) fails with result (negative); 0: none. */
void sim_disk_fail_at(struct sim_disk *d, unsigned node, uint64_t k, int result);
/* Requests submitted while on are held, and go on when it is switched off. */
void sim_disk_hang(struct sim_disk *d, unsigned node, bool on);

/* What the node has submitted takes effect now (a process has died: the kernel waits for its I/O). */
void sim_disk_reap(struct sim_disk *d, unsigned node);
/* Called with every write that takes effect: of which node and life, and where. */
void sim_disk_on_write(struct sim_disk *d, void (*fn)(void *arg, unsigned node, uint64_t life, uint64_t off, uint32_t len), void *arg);
/* What the array would hold after losing power now (D3), drawn from p.  The disk goes on as it is.  Free it before the next step. */
struct sim_store *sim_disk_image_lossy(struct sim_disk *d, struct csv_prng *p);

/* ---- recorder ------------------------------------------------------------------------------------------------------ */

/* Settles, forgets what was recorded, and records from here on. */
void sim_disk_record(struct sim_disk *d);
uint32_t sim_disk_recorded(const struct sim_disk *d);

/* Walks along the recorded stream; the disk must not record on meanwhile. */
struct sim_cursor;
struct sim_cursor *sim_cursor_new(const struct sim_disk *d);
void sim_cursor_free(struct sim_cursor *c);
bool sim_cursor_next(struct sim_cursor *c);		/* one entry further; false at the end */
uint32_t sim_cursor_at(const struct sim_cursor *c);	/* entries passed */
bool sim_cursor_after_flush(const struct sim_cursor *c);	/* the last entry passed was a FLUSH */
unsigned sim_cursor_volatile(const struct sim_cursor *c);	/* writes passed that no FLUSH covers */
uint32_t sim_cursor_window(const struct sim_cursor *c);	/* writes between the FLUSH before the cursor and the one after it */
/* Everything passed so far, nothing lost.  An overlay: free it before the cursor moves. */
struct sim_store *sim_cursor_image(struct sim_cursor *c);
/* With a loss that D3 allows, drawn from p: whole writes, or single sectors. */
struct sim_store *sim_cursor_image_lossy(struct sim_cursor *c, struct csv_prng *p);

#endif
