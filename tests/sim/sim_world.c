/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sim_world.c - virtual time, events, node lives, dice, trace hash, counters (see sim_world.h).
 *
 * A step that runs a node costs 1 ... 4 us of world time, so two nodes that are busy at the same time get mixed and due
 * events come in between.
 */
#include "tests/sim/sim_world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "utils/base/heap.h"

struct sim_event {
	struct csv_heap_node heap;
	void (*fn)(void *arg);
	void *arg;
	unsigned node;			/* 0: of the world */
	uint64_t life;
	uint64_t data[];
};

struct sim_host {
	struct clock clock;
	struct sim_world *w;
	struct sched *sched;
	uint64_t life;
	uint64_t mono_offset_ns, boot_offset_ns;
	int64_t real_skew_ns;
	uint64_t stalled_until_ns;
	struct csv_prng pick_prng;
};

#define HOOKS_MAX 8

struct sim_world {
	struct csv_prng prng, sched_prng;
	struct csv_heap events;
	uint64_t now_ns, steps, hash;
	unsigned nodes, running;	/* running: the node whose step this is */
	struct sim_host host[SIM_NODES_MAX + 1];
	struct { void (*fn)(void *arg, unsigned node); void *arg; } down[HOOKS_MAX];
	struct { void (*fn)(void *arg); void *arg; } hook[HOOKS_MAX];
	unsigned n_down, n_hook;
	struct sim_counters counters;
	bool verbose;
};

#define REAL_EPOCH_NS (1767225600ull * NS_PER_SEC)

/* ---- clocks ---------------------------------------------------------------------------------------------------- */

static uint64_t host_mono(struct clock *c)
{
	struct sim_host *h = container_of(c, struct sim_host, clock);

	return h->w->now_ns + h->mono_offset_ns;
}

static uint64_t host_boot(struct clock *c)
{
	struct sim_host *h = container_of(c, struct sim_host, clock);

	return h->w->now_ns + h->boot_offset_ns;
}

static uint64_t host_real(struct clock *c)
{
	struct sim_host *h = container_of(c, struct sim_host, clock);

	return REAL_EPOCH_NS + h->w->now_ns + h->real_skew_ns;
}

static const struct clock_ops host_clock_ops = { .mono_ns = host_mono, .boot_ns = host_boot, .real_ns = host_real };

static struct sim_host *host_of(const struct sim_world *w, unsigned node)
{
	csv_assert(node >= 1 && node <= w->nodes);
	return (struct sim_host *)&w->host[node];
}

/* ---- world ----------------------------------------------------------------------------------------------------- */

struct sim_world *sim_world_new(uint64_t seed, unsigned nodes)
{
	struct sim_world *w = calloc(1, sizeof(*w));

	csv_assert(w && nodes >= 1 && nodes <= SIM_NODES_MAX);
	csv_prng_init(&w->prng, seed);
	csv_prng_fork(&w->prng, &w->sched_prng);
	csv_heap_init(&w->events);
	w->nodes = nodes;
	w->now_ns = NS_PER_SEC;
	w->hash = 0xcbf29ce484222325ull;
	for (unsigned i = 1; i <= nodes; i++) {
		struct sim_host *h = &w->host[i];

		h->clock.ops = &host_clock_ops;
		h->w = w;
		h->mono_offset_ns = csv_prng_below(&w->prng, 1000000) * NS_PER_MS;
		h->boot_offset_ns = h->mono_offset_ns + csv_prng_below(&w->prng, 1000) * NS_PER_MS;
		h->real_skew_ns = (int64_t)csv_prng_below(&w->prng, 20000) * (int64_t)NS_PER_MS - 10000 * (int64_t)NS_PER_MS;
	}
	return w;
}

void sim_world_free(struct sim_world *w)
{
	struct csv_heap_node *n;

	if (!w)
		return;
	for (unsigned i = 1; i <= w->nodes; i++)
		sched_free(w->host[i].sched);
	while ((n = csv_heap_pop(&w->events)))
		free(container_of(n, struct sim_event, heap));
	csv_heap_done(&w->events);
	free(w);
}

unsigned sim_world_nodes(const struct sim_world *w)
{
	return w->nodes;
}

uint64_t sim_world_now_ns(const struct sim_world *w)
{
	return w->now_ns;
}

/* ---- events ---------------------------------------------------------------------------------------------------- */

struct sim_event *sim_world_at_copy(struct sim_world *w, uint64_t time_ns, void (*fn)(void *arg), const void *data, size_t len)
{
	struct sim_event *e = calloc(1, sizeof(*e) + len);

	csv_assert(e);
	csv_heap_node_init(&e->heap);
	e->fn = fn;
	e->arg = e->data;
	if (len)
		memcpy(e->data, data, len);
	if (csv_heap_add(&w->events, &e->heap, csv_max(time_ns, w->now_ns)) < 0)
		csv_panic("out of memory for the event queue");
	return e;
}

struct sim_event *sim_world_at(struct sim_world *w, uint64_t time_ns, void (*fn)(void *arg), void *arg)
{
	struct sim_event *e = sim_world_at_copy(w, time_ns, fn, NULL, 0);

	e->arg = arg;
	return e;
}

struct sim_event *sim_world_at_node(struct sim_world *w, unsigned node, uint64_t time_ns, void (*fn)(void *arg), void *arg)
{
	struct sim_event *e = sim_world_at(w, time_ns, fn, arg);

	e->node = node;
	e->life = host_of(w, node)->life;
	return e;
}

void sim_world_cancel(struct sim_world *w, struct sim_event *e)
{
	if (!e)
		return;
	csv_heap_remove(&w->events, &e->heap);
	free(e);
}

static bool event_is_dead(struct sim_world *w, const struct sim_event *e)
{
	return e->node && (w->host[e->node].life != e->life || !w->host[e->node].sched);
}

/* ---- dice ------------------------------------------------------------------------------------------------------ */

struct csv_prng *sim_world_prng(struct sim_world *w)
{
	return &w->prng;
}

uint64_t sim_world_below(struct sim_world *w, uint64_t below)
{
	return csv_prng_below(&w->prng, below);
}

bool sim_world_chance(struct sim_world *w, uint64_t num, uint64_t den)
{
	return csv_prng_chance(&w->prng, num, den);
}

uint64_t sim_world_delay(struct sim_world *w, uint64_t typical_ns)
{
	uint64_t d = typical_ns / 2 + csv_prng_below(&w->prng, typical_ns + 1);

	return csv_prng_chance(&w->prng, 1, 32) ? d * 10 : d;
}

/* ---- nodes ----------------------------------------------------------------------------------------------------- */

struct clock *sim_world_clock(struct sim_world *w, unsigned node)
{
	return &host_of(w, node)->clock;
}

struct sched *sim_world_sched(struct sim_world *w, unsigned node)
{
	return host_of(w, node)->sched;
}

bool sim_world_is_up(const struct sim_world *w, unsigned node)
{
	return host_of(w, node)->sched;
}

uint64_t sim_world_life(const struct sim_world *w, unsigned node)
{
	return host_of(w, node)->life;
}

static unsigned host_pick(void *arg, unsigned n)
{
	struct sim_host *h = arg;

	return csv_prng_below(&h->pick_prng, n);
}

void sim_world_boot(struct sim_world *w, unsigned node)
{
	struct sim_host *h = host_of(w, node);

	csv_assert(!h->sched);
	h->sched = sched_new(&h->clock);
	csv_assert(h->sched);
	h->life++;
	h->stalled_until_ns = 0;
	csv_prng_fork(&w->sched_prng, &h->pick_prng);
	sched_set_pick(h->sched, host_pick, h);
	sim_world_trace(w, "boot", node, h->life, 0);
}

void sim_world_power_cut(struct sim_world *w, unsigned node)
{
	struct sim_host *h = host_of(w, node);
	struct sched *s = h->sched;

	csv_assert(s && w->running != node);
	sim_world_trace(w, "power cut", node, h->life, 0);
	for (unsigned i = 0; i < w->n_down; i++)
		w->down[i].fn(w->down[i].arg, node);
	h->sched = NULL;
	sched_free(s);
}

void sim_world_on_down(struct sim_world *w, void (*fn)(void *arg, unsigned node), void *arg)
{
	csv_assert(w->n_down < HOOKS_MAX);
	w->down[w->n_down].fn = fn;
	w->down[w->n_down++].arg = arg;
}

static void stall_over(void *arg)
{
	(void)arg;			/* only so that time gets there */
}

void sim_world_stall(struct sim_world *w, unsigned node, uint64_t until_ns)
{
	struct sim_host *h = host_of(w, node);

	if (until_ns <= h->stalled_until_ns)
		return;
	h->stalled_until_ns = until_ns;
	sim_world_at(w, until_ns, stall_over, NULL);
	sim_world_trace(w, "stall", node, until_ns, 0);
}

bool sim_world_is_stalled(const struct sim_world *w, unsigned node)
{
	return host_of(w, node)->stalled_until_ns > w->now_ns;
}

/* ---- running --------------------------------------------------------------------------------------------------- */

static uint64_t host_next_timer(const struct sim_host *h)
{
	uint64_t t = sched_next_deadline(h->sched);

	if (t == UINT64_MAX)
		return t;
	return t > h->mono_offset_ns ? t - h->mono_offset_ns : 0;
}

/* Drops dead events from the front, so that they do not move time. */
static struct sim_event *next_event(struct sim_world *w)
{
	struct csv_heap_node *n;

	while ((n = csv_heap_peek(&w->events))) {
		struct sim_event *e = container_of(n, struct sim_event, heap);

		if (!event_is_dead(w, e))
			return e;
		sim_world_cancel(w, e);
	}
	return NULL;
}

/* What can happen now: ready[] nodes (0 = the event queue).  0: only time can help; *ret_next is when. */
static unsigned candidates(struct sim_world *w, unsigned *ready, uint64_t *ret_next)
{
	struct sim_event *e = next_event(w);
	unsigned n = 0;

	*ret_next = e ? e->heap.key : UINT64_MAX;
	if (e && e->heap.key <= w->now_ns)
		ready[n++] = 0;
	for (unsigned i = 1; i <= w->nodes; i++) {
		struct sim_host *h = &w->host[i];
		uint64_t t;

		if (!h->sched || h->stalled_until_ns > w->now_ns)
			continue;
		t = host_next_timer(h);
		if (sched_ready(h->sched) || t <= w->now_ns)
			ready[n++] = i;
		*ret_next = csv_min(*ret_next, t);
	}
	return n;
}

static void run_node(struct sim_world *w, unsigned node)
{
	struct sim_host *h = &w->host[node];
	bool timer = host_next_timer(h) <= w->now_ns;

	w->running = node;
	if (timer && (!sched_ready(h->sched) || csv_prng_chance(&w->sched_prng, 1, 2)))
		sched_run_timers(h->sched, w->now_ns + h->mono_offset_ns);
	else
		sched_step(h->sched);
	w->running = 0;
	w->now_ns += 1000 + csv_prng_below(&w->sched_prng, 3000);
}

bool sim_world_step(struct sim_world *w)
{
	unsigned ready[SIM_NODES_MAX + 1], n, who;
	uint64_t next;

	n = candidates(w, ready, &next);
	if (!n) {
		if (next == UINT64_MAX)
			return false;
		w->now_ns = csv_max(w->now_ns, next);
		n = candidates(w, ready, &next);
		if (!n)
			return true;		/* a dead event was in the way */
	}
	who = ready[n > 1 ? csv_prng_below(&w->sched_prng, n) : 0];
	w->steps++;
	w->hash = (w->hash ^ (w->now_ns * 31 + who)) * 0x100000001b3ull;
	if (who) {
		run_node(w, who);
	} else {
		struct sim_event *e = next_event(w);

		csv_heap_remove(&w->events, &e->heap);
		e->fn(e->arg);
		free(e);
	}
	for (unsigned i = 0; i < w->n_hook; i++)
		w->hook[i].fn(w->hook[i].arg);
	return true;
}

void sim_world_on_step(struct sim_world *w, void (*fn)(void *arg), void *arg)
{
	csv_assert(w->n_hook < HOOKS_MAX);
	w->hook[w->n_hook].fn = fn;
	w->hook[w->n_hook++].arg = arg;
}

uint64_t sim_world_steps(const struct sim_world *w)
{
	return w->steps;
}

bool sim_world_run(struct sim_world *w, uint64_t until_ns, bool (*stop)(void *arg), void *arg)
{
	for (;;) {
		if (stop && stop(arg))
			return true;
		if (w->now_ns >= until_ns || !sim_world_step(w))
			return false;
	}
}

/* ---- trace and counters ------------------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t h, uint64_t x)
{
	h ^= x;
	h *= 0x9e3779b97f4a7c15ull;
	return h ^ h >> 29;
}

void sim_world_trace(struct sim_world *w, const char *what, uint64_t a, uint64_t b, uint64_t c)
{
	for (const char *p = what; *p; p++)
		w->hash = (w->hash ^ (uint8_t)*p) * 0x100000001b3ull;
	w->hash = mix(mix(mix(mix(w->hash, w->now_ns), a), b), c);
	if (w->verbose)
		printf("%12.6f n%u %s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", w->now_ns / 1e9, w->running, what, a, b, c);
}

uint64_t sim_world_hash(const struct sim_world *w)
{
	return w->hash;
}

void sim_world_verbose(struct sim_world *w, bool on)
{
	w->verbose = on;
}

struct sim_counters *sim_world_counters(struct sim_world *w)
{
	return &w->counters;
}

static unsigned counter_find(struct sim_counters *t, const char *name)
{
	unsigned i;

	for (i = 0; i < t->n; i++)
		if (t->c[i].name == name || !strcmp(t->c[i].name, name))
			return i;
	csv_assert(t->n < SIM_COUNTERS_MAX);
	t->c[t->n++].name = name;
	return i;
}

void sim_world_count(struct sim_world *w, const char *name, uint64_t add)
{
	w->counters.c[counter_find(&w->counters, name)].value += add;
}

void sim_counters_add(struct sim_counters *total, const struct sim_counters *one)
{
	for (unsigned i = 0; i < one->n; i++) {
		unsigned at = counter_find(total, one->c[i].name);

		total->c[at].value += one->c[i].value;
		total->c[at].wanted |= one->c[i].wanted;
	}
}

void sim_counters_want(struct sim_counters *t, const char *name)
{
	t->c[counter_find(t, name)].wanted = true;
}

const char *sim_counters_missing(const struct sim_counters *t)
{
	for (unsigned i = 0; i < t->n; i++)
		if (t->c[i].wanted && !t->c[i].value)
			return t->c[i].name;
	return NULL;
}

static const char *prefix_end(const char *name)
{
	const char *dot = strchr(name, '.');

	return dot ? dot : name;
}

void sim_counters_print(const struct sim_counters *t, const char *prefix)
{
	bool done[SIM_COUNTERS_MAX] = { false };

	for (unsigned line = 0; line < t->n; line++) {
		size_t len = prefix_end(t->c[line].name) - t->c[line].name;
		bool first = true;

		for (;;) {
			unsigned best = t->n;

			for (unsigned i = 0; i < t->n; i++)
				if (!done[i] && prefix_end(t->c[i].name) - t->c[i].name == (ptrdiff_t)len &&
				    !memcmp(t->c[i].name, t->c[line].name, len) &&
				    (best == t->n || strcmp(t->c[i].name, t->c[best].name) < 0))
					best = i;
			if (best == t->n)
				break;
			done[best] = true;
			if (first)
				printf("%s%.*s:", prefix, (int)len, t->c[best].name);
			first = false;
			printf(" %s=%" PRIu64, t->c[best].name + (len ? len + 1 : 0), t->c[best].value);
		}
		if (!first)
			printf("\n");
	}
}
