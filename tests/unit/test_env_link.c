/*
 * utils/env/real_link.c: TCP links on loopback addresses, several nodes in one loop; and the proof of who is there.
 */
#include <stdio.h>
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "utils/base/base.h"
#include "utils/env/mesh_frame.h"
#include "utils/env/real_link_auth.h"
#include "utils/env/real_link_internal.h"

#include "tests/unit/link_rig.h"

#define FRAMES 20000

static bool all_got(struct rig *r)
{
	for (unsigned i = 1; i <= r->n; i++)
		for (unsigned k = 1; k <= r->n; k++)
			if (i != k && r->node[i].got[k] != FRAMES)
				return false;
	return true;
}

START_TEST(links_come_up_and_carry_frames_in_order_in_few_writes)
{
	static uint8_t buf[200];
	uint64_t writes = 0, bytes = 0;
	struct timespec a, b;
	struct rig r;

	with_tls = _i;
	rig_init(&r, 3);
	for (unsigned i = 1; i <= 3; i++)
		node_start(&r, i);
	ck_assert(run_until(&r, all_up, 10000));
	for (uint32_t v = 1; v <= FRAMES; v++) {
		memcpy(buf, &v, sizeof(v));
		for (unsigned i = 1; i <= 3; i++)
			for (unsigned k = 1; k <= 3; k++)
				if (i != k)
					ck_assert_int_eq(r.node[i].link->ops->send(r.node[i].link, k, buf, 4 + v % 190), 0);
	}
	clock_gettime(CLOCK_MONOTONIC, &a);
	ck_assert(run_until(&r, all_got, 15000));
	clock_gettime(CLOCK_MONOTONIC, &b);
	for (unsigned i = 1; i <= 3; i++) {
		ck_assert_uint_eq(r.node[i].order_bad, 0);
		writes += real_link_stats(r.node[i].link)->writes;
		bytes += real_link_stats(r.node[i].link)->bytes_received;
	}
	printf("%u frames, %llu bytes, %llu writes, %.0f ms\n", FRAMES * 6, (unsigned long long)bytes,
	       (unsigned long long)writes, (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6);
	ck_assert_uint_lt(writes, FRAMES);
	rig_done(&r);
}
END_TEST

static bool two_hears_one_again(struct rig *r)
{
	return r->node[1].up[2] == 2 && r->node[2].up[1] == 1;
}

START_TEST(a_link_that_breaks_is_told_and_comes_again)
{
	struct rig r;

	with_tls = _i;
	rig_init(&r, 2);
	node_start(&r, 1);
	node_start(&r, 2);
	ck_assert(run_until(&r, all_up, 10000));
	real_link_free(r.node[2].link);
	memset(r.node[2].up, 0, sizeof(r.node[2].up));
	ck_assert_int_eq(r.node[1].down[2], 0);
	node_start(&r, 2);
	ck_assert(run_until(&r, two_hears_one_again, 10000));
	ck_assert_uint_eq(r.node[1].down[2], 1);
	rig_done(&r);
}
END_TEST

START_TEST(sending_without_a_link_says_so)
{
	struct rig r;

	rig_init(&r, 2);
	node_start(&r, 1);
	ck_assert_int_eq(r.node[1].link->ops->send(r.node[1].link, 2, "abcd", 4), -ENOTCONN);
	ck_assert_int_eq(r.node[1].link->ops->send(r.node[1].link, 9, "abcd", 4), -ENOTCONN);
	rig_done(&r);
}
END_TEST

static bool refused_both(struct rig *r)
{
	return real_link_stats(r->node[1].link)->refused > 2;
}

START_TEST(a_node_without_the_key_is_refused_and_counted)
{
	struct rig r;

	with_tls = _i;
	rig_init(&r, 2);
	node_start(&r, 2);
	snprintf(r.nodes.keyfile, sizeof(r.nodes.keyfile), "%s", r.other_key);
	node_start(&r, 1);
	ck_assert(run_until(&r, refused_both, 10000));
	ck_assert_uint_eq(r.node[1].up[2], 0);
	ck_assert_uint_eq(r.node[2].up[1], 0);
	rig_done(&r);
}
END_TEST

static bool link_1_2(struct rig *r)
{
	return r->node[1].up[2] && r->node[2].up[1];
}

START_TEST(every_address_of_a_node_is_tried)
{
	struct rig r;
	struct real_node *two;

	with_tls = _i;
	rig_init(&r, 2);
	node_start(&r, 2);
	/* nothing listens at the first two */
	two = &r.nodes.node[1];
	snprintf(two->addr[2], sizeof(two->addr[2]), "%s", two->addr[0]);
	snprintf(two->addr[0], sizeof(two->addr[0]), "127.99.0.1");
	snprintf(two->addr[1], sizeof(two->addr[1]), "::1");
	two->n_addrs = 3;
	node_start(&r, 1);
	ck_assert(run_until(&r, link_1_2, 10000));
	rig_done(&r);
}
END_TEST

START_TEST(a_volume_whose_first_port_is_taken_uses_another)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	struct rig r;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	with_tls = _i;
	rig_init(&r, 2);
	sa.sin_port = htons(link_port_number(r.lockspace, 0));
	sa.sin_addr.s_addr = htonl(INADDR_ANY);
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)	/* else somebody has it: just as good */
		ck_assert_int_eq(listen(fd, 1), 0);
	node_start(&r, 1);
	node_start(&r, 2);
	ck_assert(run_until(&r, link_1_2, 15000));
	close(fd);
	rig_done(&r);
}
END_TEST

static bool two_bad(struct rig *r)
{
	return real_link_stats(r->node[2].link)->bad_frames && r->node[1].up[2] == 2;
}

START_TEST(a_bad_frame_breaks_the_link_and_it_comes_again)
{
	struct rig r;

	rig_init(&r, 2);
	node_start(&r, 1);
	node_start(&r, 2);
	ck_assert(run_until(&r, all_up, 10000));
	r.node[2].refuse_frames = true;
	ck_assert_int_eq(r.node[1].link->ops->send(r.node[1].link, 2, "abcd", 4), 0);
	ck_assert(run_until(&r, two_bad, 10000));
	ck_assert_uint_eq(r.node[2].down[1], 1);
	rig_done(&r);
}
END_TEST

static int stranger_fd;
static bool stranger_closed(struct rig *r)
{
	char c;

	(void)r;
	return recv(stranger_fd, &c, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET;
}

static void stranger_says(struct rig *r, const void *buf, size_t len)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	uint64_t refused = real_link_stats(r->node[2].link)->refused;
	unsigned a, b, c, d;

	ck_assert_int_eq(sscanf(r->nodes.node[1].addr[0], "%u.%u.%u.%u", &a, &b, &c, &d), 4);
	sa.sin_addr.s_addr = htonl(a << 24 | b << 16 | c << 8 | d);
	sa.sin_port = htons(link_port_number(r->lockspace, 0));
	stranger_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(stranger_fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(send(stranger_fd, buf, len, MSG_NOSIGNAL), (ssize_t)len);
	ck_assert_msg(run_until(r, stranger_closed, 6000), "a stranger was not thrown out");
	ck_assert_uint_eq(real_link_stats(r->node[2].link)->refused, refused + 1);
	close(stranger_fd);
}

START_TEST(strangers_are_thrown_out_and_disturb_nobody)
{
	uint8_t junk[200];
	struct auth a;
	struct auth_talk t;
	struct csv_err err;
	struct rig r;

	with_tls = _i;
	rig_init(&r, 2);
	node_start(&r, 1);
	node_start(&r, 2);
	ck_assert(run_until(&r, all_up, 10000));
	memset(junk, 0x41, sizeof(junk));
	stranger_says(&r, junk, sizeof(junk));		/* nonsense */
	stranger_says(&r, "GET / HTTP/1.0\r\n", 16);	/* less than a hello, then silence: the deadline */
	ck_assert_int_eq(auth_init(&a, r.key, r.lockspace ^ 1, 1, &err), 0);
	auth_hello(&a, &t, 2);
	stranger_says(&r, t.hello, sizeof(t.hello));	/* another volume */
	ck_assert_int_eq(auth_init(&a, r.key, r.lockspace, 77, &err), 0);
	auth_hello(&a, &t, 2);
	stranger_says(&r, t.hello, sizeof(t.hello));	/* not in the node list */
	ck_assert_int_eq(auth_init(&a, r.key, r.lockspace, 1, &err), 0);
	auth_hello(&a, &t, 2);
	memcpy(junk, t.hello, sizeof(t.hello));
	stranger_says(&r, junk, sizeof(t.hello) + AUTH_PROOF_BYTES);	/* right hello, wrong proof */
	ck_assert_uint_eq(r.node[2].down[1], 0);
	ck_assert(all_up(&r));
	rig_done(&r);
}
END_TEST

START_TEST(many_silent_strangers_cost_a_bounded_number_of_connections)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	struct rig r;
	unsigned a, b, c, d, closed = 0;
	int fd[100];

	with_tls = _i;
	rig_init(&r, 2);
	node_start(&r, 2);
	ck_assert_int_eq(sscanf(r.nodes.node[1].addr[0], "%u.%u.%u.%u", &a, &b, &c, &d), 4);
	sa.sin_addr.s_addr = htonl(a << 24 | b << 16 | c << 8 | d);
	sa.sin_port = htons(link_port_number(r.lockspace, 0));
	for (unsigned i = 0; i < 100; i++) {
		fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		connect(fd[i], (struct sockaddr *)&sa, sizeof(sa));
		run_until(&r, never, 2);
	}
	run_until(&r, never, 100);
	for (unsigned i = 0; i < 100; i++) {
		char x;

		closed += recv(fd[i], &x, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET;
		close(fd[i]);
	}
	ck_assert_uint_ge(closed, 60);
	rig_done(&r);
}
END_TEST

/* ---- the exchange, byte by byte ------------------------------------------------------------------------------------------- */

START_TEST(no_changed_replayed_or_reflected_byte_gets_through)
{
	struct auth a, b;
	struct auth_talk ta, tb, t2;
	uint8_t proof[AUTH_PROOF_BYTES], old_proof[AUTH_PROOF_BYTES];
	struct csv_err err = CSV_ERR_INIT;
	char key[64];

	make_key(key, 3);
	ck_assert_int_eq(auth_init(&a, key, 5, 1, &err), 0);
	ck_assert_int_eq(auth_init(&b, key, 5, 2, &err), 0);
	ck_assert_ptr_null(auth_hello(&a, &ta, 2));
	ck_assert_ptr_null(auth_got_hello(&b, &tb, ta.hello));
	ck_assert_uint_eq(tb.peer, 1);
	ck_assert_ptr_null(auth_got_answer(&a, &ta, tb.answer, proof));
	ck_assert_ptr_null(auth_got_proof(&b, &tb, proof));
	memcpy(old_proof, proof, sizeof(proof));
	for (unsigned i = 0; i < AUTH_ANSWER_BYTES * 8; i++) {
		uint8_t x[AUTH_ANSWER_BYTES];

		memcpy(x, tb.answer, sizeof(x));
		x[i / 8] ^= 1u << i % 8;
		t2 = ta;
		ck_assert_msg(auth_got_answer(&a, &t2, x, proof) != NULL, "answer with bit %u changed was believed", i);
	}
	for (unsigned i = 0; i < AUTH_PROOF_BYTES * 8; i++) {
		uint8_t x[AUTH_PROOF_BYTES];

		memcpy(x, old_proof, sizeof(x));
		x[i / 8] ^= 1u << i % 8;
		ck_assert_msg(auth_got_proof(&b, &tb, x) != NULL, "proof with bit %u changed was believed", i);
	}
	/* the hello's bytes are under the macs: a changed one shows in the answer */
	for (unsigned i = 0; i < AUTH_HELLO_BYTES * 8; i++) {
		uint8_t x[AUTH_HELLO_BYTES];

		memcpy(x, ta.hello, sizeof(x));
		x[i / 8] ^= 1u << i % 8;
		if (auth_got_hello(&b, &t2, x))
			continue;
		ck_assert_msg(auth_got_answer(&a, &ta, t2.answer, proof) != NULL, "hello with bit %u changed was believed", i);
	}
	/* replay: a new talk has a new nonce */
	ck_assert_ptr_null(auth_got_hello(&b, &t2, ta.hello));
	ck_assert_ptr_nonnull(auth_got_proof(&b, &t2, old_proof));
	/* reflection: our own hello back to us, b's mac as a proof */
	ck_assert_ptr_nonnull(auth_got_hello(&a, &t2, ta.hello));
	ck_assert_ptr_nonnull(auth_got_proof(&b, &tb, tb.answer + AUTH_HELLO_BYTES));
	unlink(key);
	ck_assert_int_eq(auth_init(&a, key, 5, 1, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "corosync-keygen"));
}
END_TEST

static void write_key(const char *path, uint8_t fill)
{
	uint8_t key[128];
	char tmp[80];
	int fd;

	snprintf(tmp, sizeof(tmp), "%s.new", path);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	memset(key, fill, sizeof(key));
	ck_assert_int_eq(write(fd, key, sizeof(key)), sizeof(key));
	close(fd);
	ck_assert_int_eq(rename(tmp, path), 0);
}

static bool one_refused(struct rig *r)
{
	return real_link_stats(r->node[1].link)->refused || real_link_stats(r->node[2].link)->refused;
}

START_TEST(a_member_with_tls_and_one_without_refuse_each_other)
{
	struct rig r;

	with_tls = _i;
	rig_init(&r, 2);
	node_start(&r, 2);
	r.nodes.no_tls = !r.nodes.no_tls;
	node_start(&r, 1);
	ck_assert(run_until(&r, one_refused, 10000));
	ck_assert_uint_eq(r.node[1].up[2], 0);
	ck_assert_uint_eq(r.node[2].up[1], 0);
	rig_done(&r);
}
END_TEST

static bool two_is_alone(struct rig *r)
{
	return r->node[2].down[1] == r->node[2].up[1];
}

static void one_begins_anew(struct rig *r)
{
	real_link_free(r->node[1].link);
	r->node[1].link = NULL;
	ck_assert(run_until(r, two_is_alone, 10000));
	memset(r->node[1].up, 0, sizeof(r->node[1].up));
	memset(r->node[1].down, 0, sizeof(r->node[1].down));
	node_start(r, 1);
	ck_assert(run_until(r, all_up, 10000));
}

/*
 * Node 2 keeps the file it has; node 1 gets a new key, then node 2: whoever has the new one and whoever has the old one understand each
 * other as long as the one who answers has had both.
 */
START_TEST(the_key_is_changed_node_by_node_without_a_restart)
{
	struct rig r;
	char one[64], two[64];

	with_tls = true;
	rig_init(&r, 2);
	make_key(one, 7);
	make_key(two, 7);
	snprintf(r.nodes.keyfile, sizeof(r.nodes.keyfile), "%s", two);
	node_start(&r, 2);
	snprintf(r.nodes.keyfile, sizeof(r.nodes.keyfile), "%s", one);
	node_start(&r, 1);
	ck_assert(run_until(&r, all_up, 10000));
	/* the one who answers has the new key first: the old one of node 1 is taken still */
	write_key(two, 9);
	one_begins_anew(&r);
	/* now node 1 has it, too, and takes it up by itself */
	write_key(one, 9);
	one_begins_anew(&r);
	unlink(one);
	unlink(two);
	rig_done(&r);
}
END_TEST

START_TEST(a_stranger_who_says_half_a_hello_keeps_nobody_waiting)
{
	struct rig r;
	struct sockaddr_in sa = { .sin_family = AF_INET };
	static const uint8_t half[] = { 0x16, 0x03, 0x01, 0x02, 0x00, 0x01 };	/* the head of a TLS record, and no more */
	int fd[8];

	with_tls = true;
	rig_init(&r, 2);
	node_start(&r, 2);
	sa.sin_addr.s_addr = inet_addr(r.nodes.node[1].addr[0]);
	sa.sin_port = htons(link_port_number(r.lockspace, 0));
	for (size_t i = 0; i < ARRAY_SIZE(fd); i++) {
		fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		ck_assert_int_eq(connect(fd[i], (struct sockaddr *)&sa, sizeof(sa)), 0);
		ck_assert_int_eq(write(fd[i], half, sizeof(half)), sizeof(half));
	}
	run_until(&r, never, 50);
	node_start(&r, 1);
	ck_assert(run_until(&r, all_up, 1500));		/* less than a silent stranger is given */
	ck_assert(run_until(&r, one_refused, 10000));
	for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	rig_done(&r);
}
END_TEST

UNIT_MAIN("env_link", UNIT_LOOP(a_member_with_tls_and_one_without_refuse_each_other, 0, 2),
	  UNIT_TEST(the_key_is_changed_node_by_node_without_a_restart), UNIT_TEST(a_stranger_who_says_half_a_hello_keeps_nobody_waiting),
	  UNIT_LOOP(links_come_up_and_carry_frames_in_order_in_few_writes, 0, 2),
	  UNIT_LOOP(a_link_that_breaks_is_told_and_comes_again, 0, 2),
	  UNIT_TEST(sending_without_a_link_says_so),
	  UNIT_LOOP(a_node_without_the_key_is_refused_and_counted, 0, 2),
	  UNIT_LOOP(every_address_of_a_node_is_tried, 0, 2),
	  UNIT_LOOP(a_volume_whose_first_port_is_taken_uses_another, 0, 2),
	  UNIT_TEST(a_bad_frame_breaks_the_link_and_it_comes_again),
	  UNIT_LOOP(strangers_are_thrown_out_and_disturb_nobody, 0, 2),
	  UNIT_LOOP(many_silent_strangers_cost_a_bounded_number_of_connections, 0, 2),
	  UNIT_TEST(no_changed_replayed_or_reflected_byte_gets_through))
