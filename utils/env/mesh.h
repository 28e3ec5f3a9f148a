/*
 * mesh.h - unicast messages between members, in order and exactly once within a view (rule R4).
 *
 * The *link port* moves frames over connections that can break at any time and lose what was in flight (TCP; simulated in
 * tests/sim).  The *mesh* (mesh.c, pure) puts per-pair sequence numbers, cumulative acknowledgement and a resend window on
 * top, so a reconnect loses, doubles and reorders nothing.
 *
 * Invariants
 *  M1  Per ordered pair and view: delivered messages are a gap-free prefix of the sent ones, in order, each once.
 *  M2  Every frame carries (lockspace, ring id, sender incarnation): of a future view -> kept until that view is ours or
 *      overtaken (bounded); of an old view or another incarnation -> dropped and counted.
 *  M3  At a view change unacknowledged messages of the old view are discarded on both sides: the layers above rebuild.
 *  M4  A bad frame breaks that connection with a reason and a counter; nothing else is disturbed.
 *  M5  Memory per peer is bounded: the window is MESH_WINDOW_BYTES; mesh_send beyond it queues in the sender up to
 *      MESH_QUEUE_BYTES and then fails with -ENOBUFS (callers treat it as the peer being unreachable).
 *  M6  Frames on a connection are of the version that its ends settled on (proto.h), no other; what a frame carries is of the
 *      version of its view (struct cluster_view).
 */
#ifndef CSVFS_UTILS_ENV_MESH_H
#define CSVFS_UTILS_ENV_MESH_H

#include <stddef.h>
#include <stdint.h>

#include "utils/env/cluster.h"

#define MESH_MSG_MAX (64 * 1024)
#define MESH_WINDOW_BYTES (4u << 20)
#define MESH_QUEUE_BYTES (256u << 20)

/* ---- link port ----------------------------------------------------------------------------------------------- */

struct link_port;
struct link_events {
	void (*up)(void *arg, uint32_t peer);		/* a connection to peer is ready; any older one is gone */
	void (*down)(void *arg, uint32_t peer);
	/* One whole frame.  Borrowed for the call.  Return <0: the frame is bad, drop the connection (reason for the log). */
	int (*frame)(void *arg, uint32_t peer, const void *buf, size_t len);
};
struct link_port_ops {
	int (*start)(struct link_port *p, const struct link_events *ev, void *arg);
	/* The wanted peers; the port connects and reconnects to them by itself and closes others. */
	void (*peers)(struct link_port *p, const uint32_t *nodeid, uint32_t n);
	/* Copies.  0, or -ENOTCONN when there is no connection (the mesh resends after up()). */
	int (*send)(struct link_port *p, uint32_t peer, const void *buf, size_t len);
	void (*stop)(struct link_port *p);
};
struct link_port {
	const struct link_port_ops *ops;
	/* The version of frames that the connection to `peer` settled on, from up() to down().  NULL: all speak the newest. */
	uint16_t (*settled)(struct link_port *p, uint32_t peer);
};

/* ---- mesh ---------------------------------------------------------------------------------------------------- */

struct mesh;
struct mesh_stats {
	uint64_t sent[CHAN_MAX], received[CHAN_MAX];	/* user messages; not resends, not those to oneself */
	uint64_t sent_bytes, received_bytes;		/* payload */
	uint64_t resent, dropped_old_view, dropped_bad, stashed, connects;
	uint64_t acks_sent, duplicates;
};

/*
 * Borrowed: everything.  `lockspace` is the volume's id; frames of another are bad frames.
 * The mesh registers itself for views on CHAN_VIEW of `cl` - before the dlm and fs users see a view, so messages they send
 * from view() are already of the new view.
 */
struct mesh *mesh_new(struct sched *s, struct cluster *cl, struct link_port *link, uint64_t lockspace);
void mesh_free(struct mesh *m);
int mesh_start(struct mesh *m);
/* Called with a message of the current view from a member of it.  Borrowed for the call. */
void mesh_register(struct mesh *m, enum cluster_chan chan,
		   void (*msg)(void *arg, struct cluster_node from, const void *buf, size_t len), void *arg);
/* To a member of the current view; to oneself is delivered through the run queue.  0, -ENOTCONN, -ENOBUFS, -EMSGSIZE, -ENOMEM. */
int mesh_send(struct mesh *m, uint32_t to, enum cluster_chan chan, const void *buf, size_t len);
const struct mesh_stats *mesh_stats(const struct mesh *m);
/* What was wrong with the last bad frame, for the log; "" when there was none. */
const char *mesh_bad_reason(const struct mesh *m);
/* For tests only: a guard removed; the simulator must find out. */
enum mesh_mutation { MESH_MUTATE_NONE, MESH_MUTATE_NO_RESEND, MESH_MUTATE_OLD_RING };
void mesh_mutate(struct mesh *m, enum mesh_mutation what);
/* Oldest unacknowledged message to `peer`, milliseconds; 0 when none: how long a member has been unreachable. */
uint64_t mesh_unacked_ms(struct mesh *m, uint32_t peer);

#endif
