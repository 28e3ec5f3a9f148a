/* SPDX-License-Identifier: GPL-2.0-only */
/* core_world_ports.c - the fakes at the ports of core_world.h: ordering engine, links, the shared disk, fencing, random numbers, log. */
#include "tests/unit/core_world_internal.h"

struct cw_ev *cw_ev_new(int kind, const void *buf, size_t len)
{
	struct cw_ev *e = calloc(1, sizeof(*e) + len);

	e->kind = kind;
	e->len = len;
	if (len)
		memcpy(e->buf, buf, len);
	return e;
}

void cw_drop(struct cds_list_head *q)
{
	struct cw_ev *e, *next;

	cds_list_for_each_entry_safe(e, next, q, node) {
		cds_list_del(&e->node);
		free(e);
	}
}

/* ---- engine ------------------------------------------------------------------------------------------------------------------ */

void cw_tell_members(struct cw_node *to)
{
	struct cw_ev *e = cw_ev_new(CW_MEMBERS, NULL, 0);

	for (unsigned i = 0; i < CW_NODES; i++) {
		if (cw.node[i].in_group && cw.node[i].cut == to->cut)
			e->m[e->n++] = i + 1;
	}
	cds_list_add_tail(&e->node, &to->engine);
}

static void cw_tell_ring(struct cw_node *to)
{
	struct cw_ev *e = cw_ev_new(CW_TOTEM, NULL, 0);

	e->ring = (struct ring_id){ 1 + to->cut, cw.ring_seq };
	cds_list_add_tail(&e->node, &to->engine);
	cw_tell_members(to);
	e = cw_ev_new(CW_QUORUM, NULL, 0);
	e->ring = (struct ring_id){ 1 + to->cut, cw.ring_seq };
	e->n = !cw.no_quorum && !to->cut;
	cds_list_add_tail(&e->node, &to->engine);
}

void cw_new_ring(void)
{
	cw.ring_seq += 4;
	for (unsigned i = 0; i < CW_NODES; i++) {
		if (cw.node[i].in_group)
			cw_tell_ring(&cw.node[i]);
	}
}

static int cw_port_start(struct cluster_port *p, const struct cluster_raw_events *ev, void *arg)
{
	struct cw_node *n = container_of(p, struct cw_node, port);

	n->raw = ev;
	n->raw_arg = arg;
	n->in_group = true;
	for (unsigned i = 0; i < CW_NODES; i++) {
		if (&cw.node[i] == n)
			cw_tell_ring(n);
		else if (cw.node[i].in_group)
			cw_tell_members(&cw.node[i]);
	}
	return 0;
}

static int cw_port_send(struct cluster_port *p, const void *buf, size_t len)
{
	struct cw_node *n = container_of(p, struct cw_node, port);

	for (unsigned i = 0; i < CW_NODES; i++) {
		struct cw_ev *e;

		if (!cw.node[i].in_group || cw.node[i].cut != n->cut)
			continue;
		e = cw_ev_new(CW_MSG, buf, len);
		e->from = n->id;
		cds_list_add_tail(&e->node, &cw.node[i].engine);
	}
	return 0;
}

static void cw_port_stop(struct cluster_port *p)
{
	struct cw_node *n = container_of(p, struct cw_node, port);

	n->in_group = false;
	cw_drop(&n->engine);
	for (unsigned i = 0; i < CW_NODES; i++) {
		if (cw.node[i].in_group)
			cw_tell_members(&cw.node[i]);
	}
}

const struct cluster_port_ops cw_port_ops = { cw_port_start, cw_port_send, cw_port_stop };

/* ---- links --------------------------------------------------------------------------------------------------------------------- */

static int cw_link_start(struct link_port *p, const struct link_events *ev, void *arg)
{
	struct cw_node *n = container_of(p, struct cw_node, link);

	n->lev = ev;
	n->lev_arg = arg;
	return 0;
}

void cw_link_down(unsigned a, unsigned b)
{
	if (!cw.node[a].linked[b])
		return;
	cw.node[a].linked[b] = cw.node[b].linked[a] = false;
	for (unsigned k = 0; k < 2; k++) {
		unsigned to = k ? a : b, from = k ? b : a;

		cw_drop(&cw.node[to].wire[from]);
		if (cw.node[to].on)
			cds_list_add_tail(&cw_ev_new(CW_DOWN, NULL, 0)->node, &cw.node[to].wire[from]);
	}
}

static void cw_link_peers(struct link_port *p, const uint32_t *nodeid, uint32_t n)
{
	struct cw_node *me = container_of(p, struct cw_node, link);
	unsigned a = me->id - 1;

	memset(me->wants, 0, sizeof(me->wants));
	for (uint32_t i = 0; i < n; i++)
		me->wants[nodeid[i] - 1] = true;
	for (unsigned b = 0; b < CW_NODES; b++) {
		if (!me->wants[b]) {
			cw_link_down(a, b);
		} else if (cw.node[b].wants[a] && !me->linked[b] && cw.node[b].cut == me->cut) {
			me->linked[b] = cw.node[b].linked[a] = true;
			cds_list_add_tail(&cw_ev_new(CW_UP, NULL, 0)->node, &me->wire[b]);
			cds_list_add_tail(&cw_ev_new(CW_UP, NULL, 0)->node, &cw.node[b].wire[a]);
		}
	}
}

static int cw_link_send(struct link_port *p, uint32_t peer, const void *buf, size_t len)
{
	struct cw_node *me = container_of(p, struct cw_node, link);

	if (!me->linked[peer - 1])
		return -ENOTCONN;
	cds_list_add_tail(&cw_ev_new(CW_FRAME, buf, len)->node, &cw.node[peer - 1].wire[me->id - 1]);
	return 0;
}

static void cw_link_stop(struct link_port *p)
{
	(void)p;
}

const struct link_port_ops cw_link_ops = { cw_link_start, cw_link_peers, cw_link_send, cw_link_stop };

/* ---- disk ---------------------------------------------------------------------------------------------------------------------- */

void cw_blk_submit(struct blk *b, struct blk_req *r)
{
	struct cw_node *n = container_of(b, struct cw_node, blk);
	struct cw_write *w;

	switch (r->op) {
	case BLK_READ:
		if (cw.fail_reads) {
			cw.fail_reads--;
			blk_complete_later(b, r, -EIO);
			return;
		}
		memcpy(r->buf, cw.disk + r->off, r->len);
		break;
	case BLK_WRITE:
		if (n->fail_writes) {
			n->fail_writes--;
			blk_complete_later(b, r, -EIO);
			return;
		}
		if (n->hold_writes && (!n->hold_off || n->hold_off == r->off)) {
			w = calloc(1, sizeof(*w) + r->len);
			w->req = r;
			w->life = n->incarnation;
			w->off = r->off;
			w->len = r->len;
			memcpy(w->data, r->buf, r->len);
			cds_list_add_tail(&w->node, &n->late);
			return;
		}
		memcpy(cw.disk + r->off, r->buf, r->len);
		break;
	case BLK_DISCARD:
		memset(cw.disk + r->off, 0, r->len);
		break;
	case BLK_FLUSH:
		break;
	}
	blk_complete_later(b, r, 0);
}

void cw_blk_close(struct blk *b)
{
	(void)b;
}

const struct blk_ops cw_blk_ops = { cw_blk_submit, cw_blk_close };

unsigned cw_land(struct cw_node *n)
{
	struct cw_write *w, *next;
	unsigned count = 0;

	cds_list_for_each_entry_safe(w, next, &n->late, node) {
		memcpy(cw.disk + w->off, w->data, w->len);
		if (n->on && w->life == n->incarnation)
			blk_complete_later(&n->blk, w->req, 0);
		cds_list_del(&w->node);
		free(w);
		count++;
	}
	return count;
}

void cw_land_some(struct cw_node *n, struct csv_prng *p)
{
	struct cw_write *w, *next;

	cds_list_for_each_entry_safe(w, next, &n->late, node) {
		if (csv_prng_chance(p, 1, 2))
			memcpy(cw.disk + w->off, w->data, w->len);
		cds_list_del(&w->node);
		free(w);
	}
}

/* ---- fence, random, log ---------------------------------------------------------------------------------------------------------- */

static void cw_fence_fire(struct timer *t)
{
	struct cw_fencing *f = container_of(t, struct cw_fencing, timer);
	struct cw_node *victim = &cw.node[(f->req->node.nodeid - 1) % CW_NODES];
	struct cw_write *w, *next;

	if (f->req->node.nodeid - 1 >= CW_NODES) {
		f->req->result = 0;		/* of no node of this world: off for sure */
	} else if (cw.fence_fail) {
		cw.fence_fail--;
		f->req->result = csv_err_set(&f->req->err, -EIO, "fence_test n%u: no answer from the power switch", victim->id);
	} else {
		/* Of a life that is over when the agent gets to it there is nothing left to do. */
		ck_assert_msg(!victim->on || victim->incarnation != f->req->node.incarnation || cw.fence_lies, "node %u was fenced while it lives", victim->id);
		cds_list_for_each_entry_safe(w, next, &victim->late, node) {
			if (w->life != f->req->node.incarnation)
				continue;
			cds_list_del(&w->node);
			free(w);
		}
		f->req->result = 0;
	}
	f->req->done(f->req);
	cds_list_del(&f->node);
	free(f);
}

static void cw_fence_submit(struct fence_port *p, struct fence_req *r)
{
	struct cw_node *n = container_of(p, struct cw_node, fence);
	struct cw_fencing *f = calloc(1, sizeof(*f));

	cw.fence_calls++;
	f->by = n;
	cds_list_add(&f->node, &n->agents);
	f->req = r;
	timer_init(&f->timer, cw_fence_fire);
	timer_set(n->env.sched, &f->timer, cw.clk.now_ns + cw.fence_ns);
}

const struct fence_port_ops cw_fence_ops = { cw_fence_submit };

uint64_t cw_rnd(struct rnd_port *p)
{
	(void)p;
	return csv_splitmix64(&cw.rnd);
}

void cw_log_write(struct logger *l, enum log_level level, const char *text)
{
	struct cw_node *n = container_of(l, struct cw_node, log);
	size_t at = strlen(cw.all_log);

	(void)level;
	snprintf(cw.last_log[n->id - 1], sizeof(cw.last_log[0]), "%s", text);
	snprintf(cw.all_log + at, sizeof(cw.all_log) - at, "n%u %s\n", n->id, text);
	if (getenv("CW_VERBOSE"))
		fprintf(stderr, "%8.3f n%u %s\n", (double)cw.clk.now_ns / 1e9, n->id, text);
}

bool cw_logged(const char *text)
{
	return strstr(cw.all_log, text);
}
