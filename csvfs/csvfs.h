/*
 * csvfs.h - the file system core of one node: mount, operations, unmount.  The public door for csvfsd and the simulator.
 *
 * All calls on the control thread, from coroutines (they await locks, blocks and commits).  Errors are -errno or -CSV_E_*;
 * csvfs_errno() turns them into what a system call may return.  Names are bytes without '/' and NUL, 1..255 long.
 * `ino` is an inode number (block number); `gen` its generation: a call with a wrong generation answers -ESTALE; gen 0 skips
 * the check (only for the root).
 *
 * Guarantees used by callers: G1 (after fsync everything is readable everywhere; a returned write is seen by every later read on
 * any node), G2, G3, G6.  Every await may be cancelled with sched_cancel(): the operation answers -EINTR having changed nothing.
 */
#ifndef CSVFS_CSVFS_CSVFS_H
#define CSVFS_CSVFS_CSVFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "csvfs/csvfs_format.h"
#include "utils/base/err.h"
#include "utils/env/env.h"

struct csvfs;

enum csvfs_state { CSVFS_JOINING, CSVFS_ACTIVE, CSVFS_PAUSED, CSVFS_WITHDRAWN };

struct csvfs_options {
	bool read_only;
	bool noatime;			/* default true: reads never write */
	char node_name[64];
	uint64_t incarnation;		/* of this mount; random, never 0 */
	uint32_t token_ms;		/* corosync's timings, for messages */
	uint32_t min_hold_us;		/* minimum lock hold; 0: as the lock manager measures it */
	/* Test mutations (tests only; each removes a guard): see csvfs_internal.h */
	uint32_t mutate;
};
struct csvfs_events {
	/* State changes with a reason for people.  From the run queue. */
	void (*state)(void *arg, enum csvfs_state st, const char *reason);
	/*
	 * Kernel caches of this inode must go (attributes always; pages when `data`).  May await; returns when the kernel has dropped
	 * them (rule R24).  Never called with a glock held by the caller's coroutine.  NULL: nothing is cached above.
	 */
	void (*invalidate)(void *arg, uint64_t ino, bool data);
	/* The locks of all programs here are gone and may be others' (plock.h, PL4).  From the run queue or a view. */
	void (*locks_lost)(void *arg);
	void *arg;
};

struct dp_table;
/* After csvfs_mount(): maps of inodes are published there.  Borrowed until csvfs_umount()/csvfs_free(). */
void csvfs_set_dataplane(struct csvfs *fs, struct dp_table *t);

/*
 * Awaits: joins, takes a slot, recovers what needs it.  err: object, reason, what to do.  env->cluster and env->mesh are made but not
 * started: mount starts them; umount, withdrawal and a failed mount leave the group.  The incarnation is env->cluster's.
 * *ret_fs is set at once, to be looked at while the mount waits (the simulator does); NULL again when it fails.
 */
int csvfs_mount(struct env *env, const struct csvfs_options *opt, const struct csvfs_events *ev, struct csvfs **ret_fs,
		struct csv_err *err);
/* Awaits: commits, writes back, frees the slot, leaves.  -EBUSY: open files.  Then csvfs_free(). */
int csvfs_umount(struct csvfs *fs, struct csv_err *err);
/* Gives the volume up now: stops, drains, says WITHDRAWN when I/O has drained.  Operations answer -CSV_E_WITHDRAWN (EIO). */
void csvfs_withdraw(struct csvfs *fs, const char *reason);
/*
 * Healed minority (R11): the others went on without this node, and nobody has fenced it.  It is WITHDRAWN, but what it had is being
 * written back (-EAGAIN), has been, its slot is free, it has left the group: a new life may take over (0), in which who waits goes on; or
 * that failed, or it was withdrawn for another reason (-CSV_E_WITHDRAWN).
 *	answer -CSV_E_WITHDRAWN and csvfs_may_rejoin() != -CSV_E_WITHDRAWN: ask the next life again, this one changed nothing
 *	0: csvfs_open_walk() -> csvfs_umount(), csvfs_free() -> csvfs_mount() with a new incarnation -> csvfs_open_adopt(), images' uses
 */
int csvfs_may_rejoin(const struct csvfs *fs);
struct csvfs_opened { uint64_t ino; uint32_t gen, opens; };
void csvfs_open_walk(struct csvfs *fs, void (*fn)(void *arg, const struct csvfs_opened *o), void *arg);
/* Handles of the last life.  Of a file that is gone meanwhile (it had no name any more) they answer -ESTALE until they are released. */
int csvfs_open_adopt(struct csvfs *fs, const struct csvfs_opened *o);
/* Forgets everything, as a crash would.  After csvfs_umount(), or directly before sched_free(): nothing of it may run again. */
void csvfs_free(struct csvfs *fs);
int csvfs_errno(int err);		/* positive errno; 0 stays 0 */

struct csvfs_attr {
	uint64_t ino;
	uint32_t gen, mode, uid, gid, nlink, flags;
	uint64_t size, blocks_512, rdev, change;
	int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
};
#define CSVFS_SET_MODE 1u
#define CSVFS_SET_UID 2u
#define CSVFS_SET_GID 4u
#define CSVFS_SET_SIZE 8u
#define CSVFS_SET_ATIME 16u
#define CSVFS_SET_MTIME 32u
#define CSVFS_SET_ATIME_NOW 64u
#define CSVFS_SET_MTIME_NOW 128u
#define CSVFS_SET_CTIME 256u
#define CSVFS_SET_KILLPRIV 512u

uint64_t csvfs_root_ino(const struct csvfs *fs);
int csvfs_lookup(struct csvfs *fs, uint64_t dir, uint32_t gen, const char *name, struct csvfs_attr *ret);	/* "." and ".." too */
int csvfs_getattr(struct csvfs *fs, uint64_t ino, uint32_t gen, struct csvfs_attr *ret);
int csvfs_setattr(struct csvfs *fs, uint64_t ino, uint32_t gen, const struct csvfs_attr *set, uint32_t mask, struct csvfs_attr *ret);
/* Regular, directory, fifo, socket, device by `mode`. `open`: also counts one csvfs_open() of it. */
int csvfs_create(struct csvfs *fs, uint64_t dir, uint32_t gen, const char *name, uint32_t mode, uint32_t uid, uint32_t gid, uint64_t rdev,
		 bool open, struct csvfs_attr *ret);
int csvfs_symlink(struct csvfs *fs, uint64_t dir, uint32_t gen, const char *name, const char *target, uint32_t uid, uint32_t gid,
		  struct csvfs_attr *ret);
int csvfs_readlink(struct csvfs *fs, uint64_t ino, uint32_t gen, char *buf, size_t size);	/* NUL-terminated */
int csvfs_link(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t dir, uint32_t dir_gen, const char *name, struct csvfs_attr *ret);
int csvfs_unlink(struct csvfs *fs, uint64_t dir, uint32_t gen, const char *name);
int csvfs_rmdir(struct csvfs *fs, uint64_t dir, uint32_t gen, const char *name);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE. */
int csvfs_rename(struct csvfs *fs, uint64_t od, uint32_t od_gen, const char *on, uint64_t nd, uint32_t nd_gen, const char *nn, unsigned flags);

/* Open handles of this node: the first takes `open i` PR, the last gives it up and frees an orphan (R8). */
int csvfs_open(struct csvfs *fs, uint64_t ino, uint32_t gen);
void csvfs_release(struct csvfs *fs, uint64_t ino);
/* All of them: the programs that held them are cut off (forced unmount).  Awaits. */
void csvfs_release_all(struct csvfs *fs);

/*
 * An image and its raw view are one disk (R41).  Each opener of the raw view, and each opener of the plain file for writing, announces
 * itself; the two kinds exclude each other in the whole cluster: -EBUSY (the other kind is open here), -CSV_E_BUSY_ELSEWHERE.
 * Answered within about a second (while a node is lost and not recovered: after its recovery).  Keeps the in-core inode until closed.
 */
enum csvfs_use { CSVFS_USE_PLAIN, CSVFS_USE_RAW };
int csvfs_image_open(struct csvfs *fs, uint64_t ino, uint32_t gen, enum csvfs_use use);
void csvfs_image_close(struct csvfs *fs, uint64_t ino, enum csvfs_use use);
/*
 * The disk that an image holds (vraw.h), as its raw view shows it.  csvfs_disk_size() of any file: -EMEDIUMTYPE when it is no image.  Each
 * opener calls csvfs_disk_open() after csvfs_image_open(RAW), the last csvfs_image_close(RAW) ends it; in between the others may be
 * called.  Nothing reaches behind the disk's end.  fsync is that of the file.
 */
int csvfs_disk_size(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t *ret_size, struct csv_err *err);
/* `path`: by which it was found, for the log; NULL or "": not known. */
int csvfs_disk_open(struct csvfs *fs, uint64_t ino, uint32_t gen, bool writing, const char *path, struct csv_err *err);
ssize_t csvfs_disk_read(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, void *buf, size_t len);
ssize_t csvfs_disk_write(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, const void *buf, size_t len);	/* -ENOSPC: behind */
int csvfs_disk_fallocate(struct csvfs *fs, uint64_t ino, uint32_t gen, int mode, uint64_t off, uint64_t len);
int csvfs_disk_lseek(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, int whence, uint64_t *ret_off);
/* While the raw view is open here: bytes of the virtual disk.  0: not open. */
uint64_t csvfs_raw_size(struct csvfs *fs, uint64_t ino);

/* Slow-path I/O, any alignment.  Return bytes, or <0. */
ssize_t csvfs_read(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, void *buf, size_t len);
#define CSVFS_WRITE_APPEND 1u		/* at the true end of file, *ret_off says where (R26) */
#define CSVFS_WRITE_KILLPRIV 2u		/* the writer may not keep set-id bits: they go first */
ssize_t csvfs_write(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, const void *buf, size_t len, uint32_t flags, uint64_t *ret_off);
/* mode: KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE; the values are those of linux/falloc.h. */
#define CSVFS_FALLOC_KEEP_SIZE 0x01
#define CSVFS_FALLOC_PUNCH_HOLE 0x02
#define CSVFS_FALLOC_ZERO_RANGE 0x10
int csvfs_fallocate(struct csvfs *fs, uint64_t ino, uint32_t gen, int mode, uint64_t off, uint64_t len);
int csvfs_fsync(struct csvfs *fs, uint64_t ino, uint32_t gen, bool data_only);
int csvfs_sync(struct csvfs *fs);
/* The file is a disk image from now on (R25: CW for in-place I/O, never cached by the kernel, never inline).  Persistent, idempotent. */
int csvfs_set_image(struct csvfs *fs, uint64_t ino, uint32_t gen);
int csvfs_lseek(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, int whence, uint64_t *ret_off);	/* SEEK_DATA, SEEK_HOLE */

struct csvfs_dirent { uint64_t cookie; uint64_t ino; uint32_t gen; uint32_t type; /* S_IFMT >> 12 */ uint8_t name_len; const char *name; };
/* From after `cookie` (0: start; "." and ".." included); fn returns false when full (that entry is not consumed). */
int csvfs_readdir(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t cookie, bool (*fn)(void *arg, const struct csvfs_dirent *e), void *arg);

struct csvfs_statfs { uint64_t blocks, bfree, bavail, files, ffree; uint32_t bsize, namelen; };
int csvfs_statfs(struct csvfs *fs, struct csvfs_statfs *ret);

/* ---- to be seen -------------------------------------------------------------------------------------------------------------- */
struct dlm;
struct jnl;
struct plock_ctl;
struct plock_ctl *csvfs_plocks(struct csvfs *fs);	/* locks of programs: plock.h */
struct dlm *csvfs_dlm(struct csvfs *fs);
struct jnl *csvfs_jnl(struct csvfs *fs);
enum csvfs_state csvfs_state(const struct csvfs *fs, const char **ret_reason);
uint32_t csvfs_slot(const struct csvfs *fs);
const struct csv_super *csvfs_super(const struct csvfs *fs);
/*
 * A person vouches that a lost node is off: what it held is recovered on the strength of that word.  Awaits.  -ENOENT: no lost life of that
 * node waits for a proof; -EBUSY: it is a member; -CSV_E_BUSY_ELSEWHERE: its heartbeat still moves, it is not off.
 */
int csvfs_confirm_fenced(struct csvfs *fs, uint32_t nodeid, struct csv_err *err);

#endif
