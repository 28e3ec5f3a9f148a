/* SPDX-License-Identifier: GPL-2.0-only */
/* What hvhostd and migratord say to each other, and the lines it travels in. */
#include <errno.h>
#include <string.h>

#include "hvhost/agent.h"
#include "tests/unit/unit.h"

static int feed(struct jline *j, const char *s, struct csv_err *err)
{
	return jline_feed(j, s, strlen(s), err);
}

START_TEST(lines_in_any_pieces_give_the_same_texts)
{
	static const char text[] = "{\"a\":1}\n\r\n{\"b\":\"x\\ny\"}\r\n  {\"c\":{}}\n";
	const size_t len = sizeof(text) - 1;
	size_t step = (size_t)_i, seen = 0;
	struct csv_err err = CSV_ERR_INIT;
	struct jline j;

	jline_init(&j);
	for (size_t at = 0; at < len; at += step) {
		json_t *o;
		int rc;

		ck_assert_int_eq(jline_feed(&j, text + at, csv_min(step, len - at), &err), 0);
		while ((rc = jline_next(&j, &o, &err)) == 1) {
			static const char *const keys[] = { "a", "b", "c" };

			ck_assert_uint_lt(seen, 3);
			ck_assert_ptr_nonnull(json_object_get(o, keys[seen++]));
			json_decref(o);
		}
		ck_assert_msg(rc == 0, "%s", err.text);
	}
	ck_assert_uint_eq(seen, 3);
	jline_done(&j);
}
END_TEST

START_TEST(nonsense_breaks_the_stream_for_ever)
{
	static const char *const bad[] = { "nonsense\n", "[1]\n", "{\"a\":1,\"a\":2}\n", "{\"a\":\n", "{\"a\":\"\\u0000\"}\n", "\x80\n", "{}x\n" };
	struct csv_err err = CSV_ERR_INIT;
	struct jline j;
	json_t *o;

	jline_init(&j);
	ck_assert_int_eq(feed(&j, bad[_i], &err), 0);
	ck_assert_int_eq(jline_next(&j, &o, &err), -EPROTO);
	ck_assert_uint_gt(strlen(err.text), 0);
	ck_assert_int_eq(feed(&j, "{}\n", &err), -EPROTO);
	ck_assert_int_eq(jline_next(&j, &o, &err), -EPROTO);
	jline_done(&j);
}
END_TEST

START_TEST(deep_nesting_is_an_error_and_no_overflow)
{
	struct csv_err err = CSV_ERR_INIT;
	struct jline j;
	json_t *o;

	jline_init(&j);
	for (int i = 0; i < 100000; i++)
		ck_assert_int_eq(feed(&j, "{\"a\":", &err), 0);
	ck_assert_int_eq(feed(&j, "\n", &err), 0);
	ck_assert_int_eq(jline_next(&j, &o, &err), -EPROTO);
	jline_done(&j);
}
END_TEST

START_TEST(a_line_without_end_is_refused_at_one_mib)
{
	struct csv_err err = CSV_ERR_INIT;
	size_t fed = 0;
	struct jline j;
	char block[4096];
	int rc = 0;
	json_t *o;

	memset(block, ' ', sizeof(block));
	jline_init(&j);
	while (!rc && fed < 8u << 20) {
		rc = jline_feed(&j, block, sizeof(block), &err);
		fed += sizeof(block);
		if (!rc)
			rc = jline_next(&j, &o, &err);
	}
	ck_assert_int_eq(rc, -EPROTO);
	ck_assert_uint_le(fed, JLINE_MAX + 2 * sizeof(block));
	ck_assert_uint_le(j.room, 2u << 20);
	jline_done(&j);
}
END_TEST

START_TEST(commands_replies_and_events_come_back_as_they_went)
{
	struct csv_err err = CSV_ERR_INIT;
	struct agent_msg m;
	json_t *o = agent_cmd_new("lease", 17, 0xfedcba9876543210ull, json_pack("{s:s, s:o}", "vm", "web1", "txid", agent_u64(~0ull)));
	const char *vm;
	uint64_t txid;

	ck_assert_int_eq(agent_msg_decode(o, &m, &err), 0);
	ck_assert_int_eq(m.kind, AGENT_CMD);
	ck_assert_str_eq(m.name, "lease");
	ck_assert_uint_eq(m.id, 17);
	ck_assert(m.has_ring);
	ck_assert_uint_eq(m.ring, 0xfedcba9876543210ull);
	ck_assert_int_eq(agent_text(m.body, "vm", 63, &vm, &err), 0);
	ck_assert_str_eq(vm, "web1");
	ck_assert_int_eq(agent_u64_get(m.body, "txid", &txid, &err), 0);
	ck_assert_uint_eq(txid, ~0ull);
	json_decref(o);

	o = agent_reply_new(18, RPC_UNSUPPORTED, "no return-path", NULL);
	ck_assert_int_eq(agent_msg_decode(o, &m, &err), 0);
	ck_assert_int_eq(m.kind, AGENT_REPLY);
	ck_assert_uint_eq(m.id, 18);
	ck_assert_int_eq(m.code, 12);
	ck_assert_str_eq(m.message, "no return-path");
	ck_assert_uint_eq(json_object_size(m.body), 0);
	json_decref(o);

	o = agent_event_new("vm", 3, 81234, json_pack("{s:s}", "vm", "db"));
	ck_assert_int_eq(agent_msg_decode(o, &m, &err), 0);
	ck_assert_int_eq(m.kind, AGENT_EVENT);
	ck_assert_str_eq(m.name, "vm");
	ck_assert_uint_eq(m.id, 3);
	json_decref(o);
}
END_TEST

START_TEST(wrong_envelopes_are_refused_by_field)
{
	static const struct { const char *text, *field; } bad[] = {
		{ "{}", "neither" }, { "{\"cmd\":1,\"id\":1}", "cmd" }, { "{\"cmd\":\"\",\"id\":1}", "cmd" }, { "{\"cmd\":\"x\"}", "id" },
		{ "{\"cmd\":\"x\",\"id\":-1}", "id" }, { "{\"cmd\":\"x\",\"id\":1,\"ring\":5}", "ring" },
		{ "{\"cmd\":\"x\",\"id\":1,\"ring\":\"00000000000000zz\"}", "ring" }, { "{\"cmd\":\"x\",\"id\":1,\"ring\":\"0\"}", "ring" },
		{ "{\"cmd\":\"x\",\"id\":1,\"args\":[]}", "args" }, { "{\"reply\":\"1\",\"code\":0}", "reply" },
		{ "{\"reply\":1,\"code\":256}", "code" }, { "{\"reply\":1,\"code\":0,\"message\":1}", "message" },
		{ "{\"reply\":1,\"code\":0,\"data\":\"\"}", "data" }, { "{\"event\":\"x\"}", "seq" }, { "{\"event\":{},\"seq\":1}", "event" },
	};
	struct csv_err err = CSV_ERR_INIT;
	json_t *o = json_loads(bad[_i].text, 0, NULL);
	struct agent_msg m;

	ck_assert_ptr_nonnull(o);
	ck_assert_int_eq(agent_msg_decode(o, &m, &err), -EPROTO);
	ck_assert_msg(strstr(err.text, bad[_i].field) != NULL, "%s: %s", bad[_i].text, err.text);
	json_decref(o);
}
END_TEST

START_TEST(names_of_vms_cannot_leave_their_folder)
{
	static const char *const bad[] = { "", ".", "..", ".raw", "-v", "a/b", "a b", "a\n", "\xc3\xa4", "x\"y",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(!agent_vm_name_valid(bad[i]), "'%s' is taken", bad[i]);
	ck_assert(agent_vm_name_valid("web-1_a.b"));
	ck_assert(agent_vm_name_valid("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}
END_TEST

UNIT_MAIN("agent", UNIT_LOOP(lines_in_any_pieces_give_the_same_texts, 1, 42), UNIT_LOOP(nonsense_breaks_the_stream_for_ever, 0, 7),
	  UNIT_TEST(deep_nesting_is_an_error_and_no_overflow), UNIT_TEST(a_line_without_end_is_refused_at_one_mib),
	  UNIT_TEST(commands_replies_and_events_come_back_as_they_went), UNIT_LOOP(wrong_envelopes_are_refused_by_field, 0, 15),
	  UNIT_TEST(names_of_vms_cannot_leave_their_folder))
