/*
 * fuse_ops.c - libfuse's low-level calls: runs on worker threads, decodes, and either answers in place or posts a fop.
 */
#include "csvfs/fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <linux/falloc.h>

fuse_ino_t node_pack(const struct fused *d, struct node n)
{
	if (n.view == VIEW_FILE && n.ino == d->root_ino)
		return FUSE_ROOT_ID;
	return (uint64_t)n.view << 62 | (uint64_t)(n.gen & NODE_GEN_MASK) << 40 | n.ino;
}

struct node node_unpack(const struct fused *d, fuse_ino_t id)
{
	struct node n = { VIEW_FILE, 0, d->root_ino };

	if (id == FUSE_ROOT_ID)
		return n;
	n.view = (enum node_view)(id >> 62);
	n.gen = (uint32_t)(id >> 40) & NODE_GEN_MASK;
	n.ino = id & (CSV_INO_MAX - 1);
	return n;
}

/* libfuse calls this from the thread that received FUSE_INTERRUPT; the request may be answered already (F2). */
struct interrupt_msg { struct loop_msg msg; struct fused *d; uint64_t id; };

static void interrupt_run(struct loop_msg *m)
{
	struct interrupt_msg *im = container_of(m, struct interrupt_msg, msg);

	fop_interrupt(im->d, im->id);
	free(im);
}

static void interrupted(fuse_req_t req, void *data)
{
	struct fused *d = fuse_req_userdata(req);
	struct interrupt_msg *im = calloc(1, sizeof(*im));

	if (!im)
		return;		/* the operation goes on: allowed */
	im->d = d;
	im->id = (uint64_t)(uintptr_t)data;
	im->msg.fn = interrupt_run;
	loop_post(d->loop, &im->msg);
}

struct fop *fop_new(fuse_req_t req, enum fop_kind kind, fuse_ino_t ino)
{
	struct fused *d = fuse_req_userdata(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fop *op = calloc(1, sizeof(*op));

	if (!op) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	op->d = d;
	op->req = req;
	op->kind = kind;
	op->id = __atomic_add_fetch(&d->next_op, 1, __ATOMIC_RELAXED);
	op->node = node_unpack(d, ino);
	CDS_INIT_LIST_HEAD(&op->watch_node);
	if (ctx) {
		op->tid = ctx->pid;
		op->uid = ctx->uid;
		op->gid = ctx->gid;
	}
	op->msg.fn = fop_run;
	return op;
}

void fop_post(struct fop *op)
{
	fuse_req_interrupt_func(op->req, interrupted, (void *)(uintptr_t)op->id);
	loop_post(op->d->loop, &op->msg);
}

/* False: answered with ENAMETOOLONG, op is gone. */
static bool fop_name(struct fop *op, char dst[CSV_NAME_MAX + 1], const char *name)
{
	size_t n = strlen(name);

	if (n > CSV_NAME_MAX) {
		fuse_reply_err(op->req, ENAMETOOLONG);
		free(op);
		return false;
	}
	memcpy(dst, name, n + 1);
	return true;
}

static void post_named(fuse_req_t req, enum fop_kind kind, fuse_ino_t parent, const char *name)
{
	struct fop *op = fop_new(req, kind, parent);

	if (op && fop_name(op, op->name, name))
		fop_post(op);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	post_named(req, FOP_LOOKUP, parent, name);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	post_named(req, FOP_UNLINK, parent, name);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	post_named(req, FOP_RMDIR, parent, name);
}

static void post_plain(fuse_req_t req, enum fop_kind kind, fuse_ino_t ino)
{
	struct fop *op = fop_new(req, kind, ino);

	if (op)
		fop_post(op);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	post_plain(req, FOP_GETATTR, ino);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	post_plain(req, FOP_READLINK, ino);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	post_plain(req, FOP_STATFS, ino);
}

/* Years 1677 to 2262: what is beyond is the nearest that can be kept, as other file systems do it. */
static int64_t ts_ns(const struct timespec *ts)
{
	int64_t ns;

	if (__builtin_mul_overflow((int64_t)ts->tv_sec, (int64_t)1000000000, &ns) || __builtin_add_overflow(ns, (int64_t)ts->tv_nsec, &ns))
		return ts->tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	static const struct { int fuse; uint32_t csv; } map[] = {
		{ FUSE_SET_ATTR_MODE, CSVFS_SET_MODE }, { FUSE_SET_ATTR_UID, CSVFS_SET_UID }, { FUSE_SET_ATTR_GID, CSVFS_SET_GID },
		{ FUSE_SET_ATTR_SIZE, CSVFS_SET_SIZE }, { FUSE_SET_ATTR_ATIME, CSVFS_SET_ATIME },
		{ FUSE_SET_ATTR_MTIME, CSVFS_SET_MTIME }, { FUSE_SET_ATTR_ATIME_NOW, CSVFS_SET_ATIME_NOW },
		{ FUSE_SET_ATTR_MTIME_NOW, CSVFS_SET_MTIME_NOW }, { FUSE_SET_ATTR_CTIME, CSVFS_SET_CTIME },
	};
	struct fop *op = fop_new(req, FOP_SETATTR, ino);
	size_t i;

	(void)fi;
	if (!op)
		return;
	for (i = 0; i < ARRAY_SIZE(map); i++)
		if (to_set & map[i].fuse)
			op->mask |= map[i].csv;
	op->attr.mode = st->st_mode;
	op->attr.uid = st->st_uid;
	op->attr.gid = st->st_gid;
	op->attr.size = (uint64_t)st->st_size;
	op->attr.atime_ns = ts_ns(&st->st_atim);
	op->attr.mtime_ns = ts_ns(&st->st_mtim);
	op->attr.ctime_ns = ts_ns(&st->st_ctim);
	fop_post(op);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct fop *op = fop_new(req, FOP_MKNOD, parent);

	if (!op || !fop_name(op, op->name, name))
		return;
	op->mode = mode;
	op->rdev = rdev;
	fop_post(op);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	op_mknod(req, parent, name, (mode & 07777) | S_IFDIR, 0);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fop *op = fop_new(req, FOP_CREATE, parent);

	if (!op || !fop_name(op, op->name, name))
		return;
	op->mode = (mode & 07777) | S_IFREG;
	op->fi = *fi;
	fop_post(op);
}

static void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	struct fop *op = fop_new(req, FOP_SYMLINK, parent);

	if (!op || !fop_name(op, op->name, name))
		return;
	op->target = strdup(link);
	if (!op->target) {
		fuse_reply_err(req, ENOMEM);
		free(op);
		return;
	}
	fop_post(op);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct fop *op = fop_new(req, FOP_LINK, ino);

	if (!op || !fop_name(op, op->name, newname))
		return;
	op->node2 = node_unpack(op->d, newparent);
	fop_post(op);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags)
{
	struct fop *op = fop_new(req, FOP_RENAME, parent);

	if (!op || !fop_name(op, op->name, name) || !fop_name(op, op->name2, newname))
		return;
	op->node2 = node_unpack(op->d, newparent);
	op->flags = flags;
	fop_post(op);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fop *op = fop_new(req, FOP_OPEN, ino);

	if (!op)
		return;
	op->fi = *fi;
	fop_post(op);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fop *op = fop_new(req, FOP_RELEASE, ino);

	if (!op)
		return;
	op->fi = *fi;
	fop_post(op);
}

/* Its locks were given to others (plock.h, PL4). */
static bool handle_is_lost(const struct fuse_file_info *fi)
{
	const struct use *u = (const struct use *)(uintptr_t)fi->fh;

	return u && __atomic_load_n(&u->lock_lost, __ATOMIC_SEQ_CST);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fused *d = fuse_req_userdata(req);
	struct fop *op;

	if (size > IO_MAX)
		size = IO_MAX;
	if (handle_is_lost(fi)) {
		fuse_reply_err(req, EIO);
		return;
	}
	if (worker_try_read(worker_of_thread(), req, node_unpack(d, ino), (uint64_t)off, (uint32_t)size))
		return;
	op = fop_new(req, FOP_READ, ino);
	if (!op)
		return;
	op->off = (uint64_t)off;
	op->len = size;
	fop_post(op);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fused *d = fuse_req_userdata(req);
	struct worker *w = worker_of_thread();
	struct iobuf *b;
	struct fop *op;

	if (size > IO_MAX) {		/* larger than what INIT agreed on */
		fuse_reply_err(req, EIO);
		return;
	}
	if (handle_is_lost(fi)) {
		fuse_reply_err(req, EIO);
		return;
	}
	b = worker_take_current(w);
	if (!b) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	if (data != iobuf_payload(b))
		memmove(iobuf_payload(b), data, size);
	if (!(fi->flags & O_APPEND) &&
	    worker_try_write(w, req, node_unpack(d, ino), (uint64_t)off, (uint32_t)size, b))
		return;
	op = fop_new(req, FOP_WRITE, ino);
	if (!op) {
		iobuf_put(d, b);
		return;
	}
	op->buf = b;
	op->off = (uint64_t)off;
	op->len = size;
	op->fi = *fi;
	op->kill_priv = iobuf_write_kills_priv(b);
	fop_post(op);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fop *op = fop_new(req, FOP_FSYNC, ino);

	(void)fi;
	if (!op)
		return;
	op->data_only = datasync != 0;
	fop_post(op);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct fop *op;

	(void)fi;
	if (off < 0 || len <= 0) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	op = fop_new(req, FOP_FALLOCATE, ino);
	if (!op)
		return;
	op->falloc_mode = mode;
	op->off = (uint64_t)off;
	op->len = (uint64_t)len;
	fop_post(op);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct fop *op = fop_new(req, FOP_LSEEK, ino);

	(void)fi;
	if (!op)
		return;
	op->off = (uint64_t)off;
	op->whence = whence;
	fop_post(op);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fop *op = fop_new(req, FOP_READDIR, ino);

	(void)fi;
	if (!op)
		return;
	op->len = size < IO_MAX ? size : IO_MAX;
	op->off = (uint64_t)off;
	fop_post(op);
}

/* Node ids are numbers, not references: nothing is kept for a lookup count. */
static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	(void)ino;
	(void)nlookup;
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	(void)count;
	(void)forgets;
	fuse_reply_none(req);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->want &= ~(unsigned)(FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
				  FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ATOMIC_O_TRUNC);
	/* AUTO_INVAL_DATA: F4 */
	conn->want |= conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_POSIX_LOCKS |
				       FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_AUTO_INVAL_DATA);
	conn->max_write = IO_MAX;
	conn->max_read = IO_MAX;
	conn->max_readahead = 0;
	conn->max_background = 256;
	conn->congestion_threshold = 192;
	conn->time_gran = 1;
}

const struct fuse_lowlevel_ops fuse_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	/* writes are durable only after fsync: a close has nothing to report, it may only end locks */
	.flush = lock_op_flush,
	.getlk = lock_op_get,
	.setlk = lock_op_set,
	.flock = lock_op_flock,
	.release = op_release,
	.fsync = op_fsync,
	.readdir = op_readdir,
	.fsyncdir = op_fsync,
	.statfs = op_statfs,
	.create = op_create,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
};
