/* SPDX-License-Identifier: GPL-2.0-only */
/* Bytes of files: inline, in blocks, sparse, preallocated, truncated; a random run against an array in memory; a full volume. */
#include "tests/unit/core_ops.h"

#include "csvfs/extent.h"
#include "utils/base/prng.h"

csv_static_assert(CSVFS_FALLOC_KEEP_SIZE == FALLOC_FL_KEEP_SIZE && CSVFS_FALLOC_PUNCH_HOLE == FALLOC_FL_PUNCH_HOLE &&
		  CSVFS_FALLOC_ZERO_RANGE == FALLOC_FL_ZERO_RANGE, "the kernel's values");

static uint8_t big[4 << 20], back[4 << 20];

static void wr(struct csvfs *fs, uint64_t ino, uint64_t off, size_t len, uint32_t salt)
{
	fill(big, len, off, salt);
	IS(csvfs_write(fs, ino, 0, off, big, len, 0, NULL), (long long)len);
}

/* Check records every assertion: one for a range. */
static void same(const uint8_t *is, const uint8_t *must, uint64_t off, size_t len)
{
	size_t i = 0;

	if (!memcmp(is, must, len))
		return;
	while (is[i] == must[i])
		i++;
	ck_abort_msg("byte %llu of %llu+%zu: %02x, must be %02x", (unsigned long long)(off + i), (unsigned long long)off, len, is[i], must[i]);
}

static void rd(struct csvfs *fs, uint64_t ino, uint64_t off, size_t len, uint32_t salt)
{
	fill(big, len, off, salt);
	IS(csvfs_read(fs, ino, 0, off, back, len), (long long)len);
	same(back, big, off, len);
}

static void zeros(struct csvfs *fs, uint64_t ino, uint64_t off, size_t len)
{
	memset(back, 0xaa, len);
	IS(csvfs_read(fs, ino, 0, off, back, len), (long long)len);
	memset(big, 0, len);
	same(back, big, off, len);
}

static void set_size(struct csvfs *fs, uint64_t ino, uint64_t size)
{
	struct csvfs_attr a = { .size = size };

	OK(csvfs_setattr(fs, ino, 0, &a, CSVFS_SET_SIZE, &a));
	ck_assert_uint_eq(a.size, size);
}

static void body_small_files_live_in_the_inode(struct csvfs *fs)
{
	uint64_t f = mk(fs, root(fs), "f", S_IFREG).ino;

	wr(fs, f, 0, 100, 1);
	rd(fs, f, 0, 100, 1);
	ck_assert_uint_eq(attr(fs, f).blocks_512, 0);
	wr(fs, f, 3000, 776, 2);
	rd(fs, f, 3000, 776, 2);
	zeros(fs, f, 100, 2900);
	ck_assert_uint_eq(attr(fs, f).blocks_512, 0);
	ck_assert_uint_eq(attr(fs, f).size, 3776);
	/* one byte more and it moves out, with everything in it */
	wr(fs, f, 3776, 1, 3);
	ck_assert_uint_eq(attr(fs, f).blocks_512, 8);
	rd(fs, f, 0, 100, 1);
	zeros(fs, f, 100, 2900);
	rd(fs, f, 3000, 776, 2);
	rd(fs, f, 3776, 1, 3);
	set_size(fs, f, 0);
	ck_assert_uint_eq(attr(fs, f).blocks_512, 0);
	wr(fs, f, 0, 10, 4);
	ck_assert_uint_eq(attr(fs, f).blocks_512, 0);
	set_size(fs, f, 5);
	set_size(fs, f, 50);
	rd(fs, f, 0, 5, 4);
	zeros(fs, f, 5, 45);
	IS(csvfs_read(fs, f, 0, 50, back, 10), 0);
	IS(csvfs_read(fs, f, 0, 45, back, 10), 5);
}
START_TEST(small_files_live_in_the_inode) { on_new_volume(body_small_files_live_in_the_inode); } END_TEST

static void body_unaligned_writes_keep_their_neighbours(struct csvfs *fs)
{
	uint64_t f = mk(fs, root(fs), "f", S_IFREG).ino;

	wr(fs, f, 0, 20000, 1);
	wr(fs, f, 5000, 3, 2);
	wr(fs, f, 8191, 2, 3);
	wr(fs, f, 12000, 5000, 4);
	rd(fs, f, 0, 5000, 1);
	rd(fs, f, 5000, 3, 2);
	rd(fs, f, 5003, 8191 - 5003, 1);
	rd(fs, f, 8191, 2, 3);
	rd(fs, f, 8193, 12000 - 8193, 1);
	rd(fs, f, 12000, 5000, 4);
	rd(fs, f, 17000, 3000, 1);
}
START_TEST(unaligned_writes_keep_their_neighbours) { on_new_volume(body_unaligned_writes_keep_their_neighbours); } END_TEST

static void body_growing_never_shows_old_bytes(struct csvfs *fs)
{
	uint64_t f = mk(fs, root(fs), "f", S_IFREG).ino, g;

	/* old bytes behind the end of file: in the last block, and in blocks that are taken again */
	wr(fs, f, 0, 300000, 1);
	set_size(fs, f, 5001);
	set_size(fs, f, 200000);
	rd(fs, f, 0, 5001, 1);
	zeros(fs, f, 5001, 200000 - 5001);
	set_size(fs, f, 5001);
	wr(fs, f, 8000, 10, 2);
	zeros(fs, f, 5001, 8000 - 5001);
	set_size(fs, f, 0);
	OK(csvfs_sync(fs));
	g = mk(fs, root(fs), "g", S_IFREG).ino;
	OK(csvfs_fallocate(fs, g, 0, 0, 0, 3 << 20));
	zeros(fs, g, 0, 3 << 20);
	wr(fs, g, 70000, 100, 3);
	zeros(fs, g, 0, 70000);
	rd(fs, g, 70000, 100, 3);
	zeros(fs, g, 70100, (3 << 20) - 70100);
}
START_TEST(growing_never_shows_old_bytes) { on_new_volume(body_growing_never_shows_old_bytes); } END_TEST

static void body_holes_take_no_space(struct csvfs *fs)
{
	uint64_t f = mk(fs, root(fs), "f", S_IFREG).ino, at;

	wr(fs, f, 1ull << 40, 4096, 1);
	ck_assert_uint_eq(attr(fs, f).size, (1ull << 40) + 4096);
	ck_assert_uint_eq(attr(fs, f).blocks_512, 8);
	zeros(fs, f, 1 << 30, 100000);
	wr(fs, f, 40960, 4096, 2);
	OK(csvfs_lseek(fs, f, 0, 0, SEEK_DATA, &at));
	ck_assert_uint_eq(at, 40960);
	OK(csvfs_lseek(fs, f, 0, 41000, SEEK_HOLE, &at));
	ck_assert_uint_eq(at, 45056);
	OK(csvfs_lseek(fs, f, 0, 45056, SEEK_DATA, &at));
	ck_assert_uint_eq(at, 1ull << 40);
	OK(csvfs_lseek(fs, f, 0, 1ull << 40, SEEK_HOLE, &at));
	ck_assert_uint_eq(at, (1ull << 40) + 4096);
	IS(csvfs_lseek(fs, f, 0, (1ull << 40) + 4096, SEEK_DATA, &at), -ENXIO);
	IS(csvfs_write(fs, f, 0, CSV_FILE_SIZE_MAX, "x", 1, 0, NULL), -EFBIG);
	IS(csvfs_write(fs, f, 0, CSV_FILE_SIZE_MAX - 1, "xy", 2, 0, NULL), 1);
	IS(csvfs_setattr(fs, f, 0, &(struct csvfs_attr){ .size = CSV_FILE_SIZE_MAX + 1 }, CSVFS_SET_SIZE, &(struct csvfs_attr){ 0 }), -EFBIG);
	set_size(fs, f, 40960);
	ck_assert_uint_eq(attr(fs, f).blocks_512, 0);
}
START_TEST(holes_take_no_space) { on_new_volume(body_holes_take_no_space); } END_TEST

static void body_punched_and_zeroed_ranges_read_as_zeros(struct csvfs *fs)
{
	uint64_t f = mk(fs, root(fs), "f", S_IFREG).ino, before;

	wr(fs, f, 0, 400000, 1);
	before = attr(fs, f).blocks_512;
	OK(csvfs_fallocate(fs, f, 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10000, 100000));
	rd(fs, f, 0, 10000, 1);
	zeros(fs, f, 10000, 100000);
	rd(fs, f, 110000, 290000, 1);
	ck_assert_uint_eq(attr(fs, f).size, 400000);
	ck_assert_uint_eq(attr(fs, f).blocks_512, before - 8 * (110000 / 4096 - 10000 / 4096 - 1));
	OK(csvfs_fallocate(fs, f, 0, FALLOC_FL_ZERO_RANGE, 300000, 200000));
	rd(fs, f, 110000, 190000, 1);
	zeros(fs, f, 300000, 200000);
	ck_assert_uint_eq(attr(fs, f).size, 500000);
	wr(fs, f, 350000, 5000, 2);
	zeros(fs, f, 300000, 50000);
	rd(fs, f, 350000, 5000, 2);
	zeros(fs, f, 355000, 145000);
	OK(csvfs_fallocate(fs, f, 0, FALLOC_FL_KEEP_SIZE, 500000, 1 << 20));
	ck_assert_uint_eq(attr(fs, f).size, 500000);
	set_size(fs, f, 600000);
	zeros(fs, f, 500000, 100000);
	IS(csvfs_fallocate(fs, f, 0, FALLOC_FL_PUNCH_HOLE, 0, 1), -EOPNOTSUPP);
	IS(csvfs_fallocate(fs, f, 0, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -EOPNOTSUPP);
	IS(csvfs_fallocate(fs, f, 0, 0, 0, 0), -EINVAL);
	IS(csvfs_fallocate(fs, f, 0, 0, UINT64_MAX, 2), -EFBIG);
	IS(csvfs_fallocate(fs, root(fs), 0, 0, 0, 1), -EISDIR);
	OK(csvfs_fallocate(fs, f, 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1ull << 50));
	zeros(fs, f, 0, 600000);
	ck_assert_uint_eq(attr(fs, f).blocks_512, 0);
}
START_TEST(punched_and_zeroed_ranges_read_as_zeros) { on_new_volume(body_punched_and_zeroed_ranges_read_as_zeros); } END_TEST

static void body_appends_go_to_the_end(struct csvfs *fs)
{
	uint64_t f = mk(fs, root(fs), "f", S_IFREG).ino, at, total = 0;

	for (unsigned i = 0; i < 60; i++) {
		size_t len = i < 20 ? 300 : 100000;

		fill(big, len, total, 1);
		IS(csvfs_write(fs, f, 0, 12345, big, len, CSVFS_WRITE_APPEND, &at), (long long)len);
		ck_assert_uint_eq(at, total);
		total += len;
	}
	rd(fs, f, 0, 3000000, 1);
	ck_assert_uint_eq(attr(fs, f).size, total);
}
START_TEST(appends_go_to_the_end) { on_new_volume(body_appends_go_to_the_end); } END_TEST

static void body_room_taken_for_appends_is_given_back(struct csvfs *fs)
{
	struct csvfs_attr a;

	OK(csvfs_create(fs, root(fs), 0, "f", S_IFREG, 0, 0, 0, true, &a));
	for (unsigned i = 0; i < 20; i++)
		wr(fs, a.ino, i * 100000, 100000, 1);
	ck_assert_uint_gt(attr(fs, a.ino).blocks_512, 2000000 / 512 + 8);
	csvfs_release(fs, a.ino);
	ck_assert_uint_eq(attr(fs, a.ino).blocks_512, (2000000 + 4095) / 4096 * 8);
	rd(fs, a.ino, 0, 2000000, 1);
	/* what somebody asked for stays */
	OK(csvfs_open(fs, a.ino, 0));
	OK(csvfs_fallocate(fs, a.ino, 0, FALLOC_FL_KEEP_SIZE, 0, 4 << 20));
	csvfs_release(fs, a.ino);
	ck_assert_uint_eq(attr(fs, a.ino).blocks_512, (4 << 20) / 512);
}
START_TEST(room_taken_for_appends_is_given_back) { on_new_volume(body_room_taken_for_appends_is_given_back); } END_TEST

static void body_attributes_follow_the_rules(struct csvfs *fs)
{
	struct csvfs_attr a = mk(fs, root(fs), "f", S_IFREG | 0755), b;

	b = (struct csvfs_attr){ .mode = 06711, .uid = 5, .gid = 6, .atime_ns = 111, .mtime_ns = -222 };
	OK(csvfs_setattr(fs, a.ino, 0, &b, CSVFS_SET_MODE | CSVFS_SET_UID | CSVFS_SET_GID | CSVFS_SET_ATIME | CSVFS_SET_MTIME, &b));
	ck_assert_uint_eq(b.mode, S_IFREG | 06711);
	ck_assert_uint_eq(b.uid, 5);
	ck_assert_uint_eq(b.gid, 6);
	ck_assert_int_eq(b.atime_ns, 111);
	ck_assert_int_eq(b.mtime_ns, -222);
	ck_assert_int_gt(b.ctime_ns, a.ctime_ns);
	ck_assert_uint_gt(b.change, a.change);
	OK(csvfs_setattr(fs, a.ino, 0, &b, CSVFS_SET_KILLPRIV, &b));
	ck_assert_uint_eq(b.mode, S_IFREG | 0711);
	b.mode = 02640;
	OK(csvfs_setattr(fs, a.ino, 0, &b, CSVFS_SET_MODE, &b));
	OK(csvfs_setattr(fs, a.ino, 0, &b, CSVFS_SET_KILLPRIV, &b));
	ck_assert_uint_eq(b.mode, S_IFREG | 02640);	/* no group execution: mandatory locking, not set-gid */
	a = b;
	wr(fs, a.ino, 0, 10, 1);
	b = attr(fs, a.ino);
	ck_assert_int_gt(b.mtime_ns, a.mtime_ns);
	ck_assert_int_gt(b.ctime_ns, a.ctime_ns);
	IS(csvfs_setattr(fs, root(fs), 0, &b, CSVFS_SET_SIZE, &b), -EISDIR);
	IS(csvfs_setattr(fs, a.ino, a.gen + 1, &b, CSVFS_SET_MODE, &b), -ESTALE);
	IS(csvfs_read(fs, root(fs), 0, 0, back, 10), -EISDIR);
	IS(csvfs_write(fs, root(fs), 0, 0, back, 10, 0, NULL), -EISDIR);
}
START_TEST(attributes_follow_the_rules) { on_new_volume(body_attributes_follow_the_rules); } END_TEST

/* More extents than one transaction frees, of a file that is open and has no name any more. */
static void body_a_nameless_file_of_many_pieces_is_truncated(struct csvfs *fs)
{
	struct csvfs_attr a;

	OK(csvfs_create(fs, root(fs), 0, "f", S_IFREG, 0, 0, 0, true, &a));
	for (unsigned i = 0; i < 300; i++)
		wr(fs, a.ino, i * 3ull * CSV_BLOCK_SIZE, CSV_BLOCK_SIZE, 1);
	OK(csvfs_unlink(fs, root(fs), 0, "f"));
	set_size(fs, a.ino, 20 * CSV_BLOCK_SIZE);
	rd(fs, a.ino, 18 * CSV_BLOCK_SIZE, CSV_BLOCK_SIZE, 1);
	ck_assert_uint_eq(attr(fs, a.ino).blocks_512, 7 * 8);
	set_size(fs, a.ino, 0);
	ck_assert_uint_eq(attr(fs, a.ino).blocks_512, 0);
	csvfs_release(fs, a.ino);
}
START_TEST(a_nameless_file_of_many_pieces_is_truncated) { on_new_volume(body_a_nameless_file_of_many_pieces_is_truncated); } END_TEST

/* The writer is one who may not keep set-id bits: they go, whether the file is inline, in blocks, or an image. */
static void body_a_write_takes_set_id_bits_away(struct csvfs *fs)
{
	static const struct { uint32_t before, after; } mode[] = {
		{ 06755, 0755 }, { 04711, 0711 }, { 02755, 0755 }, { 02644, 02644 }, { 06644, 02644 }, { 0777, 0777 },
	};

	for (unsigned kind = 0; kind < 3; kind++) {
		uint64_t f = mk(fs, root(fs), kind == 0 ? "inline" : kind == 1 ? "blocks" : "image", S_IFREG).ino;

		wr(fs, f, 0, kind ? 3 * CSV_BLOCK_SIZE : 100, 1);
		if (kind == 2)
			OK(csvfs_set_image(fs, f, 0));
		for (unsigned i = 0; i < ARRAY_SIZE(mode); i++) {
			struct csvfs_attr a = { .mode = mode[i].before };
			size_t len = kind ? CSV_BLOCK_SIZE : 100;

			OK(csvfs_setattr(fs, f, 0, &a, CSVFS_SET_MODE, &a));
			wr(fs, f, 0, len, 2);
			ck_assert_msg((attr(fs, f).mode & 07777) == mode[i].before, "write of root: mode %o, must be %o", attr(fs, f).mode & 07777,
				      mode[i].before);
			fill(big, len, 0, 3);
			IS(csvfs_write(fs, f, 0, 0, big, len, CSVFS_WRITE_KILLPRIV, NULL), (long long)len);
			ck_assert_msg((attr(fs, f).mode & 07777) == mode[i].after, "kind %u: mode %o, must be %o", kind, attr(fs, f).mode & 07777,
				      mode[i].after);
			rd(fs, f, 0, len, 3);
		}
	}
}
START_TEST(a_write_takes_set_id_bits_away) { on_new_volume(body_a_write_takes_set_id_bits_away); } END_TEST

static void body_images_are_written_in_place(struct csvfs *fs)
{
	struct csvfs_attr a = mk(fs, root(fs), "f", S_IFREG), b;
	uint64_t commits;
	struct jnl_stats st;

	wr(fs, a.ino, 0, 1000, 1);
	OK(csvfs_set_image(fs, a.ino, a.gen));
	rd(fs, a.ino, 0, 1000, 1);
	OK(csvfs_fallocate(fs, a.ino, 0, 0, 0, 8 << 20));
	wr(fs, a.ino, 2 << 20, 4096, 2);
	/* its chunk is written now: the neighbour is written without a transaction */
	b = attr(fs, a.ino);
	jnl_stats(fs->jnl, &st);
	commits = st.handles;
	wr(fs, a.ino, (2 << 20) + 8192, 8192, 3);
	jnl_stats(fs->jnl, &st);
	ck_assert_uint_eq(st.handles, commits);
	ck_assert_int_gt(attr(fs, a.ino).mtime_ns, b.mtime_ns);
	rd(fs, a.ino, (2 << 20) + 8192, 8192, 3);
	rd(fs, a.ino, 2 << 20, 4096, 2);
	zeros(fs, a.ino, (2 << 20) + 4096, 4096);
	zeros(fs, a.ino, (2 << 20) + 16384, 1 << 20);
	OK(csvfs_fsync(fs, a.ino, 0, false));
}
START_TEST(images_are_written_in_place) { on_new_volume(body_images_are_written_in_place); } END_TEST

static void body_a_full_volume_says_so(struct csvfs *fs)
{
	uint64_t f = mk(fs, root(fs), "f", S_IFREG).ino, off = 0;
	struct csvfs_statfs s0, s1;
	ssize_t n = 0;

	OK(csvfs_statfs(fs, &s0));
	memset(big, 7, sizeof(big));
	while ((n = csvfs_write(fs, f, 0, off, big, sizeof(big), 0, NULL)) > 0)
		off += (uint64_t)n;
	IS(n, -ENOSPC);
	ck_assert_uint_gt(off, (s0.bavail - 300) * 4096);
	/* block by block to the last ones: what stays is what a few tree nodes may need */
	while ((n = csvfs_write(fs, f, 0, off, big, CSV_BLOCK_SIZE, 0, NULL)) > 0)
		off += (uint64_t)n;
	IS(n, -ENOSPC);
	ck_assert_msg(off > (s0.bavail - 24) * 4096, "%llu blocks could not be had", (unsigned long long)(s0.bavail - off / 4096));
	/* what is there can be changed, and removed */
	IS(csvfs_write(fs, f, 0, 0, big, 100000, 0, NULL), 100000);
	OK(csvfs_unlink(fs, root(fs), 0, "f"));
	for (int i = 0; i < 200; i++) {
		coro_sleep_ns(fs->env->sched, 10 * NS_PER_MS);
		OK(csvfs_statfs(fs, &s1));
		if (s1.bfree == s0.bfree + 0)
			break;
	}
	OK(csvfs_sync(fs));
	OK(csvfs_statfs(fs, &s1));
	ck_assert_uint_ge(s1.bfree, s0.bfree);
	f = mk(fs, root(fs), "g", S_IFREG).ino;
	wr(fs, f, 0, 1 << 20, 1);
}
START_TEST(a_full_volume_says_so) { on_new_volume(body_a_full_volume_says_so); } END_TEST

/* ---- random ------------------------------------------------------------------------------------------------------------------- */

#define MODEL_BYTES (3u << 20)
static uint8_t model[MODEL_BYTES];
static uint64_t model_size, the_file;
static struct csv_prng prng;
static unsigned counts[8];

static void same_as_model(struct csvfs *fs)
{
	ck_assert_uint_eq(attr(fs, the_file).size, model_size);
	IS(csvfs_read(fs, the_file, 0, 0, back, MODEL_BYTES), (long long)model_size);
	same(back, model, 0, model_size);
}

static uint64_t pick_off(void)
{
	uint64_t off = csv_prng_chance(&prng, 1, 3) ? csv_prng_below(&prng, 6000) : csv_prng_below(&prng, MODEL_BYTES);

	return csv_prng_chance(&prng, 1, 2) ? off & ~4095ull : off;
}

static void random_ops(struct csvfs *fs)
{
	for (unsigned i = 0; i < 120; i++) {
		uint64_t off = pick_off(), len = 1 + csv_prng_below(&prng, csv_prng_chance(&prng, 1, 2) ? 10000 : 600000), old = model_size;
		unsigned op = (unsigned)csv_prng_below(&prng, 8);

		len = csv_min(len, MODEL_BYTES - off);
		counts[op]++;
		switch (op) {
		case 0: case 1: case 2: case 3:
			if (op == 3)
				off = model_size, len = csv_min(len, MODEL_BYTES - off);
			if (!len)
				break;
			fill(big, len, off, i);
			IS(csvfs_write(fs, the_file, 0, off, big, len, op == 3, NULL), (long long)len);
			memcpy(model + off, big, len);
			model_size = csv_max(model_size, off + len);
			break;
		case 4:
			set_size(fs, the_file, off);
			if (off < old)
				memset(model + off, 0, old - off);
			model_size = off;
			break;
		case 5:
			OK(csvfs_fallocate(fs, the_file, 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len));
			memset(model + off, 0, len);
			break;
		case 6:
			OK(csvfs_fallocate(fs, the_file, 0, FALLOC_FL_ZERO_RANGE | (i % 2 ? FALLOC_FL_KEEP_SIZE : 0), off, len));
			memset(model + off, 0, len);
			if (i % 2 == 0)
				model_size = csv_max(model_size, off + len);
			break;
		case 7:
			OK(csvfs_fallocate(fs, the_file, 0, i % 2 ? FALLOC_FL_KEEP_SIZE : 0, off, len));
			if (i % 2 == 0)
				model_size = csv_max(model_size, off + len);
			break;
		}
		if (i % 8 == 0)
			same_as_model(fs);
	}
	same_as_model(fs);
}

static void random_start(struct csvfs *fs)
{
	struct csvfs_attr a = mk(fs, root(fs), "f", S_IFREG);

	the_file = a.ino;
	random_ops(fs);
}

START_TEST(a_file_is_what_was_written_to_it)
{
	csv_prng_init(&prng, 1000 + (uint64_t)_i);
	memset(model, 0, sizeof(model));
	model_size = 0;
	cw_setup();
	cw_mount(1);
	on_node(1, random_start);
	cw_umount(1);
	ck_assert_uint_eq(cc_check(), 0);
	cw_mount(1);
	on_node(1, same_as_model);
	on_node(1, random_ops);
	cw_umount(1);
	ck_assert_uint_eq(cc_check(), 0);
	cw_teardown();
	for (unsigned i = 0; i < 8; i++)
		ck_assert_uint_gt(counts[i], 0);
}
END_TEST

/* ---- larger than one transaction ------------------------------------------------------------------------------------------------ */

#define PIECES 400u

static void body_a_file_of_many_pieces_is_truncated_in_batches(struct csvfs *fs)
{
	uint64_t f = mk(fs, root(fs), "f", S_IFREG).ino, blocks;
	struct csvfs_statfs s0, s1;

	OK(csvfs_sync(fs));
	OK(csvfs_statfs(fs, &s0));
	for (unsigned i = 0; i < PIECES; i++)
		wr(fs, f, (uint64_t)i * 12288, 4096, i);
	blocks = attr(fs, f).blocks_512 / 8;
	ck_assert_uint_gt(blocks, PIECES);	/* data and tree nodes */
	set_size(fs, f, 300 * 12288);
	for (unsigned i = 0; i < 300; i++)
		rd(fs, f, (uint64_t)i * 12288, 4096, i);
	set_size(fs, f, PIECES * 12288);
	zeros(fs, f, 300 * 12288, 100 * 12288);
	OK(csvfs_fallocate(fs, f, 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 250 * 12288));
	rd(fs, f, 0, 4096, 0);
	zeros(fs, f, 4096, 250 * 12288 - 4096);
	rd(fs, f, 251 * 12288, 4096, 251);
	OK(csvfs_unlink(fs, root(fs), 0, "f"));
	OK(csvfs_sync(fs));
	OK(csvfs_statfs(fs, &s1));
	ck_assert_uint_eq(s1.bfree, s0.bfree + 1);	/* and the inode */
}
START_TEST(a_file_of_many_pieces_is_truncated_in_batches) { on_new_volume(body_a_file_of_many_pieces_is_truncated_in_batches); } END_TEST

UNIT_MAIN("file", UNIT_TEST(small_files_live_in_the_inode), UNIT_TEST(unaligned_writes_keep_their_neighbours),
	  UNIT_TEST(growing_never_shows_old_bytes), UNIT_TEST(holes_take_no_space),
	  UNIT_TEST(punched_and_zeroed_ranges_read_as_zeros), UNIT_TEST(appends_go_to_the_end),
	  UNIT_TEST(room_taken_for_appends_is_given_back), UNIT_TEST(attributes_follow_the_rules),
	  UNIT_TEST(images_are_written_in_place), UNIT_TEST(a_full_volume_says_so), UNIT_TEST(a_write_takes_set_id_bits_away),
	  UNIT_TEST(a_nameless_file_of_many_pieces_is_truncated),
	  UNIT_LOOP(a_file_is_what_was_written_to_it, 0, 6), UNIT_TEST(a_file_of_many_pieces_is_truncated_in_batches))
