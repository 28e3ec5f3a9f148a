/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig.h - the coordinator's core: what migratord does, without clock, socket or thread of its own.
 *
 *	mig.c		life, views, who leads			mig_item.c	what all members know alike: jobs, migrations, hosts, nodes
 *	mig_agent.c	the line to this node's hvhostd		mig_call.c	commands to the hvhostd of any node; requests of csvctl
 *	mig_event.c	the event log; mig_late.c: what was missed	mig_job.c	long work
 *	mig_lease.c	leases: carried, proposed, told		mig_ha.c	level-triggered: what the leases want of whom
 *	mig_proof.c	fencing, execution proofs		mig_known.c	what is known when nobody remembers; the durable copy
 *	mig_vm.c	create, stop, delete			mig_move.c	migrations; mig_plan.c: what one would be like
 *	mig_start.c	a start that is asked for		mig_show.c	what is shown, table of verbs
 *	mig_node.c	drain, resume, shut down, confirm	mig_place.c	where to
 *
 * Invariants
 *  MC1 The leader is the lowest member of the quorate view.  It keeps nothing that matters in memory: what it does next follows from
 *      the committed leases, from the items every member has, and from what the agents answer.  A new leader goes on from there.
 *  MC2 Nothing is decided without a quorate view; whatever was under way when the view changed is looked at anew.
 *  MC3 A node that was lost takes its VMs' right to run with it until an execution proof about (node, incarnation) exists: power off
 *      confirmed by the agent's status and its heartbeat unchanged for 3 R, or its own release, or an operator's word.  No proof: the
 *      leases are BLOCKED, with the reason and the exact command.
 *  MC4 A command to an agent carries the ring it was decided in; an agent refuses one of an older ring.
 *  MC5 `want` is durable in the VM's definition before its lease says so.
 *
 * What a membership change does: suspend() ends every wait for other nodes with -ECONNRESET; view() makes every member say anew what
 * it knows, then the leader begins to look.
 *
 * One thread.
 */
#ifndef CSVFS_MIGRATOR_MIG_H
#define CSVFS_MIGRATOR_MIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "utils/base/err.h"
#include "utils/env/env.h"
#include "utils/rpc/rpc_msg.h"

#define MIG_NAME_MAX 64
#define MIG_ADDRS_MAX 8
#define MIG_HBEAT_R_MS 500u		/* period of a node's heartbeat on the disk */

struct mig_node { uint32_t nodeid; char name[MIG_NAME_MAX]; unsigned n_addrs; char addr[MIG_ADDRS_MAX][64]; };

struct mig_config {
	uint32_t self;
	uint64_t incarnation;		/* of the *node*: new at boot, or when the others purged it */
	bool left;			/* in this boot it has left in order: it stays drained */
	unsigned n_nodes;		/* configured */
	struct mig_node node[CLUSTER_NODES_MAX];
	char cluster_name[64];
	uint64_t link_bps;		/* of the network to the other nodes; 0: unknown */
	unsigned parallel;		/* migrations of one node at once */
	uint64_t bandwidth_bps;		/* of one migration; 0: no limit */
	unsigned downtime_ms;		/* the pause aimed at */
	unsigned pause_budget_ms;	/* the longest pause that a migration may take to get through */
	unsigned throttle_percent;	/* that a guest may be slowed down for it; 0: not at all */
};

/* The newest heartbeats of a node's lives on the disks: their sum changes while any of them beats. */
struct mig_hbeat_req {
	uint32_t nodeid;
	int result;			/* 0; -errno: nothing could be read */
	uint64_t beats;
	void (*done)(struct mig_hbeat_req *r);
	void *arg;
};

enum mig_leave { MIG_LEAVE_ENGINE, MIG_LEAVE_PURGED, MIG_LEAVE_NODE };
struct mig_port;
struct mig_port_ops {
	/* A line to this node's hvhostd (newline included); false: it is not connected. */
	bool (*agent_send)(struct mig_port *p, const char *line, size_t len);
	/* An event for the durable log of this node, one JSON text. */
	void (*event_append)(struct mig_port *p, const char *text);
	/* The durable copy of what mig_known.c keeps: replaces the last one; mig_new() is given it in the next life. */
	void (*keep)(struct mig_port *p, const char *text);
	/* done() is called once, later. */
	void (*hbeat_read)(struct mig_port *p, struct mig_hbeat_req *r);
	/*
	 * This daemon ends.  ENGINE: corosync is gone.  PURGED: it comes back at once, with a new incarnation of the node.  NODE: the node
	 * leaves in order; whoever starts it again in this boot has a new incarnation and stays drained.
	 */
	void (*leave)(struct mig_port *p, enum mig_leave how, const char *why);
};
struct mig_port { const struct mig_port_ops *ops; };

struct mig;

/*
 * Before cluster_start(): registers itself with env->cluster.  `past`: events of the durable log, oldest first; `kept`: what keep() was given
 * last; either may be NULL; borrowed.
 */
int mig_new(struct env *env, struct mig_port *port, const struct mig_config *cfg, const json_t *past, const json_t *kept, struct mig **ret,
	    struct csv_err *err);
void mig_free(struct mig *m);

/* From the shell: the line to hvhostd. */
void mig_agent_up(struct mig *m);
void mig_agent_down(struct mig *m, const char *why);
void mig_agent_text(struct mig *m, json_t *text);	/* borrowed */

/* A request of csvctl; `reply` is called once, with a new reply (NULL: out of memory). */
struct mig_request { const char *verb; const json_t *args; void (*reply)(void *arg, json_t *reply_take); void *arg; };
void mig_request(struct mig *m, const struct mig_request *r);

#endif
