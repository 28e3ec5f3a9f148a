/* SPDX-License-Identifier: GPL-2.0-only */
/* plock_table.c - see plock_table.h for what is promised. */
#include "csvfs/plock_table.h"

#include <errno.h>
#include <stdlib.h>
#include <uthash.h>
#include <urcu/list.h>

#include "utils/base/base.h"

struct wait {
	struct cds_list_head in_file, in_table;
	struct file *file;
	enum plock_kind kind;
	struct plock lk;
	uint64_t request;
	uint64_t mark;			/* of the deadlock search that saw it */
};

struct file {
	UT_hash_handle hh;
	uint64_t key;
	struct { struct plock *v; uint32_t n, cap; } held[PLOCK_KINDS];
	struct cds_list_head waits[PLOCK_KINDS];	/* longest waiting first */
	uint32_t n_waits[PLOCK_KINDS];
};

struct plock_table {
	struct file *files;
	struct cds_list_head waits;
	uint64_t count, searches;
	void (*granted)(void *arg, struct cluster_node node, uint64_t request);
	void *arg;
};

static bool same_life(struct cluster_node a, struct cluster_node b)
{
	return a.nodeid == b.nodeid && a.incarnation == b.incarnation;
}

static bool same_owner(const struct plock *a, const struct plock *b)
{
	return a->id == b->id && same_life(a->node, b->node);
}

static bool overlap(const struct plock *a, const struct plock *b)
{
	return a->start <= b->end && b->start <= a->end;
}

static bool touch(const struct plock *a, const struct plock *b)
{
	return overlap(a, b) || (a->end != UINT64_MAX && a->end + 1 == b->start) || (b->end != UINT64_MAX && b->end + 1 == a->start);
}

static bool conflict(const struct plock *a, const struct plock *b)
{
	return (a->type == PLOCK_WRITE || b->type == PLOCK_WRITE) && !same_owner(a, b) && overlap(a, b);
}

/* ---- files ------------------------------------------------------------------------------------------------------------------- */

static struct file *file_find(const struct plock_table *t, uint64_t key)
{
	struct file *f;

	HASH_FIND(hh, t->files, &key, sizeof(key), f);
	return f;
}

static struct file *file_get(struct plock_table *t, uint64_t key)
{
	struct file *f = file_find(t, key);

	if (f)
		return f;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->key = key;
	for (int k = 0; k < PLOCK_KINDS; k++)
		CDS_INIT_LIST_HEAD(&f->waits[k]);
	HASH_ADD(hh, t->files, key, sizeof(f->key), f);
	return f;
}

static void file_put(struct plock_table *t, struct file *f)
{
	for (int k = 0; k < PLOCK_KINDS; k++)
		if (f->held[k].n || f->n_waits[k])
			return;
	HASH_DEL(t->files, f);
	for (int k = 0; k < PLOCK_KINDS; k++)
		free(f->held[k].v);
	free(f);
}

static void wait_free(struct wait *w)
{
	cds_list_del(&w->in_file);
	cds_list_del(&w->in_table);
	w->file->n_waits[w->kind]--;
	free(w);
}

struct plock_table *plock_table_new(void (*granted)(void *arg, struct cluster_node node, uint64_t request), void *arg)
{
	struct plock_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	CDS_INIT_LIST_HEAD(&t->waits);
	t->granted = granted;
	t->arg = arg;
	return t;
}

void plock_table_clear(struct plock_table *t)
{
	struct file *f, *next_file;
	struct wait *w, *next;

	cds_list_for_each_entry_safe(w, next, &t->waits, in_table)
		wait_free(w);
	HASH_ITER(hh, t->files, f, next_file) {
		for (int k = 0; k < PLOCK_KINDS; k++)
			f->held[k].n = 0;
		file_put(t, f);
	}
	t->count = 0;
}

void plock_table_free(struct plock_table *t)
{
	if (!t)
		return;
	plock_table_clear(t);
	free(t);
}

/* ---- ranges of one owner --------------------------------------------------------------------------------------------------------- */

/* Room for two more: a change adds at most that many. */
static int held_room(struct file *f, enum plock_kind kind)
{
	uint32_t cap = f->held[kind].cap;
	struct plock *v;

	if (f->held[kind].n + 2 <= cap)
		return 0;
	cap = cap ? 2 * cap : 4;
	v = realloc(f->held[kind].v, cap * sizeof(*v));
	if (!v)
		return -ENOMEM;
	f->held[kind].v = v;
	f->held[kind].cap = cap;
	return 0;
}

static void held_add(struct plock_table *t, struct file *f, enum plock_kind kind, const struct plock *lk)
{
	f->held[kind].v[f->held[kind].n++] = *lk;
	t->count++;
}

static void held_del(struct plock_table *t, struct file *f, enum plock_kind kind, uint32_t i)
{
	f->held[kind].v[i] = f->held[kind].v[--f->held[kind].n];
	t->count--;
}

/* Takes `range` away from what its owner holds there; room is there for the second half of a lock that gets a hole. */
static void cut(struct plock_table *t, struct file *f, enum plock_kind kind, const struct plock *range)
{
	uint32_t i = 0;

	while (i < f->held[kind].n) {
		struct plock h = f->held[kind].v[i], rest;

		if (!same_owner(&h, range) || !overlap(&h, range)) {
			i++;
			continue;
		}
		held_del(t, f, kind, i);
		if (h.start < range->start) {
			rest = h;
			rest.end = range->start - 1;
			held_add(t, f, kind, &rest);
		}
		if (h.end > range->end) {
			rest = h;
			rest.start = range->end + 1;
			held_add(t, f, kind, &rest);
		}
		/* What was put at the end does not overlap, so seeing it again does no harm. */
	}
}

/* PT2: replaces what the owner has there and joins with its neighbours. */
static void place(struct plock_table *t, struct file *f, enum plock_kind kind, const struct plock *lk)
{
	struct plock whole = *lk;
	uint32_t i = 0;

	cut(t, f, kind, lk);
	while (i < f->held[kind].n) {
		const struct plock *h = &f->held[kind].v[i];

		if (!same_owner(h, &whole) || h->type != whole.type || !touch(h, &whole)) {
			i++;
			continue;
		}
		whole.start = csv_min(whole.start, h->start);
		whole.end = csv_max(whole.end, h->end);
		held_del(t, f, kind, i);
	}
	held_add(t, f, kind, &whole);
}

static const struct plock *find_conflict(const struct file *f, enum plock_kind kind, const struct plock *lk)
{
	const struct plock *first = NULL;

	/* The lowest one: the order in the array is not the same for all who came to it on different ways. */
	for (uint32_t i = 0; i < f->held[kind].n; i++) {
		const struct plock *h = &f->held[kind].v[i];

		if (conflict(h, lk) && (!first || h->start < first->start ||
					(h->start == first->start && (h->node.nodeid < first->node.nodeid ||
								      (h->node.nodeid == first->node.nodeid && h->id < first->id)))))
			first = h;
	}
	return first;
}

/* ---- waiting ---------------------------------------------------------------------------------------------------------------------- */

/* Grants what can be granted, longest waiting first, until nothing changes (a grant may be a downgrade that lets others in). */
static int promote(struct plock_table *t, struct file *f, enum plock_kind kind)
{
	struct wait *w, *next;
	bool again;

	do {
		again = false;
		cds_list_for_each_entry_safe(w, next, &f->waits[kind], in_file) {
			struct cluster_node node = w->lk.node;
			uint64_t request = w->request;

			if (find_conflict(f, kind, &w->lk))
				continue;
			if (held_room(f, kind))
				return -ENOMEM;
			place(t, f, kind, &w->lk);
			wait_free(w);
			t->granted(t->arg, node, request);
			again = true;
		}
	} while (again);
	return 0;
}

static bool waits_for(struct plock_table *t, const struct file *f, const struct plock *lk, const struct plock *whom);

/* Does the owner of `h`, which is held, wait for `whom`? */
static bool owner_waits_for(struct plock_table *t, const struct plock *h, const struct plock *whom)
{
	struct wait *w;

	cds_list_for_each_entry(w, &t->waits, in_table) {
		if (w->kind != PLOCK_POSIX || w->mark == t->searches || !same_owner(&w->lk, h))
			continue;
		w->mark = t->searches;
		if (waits_for(t, w->file, &w->lk, whom))
			return true;
	}
	return false;
}

/*
 * Does an owner that blocks `lk` wait, over any number of others, for the owner of `lk`?  Depth first over waiting requests; each is
 * looked at once a search.
 */
static bool waits_for(struct plock_table *t, const struct file *f, const struct plock *lk, const struct plock *whom)
{
	for (uint32_t i = 0; i < f->held[PLOCK_POSIX].n; i++) {
		const struct plock *h = &f->held[PLOCK_POSIX].v[i];

		if (conflict(h, lk) && (same_owner(h, whom) || owner_waits_for(t, h, whom)))
			return true;
	}
	return false;
}

/* The request's own owner is no obstacle to itself, so the search starts with those who block it. */
static bool deadlocks(struct plock_table *t, const struct file *f, const struct plock *lk)
{
	t->searches++;
	for (uint32_t i = 0; i < f->held[PLOCK_POSIX].n; i++) {
		const struct plock *h = &f->held[PLOCK_POSIX].v[i];

		if (conflict(h, lk) && owner_waits_for(t, h, lk))
			return true;
	}
	return false;
}

static int wait_add(struct plock_table *t, struct file *f, enum plock_kind kind, const struct plock *lk, uint64_t request)
{
	struct wait *w;

	if (f->held[kind].n + f->n_waits[kind] >= PLOCK_PER_FILE_MAX)
		return -ENOLCK;
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->file = f;
	w->kind = kind;
	w->lk = *lk;
	w->request = request;
	cds_list_add_tail(&w->in_file, &f->waits[kind]);
	cds_list_add_tail(&w->in_table, &t->waits);
	f->n_waits[kind]++;
	return -EAGAIN;
}

/* ---- the door ---------------------------------------------------------------------------------------------------------------------- */

static int lock(struct plock_table *t, struct file *f, enum plock_kind kind, const struct plock *lk, uint64_t request, bool wait)
{
	int err = held_room(f, kind);

	if (err)
		return err;
	if (kind == PLOCK_FLOCK) {
		cut(t, f, kind, lk);
		err = promote(t, f, kind);
		if (!err)
			err = held_room(f, kind);
		if (err)
			return err;
	}
	if (find_conflict(f, kind, lk)) {
		if (!wait)
			return -EAGAIN;
		if (kind == PLOCK_POSIX && deadlocks(t, f, lk))
			return -EDEADLK;
		return wait_add(t, f, kind, lk, request);
	}
	if (f->held[kind].n + f->n_waits[kind] >= PLOCK_PER_FILE_MAX)
		return -ENOLCK;
	place(t, f, kind, lk);
	/* It may have replaced a lock for writing by one for reading. */
	return promote(t, f, kind);
}

int plock_table_lock(struct plock_table *t, uint64_t key, enum plock_kind kind, const struct plock *lk, uint64_t request, bool wait)
{
	struct file *f = file_get(t, key);
	int err;

	if (!f)
		return -ENOMEM;
	err = lock(t, f, kind, lk, request, wait);
	file_put(t, f);
	return err;
}

int plock_table_unlock(struct plock_table *t, uint64_t key, enum plock_kind kind, const struct plock *range)
{
	struct file *f = file_find(t, key);
	int err;

	if (!f)
		return 0;
	err = held_room(f, kind);
	if (!err && f->held[kind].n + f->n_waits[kind] >= PLOCK_PER_FILE_MAX && range->start && range->end != UINT64_MAX)
		err = -ENOLCK;
	if (!err) {
		cut(t, f, kind, range);
		err = promote(t, f, kind);
	}
	file_put(t, f);
	return err;
}

bool plock_table_cancel(struct plock_table *t, struct cluster_node node, uint64_t request)
{
	struct wait *w;

	cds_list_for_each_entry(w, &t->waits, in_table) {
		struct file *f = w->file;

		if (w->request != request || !same_life(w->lk.node, node))
			continue;
		wait_free(w);
		file_put(t, f);
		return true;
	}
	return false;
}

int plock_table_put(struct plock_table *t, uint64_t key, enum plock_kind kind, const struct plock *lk)
{
	struct file *f = file_get(t, key);
	int err = f ? held_room(f, kind) : -ENOMEM;

	if (!err)
		place(t, f, kind, lk);
	if (f)
		file_put(t, f);
	return err;
}

const struct plock *plock_table_conflict(const struct plock_table *t, uint64_t key, enum plock_kind kind, const struct plock *lk)
{
	const struct file *f = file_find(t, key);

	return f ? find_conflict(f, kind, lk) : NULL;
}

bool plock_table_holds(const struct plock_table *t, uint64_t key, enum plock_kind kind, struct cluster_node node, uint64_t id)
{
	const struct plock who = { .node = node, .id = id };
	const struct file *f = file_find(t, key);

	for (uint32_t i = 0; f && i < f->held[kind].n; i++)
		if (same_owner(&f->held[kind].v[i], &who))
			return true;
	return false;
}

bool plock_table_writes(const struct plock_table *t, uint64_t key, enum plock_kind kind, const struct plock *range)
{
	const struct file *f = file_find(t, key);

	for (uint32_t i = 0; f && i < f->held[kind].n; i++) {
		const struct plock *h = &f->held[kind].v[i];

		if (h->type == PLOCK_WRITE && same_owner(h, range) && overlap(h, range))
			return true;
	}
	return false;
}

void plock_table_walk(const struct plock_table *t, bool (*fn)(void *arg, const struct plock_walk *w), void *arg)
{
	const struct file *f, *next;

	HASH_ITER(hh, t->files, f, next) {
		for (int k = 0; k < PLOCK_KINDS; k++) {
			struct plock_walk o = { .key = f->key, .kind = (enum plock_kind)k };
			const struct wait *w;

			for (uint32_t i = 0; i < f->held[k].n; i++) {
				o.lk = f->held[k].v[i];
				if (!fn(arg, &o))
					return;
			}
			o.waiting = true;
			cds_list_for_each_entry(w, &f->waits[k], in_file) {
				o.lk = w->lk;
				o.request = w->request;
				if (!fn(arg, &o))
					return;
			}
		}
	}
}

uint64_t plock_table_count(const struct plock_table *t)
{
	return t->count;
}
