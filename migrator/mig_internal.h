/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_internal.h - shared by the files of the coordinator's core.
 */
#ifndef CSVFS_MIGRATOR_MIG_INTERNAL_H
#define CSVFS_MIGRATOR_MIG_INTERNAL_H

#include <uthash.h>

#include "migrator/lease.h"
#include "migrator/mig.h"
#include "utils/base/base.h"

#define MIG_CHAN_LEASE ((enum cluster_chan)4)
#define MIG_CHAN ((enum cluster_chan)5)

#define MIG_KEY_MAX 128
#define MIG_EVENTS_MAX 2000
#define MIG_JOBS_MAX 200
#define MIG_MIGRATIONS_MAX 300

/* ---- items: key -> JSON, alike on all members (mig_item.c) ------------------------------------------------------------------ */

struct mig_item {
	UT_hash_handle hh;
	char key[MIG_KEY_MAX];
	uint64_t rev;			/* the higher one wins; of equal ones the higher node's */
	uint32_t by;
	json_t *value;
};

/* ---- the line to hvhostd (mig_agent.c) ---------------------------------------------------------------------------------------- */

struct mig_wait {			/* for an answer, or for the end of all waiting */
	struct cds_list_head node;
	uint64_t id;
	uint32_t nodeid;		/* whose answer; 0: anybody's */
	bool done;
	int rc;				/* 0 answered; -ETIMEDOUT, -ECONNRESET, -ENOTCONN */
	int code;
	char message[512];
	json_t *data;			/* owned by the waiter once done */
	struct waitq wq;
};

/* Which one it is, on every node: the n-th that `node` made; 0, 0: of a log of before there were ids. */
struct mig_event_id { uint32_t node; uint64_t n; };
struct mig_event { uint64_t seq; struct mig_event_id id; json_t *value; };
/* What a member said it has when the view came (mig_late.c). */
struct mig_had { uint32_t nodeid, n; struct mig_event_run { uint32_t node, count; uint64_t first; } *run; char since[32]; };

struct mig {
	struct env *env;
	struct mig_port *port;
	struct mig_config cfg;
	bool leaving;
	unsigned coros;			/* running; mig_free() of the real daemon comes after the loop */

	const struct cluster_view *view;	/* NULL: suspended */
	struct cluster_view view_copy;
	uint64_t ring;			/* of the view */
	uint64_t viewed_ns;		/* when it came */

	struct mig_item *items;
	uint64_t rev;			/* the highest seen */
	struct waitq changed;		/* woken when anything did: items, leases, view */

	/* agent */
	bool agent_up, agent_ready;
	uint64_t agent_id;
	struct cds_list_head agent_waits;
	json_t *host;			/* HOST of the agent's hello; NULL */
	json_t *vms;			/* name -> VM, of this node */
	json_t *said;			/* name -> its last event */
	struct timer host_timer;
	bool host_posted;

	/* other nodes */
	uint64_t call_id;
	struct cds_list_head call_waits;	/* commands to agents, by id */
	struct cds_list_head requests;		/* csvctl's, forwarded to the leader */

	/* events */
	struct mig_event event[MIG_EVENTS_MAX];	/* in their order; the oldest is [0] */
	unsigned events;		/* of them */
	uint64_t event_seq;		/* of the one that came last */
	uint64_t event_n;		/* of the last of our own, in their ids */
	/* mig_late.c */
	uint64_t viewed_seq;		/* event_seq when the view came */
	unsigned n_had;
	struct mig_had had[CLUSTER_NODES_MAX];
	json_t *late;			/* events that others lack, not told yet; NULL: none */
	struct timer late_timer;

	/* leases */
	struct mig_leases *leases;

	/* leader */
	bool defining;			/* a job looks whose disks are free, and takes them */
	char begun[LEASE_NAME_BYTES];	/* its START or TAKE was proposed last: the next one is placed when that is committed */
	struct mig_seen *seen;		/* mig_ha.c */
	uint64_t cold_ns;		/* when a cold start was settled; 0: none in this life */
	uint64_t defs_ring, defs_ns;	/* mig_def.c: asked last */
	bool defs_asking;
	uint32_t defs_failed;		/* where they could not be read the last time */
	struct waitq look_wq;
	bool look_now;
	struct cds_list_head proofs;
	struct cds_list_head moves;	/* mig_move.c: those that a job of this leader sees to */

	/* mig_known.c */
	json_t *past_defs;		/* name -> definition, of the durable copy */
	char *kept;			/* the durable copy as it was given last */
	struct job keep_job;
	struct timer keep_timer;
	bool keep_due;			/* the timer is set */
	uint64_t unknown_ns;		/* since when VMs are not known; 0: they are */
	char unknown_said[128];
};

static inline uint64_t mig_now(const struct mig *m) { return clock_mono_ns(m->env->clock); }
#define mig_log(m, level, ...) log_to((m)->env->log, level, __VA_ARGS__)

/* mig.c */
bool mig_is_leader(const struct mig *m);
uint32_t mig_leader(const struct mig *m);			/* 0: no view */
bool mig_is_member(const struct mig *m, uint32_t nodeid);
const char *mig_node_name(const struct mig *m, uint32_t nodeid);
const struct mig_node *mig_node_of(const struct mig *m, uint32_t nodeid);
uint32_t mig_node_by_name(const struct mig *m, const char *name);	/* name or number; 0: neither */
/* Ordered, to all members; takes `msg`.  0, -ENOTCONN, -EMSGSIZE, -ENOMEM. */
int mig_send_take(struct mig *m, json_t *msg);
int mig_spawn(struct mig *m, const char *name, void (*fn)(void *arg), void *arg);
void mig_poke(struct mig *m);					/* something changed: whoever waits looks again */
uint64_t mig_id(struct mig *m);					/* never 0 */
json_t *mig_hex(uint64_t v);
uint64_t mig_hex_get(const json_t *o, const char *key);		/* 0: none */
const char *mig_text(const json_t *o, const char *key);		/* "" when there is none */
json_int_t mig_int(const json_t *o, const char *key);

/* mig_item.c */
const json_t *mig_item_get(const struct mig *m, const char *key);	/* NULL: none */
/* Here at once, to the others by message; takes value (NULL: removes). */
void mig_item_put_take(struct mig *m, const char *key, json_t *value);
void mig_item_got(struct mig *m, uint32_t from, const json_t *msg);
/* Of the durable copy, as "put" carries it; before the first view. */
void mig_item_load(struct mig *m, const json_t *put);
void mig_items_tell(struct mig *m);				/* all, after a view change */
void mig_items_free(struct mig *m);
/* Calls fn for all whose key begins with `prefix`; fn may not change items.  False from fn ends it. */
void mig_items_each(const struct mig *m, const char *prefix, bool (*fn)(void *arg, const char *key, const json_t *value), void *arg);

/* mig_agent.c */
/* In a coroutine.  0 with code, message, data (new reference, may be NULL); -ENOTCONN, -ETIMEDOUT. */
struct mig_answer { int code; char message[512]; json_t *data; };
int mig_agent_call(struct mig *m, const char *cmd, uint64_t ring, json_t *args_take, unsigned timeout_ms, struct mig_answer *ret);
/* The parts of it: `w` is in `list` until mig_wait_end(), which waits and frees. */
struct mig_wait *mig_wait_new(struct cds_list_head *list, uint64_t id, uint32_t nodeid);
int mig_wait_end(struct mig *m, struct mig_wait *w, uint64_t deadline_ns, struct mig_answer *ret);
void mig_agent_tell(struct mig *m, const char *cmd, uint64_t ring, json_t *args_take);	/* nobody waits for the answer */
void mig_agent_view(struct mig *m);
void mig_agent_init(struct mig *m);
void mig_agent_done(struct mig *m);
void mig_answer_done(struct mig_answer *a);
/* What a member said of its host and VMs last; NULL.  Of a member only. */
const json_t *mig_host_of(const struct mig *m, uint32_t nodeid);	/* {"host": HOST or null, "vms": [VM...], "ready": bool, ...} */
const json_t *mig_vm_on(const struct mig *m, uint32_t nodeid, const char *vm);
bool mig_host_ready(const struct mig *m, uint32_t nodeid);
void mig_host_tell(struct mig *m);				/* this host's item anew: somebody may have an old one */
void mig_host_coro(void *arg);					/* asks hvhostd how much is free, again and again */

/* mig_call.c */
/* A command to the agent of any member.  As mig_agent_call(), also -ECONNRESET: the view changed, it may have been done or not. */
int mig_call(struct mig *m, uint32_t nodeid, const char *cmd, json_t *args_take, unsigned timeout_ms, struct mig_answer *ret);
void mig_call_got(struct mig *m, uint32_t from, const char *t, const json_t *msg);
void mig_calls_suspend(struct mig *m);
void mig_calls_view(struct mig *m);
void mig_calls_look(struct mig *m);				/* requests that no view will answer before nodes come */
/* What the leader's verbs get. */
struct mig_ask { struct mig *m; const char *id; uint32_t from; const json_t *args; bool dry_run; };

/* mig_event.c */
void mig_event(struct mig *m, const char *level, const char *object, const char *command, const char *fmt, ...) csv_printf_like(5, 6);
void mig_event_got(struct mig *m, uint32_t from, const json_t *msg);
/* One that happened while this node was away, by its time among the others; false: it is there, older than all kept, or malformed. */
bool mig_event_late(struct mig *m, const json_t *e);
/* The `back`th before the newest; NULL: there is none. */
const struct mig_event *mig_event_back(const struct mig *m, unsigned back);
json_t *mig_event_list(struct mig *m, const json_t *args);
int mig_events_load(struct mig *m, const json_t *past);
void mig_events_free(struct mig *m);

/* mig_late.c */
void mig_late_init(struct mig *m);
void mig_late_view(struct mig *m);
void mig_late_suspend(struct mig *m);
void mig_late_got(struct mig *m, uint32_t from, const char *t, const json_t *msg);

/* mig_job.c */
struct mig_job {
	struct mig *m;
	char id[40];
	char kind[24], object[MIG_NAME_MAX + 16];
	uint32_t from;			/* who asked: files that it names are that node's */
	json_t *args;
	json_t *warnings;
	uint64_t began_ns;
	char step[120];
	unsigned percent;
};
/* Runs `fn` as a job; the reply for csvctl (code 13 with its name).  The same request again: the job that there is. */
json_t *mig_job_start(const struct mig_ask *a, const char *kind, const char *object, void (*fn)(struct mig_job *j));
void mig_job_step(struct mig_job *j, unsigned percent, const char *fmt, ...) csv_printf_like(3, 4);
/* Ends it, once; `result` (taken) becomes csvctl's item.  fn returns right after. */
void mig_job_done_take(struct mig_job *j, enum rpc_code code, json_t *result, const char *fmt, ...) csv_printf_like(4, 5);
/* The same request again (CA2): the job that there is, as mig_job_start() said; NULL: none. */
json_t *mig_job_again(struct mig *m, const char *id);
json_t *mig_job_show(struct mig *m, const json_t *args);
json_t *mig_job_list(struct mig *m, const json_t *args);
/* Jobs whose leader is gone. */
void mig_jobs_view(struct mig *m);

#endif
