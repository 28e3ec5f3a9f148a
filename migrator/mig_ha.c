/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_ha.c - the leader's look: what each lease wants done (lease_lead.h), done; by level, after every change and every second.
 *
 * Invariants
 *  HA1 Nothing is kept from one look to the next but what every member sees as well (struct mig_seen): a new leader's first look is as good
 *      as the old one's last.
 *  HA2 A VM of lower priority is not begun while one of higher priority is being started, unless that takes longer than START_WAIT.
 *  HA4 VMs are begun one by one: each is placed when it is known where the one before went.
 *  HA5 One that fails to start, or whose QEMU dies, is begun again after a back-off that doubles, elsewhere if it can, FAILURES_MAX times
 *      in a row; a while of running makes it good again.
 *  HA3 Everybody that stands BLOCKED has a reason and a command in `vm show`, `ha status` and the event log.
 *
 * One thread.
 */
#include "migrator/mig_work.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define LOOK_NS NS_PER_SEC
#define START_WAIT_NS (20 * NS_PER_SEC)
#define COLD_GRACE_NS (20 * NS_PER_SEC)
#define RESUME_NS (5 * NS_PER_SEC)
#define FAILURES_MAX 3
#define BACK_OFF_NS (2 * NS_PER_SEC)
#define GOOD_NS (600 * NS_PER_SEC)

/* What of a VM was last seen committed. */
struct mig_seen {
	UT_hash_handle hh;
	char vm[LEASE_NAME_BYTES];
	struct lease l;
	uint64_t since_ns;		/* in this state */
	uint64_t begun_epoch;		/* of its last RECOVERING */
	uint32_t failed_on;		/* where it failed to start last */
	bool said_late, said_waits;
};

/* ---- what lease_lead asks ------------------------------------------------------------------------------------------------------------- */

static uint32_t lead_place(void *arg, const struct lease *l, uint32_t avoid)
{
	struct mig *m = arg;
	struct mig_seen *s;
	char why[400];

	HASH_FIND_STR(m->seen, l->vm, s);
	return mig_place_ha(m, l->vm, avoid ? avoid : s && l->failures ? s->failed_on : 0, why, sizeof(why));
}

static uint32_t lead_config(void *arg, const struct lease *l)
{
	const json_t *d = mig_def(arg, l->vm);

	return d ? (uint32_t)mig_int(d, "config") : l->config;
}

static enum lease_fence lead_fence(void *arg, uint32_t nodeid)
{
	return mig_node_is_away(arg, nodeid) || mig_node_may_come(arg, nodeid) ? LEASE_FENCE_BUSY : mig_proof_state(arg, nodeid);
}

/* ---- stories -------------------------------------------------------------------------------------------------------------------------------- */

static struct mig_seen *seen(struct mig *m, const char *vm)
{
	struct mig_seen *s;

	HASH_FIND_STR(m->seen, vm, s);
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s)
			return NULL;
		snprintf(s->vm, sizeof(s->vm), "%s", vm);
		HASH_ADD_STR(m->seen, vm, s);
	}
	return s;
}

static void tell_blocked(struct mig *m, const struct lease *l)
{
	json_t *note = mig_lease_note(m, l);

	mig_event(m, "error", l->vm, mig_text(note, "command"), "BLOCKED: %s", mig_text(note, "reason"));
	json_decref(note);
}

static void tell_free(struct mig *m, const struct lease *was, const struct lease *l)
{
	json_t *note = mig_lease_note(m, l);

	if (was->state == LEASE_NONE)
		mig_event(m, "info", l->vm, "", "is known");
	else if (l->reason == LEASE_REASON_GUEST_OFF || (l->want == LEASE_WANT_STOPPED && !l->reason))
		mig_event(m, "info", l->vm, "", "stopped");
	else if (*mig_text(note, "reason"))
		mig_event(m, "warning", l->vm, mig_text(note, "command"), "stopped: %s", mig_text(note, "reason"));
	else if (was->state == LEASE_BLOCKED)
		mig_event(m, "info", l->vm, "", "runs nowhere, as is known now: it may be started");
	else
		mig_event(m, "warning", l->vm, "csvctl vm list", "was switched off%s%s, though it is to run: it starts again where there is a place",
			  was->owner ? " on " : "", mig_node_name(m, was->owner));
	json_decref(note);
}

static void tell(struct mig *m, const struct lease *was, const struct lease *l)
{
	const char *owner = mig_node_name(m, l->owner);

	if (l->state == was->state && l->owner == was->owner && l->epoch == was->epoch)
		return;
	switch ((enum lease_state)l->state) {
	case LEASE_NONE:
		mig_event(m, "info", l->vm, "", "deleted");
		break;
	case LEASE_FREE:
		tell_free(m, was, l);
		break;
	case LEASE_RUNNING:
		if (was->state == LEASE_HANDOFF && l->owner == was->owner)
			mig_event(m, "info", l->vm, "", "migrated from %s to %s", mig_node_name(m, l->peer), owner);
		else
			mig_event(m, "info", l->vm, "", "runs on %s", owner);
		break;
	case LEASE_RECOVERING:
		mig_event(m, was->state == LEASE_FREE ? "info" : "warning", l->vm, "", "%s on %s%s", was->state == LEASE_FREE ? "starts" :
			  "its node was lost: starts", owner, mig_node_quarantined(m, l->owner) ? ", though that is quarantined: no other node can have it" : "");
		break;
	case LEASE_BLOCKED:
		tell_blocked(m, l);
		break;
	default:
		break;
	}
}

void mig_lease_story(struct mig *m, const struct lease *l, bool bulk)
{
	struct mig_seen *s = seen(m, l->vm);

	if (!s)
		return;
	if (mig_is_leader(m) && !(bulk && s->l.state == LEASE_NONE))
		tell(m, &s->l, l);
	if (s->l.state != l->state || s->l.epoch != l->epoch || s->l.txid != l->txid) {
		s->since_ns = mig_now(m);
		s->said_late = s->said_waits = false;
	}
	if (l->reason == LEASE_REASON_START_FAILED && s->l.state == LEASE_RECOVERING)
		s->failed_on = s->l.owner;
	if (l->state == LEASE_RECOVERING)
		s->begun_epoch = l->epoch;
	s->l = *l;
	if (l->state == LEASE_NONE) {
		HASH_DEL(m->seen, s);
		free(s);
	}
}

bool mig_seen_begun(const struct mig *m, const char *vm, uint64_t epoch)
{
	struct mig_seen *s;

	HASH_FIND_STR(m->seen, vm, s);
	return s && s->begun_epoch == epoch;
}

void mig_seen_free(struct mig *m)
{
	struct mig_seen *s, *tmp;

	HASH_ITER(hh, m->seen, s, tmp) {
		HASH_DEL(m->seen, s);
		free(s);
	}
}

/* ---- a look ------------------------------------------------------------------------------------------------------------------------------------ */

static int by_priority(const void *a, const void *b)
{
	const struct lease *x = *(const struct lease *const *)a, *y = *(const struct lease *const *)b;

	return x->priority != y->priority ? (int)y->priority - (int)x->priority : strcmp(x->vm, y->vm);
}

/* HA2 */
static bool higher_one_starts(struct mig *m, const struct leasedb *db, const struct lease *l)
{
	for (uint32_t i = 0; i < leasedb_count(db); i++) {
		const struct lease *o = leasedb_at(db, i);
		struct mig_seen *s;

		if (o->priority <= l->priority || o->state != LEASE_RECOVERING)
			continue;
		HASH_FIND_STR(m->seen, o->vm, s);
		if (s && mig_now(m) - s->since_ns < START_WAIT_NS)
			return true;
	}
	return false;
}

/* RUNNING, or to be begun, and its agent does not say that it is so. */
static void look_late(struct mig *m, const struct lease *l)
{
	const json_t *v = mig_vm_on(m, l->owner, l->vm);
	bool runs = l->state == LEASE_RUNNING && !lease_is_intent(l) && l->want == LEASE_WANT_RUN, away = !mig_host_ready(m, l->owner);
	struct mig_seen *s;
	const char *st = mig_text(v, "qemu"), *why = *mig_text(v, "io_error") ? mig_text(v, "io_error") : mig_text(v, "reason");

	HASH_FIND_STR(m->seen, l->vm, s);
	if (!s || s->said_late || !mig_is_member(m, l->owner) || mig_now(m) - s->since_ns < RESUME_NS || (runs && !strcmp(st, "running")) ||
	    (!runs && !(away && (l->state == LEASE_RECOVERING || l->state == LEASE_HANDOFF))))
		return;
	s->said_late = true;
	if (away)
		mig_event(m, "warning", l->vm, "systemctl status hvhostd", "%s on %s%s: hvhostd is away there", runs ? "runs" : "waits for its start",
			  mig_node_name(m, l->owner), runs ? ", unmanaged" : "");
	else
		mig_event(m, "warning", l->vm, mig_text(v, "command"), "may run on %s, but its QEMU is %s%s%s", mig_node_name(m, l->owner),
			  *st ? st : "not there", *why ? ": " : "", why);
}

/* No node can have it, for longer than a view change lasts. */
static void look_waits(struct mig *m, const struct lease *l)
{
	struct mig_seen *s;
	char why[400];

	HASH_FIND_STR(m->seen, l->vm, s);
	if (!s || s->said_waits || mig_now(m) - s->since_ns < RESUME_NS || !mig_place_waits(m, l, why, sizeof(why)))
		return;
	s->said_waits = true;
	mig_event(m, "error", l->vm, "csvctl node list", "waits: no node can have it: %s", why);
}

/* HA5 */
static bool backs_off(struct mig *m, const struct lease *l)
{
	unsigned n = l->reason == LEASE_REASON_LOST_QEMU && l->failures ? l->failures - 1u : l->failures;
	struct mig_seen *s;

	HASH_FIND_STR(m->seen, l->vm, s);
	return s && n && l->state == LEASE_FREE && mig_now(m) - s->since_ns < BACK_OFF_NS << csv_min(n - 1, 6u);
}

static void look_good(struct mig *m, const struct leasedb *db, const struct lease *l)
{
	struct lease_cas cas;
	struct mig_seen *s;

	HASH_FIND_STR(m->seen, l->vm, s);
	if (!s || !l->failures || l->state != LEASE_RUNNING || l->txid || l->flags & LEASE_GUESSED || mig_now(m) - s->since_ns < GOOD_NS ||
	    leasedb_is_open(db, l->vm))
		return;
	mig_cas(l, LEASE_SET, &cas);
	mig_propose_unwatched(m, &cas);
}

static void look_one(struct mig *m, const struct lease_lead *in, const struct lease *l)
{
	struct lease_action act;
	int rc;

	bool begins;

	look_late(m, l);
	look_good(m, in->db, l);
	look_waits(m, l);
	if (leasedb_is_open(in->db, l->vm))
		return;
	lease_lead_vm(in, l, &act);
	if (act.act == LEASE_ACT_FENCE)
		mig_proof_fence(m, act.nodeid, act.inc);
	if (act.act != LEASE_ACT_PROPOSE)
		return;
	begins = act.cas.move == LEASE_START || (act.cas.move == LEASE_TAKE && act.cas.node);
	if (begins && (higher_one_starts(m, in->db, l) || backs_off(m, l) || (*m->begun && leasedb_is_open(in->db, m->begun))))
		return;
	rc = mig_propose_unwatched(m, &act.cas);
	if (begins && !rc)
		memcpy(m->begun, l->vm, sizeof(m->begun));
	if (rc && rc != -CSV_E_NOQUORUM && rc != -EAGAIN)
		mig_log(m, LOG_L_WARN, "%s: %s: %s", l->vm, lease_move_name((enum lease_move)act.cas.move), csv_err_describe(rc));
}

static void look(struct mig *m)
{
	struct leasedb *db = mig_leases_db(m);
	struct lease_lead in = { .db = db, .place = lead_place, .config = lead_config, .fence = lead_fence, .failures_max = FAILURES_MAX,
				 .arg = m };
	uint32_t n = leasedb_count(db);
	const struct lease **list = malloc((n + 1) * sizeof(*list));

	if (!list)
		return;
	in.cold_grace_over = !m->cold_ns || mig_now(m) - m->cold_ns > COLD_GRACE_NS;
	for (uint32_t i = 0; i < n; i++)
		list[i] = leasedb_at(db, i);
	qsort(list, n, sizeof(*list), by_priority);
	for (uint32_t i = 0; i < n; i++)
		look_one(m, &in, list[i]);
	free(list);
}

/* Every second; and when nobody is waited for any more that may come after a time without quorum (node 0 has never been here). */
static uint64_t next_look_ns(const struct mig *m)
{
	uint64_t now = mig_now(m), end = cluster_may_come_ns(m->env->cluster, 0);

	return end > now ? csv_min(end, now + LOOK_NS) : now + LOOK_NS;
}

void mig_look_coro(void *arg)
{
	struct mig *m = arg;

	for (;;) {
		if (!m->look_now)
			sched_wait_until(m->env->sched, &m->look_wq, next_look_ns(m), false);
		m->look_now = false;
		mig_calls_look(m);
		if (m->view && mig_settled(m) && !m->leaving)
			mig_node_view(m);
		if (!mig_is_leader(m) || !mig_settled(m))
			continue;
		mig_proof_view(m);
		mig_defs_refresh(m);
		mig_known_look(m);
		look(m);
		mig_moves_look(m);
	}
}

/* ---- ha.status, ha.set ---------------------------------------------------------------------------------------------------------------------------- */

json_t *mig_ha_status(struct mig *m, const json_t *args)
{
	struct leasedb *db = mig_leases_db(m);
	json_t *reply = rpc_reply_new("ha");

	(void)args;
	json_object_set_new(reply, "leader", json_string(mig_node_name(m, mig_leader(m))));
	json_object_set_new(reply, "quorate", json_boolean(m->view != NULL));
	json_object_set_new(reply, "settled", json_boolean(mig_settled(m)));
	json_object_set_new(reply, "suspects", json_integer(leasedb_suspects(db)));
	for (uint32_t i = 0; i < leasedb_count(db); i++) {
		const struct lease *l = leasedb_at(db, i);
		json_t *o = mig_vm_item(m, l->vm);

		rpc_reply_add_take(reply, json_pack("{s:s, s:b, s:i, s:s, s:s, s:s, s:s, s:s, s:i}", "name", l->vm, "ha",
						    (l->flags & LEASE_HA) != 0, "priority", (int)l->priority, "want",
						    lease_want_name((enum lease_want)l->want), "state",
						    lease_state_name((enum lease_state)l->state), "node", mig_node_name(m, l->owner), "reason",
						    mig_text(o, "reason"), "command", mig_text(o, "command"), "failures",
						    (int)l->failures));
		json_decref(o);
	}
	if (m->view && mig_settled(m))
		mig_known_tell(m, reply, true);
	if (!m->view)
		json_object_set_new(reply, "code", json_integer(RPC_NO_QUORUM)),
			json_object_set_new(reply, "message", json_string("no quorum: nothing is restarted; see: csvctl cluster status"));
	return reply;
}

static void set_job(struct mig_job *j)
{
	const char *vm = mig_text(j->args, "name"), *prio = mig_text(j->args, "priority");
	bool on = json_is_true(json_object_get(j->args, "ha"));
	int priority = *prio ? atoi(prio) : -1, rc;
	struct mig_answer a = { 0 };
	const struct lease *l = mig_lease(j->m, vm);
	json_t *args;

	if (!l || !mig_settled(j->m)) {		/* `want` is not to be guessed: it would be durable */
		mig_job_done_take(j, l ? RPC_NO_QUORUM : RPC_NOT_FOUND, NULL, "%s: its lease is not known just now; again in a moment", vm);
		return;
	}
	args = json_pack("{s:s, s:s, s:b}", "vm", vm, "want", lease_want_name((enum lease_want)l->want), "ha", on);
	if (priority >= 0)
		json_object_set_new(args, "priority", json_integer(priority));
	rc = mig_call(j->m, mig_any_host(j->m), "vm.want", args, 15000, &a);
	if (rc || a.code) {
		mig_job_done_take(j, rc ? rpc_code_of(rc) : (enum rpc_code)a.code, NULL, "%s: its definition cannot be changed: %s", vm,
				  rc ? csv_err_describe(rc) : a.message);
		mig_answer_done(&a);
		return;
	}
	mig_answer_done(&a);
	rc = mig_set(j->m, vm, -1, on, priority);
	if (rc)
		mig_job_done_take(j, rpc_code_of(rc), NULL, "%s: %s", vm, csv_err_describe(rc));
	else
		mig_job_done_take(j, RPC_OK, json_pack("{s:s, s:b, s:i}", "name", vm, "ha", on, "priority",
						       mig_lease(j->m, vm) ? (int)mig_lease(j->m, vm)->priority : 0), "%s", "");
}

json_t *mig_ha_set(const struct mig_ask *a)
{
	const char *vm = mig_text(a->args, "name"), *prio = mig_text(a->args, "priority");
	json_t *reply;

	if (!mig_settled(a->m))
		return rpc_reply_error(RPC_NO_QUORUM, "the leases are not settled yet; again in a moment");
	if (!mig_lease(a->m, vm))
		return rpc_reply_error(RPC_NOT_FOUND, "%s: no such VM; see: csvctl vm list", vm);
	if (*prio && (strspn(prio, "0123456789") != strlen(prio) || atoi(prio) > 255))
		return rpc_reply_error(RPC_USAGE, "--priority %s: must be a number from 0 to 255", prio);
	if (a->dry_run) {
		reply = rpc_reply_new("ha");
		rpc_reply_add_take(reply, json_pack("{s:s, s:O}", "name", vm, "ha", json_object_get(a->args, "ha")));
		return reply;
	}
	return mig_job_start(a, "ha", vm, set_job);
}
