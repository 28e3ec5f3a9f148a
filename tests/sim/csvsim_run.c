/* SPDX-License-Identifier: GPL-2.0-only */
/* csvsim_run.c - one run: a new volume, all nodes, operations under faults; then everything heals, is compared, unmounted, checked and mounted again. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "csvfs/csvfs_internal.h"
#include "csvfs/mkfs.h"
#include "tests/sim/csvsim.h"
#include "utils/base/base.h"

#define BRANCH_SECONDS 120u
#define SPARE_BLOCKS 150u
#define CALM_NS (600 * NS_PER_SEC)	/* until everything that was asked for must have ended, once faults heal */

/* ---- a new volume --------------------------------------------------------------------------------------------------------- */

struct making { struct blk *b; struct csvfs_mkfs_options o; struct csv_geom *geo; int ret; struct csv_err err; };

static void mkfs_coro(void *arg)
{
	struct making *m = arg;

	m->ret = csvfs_mkfs(m->b, &m->o, m->geo, &m->err);
}

static void make_volume(struct cs_sim *s)
{
	struct sched *sched = sched_new(sim_world_clock(s->w, 1));
	struct making m = { .o = { .label = "sim", .slots = s->opt.nodes + s->seed % 2, .journal_mib = 4, .uuid = { 1, 2, 3 }, .hash_key = { 4 } },
			    .geo = &s->geo, .err = CSV_ERR_INIT };

	csv_assert(sched);
	m.b = sim_store_blk(sim_disk_store(s->disk), sched);
	csv_assert(sched_spawn(sched, "mkfs", mkfs_coro, &m) == 0);
	sched_run(sched);
	csv_assertf(m.ret == 0, "mkfs: %s", m.err.text);
	blk_close(m.b);
	sched_free(sched);
	sim_disk_settle(s->disk);
}

#define MUST(call)                                                                                              \
	do {                                                                                                    \
		long long r_ = (call);                                                                          \
		if (r_ < 0) {                                                                                   \
			cs_fail(s, "setting up: %s: %lld (%s)", #call, r_, csv_err_describe((int)r_));         \
			return;                                                                                 \
		}                                                                                               \
	} while (0)

/* Directories and files with a data model; images: half of it written, half of it a hole. */
static void setup(void *arg)
{
	struct cs_sim *s = arg;
	struct csvfs *fs = s->node[1].fs;
	struct csvfs_attr a, set;
	uint8_t *zero = blk_alloc(256 << 10);

	csv_assert(zero);
	memset(zero, 0, 256 << 10);
	s->root = csvfs_root_ino(fs);
	for (unsigned d = 0; d < CS_DIRS; d++) {
		char name[8];

		snprintf(name, sizeof(name), "d%u", d);
		MUST(csvfs_create(fs, s->root, 0, name, S_IFDIR | 0755, 0, 0, 0, false, &a));
		s->dir[d] = a.ino;
	}
	for (unsigned i = 0; i < CS_FILES; i++) {
		struct cs_file *f = &s->file[i];

		MUST(csvfs_create(fs, s->root, 0, f->name, S_IFREG | 0644, 0, 0, 0, false, &a));
		f->ino = a.ino;
		f->gen = a.gen;
		set.size = (uint64_t)f->sectors * CS_SECTOR;
		if (f->kind == CS_APPEND)
			continue;
		MUST(csvfs_setattr(fs, f->ino, f->gen, &set, CSVFS_SET_SIZE, &a));
		if (f->kind == CS_IMAGE) {
			MUST(csvfs_set_image(fs, f->ino, f->gen));
			MUST(csvfs_write(fs, f->ino, f->gen, 0, zero, set.size / 2, 0, NULL));
		}
	}
	if (s->opt.disk)
		MUST(cs_disk_make(s, fs));
	if (s->full) {		/* little is left */
		struct csvfs_statfs st;

		MUST(csvfs_statfs(fs, &st));
		MUST(csvfs_create(fs, s->root, 0, "ballast", S_IFREG | 0644, 0, 0, 0, false, &a));
		if (st.bavail > SPARE_BLOCKS)
			MUST(csvfs_fallocate(fs, a.ino, a.gen, CSVFS_FALLOC_KEEP_SIZE, 0, (st.bavail - SPARE_BLOCKS) << CSV_BLOCK_SHIFT));
	}
	MUST(csvfs_sync(fs));
	free(zero);
}

/* ---- faults ----------------------------------------------------------------------------------------------------------------- */

static void power_cut_all(struct cs_sim *s, bool array)
{
	cs_count(s, "fault.all_cut");
	for (unsigned i = 1; i <= s->opt.nodes; i++)
		if (sim_world_is_up(s->w, i))
			sim_net_power_cut(s->net, i);
	if (array) {
		cs_count(s, "fault.array_power_loss");
		sim_disk_power_loss(s->disk);
		cs_data_power_loss(s);
		cs_oracle_slots(s);
	}
	for (unsigned i = 1; i <= s->opt.nodes; i++)
		sim_net_boot_later(s->net, i);
}

struct hang { struct cs_sim *s; unsigned node; uint64_t life; };

static void hang_over(void *arg)
{
	struct hang *h = arg;

	if (sim_world_is_up(h->s->w, h->node) && sim_world_life(h->s->w, h->node) == h->life)
		sim_disk_hang(h->s->disk, h->node, false);
}

static void disk_fault(struct cs_sim *s)
{
	unsigned node = 1 + (unsigned)sim_world_below(s->w, s->opt.nodes);
	struct hang h = { s, node, sim_world_life(s->w, node) };

	if (!sim_world_is_up(s->w, node))
		return;
	if (sim_world_chance(s->w, 1, 2)) {
		s->node[node].disk_failed = true;
		sim_disk_fail_at(s->disk, node, 1 + sim_world_below(s->w, 40), -EIO);
	} else {
		cs_count(s, "fault.disk_hang");
		sim_disk_hang(s->disk, node, true);
		sim_world_at_copy(s->w, sim_world_now_ns(s->w) + sim_world_delay(s->w, 200 * NS_PER_MS), hang_over, &h, sizeof(h));
	}
}

static void isolate_due(void *arg)
{
	struct cs_sim *s = arg;
	unsigned side[SIM_NODES_MAX + 1] = { 0 };

	if (s->winding_down || s->failed || !sim_net_is_whole(s->net))
		return;
	for (unsigned i = 1; i <= s->opt.nodes; i++)
		if (s->node[i].state != CS_DOWN) {
			side[i] = 1;
			sim_net_partition(s->net, side);
			return;
		}
}

void cs_replay_begun(struct cs_sim *s)
{
	if (!s->opt.no_faults && !s->winding_down && sim_world_chance(s->w, 1, 6))
		sim_world_at(s->w, sim_world_now_ns(s->w) + sim_world_below(s->w, 8 * NS_PER_MS), isolate_due, s);
}

/* Somebody who waits is interrupted, as FUSE_INTERRUPT does. */
static void interrupt_due(void *arg)
{
	struct cs_sim *s = arg;
	struct cs_node *n = &s->node[1 + sim_world_below(s->w, s->opt.nodes)];
	struct cs_worker *w = &n->w[sim_world_below(s->w, CS_WORKERS)];

	if (s->winding_down || s->failed)
		return;
	if (n->state == CS_UP && n->workers && w->n && !w->done && w->doing && !w->cancelled) {
		w->cancelled = true;
		sched_cancel(n->env->sched, w->coro);
	}
	sim_world_at(s->w, sim_world_now_ns(s->w) + sim_world_delay(s->w, s->fault_ns / 3), interrupt_due, s);
}

static void leave_one(struct cs_sim *s)
{
	struct cs_node *n = &s->node[1 + sim_world_below(s->w, s->opt.nodes)];

	if (n->state != CS_UP)
		return;
	cs_count(s, "fault.unmount_under_load");
	n->leave = true;
}

/*
 * What one node sends to another does not arrive, for so long that the members have to agree on who goes (csvfs/evict.c); nothing
 * else happens meanwhile, for a new view would begin anew.
 */
static uint64_t long_cut(struct cs_sim *s)
{
	unsigned from = 1 + (unsigned)sim_world_below(s->w, s->opt.nodes);
	unsigned to = 1 + (from + (unsigned)sim_world_below(s->w, s->opt.nodes - 1)) % s->opt.nodes;
	uint64_t end = sim_world_now_ns(s->w) + (9 + sim_world_below(s->w, 6)) * NS_PER_SEC;

	if (s->node[from].state != CS_UP || s->node[to].state != CS_UP)
		return 0;
	if (!sim_net_is_whole(s->net))
		sim_net_heal(s->net);
	cs_count(s, "fault.long_one_way_cut");
	s->cut_from = from;
	s->cut_to = to;
	s->cut_end_ns = end;
	sim_net_cut_one_way(s->net, from, to, end);
	return end - sim_world_now_ns(s->w);
}

/* Power goes while writes of the node are on their way: they may land as ghosts. */
static void cut_due(void *arg)
{
	struct cs_sim *s = arg;
	unsigned node = s->cut_busy;

	s->cut_busy = 0;
	if (s->winding_down || s->failed || !sim_world_is_up(s->w, node) || !sim_net_quorate_without(s->net, node))
		return;
	cs_count(s, "fault.power_cut");
	sim_net_power_cut(s->net, node);
	sim_net_boot_later(s->net, node);
}

void cs_disk_busy(struct cs_sim *s)
{
	if (s->cut_busy && !s->cut_planned && sim_world_is_up(s->w, s->cut_busy) && sim_disk_pending(s->disk, s->cut_busy) >= 2) {
		s->cut_planned = true;
		sim_world_at(s->w, sim_world_now_ns(s->w), cut_due, s);
	}
}

static void next_fault(void *arg)
{
	struct cs_sim *s = arg;
	uint64_t calm = 0;

	if (s->winding_down || s->failed)
		return;
	switch (sim_world_below(s->w, 16)) {
	case 0:
		power_cut_all(s, sim_world_chance(s->w, 2, 3));
		break;
	case 1:
		disk_fault(s);
		break;
	case 2:
		leave_one(s);
		break;
	case 3:
		if (s->cut_busy)
			break;
		s->cut_busy = 1 + (unsigned)sim_world_below(s->w, s->opt.nodes);
		s->cut_planned = false;
		break;
	case 4:
	case 5:
		calm = long_cut(s);
		break;
	default:
		sim_net_random_fault(s->net);
		break;
	}
	sim_world_at(s->w, sim_world_now_ns(s->w) + calm + sim_world_delay(s->w, s->fault_ns), next_fault, s);
}

static void on_fenced(void *arg, unsigned node, uint64_t life)
{
	struct cs_sim *s = arg;

	/* Of an older life nothing is on its way: the machine has started since. */
	if (sim_world_life(s->w, node) == life) {
		sim_disk_fence(s->disk, node);
		cs_oracle_fenced(s, s->node[node].self);
	}
}

static void on_reaped(void *arg, unsigned node, uint64_t life)
{
	struct cs_sim *s = arg;

	(void)life;
	sim_disk_reap(s->disk, node);
	cs_oracle_fenced(s, s->node[node].self);
}

/* ---- phases -------------------------------------------------------------------------------------------------------------------- */

static bool all_up(void *arg)
{
	struct cs_sim *s = arg;

	if (s->failed)
		return true;
	for (unsigned i = 1; i <= s->opt.nodes; i++)
		if (s->node[i].state != CS_UP || s->node[i].leave || csvfs_state(s->node[i].fs, NULL) != CSVFS_ACTIVE)
			return false;
	return true;
}

static bool all_idle(void *arg)
{
	struct cs_sim *s = arg;

	if (s->failed)
		return true;
	if (!all_up(arg))
		return false;
	for (unsigned i = 1; i <= s->opt.nodes; i++)
		if (s->node[i].workers)
			return false;
	return true;
}

static bool all_down(void *arg)
{
	struct cs_sim *s = arg;

	if (s->failed)
		return true;
	for (unsigned i = 1; i <= s->opt.nodes; i++)
		if (s->node[i].state != CS_DOWN)
			return false;
	return true;
}

static bool ops_done(void *arg)
{
	struct cs_sim *s = arg;

	return s->failed || !s->ops_left || sim_world_now_ns(s->w) - s->last_op_ns > CALM_NS;
}

static void describe(struct cs_sim *s, char *buf, size_t size)
{
	static const char *const state[] = { "down", "mounting", "up", "ending", "ended" };
	size_t at = 0;

	for (unsigned i = 1; i <= s->opt.nodes && at < size; i++) {
		const struct cs_node *n = &s->node[i];

		at += (size_t)snprintf(buf + at, size - at, "; n%u %s", i, state[n->state]);
		for (unsigned k = 0; k < CS_WORKERS + CS_DP_THREADS && at < size; k++) {
			const struct cs_worker *w = k < CS_WORKERS ? &n->w[k] : &n->d[k - CS_WORKERS].w;

			if (n->state != CS_DOWN && w->doing)
				at += (size_t)snprintf(buf + at, size - at, ", %s for %.1f s", w->doing,
						       (double)(sim_world_now_ns(s->w) - w->doing_since_ns) / 1e9);
		}
	}
}

/* Until stop() says so; what does not end in time fails the run. */
static void phase(struct cs_sim *s, bool (*stop)(void *arg), const char *what)
{
	char text[700];

	if (s->failed || sim_world_run(s->w, sim_world_now_ns(s->w) + CALM_NS, stop, s))
		return;
	describe(s, text, sizeof(text));
	cs_fail(s, "it never comes to an end: %s%s", what, text);
}

struct verify { struct cs_sim *s; unsigned node; };

static void verify_task(void *arg)
{
	struct verify *v = arg;

	cs_verify(v->s, v->node);
}

static void verify(struct cs_sim *s, unsigned node)
{
	struct verify v = { s, node };

	if (s->failed)
		return;
	if (s->node[node].state != CS_UP)
		cs_fail(s, "n%u is not mounted any more at the end", node);
	else if (!cs_node_run(s, node, verify_task, &v, CALM_NS / NS_PER_MS))
		cs_fail(s, "it never comes to an end: reading everything on n%u", node);
}

static void leave_all(struct cs_sim *s)
{
	s->quiet = true;
	for (unsigned i = 1; i <= s->opt.nodes; i++)
		s->node[i].leave = true;
	phase(s, all_down, "unmounting everywhere");
	if (!s->failed)
		cs_check_store(s, sim_disk_store(s->disk), "after unmounting everywhere");
}

static void end_phase(struct cs_sim *s)
{
	s->ops_left = 0;
	s->winding_down = true;
	sim_net_repair_all(s->net);
	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		if (!sim_world_is_up(s->w, i))
			continue;
		sim_disk_hang(s->disk, i, false);
		sim_disk_fail_at(s->disk, i, 0, 0);
	}
	phase(s, all_idle, "operations under way");
	for (unsigned i = 1; i <= s->opt.nodes && !s->failed; i++)
		if (!s->in_branch || i == 1 + s->seed % s->opt.nodes)
			verify(s, i);
	leave_all(s);
}

/* ---- what if ---------------------------------------------------------------------------------------------------------------------- */

/* In a copy of the whole world: power goes now, for all, or for one; then everything heals and must be as the model says. */
static void branch_child(struct cs_sim *s, bool all, int fd)
{
	unsigned node = 1 + (unsigned)sim_world_below(s->w, s->opt.nodes);

	alarm(BRANCH_SECONDS);
	s->in_branch = true;
	if (!all && sim_world_chance(s->w, 1, 4) && sim_world_is_up(s->w, node))
		sim_net_power_cut(s->net, node);
	else
		power_cut_all(s, all || sim_world_chance(s->w, 3, 4));
	end_phase(s);
	fflush(stdout);
	if (fd < 0)
		_exit(0);
	if (s->failed && write(fd, s->why, sizeof(s->why)) != (ssize_t)sizeof(s->why))
		_exit(3);
	_exit(s->failed ? 1 : 0);
}

static void branch(struct cs_sim *s, bool all)
{
	char why[sizeof(s->why)] = "";
	unsigned number = ++s->branches;
	int fd[2], status;
	pid_t pid;

	if (s->opt.what_if == number)
		branch_child(s, all, -1);
	if (s->opt.what_if)
		return;
	fflush(stdout);
	csv_assert(pipe(fd) == 0);
	pid = fork();
	csv_assert(pid >= 0);
	if (pid == 0) {
		close(fd[0]);
		branch_child(s, all, fd[1]);
	}
	close(fd[1]);
	if (read(fd[0], why, sizeof(why)) < 0)
		why[0] = 0;
	close(fd[0]);
	csv_assert(waitpid(pid, &status, 0) == pid);
	cs_count(s, "op.what_if");
	if (WIFSIGNALED(status))
		cs_fail(s, "if power went at this moment (--what-if %u): it crashed (signal %d%s)", number, WTERMSIG(status),
			WTERMSIG(status) == SIGALRM ? ": not over in time" : "");
	else if (WEXITSTATUS(status))
		cs_fail(s, "if power went at this moment (--what-if %u): %.900s", number, why);
}

static void branch_due(void *arg)
{
	struct cs_sim *s = arg;

	if (s->winding_down || s->failed || !s->branches_left)
		return;
	s->branches_left--;
	branch(s, false);
	sim_world_at(s->w, sim_world_now_ns(s->w) + sim_world_delay(s->w, s->branch_ns), branch_due, s);
}

static void synced_due(void *arg)
{
	struct cs_sim *s = arg;

	if (!s->winding_down && !s->failed)
		branch(s, true);
}

/* A promise was made: is it kept when the power goes at this moment? */
void cs_synced(struct cs_sim *s)
{
	if (s->opt.no_faults || s->winding_down || !s->promises_left || !sim_world_chance(s->w, 1, 8))
		return;
	s->promises_left--;
	sim_world_at(s->w, sim_world_now_ns(s->w), synced_due, s);
}

static void work_phase(struct cs_sim *s)
{
	char text[700];

	s->last_op_ns = sim_world_now_ns(s->w);
	s->go = true;
	if (!s->opt.no_faults) {
		sim_world_at(s->w, sim_world_now_ns(s->w) + sim_world_delay(s->w, s->fault_ns), next_fault, s);
		sim_world_at(s->w, sim_world_now_ns(s->w) + sim_world_delay(s->w, s->branch_ns), branch_due, s);
		sim_world_at(s->w, sim_world_now_ns(s->w) + sim_world_delay(s->w, s->fault_ns / 3), interrupt_due, s);
	}
	sim_world_run(s->w, UINT64_MAX, ops_done, s);
	if (!s->failed && s->ops_left) {
		describe(s, text, sizeof(text));
		cs_fail(s, "no operation has begun for %u s%s", (unsigned)(CALM_NS / NS_PER_SEC), text);
	}
}

/* RC6: only whom a member has seen go, since that member came to quorum, is fenced within a round of that. */
static void on_asked(void *arg, unsigned by, struct cluster_node who)
{
	struct cs_sim *s = arg;
	struct env *env = sim_net_env(s->net, by);
	uint64_t now = sched_now_ns(env->sched), late = cluster_may_come_ns(env->cluster, who.nodeid);
	bool seen = false;

	for (unsigned i = 1; i <= s->opt.nodes; i++)
		seen |= sim_net_env(s->net, i) && cluster_has_seen(sim_net_env(s->net, i)->cluster, who.nodeid);
	if (now < late && !seen)
		cs_fail(s, "RC6: n%u has n%u fenced after a time without quorum, %u ms before it was to have come", by, who.nodeid,
			(unsigned)((late - now) / NS_PER_MS));
	if (late && !seen)
		sim_world_count(s->w, "op.waited_for", 1);
}

void cs_run(struct cs_sim *s, const struct cs_options *opt, uint64_t seed)
{
	struct sim_net_hooks hooks = { .start = cs_node_start, .starts_itself = true, .down = cs_node_down, .fenced = on_fenced,
				       .reaped = on_reaped, .asked = on_asked, .arg = s };

	s->opt = *opt;
	s->seed = seed;
	s->ops_left = opt->nodes * opt->ops;
	s->w = sim_world_new(seed, opt->nodes);
	sim_world_verbose(s->w, opt->verbose);
	s->profile = (unsigned)(seed % 4);
	s->full = s->profile == 1 && seed / 4 % 2;
	s->big_dirs = seed % 5 == 2;
	s->cfg.size_bytes = s->profile == 1 ? 72ull << 20 : s->profile == 2 ? 3ull << 30 : 256ull << 20;
	s->cfg.ghost_ns = 500 * NS_PER_MS;
	if (seed % 3 == 0) {		/* a slow disk: much is on its way at any time */
		s->cfg.write_ns = 3 * NS_PER_MS;
		s->cfg.flush_ns = 5 * NS_PER_MS;
	}
	s->fault_ns = (seed % 11 == 5 ? 40 : seed / 4 % 2 ? 150 : 600) * NS_PER_MS;	/* 40: storms, nothing is ever over when the next comes */
	s->branches_left = 4;
	s->promises_left = 6;
	s->branch_ns = (100 + seed % 5 * 100) * NS_PER_MS;
	s->disk = sim_disk_new(s->w, &s->cfg, NULL);
	make_volume(s);
	s->net = sim_net_new(s->w, 4711, &hooks);
	s->plain = seed % 4 == 1;
	for (unsigned i = 1; s->plain && i <= opt->nodes; i++)
		sim_net_expects(s->net, i, 0);
	cs_names_init(s);
	cs_data_init(s);
	sim_disk_on_write(s->disk, cs_oracle_write, s);
	sim_world_on_step(s->w, cs_oracle_step, s);
	for (unsigned i = 1; i <= opt->nodes; i++)
		sim_net_boot(s->net, i);
	phase(s, all_up, "mounting on all nodes");
	if (!s->failed && !cs_node_run(s, 1, setup, s, CALM_NS / NS_PER_MS))
		cs_fail(s, "it never comes to an end: setting up");
	if (!s->failed && opt->stream)
		sim_disk_record(s->disk);
	if (!s->failed)
		work_phase(s);
	end_phase(s);
	if (opt->stream) {
		if (!s->failed)
			cs_stream_check(s);
		return;
	}
	for (unsigned i = 1; i <= opt->nodes && !s->failed; i++)
		sim_net_boot(s->net, i);
	phase(s, all_up, "mounting again");
	verify(s, 1 + (unsigned)(seed % opt->nodes));
	leave_all(s);
}
