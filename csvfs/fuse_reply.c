/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuse_reply.c - answers to requests on the control plane, and what plain files and raw views do alike.
 */
#include "csvfs/fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* Before 1970 too: nanoseconds count forwards. */
static struct timespec ns_ts(int64_t ns)
{
	int64_t rest = ns % 1000000000;

	return (struct timespec){ .tv_sec = ns / 1000000000 - (rest < 0), .tv_nsec = rest < 0 ? rest + 1000000000 : rest };
}

void fop_stat(const struct fused *d, const struct csvfs_attr *a, fuse_ino_t id, struct stat *st)
{
	(void)d;
	memset(st, 0, sizeof(*st));
	st->st_ino = id;
	st->st_mode = a->mode;
	st->st_nlink = a->nlink;
	st->st_uid = a->uid;
	st->st_gid = a->gid;
	st->st_rdev = a->rdev;
	st->st_size = (off_t)a->size;
	st->st_blksize = CSV_BLOCK_SIZE;
	st->st_blocks = (blkcnt_t)a->blocks_512;
	st->st_atim = ns_ts(a->atime_ns);
	st->st_mtim = ns_ts(a->mtime_ns);
	st->st_ctim = ns_ts(a->ctime_ns);
}

void fop_entry(const struct fused *d, enum node_view view, const struct csvfs_attr *a, struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = node_pack(d, (struct node){ view, a->gen, a->ino });
	e->generation = a->gen;
	fop_stat(d, a, e->ino, &e->attr);
	/* time-outs 0: F4 */
}

void fop_reply_err(struct fop *op, int err)
{
	if (err == -CSV_E_WITHDRAWN && life_may_come_back(op->d)) {
		op->again = true;	/* RJ1 */
		return;
	}
	fuse_reply_err(op->req, csvfs_errno(err));
}

void fop_reply_entry(struct fop *op, enum node_view view, int err)
{
	struct fuse_entry_param e;

	if (err) {
		fop_reply_err(op, err);
		return;
	}
	fop_entry(op->d, view, &op->attr, &e);
	fuse_reply_entry(op->req, &e);
}

void fop_reply_attr(struct fop *op, int err)
{
	struct stat st;

	if (err) {
		fop_reply_err(op, err);
		return;
	}
	fop_stat(op->d, &op->attr, node_pack(op->d, (struct node){ op->node.view, op->attr.gen, op->attr.ino }), &st);
	fuse_reply_attr(op->req, &st, 0.0);
}

/* What an open file looks like to the kernel (F4). */
void fop_open_flags(struct fop *op)
{
	op->fi.direct_io = 1;
	op->fi.keep_cache = 0;
}

void fop_open(struct fop *op, int (*use)(struct fop *op, uint64_t ino, uint32_t gen))
{
	struct fused *d = op->d;
	int err = csvfs_open(d->fs, op->node.ino, op->node.gen);

	if (!err) {
		err = use(op, op->node.ino, op->node.gen);
		if (err)
			csvfs_release(d->fs, op->node.ino);
	}
	if (err) {
		if (err == -ESTALE)
			met_stale(&d->met, op->tid, sched_now_ns(d->sched));
		fop_reply_err(op, err);
		return;
	}
	fop_open_flags(op);
	if (fuse_reply_open(op->req, &op->fi) == -ENOENT) {
		use_close(d, op->fi.fh);		/* the caller is gone: no RELEASE will come */
		csvfs_release(d->fs, op->node.ino);
	}
}

void fop_read(struct fop *op, ssize_t (*fn)(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, void *buf, size_t len))
{
	ssize_t n;

	if (!op->buf)
		op->buf = iobuf_get(op->d);
	if (!op->buf) {
		fop_reply_err(op, -ENOMEM);
		return;
	}
	n = fn(op->d->fs, op->node.ino, op->node.gen, op->off, iobuf_payload(op->buf), op->len);
	if (n < 0)
		fop_reply_err(op, (int)n);
	else
		fuse_reply_buf(op->req, iobuf_payload(op->buf), (size_t)n);
}

void fop_reply_written(struct fop *op, ssize_t n)
{
	int err;

	if (n >= 0 && op->fi.flags & (O_SYNC | O_DSYNC)) {
		err = csvfs_fsync(op->d->fs, op->node.ino, op->node.gen, (op->fi.flags & O_SYNC) != O_SYNC);
		if (err)
			n = err;
	}
	if (n < 0)
		fop_reply_err(op, (int)n);
	else
		fuse_reply_write(op->req, (size_t)n);
}

void fop_lseek(struct fop *op, int (*fn)(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, int whence, uint64_t *ret))
{
	uint64_t at;
	int err = fn(op->d->fs, op->node.ino, op->node.gen, op->off, op->whence, &at);

	if (err)
		fop_reply_err(op, err);
	else
		fuse_reply_lseek(op->req, (off_t)at);
}
