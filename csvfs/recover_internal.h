/* SPDX-License-Identifier: GPL-2.0-only */
/* recover_internal.h - shared by recover.c (what is known, messages, views) and recover_work.c (getting proofs, replay, mount). */
#ifndef CSVFS_CSVFS_RECOVER_INTERNAL_H
#define CSVFS_CSVFS_RECOVER_INTERNAL_H

#include "csvfs/csvfs_internal.h"

#define RCV_JOIN_WAIT_MS 10000u		/* first mounter: owners of ACTIVE slots may still be starting */
#define RCV_BACKOFF_FIRST_MS 1000u
#define RCV_BACKOFF_MAX_MS 30000u
#define RCV_KEEP_DONE 64u		/* finished recoveries remembered */
#define RCV_WITNESS_MS 3000u		/* for the word of a dead process's witness; then the agent */

/* What is known of one life of a node.  The three facts only ever become true. */
struct rcv_node {
	struct cds_list_head node;
	struct recover *rcv;
	struct cluster_node who;
	bool lost;			/* its locks may stand as phantoms or its slot may be ACTIVE: needs proof and replay */
	bool fenced;			/* proven: writes nothing more */
	bool replayed;			/* and its log is replayed and flushed, its slot FREE */
	enum csv_proof kind;
	uint32_t slot;
	uint64_t lost_first, lost_last;	/* view (ring seq) in which it was found lost: earliest and latest that anybody says */
	/* of the current view: which facts were delivered by message, and which the dlm was told */
	bool heard_fenced, heard_replayed, told_fenced, told_replayed;
	bool went;			/* a member of the current view has seen it go (RC6) */
	uint32_t claimed_by;		/* another member that is replaying it in this view; 0: none */
	bool replaying;			/* here, now */
	struct coro *worker;		/* looks after it here */
	void *fencing;			/* request to the agent that the worker waits for */
	uint64_t found_ns;		/* nobody here met it, its ACTIVE slot told of it: its node may be starting just now; 0: met */
	uint64_t ended_ns;		/* the engine says that its process ended: its witness may speak; 0: not said */
	struct waitq wq;		/* of the worker */
	struct csvfs_recovery_info info;
};

struct recover {
	struct csvfs *fs;
	struct cluster_user user;
	struct dlm_events dlm_events;
	struct cds_list_head nodes;	/* struct rcv_node, oldest first */
	bool view_ok;			/* usable and the lock tables are complete */
	uint64_t view_seq;		/* of the last usable view */
	struct cluster_node met[CLUSTER_NODES_MAX];	/* the latest life of each node that was ever a member with us */
	uint32_t n_met;
	bool surveying;			/* survey.c */
	uint64_t survey_ticket, survey_done;
	bool heard[CLUSTER_NODES_MAX];	/* members (by place) that have announced in the current view */
	bool self_fenced;		/* the others have a proof that this very life is gone */
	bool gone_said, gone_heard;	/* recover_announce_gone() */
	enum csv_proof gone_kind;
	unsigned workers;
	uint64_t bad_messages;
};

/* recover.c */
struct rcv_node *rcv_get(struct recover *r, struct cluster_node who);	/* found or made; NULL out of memory */
void rcv_set_lost(struct rcv_node *n);
void rcv_set_fenced(struct rcv_node *n, enum csv_proof kind);
void rcv_set_replayed(struct rcv_node *n, uint32_t slot);
void rcv_announce(struct recover *r);			/* all facts, to all members */
bool rcv_is_member(const struct recover *r, struct cluster_node who);	/* this very life, in the usable view */
bool rcv_is_coordinator(const struct recover *r);
bool rcv_was_met(const struct recover *r, struct cluster_node who);	/* this very life was a member with us */
bool rcv_may_replay(const struct rcv_node *n);		/* RC4 */
/* survey.c */
void rcv_survey(struct recover *r, uint64_t ticket);	/* answers dlm_events.survey */
/* recover_work.c */
void rcv_kick(struct recover *r);			/* starts or wakes a worker for what needs one */

#endif
