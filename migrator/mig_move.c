/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_move.c - live migrations: intent, the agents do it (hvhost/vmsm.h), what became of it is read from the lease.
 *
 *	migration/TXID	{"id", "vm", "from", "to", "state": "active|completed|failed|cancelled", "step", "percent", "total_ms", "pause_ms",
 *			 "steps": [...], "reason", "began_real_ms"}
 *
 * Invariants
 *  MV1 The lease decides what became of a migration, never a message: RUNNING(target) without this txid, or moved, is success.
 *  MV4 A migration is known from when it is asked for: queued, active, then completed, failed or cancelled; and it is over only when its txid is.
 *  MV2 No node takes part in more than cfg.parallel migrations at once; the others queue.
 *  MV3 Nothing here stops a VM: what cannot be done leaves it where it is.
 *
 * One thread.
 */
#include "migrator/mig_work.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define QUEUE_NS (600 * NS_PER_SEC)
#define MOVE_MS 600000u
#define FIGURES_NS (5 * NS_PER_SEC)
#define SILENT_NS (5 * NS_PER_SEC)
#define CANCEL_NS (15 * NS_PER_SEC)

static void key_of(char key[static MIG_KEY_MAX], uint64_t txid)
{
	snprintf(key, MIG_KEY_MAX, "migration/%016" PRIx64, txid);
}

static bool is_active(const json_t *v)
{
	return !strcmp(mig_text(v, "state"), "active");
}

static bool is_queued(const json_t *v)
{
	return !strcmp(mig_text(v, "state"), "queued");
}

static void put(struct mig *m, uint64_t txid, const char *key_, json_t *value_take)
{
	char key[MIG_KEY_MAX];
	json_t *v;

	key_of(key, txid);
	v = json_deep_copy(mig_item_get(m, key));
	if (v)
		json_object_set(v, key_, value_take);
	if (v && !json_equal(v, (json_t *)mig_item_get(m, key)))
		mig_item_put_take(m, key, v);
	else
		json_decref(v);
	json_decref(value_take);
}

/* ---- news of the agents ---------------------------------------------------------------------------------------------------------------------- */

static void copy_news(json_t *v, const json_t *d)
{
	static const char *const keys[] = { "step", "percent", "remaining_bytes", "total_ms", "pause_ms", "steps", "stop_boot_ns", "resume_boot_ns",
					    "passes", "needed_pause_ms", "pause_limit_ms", "throttle_percent", "policy" };
	json_t *x;

	for (size_t i = is_active(v) ? 0 : 2; i < ARRAY_SIZE(keys); i++) {	/* step and percent of one that is over are known */
		x = json_object_get(d, keys[i]);
		if (!x || json_is_null(x) || (json_is_array(x) && json_array_size(x) < json_array_size(json_object_get(v, keys[i]))))
			continue;
		if (json_is_number(x) && !strncmp(keys[i] + strlen(keys[i]) - 3, "_ms", 3) && json_number_value(x) <= 0)
			continue;
		if (json_is_real(x))
			json_object_set_new(v, keys[i], json_integer((json_int_t)(json_real_value(x) + 0.5)));
		else
			json_object_set(v, keys[i], x);
	}
	if (*mig_text(d, "reason"))
		json_object_set(v, "reason", json_object_get(d, "reason"));
}

void mig_move_news(struct mig *m, const json_t *d)
{
	uint64_t txid = mig_hex_get(d, "txid");
	char key[MIG_KEY_MAX];
	const json_t *old;
	json_t *v;

	key_of(key, txid);
	old = mig_item_get(m, key);
	if (!txid || !old)
		return;
	v = json_deep_copy(old);
	copy_news(v, d);
	/* "completed" is the agents' word for their part; the lease has the last one. */
	if (*mig_text(d, "status") && strcmp(mig_text(d, "status"), "active"))
		json_object_set(v, "said", json_object_get(d, "status"));
	if (!json_equal(v, (json_t *)old))
		mig_item_put_take(m, key, v);
	else
		json_decref(v);
}

static void finish(struct mig *m, uint64_t txid, const char *state, const char *reason)
{
	char key[MIG_KEY_MAX];
	json_t *v;

	key_of(key, txid);
	if (!mig_item_get(m, key))
		return;
	v = json_deep_copy(mig_item_get(m, key));
	json_object_set_new(v, "state", json_string(state));
	if (*reason && !*mig_text(v, "reason"))
		json_object_set_new(v, "reason", json_string(reason));
	if (!strcmp(state, "completed")) {
		json_object_set_new(v, "percent", json_integer(100));
		json_object_set_new(v, "step", json_integer(7));
	}
	if (!mig_int(v, "total_ms"))
		json_object_set_new(v, "total_ms", json_integer((json_int_t)(clock_real_ns(m->env->clock) / NS_PER_MS) - mig_int(v, "began_real_ms")));
	mig_item_put_take(m, key, v);
}

/* ---- one at a time ------------------------------------------------------------------------------------------------------------------------------ */

struct busy { const struct mig *m; uint32_t a, b; const char *self; unsigned n; };

static bool count_busy(void *arg, const char *key, const json_t *v)
{
	struct busy *b = arg;
	uint32_t from = mig_node_by_name(b->m, mig_text(v, "from")), to = mig_node_by_name(b->m, mig_text(v, "to"));

	b->n += is_active(v) && strcmp(key, b->self) && (from == b->a || from == b->b || to == b->a || to == b->b);
	return true;
}

static bool must_queue(const struct mig *m, uint32_t a, uint32_t b)
{
	struct busy c = { m, a, b, "", 0 };

	mig_items_each(m, "migration/", count_busy, &c);
	return c.n >= m->cfg.parallel;
}

/* ---- doing it --------------------------------------------------------------------------------------------------------------------------------------- */

static enum rpc_code fail(char *ret_text, size_t size, enum rpc_code code, const char *vm, const char *why)
{
	snprintf(ret_text, size, "%s: %s", vm, why);
	return code;
}

/* May it begin?  RPC_OK, or why not. */
static enum rpc_code check(struct mig *m, const char *vm, uint32_t to, char *ret_text, size_t size)
{
	const struct lease *l = mig_lease(m, vm);
	const json_t *th = json_object_get(mig_host_of(m, to), "host");
	const char *no, *accel;

	if (!mig_settled(m))
		return fail(ret_text, size, RPC_NO_QUORUM, vm, "the leases are not settled; again in a moment");
	if (!l)
		return fail(ret_text, size, RPC_NOT_FOUND, vm, "no such VM; see: csvctl vm list");
	if (l->state != LEASE_RUNNING)
		return fail(ret_text, size, RPC_CONFLICT, vm, l->state == LEASE_FREE ? "does not run; start it with --node instead" :
			    "is not running quietly just now; see: csvctl vm show");
	if (l->owner == to)
		return fail(ret_text, size, RPC_CONFLICT, vm, "is there already");
	if (!mig_is_member(m, l->owner) || !mig_host_ready(m, l->owner))
		return fail(ret_text, size, RPC_CONFLICT, vm, "its node's hvhostd is away");
	no = mig_place_refuses(m, to, vm);
	if (no) {
		snprintf(ret_text, size, "%s: %s %s", vm, mig_node_name(m, to), no);
		return RPC_CONFLICT;
	}
	accel = mig_text(mig_vm_on(m, l->owner, vm), "accel");
	if (!strncmp(accel, "kvm", 3) && !strcmp(mig_text(th, "accel"), "tcg")) {
		snprintf(ret_text, size, "%s: runs with KVM, and %s has none: %s", vm, mig_node_name(m, to), mig_text(th, "accel_reason"));
		return RPC_UNSUPPORTED;
	}
	return RPC_OK;
}

static int intend(struct mig *m, const char *vm, uint32_t to, uint64_t txid)
{
	const struct lease *l = mig_lease(m, vm);
	struct lease_cas cas;

	if (!l)
		return -ENOENT;
	mig_cas(l, LEASE_INTENT, &cas);
	cas.node = to;
	cas.node_inc = mig_leases_incarnation(m, to);
	cas.txid = txid;
	return mig_propose(m, &cas);
}

static void queue_item(struct mig *m, uint64_t txid, const char *vm, uint32_t from, uint32_t to)
{
	char key[MIG_KEY_MAX];

	key_of(key, txid);
	if (mig_item_get(m, key))
		return;
	mig_item_put_take(m, key, json_pack("{s:o, s:s, s:s, s:s, s:s, s:i, s:i, s:n, s:n, s:[], s:s, s:I, s:i}", "id", mig_hex(txid), "vm", vm, "from",
					    mig_node_name(m, from), "to", mig_node_name(m, to), "state", "queued", "step", 0, "percent", 0,
					    "total_ms", "pause_ms", "steps", "reason", "", "began_real_ms",
					    (json_int_t)(clock_real_ns(m->env->clock) / NS_PER_MS), "by", (int)m->cfg.self));
}

/* The owner's own replica may see the intent a moment later than ours. */
static int tell_owner(struct mig *m, const char *vm, uint32_t owner, uint32_t to, uint64_t txid, struct mig_answer *ret)
{
	uint64_t end = mig_now(m) + 5 * NS_PER_SEC, view_end = mig_now(m) + 20 * NS_PER_SEC;
	int rc;

	for (;;) {
		rc = mig_call(m, owner, "migrate", json_pack("{s:s, s:o, s:i, s:i, s:i, s:i, s:I, s:i}", "vm", vm, "txid", mig_hex(txid), "to", (int)to,
							     "downtime_ms", (int)m->cfg.downtime_ms, "pause_budget_ms",
							     (int)m->cfg.pause_budget_ms, "throttle_percent", (int)m->cfg.throttle_percent, "bandwidth_bps",
							     (json_int_t)m->cfg.bandwidth_bps, "timeout_ms", (int)MOVE_MS), 15000, ret);
		/* A view change in between: the third node's trouble is no reason to give it up. */
		if (rc == -ECONNRESET && mig_now(m) < view_end) {
			mig_wait_change(m, mig_now(m) + 200 * NS_PER_MS);
			continue;
		}
		if (rc || ret->code != RPC_CONFLICT || mig_now(m) > end)
			return rc;
		mig_answer_done(ret);
		mig_wait_change(m, mig_now(m) + 50 * NS_PER_MS);
	}
}

/* RPC_ACCEPTED: not decided yet. */
static enum rpc_code outcome(struct mig *m, const char *vm, uint32_t to, uint64_t txid)
{
	const struct lease *l = mig_lease(m, vm);

	if (!mig_settled(m))
		return RPC_ACCEPTED;
	if (!l)
		return RPC_FAILED;
	if (l->state == LEASE_RUNNING && l->owner == to && l->txid == txid && l->flags & LEASE_MOVED)
		return RPC_OK;
	if (l->txid == txid)
		return RPC_ACCEPTED;
	/* MV1; but what a failover began there is another life of the guest */
	return l->state == LEASE_RUNNING && l->owner == to && !mig_seen_begun(m, vm, l->epoch) ? RPC_OK : RPC_FAILED;
}

static void await_figures(struct mig *m, const char *key)
{
	uint64_t end = mig_now(m) + FIGURES_NS;

	while (!json_is_integer(json_object_get(mig_item_get(m, key), "pause_ms")) && mig_now(m) < end)
		mig_wait_change(m, end);
}

static enum rpc_code await(struct mig_job *j, const char *vm, uint32_t from, uint32_t to, uint64_t txid)
{
	struct mig *m = j->m;
	uint64_t end = mig_now(m) + (MOVE_MS + 30000ull) * NS_PER_MS;
	enum rpc_code code;
	char key[MIG_KEY_MAX];
	const json_t *v;

	key_of(key, txid);
	while ((code = outcome(m, vm, to, txid)) == RPC_ACCEPTED && mig_now(m) < end) {
		v = mig_item_get(m, key);
		mig_job_step(j, csv_min((unsigned)mig_int(v, "percent"), 99u), "%s -> %s, step %d%s%s", mig_node_name(m, from), mig_node_name(m, to),
			     (int)mig_int(v, "step"), *mig_text(v, "policy") ? ": " : "", mig_text(v, "policy"));
		mig_wait_change(m, mig_now(m) + NS_PER_SEC);
	}
	if (code == RPC_OK)
		await_figures(m, key);
	return code == RPC_ACCEPTED ? RPC_TIMEOUT : code;
}

static void failed_text(struct mig *m, const char *vm, uint32_t from, const char *why, char *ret_text, size_t size)
{
	const struct lease *l = mig_lease(m, vm);

	if (l && l->state == LEASE_RUNNING && l->owner == from)
		snprintf(ret_text, size, "%s: not migrated, it runs on on %s%s%s", vm, mig_node_name(m, from), *why ? ": " : "", why);
	else
		snprintf(ret_text, size, "%s: not migrated, and it does not run on %s any more; see: csvctl vm show %s%s%s", vm, mig_node_name(m, from), vm,
			 *why ? ": " : "", why);
}

/* A migration that a job here sees to, for as long as it does: its end is the job's to write down, whatever the lease says already. */
struct watched { struct cds_list_head node; uint64_t txid; };

static bool is_watched(const struct mig *m, uint64_t txid)
{
	const struct watched *w;

	cds_list_for_each_entry(w, &m->moves, node)
		if (w->txid == txid)
			return true;
	return false;
}

static enum rpc_code run_watched(struct mig_job *j, const char *vm, uint32_t to, uint64_t txid, char *ret_text, size_t size, json_t **ret_result)
{
	struct mig *m = j->m;
	uint64_t queue_end = mig_now(m) + QUEUE_NS;
	bool cancelled;
	struct mig_answer a = { 0 };
	uint32_t from;
	enum rpc_code code;
	char key[MIG_KEY_MAX];
	int rc;

	*ret_result = NULL;
	ret_text[0] = 0;
	key_of(key, txid);
	for (;;) {
		while (!mig_settled(m) && mig_now(m) < queue_end)
			mig_wait_change(m, mig_now(m) + NS_PER_SEC);
		code = check(m, vm, to, ret_text, size);
		cancelled = mig_item_get(m, key) && !is_queued(mig_item_get(m, key));
		if (cancelled)
			code = fail(ret_text, size, RPC_CANCELLED, vm, "its migration was cancelled before it began");
		if (code) {
			finish(m, txid, cancelled ? "cancelled" : "failed", ret_text);
			return code;
		}
		from = mig_lease(m, vm)->owner;
		queue_item(m, txid, vm, from, to);
		rc = -EBUSY;
		if (mig_lease(m, vm)->txid || leasedb_is_open(mig_leases_db(m), vm)) {
			mig_job_step(j, 0, "waits: something else changes %s just now", vm);
		} else if (must_queue(m, from, to)) {
			mig_job_step(j, 0, "waits for other migrations of %s or %s", mig_node_name(m, from), mig_node_name(m, to));
		} else {
			put(m, txid, "began_real_ms", json_integer((json_int_t)(clock_real_ns(m->env->clock) / NS_PER_MS)));
			put(m, txid, "state", json_string("active"));
			rc = intend(m, vm, to, txid);
			if (rc && is_active(mig_item_get(m, key)))
				put(m, txid, "state", json_string("queued"));
		}
		if (!rc)
			break;
		if ((rc != -EBUSY && rc != -ESTALE && rc != -ECANCELED && rc != -EAGAIN && rc != -CSV_E_NOQUORUM) || mig_now(m) > queue_end) {
			snprintf(ret_text, size, "%s: the intent was refused: %s", vm, csv_err_describe(rc));
			finish(m, txid, "failed", ret_text);
			return rpc_code_of(rc);
		}
		mig_wait_change(m, mig_now(m) + 200 * NS_PER_MS);
	}
	rc = tell_owner(m, vm, from, to, txid, &a);
	if (rc || (a.code && a.code != RPC_ACCEPTED)) {
		snprintf(ret_text, size, "%s: %s", vm, rc ? csv_err_describe(rc) : a.message);
		mig_agent_cancel(m, vm, from, txid);
	}
	code = await(j, vm, from, to, txid);
	cancelled = json_is_true(json_object_get(mig_item_get(m, key), "cancel"));
	if (code == RPC_FAILED && cancelled)
		code = RPC_CANCELLED;
	if (code != RPC_TIMEOUT)	/* MV4: mig_moves_look() does it when it is over */
		finish(m, txid, !code ? "completed" : cancelled ? "cancelled" : "failed", code ? ret_text : "");
	if (code && !ret_text[0]) {
		failed_text(m, vm, from, mig_text(mig_item_get(m, key), "reason"), ret_text, size);
	} else if (code && a.code && a.code != RPC_ACCEPTED) {
		code = (enum rpc_code)a.code;
	}
	mig_answer_done(&a);
	*ret_result = json_incref((json_t *)mig_item_get(m, key));
	return code;
}

enum rpc_code mig_move_run(struct mig_job *j, const char *vm, uint32_t to, char *ret_text, size_t size, json_t **ret_result)
{
	struct watched w = { .txid = mig_id(j->m) };
	enum rpc_code code;

	cds_list_add(&w.node, &j->m->moves);
	code = run_watched(j, vm, to, w.txid, ret_text, size, ret_result);
	cds_list_del(&w.node);
	return code;
}

void mig_agent_cancel(struct mig *m, const char *vm, uint32_t owner, uint64_t txid)
{
	struct mig_answer a;

	mig_call(m, owner, "cancel", json_pack("{s:s, s:o}", "vm", vm, "txid", mig_hex(txid)), 5000, &a);
	mig_answer_done(&a);
}

/* ---- verbs ------------------------------------------------------------------------------------------------------------------------------------------ */

static void move_job(struct mig_job *j)
{
	const char *vm = mig_text(j->args, "vm"), *node = mig_text(j->args, "to");
	uint32_t to = *node ? mig_node_by_name(j->m, node) : 0;
	const struct lease *l = mig_lease(j->m, vm);
	json_t *result = NULL;
	char text[600];
	enum rpc_code code;

	if (!to)
		to = mig_place(j->m, vm, 0, l ? l->owner : 0, text, sizeof(text));
	code = mig_move_run(j, vm, to, text, sizeof(text), &result);
	mig_job_done_take(j, code, result, "%s", text);
}

json_t *mig_move_start(const struct mig_ask *a)
{
	struct mig *m = a->m;
	const char *vm = mig_text(a->args, "vm"), *node = mig_text(a->args, "to");
	const struct lease *l = mig_lease(m, vm);
	uint32_t to = *node ? mig_node_by_name(m, node) : 0;
	enum rpc_code code;
	json_t *reply, *plan;
	char text[600];

	if (*node && !to)
		return rpc_reply_error(RPC_NOT_FOUND, "%s: no such node in corosync's node list; see: csvctl node list", node);
	if (!to && l && mig_settled(m)) {
		to = mig_place(m, vm, 0, l->owner, text, sizeof(text));
		if (!to)
			return rpc_reply_error(RPC_CONFLICT, "%s: no other node can have it: %s", vm, text);
	}
	code = check(m, vm, to, text, sizeof(text));
	if (code)
		return rpc_reply_error(code, "%s", text);
	if (!a->dry_run)
		return mig_job_start(a, "migration", vm, move_job);
	plan = mig_plan_predict(m, vm, to, text, sizeof(text), &code);
	if (!plan)
		return rpc_reply_error(code, "%s", text);
	reply = rpc_reply_new("migration");
	rpc_reply_add_take(reply, plan);
	return reply;
}

static bool add(void *arg, const char *key, const json_t *v)
{
	(void)key;
	rpc_reply_add_take(arg, json_incref((json_t *)v));
	return true;
}

static int older(const void *a, const void *b)
{
	json_int_t x = mig_int(*(json_t *const *)a, "began_real_ms"), y = mig_int(*(json_t *const *)b, "began_real_ms");

	return x < y ? -1 : x > y;
}

json_t *mig_move_list(struct mig *m, const json_t *args)
{
	json_t *reply = rpc_reply_new("migration"), *items, *sorted, **list;
	size_t n;

	(void)args;
	mig_items_each(m, "migration/", add, reply);
	items = json_object_get(reply, "items");
	n = json_array_size(items);
	list = calloc(n + 1, sizeof(*list));
	sorted = json_array();
	for (size_t i = 0; list && i < n; i++)
		list[i] = json_array_get(items, i);
	if (list)
		qsort(list, n, sizeof(*list), older);
	for (size_t i = 0; list && i < n; i++)
		json_array_append(sorted, list[i]);
	free(list);
	json_object_set_new(reply, "items", sorted);
	return reply;
}

json_t *mig_move_show(struct mig *m, const json_t *args)
{
	char key[MIG_KEY_MAX];
	const json_t *v;
	json_t *reply;

	snprintf(key, sizeof(key), "migration/%.40s", mig_text(args, "id"));
	v = mig_item_get(m, key);
	if (!v)
		return rpc_reply_error(RPC_NOT_FOUND, "%s: no such migration; see: csvctl migration list", mig_text(args, "id"));
	reply = rpc_reply_new("migration");
	rpc_reply_add_take(reply, json_incref((json_t *)v));
	return reply;
}

struct find { const char *name; const json_t *found; };

static bool by_id_or_vm(void *arg, const char *key, const json_t *v)
{
	struct find *f = arg;

	if (!strcmp(key + strlen("migration/"), f->name) || (!strcmp(mig_text(v, "vm"), f->name) && (is_active(v) || is_queued(v))))
		f->found = v;
	return !f->found;
}

/* Of the migration's txid by its source's agent; one that is queued never begins. */
static json_t *cancel(struct mig *m, const json_t *item)
{
	uint64_t txid = mig_hex_get(item, "id"), end = mig_now(m) + CANCEL_NS;
	uint32_t to = mig_node_by_name(m, mig_text(item, "to"));
	char vm[LEASE_NAME_BYTES], key[MIG_KEY_MAX];
	const struct lease *l;
	struct mig_answer a;
	json_t *reply;
	int rc;

	snprintf(vm, sizeof(vm), "%s", mig_text(item, "vm"));
	key_of(key, txid);
	if (is_queued(item)) {
		finish(m, txid, "cancelled", "cancelled before it began");
	} else {
		l = mig_lease(m, vm);
		rc = l && l->txid == txid ? mig_call(m, l->owner, "cancel", json_pack("{s:s, s:o}", "vm", vm, "txid", mig_hex(txid)), 5000, &a) : -ENOENT;
		if (rc || a.code) {
			reply = rpc_reply_error(rc ? rc == -ENOENT ? RPC_CONFLICT : rpc_code_of(rc) : (enum rpc_code)a.code, "%s: not cancelled: %s", vm,
						rc == -ENOENT ? "it is over" : rc ? csv_err_describe(rc) : a.message);
			mig_answer_done(&a);
			return reply;
		}
		mig_answer_done(&a);
		put(m, txid, "cancel", json_true());
		/* Until the lease says so, and then until it stands in the list as well. */
		while ((outcome(m, vm, to, txid) == RPC_ACCEPTED || is_active(mig_item_get(m, key))) && mig_now(m) < end)
			mig_wait_change(m, end);
	}
	if (outcome(m, vm, to, txid) == RPC_OK)
		return rpc_reply_error(RPC_CONFLICT, "%s: too late: it was migrated", vm);
	reply = rpc_reply_new("migration");
	if (outcome(m, vm, to, txid) == RPC_ACCEPTED)
		rpc_reply_warn(reply, "%s: it is told to stop, and has not yet; see: csvctl migration list", vm);
	rpc_reply_add_take(reply, json_incref((json_t *)mig_item_get(m, key)));
	return reply;
}

json_t *mig_move_cancel(const struct mig_ask *a)
{
	struct mig *m = a->m;
	struct find f = { .name = mig_text(a->args, "id") };
	json_t *reply;

	if (!mig_settled(m))
		return rpc_reply_error(RPC_NO_QUORUM, "the leases are not settled; again in a moment");
	mig_items_each(m, "migration/", by_id_or_vm, &f);
	if (!f.found)
		return rpc_reply_error(RPC_NOT_FOUND, "%s: neither a migration nor a VM that is being migrated; see: csvctl migration list", f.name);
	if (!is_active(f.found) && !is_queued(f.found))
		return rpc_reply_error(RPC_CONFLICT, "%s: is over: %s", f.name, mig_text(f.found, "state"));
	if (!a->dry_run)
		return cancel(m, f.found);
	reply = rpc_reply_new("migration");
	rpc_reply_add_take(reply, json_incref((json_t *)f.found));
	return reply;
}

/* ---- the leader: migrations whose job went with an earlier leader (MC1) ------------------------------------------------------------------------------ */

struct orphans { struct mig *m; uint64_t txid[16]; char state[16][16]; unsigned n; };

static bool find_orphan(void *arg, const char *key, const json_t *v)
{
	struct orphans *o = arg;
	uint64_t txid = mig_hex_get(v, "id");
	uint32_t to = mig_node_by_name(o->m, mig_text(v, "to"));
	enum rpc_code code;

	(void)key;
	if (o->n == ARRAY_SIZE(o->txid) || is_watched(o->m, txid))
		return true;
	if (is_queued(v) && !mig_is_member(o->m, (uint32_t)mig_int(v, "by"))) {
		snprintf(o->state[o->n], sizeof(o->state[0]), "failed");
		o->txid[o->n++] = txid;
		return true;
	}
	if (!is_active(v) || (json_int_t)(clock_real_ns(o->m->env->clock) / NS_PER_MS) - mig_int(v, "began_real_ms") <
	    (json_int_t)((SILENT_NS + FIGURES_NS) / NS_PER_MS))
		return true;
	code = outcome(o->m, mig_text(v, "vm"), to, txid);
	if (code == RPC_ACCEPTED)
		return true;
	snprintf(o->state[o->n], sizeof(o->state[0]), "%s", !code ? "completed" : json_is_true(json_object_get(v, "cancel")) ? "cancelled" :
		 "failed");
	o->txid[o->n++] = txid;
	return true;
}

void mig_moves_look(struct mig *m)
{
	struct orphans o = { .m = m };

	mig_items_each(m, "migration/", find_orphan, &o);
	for (unsigned i = 0; i < o.n; i++)
		finish(m, o.txid[i], o.state[i], strcmp(o.state[i], "failed") ? "" : "the leader that saw to it was lost meanwhile");
}
