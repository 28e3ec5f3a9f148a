/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_vhd_create.c - vhd create, on any file system.
 *
 * A new disk is made under a name of its own (.NAME.XXXXXX.new beside it), and gets its name when it is complete and durable:
 * whatever interrupts the command, a half-made disk is never found under the name asked for.
 */
#include "utils/tools/csvctl_vhd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include <linux/magic.h>

#include "utils/base/text.h"

#define STEP (64ull << 20)

/* ---- what is wanted --------------------------------------------------------------------------------------------------------------- */

static bool ends_in(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && !strcasecmp(text + n - m, end);
}

static enum rpc_code parse_size(struct cc *cc, const char *name, uint64_t max, uint64_t *ret)
{
	const char *text = cc_opt(cc, name);
	int rc;

	if (!text)
		return RPC_OK;
	rc = csv_size_parse(text, ret);
	if (rc == -ERANGE || (!rc && *ret > max))
		return cc_fail(cc, RPC_USAGE, "--%s %s: too large", name, text);
	return rc ? cc_fail(cc, RPC_USAGE, "--%s %s: must be a number of bytes, or one with K, M, G or T", name, text) : RPC_OK;
}

static enum rpc_code parse(struct cc *cc, struct vimg_spec *ret)
{
	const char *format = cc_opt(cc, "format"), *type = cc_opt(cc, "type");
	struct vimg_spec s = { .format = ends_in(cc->arg[0], ".vhdx") ? VIMG_VHDX : VIMG_VHD, .now_s = (int64_t)time(NULL) };
	uint64_t block = 0, sector = 0;
	enum rpc_code code;

	if (format && strcmp(format, "vhd") && strcmp(format, "vhdx"))
		return cc_fail(cc, RPC_USAGE, "--format %s: must be vhd or vhdx", format);
	if (type && strcmp(type, "fixed") && strcmp(type, "dynamic") && strcmp(type, "diff"))
		return cc_fail(cc, RPC_USAGE, "--type %s: must be fixed, dynamic or diff", type);
	if (format)
		s.format = strcmp(format, "vhd") ? VIMG_VHDX : VIMG_VHD;
	s.type = !type || !strcmp(type, "fixed") ? VIMG_FIXED : !strcmp(type, "dynamic") ? VIMG_DYNAMIC : VIMG_DIFF;
	code = parse_size(cc, "size", UINT64_MAX, &s.size);
	if (!code)
		code = parse_size(cc, "block-size", UINT32_MAX, &block);
	if (!code)
		code = parse_size(cc, "sector-size", UINT32_MAX, &sector);
	if (code)
		return code;
	if (s.type == VIMG_DIFF || cc_opt(cc, "parent"))
		return cc_fail(cc, RPC_UNSUPPORTED, "--type diff: differencing disks are not supported yet; use fixed or dynamic");
	s.block_size = (uint32_t)block;
	s.sector_size = (uint32_t)sector;
	for (size_t k = 0; k < ARRAY_SIZE(s.guid); k++)
		uuid_generate(s.guid[k]);
	*ret = s;
	return RPC_OK;
}

/* ---- making ------------------------------------------------------------------------------------------------------------------------- */

static void show_progress(const struct cc *cc, const char *path, uint64_t done, uint64_t size)
{
	char bar[31];
	unsigned full = (unsigned)(done * 30 / size);

	if (!cc->progress)
		return;
	memset(bar, '.', 30);
	memset(bar, '#', full);
	bar[30] = 0;
	fprintf(stderr, "\r%s [%s] %3u%%%s", path, bar, (unsigned)(done * 100 / size), done == size ? "\r\033[K" : "");
}

/* Space in steps, so that a signal is noticed soon.  0, -EINTR, -errno. */
static int allocate(struct cc *cc, int fd, const char *path, uint64_t size)
{
	uint64_t at;

	for (at = 0; at < size; at += csv_min(STEP, size - at)) {
		show_progress(cc, path, at, size);
		if (*cc->cancelled)
			return -EINTR;
		while (fallocate(fd, 0, (off_t)at, (off_t)csv_min(STEP, size - at))) {
			if (errno != EINTR)
				return -errno;
			if (*cc->cancelled)
				return -EINTR;
		}
	}
	show_progress(cc, path, size, size);
	return *cc->cancelled ? -EINTR : 0;
}

static int write_at(int fd, const void *buf, size_t n, uint64_t off)
{
	const char *p = buf;

	while (n) {
		ssize_t w = pwrite(fd, p, n, (off_t)off);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return w < 0 ? -errno : -ENOSPC;
		p += w;
		n -= (size_t)w;
		off += (uint64_t)w;
	}
	return 0;
}

static int fill(struct cc *cc, int fd, const char *path, const struct vimg_made *m)
{
	/* Of a dynamic one only what is written has space. */
	int rc = m->image.type == VIMG_FIXED ? allocate(cc, fd, path, m->data_off ? m->file_size : m->image.virtual_size) : 0;

	for (size_t k = 0; k < m->n && !rc; k++)
		rc = write_at(fd, m->patch[k].data, m->patch[k].len, m->patch[k].off);
	if (!rc && ftruncate(fd, (off_t)m->file_size))
		rc = -errno;
	return rc ? rc : fsync(fd) ? -errno : 0;
}

/* The directory `path` is in; fd or -errno. */
static int open_dir(const char *path, const char **ret_base)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX];
	int fd;

	*ret_base = slash ? slash + 1 : path;
	if (!**ret_base || strlen(*ret_base) > NAME_MAX)
		return **ret_base ? -ENAMETOOLONG : -EISDIR;
	if (slash == path)
		slash++;
	if ((size_t)(slash ? slash - path : 1) >= sizeof(dir))
		return -ENAMETOOLONG;
	snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int make(struct cc *cc, const char *path, int dir, const char *base, const struct vimg_made *m)
{
	char tmp[NAME_MAX + 1], uuid[CSV_UUID_TEXT_BYTES];
	int fd, rc;

	snprintf(tmp, sizeof(tmp), ".%.200s.%.8s.new", base, csv_uuid_to_text(m->image.uuid, uuid));
	fd = openat(dir, tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	rc = fill(cc, fd, path, m);
	if (close(fd) && !rc)
		rc = -errno;
	if (!rc && *cc->cancelled)
		rc = -EINTR;
	if (!rc && renameat2(dir, tmp, dir, base, RENAME_NOREPLACE))
		rc = -errno;
	if (!rc)
		return fsync(dir) ? -errno : 0;
	unlinkat(dir, tmp, 0);
	return rc;
}

/*
 * MOUNT/../x is another file system's: who writes so means the volume, and would look for the disk there.  `dir` is where the path leads.
 */
static bool leads_out(const char *path, int dir)
{
	char up[PATH_MAX];
	struct stat there, here;
	struct statfs fs;

	if (fstat(dir, &there))
		return false;
	for (const char *p = strstr(path, ".."); p; p = strstr(p + 2, "..")) {
		if ((p > path && p[-1] != '/') || (p[2] && p[2] != '/'))
			continue;
		snprintf(up, sizeof(up), "%.*s", (int)(p - path), p > path ? path : "");
		if (!stat(*up ? up : ".", &here) && here.st_dev != there.st_dev && !statfs(*up ? up : ".", &fs) && fs.f_type == FUSE_SUPER_MAGIC)
			return true;
	}
	return false;
}

static const char *what_to_do(int rc, const char *path)
{
	switch (rc) {
	case -EEXIST:
		return "; remove it first, or take another name";
	case -ENOSPC:
		return "; nothing is left of it; free space there, or make a smaller or a dynamic one (--type dynamic)";
	case -EROFS:
		return strstr(path, "/.raw/") ? "; .raw shows the disks that are in images: make the image itself, without .raw" : "";
	default:
		return "";
	}
}

static enum rpc_code create(struct cc *cc, const struct vimg_made *m)
{
	const char *path = cc->arg[0], *base;
	struct stat st;
	int dir = open_dir(path, &base), rc;

	if (dir < 0)
		return cc_fail(cc, rpc_code_of(dir), "%s: %s", path, strerror(-dir));
	if (leads_out(path, dir)) {
		close(dir);
		return cc_fail(cc, RPC_REFUSED, "%s: its \"..\" leads out of the volume; name a place on the volume, or, where the disk is not to be on "
			       "it, that place without \"..\"", path);
	}
	if (!fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW))
		rc = -EEXIST;
	else
		rc = cc->dry_run ? 0 : make(cc, path, dir, base, m);
	close(dir);
	if (rc == -EINTR)
		return cc_fail(cc, *cc->cancelled == SIGINT ? RPC_INTERRUPTED : RPC_CANCELLED, "%s: cancelled; nothing is left of it", path);
	if (rc)
		return cc_fail(cc, rpc_code_of(rc), "%s: %s%s", path, strerror(-rc), what_to_do(rc, path));
	json_object_set_new(cc->reply, "dry_run", json_boolean(cc->dry_run));
	rpc_reply_add_take(cc->reply, cc_vhd_item(path, &m->image, m->file_size));
	return RPC_OK;
}

enum rpc_code cc_vhd_create(struct cc *cc)
{
	struct csv_err err = CSV_ERR_INIT;
	struct vimg_spec spec;
	struct vimg_made m;
	enum rpc_code code = parse(cc, &spec);
	int rc;

	if (code)
		return code;
	rc = vimg_make(&spec, &m, &err);
	if (rc)
		return cc_fail(cc, rc == -EINVAL ? RPC_USAGE : rpc_code_of(rc), "%s%s", rc == -EINVAL ? "--" : "", err.text);
	code = create(cc, &m);
	vimg_made_done(&m);
	return code;
}
