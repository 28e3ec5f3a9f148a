/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vraw_grow.c - zeroed room at the end of an image's file, for several blocks at once.
 *
 * Other nodes read and write present blocks meanwhile, under the file's lock CW; EX, which stops them, is held only for the two changes of
 * metadata, not while the zeros are written:
 *
 *	inode EX	blocks behind the end are taken, unwritten, in large steps (what is there already stays)
 *	inode given back; zeros (VHD: and the new footer) go to the first of them, straight to the device
 *	inode EX	those become written, the size grows over them: one commit, after a FLUSH (R17)
 *
 * Between the two nobody else touches blocks behind the end (VR4): who has vneg EX is one, plain writers are kept away by `use`, and what
 * the file's last closer gives back it gives back under vneg EX as well (open.c).  A crash before the commit leaves unwritten blocks
 * behind the end, which the next one finds taken and uses; a crash after it leaves free room in the image.
 */
#include "csvfs/vraw.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "csvfs/fmap.h"

#define ZERO_STEP_BYTES (32ull << 20)	/* zeroed and committed at a time: one block at least */
#define RESERVE_BLOCKS 32u		/* taken at a time, */
#define RESERVE_BYTES (256ull << 20)	/* but not more than this or one block */
#define RUNS_MAX 256u
#define WRITE_BYTES (1u << 20)

struct run { uint64_t dev_off, len; };
struct grow {
	uint64_t old_size, size;	/* of the file */
	uint64_t first, end;		/* its new blocks */
	struct run run[RUNS_MAX];
	uint32_t n_runs;
};

/* Not more than the disk can still use, as far as the file's size says. */
static uint32_t step_records(const struct vimg *img, uint64_t file_size, uint64_t bytes, uint32_t max)
{
	const struct vimg_area *last = &img->area[img->n_areas - 1];
	uint64_t there = file_size > last->off + last->len ? (file_size - last->off - last->len) / img->stride : 0;
	uint64_t left = there < img->blocks ? img->blocks - there : 1;

	return (uint32_t)csv_min(csv_min(csv_max(bytes / img->stride, 1ull), left), (uint64_t)max);
}

/* inode EX is held: where [first, end) lies; fewer blocks when it is in too many pieces.  All of it is taken. */
static int find_runs(struct iref *r, struct grow *g)
{
	struct btree t;

	inode_tree(r, CSV_BT_EXTENTS, NULL, &t);
	g->n_runs = 0;
	for (uint64_t at = g->first; at < g->end;) {
		struct extent e;
		int err = ext_map(&t, at, &e);

		if (err)
			return err;
		if (!e.phys || g->n_runs == RUNS_MAX)
			return -ENOSPC;
		e.len = csv_min(e.len, g->end - at);
		g->run[g->n_runs++] = (struct run){ e.phys << CSV_BLOCK_SHIFT, e.len << CSV_BLOCK_SHIFT };
		at += e.len;
	}
	return 0;
}

/* Blocks for as many records as there is room for, at most `n`. */
static int reserve(struct vraw *v, struct iref *r, uint32_t n, struct grow *g, struct vimg_place *ret, uint32_t *ret_n, struct csv_err *err)
{
	uint32_t many = step_records(&v->img, r->ip->size, RESERVE_BYTES, RESERVE_BLOCKS);
	struct vimg_place p;
	uint64_t got = 0;
	int rc;

	g->old_size = r->ip->size;
	g->first = fmap_blocks(g->old_size);
	rc = vimg_append(&v->img, g->old_size, csv_max(many, n), &p, err);
	if (rc)
		rc = vimg_append(&v->img, g->old_size, 1, &p, err);
	if (rc)
		return rc;
	rc = fmap_fill(r, g->first, fmap_blocks(p.file_size), 0, &got);
	if (rc)
		return csv_err_set(err, rc, "no room for another block: %s", csv_err_describe(rc));
	r->ip->spec_first = g->first;
	r->ip->spec_end = csv_max(got, r->ip->spec_end);
	/* The volume may have been too full for all. */
	for (; n; n--) {
		rc = vimg_append(&v->img, g->old_size, n, ret, err);
		if (!rc && fmap_blocks(ret->file_size) <= got) {
			g->size = ret->file_size;
			g->end = fmap_blocks(g->size);
			rc = find_runs(r, g);
			if (rc != -ENOSPC) {
				*ret_n = n;
				return rc;
			}
		}
	}
	return csv_err_set(err, rc ? rc : -ENOSPC, "no room for another block");
}

static int take(struct vraw *v, struct grow *g, struct vimg_place *ret, uint32_t *ret_n, struct csv_err *err)
{
	struct iref r;
	int rc = inode_get(v->fs, v->ip->ino, 0, DLM_EX, 0, &r);

	if (rc)
		return rc;
	inode_gate_close(r.ip);
	rc = fmap_make_tree(&r);
	if (!rc)
		rc = fmap_settle(&r);
	if (!rc)
		rc = fdata_zero_tail(&r);
	if (!rc)
		rc = reserve(v, &r, step_records(&v->img, r.ip->size, ZERO_STEP_BYTES, RESERVE_BLOCKS), g, ret, ret_n, err);
	inode_gate_open(r.ip);
	inode_put(&r);
	return rc;
}

/* No lock but vmap and vneg is held. */
static int zero(struct vraw *v, const struct grow *g, const struct vimg_write *tail)
{
	struct blk *dev = v->fs->env->blk;
	uint64_t file_off = g->first << CSV_BLOCK_SHIFT;
	uint8_t *buf = blk_alloc(WRITE_BYTES);
	int err = 0;

	if (!buf)
		return -ENOMEM;
	memset(buf, 0, WRITE_BYTES);
	for (uint32_t i = 0; !err && i < g->n_runs; i++) {
		for (uint64_t at = 0; !err && at < g->run[i].len;) {
			uint32_t n = (uint32_t)csv_min(g->run[i].len - at, (uint64_t)WRITE_BYTES);
			bool last = tail->len && tail->off >= file_off && tail->off < file_off + n;

			if (last) {
				csv_assert(tail->off + tail->len <= file_off + n);
				memcpy(buf + (tail->off - file_off), tail->data, tail->len);
			}
			if (last || !(v->fs->mutate & CSV_MUT_ROOM_NOT_ZEROED))
				err = blk_write(dev, g->run[i].dev_off + at, buf, n);
			if (last)
				memset(buf + (tail->off - file_off), 0, tail->len);
			at += n;
			file_off += n;
		}
	}
	free(buf);
	return err;
}

/*
 * The size moves in one transaction, with the last block: a VHD ends in its footer at any time.  (Blocks behind the end that are written
 * hold zeros until then, but for the footer in the very last one, which is published with the size.)
 */
static int publish(struct vraw *v, const struct grow *g)
{
	struct iref r;
	int rc = inode_get(v->fs, v->ip->ino, 0, DLM_EX, INODE_NOINTR, &r);

	if (rc)
		return rc;
	inode_gate_close(r.ip);
	if (r.ip->size != g->old_size)
		rc = -EBUSY;		/* somebody wrote the plain file past all that forbids it */
	if (!rc && g->end - 1 > g->first)
		rc = fmap_publish(&r, g->first, g->end - 1, g->old_size);
	if (!rc)
		rc = fmap_publish(&r, g->end - 1, g->end, g->size);
	if (!rc && r.ip->spec_end > g->end)
		r.ip->spec_first = g->end;
	inode_gate_open(r.ip);
	inode_put(&r);
	return rc;
}

int vraw_grow(struct vraw *v, uint64_t *ret_off, uint32_t *ret_n)
{
	struct grow *g = malloc(sizeof(*g));
	struct vimg_write *tail = malloc(sizeof(*tail));
	struct csv_err err = CSV_ERR_INIT;
	struct vimg_place p;
	uint32_t n = 0;
	int rc = g && tail ? take(v, g, &p, &n, &err) : -ENOMEM;

	if (!rc) {
		vimg_tail(&v->img, g->size, tail);
		rc = zero(v, g, tail);
	}
	if (!rc)
		rc = publish(v, g);
	/* The size is on the disk before anything points behind the old one (VR3). */
	if (!rc)
		rc = vraw_flush(v);
	if (!rc) {
		*ret_off = p.off;
		*ret_n = n;
		v->file_size = csv_max(v->file_size, g->size);
	} else if (*err.text && rc != -EINTR) {
		fs_log(v->fs, LOG_L_WARN, "%s: %s", v->who, err.text);
	}
	free(g);
	free(tail);
	return rc;
}
