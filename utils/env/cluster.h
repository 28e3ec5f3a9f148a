/*
 * cluster.h - membership views and ordered messages of one lockspace (one mounted volume = one group).
 *
 * Two parts:
 *  - The *port* (struct cluster_port) reports the engine's raw events: the totem ring, the group's members, quorum, and
 *    ordered messages.  Real: corosync (libcpg model V1, libquorum model V1).  Simulated: tests/sim.
 *  - The *view tracker* (cluster.c, pure) turns raw events into usable views and is what everything else uses.
 *
 * Invariants of the tracker (rule R3)
 *  C1  A view is usable when totem's ring id, the group membership delivered under that ring, and quorum's ring id are all
 *      the same and quorate, and a JOIN naming the incarnation of every member has been delivered in that ring.
 *  C2  At any raw event that breaks C1 the user gets suspend() before anything else; nothing may be granted until view().
 *  C3  Views are compared by (ring.seq, ring.nodeid); every node that gets view(R) gets the same member list for R
 *      (unless all processes of the group end and others start in one totem ring: then R may come again, with none in common).
 *  C4  Member *lists* only: joined/left lists of the engine are not used for membership (they differ between nodes).
 *  C5  A user message is delivered between the same two views on every node that delivers it; one that was sent under
 *      another ring than the current usable one is dropped by the tracker (it carries ring and incarnation).
 *      It is *not* promised that all who stay together deliver it: one whose quorum lags may miss what others got at the end
 *      of a view.  What must be known by all is announced again in the next view.
 *  C6  Own delivery of a message decides nothing: a sender whose link died delivers to itself alone.
 *  C7  A view has one version of the messages, the same on all members, that all of them announced (proto.h); a member that shares
 *      none with the others leaves the group, and until it has there is no view.
 *  C8  view.votes comes from the JOINs of the view alone, so all its members have the same; it is no less than what any of them has ever
 *      known in its life.
 *  C9  Who was a member since this node last came to quorum and is none now is lost.  Who was not may be about to come: the network
 *      heals piece by piece.  cluster_may_come_ns() tells the two apart.
 *
 * The ring id of a *view*: the group can change without a new totem ring (a daemon starts, leaves, is purged, quorum comes
 * and goes), and each such change is a view of its own.  So view.ring.seq = totem's seq << CLUSTER_ROUND_BITS | round, where the
 * round is agreed by the JOIN messages.  It still grows, is the same on all members and is all that anybody compares.
 */
#ifndef CSVFS_UTILS_ENV_CLUSTER_H
#define CSVFS_UTILS_ENV_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "utils/env/proto.h"

#define CLUSTER_NODES_MAX 64
#define CLUSTER_MSG_MAX (64 * 1024)

#define CLUSTER_ROUND_BITS 20

struct ring_id { uint32_t nodeid; uint64_t seq; };
static inline bool ring_eq(struct ring_id a, struct ring_id b) { return a.nodeid == b.nodeid && a.seq == b.seq; }
static inline bool ring_after(struct ring_id a, struct ring_id b) { return a.seq > b.seq || (a.seq == b.seq && a.nodeid > b.nodeid); }	/* C3 */

/* A node's life: incarnation is new whenever the daemon starts or has been purged by the others; never 0. */
struct cluster_node { uint32_t nodeid; uint64_t incarnation; };

struct cluster_view {
	struct ring_id ring;
	uint32_t votes;		/* that the engine expects in all, by the most that any member knows; 0: one does not know (C8) */
	uint32_t n;
	struct cluster_node m[CLUSTER_NODES_MAX];	/* ascending nodeid */
	uint16_t version;				/* of the messages: what all members understand; all send it (proto.h) */
};
const struct cluster_node *cluster_view_find(const struct cluster_view *v, uint32_t nodeid);	/* NULL when absent */

/* ---- the port (raw events) -------------------------------------------------------------------------------- */

struct cluster_port;
struct cluster_raw_events {
	void (*totem)(void *arg, struct ring_id ring);
	/* Members of our group as of `ring` (the ring of the last totem event before this one), ascending. */
	void (*members)(void *arg, const uint32_t *nodeid, uint32_t n);
	void (*quorum)(void *arg, struct ring_id ring, bool quorate);
	void (*msg)(void *arg, uint32_t from, const void *buf, size_t len);
	/*
	 * The process of a *living* node left the group by dying: the kernel reaped its I/O first (rule R15).
	 * Comes before the members() that does not have it any more.
	 */
	void (*procdown)(void *arg, uint32_t nodeid);
	/*
	 * For engines whose word is not enough: the process of `nodeid` ended, or seems to; whether its I/O did is told by
	 * process_gone(), soon or never.  Comes before the members() that does not have it any more.
	 */
	void (*process_ended)(void *arg, uint32_t nodeid);
	/* A proof as procdown(), for exactly this life; at any time. */
	void (*process_gone)(void *arg, uint32_t nodeid, uint64_t incarnation);
	/* The engine itself is gone (corosync died): suspend, then withdraw or reconnect. */
	void (*lost)(void *arg, int err);
	/*
	 * Before the totem() it belongs to: how many votes the engine expects in all, when every quorate ring has more than half of
	 * them (or half of them and a tie breaker) and this node has at least one.  0: not known, or its rules are others.
	 */
	void (*expected)(void *arg, uint32_t votes);
};
struct cluster_port_ops {
	int (*start)(struct cluster_port *p, const struct cluster_raw_events *ev, void *arg);
	/* Copies.  -EAGAIN: flow control, try again later; any other error is as good as lost(). */
	int (*send)(struct cluster_port *p, const void *buf, size_t len);
	void (*stop)(struct cluster_port *p);					/* leaves the group */
};
struct cluster_port { const struct cluster_port_ops *ops; uint32_t self; };

/* ---- the tracker -------------------------------------------------------------------------------------------- */

struct sched;
struct cluster;

/* Channels multiplex ordered and mesh messages to their users. */
enum cluster_chan { CHAN_VIEW = 0, CHAN_DLM = 1, CHAN_FS = 2, CHAN_USE = 3, CHAN_PLOCK = 4, CHAN_EVICT = 5, CHAN_MAX = 8 };

struct cluster_user {
	/* Any of these may be NULL.  suspend() may come without a view() before it. */
	void (*suspend)(void *arg);
	void (*view)(void *arg, const struct cluster_view *v);
	/* from is a member of the current usable view.  Bounded by CLUSTER_MSG_MAX.  Borrowed for the call. */
	void (*msg)(void *arg, struct cluster_node from, const void *buf, size_t len);
	void (*procdown)(void *arg, struct cluster_node who);	/* proof: at any time, also without a view */
	void (*lost)(void *arg, int err);
	void *arg;
	void (*ended)(void *arg, struct cluster_node who);	/* its process, it seems; no proof, that may follow by procdown() */
	/* A member shares no version with the others: for the log, at most once a minute.  If it is this node: lost(-EPROTONOSUPPORT), too. */
	void (*refused)(void *arg, const char *why);
};

/* Borrowed: sched, port.  `incarnation` is ours. */
struct cluster *cluster_new(struct sched *s, struct cluster_port *port, uint64_t incarnation);
void cluster_free(struct cluster *c);
/* Before cluster_start().  Users are called in the order of their channels, suspend in the reverse order. */
void cluster_register(struct cluster *c, enum cluster_chan chan, const struct cluster_user *u);
int cluster_start(struct cluster *c);			/* joins the group; 0 or -errno with everything stopped again */
void cluster_stop(struct cluster *c);			/* leaves the group */
/*
 * Ordered multicast to all members, self included.  Queued while the engine pushes back.  Sent only under the current
 * usable view: without one, or when the view changes before delivery, the message is dropped everywhere (C5).
 * 0, -ENOMEM, -EMSGSIZE, -ENOTCONN (no usable view).
 */
int cluster_send(struct cluster *c, enum cluster_chan chan, const void *buf, size_t len);
/* The usable view, or NULL while suspended. */
const struct cluster_view *cluster_current(const struct cluster *c);
/* The engine says of the present ring that it has no quorum: no view comes before nodes do.  *ret_here: nodes of the group that are here. */
bool cluster_lacks_quorum(const struct cluster *c, uint32_t *ret_here);
uint32_t cluster_self(const struct cluster *c);
/*
 * What the membership protocol takes at most until all who can have joined (corosync: cluster_facts_round_ns()), 0 (the default): not waited for.  Before cluster_start().
 *
 * cluster_may_come_ns(): until when (clock of the scheduler) node `nodeid`, which is no member now, may be about to come.  0: it was a member
 * since this node came to quorum, so it is lost.  Else the time is that much after the view with which this node came to quorum.
 *
 *	node 1		node 2		node 3
 *	all three are apart, nobody has quorum: rings {1}, {2}, {3}
 *	heal: corosync joins two of them first
 *	ring {1,2}, quorate: node 3 is missing, and on its way		(may come, for that long)
 *	ring {1,2,3}
 *	ring {1,2}: node 3 was with us, and is lost			(0)
 *
 * Rings that are without quorum only until the engine has counted (false, then true, of one ring) are no time without quorum.
 */
void cluster_set_round(struct cluster *c, uint64_t round_ns);
uint64_t cluster_may_come_ns(const struct cluster *c, uint32_t nodeid);
bool cluster_has_seen(const struct cluster *c, uint32_t nodeid);	/* a member since this node came to quorum */
uint64_t cluster_incarnation(const struct cluster *c);
/* Which versions this node speaks; before cluster_start().  Without: PROTO_MESSAGES, PROTO_MESH. */
void cluster_set_versions(struct cluster *c, struct proto_range messages, struct proto_range mesh);
struct proto_range cluster_versions(const struct cluster *c);
/* The last time that a member shared no version with the others, for people; "" if there was none. */
const char *cluster_refusal(const struct cluster *c);
/*
 * A purged node starts its next life (rule: healed minority) and re-announces itself.  suspend() comes from the run queue, at
 * once otherwise; a view with the new incarnation follows on all members.
 */
void cluster_new_incarnation(struct cluster *c, uint64_t incarnation);

struct cluster_stats {
	uint64_t views, suspends, sent, received;	/* user messages */
	uint64_t joins_sent;
	uint64_t dropped_old;	/* of another view or incarnation */
	uint64_t dropped_bad;	/* malformed, or a sender that is no member */
	uint64_t stashed;	/* came before quorum had confirmed the view, delivered after it */
	uint64_t pushed_back;	/* times the engine said -EAGAIN */
	uint64_t refused;	/* members that shared no version with the others */
};
const struct cluster_stats *cluster_stats(const struct cluster *c);

/* For the mutation tests only: C1 without comparing ring ids.  The simulator must find out. */
void cluster_mutate_ignore_ring(struct cluster *c);
/* The same: C8 without the others' JOINs, every member computes with what it knows itself. */
void cluster_mutate_own_votes(struct cluster *c);

#endif
