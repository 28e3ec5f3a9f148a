/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * model_step.c - what may happen next in a state, and doing it.
 */
#include "tests/model/model_internal.h"

#include <errno.h>
#include <stdlib.h>

/* ---- views */

static uint8_t wanted_view(const struct mstate *s, unsigned node, bool *ret_quorate)
{
	uint8_t mask = 0;
	unsigned up = 0;

	for (unsigned j = 0; j < NODES; j++)
		if (reach(s, node, j)) {
			up++;
			if (s->n[j].mig_up)
				mask |= 1u << j;
		}
	*ret_quorate = up * 2 > NODES;
	return mask;
}

static bool view_is_due(const struct mstate *s, unsigned node)
{
	const struct mnode *n = &s->n[node];
	bool quorate;
	uint8_t mask;

	if (!n->up || !n->mig_up)
		return false;
	mask = wanted_view(s, node, &quorate);
	if (mask != n->vmask || quorate != n->vq)
		return true;
	for (unsigned j = 0; j < NODES; j++)
		if ((mask >> j & 1) && n->vlife[j] != s->n[j].life)
			return true;
	return false;
}

static void do_view(struct world *w, unsigned node)
{
	struct mstate *s = &w->s;
	struct cluster_view v;
	bool quorate;
	uint8_t mask = wanted_view(s, node, &quorate);

	memset(&v, 0, sizeof(v));
	v.ring.nodeid = 1;
	v.ring.seq = ++s->ring;
	for (unsigned j = 0; j < NODES; j++)
		if (mask >> j & 1) {
			v.m[v.n].nodeid = j + 1;
			v.m[v.n++].incarnation = s->n[j].life;
		}
	for (unsigned j = 0; j < NODES; j++)
		if (mask >> j & 1) {
			struct mnode *n = &s->n[j];

			n->vmask = mask;
			n->vq = quorate;
			memset(n->vlife, 0, sizeof(n->vlife));
			for (unsigned k = 0; k < NODES; k++)
				if (mask >> k & 1)
					n->vlife[k] = s->n[k].life;
			replica_view(w, j, quorate ? &v : NULL);
		}
}

/* ---- life and death */

static void init_replica(struct world *w, unsigned node)
{
	struct mnode *n = &w->s.n[node];
	struct leasedb_conf conf;

	memset(&conf, 0, sizeof(conf));
	conf.self = node + 1;
	conf.self_inc = n->inc;
	conf.n = NODES;
	for (unsigned j = 0; j < NODES; j++) {
		conf.node[j].nodeid = j + 1;
		conf.node[j].votes = 1;
	}
	leasedb_init(&n->db, &conf);
	n->db.mutate = w->mutate & 0xff;
	n->mig_up = 1;
	n->life++;
	n->vmask = 0;
	n->vq = 0;
	memset(n->vlife, 0, sizeof(n->vlife));
	memset(n->fence, 0, sizeof(n->fence));
	memset(n->fence_inc, 0, sizeof(n->fence_inc));
}

static void hv_start(struct world *w, unsigned node)
{
	struct mnode *n = &w->s.n[node];
	struct vmsm_conf conf = vmsm_conf_default(node + 1, n->inc);

	n->hv_up = 1;
	for (unsigned vm = 0; vm < w->s.nvm; vm++) {
		struct mq *q = &n->q[vm];
		struct vmsm_event *ev;

		/* what the dead one's connection still holds comes first, or never */
		if (n->ipc[vm].full) {
			struct mipc old = n->ipc[vm];

			memset(&n->ipc[vm], 0, sizeof(n->ipc[vm]));
			hand_over_proposal(w, node, vm, &old.cas, old.ring);
		}
		q->cmd = 0;
		q->late_st = q->late_mig = 0;
		if (q->st == VMSM_Q_STARTING)
			q->st = q->mark.txid ? VMSM_Q_INCOMING : VMSM_Q_PRELAUNCH;
		vmsm_init(&n->sm[vm], vm_name(vm), &conf);
		vmsm_remember(&n->sm[vm], n->ended[vm]);
		ev = push_event(w, node, vm, VMSM_EV_ADOPT);
		ev->qemu = q->st;
		ev->mig = q->mig;
		ev->mark = q->mark;
	}
	if (n->mig_up && leasedb_is_settled(&n->db))
		push_all_records(w, node);
}

static void node_start(struct world *w, unsigned node)
{
	struct mnode *n = &w->s.n[node];

	n->up = 1;
	n->inc++;
	init_replica(w, node);
	hv_start(w, node);
}

static void node_dies(struct world *w, unsigned node)
{
	struct mnode *n = &w->s.n[node];
	uint64_t inc = n->inc, life = n->life;

	memset(n, 0, sizeof(*n));	/* ends of streams elsewhere notice by themselves: STEP_FAIL */
	for (unsigned vm = 0; vm < w->s.nvm; vm++)
		n->q[vm].st = VMSM_Q_NONE;
	n->inc = inc;
	n->life = life;
}

void world_init(struct world *w, unsigned nvm, enum agent agent, const struct mbudget *b, unsigned mutate)
{
	memset(&w->s, 0, sizeof(w->s));
	w->mutate = mutate;
	w->violation[0] = 0;
	w->s.nvm = nvm;
	w->s.agent = agent;
	for (unsigned i = 0; i < NODES; i++) {
		w->s.n[i].inc = 0x10 * (i + 1);
		for (unsigned vm = 0; vm < nvm; vm++)
			w->s.n[i].q[vm].st = VMSM_Q_NONE;
		node_start(w, i);
	}
	world_settle_down(w);
	w->s.b = *b;
}

/* ---- migration streams */

/* The QEMU at the other end; NULL: gone, or cannot be reached. */
static struct mq *other_end(const struct mstate *s, unsigned node, unsigned vm)
{
	const struct mq *q = &s->n[node].q[vm];
	struct mq *o;

	if (!q->peer || !reach(s, node, q->peer - 1))
		return NULL;
	o = (struct mq *)&s->n[q->peer - 1].q[vm];
	return o->peer == node + 1 && o->txid == q->txid ? o : NULL;
}

static bool is_sending(const struct mq *q)
{
	return q->mig >= VMSM_M_ACTIVE && q->mig <= VMSM_M_DEVICE && q->peer &&
	       (q->st == VMSM_Q_RUNNING || q->st == VMSM_Q_PAUSED || q->st == VMSM_Q_IOERROR);
}

/* The stream ends without success: a source that was running goes on by itself, a target that is not complete ends. */
static void stream_fails(struct world *w, unsigned node, unsigned vm)
{
	struct mq *q = &w->s.n[node].q[vm], *o = other_end(&w->s, node, vm);
	unsigned other = q->peer - 1;

	q->peer = 0;
	if (q->st == VMSM_Q_INCOMING) {
		end_qemu(w, node, vm);
		return;
	}
	q->mig = VMSM_M_FAILED;
	if (q->st == VMSM_Q_PAUSED && q->was_running)
		begin_run(w, node, vm);
	push_status(w, node, vm);
	if (o && o->st == VMSM_Q_INCOMING)
		end_qemu(w, other, vm);
}

static void take_command(struct world *w, unsigned node, unsigned vm)
{
	struct mq *q = &w->s.n[node].q[vm], *t;
	unsigned cmd = q->cmd;
	int status = 0;
	struct vmsm_event *ev;

	q->cmd = 0;
	switch (cmd) {
	case VMSM_A_CONT:
		if (q->st == VMSM_Q_PAUSED || q->st == VMSM_Q_PRELAUNCH || q->st == VMSM_Q_IOERROR)
			begin_run(w, node, vm);
		else if (q->st != VMSM_Q_RUNNING)
			status = -EIO;
		break;
	case VMSM_A_STOP:
		if (q->st == VMSM_Q_RUNNING)
			q->st = VMSM_Q_PAUSED;
		break;
	case VMSM_A_MIGRATE:
		q->mig = VMSM_M_FAILED;
		if (!reach(&w->s, node, q->cmd_node - 1))
			break;
		t = &w->s.n[q->cmd_node - 1].q[vm];
		if (t->st != VMSM_Q_INCOMING || t->txid != q->txid || t->peer)
			break;
		q->peer = q->cmd_node;
		t->peer = node + 1;
		q->was_running = q->st == VMSM_Q_RUNNING;
		q->mig = VMSM_M_ACTIVE;
		break;
	case VMSM_A_MIGRATE_CONTINUE:
		if (q->mig == VMSM_M_PRESWITCH)
			q->mig = VMSM_M_DEVICE;
		else
			status = -EIO;
		break;
	case VMSM_A_MIGRATE_CANCEL:
		/* also after it was told to continue: what the target has of it by then is not its right to run */
		if (q->mig >= VMSM_M_ACTIVE && q->mig <= VMSM_M_DEVICE) {
			q->peer = 0;
			q->mig = VMSM_M_FAILED;
			if (q->st == VMSM_Q_PAUSED && q->was_running)
				begin_run(w, node, vm);
		}
		break;
	default:
		break;
	}
	q->cmd_node = 0;
	push_status(w, node, vm);
	ev = push_event(w, node, vm, VMSM_EV_DONE);
	ev->done = cmd;
	ev->status = status;
}

static void qemu_gone(struct world *w, unsigned node, unsigned vm)
{
	struct mnode *n = &w->s.n[node];
	struct mq *q = &n->q[vm];

	n->ended[vm] = csv_max(n->ended[vm], q->mark.bound);	/* before its mark goes */
	memset(q, 0, sizeof(*q));
	q->st = VMSM_Q_NONE;
	push_event(w, node, vm, VMSM_EV_GONE);
}

static void qemu_spawned(struct world *w, unsigned node, unsigned vm)
{
	struct mq *q = &w->s.n[node].q[vm];
	struct vmsm_event *ev;

	q->st = q->txid ? VMSM_Q_INCOMING : VMSM_Q_PRELAUNCH;
	ev = push_event(w, node, vm, VMSM_EV_SPAWNED);
	ev->qemu = q->st;
	ev->mig = q->mig;
}

/* ---- the leader and people */

/* The node whose migratord leads: -1 none. */
static int leader(const struct mstate *s)
{
	for (unsigned i = 0; i < NODES; i++)
		if (s->n[i].up && s->n[i].mig_up && leasedb_is_settled(&s->n[i].db) && leasedb_orderer(&s->n[i].db) == i + 1)
			return i;
	return -1;
}

static bool may_migrate(const struct mstate *s, unsigned vm, unsigned to)
{
	int i = leader(s);
	const struct lease *l = i < 0 ? NULL : leasedb_find(&s->n[i].db, vm_name(vm));

	return l && l->state == LEASE_RUNNING && !l->txid && l->want == LEASE_WANT_RUN && l->owner != to + 1 &&
	       leasedb_is_member(&s->n[i].db, to + 1, s->n[to].inc) && s->n[to].hv_up && !leasedb_is_open(&s->n[i].db, vm_name(vm)) &&
	       s->n[l->owner - 1].q[vm].st == VMSM_Q_RUNNING;
}

static void migrate(struct world *w, unsigned vm, unsigned to)
{
	int i = leader(&w->s);
	const struct lease *l = leasedb_find(&w->s.n[i].db, vm_name(vm));
	struct lease_cas cas;

	memset(&cas, 0, sizeof(cas));
	memcpy(cas.vm, vm_name(vm), 4);
	cas.version = l->version;
	cas.move = LEASE_INTENT;
	cas.role = LEASE_BY_COORD;
	cas.want = l->want;
	cas.node = to + 1;
	cas.node_inc = w->s.n[to].inc;
	cas.txid = ++w->s.txid;
	(void)!leader_proposes(w, i, &cas);
}

static bool may_stop(const struct mstate *s, unsigned vm)
{
	int i = leader(s);
	const struct lease *l = i < 0 ? NULL : leasedb_find(&s->n[i].db, vm_name(vm));

	return l && !l->txid && l->want == LEASE_WANT_RUN && l->state != LEASE_BLOCKED;
}

/* stop now, start later: want goes to stopped and, by the second call, to run */
static void set_want(struct world *w, unsigned vm)
{
	int i = leader(&w->s);
	const struct lease *l = leasedb_find(&w->s.n[i].db, vm_name(vm));
	struct lease_cas cas;

	memset(&cas, 0, sizeof(cas));
	memcpy(cas.vm, vm_name(vm), 4);
	cas.version = l->version;
	cas.move = LEASE_SET;
	cas.role = LEASE_BY_COORD;
	cas.want = LEASE_WANT_STOPPED;
	cas.flags = LEASE_HA;
	(void)!leader_proposes(w, i, &cas);
}

/* The fence agent's answer, as the daemon judges it: off and silent, or not. */
static void fenced(struct world *w, unsigned node, unsigned other)
{
	struct mnode *n = &w->s.n[node];
	uint64_t inc = n->fence_inc[other];
	bool lives = w->s.n[other].up;

	if (w->s.agent == AGENT_NONE) {
		n->fence[other] = LEASE_FENCE_NO_AGENT;
		return;
	}
	if (w->s.agent == AGENT_LYING && lives) {	/* off, it says, and the heartbeat goes on */
		n->fence[other] = LEASE_FENCE_NO_SWITCH;
		return;
	}
	if (lives)
		node_dies(w, other);
	n->fence[other] = LEASE_FENCE_UNTRIED;
	if (leasedb_is_settled(&n->db))
		replica_prove(w, node, other, inc);
}

/* ---- steps */

struct steps { struct step *s; unsigned n, max; };

static void add(struct steps *t, enum step_kind kind, unsigned a, unsigned b, unsigned c)
{
	if (t->n < t->max)
		t->s[t->n++] = (struct step){ kind, a, b, c };
}

static bool tick_is_due(const struct mstate *s, const struct mnode *n)
{
	const struct leasedb *db = &n->db;

	if (!n->up || !n->mig_up || db->phase == LEASEDB_NONE)
		return false;
	/* somebody missed the last move (what the orderer does not know, but its beat cures) */
	for (unsigned j = 0; leasedb_orderer(db) == db->conf.self && j < NODES; j++)
		if (s->n[j].mig_up && reach(s, n - s->n, j) && ring_eq(s->n[j].db.ring, db->ring) && s->n[j].db.acc_index < db->acc_index)
			return true;
	return db->phase != LEASEDB_SETTLED || db->gap || db->n_open || db->com_count < db->acc_index + 1 || leasedb_wants_inventory(db);
}

/* Of this VM's QEMU on this node: what it may do, not counting faults. */
static void steps_of_qemu(const struct mstate *s, struct steps *t, unsigned i, unsigned vm)
{
	const struct mnode *n = &s->n[i];
	const struct mq *q = &n->q[vm], *o = other_end(s, i, vm);

	if (q->cmd)
		add(t, STEP_CMD, i, vm, 0);
	if (q->late_st)
		add(t, STEP_LATE, i, vm, 0);
	if (n->hv_up && q->st == VMSM_Q_IOERROR && n->sm[vm].storage_bad)
		add(t, STEP_REBOUND, i, vm, 0);
	if (n->hv_up && n->sm[vm].qemu >= VMSM_Q_PRELAUNCH && n->sm[vm].qemu <= VMSM_Q_IOERROR && q->st >= VMSM_Q_PRELAUNCH && q->st <= VMSM_Q_IOERROR &&
	    (n->sm[vm].qemu != q->st || n->sm[vm].mig != q->mig) && q->cmd != VMSM_A_MIGRATE)
		add(t, STEP_LOOK, i, vm, 0);
	if (q->st == VMSM_Q_STARTING)
		add(t, STEP_SPAWNED, i, vm, 0);
	if (q->st == VMSM_Q_DYING)
		add(t, STEP_GONE, i, vm, 0);
	if (is_sending(q) && o && o->st == VMSM_Q_INCOMING) {
		if (q->mig == VMSM_M_ACTIVE && !q->cmd && q->st != VMSM_Q_IOERROR)
			add(t, STEP_PRESWITCH, i, vm, 0);
		if (q->mig == VMSM_M_DEVICE)
			add(t, STEP_LOADED, i, vm, 0);
	}
	if (is_sending(q) && o && q->mig == VMSM_M_DEVICE && o->st == VMSM_Q_PAUSED)
		add(t, STEP_COMPLETED, i, vm, 0);
	/*
	 * A broken stream ends at both ends, whatever else may go wrong; but nobody says that it is broken while the other node is off or cut
	 * off: TCP sends into the void for a quarter of an hour.  A source that cannot flush its disks fails at its last step.
	 */
	if (is_sending(q) && (q->st == VMSM_Q_IOERROR || (reach(s, i, q->peer - 1u) && (!o || (o->st != VMSM_Q_INCOMING && o->st != VMSM_Q_PAUSED)))))
		add(t, STEP_FAIL, i, vm, 1);
	if (q->st == VMSM_Q_INCOMING && q->peer && reach(s, i, q->peer - 1u) && (!o || !is_sending(o)))
		add(t, STEP_FAIL, i, vm, 1);
}

static void steps_of_node(const struct mstate *s, struct steps *t, unsigned i)
{
	const struct mnode *n = &s->n[i];

	if (!n->up)
		return;
	if (view_is_due(s, i)) {
		/* once for its group: the lowest one that is due */
		bool first = true;

		for (unsigned j = 0; j < i; j++)
			first &= !(reach(s, i, j) && view_is_due(s, j));
		if (first)
			add(t, STEP_VIEW, i, 0, 0);
	}
	if (tick_is_due(s, n))
		add(t, STEP_TICK, i, 0, 0);
	for (unsigned vm = 0; vm < s->nvm; vm++) {
		steps_of_qemu(s, t, i, vm);
		if (n->ipc[vm].full)
			add(t, STEP_IPC, i, vm, 0);
		for (unsigned k = 0; n->hv_up && k < VMSM_T_END; k++)
			if (n->sm[vm].timers >> k & 1)
				add(t, STEP_TIMER, i, vm, k);
	}
	for (unsigned j = 0; n->mig_up && j < NODES; j++)
		if (n->fence[j] == LEASE_FENCE_BUSY)
			add(t, STEP_FENCED, i, j, 0);
	if (!n->hv_up)
		add(t, STEP_HV_UP, i, 0, 0);
	if (!n->mig_up)
		add(t, STEP_MIG_UP, i, 0, 0);
}

static void faults_of_node(const struct mstate *s, struct steps *t, unsigned i)
{
	const struct mnode *n = &s->n[i];
	bool alone = true;

	if (!n->up)
		return;
	for (unsigned j = 0; j < NODES; j++)
		alone &= j == i || s->group[i] != s->group[j];
	for (unsigned vm = 0; vm < s->nvm; vm++) {
		const struct mq *q = &n->q[vm];

		if (s->b.fail && is_sending(q))
			add(t, STEP_FAIL, i, vm, 0);
		if (s->b.io && q->st == VMSM_Q_RUNNING)
			add(t, STEP_IO_ERROR, i, vm, 0);
		if (s->b.qemu && q->st != VMSM_Q_NONE && q->st != VMSM_Q_DYING && q->st != VMSM_Q_STARTING)
			add(t, STEP_QEMU_DIES, i, vm, 0);
		if (s->b.cancel && n->hv_up && n->sm[vm].rec.txid && !n->sm[vm].give_up && n->sm[vm].rec.owner == i + 1)
			add(t, STEP_CANCEL, i, vm, 0);
		if (s->b.migrate && may_migrate(s, vm, i))
			add(t, STEP_MIGRATE, i, vm, 0);
	}
	if (s->b.hv && n->hv_up)
		add(t, STEP_HV_DIES, i, 0, 0);
	if (s->b.mig && n->mig_up)
		add(t, STEP_MIG_DIES, i, 0, 0);
	if (s->b.node)
		add(t, STEP_NODE_DIES, i, 0, 0);
	if (s->b.cut && !alone)
		add(t, STEP_CUT, i, 0, 0);
}

static bool is_cut(const struct mstate *s)
{
	return s->group[0] != s->group[1] || s->group[0] != s->group[2];
}

unsigned world_steps(const struct mstate *s, struct step *ret, unsigned max)
{
	struct steps t = { ret, 0, max };

	for (unsigned i = 0; i < NODES; i++) {
		steps_of_node(s, &t, i);
		if (!s->n[i].up)
			add(&t, STEP_NODE_UP, i, 0, 0);
	}
	if (s->held_from)
		add(&t, STEP_HELD, 0, 0, 0);
	for (unsigned i = 0; i < NODES; i++)
		faults_of_node(s, &t, i);
	for (unsigned vm = 0; vm < s->nvm; vm++)
		if (s->b.stop && may_stop(s, vm))
			add(&t, STEP_STOP, 0, vm, 0);
	if (s->b.heal && is_cut(s))
		add(&t, STEP_HEAL, 0, 0, 0);
	return t.n;
}

unsigned world_heal_steps(const struct mstate *s, struct step *ret, unsigned max)
{
	struct steps t = { ret, 0, max };
	bool quorate = false, q;

	for (unsigned i = 0; i < NODES; i++) {
		(void)wanted_view(s, i, &q);
		quorate |= s->n[i].up && q;
	}
	for (unsigned i = 0; i < NODES; i++)
		steps_of_node(s, &t, i);
	if (s->held_from)
		add(&t, STEP_HELD, 0, 0, 0);
	/* timers last: what they are for is that nothing else happens */
	for (unsigned i = 0, n = t.n; i < n; i++)
		if (ret[i].kind == STEP_TIMER && t.n < max) {
			add(&t, ret[i].kind, ret[i].a, ret[i].b, ret[i].c);
			memmove(&ret[i], &ret[i + 1], (t.n - i - 1) * sizeof(*ret));
			t.n--;
			n--;
			i--;
		}
	if (quorate)
		return t.n;
	if (is_cut(s))
		add(&t, STEP_HEAL, 0, 0, 0);
	for (unsigned i = 0; i < NODES; i++)
		if (!s->n[i].up)
			add(&t, STEP_NODE_UP, i, 0, 0);
	return t.n;
}

static void do_step(struct world *w, const struct step *t)
{
	struct mstate *s = &w->s;
	struct mnode *n = &s->n[t->a];
	struct mq *q = &n->q[t->b < VMS ? t->b : 0], *o;

	switch (t->kind) {
	case STEP_VIEW:
		do_view(w, t->a);
		return;
	case STEP_TICK:
		replica_tick(w, t->a);
		return;
	case STEP_CMD:
		take_command(w, t->a, t->b);
		return;
	case STEP_GONE:
		qemu_gone(w, t->a, t->b);
		return;
	case STEP_SPAWNED:
		qemu_spawned(w, t->a, t->b);
		return;
	case STEP_TIMER:
		push_event(w, t->a, t->b, VMSM_EV_TIMER)->timer = t->c;
		return;
	case STEP_FENCED:
		fenced(w, t->a, t->b);
		return;
	case STEP_IPC: {
		struct mipc old = n->ipc[t->b];

		memset(&n->ipc[t->b], 0, sizeof(old));
		hand_over_proposal(w, t->a, t->b, &old.cas, old.ring);
		return;
	}
	case STEP_HELD:
		deliver_held(w);
		return;
	case STEP_LATE: {
		struct vmsm_event *ev = push_event(w, t->a, t->b, VMSM_EV_STATUS);

		ev->qemu = q->late_st - 1;
		ev->mig = q->late_mig;
		q->late_st = q->late_mig = 0;
		return;
	}
	case STEP_LOOK:
		push_status(w, t->a, t->b);
		return;
	case STEP_PRESWITCH:
		q->mig = VMSM_M_PRESWITCH;
		q->st = VMSM_Q_PAUSED;
		push_status(w, t->a, t->b);
		return;
	case STEP_LOADED:
		o = other_end(s, t->a, t->b);
		o->st = VMSM_Q_PAUSED;
		o->mig = VMSM_M_COMPLETED;
		o->stale = q->stale;
		push_status(w, q->peer - 1, t->b);
		return;
	case STEP_COMPLETED:
		o = other_end(s, t->a, t->b);
		q->mig = VMSM_M_COMPLETED;
		q->peer = 0;
		o->peer = 0;
		push_status(w, t->a, t->b);
		return;
	case STEP_HV_UP:
		hv_start(w, t->a);
		return;
	case STEP_MIG_UP:
		init_replica(w, t->a);
		return;
	case STEP_NODE_UP:
		node_start(w, t->a);
		return;
	case STEP_MIGRATE:
		s->b.migrate--;
		migrate(w, t->b, t->a);
		return;
	case STEP_CANCEL:
		s->b.cancel--;
		push_event(w, t->a, t->b, VMSM_EV_CANCEL)->txid = n->sm[t->b].rec.txid;
		return;
	case STEP_STOP:
		s->b.stop--;
		set_want(w, t->b);
		return;
	case STEP_FAIL:
		if (!t->c)
			s->b.fail--;
		stream_fails(w, t->a, t->b);
		return;
	case STEP_QEMU_DIES:
		s->b.qemu--;
		end_qemu(w, t->a, t->b);
		return;
	case STEP_HV_DIES:
		s->b.hv--;
		hv_die(w, t->a);
		return;
	case STEP_MIG_DIES:
		s->b.mig--;
		n->mig_up = 0;
		n->vmask = 0;
		n->vq = 0;
		memset(&n->db, 0, sizeof(n->db));
		memset(n->ipc, 0, sizeof(n->ipc));
		memset(n->fence, 0, sizeof(n->fence));
		memset(n->fence_inc, 0, sizeof(n->fence_inc));
		memset(n->vlife, 0, sizeof(n->vlife));
		memset(n->prop_id, 0, sizeof(n->prop_id));
		for (unsigned vm = 0; vm < s->nvm; vm++)
			push_event(w, t->a, vm, VMSM_EV_UNSETTLED);
		return;
	case STEP_NODE_DIES:
		s->b.node--;
		node_dies(w, t->a);
		return;
	case STEP_REBOUND:
		push_event(w, t->a, t->b, VMSM_EV_STORAGE_OK);
		return;
	case STEP_IO_ERROR:
		s->b.io--;
		q->st = VMSM_Q_IOERROR;
		if (q->peer)		/* the flush before its last step fails */
			stream_fails(w, t->a, t->b);
		else
			push_status(w, t->a, t->b);
		return;
	case STEP_CUT:
		s->b.cut--;
		s->group[t->a] = t->a + 1;
		return;
	case STEP_HEAL:
		if (s->b.heal)
			s->b.heal--;
		memset(s->group, 0, sizeof(s->group));
		return;
	default:
		return;
	}
}

void world_do(struct world *w, const struct path *path)
{
	w->path = path;
	w->pos = 0;
	w->q_head = w->q_tail = 0;
	w->violation[0] = 0;
	memset(w->led, 0, sizeof(w->led));
	memset(w->told, 0, sizeof(w->told));
	do_step(w, &path->step);
	world_settle_down(w);
	world_check(w);
	/* numbers of proposals matter while they are open */
	for (unsigned i = 0; i < NODES; i++)
		if (!w->s.n[i].db.n_open) {
			w->s.n[i].db.next_id = 1;
			memset(w->s.n[i].prop_id, 0, sizeof(w->s.n[i].prop_id));
		}
	w->path = NULL;
}

/* ---- judged */

static bool vm_is_good(const struct mstate *s, unsigned i, unsigned vm)
{
	const struct leasedb *db = &s->n[i].db;
	const struct lease *l = leasedb_find(db, vm_name(vm));

	if (!l || leasedb_is_open(db, vm_name(vm)))
		return false;
	switch (l->state) {
	case LEASE_RUNNING:
		return !l->txid && l->want == LEASE_WANT_RUN && s->n[l->owner - 1].q[vm].st == VMSM_Q_RUNNING;
	case LEASE_FREE:
		return l->want == LEASE_WANT_STOPPED || (l->reason && l->failures >= 3);
	case LEASE_BLOCKED:
		if (l->reason != LEASE_REASON_COLD)
			return l->reason && !leasedb_is_member(db, l->owner, l->owner_inc);
		for (unsigned j = 0; j < NODES; j++) {
			const struct leasedb_node *n = leasedb_node(db, j + 1);

			if (n->suspect && leasedb_is_member(db, j + 1, n->inc))
				return false;
		}
		return leasedb_suspects(db) && s->agent != AGENT_TRUE;
	default:
		return false;
	}
}

bool world_is_good(const struct mstate *s)
{
	int i = leader(s);

	if (i < 0)
		return false;
	for (unsigned vm = 0; vm < s->nvm; vm++)
		if (!vm_is_good(s, i, vm))
			return false;
	return true;
}

const char *step_text(const struct step *t, char *buf, size_t size)
{
	static const char *const text[STEP_END] = {
		[STEP_VIEW] = "a view comes to all that n%u can reach", [STEP_TICK] = "n%u: the replica's tick", [STEP_CMD] = "n%u: QEMU takes its command",
		[STEP_GONE] = "n%u: QEMU is gone (pidfd)", [STEP_SPAWNED] = "n%u: QEMU has started and answers", [STEP_TIMER] = "n%u: a timer of the agent",
		[STEP_FENCED] = "n%u: the fence agent for n%u answers", [STEP_IPC] = "n%u: the slow proposal reaches migratord",
		[STEP_HELD] = "the message that was held back arrives", [STEP_LATE] = "n%u: the late answer of QEMU comes",
		[STEP_LOOK] = "n%u: the agent looks at its QEMU", [STEP_PRESWITCH] = "n%u: source: pre-switchover, paused",
		[STEP_LOADED] = "n%u: its target has loaded everything", [STEP_COMPLETED] = "n%u: source: completed",
		[STEP_HV_UP] = "n%u: hvhostd starts", [STEP_MIG_UP] = "n%u: migratord starts", [STEP_NODE_UP] = "n%u: has power again",
		[STEP_MIGRATE] = "somebody asks for a migration to n%u", [STEP_CANCEL] = "n%u: migration cancelled", [STEP_STOP] = "somebody stops the VM",
		[STEP_FAIL] = "n%u: QEMU's migration fails by itself (a source that was running goes on)", [STEP_QEMU_DIES] = "n%u: QEMU DIES",
		[STEP_HV_DIES] = "n%u: hvhostd DIES", [STEP_MIG_DIES] = "n%u: migratord DIES", [STEP_NODE_DIES] = "n%u: POWER CUT", [STEP_CUT] = "n%u: CUT OFF",
		[STEP_REBOUND] = "n%u: the volume is back, the disks are opened anew", [STEP_IO_ERROR] = "n%u: the VOLUME GOES AWAY under the guest",
		[STEP_HEAL] = "the network is whole again",
	};
	int k;

	if (t->kind == STEP_FENCED) {
		snprintf(buf, size, "n%u: the fence agent for n%u answers", t->a + 1, t->b + 1);
		return buf;
	}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	k = snprintf(buf, size, text[t->kind] ? text[t->kind] : "?", t->a + 1);
#pragma GCC diagnostic pop
	if (t->kind == STEP_TIMER && k > 0 && (size_t)k < size)
		snprintf(buf + k, size - k, " (%u)", t->c);
	return buf;
}

void world_print(const struct mstate *s, FILE *out)
{
	for (unsigned i = 0; i < NODES; i++) {
		const struct mnode *n = &s->n[i];

		fprintf(out, "   n%u: %s%s%s%s, replica phase %u ring %llu", i + 1, n->up ? "up" : "down", n->mig_up ? "" : ", no migratord",
			n->hv_up ? "" : ", no hvhostd", s->group[i] ? ", cut off" : "", n->db.phase, (unsigned long long)n->db.ring.seq);
		for (unsigned vm = 0; vm < s->nvm; vm++) {
			const struct lease *l = leasedb_find(&n->db, vm_name(vm));
			char text[160] = "no record";

			if (l)
				lease_to_text(l, text, sizeof(text));
			fprintf(out, "; %s; QEMU %s, migration %s%s", text, vmsm_qemu_name(n->q[vm].st), vmsm_mig_name(n->q[vm].mig),
				n->q[vm].stale ? ", memory old" : "");
		}
		fputc('\n', out);
	}
}
