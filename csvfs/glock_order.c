/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * glock_order.c - the lock order of each coroutine, asserted (R5).
 *
 * What a coroutine holds hangs off coro_local(): a struct op_locks.  It is made at the first lock, kept while the coroutine holds
 * one, and freed with the last.  A lock that is put by another coroutine than the one that took it leaves an empty op_locks
 * behind; its owner uses it again or glock_order_free() finds it.
 */
#include "csvfs/glock_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "csvfs/inode.h"

struct op_locks {
	struct cds_list_head holders;
	struct cds_list_head node;	/* of the table */
};

/* -1: not part of the order. */
static int rank_of(uint32_t type)
{
	switch (type) {
	case CSV_OWN_MOUNT: return 0;
	case CSV_OWN_RENAME: return 1;
	case CSV_OWN_INODE:
	case CSV_OWN_VMAP:
	case CSV_OWN_VNEG: return 2;	/* directories -> vmap -> vneg -> files: among_inodes() */
	case CSV_OWN_OPEN: return 3;
	case CSV_OWN_ORPHAN: return 4;
	case CSV_OWN_GROUP: return 5;
	default: return -1;
	}
}

/* Within rank 2: nothing of an image's block map is asked for while a file is locked, nor vmap under vneg, nor a second vneg. */
static bool among_inodes(const struct glock *held, uint32_t type)
{
	const struct inode *ip = held->obj;

	switch (held->owner.type) {
	case CSV_OWN_INODE: return type == CSV_OWN_INODE || !ip || !S_ISREG(ip->mode);
	case CSV_OWN_VNEG: return type == CSV_OWN_INODE;
	default: return true;
	}
}

void glock_order_check(struct csvfs *fs, struct csv_owner res, unsigned flags)
{
	struct sched *s = fs->env->sched;
	struct op_locks *op = *coro_local(s);
	int rank = rank_of(res.type);
	struct glock_holder *h;

	if (flags & GLOCK_LOCAL_ONLY)
		return;
	csv_assertf(!(*coro_flags(s) & CORO_IN_TXN), "%s %" PRIu64 " asked for inside a transaction", mhdr_owner_name(res.type), res.id);
	if (!op || rank < 0 || (flags & (GLOCK_NOQUEUE | GLOCK_LASTING)))
		return;
	cds_list_for_each_entry(h, &op->holders, op_node) {
		struct csv_owner held = h->gl->owner;
		bool ok = rank_of(held.type) <= rank && !csv_owner_eq(held, res);

		if (ok && rank == 2 && rank_of(held.type) == 2)
			ok = among_inodes(h->gl, res.type);
		if (ok && rank == 5 && held.type == CSV_OWN_GROUP)
			ok = held.id < res.id;
		csv_assertf(ok, "lock order: %s %" PRIu64 " asked for while %s %" PRIu64 " is held", mhdr_owner_name(res.type), res.id,
			    mhdr_owner_name(held.type), held.id);
	}
}

void glock_order_add(struct csvfs *fs, struct glock_holder *h)
{
	void **local = coro_local(fs->env->sched);
	struct op_locks *op = *local;

	h->coro = NULL;
	CDS_INIT_LIST_HEAD(&h->op_node);
	if (rank_of(h->gl->owner.type) < 0)
		return;
	if (!op) {
		op = malloc(sizeof(*op));
		if (!op)
			return;		/* not tracked: only the assertion is lost */
		CDS_INIT_LIST_HEAD(&op->holders);
		cds_list_add(&op->node, &fs->glocks->ops);
		*local = op;
	}
	h->coro = op;
	cds_list_add(&h->op_node, &op->holders);
}

void glock_order_del(struct csvfs *fs, struct glock_holder *h)
{
	void **local = coro_local(fs->env->sched);
	struct op_locks *op = h->coro;

	if (!op)
		return;
	cds_list_del(&h->op_node);
	h->coro = NULL;
	if (cds_list_empty(&op->holders) && *local == op) {
		*local = NULL;
		cds_list_del(&op->node);
		free(op);
	}
}

void glock_order_free(struct glock_table *t)
{
	struct op_locks *op, *next;

	cds_list_for_each_entry_safe(op, next, &t->ops, node)
		free(op);
	CDS_INIT_LIST_HEAD(&t->ops);
}
