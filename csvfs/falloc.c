/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * falloc.c - preallocation, holes, and where they are.
 */
#include "csvfs/fmap.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void touch(struct iref *r, void *arg)
{
	(void)arg;
	inode_touch(r->ip, INODE_T_MTIME | INODE_T_CTIME);
}

/* Zeros in what of [off, end) does not fill whole blocks; *ret_first..*ret_end are the whole ones. */
static int zero_edges(struct iref *r, uint64_t off, uint64_t end, uint64_t *ret_first, uint64_t *ret_end)
{
	uint64_t eof = r->ip->size, first = fmap_blocks(off), last = end >> CSV_BLOCK_SHIFT;
	uint64_t head = csv_min(end, first << CSV_BLOCK_SHIFT);
	int err = 0, written;

	if (off % CSV_BLOCK_SIZE && off < eof) {
		written = fmap_all_written(r, off >> CSV_BLOCK_SHIFT, (off >> CSV_BLOCK_SHIFT) + 1);
		if (written < 0)
			return written;
		if (written)
			err = fdata_write(r, off, NULL, head - off, eof);
	}
	if (!err && end % CSV_BLOCK_SIZE && last >= first && last << CSV_BLOCK_SHIFT < eof) {
		written = fmap_all_written(r, last, last + 1);
		if (written < 0)
			return written;
		if (written)
			err = fdata_write(r, last << CSV_BLOCK_SHIFT, NULL, end - (last << CSV_BLOCK_SHIFT), eof);
	}
	*ret_first = first;
	*ret_end = last;
	return err;
}

static int punch(struct iref *r, uint64_t off, uint64_t end)
{
	uint64_t first, last;
	int err;

	err = fmap_make_tree(r);
	if (!err)
		err = zero_edges(r, off, end, &first, &last);
	if (!err)
		err = fmap_change(r, touch, NULL);
	if (!err && first < last)
		err = trunc_punch(r, first, last);
	return err;
}

struct grow { uint64_t size; };

static void grow_to(struct iref *r, void *arg)
{
	r->ip->size = csv_max(r->ip->size, ((struct grow *)arg)->size);
	inode_touch(r->ip, INODE_T_MTIME | INODE_T_CTIME);
}

static int allocate(struct iref *r, uint64_t off, uint64_t end, bool keep_size)
{
	uint64_t got, want = fmap_blocks(end);
	int err;

	err = fmap_settle(r);
	if (!err && !keep_size && end > r->ip->size)
		err = fdata_zero_tail(r);
	if (!err)
		err = fmap_fill(r, off >> CSV_BLOCK_SHIFT, want, 0, &got);
	if (!err && got < want)
		err = -ENOSPC;
	if (err)
		return err;
	return fmap_change(r, grow_to, &(struct grow){ keep_size ? 0 : end });
}

static int zero_range(struct iref *r, uint64_t off, uint64_t end, bool keep_size)
{
	uint64_t first, last;
	int err;

	err = fmap_make_tree(r);
	if (!err)
		err = fmap_settle(r);
	if (!err)
		err = zero_edges(r, off, end, &first, &last);
	if (!err && first < last)
		err = fmap_unpublish(r, first, last);
	return err ? err : allocate(r, off, end, keep_size);
}

int csvfs_fallocate(struct csvfs *fs, uint64_t ino, uint32_t gen, int mode, uint64_t off, uint64_t len)
{
	bool keep = mode & CSVFS_FALLOC_KEEP_SIZE;
	struct iref r;
	uint64_t end;
	int err;

	switch (mode & ~CSVFS_FALLOC_KEEP_SIZE) {
	case 0:
	case CSVFS_FALLOC_ZERO_RANGE:
		break;
	case CSVFS_FALLOC_PUNCH_HOLE:
		if (keep)
			break;
		/* fall through */
	default:
		return -EOPNOTSUPP;
	}
	if (len == 0)
		return -EINVAL;
	if (csv_add_overflow(off, len, &end) || end > CSV_FILE_SIZE_MAX)
		return -EFBIG;
	err = fs_check_write(fs);
	if (!err)
		err = inode_get(fs, ino, gen, DLM_EX, 0, &r);
	if (err)
		return err;
	err = S_ISREG(r.ip->mode) ? 0 : S_ISDIR(r.ip->mode) ? -EISDIR : -ENODEV;
	if (!err && r.ip->flags & CSV_INO_IMMUTABLE)
		err = -EPERM;
	if (!err) {
		inode_gate_close(r.ip);
		if (mode & CSVFS_FALLOC_PUNCH_HOLE)
			err = punch(&r, off, end);
		else if (mode & CSVFS_FALLOC_ZERO_RANGE)
			err = zero_range(&r, off, end, keep);
		else
			err = allocate(&r, off, end, keep);
		inode_gate_open(r.ip);
	}
	inode_put(&r);
	return err;
}

int csvfs_lseek(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t off, int whence, uint64_t *ret_off)
{
	struct iref r;
	struct btree t;
	int err;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	err = inode_get(fs, ino, gen, DLM_CR, 0, &r);
	if (err)
		return err;
	err = !S_ISREG(r.ip->mode) ? -EINVAL : off >= r.ip->size ? -ENXIO : 0;
	if (err)
		goto out;
	if (r.ip->body != CSV_BODY_TREE) {
		*ret_off = whence == SEEK_DATA ? off : r.ip->size;
		goto out;
	}
	inode_tree(&r, CSV_BT_EXTENTS, NULL, &t);
	for (uint64_t at = off;;) {
		struct extent e;

		if (at >= r.ip->size) {
			/* The end of file is a hole; behind the last data there is none. */
			if (whence == SEEK_DATA)
				err = -ENXIO;
			else
				*ret_off = r.ip->size;
			break;
		}
		err = ext_map(&t, at >> CSV_BLOCK_SHIFT, &e);
		if (err)
			break;
		if (ext_is_written(&e) == (whence == SEEK_DATA)) {
			*ret_off = at;
			break;
		}
		at = ext_end(&e) << CSV_BLOCK_SHIFT;
	}
out:
	inode_put(&r);
	return err;
}
