/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vraw_page.c - offset of the disk -> block -> offset of the file -> place on the device, composed into maps for the data plane.
 *
 * One page of the map stands for 64 blocks of the disk or more (dataplane.h).  It is built when a request of that page had to go the slow
 * way: from what is in memory of the BAT, and from the file's extents.  It then holds what of its blocks is present, written, known to
 * have a full bitmap, and as aligned on the device as the device wants it; the rest goes on being slow.
 */
#include "csvfs/vraw.h"

#include <stdlib.h>

#include "csvfs/dataplane.h"
#include "csvfs/publish.h"

#define PAGE_BLOCKS_SHIFT 6u
#define PAGES_WANTED 65536u

unsigned vraw_page_shift(const struct vimg *img)
{
	unsigned shift = PAGE_BLOCKS_SHIFT;

	while (1ull << shift < (uint64_t)img->block_size << PAGE_BLOCKS_SHIFT || img->virtual_size >> shift >= PAGES_WANTED)
		shift++;
	return shift;
}

struct build { struct dp_map *m; uint32_t max, align; uint64_t file_off, disk_off; };

/* file_off of the file is disk_off of the disk. */
static int add(void *arg, uint64_t off, uint64_t len, uint64_t dev_off)
{
	struct build *b = arg;
	struct dp_extent e = { b->disk_off + (off - b->file_off), len, dev_off }, *last = b->m->n ? &b->m->e[b->m->n - 1] : NULL;

	if (e.dev_off % b->align)
		return 0;
	if (last && last->off + last->len == e.off && last->dev_off + last->len == e.dev_off) {
		last->len += len;
		return 0;
	}
	if (b->m->n == b->max)
		return 1;
	b->m->e[b->m->n++] = e;
	return 0;
}

static int add_block(struct vraw *v, struct iref *r, uint64_t block, struct build *b)
{
	uint64_t len = vimg_block_len(&v->img, block);
	struct vimg_entry e;

	if (!vraw_entry_cached(v, block, &e) || e.state != VIMG_PRESENT || (v->full && !(v->full[block / 8] & 1u << block % 8)))
		return 0;
	if (e.data_off >= r->ip->size)
		return 0;
	b->file_off = e.data_off;
	b->disk_off = block * v->img.block_size;
	return inode_map_range(r, e.data_off, csv_min(len, r->ip->size - e.data_off), add, b);
}

/* NULL: not today. */
static struct dp_map *build(struct vraw *v, struct iref *r, uint64_t page)
{
	uint64_t first = (page << v->page_shift) / v->img.block_size, n = (1ull << v->page_shift) / v->img.block_size;
	uint64_t end = csv_min(first + n, v->img.blocks);

	for (uint32_t max = 256; max <= DP_EXTENTS_MAX; max *= 16) {
		struct build b = { .m = dp_map_new(max), .max = max, .align = v->fs->env->blk->io_align };
		int rc = 0;

		if (!b.m)
			return NULL;
		for (uint64_t block = first; !rc && block < end; block++)
			rc = add_block(v, r, block, &b);
		if (rc == 0) {
			inode_dp_map_rights(r->ip, b.m, v->img.virtual_size, v->writable);
			return b.m;
		}
		dp_map_free(b.m);
		if (rc < 0)
			return NULL;
	}
	return NULL;
}

static bool covers(const struct dp_map *m, uint64_t off, uint64_t end, bool write)
{
	if (!m || !(write ? m->may_write : m->may_read))
		return false;
	for (uint32_t i = 0; i < m->n && off < end; i++) {
		if (m->e[i].off > off)
			return false;
		if (m->e[i].off + m->e[i].len > off)
			off = m->e[i].off + m->e[i].len;
	}
	return off >= end;
}

void vraw_publish(struct vraw *v, uint64_t off, uint64_t len, bool write)
{
	struct inode *ip = v->ip;
	uint64_t page = off >> v->page_shift;
	struct dp_map *m;
	struct iref r;

	if (!v->fs->dp || v->dirty || (ip->dp_raw && covers(dp_page(ip->dp_raw, (uint32_t)page), off, off + len, write)))
		return;
	if (inode_get(v->fs, ip->ino, 0, DLM_CW, 0, &r))
		return;
	if (ip->body == CSV_BODY_TREE && inode_lock_allows(ip, false) && inode_dp_raw(ip)) {
		m = build(v, &r, page);
		if (m && (dp_in_pages(ip->dp_raw) || dp_pages_start(v->fs->dp, ip->dp_raw, v->img.virtual_size, v->page_shift) == 0))
			dp_page_take(v->fs->dp, ip->dp_raw, (uint32_t)page, m);
		else
			dp_map_free(m);
	}
	inode_put(&r);
}
