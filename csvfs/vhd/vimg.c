/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vimg.c - one view of an image: what it is made from, its BAT, bitmaps, where new blocks go.  See vimg.h.
 */
#include "csvfs/vhd/vimg_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define VHD_UNUSED UINT32_MAX
#define VHD_DATA_ALIGN 4096u		/* of the data of blocks that we add */
#define BAT_STATE 7u
#define BAT_RESERVED 0xffff8ull		/* bits 3 to 19 */

#define BAD(err, ...) csv_err_set(err, -CSV_E_CORRUPT, __VA_ARGS__)

const char *vimg_format_name(enum vimg_format f)
{
	return f == VIMG_VHD ? "vhd" : "vhdx";
}

const char *vimg_type_name(enum vimg_type t)
{
	return t == VIMG_FIXED ? "fixed" : t == VIMG_DYNAMIC ? "dynamic" : "differencing";
}

/* ---- what it is made from ------------------------------------------------------------------------------------------------------- */

/* Ascending; they do not overlap. */
static void add_area(struct vimg *v, uint64_t off, uint64_t len, const char *name)
{
	uint32_t k = v->n_areas++;

	csv_assertf(k < VIMG_AREAS_MAX, "%u areas", k);
	for (; k && v->area[k - 1].off > off; k--)
		v->area[k] = v->area[k - 1];
	v->area[k] = (struct vimg_area){ off, len, name };
}

const struct vimg_area *vimg_area_at(const struct vimg *v, uint64_t off, uint64_t len)
{
	for (uint32_t k = 0; k < v->n_areas; k++)
		if (v->area[k].off < off + len && off < v->area[k].off + v->area[k].len)
			return &v->area[k];
	return NULL;
}

int vimg_of_vhd(const struct vhd_info *i, const void *footer, struct vimg *ret, struct csv_err *err)
{
	struct vimg v = { .format = VIMG_VHD, .virtual_size = i->virtual_size, .sector_size = 512, .physical_sector_size = 512, .vhd = *i };

	v.type = i->type == VHD_FIXED ? VIMG_FIXED : i->type == VHD_DYNAMIC ? VIMG_DYNAMIC : VIMG_DIFF;
	v.has_parent = v.type == VIMG_DIFF;
	memcpy(v.uuid, i->uuid, 16);
	memcpy(v.vhd_footer, footer, VHD_FOOTER_BYTES);
	if (v.type == VIMG_FIXED) {
		*ret = v;
		return 0;
	}
	v.has_bat = true;
	v.block_size = i->block_size;
	v.blocks = csv_div_round_up(v.virtual_size, v.block_size);
	v.entry_bytes = 4;
	v.bat_off = i->table_offset;
	v.bat_bytes = v.blocks * 4;
	v.bitmap_bytes = (uint32_t)csv_round_up(csv_div_round_up(v.block_size / VIMG_SECTOR, 8), VIMG_SECTOR);
	v.stride = (uint32_t)csv_round_up(v.bitmap_bytes + v.block_size, VHD_DATA_ALIGN);
	if (v.blocks > VIMG_VHD_BLOCKS_MAX)
		return csv_err_set(err, -CSV_E_UNSUPPORTED, "dynamic header: block_size is %" PRIu32 ": a disk of %" PRIu64 " blocks, more than %u are "
				   "not supported", v.block_size, v.blocks, VIMG_VHD_BLOCKS_MAX);
	add_area(&v, 0, VHD_FOOTER_BYTES, "copy of the footer");
	add_area(&v, i->data_offset, VHD_DYN_BYTES, "dynamic header");
	add_area(&v, i->table_offset, csv_round_up((uint64_t)i->table_entries * 4, VIMG_SECTOR), "block table");
	*ret = v;
	return 0;
}

int vimg_of_vhdx(const struct vhdx_params *p, const struct vhdx_regions *r, const struct vhdx_header *h, struct vimg *ret,
		 struct csv_err *err)
{
	struct vimg v = {
		.format = VIMG_VHDX, .has_parent = p->has_parent, .virtual_size = p->virtual_size, .sector_size = p->sector_size,
		.physical_sector_size = p->physical_sector_size, .has_bat = true, .block_size = p->block_size, .entry_bytes = 8,
		.blocks = csv_div_round_up(p->virtual_size, p->block_size), .bat_off = r->bat.off, .bat_bytes = vhdx_bat_entries(p) * 8,
		.chunk_ratio = vhdx_chunk_ratio(p), .stride = p->block_size, .vhdx_header = *h, .log_off = h->log_off,
		.log_bytes = h->log_bytes, .log_dirty = memcmp(h->log_guid, vhdx_guid_zero, 16) != 0,
	};

	(void)err;
	v.type = p->has_parent ? VIMG_DIFF : p->leave_allocated ? VIMG_FIXED : VIMG_DYNAMIC;
	memcpy(v.uuid, p->page83, 16);
	add_area(&v, 0, VHDX_HEAD_AREA, "headers");
	if (h->log_bytes)
		add_area(&v, h->log_off, h->log_bytes, "log");
	add_area(&v, r->bat.off, r->bat.len, "BAT");
	add_area(&v, r->meta.off, r->meta.len, "metadata region");
	for (uint32_t k = 0; k < r->n_other; k++)
		add_area(&v, r->other[k].off, r->other[k].len, "unknown region");
	*ret = v;
	return 0;
}

int vimg_may_read(const struct vimg *v, struct csv_err *err)
{
	if (v->has_parent)
		return csv_err_set(err, -CSV_E_UNSUPPORTED, "differencing disks are not supported yet");
	return 0;
}

int vimg_may_write(const struct vimg *v, struct csv_err *err)
{
	int rc = vimg_may_read(v, err);

	if (rc)
		return rc;
	if (v->format == VIMG_VHD && v->vhd.saved_state)
		return csv_err_set(err, -EROFS, "footer: saved_state is 1: a virtual machine sleeps on this disk and would find it changed; wake it or "
						"drop its saved state where it was put to sleep");
	if (v->format == VIMG_VHDX && v->vhdx_header.sequence == UINT64_MAX)
		return csv_err_set(err, -EROFS, "header %u: sequence_number is %" PRIu64 ", must be less for the image to be changed; convert it: "
						"qemu-img convert", v->vhdx_current, v->vhdx_header.sequence);
	return 0;
}

/* ---- BAT ---------------------------------------------------------------------------------------------------------------------------- */

uint64_t vimg_entry_off(const struct vimg *v, uint64_t block)
{
	csv_assertf(block < v->blocks, "block %llu of %llu", (unsigned long long)block, (unsigned long long)v->blocks);
	return v->bat_off + (v->chunk_ratio ? block + block / v->chunk_ratio : block) * v->entry_bytes;
}

/* Blocks whose entries come before entry `i` of the BAT. */
static uint64_t blocks_before(const struct vimg *v, uint64_t i)
{
	uint64_t n = i;

	if (v->chunk_ratio)
		n = i / (v->chunk_ratio + 1ull) * v->chunk_ratio + csv_min(i % (v->chunk_ratio + 1ull), (uint64_t)v->chunk_ratio);
	return csv_min(n, v->blocks);
}

void vimg_blocks_at(const struct vimg *v, uint64_t off, uint64_t len, uint64_t *ret_first, uint64_t *ret_n)
{
	uint64_t from = csv_max(off, v->bat_off), end = csv_min(off + len, v->bat_off + v->bat_bytes), first;

	if (from >= end) {
		*ret_first = *ret_n = 0;
		return;
	}
	first = blocks_before(v, (from - v->bat_off) / v->entry_bytes);
	*ret_n = blocks_before(v, (end - v->bat_off) / v->entry_bytes) - first;
	*ret_first = first;
}

uint64_t vimg_block_len(const struct vimg *v, uint64_t block)
{
	return csv_min((uint64_t)v->block_size, v->virtual_size - block * v->block_size);
}

uint64_t vimg_record_len(const struct vimg *v, uint64_t block)
{
	return v->bitmap_bytes + vimg_block_len(v, block);
}

uint64_t vimg_data_end(const struct vimg *v, uint64_t file_size)
{
	return v->format == VIMG_VHD ? file_size - csv_min(file_size, (uint64_t)VHD_FOOTER_BYTES) : file_size;
}

/* `off` < 2^63. */
static int record_check(const struct vimg *v, uint64_t file_size, uint64_t block, uint64_t off, struct csv_err *err)
{
	uint64_t len = vimg_record_len(v, block), end = vimg_data_end(v, file_size);
	const struct vimg_area *a;

	if (off + len > end)
		return BAD(err, "BAT: entry of block %" PRIu64 ": offset is %" PRIu64 ", its %" PRIu64 " bytes must end before %s at %" PRIu64, block,
			   off, len, v->format == VIMG_VHD ? "the footer" : "the file's end", end);
	a = vimg_area_at(v, off, len);
	if (a)
		return BAD(err, "BAT: entry of block %" PRIu64 ": offset is %" PRIu64 " (%" PRIu64 " bytes), must not overlap the %s at %" PRIu64, block,
			   off, len, a->name, a->off);
	return 0;
}

static int decode_vhd(const struct vimg *v, uint64_t file_size, uint64_t block, const void *raw, struct vimg_entry *ret, struct csv_err *err)
{
	uint32_t x = be32_get(*(const struct be32 *)raw);
	uint64_t off = (uint64_t)x * VIMG_SECTOR;
	int rc;

	if (x == VHD_UNUSED) {
		*ret = (struct vimg_entry){ .state = VIMG_ABSENT };
		return 0;
	}
	rc = record_check(v, file_size, block, off, err);
	if (rc)
		return rc;
	vimg_record_make(v, off, ret);
	if (v->has_parent)
		ret->state = VIMG_PARTIAL;
	return 0;
}

static int decode_vhdx(const struct vimg *v, uint64_t file_size, uint64_t block, const void *raw, struct vimg_entry *ret, struct csv_err *err)
{
	static const enum vimg_state states[] = { VIMG_ABSENT, VIMG_UNMAPPED, VIMG_ZERO, VIMG_UNMAPPED, -1, -1, VIMG_PRESENT, VIMG_PARTIAL };
	uint64_t x = le64_get(*(const struct le64 *)raw), off = x & ~(VHDX_MIB - 1);
	struct vimg_entry e = { .state = states[x & BAT_STATE] };
	int rc;

	if (x & BAT_RESERVED)
		return BAD(err, "BAT: entry of block %" PRIu64 ": is 0x%" PRIx64 ", its reserved bits 3 to 19 must be 0", block, x);
	if ((int)e.state == -1)
		return BAD(err, "BAT: entry of block %" PRIu64 ": state is %u, must be 0 to 3, 6 or 7", block, (unsigned)(x & BAT_STATE));
	if (e.state == VIMG_PARTIAL && !v->has_parent)
		return BAD(err, "BAT: entry of block %" PRIu64 ": state is 7 (partially present), must not be as the disk has no parent", block);
	if (e.state == VIMG_PRESENT || e.state == VIMG_PARTIAL) {
		if (off >= VHDX_FILE_SIZE_MAX)
			return BAD(err, "BAT: entry of block %" PRIu64 ": offset is %" PRIu64 ", must end before the file's end at %" PRIu64, block, off,
				   file_size);
		rc = record_check(v, file_size, block, off, err);
		if (rc)
			return rc;
		e.data_off = off;
	} else if (e.state == VIMG_ZERO || (x & BAT_STATE) == 3) {
		/* The block may have kept its space.  If that cannot be it means nothing. */
		if (off < VHDX_FILE_SIZE_MAX && !record_check(v, file_size, block, off, NULL))
			e.data_off = off;
	}
	*ret = e;
	return 0;
}

int vimg_entry_decode(const struct vimg *v, uint64_t file_size, uint64_t block, const void *raw, struct vimg_entry *ret, struct csv_err *err)
{
	csv_assertf(v->has_bat && block < v->blocks, "block %llu of %llu", (unsigned long long)block, (unsigned long long)v->blocks);
	if (v->format == VIMG_VHD)
		return decode_vhd(v, file_size, block, raw, ret, err);
	return decode_vhdx(v, file_size, block, raw, ret, err);
}

void vimg_entry_encode(const struct vimg *v, uint64_t block, const struct vimg_entry *e, void *ret_raw)
{
	static const uint8_t number[] = { [VIMG_ABSENT] = 0, [VIMG_ZERO] = 2, [VIMG_UNMAPPED] = 3, [VIMG_PRESENT] = 6, [VIMG_PARTIAL] = 7 };
	bool present = e->state == VIMG_PRESENT || e->state == VIMG_PARTIAL;
	uint64_t at = present && v->format == VIMG_VHD ? e->bitmap_off : e->data_off;

	csv_assertf(at % (v->format == VIMG_VHD ? VIMG_SECTOR : VHDX_MIB) == 0, "block %llu at %llu", (unsigned long long)block,
		    (unsigned long long)at);
	if (v->format == VIMG_VHD)
		*(struct be32 *)ret_raw = be32_of(present ? (uint32_t)(at / VIMG_SECTOR) : VHD_UNUSED);
	else
		*(struct le64 *)ret_raw = le64_of(at | number[e->state]);
}

/* ---- bitmaps --------------------------------------------------------------------------------------------------------------------------- */

bool vimg_bitmap_next_clear(const struct vimg *v, const void *bitmap, uint32_t sector, uint32_t *ret_sector, uint32_t *ret_n)
{
	uint32_t all = v->block_size / VIMG_SECTOR, s = sector, n = 0;
	const uint8_t *b = bitmap;

	while (s < all && b[s / 8] & (0x80 >> s % 8))
		s += s % 8 == 0 && b[s / 8] == 0xff ? 8 : 1;
	while (s + n < all && !(b[(s + n) / 8] & (0x80 >> (s + n) % 8)))
		n++;
	if (!n)
		return false;
	*ret_sector = s;
	*ret_n = n;
	return true;
}

bool vimg_bitmap_is_full(const struct vimg *v, const void *bitmap)
{
	uint32_t s, n;

	return !v->bitmap_bytes || !vimg_bitmap_next_clear(v, bitmap, 0, &s, &n);
}

void vimg_bitmap_full(const struct vimg *v, void *ret_bitmap)
{
	memset(ret_bitmap, 0xff, v->bitmap_bytes);
}

/* ---- adding blocks ------------------------------------------------------------------------------------------------------------------------ */

int vimg_append(const struct vimg *v, uint64_t file_size, uint32_t n, struct vimg_place *ret, struct csv_err *err)
{
	uint64_t end = vimg_data_end(v, file_size), max = v->format == VIMG_VHD ? (VHD_UNUSED - 1ull) * VIMG_SECTOR : VHDX_FILE_SIZE_MAX;
	struct vimg_place p;

	csv_assertf(v->has_bat && n && file_size <= INT64_MAX, "append %u blocks at %llu", n, (unsigned long long)file_size);
	if (v->format == VIMG_VHD)
		p.off = csv_round_up(end + v->bitmap_bytes, VHD_DATA_ALIGN) - v->bitmap_bytes;
	else
		p.off = csv_round_up(end, VHDX_MIB);
	/* Directly behind the last one: where QEMU would add the next, and expect a footer to overwrite or nothing but zeroes. */
	p.file_size = p.off + (n - 1ull) * v->stride + v->bitmap_bytes + v->block_size;
	if (p.file_size > max)
		return csv_err_set(err, -EFBIG, "the image would be %" PRIu64 " bytes long, a %s can be %" PRIu64 " at most", p.file_size,
				   vimg_format_name(v->format), max);
	if (v->format == VIMG_VHD)
		p.file_size += VHD_FOOTER_BYTES;
	*ret = p;
	return 0;
}

void vimg_record_make(const struct vimg *v, uint64_t off, struct vimg_entry *ret)
{
	*ret = (struct vimg_entry){ .state = VIMG_PRESENT, .data_off = off + v->bitmap_bytes, .bitmap_off = v->bitmap_bytes ? off : 0 };
}

void vimg_tail(const struct vimg *v, uint64_t file_size, struct vimg_write *ret)
{
	ret->len = 0;
	if (v->format != VIMG_VHD)
		return;
	ret->off = vimg_data_end(v, file_size);
	ret->len = VHD_FOOTER_BYTES;
	memcpy(ret->data, v->vhd_footer, VHD_FOOTER_BYTES);
}

int vimg_header_new(struct vimg *v, const uint8_t file_guid[static 16], const uint8_t *data_guid, struct vimg_write *ret, struct csv_err *err)
{
	struct vhdx_header *h = &v->vhdx_header;
	int rc;

	ret->len = 0;
	if (v->format != VIMG_VHDX)
		return 0;
	rc = vimg_may_write(v, err);
	if (rc)
		return rc;
	h->sequence++;
	memcpy(h->file_guid, file_guid, 16);
	if (data_guid)
		memcpy(h->data_guid, data_guid, 16);
	memset(h->log_guid, 0, 16);
	v->vhdx_current = !v->vhdx_current;
	v->vhdx_other_bad = false;
	v->log_dirty = false;
	ret->off = VHDX_HEADER_OFF(v->vhdx_current);
	ret->len = VHDX_HEADER_BYTES;
	vhdx_header_encode(h, ret->data);
	return 0;
}
