/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ctl.c - see ctl.h: the socket, the table of verbs.
 */
#include "csvfs/ctl_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "utils/base/text.h"

static const struct { const char *verb; json_t *(*fn)(struct ctl *c, const json_t *args); } verbs[] = {
	{ "cluster.status", ctl_cluster_status }, { "node.list", ctl_node_list }, { "volume.list", ctl_volume_list },
	{ "volume.show", ctl_volume_show }, { "lock.list", ctl_lock_list }, { "lock.show", ctl_lock_list },
	{ "image.list", ctl_image_list }, { "node.confirm-fenced", ctl_node_confirm_fenced },
};

struct running { struct ctl *c; struct rpc_call *call; };

static void run_coro(void *arg)
{
	struct running r = *(struct running *)arg;
	const char *verb = rpc_call_verb(r.call);
	json_t *reply = NULL;
	size_t i;

	free(arg);
	for (i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(verb, verbs[i].verb))
			break;
	if (i < ARRAY_SIZE(verbs) && r.c->f->moving) {
		reply = rpc_reply_error(RPC_CONFLICT, "%s: the others went on without this node; it is joining anew", r.c->dir);
	} else if (i < ARRAY_SIZE(verbs)) {
		r.c->f->inside++;
		reply = verbs[i].fn(r.c, rpc_call_args(r.call));
		life_leave(r.c->f);
	} else {
		reply = rpc_reply_error(RPC_USAGE, "csvfsd knows no \"%s\"; is csvctl of a newer version than the running daemon?", verb);
	}
	rpc_call_reply_take(r.call, reply);
}

static void on_request(void *arg, struct rpc_call *call)
{
	struct ctl *c = arg;
	struct running *r = malloc(sizeof(*r));

	if (r)
		*r = (struct running){ c, call };
	if (!r || sched_spawn(c->w->sched, "ctl", run_coro, r)) {
		free(r);
		rpc_call_reply_take(call, NULL);
	}
}

int ctl_start(struct world *w, struct fused *f, const struct csvfsd_options *opt, struct ctl **ret, struct csv_err *err)
{
	struct ctl *c = calloc(1, sizeof(*c));
	char name[64];
	int rc;

	if (!c)
		return csv_err_set(err, -ENOMEM, "out of memory");
	c->w = w;
	c->f = f;
	c->opt = opt;
	c->started_ns = clock_mono_ns(&w->clock);
	if (!realpath(opt->dir, c->dir))
		snprintf(c->dir, sizeof(c->dir), "%s", opt->dir);
	rc = cluster_facts_read(&c->facts, err);
	snprintf(name, sizeof(name), "csvfs-%016" PRIx64, w->geo.lockspace);
	if (!rc)
		rc = rpc_server_new(w->loop, &w->log, name, 0, on_request, c, &c->srv, err);
	if (rc) {
		free(c);
		return rc;
	}
	*ret = c;
	return 0;
}

void ctl_stop(struct ctl *c)
{
	if (!c)
		return;
	rpc_server_free(c->srv);
	free(c);
}

/* ---- cluster and nodes ------------------------------------------------------------------------------------------------------- */

json_t *ctl_incarnation(uint64_t incarnation)
{
	char text[20];

	snprintf(text, sizeof(text), "%016" PRIx64, incarnation);
	return json_string(text);
}

/* Which versions the link to a member settled on, and why there is no link. */
json_t *ctl_link(struct ctl *c, uint32_t nodeid)
{
	struct real_link_info i;

	if (nodeid == cluster_self(c->w->env.cluster) || !real_link_info(c->w->link_port, nodeid, &i))
		return json_null();
	return json_pack("{s:b, s:s, s:i, s:i, s:i, s:i, s:i, s:s}", "up", i.up, "address", i.where, "mesh_version", (int)i.mesh_version,
			 "peer_mesh_min", (int)i.mesh.min, "peer_mesh_max", (int)i.mesh.max, "peer_messages_min", (int)i.messages.min,
			 "peer_messages_max", (int)i.messages.max, "refusal", i.refusal);
}

/* Of the messages between the members: settled in this view, and what this node speaks. */
json_t *ctl_protocol(struct ctl *c)
{
	const struct cluster_view *v = cluster_current(c->w->env.cluster);
	struct proto_range r = cluster_versions(c->w->env.cluster);

	return json_pack("{s:i, s:i, s:i, s:I, s:I, s:s}", "messages_version", v ? (int)v->version : 0, "messages_min", (int)r.min,
			 "messages_max", (int)r.max, "refused_members", (json_int_t)cluster_stats(c->w->env.cluster)->refused,
			 "refused_links", (json_int_t)real_link_stats(c->w->link_port)->refused_version, "last_refusal",
			 cluster_refusal(c->w->env.cluster));
}

json_t *ctl_cluster_status(struct ctl *c, const json_t *args)
{
	const struct cluster_view *v = cluster_current(c->w->env.cluster);
	const struct cluster_stats *st = cluster_stats(c->w->env.cluster);
	json_t *reply = rpc_reply_new("cluster");

	(void)args;
	if (!reply)
		return NULL;
	rpc_reply_add_take(reply, json_pack("{s:s, s:s, s:b, s:b, s:i, s:i, s:I, s:I, s:o}", "name", c->facts.cluster_name, "volume", c->dir,
					    "quorate", v != NULL, "crypto", c->facts.crypto, "members", v ? (int)v->n : 0, "nodes",
					    (int)c->facts.nodes, "views", (json_int_t)st->views, "suspends", (json_int_t)st->suspends,
					    "protocol", ctl_protocol(c)));
	return reply;
}

json_t *ctl_node_list(struct ctl *c, const json_t *args)
{
	const struct cluster_view *v = cluster_current(c->w->env.cluster);
	json_t *reply = rpc_reply_new("node");

	(void)args;
	for (uint32_t i = 0; reply && v && i < v->n; i++)
		rpc_reply_add_take(reply, json_pack("{s:i, s:o, s:s, s:b, s:I, s:o}", "nodeid", (int)v->m[i].nodeid, "incarnation",
						    ctl_incarnation(v->m[i].incarnation), "volume", c->dir, "self",
						    v->m[i].nodeid == cluster_self(c->w->env.cluster), "unacknowledged_ms",
						    (json_int_t)mesh_unacked_ms(c->w->env.mesh, v->m[i].nodeid), "link",
						    ctl_link(c, v->m[i].nodeid)));
	return reply;
}

/* A person's word that a lost node is off; a node can have several lost lives, and the word covers all of them. */
struct unproven { uint32_t nodeid; unsigned n; };

static bool count_unproven(void *arg, const struct csvfs_recovery_info *i)
{
	struct unproven *u = arg;

	u->n += i->who.nodeid == u->nodeid && !i->fenced;
	return true;
}

json_t *ctl_node_confirm_fenced(struct ctl *c, const json_t *args)
{
	struct unproven u = { .nodeid = (uint32_t)json_integer_value(json_object_get(args, "nodeid")) };
	bool dry_run = json_is_true(json_object_get(args, "dry_run"));
	struct csv_err err = CSV_ERR_INIT;
	json_t *reply;
	int rc = 0;

	if (!u.nodeid)
		return rpc_reply_error(RPC_USAGE, "nodeid is missing");
	if (!c->f->fs)
		return rpc_reply_error(RPC_CONFLICT, "%s: still mounting", c->dir);
	csvfs_recovery_walk(c->f->fs, count_unproven, &u);
	for (unsigned i = 0; i < u.n && !rc && !dry_run; i++)
		rc = csvfs_confirm_fenced(c->f->fs, u.nodeid, &err);
	if (rc == -ENOENT)
		rc = 0;			/* proven meanwhile */
	if (rc)
		return rpc_reply_error(rc == -EBUSY || rc == -CSV_E_BUSY_ELSEWHERE ? RPC_REFUSED : rpc_code_of(rc), "%s: %s", c->dir, err.text);
	reply = rpc_reply_new("node");
	if (reply)
		rpc_reply_add_take(reply, json_pack("{s:i, s:s, s:s}", "nodeid", (int)u.nodeid, "volume", c->dir, "result",
						    !u.n ? "nothing waits for it" : dry_run ? "would be recovered" : "confirmed"));
	return reply;
}

/* ---- images: who has them open how ---------------------------------------------------------------------------------------------- */

static const char *use_name(enum csvfs_use k)
{
	return k == CSVFS_USE_RAW ? "raw" : "plain";
}

json_t *ctl_image_list(struct ctl *c, const json_t *args)
{
	uint64_t now = clock_mono_ns(&c->w->clock), k, n;
	json_t *reply = rpc_reply_new("image"), *refusals;
	json_int_t from = json_integer_value(json_object_get(args, "from")), at = 0;
	const struct use *u;
	char name[24];

	if (!reply || from < 0)
		return reply;
	for (u = c->f->uses; u; u = u->next) {
		if (at++ < from)
			continue;
		if (at > from + (json_int_t)RPC_PAGE_ITEMS) {
			json_object_set_new(reply, "next", json_integer(at - 1));
			break;
		}
		snprintf(name, sizeof(name), "%" PRIu64, u->ino);
		rpc_reply_add_take(reply, json_pack("{s:s, s:s, s:s, s:b, s:I, s:s, s:I, s:s, s:s}", "inode", name, "path", u->path, "use", use_name(u->kind), "writing",
						    u->writing, "pid", (json_int_t)u->pid, "process", u->process, "open_ms",
						    (json_int_t)((now - u->since_ns) / NS_PER_MS), "node", c->w->node_name, "volume", c->dir));
	}
	refusals = json_array();
	n = c->f->refusals;
	for (k = n > USE_REFUSALS ? n - USE_REFUSALS : 0; k < n; k++) {
		const struct use_refusal *r = &c->f->refusal[k % USE_REFUSALS];

		snprintf(name, sizeof(name), "%" PRIu64, r->ino);
		json_array_append_new(refusals, json_pack("{s:s, s:s, s:I, s:i, s:I, s:s}", "inode", name, "wanted", use_name(r->kind), "age_ms",
							  (json_int_t)((now - r->at_ns) / NS_PER_MS), "busy_nodeid", (int)r->who.nodeid,
							  "busy_pid", (json_int_t)r->who.pid, "busy_process", r->who.process));
	}
	json_object_set_new(reply, "refusals", refusals);
	return reply;
}
