/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig.c - life, views, ordered messages.
 */
#include "migrator/mig_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrator/mig_work.h"

/* ---- small things ------------------------------------------------------------------------------------------------------------------ */

uint32_t mig_leader(const struct mig *m)
{
	return m->view ? m->view->m[0].nodeid : 0;
}

bool mig_is_leader(const struct mig *m)
{
	return m->view && mig_leader(m) == m->cfg.self;
}

bool mig_is_member(const struct mig *m, uint32_t nodeid)
{
	return m->view && cluster_view_find(m->view, nodeid);
}

const struct mig_node *mig_node_of(const struct mig *m, uint32_t nodeid)
{
	for (unsigned i = 0; i < m->cfg.n_nodes; i++)
		if (m->cfg.node[i].nodeid == nodeid)
			return &m->cfg.node[i];
	return NULL;
}

const char *mig_node_name(const struct mig *m, uint32_t nodeid)
{
	const struct mig_node *n = mig_node_of(m, nodeid);

	return n ? n->name : nodeid ? "?" : "";
}

uint32_t mig_node_by_name(const struct mig *m, const char *name)
{
	static const char digits[] = "0123456789";
	bool number = *name && strspn(name, digits) == strlen(name);

	for (unsigned i = 0; i < m->cfg.n_nodes; i++)
		if (!strcmp(m->cfg.node[i].name, name) || (number && strtoul(name, NULL, 10) == m->cfg.node[i].nodeid))
			return m->cfg.node[i].nodeid;
	return 0;
}

uint64_t mig_id(struct mig *m)
{
	uint64_t v = 0;

	while (!v)
		v = env_rnd(m->env);
	return v;
}

json_t *mig_hex(uint64_t v)
{
	char text[20];

	snprintf(text, sizeof(text), "%016" PRIx64, v);
	return json_string(text);
}

uint64_t mig_hex_get(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	char *end;
	uint64_t v;

	if (!s || strlen(s) != 16 || strspn(s, "0123456789abcdefABCDEF") != 16)
		return 0;
	v = strtoull(s, &end, 16);
	return v;
}

const char *mig_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

json_int_t mig_int(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

struct spawned { struct mig *m; void (*fn)(void *arg); void *arg; };

static void run_spawned(void *arg)
{
	struct spawned s = *(struct spawned *)arg;

	free(arg);
	s.fn(s.arg);
	s.m->coros--;
}

int mig_spawn(struct mig *m, const char *name, void (*fn)(void *arg), void *arg)
{
	struct spawned *s = malloc(sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	*s = (struct spawned){ m, fn, arg };
	rc = sched_spawn(m->env->sched, name, run_spawned, s);
	if (rc)
		free(s);
	else
		m->coros++;
	return rc;
}

void mig_poke(struct mig *m)
{
	m->look_now = true;
	sched_wake_all(m->env->sched, &m->look_wq);
	sched_wake_all(m->env->sched, &m->changed);
}

/* ---- messages ------------------------------------------------------------------------------------------------------------------------ */

int mig_send_take(struct mig *m, json_t *msg)
{
	char *text = msg ? json_dumps(msg, JSON_COMPACT) : NULL;
	int rc = text ? cluster_send(m->env->cluster, MIG_CHAN, text, strlen(text)) : -ENOMEM;

	if (rc && rc != -ENOTCONN)
		mig_log(m, LOG_L_ERR, "a message of kind %s is not sent: %s", mig_text(msg, "t"), strerror(-rc));
	free(text);
	json_decref(msg);
	return rc;
}

static void on_msg(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct mig *m = arg;
	json_error_t je;
	json_t *msg = json_loadb(buf, len, JSON_REJECT_DUPLICATES, &je);
	const char *t = mig_text(msg, "t");

	if (!json_is_object(msg) || !*t) {
		mig_log(m, LOG_L_WARN, "node %u: a message of %zu bytes is malformed: ignored", from.nodeid, len);
	} else if (!strcmp(t, "put")) {
		mig_item_got(m, from.nodeid, msg);
	} else if (!strcmp(t, "event")) {
		if (from.nodeid != m->cfg.self)
			mig_event_got(m, from.nodeid, msg);
	} else if (!strcmp(t, "had") || !strcmp(t, "late")) {
		mig_late_got(m, from.nodeid, t, msg);
	} else {
		mig_call_got(m, from.nodeid, t, msg);
	}
	json_decref(msg);
}

static void on_suspend(void *arg)
{
	struct mig *m = arg;

	m->view = NULL;
	mig_late_suspend(m);
	mig_calls_suspend(m);
	mig_leases_suspend(m);
	mig_agent_view(m);
	mig_poke(m);
}

static void on_view(void *arg, const struct cluster_view *v)
{
	struct mig *m = arg;
	struct cluster_view old = m->view_copy;
	char text[256];
	size_t used = 0;
	bool same;			/* the nodes are: it is the group that changed */
	bool came = false;		/* somebody who cannot know who went */

	same = old.n && old.ring.nodeid == v->ring.nodeid && old.ring.seq >> CLUSTER_ROUND_BITS == v->ring.seq >> CLUSTER_ROUND_BITS;
	m->view_copy = *v;
	m->view = &m->view_copy;
	m->ring = v->ring.seq;
	m->viewed_ns = mig_now(m);
	text[0] = 0;
	for (uint32_t i = 0; i < v->n && used < sizeof(text); i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, " %s", mig_node_name(m, v->m[i].nodeid));
	mig_log(m, LOG_L_NOTE, "view %" PRIx64 ":%s; %s leads", m->ring, text, mig_node_name(m, v->m[0].nodeid));
	mig_items_tell(m);
	mig_late_view(m);
	mig_host_tell(m);
	mig_agent_view(m);
	mig_calls_view(m);
	mig_leases_view(m);
	mig_jobs_view(m);
	for (uint32_t i = 0; i < v->n; i++) {
		const struct cluster_node *was = cluster_view_find(&old, v->m[i].nodeid);

		came |= !was || was->incarnation != v->m[i].incarnation;
	}
	for (uint32_t i = 0; i < old.n; i++) {
		if (mig_is_member(m, old.m[i].nodeid))
			continue;
		if (same)
			mig_node_away(m, old.m[i].nodeid);
		else if (mig_is_leader(m) && mig_node_may_come(m, old.m[i].nodeid))
			mig_event(m, "info", mig_node_name(m, old.m[i].nodeid), "", "missing after a time without quorum, perhaps on its way: nothing "
				  "is taken from it for %" PRIu64 " ms",
				  (uint64_t)((cluster_may_come_ns(m->env->cluster, old.m[i].nodeid) - m->viewed_ns) / NS_PER_MS));
		else if (mig_is_leader(m))
			mig_node_lost(m, old.m[i].nodeid);
		if (!same && came)
			mig_node_went(m, old.m[i].nodeid);
	}
	mig_poke(m);
}

static void on_lost(void *arg, int err)
{
	struct mig *m = arg;

	m->port->ops->leave(m->port, MIG_LEAVE_ENGINE, err == -EEXIST ? "another one runs on this node" :
			    err == -EPROTONOSUPPORT ? cluster_refusal(m->env->cluster) : "corosync is gone");
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------------ */

int mig_new(struct env *env, struct mig_port *port, const struct mig_config *cfg, const json_t *past, const json_t *kept, struct mig **ret,
	    struct csv_err *err)
{
	struct mig *m = calloc(1, sizeof(*m));
	struct cluster_user u = { .suspend = on_suspend, .view = on_view, .msg = on_msg, .lost = on_lost, .arg = m };
	int rc;

	if (!m)
		return csv_err_set(err, -ENOMEM, "out of memory");
	m->env = env;
	m->port = port;
	m->cfg = *cfg;
	waitq_init(&m->changed);
	waitq_init(&m->look_wq);
	CDS_INIT_LIST_HEAD(&m->call_waits);
	CDS_INIT_LIST_HEAD(&m->requests);
	CDS_INIT_LIST_HEAD(&m->moves);
	CDS_INIT_LIST_HEAD(&m->proofs);
	m->call_id = env_rnd(env) >> 16;	/* so that answers to an earlier life are nobody's */
	m->event_n = env_rnd(env) >> 16;
	m->vms = json_object();
	m->said = json_object();
	mig_agent_init(m);
	mig_late_init(m);
	mig_known_load(m, kept);
	rc = m->vms && m->said ? mig_events_load(m, past) : -ENOMEM;
	if (!rc)
		rc = mig_leases_new(m);
	if (!rc)
		rc = mig_spawn(m, "look", mig_look_coro, m);
	if (!rc)
		rc = mig_spawn(m, "host", mig_host_coro, m);
	if (rc) {
		mig_free(m);
		return csv_err_set(err, rc, "out of memory");
	}
	cluster_register(env->cluster, MIG_CHAN, &u);
	*ret = m;
	return 0;
}

/* After the loop: coroutines are forgotten with the scheduler. */
void mig_free(struct mig *m)
{
	if (!m)
		return;
	mig_leases_free(m);
	mig_proof_free(m);
	mig_agent_done(m);
	mig_known_done(m);
	mig_items_free(m);
	mig_events_free(m);
	json_decref(m->host);
	json_decref(m->vms);
	json_decref(m->said);
	free(m);
}
