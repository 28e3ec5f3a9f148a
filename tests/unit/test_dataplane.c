/* SPDX-License-Identifier: GPL-2.0-only */
/* The gate and the maps of the data plane; the stress runs the same under ThreadSanitizer. */
#include "tests/unit/unit.h"

#include <pthread.h>
#include <string.h>
#include <time.h>
#include <urcu.h>

#include "csvfs/dataplane.h"

static uint64_t test_mono(struct clock *c)
{
	struct timespec ts;

	(void)c;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static const struct clock_ops test_clock_ops = { test_mono, test_mono, test_mono };

struct rig {
	struct clock clock;
	struct sched *sched;
	struct dp_table *t;
	struct dp_inode *d;
	int drained;		/* atomic: a worker asked for dp_table_drained() */
	int stop, exclusive;	/* atomic */
	unsigned long io, seen_exclusive;
	int rounds_left;
};

static void notify(void *arg)
{
	struct rig *r = arg;		/* first in what other tests pass */

	__atomic_store_n(&r->drained, 1, __ATOMIC_RELEASE);
}

static void rig_init(struct rig *r, bool not_gated)
{
	struct dp_config cfg = { .io_align = 512, .notify = notify, .arg = r, .mutate_not_gated = not_gated };

	memset(r, 0, sizeof(*r));
	rcu_register_thread();
	r->clock.ops = &test_clock_ops;
	r->sched = sched_new(&r->clock);
	cfg.sched = r->sched;
	r->t = dp_table_new(&cfg);
	r->d = dp_inode_new(r->t, 77, 5);
	ck_assert_ptr_nonnull(r->d);
}

static void rig_done(struct rig *r)
{
	dp_table_free(r->t);
	sched_free(r->sched);
	rcu_unregister_thread();
}

/* Control thread and worker in one: at the step `at` the inode is freed, as when its lock leaves and nobody refers to it any more. */
struct freed { struct rig r; const char *at; bool done, drained; };

/* The request passed the gate after it had been opened again. */
static void free_inside(void *arg, const char *step)
{
	struct freed *f = arg;

	if (strcmp(step, f->at))
		return;
	f->done = true;
	dp_publish_take(f->r.t, f->r.d, NULL);
	dp_inode_free(f->r.t, f->r.d);
	f->drained = dp_is_drained(f->r.t);
	rcu_barrier();				/* a grace period, and what waited for it */
}

static struct dp_map *map_two(bool wr)
{
	struct dp_map *m = dp_map_new(2);

	m->may_read = true;
	m->may_write = wr;
	m->size = 1 << 20;
	m->n = 2;
	m->e[0] = (struct dp_extent){ 0, 65536, 1 << 30 };
	m->e[1] = (struct dp_extent){ 65536, 65536, 5 << 20 };
	return m;
}

static struct dp_io io_at(uint64_t off, uint32_t len, bool write)
{
	return (struct dp_io){ .ino = 77, .gen = 5, .off = off, .len = len, .write = write };
}

START_TEST(a_request_across_two_extents_gets_two_pieces)
{
	struct rig r;
	struct dp_io io = io_at(61440, 8192, false);

	rig_init(&r, false);
	dp_publish_take(r.t, r.d, map_two(false));
	dp_gate_open(r.t, r.d);
	ck_assert_int_eq(dp_io_begin(r.t, &io), DP_SUBMIT);
	ck_assert_uint_eq(io.nseg, 2);
	ck_assert_uint_eq(io.seg[0].dev_off, (1 << 30) + 61440);
	ck_assert_uint_eq(io.seg[0].len, 4096);
	ck_assert_uint_eq(io.seg[1].dev_off, 5 << 20);
	ck_assert_uint_eq(io.seg[1].buf_off, 4096);
	ck_assert_uint_eq(io.seg[1].len, 4096);
	dp_io_end(r.t, &io);
	rig_done(&r);
}
END_TEST

/*
 *	worker: inflight++, the gate is open		control: closes, drains, takes the map, opens the gate
 *	...						the lock is NL and unused: the inode is freed
 *	worker: looks the map up
 */
START_TEST(an_inode_that_is_freed_under_a_request_that_has_passed_the_gate_stays_until_it_is_over)
{
	struct freed f = { .at = "lookup" };
	struct dp_config cfg;
	struct dp_io io = io_at(0, 4096, false);

	rig_init(&f.r, false);
	dp_table_free(f.r.t);
	cfg = (struct dp_config){ .sched = f.r.sched, .io_align = 512, .notify = notify, .yield = free_inside, .arg = &f };
	f.r.t = dp_table_new(&cfg);
	f.r.d = dp_inode_new(f.r.t, 77, 5);
	dp_publish_take(f.r.t, f.r.d, map_two(false));
	dp_gate_open(f.r.t, f.r.d);
	ck_assert_int_eq(dp_io_begin(f.r.t, &io), DP_SLOW);
	ck_assert(f.done);
	ck_assert_msg(!f.drained, "freed: drained = %d, must be 0: a request was inside", f.drained);
	ck_assert(f.r.drained);			/* and it said so when it left */
	dp_table_drained(f.r.t);
	ck_assert(dp_is_drained(f.r.t));
	f.r.d = NULL;
	rig_done(&f.r);
}
END_TEST

START_TEST(what_the_map_does_not_allow_goes_the_slow_way)
{
	struct rig r;
	struct { uint64_t off; uint32_t len; bool write; } bad[] = {
		{ 0, 4096, true },		/* read-only map */
		{ 126976, 8192, false },	/* runs into a hole */
		{ 131072, 4096, false },	/* a hole */
		{ 100, 512, false },		/* not aligned */
		{ 0, 100, false }, { 0, 0, false },
		{ (1 << 20) - 512, 1024, false },	/* beyond the size */
		{ UINT64_MAX - 511, 512, false },
	};
	struct dp_io other = { .ino = 77, .gen = 6, .off = 0, .len = 4096 };
	struct dp_stats st;

	rig_init(&r, false);
	dp_publish_take(r.t, r.d, map_two(false));
	dp_gate_open(r.t, r.d);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct dp_io io = io_at(bad[i].off, bad[i].len, bad[i].write);

		ck_assert_msg(dp_io_begin(r.t, &io) == DP_SLOW, "case %zu was let through", i);
	}
	ck_assert_int_eq(dp_io_begin(r.t, &other), DP_SLOW);	/* another generation */
	dp_publish_take(r.t, r.d, NULL);
	other = io_at(0, 4096, false);
	ck_assert_int_eq(dp_io_begin(r.t, &other), DP_SLOW);
	dp_stats(r.t, &st);
	ck_assert_uint_eq(st.fast_reads + st.fast_writes, 0);
	rig_done(&r);
}
END_TEST

START_TEST(writes_are_remembered_once_for_the_file_times)
{
	struct rig r;
	struct dp_io io = io_at(0, 4096, true);

	rig_init(&r, false);
	dp_publish_take(r.t, r.d, map_two(true));
	dp_gate_open(r.t, r.d);
	ck_assert(!dp_take_wrote(r.d));
	ck_assert_int_eq(dp_io_begin(r.t, &io), DP_SUBMIT);
	dp_io_end(r.t, &io);
	ck_assert(dp_take_wrote(r.d));
	ck_assert(!dp_take_wrote(r.d));
	rig_done(&r);
}
END_TEST

static void close_coro(void *arg)
{
	struct rig *r = arg;

	dp_gate_close(r->t, r->d);
	r->exclusive = 1;
}

START_TEST(closing_waits_for_the_request_inside_and_lets_none_in)
{
	struct rig r;
	struct dp_io in = io_at(0, 4096, true), late = io_at(0, 4096, true);

	rig_init(&r, false);
	dp_publish_take(r.t, r.d, map_two(true));
	dp_gate_open(r.t, r.d);
	ck_assert_int_eq(dp_io_begin(r.t, &in), DP_SUBMIT);
	sched_spawn(r.sched, "close", close_coro, &r);
	sched_run(r.sched);
	ck_assert_int_eq(r.exclusive, 0);
	ck_assert_int_eq(dp_io_begin(r.t, &late), DP_SLOW);
	sched_run(r.sched);
	ck_assert_int_eq(r.exclusive, 0);
	dp_io_end(r.t, &in);
	ck_assert_int_eq(r.drained, 1);
	dp_table_drained(r.t);
	sched_run(r.sched);
	ck_assert_int_eq(r.exclusive, 1);
	dp_gate_open(r.t, r.d);
	ck_assert_int_eq(dp_io_begin(r.t, &late), DP_SUBMIT);
	dp_io_end(r.t, &late);
	rig_done(&r);
}
END_TEST

/* ---- stress: two workers against a control thread that takes the inode exclusively again and again ----------- */

static void *worker(void *arg)
{
	struct rig *r = arg;
	unsigned long bad = 0;
	uint64_t off = 0;

	rcu_register_thread();
	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		struct dp_io io = io_at(off % 131072, 4096, true);

		off += 4096;
		if (dp_io_begin(r->t, &io) != DP_SUBMIT) {
			sched_yield();
			continue;
		}
		__atomic_add_fetch(&r->io, 1, __ATOMIC_RELAXED);
		if (__atomic_load_n(&r->exclusive, __ATOMIC_SEQ_CST))
			bad++;
		dp_io_end(r->t, &io);
	}
	__atomic_add_fetch(&r->seen_exclusive, bad, __ATOMIC_RELAXED);
	rcu_unregister_thread();
	return NULL;
}

static void exclusive_coro(void *arg)
{
	struct rig *r = arg;

	/* On a busy machine the workers may not have had a turn yet: go on until they did something to be kept out of. */
	while (r->rounds_left-- > 0 || __atomic_load_n(&r->io, __ATOMIC_RELAXED) < 1000) {
		dp_gate_close(r->t, r->d);
		__atomic_store_n(&r->exclusive, 1, __ATOMIC_SEQ_CST);
		for (volatile int i = 0; i < 2000; i++)
			;
		dp_publish_take(r->t, r->d, map_two(true));
		__atomic_store_n(&r->exclusive, 0, __ATOMIC_SEQ_CST);
		dp_gate_open(r->t, r->d);
		coro_yield(r->sched);
	}
	__atomic_store_n(&r->stop, 1, __ATOMIC_RELEASE);
}

static void stress(struct rig *r)
{
	pthread_t th[2];

	rig_init(r, false);
	r->rounds_left = 20000;
	dp_publish_take(r->t, r->d, map_two(true));
	dp_gate_open(r->t, r->d);
	for (int i = 0; i < 2; i++)
		pthread_create(&th[i], NULL, worker, r);
	sched_spawn(r->sched, "exclusive", exclusive_coro, r);
	while (!r->stop) {
		sched_run(r->sched);
		if (__atomic_exchange_n(&r->drained, 0, __ATOMIC_ACQ_REL))
			dp_table_drained(r->t);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(th[i], NULL);
	rig_done(r);
}

START_TEST(no_request_is_inside_while_the_gate_is_held)
{
	struct rig r;

	stress(&r);
	ck_assert_uint_gt(r.io, 0);
	ck_assert_uint_eq(r.seen_exclusive, 0);
}
END_TEST

/* Negative control: a gate that does not wait lets the exclusive work begin with a request inside. */
START_TEST(a_gate_that_does_not_wait_is_noticed)
{
	struct rig r;
	struct dp_io in = io_at(0, 4096, true);

	rig_init(&r, true);
	dp_publish_take(r.t, r.d, map_two(true));
	dp_gate_open(r.t, r.d);
	ck_assert_int_eq(dp_io_begin(r.t, &in), DP_SUBMIT);
	sched_spawn(r.sched, "close", close_coro, &r);
	sched_run(r.sched);
	ck_assert_int_eq(r.exclusive, 1);
	dp_io_end(r.t, &in);
	rig_done(&r);
}
END_TEST

UNIT_MAIN("dataplane", UNIT_TEST(a_request_across_two_extents_gets_two_pieces),
	  UNIT_TEST(an_inode_that_is_freed_under_a_request_that_has_passed_the_gate_stays_until_it_is_over),
	  UNIT_TEST(what_the_map_does_not_allow_goes_the_slow_way), UNIT_TEST(writes_are_remembered_once_for_the_file_times),
	  UNIT_TEST(closing_waits_for_the_request_inside_and_lets_none_in),
	  UNIT_TEST(a_gate_that_does_not_wait_is_noticed),
	  UNIT_SLOW(no_request_is_inside_while_the_gate_is_held, 0, 1, 60))
