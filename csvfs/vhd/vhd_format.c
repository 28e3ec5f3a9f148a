/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vhd_format.c - see vhd_format.h.
 */
#include "csvfs/vhd/vhd_format.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define NO_OFFSET UINT64_MAX
#define TABLE_ENTRIES_MAX ((uint32_t)(VHD_SIZE_MAX / VHD_SECTOR / 8))	/* blocks of 4 KiB: smaller ones are not taken */
#define BLOCK_MIN 4096u
#define BLOCK_MAX (256u << 20)
#define CLOCK_SKEW_S (2 * 86400)

const char *vhd_type_name(enum vhd_type t)
{
	switch (t) {
	case VHD_FIXED: return "fixed";
	case VHD_DYNAMIC: return "dynamic";
	case VHD_DIFF: return "differencing";
	}
	return "unknown";
}

/* Appendix of the specification, "CHS calculation". */
struct vhd_geometry vhd_geometry_of(uint64_t sectors)
{
	uint64_t total = csv_min(sectors, VHD_CHS_MAX), rest;
	uint32_t spt, heads;

	if (total >= 65535ull * 16 * 63) {
		spt = 255;
		heads = 16;
		rest = total / spt;
	} else {
		spt = 17;
		rest = total / spt;
		heads = (uint32_t)((rest + 1023) / 1024);
		if (heads < 4)
			heads = 4;
		if (rest >= heads * 1024ull || heads > 16) {
			spt = 31;
			heads = 16;
			rest = total / spt;
		}
		if (rest >= heads * 1024ull) {
			spt = 63;
			heads = 16;
			rest = total / spt;
		}
	}
	return (struct vhd_geometry){ (uint32_t)(rest / heads), heads, spt };
}

uint32_t vhd_checksum(const void *p, size_t size, size_t checksum_off)
{
	const uint8_t *b = p;
	uint32_t sum = 0;

	for (size_t i = 0; i < size; i++)
		if (i < checksum_off || i >= checksum_off + 4)
			sum += b[i];
	return ~sum;
}

/* Which programs take the size from the geometry: Virtual PC and who copied it.  The rest, Hyper-V first of all, go by current_size. */
static bool creator_uses_chs(const uint8_t app[4])
{
	static const char by_size[][5] = { "win ", "qem2", "d2v ", "tap\0", "CTXS", "d2v\0" };

	for (size_t i = 0; i < ARRAY_SIZE(by_size); i++)
		if (!memcmp(app, by_size[i], 4))
			return false;
	return true;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

/* ---- footer ------------------------------------------------------------------------------------------------------------- */

#define BAD(err, ...) csv_err_set(err, -CSV_E_CORRUPT, __VA_ARGS__)

static int decode_type(uint32_t type, uint64_t data_offset, struct vhd_info *i, struct csv_err *err)
{
	if (type < VHD_FIXED || type > VHD_DIFF)
		return BAD(err, "footer: disk_type is %" PRIu32 ", must be 2 (fixed), 3 (dynamic) or 4 (differencing)", type);
	/* The specification says 0xFFFFFFFF for a field of 64 bits: both readings exist. */
	if (type == VHD_FIXED && data_offset != NO_OFFSET && data_offset != UINT32_MAX)
		return BAD(err, "footer: data_offset is %" PRIu64 ", must be 0xffffffffffffffff (a fixed disk has no header)", data_offset);
	if (type != VHD_FIXED && (data_offset == NO_OFFSET || data_offset == UINT32_MAX))
		return BAD(err, "footer: data_offset is 0x%" PRIx64 ", must be the place of the dynamic header", data_offset);
	if (type != VHD_FIXED && data_offset < VHD_FOOTER_BYTES)
		return BAD(err, "footer: data_offset is %" PRIu64 ", must be 512 or more (behind the copy of the footer)", data_offset);
	if (type != VHD_FIXED && data_offset % VHD_SECTOR)
		return BAD(err, "footer: data_offset is %" PRIu64 ", must be a multiple of 512", data_offset);
	i->type = (enum vhd_type)type;
	i->data_offset = data_offset;
	return 0;
}

static int decode_size(const struct vhd_footer *f, struct vhd_info *i, struct csv_err *err)
{
	uint64_t size = be64_get(f->current_size), chs;

	i->original_size = be64_get(f->original_size);
	i->current_size = size;
	i->geo = (struct vhd_geometry){ be16_get(f->cylinders), f->heads, f->sectors };
	chs = vhd_geometry_sectors(i->geo);
	if (!size || size > VHD_SIZE_MAX)
		return BAD(err, "footer: current_size is %" PRIu64 ", must be 512 to %" PRIu64 " (2040 GiB)", size, (uint64_t)VHD_SIZE_MAX);
	if (size % VHD_SECTOR)
		return BAD(err, "footer: current_size is %" PRIu64 ", must be a multiple of 512", size);
	if (!chs || i->geo.heads > 16)
		return BAD(err, "footer: geometry is %u/%u/%u, must be 1-65535 cylinders, 1-16 heads, 1-255 sectors", i->geo.cylinders,
			   i->geo.heads, i->geo.sectors);
	if (chs != VHD_CHS_MAX && chs > size / VHD_SECTOR)
		return BAD(err, "footer: geometry is %u/%u/%u = %" PRIu64 " sectors, must be at most the %" PRIu64 " sectors of current_size",
			   i->geo.cylinders, i->geo.heads, i->geo.sectors, chs, size / VHD_SECTOR);
	i->size_from_chs = creator_uses_chs(f->creator_app) && chs != VHD_CHS_MAX;
	i->virtual_size = i->size_from_chs ? chs * VHD_SECTOR : size;
	return 0;
}

int vhd_footer_decode(const void *p, struct vhd_info *ret, struct csv_err *err)
{
	const struct vhd_footer *f = p;
	struct vhd_info i = { 0 };
	uint32_t v = be32_get(f->checksum), want;
	int rc;

	if (memcmp(f->cookie, VHD_COOKIE, 8))
		return csv_err_set(err, -EMEDIUMTYPE, "footer: cookie is not \"" VHD_COOKIE "\": this is not a VHD");
	want = vhd_checksum(p, VHD_FOOTER_BYTES, offsetof(struct vhd_footer, checksum));
	if (v != want)
		return BAD(err, "footer: checksum is 0x%08" PRIx32 ", must be 0x%08" PRIx32 " for these contents", v, want);
	i.features = be32_get(f->features);
	if (!(i.features & VHD_FEATURE_RESERVED))
		return BAD(err, "footer: features is 0x%" PRIx32 ", bit 1 (reserved) must be set", i.features);
	if (i.features & ~(VHD_FEATURE_RESERVED | VHD_FEATURE_TEMPORARY))
		return BAD(err, "footer: features is 0x%" PRIx32 ", only bits 0 (temporary) and 1 (reserved) are known", i.features);
	v = be32_get(f->version);
	if (v != VHD_VERSION)
		return BAD(err, "footer: version is 0x%08" PRIx32 ", must be 0x%08x (1.0)", v, VHD_VERSION);
	rc = decode_type(be32_get(f->disk_type), be64_get(f->data_offset), &i, err);
	if (!rc)
		rc = decode_size(f, &i, err);
	if (rc)
		return rc;
	if (f->saved_state > 1)
		return BAD(err, "footer: saved_state is %u, must be 0 or 1", f->saved_state);
	if (f->hidden > 1)
		return BAD(err, "footer: hidden (byte 85) is %u, must be 0 or 1", f->hidden);
	if (is_zero(f->uuid, sizeof(f->uuid)))
		return BAD(err, "footer: uuid is all zero, must be the image's own number");
	i.saved_state = f->saved_state;
	i.created_s = VHD_EPOCH_S + be32_get(f->timestamp);
	i.creator_version = be32_get(f->creator_version);
	memcpy(i.creator_raw, f->creator_app, 4);
	memcpy(i.creator_os, f->creator_os, 4);
	for (unsigned k = 0; k < 4; k++)
		i.creator_app[k] = f->creator_app[k] >= 0x20 && f->creator_app[k] < 0x7f ? (char)f->creator_app[k] : f->creator_app[k] ? '?' : ' ';
	memcpy(i.uuid, f->uuid, 16);
	*ret = i;
	return 0;
}

void vhd_footer_encode(const struct vhd_info *i, void *ret512)
{
	struct vhd_footer f = { .cookie = { 0 } };

	memcpy(f.cookie, VHD_COOKIE, 8);
	f.features = be32_of(i->features);
	f.version = be32_of(VHD_VERSION);
	f.data_offset = be64_of(i->data_offset);
	f.timestamp = be32_of((uint32_t)(i->created_s - VHD_EPOCH_S));
	memcpy(f.creator_app, i->creator_raw, 4);
	f.creator_version = be32_of(i->creator_version);
	memcpy(f.creator_os, i->creator_os, 4);
	f.original_size = be64_of(i->original_size);
	f.current_size = be64_of(i->current_size);
	f.cylinders = be16_of((uint16_t)i->geo.cylinders);
	f.heads = (uint8_t)i->geo.heads;
	f.sectors = (uint8_t)i->geo.sectors;
	f.disk_type = be32_of(i->type);
	memcpy(f.uuid, i->uuid, 16);
	f.saved_state = i->saved_state;
	f.checksum = be32_of(vhd_checksum(&f, sizeof(f), offsetof(struct vhd_footer, checksum)));
	memcpy(ret512, &f, sizeof(f));
}

/* ---- dynamic header ------------------------------------------------------------------------------------------------------- */

int vhd_dyn_header_decode(const void *p, uint64_t file_size, struct vhd_info *i, struct csv_err *err)
{
	const struct vhd_dyn_header *d = p;
	uint32_t entries = be32_get(d->max_table_entries), block = be32_get(d->block_size), v = be32_get(d->checksum), want;
	uint64_t table = be64_get(d->table_offset), end;

	if (memcmp(d->cookie, VHD_DYN_COOKIE, 8))
		return BAD(err, "dynamic header: cookie is not \"" VHD_DYN_COOKIE "\"");
	want = vhd_checksum(p, VHD_DYN_BYTES, offsetof(struct vhd_dyn_header, checksum));
	if (v != want)
		return BAD(err, "dynamic header: checksum is 0x%08" PRIx32 ", must be 0x%08" PRIx32 " for these contents", v, want);
	v = be32_get(d->version);
	if (v != VHD_VERSION)
		return BAD(err, "dynamic header: version is 0x%08" PRIx32 ", must be 0x%08x (1.0)", v, VHD_VERSION);
	if (be64_get(d->data_offset) != NO_OFFSET && be64_get(d->data_offset) != UINT32_MAX)
		return BAD(err, "dynamic header: data_offset is %" PRIu64 ", must be 0xffffffffffffffff", be64_get(d->data_offset));
	if (!csv_is_power_of_2(block) || block < BLOCK_MIN || block > BLOCK_MAX)
		return BAD(err, "dynamic header: block_size is %" PRIu32 ", must be a power of two from %u to %u", block, BLOCK_MIN, BLOCK_MAX);
	if (!entries || entries > TABLE_ENTRIES_MAX)
		return BAD(err, "dynamic header: max_table_entries is %" PRIu32 ", must be 1 to %u", entries, TABLE_ENTRIES_MAX);
	if ((uint64_t)entries * block < i->virtual_size)
		return BAD(err, "dynamic header: max_table_entries is %" PRIu32 ", must be at least %" PRIu64 " for a disk of %" PRIu64 " bytes",
			   entries, csv_div_round_up(i->virtual_size, block), i->virtual_size);
	if (table % VHD_SECTOR || table < VHD_FOOTER_BYTES)
		return BAD(err, "dynamic header: table_offset is %" PRIu64 ", must be a multiple of 512 behind the copy of the footer", table);
	if (csv_add_overflow(table, (uint64_t)entries * 4, &end) || end > file_size - VHD_FOOTER_BYTES)
		return BAD(err, "dynamic header: table_offset is %" PRIu64 ", its %" PRIu64 " bytes must end before the footer at %" PRIu64, table,
			   (uint64_t)entries * 4, file_size - VHD_FOOTER_BYTES);
	if (table < i->data_offset + VHD_DYN_BYTES && end > i->data_offset)
		return BAD(err, "dynamic header: table_offset is %" PRIu64 ", must not overlap the header at %" PRIu64 " (footer's data_offset)", table,
			   i->data_offset);
	i->table_offset = table;
	i->table_entries = entries;
	i->block_size = block;
	return 0;
}

void vhd_dyn_header_encode(const struct vhd_info *i, void *ret1024)
{
	struct vhd_dyn_header *d = ret1024;

	memset(d, 0, sizeof(*d));
	memcpy(d->cookie, VHD_DYN_COOKIE, 8);
	d->data_offset = be64_of(NO_OFFSET);
	d->table_offset = be64_of(i->table_offset);
	d->version = be32_of(VHD_VERSION);
	d->max_table_entries = be32_of(i->table_entries);
	d->block_size = be32_of(i->block_size);
	d->checksum = be32_of(vhd_checksum(d, sizeof(*d), offsetof(struct vhd_dyn_header, checksum)));
}

/* ---- a whole file ---------------------------------------------------------------------------------------------------------- */

static bool has_cookie(const uint8_t *p)
{
	return !memcmp(p, VHD_COOKIE, 8);
}

uint64_t vhd_probe_dyn_offset(const struct vhd_probe *p)
{
	const struct vhd_footer *f = (const struct vhd_footer *)p->tail;
	uint64_t off = be64_get(f->data_offset), end;

	if (p->file_size < 2 * VHD_FOOTER_BYTES + VHD_DYN_BYTES || !has_cookie(p->tail) || be32_get(f->disk_type) == VHD_FIXED)
		return 0;
	if (off < VHD_FOOTER_BYTES || off % VHD_SECTOR || csv_add_overflow(off, VHD_DYN_BYTES, &end) || end > p->file_size - VHD_FOOTER_BYTES)
		return 0;
	return off;
}

static int identify_fixed(const struct vhd_probe *p, const struct vhd_info *i, struct csv_err *err)
{
	uint64_t content = p->file_size - VHD_FOOTER_BYTES;

	if (i->current_size > content)
		return BAD(err, "file: %" PRIu64 " bytes long, must be %" PRIu64 " (current_size and the footer): the image is truncated",
			   p->file_size, i->current_size + VHD_FOOTER_BYTES);
	if (i->current_size < content)
		return BAD(err, "file: %" PRIu64 " bytes long, must be %" PRIu64 " (current_size and the footer): %" PRIu64 " bytes too many",
			   p->file_size, i->current_size + VHD_FOOTER_BYTES, content - i->current_size);
	return 0;
}

static int identify_dynamic(const struct vhd_probe *p, struct vhd_info *i, struct csv_err *err)
{
	struct vhd_info head;
	int rc;

	if (!vhd_probe_dyn_offset(p) || !p->has_dyn)
		return BAD(err, "footer: data_offset is %" PRIu64 ", the dynamic header must end before the footer at %" PRIu64, i->data_offset,
			   p->file_size - VHD_FOOTER_BYTES);
	rc = vhd_footer_decode(p->head, &head, err);
	if (rc) {
		csv_err_prefix(err, "copy of the footer at 0 (the one at the end is good)");
		return rc == -EMEDIUMTYPE ? -CSV_E_CORRUPT : rc;
	}
	if (memcmp(p->head, p->tail, VHD_FOOTER_BYTES))
		return BAD(err, "footer: differs from its copy at 0 (current_size %" PRIu64 " and %" PRIu64 "), must be the same", i->current_size,
			   head.current_size);
	return vhd_dyn_header_decode(p->dyn, p->file_size, i, err);
}

/* No footer at the end. */
static int identify_lost(const struct vhd_probe *p, struct csv_err *err)
{
	struct vhd_info head;

	if (!memcmp(p->head, "vhdxfile", 8))
		return csv_err_set(err, -CSV_E_UNSUPPORTED, "this is a VHDX, which is not supported yet; convert it: qemu-img convert -O vpc -o "
							    "subformat=fixed,force_size=on");
	if (!vhd_footer_decode(p->head, &head, NULL) && head.type != VHD_FIXED)
		return BAD(err, "footer: cookie is missing at %" PRIu64 ", must be \"" VHD_COOKIE "\"; the copy at 0 says a %s disk of %" PRIu64
				" bytes: the file was cut off; recover it read-only with qemu-img convert",
			   p->file_size - VHD_FOOTER_BYTES, vhd_type_name(head.type), head.virtual_size);
	return csv_err_set(err, -EMEDIUMTYPE, "no footer in the last 512 bytes (cookie \"" VHD_COOKIE "\"): not a VHD, or a VHD that was cut off");
}

int vhd_identify(const struct vhd_probe *p, struct vhd_info *ret, struct csv_err *err)
{
	struct vhd_info i, head;
	int rc;

	if (p->file_size < VHD_FOOTER_BYTES)
		return csv_err_set(err, -EMEDIUMTYPE, "file: %" PRIu64 " bytes long, a VHD has 1024 or more", p->file_size);
	if (!has_cookie(p->tail))
		return identify_lost(p, err);
	if (p->file_size % VHD_SECTOR || p->file_size < 2 * VHD_FOOTER_BYTES || p->file_size > INT64_MAX)
		return BAD(err, "file: %" PRIu64 " bytes long, must be a multiple of 512 and 1024 or more", p->file_size);
	rc = vhd_footer_decode(p->tail, &i, err);
	if (rc) {
		if (!vhd_footer_decode(p->head, &head, NULL) && head.type != VHD_FIXED)
			csv_err_prefix(err, "a good copy of the footer is at 0, use it for recovery only (qemu-img convert)");
		return rc;
	}
	rc = i.type == VHD_FIXED ? identify_fixed(p, &i, err) : identify_dynamic(p, &i, err);
	if (rc)
		return rc;
	*ret = i;
	return 0;
}

int vhd_may_open(const struct vhd_info *i, bool writing, struct csv_err *err)
{
	if (i->type != VHD_FIXED)
		return csv_err_set(err, -CSV_E_UNSUPPORTED, "%s VHDs are not supported yet as disks; convert it: qemu-img convert -O vpc -o "
							    "subformat=fixed,force_size=on", vhd_type_name(i->type));
	if (writing && i->saved_state)
		return csv_err_set(err, -EROFS, "footer: saved_state is 1: a virtual machine sleeps on this disk and would find it changed; wake it or "
						"drop its saved state where it was put to sleep");
	return 0;
}

int vhd_check_time(const struct vhd_info *i, int64_t now_s, struct csv_err *err)
{
	if (i->created_s > now_s + CLOCK_SKEW_S)
		return BAD(err, "footer: timestamp is %" PRId64 " s after now, must not be in the future", i->created_s - now_s);
	return 0;
}

int vhd_fixed_new(uint64_t size, const uint8_t uuid[static 16], int64_t now_s, struct vhd_info *ret, struct csv_err *err)
{
	struct vhd_info i = { .type = VHD_FIXED, .features = VHD_FEATURE_RESERVED, .data_offset = NO_OFFSET };

	if (!size || size > VHD_SIZE_MAX || size % VHD_SECTOR)
		return csv_err_set(err, -EINVAL, "size %" PRIu64 ": a VHD has a multiple of 512 bytes, at most %" PRIu64 " (2040G)", size,
				   (uint64_t)VHD_SIZE_MAX);
	i.created_s = csv_max(now_s, VHD_EPOCH_S);
	/* Readers go by current_size with this creator, so the disk has the size asked for and not the next geometry below. */
	memcpy(i.creator_raw, "qem2", 4);
	memcpy(i.creator_app, "qem2", 4);
	i.creator_version = 0x00050003;
	memcpy(i.creator_os, "Wi2k", 4);
	i.original_size = i.current_size = i.virtual_size = size;
	i.geo = vhd_geometry_of(size / VHD_SECTOR);
	/* Too small for any geometry: the largest one says nothing about the size. */
	if (!vhd_geometry_sectors(i.geo))
		i.geo = (struct vhd_geometry){ 65535, 16, 255 };
	memcpy(i.uuid, uuid, 16);
	*ret = i;
	return 0;
}
