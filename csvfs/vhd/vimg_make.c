/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vimg_make.c - new images.  See vimg.h.
 *
 *	VHD dynamic	copy of the footer, dynamic header, table, footer
 *	VHDX		1 MiB of headers; log 1 MiB; metadata 1 MiB; BAT; fixed: all blocks, in order
 */
#include "csvfs/vhd/vimg_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_USUAL (2u << 20)
#define BLOCK_LARGE (32u << 20)			/* usual for disks of more than LARGE */
#define LARGE (4ull << 40)
#define VHD_BLOCK_MIN (512u << 10)
#define VHD_BLOCK_MAX (64u << 20)
#define LOG_BYTES (1u << 20)
#define META_BYTES (1u << 20)
#define CREATOR "csvfs"

void vimg_made_done(struct vimg_made *m)
{
	free(m->patch);
	free(m->mem);
	*m = (struct vimg_made){ .n = 0 };
}

/* Memory for `bytes` and room for n patches in it. */
static int room(struct vimg_made *m, size_t bytes, size_t n, struct csv_err *err)
{
	m->mem = calloc(1, bytes);
	m->patch = calloc(n, sizeof(*m->patch));
	return m->mem && m->patch ? 0 : csv_err_set(err, -ENOMEM, "out of memory");
}

static void put(struct vimg_made *m, uint64_t off, size_t len, const uint8_t *data)
{
	m->patch[m->n++] = (struct vimg_patch){ off, len, data };
}

static int check_block(uint32_t block, uint32_t min, uint32_t max, const char *format, struct csv_err *err)
{
	if (csv_is_power_of_2(block) && block >= min && block <= max)
		return 0;
	return csv_err_set(err, -EINVAL, "block-size %" PRIu32 ": must be a power of two, %uK to %uM, for a %s", block, min >> 10, max >> 20, format);
}

/* ---- VHD ----------------------------------------------------------------------------------------------------------------------------- */

static int make_vhd_fixed(const struct vhd_info *i, struct vimg_made *m, struct csv_err *err)
{
	int rc = room(m, VHD_FOOTER_BYTES, 1, err);

	if (rc)
		return rc;
	vhd_footer_encode(i, m->mem);
	put(m, i->virtual_size, VHD_FOOTER_BYTES, m->mem);
	m->file_size = i->virtual_size + VHD_FOOTER_BYTES;
	return 0;
}

static int make_vhd_dynamic(struct vhd_info *i, uint32_t block, struct vimg_made *m, struct csv_err *err)
{
	uint64_t table;
	int rc = check_block(block, VHD_BLOCK_MIN, VHD_BLOCK_MAX, "VHD", err);

	if (rc)
		return rc;
	i->type = VHD_DYNAMIC;
	i->data_offset = VHD_FOOTER_BYTES;
	i->table_offset = VHD_FOOTER_BYTES + VHD_DYN_BYTES;
	i->block_size = block;
	i->table_entries = (uint32_t)csv_div_round_up(i->virtual_size, block);
	table = csv_round_up((uint64_t)i->table_entries * 4, VIMG_SECTOR);
	rc = room(m, i->table_offset + table + VHD_FOOTER_BYTES, 1, err);
	if (rc)
		return rc;
	vhd_footer_encode(i, m->mem);
	vhd_dyn_header_encode(i, m->mem + i->data_offset);
	memset(m->mem + i->table_offset, 0xff, table);
	vhd_footer_encode(i, m->mem + i->table_offset + table);
	m->file_size = i->table_offset + table + VHD_FOOTER_BYTES;
	put(m, 0, m->file_size, m->mem);
	return 0;
}

static int make_vhd(const struct vimg_spec *s, struct vimg_made *m, struct csv_err *err)
{
	struct vhd_info i;
	int rc = vhd_fixed_new(s->size, s->guid[0], s->now_s, &i, err);

	if (!rc && s->sector_size && s->sector_size != 512)
		rc = csv_err_set(err, -EINVAL, "sector-size %" PRIu32 ": a VHD has 512", s->sector_size);
	if (!rc && s->type == VIMG_FIXED && s->block_size)
		rc = csv_err_set(err, -EINVAL, "block-size %" PRIu32 ": a fixed VHD has no blocks", s->block_size);
	if (!rc)
		rc = s->type == VIMG_FIXED ? make_vhd_fixed(&i, m, err) :
					     make_vhd_dynamic(&i, s->block_size ? s->block_size : BLOCK_USUAL, m, err);
	return rc ? rc : vimg_of_vhd(&i, m->mem + (s->type == VIMG_FIXED ? 0 : m->file_size - VHD_FOOTER_BYTES), &m->image, err);
}

/* ---- VHDX ----------------------------------------------------------------------------------------------------------------------------- */

static int check_vhdx(const struct vimg_spec *s, const struct vhdx_params *p, struct csv_err *err)
{
	if (p->sector_size != 512 && p->sector_size != 4096)
		return csv_err_set(err, -EINVAL, "sector-size %" PRIu32 ": must be 512 or 4096", p->sector_size);
	if (!s->size || s->size > VHDX_SIZE_MAX || s->size % p->sector_size)
		return csv_err_set(err, -EINVAL, "size %" PRIu64 ": a VHDX has a multiple of its sector size %" PRIu32 ", at most %" PRIu64 " (64T)",
				   s->size, p->sector_size, (uint64_t)VHDX_SIZE_MAX);
	return check_block(p->block_size, VHDX_BLOCK_MIN, VHDX_BLOCK_MAX, "VHDX", err);
}

static void put_file_id(struct vimg_made *m, uint8_t *at)
{
	memcpy(at, VHDX_FILE_ID, 8);
	for (size_t k = 0; k < strlen(CREATOR); k++)
		at[8 + 2 * k] = (uint8_t)CREATOR[k];		/* UTF-16, little endian */
	put(m, 0, VIMG_SECTOR, at);
}

/* Of a fixed one: all there, in order. */
static void fill_bat(const struct vimg *v, uint64_t data_off, uint8_t *bat)
{
	for (uint64_t b = 0; b < v->blocks; b++) {
		struct vimg_entry e;

		vimg_record_make(v, data_off + b * v->block_size, &e);
		vimg_entry_encode(v, b, &e, bat + (vimg_entry_off(v, b) - v->bat_off));
	}
}

static int make_vhdx(const struct vimg_spec *s, struct vimg_made *m, struct csv_err *err)
{
	struct vhdx_params p = {
		.block_size = s->block_size ? s->block_size : s->size > LARGE ? BLOCK_LARGE : BLOCK_USUAL,
		.leave_allocated = s->type == VIMG_FIXED, .virtual_size = s->size, .sector_size = s->sector_size ? s->sector_size : 512,
		.physical_sector_size = 4096,
	};
	struct vhdx_header h = { .sequence = 1, .version = 1, .log_bytes = LOG_BYTES, .log_off = VHDX_HEAD_AREA };
	struct vhdx_regions r = { .meta = { VHDX_HEAD_AREA + LOG_BYTES, META_BYTES } };
	uint8_t *head[2], *region, *meta, *bat;
	uint64_t bat_bytes;
	int rc = check_vhdx(s, &p, err);

	if (rc)
		return rc;
	memcpy(p.page83, s->guid[0], 16);
	memcpy(h.file_guid, s->guid[1], 16);
	memcpy(h.data_guid, s->guid[2], 16);
	bat_bytes = vhdx_bat_entries(&p) * 8;
	r.bat = (struct vhdx_region){ r.meta.off + META_BYTES, (uint32_t)csv_round_up(bat_bytes, VHDX_MIB) };
	rc = vimg_of_vhdx(&p, &r, &h, &m->image, err);
	if (!rc)
		rc = room(m, VIMG_SECTOR + 2 * VHDX_HEADER_BYTES + VHDX_REGION_BYTES + VHDX_META_TABLE_BYTES + 64 +
			     (s->type == VIMG_FIXED ? bat_bytes : 0), 8, err);
	if (rc)
		return rc;
	head[0] = m->mem + VIMG_SECTOR;
	head[1] = head[0] + VHDX_HEADER_BYTES;
	region = head[1] + VHDX_HEADER_BYTES;
	meta = region + VHDX_REGION_BYTES;
	bat = meta + VHDX_META_TABLE_BYTES + 64;
	put_file_id(m, m->mem);
	for (unsigned n = 0; n < 2; n++, h.sequence++) {
		vhdx_header_encode(&h, head[n]);
		put(m, VHDX_HEADER_OFF(n), VHDX_HEADER_BYTES, head[n]);
		m->image.vhdx_header = h;
		m->image.vhdx_current = n;
	}
	vhdx_region_encode(&r, region);
	put(m, VHDX_REGION_OFF(0), VHDX_REGION_BYTES, region);
	put(m, VHDX_REGION_OFF(1), VHDX_REGION_BYTES, region);
	put(m, r.meta.off, vhdx_meta_encode(&p, meta), meta);
	m->file_size = r.bat.off + r.bat.len;
	if (s->type == VIMG_FIXED) {
		m->data_off = m->file_size;
		m->file_size += m->image.blocks * p.block_size;
		fill_bat(&m->image, m->data_off, bat);
		put(m, r.bat.off, bat_bytes, bat);
	}
	return 0;
}

int vimg_make(const struct vimg_spec *spec, struct vimg_made *ret, struct csv_err *err)
{
	struct vimg_made m = { .n = 0 };
	int rc;

	if (spec->type == VIMG_DIFF)
		return csv_err_set(err, -CSV_E_UNSUPPORTED, "differencing disks are not supported yet");
	rc = spec->format == VIMG_VHD ? make_vhd(spec, &m, err) : make_vhdx(spec, &m, err);
	if (rc)
		vimg_made_done(&m);
	else
		*ret = m;
	return rc;
}
