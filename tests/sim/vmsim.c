/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmsim.c - see vmsim.h: the world, its faults, its end.
 *
 * usage: vmsim --seeds A..B [--verbose] [--mutate NAME]
 * One line of figures; a seed that fails is told with its command.  --mutate NAME: the guard is taken away, and a run that finds nothing
 * in all seeds fails (the tests of the test): handoff, no-reaper, step4, no-open, self-commit, no-proof, absent, forget.
 */
#include "tests/sim/vmsim.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FAULTS_NS (40 * NS_PER_SEC)
#define CALM_NS (150 * NS_PER_SEC)

/* ---- the world ------------------------------------------------------------------------------------------------------------ */

struct event { struct timer t; struct world *w; void (*fn)(void *arg); void *arg; };

static void event_run(struct timer *t)
{
	struct event *e = container_of(t, struct event, t);
	void (*fn)(void *arg) = e->fn;
	void *arg = e->arg;

	free(e);
	fn(arg);
}

void after(struct world *w, uint64_t ns, void (*fn)(void *arg), void *arg)
{
	struct event *e = calloc(1, sizeof(*e));

	*e = (struct event){ .w = w, .fn = fn, .arg = arg };
	timer_init(&e->t, event_run);
	timer_set(w->s, &e->t, now(w) + ns);
}

const char *vm_name_of(unsigned vm)
{
	static const char *const name[VMS] = { "vm0", "vm1" };

	return name[vm];
}

int vm_of_name(const char *name)
{
	return name[2] - '0';
}

void story(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (!w->verbose)
		return;
	printf("%8.3f ", (double)now(w) / 1e9);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void violate(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (*w->violation)
		return;
	va_start(ap, fmt);
	vsnprintf(w->violation, sizeof(w->violation), fmt, ap);
	va_end(ap);
	story(w, "VIOLATION: %s", w->violation);
}

/* ---- views: who reaches whom both ways, the largest such set, in ascending order ---------------------------------------------- */

struct view_ev { struct world *w; unsigned node; uint64_t life; struct cluster_view v; };

static void view_run(void *arg)
{
	struct view_ev *e = arg;
	struct mg *mg = &e->w->n[e->node].mg;

	if (mg->alive && mg->life == e->life && e->v.ring.seq == e->w->ring_seq)
		mg_view(mg, &e->v);
	free(e);
}

static bool hears(const struct world *w, unsigned a, unsigned b)
{
	return !w->cut[a][b] && !w->cut[b][a];
}

static void reform_run(void *arg)
{
	struct world *w = arg;
	struct cluster_view v = { 0 };

	w->reform_due = false;
	v.ring.seq = ++w->ring_seq;
	for (unsigned i = 1; i <= NODES; i++) {
		bool all = w->n[i].mg.alive;

		mg_suspend(&w->n[i].mg);
		for (uint32_t k = 0; k < v.n; k++)
			all &= hears(w, i, v.m[k].nodeid);
		if (all)
			v.m[v.n++] = (struct cluster_node){ i, w->n[i].mg.life };
	}
	if (v.n * 2 <= NODES)
		return;
	v.ring.nodeid = v.m[0].nodeid;
	for (uint32_t k = 0; k < v.n; k++) {
		struct view_ev *e = malloc(sizeof(*e));

		*e = (struct view_ev){ w, v.m[k].nodeid, w->n[v.m[k].nodeid].mg.life, v };
		after(w, below(w, 20 * MS), view_run, e);
	}
}

void reform(struct world *w)
{
	if (w->reform_due)
		return;
	w->reform_due = true;
	after(w, 100 * MS + below(w, 400 * MS), reform_run, w);
}

/* ---- nodes and faults ------------------------------------------------------------------------------------------------------------- */

void node_off(struct node *n, const char *why)
{
	struct fq *q;

	if (!n->up)
		return;
	story(n->w, "n%u is off: %s", n->id, why);
	hv_kill(&n->hv);
	mg_kill(&n->mg);
	cds_list_for_each_entry(q, &n->qemus, node_list) {
		q->c = NULL;
		fq_die(q, why);
	}
	n->up = false;
}

static void hv_start_later(void *arg)
{
	hv_start(&((struct node *)arg)->hv);
}

static void mg_start_later(void *arg)
{
	mg_start(&((struct node *)arg)->mg);
}

void node_on(struct node *n)
{
	if (n->up)
		return;
	n->up = true;
	n->boots++;
	n->volume = true;
	memset(n->ended, 0, sizeof(n->ended));
	n->inc = n->boots * 100 + n->id;
	story(n->w, "n%u is on, life %llu", n->id, (unsigned long long)n->inc);
	after(n->w, below(n->w, NS_PER_SEC), hv_start_later, n);
	after(n->w, below(n->w, NS_PER_SEC), mg_start_later, n);
}

static void node_on_later(void *arg)
{
	node_on(arg);
}

static void do_hv_kill(void *arg)
{
	struct node *n = arg;

	if (!n->hv.alive)
		return;
	story(n->w, "hvhostd of n%u is killed", n->id);
	n->w->counter[N_HV_KILL]++;
	hv_kill(&n->hv);
	after(n->w, 100 * MS + below(n->w, 3 * NS_PER_SEC), hv_start_later, n);
}

static void do_mg_kill(void *arg)
{
	struct node *n = arg;

	if (!n->mg.alive)
		return;
	story(n->w, "migratord of n%u is killed", n->id);
	n->w->counter[N_MG_KILL]++;
	mg_kill(&n->mg);
	after(n->w, 100 * MS + below(n->w, 3 * NS_PER_SEC), mg_start_later, n);
}

static void do_qemu_kill(void *arg)
{
	struct node *n = arg;
	struct fq *q;

	cds_list_for_each_entry(q, &n->qemus, node_list)
		if (q->alive && chance(n->w, 1, 2)) {
			n->w->counter[N_QEMU_KILL]++;
			fq_die(q, "SIGKILL");
			return;
		}
}

static void do_power(void *arg)
{
	struct node *n = arg;

	if (!n->up)
		return;
	n->w->counter[N_POWER]++;
	node_off(n, "power cut");
	after(n->w, NS_PER_SEC + below(n->w, 10 * NS_PER_SEC), node_on_later, n);
}

static void heal(void *arg)
{
	struct world *w = arg;

	memset(w->cut, 0, sizeof(w->cut));
	story(w, "the network is whole");
	reform(w);
}

static void do_cut(void *arg)
{
	struct node *n = arg;
	struct world *w = n->w;
	bool both = chance(w, 2, 3);

	w->counter[N_CUT]++;
	story(w, "n%u is cut off%s", n->id, both ? "" : ", its egress");
	for (unsigned i = 1; i <= NODES; i++)
		if (i != n->id) {
			w->cut[n->id][i] = true;
			w->cut[i][n->id] = both;
		}
	reform(w);
	after(w, 500 * MS + below(w, 8 * NS_PER_SEC), heal, w);
}

/* All that remembers ends at once: a cold start, and whoever executes may not live to tell. */
static void do_all_mg_kill(void *arg)
{
	struct world *w = ((struct node *)arg)->w;
	struct fq *q;

	if (chance(w, 2, 3)) {
		do_cut(arg);
		return;
	}
	w->counter[N_ALL_MG]++;
	for (unsigned i = 1; i <= NODES; i++) {
		do_mg_kill(&w->n[i]);
		cds_list_for_each_entry(q, &w->n[i].qemus, node_list)
			if (q->alive && q->executing && chance(w, 1, 3)) {
				w->counter[N_QEMU_KILL]++;
				fq_die(q, "SIGKILL");
			}
	}
}

static void volume_back(void *arg)
{
	struct node *n = arg;

	n->volume = true;
	story(n->w, "n%u: the volume is mounted again", n->id);
}

static void do_volume(void *arg)
{
	struct node *n = arg;
	struct fq *q;

	if (!n->up || !n->volume)
		return;
	story(n->w, "csvfsd of n%u is killed", n->id);
	n->w->counter[N_VOLUME]++;
	n->volume = false;
	cds_list_for_each_entry(q, &n->qemus, node_list)
		if (q->alive)
			fq_disk_dies(q);
	after(n->w, 500 * MS + below(n->w, 6 * NS_PER_SEC), volume_back, n);
}

static void (*const fault[])(void *arg) = { do_hv_kill, do_hv_kill, do_mg_kill, do_qemu_kill, do_qemu_kill, do_power, do_cut, do_all_mg_kill, do_volume };

void crash_point(struct node *n)
{
	struct world *w = n->w;

	/* At the next moment: not below the feet of who calls. */
	if (w->faults && chance(w, 1, 250))
		after(w, below(w, 2) ? 0 : below(w, 400000), fault[below(w, ARRAY_SIZE(fault))], &w->n[chance(w, 3, 4) ? n->id : 1 + below(w, NODES)]);
}

static void fault_now_and_then(void *arg)
{
	struct world *w = arg;

	if (!w->faults)
		return;
	fault[below(w, ARRAY_SIZE(fault))](&w->n[1 + below(w, NODES)]);
	after(w, NS_PER_SEC + below(w, 10 * NS_PER_SEC), fault_now_and_then, w);
}

/* ---- the administrator -------------------------------------------------------------------------------------------------------------- */

static void admin(void *arg)
{
	struct world *w = arg;
	unsigned vm = below(w, VMS);
	struct mg *mg = &w->n[1 + below(w, NODES)].mg;
	struct lease_cas c;

	memset(&c, 0, sizeof(c));
	strcpy(c.vm, vm_name_of(vm));
	after(w, 100 * MS + below(w, 1500 * MS), admin, w);
	if (mg->alive && leasedb_is_settled(mg->db)) {
		const struct lease *l = leasedb_find(mg->db, c.vm);

		if (!l) {
			c.move = LEASE_CREATE;
			c.reason = LEASE_REASON_COLD;	/* by its definition: a cold start may have forgotten it */
			c.want = LEASE_WANT_RUN;
			c.flags = LEASE_HA;
			c.priority = 100;
		} else {
			c.version = l->version;
			if (!w->faults || chance(w, 1, 8) || l->state == LEASE_FREE) {
				c.move = LEASE_SET;
				c.want = w->faults && chance(w, 1, 3) ? below(w, LEASE_WANT_END) : LEASE_WANT_RUN;
				c.flags = LEASE_HA;
				c.priority = 100;
				/* In the calm only what is needed: a SET is a new chance for what failed too often. */
				if (!w->faults && l->want == LEASE_WANT_RUN && l->state != LEASE_FREE && !(l->flags & LEASE_GUESSED))
					return;
			} else {
				c.move = LEASE_INTENT;
				c.node = 1 + below(w, NODES);
				c.node_inc = w->n[c.node].inc;
				c.txid = ++w->next_txid;
				if (l->state != LEASE_RUNNING || l->txid || c.node == l->owner)
					return;
			}
		}
		mg_admin(mg, &c);
	}
}

/* ---- running it ------------------------------------------------------------------------------------------------------------------------- */

static uint64_t rnd_u64(struct rnd_port *p)
{
	return csv_prng_u64(&container_of(p, struct world, rnd_port)->rnd);
}

/* All schedulers until nothing is ready, in an order that chance chooses; then time goes on.  False at `until`. */
static bool step(struct world *w, uint64_t until)
{
	uint64_t next = sched_next_deadline(w->s);
	struct sched *ready[NODES + 1];
	unsigned n = 0;

	if (sched_ready(w->s))
		ready[n++] = w->s;
	for (unsigned i = 1; i <= NODES; i++)
		if (w->n[i].hv.s) {
			if (sched_ready(w->n[i].hv.s))
				ready[n++] = w->n[i].hv.s;
			next = csv_min(next, sched_next_deadline(w->n[i].hv.s));
		}
	if (n) {
		sched_step(ready[below(w, n)]);
		return true;
	}
	if (next > until)
		return false;
	w->clk.now_ns = csv_max(w->clk.now_ns, next);
	for (unsigned i = 1; i <= NODES; i++)
		if (w->n[i].hv.s)
			sched_run_timers(w->n[i].hv.s, w->clk.now_ns);
	sched_run_timers(w->s, w->clk.now_ns);
	return true;
}

static struct fq *executing(struct world *w, unsigned vm)
{
	for (unsigned i = 1; i <= NODES; i++) {
		struct fq *q;

		cds_list_for_each_entry(q, &w->n[i].qemus, node_list)
			if (q->alive && q->vm == vm && q->executing)
				return q;
	}
	return NULL;
}

/* NULL: as it must be in the end (VO3). */
static const char *unfinished(struct world *w, unsigned vm, char buf[300])
{
	for (unsigned i = 1; i <= NODES; i++) {
		struct mg *mg = &w->n[i].mg;
		const struct lease *l = mg->alive && leasedb_is_settled(mg->db) ? leasedb_find(mg->db, vm_name_of(vm)) : NULL;
		char record[200], reason[200];
		struct fq *q = executing(w, vm);

		if (!l)
			continue;
		lease_to_text(l, record, sizeof(record));
		if (l->state == LEASE_RUNNING && !l->txid && q && q->n->id == l->owner)
			return NULL;
		if (l->state == LEASE_BLOCKED) {
			lease_reason_text(l->reason, l->vm, "n1", reason, sizeof(reason));
			if (*reason && strstr(reason, "csvctl"))
				return NULL;
		}
		snprintf(buf, 300, "VO3: %s does not run in the end: %s, executing on n%u", vm_name_of(vm), record, q ? q->n->id : 0);
		return buf;
	}
	snprintf(buf, 300, "VO3: nobody has a settled record of %s in the end", vm_name_of(vm));
	return buf;
}

static bool all_finished(struct world *w)
{
	char buf[300];

	for (unsigned i = 0; i < VMS; i++)
		if (unfinished(w, i, buf))
			return false;
	return true;
}

static void world_free(struct world *w)
{
	for (unsigned i = 1; i <= NODES; i++) {
		hv_kill(&w->n[i].hv);
		free(w->n[i].mg.db);
	}
	sched_free(w->s);
	free(w);
}

static struct world *world_new(uint64_t seed, bool verbose)
{
	struct world *w = calloc(1, sizeof(*w));

	fake_clock_init(&w->clk);
	w->clk.now_ns = 1000 * NS_PER_SEC;
	csv_prng_init(&w->rnd, seed);
	w->rnd_port.u64 = rnd_u64;
	w->verbose = verbose;
	w->fence_works = true;
	w->next_port = 1000;
	w->s = sched_new(&w->clk.clock);
	for (unsigned i = 1; i <= NODES; i++) {
		w->n[i] = (struct node){ .w = w, .id = i };
		w->n[i].hv.n = w->n[i].mg.n = &w->n[i];
		CDS_INIT_LIST_HEAD(&w->n[i].qemus);
		node_on(&w->n[i]);
	}
	return w;
}

static void run(struct world *w)
{
	uint64_t begin = now(w);
	char buf[300];

	after(w, 2 * NS_PER_SEC, admin, w);
	while (!*w->violation && now(w) < begin + 5 * NS_PER_SEC && step(w, begin + 5 * NS_PER_SEC))
		;
	w->faults = true;
	after(w, 0, fault_now_and_then, w);
	while (!*w->violation && step(w, begin + FAULTS_NS))
		;
	w->faults = false;
	after(w, 0, heal, w);
	for (unsigned i = 1; i <= NODES; i++) {
		after(w, NS_PER_SEC, node_on_later, &w->n[i]);
		after(w, 4 * NS_PER_SEC, hv_start_later, &w->n[i]);
		after(w, 4 * NS_PER_SEC, mg_start_later, &w->n[i]);
	}
	w->clk.now_ns = csv_max(now(w), begin + FAULTS_NS);
	begin = now(w);
	while (!*w->violation && now(w) < begin + 10 * NS_PER_SEC && step(w, begin + 10 * NS_PER_SEC))
		;
	while (!*w->violation && now(w) < begin + CALM_NS && step(w, begin + CALM_NS))
		if (all_finished(w))
			break;
	for (unsigned i = 0; i < VMS && !*w->violation; i++)
		if (unfinished(w, i, buf))
			violate(w, "%s", buf);
}

static const struct { const char *name; unsigned sm, db; } mutations[] = {
	{ "handoff", VMSM_MUT_HANDOFF, 0 }, { "no-reaper", VMSM_MUT_NO_REAPER, 0 }, { "step4", VMSM_MUT_STEP4, LEASE_MUT_STEP4 },
	{ "no-open", VMSM_MUT_NO_OPEN, 0 }, { "absent", 0, LEASEDB_MUT_ABSENT }, { "forget", VMSM_MUT_FORGET, 0 }, { "self-commit", 0, LEASEDB_MUT_SELF_COMMIT }, { "no-proof", 0, LEASE_MUT_NO_PROOF },
};

/* A crash abandons the memory of the node, as it does in the world. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

int main(int argc, char **argv)
{
	static const struct option o[] = { { "seeds", 1, NULL, 's' }, { "verbose", 0, NULL, 'v' }, { "mutate", 1, NULL, 'm' }, { 0 } };
	static const char *const name[N_END_] = { "resumes", "migrations", "migrations failed", "hvhostd killed", "migratord killed", "QEMU killed",
		"power cuts", "cuts", "fenced", "purged", "cold starts", "aborts", "refusals", "adopted", "starts", "taken", "all migratords killed", "csvfsd killed",
		"disks opened anew" };
	unsigned long long first = 1, last = 20, total[N_END_] = { 0 };
	unsigned mutate_sm = 0, mutate_db = 0, bad = 0;
	bool verbose = false, mutated = false;
	int c;

	while ((c = getopt_long(argc, argv, "", o, NULL)) >= 0) {
		if (c == 's' && sscanf(optarg, "%llu..%llu", &first, &last) < 2)
			last = first;
		verbose |= c == 'v';
		if (c == 'm') {
			for (size_t i = 0; i < ARRAY_SIZE(mutations); i++)
				if (!strcmp(optarg, mutations[i].name)) {
					mutate_sm = mutations[i].sm;
					mutate_db = mutations[i].db;
					mutated = true;
				}
			if (!mutated) {
				fprintf(stderr, "vmsim: no mutation %s\n", optarg);
				return 2;
			}
		}
		if (c == '?')
			return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (unsigned long long seed = first; seed <= last; seed++) {
		struct world *w = world_new(seed, verbose);

		w->mutate_sm = mutate_sm;
		w->mutate_db = mutate_db;
		run(w);
		for (unsigned i = 0; i < N_END_; i++)
			total[i] += w->counter[i];
		if (*w->violation) {
			bad++;
			if (!mutated)
				printf("FAIL seed %llu: %s\n     again: tests/sim/vmsim --verbose --seeds %llu..%llu\n", seed, w->violation, seed, seed);
		}
		world_free(w);
		if (mutated && bad) {
			printf("vmsim: mutation found with seed %llu\n", seed);
			return 0;
		}
	}
	printf("vmsim: %llu seeds, %u failed;", last - first + 1, bad);
	for (unsigned i = 0; i < N_END_; i++)
		printf(" %s %llu%s", name[i], total[i], i + 1 < N_END_ ? "," : "\n");
	/* A kind of trouble that never came proves nothing.  (Nobody is purged here: fencing is true, so who is proven dead is dead.) */
	for (unsigned i = 0; !mutated && last - first >= 99 && i < N_END_; i++)
		if (!total[i] && i != N_PURGED) {
			printf("FAIL: no seed had any \"%s\"\n", name[i]);
			bad++;
		}
	if (mutated)
		printf("vmsim: the mutation was not found\n");
	return mutated || bad ? 1 : 0;
}
