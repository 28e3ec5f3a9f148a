/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * qmp.c - see qmp.h.
 */
#include "hvhost/qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hvhost/jline.h"
#include "utils/env/sched.h"

struct qmp {
	struct qmp_events ev;
	struct jline in;
	enum qmp_state state;
	struct cds_list_head open;	/* in the order they were given */
	unsigned n_open;
	uint64_t next_id;
	char *out;			/* what may go now */
	size_t out_fill, out_room;
	char *early;			/* what waits for READY */
	size_t early_fill, early_room;
	unsigned version[3];
};

/* An abandoned command: its answer is still to come. */
struct orphan { struct qmp_cmd c; };

static int append(char **buf, size_t *fill, size_t *room, const char *bytes, size_t n)
{
	if (*fill + n > *room) {
		size_t r = *room ? *room : 1024;
		char *b;

		while (r < *fill + n)
			r *= 2;
		b = realloc(*buf, r);
		if (!b)
			return -ENOMEM;
		*buf = b;
		*room = r;
	}
	memcpy(*buf + *fill, bytes, n);
	*fill += n;
	return 0;
}

struct qmp *qmp_new(const struct qmp_events *ev)
{
	struct qmp *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->ev = *ev;
	q->next_id = 1;
	jline_init(&q->in);
	CDS_INIT_LIST_HEAD(&q->open);
	return q;
}

static void cmd_end(struct qmp *q, struct qmp_cmd *c, int result, const json_t *ret)
{
	cds_list_del(&c->node);
	q->n_open--;
	c->q = NULL;
	c->result = result;
	c->ret = ret;
	if (c->done)
		c->done(c);
	else
		free(container_of(c, struct orphan, c));
}

static void end_all(struct qmp *q, const struct csv_err *why)
{
	while (!cds_list_empty(&q->open)) {
		struct qmp_cmd *c = cds_list_first_entry(&q->open, struct qmp_cmd, node);

		c->err = *why;
		cmd_end(q, c, -EPIPE, NULL);
	}
}

static void broken(struct qmp *q, const struct csv_err *why)
{
	if (q->state == QMP_BROKEN)
		return;
	q->state = QMP_BROKEN;
	q->out_fill = q->early_fill = 0;
	end_all(q, why);
	q->ev.broken(q->ev.arg, why);
}

void qmp_break(struct qmp *q, const char *why)
{
	struct csv_err err = CSV_ERR_INIT;

	csv_err_set(&err, -EPIPE, "%s", why);
	broken(q, &err);
}

void qmp_free(struct qmp *q)
{
	struct csv_err err = CSV_ERR_INIT;

	if (!q)
		return;
	q->state = QMP_BROKEN;
	csv_err_set(&err, -EPIPE, "the connection was given up");
	end_all(q, &err);
	jline_done(&q->in);
	free(q->out);
	free(q->early);
	free(q);
}

enum qmp_state qmp_state(const struct qmp *q)
{
	return q->state;
}

void qmp_version(const struct qmp *q, unsigned ret[3])
{
	memcpy(ret, q->version, sizeof(q->version));
}

size_t qmp_out(const struct qmp *q, const char **ret)
{
	*ret = q->out;
	return q->out_fill;
}

void qmp_out_sent(struct qmp *q, size_t n)
{
	csv_assert(n <= q->out_fill);
	q->out_fill -= n;
	if (!n)
		return;
	memmove(q->out, q->out + n, q->out_fill);
}

static void out_is_there(struct qmp *q)
{
	if (q->ev.out)
		q->ev.out(q->ev.arg);
}

/* ---- commands -------------------------------------------------------------------------------------------------------- */

int qmp_execute(struct qmp *q, struct qmp_cmd *c, const char *command, json_t *args_take)
{
	bool now = q->state == QMP_READY;
	json_t *o = NULL;
	char *line = NULL;
	size_t n = 0;
	int rc = 0;

	csv_assert(!c->q);
	csv_err_clear(&c->err);
	if (q->state == QMP_BROKEN)
		rc = csv_err_set(&c->err, -EPIPE, "%s: the monitor's connection is gone", command);
	else if (q->n_open >= QMP_OPEN_MAX || q->out_fill + q->early_fill >= QMP_OUT_MAX)
		rc = csv_err_set(&c->err, -EBUSY, "%s: %u commands are waiting for QEMU's answer", command, q->n_open);
	if (!rc) {
		o = json_pack("{s:s, s:I, s:O*}", "execute", command, "id", (json_int_t)q->next_id, "arguments", args_take);
		line = o ? jline_encode(o, &n) : NULL;
		rc = line && n <= QMP_OUT_MAX ? 0 : -ENOMEM;
		if (!rc)
			rc = now ? append(&q->out, &q->out_fill, &q->out_room, line, n)
				 : append(&q->early, &q->early_fill, &q->early_room, line, n);
		if (rc)
			csv_err_set(&c->err, rc, "%s: out of memory", command);
	}
	json_decref(o);
	json_decref(args_take);
	free(line);
	if (rc)
		return rc;
	c->id = q->next_id++;
	c->q = q;
	c->ret = NULL;
	cds_list_add_tail(&c->node, &q->open);
	q->n_open++;
	if (now)
		out_is_there(q);
	return 0;
}

void qmp_abandon(struct qmp_cmd *c)
{
	struct orphan *o;

	if (!c->q)
		return;
	o = calloc(1, sizeof(*o));
	if (o) {
		o->c.id = c->id;
		o->c.q = c->q;
		cds_list_add(&o->c.node, &c->node);
	} else {
		c->q->n_open--;		/* its answer will be one to nothing: then it breaks */
	}
	cds_list_del(&c->node);
	c->q = NULL;
}

/* ---- what QEMU says -------------------------------------------------------------------------------------------------- */

static int on_greeting(struct qmp *q, const json_t *o, struct csv_err *err)
{
	const json_t *v = json_object_get(json_object_get(json_object_get(o, "QMP"), "version"), "qemu");
	static const char negotiate[] = "{\"execute\":\"qmp_capabilities\",\"id\":0}\n";
	static const char *const part[] = { "major", "minor", "micro" };

	if (!json_is_object(v))
		return csv_err_set(err, -EPROTO, "no greeting of a QEMU monitor");
	for (size_t i = 0; i < ARRAY_SIZE(part); i++) {
		json_int_t n = json_integer_value(json_object_get(v, part[i]));

		if (!json_is_integer(json_object_get(v, part[i])) || n < 0 || n > 9999)
			return csv_err_set(err, -EPROTO, "greeting: version: %s is no number", part[i]);
		q->version[i] = (unsigned)n;
	}
	q->state = QMP_NEGOTIATING;
	if (append(&q->out, &q->out_fill, &q->out_room, negotiate, sizeof(negotiate) - 1))
		return csv_err_set(err, -ENOMEM, "out of memory");
	out_is_there(q);
	return 0;
}

static int on_event(struct qmp *q, const json_t *o, struct csv_err *err)
{
	const char *name = json_string_value(json_object_get(o, "event"));
	const json_t *data = json_object_get(o, "data"), *stamp = json_object_get(o, "timestamp");
	json_int_t s = json_integer_value(json_object_get(stamp, "seconds")), us = json_integer_value(json_object_get(stamp, "microseconds"));

	if (!name || !*name || (data && !json_is_object(data)))
		return csv_err_set(err, -EPROTO, "an event without a name, or with data that is no object");
	if (s < 0 || s > INT64_C(1) << 40 || us < 0 || us >= 1000000)
		s = us = 0;
	q->ev.event(q->ev.arg, name, data, (uint64_t)s * 1000000 + (uint64_t)us);
	return 0;
}

static int on_negotiated(struct qmp *q, const json_t *o, struct csv_err *err)
{
	if (!json_object_get(o, "return"))
		return csv_err_set(err, -EPROTO, "QEMU refuses qmp_capabilities");
	q->state = QMP_READY;
	if (q->early_fill && append(&q->out, &q->out_fill, &q->out_room, q->early, q->early_fill))
		return csv_err_set(err, -ENOMEM, "out of memory");
	if (q->early_fill)
		out_is_there(q);
	q->early_fill = 0;
	q->ev.ready(q->ev.arg);
	return 0;
}

static struct qmp_cmd *find(struct qmp *q, json_int_t id)
{
	struct qmp_cmd *c;

	cds_list_for_each_entry(c, &q->open, node)
		if (c->id == (uint64_t)id)
			return c;
	return NULL;
}

static int on_answer(struct qmp *q, const json_t *o, struct csv_err *err)
{
	const json_t *id = json_object_get(o, "id"), *ret = json_object_get(o, "return"), *e = json_object_get(o, "error");
	const char *class = json_string_value(json_object_get(e, "class")), *desc = json_string_value(json_object_get(e, "desc"));
	struct qmp_cmd *c;

	if (!ret && !e)
		return csv_err_set(err, -EPROTO, "neither event nor answer");
	if (!json_is_integer(id))
		return csv_err_set(err, -EPROTO, "an answer without the id of a command%s%.200s", desc ? ": " : "", desc ? desc : "");
	if (q->state == QMP_NEGOTIATING && !json_integer_value(id))
		return on_negotiated(q, o, err);
	/* A command that still waits to be sent cannot have been answered. */
	c = q->state == QMP_READY ? find(q, json_integer_value(id)) : NULL;
	if (!c)
		return csv_err_set(err, -EPROTO, "an answer to command %lld, which nobody gave", (long long)json_integer_value(id));
	if (ret) {
		cmd_end(q, c, 0, ret);
		return 0;
	}
	csv_err_set(&c->err, class && !strcmp(class, "CommandNotFound") ? -EOPNOTSUPP : -EREMOTEIO, "QEMU: %.300s",
		    desc ? desc : "an error without a text");
	cmd_end(q, c, c->err.code, NULL);
	return 0;
}

static int on_text(struct qmp *q, const json_t *o, struct csv_err *err)
{
	if (q->state == QMP_GREETING)
		return on_greeting(q, o, err);
	if (json_object_get(o, "event"))
		return on_event(q, o, err);
	return on_answer(q, o, err);
}

void qmp_feed(struct qmp *q, const void *bytes, size_t n)
{
	struct csv_err err = CSV_ERR_INIT;
	const char *p = bytes;

	while (n && q->state != QMP_BROKEN) {
		size_t part = csv_min(n, (size_t)65536);
		json_t *o;
		int rc = jline_feed(&q->in, p, part, &err);

		while (!rc && q->state != QMP_BROKEN && (rc = jline_next(&q->in, &o, &err)) == 1) {
			rc = on_text(q, o, &err);
			json_decref(o);
		}
		if (rc < 0) {
			csv_err_prefix(&err, "monitor");
			broken(q, &err);
		}
		p += part;
		n -= part;
	}
}

/* ---- awaiting an answer ------------------------------------------------------------------------------------------------- */

struct call { struct qmp_cmd c; struct sched *s; struct waitq wq; bool done; json_t *ret; };

static void call_done(struct qmp_cmd *c)
{
	struct call *k = container_of(c, struct call, c);

	k->done = true;
	k->ret = c->result ? NULL : json_incref((json_t *)c->ret);
	sched_wake_all(k->s, &k->wq);
}

int qmp_call(struct qmp *q, struct sched *s, const char *command, json_t *args_take, unsigned timeout_ms, json_t **ret, struct csv_err *err)
{
	struct call k = { .c.done = call_done, .s = s };
	uint64_t until = sched_now_ns(s) + timeout_ms * NS_PER_MS;
	int rc;

	waitq_init(&k.wq);
	rc = qmp_execute(q, &k.c, command, args_take);
	while (!rc && !k.done && sched_wait_until(s, &k.wq, until, false) != -ETIMEDOUT)
		;
	if (!rc && !k.done) {
		qmp_abandon(&k.c);
		return csv_err_set(err, -ETIMEDOUT, "%s: QEMU does not answer within %u ms", command, timeout_ms);
	}
	rc = rc ? rc : k.c.result;
	if (rc && err) {
		*err = k.c.err;
		csv_err_prefix(err, "%s", command);
	}
	if (!rc && ret)
		*ret = k.ret;
	else
		json_decref(k.ret);
	return rc;
}
