/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vimg_open.c - opening an image: which bytes are asked for one after the other, and what comes out.  See vimg.h.
 *
 *	HEAD -> TAIL -+-> DYN ------------------------------------------------------------> DONE	VHD (fixed: at once)
 *		      +-> TABLES [-> LOG]... -> META -> ITEM 0 ... ITEM 4 ----------------> DONE	VHDX
 *
 * VHD or VHDX?  "conectix" begins the last 512 bytes of a VHD, "vhdxfile" the first of a VHDX.  A guest can write the one into the first
 * sector of its fixed VHD, the other into the last of its VHDX.  With both there, who is whole wins: a footer that fits the file, or
 * a header with its checksum; with both whole a VHD if the file's length is no multiple of 1 MiB, as that of a VHDX is; else the
 * image is refused, as a guest who has written all of either could otherwise choose what we take it for.
 *
 * Invariants
 *  VO1 A log is applied to everything that is read after it (vimg_replay_overlay()): regions, metadata and BAT are judged as they will
 *      be after the replay.
 *  VO2 Memory: 320 KiB, and the log if there is one to be replayed, at most VHDX_LOG_REPLAY_MAX.
 */
#include "csvfs/vhd/vimg_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TABLES_OFF VHDX_HEADER_OFF(0)
#define TABLES_BYTES 0x40000u			/* both headers and both region tables */
#define LOG_STEP (1u << 20)

enum stage { HEAD, TAIL, KIND, DYN, TABLES, LOG, META, ITEM, DONE };

struct vimg_open {
	uint64_t file_size;
	enum stage stage;
	struct vhd_probe probe;
	uint8_t *tables;			/* TABLES_BYTES; then the metadata table */
	uint8_t *log;
	uint32_t log_have;
	bool both;				/* cookies of both formats are there */
	struct vhdx_header header;
	unsigned current;
	bool other_bad, region_bad;
	struct vhdx_regions regions;
	struct vhdx_meta meta;
	struct vhdx_params params;
	unsigned item;
	uint8_t item_bytes[16];
	bool dirty;
	struct vimg_replay replay;
	struct vimg image;
};

#define BAD(err, ...) csv_err_set(err, -CSV_E_CORRUPT, __VA_ARGS__)

struct vimg_open *vimg_open_new(uint64_t file_size)
{
	struct vimg_open *o = calloc(1, sizeof(*o));

	if (o)
		o->file_size = o->probe.file_size = file_size;
	return o;
}

void vimg_open_free(struct vimg_open *o)
{
	if (!o)
		return;
	vhdx_log_replay_done(&o->replay);
	free(o->tables);
	free(o->log);
	free(o);
}

const struct vimg *vimg_open_image(const struct vimg_open *o)
{
	csv_assertf(o->stage == DONE, "the image is not open yet");
	return &o->image;
}

const struct vimg_replay *vimg_open_replay(const struct vimg_open *o)
{
	return o->dirty ? &o->replay : NULL;
}

static int ask(struct vimg_open *o, enum stage next, struct vimg_read *ret, uint64_t off, uint32_t len, void *buf)
{
	o->stage = next;
	*ret = (struct vimg_read){ off, len, buf };
	return 1;
}

/* ---- VHD -------------------------------------------------------------------------------------------------------------------------- */

static int finish_vhd(struct vimg_open *o, struct csv_err *err)
{
	struct vhd_info i;
	int rc = vhd_identify(&o->probe, &i, err);

	if (rc == -EMEDIUMTYPE)
		return csv_err_set(err, rc, "file: %" PRIu64 " bytes, neither with the signature \"" VHDX_FILE_ID "\" of a VHDX at 0 nor with the footer of "
					    "a VHD (cookie \"" VHD_COOKIE "\") in the last 512: not an image", o->file_size);
	if (!rc)
		rc = vimg_of_vhd(&i, o->probe.tail, &o->image, err);
	if (!rc)
		o->stage = DONE;
	return rc;
}

static int step_vhd(struct vimg_open *o, struct vimg_read *ret, struct csv_err *err)
{
	uint64_t at = vhd_probe_dyn_offset(&o->probe);

	if (!at)
		return finish_vhd(o, err);
	o->probe.has_dyn = true;
	return ask(o, DYN, ret, at, VHD_DYN_BYTES, o->probe.dyn);
}

/* ---- VHDX ------------------------------------------------------------------------------------------------------------------------- */

static int step_tables_ask(struct vimg_open *o, struct vimg_read *ret, struct csv_err *err)
{
	if (o->file_size < VHDX_HEAD_AREA)
		return BAD(err, "file: %" PRIu64 " bytes long, a VHDX has %u or more: the image is truncated", o->file_size, (unsigned)VHDX_HEAD_AREA);
	if (o->file_size > VHDX_FILE_SIZE_MAX)
		return BAD(err, "file: %" PRIu64 " bytes long, must be at most %" PRIu64 " (128 TiB)", o->file_size, (uint64_t)VHDX_FILE_SIZE_MAX);
	o->tables = malloc(TABLES_BYTES);
	if (!o->tables)
		return csv_err_set(err, -ENOMEM, "out of memory");
	return ask(o, TABLES, ret, TABLES_OFF, TABLES_BYTES, o->tables);
}

static const uint8_t *table(const struct vimg_open *o, uint64_t off)
{
	return o->tables + (off - TABLES_OFF);
}

static int step_regions(struct vimg_open *o, struct vimg_read *ret, struct csv_err *err)
{
	int rc;

	if (o->dirty)
		vimg_replay_overlay(&o->replay, TABLES_OFF, o->tables, TABLES_BYTES);
	/* The log may make the file longer: regions lie in what it will be. */
	rc = vhdx_region_choose(table(o, VHDX_REGION_OFF(0)), table(o, VHDX_REGION_OFF(1)), &o->header,
				o->dirty ? csv_max(o->file_size, o->replay.file_size) : o->file_size, &o->regions, &o->region_bad, err);
	if (rc)
		return rc;
	if (o->regions.meta.off + VHDX_META_TABLE_BYTES > o->file_size) {
		memset(o->tables, 0, VHDX_META_TABLE_BYTES);
		return ask(o, META, ret, 0, 0, o->tables);
	}
	return ask(o, META, ret, o->regions.meta.off, VHDX_META_TABLE_BYTES, o->tables);
}

static int step_log_ask(struct vimg_open *o, struct vimg_read *ret)
{
	uint32_t n = csv_min(LOG_STEP, o->header.log_bytes - o->log_have);
	uint32_t at = o->log_have;

	o->log_have += n;
	return ask(o, LOG, ret, o->header.log_off + at, n, o->log + at);
}

static int step_tables(struct vimg_open *o, struct vimg_read *ret, struct csv_err *err)
{
	const uint8_t *h0 = table(o, VHDX_HEADER_OFF(0)), *h1 = table(o, VHDX_HEADER_OFF(1));
	int rc;

	if (o->both) {
		struct vhd_info i;
		bool vhd = !vhd_identify(&o->probe, &i, NULL), vhdx = vhdx_header_is_valid(h0) || vhdx_header_is_valid(h1);

		if (vhd && vhdx && o->file_size % VHDX_MIB == 0)
			return BAD(err, "file: has the footer of a VHD at its end and the headers of a VHDX, must be one of them; a guest may have written "
					"the other: convert it with the format that it really has (qemu-img convert -f vpc or -f vhdx)");
		if (vhd)
			return finish_vhd(o, err);
		if (!vhdx)
			return vhd_identify(&o->probe, &i, err);
	}
	rc = vhdx_header_choose(h0, h1, o->file_size, &o->header, &o->current, &o->other_bad, err);
	if (rc)
		return rc;
	if (!memcmp(o->header.log_guid, vhdx_guid_zero, 16))
		return step_regions(o, ret, err);
	if (o->header.log_bytes > VHDX_LOG_REPLAY_MAX)
		return csv_err_set(err, -CSV_E_UNSUPPORTED, "header %u: log_length is %" PRIu32 ", must be at most %u for a log to be replayed here; replay "
				   "it: qemu-img check -r all", o->current, o->header.log_bytes, VHDX_LOG_REPLAY_MAX);
	o->log = malloc(o->header.log_bytes);
	if (!o->log)
		return csv_err_set(err, -ENOMEM, "out of memory");
	return step_log_ask(o, ret);
}

static int step_log(struct vimg_open *o, struct vimg_read *ret, struct csv_err *err)
{
	int rc;

	if (o->log_have < o->header.log_bytes)
		return step_log_ask(o, ret);
	rc = vhdx_log_replay(&o->header, o->file_size, o->log, &o->replay, err);
	free(o->log);
	o->log = NULL;
	if (rc)
		return rc;
	o->dirty = true;
	return step_regions(o, ret, err);
}

/* The next item; after the last, the image. */
static int step_item_ask(struct vimg_open *o, struct vimg_read *ret, struct csv_err *err)
{
	uint64_t off;
	uint32_t len;
	int rc;

	if (o->item <= VHDX_PAGE_83) {
		off = o->regions.meta.off + o->meta.item[o->item].off;
		len = o->meta.item[o->item].len;
		memset(o->item_bytes, 0, sizeof(o->item_bytes));
		if (off + len > o->file_size)
			len = 0;	/* comes from the log, or not at all */
		return ask(o, ITEM, ret, off, len, o->item_bytes);
	}
	rc = vhdx_params_check(&o->params, &o->meta, &o->regions.bat, err);
	if (!rc)
		rc = vimg_of_vhdx(&o->params, &o->regions, &o->header, &o->image, err);
	if (rc)
		return rc;
	o->image.vhdx_current = o->current;
	o->image.vhdx_other_bad = o->other_bad;
	o->image.vhdx_region_bad = o->region_bad;
	o->stage = DONE;
	return 0;
}

static int step_meta(struct vimg_open *o, struct vimg_read *ret, struct csv_err *err)
{
	int rc;

	if (o->dirty)
		vimg_replay_overlay(&o->replay, o->regions.meta.off, o->tables, VHDX_META_TABLE_BYTES);
	rc = vhdx_meta_decode(o->tables, o->regions.meta.len, &o->meta, err);
	return rc ? rc : step_item_ask(o, ret, err);
}

static int step_item(struct vimg_open *o, struct vimg_read *ret, struct csv_err *err)
{
	uint64_t off = o->regions.meta.off + o->meta.item[o->item].off;
	int rc;

	if (o->dirty)
		vimg_replay_overlay(&o->replay, off, o->item_bytes, o->meta.item[o->item].len);
	rc = vhdx_item_decode(o->item, o->item_bytes, &o->params, err);
	if (rc)
		return rc;
	o->item++;
	return step_item_ask(o, ret, err);
}

/* ---- both --------------------------------------------------------------------------------------------------------------------------- */

static int step_kind(struct vimg_open *o, struct vimg_read *ret, struct csv_err *err)
{
	bool vhd = !memcmp(o->probe.tail, VHD_COOKIE, 8), vhdx = !memcmp(o->probe.head, VHDX_FILE_ID, 8);

	/* What has both can only be a fixed VHD: the others have their footer's copy at the front. */
	o->both = vhd && vhdx;
	if (o->both && o->file_size < VHDX_HEAD_AREA)
		return finish_vhd(o, err);
	return vhdx ? step_tables_ask(o, ret, err) : step_vhd(o, ret, err);
}

static int step(struct vimg_open *o, struct vimg_read *ret, struct csv_err *err)
{
	uint32_t n = (uint32_t)csv_min(o->file_size, (uint64_t)VHD_FOOTER_BYTES);

	switch (o->stage) {
	case HEAD: return ask(o, TAIL, ret, 0, n, o->probe.head);
	case TAIL: return ask(o, KIND, ret, o->file_size - n, n, o->probe.tail + VHD_FOOTER_BYTES - n);
	case KIND: return step_kind(o, ret, err);
	case DYN: return finish_vhd(o, err);
	case TABLES: return step_tables(o, ret, err);
	case LOG: return step_log(o, ret, err);
	case META: return step_meta(o, ret, err);
	case ITEM: return step_item(o, ret, err);
	case DONE: break;
	}
	return 0;
}

int vimg_open_next(struct vimg_open *o, struct vimg_read *ret_read, struct csv_err *err)
{
	int rc;

	/* Nothing to read is no question. */
	do
		rc = step(o, ret_read, err);
	while (rc > 0 && !ret_read->len);
	return rc;
}
