/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_node.c - nodes as places for VMs: emptied, used again, left; and counted when they are lost.
 *
 *	node/N	{"drained": bool, "by_operator": bool, "left": bool, "left_incarnation", "losses": [real ms...], "quarantined_until_real_ms"}
 *
 * Invariants
 *  ND1 Draining never stops a VM: one that cannot move stays, and the answer says why (for each).
 *  ND3 A node whose migratord ended while corosync's ring stayed as it was (item away/N names the ring) lives: it is neither fenced nor
 *      counted as lost, and nothing is taken from it.  In the next ring nobody knows that any more, and it is a lost node as any other.
 *  ND4 One that was drained by a person stays drained until a person resumes it, whoever restarts meanwhile, all nodes at once too (KN1); one that
 *      a shutdown drained is used again when it is back.
 *  ND5 After a time without quorum who is missing may be on its way: it is neither fenced nor is anything taken from it for one membership
 *      round (cluster.h, C9), unless a member of the same ring has seen it go (item went/N names the ring): the leader may have come to
 *      quorum only in the ring in which the other one was lost.
 *  ND2 A node says that it is off (own release) only when no VM is on it and no lease is its own; then its daemon leaves.
 *
 * One thread.
 */
#include "migrator/mig_work.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define LOSSES_MAX 3
#define ROUNDS_MAX 5u
#define START_NS (60 * NS_PER_SEC)
#define HOUR_MS 3600000ll
#define QUARANTINE_MS (2 * HOUR_MS)

static json_int_t real_ms(const struct mig *m)
{
	return (json_int_t)(clock_real_ns(m->env->clock) / NS_PER_MS);
}

static json_t *flags_of(const struct mig *m, uint32_t nodeid)
{
	const json_t *f = mig_node_flags(m, nodeid);

	return f ? json_deep_copy(f) : json_object();
}

static void flags_put(struct mig *m, uint32_t nodeid, json_t *flags)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "node/%u", nodeid);
	mig_item_put_take(m, key, flags);
}

void mig_node_lost(struct mig *m, uint32_t nodeid)
{
	json_t *f, *old, *recent, *t;
	json_int_t now = real_ms(m);
	char command[MIG_NAME_MAX + 32];
	size_t i;

	if (json_is_true(json_object_get(mig_node_flags(m, nodeid), "left")))
		return;
	f = flags_of(m, nodeid);
	old = json_object_get(f, "losses");
	recent = json_array();
	json_array_foreach(old, i, t)
		if (json_integer_value(t) > now - HOUR_MS && json_integer_value(t) <= now)
			json_array_append(recent, t);
	json_array_append_new(recent, json_integer(now));
	mig_event(m, "warning", mig_node_name(m, nodeid), "", "left the cluster without a word; %zu in the last hour", json_array_size(recent));
	if (json_array_size(recent) >= LOSSES_MAX) {
		json_object_set_new(f, "quarantined_until_real_ms", json_integer(now + QUARANTINE_MS));
		snprintf(command, sizeof(command), "csvctl node resume %s", mig_node_name(m, nodeid));
		mig_event(m, "warning", mig_node_name(m, nodeid), command, "lost %d times in an hour: no VM is placed there for two hours",
			  LOSSES_MAX);
	}
	json_object_set_new(f, "losses", recent);
	flags_put(m, nodeid, f);
}

/* Also for went/N. */
static json_t *away_item(const struct mig *m)
{
	return json_pack("{s:o, s:i}", "ring", mig_hex(m->view_copy.ring.seq >> CLUSTER_ROUND_BITS), "lead", (int)m->view_copy.ring.nodeid);
}

static bool away_now(const struct mig *m, const json_t *item)
{
	return m->view && item && mig_hex_get(item, "ring") == m->view->ring.seq >> CLUSTER_ROUND_BITS &&
	       mig_int(item, "lead") == m->view->ring.nodeid;
}

bool mig_node_is_away(const struct mig *m, uint32_t nodeid)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "away/%u", nodeid);
	return !mig_is_member(m, nodeid) && away_now(m, mig_item_get(m, key));
}

/* Every member has seen it, and says so: the leader's migratord may be the next to end. */
void mig_node_away(struct mig *m, uint32_t nodeid)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "away/%u", nodeid);
	if (json_is_true(json_object_get(mig_node_flags(m, nodeid), "left")) || away_now(m, mig_item_get(m, key)))
		return;
	mig_item_put_take(m, key, away_item(m));
	if (mig_is_leader(m))
		mig_event(m, "warning", mig_node_name(m, nodeid), "systemctl status migratord", "its migratord ended, the node did not: its VMs run "
			  "on, unmanaged");
}

bool mig_node_may_come(const struct mig *m, uint32_t nodeid)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "went/%u", nodeid);
	return !mig_is_member(m, nodeid) && mig_now(m) < cluster_may_come_ns(m->env->cluster, nodeid) && !away_now(m, mig_item_get(m, key));
}

void mig_node_went(struct mig *m, uint32_t nodeid)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "went/%u", nodeid);
	if (cluster_has_seen(m->env->cluster, nodeid) && !away_now(m, mig_item_get(m, key)))
		mig_item_put_take(m, key, away_item(m));
}

/* ---- drain --------------------------------------------------------------------------------------------------------------------------------- */

struct names { char vm[LEASEDB_VMS_MAX][LEASE_NAME_BYTES]; unsigned n; };

static void owned(struct mig *m, uint32_t nodeid, struct names *ret)
{
	struct leasedb *db = mig_leases_db(m);

	ret->n = 0;
	for (uint32_t i = 0; i < leasedb_count(db); i++)
		if (leasedb_at(db, i)->state > LEASE_FREE && leasedb_at(db, i)->owner == nodeid)
			snprintf(ret->vm[ret->n++], LEASE_NAME_BYTES, "%s", leasedb_at(db, i)->vm);
}

/* Waits for what is on its way there; then what is there, 0: nothing. */
static unsigned coming(struct mig *m, uint32_t nodeid, struct names *ret)
{
	struct leasedb *db = mig_leases_db(m);
	uint64_t end = mig_now(m) + START_NS;
	bool on_its_way = true;

	while (on_its_way && mig_now(m) < end) {
		on_its_way = false;
		for (uint32_t i = 0; i < leasedb_count(db); i++)
			on_its_way |= lease_is_intent(leasedb_at(db, i)) && leasedb_at(db, i)->peer == nodeid;
		if (on_its_way)
			mig_wait_change(m, mig_now(m) + NS_PER_SEC);
	}
	owned(m, nodeid, ret);
	return ret->n;
}

static void stays(json_t *list, const char *vm, const char *why)
{
	json_array_append_new(list, json_pack("{s:s, s:s}", "vm", vm, "reason", why));
}

static void move_away(struct mig_job *j, uint32_t nodeid, const char *vm, json_t *moved, json_t *stayed)
{
	struct mig *m = j->m;
	const struct lease *l = mig_lease(m, vm);
	uint64_t end = mig_now(m) + START_NS;
	json_t *result = NULL;
	char text[600];
	uint32_t to;

	/* One that is just being started, or comes by a migration, first has to be there. */
	while (l && l->owner == nodeid && (l->state == LEASE_RECOVERING || l->state == LEASE_HANDOFF || (l->state == LEASE_RUNNING && l->txid)) &&
	       mig_now(m) < end) {
		mig_job_step(j, j->percent, "waits: something else changes %s just now", vm);
		mig_wait_change(m, mig_now(m) + NS_PER_SEC);
		l = mig_lease(m, vm);
	}
	if (!l || l->owner != nodeid || l->state <= LEASE_FREE)
		return;
	to = mig_place(m, vm, 0, nodeid, text, sizeof(text));
	if (!to) {
		stays(stayed, vm, *text ? text : "there is no other node");
	} else if (mig_move_run(j, vm, to, text, sizeof(text), &result)) {
		l = mig_lease(m, vm);
		if (l && l->owner == nodeid && l->state > LEASE_FREE)
			stays(stayed, vm, text);
	} else {
		json_array_append_new(moved, json_pack("{s:s, s:s}", "vm", vm, "to", mig_node_name(m, to)));
	}
	json_decref(result);
}

/* RPC_OK: empty.  RPC_PARTIAL: some stayed. */
static enum rpc_code drain(struct mig_job *j, uint32_t nodeid, bool by_operator, json_t *moved, json_t *stayed)
{
	struct names *n = calloc(1, sizeof(*n));
	json_t *f = flags_of(j->m, nodeid);

	json_object_set_new(f, "drained", json_true());
	if (by_operator)
		json_object_set_new(f, "by_operator", json_true());
	flags_put(j->m, nodeid, f);
	if (!n)
		return RPC_FAILED;
	/* What was on its way there when it was drained comes all the same, and goes in the next round. */
	for (unsigned round = 0; round < ROUNDS_MAX && !json_array_size(stayed) && coming(j->m, nodeid, n); round++) {
		for (unsigned i = 0; i < n->n; i++) {
			mig_job_step(j, i * 100 / n->n, "moving %s (%u of %u)", n->vm[i], i + 1, n->n);
			move_away(j, nodeid, n->vm[i], moved, stayed);
		}
	}
	free(n);
	return json_array_size(stayed) ? RPC_PARTIAL : RPC_OK;
}

static json_t *result_of(struct mig *m, uint32_t nodeid, const char *state, json_t *moved, json_t *stayed)
{
	return json_pack("{s:s, s:s, s:o, s:o}", "node", mig_node_name(m, nodeid), "state", state, "moved", moved, "stayed", stayed);
}

static void stayed_text(const json_t *stayed, char *ret, size_t size)
{
	const json_t *s;
	size_t i, used = 0;

	ret[0] = 0;
	json_array_foreach(stayed, i, s)
		if (used < size)
			used += (size_t)snprintf(ret + used, size - used, "%s%s: %s", i ? "; " : "", mig_text(s, "vm"), mig_text(s, "reason"));
}

static void drain_job(struct mig_job *j)
{
	uint32_t nodeid = (uint32_t)mig_int(j->args, "nodeid");
	json_t *moved = json_array(), *stayed = json_array();
	enum rpc_code code;
	char text[400];

	mig_event(j->m, "info", mig_node_name(j->m, nodeid), "", "is drained");
	code = drain(j, nodeid, true, moved, stayed);
	stayed_text(stayed, text, sizeof(text));
	mig_job_done_take(j, code, result_of(j->m, nodeid, code ? "drained, not empty" : "drained", moved, stayed), "%s%s",
			  code ? "some VMs stayed where they are: " : "", text);
}

static json_t *check(const struct mig_ask *a, bool must_be_here)
{
	uint32_t nodeid = (uint32_t)mig_int(a->args, "nodeid");

	if (!mig_node_of(a->m, nodeid))
		return rpc_reply_error(RPC_NOT_FOUND, "node %u: not in corosync's node list; see: csvctl node list", nodeid);
	if (!mig_settled(a->m))
		return rpc_reply_error(RPC_NO_QUORUM, "the leases are not settled; again in a moment");
	if (must_be_here && !mig_is_member(a->m, nodeid))
		return rpc_reply_error(RPC_CONFLICT, "%s: %s", mig_node_name(a->m, nodeid), mig_node_is_away(a->m, nodeid) ?
				       "has no migratord running (there: systemctl start migratord)" : "is no member of the cluster just now");
	return NULL;
}

static json_t *would(const struct mig_ask *a, const char *state)
{
	uint32_t nodeid = (uint32_t)mig_int(a->args, "nodeid");
	struct names *n = calloc(1, sizeof(*n));
	json_t *reply = rpc_reply_new("node"), *moved = json_array(), *stayed = json_array();
	char text[600];

	if (n)
		owned(a->m, nodeid, n);
	for (unsigned i = 0; n && i < n->n; i++) {
		uint32_t to = mig_place(a->m, n->vm[i], 0, nodeid, text, sizeof(text));

		if (to)
			json_array_append_new(moved, json_pack("{s:s, s:s}", "vm", n->vm[i], "to", mig_node_name(a->m, to)));
		else
			stays(stayed, n->vm[i], text);
	}
	free(n);
	rpc_reply_add_take(reply, result_of(a->m, nodeid, state, moved, stayed));
	return reply;
}

json_t *mig_node_drain(const struct mig_ask *a)
{
	json_t *no = check(a, true);

	if (no)
		return no;
	return a->dry_run ? would(a, "would be drained") : mig_job_start(a, "drain", mig_text(a->args, "node"), drain_job);
}

/* ---- resume ---------------------------------------------------------------------------------------------------------------------------------- */

json_t *mig_node_resume(const struct mig_ask *a)
{
	uint32_t nodeid = (uint32_t)mig_int(a->args, "nodeid");
	json_t *no = check(a, false), *reply, *f;

	if (no)
		return no;
	if (!a->dry_run) {
		f = flags_of(a->m, nodeid);
		json_object_del(f, "drained");
		json_object_del(f, "by_operator");
		json_object_del(f, "left");
		json_object_del(f, "losses");
		json_object_del(f, "quarantined_until_real_ms");
		flags_put(a->m, nodeid, f);
		mig_event(a->m, "info", mig_node_name(a->m, nodeid), "", "may have VMs again");
	}
	reply = rpc_reply_new("node");
	rpc_reply_add_take(reply, json_pack("{s:s, s:s}", "node", mig_node_name(a->m, nodeid), "state", a->dry_run ? "would be used again" : "in use"));
	return reply;
}

/* ---- shutdown ----------------------------------------------------------------------------------------------------------------------------------- */

/* With --force: what cannot move is stopped, and starts elsewhere when there is a place. */
static void stop_rest(struct mig_job *j, uint32_t nodeid, json_t *stayed)
{
	const json_t *s;
	struct mig_answer a;
	size_t i;

	json_array_foreach(stayed, i, s) {
		mig_job_step(j, 90, "stopping %s", mig_text(s, "vm"));
		json_array_append_new(j->warnings, json_sprintf("%s could not move and was stopped: %s", mig_text(s, "vm"), mig_text(s, "reason")));
		mig_call(j->m, nodeid, "vm.kill", json_pack("{s:s}", "vm", mig_text(s, "vm")), 15000, &a);
		mig_answer_done(&a);
	}
}

static bool is_empty(struct mig *m, uint32_t nodeid)
{
	struct leasedb *db = mig_leases_db(m);

	for (uint32_t i = 0; i < leasedb_count(db); i++)
		if (leasedb_at(db, i)->state > LEASE_FREE && leasedb_at(db, i)->owner == nodeid)
			return false;
	return mig_settled(m);
}

static void shutdown_job(struct mig_job *j)
{
	struct mig *m = j->m;
	uint32_t nodeid = (uint32_t)mig_int(j->args, "nodeid");
	json_t *moved = json_array(), *stayed = json_array(), *f;
	uint64_t end;
	enum rpc_code code = drain(j, nodeid, false, moved, stayed);
	char text[400];

	stayed_text(stayed, text, sizeof(text));
	if (code && json_is_true(json_object_get(j->args, "force"))) {
		stop_rest(j, nodeid, stayed);
		code = RPC_OK;
	}
	end = mig_now(m) + 30 * NS_PER_SEC;
	while (!code && !is_empty(m, nodeid) && mig_now(m) < end)
		mig_wait_change(m, mig_now(m) + 500 * NS_PER_MS);
	if (code || !is_empty(m, nodeid)) {
		mig_job_done_take(j, RPC_PARTIAL, result_of(m, nodeid, "drained, not empty", moved, stayed),
				  "%s: it stays: %s; stop these VMs first, or say --force", mig_node_name(m, nodeid), text);
		return;
	}
	f = flags_of(m, nodeid);
	json_object_set_new(f, "left", json_true());
	json_object_set_new(f, "left_incarnation", mig_hex(mig_leases_incarnation(m, nodeid)));
	flags_put(m, nodeid, f);
	mig_event(m, "info", mig_node_name(m, nodeid), "", "leaves in order: no VM is on it");
	mig_job_done_take(j, RPC_OK, result_of(m, nodeid, "left", moved, stayed), "%s", "");
	mig_send_take(m, json_pack("{s:s, s:i}", "t", "leave", "node", (int)nodeid));
}

json_t *mig_node_shutdown(const struct mig_ask *a)
{
	json_t *no = check(a, true);

	if (no)
		return no;
	return a->dry_run ? would(a, "would leave") : mig_job_start(a, "shutdown", mig_text(a->args, "node"), shutdown_job);
}

#define LEAVE_HEARD_MS 1000u
/* On the node itself: its own release, then out. */
static void leave_coro(void *arg)
{
	struct mig *m = arg;
	uint64_t heard = mig_now(m) + LEAVE_HEARD_MS * NS_PER_MS, end;

	/* Who asked this node for it looks for the end of the job here. */
	while (mig_now(m) < heard)
		mig_wait_change(m, heard);
	end = mig_now(m) + 5 * NS_PER_SEC;
	while (m->view && is_empty(m, m->cfg.self) && !json_object_size(m->vms) && mig_now(m) < end &&
	       !leasedb_proven(mig_leases_db(m), m->cfg.self, m->cfg.incarnation)) {
		mig_prove_once(m, m->cfg.self, m->cfg.incarnation, LEASEDB_PROOF_RELEASE);
		mig_wait_change(m, mig_now(m) + 100 * NS_PER_MS);
	}
	m->port->ops->leave(m->port, MIG_LEAVE_NODE, "the node leaves in order");
}

/* It is back after it had left in order. */
void mig_node_view(struct mig *m)
{
	char key[MIG_KEY_MAX];
	json_t *f;

	snprintf(key, sizeof(key), "away/%u", m->cfg.self);
	if (mig_item_get(m, key))
		mig_item_put_take(m, key, NULL);
	snprintf(key, sizeof(key), "went/%u", m->cfg.self);
	if (mig_item_get(m, key))
		mig_item_put_take(m, key, NULL);
	/* Not the life that is just about to leave. */
	if (m->cfg.left || !json_is_true(json_object_get(mig_node_flags(m, m->cfg.self), "left")) ||
	    mig_hex_get(mig_node_flags(m, m->cfg.self), "left_incarnation") == m->cfg.incarnation)
		return;
	f = flags_of(m, m->cfg.self);
	json_object_del(f, "left");
	if (!json_is_true(json_object_get(f, "by_operator")))	/* ND4 */
		json_object_del(f, "drained");
	flags_put(m, m->cfg.self, f);
}

void mig_node_leave(struct mig *m)
{
	if (!m->leaving)
		m->leaving = !mig_spawn(m, "leave", leave_coro, m);
}

/* What keeps VMs from it, for people. */
static void add_problem(json_t *list, const char *text)
{
	if (*text)
		json_array_append_new(list, json_string(text));
}

static json_t *problem_of(const struct mig *m, uint32_t id)
{
	const json_t *h = json_object_get(mig_host_of(m, id), "host"), *w;
	json_t *list = json_array(), *text;
	size_t i;

	add_problem(list, mig_proof_why(m, id));
	if (mig_node_is_away(m, id))
		add_problem(list, "migratord does not run there (systemctl start migratord)");
	if (mig_is_member(m, id) && !mig_host_ready(m, id))
		add_problem(list, "hvhostd does not run there (systemctl start hvhostd)");
	add_problem(list, mig_text(h, "mount_reason"));
	add_problem(list, mig_text(h, "qemu_reason"));
	if (!*mig_text(h, "qemu_reason"))
		json_array_foreach(json_object_get(h, "missing"), i, w)
			json_array_append_new(list, json_sprintf("its QEMU %s lacks %s", mig_text(h, "qemu"), json_string_value(w)));
	if (json_is_true(json_object_get(mig_node_flags(m, id), "drained")))
		add_problem(list, "is drained");
	if (mig_int(mig_node_flags(m, id), "quarantined_until_real_ms") > real_ms(m))
		add_problem(list, "is quarantined after three losses in an hour");
	text = json_string("");
	json_array_foreach(list, i, w) {
		json_t *more = json_sprintf("%s%s%s", json_string_value(text), i ? "; " : "", json_string_value(w));

		json_decref(text);
		text = more;
	}
	json_decref(list);
	return text;
}

/* ---- shown ----------------------------------------------------------------------------------------------------------------------------------------- */

json_t *mig_node_status(struct mig *m, const json_t *args)
{
	json_t *reply = rpc_reply_new("node");

	(void)args;
	for (unsigned i = 0; i < m->cfg.n_nodes; i++) {
		uint32_t id = m->cfg.node[i].nodeid;
		const json_t *h = mig_host_of(m, id), *f = mig_node_flags(m, id);
		struct names *n = calloc(1, sizeof(*n));

		if (n)
			owned(m, id, n);
		rpc_reply_add_take(reply, json_pack("{s:s, s:i, s:b, s:b, s:b, s:b, s:b, s:i, s:s, s:I, s:s, s:o}", "name", m->cfg.node[i].name, "nodeid",
						    (int)id, "member", mig_is_member(m, id), "leader", mig_leader(m) == id, "agent",
						    mig_host_ready(m, id), "drained", json_is_true(json_object_get(f, "drained")), "quarantined",
						    mig_int(f, "quarantined_until_real_ms") > real_ms(m), "vms", n ? (int)n->n : 0, "accel",
						    mig_text(json_object_get(h, "host"), "accel"), "memory_free_bytes",
						    mig_int(json_object_get(h, "host"), "memory_free_bytes"), "fencing", mig_proof_why(m, id), "problem", problem_of(m, id)));
		free(n);
	}
	return reply;
}
