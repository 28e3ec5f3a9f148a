/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlmsim.h - the lock manager's simulation: nodes with lock traffic (dlmsim_node.c), owners that lock in any order (dlmsim_owner.c), oracles
 * (dlmsim_oracle.c), runs (dlmsim.c).
 */
#ifndef CSVFS_TESTS_SIM_DLMSIM_H
#define CSVFS_TESTS_SIM_DLMSIM_H

#include "dlm/dlm_internal.h"
#include "tests/sim/sim_net.h"

#define DS_NAMES 10		/* locks that are given up when somebody asks */
#define DS_OWNED 4		/* locks that owners hold until they have all they want */
#define DS_ALL (DS_NAMES + DS_OWNED)
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
	bool noqueue, cancelled, converting;
	enum dlm_mode seen;		/* oracle: granted after the last step */
};

struct ds_lost {			/* what the stand-in for the file system knows of a lost node */
	struct ds_node *n;
	struct cluster_node who;
	bool fenced, replayed, fencing;
	struct timer timer;
	struct fence_req req;
};

/* An owner: takes locks one after the other, in any order, and gives none up before it has them all or has failed. */
struct ds_owner {
	uint64_t id;			/* 0: none at present */
	unsigned steps, waits_for;	/* waits_for: index of the lock, DS_ALL: none */
	bool circle;			/* oracle: at its second look it was the greatest in a circle */
	struct timer timer;
};

struct ds_node {
	struct ds_sim *sim;
	unsigned node;
	bool up;
	struct env *env;
	struct dlm *dlm;
	uint64_t incarnation;
	struct ds_lock lock[DS_ALL];
	struct ds_owner owner;
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
	uint64_t next_owner;
	uint64_t version[DS_ALL];	/* of the value last written under PW/EX */
	uint64_t floor[DS_ALL];	/* the oldest that a CR asked for now may see: a PW holder's news may be under way */
	bool unknown[DS_ALL];		/* a writer died: only INVALID will do */
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
uint64_t ds_rnd(struct ds_node *n, uint64_t below);
uint64_t ds_delay(struct ds_node *n, uint64_t typical_ns);
void ds_set_timer(struct ds_node *n, struct timer *t, uint64_t in_ns);
void ds_ask(struct ds_lock *k, enum dlm_mode mode, unsigned flags);
bool ds_convert(struct ds_lock *k, unsigned flags);	/* to some stronger mode; false: there is none */
void ds_give_up(struct ds_lock *k, enum dlm_mode to);
void ds_slot_active(struct ds_sim *s, struct cluster_node who);
void ds_slot_free(struct ds_sim *s, struct cluster_node who);

/* dlmsim_owner.c */
void ds_owner_init(struct ds_node *n);
void ds_owner_start(struct ds_node *n);
void ds_owner_done(struct ds_lock *k, int status);
void ds_owner_second_look(void *arg, const struct dlm_lock *l);

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
