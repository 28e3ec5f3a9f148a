/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * leasedb_move.c - ordering moves, applying them, counting acknowledgements; proofs and inventories.  Invariants: leasedb.h.
 *
 * Proofs and inventories may change many records at once.  They are ordered only when nothing else is on its way, and nothing
 * is ordered behind them until they are committed; whoever has one to tell tells it again until it sees it done.
 */
#include "migrator/leasedb_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "utils/base/err.h"

/* A decoded entry; items of an inventory are read where they lie. */
struct entry {
	uint32_t kind;
	struct lease_cas cas;
	uint32_t nodeid, n;
	uint64_t inc;
	struct ring_id cold;
	uint8_t how;
	struct csv_cursor items;
};

static int entry_decode(struct csv_cursor *c, struct entry *e)
{
	struct csv_cursor probe;
	struct leasedb_item item;

	memset(e, 0, sizeof(*e));
	e->kind = csv_cur_u8(c);
	switch (e->kind) {
	case LEASEDB_K_MOVE:
		lease_cas_decode(c, &e->cas);
		break;
	case LEASEDB_K_PROOF:
		e->nodeid = csv_cur_u32(c);
		e->inc = csv_cur_u64(c);
		e->how = csv_cur_u8(c);
		if (e->how >= LEASEDB_PROOF_END)
			csv_cur_fail(c);
		break;
	case LEASEDB_K_INVENTORY:
		e->nodeid = csv_cur_u32(c);
		e->inc = csv_cur_u64(c);
		e->cold = leasedb_ring_get(c);
		e->n = csv_cur_u16(c);
		probe = e->items = *c;
		for (uint32_t i = 0; i < e->n && !csv_cur_error(&probe); i++)
			leasedb_item_decode(&probe, &item);
		*c = probe;
		break;
	default:
		return -EPROTO;
	}
	return csv_cur_error(c) || csv_cur_left(c) ? -EPROTO : 0;
}

/* ---- tables */

static void table_del(struct lease *t, uint32_t *n, const char *vm)
{
	uint32_t at;

	if (!leasedb_search(t, *n, vm, &at))
		return;
	(*n)--;
	memmove(&t[at], &t[at + 1], (*n - at) * sizeof(*t));
	memset(&t[*n], 0, sizeof(*t));
}

/* ---- applying */

static bool world_proven(const void *arg, uint32_t nodeid, uint64_t inc)
{
	return leasedb_proven(arg, nodeid, inc);
}

static bool world_lives(const void *arg, uint32_t nodeid, uint64_t inc)
{
	return leasedb_is_member(arg, nodeid, inc);
}

static int apply_move(struct leasedb *db, const struct lease_cas *cas, struct lease *ret)
{
	const struct lease_world w = { world_proven, world_lives, db, db->version_floor, db->mutate };
	struct lease none;
	uint32_t at;
	bool found = leasedb_search(db->acc, db->n_acc, cas->vm, &at);
	int r;

	memset(&none, 0, sizeof(none));
	memcpy(none.vm, cas->vm, sizeof(none.vm));
	r = lease_apply(found ? &db->acc[at] : &none, cas, &w, ret);
	if (r)
		return r;
	if (cas->move == LEASE_CREATE && leasedb_suspects(db)) {
		ret->state = LEASE_BLOCKED;
		ret->reason = LEASE_REASON_COLD;
	}
	if (ret->state == LEASE_NONE) {
		db->version_floor = csv_max(db->version_floor, ret->version);
		table_del(db->acc, &db->n_acc, cas->vm);
		return 0;
	}
	return leasedb_table_put(db->acc, &db->n_acc, ret);
}

/* A proof or an inventory that changes nothing (told again, because its teller has not seen it done) is not ordered. */
static bool is_news(const struct leasedb *db, const struct entry *e)
{
	const struct leasedb_node *n = leasedb_node(db, e->nodeid);

	if (e->kind == LEASEDB_K_PROOF)
		return n && !n->dead && (!e->inc || !n->inc || n->inc == e->inc) && (e->how == LEASEDB_PROOF_RELEASE || !leasedb_member(db, e->nodeid));
	if (e->kind == LEASEDB_K_INVENTORY)
		return n && n->suspect && n->inc == e->inc && ring_eq(e->cold, db->cold);
	return true;
}

static int apply_proof(struct leasedb *db, const struct entry *e)
{
	struct leasedb_node *n = (struct leasedb_node *)leasedb_node(db, e->nodeid);

	if (!is_news(db, e))	/* also: it is here */
		return -EALREADY;
	n->dead = 1;
	if (n->suspect) {
		n->suspect = 0;
		leasedb_cold_end(db);
	}
	return 0;
}

static int apply_inventory(struct leasedb *db, const struct entry *e)
{
	struct leasedb_node *n = (struct leasedb_node *)leasedb_node(db, e->nodeid);
	struct csv_cursor c = e->items;

	if (!is_news(db, e))
		return -EALREADY;
	for (uint32_t i = 0; i < e->n; i++) {
		struct leasedb_item item;

		leasedb_item_decode(&c, &item);
		leasedb_cold_claim(db, e->nodeid, e->inc, &item);
	}
	n->suspect = 0;
	leasedb_cold_end(db);
	return 0;
}

static void apply(struct leasedb *db, const struct entry *e, uint32_t by, uint64_t seq)
{
	struct leasedb_entry *w = &db->window[db->n_window++];
	struct leasedb_member *m = leasedb_member(db, by);

	memset(w, 0, sizeof(*w));
	w->index = ++db->acc_index;
	w->kind = e->kind;
	w->by = by;
	w->seq = seq;
	if (e->kind == LEASEDB_K_MOVE) {
		w->cas = e->cas;
		w->status = apply_move(db, &e->cas, &w->after);
	} else {
		w->status = e->kind == LEASEDB_K_PROOF ? apply_proof(db, e) : apply_inventory(db, e);
	}
	if (seq && m)
		m->seq = seq;
	leasedb_acked(db, db->conf.self, db->acc_index);
}

/* Is there room for this kind now (the top comment)? */
static bool room(const struct leasedb *db, uint32_t kind)
{
	if (db->n_window == LEASEDB_WINDOW)
		return false;
	return !db->n_window || (kind == LEASEDB_K_MOVE && db->window[0].kind == LEASEDB_K_MOVE);
}

/* ---- ordering */

static void order(struct leasedb *db, const struct leasedb_io *io, const struct entry *e, uint32_t by, uint64_t seq, const uint8_t *raw, size_t raw_len)
{
	uint8_t *buf = malloc(64 + raw_len);
	struct csv_cursor c;

	if (!buf)
		return;	/* as lost: the proposer repeats it */
	apply(db, e, by, seq);
	leasedb_begin(db, &c, LEASEDB_M_ORDER, buf, 64 + raw_len);
	csv_put_u64(&c, db->acc_index);
	csv_put_u32(&c, by);
	csv_put_u64(&c, seq);
	csv_put_bytes(&c, raw, raw_len);
	leasedb_end(io, &c);
	free(buf);
}

int leasedb_on_propose(struct leasedb *db, const struct leasedb_io *io, uint32_t from, struct csv_cursor *c)
{
	struct leasedb_member *m = leasedb_member(db, from);
	uint64_t seq = csv_cur_u64(c);
	const uint8_t *raw = c->at;
	size_t raw_len = csv_cur_left(c);
	struct entry e;
	int r = entry_decode(c, &e);

	if (r)
		return r;
	if ((e.kind == LEASEDB_K_MOVE) != !!seq || (e.kind == LEASEDB_K_MOVE && e.cas.by != from) ||
	    (e.kind == LEASEDB_K_INVENTORY && e.nodeid != from) ||
	    (e.kind == LEASEDB_K_PROOF && e.how == LEASEDB_PROOF_RELEASE && e.nodeid != from))
		return -EPROTO;
	if (leasedb_orderer(db) != db->conf.self || db->phase < LEASEDB_SYNC || db->gap)
		return 0;
	if (seq ? seq != m->seq + 1 : false)
		return 0;
	if (room(db, e.kind) && is_news(db, &e)) {
		order(db, io, &e, from, seq, raw, raw_len);
		leasedb_advance(db, io);
	}
	return 0;
}

int leasedb_on_order(struct leasedb *db, const struct leasedb_io *io, uint32_t from, struct csv_cursor *c)
{
	uint64_t index = csv_cur_u64(c);
	uint32_t by = csv_cur_u32(c);
	uint64_t seq = csv_cur_u64(c);
	struct entry e;
	int r = entry_decode(c, &e);

	if (r || from != leasedb_orderer(db))
		return -EPROTO;
	if (db->phase < LEASEDB_SYNC || db->gap)
		return 0;
	if (index > db->acc_index + 1 || (index == db->acc_index + 1 && !room(db, e.kind))) {
		db->gap = LEASEDB_GAP_MOVES;
		return 0;
	}
	if (index == db->acc_index + 1) {
		apply(db, &e, by, seq);
		leasedb_acked(db, from, index);
		leasedb_ack(db, io, false);
	}
	leasedb_acked(db, from, index);
	leasedb_advance(db, io);
	return 0;
}

/* ---- acknowledgements and commit */

void leasedb_ack(struct leasedb *db, const struct leasedb_io *io, bool want)
{
	uint8_t buf[32];
	struct csv_cursor c;

	leasedb_begin(db, &c, LEASEDB_M_ACK, buf, sizeof(buf));
	csv_put_u64(&c, db->acc_index);
	csv_put_u8(&c, want);
	leasedb_end(io, &c);
}

void leasedb_acked(struct leasedb *db, uint32_t from, uint64_t index)
{
	struct leasedb_member *m = leasedb_member(db, from);

	if (m && m->acked < index + 1)
		m->acked = index + 1;
}

int leasedb_on_ack(struct leasedb *db, const struct leasedb_io *io, uint32_t from, struct csv_cursor *c)
{
	uint64_t index = csv_cur_u64(c);
	bool want = csv_cur_u8(c);

	if (csv_cur_error(c) || csv_cur_left(c) || index == UINT64_MAX)
		return -EPROTO;
	leasedb_acked(db, from, index);
	if (db->phase < LEASEDB_SYNC)
		return 0;
	if (index > db->acc_index && !db->gap)
		db->gap = LEASEDB_GAP_MOVES;
	if (want && from != db->conf.self)
		leasedb_ack(db, io, false);
	leasedb_advance(db, io);
	return 0;
}

static struct leasedb_open open_take(struct leasedb *db, uint32_t i)
{
	struct leasedb_open o = db->open[i];

	db->n_open--;
	memmove(&db->open[i], &db->open[i + 1], (db->n_open - i) * sizeof(db->open[0]));
	memset(&db->open[db->n_open], 0, sizeof(db->open[0]));
	return o;
}

/* The moves that `count` acknowledges begin with the state itself; no further than what is here. */
static uint64_t majority_count(const struct leasedb *db)
{
	uint64_t best = db->com_count;

	if (db->mutate & LEASEDB_MUT_SELF_COMMIT)
		return db->acc_index + 1;
	for (uint32_t i = 0; i < db->n_member; i++) {
		uint64_t count = csv_min(db->member[i].acked, db->acc_index + 1);
		uint32_t votes = 0;

		for (uint32_t j = 0; j < db->n_member; j++)
			if (db->member[j].acked >= count)
				votes += leasedb_votes(&db->conf, db->member[j].nodeid);
		if (count > best && leasedb_is_majority(db, votes))
			best = count;
	}
	return best;
}

static void tell_purged(struct leasedb *db, const struct leasedb_io *io)
{
	const struct leasedb_node *n = leasedb_node(db, db->conf.self);

	if (n && n->dead && n->inc == db->conf.self_inc)
		io->purged(io->arg);
}

static void settle(struct leasedb *db, const struct leasedb_io *io)
{
	const struct leasedb_member *me = leasedb_self(db);
	bool cold = ring_eq(db->cold, db->base);

	db->phase = LEASEDB_SETTLED;
	for (uint32_t i = db->n_open; i-- > 0;) {
		const struct leasedb_open *o = &db->open[i];
		bool waits = o->ring_seq == db->ring.seq && o->seq > me->seq;

		/* its own entry, when it is behind the state, answers it */
		for (uint32_t k = 0; k < db->n_window; k++)
			waits |= o->ring_seq == db->ring.seq && db->window[k].by == db->conf.self && db->window[k].seq == o->seq;
		if (!waits) {
			struct leasedb_open done = open_take(db, i);

			io->outcome(io->arg, done.id, &done.cas, -ECANCELED);
		}
	}
	db->absent_known = leasedb_knows_absent(db);
	io->settled(io->arg, db->ring, cold);
	tell_purged(db, io);
}

/* All that differs is told; com becomes acc. */
static void commit_all(struct leasedb *db, const struct leasedb_io *io)
{
	for (uint32_t i = 0; i < db->n_acc; i++) {
		uint32_t at;
		const struct lease *l = &db->acc[i];

		if (leasedb_search(db->com, db->n_com, l->vm, &at) && !memcmp(&db->com[at], l, sizeof(*l)))
			continue;
		(void)leasedb_table_put(db->com, &db->n_com, l);
		io->record(io->arg, l);
	}
	for (uint32_t i = db->n_com; i-- > 0;) {
		uint32_t at;
		struct lease none;

		if (leasedb_search(db->acc, db->n_acc, db->com[i].vm, &at))
			continue;
		memset(&none, 0, sizeof(none));
		memcpy(none.vm, db->com[i].vm, sizeof(none.vm));
		table_del(db->com, &db->n_com, none.vm);
		io->record(io->arg, &none);
	}
	if (!db->absent_known && leasedb_knows_absent(db)) {
		db->absent_known = 1;
		io->settled(io->arg, db->ring, false);
	}
	tell_purged(db, io);
}

static void commit_first(struct leasedb *db, const struct leasedb_io *io)
{
	struct leasedb_entry w = db->window[0];
	struct leasedb_open done;
	const struct lease *l;
	uint32_t i;

	db->n_window--;
	memmove(&db->window[0], &db->window[1], db->n_window * sizeof(w));
	memset(&db->window[db->n_window], 0, sizeof(w));
	if (w.kind != LEASEDB_K_MOVE) {
		if (!w.status)
			commit_all(db, io);
		return;
	}
	if (!w.status && w.after.state == LEASE_NONE)
		table_del(db->com, &db->n_com, w.cas.vm);
	else if (!w.status)
		(void)leasedb_table_put(db->com, &db->n_com, &w.after);
	for (i = 0; w.by == db->conf.self && i < db->n_open; i++)
		if (db->open[i].seq == w.seq && db->open[i].ring_seq == db->ring.seq)
			break;
	if (w.by != db->conf.self || i == db->n_open) {
		if (!w.status)
			io->record(io->arg, &w.after);
		return;
	}
	done = open_take(db, i);
	l = leasedb_find(db, w.cas.vm);
	if (l) {
		io->record(io->arg, l);
	} else {
		w.after.state = LEASE_NONE;
		memcpy(w.after.vm, w.cas.vm, sizeof(w.after.vm));
		io->record(io->arg, &w.after);
	}
	io->outcome(io->arg, done.id, &done.cas, w.status);
}

void leasedb_advance(struct leasedb *db, const struct leasedb_io *io)
{
	if (db->phase < LEASEDB_SYNC || db->gap == LEASEDB_GAP_COM)
		return;
	db->com_count = majority_count(db);
	if (db->phase == LEASEDB_SYNC && db->com_count > db->settle_index)
		settle(db, io);
	while (db->phase == LEASEDB_SETTLED && db->n_window && db->window[0].index < db->com_count)
		commit_first(db, io);
}

/* ---- proposing */

static void send_proposal(struct leasedb *db, const struct leasedb_io *io, const struct leasedb_open *o)
{
	uint8_t buf[64 + LEASE_NAME_BYTES + 96];
	struct csv_cursor c;

	leasedb_begin(db, &c, LEASEDB_M_PROPOSE, buf, sizeof(buf));
	csv_put_u64(&c, o->seq);
	csv_put_u8(&c, LEASEDB_K_MOVE);
	lease_cas_encode(&c, &o->cas);
	leasedb_end(io, &c);
}

void leasedb_repeat_proposals(struct leasedb *db, const struct leasedb_io *io)
{
	const struct leasedb_member *me = leasedb_self(db);

	for (uint32_t i = 0; db->phase == LEASEDB_SETTLED && i < db->n_open; i++)
		if (db->open[i].ring_seq == db->ring.seq && db->open[i].seq > me->seq)
			send_proposal(db, io, &db->open[i]);
}

int leasedb_propose(struct leasedb *db, const struct leasedb_io *io, const struct lease_cas *cas, uint64_t ring_seq, uint64_t *ret_id)
{
	struct leasedb_open *o;

	if (!leasedb_is_settled(db))
		return -CSV_E_NOQUORUM;
	if (ring_seq != db->ring.seq)
		return -CSV_E_STALE;
	if (db->n_open == LEASEDB_OPEN_MAX)
		return -EAGAIN;
	if (!lease_vm_valid(cas->vm) || !cas->move || cas->move >= LEASE_MOVE_END || (cas->role != LEASE_BY_AGENT && cas->role != LEASE_BY_COORD) ||
	    cas->want >= LEASE_WANT_END || cas->reason >= LEASE_REASON_END)
		return -EINVAL;
	o = &db->open[db->n_open++];
	memset(o, 0, sizeof(*o));
	memcpy(o->cas.vm, cas->vm, strlen(cas->vm));
	o->cas.version = cas->version;
	o->cas.move = cas->move;
	o->cas.role = cas->role;
	o->cas.want = cas->want;
	o->cas.flags = cas->flags;
	o->cas.priority = cas->priority;
	o->cas.reason = cas->reason;
	o->cas.by = db->conf.self;
	o->cas.by_inc = db->conf.self_inc;
	o->cas.node = cas->node;
	o->cas.config = cas->config;
	o->cas.node_inc = cas->node_inc;
	o->cas.txid = cas->txid;
	o->seq = db->next_seq++;
	o->ring_seq = db->ring.seq;
	o->id = db->next_id++;
	*ret_id = o->id;
	if (leasedb_orderer(db) == db->conf.self && leasedb_self(db)->seq + 1 == o->seq && room(db, LEASEDB_K_MOVE) && !db->gap) {
		/* without the way round; committed by what comes back, never from in here */
		uint8_t raw[LEASE_NAME_BYTES + 96];
		struct csv_cursor c;
		struct entry e;

		memset(&e, 0, sizeof(e));
		e.kind = LEASEDB_K_MOVE;
		e.cas = o->cas;
		csv_cursor_init(&c, raw, sizeof(raw));
		csv_put_u8(&c, LEASEDB_K_MOVE);
		lease_cas_encode(&c, &e.cas);
		csv_assert(!csv_cur_error(&c));
		order(db, io, &e, db->conf.self, o->seq, raw, csv_cur_used(&c));
		return 0;
	}
	send_proposal(db, io, o);
	return 0;
}

int leasedb_prove(struct leasedb *db, const struct leasedb_io *io, uint32_t nodeid, uint64_t inc, enum leasedb_proof kind)
{
	uint8_t buf[64];
	struct csv_cursor c;

	if (!leasedb_is_settled(db))
		return -CSV_E_NOQUORUM;
	if (!leasedb_node(db, nodeid) || (unsigned)kind >= LEASEDB_PROOF_END)
		return -EINVAL;
	leasedb_begin(db, &c, LEASEDB_M_PROPOSE, buf, sizeof(buf));
	csv_put_u64(&c, 0);
	csv_put_u8(&c, LEASEDB_K_PROOF);
	csv_put_u32(&c, nodeid);
	csv_put_u64(&c, inc);
	csv_put_u8(&c, kind);
	leasedb_end(io, &c);
	return 0;
}
