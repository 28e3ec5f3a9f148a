/*
 * utils/env/blk.h: the generic part, through mem_blk and sync_blk; and the log port.
 */
#include <stdio.h>
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/env_fake.h"
#include "utils/env/log.h"
#include "utils/env/sync_blk.h"

static struct fake_clock clk;
static struct sched *s;
static struct blk *b;

static void setup_mem(void)
{
	fake_clock_init(&clk);
	s = sched_new(&clk.clock);
	ck_assert_ptr_nonnull(s);
	ck_assert_int_eq(mem_blk_new(s, 1 << 20, 512, &b), 0);
}

static void teardown(void)
{
	blk_close(b);
	sched_free(s);
}

static void on_coro(void (*fn)(void *arg), void *arg)
{
	ck_assert_int_eq(sched_spawn(s, "test", fn, arg), 0);
	sched_run(s);
	ck_assert_uint_eq(sched_coros(s), 0);
}

static void writes_and_reads(void *arg)
{
	uint8_t *x = blk_alloc(8192), *y = blk_alloc(8192);

	(void)arg;
	for (unsigned i = 0; i < 8192; i++)
		x[i] = i * 7 + i / 256;
	ck_assert_int_eq(blk_write(b, 4096, x, 8192), 0);
	ck_assert_int_eq(blk_flush(b), 0);
	ck_assert_int_eq(blk_read(b, 4096, y, 8192), 0);
	ck_assert_mem_eq(x, y, 8192);
	ck_assert_int_eq(blk_discard(b, 4096, 4096), 0);
	ck_assert_int_eq(blk_read(b, 4096, y, 8192), 0);
	ck_assert_mem_eq(x + 4096, y + 4096, 4096);
	for (unsigned i = 0; i < 4096; i++)
		ck_assert_uint_eq(y[i], 0);
	ck_assert_uint_eq(b->n_reads, 2);
	ck_assert_uint_eq(b->n_writes, 1);
	ck_assert_uint_eq(b->n_flushes, 1);
	ck_assert_uint_eq(b->n_discards, 1);
	free(x);
	free(y);
}

START_TEST(what_was_written_is_read_and_counted)
{
	setup_mem();
	on_coro(writes_and_reads, NULL);
	ck_assert_uint_eq(b->inflight, 0);
	teardown();
}
END_TEST

START_TEST(a_file_behaves_like_memory)
{
	struct csv_err err = CSV_ERR_INIT;
	char path[] = "test_env_blk.XXXXXX";
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (1 << 20) + 100), 0);
	close(fd);
	fake_clock_init(&clk);
	s = sched_new(&clk.clock);
	ck_assert_msg(sync_blk_open(path, BLK_O_BUFFERED, s, &b, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(b->size_bytes, 1 << 20);	/* whole units */
	on_coro(writes_and_reads, NULL);
	teardown();
	unlink(path);
}
END_TEST

static unsigned dones;
static void count_done(struct blk_req *r)
{
	(void)r;
	dones++;
}

START_TEST(done_comes_later_never_inside_submit)
{
	uint8_t *buf = blk_alloc(512);
	struct blk_req r = { .op = BLK_READ, .buf = buf, .len = 512, .done = count_done };
	struct blk_req q = { .op = BLK_READ, .via = { .kind = BLK_VIA_PEER }, .buf = buf, .len = 512, .done = count_done };

	setup_mem();
	dones = 0;
	blk_submit(b, &r);
	blk_submit(b, &q);
	ck_assert_uint_eq(dones, 0);
	ck_assert_uint_eq(b->inflight, 2);
	sched_run(s);
	ck_assert_uint_eq(dones, 2);
	ck_assert_uint_eq(b->inflight, 0);
	ck_assert_int_eq(r.result, 0);
	ck_assert_int_eq(q.result, -EOPNOTSUPP);
	free(buf);
	teardown();
}
END_TEST

static void reads_outside(void *arg)
{
	static const struct { uint64_t off; uint32_t len; } bad[] = {
		{ 1 << 20, 512 }, { (1 << 20) - 512, 1024 }, { 0, 2 << 20 }, { UINT64_MAX - 511, 512 },
		{ UINT64_MAX - 511, 4096 }, { 1ull << 63, 512 },
	};
	void *buf = blk_alloc(2 << 20);

	(void)arg;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_int_eq(blk_read(b, bad[i].off, buf, bad[i].len), -ERANGE);
	ck_assert_int_eq(blk_read(b, (1 << 20) - 512, buf, 512), 0);
	ck_assert_uint_eq(b->n_reads, 1);
	free(buf);
}

START_TEST(a_request_outside_the_device_is_an_error)
{
	setup_mem();
	on_coro(reads_outside, NULL);
	teardown();
}
END_TEST

START_TEST(a_misaligned_request_is_a_bug)
{
	struct blk_req r = { .op = BLK_READ, .off = 256, .len = 512, .done = count_done };

	setup_mem();
	blk_submit(b, &r);
}
END_TEST

static void writes_after_the_gate(void *arg)
{
	uint8_t *buf = blk_alloc(512);
	struct blk_req first = { .op = BLK_WRITE, .buf = buf, .len = 512, .done = count_done };

	(void)arg;
	memset(buf, 1, 512);
	dones = 0;
	blk_submit(b, &first);
	blk_gate_close(b);
	memset(mem_blk_data(b) + 512, 0xaa, 512);
	ck_assert_int_eq(blk_write(b, 512, buf, 512), -CSV_E_WITHDRAWN);
	ck_assert_int_eq(blk_flush(b), -CSV_E_WITHDRAWN);
	ck_assert_int_eq(blk_discard(b, 512, 512), -CSV_E_WITHDRAWN);
	ck_assert_uint_eq(mem_blk_data(b)[512], 0xaa);
	ck_assert_uint_eq(dones, 1);	/* what was in flight has completed */
	ck_assert_int_eq(first.result, 0);
	free(buf);
}

START_TEST(behind_the_closed_gate_nothing_is_written)
{
	setup_mem();
	on_coro(writes_after_the_gate, NULL);
	teardown();
}
END_TEST

static char seen[64];
static void hook(void *arg, const struct blk_req *r)
{
	(void)arg;
	snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%c%llu ", "rwfd"[r->op], (unsigned long long)r->off);
}

static void fails_third(void *arg)
{
	uint8_t *buf = blk_alloc(512);

	(void)arg;
	memset(buf, 5, 512);
	mem_blk_fail_at(b, 3, -EIO);
	ck_assert_int_eq(blk_write(b, 0, buf, 512), 0);
	ck_assert_int_eq(blk_flush(b), 0);
	ck_assert_int_eq(blk_write(b, 1024, buf, 512), -EIO);
	ck_assert_int_eq(blk_write(b, 2048, buf, 512), 0);
	ck_assert_uint_eq(mem_blk_data(b)[1024], 0);
	free(buf);
}

START_TEST(the_hook_sees_what_reaches_the_device_and_the_fault_hits_the_kth)
{
	setup_mem();
	seen[0] = '\0';
	mem_blk_set_hook(b, hook, NULL);
	on_coro(fails_third, NULL);
	ck_assert_str_eq(seen, "w0 f0 w2048 ");
	teardown();
}
END_TEST

START_TEST(opening_says_what_is_wrong)
{
	struct csv_err err = CSV_ERR_INIT;
	char path[] = "test_env_blk.XXXXXX";
	int fd = mkstemp(path);

	fake_clock_init(&clk);
	s = sched_new(&clk.clock);
	ck_assert_int_eq(sync_blk_open("/nonexistent/device", 0, s, &b, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/device: no such device"));
	ck_assert_int_eq(sync_blk_open("/", 0, s, &b, &err), -ENOTBLK);
	ck_assert_ptr_nonnull(strstr(err.text, "neither a block device nor a regular file"));
	ck_assert_int_eq(sync_blk_open("/dev/null", 0, s, &b, &err), -ENOTBLK);
	ck_assert_int_eq(sync_blk_open(path, BLK_O_BUFFERED, s, &b, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.text, "too small"));
	close(fd);
	unlink(path);
	sched_free(s);
}
END_TEST

/* ---- log ----------------------------------------------------------------------------------------------- */

static char logged[2048];
static enum log_level logged_level;
static void log_write(struct logger *l, enum log_level level, const char *text)
{
	(void)l;
	logged_level = level;
	snprintf(logged, sizeof(logged), "%s", text);
}

START_TEST(log_lines_are_filtered_by_level_and_bounded)
{
	struct logger l = { .write = log_write, .max = LOG_L_NOTE };
	char big[3000];

	log_to(NULL, LOG_L_ERR, "%d", 1);
	log_to(&l, LOG_L_INFO, "quiet");
	ck_assert_str_eq(logged, "");
	log_to(&l, LOG_L_WARN, "node %d: %s", 3, "gone");
	ck_assert_str_eq(logged, "node 3: gone");
	ck_assert_int_eq(logged_level, LOG_L_WARN);
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_to(&l, LOG_L_ERR, "%s", big);
	ck_assert_uint_eq(strlen(logged), 1023);
	ck_assert_str_eq(logged + 1020, "...");
}
END_TEST

UNIT_MAIN("env_blk",
	  UNIT_TEST(what_was_written_is_read_and_counted),
	  UNIT_TEST(a_file_behaves_like_memory),
	  UNIT_TEST(done_comes_later_never_inside_submit),
	  UNIT_TEST(a_request_outside_the_device_is_an_error),
	  UNIT_SIGNAL(a_misaligned_request_is_a_bug, SIGABRT),
	  UNIT_TEST(behind_the_closed_gate_nothing_is_written),
	  UNIT_TEST(the_hook_sees_what_reaches_the_device_and_the_fault_hits_the_kth),
	  UNIT_TEST(opening_says_what_is_wrong),
	  UNIT_TEST(log_lines_are_filtered_by_level_and_bounded))
