/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vraw_bat.c - the BAT as this node knows it: read from the file in chunks, believed as long as VR1 says.
 *
 * A chunk that was read under vneg carries the epoch of that hold of vneg.  While it is the current one, absent entries of the chunk are
 * absent.  A chunk may be read again over itself: what another node added meanwhile becomes visible, and nothing that was present goes.
 */
#include "csvfs/vraw.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES 4096u
#define CHUNKS_MAX 16384u	/* 64 MiB: then all are forgotten */

struct vraw_chunk { uint64_t neg_epoch; uint8_t raw[CHUNK_BYTES]; };

int vraw_bat_init(struct vraw *v)
{
	v->neg_epoch = 1;
	v->n_chunks = (uint32_t)((v->img.bat_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES);
	v->chunk = calloc(v->n_chunks ? v->n_chunks : 1, sizeof(*v->chunk));
	if (!v->chunk)
		return -ENOMEM;
	if (v->img.bitmap_bytes) {
		v->full = calloc(1, v->img.blocks / 8 + 1);
		if (!v->full)
			return -ENOMEM;
	}
	return 0;
}

static void drop_chunks(struct vraw *v)
{
	for (uint32_t i = 0; v->chunk && i < v->n_chunks && v->loaded; i++) {
		if (!v->chunk[i])
			continue;
		free(v->chunk[i]);
		v->chunk[i] = NULL;
		v->loaded--;
	}
}

void vraw_bat_forget(struct vraw *v)
{
	drop_chunks(v);
	if (v->full)
		memset(v->full, 0, v->img.blocks / 8 + 1);
}

void vraw_bat_done(struct vraw *v)
{
	drop_chunks(v);
	free(v->chunk);
	free(v->full);
	v->chunk = NULL;
	v->full = NULL;
}

static uint32_t chunk_of(const struct vraw *v, uint64_t block, uint32_t *ret_at)
{
	uint64_t at = vimg_entry_off(&v->img, block) - v->img.bat_off;

	*ret_at = (uint32_t)(at % CHUNK_BYTES);
	return (uint32_t)(at / CHUNK_BYTES);
}

/* From the file, over what was there. */
static int load(struct vraw *v, uint32_t i, bool neg)
{
	uint64_t off = v->img.bat_off + (uint64_t)i * CHUNK_BYTES, epoch = v->neg_epoch;
	uint64_t len = csv_min((uint64_t)CHUNK_BYTES, v->img.bat_off + v->img.bat_bytes - off);
	struct vraw_chunk *n = calloc(1, sizeof(*n)), *c;
	int err = n ? vraw_file_read(v, off, n->raw, len) : -ENOMEM;

	if (err) {
		free(n);
		return err;
	}
	if (v->dirty)
		vimg_replay_overlay(vimg_open_replay(v->dirty), off, n->raw, len);
	v->file_size = csv_max(v->file_size, v->ip->size);
	c = v->chunk[i];
	if (c) {	/* others may look at it between their awaits: it stays where it is */
		memcpy(c->raw, n->raw, CHUNK_BYTES);
		free(n);
	} else {
		if (v->loaded >= CHUNKS_MAX)
			drop_chunks(v);
		c = v->chunk[i] = n;
		v->loaded++;
	}
	c->neg_epoch = neg ? epoch : 0;
	return 0;
}

int vraw_damaged(struct vraw *v, const struct csv_err *err)
{
	fs_log(v->fs, LOG_L_ERR, "%s: %s", v->who, err->text);
	return -CSV_E_CORRUPT;
}

static int decode(struct vraw *v, uint64_t block, const void *raw, struct vimg_entry *ret)
{
	struct csv_err err = CSV_ERR_INIT;
	int rc = vimg_entry_decode(&v->img, v->file_size, block, raw, ret, &err);

	return rc ? vraw_damaged(v, &err) : 0;
}

int vraw_entry(struct vraw *v, uint64_t block, bool neg, struct vimg_entry *ret)
{
	uint32_t at, i = chunk_of(v, block, &at);
	struct vimg_entry e;
	bool fresh = false;

	for (;;) {
		struct vraw_chunk *c = v->chunk[i];
		int err;

		if (c) {
			err = decode(v, block, c->raw + at, &e);
			if (err)
				return err;
			/* The epoch is the current one: vneg has not left since, whether we hold it now or not. */
			if (e.state == VIMG_PRESENT || c->neg_epoch == v->neg_epoch) {
				*ret = e;
				return 0;
			}
			if (fresh)
				return -EAGAIN;		/* without vneg nobody can say it is absent */
			if (!neg)
				return -EAGAIN;
		}
		err = load(v, i, neg);
		if (err)
			return err;
		fresh = !neg;
	}
}

bool vraw_entry_cached(struct vraw *v, uint64_t block, struct vimg_entry *ret)
{
	uint32_t at, i = chunk_of(v, block, &at);
	struct csv_err err = CSV_ERR_INIT;

	return v->chunk[i] && vimg_entry_decode(&v->img, v->file_size, block, v->chunk[i]->raw + at, ret, &err) == 0;
}

int vraw_entries_write(struct vraw *v, const uint64_t *block, const struct vimg_entry *e, uint32_t n)
{
	uint8_t sector[VIMG_SECTOR], raw[8];
	uint64_t at = vimg_sector_of(vimg_entry_off(&v->img, block[0]));
	int err;

	csv_assert(v->img.entry_bytes <= sizeof(raw));
	err = vraw_file_read(v, at, sector, sizeof(sector));
	if (err)
		return err;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t off = vimg_entry_off(&v->img, block[i]);

		csv_assert(off - at < VIMG_SECTOR);
		vimg_entry_encode(&v->img, block[i], &e[i], sector + (off - at));
	}
	err = vraw_file_write(v, at, sector, sizeof(sector));
	if (err) {
		v->neg_epoch++;		/* it may have arrived all the same */
		return err;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t in, c = chunk_of(v, block[i], &in);

		vimg_entry_encode(&v->img, block[i], &e[i], raw);
		if (v->chunk[c])
			memcpy(v->chunk[c]->raw + in, raw, v->img.entry_bytes);
	}
	return 0;
}

/* ---- bitmaps of a dynamic VHD ---------------------------------------------------------------------------------------------------- */

void vraw_bitmap_set_full(struct vraw *v, uint64_t block)
{
	if (v->full)
		v->full[block / 8] |= (uint8_t)(1u << block % 8);
}

int vraw_bitmap_full(struct vraw *v, uint64_t block, const struct vimg_entry *e)
{
	void *map;
	int err;

	if (!v->full || v->full[block / 8] & 1u << block % 8)
		return 1;
	map = malloc(v->img.bitmap_bytes);
	if (!map)
		return -ENOMEM;
	err = vraw_file_read(v, e->bitmap_off, map, v->img.bitmap_bytes);
	if (!err && vimg_bitmap_is_full(&v->img, map)) {
		vraw_bitmap_set_full(v, block);
		err = 1;
	}
	free(map);
	return err;
}
