/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sim_world.h - virtual time, the event queue, the nodes' lives and the dice of a simulated cluster.  Disk (sim_disk) and
 * network (sim_net) stand on it; so does whatever runs on the nodes.
 *
 * Everything happens in one thread.  One *step* is one of: the earliest due event; one entry of one node's run queue; the
 * due timers of one node.  Which of the possible ones comes next is drawn from the seed, and so is which entry of a run
 * queue.  Nothing else is a source of order: no address, no real clock, no uninitialised memory.
 *
 * Invariants
 *  W1  Same seed and binary = same steps = same sim_world_hash().
 *  W2  Time never goes back; an event fires at its time or later (a step costs a little time), equal times in order of
 *      posting.
 *  W3  Nothing of a node acts after its power cut: its scheduler is freed, its events (sim_world_at_node) are dropped.
 *      What must outlive it (a write on its way to the disk) is posted with sim_world_at().
 *  W4  A node's code is entered only from its scheduler (its run queue or its timers).  Ports of the simulation hand what arrives to
 *      the node by a job of its scheduler, so a stalled node sees nothing.
 */
#ifndef CSVFS_TESTS_SIM_SIM_WORLD_H
#define CSVFS_TESTS_SIM_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "utils/base/prng.h"
#include "utils/env/clock.h"
#include "utils/env/sched.h"

#define SIM_NODES_MAX 16

struct sim_world;
struct sim_event;

/* Nodes are numbered 1 ... nodes; all are down (no scheduler) until sim_world_boot(). */
struct sim_world *sim_world_new(uint64_t seed, unsigned nodes);
void sim_world_free(struct sim_world *w);
unsigned sim_world_nodes(const struct sim_world *w);

/* ---- time and events ------------------------------------------------------------------------------------------- */

uint64_t sim_world_now_ns(const struct sim_world *w);
/*
 * Calls fn(arg) once at world time `time_ns` (now when that is past), never from inside this call.  The handle is good for
 * sim_world_cancel() until fn is entered.  Events never fired when the world is freed are dropped without a call.
 */
struct sim_event *sim_world_at(struct sim_world *w, uint64_t time_ns, void (*fn)(void *arg), void *arg);
/* The same, dropped without a call when this life of the node ends first. `arg` must then not need freeing. */
struct sim_event *sim_world_at_node(struct sim_world *w, unsigned node, uint64_t time_ns, void (*fn)(void *arg), void *arg);
/* The same as sim_world_at(), with a copy of `len` bytes of its own as argument (valid during the call, nothing to free). */
struct sim_event *sim_world_at_copy(struct sim_world *w, uint64_t time_ns, void (*fn)(void *arg), const void *data, size_t len);
void sim_world_cancel(struct sim_world *w, struct sim_event *e);	/* NULL allowed */

/* ---- dice ------------------------------------------------------------------------------------------------------ */

struct csv_prng *sim_world_prng(struct sim_world *w);
uint64_t sim_world_below(struct sim_world *w, uint64_t below);
bool sim_world_chance(struct sim_world *w, uint64_t num, uint64_t den);
/* A delay with a long tail: mostly around `typical_ns`, sometimes ten times that. */
uint64_t sim_world_delay(struct sim_world *w, uint64_t typical_ns);

/* ---- nodes ----------------------------------------------------------------------------------------------------- */

/* Clocks differ between nodes by an offset and, in real time, by a skew; they stay valid when the node is down. */
struct clock *sim_world_clock(struct sim_world *w, unsigned node);
struct sched *sim_world_sched(struct sim_world *w, unsigned node);	/* NULL while down */
bool sim_world_is_up(const struct sim_world *w, unsigned node);
uint64_t sim_world_life(const struct sim_world *w, unsigned node);	/* counts boots; 0 before the first */

void sim_world_boot(struct sim_world *w, unsigned node);		/* a fresh scheduler; must be down */
/*
 * Power cut: on_down hooks run (in order of registration; ports drop what they hold of this life), then the scheduler is
 * freed.  Not from inside the node's own step.
 */
void sim_world_power_cut(struct sim_world *w, unsigned node);
void sim_world_on_down(struct sim_world *w, void (*fn)(void *arg, unsigned node), void *arg);
/* The node runs nothing until then (a stalled process); its timers are late, its disk requests and frames go on. */
void sim_world_stall(struct sim_world *w, unsigned node, uint64_t until_ns);
bool sim_world_is_stalled(const struct sim_world *w, unsigned node);

/* ---- running --------------------------------------------------------------------------------------------------- */

/* One step; false when nothing is left to happen, ever. */
bool sim_world_step(struct sim_world *w);
/* Called after every step (oracles); several may be registered. */
void sim_world_on_step(struct sim_world *w, void (*fn)(void *arg), void *arg);
uint64_t sim_world_steps(const struct sim_world *w);
/* Steps until `until_ns` or until stop() says so (NULL: never).  True when stop() did. */
bool sim_world_run(struct sim_world *w, uint64_t until_ns, bool (*stop)(void *arg), void *arg);

/* ---- trace and counters ------------------------------------------------------------------------------------------ */

/* Folds an event into the trace hash; with sim_world_verbose also prints it. `what` is a literal. */
void sim_world_trace(struct sim_world *w, const char *what, uint64_t a, uint64_t b, uint64_t c);
uint64_t sim_world_hash(const struct sim_world *w);
void sim_world_verbose(struct sim_world *w, bool on);

/*
 * Named counters of operations and of every kind of fault: "fault.power_cut", "op.request".  A test declares with
 * sim_counters_want() what it must have injected; what stayed 0 fails it (sim_counters_missing()).
 */
#define SIM_COUNTERS_MAX 96
struct sim_counters {
	unsigned n;
	struct { const char *name; uint64_t value; bool wanted; } c[SIM_COUNTERS_MAX];	/* names are literals */
};
struct sim_counters *sim_world_counters(struct sim_world *w);
void sim_world_count(struct sim_world *w, const char *name, uint64_t add);
void sim_counters_add(struct sim_counters *total, const struct sim_counters *one);
void sim_counters_want(struct sim_counters *t, const char *name);
const char *sim_counters_missing(const struct sim_counters *t);	/* the first wanted one that is 0, or NULL */
void sim_counters_print(const struct sim_counters *t, const char *prefix);	/* name=value, sorted, on one line a prefix */

#endif
