/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmsim_qemu.c - a scripted QMP server: what QEMU does as far as its monitor and its migrations show it, with delays, in pieces.
 *
 * As QEMU: a migration that fails or is cancelled resumes a source that was running, by itself; `completed` comes to the target first;
 * a stream that breaks ends an incoming QEMU; after `completed` only `cont` goes on.
 */
#include "tests/sim/vmsim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct piece { struct fq *q; struct conn *c; size_t n; char bytes[]; };
struct later { struct world *w; unsigned node; uint64_t id; void (*fn)(struct fq *q); };

/* ---- bytes ------------------------------------------------------------------------------------------------------------- */

static bool client_lives(const struct conn *c)
{
	return c->vq && c->hv->alive && c->hv->life == c->hv_life;
}

static void to_client(void *arg)
{
	struct piece *p = arg;

	if (client_lives(p->c) && p->q->c == p->c)
		qmp_feed(p->c->qmp, p->bytes, p->n);
	free(p);
}

static void serve(struct fq *q, const json_t *o);

static void to_server(void *arg)
{
	struct piece *p = arg;
	struct fq *q = p->q;
	json_t *o;

	if (q->alive && q->c == p->c) {
		csv_assert(!jline_feed(&p->c->in, p->bytes, p->n, NULL));
		while (q->alive && q->c == p->c && jline_next(&p->c->in, &o, NULL) == 1) {
			serve(q, o);
			json_decref(o);
		}
	}
	free(p);
}

static void carry(struct fq *q, struct conn *c, const char *bytes, size_t n, uint64_t *last, void (*fn)(void *arg))
{
	struct world *w = q->w;

	while (n) {
		size_t part = chance(w, 1, 4) ? 1 + below(w, n) : n;
		struct piece *p = malloc(sizeof(*p) + part);
		uint64_t due = now(w) + 50000 + below(w, 500000);

		due = csv_max(due, *last + 1);
		*last = due;
		*p = (struct piece){ q, c, part };
		memcpy(p->bytes, bytes, part);
		after(w, due - now(w), fn, p);
		bytes += part;
		n -= part;
	}
}

static void say_take(struct fq *q, json_t *o)
{
	size_t n;
	char *line = jline_encode(o, &n);

	if (q->c && client_lives(q->c))
		carry(q, q->c, line, n, &q->c->to_client_ns, to_client);
	free(line);
	json_decref(o);
}

static void event_take(struct fq *q, const char *name, json_t *data)
{
	say_take(q, json_pack("{s:s, s:{s:I, s:I}, s:o}", "event", name, "timestamp", "seconds", (json_int_t)(now(q->w) / NS_PER_SEC), "microseconds",
			      (json_int_t)(now(q->w) / 1000 % 1000000), "data", data ? data : json_object()));
}

static void mig_is(struct fq *q, const char *status)
{
	q->mig = status;
	event_take(q, "MIGRATION", json_pack("{s:s}", "status", status));
}

/* ---- executing: the oracles ------------------------------------------------------------------------------------------------ */

static void stop(struct fq *q, const char *run)
{
	if (q->executing) {
		q->executing = false;
		q->mem = ++q->w->disk[q->vm].version;
		event_take(q, "STOP", NULL);
	}
	q->run = run;
}

static void q_after(struct fq *q, uint64_t ns, void (*fn)(struct fq *q));

/* The next request of the guest fails. */
static void io_error(struct fq *q)
{
	if (!q->executing || !q->disk_dead)
		return;
	event_take(q, "BLOCK_IO_ERROR", json_pack("{s:s, s:s, s:s}", "node-name", "disk0", "operation", "write", "reason", "Transport endpoint is not connected"));
	stop(q, "io-error");
	crash_point(q->n);
}

void fq_disk_dies(struct fq *q)
{
	q->disk_dead = true;
	q_after(q, below(q->w, 300 * MS), io_error);
}

static void resume(struct fq *q)
{
	struct world *w = q->w;

	if (q->executing)
		return;
	for (unsigned i = 1; i <= NODES; i++) {
		struct fq *o;

		cds_list_for_each_entry(o, &w->n[i].qemus, node_list)
			if (o != q && o->alive && o->vm == q->vm && o->executing)
				violate(w, "VO1: %s is resumed on n%u while it executes on n%u", vm_name_of(q->vm), q->n->id, i);
	}
	if (!q->fresh && q->mem != w->disk[q->vm].version)
		violate(w, "VO2: %s is resumed on n%u with memory of version %llu, the disk has %llu", vm_name_of(q->vm), q->n->id,
			(unsigned long long)q->mem, (unsigned long long)w->disk[q->vm].version);
	q->fresh = false;
	q->executing = true;
	q->run = "running";
	w->disk[q->vm].version++;
	w->counter[N_RESUME]++;
	story(w, "%s executes on n%u (%llx)", vm_name_of(q->vm), q->n->id, (unsigned long long)q->id);
	event_take(q, "RESUME", NULL);
	if (q->disk_dead)
		q_after(q, below(q->w, 300 * MS), io_error);
	crash_point(q->n);
}

/* ---- migration ----------------------------------------------------------------------------------------------------------------- */

static void later_run(void *arg)
{
	struct later l = *(struct later *)arg;
	struct fq *q = fq_find(&l.w->n[l.node], l.id);

	free(arg);
	if (q && q->alive)
		l.fn(q);
}

static void q_after(struct fq *q, uint64_t ns, void (*fn)(struct fq *q))
{
	struct later *l = malloc(sizeof(*l));

	*l = (struct later){ q->w, q->n->id, q->id, fn };
	after(q->w, ns, later_run, l);
}

static struct fq *target_of(struct fq *q)
{
	struct fq *t = q->peer_node ? fq_find(&q->w->n[q->peer_node], q->peer_id) : NULL;

	if (!t || !t->alive || q->w->cut[q->n->id][t->n->id] || q->w->cut[t->n->id][q->n->id])
		return NULL;
	return t;
}

static void end_target(void *arg)
{
	struct later l = *(struct later *)arg;
	struct fq *t = fq_find(&l.w->n[l.node], l.id);

	free(arg);
	/* QEMU ends when its stream breaks, unless it had all of it. */
	if (t && t->alive && strcmp(t->mig, "completed"))
		fq_die(t, "its stream broke");
}

static void fail(struct fq *q, const char *status)
{
	struct fq *t = q->peer_node ? fq_find(&q->w->n[q->peer_node], q->peer_id) : NULL;

	if (t) {
		struct later *l = malloc(sizeof(*l));

		*l = (struct later){ q->w, t->n->id, t->id, NULL };
		after(q->w, below(q->w, 20 * MS), end_target, l);
	}
	q->peer_node = 0;
	mig_is(q, status);
	q->w->counter[N_FAILED]++;
	if (q->was_running && !q->executing)
		resume(q);
}

static void step_completed(struct fq *q)
{
	struct fq *t = target_of(q);

	if (strcmp(q->mig, "device"))
		return;
	/* The return path's last word may get lost after the target has everything. */
	if (!t || strcmp(t->mig, "completed") || chance(q->w, 1, 60)) {
		fail(q, "failed");
		return;
	}
	q->peer_node = 0;
	q->run = "postmigrate";
	mig_is(q, "completed");
	crash_point(q->n);
}

static void step_target_complete(struct fq *q)
{
	struct fq *t = target_of(q);

	if (strcmp(q->mig, "device"))
		return;
	/* the flush before the last step fails on a dead disk */
	if (!t || strcmp(t->run, "inmigrate") || q->disk_dead) {
		fail(q, "failed");
		return;
	}
	t->mem = q->mem;
	t->fresh = q->fresh;
	t->run = "paused";
	mig_is(t, "completed");
	crash_point(t->n);
	q_after(q, below(q->w, 5 * MS), step_completed);
}

static void step_switchover(struct fq *q)
{
	if (strcmp(q->mig, "active"))
		return;
	if (!target_of(q)) {
		fail(q, "failed");
		return;
	}
	stop(q, "finish-migrate");
	mig_is(q, "pre-switchover");
	crash_point(q->n);
}

static void step_active(struct fq *q)
{
	struct fq *t = target_of(q);

	if (strcmp(q->mig, "setup"))
		return;
	if (!t || strcmp(t->run, "inmigrate")) {
		fail(q, "failed");
		return;
	}
	mig_is(q, "active");
	mig_is(t, "active");
	q_after(q, below(q->w, 400 * MS), step_switchover);
}

static void step_cancelled(struct fq *q)
{
	if (!strcmp(q->mig, "cancelling"))
		fail(q, "cancelled");
}

/* While the target has not been reached, the attempt may last longer than the command. */
static void cancel(struct fq *q)
{
	if (!strcmp(q->mig, "setup") && chance(q->w, 1, 4)) {
		mig_is(q, "cancelling");
		q_after(q, below(q->w, 10000 * MS), step_cancelled);
	} else {
		fail(q, "cancelled");
	}
}

/* ---- commands ------------------------------------------------------------------------------------------------------------------- */

static json_t *migrate(struct fq *q, const json_t *args, const char **error)
{
	const char *uri = json_string_value(json_object_get(args, "uri"));
	unsigned port = uri && strrchr(uri, ':') ? (unsigned)atoi(strrchr(uri, ':') + 1) : 0;

	if (!strcmp(q->mig, "setup") || !strcmp(q->mig, "active") || !strcmp(q->mig, "pre-switchover") || !strcmp(q->mig, "device")) {
		*error = "There's a migration process in progress";
		return NULL;
	}
	if (!strcmp(q->run, "inmigrate") || !strcmp(q->run, "postmigrate")) {
		*error = "cannot migrate in this state";
		return NULL;
	}
	q->peer_node = 0;
	for (unsigned i = 1; i <= NODES; i++) {
		struct fq *t;

		cds_list_for_each_entry(t, &q->w->n[i].qemus, node_list)
			if (t->alive && t->port == port) {
				q->peer_node = i;
				q->peer_id = t->id;
			}
	}
	q->was_running = q->executing;
	mig_is(q, "setup");
	q_after(q, below(q->w, 20 * MS), step_active);
	return json_object();
}

static json_t *query_migrate(struct fq *q)
{
	json_t *o = strcmp(q->mig, "none") ? json_pack("{s:s}", "status", q->mig) : json_object();

	if (q->port)
		json_object_set_new(o, "socket-address", json_pack("[{s:s, s:s, s:o}]", "type", "inet", "host", "127.0.0.1", "port",
								  json_sprintf("%u", q->port)));
	return o;
}

static json_t *capabilities(void)
{
	static const char *const name[] = { "xbzrle", "events", "return-path", "pause-before-switchover", "late-block-activate", "validate-uuid" };
	json_t *a = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(name); i++)
		json_array_append_new(a, json_pack("{s:s, s:b}", "capability", name[i], "state", 0));
	return a;
}

static json_t *answer(struct fq *q, const char *cmd, const json_t *args, const char **error)
{
	if (!strcmp(cmd, "query-status"))
		return json_pack("{s:s, s:b}", "status", q->run, "running", q->executing);
	if (!strcmp(cmd, "query-migrate"))
		return query_migrate(q);
	if (!strcmp(cmd, "query-uuid"))
		return json_pack("{s:s}", "UUID", "00000000-0000-0000-0000-000000000000");
	if (!strcmp(cmd, "query-migrate-capabilities"))
		return capabilities();
	if (!strcmp(cmd, "migrate"))
		return migrate(q, args, error);
	if (!strcmp(cmd, "cont")) {
		if (!strcmp(q->run, "inmigrate")) {
			*error = "the machine waits for its migration";
			return NULL;
		}
		resume(q);
		return json_object();
	}
	if (!strcmp(cmd, "query-block"))
		return json_pack("[{s:s, s:{s:s, s:s, s:b}}]", "qdev", "scsi0-0", "inserted", "node-name", "disk0", "file", "/srv/csv/.raw/a.vhdx", "ro", 0);
	if (!strcmp(cmd, "blockdev-add") && !q->n->volume) {
		*error = "Could not open: Transport endpoint is not connected";
		return NULL;
	}
	if (!strcmp(cmd, "qom-set")) {
		q->disk_dead = !q->n->volume;
		q->w->counter[N_REBOUND] += !q->disk_dead;
	}
	if (!strcmp(cmd, "stop")) {
		stop(q, "paused");
		return json_object();
	}
	if (!strcmp(cmd, "migrate-incoming")) {
		q->port = (unsigned)++q->w->next_port;
		mig_is(q, "setup");
		return json_object();
	}
	if (!strcmp(cmd, "migrate-continue")) {
		if (strcmp(q->mig, "pre-switchover")) {
			*error = "Migration not in expected state";
			return NULL;
		}
		mig_is(q, "device");
		q_after(q, below(q->w, 30 * MS), step_target_complete);
		return json_object();
	}
	if (!strcmp(cmd, "migrate_cancel")) {
		if (!strcmp(q->mig, "setup") || !strcmp(q->mig, "active") || !strcmp(q->mig, "pre-switchover") || !strcmp(q->mig, "device"))
			cancel(q);
		return json_object();
	}
	if (!strcmp(cmd, "system_powerdown") && chance(q->w, 2, 3)) {
		event_take(q, "SHUTDOWN", json_pack("{s:b, s:s}", "guest", 1, "reason", "guest-shutdown"));
		stop(q, "shutdown");
	}
	return json_object();
}

static void reply_take(struct fq *q, const json_t *id, json_t *ret, const char *error)
{
	say_take(q, ret ? json_pack("{s:o, s:O}", "return", ret, "id", id)
			: json_pack("{s:{s:s, s:s}, s:O}", "error", "class", "GenericError", "desc", error, "id", id));
}

static void serve(struct fq *q, const json_t *o)
{
	const char *cmd = json_string_value(json_object_get(o, "execute")), *error = "no";
	const json_t *id = json_object_get(o, "id");
	json_t *ret;

	csv_assert(cmd && id);
	if (!strcmp(cmd, "quit")) {
		fq_die(q, "quit");
		return;
	}
	crash_point(q->n);
	if (!q->alive)
		return;
	ret = answer(q, cmd, json_object_get(o, "arguments"), &error);
	if (q->alive)
		reply_take(q, id, ret, error);
	else
		json_decref(ret);
}

/* ---- the client's side of a connection --------------------------------------------------------------------------------------------- */

static void c_ready(void *arg)
{
	struct conn *c = arg;

	vm_qemu_up(c->vq, c->qmp);
}

static void c_event(void *arg, const char *name, const json_t *data, uint64_t stamp_us)
{
	struct conn *c = arg;

	vm_qemu_event(c->vq, name, data, stamp_us);
}

static void c_broken(void *arg, const struct csv_err *err)
{
	struct conn *c = arg;

	(void)err;
	if (c->vq)
		vm_qemu_down(c->vq);
}

static void c_out(struct job *j)
{
	struct conn *c = container_of(j, struct conn, out);
	struct fq *q = c->vq->host;
	const char *p;
	size_t n = qmp_out(c->qmp, &p);

	if (q && q->c == c) {
		carry(q, c, p, n, &c->to_server_ns, to_server);
		qmp_out_sent(c->qmp, n);
	}
}

static void c_out_soon(void *arg)
{
	struct conn *c = arg;

	sched_post(c->hv->s, &c->out);
}

void fq_connect(struct fq *q, struct hv *hv, struct vm_qemu *vq)
{
	struct conn *c = calloc(1, sizeof(*c));
	struct qmp_events ev = { c_ready, c_event, c_broken, c_out_soon, c };

	*c = (struct conn){ .hv = hv, .hv_life = hv->life, .vq = vq };
	jline_init(&c->in);
	job_init(&c->out, c_out);
	c->qmp = qmp_new(&ev);
	q->c = c;
	vq->host = q;
	say_take(q, json_pack("{s:{s:{s:{s:i, s:i, s:i}}}}", "QMP", "version", "qemu", "major", 7, "minor", 2, "micro", 22));
}

/* ---- life --------------------------------------------------------------------------------------------------------------------------- */

struct fq *fq_new(struct node *n, unsigned vm, uint64_t id, uint64_t txid, uint32_t config, bool incoming)
{
	struct fq *q = calloc(1, sizeof(*q));

	*q = (struct fq){ .w = n->w, .n = n, .vm = vm, .id = id, .txid = txid, .config = config, .incoming = incoming, .alive = true, .fresh = true,
			  .run = incoming ? "inmigrate" : "prelaunch", .mig = "none" };
	cds_list_add_tail(&q->node_list, &n->qemus);
	return q;
}

struct fq *fq_find(struct node *n, uint64_t id)
{
	struct fq *q;

	cds_list_for_each_entry(q, &n->qemus, node_list)
		if (q->id == id)
			return q;
	return NULL;
}

static void gone(void *arg)
{
	struct fq *q = arg;
	struct conn *c = q->c;

	struct vm_qemu *vq;

	if (!c || !client_lives(c))
		return;
	/* As hvhostd does: calls that wait for an answer end, then the news. */
	vq = c->vq;
	c->vq = NULL;
	sched_unpost(c->hv->s, &c->out);
	qmp_break(c->qmp, "QEMU is gone");
	vm_qemu_gone(vq, NULL);
}

void fq_die(struct fq *q, const char *why)
{
	if (!q->alive)
		return;
	story(q->w, "%s: QEMU %llx on n%u ends: %s", vm_name_of(q->vm), (unsigned long long)q->id, q->n->id, why);
	q->alive = false;
	q->n->ended[q->vm] = csv_max(q->n->ended[q->vm], q->mark.bound);	/* its mark stays until that is written */
	if (q->executing)
		q->w->disk[q->vm].version++;
	q->executing = false;
	if (q->peer_node) {
		struct fq *t = fq_find(&q->w->n[q->peer_node], q->peer_id);

		if (t) {
			struct later *l = malloc(sizeof(*l));

			*l = (struct later){ q->w, t->n->id, t->id, NULL };
			after(q->w, below(q->w, 20 * MS), end_target, l);
		}
	}
	after(q->w, below(q->w, 5 * MS), gone, q);
}
