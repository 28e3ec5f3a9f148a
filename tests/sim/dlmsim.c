/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlmsim - random lock traffic on a simulated cluster with faults of every kind, one thread, one seed.
 *
 *	dlmsim [--nodes N | --nodes any] [--ops N] [--seed S | --seeds A..B] [--mutate NAME] [--no-faults] [--verbose]
 *
 * --nodes any: 3 to 16, by the seed, and --ops is then of three nodes' work shared by all; else --ops is per node.  Exit code 0: all invariants held (dlmsim_oracle.c), and over a range of at least 10 seeds every kind of
 * fault was injected.  With --mutate (a guard of the lock manager removed): 0 when some seed of the range finds it out.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/dlmsim.h"

static const char *const mutations[] = { "no-phantom", "weak-phantom", "keep-lvb", "no-purge", "one-directory", "no-fifo", "bad-cell",
	"no-remaster", "no-barrier", "cancel-lost", "conversions-last", "no-circle", "demote-unasked", "no-victim", "all-victims",
	"deadlock-unverified", "hold-uncapped", "ignore-ring", "old-ring", "no-resend", "own-votes" };

void ds_fail(struct ds_sim *s, const char *fmt, ...)
{
	va_list ap;

	if (s->failed)
		return;
	s->failed = true;
	va_start(ap, fmt);
	vsnprintf(s->why, sizeof(s->why), fmt, ap);
	va_end(ap);
}

static void on_fenced(void *arg, unsigned node, uint64_t life)
{
	ds_oracle_fenced(arg, node, life);
}

static void on_reaped(void *arg, unsigned node, uint64_t life)
{
	(void)arg;			/* nothing of it is on its way to a disk: there is none */
	(void)node;
	(void)life;
}

static void next_fault(void *arg)
{
	struct ds_sim *s = arg;

	if (s->winding_down)
		return;
	sim_net_random_fault(s->net);
	sim_world_at(s->w, sim_world_now_ns(s->w) + sim_world_delay(s->w, 120 * NS_PER_MS), next_fault, s);
}

static bool ops_done(void *arg)
{
	struct ds_sim *s = arg;

	return s->failed || !s->ops_left;
}

static bool all_idle(void *arg)
{
	struct ds_sim *s = arg;

	if (s->failed)
		return true;
	for (unsigned i = 1; i <= s->opt.nodes; i++)
		if (!ds_node_idle(&s->node[i]))
			return false;
	return true;
}

static bool at_rest(void *arg)
{
	struct ds_sim *s = arg;

	if (s->failed)
		return true;
	if (!all_idle(arg))
		return false;
	for (unsigned i = 1; i <= s->opt.nodes; i++)
		if (s->node[i].dlm->resources.n || s->node[i].dlm->dir.n)
			return false;
	return true;
}

static void run(struct ds_sim *s, const struct ds_options *opt, uint64_t seed)
{
	struct sim_net_hooks hooks = { .start = ds_node_start, .down = ds_node_down, .fenced = on_fenced, .reaped = on_reaped,
				       .arg = s };

	memset(s, 0, sizeof(*s));
	s->opt = *opt;
	s->seed = seed;
	s->ops_left = opt->nodes * opt->ops;
	s->w = sim_world_new(seed, opt->nodes);
	sim_world_verbose(s->w, opt->verbose);
	s->net = sim_net_new(s->w, 4711, &hooks);
	if (opt->nodes >= 5)		/* one whose node list is an old one */
		sim_net_expects(s->net, 1 + (unsigned)(seed % opt->nodes), opt->nodes - 2);
	sim_world_on_step(s->w, ds_oracle_step, s);
	for (unsigned i = 1; i <= opt->nodes; i++)
		sim_net_boot(s->net, i);
	if (!opt->no_faults)
		sim_world_at(s->w, sim_world_now_ns(s->w) + 500 * NS_PER_MS, next_fault, s);
	if (!sim_world_run(s->w, sim_world_now_ns(s->w) + 3600 * NS_PER_SEC, ops_done, s))
		ds_fail(s, "D4: an hour of the simulated cluster, and %u operations were never made", s->ops_left);
	s->winding_down = true;
	sim_net_repair_all(s->net);
	if (!s->failed)
		sim_world_run(s->w, sim_world_now_ns(s->w) + 120 * NS_PER_SEC, all_idle, s);
	for (unsigned i = 1; !s->failed && i <= opt->nodes; i++)
		if (s->node[i].up && ds_node_idle(&s->node[i]))
			ds_node_sweep(&s->node[i]);
	if (!s->failed)
		sim_world_run(s->w, sim_world_now_ns(s->w) + 120 * NS_PER_SEC, at_rest, s);
	if (!s->failed)
		ds_oracle_end(s);
}

static void sum_messages(struct ds_sim *s)
{
	for (unsigned i = 1; i <= s->opt.nodes; i++)
		if (s->node[i].up) {
			sim_world_count(s->w, "msg.sent", s->node[i].dlm->st.messages_sent);
			sim_world_count(s->w, "msg.stale", s->node[i].dlm->st.stale_messages);
			sim_world_count(s->w, "dlm.moves", s->node[i].dlm->st.moves);
			sim_world_count(s->w, "dlm.held_back", s->node[i].dlm->st.held_back);
			sim_world_count(s->w, "dlm.bounces", s->node[i].dlm->st.bounces);
		}
}

static void finish(struct ds_sim *s)
{
	uint64_t hash = sim_world_hash(s->w);

	sim_net_free(s->net);
	sim_world_free(s->w);
	ds_oracle_free(s);
	(void)hash;
}

/* In a child: an assertion of the lock manager finds a mutation as well as the oracle does. */
static bool caught(struct ds_sim *s, const struct ds_options *opt, uint64_t seed)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	csv_assert(pid >= 0);
	if (pid == 0) {
		run(s, opt, seed);
		if (s->failed)
			printf("mutation %s caught at seed %" PRIu64 ": %s\n", opt->mutate, seed, s->why);
		fflush(stdout);
		_exit(s->failed ? 1 : 0);
	}
	csv_assert(waitpid(pid, &status, 0) == pid);
	if (WIFSIGNALED(status))
		printf("mutation %s caught at seed %" PRIu64 ": assertion (signal %d)\n", opt->mutate, seed, WTERMSIG(status));
	return WIFSIGNALED(status) || WEXITSTATUS(status);
}

static int usage(void)
{
	fprintf(stderr, "usage: dlmsim [--nodes N|any] [--ops N] [--seed S | --seeds A..B] [--mutate NAME] [--no-faults] [--verbose]\n"
			"mutations:");
	for (size_t i = 0; i < ARRAY_SIZE(mutations); i++)
		fprintf(stderr, " %s", mutations[i]);
	fprintf(stderr, "\n");
	return 2;
}

static bool mutation_is_known(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(mutations); i++)
		if (!strcmp(mutations[i], name))
			return true;
	return false;
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
		{ "nodes", required_argument, NULL, 'n' }, { "ops", required_argument, NULL, 'o' },
		{ "seed", required_argument, NULL, 's' }, { "seeds", required_argument, NULL, 'r' },
		{ "mutate", required_argument, NULL, 'm' }, { "verbose", no_argument, NULL, 'v' },
		{ "no-faults", no_argument, NULL, 'f' }, { NULL, 0, NULL, 0 },
	};
	struct ds_options opt = { .nodes = 3, .ops = 2000 };
	struct ds_sim *s = calloc(1, sizeof(*s));
	struct sim_counters total = { 0 };
	uint64_t first = 1, last = 1, hash = 0;
	unsigned ops;
	struct timespec t0, t1;
	bool any = false;
	const char *missing;
	int c;

	csv_assert(s);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'n':
			any = !strcmp(optarg, "any");
			opt.nodes = any ? 3 : atoi(optarg);
			break;
		case 'o':
			opt.ops = atoi(optarg);
			break;
		case 's':
			first = last = strtoull(optarg, NULL, 0);
			break;
		case 'r':
			if (sscanf(optarg, "%" SCNu64 "..%" SCNu64, &first, &last) != 2 || last < first)
				return usage();
			break;
		case 'm':
			opt.mutate = optarg;
			break;
		case 'v':
			opt.verbose = true;
			break;
		case 'f':
			opt.no_faults = true;
			break;
		default:
			return usage();
		}
	}
	if (optind < argc || opt.nodes < 1 || opt.nodes > SIM_NODES_MAX || (opt.mutate && !mutation_is_known(opt.mutate)))
		return usage();
	ops = opt.ops;
	clock_gettime(CLOCK_MONOTONIC, &t0);
	for (uint64_t seed = first; seed <= last; seed++) {
		if (any) {
			opt.nodes = 3 + seed % 14;
			opt.ops = csv_max(3 * ops / opt.nodes, 1u);
		}
		if (opt.mutate) {
			if (caught(s, &opt, seed))
				return 0;
			continue;
		}
		run(s, &opt, seed);
		sum_messages(s);
		sim_counters_add(&total, sim_world_counters(s->w));
		hash = hash * 31 + sim_world_hash(s->w);
		if (s->failed) {
			printf("seed %" PRIu64 " at %.6f s, step %" PRIu64 ": %s\nrun again: dlmsim --nodes %u --ops %u --seed %" PRIu64
			       "%s --verbose\n", seed, sim_world_now_ns(s->w) / 1e9, sim_world_steps(s->w), s->why, opt.nodes, opt.ops,
			       seed, opt.no_faults ? " --no-faults" : "");
			return 1;
		}
		finish(s);
	}
	clock_gettime(CLOCK_MONOTONIC, &t1);
	free(s);
	if (opt.mutate) {
		printf("mutation %s was not caught by seeds %" PRIu64 "..%" PRIu64 "\n", opt.mutate, first, last);
		return 1;
	}
	printf("dlmsim: seeds %" PRIu64 "..%" PRIu64 ", %s%u nodes x %u operations, %.2f s, trace %016" PRIx64 "\n", first, last,
	       any ? "3 to 16 nodes, as much as " : "", any ? 3 : opt.nodes, ops, (t1.tv_sec - t0.tv_sec) + (t1.tv_nsec - t0.tv_nsec) / 1e9, hash);
	sim_counters_print(&total, "  ");
	if (!opt.no_faults && opt.nodes >= 3 && last - first >= 9) {
		sim_net_want_faults(&total);
		sim_counters_want(&total, "fault.purged");
		sim_counters_want(&total, "op.leave");
		sim_counters_want(&total, "op.forgotten");
		sim_counters_want(&total, "op.cancelled");
		sim_counters_want(&total, "op.refused");
		sim_counters_want(&total, "op.lvb_valid");
		sim_counters_want(&total, "op.converted");
		sim_counters_want(&total, "op.demoted");
		sim_counters_want(&total, "op.circle");
		sim_counters_want(&total, "op.second_look");
		sim_counters_want(&total, "op.deadlock");
		sim_counters_want(&total, "dlm.moves");
		sim_counters_want(&total, "dlm.held_back");
		missing = sim_counters_missing(&total);
		if (missing) {
			printf("no %s in all these runs: this proves nothing about it\n", missing);
			return 1;
		}
	}
	return 0;
}
