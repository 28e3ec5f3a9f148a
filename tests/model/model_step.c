/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * model_step.c - doing one of the steps that may happen (model_may.c).
 */
#include "tests/model/model_internal.h"

#include <errno.h>
#include <stdlib.h>

/* ---- views */

static void do_view(struct world *w, unsigned node)
{
	struct mstate *s = &w->s;
	struct cluster_view v;
	bool quorate;
	uint8_t mask = model_wanted_view(s, node, &quorate);

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

/* ---- QEMU */

/* The stream ends without success: a source that was running goes on by itself, a target that is not complete ends. */
static void stream_fails(struct world *w, unsigned node, unsigned vm)
{
	struct mq *q = &w->s.n[node].q[vm], *o = model_other_end(&w->s, node, vm);
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

/* About the VM, of its record in the leader's replica: *ret_leader. */
static struct lease_cas coord_cas(const struct world *w, unsigned vm, enum lease_move move, int *ret_leader)
{
	const struct lease *l;
	struct lease_cas cas;

	*ret_leader = model_leader(&w->s);
	l = leasedb_find(&w->s.n[*ret_leader].db, vm_name(vm));
	memset(&cas, 0, sizeof(cas));
	memcpy(cas.vm, vm_name(vm), 4);
	cas.version = l->version;
	cas.move = move;
	cas.role = LEASE_BY_COORD;
	cas.want = l->want;
	return cas;
}

static void migrate(struct world *w, unsigned vm, unsigned to)
{
	int i;
	struct lease_cas cas = coord_cas(w, vm, LEASE_INTENT, &i);

	cas.node = to + 1;
	cas.node_inc = w->s.n[to].inc;
	cas.txid = ++w->s.txid;
	(void)!leader_proposes(w, i, &cas);
}

/* stop now, start later: want goes to stopped and, by the second call, to run */
static void set_want(struct world *w, unsigned vm)
{
	int i;
	struct lease_cas cas = coord_cas(w, vm, LEASE_SET, &i);

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
		o = model_other_end(s, t->a, t->b);
		o->st = VMSM_Q_PAUSED;
		o->mig = VMSM_M_COMPLETED;
		o->stale = q->stale;
		push_status(w, q->peer - 1, t->b);
		return;
	case STEP_COMPLETED:
		o = model_other_end(s, t->a, t->b);
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
