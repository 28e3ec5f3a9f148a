/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmsim_mg.c - a node's migratord: the real replica (leasedb) and the real leader's decisions, and the line to the agent: records only
 * when settled, outcomes, letters, the cold start's inventory.
 */
#include "tests/sim/vmsim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TICK (100 * MS)
#define LEAD (200 * MS)

struct mg_ev { struct mg *mg; uint64_t life, line; void (*fn)(struct mg_ev *e); unsigned vm; struct lease l; uint64_t ring, number, txid; int status;
	       uint32_t node; uint64_t inc; bool open, peer; json_t *body; };
struct packet { struct world *w; unsigned to, from; uint64_t ring, life; size_t n; char bytes[]; };

static bool lives(const struct mg *mg, uint64_t life)
{
	return mg->alive && mg->life == life;
}

static void ev_run(void *arg)
{
	struct mg_ev *e = arg;

	if (lives(e->mg, e->life) && (!e->line || e->line == e->mg->line))
		e->fn(e);
	json_decref(e->body);
	free(e);
}

static void ev_after(struct mg *mg, uint64_t ns, struct mg_ev e, void (*fn)(struct mg_ev *e))
{
	struct mg_ev *c = malloc(sizeof(*c));

	*c = e;
	c->mg = mg;
	c->life = mg->life;
	c->fn = fn;
	after(mg->n->w, ns, ev_run, c);
}

/* ---- to the agent: one stream, in order ------------------------------------------------------------------------------------ */

static void line_after(struct mg *mg, struct mg_ev e, void (*fn)(struct mg_ev *e))
{
	/* One delay for all keeps the order. */
	e.line = mg->line;
	if (mg->line)
		ev_after(mg, 300000, e, fn);
	else
		json_decref(e.body);
}

static void do_record(struct mg_ev *e)
{
	hv_record(&e->mg->n->hv, &e->l, e->ring, e->open, e->peer);
}

static void do_unsettled(struct mg_ev *e)
{
	hv_unsettled(&e->mg->n->hv);
}

static void do_outcome(struct mg_ev *e)
{
	if (e->number)
		hv_outcome(&e->mg->n->hv, e->vm, e->number, e->status);
}

static void do_letter(struct mg_ev *e)
{
	hv_letter(&e->mg->n->hv, e->vm, e->txid, e->body);
}

static void tell_record(struct mg *mg, const struct lease *l, bool open)
{
	const struct leasedb *db = mg->db;
	bool mine = l->owner == mg->n->id && l->owner_inc == mg->n->inc;

	line_after(mg, (struct mg_ev){ .l = *l, .ring = leasedb_ring(db), .open = open, .peer = mine ?
		   leasedb_is_member(db, l->peer, l->peer_inc) : leasedb_is_member(db, l->owner, l->owner_inc) }, do_record);
}

static void tell_all(struct mg *mg)
{
	for (unsigned i = 0; i < VMS; i++) {
		const struct lease *l = leasedb_find(mg->db, vm_name_of(i));
		struct lease none;

		if (!l && !leasedb_knows_absent(mg->db))	/* "cold" of hvhost/agent.h */
			continue;
		memset(&none, 0, sizeof(none));
		strcpy(none.vm, vm_name_of(i));
		tell_record(mg, l ? l : &none, leasedb_agent_is_open(mg->db, vm_name_of(i)));
	}
}

void mg_line_up(struct mg *mg)
{
	struct world *w = mg->n->w;

	if (!mg->alive || !mg->n->hv.alive)
		return;
	mg->line = ++w->next_id;
	mg->asking = false;
	if (leasedb_is_settled(mg->db))
		tell_all(mg);
}

void mg_line_down(struct mg *mg)
{
	mg->line = 0;
	mg->asking = false;
}

/* ---- the replica's callbacks ------------------------------------------------------------------------------------------------- */

static void arrive(void *arg)
{
	struct packet *p = arg;
	struct mg *mg = &p->w->n[p->to].mg;

	if (mg->alive && mg->life == p->life && mg->in_view && leasedb_ring(mg->db) == p->ring)
		csv_assert(!leasedb_msg(mg->db, &mg->io, p->from, p->bytes, p->n));
	free(p);
}

static void io_multicast(void *arg, const void *buf, size_t len)
{
	struct mg *mg = arg;
	struct world *w = mg->n->w;

	for (unsigned to = 1; to <= NODES; to++) {
		unsigned times = chance(w, 1, 50) ? 2 : 1;

		/* What a cut link takes is delivered to oneself all the same. */
		if (to != mg->n->id && (w->cut[mg->n->id][to] || (w->faults && chance(w, 1, 60))))
			continue;
		while (times--) {
			struct packet *p = malloc(sizeof(*p) + len);

			*p = (struct packet){ w, to, mg->n->id, leasedb_ring(mg->db), w->n[to].mg.life, len };
			memcpy(p->bytes, buf, len);
			after(w, to == mg->n->id ? 50000 : 200000 + below(w, 3 * MS), arrive, p);
		}
	}
	crash_point(mg->n);
}

static void io_unsettled(void *arg)
{
	line_after(arg, (struct mg_ev){ 0 }, do_unsettled);
}

static void io_settled(void *arg, struct ring_id ring, bool cold)
{
	struct mg *mg = arg;

	(void)ring;
	story(mg->n->w, "n%u: settled%s", mg->n->id, cold ? ", cold" : "");
	if (cold) {
		mg->cold_ns = now(mg->n->w);
		mg->n->w->counter[N_COLD]++;
	}
	line_after(mg, (struct mg_ev){ 0 }, do_unsettled);
	tell_all(mg);
}

static void io_record(void *arg, const struct lease *l)
{
	struct mg *mg = arg;
	char text[200];

	lease_to_text(l, text, sizeof(text));
	if (leasedb_orderer(mg->db) == mg->n->id)
		story(mg->n->w, "committed: %s", text);
	/* An open proposal of ours is what made it, or will be refused: its outcome follows. */
	tell_record(mg, l, false);
}

static void io_outcome(void *arg, uint64_t id, const struct lease_cas *cas, int status)
{
	struct mg *mg = arg;
	struct mg_open **p = &mg->open, *o;

	if (!status) {
		mg->n->w->counter[N_ABORT] += cas->move == LEASE_ABORT;
		mg->n->w->counter[N_REFUSE] += cas->move == LEASE_REFUSE;
		mg->n->w->counter[N_RETAKE] += cas->move == LEASE_TAKE;
	}
	while (*p && (*p)->id != id)
		p = &(*p)->next;
	o = *p;
	if (!o)
		return;
	*p = o->next;
	if (o->line == mg->line) {
		line_after(mg, (struct mg_ev){ .vm = o->vm, .number = o->number, .status = status }, do_outcome);
	} else if (leasedb_is_settled(mg->db)) {
		/* Of an agent before: its successor waits for it with an "open" record. */
		const struct lease *l = leasedb_find(mg->db, vm_name_of(o->vm));

		if (l)
			tell_record(mg, l, false);
	}
	free(o);
}

static void purge(void *arg)
{
	struct node *n = arg;

	if (!n->up || !n->mg.purged)
		return;
	/* All QEMUs first, then another life. */
	story(n->w, "n%u was purged: begins a new life", n->id);
	n->w->counter[N_PURGED]++;
	node_off(n, "purged");
	node_on(n);
}

static void io_purged(void *arg)
{
	struct mg *mg = arg;

	if (!mg->purged) {
		mg->purged = true;
		after(mg->n->w, 0, purge, mg->n);
	}
}

/* ---- for the agent ---------------------------------------------------------------------------------------------------------------- */

void mg_propose_for(struct mg *mg, unsigned vm, const struct lease_cas *cas, uint64_t ring, uint64_t number, uint64_t line)
{
	struct lease_cas c = *cas;
	struct mg_open *o = calloc(1, sizeof(*o));
	int rc;

	c.role = LEASE_BY_AGENT;
	*o = (struct mg_open){ .line = line, .number = number, .vm = vm };
	rc = leasedb_propose(mg->db, &mg->io, &c, ring, &o->id);
	if (rc) {
		free(o);
		line_after(mg, (struct mg_ev){ .vm = vm, .number = number, .status = -ECANCELED }, do_outcome);
		return;
	}
	o->next = mg->open;
	mg->open = o;
}

void mg_letter(struct mg *mg, uint32_t to, unsigned vm, uint64_t txid, json_t *body_take)
{
	struct world *w = mg->n->w;
	struct mg *other;

	if (!to || to > NODES || w->cut[mg->n->id][to] || (w->faults && chance(w, 1, 20)) || !mg->in_view) {
		json_decref(body_take);
		return;
	}
	other = &w->n[to].mg;
	if (other->alive && other->line)
		ev_after(other, 500000 + below(w, 3 * MS), (struct mg_ev){ .line = other->line, .vm = vm, .txid = txid, .body = body_take }, do_letter);
	else
		json_decref(body_take);
}

static void do_inventory(struct mg_ev *e)
{
	struct leasedb_item item[VMS];
	uint32_t n;

	e->mg->asking = false;
	if (leasedb_ring(e->mg->db) != e->ring || !leasedb_wants_inventory(e->mg->db))
		return;
	if (!hv_inventory(&e->mg->n->hv, item, &n) && leasedb_inventory(e->mg->db, &e->mg->io, item, n))
		story(e->mg->n->w, "n%u: an inventory was refused", e->mg->n->id);
}

/* ---- the leader ------------------------------------------------------------------------------------------------------------------- */

static uint32_t place(void *arg, const struct lease *l, uint32_t avoid)
{
	struct mg *mg = arg;
	uint32_t last = 0;

	(void)l;
	for (unsigned i = 1; i <= NODES; i++) {
		struct node *n = &mg->n->w->n[i];

		if (!leasedb_is_member(mg->db, i, n->inc) || !n->hv.alive)
			continue;
		if (i != avoid)
			return i;
		last = i;
	}
	return last;
}

static uint32_t config(void *arg, const struct lease *l)
{
	(void)arg, (void)l;
	return 1;
}

static enum lease_fence fence_state(void *arg, uint32_t nodeid)
{
	return ((struct mg *)arg)->fence[nodeid];
}

static void prove_again(struct mg_ev *e)
{
	struct mg *mg = e->mg;

	if (mg->n->w->n[e->node].inc == e->inc && mg->n->w->n[e->node].up)
		csv_panic("a proof about a node that lives");
	if (leasedb_proven(mg->db, e->node, e->inc) && mg->fence[e->node] == LEASE_FENCE_BUSY)
		mg->fence[e->node] = LEASE_FENCE_UNTRIED;
	if (leasedb_proven(mg->db, e->node, e->inc) || !leasedb_is_settled(mg->db)) {
		mg->fence[e->node] = LEASE_FENCE_UNTRIED;
		return;
	}
	if (leasedb_prove(mg->db, &mg->io, e->node, e->inc, LEASEDB_PROOF_FENCED))
		story(mg->n->w, "n%u: the proof about n%u is not taken now", mg->n->id, e->node);
	ev_after(mg, 300 * MS, *e, prove_again);
}

static void fence_done(struct mg_ev *e)
{
	struct mg *mg = e->mg;
	struct world *w = mg->n->w;
	struct node *n = &w->n[e->node];

	if (!w->fence_works || (w->faults && chance(w, 1, 6))) {
		story(w, "the fence device of n%u does not answer", e->node);
		mg->fence[e->node] = LEASE_FENCE_FAILED;
		return;
	}
	w->counter[N_FENCE]++;
	/* Off means off, whichever life it has by now; a life that the lease does not speak of is another matter, and is off too. */
	node_off(n, "fenced");
	after(w, 500 * MS + below(w, 5 * NS_PER_SEC), (void (*)(void *))node_on, n);
	prove_again(e);
}

static void lead(struct mg *mg)
{
	struct lease_lead in = { .db = mg->db, .place = place, .config = config, .fence = fence_state, .failures_max = 3, .arg = mg,
				 .cold_grace_over = now(mg->n->w) > mg->cold_ns + 5 * NS_PER_SEC };

	for (unsigned i = 1; i <= NODES; i++)
		if (leasedb_is_member(mg->db, i, mg->n->w->n[i].inc) && mg->fence[i] != LEASE_FENCE_BUSY)
			mg->fence[i] = LEASE_FENCE_UNTRIED;
	for (unsigned i = 0; i < VMS; i++) {
		const struct lease *l = leasedb_find(mg->db, vm_name_of(i));
		struct lease_action a;
		uint64_t id;

		if (!l || leasedb_is_open(mg->db, vm_name_of(i)))
			continue;
		lease_lead_vm(&in, l, &a);
		if (a.act == LEASE_ACT_PROPOSE) {
			story(mg->n->w, "leader n%u: %s: %s", mg->n->id, l->vm, lease_move_name(a.cas.move));
			if (leasedb_propose(mg->db, &mg->io, &a.cas, leasedb_ring(mg->db), &id))
				story(mg->n->w, "leader n%u: not taken", mg->n->id);
		} else if (a.act == LEASE_ACT_FENCE && mg->fence[a.nodeid] != LEASE_FENCE_BUSY) {
			mg->fence[a.nodeid] = LEASE_FENCE_BUSY;
			story(mg->n->w, "leader n%u: fences n%u", mg->n->id, a.nodeid);
			ev_after(mg, 200 * MS + below(mg->n->w, NS_PER_SEC), (struct mg_ev){ .node = a.nodeid, .inc = a.inc }, fence_done);
		}
	}
}

static void tick(struct mg_ev *e)
{
	struct mg *mg = e->mg;

	leasedb_tick(mg->db, &mg->io);
	if (leasedb_is_settled(mg->db)) {
		if (leasedb_wants_inventory(mg->db) && !mg->asking && mg->line) {
			mg->asking = true;
			line_after(mg, (struct mg_ev){ .ring = leasedb_ring(mg->db) }, do_inventory);
		}
		if (leasedb_orderer(mg->db) == mg->n->id && (e->number ^= 1))
			lead(mg);
	}
	ev_after(mg, TICK, *e, tick);
}

int mg_admin(struct mg *mg, struct lease_cas *cas)
{
	uint64_t id;

	cas->role = LEASE_BY_COORD;
	if (!mg->alive || !leasedb_is_settled(mg->db) || leasedb_is_open(mg->db, cas->vm))
		return -EAGAIN;
	return leasedb_propose(mg->db, &mg->io, cas, leasedb_ring(mg->db), &id);
}

/* ---- life ----------------------------------------------------------------------------------------------------------------------------- */

void mg_start(struct mg *mg)
{
	struct world *w = mg->n->w;
	struct leasedb_conf c = { .self = mg->n->id, .self_inc = mg->n->inc, .n = NODES };

	if (mg->alive || !mg->n->up)
		return;
	for (unsigned i = 0; i < NODES; i++)
		c.node[i] = (struct leasedb_vote){ i + 1, 1 };
	mg->alive = true;
	mg->life++;
	mg->in_view = mg->purged = false;
	mg->line = 0;
	mg->open = NULL;
	memset(mg->fence, 0, sizeof(mg->fence));
	if (!mg->db)
		mg->db = malloc(sizeof(*mg->db));
	leasedb_init(mg->db, &c);
	mg->db->mutate = w->mutate_db;
	mg->io = (struct leasedb_io){ io_multicast, io_unsettled, io_settled, io_record, io_outcome, io_purged, mg };
	mg->cold_ns = now(w);
	ev_after(mg, below(w, TICK), (struct mg_ev){ 0 }, tick);
	mg_line_up(mg);
	reform(w);
}

void mg_kill(struct mg *mg)
{
	if (!mg->alive)
		return;
	mg->alive = mg->in_view = false;
	while (mg->open) {
		struct mg_open *o = mg->open;

		mg->open = o->next;
		free(o);
	}
	mg->line = 0;
	/* The agent's line breaks. */
	if (mg->n->hv.alive)
		hv_unsettled(&mg->n->hv);
	reform(mg->n->w);
}

void mg_suspend(struct mg *mg)
{
	mg->in_view = false;
	if (mg->alive)
		leasedb_suspend(mg->db, &mg->io);
}

void mg_view(struct mg *mg, const struct cluster_view *v)
{
	mg->in_view = true;
	leasedb_view(mg->db, &mg->io, v);
}
