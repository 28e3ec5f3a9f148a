/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * glock_idle.c - locks that nobody here uses are written back in the background, many at a time.
 *
 * A lock that leaves costs three flushes (R2), one after the other.  Paid one file at a time, by whoever asks for the file, they make
 * the first look at a tree that another node has just made take milliseconds a file.  So what has been unused for about GLOCK_IDLE_NS is
 * written back unasked, up to GLOCK_IDLE_BATCH owners in one jnl_release(); the lock stays cached as it is, and when it is asked for it
 * leaves without I/O.  And when one has to be written back on demand, others that are unused go with it.
 *
 *	                 last user puts it, something to write back
 *	      in use ---------------------------------------------> on t->idle, oldest first
 *	         ^                                                     |  unused for long enough, or another one leaves
 *	         |  somebody wants it: off the list                    v
 *	         +------------------------------------------------- `cleaning`: jnl_release() runs, nothing is granted here
 *
 * Invariants
 *  GI1 While `cleaning`, no holder is let in and the lock neither weakens nor leaves: no handle is open for the owner, as
 *      jnl_release() wants it.
 *  GI2 t->idle is a part of the LRU list: refs == 0.
 *  GI3 An `unwanted` lock goes to NL when it has been unused for as long: its next user will be elsewhere, or nobody.
 *
 * A membership change does nothing here: writing back needs the disk only.
 */
#include "csvfs/glock_internal.h"

#include <stdlib.h>

#define GLOCK_IDLE_NS NS_PER_SEC
#define GLOCK_IDLE_BATCH 256u
#define GLOCK_COMPANY_NS (50 * NS_PER_MS)	/* what is in use all the time is not made to wait */

struct glock_company { uint32_t n; struct glock_priv *p[]; };

static uint64_t ago(const struct glock_table *t, uint64_t ns)
{
	uint64_t now = fs_now_ns(t->fs);

	return now > ns ? now - ns : 0;
}

static bool has_work(const struct glock_priv *p)
{
	return p->unwanted || (p->gl.mode >= DLM_PW && p->gl.fs->jnl && jnl_owner_busy(p->gl.fs->jnl, p->gl.owner));
}

/* Not before GLOCK_IDLE_NS after the last time: steady work would come in batches of one. */
static void arm(struct glock_table *t)
{
	struct glock_priv *p;

	if (t->idling || t->idle_timer.armed || cds_list_empty(&t->idle) || t->fs->stopping || t->fs->state == CSVFS_WITHDRAWN)
		return;
	p = cds_list_first_entry(&t->idle, struct glock_priv, idle_node);
	timer_set(t->fs->env->sched, &t->idle_timer, csv_max(p->idle_ns, t->idled_ns) + GLOCK_IDLE_NS);
}

void glock_idle_add(struct glock_priv *p)
{
	struct glock_table *t = p->gl.fs->glocks;

	p->idle_ns = fs_now_ns(p->gl.fs);
	if (!has_work(p))
		return;
	cds_list_add_tail(&p->idle_node, &t->idle);
	arm(t);
}

/* Those unused since `since_ns` or longer, each with a reference; what has nothing to do any more drops out. */
static struct glock_company *collect(struct glock_table *t, uint64_t since_ns, uint32_t max)
{
	struct glock_company *c = NULL;

	while (!cds_list_empty(&t->idle) && (!c || c->n < max)) {
		struct glock_priv *p = cds_list_first_entry(&t->idle, struct glock_priv, idle_node);

		if (p->idle_ns > since_ns)
			break;
		csv_assert(!p->refs && !p->worker);		/* GI2 */
		if (!has_work(p)) {
			cds_list_del_init(&p->idle_node);
			continue;
		}
		if (!c) {
			c = malloc(sizeof(*c) + max * sizeof(c->p[0]));
			if (!c)
				break;
			c->n = 0;
		}
		glock_unlru(p);
		p->refs++;
		p->cleaning = true;
		t->cleaning++;
		c->p[c->n++] = p;
	}
	return c;
}

static void company_owners(const struct glock_company *c, struct csv_owner *ret_owner)
{
	for (uint32_t i = 0; i < c->n; i++)
		ret_owner[i] = c->p[i]->gl.owner;
}

struct glock_company *glock_company_take(struct glock_table *t, struct csv_owner *ret_owner, uint32_t max, uint32_t *ret_n)
{
	struct glock_company *c = collect(t, ago(t, GLOCK_COMPANY_NS), max);

	*ret_n = c ? c->n : 0;
	if (c)
		company_owners(c, ret_owner);
	return c;
}

void glock_company_put(struct glock_company *c)
{
	struct glock_table *t;

	if (!c)
		return;
	t = c->p[0]->gl.fs->glocks;
	t->cleaning -= c->n;
	if (!t->cleaning)
		sched_wake_all(t->fs->env->sched, &t->idle_wq);
	for (uint32_t i = 0; i < c->n; i++) {
		struct glock_priv *p = c->p[i];

		p->cleaning = false;
		if (p->unwanted && !p->drop) {
			p->drop = true;
			p->drop_to = DLM_NL;
		}
		if (p->worker || p->drop || p->blocked || !cds_list_empty(&p->waiters))
			glock_kick(p);
		glock_put_ref(p);
	}
	free(c);
}

static void idle_coro(void *arg)
{
	struct csvfs *fs = arg;
	struct glock_table *t = fs->glocks;
	struct csv_owner owner[GLOCK_IDLE_BATCH];
	uint64_t since = ago(fs->glocks, GLOCK_IDLE_NS / 2);
	struct glock_company *c;

	while (!fs->stopping && fs->state != CSVFS_WITHDRAWN && (c = collect(t, since, GLOCK_IDLE_BATCH))) {
		company_owners(c, owner);
		/* A failure has ended the journal and withdraws the volume: nothing leaves after it. */
		jnl_release(fs->jnl, owner, c->n);
		glock_company_put(c);
	}
	t->idling = false;
	t->idled_ns = fs_now_ns(fs);
	arm(t);
}

static void idle_fire(struct timer *tm)
{
	struct glock_table *t = container_of(tm, struct glock_table, idle_timer);

	if (t->idling || t->fs->stopping || t->fs->state == CSVFS_WITHDRAWN)
		return;
	t->idling = !fs_spawn(t->fs, "glock idle", idle_coro, t->fs);
	if (!t->idling)		/* out of memory: later */
		timer_set(t->fs->env->sched, &t->idle_timer, fs_now_ns(t->fs) + GLOCK_IDLE_NS);
}

void glock_idle_init(struct glock_table *t)
{
	CDS_INIT_LIST_HEAD(&t->idle);
	waitq_init(&t->idle_wq);
	timer_init(&t->idle_timer, idle_fire);
}
