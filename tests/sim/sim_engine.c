/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sim_engine.c - the group engine of the simulated world: rings, ordered messages, group membership, quorum (see sim_net.h).
 *
 * A ring orders items (messages, group changes); every member in the group gets each with a delay of its own, never out of
 * order.  When a ring forms, the nodes that come from the same old ring agree how far they deliver it: at least as far as any
 * of them has, at most as far as it was ordered; those who all stay together deliver all of it.
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_net_internal.h"

enum item_kind { ITEM_TOTEM, ITEM_MEMBERS, ITEM_MSG, ITEM_PROCDOWN, ITEM_QUORUM };

struct eng_item {
	struct cds_list_head node;
	enum item_kind kind;
	uint64_t due_ns;
	struct eng_ring *ring;
	uint64_t index;			/* in the ring's order; UINT64_MAX: not ordered */
	struct ring_id id;
	bool quorate;
	uint32_t from, mask;
	size_t len;
	uint8_t buf[];
};

#define TOKEN_NS (150 * NS_PER_MS)	/* until a missing node is noticed */
#define HOP_NS (60 * 1000ull)

static void items_free(struct cds_list_head *list)
{
	struct eng_item *it, *tmp;

	cds_list_for_each_entry_safe(it, tmp, list, node) {
		cds_list_del(&it->node);
		free(it);
	}
}

static struct eng_item *item_new(enum item_kind kind, size_t len)
{
	struct eng_item *it = calloc(1, sizeof(*it) + len);

	csv_assert(it);
	it->kind = kind;
	it->len = len;
	it->index = UINT64_MAX;
	return it;
}

/* ---- towards the daemon ------------------------------------------------------------------------------------------------ */

static uint32_t mask_to_list(uint32_t mask, uint32_t *ret_nodeid)
{
	uint32_t n = 0;

	for (unsigned i = 1; i <= SIM_NODES_MAX; i++)
		if (mask & 1u << i)
			ret_nodeid[n++] = i;
	return n;
}

static void hand_over(struct eng_node *e, struct eng_item *it)
{
	uint32_t ids[SIM_NODES_MAX], n;

	sim_world_trace(e->net->w, "engine", e->node, it->kind, it->ring ? it->ring->id.seq : it->id.seq);
	switch (it->kind) {
	case ITEM_TOTEM:
		e->told.ring = it->id;
		e->told.members = false;
		e->ev->expected(e->arg, e->expected);
		e->ev->totem(e->arg, it->id);
		break;
	case ITEM_MEMBERS:
		n = mask_to_list(it->mask, ids);
		e->told.mask = it->mask;
		e->told.members = true;
		e->ev->members(e->arg, ids, n);
		break;
	case ITEM_MSG:
		e->ev->msg(e->arg, it->from, it->buf, it->len);
		break;
	case ITEM_PROCDOWN:
		e->ev->procdown(e->arg, it->from);
		break;
	case ITEM_QUORUM:
		e->told.quorum_ring = it->id;
		e->told.quorate = it->quorate;
		e->ev->quorum(e->arg, it->id, it->quorate);
		break;
	}
}

const struct sim_told *sim_net_told(const struct sim_net *net, unsigned node)
{
	return &net->eng[node].told;
}

static void inbox_job(struct cds_list_head *inbox, struct eng_node *e, struct job *j)
{
	struct eng_item *it;

	if (cds_list_empty(inbox))
		return;
	it = cds_list_first_entry(inbox, struct eng_item, node);
	cds_list_del(&it->node);
	if (!cds_list_empty(inbox))
		sched_post(sim_world_sched(e->net->w, e->node), j);
	if (e->ev)
		hand_over(e, it);
	free(it);
}

static void cpg_job(struct job *j)
{
	struct eng_node *e = container_of(j, struct eng_node, job);

	inbox_job(&e->inbox, e, j);
}

static void quorum_job(struct job *j)
{
	struct eng_node *e = container_of(j, struct eng_node, quorum_job);

	inbox_job(&e->quorum_inbox, e, j);
}

static void due(struct eng_node *e, struct cds_list_head *pending, struct cds_list_head *inbox, struct job *j)
{
	struct eng_item *it, *tmp;

	cds_list_for_each_entry_safe(it, tmp, pending, node) {
		if (it->due_ns > sim_world_now_ns(e->net->w))
			break;
		cds_list_del(&it->node);
		if (it->index != UINT64_MAX && it->ring == e->ring)
			e->seen = it->index + 1;
		cds_list_add_tail(&it->node, inbox);
		sched_post(sim_world_sched(e->net->w, e->node), j);
	}
}

static void cpg_due(void *arg)
{
	struct eng_node *e = arg;

	due(e, &e->pending, &e->inbox, &e->job);
}

static void quorum_due(void *arg)
{
	struct eng_node *e = arg;

	due(e, &e->quorum_pending, &e->quorum_inbox, &e->quorum_job);
}

static void push(struct eng_node *e, struct eng_item *it)
{
	struct sim_world *w = e->net->w;

	it->due_ns = csv_max(e->last_due_ns, sim_world_now_ns(w) + sim_world_delay(w, HOP_NS));
	e->last_due_ns = it->due_ns;
	cds_list_add_tail(&it->node, &e->pending);
	sim_world_at_node(w, e->node, it->due_ns, cpg_due, e);
}

static void push_quorum(struct eng_node *e, struct ring_id id, bool quorate)
{
	struct sim_world *w = e->net->w;
	struct eng_item *it = item_new(ITEM_QUORUM, 0);
	/* Usually soon, sometimes long after the group has agreed. */
	uint64_t delay = sim_world_delay(w, sim_world_chance(w, 1, 4) ? 20 * NS_PER_MS : HOP_NS);

	it->id = id;
	it->quorate = quorate;
	it->due_ns = csv_max(e->last_quorum_ns, sim_world_now_ns(w) + delay);
	e->last_quorum_ns = it->due_ns;
	cds_list_add_tail(&it->node, &e->quorum_pending);
	sim_world_at_node(w, e->node, it->due_ns, quorum_due, e);
}

/* ---- order within a ring ------------------------------------------------------------------------------------------------- */

/* A copy to every member of the ring in the group. `it` stays the caller's. */
static void order(struct sim_net *net, struct eng_ring *r, const struct eng_item *it, uint32_t to)
{
	uint64_t index = r->log++;

	for (unsigned i = 1; i <= net->nodes; i++) {
		struct eng_item *copy;

		if (!(to & 1u << i) || !net->eng[i].ev)
			continue;
		copy = item_new(it->kind, it->len);
		copy->ring = r;
		copy->index = index;
		copy->from = it->from;
		copy->mask = it->mask;
		copy->id = it->id;
		memcpy(copy->buf, it->buf, it->len);
		push(&net->eng[i], copy);
	}
}

static void order_members(struct sim_net *net, struct eng_ring *r)
{
	struct eng_item it = { .kind = ITEM_MEMBERS, .mask = r->group };

	order(net, r, &it, r->group);
}

static void push_totem(struct eng_node *e, struct eng_ring *r)
{
	struct eng_item *it = item_new(ITEM_TOTEM, 0);

	it->ring = r;
	it->id = r->id;
	push(e, it);
}

static void push_members(struct eng_node *e, struct eng_ring *r, uint32_t mask)
{
	struct eng_item *it = item_new(ITEM_MEMBERS, 0);

	it->ring = r;
	it->mask = mask;
	push(e, it);
}

static void flush_unsent(void *arg)
{
	struct eng_node *e = arg;
	struct eng_item *it, *tmp;

	if (!e->ring || e->ring->broken || !e->ev)
		return;
	cds_list_for_each_entry_safe(it, tmp, &e->unsent, node) {
		order(e->net, e->ring, it, e->ring->group);
		cds_list_del(&it->node);
		free(it);
	}
}

/* ---- the port -------------------------------------------------------------------------------------------------------------- */

static void join_due(void *arg)
{
	struct eng_node *e = arg;
	struct eng_ring *r = e->ring;

	if (!r || r->broken || !e->ev || r->group & 1u << e->node)
		return;			/* the next ring takes it in */
	r->group |= 1u << e->node;
	push_totem(e, r);
	order_members(e->net, r);
	push_quorum(e, r->id, r->quorate);
}

static int eng_start(struct cluster_port *p, const struct cluster_raw_events *ev, void *arg)
{
	struct eng_node *e = container_of(p, struct eng_node, port);

	csv_assert(!e->ev);
	e->ev = ev;
	e->told = (struct sim_told){ 0 };
	e->arg = arg;
	sim_world_at_node(e->net->w, e->node, sim_world_now_ns(e->net->w) + sim_world_delay(e->net->w, NS_PER_MS), join_due, e);
	return 0;
}

static int eng_send(struct cluster_port *p, const void *buf, size_t len)
{
	struct eng_node *e = container_of(p, struct eng_node, port);
	struct sim_net *net = e->net;
	struct eng_item *it;

	if (!net->quiet && sim_world_chance(net->w, 1, 24)) {
		sim_world_count(net->w, "fault.pushback", 1);
		return -EAGAIN;
	}
	it = item_new(ITEM_MSG, len);
	it->from = e->node;
	memcpy(it->buf, buf, len);
	cds_list_add_tail(&it->node, &e->unsent);
	sim_world_at_node(net->w, e->node, sim_world_now_ns(net->w) + sim_world_delay(net->w, HOP_NS), flush_unsent, e);
	return 0;
}

static void eng_stop(struct cluster_port *p)
{
	struct eng_node *e = container_of(p, struct eng_node, port);

	if (e->ev)
		sim_engine_left(e->net, e->node, false);
}

static const struct cluster_port_ops eng_ops = { .start = eng_start, .send = eng_send, .stop = eng_stop };

static void daemon_gone(struct eng_node *e)
{
	struct sched *s = sim_world_sched(e->net->w, e->node);

	e->ev = NULL;
	items_free(&e->pending);
	items_free(&e->inbox);
	items_free(&e->quorum_pending);
	items_free(&e->quorum_inbox);
	items_free(&e->unsent);
	if (s) {
		sched_unpost(s, &e->job);
		sched_unpost(s, &e->quorum_job);
	}
	e->job.queued = e->quorum_job.queued = false;
}

void sim_engine_left(struct sim_net *net, unsigned node, bool died)
{
	struct eng_node *e = &net->eng[node];
	struct eng_ring *r = e->ring;

	/* What it had said and the engine had taken is said (it leaves behind its messages), when the ring can. */
	flush_unsent(e);
	daemon_gone(e);
	if (!r || r->broken || !(r->group & 1u << node))
		return;				/* the next ring is without it */
	r->group &= ~(1u << node);
	if (died) {
		struct eng_item it = { .kind = ITEM_PROCDOWN, .from = node };

		order(net, r, &it, r->group);
	}
	order_members(net, r);
}

/* ---- rings -------------------------------------------------------------------------------------------------------------------- */

static uint32_t reach(const struct sim_net *net, unsigned side)
{
	uint32_t mask = 0;

	for (unsigned i = 1; i <= net->nodes; i++)
		if (net->eng[i].up && net->eng[i].side == side)
			mask |= 1u << i;
	return mask;
}

/* The nodes of `mask` that come from old ring r agree on what of it is delivered. */
static void close_old(struct sim_net *net, struct eng_ring *r, uint32_t mask)
{
	uint64_t cut = 0;
	bool alone = !(mask & (mask - 1));

	for (unsigned i = 1; i <= net->nodes; i++)
		if (mask & 1u << i)
			cut = csv_max(cut, net->eng[i].seen);
	if (mask == r->mask)
		cut = r->log;
	else if (r->log > cut)
		cut += sim_world_below(net->w, r->log - cut + 1);
	for (unsigned i = 1; i <= net->nodes; i++) {
		struct eng_node *e = &net->eng[i];
		struct eng_item *it, *tmp;
		bool own;

		if (!(mask & 1u << i))
			continue;
		own = alone && sim_world_chance(net->w, 1, 2);
		cds_list_for_each_entry_safe(it, tmp, &e->pending, node) {
			if (it->ring != r || it->index == UINT64_MAX || it->index < cut)
				continue;
			if (own && it->kind == ITEM_MSG && it->from == i) {
				sim_world_count(net->w, "fault.self_delivery", 1);
				continue;
			}
			cds_list_del(&it->node);
			free(it);
		}
		if (!own || !e->ev)
			continue;
		cds_list_for_each_entry_safe(it, tmp, &e->unsent, node) {	/* what nobody else will ever get */
			cds_list_del(&it->node);
			it->ring = r;
			push(e, it);
			sim_world_count(net->w, "fault.self_delivery", 1);
		}
	}
}

/*
 * As the engine does: who has gone and who has come are two events, but no message is delivered between them (the group is
 * synchronised before the ring delivers anything).
 */
static void announce(struct sim_net *net, struct eng_ring *r, const uint32_t *from_group)
{
	bool two_steps = sim_world_chance(net->w, 1, 2);

	for (unsigned i = 1; i <= net->nodes; i++) {
		struct eng_node *e = &net->eng[i];

		if (!(r->group & 1u << i))
			continue;
		push_totem(e, r);
		if (two_steps && ((from_group[i] & r->group) | 1u << i) != r->group)
			push_members(e, r, (from_group[i] & r->group) | 1u << i);
		push_members(e, r, r->group);
	}
	for (unsigned i = 1; i <= net->nodes; i++) {
		struct eng_node *e = &net->eng[i];

		if (!(r->group & 1u << i))
			continue;
		if (r->quorate && sim_world_chance(net->w, 1, 8))
			push_quorum(e, r->id, false);
		push_quorum(e, r->id, r->quorate);
		sim_world_at_node(net->w, i, sim_world_now_ns(net->w) + sim_world_delay(net->w, 2 * NS_PER_MS), flush_unsent, e);
	}
}

static void form(struct sim_net *net, uint32_t mask)
{
	struct eng_ring *r = calloc(1, sizeof(*r));
	uint32_t from_group[SIM_NODES_MAX + 1] = { 0 }, done = 0;

	csv_assert(r);
	r->next = net->rings;
	net->rings = r;
	net->ring_seq += 4;
	r->id = (struct ring_id){ __builtin_ctz(mask), net->ring_seq };
	r->mask = mask;
	r->quorate = 2 * (unsigned)__builtin_popcount(mask) > net->nodes;
	sim_world_count(net->w, "op.rings", 1);
	sim_world_trace(net->w, "ring", r->id.seq, mask, r->quorate);
	for (unsigned i = 1; i <= net->nodes; i++) {
		struct eng_ring *old = net->eng[i].ring;
		uint32_t together = 0;

		if (!(mask & 1u << i) || done & 1u << i || !old)
			continue;
		for (unsigned k = 1; k <= net->nodes; k++)
			if (mask & 1u << k && net->eng[k].ring == old)
				together |= 1u << k;
		close_old(net, old, together);
		old->broken = true;
		for (unsigned k = 1; k <= net->nodes; k++)
			if (together & 1u << k)
				from_group[k] = old->group & together;
		done |= together;
	}
	for (unsigned i = 1; i <= net->nodes; i++) {
		struct eng_node *e = &net->eng[i];

		if (!(mask & 1u << i))
			continue;
		e->ring = r;
		e->seen = 0;
		if (e->ev)
			r->group |= 1u << i;
	}
	announce(net, r, from_group);
}

struct check { struct sim_net *net; unsigned side; };

static void check_due(void *arg)
{
	struct check *c = arg;
	uint32_t mask = reach(c->net, c->side);
	struct eng_ring *r = mask ? c->net->eng[__builtin_ctz(mask)].ring : NULL;
	bool good = r && !r->broken && r->mask == mask;

	for (unsigned i = 1; i <= c->net->nodes; i++)
		if (mask & 1u << i && c->net->eng[i].ring != r)
			good = false;
	if (mask && !good)
		form(c->net, mask);
}

void sim_engine_changed(struct sim_net *net)
{
	uint32_t sides = 0;

	for (unsigned i = 1; i <= net->nodes; i++) {
		struct eng_node *e = &net->eng[i];

		sides |= 1u << e->side;
		if (e->up && e->ring && e->ring->mask != reach(net, e->side))
			e->ring->broken = true;
	}
	for (struct eng_ring *r = net->rings; r; r = r->next)
		for (unsigned i = 1; i <= net->nodes; i++)
			if (r->mask & 1u << i && (!net->eng[i].up || net->eng[i].ring != r))
				r->broken = true;
	for (unsigned side = 0; side <= SIM_NODES_MAX; side++) {
		struct check c = { net, side };

		if (sides & 1u << side)
			sim_world_at_copy(net->w, sim_world_now_ns(net->w) + TOKEN_NS / 2 + sim_world_below(net->w, TOKEN_NS),
					  check_due, &c, sizeof(c));
	}
}

void sim_engine_token_loss(struct sim_net *net, unsigned node)
{
	if (!net->eng[node].ring)
		return;
	net->eng[node].ring->broken = true;
	sim_engine_changed(net);
}

/* ---- life ----------------------------------------------------------------------------------------------------------------------- */

void sim_engine_init(struct sim_net *net)
{
	for (unsigned i = 1; i <= net->nodes; i++) {
		struct eng_node *e = &net->eng[i];

		e->net = net;
		e->node = i;
		e->port.ops = &eng_ops;
		e->port.self = i;
		e->expected = net->nodes;
		CDS_INIT_LIST_HEAD(&e->pending);
		CDS_INIT_LIST_HEAD(&e->inbox);
		CDS_INIT_LIST_HEAD(&e->quorum_pending);
		CDS_INIT_LIST_HEAD(&e->quorum_inbox);
		CDS_INIT_LIST_HEAD(&e->unsent);
		job_init(&e->job, cpg_job);
		job_init(&e->quorum_job, quorum_job);
	}
}

void sim_engine_done(struct sim_net *net)
{
	while (net->rings) {
		struct eng_ring *r = net->rings;

		net->rings = r->next;
		free(r);
	}
}

void sim_engine_up(struct sim_net *net, unsigned node)
{
	struct eng_node *e = &net->eng[node];

	if (e->up)
		return;			/* only the daemon had died */
	e->up = true;
	e->ring = NULL;
	e->last_due_ns = e->last_quorum_ns = 0;
	sim_engine_changed(net);
}

void sim_engine_down(struct sim_net *net, unsigned node)
{
	struct eng_node *e = &net->eng[node];

	daemon_gone(e);
	e->up = false;
	e->ring = NULL;
	sim_engine_changed(net);
}
