/*
 * mig_world_hv.c - the fake hvhostd of a node of mig_world.h: what it has of each VM follows the records that it is told.
 */
#include "tests/unit/mig_world_internal.h"

#include <string.h>

#include "hvhost/agent.h"
#include "migrator/lease_json.h"

struct line { struct cds_list_head node; json_t *o; };

struct mw_vm *mw_vm_slot(struct mw_node *n, const char *name)
{
	for (unsigned i = 0; i < MW_VMS; i++) {
		if (!*n->vm[i].name)
			snprintf(n->vm[i].name, sizeof(n->vm[i].name), "%s", name);
		if (!strcmp(n->vm[i].name, name))
			return &n->vm[i];
	}
	ck_abort_msg("more than %d VMs", MW_VMS);
	return NULL;
}

struct mw_def *mw_def_of(struct mw *w, const char *name)
{
	for (unsigned i = 0; i < w->n_defs; i++)
		if (!strcmp(w->def[i].name, name))
			return &w->def[i];
	return NULL;
}

static void says(struct mw_node *n, json_t *text_take)
{
	if (n->agent && n->m)
		mig_agent_text(n->m, text_take);
	json_decref(text_take);
}

static json_t *vm_json(const struct mw_vm *v)
{
	unsigned flags = v->runs ? LEASEDB_ITEM_EXEC | LEASEDB_ITEM_SURE : 0;

	return json_pack("{s:s, s:s, s:i, s:I, s:i}", "vm", v->name, "qemu", v->runs ? "running" : v->there ? "paused" : "gone", "config", 1, "epoch",
			 (json_int_t)v->epoch, "flags", (int)flags);
}

static void tell_vm(struct mw_node *n, struct mw_vm *v)
{
	says(n, agent_event_new("vm", 1, 1, vm_json(v)));
}

static bool mounted(const struct mw_node *n)
{
	return !n->mount_state || !strcmp(n->mount_state, "alive") || !strcmp(n->mount_state, "waits");
}

static json_t *host_json(struct mw_node *n)
{
	json_int_t free_bytes = n->memory;

	for (unsigned i = 0; i < MW_VMS && *n->vm[i].name; i++)
		if (n->vm[i].there && mw_def_of(n->w, n->vm[i].name))
			free_bytes -= mw_def_of(n->w, n->vm[i].name)->memory;
	return json_pack("{s:s, s:s, s:I, s:I, s:s, s:[], s:s, s:s, s:s, s:s, s:s}", "accel", "tcg", "accel_reason", "no /dev/kvm", "memory_bytes", n->memory,
			 "memory_free_bytes", free_bytes, "volume", mounted(n) ? "/srv/csv" : "", "missing", "mount", "/srv/csv", "mount_state",
			 n->mount_state ? n->mount_state : "alive", "mount_reason", n->mount_reason ? n->mount_reason : "", "mount_command",
			 n->mount_command ? n->mount_command : "", "qemu_reason", n->qemu_reason ? n->qemu_reason : "");
}

void mw_host_news(struct mw *w, uint32_t id)
{
	says(&w->node[id], agent_event_new("host", 1, 1, json_pack("{s:o}", "host", host_json(&w->node[id]))));
}

static json_t *inventory(struct mw_node *n)
{
	json_t *vms = json_array();

	for (unsigned i = 0; i < MW_VMS && *n->vm[i].name; i++)
		if (n->vm[i].there)
			json_array_append_new(vms, vm_json(&n->vm[i]));
	return json_pack("{s:i, s:o, s:o}", "api", AGENT_API, "host", host_json(n), "vms", vms);
}

static void propose(struct mw_node *n, struct mw_vm *v, enum lease_move move, enum lease_reason reason, int want)
{
	struct lease_cas cas = { .version = v->rec.version, .move = (uint8_t)move, .txid = v->rec.txid, .reason = (uint8_t)reason };

	snprintf(cas.vm, sizeof(cas.vm), "%s", v->name);
	cas.want = want < 0 ? v->rec.want : (uint8_t)want;
	v->open = true;
	says(n, agent_event_new("propose", 1, 1, json_pack("{s:I, s:o, s:o}", "proposal", (json_int_t)++n->proposals, "ring", agent_u64(v->ring), "cas",
							   lease_cas_json_encode(&cas))));
}

static void look(struct mw_node *n, struct mw_vm *v);

static void set_qemu(struct mw_node *n, struct mw_vm *v, bool there, bool runs)
{
	bool news = v->there != there || v->runs != runs;

	v->there = there;
	v->runs = runs;
	if (news)
		tell_vm(n, v);
}

static void looks_again(struct later *l)
{
	l->vm->due = false;
	if (l->n->agent && l->n->power && l->vm->known && l->vm->rec.epoch == l->epoch && l->vm->rec.txid == l->txid) {
		l->vm->bound_txid = l->vm->rec.txid ? l->vm->rec.txid : UINT64_MAX;	/* the delay is over */
		look(l->n, l->vm);
	}
}

/* True when the delay for this record is over. */
static bool delayed(struct mw_node *n, struct mw_vm *v, uint64_t ns)
{
	if (v->bound_txid == (v->rec.txid ? v->rec.txid : UINT64_MAX) && v->epoch == v->rec.epoch)
		return true;
	v->epoch = v->rec.epoch;
	v->bound_txid = 0;
	if (!v->due)
		mw_later(n, ns, (struct later){ .vm = v, .epoch = v->rec.epoch, .txid = v->rec.txid }, looks_again);
	v->due = true;
	return false;
}

static void look_start(struct mw_node *n, struct mw_vm *v)
{
	struct mw *w = n->w;

	if (!v->there) {
		ck_assert_uint_lt(w->n_began, MW_VMS * 4);
		w->began_ns[w->n_began] = w->clk.now_ns;
		w->began_on[w->n_began] = n->id;
		snprintf(w->began[w->n_began++], LEASE_NAME_BYTES, "%s", v->name);
		v->bound_txid = 0;
		set_qemu(n, v, true, false);
	}
	if (!delayed(n, v, w->start_ns))
		return;
	if (w->start_fails) {
		w->start_fails--;
		says(n, agent_event_new("event", 1, 1, json_pack("{s:s, s:s, s:s, s:s}", "vm", v->name, "severity", "error", "text",
								 "VM x: QEMU could not be started: bridge nobr: No such device", "command", "")));
		set_qemu(n, v, false, false);
		propose(n, v, LEASE_FAILED, LEASE_REASON_START_FAILED, -1);
	} else {
		propose(n, v, LEASE_STARTED, 0, -1);
	}
}

static void look_own(struct mw_node *n, struct mw_vm *v)
{
	if (lease_is_intent(&v->rec)) {
		set_qemu(n, v, true, true);
		if (v->asked_txid == v->rec.txid && v->cancelled)
			propose(n, v, LEASE_ABORT, 0, -1);
		else if (v->asked_txid == v->rec.txid && !n->w->never_moves && delayed(n, v, n->w->move_ns)) {
			set_qemu(n, v, true, n->w->moves_fail);
			propose(n, v, n->w->moves_fail ? LEASE_ABORT : LEASE_HANDOVER, 0, -1);
		}
		return;
	}
	if (v->rec.flags & LEASE_RETURNED) {
		set_qemu(n, v, true, true);
		propose(n, v, LEASE_ABORT, 0, -1);
		return;
	}
	v->epoch = v->rec.epoch;
	if (v->kill || (v->rec.want == LEASE_WANT_STOPPED && !n->w->deaf_guests) || !v->there) {
		bool lost = !v->kill && v->rec.want != LEASE_WANT_STOPPED;

		v->kill = false;
		set_qemu(n, v, false, false);
		propose(n, v, LEASE_RELEASE, lost ? LEASE_REASON_LOST_QEMU : 0, -1);
		return;
	}
	set_qemu(n, v, true, true);
	if (v->rec.flags & LEASE_MOVED)
		propose(n, v, LEASE_CLOSE, 0, -1);
}

static void look(struct mw_node *n, struct mw_vm *v)
{
	bool mine = v->rec.owner == n->id && v->rec.owner_inc == n->inc;

	if (!n->agent || !v->known || v->open)
		return;
	if (mine && v->rec.state == LEASE_RECOVERING)
		look_start(n, v);
	else if (mine && v->rec.state == LEASE_RUNNING)
		look_own(n, v);
	else if (mine && v->rec.state == LEASE_HANDOFF) {
		set_qemu(n, v, true, false);
		propose(n, v, LEASE_ACCEPT, 0, -1);
	} else if (mine && v->rec.state == LEASE_BLOCKED) {
		propose(n, v, LEASE_UNBLOCK, 0, -1);
	} else if (v->rec.state == LEASE_HANDOFF || (v->rec.txid && v->rec.peer == n->id)) {
		set_qemu(n, v, v->there, false);
	} else if (v->rec.state != LEASE_BLOCKED) {
		set_qemu(n, v, false, false);
	}
}

static void got_record(struct mw_node *n, const json_t *o, uint64_t ring, bool open)
{
	struct csv_err err = CSV_ERR_INIT;
	struct lease l;
	struct mw_vm *v;

	ck_assert_msg(!lease_json_decode(o, &l, &err), "a record that is none: %s", err.text);
	v = mw_vm_slot(n, l.vm);
	v->rec = l;
	v->ring = ring;
	v->known = true;
	v->open = open;
	look(n, v);
}

static void got_leases(struct mw_node *n, const struct agent_msg *msg)
{
	json_t *r, *o;
	size_t i, k;

	json_array_foreach(json_object_get(msg->body, "items"), i, r) {
		bool open = false;

		json_array_foreach(json_object_get(msg->body, "open"), k, o)
			open |= !strcmp(json_string_value(o), mig_text(r, "vm"));
		got_record(n, r, msg->ring, open);
	}
}

static void got_view(struct mw_node *n)
{
	for (unsigned i = 0; i < MW_VMS && *n->vm[i].name; i++)
		n->vm[i].known = n->vm[i].open = false;
}

static json_t *defs_json(struct mw *w, bool there)
{
	json_t *items = json_array();

	for (unsigned i = 0; i < w->n_defs && there; i++)
		if (*w->def[i].name)
			json_array_append_new(items, json_pack("{s:s, s:s, s:i, s:i, s:b, s:s}", "vm", w->def[i].name, "want", w->def[i].want, "config",
							       w->def[i].config, "priority", w->def[i].priority, "ha", w->def[i].ha, "error",
							       w->def[i].error ? w->def[i].error : ""));
	return json_pack("{s:o, s:b}", "items", items, "mounted", there);
}

static int got_want(struct mw *w, const json_t *args)
{
	struct mw_def *d = mw_def_of(w, mig_text(args, "vm"));
	const char *want = mig_text(args, "want");

	if (!d)
		return RPC_NOT_FOUND;
	d->want = !strcmp(want, "run") ? "run" : !strcmp(want, "paused") ? "paused" : "stopped";
	if (json_object_get(args, "priority"))
		d->priority = (int)mig_int(args, "priority");
	if (json_object_get(args, "ha"))
		d->ha = json_is_true(json_object_get(args, "ha"));
	return 0;
}

static void answer(struct mw_node *n, const struct agent_msg *msg, int code, json_t *data_take)
{
	says(n, agent_reply_new(msg->id, code, code ? "hvhostd says no" : "", data_take));
}

static void got_command(struct mw_node *n, const struct agent_msg *msg)
{
	const char *c = msg->name, *name = mig_text(msg->body, "vm");
	struct mw *w = n->w;
	struct mw_def *d = mw_def_of(w, name);

	if (!strcmp(c, "view"))
		got_view(n);
	if (n->mute && strcmp(c, "hello") && strcmp(c, "inventory"))
		return;
	if (!strcmp(c, "hello") || !strcmp(c, "inventory")) {
		answer(n, msg, 0, inventory(n));
	} else if (!strcmp(c, "leases")) {
		got_leases(n, msg);
	} else if (!strcmp(c, "lease")) {
		got_record(n, msg->body, msg->ring, mw_vm_slot(n, name)->open);
	} else if (!strcmp(c, "outcome")) {
		mw_vm_slot(n, name)->open = false;
		look(n, mw_vm_slot(n, name));
	} else if (!strcmp(c, "vm.list") && w->list_fails && (!w->list_fails_on || w->list_fails_on == n->id)) {
		says(n, agent_reply_new(msg->id, RPC_FAILED, w->list_fails, NULL));
	} else if (!strcmp(c, "vm.list")) {
		answer(n, msg, 0, defs_json(w, mounted(n)));
	} else if (!strcmp(c, "vm.show")) {
		answer(n, msg, d ? 0 : RPC_NOT_FOUND, d ? json_pack("{s:s, s:{s:I}}", "vm", name, "definition", "memory_bytes", d->memory) : NULL);
	} else if (!strcmp(c, "vm.want")) {
		answer(n, msg, got_want(w, msg->body), NULL);
	} else if (!strcmp(c, "vm.define")) {
		json_t *cfg = json_object_get(msg->body, "config");

		if (!json_is_true(json_object_get(msg->body, "dry_run")))
			mw_define(w, mig_text(cfg, "name"), "stopped", 100, mig_int(cfg, "memory_bytes"));
		answer(n, msg, 0, NULL);
	} else if (!strcmp(c, "vm.delete")) {
		if (d)
			memset(d->name, 0, sizeof(d->name));
		answer(n, msg, d ? 0 : RPC_NOT_FOUND, NULL);
	} else if (!strcmp(c, "vm.dirty")) {
		answer(n, msg, 0, json_pack("{s:I, s:I}", "memory_bytes", d ? d->memory : 0, "rate_bps", (json_int_t)80000000));
	} else if (!strcmp(c, "vm.kill")) {
		n->n_kill++;
		mw_vm_slot(n, name)->kill = true;
		answer(n, msg, 0, NULL);
		look(n, mw_vm_slot(n, name));
	} else if (!strcmp(c, "migrate")) {
		struct mw_vm *v = mw_vm_slot(n, name);

		w->params_budget = mig_int(msg->body, "pause_budget_ms");
		v->cancelled = false;
		v->asked_txid = mig_hex_get(msg->body, "txid");
		answer(n, msg, v->known && v->rec.txid == v->asked_txid ? RPC_ACCEPTED : RPC_CONFLICT, NULL);
		look(n, v);
	} else if (!strcmp(c, "cancel")) {
		struct mw_vm *v = mw_vm_slot(n, name);

		v->cancelled = true;
		v->asked_txid = mig_hex_get(msg->body, "txid");
		answer(n, msg, 0, NULL);
		look(n, v);
	}
}

bool mw_line_take(struct mw_node *n)
{
	struct csv_err err = CSV_ERR_INIT;
	struct agent_msg msg;
	struct line *l;

	if (cds_list_empty(&n->lines))
		return false;
	l = cds_list_first_entry(&n->lines, struct line, node);
	cds_list_del(&l->node);
	if (n->agent && n->m) {
		ck_assert_msg(!agent_msg_decode(l->o, &msg, &err), "%s", err.text);
		got_command(n, &msg);
	}
	json_decref(l->o);
	free(l);
	return true;
}

void mw_lines_drop(struct mw_node *n)
{
	struct line *l, *tmp;

	cds_list_for_each_entry_safe(l, tmp, &n->lines, node) {
		cds_list_del(&l->node);
		json_decref(l->o);
		free(l);
	}
}

bool mw_agent_send(struct mig_port *p, const char *text, size_t len)
{
	struct mw_node *n = container_of(p, struct mw_node, port);
	struct line *l;

	if (!n->agent)
		return false;
	l = malloc(sizeof(*l));
	l->o = json_loadb(text, len, 0, NULL);
	ck_assert(l->o);
	cds_list_add_tail(&l->node, &n->lines);
	return true;
}
