/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cutcache.c - negative control of t-coherence and t-posix: a pass-through mount that caches names, attributes and data for a minute and knows of
 * no other mount of the same directory.
 *
 *	cutcache BACK DIR		(returns when it is mounted; umount DIR ends it)
 */
#define FUSE_USE_VERSION 314
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CACHE_S 60.0

static const char *back(char buf[static PATH_MAX], const char *path)
{
	snprintf(buf, PATH_MAX, "%s%s", (const char *)fuse_get_context()->private_data, path);
	return buf;
}

static int result(long r)
{
	return r < 0 ? -errno : (int)r;
}

static void *op_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
	(void)conn;
	cfg->entry_timeout = cfg->attr_timeout = cfg->negative_timeout = CACHE_S;
	cfg->kernel_cache = 1;
	cfg->hard_remove = 1;
	return fuse_get_context()->private_data;
}

static int op_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	char b[PATH_MAX];

	(void)fi;
	return result(lstat(back(b, path), st));
}

static int op_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off, struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	char b[PATH_MAX];
	DIR *d = opendir(back(b, path));
	struct dirent *e;

	(void)off;
	(void)fi;
	(void)flags;
	if (!d)
		return -errno;
	while ((e = readdir(d)))
		fill(buf, e->d_name, NULL, 0, 0);
	closedir(d);
	return 0;
}

static int open_back(const char *path, int flags, mode_t mode, struct fuse_file_info *fi)
{
	char b[PATH_MAX];
	int fd = open(back(b, path), flags, mode);

	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	return 0;
}

/* The kernel's idea of the end of file decides where an append goes, as with any local file system. */
static int op_open(const char *path, struct fuse_file_info *fi)
{
	return open_back(path, fi->flags & ~O_APPEND, 0, fi);
}

static int op_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	return open_back(path, (fi->flags & ~O_APPEND) | O_CREAT, mode, fi);
}

static int op_read(const char *path, char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)path;
	return result(pread((int)fi->fh, buf, size, off));
}

static int op_write(const char *path, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)path;
	return result(pwrite((int)fi->fh, buf, size, off));
}

static int op_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	char b[PATH_MAX];

	(void)fi;
	return result(truncate(back(b, path), size));
}

static int op_rename(const char *from, const char *to, unsigned flags)
{
	char a[PATH_MAX], b[PATH_MAX];

	return flags ? -EINVAL : result(rename(back(a, from), back(b, to)));
}

static int op_unlink(const char *path)
{
	char b[PATH_MAX];

	return result(unlink(back(b, path)));
}

static int op_mkdir(const char *path, mode_t mode)
{
	char b[PATH_MAX];

	return result(mkdir(back(b, path), mode));
}

static int op_link(const char *from, const char *to)
{
	char a[PATH_MAX], b[PATH_MAX];

	return result(link(back(a, from), back(b, to)));
}

static int op_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	char b[PATH_MAX];

	(void)fi;
	return result(chmod(back(b, path), mode));
}

static int op_utimens(const char *path, const struct timespec ts[2], struct fuse_file_info *fi)
{
	char b[PATH_MAX];

	(void)fi;
	return result(utimensat(AT_FDCWD, back(b, path), ts, AT_SYMLINK_NOFOLLOW));
}

static int op_fallocate(const char *path, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	(void)path;
	return result(fallocate((int)fi->fh, mode, off, len));
}

static int op_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	return result(close((int)fi->fh));
}

int main(int argc, char **argv)
{
	static const struct fuse_operations ops = {
		.init = op_init, .getattr = op_getattr, .readdir = op_readdir, .open = op_open, .create = op_create, .read = op_read,
		.write = op_write, .truncate = op_truncate, .rename = op_rename, .unlink = op_unlink, .release = op_release,
		.mkdir = op_mkdir, .link = op_link, .chmod = op_chmod, .utimens = op_utimens, .fallocate = op_fallocate,
	};
	char *args[] = { argv[0], NULL, NULL };

	if (argc != 3) {
		fprintf(stderr, "usage: cutcache BACK DIR\n");
		return 2;
	}
	args[1] = argv[2];
	return fuse_main(2, args, &ops, realpath(argv[1], NULL));
}
