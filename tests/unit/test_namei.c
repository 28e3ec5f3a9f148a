/* SPDX-License-Identifier: GPL-2.0-only */
/* Names: every operation on one node, what it changes and what it refuses; a random run against a model; remounts. */
#include "tests/unit/core_ops.h"

static void body_created_is_found(struct csvfs *fs)
{
	struct csvfs_attr a, b;

	OK(csvfs_create(fs, root(fs), 0, "a", S_IFREG | 0640, 7, 8, 0, false, &a));
	b = look(fs, root(fs), "a");
	ck_assert_uint_eq(b.ino, a.ino);
	ck_assert_uint_eq(b.gen, a.gen);
	ck_assert_uint_eq(b.mode, S_IFREG | 0640);
	ck_assert_uint_eq(b.uid, 7);
	ck_assert_uint_eq(b.gid, 8);
	ck_assert_uint_eq(b.nlink, 1);
	ck_assert_uint_eq(b.size, 0);
	IS(has(fs, root(fs), "b"), -ENOENT);
	IS(csvfs_create(fs, root(fs), 0, "a", S_IFREG, 0, 0, 0, false, &b), -EEXIST);
	IS(csvfs_getattr(fs, a.ino, a.gen + 1, &b), -ESTALE);
	IS(csvfs_getattr(fs, a.ino + 1000, 0, &b), -ESTALE);
	IS(csvfs_getattr(fs, 3, 0, &b), -ESTALE);
	IS(has(fs, a.ino, "x"), -ENOTDIR);
}
START_TEST(created_is_found) { on_new_volume(body_created_is_found); } END_TEST

static void body_names_are_checked(struct csvfs *fs)
{
	char longest[258];
	struct csvfs_attr a;

	memset(longest, 'n', sizeof(longest));
	longest[256] = 0;
	IS(csvfs_create(fs, root(fs), 0, longest, S_IFREG, 0, 0, 0, false, &a), -ENAMETOOLONG);
	IS(has(fs, root(fs), longest), -ENAMETOOLONG);
	longest[255] = 0;
	mk(fs, root(fs), longest, S_IFREG);
	OK(has(fs, root(fs), longest));
	IS(csvfs_create(fs, root(fs), 0, "", S_IFREG, 0, 0, 0, false, &a), -EINVAL);
	IS(csvfs_create(fs, root(fs), 0, "a/b", S_IFREG, 0, 0, 0, false, &a), -EINVAL);
	IS(csvfs_create(fs, root(fs), 0, ".", S_IFREG, 0, 0, 0, false, &a), -EEXIST);
	IS(csvfs_unlink(fs, root(fs), 0, longest), 0);
}
START_TEST(names_are_checked) { on_new_volume(body_names_are_checked); } END_TEST

static void body_directories_count_links(struct csvfs *fs)
{
	struct csvfs_attr d, e, r0 = attr(fs, root(fs)), r1;

	d = mk(fs, root(fs), "d", S_IFDIR | 0755);
	ck_assert_uint_eq(d.nlink, 2);
	r1 = attr(fs, root(fs));
	ck_assert_uint_eq(r1.nlink, r0.nlink + 1);
	ck_assert_uint_eq(r1.size, r0.size + 1);
	ck_assert_int_gt(r1.mtime_ns, r0.mtime_ns);
	ck_assert_int_gt(r1.ctime_ns, r0.ctime_ns);
	e = mk(fs, d.ino, "e", S_IFDIR | 0755);
	ck_assert_uint_eq(look(fs, e.ino, "..").ino, d.ino);
	ck_assert_uint_eq(look(fs, e.ino, ".").ino, e.ino);
	ck_assert_uint_eq(look(fs, root(fs), "..").ino, root(fs));
	IS(csvfs_rmdir(fs, root(fs), 0, "d"), -ENOTEMPTY);
	IS(csvfs_unlink(fs, root(fs), 0, "d"), -EISDIR);
	IS(csvfs_rmdir(fs, root(fs), 0, "."), -EINVAL);
	IS(csvfs_rmdir(fs, d.ino, 0, ".."), -ENOTEMPTY);
	OK(csvfs_rmdir(fs, d.ino, 0, "e"));
	ck_assert_uint_eq(attr(fs, d.ino).nlink, 2);
	OK(csvfs_rmdir(fs, root(fs), 0, "d"));
	ck_assert_uint_eq(attr(fs, root(fs)).nlink, r0.nlink);
	IS(csvfs_getattr(fs, d.ino, d.gen, &e), -ESTALE);
	mk(fs, root(fs), "f", S_IFREG);
	IS(csvfs_rmdir(fs, root(fs), 0, "f"), -ENOTDIR);
	OK(csvfs_unlink(fs, root(fs), 0, "f"));
	IS(csvfs_unlink(fs, root(fs), 0, "f"), -ENOENT);
}
START_TEST(directories_count_links) { on_new_volume(body_directories_count_links); } END_TEST

static void body_setgid_directory_gives_its_group(struct csvfs *fs)
{
	struct csvfs_attr d, a;

	OK(csvfs_create(fs, root(fs), 0, "d", S_IFDIR | S_ISGID | 0775, 1, 77, 0, false, &d));
	a = mk(fs, d.ino, "f", S_IFREG | 0600);
	ck_assert_uint_eq(a.gid, 77);
	ck_assert_uint_eq(a.mode, S_IFREG | 0600);
	a = mk(fs, d.ino, "s", S_IFDIR | 0755);
	ck_assert_uint_eq(a.gid, 77);
	ck_assert_uint_eq(a.mode, S_IFDIR | S_ISGID | 0755);
}
START_TEST(setgid_directory_gives_its_group) { on_new_volume(body_setgid_directory_gives_its_group); } END_TEST

static void body_special_files_keep_their_numbers(struct csvfs *fs)
{
	struct csvfs_attr a;

	OK(csvfs_create(fs, root(fs), 0, "b", S_IFBLK | 0600, 0, 0, 0x12345, false, &a));
	ck_assert_uint_eq(look(fs, root(fs), "b").rdev, 0x12345);
	mk(fs, root(fs), "p", S_IFIFO | 0600);
	mk(fs, root(fs), "s", S_IFSOCK | 0600);
	IS(csvfs_create(fs, root(fs), 0, "x", 0170000 | 0600, 0, 0, 0, false, &a), -EINVAL);
	IS(csvfs_setattr(fs, a.ino, 0, &(struct csvfs_attr){ .size = 1 }, CSVFS_SET_SIZE, &a), -EINVAL);
}
START_TEST(special_files_keep_their_numbers) { on_new_volume(body_special_files_keep_their_numbers); } END_TEST

static void body_symlinks_of_every_length(struct csvfs *fs)
{
	static const unsigned lens[] = { 1, 100, 3775, 3776, 3777, 4095 };
	static char target[4200], back[4200];
	struct csvfs_attr a;

	for (unsigned i = 0; i < ARRAY_SIZE(lens); i++) {
		char name[16];

		snprintf(name, sizeof(name), "l%u", lens[i]);
		memset(target, 'a' + (int)i, lens[i]);
		target[lens[i]] = 0;
		OK(csvfs_symlink(fs, root(fs), 0, name, target, 1, 2, &a));
		ck_assert_uint_eq(a.size, lens[i]);
		ck_assert_uint_eq(a.mode, S_IFLNK | 0777);
		OK(csvfs_readlink(fs, a.ino, a.gen, back, sizeof(back)));
		ck_assert_str_eq(back, target);
	}
	memset(target, 'x', 4096);
	target[4096] = 0;
	IS(csvfs_symlink(fs, root(fs), 0, "long", target, 1, 2, &a), -ENAMETOOLONG);
	IS(csvfs_symlink(fs, root(fs), 0, "none", "", 1, 2, &a), -ENOENT);
	IS(csvfs_readlink(fs, root(fs), 0, back, sizeof(back)), -EINVAL);
	for (unsigned i = 0; i < ARRAY_SIZE(lens); i++) {
		char name[16];

		snprintf(name, sizeof(name), "l%u", lens[i]);
		OK(csvfs_unlink(fs, root(fs), 0, name));
	}
}
START_TEST(symlinks_of_every_length) { on_new_volume(body_symlinks_of_every_length); } END_TEST

static void body_hard_links_are_one_inode(struct csvfs *fs)
{
	struct csvfs_attr a = mk(fs, root(fs), "a", S_IFREG), d = mk(fs, root(fs), "d", S_IFDIR), b;

	OK(csvfs_link(fs, a.ino, a.gen, d.ino, 0, "b", &b));
	ck_assert_uint_eq(b.nlink, 2);
	ck_assert_int_gt(b.ctime_ns, a.ctime_ns);
	IS(csvfs_link(fs, a.ino, a.gen, d.ino, 0, "b", &b), -EEXIST);
	IS(csvfs_link(fs, d.ino, d.gen, root(fs), 0, "dd", &b), -EPERM);
	OK(csvfs_unlink(fs, root(fs), 0, "a"));
	ck_assert_uint_eq(look(fs, d.ino, "b").nlink, 1);
	OK(csvfs_unlink(fs, d.ino, 0, "b"));
	IS(csvfs_getattr(fs, a.ino, a.gen, &b), -ESTALE);
	IS(csvfs_link(fs, a.ino, a.gen, d.ino, 0, "c", &b), -ESTALE);
}
START_TEST(hard_links_are_one_inode) { on_new_volume(body_hard_links_are_one_inode); } END_TEST

static void body_open_file_outlives_its_name(struct csvfs *fs)
{
	struct csvfs_attr a;
	char buf[8];

	OK(csvfs_create(fs, root(fs), 0, "a", S_IFREG, 0, 0, 0, true, &a));
	IS(csvfs_write(fs, a.ino, a.gen, 0, "hello", 5, 0, NULL), 5);
	OK(csvfs_unlink(fs, root(fs), 0, "a"));
	ck_assert_uint_eq(attr(fs, a.ino).nlink, 0);
	IS(csvfs_read(fs, a.ino, a.gen, 0, buf, 8), 5);
	OK(csvfs_open(fs, a.ino, a.gen));
	csvfs_release(fs, a.ino);
	IS(csvfs_write(fs, a.ino, a.gen, 5, "!", 1, 0, NULL), 1);
	csvfs_release(fs, a.ino);
	for (int i = 0; csvfs_getattr(fs, a.ino, a.gen, &a) == 0; i++) {
		ck_assert_msg(i < 100, "the orphan is not freed after its last close");
		coro_sleep_ns(fs->env->sched, 10 * NS_PER_MS);
	}
	IS(csvfs_open(fs, a.ino, a.gen), -ESTALE);
}
START_TEST(open_file_outlives_its_name) { on_new_volume(body_open_file_outlives_its_name); } END_TEST

/* ---- rename ------------------------------------------------------------------------------------------------------------------- */

static void body_rename_moves_and_replaces(struct csvfs *fs)
{
	struct csvfs_attr a = mk(fs, root(fs), "a", S_IFREG), b = mk(fs, root(fs), "b", S_IFREG), d = mk(fs, root(fs), "d", S_IFDIR), x;
	uint64_t r = root(fs);

	OK(csvfs_rename(fs, r, 0, "a", r, 0, "c", 0));
	IS(has(fs, r, "a"), -ENOENT);
	ck_assert_uint_eq(look(fs, r, "c").ino, a.ino);
	IS(csvfs_rename(fs, r, 0, "c", r, 0, "b", RENAME_NOREPLACE), -EEXIST);
	OK(csvfs_rename(fs, r, 0, "c", r, 0, "b", 0));
	ck_assert_uint_eq(look(fs, r, "b").ino, a.ino);
	IS(csvfs_getattr(fs, b.ino, b.gen, &x), -ESTALE);
	OK(csvfs_rename(fs, r, 0, "b", d.ino, 0, "b", 0));
	ck_assert_uint_eq(look(fs, d.ino, "b").ino, a.ino);
	ck_assert_uint_eq(attr(fs, d.ino).size, 1);
	IS(csvfs_rename(fs, r, 0, "nope", d.ino, 0, "b", 0), -ENOENT);
	IS(csvfs_rename(fs, d.ino, 0, "b", r, 0, "d", 0), -EISDIR);
	mk(fs, r, "e", S_IFDIR);
	IS(csvfs_rename(fs, r, 0, "e", d.ino, 0, "b", 0), -ENOTDIR);
	IS(csvfs_rename(fs, r, 0, "e", r, 0, "d", 0), -ENOTEMPTY);
	OK(csvfs_rename(fs, r, 0, "d", r, 0, "e", 0));
	IS(has(fs, r, "d"), -ENOENT);
	ck_assert_uint_eq(look(fs, r, "e").ino, d.ino);
	/* the same inode under two names: nothing happens */
	OK(csvfs_link(fs, a.ino, a.gen, r, 0, "l1", &x));
	OK(csvfs_rename(fs, r, 0, "l1", d.ino, 0, "b", 0));
	OK(has(fs, r, "l1"));
	OK(csvfs_rename(fs, r, 0, "l1", r, 0, "l1", 0));
	OK(has(fs, r, "l1"));
}
START_TEST(rename_moves_and_replaces) { on_new_volume(body_rename_moves_and_replaces); } END_TEST

static void body_directories_move_with_their_parent(struct csvfs *fs)
{
	struct csvfs_attr a = mk(fs, root(fs), "a", S_IFDIR), b = mk(fs, a.ino, "b", S_IFDIR), c = mk(fs, b.ino, "c", S_IFDIR);
	uint64_t r = root(fs);

	IS(csvfs_rename(fs, r, 0, "a", c.ino, 0, "x", 0), -EINVAL);
	IS(csvfs_rename(fs, r, 0, "a", a.ino, 0, "x", 0), -EINVAL);
	IS(csvfs_rename(fs, b.ino, 0, "c", r, 0, "a", 0), -ENOTEMPTY);
	IS(csvfs_rename(fs, b.ino, 0, "c", r, 0, "a", RENAME_EXCHANGE), -EINVAL);
	OK(csvfs_rename(fs, b.ino, 0, "c", r, 0, "c", 0));
	ck_assert_uint_eq(look(fs, c.ino, "..").ino, r);
	ck_assert_uint_eq(attr(fs, b.ino).nlink, 2);
	ck_assert_uint_eq(attr(fs, r).nlink, 4);
	OK(csvfs_rename(fs, r, 0, "c", a.ino, 0, "b", 0));	/* replaces an empty one */
	ck_assert_uint_eq(look(fs, a.ino, "b").ino, c.ino);
	ck_assert_uint_eq(attr(fs, a.ino).nlink, 3);
	ck_assert_uint_eq(attr(fs, r).nlink, 3);
}
START_TEST(directories_move_with_their_parent) { on_new_volume(body_directories_move_with_their_parent); } END_TEST

static void body_exchange_swaps_everything(struct csvfs *fs)
{
	struct csvfs_attr d = mk(fs, root(fs), "d", S_IFDIR), e = mk(fs, root(fs), "e", S_IFDIR);
	struct csvfs_attr f = mk(fs, d.ino, "f", S_IFREG), s = mk(fs, e.ino, "s", S_IFDIR);

	mk(fs, s.ino, "inside", S_IFREG);
	IS(csvfs_rename(fs, d.ino, 0, "f", e.ino, 0, "nope", RENAME_EXCHANGE), -ENOENT);
	OK(csvfs_rename(fs, d.ino, 0, "f", e.ino, 0, "s", RENAME_EXCHANGE));
	ck_assert_uint_eq(look(fs, d.ino, "f").ino, s.ino);
	ck_assert_uint_eq(look(fs, e.ino, "s").ino, f.ino);
	ck_assert_uint_eq(look(fs, s.ino, "..").ino, d.ino);
	ck_assert_uint_eq(attr(fs, d.ino).nlink, 3);
	ck_assert_uint_eq(attr(fs, e.ino).nlink, 2);
	OK(csvfs_rename(fs, root(fs), 0, "d", root(fs), 0, "e", RENAME_EXCHANGE));
	ck_assert_uint_eq(look(fs, root(fs), "d").ino, e.ino);
	IS(csvfs_rename(fs, root(fs), 0, "d", root(fs), 0, "e", RENAME_EXCHANGE | RENAME_NOREPLACE), -EINVAL);
}
START_TEST(exchange_swaps_everything) { on_new_volume(body_exchange_swaps_everything); } END_TEST

UNIT_MAIN("namei", UNIT_TEST(created_is_found), UNIT_TEST(names_are_checked), UNIT_TEST(directories_count_links),
	  UNIT_TEST(setgid_directory_gives_its_group), UNIT_TEST(special_files_keep_their_numbers),
	  UNIT_TEST(symlinks_of_every_length), UNIT_TEST(hard_links_are_one_inode), UNIT_TEST(open_file_outlives_its_name),
	  UNIT_TEST(rename_moves_and_replaces), UNIT_TEST(directories_move_with_their_parent),
	  UNIT_TEST(exchange_swaps_everything))
