/* SPDX-License-Identifier: GPL-2.0-only */
/* Inodes between nodes: what a value block saves, when a number is believed, what is durable; every field of the disk form checked. */
#include "tests/unit/core_ops.h"

#include "csvfs/inode_table.h"

static uint8_t big[1 << 20], back[1 << 20];
static struct csvfs_attr fa;

/* ---- disk form -------------------------------------------------------------------------------------------------------------------- */

START_TEST(encoded_is_decoded_again)
{
	struct inode a = { .ino = 4242, .gen = 3, .mode = S_IFREG | 04751, .uid = 5, .gid = 6, .nlink = 7, .flags = CSV_INO_IMAGE,
			   .size = 8, .blocks = 9, .atime_ns = -10, .mtime_ns = 11, .ctime_ns = 12, .btime_ns = 13, .change = 14,
			   .map_version = 15, .orphan_slot = 2, .project = 16, .body = CSV_BODY_TREE }, b = { .ino = 4242 };
	static struct csv_inode d;
	struct csv_lvb_inode l;
	struct csv_err err;

	inode_encode(&a, &d);
	IS(inode_decode(&d, 4242, &b, &err), 0);
	ck_assert(b.gen == 3 && b.mode == (S_IFREG | 04751) && b.uid == 5 && b.gid == 6 && b.nlink == 7 && b.flags == CSV_INO_IMAGE &&
		  b.size == 8 && b.blocks == 9 && b.atime_ns == -10 && b.mtime_ns == 11 && b.ctime_ns == 12 && b.btime_ns == 13 &&
		  b.change == 14 && b.map_version == 15 && b.orphan_slot == 2 && b.project == 16 && b.body == CSV_BODY_TREE);
	memset(&b, 0, sizeof(b));
	inode_to_lvb(&a, &l);
	inode_from_lvb(&l, &b);
	ck_assert(b.loaded && b.verified && !b.has_body && b.gen == 3 && b.mode == (S_IFREG | 04751) && b.uid == 5 && b.gid == 6 &&
		  b.nlink == 7 && b.size == 8 && b.blocks == 9 && b.atime_ns == -10 && b.mtime_ns == 11 && b.ctime_ns == 12 &&
		  b.btime_ns == 13 && b.change == 14 && b.map_version == 15 && b.flags == CSV_INO_IMAGE);
	le32_set(&l.version, 2);
	memset(&b, 0, sizeof(b));
	inode_from_lvb(&l, &b);
	ck_assert(!b.loaded);
}
END_TEST

START_TEST(every_field_is_checked)
{
	struct inode good = { .ino = 77, .gen = 1, .mode = S_IFREG | 0644, .nlink = 1, .orphan_slot = CSV_NO_SLOT };
	static struct csv_inode d;
	struct csv_err err;
	struct inode b;

#define LIE(change, says)                                                                   \
	do {                                                                                \
		struct inode n = good;                                                      \
		change;                                                                     \
		memset(&d, 0, sizeof(d));                                                   \
		inode_encode(&n, &d);                                                       \
		b = (struct inode){ .ino = 77 };                                            \
		IS(inode_decode(&d, 77, &b, &err), -CSV_E_CORRUPT);                         \
		ck_assert_msg(strstr(err.text, "block 77") && strstr(err.text, says), "%s", err.text); \
		ck_assert(!b.has_body);                                                     \
	} while (0)
	memset(&d, 0, sizeof(d));
	inode_encode(&good, &d);
	IS(inode_decode(&d, 77, &b, &err), 0);
	LIE(n.gen = 0, "gen");
	LIE(n.mode = 0644, "mode");
	LIE(n.mode = 0x10000 | S_IFREG, "mode");
	LIE(n.nlink = CSV_LINK_MAX + 1, "nlink");
	LIE(n.nlink = 0, "nlink");
	LIE(n.flags = 8, "flags");
	LIE(n.mode = S_IFIFO; n.flags = CSV_INO_IMAGE, "flags");
	LIE(n.blocks = -1; n.body = CSV_BODY_TREE, "blocks");
	LIE(n.blocks = 1, "blocks");
	LIE(n.size = CSV_FILE_SIZE_MAX + 1; n.body = CSV_BODY_TREE, "size");
	LIE(n.size = 1, "size");
	LIE(n.body = CSV_BODY_INLINE; n.body_len = 5; n.size = 6, "size");
	LIE(n.body = CSV_BODY_INLINE; n.body_len = CSV_BODY_BYTES + 1, "body_len");
	LIE(n.body_len = 5, "body_len");
	LIE(n.body = 3, "body");
	LIE(n.body = CSV_BODY_INLINE; n.body_len = n.size = 5; n.flags = CSV_INO_IMAGE, "body");
	LIE(n.orphan_slot = 64, "orphan_slot");
	LIE(n.parent = 5, "parent");
	LIE(n.mode = S_IFDIR; n.body = CSV_BODY_TREE, "parent");
	LIE(n.mode = S_IFDIR; n.parent = 5, "body");
	LIE(n.rdev = 5, "rdev");
	LIE(n.mode = S_IFLNK, "size");
	LIE(n.mode = S_IFLNK; n.size = 4096; n.body = CSV_BODY_TREE, "size");
	LIE(n.mode = S_IFLNK; n.size = 5, "body");
	LIE(n.mode = S_IFCHR; n.body = CSV_BODY_TREE, "body");
	LIE(n.mode = S_IFCHR; n.size = 5, "size");
#undef LIE
	memset(&d, 0, sizeof(d));
	inode_encode(&good, &d);
	le64_set(&d.xattr_blk, 9);
	IS(inode_decode(&d, 77, &b, &err), -CSV_E_CORRUPT);
}
END_TEST

/* ---- two nodes --------------------------------------------------------------------------------------------------------------------- */

static uint64_t reads(unsigned id) { return cw_n(id)->blk.n_reads; }
static uint64_t messages(unsigned id)
{
	struct dlm_stats s;

	dlm_stats(cw_n(id)->fs->dlm, &s);
	return s.messages_sent;
}

static void make_file(struct csvfs *fs)
{
	fa = mk(fs, root(fs), "f", S_IFREG | 0644);
	fill(big, 200000, 0, 1);
	IS(csvfs_write(fs, fa.ino, 0, 0, big, 200000, 0, NULL), 200000);
	fa = attr(fs, fa.ino);
}

static void append_byte(struct csvfs *fs)
{
	uint64_t at;

	IS(csvfs_write(fs, fa.ino, 0, 0, "x", 1, CSVFS_WRITE_APPEND, &at), 1);
	ck_assert_uint_eq(at, fa.size);
	fa = attr(fs, fa.ino);
}

static void stat_it(struct csvfs *fs)
{
	struct csvfs_attr a;

	OK(csvfs_getattr(fs, fa.ino, fa.gen, &a));
	ck_assert_mem_eq(&a, &fa, sizeof(a));
}

START_TEST(a_stat_elsewhere_costs_one_message_and_no_read)
{
	uint64_t sent, nread;

	cw_setup();
	cw_mount(1);
	cw_mount(2);
	on_node(1, make_file);
	on_node(2, stat_it);		/* the first may have to find the master */
	for (unsigned i = 0; i < 3; i++) {
		on_node(1, append_byte);
		sent = messages(2);
		nread = reads(2);
		on_node(2, stat_it);
		ck_assert_uint_le(messages(2) - sent, 2);
		ck_assert_uint_eq(reads(2), nread);
		/* and again: nothing at all */
		sent = messages(2);
		on_node(2, stat_it);
		ck_assert_uint_eq(messages(2), sent);
	}
	printf("stat of a file that changed on the other node: %llu messages in all sent by node 2, %llu reads\n",
	       (unsigned long long)messages(2), (unsigned long long)reads(2));
	cw_umount(2);
	cw_umount(1);
	cc_check();
	cw_teardown();
}
END_TEST

static void check_content(struct csvfs *fs)
{
	struct csvfs_attr a = look(fs, root(fs), "f");

	ck_assert_uint_eq(a.size, 200000);
	IS(csvfs_read(fs, a.ino, a.gen, 0, back, sizeof(back)), 200000);
	ck_assert_mem_eq(big, back, 200000);
}

static void sync_it(struct csvfs *fs) { OK(csvfs_fsync(fs, fa.ino, 0, false)); }

START_TEST(what_was_fsynced_survives_the_node)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	on_node(1, make_file);
	on_node(1, sync_it);
	cw_power_cut(1);
	on_node(2, check_content);
	cw_umount(2);
	cc_check();
	cw_teardown();
}
END_TEST

START_TEST(a_write_is_seen_by_the_next_read_elsewhere)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	on_node(1, make_file);
	on_node(2, check_content);
	cw_umount(1);
	on_node(2, check_content);
	cw_umount(2);
	cc_check();
	cw_teardown();
}
END_TEST

static void open_it(struct csvfs *fs) { OK(csvfs_open(fs, fa.ino, fa.gen)); }
static void unlink_it(struct csvfs *fs) { OK(csvfs_unlink(fs, root(fs), 0, "f")); }
static void read_orphan(struct csvfs *fs)
{
	IS(csvfs_read(fs, fa.ino, fa.gen, 0, back, sizeof(back)), 200000);
	ck_assert_mem_eq(big, back, 200000);
	ck_assert_uint_eq(attr(fs, fa.ino).nlink, 0);
}
static void release_it(struct csvfs *fs)
{
	csvfs_release(fs, fa.ino);
	coro_sleep_ns(fs->env->sched, 2 * NS_PER_SEC);
}
static void is_gone(struct csvfs *fs)
{
	struct csvfs_attr a;

	IS(csvfs_getattr(fs, fa.ino, fa.gen, &a), -ESTALE);
}

START_TEST(a_file_open_elsewhere_is_not_freed_by_unlink)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	on_node(1, make_file);
	on_node(2, open_it);
	on_node(1, unlink_it);
	on_node(2, read_orphan);
	on_node(1, read_orphan);
	on_node(2, release_it);
	on_node(1, is_gone);
	on_node(2, is_gone);
	cw_umount(2);
	cw_umount(1);
	ck_assert_uint_eq(cc_check(), 0);
	cw_teardown();
}
END_TEST

START_TEST(an_orphan_of_a_dead_opener_is_freed_by_the_survivor)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	on_node(1, make_file);
	on_node(2, open_it);
	on_node(1, unlink_it);
	cw_power_cut(2);
	cw_run(5000, NULL, NULL);
	on_node(1, is_gone);
	cw_umount(1);
	ck_assert_uint_eq(cc_check(), 0);
	cw_teardown();
}
END_TEST

/* A forged inode in a data block: right magic, crc, number - only the bitmap knows better (R29). */
static void forge(struct csvfs *fs)
{
	struct csv_inode *d = (void *)(cw.disk + (fa.ino << CSV_BLOCK_SHIFT)), *copy = (void *)big;
	struct csvfs_attr a = mk(fs, root(fs), "g", S_IFREG), b;
	uint64_t at = 0;

	memset(back, 0, 8192);
	IS(csvfs_write(fs, a.ino, 0, 0, back, 8192, 0, NULL), 8192);
	OK(csvfs_sync(fs));
	/* where its data lies: the last allocated data block; found by writing a mark */
	memset(back, 0x5a, 4096);
	IS(csvfs_write(fs, a.ino, 0, 4096, back, 4096, 0, NULL), 4096);
	for (uint64_t b = fs->geo.data_start_blk; b < fs->geo.total_blk; b++) {
		if (!memcmp(cw.disk + (b << CSV_BLOCK_SHIFT), back, 4096))
			at = b;
	}
	ck_assert_uint_ne(at, 0);
	memcpy(copy, d, sizeof(*d));
	mhdr_init(copy, CSV_MAGIC_INODE, at, 9, OWN_INODE(at));
	mhdr_seal(copy, fs->geo.uuid);
	IS(csvfs_write(fs, a.ino, 0, 4096, copy, 4096, 0, NULL), 4096);
	IS(csvfs_getattr(fs, at, le32_get(copy->gen), &b), -ESTALE);
	IS(csvfs_open(fs, at, le32_get(copy->gen)), -ESTALE);
	IS(csvfs_unlink(fs, at, 0, "x"), -ESTALE);
}
START_TEST(an_inode_in_a_guest_disk_is_not_believed)
{
	cw_setup();
	cw_mount(1);
	on_node(1, make_file);
	on_node(1, sync_it);
	cw_umount(1);
	cw_mount(1);
	on_node(1, forge);
	cw_umount(1);
	cc_check();
	cw_teardown();
}
END_TEST

UNIT_MAIN("inode", UNIT_TEST(encoded_is_decoded_again), UNIT_TEST(every_field_is_checked),
	  UNIT_TEST(a_stat_elsewhere_costs_one_message_and_no_read), UNIT_TEST(what_was_fsynced_survives_the_node),
	  UNIT_TEST(a_write_is_seen_by_the_next_read_elsewhere), UNIT_TEST(a_file_open_elsewhere_is_not_freed_by_unlink),
	  UNIT_TEST(an_orphan_of_a_dead_opener_is_freed_by_the_survivor), UNIT_TEST(an_inode_in_a_guest_disk_is_not_believed))
