/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * journal: what replay does, and how logs end.
 */
#include "tests/unit/jnl_crash.h"

/* ---- what replay does ---------------------------------------------------------------------------------------------- */

START_TEST(committed_blocks_come_home)
{
	struct jf *f = jf_new(128);
	struct jnl_replay_stats st;

	tbs_init(5);
	jf_run(f, put_each, (void *)5);
	crash(f);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_uint_eq(jf_home_value(f, 2000 + i), UINT64_MAX);
	st = REPLAY_OK(f);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_uint_eq(jf_home_value(f, 2000 + i), 100 + i);
	ck_assert_uint_eq(st.records, 5);
	ck_assert_uint_eq(st.blocks_written, 5);
	ck_assert_uint_eq(st.first_seq, 1);
	ck_assert_uint_eq(st.last_seq, 5);
	jf_free(f);
}
END_TEST

START_TEST(an_empty_log_replays_to_nothing)
{
	struct jf *f = jf_new(128);
	void *before = snapshot(f);

	crash(f);
	ck_assert_uint_eq(REPLAY_OK(f).records, 0);
	ck_assert(device_is(f, before));
	free(before);
	jf_free(f);
}
END_TEST

START_TEST(replay_twice_equals_once)
{
	struct jf *f = jf_new(128);
	void *once;

	tbs_init(6);
	jf_run(f, put_each, (void *)6);
	crash(f);
	REPLAY_OK(f);
	once = snapshot(f);
	ck_assert_uint_eq(REPLAY_OK(f).blocks_written, 0);
	ck_assert(device_is(f, once));
	free(once);
	jf_free(f);
}
END_TEST

static void release_one(struct jf *f, void *arg)
{
	struct tb *b = arg;
	struct csv_owner o = b->jb.owner;

	ck_assert_int_eq(jnl_release(f->j, &o, 1), 0);
}

/* Another node owns the block now; whatever it puts there, even what is no metadata at all, stays. */
START_TEST(release_leaves_nothing_to_replay)
{
	struct jf *f = jf_new(128);
	struct jnl_replay_stats st;

	tbs_init(5);
	jf_run(f, put_each, (void *)5);
	jf_run(f, release_one, &tb[2]);
	crash(f);
	ck_assert_uint_eq(jf_home_value(f, 2002), 102);
	memset(jf_home(f, 2002), 0xda, CSV_BLOCK_SIZE);
	st = REPLAY_OK(f);
	for (unsigned i = 0; i < CSV_BLOCK_SIZE; i++)
		ck_assert_uint_eq(jf_home(f, 2002)[i], 0xda);
	ck_assert_uint_eq(st.skipped_revoked, 1);
	ck_assert_uint_eq(jf_home_value(f, 2001), 101);
	jf_free(f);
}
END_TEST

static void release_all(struct jf *f, void *arg)
{
	struct csv_owner o[5];
	struct jnl_stats st;

	(void)arg;
	for (unsigned i = 0; i < 5; i++)
		o[i] = tb[i].jb.owner;
	ck_assert_int_eq(jnl_release(f->j, o, 5), 0);
	jnl_stats(f->j, &st);
	ck_assert_uint_eq(st.revokes, 0);
	ck_assert_uint_eq(st.used_blk, 0);
}

/* The case where the revokes may be left out: nothing of those blocks is within reach. */
START_TEST(release_of_all_moves_the_tail_and_leaves_nothing_to_replay)
{
	struct jf *f = jf_new(128);

	tbs_init(5);
	jf_run(f, put_each, (void *)5);
	jf_run(f, release_all, NULL);
	crash(f);
	for (unsigned i = 0; i < 5; i++)
		memset(jf_home(f, 2000 + i), 0xda, CSV_BLOCK_SIZE);
	ck_assert_uint_eq(REPLAY_OK(f).blocks_seen, 0);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_uint_eq(jf_home(f, 2000 + i)[9], 0xda);
	jf_free(f);
}
END_TEST

static void checkpoint_keep(struct jf *f, void *arg)
{
	ck_assert_int_eq(jnl_checkpoint(f->j, (uintptr_t)arg), 0);
}

START_TEST(a_checkpoint_moves_the_tail_and_replay_begins_there)
{
	struct jf *f = jf_new(128);

	tbs_init(6);
	jf_run(f, put_each, (void *)6);
	/* Each record is 3 blocks; the last one stays. */
	jf_run(f, checkpoint_keep, (void *)3);
	ck_assert(!jnl_buf_busy(&tb[4].jb));
	ck_assert(jnl_buf_busy(&tb[5].jb));
	ck_assert_uint_eq(jf_home_value(f, 2004), 104);
	crash(f);
	ck_assert_uint_eq(REPLAY_OK(f).first_seq, 6);
	ck_assert_uint_eq(jf_home_value(f, 2005), 105);
	jf_free(f);
}
END_TEST

START_TEST(a_block_logged_again_after_its_release_is_replayed_again)
{
	struct jf *f = jf_new(128);

	tbs_init(6);
	jf_run(f, put_each, (void *)6);
	jf_run(f, release_one, &tb[0]);			/* revoked */
	ck_assert(!jnl_owner_busy(f->j, tb[0].jb.owner));
	memset(jf_home(f, 2000), 0, CSV_BLOCK_SIZE);
	jf_run(f, put_each, (void *)1);			/* and in the log again */
	ck_assert(jnl_owner_busy(f->j, tb[0].jb.owner));
	crash(f);
	REPLAY_OK(f);
	ck_assert_uint_eq(jf_home_value(f, 2000), 100);
	jf_free(f);
}
END_TEST

START_TEST(freed_block_is_not_resurrected)
{
	struct jf *f = jf_new(128);

	tbs_init(64);
	jf_run(f, put_each, (void *)4);
	jf_run(f, free_block, &tb[1]);
	memset(jf_home(f, 2001), 0x5a, CSV_BLOCK_SIZE);		/* data of a file by now */
	crash(f);
	ck_assert_uint_eq(REPLAY_OK(f).skipped_revoked, 1);
	ck_assert_uint_eq(jf_home(f, 2001)[100], 0x5a);
	ck_assert_uint_eq(jf_home_value(f, 2060), 777);
	jf_free(f);
}
END_TEST

static void free_uncommitted(struct jf *f, void *arg)
{
	struct tb *b = arg;
	struct jnl_handle h;

	ck_assert_int_eq(jnl_begin(f->j, 0, 1, &h), 0);
	jnl_revoke(&h, &b->jb);
	jnl_end(&h);
	/* The tail cannot pass its only valid copy while the freeing is not durable: the checkpoint commits it first. */
	ck_assert_int_eq(jnl_checkpoint(f->j, 0), 0);
}

START_TEST(a_checkpoint_does_not_lose_a_block_whose_freeing_is_not_committed)
{
	struct jf *f = jf_new(128);
	void *at[2];

	tbs_init(64);
	jf_run(f, put_each, (void *)2);
	at[0] = snapshot(f);
	jf_run(f, free_uncommitted, &tb[1]);
	ck_assert_uint_ge(jnl_stable_seq(f->j), 3);
	ck_assert_uint_eq(jf_home_value(f, 2001), UINT64_MAX);
	at[1] = snapshot(f);
	crash(f);
	restore(f, at[0]);
	REPLAY_OK(f);
	ck_assert_uint_eq(jf_home_value(f, 2001), 101);
	restore(f, at[1]);
	REPLAY_OK(f);
	ck_assert_uint_eq(jf_home_value(f, 2001), UINT64_MAX);
	free(at[0]);
	free(at[1]);
	jf_free(f);
}
END_TEST

static struct tb reborn;
struct life { bool same_txn, other_owner; };

static void free_and_reuse(struct jf *f, void *arg)
{
	struct life *l = arg;
	struct jnl_handle h;

	ck_assert_int_eq(jnl_begin(f->j, 2, 2, &h), 0);
	jnl_revoke(&h, &tb[1].jb);
	tb_init(&reborn, 2001, l->other_owner ? jf_inode(99) : jf_inode(1), 2);
	if (!l->same_txn) {
		uint64_t seq = jnl_end(&h);

		ck_assert_uint_ne(seq, 0);
		ck_assert_int_eq(jnl_commit(f->j, seq), 0);
		ck_assert_int_eq(jnl_begin(f->j, 2, 2, &h), 0);
	}
	jnl_dirty(&h, &reborn.jb);
	tb_set(&reborn, 4711);
	ck_assert_int_eq(jnl_commit(f->j, jnl_end(&h)), 0);
}

START_TEST(a_block_freed_and_reused_as_metadata_has_its_new_content)
{
	for (unsigned i = 0; i < 4; i++) {
		struct life l = { .same_txn = i & 1, .other_owner = i & 2 };
		struct jf *f = jf_new(128);

		tbs_init(64);
		jf_run(f, put_each, (void *)3);
		jf_run(f, free_and_reuse, &l);
		ck_assert(jnl_buf_busy(&reborn.jb));
		crash(f);
		REPLAY_OK(f);
		ck_assert_uint_eq(jf_home_value(f, 2001), 4711);
		jf_free(f);
	}
}
END_TEST

static void free_and_reuse_and_free(struct jf *f, void *arg)
{
	struct jnl_handle h;

	free_and_reuse(f, arg);
	ck_assert_int_eq(jnl_begin(f->j, 0, 1, &h), 0);
	jnl_revoke(&h, &reborn.jb);
	ck_assert_int_eq(jnl_commit(f->j, jnl_end(&h)), 0);
	ck_assert_int_eq(jnl_shutdown(f->j), 0);
}

START_TEST(freed_reused_and_freed_again_leaves_nothing)
{
	for (unsigned i = 0; i < 4; i++) {
		struct life l = { .same_txn = i & 1, .other_owner = i & 2 };
		struct jf *f = jf_new(128);

		tbs_init(64);
		jf_run(f, put_each, (void *)3);
		jf_run(f, free_and_reuse_and_free, &l);
		ck_assert_uint_eq(jf_home_value(f, 2001), UINT64_MAX);
		ck_assert_uint_eq(jf_home_value(f, 2002), 102);
		jf_free(f);
	}
}
END_TEST

START_TEST(a_newer_home_is_kept_and_a_torn_one_is_mended)
{
	struct jf *f = jf_new(128);
	struct jnl_replay_stats st;
	uint8_t *home;

	tbs_init(4);
	jf_run(f, put_each, (void *)4);
	crash(f);
	/* 2000: same life, later change; 2001: later life, lower seq; 2002: torn; 2003: earlier life, higher seq */
	for (unsigned i = 0; i < 4; i++) {
		struct csv_mhdr *h = (void *)jf_home(f, 2000 + i);

		memcpy(h, tb[i].data, CSV_BLOCK_SIZE);
		le64_set((struct le64 *)((uint8_t *)h + 64), 9);
		le64_set((struct le64 *)((uint8_t *)h + CSV_BLOCK_SIZE - 8), 9);
		le64_set(&h->generation, (uint64_t[]){ 1, 2, 1, 0 }[i]);
		le64_set(&h->seq, (uint64_t[]){ 2, 0, 50, 50 }[i]);
		mhdr_seal(h, f->g.uuid);
	}
	home = jf_home(f, 2002);
	home[3000] ^= 1;
	st = REPLAY_OK(f);
	ck_assert_uint_eq(jf_home_value(f, 2000), 9);
	ck_assert_uint_eq(jf_home_value(f, 2001), 9);
	ck_assert_uint_eq(jf_home_value(f, 2002), 102);
	ck_assert_uint_eq(jf_home_value(f, 2003), 103);
	ck_assert_uint_eq(st.skipped_newer, 2);
	jf_free(f);
}
END_TEST

/* ---- how logs end ------------------------------------------------------------------------------------------------------- */

START_TEST(torn_tail_is_the_end)
{
	struct jf *f = jf_new(128);
	void *before;

	tbs_init(5);
	jf_run(f, put_each, (void *)5);
	crash(f);
	before = snapshot(f);
	/* Any 512-byte sector of the last record missing: the four before it are what there is. */
	for (unsigned sector = 0; sector < 3 * 8; sector++) {
		uint8_t *p = mem_blk_data(f->blk) + (size_t)REC_BLK(4) * CSV_BLOCK_SIZE + sector * 512;
		bool zeroes = true;

		restore(f, before);
		for (unsigned i = 0; i < 512; i++)
			zeroes &= !p[i];
		memset(p, zeroes ? 0xee : 0, 512);
		ck_assert_uint_eq(REPLAY_OK(f).records, 4);
		ck_assert_uint_eq(jf_home_value(f, 2003), 103);
		ck_assert_uint_eq(jf_home_value(f, 2004), UINT64_MAX);
	}
	free(before);
	jf_free(f);
}
END_TEST

START_TEST(bad_record_before_stable_is_an_error)
{
	struct jf *f = jf_new(128);
	void *before;

	tbs_init(5);
	jf_run(f, put_each, (void *)5);
	crash(f);
	before = snapshot(f);
	for (unsigned rec = 0; rec < 4; rec++)
		for (unsigned blk = 0; blk < 3; blk++) {
			void *broken;
			char want[32];
			struct rep p;

			restore(f, before);
			mem_blk_data(f->blk)[(size_t)(REC_BLK(rec) + blk) * CSV_BLOCK_SIZE + 200] ^= 4;
			broken = snapshot(f);
			p = replay(f);
			ck_assert_int_eq(p.r, -CSV_E_CORRUPT);
			snprintf(want, sizeof(want), "journal 3: record %u: ", rec + 1);
			ck_assert_msg(!strncmp(p.err.text, want, strlen(want)), "%s", p.err.text);
			ck_assert(device_is(f, broken));	/* nothing written */
			free(broken);
		}
	free(before);
	jf_free(f);
}
END_TEST

START_TEST(records_of_an_earlier_life_of_the_slot_are_ignored)
{
	struct jf *f = jf_new(128);

	tbs_init(5);
	jf_run(f, put_each, (void *)5);
	crash(f);
	/* The slot is taken anew: the old records lie where the new log begins. */
	f->g.incarnation = 8;
	jf_run(f, jf_open_coro, NULL);
	crash(f);
	ck_assert_uint_eq(REPLAY_OK(f).records, 0);
	ck_assert_uint_eq(jf_home_value(f, 2000), UINT64_MAX);
	/* One record over them: the second old one must not follow it. */
	jf_run(f, jf_open_coro, NULL);
	tbs_init(64);
	jf_run(f, free_block, &tb[19]);
	crash(f);
	ck_assert_uint_eq(REPLAY_OK(f).records, 1);
	ck_assert_uint_eq(jf_home_value(f, 2000), UINT64_MAX);
	/* A log of another life than the slot's is never taken for empty. */
	f->g.incarnation = 7;
	{
		struct rep p = replay(f);

		ck_assert_int_eq(p.r, -CSV_E_CORRUPT);
		ck_assert_msg(strstr(p.err.text, "incarnation 8"), "%s", p.err.text);
	}
	jf_free(f);
}
END_TEST

static void open_again(struct jf *f, void *arg)
{
	struct rep *p = arg;

	p->r = jnl_open(&f->cfg, &f->g, &f->j, &p->err);
}

START_TEST(a_log_with_records_is_not_opened)
{
	struct jf *f = jf_new(128);
	struct rep p = { .r = 0 };

	tbs_init(2);
	jf_run(f, put_each, (void *)2);
	crash(f);
	jf_run(f, open_again, &p);
	ck_assert_int_eq(p.r, -CSV_E_CORRUPT);
	ck_assert_msg(strstr(p.err.text, "record 1 is in it"), "%s", p.err.text);
	f->g.incarnation = 9;
	jf_run(f, open_again, &p);
	ck_assert_int_eq(p.r, -CSV_E_CORRUPT);
	ck_assert_msg(strstr(p.err.text, "incarnation 7, must be 9"), "%s", p.err.text);
	jf_free(f);
}
END_TEST

/* ---- overlay ----------------------------------------------------------------------------------------------------------------- */

struct overlay { struct jnl_home home; struct jf *f; unsigned n; uint64_t blkno[16]; uint8_t data[16][CSV_BLOCK_SIZE]; };

static int ov_read(struct jnl_home *h, uint64_t blkno, void *buf)
{
	struct overlay *o = container_of(h, struct overlay, home);

	for (unsigned i = 0; i < o->n; i++)
		if (o->blkno[i] == blkno) {
			memcpy(buf, o->data[i], CSV_BLOCK_SIZE);
			return 0;
		}
	return blk_read(o->f->blk, blkno * CSV_BLOCK_SIZE, buf, CSV_BLOCK_SIZE);
}

static int ov_write(struct jnl_home *h, uint64_t blkno, const void *buf)
{
	struct overlay *o = container_of(h, struct overlay, home);

	ck_assert_uint_lt(o->n, 16);
	o->blkno[o->n] = blkno;
	memcpy(o->data[o->n++], buf, CSV_BLOCK_SIZE);
	return 0;
}

static void replay_overlay(struct jf *f, void *arg)
{
	struct overlay *o = arg;
	struct csv_err err = CSV_ERR_INIT;
	struct jnl_replay_stats st;

	ck_assert_msg(!jnl_replay(f->blk, &f->g, &limits, &o->home, &st, &err), "%s", err.text);
	ck_assert_uint_eq(st.blocks_written, 5);
	ck_assert_msg(!jnl_replay(f->blk, &f->g, &limits, &o->home, &st, &err), "%s", err.text);
	ck_assert_uint_eq(st.blocks_written, 0);
}

START_TEST(replay_into_an_overlay_writes_nothing_to_the_device)
{
	struct jf *f = jf_new(128);
	struct overlay *o = calloc(1, sizeof(*o));
	void *before;

	o->home = (struct jnl_home){ ov_read, ov_write };
	o->f = f;
	tbs_init(5);
	jf_run(f, put_each, (void *)5);
	crash(f);
	before = snapshot(f);
	jf_run(f, replay_overlay, o);
	ck_assert(device_is(f, before));
	ck_assert_uint_eq(o->n, 5);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_uint_eq(tb_value(o->data[i]), 100 + i);
	free(before);
	free(o);
	jf_free(f);
}
END_TEST

UNIT_MAIN("jnl_replay", UNIT_TEST(committed_blocks_come_home), UNIT_TEST(an_empty_log_replays_to_nothing),
	  UNIT_TEST(replay_twice_equals_once), UNIT_TEST(release_leaves_nothing_to_replay),
	  UNIT_TEST(release_of_all_moves_the_tail_and_leaves_nothing_to_replay),
	  UNIT_TEST(a_checkpoint_moves_the_tail_and_replay_begins_there),
	  UNIT_TEST(a_block_logged_again_after_its_release_is_replayed_again), UNIT_TEST(freed_block_is_not_resurrected),
	  UNIT_TEST(a_checkpoint_does_not_lose_a_block_whose_freeing_is_not_committed),
	  UNIT_TEST(a_block_freed_and_reused_as_metadata_has_its_new_content),
	  UNIT_TEST(freed_reused_and_freed_again_leaves_nothing), UNIT_TEST(a_newer_home_is_kept_and_a_torn_one_is_mended),
	  UNIT_TEST(torn_tail_is_the_end), UNIT_TEST(bad_record_before_stable_is_an_error),
	  UNIT_TEST(records_of_an_earlier_life_of_the_slot_are_ignored), UNIT_TEST(a_log_with_records_is_not_opened),
	  UNIT_TEST(replay_into_an_overlay_writes_nothing_to_the_device))
