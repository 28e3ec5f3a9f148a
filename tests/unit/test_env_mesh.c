/*
 * utils/env/mesh.h: exactly once and in order per view, over links that break at any time, between nodes that learn of their
 * views at different times (mesh_world.h); hostile frames.
 */
#include <stdio.h>
#include "tests/unit/unit.h"

#include <errno.h>

#include "tests/unit/mesh_world.h"
#include "utils/base/crc32c.h"
#include "utils/env/mesh_frame.h"

/* ---- claims ------------------------------------------------------------------------------------------------------------------------- */

START_TEST(a_hundred_thousand_messages_arrive_once_and_in_order_over_breaking_links)
{
	uint64_t views = 0, resent = 0, duplicates = 0, stashed = 0, old = 0, bad = 0, acks = 0;

	msw_init(MSW_NODES, 1);
	while (msw.delivered < 100000) {
		msw_step();
		if (csv_prng_chance(&msw.prng, 1, 300))
			msw_conn_break(csv_prng_below(&msw.prng, msw.n), csv_prng_below(&msw.prng, msw.n));
		if (csv_prng_chance(&msw.prng, 1, 5000)) {
			unsigned all = (1u << msw.n) - 1, part = csv_prng_below(&msw.prng, all + 1);

			if (part && part != all)
				msw_new_ring(part);
			if (part != all && csv_prng_chance(&msw.prng, 1, 2))
				msw_new_ring(all & ~part);
			else
				msw_new_ring(all);
		}
	}
	msw_new_ring((1u << msw.n) - 1);
	msw_settle();
	msw.calm = false;
	for (unsigned i = 0; i < 20000; i++)
		msw_step();
	msw_settle();
	msw_check_complete();
	for (unsigned i = 0; i < msw.n; i++) {
		const struct mesh_stats *st = mesh_stats(msw.node[i].mesh);

		views += cluster_stats(msw.node[i].cl)->views;
		resent += st->resent;
		duplicates += st->duplicates;
		stashed += st->stashed;
		old += st->dropped_old_view;
		bad += st->dropped_bad;
		acks += st->acks_sent;
	}
	printf("%llu messages delivered, %llu views, %llu breaks lost %llu frames, %llu resent, %llu duplicates dropped, "
	       "%llu stashed, %llu of old views dropped, %llu acks alone\n",
	       (unsigned long long)msw.delivered, (unsigned long long)views, (unsigned long long)msw.breaks,
	       (unsigned long long)msw.lost, (unsigned long long)resent, (unsigned long long)duplicates,
	       (unsigned long long)stashed, (unsigned long long)old, (unsigned long long)acks);
	ck_assert_uint_eq(bad, 0);
	ck_assert_uint_gt(views, 50);
	ck_assert_uint_gt(msw.breaks, 100);
	ck_assert_uint_gt(msw.lost, 100);
	ck_assert_uint_gt(resent, 100);
	ck_assert_uint_gt(duplicates, 10);
	ck_assert_uint_gt(stashed, 10);
	ck_assert_uint_gt(old, 10);
	msw_done();
}
END_TEST

START_TEST(the_window_bounds_what_is_on_the_link_and_the_queue_what_waits)
{
	struct msw_node *a;
	uint64_t n = 0, on_wire = 0;
	struct msw_ev *e;
	int rc;

	msw_init(2, 2);
	msw_settle();
	a = &msw.node[0];
	/* b reads nothing: the window fills, then the queue, then there is an error */
	while ((rc = msw_send(a, 1, MESH_MSG_MAX - sizeof(struct msw_payload))) == 0)
		n++;
	ck_assert_int_eq(rc, -ENOBUFS);
	cds_list_for_each_entry(e, &msw.node[1].wire[0], node)
		on_wire += e->len;
	ck_assert_uint_le(on_wire, MESH_WINDOW_BYTES);
	ck_assert_uint_gt(on_wire, MESH_WINDOW_BYTES - 2 * MESH_MSG_MAX);
	ck_assert_uint_le(n * MESH_MSG_MAX, MESH_WINDOW_BYTES + MESH_QUEUE_BYTES);
	ck_assert_uint_gt(n * MESH_MSG_MAX, MESH_QUEUE_BYTES - (1u << 20));
	msw.clk.now_ns += 700 * NS_PER_MS;
	ck_assert_uint_eq(mesh_unacked_ms(a->mesh, 2), 700);
	msw_settle();
	msw_check_complete();
	ck_assert_uint_eq(msw.node[1].got[0], n);
	printf("%llu messages of 64 KiB queued before -ENOBUFS, %llu bytes on the link\n", (unsigned long long)n,
	       (unsigned long long)on_wire);
	msw_done();
}
END_TEST

START_TEST(sending_is_refused_without_a_view_to_strangers_and_when_too_long)
{
	char buf[8] = { 0 };

	msw_init(2, 3);
	ck_assert_int_eq(mesh_send(msw.node[0].mesh, 2, CHAN_DLM, buf, 8), -ENOTCONN);
	ck_assert_int_eq(mesh_send(msw.node[0].mesh, 1, CHAN_DLM, buf, 8), -ENOTCONN);
	msw_settle();
	ck_assert_int_eq(mesh_send(msw.node[0].mesh, 3, CHAN_DLM, buf, 8), -ENOTCONN);
	ck_assert_int_eq(mesh_send(msw.node[0].mesh, 2, CHAN_DLM, buf, MESH_MSG_MAX + 1), -EMSGSIZE);
	msw_done();
}
END_TEST

START_TEST(to_oneself_goes_through_the_run_queue)
{
	msw_init(1, 4);
	msw_settle();
	ck_assert_int_eq(msw_send(&msw.node[0], 0, 0), 0);
	ck_assert_uint_eq(msw.delivered, 0);
	sched_run(msw.node[0].s);
	ck_assert_uint_eq(msw.delivered, 1);
	msw_done();
}
END_TEST

START_TEST(an_idle_mesh_is_silent)
{
	uint64_t acks;

	msw_init(2, 5);
	msw_settle();
	ck_assert_int_eq(msw_send(&msw.node[0], 1, 0), 0);
	msw_settle();
	acks = mesh_stats(msw.node[1].mesh)->acks_sent;
	ck_assert_uint_eq(acks, 1);
	fake_run_until(&msw.clk, msw.node[1].s, msw.clk.now_ns + 3600 * NS_PER_SEC);
	fake_run_until(&msw.clk, msw.node[0].s, msw.clk.now_ns + 3600 * NS_PER_SEC);
	ck_assert_uint_eq(mesh_stats(msw.node[1].mesh)->acks_sent, acks);
	ck_assert(cds_list_empty(&msw.node[0].wire[1]));
	msw_done();
}
END_TEST

/* ---- hostile frames (each: refused, counted, the link breaks, nothing is delivered) ------------------------------------------------- */

static uint8_t good[MESH_HEADER_BYTES + 256];
static size_t good_len;

static void setup_hostile(void)
{
	struct msw_ev *e;

	msw_init(3, 6);
	msw_settle();
	ck_assert_int_eq(msw_send(&msw.node[0], 1, 100), 0);
	e = cds_list_first_entry(&msw.node[1].wire[0], struct msw_ev, node);
	good_len = e->len;
	memcpy(good, e->buf, e->len);
}

static int feed_frame(uint32_t from, const void *buf, size_t len)
{
	struct msw_node *b = &msw.node[1];
	int rc = b->lev->frame(b->lev_arg, from, buf, len);

	if (rc < 0)
		ck_assert_uint_gt(strlen(mesh_bad_reason(b->mesh)), 10);
	return rc;
}

static void refused(const char *what, uint32_t from, const void *buf, size_t len)
{
	uint64_t before = mesh_stats(msw.node[1].mesh)->dropped_bad;
	int rc = feed_frame(from, buf, len);

	ck_assert_msg(rc < 0, "%s was accepted", what);
	ck_assert_uint_eq(mesh_stats(msw.node[1].mesh)->dropped_bad, before + 1);
	ck_assert_uint_eq(msw.delivered, 0);
}

/* Changes the frame and makes its checksum right again. */
static void refused_resealed(const char *what, unsigned at, const void *bytes, size_t n)
{
	uint8_t copy[sizeof(good)];
	struct le32 crc;

	memcpy(copy, good, good_len);
	memcpy(copy + at, bytes, n);
	memset(copy + 8, 0, 4);
	crc = le32_of(csv_crc32c(csv_crc32c(0, copy + MESH_HEADER_BYTES, good_len - MESH_HEADER_BYTES), copy,
				 MESH_HEADER_BYTES));
	memcpy(copy + 8, &crc, 4);
	refused(what, 1, copy, good_len);
}

START_TEST(malformed_frames_break_the_link_and_are_counted)
{
	static uint8_t big[MESH_HEADER_BYTES + MESH_MSG_MAX + 1];
	struct csv_prng prng;

	setup_hostile();
	for (size_t len = 0; len < good_len; len++)
		refused("a truncated frame", 1, good, len);
	refused("a frame that is too long", 1, big, sizeof(big));
	for (unsigned bit = 0; bit < good_len * 8; bit++) {
		uint8_t copy[sizeof(good)];

		memcpy(copy, good, good_len);
		copy[bit / 8] ^= 1u << bit % 8;
		refused("a flipped bit", 1, copy, good_len);
	}
	csv_prng_init(&prng, 1);
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t copy[200];

		csv_prng_bytes(&prng, copy, sizeof(copy));
		refused("random bytes", 1, copy, csv_prng_below(&prng, sizeof(copy) + 1));
	}
	refused_resealed("version 0", 4, "\0", 1);
	refused_resealed("a newer version", 4, "\x02", 1);
	refused_resealed("an unknown type", 5, "\x09", 1);
	refused_resealed("an unknown channel", 6, "\x08", 1);
	refused_resealed("unknown flags", 7, "\x01", 1);
	refused_resealed("length 0", 12, "\0\0\0\0", 4);
	refused_resealed("length 2^32-1", 12, "\xff\xff\xff\xff", 4);
	refused_resealed("another lockspace", 16, "\x01", 1);
	refused_resealed("another sender in the frame", 36, "\x03", 1);
	refused_resealed("incarnation 0", 40, "\0\0\0\0\0\0\0\0", 8);
	refused_resealed("sequence 0", 48, "\0\0\0\0\0\0\0\0", 8);
	refused_resealed("a gap", 48, "\x02", 1);
	refused_resealed("an acknowledgement of nothing sent", 56, "\x01", 1);
	refused_resealed("byte-swapped magic", 0, "SMVC", 4);
	refused("our own node id as the sender", 2, good, good_len);
	refused("a node that has no link", 9, good, good_len);
	ck_assert_int_eq(feed_frame(1, good, good_len), 0);	/* and nothing else was disturbed */
	ck_assert_uint_eq(msw.delivered, 1);
	msw_done();
}
END_TEST

START_TEST(another_incarnation_and_old_views_are_dropped_without_a_word)
{
	uint8_t copy[sizeof(good)];
	struct le32 crc;
	uint64_t old;

	setup_hostile();
	memcpy(copy, good, good_len);
	copy[40] ^= 1;
	memset(copy + 8, 0, 4);
	crc = le32_of(csv_crc32c(csv_crc32c(0, copy + MESH_HEADER_BYTES, good_len - MESH_HEADER_BYTES), copy,
				 MESH_HEADER_BYTES));
	memcpy(copy + 8, &crc, 4);
	ck_assert_int_eq(feed_frame(1, copy, good_len), 0);
	ck_assert_uint_eq(mesh_stats(msw.node[1].mesh)->dropped_old_view, 1);
	msw_new_ring(7);
	msw_settle();
	old = mesh_stats(msw.node[1].mesh)->dropped_old_view;
	msw.delivered = 0;
	ck_assert_int_eq(feed_frame(1, good, good_len), 0);
	ck_assert_uint_eq(mesh_stats(msw.node[1].mesh)->dropped_old_view, old + 1);
	ck_assert_uint_eq(msw.delivered, 0);
	ck_assert_uint_eq(mesh_stats(msw.node[1].mesh)->dropped_bad, 0);
	msw_done();
}
END_TEST

static uint16_t three(struct link_port *p, uint32_t peer)
{
	(void)p;
	ck_assert_uint_eq(peer, 1);
	return 3;
}

START_TEST(a_frame_of_a_version_that_was_not_settled_for_its_link_is_refused)
{
	setup_hostile();
	msw.node[1].link.settled = three;
	msw.node[1].lev->up(msw.node[1].lev_arg, 1);
	refused("a frame of the version before on a link that settled on another", 1, good, good_len);
	msw.node[1].link.settled = NULL;
	msw.node[1].lev->up(msw.node[1].lev_arg, 1);
	ck_assert_int_eq(feed_frame(1, good, good_len), 0);
	ck_assert_uint_eq(msw.delivered, 1);
	msw_done();
}
END_TEST

START_TEST(a_node_outside_the_view_cannot_speak_in_it)
{
	setup_hostile();
	msw_new_ring(6);		/* nodes 2 and 3; node 1 still has its link */
	msw_settle();
	msw.node[1].lev->up(msw.node[1].lev_arg, 1);
	{
		struct mesh_frame f;
		uint8_t frame[MESH_HEADER_BYTES];

		ck_assert_ptr_null(mesh_frame_decode(good, good_len, &f));
		f.ring = cluster_current(msw.node[1].cl)->ring;
		f.len = 0;
		mesh_frame_encode(&f, 0, frame);
		msw.delivered = 0;
		refused("a frame of our view from a node that is not in it", 1, frame, sizeof(frame));
	}
	msw_done();
}
END_TEST

START_TEST(the_stash_for_views_to_come_is_bounded)
{
	static uint8_t frame[MESH_HEADER_BYTES + MESH_MSG_MAX];
	struct mesh_frame f;
	uint64_t n = 0;
	int rc;

	setup_hostile();
	ck_assert_ptr_null(mesh_frame_decode(good, good_len, &f));
	f.ring.seq += 1u << 30;
	f.len = MESH_MSG_MAX;
	do {
		f.seq = ++n;
		mesh_frame_encode(&f, csv_crc32c(0, frame + MESH_HEADER_BYTES, MESH_MSG_MAX), frame);
		rc = feed_frame(1, frame, sizeof(frame));
	} while (rc == 0 && n < 1000);
	ck_assert_int_lt(rc, 0);
	ck_assert_uint_le((n - 1) * sizeof(frame), MESH_WINDOW_BYTES + sizeof(frame));
	ck_assert_uint_ge(n * sizeof(frame), MESH_WINDOW_BYTES);
	msw_done();
}
END_TEST

UNIT_MAIN("env_mesh",
	  UNIT_SLOW(a_hundred_thousand_messages_arrive_once_and_in_order_over_breaking_links, 0, 1, 120),
	  UNIT_SLOW(the_window_bounds_what_is_on_the_link_and_the_queue_what_waits, 0, 1, 60),
	  UNIT_TEST(sending_is_refused_without_a_view_to_strangers_and_when_too_long),
	  UNIT_TEST(to_oneself_goes_through_the_run_queue),
	  UNIT_TEST(an_idle_mesh_is_silent),
	  UNIT_SLOW(malformed_frames_break_the_link_and_are_counted, 0, 1, 60),
	  UNIT_TEST(another_incarnation_and_old_views_are_dropped_without_a_word),
	  UNIT_TEST(a_frame_of_a_version_that_was_not_settled_for_its_link_is_refused),
	  UNIT_TEST(a_node_outside_the_view_cannot_speak_in_it),
	  UNIT_TEST(the_stash_for_views_to_come_is_bounded))
