/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_event.c - the event log: what a person wants to know afterwards, in one order a node, bounded, durable through the port.
 *
 *	{"seq", "time", "node", "level": "info|warning|error", "object", "text", "command", "id", "late"}
 *
 * "id" is the same in every log: NODEID-NUMBER, in hexadecimal, counted by the node that it happened on, from a random number in each life of
 * its migratord.  "late": this node was away when it happened (mig_late.c).
 *
 * Invariants
 *  ME1 An event is in the log of the node it happened on before anything follows from it, and in that of every member that shares
 *      the view; `seq` counts in each node's own log, as they came.
 *  ME2 At most MIG_EVENTS_MAX are kept; what comes late, once.
 *  ME3 What is told as it happens stands in the order in which it was told, whatever the clocks of the nodes say; what comes late stands
 *      behind the last one whose time is not later than its own.
 *
 * One thread.
 */
#include "migrator/mig_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void time_text(uint64_t real_ns, char *ret, size_t size)
{
	time_t t = (time_t)(real_ns / NS_PER_SEC);
	struct tm tm;
	size_t n;

	gmtime_r(&t, &tm);
	n = strftime(ret, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ret + n, size - n, ".%03uZ", (unsigned)(real_ns / NS_PER_MS % 1000));
}

static json_t *id_new(struct mig_event_id id)
{
	return json_sprintf("%" PRIu32 "-%" PRIx64, id.node, id.n);
}

/* Of text that anybody may have said; 0, 0: it is none. */
static struct mig_event_id id_get(const json_t *e)
{
	const char *s = mig_text(e, "id"), *hex = strchr(s, '-');
	struct mig_event_id id = { 0, 0 };
	unsigned long long node;

	if (!hex || hex - s > 10 || strspn(s, "0123456789") != (size_t)(hex - s) || hex == s || strlen(hex + 1) > 15 || !hex[1] ||
	    strspn(hex + 1, "0123456789abcdef") != strlen(hex + 1))
		return id;
	node = strtoull(s, NULL, 10);
	if (node > UINT32_MAX)
		return id;
	id = (struct mig_event_id){ (uint32_t)node, strtoull(hex + 1, NULL, 16) };
	return id.node && id.n ? id : (struct mig_event_id){ 0, 0 };
}

static bool is_known(const struct mig *m, struct mig_event_id id)
{
	for (unsigned i = m->events; id.node && i-- > 0;)
		if (m->event[i].id.node == id.node && m->event[i].id.n == id.n)
			return true;
	return false;
}

/* ME3: where one of this time belongs that comes late. */
static unsigned place_of(const struct mig *m, const char *time)
{
	unsigned at = m->events;

	while (at && strcmp(mig_text(m->event[at - 1].value, "time"), time) > 0)
		at--;
	return at;
}

/* Before [at].  ME2: if there is no room the oldest goes, so `at` is not 0 then. */
static void keep(struct mig *m, json_t *e, unsigned at, bool durable)
{
	struct mig_event new = { ++m->event_seq, id_get(e), json_incref(e) };
	char *text;

	json_object_set_new(e, "seq", json_integer((json_int_t)new.seq));
	if (m->events == MIG_EVENTS_MAX) {
		json_decref(m->event[0].value);
		memmove(&m->event[0], &m->event[1], (--at) * sizeof(new));
	} else {
		memmove(&m->event[at + 1], &m->event[at], (m->events++ - at) * sizeof(new));
	}
	m->event[at] = new;
	if (!durable)
		return;
	text = json_dumps(e, JSON_COMPACT);
	if (text)
		m->port->ops->event_append(m->port, text);
	free(text);
	sched_wake_all(m->env->sched, &m->changed);
}

void mig_event(struct mig *m, const char *level, const char *object, const char *command, const char *fmt, ...)
{
	char text[600], when[40];
	va_list ap;
	json_t *e;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	time_text(clock_real_ns(m->env->clock), when, sizeof(when));
	mig_log(m, !strcmp(level, "error") ? LOG_L_ERR : !strcmp(level, "warning") ? LOG_L_WARN : LOG_L_NOTE, "%s%s%s%s%s", object,
		*object ? ": " : "", text, *command ? "; " : "", command);
	e = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:o}", "seq", 0, "time", when, "node", mig_node_name(m, m->cfg.self), "level", level,
		      "object", object, "text", text, "command", command, "id", id_new((struct mig_event_id){ m->cfg.self, ++m->event_n }));
	if (!e)
		return;
	keep(m, e, m->events, true);
	if (m->view)
		mig_send_take(m, json_pack("{s:s, s:O}", "t", "event", "e", e));
	json_decref(e);
}

/* Of another node: its parts, bounded; NULL: malformed. */
static json_t *copy_of(const json_t *e, bool late)
{
	static const struct { const char *key; size_t max; } part[] = { { "time", 24 }, { "node", MIG_NAME_MAX }, { "level", 8 }, { "object", 200 },
									{ "text", 600 }, { "command", 2000 }, { "id", 32 } };
	static const char form[] = "0000-00-00T00:00:00.000Z";
	const char *time = mig_text(e, "time");
	json_t *copy = json_pack("{s:i}", "seq", 0);

	for (size_t i = 0; i < ARRAY_SIZE(part); i++) {
		const char *text = mig_text(e, part[i].key);

		if (strlen(text) > part[i].max) {
			json_decref(copy);
			return NULL;
		}
		json_object_set_new(copy, part[i].key, json_string(text));
	}
	for (size_t i = 0; i < sizeof(form); i++)
		if (form[i] == '0' ? time[i] < '0' || time[i] > '9' : time[i] != form[i]) {
			json_decref(copy);
			return NULL;
		}
	if (late)
		json_object_set_new(copy, "late", json_true());
	return copy;
}

void mig_event_got(struct mig *m, uint32_t from, const json_t *msg)
{
	json_t *e = copy_of(json_object_get(msg, "e"), false);
	struct mig_event_id id = id_get(e);

	if (!e || (id.node && id.node != from))
		mig_log(m, LOG_L_WARN, "node %u: an event is malformed: ignored", from);
	else
		keep(m, e, m->events, true);	/* no matter who said before that it has this one: it comes once, from where it happened */
	json_decref(e);
}

bool mig_event_late(struct mig *m, const json_t *told)
{
	json_t *e = copy_of(told, true);
	struct mig_event_id id = id_get(e);
	unsigned at = e ? place_of(m, mig_text(e, "time")) : 0;
	bool fits = e && id.node && !is_known(m, id) && (at || m->events < MIG_EVENTS_MAX);

	if (fits)
		keep(m, e, at, true);
	json_decref(e);
	return fits;
}

const struct mig_event *mig_event_back(const struct mig *m, unsigned back)
{
	return back < m->events ? &m->event[m->events - 1 - back] : NULL;
}

json_t *mig_event_list(struct mig *m, const json_t *args)
{
	uint64_t after = (uint64_t)csv_max(mig_int(args, "after"), (json_int_t)0), kept = 0;
	uint64_t last = json_object_get(args, "last") ? (uint64_t)csv_max(mig_int(args, "last"), (json_int_t)0) : 100;
	const char *object = mig_text(args, "object");
	json_t *reply = rpc_reply_new("event"), *items = json_object_get(reply, "items");
	const struct mig_event *e;

	for (unsigned i = 0; reply && (e = mig_event_back(m, i)) && kept < csv_min(last, (uint64_t)RPC_PAGE_ITEMS); i++) {
		if (e->seq <= after || (*object && strcmp(object, mig_text(e->value, "object"))))
			continue;
		json_array_insert(items, 0, e->value);
		kept++;
	}
	return reply;
}

int mig_events_load(struct mig *m, const json_t *past)
{
	json_t *e;
	size_t i;

	json_array_foreach(past, i, e) {
		bool late = json_is_true(json_object_get(e, "late"));
		unsigned at = late ? place_of(m, mig_text(e, "time")) : m->events;

		if (json_is_object(e) && json_object_get(e, "text") && !is_known(m, id_get(e)) && (at || m->events < MIG_EVENTS_MAX))
			keep(m, e, at, false);
	}
	return 0;
}

void mig_events_free(struct mig *m)
{
	mig_late_suspend(m);
	for (unsigned i = 0; i < m->events; i++)
		json_decref(m->event[i].value);
}
