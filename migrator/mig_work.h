/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_work.h - what the coordinator's parts ask of each other beyond mig_internal.h: leases, proofs, the leader's look, the verbs.
 */
#ifndef CSVFS_MIGRATOR_MIG_WORK_H
#define CSVFS_MIGRATOR_MIG_WORK_H

#include "migrator/lease_lead.h"
#include "migrator/leasedb.h"
#include "migrator/mig_internal.h"

/* ---- mig_lease.c -------------------------------------------------------------------------------------------------------------------- */

struct mig_leases;
int mig_leases_new(struct mig *m);
void mig_leases_free(struct mig *m);
void mig_leases_suspend(struct mig *m);
void mig_leases_view(struct mig *m);
struct leasedb *mig_leases_db(struct mig *m);
bool mig_settled(const struct mig *m);
uint64_t mig_leases_incarnation(const struct mig *m, uint32_t nodeid);	/* the last life seen; 0 */
const struct lease *mig_lease(const struct mig *m, const char *vm);	/* committed; NULL */
/* The agent has come (back): all leases, but those with an own proposal open, which follow with its outcome. */
void mig_leases_tell_agent(struct mig *m);
void mig_leases_inventory(struct mig *m);				/* after a cold start: what runs here, when it is wanted */
void mig_leases_agent_proposes(struct mig *m, const json_t *event);
json_t *mig_lease_note(const struct mig *m, const struct lease *l);	/* {"reason", "command"} for people, "" when there is nothing to say */
/*
 * In a coroutine: proposes and waits.  0 committed; refusals of lease_apply(); -ECANCELED the view changed, look again;
 * -CSV_E_NOQUORUM.  `cas->vm` is set by the caller, version too.
 */
int mig_propose(struct mig *m, struct lease_cas *cas);
/* The same, and nobody waits: whoever looks next sees what became of it. */
int mig_propose_unwatched(struct mig *m, const struct lease_cas *cas);
int mig_prove_once(struct mig *m, uint32_t nodeid, uint64_t inc, enum leasedb_proof kind);
/* A move of the coordinator from the record as it is. */
void mig_cas(const struct lease *l, enum lease_move move, struct lease_cas *ret);
/* Waits until something changed or `deadline_ns`; false: the time is over. */
bool mig_wait_change(struct mig *m, uint64_t deadline_ns);

/* ---- mig_proof.c ---------------------------------------------------------------------------------------------------------------------- */

void mig_proof_fence(struct mig *m, uint32_t nodeid, uint64_t inc);	/* begins, unless it is under way or was tried just now */
enum lease_fence mig_proof_state(const struct mig *m, uint32_t nodeid);
const char *mig_proof_why(const struct mig *m, uint32_t nodeid);	/* on every member; "" */
void mig_proof_view(struct mig *m);					/* members are not to be fenced any more */
/* In a coroutine: how often did the node's heartbeats move within 3 R?  -errno: they cannot be read. */
int mig_proof_beats(struct mig *m, uint32_t nodeid, unsigned *ret_moved);
void mig_proof_free(struct mig *m);
json_t *mig_proof_confirm(const struct mig_ask *a);			/* node.confirm-fenced */

/* ---- mig_ha.c --------------------------------------------------------------------------------------------------------------------------- */

void mig_look_coro(void *arg);
json_t *mig_ha_status(struct mig *m, const json_t *args);
json_t *mig_ha_set(const struct mig_ask *a);
/* What was committed; the leader makes events of it.  bulk: of the whole table, what is met for the first time is no news. */
void mig_lease_story(struct mig *m, const struct lease *l, bool bulk);
void mig_seen_free(struct mig *m);
/* In this epoch it was begun anew: what runs is no migrated one. */
bool mig_seen_begun(const struct mig *m, const char *vm, uint64_t epoch);

/* ---- mig_def.c: what is defined on the volume, as the leader knows it (items def/NAME) ---------------------------------------------------- */

const json_t *mig_def(const struct mig *m, const char *vm);		/* {"vm", "want", "config", "priority", "ha", "memory_bytes"} or NULL */
void mig_defs_refresh(struct mig *m);					/* in a coroutine: asks an agent */
uint32_t mig_any_host(const struct mig *m);				/* a member whose agent can read the volume; 0 */

/* ---- mig_known.c ------------------------------------------------------------------------------------------------------------------------ */

void mig_known_load(struct mig *m, const json_t *kept);			/* NULL: nothing was kept */
void mig_known_done(struct mig *m);
void mig_known_changed(struct mig *m, const char *key);			/* an item: its durable copy follows */
bool mig_known_all(const struct mig *m);				/* the definitions have been read since the cluster came up */
void mig_known_read(struct mig *m);					/* they have */
void mig_known_unread(struct mig *m, uint32_t nodeid, const char *why);	/* they could not be, there; "": nothing is said */
json_t *mig_known_unknown(const struct mig *m);				/* NULL: VMs are known; {"volume", "reason", "command"} */
json_t *mig_known_past(struct mig *m, const char *vm);			/* as an item of vm list; NULL: nothing is known of it, or more than that */
/* KN3: warnings, "unknown", "waits_for_nodes"; with items also those that only the durable copy has. */
void mig_known_tell(struct mig *m, json_t *reply, bool items);
json_t *mig_known_refuse(struct mig *m, const char *vm);		/* there is no such VM, or that is not known */
void mig_known_look(struct mig *m);

/* ---- mig_place.c ------------------------------------------------------------------------------------------------------------------------ */

/* The best node for it; 0 with why: none, and why each is not. */
uint32_t mig_place(const struct mig *m, const char *vm, uint32_t avoid, uint32_t avoid_hard, char *ret_why, size_t size);
/* The same for what is to run again by itself: a quarantined node rather than none. */
uint32_t mig_place_ha(const struct mig *m, const char *vm, uint32_t avoid, char *ret_why, size_t size);
/* It should run, nothing speaks against that, and no node can have it: why each cannot. */
bool mig_place_waits(const struct mig *m, const struct lease *l, char *ret_why, size_t size);
bool mig_node_quarantined(const struct mig *m, uint32_t nodeid);
/* NULL: may have it; else why not. */
const char *mig_place_refuses(const struct mig *m, uint32_t nodeid, const char *vm);
const json_t *mig_node_flags(const struct mig *m, uint32_t nodeid);	/* node/N or NULL */

/* ---- the verbs -------------------------------------------------------------------------------------------------------------------------- */

typedef json_t *mig_fn_here(struct mig *m, const json_t *args);
typedef json_t *mig_fn_leader(const struct mig_ask *a);
mig_fn_here *mig_verb_here(const char *verb);
mig_fn_leader *mig_verb_of_leader(const char *verb);

/* mig_vm.c, mig_start.c, mig_show.c */
json_t *mig_vm_create(const struct mig_ask *a);
json_t *mig_vm_start(const struct mig_ask *a);
json_t *mig_vm_stop(const struct mig_ask *a);
json_t *mig_vm_delete(const struct mig_ask *a);
json_t *mig_vm_list(struct mig *m, const json_t *args);
json_t *mig_vm_show(const struct mig_ask *a);
json_t *mig_vm_console(struct mig *m, const json_t *args);
json_t *mig_vm_item(struct mig *m, const char *vm);
/* In a coroutine: durable in the definition, then in the lease.  rpc code with text. */
enum rpc_code mig_want_set(struct mig *m, const char *vm, enum lease_want want, char *ret_text, size_t size);
/* The first half of it. */
enum rpc_code mig_want_durable(struct mig *m, const char *vm, enum lease_want want, char *ret_text, size_t size);
const struct lease *mig_vm_lease(struct mig *m, const char *vm, json_t **ret_reply);	/* NULL: *ret_reply says why */
void mig_vm_pin(struct mig *m, const char *vm, uint32_t nodeid);	/* where it is started first; 0: anywhere */
/* Waits while the lease of `vm` is not free to be SET (a migration); then SETs.  As mig_propose(), -ENOENT. */
int mig_set(struct mig *m, const char *vm, int want, int ha, int priority);

/* mig_move.c, mig_plan.c */
json_t *mig_move_start(const struct mig_ask *a);
json_t *mig_move_list(struct mig *m, const json_t *args);
json_t *mig_move_show(struct mig *m, const json_t *args);
json_t *mig_move_plan(const struct mig_ask *a);
json_t *mig_move_cancel(const struct mig_ask *a);
void mig_move_news(struct mig *m, const json_t *d);		/* an agent's "migration" event */
/* In a job: migrates and waits.  rpc code with text; ret_result: the migration's item. */
enum rpc_code mig_move_run(struct mig_job *j, const char *vm, uint32_t to, char *ret_text, size_t size, json_t **ret_result);
void mig_moves_look(struct mig *m);				/* the leader: migrations whose agents fell silent */
void mig_agent_cancel(struct mig *m, const char *vm, uint32_t owner, uint64_t txid);	/* in a coroutine */
json_t *mig_plan_predict(struct mig *m, const char *vm, uint32_t to, char *ret_text, size_t size, enum rpc_code *ret_code);

/* mig_node.c */
json_t *mig_node_drain(const struct mig_ask *a);
json_t *mig_node_resume(const struct mig_ask *a);
json_t *mig_node_shutdown(const struct mig_ask *a);
json_t *mig_node_status(struct mig *m, const json_t *args);
void mig_node_view(struct mig *m);
void mig_node_leave(struct mig *m);				/* this node: the leader says that it is empty */
void mig_node_lost(struct mig *m, uint32_t nodeid);		/* counted; three in an hour: quarantine */
/* Its migratord left the group and the node did not leave the cluster (ND3). */
void mig_node_away(struct mig *m, uint32_t nodeid);
bool mig_node_is_away(const struct mig *m, uint32_t nodeid);
bool mig_node_may_come(const struct mig *m, uint32_t nodeid);	/* ND5 */
void mig_node_went(struct mig *m, uint32_t nodeid);	/* in this ring; told to whoever came in it */

#endif
