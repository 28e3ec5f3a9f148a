/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_oracle.c - what must hold after every step, and after every crash.
 *
 *  G2	the disk as it is at a crash, as it would be without power, and as it is now and then: the checker replays the journals
 *	in memory and finds nothing
 *  G3	nothing of a life takes effect once its journal's replay has begun
 *  locks: csvsim_locks.c
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "csvfs/check/check.h"
#include "csvfs/csvfs_internal.h"
#include "tests/sim/csvsim.h"
#include "utils/base/base.h"

/* ---- G2 ------------------------------------------------------------------------------------------------------------------- */

struct checking { struct cs_sim *s; struct blk *b; const char *when; bool done; unsigned lines; int ret; struct check_result res; struct csv_err err; char first[700]; };

static void report(void *arg, enum check_level level, const char *line)
{
	struct checking *c = arg;

	if (level != CHECK_ERROR)
		return;
	if (c->s->opt.verbose)
		printf("check: %s\n", line);
	if (!c->lines++)
		snprintf(c->first, sizeof(c->first), "%s", line);
}

static void check_coro(void *arg)
{
	struct checking *c = arg;
	struct check_options o = { .report = report, .arg = c, .mem_bytes = 4 << 20 };

	c->ret = check_volume(c->b, &o, &c->res, &c->err);
	c->done = true;
}

bool cs_check_store(struct cs_sim *s, struct sim_store *st, const char *when)
{
	struct sched *sched = sched_new(sim_world_clock(s->w, 1));
	struct checking c = { .s = s, .when = when, .err = CSV_ERR_INIT };

	csv_assert(sched);
	c.b = sim_store_blk(st, sched);
	csv_assert(sched_spawn(sched, "check", check_coro, &c) == 0);
	sched_run(sched);
	csv_assert(c.done);
	blk_close(c.b);
	sched_free(sched);
	s->checks++;
	if (c.ret < 0)
		cs_fail(s, "G2: %s: the checker: %d %s", when, c.ret, c.err.text);
	else if (c.res.errors)
		cs_fail(s, "G2: %s: %" PRIu64 " errors, the first: %s", when, c.res.errors, c.first);
	return !s->failed;
}

void cs_check_now(struct cs_sim *s, const char *when)
{
	struct csv_prng p;
	struct sim_store *st;

	if (s->failed || !cs_check_store(s, sim_disk_store(s->disk), when))
		return;
	csv_prng_fork(sim_world_prng(s->w), &p);
	st = sim_disk_image_lossy(s->disk, &p);
	cs_check_store(s, st, "loss of power");
	sim_store_free(st);
}

/* ---- lives --------------------------------------------------------------------------------------------------------------------- */

struct cs_life *cs_life_of(struct cs_sim *s, struct cluster_node who)
{
	for (unsigned i = s->n_life; i > 0; i--)
		if (cs_same(s->life[i - 1].who, who))
			return &s->life[i - 1];
	csv_assert(s->n_life < CS_LIVES_MAX);
	s->life[s->n_life] = (struct cs_life){ .who = who };
	return &s->life[s->n_life++];
}

void cs_oracle_fenced(struct cs_sim *s, struct cluster_node who)
{
	struct cs_life *l = cs_life_of(s, who);

	if (l->fenced)
		return;
	l->fenced = true;
	cs_data_settled(s, who);
	cs_ghosts_drop(s, l);
}

static bool recovery_seen(void *arg, const struct csvfs_recovery_info *i)
{
	struct cs_sim *s = arg;
	struct cs_life *l = cs_life_of(s, i->who);

	if (i->replay_start_ns && !l->replay_started) {
		l->replay_started = true;
		cs_count(s, "op.replay");
		cs_replay_begun(s);
	}
	if (i->replayed && i->slot == CSV_NO_SLOT && !l->replayed) {
		l->replayed = true;	/* it had none */
		cs_ghosts_drop(s, l);
	}
	return true;
}

/*
 * A slot that was ACTIVE for a life and is FREE now: its log has been replayed, its blocks are at home.  The announcement comes later,
 * and who mounts may go by the slot (csvsim_locks.c says why the FLUSH of that word need not be awaited).
 */
static void slot_written(struct cs_sim *s, uint32_t slot)
{
	struct cluster_node *was = &s->slot[slot];
	struct csv_slot_info i;
	void *block = blk_alloc(CSV_BLOCK_SIZE);

	csv_assert(block);
	sim_store_read(sim_disk_store(s->disk), csv_slot_blk(&s->geo, slot) << CSV_BLOCK_SHIFT, block, CSV_BLOCK_SIZE);
	if (csv_slot_decode(&s->geo, slot, block, &i, NULL) < 0) {
		cs_fail(s, "R10: slot-state block %u is torn", slot);
	} else if (i.state == CSV_SLOT_FREE && was->nodeid) {
		struct cs_life *l = cs_life_of(s, *was);

		l->replayed = true;
		l->released = i.proof_kind == CSV_PROOF_RELEASE;
		cs_ghosts_drop(s, l);
	}
	*was = i.state == CSV_SLOT_ACTIVE ? (struct cluster_node){ i.nodeid, i.incarnation } : (struct cluster_node){ 0 };
	free(block);
}

/* ---- G3 ---------------------------------------------------------------------------------------------------------------------------- */

/* After a loss of power slots are what the platter says. */
void cs_oracle_slots(struct cs_sim *s)
{
	for (uint32_t i = 0; i < s->geo.slots; i++)
		slot_written(s, i);
}

void cs_oracle_write(void *arg, unsigned node, uint64_t world_life, uint64_t off, uint32_t len)
{
	struct cs_sim *s = arg;

	for (uint32_t i = 0; i < s->geo.slots; i++)
		if (off == csv_slot_blk(&s->geo, i) << CSV_BLOCK_SHIFT)
			slot_written(s, i);
	for (unsigned i = 0; i < s->n_life; i++) {
		const struct cs_life *l = &s->life[i];

		if (l->replay_started && l->who.nodeid == node && sim_net_life_of(s->net, l->who) == world_life)
			cs_fail(s, "G3: n%u.%" PRIu64 " writes %u bytes at %" PRIu64 " although its journal is being replayed", node,
				l->who.incarnation, len, off);
	}
}

/* ---- every step ---------------------------------------------------------------------------------------------------------------------------- */

static bool is_lost_anybody(const struct cs_sim *s)
{
	for (unsigned i = 0; i < s->n_life; i++)
		if (!s->life[i].replayed)
			return true;
	return false;
}

void cs_oracle_step(void *arg)
{
	struct cs_sim *s = arg;
	bool look;

	if (s->failed)
		return;
	if (s->check_due) {
		s->check_due = false;
		cs_check_now(s, "after a crash");
	}
	cs_disk_busy(s);
	look = is_lost_anybody(s);
	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		struct cs_node *n = &s->node[i];

		if (look && n->seen && n->seen->rcv)
			csvfs_recovery_walk(n->seen, recovery_seen, s);
		if (n->fs && n->fs->state == CSVFS_WITHDRAWN)
			cs_node_dead(n);
	}
	cs_locks_step(s);
}
