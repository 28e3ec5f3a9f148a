/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * leasedb.c - views, who has what, and the state that a view begins with.  Invariants and the picture: leasedb.h.
 *
 * What may be lost: any message.  HELLOs are frozen for a ring, so that all who have them all name the same donor; the donor alone
 * computes the state (the others take it), so that nothing needs to be computed alike from different things.
 */
#include "migrator/leasedb_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "utils/base/err.h"

bool leasedb_is_majority(const struct leasedb *db, uint32_t votes)
{
	uint64_t all = 0;

	for (uint32_t i = 0; i < db->conf.n; i++)
		all += db->conf.node[i].votes;
	return 2ull * votes > all;
}

void leasedb_ring_put(struct csv_cursor *c, struct ring_id r)
{
	csv_put_u32(c, r.nodeid);
	csv_put_u64(c, r.seq);
}

struct ring_id leasedb_ring_get(struct csv_cursor *c)
{
	struct ring_id r;

	memset(&r, 0, sizeof(r));
	r.nodeid = csv_cur_u32(c);
	r.seq = csv_cur_u64(c);
	return r;
}

static int ring_cmp(struct ring_id a, struct ring_id b)
{
	if (a.seq != b.seq)
		return a.seq < b.seq ? -1 : 1;
	return a.nodeid < b.nodeid ? -1 : a.nodeid > b.nodeid;
}

/* Field by field: padding stays what it was, zero. */
static void ring_set(struct ring_id *r, struct ring_id from)
{
	r->nodeid = from.nodeid;
	r->seq = from.seq;
}

void leasedb_begin(const struct leasedb *db, struct csv_cursor *c, enum leasedb_msg kind, uint8_t *buf, size_t size)
{
	csv_cursor_init(c, buf, size);
	csv_put_u8(c, kind);
	csv_put_u8(c, LEASEDB_WIRE_VERSION);
	leasedb_ring_put(c, db->ring);
}

void leasedb_end(const struct leasedb_io *io, const struct csv_cursor *c)
{
	csv_assert(!csv_cur_error(c));
	io->multicast(io->arg, c->begin, csv_cur_used(c));
}

bool leasedb_search(const struct lease *l, uint32_t n, const char *vm, uint32_t *ret_at)
{
	uint32_t a = 0, b = n;

	while (a < b) {
		uint32_t m = (a + b) / 2;
		int d = strncmp(l[m].vm, vm, LEASE_NAME_BYTES);

		if (!d) {
			*ret_at = m;
			return true;
		}
		if (d < 0)
			a = m + 1;
		else
			b = m;
	}
	*ret_at = a;
	return false;
}

int leasedb_table_put(struct lease *t, uint32_t *n, const struct lease *l)
{
	uint32_t at;

	if (leasedb_search(t, *n, l->vm, &at)) {
		t[at] = *l;
		return 0;
	}
	if (*n == LEASEDB_VMS_MAX)
		return -ENOSPC;
	memmove(&t[at + 1], &t[at], (*n - at) * sizeof(*t));
	t[at] = *l;
	(*n)++;
	return 0;
}

void leasedb_init(struct leasedb *db, const struct leasedb_conf *conf)
{
	csv_assert(conf->n && conf->n <= LEASEDB_NODES_MAX);
	memset(db, 0, sizeof(*db));
	db->conf = *conf;
	db->next_id = 1;
}

void leasedb_configure(struct leasedb *db, const struct leasedb_conf *conf)
{
	csv_assert(conf->n && conf->n <= LEASEDB_NODES_MAX && conf->self == db->conf.self);
	db->conf = *conf;
}

/* ---- sending */

static void send_hello(struct leasedb *db, const struct leasedb_io *io, bool want)
{
	const struct leasedb_member *me = leasedb_self(db);
	uint8_t buf[64];
	struct csv_cursor c;

	leasedb_begin(db, &c, LEASEDB_M_HELLO, buf, sizeof(buf));
	csv_put_u8(&c, want);
	csv_put_u8(&c, me->has_state);
	csv_put_u64(&c, db->conf.self_inc);
	leasedb_ring_put(&c, me->base);
	csv_put_u64(&c, me->index);
	leasedb_end(io, &c);
}

/* What a state message says of all but the records. */
struct state {
	const struct lease *rec;
	uint32_t n, n_node;
	uint64_t index, floor;
	struct ring_id cold;
	struct leasedb_node node[LEASEDB_NODES_MAX];
};

static void send_part(const struct leasedb *db, const struct leasedb_io *io, const struct state *s, uint8_t *buf, uint32_t part, uint32_t parts, uint32_t at,
		      uint32_t n)
{
	struct csv_cursor c;

	leasedb_begin(db, &c, LEASEDB_M_STATE, buf, LEASEDB_MSG_MAX);
	csv_put_u64(&c, s->index);
	csv_put_u16(&c, part);
	csv_put_u16(&c, parts);
	csv_put_u64(&c, s->floor);
	leasedb_ring_put(&c, s->cold);
	csv_put_u8(&c, db->n_member);
	for (uint32_t i = 0; i < db->n_member; i++) {
		csv_put_u32(&c, db->member[i].nodeid);
		csv_put_u64(&c, db->member[i].seq);
	}
	csv_put_u8(&c, s->n_node);
	for (uint32_t i = 0; i < s->n_node; i++) {
		csv_put_u32(&c, s->node[i].nodeid);
		csv_put_u64(&c, s->node[i].inc);
		csv_put_u8(&c, s->node[i].suspect | s->node[i].dead << 1);
	}
	csv_put_u16(&c, n);
	for (uint32_t i = 0; i < n; i++)
		lease_encode(&c, &s->rec[at + i]);
	leasedb_end(io, &c);
}

static void send_state_of(const struct leasedb *db, const struct leasedb_io *io, const struct state *s)
{
	const uint32_t head = 64 + LEASEDB_NODES_MAX * (12 + 13), per = (LEASEDB_MSG_MAX - head) / LEASE_WIRE_MAX;
	uint32_t parts = s->n ? (s->n + per - 1) / per : 1;
	uint8_t *buf = malloc(LEASEDB_MSG_MAX);

	for (uint32_t p = 0; buf && p < parts; p++)	/* without memory: as lost, the tick repeats it */
		send_part(db, io, s, buf, p, parts, p * per, csv_min(per, s->n - p * per));
	free(buf);
}

static struct leasedb_node *node_of(struct leasedb_node *node, uint32_t n, uint32_t nodeid)
{
	for (uint32_t i = 0; i < n; i++)
		if (node[i].nodeid == nodeid)
			return &node[i];
	return NULL;
}

/* What is here; index 0. */
static void state_here(const struct leasedb *db, struct state *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->rec = db->acc;
	ret->n = db->n_acc;
	ret->floor = db->version_floor;
	ret->cold = db->cold;
	for (; ret->n_node < LEASEDB_NODES_MAX && db->node[ret->n_node].nodeid; ret->n_node++)
		ret->node[ret->n_node] = db->node[ret->n_node];
}

/* Installed in this ring: for one who missed something. */
static void send_state_again(struct leasedb *db, const struct leasedb_io *io)
{
	struct state s;

	state_here(db, &s);
	s.index = db->acc_index;
	send_state_of(db, io, &s);
}

/* The state that this ring begins with: by the donor, when all HELLOs are here. */
static void send_state_first(struct leasedb *db, const struct leasedb_io *io, bool cold)
{
	struct state s;

	if (cold) {
		memset(&s, 0, sizeof(s));
		s.cold = db->ring;
	} else {
		state_here(db, &s);
	}
	for (uint32_t i = 0; i < db->conf.n; i++) {
		const struct leasedb_member *m = leasedb_member(db, db->conf.node[i].nodeid);
		struct leasedb_node *n = node_of(s.node, s.n_node, db->conf.node[i].nodeid);

		if (!n) {
			if (s.n_node == LEASEDB_NODES_MAX)
				continue;
			n = &s.node[s.n_node++];
			n->nodeid = db->conf.node[i].nodeid;
			n->suspect = cold && !(db->mutate & LEASEDB_MUT_COLD);
		}
		if (m && n->inc != m->inc) {
			n->inc = m->inc;
			n->dead = 0;
		}
	}
	send_state_of(db, io, &s);
}

/* All HELLOs are here: who has the latest state?  0: not all are here. */
static uint32_t donor(const struct leasedb *db, bool *ret_cold)
{
	const struct leasedb_member *best = NULL;
	uint32_t votes = 0;

	for (uint32_t i = 0; i < db->n_member; i++) {
		const struct leasedb_member *m = &db->member[i];
		int d;

		if (!m->hello)
			return 0;
		if (!m->has_state)
			continue;
		votes += leasedb_votes(&db->conf, m->nodeid);
		d = best ? ring_cmp(m->base, best->base) : 1;
		if (d > 0 || (!d && m->index > best->index))
			best = m;
	}
	*ret_cold = !leasedb_is_majority(db, votes);
	return *ret_cold ? db->member[0].nodeid : best->nodeid;
}

static void give_first(struct leasedb *db, const struct leasedb_io *io)
{
	bool cold;

	if (db->phase == LEASEDB_HELLO && donor(db, &cold) == db->conf.self)
		send_state_first(db, io, cold);
}

/* ---- views */

void leasedb_suspend(struct leasedb *db, const struct leasedb_io *io)
{
	bool was = db->phase != LEASEDB_NONE;

	db->phase = LEASEDB_NONE;
	db->n_member = 0;
	memset(db->member, 0, sizeof(db->member));
	memset(db->window, 0, sizeof(db->window));
	db->n_window = 0;
	db->stage_from = 0;
	db->gap = 0;
	if (was)
		io->unsettled(io->arg);
}

void leasedb_view(struct leasedb *db, const struct leasedb_io *io, const struct cluster_view *v)
{
	uint32_t votes = 0;
	struct leasedb_member *me;

	leasedb_suspend(db, io);
	for (uint32_t i = 0; i < v->n; i++)
		votes += leasedb_votes(&db->conf, v->m[i].nodeid);
	if (!cluster_view_find(v, db->conf.self) || v->n > LEASEDB_NODES_MAX || !leasedb_is_majority(db, votes))
		return;
	ring_set(&db->ring, v->ring);
	db->phase = LEASEDB_HELLO;
	db->com_count = 0;
	db->next_seq = 1;
	db->n_member = v->n;
	for (uint32_t i = 0; i < v->n; i++)
		db->member[i].nodeid = v->m[i].nodeid;
	me = leasedb_self(db);
	me->has_state = db->has_state;
	me->base = db->base;
	me->index = db->acc_index;
	send_hello(db, io, false);
}

static void unsettle(struct leasedb *db, const struct leasedb_io *io)
{
	if (db->phase == LEASEDB_SETTLED) {
		db->phase = LEASEDB_SYNC;
		io->unsettled(io->arg);
	}
}

static int on_hello(struct leasedb *db, const struct leasedb_io *io, uint32_t from, struct csv_cursor *c)
{
	struct leasedb_member *m = leasedb_member(db, from);
	bool want = csv_cur_u8(c), has_state = csv_cur_u8(c);
	uint64_t inc = csv_cur_u64(c);
	struct ring_id base = leasedb_ring_get(c);
	uint64_t index = csv_cur_u64(c);
	bool news = !m->hello;

	if (csv_cur_error(c) || !inc)
		return -EPROTO;
	m->hello = 1;
	m->has_state = has_state;
	m->inc = inc;
	ring_set(&m->base, base);
	m->index = index;
	if (db->phase == LEASEDB_HELLO) {
		if (want && from != db->conf.self)
			send_hello(db, io, false);
		if (news || want)
			give_first(db, io);
	} else if (want && from != db->conf.self) {
		send_hello(db, io, false);
		/* who missed something asks the orderer; the orderer asks everybody */
		if (leasedb_orderer(db) == db->conf.self || leasedb_orderer(db) == from)
			send_state_again(db, io);
	}
	return 0;
}

static void install(struct leasedb *db, const struct leasedb_io *io)
{
	memcpy(db->acc, db->com, sizeof(db->acc));
	memcpy(db->node, db->stage_node, sizeof(db->node));
	db->n_acc = db->n_com = db->stage_n;
	db->version_floor = db->stage_floor;
	db->base = db->ring;
	db->acc_index = db->settle_index = db->stage_index;
	db->com_count = 0;
	memset(db->window, 0, sizeof(db->window));
	db->n_window = 0;
	db->stage_from = 0;
	db->gap = 0;
	db->has_state = 1;
	db->phase = LEASEDB_SYNC;
	leasedb_acked(db, db->conf.self, db->acc_index);
	leasedb_ack(db, io, false);
}

/* Records of a part go behind those of the parts before; the names must go on ascending. */
static int stage_records(struct leasedb *db, struct csv_cursor *c, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct lease l;

		memset(&l, 0, sizeof(l));
		lease_decode(c, &l);
		if (csv_cur_error(c) || db->stage_n == LEASEDB_VMS_MAX)
			return -EPROTO;
		if (db->stage_n && strncmp(db->com[db->stage_n - 1].vm, l.vm, LEASE_NAME_BYTES) >= 0)
			return -EPROTO;
		db->com[db->stage_n++] = l;
	}
	return csv_cur_left(c) ? -EPROTO : 0;
}

/* `com` was the place for a state that did not come complete, and nothing is missing after all. */
static void restore(struct leasedb *db)
{
	memcpy(db->com, db->acc, sizeof(db->com));
	db->n_com = db->n_acc;
	db->settle_index = db->acc_index;
	db->com_count = 0;
	memset(db->window, 0, sizeof(db->window));
	db->n_window = 0;
	db->stage_from = 0;
}

static int on_state(struct leasedb *db, const struct leasedb_io *io, uint32_t from, struct csv_cursor *c)
{
	uint64_t index = csv_cur_u64(c);
	uint32_t part = csv_cur_u16(c), parts = csv_cur_u16(c), n;
	uint64_t floor = csv_cur_u64(c);
	struct ring_id cold = leasedb_ring_get(c);
	struct leasedb_node node[LEASEDB_NODES_MAX];
	uint64_t seq[LEASEDB_NODES_MAX] = { 0 };
	int r;

	if (csv_cur_error(c) || !parts || part >= parts || csv_cur_u8(c) != db->n_member)
		return -EPROTO;
	for (uint32_t i = 0; i < db->n_member; i++) {
		if (csv_cur_u32(c) != db->member[i].nodeid)
			return -EPROTO;
		seq[i] = csv_cur_u64(c);
	}
	n = csv_cur_u8(c);
	if (csv_cur_error(c) || n > LEASEDB_NODES_MAX)
		return -EPROTO;
	memset(node, 0, sizeof(node));
	for (uint32_t i = 0; i < n; i++) {
		uint8_t flags;

		node[i].nodeid = csv_cur_u32(c);
		node[i].votes = leasedb_votes(&db->conf, node[i].nodeid);
		node[i].inc = csv_cur_u64(c);
		flags = csv_cur_u8(c);
		node[i].suspect = flags & 1;
		node[i].dead = flags >> 1 & 1;
		if (!node[i].nodeid)
			return -EPROTO;
	}
	n = csv_cur_u16(c);
	if (csv_cur_error(c))
		return -EPROTO;
	/* installed, and nothing is missing: its sender has what it says, that is all.  Never back behind what was acknowledged. */
	if (db->phase >= LEASEDB_SYNC && index <= db->acc_index) {
		if (part == parts - 1) {
			if (db->gap == LEASEDB_GAP_COM)
				restore(db);
			db->gap = 0;
			leasedb_acked(db, from, index);
			leasedb_advance(db, io);
		}
		return 0;
	}
	if (part && (db->stage_from != from || db->stage_index != index || db->stage_part != part))
		return 0;	/* a part is missing: asked for again by the tick */
	if (!part) {
		unsettle(db, io);
		db->gap = db->phase == LEASEDB_SYNC ? LEASEDB_GAP_COM : 0;
		db->stage_from = from;
		db->stage_n = 0;
		memset(db->com, 0, sizeof(db->com));
	}
	db->stage_index = index;
	db->stage_part = part + 1;
	db->stage_floor = floor;
	memcpy(db->stage_node, node, sizeof(node));
	r = stage_records(db, c, n);
	if (r) {
		db->stage_from = 0;
		return r;
	}
	if (part < parts - 1)
		return 0;
	ring_set(&db->cold, cold);
	for (uint32_t i = 0; i < db->n_member; i++)
		db->member[i].seq = seq[i];
	install(db, io);
	leasedb_acked(db, from, index);
	leasedb_advance(db, io);
	return 0;
}

int leasedb_msg(struct leasedb *db, const struct leasedb_io *io, uint32_t from, const void *buf, size_t len)
{
	struct csv_cursor c;
	uint8_t kind;
	struct ring_id ring;

	csv_cursor_init_ro(&c, buf, len);
	kind = csv_cur_u8(&c);
	if (csv_cur_u8(&c) != LEASEDB_WIRE_VERSION)
		return -EPROTO;
	ring = leasedb_ring_get(&c);
	if (csv_cur_error(&c))
		return -EPROTO;
	if (db->phase == LEASEDB_NONE || !ring_eq(ring, db->ring))
		return 0;
	if (!leasedb_member(db, from))
		return -EPROTO;
	switch (kind) {
	case LEASEDB_M_HELLO:
		return on_hello(db, io, from, &c);
	case LEASEDB_M_STATE:
		return on_state(db, io, from, &c);
	case LEASEDB_M_PROPOSE:
		return leasedb_on_propose(db, io, from, &c);
	case LEASEDB_M_ORDER:
		return leasedb_on_order(db, io, from, &c);
	case LEASEDB_M_ACK:
		return leasedb_on_ack(db, io, from, &c);
	default:
		return -EPROTO;
	}
}

void leasedb_tick(struct leasedb *db, const struct leasedb_io *io)
{
	if (db->phase == LEASEDB_NONE)
		return;
	if (db->phase == LEASEDB_HELLO || db->gap) {
		bool cold;

		/* the donor's own state may be what was lost */
		if (db->phase == LEASEDB_HELLO && donor(db, &cold) == db->conf.self)
			send_state_first(db, io, cold);
		else
			send_hello(db, io, true);
		return;
	}
	if (db->com_count < db->acc_index + 1)
		leasedb_ack(db, io, true);
	leasedb_repeat_proposals(db, io);
}

void leasedb_beat(struct leasedb *db, const struct leasedb_io *io)
{
	if (db->phase >= LEASEDB_SYNC && leasedb_orderer(db) == db->conf.self && db->n_member > 1)
		leasedb_ack(db, io, false);
}

/* ---- to be read */

const struct lease *leasedb_find(const struct leasedb *db, const char *vm)
{
	uint32_t at;

	if (!leasedb_is_settled(db) || !leasedb_search(db->com, db->n_com, vm, &at))
		return NULL;
	return &db->com[at];
}

bool leasedb_is_open(const struct leasedb *db, const char *vm)
{
	for (uint32_t i = 0; i < db->n_open; i++)
		if (!strncmp(db->open[i].cas.vm, vm, LEASE_NAME_BYTES))
			return true;
	return false;
}

bool leasedb_agent_is_open(const struct leasedb *db, const char *vm)
{
	for (uint32_t i = 0; i < db->n_open; i++)
		if (db->open[i].cas.role == LEASE_BY_AGENT && !strncmp(db->open[i].cas.vm, vm, LEASE_NAME_BYTES))
			return true;
	return false;
}

const struct leasedb_node *leasedb_node(const struct leasedb *db, uint32_t nodeid)
{
	return node_of((struct leasedb_node *)db->node, LEASEDB_NODES_MAX, nodeid);
}

bool leasedb_proven(const struct leasedb *db, uint32_t nodeid, uint64_t inc)
{
	const struct leasedb_node *n = leasedb_node(db, nodeid);

	/* a later life, or a proof; a suspect's earlier lives are as unknown as it is */
	return n && !n->suspect && (n->dead || (n->inc && n->inc != inc));
}

bool leasedb_is_member(const struct leasedb *db, uint32_t nodeid, uint64_t inc)
{
	const struct leasedb_node *n = leasedb_node(db, nodeid);

	return n && db->phase >= LEASEDB_SYNC && leasedb_member(db, nodeid) && n->inc == inc && !n->dead;
}

uint32_t leasedb_suspects(const struct leasedb *db)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < LEASEDB_NODES_MAX; i++)
		n += db->node[i].suspect;
	return n;
}

uint32_t leasedb_orderer(const struct leasedb *db)
{
	return db->n_member ? db->member[0].nodeid : 0;
}
