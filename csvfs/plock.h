/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * plock.h - flock, POSIX and OFD locks of programs, for the whole cluster (R35).
 *
 * Every member keeps the whole table (plock_table.h) and applies the same requests in the same order, which is the order of the cluster's
 * ordered messages; so each knows at once who holds what, who waits and who would wait for ever.  The programs' locks are few and
 * change rarely (a virtual machine takes a handful when it opens its disk), so one ordered message a change is cheap.
 *
 *	program on n1		n1			n2			n3
 *	F_OFD_SETLK   ----->	LOCK ==============> ordered, all ==============>
 *				applies it		applies it		applies it
 *				   <------- ACK -------'			|
 *				   <------- ACK --------------------------------'
 *	<----- held -------	all have it
 *
 * Own delivery decides nothing (a sender whose link died delivers to itself alone): a lock is held when every member has applied it.
 *
 * A view change: everybody says what of its own it holds (all that it has confirmed to a program) and the tables are built from
 * that; what was not confirmed is asked for again.  The locks of a lost node are in nobody's table then, and nobody confirms a lock
 * while any lost node may still be running (`settled`): until its fence no program elsewhere gets a lock that it may hold.
 *
 * Invariants
 *  PL1 A lock is confirmed to a program only when all members of the present view have applied it and each of them finds the cluster settled.
 *  PL2 All members apply the same requests of a view in the same order, beginning with the same table.
 *  PL3 What a node says it holds is exactly what it has confirmed and not given up.
 *  PL5 A lock for writing that became one for reading in the members' tables stays so, though a view change came before it was confirmed:
 *      others read since.  So such a request does not come to nothing, neither by a signal nor by somebody in the way.
 *  PL4 A new incarnation begins with nothing: the others may have given its locks away (`lost` tells the user).
 *
 * Threads: the control thread.  plock_set, plock_clear and plock_get await; no glock may be held (R5).
 */
#ifndef CSVFS_CSVFS_PLOCK_H
#define CSVFS_CSVFS_PLOCK_H

#include "csvfs/plock_table.h"
#include "utils/env/env.h"

struct plock_ctl;
struct plock_user {
	/* No lost node may still be running, as far as this node knows. */
	bool (*settled)(void *arg);
	/* All locks of this node are gone (PL4).  NULL: not told. */
	void (*lost)(void *arg);
	/* This node cannot go on: give the volume up. */
	void (*fail)(void *arg, const char *why);
	void *arg;
};

/* Borrowed: env, with its cluster and mesh not started.  NULL: out of memory. */
struct plock_ctl *plock_new(struct env *env, const struct plock_user *user);
/* Everybody who waits answers -CSV_E_WITHDRAWN, and so does every later request. */
void plock_stop(struct plock_ctl *c);
void plock_free(struct plock_ctl *c);
/* The programs here are gone (unmounting): all requests end, new ones answer -CSV_E_WITHDRAWN; the other nodes are served on. */
void plock_close(struct plock_ctl *c);

struct plock_who { uint64_t key; enum plock_kind kind; uint64_t id; uint32_t pid; };	/* key: the file; id: the kernel's owner */

/*
 * 0: held.  -EAGAIN: somebody else has it and !wait.  -EDEADLK.  -EINTR: sched_cancel() while it waited; it is not held, and what was before is
 * (flock: perhaps nothing).  -ENOLCK, -ENOMEM, -CSV_E_WITHDRAWN.  While a lost node is not proven off, and without quorum, it waits (also
 * with !wait, unless it conflicts).
 */
int plock_set(struct plock_ctl *c, const struct plock_who *who, enum plock_type type, uint64_t start, uint64_t end, bool wait);
/* Never waits for quorum.  0, -ENOMEM, -ENOLCK. */
int plock_clear(struct plock_ctl *c, const struct plock_who *who, uint64_t start, uint64_t end);
/* 0 and *ret_found; *ret is the lock that is in the way of such a one. */
int plock_get(struct plock_ctl *c, const struct plock_who *who, enum plock_type type, uint64_t start, uint64_t end, bool *ret_found,
	      struct plock *ret);
/* Has this owner here anything on the file, or is it asking for something? */
bool plock_concerns(const struct plock_ctl *c, const struct plock_who *who);
/* 0: nothing is held or asked for on this node.  Any thread: so that a close need not ask. */
uint64_t plock_busy(const struct plock_ctl *c);
/* As every member sees it. */
void plock_walk(const struct plock_ctl *c, bool (*fn)(void *arg, const struct plock_walk *w), void *arg);

/* For tests: a lock is confirmed on own delivery.  The simulator must find out. */
void plock_mutate_no_ack(struct plock_ctl *c);
/* For tests: confirms while a lost node may be running. */
void plock_mutate_not_settled(struct plock_ctl *c);
/* For tests: what is given up after this node has told what it holds, and before all have, is not told. */
void plock_mutate_unlock_untold(struct plock_ctl *c);

#endif
