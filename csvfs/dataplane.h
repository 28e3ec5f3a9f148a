/*
 * dataplane.h - in-place I/O without the control plane: gate, published maps, and the steps of one request.
 *
 * A read or write whose blocks are allocated and written, and whose inode lock is held here in a mode that allows it, is
 * answered by a worker thread alone: enter -> look up -> submit -> complete.  Anything else is DP_SLOW: a message to the
 * control plane.  The same code runs in worker threads (csvfs/fuse_worker.c) and as logical threads of the simulator,
 * where dp_table.yield lets another logical thread run between any two steps.
 *
 * Invariants (R23)
 *  DP1 A request that passed the gate holds inflight until dp_io_end(); its device range stays mapped and its lock
 *      held until then.
 *  DP2 dp_gate_close() returns with inflight == 0 and no request can enter before dp_gate_open().
 *      worker: inflight++ (seq_cst) -> gate OPEN?		control: gate = CLOSED (seq_cst) -> inflight == 0?
 *      One of the two always sees the other.
 *  DP3 RCU only frees map and dp_inode memory; it is never held over a submission or an await.
 *  DP4 A map never allows more than the lock mode that is cached when it is published: PR reads; CW (images) and EX
 *      reads and writes.
 *
 * Threads: dp_io_begin/dp_io_end on any thread registered with RCU; everything else on the control thread.
 */
#ifndef CSVFS_CSVFS_DATAPLANE_H
#define CSVFS_CSVFS_DATAPLANE_H

#include <stdbool.h>
#include <stdint.h>

#include "utils/env/sched.h"

struct dp_table;
struct dp_inode;

struct dp_extent { uint64_t off, len, dev_off; };	/* bytes; ascending, not overlapping, written */
/* What may be done in place.  Owner: the caller until dp_publish(); then RCU. */
struct dp_map {
	bool may_read, may_write;
	uint64_t size;				/* requests beyond it are slow */
	uint32_t n;
	struct dp_extent e[];
};
#define DP_EXTENTS_MAX 65536u
struct dp_map *dp_map_new(uint32_t max_extents);	/* n = 0; NULL out of memory */
void dp_map_free(struct dp_map *m);			/* one that was not published */

struct dp_config {
	struct sched *sched;
	uint32_t io_align;			/* smaller or unaligned requests are slow */
	/* From any thread: get dp_table_drained() called on the control thread. */
	void (*notify)(void *arg);
	/* Simulator only: between two steps of a logical thread; NULL in production. */
	void (*yield)(void *arg, const char *step);
	void *arg;
	bool mutate_not_gated;			/* test mutation: dp_gate_close() does not wait */
};
struct dp_table *dp_table_new(const struct dp_config *cfg);
void dp_table_free(struct dp_table *t);			/* no worker may run */
void dp_table_drained(struct dp_table *t);

/* ---- control plane ---------------------------------------------------------------------------------------------- */

/* Known by (ino, gen); gate closed at first.  NULL out of memory. */
struct dp_inode *dp_inode_new(struct dp_table *t, uint64_t ino, uint32_t gen);
/* Takes it out of the table; memory goes a grace period after the last request inside is over.  Never waits.  NULL allowed. */
void dp_inode_free(struct dp_table *t, struct dp_inode *d);
/* Closes and awaits the drain.  Nests: as many opens as closes. */
void dp_gate_close(struct dp_table *t, struct dp_inode *d);
void dp_gate_open(struct dp_table *t, struct dp_inode *d);
/* Withdraw: closes every gate for good and awaits every drain, until `deadline_ns` (clock_mono_ns) at most; gates of later inodes stay
 * closed too.  False: something is still in flight. */
bool dp_close_all(struct dp_table *t, uint64_t deadline_ns);
/* For the next life of this node: the last one has freed all of its inodes. */
void dp_open_all(struct dp_table *t);
bool dp_is_drained(const struct dp_table *t);		/* nothing has passed a gate and is not over yet */
/* Puts a new map in force (takes it); NULL: nothing is allowed.  Any time; requests under way keep the old one, so shrinking what is
 * allowed needs a closed gate. */
void dp_publish_take(struct dp_table *t, struct dp_inode *d, struct dp_map *m);
bool dp_has_map(const struct dp_inode *d);
/*
 * A map in pages, for what is too large or changes too often to be published as one: page i is a map of [i << shift, (i + 1) << shift),
 * its extents cut to that.  dp_pages_start() puts an empty one in force in place of any other; dp_publish_take() ends it.
 */
int dp_pages_start(struct dp_table *t, struct dp_inode *d, uint64_t size, unsigned shift);	/* -ENOMEM, -E2BIG */
bool dp_in_pages(const struct dp_inode *d);
void dp_page_take(struct dp_table *t, struct dp_inode *d, uint32_t page, struct dp_map *m);
const struct dp_map *dp_page(const struct dp_inode *d, uint32_t page);	/* NULL: none; control thread */
#define DP_PAGES_MAX (1u << 20)
bool dp_map_allows(const struct dp_inode *d, bool write);
/* True once after in-place writes since the last call (file times, R25). */
bool dp_take_wrote(struct dp_inode *d);

/* ---- any thread ------------------------------------------------------------------------------------------------- */

#define DP_SEGS_MAX 16u
struct dp_seg { uint64_t dev_off; uint32_t buf_off, len; };
struct dp_io {
	uint64_t ino;
	uint32_t gen;
	bool write;
	uint64_t off;
	uint32_t len;
	/* filled by dp_io_begin() */
	struct dp_inode *dp;
	uint32_t nseg;
	struct dp_seg seg[DP_SEGS_MAX];
};
enum dp_result { DP_SLOW, DP_SUBMIT };
enum dp_result dp_io_begin(struct dp_table *t, struct dp_io *io);
/* After the last segment completed (or failed). */
void dp_io_end(struct dp_table *t, struct dp_io *io);

struct dp_stats { uint64_t fast_reads, fast_writes, slow_gate, slow_map, gate_closes; };
void dp_stats(const struct dp_table *t, struct dp_stats *ret);

#endif
