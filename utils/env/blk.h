/*
 * blk.h - the block device port: the shared LUN as the control plane sees it.
 *
 * Invariants
 *  B1  A request and its buffer belong to the port from blk_submit() until done() is called; done() is called exactly
 *      once, from the control thread, never inside blk_submit().
 *  B2  Requests may complete in any order.  Order is made only by waiting, and durability only by a FLUSH that was
 *      submitted after the write completed (the device has a volatile cache).
 *  B3  Offsets, lengths and buffers are multiples of `io_align` (O_DIRECT): asserted.  A request that does not lie inside
 *      the device completes with -ERANGE (numbers from a corrupt block get that far).  A write of 512 bytes that does not cross
 *      a 512-byte boundary is atomic; nothing larger is.
 *  B4  After blk_gate_close() no further write reaches the device through this port: later submissions fail with
 *      -CSV_E_WITHDRAWN (reads too: they prove nothing any more); what is in flight is still completed (rule: withdraw drains, then speaks).
 */
#ifndef CSVFS_UTILS_ENV_BLK_H
#define CSVFS_UTILS_ENV_BLK_H

#include <stdbool.h>
#include <stdint.h>

#include "utils/env/sched.h"

struct blk;

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD };

/* How a request reaches the device.  VIA_PEER is reserved for a node without a path of its own: -EOPNOTSUPP today. */
enum blk_via_kind { BLK_VIA_LOCAL = 0, BLK_VIA_PEER = 1 };
struct blk_via { enum blk_via_kind kind; uint32_t nodeid; };

struct blk_req {
	enum blk_op op;
	struct blk_via via;
	uint64_t off;			/* bytes */
	uint32_t len;			/* bytes; 0 for FLUSH */
	void *buf;			/* borrowed until done */
	int result;			/* 0 or -errno; short transfers are -EIO */
	void (*done)(struct blk_req *r);
	void *priv;			/* the port's own, untouched by the caller */
	struct blk_req *next;		/* the port's own */
};

struct blk_ops {
	void (*submit)(struct blk *b, struct blk_req *r);
	void (*close)(struct blk *b);
};

struct blk {
	const struct blk_ops *ops;
	struct sched *sched;
	uint64_t size_bytes;
	uint32_t min_io;		/* logical sector of the device: 512 or 4096 */
	uint32_t io_align;		/* 512 or 4096; buffers, offsets, lengths */
	bool gate_closed;
	unsigned inflight;		/* requests not completed; maintained by blk_submit/port */
	uint64_t n_reads, n_writes, n_flushes, n_discards;
	/* For blk_complete_later(); zeroed by whoever makes the struct, otherwise untouched. */
	struct job later_job;
	struct blk_req *later_head, *later_tail;
};

/* Never fails itself: errors come in r->result through done(). */
void blk_submit(struct blk *b, struct blk_req *r);
void blk_gate_close(struct blk *b);
void blk_gate_open(struct blk *b);		/* for the next life of this node; nothing of the last is in flight */
void blk_close(struct blk *b);			/* NULL allowed; inflight must be 0 */

/* For ports: every request ends in exactly one of these.  blk_complete() is not for inside ops->submit(). */
void blk_complete(struct blk *b, struct blk_req *r, int result);
void blk_complete_later(struct blk *b, struct blk_req *r, int result);	/* through the run queue */

/* Coroutine helpers: submit and await.  0 or -errno.  Never interrupted by cancel. */
int blk_read(struct blk *b, uint64_t off, void *buf, uint32_t len);
int blk_write(struct blk *b, uint64_t off, const void *buf, uint32_t len);
int blk_flush(struct blk *b);
int blk_discard(struct blk *b, uint64_t off, uint32_t len);

/* Aligned memory for I/O (4096); free with free(). NULL when out of memory. */
void *blk_alloc(uint32_t len);

#endif
