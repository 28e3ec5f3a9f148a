/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_lease.c - the node's replica of the leases: carried between the members, told to the agent, proposed to for agents and for the
 * leader.
 *
 * The replica's callbacks only take notes; a job makes of the notes what follows, in their order.
 *
 * Invariants
 *  ML1 The agent is told a record only when it is committed, and nothing is told while the leases are not settled.
 *  ML2 Every proposal of the agent is answered by one "outcome", unless its line ended before.
 *  ML3 A record whose proposal the agent may have open is not told to a new line before the outcome.
 *
 * One thread.
 */
#include "migrator/mig_work.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "migrator/lease_json.h"

#define TICK_NS (100 * NS_PER_MS)
#define BEAT_TICKS 10u
#define LEASES_A_LINE 500u

enum note_kind { NOTE_SETTLED, NOTE_RECORD, NOTE_OUTCOME, NOTE_PURGED };

struct note {
	struct cds_list_head node;
	enum note_kind kind;
	bool cold;
	uint64_t id;
	int status;
	struct lease lease;
	char vm[LEASE_NAME_BYTES];
};

/* An own proposal that somebody waits for. */
struct open {
	struct cds_list_head node;
	uint64_t id;
	bool by_agent, done;
	uint64_t agent_line;		/* the agent's line that it came over */
	json_int_t number;		/* the agent's */
	int status;
	struct waitq wq;		/* else a coroutine of ours */
};

struct mig_leases {
	struct leasedb db;
	struct leasedb_io io;
	struct mig *m;
	struct timer tick;
	struct job notes_job;
	struct cds_list_head notes, open;
	uint64_t line;			/* counts the agent's hellos */
	unsigned ticks;
	bool asking_inventory, purging;
};

struct leasedb *mig_leases_db(struct mig *m)
{
	return &m->leases->db;
}

bool mig_settled(const struct mig *m)
{
	return leasedb_is_settled(&m->leases->db);
}

uint64_t mig_leases_incarnation(const struct mig *m, uint32_t nodeid)
{
	const struct leasedb_node *n = leasedb_node(&m->leases->db, nodeid);

	return n ? n->inc : 0;
}

const struct lease *mig_lease(const struct mig *m, const char *vm)
{
	return leasedb_find(&m->leases->db, vm);
}

bool mig_wait_change(struct mig *m, uint64_t deadline_ns)
{
	return sched_wait_until(m->env->sched, &m->changed, deadline_ns, false) != -ETIMEDOUT;
}

/* ---- as JSON -------------------------------------------------------------------------------------------------------------------------- */

/* After a cold start: who has not said yet what it runs. */
static void suspects(const struct mig *m, char *ret, size_t size)
{
	size_t used = 0;

	snprintf(ret, size, "a node");
	for (uint32_t i = 0; i < LEASEDB_NODES_MAX && used < size; i++) {
		const struct leasedb_node *n = &m->leases->db.node[i];

		if (n->nodeid && n->suspect && !mig_is_member(m, n->nodeid))
			used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? " " : "", mig_node_name(m, n->nodeid));
	}
}

json_t *mig_lease_note(const struct mig *m, const struct lease *l)
{
	const char *why = l->state == LEASE_BLOCKED ? mig_proof_why(m, l->owner) : "", *cmd;
	char text[600], node[200];

	snprintf(node, sizeof(node), "%s", mig_node_name(m, l->owner));
	if (l->reason == LEASE_REASON_COLD && !*node)
		suspects(m, node, sizeof(node));
	lease_reason_text((enum lease_reason)l->reason, l->vm, node, text, sizeof(text));
	cmd = strstr(text, "then: csvctl ");
	cmd = cmd ? cmd + strlen("then: ") : strstr(text, "csvctl ");
	return json_pack("{s:o, s:s}", "reason", *why ? json_sprintf("%s (%s)", text, why) : json_string(text), "command", cmd ? cmd : "");
}

/* ---- to the agent --------------------------------------------------------------------------------------------------------------------- */

static void tell_record(struct mig *m, const struct lease *l)
{
	mig_agent_tell(m, "lease", m->ring, lease_json_encode(l));
}

static void tell_all(struct mig *m)
{
	struct leasedb *db = &m->leases->db;
	json_t *items, *open;
	uint32_t i = 0;

	if (!m->agent_ready || !m->view || !mig_settled(m))
		return;
	do {
		items = json_array();
		open = json_array();
		for (; i < leasedb_count(db) && json_array_size(items) < LEASES_A_LINE; i++) {
			json_array_append_new(items, lease_json_encode(leasedb_at(db, i)));
			if (leasedb_agent_is_open(db, leasedb_at(db, i)->vm))
				json_array_append_new(open, json_string(leasedb_at(db, i)->vm));
		}
		mig_agent_tell(m, "leases", m->ring, json_pack("{s:o, s:o, s:b, s:b}", "items", items, "open", open, "more",
							       i < leasedb_count(db), "cold", !leasedb_knows_absent(db)));
	} while (i < leasedb_count(db));
}

void mig_leases_tell_agent(struct mig *m)
{
	m->leases->line++;
	tell_all(m);
}

static void tell_outcome(struct mig *m, const struct open *o, const char *vm, const char *why)
{
	const char *result = !o->status ? "committed" : o->status == -ECANCELED ? "unknown" : "refused";
	json_int_t number = o->agent_line == m->leases->line ? o->number : 0;

	mig_agent_tell(m, "outcome", m->ring, json_pack("{s:I, s:s, s:s, s:s}", "proposal", number, "vm", vm, "result", result, "message",
							*why ? why : o->status ? csv_err_describe(o->status) : ""));
}

/* ---- inventory after a cold start ------------------------------------------------------------------------------------------------------ */

static void item_of(const json_t *v, struct leasedb_item *ret)
{
	memset(ret, 0, sizeof(*ret));
	snprintf(ret->vm, sizeof(ret->vm), "%.*s", LEASE_NAME_BYTES - 1, mig_text(v, "vm"));
	ret->epoch = (uint64_t)csv_max(mig_int(v, "epoch"), (json_int_t)0);
	ret->ended = (uint64_t)csv_max(mig_int(v, "ended"), (json_int_t)0);
	ret->peer = (uint32_t)mig_int(v, "offered_to");
	ret->peer_inc = mig_hex_get(v, "offered_to_inc");
	ret->config = (uint32_t)mig_int(v, "config");
	ret->flags = (uint32_t)mig_int(v, "flags") & (LEASEDB_ITEM_EXEC | LEASEDB_ITEM_SURE | LEASEDB_ITEM_RESUMED);
}

static void inventory_coro(void *arg)
{
	struct mig *m = arg;
	struct leasedb_item *item = NULL;
	struct mig_answer a;
	uint32_t n = 0;
	json_t *v;
	size_t i;
	uint64_t ring = m->ring;
	int rc = mig_agent_call(m, "inventory", ring, NULL, 10000, &a);

	if (!rc && !a.code) {
		const json_t *vms = json_object_get(a.data, "vms");

		item = calloc(json_array_size(vms) + 1, sizeof(*item));
		json_array_foreach(vms, i, v)
			if (item && json_is_integer(json_object_get(v, "flags")))
				item_of(v, &item[n++]);
	}
	/* of another view it may be older than what that view's leases have allowed since */
	if (item && ring == m->ring && leasedb_wants_inventory(&m->leases->db)) {
		rc = leasedb_inventory(&m->leases->db, &m->leases->io, item, n);
		if (rc)
			mig_log(m, LOG_L_WARN, "inventory: %s; it is given again", csv_err_describe(rc));
	}
	free(item);
	mig_answer_done(&a);
	m->leases->asking_inventory = false;
}

void mig_leases_inventory(struct mig *m)
{
	if (m->leases->asking_inventory || !m->agent_ready || !leasedb_wants_inventory(&m->leases->db))
		return;
	m->leases->asking_inventory = !mig_spawn(m, "inventory", inventory_coro, m);
}

/* ---- the others have proof that we are gone -------------------------------------------------------------------------------------------- */

static void purge_coro(void *arg)
{
	struct mig *m = arg;

	size_t n = json_object_size(m->vms);

	if (m->agent_ready && !n)
		mig_event(m, "warning", mig_node_name(m, m->cfg.self), "", "the others have a proof that this node was off: it begins anew; no VM is "
			  "here");
	else
		mig_event(m, "error", mig_node_name(m, m->cfg.self), m->agent_ready ? "" : "systemctl status hvhostd", "the others have a proof that "
			  "this node was off: %s, then it begins anew", m->agent_ready ? "what is still here of VMs is killed" :
			  "it waits for hvhostd, which kills what is still here of VMs");
	/* Without a lease they are the reaper's (hvhostd); nobody says that they are gone but its own word. */
	while (m->agent_ready == false || json_object_size(m->vms))
		mig_wait_change(m, mig_now(m) + NS_PER_SEC);
	m->port->ops->leave(m->port, MIG_LEAVE_PURGED, "this node begins anew");
}

/* ---- notes ------------------------------------------------------------------------------------------------------------------------------ */

static void outcome_note(struct mig *m, const struct note *n)
{
	struct open *o, *tmp;

	cds_list_for_each_entry_safe(o, tmp, &m->leases->open, node) {
		if (o->id != n->id)
			continue;
		o->status = n->status;
		o->done = true;
		if (!o->by_agent) {
			sched_wake_all(m->env->sched, &o->wq);
			return;
		}
		cds_list_del(&o->node);
		tell_outcome(m, o, n->vm, "");
		free(o);
		return;
	}
}

static void settled_note(struct mig *m, const struct note *n)
{
	struct leasedb *db = &m->leases->db;

	for (uint32_t i = 0; i < leasedb_count(db); i++)
		mig_lease_story(m, leasedb_at(db, i), true);
	if (n->cold)
		m->cold_ns = mig_now(m);
	if (n->cold && mig_is_leader(m))
		mig_event(m, "warning", "cluster", "", "cold start: no majority remembers who may run what; every node says what runs on it");
	mig_agent_view(m);		/* now that all lives are known */
	tell_all(m);
	mig_leases_inventory(m);
}

static void notes_run(struct job *j)
{
	struct mig_leases *s = container_of(j, struct mig_leases, notes_job);
	struct mig *m = s->m;
	struct note *n;

	while (!cds_list_empty(&s->notes)) {
		n = cds_list_first_entry(&s->notes, struct note, node);
		cds_list_del(&n->node);
		switch (n->kind) {
		case NOTE_SETTLED:
			settled_note(m, n);
			break;
		case NOTE_RECORD:
			tell_record(m, &n->lease);
			mig_lease_story(m, &n->lease, false);
			break;
		case NOTE_OUTCOME:
			outcome_note(m, n);
			break;
		case NOTE_PURGED:
			/* What leaves in order has said so itself (mig_node.c), and goes. */
			if (!s->purging && !m->leaving)
				s->purging = !mig_spawn(m, "purged", purge_coro, m);
			break;
		}
		free(n);
	}
	mig_poke(m);
}

static struct note *note(struct mig_leases *s, enum note_kind kind)
{
	struct note *n = calloc(1, sizeof(*n));

	csv_assertf(n, "out of memory for %zu bytes", sizeof(*n));	/* a lost note is a VM that nobody looks after */
	n->kind = kind;
	cds_list_add_tail(&n->node, &s->notes);
	sched_post(s->m->env->sched, &s->notes_job);
	return n;
}

static void io_multicast(void *arg, const void *buf, size_t len)
{
	struct mig_leases *s = arg;
	int rc = cluster_send(s->m->env->cluster, MIG_CHAN_LEASE, buf, len);

	if (rc && rc != -ENOTCONN)
		mig_log(s->m, LOG_L_ERR, "leases: a message of %zu bytes is not sent: %s", len, strerror(-rc));
}

static void io_unsettled(void *arg)
{
	struct mig_leases *s = arg;
	struct note *n, *tmp;

	/* What was committed and not told yet is told when it is settled again. */
	cds_list_for_each_entry_safe(n, tmp, &s->notes, node)
		if (n->kind == NOTE_SETTLED || n->kind == NOTE_RECORD) {
			cds_list_del(&n->node);
			free(n);
		}
}

static void io_settled(void *arg, struct ring_id ring, bool cold)
{
	(void)ring;
	note(arg, NOTE_SETTLED)->cold = cold;
}

static void io_record(void *arg, const struct lease *l)
{
	note(arg, NOTE_RECORD)->lease = *l;
}

static void io_outcome(void *arg, uint64_t id, const struct lease_cas *cas, int status)
{
	struct note *n = note(arg, NOTE_OUTCOME);

	n->id = id;
	n->status = status;
	memcpy(n->vm, cas->vm, sizeof(n->vm));
}

static void io_purged(void *arg)
{
	note(arg, NOTE_PURGED);
}

/* ---- proposing --------------------------------------------------------------------------------------------------------------------------- */

void mig_cas(const struct lease *l, enum lease_move move, struct lease_cas *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->vm, l->vm, sizeof(ret->vm));
	ret->version = l->version;
	ret->move = move;
	ret->role = LEASE_BY_COORD;
	if (move == LEASE_SET) {
		ret->want = l->want;
		ret->flags = l->flags & LEASE_HA;
		ret->priority = l->priority;
	}
}

static int propose(struct mig *m, const struct lease_cas *cas, uint64_t ring, struct open *o)
{
	int rc = leasedb_propose(&m->leases->db, &m->leases->io, cas, ring, &o->id);

	if (!rc)
		cds_list_add_tail(&o->node, &m->leases->open);
	return rc;
}

int mig_propose(struct mig *m, struct lease_cas *cas)
{
	struct open o = { .by_agent = false };
	int rc;

	waitq_init(&o.wq);
	rc = propose(m, cas, m->ring, &o);
	if (rc)
		return rc;
	while (!o.done)
		sched_wait(m->env->sched, &o.wq);
	cds_list_del(&o.node);
	return o.status;
}

int mig_propose_unwatched(struct mig *m, const struct lease_cas *cas)
{
	uint64_t id;

	return leasedb_propose(&m->leases->db, &m->leases->io, cas, m->ring, &id);
}

int mig_prove_once(struct mig *m, uint32_t nodeid, uint64_t inc, enum leasedb_proof kind)
{
	return leasedb_prove(&m->leases->db, &m->leases->io, nodeid, inc, kind);
}

void mig_leases_agent_proposes(struct mig *m, const json_t *event)
{
	const char *vm = mig_text(json_object_get(event, "cas"), "vm");
	struct csv_err err = CSV_ERR_INIT;
	struct open *o = calloc(1, sizeof(*o));
	struct lease_cas cas;
	int rc;

	if (!o)
		return;			/* it proposes again */
	o->by_agent = true;
	o->number = mig_int(event, "proposal");
	o->agent_line = m->leases->line;
	rc = lease_cas_json_decode(json_object_get(event, "cas"), &cas, &err);
	cas.role = LEASE_BY_AGENT;
	if (rc)
		mig_event(m, "error", vm, "", "hvhostd proposes what cannot be: %s", err.text);
	else
		rc = propose(m, &cas, mig_hex_get(event, "ring"), o);
	if (!rc)
		return;
	if (rc == -CSV_E_NOQUORUM || rc == -CSV_E_STALE || rc == -EAGAIN)
		rc = -ECANCELED;
	o->status = rc;
	tell_outcome(m, o, vm, err.text);
	free(o);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------------------------- */

static void on_msg(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct mig *m = arg;

	if (leasedb_msg(&m->leases->db, &m->leases->io, from.nodeid, buf, len))
		mig_log(m, LOG_L_WARN, "node %u: a lease message of %zu bytes is malformed: ignored", from.nodeid, len);
}

static void on_tick(struct timer *t)
{
	struct mig_leases *s = container_of(t, struct mig_leases, tick);

	leasedb_tick(&s->db, &s->io);
	if (!(++s->ticks % BEAT_TICKS))
		leasedb_beat(&s->db, &s->io);
	mig_leases_inventory(s->m);
	timer_set(s->m->env->sched, &s->tick, mig_now(s->m) + TICK_NS);
}

void mig_leases_suspend(struct mig *m)
{
	leasedb_suspend(&m->leases->db, &m->leases->io);
}

void mig_leases_view(struct mig *m)
{
	leasedb_view(&m->leases->db, &m->leases->io, m->view);
}

static void conf_of(const struct mig *m, struct leasedb_conf *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->self = m->cfg.self;
	ret->self_inc = m->cfg.incarnation;
	ret->n = m->cfg.n_nodes;
	for (unsigned i = 0; i < m->cfg.n_nodes; i++)
		ret->node[i] = (struct leasedb_vote){ m->cfg.node[i].nodeid, 1 };
}

int mig_leases_new(struct mig *m)
{
	struct mig_leases *s = calloc(1, sizeof(*s));
	struct cluster_user u = { .msg = on_msg, .arg = m };
	struct leasedb_conf conf;

	if (!s)
		return -ENOMEM;
	m->leases = s;
	s->m = m;
	s->io = (struct leasedb_io){ .multicast = io_multicast, .unsettled = io_unsettled, .settled = io_settled, .record = io_record,
				     .outcome = io_outcome, .purged = io_purged, .arg = s };
	CDS_INIT_LIST_HEAD(&s->notes);
	CDS_INIT_LIST_HEAD(&s->open);
	job_init(&s->notes_job, notes_run);
	timer_init(&s->tick, on_tick);
	conf_of(m, &conf);
	leasedb_init(&s->db, &conf);
	cluster_register(m->env->cluster, MIG_CHAN_LEASE, &u);
	timer_set(m->env->sched, &s->tick, mig_now(m) + TICK_NS);
	return 0;
}

void mig_leases_free(struct mig *m)
{
	struct mig_leases *s = m->leases;
	struct note *n, *tmp;

	if (!s)
		return;
	timer_del(m->env->sched, &s->tick);
	sched_unpost(m->env->sched, &s->notes_job);
	cds_list_for_each_entry_safe(n, tmp, &s->notes, node)
		free(n);
	mig_seen_free(m);
	free(s);
	m->leases = NULL;
}
