/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sync_passthrough.c - the yardstick: the plainest FUSE file system that could serve the same file.  One file, "disk", which is a
 * device or file opened O_DIRECT; libfuse's own threads, one pread or pwrite a request.
 *
 *	sync_passthrough DEVICE DIR		(in the foreground; umount DIR ends it)
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <linux/fs.h>
#include <unistd.h>

#define DISK_INO 2
#define IO_MAX (1u << 20)

struct disk { int fd; uint64_t size; };

static __thread char *bounce;	/* O_DIRECT needs aligned memory; libfuse hands the payload over unaligned */

static char *bounce_get(void)
{
	if (!bounce && posix_memalign((void **)&bounce, 4096, IO_MAX))
		abort();
	return bounce;
}

static void fill(const struct disk *d, fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = ino;
	st->st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0600;
	st->st_nlink = 1;
	st->st_size = ino == FUSE_ROOT_ID ? 0 : (off_t)d->size;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = { .ino = DISK_INO, .attr_timeout = 60, .entry_timeout = 60 };

	if (parent != FUSE_ROOT_ID || strcmp(name, "disk")) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	fill(fuse_req_userdata(req), DISK_INO, &e.attr);
	fuse_reply_entry(req, &e);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	fill(fuse_req_userdata(req), ino, &st);
	fuse_reply_attr(req, &st, 60);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct disk *d = fuse_req_userdata(req);
	ssize_t n;

	(void)ino;
	(void)fi;
	n = pread(d->fd, bounce_get(), size, off);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, bounce, (size_t)n);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct disk *d = fuse_req_userdata(req);
	ssize_t n;

	(void)ino;
	(void)fi;
	memcpy(bounce_get(), buf, size);
	n = pwrite(d->fd, bounce, size, off);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)n);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct disk *d = fuse_req_userdata(req);

	(void)ino;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, fdatasync(d->fd) ? errno : 0);
}

static const struct fuse_lowlevel_ops ops = {
	.lookup = op_lookup, .getattr = op_getattr, .open = op_open, .read = op_read, .write = op_write, .fsync = op_fsync,
};

static int disk_open(struct disk *d, const char *path)
{
	struct stat st;

	d->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (d->fd < 0 || fstat(d->fd, &st))
		return -1;
	d->size = (uint64_t)st.st_size;
	return S_ISBLK(st.st_mode) ? ioctl(d->fd, BLKGETSIZE64, &d->size) : 0;
}

int main(int argc, char **argv)
{
	struct fuse_loop_config *cfg = fuse_loop_cfg_create();
	char *fargv[] = { argv[0], "-o", "allow_other,fsname=sync_passthrough", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, fargv);
	struct fuse_session *se;
	struct disk d;
	int rc = 1;

	if (argc != 3 || disk_open(&d, argv[1])) {
		fprintf(stderr, "usage: sync_passthrough DEVICE DIR%s%s\n", argc == 3 ? ": " : "", argc == 3 ? strerror(errno) : "");
		return 2;
	}
	se = fuse_session_new(&args, &ops, sizeof(ops), &d);
	if (se && !fuse_set_signal_handlers(se) && !fuse_session_mount(se, argv[2])) {
		rc = fuse_session_loop_mt(se, cfg);
		fuse_session_unmount(se);
	}
	if (se)
		fuse_session_destroy(se);
	fuse_loop_cfg_destroy(cfg);
	return rc != 0;
}
