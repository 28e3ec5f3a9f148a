/* SPDX-License-Identifier: GPL-2.0-only */
/* sim_net_internal.h - what the parts of the simulated network share (sim_net.c, sim_engine.c, sim_link.c). */
#ifndef CSVFS_TESTS_SIM_SIM_NET_INTERNAL_H
#define CSVFS_TESTS_SIM_SIM_NET_INTERNAL_H

#include "tests/sim/sim_net.h"
#include "utils/base/base.h"

struct eng_ring {
	struct eng_ring *next;		/* all rings ever, freed at the end */
	struct ring_id id;
	uint32_t mask, group;		/* bit node */
	uint64_t log;			/* items ordered so far */
	bool broken;			/* the token is lost: nothing more is ordered */
	bool quorate;
};

struct eng_node {
	struct sim_net *net;
	unsigned node;
	struct cluster_port port;
	const struct cluster_raw_events *ev;	/* NULL: daemon not in the group */
	void *arg;
	bool up;			/* engine */
	unsigned side;
	uint32_t expected;		/* votes, as its engine has been told */
	struct eng_ring *ring;
	uint64_t seen;			/* items of `ring` handed over */
	uint64_t last_due_ns, last_quorum_ns;
	struct cds_list_head pending, inbox;	/* struct eng_item; inbox: the daemon's socket */
	struct cds_list_head quorum_pending, quorum_inbox;
	struct cds_list_head unsent;
	struct job job, quorum_job;
	struct sim_told told;
};

struct link_side {			/* what a node has of the connection to one peer */
	struct sim_net *net;
	unsigned node, peer;
	bool up;			/* as the node knows it */
	uint64_t epoch;			/* of the connection that is up */
	uint64_t last_due_ns;
	struct cds_list_head pending, inbox;
	struct job job;
};

struct link_node {
	struct sim_net *net;
	unsigned node;
	struct link_port port;
	const struct link_events *ev;
	void *arg;
	uint32_t wanted;
	struct link_side side[SIM_NODES_MAX + 1];
};

struct link_conn { bool up, opening; uint64_t epoch; };

struct net_life {
	bool up;
	uint64_t life, incarnation;
	struct env env;
	struct rnd_port rnd;
	struct logger log;
	struct csv_prng prng;
	struct fence_port fence;
	struct sim_net *net;
	unsigned node;
	struct cds_list_head fence_done;	/* struct fence_job: results for this life */
	struct job fence_job;
	bool back_planned;
};

struct known_life { struct cluster_node who; uint64_t life; };

struct sim_net {
	struct sim_world *w;
	uint64_t lockspace;
	struct sim_net_hooks hooks;
	unsigned nodes;
	struct net_life life[SIM_NODES_MAX + 1];
	struct eng_node eng[SIM_NODES_MAX + 1];
	struct link_node link[SIM_NODES_MAX + 1];
	struct link_conn conn[SIM_NODES_MAX + 1][SIM_NODES_MAX + 1];	/* [low][high] */
	uint64_t cut_until_ns[SIM_NODES_MAX + 1][SIM_NODES_MAX + 1];
	struct eng_ring *rings;
	uint64_t ring_seq, next_incarnation;
	unsigned fence_failures;
	bool quiet;			/* repair_all: no pushback, no further faults */
	struct known_life *known;
	size_t n_known;
};

void sim_engine_init(struct sim_net *net);
void sim_engine_done(struct sim_net *net);
void sim_engine_up(struct sim_net *net, unsigned node);
void sim_engine_down(struct sim_net *net, unsigned node);		/* power */
void sim_engine_left(struct sim_net *net, unsigned node, bool died);	/* the daemon */
void sim_engine_changed(struct sim_net *net);				/* who reaches whom */
void sim_engine_token_loss(struct sim_net *net, unsigned node);

void sim_link_init(struct sim_net *net);
void sim_link_down(struct sim_net *net, unsigned node, bool power);
void sim_link_break(struct sim_net *net, unsigned a, unsigned b);
void sim_link_changed(struct sim_net *net);
bool sim_link_reaches(const struct sim_net *net, unsigned from, unsigned to);

#endif
