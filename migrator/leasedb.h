/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * leasedb.h - the leases of the whole cluster: one replica in each node's migratord, in memory.
 *
 * Pure: it gets views, messages of other replicas, proposals and time; it gives messages to multicast, committed records and outcomes.
 *
 * In a view (ring R) the member with the lowest node id orders the moves, everybody applies them in that order, acknowledges, and
 * counts acknowledgements:
 *
 *	proposer	orderer (lowest id)		every member
 *	PROPOSE ------> ORDER(R, i, move) ------------> has 1..i-1 of R? apply i, ACK(R, i)
 *							ACKs for i from members with a majority of the configured votes: *committed*
 *
 * A view change makes every move that is not known to be committed *unknown*.  The members say what they have (HELLO: the ring
 * they last installed a state in, and how many of its moves); who has the latest of the latest ring gives it to all (STATE); whoever
 * has it acknowledges (ACK(R, 0)); acknowledged by a majority the state is *settled*, and with it every unknown move: either it is
 * in this state or it never happens.
 *
 *	 view		 all HELLOs + STATE	  ACK(R, 0) of a majority
 *	NONE -> HELLO ---------------------> SYNC ----------------------> SETTLED
 *	  ^       ^			       |			    |
 *	  +-------+---- suspend, next view ----+----------------------------+
 *
 * Cold start: members that have a state (they were in a quorate view and have not restarted since) are no majority of the configured
 * votes.  Then nobody knows what was committed: the state begins empty, all configured nodes are *suspect*.  A suspect is cleared by its
 * inventory (what QEMUs run there, reported by a living agent) or by an execution proof.  A VM that an inventory shows executing is
 * RUNNING there; every other VM is BLOCKED (LEASE_REASON_COLD) while one suspect is left.  Records that come from inventories know nothing
 * of the definition: LEASE_GUESSED, until the coordinator SETs what it finds on the volume.
 *
 * Invariants
 *  DB1 A move is committed when members with a majority of the configured votes acknowledged it in the same ring; no delivery to oneself
 *      and no word of the orderer replaces that.  Nobody is told of a move that is not committed.
 *  DB2 In a ring all replicas apply the same moves in the same order without gaps, whatever the network loses, doubles or reorders.
 *  DB3 A committed move is in the state of every later settled view, unless a cold start lies between: two majorities have a member in
 *      common, and it gives the latest state.  (Why no tail of a non-quorate side can win: it was installed in an older ring.)
 *  DB4 An outcome -ECANCELED or a refusal is final: a proposal that was refused, or that is not in the next settled state, never happens.
 *  DB5 After a cold start nothing is started and nothing is taken before every configured node has spoken for itself or is proven.
 *  DB6 What comes from a node that is proven dead in this life is refused.
 *  DB7 After a cold start "no record" is no word about a VM until all nodes have spoken or are proven: leasedb_knows_absent().
 *  DB8 After a cold start a copy that was offered to another node is resumed only when that node, in that very life, says that it cannot have
 *      executed since (leasedb_cold.c).
 *
 * A member that misses a move (a lost message; corosync loses none in a ring) asks the orderer for the state again and is unsettled until
 * it has it.
 *
 * What a membership change does: see above; everything in between is forgotten, proposals are answered -ECANCELED when the new view
 * is settled.  The caller proposes again from the record that it then sees.
 *
 * Threads: one.  The callbacks of struct leasedb_io run inside the calls and must only take note (queue the bytes, mark the VM).
 */
#ifndef CSVFS_MIGRATOR_LEASEDB_H
#define CSVFS_MIGRATOR_LEASEDB_H

#include "migrator/lease.h"
#include "utils/env/cluster.h"

#ifndef LEASEDB_VMS_MAX			/* the model checker has sizes of its own */
#define LEASEDB_VMS_MAX 1024
#define LEASEDB_NODES_MAX CLUSTER_NODES_MAX
#define LEASEDB_WINDOW 32		/* moves ordered and not yet committed */
#define LEASEDB_OPEN_MAX 64		/* own proposals without an outcome */
#define LEASEDB_ITEMS_MAX 512		/* of one inventory message */
#endif

enum leasedb_phase { LEASEDB_NONE = 0, LEASEDB_HELLO, LEASEDB_SYNC, LEASEDB_SETTLED };

struct leasedb_vote { uint32_t nodeid, votes; };
struct leasedb_conf {
	uint32_t self;
	uint64_t self_inc;		/* node incarnation (lease.h), not the daemon's */
	uint32_t n;			/* configured nodes (corosync's node list), ascending */
	struct leasedb_vote node[LEASEDB_NODES_MAX];
};

/* How an execution proof was come by; 0 only own release. */
enum leasedb_proof { LEASEDB_PROOF_RELEASE = 0, LEASEDB_PROOF_FENCED, LEASEDB_PROOF_OPERATOR, LEASEDB_PROOF_TIME, LEASEDB_PROOF_END };

/* What of a VM there is on a node (its agent's word). */
#define LEASEDB_ITEM_EXEC	1u	/* executes, or `cont` may have been given under `epoch` and no stop since */
#define LEASEDB_ITEM_SURE	2u	/* was resumed under `epoch` and has not offered it to anybody since (vmsm.h: mark) */
#define LEASEDB_ITEM_RESUMED	4u	/* was resumed under `epoch`; paused now, a HANDOFF to `peer` was proposed since */
struct leasedb_item {
	char vm[LEASE_NAME_BYTES];
	uint64_t epoch;			/* flags 0: of no QEMU, or one that never executed */
	uint64_t ended;			/* of QEMUs that are gone, in this life of the node: the highest epoch that one was bound to; 0 none */
	uint64_t peer_inc;		/* RESUMED: the life of `peer` */
	uint32_t peer;
	uint32_t config;
	uint32_t flags;
	uint32_t pad;
};

/* A node as all replicas know it. */
struct leasedb_node {
	uint32_t nodeid, votes;
	uint64_t inc;			/* the last life seen; 0: none since the last cold start */
	uint8_t suspect;		/* since a cold start nobody knows what it runs */
	uint8_t dead;			/* an execution proof about `inc` is there (inc 0: about whatever life it had) */
	uint8_t pad[6];
};

/* A member of the present view. */
struct leasedb_member {
	uint32_t nodeid;
	uint8_t hello;			/* its HELLO is here: */
	uint8_t has_state, pad[2];
	uint64_t inc;
	struct ring_id base;
	uint64_t index;
	uint64_t acked;			/* moves of this ring that it acknowledged + 1 (the state itself); 0: nothing */
	uint64_t seq;			/* its proposals that were ordered, the last one */
};

/* An ordered move that is not known to be committed. */
struct leasedb_entry {
	uint64_t index;
	uint32_t kind;			/* leasedb_internal.h */
	int32_t status;			/* of its application here */
	uint32_t by, pad;		/* proposer */
	uint64_t seq;			/* its number at the proposer, 0: none */
	struct lease_cas cas;
	struct lease after;
};

/* Own proposals. */
struct leasedb_open { uint64_t seq; uint64_t id; uint64_t ring_seq; struct lease_cas cas; };

/*
 * No pointers: a copy of the bytes is a copy of the replica.  About 700 KB with the sizes above; read through the functions below.
 */
struct leasedb {
	struct leasedb_conf conf;
	uint32_t mutate;		/* tests only */
	uint8_t phase;
	uint8_t has_state;		/* not restarted since a quorate view was installed */
	uint8_t pad0;
	uint8_t absent_known;		/* settled() has been called with leasedb_knows_absent() */
	struct ring_id ring;		/* of the present view; meaningless in LEASEDB_NONE */
	struct ring_id base;		/* in which `acc` was installed */
	struct ring_id cold;		/* of the last cold start */
	uint64_t version_floor;		/* lease.h */
	uint64_t acc_index;		/* moves of `base` in acc */
	uint64_t com_count;		/* committed moves + 1 (the state itself); 0: not even the state */
	uint64_t settle_index;		/* the state that was installed is this far */
	uint32_t n_member, pad;
	uint32_t n_acc, n_com, n_open, n_window;
	uint32_t stage_n, stage_part, stage_from, gap;
	uint64_t stage_index, stage_floor;
	uint64_t next_seq, next_id;
	struct leasedb_member member[LEASEDB_NODES_MAX];
	struct leasedb_node node[LEASEDB_NODES_MAX];
	struct leasedb_node stage_node[LEASEDB_NODES_MAX];
	struct leasedb_entry window[LEASEDB_WINDOW];
	struct leasedb_open open[LEASEDB_OPEN_MAX];
	struct lease acc[LEASEDB_VMS_MAX];	/* applied; ascending names */
	struct lease com[LEASEDB_VMS_MAX];	/* committed; while a state is coming in: that */
};
#define LEASEDB_MUT_SELF_COMMIT	16u	/* own delivery counts as commit.  The others: LEASE_MUT_* */
#define LEASEDB_MUT_COLD	32u	/* a cold start suspects nobody */
#define LEASEDB_MUT_ABSENT	64u	/* "no record" counts as known at once */

struct leasedb_io {
	/* To all members, self included (cluster_send).  Copies. */
	void (*multicast)(void *arg, const void *buf, size_t len);
	/* All that is told from here on is void until settled(): leases are unknown. */
	void (*unsettled)(void *arg);
	/*
	 * The whole table is committed in this ring: read all records anew.  Comes after the outcomes of proposals that the view change cut off;
	 * and again, not cold, when a cold start is over and leasedb_knows_absent() begins to hold.
	 */
	void (*settled)(void *arg, struct ring_id ring, bool cold);
	/*
	 * One record was committed (state LEASE_NONE: deleted).  Also before every outcome, though nothing may have changed: so an agent
	 * that does not know of the proposal, because it was its predecessor's, sees that it is not open any more.
	 */
	void (*record)(void *arg, const struct lease *l);
	/* 0 committed; -ECANCELED cut off by a view change: the record tells whether it happened; else a refusal of lease_apply().  The record came before. */
	void (*outcome)(void *arg, uint64_t id, const struct lease_cas *cas, int status);
	/* The others have a proof that this node's present life runs nothing: kill all QEMUs, then come back with a new incarnation. */
	void (*purged)(void *arg);
	void *arg;
};

/* conf is copied; `db` is cleared.  db->conf.n == 0 and votes of 0 are the caller's bugs. */
void leasedb_init(struct leasedb *db, const struct leasedb_conf *conf);
/* The node list was changed in corosync's configuration: takes effect with the next view.  All nodes must get the same before it. */
void leasedb_configure(struct leasedb *db, const struct leasedb_conf *conf);

void leasedb_suspend(struct leasedb *db, const struct leasedb_io *io);
/* A usable (hence quorate) view with us in it.  Without a majority of configured votes in it: as suspend. */
void leasedb_view(struct leasedb *db, const struct leasedb_io *io, const struct cluster_view *v);
/* from is a member of that view; malformed messages are counted and dropped: -EPROTO. */
int leasedb_msg(struct leasedb *db, const struct leasedb_io *io, uint32_t from, const void *buf, size_t len);
/* Every 100 ms: repeats what a lost message would leave waiting.  Sends nothing when all is acknowledged. */
void leasedb_tick(struct leasedb *db, const struct leasedb_io *io);
/* Every second: the orderer says how far it is, so that whoever missed the last move without knowing asks for it. */
void leasedb_beat(struct leasedb *db, const struct leasedb_io *io);

/*
 * by, by_inc are filled in here.  ring_seq: of the settled view whose record it starts from.  0 with an id, outcome() follows, never from
 * inside this call; -CSV_E_NOQUORUM not settled; -CSV_E_STALE of another view (it will never happen); -EAGAIN too many open ones.  A move whose version does not match at once is refused as it would be later, by outcome().
 *
 * An agent that reconnects: tell it with each record whether leasedb_agent_is_open() (vmsm.h: `open`); and drop what its old connection still holds *before* the new one is served.
 */
int leasedb_propose(struct leasedb *db, const struct leasedb_io *io, const struct lease_cas *cas, uint64_t ring_seq, uint64_t *ret_id) csv_must_check;
/* A proof for the replicas (refused about a present member; idempotent; given again as long as leasedb_proven() does not say so).  inc 0: a suspect whose life nobody here knows. */
int leasedb_prove(struct leasedb *db, const struct leasedb_io *io, uint32_t nodeid, uint64_t inc, enum leasedb_proof kind) csv_must_check;
/*
 * This node's inventory, asked for by leasedb_wants_inventory() (a cold start: again until it says no).  It must have been taken by a
 * living agent *after* settled().
 */
bool leasedb_wants_inventory(const struct leasedb *db);
int leasedb_inventory(struct leasedb *db, const struct leasedb_io *io, const struct leasedb_item *item, uint32_t n) csv_must_check;

/* ---- to be read; records only when settled */
static inline uint64_t leasedb_ring(const struct leasedb *db) { return db->ring.seq; }
static inline bool leasedb_is_settled(const struct leasedb *db) { return db->phase == LEASEDB_SETTLED; }
/* Committed; NULL: none, or not settled. */
const struct lease *leasedb_find(const struct leasedb *db, const char *vm);
static inline uint32_t leasedb_count(const struct leasedb *db) { return leasedb_is_settled(db) ? db->n_com : 0; }
static inline const struct lease *leasedb_at(const struct leasedb *db, uint32_t i) { return &db->com[i]; }
/* A proposal of this node about it has no outcome yet; of its agent: what vmsm.h calls `open`. */
/*
 * Has a VM without a record no lease (and its QEMU no right to be)?  After a cold start that is *unknown* until every node's word or a proof about
 * it is committed: what runs here may just not have been told yet, and whoever kills it makes the others believe an older copy (DB7).
 */
bool leasedb_knows_absent(const struct leasedb *db);
bool leasedb_is_open(const struct leasedb *db, const char *vm);
bool leasedb_agent_is_open(const struct leasedb *db, const char *vm);
const struct leasedb_node *leasedb_node(const struct leasedb *db, uint32_t nodeid);
bool leasedb_proven(const struct leasedb *db, uint32_t nodeid, uint64_t inc);
/* Is this life of the node in the present view? */
bool leasedb_is_member(const struct leasedb *db, uint32_t nodeid, uint64_t inc);
uint32_t leasedb_suspects(const struct leasedb *db);	/* how many */
uint32_t leasedb_orderer(const struct leasedb *db);	/* the member with the lowest id; 0: no view */

#endif
