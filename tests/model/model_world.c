/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * model_world.c - what follows from what: messages, agents, migratords, the leader's duty.  The steps are in model_step.c.
 */
#include "tests/model/model_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "utils/base/err.h"

void tell(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (!w->story)
		return;
	va_start(ap, fmt);
	fputs("      ", w->story);
	vfprintf(w->story, fmt, ap);
	fputc('\n', w->story);
	va_end(ap);
}

void violate(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (w->violation[0])
		return;
	va_start(ap, fmt);
	vsnprintf(w->violation, sizeof(w->violation), fmt, ap);
	va_end(ap);
}

unsigned choose(struct world *w, unsigned fan)
{
	unsigned at = w->pos;

	if (fan < 2)
		return 0;
	if (at >= ARRAY_SIZE(w->fan))
		return 0;
	w->pos++;
	w->fan[at] = fan;
	for (unsigned i = 0; w->path && i < w->path->n; i++)
		if (w->path->at[i] == at)
			return w->path->value[i] < fan ? w->path->value[i] : 0;
	return 0;
}

const char *vm_name(unsigned vm)
{
	return vm ? "vmB" : "vmA";
}

static unsigned vm_index(const char *name)
{
	return name[2] == 'B';
}

bool reach(const struct mstate *s, unsigned a, unsigned b)
{
	return s->n[a].up && s->n[b].up && s->group[a] == s->group[b];
}

static struct item *push(struct world *w, enum item_kind kind)
{
	struct item *i;

	csv_assert(w->q_tail < QUEUE_MAX);
	i = &w->queue[w->q_tail++];
	memset(i, 0, offsetof(struct item, buf));
	i->kind = kind;
	return i;
}

struct vmsm_event *push_event(struct world *w, unsigned node, unsigned vm, enum vmsm_ev ev)
{
	struct item *i = push(w, ITEM_EVENT);

	i->node = node;
	i->vm = vm;
	i->ev.ev = ev;
	return &i->ev;
}

/* ---- messages */

static void hold(struct world *w, unsigned from, const void *buf, size_t len)
{
	csv_assert(len <= HELD_BYTES);
	w->s.held_from = from + 1;
	w->s.held_len = len;
	memcpy(w->s.held, buf, len);
}

enum fate { FATE_SELF = 1, FATE_ALL, FATE_HOLD, FATE_TWICE, FATE_ONE, FATE_OTHER, FATE_CUT };

static enum fate fate(struct world *w, unsigned from)
{
	struct mstate *s = &w->s;
	enum fate f[8];
	unsigned n = 0, pick;
	bool alone = true;

	f[n++] = 0;
	for (unsigned j = 0; j < NODES; j++)
		alone &= j == from || !reach(s, from, j);
	if (s->b.msg && !alone) {
		f[n++] = FATE_SELF;
		f[n++] = FATE_ALL;
		f[n++] = FATE_ONE;
		f[n++] = FATE_OTHER;
		if (!s->held_from) {
			f[n++] = FATE_HOLD;
			f[n++] = FATE_TWICE;
		}
	}
	if (s->b.cut && !alone)
		f[n++] = FATE_CUT;
	pick = f[choose(w, n)];
	if (pick == FATE_CUT)
		s->b.cut--;
	else if (pick)
		s->b.msg--;
	return pick;
}

static void multicast(void *arg, const void *buf, size_t len)
{
	const struct io_arg *a = arg;
	struct world *w = a->w;
	unsigned from = a->node;
	static const char *const kind[] = { "?", "HELLO", "STATE", "PROPOSE", "ORDER", "ACK" };
	enum fate f = fate(w, from);
	struct item *i;
	unsigned skip = 0;

	tell(w, "n%u multicasts %s%s", from + 1, kind[((const uint8_t *)buf)[0] % 6],
	     f == FATE_SELF ? ": delivered to itself alone" : f == FATE_ALL ? ": lost" : f == FATE_HOLD ? ": held back" : f == FATE_TWICE ? ", doubled" :
	     f == FATE_CUT ? ": its link dies, delivered to itself alone" : f ? ": lost for one" : "");
	if (f == FATE_CUT)
		w->s.group[from] = from + 1;
	if (f == FATE_HOLD || f == FATE_TWICE)
		hold(w, from, buf, len);
	if (f == FATE_HOLD || f == FATE_ALL)
		return;
	csv_assert(len <= HELD_BYTES);
	i = push(w, ITEM_MSG);
	i->node = from;
	i->len = len;
	memcpy(i->buf, buf, len);
	for (unsigned j = 0; j < NODES; j++) {
		bool lost = j != from && (f == FATE_SELF || f == FATE_CUT);

		if (j != from && (f == FATE_ONE || f == FATE_OTHER))
			lost = skip++ == (f == FATE_OTHER);
		if (!lost)
			i->to |= 1u << j;
	}
}

static struct leasedb_io io_of(struct io_arg *a);

static void deliver(struct world *w, const struct item *i)
{
	for (unsigned j = 0; j < NODES; j++) {
		struct io_arg a = { w, j };
		struct leasedb_io io = io_of(&a);

		if ((i->to >> j & 1) && w->s.n[j].mig_up && (j == i->node ? w->s.n[j].up : reach(&w->s, i->node, j)))
			(void)leasedb_msg(&w->s.n[j].db, &io, i->node + 1, i->buf, i->len);
	}
}

/* ---- what the replica tells its node */

static bool other_is_here(const struct leasedb *db, const struct lease *l)
{
	bool mine = l->owner == db->conf.self;

	return leasedb_is_member(db, mine ? l->peer : l->owner, mine ? l->peer_inc : l->owner_inc);
}

static void push_record(struct world *w, unsigned node, unsigned vm, const struct lease *l)
{
	const struct leasedb *db = &w->s.n[node].db;
	struct vmsm_event *ev;

	if (!l && !leasedb_knows_absent(db))	/* DB7 */
		return;
	ev = push_event(w, node, vm, VMSM_EV_RECORD);
	if (l) {
		ev->rec = *l;
	} else {
		memcpy(ev->rec.vm, vm_name(vm), 4);
	}
	ev->ring = db->ring.seq;
	ev->open = leasedb_agent_is_open(db, vm_name(vm));
	ev->peer_here = l && other_is_here(db, l);
}

static void on_unsettled(void *arg)
{
	const struct io_arg *a = arg;

	for (unsigned vm = 0; vm < a->w->s.nvm; vm++)
		push_event(a->w, a->node, vm, VMSM_EV_UNSETTLED);
}

void push_all_records(struct world *w, unsigned node)
{
	for (unsigned vm = 0; vm < w->s.nvm; vm++)
		push_record(w, node, vm, leasedb_find(&w->s.n[node].db, vm_name(vm)));
}

static void on_settled(void *arg, struct ring_id ring, bool cold)
{
	const struct io_arg *a = arg;

	tell(a->w, "n%u: settled in ring %llu%s", a->node + 1, (unsigned long long)ring.seq, cold ? ", cold start" : "");
	push_all_records(a->w, a->node);
}

static void on_record(void *arg, const struct lease *l)
{
	const struct io_arg *a = arg;
	char text[160];

	if (a->w->story) {
		lease_to_text(l, text, sizeof(text));
		tell(a->w, "n%u: committed: %s", a->node + 1, text);
	}
	push_record(a->w, a->node, vm_index(l->vm), l);
}

static void on_outcome(void *arg, uint64_t id, const struct lease_cas *cas, int status)
{
	const struct io_arg *a = arg;
	unsigned vm = vm_index(cas->vm);

	if (status)
		tell(a->w, "n%u: %s from version %llu: %s", a->node + 1, lease_move_name(cas->move), (unsigned long long)cas->version,
		     csv_err_describe(status));
	if (cas->role == LEASE_BY_AGENT && a->w->s.n[a->node].prop_id[vm] == id)
		push_event(a->w, a->node, vm, VMSM_EV_OUTCOME)->status = status;
}

static void on_purged(void *arg)
{
	const struct io_arg *a = arg;

	/* only after a wrong proof: the fence agents of this world never give one */
	violate(a->w, "n%u is proven dead while it lives", a->node + 1);
}

static struct leasedb_io io_of(struct io_arg *a)
{
	struct leasedb_io io = { multicast, on_unsettled, on_settled, on_record, on_outcome, on_purged, a };

	return io;
}

/* ---- QEMU */

static bool executes(const struct mq *q)
{
	return q->st == VMSM_Q_RUNNING || (q->st == VMSM_Q_DYING && q->wrote);
}

void begin_run(struct world *w, unsigned node, unsigned vm)
{
	struct mq *q = &w->s.n[node].q[vm];

	for (unsigned j = 0; j < NODES; j++) {
		struct mq *other = &w->s.n[j].q[vm];

		if (j == node)
			continue;
		if (executes(other))
			violate(w, "G4: %s begins to execute on n%u while it executes on n%u", vm_name(vm), node + 1, j + 1);
		if (other->st == VMSM_Q_PAUSED || other->st == VMSM_Q_IOERROR)
			other->stale = 1;
	}
	if (q->stale)
		violate(w, "old memory with newer disk: %s begins to execute on n%u with a memory older than the disk", vm_name(vm), node + 1);
	q->st = VMSM_Q_RUNNING;
	tell(w, "n%u: %s EXECUTES", node + 1, vm_name(vm));
}

void end_qemu(struct world *w, unsigned node, unsigned vm)
{
	struct mq *q = &w->s.n[node].q[vm];

	if (q->st == VMSM_Q_NONE)
		return;
	q->wrote = q->st == VMSM_Q_RUNNING || (q->st == VMSM_Q_DYING && q->wrote);
	q->st = VMSM_Q_DYING;
	q->mig = 0;
	q->cmd = 0;
	q->peer = 0;
	q->late_st = q->late_mig = 0;
}

void push_status(struct world *w, unsigned node, unsigned vm)
{
	struct mq *q = &w->s.n[node].q[vm];
	unsigned how = w->s.b.late && !q->late_st && w->s.n[node].hv_up ? choose(w, 3) : 0;
	struct vmsm_event *ev;

	if (how) {
		w->s.b.late--;
		q->late_st = q->st + 1;
		q->late_mig = q->mig;
		tell(w, "n%u: an answer of QEMU (%s, %s) takes its time%s", node + 1, vmsm_qemu_name(q->st), vmsm_mig_name(q->mig),
		     how == 2 ? ", another does not" : "");
	}
	if (how == 1)
		return;
	ev = push_event(w, node, vm, VMSM_EV_STATUS);

	ev->qemu = q->st;
	ev->mig = q->mig;
}

/* ---- the agent */

void hand_over_proposal(struct world *w, unsigned node, unsigned vm, const struct lease_cas *cas, uint64_t ring)
{
	struct mnode *n = &w->s.n[node];
	struct io_arg a = { w, node };
	struct leasedb_io io = io_of(&a);
	uint64_t id;
	int r;

	if (!n->mig_up)
		return;
	r = leasedb_propose(&n->db, &io, cas, ring, &id);
	tell(w, "n%u: proposes %s from version %llu%s", node + 1, lease_move_name(cas->move), (unsigned long long)cas->version,
	     r ? ": refused, of another view" : "");
	if (!r)
		n->prop_id[vm] = id;
	else if (n->hv_up && n->sm[vm].prop == cas->move && n->sm[vm].ring == ring)
		push_event(w, node, vm, VMSM_EV_OUTCOME)->status = -ECANCELED;
}

static void agent_proposes(struct world *w, unsigned node, unsigned vm, const struct vmsm_action *a)
{
	struct mnode *n = &w->s.n[node];
	struct mipc *ipc = &n->ipc[vm];

	if (ipc->full) {	/* one pipe: the older one first */
		struct mipc old = *ipc;

		memset(ipc, 0, sizeof(*ipc));
		hand_over_proposal(w, node, vm, &old.cas, old.ring);
	}
	if (w->s.b.msg && choose(w, 2)) {
		w->s.b.msg--;
		ipc->full = 1;
		ipc->ring = a->ring;
		memcpy(&ipc->cas, &a->cas, sizeof(a->cas));
		tell(w, "n%u: %s on its way to migratord takes its time", node + 1, lease_move_name(a->cas.move));
		return;
	}
	hand_over_proposal(w, node, vm, &a->cas, a->ring);
}

static void agent_says(struct world *w, unsigned node, unsigned vm, const struct vmsm_action *a)
{
	unsigned to = a->node - 1;
	struct vmsm_event *ev;

	if (to >= NODES || !reach(&w->s, node, to) || !w->s.n[node].mig_up || !w->s.n[to].mig_up || !w->s.n[to].hv_up)
		return;
	if (w->s.b.msg && choose(w, 2)) {
		w->s.b.msg--;
		return;
	}
	ev = push_event(w, to, vm, VMSM_EV_HEARD);
	ev->said = a->say;
	ev->txid = a->txid;
}

void hv_die(struct world *w, unsigned node)
{
	struct mnode *n = &w->s.n[node];

	n->hv_up = 0;
	memset(n->sm, 0, sizeof(n->sm));
	memset(n->prop_id, 0, sizeof(n->prop_id));
}

static void agent_acts(struct world *w, unsigned node, unsigned vm, const struct vmsm_action *a)
{
	struct mnode *n = &w->s.n[node];
	struct mq *q = &n->q[vm];

	if (a->act < VMSM_A_MARK)
		tell(w, "n%u: agent: %s", node + 1, vmsm_act_name(a->act));
	switch (a->act) {
	case VMSM_A_EVENT:
		if (a->note == VMSM_NOTE_REAPED && q->st == VMSM_Q_RUNNING && (!w->only_g4 || (w->mutate & LEASEDB_MUT_ABSENT)))
			violate(w, "a healthy QEMU: %s executes on n%u, and its agent ends it", vm_name(vm), node + 1);
		return;
	case VMSM_A_MARK:
		q->mark = n->sm[vm].mark;
		return;
	case VMSM_A_SPAWN:
	case VMSM_A_SPAWN_INCOMING:
		q->st = VMSM_Q_STARTING;
		q->txid = a->act == VMSM_A_SPAWN_INCOMING ? a->txid : 0;
		return;
	case VMSM_A_CONT:
	case VMSM_A_STOP:
	case VMSM_A_MIGRATE:
	case VMSM_A_MIGRATE_CONTINUE:
	case VMSM_A_MIGRATE_CANCEL:
		q->cmd = a->act;
		q->cmd_node = a->node;
		if (a->act == VMSM_A_MIGRATE)
			q->txid = a->txid;
		return;
	case VMSM_A_POWERDOWN:
	case VMSM_A_KILL:
	case VMSM_A_QUIT:
		end_qemu(w, node, vm);
		return;
	case VMSM_A_PROPOSE:
		agent_proposes(w, node, vm, a);
		return;
	case VMSM_A_SAY:
		agent_says(w, node, vm, a);
		return;
	default:
		return;
	}
}

static void agent_event(struct world *w, const struct item *i)
{
	struct mnode *n = &w->s.n[i->node];
	struct vmsm_action act[VMSM_ACTIONS_MAX];
	unsigned k;

	if (!n->up || !n->hv_up)
		return;
	n->sm[i->vm].mutate = w->mutate >> 8;
	k = vmsm_step(&n->sm[i->vm], &i->ev, act);
	n->sm[i->vm].mutate = 0;
	for (unsigned j = 0; j < k; j++) {
		if (w->s.b.hv && act[j].act != VMSM_A_TIMER && act[j].act != VMSM_A_EVENT && choose(w, 2)) {
			w->s.b.hv--;
			tell(w, "n%u: hvhostd DIES before \"%s\"", i->node + 1, vmsm_act_name(act[j].act));
			hv_die(w, i->node);
			return;
		}
		agent_acts(w, i->node, i->vm, &act[j]);
	}
}

/* ---- the duties of a migratord */

static void inventory(struct world *w, unsigned node)
{
	struct mnode *n = &w->s.n[node];
	struct io_arg a = { w, node };
	struct leasedb_io io = io_of(&a);
	struct leasedb_item item[VMS];
	unsigned k = 0;

	if (!n->hv_up || w->told[node] || !leasedb_wants_inventory(&n->db))
		return;
	for (unsigned vm = 0; vm < w->s.nvm; vm++)
		if (n->sm[vm].qemu == VMSM_Q_UNKNOWN)
			return;
	w->told[node] = 1;
	for (unsigned vm = 0; vm < w->s.nvm; vm++) {
		n->sm[vm].mutate = w->mutate >> 8;
		k += vmsm_inventory(&n->sm[vm], &item[k]);
		n->sm[vm].mutate = 0;
	}
	tell(w, "n%u: tells its inventory: %u QEMUs", node + 1, k);
	(void)!leasedb_inventory(&n->db, &io, item, k);
}

static uint32_t place(void *arg, const struct lease *l, uint32_t avoid)
{
	const struct io_arg *a = arg;
	const struct mstate *s = &a->w->s;
	uint32_t other = 0;

	(void)l;
	for (unsigned j = 0; j < NODES; j++)
		if (s->n[j].hv_up && leasedb_is_member(&s->n[a->node].db, j + 1, s->n[j].inc)) {
			if (j + 1 != avoid)
				return j + 1;
			other = j + 1;
		}
	return other;
}

static uint32_t config(void *arg, const struct lease *l)
{
	(void)arg;
	(void)l;
	return 1;
}

static enum lease_fence fence_of(void *arg, uint32_t nodeid)
{
	const struct io_arg *a = arg;

	return a->w->s.n[a->node].fence[nodeid - 1];
}

static void leader_vm(struct world *w, unsigned node, unsigned vm)
{
	struct mnode *n = &w->s.n[node];
	struct io_arg a = { w, node };
	struct leasedb_io io = io_of(&a);
	struct lease_lead in = { &n->db, place, config, fence_of, true, 3, &a };
	const struct lease *l = leasedb_find(&n->db, vm_name(vm));
	struct lease_action act;
	uint64_t id;

	if (leasedb_is_open(&n->db, vm_name(vm)) || w->led[vm] >= 6)
		return;
	memset(&act, 0, sizeof(act));
	if (!l || ((l->flags & LEASE_GUESSED) && !l->txid)) {
		/* the definition on the volume */
		act.act = LEASE_ACT_PROPOSE;
		memcpy(act.cas.vm, vm_name(vm), 4);
		act.cas.version = l ? l->version : 0;
		act.cas.move = l ? LEASE_SET : LEASE_CREATE;
		act.cas.role = LEASE_BY_COORD;
		act.cas.want = l ? l->want : LEASE_WANT_RUN;
		act.cas.flags = LEASE_HA;
	} else {
		lease_lead_vm(&in, l, &act);
	}
	if (act.act == LEASE_ACT_NONE)
		return;
	w->led[vm]++;
	if (act.act == LEASE_ACT_PROPOSE) {
		tell(w, "n%u: leader: %s from version %llu", node + 1, lease_move_name(act.cas.move), (unsigned long long)act.cas.version);
		(void)!leasedb_propose(&n->db, &io, &act.cas, n->db.ring.seq, &id);
		return;
	}
	tell(w, "n%u: leader: fence n%u", node + 1, act.nodeid);
	n->fence[act.nodeid - 1] = LEASE_FENCE_BUSY;
	n->fence_inc[act.nodeid - 1] = act.inc;
}

static void duties(struct world *w, unsigned node)
{
	struct mnode *n = &w->s.n[node];

	if (!n->up || !n->mig_up || !leasedb_is_settled(&n->db))
		return;
	for (unsigned j = 0; j < NODES; j++) {
		const struct leasedb_node *ln = leasedb_node(&n->db, j + 1);

		if (ln && leasedb_is_member(&n->db, j + 1, ln->inc)) {
			n->fence[j] = LEASE_FENCE_UNTRIED;
			n->fence_inc[j] = 0;
		}
	}
	inventory(w, node);
	for (unsigned vm = 0; leasedb_orderer(&n->db) == node + 1 && vm < w->s.nvm; vm++)
		leader_vm(w, node, vm);
}

static void drain(struct world *w)
{
	while (w->q_head < w->q_tail) {
		const struct item *i = &w->queue[w->q_head++];

		if (i->kind == ITEM_MSG)
			deliver(w, i);
		else
			agent_event(w, i);
		if (w->q_head == w->q_tail)
			w->q_head = w->q_tail = 0;
	}
}

void world_settle_down(struct world *w)
{
	for (;;) {
		drain(w);
		for (unsigned i = 0; i < NODES; i++)
			duties(w, i);
		if (!w->q_tail)
			return;
	}
}

void replica_view(struct world *w, unsigned node, const struct cluster_view *v)
{
	struct io_arg a = { w, node };
	struct leasedb_io io = io_of(&a);

	if (v)
		leasedb_view(&w->s.n[node].db, &io, v);
	else
		leasedb_suspend(&w->s.n[node].db, &io);
}

void replica_tick(struct world *w, unsigned node)
{
	struct io_arg a = { w, node };
	struct leasedb_io io = io_of(&a);

	leasedb_tick(&w->s.n[node].db, &io);
	leasedb_beat(&w->s.n[node].db, &io);
}

void replica_prove(struct world *w, unsigned node, unsigned other, uint64_t inc)
{
	struct io_arg a = { w, node };
	struct leasedb_io io = io_of(&a);

	(void)!leasedb_prove(&w->s.n[node].db, &io, other + 1, inc, LEASEDB_PROOF_FENCED);
}

int leader_proposes(struct world *w, unsigned node, const struct lease_cas *cas)
{
	struct io_arg a = { w, node };
	struct leasedb_io io = io_of(&a);
	uint64_t id;

	return leasedb_propose(&w->s.n[node].db, &io, cas, w->s.n[node].db.ring.seq, &id);
}

void deliver_held(struct world *w)
{
	struct item *i = push(w, ITEM_MSG);

	i->node = w->s.held_from - 1;
	i->len = w->s.held_len;
	i->to = 7;
	memcpy(i->buf, w->s.held, i->len);
	w->s.held_from = 0;
	w->s.held_len = 0;
	memset(w->s.held, 0, sizeof(w->s.held));
}

/* MO1, MO3 */
void world_check(struct world *w)
{
	for (unsigned vm = 0; vm < w->s.nvm; vm++) {
		unsigned n = 0;

		for (unsigned i = 0; i < NODES; i++)
			n += executes(&w->s.n[i].q[vm]);
		if (n > 1)
			violate(w, "G4: %u QEMUs of %s execute", n, vm_name(vm));
	}
	for (unsigned i = 0; !w->only_g4 && i < NODES; i++)
		for (unsigned j = i + 1; j < NODES; j++)
			for (unsigned vm = 0; vm < w->s.nvm; vm++) {
				const struct lease *a = leasedb_find(&w->s.n[i].db, vm_name(vm)), *b = leasedb_find(&w->s.n[j].db, vm_name(vm));

				if (a && b && a->version == b->version && ring_eq(w->s.n[i].db.cold, w->s.n[j].db.cold) && memcmp(a, b, sizeof(*a)))
					violate(w, "n%u and n%u have different records of version %llu of %s", i + 1, j + 1,
						(unsigned long long)a->version, vm_name(vm));
			}
}
