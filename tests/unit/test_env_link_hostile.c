/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * test_env_link_hostile.c - what somebody on the network can send to a link: a member's own connection in pieces, cut off in the
 * middle, with lengths that lie; and strangers, who must not fill the log.
 */
#include <arpa/inet.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "tests/unit/link_rig.h"
#include "utils/base/prng.h"

#define FRAME_MAX (MESH_HEADER_BYTES + MESH_MSG_MAX)

static struct rig r;
static int fd = -1;

static void call_node_2(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(link_port_number(r.lockspace, 0)) };
	int one = 1;

	sa.sin_addr.s_addr = inet_addr(r.nodes.node[1].addr[0]);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
}

static uint8_t answer[AUTH_ANSWER_BYTES];
static size_t answer_len;

static bool answered(struct rig *rig)
{
	ssize_t n = recv(fd, answer + answer_len, sizeof(answer) - answer_len, MSG_DONTWAIT);

	(void)rig;
	if (n > 0)
		answer_len += (size_t)n;
	return answer_len == sizeof(answer);
}

static bool up_1(struct rig *rig)
{
	return rig->node[2].up[1] > rig->node[2].down[1];
}

static bool down_1(struct rig *rig)
{
	return rig->node[2].up[1] == rig->node[2].down[1];
}

static bool said_piecewise;

static void say(const void *buf, size_t len)
{
	const uint8_t *p = buf;
	size_t step = said_piecewise ? 1 : len;

	for (size_t at = 0; at < len; at += step) {
		ck_assert_int_eq(send(fd, p + at, step, MSG_NOSIGNAL), (ssize_t)step);
		if (said_piecewise)
			run_until(&r, never, 0);
	}
}

/* Connects as node 1, as a member with the key does. */
static void be_node_1(void)
{
	struct csv_err err = CSV_ERR_INIT;
	uint8_t proof[AUTH_PROOF_BYTES];
	struct auth_talk t;
	struct auth a;

	call_node_2();
	ck_assert_int_eq(auth_init(&a, r.key, r.lockspace, 1, &err), 0);
	ck_assert_ptr_null(auth_hello(&a, &t, 2));
	say(t.hello, sizeof(t.hello));
	answer_len = 0;
	ck_assert(run_until(&r, answered, 5000));
	ck_assert_ptr_null(auth_got_answer(&a, &t, answer, proof));
	say(proof, sizeof(proof));
	ck_assert(run_until(&r, up_1, 5000));
}

static void setup(void)
{
	with_tls = false;
	rig_init(&r, 2);
	node_start(&r, 2);
	be_node_1();
}

static void done(void)
{
	close(fd);
	rig_done(&r);
}

static size_t frame(uint8_t *buf, uint32_t v, uint32_t len)
{
	struct le32 le = le32_of(len);

	memcpy(buf, &le, sizeof(le));
	memset(buf + sizeof(le), 0x5a, len);
	memcpy(buf + sizeof(le), &v, sizeof(v));
	return sizeof(le) + len;
}

static uint32_t want;
static bool got_want(struct rig *rig)
{
	return rig->node[2].got[1] == want;
}

START_TEST(frames_in_pieces_of_a_byte_arrive_whole_and_once)
{
	uint8_t buf[80];

	said_piecewise = true;
	setup();
	for (uint32_t v = 1; v <= 50; v++)
		say(buf, frame(buf, v, 4 + v));
	want = 50;
	ck_assert(run_until(&r, got_want, 10000));
	ck_assert_uint_eq(r.node[2].order_bad, 0);
	done();
}
END_TEST

#define TINY 1000000u

static uint8_t *tiny;
static size_t tiny_at, tiny_len;

static bool tiny_sent(struct rig *rig)
{
	(void)rig;
	while (tiny_at < tiny_len) {
		ssize_t n = send(fd, tiny + tiny_at, tiny_len - tiny_at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n <= 0)
			return false;
		tiny_at += (size_t)n;
	}
	return true;
}

START_TEST(a_million_tiny_frames_cost_no_memory)
{
	struct mallinfo2 before, after;

	setup();
	tiny = malloc(TINY * 8u);
	for (uint32_t v = 1; v <= TINY; v++)
		tiny_len += frame(tiny + tiny_len, v, 4);
	before = mallinfo2();
	ck_assert(run_until(&r, tiny_sent, 60000));
	want = TINY;
	ck_assert(run_until(&r, got_want, 60000));
	after = mallinfo2();
	ck_assert_uint_eq(r.node[2].order_bad, 0);
	ck_assert_msg(after.uordblks + after.hblkhd <= before.uordblks + before.hblkhd + (1u << 20), "%zu bytes more than before",
		      after.uordblks + after.hblkhd - before.uordblks - before.hblkhd);
	free(tiny);
	done();
}
END_TEST

static const uint32_t lies[] = { 0, FRAME_MAX + 1, 1u << 31, UINT32_MAX };

START_TEST(a_length_that_is_not_allowed_ends_the_connection)
{
	uint8_t buf[16];
	struct le32 le = le32_of(lies[_i]);

	setup();
	say(buf, frame(buf, 1, 8));
	say(&le, sizeof(le));
	ck_assert(run_until(&r, down_1, 5000));
	ck_assert_uint_eq(real_link_stats(r.node[2].link)->bad_frames, 1);
	ck_assert_uint_eq(r.node[2].got[1], 1);		/* what came before counts */
	close(fd);
	be_node_1();					/* and it may come again */
	done();
}
END_TEST

START_TEST(a_frame_whose_sender_dies_in_the_middle_is_not_delivered)
{
	uint8_t buf[300];
	size_t len;

	setup();
	say(buf, frame(buf, 1, 100));
	len = frame(buf, 2, 200);
	say(buf, len - 1);
	run_until(&r, never, 20);
	close(fd);
	ck_assert(run_until(&r, down_1, 5000));
	ck_assert_uint_eq(r.node[2].got[1], 1);
	ck_assert_uint_eq(real_link_stats(r.node[2].link)->bad_frames, 0);
	be_node_1();
	say(buf, len);					/* the rest of the old one is not taken for its end */
	want = 2;
	ck_assert(run_until(&r, got_want, 5000));
	ck_assert_uint_eq(r.node[2].order_bad, 0);
	done();
}
END_TEST

/* Promises a whole frame and says nothing more: costs that frame's room at most, and nobody else waits. */
START_TEST(a_promised_frame_that_does_not_come_costs_its_room_and_no_more)
{
	struct mallinfo2 before = { 0 }, after;
	struct le32 le = le32_of(FRAME_MAX);

	setup();
	before = mallinfo2();
	say(&le, sizeof(le));
	say(&le, sizeof(le));
	run_until(&r, never, 50);
	after = mallinfo2();
	ck_assert_uint_le(after.uordblks + after.hblkhd, before.uordblks + before.hblkhd + 2 * FRAME_MAX);
	close(fd);
	ck_assert(run_until(&r, down_1, 5000));
	done();
}
END_TEST

/* ---- strangers and the log ---------------------------------------------------------------------------------------------------------- */

static unsigned lines;
static char last_line[512];

static void count_line(struct logger *l, enum log_level level, const char *text)
{
	(void)l;
	(void)level;
	lines++;
	snprintf(last_line, sizeof(last_line), "%s", text);
}

static uint64_t refusals;
static bool all_refused(struct rig *rig)
{
	return real_link_stats(rig->node[2].link)->refused == refusals;
}

START_TEST(strangers_are_counted_each_and_logged_once_a_minute)
{
	struct logger log = { .write = count_line, .max = LOG_L_DEBUG };
	struct csv_err err = CSV_ERR_INIT;
	uint32_t one = 1;
	uint8_t junk[200];

	with_tls = _i;
	rig_init(&r, 2);
	ck_assert_msg(link_new_nodes(r.l, &log, r.lockspace, 2, &r.nodes, &r.node[2].link, &err) == 0, "%s", err.text);
	ck_assert_int_eq(r.node[2].link->ops->start(r.node[2].link, &events, &r.node[2]), 0);
	r.node[2].link->ops->peers(r.node[2].link, &one, 1);
	memset(junk, 0x41, sizeof(junk));
	for (refusals = 1; refusals <= 20; refusals++) {
		call_node_2();
		ck_assert_int_eq(send(fd, junk, sizeof(junk), MSG_NOSIGNAL), sizeof(junk));
		ck_assert(run_until(&r, all_refused, 6000));
		close(fd);
	}
	ck_assert_uint_eq(lines, with_tls ? 1 : 2);		/* and that there is no TLS */
	ck_assert_msg(strstr(last_line, "127."), "does not say from where: %s", last_line);
	rig_done(&r);
}
END_TEST

START_TEST(switching_tls_off_is_said_at_start_and_tls_is_not_talked_about)
{
	struct logger log = { .write = count_line, .max = LOG_L_DEBUG };
	struct csv_err err = CSV_ERR_INIT;

	with_tls = _i;
	rig_init(&r, 2);
	ck_assert_msg(link_new_nodes(r.l, &log, r.lockspace, 2, &r.nodes, &r.node[2].link, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(lines, _i ? 0 : 1);
	if (!_i)
		ck_assert_msg(strstr(last_line, "TLS is switched off"), "%s", last_line);
	rig_done(&r);
}
END_TEST

/* ---- anything ---------------------------------------------------------------------------------------------------------------------------- */

static bool closed_or_waits(struct rig *rig)
{
	char c;

	(void)rig;
	return recv(fd, &c, 1, MSG_DONTWAIT) == 0;
}

START_TEST(random_bytes_on_a_members_connection_break_that_connection_alone)
{
	struct csv_prng p;

	setup();
	csv_prng_init(&p, 77);
	for (unsigned i = 0; i < 200; i++) {
		uint8_t buf[400];
		size_t len = 1 + csv_prng_below(&p, sizeof(buf));

		csv_prng_bytes(&p, buf, len);
		send(fd, buf, len, MSG_NOSIGNAL);
		run_until(&r, closed_or_waits, 1);
		close(fd);
		run_until(&r, down_1, 5000);
		be_node_1();
	}
	want = r.node[2].got[1] + 1;
	{
		uint8_t buf[16];

		say(buf, frame(buf, want, 8));
	}
	ck_assert(run_until(&r, got_want, 5000));
	done();
}
END_TEST

UNIT_MAIN("env_link_hostile", UNIT_TEST(frames_in_pieces_of_a_byte_arrive_whole_and_once),
	  UNIT_SLOW(a_million_tiny_frames_cost_no_memory, 0, 1, 120),
	  UNIT_LOOP(a_length_that_is_not_allowed_ends_the_connection, 0, (int)ARRAY_SIZE(lies)),
	  UNIT_TEST(a_frame_whose_sender_dies_in_the_middle_is_not_delivered),
	  UNIT_TEST(a_promised_frame_that_does_not_come_costs_its_room_and_no_more),
	  UNIT_LOOP(strangers_are_counted_each_and_logged_once_a_minute, 0, 2),
	  UNIT_LOOP(switching_tls_off_is_said_at_start_and_tls_is_not_talked_about, 0, 2),
	  UNIT_SLOW(random_bytes_on_a_members_connection_break_that_connection_alone, 0, 1, 60))
