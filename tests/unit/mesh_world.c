/* mesh_world.c - engine, links and users of mesh_world.h, and what happens next. */
#include "tests/unit/mesh_world.h"

#include <errno.h>

#include "tests/unit/unit.h"

#define LOCKSPACE 0x1122334455667788ull

struct msw msw;

static struct msw_ev *ev_new(int kind, const void *buf, size_t len)
{
	struct msw_ev *e = calloc(1, sizeof(*e) + len);

	e->kind = kind;
	e->len = len;
	if (len)
		memcpy(e->buf, buf, len);
	return e;
}

static void push(struct cds_list_head *q, struct msw_ev *e)
{
	cds_list_add_tail(&e->node, q);
}

static struct msw_ev *pop(struct cds_list_head *q)
{
	struct msw_ev *e;

	if (cds_list_empty(q))
		return NULL;
	e = cds_list_first_entry(q, struct msw_ev, node);
	cds_list_del(&e->node);
	return e;
}

static void drop(struct cds_list_head *q)
{
	struct msw_ev *e;

	while ((e = pop(q)))
		free(e);
}

/* ---- a perfect engine ------------------------------------------------------------------------------------------------ */

static int port_start(struct cluster_port *p, const struct cluster_raw_events *ev, void *arg)
{
	struct msw_node *n = container_of(p, struct msw_node, port);

	n->raw = ev;
	n->raw_arg = arg;
	return 0;
}

static int port_send(struct cluster_port *p, const void *buf, size_t len)
{
	struct msw_node *n = container_of(p, struct msw_node, port);

	for (unsigned i = 0; i < msw.n; i++) {
		struct msw_ev *e = ev_new(EV_MSG, buf, len);

		e->from = n->id;
		if (ring_eq(msw.node[i].ring, n->ring))
			push(&msw.node[i].engine, e);
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

void msw_new_ring(unsigned mask)
{
	struct ring_id ring = { 1, msw.seq += 4 };

	for (unsigned i = 0; i < msw.n; i++) {
		struct msw_node *n = &msw.node[i];
		struct msw_ev *e;

		if (!(mask & 1u << i))
			continue;
		n->ring = ring;
		e = ev_new(EV_TOTEM, NULL, 0);
		e->ring = ring;
		push(&n->engine, e);
		e = ev_new(EV_MEMBERS, NULL, 0);
		for (unsigned k = 0; k < msw.n; k++)
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
	struct msw_node *n = container_of(p, struct msw_node, link);

	n->lev = ev;
	n->lev_arg = arg;
	return 0;
}

void msw_conn_break(unsigned a, unsigned b)
{
	struct msw_ev *e, *tmp;

	if (!msw.epoch[a][b])
		return;
	msw.breaks++;
	for (unsigned k = 0; k < 2; k++) {
		unsigned to = k ? a : b, from = k ? b : a;

		/* up() that has not been told yet stays: down() follows it */
		cds_list_for_each_entry_safe(e, tmp, &msw.node[to].wire[from], node) {
			if (e->kind != EV_FRAME)
				continue;
			cds_list_del(&e->node);
			free(e);
			msw.lost++;
		}
		e = ev_new(EV_DOWN, NULL, 0);
		push(&msw.node[to].wire[from], e);
	}
	msw.epoch[a][b] = msw.epoch[b][a] = 0;
}

static void conn_make(unsigned a, unsigned b)
{
	if (a == b || msw.epoch[a][b] || !msw.node[a].wants[b] || !msw.node[b].wants[a])
		return;
	msw.epoch[a][b] = msw.epoch[b][a] = ++msw.next_epoch;
	for (unsigned k = 0; k < 2; k++) {
		unsigned to = k ? a : b, from = k ? b : a;
		struct msw_ev *e = ev_new(EV_UP, NULL, 0);

		e->epoch = msw.next_epoch;
		push(&msw.node[to].wire[from], e);
	}
}

static void link_peers(struct link_port *p, const uint32_t *nodeid, uint32_t n)
{
	struct msw_node *me = container_of(p, struct msw_node, link);

	memset(me->wants, 0, sizeof(me->wants));
	for (uint32_t i = 0; i < n; i++)
		me->wants[nodeid[i] - 1] = true;
	for (unsigned i = 0; i < msw.n; i++)
		if (!me->wants[i])
			msw_conn_break(me->id - 1, i);
}

static int link_send(struct link_port *p, uint32_t peer, const void *buf, size_t len)
{
	struct msw_node *me = container_of(p, struct msw_node, link);
	struct msw_ev *e;

	if (!msw.epoch[me->id - 1][peer - 1] || msw.epoch[me->id - 1][peer - 1] != me->up_epoch[peer - 1])
		return -ENOTCONN;
	e = ev_new(EV_FRAME, buf, len);
	e->epoch = msw.epoch[me->id - 1][peer - 1];
	push(&msw.node[peer - 1].wire[me->id - 1], e);
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
	struct msw_node *n = arg;

	n->view = v->ring.seq;
	memset(n->sent, 0, sizeof(n->sent));
	memset(n->got, 0, sizeof(n->got));
}

static void user_msg(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct msw_node *n = arg;
	struct msw_payload pl;

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
	msw.delivered++;
}

int msw_send(struct msw_node *n, unsigned to, size_t extra)
{
	static uint8_t buf[MESH_MSG_MAX];
	struct msw_payload pl = { n->id, to + 1, n->view, n->sent[to] + 1 };
	int rc;

	memcpy(buf, &pl, sizeof(pl));
	rc = mesh_send(n->mesh, to + 1, CHAN_DLM, buf, sizeof(pl) + extra);
	if (rc == 0)
		n->sent[to]++;
	return rc;
}

/* ---- the world -------------------------------------------------------------------------------------------------------------------- */

static void feed_engine(struct msw_node *n)
{
	struct msw_ev *e = pop(&n->engine);

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

static void feed_wire(struct msw_node *n, unsigned from)
{
	struct msw_ev *e = pop(&n->wire[from]);

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
			msw_conn_break(n->id - 1, from);
		}
		break;
	}
	free(e);
}

void msw_step(void)
{
	struct msw_node *n = &msw.node[csv_prng_below(&msw.prng, msw.n)];
	unsigned k = csv_prng_below(&msw.prng, msw.n);

	switch (csv_prng_below(&msw.prng, 8)) {
	case 0: feed_engine(n); break;
	case 1: case 2: case 3: feed_wire(n, k); break;
	case 4: sched_run(n->s); break;
	case 5:
		msw.clk.now_ns += NS_PER_MS / 4;
		sched_run_timers(n->s, msw.clk.now_ns);
		break;
	case 6: conn_make(n->id - 1, k); break;
	case 7:
		if (!msw.calm && cluster_current(n->cl) && cluster_view_find(cluster_current(n->cl), k + 1))
			ck_assert_int_eq(msw_send(n, k, csv_prng_below(&msw.prng, 200)), 0);
		break;
	}
}

void msw_settle(void)
{
	unsigned idle = 0;

	msw.calm = true;
	while (idle < 3) {
		bool busy = false;

		for (unsigned i = 0; i < msw.n; i++) {
			struct msw_node *n = &msw.node[i];

			busy |= !cds_list_empty(&n->engine) || sched_ready(n->s);
			feed_engine(n);
			for (unsigned k = 0; k < msw.n; k++) {
				busy |= !cds_list_empty(&n->wire[k]);
				conn_make(i, k);
				feed_wire(n, k);
			}
			sched_run(n->s);
			sched_run_timers(n->s, msw.clk.now_ns);
		}
		msw.clk.now_ns += 20 * NS_PER_MS;
		idle = busy ? 0 : idle + 1;
	}
}

void msw_check_complete(void)
{
	for (unsigned i = 0; i < msw.n; i++) {
		for (unsigned k = 0; k < msw.n; k++) {
			if (msw.node[i].view != msw.node[k].view)
				continue;
			ck_assert_msg(msw.node[i].sent[k] == msw.node[k].got[i], "node %u sent %llu to %u, %llu arrived", i + 1,
				      (unsigned long long)msw.node[i].sent[k], k + 1,
				      (unsigned long long)msw.node[k].got[i]);
			ck_assert_uint_eq(mesh_unacked_ms(msw.node[i].mesh, k + 1), 0);
		}
	}
}

void msw_init(unsigned n, uint64_t seed)
{
	memset(&msw, 0, sizeof(msw));
	fake_clock_init(&msw.clk);
	csv_prng_init(&msw.prng, seed);
	msw.n = n;
	msw.seq = 100;
	for (unsigned i = 0; i < n; i++) {
		struct msw_node *k = &msw.node[i];
		struct cluster_user u = { .view = user_view, .arg = k };

		k->w = &msw;
		k->id = i + 1;
		k->port = (struct cluster_port){ &port_ops, k->id };
		k->link.ops = &link_ops;
		CDS_INIT_LIST_HEAD(&k->engine);
		for (unsigned j = 0; j < MSW_NODES; j++)
			CDS_INIT_LIST_HEAD(&k->wire[j]);
		k->s = sched_new(&msw.clk.clock);
		k->cl = cluster_new(k->s, &k->port, k->id * 100);
		k->mesh = mesh_new(k->s, k->cl, &k->link, LOCKSPACE);
		mesh_register(k->mesh, CHAN_DLM, user_msg, k);
		cluster_register(k->cl, CHAN_DLM, &u);
		ck_assert_int_eq(mesh_start(k->mesh), 0);
		ck_assert_int_eq(cluster_start(k->cl), 0);
	}
	msw_new_ring((1u << n) - 1);
}

void msw_done(void)
{
	for (unsigned i = 0; i < msw.n; i++) {
		mesh_free(msw.node[i].mesh);
		cluster_free(msw.node[i].cl);
		sched_free(msw.node[i].s);
	}
	for (unsigned i = 0; i < msw.n; i++) {
		drop(&msw.node[i].engine);
		for (unsigned k = 0; k < MSW_NODES; k++)
			drop(&msw.node[i].wire[k]);
	}
}
