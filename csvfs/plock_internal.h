/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * plock_internal.h - shared by plock.c (life, views, the door), plock_req.c (requests: sent, applied, confirmed) and plock_hold.c (what this
 * node holds, and telling it).
 */
#ifndef CSVFS_CSVFS_PLOCK_INTERNAL_H
#define CSVFS_CSVFS_PLOCK_INTERNAL_H

#include <urcu/list.h>

#include "csvfs/plock.h"

/* Ordered messages, and on the mesh ACK alone: le64 request. */
enum plock_msg { PLOCK_MSG_LOCK = 1, PLOCK_MSG_UNLOCK = 2, PLOCK_MSG_GET = 3, PLOCK_MSG_CANCEL = 4, PLOCK_MSG_LIST = 5 };

struct plock_op { enum plock_msg type; enum plock_kind kind; bool wait; uint64_t key, request; struct plock lk; };

enum plock_req_state { PLOCK_REQ_NEW, PLOCK_REQ_SENT, PLOCK_REQ_WAITING, PLOCK_REQ_APPLIED, PLOCK_REQ_DONE };
struct plock_req {
	struct cds_list_head node;
	struct plock_op op;
	enum plock_req_state state;
	bool cancelled;
	bool gave_up;			/* once applied: others may have what it takes back of its owner's own (PL5) */
	int result;
	uint64_t acked;			/* by index in the view */
	bool found;			/* GET */
	struct plock conflict;
	struct waitq wq;
};

struct plock_ctl {
	struct env *env;
	struct plock_user user;
	bool stopped, failed, closing;
	uint64_t busy;			/* read by any thread */
	struct cluster_node self;	/* of the last view */
	struct plock_table *table;	/* of all, PL2 */
	struct plock_table *mine;
	struct cds_list_head log;	/* struct change (plock_hold.c), in order of application */
	struct cds_list_head reqs;	/* oldest first */
	uint64_t next_request;
	/* a view being built: who has told all it holds; what came meanwhile */
	bool said;			/* we have told what we hold: what changes from now on must be told, too */
	bool ready;
	uint64_t told;
	struct cds_list_head stash;	/* struct stashed (plock_req.c) */
	struct cds_list_head owed;	/* struct owed (plock_req.c) */
	struct timer settle;
	bool no_ack, not_settled, unlock_untold;
};

static inline void plock_busy_add(struct plock_ctl *c, int64_t n)
{
	__atomic_add_fetch(&c->busy, (uint64_t)n, __ATOMIC_RELAXED);
}

/* plock.c: gives the volume up, once. */
void plock_ctl_fail(struct plock_ctl *c, const char *why);

/* plock_hold.c: own changes in the order in which they were applied */
void plock_log_add(struct plock_ctl *c, const struct plock_op *op, bool confirmed);
void plock_log_confirm(struct plock_ctl *c, uint64_t request);
void plock_log_settle(struct plock_ctl *c);		/* a view ended: what was not confirmed is not held */
void plock_log_free(struct plock_ctl *c);
bool plock_log_concerns(const struct plock_ctl *c, const struct plock_who *who);
bool plock_log_weakens(const struct plock_ctl *c, const struct plock_op *op);	/* does it make a lock for writing one for reading? */
/* A lock that was applied and not confirmed is forgotten: say() is given what makes of it in the tables what its owner had before. */
void plock_log_take_back(struct plock_ctl *c, const struct plock_op *op, void (*say)(struct plock_ctl *c, const struct plock_op *op));
/* plock_hold.c: what is told in each new view */
void plock_list_tell(struct plock_ctl *c);
bool plock_list_heard(struct plock_ctl *c, struct cluster_node from, const void *buf, size_t len, bool *ret_last);

/* plock_req.c */
void plock_req_run(struct plock_ctl *c, struct plock_req *r, enum plock_msg type, const struct plock_who *who, enum plock_type lock_type,
		   uint64_t start, uint64_t end, bool wait);	/* awaits */
void plock_req_done(struct plock_ctl *c, struct plock_req *r, int result);
void plock_req_forget_view(struct plock_ctl *c);	/* what came too early, and ACKs not given */
void plock_req_on_granted(void *arg, struct cluster_node node, uint64_t request);
void plock_req_on_timer(struct timer *t);
void plock_req_on_message(void *arg, struct cluster_node from, const void *buf, size_t len);
void plock_req_on_ack(void *arg, struct cluster_node from, const void *buf, size_t len);

#endif
