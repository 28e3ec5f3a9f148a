/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * model_may.c - what may happen next in a state, whether the state is a good end, and both in words.  Nothing is changed here.
 */
#include "tests/model/model_internal.h"

/* ---- what a state is like */

uint8_t model_wanted_view(const struct mstate *s, unsigned node, bool *ret_quorate)
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
	mask = model_wanted_view(s, node, &quorate);
	if (mask != n->vmask || quorate != n->vq)
		return true;
	for (unsigned j = 0; j < NODES; j++)
		if ((mask >> j & 1) && n->vlife[j] != s->n[j].life)
			return true;
	return false;
}

/* The QEMU at the other end; NULL: gone, or cannot be reached. */
struct mq *model_other_end(const struct mstate *s, unsigned node, unsigned vm)
{
	const struct mq *q = &s->n[node].q[vm];
	struct mq *o;

	if (!q->peer || !reach(s, node, q->peer - 1))
		return NULL;
	o = (struct mq *)&s->n[q->peer - 1].q[vm];
	return o->peer == node + 1 && o->txid == q->txid ? o : NULL;
}

bool model_is_sending(const struct mq *q)
{
	return q->mig >= VMSM_M_ACTIVE && q->mig <= VMSM_M_DEVICE && q->peer &&
	       (q->st == VMSM_Q_RUNNING || q->st == VMSM_Q_PAUSED || q->st == VMSM_Q_IOERROR);
}

/* The node whose migratord leads: -1 none. */
int model_leader(const struct mstate *s)
{
	for (unsigned i = 0; i < NODES; i++)
		if (s->n[i].up && s->n[i].mig_up && leasedb_is_settled(&s->n[i].db) && leasedb_orderer(&s->n[i].db) == i + 1)
			return i;
	return -1;
}

static bool may_migrate(const struct mstate *s, unsigned vm, unsigned to)
{
	int i = model_leader(s);
	const struct lease *l = i < 0 ? NULL : leasedb_find(&s->n[i].db, vm_name(vm));

	return l && l->state == LEASE_RUNNING && !l->txid && l->want == LEASE_WANT_RUN && l->owner != to + 1 &&
	       leasedb_is_member(&s->n[i].db, to + 1, s->n[to].inc) && s->n[to].hv_up && !leasedb_is_open(&s->n[i].db, vm_name(vm)) &&
	       s->n[l->owner - 1].q[vm].st == VMSM_Q_RUNNING;
}

static bool may_stop(const struct mstate *s, unsigned vm)
{
	int i = model_leader(s);
	const struct lease *l = i < 0 ? NULL : leasedb_find(&s->n[i].db, vm_name(vm));

	return l && !l->txid && l->want == LEASE_WANT_RUN && l->state != LEASE_BLOCKED;
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
	const struct mq *q = &n->q[vm], *o = model_other_end(s, i, vm);

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
	if (model_is_sending(q) && o && o->st == VMSM_Q_INCOMING) {
		if (q->mig == VMSM_M_ACTIVE && !q->cmd && q->st != VMSM_Q_IOERROR)
			add(t, STEP_PRESWITCH, i, vm, 0);
		if (q->mig == VMSM_M_DEVICE)
			add(t, STEP_LOADED, i, vm, 0);
	}
	if (model_is_sending(q) && o && q->mig == VMSM_M_DEVICE && o->st == VMSM_Q_PAUSED)
		add(t, STEP_COMPLETED, i, vm, 0);
	/*
	 * A broken stream ends at both ends, whatever else may go wrong; but nobody says that it is broken while the other node is off or cut
	 * off: TCP sends into the void for a quarter of an hour.  A source that cannot flush its disks fails at its last step.
	 */
	if (model_is_sending(q) && (q->st == VMSM_Q_IOERROR || (reach(s, i, q->peer - 1u) && (!o || (o->st != VMSM_Q_INCOMING && o->st != VMSM_Q_PAUSED)))))
		add(t, STEP_FAIL, i, vm, 1);
	if (q->st == VMSM_Q_INCOMING && q->peer && reach(s, i, q->peer - 1u) && (!o || !model_is_sending(o)))
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

		if (s->b.fail && model_is_sending(q))
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
		(void)model_wanted_view(s, i, &q);
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
	int i = model_leader(s);

	if (i < 0)
		return false;
	for (unsigned vm = 0; vm < s->nvm; vm++)
		if (!vm_is_good(s, i, vm))
			return false;
	return true;
}

/* ---- in words */

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
