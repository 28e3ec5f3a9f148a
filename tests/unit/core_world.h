/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * core_world.h - several nodes of the real core in one process, for unit tests: real view tracker, mesh, dlm, journal and core;
 * fakes only at the ports.  One clock, a scheduler a node, a perfect ordering engine, links that lose nothing, one shared disk.
 *
 * Disk: writes reach it at once, unless the node holds them back (cw_hold_writes): then they are on their way like writes of a node
 * that has died, and land with cw_land(), or never once the node was fenced.
 */
#ifndef CSVFS_TESTS_UNIT_CORE_WORLD_H
#define CSVFS_TESTS_UNIT_CORE_WORLD_H

#include "tests/unit/unit.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <urcu/list.h>

#include "csvfs/csvfs_internal.h"
#include "csvfs/mkfs.h"
#include "tests/unit/env_fake.h"
#include "utils/base/prng.h"

#pragma GCC diagnostic ignored "-Wunused-function"	/* each test uses some of this */

#define CW_NODES 4
#ifndef CW_BYTES
#define CW_BYTES (160ull << 20)
#endif
#define CW_SLOTS 3u

struct cw_ev {
	struct cds_list_head node;
	enum { CW_TOTEM, CW_MEMBERS, CW_QUORUM, CW_PROCDOWN, CW_MSG, CW_UP, CW_DOWN, CW_FRAME } kind;
	struct ring_id ring;
	uint32_t from, n, m[CW_NODES];
	size_t len;
	uint8_t buf[];
};
struct cw_write { struct cds_list_head node; uint64_t life; struct blk_req *req; uint64_t off; uint32_t len; bool is_write; uint8_t data[]; };

struct cw_node {
	uint32_t id;
	bool on, in_group;
	bool cut;				/* in the minority part of a partition */
	uint64_t incarnation;
	struct cluster_port port;
	struct link_port link;
	struct fence_port fence;
	struct rnd_port rnd;
	struct logger log;
	struct blk blk;
	struct env env;
	const struct cluster_raw_events *raw;
	void *raw_arg;
	const struct link_events *lev;
	void *lev_arg;
	struct cds_list_head engine, wire[CW_NODES];
	bool wants[CW_NODES], linked[CW_NODES];
	bool deaf[CW_NODES];			/* nothing that node sends gets here; it waits on the way */
	struct cds_list_head agents;		/* struct cw_fencing */
	bool hold_writes;
	uint64_t hold_off;			/* not 0: writes to this place only */
	unsigned fail_writes;			/* the next so many answer -EIO */
	struct cds_list_head late;		/* struct cw_write on their way */
	struct csvfs_options opt;
	struct csvfs *fs;
	struct csv_err err;
	int ret;
	bool done;
};

struct cw {
	struct fake_clock clk;
	uint8_t *disk;
	struct cw_node node[CW_NODES];
	uint64_t ring_seq, next_incarnation, rnd;
	unsigned fence_calls, fence_fail;	/* fail the next so many */
	uint64_t fence_ns;			/* how long the agent takes */
	bool no_quorum, fence_lies;
	uint64_t round_ns;			/* of the membership protocol */
	uint32_t votes;				/* expected, as the engine says; 0: nothing */
	unsigned fail_reads;			/* the next so many answer -EIO */
	char last_log[CW_NODES][512];
	char all_log[65536];
};
static struct cw cw;

static struct cw_ev *cw_ev_new(int kind, const void *buf, size_t len)
{
	struct cw_ev *e = calloc(1, sizeof(*e) + len);

	e->kind = kind;
	e->len = len;
	if (len)
		memcpy(e->buf, buf, len);
	return e;
}

static void cw_drop(struct cds_list_head *q)
{
	struct cw_ev *e, *next;

	cds_list_for_each_entry_safe(e, next, q, node) {
		cds_list_del(&e->node);
		free(e);
	}
}

/* ---- engine ------------------------------------------------------------------------------------------------------------------ */

static void cw_tell_members(struct cw_node *to)
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

static void cw_new_ring(void)
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

static const struct cluster_port_ops cw_port_ops = { cw_port_start, cw_port_send, cw_port_stop };

/* ---- links --------------------------------------------------------------------------------------------------------------------- */

static int cw_link_start(struct link_port *p, const struct link_events *ev, void *arg)
{
	struct cw_node *n = container_of(p, struct cw_node, link);

	n->lev = ev;
	n->lev_arg = arg;
	return 0;
}

static void cw_link_down(unsigned a, unsigned b)
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

static const struct link_port_ops cw_link_ops = { cw_link_start, cw_link_peers, cw_link_send, cw_link_stop };

/* ---- disk ---------------------------------------------------------------------------------------------------------------------- */

static void cw_blk_submit(struct blk *b, struct blk_req *r)
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

static void cw_blk_close(struct blk *b)
{
	(void)b;
}

static const struct blk_ops cw_blk_ops = { cw_blk_submit, cw_blk_close };

/* What is on its way arrives, in order; the node may be dead. Returns how many. */
static unsigned cw_land(struct cw_node *n)
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

/* Each of them arrives or never does, by the dice. */
static void cw_land_some(struct cw_node *n, struct csv_prng *p)
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

struct cw_fencing { struct cds_list_head node; struct timer timer; struct cw_node *by; struct fence_req *req; };

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

static const struct fence_port_ops cw_fence_ops = { cw_fence_submit };

static uint64_t cw_rnd(struct rnd_port *p)
{
	(void)p;
	return csv_splitmix64(&cw.rnd);
}

static void cw_log_write(struct logger *l, enum log_level level, const char *text)
{
	struct cw_node *n = container_of(l, struct cw_node, log);
	size_t at = strlen(cw.all_log);

	(void)level;
	snprintf(cw.last_log[n->id - 1], sizeof(cw.last_log[0]), "%s", text);
	snprintf(cw.all_log + at, sizeof(cw.all_log) - at, "n%u %s\n", n->id, text);
	if (getenv("CW_VERBOSE"))
		fprintf(stderr, "%8.3f n%u %s\n", (double)cw.clk.now_ns / 1e9, n->id, text);
}

static bool cw_logged(const char *text)
{
	return strstr(cw.all_log, text);
}

/* ---- nodes ----------------------------------------------------------------------------------------------------------------------- */

static struct cw_node *cw_n(unsigned id)
{
	return &cw.node[id - 1];
}

/* A life begins: ports and scheduler; nothing mounted. */
static void cw_boot(unsigned id)
{
	struct cw_node *n = cw_n(id);

	ck_assert(!n->on);
	if (!cds_list_empty(&n->late) && !cw.fence_lies) {
		struct cw_write *w, *next;

		/* The machine that starts again is the proof that the old life's writes are gone or done. */
		cds_list_for_each_entry_safe(w, next, &n->late, node) {
			cds_list_del(&w->node);
			free(w);
		}
	}
	n->id = id;
	n->on = true;
	n->cut = false;
	n->hold_writes = false;
	n->hold_off = 0;
	n->incarnation = ++cw.next_incarnation * 1000 + id;
	n->port = (struct cluster_port){ &cw_port_ops, id };
	n->link.ops = &cw_link_ops;
	n->fence.ops = &cw_fence_ops;
	n->rnd.u64 = cw_rnd;
	n->log = (struct logger){ cw_log_write, LOG_L_INFO };
	n->env.sched = sched_new(&cw.clk.clock);
	n->blk = (struct blk){ .ops = &cw_blk_ops, .sched = n->env.sched, .size_bytes = CW_BYTES, .min_io = 512, .io_align = 512 };
	n->env.clock = &cw.clk.clock;
	n->env.blk = &n->blk;
	n->env.fence = &n->fence;
	n->env.rnd = &n->rnd;
	n->env.log = &n->log;
	n->env.cluster = cluster_new(n->env.sched, &n->port, n->incarnation);
	cluster_set_round(n->env.cluster, cw.round_ns);
	n->env.mesh = mesh_new(n->env.sched, n->env.cluster, &n->link, 0x1234);
	n->opt = (struct csvfs_options){ .incarnation = n->incarnation, .noatime = true };
	snprintf(n->opt.node_name, sizeof(n->opt.node_name), "n%u", id);
	n->fs = NULL;
	n->err = CSV_ERR_INIT;
}

/* Its memory goes; `crash`: the others learn it by a new ring, else by procdown or not at all. */
static void cw_off(unsigned id, bool ring)
{
	struct cw_node *n = cw_n(id);
	struct cw_fencing *f, *next;

	n->on = n->in_group = false;
	csvfs_free(n->fs);
	mesh_free(n->env.mesh);
	cluster_free(n->env.cluster);
	sched_free(n->env.sched);
	n->fs = NULL;
	cds_list_for_each_entry_safe(f, next, &n->agents, node) {
		cds_list_del(&f->node);
		free(f);
	}
	cw_drop(&n->engine);
	for (unsigned i = 0; i < CW_NODES; i++) {
		cw_link_down(id - 1, i);
		cw_drop(&n->wire[i]);
		n->wants[i] = false;
	}
	if (ring)
		cw_new_ring();
}

static void cw_power_cut(unsigned id)
{
	cw_off(id, true);
}

/* These nodes (a bit each, from bit 1) are cut off from the rest and have no quorum; 0 heals. */
static void cw_partition(unsigned mask)
{
	for (unsigned id = 1; id <= CW_NODES; id++)
		cw_n(id)->cut = mask & 1u << id;
	for (unsigned a = 0; a < CW_NODES; a++) {
		for (unsigned b = 0; b < a; b++) {
			if (cw.node[a].cut != cw.node[b].cut)
				cw_link_down(a, b);
		}
	}
	cw_new_ring();
}

/* The process dies, the node lives: nothing of it is in flight any more. */
static void cw_process_dies(unsigned id)
{
	cw_land(cw_n(id));
	for (unsigned i = 0; i < CW_NODES; i++) {
		struct cw_ev *e;

		if (!cw.node[i].in_group || i == id - 1)
			continue;
		e = cw_ev_new(CW_PROCDOWN, NULL, 0);
		e->from = id;
		cds_list_add_tail(&e->node, &cw.node[i].engine);
	}
	cw_n(id)->in_group = false;
	for (unsigned i = 0; i < CW_NODES; i++) {
		if (cw.node[i].in_group)
			cw_tell_members(&cw.node[i]);
	}
	cw_off(id, false);
}

static bool cw_feed(struct cw_node *n)
{
	struct cw_ev *e = NULL;
	unsigned from = 0;

	if (!cds_list_empty(&n->engine)) {
		e = cds_list_first_entry(&n->engine, struct cw_ev, node);
	} else {
		for (; !e && from < CW_NODES; from++) {
			if (!cds_list_empty(&n->wire[from]) && !n->deaf[from]) {
				e = cds_list_first_entry(&n->wire[from], struct cw_ev, node);
				break;
			}
		}
	}
	if (!e)
		return false;
	cds_list_del(&e->node);
	switch (e->kind) {
	case CW_TOTEM:
		n->raw->expected(n->raw_arg, cw.votes);
		n->raw->totem(n->raw_arg, e->ring);
		break;
	case CW_MEMBERS: n->raw->members(n->raw_arg, e->m, e->n); break;
	case CW_QUORUM: n->raw->quorum(n->raw_arg, e->ring, e->n); break;
	case CW_PROCDOWN: n->raw->procdown(n->raw_arg, e->from); break;
	case CW_MSG: n->raw->msg(n->raw_arg, e->from, e->buf, e->len); break;
	case CW_UP: n->lev->up(n->lev_arg, from + 1); break;
	case CW_DOWN: n->lev->down(n->lev_arg, from + 1); break;
	case CW_FRAME: n->lev->frame(n->lev_arg, from + 1, e->buf, e->len); break;
	}
	free(e);
	return true;
}

/* Until stop() or `ms` of world time have passed; whether stop() did. */
static bool cw_run(uint64_t ms, bool (*stop)(void *arg), void *arg)
{
	uint64_t end = cw.clk.now_ns + ms * NS_PER_MS;

	for (;;) {
		uint64_t next = UINT64_MAX;
		bool busy = true;

		while (busy) {
			if (stop && stop(arg))
				return true;
			busy = false;
			for (unsigned i = 0; i < CW_NODES; i++) {
				struct cw_node *n = &cw.node[i];

				if (!n->on)
					continue;
				busy |= cw_feed(n);
				while (sched_step(n->env.sched))
					busy = true;
			}
		}
		for (unsigned i = 0; i < CW_NODES; i++) {
			if (cw.node[i].on)
				next = csv_min(next, sched_next_deadline(cw.node[i].env.sched));
		}
		if (next > end) {
			cw.clk.now_ns = end;
			return false;
		}
		cw.clk.now_ns = csv_max(next, cw.clk.now_ns);
		for (unsigned i = 0; i < CW_NODES; i++) {
			if (cw.node[i].on)
				sched_run_timers(cw.node[i].env.sched, cw.clk.now_ns);
		}
	}
}

/* So much time goes by. */
static void cw_settle(uint64_t ms)
{
	cw_run(ms, NULL, NULL);
}

static bool cw_is_done(void *arg)
{
	return ((struct cw_node *)arg)->done;
}

/* Runs fn as a coroutine of the node to its end; `ms` of world time at most. */
static void cw_start(unsigned id, void (*fn)(void *arg))
{
	struct cw_node *n = cw_n(id);

	n->done = false;
	ck_assert_int_eq(sched_spawn(n->env.sched, "test", fn, n), 0);
}

static void cw_do(unsigned id, void (*fn)(void *arg))
{
	cw_start(id, fn);
	ck_assert_msg(cw_run(600000, cw_is_done, cw_n(id)), "node %u: not done after 10 minutes; log:\n%s", id, cw.all_log);
}

static void cw_mount_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = csvfs_mount(&n->env, &n->opt, NULL, &n->fs, &n->err);
	n->done = true;
}

static void cw_umount_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = csvfs_umount(n->fs, &n->err);
	n->done = true;
}

static void cw_mount(unsigned id)
{
	cw_boot(id);
	cw_do(id, cw_mount_coro);
	ck_assert_msg(cw_n(id)->ret == 0, "node %u: mount: %d %s\n%s", id, cw_n(id)->ret, cw_n(id)->err.text, cw.all_log);
}

static void cw_umount(unsigned id)
{
	cw_do(id, cw_umount_coro);
	ck_assert_msg(cw_n(id)->ret == 0, "node %u: umount: %d %s\n%s", id, cw_n(id)->ret, cw_n(id)->err.text, cw.all_log);
	cw_off(id, false);
}

static void cw_mkfs_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csvfs_mkfs_options o = { .label = "vol1", .slots = CW_SLOTS, .journal_mib = 4, .uuid = { 1, 2, 3 }, .hash_key = { 4 } };

	n->ret = csvfs_mkfs(&n->blk, &o, NULL, &n->err);
	n->done = true;
}

static void cw_setup(void)
{
	memset(&cw, 0, sizeof(cw));
	fake_clock_init(&cw.clk);
	cw.ring_seq = 4;
	cw.fence_ns = 100 * NS_PER_MS;
	cw.disk = mmap(NULL, CW_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert_ptr_ne(cw.disk, MAP_FAILED);
	for (unsigned i = 0; i < CW_NODES; i++) {
		CDS_INIT_LIST_HEAD(&cw.node[i].engine);
		CDS_INIT_LIST_HEAD(&cw.node[i].late);
		CDS_INIT_LIST_HEAD(&cw.node[i].agents);
		for (unsigned k = 0; k < CW_NODES; k++)
			CDS_INIT_LIST_HEAD(&cw.node[i].wire[k]);
	}
	cw_boot(1);
	cw_do(1, cw_mkfs_coro);
	ck_assert_msg(cw_n(1)->ret == 0, "mkfs: %s", cw_n(1)->err.text);
	cw_off(1, false);
}

static void cw_teardown(void)
{
	for (unsigned id = 1; id <= CW_NODES; id++) {
		struct cw_write *w, *next;

		if (cw_n(id)->on)
			cw_off(id, false);
		cds_list_for_each_entry_safe(w, next, &cw_n(id)->late, node)
			free(w);
	}
	munmap(cw.disk, CW_BYTES);
}

/* ---- a small change of metadata: a number in the header of group 0 -------------------------------------------------------------------- */

static int cw_group_set(struct csvfs *fs, uint32_t value, bool commit)
{
	struct glock_holder gh;
	struct jnl_handle h;
	struct buf *b;
	uint64_t seq;
	int ret = glock_get(fs, OWN_GROUP(0), DLM_EX, 0, &gh);

	if (ret < 0)
		return ret;
	ret = buf_read(fs, csv_group_start(&fs->geo, 0), OWN_GROUP(0), CSV_MAGIC_GROUP, &b);
	if (!ret) {
		ret = jnl_begin(fs->jnl, 1, 0, &h);
		if (!ret) {
			buf_dirty(&h, b);
			le32_set(&((struct csv_group *)buf_data(b))->largest_run, value);
			seq = jnl_end(&h);
			if (commit)
				ret = jnl_commit(fs->jnl, seq);
		}
		buf_put(fs, b);
	}
	glock_put(&gh);
	return ret;
}

static int cw_group_get(struct csvfs *fs, uint32_t *ret_value)
{
	struct glock_holder gh;
	struct buf *b;
	int ret = glock_get(fs, OWN_GROUP(0), DLM_PR, 0, &gh);

	if (ret < 0)
		return ret;
	ret = buf_read(fs, csv_group_start(&fs->geo, 0), OWN_GROUP(0), CSV_MAGIC_GROUP, &b);
	if (!ret) {
		*ret_value = le32_get(((struct csv_group *)buf_data(b))->largest_run);
		buf_put(fs, b);
	}
	glock_put(&gh);
	return ret;
}

/* What is at home on the disk. */
static uint32_t cw_group_on_disk(const struct csv_geom *g)
{
	return le32_get(((struct csv_group *)(cw.disk + (csv_group_start(g, 0) << CSV_BLOCK_SHIFT)))->largest_run);
}

#endif
