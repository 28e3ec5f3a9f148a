/* SPDX-License-Identifier: GPL-2.0-only */
/* The main loop and the libaio block port on a file. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "utils/env/real.h"

struct rig {
	struct clock clock;
	struct sched *sched;
	struct loop *loop;
	struct blk *blk;
	char path[64];
	int result;
	unsigned count, order_bad, last;
};

static void rig_init(struct rig *r, bool disk)
{
	struct csv_err err = { 0 };
	int fd;

	memset(r, 0, sizeof(*r));
	real_clock_init(&r->clock);
	r->sched = sched_new(&r->clock);
	ck_assert_int_eq(loop_new(r->sched, &r->loop, &err), 0);
	if (!disk)
		return;
	strcpy(r->path, "/var/tmp/csvfs-loop-XXXXXX");
	fd = mkstemp(r->path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, 8 << 20), 0);
	close(fd);
	ck_assert_msg(real_blk_open(r->path, 0, r->loop, &r->blk, &err) == 0, "%s", err.text);
}

static void rig_done(struct rig *r)
{
	if (r->blk) {
		blk_close(r->blk);
		unlink(r->path);
	}
	loop_free(r->loop);
	sched_free(r->sched);
}

static void io_coro(void *arg)
{
	struct rig *r = arg;
	char *a = blk_alloc(65536), *b = blk_alloc(65536);

	memset(a, 0x5a, 65536);
	r->result = blk_write(r->blk, 4096, a, 65536);
	if (!r->result)
		r->result = blk_flush(r->blk);
	if (!r->result)
		r->result = blk_read(r->blk, 4096, b, 65536);
	if (!r->result && memcmp(a, b, 65536))
		r->result = -EILSEQ;
	if (!r->result)
		r->result = blk_discard(r->blk, 8192, 8192);
	if (!r->result)
		r->result = blk_read(r->blk, 4096, b, 65536);
	if (!r->result && (b[0] != 0x5a || b[4096] != 0 || b[12287] != 0 || b[12288] != 0x5a))
		r->result = -EBADMSG;
	free(a);
	free(b);
	r->count = 1;
	loop_stop(r->loop);
}

START_TEST(what_was_written_is_read_back_and_what_was_discarded_is_zero)
{
	struct rig r;

	rig_init(&r, true);
	sched_spawn(r.sched, "io", io_coro, &r);
	loop_run(r.loop);
	ck_assert_uint_eq(r.count, 1);
	ck_assert_msg(r.result == 0, "%s", strerror(-r.result));
	rig_done(&r);
}
END_TEST

struct many { struct blk_req req; struct rig *r; };

static void many_done(struct blk_req *q)
{
	struct many *m = container_of(q, struct many, req);

	if (q->result)
		m->r->result = q->result;
	if (++m->r->count == 3000)
		loop_stop(m->r->loop);
}

START_TEST(more_requests_than_the_kernel_takes_at_once_all_complete)
{
	struct rig r;
	struct many *m = calloc(3000, sizeof(*m));
	char *buf = blk_alloc(4096);

	rig_init(&r, true);
	memset(buf, 1, 4096);
	for (unsigned i = 0; i < 3000; i++) {
		m[i].r = &r;
		m[i].req = (struct blk_req){ .op = BLK_WRITE, .off = (uint64_t)(i % 2048) * 4096, .len = 4096, .buf = buf,
					     .done = many_done };
		blk_submit(r.blk, &m[i].req);
	}
	loop_run(r.loop);
	ck_assert_uint_eq(r.count, 3000);
	ck_assert_int_eq(r.result, 0);
	rig_done(&r);
	free(m);
	free(buf);
}
END_TEST

START_TEST(a_device_that_is_not_there_is_named)
{
	struct rig r;
	struct csv_err err = { 0 };

	rig_init(&r, false);
	ck_assert_int_eq(real_blk_open("/nowhere/disk", 0, r.loop, &r.blk, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "/nowhere/disk"));
	rig_done(&r);
}
END_TEST

struct numbered { struct loop_msg msg; struct rig *r; unsigned n; };

static void numbered_run(struct loop_msg *m)
{
	struct numbered *x = container_of(m, struct numbered, msg);

	if (x->n != x->r->last + 1)
		x->r->order_bad++;
	x->r->last = x->n;
	if (x->n == 20000)
		loop_stop(x->r->loop);
	free(x);
}

static void *poster(void *arg)
{
	for (unsigned i = 1; i <= 20000; i++) {
		struct numbered *x = calloc(1, sizeof(*x));

		*x = (struct numbered){ .msg.fn = numbered_run, .r = arg, .n = i };
		loop_post(x->r->loop, &x->msg);
	}
	return NULL;
}

START_TEST(messages_of_another_thread_arrive_all_and_in_order)
{
	struct rig r;
	pthread_t th;

	rig_init(&r, false);
	pthread_create(&th, NULL, poster, &r);
	loop_run(r.loop);
	pthread_join(th, NULL);
	ck_assert_uint_eq(r.last, 20000);
	ck_assert_uint_eq(r.order_bad, 0);
	rig_done(&r);
}
END_TEST

static void sleeper(void *arg)
{
	struct rig *r = arg;
	uint64_t t0 = sched_now_ns(r->sched);

	coro_sleep_ns(r->sched, 5 * NS_PER_MS);
	r->result = sched_now_ns(r->sched) - t0 >= 5 * NS_PER_MS ? 0 : -1;
	r->count++;
	loop_stop(r->loop);
}

START_TEST(a_timer_ends_the_wait_of_the_loop)
{
	struct rig r;

	rig_init(&r, false);
	sched_spawn(r.sched, "sleep", sleeper, &r);
	loop_run(r.loop);
	ck_assert_uint_eq(r.count, 1);
	ck_assert_int_eq(r.result, 0);
	rig_done(&r);
}
END_TEST

static void *policy_of_a_thread(void *arg)
{
	*(int *)arg = sched_getscheduler(0);
	return NULL;
}

/* Without the right to it (an ordinary user) nothing changes at all. */
START_TEST(a_thread_in_a_hurry_goes_first_and_only_that_thread_and_only_meanwhile)
{
	struct real_hurry h = { 0 };
	int before = sched_getscheduler(0), other = -1;
	pthread_t t;

	real_hurry(&h, false);
	ck_assert_int_eq(sched_getscheduler(0), before);
	real_hurry(&h, true);
	ck_assert_int_eq(h.on, (sched_getscheduler(0) & ~SCHED_RESET_ON_FORK) == SCHED_RR);
	real_hurry(&h, true);
	ck_assert_int_eq(pthread_create(&t, NULL, policy_of_a_thread, &other), 0);
	pthread_join(t, NULL);
	ck_assert_int_eq(other & ~SCHED_RESET_ON_FORK, SCHED_OTHER);
	real_hurry(&h, false);
	ck_assert(!h.on);
	ck_assert_int_eq(sched_getscheduler(0) & ~SCHED_RESET_ON_FORK, before & ~SCHED_RESET_ON_FORK);
}
END_TEST

UNIT_MAIN("env_loop", UNIT_TEST(what_was_written_is_read_back_and_what_was_discarded_is_zero),
	  UNIT_TEST(more_requests_than_the_kernel_takes_at_once_all_complete), UNIT_TEST(a_device_that_is_not_there_is_named),
	  UNIT_TEST(messages_of_another_thread_arrive_all_and_in_order), UNIT_TEST(a_timer_ends_the_wait_of_the_loop),
	  UNIT_TEST(a_thread_in_a_hurry_goes_first_and_only_that_thread_and_only_meanwhile))
