/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvfs_internal.h - struct csvfs and what the files of the core know of each other.
 *
 *	super.c		mount, unmount, states			slot.c		slot-state blocks, heartbeat
 *	buf.c		cache of metadata blocks		recover.c	lost nodes: proof, replay, announcements
 *	glock*.c	cached cluster locks			orphan.c	orphan trees and reaping
 *	state.c		state, background coroutines		withdraw.c	the one way out
 *	alloc*.c	allocation groups
 *	inode.c, extent.c, dir.c, namei.c, file.c: the operations
 *
 * Threads: the control thread only.
 *
 * Invariants
 *  FS1 fs->jnl, the slot and the geometry do not change between ACTIVE and the end of umount; before ACTIVE nothing but slot-state
 *      blocks and the own journal is written.
 *  FS2 WITHDRAWN is final: the block gate is closed before the state is seen by anybody else (a healed minority first writes back,
 *      with all operations refused: withdraw.c).
 *  FS3 Every background coroutine of the core is counted (fs_spawn); umount returns only when none is left.
 */
#ifndef CSVFS_CSVFS_CSVFS_INTERNAL_H
#define CSVFS_CSVFS_CSVFS_INTERNAL_H

#include "csvfs/alloc.h"
#include "csvfs/btree.h"
#include "csvfs/buf.h"
#include "csvfs/csvfs.h"
#include "csvfs/format.h"
#include "csvfs/glock.h"
#include "csvfs/plock.h"
#include "dlm/dlm.h"
#include "journal/journal.h"
#include "journal/mhdr.h"
#include "utils/base/err.h"
#include "utils/env/env.h"

/* csvfs_options.mutate: each bit removes one guard; tests show that the guard is needed. */
#define CSV_MUT_NO_PHANTOM		0x01u	/* the dlm forgets the locks of lost nodes */
#define CSV_MUT_NO_REVOKE_ON_RELEASE	0x02u	/* journal: no revokes before a lock leaves */
#define CSV_MUT_HOME_BEFORE_FLUSH	0x04u	/* journal: in-place writes before the FLUSH of their commit */
#define CSV_MUT_REPLAY_BEFORE_FENCE	0x08u	/* recovery does not wait for the proof */
#define CSV_MUT_MAP_NOT_GATED		0x10u	/* data plane: the gate is not closed and drained */
#define CSV_MUT_REUSE_BEFORE_COMMIT	0x20u	/* alloc: freed blocks are not busy */
#define CSV_MUT_IGNORE_RING		0x40u	/* cluster: a view needs no matching ring ids */
#define CSV_MUT_FSYNC_NO_COMMIT		0x80u	/* fsync answers without a commit */
#define CSV_MUT_ENTRY_NO_FLUSH		0x200u	/* images: a place is used again without a FLUSH of its zeros */
#define CSV_MUT_ROOM_NOT_ZEROED		0x400u	/* images: room at the end of the file is not zeroed */
#define CSV_MUT_FSYNC_NO_FLUSH		0x100u	/* fsync answers without a FLUSH of its own */
#define CSV_MUT_HEAL_NOT_HOME		0x800u	/* a healed minority gives its slot back without having written back */
#define CSV_MUT_FENCE_HASTY		0x1000u	/* who may be on its way after a time without quorum is fenced at once */

struct buf_cache;	/* buf.c */
struct glock_table;	/* glock.c */
struct slot_ctl;	/* slot.c */
struct recover;		/* recover.c */
struct reaper;		/* orphan.c */
struct inode_table;	/* inode.c */
struct inode_pool;	/* inode_pool.c */
struct evict;		/* evict.c */
struct alloc_ctl;	/* alloc.c */

struct csvfs {
	struct env *env;
	struct csvfs_options opt;
	struct csvfs_events ev;
	enum csvfs_state state;
	char reason[256];
	bool stopping;			/* umount has begun: no new background work */
	uint32_t mutate;

	struct csv_geom geo;		/* the decoded superblock */
	void *sb_block;			/* and as it lies on the disk, CSV_BLOCK_SIZE */
	struct cluster_node self;	/* nodeid and incarnation of this life */
	uint32_t slot;			/* CSV_NO_SLOT before one is taken */

	struct dlm *dlm;
	struct jnl *jnl;		/* NULL before a slot is taken */
	struct buf_cache *bufs;
	struct glock_table *glocks;
	const struct glock_ops *glock_ops[CSV_OWN_TYPES];	/* NULL: nothing to do for that type */
	struct slot_ctl *slots;
	struct recover *rcv;
	struct reaper *reaper;
	struct inode_table *inodes;
	struct inode_pool *pool;
	struct evict *evict;
	struct alloc_ctl *alloc;
	struct plock_ctl *plocks;
	struct dp_table *dp;		/* borrowed from the daemon; NULL: no data plane */

	struct waitq state_wq;		/* state, view, recovery: anything a mount or umount waits for */
	unsigned coros;			/* background coroutines alive */
	struct job state_job;		/* reports a change of state */
	bool joined, leave_acked, left;	/* left: withdrawn and out of the group */
	bool healing;			/* a healed minority is giving back (withdraw.c) */
	bool jnl_ending, jnl_ended;	/* fs_jnl_end() */
	int jnl_end_ret;
	enum { HEAL_NONE, HEAL_ON, HEAL_DONE, HEAL_FAILED } heal;	/* the others went on without us (withdraw.c) */
	struct glock_holder mount_gh;	/* `mount` PR for the life of the mount */
};

static inline struct csv_owner csv_owner_make(uint32_t type, uint64_t id) { return (struct csv_owner){ type, id }; }
#define OWN_INODE(ino) csv_owner_make(CSV_OWN_INODE, (ino))
#define OWN_GROUP(g) csv_owner_make(CSV_OWN_GROUP, (g))
#define OWN_OPEN(ino) csv_owner_make(CSV_OWN_OPEN, (ino))
#define OWN_ORPHAN(slot) csv_owner_make(CSV_OWN_ORPHAN, (slot))
#define OWN_SLOT(slot) csv_owner_make(CSV_OWN_SLOT, (slot))
#define OWN_VMAP(ino) csv_owner_make(CSV_OWN_VMAP, (ino))
#define OWN_VNEG(ino) csv_owner_make(CSV_OWN_VNEG, (ino))
#define OWN_USE(ino) csv_owner_make(CSV_OWN_USE, (ino))
#define OWN_MOUNT csv_owner_make(CSV_OWN_MOUNT, 0)
#define OWN_RENAME csv_owner_make(CSV_OWN_RENAME, 0)

/* ---- state.c ------------------------------------------------------------------------------------------------------------ */
/* 0 while ACTIVE (PAUSED too: operations wait for locks), else -CSV_E_WITHDRAWN. First line of every operation. */
static inline int fs_check(const struct csvfs *fs)
{
	return fs->state == CSVFS_WITHDRAWN ? -CSV_E_WITHDRAWN : 0;
}
/* -EROFS when the volume or the mount is read-only. */
int fs_check_write(const struct csvfs *fs);
void fs_state_init(struct csvfs *fs);
/* A counted background coroutine (FS3).  fn frees what arg needs.  0, -ENOMEM. */
int fs_spawn(struct csvfs *fs, const char *name, void (*fn)(void *arg), void *arg);
/* Sleeps; false when the volume is stopping or withdrawn (then it returned early). */
bool fs_sleep_ms(struct csvfs *fs, uint32_t ms);
void fs_set_state(struct csvfs *fs, enum csvfs_state st, const char *fmt, ...) csv_printf_like(3, 4);
#define fs_log(fs, level, ...) log_to((fs)->env->log, (level), __VA_ARGS__)
static inline uint64_t fs_now_ns(const struct csvfs *fs) { return clock_mono_ns(fs->env->clock); }

/* ---- buf.c, glock.c: besides their headers -------------------------------------------------------------------------------- */
int buf_cache_init(struct csvfs *fs);
void buf_cache_free(struct csvfs *fs);			/* NULL cache allowed; forgets everything */
int glock_table_init(struct csvfs *fs);
void glock_table_free(struct csvfs *fs);
void glock_withdraw_all(struct csvfs *fs);		/* every waiter answers -CSV_E_WITHDRAWN */
struct glock *glock_find(struct csvfs *fs, struct csv_owner res);	/* no reference; NULL */

/* ---- withdraw.c -------------------------------------------------------------------------------------------------------------- */
/* As csvfs_withdraw(), with a format. */
void fs_withdraw(struct csvfs *fs, const char *fmt, ...) csv_printf_like(2, 3);
/* The others went on without us and have not fenced us (R11): write back, give the slot up, then withdraw. */
void fs_purged(struct csvfs *fs);
/*
 * Commits, writes everything home and ends the journal, once in a life: who comes second (unmount and the heal of a minority meet)
 * waits for the first and has its result.  0 also when it was 0 and the journal is freed: only then may the slot be FREE.
 */
int fs_jnl_end(struct csvfs *fs);
void fs_heal_wait(struct csvfs *fs);	/* until a heal that is under way has given back, or failed to */

/* ---- orphan.c ------------------------------------------------------------------------------------------------------------------ */
/*
 * The orphan tree of a slot, locked (orphan s EX; between `open` and the groups in the lock order).  Adding goes to the tree
 * of our own slot (fs->slot), removing to the one that inode.orphan_slot names.
 *
 *	orphan_lock(fs, fs->slot, &o);
 *	alloc_reserve(resv, hint, ... + orphan_new_blocks(&o), ...);	// or for removing: orphan_groups() + alloc_lock_groups()
 *	jnl_begin(fs->jnl, ... + orphan_credits(&o), 1, &h);
 *	orphan_add(&o, resv, &h, ino, gen, CSV_ORPHAN_UNLINKED, 0);	// the caller sets inode.orphan_slot and nlink itself
 *	jnl_end(&h);
 *	orphan_unlock(&o);
 */
struct orphan_ref {
	struct csvfs *fs;
	uint32_t slot;
	struct glock_holder gh;
	struct buf *root;
	struct btree bt;
	int64_t blocks;
};
int orphan_lock(struct csvfs *fs, uint32_t slot, struct orphan_ref *ret_o);
void orphan_unlock(struct orphan_ref *o);
uint32_t orphan_credits(const struct orphan_ref *o);		/* blocks one add or del may dirty, allocation not included */
uint32_t orphan_revokes(const struct orphan_ref *o);		/* nodes one del may free: revokes, and runs for alloc_credits() */
uint32_t orphan_new_blocks(const struct orphan_ref *o);		/* metadata blocks one add may take */
/* Groups one del may free into, appended without doubles; -E2BIG. */
int orphan_groups(struct orphan_ref *o, uint64_t ino, uint32_t *group, uint32_t *inout_n, uint32_t max);
int orphan_add(struct orphan_ref *o, struct alloc_resv *resv, struct jnl_handle *h, uint64_t ino, uint32_t gen,
	       enum csv_orphan_kind kind, uint64_t target);
int orphan_del(struct orphan_ref *o, struct alloc_resv *resv, struct jnl_handle *h, uint64_t ino);
/*
 * Frees the orphan `ino` of slot `slot` if nobody has it open anywhere (R8), or finishes the truncate it stands for: locks inode
 * EX, `open` EX noqueue, frees in batches, removes the entry.  Awaits; no glock may be held.  0 also when there is nothing to do;
 * -EAGAIN: still open somewhere.  Called by csvfs_release() of the last handle (through orphan_reap_later) and by the reaper.
 */
int orphan_reap(struct csvfs *fs, uint32_t slot, uint64_t ino);
/*
 * The same beside the caller, who waits for the space a moment only: locks of a node that is lost, and not yet known to be, may be needed.
 * Never fails.
 */
void orphan_reap_now(struct csvfs *fs, uint32_t slot, uint64_t ino);
/* The same in the background; never fails (out of memory: the slot's next scan finds it). */
void orphan_reap_later(struct csvfs *fs, uint32_t slot, uint64_t ino);
/* Scans a slot's tree in the background. */
void orphan_scan_later(struct csvfs *fs, uint32_t slot);
int reaper_init(struct csvfs *fs);
void reaper_stop(struct csvfs *fs);		/* fs->stopping is set: returns when it has ended; awaits */
void reaper_free(struct csvfs *fs);

/* ---- slot.c ------------------------------------------------------------------------------------------------------------------- */
enum csv_proof { CSV_PROOF_RELEASE = 0, CSV_PROOF_AGENT = 1, CSV_PROOF_PROCESS = 2, CSV_PROOF_REJOIN = 3, CSV_PROOF_OPERATOR = 4,
		 CSV_PROOF_WITHDRAW = 5,
		 CSV_PROOF_REPLAYING = 6 };	/* none: an ACTIVE slot names who replays its log, or has begun to (RC5) */
const char *slot_proof_name(enum csv_proof p);
int slot_ctl_init(struct csvfs *fs);
void slot_ctl_free(struct csvfs *fs);
int slot_read(struct csvfs *fs, uint32_t slot, struct csv_slot_info *ret, struct csv_err *err);	/* awaits; unreadable is never FREE */
/* Durable (FLUSH) on return; raises s->seq.  Under slot EX, or by the replayer of its lost owner. */
int slot_write(struct csvfs *fs, uint32_t slot, struct csv_slot_info *s);
/*
 * Takes a free slot, formats and opens its journal (fs->slot, fs->jnl).  -EAGAIN: the free ones are being taken right now;
 * -CSV_E_BUSY_ELSEWHERE: all in use, err says by whom.
 */
int slot_take(struct csvfs *fs, struct csv_err *err);
int slot_write_free(struct csvfs *fs);		/* the log is shut down: FREE with our own proof, durable.  -CSV_E_FENCED */
/* The journal is empty and closed: FREE on disk, then the lock goes. */
int slot_give(struct csvfs *fs);
void slot_geometry(const struct csvfs *fs, uint32_t slot, uint64_t incarnation, struct jnl_geometry *ret);
int slot_heartbeat_start(struct csvfs *fs);

/* ---- evict.c -------------------------------------------------------------------------------------------------------------------- */
#define EVICT_KEEP 8u
int evict_init(struct csvfs *fs);		/* before cluster_start() */
int evict_start(struct csvfs *fs);		/* looks after who can be reached, until umount */
void evict_free(struct csvfs *fs);
/*
 * report[i]: bits of places that the member in place i cannot reach; fresh: places not mounted yet; silent: they do not
 * run.  Who has to go so that all others reach each other.
 */
uint64_t evict_choose(const uint64_t *report, uint64_t fresh, uint64_t silent, uint32_t n);
bool csvfs_evicted(const struct csvfs *fs);	/* this node */
/* What csvctl shows: others that were evicted and have not come back, oldest first. */
struct csvfs_eviction_info { struct cluster_node who; uint64_t at_ns; char why[512]; };
void csvfs_eviction_walk(struct csvfs *fs, bool (*fn)(void *arg, const struct csvfs_eviction_info *i), void *arg);

/* ---- recover.c ------------------------------------------------------------------------------------------------------------------ */
int recover_init(struct csvfs *fs);
void recover_register(struct csvfs *fs);	/* on CHAN_FS; after dlm_new(), before cluster_start() */
void recover_stop(struct csvfs *fs);		/* fs->stopping is set: ends what is under way here; the next coordinator goes on */
void recover_free(struct csvfs *fs);
const struct dlm_events *recover_dlm_events(struct csvfs *fs);
/* At mount: reads all slot states and waits until no ACTIVE one belongs to a node that is not a member.  Awaits. */
int recover_at_mount(struct csvfs *fs, struct csv_err *err);
/* Tells the others that this life has written its last (umount, withdraw) and waits until it was delivered, at most `ms`. */
int recover_announce_gone(struct csvfs *fs, enum csv_proof kind, uint32_t ms);
void recover_announce(struct csvfs *fs);	/* tells the others all that is known here */
/* Waits until every member of a usable view has told what it knows: true when none has a proof against this life (R11). */
bool recover_unfenced(struct csvfs *fs, uint64_t end_ns);
bool recover_is_pending(const struct csvfs *fs);	/* members are being agreed on, or a lost node's locks still stand */
bool recover_view_ok(const struct csvfs *fs);	/* usable view and the lock tables are complete */

/* What csvctl shows: the latest recoveries, oldest first; times are clock_mono_ns, 0: not yet. */
struct csvfs_recovery_info {
	struct cluster_node who;
	uint32_t slot;			/* CSV_NO_SLOT: it had none */
	enum csv_proof proof;
	uint64_t lost_ns, fenced_ns, replay_start_ns, replayed_ns;
	bool fenced, replayed;
	struct jnl_replay_stats stats;
	char why[600];			/* what it waits for or what failed last, and what to do */
};
void csvfs_recovery_walk(struct csvfs *fs, bool (*fn)(void *arg, const struct csvfs_recovery_info *i), void *arg);

/* ---- what the operations (inode.c) give to the files above --------------------------------------------------------------------------- */
extern const struct glock_ops inode_glock_ops;
int inode_table_init(struct csvfs *fs);		/* fs->inodes; before any inode lock */
void inode_table_free(struct csvfs *fs);
/*
 * `inode i` EX is held by the caller.  One transaction that frees blocks behind byte `target` from the end on, at most a few groups;
 * *ret_done when nothing is left behind it (then size, where larger, is target).  Group locks are taken inside.  Awaits.
 */
int inode_free_blocks_batch(struct csvfs *fs, uint64_t ino, uint64_t target, bool *ret_done);
/* `inode i` EX is held and its block is about to be freed: forgets the in-core inode and its pin on the block. */
void inode_forget(struct csvfs *fs, uint64_t ino);

/* ---- what alloc.c gives --------------------------------------------------------------------------------------------------------------- */
int alloc_init(struct csvfs *fs);		/* fs->alloc; before any group lock */
void alloc_done(struct csvfs *fs);		/* forgets everything, as a crash would */

#endif
