/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * model.c - the search: breadth first through all steps and choices, each state once; progress from every state; the story of a violation.
 *
 * usage: vmmodel [--scenario NAME]... [--states N] [--mutate NAME] [--no-progress] [--list] [--verbose]
 *
 * A state is known by 64 bits of hash; what is kept of it is its parent and the path from there, so that a violation can be told as a
 * story by doing it all again.  States that wait to be expanded are kept packed (zeroes run-length coded).
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <time.h>

#include "tests/model/model_internal.h"

struct scenario {
	const char *name, *what;
	unsigned nvm;
	enum agent agent;
	bool cold;		/* begin before anything is settled, else with all VMs running */
	struct mbudget b;
};

static const struct scenario scenarios[] = {
	{ "start", "first start of a VM; two messages go wrong", 1, AGENT_TRUE, true, { .msg = 2 } },
	{ "start-cut", "first start of a VM; one node is cut off at any message", 1, AGENT_TRUE, true, { .cut = 1, .heal = 1 } },
	{ "start-deaths", "first start of a VM; daemons die", 1, AGENT_TRUE, true, { .hv = 1, .mig = 1 } },
	{ "migrate", "one migration that may be cancelled or fail by itself", 1, AGENT_TRUE, false, { .migrate = 1, .fail = 1, .cancel = 1 } },
	{ "migrate-late", "one migration that may fail; three answers of QEMU come late", 1, AGENT_TRUE, false, { .migrate = 1, .fail = 1, .cancel = 1, .late = 3 } },
	{ "migrate-late-cut", "one migration; answers of QEMU come late, a node is cut off, an agent dies", 1, AGENT_NONE, false,
	  { .migrate = 1, .late = 2, .cut = 1, .hv = 1 } },
	{ "migrate-message", "one migration; two messages go wrong", 1, AGENT_TRUE, false, { .migrate = 1, .msg = 2 } },
	{ "migrate-cancel", "one migration, cancelled; one message goes wrong", 1, AGENT_TRUE, false, { .migrate = 1, .msg = 1, .cancel = 1 } },
	{ "migrate-agent", "one migration; an agent dies twice", 1, AGENT_TRUE, false, { .migrate = 1, .hv = 2 } },
	{ "migrate-qemu", "one migration; an agent and a QEMU die", 1, AGENT_TRUE, false, { .migrate = 1, .hv = 1, .qemu = 1 } },
	{ "migrate-node", "one migration; a node dies", 1, AGENT_TRUE, false, { .migrate = 1, .node = 1 } },
	{ "migrate-cut", "one migration; a node is cut off at any message", 1, AGENT_TRUE, false, { .migrate = 1, .cut = 1, .heal = 1 } },
	{ "migrate-alone", "one migration that may fail; a node is cut off; no fence agent", 1, AGENT_NONE, false,
	  { .migrate = 1, .fail = 1, .cut = 1, .heal = 1 } },
	{ "migrate-agent-cut", "one migration that may fail; an agent dies, a node is cut off", 1, AGENT_TRUE, false,
	  { .migrate = 1, .fail = 1, .hv = 1, .cut = 1, .heal = 1 } },
	{ "migrate-lying", "one migration; a node is cut off; a fence agent that lies", 1, AGENT_LYING, false, { .migrate = 1, .cut = 2, .heal = 2 } },
	{ "migrate-memory", "one migration; replicas lose their memory, cold starts", 1, AGENT_TRUE, false, { .migrate = 1, .mig = 2 } },
	{ "volume", "a volume goes away under a VM twice; a migration, an agent dies", 1, AGENT_TRUE, false, { .migrate = 1, .io = 2, .hv = 1 } },
	{ "volume-cut", "a volume goes away under a VM; a migration, a node is cut off", 1, AGENT_TRUE, false, { .migrate = 1, .io = 1, .cut = 1, .heal = 1 } },
	{ "cold", "a node is cut off, two replicas lose their memory, no fence agent", 1, AGENT_NONE, false, { .cut = 1, .heal = 1, .mig = 2 } },
	{ "migrate-twice", "two migrations", 1, AGENT_TRUE, false, { .migrate = 2 } },
	{ "migrate-stale", "two migrations; an agent dies", 1, AGENT_TRUE, false, { .migrate = 2, .hv = 1 } },
	{ "power", "two nodes die, no fence agent", 1, AGENT_NONE, false, { .node = 2, .mig = 1 } },
	{ "lying", "a node is cut off and one dies, a fence agent that lies", 1, AGENT_LYING, false, { .node = 1, .cut = 1, .heal = 1 } },
	{ "stop", "a VM is stopped while an agent and its QEMU die", 1, AGENT_TRUE, false, { .stop = 1, .hv = 1, .qemu = 1 } },
	{ "two", "two VMs, two migrations", 2, AGENT_TRUE, false, { .migrate = 2 } },
	/* these are never done to their end */
	{ "storm", "one migration, two messages, a cut, an agent, a node", 1, AGENT_TRUE, false, { .migrate = 1, .msg = 2, .cut = 1, .heal = 1, .hv = 1, .node = 1 } },
	{ "storm-cold", "from the beginning: messages, cuts, deaths of everything", 1, AGENT_NONE, true,
	  { .migrate = 1, .msg = 1, .cut = 1, .heal = 1, .hv = 1, .mig = 1, .node = 1 } },
	{ "storm-two", "two VMs, migrations both ways, a cut, deaths", 2, AGENT_TRUE, false, { .migrate = 2, .cut = 1, .heal = 1, .hv = 1, .node = 1 } },
};

static const struct { const char *name; unsigned bits; } mutations[] = {
	{ "self-commit", MUT_LEASE(LEASEDB_MUT_SELF_COMMIT) },		/* delivery to oneself counts as commit */
	{ "no-proof", MUT_LEASE(LEASE_MUT_NO_PROOF) },			/* a lost node's VMs are taken without an execution proof */
	{ "handoff", MUT_VMSM(VMSM_MUT_HANDOFF) },			/* the source takes HANDOFF back by itself */
	{ "no-reaper", MUT_VMSM(VMSM_MUT_NO_REAPER) },			/* nobody kills what has no right to be there */
	{ "no-suspects", MUT_LEASE(LEASEDB_MUT_COLD) },			/* after a cold start who is not here counts as running nothing */
	{ "step4", MUT_LEASE(LEASE_MUT_STEP4) | MUT_VMSM(VMSM_MUT_STEP4) },	/* a complete target adopts before the lease is its own */
	{ "absent", MUT_LEASE(LEASEDB_MUT_ABSENT) },			/* after a cold start "no record" counts as "may not run" at once */
	{ "no-open", MUT_VMSM(VMSM_MUT_NO_OPEN) },			/* an open HANDOVER does not hold the source back */
};

/* ---- tables */

static uint64_t hash_of(const struct mstate *s)
{
	const uint8_t *p = (const uint8_t *)s;
	uint64_t h = 0x9e3779b97f4a7c15ull;
	size_t i;

	for (i = 0; i + 8 <= sizeof(*s); i += 8) {
		uint64_t v;

		memcpy(&v, p + i, 8);
		h = (h ^ v) * 0xff51afd7ed558ccdull;
		h ^= h >> 32;
	}
	for (; i < sizeof(*s); i++)
		h = (h ^ p[i]) * 0xff51afd7ed558ccdull;
	h ^= h >> 29;
	return h ? h : 1;
}

struct set { uint64_t *slot; uint64_t room, fill; };

static bool set_add(struct set *t, uint64_t h)
{
	if (t->fill * 2 >= t->room) {
		struct set old = *t;

		t->room = old.room ? old.room * 2 : 1 << 16;
		t->slot = calloc(t->room, sizeof(*t->slot));
		csv_assert(t->slot);
		t->fill = 0;
		for (uint64_t i = 0; i < old.room; i++)
			if (old.slot[i])
				(void)set_add(t, old.slot[i]);
		free(old.slot);
	}
	for (uint64_t i = h & (t->room - 1);; i = (i + 1) & (t->room - 1)) {
		if (t->slot[i] == h)
			return false;
		if (!t->slot[i]) {
			t->slot[i] = h;
			t->fill++;
			return true;
		}
	}
}

static bool set_has(const struct set *t, uint64_t h)
{
	for (uint64_t i = h & (t->room - 1); t->room; i = (i + 1) & (t->room - 1)) {
		if (t->slot[i] == h)
			return true;
		if (!t->slot[i])
			return false;
	}
	return false;
}

struct node { uint32_t parent, depth; struct path path; };
struct packed { struct packed *next; uint32_t index, len; uint8_t bytes[]; };

/* zeroes as (0, how many), everything else as it is */
static struct packed *pack(const struct mstate *s, uint32_t index)
{
	static uint8_t buf[2 * sizeof(*s)];
	const uint8_t *p = (const uint8_t *)s;
	size_t n = 0;
	struct packed *k;

	for (size_t i = 0; i < sizeof(*s);) {
		size_t run = 0;

		if (p[i]) {
			buf[n++] = p[i++];
			continue;
		}
		while (i + run < sizeof(*s) && !p[i + run] && run < 255)
			run++;
		buf[n++] = 0;
		buf[n++] = run;
		i += run;
	}
	k = malloc(sizeof(*k) + n);
	csv_assert(k);
	k->next = NULL;
	k->index = index;
	k->len = n;
	memcpy(k->bytes, buf, n);
	return k;
}

static void unpack(const struct packed *k, struct mstate *s)
{
	uint8_t *p = (uint8_t *)s;
	size_t at = 0;

	for (size_t i = 0; i < k->len; i++)
		if (k->bytes[i]) {
			p[at++] = k->bytes[i];
		} else {
			memset(p + at, 0, k->bytes[i + 1]);
			at += k->bytes[++i];
		}
	csv_assert(at == sizeof(*s));
}

/* ---- one search */

struct search {
	const struct scenario *sc;
	struct world *w;
	struct mstate first;
	struct set seen, good;
	struct node *node;
	uint32_t n, room, limit, depth;
	uint64_t transitions, healed;
	struct packed *head, **tail;
	bool progress, verbose, stuck;
	char broken[260];
};

static void tell_story(struct search *f, uint32_t at, const struct path *last)
{
	uint32_t chain[4096], n = 0;
	char text[160];

	for (; at && n < ARRAY_SIZE(chain); at = f->node[at].parent)
		chain[n++] = at;
	f->w->s = f->first;
	printf("the story:\n");
	world_print(&f->w->s, stdout);
	f->w->story = stdout;
	while (n-- > 0) {
		printf(" - %s\n", step_text(&f->node[chain[n]].path.step, text, sizeof(text)));
		world_do(f->w, &f->node[chain[n]].path);
	}
	if (last) {
		printf(" - %s\n", step_text(&last->step, text, sizeof(text)));
		world_do(f->w, last);
	}
	f->w->story = NULL;
	world_print(&f->w->s, stdout);
}

static uint32_t add_node(struct search *f, uint32_t parent, const struct path *path)
{
	struct node *n;

	if (f->n == f->room) {
		f->room = f->room ? f->room * 2 : 1 << 14;
		f->node = realloc(f->node, f->room * sizeof(*f->node));
		csv_assert(f->node);
	}
	n = &f->node[f->n];
	n->parent = parent;
	n->path = *path;
	n->depth = f->n ? f->node[parent].depth + 1 : 0;
	f->depth = csv_max(f->depth, n->depth);
	return f->n++;
}

/* MO4: from here, with nothing going wrong any more. */
static bool heals(struct search *f, const struct mstate *from)
{
	uint64_t way[600];
	unsigned n = 0;
	struct mstate now = *from;

	memset(&now.b, 0, sizeof(now.b));
	for (;;) {
		uint64_t h = hash_of(&now);
		struct step step[96];
		unsigned k, i;

		if (n == ARRAY_SIZE(way))
			return false;
		way[n++] = h;
		if (set_has(&f->good, h) || world_is_good(&now))
			break;
		k = world_heal_steps(&now, step, ARRAY_SIZE(step));
		for (i = 0; i < k; i++) {
			struct path p = { .step = step[(i + n) % k] };	/* in turn: nobody waits for ever */
			unsigned j;

			f->w->s = now;
			world_do(f->w, &p);
			if (f->w->violation[0])
				return false;
			h = hash_of(&f->w->s);
			for (j = 0; j < n && way[j] != h; j++)
				;
			if (j == n)
				break;
		}
		if (i == k)
			return false;
		now = f->w->s;
	}
	while (n-- > 0)
		(void)set_add(&f->good, way[n]);
	return true;
}

/* How it is when nothing helps: for the story. */
static void tell_heal(struct search *f, struct mstate now)
{
	uint64_t way[60];
	unsigned n = 0;

	memset(&now.b, 0, sizeof(now.b));
	printf("then nothing goes wrong any more:\n");
	for (; n < ARRAY_SIZE(way); ) {
		struct step step[96];
		unsigned k = world_heal_steps(&now, step, ARRAY_SIZE(step)), i;
		char text[160];

		way[n++] = hash_of(&now);
		for (i = 0; i < k; i++) {
			struct path p = { .step = step[(i + n) % k] };
			uint64_t h;
			unsigned j;

			f->w->s = now;
			world_do(f->w, &p);
			h = hash_of(&f->w->s);
			for (j = 0; j < n && way[j] != h; j++)
				;
			if (j == n) {
				printf(" - %s\n", step_text(&p.step, text, sizeof(text)));
				f->w->story = stdout;
				f->w->s = now;
				world_do(f->w, &p);
				f->w->story = NULL;
				break;
			}
		}
		if (i == k)
			break;
		now = f->w->s;
	}
	world_print(&now, stdout);
}

/* All ways that this step can go: choices are added behind the last one that was made. */
static bool expand(struct search *f, const struct mstate *from, uint32_t at, const struct path *path)
{
	uint8_t fan[ARRAY_SIZE(f->w->fan)];
	unsigned pos, first;
	uint64_t h;

	f->w->s = *from;
	world_do(f->w, path);
	f->transitions++;
	if (f->w->violation[0]) {
		snprintf(f->broken, sizeof(f->broken), "%s", f->w->violation);
		printf("%s\n", f->broken);
		tell_story(f, at, path);
		return false;
	}
	pos = f->w->pos;
	memcpy(fan, f->w->fan, pos);
	h = hash_of(&f->w->s);
	if (set_add(&f->seen, h)) {
		uint32_t index = add_node(f, at, path);

		*f->tail = pack(&f->w->s, index);
		f->tail = &(*f->tail)->next;
		if (f->progress) {
			struct mstate s = f->w->s;

			f->healed++;
			if (!heals(f, &s)) {
				snprintf(f->broken, sizeof(f->broken), "no progress from here%s%s", f->w->violation[0] ? ": " : "", f->w->violation);
				printf("%s\n", f->broken);
				tell_story(f, index, NULL);
				tell_heal(f, s);
				return false;
			}
		}
	}
	if (path->n == CHOICES)
		return true;
	first = path->n ? path->at[path->n - 1] + 1u : 0;
	for (unsigned i = first; i < pos; i++)
		for (unsigned v = 1; v < fan[i]; v++) {
			struct path next = *path;

			next.at[next.n] = i;
			next.value[next.n++] = v;
			if (!expand(f, from, at, &next))
				return false;
			if (f->n >= f->limit)
				return true;
		}
	return true;
}

/* Without faults to the first good state. */
static bool prepare(struct search *f, unsigned mutate)
{
	struct mbudget none;

	memset(&none, 0, sizeof(none));
	world_init(f->w, f->sc->nvm, f->sc->agent, &none, mutate);
	for (unsigned n = 0; !f->sc->cold && !world_is_good(&f->w->s); n++) {
		struct step step[96];
		unsigned k = world_heal_steps(&f->w->s, step, ARRAY_SIZE(step)), i;
		struct mstate now = f->w->s;

		for (i = 0; i < k; i++) {
			struct path p = { .step = step[i] };

			f->w->s = now;
			world_do(f->w, &p);
			if (memcmp(&now, &f->w->s, sizeof(now)))
				break;
		}
		if (i == k || n > 200)
			return false;
	}
	f->w->s.b = f->sc->b;
	f->first = f->w->s;
	return true;
}

static bool run(struct search *f, unsigned mutate)
{
	struct path none;
	struct timespec t0, t1;
	bool ok = true;

	clock_gettime(CLOCK_MONOTONIC, &t0);
	if (!prepare(f, mutate)) {
		printf("%s: the VMs never come to run\n", f->sc->name);
		world_print(&f->w->s, stdout);
		return false;
	}
	memset(&none, 0, sizeof(none));
	f->tail = &f->head;
	(void)set_add(&f->seen, hash_of(&f->first));
	*f->tail = pack(&f->first, add_node(f, 0, &none));
	f->tail = &(*f->tail)->next;
	while (f->head && ok && f->n < f->limit) {
		struct packed *k = f->head;
		struct mstate s;
		struct step step[128];
		unsigned n;

		f->head = k->next;
		if (!f->head)
			f->tail = &f->head;
		unpack(k, &s);
		n = world_steps(&s, step, ARRAY_SIZE(step));
		csv_assert(n < ARRAY_SIZE(step));
		for (unsigned i = 0; i < n && ok && f->n < f->limit; i++) {
			struct path p = { .step = step[i] };

			ok = expand(f, &s, k->index, &p);
		}
		free(k);
	}
	clock_gettime(CLOCK_MONOTONIC, &t1);
	printf("%-16s %8u states, %9llu transitions, depth %2u, %s, %5.1f s%s\n", f->sc->name, f->n, (unsigned long long)f->transitions, f->depth,
	       !ok ? "VIOLATED" : f->head ? "not to its end" : "to its end",
	       (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9, f->progress ? ", progress from each" : "");
	fflush(stdout);
	return ok;
}

static void search_done(struct search *f)
{
	while (f->head) {
		struct packed *k = f->head;

		f->head = k->next;
		free(k);
	}
	free(f->seen.slot);
	free(f->good.slot);
	free(f->node);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "scenario", 1, NULL, 's' }, { "states", 1, NULL, 'n' }, { "mutate", 1, NULL, 'm' }, { "no-progress", 0, NULL, 'p' },
		{ "list", 0, NULL, 'l' }, { NULL, 0, NULL, 0 } };
	unsigned mutate = 0, ran = 0;
	uint64_t total = 0, limit = 10000, depth = 0;
	bool progress = true, wanted[ARRAY_SIZE(scenarios)] = { false }, any = false, violated = false;
	const char *mutation = NULL;
	struct world *w = calloc(1, sizeof(*w));
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		size_t i;

		switch (c) {
		case 's':
			for (i = 0; i < ARRAY_SIZE(scenarios) && strcmp(scenarios[i].name, optarg); i++)
				;
			if (i == ARRAY_SIZE(scenarios)) {
				fprintf(stderr, "vmmodel: no scenario %s; --list names them\n", optarg);
				return 2;
			}
			wanted[i] = any = true;
			break;
		case 'n':
			limit = strtoull(optarg, NULL, 10);
			break;
		case 'm':
			for (i = 0; i < ARRAY_SIZE(mutations) && strcmp(mutations[i].name, optarg); i++)
				;
			if (i == ARRAY_SIZE(mutations)) {
				fprintf(stderr, "vmmodel: no mutation %s; --list names them\n", optarg);
				return 2;
			}
			mutate = mutations[i].bits;
			mutation = optarg;
			progress = false;
			break;
		case 'p':
			progress = false;
			break;
		case 'l':
			for (i = 0; i < ARRAY_SIZE(scenarios); i++)
				printf("scenario %-16s %s\n", scenarios[i].name, scenarios[i].what);
			for (i = 0; i < ARRAY_SIZE(mutations); i++)
				printf("mutation %s\n", mutations[i].name);
			return 0;
		default:
			fprintf(stderr, "usage: vmmodel [--scenario NAME]... [--states N] [--mutate NAME] [--no-progress] [--list]\n");
			return 2;
		}
	}
	csv_assert(w);
	w->queue = calloc(QUEUE_MAX, sizeof(*w->queue));
	csv_assert(w->queue);
	w->only_g4 = mutate;
	for (size_t i = 0; i < ARRAY_SIZE(scenarios) && !violated; i++) {
		struct search f = { .sc = &scenarios[i], .w = w, .limit = csv_min(limit, 1ull << 31), .progress = progress };

		if (any && !wanted[i])
			continue;
		violated = !run(&f, mutate);
		ran++;
		total += f.n;
		depth = csv_max(depth, (uint64_t)f.depth);
		search_done(&f);
	}
	free(w->queue);
	free(w);
	if (mutation) {
		printf("mutation %s: %s after %llu states\n", mutation, violated ? "found" : "NOT FOUND", (unsigned long long)total);
		return violated ? 0 : 1;
	}
	printf("figure: model: %llu states of %u scenarios (%zu bytes each), depth up to %llu, %s\n", (unsigned long long)total, ran, sizeof(struct mstate),
	       (unsigned long long)depth, violated ? "a violation" : "no violation");
	return violated ? 1 : 0;
}
