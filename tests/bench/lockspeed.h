/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lockspeed.h - shared by the parts of lockspeed: one process is one node of a small cluster on real links.
 *
 *	lockspeed.c		processes, views by hand, ports, the bare TCP connection, what is printed and judged
 *	lockspeed_dlm.c		lock managers alone: uncontended remote locks, the fight for one lock, recovery
 *	lockspeed_fs.c		whole volumes without FUSE: a cached lock, the fight for one inode, clean and dirty
 *
 * Views come from this program (no corosync: a death is known at once): node 1 is the hub, it puts all ordered messages in order.
 */
#ifndef CSVFS_TESTS_BENCH_LOCKSPEED_H
#define CSVFS_TESTS_BENCH_LOCKSPEED_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "dlm/dlm_internal.h"
#include "utils/env/real.h"
#include "utils/env/real_link_internal.h"

#define NODES_MAX 3u
#define ROUNDS 11
#define PINGS 1000

enum word { W_MSG = 1, W_RING, W_JOIN, W_LEAVE, W_GO, W_DONE, W_PART };

struct bench;
struct bench_mode {
	const char *name;
	void (*start)(struct bench *b);					/* ports are there, the loop runs next */
	void (*word)(struct bench *b, enum word w, uint32_t from, const uint8_t *buf, size_t len);	/* W_GO and later */
	void (*gone)(struct bench *b, uint32_t who);			/* hub: that node has ended; NULL: an error */
};
extern const struct bench_mode mode_locks, mode_recover, mode_volume;

struct bench {
	const struct bench_mode *mode;
	const char *arg;		/* of the mode: how many locks, which device */
	uint32_t self, n;
	int fd[NODES_MAX + 1];		/* the hub: to each other node; the others: [1] */
	struct clock clock;
	struct rnd_port rnd;
	struct logger log;
	struct sched *sched;
	struct loop *loop;
	struct env env;
	struct link_port *link;
	struct real_nodes nodes;
	struct cluster_port port;
	const struct cluster_raw_events *ev;
	void *ev_arg;
	uint32_t joined;		/* hub: a bit a node */
	uint64_t ring_seq;
	struct job deliver;
	struct cds_list_head queue;	/* struct packet: rings and messages in order */
	int ping_fd;
	void *priv;			/* the mode's own */
};

void die(const char *what);
static inline uint64_t now(struct bench *b) { return clock_mono_ns(&b->clock); }
/* To a node, 0: to all others. */
void tell(struct bench *b, uint32_t to, enum word w, const void *buf, size_t len);
void ring(struct bench *b, uint32_t members);		/* hub: a new view of these (a bit each, from bit 1) */
double ping_round(struct bench *b);			/* microseconds; not the hub */
double median(double *v, unsigned n);			/* sorts */
/* Prints the figure with its bound beside it.  The process ends with an error when one is not met. */
enum bound { AT_MOST, AT_LEAST };
void judge(double value, enum bound how, double bound, const char *unit, const char *fmt, ...) csv_printf_like(5, 6);
extern bool judged_bad;

#endif
