/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * utils/env/real_link*.c: nodes of several releases settle on a version when their link comes up (proto.h), or are refused with a reason.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/unit/link_rig.h"

static struct rig r;
static unsigned lines;
static char last_line[700];

static void count_line(struct logger *l, enum log_level level, const char *text)
{
	(void)l;
	if (level > LOG_L_WARN)
		return;
	lines++;
	snprintf(last_line, sizeof(last_line), "%s", text);
}

static struct logger logger = { .write = count_line, .max = LOG_L_DEBUG };

static void speak(unsigned node, struct proto_range mesh, struct proto_range messages)
{
	r.node[node].mesh = mesh;
	r.node[node].messages = messages;
}

static struct real_link_info info(unsigned node, uint32_t peer)
{
	struct real_link_info i;

	ck_assert(real_link_info(r.node[node].link, peer, &i));
	return i;
}

/* range of one, of the other; what they settle on, 0: nothing */
static const struct { struct proto_range a, b; uint16_t version; } pairs[] = {
	{ { 1, 1 }, { 1, 1 }, 1 }, { { 1, 1 }, { 1, 3 }, 1 }, { { 1, 3 }, { 1, 1 }, 1 }, { { 1, 3 }, { 2, 5 }, 3 }, { { 2, 5 }, { 1, 3 }, 3 },
	{ { 4, 4 }, { 1, 9 }, 4 }, { { 1, 1 }, { 2, 2 }, 0 }, { { 2, 2 }, { 1, 1 }, 0 }, { { 7, 9 }, { 1, 3 }, 0 }, { { 1, 3 }, { 65535, 65535 }, 0 },
};
#define PAIRS ((int)ARRAY_SIZE(pairs))

static bool refused_both(struct rig *g)
{
	return real_link_stats(g->node[1].link)->refused_version > 3 && real_link_stats(g->node[2].link)->refused_version > 3;
}

/* Every pair for the frames with the same messages, and the other way round; with TLS and without. */
START_TEST(both_ends_settle_on_the_highest_common_version_or_both_say_why_not)
{
	const struct proto_range any = { 1, 2 };
	bool frames = _i / PAIRS % 2 == 0;
	int at = _i % PAIRS;

	with_tls = _i >= 2 * PAIRS;
	rig_init(&r, 2);
	speak(1, frames ? pairs[at].a : any, frames ? any : pairs[at].a);
	speak(2, frames ? pairs[at].b : any, frames ? any : pairs[at].b);
	node_start(&r, 2);
	node_start(&r, 1);
	if (pairs[at].version) {
		ck_assert(run_until(&r, all_up, 10000));
		for (unsigned i = 1; i <= 2; i++) {
			struct real_link_info x = info(i, 3 - i);

			ck_assert_uint_eq(x.mesh_version, frames ? pairs[at].version : 2);
			ck_assert_uint_eq(r.node[i].link->settled(r.node[i].link, 3 - i), x.mesh_version);
			ck_assert(proto_eq(x.mesh, r.node[3 - i].mesh) && proto_eq(x.messages, r.node[3 - i].messages));
			ck_assert_str_eq(x.refusal, "");
			ck_assert_uint_eq(real_link_stats(r.node[i].link)->refused_version, 0);
		}
	} else {
		ck_assert(run_until(&r, refused_both, 10000));
		for (unsigned i = 1; i <= 2; i++) {
			struct real_link_info x = info(i, 3 - i);

			ck_assert_uint_eq(r.node[i].up[3 - i], 0);
			ck_assert(!x.up && x.mesh_version == 0);
			ck_assert_msg(strstr(x.refusal, frames ? "mesh protocol" : "messages between nodes"), "%s", x.refusal);
			ck_assert_uint_eq(real_link_stats(r.node[i].link)->refused, 0);	/* it is no stranger */
		}
	}
	rig_done(&r);
}
END_TEST

START_TEST(a_version_that_does_not_fit_is_counted_each_time_and_said_once_with_both_ranges)
{
	with_tls = _i;
	rig_init(&r, 2);
	speak(1, (struct proto_range){ 3, 4 }, (struct proto_range){ 1, 1 });
	speak(2, (struct proto_range){ 1, 2 }, (struct proto_range){ 1, 1 });
	node_start(&r, 1);
	r.node[2].log = &logger;
	lines = 0;
	node_start(&r, 2);
	ck_assert(run_until(&r, refused_both, 10000));
	ck_assert_uint_eq(lines, with_tls ? 1 : 2);		/* and that there is no TLS */
	ck_assert_msg(strstr(last_line, "link to node 1: refused: node 1 speaks versions 3..4 of the mesh protocol, node 2 1..2: none in common: "
			     "upgrade csvfs on node 2 to a release that speaks version 3, or put the release before back on node 1"), "%s",
		      last_line);
	rig_done(&r);
}
END_TEST

static bool one_refused(struct rig *g)
{
	return real_link_stats(g->node[1].link)->refused_version > 0;
}

/* It goes on calling; nobody has to restart the one that waits. */
START_TEST(who_was_refused_is_taken_when_it_comes_back_upgraded)
{
	with_tls = true;
	rig_init(&r, 2);
	speak(1, (struct proto_range){ 1, 1 }, (struct proto_range){ 1, 1 });
	speak(2, (struct proto_range){ 2, 2 }, (struct proto_range){ 1, 1 });
	node_start(&r, 1);
	node_start(&r, 2);
	ck_assert(run_until(&r, one_refused, 10000));
	ck_assert_str_ne(info(1, 2).refusal, "");
	real_link_free(r.node[2].link);
	speak(2, (struct proto_range){ 1, 2 }, (struct proto_range){ 1, 1 });
	node_start(&r, 2);
	ck_assert(run_until(&r, all_up, 10000));
	ck_assert_str_eq(info(1, 2).refusal, "");
	ck_assert_uint_eq(info(1, 2).mesh_version, 1);
	rig_done(&r);
}
END_TEST

/* ---- byte by byte: who came before, and who says nonsense ------------------------------------------------------------------------------ */

static int fd;

static bool closed(struct rig *g)
{
	uint8_t b[AUTH_ANSWER_BYTES];

	(void)g;
	return recv(fd, b, sizeof(b), MSG_DONTWAIT) == 0;
}

static uint8_t answer[AUTH_ANSWER_BYTES];
static size_t answer_len;

static bool answered(struct rig *g)
{
	ssize_t n = recv(fd, answer + answer_len, sizeof(answer) - answer_len, MSG_DONTWAIT);

	(void)g;
	if (n > 0)
		answer_len += (size_t)n;
	return answer_len == sizeof(answer);
}

static bool two_has_one(struct rig *g)
{
	return g->node[2].up[1] == 1;
}

static void be_node_1(const uint16_t words[4], struct auth *a, struct auth_talk *t)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(link_port_number(r.lockspace, 0)) };
	struct csv_err err = CSV_ERR_INIT;

	sa.sin_addr.s_addr = inet_addr(r.nodes.node[1].addr[0]);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(auth_init(a, r.key, r.lockspace, 1, &err), 0);
	a->mesh = (struct proto_range){ words[0], words[1] };
	a->messages = (struct proto_range){ words[2], words[3] };
	ck_assert_ptr_null(auth_hello(a, t, 2));
	ck_assert_int_eq(send(fd, t->hello, sizeof(t->hello), MSG_NOSIGNAL), sizeof(t->hello));
}

START_TEST(a_release_without_ranges_is_taken_for_one_that_speaks_the_first_versions)
{
	static const uint16_t zeros[4];
	uint8_t proof[AUTH_PROOF_BYTES];
	struct auth_talk t;
	struct auth a;

	rig_init(&r, 2);
	speak(2, (struct proto_range){ 1, 7 }, (struct proto_range){ 1, 3 });
	node_start(&r, 2);
	be_node_1(zeros, &a, &t);
	ck_assert(run_until(&r, answered, 6000));
	ck_assert_ptr_null(auth_got_answer(&a, &t, answer, proof));
	ck_assert(proto_eq(t.mesh, r.node[2].mesh) && proto_eq(t.messages, r.node[2].messages));
	ck_assert_int_eq(send(fd, proof, sizeof(proof), MSG_NOSIGNAL), sizeof(proof));
	ck_assert(run_until(&r, two_has_one, 6000));
	ck_assert_uint_eq(info(2, 1).mesh_version, 1);
	ck_assert(proto_eq(info(2, 1).mesh, (struct proto_range){ 1, 1 }));
	close(fd);
	rig_done(&r);
}
END_TEST

static const uint16_t nonsense[][4] = { { 0, 1, 1, 1 }, { 2, 1, 1, 1 }, { 65535, 1, 1, 1 }, { 1, 0, 1, 1 }, { 1, 1, 0, 9 }, { 1, 1, 9, 3 } };

START_TEST(ranges_that_are_none_are_refused_and_counted)
{
	struct auth_talk t;
	struct auth a;

	rig_init(&r, 2);
	node_start(&r, 2);
	r.node[2].log = &logger;
	be_node_1(nonsense[_i], &a, &t);
	ck_assert(run_until(&r, closed, 6000));
	ck_assert_uint_eq(real_link_stats(r.node[2].link)->refused, 1);
	ck_assert_uint_eq(real_link_stats(r.node[2].link)->refused_version, 0);
	ck_assert_uint_eq(info(2, 1).mesh.max, 0);	/* nothing of it is believed */
	close(fd);
	rig_done(&r);
}
END_TEST

/* PV4: a range that was changed on the way is a changed hello. */
START_TEST(nobody_can_be_talked_down_to_an_older_version)
{
	struct auth a = { .lockspace = 5, .self = 1, .mesh = { 1, 3 }, .messages = { 1, 3 } };
	struct auth b = { .lockspace = 5, .self = 2, .mesh = { 1, 3 }, .messages = { 1, 3 } };
	uint8_t proof[AUTH_PROOF_BYTES], x[AUTH_ANSWER_BYTES];
	struct auth_talk ta, tb;

	for (unsigned max_at = 26; max_at <= 30; max_at += 4) {		/* of the frames, of the messages */
		ck_assert_ptr_null(auth_hello(&a, &ta, 2));
		memcpy(x, ta.hello, AUTH_HELLO_BYTES);
		x[max_at] = 1;				/* 1..1 on the way to b */
		ck_assert_ptr_null(auth_got_hello(&b, &tb, x));
		ck_assert_uint_eq(max_at == 30 ? tb.messages.max : tb.mesh.max, 1);
		ck_assert_ptr_nonnull(auth_got_answer(&a, &ta, tb.answer, proof));
		ck_assert_ptr_null(auth_got_hello(&b, &tb, ta.hello));
		memcpy(x, tb.answer, sizeof(x));
		x[max_at] = 1;				/* on the way back */
		ck_assert_ptr_nonnull(auth_got_answer(&a, &ta, x, proof));
		ck_assert_ptr_null(auth_got_answer(&a, &ta, tb.answer, proof));
		ck_assert_ptr_null(auth_got_proof(&b, &tb, proof));
		ck_assert_uint_eq(ta.mesh.max, 3);
		ck_assert_uint_eq(tb.messages.max, 3);
	}
}
END_TEST

UNIT_MAIN("env_link_version", UNIT_LOOP(both_ends_settle_on_the_highest_common_version_or_both_say_why_not, 0, 4 * PAIRS),
	  UNIT_LOOP(a_version_that_does_not_fit_is_counted_each_time_and_said_once_with_both_ranges, 0, 2),
	  UNIT_TEST(who_was_refused_is_taken_when_it_comes_back_upgraded),
	  UNIT_TEST(a_release_without_ranges_is_taken_for_one_that_speaks_the_first_versions),
	  UNIT_LOOP(ranges_that_are_none_are_refused_and_counted, 0, (int)ARRAY_SIZE(nonsense)),
	  UNIT_TEST(nobody_can_be_talked_down_to_an_older_version))
