/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ctl_volume.c - volume list and show: state and why, members, recoveries and what they wait for, phantoms, space, counters.
 */
#include "csvfs/ctl_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "utils/base/text.h"
#include "utils/rpc/rpc_msg.h"

const char *ctl_state_name(enum csvfs_state st)
{
	static const char *const name[] = { "JOINING", "ACTIVE", "PAUSED", "WITHDRAWN" };

	return name[st];
}

#define INT(x) ((json_int_t)(x))

static void set(json_t *obj, const char *key, json_t *value)
{
	json_object_set_new(obj, key, value);
}

/* ---- free space, at most CTL_DISK_MS of it (CT1) ---------------------------------------------------------------------------- */

struct space { struct csvfs *fs; struct csvfs_statfs st; int rc; bool done; unsigned refs; struct waitq wq; };

static void space_put(struct space *s)
{
	if (!--s->refs)
		free(s);
}

static void space_coro(void *arg)
{
	struct space *s = arg;

	s->rc = csvfs_statfs(s->fs, &s->st);
	s->done = true;
	sched_wake_all(s->fs->env->sched, &s->wq);
	space_put(s);
}

static int space_get(struct ctl *c, struct csvfs_statfs *ret)
{
	struct space *s = calloc(1, sizeof(*s));
	uint64_t end = clock_mono_ns(&c->w->clock) + CTL_DISK_MS * NS_PER_MS;
	int rc;

	if (!s)
		return -ENOMEM;
	s->fs = c->f->fs;
	s->refs = 2;
	waitq_init(&s->wq);
	rc = fs_spawn(c->f->fs, "ctl space", space_coro, s);
	if (rc) {
		free(s);
		return rc;
	}
	while (!s->done && !rc)
		rc = sched_wait_until(c->w->sched, &s->wq, end, false);
	if (s->done)
		rc = s->rc;
	if (!rc)
		*ret = s->st;
	space_put(s);
	return rc;
}

/* Said with every answer about a volume: people must not have to look for it. */
struct unrecovered { struct ctl *c; json_t *reply; };

static bool warn_unrecovered(void *arg, const struct csvfs_recovery_info *i)
{
	struct unrecovered *u = arg;

	if (!i->replayed)
		rpc_reply_warn(u->reply, "%s: node %u is lost and not recovered: %s", u->c->dir, i->who.nodeid,
			       i->why[0] ? i->why : i->fenced ? "its journal is to be replayed" : "waiting for its fence");
	return true;
}

struct evicted { struct ctl *c; json_t *reply, *list; };

static bool warn_evicted(void *arg, const struct csvfs_eviction_info *i)
{
	struct evicted *e = arg;

	rpc_reply_warn(e->reply, "%s: node %u was evicted %llu s ago: %s", e->c->dir, i->who.nodeid,
		       (unsigned long long)(clock_mono_ns(&e->c->w->clock) - i->at_ns) / NS_PER_SEC, i->why);
	return true;
}

static bool add_evicted(void *arg, const struct csvfs_eviction_info *i)
{
	struct evicted *e = arg;

	json_array_append_new(e->list, json_pack("{s:i, s:o, s:I, s:s}", "nodeid", (int)i->who.nodeid, "incarnation",
						 ctl_incarnation(i->who.incarnation), "age_ms",
						 INT((clock_mono_ns(&e->c->w->clock) - i->at_ns) / NS_PER_MS), "why", i->why));
	return true;
}

/* ---- what both verbs say ------------------------------------------------------------------------------------------------------- */

static json_t *summary(struct ctl *c, json_t *reply)
{
	const struct csv_geom *g = &c->w->geo;
	struct csvfs *fs = c->f->fs;
	const struct cluster_view *v = cluster_current(c->w->env.cluster);
	const char *why = "mounting";
	enum csvfs_state st = fs ? csvfs_state(fs, &why) : CSVFS_JOINING;
	bool pausing = st == CSVFS_WITHDRAWN && life_may_come_back(c->f);	/* R11 */
	char reason[256];
	char uuid[CSV_UUID_TEXT_BYTES], lockspace[20];
	struct csvfs_statfs sp;
	json_t *o;
	int rc;

	if (pausing)
		st = CSVFS_PAUSED;
	snprintf(reason, sizeof(reason), "%s", why);	/* the volume may be gone after an await */
	snprintf(lockspace, sizeof(lockspace), "%016" PRIx64, g->lockspace);
	o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:b}", "name", g->label[0] ? g->label : c->dir, "dir", c->dir,
		      "device", c->opt->device, "uuid", csv_uuid_to_text(g->uuid, uuid), "lockspace", lockspace, "state",
		      ctl_state_name(st), "reason", reason, "node", c->w->node_name, "nodeid", (int)cluster_self(c->w->env.cluster),
		      "members", v ? (int)v->n : 0, "read_only", c->opt->read_only);
	if (!o)
		return NULL;
	set(o, "slot", fs && csvfs_slot(fs) != CSV_NO_SLOT ? json_integer(csvfs_slot(fs)) : json_null());
	set(o, "size_bytes", json_integer(INT(g->total_blk) << CSV_BLOCK_SHIFT));
	rc = fs && st != CSVFS_WITHDRAWN && !pausing ? space_get(c, &sp) : -ENODEV;
	set(o, "free_bytes", rc ? json_null() : json_integer(INT(sp.bavail) * sp.bsize));
	set(o, "protocol", ctl_protocol(c));
	if (*cluster_refusal(c->w->env.cluster))
		rpc_reply_warn(reply, "%s: %llu times a node could not become a member, the last time: %s", c->dir,
			       (unsigned long long)cluster_stats(c->w->env.cluster)->refused, cluster_refusal(c->w->env.cluster));
	if (rc == -ETIMEDOUT)
		rpc_reply_warn(reply, "%s: free space unknown: the disk did not answer within %u ms", c->dir, CTL_DISK_MS);
	if (fs && st != CSVFS_ACTIVE)
		rpc_reply_warn(reply, "%s: %s: %s", c->dir, ctl_state_name(st), reason);
	if (c->f->fs)
		csvfs_recovery_walk(c->f->fs, warn_unrecovered, &(struct unrecovered){ c, reply });
	if (c->f->fs)
		csvfs_eviction_walk(c->f->fs, warn_evicted, &(struct evicted){ c, reply, NULL });
	return o;
}

json_t *ctl_volume_list(struct ctl *c, const json_t *args)
{
	json_t *reply = rpc_reply_new("volume");

	(void)args;
	if (reply)
		rpc_reply_add_take(reply, summary(c, reply));
	return reply;
}

/* ---- show ------------------------------------------------------------------------------------------------------------------------ */

static json_t *members(struct ctl *c)
{
	const struct cluster_view *v = cluster_current(c->w->env.cluster);
	json_t *a = json_array();

	for (uint32_t i = 0; v && i < v->n; i++)
		json_array_append_new(a, json_pack("{s:i, s:o, s:o, s:I}", "nodeid", (int)v->m[i].nodeid, "link",
						   ctl_link(c, v->m[i].nodeid), "incarnation",
						   ctl_incarnation(v->m[i].incarnation), "unacknowledged_ms",
						   INT(mesh_unacked_ms(c->w->env.mesh, v->m[i].nodeid))));
	return a;
}

/* Milliseconds after the loss; null: not yet.  A life may say that it is gone before the others lose it. */
static json_t *after(uint64_t t, uint64_t lost)
{
	return !t ? json_null() : json_integer(t > lost ? INT((t - lost) / NS_PER_MS) : 0);
}

struct recoveries { json_t *list; uint64_t now; };

static bool add_recovery(void *arg, const struct csvfs_recovery_info *i)
{
	struct recoveries *r = arg;
	json_t *o = json_pack("{s:i, s:o, s:o, s:b, s:b, s:s, s:s}", "nodeid", (int)i->who.nodeid, "incarnation",
			      ctl_incarnation(i->who.incarnation), "slot", i->slot == CSV_NO_SLOT ? json_null() : json_integer(i->slot),
			      "fenced", i->fenced, "replayed", i->replayed, "proof", i->fenced ? slot_proof_name(i->proof) : "", "waits_for",
			      i->replayed ? "" : i->why);

	if (!o)
		return true;
	set(o, "age_ms", json_integer(INT((r->now - i->lost_ns) / NS_PER_MS)));
	set(o, "fenced_after_ms", after(i->fenced_ns, i->lost_ns));
	set(o, "replay_began_after_ms", after(i->replay_start_ns, i->lost_ns));
	set(o, "replayed_after_ms", after(i->replayed_ns, i->lost_ns));
	set(o, "records", json_integer(i->stats.records));
	set(o, "blocks_written", json_integer(i->stats.blocks_written));
	json_array_append_new(r->list, o);
	return true;
}

/* Locks of lost nodes that stand, and who waits for them; of the resources mastered here. */
struct phantoms { json_t *list; unsigned n, waited; };

static bool add_phantom(void *arg, const uint8_t *name, uint8_t name_len, const struct dlm_holder_info *h, uint32_t n)
{
	struct phantoms *p = arg;
	struct csv_owner o;
	uint32_t i, k;

	for (i = 0; i < n; i++) {
		json_t *waiters;

		if (!h[i].phantom)
			continue;
		p->n++;
		if (!ctl_lock_parse(name, name_len, &o) || json_array_size(p->list) >= CTL_PHANTOMS_MAX)
			continue;
		waiters = json_array();
		for (k = 0; k < n; k++)
			if (h[k].waiting)
				json_array_append_new(waiters, json_pack("{s:i, s:s, s:I}", "nodeid", (int)h[k].nodeid, "mode",
									 dlm_mode_name(h[k].wanted), "age_ms", INT(h[k].since_ms)));
		p->waited += json_array_size(waiters) > 0;
		json_array_append_new(p->list, json_pack("{s:o, s:i, s:o, s:s, s:o}", "lock", ctl_lock_name(o), "nodeid",
							 (int)h[i].nodeid, "incarnation", ctl_incarnation(h[i].incarnation), "mode",
							 dlm_mode_name(h[i].granted), "waiters", waiters));
	}
	return true;
}

static json_t *io_counters(struct ctl *c)
{
	struct dp_stats s = { 0 };

	if (c->f->dp)
		dp_stats(c->f->dp, &s);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "fast_reads", INT(s.fast_reads), "fast_writes", INT(s.fast_writes),
			 "slow_reads", INT(c->f->served[FOP_READ]), "slow_writes", INT(c->f->served[FOP_WRITE]), "slow_gate",
			 INT(s.slow_gate), "slow_map", INT(s.slow_map), "gate_closes", INT(s.gate_closes));
}

static json_t *mesh_counters(struct ctl *c)
{
	const struct mesh_stats *s = mesh_stats(c->w->env.mesh);
	const struct real_link_stats *l = real_link_stats(c->w->link_port);

	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "payload_bytes_sent", INT(s->sent_bytes),
			 "payload_bytes_received", INT(s->received_bytes), "lock_messages_sent", INT(s->sent[CHAN_DLM]),
			 "fs_messages_sent", INT(s->sent[CHAN_FS]), "resent", INT(s->resent), "dropped_old_view", INT(s->dropped_old_view),
			 "dropped_bad", INT(s->dropped_bad), "connects", INT(s->connects), "tcp_bytes_sent", INT(l->bytes_sent),
			 "links_refused", INT(l->refused), "links_refused_version", INT(l->refused_version), "bad_frames", INT(l->bad_frames));
}

static json_t *journal_usage(struct csvfs *fs)
{
	struct jnl_stats s = { 0 };

	if (!csvfs_jnl(fs))
		return json_null();
	jnl_stats(csvfs_jnl(fs), &s);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "used_blocks", INT(s.used_blk), "len_blocks", INT(s.len_blk),
			 "commits", INT(s.commits), "commit_blocks", INT(s.commit_blocks), "flushes", INT(s.flushes), "releases",
			 INT(s.releases), "checkpoints", INT(s.checkpoints), "revokes", INT(s.revokes), "stalls", INT(s.stalls));
}

static json_t *control_counters(struct ctl *c)
{
	struct rpc_server_stats s;

	rpc_server_stats(c->srv, &s);
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "calls", INT(s.calls), "refused_uid", INT(s.refused_uid), "refused_connections",
			 INT(s.refused_many), "bad_requests", INT(s.bad_requests), "lost_clients", INT(s.lost_clients));
}

static void show_core(struct ctl *c, json_t *o, json_t *reply)
{
	struct csvfs *fs = c->f->fs;
	struct recoveries r = { json_array(), clock_mono_ns(&c->w->clock) };
	struct phantoms p = { .list = json_array() };
	struct evicted e = { c, reply, json_array() };

	csvfs_eviction_walk(fs, add_evicted, &e);
	set(o, "evictions", e.list);
	csvfs_recovery_walk(fs, add_recovery, &r);
	dlm_walk(csvfs_dlm(fs), add_phantom, &p);
	set(o, "recoveries", r.list);
	set(o, "phantoms", p.list);
	set(o, "phantom_count", json_integer(p.n));
	set(o, "journal", journal_usage(fs));
	if (p.waited)
		rpc_reply_warn(reply, "%s: %u locks of lost nodes are waited for; they fall when those nodes are recovered", c->dir, p.waited);
}

json_t *ctl_volume_show(struct ctl *c, const json_t *args)
{
	const struct cluster_view *v = cluster_current(c->w->env.cluster);
	json_t *reply = rpc_reply_new("volume"), *o = reply ? summary(c, reply) : NULL;

	(void)args;
	if (!o) {
		json_decref(reply);
		return NULL;
	}
	set(o, "incarnation", ctl_incarnation(cluster_incarnation(c->w->env.cluster)));
	set(o, "uptime_ms", json_integer(INT((clock_mono_ns(&c->w->clock) - c->started_ns) / NS_PER_MS)));
	set(o, "view", v ? json_pack("{s:i, s:I}", "nodeid", (int)v->ring.nodeid, "seq", INT(v->ring.seq)) : json_null());
	set(o, "member_list", members(c));
	set(o, "slots", json_integer(c->w->geo.slots));
	set(o, "io", io_counters(c));
	set(o, "mesh", mesh_counters(c));
	set(o, "control", control_counters(c));
	set(o, "open_requests", json_integer(HASH_COUNT(c->f->ops)));
	if (c->f->fs)
		show_core(c, o, reply);
	rpc_reply_add_take(reply, o);
	return reply;
}
