/* SPDX-License-Identifier: GPL-2.0-only */
/* Cache of metadata blocks: what it believes, what it keeps, when it lets go. */
#include "tests/unit/core_world.h"

#include <signal.h>

static void (*body)(struct csvfs *fs);

static void body_coro(void *arg)
{
	struct cw_node *n = arg;

	body(n->fs);
	n->done = true;
}

static void on_one_node(void (*fn)(struct csvfs *fs))
{
	cw_setup();
	cw_mount(1);
	body = fn;
	cw_do(1, body_coro);
	cw_teardown();
}

static uint64_t hdr_blk(struct csvfs *fs)
{
	return csv_group_start(&fs->geo, 0);
}

static void repeated_reads(struct csvfs *fs)
{
	struct glock_holder gh;
	struct buf *a, *b;
	uint64_t reads;

	ck_assert_int_eq(glock_get(fs, OWN_GROUP(0), DLM_PR, 0, &gh), 0);
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &a), 0);
	reads = fs->env->blk->n_reads;
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &b), 0);
	ck_assert_ptr_eq(a, b);
	ck_assert_uint_eq(fs->env->blk->n_reads, reads);
	buf_put(fs, a);
	buf_put(fs, b);
	glock_put(&gh);
	/* and again: cached while the lock is */
	ck_assert_int_eq(glock_get(fs, OWN_GROUP(0), DLM_PR, 0, &gh), 0);
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &b), 0);
	ck_assert_uint_eq(fs->env->blk->n_reads, reads);
	buf_put(fs, b);
	glock_put(&gh);
}

START_TEST(a_block_is_read_once_while_its_lock_is_cached)
{
	on_one_node(repeated_reads);
}
END_TEST

static struct glock_holder shared_gh;
static unsigned readers_left;

static void reader(void *arg)
{
	struct csvfs *fs = arg;
	struct buf *b;

	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &b), 0);
	coro_yield(fs->env->sched);
	buf_put(fs, b);
	readers_left--;
}

static void together(struct csvfs *fs)
{
	struct glock *gl;
	uint64_t reads;

	gl = glock_ref(fs, OWN_GROUP(0));
	ck_assert_int_eq(glock_drop(gl, DLM_NL), 0);
	ck_assert_int_eq(glock_get(fs, OWN_GROUP(0), DLM_PR, 0, &shared_gh), 0);
	reads = fs->env->blk->n_reads;
	readers_left = 20;
	for (unsigned i = 0; i < 20; i++)
		ck_assert_int_eq(sched_spawn(fs->env->sched, "reader", reader, fs), 0);
	while (readers_left)
		coro_yield(fs->env->sched);
	ck_assert_uint_eq(fs->env->blk->n_reads, reads + 1);
	glock_put(&shared_gh);
	glock_unref(gl);
}

START_TEST(readers_at_the_same_time_share_one_read)
{
	on_one_node(together);
}
END_TEST

static void corrupt_then_good(struct csvfs *fs)
{
	struct glock *gl = glock_ref(fs, OWN_GROUP(0));
	uint8_t *p = cw.disk + (hdr_blk(fs) << CSV_BLOCK_SHIFT);
	struct glock_holder gh;
	struct buf *b;
	struct csv_mhdr good;

	ck_assert_int_eq(glock_drop(gl, DLM_NL), 0);
	ck_assert_int_eq(glock_get(fs, OWN_GROUP(0), DLM_PR, 0, &gh), 0);
	p[2000] ^= 1;
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &b), -CSV_E_CORRUPT);
	ck_assert_msg(cw_logged("(group header): crc 0x"), "%s", cw.all_log);
	p[2000] ^= 1;
	/* not cached: it is read again and good */
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &b), 0);
	buf_put(fs, b);
	glock_put(&gh);
	/* a bit flip with the checksum fixed */
	ck_assert_int_eq(glock_drop(gl, DLM_NL), 0);
	ck_assert_int_eq(glock_get(fs, OWN_GROUP(0), DLM_PR, 0, &gh), 0);
	memcpy(&good, p, sizeof(good));
	le64_set(&((struct csv_mhdr *)p)->owner_id, 7);
	mhdr_seal(p, fs->geo.uuid);
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &b), -CSV_E_CORRUPT);
	ck_assert_msg(cw_logged("owner_id 7, must be 0"), "%s", cw.all_log);
	memcpy(p, &good, sizeof(good));
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs) + (1ull << 35), OWN_GROUP(0), CSV_MAGIC_GROUP, &b), -CSV_E_CORRUPT);
	ck_assert(cw_logged("lies behind the end of the volume"));
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &b), 0);
	buf_put(fs, b);
	/* cached as a group header, asked for as a tree node: the pointer is wrong */
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_BTNODE, &b), -CSV_E_CORRUPT);
	ck_assert(cw_logged("is a group header, must be a tree node"));
	glock_put(&gh);
	glock_unref(gl);
}

START_TEST(a_bad_block_is_an_error_that_names_block_and_field_and_is_not_cached)
{
	on_one_node(corrupt_then_good);
}
END_TEST

static void read_fault(struct csvfs *fs)
{
	struct glock *gl = glock_ref(fs, OWN_GROUP(0));
	struct glock_holder gh;
	struct buf *b;

	ck_assert_int_eq(glock_drop(gl, DLM_NL), 0);
	ck_assert_int_eq(glock_get(fs, OWN_GROUP(0), DLM_PR, 0, &gh), 0);
	cw.fail_reads = 1;
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &b), -EIO);
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &b), 0);
	buf_put(fs, b);
	glock_put(&gh);
	glock_unref(gl);
}

START_TEST(a_failed_read_is_an_error_once_and_is_not_cached)
{
	on_one_node(read_fault);
}
END_TEST

static void dropped_with_lock(struct csvfs *fs)
{
	struct glock *gl = glock_ref(fs, OWN_GROUP(0));
	struct glock_holder gh;
	uint64_t reads;
	struct buf *b;

	ck_assert_int_eq(cw_group_set(fs, 123, false), 0);	/* dirty: cached and busy */
	ck_assert_int_eq(glock_drop(gl, DLM_NL), 0);		/* home, then gone */
	ck_assert(cds_list_empty(&gl->bufs));
	ck_assert_uint_eq(cw_group_on_disk(&fs->geo), 123);
	ck_assert_int_eq(glock_get(fs, OWN_GROUP(0), DLM_PR, 0, &gh), 0);
	reads = fs->env->blk->n_reads;
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &b), 0);
	ck_assert_uint_eq(fs->env->blk->n_reads, reads + 1);
	buf_put(fs, b);
	glock_put(&gh);
	glock_unref(gl);
}

START_TEST(a_dirty_block_is_home_and_forgotten_when_its_lock_goes)
{
	on_one_node(dropped_with_lock);
}
END_TEST

static void without_lock(struct csvfs *fs)
{
	struct glock *gl = glock_ref(fs, OWN_GROUP(0));
	struct buf *b;

	ck_assert_int_eq(glock_drop(gl, DLM_NL), 0);
	buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &b);
}

START_TEST(reading_without_the_lock_is_caught)
{
	on_one_node(without_lock);
}
END_TEST

static void change_under_pr(struct csvfs *fs)
{
	struct glock *gl = glock_ref(fs, OWN_GROUP(0));
	struct glock_holder gh;
	struct jnl_handle h;
	struct buf *b;

	ck_assert_int_eq(glock_drop(gl, DLM_NL), 0);
	ck_assert_int_eq(glock_get(fs, OWN_GROUP(0), DLM_PR, 0, &gh), 0);
	ck_assert_int_eq(buf_read(fs, hdr_blk(fs), OWN_GROUP(0), CSV_MAGIC_GROUP, &b), 0);
	ck_assert_int_eq(jnl_begin(fs->jnl, 1, 0, &h), 0);
	buf_dirty(&h, b);
}

START_TEST(changing_under_a_shared_lock_is_caught)
{
	on_one_node(change_under_pr);
}
END_TEST

UNIT_MAIN("buf", UNIT_TEST(a_block_is_read_once_while_its_lock_is_cached), UNIT_TEST(readers_at_the_same_time_share_one_read),
	  UNIT_TEST(a_bad_block_is_an_error_that_names_block_and_field_and_is_not_cached),
	  UNIT_TEST(a_failed_read_is_an_error_once_and_is_not_cached), UNIT_TEST(a_dirty_block_is_home_and_forgotten_when_its_lock_goes),
	  UNIT_SIGNAL(reading_without_the_lock_is_caught, SIGABRT), UNIT_SIGNAL(changing_under_a_shared_lock_is_caught, SIGABRT))
