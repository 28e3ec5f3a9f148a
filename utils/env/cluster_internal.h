/*
 * cluster_internal.h - shared by cluster.c (from events to views), cluster_msg.c (what is sent, and its form) and cluster_tell.c (what the
 * tracker knows and says besides its views).  The invariants are in cluster.h.
 */
#ifndef CSVFS_UTILS_ENV_CLUSTER_INTERNAL_H
#define CSVFS_UTILS_ENV_CLUSTER_INTERNAL_H

#include <urcu/list.h>

#include "utils/env/cluster.h"
#include "utils/env/sched.h"

#define MSG_HEADER_BYTES 40
#define JOIN_SEATED 1u			/* its sender was in a view in its present life */
#define JOIN_MESH_MIN_SHIFT 4		/* in the same word, six bits each: its range of versions of frames */
#define JOIN_MESH_MAX_SHIFT 10
#define JOIN_MESH_MASK 63u
#define ROUND_MAX ((1u << CLUSTER_ROUND_BITS) - 2)

enum msg_kind { MSG_JOIN = 1, MSG_USER = 2 };

struct member {
	uint32_t nodeid;
	uint32_t round;		/* of its last JOIN for this config, 0: none */
	uint32_t votes;		/* that it expects, of the same JOIN */
	uint64_t incarnation;	/* of its last JOIN since it is in the group in this ring, 0: none */
	struct proto_range speaks, mesh;	/* of the JOIN of `round` */
	bool seated;
};

struct packet {
	struct cds_list_head node;
	uint32_t from;
	size_t len;
	uint8_t buf[];
};

struct cluster {
	struct sched *sched;
	struct cluster_port *port;
	uint64_t incarnation, next_incarnation;
	struct cluster_user user[CHAN_MAX];
	bool registered[CHAN_MAX];
	bool started, lost, mutate_ignore_ring, mutate_own_votes;
	int lost_err;

	bool have_ring, have_members, have_quorum;
	struct ring_id ring, quorum_ring;
	bool quorate;
	uint32_t votes, votes_most;	/* expected in this ring, 0: not known; the most in this life */

	/* C9 */
	bool apart;		/* a ring without quorum has been here since the last usable view, or there was none yet */
	uint64_t round_ns, quorate_ns;
	uint32_t n_seen, seen[CLUSTER_NODES_MAX];	/* members since quorate_ns */
	uint32_t n;
	struct member m[CLUSTER_NODES_MAX];
	uint32_t n_gone;	/* left in this ring: a death notice may still follow */
	struct member gone[CLUSTER_NODES_MAX];
	uint32_t members_crc;
	uint32_t round, round_seen;
	bool agreed;
	bool spent;		/* this round's view has been used and given up: only a new round helps */
	bool usable;
	struct cluster_view view;	/* valid when agreed */
	struct proto_range speaks, mesh;
	bool seated;		/* was in a view in this life */
	uint32_t refused_round;	/* this round was looked at, and not all share a version */
	uint64_t refused_said_ns;
	char refusal[PROTO_TEXT_MAX];

	bool join_due;		/* our JOIN has not reached the engine yet */
	struct cds_list_head queue;	/* user messages the engine did not take yet */
	size_t queue_bytes;
	struct cds_list_head stash;	/* of the agreed view, before it is usable */
	size_t stash_bytes;
	struct timer retry;
	struct job job;		/* what must not happen inside a user's call: new incarnation, loss */
	struct cluster_stats stats;
};

struct csv_cursor;

/* ---- cluster.c */

/* The engine is as good as lost, found out inside a user's call: through the run queue. */
void cluster_engine_lost_later(struct cluster *c, int err);

/* ---- cluster_msg.c */

struct msg_head {
	enum msg_kind kind;
	unsigned chan;
	struct ring_id ring;
	uint32_t round;
	uint64_t incarnation;
	uint16_t min, max, flags, votes;
};
bool cluster_msg_get(struct csv_cursor *cur, struct msg_head *h);
/* What waits goes to the engine: our JOIN, if it is due, then users' messages. */
void cluster_msg_flush(struct cluster *c);
void cluster_msg_retry(struct timer *t);

/* ---- cluster_tell.c */

struct proto_member;
/* A round whose members share no version: no view comes of it (C7). */
void cluster_versions_refuse(struct cluster *c, const struct proto_member *m, unsigned out, struct proto_range messages, struct proto_range mesh);
/* The most that any member expects; 0: one does not know (C8). */
uint32_t cluster_votes_of_all(const struct cluster *c);
/* A view is usable: its members are known to have been here (C9). */
void cluster_seen_note(struct cluster *c);

#endif
