/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fdata.c - bytes of a file to and from its blocks.  Invariants in fmap.h.  No data is cached here: straight to the device, through
 * an aligned buffer where the caller's is not.
 */
#include "csvfs/fmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BOUNCE_BYTES (256u * 1024u)

static bool aligned(const void *buf, uint64_t off, uint64_t len, uint32_t align)
{
	return (uintptr_t)buf % align == 0 && off % align == 0 && len % align == 0;
}

/* What of [off, off + len) the extent at `off` holds. */
struct piece { struct extent e; uint64_t dev_off, len; };

static int piece_at(struct btree *t, uint64_t off, uint64_t len, struct piece *ret)
{
	uint64_t in, lblk = off >> CSV_BLOCK_SHIFT;
	int err = ext_map(t, lblk, &ret->e);

	if (err)
		return err;
	in = off - (lblk << CSV_BLOCK_SHIFT);
	ret->len = csv_min(len, (ret->e.len << CSV_BLOCK_SHIFT) - in);
	ret->dev_off = ret->e.phys ? (ret->e.phys << CSV_BLOCK_SHIFT) + in : 0;
	return 0;
}

static int read_piece(struct iref *r, const struct piece *p, uint8_t *buf, void *bounce)
{
	struct blk *dev = r->ip->fs->env->blk;
	uint64_t done = 0;

	while (done < p->len) {
		uint64_t at = p->dev_off + done, head = at % CSV_BLOCK_SIZE;
		uint64_t n = csv_min(p->len - done, BOUNCE_BYTES - head);
		int err;

		if (aligned(buf + done, at, n, CSV_BLOCK_SIZE)) {
			err = blk_read(dev, at, buf + done, (uint32_t)n);
		} else {
			err = blk_read(dev, at - head, bounce, (uint32_t)csv_round_up(head + n, CSV_BLOCK_SIZE));
			if (!err)
				memcpy(buf + done, (uint8_t *)bounce + head, n);
		}
		if (err)
			return err;
		done += n;
	}
	return 0;
}

int fdata_read(struct iref *r, uint64_t off, void *buf, uint64_t len)
{
	struct inode *ip = r->ip;
	void *bounce = NULL;
	uint64_t done = 0;
	struct btree t;
	int err = 0;

	csv_assert(off + len <= ip->size);
	if (ip->body == CSV_BODY_INLINE) {
		memcpy(buf, inode_raw(r)->body_bytes + off, len);
		return 0;
	}
	bounce = blk_alloc(BOUNCE_BYTES);
	if (!bounce)
		return -ENOMEM;
	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	while (!err && done < len) {
		struct piece p;

		err = piece_at(&t, off + done, len - done, &p);
		if (err)
			break;
		if (ext_is_written(&p.e))
			err = read_piece(r, &p, (uint8_t *)buf + done, bounce);
		else
			memset((uint8_t *)buf + done, 0, p.len);
		done += p.len;
	}
	free(bounce);
	return err;
}

/* The block at `dev_blk`, whose first byte is `file_off`, as it is to be kept: `eof` and what follows are zeros. */
static int old_block(struct iref *r, const struct piece *p, uint64_t dev_blk_off, uint64_t file_off, uint64_t eof, uint8_t *block)
{
	int err;

	if (!ext_is_written(&p->e) || file_off >= eof) {
		memset(block, 0, CSV_BLOCK_SIZE);
		return 0;
	}
	err = blk_read(r->ip->fs->env->blk, dev_blk_off, block, CSV_BLOCK_SIZE);
	if (!err && eof - file_off < CSV_BLOCK_SIZE)
		memset(block + (eof - file_off), 0, CSV_BLOCK_SIZE - (eof - file_off));
	return err;
}

static int write_piece(struct iref *r, const struct piece *p, uint64_t off, const uint8_t *buf, uint64_t eof, uint8_t *bounce)
{
	struct blk *dev = r->ip->fs->env->blk;
	uint64_t done = 0;

	while (done < p->len) {
		uint64_t at = p->dev_off + done, head = at % CSV_BLOCK_SIZE, whole;
		uint64_t n = csv_min(p->len - done, BOUNCE_BYTES - head);
		uint64_t tail = (head + n) % CSV_BLOCK_SIZE, file_off = off + done - head;
		int err = 0;

		whole = csv_round_up(head + n, CSV_BLOCK_SIZE);
		if (buf && aligned(buf + done, at, n, CSV_BLOCK_SIZE)) {
			err = blk_write(dev, at, buf + done, (uint32_t)n);
		} else {
			if (head)
				err = old_block(r, p, at - head, file_off, eof, bounce);
			if (!err && tail && (!head || whole > CSV_BLOCK_SIZE))
				err = old_block(r, p, at - head + whole - CSV_BLOCK_SIZE, file_off + whole - CSV_BLOCK_SIZE, eof,
						bounce + whole - CSV_BLOCK_SIZE);
			if (err)
				return err;
			if (buf)
				memcpy(bounce + head, buf + done, n);
			else
				memset(bounce + head, 0, n);
			err = blk_write(dev, at - head, bounce, (uint32_t)whole);
		}
		if (err)
			return err;
		done += n;
	}
	return 0;
}

int fdata_write(struct iref *r, uint64_t off, const void *buf, uint64_t len, uint64_t eof)
{
	uint64_t done = 0;
	void *bounce;
	struct btree t;
	int err = 0;

	bounce = blk_alloc(BOUNCE_BYTES);
	if (!bounce)
		return -ENOMEM;
	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	while (!err && done < len) {
		struct piece p;

		err = piece_at(&t, off + done, len - done, &p);
		if (err)
			break;
		csv_assertf(p.e.phys, "inode %llu: writing to a hole at %llu", (unsigned long long)r->ip->ino,
			    (unsigned long long)(off + done));
		err = write_piece(r, &p, off + done, buf ? (const uint8_t *)buf + done : NULL, eof, bounce);
		done += p.len;
	}
	free(bounce);
	r->ip->data_gen++;
	return err;
}

int fdata_write_inplace(struct iref *r, uint64_t off, const void *buf, uint64_t len)
{
	struct blk *dev = r->ip->fs->env->blk;
	void *bounce = NULL;
	uint64_t done = 0;
	struct btree t;
	int err = 0;

	csv_assert(off % dev->io_align == 0 && len % dev->io_align == 0);
	if (!aligned(buf, 0, 0, dev->io_align)) {
		bounce = blk_alloc(BOUNCE_BYTES);
		if (!bounce)
			return -ENOMEM;
	}
	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	while (!err && done < len) {
		struct piece p;
		uint64_t n;

		err = piece_at(&t, off + done, len - done, &p);
		if (err)
			break;
		csv_assert(ext_is_written(&p.e));
		n = csv_min(p.len, (uint64_t)BOUNCE_BYTES);
		if (bounce)
			memcpy(bounce, (const uint8_t *)buf + done, n);
		err = blk_write(dev, p.dev_off, bounce ? bounce : (const uint8_t *)buf + done, (uint32_t)n);
		done += n;
	}
	free(bounce);
	r->ip->data_gen++;
	return err;
}

int fdata_zero_tail(struct iref *r)
{
	uint64_t size = r->ip->size, in = size % CSV_BLOCK_SIZE;
	struct extent e;
	struct btree t;
	int err;

	if (in == 0 || r->ip->body != CSV_BODY_TREE)
		return 0;
	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	err = ext_map(&t, size >> CSV_BLOCK_SHIFT, &e);
	if (err || !ext_is_written(&e))
		return err;
	/* One byte behind the end: the rest of the block becomes zeros with it. */
	return fdata_write(r, size, NULL, CSV_BLOCK_SIZE - in, size);
}
