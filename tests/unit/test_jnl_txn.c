/*
 * journal: handles, group commit, checkpoint, release; on a device in memory.
 */
#include "tests/unit/jnl_fake.h"

static unsigned count_ops(const struct jf *f, enum blk_op op, uint64_t first, uint64_t end)
{
	unsigned n = 0;

	for (unsigned i = 0; i < f->n_ops; i++)
		if (f->op[i].op == op && (op == BLK_FLUSH || (f->op[i].blkno >= first && f->op[i].blkno < end)))
			n++;
	return n;
}
#define LOG_OPS(f, op) count_ops(f, op, JF_JNL, JF_JNL + (f)->g.len_blk)
#define HOME_OPS(f, op) count_ops(f, op, JF_DATA, JF_BLOCKS)

static void commit_one(struct jf *f, void *arg)
{
	struct tb *b = arg;
	uint64_t seq = jf_put(f, b, 42);

	ck_assert_uint_eq(seq, 1);
	ck_assert(jnl_buf_busy(&b->jb));
	ck_assert_uint_eq(jnl_stable_seq(f->j), 0);
	ck_assert_int_eq(jnl_commit(f->j, seq), 0);
	ck_assert_uint_eq(jnl_stable_seq(f->j), 1);
	ck_assert_int_eq(jnl_commit(f->j, seq), 0);	/* again: nothing to do */
	ck_assert_int_eq(jnl_commit(f->j, 0), 0);
}

START_TEST(commit_is_one_write_and_one_flush_and_touches_no_home)
{
	struct jf *f = jf_new(128);
	struct tb b;

	tb_init(&b, 2000, jf_inode(2000), 1);
	jf_run(f, commit_one, &b);
	ck_assert_uint_eq(LOG_OPS(f, BLK_WRITE), 1);
	ck_assert_uint_eq(count_ops(f, BLK_FLUSH, 0, 0), 1);
	ck_assert_uint_eq(HOME_OPS(f, BLK_WRITE), 0);
	ck_assert_uint_eq(f->op[f->n_ops - 1].op, BLK_FLUSH);
	ck_assert(jnl_buf_busy(&b.jb));			/* not home yet */
	ck_assert_uint_eq(b.cleaned, 0);
	jf_free(f);
}
END_TEST

struct many { struct tb b; struct jf *f; bool done; };

static void one_of_many(void *arg)
{
	struct many *m = arg;
	uint64_t seq = jf_put(m->f, &m->b, 1);

	ck_assert_int_eq(jnl_commit(m->f->j, seq), 0);
	m->done = true;
}

START_TEST(one_flush_for_many_commits)
{
	struct jf *f = jf_new(256);
	static struct many m[40];

	for (unsigned i = 0; i < ARRAY_SIZE(m); i++) {
		m[i].f = f;
		m[i].done = false;
		tb_init(&m[i].b, 2000 + i, jf_inode(i), 1);
		ck_assert_int_eq(sched_spawn(f->s, "many", one_of_many, &m[i]), 0);
	}
	sched_run(f->s);
	for (unsigned i = 0; i < ARRAY_SIZE(m); i++)
		ck_assert(m[i].done);
	/* all had joined before the worker ran: one record; never more than two */
	ck_assert_uint_le(count_ops(f, BLK_FLUSH, 0, 0), 2);
	ck_assert_uint_le(jnl_stable_seq(f->j), 2);
	jf_free(f);
}
END_TEST

static void publish(struct jf *f, void *arg)
{
	struct tb *b = arg;
	struct jnl_handle h;

	ck_assert_int_eq(jnl_begin(f->j, 1, 0, &h), 0);
	jnl_dirty(&h, &b->jb);
	jnl_publishes_data(&h);
	ck_assert_int_eq(jnl_commit(f->j, jnl_end(&h)), 0);
}

START_TEST(publishing_data_flushes_before_the_record_is_written)
{
	struct jf *f = jf_new(128);
	struct tb b;

	tb_init(&b, 2000, jf_inode(1), 1);
	jf_run(f, publish, &b);
	ck_assert_uint_eq(f->n_ops, 3);
	ck_assert_int_eq(f->op[0].op, BLK_FLUSH);
	ck_assert_int_eq(f->op[1].op, BLK_WRITE);
	ck_assert_int_eq(f->op[2].op, BLK_FLUSH);
	jf_free(f);
}
END_TEST

static void release_it(struct jf *f, void *arg)
{
	struct tb *b = arg;
	struct csv_owner o = b->jb.owner;

	jf_put(f, b, 5);
	ck_assert(jnl_owner_busy(f->j, o));
	ck_assert_int_eq(jnl_release(f->j, &o, 1), 0);
	ck_assert(!jnl_owner_busy(f->j, o));
	ck_assert(!jnl_buf_busy(&b->jb));
	ck_assert_uint_eq(b->cleaned, 1);
}

START_TEST(release_writes_log_then_home_then_ends_reach_each_flushed)
{
	struct jf *f = jf_new(128);
	struct tb a, b;
	unsigned i = 0;

	tb_init(&a, 2001, jf_inode(8), 1);
	tb_init(&b, 2000, jf_inode(9), 1);
	/* a stays in the log, so the tail cannot simply move beyond b */
	jf_run(f, commit_one, &a);
	f->n_ops = 0;
	jf_run(f, release_it, &b);
	ck_assert_uint_eq(jf_home_value(f, 2000), 5);
	ck_assert_uint_eq(jf_home_value(f, 2001), UINT64_MAX);
	ck_assert_uint_eq(f->n_ops, 6);
	ck_assert(f->op[i].op == BLK_WRITE && f->op[i].blkno < JF_DATA);
	ck_assert_int_eq(f->op[++i].op, BLK_FLUSH);
	ck_assert(f->op[++i].op == BLK_WRITE && f->op[i].blkno == 2000);
	ck_assert_int_eq(f->op[++i].op, BLK_FLUSH);
	ck_assert(f->op[++i].op == BLK_WRITE && f->op[i].blkno < JF_DATA);
	ck_assert_int_eq(f->op[++i].op, BLK_FLUSH);
	jf_free(f);
}
END_TEST

static void release_nothing(struct jf *f, void *arg)
{
	struct csv_owner o[3] = { jf_inode(1), jf_inode(2), jf_inode(2) };

	(void)arg;
	ck_assert_int_eq(jnl_release(f->j, o, 3), 0);
}

START_TEST(release_of_owners_with_nothing_costs_nothing)
{
	struct jf *f = jf_new(128);

	jf_run(f, release_nothing, NULL);
	ck_assert_uint_eq(f->n_ops, 0);
	jf_free(f);
}
END_TEST

static struct tb pool[600];

static void wrap(struct jf *f, void *arg)
{
	struct csv_prng p;

	(void)arg;
	csv_prng_init(&p, 5);
	for (unsigned i = 0; i < 2000; i++) {
		unsigned k = csv_prng_below(&p, 64);

		jf_put(f, &pool[k], i);
		if (csv_prng_chance(&p, 1, 10))
			ck_assert_int_eq(jnl_commit(f->j, 0), 0);
		if (csv_prng_chance(&p, 1, 50)) {
			struct csv_owner o[2] = { pool[k].jb.owner, pool[(k + 1) % 64].jb.owner };

			ck_assert_int_eq(jnl_release(f->j, o, 2), 0);
		}
	}
	ck_assert_int_eq(jnl_shutdown(f->j), 0);
}

START_TEST(the_log_wraps_and_shuts_down_empty_with_everything_home)
{
	struct jf *f = jf_new(64);
	struct jnl_stats st;

	for (unsigned i = 0; i < 64; i++)
		tb_init(&pool[i], 2000 + i, jf_inode(i / 2), 1);
	jf_run(f, wrap, NULL);
	jnl_stats(f->j, &st);
	ck_assert_uint_eq(st.used_blk, 0);
	ck_assert_uint_gt(st.commit_blocks, 10 * 64);		/* it went around */
	ck_assert(jnl_is_empty(f->j));
	for (unsigned i = 0; i < 64; i++) {
		ck_assert(!jnl_buf_busy(&pool[i].jb));
		ck_assert_uint_eq(jf_home_value(f, 2000 + i), tb_value(pool[i].data));
	}
	jf_free(f);
}
END_TEST

struct limits { uint32_t blocks, revokes; int want; };

static void begin_with(struct jf *f, void *arg)
{
	struct limits *l = arg;
	struct jnl_handle h;

	ck_assert_int_eq(jnl_begin(f->j, l->blocks, l->revokes, &h), l->want);
	if (!l->want)
		jnl_end(&h);
}

START_TEST(a_transaction_over_a_quarter_of_the_log_is_refused)
{
	static struct limits l[] = {
		{ 29, 0, 0 }, { 30, 0, -E2BIG }, { UINT32_MAX, 0, -E2BIG }, { 0, UINT32_MAX, -E2BIG },
		{ UINT32_MAX, UINT32_MAX, -E2BIG }, { 0, 83, 0 },
	};
	struct jf *f = jf_new(128);	/* 127 blocks: a quarter is 31 */

	for (unsigned i = 0; i < ARRAY_SIZE(l); i++)
		jf_run(f, begin_with, &l[i]);
	jf_free(f);
}
END_TEST

static void overrun(struct jf *f, void *arg)
{
	struct jnl_handle h;

	(void)arg;
	ck_assert_int_eq(jnl_begin(f->j, 1, 0, &h), 0);
	jnl_dirty(&h, &pool[0].jb);
	jnl_dirty(&h, &pool[0].jb);	/* the same block: no room used */
	jnl_dirty(&h, &pool[1].jb);
}

START_TEST(a_handle_that_overruns_its_room_asserts)
{
	struct jf *f = jf_new(128);

	tb_init(&pool[0], 2000, jf_inode(1), 1);
	tb_init(&pool[1], 2001, jf_inode(1), 1);
	jf_run(f, overrun, NULL);
}
END_TEST

static void flag_set(struct jf *f, void *arg)
{
	struct jnl_handle h;

	(void)arg;
	ck_assert_uint_eq(*coro_flags(f->s) & CORO_IN_TXN, 0);
	ck_assert_int_eq(jnl_begin(f->j, 1, 0, &h), 0);
	ck_assert_uint_eq(*coro_flags(f->s) & CORO_IN_TXN, CORO_IN_TXN);
	jnl_end(&h);
	ck_assert_uint_eq(*coro_flags(f->s) & CORO_IN_TXN, 0);
}

START_TEST(a_coroutine_is_marked_while_it_holds_a_handle)
{
	struct jf *f = jf_new(128);

	jf_run(f, flag_set, NULL);
	jf_free(f);
}
END_TEST

static void put_only(struct jf *f, void *arg)
{
	jf_put(f, arg, 3);
}

START_TEST(a_transaction_commits_by_itself_after_the_interval)
{
	struct jf *f = jf_new(128);
	struct tb b;

	tb_init(&b, 2000, jf_inode(1), 1);
	jf_run(f, put_only, &b);
	fake_run_until(&f->clk, f->s, f->clk.now_ns + 4999 * NS_PER_MS);
	ck_assert_uint_eq(jnl_stable_seq(f->j), 0);
	fake_run_until(&f->clk, f->s, f->clk.now_ns + 2 * NS_PER_MS);
	ck_assert_uint_eq(jnl_stable_seq(f->j), 1);
	jf_free(f);
}
END_TEST

struct cb { struct jnl_on_commit c; int status, calls; };
static void cb_fn(struct jnl_on_commit *c, int status)
{
	struct cb *cb = container_of(c, struct cb, c);

	cb->status = status;
	cb->calls++;
}

static void with_callback(struct jf *f, void *arg)
{
	struct cb *cb = arg;
	struct jnl_handle h;
	uint64_t seq;

	ck_assert_int_eq(jnl_begin(f->j, 1, 0, &h), 0);
	jnl_dirty(&h, &pool[0].jb);
	cb->c.fn = cb_fn;
	jnl_on_commit(&h, &cb->c);
	seq = jnl_end(&h);
	ck_assert_int_eq(cb->calls, 0);
	jnl_commit(f->j, seq);
}

START_TEST(the_commit_callback_comes_once_when_durable)
{
	struct jf *f = jf_new(128);
	struct cb cb = { .status = 99 };

	tb_init(&pool[0], 2000, jf_inode(1), 1);
	jf_run(f, with_callback, &cb);
	ck_assert_int_eq(cb.calls, 1);
	ck_assert_int_eq(cb.status, 0);
	jf_free(f);
}
END_TEST

START_TEST(a_failed_commit_ends_the_journal_once_with_a_reason)
{
	for (unsigned k = 1; k <= 2; k++) {		/* the record's write, its flush */
		struct jf *f = jf_new(128);
		struct cb cb = { .status = 99 };
		struct limits l = { 1, 0, -CSV_E_WITHDRAWN };

		tb_init(&pool[0], 2000, jf_inode(1), 1);
		mem_blk_fail_at(f->blk, k, -EIO);
		jf_run(f, with_callback, &cb);
		ck_assert_int_eq(cb.calls, 1);
		ck_assert_int_eq(cb.status, -CSV_E_WITHDRAWN);
		ck_assert_uint_eq(f->failed, 1);
		ck_assert_int_eq(f->failed_err, -EIO);
		ck_assert_msg(strstr(f->failed_what, "journal 3: commit of record 1"), "%s", f->failed_what);
		jf_run(f, begin_with, &l);
		ck_assert_uint_eq(f->failed, 1);
		jf_free(f);
	}
}
END_TEST

UNIT_MAIN("jnl_txn", UNIT_TEST(commit_is_one_write_and_one_flush_and_touches_no_home), UNIT_TEST(one_flush_for_many_commits),
	  UNIT_TEST(publishing_data_flushes_before_the_record_is_written),
	  UNIT_TEST(release_writes_log_then_home_then_ends_reach_each_flushed),
	  UNIT_TEST(release_of_owners_with_nothing_costs_nothing),
	  UNIT_TEST(the_log_wraps_and_shuts_down_empty_with_everything_home),
	  UNIT_TEST(a_transaction_over_a_quarter_of_the_log_is_refused), UNIT_SIGNAL(a_handle_that_overruns_its_room_asserts, 6),
	  UNIT_TEST(a_coroutine_is_marked_while_it_holds_a_handle), UNIT_TEST(a_transaction_commits_by_itself_after_the_interval),
	  UNIT_TEST(the_commit_callback_comes_once_when_durable), UNIT_TEST(a_failed_commit_ends_the_journal_once_with_a_reason))
