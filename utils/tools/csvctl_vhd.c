/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_vhd.c - vhd create, info, check: on files of any file system.
 *
 * A new disk is made under a name of its own (.NAME.XXXXXX.new beside it), and gets its name when it is complete and durable:
 * whatever interrupts the command, a half-made disk is never found under the name asked for.
 */
#include "utils/tools/csvctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "csvfs/vhd/vhd_format.h"
#include "utils/base/text.h"

#define STEP (64ull << 20)

/* ---- looking -------------------------------------------------------------------------------------------------------------------- */

static int read_at(int fd, void *buf, size_t n, uint64_t off)
{
	char *p = buf;

	while (n) {
		ssize_t r = pread(fd, p, n, (off_t)off);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EIO;
		p += r;
		n -= (size_t)r;
		off += (uint64_t)r;
	}
	return 0;
}

/* 0, or -errno with err: could not be read. */
static int probe(const char *path, struct vhd_probe *ret, struct csv_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
	struct stat st;
	uint64_t at;

	memset(ret, 0, sizeof(*ret));
	if (fd < 0)
		return csv_err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st))
		rc = -errno;
	else if (!S_ISREG(st.st_mode)) {
		close(fd);
		return csv_err_set(err, -EMEDIUMTYPE, "%s: not a regular file", path);
	}
	if (!rc) {
		size_t n;

		ret->file_size = (uint64_t)st.st_size;
		n = csv_min(ret->file_size, (uint64_t)sizeof(ret->head));
		rc = read_at(fd, ret->head, n, 0);
		if (!rc)
			rc = read_at(fd, ret->tail + sizeof(ret->tail) - n, n, ret->file_size - n);
	}
	if (!rc && (at = vhd_probe_dyn_offset(ret))) {
		rc = read_at(fd, ret->dyn, sizeof(ret->dyn), at);
		ret->has_dyn = !rc;
	}
	close(fd);
	return rc ? csv_err_set(err, rc, "%s: cannot be read: %s", path, strerror(-rc)) : 0;
}

static json_t *item_of(const char *path, const struct vhd_info *i, uint64_t file_size)
{
	char uuid[CSV_UUID_TEXT_BYTES];
	json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:I, s:s}", "path", path, "format", "vhd", "type", vhd_type_name(i->type),
			      "virtual_size_bytes", (json_int_t)i->virtual_size, "file_size_bytes", (json_int_t)file_size, "creator",
			      i->creator_app, "created_s", (json_int_t)i->created_s, "uuid", csv_uuid_to_text(i->uuid, uuid));

	if (!o)
		return NULL;
	json_object_set_new(o, "size_from_geometry", json_boolean(i->size_from_chs));
	json_object_set_new(o, "geometry", json_pack("{s:i, s:i, s:i}", "cylinders", (int)i->geo.cylinders, "heads", (int)i->geo.heads,
						     "sectors", (int)i->geo.sectors));
	json_object_set_new(o, "saved_state", json_boolean(i->saved_state));
	if (i->type != VHD_FIXED)
		json_object_set_new(o, "block_size_bytes", json_integer(i->block_size));
	return o;
}

static enum rpc_code code_of(int rc)
{
	return rc == -CSV_E_UNSUPPORTED ? RPC_UNSUPPORTED : rc == -CSV_E_CORRUPT || rc == -EMEDIUMTYPE ? RPC_FAILED : rpc_code_of(rc);
}

enum rpc_code cc_vhd_info(struct cc *cc)
{
	enum rpc_code code = RPC_OK;

	for (unsigned k = 0; k < cc->n_args; k++) {
		struct csv_err err = CSV_ERR_INIT;
		struct vhd_probe p;
		struct vhd_info i;
		int rc = probe(cc->arg[k], &p, &err);

		if (!rc) {
			rc = vhd_identify(&p, &i, &err);
			if (rc)
				csv_err_prefix(&err, "%s", cc->arg[k]);
		}
		if (rc)
			code = cc_fail(cc, code_of(rc), "%s", err.text);
		else
			rpc_reply_add_take(cc->reply, item_of(cc->arg[k], &i, p.file_size));
	}
	return code;
}

static enum rpc_code check_one(struct cc *cc, const char *path)
{
	struct csv_err err = CSV_ERR_INIT;
	struct vhd_probe p;
	struct vhd_info i;
	const char *type = "", *result = "ok";
	int rc = probe(path, &p, &err);

	if (rc && rc != -EMEDIUMTYPE)
		return cc_fail(cc, code_of(rc), "%s", err.text);
	if (!rc)
		rc = vhd_identify(&p, &i, &err);
	if (!rc) {
		type = vhd_type_name(i.type);
		rc = vhd_check_time(&i, (int64_t)time(NULL), &err);
	}
	if (!rc)
		rc = vhd_may_open(&i, false, &err);
	if (rc)
		result = rc == -CSV_E_UNSUPPORTED ? "unsupported" : rc == -EMEDIUMTYPE ? "not a VHD" : "damaged";
	rpc_reply_add_take(cc->reply, json_pack("{s:s, s:s, s:s, s:s}", "path", path, "result", result, "type", type, "finding",
						rc ? err.text : ""));
	return rc ? cc_fail(cc, code_of(rc), "%s: %s", path, err.text) : RPC_OK;
}

enum rpc_code cc_vhd_check(struct cc *cc)
{
	enum rpc_code code = RPC_OK, one;

	for (unsigned k = 0; k < cc->n_args; k++) {
		one = check_one(cc, cc->arg[k]);
		if (one && (code == RPC_OK || one == RPC_FAILED))
			code = one;
	}
	return code;
}

/* ---- making ---------------------------------------------------------------------------------------------------------------------- */

static enum rpc_code parse_create(struct cc *cc, uint64_t *ret_size)
{
	const char *format = cc_opt(cc, "format"), *type = cc_opt(cc, "type"), *size = cc_opt(cc, "size");
	int rc;

	if (format && strcmp(format, "vhd") && strcmp(format, "vhdx"))
		return cc_fail(cc, RPC_USAGE, "--format %s: must be vhd or vhdx", format);
	if (type && strcmp(type, "fixed") && strcmp(type, "dynamic") && strcmp(type, "diff"))
		return cc_fail(cc, RPC_USAGE, "--type %s: must be fixed, dynamic or diff", type);
	rc = csv_size_parse(size, ret_size);
	if (rc)
		return cc_fail(cc, RPC_USAGE, "--size %s: must be a number of bytes, or one with K, M, G or T", size);
	if (format && !strcmp(format, "vhdx"))
		return cc_fail(cc, RPC_UNSUPPORTED, "--format vhdx: not supported yet; use vhd");
	if ((type && strcmp(type, "fixed")) || cc_opt(cc, "parent"))
		return cc_fail(cc, RPC_UNSUPPORTED, "--type %s: not supported yet; use fixed", type ? type : "diff (--parent)");
	return RPC_OK;
}

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

static int write_footer(int fd, const struct vhd_info *i)
{
	char footer[VHD_FOOTER_BYTES];
	ssize_t n;

	vhd_footer_encode(i, footer);
	n = pwrite(fd, footer, sizeof(footer), (off_t)i->virtual_size);
	if (n != (ssize_t)sizeof(footer))
		return n < 0 ? -errno : -ENOSPC;
	return fsync(fd) ? -errno : 0;
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

static int make(struct cc *cc, const char *path, int dir, const char *base, const struct vhd_info *i)
{
	char tmp[NAME_MAX + 1], uuid[CSV_UUID_TEXT_BYTES];
	int fd, rc;

	snprintf(tmp, sizeof(tmp), ".%.200s.%.8s.new", base, csv_uuid_to_text(i->uuid, uuid));
	fd = openat(dir, tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	rc = allocate(cc, fd, path, i->virtual_size);
	if (!rc)
		rc = write_footer(fd, i);
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

enum rpc_code cc_vhd_create(struct cc *cc)
{
	const char *path = cc->arg[0], *base;
	struct csv_err err = CSV_ERR_INIT;
	struct vhd_info i;
	struct stat st;
	uint8_t uuid[16];
	uint64_t size;
	enum rpc_code code = parse_create(cc, &size);
	int dir, rc;

	if (code)
		return code;
	uuid_generate(uuid);
	if (vhd_fixed_new(size, uuid, (int64_t)time(NULL), &i, &err))
		return cc_fail(cc, RPC_USAGE, "--%s", err.text);
	dir = open_dir(path, &base);
	if (dir < 0)
		return cc_fail(cc, rpc_code_of(dir), "%s: %s", path, strerror(-dir));
	if (!fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW))
		rc = -EEXIST;
	else
		rc = cc->dry_run ? 0 : make(cc, path, dir, base, &i);
	close(dir);
	if (rc == -EINTR) {
		code = *cc->cancelled == SIGINT ? RPC_INTERRUPTED : RPC_CANCELLED;
		return cc_fail(cc, code, "%s: cancelled; nothing is left of it", path);
	}
	if (rc)
		return cc_fail(cc, rpc_code_of(rc), "%s: %s%s", path, strerror(-rc),
			       rc == -EEXIST ? "; remove it first, or take another name" : rc == -ENOSPC ? "; nothing is left of it" : "");
	json_object_set_new(cc->reply, "dry_run", json_boolean(cc->dry_run));
	rpc_reply_add_take(cc->reply, item_of(path, &i, size + VHD_FOOTER_BYTES));
	return RPC_OK;
}
