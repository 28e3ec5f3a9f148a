/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ctl_lock.c - lock list and show: what this node has cached, and what the lock manager's masters here know.
 */
#include "csvfs/ctl_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "utils/rpc/rpc_msg.h"

#define INT(x) ((json_int_t)(x))

bool ctl_lock_parse(const uint8_t *name, uint8_t len, struct csv_owner *ret)
{
	struct le32 type;
	struct le64 id;

	if (len != CSV_LOCKNAME_LEN)
		return false;
	memcpy(&type, name, 4);
	memcpy(&id, name + 4, 8);
	*ret = (struct csv_owner){ le32_get(type), le64_get(id) };
	return true;
}

static void name_text(struct csv_owner o, char ret[40])
{
	snprintf(ret, 40, "%s:%" PRIu64, mhdr_owner_name(o.type), o.id);
}

json_t *ctl_lock_name(struct csv_owner o)
{
	char text[40];

	name_text(o, text);
	return json_string(text);
}

/* A page of a walk: items [from, from + RPC_PAGE_ITEMS) of those that fit the filter. */
struct page { json_t *reply; struct dlm *d; const char *name; uint64_t ino, at, from; bool of_ino, more; };

/* The locks that one file or directory has. */
static bool is_of_inode(struct csv_owner o, uint64_t ino)
{
	switch (o.type) {
	case CSV_OWN_INODE: case CSV_OWN_OPEN: case CSV_OWN_VMAP: case CSV_OWN_VNEG: case CSV_OWN_PLOCK: case CSV_OWN_USE:
		return o.id == ino;
	default:
		return false;
	}
}

static bool page_wants(struct page *p, struct csv_owner o)
{
	char text[40];

	if (p->name) {
		name_text(o, text);
		if (strcmp(text, p->name))
			return false;
	}
	if (p->of_ino && !is_of_inode(o, p->ino))
		return false;
	if (p->at++ < p->from)
		return false;
	if (p->at > p->from + RPC_PAGE_ITEMS) {
		p->more = true;
		return false;
	}
	return true;
}

static bool add_cached(void *arg, const struct glock_info *i)
{
	struct page *p = arg;

	if (page_wants(p, i->owner))
		rpc_reply_add_take(p->reply, json_pack("{s:o, s:s, s:s, s:s, s:i, s:i, s:I, s:I}", "name", ctl_lock_name(i->owner), "role",
						       "cached", "mode", dlm_mode_name(i->mode), "wanted", dlm_mode_name(i->wanted),
						       "holders", (int)i->holders, "waiters", (int)i->waiters, "bounces", INT(i->bounces),
						       "held_ms", INT(i->held_ms)));
	return !p->more;
}

/* Whom a waiter waits for when that is a lost node, and what a person can do about it. */
static json_t *why(const struct dlm_holder_info *h, uint32_t n)
{
	const struct dlm_holder_info *lost = NULL;
	bool waiting = false;

	for (uint32_t i = 0; i < n; i++) {
		waiting |= h[i].waiting;
		if (h[i].phantom && (!lost || h[i].granted > lost->granted))
			lost = &h[i];
	}
	if (!lost)
		return json_string("");
	return json_sprintf("node %u is lost and held %s: kept until %s%s; if it is switched off for certain: csvctl node confirm-fenced %u --yes",
			    lost->nodeid, dlm_mode_name(lost->granted),
			    lost->granted < DLM_PW ? "it is fenced" : "it is fenced and its journal is replayed", waiting ? ", others wait" : "",
			    lost->nodeid);
}

static uint64_t longest(const struct dlm_holder_info *h, uint32_t n, bool waiting)
{
	uint64_t ms = 0;

	for (uint32_t i = 0; i < n; i++)
		if (h[i].waiting == waiting && h[i].since_ms > ms)
			ms = h[i].since_ms;
	return ms;
}

static json_t *mastered(struct dlm *d, struct csv_owner o, const uint8_t *name, uint8_t name_len, const struct dlm_holder_info *h, uint32_t n,
			json_t *grants)
{
	enum dlm_mode strongest = DLM_NL;
	struct dlm_res_stats s = { 0 };
	uint32_t waiters = 0;

	for (uint32_t i = 0; i < n; i++) {
		waiters += h[i].waiting;
		if (h[i].granted > strongest)
			strongest = h[i].granted;
	}
	dlm_res_stats(d, name, name_len, &s);
	return json_pack("{s:o, s:s, s:s, s:i, s:i, s:I, s:I, s:I, s:o, s:o, s:{s:I, s:I, s:I, s:I, s:I, s:I}}", "name", ctl_lock_name(o), "role",
			 "master", "mode", dlm_mode_name(strongest), "holders", (int)(n - waiters), "waiters", (int)waiters, "held_ms",
			 INT(longest(h, n, false)), "waited_ms", INT(longest(h, n, true)), "bounces", INT(s.bounces), "why", why(h, n), "grants",
			 grants, "stats", "grants", INT(s.grants), "refused", INT(s.refused), "waits", INT(s.waits), "wait_ms", INT(s.wait_ms),
			 "wait_max_ms", INT(s.wait_ms_max), "hold_max_ms", INT(s.hold_ms_max));
}

static bool add_mastered(void *arg, const uint8_t *name, uint8_t name_len, const struct dlm_holder_info *h, uint32_t n)
{
	struct page *p = arg;
	struct csv_owner o;
	json_t *list;

	if (!ctl_lock_parse(name, name_len, &o) || !page_wants(p, o))
		return !p->more;
	list = json_array();
	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(list, json_pack("{s:i, s:o, s:s, s:s, s:b, s:b, s:I}", "nodeid", (int)h[i].nodeid, "incarnation",
						      ctl_incarnation(h[i].incarnation), "mode", dlm_mode_name(h[i].granted), "wanted",
						      dlm_mode_name(h[i].wanted), "phantom", h[i].phantom, "waiting", h[i].waiting,
						      "since_ms", INT(h[i].since_ms)));
	rpc_reply_add_take(p->reply, mastered(p->d, o, name, name_len, h, n, list));
	return !p->more;
}

static json_t *stats(struct ctl *c)
{
	struct dlm_stats s;
	json_t *o;

	dlm_stats(csvfs_dlm(c->f->fs), &s);
	o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "messages_sent",
			 INT(s.messages_sent), "messages_received", INT(s.messages_received), "requests", INT(s.requests),
			 "remote_requests", INT(s.remote_requests), "grants", INT(s.grants), "blocking_callbacks", INT(s.basts),
			 "downgrades", INT(s.downgrades), "noqueue_refused", INT(s.noqueue_refused), "bad_messages", INT(s.bad_messages),
			 "recoveries", INT(s.recoveries), "recovery_us_last", INT(s.recovery_ns_last / 1000), "resources",
			 INT(s.resources), "locks", INT(s.locks), "phantoms", INT(s.phantoms), "waiting", INT(s.waiting));
	if (o)
		json_object_set_new(o, "stale_messages", json_integer(INT(s.stale_messages)));
	return o;
}

/* Locks are not given while they are recovered: how far that is, and on whom it waits. */
static void warn_recovery(struct ctl *c, json_t *reply)
{
	struct dlm_recovery_info r;
	char nodes[160] = "";
	size_t at = 0;

	dlm_recovery_info(csvfs_dlm(c->f->fs), &r);
	if (!r.waits_for || !r.waits_for[0])
		return;
	for (uint32_t i = 0; i < r.n_missing && at + 16 < sizeof(nodes); i++)
		at += (size_t)snprintf(nodes + at, sizeof(nodes) - at, "%s%u", i ? ", " : "; not heard of: node ", r.missing[i]);
	rpc_reply_warn(reply, "%s: locks are being recovered (%s) for %.1f s: %s%s; see csvctl cluster status and csvctl volume show", c->dir, r.state,
		       (double)r.since_ms / 1000, r.waits_for, nodes);
}

json_t *ctl_lock_list(struct ctl *c, const json_t *args)
{
	const json_t *from = json_object_get(args, "from");
	const json_t *ino = json_object_get(args, "ino");
	struct page p = { .name = json_string_value(json_object_get(args, "name")), .ino = (uint64_t)json_integer_value(ino), .of_ino = ino };

	if (!c->f->fs)
		return rpc_reply_error(RPC_CONFLICT, "%s: not mounted yet: it waits for the cluster, see: csvctl cluster status", c->dir);
	if (from && (!json_is_integer(from) || json_integer_value(from) < 0))
		return rpc_reply_error(RPC_USAGE, "from: must be 0 or more");
	if (ino && !json_is_integer(ino))
		return rpc_reply_error(RPC_USAGE, "ino: must be a number");
	if (p.of_ino && p.ino == 1)		/* FUSE's name for the root */
		p.ino = csvfs_root_ino(c->f->fs);
	p.from = (uint64_t)json_integer_value(from);
	p.d = csvfs_dlm(c->f->fs);
	p.reply = rpc_reply_new("lock");
	if (!p.reply)
		return NULL;
	json_object_set_new(p.reply, "stats", stats(c));
	if (!p.from && dlm_bad_reason(csvfs_dlm(c->f->fs))[0])
		rpc_reply_warn(p.reply, "%s: bad messages of other nodes were dropped (stats.bad_messages); the last one: %s: do all nodes run "
			       "the same version?", c->dir, dlm_bad_reason(csvfs_dlm(c->f->fs)));
	if (!p.from)
		warn_recovery(c, p.reply);
	glock_walk(c->f->fs, add_cached, &p);
	if (!p.more)
		dlm_walk(csvfs_dlm(c->f->fs), add_mastered, &p);
	if (p.more)
		json_object_set_new(p.reply, "next", json_integer(INT(p.from + RPC_PAGE_ITEMS)));
	else if (p.name && !json_array_size(json_object_get(p.reply, "items"))) {
		json_decref(p.reply);
		return rpc_reply_error(RPC_NOT_FOUND, "%s: nobody on this node has a lock of that name; csvctl lock list shows those there are",
				       p.name);
	}
	return p.reply;
}
