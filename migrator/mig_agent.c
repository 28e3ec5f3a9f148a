/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_agent.c - the line to this node's hvhostd (hvhost/agent.h): what it is told, what it says, and what of it all members are told.
 *
 * Invariants
 *  MA1 After a break everything that matters is said again: hello, the view, all leases (AG1).
 *  MA2 Whoever waits for an answer is answered: by it, by the time limit, or by the end of the line.
 *  MA3 What the others know of this host is this daemon's own word of its present life: an item of a life before (which the others still
 *      have) is replaced as soon as it comes back, and nobody believes one that names another life of the node.
 *
 * One thread.
 */
#include "migrator/mig_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "hvhost/agent.h"
#include "migrator/mig_work.h"

#define HOST_TELL_NS (100 * NS_PER_MS)
#define HELLO_MS 10000u
#define HOST_NS (10 * NS_PER_SEC)
#define SAID_NS (60 * NS_PER_SEC)
#define HOST_STEP_BYTES ((json_int_t)64 << 20)	/* of free memory: less is no news */

static int send_line(struct mig *m, json_t *o)
{
	size_t len;
	char *line = o ? jline_encode(o, &len) : NULL;
	bool ok = line && m->port->ops->agent_send(m->port, line, len);

	free(line);
	json_decref(o);
	return ok ? 0 : -ENOTCONN;
}

void mig_answer_done(struct mig_answer *a)
{
	json_decref(a->data);
	a->data = NULL;
}

struct mig_wait *mig_wait_new(struct cds_list_head *list, uint64_t id, uint32_t nodeid)
{
	struct mig_wait *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->id = id;
	w->nodeid = nodeid;
	waitq_init(&w->wq);
	cds_list_add_tail(&w->node, list);
	return w;
}

int mig_wait_end(struct mig *m, struct mig_wait *w, uint64_t deadline_ns, struct mig_answer *ret)
{
	int rc = -ETIMEDOUT;

	while (!w->done && sched_wait_until(m->env->sched, &w->wq, deadline_ns, false) != -ETIMEDOUT)
		;
	cds_list_del(&w->node);
	if (w->done) {
		ret->code = w->code;
		snprintf(ret->message, sizeof(ret->message), "%s", w->message);
		ret->data = w->data;
		rc = w->rc;
	}
	free(w);
	return rc;
}

int mig_agent_call(struct mig *m, const char *cmd, uint64_t ring, json_t *args_take, unsigned timeout_ms, struct mig_answer *ret)
{
	uint64_t end = mig_now(m) + timeout_ms * NS_PER_MS, id = ++m->agent_id;
	struct mig_wait *w;

	memset(ret, 0, sizeof(*ret));
	if (!m->agent_up || (!m->agent_ready && strcmp(cmd, "hello"))) {
		json_decref(args_take);
		return -ENOTCONN;
	}
	w = mig_wait_new(&m->agent_waits, id, 0);
	if (!w) {
		json_decref(args_take);
		return -ENOMEM;
	}
	if (send_line(m, agent_cmd_new(cmd, id, ring, args_take)))
		end = 0;
	return mig_wait_end(m, w, end, ret);
}

void mig_agent_tell(struct mig *m, const char *cmd, uint64_t ring, json_t *args_take)
{
	if (m->agent_ready)
		send_line(m, agent_cmd_new(cmd, ++m->agent_id, ring, args_take));
	else
		json_decref(args_take);
}

/* ---- what all members are told of this host -------------------------------------------------------------------------------------- */

static void host_run(struct timer *t)
{
	struct mig *m = container_of(t, struct mig, host_timer);
	char key[MIG_KEY_MAX];
	json_t *vms = json_array(), *v;
	const char *name;

	json_object_foreach(m->vms, name, v)
		json_array_append(vms, v);
	snprintf(key, sizeof(key), "host/%u", m->cfg.self);
	mig_item_put_take(m, key, json_pack("{s:O?, s:o, s:b, s:o, s:I}", "host", m->host, "vms", vms, "ready", m->agent_ready, "incarnation",
					    mig_hex(m->cfg.incarnation), "link_bps", (json_int_t)m->cfg.link_bps));
}

/* However much comes meanwhile (a migration's steps follow each other in milliseconds, and a guest waits for them). */
static void host_changed(struct mig *m)
{
	if (!m->host_timer.armed)
		timer_set(m->env->sched, &m->host_timer, mig_now(m) + HOST_TELL_NS);
}

void mig_host_tell(struct mig *m)
{
	host_changed(m);
}

const json_t *mig_host_of(const struct mig *m, uint32_t nodeid)
{
	char key[MIG_KEY_MAX];

	if (!mig_is_member(m, nodeid))
		return NULL;
	snprintf(key, sizeof(key), "host/%u", nodeid);
	return mig_item_get(m, key);
}

bool mig_host_ready(const struct mig *m, uint32_t nodeid)
{
	const json_t *h = mig_host_of(m, nodeid);
	uint64_t inc = mig_leases_incarnation(m, nodeid);

	return json_is_true(json_object_get(h, "ready")) && (!inc || mig_hex_get(h, "incarnation") == inc);	/* MA3 */
}

const json_t *mig_vm_on(const struct mig *m, uint32_t nodeid, const char *vm)
{
	const json_t *vms = json_object_get(mig_host_of(m, nodeid), "vms"), *v;
	size_t i;

	json_array_foreach(vms, i, v)
		if (!strcmp(mig_text(v, "vm"), vm))
			return v;
	return NULL;
}

static void vm_keep(struct mig *m, json_t *vm)
{
	const char *name = mig_text(vm, "vm");

	if (!agent_vm_name_valid(name))
		return;
	if (!strcmp(mig_text(vm, "qemu"), "gone"))
		json_object_del(m->vms, name);
	else
		json_object_set(m->vms, name, vm);
}

static void host_keep(struct mig *m, const json_t *data)
{
	json_decref(m->host);
	m->host = json_deep_copy(json_object_get(data, "host"));
	if (mig_int(m->host, "memory_free_bytes"))
		json_object_set_new(m->host, "memory_free_bytes", json_integer(mig_int(m->host, "memory_free_bytes") / HOST_STEP_BYTES * HOST_STEP_BYTES));
}

static void inventory_keep(struct mig *m, const json_t *data)
{
	json_t *v;
	size_t i;

	host_keep(m, data);
	json_object_clear(m->vms);
	json_array_foreach(json_object_get(data, "vms"), i, v)
		vm_keep(m, v);
}

/* ---- its life --------------------------------------------------------------------------------------------------------------------- */

static json_t *addresses(const struct mig *m)
{
	const struct mig_node *n = mig_node_of(m, m->cfg.self);
	json_t *a = json_array();

	for (unsigned i = 0; n && i < n->n_addrs; i++)
		json_array_append_new(a, json_string(n->addr[i]));
	return a;
}

static void hello_coro(void *arg)
{
	struct mig *m = arg;
	struct mig_answer a;
	int rc = mig_agent_call(m, "hello", m->ring, json_pack("{s:i, s:s, s:i, s:o, s:o}", "api", AGENT_API, "node",
							       mig_node_name(m, m->cfg.self), "nodeid", (int)m->cfg.self, "incarnation",
							       mig_hex(m->cfg.incarnation), "addresses", addresses(m)), HELLO_MS, &a);

	if (rc || a.code) {
		mig_log(m, LOG_L_ERR, "hvhostd: hello: %s", rc ? strerror(-rc) : a.message);
	} else {
		m->agent_ready = true;
		inventory_keep(m, a.data);
		host_changed(m);
		mig_log(m, LOG_L_NOTE, "hvhostd is there: %zu VMs run or are held here", json_object_size(m->vms));
		mig_agent_view(m);
		mig_leases_inventory(m);
		mig_leases_tell_agent(m);
		mig_poke(m);
	}
	mig_answer_done(&a);
}

void mig_agent_up(struct mig *m)
{
	m->agent_up = true;
	if (mig_spawn(m, "hello", hello_coro, m))
		mig_log(m, LOG_L_ERR, "hvhostd: out of memory");
}

/* What is free there changes without an event: placing needs it (mig_place.c). */
void mig_host_coro(void *arg)
{
	struct mig *m = arg;
	json_t *host, *vms;
	struct mig_answer a;

	for (;;) {
		coro_sleep_ns(m->env->sched, HOST_NS);
		if (!m->agent_ready || mig_agent_call(m, "inventory", m->ring, NULL, HELLO_MS, &a))
			continue;
		host = json_deep_copy(m->host);
		vms = json_deep_copy(m->vms);
		if (!a.code && m->agent_ready)
			inventory_keep(m, a.data);
		if (!json_equal(host, m->host) || !json_equal(vms, m->vms))
			host_changed(m);
		json_decref(host);
		json_decref(vms);
		mig_answer_done(&a);
	}
}

static void waits_end(struct mig *m, int rc)
{
	struct mig_wait *w;

	cds_list_for_each_entry(w, &m->agent_waits, node) {
		w->done = true;
		w->rc = rc;
		sched_wake_all(m->env->sched, &w->wq);
	}
}

void mig_agent_down(struct mig *m, const char *why)
{
	if (m->agent_ready)
		mig_log(m, LOG_L_WARN, "hvhostd is away: %s; its VMs run on, unmanaged", why);
	m->agent_up = m->agent_ready = false;
	waits_end(m, -ENOTCONN);
	host_changed(m);
	mig_poke(m);
}

void mig_agent_view(struct mig *m)
{
	json_t *members = json_array();

	for (uint32_t i = 0; m->view && i < m->view->n; i++)
		json_array_append_new(members, json_pack("{s:i, s:o}", "nodeid", (int)m->view->m[i].nodeid, "incarnation",
							 mig_hex(mig_leases_incarnation(m, m->view->m[i].nodeid))));
	mig_agent_tell(m, "view", m->ring, json_pack("{s:b, s:o}", "quorate", m->view != NULL, "members", members));
}

static void on_reply(struct mig *m, const struct agent_msg *msg)
{
	struct mig_wait *w;

	cds_list_for_each_entry(w, &m->agent_waits, node) {
		if (w->id != msg->id || w->done)
			continue;
		w->done = true;
		w->rc = 0;
		w->code = msg->code;
		snprintf(w->message, sizeof(w->message), "%s", msg->message);
		w->data = json_incref(msg->body);
		sched_wake_all(m->env->sched, &w->wq);
		return;
	}
	if (msg->code)
		mig_log(m, LOG_L_WARN, "hvhostd: %s", msg->message);
}

/* hvhostd tries again what failed, and says so each time: the log has room for it once in a while. */
static bool said_just_now(struct mig *m, const json_t *d)
{
	const char *vm = mig_text(d, "vm"), *text = mig_text(d, "text");
	const json_t *old = json_object_get(m->said, vm);
	json_int_t now = (json_int_t)(mig_now(m) / NS_PER_MS);

	if (old && !strcmp(mig_text(old, "text"), text) && now - mig_int(old, "ms") < (json_int_t)(SAID_NS / NS_PER_MS))
		return true;
	json_object_set_new(m->said, vm, json_pack("{s:s, s:I}", "text", text, "ms", now));
	return false;
}

static void on_event(struct mig *m, const struct agent_msg *msg)
{
	const json_t *d = msg->body;

	if (!strcmp(msg->name, "vm")) {
		vm_keep(m, msg->body);
		host_changed(m);
	} else if (!strcmp(msg->name, "host")) {
		host_keep(m, d);
		host_changed(m);
		mig_poke(m);
	} else if (!strcmp(msg->name, "propose")) {
		mig_leases_agent_proposes(m, d);
	} else if (!strcmp(msg->name, "peer")) {
		mig_send_take(m, json_pack("{s:s, s:I, s:s, s:s, s:O}", "t", "peer", "to", mig_int(d, "to"), "vm", mig_text(d, "vm"), "txid",
					   mig_text(d, "txid"), "body", json_object_get(d, "body")));
	} else if (!strcmp(msg->name, "migration")) {
		mig_move_news(m, d);
	} else if (!strcmp(msg->name, "event")) {
		if (said_just_now(m, d))
			return;
		mig_event(m, mig_text(d, "severity"), mig_text(d, "vm"), mig_text(d, "command"), "%s", mig_text(d, "text"));
	} else {
		mig_log(m, LOG_L_INFO, "hvhostd: an event \"%s\" that is not known", msg->name);
	}
}

void mig_agent_text(struct mig *m, json_t *text)
{
	struct csv_err err = CSV_ERR_INIT;
	struct agent_msg msg;

	if (agent_msg_decode(text, &msg, &err)) {
		mig_log(m, LOG_L_WARN, "hvhostd: a text that is none: %s", err.text);
		return;
	}
	if (msg.kind == AGENT_REPLY)
		on_reply(m, &msg);
	else if (msg.kind == AGENT_EVENT)
		on_event(m, &msg);
}

void mig_agent_init(struct mig *m)
{
	CDS_INIT_LIST_HEAD(&m->agent_waits);
	timer_init(&m->host_timer, host_run);
}

void mig_agent_done(struct mig *m)
{
	timer_del(m->env->sched, &m->host_timer);
}
