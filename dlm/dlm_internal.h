/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_internal.h - the lock manager's own types (for dlm/ and its tests).
 *
 * Three roles, all played by every node:
 *	client		has the caller's locks (struct dlm_client); the truth about what this node holds
 *	master		has a resource: who holds it, who waits (struct dlm_res); the first node that locked it
 *	directory	says who is master of a name (struct dlm_rec); the two highest-ranked nodes of the view, rank = hash of
 *			name and node.  The first (dir1) decides, the second (dir2) has a copy *before* the master may grant.
 * Each talks to the others by messages only, also on the same node (those cost nothing and are not counted).
 *
 *	known master		client -REQUEST-> master -GRANT-> client			2
 *	unknown master		client -REQUEST-> dir1 -FORWARD-> master -GRANT-> client	3 (QUEUED besides when it must wait)
 *	new resource		client -REQUEST-> dir1 -RECORD-> dir2 -MASTER_YOU-> client	3, fewer when they coincide
 *	downgrade, release	client -DOWN-> master						1
 *	somebody is in the way	master -BAST-> holder						1
 *	last lock gone		master -REMOVE-> dir1 -UNRECORD-> dir2				2
 *	conversion		client -CONVERT-> master -GRANT-> client			2
 *	circle of conversions	master -DEMOTE-> client -DOWN-> master				2 more (dlm_conv.c)
 *	only user converts	master -MOVE-> dir1 -RECORD-> dir2 -MASTER_YOU-> client -MOVED-> master		4, then none (dlm_move.c)
 *	circle of owners?	client -PROBE-> master -CHASE-> client -PROBE-> ...		(dlm_chase.c)
 *
 * Invariants of the protocol
 *  P1  A message of an old view is never seen (mesh): a view change forgets what was under way; the clients' own state is sent
 *      anew by recovery and requests that wait are asked again.
 *  P2  dir1 alone orders what happens to a record; every record it makes has a generation that grows.
 *  P3  A master grants nothing before both directory nodes have its record (res->recorded).
 */
#ifndef CSVFS_DLM_DLM_INTERNAL_H
#define CSVFS_DLM_DLM_INTERNAL_H

#include "dlm/dlm.h"
#include "dlm/dlm_table.h"
#include "utils/base/base.h"
#include "utils/base/cursor.h"

/* ---- modes (dlm_mode.c) ------------------------------------------------------------------------------------------- */

/* a is compatible with everything that b is compatible with. */
bool dlm_mode_covers(enum dlm_mode b, enum dlm_mode a);
/* The weakest mode that conflicts with all that a or b conflicts with. */
enum dlm_mode dlm_mode_join(enum dlm_mode a, enum dlm_mode b);
/* The strongest mode that both cover. */
enum dlm_mode dlm_mode_meet(enum dlm_mode a, enum dlm_mode b);
/* Rule R1: the strongest mode a lost node may have had when the strongest grants of the survivors are these. */
enum dlm_mode dlm_mode_phantom(const uint32_t survivors[6]);

/* ---- names and messages (dlm_msg.c) ------------------------------------------------------------------------------- */

enum dlm_type {
	/* service: all have the same body */
	DLM_M_REQUEST = 1, DLM_M_FORWARD, DLM_M_BACK, DLM_M_RECORD, DLM_M_MASTER_YOU, DLM_M_REMOVE, DLM_M_UNRECORD, DLM_M_GRANT,
	DLM_M_REFUSED, DLM_M_QUEUED, DLM_M_RETRY, DLM_M_BAST, DLM_M_DOWN, DLM_M_CANCEL, DLM_M_CANCELLED, DLM_M_CONVERT, DLM_M_DEMOTE,
	DLM_M_MOVE, DLM_M_MOVED, DLM_M_PROBE, DLM_M_CHASE, DLM_M_SERVICE_END,
	/* recovery: lists of names ... */
	DLM_M_REG = 32, DLM_M_LOSTREC, DLM_M_REPORT, DLM_M_STRAY, DLM_M_FWD, DLM_M_NEWREC, DLM_M_ADOPT, DLM_M_LIST_END,
	/* ... and marks */
	DLM_M_STATE = 64, DLM_M_END, DLM_M_LEAVING, DLM_M_LEAVE_ACK, DLM_M_MAX
};

#define DLM_F_NOQUEUE 1u	/* REQUEST FORWARD BACK */
#define DLM_F_DIR 2u		/* REQUEST: to the directory */
#define DLM_F_LVB 4u		/* GRANT, MOVE and what follows it: valid value block inside; DOWN: written; REPORT: valid and inside */
#define DLM_F_FULL 8u		/* REFUSED: too many locks */
#define DLM_F_PAST 16u		/* REQUEST FORWARD BACK: DLM_PAST_PHANTOMS */
#define DLM_F_PR 32u		/* REQUEST FORWARD BACK: DLM_PR_WELCOME */
#define DLM_F_DEMOTE 64u	/* CONVERT: DLM_DEMOTE */
#define DLM_F_DEADLOCK 64u	/* REFUSED: it would wait in a circle of conversions */
#define DLM_F_NOW 64u		/* GRANT: it did not have to wait */
#define DLM_F_MOVED 64u		/* RECORD, MASTER_YOU: the resource had another master before */

struct dlm_msg {
	uint8_t type, flags, mode;
	struct dlm_name name;
	uint64_t reqid;		/* of the request, or of the request that made the hold */
	/* Of the record; CONVERT: of the request that made the hold; GRANT: ns it waited; DOWN: ns it was held (0: not said; dlm_hold.c). */
	uint64_t gen;
	uint32_t node;		/* FORWARD BACK FWD: who asks; RECORD: the master; MOVE: the master to be; PROBE CHASE: who looks */
	uint64_t lvb_seq;
	uint8_t lvb[DLM_LVB_LEN];
	/* PROBE CHASE: the owner that looks and its request, which attempt it is, the edges it came along */
	struct { uint64_t owner, reqid, path; uint32_t round; uint8_t hops; } probe;
};

#define DLM_WIRE_VERSION 1
#define DLM_HEADER_BYTES 20
#define DLM_PROBE_BYTES (8 + 8 + 8 + 4 + 1)
#define DLM_ENTRY_BYTES_MAX (3 + 1 + DLM_NAME_MAX + 8 + 8 + 4 + 8 + DLM_LVB_LEN + DLM_PROBE_BYTES)
#define DLM_MSG_BYTES_MAX (DLM_HEADER_BYTES + DLM_ENTRY_BYTES_MAX)		/* a service message */
#define DLM_LIST_BYTES (32u << 10)

struct dlm_header { uint8_t type, round; uint32_t len; struct ring_id ring; };
/* NULL, or what is wrong with it. `c` then stands behind the header. */
const char *dlm_header_decode(const void *buf, size_t len, struct csv_cursor *c, struct dlm_header *ret_h);
void dlm_header_encode(struct csv_cursor *c, uint8_t type, uint8_t round, struct ring_id ring);
void dlm_header_finish(struct csv_cursor *c);	/* puts the length in */
/* One body, of a service message or of a list. */
const char *dlm_body_decode(struct csv_cursor *c, uint8_t type, struct dlm_msg *ret_m);
void dlm_body_encode(struct csv_cursor *c, const struct dlm_msg *m);
/* A whole service message; returns its length. */
size_t dlm_msg_encode(const struct dlm_msg *m, struct ring_id ring, uint8_t ret_buf[static DLM_MSG_BYTES_MAX]);

/* ---- what a node tells about itself at the start of a recovery (dlm_agree.c) ---------------------------------------- */

enum dlm_proof { DLM_LOST = 0, DLM_FENCED = 1, DLM_REPLAYED = 2 };	/* only ever grows */
struct dlm_lost { struct cluster_node who; uint8_t proof; bool told; };

#define DLM_CAND_MAX 8
#define DLM_AMNESIA_MAX 8
#define DLM_LOST_MAX 1024
#define DLM_TOMBS_MAX 128

struct dlm_lost_list { uint32_t n; struct dlm_lost e[DLM_LOST_MAX]; };

/*
 * Both directory nodes of some names of view `ring` are gone: those names, when nobody knows them, count as EX-locked by each of
 * the suspects (rule R1).  n == 0: any name.  Falls when all suspects are replayed.
 */
struct dlm_amnesia {
	struct ring_id ring;
	uint32_t n;
	struct cluster_node m[CLUSTER_NODES_MAX];
	uint64_t gone;			/* bit i: m[i] was lost */
	uint32_t n_suspect;		/* more than fit: all that are lost and not replayed */
	struct cluster_node suspect[CLUSTER_NODES_MAX];
};

struct dlm_past {
	bool purged;			/* in this life: takes part in nothing any more */
	/* Views whose tables may be in force somewhere: the last that ran here, and later ones for which we were ready. */
	uint32_t n_cand;
	struct cluster_view cand[DLM_CAND_MAX];
	uint32_t n_amnesia;
	struct dlm_amnesia amnesia[DLM_AMNESIA_MAX];
	struct dlm_lost_list lost;
};

struct dlm_agreed {
	struct cluster_view part;	/* participants: members of the view that have not been purged */
	struct dlm_lost_list lost;
	uint32_t n_amnesia;
	struct dlm_amnesia amnesia[DLM_AMNESIA_MAX];
	bool gap;			/* there may have been views between top and this one */
};

static inline uint8_t dlm_wire_flags(unsigned request_flags)
{
	return (request_flags & DLM_NOQUEUE ? DLM_F_NOQUEUE : 0) | (request_flags & DLM_PAST_PHANTOMS ? DLM_F_PAST : 0) |
	       (request_flags & DLM_PR_WELCOME ? DLM_F_PR : 0) | (request_flags & DLM_DEMOTE ? DLM_F_DEMOTE : 0);
}

/* Pure; the same on all members (v->votes is: cluster.h, C8).  past[i]: v->m[i]'s. */
void dlm_agree(const struct cluster_view *v, struct dlm_past *const *past, struct dlm_agreed *ret_a);
/* After a gap, with what the survey has found in a->lost: no name is known to be free. */
void dlm_agree_gap(struct dlm_agreed *a);
const char *dlm_past_decode(struct csv_cursor *c, struct dlm_past *ret_p);
void dlm_past_encode(struct csv_cursor *c, const struct dlm_past *p);
struct dlm_lost *dlm_lost_find(struct dlm_lost_list *l, struct cluster_node who);
/* Adds or raises.  Old proven entries go when there are too many. */
void dlm_lost_set(struct dlm_lost_list *l, struct cluster_node who, enum dlm_proof proof);
void dlm_past_add_cand(struct dlm_past *p, const struct cluster_view *v);
void dlm_past_prune(struct dlm_past *p);
static inline bool node_eq(struct cluster_node a, struct cluster_node b)
{
	return a.nodeid == b.nodeid && a.incarnation == b.incarnation;
}
/* The two highest-ranked of m; second is NULL when n == 1. */
void dlm_rank(const struct dlm_name *name, const struct cluster_node *m, uint32_t n, const struct cluster_node **ret_first,
	      const struct cluster_node **ret_second);

/* ---- tables --------------------------------------------------------------------------------------------------------- */

struct dlm_lkb {
	struct cds_list_head node;	/* res->granted, res->converting or res->waiting (D2), or res->reports */
	struct cluster_node who;
	uint64_t reqid;
	uint8_t mode;			/* granted, or wanted while waiting; of a converting lock: what it still holds */
	uint8_t want;			/* converting only */
	uint64_t convid;		/* converting only: of the conversion; reqid is of the hold until it is granted */
	bool demote_ok, demoting;	/* converting only: DLM_DEMOTE; DEMOTE was sent */
	bool fresh;			/* nobody was in its way when it came */
	bool mark;			/* scratch of dlm_conv.c */
	uint8_t asked;			/* strongest BAST sent for the present mode; NL: none */
	bool phantom;
	bool past_phantoms;		/* waiting: phantoms are not in its way */
	bool pr_welcome;		/* waiting for CR */
	struct dlm_msg *next;		/* granted: a request that overtook its DOWN; owned */
	uint64_t since_ns;
	/* reports only */
	bool lvb_valid;
	uint64_t lvb_seq;
	uint8_t *lvb;			/* owned */
};

struct dlm_res {
	struct dlm_entry hh;
	struct dlm_name name;
	struct cds_list_head granted, converting, waiting;
	bool recorded;			/* P3 */
	bool asked_away;		/* a BAST was sent since the last grant */
	uint32_t last_holder;		/* node of the last grant */
	uint32_t user, alone;		/* the last node that asked, how many times in a row while it was alone (dlm_move.c) */
	uint64_t conv_seq;		/* counts changes of converting */
	struct dlm_res_stats st;
	uint64_t wait_ns, hold_ns;
	uint64_t gen;
	bool lvb_valid;
	uint64_t lvb_seq;
	uint8_t lvb[DLM_LVB_LEN];
	/* recovery */
	struct cds_list_head reports;
	bool orphan;			/* taken over in this recovery from a lost master: phantoms are inferred */
};

struct dlm_rec {
	struct dlm_entry hh;
	struct dlm_name name;
	struct cluster_node master;
	uint64_t gen;
	struct dlm_rec *also;		/* dir_old only: another master that is said to have had it */
};

/* k over all that hold something: granted and converting.  No `break` out of it. */
#define dlm_each_holder(k, r)                                                                                        \
	for (struct cds_list_head *q_ = (struct cds_list_head *)&(r)->granted; q_;                                   \
	     q_ = q_ == &(r)->granted ? (struct cds_list_head *)&(r)->converting : NULL)                             \
		cds_list_for_each_entry(k, q_, node)

/* Of a request with an owner that waits long (dlm_chase.c). */
#define DLM_PATHS 4
struct dlm_chase {
	uint32_t round;
	uint8_t n_seen, n_before;
	bool again;			/* a second look has been begun before its time */
	uint64_t looked_ns;
	uint32_t passed[CLUSTER_NODES_MAX];	/* the last attempt of part.m[i] that went on along this request */
	uint64_t seen[DLM_PATHS], before[DLM_PATHS];	/* ways on which it has come home: this attempt, the last one */
};

enum dlm_client_state {
	DLM_C_IDLE,		/* NL, or granted */
	DLM_C_UNSENT,		/* waits for a usable view */
	DLM_C_DIR,		/* asked dir1; who is master will be learned */
	DLM_C_MASTER,		/* asked the master */
};

struct dlm_client {
	struct dlm_entry hh;
	struct dlm_name name;
	struct dlm_lock *l;
	enum dlm_client_state state;
	unsigned flags;
	bool cancel;
	bool deadlock;			/* it is taken back because of D8 */
	bool converting;		/* the request under way is a conversion */
	uint64_t reqid;			/* of the request under way or of the one that made the hold ... */
	uint64_t convid;		/* ... and of the conversion */
	uint64_t sent_ns, granted_ns;
	bool undivided;			/* no downgrade since the grant */
	struct dlm_chase *chase;	/* NULL: has looked for no circle, and nobody along it */
	struct cds_list_head rest;	/* d->rest: its bast waits for the minimum hold ... */
	bool resting;
	uint64_t rest_end_ns;		/* ... until then */
	struct cluster_node master;	/* of the hold; at NL a guess; incarnation 0: unknown */
	uint64_t since_ns;
	bool lvb_valid;			/* the resource's value as we know it: our writes in progress are in l->lvb */
	uint64_t lvb_seq;
	uint8_t lvb[DLM_LVB_LEN];
	/* callbacks that are due */
	struct cds_list_head due;
	bool is_due, done_due;
	int status;
	uint8_t bast_due;		/* NL: none */
	struct cds_list_head order;	/* d->asked: all that wait, oldest first */
};

/* Any message that must wait: for our own recovery to get as far as its sender's, or for a record that is on its way. */
struct dlm_held {
	struct cds_list_head node;
	struct cluster_node from;
	size_t len;
	uint8_t buf[];
};

/* A DOWN that could not be sent while there was no usable view. */
struct dlm_owed { struct cds_list_head node; struct cluster_node master; struct dlm_msg m; };

/* At dir1 in a recovery: a name whose master is lost, and who of us holds it. */
struct dlm_orphan {
	struct dlm_entry hh;
	struct dlm_name name;
	struct cds_list_head reports;
};

dlm_table_fits(struct dlm_res);
dlm_table_fits(struct dlm_rec);
dlm_table_fits(struct dlm_client);
dlm_table_fits(struct dlm_orphan);

enum dlm_state {
	DLM_S_DOWN,		/* no usable view */
	DLM_S_AGREE,		/* round 1: who takes part, who is lost */
	DLM_S_SURVEY,		/* after a gap: the disk is asked who else there may be */
	DLM_S_REBUILD,		/* round 2: masters register, holders report */
	DLM_S_STRAY,		/* round 3: reports that found no master go to the directory */
	DLM_S_RESOLVE,		/* round 4: the directory hands out what is without master */
	DLM_S_READY,		/* round 5: tables complete here, waiting for the others */
	DLM_S_RUN,
	DLM_S_PURGED,		/* the view goes on without us */
	DLM_S_MAX
};

struct dlm_peer { struct cluster_node who; uint64_t removed_gen; uint32_t locks, records; };

#define DLM_GUESSES 1024u
/* Who was master of a name that this node no longer uses: asked first when it comes back, and believed as little as any guess. */
struct dlm_guess { struct dlm_name name; struct cluster_node master; };

struct dlm {
	struct env *env;
	struct dlm_events ev;
	struct dlm_config cfg;
	uint32_t self;
	struct dlm_stats st;
	char bad[160];

	/* client */
	struct dlm_table clients;
	struct cds_list_head due;
	struct job due_job;
	struct cds_list_head asked;
	struct cds_list_head owed;
	struct dlm_guess guess[DLM_GUESSES];	/* by hash of the name; a later name takes the place */
	uint64_t next_reqid;
	uint32_t next_round;
	struct timer probe_timer;	/* while an owner waits (dlm_chase.c) */
	struct cds_list_head rest;
	struct timer rest_timer;	/* dlm_hold.c */
	uint64_t rest_timer_ns;
	uint64_t rtt_ns;		/* 0: not measured yet */
	bool leaving, left, leave_sent;
	void (*leave_done)(void *arg);
	void *leave_arg;
	uint64_t leave_acks;		/* bit i: part.m[i] knows */

	/* master */
	struct dlm_table resources;

	/* directory; dir_old while running: names that are on the move from here to their only user (dlm_move.c) */
	struct dlm_table dir, dir_old;
	uint64_t next_gen;
	struct cds_list_head early;	/* FORWARDs that overtook our MASTER_YOU */

	/* recovery */
	enum dlm_state state;
	struct cluster_view view;	/* the last one */
	struct cluster_view part;	/* its participants, from REBUILD on */
	struct cluster_node me;
	struct dlm_peer peer[CLUSTER_NODES_MAX];	/* of part.m */
	struct dlm_past past;
	uint64_t ticket;		/* of the survey that is under way */
	struct dlm_past *heard[CLUSTER_NODES_MAX];	/* STATE of view.m[i] */
	struct dlm_agreed *agreed;	/* tentative until ready */
	uint64_t ended;			/* bit i: part.m[i] has ended this round */
	struct cds_list_head held;
	size_t held_bytes;		/* in held and early */
	bool draining;
	struct dlm_table orphans;
	struct cds_list_head strays;	/* struct dlm_stray: reports without a living master */
	struct { uint8_t type; struct csv_cursor cur; uint8_t *buf; } batch[CLUSTER_NODES_MAX];	/* to part.m[i] */
	uint64_t recovery_started_ns;
	bool lost_due, recovered_due, purged_due, purged_told, leave_due, survey_due;
	struct cluster_view recovered_view;

	/* Simulator only, NULL in production: this resource is new here, or its lists have just changed. */
	void (*touched)(void *arg, const struct dlm_res *r);
	void *touched_arg;
	/* The same: a circle of owners was suspected, and this request looks a second time now. */
	void (*second_look)(void *arg, const struct dlm_lock *l);
	void *second_look_arg;
};

static inline void dlm_touched(struct dlm *d, const struct dlm_res *r)
{
	if (d->touched)
		d->touched(d->touched_arg, r);
}
static inline uint64_t dlm_now_ns(struct dlm *d) { return sched_now_ns(d->env->sched); }
static inline bool dlm_running(const struct dlm *d) { return d->state == DLM_S_RUN; }
void *dlm_alloc(size_t bytes);		/* zeroed; a lock manager without 200 bytes stops: the others recover it */
static inline bool dlm_compat(const struct dlm *d, enum dlm_mode a, enum dlm_mode b)
{
	if (d->cfg.bad_cell && ((a == DLM_PW && b == DLM_PR) || (a == DLM_PR && b == DLM_PW)))
		return true;
	return dlm_compatible(a, b);
}

/* dlm.c */
int dlm_part_index(const struct dlm *d, struct cluster_node who);	/* -1: takes no part */
bool dlm_part_is(const struct dlm *d, struct cluster_node who);
void dlm_send(struct dlm *d, uint32_t to, const struct dlm_msg *m);
void dlm_send_raw(struct dlm *d, uint32_t to, const void *buf, size_t len);
void dlm_bad_msg(struct dlm *d, struct cluster_node from, const char *what, uint64_t value);
/* Waits in `list` for its time, or is counted as bad when too much waits. */
void dlm_hold(struct dlm *d, struct cds_list_head *list, struct cluster_node from, const void *buf, size_t len);
void dlm_held_free(struct dlm *d, struct dlm_held *h);	/* not in a list any more */
void dlm_service(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);

/* dlm_dir.c */
void dlm_dirs(const struct dlm *d, const struct dlm_name *name, uint32_t *ret_dir1, uint32_t *ret_dir2);	/* 0: none */
void dlm_dir_ask(struct dlm *d, struct cluster_node who, const struct dlm_msg *m);
void dlm_dir_forward(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_dir_record(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_dir_master_you(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_dir_remove(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_dir_unrecord(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_dir_take_early(struct dlm *d, const struct dlm_name *name, bool back);
void dlm_dir_move(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_dir_removed(struct dlm *d, const struct dlm_res *r, uint32_t *ret_dir1);	/* about to say so to dir1 */
void dlm_dir_count(struct dlm *d, struct cluster_node master, int by);
void dlm_dir_early_done(struct dlm *d, const struct dlm_name *name);	/* our own request is answered: nothing waits for it */
struct dlm_rec *dlm_rec_find(const struct dlm_table *table, const struct dlm_name *name);
struct dlm_rec *dlm_rec_add(struct dlm_table *table, const struct dlm_name *name, struct cluster_node master, uint64_t gen);
void dlm_rec_del(struct dlm_table *table, struct dlm_rec *r);
void dlm_rec_clear(struct dlm_table *table);

/* dlm_conv.c */
void dlm_conv_request(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_conv_enter(struct dlm *d, struct dlm_res *r, struct dlm_lkb *k, const struct dlm_msg *m);
void dlm_conv_settle(struct dlm *d, struct dlm_res *r);			/* grants what can be granted, asks who is in the way */
/* The first conversion when `k` waits behind it in order, NULL when only holders are in the way of k. */
const struct dlm_lkb *dlm_conv_before(const struct dlm *d, struct dlm_res *r, const struct dlm_lkb *k);

/* dlm_move.c */
bool dlm_move_wanted(struct dlm *d, struct dlm_res *r, const struct dlm_lkb *k);
void dlm_move_start(struct dlm *d, struct dlm_res *r, struct dlm_lkb *k, const struct dlm_msg *conv);
void dlm_move_arrive(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_move_done(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);

/* dlm_chase.c */
void dlm_chase_init(struct dlm *d);
void dlm_chase_asked(struct dlm *d, const struct dlm_client *c);
void dlm_chase_suspend(struct dlm *d);
void dlm_chase_probe(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_chase_holder(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);

/* dlm_hold.c */
void dlm_hold_init(struct dlm *d);
void dlm_hold_measure(struct dlm *d, uint64_t took_ns, uint64_t there_ns);
uint64_t dlm_hold_ns(const struct dlm *d);
bool dlm_hold_back(struct dlm *d, struct dlm_client *c);		/* true: the bast comes later */
void dlm_hold_forget(struct dlm *d, struct dlm_client *c);

/* dlm_res.c */
bool dlm_res_grantable(const struct dlm *d, const struct dlm_res *r, enum dlm_mode mode, bool past_phantoms, const struct dlm_lkb *but);
void dlm_res_grant(struct dlm *d, struct dlm_res *r, struct dlm_lkb *k);
void dlm_res_refuse(struct dlm *d, struct dlm_res *r, struct cluster_node who, const struct dlm_msg *m, uint8_t flags);
void dlm_res_ask(struct dlm *d, struct dlm_res *r, enum dlm_mode mode, const struct dlm_lkb *but);
struct dlm_lkb *dlm_lkb_find(struct cds_list_head *list, struct cluster_node who);
void dlm_res_count(struct dlm *d, struct cluster_node who, int by);	/* entries of a peer, against its limit */
struct dlm_res *dlm_res_find(struct dlm *d, const struct dlm_name *name);
struct dlm_res *dlm_res_new(struct dlm *d, const struct dlm_name *name);
void dlm_res_free(struct dlm *d, struct dlm_res *r);			/* without a word */
void dlm_res_settle(struct dlm *d, struct dlm_res *r);			/* grants, BASTs, or frees it when empty */
void dlm_res_request(struct dlm *d, struct dlm_res *r, struct cluster_node who, const struct dlm_msg *m, bool forwarded);
void dlm_res_down(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_res_cancel(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_res_proof(struct dlm *d, struct cluster_node who, enum dlm_proof proof);
void dlm_res_finish(struct dlm *d, struct dlm_res *r);			/* end of a recovery: old list + reports -> new list */
struct dlm_lkb *dlm_lkb_new(struct cluster_node who, uint64_t reqid, uint8_t mode, uint64_t now_ns);
void dlm_lkb_free(struct dlm_lkb *k);
void dlm_lkbs_free(struct cds_list_head *list);
void dlm_phantom_add(struct dlm *d, struct dlm_res *r, struct cluster_node who, enum dlm_mode mode);

/* dlm_client.c */
struct dlm_client *dlm_client_find(struct dlm *d, const struct dlm_name *name);
void dlm_client_send(struct dlm *d, struct dlm_client *c);
void dlm_client_answer(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_client_bast(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_client_finish(struct dlm *d, struct dlm_client *c, int status);
void dlm_client_suspend(struct dlm *d);
void dlm_client_resume(struct dlm *d);
void dlm_client_purge(struct dlm *d);
void dlm_client_demote(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_client_due(struct dlm *d, struct dlm_client *c);
void dlm_client_cancel(struct dlm *d, struct dlm_client *c);
static inline uint64_t dlm_client_reqid(const struct dlm_client *c) { return c->converting ? c->convid : c->reqid; }
void dlm_client_adopt(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_due(struct job *j);

/* dlm_recover.c */
void dlm_recover_suspend(struct dlm *d);
void dlm_recover_view(struct dlm *d, const struct cluster_view *v);
void dlm_recover_msg(struct dlm *d, struct cluster_node from, const struct dlm_header *h, struct csv_cursor *c, const void *buf,
		     size_t len);
void dlm_recover_ordered(struct dlm *d, struct cluster_node from, const void *buf, size_t len);
void dlm_recover_proof(struct dlm *d, struct cluster_node who, enum dlm_proof proof);
void dlm_recover_leave(struct dlm *d);
void dlm_recover_explain(const struct dlm *d, const char **ret_state, const char **ret_waits_for);
void dlm_recover_drop(struct dlm *d);			/* forgets what belongs to an unfinished recovery */

/* dlm_rebuild.c */
void dlm_rebuild_start(struct dlm *d);
void dlm_rebuild_stray(struct dlm *d);
void dlm_rebuild_resolve(struct dlm *d);
void dlm_rebuild_end_round(struct dlm *d);
void dlm_rebuild_entry(struct dlm *d, struct cluster_node from, const struct dlm_msg *m);
void dlm_rebuild_answers(struct dlm *d);
void dlm_rebuild_drop(struct dlm *d);
/* The state in which a message of this type makes sense: earlier -> hold it, later -> stale. */
enum dlm_state dlm_type_state(uint8_t type, uint8_t round);

#endif
