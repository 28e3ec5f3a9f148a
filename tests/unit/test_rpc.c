/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Control socket: what is a request and what is not; server on its loop, clients in processes of their own.
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <qb/qbipcc.h>

#include "utils/base/prng.h"
#include "utils/env/loop.h"
#include "utils/env/real.h"
#include "utils/rpc/rpc_client.h"
#include "utils/rpc/rpc_server.h"

/* ---- messages ------------------------------------------------------------------------------------------------------------ */

static int decode(const char *text, struct csv_err *err)
{
	struct rpc_request r;
	int rc = rpc_request_decode(text, strlen(text), &r, err);

	if (!rc)
		rpc_request_done(&r);
	return rc;
}

START_TEST(a_request_written_is_read_alike)
{
	json_t *args = json_pack("{s:s, s:i}", "name", "a\"\\\n\xc3\xa4", "from", 17);
	char *text = rpc_request_encode("lock.list", args);
	struct rpc_request r;

	ck_assert_ptr_nonnull(text);
	ck_assert_int_eq(rpc_request_decode(text, strlen(text), &r, NULL), 0);
	ck_assert_str_eq(r.verb, "lock.list");
	ck_assert(json_equal(r.args, args));
	rpc_request_done(&r);
	free(text);
	json_decref(args);
	text = rpc_request_encode("lock.list", NULL);
	ck_assert_int_eq(rpc_request_decode(text, strlen(text), &r, NULL), 0);
	ck_assert_uint_eq(json_object_size(r.args), 0);
	rpc_request_done(&r);
	free(text);
}
END_TEST

static const struct { const char *text, *says; } bad[] = {
	{ "", "0 bytes" }, { "x", "not JSON" }, { "[]", "not a JSON object" }, { "7", "not JSON" }, { "{}", "verb" },
	{ "{\"verb\":7}", "verb: must be a text" }, { "{\"verb\":null}", "verb: must be a text" }, { "{\"verb\":\"\"}", "noun.verb" },
	{ "{\"verb\":\"volume\"}", "noun.verb" }, { "{\"verb\":\".show\"}", "noun.verb" }, { "{\"verb\":\"volume.\"}", "noun.verb" },
	{ "{\"verb\":\"a.b.c\"}", "noun.verb" }, { "{\"verb\":\"Volume.show\"}", "noun.verb" }, { "{\"verb\":\"../x.y\"}", "noun.verb" },
	{ "{\"verb\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b\"}", "at most 63" },
	{ "{\"verb\":\"a.b\",\"args\":[]}", "args: must be an object" }, { "{\"verb\":\"a.b\",\"args\":null}", "args: must be an object" },
	{ "{\"verb\":\"a.b\",\"arg\":{}}", "unknown key \"arg\"" }, { "{\"verb\":\"a.b\",\"verb\":\"c.d\"}", "duplicate" },
	{ "{\"verb\":\"a.b\"} x", "not JSON" }, { "{\"verb\":\"a.\\u0000b\"}", "not JSON" }, { "{\"verb\":\"a.\xff\"}", "not JSON" },
};

START_TEST(what_is_no_request_is_refused_with_the_reason)
{
	struct csv_err err = { 0 };

	ck_assert_int_eq(decode(bad[_i].text, &err), -EINVAL);
	ck_assert_msg(strstr(err.text, bad[_i].says) != NULL, "\"%s\": \"%s\" does not say \"%s\"", bad[_i].text, err.text, bad[_i].says);
}
END_TEST

START_TEST(length_and_depth_are_bounded)
{
	size_t n = RPC_REQUEST_MAX + 1;
	char *big = malloc(n + 1);
	struct csv_err err = { 0 };
	struct rpc_request r;

	memset(big, ' ', n);
	ck_assert_int_eq(rpc_request_decode(big, n, &r, &err), -EINVAL);
	ck_assert_msg(strstr(err.text, "must be 1 to 65536") != NULL, "%s", err.text);
	memset(big, '[', n);
	ck_assert_int_eq(rpc_request_decode(big, n - 1, &r, &err), -EINVAL);
	ck_assert_int_eq(rpc_request_decode(big, (size_t)1 << 40, &r, &err), -EINVAL);
	free(big);
}
END_TEST

START_TEST(random_bytes_are_no_request_and_hurt_nobody)
{
	static const char good[] = "{\"verb\":\"lock.list\",\"args\":{\"volume\":\"/srv/csv\",\"from\":10}}";
	struct csv_prng p;

	csv_prng_init(&p, 3);
	for (int n = 0; n < 50000; n++) {
		char buf[sizeof(good)];
		struct rpc_request r;

		memcpy(buf, good, sizeof(good));
		for (uint64_t k = 1 + csv_prng_below(&p, 4); k; k--)
			buf[csv_prng_below(&p, sizeof(good) - 1)] = (char)csv_prng_u64(&p);
		if (!rpc_request_decode(buf, csv_prng_range(&p, 0, sizeof(good) - 1), &r, NULL))
			rpc_request_done(&r);
	}
}
END_TEST

START_TEST(a_reply_that_lacks_something_is_refused)
{
	static const char *const texts[] = {
		"{}", "{\"code\":0,\"message\":\"\",\"kind\":\"x\",\"items\":[]}", "{\"code\":\"0\",\"message\":\"\",\"kind\":\"x\",\"items\":[],\"warnings\":[]}",
		"{\"code\":-1,\"message\":\"\",\"kind\":\"x\",\"items\":[],\"warnings\":[]}",
		"{\"code\":0,\"message\":\"\",\"kind\":\"x\",\"items\":{},\"warnings\":[]}",
	};
	struct csv_err err = { 0 };
	json_t *j = rpc_reply_error(RPC_NO_QUORUM, "no quorum"), *back;
	char *text = json_dumps(j, 0);

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		ck_assert_int_eq(rpc_reply_decode(texts[i], strlen(texts[i]), &back, &err), -EPROTO);
	ck_assert_int_eq(rpc_reply_decode(text, strlen(text), &back, &err), 0);
	ck_assert_int_eq(rpc_reply_code(back), 6);
	json_decref(back);
	json_decref(j);
	free(text);
}
END_TEST

/* ---- server ---------------------------------------------------------------------------------------------------------------- */

struct host {
	struct clock clock;
	struct sched *s;
	struct loop *l;
	struct logger log;
	struct rpc_server *srv;
	char name[64];
	unsigned served;
	pid_t child;
};

static void log_none(struct logger *l, enum log_level level, const char *text)
{
	(void)l;
	(void)level;
	(void)text;
}

struct later { struct host *h; struct rpc_call *c; };

/* Answers after a rest: other clients are served meanwhile. */
static void serve_coro(void *arg)
{
	struct later la = *(struct later *)arg;
	const json_t *args = rpc_call_args(la.c);
	json_t *reply = rpc_reply_new("echo");
	json_int_t from = json_integer_value(json_object_get(args, "from")), total = json_integer_value(json_object_get(args, "total"));

	free(arg);
	coro_sleep_ns(la.h->s, 2 * NS_PER_MS);
	if (!strcmp(rpc_call_verb(la.c), "test.list")) {
		for (json_int_t k = from; k < total && k < from + 100; k++)
			rpc_reply_add_take(reply, json_integer(k));
		if (from + 100 < total)
			json_object_set_new(reply, "next", json_integer(from + 100));
	} else if (!strcmp(rpc_call_verb(la.c), "test.huge")) {
		char *huge = malloc(RPC_REPLY_MAX + 1);

		memset(huge, 'x', RPC_REPLY_MAX);
		huge[RPC_REPLY_MAX] = 0;
		rpc_reply_add_take(reply, json_string(huge));
		free(huge);
	} else {
		rpc_reply_add_take(reply, json_deep_copy(args));
		rpc_reply_warn(reply, "as %s asked", "you");
	}
	la.h->served++;
	rpc_call_reply_take(la.c, reply);
}

static void on_request(void *arg, struct rpc_call *c)
{
	struct later *la = malloc(sizeof(*la));

	*la = (struct later){ arg, c };
	ck_assert_int_eq(sched_spawn(((struct host *)arg)->s, "serve", serve_coro, la), 0);
}

static void host_up(struct host *h, uid_t allowed)
{
	struct csv_err err = { 0 };
	struct csv_prng p;

	memset(h, 0, sizeof(*h));
	real_clock_init(&h->clock);
	csv_prng_init(&p, clock_mono_ns(&h->clock) ^ (uint64_t)getpid());
	h->log = (struct logger){ .write = log_none };
	h->s = sched_new(&h->clock);
	ck_assert_int_eq(loop_new(h->s, &h->l, &err), 0);
	snprintf(h->name, sizeof(h->name), "csvfs-test-%016llx", (unsigned long long)csv_prng_u64(&p));
	ck_assert_msg(!rpc_server_new(h->l, &h->log, h->name, allowed, on_request, h, &h->srv, &err), "%s", err.text);
}

static void watch_child(void *arg)
{
	struct host *h = arg;
	int st;

	while (waitpid(h->child, &st, WNOHANG) == 0)
		coro_sleep_ns(h->s, NS_PER_MS);
	h->child = WIFEXITED(st) ? WEXITSTATUS(st) : 200 + WTERMSIG(st);
	loop_stop(h->l);
}

/* Runs the client in a child until it ends; its exit status. */
static int host_run(struct host *h, int (*client)(const char *name))
{
	h->child = fork();
	if (!h->child)
		_exit(client(h->name));
	ck_assert_int_eq(sched_spawn(h->s, "watch", watch_child, h), 0);
	loop_run(h->l);
	return (int)h->child;
}

static void host_down(struct host *h)
{
	rpc_server_free(h->srv);
	loop_free(h->l);
	sched_free(h->s);
}

static int client_echo(const char *name)
{
	json_t *args = json_pack("{s:s}", "volume", "/srv/csv"), *r = NULL;
	struct csv_err err = { 0 };

	for (int i = 0; i < 20; i++) {
		if (rpc_call(name, "test.echo", args, 5000, &r, &err)) {
			fprintf(stderr, "%s\n", err.text);
			return 1;
		}
		if (rpc_reply_code(r) || !json_equal(json_array_get(json_object_get(r, "items"), 0), args))
			return 2;
		json_decref(r);
	}
	return 0;
}

START_TEST(a_call_is_answered_with_what_the_daemon_says)
{
	struct rpc_server_stats st;
	struct host h;

	host_up(&h, geteuid());
	ck_assert_int_eq(host_run(&h, client_echo), 0);
	rpc_server_stats(h.srv, &st);
	ck_assert_uint_eq(h.served, 20);
	ck_assert_uint_eq(st.calls, 20);
	ck_assert_uint_eq(st.bad_requests, 0);
	host_down(&h);
}
END_TEST

static int client_list(const char *name)
{
	json_t *args = json_pack("{s:i}", "total", 1234), *r = NULL, *v;
	struct csv_err err = { 0 };
	size_t i;

	if (rpc_call(name, "test.list", args, 5000, &r, &err))
		return 1;
	if (json_array_size(json_object_get(r, "items")) != 1234 || json_object_get(r, "next"))
		return 2;
	json_array_foreach(json_object_get(r, "items"), i, v)
		if (json_integer_value(v) != (json_int_t)i)
			return 3;
	return 0;
}

START_TEST(a_long_list_comes_in_pages_and_whole)
{
	struct host h;

	host_up(&h, geteuid());
	ck_assert_int_eq(host_run(&h, client_list), 0);
	ck_assert_uint_eq(h.served, 13);
	host_down(&h);
}
END_TEST

static int client_huge(const char *name)
{
	struct csv_err err = { 0 };
	json_t *r = NULL;

	if (rpc_call(name, "test.huge", NULL, 5000, &r, &err))
		return 1;
	return rpc_reply_code(r) == RPC_BUG ? 0 : 2;
}

START_TEST(an_answer_that_is_too_long_is_an_error_not_a_cut)
{
	struct host h;

	host_up(&h, geteuid());
	ck_assert_int_eq(host_run(&h, client_huge), 0);
	host_down(&h);
}
END_TEST

static int client_refused(const char *name)
{
	struct csv_err err = { 0 };
	json_t *r = NULL;

	if (rpc_call(name, "test.echo", NULL, 2000, &r, &err) != -EACCES)
		return 1;
	return strstr(err.text, "run as root") ? 0 : 2;
}

START_TEST(another_user_is_refused_and_counted)
{
	struct rpc_server_stats st;
	struct host h;

	host_up(&h, geteuid() + 1);
	ck_assert_int_eq(host_run(&h, client_refused), 0);
	rpc_server_stats(h.srv, &st);
	ck_assert_uint_eq(st.refused_uid, 1);
	ck_assert_uint_eq(st.calls, 0);
	host_down(&h);
}
END_TEST

/* libqb makes buffers as large as the client says, page by page, on the thread that serves the volume. */
static int client_wants_too_much(const char *name)
{
	qb_ipcc_connection_t *c = qb_ipcc_connect(name, 64u << 20);

	if (c)
		qb_ipcc_disconnect(c);
	return c ? 1 : 0;
}

START_TEST(a_client_that_wants_large_buffers_is_refused)
{
	struct rpc_server_stats st;
	struct host h;

	host_up(&h, geteuid());
	ck_assert_int_eq(host_run(&h, client_wants_too_much), 0);
	rpc_server_stats(h.srv, &st);
	ck_assert_uint_eq(st.refused_many, 1);
	ck_assert_uint_eq(st.connections, 0);
	host_down(&h);
}
END_TEST

/* Not through our client: what it would never send. */
static int raw_send(qb_ipcc_connection_t *c, const void *p, size_t n, char *answer, size_t size)
{
	struct qb_ipc_request_header h = { .size = (int32_t)(sizeof(h) + n) };
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)p, n } };

	return (int)qb_ipcc_sendv_recv(c, iov, 2, answer, size, 3000);
}

static int client_hostile(const char *name)
{
	static const char *const bad_text[] = { "{", "{\"verb\":\"x\"}", "\xff\xfe", "{\"verb\":\"a.b\",\"args\":3}" };
	size_t max = RPC_REPLY_MAX + 4096, n;
	qb_ipcc_connection_t *c = qb_ipcc_connect(name, max);
	char *answer = malloc(max), *big = malloc(RPC_REQUEST_MAX + 1);
	struct csv_err err = { 0 };
	json_t *r;

	if (!c)
		return 1;
	for (size_t i = 0; i < ARRAY_SIZE(bad_text); i++) {
		int got = raw_send(c, bad_text[i], strlen(bad_text[i]), answer, max);

		n = sizeof(struct qb_ipc_response_header);
		if (got <= (int)n || rpc_reply_decode(answer + n, (size_t)got - n, &r, &err))
			return 2;
		if (rpc_reply_code(r) != RPC_USAGE || !strstr(json_string_value(json_object_get(r, "message")), "request:"))
			return 3;
		json_decref(r);
	}
	memset(big, ' ', RPC_REQUEST_MAX + 1);
	if (raw_send(c, big, RPC_REQUEST_MAX + 1, answer, max) >= 0)
		return 4;		/* this one ends the connection */
	qb_ipcc_disconnect(c);
	return client_echo(name);	/* and disturbs nobody */
}

START_TEST(hostile_requests_are_answered_counted_and_disturb_nobody)
{
	struct rpc_server_stats st;
	struct host h;

	host_up(&h, geteuid());
	ck_assert_int_eq(host_run(&h, client_hostile), 0);
	rpc_server_stats(h.srv, &st);
	ck_assert_uint_eq(st.bad_requests, 5);
	ck_assert_uint_eq(h.served, 20);
	ck_assert_uint_eq(rpc_server_open_calls(h.srv), 0);
	host_down(&h);
}
END_TEST

static int client_leaves(const char *name)
{
	struct qb_ipc_request_header h = { 0 };
	qb_ipcc_connection_t *c = qb_ipcc_connect(name, RPC_REPLY_MAX + 4096);
	const char *text = "{\"verb\":\"test.echo\"}";
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)text, strlen(text) } };

	if (!c)
		return 1;
	h.size = (int32_t)(sizeof(h) + strlen(text));
	if (qb_ipcc_sendv(c, iov, 2) < 0)
		return 2;
	_exit(client_echo(name) ? 3 : 0);	/* the first connection never reads its answer and dies with us */
}

START_TEST(a_client_that_leaves_before_its_answer_disturbs_nobody)
{
	struct host h;

	host_up(&h, geteuid());
	ck_assert_int_eq(host_run(&h, client_leaves), 0);
	ck_assert_uint_eq(h.served, 21);
	ck_assert_uint_eq(rpc_server_open_calls(h.srv), 0);
	host_down(&h);
}
END_TEST

START_TEST(nobody_there_is_said_so)
{
	struct csv_err err = { 0 };
	json_t *r = NULL;

	ck_assert_int_eq(rpc_call("csvfs-test-nobody", "test.echo", NULL, 1000, &r, &err), -ECONNREFUSED);
	ck_assert_msg(strstr(err.text, "no daemon") != NULL, "%s", err.text);
}
END_TEST

UNIT_MAIN("rpc", UNIT_TEST(a_request_written_is_read_alike), UNIT_LOOP(what_is_no_request_is_refused_with_the_reason, 0, (int)ARRAY_SIZE(bad)),
	  UNIT_TEST(length_and_depth_are_bounded), UNIT_TEST(random_bytes_are_no_request_and_hurt_nobody),
	  UNIT_TEST(a_reply_that_lacks_something_is_refused), UNIT_TEST(a_call_is_answered_with_what_the_daemon_says),
	  UNIT_TEST(a_long_list_comes_in_pages_and_whole), UNIT_TEST(an_answer_that_is_too_long_is_an_error_not_a_cut),
	  UNIT_TEST(another_user_is_refused_and_counted), UNIT_TEST(a_client_that_wants_large_buffers_is_refused), UNIT_TEST(hostile_requests_are_answered_counted_and_disturb_nobody),
	  UNIT_TEST(a_client_that_leaves_before_its_answer_disturbs_nobody), UNIT_TEST(nobody_there_is_said_so))
