/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuse_lock.c - flock(2) and fcntl(2) locks of programs here, made cluster-wide (plock.h).
 *
 * The kernel leaves all of it to us: it keeps no table of its own.  It names an owner (a process for POSIX locks, an open file for OFD locks and
 * flock) and tells of the end of one in two ways:
 *
 *	FLUSH	a descriptor was closed; POSIX says: every lock that this process has on the file goes
 *	RELEASE	the open file is gone, also when its process was killed; what was locked through it goes.  The kernel names no owner then,
 *		so each handle remembers who locked through it
 *
 * Invariants
 *  FL1 A lock that a program holds here is on the list of the handle through which it was taken; an owner that FLUSH ended is on no list,
 *      so that a RELEASE, which comes late, does not take what the process has locked anew through another handle.
 *  FL2 lock_users is 0 only when no handle has an owner on its list and no request is under way: then a FLUSH has nothing to do.
 *
 * The view is part of a file's name: an image and its raw view are never both in use (R41), so their locks need not meet.
 */
#include "csvfs/fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>

#include "csvfs/plock.h"
#include "utils/base/base.h"

struct lock_owner { struct lock_owner *next; enum plock_kind kind; uint64_t id; };

static struct plock_who who_of(const struct fop *op)
{
	return (struct plock_who){ .key = (uint64_t)op->node.view << 62 | op->node.ino, .kind = (enum plock_kind)op->lock.kind,
				   .id = op->fi.lock_owner, .pid = op->lock.pid };
}

static struct use *handle_of(const struct fop *op)
{
	return (struct use *)(uintptr_t)op->fi.fh;
}

static void users_add(struct fused *d, int n)
{
	__atomic_add_fetch(&d->lock_users, n, __ATOMIC_SEQ_CST);
}

bool lock_nothing_held(const struct fused *d)
{
	return !__atomic_load_n(&d->lock_users, __ATOMIC_SEQ_CST);
}

/* ---- handles ------------------------------------------------------------------------------------------------------------------- */

static int owner_note(struct fused *d, struct use *u, const struct plock_who *who)
{
	struct lock_owner *o;

	for (o = u->lock_owners; o; o = o->next)
		if (o->kind == who->kind && o->id == who->id)
			return 0;
	o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	*o = (struct lock_owner){ u->lock_owners, who->kind, who->id };
	if (!u->lock_owners) {
		u->lock_next = d->lockers;
		d->lockers = u;
	}
	u->lock_owners = o;
	users_add(d, 1);
	return 0;
}

static void handle_unlist(struct fused *d, struct use *u)
{
	struct use **p;

	for (p = &d->lockers; *p && *p != u; p = &(*p)->lock_next)
		;
	if (*p)
		*p = u->lock_next;
}

static void owner_forget(struct fused *d, struct use *u, enum plock_kind kind, uint64_t id)
{
	struct lock_owner **p = &u->lock_owners, *o;

	while ((o = *p)) {
		if (o->kind != kind || o->id != id) {
			p = &o->next;
			continue;
		}
		*p = o->next;
		free(o);
		users_add(d, -1);
		if (!u->lock_owners)
			handle_unlist(d, u);
	}
}

/* FL1: POSIX owners that end with a FLUSH. */
static void owner_forget_everywhere(struct fused *d, const struct plock_who *who)
{
	struct use *u, *next;

	for (u = d->lockers; u; u = next) {
		next = u->lock_next;
		if (u->lock_key == who->key)
			owner_forget(d, u, who->kind, who->id);
	}
}

void lock_close(struct fused *d, uint64_t fh)
{
	struct use *u = (struct use *)(uintptr_t)fh;

	while (u && u->lock_owners) {
		struct plock_who who = { .key = u->lock_key, .kind = u->lock_owners->kind, .id = u->lock_owners->id };

		if (d->fs)
			plock_clear(csvfs_plocks(d->fs), &who, 0, UINT64_MAX);
		owner_forget(d, u, who.kind, who.id);
	}
}

/* ---- requests -------------------------------------------------------------------------------------------------------------------- */

void lock_run_get(struct fop *op)
{
	struct plock_who who = who_of(op);
	struct flock fl = { .l_type = F_UNLCK };
	struct plock other;
	bool found;
	int err = plock_get(csvfs_plocks(op->d->fs), &who, (enum plock_type)op->lock.type, op->lock.start, op->lock.end, &found, &other);

	if (err) {
		fop_reply_err(op, err);
		return;
	}
	if (found) {
		fl.l_type = other.type == PLOCK_WRITE ? F_WRLCK : F_RDLCK;
		fl.l_whence = SEEK_SET;
		fl.l_start = (off_t)other.start;
		fl.l_len = other.end >= INT64_MAX ? 0 : (off_t)(other.end - other.start + 1);
		/* A number of another node would name a stranger here. */
		fl.l_pid = other.node.nodeid == cluster_self(op->d->env->cluster) ? (pid_t)other.pid : 0;
	}
	fuse_reply_lock(op->req, &fl);
}

static int set(struct fop *op, const struct plock_who *who)
{
	struct plock_ctl *c = csvfs_plocks(op->d->fs);
	struct use *u = handle_of(op);
	int err;

	if (op->lock.unlock)
		return plock_concerns(c, who) ? plock_clear(c, who, op->lock.start, op->lock.end) : 0;
	if (!u)
		return -ENOLCK;
	u->lock_key = who->key;
	/* On the list first: a lock that nobody takes back would outlive its program. */
	err = owner_note(op->d, u, who);
	return err ? err : plock_set(c, who, (enum plock_type)op->lock.type, op->lock.start, op->lock.end, op->lock.wait);
}

void lock_run_set(struct fop *op)
{
	struct plock_who who = who_of(op);
	int err = handle_of(op) && handle_of(op)->lock_lost ? -EIO : set(op, &who);

	fop_reply_err(op, err);
	if (!op->again)			/* asked once more, it is under way still */
		users_add(op->d, -1);
}

/* FL2: a request that ends before it is run. */
void lock_not_run(struct fop *op)
{
	if (op->kind == FOP_SETLK)
		users_add(op->d, -1);
}

void lock_run_flush(struct fop *op)
{
	struct plock_who who = who_of(op);

	who.kind = PLOCK_POSIX;
	if (plock_concerns(csvfs_plocks(op->d->fs), &who)) {
		plock_clear(csvfs_plocks(op->d->fs), &who, 0, UINT64_MAX);
		owner_forget_everywhere(op->d, &who);
	}
	fop_reply_err(op, 0);
}

/* Everything that was locked through these handles has been given to others: who goes on writing would do it without his lock. */
void lock_all_lost(struct fused *d)
{
	struct use *u, *next;

	for (u = d->lockers; u; u = next) {
		next = u->lock_next;
		__atomic_store_n(&u->lock_lost, true, __ATOMIC_SEQ_CST);
		while (u->lock_owners)
			owner_forget(d, u, u->lock_owners->kind, u->lock_owners->id);
	}
}

/* ---- decoding: worker threads ---------------------------------------------------------------------------------------------------- */

static void range_of(struct fop *op, const struct flock *l)
{
	op->lock.kind = PLOCK_POSIX;
	op->lock.type = l->l_type == F_WRLCK ? PLOCK_WRITE : PLOCK_READ;
	op->lock.unlock = l->l_type == F_UNLCK;
	op->lock.start = (uint64_t)l->l_start;
	op->lock.end = l->l_len ? (uint64_t)l->l_start + (uint64_t)l->l_len - 1 : UINT64_MAX;
	op->lock.pid = (uint32_t)l->l_pid;
}

static struct fop *lock_new(fuse_req_t req, enum fop_kind kind, fuse_ino_t ino, const struct fuse_file_info *fi, const struct flock *l)
{
	struct fop *op = fop_new(req, kind, ino);

	if (!op)
		return NULL;
	op->fi = *fi;
	if (l)
		range_of(op, l);
	if (op->lock.start > op->lock.end) {
		fuse_reply_err(req, EINVAL);
		free(op);
		return NULL;
	}
	return op;
}

void lock_op_get(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *l)
{
	struct fop *op = lock_new(req, FOP_GETLK, ino, fi, l);

	if (op)
		fop_post(op);
}

void lock_op_set(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *l, int sleep)
{
	struct fop *op = lock_new(req, FOP_SETLK, ino, fi, l);

	if (!op)
		return;
	op->lock.wait = sleep != 0;
	users_add(op->d, 1);
	fop_post(op);
}

void lock_op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int how)
{
	struct fop *op = lock_new(req, FOP_SETLK, ino, fi, NULL);

	if (!op)
		return;
	op->lock.kind = PLOCK_FLOCK;
	op->lock.type = how & LOCK_EX ? PLOCK_WRITE : PLOCK_READ;
	op->lock.unlock = (how & LOCK_UN) != 0;
	op->lock.wait = !(how & LOCK_NB);
	op->lock.end = UINT64_MAX;
	op->lock.pid = (uint32_t)op->tid;
	users_add(op->d, 1);
	fop_post(op);
}

void lock_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fop *op;

	if (lock_nothing_held(fuse_req_userdata(req))) {
		fuse_reply_err(req, 0);		/* FL2 */
		return;
	}
	op = lock_new(req, FOP_FLUSH, ino, fi, NULL);
	if (op)
		fop_post(op);
}
