/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * format_table.c - the structures of the disk as data, generated from their field lists: for the dump and doc/format.md.
 *
 * Every list is checked at compile time: no holes (the sizes of the fields add up to the size of the structure), and the offsets
 * that other versions rely on stay where they are.
 */
#include <stdio.h>
#include <string.h>

#include "csvfs/format.h"
#include "journal/mhdr.h"

#define FIELD_S(t, n, text_) { #n, #t, offsetof(struct CSV_THIS, n), sizeof(t), 1, text_ },
#define FIELD_A(t, n, c, text_) { #n, #t, offsetof(struct CSV_THIS, n), sizeof(t), c, text_ },
#define SUM_S(t, n, text_) + sizeof(t)
#define SUM_A(t, n, c, text_) + sizeof(t) * (c)
#define TABLE(name, FIELDS)                                                                        \
	csv_static_assert(sizeof(struct name) == 0 FIELDS(SUM_S, SUM_A), #name " has a hole");     \
	static const struct csv_field name##_fields[] = { FIELDS(FIELD_S, FIELD_A) }

#define CSV_THIS csv_mhdr
TABLE(csv_mhdr, CSV_MHDR_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_super
TABLE(csv_super, CSV_SUPER_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_slot
TABLE(csv_slot, CSV_SLOT_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_hbeat
TABLE(csv_hbeat, CSV_HBEAT_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_group
TABLE(csv_group, CSV_GROUP_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_bitmap
TABLE(csv_bitmap, CSV_BITMAP_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_inode
TABLE(csv_inode, CSV_INODE_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_bt_head
TABLE(csv_bt_head, CSV_BT_HEAD_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_bt_slot
TABLE(csv_bt_slot, CSV_BT_SLOT_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_btnode
TABLE(csv_btnode, CSV_BTNODE_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_extent
TABLE(csv_extent, CSV_EXTENT_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_dirent
TABLE(csv_dirent, CSV_DIRENT_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_orphan
TABLE(csv_orphan, CSV_ORPHAN_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_jhead
TABLE(csv_jhead, CSV_JHEAD_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_jtag
TABLE(csv_jtag, CSV_JTAG_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_jdesc
TABLE(csv_jdesc, CSV_JDESC_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_jcommit
TABLE(csv_jcommit, CSV_JCOMMIT_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_lvb_inode
TABLE(csv_lvb_inode, CSV_LVB_INODE_FIELDS);
#undef CSV_THIS
#define CSV_THIS csv_lvb_group
TABLE(csv_lvb_group, CSV_LVB_GROUP_FIELDS);
#undef CSV_THIS

/* The header is in front of every block, and old volumes have these where they are. */
csv_assert_offset(struct csv_mhdr, crc, 4);
csv_assert_offset(struct csv_super, h, 0);
csv_assert_offset(struct csv_super, uuid, 64);
csv_assert_offset(struct csv_super, version, 112);
csv_assert_offset(struct csv_super, incompat, 136);
csv_assert_offset(struct csv_slot, h, 0);
csv_assert_offset(struct csv_hbeat, h, 0);
csv_assert_offset(struct csv_group, h, 0);
csv_assert_offset(struct csv_bitmap, bits, 64);
csv_assert_offset(struct csv_inode, h, 0);
csv_assert_offset(struct csv_btnode, area, 64);
csv_assert_offset(struct csv_jhead, h, 0);
csv_assert_offset(struct csv_jdesc, h, 0);
csv_assert_offset(struct csv_jcommit, h, 0);
csv_assert_size(struct csv_bt_head, 16);
csv_assert_size(struct csv_bt_slot, 16);
csv_assert_size(struct csv_extent, 16);
csv_assert_size(struct csv_dirent, 16);
csv_assert_size(struct csv_orphan, 24);
csv_static_assert(CSV_GROUP_BITMAPS * CSV_BITMAP_BLOCKS_COVERED >= CSV_GROUP_BLOCKS, "bitmaps cover a group");
csv_static_assert(sizeof(struct csv_lvb_group) <= 128, "group value block");

#define ENTRY(name, magic, text) { #name, text, sizeof(struct name), magic, name##_fields, ARRAY_SIZE(name##_fields) }
const struct csv_struct csv_structs[] = {
	ENTRY(csv_mhdr, 0, "header of every metadata block"),
	ENTRY(csv_super, CSV_MAGIC_SUPER, "superblock"),
	ENTRY(csv_slot, CSV_MAGIC_SLOT, "slot state"),
	ENTRY(csv_hbeat, CSV_MAGIC_HBEAT, "heartbeat"),
	ENTRY(csv_group, CSV_MAGIC_GROUP, "allocation group: header"),
	ENTRY(csv_bitmap, CSV_MAGIC_BITMAP, "allocation group: bitmap"),
	ENTRY(csv_inode, CSV_MAGIC_INODE, "inode"),
	ENTRY(csv_btnode, CSV_MAGIC_BTNODE, "B+tree node"),
	ENTRY(csv_bt_head, 0, "B+tree: head of an area"),
	ENTRY(csv_bt_slot, 0, "B+tree: slot of an area"),
	ENTRY(csv_extent, 0, "value in an extent tree"),
	ENTRY(csv_dirent, 0, "value in a directory tree"),
	ENTRY(csv_orphan, 0, "value in an orphan tree"),
	ENTRY(csv_jhead, CSV_MAGIC_JHEAD, "journal: header"),
	ENTRY(csv_jdesc, CSV_MAGIC_JDESC, "journal: descriptor"),
	ENTRY(csv_jtag, 0, "journal: tag in a descriptor"),
	ENTRY(csv_jcommit, CSV_MAGIC_JCOMMIT, "journal: commit"),
	ENTRY(csv_lvb_inode, 0, "value block of inode i (in the lock manager, not on disk)"),
	ENTRY(csv_lvb_group, 0, "value block of group g (in the lock manager, not on disk)"),
};
const uint32_t csv_structs_n = ARRAY_SIZE(csv_structs);

const struct csv_struct *csv_struct_by_magic(uint32_t magic)
{
	for (uint32_t i = 0; magic && i < csv_structs_n; i++)
		if (csv_structs[i].magic == magic)
			return &csv_structs[i];
	return NULL;
}

const struct csv_struct *csv_struct_by_name(const char *name)
{
	for (uint32_t i = 0; i < csv_structs_n; i++)
		if (!strcmp(csv_structs[i].name, name))
			return &csv_structs[i];
	return NULL;
}

uint64_t csv_field_get(const struct csv_field *f, const void *st, uint32_t index)
{
	const uint8_t *p = (const uint8_t *)st + f->offset + (size_t)f->size * index;
	uint64_t v = 0;

	csv_assertf(index < f->count && f->size <= 8, "field %s, index %u, size %u", f->name, index, f->size);
	for (uint32_t i = 0; i < f->size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

void csv_structs_print(FILE *out)
{
	for (uint32_t i = 0; i < csv_structs_n; i++) {
		const struct csv_struct *st = &csv_structs[i];

		fprintf(out, "\n### `struct %s`: %s\n", st->name, st->text);
		fprintf(out, "%u bytes", st->size);
		if (st->magic)
			fprintf(out, ", magic \"%c%c%c%c\"", (int)(st->magic & 0xff), (int)(st->magic >> 8 & 0xff),
				(int)(st->magic >> 16 & 0xff), (int)(st->magic >> 24));
		fprintf(out, "\n\n| offset | bytes | field | meaning |\n| ---: | ---: | --- | --- |\n");
		for (uint32_t k = 0; k < st->fields; k++) {
			const struct csv_field *f = &st->field[k];

			if (f->count > 1)
				fprintf(out, "| %u | %u × %u | `%s` | %s |\n", f->offset, f->count, f->size, f->name, f->text);
			else
				fprintf(out, "| %u | %u | `%s` | %s |\n", f->offset, f->size, f->name, f->text);
		}
	}
}

const char *csv_blk_state_name(uint32_t state)
{
	static const char *const name[4] = { "free", "data", "metadata", "inode" };

	return state < 4 ? name[state] : "?";
}

char *csv_owner_to_text(struct csv_owner o, char ret[static CSV_OWNER_TEXT])
{
	snprintf(ret, CSV_OWNER_TEXT, "%s %llu", mhdr_owner_name(o.type), (unsigned long long)o.id);
	return ret;
}
