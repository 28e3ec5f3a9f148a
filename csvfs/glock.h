/*
 * glock.h - cached cluster locks of one node and their local sharing (internal to csvfs/).  The glue between dlm and journal.
 *
 * Lock order (R5): mount -> rename -> directories ancestor-first, else by number -> vmap leaf to root -> vneg -> other inodes by
 * number -> open (noqueue) -> orphan s -> groups ascending (a further group: noqueue) -> transaction -> buffers.
 *
 * Invariants
 *  GL1 Holders of one glock on this node are mutually compatible; EX excludes other coroutines of this node as well.
 *  GL2 The cached dlm mode is >= the mode of every holder.  It stays cached after the last holder until somebody else asks.
 *  GL3 No upward conversion in place (R6): with a weaker mode cached, the glock drains, goes to NL (release order) and asks anew.
 *  GL4 Leaving EX/PW runs the release order (R2): gate closed and drained -> jnl_release() -> value block -> dlm_downgrade().
 *      Going to NL also drops what is cached (BC1, in-core inode, kernel caches).
 *  GL5 A blocked request elsewhere is served after the present holders and a minimum hold, before new local holders that conflict
 *      with it: neither side starves.
 *  GL6 Nothing is awaited but block I/O inside a transaction: glock_get asserts !CORO_IN_TXN; order is asserted per coroutine
 *      (a NOQUEUE request waits for nobody, here or elsewhere, and is exempt: the lock of an inode being made comes after its group).
 */
#ifndef CSVFS_CSVFS_GLOCK_H
#define CSVFS_CSVFS_GLOCK_H

#include "csvfs/csvfs_format.h"
#include "dlm/dlm.h"

struct csvfs;
struct glock;

struct glock_ops {
	/* All may await; called by the glock's own coroutine with no holder present. May be NULL. */
	void (*gate_close)(struct glock *gl, enum dlm_mode to);	/* data plane: stop and drain what `to` does not allow */
	void (*before_release)(struct glock *gl, enum dlm_mode to);	/* write pending times etc. in a transaction, before jnl_release */
	void (*fill_lvb)(struct glock *gl, uint8_t *lvb);		/* leaving EX/PW; must not await */
	void (*inval)(struct glock *gl, enum dlm_mode to);		/* caches that `to` does not cover go */
	void (*granted)(struct glock *gl, enum dlm_mode mode, const uint8_t *lvb, bool lvb_valid);	/* fresh from the dlm; must not await */
	void (*free)(struct glock *gl);					/* gl->obj goes */
};

struct glock {
	struct csvfs *fs;
	struct csv_owner owner;		/* resource (type, id) */
	enum dlm_mode mode;		/* cached; what holders may rely on */
	void *obj;			/* for instance the struct inode; owned through ops->free */
	const struct glock_ops *ops;	/* by owner.type */
	struct cds_list_head bufs;	/* cached blocks of this owner */
	struct glock_priv *priv;
};

/* Linked into lists while held: never copied, never moved. */
struct glock_holder {
	struct glock *gl;
	enum dlm_mode mode;
	struct cds_list_head node;	/* of the glock's holders */
	void *coro;			/* whose lock order it counts in; NULL: nobody's */
	struct cds_list_head op_node;
};

#define GLOCK_NOQUEUE 1u	/* -EAGAIN when not grantable at once anywhere */
#define GLOCK_NOINTR 2u		/* not interrupted by sched_cancel() */
#define GLOCK_PR_WELCOME 16u	/* with CR: PR where nobody is disturbed by it (dlm.h); the holder still counts as CR */
#define GLOCK_LASTING 8u	/* outlives the operation (open files): not counted in the coroutine's order; put from any coroutine */
#define GLOCK_LOCAL_ONLY 4u	/* only if already cached here in that mode: never sends; else -EAGAIN */

/*
 * Awaits.  0, -EAGAIN, -EINTR, -CSV_E_WITHDRAWN, -ENOMEM.  While no view is usable cached modes are granted and the rest waits.
 * The lock order is asserted against what this coroutine holds (coro_local() belongs to glock.c): ranks as above, groups ascending,
 * files after vmap and vneg, no lock twice; the order among directories and among files is the caller's.  NOQUEUE, LOCAL_ONLY and LASTING are exempt, and
 * so is `slot`, which only a mount takes.
 */
int glock_get(struct csvfs *fs, struct csv_owner res, enum dlm_mode mode, unsigned flags, struct glock_holder *ret_h);
void glock_put(struct glock_holder *h);		/* an empty holder is allowed */
/* A reference keeps the object in memory without holding the lock. */
struct glock *glock_ref(struct csvfs *fs, struct csv_owner res);	/* creates it at NL when unknown; NULL out of memory */
void glock_unref(struct glock *gl);
/* Gives a cached lock up now (memory pressure, unmount, fsync of others' data).  Awaits. */
int glock_drop(struct glock *gl, enum dlm_mode to);
/* The same for all, in batches; at unmount. */
int glock_drop_all(struct csvfs *fs);
/* Nobody here will want it soon: it goes to NL some time after its last user, in company (glock_idle.c).  Wanted again, it stays. */
void glock_unwanted(struct glock *gl);
/* Value block of the last grant: valid and how. */
bool glock_lvb(const struct glock *gl, uint8_t ret_lvb[DLM_LVB_LEN]);
/* While EX is cached: what those who come later get as the value block (instead of a fill_lvb hook). */
void glock_lvb_set(struct glock *gl, const uint8_t lvb[DLM_LVB_LEN]);

struct glock_info { struct csv_owner owner; enum dlm_mode mode, wanted; unsigned holders, waiters; uint64_t bounces, held_ms; };
void glock_walk(struct csvfs *fs, bool (*fn)(void *arg, const struct glock_info *i), void *arg);

#endif
