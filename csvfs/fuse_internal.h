/*
 * fuse_internal.h - the FUSE side of csvfsd: how a request travels.
 *
 *	/dev/fuse --> worker thread --- in place --> libaio --> reply		(fuse_worker.c, fuse_io.c)
 *			   \
 *			    `-- struct fop --> control thread: coroutine --> reply	(fuse_ops.c, fuse_slow.c)
 *
 * Invariants
 *  F1  Every request is answered exactly once: by the worker that took it, or by the coroutine of its fop.
 *  F2  A fop belongs to the worker until loop_post(), then to the control thread.  FUSE_INTERRUPT names it by number, never by
 *      pointer: the answer may have been sent meanwhile.
 *  F3  A receive buffer belongs to the request whose payload is in it until that request is answered.
 *  F5  Only a fatal signal ends an operation: a disk file system's calls do not answer EINTR to a handler's signal, and programs do
 *      not expect it.  FUSE_INTERRUPT comes once, for any signal, so an interrupted fop is watched until its thread has SIGKILL
 *      pending (every fatal signal ends as one).
 *  F4  The kernel caches no names (entry time-out 0), no attributes, and no pages for read(2) and write(2) (direct I/O): nothing has
 *      to be invalidated before a lock leaves the node.  Newer kernels (6.5 on) fill pages for sendfile(2), splice(2) and
 *      copy_file_range(2), all for private mappings: an open drops them, and any look at the attributes that sees another
 *      modification time (AUTO_INVAL_DATA); csvfs(7) says so.
 */
#ifndef CSVFS_CSVFS_FUSE_INTERNAL_H
#define CSVFS_CSVFS_FUSE_INTERNAL_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <libaio.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

#include "csvfs/csvfs.h"
#include "csvfs/dataplane.h"
#include "csvfs/fuse_met.h"
#include "csvfs/names.h"
#include "csvfs/use_ask.h"
#include "utils/env/env.h"
#include "utils/env/loop.h"

/* nodeid = view:2 | generation:22 | inode:40 (R29).  The root is FUSE_ROOT_ID. */
enum node_view { VIEW_FILE = 0, VIEW_RAW = 1, VIEW_RAW_DIR = 2 };
#define NODE_GEN_MASK ((1u << 22) - 1)
struct node { enum node_view view; uint32_t gen; uint64_t ino; };
struct fused;
fuse_ino_t node_pack(const struct fused *d, struct node n);
struct node node_unpack(const struct fused *d, fuse_ino_t id);

#define IO_MAX (1u << 20)		/* largest READ or WRITE */
/* Receive at base + 4096 - 80: the payload of a WRITE starts on the next page (R27). */
#define BUF_HEAD (4096u - 80u)
#define BUF_BYTES (4096u + IO_MAX + 4096u)
struct iobuf { struct iobuf *next; char *base; };

enum fop_kind {
	FOP_LOOKUP, FOP_GETATTR, FOP_SETATTR, FOP_READLINK, FOP_MKNOD, FOP_CREATE, FOP_SYMLINK, FOP_LINK, FOP_UNLINK, FOP_RMDIR,
	FOP_RENAME, FOP_OPEN, FOP_RELEASE, FOP_READ, FOP_WRITE, FOP_FSYNC, FOP_FALLOCATE, FOP_LSEEK, FOP_READDIR, FOP_STATFS, FOP_GETLK, FOP_SETLK,
	FOP_FLUSH, FOP_KINDS,
};

/* One request on its way through the control plane. */
struct fop {
	struct loop_msg msg;
	struct fused *d;
	fuse_req_t req;
	enum fop_kind kind;
	uint64_t id;			/* F2 */
	uint64_t started_ns;
	pid_t tid;			/* the caller's thread, 0: unknown */
	struct coro *coro;
	struct cds_list_head watch_node;	/* F5; empty: not watched */
	UT_hash_handle hh;
	struct node node, node2;
	char name[CSV_NAME_MAX + 1], name2[CSV_NAME_MAX + 1];
	char *target;			/* symlink */
	struct csvfs_attr attr;
	uint32_t mask, mode, uid, gid, flags;
	uint64_t rdev, off, len;
	int falloc_mode, whence;
	bool data_only;
	struct { uint8_t kind, type; bool unlock, wait; uint32_t pid; uint64_t start, end; } lock;	/* plock.h */
	bool again;			/* not answered: asked again in the next life */
	bool kill_priv;			/* WRITE: of one who may not keep set-id bits */
	bool met;			/* CREATE: op->attr is of a file that was there, opened once (fuse_met.h) */
	bool made, wrote;		/* what it has done already: CREATE made the name, WRITE wrote `done_len` */
	size_t done_len;
	struct iobuf *buf;		/* WRITE: payload at base + 4096; READ: filled there */
	struct fuse_file_info fi;
};

/*
 * An open handle; fi->fh is its address.  R41 counts every handle on a raw view, and every handle for writing on a plain file (fuse_use.c).
 */
struct use {
	struct use *next;
	bool counted;
	uint64_t ino;
	enum csvfs_use kind;
	bool writing;
	uint32_t pid;
	char process[16];
	char path[NAMES_PATH_BYTES];	/* when it was opened; "": not known */
	uint64_t since_ns;
	/* fuse_lock.c */
	struct use *lock_next;
	struct lock_owner *lock_owners;	/* who has locked through it */
	uint64_t lock_key;
	bool lock_lost;			/* read by any thread: I/O answers EIO */
};
/* A refusal, for csvctl. */
struct use_refusal { uint64_t ino, at_ns; enum csvfs_use kind; struct use_other who; };
#define USE_REFUSALS 16u

struct worker;
struct fused {
	struct loop *loop;
	struct sched *sched;
	struct csvfs *fs;
	struct logger *log;
	struct dp_table *dp;
	int dev_fd;			/* O_DIRECT, of the data plane */
	uint64_t root_ino;
	struct fuse_session *se;
	unsigned n_workers;
	struct worker **worker;
	uint64_t next_op;		/* workers: atomic */
	/* control thread only */
	struct fop *ops;		/* by id */
	struct cds_list_head watched;	/* interrupted ones (F5) */
	struct timer watch_timer;
	uint64_t served[FOP_KINDS];
	struct loop_msg drain_msg;
	int drain_posted;		/* any thread: atomic */
	struct loop_msg ended_msg;	/* posted once, by the first worker that finds the connection gone */
	int ended;
	struct env *env;
	struct names *names;
	struct mets met;
	struct use *uses;
	struct use *lockers;		/* handles with lock_owners */
	int lock_users;			/* any thread: atomic (fuse_lock.c) */
	struct use_refusal refusal[USE_REFUSALS];	/* a ring: refusals counts all */
	uint64_t refusals;
	struct use_asks asks;
	uint64_t raw_said_ino, raw_said_change;	/* the last file of which the log says why it has no raw view */
	/* csvfsd_rejoin.c */
	struct waitq life_wq;
	unsigned inside;		/* requests and calls of csvctl that may be in the core */
	bool rejoining;			/* this life of the core ends, the next is not there yet */
	bool moving;			/* there are no ports just now */
	bool final;			/* there will be no next life */
	/* any thread */
	pthread_mutex_t buf_lock;
	struct iobuf *buf_free;
	unsigned buf_count;
};

/* fuse_io.c */
struct iobuf *iobuf_get(struct fused *d);		/* any thread; NULL out of memory */
void iobuf_put(struct fused *d, struct iobuf *b);	/* NULL allowed */
void iobuf_free_all(struct fused *d);
static inline char *iobuf_payload(struct iobuf *b) { return b->base + 4096; }
/* The WRITE in it, as it was received, says what libfuse does not pass on: its writer may not keep set-id bits. */
bool iobuf_write_kills_priv(const struct iobuf *b);
struct worker *worker_of_thread(void);

/* In place where possible; false: nothing done, the caller sends a fop.  Worker thread only. */
bool worker_try_read(struct worker *w, fuse_req_t req, struct node n, uint64_t off, uint32_t len);
/* `buf` is the worker's current receive buffer or a copy of it: it is taken when true. */
bool worker_try_write(struct worker *w, fuse_req_t req, struct node n, uint64_t off, uint32_t len, struct iobuf *buf);
struct iobuf *worker_take_current(struct worker *w);

/* fuse_worker.c */
int workers_start(struct fused *d, unsigned n, struct csv_err *err);
void workers_stop(struct fused *d);

/* fuse_ops.c */
struct fop *fop_new(fuse_req_t req, enum fop_kind kind, fuse_ino_t ino);	/* NULL: answered with ENOMEM */
void fop_post(struct fop *op);			/* ownership goes to the control thread */
extern const struct fuse_lowlevel_ops fuse_ops;
/* fuse_slow.c: on the control thread */
void fop_run(struct loop_msg *m);
/* fuse_interrupt.c: on the control thread */
void fop_watch_init(struct fused *d);
void fop_interrupt(struct fused *d, uint64_t id);
void fop_unwatch(struct fop *op);
/* fuse_reply.c: the control thread's answers; what plain files (fuse_slow.c) and raw views (fuse_raw.c) do alike */
void fop_reply_err(struct fop *op, int err);
void fop_reply_entry(struct fop *op, enum node_view view, int err);	/* op->attr */
void fop_reply_attr(struct fop *op, int err);				/* op->attr */
void fop_reply_written(struct fop *op, ssize_t n);			/* flushes first where the file is open so; awaits */
void fop_stat(const struct fused *d, const struct csvfs_attr *a, fuse_ino_t id, struct stat *st);
void fop_entry(const struct fused *d, enum node_view view, const struct csvfs_attr *a, struct fuse_entry_param *e);
void fop_open_flags(struct fop *op);
/* OPEN; `use` counts the handle (R41) and makes ready what is behind it. */
void fop_open(struct fop *op, int (*use)(struct fop *op, uint64_t ino, uint32_t gen));
void fop_read(struct fop *op, ssize_t (*fn)(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, void *buf, size_t len));
void fop_lseek(struct fop *op, int (*fn)(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, int whence, uint64_t *ret));

/* csvfsd_rejoin.c: between them the core stays as it is.  0; -EINTR; -EIO: there is none and will be none. */
int life_enter(struct fused *d);
void life_leave(struct fused *d);
bool life_may_come_back(const struct fused *d);

/* fuse_use.c: on the control thread; all await */
void use_start(struct fused *d);			/* before the mesh starts */
/* The handle that `op` opens, counted where R41 wants it.  -EBUSY and so on; who is in the way is in the log. */
int use_open(struct fop *op, uint64_t ino, uint32_t gen, enum csvfs_use kind, bool writing, uint64_t *ret_fh);
void use_close(struct fused *d, uint64_t fh);
const char *use_path(uint64_t fh);			/* "": not known */
/* For the time of an operation that an open raw view of that image forbids (rename, unlink, truncate); ino 0: nothing held. */
struct use_guard { uint64_t ino; };
int use_guard_name(struct fop *op, struct node dir, const char *name, struct use_guard *ret);
int use_guard_node(struct fop *op, struct node n, struct use_guard *ret);
void use_guard_end(struct fused *d, struct use_guard *g);

/* fuse_lock.c: on the control thread; all but the last await */
void lock_run_get(struct fop *op);
void lock_run_set(struct fop *op);
void lock_not_run(struct fop *op);
void lock_run_flush(struct fop *op);
void lock_close(struct fused *d, uint64_t fh);		/* before use_close() */
void lock_all_lost(struct fused *d);
/* ... and on the workers */
bool lock_nothing_held(const struct fused *d);
void lock_op_get(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *l);
void lock_op_set(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *l, int sleep);
void lock_op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int how);
void lock_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

/* fuse_raw.c: the raw view, on the control thread */
#define RAW_NAME ".raw"
/* True: the operation is one of the raw view, or about its reserved name, and was answered. */
bool raw_run(struct fop *op);

#endif
