/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * plocksim - programs that lock files through the cluster (csvfs/plock.h) on a simulated cluster with faults of every kind.
 *
 *	plocksim [--nodes N] [--ops N] [--seed S | --seeds A..B] [--mutate no-ack|not-settled|unlock-untold] [--verbose]
 *
 * --ops is per program; each node runs PROGRAMS of them, each one owner, on FILES files of BYTES bytes.
 *
 * The oracle knows what each program believes: it holds bytes from the return of plock_set() to its call of plock_clear(), and its belief
 * ends with its node's life or when it is told that its locks are lost.
 *	Q1  No two programs of lives that run believe in conflicting locks on one byte, wherever they are: also in different parts of
 *	    a partition, and also when one of them is lost to the others and not yet fenced.
 *	Q2  F_GETLK that finds nothing: nobody in its view has held the byte all the time.
 *	Q3  Every request ends when the cluster is whole again.
 *	Q4  When all have given up everything, no table has anything left.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "csvfs/plock.h"
#include "tests/sim/sim_net.h"
#include "utils/base/base.h"
#include "utils/base/err.h"

#define PROGRAMS 3u
#define FILES 3u
#define BYTES 12u
#define LIVES_MAX 512u

struct sim;
struct node;

struct belief { bool on; enum plock_type type; uint64_t since_ns; };
struct program {
	struct node *n;
	unsigned id;
	unsigned ops_left;
	bool busy;			/* in the middle of an operation */
	bool flocked;			/* holds a flock: asks for no other file's, nobody would find that deadlock */
	struct coro *coro;
	bool may_cancel;
	struct timer cancel;
	struct belief belief[FILES][PLOCK_KINDS][BYTES];
};

struct life { struct cluster_node who; unsigned node; bool gone, fencing; };

struct node {
	struct sim *s;
	unsigned node;
	bool up;
	struct env *env;
	struct plock_ctl *ctl;
	struct program prog[PROGRAMS];
	struct timer look;		/* for lost lives to fence, for a next life */
	struct fence_req req;
	bool fencing;
	uint64_t lost;			/* times its programs were told that their locks are lost */
};

struct sim {
	unsigned nodes, ops;
	const char *mutate;
	bool verbose;
	uint64_t seed;
	struct sim_world *w;
	struct sim_net *net;
	struct node node[SIM_NODES_MAX + 1];
	unsigned n_lives;
	struct life life[LIVES_MAX];
	bool winding_down, failed;
	char why[300];
};

static void fail(struct sim *s, const char *fmt, ...) csv_printf_like(2, 3);

static void fail(struct sim *s, const char *fmt, ...)
{
	va_list ap;

	if (s->failed)
		return;
	s->failed = true;
	va_start(ap, fmt);
	vsnprintf(s->why, sizeof(s->why), fmt, ap);
	va_end(ap);
}

static uint64_t rnd(struct node *n, uint64_t below)
{
	return env_rnd(n->env) % below;
}

/* ---- what is true of lives ---------------------------------------------------------------------------------------------------- */

static struct life *life_of(struct sim *s, struct cluster_node who)
{
	for (unsigned i = 0; i < s->n_lives; i++)
		if (s->life[i].who.nodeid == who.nodeid && s->life[i].who.incarnation == who.incarnation)
			return &s->life[i];
	return NULL;
}

static void life_add(struct sim *s, unsigned node, uint64_t incarnation)
{
	csv_assert(s->n_lives < LIVES_MAX);
	s->life[s->n_lives++] = (struct life){ .who = { node, incarnation }, .node = node };
}

/* The stand-in for recovery: a life that is no member of the view has certainly ended. */
static bool settled(void *arg)
{
	struct node *n = arg;
	const struct cluster_view *v = cluster_current(n->env->cluster);

	for (unsigned i = 0; v && i < n->s->n_lives; i++) {
		const struct life *l = &n->s->life[i];
		const struct cluster_node *m = cluster_view_find(v, l->who.nodeid);

		if (!l->gone && !(m && m->incarnation == l->who.incarnation))
			return false;
	}
	return v;
}

static void ended(struct sim *s, struct cluster_node who)
{
	struct life *l = life_of(s, who);

	if (l)
		l->gone = true;
}

/* ---- oracle ---------------------------------------------------------------------------------------------------------------------- */

static void believe(struct program *p, unsigned file, enum plock_kind kind, enum plock_type type, unsigned from, unsigned to)
{
	struct sim *s = p->n->s;

	for (unsigned b = from; b <= to; b++) {
		for (unsigned i = 1; i <= s->nodes; i++) {
			for (unsigned k = 0; s->node[i].up && k < PROGRAMS; k++) {
				const struct program *o = &s->node[i].prog[k];

				if (o != p && o->belief[file][kind][b].on &&
				    (type == PLOCK_WRITE || o->belief[file][kind][b].type == PLOCK_WRITE))
					fail(s, "Q1: n%u.%u and n%u.%u both believe to hold file %u byte %u (%s)", p->n->node, p->id, i, k, file, b,
					     kind == PLOCK_FLOCK ? "flock" : "posix");
			}
		}
		p->belief[file][kind][b] = (struct belief){ true, type, sim_world_now_ns(s->w) };
	}
}

static void doubt(struct program *p, unsigned file, enum plock_kind kind, unsigned from, unsigned to)
{
	for (unsigned b = from; b <= to; b++)
		p->belief[file][kind][b].on = false;
}

static void found_nothing(struct program *p, unsigned file, unsigned byte, uint64_t since_ns)
{
	struct sim *s = p->n->s;
	const struct cluster_view *v = cluster_current(p->n->env->cluster);

	for (unsigned i = 1; v && i <= s->nodes; i++) {
		const struct cluster_node *m = cluster_view_find(v, i);

		for (unsigned k = 0; m && s->node[i].up && m->incarnation == cluster_incarnation(s->node[i].env->cluster) && k < PROGRAMS; k++) {
			const struct belief *b = &s->node[i].prog[k].belief[file][PLOCK_POSIX][byte];

			if (&s->node[i].prog[k] != p && b->on && b->since_ns < since_ns)
				fail(s, "Q2: n%u.%u is told that nobody holds file %u byte %u, and n%u.%u has held it for %llu ms", p->n->node,
				     p->id, file, byte, i, k, (unsigned long long)((sim_world_now_ns(s->w) - b->since_ns) / NS_PER_MS));
		}
	}
}

/* POSIX: a request that fails has changed nothing. */
static void still(struct program *p, unsigned file, const struct belief *before, unsigned from, unsigned to)
{
	for (unsigned b = from; b <= to; b++)
		if (before[b].on)
			believe(p, file, PLOCK_POSIX, before[b].type, b, b);
}

/* ---- programs ---------------------------------------------------------------------------------------------------------------------- */

static void cancel_due(struct timer *t)
{
	struct program *p = container_of(t, struct program, cancel);

	if (p->may_cancel) {
		sim_world_count(p->n->s->w, "op.interrupted", 1);
		sched_cancel(p->n->env->sched, p->coro);
	}
}

static struct plock_who who_of(const struct program *p, unsigned file, enum plock_kind kind)
{
	return (struct plock_who){ .key = 100 + file, .kind = kind, .id = 7 + p->id, .pid = 1000 + p->id };
}

static void one_set(struct program *p, enum plock_kind kind)
{
	struct sim *s = p->n->s;
	unsigned file = (unsigned)rnd(p->n, FILES), from = 0, to = BYTES - 1;
	enum plock_type type = rnd(p->n, 2) ? PLOCK_WRITE : PLOCK_READ;
	/* A circle through both kinds is nobody's to find. */
	bool wait = rnd(p->n, 2) && !(kind == PLOCK_POSIX && p->flocked);
	struct belief before[BYTES];
	struct plock_who who;
	uint64_t told;
	int err;

	if (kind == PLOCK_POSIX) {
		from = (unsigned)rnd(p->n, BYTES);
		to = from + (unsigned)rnd(p->n, BYTES - from);
	} else if (p->flocked) {
		return;
	} else {
		p->flocked = true;
	}
	who = who_of(p, file, kind);
	/* The old lock on these bytes may be replaced at any moment from now on. */
	memcpy(before, p->belief[file][kind], sizeof(before));
	told = p->n->lost;
	if (type == PLOCK_READ || kind == PLOCK_FLOCK)
		doubt(p, file, kind, from, to);
	if (rnd(p->n, 6) == 0)
		timer_set(p->n->env->sched, &p->cancel, sched_now_ns(p->n->env->sched) + rnd(p->n, 40 * NS_PER_MS));
	p->may_cancel = true;
	err = plock_set(p->n->ctl, &who, type, from, kind == PLOCK_FLOCK ? UINT64_MAX : to, wait);
	p->may_cancel = false;
	timer_del(p->n->env->sched, &p->cancel);
	sim_world_trace(s->w, "set", p->n->node * 100 + p->id, file, (uint64_t)-err);
	if (!err)
		believe(p, file, kind, type, from, to);
	else if (kind == PLOCK_FLOCK)
		p->flocked = false;
	else if (told == p->n->lost)
		still(p, file, before, from, to);
	switch (err) {
	case 0: sim_world_count(s->w, wait ? "op.locked_waiting" : "op.locked", 1); break;
	case -EAGAIN: sim_world_count(s->w, "op.refused", 1); break;
	case -EINTR: sim_world_count(s->w, "op.gave_up", 1); break;
	case -EDEADLK: sim_world_count(s->w, "op.deadlock", 1); break;
	default: fail(s, "n%u.%u: locking file %u: %d", p->n->node, p->id, file, err);
	}
	if (err == -EAGAIN && wait)
		fail(s, "n%u.%u: a request that waits was refused", p->n->node, p->id);
}

static void one_get(struct program *p)
{
	unsigned file = (unsigned)rnd(p->n, FILES), byte = (unsigned)rnd(p->n, BYTES);
	struct plock_who who = who_of(p, file, PLOCK_POSIX);
	uint64_t since = sim_world_now_ns(p->n->s->w);
	struct plock other;
	bool found;

	if (plock_get(p->n->ctl, &who, PLOCK_WRITE, byte, byte, &found, &other))
		return;
	sim_world_count(p->n->s->w, found ? "op.found" : "op.found_nothing", 1);
	if (!found)
		found_nothing(p, file, byte, since);
}

static void clear_all(struct program *p)
{
	for (unsigned file = 0; file < FILES; file++) {
		for (int kind = 0; kind < PLOCK_KINDS; kind++) {
			struct plock_who who = who_of(p, file, (enum plock_kind)kind);

			doubt(p, file, (enum plock_kind)kind, 0, BYTES - 1);
			plock_clear(p->n->ctl, &who, 0, UINT64_MAX);
		}
	}
	p->flocked = false;
}

static void one_clear(struct program *p)
{
	unsigned file = (unsigned)rnd(p->n, FILES), from = (unsigned)rnd(p->n, BYTES), to = from + (unsigned)rnd(p->n, BYTES - from);
	struct plock_who who = who_of(p, file, PLOCK_POSIX);

	doubt(p, file, PLOCK_POSIX, from, to);
	plock_clear(p->n->ctl, &who, from, to);
}

static void program_coro(void *arg)
{
	struct program *p = arg;

	while (p->ops_left) {
		p->busy = true;
		coro_sleep_ns(p->n->env->sched, rnd(p->n, 8 * NS_PER_MS));
		switch (rnd(p->n, 8)) {
		case 0: case 1: case 2: one_set(p, PLOCK_POSIX); break;
		case 3: one_set(p, PLOCK_FLOCK); break;
		case 4: one_get(p); break;
		case 5: one_clear(p); break;
		default: clear_all(p);
		}
		p->ops_left--;
		if (coro_cancelled(p->n->env->sched))
			break;		/* the flag stays: the program ends, another begins */
	}
	clear_all(p);
	p->busy = false;
	p->coro = NULL;
	if (p->ops_left && !p->n->s->failed)
		csv_assert(!sched_spawn_ret(p->n->env->sched, "program", program_coro, p, &p->coro));
}

/* ---- nodes -------------------------------------------------------------------------------------------------------------------------- */

static void on_lost(void *arg)
{
	struct node *n = arg;

	for (unsigned i = 0; i < PROGRAMS; i++)
		memset(n->prog[i].belief, 0, sizeof(n->prog[i].belief));
	n->lost++;
	sim_world_count(n->s->w, "op.locks_lost", 1);
}

static void on_fail(void *arg, const char *why)
{
	struct node *n = arg;

	fail(n->s, "n%u cannot go on: %s", n->node, why);
}

static void fence_done(struct fence_req *r)
{
	struct node *n = r->arg;

	n->fencing = false;
}

/* The lowest member has those fenced who are lost; now and then a node begins its next life. */
static void look(struct timer *t)
{
	struct node *n = container_of(t, struct node, look);
	const struct cluster_view *v = cluster_current(n->env->cluster);
	struct sim *s = n->s;

	for (unsigned i = 0; v && v->n && v->m[0].nodeid == n->node && !n->fencing && i < s->n_lives; i++) {
		const struct life *l = &s->life[i];
		const struct cluster_node *m = cluster_view_find(v, l->who.nodeid);

		if (l->gone || m)
			continue;
		n->fencing = true;
		n->req = (struct fence_req){ .node = l->who, .done = fence_done, .arg = n };
		n->env->fence->ops->submit(n->env->fence, &n->req);
	}
	if (v && !s->winding_down && rnd(n, 60) == 0) {
		uint64_t next = sim_net_next_incarnation(s->net, n->node);

		/* What its programs do from now on is refused until they have heard (a closed gate). */
		on_lost(n);
		ended(s, (struct cluster_node){ n->node, cluster_incarnation(n->env->cluster) });
		life_add(s, n->node, next);
		sim_world_count(s->w, "fault.next_life", 1);
		cluster_new_incarnation(n->env->cluster, next);
	}
	timer_set(n->env->sched, t, sched_now_ns(n->env->sched) + 50 * NS_PER_MS + rnd(n, 100 * NS_PER_MS));
}

static void node_start(void *arg, unsigned node, struct env *env)
{
	struct sim *s = arg;
	struct node *n = &s->node[node];
	const struct plock_user user = { .settled = settled, .lost = on_lost, .fail = on_fail, .arg = n };
	unsigned left[PROGRAMS];

	for (unsigned i = 0; i < PROGRAMS; i++)
		left[i] = n->s ? n->prog[i].ops_left : s->ops;
	memset(n, 0, sizeof(*n));
	n->s = s;
	n->node = node;
	n->up = true;
	n->env = env;
	life_add(s, node, cluster_incarnation(env->cluster));
	n->ctl = plock_new(env, &user);
	csv_assert(n->ctl);
	if (s->mutate && !strcmp(s->mutate, "no-ack"))
		plock_mutate_no_ack(n->ctl);
	if (s->mutate && !strcmp(s->mutate, "not-settled"))
		plock_mutate_not_settled(n->ctl);
	if (s->mutate && !strcmp(s->mutate, "unlock-untold"))
		plock_mutate_unlock_untold(n->ctl);
	timer_init(&n->look, look);
	timer_set(env->sched, &n->look, sched_now_ns(env->sched) + rnd(n, 100 * NS_PER_MS));
	for (unsigned i = 0; i < PROGRAMS; i++) {
		struct program *p = &n->prog[i];

		p->n = n;
		p->id = i;
		p->ops_left = left[i];
		timer_init(&p->cancel, cancel_due);
		csv_assert(!sched_spawn_ret(env->sched, "program", program_coro, p, &p->coro));
	}
}

static void node_down(void *arg, unsigned node)
{
	struct sim *s = arg;
	struct node *n = &s->node[node];

	ended(s, (struct cluster_node){ node, cluster_incarnation(n->env->cluster) });
	plock_free(n->ctl);
	n->ctl = NULL;
	n->up = false;
}

static void on_fenced(void *arg, unsigned node, uint64_t life)
{
	struct sim *s = arg;

	for (unsigned i = 0; i < s->n_lives; i++)
		if (s->life[i].node == node && sim_net_life_of(s->net, s->life[i].who) <= life)
			s->life[i].gone = true;
}

static void on_reaped(void *arg, unsigned node, uint64_t life)
{
	(void)arg;
	(void)node;
	(void)life;
}

/* ---- runs ----------------------------------------------------------------------------------------------------------------------------- */

static void next_fault(void *arg)
{
	struct sim *s = arg;

	if (s->winding_down)
		return;
	sim_net_random_fault(s->net);
	sim_world_at(s->w, sim_world_now_ns(s->w) + sim_world_delay(s->w, 150 * NS_PER_MS), next_fault, s);
}

static bool half_done(void *arg)
{
	struct sim *s = arg;
	uint64_t left = 0;

	for (unsigned i = 1; i <= s->nodes; i++)
		for (unsigned k = 0; k < PROGRAMS; k++)
			left += s->node[i].prog[k].ops_left;
	return s->failed || left <= (uint64_t)s->nodes * PROGRAMS * s->ops / 10;
}

static bool all_done(void *arg)
{
	struct sim *s = arg;

	for (unsigned i = 1; !s->failed && i <= s->nodes; i++)
		for (unsigned k = 0; k < PROGRAMS; k++)
			if (!s->node[i].up || s->node[i].prog[k].busy || s->node[i].prog[k].ops_left)
				return false;
	return true;
}

static bool at_rest(void *arg)
{
	struct sim *s = arg;

	for (unsigned i = 1; i <= s->nodes; i++)
		if (!s->node[i].up || plock_busy(s->node[i].ctl))
			return false;
	return true;
}

static bool left_over(void *arg, const struct plock_walk *w)
{
	struct node *n = arg;

	fail(n->s, "Q4: n%u: file %" PRIu64 ": %s of n%u.%" PRIu64 " is left over", n->node, w->key, w->waiting ? "a waiting request" : "a lock",
	     w->lk.node.nodeid, w->lk.id);
	return false;
}

static void run(struct sim *s, uint64_t seed)
{
	struct sim_net_hooks hooks = { .start = node_start, .down = node_down, .fenced = on_fenced, .reaped = on_reaped, .arg = s };
	unsigned nodes = s->nodes, ops = s->ops;
	const char *mutate = s->mutate;
	bool verbose = s->verbose;

	memset(s, 0, sizeof(*s));
	s->nodes = nodes;
	s->ops = ops;
	s->mutate = mutate;
	s->verbose = verbose;
	s->seed = seed;
	s->w = sim_world_new(seed, nodes);
	sim_world_verbose(s->w, verbose);
	s->net = sim_net_new(s->w, 4711, &hooks);
	for (unsigned i = 1; i <= nodes; i++)
		sim_net_boot(s->net, i);
	sim_world_at(s->w, sim_world_now_ns(s->w) + 500 * NS_PER_MS, next_fault, s);
	sim_world_run(s->w, sim_world_now_ns(s->w) + 600 * NS_PER_SEC, half_done, s);
	s->winding_down = true;
	sim_net_repair_all(s->net);
	if (!s->failed && !sim_world_run(s->w, sim_world_now_ns(s->w) + 600 * NS_PER_SEC, all_done, s)) {
		for (unsigned i = 1; i <= nodes; i++)
			for (unsigned k = 0; k < PROGRAMS; k++)
				if (!s->node[i].up || s->node[i].prog[k].busy || s->node[i].prog[k].ops_left)
					fail(s, "Q3: ten minutes after everything was repaired, n%u.%u (%s) waits with %u operations left", i, k,
					     s->node[i].up ? "up" : "down", s->node[i].prog[k].ops_left);
	}
	if (!s->failed)
		sim_world_run(s->w, sim_world_now_ns(s->w) + 5 * NS_PER_SEC, at_rest, s);
	sim_world_run(s->w, sim_world_now_ns(s->w) + NS_PER_SEC, NULL, NULL);
	for (unsigned i = 1; !s->failed && i <= nodes; i++) {
		if (s->node[i].up)
			plock_walk(s->node[i].ctl, left_over, &s->node[i]);
		if (s->node[i].up && plock_busy(s->node[i].ctl))
			fail(s, "Q4: n%u counts %" PRIu64 " locks and requests, and all programs have given up everything", i, plock_busy(s->node[i].ctl));
	}
}

static void finish(struct sim *s)
{
	sim_net_free(s->net);
	sim_world_free(s->w);
}

/* In a child: an assertion finds a mutation as well as the oracle does. */
static bool caught(struct sim *s, uint64_t seed)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	csv_assert(pid >= 0);
	if (pid == 0) {
		run(s, seed);
		if (s->failed)
			printf("mutation %s caught at seed %" PRIu64 ": %s\n", s->mutate, seed, s->why);
		fflush(stdout);
		_exit(s->failed ? 1 : 0);
	}
	csv_assert(waitpid(pid, &status, 0) == pid);
	if (WIFSIGNALED(status))
		printf("mutation %s caught at seed %" PRIu64 ": assertion (signal %d)\n", s->mutate, seed, WTERMSIG(status));
	return WIFSIGNALED(status) || WEXITSTATUS(status);
}

static bool is_mutation(const char *name)
{
	return !strcmp(name, "no-ack") || !strcmp(name, "not-settled") || !strcmp(name, "unlock-untold");
}

static int usage(void)
{
	fprintf(stderr, "usage: plocksim [--nodes N] [--ops N] [--seed S | --seeds A..B] [--mutate no-ack|not-settled|unlock-untold] [--verbose]\n");
	return 2;
}

static void want(struct sim_counters *t)
{
	static const char *const names[] = { "op.locked", "op.locked_waiting", "op.refused", "op.gave_up", "op.interrupted", "op.deadlock", "op.found",
					     "op.found_nothing", "op.locks_lost", "fault.next_life" };

	sim_net_want_faults(t);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		sim_counters_want(t, names[i]);
}

/* A crash abandons the memory of the node, as it does in the world. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "nodes", required_argument, NULL, 'n' }, { "ops", required_argument, NULL, 'o' }, { "seed", required_argument, NULL, 's' },
		{ "seeds", required_argument, NULL, 'r' }, { "mutate", required_argument, NULL, 'm' }, { "verbose", no_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	struct sim *s = calloc(1, sizeof(*s));
	struct sim_counters total = { 0 };
	uint64_t first = 1, last = 1, hash = 0;
	struct timespec t0, t1;
	const char *missing;
	int c;

	csv_assert(s);
	s->nodes = 3;
	s->ops = 300;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'n': s->nodes = (unsigned)atoi(optarg); break;
		case 'o': s->ops = (unsigned)atoi(optarg); break;
		case 's': first = last = strtoull(optarg, NULL, 0); break;
		case 'm': s->mutate = optarg; break;
		case 'v': s->verbose = true; break;
		case 'r':
			if (sscanf(optarg, "%" SCNu64 "..%" SCNu64, &first, &last) == 2 && first <= last)
				break;
			/* fall through */
		default: return usage();
		}
	}
	if (optind < argc || s->nodes < 1 || s->nodes > SIM_NODES_MAX || (s->mutate && !is_mutation(s->mutate)))
		return usage();
	clock_gettime(CLOCK_MONOTONIC, &t0);
	for (uint64_t seed = first; seed <= last; seed++) {
		if (s->mutate) {
			if (caught(s, seed))
				return 0;
			continue;
		}
		run(s, seed);
		sim_counters_add(&total, sim_world_counters(s->w));
		hash = hash * 31 + sim_world_hash(s->w);
		if (s->failed) {
			printf("seed %" PRIu64 " at %.6f s: %s\nrun again: plocksim --nodes %u --ops %u --seed %" PRIu64 " --verbose\n", seed,
			       sim_world_now_ns(s->w) / 1e9, s->why, s->nodes, s->ops, seed);
			return 1;
		}
		finish(s);
	}
	clock_gettime(CLOCK_MONOTONIC, &t1);
	if (s->mutate) {
		printf("mutation %s was not caught by seeds %" PRIu64 "..%" PRIu64 "\n", s->mutate, first, last);
		return 1;
	}
	printf("plocksim: seeds %" PRIu64 "..%" PRIu64 ", %u nodes x %u programs x %u operations, %.2f s, trace %016" PRIx64 "\n", first, last, s->nodes,
	       PROGRAMS, s->ops, (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9, hash);
	sim_counters_print(&total, "  ");
	if (s->nodes >= 3 && last - first >= 9) {
		want(&total);
		missing = sim_counters_missing(&total);
		if (missing) {
			printf("no %s in all these runs: this proves nothing about it\n", missing);
			return 1;
		}
	}
	return 0;
}
