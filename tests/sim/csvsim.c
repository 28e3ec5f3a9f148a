/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim - the whole file system on a simulated cluster with faults of every kind, one thread, one seed.
 *
 *	csvsim [--nodes N] [--ops N] [--seed S | --seeds A..B] [--mutate NAME] [--no-faults] [--what-if N] [--watch fN:SECTOR|dN/nN]
 *	       [--stream] [--disk] [--verbose]
 *
 * --ops is per node.  Each seed runs in a process of its own, so a failed assertion is a failed seed, and what crashed nodes leave in
 * memory goes with it.  Exit code 0: all invariants held (csvsim_oracle.c, csvsim_name.c, csvsim_data.c), and over a range of at
 * least 10 seeds (of 3 nodes or more: two lose quorum with the first) every kind of fault and operation was there.  With --mutate (a guard of the product removed): 0 when some seed
 * of the range finds it out.
 */
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <urcu.h>

#include "csvfs/csvfs_internal.h"
#include "tests/sim/csvsim.h"
#include "utils/base/base.h"

#define SEED_SECONDS 300u		/* of real time; a seed that takes longer runs in circles */

static const struct { const char *name; uint32_t bit; } mutations[] = {
	{ "no-phantom", CSV_MUT_NO_PHANTOM }, { "no-revoke", CSV_MUT_NO_REVOKE_ON_RELEASE }, { "home-before-flush", CSV_MUT_HOME_BEFORE_FLUSH },
	{ "replay-before-fence", CSV_MUT_REPLAY_BEFORE_FENCE }, { "map-not-gated", CSV_MUT_MAP_NOT_GATED },
	{ "reuse-before-commit", CSV_MUT_REUSE_BEFORE_COMMIT }, { "ignore-ring", CSV_MUT_IGNORE_RING },
	{ "fsync-no-commit", CSV_MUT_FSYNC_NO_COMMIT }, { "fsync-no-flush", CSV_MUT_FSYNC_NO_FLUSH },
	{ "heal-not-home", CSV_MUT_HEAL_NOT_HOME },
	{ "fence-hasty", CSV_MUT_FENCE_HASTY },
};

static const char *const wanted[] = {
	"fault.all_cut", "fault.array_power_loss", "fault.disk_error", "fault.disk_hang", "fault.ghost_write", "fault.withdrawn", "fault.long_one_way_cut", "fault.evicted",
	"fault.interrupted", "fault.unmount_under_load", "op.no_space", "op.what_if", "op.data_stat", "op.mount", "op.umount", "op.create", "op.mkdir", "op.unlink", "op.rmdir", "op.rename", "op.exchange", "op.link", "op.lookup",
	"op.readdir", "op.stat", "op.read", "op.write", "op.truncate", "op.fallocate", "op.open", "op.release", "op.fsync", "op.fsync_dir",
	"op.sync", "op.append", "op.data_write", "op.data_read", "op.data_fsync", "op.data_truncate", "op.punch", "op.zero_range",
	"op.fast_write", "op.fast_read", "op.slow_write", "op.slow_read", "op.replay", "op.fences",
};

void cs_fail(struct cs_sim *s, const char *fmt, ...)
{
	va_list ap;

	if (s->failed)
		return;
	s->failed = true;
	va_start(ap, fmt);
	vsnprintf(s->why, sizeof(s->why), fmt, ap);
	va_end(ap);
	if (s->opt.verbose)
		printf("FAILED: %s\n", s->why);
}

/* What a seed's process tells; names of counters are literals of the same program, so pointers mean the same in the parent. */
struct result {
	bool failed;
	char why[1024];
	uint64_t hash, steps, now_ns, checks, locks;
	struct sim_counters counters;
};

static void run_child(const struct cs_options *opt, uint64_t seed, int fd)
{
	struct cs_sim *s = calloc(1, sizeof(*s));
	struct result *r = calloc(1, sizeof(*r));
	const char *p = (const char *)r;
	size_t left = sizeof(*r);

	csv_assert(s && r);
	alarm(SEED_SECONDS);
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	rcu_register_thread();
	cs_run(s, opt, seed);
	r->failed = s->failed;
	snprintf(r->why, sizeof(r->why), "%s", s->why);
	r->hash = sim_world_hash(s->w);
	r->steps = sim_world_steps(s->w);
	r->now_ns = sim_world_now_ns(s->w);
	r->checks = s->checks;
	r->locks = s->locks_checked;
	r->counters = *sim_world_counters(s->w);
	fflush(stdout);
	while (left) {
		ssize_t n = write(fd, p, left);

		if (n <= 0)
			_exit(3);
		p += n;
		left -= (size_t)n;
	}
	_exit(0);
}

static void run_seed(const struct cs_options *opt, uint64_t seed, struct result *ret)
{
	char *p = (char *)ret;
	size_t got = 0;
	int fd[2], status;
	pid_t pid;

	fflush(stdout);
	csv_assert(pipe(fd) == 0);
	pid = fork();
	csv_assert(pid >= 0);
	if (pid == 0) {
		close(fd[0]);
		run_child(opt, seed, fd[1]);
	}
	close(fd[1]);
	memset(ret, 0, sizeof(*ret));
	for (;;) {
		ssize_t n = read(fd[0], p + got, sizeof(*ret) - got);

		if (n <= 0)
			break;
		got += (size_t)n;
	}
	close(fd[0]);
	csv_assert(waitpid(pid, &status, 0) == pid);
	if (got == sizeof(*ret) && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return;
	memset(ret, 0, sizeof(*ret));
	ret->failed = true;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		snprintf(ret->why, sizeof(ret->why), "not over after %u s of real time", SEED_SECONDS);
	else
		snprintf(ret->why, sizeof(ret->why), "it crashed (%s %d; an assertion says above what it was)",
			 WIFSIGNALED(status) ? "signal" : "exit code", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static int usage(void)
{
	fprintf(stderr, "usage: csvsim [--nodes N] [--ops N] [--seed S | --seeds A..B] [--mutate NAME] [--no-faults] [--what-if N] [--watch fN:SECTOR|dN/nN]\n"
			"              [--stream] [--disk] [--verbose]\n"
			"mutations:");
	for (size_t i = 0; i < ARRAY_SIZE(mutations); i++)
		fprintf(stderr, " %s", mutations[i].name);
	fprintf(stderr, "\n");
	return 2;
}

static const char *mutation_name(uint32_t bit)
{
	for (size_t i = 0; i < ARRAY_SIZE(mutations); i++)
		if (mutations[i].bit == bit)
			return mutations[i].name;
	return NULL;
}

static bool options(int argc, char **argv, struct cs_options *opt, uint64_t *first, uint64_t *last)
{
	static const struct option o[] = {
		{ "nodes", required_argument, NULL, 'n' }, { "ops", required_argument, NULL, 'o' }, { "seed", required_argument, NULL, 's' },
		{ "seeds", required_argument, NULL, 'r' }, { "mutate", required_argument, NULL, 'm' }, { "verbose", no_argument, NULL, 'v' },
		{ "no-faults", no_argument, NULL, 'f' }, { "stream", no_argument, NULL, 't' }, { "disk", no_argument, NULL, 'd' },
		{ "what-if", required_argument, NULL, 'w' }, { "watch", required_argument, NULL, 'W' }, { NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", o, NULL)) != -1) {
		switch (c) {
		case 'n':
			opt->nodes = (unsigned)atoi(optarg);
			break;
		case 'o':
			opt->ops = (unsigned)atoi(optarg);
			break;
		case 's':
			*first = *last = strtoull(optarg, NULL, 0);
			break;
		case 'r':
			if (sscanf(optarg, "%" SCNu64 "..%" SCNu64, first, last) != 2 || *last < *first)
				return false;
			break;
		case 'm':
			for (size_t i = 0; i < ARRAY_SIZE(mutations); i++)
				if (!strcmp(optarg, mutations[i].name))
					opt->mutate = mutations[i].bit;
			if (!opt->mutate)
				return false;
			break;
		case 'v':
			opt->verbose = true;
			break;
		case 'f':
			opt->no_faults = true;
			break;
		case 'w':
			opt->what_if = (unsigned)atoi(optarg);
			break;
		case 'W':
			opt->watch = sscanf(optarg, "f%u:%u", &opt->watch_file, &opt->watch_sector) == 2 && opt->watch_file <= CS_FILES;
			opt->watch_name = sscanf(optarg, "d%u/n%u", &opt->watch_file, &opt->watch_sector) == 2;
			if (!opt->watch && !opt->watch_name)
				return false;
			break;
		case 't':
			opt->stream = true;
			break;
		case 'd':
			opt->disk = true;
			break;
		default:
			return false;
		}
	}
	return optind == argc && opt->nodes >= 2 && opt->nodes <= 8 && opt->ops > 0;
}

static double since(const struct timespec *t0)
{
	struct timespec t1;

	clock_gettime(CLOCK_MONOTONIC, &t1);
	return (double)(t1.tv_sec - t0->tv_sec) + (double)(t1.tv_nsec - t0->tv_nsec) / 1e9;
}

int main(int argc, char **argv)
{
	struct cs_options opt = { .nodes = 3, .ops = 2000 };
	static struct sim_counters total;
	static struct result r;
	uint64_t first = 1, last = 1, hash = 0, checks = 0, locks = 0, steps = 0;
	struct timespec t0;
	const char *missing;

	if (!options(argc, argv, &opt, &first, &last))
		return usage();
	clock_gettime(CLOCK_MONOTONIC, &t0);
	for (uint64_t seed = first; seed <= last; seed++) {
		run_seed(&opt, seed, &r);
		if (r.failed && opt.mutate) {
			printf("mutation %s caught at seed %" PRIu64 ": %s\n", mutation_name(opt.mutate), seed, r.why);
			return 0;
		}
		sim_counters_add(&total, &r.counters);
		hash = hash * 31 + r.hash;
		checks += r.checks;
		locks += r.locks;
		steps += r.steps;
		if (r.failed) {
			printf("seed %" PRIu64 " at %.6f s, step %" PRIu64 ": %s\nrun again: csvsim --nodes %u --ops %u --seed %" PRIu64 "%s%s%s --verbose\n",
			       seed, (double)r.now_ns / 1e9, r.steps, r.why, opt.nodes, opt.ops, seed, opt.no_faults ? " --no-faults" : "",
			       opt.stream ? " --stream" : "", opt.disk ? " --disk" : "");
			return 1;
		}
	}
	if (opt.mutate) {
		printf("mutation %s was not caught by seeds %" PRIu64 "..%" PRIu64 "\n", mutation_name(opt.mutate), first, last);
		return 1;
	}
	printf("csvsim: seeds %" PRIu64 "..%" PRIu64 ", %u nodes x %u operations, %.2f s, %" PRIu64 " steps, %" PRIu64 " locks and %" PRIu64
	       " disk images checked, trace %016" PRIx64 "\n", first, last, opt.nodes, opt.ops, since(&t0), steps, locks, checks, hash);
	sim_counters_print(&total, "  ");
	if (!opt.no_faults && !opt.stream && opt.nodes >= 3 && last - first >= 9) {
		sim_net_want_faults(&total);
		for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
			sim_counters_want(&total, wanted[i]);
		missing = sim_counters_missing(&total);
		if (missing) {
			printf("no %s in all these runs: this proves nothing about it\n", missing);
			return 1;
		}
	}
	return 0;
}
