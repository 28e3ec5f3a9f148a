/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * glock.c - table of cached cluster locks, local sharing, requests of coroutines (glock.h).  Transitions: glock_work.c.
 *
 * A glock is in memory while somebody uses it (references, holders, waiters, its worker) or a mode above NL is cached.  Cached and
 * unused ones are on the LRU list; beyond GLOCK_CACHE_MAX the oldest are given up in batches.
 *
 * Local requests are granted first come, first served.  One is granted at once when the cached mode covers it, it is
 * compatible with the holders here, nobody waits before it, and the lock is not in a transition nor draining for one.
 */
#include "csvfs/glock_internal.h"

#include <errno.h>
#include <stdlib.h>

static uint32_t hash_of(const struct glock_table *t, struct csv_owner o)
{
	return (uint32_t)(((o.id * 16 + o.type) * 0x9e3779b97f4a7c15ull) >> 40) & (t->size - 1);
}

static struct glock_priv *table_find(const struct glock_table *t, struct csv_owner o)
{
	struct glock_priv *p = t->hash[hash_of(t, o)];

	while (p && !csv_owner_eq(p->gl.owner, o))
		p = p->hash_next;
	return p;
}

static void table_grow(struct glock_table *t)
{
	struct glock_priv **old = t->hash;
	uint32_t old_size = t->size;

	if (t->count < t->size)
		return;
	t->hash = calloc((size_t)old_size * 2, sizeof(*t->hash));
	if (!t->hash) {
		t->hash = old;
		return;
	}
	t->size = old_size * 2;
	for (uint32_t i = 0; i < old_size; i++) {
		for (struct glock_priv *p = old[i], *next; p; p = next) {
			uint32_t h = hash_of(t, p->gl.owner);

			next = p->hash_next;
			p->hash_next = t->hash[h];
			t->hash[h] = p;
		}
	}
	free(old);
}

bool glock_covers(enum dlm_mode cached, enum dlm_mode wanted)
{
	switch (cached) {
	case DLM_EX: return true;
	case DLM_PW: return wanted != DLM_EX;
	case DLM_PR: return wanted <= DLM_CR || wanted == DLM_PR;
	case DLM_CW: return wanted <= DLM_CW;
	default: return wanted <= cached;
	}
}

static bool holders_allow(const struct glock_priv *p, enum dlm_mode mode)
{
	struct glock_holder *h;

	cds_list_for_each_entry(h, &p->holders, node) {
		if (!dlm_compatible(h->mode, mode))
			return false;
	}
	return true;
}

bool glock_grantable(struct glock_priv *p, enum dlm_mode mode)
{
	return !p->transition && !p->demoting && !p->cleaning && glock_covers(p->gl.mode, mode) && holders_allow(p, mode);
}

static void lru_check(struct glock_table *t);

/* Forgets it when nothing keeps it; puts it on the LRU list when only the cached mode does. */
static void priv_settle(struct glock_priv *p)
{
	struct csvfs *fs = p->gl.fs;
	struct glock_table *t = fs->glocks;
	struct glock_priv **at;

	if (p->refs)
		return;
	if (p->gl.mode != DLM_NL || p->dl.granted != DLM_NL || p->dl.busy) {	/* (granted, but withdrawn before it was taken note of) */
		if (cds_list_empty(&p->lru_node)) {
			cds_list_add_tail(&p->lru_node, &t->lru);
			t->lru_count++;
			glock_idle_add(p);
			lru_check(t);
		}
		return;
	}
	csv_assert(!p->worker && cds_list_empty(&p->holders) && cds_list_empty(&p->waiters) && cds_list_empty(&p->gl.bufs));
	if (p->gl.ops && p->gl.ops->free)
		p->gl.ops->free(&p->gl);
	dlm_lock_done(fs->dlm, &p->dl);
	at = &t->hash[hash_of(t, p->gl.owner)];
	while (*at != p)
		at = &(*at)->hash_next;
	*at = p->hash_next;
	t->count--;
	free(p);
}

void glock_unlru(struct glock_priv *p)
{
	if (!cds_list_empty(&p->lru_node)) {
		cds_list_del_init(&p->lru_node);
		cds_list_del_init(&p->idle_node);
		p->gl.fs->glocks->lru_count--;
	}
}

void glock_put_ref(struct glock_priv *p)
{
	csv_assert(p->refs);
	p->refs--;
	priv_settle(p);
}

static void owner_to_name(struct csv_owner o, uint8_t name[CSV_LOCKNAME_LEN])
{
	struct le32 type = le32_of(o.type);
	struct le64 id = le64_of(o.id);

	memcpy(name, &type, 4);
	memcpy(name + 4, &id, 8);
}

static struct glock_priv *priv_get(struct csvfs *fs, struct csv_owner res)
{
	struct glock_table *t = fs->glocks;
	struct glock_priv *p = table_find(t, res);
	uint8_t name[CSV_LOCKNAME_LEN];
	uint32_t h;

	csv_assert(res.type > CSV_OWN_NONE && res.type < CSV_OWN_TYPES);
	if (p) {
		p->refs++;
		p->unwanted = false;
		glock_unlru(p);
		return p;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->gl.fs = fs;
	p->gl.owner = res;
	p->gl.ops = fs->glock_ops[res.type];
	p->gl.priv = p;
	CDS_INIT_LIST_HEAD(&p->gl.bufs);
	CDS_INIT_LIST_HEAD(&p->lru_node);
	CDS_INIT_LIST_HEAD(&p->list_node);
	CDS_INIT_LIST_HEAD(&p->idle_node);
	CDS_INIT_LIST_HEAD(&p->holders);
	CDS_INIT_LIST_HEAD(&p->waiters);
	waitq_init(&p->worker_wq);
	waitq_init(&p->changed_wq);
	owner_to_name(res, name);
	dlm_lock_init(fs->dlm, &p->dl, name, sizeof(name));
	p->dl.done = glock_dlm_done;
	p->dl.bast = glock_dlm_bast;
	p->dl.arg = p;
	p->refs = 1;
	table_grow(t);
	h = hash_of(t, res);
	p->hash_next = t->hash[h];
	t->hash[h] = p;
	t->count++;
	return p;
}

struct glock *glock_find(struct csvfs *fs, struct csv_owner res)
{
	struct glock_priv *p = table_find(fs->glocks, res);

	return p ? &p->gl : NULL;
}

struct glock *glock_ref(struct csvfs *fs, struct csv_owner res)
{
	struct glock_priv *p = priv_get(fs, res);

	return p ? &p->gl : NULL;
}

void glock_unwanted(struct glock *gl)
{
	priv_of(gl)->unwanted = true;
}

void glock_unref(struct glock *gl)
{
	if (gl)
		glock_put_ref(priv_of(gl));
}

/* ---- taking and putting ---------------------------------------------------------------------------------------------------- */

static void holder_add(struct glock_priv *p, struct glock_holder *h)
{
	cds_list_add_tail(&h->node, &p->holders);
	glock_touched(&p->gl);
}

void glock_waiter_end(struct glock_priv *p, struct glock_waiter *w, int status)
{
	cds_list_del(&w->node);
	w->done = true;
	w->status = status;
	if (!status)
		holder_add(p, w->h);
	sched_wake_all(gl_sched(p), &w->wq);
}

static int get_queued(struct glock_priv *p, struct glock_holder *h, unsigned flags)
{
	struct glock_waiter w = { .h = h, .flags = flags };
	int ret;

	waitq_init(&w.wq);
	cds_list_add_tail(&w.node, &p->waiters);
	ret = glock_kick(p);
	if (ret < 0 && !w.done) {
		cds_list_del(&w.node);
		return ret;
	}
	while (!w.done) {
		if (flags & GLOCK_NOINTR) {
			sched_wait(gl_sched(p), &w.wq);
		} else if (sched_wait_intr(gl_sched(p), &w.wq) == -EINTR && !w.done) {
			cds_list_del(&w.node);
			glock_kick(p);		/* the request may be taken back; others may be next */
			return -EINTR;
		}
	}
	return w.status;
}

int glock_get(struct csvfs *fs, struct csv_owner res, enum dlm_mode mode, unsigned flags, struct glock_holder *ret_h)
{
	struct glock_priv *p;
	int ret = 0;

	csv_assert(mode > DLM_NL && mode <= DLM_EX);
	ret_h->gl = NULL;
	glock_order_check(fs, res, flags);
	if (fs->state == CSVFS_WITHDRAWN)
		return -CSV_E_WITHDRAWN;
	p = priv_get(fs, res);
	if (!p)
		return -ENOMEM;
	ret_h->gl = &p->gl;
	ret_h->mode = mode;
	ret_h->coro = NULL;
	if (cds_list_empty(&p->waiters) && glock_grantable(p, mode))
		holder_add(p, ret_h);
	else if ((flags & GLOCK_LOCAL_ONLY) ||
		 ((flags & GLOCK_NOQUEUE) && (p->transition || p->demoting || p->cleaning || !cds_list_empty(&p->waiters) ||
					      !cds_list_empty(&p->holders))))
		ret = -EAGAIN;
	else
		ret = get_queued(p, ret_h, flags);
	if (ret < 0) {
		ret_h->gl = NULL;
		glock_put_ref(p);
	} else if (!(flags & GLOCK_LASTING)) {
		glock_order_add(fs, ret_h);
	}
	return ret;
}

void glock_put(struct glock_holder *h)
{
	struct glock *gl = h->gl;
	struct glock_priv *p;

	if (!gl)
		return;
	p = priv_of(gl);
	glock_order_del(gl->fs, h);
	cds_list_del(&h->node);
	h->gl = NULL;
	if (p->worker || !cds_list_empty(&p->waiters) || p->blocked)
		glock_kick(p);
	glock_put_ref(p);
}

bool glock_lvb(const struct glock *gl, uint8_t ret_lvb[DLM_LVB_LEN])
{
	const struct dlm_lock *dl = &gl->priv->dl;

	if (gl->mode == DLM_NL || !dl->lvb_valid)
		return false;
	memcpy(ret_lvb, dl->lvb, DLM_LVB_LEN);
	return true;
}

void glock_lvb_set(struct glock *gl, const uint8_t lvb[DLM_LVB_LEN])
{
	csv_assert(gl->mode == DLM_EX);
	memcpy(gl->priv->dl.lvb, lvb, DLM_LVB_LEN);
}

/* ---- giving up on purpose ------------------------------------------------------------------------------------------------------ */

/* Starts it; the caller holds a reference. */
static int drop_start(struct glock_priv *p, enum dlm_mode to)
{
	if (p->gl.mode <= to && !p->transition)
		return 0;
	if (!p->drop || to < p->drop_to)
		p->drop_to = to;
	p->drop = true;
	return glock_kick(p);
}

static int drop_wait(struct glock_priv *p)
{
	while (p->drop && p->gl.fs->state != CSVFS_WITHDRAWN)
		sched_wait(gl_sched(p), &p->changed_wq);
	return p->drop ? -CSV_E_WITHDRAWN : 0;
}

int glock_drop(struct glock *gl, enum dlm_mode to)
{
	struct glock_priv *p = priv_of(gl);
	int ret;

	p->refs++;
	glock_unlru(p);
	ret = drop_start(p, to);
	if (!ret)
		ret = drop_wait(p);
	glock_put_ref(p);
	return ret;
}

/* Gives the locks on the list up, together; each has a reference, which goes.  -errno of the first failure. */
static int drop_list(struct cds_list_head *list)
{
	struct glock_priv *p, *next;
	int ret = 0, one;

	cds_list_for_each_entry(p, list, list_node) {
		one = drop_start(p, DLM_NL);
		if (one < 0 && !ret)
			ret = one;
	}
	cds_list_for_each_entry_safe(p, next, list, list_node) {
		one = ret == -ENOMEM ? ret : drop_wait(p);
		if (one < 0 && !ret)
			ret = one;
		cds_list_del_init(&p->list_node);
		glock_put_ref(p);
	}
	return ret;
}

static uint32_t lru_collect(struct glock_table *t, struct cds_list_head *list, uint32_t max)
{
	uint32_t n = 0;

	CDS_INIT_LIST_HEAD(list);
	while (n < max && !cds_list_empty(&t->lru)) {
		struct glock_priv *p = cds_list_first_entry(&t->lru, struct glock_priv, lru_node);

		p->refs++;
		glock_unlru(p);
		cds_list_add_tail(&p->list_node, list);
		n++;
	}
	return n;
}

/* Unused, but not on the LRU list: its worker keeps it for the minimum hold, or waits for the answer to a request that was given up. */
static struct glock_priv *held_by_worker(struct glock_table *t)
{
	for (uint32_t i = 0; i < t->size; i++) {
		for (struct glock_priv *p = t->hash[i]; p; p = p->hash_next) {
			if (p->worker && cds_list_empty(&p->holders))
				return p;
		}
	}
	return NULL;
}

int glock_drop_all(struct csvfs *fs)
{
	struct glock_table *t = fs->glocks;
	struct cds_list_head list;
	struct glock_priv *p;
	int ret = 0;

	while (!ret) {
		if (lru_collect(t, &list, GLOCK_BATCH)) {
			ret = drop_list(&list);
		} else if (t->cleaning) {	/* they come back to the LRU list */
			sched_wait(fs->env->sched, &t->idle_wq);
		} else if ((p = held_by_worker(t))) {
			ret = glock_drop(&p->gl, DLM_NL);
			coro_yield(fs->env->sched);	/* the worker ends */
		} else {
			break;
		}
	}
	return ret;
}

static void shrink_coro(void *arg)
{
	struct csvfs *fs = arg;
	struct glock_table *t = fs->glocks;
	struct cds_list_head list;

	while (t->lru_count > GLOCK_CACHE_MAX && fs->state != CSVFS_WITHDRAWN && lru_collect(t, &list, GLOCK_BATCH)) {
		if (drop_list(&list) < 0)
			break;
	}
	t->shrinking = false;
}

static void lru_check(struct glock_table *t)
{
	if (t->lru_count <= GLOCK_CACHE_MAX || t->shrinking || t->fs->stopping)
		return;
	t->shrinking = !fs_spawn(t->fs, "glock shrink", shrink_coro, t->fs);
}

/* ---- whole table ----------------------------------------------------------------------------------------------------------------- */

void glock_walk(struct csvfs *fs, bool (*fn)(void *arg, const struct glock_info *i), void *arg)
{
	struct glock_table *t = fs->glocks;
	uint64_t now = fs_now_ns(fs);

	for (uint32_t i = 0; i < t->size; i++) {
		for (struct glock_priv *p = t->hash[i]; p; p = p->hash_next) {
			struct glock_info info = { .owner = p->gl.owner, .mode = p->gl.mode, .bounces = p->bounces };
			struct glock_holder *h;
			struct glock_waiter *w;

			info.wanted = p->gl.mode;
			cds_list_for_each_entry(h, &p->holders, node)
				info.holders++;
			cds_list_for_each_entry(w, &p->waiters, node) {
				if (!info.waiters++)
					info.wanted = w->h->mode;
			}
			info.held_ms = p->gl.mode != DLM_NL ? (now - p->granted_ns) / NS_PER_MS : 0;
			if (!fn(arg, &info))
				return;
		}
	}
}

void glock_withdraw_all(struct csvfs *fs)
{
	struct glock_table *t = fs->glocks;

	if (!t)
		return;
	for (uint32_t i = 0; i < t->size; i++) {
		for (struct glock_priv *p = t->hash[i]; p; p = p->hash_next) {
			struct glock_waiter *w, *next;

			cds_list_for_each_entry_safe(w, next, &p->waiters, node)
				glock_waiter_end(p, w, -CSV_E_WITHDRAWN);
			sched_wake_all(gl_sched(p), &p->worker_wq);
			sched_wake_all(gl_sched(p), &p->changed_wq);
		}
	}
	sched_wake_all(fs->env->sched, &t->release_wq);
}

static void retry_fire(struct timer *tm)
{
	struct glock_table *t = container_of(tm, struct glock_table, retry);

	for (uint32_t i = 0; i < t->size; i++) {
		for (struct glock_priv *p = t->hash[i]; p; p = p->hash_next) {
			if (!p->worker && (p->blocked || p->drop || !cds_list_empty(&p->waiters)))
				glock_kick(p);
		}
	}
}

int glock_table_init(struct csvfs *fs)
{
	struct glock_table *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->size = 1024;
	t->hash = calloc(t->size, sizeof(*t->hash));
	if (!t->hash) {
		free(t);
		return -ENOMEM;
	}
	t->fs = fs;
	t->min_hold_ns = (uint64_t)csv_min(fs->opt.min_hold_us, GLOCK_MIN_HOLD_MAX_US) * 1000;
	CDS_INIT_LIST_HEAD(&t->lru);
	CDS_INIT_LIST_HEAD(&t->releases);
	CDS_INIT_LIST_HEAD(&t->ops);
	waitq_init(&t->release_wq);
	timer_init(&t->retry, retry_fire);
	glock_idle_init(t);
	fs->glocks = t;
	return 0;
}

void glock_table_free(struct csvfs *fs)
{
	struct glock_table *t = fs->glocks;

	if (!t)
		return;
	timer_del(fs->env->sched, &t->retry);
	timer_del(fs->env->sched, &t->idle_timer);
	for (uint32_t i = 0; i < t->size; i++) {
		for (struct glock_priv *p = t->hash[i], *next; p; p = next) {
			next = p->hash_next;
			if (p->gl.ops && p->gl.ops->free)
				p->gl.ops->free(&p->gl);
			free(p);
		}
	}
	glock_order_free(t);
	free(t->hash);
	free(t);
	fs->glocks = NULL;
}
