/*
 * csvfs/check: bits flipped in every field of every kind of metadata block, with the checksum put right again.  Each must be found
 * and named, but for the few places where any value is as good as another (listed here).
 */
#include "tests/unit/check_volume.h"

#include "csvfs/btree_internal.h"

#define AREA_FLIPS 60u

struct target { const char *kind; uint64_t blkno; char object[40]; };

static struct csv_prng prng;
static unsigned flips, found, silent;

static struct csv_mhdr *hdr(uint64_t blkno) { return (struct csv_mhdr *)cv_blk(blkno); }
static struct csv_inode *ino(uint64_t blkno) { return (struct csv_inode *)cv_blk(blkno); }

static bool one_of(const char *name, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(*list, name))
			return true;
	return false;
}

/* May a changed field of this block stay unnoticed?  `bit` inside the field. */
static bool any_value_will_do(uint64_t blkno, const char *field, uint32_t bit)
{
	static const char *const slot[] = { "nodeid", "incarnation", "since_real_ns", "proof_kind", "proof_nodeid", "proof_incarnation",
					    "node_name", NULL };
	static const char *const hbeat[] = { "incarnation", "counter", "flags", "nodeid", NULL };
	static const char *const group[] = { "largest_run", "next_generation", NULL };
	static const char *const jhead[] = { "incarnation", "first_seq", "tail_blk", NULL };
	static const char *const inode[] = { "uid", "gid", "atime_ns", "mtime_ns", "ctime_ns", "btime_ns", "change", "map_version", "project",
					     NULL };
	uint32_t magic = le32_get(hdr(blkno)->magic), mode;

	if (!strcmp(field, "seq") || !strcmp(field, "crc") || !strcmp(field, "generation"))
		return magic != CSV_MAGIC_SUPER || !strcmp(field, "crc");
	switch (magic) {
	case CSV_MAGIC_SLOT: return one_of(field, slot);
	case CSV_MAGIC_HBEAT: return one_of(field, hbeat);
	case CSV_MAGIC_GROUP: return one_of(field, group);
	case CSV_MAGIC_JHEAD: return one_of(field, jhead);
	case CSV_MAGIC_INODE: break;
	default: return false;
	}
	mode = le32_get(ino(blkno)->mode);
	if (one_of(field, inode))
		return true;
	if (!strcmp(field, "mode"))
		return mode && bit < 12;				/* permissions */
	if (!strcmp(field, "flags"))
		return mode && (bit == 1 || (bit == 0 && S_ISREG(mode)));	/* IMMUTABLE, IMAGE */
	if (!strcmp(field, "gen"))
		return blkno == cv.root || !mode;			/* no entry says it */
	if (!strcmp(field, "size"))
		return S_ISREG(mode) && le32_get(ino(blkno)->body) == CSV_BODY_TREE && bit < 60;
	if (!strcmp(field, "rdev"))
		return S_ISCHR(mode) || S_ISBLK(mode);
	return false;
}

/* Two fields disagree: the message names the other one. */
static bool unnamed(const char *field)
{
	static const char *const list[] = {
		"state", "body", "body_len", "slots", "groups", "total_blk", "data_start_blk", "slot_start_blk", "hbeat_start_blk", "orphan_start_blk",
		"journal_start_blk", "journal_blk", NULL,
	};

	return one_of(field, list);
}

/* The block is changed: is that found, and is the object named?  The field too, where it has a value of its own. */
static void flip_and_check(const struct target *t, uint32_t byte, uint32_t bit, const char *field, bool may_be_silent)
{
	uint8_t old[CSV_BLOCK_SIZE], *p = cv_blk(t->blkno);
	struct csv_super was;
	bool ok;

	memcpy(old, p, sizeof(old));
	memcpy(&was, p, sizeof(was));
	p[byte] ^= 1u << bit;
	/* by the old magic: a new one is no reason for another seed */
	mhdr_seal(p, le32_get(was.h.magic) == CSV_MAGIC_SUPER ? NULL : cv.g.uuid);
	cv_check();
	flips++;
	ok = cv.r || cv.res.errors;
	ck_assert_msg(ok || may_be_silent, "%s: block %" PRIu64 ", byte %u, bit %u (%s): not found", t->kind, t->blkno, byte, bit, field ? field : "-");
	if (ok) {
		found++;
		/* An extent that points to a free block: the bitmap disagrees, and the block is named. */
		ck_assert_msg(may_be_silent || cv_says(t->object) || cv_says("it is in use, and could be given away"), "%s: byte %u, bit %u (%s): must name \"%s\", but says:\n%s", t->kind, byte, bit,
			      field ? field : "-", t->object, cv_lines());
		ck_assert_msg(may_be_silent || !field || cv_says(field) || unnamed(field), "%s: byte %u, bit %u: must name field \"%s\", but says:\n%s", t->kind,
			      byte, bit, field, cv_lines());
	} else {
		silent++;
	}
	memcpy(p, old, sizeof(old));
}

static void flip_fields(const struct target *t, const struct csv_struct *st, uint32_t base)
{
	for (uint32_t i = 0; i < st->fields; i++) {
		const struct csv_field *f = &st->field[i];
		uint32_t bytes = f->size * f->count;

		if (!strncmp(f->type, "struct csv_", 11)) {
			flip_fields(t, csv_struct_by_name(f->type + 7), base + f->offset);
			continue;
		}
		if (bytes > 256)
			continue;			/* bits and areas: flip_area() */
		/* first, last and one in between */
		for (uint32_t k = 0; k < csv_min(bytes, 3u); k++) {
			uint32_t b = k == 0 ? 0 : k == 1 ? bytes - 1 : csv_prng_below(&prng, bytes), bit = csv_prng_below(&prng, 8);

			flip_and_check(t, base + f->offset + b, bit, f->name, any_value_will_do(t->blkno, f->name, b * 8 + bit));
		}
	}
}

static void flip_all(const struct target *t)
{
	flip_fields(t, csv_struct_by_magic(le32_get(hdr(t->blkno)->magic)), 0);
}

/* ---- trees: where a change means nothing, or cannot be seen ------------------------------------------------------------------- */

static bool area_place_is_silent(struct area a, uint32_t at, uint32_t bit)
{
	const struct csv_bt_head *h = (void *)a.p;
	uint32_t n = area_count(a), kind = le32_get(h->kind), slots_end = sizeof(*h) + n * sizeof(struct csv_bt_slot);
	struct area_item it;

	if (at < sizeof(*h))
		return false;
	if (at < slots_end) {
		uint32_t in = (at - sizeof(*h)) % sizeof(struct csv_bt_slot);

		/* A separator may lie anywhere between its neighbours; where a hole is, and which index a name has, says nobody else. */
		return in < 8 && (area_level(a) || kind == CSV_BT_EXTENTS || (kind == CSV_BT_DIR && in == 0));
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t off;

		area_get(a, i, &it);
		off = (uint32_t)(it.val - a.p);
		if (at < off || at >= off + it.len)
			continue;
		if (area_level(a))
			return false;
		if (kind == CSV_BT_EXTENTS)
			return at - off == offsetof(struct csv_extent, flags) && bit == 0;
		return kind == CSV_BT_ORPHANS && at - off >= offsetof(struct csv_orphan, target);
	}
	return true;				/* free space */
}

static void flip_area(const struct target *t, uint32_t base, uint32_t len)
{
	struct area a = { cv_blk(t->blkno) + base, len };

	for (uint32_t i = 0; i < AREA_FLIPS; i++) {
		/* the head and the first slots more often than their share */
		uint32_t at = csv_prng_below(&prng, i % 2 ? 160 : len), bit = csv_prng_below(&prng, 8);

		flip_and_check(t, base + at, bit, NULL, area_place_is_silent(a, at, bit));
	}
}

static void say(const char *what)
{
	printf("%s: %u flips, %u found, %u without meaning\n", what, flips, found, silent);
	ck_assert_uint_ge(flips, 20);
	ck_assert_uint_gt(found, 0);
}

static void begin(uint64_t seed)
{
	csv_prng_init(&prng, seed);
	cv_populate_with_orphans();
	cv_check();
	CV_CLEAN();
}

static struct target target(const char *kind, uint64_t blkno, const char *fmt, uint64_t n)
{
	struct target t = { .kind = kind, .blkno = blkno };

	snprintf(t.object, sizeof(t.object), fmt, n);
	return t;
}

START_TEST(flips_in_superblocks_are_found)
{
	begin(1);
	for (uint32_t i = 0; i < CSV_SUPER_COPIES; i++) {
		struct target t = target("superblock", csv_super_blk(&cv.g, i), "block %" PRIu64, csv_super_blk(&cv.g, i));

		/* A superblock in order that this program cannot use is refused without looking further. */
		if (i)
			flip_all(&t);
		else
			snprintf(t.object, sizeof(t.object), "superblock"), flip_all(&t);
	}
	say("superblocks");
	cv_teardown();
}
END_TEST

START_TEST(flips_in_slots_and_heartbeats_are_found)
{
	struct target t;

	begin(2);
	t = target("slot", csv_slot_blk(&cv.g, 1), "slot %" PRIu64, 1);
	flip_all(&t);
	say("slot state");
	t = target("heartbeat", csv_hbeat_blk(&cv.g, 1), "heartbeat", 0);
	flip_all(&t);
	say("heartbeat");
	cv_teardown();
}
END_TEST

START_TEST(flips_in_groups_are_found)
{
	begin(3);
	for (uint32_t g = 0; g < cv.g.groups; g++) {
		struct target t = target("group", csv_group_start(&cv.g, g), "block %" PRIu64, csv_group_start(&cv.g, g));

		flip_all(&t);
		for (uint32_t i = 0; i < 20; i++)
			flip_and_check(&t, sizeof(struct csv_group) + csv_prng_below(&prng, CSV_BLOCK_SIZE - sizeof(struct csv_group)),
				       csv_prng_below(&prng, 8), NULL, false);
	}
	say("group headers");
	cv_teardown();
}
END_TEST

START_TEST(flips_in_bitmaps_are_found)
{
	begin(4);
	for (uint32_t i = 0; i < 6; i++) {
		uint64_t blkno = csv_bitmap_blk(&cv.g, i % cv.g.groups, i / cv.g.groups ? 1 + csv_prng_below(&prng, 16) : 0);
		struct target t = target("bitmap", blkno, "bitmap", 0);

		flip_all(&t);
		for (uint32_t k = 0; k < 60; k++)
			flip_and_check(&t, offsetof(struct csv_bitmap, bits) + csv_prng_below(&prng, CSV_BITMAP_BYTES), csv_prng_below(&prng, 8), NULL,
				       false);
	}
	say("bitmaps");
	cv_teardown();
}
END_TEST

START_TEST(flips_in_inodes_are_found)
{
	uint64_t list[11];

	begin(5);
	memcpy(list, (uint64_t[]){ cv.root, cv.dir, cv.sub, cv.many, cv.big, cv.fixed, cv.inl, cv.link, cv.dev, cv.orphan, cv.root }, sizeof(list));
	for (uint32_t i = 0; i < ARRAY_SIZE(list) - 1; i++) {
		struct target t = target("inode", list[i], "%" PRIu64, list[i]);

		flip_all(&t);
		if (le32_get(ino(list[i])->body) == CSV_BODY_TREE)
			flip_area(&t, offsetof(struct csv_inode, body_bytes), CSV_BODY_BYTES);
	}
	say("inodes");
	for (uint32_t s = 0; s < 2; s++) {
		struct target t = target("orphan inode", csv_orphan_blk(&cv.g, s), "orphan tree %" PRIu64, s);

		flip_all(&t);
		flip_area(&t, offsetof(struct csv_inode, body_bytes), CSV_BODY_BYTES);
	}
	say("and orphan inodes");
	cv_teardown();
}
END_TEST

START_TEST(flips_in_tree_nodes_are_found)
{
	begin(6);
	for (uint32_t i = 0; i < 4; i++) {
		uint64_t of = i % 2 ? cv.dir : cv.many;
		struct area root = { ino(of)->body_bytes, CSV_BODY_BYTES };
		uint64_t blkno;
		struct target t;

		ck_assert_uint_gt(area_level(root), 0);
		blkno = area_child(root, csv_prng_below(&prng, area_count(root)));
		t = target("tree node", blkno, "inode %" PRIu64, of);
		flip_all(&t);
		flip_area(&t, offsetof(struct csv_btnode, area), CSV_BT_NODE_AREA);
	}
	say("tree nodes");
	cv_teardown();
}
END_TEST

START_TEST(flips_in_journal_headers_are_found)
{
	begin(7);
	for (uint32_t s = 0; s < cv.g.slots; s++) {
		struct target t = target("journal", csv_journal_blk(&cv.g, s), "journal %" PRIu64, s);

		flip_all(&t);
		for (uint32_t i = 0; i < 20; i++)
			flip_and_check(&t, sizeof(struct csv_jhead) + csv_prng_below(&prng, CSV_BLOCK_SIZE - sizeof(struct csv_jhead)),
				       csv_prng_below(&prng, 8), NULL, false);
	}
	say("journal headers");
	cv_teardown();
}
END_TEST

/* Blocks of all kinds at once, several values each, whole words; sometimes in many passes.  It must come back, and see it nearly always. */
START_TEST(whatever_the_blocks_say_the_check_ends)
{
	uint64_t *meta = calloc(2000, sizeof(*meta)), n = 0;
	uint8_t *old = calloc(2000, CSV_BLOCK_SIZE);
	unsigned runs = 150;

	begin(8);
	for (uint64_t b = CSV_SB_BLOCK + 1; b < cv.g.total_blk - 1 && n < 2000; b++) {
		struct csv_bitmap_pos p;

		if (csv_bitmap_pos(&cv.g, b, &p)) {
			const struct csv_bitmap *m = (void *)cv_blk(csv_bitmap_blk(&cv.g, p.group, p.bitmap));

			if (csv_bits_get(m->bits, p.entry) < CSV_BLK_META)
				continue;
		} else if (!le32_get(hdr(b)->magic) || le32_get(hdr(b)->magic) == CSV_MAGIC_SUPER) {
			continue;
		}
		memcpy(old + n * CSV_BLOCK_SIZE, cv_blk(b), CSV_BLOCK_SIZE);
		meta[n++] = b;
	}
	for (unsigned i = 0; i < runs; i++) {
		uint64_t hit[8];
		unsigned k = csv_prng_range(&prng, 1, 8);

		for (unsigned x = 0; x < k; x++) {
			uint8_t *p = cv_blk(meta[hit[x] = csv_prng_below(&prng, n)]);
			uint32_t words = csv_prng_range(&prng, 1, 6);

			while (words--) {
				/* small numbers, all ones, block numbers: what passes a range check */
				uint64_t v = (uint64_t[]){ csv_prng_below(&prng, 10), UINT64_MAX, meta[csv_prng_below(&prng, n)], csv_prng_u64(&prng) }
					     [csv_prng_below(&prng, 4)];
				uint32_t at = 64 + csv_prng_below(&prng, csv_prng_chance(&prng, 2, 3) ? 400 : CSV_BLOCK_SIZE - 72);

				memcpy(p + at, &v, csv_prng_chance(&prng, 1, 2) ? 8 : 2);
			}
			mhdr_seal(p, cv.g.uuid);
		}
		cv.mem = i % 5 ? 0 : 1;
		cv_check();
		flips++;
		if (cv.r || cv.res.errors)
			found++;
		else
			silent++;
		for (unsigned x = 0; x < k; x++)
			memcpy(cv_blk(meta[hit[x]]), old + hit[x] * CSV_BLOCK_SIZE, CSV_BLOCK_SIZE);
	}
	cv.mem = 0;
	cv_check();
	CV_CLEAN();
	say("changes of everything");
	ck_assert_uint_gt(found * 10, runs * 8);
	free(meta);
	free(old);
	cv_teardown();
}
END_TEST

UNIT_MAIN("check_flips", UNIT_SLOW(flips_in_superblocks_are_found, 0, 1, 60), UNIT_SLOW(flips_in_slots_and_heartbeats_are_found, 0, 1, 60),
	  UNIT_SLOW(flips_in_groups_are_found, 0, 1, 60), UNIT_SLOW(flips_in_bitmaps_are_found, 0, 1, 60),
	  UNIT_SLOW(flips_in_inodes_are_found, 0, 1, 120), UNIT_SLOW(flips_in_tree_nodes_are_found, 0, 1, 60),
	  UNIT_SLOW(flips_in_journal_headers_are_found, 0, 1, 60), UNIT_SLOW(whatever_the_blocks_say_the_check_ends, 0, 1, 60))
