/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvfs_dump.c - csvfs-dump: prints any block of a csvfs volume, field by field, as it lies on the device (nothing is replayed).
 *
 * The fields come from the lists in csvfs_format.h, so what is not printed is not on the disk.  A block that does not pass its
 * header check is printed all the same, with what is wrong in front.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "csvfs/btree.h"
#include "csvfs/format.h"
#include "journal/mhdr.h"
#include "utils/base/text.h"
#include "utils/tools/vtool.h"

#include "config.h"

struct tool {
	struct vtool v;
	const char *what;
	bool have_number;
	uint64_t number;
	struct csv_geom g;
	uint32_t magic;			/* of the block asked for */
	int exit;
};

static void usage(FILE *out)
{
	fputs("usage: csvfs-dump DEVICE [super | slot N | group N | bitmap G | inode I | block B | journal S | tree I]\n"
	      "\n"
	      "  super      superblock (the default)      slot N     slot state, heartbeat and orphan inode of slot N\n"
	      "  group N    header of group N             bitmap G   states of the blocks of group G, as runs\n"
	      "  inode I    inode and its body            tree I     the same with all nodes of its tree\n"
	      "  block B    any block, by what it says it is\n"
	      "  journal S  header and records of the journal of slot S\n", out);
}

/* ---- fields ------------------------------------------------------------------------------------------------------------ */

static void print_text(const uint8_t *p, uint32_t n)
{
	putchar('"');
	for (uint32_t i = 0; i < n && p[i]; i++)
		putchar(p[i] >= 0x20 && p[i] < 0x7f ? p[i] : '?');
	putchar('"');
}

static void print_fields(const struct csv_struct *st, const void *p, const char *indent);

static void print_field(const struct csv_field *f, const void *p, const char *indent)
{
	const struct csv_struct *sub = strncmp(f->type, "struct csv_", 11) ? NULL : csv_struct_by_name(f->type + 7);
	const uint8_t *at = (const uint8_t *)p + f->offset;
	uint64_t v;

	if (sub) {
		print_fields(sub, at, indent);
		return;
	}
	if (f->count > 64)	/* bits, areas, bodies: shown by what they hold */
		return;
	printf("%s%-18s ", indent, f->name);
	if (f->count > 1 && f->size == 1 && (!strcmp(f->name, "label") || !strcmp(f->name, "node_name")))
		print_text(at, f->count);
	else if (f->count > 1 && f->size == 1)
		for (uint32_t i = 0; i < f->count; i++)
			printf("%02x", at[i]);
	else
		for (uint32_t i = 0; i < f->count; i++) {
			v = csv_field_get(f, p, i);
			printf(i ? " %" PRIu64 : "%" PRIu64, v);
			if (v > 0xffff && f->count == 1)
				printf(" (0x%" PRIx64 ")", v);
		}
	putchar('\n');
}

static void print_fields(const struct csv_struct *st, const void *p, const char *indent)
{
	for (uint32_t i = 0; i < st->fields; i++)
		print_field(&st->field[i], p, indent);
}

/* ---- trees --------------------------------------------------------------------------------------------------------------- */

static void print_value(enum csv_bt_kind kind, const uint8_t *p, uint32_t len)
{
	const struct csv_extent *e = (const void *)p;
	const struct csv_dirent *d = (const void *)p;
	const struct csv_orphan *o = (const void *)p;

	switch (kind) {
	case CSV_BT_EXTENTS:
		printf("block %" PRIu64 " len %u flags 0x%x%s\n", le64_get(e->phys), le32_get(e->len), le32_get(e->flags),
		       le32_get(e->flags) & CSV_EXT_UNWRITTEN ? " unwritten" : "");
		break;
	case CSV_BT_DIR:
		printf("inode %" PRIu64 " gen %u type %u ", le64_get(d->ino), le32_get(d->gen), d->type);
		print_text(p + sizeof(*d), len - sizeof(*d));
		putchar('\n');
		break;
	case CSV_BT_ORPHANS:
		printf("gen %u kind %u target %" PRIu64 " step %" PRIu64 "\n", le32_get(o->gen), le32_get(o->kind), le64_get(o->target),
		       le64_get(o->step));
		break;
	default:
		printf("%u bytes\n", len);
	}
}

static void print_block(struct tool *t, uint64_t blkno, bool deep, int depth);

static void print_area(struct tool *t, const void *area, uint32_t len, bool deep, int depth)
{
	const struct csv_bt_head *h = area;
	const struct csv_bt_slot *s = (const void *)(h + 1);
	enum csv_bt_kind kind = (enum csv_bt_kind)le32_get(h->kind);
	struct csv_err err = CSV_ERR_INIT;

	print_fields(csv_struct_by_name("csv_bt_head"), area, "  ");
	if (bt_area_check(area, len, kind, &err) < 0) {
		printf("  BAD: %s\n", err.text);
		csv_hexdump(stdout, area, len, 0);
		return;
	}
	for (uint32_t i = 0; i < le16_get(h->count); i++) {
		const uint8_t *val = (const uint8_t *)area + le16_get(s[i].off);

		printf("  key %" PRIu64 " (0x%" PRIx64 "): ", le64_get(s[i].key), le64_get(s[i].key));
		if (le16_get(h->level))
			printf("child in block %" PRIu64 "\n", le64_get(*(const struct le64 *)val));
		else
			print_value(kind, val, le16_get(s[i].len));
	}
	/* A level names the depth below it at most: damage cannot make this endless, only long. */
	for (uint32_t i = 0; deep && depth < CSV_BT_LEVELS && le16_get(h->level) && i < le16_get(h->count); i++)
		print_block(t, le64_get(*(const struct le64 *)((const uint8_t *)area + le16_get(s[i].off))), true, depth + 1);
}

static void print_body(struct tool *t, const struct csv_inode *d, bool deep, int depth)
{
	uint32_t len = csv_min(le32_get(d->body_len), CSV_BODY_BYTES);

	if (le32_get(d->body) == CSV_BODY_TREE)
		print_area(t, d->body_bytes, CSV_BODY_BYTES, deep, depth);
	else if (le32_get(d->body) == CSV_BODY_INLINE)
		csv_hexdump(stdout, d->body_bytes, len, 0);
}

/* ---- blocks ---------------------------------------------------------------------------------------------------------------- */

static int read_block(struct tool *t, uint64_t blkno, void *buf)
{
	int r = blk_read(t->v.blk, blkno << CSV_BLOCK_SHIFT, buf, CSV_BLOCK_SIZE);

	if (r < 0)
		csv_err_set(&t->v.err, r, "block %" PRIu64 ": read: %s", blkno, csv_err_describe(r));
	return r;
}

static void print_bits(const struct tool *t, const struct csv_bitmap *b, uint64_t blkno)
{
	uint32_t group = csv_group_of(&t->g, blkno), first = 0, n = CSV_BITMAP_BLOCKS_COVERED;
	uint64_t start = 0;

	if (group != CSV_NO_GROUP && blkno > csv_group_start(&t->g, group)) {
		uint64_t index = blkno - csv_group_start(&t->g, group) - 1;
		uint64_t before = index * CSV_BITMAP_BLOCKS_COVERED, blocks = csv_group_blocks(&t->g, group);

		start = csv_group_start(&t->g, group) + before;
		n = before >= blocks ? 0 : (uint32_t)csv_min((uint64_t)n, blocks - before);
	}
	for (uint32_t i = 1; i <= n; i++) {
		if (i < n && csv_bits_get(b->bits, i) == csv_bits_get(b->bits, first))
			continue;
		printf("  %" PRIu64 "..%" PRIu64 " %s\n", start + first, start + i - 1, csv_blk_state_name(csv_bits_get(b->bits, first)));
		first = i;
	}
}

static void print_block(struct tool *t, uint64_t blkno, bool deep, int depth)
{
	uint8_t *p = blk_alloc(CSV_BLOCK_SIZE);
	const struct csv_struct *st;
	struct csv_err err = CSV_ERR_INIT;
	uint32_t magic;

	if (!p || read_block(t, blkno, p) < 0) {
		printf("block %" PRIu64 ": %s\n", blkno, p ? t->v.err.text : "out of memory");
		t->exit = 1;
		goto out;
	}
	magic = le32_get(((struct csv_mhdr *)p)->magic);
	if (!depth)
		t->magic = magic;
	st = csv_struct_by_magic(magic);
	if (!st) {
		printf("block %" PRIu64 ": no metadata\n", blkno);
		csv_hexdump(stdout, p, CSV_BLOCK_SIZE, blkno << CSV_BLOCK_SHIFT);
		goto out;
	}
	printf("block %" PRIu64 ": %s\n", blkno, st->text);
	if (mhdr_check(p, magic == CSV_MAGIC_SUPER ? NULL : t->g.uuid, magic, blkno, NULL, &err) < 0) {
		printf("  BAD: %s\n", err.text);
		t->exit = 1;
	}
	print_fields(st, p, "  ");
	if (magic == CSV_MAGIC_INODE)
		print_body(t, (struct csv_inode *)p, deep, depth);
	else if (magic == CSV_MAGIC_BTNODE)
		print_area(t, ((struct csv_btnode *)p)->area, CSV_BT_NODE_AREA, deep, depth);
	else if (magic == CSV_MAGIC_BITMAP)
		print_bits(t, (struct csv_bitmap *)p, blkno);
out:
	free(p);
}

/* ---- journal ------------------------------------------------------------------------------------------------------------------ */

static bool is_frame(const struct tool *t, const void *p, uint32_t magic, uint64_t blkno)
{
	return !mhdr_check(p, t->g.uuid, magic, blkno, NULL, NULL);
}

static void print_tags(const struct csv_jdesc *d)
{
	const struct csv_jtag *tag = (const void *)(d + 1);

	for (uint32_t i = 0; i < csv_min(le32_get(d->tags), (uint32_t)CSV_JDESC_TAGS); i++)
		printf("    %s block %" PRIu64 " (%s %" PRIu64 ") generation %" PRIu64 " seq %" PRIu64 "\n",
		       le32_get(tag[i].flags) & CSV_JTAG_REVOKE ? "revoke" : "image ", le64_get(tag[i].blkno),
		       mhdr_owner_name(le32_get(tag[i].owner_type)), le64_get(tag[i].owner_id), le64_get(tag[i].generation),
		       le64_get(tag[i].seq));
}

/* From the tail on, as long as one descriptor or commit follows the other. */
static void print_journal(struct tool *t, uint32_t slot)
{
	uint64_t start = csv_journal_blk(&t->g, slot), seq = 0;
	uint32_t cap = t->g.journal_blk - 1, pos, skip = 0, descs = 0, images = 0;
	uint8_t *p = blk_alloc(CSV_BLOCK_SIZE);
	const struct csv_jhead *h = (void *)p;
	const struct csv_jdesc *d = (void *)p;
	const struct csv_jcommit *c = (void *)p;

	print_block(t, start, false, 0);
	if (!p || read_block(t, start, p) < 0 || !is_frame(t, p, CSV_MAGIC_JHEAD, start))
		goto out;
	pos = le32_get(h->tail_blk);
	for (uint32_t n = 0; n < cap && pos >= 1 && pos <= cap; n++, pos = pos % cap + 1) {
		if (skip) {
			skip--;
			continue;
		}
		if (read_block(t, start + pos, p) < 0)
			break;
		if (is_frame(t, p, CSV_MAGIC_JDESC, start + pos) && le64_get(d->record_seq) > seq) {
			if (!le32_get(d->index)) {
				descs = le32_get(d->descs);
				images = le32_get(d->images);
				printf("  record %" PRIu64 " at %u: incarnation %" PRIu64 ", %u descriptors, %u images\n", le64_get(d->record_seq), pos,
				       le64_get(d->incarnation), descs, images);
			}
			print_tags(d);
			if (le32_get(d->index) + 1 == descs)
				skip = csv_min(images, cap);
		} else if (is_frame(t, p, CSV_MAGIC_JCOMMIT, start + pos) && le64_get(c->record_seq) > seq) {
			seq = le64_get(c->record_seq);
			printf("    commit %" PRIu64 " at %u: stable %" PRIu64 ", tail %" PRIu64 " at %u\n", seq, pos, le64_get(c->stable_seq),
			       le64_get(c->tail_seq), le32_get(c->tail_blk));
		} else {
			break;
		}
	}
	printf("  end of the log at %u\n", pos);
out:
	free(p);
}

/* ---- which ------------------------------------------------------------------------------------------------------------------------ */

static int want_below(struct tool *t, uint64_t limit)
{
	if (!t->have_number)
		return csv_err_set(&t->v.err, -EINVAL, "%s: which?  give a number below %" PRIu64, t->what, limit);
	if (t->number >= limit)
		return csv_err_set(&t->v.err, -EINVAL, "%s %" PRIu64 ": must be below %" PRIu64, t->what, t->number, limit);
	return 0;
}

static int dump(struct tool *t)
{
	const struct csv_geom *g = &t->g;
	int r = 0;

	if (!strcmp(t->what, "super")) {
		for (uint32_t i = 0; i < CSV_SUPER_COPIES; i++)
			print_block(t, csv_super_blk(g, i), false, 0);
	} else if (!strcmp(t->what, "slot")) {
		r = want_below(t, g->slots);
		if (!r) {
			print_block(t, csv_slot_blk(g, t->number), false, 0);
			print_block(t, csv_hbeat_blk(g, t->number), false, 0);
			print_block(t, csv_orphan_blk(g, t->number), false, 0);
		}
	} else if (!strcmp(t->what, "group")) {
		r = want_below(t, g->groups);
		if (!r)
			print_block(t, csv_group_start(g, t->number), false, 0);
	} else if (!strcmp(t->what, "bitmap")) {
		r = want_below(t, g->groups);
		for (uint32_t i = 0; !r && i < CSV_GROUP_BITMAPS; i++)
			print_block(t, csv_bitmap_blk(g, t->number, i), false, 0);
	} else if (!strcmp(t->what, "journal")) {
		r = want_below(t, g->slots);
		if (!r)
			print_journal(t, t->number);
	} else if (!strcmp(t->what, "block") || !strcmp(t->what, "inode") || !strcmp(t->what, "tree")) {
		r = want_below(t, t->v.blk->size_bytes >> CSV_BLOCK_SHIFT);
		if (!r)
			print_block(t, t->number, !strcmp(t->what, "tree"), 0);
		if (!r && strcmp(t->what, "block") && t->magic != CSV_MAGIC_INODE) {
			printf("BAD: block %" PRIu64 " is no inode\n", t->number);
			t->exit = 1;
		}
	} else {
		r = csv_err_set(&t->v.err, -EINVAL, "\"%s\": must be super, slot, group, bitmap, inode, block, journal or tree", t->what);
	}
	return r;
}

static int work(void *arg)
{
	struct tool *t = arg;
	struct csv_err note = CSV_ERR_INIT;
	int r = csv_super_read(t->v.blk, &t->g, &note, &t->v.err);

	if (note.code)
		fprintf(stderr, "csvfs-dump: note: %s\n", note.text);
	if (r < 0) {
		t->exit = 1;
		return r;
	}
	r = dump(t);
	if (r < 0)
		t->exit = 2;
	return r;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = { { "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' }, { 0 } };
	struct tool t = { .what = "super" };
	char *end;
	int c;

	while ((c = getopt_long(argc, argv, "hV", longs, NULL)) != -1) {
		switch (c) {
		case 'h': usage(stdout); return 0;
		case 'V': puts("csvfs-dump " PACKAGE_VERSION); return 0;
		default: usage(stderr); return 2;
		}
	}
	if (argc - optind < 1 || argc - optind > 3) {
		usage(stderr);
		return 2;
	}
	vtool_init(&t.v, argv[optind]);
	if (argc - optind > 1)
		t.what = argv[optind + 1];
	if (argc - optind > 2) {
		errno = 0;
		t.number = strtoull(argv[optind + 2], &end, 0);
		t.have_number = true;
		if (errno || *end || end == argv[optind + 2] || argv[optind + 2][0] == '-') {
			fprintf(stderr, "csvfs-dump: \"%s\": must be a number\n", argv[optind + 2]);
			return 2;
		}
	}
	if (vtool_run(&t.v, BLK_O_BUFFERED | BLK_O_RDONLY, "dump", work, &t) < 0) {
		fprintf(stderr, "csvfs-dump: %s\n", t.v.err.text);
		t.exit = t.exit ? t.exit : 1;
	}
	return t.exit;
}
