/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sim_net.h - the network part of the simulated world: group engine (as corosync behaves), links between nodes, power and
 * process deaths, fencing.  Stands on sim_world; the ports it gives are those of utils/env.
 *
 * The engine.  Nodes that reach each other form a ring (totem); every change, and a lost token as well, makes a new one, in
 * each part of a partition at a time of its own.  Within a ring messages and group changes have one order on all.  Quorum
 * comes on a separate way and may be early or late.  Nodes that go from one ring to the next together have delivered the
 * same of the old one (extended virtual synchrony); a node that goes alone may deliver to itself what nobody else gets.
 *
 * Links.  One connection a pair, set up when both want it and reach each other; a break loses what is in flight, on both
 * ways; a one-way cut holds frames back and breaks the connection when it lasts.
 *
 * A node's *life* is the time between sim_net_boot() and its power cut or its process's death.  Power cut: engine gone too, the
 * others find out by the token.  Process death: the engine says procdown, after hooks.reaped() (the kernel waits for its I/O).
 */
#ifndef CSVFS_TESTS_SIM_SIM_NET_H
#define CSVFS_TESTS_SIM_SIM_NET_H

#include "tests/sim/sim_world.h"
#include "utils/env/env.h"

struct sim_net;

/* The user's side of a node.  All optional but start. */
struct sim_net_hooks {
	/*
	 * A fresh life: `env` has everything but blk (sched, clock, cluster, mesh, fence, rnd, log); make what runs on it and register it.
	 * After this the net starts cluster and mesh.  The env is the node's until down().
	 */
	void (*start)(void *arg, unsigned node, struct env *env);
	bool starts_itself;		/* what start() made calls mesh_start() and cluster_start() itself (a mount does) */
	/* The life is over; frees what start() made (nothing of it may act; env is still there, its cluster and mesh go after). */
	void (*down)(void *arg, unsigned node);
	/* Every write of lives <= `life` of the node is done or never will be: a fence has been confirmed. */
	void (*fenced)(void *arg, unsigned node, uint64_t life);
	/* Node `by` asks its agent to fence `who`. */
	void (*asked)(void *arg, unsigned by, struct cluster_node who);
	/* The process died on a living node: its I/O has to be over when this returns. */
	void (*reaped)(void *arg, unsigned node, uint64_t life);
	void *arg;
};

struct sim_net *sim_net_new(struct sim_world *w, uint64_t lockspace, const struct sim_net_hooks *hooks);
/* Ends all lives first. */
void sim_net_free(struct sim_net *net);

/* ---- lives ------------------------------------------------------------------------------------------------------- */

void sim_net_boot(struct sim_net *net, unsigned node);
void sim_net_boot_later(struct sim_net *net, unsigned node);	/* after a restart's delay, unless it is up by then */
void sim_net_power_cut(struct sim_net *net, unsigned node);
void sim_net_kill_process(struct sim_net *net, unsigned node);
/* An orderly exit: cluster_stop() has been called by the user, or is now; the node leaves the group; down() is called. */
void sim_net_exit(struct sim_net *net, unsigned node);
struct env *sim_net_env(struct sim_net *net, unsigned node);	/* NULL while down */
uint64_t sim_net_incarnation(const struct sim_net *net, unsigned node);	/* of the present or last life */
/* A fresh one for cluster_new_incarnation(). */
uint64_t sim_net_next_incarnation(struct sim_net *net, unsigned node);
/* Which life an incarnation belonged to; 0: unknown. */
uint64_t sim_net_life_of(const struct sim_net *net, struct cluster_node who);

/* What the engine has told the daemon of this node in its present life: a view can rest on nothing else. */
struct sim_told { struct ring_id ring, quorum_ring; uint32_t mask; bool members, quorate; };	/* mask: bit nodeid, of that ring */
const struct sim_told *sim_net_told(const struct sim_net *net, unsigned node);

/* ---- faults (each counted as fault.*) ------------------------------------------------------------------------------- */

void sim_net_partition(struct sim_net *net, const unsigned *side);	/* side[1..nodes]: who is with whom */
void sim_net_heal(struct sim_net *net);					/* partition, cuts: all gone */
bool sim_net_is_whole(const struct sim_net *net);
void sim_net_token_loss(struct sim_net *net, unsigned node);		/* its ring forms anew with the same members */
void sim_net_break_link(struct sim_net *net, unsigned a, unsigned b);
void sim_net_cut_one_way(struct sim_net *net, unsigned from, unsigned to, uint64_t until_ns);
void sim_net_fence_fails(struct sim_net *net, unsigned times);		/* the next ones */
/* What the engine of `node` says of the votes there are, from its next ring on: its configuration is an old one.  0: says nothing. */
void sim_net_expects(struct sim_net *net, unsigned node, uint32_t votes);
bool sim_net_quorate_without(const struct sim_net *net, unsigned node);	/* would the nodes that are up still be a majority? */

/*
 * One fault, drawn: partition, heal, token loss, link break, one-way cut, stall, power cut, process death, fence failures.
 * Dead nodes come back after a while by themselves.  Never more than a minority is dead at once.
 */
void sim_net_random_fault(struct sim_net *net);
/* No further faults, everything repaired, all nodes up again (after their restart delay). */
void sim_net_repair_all(struct sim_net *net);
/* Declares all kinds above as wanted in `t`. */
void sim_net_want_faults(struct sim_counters *t);

#endif
