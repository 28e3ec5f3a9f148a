/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_vhd.c - vhd info, check: on files of any file system.  Nothing is written: a log that is to be replayed is read through.
 */
#include "utils/tools/csvctl_vhd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "utils/base/text.h"

#define PIECE (256u << 10)

/* ---- looking -------------------------------------------------------------------------------------------------------------------- */

struct look {
	int fd;
	uint64_t file_size;
	struct vimg_open *o;
	const struct vimg *v;			/* both: the open image's */
	const struct vimg_replay *replay;
};

/* What is behind the end of the file is zero: the log may speak of it. */
static int read_at(int fd, void *buf, size_t n, uint64_t off)
{
	char *p = buf;

	while (n) {
		ssize_t r = pread(fd, p, n, (off_t)off);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (!r) {
			memset(p, 0, n);
			return 0;
		}
		p += r;
		n -= (size_t)r;
		off += (uint64_t)r;
	}
	return 0;
}

static int look_read(const struct look *l, void *buf, size_t n, uint64_t off)
{
	int rc = read_at(l->fd, buf, n, off);

	vimg_replay_overlay(l->replay, off, buf, n);
	return rc;
}

static void look_done(struct look *l)
{
	vimg_open_free(l->o);
	if (l->fd >= 0)
		close(l->fd);
}

/* Is it an image?  Whatever comes out, look_done() is called.  err has the path at its front only if the file could not be read. */
static int look_open(const char *path, struct look *ret, struct csv_err *err)
{
	struct look *l = ret;
	struct vimg_read rd;
	struct stat st;
	int rc, bad = 0;

	*l = (struct look){ .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) };
	if (l->fd < 0 || fstat(l->fd, &st))
		return csv_err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return csv_err_set(err, -EMEDIUMTYPE, "not a regular file");
	l->file_size = (uint64_t)st.st_size;
	l->o = vimg_open_new(l->file_size);
	if (!l->o)
		return csv_err_set(err, -ENOMEM, "%s: out of memory", path);
	while ((rc = vimg_open_next(l->o, &rd, err)) > 0) {
		bad = read_at(l->fd, rd.buf, rd.len, rd.off);
		if (bad)
			return csv_err_set(err, bad, "%s: cannot be read: %s", path, strerror(-bad));
	}
	if (rc)
		return rc;
	l->v = vimg_open_image(l->o);
	l->replay = vimg_open_replay(l->o);
	return 0;
}

/* VHDX: as Windows shows it. */
static const char *uuid_text(const struct vimg *v, char ret[static CSV_UUID_TEXT_BYTES])
{
	uint8_t u[16];

	memcpy(u, v->uuid, 16);
	if (v->format == VIMG_VHDX) {
		const uint8_t swapped[8] = { u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6] };

		memcpy(u, swapped, 8);
	}
	return csv_uuid_to_text(u, ret);
}

json_t *cc_vhd_item(const char *path, const struct vimg *v, uint64_t file_size)
{
	char uuid[CSV_UUID_TEXT_BYTES];
	bool vhd = v->format == VIMG_VHD;
	json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:o, s:s}", "path", path, "format", vimg_format_name(v->format), "type",
			      vimg_type_name(v->type), "virtual_size_bytes", (json_int_t)v->virtual_size, "file_size_bytes",
			      (json_int_t)file_size, "creator", vhd ? v->vhd.creator_app : "", "created_s",
			      vhd ? json_integer((json_int_t)v->vhd.created_s) : json_null(), "uuid", uuid_text(v, uuid));

	if (!o)
		return NULL;
	if (vhd) {
		json_object_set_new(o, "size_from_geometry", json_boolean(v->vhd.size_from_chs));
		json_object_set_new(o, "geometry", json_pack("{s:i, s:i, s:i}", "cylinders", (int)v->vhd.geo.cylinders, "heads",
							     (int)v->vhd.geo.heads, "sectors", (int)v->vhd.geo.sectors));
		json_object_set_new(o, "saved_state", json_boolean(v->vhd.saved_state));
	} else {
		json_object_set_new(o, "sector_size_bytes", json_integer(v->sector_size));
		json_object_set_new(o, "physical_sector_size_bytes", json_integer(v->physical_sector_size));
		json_object_set_new(o, "log_dirty", json_boolean(v->log_dirty));
	}
	if (v->has_bat)
		json_object_set_new(o, "block_size_bytes", json_integer(v->block_size));
	return o;
}

static enum rpc_code code_of(int rc)
{
	return rc == -CSV_E_UNSUPPORTED ? RPC_UNSUPPORTED : rc == -CSV_E_CORRUPT || rc == -EMEDIUMTYPE ? RPC_FAILED : rpc_code_of(rc);
}

/* The file could not be read: the path is in the message. */
static bool is_io(int rc)
{
	return rc && rc != -EMEDIUMTYPE && rc != -CSV_E_CORRUPT && rc != -CSV_E_UNSUPPORTED;
}

enum rpc_code cc_vhd_info(struct cc *cc)
{
	enum rpc_code code = RPC_OK;

	for (unsigned k = 0; k < cc->n_args; k++) {
		struct csv_err err = CSV_ERR_INIT;
		struct look l;
		int rc = look_open(cc->arg[k], &l, &err);

		if (rc && !is_io(rc))
			csv_err_prefix(&err, "%s", cc->arg[k]);
		if (rc)
			code = cc_fail(cc, code_of(rc), "%s", err.text);
		else
			rpc_reply_add_take(cc->reply, cc_vhd_item(cc->arg[k], l.v, l.file_size));
		look_done(&l);
	}
	return code;
}

/* ---- checking --------------------------------------------------------------------------------------------------------------------- */

/* As it will be when the log is replayed. */
static uint64_t size_then(const struct look *l)
{
	return l->replay ? csv_max(l->replay->file_size, l->file_size) : l->file_size;
}

/* A sector whose bit is 0 reads as zeroes here, and as what lies there in QEMU: it must be zeroes. */
static int check_hidden(const struct look *l, uint64_t block, const struct vimg_entry *e, const uint8_t *bitmap, uint8_t *buf, struct csv_err *err)
{
	uint32_t all = l->v->block_size / VIMG_SECTOR, s = 0, n;
	uint64_t len = vimg_block_len(l->v, block);

	for (; vimg_bitmap_next_clear(l->v, bitmap, s, &s, &n); s += n) {
		n = csv_min(n, PIECE / VIMG_SECTOR);
		for (uint64_t at = (uint64_t)s * VIMG_SECTOR, end = csv_min(at + (uint64_t)n * VIMG_SECTOR, len); at < end; at += PIECE) {
			size_t part = csv_min((uint64_t)PIECE, end - at);
			int rc = read_at(l->fd, buf, part, e->data_off + at);

			if (rc)
				return csv_err_set(err, rc, "cannot be read: %s", strerror(-rc));
			for (size_t k = 0; k < part; k++)
				if (buf[k])
					return csv_err_set(err, -CSV_E_CORRUPT, "bitmap of block %" PRIu64 " at %" PRIu64 ": bit %" PRIu64 " (of %" PRIu32
							   ") is 0, must be 1 as its sector at %" PRIu64 " has data", block, e->bitmap_off,
							   (uint64_t)(at + k) / VIMG_SECTOR, all, e->data_off + at + k);
		}
	}
	return 0;
}

static int check_bitmaps(struct cc *cc, const struct look *l, uint64_t first, uint64_t n, const uint8_t *raw, uint8_t *bitmap, uint8_t *buf,
			 struct csv_err *err)
{
	int rc = 0;

	for (uint64_t k = 0; k < n && !rc; k++) {
		struct vimg_entry e;

		rc = *cc->cancelled ? csv_err_set(err, -EINTR, "cancelled") :
				      vimg_entry_decode(l->v, l->file_size, first + k, raw + k * l->v->entry_bytes, &e, err);
		if (rc || e.state != VIMG_PRESENT)
			continue;
		rc = read_at(l->fd, bitmap, l->v->bitmap_bytes, e.bitmap_off);
		if (rc)
			return csv_err_set(err, rc, "cannot be read: %s", strerror(-rc));
		rc = check_hidden(l, first + k, &e, bitmap, buf, err);
	}
	return rc;
}

/* All of the BAT, and (VHD) all bitmaps. */
static int check_blocks(struct cc *cc, const struct look *l, struct vimg_usage *ret, struct csv_err *err)
{
	const struct vimg *v = l->v;
	struct vimg_scan *s = vimg_scan_new(v, size_then(l));
	uint8_t *bat = malloc(PIECE), *buf = malloc(PIECE), *bitmap = malloc(v->bitmap_bytes + 1);
	int rc = s && bat && buf && bitmap ? 0 : csv_err_set(err, -ENOMEM, "out of memory");

	for (uint64_t at = 0; at < v->bat_bytes && !rc; at += PIECE) {
		size_t n = csv_min((uint64_t)PIECE, v->bat_bytes - at);

		rc = look_read(l, bat, n, v->bat_off + at);
		if (rc)
			csv_err_set(err, rc, "cannot be read: %s", strerror(-rc));
		else if (*cc->cancelled)
			rc = csv_err_set(err, -EINTR, "cancelled");
		else
			rc = vimg_scan_feed(s, bat, n, err);
		if (!rc && v->bitmap_bytes)
			rc = check_bitmaps(cc, l, at / v->entry_bytes, n / v->entry_bytes, bat, bitmap, buf, err);
	}
	if (!rc)
		rc = vimg_scan_end(s, ret, err);
	vimg_scan_free(s);
	free(bat);
	free(buf);
	free(bitmap);
	return rc;
}

/* What is no damage, but worth to be known. */
static void remarks(const struct look *l, const struct vimg_usage *u, char *ret, size_t size)
{
	const struct vimg *v = l->v;
	char text[CSV_SIZE_TEXT_BYTES];
	size_t n = 0;

	ret[0] = 0;
	if (v->log_dirty)
		n += (size_t)snprintf(ret, size, "log: %zu writes are to be replayed when it is next opened for writing", l->replay->n);
	if (v->format == VIMG_VHDX && v->vhdx_other_bad && n < size)
		n += (size_t)snprintf(ret + n, size - n, "%sheader %u is not valid, as after a crash; the other one rules", n ? "; " : "", !v->vhdx_current);
	if (v->format == VIMG_VHDX && v->vhdx_region_bad && n < size)
		n += (size_t)snprintf(ret + n, size - n, "%sone of the two region tables is not valid, or differs; the other one rules", n ? "; " : "");
	if (u->free_blocks && n < size)
		snprintf(ret + n, size - n, "%s%s that no block uses are reclaimable: room for %" PRIu64 " blocks", n ? "; " : "",
			 csv_size_to_text(u->free_bytes, text), u->free_blocks);
}

static int check_image(struct cc *cc, const struct look *l, struct vimg_usage *ret, struct csv_err *err)
{
	int rc = l->v->format == VIMG_VHD ? vhd_check_time(&l->v->vhd, (int64_t)time(NULL), err) : 0;

	if (!rc)
		rc = vimg_may_read(l->v, err);
	return rc || !l->v->has_bat ? rc : check_blocks(cc, l, ret, err);
}

static enum rpc_code check_one(struct cc *cc, const char *path)
{
	struct csv_err err = CSV_ERR_INIT;
	struct vimg_usage u = { 0 };
	const char *type = "", *result = "ok";
	char said[512] = "";
	enum rpc_code code = RPC_OK;
	struct look l;
	json_t *item;
	int rc = look_open(path, &l, &err);

	if (is_io(rc)) {
		look_done(&l);
		return cc_fail(cc, code_of(rc), "%s", err.text);
	}
	if (!rc) {
		type = vimg_type_name(l.v->type);
		rc = check_image(cc, &l, &u, &err);
	}
	if (rc)
		result = rc == -CSV_E_UNSUPPORTED ? "unsupported" : rc == -EMEDIUMTYPE ? "not an image" : rc == -CSV_E_CORRUPT ? "damaged" : "unknown";
	else
		remarks(&l, &u, said, sizeof(said));
	item = json_pack("{s:s, s:s, s:s, s:s}", "path", path, "result", result, "type", type, "finding", rc ? err.text : said);
	if (item && !rc && l.v->has_bat) {
		json_object_set_new(item, "blocks", json_integer((json_int_t)l.v->blocks));
		json_object_set_new(item, "present_blocks", json_integer((json_int_t)u.present));
		json_object_set_new(item, "reclaimable_bytes", json_integer((json_int_t)u.free_bytes));
	}
	rpc_reply_add_take(cc->reply, item);
	look_done(&l);
	if (rc == -EINTR)
		code = *cc->cancelled == SIGINT ? RPC_INTERRUPTED : RPC_CANCELLED;
	else if (rc)
		code = code_of(rc);
	return code ? cc_fail(cc, code, "%s: %s", path, err.text) : RPC_OK;
}

enum rpc_code cc_vhd_check(struct cc *cc)
{
	enum rpc_code code = RPC_OK, one;

	for (unsigned k = 0; k < cc->n_args && !*cc->cancelled; k++) {
		one = check_one(cc, cc->arg[k]);
		if (one && (code == RPC_OK || one == RPC_FAILED))
			code = one;
	}
	return code;
}
