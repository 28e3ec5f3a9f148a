/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * test_dlm_hostile.c - what a broken or malicious member can send to the lock manager: counted with a reason, nothing else disturbed.
 * (Lockspace, sender, view and incarnation of a message are the mesh's and tested there.)
 */
#include <errno.h>

#include "tests/unit/dlm_fake.h"
#include "utils/base/prng.h"

/* ---- decoders ---------------------------------------------------------------------------------------------------------------- */

static size_t make(struct dw *d, uint8_t *buf, const struct dlm_msg *m)
{
	return dlm_msg_encode(m, d ? d->n[1].dlm->view.ring : (struct ring_id){ 3, 77 }, buf);
}

static struct dlm_msg sample(uint8_t type)
{
	struct dlm_msg m = { .type = type, .name = { .len = 5, .b = "hello" }, .reqid = 0x1122334455667788, .gen = 0x99aabbccddeeff00,
			     .node = 2 };

	if (type == DLM_M_REQUEST || type == DLM_M_GRANT || type == DLM_M_REPORT)
		m.mode = DLM_PW;
	if (type == DLM_M_GRANT || type == DLM_M_DOWN || type == DLM_M_REPORT) {
		m.flags = DLM_F_LVB;
		m.lvb_seq = 42;
		for (int i = 0; i < DLM_LVB_LEN; i++)
			m.lvb[i] = i;
	}
	return m;
}

static const char *decode(const void *buf, size_t len, struct dlm_msg *ret_m)
{
	struct dlm_header h;
	struct csv_cursor c;
	const char *wrong = dlm_header_decode(buf, len, &c, &h);

	if (!wrong)
		wrong = dlm_body_decode(&c, h.type, ret_m);
	if (!wrong && csv_cur_left(&c))
		wrong = "longer than its content";
	return wrong;
}

START_TEST(every_service_message_survives_the_wire)
{
	for (uint8_t t = DLM_M_REQUEST; t < DLM_M_SERVICE_END; t++) {
		struct dlm_msg m = sample(t), back;
		uint8_t buf[512];
		size_t len;

		if (t == DLM_M_FORWARD || t == DLM_M_BACK || t == DLM_M_BAST || t == DLM_M_CONVERT)
			m.mode = DLM_CW;
		if (t == DLM_M_PROBE || t == DLM_M_CHASE) {
			m.probe.owner = 0x1112131415161718;
			m.probe.reqid = 0x2122232425262728;
			m.probe.path = 0x3132333435363738;
			m.probe.round = 0x41424344;
			m.probe.hops = 0x51;
		}
		len = make(NULL, buf, &m);
		ck_assert_ptr_null(decode(buf, len, &back));
		ck_assert_mem_eq(&m, &back, sizeof(m));
	}
}
END_TEST

START_TEST(every_cut_is_refused)
{
	struct dlm_msg m = sample(DLM_M_GRANT), back;
	uint8_t buf[512];
	size_t len = make(NULL, buf, &m);

	for (size_t n = 0; n < len; n++) {
		ck_assert_ptr_nonnull(decode(buf, n, &back));
		/* also when its length field agrees */
		*(struct le32 *)(buf + 4) = le32_of(n);
		ck_assert_msg(decode(buf, n, &back), "cut to %zu of %zu", n, len);
		*(struct le32 *)(buf + 4) = le32_of(len);
	}
}
END_TEST

struct bad { const char *what; size_t off; uint8_t value; };

START_TEST(every_field_out_of_range_is_refused)
{
	static const struct bad bad[] = {
		{ "version 0", 0, 0 }, { "newer version", 0, 2 }, { "type 0", 1, 0 }, { "unknown type", 1, 31 }, { "unknown type", 1, 255 },
		{ "round", 2, 1 }, { "reserved", 3, 1 }, { "length too small", 4, 0 }, { "length too large", 5, 0xff },
		{ "length 2^31", 7, 0x80 }, { "mode 6", 20, 6 }, { "mode 255", 20, 255 }, { "mode NL", 20, 0 }, { "flag", 21, 0x80 },
		{ "value flag where none may be", 21, DLM_F_LVB }, { "name length 0", 22, 0 }, { "name length 33", 22, 33 },
		{ "name length 255", 22, 255 }, { "name longer than the message", 22, 32 }, { "name shorter: bytes left over", 22, 4 },
	};
	struct dlm_msg m = sample(DLM_M_REQUEST), back;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t buf[512];
		size_t len = make(NULL, buf, &m);

		buf[bad[i].off] = bad[i].value;
		ck_assert_msg(decode(buf, len, &back), "%s was taken", bad[i].what);
	}
}
END_TEST

START_TEST(a_byte_swapped_message_is_refused)
{
	struct dlm_msg m = sample(DLM_M_REQUEST), back;
	uint8_t buf[512], t;
	size_t len = make(NULL, buf, &m);

	for (int i = 0; i < 2; i++) {
		t = buf[4 + i];
		buf[4 + i] = buf[7 - i];
		buf[7 - i] = t;
	}
	ck_assert_ptr_nonnull(decode(buf, len, &back));
}
END_TEST

START_TEST(random_bytes_never_get_out_of_bounds)
{
	struct dlm_past *p = calloc(1, sizeof(*p));
	struct csv_prng prng;

	csv_prng_init(&prng, 1 + _i);
	for (int i = 0; i < 20000; i++) {
		size_t len = csv_prng_below(&prng, 400);
		uint8_t *buf = malloc(len ? len : 1);		/* exact, for the sanitizer */
		struct csv_cursor c;
		struct dlm_msg m;

		csv_prng_bytes(&prng, buf, len);
		decode(buf, len, &m);
		csv_cursor_init_ro(&c, buf, len);
		dlm_body_decode(&c, csv_prng_below(&prng, 70), &m);
		for (size_t k = 0; k < len; k += 4)		/* counts that are nearly right */
			buf[k] &= 3, buf[k + 1 < len ? k + 1 : k] = 0;
		csv_cursor_init_ro(&c, buf, len);
		dlm_past_decode(&c, p);
		free(buf);
	}
	free(p);
}
END_TEST

START_TEST(past_survives_the_wire_and_its_counts_are_bounded)
{
	static uint8_t buf[MESH_MSG_MAX];
	struct dlm_past *p = calloc(1, sizeof(*p)), *q = calloc(1, sizeof(*q));
	struct csv_cursor c;
	size_t len;

	p->n_cand = 1;
	p->cand[0] = (struct cluster_view){ .ring = { 2, 1 << 30 }, .n = 2, .m = { { 1, 10 }, { 2, 20 } } };
	p->n_amnesia = 2;
	p->amnesia[0] = (struct dlm_amnesia){ .ring = { 1, 7 }, .n = 2, .m = { { 1, 10 }, { 2, 20 } }, .gone = 3, .n_suspect = 1,
					      .suspect = { { 1, 10 } } };
	p->amnesia[1] = (struct dlm_amnesia){ .n_suspect = CLUSTER_NODES_MAX + 1 };
	dlm_lost_set(&p->lost, (struct cluster_node){ 1, 10 }, DLM_FENCED);
	csv_cursor_init(&c, buf, sizeof(buf));
	dlm_past_encode(&c, p);
	len = csv_cur_used(&c);
	csv_cursor_init_ro(&c, buf, len);
	ck_assert_ptr_null(dlm_past_decode(&c, q));
	ck_assert_mem_eq(p, q, sizeof(*p));
	for (size_t n = 0; n < len; n++) {
		csv_cursor_init_ro(&c, buf, n);
		ck_assert_ptr_nonnull(dlm_past_decode(&c, q));
	}
	for (size_t off = 0; off < len; off++) {	/* a count of 2^32-1 at any place */
		uint8_t keep[4];

		if (off + 4 > len)
			break;
		memcpy(keep, buf + off, 4);
		memset(buf + off, 0xff, 4);
		csv_cursor_init_ro(&c, buf, len);
		dlm_past_decode(&c, q);
		memcpy(buf + off, keep, 4);
	}
	free(p);
	free(q);
}
END_TEST

/* ---- a member that says what it may not ------------------------------------------------------------------------------------------ */

/* Sends as node `from` to node 1; returns how many were counted as bad (stale in *ret_stale). */
static uint64_t say(struct dw *d, unsigned from, const void *buf, size_t len, uint64_t *ret_stale)
{
	uint64_t bad = d->n[1].dlm->st.bad_messages, stale = d->n[1].dlm->st.stale_messages;

	ck_assert_int_eq(mesh_send(d->n[from].env->mesh, 1, CHAN_DLM, buf, len), 0);
	dw_run_ms(d, 20);
	if (ret_stale)
		*ret_stale = d->n[1].dlm->st.stale_messages - stale;
	return d->n[1].dlm->st.bad_messages - bad;
}

static uint64_t say_msg(struct dw *d, unsigned from, struct dlm_msg m, uint64_t *ret_stale)
{
	uint8_t buf[512];

	return say(d, from, buf, make(d, buf, &m), ret_stale);
}

static struct dlm_msg about(uint8_t type, const char *name)
{
	struct dlm_msg m = { .type = type };

	m.name.len = strlen(name);
	memcpy(m.name.b, name, m.name.len);
	return m;
}

/* Locks still work between all nodes. */
static void still_works(struct dw *d)
{
	struct dw_lock x, y;

	dw_init(d, 1, &x, "after");
	dw_init(d, 3, &y, "after");
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	ck_assert(!dw_lock(d, 3, &y, DLM_EX, 0));
	dw_down_to(d, 1, &x, DLM_NL);
	ck_assert_int_eq(y.l.granted, DLM_EX);
	dw_down_to(d, 3, &y, DLM_NL);
	dlm_lock_done(d->n[1].dlm, &x.l);
	dlm_lock_done(d->n[3].dlm, &y.l);
}

START_TEST(a_grant_that_was_not_asked_for_grants_nothing)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y;
	struct dlm_msg m = about(DLM_M_GRANT, "r");

	m.mode = DLM_EX;
	m.reqid = 1;
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);		/* a lock that does not exist */
	dw_init(d, 1, &x, "r");
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);		/* a lock that asks for nothing */
	dw_init(d, 3, &y, "r");
	ck_assert(dw_lock(d, 3, &y, DLM_EX, 0));
	ck_assert(!dw_lock(d, 1, &x, DLM_PR, 0));
	m.reqid = ((struct dlm_client *)x.l.priv)->reqid;
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);		/* not the node that was asked */
	ck_assert_uint_eq(say_msg(d, 3, m, NULL), 1);		/* a higher mode than asked for */
	m.mode = DLM_PR;
	m.reqid += 7;
	ck_assert_uint_eq(say_msg(d, 3, m, NULL), 1);		/* another request */
	ck_assert_int_eq(x.l.granted, DLM_NL);
	ck_assert_int_eq(x.done, 0);
	dw_down_to(d, 3, &y, DLM_NL);
	ck_assert_int_eq(x.l.granted, DLM_PR);
	ck_assert(strstr(dlm_bad_reason(d->n[1].dlm), "node 3"));
	still_works(d);
	dw_free(d);
}
END_TEST

START_TEST(who_holds_nothing_can_give_nothing_up)
{
	struct dw *d = dw_new(3);
	struct dw_lock x;
	struct dlm_msg m = about(DLM_M_DOWN, "r");
	uint64_t stale;

	dw_init(d, 1, &x, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_PR, 0));
	m.reqid = ((struct dlm_client *)x.l.priv)->reqid;
	ck_assert_uint_eq(say_msg(d, 2, m, &stale), 0);
	ck_assert_uint_eq(stale, 1);
	m.type = DLM_M_CANCEL;
	say_msg(d, 2, m, &stale);
	ck_assert_uint_eq(stale, 1);
	m.type = DLM_M_BAST;
	m.mode = DLM_EX;
	say_msg(d, 2, m, &stale);				/* not the master of what we hold */
	ck_assert_uint_eq(stale, 1);
	ck_assert_int_eq(x.basts, 0);
	ck_assert_uint_eq(d->n[1].dlm->resources.n, 1);
	still_works(d);
	dw_free(d);
}
END_TEST

START_TEST(a_holder_cannot_downgrade_upwards_or_write_a_value_it_may_not)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y;
	struct dlm_msg m = about(DLM_M_DOWN, "r");

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_PR, 0));
	ck_assert(dw_lock(d, 2, &y, DLM_PR, 0));
	m.reqid = ((struct dlm_client *)y.l.priv)->reqid;
	m.mode = DLM_PW;
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);
	m.mode = DLM_CW;
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);
	m.mode = DLM_CR;
	m.flags = DLM_F_LVB;
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);
	ck_assert(!dlm_res_find(d->n[1].dlm, &m.name)->lvb_valid);
	still_works(d);
	dw_free(d);
}
END_TEST

START_TEST(a_request_twice_is_one_request)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y;
	struct dlm_msg m = about(DLM_M_REQUEST, "r");
	uint64_t stale;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	ck_assert(!dw_lock(d, 2, &y, DLM_PR, 0));
	m.reqid = ((struct dlm_client *)y.l.priv)->reqid;
	m.mode = DLM_PR;
	ck_assert_uint_eq(say_msg(d, 2, m, &stale), 0);
	ck_assert_uint_eq(stale, 1);
	m.reqid++;
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);
	dw_down_to(d, 1, &x, DLM_NL);
	ck_assert_int_eq(y.done, 1);
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);		/* it holds it already */
	still_works(d);
	dw_free(d);
}
END_TEST

START_TEST(directory_messages_from_the_wrong_node_are_refused)
{
	struct dw *d = dw_new(3);
	char mine[16], other[16];
	struct dlm_msg m;

	dw_name(d, 1, 3, mine);
	dw_name(d, 3, 2, other);
	m = about(DLM_M_REQUEST, other);
	m.mode = DLM_PR;
	m.flags = DLM_F_DIR;
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);		/* asks a node that is no directory node */
	m = about(DLM_M_FORWARD, mine);
	m.mode = DLM_PR;
	m.node = 2;
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);
	m = about(DLM_M_FORWARD, other);
	m.mode = DLM_PR;
	m.node = 9;
	ck_assert_uint_eq(say_msg(d, 3, m, NULL), 1);		/* for a node that does not exist */
	m.node = 0;
	ck_assert_uint_eq(say_msg(d, 3, m, NULL), 1);
	m = about(DLM_M_RECORD, mine);
	m.node = 2;
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);
	m = about(DLM_M_MASTER_YOU, mine);
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);		/* not dir2 */
	ck_assert_uint_eq(say_msg(d, 3, m, NULL), 1);		/* dir2, but nothing was asked */
	m = about(DLM_M_REMOVE, other);
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);
	m = about(DLM_M_UNRECORD, mine);
	ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);
	ck_assert_uint_eq(d->n[1].dlm->resources.n, 0);
	ck_assert_uint_eq(d->n[1].dlm->dir.n, 0);
	still_works(d);
	dw_free(d);
}
END_TEST

START_TEST(recovery_messages_out_of_time_are_refused)
{
	struct dw *d = dw_new(3);
	uint8_t buf[512];
	struct csv_cursor c;
	uint64_t stale;

	for (uint8_t t = DLM_M_REG; t < DLM_M_LIST_END; t++) {
		struct dlm_msg m = about(t, "r");

		m.node = 2;
		if (t == DLM_M_REPORT || t == DLM_M_STRAY || t == DLM_M_FWD)
			m.mode = DLM_EX;
		ck_assert_uint_eq(say_msg(d, 2, m, NULL), 1);
	}
	for (unsigned round = 0; round < 8; round++) {
		csv_cursor_init(&c, buf, sizeof(buf));
		dlm_header_encode(&c, DLM_M_END, round, d->n[1].dlm->view.ring);
		dlm_header_finish(&c);
		ck_assert_uint_eq(say(d, 2, buf, csv_cur_used(&c), NULL), 1);
	}
	/* of another view: neither older nor newer is believed */
	for (int by = -1; by <= 1; by += 2) {
		struct ring_id r = d->n[1].dlm->view.ring;

		r.seq += by;
		csv_cursor_init(&c, buf, sizeof(buf));
		dlm_header_encode(&c, DLM_M_END, 2, r);
		dlm_header_finish(&c);
		say(d, 2, buf, csv_cur_used(&c), &stale);
		ck_assert_uint_eq(stale, 1);
	}
	ck_assert(dlm_is_recovered(d->n[1].dlm));
	still_works(d);
	dw_free(d);
}
END_TEST

START_TEST(reports_of_two_ex_holders_make_one)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y;
	struct dlm_msg m = about(DLM_M_REPORT, "r");
	uint64_t bad;
	uint8_t buf[512];

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	/* A new view; in its second round node 2 claims EX on the same resource. */
	sim_net_token_loss(d->net, 1);
	for (int i = 0; i < 100000 && d->n[2].dlm->state != DLM_S_REBUILD; i++)
		sim_world_step(d->w);
	ck_assert_int_eq(d->n[2].dlm->state, DLM_S_REBUILD);
	bad = d->n[1].dlm->st.bad_messages;
	m.mode = DLM_EX;
	m.reqid = 99;
	ck_assert_int_eq(mesh_send(d->n[2].env->mesh, 1, CHAN_DLM, buf, make(d, buf, &m)), 0);
	dw_run_ms(d, 1000);
	ck_assert(dlm_is_recovered(d->n[1].dlm));
	ck_assert_uint_ge(d->n[1].dlm->st.bad_messages, bad + 1);
	/* Whoever was believed, the table holds one EX: a third one waits. */
	ck_assert(!dw_lock(d, 2, &y, DLM_CR, 0));
	dw_free(d);
}
END_TEST

START_TEST(a_flood_of_names_is_refused_beyond_the_limit)
{
	struct dw *d = dw_new_cfg(2, 1, (struct dlm_config){ .peer_locks_max = 100 });
	static struct dw_lock k[300], own;
	unsigned refused = 0, granted = 0;

	for (int i = 0; i < 300; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		dw_init(d, 2, &k[i], name);
		dlm_request(d->n[2].dlm, &k[i].l, DLM_PR, 0);
	}
	dw_run_ms(d, 500);
	for (int i = 0; i < 300; i++) {
		ck_assert_int_eq(k[i].done, 1);
		ck_assert(k[i].status == 0 || k[i].status == -ENOLCK);
		refused += k[i].status == -ENOLCK;
		granted += k[i].status == 0;
	}
	ck_assert_uint_ge(granted, 100);
	ck_assert_uint_ge(refused, 1);
	ck_assert_uint_le(d->n[1].dlm->peer[1].records, 100);
	dw_init(d, 1, &own, "own");			/* its own locks are not its peer's */
	ck_assert(dw_lock(d, 1, &own, DLM_EX, 0));
	for (int i = 0; i < 300; i++)
		if (k[i].l.granted)
			dlm_downgrade(d->n[2].dlm, &k[i].l, DLM_NL);
	dw_run_ms(d, 200);
	for (int i = 0; i < 300; i++)			/* room again */
		if (k[i].status == -ENOLCK) {
			ck_assert(dw_lock(d, 2, &k[i], DLM_PR, 0));
			break;
		}
	dw_free(d);
}
END_TEST

/* A good session's messages with one bit flipped each, and noise: node 1 goes on. */
START_TEST(flipped_bits_disturb_nobody_else)
{
	struct dw *d = dw_new_cfg(3, 500 + _i, (struct dlm_config){ 0 });
	struct csv_prng prng;

	csv_prng_init(&prng, 900 + _i);
	for (int i = 0; i < 400; i++) {
		struct dlm_msg m = sample(1 + csv_prng_below(&prng, DLM_M_SERVICE_END - 1));
		uint8_t buf[512];
		size_t len = make(d, buf, &m);

		if (csv_prng_chance(&prng, 1, 4)) {
			len = csv_prng_below(&prng, 200);
			csv_prng_bytes(&prng, buf, len);
		} else {
			buf[csv_prng_below(&prng, len)] ^= 1u << csv_prng_below(&prng, 8);
		}
		say(d, 2, buf, len, NULL);
	}
	ck_assert(dlm_is_recovered(d->n[1].dlm) && dlm_is_recovered(d->n[3].dlm));
	ck_assert_uint_gt(d->n[1].dlm->st.bad_messages, 100);
	still_works(d);
	dw_free(d);
}
END_TEST

UNIT_MAIN("dlm_hostile", UNIT_TEST(every_service_message_survives_the_wire), UNIT_TEST(every_cut_is_refused),
	  UNIT_TEST(every_field_out_of_range_is_refused), UNIT_TEST(a_byte_swapped_message_is_refused),
	  UNIT_LOOP(random_bytes_never_get_out_of_bounds, 0, 4), UNIT_TEST(past_survives_the_wire_and_its_counts_are_bounded),
	  UNIT_TEST(a_grant_that_was_not_asked_for_grants_nothing), UNIT_TEST(who_holds_nothing_can_give_nothing_up),
	  UNIT_TEST(a_holder_cannot_downgrade_upwards_or_write_a_value_it_may_not), UNIT_TEST(a_request_twice_is_one_request),
	  UNIT_TEST(directory_messages_from_the_wrong_node_are_refused), UNIT_TEST(recovery_messages_out_of_time_are_refused),
	  UNIT_TEST(reports_of_two_ex_holders_make_one), UNIT_TEST(a_flood_of_names_is_refused_beyond_the_limit),
	  UNIT_LOOP(flipped_bits_disturb_nobody_else, 0, 5))
