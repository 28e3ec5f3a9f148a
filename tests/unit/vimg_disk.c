/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vimg_disk.c - see vimg_disk.h.
 */
#include "tests/unit/vimg_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (256u << 10)

/* ---- the file ------------------------------------------------------------------------------------------------------------------- */

int vdisk_pread(int fd, void *buf, size_t len, uint64_t off)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)off);

		if (n < 0)
			return -errno;
		if (!n) {
			memset(p, 0, len);
			return 0;
		}
		p += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

int vdisk_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n <= 0)
			return n ? -errno : -ENOSPC;
		p += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

uint64_t vdisk_fd_size(int fd)
{
	struct stat st;

	csv_assertf(!fstat(fd, &st), "fstat: %s", strerror(errno));
	return (uint64_t)st.st_size;
}

/* NULL: of a disk that is being made. */
static int put(struct vdisk *d, int fd, const void *buf, size_t len, uint64_t off)
{
	int rc;

	if (d && d->writes_left) {
		if (!*d->writes_left)
			return -EIO;
		if (!--*d->writes_left && len > VIMG_SECTOR)	/* torn, at a sector */
			len = len / 2 / VIMG_SECTOR * VIMG_SECTOR;
	}
	rc = vdisk_pwrite(fd, buf, len, off);
	return rc || !d || !d->writes_left || *d->writes_left ? rc : -EIO;
}

static int grow(struct vdisk *d, uint64_t size)
{
	if (d->writes_left && (!*d->writes_left || !--*d->writes_left))
		return -EIO;
	return ftruncate(d->fd, (off_t)size) ? -errno : 0;
}

static int write_patch(struct vdisk *d, int fd, const struct vimg_patch *p)
{
	static const uint8_t zero[PIECE];
	int rc = 0;

	if (p->data)
		return put(d, fd, p->data, p->len, p->off);
	for (uint64_t at = 0; at < p->len && !rc; at += PIECE)
		rc = put(d, fd, zero, csv_min((uint64_t)PIECE, p->len - at), p->off + at);
	return rc;
}

int vdisk_make(int fd, const struct vimg_spec *spec, struct csv_err *err)
{
	struct vimg_made m;
	int rc = vimg_make(spec, &m, err);

	if (rc)
		return rc;
	for (size_t k = 0; k < m.n && !rc; k++)
		rc = write_patch(NULL, fd, &m.patch[k]);
	if (!rc && ftruncate(fd, (off_t)m.file_size))
		rc = -errno;
	vimg_made_done(&m);
	return rc;
}

/* ---- opening ----------------------------------------------------------------------------------------------------------------------- */

static int look(struct vdisk *d, struct csv_err *err)
{
	struct vimg_read rd;
	int rc;

	d->file_size = vdisk_fd_size(d->fd);
	d->o = vimg_open_new(d->file_size);
	if (!d->o)
		return -ENOMEM;
	while ((rc = vimg_open_next(d->o, &rd, err)) > 0) {
		csv_assertf(rd.off + rd.len <= d->file_size, "asked for %u bytes at %llu of %llu", rd.len, (unsigned long long)rd.off,
			    (unsigned long long)d->file_size);
		rc = vdisk_pread(d->fd, rd.buf, rd.len, rd.off);
		if (rc)
			return rc;
	}
	if (rc)
		return rc;
	d->v = *vimg_open_image(d->o);
	d->replay = vimg_open_replay(d->o);
	return 0;
}

static int write_header(struct vdisk *d, const uint8_t *data_guid, struct csv_err *err)
{
	static const uint8_t file_guid[16] = { 0x77, 1, 2, 3 };
	struct vimg_write w;
	int rc = vimg_header_new(&d->v, file_guid, data_guid, &w, err);

	if (!rc && w.len)
		rc = put(d, d->fd, w.data, w.len, w.off);
	return rc ? rc : fdatasync(d->fd) ? -errno : 0;
}

static int replay(struct vdisk *d, struct csv_err *err)
{
	int rc = 0;

	for (size_t k = 0; k < d->replay->n && !rc; k++)
		rc = write_patch(d, d->fd, &d->replay->patch[k]);
	if (!rc && d->file_size < d->replay->file_size)
		rc = grow(d, d->replay->file_size);
	if (!rc)
		rc = fdatasync(d->fd) ? -errno : write_header(d, NULL, err);
	if (rc)
		return rc;
	vimg_open_free(d->o);
	d->o = NULL;
	d->replayed = true;
	rc = look(d, err);
	return rc ? rc : d->replay ? -EINVAL : 0;
}

static int scan(struct vdisk *d, struct csv_err *err)
{
	static uint8_t buf[PIECE];
	uint64_t at;
	int rc = 0;

	d->scan = vimg_scan_new(&d->v, d->replay ? csv_max(d->replay->file_size, d->file_size) : d->file_size);
	if (!d->scan)
		return -ENOMEM;
	for (at = 0; at < d->v.bat_bytes && !rc; at += sizeof(buf)) {
		size_t n = csv_min((uint64_t)sizeof(buf), d->v.bat_bytes - at);

		rc = vdisk_pread(d->fd, buf, n, d->v.bat_off + at);
		vimg_replay_overlay(d->replay, d->v.bat_off + at, buf, n);
		if (!rc)
			rc = vimg_scan_feed(d->scan, buf, n, err);
	}
	return rc ? rc : vimg_scan_end(d->scan, &d->usage, err);
}

int vdisk_open_until(int fd, bool writing, unsigned *writes_left, struct vdisk *ret, struct csv_err *err)
{
	static const uint8_t data_guid[16] = { 0x88, 1, 2, 3 };
	struct vdisk *d = ret;
	int rc;

	*d = (struct vdisk){ .fd = fd, .writing = writing, .writes_left = writes_left };
	rc = look(d, err);
	if (!rc)
		rc = writing ? vimg_may_write(&d->v, err) : vimg_may_read(&d->v, err);
	if (!rc && d->v.has_bat)
		rc = scan(d, err);
	if (!rc && writing && d->replay) {
		rc = replay(d, err);
		vimg_scan_free(d->scan);
		d->scan = NULL;
		if (!rc)
			rc = scan(d, err);
	}
	if (!rc && writing)
		rc = write_header(d, data_guid, err);
	if (rc)
		vdisk_close(d);
	return rc;
}

int vdisk_open(int fd, bool writing, struct vdisk *ret, struct csv_err *err)
{
	return vdisk_open_until(fd, writing, NULL, ret, err);
}

void vdisk_close(struct vdisk *d)
{
	vimg_scan_free(d->scan);
	vimg_open_free(d->o);
	d->scan = NULL;
	d->o = NULL;
}

/* ---- blocks ---------------------------------------------------------------------------------------------------------------------------- */

int vdisk_entry(struct vdisk *d, uint64_t block, struct vimg_entry *ret, struct csv_err *err)
{
	uint64_t at = vimg_entry_off(&d->v, block);
	uint8_t raw[8];
	int rc = vdisk_pread(d->fd, raw, d->v.entry_bytes, at);

	vimg_replay_overlay(d->replay, at, raw, d->v.entry_bytes);
	return rc ? rc : vimg_entry_decode(&d->v, d->replay ? csv_max(d->replay->file_size, d->file_size) : d->file_size, block, raw, ret, err);
}

static int write_entry(struct vdisk *d, uint64_t block, const struct vimg_entry *e)
{
	uint64_t at = vimg_entry_off(&d->v, block), sector = vimg_sector_of(at);
	uint8_t buf[VIMG_SECTOR];
	int rc = vdisk_pread(d->fd, buf, sizeof(buf), sector);

	vimg_entry_encode(&d->v, block, e, buf + (at - sector));
	if (!rc)
		rc = put(d, d->fd, buf, sizeof(buf), sector);
	return rc ? rc : fdatasync(d->fd) ? -errno : 0;
}

/* Sectors whose bit is clear are zero: from `off` of the block on. */
static int hide_clear(struct vdisk *d, const struct vimg_entry *e, uint64_t off, uint8_t *buf, size_t len)
{
	uint8_t *map = malloc(d->v.bitmap_bytes);
	uint32_t s = (uint32_t)(off / VIMG_SECTOR), n;
	int rc = map ? vdisk_pread(d->fd, map, d->v.bitmap_bytes, e->bitmap_off) : -ENOMEM;

	while (!rc && vimg_bitmap_next_clear(&d->v, map, s, &s, &n)) {
		uint64_t from = csv_max((uint64_t)s * VIMG_SECTOR, off), end = csv_min(((uint64_t)s + n) * VIMG_SECTOR, off + len);

		if (from < end)
			memset(buf + (from - off), 0, end - from);
		s += n;
	}
	free(map);
	return rc;
}

static int fill_bitmap(struct vdisk *d, const struct vimg_entry *e)
{
	static const uint8_t zero[VIMG_SECTOR];
	uint8_t *map = d->v.bitmap_bytes ? malloc(d->v.bitmap_bytes) : NULL;
	uint32_t s = 0, n;
	int rc;

	if (!map)
		return 0;
	rc = vdisk_pread(d->fd, map, d->v.bitmap_bytes, e->bitmap_off);
	if (!rc && !vimg_bitmap_is_full(&d->v, map)) {
		while (!rc && vimg_bitmap_next_clear(&d->v, map, s, &s, &n))
			for (; n && !rc; n--, s++)
				rc = put(d, d->fd, zero, sizeof(zero), e->data_off + (uint64_t)s * VIMG_SECTOR);
		if (!rc)
			rc = fdatasync(d->fd) ? -errno : 0;
		vimg_bitmap_full(&d->v, map);
		if (!rc)
			rc = put(d, d->fd, map, d->v.bitmap_bytes, e->bitmap_off);
	}
	free(map);
	return rc;
}

static int add_block(struct vdisk *d, uint64_t block, struct vimg_entry *ret, struct csv_err *err)
{
	struct vimg_patch zero = { .len = vimg_block_len(&d->v, block) };
	struct vimg_place at;
	struct vimg_write w;
	uint8_t *map;
	int rc = 0;

	if (!vimg_scan_place(d->scan, &at.off)) {
		rc = vimg_append(&d->v, d->file_size, 1, &at, err);
		if (rc)
			return rc;
		vimg_tail(&d->v, at.file_size, &w);
		if (w.len)
			rc = put(d, d->fd, w.data, w.len, w.off);
		if (!rc)
			rc = grow(d, at.file_size);
		if (!rc)
			rc = vimg_scan_grown(d->scan, at.file_size);
		d->file_size = at.file_size;
	}
	vimg_record_make(&d->v, at.off, ret);
	map = malloc(d->v.bitmap_bytes + 1);
	if (!map)
		return -ENOMEM;
	vimg_bitmap_full(&d->v, map);
	if (!rc && d->v.bitmap_bytes)
		rc = put(d, d->fd, map, d->v.bitmap_bytes, ret->bitmap_off);
	free(map);
	zero.off = ret->data_off;
	if (!rc)
		rc = write_patch(d, d->fd, &zero);
	if (!rc && fdatasync(d->fd))
		rc = -errno;
	return rc ? rc : write_entry(d, block, ret);
}

static int one(struct vdisk *d, uint64_t off, uint8_t *rbuf, const uint8_t *wbuf, size_t len, struct csv_err *err)
{
	uint64_t block = off / d->v.block_size, in = off % d->v.block_size;
	struct vimg_entry e;
	int rc = vdisk_entry(d, block, &e, err);

	if (rc)
		return rc;
	if (wbuf) {
		rc = e.state == VIMG_PRESENT ? fill_bitmap(d, &e) : add_block(d, block, &e, err);
		return rc ? rc : put(d, d->fd, wbuf, len, e.data_off + in);
	}
	if (e.state != VIMG_PRESENT) {
		memset(rbuf, 0, len);
		return 0;
	}
	rc = vdisk_pread(d->fd, rbuf, len, e.data_off + in);
	return rc || !d->v.bitmap_bytes ? rc : hide_clear(d, &e, in, rbuf, len);
}

static int io(struct vdisk *d, uint64_t off, uint8_t *rbuf, const uint8_t *wbuf, size_t len, struct csv_err *err)
{
	int rc = 0;

	if (off > d->v.virtual_size || len > d->v.virtual_size - off)
		return -ERANGE;
	if (!d->v.has_bat)
		return wbuf ? put(d, d->fd, wbuf, len, off) : vdisk_pread(d->fd, rbuf, len, off);
	while (len && !rc) {
		size_t n = csv_min((uint64_t)len, d->v.block_size - off % d->v.block_size);

		rc = one(d, off, rbuf, wbuf, n, err);
		off += n;
		len -= n;
		rbuf = rbuf ? rbuf + n : NULL;
		wbuf = wbuf ? wbuf + n : NULL;
	}
	return rc;
}

int vdisk_read(struct vdisk *d, uint64_t off, void *buf, size_t len, struct csv_err *err)
{
	return io(d, off, buf, NULL, len, err);
}

int vdisk_write(struct vdisk *d, uint64_t off, const void *buf, size_t len, struct csv_err *err)
{
	return d->writing ? io(d, off, NULL, buf, len, err) : -EROFS;
}

int vdisk_free_block(struct vdisk *d, uint64_t block, struct csv_err *err)
{
	struct vimg_entry e, none = { .state = VIMG_ABSENT };
	int rc = vdisk_entry(d, block, &e, err);

	if (rc || e.state != VIMG_PRESENT)
		return rc;
	rc = write_entry(d, block, &none);
	if (!rc && fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(e.data_off - d->v.bitmap_bytes),
			     (off_t)vimg_block_len(&d->v, block) + d->v.bitmap_bytes))
		rc = -errno;
	if (!rc)
		vimg_scan_free_place(d->scan, d->v.bitmap_bytes ? e.bitmap_off : e.data_off);
	return rc;
}
