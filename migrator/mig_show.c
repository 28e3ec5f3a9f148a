/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_show.c - what the cluster knows of its VMs, and the table of verbs.
 *
 * One thread.
 */
#include "migrator/mig_work.h"

#include <errno.h>
#include <stdio.h>

#define SHOW_MS 3000u
#define TROUBLE_EVENTS 200u	/* so far back the last word about a VM is looked for */

/* ---- vm -------------------------------------------------------------------------------------------------------------------------------- */

/* It may run, and its QEMU does not: what was said of it last. */
static void add_trouble(struct mig *m, const struct lease *l, json_t *item)
{
	const char *qemu = mig_text(item, "qemu");

	if (l->state != LEASE_RUNNING || l->want != LEASE_WANT_RUN || lease_is_intent(l) || !*qemu || !strcmp(qemu, "running") ||
	    *mig_text(item, "reason"))
		return;
	if (*mig_text(mig_vm_on(m, l->owner, l->vm), "io_error")) {
		json_object_set_new(item, "reason", json_sprintf("its QEMU is %s: %s", qemu, mig_text(mig_vm_on(m, l->owner, l->vm), "io_error")));
		json_object_set_new(item, "command", json_string("csvctl volume list"));
		return;
	}
	for (unsigned back = 0; back < TROUBLE_EVENTS && mig_event_back(m, back); back++) {
		const json_t *e = mig_event_back(m, back)->value;

		if (strcmp(mig_text(e, "object"), l->vm) || !strcmp(mig_text(e, "level"), "info") ||
		    !strncmp(mig_text(e, "text"), "may run on ", 11))	/* mig_ha.c's, which says no more than we do */
			continue;
		json_object_set_new(item, "reason", json_sprintf("its QEMU is %s: %s", qemu, mig_text(e, "text")));
		json_object_set_new(item, "command", *mig_text(e, "command") ? json_string(mig_text(e, "command")) :
				    json_sprintf("csvctl event list --vm %s", l->vm));
		return;
	}
}

static json_t *item(struct mig *m, const struct lease *l)
{
	const json_t *v = mig_vm_on(m, l->owner, l->vm), *d = mig_def(m, l->vm);
	json_t *note = mig_lease_note(m, l);
	char why[400];
	json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:I, s:b, s:i, s:i, s:s, s:I, s:s, s:s}", "name", l->vm, "node",
			      l->state == LEASE_FREE ? "" : mig_node_name(m, l->owner), "state", lease_state_name((enum lease_state)l->state),
			      "want", lease_want_name((enum lease_want)l->want), "epoch", (json_int_t)l->epoch, "ha", (l->flags & LEASE_HA) != 0,
			      "priority", (int)l->priority, "config", (int)l->config, "qemu", mig_text(v, "qemu"), "memory_bytes",
			      mig_int(d, "memory_bytes"), "reason", *mig_text(note, "reason") ? mig_text(note, "reason") : mig_text(v, "reason"),
			      "command", *mig_text(note, "command") ? mig_text(note, "command") : mig_text(v, "command"));

	json_decref(note);
	if (!json_object_get(d, "memory_bytes"))	/* its definition has not been told yet */
		json_object_set_new(o, "memory_bytes", json_null());
	add_trouble(m, l, o);
	if (!*mig_text(o, "reason") && mig_place_waits(m, l, why, sizeof(why))) {
		json_object_set_new(o, "reason", json_sprintf("waits: no node can have it: %s", why));
		json_object_set_new(o, "command", json_string("csvctl node list"));
	}
	if (l->state > LEASE_FREE && l->state != LEASE_BLOCKED && mig_node_is_away(m, l->owner)) {
		json_object_set_new(o, "reason", json_string("the migratord of its node ended: it runs on, unmanaged"));
		json_object_set_new(o, "command", json_sprintf("on %s: systemctl status migratord", mig_node_name(m, l->owner)));
	}
	return o;
}

json_t *mig_vm_item(struct mig *m, const char *vm)
{
	const struct lease *l = mig_lease(m, vm);

	return l ? item(m, l) : json_pack("{s:s, s:s}", "name", vm, "state", "UNKNOWN");
}

static json_t *unknown(struct mig *m)
{
	if (!m->view)
		return rpc_reply_error(RPC_NO_QUORUM, "no quorum: who runs what is not known; see: csvctl cluster status");
	return rpc_reply_error(RPC_NO_QUORUM, "the leases are not settled yet (a view change, or a cold start); again in a moment");
}

json_t *mig_vm_list(struct mig *m, const json_t *args)
{
	struct leasedb *db = mig_leases_db(m);
	json_t *reply;
	uint32_t from = (uint32_t)csv_max(mig_int(args, "from"), (json_int_t)0), i;

	if (!mig_settled(m))
		return unknown(m);
	reply = rpc_reply_new("vm");
	for (i = from; i < leasedb_count(db) && i - from < RPC_PAGE_ITEMS; i++)
		rpc_reply_add_take(reply, item(m, leasedb_at(db, i)));
	if (i < leasedb_count(db))
		json_object_set_new(reply, "next", json_integer(i));
	else
		mig_known_tell(m, reply, true);
	return reply;
}

/* With what its agent knows: definition, console, QEMU. */
json_t *mig_vm_show(const struct mig_ask *a)
{
	struct mig *m = a->m;
	const char *vm = mig_text(a->args, "name"), *key;
	const struct lease *l = mig_lease(m, vm);
	struct mig_answer ans;
	uint32_t host;
	json_t *reply, *o, *v;

	if (!mig_settled(m))
		return unknown(m);
	if (!l) {
		o = mig_known_past(m, vm);
		if (!o)
			return mig_known_refuse(m, vm);
		reply = rpc_reply_new("vm");
		rpc_reply_add_take(reply, o);
		mig_known_tell(m, reply, false);
		return reply;
	}
	o = item(m, l);
	json_object_set_new(o, "owner_incarnation", mig_hex(l->owner_inc));
	json_object_set_new(o, "peer", json_string(mig_node_name(m, l->peer)));
	json_object_set_new(o, "txid", l->txid ? mig_hex(l->txid) : json_string(""));
	json_object_set_new(o, "version", json_integer((json_int_t)l->version));
	json_object_set_new(o, "failures", json_integer(l->failures));
	host = l->owner && mig_host_ready(m, l->owner) ? l->owner : mig_any_host(m);
	reply = rpc_reply_new("vm");
	if (!mig_call(m, host, "vm.show", json_pack("{s:s, s:i}", "vm", vm, "config", 0), SHOW_MS, &ans) && !ans.code) {
		json_object_foreach(ans.data, key, v)
			if (strcmp(key, "vm") && strcmp(key, "want") && strcmp(key, "config"))
				json_object_set(o, strcmp(key, "qemu") ? key : "process", v);
	} else {
		rpc_reply_warn(reply, "%s: its definition cannot be read just now: %s", vm, ans.message);
	}
	mig_answer_done(&ans);
	rpc_reply_add_take(reply, o);
	return reply;
}

json_t *mig_vm_console(struct mig *m, const json_t *args)
{
	const char *vm = mig_text(args, "name"), *path;
	const struct lease *l = mig_lease(m, vm);
	json_t *reply;

	if (!mig_settled(m))
		return unknown(m);
	if (!l)
		return rpc_reply_error(RPC_NOT_FOUND, "%s: no such VM; see: csvctl vm list", vm);
	if (l->state == LEASE_FREE)
		return rpc_reply_error(RPC_CONFLICT, "%s: does not run; start it: csvctl vm start %s", vm, vm);
	if (l->owner != m->cfg.self)
		return rpc_reply_error(RPC_CONFLICT, "%s: runs on %s; there: csvctl vm console %s", vm, mig_node_name(m, l->owner), vm);
	path = mig_text(mig_vm_on(m, m->cfg.self, vm), "console");
	if (!*path)
		return rpc_reply_error(RPC_CONFLICT, "%s: has no console just now", vm);
	reply = rpc_reply_new("vm");
	rpc_reply_add_take(reply, json_pack("{s:s, s:s}", "name", vm, "path", path));
	return reply;
}

/* ---- the verbs ----------------------------------------------------------------------------------------------------------------------------- */

static json_t *ping(struct mig *m, const json_t *args)
{
	json_t *reply = rpc_reply_new("ha");

	(void)args;
	rpc_reply_add_take(reply, json_pack("{s:s, s:s, s:b, s:b, s:b}", "node", mig_node_name(m, m->cfg.self), "leader",
					    mig_node_name(m, mig_leader(m)), "quorate", m->view != NULL, "settled", mig_settled(m), "agent",
					    m->agent_ready));
	return reply;
}

mig_fn_here *mig_verb_here(const char *verb)
{
	static const struct { const char *verb; mig_fn_here *fn; } t[] = {
		{ "vm.list", mig_vm_list }, { "vm.console", mig_vm_console }, { "migration.list", mig_move_list },
		{ "migration.show", mig_move_show }, { "ha.status", mig_ha_status }, { "ha.ping", ping }, { "event.list", mig_event_list },
		{ "job.show", mig_job_show }, { "job.list", mig_job_list }, { "node.status", mig_node_status },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		if (!strcmp(verb, t[i].verb))
			return t[i].fn;
	return NULL;
}

mig_fn_leader *mig_verb_of_leader(const char *verb)
{
	static const struct { const char *verb; mig_fn_leader *fn; } t[] = {
		{ "vm.create", mig_vm_create }, { "vm.start", mig_vm_start }, { "vm.stop", mig_vm_stop }, { "vm.delete", mig_vm_delete },
		{ "vm.show", mig_vm_show }, { "migration.start", mig_move_start }, { "migration.plan", mig_move_plan },
		{ "migration.cancel", mig_move_cancel }, { "ha.set", mig_ha_set },
		{ "node.drain", mig_node_drain }, { "node.resume", mig_node_resume }, { "node.shutdown", mig_node_shutdown },
		{ "node.confirm-fenced", mig_proof_confirm },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		if (!strcmp(verb, t[i].verb))
			return t[i].fn;
	return NULL;
}
