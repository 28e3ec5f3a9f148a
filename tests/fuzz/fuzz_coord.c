/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuzz_coord.c - what coordinators say to each other: requests, items and events (decoder coord), in a world of three with hvhostd and VMs;
 * and the replicas of leases (decoder leases), three of them without a world.  Samples are what was said in earnest before; a member other
 * than the one it was meant for says it again, changed.
 *
 * A member's word counts, so changed messages of replicas may be believed; what is looked at is that each replica lives and keeps its bounds.
 */
#include "tests/unit/mig_world.h"
#include "tests/unit/lease_rig.h"

#include <stdlib.h>

#include "migrator/leasedb_internal.h"
#include "tests/fuzz/fuzz.h"

#define KEPT 256u

struct said { uint32_t from; size_t len; uint8_t b[FUZZ_ROOM]; };

static struct {
	struct said said[KEPT];
	unsigned n, at;
	bool closed;			/* enough heard */
} rec;

static void record_said(uint32_t from, const void *buf, size_t len)
{
	struct said *s = &rec.said[rec.at];

	if (rec.closed || len > FUZZ_ROOM || !len)
		return;
	s->from = from;
	s->len = len;
	memcpy(s->b, buf, len);
	rec.at = (rec.at + 1) % KEPT;
	rec.n = csv_min(rec.n + 1, KEPT);
}

static void said_sample(struct fuzz_input *in)
{
	const struct said *s;

	csv_assert(rec.n);
	s = &rec.said[csv_prng_below(in->prng, rec.n)];
	memcpy(in->b, s->b, s->len);
	in->len = s->len;
}

/* ---- requests, items, events ------------------------------------------------------------------------------------------------------------ */

#define HEADER 40u			/* of the view tracker; its channel at 7 */

static struct mw *w;
static const struct cluster_port_ops *real_ops;

static int hear_start(struct cluster_port *p, const struct cluster_raw_events *ev, void *arg) { return real_ops->start(p, ev, arg); }
static void hear_stop(struct cluster_port *p) { real_ops->stop(p); }

static int hear_send(struct cluster_port *p, const void *buf, size_t len)
{
	const uint8_t *b = buf;

	if (len > HEADER && b[6] == 2 && b[7] == MIG_CHAN)
		record_said(p->self, b + HEADER, len - HEADER);
	return real_ops->send(p, buf, len);
}

static const struct cluster_port_ops hear_ops = { hear_start, hear_send, hear_stop };

static void coord_begin(void)
{
	memset(&rec, 0, sizeof(rec));
	w = mw_new();
	real_ops = w->node[1].cport.ops;
	for (uint32_t i = 1; i <= MW_NODES; i++)
		w->node[i].cport.ops = &hear_ops;
	mw_vm_on(w, "vm1", 1, 100);
	mw_vm_on(w, "vm2", 2, 50);
	for (uint32_t id = 2; id <= 3; id++) {
		mw_ask(w, id, "vm.list", NULL);
		mw_ask(w, id, "node.list", NULL);
		mw_ask(w, id, "vm.show", json_pack("{s:s}", "name", "vm1"));
		mw_ask(w, id, "vm.stop", json_pack("{s:s}", "name", "no such"));
		mw_ask(w, id, "ha.disable", json_pack("{s:s}", "name", "vm2"));
	}
	mw_job(w, 3, "migration.start", json_pack("{s:s, s:s}", "vm", "vm1", "to", "n3"), 60 * NS_PER_SEC);
	mw_job(w, 2, "node.drain", json_pack("{s:i, s:s}", "nodeid", 3, "node", "n3"), 60 * NS_PER_SEC);
	mw_ask(w, 2, "node.resume", json_pack("{s:i, s:s}", "nodeid", 3, "node", "n3"));
	mw_run(w, 2 * NS_PER_SEC);
	rec.closed = true;
	csv_assertf(rec.n > 20, "only %u messages were said", rec.n);
}

static void coord_end(void)
{
	mw_run(w, 30 * NS_PER_SEC);
	csv_assertf(mw_leader(w), "no leader any more");
	csv_assertf(!mw_code(mw_ask(w, 1, "vm.list", NULL)), "vm list is not answered any more");
	mw_free(w);
}

static bool coord_run(struct fuzz_input *in)
{
	uint32_t id = 1 + (uint32_t)csv_prng_below(in->prng, MW_NODES);
	json_t *o = json_loadb((const char *)in->b, in->len, JSON_REJECT_DUPLICATES, NULL);
	bool taken = json_is_object(o);

	json_decref(o);
	cluster_send(w->node[id].env.cluster, MIG_CHAN, in->b, in->len);
	mw_run(w, csv_prng_chance(in->prng, 1, 100) ? NS_PER_SEC : NS_PER_MS);
	return taken;
}

/* ---- replicas of leases ---------------------------------------------------------------------------------------------------------------- */

static struct replica { struct leasedb db; unsigned settled; } R[3];
static struct { unsigned from; size_t len; uint8_t *buf; } net[512];
static unsigned head, tail;

static void multicast(void *arg, const void *buf, size_t len)
{
	unsigned from = (unsigned)((struct replica *)arg - R) + 1;

	record_said(from, buf, len);
	if (tail == ARRAY_SIZE(net))
		return;				/* lost, as any may be */
	net[tail].from = from;
	net[tail].len = len;
	net[tail].buf = malloc(len);
	csv_assert(net[tail].buf && len <= LEASEDB_MSG_MAX);
	memcpy(net[tail++].buf, buf, len);
}

static void unsettled(void *arg) { (void)arg; }
static void settled(void *arg, struct ring_id ring, bool cold) { (void)ring; (void)cold; ((struct replica *)arg)->settled++; }
static void on_record(void *arg, const struct lease *l) { (void)arg; csv_assert(lease_vm_valid(l->vm)); }
static void purged(void *arg) { (void)arg; }

static void outcome(void *arg, uint64_t id, const struct lease_cas *c, int status)
{
	(void)arg;
	(void)id;
	(void)status;
	csv_assert(lease_vm_valid(c->vm));
}

static struct leasedb_io io(unsigned i)
{
	return (struct leasedb_io){ multicast, unsettled, settled, on_record, outcome, purged, &R[i] };
}

static void flow(void)
{
	while (head < tail) {
		for (unsigned i = 0; i < 3; i++) {
			struct leasedb_io o = io(i);

			leasedb_msg(&R[i].db, &o, net[head].from, net[head].buf, net[head].len);
		}
		free(net[head++].buf);
	}
	head = tail = 0;
}

static void propose(unsigned i, const char *vm, enum lease_move move, uint32_t node)
{
	struct leasedb_io o = io(i);
	struct lease_cas c = lease_rig_cas(leasedb_find(&R[i].db, vm), vm, move, node);
	uint64_t id;

	if (leasedb_propose(&R[i].db, &o, &c, leasedb_ring(&R[i].db), &id))
		return;
	flow();
}

static void leases_begin(void)
{
	struct cluster_view v = { .ring = { 1, 7 }, .n = 3, .m = { { 1, 100 }, { 2, 100 }, { 3, 100 } } };

	memset(&rec, 0, sizeof(rec));
	for (unsigned i = 0; i < 3; i++) {
		struct leasedb_conf c = { .self = i + 1, .self_inc = 16 * (i + 1), .n = 3, .node = { { 1, 1 }, { 2, 1 }, { 3, 1 } } };

		R[i].settled = 0;
		leasedb_init(&R[i].db, &c);
	}
	for (unsigned i = 0; i < 3; i++) {
		struct leasedb_io o = io(i);

		leasedb_view(&R[i].db, &o, &v);
	}
	flow();
	for (unsigned i = 0; i < 3; i++) {
		struct leasedb_item it = { .vm = "old", .epoch = 3, .flags = LEASEDB_ITEM_EXEC, .config = 1 };
		struct leasedb_io o = io(i);

		csv_assert(leasedb_is_settled(&R[i].db));
		if (leasedb_wants_inventory(&R[i].db))
			csv_assert(!leasedb_inventory(&R[i].db, &o, &it, i == 1));
		flow();
	}
	propose(0, "web1", LEASE_CREATE, 0);
	propose(1, "web2", LEASE_CREATE, 0);
	propose(0, "web1", LEASE_START, 2);
	propose(1, "web1", LEASE_STARTED, 2);
	propose(2, "web1", LEASE_INTENT, 3);
	for (unsigned i = 0; i < 3; i++) {
		struct leasedb_io o = io(i);

		leasedb_tick(&R[i].db, &o);
		leasedb_beat(&R[i].db, &o);
		leasedb_ack(&R[i].db, &o, true);
		flow();
	}
	csv_assert(leasedb_count(&R[0].db) >= 2);
	rec.closed = true;
}

static void leases_end(void)
{
	struct cluster_view v = { .ring = { 1, 8 }, .n = 3, .m = { { 1, 100 }, { 2, 100 }, { 3, 100 } } };

	flow();
	/* whatever was believed: in the next view they are of one mind again */
	for (unsigned i = 0; i < 3; i++) {
		struct leasedb_io o = io(i);

		R[i].settled = 0;
		leasedb_view(&R[i].db, &o, &v);
	}
	flow();
	for (unsigned round = 0; round < 200; round++)
		for (unsigned i = 0; i < 3; i++) {
			struct leasedb_io o = io(i);

			leasedb_tick(&R[i].db, &o);
			flow();
		}
	for (unsigned i = 0; i < 3; i++)
		csv_assertf(leasedb_is_settled(&R[i].db), "replica %u does not settle any more", i + 1);
	csv_assert(leasedb_count(&R[0].db) == leasedb_count(&R[1].db) && leasedb_count(&R[0].db) == leasedb_count(&R[2].db));
}

static bool leases_run(struct fuzz_input *in)
{
	unsigned to = (unsigned)csv_prng_below(in->prng, 3), from = 1 + (unsigned)csv_prng_below(in->prng, 3);
	struct leasedb_io o = io(to);
	void *p = fuzz_exact(in);
	int rc = leasedb_msg(&R[to].db, &o, from, p, in->len);

	csv_assert(R[to].db.n_acc <= LEASEDB_VMS_MAX && R[to].db.n_com <= LEASEDB_VMS_MAX && R[to].db.n_window <= LEASEDB_WINDOW);
	free(p);
	flow();
	if (csv_prng_chance(in->prng, 1, 20)) {
		leasedb_tick(&R[to].db, &o);
		flow();
	}
	return !rc;
}

const struct fuzz_decoder fuzz_coord[] = {
	{ .name = "coord", .life = 2000, .text = true, .gentle = true, .forgets = true, .begin = coord_begin, .end = coord_end, .sample = said_sample, .run = coord_run },
	{ .name = "leases", .life = 500, .begin = leases_begin, .end = leases_end, .sample = said_sample, .run = leases_run },
	{ 0 },
};
/* decoder coord, decoder leases */
