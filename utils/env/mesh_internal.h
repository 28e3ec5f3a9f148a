/*
 * mesh_internal.h - shared by mesh.c (receiving, links, views) and mesh_send.c (sending).  The invariants are in mesh.h.
 */
#ifndef CSVFS_UTILS_ENV_MESH_INTERNAL_H
#define CSVFS_UTILS_ENV_MESH_INTERNAL_H

#include <urcu/list.h>

#include "utils/env/mesh.h"
#include "utils/env/mesh_frame.h"
#include "utils/env/sched.h"

struct out {
	struct cds_list_head node;
	uint64_t seq;
	uint64_t since_ns;
	uint32_t msg_crc;
	uint32_t len;
	uint8_t chan;
	bool sent;		/* on the present link */
	bool ever_sent;
	uint8_t frame[];	/* header, filled at sending, and message */
};

struct in {
	struct cds_list_head node;
	struct cluster_node from;
	uint32_t len;
	uint8_t chan;
	uint8_t msg[];
};

struct peer {
	struct cds_list_head node;
	struct mesh *mesh;
	uint32_t nodeid;
	bool up;
	uint8_t version;		/* of frames on the present link, 0: there was none yet (M6) */
	bool member;			/* of the current view */
	uint64_t incarnation;		/* as a member */
	/* to it */
	struct cds_list_head out;
	struct cds_list_head *unsent;	/* the first that is to be sent, or &out */
	uint64_t next_seq;
	uint64_t acked;
	size_t window_bytes, queue_bytes;
	/* from it */
	uint64_t received;		/* last in order */
	size_t unacked_bytes;
	bool ack_due;
	struct timer ack_timer;
	/* of a view to come, or of ours and not delivered yet */
	struct cds_list_head stash;
	struct ring_id stash_ring;
	uint64_t stash_incarnation, stash_last;
	size_t stash_bytes;
};

struct mesh {
	struct sched *sched;
	struct cluster *cl;
	struct link_port *link;
	uint64_t lockspace;
	uint32_t self;
	bool started;
	struct {
		void (*msg)(void *arg, struct cluster_node from, const void *buf, size_t len);
		void *arg;
	} user[CHAN_MAX];
	bool in_view;
	struct cluster_view view;	/* the current, else the last one */
	struct cds_list_head peers;
	struct cds_list_head local;	/* to ourselves */
	struct job deliver;		/* local messages and stashes of the current view */
	struct mesh_stats stats;
	char bad[160];
	enum mesh_mutation mutation;	/* tests only */
};

static inline size_t frame_bytes(uint32_t len)
{
	return MESH_HEADER_BYTES + (size_t)len;
}

/* ---- mesh.c */

struct peer *mesh_peer_find(struct mesh *m, uint32_t nodeid);

/* ---- mesh_send.c */

/* Sends what the window has room for. */
void mesh_out_pump(struct peer *p);
/* The link is new: everything unacknowledged goes again. */
void mesh_out_rewind(struct peer *p);
/* It has everything up to `ack`.  -1: that was never sent. */
int mesh_out_acked(struct peer *p, uint64_t ack);
/* After the user has seen it: an answer it sent has carried the acknowledgement already. */
void mesh_ack_owe(struct peer *p);
void mesh_ack_timer(struct timer *t);

#endif
