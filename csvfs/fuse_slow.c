/*
 * fuse_slow.c - requests on the control plane: one coroutine each, straight through the file system core to the answer.
 */
#include "csvfs/fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "utils/base/base.h"

#define MET_TRIES 8u		/* a name whose file other nodes move away and back, or replace, all the time */

static void reply_entry(struct fop *op, int err)
{
	fop_reply_entry(op, op->node.view, err);
}

/* Finds the name, and opens once the file that is there: another node may delete it, the kernel will still open it. */
static int lookup_held(struct fop *op)
{
	struct csvfs *fs = op->d->fs;
	int err = -ESTALE;

	for (unsigned tries = 0; tries < MET_TRIES && err == -ESTALE; tries++) {
		err = csvfs_lookup(fs, op->node.ino, op->node.gen, op->name, &op->attr);
		if (err || !S_ISREG(op->attr.mode))
			return err;
		err = csvfs_open(fs, op->attr.ino, op->attr.gen);
		op->met = !err;
	}
	return err;
}

/* After the answer. */
static void hold_met(struct fop *op)
{
	struct fused *d = op->d;
	uint64_t end = sched_now_ns(d->sched) + MET_NS;

	while (op->met && !d->final && !d->rejoining && sched_now_ns(d->sched) < end)
		sched_wait_until(d->sched, &d->life_wq, end, false);
	if (op->met)
		csvfs_release(d->fs, op->attr.ino);
	op->met = false;
}

static void run_lookup(struct fop *op)
{
	struct fused *d = op->d;
	uint64_t now = sched_now_ns(d->sched), ino;
	uint32_t gen;
	bool late = met_stale_take(&d->met, op->tid, now), met = met_take(&d->met, op->tid, op->node.ino, op->name, now, &ino, &gen);
	int err = late || met ? lookup_held(op) : csvfs_lookup(d->fs, op->node.ino, op->node.gen, op->name, &op->attr);

	if (op->met)		/* the kernel may have asked only whether what it knew is still there, and asks again */
		met_remember(&d->met, op->tid, op->node.ino, op->name, op->attr.ino, op->attr.gen, now);
	else if (late)
		met_stale(&d->met, op->tid, now);	/* a directory on the way there */
	if (met && err == -ENOENT) {
		err = csvfs_getattr(d->fs, ino, gen, &op->attr);
		if (err == -ESTALE)
			err = -ENOENT;		/* not kept long enough */
	}
	if (!err && (S_ISDIR(op->attr.mode) || op->attr.flags & CSV_INO_IMAGE))
		names_seen(d->names, op->node.ino, op->name, op->attr.ino);
	reply_entry(op, err);
	hold_met(op);
}

static void run_getattr(struct fop *op)
{
	fop_reply_attr(op, csvfs_getattr(op->d->fs, op->node.ino, op->node.gen, &op->attr));
}

static void run_setattr(struct fop *op)
{
	struct csvfs_attr set = op->attr;
	struct use_guard g = { 0 };
	int err = op->mask & CSVFS_SET_SIZE ? use_guard_node(op, op->node, &g) : 0;

	if (!err)
		err = csvfs_setattr(op->d->fs, op->node.ino, op->node.gen, &set, op->mask, &op->attr);
	use_guard_end(op->d, &g);
	fop_reply_attr(op, err);
}

static void run_readlink(struct fop *op)
{
	char buf[CSV_SYMLINK_MAX + 1];
	int err = csvfs_readlink(op->d->fs, op->node.ino, op->node.gen, buf, sizeof(buf));

	if (err)
		fop_reply_err(op, err);
	else
		fuse_reply_readlink(op->req, buf);
}

static void run_mknod(struct fop *op)
{
	reply_entry(op, csvfs_create(op->d->fs, op->node.ino, op->node.gen, op->name, op->mode, op->uid, op->gid, op->rdev, false,
				     &op->attr));
}

static bool opens_for_writing(const struct fop *op)
{
	return (op->fi.flags & O_ACCMODE) != O_RDONLY;
}

/* Counts the handle (R41); direct I/O for writing is how virtual machines and databases use a file (R25). */
static int open_plain(struct fop *op, uint64_t ino, uint32_t gen)
{
	bool writing = opens_for_writing(op);
	int err = use_open(op, ino, gen, CSVFS_USE_PLAIN, writing, &op->fi.fh);

	/* A failure costs speed, not truth: the file goes on under EX. */
	if (!err && writing && op->fi.flags & O_DIRECT)
		csvfs_set_image(op->d->fs, ino, gen);
	return err;
}

/*
 * Makes the file.  Another node may have made it, or moved one there, after the kernel had looked the name up.  Without O_EXCL that is no error
 * for the caller, but it is the kernel that must check the permissions of what is there now: ESTALE makes it look the name up again and open that.
 */
static int create_or_met(struct fop *op)
{
	struct fused *d = op->d;
	int err = -ENOENT;

	for (unsigned tries = 0; tries < MET_TRIES && err == -ENOENT; tries++) {	/* moved away in between */
		err = csvfs_create(d->fs, op->node.ino, op->node.gen, op->name, op->mode, op->uid, op->gid, 0, true, &op->attr);
		if (err != -EEXIST || op->fi.flags & O_EXCL)
			return err;
		err = lookup_held(op);
	}
	if (op->met)
		met_remember(&d->met, op->tid, op->node.ino, op->name, op->attr.ino, op->attr.gen, sched_now_ns(d->sched));
	return err && err != -ENOENT ? err : -ESTALE;
}

static void run_create(struct fop *op)
{
	struct fused *d = op->d;
	struct fuse_entry_param e;
	int err;

	if (op->made)			/* in the last life of this node */
		err = csvfs_open(d->fs, op->attr.ino, op->attr.gen);
	else
		err = create_or_met(op);
	if (!err) {
		op->made = true;
		err = open_plain(op, op->attr.ino, op->attr.gen);
		if (err)
			csvfs_release(d->fs, op->attr.ino);
	}
	if (err) {
		fop_reply_err(op, err);
		hold_met(op);
		return;
	}
	fop_entry(d, VIEW_FILE, &op->attr, &e);
	fop_open_flags(op);
	if (fuse_reply_create(op->req, &e, &op->fi) == -ENOENT) {
		use_close(d, op->fi.fh);		/* the caller is gone: no RELEASE will come */
		csvfs_release(d->fs, op->attr.ino);
	}
}

static void run_symlink(struct fop *op)
{
	reply_entry(op, csvfs_symlink(op->d->fs, op->node.ino, op->node.gen, op->name, op->target, op->uid, op->gid, &op->attr));
}

static void run_link(struct fop *op)
{
	reply_entry(op, csvfs_link(op->d->fs, op->node.ino, op->node.gen, op->node2.ino, op->node2.gen, op->name, &op->attr));
}

static void run_unlink(struct fop *op)
{
	struct use_guard g;
	int err = use_guard_name(op, op->node, op->name, &g);

	if (!err)
		err = csvfs_unlink(op->d->fs, op->node.ino, op->node.gen, op->name);
	use_guard_end(op->d, &g);
	fop_reply_err(op, err);
}

static void run_rmdir(struct fop *op)
{
	fop_reply_err(op, csvfs_rmdir(op->d->fs, op->node.ino, op->node.gen, op->name));
}

static void run_rename(struct fop *op)
{
	struct use_guard from, to = { 0 };
	int err = use_guard_name(op, op->node, op->name, &from);

	if (!err)
		err = use_guard_name(op, op->node2, op->name2, &to);	/* what it replaces */
	if (!err)
		err = csvfs_rename(op->d->fs, op->node.ino, op->node.gen, op->name, op->node2.ino, op->node2.gen, op->name2, op->flags);
	use_guard_end(op->d, &to);
	use_guard_end(op->d, &from);
	fop_reply_err(op, err);
}

static void run_open(struct fop *op)
{
	fop_open(op, open_plain);
}

static void run_release(struct fop *op)
{
	lock_close(op->d, op->fi.fh);
	use_close(op->d, op->fi.fh);
	csvfs_release(op->d->fs, op->node.ino);
	fop_reply_err(op, 0);
}

static void run_read(struct fop *op)
{
	fop_read(op, csvfs_read);
}

static void run_write(struct fop *op)
{
	uint64_t at;
	ssize_t n = op->wrote ? (ssize_t)op->done_len :
				csvfs_write(op->d->fs, op->node.ino, op->node.gen, op->off, iobuf_payload(op->buf), op->len,
					    (op->fi.flags & O_APPEND ? CSVFS_WRITE_APPEND : 0) | (op->kill_priv ? CSVFS_WRITE_KILLPRIV : 0),
					    &at);

	if (n >= 0) {
		op->wrote = true;	/* an append is not done twice */
		op->done_len = (size_t)n;
	}
	fop_reply_written(op, n);
}

static void run_fsync(struct fop *op)
{
	fop_reply_err(op, csvfs_fsync(op->d->fs, op->node.ino, op->node.gen, op->data_only));
}

static void run_fallocate(struct fop *op)
{
	fop_reply_err(op, csvfs_fallocate(op->d->fs, op->node.ino, op->node.gen, op->falloc_mode, op->off, op->len));
}

static void run_lseek(struct fop *op)
{
	fop_lseek(op, csvfs_lseek);
}

struct dir_fill { struct fop *op; char *buf; size_t used, size; };

static bool dir_add(void *arg, const struct csvfs_dirent *e)
{
	struct dir_fill *f = arg;
	char name[CSV_NAME_MAX + 1];
	struct stat st = {
		.st_ino = node_pack(f->op->d, (struct node){ f->op->node.view, e->gen, e->ino }),
		.st_mode = e->type << 12,
	};
	size_t need;

	memcpy(name, e->name, e->name_len);
	name[e->name_len] = 0;
	need = fuse_add_direntry(f->op->req, f->buf + f->used, f->size - f->used, name, &st, (off_t)e->cookie);
	if (need > f->size - f->used)
		return false;
	f->used += need;
	return true;
}

static void run_readdir(struct fop *op)
{
	struct dir_fill f = { .op = op, .size = op->len };
	int err;

	f.buf = malloc(op->len ? op->len : 1);
	if (!f.buf) {
		fop_reply_err(op, -ENOMEM);
		return;
	}
	err = csvfs_readdir(op->d->fs, op->node.ino, op->node.gen, op->off, dir_add, &f);
	if (err)
		fop_reply_err(op, err);
	else
		fuse_reply_buf(op->req, f.buf, f.used);
	free(f.buf);
}

static void run_statfs(struct fop *op)
{
	struct csvfs_statfs s;
	struct statvfs sv = { 0 };
	int err = csvfs_statfs(op->d->fs, &s);

	if (err) {
		fop_reply_err(op, err);
		return;
	}
	sv.f_bsize = s.bsize;
	sv.f_frsize = s.bsize;
	sv.f_blocks = s.blocks;
	sv.f_bfree = s.bfree;
	sv.f_bavail = s.bavail;
	sv.f_files = s.files;
	sv.f_ffree = s.ffree;
	sv.f_favail = s.ffree;
	sv.f_namemax = s.namelen;
	fuse_reply_statfs(op->req, &sv);
}

static void (*const run[FOP_KINDS])(struct fop *op) = {
	[FOP_LOOKUP] = run_lookup, [FOP_GETATTR] = run_getattr, [FOP_SETATTR] = run_setattr, [FOP_READLINK] = run_readlink,
	[FOP_MKNOD] = run_mknod, [FOP_CREATE] = run_create, [FOP_SYMLINK] = run_symlink, [FOP_LINK] = run_link,
	[FOP_UNLINK] = run_unlink, [FOP_RMDIR] = run_rmdir, [FOP_RENAME] = run_rename, [FOP_OPEN] = run_open,
	[FOP_RELEASE] = run_release, [FOP_READ] = run_read, [FOP_WRITE] = run_write, [FOP_FSYNC] = run_fsync,
	[FOP_FALLOCATE] = run_fallocate, [FOP_LSEEK] = run_lseek, [FOP_READDIR] = run_readdir, [FOP_STATFS] = run_statfs,
	[FOP_GETLK] = lock_run_get, [FOP_SETLK] = lock_run_set, [FOP_FLUSH] = lock_run_flush,
};

static const char *const kind_name[FOP_KINDS] = {
	"lookup", "getattr", "setattr", "readlink", "mknod", "create", "symlink", "link", "unlink", "rmdir", "rename", "open", "release",
	"read", "write", "fsync", "fallocate", "lseek", "readdir", "statfs", "getlk", "setlk", "flush",
};

#define SLOW_MS 10u		/* worth a line for who looks for delays */

/* What may come of a thread before its open(2) has come to OPEN: permissions of directories are asked for, and RELEASE comes when it will. */
static bool in_open(enum fop_kind kind)
{
	return kind == FOP_LOOKUP || kind == FOP_GETATTR || kind == FOP_CREATE || kind == FOP_RELEASE;
}

static void fop_coro(void *arg)
{
	struct fop *op = arg;
	struct fused *d = op->d;
	uint64_t took;

	do {
		int err = life_enter(d);

		op->again = false;
		if (!in_open(op->kind))
			met_forget(&d->met, op->tid);
		if (err) {
			lock_not_run(op);
			fuse_reply_err(op->req, -err);
			break;
		}
		if (!raw_run(op))
			run[op->kind](op);
		life_leave(d);
	} while (op->again);
	d->served[op->kind]++;
	took = (sched_now_ns(d->sched) - op->started_ns) / NS_PER_MS;
	if (took >= SLOW_MS)
		log_to(d->log, LOG_L_DEBUG, "%s of inode %llu%s%s took %llu ms", kind_name[op->kind], (unsigned long long)op->node.ino,
		       *op->name ? ", " : "", op->name, (unsigned long long)took);
	HASH_DEL(d->ops, op);
	fop_unwatch(op);
	iobuf_put(d, op->buf);
	free(op->target);
	free(op);
}

void fop_run(struct loop_msg *m)
{
	struct fop *op = container_of(m, struct fop, msg);
	struct fused *d = op->d;

	op->started_ns = sched_now_ns(d->sched);
	HASH_ADD(hh, d->ops, id, sizeof(op->id), op);
	if (sched_spawn_ret(d->sched, "fop", fop_coro, op, &op->coro)) {
		HASH_DEL(d->ops, op);
		lock_not_run(op);
		fuse_reply_err(op->req, ENOMEM);
		iobuf_put(d, op->buf);
		free(op->target);
		free(op);
	}
}
