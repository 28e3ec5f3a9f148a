/*
 * dlm.h - a VMS-style distributed lock manager as a library: one struct dlm per lockspace and node.
 *
 * Pure: events in, messages and callbacks out.  All calls and callbacks on the control thread; callbacks never run inside
 * the call that caused them (they come from the run queue of env->sched).
 * Sources: VMS lock manager as described in Kronenberg, Levy, Strecker, "VAXclusters", 1986; Goldenberg, "VMS internals".
 *
 * Invariants (checked after every simulator step)
 *  D1  No two incompatible grants among unfenced nodes, phantoms of lost nodes included.
 *  D2  A lock is on exactly one queue: granted, converting or waiting.  Conversions come before new requests, both in order; only
 *      who stands in the way of the first conversion may be converted before it.
 *  D3  A value block delivered as valid equals the last one written under PW/EX.
 *  D4  Every request is answered once faults heal.
 *  D5  Nothing is granted while no view is usable; cached grants stay in force.
 *  D6  A lost node's locks stay in force as phantoms until its fence is confirmed (modes below PW) or its journal is
 *      replayed (PW, EX).  Grants obey the normal table against phantoms.
 *  D7  Conversions that wait in a circle for each other end at once: one that allows it (DLM_DEMOTE) gives its old mode up, else the
 *      last to come is answered -EDEADLK and keeps its old mode.
 *  D8  A circle of owners (dlm_lock.owner) that wait for each other ends by -EDEADLK for exactly one request, of the greatest owner in
 *      it; nobody gets -EDEADLK who was not in a circle.
 *  D9  A holder hears of a waiter no later than DLM_HOLD_MAX_NS after it was granted or the waiter came, whichever is later.
 */
#ifndef CSVFS_DLM_DLM_H
#define CSVFS_DLM_DLM_H

#include <stdbool.h>
#include <stdint.h>
#include <urcu/list.h>

#include "utils/env/env.h"

enum dlm_mode { DLM_NL = 0, DLM_CR = 1, DLM_CW = 2, DLM_PR = 3, DLM_PW = 4, DLM_EX = 5 };
bool dlm_compatible(enum dlm_mode a, enum dlm_mode b);
const char *dlm_mode_name(enum dlm_mode m);

#define DLM_NAME_MAX 32		/* bytes, any value */
#define DLM_LVB_LEN 128

#define DLM_NOQUEUE 1u		/* answer -EAGAIN instead of waiting; the present holders do get their blocking callback */
/*
 * Phantoms do not count.  For the locks that recovery itself needs (a lost node's slot): after both directory nodes of a name
 * are gone every name counts as EX-locked by the lost, so they would wait for what only their holder can bring about.  Use it for
 * all requests of such a name or for none: a request without it waits for the phantoms, and those behind it with it.
 */
#define DLM_PAST_PHANTOMS 2u

/*
 * Of a request for CR: PR is as welcome.  The master grants PR where that costs nobody anything: no grant conflicts with it and nobody
 * waits.  Who looks at something now and reads it next has its lock then, without giving CR up and asking anew.
 */
#define DLM_PR_WELCOME 4u

/*
 * Of a conversion: when it waits in a circle with others of the same lock, the mode held may be taken away (->granted is NL then and
 * ->demoted set, before done()) and the conversion waits on from there.  Only for who relies on nothing under the old mode.
 */
#define DLM_DEMOTE 8u

struct dlm;
struct dlm_lock;

/*
 * Embedded by the caller; the dlm's from dlm_lock_init() to dlm_lock_done() (or dlm_free()).
 * At most one dlm_lock per resource and node: a node's own sharing is done above (csvfs/glock.c).
 */
struct dlm_lock {
	/* read-only for the caller */
	uint8_t name[DLM_NAME_MAX];
	uint8_t name_len;
	enum dlm_mode granted;
	enum dlm_mode wanted;		/* of the request under way, else == granted */
	bool busy;			/* a request or conversion is under way */
	bool demoted;			/* in the last conversion the old mode was given up on the way (DLM_DEMOTE) */
	/* The value block as of the last grant; writable by the caller while it holds PW/EX. */
	uint8_t lvb[DLM_LVB_LEN];
	bool lvb_valid;
	uint64_t lvb_seq;
	/*
	 * Set by the caller. status: 0 granted (->granted); -EAGAIN NOQUEUE; -ECANCELED; -ENOTCONN purged by the others or left;
	 * -EDEADLK chosen to end a circle; -ENOLCK the master holds as many locks of this node as it is willing to
	 * (DLM_PEER_LOCKS_MAX).  When a conversion fails the lock is held as before, unless ->demoted.
	 */
	void (*done)(struct dlm_lock *l, int status);
	/* Somebody waits for a mode that conflicts with ours.  May come repeatedly with a stronger mode. */
	void (*bast)(struct dlm_lock *l, enum dlm_mode blocked);
	void *arg;
	/*
	 * Set by the caller while the lock is NL and not busy, 0: none.  Who uses the lock, unique among the owners
	 * of this node; owners of different nodes are different.  An owner that waits for any of its locks gives none of the
	 * others up (whatever bast() says): so a circle of such owners would wait for ever, and is looked for (D8).  The
	 * greatest number loses: with numbers that grow with time that is the youngest.  A lock without owner is given up when bast() says so and
	 * is in no circle.
	 */
	uint64_t owner;
	/* the dlm's own */
	void *priv;
	struct cds_list_head node;
};

struct dlm_events {
	/* The lock tables of view `v` are complete: new grants flow, phantoms are installed. */
	void (*recovered)(void *arg, const struct cluster_view *v);
	/* Lost since the last usable view: these (node, incarnation)s need a fence proof.  Called before recovered(). */
	void (*lost)(void *arg, const struct cluster_node *who, uint32_t n);
	/*
	 * The others have moved on without us (rule: healed minority): our locks are phantoms there and not merged.  Waiting
	 * requests have been answered with -ENOTCONN.  Drain, release everything, then cluster_new_incarnation(): the next view
	 * starts empty.  Locks held stay in force until then; all must be NL when that view comes (asserted).  Comes once a life.
	 */
	void (*purged)(void *arg);
	/*
	 * May be NULL (then: nobody).  There may have been views that nobody here knows of, because quorum counts nodes and not
	 * daemons of this volume:
	 *
	 *	node 1 (volume mounted)      node 2 (mounted)      node 3 (votes only)
	 *	view {1,2}, ring 1 2 3       view {1,2}
	 *	cut off                      view {2}, ring 2 3: locks a new resource
	 *	view {1}, ring 1 3           cut off: holds it, and node 1 has never heard of it
	 *
	 * or because all who knew have restarted.  So before such a view runs, the disk is asked: who is not in the view and owns an
	 * ACTIVE slot (rule R9) is lost, and until all the lost are replayed every name without a master counts as EX-locked by
	 * them.  A node's slot must be ACTIVE on disk before its first request.
	 *
	 * Where all members know how many votes the engine expects (cluster_view.votes) that is rarer: when more than half of them
	 * have been with us since the last view that we know, no other ring was quorate.
	 */
	void (*survey)(void *arg, uint64_t ticket);
	void *arg;
};

/* Borrows env and events.  Uses CHAN_DLM of env->cluster and env->mesh.  NULL when out of memory. */
struct dlm *dlm_new(struct env *env, const struct dlm_events *ev);
void dlm_free(struct dlm *d);

/* name is copied. */
void dlm_lock_init(struct dlm *d, struct dlm_lock *l, const void *name, uint8_t name_len);
/*
 * Asks for `mode` coming from NL (upward conversions in place are not offered: rule R6).  Answered by done().
 * Never fails by itself but by programming error (busy, not NL): asserted.
 */
void dlm_request(struct dlm *d, struct dlm_lock *l, enum dlm_mode mode, unsigned flags);
/*
 * Asks for `mode` while holding another than NL and than EX; the present mode stays in force until done().  `mode` may not be covered
 * by the present one (that is dlm_downgrade()); where neither covers the other (PR, CW) only what both cover (CR) stays in force from
 * the call on, also when it fails: else two nodes could see PR and CW together while the answer travels.  A value block written under PW stays the caller's through it.  Flags: DLM_NOQUEUE,
 * DLM_PAST_PHANTOMS, DLM_DEMOTE.  Goes before new requests.  Who has others that do the same must expect -EDEADLK.
 *
 * A resource whose only user is one remote node that converts it again and again moves to that node: from then on that costs no
 * message.  (Who goes down to NL is master anyhow when it comes back first: the last lock takes the resource along.)
 */
void dlm_convert(struct dlm *d, struct dlm_lock *l, enum dlm_mode mode, unsigned flags);
/*
 * Gives strength up: `mode` < granted (and PR is not above CW: asserted).  Takes effect at once here (l->granted changes before return); when the old mode was
 * PW/EX the value block in l->lvb becomes the resource's (lvb_valid is set).  Without usable view it is sent later.
 */
void dlm_downgrade(struct dlm *d, struct dlm_lock *l, enum dlm_mode mode);
/* Takes a waiting request or conversion back; done(-ECANCELED), or what it came to first. */
void dlm_cancel(struct dlm *d, struct dlm_lock *l);
/* Forgets the lock (must be NL and not busy): no traffic is owed for it afterwards. */
void dlm_lock_done(struct dlm *d, struct dlm_lock *l);

/*
 * The answer to survey(): the owners of all ACTIVE slots, read from the disk after survey() was called (our own and those that
 * are members of the view may be among them).  An old ticket is ignored.
 */
void dlm_surveyed(struct dlm *d, uint64_t ticket, const struct cluster_node *who, uint32_t n);
/*
 * Proofs about a lost node, delivered to every member in the same order (the file system sends them as ordered messages):
 * fenced = it writes nothing more: phantoms below PW fall.  replayed = its journal is replayed and flushed: the rest falls.
 */
void dlm_fence_confirmed(struct dlm *d, struct cluster_node who);
void dlm_replayed(struct dlm *d, struct cluster_node who);
/*
 * Clean leave: tells the others that we hold nothing; done(arg) when all of them know.  All locks must be NL and not busy; later
 * requests get -ENOTCONN.  Who then leaves the group is no lost node: no phantoms, no fence proof needed.
 */
void dlm_leave(struct dlm *d, void (*done)(void *arg), void *arg);
bool dlm_is_recovered(const struct dlm *d);

/* ---- to be seen --------------------------------------------------------------------------------------------- */
struct dlm_stats {
	uint64_t messages_sent, messages_received, requests, remote_requests, grants, basts, downgrades, noqueue_refused, cancels;
	uint64_t bad_messages;		/* malformed, or of a kind its sender had no right to */
	uint64_t stale_messages;	/* overtaken by events: for a request or hold that is over */
	uint64_t send_failed;		/* the mesh refused: that peer is unreachable, the next view repairs it */
	uint64_t recoveries, recovery_ns_last;
	uint64_t conversions, demotions, circles;	/* of conversions, at masters here */
	uint64_t probes, deadlocks;	/* of owners: rounds begun, requests here that were taken back */
	uint64_t moves;			/* resources that went to their only user */
	uint64_t bounces;		/* hand-overs between nodes on demand, at masters here */
	uint64_t held_back;		/* basts that waited for a minimum hold here */
	uint64_t rtt_ns, hold_ns;	/* measured round trip to masters; minimum hold that follows from it */
	uint32_t resources, locks, phantoms, waiting, converting;
};
void dlm_stats(const struct dlm *d, struct dlm_stats *ret);
/*
 * granted != NL and waiting: a conversion (held as granted, wanted as wanted).  phantom: it waits for the node's fence when
 * granted < PW, else for the replay of its journal; what to type is `csvctl node confirm-fenced`.
 */
struct dlm_holder_info { uint32_t nodeid; uint64_t incarnation; enum dlm_mode granted, wanted; bool phantom, waiting; uint64_t since_ms; };
/* Walks resources mastered here; fn returns false to stop. */
void dlm_walk(struct dlm *d, bool (*fn)(void *arg, const uint8_t *name, uint8_t name_len, const struct dlm_holder_info *h,
					uint32_t n), void *arg);
/* Of a resource mastered here, since it is: `csvctl lock show` calls it for what dlm_walk() names. */
struct dlm_res_stats {
	uint64_t grants, bounces;	/* bounce: granted to another node after a holder was asked to make way */
	uint64_t basts, refused;
	uint64_t waits, wait_ms, wait_ms_max;	/* grants that had to wait, and how long in all and at most */
	uint64_t holds, hold_ms, hold_ms_max;	/* holds that ended */
};
bool dlm_res_stats(struct dlm *d, const uint8_t *name, uint8_t name_len, struct dlm_res_stats *ret);

/* What the recovery does and waits for, when dlm_is_recovered() is false: `csvctl lock show` says it. */
struct dlm_recovery_info {
	const char *state;		/* one word: "no-view", "agree", "survey", ... "run", "purged" */
	const char *waits_for;		/* a sentence; "" when running */
	uint64_t since_ms;		/* this recovery began */
	uint32_t n_missing;		/* members that have not said what this round needs */
	uint32_t missing[CLUSTER_NODES_MAX];
};
void dlm_recovery_info(struct dlm *d, struct dlm_recovery_info *ret);

/* Why the last bad message was bad; "" when none was.  For the log. */
const char *dlm_bad_reason(const struct dlm *d);

/* A peer that asks for more distinct locks at one master is refused: its bug, or an attack. */
#define DLM_PEER_LOCKS_MAX (1u << 20)
/* Messages that come before their time wait, of all peers together up to this: lists of a million locks and what is asked meanwhile. */
#define DLM_HELD_BYTES_MAX (512ull << 20)
/* Minimum hold: this many measured round trips, so that a lock two nodes fight for is used at least as long as it travels; capped. */
#define DLM_HOLD_RTTS 2u
#define DLM_HOLD_MAX_NS (10 * NS_PER_MS)
/* Who waits so long with an owner looks for a circle, and again after the same time. */
#define DLM_PROBE_NS (200 * NS_PER_MS)

/* For tests only: guards removed one at a time; the simulator must find out.  And limits that a test can reach. */
struct dlm_config {
	bool no_phantom, weak_phantom, keep_lvb, no_purge, one_directory, no_fifo;
	bool bad_cell;			/* the table says that PW and PR go together */
	bool no_remaster;		/* names of a lost master are not taken over */
	bool no_barrier;		/* a round is over when this node is */
	bool cancel_lost;		/* the master forgets to take a request back */
	bool conv_last;			/* new requests before conversions */
	bool no_circle;			/* conversions that wait for each other are not seen */
	bool demote_unasked;		/* the master takes a mode away without its holder knowing */
	bool no_victim, all_victims;	/* a circle of owners: nobody gives in; everybody */
	bool deadlock_unverified;	/* the first suspicion counts */
	bool move_unrecorded;		/* a resource moves without the directory nodes knowing */
	bool old_ring;			/* messages of another view are taken (with the mesh's guard off) */
	bool hold_uncapped;		/* the minimum hold grows with the round trip without end */
	uint32_t peer_locks_max;
	uint64_t held_bytes_max;
};
void dlm_set_config(struct dlm *d, const struct dlm_config *cfg);

#endif
