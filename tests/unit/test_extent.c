/* SPDX-License-Identifier: GPL-2.0-only */
/* The extent tree against an array: inserting, converting, removing in any order, merged where it can be; extents that lie. */
#include "tests/unit/core_ops.h"

#include "csvfs/fmap.h"

#define BLOCKS 600u
#define PHYS 20000u		/* of imaginary blocks: nothing is allocated here, the tree only remembers numbers */

static struct { uint64_t phys; uint32_t flags; } model[BLOCKS];
static struct csv_prng prng;
static struct iref r;
static struct alloc_resv resv;
static struct jnl_handle h;

static void begin(struct csvfs *fs, struct btree *t)
{
	inode_tree(&r, CSV_BT_EXTENTS, NULL, t);
	alloc_resv_init(fs, &resv);
	OK(alloc_reserve(&resv, r.ip->ino, ext_new_nodes(t, 1) + 2, 1, false));
	OK(op_begin(fs, 1 + ext_credits(t, 1) + alloc_credits(&resv, ext_new_nodes(t, 1)) + 40, bt_freed_nodes(t, 4), &h));
	inode_dirty(&h, &r);
	inode_tree(&r, CSV_BT_EXTENTS, &resv, t);
}

static void end(struct csvfs *fs)
{
	inode_store(&r);
	op_end(fs, &h);
	alloc_resv_done(&resv);
}

static void same(struct btree *t)
{
	unsigned extents = 0, want = 0;

	for (uint64_t at = 0; at < BLOCKS;) {
		struct extent e;

		OK(ext_map(t, at, &e));
		ck_assert_uint_eq(e.lblk, at);
		for (uint64_t b = at; b < csv_min(ext_end(&e), (uint64_t)BLOCKS); b++) {
			uint64_t phys = e.phys ? e.phys + (b - at) : 0;

			if (model[b].phys != phys || (phys && model[b].flags != e.flags))
				ck_abort_msg("block %llu: %llu flags %u, must be %llu flags %u", (unsigned long long)b,
					     (unsigned long long)phys, e.flags, (unsigned long long)model[b].phys, model[b].flags);
		}
		extents += e.phys != 0;
		at = ext_end(&e);
	}
	for (unsigned b = 0; b < BLOCKS; b++)
		want += model[b].phys && !(b && model[b - 1].phys + 1 == model[b].phys && model[b - 1].flags == model[b].flags);
	ck_assert_msg(extents == want, "%u extents, could be %u", extents, want);
}

static void random_extents(struct csvfs *fs)
{
	unsigned done[3] = { 0 };
	struct btree t;

	OK(inode_get(fs, mk(fs, root(fs), "f", S_IFREG).ino, 0, DLM_EX, 0, &r));
	OK(fmap_make_tree(&r));
	for (unsigned i = 0; i < 1500; i++) {
		uint64_t at = csv_prng_below(&prng, BLOCKS), len = 1 + csv_prng_below(&prng, 12);
		unsigned op = (unsigned)csv_prng_below(&prng, 3);
		struct extent e;

		begin(fs, &t);
		OK(ext_map(&t, at, &e));
		len = csv_min(csv_min(len, e.len), BLOCKS - at);
		if (!e.phys && op < 2) {
			/* often next to what is before it, so that it can be merged */
			uint64_t phys = at && model[at - 1].phys && i % 2 ? model[at - 1].phys + 1 : PHYS + csv_prng_below(&prng, 3) * 2000 + at;
			uint32_t flags = i % 3 ? CSV_EXT_UNWRITTEN : 0;

			OK(ext_insert(&t, &h, at, phys, (uint32_t)len, flags));
			for (uint64_t b = 0; b < len; b++) {
				model[at + b].phys = phys + b;
				model[at + b].flags = flags;
			}
			done[0]++;
		} else if (e.phys && op == 1) {
			OK(ext_convert(&t, &h, at, (uint32_t)len, e.flags ^ CSV_EXT_UNWRITTEN));
			for (uint64_t b = at; b < at + len; b++)
				model[b].flags ^= CSV_EXT_UNWRITTEN;
			done[1]++;
		} else if (e.phys && op == 2) {
			OK(ext_remove(&t, &h, at, (uint32_t)len));
			for (uint64_t b = at; b < at + len; b++)
				model[b].phys = 0;
			done[2]++;
		}
		end(fs);
		if (i % 10 == 0)
			same(&t);
	}
	same(&t);
	ck_assert(done[0] > 100 && done[1] > 50 && done[2] > 100);
	/* nothing of it was real */
	for (unsigned b = 0; b < BLOCKS; b++) {
		if (!model[b].phys)
			continue;
		begin(fs, &t);
		OK(ext_remove(&t, &h, b, 1));
		end(fs);
	}
	ck_assert_int_eq(r.ip->blocks, 0);
	inode_put(&r);
}

START_TEST(the_tree_is_what_was_done_to_it)
{
	csv_prng_init(&prng, 70 + (uint64_t)_i);
	memset(model, 0, sizeof(model));
	on_new_volume(random_extents);
}
END_TEST

static void begin_without_groups(struct csvfs *fs, struct btree *t)
{
	inode_tree(&r, CSV_BT_EXTENTS, NULL, t);
	alloc_resv_init(fs, &resv);
	OK(op_begin(fs, 1 + ext_credits(t, 1), bt_freed_nodes(t, 4), &h));
	inode_dirty(&h, &r);
	inode_tree(&r, CSV_BT_EXTENTS, &resv, t);
}

/*
 * Every second block is in the tree, or has the other flag; then what is missing is inserted, or converted, without the group of any node
 * being locked: where a merge would empty a node, two extents stay two.
 */
static void merging_in_foreign_groups(struct csvfs *fs, bool insert)
{
	const uint64_t n = 4000;
	uint64_t extents = 0;
	struct btree t;
	struct extent e;

	OK(inode_get(fs, mk(fs, root(fs), insert ? "i" : "c", S_IFREG).ino, 0, DLM_EX, 0, &r));
	OK(fmap_make_tree(&r));
	for (uint64_t b = 0; b < n; b++) {
		if (insert && b % 2)
			continue;
		begin(fs, &t);
		OK(ext_insert(&t, &h, b, PHYS + b, 1, b % 2 ? CSV_EXT_UNWRITTEN : 0));
		end(fs);
	}
	inode_tree(&r, CSV_BT_EXTENTS, NULL, &t);
	ck_assert_uint_gt(bt_freed_nodes(&t, 1), 1);	/* there are nodes below the root */
	for (uint64_t b = 1; b < n; b += 2) {
		begin_without_groups(fs, &t);
		if (insert)
			OK(ext_insert(&t, &h, b, PHYS + b, 1, 0));
		else
			OK(ext_convert(&t, &h, b, 1, 0));
		end(fs);
	}
	for (uint64_t b = 0; b < n; b = ext_end(&e), extents++) {
		OK(ext_map(&t, b, &e));
		ck_assert_uint_eq(e.lblk, b);
		ck_assert_uint_eq(e.phys, PHYS + b);
		ck_assert_uint_eq(e.flags, 0);
	}
	ck_assert_uint_le(extents, n / 20);
	ck_assert_uint_gt(extents, 1);
	for (uint64_t b = 0; b < n; b = ext_end(&e)) {
		begin(fs, &t);
		OK(ext_map(&t, b, &e));
		OK(ext_remove(&t, &h, b, (uint32_t)e.len));
		end(fs);
	}
	ck_assert_int_eq(r.ip->blocks, 0);
	inode_put(&r);
}

static void body_merging(struct csvfs *fs)
{
	merging_in_foreign_groups(fs, true);
	merging_in_foreign_groups(fs, false);
}
START_TEST(a_merge_never_empties_a_node_of_a_foreign_group) { on_new_volume(body_merging); } END_TEST

static void lies(struct csvfs *fs)
{
	static const struct { uint64_t key, phys; uint32_t len, flags; int want; const char *says; } lie[] = {
		{ 5, 20000, 0, 0, -CSV_E_CORRUPT, "len 0" },
		{ 5, 20000, CSV_GROUP_BLOCKS + 1, 0, -CSV_E_CORRUPT, "len 262145" },
		{ 5, 3, 1, 0, -CSV_E_CORRUPT, "phys 3" },
		{ 5, 1ull << 50, 1, 0, -CSV_E_CORRUPT, "phys" },
		{ 5, UINT64_MAX, 2, 0, -CSV_E_CORRUPT, "phys" },
		{ EXT_LBLK_END, 20000, 1, 0, -CSV_E_CORRUPT, "key" },
		{ EXT_LBLK_END - 1, 20000, 2, 0, -CSV_E_CORRUPT, "len 2" },
		{ 5, 20000, 1, CSV_EXT_SHARED, -CSV_E_UNSUPPORTED, "flags 2" },
	};
	struct btree t;

	OK(inode_get(fs, mk(fs, root(fs), "f", S_IFREG).ino, 0, DLM_EX, 0, &r));
	OK(fmap_make_tree(&r));
	for (unsigned i = 0; i < ARRAY_SIZE(lie); i++) {
		struct csv_extent d;
		struct extent e;

		le64_set(&d.phys, lie[i].phys);
		le32_set(&d.len, lie[i].len);
		le32_set(&d.flags, lie[i].flags);
		begin(fs, &t);
		OK(bt_insert(&t, &h, lie[i].key, &d, sizeof(d)));
		IS(ext_last(&t, &e), lie[i].want);
		if (lie[i].key < EXT_LBLK_END)
			IS(ext_map(&t, lie[i].key, &e), lie[i].want);
		ck_assert_msg(strstr(cw.last_log[0], lie[i].says), "%s", cw.last_log[0]);
		OK(bt_delete(&t, &h, lie[i].key));
		end(fs);
	}
	inode_put(&r);
}
/* Found by the fuzzer of extents: the first of two that overlap was believed by readers. */
static void overlap(struct csvfs *fs)
{
	struct csv_extent d = { 0 };
	struct extent e;
	struct btree t;

	OK(inode_get(fs, mk(fs, root(fs), "f", S_IFREG).ino, 0, DLM_EX, 0, &r));
	OK(fmap_make_tree(&r));
	/* enough for several leaves: the two that overlap lie in one, or last in one and first in the next */
	for (unsigned k = 0; k < 400; k++) {
		begin(fs, &t);
		le64_set(&d.phys, 20000 + 10 * k);
		le32_set(&d.len, 5);
		OK(bt_insert(&t, &h, 10 * k, &d, sizeof(d)));
		end(fs);
	}
	for (unsigned k = 0; k < 399; k++) {
		begin(fs, &t);
		le64_set(&d.phys, 20000 + 10 * k);
		le32_set(&d.len, 11);
		OK(bt_replace(&t, &h, 10 * k, &d, sizeof(d)));
		IS(ext_map(&t, 10 * k + 3, &e), -CSV_E_CORRUPT);
		ck_assert_msg(strstr(cw.last_log[0], "len 11: must be clear of the next extent"), "%s", cw.last_log[0]);
		le32_set(&d.len, 10);			/* beside it is no overlap */
		OK(bt_replace(&t, &h, 10 * k, &d, sizeof(d)));
		OK(ext_map(&t, 10 * k + 3, &e));
		end(fs);
	}
	for (unsigned k = 0; k < 400; k++) {
		begin(fs, &t);
		OK(bt_delete(&t, &h, 10 * k));
		end(fs);
	}
	inode_put(&r);
}
START_TEST(extents_that_overlap_are_damage) { on_new_volume(overlap); } END_TEST

START_TEST(every_field_of_an_extent_is_checked) { on_new_volume(lies); } END_TEST

UNIT_MAIN("extent", UNIT_LOOP(the_tree_is_what_was_done_to_it, 0, 4), UNIT_TEST(every_field_of_an_extent_is_checked), UNIT_TEST(extents_that_overlap_are_damage),
	  UNIT_TEST(a_merge_never_empties_a_node_of_a_foreign_group))
