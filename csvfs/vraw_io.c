/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vraw_io.c - reading and writing the disk inside an image: the slow path of the raw view (vraw.h).
 *
 * A block that is present is bytes of the file: csvfs_read() and csvfs_write() do the rest under the file's lock, in place where that can be.
 * A block that is absent reads as zeros, said under vneg; writing there adds it (vraw_alloc.c).  In a dynamic VHD's block whose bitmap is
 * not full, clear bits hide what lies there: reading looks at them; the first write completes the block, once, under vmap EX, so that what
 * they hide becomes zeros, and from then on it is used in place.
 */
#include "csvfs/vraw.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ZERO_BYTES (1u << 20)
#define YIELD_BLOCKS 4096u

/* ---- bytes of the file --------------------------------------------------------------------------------------------------------- */

int vraw_file_read(struct vraw *v, uint64_t off, void *buf, uint64_t len)
{
	ssize_t n = csvfs_read(v->fs, v->ip->ino, 0, off, buf, len);

	if (n >= 0 && (uint64_t)n < len) {
		fs_log(v->fs, LOG_L_ERR, "%s: ends at %llu, where bytes up to %llu were expected", v->who,
		       (unsigned long long)(off + (uint64_t)n), (unsigned long long)(off + len));
		return -CSV_E_CORRUPT;
	}
	return n < 0 ? (int)n : 0;
}

static int write_bytes(struct vraw *v, uint64_t off, const void *buf, uint64_t len)
{
	ssize_t n = csvfs_write(v->fs, v->ip->ino, 0, off, buf, len, 0, NULL);

	return n < 0 ? (int)n : (uint64_t)n < len ? -ENOSPC : 0;
}

int vraw_file_write(struct vraw *v, uint64_t off, const void *buf, uint64_t len)
{
	uint8_t *zero;
	int err = 0;

	if (buf)
		return write_bytes(v, off, buf, len);
	zero = blk_alloc(ZERO_BYTES);
	if (!zero)
		return -ENOMEM;
	memset(zero, 0, ZERO_BYTES);
	while (!err && len) {
		uint64_t n = csv_min(len, (uint64_t)ZERO_BYTES);

		err = write_bytes(v, off, zero, n);
		off += n;
		len -= n;
	}
	free(zero);
	return err;
}

int vraw_flush(struct vraw *v)
{
	return csvfs_fsync(v->fs, v->ip->ino, 0, true);
}

/* ---- a bitmap that is not full --------------------------------------------------------------------------------------------------- */

static int complete(struct vraw *v, uint64_t block, const struct vimg_entry *e)
{
	uint8_t *map = malloc(v->img.bitmap_bytes);
	uint32_t at = 0, n;
	int err;

	if (!map)
		return -ENOMEM;
	err = vraw_file_read(v, e->bitmap_off, map, v->img.bitmap_bytes);
	while (!err && vimg_bitmap_next_clear(&v->img, map, at, &at, &n)) {
		err = vraw_file_write(v, e->data_off + (uint64_t)at * VIMG_SECTOR, NULL, (uint64_t)n * VIMG_SECTOR);
		at += n;
	}
	if (!err)
		err = vraw_flush(v);
	if (!err) {
		vimg_bitmap_full(&v->img, map);
		err = vraw_file_write(v, e->bitmap_off, map, v->img.bitmap_bytes);
	}
	if (!err)
		err = vraw_flush(v);
	if (!err)
		vraw_bitmap_set_full(v, block);
	free(map);
	return err;
}

/* No lock is held. */
static int complete_block(struct vraw *v, uint64_t block)
{
	struct glock_holder gh;
	struct vimg_entry e;
	int err = glock_get(v->fs, OWN_VMAP(v->ip->ino), DLM_EX, 0, &gh);

	if (err)
		return err;
	err = vraw_entry(v, block, true, &e);
	if (!err && e.state == VIMG_PRESENT && (err = vraw_bitmap_full(v, block, &e)) == 0)
		err = complete(v, block, &e);
	glock_put(&gh);
	return err < 0 ? err : 0;
}

/* Reading changes nothing: what the clear bits hide is hidden. */
static int hide_clear(struct vraw *v, const struct vimg_entry *e, uint64_t in, uint8_t *buf, uint64_t len)
{
	uint8_t *map = malloc(v->img.bitmap_bytes);
	uint32_t at = (uint32_t)(in / VIMG_SECTOR), n;
	int err;

	if (!map)
		return -ENOMEM;
	err = vraw_file_read(v, e->bitmap_off, map, v->img.bitmap_bytes);
	while (!err && (uint64_t)at * VIMG_SECTOR < in + len && vimg_bitmap_next_clear(&v->img, map, at, &at, &n)) {
		uint64_t from = csv_max((uint64_t)at * VIMG_SECTOR, in), to = csv_min((uint64_t)(at + n) * VIMG_SECTOR, in + len);

		if (from < to)
			memset(buf + (from - in), 0, to - from);
		at += n;
	}
	free(map);
	return err;
}

/* ---- pieces: each inside one block ------------------------------------------------------------------------------------------------- */

struct piece { uint64_t block, in, len; };

static struct piece piece_at(const struct vraw *v, uint64_t off, uint64_t end)
{
	struct piece p = { .block = off / v->img.block_size, .in = off % v->img.block_size };

	p.len = csv_min(end - off, v->img.block_size - p.in);
	return p;
}

/* vmap is held: its entry, and for an absent one the word of vneg that it is. */
static int entry_of(struct vraw *v, uint64_t block, struct vimg_entry *ret)
{
	struct glock_holder gh;
	int err = vraw_entry(v, block, false, ret);

	if (err != -EAGAIN)
		return err;
	err = glock_get(v->fs, OWN_VNEG(v->ip->ino), DLM_PR, 0, &gh);
	if (err)
		return err;
	err = vraw_entry(v, block, true, ret);
	glock_put(&gh);
	return err;
}

static int read_piece(struct vraw *v, const struct piece *p, uint8_t *buf)
{
	struct glock_holder gh;
	struct vimg_entry e;
	int full = 1, err = glock_get(v->fs, OWN_VMAP(v->ip->ino), DLM_CW, 0, &gh);

	if (err)
		return err;
	err = entry_of(v, p->block, &e);
	if (!err && e.state == VIMG_PRESENT) {
		full = vraw_bitmap_full(v, p->block, &e);
		if (full < 0)
			err = full;
		if (!err)
			err = vraw_file_read(v, e.data_off + p->in, buf, p->len);
		if (!err && !full)
			err = hide_clear(v, &e, p->in, buf, p->len);
		if (!err && full)
			vraw_publish(v, p->block * v->img.block_size + p->in, p->len, false);
	} else if (!err) {
		memset(buf, 0, p->len);
	}
	glock_put(&gh);
	return err;
}

enum { ABSENT = 1, INCOMPLETE = 2 };

static int write_present(struct vraw *v, const struct piece *p, const uint8_t *buf)
{
	struct glock_holder gh;
	struct vimg_entry e;
	int err = glock_get(v->fs, OWN_VMAP(v->ip->ino), DLM_CW, 0, &gh);

	if (err)
		return err;
	err = vraw_entry(v, p->block, false, &e);
	if (err == -EAGAIN || (!err && e.state != VIMG_PRESENT))
		err = ABSENT;
	if (!err) {
		int full = vraw_bitmap_full(v, p->block, &e);

		err = full < 0 ? full : full ? 0 : INCOMPLETE;
	}
	if (!err)
		err = vraw_file_write(v, e.data_off + p->in, buf, p->len);
	if (!err)
		vraw_publish(v, p->block * v->img.block_size + p->in, p->len, true);
	glock_put(&gh);
	return err;
}

static int write_piece(struct vraw *v, const struct piece *p, const uint8_t *buf)
{
	int err;

	do {
		err = write_present(v, p, buf);
		if (err == ABSENT)
			err = buf ? vraw_write_absent(v, p->block, p->in, buf, p->len) : 0;
		if (err == INCOMPLETE) {
			err = complete_block(v, p->block);
			err = err ? err : -EAGAIN;
		}
	} while (err == -EAGAIN);
	return err;
}

/* ---- the calls ---------------------------------------------------------------------------------------------------------------------- */

/* While the view is open here; its opener keeps it. */
static struct vraw *view_of(struct csvfs *fs, uint64_t ino)
{
	struct glock *gl = glock_find(fs, OWN_INODE(ino));
	struct inode *ip = gl ? gl->obj : NULL;

	csv_assertf(ip && ip->raw_opens && ip->vraw, "the raw view of inode %llu is not open", (unsigned long long)ino);
	return ip->vraw;
}

ssize_t csvfs_disk_read(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, void *buf, size_t len)
{
	struct vraw *v = view_of(fs, ino);
	uint64_t size = v->img.virtual_size, done = 0;
	int err = fs_check(fs);

	if (err || off >= size || !len)
		return err;
	len = csv_min((uint64_t)csv_min(len, (size_t)INT32_MAX), size - off);
	if (!vraw_is_mapped(v))
		return csvfs_read(fs, ino, gen, off, buf, len);
	while (done < len && !err) {
		struct piece p = piece_at(v, off + done, off + len);

		err = read_piece(v, &p, (uint8_t *)buf + done);
		if (!err)
			done += p.len;
	}
	return err ? err : (ssize_t)done;
}

/* Behind the end there is no disk: as a block device says it. */
ssize_t csvfs_disk_write(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, const void *buf, size_t len)
{
	struct vraw *v = view_of(fs, ino);
	uint64_t size = v->img.virtual_size, done = 0;
	int err = fs_check_write(fs);

	if (err || !len)
		return err;
	if (off >= size)
		return -ENOSPC;
	len = csv_min((uint64_t)csv_min(len, (size_t)INT32_MAX), size - off);
	if (!vraw_is_mapped(v))
		return csvfs_write(fs, ino, gen, off, buf, len, 0, NULL);
	if (!v->writable)
		return -EROFS;
	while (done < len && !err) {
		struct piece p = piece_at(v, off + done, off + len);

		err = write_piece(v, &p, (const uint8_t *)buf + done);
		if (!err)
			done += p.len;
	}
	return done ? (ssize_t)done : err;
}

/* A hole in the disk is zeros; its blocks stay the image's. */
int csvfs_disk_fallocate(struct csvfs *fs, uint64_t ino, uint32_t gen, int mode, uint64_t off, uint64_t len)
{
	struct vraw *v = view_of(fs, ino);
	int err = fs_check_write(fs);
	uint64_t end;

	if (err)
		return err;
	if (csv_add_overflow(off, len, &end) || end > v->img.virtual_size)
		return -ENOSPC;
	if (!vraw_is_mapped(v))
		return csvfs_fallocate(fs, ino, gen, mode | CSVFS_FALLOC_KEEP_SIZE, off, len);
	if (!(mode & (CSVFS_FALLOC_PUNCH_HOLE | CSVFS_FALLOC_ZERO_RANGE)))
		return -EOPNOTSUPP;
	if (!len)
		return -EINVAL;
	if (!v->writable)
		return -EROFS;
	while (off < end && !err) {
		struct piece p = piece_at(v, off, end);
		struct glock_holder gh;
		struct vimg_entry e;

		/* What is absent here and now reads as zeros; whoever adds it at this moment does so at the same time as we zero it. */
		err = glock_get(fs, OWN_VMAP(ino), DLM_CW, 0, &gh);
		if (!err) {
			err = entry_of(v, p.block, &e);
			glock_put(&gh);
		}
		if (!err && e.state == VIMG_PRESENT)
			err = write_piece(v, &p, NULL);
		off += p.len;
	}
	return err;
}

/* Whole blocks: what is present is data. */
int csvfs_disk_lseek(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, int whence, uint64_t *ret_off)
{
	struct vraw *v = view_of(fs, ino);
	uint64_t size = v->img.virtual_size;
	bool data = whence == SEEK_DATA;
	uint64_t at = off;
	int err;

	if (!data && whence != SEEK_HOLE)
		return -EINVAL;
	if (off >= size)
		return -ENXIO;
	if (!vraw_is_mapped(v)) {
		err = csvfs_lseek(fs, ino, gen, off, whence, &at);
		if (!err && data && at >= size)
			err = -ENXIO;	/* only the footer follows */
		if (!err)
			*ret_off = csv_min(at, size);
		return err;
	}
	for (uint64_t block = off / v->img.block_size; at < size; block++) {
		struct glock_holder gh;
		struct vimg_entry e;

		err = glock_get(fs, OWN_VMAP(ino), DLM_CW, 0, &gh);
		if (err)
			return err;
		err = entry_of(v, block, &e);
		glock_put(&gh);
		if (err)
			return err;
		if ((e.state == VIMG_PRESENT) == data)
			break;
		at = (block + 1) * v->img.block_size;
		if (block % YIELD_BLOCKS == 0)
			coro_yield(fs->env->sched);
	}
	if (at >= size && data)
		return -ENXIO;
	*ret_off = csv_min(at, size);
	return 0;
}
