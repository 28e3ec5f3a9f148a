/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * glock_internal.h - shared by glock.c (table, holders, requests), glock_work.c (transitions), glock_idle.c (write back of what is
 * unused) and glock_order.c (lock order).
 */
#ifndef CSVFS_CSVFS_GLOCK_INTERNAL_H
#define CSVFS_CSVFS_GLOCK_INTERNAL_H

#include "csvfs/csvfs_internal.h"

#define GLOCK_CACHE_MAX 65536u		/* cached locks without users */
#define GLOCK_BATCH 128u		/* locks given up at a time: at unmount, under memory pressure */
#define GLOCK_MIN_HOLD_MAX_US 100000u

struct glock_priv {
	struct glock gl;
	struct dlm_lock dl;
	struct glock_priv *hash_next;
	struct cds_list_head lru_node;	/* cached and unused */
	struct cds_list_head list_node;	/* glock_drop_all, shrink: private list of whoever holds a reference for it */
	struct cds_list_head idle_node;	/* glock_idle.c; only while on the LRU list */
	uint64_t idle_ns;		/* since when it is unused */
	bool unwanted;			/* once unused for a while it goes to NL */
	unsigned refs;			/* users; holders, waiters and the worker count */
	struct cds_list_head holders;	/* struct glock_holder.node */
	struct cds_list_head waiters;	/* struct glock_waiter.node, FIFO */

	bool worker;			/* a coroutine looks after this lock */
	bool transition;		/* it is giving up or asking right now: nothing is granted */
	bool demoting;			/* holders drain: nothing new is granted */
	bool cleaning;			/* it is being written back while unused (glock_idle.c): nothing is granted, it does not leave */
	struct waitq worker_wq;
	struct waitq changed_wq;	/* glock_drop() waits here */

	bool dlm_done;
	int dlm_status;
	bool blocked;			/* somebody elsewhere waits for blocked_mode */
	enum dlm_mode blocked_mode;
	bool drop;			/* somebody here wants it at drop_to or below */
	enum dlm_mode drop_to;

	uint64_t granted_ns, bounces;
};

struct glock_waiter {
	struct cds_list_head node;
	struct glock_holder *h;
	unsigned flags;
	bool done;
	int status;
	struct waitq wq;
};

struct glock_release { struct cds_list_head node; struct csv_owner owner; bool done; int status; };

struct glock_table {
	struct csvfs *fs;
	struct glock_priv **hash;
	uint32_t size, count;
	struct cds_list_head lru;
	uint32_t lru_count;
	bool shrinking;
	uint64_t min_hold_ns;		/* more than the lock manager's own, which follows the round trip */
	struct timer retry;		/* a worker could not be started for want of memory */
	/* unused locks with something to write back, or unwanted; oldest first (glock_idle.c) */
	struct cds_list_head idle;
	struct timer idle_timer;
	bool idling;
	uint64_t idled_ns;		/* when it last ended */
	uint32_t cleaning;		/* locks in that state */
	struct waitq idle_wq;		/* none is any more */
	/* releases: collected while one jnl_release() runs, then done in one */
	struct cds_list_head releases;
	bool releasing;
	struct waitq release_wq;
	struct cds_list_head ops;	/* struct op_locks, see glock_order.c */
	/* Simulator only, NULL in production: mode or holders of this lock have just changed. */
	void (*touched)(void *arg, struct glock *gl);
	void *touched_arg;
};

static inline struct glock_priv *priv_of(struct glock *gl) { return gl->priv; }
static inline void glock_touched(struct glock *gl)
{
	struct glock_table *t = gl->fs->glocks;

	if (t->touched)
		t->touched(t->touched_arg, gl);
}
static inline struct sched *gl_sched(const struct glock_priv *p) { return p->gl.fs->env->sched; }

/* glock.c */
bool glock_covers(enum dlm_mode cached, enum dlm_mode wanted);
bool glock_grantable(struct glock_priv *p, enum dlm_mode mode);	/* here and now, waiters not considered */
void glock_waiter_end(struct glock_priv *p, struct glock_waiter *w, int status);
void glock_put_ref(struct glock_priv *p);
void glock_unlru(struct glock_priv *p);
/* glock_work.c */
int glock_kick(struct glock_priv *p);				/* the worker looks again; started when there is none */
void glock_dlm_done(struct dlm_lock *l, int status);
void glock_dlm_bast(struct dlm_lock *l, enum dlm_mode blocked);
/* glock_idle.c */
void glock_idle_init(struct glock_table *t);
void glock_idle_add(struct glock_priv *p);			/* it has just become unused */
struct glock_company;						/* unused locks that are written back together with one that leaves */
struct glock_company *glock_company_take(struct glock_table *t, struct csv_owner *ret_owner, uint32_t max, uint32_t *ret_n);
void glock_company_put(struct glock_company *c);		/* NULL allowed */
/* glock_order.c */
void glock_order_check(struct csvfs *fs, struct csv_owner res, unsigned flags);
void glock_order_add(struct csvfs *fs, struct glock_holder *h);
void glock_order_del(struct csvfs *fs, struct glock_holder *h);
void glock_order_free(struct glock_table *t);

#endif
