/*
 * mig_world.h - the coordinators of three nodes in one process: the real core of migratord with the real replicas of leases; fake are the
 * group engine, hvhostd, fence devices, heartbeats and time.
 *
 * The fake hvhostd does at once what a record asks for (a QEMU is a flag), after delays that the test sets.
 *
 * Invariant
 *  MW1 At most one QEMU of a VM executes on nodes that have power (G4); looked at after every step.
 */
#ifndef CSVFS_TESTS_UNIT_MIG_WORLD_H
#define CSVFS_TESTS_UNIT_MIG_WORLD_H

#include <urcu/list.h>

#include "migrator/mig_work.h"
#include "tests/unit/env_fake.h"
#include "tests/unit/unit.h"

#define MW_NODES 3
#define MW_VMS 24
#define MW_MB ((json_int_t)1 << 20)
#define MW_GB ((json_int_t)1 << 30)
#define MW_ROUND_NS (3600 * NS_PER_MS)	/* of the membership protocol */

struct mw;

/* A definition on the volume. */
struct mw_def { char name[LEASE_NAME_BYTES]; const char *want; int config, priority; bool ha; json_int_t memory; const char *error; };

/* What a node has of a VM. */
struct mw_vm {
	char name[LEASE_NAME_BYTES];
	struct lease rec;
	uint64_t ring, epoch, asked_txid, bound_txid;
	bool known, there, runs, open, kill, cancelled, due;
};

struct mw_node {
	struct mw *w;
	uint32_t id;
	unsigned part;			/* of the network */
	bool power, daemon, agent, agent_wanted, left;
	bool shared_disk_ok;
	unsigned leaves[MIG_LEAVE_NODE + 1];	/* how often its migratord said that it ends so */
	uint64_t inc;			/* of the node's life */
	/* migratord */
	struct sched *s;
	struct env env;
	struct cluster_port cport;
	const struct cluster_raw_events *to;
	void *to_arg;
	struct ring_id ring;
	struct cds_list_head in;	/* of the engine */
	struct mig_port port;
	struct fence_port fence;
	struct mig *m;
	/* hvhostd */
	struct cds_list_head lines;	/* of migratord, not looked at yet */
	struct mw_vm vm[MW_VMS];
	uint64_t proposals;
	json_int_t memory;
	bool mute;			/* takes commands, answers none */
	/* the volume here: NULL state: "alive"; said by mw_host_news() */
	const char *mount_state, *mount_reason, *mount_command, *qemu_reason;
	char *kept;			/* the durable copy; it outlives everything */
	json_t *durable;		/* events; the same */
	unsigned n_kill;
};

struct mw {
	struct fake_clock clk;
	struct logger log;
	struct rnd_port rnd;
	uint64_t seed, seq, life;
	struct mw_node node[MW_NODES + 1];	/* [0] is not used */
	struct mw_def def[MW_VMS];
	unsigned n_defs;
	struct cds_list_head later;
	/* what the test sets */
	uint64_t start_ns, move_ns, fence_ns;
	unsigned start_fails;		/* that many starts fail */
	const char *list_fails;		/* what hvhostd says when it is asked for definitions; NULL: what they are */
	uint32_t list_fails_on;		/* there alone; 0: everywhere */
	bool deaf_guests;		/* do not shut down when asked */
	bool never_moves, moves_fail;	/* fail: after move_ns the source gives up */
	int fence_rc[MW_NODES + 1];
	bool fence_lies[MW_NODES + 1];
	bool hbeat_moves[MW_NODES + 1];	/* though it has no power */
	int hbeat_rc;
	/* what it sees */
	unsigned n_fenced[MW_NODES + 1];
	char began[MW_VMS * 4][LEASE_NAME_BYTES];	/* VMs in the order in which a QEMU of theirs was begun */
	uint64_t began_ns[MW_VMS * 4];
	uint32_t began_on[MW_VMS * 4];
	unsigned n_began;
	json_int_t params_budget;	/* of the last "migrate" */
	json_t *reply;			/* to the last mw_ask(); owned */
	bool replied;
};

/* Three nodes, all up, all agents there, settled. */
struct mw *mw_new(void);
void mw_free(struct mw *w);
void mw_run(struct mw *w, uint64_t ns);
/* Until check() or ns are over; what check() said. */
bool mw_until(struct mw *w, uint64_t ns, bool (*check)(struct mw *w));

/* ---- faults */
void mw_power_cut(struct mw *w, uint32_t id);
void mw_boot(struct mw *w, uint32_t id, bool with_agent);
void mw_daemon_kill(struct mw *w, uint32_t id);		/* migratord: SIGKILL */
void mw_daemon_start(struct mw *w, uint32_t id);
void mw_agent_kill(struct mw *w, uint32_t id);
void mw_agent_start(struct mw *w, uint32_t id);
void mw_cut(struct mw *w, uint32_t id);			/* from the others */
void mw_heal(struct mw *w);
void mw_all_off(struct mw *w);
void mw_mount_is(struct mw *w, uint32_t id, const char *state, const char *reason, const char *command);	/* told at once, where somebody listens */
void mw_host_news(struct mw *w, uint32_t id);
void mw_apart(struct mw *w);				/* everybody from everybody */
void mw_meet(struct mw *w, uint32_t a, uint32_t b);	/* these two find each other */
void mw_new_ring(struct mw *w);				/* of all, with the same members */

/* ---- VMs */
/* Defined on the volume; its lease comes by the leader's look. */
struct mw_def *mw_define(struct mw *w, const char *name, const char *want, int priority, json_int_t memory);
/* It runs on `id` when this returns. */
void mw_vm_on(struct mw *w, const char *name, uint32_t id, int priority);
struct mw_def *mw_def_of(struct mw *w, const char *name);
const struct lease *mw_lease(struct mw *w, const char *name);	/* as the leader has it */
struct mw_vm *mw_vm_of(struct mw *w, uint32_t id, const char *name);
uint32_t mw_runs_on(struct mw *w, const char *name);		/* 0: nowhere, or not on one */

/* ---- csvctl, on node `id`.  args_take. */
void mw_ask_begin(struct mw *w, uint32_t id, const char *verb, json_t *args_take);
json_t *mw_ask(struct mw *w, uint32_t id, const char *verb, json_t *args_take);	/* borrowed; must be answered */
int mw_code(const json_t *reply);			/* 0 when it says none */
/* Asks, runs until the job has ended; its item, borrowed until the next mw_*(). */
const json_t *mw_job(struct mw *w, uint32_t id, const char *verb, json_t *args_take, uint64_t ns);
struct mig *mw_leader(struct mw *w);
/* An event whose text has it: borrowed; NULL. */
const json_t *mw_event(struct mw *w, uint32_t id, const char *text);

#endif
