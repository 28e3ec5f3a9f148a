/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * file.c - reading and writing regular files on the control plane (the slow path of the data plane).
 *
 *	image (R25)	readers and writers in place take CW: many nodes at once; everything else EX
 *	other files	readers PR, writers EX
 *	append (R26)	EX, the end of file as it is then, whatever the caller thought
 *	set-id bits	nothing is written in place (publish.c, write_cw()): the write of one who may not keep them takes them away under EX
 *
 * A write under EX: what is missing is allocated unwritten, the data is written, and one transaction makes it visible with the new size
 * (fmap.h).  A crash before that transaction leaves unwritten blocks, which read as zeros.
 */
#include "csvfs/fmap.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "csvfs/publish.h"

#define LARGE_FILE_BYTES (1u << 20)	/* from here on allocation and conversion go by FMAP_CHUNK_BLOCKS */

/* Is this an image?  A guess from what was last known here; whoever relies on it asks again under the lock. */
static int guess_image(struct csvfs *fs, uint64_t ino, uint32_t gen, bool *ret)
{
	struct glock *gl = glock_find(fs, OWN_INODE(ino));
	const struct inode *ip = gl ? gl->obj : NULL;
	struct iref r;
	int err;

	if (!ip || ip->gen == 0) {
		err = inode_get(fs, ino, gen, DLM_CR, INODE_ATTR, &r);
		if (err)
			return err;
		*ret = r.ip->flags & CSV_INO_IMAGE;
		inode_put(&r);
		return 0;
	}
	*ret = ip->flags & CSV_INO_IMAGE;
	return 0;
}

static int check_file(const struct inode *ip)
{
	return S_ISREG(ip->mode) ? 0 : S_ISDIR(ip->mode) ? -EISDIR : -EINVAL;
}

ssize_t csvfs_read(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, void *buf, size_t len)
{
	struct iref r;
	bool image;
	ssize_t n = 0;
	int err;

	err = guess_image(fs, ino, gen, &image);
	if (err)
		return err;
	err = inode_get(fs, ino, gen, image ? DLM_CW : DLM_PR, 0, &r);
	if (err)
		return err;
	if (image && !(r.ip->flags & CSV_INO_IMAGE)) {
		/* Not any more (another file has the number): CW covers no data of it. */
		inode_put(&r);
		err = inode_get(fs, ino, gen, DLM_PR, 0, &r);
		if (err)
			return err;
	}
	err = check_file(r.ip);
	if (!err && len && off < r.ip->size) {
		n = (ssize_t)csv_min((uint64_t)csv_min(len, (size_t)INT32_MAX), r.ip->size - off);
		err = fdata_read(&r, off, buf, (uint64_t)n);
		if (!err)
			inode_publish(&r, false);
	}
	inode_put(&r);
	return err ? err : n;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------------ */

static void kill_priv(struct iref *r, void *arg)
{
	(void)arg;
	r->ip->mode = inode_killed_mode(r->ip);
	inode_touch(r->ip, INODE_T_CTIME);
}

/* -EAGAIN: not possible in place, take EX. */
static ssize_t write_cw(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, const void *buf, size_t len, uint32_t flags)
{
	struct iref r;
	int err;

	err = inode_get(fs, ino, gen, DLM_CW, 0, &r);
	if (err)
		return err;
	if (!(r.ip->flags & CSV_INO_IMAGE) || off >= r.ip->size || len > r.ip->size - off ||
	    (flags & CSVFS_WRITE_KILLPRIV && inode_killed_mode(r.ip) != r.ip->mode)) {
		err = -EAGAIN;
	} else {
		err = fmap_all_written(&r, off >> CSV_BLOCK_SHIFT, fmap_blocks(off + len));
		err = err == 1 ? 0 : err == 0 ? -EAGAIN : err;
	}
	if (!err)
		err = fdata_write_inplace(&r, off, buf, len);
	if (!err) {
		r.ip->pending_mtime_ns = csv_max(inode_now(r.ip), r.ip->pending_mtime_ns + 1);
		inode_publish(&r, true);
	}
	inode_put(&r);
	return err ? err : (ssize_t)len;
}

struct inline_write { uint64_t off; const void *buf; size_t len; };

static void write_inline(struct iref *r, void *arg)
{
	const struct inline_write *w = arg;
	uint8_t *body = inode_raw(r)->body_bytes;

	if (w->off > r->ip->size)
		memset(body + r->ip->size, 0, w->off - r->ip->size);
	memcpy(body + w->off, w->buf, w->len);
	r->ip->size = csv_max(r->ip->size, w->off + w->len);
	r->ip->body = CSV_BODY_INLINE;
	r->ip->body_len = (uint32_t)r->ip->size;
	inode_touch(r->ip, INODE_T_MTIME | INODE_T_CTIME);
}

static void touch(struct iref *r, void *arg)
{
	(void)arg;
	inode_touch(r->ip, INODE_T_MTIME | INODE_T_CTIME);
}

/*
 * Random writes into a preallocated large file: a whole chunk around them becomes written at once, the rest of it zeros, so that its
 * neighbours are written in place next time (R21).
 */
static int widen(struct iref *r, uint64_t *first, uint64_t *end, uint64_t eof)
{
	struct inode *ip = r->ip;
	struct extent e;
	uint64_t lo, hi;
	struct btree t;
	int err;

	if ((!(ip->flags & CSV_INO_IMAGE) && ip->size < LARGE_FILE_BYTES) || *first >= fmap_blocks(eof))
		return 0;
	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	err = ext_prev(&t, *first, &e);
	if (err == 0 && (e.flags & CSV_EXT_UNWRITTEN) && ext_end(&e) > *first) {
		lo = csv_max(csv_round_down(*first, FMAP_CHUNK_BLOCKS), e.lblk);
		if (lo < *first) {
			err = fdata_write(r, lo << CSV_BLOCK_SHIFT, NULL, (*first - lo) << CSV_BLOCK_SHIFT, eof);
			if (!err)
				*first = lo;
		}
	}
	if (err && err != -ENOENT)
		return err;
	if (*end >= fmap_blocks(eof))
		return 0;		/* appending: nothing is there to be spared */
	err = ext_prev(&t, *end - 1, &e);
	if (err == 0 && (e.flags & CSV_EXT_UNWRITTEN) && ext_end(&e) > *end) {
		hi = csv_min(csv_min(csv_round_up(*end, FMAP_CHUNK_BLOCKS), ext_end(&e)), fmap_blocks(eof));
		err = fdata_write(r, *end << CSV_BLOCK_SHIFT, NULL, (hi - *end) << CSV_BLOCK_SHIFT, eof);
		if (!err)
			*end = hi;
	}
	return err == -ENOENT ? 0 : err;
}

static ssize_t write_blocks(struct iref *r, uint64_t off, const void *buf, uint64_t len, bool *ret_in_place)
{
	struct inode *ip = r->ip;
	uint64_t eof = ip->size, first = off >> CSV_BLOCK_SHIFT, end = fmap_blocks(off + len), got, spare = 0;
	int err;

	err = fmap_make_tree(r);
	if (!err && off + len > eof)
		err = fmap_settle(r);
	if (!err && off > eof && first > eof >> CSV_BLOCK_SHIFT)
		err = fdata_zero_tail(r);
	if (!err)
		err = fmap_all_written(r, first, end);
	if (err < 0)
		return err;
	if (err == 1) {
		err = fdata_write(r, off, buf, len, eof);
		if (err)
			return err;
		*ret_in_place = off + len <= eof;
		err = *ret_in_place ? fmap_change(r, touch, NULL) : fmap_publish(r, first, end, off + len);
		return err ? err : (ssize_t)len;
	}
	if (eof >= LARGE_FILE_BYTES && off + len > eof)
		spare = FMAP_CHUNK_BLOCKS;
	err = fmap_fill(r, first, end, spare, &got);
	if (err)
		return err;
	if (got < end) {		/* the volume is full: as far as it went */
		end = got;
		len = (end << CSV_BLOCK_SHIFT) - off;
	}
	err = fdata_write(r, off, buf, len, eof);
	if (!err) {
		uint64_t from = first, to = end;

		err = widen(r, &from, &to, eof);
		if (!err)
			err = fmap_publish(r, from, to, off + len);
	}
	return err ? err : (ssize_t)len;
}

static ssize_t write_ex(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, const void *buf, size_t len, uint32_t flags,
			uint64_t *ret_off)
{
	bool in_place = false;
	struct iref r;
	ssize_t n;

	n = inode_get(fs, ino, gen, DLM_EX, 0, &r);
	if (n)
		return n;
	if (flags & CSVFS_WRITE_APPEND)
		off = r.ip->size;
	n = check_file(r.ip);
	if (!n && r.ip->flags & CSV_INO_IMMUTABLE)
		n = -EPERM;
	if (!n && off >= CSV_FILE_SIZE_MAX)
		n = -EFBIG;
	if (n || len == 0)
		goto out;
	len = csv_min((uint64_t)len, CSV_FILE_SIZE_MAX - off);
	inode_gate_close(r.ip);
	if (flags & CSVFS_WRITE_KILLPRIV && inode_killed_mode(r.ip) != r.ip->mode)
		n = fmap_change(&r, kill_priv, NULL);
	if (!n && r.ip->body != CSV_BODY_TREE && !(r.ip->flags & CSV_INO_IMAGE) && off + len <= CSV_BODY_BYTES) {
		n = fmap_change(&r, write_inline, &(struct inline_write){ off, buf, len });
		n = n ? n : (ssize_t)len;
	} else if (!n) {
		n = write_blocks(&r, off, buf, len, &in_place);
	}
	inode_gate_open(r.ip);
	if (n > 0 && in_place)
		inode_publish(&r, true);
out:
	inode_put(&r);
	if (n >= 0 && ret_off)
		*ret_off = off;
	return n;
}

ssize_t csvfs_write(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, const void *buf, size_t len, uint32_t flags,
		    uint64_t *ret_off)
{
	uint32_t align = fs->env->blk->io_align;
	bool image = false;
	ssize_t n;
	int err;

	err = fs_check_write(fs);
	len = csv_min(len, (size_t)INT32_MAX & ~(size_t)(CSV_BLOCK_SIZE - 1));
	if (!err && !(flags & CSVFS_WRITE_APPEND) && len && off % align == 0 && len % align == 0)
		err = guess_image(fs, ino, gen, &image);
	if (err)
		return err;
	if (image) {
		n = write_cw(fs, ino, gen, off, buf, len, flags);
		if (n >= 0 && ret_off)
			*ret_off = off;
		if (n != -EAGAIN)
			return n;
	}
	return write_ex(fs, ino, gen, off, buf, len, flags, ret_off);
}

/* ---- images ------------------------------------------------------------------------------------------------------------------------ */

static void set_image(struct iref *r, void *arg)
{
	(void)arg;
	r->ip->flags |= CSV_INO_IMAGE;
	inode_touch(r->ip, INODE_T_CTIME);
}

int csvfs_set_image(struct csvfs *fs, uint64_t ino, uint32_t gen)
{
	struct iref r;
	int err;

	err = inode_get(fs, ino, gen, DLM_CR, INODE_ATTR, &r);
	if (err)
		return err;
	err = check_file(r.ip);
	if (!err && r.ip->flags & CSV_INO_IMAGE)
		err = 1;
	inode_put(&r);
	if (!err)
		err = fs_check_write(fs);
	if (err)
		return err > 0 ? 0 : err;
	err = inode_get(fs, ino, gen, DLM_EX, 0, &r);
	if (err)
		return err;
	inode_gate_close(r.ip);
	err = fmap_make_tree(&r);
	if (!err)
		err = fmap_change(&r, set_image, NULL);
	inode_gate_open(r.ip);
	inode_put(&r);
	return err;
}
