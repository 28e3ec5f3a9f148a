/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_job.c - long work: begun by a request, done by the leader, shown by every member.
 *
 *	{"id", "kind", "object", "state": "running|done|failed", "percent", "step", "code", "message", "result", "warnings", "by",
 *	 "began_real_ms", "took_ms"}
 *
 * A job whose leader is gone is ended as failed by the next one; what it had begun is not: leases and migrations go on by
 * themselves (MC1), and the message says where to look.
 *
 * One thread.
 */
#include "migrator/mig_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct run { struct mig_job j; void (*fn)(struct mig_job *j); bool done; };

static json_t *base(const struct mig_job *j, const char *state)
{
	uint64_t now = mig_now(j->m), real = clock_real_ns(j->m->env->clock);

	return json_pack("{s:s, s:s, s:s, s:s, s:i, s:s, s:i, s:I, s:I}", "id", j->id, "kind", j->kind, "object", j->object, "state", state,
			 "percent", (int)j->percent, "step", j->step, "by", (int)j->m->cfg.self, "began_real_ms",
			 (json_int_t)((real - (now - j->began_ns)) / NS_PER_MS), "took_ms", (json_int_t)((now - j->began_ns) / NS_PER_MS));
}

static void put(const struct mig_job *j, json_t *value_take)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "job/%s", j->id);
	mig_item_put_take(j->m, key, value_take);
}

static void run_coro(void *arg)
{
	struct run *r = arg;

	r->fn(&r->j);
	if (!r->done)
		mig_job_done_take(&r->j, RPC_BUG, NULL, "%s %s: the job has no end; this is a bug", r->j.kind, r->j.object);
	json_decref(r->j.args);
	json_decref(r->j.warnings);
	free(r);
}

static json_t *accepted(const struct mig_ask *a, const char *kind)
{
	json_t *reply = rpc_reply_new(kind);

	json_object_set_new(reply, "code", json_integer(RPC_ACCEPTED));
	json_object_set_new(reply, "job", json_string(a->id));
	rpc_reply_add_take(reply, json_pack("{s:s, s:s}", "job", a->id, "state", "running"));
	return reply;
}

json_t *mig_job_again(struct mig *m, const char *id)
{
	char key[MIG_KEY_MAX];
	struct mig_ask a = { .m = m, .id = id };

	snprintf(key, sizeof(key), "job/%s", id);
	return mig_item_get(m, key) ? accepted(&a, mig_text(mig_item_get(m, key), "kind")) : NULL;
}

json_t *mig_job_start(const struct mig_ask *a, const char *kind, const char *object, void (*fn)(struct mig_job *j))
{
	char key[MIG_KEY_MAX];
	struct run *r;

	snprintf(key, sizeof(key), "job/%s", a->id);
	if (mig_item_get(a->m, key))
		return accepted(a, kind);
	r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->fn = fn;
	r->j.m = a->m;
	r->j.from = a->from;
	r->j.began_ns = mig_now(a->m);
	r->j.args = json_incref((json_t *)a->args);
	r->j.warnings = json_array();
	snprintf(r->j.id, sizeof(r->j.id), "%s", a->id);
	snprintf(r->j.kind, sizeof(r->j.kind), "%s", kind);
	snprintf(r->j.object, sizeof(r->j.object), "%s", object);
	put(&r->j, base(&r->j, "running"));
	if (mig_spawn(a->m, "job", run_coro, r)) {
		mig_job_done_take(&r->j, RPC_FAILED, NULL, "out of memory");
		json_decref(r->j.args);
		json_decref(r->j.warnings);
		free(r);
	}
	return accepted(a, kind);
}

void mig_job_step(struct mig_job *j, unsigned percent, const char *fmt, ...)
{
	char text[sizeof(j->step)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!strcmp(text, j->step) && percent == j->percent)
		return;
	memcpy(j->step, text, sizeof(text));
	j->percent = percent;
	put(j, base(j, "running"));
}

void mig_job_done_take(struct mig_job *j, enum rpc_code code, json_t *result, const char *fmt, ...)
{
	struct run *r = container_of(j, struct run, j);
	char text[512];
	va_list ap;
	json_t *v;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	csv_assert(!r->done);
	r->done = true;
	if (!code)
		j->percent = 100;
	v = base(j, code ? "failed" : "done");
	json_object_set_new(v, "code", json_integer(code));
	json_object_set_new(v, "message", json_string(text));
	json_object_set(v, "warnings", j->warnings);
	if (result)
		json_object_set_new(v, "result", result);
	put(j, v);
}

/* ---- shown ------------------------------------------------------------------------------------------------------------------------------ */

json_t *mig_job_show(struct mig *m, const json_t *args)
{
	char key[MIG_KEY_MAX];
	const json_t *j;
	json_t *reply;

	snprintf(key, sizeof(key), "job/%.80s", mig_text(args, "id"));
	j = mig_item_get(m, key);
	if (!j)
		return rpc_reply_error(RPC_NOT_FOUND, "job %s: not known here; see: csvctl job list", mig_text(args, "id"));
	reply = rpc_reply_new("job");
	rpc_reply_add_take(reply, json_incref((json_t *)j));
	return reply;
}

static bool add(void *arg, const char *key, const json_t *value)
{
	(void)key;
	rpc_reply_add_take(arg, json_incref((json_t *)value));
	return true;
}

json_t *mig_job_list(struct mig *m, const json_t *args)
{
	json_t *reply = rpc_reply_new("job");

	(void)args;
	mig_items_each(m, "job/", add, reply);
	return reply;
}

/* ---- a new leader ------------------------------------------------------------------------------------------------------------------------- */

struct orphans { struct mig *m; char key[MIG_JOBS_MAX][MIG_KEY_MAX]; unsigned n; };

static bool find_orphan(void *arg, const char *key, const json_t *value)
{
	struct orphans *o = arg;
	uint32_t by = (uint32_t)mig_int(value, "by");

	if (strcmp(mig_text(value, "state"), "running") || mig_is_member(o->m, by) || o->n == ARRAY_SIZE(o->key))
		return true;
	snprintf(o->key[o->n++], MIG_KEY_MAX, "%s", key);
	return true;
}

/* A VM that was being deleted: what is left of it is a VM again, or its definition is gone. */
static void deleting_ends(struct mig *m, const json_t *job)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "deleting/%.*s", LEASE_NAME_BYTES, mig_text(job, "object"));
	if (!strcmp(mig_text(job, "kind"), "delete") && mig_item_get(m, key))
		mig_item_put_take(m, key, NULL);
}

void mig_jobs_view(struct mig *m)
{
	struct orphans *o = mig_is_leader(m) ? calloc(1, sizeof(*o)) : NULL;

	if (!o)
		return;
	o->m = m;
	mig_items_each(m, "job/", find_orphan, o);
	for (unsigned i = 0; i < o->n; i++) {
		json_t *v = json_deep_copy(mig_item_get(m, o->key[i]));

		deleting_ends(m, v);

		json_object_set_new(v, "state", json_string("failed"));
		json_object_set_new(v, "code", json_integer(RPC_NO_QUORUM));
		json_object_set_new(v, "message", json_sprintf("%s %s: its leader, %s, was lost meanwhile; what it began goes on by itself; "
							       "see: csvctl vm list, csvctl event list", mig_text(v, "kind"),
							       mig_text(v, "object"), mig_node_name(m, (uint32_t)mig_int(v, "by"))));
		mig_item_put_take(m, o->key[i], v);
	}
	free(o);
}
