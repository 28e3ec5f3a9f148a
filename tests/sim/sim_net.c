/* SPDX-License-Identifier: GPL-2.0-only */
/* sim_net.c - lives, fencing and faults of the simulated cluster (see sim_net.h). */
#include "tests/sim/sim_net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_net_internal.h"

#define FENCE_NS (400 * NS_PER_MS)
#define RESTART_NS (600 * NS_PER_MS)

/* ---- small ports -------------------------------------------------------------------------------------------------------- */

static uint64_t rnd_u64(struct rnd_port *p)
{
	return csv_prng_u64(&container_of(p, struct net_life, rnd)->prng);
}

static void log_write(struct logger *l, enum log_level level, const char *text)
{
	struct net_life *n = container_of(l, struct net_life, log);

	(void)level;
	sim_world_trace(n->net->w, text, n->node, level, 0);
}

/* ---- fencing ------------------------------------------------------------------------------------------------------------- */

struct fence_job {
	struct cds_list_head node;	/* life->fence_done of who asked */
	struct fence_req *req;
	struct sim_net *net;
	unsigned by;
	uint64_t by_life;
	struct cluster_node who;
	int result;
};

static void fence_answer(struct job *j)
{
	struct net_life *n = container_of(j, struct net_life, fence_job);
	struct fence_job *f;

	if (cds_list_empty(&n->fence_done))
		return;
	f = cds_list_first_entry(&n->fence_done, struct fence_job, node);
	cds_list_del(&f->node);
	if (!cds_list_empty(&n->fence_done))
		sched_post(n->env.sched, j);
	f->req->result = f->result;
	csv_err_clear(&f->req->err);
	if (f->result)
		csv_err_set(&f->req->err, f->result, "fence agent of the simulation: node %u did not answer; try again",
			    f->who.nodeid);
	f->req->done(f->req);
	free(f);
}

static void fence_due(void *arg)
{
	struct fence_job *f = arg;
	struct sim_net *net = f->net;
	struct net_life *target = &net->life[f->who.nodeid], *by = &net->life[f->by];

	if (net->fence_failures) {
		net->fence_failures--;
		f->result = -ETIMEDOUT;
		sim_world_count(net->w, "fault.fence_failed", 1);
	} else {
		uint64_t life = sim_net_life_of(net, f->who);

		if (target->up && target->life == life) {
			sim_net_power_cut(net, f->who.nodeid);
			sim_net_boot_later(net, f->who.nodeid);
		}
		if (net->hooks.fenced)
			net->hooks.fenced(net->hooks.arg, f->who.nodeid, life);
		sim_world_count(net->w, "op.fences", 1);
		f->result = 0;
	}
	sim_world_trace(net->w, "fence", f->who.nodeid, f->who.incarnation, f->result);
	if (by->up && by->life == f->by_life) {
		struct fence_job *answer = malloc(sizeof(*answer));

		csv_assert(answer);
		*answer = *f;
		cds_list_add_tail(&answer->node, &by->fence_done);
		sched_post(by->env.sched, &by->fence_job);
	}
}

static void fence_submit(struct fence_port *p, struct fence_req *r)
{
	struct net_life *n = container_of(p, struct net_life, fence);
	struct fence_job f = { .req = r, .net = n->net, .by = n->node, .by_life = n->life, .who = r->node };

	csv_assert(r->node.nodeid >= 1 && r->node.nodeid <= n->net->nodes);
	if (n->net->hooks.asked)
		n->net->hooks.asked(n->net->hooks.arg, n->node, r->node);
	sim_world_at_copy(n->net->w, sim_world_now_ns(n->net->w) + sim_world_delay(n->net->w, FENCE_NS), fence_due, &f, sizeof(f));
}

static const struct fence_port_ops fence_ops = { .submit = fence_submit };

/* ---- lives ----------------------------------------------------------------------------------------------------------------- */

struct sim_net *sim_net_new(struct sim_world *w, uint64_t lockspace, const struct sim_net_hooks *hooks)
{
	struct sim_net *net = calloc(1, sizeof(*net));

	csv_assert(net);
	net->w = w;
	net->lockspace = lockspace;
	net->hooks = *hooks;
	net->nodes = sim_world_nodes(w);
	net->next_incarnation = 1000;
	net->ring_seq = 4 * sim_world_below(w, 1000);
	for (unsigned i = 1; i <= net->nodes; i++) {
		net->life[i].net = net;
		net->life[i].node = i;
		CDS_INIT_LIST_HEAD(&net->life[i].fence_done);
	}
	sim_engine_init(net);
	sim_link_init(net);
	return net;
}

static void life_end(struct sim_net *net, unsigned node)
{
	struct net_life *n = &net->life[node];
	struct fence_job *f, *tmp;

	if (net->hooks.down)
		net->hooks.down(net->hooks.arg, node);
	mesh_free(n->env.mesh);
	cluster_free(n->env.cluster);
	cds_list_for_each_entry_safe(f, tmp, &n->fence_done, node) {
		cds_list_del(&f->node);
		free(f);
	}
	n->up = false;
}

void sim_net_free(struct sim_net *net)
{
	if (!net)
		return;
	for (unsigned i = 1; i <= net->nodes; i++)
		if (net->life[i].up)
			sim_net_power_cut(net, i);
	sim_engine_done(net);
	free(net->known);
	free(net);
}

uint64_t sim_net_next_incarnation(struct sim_net *net, unsigned node)
{
	net->next_incarnation += 1 + sim_world_below(net->w, 100);
	net->known = realloc(net->known, (net->n_known + 1) * sizeof(*net->known));
	csv_assert(net->known);
	net->known[net->n_known++] = (struct known_life){ { node, net->next_incarnation }, sim_world_life(net->w, node) };
	net->life[node].incarnation = net->next_incarnation;
	return net->next_incarnation;
}

uint64_t sim_net_life_of(const struct sim_net *net, struct cluster_node who)
{
	for (size_t i = 0; i < net->n_known; i++)
		if (net->known[i].who.nodeid == who.nodeid && net->known[i].who.incarnation == who.incarnation)
			return net->known[i].life;
	return 0;
}

uint64_t sim_net_incarnation(const struct sim_net *net, unsigned node)
{
	return net->life[node].incarnation;
}

struct env *sim_net_env(struct sim_net *net, unsigned node)
{
	return net->life[node].up ? &net->life[node].env : NULL;
}

void sim_net_boot(struct sim_net *net, unsigned node)
{
	struct net_life *n = &net->life[node];

	csv_assert(!n->up);
	sim_world_boot(net->w, node);
	n->up = true;
	n->life = sim_world_life(net->w, node);
	csv_prng_fork(sim_world_prng(net->w), &n->prng);
	n->rnd.u64 = rnd_u64;
	n->log.write = log_write;
	n->log.max = LOG_L_INFO;
	n->fence.ops = &fence_ops;
	job_init(&n->fence_job, fence_answer);
	memset(&n->env, 0, sizeof(n->env));
	n->env.sched = sim_world_sched(net->w, node);
	n->env.clock = sim_world_clock(net->w, node);
	n->env.fence = &n->fence;
	n->env.rnd = &n->rnd;
	n->env.log = &n->log;
	n->env.cluster = cluster_new(n->env.sched, &net->eng[node].port, sim_net_next_incarnation(net, node));
	n->env.mesh = mesh_new(n->env.sched, n->env.cluster, &net->link[node].port, net->lockspace);
	csv_assert(n->env.cluster && n->env.mesh);
	sim_engine_up(net, node);
	net->hooks.start(net->hooks.arg, node, &n->env);
	if (net->hooks.starts_itself)
		return;
	if (mesh_start(n->env.mesh) < 0 || cluster_start(n->env.cluster) < 0)
		csv_panic("simulated ports do not start");
}

void sim_net_power_cut(struct sim_net *net, unsigned node)
{
	csv_assert(net->life[node].up);
	sim_engine_down(net, node);
	sim_link_down(net, node, true);
	life_end(net, node);
	sim_world_power_cut(net->w, node);
}

void sim_net_kill_process(struct sim_net *net, unsigned node)
{
	csv_assert(net->life[node].up);
	/* The kernel waits for the process's I/O before anybody hears of its end. */
	if (net->hooks.reaped)
		net->hooks.reaped(net->hooks.arg, node, net->life[node].life);
	sim_engine_left(net, node, true);
	sim_link_down(net, node, false);
	life_end(net, node);
	sim_world_power_cut(net->w, node);
}

void sim_net_exit(struct sim_net *net, unsigned node)
{
	csv_assert(net->life[node].up);
	if (net->eng[node].ev)
		sim_engine_left(net, node, false);
	sim_link_down(net, node, false);
	life_end(net, node);
	sim_world_power_cut(net->w, node);
}

/* ---- faults ----------------------------------------------------------------------------------------------------------------- */

static void reach_changed(struct sim_net *net)
{
	sim_engine_changed(net);
	sim_link_changed(net);
}

void sim_net_partition(struct sim_net *net, const unsigned *side)
{
	for (unsigned i = 1; i <= net->nodes; i++)
		net->eng[i].side = side[i];
	sim_world_count(net->w, "fault.partition", 1);
	sim_world_trace(net->w, "partition", side[1], net->nodes > 1 ? side[2] : 0, net->nodes > 2 ? side[3] : 0);
	reach_changed(net);
}

bool sim_net_is_whole(const struct sim_net *net)
{
	for (unsigned i = 2; i <= net->nodes; i++)
		if (net->eng[i].side != net->eng[1].side)
			return false;
	return true;
}

void sim_net_heal(struct sim_net *net)
{
	if (!sim_net_is_whole(net))
		sim_world_count(net->w, "fault.heal", 1);
	for (unsigned i = 1; i <= net->nodes; i++)
		net->eng[i].side = 0;
	memset(net->cut_until_ns, 0, sizeof(net->cut_until_ns));
	sim_world_trace(net->w, "heal", 0, 0, 0);
	reach_changed(net);
}

void sim_net_token_loss(struct sim_net *net, unsigned node)
{
	sim_world_count(net->w, "fault.token_loss", 1);
	sim_engine_token_loss(net, node);
}

void sim_net_break_link(struct sim_net *net, unsigned a, unsigned b)
{
	sim_world_count(net->w, "fault.link_break", 1);
	sim_link_break(net, a, b);
}

static void cut_over(void *arg)
{
	sim_link_changed(arg);
}

void sim_net_cut_one_way(struct sim_net *net, unsigned from, unsigned to, uint64_t until_ns)
{
	sim_world_count(net->w, "fault.one_way_cut", 1);
	net->cut_until_ns[from][to] = until_ns;
	sim_world_trace(net->w, "cut", from, to, until_ns);
	sim_link_changed(net);
	sim_world_at(net->w, until_ns, cut_over, net);
}

void sim_net_fence_fails(struct sim_net *net, unsigned times)
{
	net->fence_failures = times;
}

void sim_net_expects(struct sim_net *net, unsigned node, uint32_t votes)
{
	net->eng[node].expected = votes;
}

bool sim_net_quorate_without(const struct sim_net *net, unsigned node)
{
	unsigned up = 0;

	for (unsigned i = 1; i <= net->nodes; i++)
		up += i != node && net->life[i].up;
	return 2 * up > net->nodes;
}

struct back { struct sim_net *net; unsigned node; };

static void back_due(void *arg)
{
	struct back *b = arg;

	b->net->life[b->node].back_planned = false;
	if (!b->net->life[b->node].up)
		sim_net_boot(b->net, b->node);
}

void sim_net_boot_later(struct sim_net *net, unsigned node)
{
	struct back b = { net, node };

	if (net->life[node].back_planned)
		return;
	net->life[node].back_planned = true;
	sim_world_at_copy(net->w, sim_world_now_ns(net->w) + sim_world_delay(net->w, RESTART_NS), back_due, &b, sizeof(b));
}

static void random_partition(struct sim_net *net)
{
	unsigned side[SIM_NODES_MAX + 1] = { 0 };

	if (!sim_net_is_whole(net)) {
		sim_net_heal(net);
		return;
	}
	/* Often one node alone, else any split. */
	if (sim_world_chance(net->w, 1, 2))
		side[1 + sim_world_below(net->w, net->nodes)] = 1;
	else
		for (unsigned i = 1; i <= net->nodes; i++)
			side[i] = sim_world_below(net->w, 2);
	sim_net_partition(net, side);
}

void sim_net_random_fault(struct sim_net *net)
{
	struct sim_world *w = net->w;
	unsigned node = 1 + sim_world_below(w, net->nodes), other = 1 + sim_world_below(w, net->nodes);
	uint64_t now = sim_world_now_ns(w);

	if (net->quiet)
		return;
	for (unsigned i = 1; i <= net->nodes; i++)
		if (!net->life[i].up)
			sim_net_boot_later(net, i);
	switch (sim_world_below(w, 10)) {
	case 0:
	case 1:
		random_partition(net);
		break;
	case 2:
		sim_net_token_loss(net, node);
		break;
	case 3:
	case 4:
		if (node != other)
			sim_net_break_link(net, node, other);
		break;
	case 5:
		if (node != other)
			sim_net_cut_one_way(net, node, other, now + sim_world_delay(w, 400 * NS_PER_MS));
		break;
	case 6:
		if (net->life[node].up) {
			sim_world_count(w, "fault.stall", 1);
			sim_world_stall(w, node, now + sim_world_delay(w, 300 * NS_PER_MS));
		}
		break;
	case 7:
		if (net->life[node].up && sim_net_quorate_without(net, node)) {
			sim_world_count(w, "fault.power_cut", 1);
			sim_net_power_cut(net, node);
			sim_net_boot_later(net, node);
		}
		break;
	case 8:
		if (net->life[node].up && sim_net_quorate_without(net, node)) {
			sim_world_count(w, "fault.process_death", 1);
			sim_net_kill_process(net, node);
			sim_net_boot_later(net, node);
		}
		break;
	case 9:
		sim_net_fence_fails(net, 1 + sim_world_below(w, 3));
		break;
	}
}

void sim_net_repair_all(struct sim_net *net)
{
	net->quiet = true;
	net->fence_failures = 0;
	sim_net_heal(net);
	for (unsigned i = 1; i <= net->nodes; i++)
		if (!net->life[i].up)
			sim_net_boot_later(net, i);
}

void sim_net_want_faults(struct sim_counters *t)
{
	static const char *const kind[] = {
		"fault.partition", "fault.heal", "fault.token_loss", "fault.link_break", "fault.one_way_cut", "fault.stall",
		"fault.power_cut", "fault.process_death", "fault.fence_failed", "fault.self_delivery", "fault.frames_lost",
		"fault.pushback",
	};

	for (size_t i = 0; i < ARRAY_SIZE(kind); i++)
		sim_counters_want(t, kind[i]);
}
