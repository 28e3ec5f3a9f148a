/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_event.c - the event log: what a person wants to know afterwards, in one order a node, bounded, durable through the port.
 *
 *	{"seq", "time", "node", "level": "info|warning|error", "object", "text", "command"}
 *
 * Invariants
 *  ME1 An event is in the log of the node it happened on before anything follows from it, and in that of every member that shares
 *      the view; `seq` counts in each node's own log.
 *  ME2 At most MIG_EVENTS_MAX are kept.
 *
 * One thread.
 */
#include "migrator/mig_internal.h"

#include <errno.h>
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

static void keep(struct mig *m, json_t *e, bool durable)
{
	struct mig_event *at = &m->event[m->event_seq++ % MIG_EVENTS_MAX];
	char *text;

	json_decref(at->value);
	at->seq = m->event_seq;
	at->value = json_incref(e);
	json_object_set_new(e, "seq", json_integer((json_int_t)at->seq));
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
	e = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s}", "seq", 0, "time", when, "node", mig_node_name(m, m->cfg.self), "level", level,
		      "object", object, "text", text, "command", command);
	if (!e)
		return;
	keep(m, e, true);
	if (m->view)
		mig_send_take(m, json_pack("{s:s, s:O}", "t", "event", "e", e));
	json_decref(e);
}

void mig_event_got(struct mig *m, const json_t *msg)
{
	const json_t *e = json_object_get(msg, "e");
	json_t *copy = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s}", "seq", 0, "time", mig_text(e, "time"), "node", mig_text(e, "node"),
				 "level", mig_text(e, "level"), "object", mig_text(e, "object"), "text", mig_text(e, "text"), "command",
				 mig_text(e, "command"));

	if (copy)
		keep(m, copy, true);
	json_decref(copy);
}

json_t *mig_event_list(struct mig *m, const json_t *args)
{
	uint64_t after = (uint64_t)csv_max(mig_int(args, "after"), (json_int_t)0), first, seq, kept = 0;
	uint64_t last = json_object_get(args, "last") ? (uint64_t)csv_max(mig_int(args, "last"), (json_int_t)0) : 100;
	const char *object = mig_text(args, "object");
	json_t *reply = rpc_reply_new("event"), *items = json_object_get(reply, "items");

	first = m->event_seq > MIG_EVENTS_MAX ? m->event_seq - MIG_EVENTS_MAX + 1 : 1;
	for (seq = m->event_seq; reply && seq >= csv_max(first, after + 1) && kept < csv_min(last, (uint64_t)RPC_PAGE_ITEMS); seq--) {
		const struct mig_event *e = &m->event[(seq - 1) % MIG_EVENTS_MAX];

		if (!e->value || (*object && strcmp(object, mig_text(e->value, "object"))))
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

	json_array_foreach(past, i, e)
		if (json_is_object(e) && json_object_get(e, "text"))
			keep(m, e, false);
	return 0;
}

void mig_events_free(struct mig *m)
{
	for (size_t i = 0; i < MIG_EVENTS_MAX; i++)
		json_decref(m->event[i].value);
}
