/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cluster_model.h - a small model of the cluster engine under the real view tracker: rings, ordered streams that are consumed at different
 * speeds, quorum on a way of its own, partitions, restarts, messages that reach their sender alone.  What must be true is looked at
 * in every step; the first that is not stands in world.violation.
 */
#ifndef CSVFS_TESTS_UNIT_CLUSTER_MODEL_H
#define CSVFS_TESTS_UNIT_CLUSTER_MODEL_H

#include "tests/unit/unit.h"

#include <stdio.h>
#include <urcu/list.h>

#include "tests/unit/env_fake.h"
#include "utils/base/prng.h"
#include "utils/env/cluster.h"

#define NODES 64		/* node ids 1 … NODES */
#define VIEWS_MAX 4096
#define MSGS_MAX 16384
#define CM_ROUND_NS (3600 * NS_PER_MS)	/* of the membership protocol */

enum ev_kind { EV_TOTEM, EV_MEMBERS, EV_QUORUM, EV_MSG, EV_PROCDOWN };

struct ev {
	struct cds_list_head node;
	enum ev_kind kind;
	struct ring_id ring;
	bool quorate;
	uint32_t from, n;
	uint32_t m[NODES];
	size_t len;
	uint8_t buf[];
};

/* What the model knows of a view: the first who gets it writes it down, the others must agree. */
struct seen_view {
	struct cluster_view v;
	unsigned n_msgs;
	uint32_t msgs[256];
};

struct node {
	struct cluster_port port;
	struct world *w;
	uint32_t id;
	/* engine */
	unsigned component;
	struct ring_id ring;
	bool proc;			/* the process is in the group */
	struct cds_list_head stream, quorum;	/* not consumed yet */
	struct cds_list_head outbox;		/* accepted, not ordered yet */
	/* process */
	struct sched *s;
	struct cluster *c;
	uint64_t incarnation, life_of_process[64];	/* by incarnation: a process may have several lives */
	unsigned n_lives;
	const struct cluster_raw_events *to;
	void *to_arg;
	struct ring_id fed_ring, fed_quorum_ring;	/* what it was told so far */
	bool fed_quorate;
	uint32_t votes_most;		/* expected, that it was ever told of in this process */
	/* what it told its user */
	bool usable;
	struct ring_id last_view;
	struct seen_view *in;
	unsigned at_msg;
};

struct world {
	struct fake_clock clk;
	struct csv_prng prng;
	unsigned n;
	struct node node[NODES];
	uint64_t seq, next_incarnation;
	struct seen_view *views;
	unsigned n_views;
	uint32_t next_msg;
	struct ring_id msg_view[MSGS_MAX];	/* under which view it was sent */
	bool msg_alone[MSGS_MAX];		/* reached only its sender */
	bool mutate, own_votes, calm;
	uint64_t got_views, got_msgs, proofs, alone;
	char violation[256];
};

extern const struct cluster_port_ops cm_port_ops;

/* Mutation of what cm_init() makes from now on: cluster_mutate_own_votes(). */
extern bool cm_own_votes;
/* n processes in one ring, started; mutate: the tracker does not compare ring ids. */
void cm_init(struct world *w, uint64_t seed, unsigned n, bool mutate);
void cm_done(struct world *w);
/* Something that may happen happens. */
void cm_step(struct world *w);
void cm_fault(struct world *w);
void cm_partition(struct world *w, unsigned parts);
/* Everybody to the side that is named for it ('a', 'b', ...), each side in a ring; settled, and a second goes by. */
void cm_sides(struct world *w, const char *side);
/* Everybody in `component` moves to a new ring. */
void cm_new_ring(struct world *w, unsigned component);
/* No more faults; until nothing happens any more. */
void cm_flow(struct world *w);
/* And then: everybody in the majority must come to one view, the others to none. */
void cm_settle(struct world *w);
void cm_start(struct world *w, struct node *n);
/* tell: the engine says so to the others. */
void cm_kill(struct world *w, struct node *n, bool tell);
/* One accepted message of n gets its place in the order. */
void cm_order_one(struct world *w, struct node *n);
/* Its process is told the next of that stream. */
void cm_feed(struct world *w, struct node *n, struct cds_list_head *q);
void cm_user_sends(struct world *w, struct node *n);
void cm_ev_drop(struct cds_list_head *q);

#endif
