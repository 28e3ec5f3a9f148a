/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * utils/env/proto.h: how nodes of several releases settle on a version. The rule alone, and trackers that use it in a group of one ring whose
 * messages reach all members in one order.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/env_fake.h"
#include "tests/unit/unit.h"
#include "utils/base/prng.h"
#include "utils/env/cluster.h"
#include "utils/env/proto.h"

/* ---- the rule ------------------------------------------------------------------------------------------------------------------------ */

START_TEST(a_range_of_zeros_is_who_came_before_and_one_upside_down_is_none)
{
	struct proto_range r = { 9, 9 };

	ck_assert(proto_range_get(0, 0, &r));
	ck_assert_uint_eq(r.min, 1);
	ck_assert_uint_eq(r.max, 1);
	ck_assert(!proto_range_get(0, 3, &r));
	ck_assert(!proto_range_get(3, 2, &r));
	ck_assert(!proto_range_get(UINT16_MAX, 1, &r));
	ck_assert(!proto_range_get(1, 0, &r));
	ck_assert(proto_range_get(1, UINT16_MAX, &r));
	ck_assert_uint_eq(proto_common((struct proto_range){ 1, 3 }, (struct proto_range){ 2, 9 }), 3);
	ck_assert_uint_eq(proto_common((struct proto_range){ 2, 9 }, (struct proto_range){ 1, 3 }), 3);
	ck_assert_uint_eq(proto_common((struct proto_range){ 1, 3 }, (struct proto_range){ 4, 9 }), 0);
	ck_assert_uint_eq(proto_common((struct proto_range){ 4, 9 }, (struct proto_range){ 1, 3 }), 0);
}
END_TEST

static struct proto_range any_range(struct csv_prng *p, unsigned top)
{
	uint16_t min = (uint16_t)(1 + csv_prng_below(p, top));

	return (struct proto_range){ min, (uint16_t)(min + csv_prng_below(p, top)) };
}

/* Is some version of the messages, of the frames, in its range and in those of all who come before it and stay? */
static bool fits(const struct proto_member *m, unsigned n, unsigned i, bool frames)
{
	struct proto_range r = frames ? m[i].mesh : m[i].messages;

	for (unsigned v = r.min; v <= r.max; v++) {
		bool all = true;

		for (unsigned k = 0; k < n; k++) {
			struct proto_range o = frames ? m[k].mesh : m[k].messages;

			if (!m[k].out && (m[k].seated > m[i].seated || (m[k].seated == m[i].seated && k < i)))
				all &= o.min <= v && v <= o.max;
		}
		if (all)
			return true;
	}
	return false;
}

/* Against what it must be, not how: who stays shares the version, nobody is out who could stay beside those before it, the seated come first. */
START_TEST(who_stays_shares_a_version_and_nobody_goes_without_need)
{
	struct csv_prng p;
	unsigned outs = 0;

	csv_prng_init(&p, 7);
	for (unsigned round = 0; round < 200000; round++) {
		struct proto_member m[6];
		struct proto_range c, f;
		unsigned n = 1 + (unsigned)csv_prng_below(&p, ARRAY_SIZE(m)), out, seen = 0;
		uint16_t least = UINT16_MAX;

		for (unsigned i = 0; i < n; i++)
			m[i] = (struct proto_member){ .nodeid = i + 1, .messages = any_range(&p, 4), .mesh = any_range(&p, 9),
							  .seated = csv_prng_chance(&p, 1, 2) };
		out = proto_settle(m, n, &c, &f);
		ck_assert_uint_ge(c.max, c.min);
		ck_assert_uint_ge(f.max, f.min);
		for (unsigned i = 0; i < n; i++) {
			seen += m[i].out;
			if (!m[i].out) {
				ck_assert(m[i].messages.min <= c.min && c.max <= m[i].messages.max);
				ck_assert(m[i].mesh.min <= f.min && f.max <= m[i].mesh.max);
				least = csv_min(least, m[i].messages.max);
				continue;
			}
			ck_assert_msg(!fits(m, n, i, false) || !fits(m, n, i, true), "node %u is out although it shares versions with all before it", i + 1);
		}
		ck_assert_uint_eq(c.max, least);	/* the lowest of their highest */
		ck_assert_uint_eq(out, seen);
		ck_assert_uint_lt(out, n);
		outs += out;
	}
	ck_assert_uint_gt(outs, 1000);
}
END_TEST

START_TEST(a_refusal_names_both_ranges_and_what_to_do)
{
	char t[PROTO_TEXT_MAX];

	proto_refusal_text("mesh protocol", "node 3", (struct proto_range){ 4, 6 }, "node 1", (struct proto_range){ 1, 2 }, t, sizeof(t));
	ck_assert_str_eq(t, "node 3 speaks versions 4..6 of the mesh protocol, node 1 1..2: none in common: upgrade csvfs on node 1 to a release that "
			    "speaks version 4, or put the release before back on node 3");
	proto_refusal_text("mesh protocol", "node 3", (struct proto_range){ 1, 2 }, "node 1", (struct proto_range){ 4, 6 }, t, sizeof(t));
	ck_assert_ptr_nonnull(strstr(t, "upgrade csvfs on node 3 to a release that speaks version 4, or put the release before back on node 1"));
}
END_TEST

/* ---- trackers ---------------------------------------------------------------------------------------------------------------------- */

#define NODES 5u
#define QUEUE 4096u

struct node {
	struct cluster_port port;
	struct cluster *c;
	const struct cluster_raw_events *ev;
	void *arg;
	uint32_t id;
	bool in;
	struct cluster_view view;	/* the last, n 0 while there is none */
	unsigned views, refused;
	int lost;
	char why[PROTO_TEXT_MAX];
	uint16_t got;			/* the version of the view a message was delivered in */
};

static struct {
	struct fake_clock clk;
	struct sched *s;
	struct ring_id ring;
	struct node node[NODES + 1];
	struct { uint32_t from; size_t len; uint8_t b[200]; } q[QUEUE];
	unsigned head, tail;
	bool tell;			/* members have changed and were not told yet */
	bool old[NODES + 1];		/* says zeros for ranges */
	struct proto_range mesh[NODES + 1];	/* zeros: what this build speaks */
	int patch_node;			/* its JOINs get these words */
	uint16_t patch[2];
	struct cluster_view seen[4096];
	unsigned n_seen;
} w;

static int port_start(struct cluster_port *p, const struct cluster_raw_events *ev, void *arg)
{
	struct node *n = container_of(p, struct node, port);

	n->ev = ev;
	n->arg = arg;
	n->in = w.tell = true;
	ev->totem(arg, w.ring);
	ev->quorum(arg, w.ring, true);
	return 0;
}

static int port_send(struct cluster_port *p, const void *buf, size_t len)
{
	struct node *n = container_of(p, struct node, port);

	ck_assert_uint_lt(w.tail, QUEUE);
	ck_assert_uint_le(len, sizeof(w.q[0].b));
	w.q[w.tail].from = n->id;
	w.q[w.tail].len = len;
	memcpy(w.q[w.tail].b, buf, len);
	if (w.old[n->id])
		memset(w.q[w.tail].b + 32, 0, 8);
	if (w.patch_node == (int)n->id && len == 48)
		for (unsigned i = 0; i < 2; i++) {
			struct le16 v = le16_of(w.patch[i]);

			memcpy(w.q[w.tail].b + 32 + 2 * i, &v, 2);
		}
	w.tail++;
	return 0;
}

static void port_stop(struct cluster_port *p)
{
	struct node *n = container_of(p, struct node, port);

	n->in = false;
	w.tell = true;
}

static const struct cluster_port_ops port_ops = { port_start, port_send, port_stop };

static void on_suspend(void *arg)
{
	((struct node *)arg)->view.n = 0;
}

/* C3, PV3: the same ring is the same version, whoever says it. */
static void on_view(void *arg, const struct cluster_view *v)
{
	struct node *n = arg;
	unsigned i;

	n->view = *v;
	n->views++;
	for (i = 0; i < w.n_seen && !(ring_eq(w.seen[i].ring, v->ring) && fake_views_share_a_life(&w.seen[i], v)); i++)
		;
	if (i == w.n_seen) {
		ck_assert_uint_lt(i, ARRAY_SIZE(w.seen));
		w.seen[w.n_seen++] = *v;
	}
	ck_assert_uint_eq(w.seen[i].n, v->n);
	ck_assert_uint_eq(w.seen[i].version, v->version);
	ck_assert_uint_ne(v->version, 0);
	for (uint32_t k = 0; k < v->n; k++) {
		struct proto_range r = w.old[v->m[k].nodeid] ? (struct proto_range){ 1, 1 } : cluster_versions(w.node[v->m[k].nodeid].c);

		ck_assert_msg(r.min <= v->version && v->version <= r.max, "version %u in a view with node %u, which speaks %u..%u", v->version,
			      v->m[k].nodeid, r.min, r.max);
	}
}

static void on_msg(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct node *n = arg;

	(void)from;
	(void)buf;
	(void)len;
	n->got = n->view.version;
}

static void on_lost(void *arg, int err)
{
	struct node *n = arg;

	n->lost = err;
	n->view.n = 0;
	snprintf(n->why, sizeof(n->why), "%s", cluster_refusal(n->c));
}

static void on_refused(void *arg, const char *why)
{
	struct node *n = arg;

	n->refused++;
	ck_assert_ptr_nonnull(strstr(why, "none in common: upgrade"));
}

static void run(void)
{
	for (unsigned turn = 0; turn < 2000; turn++) {
		sched_run(w.s);
		if (w.tell) {
			uint32_t ids[NODES], n = 0;

			w.tell = false;
			for (unsigned i = 1; i <= NODES; i++)
				if (w.node[i].in)
					ids[n++] = i;
			for (unsigned i = 1; i <= NODES; i++)
				if (w.node[i].in)
					w.node[i].ev->members(w.node[i].arg, ids, n);
		} else if (w.head < w.tail) {
			unsigned at = w.head++;

			if (!w.node[w.q[at].from].in)		/* it left before that was ordered */
				continue;
			for (unsigned i = 1; i <= NODES; i++)
				if (w.node[i].in)
					w.node[i].ev->msg(w.node[i].arg, w.q[at].from, w.q[at].b, w.q[at].len);
		} else {
			w.head = w.tail = 0;
			return;
		}
	}
	ck_abort_msg("does not come to rest");
}

static void world_init(void)
{
	memset(&w, 0, sizeof(w));
	fake_clock_init(&w.clk);
	w.s = sched_new(&w.clk.clock);
	w.ring = (struct ring_id){ 1, 8 };
}

static void join(unsigned id, uint16_t min, uint16_t max)
{
	struct node *n = &w.node[id];
	struct cluster_user u = { .suspend = on_suspend, .view = on_view, .msg = on_msg, .lost = on_lost, .refused = on_refused, .arg = n };
	static uint64_t life = 100;

	memset(n, 0, sizeof(*n));
	n->id = id;
	n->port = (struct cluster_port){ .ops = &port_ops, .self = id };
	n->c = cluster_new(w.s, &n->port, ++life);
	if (min)
		cluster_set_versions(n->c, (struct proto_range){ min, max }, w.mesh[id].min ? w.mesh[id] : PROTO_MESH);
	cluster_register(n->c, CHAN_DLM, &u);
	ck_assert_int_eq(cluster_start(n->c), 0);
}

static void leave(unsigned id)
{
	cluster_stop(w.node[id].c);
	run();
	cluster_free(w.node[id].c);
	w.node[id].c = NULL;
}

static void world_done(void)
{
	for (unsigned i = 1; i <= NODES; i++)
		if (w.node[i].c)
			leave(i);
	sched_free(w.s);
}

static void in_view(unsigned members, uint16_t version)
{
	for (unsigned i = 1; i <= NODES; i++) {
		if (!w.node[i].in)
			continue;
		ck_assert_msg(w.node[i].view.n == members, "node %u sees %u members, not %u", i, w.node[i].view.n, members);
		ck_assert_msg(w.node[i].view.version == version, "node %u has version %u, not %u", i, w.node[i].view.version, version);
	}
}

START_TEST(without_being_told_a_node_speaks_what_this_build_speaks)
{
	world_init();
	join(1, 0, 0);
	join(2, 0, 0);
	run();
	in_view(2, PROTO_MESSAGES.max);
	world_done();
}
END_TEST

START_TEST(all_settle_on_the_lowest_of_their_highest)
{
	world_init();
	join(1, 2, 9);
	join(2, 1, 4);
	join(3, 3, 7);
	run();
	in_view(3, 4);
	ck_assert_int_eq(cluster_send(w.node[3].c, CHAN_DLM, "x", 1), 0);
	run();
	for (unsigned i = 1; i <= 3; i++)
		ck_assert_uint_eq(w.node[i].got, 4);
	world_done();
}
END_TEST

START_TEST(upgraded_node_by_node_the_version_rises_with_the_last_and_falls_with_one_that_comes_back)
{
	world_init();
	for (unsigned i = 1; i <= 3; i++)
		join(i, 1, 1);
	run();
	in_view(3, 1);
	for (unsigned i = 1; i <= 3; i++) {
		leave(i);
		in_view(2, i < 3 ? 1 : 2);
		join(i, 1, 2);
		run();
		in_view(3, i < 3 ? 1 : 2);
	}
	join(4, 1, 1);			/* forgotten on a shelf */
	run();
	in_view(4, 1);
	leave(4);
	in_view(3, 2);
	for (unsigned i = 1; i <= 3; i++)
		ck_assert_int_eq(w.node[i].lost, 0);
	world_done();
}
END_TEST

START_TEST(who_says_nothing_of_versions_speaks_the_first)
{
	world_init();
	w.old[2] = true;
	join(1, 1, 3);
	join(2, 0, 0);
	run();
	in_view(2, 1);
	world_done();
}
END_TEST

START_TEST(a_newcomer_that_shares_none_leaves_with_the_reason_and_the_others_go_on)
{
	unsigned views;

	world_init();
	join(3, 1, 2);
	join(4, 1, 3);
	run();
	in_view(2, 2);
	views = w.node[3].views;
	join(1, 4, 6);			/* the lower id, and yet the one to go */
	run();
	ck_assert_int_eq(w.node[1].lost, -EPROTONOSUPPORT);
	ck_assert_str_eq(w.node[1].why, "node 1 speaks versions 4..6 of the messages between nodes, the other members 1..2: none in common: upgrade csvfs on "
			 "the other members to a release that speaks version 4, or put the release before back on node 1");
	ck_assert_uint_eq(w.node[1].views, 0);
	ck_assert(!w.node[1].in);
	in_view(2, 2);
	ck_assert_uint_eq(w.node[3].views, views + 1);
	ck_assert_int_eq(w.node[3].lost, 0);
	ck_assert_uint_eq(cluster_stats(w.node[3].c)->refused, 1);
	ck_assert_uint_eq(w.node[3].refused, 1);
	ck_assert_ptr_nonnull(strstr(cluster_refusal(w.node[4].c), "node 1 speaks versions 4..6"));
	world_done();
}
END_TEST

START_TEST(one_that_comes_again_and_again_is_counted_each_time_and_said_once_a_minute)
{
	world_init();
	join(1, 1, 2);
	run();
	for (unsigned i = 0; i < 50; i++) {
		join(2, 3, 3);
		run();
		ck_assert_int_eq(w.node[2].lost, -EPROTONOSUPPORT);
		leave(2);
	}
	ck_assert_uint_eq(cluster_stats(w.node[1].c)->refused, 50);
	ck_assert_uint_eq(w.node[1].refused, 1);
	w.clk.now_ns += 61 * NS_PER_SEC;
	join(2, 3, 3);
	run();
	ck_assert_uint_eq(w.node[1].refused, 2);
	in_view(1, 2);
	world_done();
}
END_TEST

START_TEST(of_two_that_begin_together_the_higher_node_goes)
{
	world_init();
	join(1, 1, 2);
	join(2, 3, 4);
	join(3, 2, 3);
	run();
	ck_assert_int_eq(w.node[2].lost, -EPROTONOSUPPORT);
	ck_assert_int_eq(w.node[1].lost, 0);
	in_view(2, 2);
	world_done();
}
END_TEST

/* Else the two would find each other unreachable, and one would go for that, with the wrong reason. */
START_TEST(who_shares_messages_but_no_frames_goes_as_well)
{
	world_init();
	w.mesh[2] = (struct proto_range){ 7, 63 };
	join(1, 1, 2);
	run();
	join(2, 1, 2);
	run();
	ck_assert_int_eq(w.node[2].lost, -EPROTONOSUPPORT);
	ck_assert_msg(strstr(w.node[2].why, "node 2 speaks versions 7..63 of the mesh protocol, the other members 1..1"), "%s", w.node[2].why);
	in_view(1, 2);
	world_done();
}
END_TEST

START_TEST(ranges_that_are_none_are_counted_and_make_no_view)
{
	static const uint16_t bad[][2] = { { 0, 1 }, { 2, 1 }, { UINT16_MAX, 1 }, { 1, 0 } };

	world_init();
	join(1, 1, 2);
	run();
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		uint64_t before = cluster_stats(w.node[1].c)->dropped_bad;

		w.patch_node = 2;
		memcpy(w.patch, bad[i], sizeof(w.patch));
		join(2, 1, 2);
		run();
		ck_assert_uint_gt(cluster_stats(w.node[1].c)->dropped_bad, before);
		ck_assert_uint_eq(w.node[1].view.n, 0);
		leave(2);
		in_view(1, 2);
	}
	world_done();
}
END_TEST

START_TEST(whoever_comes_and_goes_all_have_one_version_that_all_speak)
{
	struct csv_prng p;
	unsigned gone = 0;

	world_init();
	csv_prng_init(&p, 100 + (uint64_t)_i);
	for (unsigned step = 0; step < 120; step++) {
		unsigned id = 1 + (unsigned)csv_prng_below(&p, NODES), in = 0;
		struct proto_range r = any_range(&p, 3);

		if (w.node[id].c) {
			gone += !!w.node[id].lost;
			leave(id);
		} else {
			join(id, r.min, r.max);
		}
		if (csv_prng_chance(&p, 2, 3))	/* else two at once */
			run();
		for (unsigned i = 1; i <= NODES; i++)
			in += w.node[i].in;
		for (unsigned i = 1; i <= NODES && !w.tell && w.head == w.tail; i++)
			ck_assert_msg(!w.node[i].in || w.node[i].view.n == in, "node %u has no view of the %u who are there", i, in);
	}
	run();
	ck_assert_uint_gt(w.n_seen, 20);
	ck_assert_uint_gt(gone, 0);
	world_done();
}
END_TEST

UNIT_MAIN("env_proto", UNIT_TEST(a_range_of_zeros_is_who_came_before_and_one_upside_down_is_none),
	  UNIT_TEST(who_stays_shares_a_version_and_nobody_goes_without_need), UNIT_TEST(a_refusal_names_both_ranges_and_what_to_do),
	  UNIT_TEST(without_being_told_a_node_speaks_what_this_build_speaks), UNIT_TEST(all_settle_on_the_lowest_of_their_highest),
	  UNIT_TEST(upgraded_node_by_node_the_version_rises_with_the_last_and_falls_with_one_that_comes_back),
	  UNIT_TEST(who_says_nothing_of_versions_speaks_the_first),
	  UNIT_TEST(a_newcomer_that_shares_none_leaves_with_the_reason_and_the_others_go_on),
	  UNIT_TEST(one_that_comes_again_and_again_is_counted_each_time_and_said_once_a_minute),
	  UNIT_TEST(of_two_that_begin_together_the_higher_node_goes),
	  UNIT_TEST(who_shares_messages_but_no_frames_goes_as_well), UNIT_TEST(ranges_that_are_none_are_counted_and_make_no_view),
	  UNIT_LOOP(whoever_comes_and_goes_all_have_one_version_that_all_speak, 0, 30))
