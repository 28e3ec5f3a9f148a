/* SPDX-License-Identifier: GPL-2.0-only */
/* Files without a name that somebody has open: kept while open anywhere, freed by who closes last or recovers. */
#include "tests/unit/core_world.h"

#include <sys/stat.h>

#define SIZE (3u << 20)

static struct csvfs_attr file;
static uint64_t free_blocks;
static unsigned orphans;

static void create_coro(void *arg)
{
	struct cw_node *n = arg;
	uint8_t *buf = calloc(1, SIZE);

	memset(buf, 0x5a, SIZE);
	ck_assert_int_eq(csvfs_create(n->fs, csvfs_root_ino(n->fs), 0, "f", S_IFREG | 0644, 0, 0, 0, false, &file), 0);
	ck_assert_int_eq(csvfs_open(n->fs, file.ino, file.gen), 0);
	ck_assert_int_eq(csvfs_write(n->fs, file.ino, file.gen, 0, buf, SIZE, 0, NULL), SIZE);
	ck_assert_int_eq(csvfs_fsync(n->fs, file.ino, file.gen, false), 0);
	csvfs_release(n->fs, file.ino);
	free(buf);
	n->done = true;
}

static void open_coro(void *arg)
{
	struct cw_node *n = arg;

	ck_assert_int_eq(csvfs_open(n->fs, file.ino, file.gen), 0);
	n->done = true;
}

static void unlink_coro(void *arg)
{
	struct cw_node *n = arg;

	ck_assert_int_eq(csvfs_unlink(n->fs, csvfs_root_ino(n->fs), 0, "f"), 0);
	ck_assert_int_eq(csvfs_sync(n->fs), 0);
	n->done = true;
}

static void close_coro(void *arg)
{
	struct cw_node *n = arg;

	csvfs_release(n->fs, file.ino);
	n->done = true;
}

static void read_coro(void *arg)
{
	struct cw_node *n = arg;
	uint8_t *buf = calloc(1, SIZE);

	ck_assert_int_eq(csvfs_read(n->fs, file.ino, file.gen, 0, buf, SIZE), SIZE);
	ck_assert(buf[0] == 0x5a && !memcmp(buf, buf + 1, SIZE - 1));
	free(buf);
	n->done = true;
}

static void free_coro(void *arg)
{
	struct cw_node *n = arg;

	ck_assert_int_eq(alloc_count_free(n->fs, true, &free_blocks), 0);
	n->done = true;
}

static uint64_t count_free(unsigned id)
{
	cw_do(id, free_coro);
	return free_blocks;
}

static int count_item(void *arg, const struct bt_item *it)
{
	(void)arg;
	(void)it;
	orphans++;
	return 0;
}

static void orphans_coro(void *arg)
{
	struct cw_node *n = arg;

	orphans = 0;
	for (uint32_t i = 0; i < CW_SLOTS; i++) {
		struct orphan_ref o;

		ck_assert_int_eq(orphan_lock(n->fs, i, &o), 0);
		ck_assert_int_eq(bt_walk(&o.bt, 0, count_item, NULL), 0);
		orphan_unlock(&o);
	}
	n->done = true;
}

static unsigned count_orphans(unsigned id)
{
	cw_do(id, orphans_coro);
	return orphans;
}

static uint64_t start(unsigned nodes)
{
	cw_setup();
	for (unsigned id = 1; id <= nodes; id++)
		cw_mount(id);
	cw_settle(2000);
	return count_free(1);
}

START_TEST(a_file_that_nobody_has_open_is_freed_at_its_unlink)
{
	uint64_t before = start(2);

	cw_do(1, create_coro);
	ck_assert_uint_lt(count_free(2), before - SIZE / CSV_BLOCK_SIZE);
	cw_do(1, unlink_coro);
	cw_settle(2000);
	ck_assert_uint_eq(count_orphans(2), 0);
	ck_assert_uint_eq(count_free(2), before);
	cw_teardown();
}
END_TEST

START_TEST(a_file_open_elsewhere_lives_until_its_last_close)
{
	uint64_t before = start(2);

	cw_do(1, create_coro);
	cw_do(2, open_coro);
	cw_do(1, unlink_coro);
	cw_settle(5000);
	ck_assert_uint_eq(count_orphans(1), 1);
	cw_do(2, read_coro);
	cw_do(2, close_coro);
	cw_settle(2000);
	ck_assert_uint_eq(count_orphans(1), 0);
	ck_assert_uint_eq(count_free(1), before);
	cw_teardown();
}
END_TEST

static uint64_t close_after_us;
static bool close_done;

static void umount_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = csvfs_umount(n->fs, &n->err);
	n->done = true;
}

static int umount_result(unsigned id)
{
	cw_do(id, umount_coro);
	return cw_n(id)->ret;
}

static enum dlm_mode open_mode(unsigned id)
{
	struct glock *gl = glock_find(cw_n(id)->fs, OWN_OPEN(file.ino));

	return gl ? gl->mode : DLM_NL;
}

START_TEST(an_open_takes_its_lock_only_when_the_inodes_lock_leaves)
{
	struct dlm_stats a, b;

	start(2);
	cw_do(1, create_coro);
	cw_do(2, open_coro);
	cw_do(2, read_coro);
	cw_do(2, close_coro);
	cw_settle(100);
	dlm_stats(cw_n(2)->fs->dlm, &a);
	cw_do(2, open_coro);
	cw_do(2, read_coro);
	dlm_stats(cw_n(2)->fs->dlm, &b);
	ck_assert_uint_eq(a.messages_sent, b.messages_sent);
	ck_assert_int_eq(open_mode(2), DLM_NL);
	cw_do(1, unlink_coro);			/* needs the inode EX */
	cw_settle(100);
	ck_assert_int_eq(open_mode(2), DLM_PR);
	cw_do(2, close_coro);
	cw_settle(2000);
	ck_assert_int_eq(open_mode(2), DLM_NL);
	ck_assert_uint_eq(count_orphans(1), 0);
	cw_teardown();
}
END_TEST

START_TEST(an_open_file_without_a_lock_of_its_own_keeps_the_volume_mounted)
{
	start(1);
	cw_do(1, create_coro);
	cw_do(1, open_coro);
	ck_assert_int_eq(open_mode(1), DLM_NL);
	ck_assert_int_eq(umount_result(1), -EBUSY);
	cw_do(1, close_coro);
	cw_umount(1);
	cw_teardown();
}
END_TEST

static void last_close_coro(void *arg)
{
	struct cw_node *n = arg;

	coro_sleep_ns(n->env.sched, close_after_us * 1000);
	csvfs_release(n->fs, file.ino);
	close_done = true;
}

/* The close comes at any moment of the taking away. */
START_TEST(a_close_while_the_inodes_lock_leaves_gives_the_open_lock_back)
{
	for (close_after_us = 0; close_after_us <= 4000; close_after_us += 100) {
		uint64_t before = start(2);

		cw_do(1, create_coro);
		cw_do(2, open_coro);
		close_done = false;
		ck_assert_int_eq(sched_spawn(cw_n(2)->env.sched, "close", last_close_coro, cw_n(2)), 0);
		cw_do(1, unlink_coro);
		cw_settle(3000);
		ck_assert(close_done);
		ck_assert_int_eq(open_mode(2), DLM_NL);
		ck_assert_uint_eq(count_orphans(1), 0);
		ck_assert_uint_eq(count_free(1), before);
		cw_teardown();
	}
}
END_TEST

START_TEST(the_orphans_of_a_dead_node_are_freed_by_its_recoverer)
{
	uint64_t before = start(2);

	cw_do(1, create_coro);
	cw_do(1, open_coro);
	cw_do(1, unlink_coro);
	cw_settle(2000);
	cw_power_cut(1);
	ck_assert_uint_lt(count_free(2), before);
	cw_settle(5000);
	ck_assert_uint_eq(count_orphans(2), 0);
	ck_assert_uint_eq(count_free(2), before);
	cw_teardown();
}
END_TEST

START_TEST(an_orphan_in_a_dead_nodes_tree_that_is_open_elsewhere_is_kept)
{
	uint64_t before = start(2);

	cw_do(1, create_coro);
	cw_do(2, open_coro);
	cw_do(1, unlink_coro);
	cw_power_cut(1);
	cw_settle(10000);
	ck_assert_uint_eq(count_orphans(2), 1);
	cw_do(2, read_coro);
	cw_do(2, close_coro);
	cw_settle(2000);
	ck_assert_uint_eq(count_orphans(2), 0);
	ck_assert_uint_eq(count_free(2), before);
	cw_teardown();
}
END_TEST

START_TEST(an_orphan_whose_last_opener_dies_is_freed_by_the_owner_of_the_tree)
{
	uint64_t before = start(2);

	cw_do(1, create_coro);
	cw_do(2, open_coro);
	cw_do(1, unlink_coro);
	cw_power_cut(2);
	cw_settle(10000);
	ck_assert_uint_eq(count_orphans(1), 0);
	ck_assert_uint_eq(count_free(1), before);
	cw_teardown();
}
END_TEST

START_TEST(orphans_nobody_was_left_to_free_go_at_the_next_mount)
{
	uint64_t before = start(2);

	cw_do(1, create_coro);
	cw_do(2, open_coro);
	cw_do(1, unlink_coro);
	cw_umount(1);			/* its tree still has the entry */
	cw_power_cut(2);
	cw_mount(3);
	cw_settle(5000);
	ck_assert_uint_eq(count_orphans(3), 0);
	ck_assert_uint_eq(count_free(3), before);
	cw_umount(3);
	cw_teardown();
}
END_TEST

UNIT_MAIN("orphan", UNIT_TEST(a_file_that_nobody_has_open_is_freed_at_its_unlink),
	  UNIT_TEST(a_file_open_elsewhere_lives_until_its_last_close),
	  UNIT_TEST(an_open_takes_its_lock_only_when_the_inodes_lock_leaves),
	  UNIT_TEST(an_open_file_without_a_lock_of_its_own_keeps_the_volume_mounted),
	  UNIT_TEST(a_close_while_the_inodes_lock_leaves_gives_the_open_lock_back), UNIT_TEST(the_orphans_of_a_dead_node_are_freed_by_its_recoverer),
	  UNIT_TEST(an_orphan_in_a_dead_nodes_tree_that_is_open_elsewhere_is_kept),
	  UNIT_TEST(an_orphan_whose_last_opener_dies_is_freed_by_the_owner_of_the_tree),
	  UNIT_TEST(orphans_nobody_was_left_to_free_go_at_the_next_mount))
