/* SPDX-License-Identifier: GPL-2.0-only */
/* sim_link.c - connections between the nodes of the simulated world (see sim_net.h). */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_net_internal.h"

enum link_kind { LINK_UP, LINK_DOWN, LINK_FRAME };

struct link_item {
	struct cds_list_head node;
	enum link_kind kind;
	uint64_t epoch, due_ns;
	size_t len;
	uint8_t buf[];
};

#define WIRE_NS (50 * 1000ull)
#define LOST_NS (300 * NS_PER_MS)	/* until a connection that brings nothing is given up */
#define RESEND_NS (20 * NS_PER_MS)

static struct link_conn *conn_of(struct sim_net *net, unsigned a, unsigned b)
{
	return a < b ? &net->conn[a][b] : &net->conn[b][a];
}

static void items_free(struct cds_list_head *list)
{
	struct link_item *it, *tmp;

	cds_list_for_each_entry_safe(it, tmp, list, node) {
		cds_list_del(&it->node);
		free(it);
	}
}

/* Does what `from` sends get to `to`? */
bool sim_link_reaches(const struct sim_net *net, unsigned from, unsigned to)
{
	return net->eng[from].up && net->eng[to].up && net->eng[from].side == net->eng[to].side &&
	       net->cut_until_ns[from][to] <= sim_world_now_ns(net->w);
}

static bool both_ways(const struct sim_net *net, unsigned a, unsigned b)
{
	return sim_link_reaches(net, a, b) && sim_link_reaches(net, b, a);
}

static bool wanted(const struct sim_net *net, unsigned a, unsigned b)
{
	return net->link[a].ev && net->link[b].ev && net->link[a].wanted & 1u << b && net->link[b].wanted & 1u << a;
}

/* ---- towards a node -------------------------------------------------------------------------------------------------- */

static void side_job(struct job *j)
{
	struct link_side *s = container_of(j, struct link_side, job);
	struct link_node *l = &s->net->link[s->node];
	struct link_item *it;

	if (cds_list_empty(&s->inbox))
		return;
	it = cds_list_first_entry(&s->inbox, struct link_item, node);
	cds_list_del(&it->node);
	if (!cds_list_empty(&s->inbox))
		sched_post(sim_world_sched(s->net->w, s->node), j);
	sim_world_trace(s->net->w, "link", (uint64_t)s->node << 32 | s->peer, it->kind, it->len);
	if (!l->ev) {
		;
	} else if (it->kind == LINK_UP) {
		s->up = true;
		s->epoch = it->epoch;
		l->ev->up(l->arg, s->peer);
	} else if (it->kind == LINK_DOWN) {
		if (s->up && s->epoch == it->epoch) {
			s->up = false;
			l->ev->down(l->arg, s->peer);
		}
	} else if (s->up && s->epoch == it->epoch) {
		sim_world_count(s->net->w, "op.frames", 1);
		if (l->ev->frame(l->arg, s->peer, it->buf, it->len) < 0) {
			sim_world_count(s->net->w, "op.bad_frames", 1);
			sim_link_break(s->net, s->node, s->peer);
		}
	}
	free(it);
}

static void side_due(void *arg)
{
	struct link_side *s = arg;
	struct sim_world *w = s->net->w;
	struct link_item *it, *tmp;

	cds_list_for_each_entry_safe(it, tmp, &s->pending, node) {
		if (it->due_ns > sim_world_now_ns(w))
			break;
		/* Held back, and everything behind it: the network sends it again until the connection is given up. */
		if (it->kind == LINK_FRAME && !sim_link_reaches(s->net, s->peer, s->node)) {
			sim_world_at_node(w, s->node, sim_world_now_ns(w) + RESEND_NS, side_due, s);
			return;
		}
		cds_list_del(&it->node);
		cds_list_add_tail(&it->node, &s->inbox);
		sched_post(sim_world_sched(w, s->node), &s->job);
	}
	if (!cds_list_empty(&s->pending)) {
		it = cds_list_first_entry(&s->pending, struct link_item, node);
		sim_world_at_node(w, s->node, it->due_ns, side_due, s);
	}
}

static void push(struct sim_net *net, unsigned node, unsigned peer, enum link_kind kind, uint64_t epoch, uint64_t delay_ns,
		 const void *buf, size_t len)
{
	struct link_side *s = &net->link[node].side[peer];
	struct link_item *it;

	if (!net->link[node].ev)
		return;
	it = calloc(1, sizeof(*it) + len);
	csv_assert(it);
	it->kind = kind;
	it->epoch = epoch;
	it->len = len;
	if (len)
		memcpy(it->buf, buf, len);
	if (kind == LINK_DOWN) {		/* what is in flight is lost */
		struct link_item *old, *tmp;

		cds_list_for_each_entry_safe(old, tmp, &s->pending, node) {
			if (old->kind != LINK_FRAME || old->epoch != epoch)
				continue;
			cds_list_del(&old->node);
			free(old);
			sim_world_count(net->w, "fault.frames_lost", 1);
		}
	}
	it->due_ns = csv_max(s->last_due_ns, sim_world_now_ns(net->w) + delay_ns);
	s->last_due_ns = it->due_ns;
	cds_list_add_tail(&it->node, &s->pending);
	sim_world_at_node(net->w, node, it->due_ns, side_due, s);
}

/* ---- connections --------------------------------------------------------------------------------------------------------- */

struct pair { struct sim_net *net; unsigned a, b; uint64_t epoch; };

static void conn_check(struct sim_net *net, unsigned a, unsigned b);

static void open_due(void *arg)
{
	struct pair *p = arg;
	struct sim_net *net = p->net;
	struct link_conn *c = conn_of(net, p->a, p->b);

	c->opening = false;
	if (c->up || !wanted(net, p->a, p->b) || !both_ways(net, p->a, p->b))
		return;
	c->up = true;
	c->epoch++;
	push(net, p->a, p->b, LINK_UP, c->epoch, sim_world_delay(net->w, WIRE_NS), NULL, 0);
	push(net, p->b, p->a, LINK_UP, c->epoch, sim_world_delay(net->w, WIRE_NS), NULL, 0);
}

static void given_up(void *arg)
{
	struct pair *p = arg;
	struct link_conn *c = conn_of(p->net, p->a, p->b);

	if (c->up && c->epoch == p->epoch && !both_ways(p->net, p->a, p->b))
		sim_link_break(p->net, p->a, p->b);
}

static void conn_check(struct sim_net *net, unsigned a, unsigned b)
{
	struct link_conn *c = conn_of(net, a, b);
	struct pair p = { net, a, b, c->epoch };

	if (c->up && !both_ways(net, a, b)) {
		sim_world_at_copy(net->w, sim_world_now_ns(net->w) + sim_world_delay(net->w, LOST_NS), given_up, &p, sizeof(p));
	} else if (!c->up && !c->opening && wanted(net, a, b) && both_ways(net, a, b)) {
		c->opening = true;
		sim_world_at_copy(net->w, sim_world_now_ns(net->w) + sim_world_delay(net->w, 2 * NS_PER_MS), open_due, &p,
				  sizeof(p));
	}
}

void sim_link_changed(struct sim_net *net)
{
	for (unsigned a = 1; a <= net->nodes; a++)
		for (unsigned b = a + 1; b <= net->nodes; b++)
			conn_check(net, a, b);
}

void sim_link_break(struct sim_net *net, unsigned a, unsigned b)
{
	struct link_conn *c = conn_of(net, a, b);

	if (!c->up)
		return;
	c->up = false;
	push(net, a, b, LINK_DOWN, c->epoch, sim_world_delay(net->w, WIRE_NS), NULL, 0);
	push(net, b, a, LINK_DOWN, c->epoch, sim_world_delay(net->w, WIRE_NS), NULL, 0);
	conn_check(net, a, b);
}

/* ---- the port -------------------------------------------------------------------------------------------------------------- */

static int link_start(struct link_port *p, const struct link_events *ev, void *arg)
{
	struct link_node *l = container_of(p, struct link_node, port);

	csv_assert(!l->ev);
	l->ev = ev;
	l->arg = arg;
	l->wanted = 0;
	return 0;
}

static void link_peers(struct link_port *p, const uint32_t *nodeid, uint32_t n)
{
	struct link_node *l = container_of(p, struct link_node, port);
	uint32_t before = l->wanted;

	l->wanted = 0;
	for (uint32_t i = 0; i < n; i++)
		l->wanted |= 1u << nodeid[i];
	for (unsigned i = 1; i <= l->net->nodes; i++)
		if (before & ~l->wanted & 1u << i)
			sim_link_break(l->net, l->node, i);
	sim_link_changed(l->net);
}

static int link_send(struct link_port *p, uint32_t peer, const void *buf, size_t len)
{
	struct link_node *l = container_of(p, struct link_node, port);
	struct link_side *s = &l->side[peer];
	struct link_conn *c = conn_of(l->net, l->node, peer);

	if (!s->up)
		return -ENOTCONN;
	if (c->up && c->epoch == s->epoch)		/* else it is broken and we have not noticed */
		push(l->net, peer, l->node, LINK_FRAME, s->epoch, sim_world_delay(l->net->w, WIRE_NS), buf, len);
	return 0;
}

static void link_reset(struct link_node *l)
{
	struct sched *sc = sim_world_sched(l->net->w, l->node);

	l->ev = NULL;
	l->wanted = 0;
	for (unsigned i = 1; i <= l->net->nodes; i++) {
		struct link_side *s = &l->side[i];

		items_free(&s->pending);
		items_free(&s->inbox);
		if (sc)
			sched_unpost(sc, &s->job);
		s->job.queued = false;
		s->up = false;
		s->last_due_ns = 0;
	}
}

static void link_stop(struct link_port *p)
{
	struct link_node *l = container_of(p, struct link_node, port);

	if (l->ev)
		sim_link_down(l->net, l->node, false);
}

static const struct link_port_ops link_ops = { .start = link_start, .peers = link_peers, .send = link_send, .stop = link_stop };

void sim_link_down(struct sim_net *net, unsigned node, bool power)
{
	link_reset(&net->link[node]);
	for (unsigned i = 1; i <= net->nodes; i++) {
		struct link_conn *c = conn_of(net, node, i);

		if (i == node || !c->up)
			continue;
		c->up = false;
		push(net, i, node, LINK_DOWN, c->epoch, sim_world_delay(net->w, power ? LOST_NS : WIRE_NS), NULL, 0);
	}
}

void sim_link_init(struct sim_net *net)
{
	for (unsigned i = 1; i <= net->nodes; i++) {
		struct link_node *l = &net->link[i];

		l->net = net;
		l->node = i;
		l->port.ops = &link_ops;
		for (unsigned k = 1; k <= net->nodes; k++) {
			struct link_side *s = &l->side[k];

			s->net = net;
			s->node = i;
			s->peer = k;
			CDS_INIT_LIST_HEAD(&s->pending);
			CDS_INIT_LIST_HEAD(&s->inbox);
			job_init(&s->job, side_job);
		}
	}
}
