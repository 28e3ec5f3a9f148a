/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuse_raw.c - the raw view: MOUNT/.raw/PATH is the disk that the image MOUNT/PATH holds, as a file of the disk's size.
 *
 *	node of view RAW_DIR	a directory, seen through the view: read-only, shows directories, symbolic links and images
 *	node of view RAW	an image's disk (or a symbolic link)
 *
 * ".raw" is found in the root by name only; nothing of that name can be made, moved or removed there.  An image is a regular file that
 * is a valid VHD or VHDX of a kind we can use; what is not is absent, and the log says why.
 *
 * Invariants
 *  RV1 While the view is open on any node nobody writes the plain file (R41), so what was read of it at open stays true until the last
 *      close: the size is read once, and no request through the view reaches bytes of the disk at or behind it.
 *  RV2 Requests through an open view go through csvfs_disk_*() (csvfs/vraw.h), and in place through a map of their own.
 */
#include "csvfs/fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "utils/base/base.h"

/* ---- what a file is ------------------------------------------------------------------------------------------------------------ */

/* Once for each state of a file. */
static void say_why(struct fused *d, const struct csvfs_attr *a, const char *name, const struct csv_err *err)
{
	if (d->raw_said_ino == a->ino && d->raw_said_change == a->change)
		return;
	d->raw_said_ino = a->ino;
	d->raw_said_change = a->change;
	log_to(d->log, LOG_L_WARN, RAW_NAME "/.../%s (inode %" PRIu64 "): no disk to be seen: %s", name, a->ino, err->text);
}

/* -ENOENT: not an image at all.  Damaged ones and ones of a kind we cannot use have errors of their own. */
static int disk_size(struct fused *d, const struct csvfs_attr *a, const char *name, uint64_t *ret)
{
	struct csv_err err = CSV_ERR_INIT;
	int rc = csvfs_disk_size(d->fs, a->ino, a->gen, ret, &err);

	if (rc && name && rc != -EINTR && rc != -CSV_E_WITHDRAWN)
		say_why(d, a, name, &err);
	return rc == -EMEDIUMTYPE ? -ENOENT : rc;
}

/* ---- names ---------------------------------------------------------------------------------------------------------------------- */

static bool is_root(const struct fused *d, struct node n)
{
	return n.ino == d->root_ino;
}

/* How a directory looks through the view. */
static void dir_attr(struct csvfs_attr *a)
{
	a->mode &= ~0222u;
}

static void lookup_top(struct fop *op)
{
	int err = csvfs_getattr(op->d->fs, op->d->root_ino, 0, &op->attr);

	if (!err)
		dir_attr(&op->attr);
	fop_reply_entry(op, VIEW_RAW_DIR, err);
}

static void lookup(struct fop *op)
{
	struct csvfs_attr *a = &op->attr;
	int err;

	if (!strcmp(op->name, "..") && is_root(op->d, op->node)) {
		err = csvfs_getattr(op->d->fs, op->d->root_ino, 0, a);
		fop_reply_entry(op, VIEW_FILE, err);
		return;
	}
	err = csvfs_lookup(op->d->fs, op->node.ino, op->node.gen, op->name, a);
	if (!err && (S_ISDIR(a->mode) || S_ISREG(a->mode)))
		names_seen(op->d->names, op->node.ino, op->name, a->ino);
	if (!err && S_ISDIR(a->mode)) {
		dir_attr(a);
		fop_reply_entry(op, VIEW_RAW_DIR, 0);
		return;
	}
	if (!err && !S_ISREG(a->mode) && !S_ISLNK(a->mode))
		err = -ENOENT;
	if (!err && S_ISREG(a->mode))
		err = disk_size(op->d, a, op->name, &a->size);
	fop_reply_entry(op, VIEW_RAW, err);
}

/* As the view shows it. */
static int view_attr(struct fop *op)
{
	int err = csvfs_getattr(op->d->fs, op->node.ino, op->node.gen, &op->attr);

	if (err)
		return err;
	if (S_ISDIR(op->attr.mode))
		dir_attr(&op->attr);
	else if (S_ISREG(op->attr.mode))
		err = disk_size(op->d, &op->attr, NULL, &op->attr.size);
	return err;
}

static void getattr(struct fop *op)
{
	fop_reply_attr(op, view_attr(op));
}

/* Owner, mode and times are the image's; the size of a disk is not changed by ftruncate. */
static void setattr(struct fop *op)
{
	struct csvfs_attr set = op->attr;
	int err = op->node.view == VIEW_RAW_DIR ? -EROFS : view_attr(op);

	if (!err && op->mask & CSVFS_SET_SIZE) {
		if (set.size != op->attr.size)
			err = -EPERM;
		op->mask &= ~CSVFS_SET_SIZE;
	}
	if (!err && op->mask)
		err = csvfs_setattr(op->d->fs, op->node.ino, op->node.gen, &set, op->mask, &op->attr);
	if (!err)
		err = view_attr(op);
	fop_reply_attr(op, err);
}

/* ---- listing: only what lookup would find ------------------------------------------------------------------------------------------ */

struct listed { struct csvfs_dirent e; char name[CSV_NAME_MAX + 1]; };
struct list { struct listed *l; size_t n, max; };

static bool list_add(void *arg, const struct csvfs_dirent *e)
{
	struct list *s = arg;

	if (s->n == s->max)
		return false;
	s->l[s->n].e = *e;
	memcpy(s->l[s->n].name, e->name, e->name_len);
	s->l[s->n].name[e->name_len] = 0;
	s->n++;
	return true;
}

static bool is_shown(struct fop *op, const struct listed *x, enum node_view *ret_view)
{
	uint32_t mode = x->e.type << 12;
	struct csvfs_attr a;
	uint64_t size;

	*ret_view = S_ISDIR(mode) ? VIEW_RAW_DIR : VIEW_RAW;
	if (S_ISDIR(mode) || S_ISLNK(mode))
		return true;
	return S_ISREG(mode) && !csvfs_getattr(op->d->fs, x->e.ino, x->e.gen, &a) && !disk_size(op->d, &a, NULL, &size);
}

static void readdir(struct fop *op)
{
	struct list s = { .max = op->len / 24 + 1 };	/* no entry is smaller */
	size_t used = 0, need, i;
	uint64_t from = op->off;
	bool full = false;
	char *buf;
	int err = 0;

	s.max = csv_min(s.max, (size_t)256);
	buf = malloc(op->len ? op->len : 1);
	s.l = calloc(s.max, sizeof(*s.l));
	if (!buf || !s.l)
		err = -ENOMEM;
	/* An answer without entries means the end: go on until one is shown or there are no more. */
	while (!err && !full && !used) {
		s.n = 0;
		err = csvfs_readdir(op->d->fs, op->node.ino, op->node.gen, from, list_add, &s);
		if (err || !s.n)
			break;
		for (i = 0; i < s.n && !full; i++) {
			enum node_view view;
			struct stat st = { .st_mode = s.l[i].e.type << 12 };

			from = s.l[i].e.cookie;
			if (!is_shown(op, &s.l[i], &view))
				continue;
			st.st_ino = node_pack(op->d, (struct node){ view, s.l[i].e.gen, s.l[i].e.ino });
			need = fuse_add_direntry(op->req, buf + used, op->len - used, s.l[i].name, &st, (off_t)from);
			full = need > op->len - used;
			if (!full)
				used += need;
		}
	}
	if (err)
		fop_reply_err(op, err);
	else
		fuse_reply_buf(op->req, buf, used);
	free(s.l);
	free(buf);
}

/* ---- an open disk ------------------------------------------------------------------------------------------------------------------- */

static int open_disk(struct fop *op, uint64_t ino, uint32_t gen)
{
	struct fused *d = op->d;
	bool writing = (op->fi.flags & O_ACCMODE) != O_RDONLY;
	struct csv_err err = CSV_ERR_INIT;
	int rc = use_open(op, ino, gen, CSVFS_USE_RAW, writing, &op->fi.fh);

	if (rc)
		return rc;
	/* From here on the plain file does not change but through views (RV1). */
	rc = csvfs_disk_open(d->fs, ino, gen, writing, use_path(op->fi.fh), &err);
	if (rc) {
		if (*err.text && rc != -EINTR && rc != -CSV_E_WITHDRAWN)
			log_to(d->log, LOG_L_WARN, "image %s%sinode %" PRIu64 "%s: cannot be opened through " RAW_NAME ": %s", use_path(op->fi.fh),
			       *use_path(op->fi.fh) ? " (" : "", ino, *use_path(op->fi.fh) ? ")" : "", err.text);
		use_close(d, op->fi.fh);
	}
	return rc == -EMEDIUMTYPE ? -ENOENT : rc;
}

static void open_raw(struct fop *op)
{
	fop_open(op, open_disk);
}

static void read_raw(struct fop *op)
{
	fop_read(op, csvfs_disk_read);
}

/* Behind the end there is no disk: as a block device says it. */
static void write_raw(struct fop *op)
{
	ssize_t n;

	if (op->fi.flags & O_APPEND)
		n = op->len ? -ENOSPC : 0;
	else
		n = csvfs_disk_write(op->d->fs, op->node.ino, op->node.gen, op->off, iobuf_payload(op->buf), op->len);
	fop_reply_written(op, n);
}

static void fallocate_raw(struct fop *op)
{
	fop_reply_err(op, csvfs_disk_fallocate(op->d->fs, op->node.ino, op->node.gen, op->falloc_mode, op->off, op->len));
}

static void lseek_raw(struct fop *op)
{
	fop_lseek(op, csvfs_disk_lseek);
}

/* ---- which operations are ours ---------------------------------------------------------------------------------------------------- */

static bool run_in_dir(struct fop *op)
{
	switch (op->kind) {
	case FOP_LOOKUP: lookup(op); return true;
	case FOP_READDIR: readdir(op); return true;
	case FOP_GETATTR: getattr(op); return true;
	case FOP_SETATTR: setattr(op); return true;
	case FOP_FSYNC:			/* of a directory */
	case FOP_STATFS: return false;
	default: fop_reply_err(op, -EROFS); return true;
	}
}

static bool run_on_disk(struct fop *op)
{
	switch (op->kind) {
	case FOP_GETATTR: getattr(op); return true;
	case FOP_SETATTR: setattr(op); return true;
	case FOP_OPEN: open_raw(op); return true;
	case FOP_READ: read_raw(op); return true;
	case FOP_WRITE: write_raw(op); return true;
	case FOP_FALLOCATE: fallocate_raw(op); return true;
	case FOP_LSEEK: lseek_raw(op); return true;
	case FOP_READLINK: case FOP_RELEASE: case FOP_FSYNC: case FOP_STATFS: case FOP_GETLK: case FOP_SETLK: case FOP_FLUSH: return false;
	default: fop_reply_err(op, -EPERM); return true;
	}
}

static bool is_reserved(const struct fused *d, struct node dir, const char *name)
{
	return dir.view == VIEW_FILE && is_root(d, dir) && !strcmp(name, RAW_NAME);
}

/* 0: nothing of ours; else the answer. */
static int reserved(const struct fop *op)
{
	const struct fused *d = op->d;

	switch (op->kind) {
	case FOP_CREATE: case FOP_MKNOD: case FOP_SYMLINK:
		return is_reserved(d, op->node, op->name) ? -EPERM : 0;
	case FOP_UNLINK: case FOP_RMDIR:
		return is_reserved(d, op->node, op->name) ? -EBUSY : 0;
	case FOP_LINK:
		return is_reserved(d, op->node2, op->name) ? -EPERM : op->node2.view != VIEW_FILE ? -EROFS : 0;
	case FOP_RENAME:
		if (is_reserved(d, op->node, op->name))
			return -EBUSY;
		return is_reserved(d, op->node2, op->name2) ? -EPERM : op->node2.view != VIEW_FILE ? -EROFS : 0;
	default:
		return 0;
	}
}

bool raw_run(struct fop *op)
{
	int err = reserved(op);

	if (err) {
		fop_reply_err(op, err);
		return true;
	}
	if (op->node.view == VIEW_RAW_DIR)
		return run_in_dir(op);
	if (op->node.view == VIEW_RAW)
		return run_on_disk(op);
	if (op->kind == FOP_LOOKUP && is_reserved(op->d, op->node, op->name)) {
		lookup_top(op);
		return true;
	}
	return false;
}
