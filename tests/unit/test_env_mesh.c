/*
 * utils/env/mesh.h: exactly once and in order per view, over links that break at any time, between nodes that learn of their
 * views at different times; hostile frames.
 */
#include <stdio.h>
#include "tests/unit/unit.h"

#include <errno.h>
#include <urcu/list.h>

#include "tests/unit/env_fake.h"
#include "utils/base/crc32c.h"
#include "utils/base/prng.h"
#include "utils/env/mesh.h"
#include "utils/env/mesh_frame.h"

#define NODES 4
#define LOCKSPACE 0x1122334455667788ull

struct ev {
	struct cds_list_head node;
	enum { EV_TOTEM, EV_MEMBERS, EV_QUORUM, EV_MSG, EV_UP, EV_DOWN, EV_FRAME } kind;
	struct ring_id ring;
	uint32_t from, n, m[NODES];
	unsigned epoch;
	size_t len;
	uint8_t buf[];
};

struct payload { uint32_t from, to; uint64_t view, count; };

struct node {
	struct cluster_port port;
	struct link_port link;
	struct world *w;
	uint32_t id;
	struct sched *s;
	struct cluster *cl;
	struct mesh *mesh;
	const struct cluster_raw_events *raw;
	void *raw_arg;
	const struct link_events *lev;
	void *lev_arg;
	struct ring_id ring;
	struct cds_list_head engine;		/* events of the engine, in order */
	struct cds_list_head wire[NODES];	/* from each node, in order */
	bool wants[NODES];
	unsigned up_epoch[NODES];		/* of the connection it was told of */
	/* the user: counts per peer in the current view */
	uint64_t view, sent[NODES], got[NODES];
	uint64_t frames_bad;
};

struct world {
	struct fake_clock clk;
	struct csv_prng prng;
	unsigned n;
	struct node node[NODES];
	uint64_t seq;
	unsigned epoch[NODES][NODES];		/* of the connection, 0: none */
	unsigned next_epoch;
	bool calm;
	uint64_t breaks, lost, delivered;
};

static struct world w;

static struct ev *ev_new(int kind, const void *buf, size_t len)
{
	struct ev *e = calloc(1, sizeof(*e) + len);

	e->kind = kind;
	e->len = len;
	if (len)
		memcpy(e->buf, buf, len);
	return e;
}

static void push(struct cds_list_head *q, struct ev *e)
{
	cds_list_add_tail(&e->node, q);
}

static struct ev *pop(struct cds_list_head *q)
{
	struct ev *e;

	if (cds_list_empty(q))
		return NULL;
	e = cds_list_first_entry(q, struct ev, node);
	cds_list_del(&e->node);
	return e;
}

static void drop(struct cds_list_head *q)
{
	struct ev *e;

	while ((e = pop(q)))
		free(e);
}

/* ---- a perfect engine ------------------------------------------------------------------------------------------------ */

static int port_start(struct cluster_port *p, const struct cluster_raw_events *ev, void *arg)
{
	struct node *n = container_of(p, struct node, port);

	n->raw = ev;
	n->raw_arg = arg;
	return 0;
}

static int port_send(struct cluster_port *p, const void *buf, size_t len)
{
	struct node *n = container_of(p, struct node, port);

	for (unsigned i = 0; i < w.n; i++) {
		struct ev *e = ev_new(EV_MSG, buf, len);

		e->from = n->id;
		if (ring_eq(w.node[i].ring, n->ring))
			push(&w.node[i].engine, e);
		else
			free(e);
	}
	return 0;
}

static void port_stop(struct cluster_port *p)
{
	(void)p;
}

static const struct cluster_port_ops port_ops = { port_start, port_send, port_stop };

/* A new ring of the nodes of `mask`; quorate unless `mute`. */
static void new_ring(unsigned mask)
{
	struct ring_id ring = { 1, w.seq += 4 };

	for (unsigned i = 0; i < w.n; i++) {
		struct node *n = &w.node[i];
		struct ev *e;

		if (!(mask & 1u << i))
			continue;
		n->ring = ring;
		e = ev_new(EV_TOTEM, NULL, 0);
		e->ring = ring;
		push(&n->engine, e);
		e = ev_new(EV_MEMBERS, NULL, 0);
		for (unsigned k = 0; k < w.n; k++)
			if (mask & 1u << k)
				e->m[e->n++] = k + 1;
		push(&n->engine, e);
		e = ev_new(EV_QUORUM, NULL, 0);
		e->ring = ring;
		push(&n->engine, e);
	}
}

/* ---- links that lose what is on them when they break ------------------------------------------------------------------------ */

static int link_start(struct link_port *p, const struct link_events *ev, void *arg)
{
	struct node *n = container_of(p, struct node, link);

	n->lev = ev;
	n->lev_arg = arg;
	return 0;
}

static void conn_break(unsigned a, unsigned b)
{
	struct ev *e, *tmp;

	if (!w.epoch[a][b])
		return;
	w.breaks++;
	for (unsigned k = 0; k < 2; k++) {
		unsigned to = k ? a : b, from = k ? b : a;

		/* up() that has not been told yet stays: down() follows it */
		cds_list_for_each_entry_safe(e, tmp, &w.node[to].wire[from], node) {
			if (e->kind != EV_FRAME)
				continue;
			cds_list_del(&e->node);
			free(e);
			w.lost++;
		}
		e = ev_new(EV_DOWN, NULL, 0);
		push(&w.node[to].wire[from], e);
	}
	w.epoch[a][b] = w.epoch[b][a] = 0;
}

static void conn_make(unsigned a, unsigned b)
{
	if (a == b || w.epoch[a][b] || !w.node[a].wants[b] || !w.node[b].wants[a])
		return;
	w.epoch[a][b] = w.epoch[b][a] = ++w.next_epoch;
	for (unsigned k = 0; k < 2; k++) {
		unsigned to = k ? a : b, from = k ? b : a;
		struct ev *e = ev_new(EV_UP, NULL, 0);

		e->epoch = w.next_epoch;
		push(&w.node[to].wire[from], e);
	}
}

static void link_peers(struct link_port *p, const uint32_t *nodeid, uint32_t n)
{
	struct node *me = container_of(p, struct node, link);

	memset(me->wants, 0, sizeof(me->wants));
	for (uint32_t i = 0; i < n; i++)
		me->wants[nodeid[i] - 1] = true;
	for (unsigned i = 0; i < w.n; i++)
		if (!me->wants[i])
			conn_break(me->id - 1, i);
}

static int link_send(struct link_port *p, uint32_t peer, const void *buf, size_t len)
{
	struct node *me = container_of(p, struct node, link);
	struct ev *e;

	if (!w.epoch[me->id - 1][peer - 1] || w.epoch[me->id - 1][peer - 1] != me->up_epoch[peer - 1])
		return -ENOTCONN;
	e = ev_new(EV_FRAME, buf, len);
	e->epoch = w.epoch[me->id - 1][peer - 1];
	push(&w.node[peer - 1].wire[me->id - 1], e);
	return 0;
}

static void link_stop(struct link_port *p)
{
	(void)p;
}

static const struct link_port_ops link_ops = { link_start, link_peers, link_send, link_stop };

/* ---- the users ------------------------------------------------------------------------------------------------------------------ */

static void user_view(void *arg, const struct cluster_view *v)
{
	struct node *n = arg;

	n->view = v->ring.seq;
	memset(n->sent, 0, sizeof(n->sent));
	memset(n->got, 0, sizeof(n->got));
}

static void user_msg(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct node *n = arg;
	struct payload pl;

	ck_assert_uint_ge(len, sizeof(pl));
	memcpy(&pl, buf, sizeof(pl));
	ck_assert_ptr_nonnull(cluster_current(n->cl));
	ck_assert_uint_eq(from.incarnation, from.nodeid * 100);
	ck_assert_uint_eq(pl.from, from.nodeid);
	ck_assert_uint_eq(pl.to, n->id);
	ck_assert_msg(pl.view == n->view, "M2: node %u in view %llx got a message of %llx", n->id,
		      (unsigned long long)n->view, (unsigned long long)pl.view);
	ck_assert_msg(pl.count == n->got[pl.from - 1] + 1, "M1: node %u from %u: message %llu after %llu", n->id, pl.from,
		      (unsigned long long)pl.count, (unsigned long long)n->got[pl.from - 1]);
	n->got[pl.from - 1]++;
	w.delivered++;
}

static int send_one(struct node *n, unsigned to, size_t extra)
{
	static uint8_t buf[MESH_MSG_MAX];
	struct payload pl = { n->id, to + 1, n->view, n->sent[to] + 1 };
	int rc;

	memcpy(buf, &pl, sizeof(pl));
	rc = mesh_send(n->mesh, to + 1, CHAN_DLM, buf, sizeof(pl) + extra);
	if (rc == 0)
		n->sent[to]++;
	return rc;
}

/* ---- the world -------------------------------------------------------------------------------------------------------------------- */

static void feed_engine(struct node *n)
{
	struct ev *e = pop(&n->engine);

	if (!e)
		return;
	switch ((int)e->kind) {
	case EV_TOTEM: n->raw->totem(n->raw_arg, e->ring); break;
	case EV_MEMBERS: n->raw->members(n->raw_arg, e->m, e->n); break;
	case EV_QUORUM: n->raw->quorum(n->raw_arg, e->ring, true); break;
	case EV_MSG: n->raw->msg(n->raw_arg, e->from, e->buf, e->len); break;
	}
	free(e);
}

static void feed_wire(struct node *n, unsigned from)
{
	struct ev *e = pop(&n->wire[from]);

	if (!e)
		return;
	switch ((int)e->kind) {
	case EV_UP:
		n->up_epoch[from] = e->epoch;
		n->lev->up(n->lev_arg, from + 1);
		break;
	case EV_DOWN:
		n->up_epoch[from] = 0;
		n->lev->down(n->lev_arg, from + 1);
		break;
	case EV_FRAME:
		if (n->lev->frame(n->lev_arg, from + 1, e->buf, e->len) < 0) {
			n->frames_bad++;
			conn_break(n->id - 1, from);
		}
		break;
	}
	free(e);
}

static void step(void)
{
	struct node *n = &w.node[csv_prng_below(&w.prng, w.n)];
	unsigned k = csv_prng_below(&w.prng, w.n);

	switch (csv_prng_below(&w.prng, 8)) {
	case 0: feed_engine(n); break;
	case 1: case 2: case 3: feed_wire(n, k); break;
	case 4: sched_run(n->s); break;
	case 5:
		w.clk.now_ns += NS_PER_MS / 4;
		sched_run_timers(n->s, w.clk.now_ns);
		break;
	case 6: conn_make(n->id - 1, k); break;
	case 7:
		if (!w.calm && cluster_current(n->cl) && cluster_view_find(cluster_current(n->cl), k + 1))
			ck_assert_int_eq(send_one(n, k, csv_prng_below(&w.prng, 200)), 0);
		break;
	}
}

static void settle(void)
{
	unsigned idle = 0;

	w.calm = true;
	while (idle < 3) {
		bool busy = false;

		for (unsigned i = 0; i < w.n; i++) {
			struct node *n = &w.node[i];

			busy |= !cds_list_empty(&n->engine) || sched_ready(n->s);
			feed_engine(n);
			for (unsigned k = 0; k < w.n; k++) {
				busy |= !cds_list_empty(&n->wire[k]);
				conn_make(i, k);
				feed_wire(n, k);
			}
			sched_run(n->s);
			sched_run_timers(n->s, w.clk.now_ns);
		}
		w.clk.now_ns += 20 * NS_PER_MS;
		idle = busy ? 0 : idle + 1;
	}
}

/* Everything sent in the view they are in has arrived and is acknowledged. */
static void check_complete(void)
{
	for (unsigned i = 0; i < w.n; i++) {
		for (unsigned k = 0; k < w.n; k++) {
			if (w.node[i].view != w.node[k].view)
				continue;
			ck_assert_msg(w.node[i].sent[k] == w.node[k].got[i], "node %u sent %llu to %u, %llu arrived", i + 1,
				      (unsigned long long)w.node[i].sent[k], k + 1,
				      (unsigned long long)w.node[k].got[i]);
			ck_assert_uint_eq(mesh_unacked_ms(w.node[i].mesh, k + 1), 0);
		}
	}
}

static void world_init(unsigned n, uint64_t seed)
{
	memset(&w, 0, sizeof(w));
	fake_clock_init(&w.clk);
	csv_prng_init(&w.prng, seed);
	w.n = n;
	w.seq = 100;
	for (unsigned i = 0; i < n; i++) {
		struct node *k = &w.node[i];
		struct cluster_user u = { .view = user_view, .arg = k };

		k->w = &w;
		k->id = i + 1;
		k->port = (struct cluster_port){ &port_ops, k->id };
		k->link.ops = &link_ops;
		CDS_INIT_LIST_HEAD(&k->engine);
		for (unsigned j = 0; j < NODES; j++)
			CDS_INIT_LIST_HEAD(&k->wire[j]);
		k->s = sched_new(&w.clk.clock);
		k->cl = cluster_new(k->s, &k->port, k->id * 100);
		k->mesh = mesh_new(k->s, k->cl, &k->link, LOCKSPACE);
		mesh_register(k->mesh, CHAN_DLM, user_msg, k);
		cluster_register(k->cl, CHAN_DLM, &u);
		ck_assert_int_eq(mesh_start(k->mesh), 0);
		ck_assert_int_eq(cluster_start(k->cl), 0);
	}
	new_ring((1u << n) - 1);
}

static void world_done(void)
{
	for (unsigned i = 0; i < w.n; i++) {
		mesh_free(w.node[i].mesh);
		cluster_free(w.node[i].cl);
		sched_free(w.node[i].s);
	}
	for (unsigned i = 0; i < w.n; i++) {
		drop(&w.node[i].engine);
		for (unsigned k = 0; k < NODES; k++)
			drop(&w.node[i].wire[k]);
	}
}

/* ---- claims ------------------------------------------------------------------------------------------------------------------------- */

START_TEST(a_hundred_thousand_messages_arrive_once_and_in_order_over_breaking_links)
{
	uint64_t views = 0, resent = 0, duplicates = 0, stashed = 0, old = 0, bad = 0, acks = 0;

	world_init(NODES, 1);
	while (w.delivered < 100000) {
		step();
		if (csv_prng_chance(&w.prng, 1, 300))
			conn_break(csv_prng_below(&w.prng, w.n), csv_prng_below(&w.prng, w.n));
		if (csv_prng_chance(&w.prng, 1, 5000)) {
			unsigned all = (1u << w.n) - 1, part = csv_prng_below(&w.prng, all + 1);

			if (part && part != all)
				new_ring(part);
			if (part != all && csv_prng_chance(&w.prng, 1, 2))
				new_ring(all & ~part);
			else
				new_ring(all);
		}
	}
	new_ring((1u << w.n) - 1);
	settle();
	w.calm = false;
	for (unsigned i = 0; i < 20000; i++)
		step();
	settle();
	check_complete();
	for (unsigned i = 0; i < w.n; i++) {
		const struct mesh_stats *st = mesh_stats(w.node[i].mesh);

		views += cluster_stats(w.node[i].cl)->views;
		resent += st->resent;
		duplicates += st->duplicates;
		stashed += st->stashed;
		old += st->dropped_old_view;
		bad += st->dropped_bad;
		acks += st->acks_sent;
	}
	printf("%llu messages delivered, %llu views, %llu breaks lost %llu frames, %llu resent, %llu duplicates dropped, "
	       "%llu stashed, %llu of old views dropped, %llu acks alone\n",
	       (unsigned long long)w.delivered, (unsigned long long)views, (unsigned long long)w.breaks,
	       (unsigned long long)w.lost, (unsigned long long)resent, (unsigned long long)duplicates,
	       (unsigned long long)stashed, (unsigned long long)old, (unsigned long long)acks);
	ck_assert_uint_eq(bad, 0);
	ck_assert_uint_gt(views, 50);
	ck_assert_uint_gt(w.breaks, 100);
	ck_assert_uint_gt(w.lost, 100);
	ck_assert_uint_gt(resent, 100);
	ck_assert_uint_gt(duplicates, 10);
	ck_assert_uint_gt(stashed, 10);
	ck_assert_uint_gt(old, 10);
	world_done();
}
END_TEST

START_TEST(the_window_bounds_what_is_on_the_link_and_the_queue_what_waits)
{
	struct node *a;
	uint64_t n = 0, on_wire = 0;
	struct ev *e;
	int rc;

	world_init(2, 2);
	settle();
	a = &w.node[0];
	/* b reads nothing: the window fills, then the queue, then there is an error */
	while ((rc = send_one(a, 1, MESH_MSG_MAX - sizeof(struct payload))) == 0)
		n++;
	ck_assert_int_eq(rc, -ENOBUFS);
	cds_list_for_each_entry(e, &w.node[1].wire[0], node)
		on_wire += e->len;
	ck_assert_uint_le(on_wire, MESH_WINDOW_BYTES);
	ck_assert_uint_gt(on_wire, MESH_WINDOW_BYTES - 2 * MESH_MSG_MAX);
	ck_assert_uint_le(n * MESH_MSG_MAX, MESH_WINDOW_BYTES + MESH_QUEUE_BYTES);
	ck_assert_uint_gt(n * MESH_MSG_MAX, MESH_QUEUE_BYTES - (1u << 20));
	w.clk.now_ns += 700 * NS_PER_MS;
	ck_assert_uint_eq(mesh_unacked_ms(a->mesh, 2), 700);
	settle();
	check_complete();
	ck_assert_uint_eq(w.node[1].got[0], n);
	printf("%llu messages of 64 KiB queued before -ENOBUFS, %llu bytes on the link\n", (unsigned long long)n,
	       (unsigned long long)on_wire);
	world_done();
}
END_TEST

START_TEST(sending_is_refused_without_a_view_to_strangers_and_when_too_long)
{
	char buf[8] = { 0 };

	world_init(2, 3);
	ck_assert_int_eq(mesh_send(w.node[0].mesh, 2, CHAN_DLM, buf, 8), -ENOTCONN);
	ck_assert_int_eq(mesh_send(w.node[0].mesh, 1, CHAN_DLM, buf, 8), -ENOTCONN);
	settle();
	ck_assert_int_eq(mesh_send(w.node[0].mesh, 3, CHAN_DLM, buf, 8), -ENOTCONN);
	ck_assert_int_eq(mesh_send(w.node[0].mesh, 2, CHAN_DLM, buf, MESH_MSG_MAX + 1), -EMSGSIZE);
	world_done();
}
END_TEST

START_TEST(to_oneself_goes_through_the_run_queue)
{
	world_init(1, 4);
	settle();
	ck_assert_int_eq(send_one(&w.node[0], 0, 0), 0);
	ck_assert_uint_eq(w.delivered, 0);
	sched_run(w.node[0].s);
	ck_assert_uint_eq(w.delivered, 1);
	world_done();
}
END_TEST

START_TEST(an_idle_mesh_is_silent)
{
	uint64_t acks;

	world_init(2, 5);
	settle();
	ck_assert_int_eq(send_one(&w.node[0], 1, 0), 0);
	settle();
	acks = mesh_stats(w.node[1].mesh)->acks_sent;
	ck_assert_uint_eq(acks, 1);
	fake_run_until(&w.clk, w.node[1].s, w.clk.now_ns + 3600 * NS_PER_SEC);
	fake_run_until(&w.clk, w.node[0].s, w.clk.now_ns + 3600 * NS_PER_SEC);
	ck_assert_uint_eq(mesh_stats(w.node[1].mesh)->acks_sent, acks);
	ck_assert(cds_list_empty(&w.node[0].wire[1]));
	world_done();
}
END_TEST

/* ---- hostile frames (each: refused, counted, the link breaks, nothing is delivered) ------------------------------------------------- */

static uint8_t good[MESH_HEADER_BYTES + 256];
static size_t good_len;

static void setup_hostile(void)
{
	struct ev *e;

	world_init(3, 6);
	settle();
	ck_assert_int_eq(send_one(&w.node[0], 1, 100), 0);
	e = cds_list_first_entry(&w.node[1].wire[0], struct ev, node);
	good_len = e->len;
	memcpy(good, e->buf, e->len);
}

static int feed_frame(uint32_t from, const void *buf, size_t len)
{
	struct node *b = &w.node[1];
	int rc = b->lev->frame(b->lev_arg, from, buf, len);

	if (rc < 0)
		ck_assert_uint_gt(strlen(mesh_bad_reason(b->mesh)), 10);
	return rc;
}

static void refused(const char *what, uint32_t from, const void *buf, size_t len)
{
	uint64_t before = mesh_stats(w.node[1].mesh)->dropped_bad;
	int rc = feed_frame(from, buf, len);

	ck_assert_msg(rc < 0, "%s was accepted", what);
	ck_assert_uint_eq(mesh_stats(w.node[1].mesh)->dropped_bad, before + 1);
	ck_assert_uint_eq(w.delivered, 0);
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
	ck_assert_uint_eq(w.delivered, 1);
	world_done();
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
	ck_assert_uint_eq(mesh_stats(w.node[1].mesh)->dropped_old_view, 1);
	new_ring(7);
	settle();
	old = mesh_stats(w.node[1].mesh)->dropped_old_view;
	w.delivered = 0;
	ck_assert_int_eq(feed_frame(1, good, good_len), 0);
	ck_assert_uint_eq(mesh_stats(w.node[1].mesh)->dropped_old_view, old + 1);
	ck_assert_uint_eq(w.delivered, 0);
	ck_assert_uint_eq(mesh_stats(w.node[1].mesh)->dropped_bad, 0);
	world_done();
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
	w.node[1].link.settled = three;
	w.node[1].lev->up(w.node[1].lev_arg, 1);
	refused("a frame of the version before on a link that settled on another", 1, good, good_len);
	w.node[1].link.settled = NULL;
	w.node[1].lev->up(w.node[1].lev_arg, 1);
	ck_assert_int_eq(feed_frame(1, good, good_len), 0);
	ck_assert_uint_eq(w.delivered, 1);
	world_done();
}
END_TEST

START_TEST(a_node_outside_the_view_cannot_speak_in_it)
{
	setup_hostile();
	new_ring(6);		/* nodes 2 and 3; node 1 still has its link */
	settle();
	w.node[1].lev->up(w.node[1].lev_arg, 1);
	{
		struct mesh_frame f;
		uint8_t frame[MESH_HEADER_BYTES];

		ck_assert_ptr_null(mesh_frame_decode(good, good_len, &f));
		f.ring = cluster_current(w.node[1].cl)->ring;
		f.len = 0;
		mesh_frame_encode(&f, 0, frame);
		w.delivered = 0;
		refused("a frame of our view from a node that is not in it", 1, frame, sizeof(frame));
	}
	world_done();
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
	world_done();
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
