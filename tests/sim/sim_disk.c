/* SPDX-License-Identifier: GPL-2.0-only */
/* sim_disk.c - the shared disk of a simulated cluster (sim_disk.h). */
#include "tests/sim/sim_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "utils/base/base.h"

#define SECTOR 512u

/* One write that took effect, or one FLUSH. */
struct effect {
	bool flush;
	unsigned node;
	uint64_t off;
	uint32_t len;
	uint32_t covers;		/* FLUSH: effects before this number are durable */
	uint8_t *data;			/* NULL: zeroes (discard) */
};

struct effects { struct effect *v; uint32_t n, cap; };

struct sim_path {			/* a node's port in one life */
	struct blk blk;
	struct sim_disk *d;
	unsigned node;
	uint64_t life;
	bool dead;
	struct sim_path *next;
};

struct sim_io {
	struct cds_list_head node;	/* d->ios */
	struct sim_disk *d;
	struct sim_path *path;
	struct blk_req *req;		/* NULL: nobody waits for it any more */
	struct sim_event *ev;
	enum blk_op op;
	uint64_t off;
	uint32_t len, covers;
	uint8_t *data;
	int result;
	bool applied, held, fails;
};

struct host_state { bool fenced, hang; uint64_t fail_in; int fail_result; struct sim_path *path; };

struct sim_disk {
	struct sim_world *w;
	struct sim_disk_config cfg;
	struct sim_store *cur, *durable, *base;	/* base: durable content when recording began */
	struct effects log;		/* since recording began, or all that is volatile */
	uint32_t first_volatile;	/* effects from here on may be lost ... */
	bool recording;
	struct cds_list_head ios;
	struct sim_path *paths;
	struct host_state host[SIM_NODES_MAX + 1];
	void (*on_write)(void *arg, unsigned node, uint64_t life, uint64_t off, uint32_t len);
	void *on_write_arg;
};

/* ---- effects -------------------------------------------------------------------------------------------------------- */

static void effects_add(struct effects *l, struct effect e)
{
	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 256;
		l->v = realloc(l->v, l->cap * sizeof(*l->v));
		csv_assert(l->v);
	}
	l->v[l->n++] = e;
}

static void effects_clear(struct effects *l)
{
	for (uint32_t i = 0; i < l->n; i++)
		free(l->v[i].data);
	free(l->v);
	*l = (struct effects){ 0 };
}

static void effect_apply(struct sim_store *s, const struct effect *e, uint32_t at, uint32_t len)
{
	if (e->data)
		sim_store_write(s, e->off + at, e->data + at, len);
	else
		sim_store_zero(s, e->off + at, len);
}

/*
 * Applies a random part of v[first..n) (FLUSHes apart) to s.  A sector ends with its content before, or that of any of the writes:
 * going through the writes in order and skipping some gives every last writer.
 */
static void apply_lossy(struct sim_store *s, const struct effect *v, uint32_t first, uint32_t n, struct csv_prng *p)
{
	uint64_t keep = csv_prng_range(p, 0, 4);
	bool by_sector = csv_prng_chance(p, 1, 2);

	for (uint32_t i = first; i < n; i++) {
		if (v[i].flush)
			continue;
		if (!by_sector) {
			if (csv_prng_chance(p, keep, 4))
				effect_apply(s, &v[i], 0, v[i].len);
			continue;
		}
		for (uint32_t at = 0; at < v[i].len; at += SECTOR)
			if (csv_prng_chance(p, keep, 4))
				effect_apply(s, &v[i], at, SECTOR);
	}
}

/* Everything in it is durable: a FLUSH on its way has nothing left to cover. */
static void log_clear(struct sim_disk *d)
{
	struct sim_io *io;

	effects_clear(&d->log);
	d->first_volatile = 0;
	cds_list_for_each_entry(io, &d->ios, node)
		io->covers = 0;
}

static void make_durable(struct sim_disk *d, uint32_t end)
{
	for (; d->first_volatile < end; d->first_volatile++)
		if (!d->log.v[d->first_volatile].flush)
			effect_apply(d->durable, &d->log.v[d->first_volatile], 0, d->log.v[d->first_volatile].len);
	while (d->first_volatile < d->log.n && d->log.v[d->first_volatile].flush)
		d->first_volatile++;
	if (!d->recording && d->first_volatile == d->log.n)
		log_clear(d);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static void io_free(struct sim_io *io)
{
	sim_world_cancel(io->d->w, io->ev);
	cds_list_del(&io->node);
	free(io->data);
	free(io);
}

static void io_complete(void *arg)
{
	struct sim_io *io = arg;
	struct blk_req *r = io->req;
	struct sim_path *path = io->path;
	int result = io->result;

	io->ev = NULL;
	io_free(io);
	if (r)
		blk_complete_later(&path->blk, r, result);
}

/* Not all of it when it fails: D5. */
static void io_write(struct sim_io *io)
{
	struct sim_disk *d = io->d;
	struct effect e = { .node = io->path->node, .off = io->off, .len = io->len };

	for (uint32_t at = 0, n; at < io->len; at += n) {
		n = io->fails ? SECTOR : io->len;
		if (io->fails && sim_world_chance(d->w, 1, 2))
			continue;
		e.off = io->off + at;
		e.len = n;
		e.data = NULL;
		if (io->data) {
			e.data = malloc(n);
			csv_assert(e.data);
			memcpy(e.data, io->data + at, n);
		}
		effect_apply(d->cur, &e, 0, n);
		effects_add(&d->log, e);
	}
	sim_world_trace(d->w, "disk write", io->path->node, io->off, io->len);
	if (d->on_write)
		d->on_write(d->on_write_arg, io->path->node, io->path->life, io->off, io->len);
}

static void io_apply(void *arg)
{
	struct sim_io *io = arg;
	struct sim_disk *d = io->d;

	io->ev = NULL;
	io->applied = true;
	switch (io->op) {
	case BLK_READ:
		if (io->req && !io->fails)
			sim_store_read(d->cur, io->off, io->req->buf, io->len);
		break;
	case BLK_WRITE:
	case BLK_DISCARD:
		io_write(io);
		break;
	case BLK_FLUSH:
		if (io->fails)
			break;
		effects_add(&d->log, (struct effect){ .flush = true, .node = io->path->node, .covers = io->covers });
		sim_world_trace(d->w, "disk flush", io->path->node, io->covers, d->log.n);
		make_durable(d, io->covers);
		break;
	}
	if (!io->req) {
		sim_world_count(d->w, "fault.ghost_write", io->op == BLK_WRITE);
		io_free(io);
		return;
	}
	io->ev = sim_world_at(d->w, sim_world_now_ns(d->w) + sim_world_delay(d->w, 20000), io_complete, io);
}

static void io_start(struct sim_io *io)
{
	struct sim_disk *d = io->d;
	uint64_t typical = io->op == BLK_READ ? d->cfg.read_ns : io->op == BLK_FLUSH ? d->cfg.flush_ns : d->cfg.write_ns;

	io->held = false;
	io->ev = sim_world_at(d->w, sim_world_now_ns(d->w) + sim_world_delay(d->w, typical), io_apply, io);
}

static void path_submit(struct blk *b, struct blk_req *r)
{
	struct sim_path *path = container_of(b, struct sim_path, blk);
	struct sim_disk *d = path->d;
	struct host_state *h = &d->host[path->node];
	struct sim_io *io;

	csv_assert(!path->dead);
	if (h->fenced) {
		sim_world_count(d->w, "disk.refused", 1);
		blk_complete_later(b, r, -EIO);
		return;
	}
	io = calloc(1, sizeof(*io));
	csv_assert(io);
	io->d = d;
	io->path = path;
	io->req = r;
	io->op = r->op;
	io->off = r->off;
	io->len = r->len;
	io->covers = d->log.n;
	if (r->op == BLK_WRITE) {
		io->data = malloc(r->len);
		csv_assert(io->data);
		memcpy(io->data, r->buf, r->len);
	}
	if (h->fail_in && --h->fail_in == 0) {
		io->fails = true;
		io->result = h->fail_result;
		sim_world_count(d->w, "fault.disk_error", 1);
	}
	cds_list_add_tail(&io->node, &d->ios);
	io->held = h->hang;
	if (!io->held)
		io_start(io);
}

static void path_close(struct blk *b)
{
	(void)b;		/* the disk's until sim_disk_free() */
}

/* D4: what was on its way is lost or comes late; what had taken effect stays. */
static void on_down(void *arg, unsigned node)
{
	struct sim_disk *d = arg;
	struct sim_io *io, *tmp;

	if (d->host[node].path)
		d->host[node].path->dead = true;
	d->host[node].path = NULL;
	d->host[node].hang = false;
	d->host[node].fail_in = 0;
	cds_list_for_each_entry_safe(io, tmp, &d->ios, node) {
		if (io->path->node != node || !io->req)
			continue;
		io->req = NULL;
		if (io->applied || io->op == BLK_READ || io->op == BLK_FLUSH || sim_world_chance(d->w, 1, 3)) {
			io_free(io);
			continue;
		}
		sim_world_cancel(d->w, io->ev);
		io->held = false;
		io->ev = sim_world_at(d->w, sim_world_now_ns(d->w) + sim_world_below(d->w, d->cfg.ghost_ns + 1), io_apply, io);
	}
}

/* ---- the disk ------------------------------------------------------------------------------------------------------------ */

struct sim_disk *sim_disk_new(struct sim_world *w, const struct sim_disk_config *cfg, const struct sim_store *initial)
{
	struct sim_disk *d = calloc(1, sizeof(*d));

	csv_assert(d);
	d->w = w;
	d->cfg = *cfg;
	d->cfg.min_io = cfg->min_io ? cfg->min_io : SECTOR;
	d->cfg.io_align = cfg->io_align ? cfg->io_align : SECTOR;
	d->cfg.read_ns = cfg->read_ns ? cfg->read_ns : 100000;
	d->cfg.write_ns = cfg->write_ns ? cfg->write_ns : 100000;
	d->cfg.flush_ns = cfg->flush_ns ? cfg->flush_ns : NS_PER_MS;
	d->cfg.ghost_ns = cfg->ghost_ns ? cfg->ghost_ns : 2 * NS_PER_SEC;
	CDS_INIT_LIST_HEAD(&d->ios);
	d->cur = initial ? sim_store_clone(initial) : sim_store_new(cfg->size_bytes);
	d->durable = sim_store_clone(d->cur);
	sim_world_on_down(w, on_down, d);
	return d;
}

void sim_disk_free(struct sim_disk *d)
{
	struct sim_io *io, *tmp;

	if (!d)
		return;
	cds_list_for_each_entry_safe(io, tmp, &d->ios, node)
		io_free(io);
	while (d->paths) {
		struct sim_path *p = d->paths;

		d->paths = p->next;
		free(p);
	}
	effects_clear(&d->log);
	sim_store_free(d->cur);
	sim_store_free(d->durable);
	sim_store_free(d->base);
	free(d);
}

struct blk *sim_disk_blk(struct sim_disk *d, unsigned node)
{
	static const struct blk_ops ops = { .submit = path_submit, .close = path_close };
	struct sim_path *p = d->host[node].path;

	csv_assert(sim_world_is_up(d->w, node));
	if (p)
		return &p->blk;
	p = calloc(1, sizeof(*p));
	csv_assert(p);
	p->d = d;
	p->node = node;
	p->life = sim_world_life(d->w, node);
	p->blk.ops = &ops;
	p->blk.sched = sim_world_sched(d->w, node);
	p->blk.size_bytes = d->cfg.size_bytes;
	p->blk.min_io = d->cfg.min_io;
	p->blk.io_align = d->cfg.io_align;
	p->next = d->paths;
	d->paths = p;
	d->host[node].path = p;
	return &p->blk;
}

struct sim_store *sim_disk_store(struct sim_disk *d)
{
	return d->cur;
}

void sim_disk_settle(struct sim_disk *d)
{
	log_clear(d);
	sim_store_free(d->durable);
	d->durable = sim_store_clone(d->cur);
}

/* ---- faults ------------------------------------------------------------------------------------------------------------------ */

void sim_disk_fence(struct sim_disk *d, unsigned node)
{
	struct sim_io *io, *tmp;

	d->host[node].fenced = true;
	sim_world_trace(d->w, "disk fence", node, 0, 0);
	cds_list_for_each_entry_safe(io, tmp, &d->ios, node) {
		if (io->path->node != node || io->applied)
			continue;
		if (!io->req) {
			io_free(io);
			continue;
		}
		sim_world_cancel(d->w, io->ev);
		io->held = false;
		io->applied = true;		/* in the sense of: never will be */
		io->result = -EIO;
		io->ev = sim_world_at(d->w, sim_world_now_ns(d->w) + 1000, io_complete, io);
	}
}

void sim_disk_unfence(struct sim_disk *d, unsigned node)
{
	d->host[node].fenced = false;
}

bool sim_disk_is_fenced(const struct sim_disk *d, unsigned node)
{
	return d->host[node].fenced;
}

unsigned sim_disk_pending(const struct sim_disk *d, unsigned node)
{
	struct sim_io *io;
	unsigned n = 0;

	cds_list_for_each_entry(io, &d->ios, node)
		n += io->path->node == node && !io->applied;
	return n;
}

void sim_disk_power_loss(struct sim_disk *d)
{
	struct sim_io *io, *tmp;

	for (unsigned i = 1; i <= sim_world_nodes(d->w); i++)
		csv_assert(!sim_world_is_up(d->w, i));
	cds_list_for_each_entry_safe(io, tmp, &d->ios, node)
		io_free(io);
	sim_world_trace(d->w, "disk power loss", d->log.n - d->first_volatile, 0, 0);
	apply_lossy(d->durable, d->log.v, d->first_volatile, d->log.n, sim_world_prng(d->w));
	sim_store_free(d->cur);
	d->cur = sim_store_clone(d->durable);
	/* A record goes on only over a loss that it can express: it ends here. */
	d->recording = false;
	log_clear(d);
}

void sim_disk_fail_at(struct sim_disk *d, unsigned node, uint64_t k, int result)
{
	d->host[node].fail_in = k;
	d->host[node].fail_result = result;
}

void sim_disk_hang(struct sim_disk *d, unsigned node, bool on)
{
	struct sim_io *io;

	d->host[node].hang = on;
	if (on)
		return;
	cds_list_for_each_entry(io, &d->ios, node)
		if (io->held && io->path->node == node)
			io_start(io);
}

void sim_disk_reap(struct sim_disk *d, unsigned node)
{
	struct sim_io *io, *tmp;

	cds_list_for_each_entry_safe(io, tmp, &d->ios, node) {
		if (io->path->node != node || io->applied)
			continue;
		sim_world_cancel(d->w, io->ev);
		io->ev = NULL;
		io->held = false;
		io_apply(io);
	}
}

void sim_disk_on_write(struct sim_disk *d, void (*fn)(void *arg, unsigned node, uint64_t life, uint64_t off, uint32_t len), void *arg)
{
	d->on_write = fn;
	d->on_write_arg = arg;
}

struct sim_store *sim_disk_image_lossy(struct sim_disk *d, struct csv_prng *p)
{
	struct sim_store *s = sim_store_overlay(d->durable);

	apply_lossy(s, d->log.v, d->first_volatile, d->log.n, p);
	return s;
}

/* ---- recorder ------------------------------------------------------------------------------------------------------------------ */

void sim_disk_record(struct sim_disk *d)
{
	sim_disk_settle(d);
	sim_store_free(d->base);
	d->base = sim_store_clone(d->durable);
	d->recording = true;
}

uint32_t sim_disk_recorded(const struct sim_disk *d)
{
	return d->log.n;
}

struct sim_cursor { const struct sim_disk *d; struct sim_store *durable; uint32_t at, first_volatile; };

struct sim_cursor *sim_cursor_new(const struct sim_disk *d)
{
	struct sim_cursor *c = calloc(1, sizeof(*c));

	csv_assert(c && d->recording);
	c->d = d;
	c->durable = sim_store_clone(d->base);
	return c;
}

void sim_cursor_free(struct sim_cursor *c)
{
	if (!c)
		return;
	sim_store_free(c->durable);
	free(c);
}

bool sim_cursor_next(struct sim_cursor *c)
{
	const struct effect *v = c->d->log.v, *e;

	if (c->at == c->d->log.n)
		return false;
	e = &v[c->at++];
	if (!e->flush)
		return true;
	for (; c->first_volatile < e->covers; c->first_volatile++)
		if (!v[c->first_volatile].flush)
			effect_apply(c->durable, &v[c->first_volatile], 0, v[c->first_volatile].len);
	return true;
}

uint32_t sim_cursor_at(const struct sim_cursor *c)
{
	return c->at;
}

bool sim_cursor_after_flush(const struct sim_cursor *c)
{
	return c->at && c->d->log.v[c->at - 1].flush;
}

unsigned sim_cursor_volatile(const struct sim_cursor *c)
{
	unsigned n = 0;

	for (uint32_t i = c->first_volatile; i < c->at; i++)
		n += !c->d->log.v[i].flush;
	return n;
}

uint32_t sim_cursor_window(const struct sim_cursor *c)
{
	const struct effects *l = &c->d->log;
	uint32_t first = c->at, end = c->at;

	while (first > 0 && !l->v[first - 1].flush)
		first--;
	while (end < l->n && !l->v[end].flush)
		end++;
	return end - first;
}

struct sim_store *sim_cursor_image(struct sim_cursor *c)
{
	struct sim_store *s = sim_store_overlay(c->durable);

	for (uint32_t i = c->first_volatile; i < c->at; i++)
		if (!c->d->log.v[i].flush)
			effect_apply(s, &c->d->log.v[i], 0, c->d->log.v[i].len);
	return s;
}

struct sim_store *sim_cursor_image_lossy(struct sim_cursor *c, struct csv_prng *p)
{
	struct sim_store *s = sim_store_overlay(c->durable);

	apply_lossy(s, c->d->log.v, c->first_volatile, c->at, p);
	return s;
}
