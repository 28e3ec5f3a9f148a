/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_known.c - what is known of VMs and nodes when nobody's memory has it: the node's durable copy of drained nodes and definitions, and
 * what people are told while the definitions cannot be read.
 *
 *	kept	{"nodes": [{"k": "node/3", "r": revision, "b": by, "v": {...} or null}...], "definitions": {"web1": {...}...}}
 *
 * Invariants
 *  KN1 What is decided about a node (drained, quarantined, left, losses) is written down by every member as soon as it has it, with its revision: of
 *      two copies the newer one wins (MI1), so a majority that comes back after all were off knows it.
 *  KN2 The definitions of the copy are for people alone: they are shown, BLOCKED, until the definitions have been read once since the cluster
 *      came up (item "defs"); no decision reads them.
 *  KN3 While VMs cannot be known, `vm list`, `vm show` and `ha status` say so, why, and what to type; never an empty list.
 *
 * One thread.
 */
#include "migrator/mig_work.h"

#include <stdio.h>
#include <stdlib.h>

#define KEEP_NS NS_PER_SEC		/* definitions come in hundreds */
#define UNKNOWN_SAID_NS (10 * NS_PER_SEC)

/* ---- the durable copy ----------------------------------------------------------------------------------------------------------------- */

static bool add_def(void *arg, const char *key, const json_t *value)
{
	json_object_set(arg, key + 4, (json_t *)value);
	return true;
}

/* Of the past what the present has not read itself. */
static json_t *definitions(const struct mig *m)
{
	json_t *all = mig_known_all(m) ? json_object() : json_deep_copy(m->past_defs);

	mig_items_each(m, "def/", add_def, all);
	return all;
}

static void keep_run(struct job *j)
{
	struct mig *m = container_of(j, struct mig, keep_job);
	json_t *nodes = json_array(), *all;
	struct mig_item *i, *tmp;
	char *text;

	HASH_ITER(hh, m->items, i, tmp)
		if (!strncmp(i->key, "node/", 5))
			json_array_append_new(nodes, json_pack("{s:s, s:I, s:i, s:O}", "k", i->key, "r", (json_int_t)i->rev, "b", (int)i->by, "v",
							       i->value));
	all = json_pack("{s:o, s:o}", "nodes", nodes, "definitions", definitions(m));
	text = json_dumps(all, JSON_COMPACT | JSON_SORT_KEYS);
	if (text && (!m->kept || strcmp(text, m->kept))) {
		m->port->ops->keep(m->port, text);
		free(m->kept);
		m->kept = text;
		text = NULL;
	}
	free(text);
	json_decref(all);
}

static void keep_later(struct timer *t)
{
	struct mig *m = container_of(t, struct mig, keep_timer);

	m->keep_due = false;
	sched_post(m->env->sched, &m->keep_job);
}

void mig_known_changed(struct mig *m, const char *key)
{
	if (!strncmp(key, "node/", 5)) {
		sched_post(m->env->sched, &m->keep_job);
	} else if (!m->keep_due && !strncmp(key, "def", 3)) {
		m->keep_due = true;
		timer_set(m->env->sched, &m->keep_timer, mig_now(m) + KEEP_NS);
	}
}

void mig_known_load(struct mig *m, const json_t *kept)
{
	const json_t *n, *defs = json_object_get(kept, "definitions");
	size_t i;

	job_init(&m->keep_job, keep_run);
	timer_init(&m->keep_timer, keep_later);
	m->past_defs = json_is_object(defs) ? json_deep_copy(defs) : json_object();
	json_array_foreach(json_object_get(kept, "nodes"), i, n)
		if (!strncmp(mig_text(n, "k"), "node/", 5))
			mig_item_load(m, n);
}

void mig_known_done(struct mig *m)
{
	if (m->past_defs) {		/* loaded */
		sched_unpost(m->env->sched, &m->keep_job);
		timer_del(m->env->sched, &m->keep_timer);
	}
	json_decref(m->past_defs);
	free(m->kept);
}

/* ---- what is not known ------------------------------------------------------------------------------------------------------------------- */

bool mig_known_all(const struct mig *m)
{
	return json_is_true(json_object_get(mig_item_get(m, "defs"), "read"));
}

void mig_known_read(struct mig *m)
{
	if (!mig_known_all(m))
		mig_item_put_take(m, "defs", json_pack("{s:b}", "read", 1));
}

void mig_known_unread(struct mig *m, uint32_t nodeid, const char *why)
{
	json_t *o;

	if (mig_known_all(m) || !*why)
		return;
	o = json_pack("{s:b, s:o}", "read", 0, "error", json_sprintf("they cannot be read on %s: %s", mig_node_name(m, nodeid), why));
	if (json_equal(o, (json_t *)mig_item_get(m, "defs")))
		json_decref(o);
	else
		mig_item_put_take(m, "defs", o);
}

/* "csvctl node confirm-fenced 3": csvfsd knows numbers, people know names.  0: no such words. */
static uint32_t waits_for(const struct mig *m, const char *command)
{
	static const char words[] = "csvctl node confirm-fenced ";
	const char *at = strstr(command, words);
	char name[MIG_NAME_MAX];

	if (!at)
		return 0;
	at += sizeof(words) - 1;
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(at, " ;,)"), at);
	return mig_node_by_name(m, name);
}

/* The member whose mount says most: one that waits for a person before one that only waits. */
static const json_t *host_that_says_why(const struct mig *m)
{
	const json_t *best = NULL;

	for (uint32_t i = 0; m->view && i < m->view->n; i++) {
		const json_t *h = json_object_get(mig_host_of(m, m->view->m[i].nodeid), "host");

		if (!mig_host_ready(m, m->view->m[i].nodeid) || !*mig_text(h, "mount_reason"))
			continue;
		if (waits_for(m, mig_text(h, "mount_command")))
			return h;
		if (!best || !strcmp(mig_text(h, "mount_state"), "joining"))
			best = h;
	}
	return best;
}

static bool any_agent(const struct mig *m)
{
	for (uint32_t i = 0; m->view && i < m->view->n; i++)
		if (mig_host_ready(m, m->view->m[i].nodeid))
			return true;
	return false;
}

json_t *mig_known_unknown(const struct mig *m)
{
	const json_t *h = mig_any_host(m) ? NULL : host_that_says_why(m);
	const char *volume = mig_text(h, "mount");
	uint32_t node = h ? waits_for(m, mig_text(h, "mount_command")) : 0;

	if (mig_known_all(m))
		return NULL;
	if (node)
		return json_pack("{s:s, s:o, s:o}", "volume", volume, "reason",
				 json_sprintf("the volume waits for a proof about %s (%s)", mig_node_name(m, node), mig_text(h, "mount_reason")), "command",
				 json_sprintf("csvctl node confirm-fenced %s", mig_node_name(m, node)));
	if (h)
		return json_pack("{s:s, s:s, s:s}", "volume", volume, "reason", mig_text(h, "mount_reason"), "command", mig_text(h, "mount_command"));
	if (!any_agent(m))
		return json_pack("{s:s, s:s, s:s}", "volume", "", "reason", "hvhostd runs on no node, so nobody can read it", "command",
				 "systemctl start hvhostd");
	if (*mig_text(mig_item_get(m, "defs"), "error"))
		return json_pack("{s:s, s:s, s:s}", "volume", "", "reason", mig_text(mig_item_get(m, "defs"), "error"), "command", "csvctl volume list");
	return json_pack("{s:s, s:s, s:s}", "volume", "", "reason", "it is being read just now", "command", "");
}

static void sentence(const json_t *u, char *ret, size_t size)
{
	const char *v = mig_text(u, "volume");

	snprintf(ret, size, "VMs of %s%s are not known yet: %s", *v ? "volume " : "the volume", v, mig_text(u, "reason"));
}

/* ---- who has not spoken since a cold start -------------------------------------------------------------------------------------------------- */

static json_t *suspect(struct mig *m, const struct leasedb_node *n)
{
	const char *name = mig_node_name(m, n->nodeid), *why = mig_proof_why(m, n->nodeid);

	if (mig_is_member(m, n->nodeid))
		return json_pack("{s:s, s:s, s:o}", "node", name, "reason", "its hvhostd has not said yet what it runs", "command",
				 mig_host_ready(m, n->nodeid) ? json_string("") : json_sprintf("on %s: systemctl start hvhostd", name));
	return json_pack("{s:s, s:o, s:o}", "node", name, "reason",
			 json_sprintf("is not here to say what it runs%s%s; start it, or make sure that it is switched off", *why ? ": " : "", why),
			 "command", json_sprintf("csvctl node confirm-fenced %s", name));
}

static void add_suspects(struct mig *m, json_t *reply)
{
	const struct leasedb *db = mig_leases_db(m);
	json_t *list, *s;
	size_t i;

	if (!leasedb_suspects(db))
		return;
	list = json_array();
	for (uint32_t k = 0; k < m->cfg.n_nodes; k++) {
		const struct leasedb_node *n = leasedb_node(db, m->cfg.node[k].nodeid);

		if (n && n->suspect)
			json_array_append_new(list, suspect(m, n));
	}
	json_array_foreach(list, i, s)
		rpc_reply_warn(reply, "cold start: %s %s%s%s; VMs that may run there wait", mig_text(s, "node"), mig_text(s, "reason"),
			       *mig_text(s, "command") ? ", then: " : "", mig_text(s, "command"));
	json_object_set_new(reply, "waits_for_nodes", list);
}

/* ---- shown ------------------------------------------------------------------------------------------------------------------------------------ */

json_t *mig_known_past(struct mig *m, const char *vm)
{
	const json_t *d = json_object_get(m->past_defs, vm);
	json_t *u = d && !mig_lease(m, vm) ? mig_known_unknown(m) : NULL, *o;
	char text[800];

	if (!u)
		return NULL;
	sentence(u, text, sizeof(text));
	o = json_pack("{s:s, s:s, s:s, s:s, s:i, s:b, s:I, s:I, s:s, s:n, s:s, s:s}", "name", vm, "node", "", "state", "BLOCKED", "want",
		      mig_text(d, "want"), "epoch", 0, "ha", !json_is_false(json_object_get(d, "ha")), "priority", mig_int(d, "priority"), "config",
		      mig_int(d, "config"), "qemu", "", "memory_bytes", "reason", text, "command", mig_text(u, "command"));
	if (mig_int(d, "memory_bytes"))
		json_object_set(o, "memory_bytes", json_object_get(d, "memory_bytes"));
	json_decref(u);
	return o;
}

void mig_known_tell(struct mig *m, json_t *reply, bool items)
{
	json_t *u = mig_known_unknown(m), *d;
	const char *vm;
	char text[800];

	add_suspects(m, reply);
	if (!u)
		return;
	sentence(u, text, sizeof(text));
	rpc_reply_warn(reply, "%s%s%s", text, *mig_text(u, "command") ? ": " : "", mig_text(u, "command"));
	json_object_set_new(reply, "unknown", json_pack("[o]", u));
	json_object_foreach(m->past_defs, vm, d)
		if (items)
			rpc_reply_add_take(reply, mig_known_past(m, vm));
}

json_t *mig_known_refuse(struct mig *m, const char *vm)
{
	json_t *u = mig_known_unknown(m), *reply;
	char text[800];

	if (!u)
		return rpc_reply_error(RPC_NOT_FOUND, "%s: no such VM; see: csvctl vm list", vm);
	sentence(u, text, sizeof(text));
	reply = rpc_reply_error(strstr(mig_text(u, "command"), "confirm-fenced") ? RPC_NEEDS_PROOF : RPC_CONFLICT, "%s: %s%s%s", vm, text,
				*mig_text(u, "command") ? ": " : "", mig_text(u, "command"));
	json_decref(u);
	return reply;
}

/* The leader, again and again: what lasts is an event, once. */
void mig_known_look(struct mig *m)
{
	json_t *u = mig_known_unknown(m);
	char text[800];

	if (!u) {
		m->unknown_ns = 0;
		m->unknown_said[0] = '\0';
		return;
	}
	if (!m->unknown_ns)
		m->unknown_ns = mig_now(m);
	sentence(u, text, sizeof(text));
	if (mig_now(m) - m->unknown_ns >= UNKNOWN_SAID_NS && *mig_text(u, "command") && strcmp(m->unknown_said, mig_text(u, "command"))) {
		snprintf(m->unknown_said, sizeof(m->unknown_said), "%s", mig_text(u, "command"));
		mig_event(m, "warning", "cluster", mig_text(u, "command"), "%s", text);
	}
	json_decref(u);
}
