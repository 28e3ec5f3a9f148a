/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * test_lease: the table of moves, the wire forms, and the replicas with tables of full size (the model checker, tests/model, has small
 * ones and everything that can go wrong).
 */
#include "migrator/lease_lead.h"
#include "migrator/leasedb_internal.h"
#include "tests/unit/unit.h"
#include "tests/unit/lease_rig.h"

#include <errno.h>

#include "utils/base/err.h"
#include "utils/base/prng.h"

/* ---- moves */

static bool proven(const void *arg, uint32_t nodeid, uint64_t inc)
{
	(void)inc;
	return *(const uint32_t *)arg == nodeid;
}

static bool lives(const void *arg, uint32_t nodeid, uint64_t inc)
{
	return *(const uint32_t *)arg != nodeid && inc == nodeid * 16;
}

static struct lease_cas cas(const struct lease *l, enum lease_move move, enum lease_role role, uint32_t by)
{
	struct lease_cas c;

	memset(&c, 0, sizeof(c));
	strcpy(c.vm, "web1");
	c.version = l->version;
	c.move = move;
	c.role = role;
	c.by = by;
	c.by_inc = by * 16;
	c.want = l->want;
	c.txid = l->txid;
	return c;
}

static int apply(struct lease *l, const struct lease_cas *c, uint32_t dead)
{
	const struct lease_world w = { proven, lives, &dead, 0, 0 };

	return lease_apply(l, c, &w, l);
}

static int coord(struct lease *l, enum lease_move move, uint32_t node, uint64_t txid, uint32_t dead)
{
	struct lease_cas c = cas(l, move, LEASE_BY_COORD, 3);

	c.node = node;
	c.node_inc = node * 16;
	c.config = 1;
	if (txid)
		c.txid = txid;
	if (move == LEASE_CREATE || move == LEASE_SET) {
		c.want = LEASE_WANT_RUN;
		c.flags = LEASE_HA;
	}
	if (move == LEASE_BLOCK)
		c.reason = LEASE_REASON_NO_AGENT;
	return apply(l, &c, dead);
}

static int agent(struct lease *l, enum lease_move move, uint32_t by, uint32_t dead)
{
	struct lease_cas c = cas(l, move, LEASE_BY_AGENT, by);

	return apply(l, &c, dead);
}

static struct lease running(uint32_t node)
{
	struct lease l;

	memset(&l, 0, sizeof(l));
	ck_assert_int_eq(coord(&l, LEASE_CREATE, 0, 0, 0), 0);
	ck_assert_int_eq(coord(&l, LEASE_START, node, 0, 0), 0);
	ck_assert_int_eq(agent(&l, LEASE_STARTED, node, 0), 0);
	ck_assert_int_eq(l.state, LEASE_RUNNING);
	return l;
}

START_TEST(a_migration_goes_its_way)
{
	struct lease l = running(1);
	uint64_t epoch = l.epoch;

	ck_assert_int_eq(coord(&l, LEASE_INTENT, 2, 77, 0), 0);
	ck_assert(lease_is_intent(&l));
	ck_assert_int_eq(coord(&l, LEASE_SET, 0, 0, 0), -EBUSY);
	ck_assert_int_eq(agent(&l, LEASE_HANDOVER, 2, 0), -EPERM);
	ck_assert_int_eq(agent(&l, LEASE_ACCEPT, 2, 0), -EINVAL);
	ck_assert_int_eq(agent(&l, LEASE_HANDOVER, 1, 0), 0);
	ck_assert_int_eq(l.state, LEASE_HANDOFF);
	ck_assert_uint_eq(l.owner, 2);
	ck_assert_uint_eq(l.epoch, epoch + 1);
	ck_assert(!lease_may_run(&l, 1, 16) && !lease_may_run(&l, 2, 32));
	ck_assert_int_eq(agent(&l, LEASE_ABORT, 1, 0), -EINVAL);
	ck_assert_int_eq(agent(&l, LEASE_REFUSE, 1, 0), -EPERM);
	ck_assert_int_eq(coord(&l, LEASE_REFUSE, 0, 0, 0), -EACCES);
	ck_assert_int_eq(agent(&l, LEASE_ACCEPT, 2, 0), 0);
	ck_assert(lease_may_run(&l, 2, 32));
	ck_assert_uint_eq(l.epoch, epoch + 1);
	ck_assert_int_eq(agent(&l, LEASE_CLOSE, 1, 0), 0);
	ck_assert_uint_eq(l.txid, 0);
}
END_TEST

START_TEST(a_refused_handoff_goes_back)
{
	struct lease l = running(1);

	ck_assert_int_eq(coord(&l, LEASE_INTENT, 2, 77, 0), 0);
	ck_assert_int_eq(agent(&l, LEASE_HANDOVER, 1, 0), 0);
	ck_assert_int_eq(coord(&l, LEASE_REFUSE, 0, 0, 2), 0);
	ck_assert(lease_may_run(&l, 1, 16));
	ck_assert(l.flags & LEASE_RETURNED);
	ck_assert_int_eq(agent(&l, LEASE_ABORT, 1, 0), 0);
	ck_assert_uint_eq(l.txid, 0);
	ck_assert(!(l.flags & LEASE_RETURNED));
}
END_TEST

START_TEST(nobody_takes_a_lease_without_a_proof)
{
	struct lease l = running(1);

	ck_assert_int_eq(coord(&l, LEASE_TAKE, 2, 0, 0), -EACCES);
	ck_assert_int_eq(agent(&l, LEASE_RELEASE, 2, 0), -EPERM);
	ck_assert_int_eq(coord(&l, LEASE_BLOCK, 0, 0, 0), 0);
	ck_assert_int_eq(l.state, LEASE_BLOCKED);
	ck_assert_int_eq(coord(&l, LEASE_TAKE, 2, 0, 0), -EACCES);
	ck_assert_int_eq(agent(&l, LEASE_UNBLOCK, 1, 0), 0);
	ck_assert(lease_may_run(&l, 1, 16));
	ck_assert_int_eq(coord(&l, LEASE_TAKE, 2, 0, 1), 0);
	ck_assert_int_eq(l.state, LEASE_RECOVERING);
	ck_assert_uint_eq(l.owner, 2);
}
END_TEST

START_TEST(an_old_version_is_refused)
{
	struct lease l = running(1);
	struct lease_cas c = cas(&l, LEASE_RELEASE, LEASE_BY_AGENT, 1);

	c.version--;
	ck_assert_int_eq(apply(&l, &c, 0), -ESTALE);
	/* a new record goes on counting where the deleted one ended */
	memset(&l, 0, sizeof(l));
	c = cas(&l, LEASE_CREATE, LEASE_BY_COORD, 3);
	{
		uint32_t dead = 0;
		const struct lease_world w = { proven, lives, &dead, 41, 0 };

		ck_assert_int_eq(lease_apply(&l, &c, &w, &l), 0);
	}
	ck_assert_uint_eq(l.version, 42);
}
END_TEST

/* ---- wire */

START_TEST(wire_forms_come_back)
{
	struct lease l = running(1), back;
	struct lease_cas c, cback;
	uint8_t buf[512];
	struct csv_cursor w, r;

	ck_assert_int_eq(coord(&l, LEASE_INTENT, 2, 0x1122334455667788, 0), 0);
	l.priority = 7;
	l.failures = 300;
	c = cas(&l, LEASE_RELEASE, LEASE_BY_AGENT, 9);
	c.reason = LEASE_REASON_GUEST_OFF;
	c.node = 5;
	c.node_inc = 6;
	c.config = 8;
	csv_cursor_init(&w, buf, sizeof(buf));
	lease_encode(&w, &l);
	lease_cas_encode(&w, &c);
	ck_assert(!csv_cur_error(&w));
	csv_cursor_init_ro(&r, buf, csv_cur_used(&w));
	memset(&back, 0, sizeof(back));
	lease_decode(&r, &back);
	lease_cas_decode(&r, &cback);
	ck_assert(!csv_cur_error(&r) && !csv_cur_left(&r));
	ck_assert_mem_eq(&l, &back, sizeof(l));
	ck_assert_mem_eq(&c, &cback, sizeof(c));
}
END_TEST

START_TEST(no_cut_or_changed_record_is_believed_or_crashes)
{
	struct lease l = running(1), back;
	uint8_t buf[LEASE_WIRE_MAX], bad[LEASE_WIRE_MAX];
	struct csv_cursor c;
	size_t len;
	unsigned refused = 0;

	csv_cursor_init(&c, buf, sizeof(buf));
	lease_encode(&c, &l);
	len = csv_cur_used(&c);
	for (size_t n = 0; n < len; n++) {
		csv_cursor_init_ro(&c, buf, n);
		lease_decode(&c, &back);
		ck_assert(csv_cur_error(&c));
	}
	for (size_t at = 0; at < len; at++)
		for (unsigned v = 0; v < 256; v++) {
			memcpy(bad, buf, len);
			bad[at] = v;
			csv_cursor_init_ro(&c, bad, len);
			memset(&back, 0, sizeof(back));
			lease_decode(&c, &back);
			if (csv_cur_error(&c)) {
				refused++;
				continue;
			}
			ck_assert(lease_vm_valid(back.vm));
			ck_assert(back.state > LEASE_NONE && back.state < LEASE_STATE_END && back.want < LEASE_WANT_END);
			ck_assert(back.state != LEASE_RUNNING || back.owner);
		}
	ck_assert_uint_gt(refused, 1000);
}
END_TEST

/* ---- replicas: three with tables of full size, one network that is whole */

struct packet { uint32_t from; size_t len; uint8_t *buf; };
static struct replica { struct leasedb db; unsigned settled, unsettled, records, outcomes, purged; int status; bool cold; } R[3];
static struct packet net[4096];
static unsigned net_head, net_tail, down;	/* down: mask of who hears and says nothing */

static void multicast(void *arg, const void *buf, size_t len)
{
	struct packet *p = &net[net_tail++];

	ck_assert_uint_lt(net_tail, ARRAY_SIZE(net));
	ck_assert_uint_le(len, LEASEDB_MSG_MAX);
	p->from = (uint32_t)((struct replica *)arg - R) + 1;
	p->len = len;
	p->buf = malloc(len);
	memcpy(p->buf, buf, len);
}

static void unsettled(void *arg) { ((struct replica *)arg)->unsettled++; }
static void settled(void *arg, struct ring_id ring, bool cold) { (void)ring; ((struct replica *)arg)->settled++; ((struct replica *)arg)->cold = cold; }
static void record(void *arg, const struct lease *l) { (void)l; ((struct replica *)arg)->records++; }
static void purged(void *arg) { ((struct replica *)arg)->purged++; }
static void outcome(void *arg, uint64_t id, const struct lease_cas *c, int status)
{
	(void)id;
	(void)c;
	((struct replica *)arg)->outcomes++;
	((struct replica *)arg)->status = status;
}

static struct leasedb_io io(unsigned i)
{
	return (struct leasedb_io){ multicast, unsettled, settled, record, outcome, purged, &R[i] };
}

static void flow(void)
{
	while (net_head < net_tail) {
		struct packet p = net[net_head++];

		for (unsigned i = 0; i < 3; i++) {
			struct leasedb_io o = io(i);

			if (!(down >> i & 1) && !(down >> (p.from - 1) & 1))
				ck_assert_int_eq(leasedb_msg(&R[i].db, &o, p.from, p.buf, p.len), 0);
		}
		free(p.buf);
	}
	net_head = net_tail = 0;
}

static void restart(unsigned i, uint64_t inc)
{
	struct leasedb_conf c = { .self = i + 1, .self_inc = inc, .n = 3, .node = { { 1, 1 }, { 2, 1 }, { 3, 1 } } };

	memset(&R[i], 0, sizeof(R[i]));
	leasedb_init(&R[i].db, &c);
}

static void view(uint64_t seq, unsigned mask)
{
	struct cluster_view v;

	memset(&v, 0, sizeof(v));
	v.ring.nodeid = 1;
	v.ring.seq = seq;
	down = ~mask & 7;
	for (unsigned i = 0; i < 3; i++)
		if (mask >> i & 1)
			v.m[v.n++] = (struct cluster_node){ i + 1, 100 };
	for (unsigned i = 0; i < 3; i++) {
		struct leasedb_io o = io(i);

		if (mask >> i & 1)
			leasedb_view(&R[i].db, &o, &v);
		else
			leasedb_suspend(&R[i].db, &o);
	}
	flow();
}

static void inventories(unsigned mask)
{
	for (unsigned i = 0; i < 3; i++) {
		struct leasedb_io o = io(i);

		if (!(mask >> i & 1))
			continue;
		ck_assert(leasedb_wants_inventory(&R[i].db));
		ck_assert_int_eq(leasedb_inventory(&R[i].db, &o, NULL, 0), 0);
		flow();
		ck_assert(!leasedb_wants_inventory(&R[i].db));
	}
}

static void three(void)
{
	for (unsigned i = 0; i < 3; i++)
		restart(i, 16 * (i + 1));
	view(1, 7);
	for (unsigned i = 0; i < 3; i++)
		ck_assert(leasedb_is_settled(&R[i].db) && R[i].cold);
}

static int propose(unsigned i, const char *vm, enum lease_move move, uint32_t node)
{
	struct leasedb_io o = io(i);
	struct lease_cas c = lease_rig_cas(leasedb_find(&R[i].db, vm), vm, move, node);
	uint64_t id;
	int r;

	r = leasedb_propose(&R[i].db, &o, &c, leasedb_ring(&R[i].db), &id);
	return r;
}

static void agree(void)
{
	for (unsigned i = 1; i < 3; i++) {
		ck_assert_uint_eq(leasedb_count(&R[i].db), leasedb_count(&R[0].db));
		ck_assert_mem_eq(R[i].db.com, R[0].db.com, leasedb_count(&R[0].db) * sizeof(struct lease));
	}
}

START_TEST(a_thousand_records_go_to_a_member_that_has_none)
{
	char vm[32];

	three();
	inventories(7);
	for (unsigned k = 0; k < 1000; k++) {
		snprintf(vm, sizeof(vm), "a-rather-long-name-of-a-vm-%u", k * 7919 % 1000);
		ck_assert_int_eq(propose(k % 3, vm, LEASE_CREATE, 0), 0);
		flow();
		ck_assert_int_eq(R[k % 3].status, 0);
	}
	agree();
	ck_assert_uint_eq(leasedb_count(&R[2].db), 1000);
	restart(2, 48);
	view(2, 7);
	for (unsigned i = 0; i < 3; i++)
		ck_assert(leasedb_is_settled(&R[i].db) && !R[2].cold);
	agree();
	ck_assert_uint_eq(leasedb_count(&R[2].db), 1000);
}
END_TEST

START_TEST(nothing_is_committed_without_a_majority)
{
	three();
	inventories(7);
	down = 6;	/* node 1 orders, and is heard by itself alone */
	ck_assert_int_eq(propose(0, "web1", LEASE_CREATE, 0), 0);
	flow();
	ck_assert_ptr_null(leasedb_find(&R[0].db, "web1"));
	ck_assert_uint_eq(R[0].outcomes, 0);
	/* the others go on without it: it never happened, though node 1 has it */
	view(2, 6);
	ck_assert(leasedb_is_settled(&R[1].db));
	view(3, 7);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_ptr_null(leasedb_find(&R[i].db, "web1"));
	ck_assert_uint_eq(R[0].outcomes, 1);
	ck_assert_int_eq(R[0].status, -ECANCELED);
}
END_TEST

START_TEST(what_one_of_two_survivors_has_is_kept)
{
	three();
	inventories(7);
	down = 4;	/* nodes 1 and 2 acknowledge it */
	ck_assert_int_eq(propose(0, "web1", LEASE_CREATE, 0), 0);
	flow();
	ck_assert_ptr_nonnull(leasedb_find(&R[0].db, "web1"));
	view(2, 6);	/* node 3 never heard of it, node 2 did */
	ck_assert_ptr_nonnull(leasedb_find(&R[2].db, "web1"));
	ck_assert_ptr_nonnull(leasedb_find(&R[1].db, "web1"));
}
END_TEST

START_TEST(a_cold_start_blocks_until_all_have_spoken_or_are_proven)
{
	struct leasedb_item item = { .vm = "db1", .epoch = 5, .config = 3, .flags = LEASEDB_ITEM_EXEC };
	struct leasedb_io o;
	const struct lease *l;

	for (unsigned i = 0; i < 3; i++)
		restart(i, 16 * (i + 1));
	view(1, 3);
	ck_assert_uint_eq(leasedb_suspects(&R[0].db), 3);
	o = io(1);
	ck_assert_int_eq(leasedb_inventory(&R[1].db, &o, &item, 1), 0);
	flow();
	l = leasedb_find(&R[0].db, "db1");
	ck_assert_ptr_nonnull(l);
	ck_assert(lease_may_run(l, 2, 32) && (l->flags & LEASE_GUESSED) && l->epoch == 5);
	ck_assert_int_eq(propose(0, "web1", LEASE_CREATE, 0), 0);
	flow();
	ck_assert_int_eq(leasedb_find(&R[1].db, "web1")->state, LEASE_BLOCKED);
	ck_assert_int_eq(propose(0, "web1", LEASE_START, 1), 0);
	flow();
	ck_assert_int_eq(R[0].status, -EINVAL);
	inventories(1);
	ck_assert_int_eq(leasedb_find(&R[1].db, "web1")->state, LEASE_BLOCKED);
	/* a proof about somebody who is here is none */
	o = io(0);
	ck_assert_int_eq(leasedb_prove(&R[0].db, &o, 2, 32, LEASEDB_PROOF_OPERATOR), 0);
	flow();
	ck_assert(!leasedb_proven(&R[0].db, 2, 32));
	ck_assert_int_eq(leasedb_prove(&R[0].db, &o, 3, 0, LEASEDB_PROOF_OPERATOR), 0);
	flow();
	ck_assert_int_eq(leasedb_find(&R[1].db, "web1")->state, LEASE_FREE);
	ck_assert_uint_eq(leasedb_suspects(&R[0].db), 0);
	ck_assert_int_eq(propose(0, "web1", LEASE_START, 1), 0);
	flow();
	ck_assert_int_eq(leasedb_find(&R[1].db, "web1")->state, LEASE_RECOVERING);
}
END_TEST

START_TEST(an_isolated_node_s_vm_is_not_started_again_after_a_cold_start)
{
	three();
	inventories(7);
	ck_assert_int_eq(propose(0, "web1", LEASE_CREATE, 0), 0);
	flow();
	ck_assert_int_eq(propose(0, "web1", LEASE_START, 3), 0);
	flow();
	ck_assert_int_eq(propose(2, "web1", LEASE_STARTED, 0), 0);
	flow();
	ck_assert(lease_may_run(leasedb_find(&R[0].db, "web1"), 3, 48));
	/* node 3 is cut off; the others lose their memory */
	restart(0, 16);
	restart(1, 32);
	view(2, 3);
	ck_assert(R[0].cold);
	inventories(3);
	ck_assert_int_eq(propose(0, "web1", LEASE_CREATE, 0), 0);
	flow();
	ck_assert_int_eq(leasedb_find(&R[0].db, "web1")->state, LEASE_BLOCKED);
	ck_assert_int_eq(leasedb_find(&R[0].db, "web1")->reason, LEASE_REASON_COLD);
}
END_TEST

START_TEST(a_proven_node_that_lives_is_told_to_kill)
{
	struct leasedb_io o;

	three();
	inventories(7);
	view(2, 3);
	o = io(0);
	ck_assert_int_eq(leasedb_prove(&R[0].db, &o, 3, 48, LEASEDB_PROOF_OPERATOR), 0);
	flow();
	ck_assert(leasedb_proven(&R[1].db, 3, 48));
	view(3, 7);
	ck_assert_uint_eq(R[2].purged, 1);
	ck_assert_int_eq(propose(2, "web1", LEASE_CREATE, 0), 0);
	flow();
	ck_assert_int_eq(R[2].status, -EPERM);	/* DB6 */
	restart(2, 49);
	view(4, 7);
	ck_assert_uint_eq(R[2].purged, 0);
	ck_assert(leasedb_is_member(&R[0].db, 3, 49));
	ck_assert(leasedb_proven(&R[0].db, 3, 48));
}
END_TEST

START_TEST(malformed_messages_are_refused)
{
	struct csv_prng prng;
	uint8_t good[4096], bad[4096];
	size_t len;
	unsigned refused = 0;

	three();
	inventories(7);
	/* a real one of each kind, damaged at random */
	for (unsigned kind = 0; kind < 3; kind++) {
		struct leasedb_io o = io(1);

		if (kind == 0)
			ck_assert_int_eq(propose(1, "web1", LEASE_CREATE, 0), 0);
		else if (kind == 1)
			ck_assert_int_eq(leasedb_prove(&R[1].db, &o, 3, 48, LEASEDB_PROOF_FENCED), 0);
		else
			leasedb_ack(&R[1].db, &o, true);
		ck_assert_uint_eq(net_tail, 1);
		len = net[0].len;
		memcpy(good, net[0].buf, len);
		free(net[0].buf);
		net_tail = 0;
		csv_prng_init(&prng, 42 + kind);
		for (unsigned n = 0; n < 20000; n++) {
			size_t l = csv_prng_u64(&prng) % 4 ? len : csv_prng_u64(&prng) % len;

			memcpy(bad, good, len);
			for (unsigned k = 0; k < 1 + n % 3; k++)
				bad[csv_prng_u64(&prng) % len] = (uint8_t)csv_prng_u64(&prng);
			o = io(0);
			refused += leasedb_msg(&R[0].db, &o, 2, bad, l) == -EPROTO;
			while (net_tail)
				free(net[--net_tail].buf);
			net_head = 0;
		}
	}
	ck_assert_uint_gt(refused, 10000);
}
END_TEST

/* ---- the leader */
static uint32_t place_2(void *arg, const struct lease *l, uint32_t avoid) { (void)arg; (void)l; return avoid == 2 ? 1 : 2; }
static uint32_t config_1(void *arg, const struct lease *l) { (void)arg; (void)l; return 1; }
static enum lease_fence fence_is(void *arg, uint32_t nodeid) { (void)nodeid; return *(enum lease_fence *)arg; }

START_TEST(the_leader_fences_then_takes_or_blocks)
{
	enum lease_fence f = LEASE_FENCE_UNTRIED;
	struct lease_lead in = { &R[0].db, place_2, config_1, fence_is, true, 3, &f };
	struct lease_action a;
	struct leasedb_io o;

	three();
	inventories(7);
	ck_assert_int_eq(propose(0, "web1", LEASE_CREATE, 0), 0);
	flow();
	lease_lead_vm(&in, leasedb_find(&R[0].db, "web1"), &a);
	ck_assert_int_eq(a.act, LEASE_ACT_PROPOSE);
	ck_assert_int_eq(a.cas.move, LEASE_START);
	ck_assert_int_eq(propose(0, "web1", LEASE_START, 3), 0);
	flow();
	view(2, 3);
	lease_lead_vm(&in, leasedb_find(&R[0].db, "web1"), &a);
	ck_assert_int_eq(a.act, LEASE_ACT_FENCE);
	ck_assert_uint_eq(a.nodeid, 3);
	ck_assert_uint_eq(a.inc, 48);
	f = LEASE_FENCE_BUSY;
	lease_lead_vm(&in, leasedb_find(&R[0].db, "web1"), &a);
	ck_assert_int_eq(a.act, LEASE_ACT_NONE);
	f = LEASE_FENCE_NO_SWITCH;
	lease_lead_vm(&in, leasedb_find(&R[0].db, "web1"), &a);
	ck_assert_int_eq(a.cas.move, LEASE_BLOCK);
	ck_assert_int_eq(a.cas.reason, LEASE_REASON_NO_SWITCH);
	o = io(0);
	ck_assert_int_eq(leasedb_prove(&R[0].db, &o, 3, 48, LEASEDB_PROOF_FENCED), 0);
	flow();
	lease_lead_vm(&in, leasedb_find(&R[0].db, "web1"), &a);
	ck_assert_int_eq(a.cas.move, LEASE_TAKE);
	ck_assert_uint_eq(a.cas.node, 2);
}
END_TEST

UNIT_MAIN("lease", UNIT_TEST(a_migration_goes_its_way), UNIT_TEST(a_refused_handoff_goes_back), UNIT_TEST(nobody_takes_a_lease_without_a_proof),
	  UNIT_TEST(an_old_version_is_refused), UNIT_TEST(wire_forms_come_back), UNIT_TEST(no_cut_or_changed_record_is_believed_or_crashes),
	  UNIT_TEST(a_thousand_records_go_to_a_member_that_has_none), UNIT_TEST(nothing_is_committed_without_a_majority),
	  UNIT_TEST(what_one_of_two_survivors_has_is_kept), UNIT_TEST(a_cold_start_blocks_until_all_have_spoken_or_are_proven),
	  UNIT_TEST(an_isolated_node_s_vm_is_not_started_again_after_a_cold_start), UNIT_TEST(a_proven_node_that_lives_is_told_to_kill),
	  UNIT_TEST(malformed_messages_are_refused), UNIT_TEST(the_leader_fences_then_takes_or_blocks))
