/*
 * blk_open.c - opening a block device or a regular file, its size and its alignment.
 */
#include "utils/env/blk_open.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "utils/base/base.h"

static int fail(struct csv_err *err, int e, const char *path, const char *what)
{
	return csv_err_set(err, -e, "%s: %s: %s", path, what, strerror(e));
}

static int open_hint(struct csv_err *err, int e, const char *path)
{
	switch (e) {
	case ENOENT:
		return csv_err_set(err, -e, "%s: no such device or file: check the name", path);
	case EACCES:
	case EPERM:
		return csv_err_set(err, -e, "%s: permission denied: run as root", path);
	case EBUSY:
		return csv_err_set(err, -e, "%s: in use on this node (mounted, or part of another device): "
				   "release it first", path);
	case EROFS:
		return csv_err_set(err, -e, "%s: read-only: writing is needed", path);
	default:
		return fail(err, e, path, "open");
	}
}

static int blkdev_geometry(const char *path, struct blk_file *f, struct csv_err *err)
{
	int ssz = 0;

	if (ioctl(f->fd, BLKGETSIZE64, &f->size_bytes) < 0)
		return fail(err, errno, path, "its size");
	if (ioctl(f->fd, BLKSSZGET, &ssz) < 0)
		return fail(err, errno, path, "its sector size");
	if (ssz != 512 && ssz != 4096)
		return csv_err_set(err, -EINVAL, "%s: logical sector size %d bytes: only 512 and 4096 are supported",
				   path, ssz);
	f->min_io = f->io_align = ssz;
	return 0;
}

static int file_geometry(const char *path, struct blk_file *f, const struct stat *st, struct csv_err *err)
{
	f->size_bytes = st->st_size;
	f->min_io = f->io_align = 512;
#ifdef STATX_DIOALIGN
	if (f->direct) {
		struct statx sx;

		if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 && (sx.stx_mask & STATX_DIOALIGN) &&
		    sx.stx_dio_offset_align) {
			uint32_t align = csv_max(sx.stx_dio_offset_align, sx.stx_dio_mem_align);

			if (align > 4096)
				return csv_err_set(err, -EINVAL, "%s: its file system wants direct I/O in units of %u "
						   "bytes: at most 4096 are supported", path, align);
			f->io_align = align > 512 ? 4096 : 512;
		}
	}
#else
	(void)path;
	(void)err;
#endif
	return 0;
}

int blk_file_open(const char *path, unsigned flags, struct blk_file *ret, struct csv_err *err)
{
	struct blk_file f = { .readonly = flags & BLK_O_RDONLY, .direct = true };
	int how = (f.readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | (flags & BLK_O_EXCL ? O_EXCL : 0);
	struct stat st;
	int rc;

	/* First look, then open: opening a fifo would block, and O_EXCL means something else for what is no device. */
	if (stat(path, &st) < 0)
		return open_hint(err, errno, path);
	f.is_blkdev = S_ISBLK(st.st_mode);
	if (!f.is_blkdev && !S_ISREG(st.st_mode))
		return csv_err_set(err, -ENOTBLK, "%s: neither a block device nor a regular file", path);
	if (!f.is_blkdev)
		how &= ~O_EXCL;
	f.fd = open(path, how | O_DIRECT);
	if (f.fd < 0 && errno == EINVAL && !f.is_blkdev) {
		if (!(flags & BLK_O_BUFFERED))
			return csv_err_set(err, -EINVAL, "%s: its file system has no direct I/O (O_DIRECT): "
					   "put it on another one", path);
		f.direct = false;
		f.fd = open(path, how);
	}
	if (f.fd < 0)
		return open_hint(err, errno, path);
	rc = f.is_blkdev ? blkdev_geometry(path, &f, err) : file_geometry(path, &f, &st, err);
	if (rc == 0 && f.size_bytes < f.io_align)
		rc = csv_err_set(err, -ENOSPC, "%s: size %llu bytes: too small for anything", path,
				 (unsigned long long)f.size_bytes);
	if (rc < 0) {
		close(f.fd);
		return rc;
	}
	f.size_bytes = csv_round_down(f.size_bytes, f.io_align);
	*ret = f;
	return 0;
}

void blk_file_close(struct blk_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

int blk_file_discard(const struct blk_file *f, uint64_t off, uint64_t len)
{
	if (f->is_blkdev) {
		uint64_t range[2] = { off, len };

		return ioctl(f->fd, BLKDISCARD, range) < 0 ? -errno : 0;
	}
	return fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len) < 0 ? -errno : 0;
}
