/* SPDX-License-Identifier: GPL-2.0-only */
/* The monitor's client against a scripted server in this process, and against rubbish. */
#include <errno.h>
#include <string.h>

#include "hvhost/jline.h"
#include "hvhost/qmp.h"
#include "tests/unit/unit.h"
#include "utils/base/prng.h"

static const char greeting[] = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \"package\": \"Debian\"}, "
			       "\"capabilities\": [\"oob\"]}}\r\n";

struct side {
	struct qmp *q;
	unsigned ready, broken, events, done;
	char last_event[64], why[480];
	uint64_t stamp;
	int64_t data_n;
};
struct one { struct qmp_cmd c; struct side *s; int64_t got; int result; char text[480]; unsigned times; };

static void on_ready(void *arg) { ((struct side *)arg)->ready++; }
static void on_broken(void *arg, const struct csv_err *err)
{
	struct side *s = arg;

	s->broken++;
	strcpy(s->why, err->text);
}
static void on_event(void *arg, const char *name, const json_t *data, uint64_t stamp_us)
{
	struct side *s = arg;

	s->events++;
	snprintf(s->last_event, sizeof(s->last_event), "%s", name);
	s->stamp = stamp_us;
	s->data_n = json_integer_value(json_object_get(data, "n"));
}
static void on_done(struct qmp_cmd *c)
{
	struct one *o = container_of(c, struct one, c);

	o->times++;
	o->s->done++;
	o->result = c->result;
	o->got = json_integer_value(json_object_get(c->ret, "n"));
	strcpy(o->text, c->err.text);
}

static void side_open(struct side *s)
{
	struct qmp_events ev = { on_ready, on_event, on_broken, NULL, s };

	*s = (struct side){ .q = qmp_new(&ev) };
	ck_assert_ptr_nonnull(s->q);
}

static void say(struct side *s, const char *text)
{
	qmp_feed(s->q, text, strlen(text));
}

static struct one *give(struct side *s, struct one *o, const char *command, json_t *args)
{
	*o = (struct one){ .s = s, .c.done = on_done };
	ck_assert_int_eq(qmp_execute(s->q, &o->c, command, args), 0);
	return o;
}

/* What the client wants to send, taken away. */
static size_t take(struct side *s, char *ret, size_t room)
{
	const char *p;
	size_t n = qmp_out(s->q, &p);

	ck_assert_uint_lt(n, room);
	memcpy(ret, p, n);
	ret[n] = '\0';
	qmp_out_sent(s->q, n);
	return n;
}

static void side_ready(struct side *s)
{
	char buf[256];

	side_open(s);
	say(s, greeting);
	ck_assert_uint_gt(take(s, buf, sizeof(buf)), 0);
	ck_assert_ptr_nonnull(strstr(buf, "qmp_capabilities"));
	say(s, "{\"return\": {}, \"id\": 0}\r\n");
	ck_assert_uint_eq(s->ready, 1);
	ck_assert_int_eq(qmp_state(s->q), QMP_READY);
}

START_TEST(commands_given_before_the_greeting_go_out_after_negotiation)
{
	struct side s;
	struct one a, b;
	unsigned v[3];
	char buf[512];

	side_open(&s);
	give(&s, &a, "query-status", NULL);
	ck_assert_uint_eq(take(&s, buf, sizeof(buf)), 0);
	say(&s, greeting);
	give(&s, &b, "cont", NULL);
	take(&s, buf, sizeof(buf));
	ck_assert_ptr_nonnull(strstr(buf, "qmp_capabilities"));
	ck_assert_ptr_null(strstr(buf, "query-status"));
	say(&s, "{\"return\": {}, \"id\": 0}\n");
	take(&s, buf, sizeof(buf));
	ck_assert_ptr_nonnull(strstr(buf, "query-status"));
	ck_assert(strstr(buf, "query-status") < strstr(buf, "cont"));
	qmp_version(s.q, v);
	ck_assert_uint_eq(v[0] * 10000 + v[1] * 100 + v[2], 70222);
	qmp_free(s.q);
	ck_assert_uint_eq(a.times + b.times, 2);
	ck_assert_int_eq(a.result, -EPIPE);
}
END_TEST

START_TEST(answers_in_any_order_and_any_pieces_reach_their_command)
{
	static const char script[] = "{\"event\":\"STOP\",\"timestamp\":{\"seconds\":1700000000,\"microseconds\":42},\"data\":{\"n\":9}}\r\n"
				     "{\"return\":{\"n\":2},\"id\":2}\r\n{\"error\":{\"class\":\"GenericError\",\"desc\":\"no such\"},\"id\":3}\n"
				     "{\"return\":{\"n\":1},\"id\":1}\n{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"what\"},\"id\":4}\n"
				     "{\"event\":\"RESUME\",\"timestamp\":{\"seconds\":-1,\"microseconds\":-1}}\n";
	size_t step = (size_t)_i;
	struct one o[4];
	struct side s;
	char buf[1024];

	side_ready(&s);
	for (int i = 0; i < 4; i++)
		give(&s, &o[i], "query-status", json_pack("{s:i}", "x", i));
	take(&s, buf, sizeof(buf));
	for (size_t at = 0; at < sizeof(script) - 1; at += step)
		qmp_feed(s.q, script + at, csv_min(step, sizeof(script) - 1 - at));
	ck_assert_uint_eq(s.broken, 0);
	ck_assert_int_eq(o[0].got, 1);
	ck_assert_int_eq(o[1].got, 2);
	ck_assert_int_eq(o[2].result, -EREMOTEIO);
	ck_assert_ptr_nonnull(strstr(o[2].text, "no such"));
	ck_assert_int_eq(o[3].result, -EOPNOTSUPP);
	ck_assert_uint_eq(s.done, 4);
	ck_assert_uint_eq(s.events, 2);
	ck_assert_str_eq(s.last_event, "RESUME");
	ck_assert_uint_eq(s.stamp, 0);
	qmp_free(s.q);
	ck_assert_uint_eq(s.done, 4);
}
END_TEST

START_TEST(a_break_ends_every_command_once_and_says_why)
{
	static const char *const bad[] = {
		"rubbish\n", "[]\n", "{}\n", "{\"return\":{}}\n", "{\"return\":{},\"id\":77}\n", "{\"return\":{},\"id\":\"1\"}\n",
		"{\"event\":7}\n", "{\"event\":\"\"}\n", "{\"event\":\"X\",\"data\":3}\n", "{\"error\":{\"desc\":\"JSON parse error\"}}\n",
		"{\"id\":1}\n", "{\"return\":{},\"id\":0}\n",
	};
	struct one a, b;
	struct side s;

	side_ready(&s);
	give(&s, &a, "stop", NULL);
	give(&s, &b, "cont", NULL);
	say(&s, bad[_i]);
	ck_assert_msg(s.broken == 1, "%s did not break it", bad[_i]);
	ck_assert_uint_gt(strlen(s.why), 8);
	ck_assert_int_eq(a.result, -EPIPE);
	ck_assert_int_eq(b.result, -EPIPE);
	ck_assert_uint_eq(a.times + b.times, 2);
	ck_assert_int_eq(qmp_execute(s.q, &a.c, "cont", NULL), -EPIPE);
	say(&s, "{\"return\":{},\"id\":2}\n");
	qmp_break(s.q, "again");
	ck_assert_uint_eq(s.broken, 1);
	ck_assert_uint_eq(s.done, 2);
	qmp_free(s.q);
}
END_TEST

START_TEST(a_greeting_that_is_none_breaks_it)
{
	static const char *const bad[] = {
		"{\"return\":{},\"id\":0}\n", "{\"QMP\":{}}\n", "{\"event\":\"STOP\"}\n", "SSH-2.0-OpenSSH\r\n",
		"{\"QMP\":{\"version\":{\"qemu\":{\"major\":\"7\",\"minor\":2,\"micro\":0}}}}\n",
		"{\"QMP\":{\"version\":{\"qemu\":{\"major\":7,\"minor\":2,\"micro\":-1}}}}\n",
	};
	struct side s;

	side_open(&s);
	say(&s, bad[_i]);
	ck_assert_uint_eq(s.broken, 1);
	qmp_free(s.q);
}
END_TEST

START_TEST(refused_negotiation_breaks_it)
{
	struct side s;

	side_open(&s);
	say(&s, greeting);
	say(&s, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"},\"id\":0}\n");
	ck_assert_uint_eq(s.broken, 1);
	ck_assert_uint_eq(s.ready, 0);
	qmp_free(s.q);
}
END_TEST

START_TEST(a_flood_is_bounded)
{
	struct csv_err err = CSV_ERR_INIT;
	struct side s;
	char *flood = malloc(3 << 20);

	(void)err;
	memset(flood, '{', 3 << 20);
	side_ready(&s);
	qmp_feed(s.q, flood, 3 << 20);
	ck_assert_uint_eq(s.broken, 1);
	ck_assert_ptr_nonnull(strstr(s.why, "1 MiB"));
	qmp_free(s.q);
	free(flood);
}
END_TEST

START_TEST(open_commands_are_bounded_and_abandoned_ones_end_in_silence)
{
	struct one *o = calloc(QMP_OPEN_MAX + 1, sizeof(*o));
	char text[64];
	struct side s;

	side_ready(&s);
	for (unsigned i = 0; i < QMP_OPEN_MAX; i++)
		give(&s, &o[i], "query-status", NULL);
	o[QMP_OPEN_MAX].c.done = on_done;
	ck_assert_int_eq(qmp_execute(s.q, &o[QMP_OPEN_MAX].c, "cont", NULL), -EBUSY);
	qmp_abandon(&o[3].c);
	qmp_abandon(&o[3].c);
	for (unsigned i = 0; i < QMP_OPEN_MAX; i++) {
		snprintf(text, sizeof(text), "{\"return\":{\"n\":%u},\"id\":%u}\n", i, i + 1);
		say(&s, text);
	}
	ck_assert_uint_eq(s.broken, 0);
	ck_assert_uint_eq(s.done, QMP_OPEN_MAX - 1);
	ck_assert_uint_eq(o[3].times, 0);
	ck_assert_int_eq(o[63].got, 63);
	give(&s, &o[QMP_OPEN_MAX], "cont", NULL);
	qmp_abandon(&o[QMP_OPEN_MAX].c);
	qmp_free(s.q);
	ck_assert_uint_eq(o[QMP_OPEN_MAX].times, 0);
	free(o);
}
END_TEST

/* Any mutilation of a good session ends in READY or BROKEN, every command ended at most once, and nothing is touched twice. */
START_TEST(bit_flips_of_a_good_session_never_end_a_command_twice)
{
	static const char rest[] = "{\"return\": {}, \"id\": 0}\r\n{\"event\":\"STOP\",\"timestamp\":{\"seconds\":1,\"microseconds\":2}}\r\n"
				   "{\"return\":{\"n\":1},\"id\":1}\r\n{\"return\":{\"n\":2},\"id\":2}\r\n";
	struct csv_prng rnd;
	unsigned broken = 0;

	csv_prng_init(&rnd, (uint64_t)_i + 1);
	for (int round = 0; round < 300; round++) {
		char text[sizeof(greeting) + sizeof(rest)];
		size_t n = (size_t)snprintf(text, sizeof(text), "%s%s", greeting, rest);
		unsigned flips = 1 + csv_prng_u64(&rnd) % 3;
		struct one a, b;
		struct side s;

		while (flips--)
			text[csv_prng_u64(&rnd) % n] ^= (char)(1u << csv_prng_u64(&rnd) % 8);
		side_open(&s);
		give(&s, &a, "stop", NULL);
		give(&s, &b, "cont", NULL);
		for (size_t at = 0, part; at < n; at += part) {
			part = csv_min(n - at, (size_t)(1 + csv_prng_u64(&rnd) % 60));
			qmp_feed(s.q, text + at, part);
		}
		broken += s.broken;
		ck_assert_uint_le(s.broken, 1);
		qmp_free(s.q);
		ck_assert_uint_eq(a.times, 1);
		ck_assert_uint_eq(b.times, 1);
	}
	ck_assert_uint_gt(broken, 30);
}
END_TEST

UNIT_MAIN("qmp", UNIT_TEST(commands_given_before_the_greeting_go_out_after_negotiation),
	  UNIT_LOOP(answers_in_any_order_and_any_pieces_reach_their_command, 1, 80), UNIT_LOOP(a_break_ends_every_command_once_and_says_why, 0, 12),
	  UNIT_LOOP(a_greeting_that_is_none_breaks_it, 0, 6), UNIT_TEST(refused_negotiation_breaks_it), UNIT_TEST(a_flood_is_bounded),
	  UNIT_TEST(open_commands_are_bounded_and_abandoned_ones_end_in_silence),
	  UNIT_LOOP(bit_flips_of_a_good_session_never_end_a_command_twice, 0, 8))
