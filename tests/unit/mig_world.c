/*
 * mig_world.c - see mig_world.h.
 */
#include "tests/unit/mig_world_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

/* ---- what happens later -------------------------------------------------------------------------------------------------------- */

void mw_later(struct mw_node *n, uint64_t ns, struct later what, void (*fn)(struct later *l))
{
	struct later *l = malloc(sizeof(*l));

	*l = what;
	l->due_ns = n->w->clk.now_ns + ns;
	l->n = n;
	l->m = n->m;
	l->fn = fn;
	cds_list_add_tail(&l->node, &n->w->later);
}

static bool run_later(struct mw *w)
{
	struct later *l, *tmp;

	cds_list_for_each_entry_safe(l, tmp, &w->later, node) {
		if (l->due_ns > w->clk.now_ns)
			continue;
		cds_list_del(&l->node);
		l->fn(l);
		free(l);
		return true;
	}
	return false;
}

/* ---- the group engine ------------------------------------------------------------------------------------------------------------ */

enum ev_kind { EV_TOTEM, EV_MEMBERS, EV_QUORUM, EV_MSG };
struct ev { struct cds_list_head node; enum ev_kind kind; struct ring_id ring; bool quorate; uint32_t from, n, m[MW_NODES]; size_t len; char buf[]; };

static void push(struct mw_node *to, struct ev what, const void *buf, size_t len)
{
	struct ev *e;

	if (!to->daemon)
		return;
	e = malloc(sizeof(*e) + len);
	*e = what;
	e->len = len;
	if (len)
		memcpy(e->buf, buf, len);
	cds_list_add_tail(&e->node, &to->in);
}

static void push_members(struct mw_node *to)
{
	struct ev e = { .kind = EV_MEMBERS };

	for (uint32_t i = 1; i <= MW_NODES; i++)
		if (to->w->node[i].daemon && to->w->node[i].part == to->part)
			e.m[e.n++] = i;
	push(to, e, NULL, 0);
}

static void tell_ring(struct mw_node *n)
{
	unsigned size = 0;

	for (uint32_t i = 1; i <= MW_NODES; i++)
		size += n->w->node[i].power && n->w->node[i].part == n->part;
	push(n, (struct ev){ .kind = EV_TOTEM, .ring = n->ring }, NULL, 0);
	push_members(n);
	push(n, (struct ev){ .kind = EV_QUORUM, .ring = n->ring, .quorate = size > MW_NODES / 2 }, NULL, 0);
}

static void new_ring(struct mw *w, unsigned part)
{
	struct ring_id ring = { 0, w->seq += 4 };

	for (uint32_t i = 1; i <= MW_NODES; i++)
		if (w->node[i].power && w->node[i].part == part && !ring.nodeid)
			ring.nodeid = i;
	for (uint32_t i = 1; i <= MW_NODES; i++) {
		struct mw_node *n = &w->node[i];

		if (!n->power || n->part != part)
			continue;
		n->ring = ring;
		tell_ring(n);
	}
}

/* The group alone changed: the same totem ring. */
static void same_ring(struct mw *w, unsigned part)
{
	for (uint32_t i = 1; i <= MW_NODES; i++)
		if (w->node[i].power && w->node[i].part == part)
			push_members(&w->node[i]);
}

static bool feed(struct mw_node *n)
{
	struct ev *e;

	if (cds_list_empty(&n->in) || !n->daemon)
		return false;
	e = cds_list_first_entry(&n->in, struct ev, node);
	cds_list_del(&e->node);
	switch (e->kind) {
	case EV_TOTEM:
		n->to->expected(n->to_arg, MW_NODES);
		n->to->totem(n->to_arg, e->ring);
		break;
	case EV_MEMBERS:
		n->to->members(n->to_arg, e->m, e->n);
		break;
	case EV_QUORUM:
		n->to->quorum(n->to_arg, e->ring, e->quorate);
		break;
	case EV_MSG:
		n->to->msg(n->to_arg, e->from, e->buf, e->len);
		break;
	}
	free(e);
	return true;
}

static void ins_drop(struct mw_node *n)
{
	struct ev *e, *tmp;

	cds_list_for_each_entry_safe(e, tmp, &n->in, node) {
		cds_list_del(&e->node);
		free(e);
	}
}

static int port_start(struct cluster_port *p, const struct cluster_raw_events *to, void *arg)
{
	struct mw_node *n = container_of(p, struct mw_node, cport);

	n->to = to;
	n->to_arg = arg;
	return 0;
}

static int port_send(struct cluster_port *p, const void *buf, size_t len)
{
	struct mw_node *n = container_of(p, struct mw_node, cport);

	for (uint32_t i = 1; i <= MW_NODES; i++)
		if (n->w->node[i].part == n->part)
			push(&n->w->node[i], (struct ev){ .kind = EV_MSG, .from = n->id }, buf, len);
	return 0;
}

static void port_stop(struct cluster_port *p)
{
	(void)p;
}

static const struct cluster_port_ops cport_ops = { port_start, port_send, port_stop };

/* ---- the other ports -------------------------------------------------------------------------------------------------------------- */

static void event_append(struct mig_port *p, const char *text)
{
	struct mw_node *n = container_of(p, struct mw_node, port);

	if (getenv("MW_VERBOSE"))
		fprintf(stderr, "%8.3f n%u event %s\n", (double)n->w->clk.now_ns / 1e9, n->id, text);
	json_array_append_new(n->durable, json_loads(text, 0, NULL));
	if (json_array_size(n->durable) > MIG_EVENTS_MAX)
		json_array_remove(n->durable, 0);
}

static void keep(struct mig_port *p, const char *text)
{
	struct mw_node *n = container_of(p, struct mw_node, port);

	free(n->kept);
	n->kept = strdup(text);
}

static void hbeat_done(struct later *l)
{
	struct mw *w = l->n->w;
	uint32_t id = l->hbeat->nodeid;
	bool moves = w->node[id].power || w->hbeat_moves[id];

	if (l->n->m != l->m)
		return;
	l->hbeat->result = w->hbeat_rc;
	l->hbeat->beats = moves ? w->clk.now_ns / (500 * NS_PER_MS) : 7;
	l->hbeat->done(l->hbeat);
}

static void hbeat_read(struct mig_port *p, struct mig_hbeat_req *r)
{
	mw_later(container_of(p, struct mw_node, port), NS_PER_MS, (struct later){ .hbeat = r }, hbeat_done);
}

static void do_leave(struct later *l)
{
	struct mw_node *n = l->n;

	if (n->m != l->m)
		return;
	n->left = true;
	mw_daemon_kill(n->w, n->id);
}

static void port_leave(struct mig_port *p, enum mig_leave how, const char *why)
{
	struct mw_node *n = container_of(p, struct mw_node, port);

	(void)why;
	n->leaves[how]++;
	if (how != MIG_LEAVE_ENGINE)
		n->inc = ++n->w->life;
	mw_later(n, 0, (struct later){ 0 }, do_leave);
}

static const struct mig_port_ops port_ops = { mw_agent_send, event_append, keep, hbeat_read, port_leave };

static void fence_done(struct later *l)
{
	struct mw *w = l->n->w;
	uint32_t id = l->fence->node.nodeid;
	int rc = w->fence_rc[id];

	if (l->n->m != l->m)
		return;
	w->n_fenced[id]++;
	if (!rc && !w->fence_lies[id] && w->node[id].power)
		mw_power_cut(w, id);
	l->fence->result = rc;
	if (rc == -ENOENT)
		csv_err_set(&l->fence->err, rc, "no fence agent is configured for node %u", id);
	else if (rc)
		csv_err_set(&l->fence->err, rc, "agent fence_x: %s", strerror(-rc));
	l->fence->done(l->fence);
}

static void fence_submit(struct fence_port *p, struct fence_req *r)
{
	struct mw_node *n = container_of(p, struct mw_node, fence);

	mw_later(n, n->w->fence_ns, (struct later){ .fence = r }, fence_done);
}

static const struct fence_port_ops fence_ops = { fence_submit };

static void log_write(struct logger *l, enum log_level level, const char *text)
{
	struct mw *w = container_of(l, struct mw, log);

	(void)level;
	if (getenv("MW_VERBOSE"))
		fprintf(stderr, "%8.3f %s\n", (double)w->clk.now_ns / 1e9, text);
}

static uint64_t rnd(struct rnd_port *p)
{
	struct mw *w = container_of(p, struct mw, rnd);

	w->seed += 0x9e3779b97f4a7c15ull;
	return (w->seed ^ w->seed >> 29) * 0xbf58476d1ce4e5b9ull;
}

/* ---- lives ---------------------------------------------------------------------------------------------------------------------------- */

static void daemon_down(struct mw_node *n)
{
	if (!n->daemon)
		return;
	n->daemon = false;
	ins_drop(n);
	mw_lines_drop(n);
	cluster_stop(n->env.cluster);
	mig_free(n->m);
	cluster_free(n->env.cluster);
	sched_free(n->s);
	n->m = NULL;
	n->s = NULL;
}

static void daemon_up(struct mw_node *n)
{
	struct mw *w = n->w;
	struct mig_config c = { .self = n->id, .incarnation = n->inc, .n_nodes = MW_NODES, .parallel = 1, .downtime_ms = 30, .pause_budget_ms = 500,
				.throttle_percent = 80,
				.left = n->left };
	struct csv_err err = CSV_ERR_INIT;
	json_t *kept = n->kept ? json_loads(n->kept, 0, NULL) : NULL, *past = json_deep_copy(n->durable);

	for (uint32_t i = 1; i <= MW_NODES; i++) {
		c.node[i - 1].nodeid = i;
		snprintf(c.node[i - 1].name, sizeof(c.node[0].name), "n%u", i);
	}
	n->s = sched_new(&w->clk.clock);
	n->cport = (struct cluster_port){ &cport_ops, n->id };
	n->port.ops = &port_ops;
	n->fence.ops = &fence_ops;
	n->env = (struct env){ .sched = n->s, .clock = &w->clk.clock, .rnd = &w->rnd, .log = &w->log, .fence = &n->fence };
	n->env.cluster = cluster_new(n->s, &n->cport, ++w->life);
	cluster_set_round(n->env.cluster, MW_ROUND_NS);
	ck_assert(!mig_new(&n->env, &n->port, &c, past, kept, &n->m, &err));
	json_decref(past);
	json_decref(kept);
	n->daemon = true;
	ck_assert(!cluster_start(n->env.cluster));
}

static void agent_up(struct mw_node *n)
{
	n->agent = n->agent_wanted = true;
	for (unsigned i = 0; i < MW_VMS && *n->vm[i].name; i++)
		n->vm[i].known = n->vm[i].open = n->vm[i].due = false;
	if (n->m)
		mig_agent_up(n->m);
}

void mw_power_cut(struct mw *w, uint32_t id)
{
	struct mw_node *n = &w->node[id];
	unsigned part = n->part;

	daemon_down(n);
	n->agent = n->power = false;
	for (unsigned i = 0; i < MW_VMS; i++)
		n->vm[i].there = n->vm[i].runs = n->vm[i].known = n->vm[i].open = n->vm[i].due = false;
	new_ring(w, part);
}

void mw_boot(struct mw *w, uint32_t id, bool with_agent)
{
	struct mw_node *n = &w->node[id];

	n->power = true;
	n->left = false;
	n->inc = ++w->life;
	daemon_up(n);
	new_ring(w, n->part);
	if (with_agent)
		agent_up(n);
}

void mw_daemon_kill(struct mw *w, uint32_t id)
{
	daemon_down(&w->node[id]);
	same_ring(w, w->node[id].part);
}

void mw_daemon_start(struct mw *w, uint32_t id)
{
	struct mw_node *n = &w->node[id];

	daemon_up(n);
	tell_ring(n);
	for (uint32_t i = 1; i <= MW_NODES; i++)
		if (i != id && w->node[i].power && w->node[i].part == n->part)
			push_members(&w->node[i]);
	if (n->agent)
		agent_up(n);
}

void mw_agent_kill(struct mw *w, uint32_t id)
{
	w->node[id].agent = false;
	mw_lines_drop(&w->node[id]);
	if (w->node[id].m)
		mig_agent_down(w->node[id].m, "killed");
}

void mw_agent_start(struct mw *w, uint32_t id)
{
	agent_up(&w->node[id]);
}

void mw_cut(struct mw *w, uint32_t id)
{
	w->node[id].part = id;
	new_ring(w, id);
	new_ring(w, 0);
}

void mw_heal(struct mw *w)
{
	for (uint32_t i = 1; i <= MW_NODES; i++)
		w->node[i].part = 0;
	new_ring(w, 0);
}

void mw_all_off(struct mw *w)
{
	for (uint32_t i = 1; i <= MW_NODES; i++)
		mw_power_cut(w, i);
}

void mw_mount_is(struct mw *w, uint32_t id, const char *state, const char *reason, const char *command)
{
	w->node[id].mount_state = state;
	w->node[id].mount_reason = reason;
	w->node[id].mount_command = command;
	mw_host_news(w, id);
}

void mw_apart(struct mw *w)
{
	for (uint32_t i = 1; i <= MW_NODES; i++)
		w->node[i].part = i;
	for (uint32_t i = 1; i <= MW_NODES; i++)
		new_ring(w, i);
}

void mw_meet(struct mw *w, uint32_t a, uint32_t b)
{
	w->node[a].part = w->node[b].part = 0;
	new_ring(w, 0);
}

void mw_new_ring(struct mw *w)
{
	new_ring(w, 0);
}

/* ---- time -------------------------------------------------------------------------------------------------------------------------------- */

/* MW1 */
static void at_most_one(struct mw *w)
{
	for (uint32_t a = 1; a <= MW_NODES; a++)
		for (unsigned i = 0; i < MW_VMS && *w->node[a].vm[i].name; i++)
			for (uint32_t b = a + 1; b <= MW_NODES && w->node[a].vm[i].runs; b++)
				ck_assert_msg(!mw_vm_slot(&w->node[b], w->node[a].vm[i].name)->runs, "%s runs on n%u and n%u", w->node[a].vm[i].name, a, b);
}

static void settle_now(struct mw *w)
{
	bool again = true;

	while (again) {
		again = run_later(w);
		for (uint32_t i = 1; i <= MW_NODES; i++) {
			struct mw_node *n = &w->node[i];

			if (n->s)
				sched_run(n->s);
			again |= feed(n);
			again |= mw_line_take(n);
			if (n->s)
				sched_run(n->s);
		}
		at_most_one(w);
	}
}

static uint64_t next_ns(struct mw *w)
{
	uint64_t next = UINT64_MAX;
	struct later *l;

	cds_list_for_each_entry(l, &w->later, node)
		next = csv_min(next, l->due_ns);
	for (uint32_t i = 1; i <= MW_NODES; i++)
		if (w->node[i].s)
			next = csv_min(next, sched_next_deadline(w->node[i].s));
	return next;
}

bool mw_until(struct mw *w, uint64_t ns, bool (*check)(struct mw *w))
{
	uint64_t end = w->clk.now_ns + ns, next;

	for (;;) {
		settle_now(w);
		if (check && check(w))
			return true;
		next = next_ns(w);
		if (next > end)
			break;
		w->clk.now_ns = csv_max(next, w->clk.now_ns);
		for (uint32_t i = 1; i <= MW_NODES; i++)
			if (w->node[i].s)
				sched_run_timers(w->node[i].s, w->clk.now_ns);
	}
	w->clk.now_ns = end;
	return check && check(w);
}

void mw_run(struct mw *w, uint64_t ns)
{
	mw_until(w, ns, NULL);
}

struct mig *mw_leader(struct mw *w)
{
	for (uint32_t i = 1; i <= MW_NODES; i++)
		if (w->node[i].m && mig_is_leader(w->node[i].m))
			return w->node[i].m;
	return NULL;
}

static bool is_settled(struct mw *w)
{
	struct mig *m = mw_leader(w);

	for (uint32_t i = 1; m && i <= MW_NODES; i++)
		if (w->node[i].m && w->node[i].agent && !mig_host_ready(m, i))
			return false;
	return m && mig_settled(m) && !leasedb_suspects(mig_leases_db(m));
}

struct mw *mw_new(void)
{
	struct mw *w = calloc(1, sizeof(*w));

	fake_clock_init(&w->clk);
	w->clk.now_ns = 1000 * NS_PER_SEC;
	w->log = (struct logger){ log_write, LOG_L_DEBUG };
	w->rnd.u64 = rnd;
	w->seed = 1;
	CDS_INIT_LIST_HEAD(&w->later);
	w->start_ns = 200 * NS_PER_MS;
	w->move_ns = 300 * NS_PER_MS;
	w->fence_ns = 500 * NS_PER_MS;
	for (uint32_t i = 1; i <= MW_NODES; i++) {
		struct mw_node *n = &w->node[i];

		n->w = w;
		n->id = i;
		n->memory = 8 * MW_GB;
		n->durable = json_array();
		CDS_INIT_LIST_HEAD(&n->in);
		CDS_INIT_LIST_HEAD(&n->lines);
	}
	for (uint32_t i = 1; i <= MW_NODES; i++)
		mw_boot(w, i, true);
	ck_assert_msg(mw_until(w, 60 * NS_PER_SEC, is_settled), "three nodes and no settled leases");
	return w;
}

void mw_free(struct mw *w)
{
	struct later *l, *tmp;

	for (uint32_t i = 1; i <= MW_NODES; i++) {
		daemon_down(&w->node[i]);
		free(w->node[i].kept);
		json_decref(w->node[i].durable);
	}
	cds_list_for_each_entry_safe(l, tmp, &w->later, node)
		free(l);
	json_decref(w->reply);
	free(w);
}

/* ---- VMs ------------------------------------------------------------------------------------------------------------------------------------ */

struct mw_def *mw_define(struct mw *w, const char *name, const char *want, int priority, json_int_t memory)
{
	struct mw_def *d = &w->def[w->n_defs++];

	ck_assert_uint_le(w->n_defs, MW_VMS);
	*d = (struct mw_def){ .want = want, .config = 1, .priority = priority, .ha = true, .memory = memory };
	snprintf(d->name, sizeof(d->name), "%s", name);
	return d;
}

const struct lease *mw_lease(struct mw *w, const char *name)
{
	struct mig *m = mw_leader(w);

	return m ? mig_lease(m, name) : NULL;
}

struct mw_vm *mw_vm_of(struct mw *w, uint32_t id, const char *name)
{
	return mw_vm_slot(&w->node[id], name);
}

uint32_t mw_runs_on(struct mw *w, const char *name)
{
	uint32_t at = 0;

	for (uint32_t i = 1; i <= MW_NODES; i++)
		if (mw_vm_slot(&w->node[i], name)->runs)
			at = at ? UINT32_MAX : i;
	return at;
}

void mw_vm_on(struct mw *w, const char *name, uint32_t id, int priority)
{
	const json_t *job;
	uint64_t end = w->clk.now_ns + 30 * NS_PER_SEC;

	if (!mw_def_of(w, name))
		mw_define(w, name, "stopped", priority, 256 * MW_MB);
	while (!mw_lease(w, name) && w->clk.now_ns < end)
		mw_run(w, 100 * NS_PER_MS);
	job = mw_job(w, id, "vm.start", json_pack("{s:s, s:s}", "name", name, "node", mig_node_name(w->node[id].m, id)), 30 * NS_PER_SEC);
	ck_assert_msg(mw_runs_on(w, name) == id, "%s should run on n%u: %s", name, id, mig_text(job, "message"));
}

/* ---- csvctl ---------------------------------------------------------------------------------------------------------------------------------- */

static void on_reply(void *arg, json_t *reply_take)
{
	struct mw *w = arg;

	ck_assert_msg(!w->replied, "answered twice");
	w->replied = true;
	w->reply = reply_take;
}

void mw_ask_begin(struct mw *w, uint32_t id, const char *verb, json_t *args_take)
{
	struct mig_request r = { verb, args_take, on_reply, w };

	json_decref(w->reply);
	w->reply = NULL;
	w->replied = false;
	mig_request(w->node[id].m, &r);
	json_decref(args_take);
}

static bool has_reply(struct mw *w)
{
	return w->replied;
}

json_t *mw_ask(struct mw *w, uint32_t id, const char *verb, json_t *args_take)
{
	mw_ask_begin(w, id, verb, args_take);
	ck_assert_msg(mw_until(w, 60 * NS_PER_SEC, has_reply), "%s: no answer", verb);
	ck_assert(w->reply);
	return w->reply;
}

int mw_code(const json_t *reply)
{
	return (int)mig_int(reply, "code");
}

const json_t *mw_job(struct mw *w, uint32_t id, const char *verb, json_t *args_take, uint64_t ns)
{
	uint64_t end = w->clk.now_ns + ns;
	json_t *r = mw_ask(w, id, verb, args_take);
	char key[MIG_KEY_MAX];
	const json_t *job;

	ck_assert_msg(mw_code(r) == RPC_ACCEPTED, "%s: %d %s", verb, mw_code(r), mig_text(r, "message"));
	snprintf(key, sizeof(key), "job/%s", mig_text(r, "job"));
	while ((!(job = mig_item_get(w->node[id].m, key)) || !strcmp(mig_text(job, "state"), "running")) && w->clk.now_ns < end)
		mw_run(w, 20 * NS_PER_MS);
	ck_assert_msg(job && strcmp(mig_text(job, "state"), "running"), "%s: the job has no end: %s", verb, mig_text(job, "step"));
	return job;
}

const json_t *mw_event(struct mw *w, uint32_t id, const char *text)
{
	struct mig *m = w->node[id].m;

	for (unsigned back = 0; mig_event_back(m, back); back++) {
		const json_t *e = mig_event_back(m, back)->value;

		if (strstr(mig_text(e, "text"), text))
			return e;
	}
	return NULL;
}
