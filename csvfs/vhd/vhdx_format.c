/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vhdx_format.c - see vhdx_format.h.
 */
#include "csvfs/vhd/vhdx_format.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "utils/base/crc32c.h"
#include "utils/base/text.h"

const uint8_t vhdx_guid_zero[16];
const uint8_t vhdx_guid_bat[16] = { 0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08 };
const uint8_t vhdx_guid_meta[16] = { 0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e };
const uint8_t vhdx_guid_item[VHDX_ITEMS][16] = {
	[VHDX_FILE_PARAMETERS] = { 0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b },
	[VHDX_VIRTUAL_SIZE] = { 0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8 },
	[VHDX_LOGICAL_SECTOR] = { 0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f },
	[VHDX_PHYSICAL_SECTOR] = { 0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56 },
	[VHDX_PAGE_83] = { 0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46 },
	[VHDX_PARENT_LOCATOR] = { 0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c },
};
static const struct { const char *name; uint32_t len; } items[VHDX_ITEMS] = {
	[VHDX_FILE_PARAMETERS] = { "file parameters", 8 }, [VHDX_VIRTUAL_SIZE] = { "virtual disk size", 8 },
	[VHDX_LOGICAL_SECTOR] = { "logical sector size", 4 }, [VHDX_PHYSICAL_SECTOR] = { "physical sector size", 4 },
	[VHDX_PAGE_83] = { "page 83 data", 16 }, [VHDX_PARENT_LOCATOR] = { "parent locator", 0 },
};

#define BAD(err, ...) csv_err_set(err, -CSV_E_CORRUPT, __VA_ARGS__)

uint32_t vhdx_checksum(const void *p, size_t size, size_t checksum_off)
{
	static const uint8_t zero[4];
	const uint8_t *b = p;
	uint32_t crc = csv_crc32c(0, b, checksum_off);

	crc = csv_crc32c(crc, zero, 4);
	return csv_crc32c(crc, b + checksum_off + 4, size - checksum_off - 4);
}

/* As people write a GUID: its first three numbers are little-endian. */
static const char *guid_text(const uint8_t g[static 16], char ret[static CSV_UUID_TEXT_BYTES])
{
	uint8_t u[16] = { g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6] };

	memcpy(u + 8, g + 8, 8);
	return csv_uuid_to_text(u, ret);
}

/* ---- headers ---------------------------------------------------------------------------------------------------------------------- */

/* Headers and region tables begin alike. */
static int sealed_valid(const char *what, unsigned n, const void *p, uint32_t bytes, const char *signature, struct csv_err *err)
{
	const struct vhdx_region_head *h = p;
	uint32_t is = le32_get(h->checksum), want;

	if (memcmp(h->signature, signature, 4))
		return BAD(err, "%s %u: signature is not \"%s\"", what, n, signature);
	want = vhdx_checksum(p, bytes, offsetof(struct vhdx_region_head, checksum));
	if (is != want)
		return BAD(err, "%s %u: checksum is 0x%08" PRIx32 ", must be 0x%08" PRIx32 " for these contents", what, n, is, want);
	return 0;
}

static int header_valid(const void *p, unsigned n, struct csv_err *err)
{
	return sealed_valid("header", n, p, VHDX_HEADER_BYTES, "head", err);
}

bool vhdx_header_is_valid(const void *p)
{
	return !header_valid(p, 0, NULL);
}

static int header_check(const struct vhdx_header *h, unsigned n, uint64_t file_size, struct csv_err *err)
{
	uint64_t end;

	if (h->version != 1)
		return BAD(err, "header %u: version is %u, must be 1", n, h->version);
	if (h->log_version != 0)
		return BAD(err, "header %u: log_version is %u, must be 0", n, h->log_version);
	if (h->log_bytes % VHDX_MIB)
		return BAD(err, "header %u: log_length is %" PRIu32 ", must be a multiple of 1 MiB", n, h->log_bytes);
	if (!h->log_bytes) {
		if (memcmp(h->log_guid, vhdx_guid_zero, 16))
			return BAD(err, "header %u: log_length is 0, must be 1 MiB or more while log_guid is not zero", n);
		return 0;
	}
	if (h->log_off % VHDX_MIB || h->log_off < VHDX_HEAD_AREA)
		return BAD(err, "header %u: log_offset is %" PRIu64 ", must be a multiple of 1 MiB, and 1 MiB or more", n, h->log_off);
	if (csv_add_overflow(h->log_off, h->log_bytes, &end) || end > file_size)
		return BAD(err, "header %u: log_offset is %" PRIu64 " and log_length %" PRIu32 ", must end inside the file of %" PRIu64 " bytes", n,
			   h->log_off, h->log_bytes, file_size);
	return 0;
}

static void header_get(const void *p, struct vhdx_header *ret)
{
	const struct vhdx_header_disk *d = p;

	*ret = (struct vhdx_header){
		.sequence = le64_get(d->sequence_number), .log_version = le16_get(d->log_version), .version = le16_get(d->version),
		.log_bytes = le32_get(d->log_length), .log_off = le64_get(d->log_offset),
	};
	memcpy(ret->file_guid, d->file_write_guid, 16);
	memcpy(ret->data_guid, d->data_write_guid, 16);
	memcpy(ret->log_guid, d->log_guid, 16);
}

int vhdx_header_choose(const void *h0, const void *h1, uint64_t file_size, struct vhdx_header *ret, unsigned *ret_current,
		       bool *ret_other_bad, struct csv_err *err)
{
	const void *p[2] = { h0, h1 };
	struct csv_err bad[2] = { CSV_ERR_INIT, CSV_ERR_INIT };
	struct vhdx_header h[2];
	bool ok[2];
	unsigned cur;
	int rc;

	for (unsigned n = 0; n < 2; n++) {
		ok[n] = !header_valid(p[n], n, &bad[n]);
		if (ok[n])
			header_get(p[n], &h[n]);
	}
	if (!ok[0] && !ok[1])
		return BAD(err, "both headers are bad: %s; %s", bad[0].text, bad[1].text);
	/* Disk2vhd leaves two that are the same. */
	if (ok[0] && ok[1] && h[0].sequence == h[1].sequence && memcmp(h0, h1, VHDX_HEADER_BYTES))
		return BAD(err, "headers 0 and 1: sequence_number is %" PRIu64 " in both, must differ as their contents do", h[0].sequence);
	cur = !ok[0] || (ok[1] && h[1].sequence > h[0].sequence);
	rc = header_check(&h[cur], cur, file_size, err);
	if (rc)
		return rc;
	*ret = h[cur];
	*ret_current = cur;
	*ret_other_bad = !ok[!cur];
	return 0;
}

void vhdx_header_encode(const struct vhdx_header *h, void *ret4096)
{
	struct vhdx_header_disk *d = ret4096;

	memset(d, 0, sizeof(*d));
	memcpy(d->signature, "head", 4);
	d->sequence_number = le64_of(h->sequence);
	memcpy(d->file_write_guid, h->file_guid, 16);
	memcpy(d->data_write_guid, h->data_guid, 16);
	memcpy(d->log_guid, h->log_guid, 16);
	d->log_version = le16_of(h->log_version);
	d->version = le16_of(h->version);
	d->log_length = le32_of(h->log_bytes);
	d->log_offset = le64_of(h->log_off);
	d->checksum = le32_of(vhdx_checksum(d, sizeof(*d), offsetof(struct vhdx_header_disk, checksum)));
}

/* ---- regions ----------------------------------------------------------------------------------------------------------------------- */

static int region_valid(const void *p, unsigned n, struct csv_err *err)
{
	return sealed_valid("region table", n, p, VHDX_REGION_BYTES, "regi", err);
}

static int region_place(const char *name, const struct vhdx_region *r, uint64_t file_size, struct csv_err *err)
{
	uint64_t end;

	if (!r->len || r->len % VHDX_MIB)
		return BAD(err, "region table: %s: length is %" PRIu32 ", must be a multiple of 1 MiB and not 0", name, r->len);
	if (r->off % VHDX_MIB || r->off < VHDX_HEAD_AREA)
		return BAD(err, "region table: %s: file_offset is %" PRIu64 ", must be a multiple of 1 MiB, and 1 MiB or more", name, r->off);
	if (csv_add_overflow(r->off, r->len, &end) || end > file_size)
		return BAD(err, "region table: %s: file_offset is %" PRIu64 " and length %" PRIu32 ", must end inside the file of %" PRIu64 " bytes",
			   name, r->off, r->len, file_size);
	return 0;
}

static bool overlap(const struct vhdx_region *a, const struct vhdx_region *b)
{
	return a->off < b->off + b->len && b->off < a->off + a->len;
}

/* Everything has been placed: nothing overlaps, the sums fit. */
static int region_overlaps(const struct vhdx_regions *r, const struct vhdx_header *h, struct csv_err *err)
{
	struct vhdx_region all[VHDX_OTHER_REGIONS_MAX + 3] = { r->bat, r->meta };
	const char *name[VHDX_OTHER_REGIONS_MAX + 3] = { "BAT", "metadata" };
	unsigned n = 2;

	if (h->log_bytes) {
		all[n] = (struct vhdx_region){ h->log_off, h->log_bytes };
		name[n++] = "log";
	}
	for (unsigned k = 0; k < r->n_other; k++) {
		all[n] = r->other[k];
		name[n++] = "unknown region";
	}
	for (unsigned a = 0; a < n; a++)
		for (unsigned b = a + 1; b < n; b++)
			if (overlap(&all[a], &all[b]))
				return BAD(err, "region table: %s: file_offset is %" PRIu64 " (length %" PRIu32 "), must not overlap the %s at %" PRIu64
						" (length %" PRIu32 ")", name[a], all[a].off, all[a].len, name[b], all[b].off, all[b].len);
	return 0;
}

static int region_decode(const void *p, const struct vhdx_header *h, uint64_t file_size, struct vhdx_regions *ret, struct csv_err *err)
{
	const struct vhdx_region_head *head = p;
	const struct vhdx_region_entry *e = (const struct vhdx_region_entry *)(head + 1);
	uint32_t n = le32_get(head->entry_count);
	char text[CSV_UUID_TEXT_BYTES];
	struct vhdx_regions r = { .n_other = 0 };
	int rc;

	if (!n || n > VHDX_REGION_ENTRIES_MAX)
		return BAD(err, "region table: entry_count is %" PRIu32 ", must be 1 to %u", n, VHDX_REGION_ENTRIES_MAX);
	if (le32_get(head->reserved))
		return BAD(err, "region table: reserved is 0x%" PRIx32 ", must be 0", le32_get(head->reserved));
	for (uint32_t k = 0; k < n; k++) {
		struct vhdx_region x = { le64_get(e[k].file_offset), le32_get(e[k].length) };
		uint32_t flags = le32_get(e[k].flags);
		bool bat = !memcmp(e[k].guid, vhdx_guid_bat, 16), meta = !memcmp(e[k].guid, vhdx_guid_meta, 16);
		const char *name = bat ? "BAT" : meta ? "metadata" : guid_text(e[k].guid, text);

		if (flags & ~VHDX_REGION_REQUIRED)
			return BAD(err, "region table: %s: flags is 0x%" PRIx32 ", must be 0 or 1", name, flags);
		if (!bat && !meta && flags & VHDX_REGION_REQUIRED)
			return csv_err_set(err, -CSV_E_UNSUPPORTED, "region table: %s: an unknown region, and flags say that it must be understood",
					   name);
		for (uint32_t j = 0; j < k; j++)
			if (!memcmp(e[j].guid, e[k].guid, 16))
				return BAD(err, "region table: %s: is there twice, must be once", name);
		rc = region_place(name, &x, file_size, err);
		if (rc)
			return rc;
		if (bat)
			r.bat = x;
		else if (meta)
			r.meta = x;
		else if (r.n_other == VHDX_OTHER_REGIONS_MAX)
			return csv_err_set(err, -CSV_E_UNSUPPORTED, "region table: entry_count is %" PRIu32 ", more than %u unknown regions are "
								    "not supported", n, VHDX_OTHER_REGIONS_MAX);
		else
			r.other[r.n_other++] = x;
	}
	if (!r.bat.len || !r.meta.len)
		return BAD(err, "region table: the region \"%s\" is missing", r.bat.len ? "metadata" : "BAT");
	rc = region_overlaps(&r, h, err);
	if (!rc)
		*ret = r;
	return rc;
}

int vhdx_region_choose(const void *r0, const void *r1, const struct vhdx_header *h, uint64_t file_size, struct vhdx_regions *ret,
		       bool *ret_other_bad, struct csv_err *err)
{
	struct csv_err bad[2] = { CSV_ERR_INIT, CSV_ERR_INIT };
	bool ok0 = !region_valid(r0, 0, &bad[0]), ok1 = !region_valid(r1, 1, &bad[1]);
	int rc;

	if (!ok0 && !ok1)
		return BAD(err, "both region tables are bad: %s; %s", bad[0].text, bad[1].text);
	rc = region_decode(ok0 ? r0 : r1, h, file_size, ret, err);
	if (!rc)
		*ret_other_bad = !ok0 || !ok1 || memcmp(r0, r1, VHDX_REGION_BYTES);
	return rc;
}

void vhdx_region_encode(const struct vhdx_regions *r, void *ret64k)
{
	struct vhdx_region_head *h = ret64k;
	struct vhdx_region_entry *e = (struct vhdx_region_entry *)(h + 1);

	memset(h, 0, VHDX_REGION_BYTES);
	memcpy(h->signature, "regi", 4);
	h->entry_count = le32_of(2);
	memcpy(e[0].guid, vhdx_guid_bat, 16);
	e[0].file_offset = le64_of(r->bat.off);
	e[0].length = le32_of(r->bat.len);
	memcpy(e[1].guid, vhdx_guid_meta, 16);
	e[1].file_offset = le64_of(r->meta.off);
	e[1].length = le32_of(r->meta.len);
	e[0].flags = e[1].flags = le32_of(VHDX_REGION_REQUIRED);
	h->checksum = le32_of(vhdx_checksum(h, VHDX_REGION_BYTES, offsetof(struct vhdx_region_head, checksum)));
}

/* ---- metadata ------------------------------------------------------------------------------------------------------------------------ */

static int meta_known(const struct vhdx_meta_entry *e)
{
	for (int k = 0; k < VHDX_ITEMS; k++)
		if (!(le32_get(e->flags) & VHDX_META_IS_USER) && !memcmp(e->item_id, vhdx_guid_item[k], 16))
			return k;
	return -1;
}

static int meta_entry_check(const struct vhdx_meta_entry *e, const char *name, uint32_t region_len, struct csv_err *err)
{
	uint32_t off = le32_get(e->offset), len = le32_get(e->length), flags = le32_get(e->flags);
	int known = meta_known(e);

	if (flags & ~(VHDX_META_IS_USER | VHDX_META_IS_VIRTUAL_DISK | VHDX_META_IS_REQUIRED))
		return BAD(err, "metadata: %s: flags is 0x%" PRIx32 ", only bits 0 to 2 are known", name, flags);
	if (le32_get(e->reserved2))
		return BAD(err, "metadata: %s: reserved is 0x%" PRIx32 ", must be 0", name, le32_get(e->reserved2));
	if (!memcmp(e->item_id, vhdx_guid_zero, 16))
		return BAD(err, "metadata: item_id is all zero, must be an item's number");
	if (known < 0 && flags & VHDX_META_IS_REQUIRED)
		return csv_err_set(err, -CSV_E_UNSUPPORTED, "metadata: %s: an unknown item%s, and flags say that it must be understood", name,
				   flags & VHDX_META_IS_USER ? " of a user's" : "");
	if (!len && off)
		return BAD(err, "metadata: %s: offset is %" PRIu32 ", must be 0 as its length", name, off);
	if (len && (off < VHDX_META_TABLE_BYTES || len > VHDX_META_ITEM_MAX || (uint64_t)off + len > region_len))
		return BAD(err, "metadata: %s: offset is %" PRIu32 " and length %" PRIu32 ", must lie between 65536 and the region's end at %" PRIu32
				", and be 1 MiB or less", name, off, len, region_len);
	if (known >= 0 && items[known].len && len != items[known].len)
		return BAD(err, "metadata: %s: length is %" PRIu32 ", must be %" PRIu32, name, len, items[known].len);
	return 0;
}

int vhdx_meta_decode(const void *table, uint32_t region_len, struct vhdx_meta *ret, struct csv_err *err)
{
	const struct vhdx_meta_head *h = table;
	const struct vhdx_meta_entry *e = (const struct vhdx_meta_entry *)(h + 1);
	uint32_t n = le16_get(h->entry_count), users = 0;
	char text[CSV_UUID_TEXT_BYTES];
	struct vhdx_meta m = { .item = { { 0 } } };
	int rc;

	if (memcmp(h->signature, "metadata", 8))
		return BAD(err, "metadata: signature is not \"metadata\"");
	if (n > VHDX_META_ENTRIES_MAX)
		return BAD(err, "metadata: entry_count is %" PRIu32 ", must be at most %u", n, VHDX_META_ENTRIES_MAX);
	for (uint32_t k = 0; k < n; k++) {
		int known = meta_known(&e[k]);
		const char *name = known >= 0 ? items[known].name : guid_text(e[k].item_id, text);
		uint64_t off = le32_get(e[k].offset), len = le32_get(e[k].length);

		rc = meta_entry_check(&e[k], name, region_len, err);
		if (rc)
			return rc;
		users += le32_get(e[k].flags) & VHDX_META_IS_USER;
		if (users > VHDX_META_USER_MAX)
			return BAD(err, "metadata: entry_count is %" PRIu32 ", more than %u of them are users'", n, VHDX_META_USER_MAX);
		for (uint32_t j = 0; j < k; j++) {
			uint64_t o = le32_get(e[j].offset), l = le32_get(e[j].length);

			if (!memcmp(e[j].item_id, e[k].item_id, 16) && !((le32_get(e[j].flags) ^ le32_get(e[k].flags)) & VHDX_META_IS_USER))
				return BAD(err, "metadata: %s: is there twice, must be once", name);
			if (len && l && off < o + l && o < off + len)
				return BAD(err, "metadata: %s: offset is %" PRIu64 " (length %" PRIu64 "), must not overlap the item at %" PRIu64, name,
					   off, len, o);
		}
		if (known >= 0) {
			m.item[known].off = (uint32_t)off;
			m.item[known].len = (uint32_t)len;
		}
	}
	for (int k = 0; k <= VHDX_PAGE_83; k++)
		if (!m.item[k].len)
			return BAD(err, "metadata: the item \"%s\" is missing", items[k].name);
	*ret = m;
	return 0;
}

int vhdx_item_decode(enum vhdx_item item, const void *p, struct vhdx_params *ret, struct csv_err *err)
{
	const struct le32 *w = p;
	uint32_t x = item == VHDX_PAGE_83 ? 0 : le32_get(w[0]), flags;
	uint64_t size;

	switch (item) {
	case VHDX_FILE_PARAMETERS:
		flags = le32_get(w[1]);
		if (!csv_is_power_of_2(x) || x < VHDX_BLOCK_MIN || x > VHDX_BLOCK_MAX)
			return BAD(err, "file parameters: block_size is %" PRIu32 ", must be a power of two from 1 MiB to 256 MiB", x);
		if (flags & ~(VHDX_PARAM_LEAVE_ALLOCATED | VHDX_PARAM_HAS_PARENT))
			return BAD(err, "file parameters: flags is 0x%" PRIx32 ", only bits 0 and 1 are known", flags);
		ret->block_size = x;
		ret->leave_allocated = flags & VHDX_PARAM_LEAVE_ALLOCATED;
		ret->has_parent = flags & VHDX_PARAM_HAS_PARENT;
		return 0;
	case VHDX_VIRTUAL_SIZE:
		size = x | (uint64_t)le32_get(w[1]) << 32;
		if (!size || size > VHDX_SIZE_MAX)
			return BAD(err, "virtual disk size: is %" PRIu64 ", must be 1 to %" PRIu64 " (64 TiB)", size, (uint64_t)VHDX_SIZE_MAX);
		ret->virtual_size = size;
		return 0;
	case VHDX_LOGICAL_SECTOR: case VHDX_PHYSICAL_SECTOR:
		if (x != 512 && x != 4096)
			return BAD(err, "%s: is %" PRIu32 ", must be 512 or 4096", items[item].name, x);
		*(item == VHDX_LOGICAL_SECTOR ? &ret->sector_size : &ret->physical_sector_size) = x;
		return 0;
	case VHDX_PAGE_83:
		memcpy(ret->page83, p, 16);
		return 0;
	default:
		csv_assertf(0, "item %d", (int)item);
		return -EINVAL;
	}
}

uint64_t vhdx_bat_entries(const struct vhdx_params *p)
{
	uint64_t blocks = csv_div_round_up(p->virtual_size, p->block_size), ratio = vhdx_chunk_ratio(p);

	return p->has_parent ? csv_div_round_up(blocks, ratio) * (ratio + 1) : blocks + (blocks - 1) / ratio;
}

int vhdx_params_check(const struct vhdx_params *p, const struct vhdx_meta *m, const struct vhdx_region *bat, struct csv_err *err)
{
	uint64_t need;

	if (p->virtual_size % p->sector_size)
		return BAD(err, "virtual disk size: is %" PRIu64 ", must be a multiple of the logical sector size %" PRIu32, p->virtual_size,
			   p->sector_size);
	if (p->has_parent && !m->item[VHDX_PARENT_LOCATOR].len)
		return BAD(err, "file parameters: has_parent is set, but the item \"parent locator\" is missing");
	if (!p->has_parent && m->item[VHDX_PARENT_LOCATOR].len)
		return BAD(err, "file parameters: has_parent is not set, must be as there is an item \"parent locator\"");
	need = vhdx_bat_entries(p) * 8;
	if (need > bat->len)
		return BAD(err, "region table: BAT: length is %" PRIu32 ", must be at least %" PRIu64 " for a disk of %" PRIu64 " bytes in blocks of %"
				PRIu32, bat->len, need, p->virtual_size, p->block_size);
	return 0;
}

size_t vhdx_meta_encode(const struct vhdx_params *p, void *ret)
{
	uint32_t value[] = { p->block_size,
			     (p->leave_allocated ? VHDX_PARAM_LEAVE_ALLOCATED : 0) | (p->has_parent ? VHDX_PARAM_HAS_PARENT : 0),
			     (uint32_t)p->virtual_size, (uint32_t)(p->virtual_size >> 32), p->sector_size, p->physical_sector_size };
	struct vhdx_meta_head *h = ret;
	struct vhdx_meta_entry *e = (struct vhdx_meta_entry *)(h + 1);
	uint8_t *b = ret;
	uint32_t at = VHDX_META_TABLE_BYTES;

	memset(ret, 0, VHDX_META_TABLE_BYTES);
	memcpy(h->signature, "metadata", 8);
	h->entry_count = le16_of(VHDX_PAGE_83 + 1);
	for (unsigned k = 0; k < ARRAY_SIZE(value); k++) {
		struct le32 x = le32_of(value[k]);

		memcpy(b + at + 4 * k, &x, 4);
	}
	memcpy(b + at + sizeof(value), p->page83, 16);
	for (unsigned k = 0; k <= VHDX_PAGE_83; k++) {
		memcpy(e[k].item_id, vhdx_guid_item[k], 16);
		e[k].offset = le32_of(at);
		e[k].length = le32_of(items[k].len);
		e[k].flags = le32_of(VHDX_META_IS_REQUIRED | (k == VHDX_FILE_PARAMETERS ? 0 : VHDX_META_IS_VIRTUAL_DISK));
		at += items[k].len;
	}
	return at;
}
