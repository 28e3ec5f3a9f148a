/* SPDX-License-Identifier: GPL-2.0-only */
/* test_format - geometry, superblock, slot states, heartbeats: what is encoded decodes to the same, and nothing else is believed. */
#include "csvfs/format.h"

#include <errno.h>

#include "csvfs/mkfs.h"
#include "journal/mhdr.h"
#include "tests/unit/env_fake.h"
#include "tests/unit/unit.h"
#include "utils/base/prng.h"
#include "utils/env/sync_blk.h"

typedef unsigned long long ull;

static void geom_make(uint64_t bytes, uint32_t slots, struct csv_geom *ret)
{
	struct csvfs_mkfs_options o = { .label = "a volume", .slots = slots, .uuid = { 9, 8, 7, 6, 5, 4, 3, 2, 1 }, .now_ns = 1234567890123 };
	struct csv_err err = CSV_ERR_INIT;

	for (int i = 0; i < 16; i++)
		o.hash_key[i] = (uint8_t)(i * 11 + 1);
	ck_assert_msg(csvfs_mkfs_plan(bytes, 512, &o, ret, &err) == 0, "%s", err.text);
}

static const struct csv_field *super_field(const char *name)
{
	const struct csv_struct *st = csv_struct_by_name("csv_super");

	for (uint32_t i = 0; i < st->fields; i++)
		if (!strcmp(st->field[i].name, name))
			return &st->field[i];
	ck_abort_msg("no field %s", name);
	return NULL;
}

static void field_set(void *block, const struct csv_field *f, uint64_t v)
{
	for (uint32_t i = 0; i < f->size && i < 8; i++)
		((uint8_t *)block)[f->offset + i] = (uint8_t)(v >> (8 * i));
}

START_TEST(superblock_decodes_to_what_was_encoded)
{
	static const uint64_t bytes[] = { 64ull << 20, 100ull << 20, 1ull << 30, 8ull << 30, 100000000000000ull };
	uint8_t block[CSV_BLOCK_SIZE], again[CSV_BLOCK_SIZE];
	struct csv_err err = CSV_ERR_INIT;
	struct csv_geom g, d;

	for (size_t i = 0; i < ARRAY_SIZE(bytes); i++) {
		for (uint32_t copy = 0; copy < CSV_SUPER_COPIES; copy++) {
			geom_make(bytes[i], i < 2 ? 4 : 64, &g);
			g.compat = 0x11;
			g.ro_compat = copy ? 0 : 0x22;
			csv_super_encode(&g, csv_super_blk(&g, copy), block);
			ck_assert_msg(csv_super_decode(block, csv_super_blk(&g, copy), bytes[i] / CSV_BLOCK_SIZE, 512, &d, &err) == 0, "%s", err.text);
			ck_assert_uint_eq(d.from_blk, csv_super_blk(&g, copy));
			ck_assert_uint_eq(d.ro_only, copy == 0);
			csv_super_encode(&d, csv_super_blk(&g, copy), again);
			ck_assert_int_eq(memcmp(block, again, sizeof(block)), 0);
			d.from_blk = g.from_blk;
			d.ro_only = false;
			g.ro_only = false;
			ck_assert_int_eq(memcmp(&d, &g, sizeof(g)), 0);
		}
	}
}
END_TEST

/* Each field wrong by itself, with a right checksum: the error names field, value and what is allowed. */
START_TEST(superblock_errors_name_field_value_and_range)
{
	static const struct { const char *field; uint64_t v; int rc; const char *text; } bad[] = {
		{ "version", 0, -CSV_E_CORRUPT, "version = 0: must be" }, { "version", 4242, -CSV_E_UNSUPPORTED, "version = 4242: this program" },
		{ "block_size", 0, -CSV_E_CORRUPT, "block_size = 0: must be 4096" }, { "block_size", 513, -CSV_E_CORRUPT, "must be 4096" },
		{ "incompat", 1, -CSV_E_UNSUPPORTED, "incompat = 0x1" }, { "incompat", 1ull << 63, -CSV_E_UNSUPPORTED, "incompat = 0x8000000000000000" },
		{ "total_blk", 0, -CSV_E_CORRUPT, "total_blk = 0: must be between" }, { "total_blk", UINT64_MAX, -CSV_E_CORRUPT, "must be between" },
		{ "total_blk", 3000000, -CSV_E_CORRUPT, "the device has only" },
		{ "data_start_blk", 0, -CSV_E_CORRUPT, "data_start_blk = 0: must be between" },
		{ "data_start_blk", UINT64_MAX, -CSV_E_CORRUPT, "must be between" }, { "data_start_blk", 17, -CSV_E_CORRUPT, "must be between" },
		{ "groups", 0, -CSV_E_CORRUPT, "groups = 0: must be 8" }, { "groups", 0xffffffff, -CSV_E_CORRUPT, "must be 8" },
		{ "slots", 0, -CSV_E_CORRUPT, "slots = 0: must be between 1 and 64" }, { "slots", 255, -CSV_E_CORRUPT, "slots = 255" },
		{ "slots", 64, -CSV_E_CORRUPT, "hbeat_start_blk" }, { "slot_start_blk", 16, -CSV_E_CORRUPT, "slot_start_blk = 16" },
		{ "hbeat_start_blk", 18, -CSV_E_CORRUPT, "hbeat_start_blk = 18" }, { "orphan_start_blk", 0, -CSV_E_CORRUPT, "orphan_start_blk = 0" },
		{ "journal_start_blk", UINT64_MAX - 5, -CSV_E_CORRUPT, "journal_start_blk" }, { "journal_blk", 0, -CSV_E_CORRUPT, "journal_blk = 0" },
		{ "journal_blk", 0xffffffff, -CSV_E_CORRUPT, "journal_blk = 4294967295" }, { "min_io", 0, -CSV_E_CORRUPT, "must be 512 or 4096" },
		{ "min_io", 1024, -CSV_E_CORRUPT, "min_io = 1024" }, { "root_ino", 0, -CSV_E_CORRUPT, "root_ino = 0: must be a block inside" },
		{ "root_ino", UINT64_MAX, -CSV_E_CORRUPT, "root_ino" }, { "system_ino", 5, -CSV_E_CORRUPT, "system_ino = 5" },
		{ "lockspace", 0, -CSV_E_CORRUPT, "lockspace" }, { "protocol_level", 2, -CSV_E_UNSUPPORTED, "protocol_level = 2" },
		{ "protocol_level", 0, -CSV_E_CORRUPT, "protocol_level = 0" }, { "journal_level", 9, -CSV_E_UNSUPPORTED, "journal_level = 9" },
	};
	uint8_t good[CSV_BLOCK_SIZE], block[CSV_BLOCK_SIZE];
	struct csv_err err;
	struct csv_geom g, d;

	geom_make(8ull << 30, 8, &g);
	csv_super_encode(&g, CSV_SB_BLOCK, good);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		memcpy(block, good, sizeof(block));
		field_set(block, super_field(bad[i].field), bad[i].v);
		mhdr_seal(block, NULL);
		csv_err_clear(&err);
		ck_assert_int_eq(csv_super_decode(block, CSV_SB_BLOCK, g.total_blk, 512, &d, &err), bad[i].rc);
		ck_assert_msg(strstr(err.text, bad[i].text), "case %zu (%s): \"%s\" lacks \"%s\"", i, bad[i].field, err.text, bad[i].text);
		ck_assert_msg(!strncmp(err.text, "superblock: field ", 18), "%s", err.text);
	}
	memset(block, 0, sizeof(block));
	ck_assert_int_eq(csv_super_decode(block, CSV_SB_BLOCK, g.total_blk, 512, &d, &err), -EINVAL);
	ck_assert_msg(strstr(err.text, "not a csvfs volume"), "%s", err.text);
	ck_assert_int_eq(csv_super_decode(good, CSV_SB_BLOCK, g.total_blk, 4096, &d, &err), -CSV_E_UNSUPPORTED);
	ck_assert_msg(strstr(err.text, "sectors of 4096 bytes"), "%s", err.text);
	ck_assert_int_eq(csv_super_decode(good, CSV_SB_BLOCK + 1, g.total_blk, 512, &d, &err), -CSV_E_CORRUPT);
	ck_assert_int_eq(csv_super_decode(good, CSV_SB_BLOCK, g.total_blk - 1, 512, &d, &err), -CSV_E_CORRUPT);
}
END_TEST

START_TEST(every_bit_flip_is_noticed)
{
	uint8_t block[CSV_BLOCK_SIZE];
	struct csv_geom g, d;
	struct csv_slot_info s = { .state = CSV_SLOT_ACTIVE, .nodeid = 3, .incarnation = 4, .node_name = "n3" }, sd;

	geom_make(1ull << 30, 8, &g);
	csv_super_encode(&g, CSV_SB_BLOCK, block);
	for (uint32_t bit = 0; bit < CSV_BLOCK_SIZE * 8; bit++) {
		block[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (csv_super_decode(block, CSV_SB_BLOCK, 0, 0, &d, NULL) == 0)
			ck_abort_msg("superblock: bit %u", bit);
		block[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	csv_slot_encode(&g, 5, &s, block);
	for (uint32_t bit = 0; bit < CSV_ATOMIC_BYTES * 8; bit++) {
		block[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (csv_slot_decode(&g, 5, block, &sd, NULL) == 0)
			ck_abort_msg("slot: bit %u", bit);
		block[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	/* beyond the atomic part nothing counts */
	block[CSV_ATOMIC_BYTES] ^= 1;
	ck_assert_int_eq(csv_slot_decode(&g, 5, block, &sd, NULL), 0);
}
END_TEST

/* Noise in the fields with the checksum fixed: what is accepted keeps F1 and F3. */
START_TEST(whatever_is_accepted_is_a_sound_geometry)
{
	static const char *const name[] = { "total_blk", "data_start_blk", "groups", "slots", "slot_start_blk", "hbeat_start_blk", "orphan_start_blk",
					    "journal_start_blk", "journal_blk", "root_ino", "system_ino", "min_io" };
	uint8_t good[CSV_BLOCK_SIZE], block[CSV_BLOCK_SIZE];
	struct csv_prng rnd;
	uint32_t accepted = 0;
	struct csv_geom g, d;

	csv_prng_init(&rnd, 5);
	geom_make(8ull << 30, 8, &g);
	csv_super_encode(&g, CSV_SB_BLOCK, good);
	for (int round = 0; round < 300000; round++) {
		if (round % 4 == 0)
			memcpy(block, good, sizeof(block));
		const struct csv_field *f = super_field(name[csv_prng_below(&rnd, ARRAY_SIZE(name))]);
		uint64_t v = csv_field_get(f, block, 0), edge[] = { v + 1, v - 1, v * 2, v / 2, v ^ 1ull << csv_prng_below(&rnd, 64), csv_prng_u64(&rnd),
								   v + csv_prng_below(&rnd, 4000), 0 };

		field_set(block, f, edge[csv_prng_below(&rnd, ARRAY_SIZE(edge))]);
		mhdr_seal(block, NULL);
		if (csv_super_decode(block, CSV_SB_BLOCK, g.total_blk, 512, &d, NULL))
			continue;
		accepted++;
		csv_assert(csv_slot_blk(&d, 0) > CSV_SB_BLOCK && csv_slot_blk(&d, d.slots - 1) < csv_hbeat_blk(&d, 0));
		csv_assert(csv_hbeat_blk(&d, d.slots - 1) < csv_orphan_blk(&d, 0) && csv_orphan_blk(&d, d.slots - 1) < csv_journal_blk(&d, 0));
		csv_assert(csv_journal_blk(&d, d.slots - 1) + d.journal_blk <= csv_super_blk(&d, 1));
		csv_assert(csv_super_blk(&d, 1) < csv_group_start(&d, 0));
		csv_assert(csv_group_start(&d, d.groups - 1) + csv_group_blocks(&d, d.groups - 1) <= csv_super_blk(&d, 2));
		csv_assert(csv_group_blocks(&d, d.groups - 1) >= CSV_GROUP_BLOCKS_MIN && csv_super_blk(&d, 2) < g.total_blk);
		csv_assert(csv_blk_is_allocatable(&d, d.root_ino));
	}
	printf("noise: %u of 300000 accepted\n", accepted);
	ck_assert_uint_gt(accepted, 1000);
}
END_TEST

/* ---- copies ------------------------------------------------------------------------------------------------------------------------ */

struct copies { struct fake_clock clock; struct sched *s; struct blk *b; struct csv_geom g; };

static void copies_run(void *arg)
{
	struct copies *c = arg;
	uint8_t *block = blk_alloc(CSV_BLOCK_SIZE), *zero = blk_alloc(CSV_BLOCK_SIZE);
	struct csv_err err = CSV_ERR_INIT, note = CSV_ERR_INIT;
	struct csv_geom d;

	memset(zero, 0, CSV_BLOCK_SIZE);
	for (uint32_t i = 0; i < CSV_SUPER_COPIES; i++) {
		csv_super_encode(&c->g, csv_super_blk(&c->g, i), block);
		ck_assert_int_eq(blk_write(c->b, csv_super_blk(&c->g, i) * CSV_BLOCK_SIZE, block, CSV_BLOCK_SIZE), 0);
	}
	ck_assert_int_eq(csv_super_read(c->b, &d, &note, &err), 0);
	ck_assert_int_eq(note.code, 0);
	ck_assert_uint_eq(d.from_blk, CSV_SB_BLOCK);

	/* torn: the copy at the end of the device serves, and it is said */
	csv_super_encode(&c->g, CSV_SB_BLOCK, block);
	block[200] ^= 1;
	ck_assert_int_eq(blk_write(c->b, CSV_SB_BLOCK * CSV_BLOCK_SIZE, block, CSV_BLOCK_SIZE), 0);
	ck_assert_int_eq(csv_super_read(c->b, &d, &note, &err), 0);
	ck_assert_uint_eq(d.from_blk, csv_super_blk(&c->g, 2));
	ck_assert_int_eq(note.code, -CSV_E_CORRUPT);
	ck_assert_msg(strstr(note.text, "crc") && strstr(note.text, "using the copy in block"), "%s", note.text);

	/* the one before the groups, where the bad primary still says where that is */
	ck_assert_int_eq(blk_write(c->b, csv_super_blk(&c->g, 2) * CSV_BLOCK_SIZE, zero, CSV_BLOCK_SIZE), 0);
	ck_assert_int_eq(csv_super_read(c->b, &d, &note, &err), 0);
	ck_assert_uint_eq(d.from_blk, csv_super_blk(&c->g, 1));

	/* unreadable primary */
	csv_super_encode(&c->g, csv_super_blk(&c->g, 2), block);
	ck_assert_int_eq(blk_write(c->b, csv_super_blk(&c->g, 2) * CSV_BLOCK_SIZE, block, CSV_BLOCK_SIZE), 0);
	mem_blk_fail_at(c->b, 1, -EIO);
	ck_assert_int_eq(csv_super_read(c->b, &d, &note, &err), 0);
	ck_assert_uint_eq(d.from_blk, csv_super_blk(&c->g, 2));
	ck_assert_int_eq(note.code, -EIO);

	/* a later version is final: an older copy must not be used instead */
	csv_super_encode(&c->g, CSV_SB_BLOCK, block);
	field_set(block, super_field("incompat"), 4);
	mhdr_seal(block, NULL);
	ck_assert_int_eq(blk_write(c->b, CSV_SB_BLOCK * CSV_BLOCK_SIZE, block, CSV_BLOCK_SIZE), 0);
	ck_assert_int_eq(csv_super_read(c->b, &d, &note, &err), -CSV_E_UNSUPPORTED);

	for (uint32_t i = 0; i < CSV_SUPER_COPIES; i++)
		ck_assert_int_eq(blk_write(c->b, csv_super_blk(&c->g, i) * CSV_BLOCK_SIZE, zero, CSV_BLOCK_SIZE), 0);
	ck_assert_int_eq(csv_super_read(c->b, &d, &note, &err), -EINVAL);
	ck_assert_msg(strstr(err.text, "not a csvfs volume"), "%s", err.text);
	free(block);
	free(zero);
}

START_TEST(a_copy_serves_when_the_superblock_is_bad)
{
	struct copies c;

	geom_make(64ull << 20, 2, &c.g);
	fake_clock_init(&c.clock);
	c.s = sched_new(&c.clock.clock);
	ck_assert_int_eq(mem_blk_new(c.s, 64ull << 20, 512, &c.b), 0);
	ck_assert_int_eq(sched_spawn(c.s, "copies", copies_run, &c), 0);
	sched_run(c.s);
	ck_assert_uint_eq(sched_coros(c.s), 0);
	blk_close(c.b);
	sched_free(c.s);
}
END_TEST

/* ---- slots, heartbeats ---------------------------------------------------------------------------------------------------------------- */

START_TEST(slot_state_decodes_to_what_was_encoded)
{
	struct csv_slot_info s = { .state = CSV_SLOT_ACTIVE, .nodeid = 77, .incarnation = 0x123456789abcdef, .since_real_ns = 11, .proof_kind = 4,
				   .proof_nodeid = 12, .proof_incarnation = 13, .node_name = "node-77", .seq = 14 }, d;
	struct { uint32_t off; uint64_t v; const char *text; } bad[] = {
		{ offsetof(struct csv_slot, state), 2, "state = 2" }, { offsetof(struct csv_slot, nodeid), 0, "nodeid = 0" },
		{ offsetof(struct csv_slot, proof_kind), 7, "proof_kind = 7" }, { offsetof(struct csv_mhdr, owner_id), 4, "owner_id 4" },
	};
	uint8_t block[CSV_BLOCK_SIZE];
	struct csv_err err = CSV_ERR_INIT;
	struct csv_geom g;

	geom_make(1ull << 30, 8, &g);
	csv_slot_encode(&g, 3, &s, block);
	ck_assert_int_eq(csv_slot_decode(&g, 3, block, &d, &err), 0);
	ck_assert_int_eq(memcmp(&s, &d, sizeof(s)), 0);
	ck_assert_int_eq(csv_slot_decode(&g, 4, block, &d, &err), -CSV_E_CORRUPT);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		csv_slot_encode(&g, 3, &s, block);
		*(struct le32 *)(block + bad[i].off) = le32_of((uint32_t)bad[i].v);
		mhdr_seal(block, g.uuid);
		ck_assert_int_eq(csv_slot_decode(&g, 3, block, &d, &err), -CSV_E_CORRUPT);
		ck_assert_msg(strstr(err.text, bad[i].text) && strstr(err.text, "slot 3"), "%s", err.text);
	}
	/* of another volume */
	csv_slot_encode(&g, 3, &s, block);
	g.uuid[0] ^= 1;
	ck_assert_int_eq(csv_slot_decode(&g, 3, block, &d, &err), -CSV_E_CORRUPT);
	/* a name for a terminal */
	g.uuid[0] ^= 1;
	strcpy(s.node_name, "a\033[2Jb");
	csv_slot_encode(&g, 3, &s, block);
	ck_assert_int_eq(csv_slot_decode(&g, 3, block, &d, &err), 0);
	ck_assert_str_eq(d.node_name, "a?[2Jb");
}
END_TEST

START_TEST(heartbeat_decodes_to_what_was_encoded)
{
	struct csv_hbeat_info h = { .incarnation = 1ull << 60, .counter = 99, .flags = CSV_HBEAT_WATCHDOG, .nodeid = 4, .seq = 100 }, d = { 0 };
	uint8_t block[CSV_BLOCK_SIZE];
	struct csv_err err = CSV_ERR_INIT;
	struct csv_geom g;

	geom_make(1ull << 30, 64, &g);
	csv_hbeat_encode(&g, 63, &h, block);
	ck_assert_int_eq(csv_hbeat_decode(&g, 63, block, &d, &err), 0);
	ck_assert(d.incarnation == h.incarnation && d.counter == h.counter && d.flags == h.flags && d.nodeid == h.nodeid && d.seq == h.seq);
	ck_assert_int_eq(csv_hbeat_decode(&g, 62, block, &d, &err), -CSV_E_CORRUPT);
	memset(block, 0, sizeof(block));
	ck_assert_int_eq(csv_hbeat_decode(&g, 63, block, &d, &err), -CSV_E_CORRUPT);
}
END_TEST

/* ---- geometry ----------------------------------------------------------------------------------------------------------------------------- */

START_TEST(blocks_and_bitmap_places_agree_on_100_tb)
{
	struct csv_bitmap_pos pos;
	struct csv_prng rnd;
	struct csv_geom g;

	csv_prng_init(&rnd, 6);
	geom_make(100000000000000ull, 64, &g);
	ck_assert_uint_eq(g.slots, 64);
	ck_assert_uint_gt(g.groups, 93000);
	for (int i = 0; i < 200000; i++) {
		uint32_t group = i < 1000 ? (uint32_t)i : (uint32_t)csv_prng_below(&rnd, g.groups);
		uint32_t blocks = csv_group_blocks(&g, group), in = i % 3 == 0 ? blocks - 1 : i % 3 == 1 ? 0 : (uint32_t)csv_prng_below(&rnd, blocks);
		uint64_t blk = csv_group_start(&g, group) + in;

		csv_assert(csv_group_of(&g, blk) == group);
		csv_assert(csv_bitmap_pos(&g, blk, &pos) && pos.group == group && pos.bitmap * CSV_BITMAP_BLOCKS_COVERED + pos.entry == in);
		csv_assert(pos.bitmap < CSV_GROUP_BITMAPS && csv_bitmap_blk(&g, group, pos.bitmap) < csv_group_start(&g, group) + CSV_GROUP_FIRST_FREE);
		csv_assert(csv_blk_is_allocatable(&g, blk) == (in >= CSV_GROUP_FIRST_FREE));
		csv_assert(csv_run_is_allocatable(&g, blk, blocks - in) == (in >= CSV_GROUP_FIRST_FREE));
		csv_assert(!csv_run_is_allocatable(&g, blk, blocks - in + 1ull) && !csv_run_is_allocatable(&g, blk, UINT64_MAX));
	}
	ck_assert_uint_eq(csv_group_of(&g, g.data_start_blk - 1), CSV_NO_GROUP);
	ck_assert_uint_eq(csv_group_of(&g, g.total_blk - 1), CSV_NO_GROUP);
	ck_assert_uint_eq(csv_group_of(&g, UINT64_MAX), CSV_NO_GROUP);
	ck_assert(!csv_blk_is_allocatable(&g, 0));
}
END_TEST

START_TEST(two_bit_states_do_not_touch_their_neighbours)
{
	uint8_t bits[16], model[64] = { 0 };
	struct csv_prng rnd;

	memset(bits, 0, sizeof(bits));
	csv_prng_init(&rnd, 8);
	for (int i = 0; i < 10000; i++) {
		uint32_t e = (uint32_t)csv_prng_below(&rnd, 64);

		model[e] = (uint8_t)csv_prng_below(&rnd, 4);
		csv_bits_set(bits, e, (enum csv_blk_state)model[e]);
		for (uint32_t k = 0; k < 64; k++)
			csv_assert(csv_bits_get(bits, k) == (enum csv_blk_state)model[k]);
	}
}
END_TEST

/* ---- tables ---------------------------------------------------------------------------------------------------------------------------------- */

START_TEST(tables_describe_every_byte_once)
{
	for (uint32_t i = 0; i < csv_structs_n; i++) {
		uint32_t at = 0;

		for (uint32_t k = 0; k < csv_structs[i].fields; k++) {
			ck_assert_uint_eq(csv_structs[i].field[k].offset, at);
			at += csv_structs[i].field[k].size * csv_structs[i].field[k].count;
		}
		ck_assert_uint_eq(at, csv_structs[i].size);
		ck_assert_ptr_eq(csv_struct_by_name(csv_structs[i].name), &csv_structs[i]);
		if (csv_structs[i].magic)
			ck_assert_ptr_eq(csv_struct_by_magic(csv_structs[i].magic), &csv_structs[i]);
	}
	ck_assert_ptr_null(csv_struct_by_magic(0));
	ck_assert_ptr_null(csv_struct_by_magic(0x12345678));
}
END_TEST

/* doc/format.md ends with the table as it is printed now; CSV_PRINT_FORMAT=FILE writes the table. */
START_TEST(the_document_has_the_table_of_this_version)
{
	const char *srcdir = getenv("srcdir"), *out = getenv("CSV_PRINT_FORMAT");
	char path[4096], *doc = NULL, *table = NULL, *at;
	size_t n_doc = 0, n_table = 0;
	FILE *f;

	f = open_memstream(&table, &n_table);
	csv_structs_print(f);
	fclose(f);
	if (out) {
		f = fopen(out, "w");
		ck_assert_ptr_nonnull(f);
		fwrite(table, 1, n_table, f);
		fclose(f);
	}
	snprintf(path, sizeof(path), "%s/doc/format.md", srcdir ? srcdir : ".");
	f = fopen(path, "r");
	ck_assert_msg(f, "%s cannot be read: run in the build tree by make check, or with srcdir set", path);
	doc = calloc(1, 1 << 20);
	n_doc = fread(doc, 1, (1 << 20) - 1, f);
	fclose(f);
	ck_assert_uint_gt(n_doc, n_table);
	at = strstr(doc, "\n### `struct csv_mhdr`");
	ck_assert_msg(at && !strcmp(at, table), "%s: its table is not of this version: CSV_PRINT_FORMAT=FILE prints the new one", path);
	free(doc);
	free(table);
}
END_TEST

UNIT_MAIN("format", UNIT_TEST(superblock_decodes_to_what_was_encoded), UNIT_TEST(superblock_errors_name_field_value_and_range),
	  UNIT_TEST(every_bit_flip_is_noticed), UNIT_SLOW(whatever_is_accepted_is_a_sound_geometry, 0, 1, 60),
	  UNIT_TEST(a_copy_serves_when_the_superblock_is_bad), UNIT_TEST(slot_state_decodes_to_what_was_encoded),
	  UNIT_TEST(heartbeat_decodes_to_what_was_encoded), UNIT_TEST(blocks_and_bitmap_places_agree_on_100_tb),
	  UNIT_TEST(two_bit_states_do_not_touch_their_neighbours), UNIT_TEST(tables_describe_every_byte_once),
	  UNIT_TEST(the_document_has_the_table_of_this_version))
