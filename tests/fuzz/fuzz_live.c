/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuzz_live.c - two nodes of the simulated world with lock manager and locks of programs; the second says changed messages to the first,
 * which must live, and still be running with the second when the life ends; the same for questions who uses an image.  And raw view messages, into a tracker alone.
 */
#include <stdlib.h>

#include "csvfs/plock.h"
#include "csvfs/use_ask.h"
#include "dlm/dlm_internal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/sim/sim_net.h"
#include "tests/unit/env_fake.h"

#define NODES 2u

static struct {
	struct sim_world *w;
	struct sim_net *net;
	struct env *env[NODES + 1];
	struct dlm *dlm[NODES + 1];
	struct plock_ctl *plock[NODES + 1];
	struct dlm_lock lock[NODES + 1];
	bool failed;
} live;

static void on_recovered(void *arg, const struct cluster_view *v) { (void)arg; (void)v; }
static void on_lost(void *arg, const struct cluster_node *who, uint32_t n) { (void)arg; (void)who; (void)n; }
static void on_purged(void *arg) { (void)arg; }
static bool is_settled(void *arg) { (void)arg; return true; }
static void on_fail(void *arg, const char *why) { (void)arg; (void)why; live.failed = true; }
static void on_done(struct dlm_lock *l, int status) { (void)l; (void)status; }
static void on_bast(struct dlm_lock *l, enum dlm_mode blocked) { (void)l; (void)blocked; }

static void on_start(void *arg, unsigned node, struct env *env)
{
	struct dlm_events ev = { .recovered = on_recovered, .lost = on_lost, .purged = on_purged };
	struct plock_user u = { .settled = is_settled, .fail = on_fail };

	(void)arg;
	live.env[node] = env;
	live.dlm[node] = dlm_new(env, &ev);
	csv_assert(live.dlm[node]);
	if (node == 1) {		/* the other one has none of its own: it only says things */
		live.plock[node] = plock_new(env, &u);
		csv_assert(live.plock[node]);
	}
}

static void on_down(void *arg, unsigned node)
{
	(void)arg;
	if (live.plock[node]) {
		plock_stop(live.plock[node]);
		plock_free(live.plock[node]);
		live.plock[node] = NULL;
	}
	dlm_free(live.dlm[node]);
}

static void run_ms(uint64_t ms)
{
	sim_world_run(live.w, sim_world_now_ns(live.w) + ms * NS_PER_MS, NULL, NULL);
}

static void live_begin(void)
{
	struct sim_net_hooks hooks = { .start = on_start, .down = on_down };

	live.failed = false;
	live.w = sim_world_new(1, NODES);
	live.net = sim_net_new(live.w, 1, &hooks);
	for (unsigned i = 1; i <= NODES; i++)
		sim_net_boot(live.net, i);
	sim_net_repair_all(live.net);
	run_ms(2000);
	for (unsigned i = 1; i <= NODES; i++) {
		struct dlm_lock *l = &live.lock[i];

		csv_assert(dlm_is_recovered(live.dlm[i]));
		memset(l, 0, sizeof(*l));
		dlm_lock_init(live.dlm[i], l, "hello", 5);
		l->done = on_done;
		l->bast = on_bast;
		dlm_request(live.dlm[i], l, DLM_PR, 0);
		run_ms(20);
	}
}

static void live_end(void)
{
	struct dlm_lock own = { .done = on_done, .bast = on_bast };

	/* The first node goes on: it gets a lock of its own. */
	run_ms(200);
	csv_assertf(dlm_is_recovered(live.dlm[1]), "node 1 does not run any more");
	dlm_lock_init(live.dlm[1], &own, "own lock of node 1", 18);
	dlm_request(live.dlm[1], &own, DLM_EX, 0);
	run_ms(500);
	csv_assertf(own.granted == DLM_EX, "node 1 gets no lock any more");
	sim_net_free(live.net);
	sim_world_free(live.w);
}

static void members_sample(struct fuzz_input *in)
{
	static const char *const names[] = { "hello", "x", "name1", "name2" };
	struct dlm_msg m = { .type = 1 + csv_prng_below(in->prng, DLM_M_SERVICE_END - 1), .reqid = csv_prng_below(in->prng, 4), .gen = 1, .node = 2 };
	const char *n = names[csv_prng_below(in->prng, 4)];

	m.mode = m.type == DLM_M_DOWN ? DLM_CR : DLM_PR;
	m.name.len = (uint8_t)strlen(n);
	memcpy(m.name.b, n, m.name.len);
	in->len = dlm_msg_encode(&m, live.dlm[2]->view.ring, in->b);
}

static bool members_run(struct fuzz_input *in)
{
	uint64_t bad = live.dlm[1]->st.bad_messages + live.dlm[1]->st.stale_messages;

	if (in->len >= DLM_HEADER_BYTES && csv_prng_chance(in->prng, 3, 4))
		*(struct le32 *)(in->b + 4) = le32_of((uint32_t)in->len);
	if (!in->len || mesh_send(live.env[2]->mesh, 1, CHAN_DLM, in->b, in->len))
		return false;
	run_ms(5);
	return live.dlm[1]->st.bad_messages + live.dlm[1]->st.stale_messages == bad;
}

/* ---- locks of programs -------------------------------------------------------------------------------------------------------------- */

static bool count_lock(void *arg, const struct plock_walk *w)
{
	(void)w;
	++*(uint64_t *)arg;
	return true;
}

static uint64_t plocks(void)
{
	uint64_t n = 0;

	plock_walk(live.plock[1], count_lock, &n);
	return n;
}

static void plock_sample(struct fuzz_input *in)
{
	struct csv_cursor c;

	csv_cursor_init(&c, in->b, FUZZ_ROOM);
	csv_put_u8(&c, csv_prng_chance(in->prng, 1, 8) ? 5 : 1 + csv_prng_below(in->prng, 4));
	if (in->b[0] == 5) {			/* a list */
		uint64_t n = csv_prng_below(in->prng, 4);

		csv_put_u8(&c, 1);
		csv_put_u16(&c, (uint16_t)n);
		for (; n; n--) {
			csv_put_u8(&c, csv_prng_below(in->prng, 2));
			csv_put_u8(&c, 1 + csv_prng_below(in->prng, 2));
			csv_put_u16(&c, 0);
			csv_put_u32(&c, 77);
			for (int i = 0; i < 4; i++)
				csv_put_u64(&c, i == 3 ? 100 : csv_prng_below(in->prng, 50));
			csv_put_u32(&c, 0);
		}
	} else {
		csv_put_u8(&c, csv_prng_below(in->prng, 2));
		csv_put_u8(&c, csv_prng_below(in->prng, 3));
		csv_put_u8(&c, csv_prng_below(in->prng, 2));
		csv_put_u32(&c, 77);
		for (int i = 0; i < 5; i++)
			csv_put_u64(&c, i == 3 ? 100 : csv_prng_below(in->prng, 50));
	}
	in->len = csv_cur_used(&c);
}

static bool plock_run(struct fuzz_input *in)
{
	uint64_t before = plocks();

	if (csv_prng_chance(in->prng, 1, 2))
		cluster_send(live.env[2]->cluster, CHAN_PLOCK, in->b, in->len);
	else if (in->len)
		mesh_send(live.env[2]->mesh, 1, CHAN_PLOCK, in->b, in->len);
	run_ms(5);
	return plocks() != before;
}

/* ---- who uses an image ----------------------------------------------------------------------------------------------------------------- */

#define ASKED_INO 4711u

static struct { struct use_asks asks; bool ends, asking; uint64_t found; } uses;

static bool use_find(void *arg, uint64_t ino, enum csvfs_use kind, struct use_other *ret)
{
	(void)arg;
	*ret = (struct use_other){ 1, 99, "qemu" };
	return ino == ASKED_INO && kind == CSVFS_USE_PLAIN;
}

/* What is told is text, and the question ends in its time whatever is said. */
static void use_asker(void *arg)
{
	(void)arg;
	while (!uses.ends) {
		struct use_other who = { 0 };
		uint64_t from = sim_world_now_ns(live.w);

		uses.asking = true;
		if (use_asks_others(&uses.asks, ASKED_INO, CSVFS_USE_RAW, &who)) {
			uses.found++;
			csv_assert(who.nodeid == 2 && memchr(who.process, 0, sizeof(who.process)));
			for (const char *s = who.process; *s; s++)
				csv_assert((unsigned char)*s >= ' ' && *s != 0x7f);
		}
		uses.asking = false;
		csv_assertf(sim_world_now_ns(live.w) - from < 2 * USE_ASK_MS * NS_PER_MS, "a question has no end");
		coro_sleep_ns(live.env[1]->sched, NS_PER_MS);
	}
}

static void use_begin(void)
{
	live_begin();
	memset(&uses, 0, sizeof(uses));
	use_asks_start(&uses.asks, live.env[1], use_find, NULL);
	csv_assert(!sched_spawn(live.env[1]->sched, "asker", use_asker, NULL));
	run_ms(2);
}

static void use_end(void)
{
	uses.ends = true;
	run_ms(2 * USE_ASK_MS);
	csv_assert(!uses.asking && !use_asks_open(&uses.asks));
	csv_assertf(uses.found, "no answer was ever believed");
	live_end();
}

static void use_sample(struct fuzz_input *in)
{
	struct use_msg m = { .type = USE_MSG_ASK, .kind = (uint8_t)csv_prng_below(in->prng, 2), .ino = le64_of(ASKED_INO) };

	if (csv_prng_chance(in->prng, 2, 3)) {
		m.type = USE_MSG_ANSWER;
		m.found = csv_prng_chance(in->prng, 1, 2);
		m.pid = le32_of(77);
		m.ask = le64_of(use_asks_open(&uses.asks));
		memcpy(m.process, "qemu-system-x86", 16);
	}
	memcpy(in->b, &m, sizeof(m));
	in->len = sizeof(m);
}

static bool use_run(struct fuzz_input *in)
{
	uint64_t found = uses.found;

	if (in->len)
		mesh_send(live.env[2]->mesh, 1, CHAN_USE, in->b, in->len);
	run_ms(5);
	return uses.found != found;
}

/* ---- view messages -------------------------------------------------------------------------------------------------------------------- */

static struct {
	struct fake_clock clk;
	struct sched *s;
	struct cluster_port port;
	struct cluster *cl;
	const struct cluster_raw_events *ev;
	void *arg;
	size_t len;
	uint8_t sent[FUZZ_ROOM];		/* the last thing said */
	uint64_t views;
} tr;

static int tr_start(struct cluster_port *p, const struct cluster_raw_events *ev, void *arg)
{
	(void)p;
	tr.ev = ev;
	tr.arg = arg;
	return 0;
}

static int tr_send(struct cluster_port *p, const void *buf, size_t len)
{
	(void)p;
	tr.len = csv_min(len, sizeof(tr.sent));
	memcpy(tr.sent, buf, tr.len);
	return 0;
}

static void tr_stop(struct cluster_port *p) { (void)p; }
static void tr_view(void *arg, const struct cluster_view *v) { (void)arg; tr.views++; csv_assert(v->n && v->n <= CLUSTER_NODES_MAX); }

static const struct cluster_port_ops tr_ops = { .start = tr_start, .send = tr_send, .stop = tr_stop };

static void view_begin(void)
{
	struct cluster_user u = { .view = tr_view };

	memset(&tr, 0, sizeof(tr));
	fake_clock_init(&tr.clk);
	tr.s = sched_new(&tr.clk.clock);
	tr.port = (struct cluster_port){ .ops = &tr_ops, .self = 1 };
	tr.cl = cluster_new(tr.s, &tr.port, 11);
	csv_assert(tr.cl);
	cluster_register(tr.cl, CHAN_DLM, &u);
	csv_assert(!cluster_start(tr.cl));
}

static void view_end(void)
{
	cluster_stop(tr.cl);
	cluster_free(tr.cl);
	sched_free(tr.s);
}

/* A ring with nodes 1 and 2; what node 1 says in it is the sample, which node 2 says, too. */
static void view_sample(struct fuzz_input *in)
{
	static const uint32_t both[] = { 1, 2 };

	if (csv_prng_chance(in->prng, 1, 4) || !tr.len) {
		struct ring_id ring = { 1, 8 + 4 * csv_prng_below(in->prng, 1000) };

		tr.ev->totem(tr.arg, ring);
		tr.ev->members(tr.arg, both, 2);
		tr.ev->quorum(tr.arg, ring, true);
		sched_run(tr.s);
		if (tr.len)
			tr.ev->msg(tr.arg, 1, tr.sent, tr.len);
	}
	if (cluster_current(tr.cl) && csv_prng_chance(in->prng, 1, 2))
		cluster_send(tr.cl, CHAN_DLM, "abcd", 4);
	in->len = tr.len;
	memcpy(in->b, tr.sent, tr.len);
}

static bool view_run(struct fuzz_input *in)
{
	uint64_t views = tr.views;
	void *p = fuzz_exact(in);

	tr.ev->msg(tr.arg, 2, p, in->len);
	free(p);
	fake_run_until(&tr.clk, tr.s, tr.clk.now_ns + NS_PER_MS);
	return tr.views != views;
}

const struct fuzz_decoder fuzz_live[] = {
	{ .name = "members", .life = 2000, .gentle = true, .begin = live_begin, .end = live_end, .sample = members_sample, .run = members_run },
	{ .name = "plock", .life = 2000, .gentle = true, .begin = live_begin, .end = live_end, .sample = plock_sample, .run = plock_run },
	{ .name = "use", .life = 2000, .gentle = true, .begin = use_begin, .end = use_end, .sample = use_sample, .run = use_run },
	{ .name = "view", .life = 2000, .gentle = true, .begin = view_begin, .end = view_end, .sample = view_sample, .run = view_run },
	{ 0 },
};
/* decoder members, decoder plock, decoder use, decoder view */
