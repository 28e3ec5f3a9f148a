/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * test_dlm_members.c - more of what a broken member can send to a lock manager: names of any bytes, ids that are over, the same thing
 * twice, recovery's marks out of turn, and floods, whose cost is measured.
 */
#include <malloc.h>

#include "tests/unit/dlm_fake.h"

/* Of the view that node 2 has: the first to be told. */
static size_t make(struct dw *d, uint8_t *buf, const struct dlm_msg *m)
{
	return dlm_msg_encode(m, d->n[2].dlm->view.ring, buf);
}

/* As node `from`, to node 1.  Returns how many were counted as bad, and as stale in *ret_stale. */
static uint64_t say(struct dw *d, unsigned from, const struct dlm_msg *m, uint64_t *ret_stale)
{
	uint64_t bad = d->n[1].dlm->st.bad_messages, stale = d->n[1].dlm->st.stale_messages;
	uint8_t buf[512];

	ck_assert_int_eq(mesh_send(d->n[from].env->mesh, 1, CHAN_DLM, buf, make(d, buf, m)), 0);
	dw_run_ms(d, 20);
	*ret_stale = d->n[1].dlm->st.stale_messages - stale;
	return d->n[1].dlm->st.bad_messages - bad;
}

static struct dlm_msg about(uint8_t type, const char *name)
{
	struct dlm_msg m = { .type = type };

	m.name.len = strlen(name);
	memcpy(m.name.b, name, m.name.len);
	return m;
}

START_TEST(names_of_any_bytes_are_names_and_all_different)
{
	static const struct { uint8_t len; const char *b; } names[] = {
		{ 1, "\0" }, { 2, "\0\0" }, { 3, "a\0b" }, { 3, "a\0c" }, { 1, "a" }, { 2, "a\0" }, { 1, "/" }, { 5, "../.." },
		{ 2, "\xff\xfe" }, { 3, "\xed\xa0\x80" }, { 1, "\n" }, { 4, "\x1b[2J" }, { 32, "0123456789abcdef0123456789abcdef" },
		{ 31, "0123456789abcdef0123456789abcdef" },
	};
	struct dw *d = dw_new(3);
	struct dw_lock x[ARRAY_SIZE(names)], y[ARRAY_SIZE(names)];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		memset(&x[i], 0, sizeof(x[i]));
		dlm_lock_init(d->n[1].dlm, &x[i].l, names[i].b, names[i].len);
		x[i].l.done = dw_done;
		x[i].l.bast = dw_bast;
		x[i].l.arg = &x[i];
		y[i] = x[i];
		dlm_lock_init(d->n[2].dlm, &y[i].l, names[i].b, names[i].len);
		y[i].l.arg = &y[i];
		ck_assert_msg(dw_lock(d, 1, &x[i], DLM_EX, 0), "name %zu collides with an earlier one", i);
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		ck_assert_msg(!dw_lock(d, 2, &y[i], DLM_PR, 0), "name %zu is not known as locked elsewhere", i);
		dw_down_to(d, 1, &x[i], DLM_NL);
		ck_assert_int_eq(y[i].l.granted, DLM_PR);
	}
	ck_assert_uint_eq(d->n[1].dlm->st.bad_messages + d->n[2].dlm->st.bad_messages + d->n[3].dlm->st.bad_messages, 0);
	dw_free(d);
}
END_TEST

START_TEST(an_id_that_is_over_or_never_was_gives_nothing_up)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y;
	struct dlm_msg m = about(DLM_M_DOWN, "r");
	uint64_t old, now, stale;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_PR, 0));
	ck_assert(dw_lock(d, 2, &y, DLM_PR, 0));
	old = ((struct dlm_client *)y.l.priv)->reqid;
	dw_down_to(d, 2, &y, DLM_NL);
	ck_assert(dw_lock(d, 2, &y, DLM_PR, 0));
	now = ((struct dlm_client *)y.l.priv)->reqid;
	ck_assert_uint_ne(old, now);
	for (int type = 0; type < 2; type++) {
		uint64_t ids[] = { 0, old, now + 1, now + 1000, UINT64_MAX, ((struct dlm_client *)x.l.priv)->reqid ^ now };

		m.type = type ? DLM_M_CANCEL : DLM_M_DOWN;
		for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
			uint64_t bad;

			if (ids[i] == now)
				continue;
			m.reqid = ids[i];
			bad = say(d, 2, &m, &stale);
			ck_assert_msg(bad + stale == 1, "id %zu of type %d was not counted", i, type);
		}
	}
	/* It is still held: an EX waits for it. */
	dw_down_to(d, 1, &x, DLM_NL);
	ck_assert(!dw_lock(d, 1, &x, DLM_EX, 0));
	dw_down_to(d, 2, &y, DLM_NL);
	ck_assert_int_eq(x.l.granted, DLM_EX);
	dw_free(d);
}
END_TEST

START_TEST(an_answer_twice_is_one_answer)
{
	static const uint8_t types[] = { DLM_M_GRANT, DLM_M_REFUSED, DLM_M_QUEUED, DLM_M_RETRY, DLM_M_CANCELLED };
	struct dw *d = dw_new(3);
	struct dw_lock x, y;
	struct dlm_msg m;
	uint64_t stale;

	dw_init(d, 3, &y, "r");
	dw_init(d, 1, &x, "r");
	ck_assert(dw_lock(d, 3, &y, DLM_PR, 0));
	ck_assert(dw_lock(d, 1, &x, DLM_PR, 0));
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		uint64_t bad;

		m = about(types[i], "r");
		m.mode = types[i] == DLM_M_GRANT ? DLM_PR : 0;
		m.reqid = ((struct dlm_client *)x.l.priv)->reqid;
		bad = say(d, 3, &m, &stale);
		ck_assert_msg(bad + stale >= 1, "type %u was taken", types[i]);
		ck_assert_int_eq(x.done, 1);
		ck_assert_int_eq(x.l.granted, DLM_PR);
		ck_assert(!x.l.busy);
	}
	dw_free(d);
}
END_TEST

START_TEST(recovery_goes_on_when_a_member_says_its_marks_twice)
{
	struct dw *d = dw_new(3);
	struct dw_lock x;
	uint8_t *buf = malloc(MESH_MSG_MAX);
	struct csv_cursor c;
	uint64_t bad;

	dw_init(d, 1, &x, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	bad = d->n[1].dlm->st.bad_messages;
	for (unsigned round = 0; round <= 5; round++) {
		enum dlm_state at = round < 2 ? DLM_S_AGREE : dlm_type_state(DLM_M_END, round);

		if (round == 1)
			continue;
		sim_net_token_loss(d->net, 1);
		for (int i = 0; i < 200000 && d->n[2].dlm->state != at; i++)
			sim_world_step(d->w);
		ck_assert_int_eq(d->n[2].dlm->state, at);
		/* Twice what it will say once or has said: at least one of them is too many. */
		for (int twice = 0; twice < 2; twice++) {
			csv_cursor_init(&c, buf, MESH_MSG_MAX);
			dlm_header_encode(&c, round ? DLM_M_END : DLM_M_STATE, round, d->n[2].dlm->view.ring);
			if (!round)
				dlm_past_encode(&c, &d->n[2].dlm->past);
			dlm_header_finish(&c);
			ck_assert_int_eq(mesh_send(d->n[2].env->mesh, 1, CHAN_DLM, buf, csv_cur_used(&c)), 0);
		}
		dw_run_ms(d, 2000);
		ck_assert_msg(d->n[1].dlm->st.bad_messages > bad, "round %u twice was not counted", round);
		bad = d->n[1].dlm->st.bad_messages;
		for (unsigned n = 1; n <= 3; n++)
			ck_assert_msg(dlm_is_recovered(d->n[n].dlm), "node %u does not run after round %u twice", n, round);
		ck_assert_int_eq(x.l.granted, DLM_EX);
	}
	free(buf);
	dw_free(d);
}
END_TEST

/*
 * Node 2 asks for what it does not want: the directory makes it master, and it is none.  Who asks next must not be sent to it for ever
 * (forwarded by the directory node, sent back by the master, forwarded ...).
 */
START_TEST(who_is_made_master_without_having_asked_says_so)
{
	struct dw *d = dw_new(3);
	struct dlm_msg m;
	struct dw_lock y;
	uint64_t sent, stale;
	char name[16];

	for (int dir2 = 2; dir2 <= 3; dir2++) {
		dw_name(d, 1, (uint32_t)dir2, name);
		m = about(DLM_M_REQUEST, name);
		m.mode = DLM_EX;
		m.flags = DLM_F_DIR;
		m.reqid = 12345;
		say(d, 2, &m, &stale);
		dw_init(d, 3, &y, name);
		sent = dw_messages(d);
		ck_assert_msg(dw_lock(d, 3, &y, DLM_EX, 0), "%s is locked for ever", name);
		ck_assert_msg(dw_messages(d) - sent < 20, "%lu messages for one lock", (unsigned long)(dw_messages(d) - sent));
		dw_down_to(d, 3, &y, DLM_NL);
		dlm_lock_done(d->n[3].dlm, &y.l);
	}
	dw_free(d);
}
END_TEST

/* ---- floods ----------------------------------------------------------------------------------------------------------------------- */

#define FLOOD 100000u
#define LIMIT 500u
#define BATCH 2000u	/* on the way at once: node 2 says of each that it is not its master, and is believed */

static size_t heap(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

START_TEST(a_hundred_thousand_names_cost_no_more_than_the_limit)
{
	struct dw *d = dw_new_cfg(2, 1, (struct dlm_config){ .peer_locks_max = LIMIT });
	struct dlm_msg m = { .type = DLM_M_REQUEST, .mode = DLM_PR, .flags = DLM_F_DIR };
	struct dw_lock own;
	size_t before = heap(), after, peak = 0;
	uint32_t records = 0;
	uint8_t buf[512];

	for (uint32_t i = 0; i < FLOOD; i++) {
		memset(&m.name, 0, sizeof(m.name));
		m.name.len = snprintf((char *)m.name.b, sizeof(m.name.b), "flood%u", i);
		m.reqid = i + 1;
		ck_assert_int_eq(mesh_send(d->n[2].env->mesh, 1, CHAN_DLM, buf, make(d, buf, &m)), 0);
		for (uint32_t k = 0; i % BATCH == BATCH - 1 && k < 40; k++) {
			dw_run_ms(d, 1);
			records = csv_max(records, d->n[1].dlm->peer[1].records);
			peak = csv_max(peak, heap());
		}
	}
	dw_run_ms(d, 2000);
	after = heap();
	printf("flood: %u requests, %u at once, limit %u: at most %u names known here, at most %zu bytes more, %zu afterwards\n", FLOOD, BATCH, LIMIT,
	       records, peak > before ? peak - before : 0, after > before ? after - before : 0);
	ck_assert_uint_eq(records, LIMIT);	/* the limit was met, and kept */
	/* both nodes live in this process: what is on the way, the directory's records, what the other made of the answers */
	ck_assert_uint_le(peak, before + (size_t)BATCH * 2048 + LIMIT * 1024);
	ck_assert_uint_le(after, before + (size_t)LIMIT * 1024);
	dw_init(d, 1, &own, "own");
	ck_assert(dw_lock(d, 1, &own, DLM_EX, 0));
	dw_free(d);
}
END_TEST

START_TEST(what_comes_before_its_time_is_kept_up_to_a_limit_and_recovery_goes_on)
{
	struct dw *d = dw_new_cfg(3, 1, (struct dlm_config){ .held_bytes_max = 256 << 10 });
	struct dlm_msg m = about(DLM_M_REQUEST, "r");
	uint64_t bad = d->n[1].dlm->st.bad_messages;
	struct dw_lock x, y;
	size_t most = 0;
	uint8_t buf[512];

	dw_init(d, 1, &x, "x");
	dw_init(d, 3, &y, "x");
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	m.mode = DLM_PR;
	sim_net_token_loss(d->net, 1);
	for (int i = 0; i < 200000 && d->n[2].dlm->state != DLM_S_AGREE; i++)
		sim_world_step(d->w);
	ck_assert_int_eq(d->n[2].dlm->state, DLM_S_AGREE);
	for (unsigned i = 0; i < 20000; i++) {
		m.reqid = i;
		ck_assert_int_eq(mesh_send(d->n[2].env->mesh, 1, CHAN_DLM, buf, make(d, buf, &m)), 0);
	}
	for (int i = 0; i < 2000000 && !dlm_is_recovered(d->n[1].dlm); i++) {
		sim_world_step(d->w);
		most = csv_max(most, d->n[1].dlm->held_bytes);
	}
	dw_run_ms(d, 2000);
	for (unsigned n = 1; n <= 3; n++)
		ck_assert_msg(dlm_is_recovered(d->n[n].dlm), "node %u does not run", n);
	printf("flood before its time: at most %zu bytes kept\n", most);
	ck_assert_uint_gt(d->n[1].dlm->st.bad_messages, bad);
	ck_assert_uint_gt(most, 128 << 10);
	ck_assert_uint_le(most, 256 << 10);
	ck_assert_uint_eq(d->n[1].dlm->held_bytes, 0);
	ck_assert(!dw_lock(d, 3, &y, DLM_PR, 0));
	dw_down_to(d, 1, &x, DLM_NL);
	ck_assert_int_eq(y.l.granted, DLM_PR);
	dw_free(d);
}
END_TEST

UNIT_MAIN("dlm_members", UNIT_TEST(names_of_any_bytes_are_names_and_all_different),
	  UNIT_TEST(an_id_that_is_over_or_never_was_gives_nothing_up), UNIT_TEST(an_answer_twice_is_one_answer),
	  UNIT_TEST(recovery_goes_on_when_a_member_says_its_marks_twice),
	  UNIT_TEST(who_is_made_master_without_having_asked_says_so),
	  UNIT_SLOW(a_hundred_thousand_names_cost_no_more_than_the_limit, 0, 1, 120),
	  UNIT_TEST(what_comes_before_its_time_is_kept_up_to_a_limit_and_recovery_goes_on))
