/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_oracle.c - what must hold after every step, and after every crash.
 *
 *  G2	the disk as it is at a crash, as it would be without power, and as it is now and then: the checker replays the journals
 *	in memory and finds nothing
 *  G3	nothing of a life takes effect once its journal's replay has begun
 *  R9, R10	a slot is taken when FREE, given up by its owner or after a proof; its heartbeat and journal are written by its owner
 *  R3	a view that a node goes by is of the ring, the members and the quorum that the engine told it last; a view's id is one list
 *	of (node, life) on all nodes
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

/* Whose write it was. */
static struct cluster_node writer_of(struct cs_sim *s, unsigned node, uint64_t world_life)
{
	if (sim_world_life(s->w, node) == world_life)
		return s->node[node].self;
	for (unsigned i = s->n_life; i > 0; i--)
		if (s->life[i - 1].who.nodeid == node && sim_net_life_of(s->net, s->life[i - 1].who) == world_life)
			return s->life[i - 1].who;
	return (struct cluster_node){ node, 0 };
}

/* Who replays a log says so in its slot first. */
static void check_replayer(struct cs_sim *s, uint32_t slot, struct cluster_node owner, const struct csv_slot_info *i, struct cluster_node by)
{
	struct cluster_node who = { i->proof_nodeid, i->proof_incarnation };

	if (i->proof_kind != CSV_PROOF_REPLAYING || !cs_same(who, by))
		cs_fail(s, "R9: slot %u of n%u.%" PRIu64 " is written by n%u.%" PRIu64 " with proof %u of n%u.%" PRIu64, slot, owner.nodeid,
			owner.incarnation, by.nodeid, by.incarnation, i->proof_kind, who.nodeid, who.incarnation);
	else if (!cs_life_of(s, owner)->fenced)
		cs_fail(s, "R9: n%u.%" PRIu64 " replays the log of n%u.%" PRIu64 " although it may still write", by.nodeid, by.incarnation,
			owner.nodeid, owner.incarnation);
}

/*
 * R9: taken only when FREE and by oneself; given up only by the owner with its own word, or by others after a proof.  That may be its
 * word, too: a mount that fails while it takes the slot leaves in order, and ACTIVE may be on the disk all the same.
 */
static void check_slot_rules(struct cs_sim *s, uint32_t slot, struct cluster_node was, const struct csv_slot_info *i, struct cluster_node by)
{
	struct cluster_node now = { i->nodeid, i->incarnation };

	if (i->state == CSV_SLOT_ACTIVE && was.nodeid && !cs_same(was, now))
		cs_fail(s, "R9: slot %u was in use by n%u.%" PRIu64 " and is taken by n%u.%" PRIu64, slot, was.nodeid, was.incarnation, now.nodeid,
			now.incarnation);
	else if (i->state == CSV_SLOT_ACTIVE && cs_same(now, was))
		check_replayer(s, slot, was, i, by);
	else if (i->state == CSV_SLOT_ACTIVE && !cs_same(now, by))
		cs_fail(s, "R9: slot %u is taken for n%u.%" PRIu64 " by n%u.%" PRIu64, slot, now.nodeid, now.incarnation, by.nodeid, by.incarnation);
	else if (i->state == CSV_SLOT_FREE && was.nodeid && cs_same(was, by) && i->proof_kind != CSV_PROOF_RELEASE)
		cs_fail(s, "R9: slot %u of n%u.%" PRIu64 " is freed by n%u.%" PRIu64 " with proof %u", slot, was.nodeid, was.incarnation, by.nodeid,
			by.incarnation, i->proof_kind);
	else if (i->state == CSV_SLOT_FREE && was.nodeid && !cs_same(was, by) && !cs_life_of(s, was)->fenced)
		cs_fail(s, "R9: slot %u of n%u.%" PRIu64 " is freed by n%u.%" PRIu64 " although it may still write", slot, was.nodeid, was.incarnation,
			by.nodeid, by.incarnation);
}

/*
 * A slot that was ACTIVE for a life and is FREE now: its log has been replayed, its blocks are at home.  The announcement comes later,
 * and who mounts may go by the slot (csvsim_locks.c says why the FLUSH of that word need not be awaited).
 */
static void slot_written(struct cs_sim *s, uint32_t slot, const struct cluster_node *by)
{
	struct cluster_node *was = &s->slot[slot];
	struct csv_slot_info i;
	void *block = blk_alloc(CSV_BLOCK_SIZE);

	csv_assert(block);
	sim_store_read(sim_disk_store(s->disk), csv_slot_blk(&s->geo, slot) << CSV_BLOCK_SHIFT, block, CSV_BLOCK_SIZE);
	if (csv_slot_decode(&s->geo, slot, block, &i, NULL) < 0) {
		cs_fail(s, "R10: slot-state block %u is torn", slot);
		free(block);
		return;
	}
	if (by && i.seq != s->slot_seq[slot])		/* the same: a write that failed left nothing */
		check_slot_rules(s, slot, *was, &i, *by);
	if (i.state == CSV_SLOT_FREE && was->nodeid) {
		struct cs_life *l = cs_life_of(s, *was);

		l->replayed = true;
		l->released = by && cs_same(*was, *by);
		cs_ghosts_drop(s, l);
		if (l->released) {
			cs_names_released(s, l->who);
			cs_data_released(s, l->who);
		}
	}
	s->slot_seq[slot] = i.seq;
	*was = i.state == CSV_SLOT_ACTIVE ? (struct cluster_node){ i.nodeid, i.incarnation } : (struct cluster_node){ 0 };
	free(block);
}

/* ---- G3 ---------------------------------------------------------------------------------------------------------------------------- */

/* After a loss of power slots are what the platter says. */
void cs_oracle_slots(struct cs_sim *s)
{
	for (uint32_t i = 0; i < s->geo.slots; i++)
		slot_written(s, i, NULL);
}

/* R9, R10: heartbeat and journal of a slot are its owner's; of a free one whoever takes it formats the journal. */
static void check_areas(struct cs_sim *s, struct cluster_node by, uint64_t off)
{
	uint64_t blk = off >> CSV_BLOCK_SHIFT;

	for (uint32_t i = 0; i < s->geo.slots; i++) {
		struct cluster_node owner = s->slot[i];
		uint64_t log = csv_journal_blk(&s->geo, i);
		bool hbeat = blk == csv_hbeat_blk(&s->geo, i);

		if (owner.nodeid && !cs_same(owner, by) && (hbeat || (blk >= log && blk < log + s->geo.journal_blk)))
			cs_fail(s, "R10: n%u.%" PRIu64 " writes to the %s of slot %u, which is n%u.%" PRIu64 "'s", by.nodeid, by.incarnation,
				hbeat ? "heartbeat" : "journal", i, owner.nodeid, owner.incarnation);
	}
}

void cs_oracle_write(void *arg, unsigned node, uint64_t world_life, uint64_t off, uint32_t len)
{
	struct cs_sim *s = arg;
	struct cluster_node by = writer_of(s, node, world_life);

	check_areas(s, by, off);
	for (uint32_t i = 0; i < s->geo.slots; i++)
		if (off == csv_slot_blk(&s->geo, i) << CSV_BLOCK_SHIFT)
			slot_written(s, i, &by);
	for (unsigned i = 0; i < s->n_life; i++) {
		const struct cs_life *l = &s->life[i];

		if (l->replay_started && l->who.nodeid == node && sim_net_life_of(s->net, l->who) == world_life)
			cs_fail(s, "G3: n%u.%" PRIu64 " writes %u bytes at %" PRIu64 " although its journal is being replayed", node,
				l->who.incarnation, len, off);
	}
}

/* ---- R3 ---------------------------------------------------------------------------------------------------------------------------- */

/* How many of a's lives are in b. */
static uint32_t view_common(const struct cluster_view *a, const struct cluster_view *b)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < a->n; i++) {
		const struct cluster_node *m = cluster_view_find(b, a->m[i].nodeid);

		n += m && cs_same(*m, a->m[i]);
	}
	return n;
}

/*
 * When all daemons have left and start again within one ring of the engine, they count rounds from 1: the id comes again, for
 * a list of new lives only, to whom the old one never meant anything.
 */
static void view_new(struct cs_sim *s, unsigned node, const struct cluster_view *v)
{
	for (unsigned i = 0; i < s->n_view; i++) {
		const struct cluster_view *o = &s->view[i];
		uint32_t common = ring_eq(o->ring, v->ring) ? view_common(v, o) : 0;

		if (common && (common != v->n || common != o->n))
			cs_fail(s, "R3: n%u: view %u.%" PRIu64 " has %u members here and %u elsewhere, %u of them the same", node, v->ring.nodeid,
				v->ring.seq, v->n, o->n, common);
	}
	if (s->n_view == CS_VIEWS_MAX)
		s->n_view = 0;
	s->view[s->n_view++] = *v;
}

static void check_view(struct cs_sim *s, unsigned node)
{
	struct cs_node *n = &s->node[node];
	const struct cluster_view *v = n->state != CS_DOWN && n->env ? cluster_current(n->env->cluster) : NULL;
	const struct sim_told *t = sim_net_told(s->net, node);
	uint32_t mask = 0;

	if (!v) {
		n->in_view = false;
		return;
	}
	for (uint32_t i = 0; i < v->n; i++)
		mask |= 1u << v->m[i].nodeid;
	if (v->ring.nodeid != t->ring.nodeid || v->ring.seq >> CLUSTER_ROUND_BITS != t->ring.seq || !t->members || mask != t->mask)
		cs_fail(s, "R3: n%u goes by a view of ring %u.%" PRIu64 ", its engine is in ring %u.%" PRIu64 " with other members", node,
			v->ring.nodeid, v->ring.seq >> CLUSTER_ROUND_BITS, t->ring.nodeid, t->ring.seq);
	else if (!t->quorate || !ring_eq(t->ring, t->quorum_ring))
		cs_fail(s, "R3: n%u goes by a view of ring %u.%" PRIu64 ", quorum was told last for ring %u.%" PRIu64 ": %s", node, v->ring.nodeid,
			t->ring.seq, t->quorum_ring.nodeid, t->quorum_ring.seq, t->quorate ? "quorate" : "not quorate");
	else if (!n->in_view || !ring_eq(n->view_ring, v->ring))
		view_new(s, node, v);
	n->in_view = true;
	n->view_ring = v->ring;
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
		check_view(s, i);
	}
	cs_locks_step(s);
}
