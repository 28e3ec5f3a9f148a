/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * utils/env/cluster.h: the view tracker, in every interleaving of the model's engine, and in single cases.
 */
#include "tests/unit/cluster_model.h"

#include <errno.h>

struct totals { uint64_t views, msgs, proofs, alone, faults; };

static void run_seed(uint64_t seed, bool mutate, struct totals *t, char violation[256])
{
	static struct world w;
	unsigned n = 1 + seed % 5;

	cm_init(&w, seed, n, mutate);
	for (unsigned i = 0; i < 3000 && !w.violation[0]; i++) {
		cm_step(&w);
		if (csv_prng_chance(&w.prng, 1, 60)) {
			cm_fault(&w);
			t->faults++;
		}
	}
	if (!w.violation[0])
		cm_settle(&w);
	t->views += w.got_views;
	t->msgs += w.got_msgs;
	t->proofs += w.proofs;
	t->alone += w.alone;
	memcpy(violation, w.violation, 256);
	cm_done(&w);
}

START_TEST(every_interleaving_gives_the_same_views_everywhere)
{
	struct totals t = { 0 };
	char violation[256];

	for (uint64_t seed = 1; seed <= 400; seed++) {
		run_seed(seed, false, &t, violation);
		ck_assert_msg(!violation[0], "seed %llu: %s", (unsigned long long)seed, violation);
	}
	printf("400 seeds: %llu faults, %llu views, %llu messages delivered, %llu reached their sender alone, %llu proofs\n",
	       (unsigned long long)t.faults, (unsigned long long)t.views, (unsigned long long)t.msgs,
	       (unsigned long long)t.alone, (unsigned long long)t.proofs);
	ck_assert_uint_gt(t.faults, 0);
	ck_assert_uint_gt(t.views, 1000);
	ck_assert_uint_gt(t.msgs, 1000);
	ck_assert_uint_gt(t.proofs, 0);
	ck_assert_uint_gt(t.alone, 0);
}
END_TEST

START_TEST(without_comparing_ring_ids_the_model_finds_a_wrong_view)
{
	struct totals t = { 0 };
	char violation[256] = "";
	uint64_t seed = 0;

	while (!violation[0] && seed < 200)
		run_seed(++seed, true, &t, violation);
	ck_assert_msg(violation[0], "200 seeds found nothing");
	printf("mutation found by seed %llu: %s\n", (unsigned long long)seed, violation);
}
END_TEST

START_TEST(without_the_others_votes_the_model_finds_members_that_compute_differently)
{
	struct totals t = { 0 };
	char violation[256] = "";
	uint64_t seed = 0;

	cm_own_votes = true;
	while (!violation[0] && seed < 200)
		run_seed(++seed, false, &t, violation);
	cm_own_votes = false;
	ck_assert_msg(strstr(violation, "C8"), "200 seeds found nothing: %s", violation);
	printf("mutation found by seed %llu: %s\n", (unsigned long long)seed, violation);
}
END_TEST

START_TEST(sixty_four_nodes_agree)
{
	static struct world w;

	cm_init(&w, 1, 64, false);
	cm_settle(&w);
	ck_assert_msg(!w.violation[0], "%s", w.violation);
	ck_assert_uint_eq(cluster_current(w.node[63].c)->n, 64);
	w.calm = false;
	cm_partition(&w, 2);
	cm_kill(&w, &w.node[5], true);
	cm_settle(&w);
	ck_assert_msg(!w.violation[0], "%s", w.violation);
	cm_done(&w);
}
END_TEST

/* ---- single cases -------------------------------------------------------------------------------------------------- */

START_TEST(two_nodes_settled_in_one_ring_differ_by_round_after_a_restart)
{
	static struct world w;
	struct ring_id first;

	cm_init(&w, 3, 3, false);
	cm_settle(&w);
	first = cluster_current(w.node[0].c)->ring;
	cm_kill(&w, &w.node[2], true);
	cm_settle(&w);
	ck_assert_uint_eq(cluster_current(w.node[0].c)->n, 2);
	ck_assert_uint_eq(w.proofs, 2);		/* both survivors have one */
	cm_start(&w, &w.node[2]);
	cm_settle(&w);
	ck_assert_uint_eq(cluster_current(w.node[0].c)->n, 3);
	ck_assert_uint_eq(cluster_current(w.node[0].c)->ring.seq >> CLUSTER_ROUND_BITS, first.seq >> CLUSTER_ROUND_BITS);
	ck_assert_uint_gt(cluster_current(w.node[0].c)->ring.seq, first.seq);
	ck_assert_msg(!w.violation[0], "%s", w.violation);
	cm_done(&w);
}
END_TEST

START_TEST(quorum_that_comes_and_goes_gives_all_a_new_view)
{
	static struct world w;
	struct ring_id first, second;
	struct node *n;

	cm_init(&w, 4, 3, false);
	cm_settle(&w);
	n = &w.node[1];
	first = cluster_current(n->c)->ring;
	n->fed_quorate = false;
	n->to->quorum(n->to_arg, n->ring, false);
	ck_assert_ptr_null(cluster_current(n->c));
	ck_assert_int_eq(cluster_send(n->c, CHAN_FS, "x", 1), -ENOTCONN);
	n->fed_quorate = true;
	n->to->quorum(n->to_arg, n->ring, true);
	cm_settle(&w);
	second = cluster_current(n->c)->ring;
	ck_assert_uint_eq(second.seq, first.seq + 1);
	ck_assert(ring_eq(cluster_current(w.node[0].c)->ring, second));
	ck_assert_msg(!w.violation[0], "%s", w.violation);
	cm_done(&w);
}
END_TEST

START_TEST(a_message_before_quorum_confirms_is_delivered_after_the_view)
{
	static struct world w;
	struct node *a, *b;

	cm_init(&w, 5, 2, false);
	a = &w.node[0];
	b = &w.node[1];
	w.calm = true;
	while (!cds_list_empty(&a->quorum))
		cm_feed(&w, a, &a->quorum);
	for (unsigned i = 0; i < 50; i++) {	/* everything but b's quorum */
		cm_order_one(&w, a);
		cm_order_one(&w, b);
		cm_feed(&w, a, &a->stream);
		cm_feed(&w, b, &b->stream);
	}
	ck_assert_ptr_nonnull(cluster_current(a->c));
	ck_assert_ptr_null(cluster_current(b->c));
	cm_user_sends(&w, a);
	cm_order_one(&w, a);
	cm_feed(&w, a, &a->stream);
	cm_feed(&w, b, &b->stream);
	ck_assert_uint_eq(w.got_msgs, 1);
	while (!cds_list_empty(&b->quorum))
		cm_feed(&w, b, &b->quorum);
	ck_assert_ptr_nonnull(cluster_current(b->c));
	ck_assert_uint_eq(w.got_msgs, 2);
	ck_assert_uint_eq(cluster_stats(b->c)->stashed, 1);
	ck_assert_msg(!w.violation[0], "%s", w.violation);
	cm_done(&w);
}
END_TEST

START_TEST(malformed_messages_are_counted_and_change_nothing)
{
	static struct world w;
	struct node *n;
	struct ring_id ring;
	struct ev *good;
	uint64_t bad;

	cm_init(&w, 6, 2, false);
	cm_settle(&w);
	n = &w.node[0];
	ring = cluster_current(n->c)->ring;
	w.msg_view[1] = ring;
	cm_user_sends(&w, n);
	good = cds_list_first_entry(&n->outbox, struct ev, node);
	for (size_t len = 0; len < 40; len++)
		n->to->msg(n->to_arg, 1, good->buf, len);
	ck_assert_uint_eq(cluster_stats(n->c)->dropped_bad, 40);
	for (unsigned byte = 0; byte < 8; byte++) {	/* magic, version, kind, channel */
		uint8_t copy[64];

		memcpy(copy, good->buf, good->len);
		copy[byte] ^= 0x80;
		n->to->msg(n->to_arg, 1, copy, good->len);
	}
	ck_assert_uint_eq(cluster_stats(n->c)->dropped_bad, 48);
	bad = cluster_stats(n->c)->dropped_old;
	n->to->msg(n->to_arg, 77, good->buf, good->len);	/* a sender that is no member */
	ck_assert_uint_eq(cluster_stats(n->c)->dropped_old, bad + 1);
	ck_assert_ptr_nonnull(cluster_current(n->c));
	ck_assert_uint_eq(w.got_msgs, 0);
	n->to->msg(n->to_arg, 1, good->buf, good->len);
	ck_assert_uint_eq(w.got_msgs, 1);
	cm_settle(&w);
	cm_done(&w);
}
END_TEST

/* ---- who is missing (C9) --------------------------------------------------------------------------------------------- */

static uint64_t may_come(const struct world *w, unsigned id)
{
	return cluster_may_come_ns(w->node[0].c, id);
}

START_TEST(who_is_missing_after_a_time_without_quorum_may_come_for_a_round)
{
	static struct world w;
	uint64_t came;

	for (uint64_t seed = 1; seed <= 50; seed++) {
		cm_init(&w, seed, 5, false);
		cm_settle(&w);
		ck_assert_uint_eq(may_come(&w, 3), 0);
		ck_assert_uint_gt(may_come(&w, 9), CM_ROUND_NS);	/* first quorum: never seen */
		cm_sides(&w, "aaaba");
		ck_assert_uint_eq(may_come(&w, 4), 0);	/* a view has lost it */
		cm_sides(&w, "abcde");
		ck_assert_ptr_null(cluster_current(w.node[0].c));
		came = w.clk.now_ns;
		cm_sides(&w, "aaabb");
		ck_assert_ptr_nonnull(cluster_current(w.node[0].c));
		ck_assert_uint_ge(may_come(&w, 4), came + CM_ROUND_NS);
		ck_assert_uint_le(may_come(&w, 4), w.clk.now_ns - NS_PER_SEC + CM_ROUND_NS);
		ck_assert_uint_eq(may_come(&w, 5), may_come(&w, 4));
		ck_assert_uint_eq(may_come(&w, 2), 0);
		came = may_come(&w, 4);
		cm_sides(&w, "aaaab");			/* 4 has come; the time for 5 is what it was */
		ck_assert_uint_eq(may_come(&w, 4), 0);
		ck_assert_uint_eq(may_come(&w, 5), came);
		cm_sides(&w, "aaabb");
		ck_assert_uint_eq(may_come(&w, 4), 0);	/* and goes: that is a loss */
		ck_assert_uint_eq(may_come(&w, 5), came);
		ck_assert_msg(!w.violation[0], "%s", w.violation);
		cm_done(&w);
	}
}
END_TEST

/* The engine counts votes after the ring has formed, or waits for a quorum device: no time without quorum. */
START_TEST(a_ring_that_is_quorate_only_after_a_while_ends_no_time_without_quorum)
{
	static struct world w;
	struct node *n;

	cm_init(&w, 4, 3, false);
	cm_settle(&w);
	n = &w.node[0];
	w.node[2].component = 1;
	cm_new_ring(&w, 0);
	cm_new_ring(&w, 1);
	cm_ev_drop(&n->quorum);
	n->fed_quorum_ring = n->ring;
	n->fed_quorate = false;
	n->to->quorum(n->to_arg, n->ring, false);
	cm_flow(&w);
	ck_assert_ptr_null(cluster_current(n->c));
	n->fed_quorate = true;
	n->to->quorum(n->to_arg, n->ring, true);
	ck_assert_ptr_nonnull(cluster_current(n->c));
	ck_assert_uint_eq(cluster_current(n->c)->n, 2);
	ck_assert_uint_eq(may_come(&w, 3), 0);
	/* Lost in the same ring for good, that is one. */
	n->fed_quorate = false;
	n->to->quorum(n->to_arg, n->ring, false);
	cm_flow(&w);
	cm_sides(&w, "aab");
	ck_assert_ptr_nonnull(cluster_current(n->c));
	ck_assert_uint_gt(may_come(&w, 3), 0);
	ck_assert_msg(!w.violation[0], "%s", w.violation);
	cm_done(&w);
}
END_TEST

static int lost_with;
static void user_lost(void *arg, int err)
{
	(void)arg;
	lost_with = err;
}

static char order[64];
static void order_suspend(void *arg) { strcat(order, arg); strcat(order, "- "); }
static void order_view(void *arg, const struct cluster_view *v) { (void)v; strcat(order, arg); strcat(order, "+ "); }

START_TEST(users_hear_in_channel_order_suspend_in_reverse_and_of_the_loss)
{
	struct cluster_user a = { .suspend = order_suspend, .view = order_view, .arg = "v" };
	struct cluster_user b = { .suspend = order_suspend, .view = order_view, .lost = user_lost, .arg = "d" };
	struct node n = { .id = 1 };
	struct world w = { .n = 0 };
	struct ring_id r = { 1, 4 };
	uint32_t me = 1;
	struct ev *e;

	fake_clock_init(&w.clk);
	w.calm = true;
	n.w = &w;
	n.port = (struct cluster_port){ &cm_port_ops, 1 };
	CDS_INIT_LIST_HEAD(&n.outbox);
	n.s = sched_new(&w.clk.clock);
	n.c = cluster_new(n.s, &n.port, 9);
	cluster_register(n.c, CHAN_DLM, &b);
	cluster_register(n.c, CHAN_VIEW, &a);
	ck_assert_int_eq(cluster_start(n.c), 0);
	n.to->quorum(n.to_arg, r, true);
	n.to->totem(n.to_arg, r);
	n.to->members(n.to_arg, &me, 1);
	ck_assert_str_eq(order, "");
	e = cds_list_first_entry(&n.outbox, struct ev, node);
	n.to->msg(n.to_arg, 1, e->buf, e->len);
	ck_assert_str_eq(order, "v+ d+ ");
	n.to->lost(n.to_arg, -ECONNRESET);
	ck_assert_str_eq(order, "v+ d+ d- v- ");
	ck_assert_int_eq(lost_with, -ECONNRESET);
	cm_ev_drop(&n.outbox);
	cluster_free(n.c);
	sched_free(n.s);
}
END_TEST

UNIT_MAIN("env_cluster",
	  UNIT_SLOW(every_interleaving_gives_the_same_views_everywhere, 0, 1, 120),
	  UNIT_SLOW(without_comparing_ring_ids_the_model_finds_a_wrong_view, 0, 1, 60),
	  UNIT_SLOW(without_the_others_votes_the_model_finds_members_that_compute_differently, 0, 1, 60),
	  UNIT_SLOW(sixty_four_nodes_agree, 0, 1, 60),
	  UNIT_TEST(who_is_missing_after_a_time_without_quorum_may_come_for_a_round),
	  UNIT_TEST(a_ring_that_is_quorate_only_after_a_while_ends_no_time_without_quorum),
	  UNIT_TEST(two_nodes_settled_in_one_ring_differ_by_round_after_a_restart),
	  UNIT_TEST(quorum_that_comes_and_goes_gives_all_a_new_view),
	  UNIT_TEST(a_message_before_quorum_confirms_is_delivered_after_the_view),
	  UNIT_TEST(malformed_messages_are_counted_and_change_nothing),
	  UNIT_TEST(users_hear_in_channel_order_suspend_in_reverse_and_of_the_loss))
