/* SPDX-License-Identifier: GPL-2.0-only */
/* dlmsim.h - the lock manager's simulation: nodes with lock traffic (dlmsim_node.c), oracle (dlmsim_oracle.c), runs (dlmsim.c). */
#ifndef CSVFS_TESTS_SIM_DLMSIM_H
#define CSVFS_TESTS_SIM_DLMSIM_H

#include "dlm/dlm_internal.h"
#include "tests/sim/sim_net.h"

#define DS_NAMES 10
#define DS_LOST_MAX 256

struct ds_sim;
struct ds_node;

struct ds_lock {
	struct dlm_lock l;		/* first */
	struct ds_node *n;
	unsigned name;
	struct timer hold, cancel;
	uint64_t asked_floor;		/* oracle: s->floor at the time of the request */
	uint64_t asked_ns;
	bool noqueue, cancelled;
	enum dlm_mode seen;		/* oracle: granted after the last step */
};

struct ds_lost {			/* what the stand-in for the file system knows of a lost node */
	struct ds_node *n;
	struct cluster_node who;
	bool fenced, replayed, fencing;
	struct timer timer;
	struct fence_req req;
};

struct ds_node {
	struct ds_sim *sim;
	unsigned node;
	bool up;
	struct env *env;
	struct dlm *dlm;
	uint64_t incarnation;
	struct ds_lock lock[DS_NAMES];
	struct timer op, drain, survey;
	uint64_t ticket;
	unsigned n_lost;
	struct ds_lost *lost[DS_LOST_MAX];
	bool purged, leaving, leave_called;
	struct cluster_node withdrawn;	/* our last incarnation, to be announced */
};

/* Who held what when it died, until the world has proof. */
struct ds_ghost { struct cluster_node who; unsigned name; enum dlm_mode mode; };

struct ds_options { unsigned nodes, ops; const char *mutate; bool verbose, no_faults; };

struct ds_sim {
	struct ds_options opt;
	uint64_t seed;
	struct sim_world *w;
	struct sim_net *net;
	struct ds_node node[SIM_NODES_MAX + 1];
	unsigned ops_left;
	bool winding_down;		/* no new requests: everything granted is released */
	unsigned sweep;			/* final sweep: requests still to be made */
	/* the slot table on the disk: who is ACTIVE */
	unsigned n_active;
	struct cluster_node active[1024];
	/* oracle */
	uint64_t left_clean[SIM_NODES_MAX + 1];	/* last incarnation that left after dlm_leave() ... */
	uint64_t left_known[SIM_NODES_MAX + 1][SIM_NODES_MAX + 1];	/* ... and the incarnations that acknowledged it */
	unsigned n_ghost;
	struct ds_ghost ghost[1024];
	uint64_t version[DS_NAMES];	/* of the value last written under PW/EX */
	uint64_t floor[DS_NAMES];	/* the oldest that a CR asked for now may see: a PW holder's news may be under way */
	bool unknown[DS_NAMES];		/* a writer died: only INVALID will do */
	uint64_t next_version;
	bool failed;
	char why[256];
};

/* dlmsim.c */
void ds_fail(struct ds_sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* dlmsim_node.c */
void ds_node_start(void *arg, unsigned node, struct env *env);
void ds_node_down(void *arg, unsigned node);
bool ds_node_idle(const struct ds_node *n);
void ds_node_sweep(struct ds_node *n);
void ds_slot_active(struct ds_sim *s, struct cluster_node who);
void ds_slot_free(struct ds_sim *s, struct cluster_node who);

/* dlmsim_oracle.c */
void ds_oracle_step(void *arg);
void ds_oracle_died(struct ds_sim *s, struct ds_node *n, bool process_only);
void ds_oracle_fenced(struct ds_sim *s, unsigned node, uint64_t life);
void ds_oracle_replayed(struct ds_sim *s, struct cluster_node who);
void ds_oracle_written(struct ds_lock *k);
void ds_oracle_granted(struct ds_lock *k);
void ds_oracle_end(struct ds_sim *s);
void ds_oracle_free(struct ds_sim *s);

#endif
