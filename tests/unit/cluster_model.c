/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cluster_model.c - see cluster_model.h.
 */
#include "tests/unit/cluster_model.h"

#include <errno.h>
#include <stdarg.h>

static void violated(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void violated(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (w->violation[0])
		return;
	va_start(ap, fmt);
	vsnprintf(w->violation, sizeof(w->violation), fmt, ap);
	va_end(ap);
}

static bool chance(struct world *w, unsigned percent)
{
	return csv_prng_chance(&w->prng, percent, 100);
}

/* ---- the engine ------------------------------------------------------------------------------------------------ */

static struct ev *ev_new(enum ev_kind kind, const void *buf, size_t len)
{
	struct ev *e = calloc(1, sizeof(*e) + len);

	e->kind = kind;
	e->len = len;
	if (len)
		memcpy(e->buf, buf, len);
	return e;
}

void cm_ev_drop(struct cds_list_head *q)
{
	struct ev *e, *tmp;

	cds_list_for_each_entry_safe(e, tmp, q, node) {
		cds_list_del(&e->node);
		free(e);
	}
}

static void push(struct cds_list_head *q, struct ev *e)
{
	cds_list_add_tail(&e->node, q);
}

/* What corosync of this node expects in this ring: the node list grows and shrinks, not everywhere at once; sometimes it is not known. */
static uint32_t votes_in(const struct node *n, struct ring_id ring)
{
	uint32_t x = (uint32_t)(ring.seq * 2654435761u) >> 16;

	return (x + n->id) % 13 ? n->w->n + (x + n->id) % 3 : 0;
}

static void push_members(struct world *w, struct node *to, unsigned component)
{
	struct ev *e = ev_new(EV_MEMBERS, NULL, 0);

	for (unsigned i = 0; i < w->n; i++)
		if (w->node[i].proc && w->node[i].component == component)
			e->m[e->n++] = w->node[i].id;
	push(&to->stream, e);
}

static void order_message(struct world *w, struct node *from, struct ev *e, bool alone)
{
	for (unsigned i = 0; i < w->n; i++) {
		struct node *to = &w->node[i];

		if (!to->proc || to->component != from->component || (alone && to != from))
			continue;
		struct ev *copy = ev_new(EV_MSG, e->buf, e->len);
		copy->from = from->id;
		push(&to->stream, copy);
	}
	free(e);
}

static uint32_t msg_id(const struct ev *e)
{
	uint32_t id = 0;

	if (e->len == 40 + 4)	/* header of the tracker and our four bytes */
		memcpy(&id, e->buf + 40, 4);
	return id;
}

void cm_order_one(struct world *w, struct node *n)
{
	struct ev *e;

	if (cds_list_empty(&n->outbox))
		return;
	e = cds_list_first_entry(&n->outbox, struct ev, node);
	cds_list_del(&e->node);
	order_message(w, n, e, false);
}

void cm_new_ring(struct world *w, unsigned component)
{
	struct ring_id ring = { 0, w->seq += 4 };
	unsigned size = 0;

	for (unsigned i = 0; i < w->n; i++)
		if (w->node[i].component == component && !size++)
			ring.nodeid = w->node[i].id;
	for (unsigned i = 0; i < w->n; i++) {
		struct node *n = &w->node[i];
		struct ev *e;

		if (n->component != component)
			continue;
		n->ring = ring;
		if (chance(w, 30) && n->proc)	/* the group change may be told before its ring */
			push_members(w, n, component);
		e = ev_new(EV_TOTEM, NULL, 0);
		e->ring = ring;
		if (n->proc)
			push(&n->stream, e);
		else
			free(e);
		if (n->proc)
			push_members(w, n, component);
		for (unsigned k = chance(w, 30) ? 0 : 1; k < 2 && n->proc; k++) {
			e = ev_new(EV_QUORUM, NULL, 0);
			e->ring = ring;
			e->quorate = k == 1 && size > w->n / 2;
			push(&n->quorum, e);
		}
	}
}

void cm_partition(struct world *w, unsigned parts)
{
	unsigned used[NODES] = { 0 };

	/* What was on its way in the old rings: lost to all but the sender, or sent again in the new ring. */
	for (unsigned i = 0; i < w->n; i++) {
		struct node *n = &w->node[i];

		while (!cds_list_empty(&n->outbox) && chance(w, 40)) {
			struct ev *e = cds_list_first_entry(&n->outbox, struct ev, node);

			cds_list_del(&e->node);
			w->msg_alone[msg_id(e)] = true;
			w->alone++;
			order_message(w, n, e, true);
		}
	}
	for (unsigned i = 0; i < w->n; i++) {
		unsigned part = csv_prng_below(&w->prng, parts);

		if (!used[part])
			used[part] = 1;
		w->node[i].component = part;
	}
	for (unsigned part = 0; part < parts; part++)
		if (used[part])
			cm_new_ring(w, part);
}

/* ---- the port and the user of one node ------------------------------------------------------------------------------ */

static int port_start(struct cluster_port *p, const struct cluster_raw_events *to, void *arg)
{
	struct node *n = container_of(p, struct node, port);

	n->to = to;
	n->to_arg = arg;
	return 0;
}

static int port_send(struct cluster_port *p, const void *buf, size_t len)
{
	struct node *n = container_of(p, struct node, port);

	if (!n->w->calm && chance(n->w, 10))
		return -EAGAIN;
	push(&n->outbox, ev_new(EV_MSG, buf, len));
	return 0;
}

static void port_stop(struct cluster_port *p)
{
	container_of(p, struct node, port)->to = NULL;
}

const struct cluster_port_ops cm_port_ops = { port_start, port_send, port_stop };

/* Of its own: the order of views is among what is tested. */
static bool view_is_after(struct ring_id a, struct ring_id b)
{
	return a.seq > b.seq || (a.seq == b.seq && a.nodeid > b.nodeid);
}

static void user_suspend(void *arg)
{
	struct node *n = arg;

	if (!n->usable)
		violated(n->w, "node %u: suspend without a view", n->id);
	if (cluster_current(n->c))
		violated(n->w, "node %u: still usable inside suspend", n->id);
	n->usable = false;
}

static void user_view(void *arg, const struct cluster_view *v)
{
	struct node *n = arg;
	struct world *w = n->w;
	struct seen_view *sv = NULL;

	w->got_views++;
	if (n->usable)
		violated(w, "node %u: a view without a suspend before it", n->id);
	if (!view_is_after(v->ring, n->last_view))
		violated(w, "node %u: view %u.%llx after %u.%llx", n->id, v->ring.nodeid, (long long)v->ring.seq,
			 n->last_view.nodeid, (long long)n->last_view.seq);
	if (!ring_eq(n->fed_ring, n->fed_quorum_ring) || !n->fed_quorate ||
	    v->ring.seq >> CLUSTER_ROUND_BITS != n->fed_ring.seq || v->ring.nodeid != n->fed_ring.nodeid)
		violated(w, "node %u: C1: view %u.%llx, totem ring %llx, quorum ring %llx %d", n->id, v->ring.nodeid,
			 (long long)v->ring.seq, (long long)n->fed_ring.seq, (long long)n->fed_quorum_ring.seq,
			 n->fed_quorate);
	for (unsigned i = 0; i < w->n_views && !sv; i++)
		if (ring_eq(w->views[i].v.ring, v->ring))
			sv = &w->views[i];
	if (!sv && w->n_views < VIEWS_MAX) {
		sv = &w->views[w->n_views++];
		memset(sv, 0, sizeof(*sv));
		sv->v = *v;
	}
	if (sv && !fake_views_share_a_life(&sv->v, v))
		*sv = (struct seen_view){ .v = *v };	/* all processes of the group ended before this one */
	if (sv && (sv->v.n != v->n || memcmp(sv->v.m, v->m, v->n * sizeof(v->m[0]))))
		violated(w, "node %u: C3: view %llx has %u members here, %u elsewhere, or other incarnations", n->id,
			 (long long)v->ring.seq, v->n, sv->v.n);
	if (sv && sv->v.votes != v->votes)
		violated(w, "node %u: C8: view %llx expects %u votes here, %u elsewhere", n->id, (long long)v->ring.seq, v->votes, sv->v.votes);
	if (v->votes && v->votes < n->votes_most)
		violated(w, "node %u: C8: view %llx expects %u votes, and there have been %u", n->id, (long long)v->ring.seq, v->votes, n->votes_most);
	if (!cluster_view_find(v, n->id) || cluster_view_find(v, n->id)->incarnation != n->incarnation)
		violated(w, "node %u: not itself in its view", n->id);
	n->usable = true;
	n->last_view = v->ring;
	n->in = sv;
	n->at_msg = 0;
}

static void user_msg(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct node *n = arg;
	struct world *w = n->w;
	const struct cluster_node *who = cluster_view_find(cluster_current(n->c), from.nodeid);
	uint32_t id;

	w->got_msgs++;
	memcpy(&id, buf, sizeof(id));
	if (len != sizeof(id) || !n->usable || !who || who->incarnation != from.incarnation)
		violated(w, "node %u: message of a stranger", n->id);
	if (!ring_eq(w->msg_view[id], n->last_view))
		violated(w, "node %u: C5: message %u of view %llx in view %llx", n->id, id,
			 (long long)w->msg_view[id].seq, (long long)n->last_view.seq);
	if (w->msg_alone[id] || !n->in || n->at_msg >= ARRAY_SIZE(n->in->msgs))
		return;
	if (n->at_msg == n->in->n_msgs)
		n->in->msgs[n->in->n_msgs++] = id;
	else if (n->in->msgs[n->at_msg] != id)
		violated(w, "node %u: message %u where another node had %u", n->id, id, n->in->msgs[n->at_msg]);
	n->at_msg++;
}

static uint64_t dead_life[64];	/* of the process whose death notice is being fed */
static unsigned n_dead_lives;
static void user_procdown(void *arg, struct cluster_node who)
{
	struct node *n = arg;

	n->w->proofs++;
	if (n->usable)
		violated(n->w, "node %u: usable with a dead member", n->id);
	for (unsigned i = 0; i < n_dead_lives; i++)
		if (who.incarnation == dead_life[i])
			return;
	violated(n->w, "node %u: proof for node %u life %llu, died %llu", n->id, who.nodeid, (long long)who.incarnation,
		 (long long)dead_life[0]);
}

/* ---- life of a process ------------------------------------------------------------------------------------------------ */

static void new_life(struct world *w, struct node *n)
{
	n->incarnation = n->life_of_process[n->n_lives++] = ++w->next_incarnation;
}

void cm_start(struct world *w, struct node *n)
{
	struct cluster_user u = { .suspend = user_suspend, .view = user_view, .msg = user_msg, .procdown = user_procdown,
				  .arg = n };
	struct ev *e;

	n->s = sched_new(&w->clk.clock);
	n->n_lives = 0;
	new_life(w, n);
	n->c = cluster_new(n->s, &n->port, n->incarnation);
	cluster_register(n->c, CHAN_FS, &u);
	cluster_set_round(n->c, CM_ROUND_NS);
	n->votes_most = 0;
	if (w->mutate)
		cluster_mutate_ignore_ring(n->c);
	if (w->own_votes)
		cluster_mutate_own_votes(n->c);
	ck_assert_int_eq(cluster_start(n->c), 0);
	n->proc = true;
	n->usable = false;
	n->fed_ring = n->fed_quorum_ring = (struct ring_id){ 0, 0 };
	n->fed_quorate = false;
	n->last_view = (struct ring_id){ 0, 0 };
	n->in = NULL;
	if (!n->ring.seq)
		return;
	e = ev_new(EV_TOTEM, NULL, 0);
	e->ring = n->ring;
	push(&n->stream, e);
	unsigned size = 0;
	for (unsigned i = 0; i < w->n; i++) {
		if (w->node[i].component != n->component)
			continue;
		size++;
		if (w->node[i].proc)
			push_members(w, &w->node[i], n->component);
	}
	e = ev_new(EV_QUORUM, NULL, 0);
	e->ring = n->ring;
	e->quorate = size > w->n / 2;
	push(&n->quorum, e);
}

void cm_kill(struct world *w, struct node *n, bool tell)
{
	while (!cds_list_empty(&n->outbox))
		cm_order_one(w, n);
	n->proc = false;
	cluster_free(n->c);
	sched_free(n->s);
	n->c = NULL;
	cm_ev_drop(&n->stream);
	cm_ev_drop(&n->quorum);
	if (!tell)
		return;
	for (unsigned i = 0; i < w->n; i++) {
		struct node *to = &w->node[i];
		struct ev *e;

		if (!to->proc || to->component != n->component)
			continue;
		e = ev_new(EV_PROCDOWN, n->life_of_process, n->n_lives * sizeof(uint64_t));
		e->from = n->id;
		push(&to->stream, e);
		push_members(w, to, n->component);
	}
}

void cm_feed(struct world *w, struct node *n, struct cds_list_head *q)
{
	struct ev *e;

	if (!n->proc || cds_list_empty(q))
		return;
	e = cds_list_first_entry(q, struct ev, node);
	cds_list_del(&e->node);
	switch (e->kind) {
	case EV_TOTEM:
		n->fed_ring = e->ring;
		n->to->expected(n->to_arg, votes_in(n, e->ring));
		n->votes_most = csv_max(n->votes_most, votes_in(n, e->ring));
		n->to->totem(n->to_arg, e->ring);
		if (cluster_current(n->c) && !w->mutate)
			violated(w, "node %u: C2: usable right after a ring change", n->id);
		break;
	case EV_MEMBERS:
		n->to->members(n->to_arg, e->m, e->n);
		break;
	case EV_QUORUM:
		n->fed_quorum_ring = e->ring;
		n->fed_quorate = e->quorate;
		n->to->quorum(n->to_arg, e->ring, e->quorate);
		break;
	case EV_MSG:
		n->to->msg(n->to_arg, e->from, e->buf, e->len);
		break;
	case EV_PROCDOWN:
		memcpy(dead_life, e->buf, e->len);
		n_dead_lives = e->len / sizeof(uint64_t);
		n->to->procdown(n->to_arg, e->from);
		break;
	}
	if (cluster_current(n->c) && (!ring_eq(n->fed_ring, n->fed_quorum_ring) || !n->fed_quorate))
		violated(w, "node %u: C1: usable although the last word was ring %llx, quorum %llx %d", n->id,
			 (long long)n->fed_ring.seq, (long long)n->fed_quorum_ring.seq, n->fed_quorate);
	if (n->usable != !!cluster_current(n->c))
		violated(w, "node %u: the user was not told", n->id);
	free(e);
}

void cm_user_sends(struct world *w, struct node *n)
{
	const struct cluster_view *v = n->proc ? cluster_current(n->c) : NULL;
	uint32_t id = w->next_msg;

	if (!v || id >= MSGS_MAX)
		return;
	w->msg_view[id] = v->ring;
	ck_assert_int_eq(cluster_send(n->c, CHAN_FS, &id, sizeof(id)), 0);
	w->next_msg++;
}

void cm_step(struct world *w)
{
	struct node *n = &w->node[csv_prng_below(&w->prng, w->n)];

	switch (csv_prng_below(&w->prng, 8)) {
	case 0: case 1: cm_feed(w, n, &n->stream); break;
	case 2: cm_feed(w, n, &n->quorum); break;
	case 3: case 4: cm_order_one(w, n); break;
	case 5: if (!w->calm) cm_user_sends(w, n); break;
	case 6: if (n->proc) sched_step(n->s); break;
	case 7:
		w->clk.now_ns += NS_PER_MS;
		if (n->proc)
			sched_run_timers(n->s, w->clk.now_ns);
		break;
	}
}

void cm_fault(struct world *w)
{
	struct node *n = &w->node[csv_prng_below(&w->prng, w->n)];

	switch (csv_prng_below(&w->prng, 5)) {
	case 0: cm_partition(w, 1 + csv_prng_below(&w->prng, 3)); break;
	case 1: cm_partition(w, 1); break;
	case 2:
		if (n->proc)
			cm_kill(w, n, true);
		break;
	case 3:
		if (!n->proc)
			cm_start(w, n);
		break;
	case 4:
		if (n->proc && n->n_lives < ARRAY_SIZE(n->life_of_process) && chance(w, 30)) {
			new_life(w, n);
			cluster_new_incarnation(n->c, n->incarnation);
			sched_run(n->s);	/* the old life ends here */
		}
		break;
	}
}

bool cm_own_votes;

void cm_init(struct world *w, uint64_t seed, unsigned n, bool mutate)
{
	memset(w, 0, sizeof(*w));
	fake_clock_init(&w->clk);
	csv_prng_init(&w->prng, seed);
	w->n = n;
	w->mutate = mutate;
	w->own_votes = cm_own_votes;
	w->seq = 100;
	w->next_msg = 1;
	w->views = calloc(VIEWS_MAX, sizeof(*w->views));
	for (unsigned i = 0; i < n; i++) {
		struct node *k = &w->node[i];

		k->w = w;
		k->id = i + 1;
		k->port = (struct cluster_port){ &cm_port_ops, k->id };
		CDS_INIT_LIST_HEAD(&k->stream);
		CDS_INIT_LIST_HEAD(&k->quorum);
		CDS_INIT_LIST_HEAD(&k->outbox);
	}
	for (unsigned i = 0; i < n; i++)
		cm_start(w, &w->node[i]);
	cm_new_ring(w, 0);
}

void cm_done(struct world *w)
{
	for (unsigned i = 0; i < w->n; i++) {
		if (w->node[i].proc)
			cm_kill(w, &w->node[i], false);
		cm_ev_drop(&w->node[i].outbox);
		cm_ev_drop(&w->node[i].stream);
	}
	free(w->views);
}

void cm_sides(struct world *w, const char *side)
{
	for (unsigned i = 0; i < w->n; i++)
		w->node[i].component = (unsigned)(side[i] - 'a');
	for (char c = 'a'; c <= 'z'; c++)
		if (strchr(side, c))
			cm_new_ring(w, (unsigned)(c - 'a'));
	cm_settle(w);
	w->clk.now_ns += NS_PER_SEC;
}

void cm_flow(struct world *w)
{
	unsigned idle = 0;

	w->calm = true;
	while (idle < 3) {
		bool busy = false;

		for (unsigned i = 0; i < w->n; i++) {
			struct node *n = &w->node[i];

			busy |= !cds_list_empty(&n->outbox) || !cds_list_empty(&n->stream) || !cds_list_empty(&n->quorum);
			cm_order_one(w, n);
			cm_feed(w, n, &n->stream);
			cm_feed(w, n, &n->quorum);
			if (n->proc) {
				sched_run(n->s);
				sched_run_timers(n->s, w->clk.now_ns);
			}
		}
		w->clk.now_ns += 10 * NS_PER_MS;
		idle = busy ? 0 : idle + 1;
	}
}

void cm_settle(struct world *w)
{
	unsigned size[NODES] = { 0 };

	cm_flow(w);
	for (unsigned i = 0; i < w->n; i++)
		size[w->node[i].component]++;
	for (unsigned i = 0; i < w->n; i++) {
		struct node *n = &w->node[i];
		const struct cluster_view *v = n->proc ? cluster_current(n->c) : NULL;
		unsigned members = 0;

		if (!n->proc)
			continue;
		if (size[n->component] <= w->n / 2) {
			if (v)
				violated(w, "node %u: a view in the minority", n->id);
			continue;
		}
		for (unsigned k = 0; k < w->n; k++) {
			struct node *o = &w->node[k];

			if (!o->proc || o->component != n->component)
				continue;
			members++;
			if (v && (!cluster_view_find(v, o->id) ||
				  cluster_view_find(v, o->id)->incarnation != o->incarnation))
				violated(w, "node %u: settled without node %u", n->id, o->id);
			if (v && cluster_current(o->c) && !ring_eq(v->ring, cluster_current(o->c)->ring))
				violated(w, "nodes %u and %u settled in different views", n->id, o->id);
		}
		if (!v || v->n != members)
			violated(w, "node %u: settled with %u of %u members", n->id, v ? v->n : 0, members);
	}
}
