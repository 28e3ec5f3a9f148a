/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * model.h - leases, migration and failover as an explicit-state model: three nodes that run the product's own leasedb.c, lease.c,
 * lease_lead.c and vmsm*.c (built with smaller tables), in a world that does everything it may do.
 *
 * A *step* is one thing that the world does (a QEMU takes a command, a node dies, a view comes, a timer fires), and everything that follows
 * from it at once: messages in a healthy network arrive, agents look at records, the leader does its duty.  What may go wrong on the
 * way (a message is lost, held back or doubled, its sender is cut off, an agent dies between two actions) is a *choice* inside the step.
 * Each fault takes from a budget, so the set of states is finite; the search goes through all steps and all choices, breadth first.
 *
 * Invariants of a state
 *  MO1 (G4) At most one QEMU of a VM executes, on whatever node that has power, reachable or not; one that is being killed counts
 *      until it is gone.
 *  MO2 A QEMU that begins to execute has a memory as new as the disk.
 *  MO3 Two nodes that have settled records of the same version and cold start have the same record.
 *  MO5 The reaper ends no QEMU that executes: by MO1 it is the only one.
 *  MO4 Progress: when nothing fails any more, and a majority is up, every VM comes to run, or to BLOCKED or FREE with a reason.
 *
 * State is one flat structure without pointers.  One thread.
 */
#ifndef CSVFS_TESTS_MODEL_H
#define CSVFS_TESTS_MODEL_H

#include <stdio.h>

#include "hvhost/vmsm.h"
#include "migrator/lease_lead.h"
#include "migrator/leasedb.h"

#define NODES 3
#define VMS 2
#define HELD_BYTES 400

enum agent { AGENT_TRUE = 0, AGENT_LYING, AGENT_NONE };

struct mq {
	uint8_t st;		/* enum vmsm_qemu: NONE, STARTING, PRELAUNCH, INCOMING, RUNNING, PAUSED, IOERROR, DYING */
	uint8_t mig;		/* enum vmsm_mig */
	uint8_t cmd;		/* enum vmsm_act that it has not taken yet */
	uint8_t stale;		/* the disk is newer than its memory */
	uint8_t wrote;		/* DYING: was executing, its last writes may still land */
	uint8_t was_running;	/* before the migration: what it goes back to by itself */
	uint8_t peer;		/* node + 1 that its migration stream leads to or comes from */
	uint8_t late_mig, late_st;	/* what its agent asked and has not heard yet: st + 1 */
	uint8_t pad[3];
	uint32_t cmd_node;
	uint64_t txid;		/* target of this one; source: of its MIGRATE */
	struct vmsm_mark mark;	/* on tmpfs */
};

struct mipc { struct lease_cas cas; uint64_t ring; uint8_t full, pad[7]; };

struct mnode {
	uint8_t up, mig_up, hv_up;
	uint8_t vmask, vq;	/* view: members, quorate */
	uint8_t fence[NODES];	/* enum lease_fence */
	uint8_t pad[8];
	uint64_t inc, life;
	uint64_t vlife[NODES];
	uint64_t fence_inc[NODES];
	struct leasedb db;
	struct vmsm sm[VMS];
	uint64_t prop_id[VMS];	/* of the proposal that its agent waits for */
	struct mq q[VMS];
	uint64_t ended[VMS];	/* on tmpfs: the highest epoch that a QEMU was bound to and is gone */
	struct mipc ipc[VMS];	/* a proposal that is still between agent and migratord */
};

struct mbudget {
	uint8_t node, hv, mig, qemu;	/* deaths */
	uint8_t cut, heal;		/* a node cut off; all joined again */
	uint8_t msg;			/* messages lost, held, doubled, delivered to the sender alone; IPC held */
	uint8_t fail;			/* migrations that fail by themselves */
	uint8_t migrate, cancel, stop;
	uint8_t late;			/* answers to queries that come when they are not true any more */
	uint8_t io;			/* volumes that go away under a guest that executes */
	uint8_t pad[3];
};

struct mstate {
	struct mnode n[NODES];
	uint8_t group[NODES];	/* who can talk to whom */
	uint8_t agent, nvm;
	uint8_t held_from;	/* + 1; 0: none */
	uint8_t pad[2];
	struct mbudget b;
	uint64_t ring, txid;
	uint32_t held_len, pad2;
	uint8_t held[HELD_BYTES];
};

enum step_kind {
	STEP_NONE = 0,
	STEP_VIEW, STEP_TICK, STEP_CMD, STEP_GONE, STEP_SPAWNED, STEP_TIMER, STEP_FENCED, STEP_IPC, STEP_HELD,
	STEP_LATE, STEP_LOOK, STEP_PRESWITCH, STEP_LOADED, STEP_COMPLETED, STEP_HV_UP, STEP_MIG_UP, STEP_NODE_UP, STEP_REBOUND,
	STEP_FIRST_FAULT,
	STEP_MIGRATE = STEP_FIRST_FAULT, STEP_CANCEL, STEP_STOP, STEP_FAIL, STEP_QEMU_DIES, STEP_HV_DIES, STEP_MIG_DIES, STEP_NODE_DIES, STEP_CUT, STEP_HEAL, STEP_IO_ERROR,
	STEP_END
};
struct step { uint8_t kind, a, b, c; };

#define CHOICES 3		/* that differ from "nothing goes wrong" in one step */
struct path { struct step step; uint8_t n, at[CHOICES], value[CHOICES]; };

struct world {
	struct mstate s;
	unsigned mutate;
	const struct path *path;
	unsigned pos;		/* choice points met */
	uint8_t fan[256];
	FILE *story;		/* NULL: silent */
	char violation[200];	/* "" none */
	bool only_g4;		/* MO3 does not count: mutations must break G4 or MO2 */
	/* the inside of a step */
	struct item *queue;
	unsigned q_head, q_tail;
	uint8_t led[VMS], told[NODES];
};

/* A first state: three nodes up, nothing settled. */
void world_init(struct world *w, unsigned nvm, enum agent agent, const struct mbudget *b, unsigned mutate);
/* All that may happen in this state; at most max. */
unsigned world_steps(const struct mstate *s, struct step *ret, unsigned max);
/* Does path->step with its choices on w->s. */
void world_do(struct world *w, const struct path *path);
/* What may be done when nothing goes wrong any more and what is down comes back as far as a majority needs it; best first. */
unsigned world_heal_steps(const struct mstate *s, struct step *ret, unsigned max);
bool world_is_good(const struct mstate *s);
const char *step_text(const struct step *t, char *buf, size_t size);
void world_print(const struct mstate *s, FILE *out);

#define MUT_LEASE(m)	(m)		/* LEASE_MUT_*, LEASEDB_MUT_*: bits 0 to 7 */
#define MUT_VMSM(m)	((m) << 8)	/* VMSM_MUT_* */

#endif
