/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_cmd.c - what migratord says: views, leases, letters; answered at once.  Commands that wait are in hvhostd_vmcmd.c.
 *
 * What a membership change does: a "view" makes all leases unknown (every VM is told UNSETTLED); they come anew with "leases".
 * A break of the line does the same.  Proposals that were open then: their records of a newer ring supersede them; in the same ring
 * migratord names them in "open", and such a VM does nothing before the outcome.
 */
#include "hvhost/hvhostd_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrator/lease_json.h"

struct cmd { struct hvd *d; uint64_t conn; const struct agent_msg *m; };

static void reply(const struct cmd *c, int code, const char *message, json_t *data_take)
{
	hvd_line_reply(c->d, c->conn, c->m->id, code, message, data_take);
}

static void refuse(const struct cmd *c, const struct csv_err *err)
{
	reply(c, rpc_code_of(err->code), err->text, NULL);
}

/* ---- what is here ------------------------------------------------------------------------------------------------------- */

static void json_set(json_t *o, const char *key, json_t *v_take)
{
	if (json_object_set_new(o, key, v_take))
		csv_panic("out of memory");
}

json_t *hvd_vm_json(struct hvd *d, struct hvd_vm *v, bool inventory)
{
	struct vm_qemu *q = vm_current(v->vm);
	struct leasedb_item item;
	char path[512] = "";
	bool there = false;
	json_t *o;

	(void)d;
	if (inventory && (vm_inventory(v->vm, &item, &there) || !there))
		inventory = false;
	o = vm_to_json(v->vm, inventory ? &item : NULL);
	if (q && q->host)
		inst_path(q->host, "console", path, sizeof(path));
	json_set(o, "console", json_string(path));
	return o;
}

json_t *hvd_host_json(struct hvd *d)
{
	uint64_t used = 0;
	json_t *missing = json_array();
	char list[160], *save = NULL;
	struct hvd_vm *v, *tmp;

	HASH_ITER(hh, d->vms, v, tmp)
		if (vm_current(v->vm))
			used += vm_current(v->vm)->memory_bytes;
	snprintf(list, sizeof(list), "%s", d->missing);
	for (char *w = strtok_r(list, " ", &save); w; w = strtok_r(NULL, " ", &save))
		json_array_append_new(missing, json_string(w));
	return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:i, s:o, s:s, s:o, s:s, s:s, s:s, s:s, s:s}", "accel", accel_text(&d->accel), "accel_reason", d->accel.reason,
			 "qemu", d->qemu_version, "machine", VMCONF_MACHINE, "memory_bytes", (json_int_t)d->memory_bytes, "memory_free_bytes",
			 (json_int_t)(used < d->memory_bytes ? d->memory_bytes - used : 0), "cpus", (int)d->cpus, "missing", missing,
			 "qemu_reason", d->qemu_reason, "agent_incarnation", agent_u64(d->own_inc), "volume",
			 mount_is_place(d->mount.state) ? d->opt.volume : "", "mount", d->opt.volume, "mount_state", mount_state_name(d->mount.state),
			 "mount_reason", d->mount.reason, "mount_command", d->mount.command);
}

/* NULL: a QEMU has not been looked at yet, its inventory would be a guess. */
static json_t *inventory(struct hvd *d)
{
	json_t *vms = json_array();
	struct hvd_vm *v, *tmp;

	HASH_ITER(hh, d->vms, v, tmp) {
		if (vm_sm(v->vm)->qemu == VMSM_Q_UNKNOWN) {
			json_decref(vms);
			return NULL;
		}
		if (vm_current(v->vm) || vm_sm(v->vm)->ended)
			json_array_append_new(vms, hvd_vm_json(d, v, true));
	}
	return json_pack("{s:i, s:o, s:o}", "api", AGENT_API, "host", hvd_host_json(d), "vms", vms);
}

/* For hello: what is known, known or not. */
static json_t *present(struct hvd *d)
{
	json_t *vms = json_array();
	struct hvd_vm *v, *tmp;

	HASH_ITER(hh, d->vms, v, tmp)
		if (vm_current(v->vm))
			json_array_append_new(vms, hvd_vm_json(d, v, false));
	return json_pack("{s:i, s:o, s:o}", "api", AGENT_API, "host", hvd_host_json(d), "vms", vms);
}

/* ---- hello, view ---------------------------------------------------------------------------------------------------------- */

static void unsettle(struct hvd *d)
{
	struct hvd_vm *v, *tmp;

	d->settled = false;
	HASH_ITER(hh, d->vms, v, tmp) {
		v->open = false;
		vm_unsettled(v->vm);
	}
}

void hvd_disconnected(struct hvd *d)
{
	unsettle(d);
	d->have_ring = false;
}

static int hello_take(const struct cmd *c, struct csv_err *err)
{
	struct hvd *d = c->d;
	const json_t *list = json_object_get(c->m->body, "addresses"), *v;
	int64_t api, nodeid;
	uint64_t inc = 0;
	const char *node;
	struct hvd_vm *vm, *tmp;
	size_t i;
	int rc = agent_int(c->m->body, "api", 1, INT32_MAX, &api, err);

	if (!rc && api != AGENT_API)
		rc = csv_err_set(err, -CSV_E_UNSUPPORTED, "api %d is spoken here, not %d: install the same version of both", AGENT_API, (int)api);
	if (!rc)
		rc = agent_text(c->m->body, "node", sizeof(d->node) - 1, &node, err);
	if (!rc)
		rc = agent_int(c->m->body, "nodeid", 1, UINT32_MAX, &nodeid, err);
	if (!rc)
		rc = agent_u64_get(c->m->body, "incarnation", &inc, err);
	if (rc)
		return rc;
	if (d->nodeid && (d->nodeid != (uint32_t)nodeid || d->node_inc != inc)) {
		/* Another life of the node (it was purged): what is here belongs to the one before. */
		HASH_ITER(hh, d->vms, vm, tmp)
			if (vm_current(vm->vm))
				return csv_err_set(err, -EBUSY, "QEMUs of this node's earlier life are here (VM %s): end them before it comes "
						   "back with a new one", vm->name);
	}
	snprintf(d->node, sizeof(d->node), "%s", node);
	d->nodeid = (uint32_t)nodeid;
	d->node_inc = inc;
	d->host.n_addresses = 0;
	json_array_foreach(list, i, v)
		if (json_is_string(v) && json_string_length(v) < VM_ADDRESS_BYTES && d->host.n_addresses < VM_ADDRESSES_MAX)
			snprintf(d->host.address[d->host.n_addresses++], VM_ADDRESS_BYTES, "%s", json_string_value(v));
	if (d->host.conf.self != d->nodeid || d->host.conf.self_inc != inc) {
		d->host.conf.self = d->nodeid;
		d->host.conf.self_inc = inc;
		HASH_ITER(hh, d->vms, vm, tmp)
			vm_conf_set(vm->vm, &d->host.conf);
	}
	return 0;
}

static void on_hello(const struct cmd *c)
{
	struct csv_err err = CSV_ERR_INIT;

	if (hello_take(c, &err)) {
		refuse(c, &err);
		return;
	}
	unsettle(c->d);
	c->d->have_ring = false;
	c->d->said_hello = true;
	log_to(&c->d->log, LOG_L_NOTE, "migratord of %s (node %u) is there", c->d->node, c->d->nodeid);
	reply(c, RPC_OK, "", present(c->d));
}

static void on_view(const struct cmd *c)
{
	struct hvd *d = c->d;
	const json_t *list = json_object_get(c->m->body, "members"), *v;
	struct hvd_member member[HVD_MEMBERS_MAX];
	struct csv_err err = CSV_ERR_INIT;
	unsigned n = 0;
	size_t i;

	if (!c->m->has_ring) {
		reply(c, RPC_USAGE, "view: its ring is missing", NULL);
		return;
	}
	json_array_foreach(list, i, v) {
		int64_t id;

		if (n == HVD_MEMBERS_MAX || agent_int(v, "nodeid", 1, UINT32_MAX, &id, &err) ||
		    agent_u64_get(v, "incarnation", &member[n].inc, &err)) {
			reply(c, RPC_USAGE, n == HVD_MEMBERS_MAX ? "members: too many" : err.text, NULL);
			return;
		}
		member[n++].nodeid = (uint32_t)id;
	}
	if (!d->have_ring || d->ring != c->m->ring || !json_is_true(json_object_get(c->m->body, "quorate")))
		unsettle(d);
	d->ring = c->m->ring;
	d->have_ring = true;
	d->quorate = json_is_true(json_object_get(c->m->body, "quorate"));
	memcpy(d->member, member, sizeof(member));
	d->n_members = n;
	reply(c, RPC_OK, "", NULL);
}

/* ---- leases ------------------------------------------------------------------------------------------------------------------ */

static bool is_member(const struct hvd *d, uint32_t nodeid, uint64_t inc)
{
	for (unsigned i = 0; i < d->n_members; i++)
		if (d->member[i].nodeid == nodeid && d->member[i].inc == inc)
			return true;
	return false;
}

static bool peer_here(const struct hvd *d, const struct lease *l)
{
	return l->owner == d->nodeid && l->owner_inc == d->node_inc ? is_member(d, l->peer, l->peer_inc) : is_member(d, l->owner, l->owner_inc);
}

static void tell(struct hvd *d, struct hvd_vm *v)
{
	vm_record(v->vm, &v->rec, d->ring, v->open, peer_here(d, &v->rec));
}

static bool concerns(const struct hvd *d, const struct lease *l)
{
	return l->state != LEASE_NONE && (l->owner == d->nodeid || l->peer == d->nodeid);
}

static void take_record(struct hvd *d, const struct lease *l, bool open)
{
	struct hvd_vm *v = hvd_vm_find(d, l->vm);

	if (!v && (concerns(d, l) || open)) {
		v = hvd_vm_get(d, l->vm);
		if (!v)
			csv_panic("out of memory");
		vm_adopt_none(v->vm);		/* all that lives was found at start */
	}
	if (!v)
		return;
	v->rec = *l;
	v->have_rec = true;
	v->open = open;
	tell(d, v);
	if (!concerns(d, l) && !open && !vm_current(v->vm) && vm_idle(v->vm))
		hvd_vm_drop(d, v);
}

static bool named(const json_t *list, const char *vm)
{
	const json_t *v;
	size_t i;

	json_array_foreach(list, i, v)
		if (json_is_string(v) && !strcmp(json_string_value(v), vm))
			return true;
	return false;
}

static void on_leases(const struct cmd *c)
{
	struct hvd *d = c->d;
	const json_t *items = json_object_get(c->m->body, "items"), *open = json_object_get(c->m->body, "open"), *o;
	bool more = json_is_true(json_object_get(c->m->body, "more")), cold = json_is_true(json_object_get(c->m->body, "cold"));
	struct csv_err err = CSV_ERR_INIT;
	struct hvd_vm *v, *tmp;
	struct lease l;
	size_t i;

	if (!d->have_ring || !d->quorate) {
		reply(c, RPC_NO_QUORUM, "leases: there is no quorate view", NULL);
		return;
	}
	/* All or nothing: a part of them would make VMs look as if they had no lease. */
	json_array_foreach(items, i, o)
		if (lease_json_decode(o, &l, &err)) {
			csv_err_prefix(&err, "leases: item %zu", i);
			refuse(c, &err);
			return;
		}
	if (!d->settled || !d->leases_more)
		HASH_ITER(hh, d->vms, v, tmp)
			v->have_rec = false;
	d->settled = true;
	d->leases_more = more;
	json_array_foreach(items, i, o)
		if (!lease_json_decode(o, &l, &err))
			take_record(d, &l, named(open, l.vm));
	/* Cold: what is not in the list may yet be found to run here, and a kill would hide that it did. */
	if (!more && !cold) {
		HASH_ITER(hh, d->vms, v, tmp)
			if (!v->have_rec) {
				memset(&l, 0, sizeof(l));
				snprintf(l.vm, sizeof(l.vm), "%s", v->name);
				take_record(d, &l, named(open, v->name));
			}
	}
	reply(c, RPC_OK, "", NULL);
}

static void on_lease(const struct cmd *c)
{
	struct csv_err err = CSV_ERR_INIT;
	struct hvd_vm *v;
	struct lease l;

	if (!c->d->settled) {
		reply(c, RPC_CONFLICT, "lease: the leases of this view have not been told", NULL);
		return;
	}
	if (lease_json_decode(c->m->body, &l, &err)) {
		refuse(c, &err);
		return;
	}
	v = hvd_vm_find(c->d, l.vm);
	/* Of our own proposal's record: the outcome follows, and until then it is open. */
	take_record(c->d, &l, v && v->open);
	reply(c, RPC_OK, "", NULL);
}

static void on_outcome(const struct cmd *c)
{
	const char *vm, *result, *message = json_string_value(json_object_get(c->m->body, "message"));
	struct csv_err err = CSV_ERR_INIT;
	struct hvd_vm *v;
	int64_t number;

	if (agent_int(c->m->body, "proposal", 0, INT64_MAX, &number, &err) || agent_text(c->m->body, "vm", LEASE_NAME_BYTES - 1, &vm, &err) ||
	    agent_text(c->m->body, "result", 16, &result, &err)) {
		refuse(c, &err);
		return;
	}
	v = hvd_vm_find(c->d, vm);
	if (v && !number && v->open) {
		v->open = false;
		if (c->d->settled)
			tell(c->d, v);
	} else if (v && number && (uint64_t)number == v->proposal) {
		v->proposal = 0;
		log_to(&c->d->log, LOG_L_DEBUG, "%s: proposal %lld: %s%s%s", v->name, (long long)number, result, message ? ": " : "",
		       message ? message : "");
		vm_outcome(v->vm, !strcmp(result, "committed") ? 0 : !strcmp(result, "refused") ? -EPERM : -ECANCELED);
	}
	reply(c, RPC_OK, "", NULL);
}

/* ---- the rest ----------------------------------------------------------------------------------------------------------------- */

static void on_peer(const struct cmd *c)
{
	const json_t *body = json_object_get(c->m->body, "body");
	struct csv_err err = CSV_ERR_INIT;
	struct hvd_vm *v;
	uint64_t txid;
	const char *vm;

	if (agent_text(c->m->body, "vm", LEASE_NAME_BYTES - 1, &vm, &err) || agent_u64_get(c->m->body, "txid", &txid, &err)) {
		refuse(c, &err);
		return;
	}
	v = hvd_vm_find(c->d, vm);
	if (v && json_is_object(body))
		vm_heard(v->vm, txid, body);
	reply(c, RPC_OK, "", NULL);
}

static struct hvd_vm *owned(const struct cmd *c, uint64_t *ret_txid)
{
	struct csv_err err = CSV_ERR_INIT;
	struct hvd_vm *v;
	const char *vm;

	if (agent_text(c->m->body, "vm", LEASE_NAME_BYTES - 1, &vm, &err) || agent_u64_get(c->m->body, "txid", ret_txid, &err)) {
		refuse(c, &err);
		return NULL;
	}
	v = hvd_vm_find(c->d, vm);
	if (!v || !vm_current(v->vm) || !vm_current(v->vm)->mark.bound) {
		reply(c, RPC_NOT_FOUND, "the VM does not run on this node", NULL);
		return NULL;
	}
	return v;
}

static void on_migrate(const struct cmd *c)
{
	int64_t downtime = 0, budget = 0, throttle = 0, timeout = 0, bandwidth = 0;
	struct vm_move_params p;
	struct csv_err err = CSV_ERR_INIT;
	char text[400];
	uint64_t txid;
	struct hvd_vm *v;

	if (agent_int_or(c->m->body, "downtime_ms", 0, 60000, 0, &downtime, &err) ||
	    agent_int_or(c->m->body, "pause_budget_ms", 0, 60000, 0, &budget, &err) ||
	    agent_int_or(c->m->body, "throttle_percent", 0, 99, 0, &throttle, &err) ||
	    agent_int_or(c->m->body, "timeout_ms", 0, 86400000, 0, &timeout, &err) ||
	    agent_int_or(c->m->body, "bandwidth_bps", 0, INT64_MAX / 2, 0, &bandwidth, &err)) {
		refuse(c, &err);
		return;
	}
	v = owned(c, &txid);
	if (!v)
		return;
	if (*c->d->qemu_reason) {
		snprintf(text, sizeof(text), "%s: %s", c->d->node, c->d->qemu_reason);
		reply(c, RPC_UNSUPPORTED, text, NULL);
		return;
	}
	if (*c->d->missing) {
		snprintf(text, sizeof(text), "QEMU %s on %s lacks %s: install QEMU 7.2 or newer", c->d->qemu_version, c->d->node, c->d->missing);
		reply(c, RPC_UNSUPPORTED, text, NULL);
		return;
	}
	p = (struct vm_move_params){ (unsigned)downtime, (unsigned)budget, (unsigned)throttle, (unsigned)timeout, (uint64_t)bandwidth };
	vm_migration_params(v->vm, txid, &p);
	reply(c, RPC_ACCEPTED, "", NULL);
}

static void on_cancel(const struct cmd *c)
{
	uint64_t txid;
	struct hvd_vm *v = owned(c, &txid);

	if (!v)
		return;
	if (vm_sm(v->vm)->rec.txid != txid) {
		reply(c, RPC_NOT_FOUND, "there is no such migration of it here", NULL);
	} else if (vmsm_migration_step(vm_sm(v->vm)) > 3) {
		reply(c, RPC_CONFLICT, "the migration is past its switch-over and cannot be cancelled", NULL);
	} else {
		vm_cancel(v->vm, txid);
		reply(c, RPC_OK, "", NULL);
	}
}

static void on_inventory(const struct cmd *c)
{
	json_t *o = inventory(c->d);

	if (o)
		reply(c, RPC_OK, "", o);
	else
		reply(c, RPC_CONFLICT, "QEMUs that were found again have not answered yet", NULL);
}

static void on_storage_ok(const struct cmd *c)
{
	struct hvd_vm *v, *tmp;

	HASH_ITER(hh, c->d->vms, v, tmp)
		vm_storage_ok(v->vm);
	reply(c, RPC_OK, "", NULL);
}

static void on_kill(const struct cmd *c)
{
	struct csv_err err = CSV_ERR_INIT;
	struct hvd_vm *v;
	const char *vm;

	if (agent_text(c->m->body, "vm", LEASE_NAME_BYTES - 1, &vm, &err)) {
		refuse(c, &err);
		return;
	}
	v = hvd_vm_find(c->d, vm);
	if (v && vm_kill(v->vm))
		reply(c, RPC_OK, "", NULL);
	else
		reply(c, RPC_NOT_FOUND, "the VM does not run on this node", NULL);
}

static void on_quit(const struct cmd *c)
{
	reply(c, RPC_OK, "", NULL);
	log_to(&c->d->log, LOG_L_NOTE, "migratord asks for the end; QEMUs stay");
	c->d->stopping = true;
	loop_stop(c->d->loop);
}

void hvd_command(struct hvd *d, uint64_t conn, const struct agent_msg *m)
{
	static const struct { const char *name; void (*fn)(const struct cmd *c); bool ring; } table[] = {
		{ "hello", on_hello, false }, { "view", on_view, true }, { "leases", on_leases, true }, { "lease", on_lease, true },
		{ "outcome", on_outcome, true }, { "peer", on_peer, true }, { "migrate", on_migrate, true }, { "cancel", on_cancel, true },
		{ "inventory", on_inventory, false }, { "storage.ok", on_storage_ok, false }, { "vm.kill", on_kill, false },
		{ "quit", on_quit, false },
	};
	struct cmd c = { d, conn, m };

	if (!d->said_hello && strcmp(m->name, "hello")) {
		reply(&c, RPC_CONFLICT, "hello comes first", NULL);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (strcmp(table[i].name, m->name))
			continue;
		if (table[i].ring && strcmp(m->name, "view") && (!m->has_ring || !d->have_ring || m->ring != d->ring))
			reply(&c, RPC_CONFLICT, "this command is of another ring than the view", NULL);
		else if (!strcmp(m->name, "view") && m->has_ring && d->have_ring && m->ring < d->ring)
			reply(&c, RPC_CONFLICT, "a view of an older ring", NULL);
		else
			table[i].fn(&c);
		return;
	}
	if (!hvd_slow_command(d, conn, m)) {
		char text[128];

		snprintf(text, sizeof(text), "hvhostd knows no \"%.40s\"; is migratord of a newer version?", m->name);
		reply(&c, RPC_USAGE, text, NULL);
	}
}
