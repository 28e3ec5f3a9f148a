/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lease.h - the right to run a virtual machine: one record per VM, and the only ways in which it can change.
 *
 * A change is never "write this record" but a *move*: (VM, the version it starts from, which move, its arguments, who proposes it).
 * Every replica computes the new record from the old one with the same function, so an illegal record cannot be proposed, and whoever
 * may not make a move is refused by every replica alike.
 *
 *			START            STARTED                     HANDOVER               ACCEPT
 *	   FREE ----------> RECOVERING(x) ----------> RUNNING(n) ----------------> HANDOFF(d) ---------> RUNNING(d)
 *	    ^  ^                |   ^                  |  ^   |  ^                    |
 *	    |  +----- FAILED ---+   +----- TAKE -------+  |   |  +------ REFUSE ------+
 *	    +--------------------------- RELEASE ---------|---+	   (back to the source)
 *	                                                  |
 *	   BLOCKED(was any of the three right ones) <-----+ BLOCK / UNBLOCK
 *
 *	move	 from -> to				who						epoch
 *	CREATE	 (none) -> FREE				coordinator
 *	DELETE	 FREE, want stopped -> (none)		coordinator
 *	SET	 any -> same; want, ha, priority	coordinator; not while a txid is open
 *	START	 FREE -> RECOVERING(x)			coordinator; gives the configuration's number		+1
 *	STARTED	 RECOVERING(x) -> RUNNING(x)		agent of x
 *	FAILED	 RECOVERING(x) -> FREE			agent of x: its QEMU is gone (or never was)		+1
 *	RELEASE	 RUNNING(n) -> FREE			agent of n: its QEMU is gone (pidfd)			+1
 *	TAKE	 RUNNING(n), RECOVERING(n), BLOCKED from	coordinator, with an *execution proof about n*		+1
 *		   them
 *		   -> RECOVERING(x), or FREE (x = 0)
 *	INTENT	 RUNNING(n), no txid -> the same with	coordinator; not while it is LEASE_GUESSED
 *		   txid, peer d: step 1
 *	ABORT	 RUNNING(n, txid) -> without txid	agent of n
 *	HANDOVER RUNNING(n, txid, peer d) ->		agent of n: step 5					+1
 *		   HANDOFF(d), peer n
 *	ACCEPT	 HANDOFF(d) -> RUNNING(d), txid stays,	agent of d: step 6
 *		   `moved`
 *	REFUSE	 HANDOFF(d), also BLOCKED from it ->	agent of d: its QEMU is gone; or coordinator, with an	+1
 *		   RUNNING(peer, txid), `returned`	execution proof about d
 *	CLOSE	 RUNNING(d, moved) -> no txid, peer	agent of d, agent of the peer, coordinator: step 7
 *	BLOCK	 RUNNING, HANDOFF, RECOVERING ->	coordinator, with a reason
 *		   BLOCKED, everything else stays
 *		   BLOCKED, everything else stays; BLOCKED -> BLOCKED with another reason
 *	UNBLOCK	 BLOCKED(n) -> what it was		agent of n (it is back)
 *
 * CREATE gives BLOCKED (COLD) instead of FREE while a node is suspect after a cold start: it may be running that very VM.
 * BLOCKED with reason COLD is a record that a cold start could not decide yet (leasedb.h); only inventories and proofs end that.  Its owner,
 * if any, has a paused copy that was offered to the peer.
 *
 * Invariants
 *  LE1 `version` grows by one with every move and names the state of the record: a move is made from exactly the version it names.
 *  LE2 `epoch` grows whenever the right to run may pass from one QEMU to another; within an epoch at most one QEMU ever executes.
 *  LE3 RUNNING, HANDOFF, RECOVERING and BLOCKED-with-owner are *owned*: without an execution proof nobody but the owner's agent moves
 *      the right away from it.  HANDOFF is owned by the target, RECOVERING by the node that starts.
 *  LE4 A lease without padding bytes that differ: compare and hash it with memcmp (lease_init clears it).
 *
 * Who executes a VM: the node n whose *committed* record is RUNNING(n, incarnation).  Having been there when it was committed is not
 * needed, its having been committed is (leasedb.h).
 *
 * Node incarnation: a node's life as its QEMUs see it: new at boot and after a purge, never by a daemon's restart.  A later life of
 * a node is an execution proof about its earlier ones, so whoever makes it new while a QEMU lives breaks G4.
 *
 * Pure.  Any thread.
 */
#ifndef CSVFS_MIGRATOR_LEASE_H
#define CSVFS_MIGRATOR_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "utils/base/base.h"
#include "utils/base/cursor.h"

#ifndef LEASE_NAME_BYTES		/* the model checker has names of its own size */
#define LEASE_NAME_BYTES 64		/* with the terminating 0 */
#endif

enum lease_state { LEASE_NONE = 0, LEASE_FREE, LEASE_RUNNING, LEASE_HANDOFF, LEASE_RECOVERING, LEASE_BLOCKED, LEASE_STATE_END };
enum lease_want { LEASE_WANT_STOPPED = 0, LEASE_WANT_PAUSED, LEASE_WANT_RUN, LEASE_WANT_END };

/* Why BLOCKED, or why FREE though it is wanted running; lease_reason_text() says it and what to do. */
enum lease_reason {
	LEASE_REASON_NONE = 0,
	LEASE_REASON_NO_AGENT,		/* the owner cannot be reached, and no fence agent is configured for it */
	LEASE_REASON_AGENT_FAILED,	/* its agent failed */
	LEASE_REASON_NO_SWITCH,		/* its agent said off, and the node went on living */
	LEASE_REASON_COLD,		/* nobody remembers: nodes that are not here may be running it */
	LEASE_REASON_TWO,		/* two nodes say that they run it: never seen, never to be seen */
	LEASE_REASON_START_FAILED,	/* its node could not start it */
	LEASE_REASON_LOST_QEMU,		/* its QEMU died */
	LEASE_REASON_GUEST_OFF,		/* the guest shut itself down */
	LEASE_REASON_NO_PLACE,		/* no node may run it */
	LEASE_REASON_HA_OFF,		/* its node was lost, and high availability is off for it */
	LEASE_REASON_END,
};

#define LEASE_HA	1u		/* restart elsewhere after a loss */
#define LEASE_MOVED	2u		/* of RUNNING with a txid: after step 6; the peer is the source */
#define LEASE_GUESSED	8u		/* made from an inventory after a cold start: want, ha and priority are guesses until SET */
#define LEASE_RETURNED	4u		/* of RUNNING with a txid: refused by the peer; the source goes on and then ABORTs */

struct lease {
	char vm[LEASE_NAME_BYTES];
	uint8_t state, was;		/* was: of BLOCKED with an owner, the state before */
	uint8_t want, reason;
	uint8_t flags, priority;	/* priority: higher starts first */
	uint16_t failures;		/* STARTs that FAILED and QEMUs lost in a row, since the coordinator last SET something */
	uint32_t owner, peer;		/* node ids, 0: none */
	uint32_t config;		/* number of the running configuration; 0: never started */
	uint32_t pad;
	uint64_t owner_inc, peer_inc;
	uint64_t epoch, txid, version;
};

enum lease_move {
	LEASE_CREATE = 1, LEASE_DELETE, LEASE_SET, LEASE_START, LEASE_STARTED, LEASE_FAILED, LEASE_RELEASE, LEASE_TAKE, LEASE_INTENT,
	LEASE_ABORT, LEASE_HANDOVER, LEASE_ACCEPT, LEASE_REFUSE, LEASE_CLOSE, LEASE_BLOCK, LEASE_UNBLOCK, LEASE_MOVE_END
};

/* Who speaks.  Coordinator: any node's migratord (normally the leader's; a move names its version, so two do no harm). */
enum lease_role { LEASE_BY_AGENT = 1, LEASE_BY_COORD = 2 };

/* A proposal: compare-and-swap.  Fields that the move does not use are 0. */
struct lease_cas {
	char vm[LEASE_NAME_BYTES];
	uint64_t version;		/* of the record it starts from; 0: there is none (CREATE) */
	uint8_t move, role;
	uint8_t want;			/* CREATE, SET; RELEASE: LEASE_WANT_STOPPED when the guest shut itself down, else as it was */
	uint8_t flags, priority;	/* CREATE, SET: LEASE_HA */
	uint8_t reason, pad[2];		/* BLOCK, FAILED, RELEASE, TAKE to FREE */
	uint32_t by;			/* proposer: node */
	uint64_t by_inc;		/* and its life */
	uint32_t node;			/* START, TAKE: x; INTENT: d */
	uint32_t config;		/* START, TAKE; CREATE: 0 */
	uint64_t node_inc;
	uint64_t txid;			/* INTENT: new; ABORT, HANDOVER, ACCEPT, REFUSE, CLOSE: must be the record's */
};

/* What the replicas know about nodes; asked by lease_apply. */
struct lease_world {
	/* Nothing of this life of the node executes any more: proven, or a later life of it has been seen. */
	bool (*proven)(const void *arg, uint32_t nodeid, uint64_t inc);
	/* Is this its present life, and is it not proven dead? */
	bool (*lives)(const void *arg, uint32_t nodeid, uint64_t inc);
	const void *arg;
	uint64_t version_floor;		/* versions up to here were names of records that are deleted: a new one begins above */
	unsigned mutate;		/* tests only: LEASE_MUT_* */
};
#define LEASE_MUT_NO_PROOF	1u	/* TAKE and REFUSE by the coordinator without a proof */
#define LEASE_MUT_STEP4		2u	/* a target may ACCEPT from RUNNING(source, txid) */

/* Clear, with a name.  -EINVAL: no name, or too long. */
int lease_init(struct lease *l, const char *vm) csv_must_check;
bool lease_vm_valid(const char *vm);	/* letters, digits, . _ -, not starting with . or -, shorter than LEASE_NAME_BYTES */

/*
 * The one table of moves.  old: state LEASE_NONE when there is no such record.  0 with ret (state LEASE_NONE: deleted);
 * -ESTALE another version; -EPERM not by this one; -EBUSY a migration is under way; -EINVAL not from this state or bad arguments;
 * -EACCES no execution proof.
 */
int lease_apply(const struct lease *old, const struct lease_cas *cas, const struct lease_world *w, struct lease *ret) csv_must_check;

/* May that node's QEMU execute, by a *committed* record? */
static inline bool lease_may_run(const struct lease *l, uint32_t nodeid, uint64_t inc)
{
	return l->state == LEASE_RUNNING && l->owner == nodeid && l->owner_inc == inc;
}
/* Is it that node's, whether it may run or not? */
static inline bool lease_is_owned_by(const struct lease *l, uint32_t nodeid, uint64_t inc)
{
	return l->state > LEASE_FREE && l->owner == nodeid && l->owner_inc == inc && nodeid;
}
/* A migration that has not been switched over: who is the source and who the target. */
static inline bool lease_is_intent(const struct lease *l)
{
	return l->state == LEASE_RUNNING && l->txid && !(l->flags & (LEASE_MOVED | LEASE_RETURNED));
}

const char *lease_state_name(enum lease_state s);	/* "FREE"… as in JSON */
const char *lease_want_name(enum lease_want w);		/* "run", "paused", "stopped" */
const char *lease_move_name(enum lease_move m);
/* One sentence with what to do; "" for none.  node: name of the node concerned, for the command in it. */
void lease_reason_text(enum lease_reason r, const char *vm, const char *node, char *buf, size_t size);
/* "web1 v12 e3 RUNNING(2.1a) peer 3 tx 7": for logs and for the model's story. */
void lease_to_text(const struct lease *l, char *buf, size_t size);

/* ---- wire; decoders check every field, and fail the cursor */
#define LEASE_WIRE_MAX (1 + LEASE_NAME_BYTES + 64)
void lease_encode(struct csv_cursor *c, const struct lease *l);
void lease_decode(struct csv_cursor *c, struct lease *ret);
void lease_cas_encode(struct csv_cursor *c, const struct lease_cas *p);
void lease_cas_decode(struct csv_cursor *c, struct lease_cas *ret);

#endif
