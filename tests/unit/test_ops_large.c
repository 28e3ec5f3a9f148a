/* SPDX-License-Identifier: GPL-2.0-only */
/* Files larger than an allocation group, on a sparse disk of 6 GiB: extents in many groups, freed in batches. */
#define CW_BYTES (6ull << 30)
#include "tests/unit/core_ops.h"

#define GIB (1ull << 30)

static uint8_t block[4096], back[4096];

static void set_size(struct csvfs *fs, uint64_t ino, uint64_t size)
{
	struct csvfs_attr a = { .size = size };

	OK(csvfs_setattr(fs, ino, 0, &a, CSVFS_SET_SIZE, &a));
}

static uint64_t free_blocks(struct csvfs *fs)
{
	struct csvfs_statfs s;

	OK(csvfs_sync(fs));
	OK(csvfs_statfs(fs, &s));
	return s.bfree;
}

static void mark(struct csvfs *fs, uint64_t ino, uint64_t off)
{
	fill(block, sizeof(block), off, 5);
	IS(csvfs_write(fs, ino, 0, off, block, sizeof(block), 0, NULL), sizeof(block));
}

static void marked(struct csvfs *fs, uint64_t ino, uint64_t off)
{
	fill(block, sizeof(block), off, 5);
	IS(csvfs_read(fs, ino, 0, off, back, sizeof(back)), sizeof(back));
	ck_assert_mem_eq(block, back, sizeof(back));
}

static void body(struct csvfs *fs)
{
	uint64_t before = free_blocks(fs), f;

	co_fail_at(1, 0);		/* discards give the memory back */
	f = mk(fs, root(fs), "image", S_IFREG).ino;
	OK(csvfs_set_image(fs, f, 0));
	OK(csvfs_fallocate(fs, f, 0, 0, 0, 9 * GIB / 2));
	ck_assert_uint_ge(attr(fs, f).blocks_512, 9 * GIB / 2 / 512);
	ck_assert_uint_lt(attr(fs, f).blocks_512, 9 * GIB / 2 / 512 + 16 * 8);	/* few tree nodes: long extents */
	for (uint64_t off = 0; off < 9 * GIB / 2; off += GIB / 4)
		mark(fs, f, off);
	for (uint64_t off = 0; off < 9 * GIB / 2; off += GIB / 4)
		marked(fs, f, off);
	OK(csvfs_fallocate(fs, f, 0, CSVFS_FALLOC_PUNCH_HOLE | CSVFS_FALLOC_KEEP_SIZE, GIB / 2 + 4096, 3 * GIB));
	marked(fs, f, GIB / 2);
	marked(fs, f, 4 * GIB);
	IS(csvfs_read(fs, f, 0, 2 * GIB, back, 4096), 4096);
	memset(block, 0, sizeof(block));
	ck_assert_mem_eq(block, back, sizeof(back));
	set_size(fs, f, GIB / 4 + 4096);
	marked(fs, f, GIB / 4);
	ck_assert_uint_lt(attr(fs, f).blocks_512, (GIB / 4) / 512 + 200);
	set_size(fs, f, 64ull << 40);
	mark(fs, f, (64ull << 40) - 4096);
	marked(fs, f, (64ull << 40) - 4096);
	OK(csvfs_unlink(fs, root(fs), 0, "image"));
	for (int i = 0; i < 100 && free_blocks(fs) != before; i++)
		coro_sleep_ns(fs->env->sched, 50 * NS_PER_MS);
	ck_assert_uint_eq(free_blocks(fs), before);
}
START_TEST(a_file_spans_groups_and_is_freed_from_all_of_them) { on_new_volume(body); } END_TEST

static void full(struct csvfs *fs)
{
	uint64_t before = free_blocks(fs), f = mk(fs, root(fs), "f", S_IFREG).ino;
	struct csvfs_statfs s;

	co_fail_at(1, 0);
	IS(csvfs_fallocate(fs, f, 0, 0, 0, 16 * GIB), -ENOSPC);
	OK(csvfs_statfs(fs, &s));
	ck_assert_uint_lt(s.bavail, 400);	/* of 1.5 million: what tree nodes might have needed is left in each group */
	set_size(fs, f, 0);
	OK(csvfs_unlink(fs, root(fs), 0, "f"));
	for (int i = 0; i < 100 && free_blocks(fs) != before; i++)
		coro_sleep_ns(fs->env->sched, 50 * NS_PER_MS);
	ck_assert_uint_eq(free_blocks(fs), before);
}
START_TEST(a_full_volume_was_filled_to_its_end) { on_new_volume(full); } END_TEST

UNIT_MAIN("ops_large", UNIT_TEST(a_file_spans_groups_and_is_freed_from_all_of_them), UNIT_TEST(a_full_volume_was_filled_to_its_end))
