/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvfs/use_ask.h: who uses an image on another node, asked over the simulated network.
 */
#include "csvfs/use_ask.h"
#include "tests/sim/sim_net.h"
#include "tests/unit/unit.h"

#include <string.h>

#define NODES 3u
#define INO 4711u

static struct {
	struct sim_world *w;
	struct sim_net *net;
	struct env *env[NODES + 1];
	struct use_asks asks[NODES + 1];
	unsigned user;			/* the node that has it open */
	unsigned mute;			/* from this one on they answer nothing; 0: none */
	/* the question of node 1 */
	bool done, found;
	uint64_t took_ns;
	struct use_other who;
} u;

static bool find(void *arg, uint64_t ino, enum csvfs_use kind, struct use_other *ret)
{
	if (ino != INO || kind != CSVFS_USE_RAW || (unsigned)(uintptr_t)arg != u.user)
		return false;
	*ret = (struct use_other){ u.user, 77, "qemu-img" };
	return true;
}

static void ignore(void *arg, struct cluster_node from, const void *buf, size_t len) { (void)arg; (void)from; (void)buf; (void)len; }

static void on_start(void *arg, unsigned node, struct env *env)
{
	(void)arg;
	u.env[node] = env;
	if (u.mute && node >= u.mute)
		mesh_register(env->mesh, CHAN_USE, ignore, NULL);
	else
		use_asks_start(&u.asks[node], env, find, (void *)(uintptr_t)node);
}

static void run_ms(uint64_t ms) { sim_world_run(u.w, sim_world_now_ns(u.w) + ms * NS_PER_MS, NULL, NULL); }

/* A world in which nothing happens goes on to its next event, however far that is. */
static void ticks(void *arg)
{
	(void)arg;
	for (;;)
		coro_sleep_ns(u.env[1]->sched, NS_PER_MS);
}

static void setup(unsigned user, unsigned mute)
{
	struct sim_net_hooks hooks = { .start = on_start };

	memset(&u, 0, sizeof(u));
	u.user = user;
	u.mute = mute;
	u.w = sim_world_new(1, NODES);
	u.net = sim_net_new(u.w, 1, &hooks);
	for (unsigned i = 1; i <= NODES; i++)
		sim_net_boot(u.net, i);
	sim_net_repair_all(u.net);
	run_ms(3000);
	ck_assert_ptr_nonnull(cluster_current(u.env[1]->cluster));
	ck_assert_uint_eq(cluster_current(u.env[1]->cluster)->n, NODES);
	ck_assert_int_eq(sched_spawn(u.env[1]->sched, "ticks", ticks, NULL), 0);
}

static void teardown(void)
{
	ck_assert_uint_eq(use_asks_open(&u.asks[1]), 0);
	sim_net_free(u.net);
	sim_world_free(u.w);
}

static void asker(void *arg)
{
	uint64_t from = sim_world_now_ns(u.w);

	(void)arg;
	u.found = use_asks_others(&u.asks[1], INO, CSVFS_USE_RAW, &u.who);
	u.took_ns = sim_world_now_ns(u.w) - from;
	u.done = true;
}

static void ask(void)
{
	ck_assert_int_eq(sched_spawn(u.env[1]->sched, "asker", asker, NULL), 0);
	run_ms(1);
}

static void says(unsigned from, uint64_t question, bool found, const char process[USE_PROCESS_BYTES])
{
	struct use_msg m = { .type = USE_MSG_ANSWER, .kind = CSVFS_USE_RAW, .found = found, .pid = le32_of(5), .ino = le64_of(INO), .ask = le64_of(question) };

	memcpy(m.process, process, USE_PROCESS_BYTES);
	ck_assert_int_eq(mesh_send(u.env[from]->mesh, 1, CHAN_USE, &m, sizeof(m)), 0);
}

START_TEST(node_and_process_that_are_in_the_way_are_named)
{
	setup((unsigned)_i, 0);
	ask();
	run_ms(2 * USE_ASK_MS);
	ck_assert(u.done);
	ck_assert_int_eq(u.found, _i > 1);
	ck_assert(u.took_ns < USE_ASK_MS * NS_PER_MS);
	if (u.found) {
		ck_assert_uint_eq(u.who.nodeid, (unsigned)_i);
		ck_assert_uint_eq(u.who.pid, 77);
		ck_assert_str_eq(u.who.process, "qemu-img");
	}
	teardown();
}
END_TEST

START_TEST(a_silent_member_costs_its_time_and_no_more)
{
	setup(0, 3);
	ask();
	run_ms(USE_ASK_MS / 2);
	ck_assert(!u.done);
	run_ms(USE_ASK_MS);
	ck_assert(u.done && !u.found);
	teardown();
}
END_TEST

/* The name of a process is anything that its owner likes: it goes to a log and into JSON. */
START_TEST(what_another_node_calls_a_process_is_made_text)
{
	static const char name[USE_PROCESS_BYTES] = { 'a', '\n', 'b', 0x1b, '[', '3', '1', 'm', (char)0xff, (char)0xc3, 'x', 'y', 'z', '0', '1', (char)0xe2 };

	setup(0, 2);
	ask();
	says(3, use_asks_open(&u.asks[1]), true, name);
	run_ms(USE_ASK_MS);
	ck_assert(u.done && u.found);
	ck_assert_uint_eq(u.who.nodeid, 3);
	ck_assert_str_eq(u.who.process, "a?b?[31m??xyz01");
	teardown();
}
END_TEST

START_TEST(who_says_nobody_again_and_again_speaks_for_itself_alone)
{
	uint64_t question;

	setup(0, 2);
	ask();
	question = use_asks_open(&u.asks[1]);
	for (int i = 0; i < 5; i++)
		says(2, question, false, "0123456789abcde");
	says(2, question + 1, true, "0123456789abcde");		/* of no question that was asked */
	run_ms(30);
	ck_assert(!u.done);
	says(3, question, true, "vi\0............");
	run_ms(USE_ASK_MS);
	ck_assert(u.done);
	ck_assert_msg(u.found, "the true answer was not waited for: over after %u ms", (unsigned)(u.took_ns / NS_PER_MS));
	ck_assert_uint_eq(u.who.nodeid, 3);
	ck_assert_str_eq(u.who.process, "vi");
	says(3, question, true, "too late\0.......");
	run_ms(100);
	teardown();
}
END_TEST

UNIT_MAIN("use_ask", UNIT_LOOP(node_and_process_that_are_in_the_way_are_named, 1, 4), UNIT_TEST(a_silent_member_costs_its_time_and_no_more),
	  UNIT_TEST(what_another_node_calls_a_process_is_made_text), UNIT_TEST(who_says_nobody_again_and_again_speaks_for_itself_alone))
