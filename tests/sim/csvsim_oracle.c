/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_oracle.c - what must hold after every step, and after every crash.
 *
 *  G2	the disk as it is at a crash, as it would be without power, and as it is now and then: the checker replays the journals
 *	in memory and finds nothing
 *  G3	nothing of a life takes effect once its journal's replay has begun
 *  D1	locks of living nodes, and those of the dead that have not been fenced (below PW) or replayed (PW, EX), all go together
 *  D2	a node is once on the lists of a resource, and a resource has one master in a view
 *  GL1, GL2	holders on one node go together, and the node's lock covers each of them
 *  DP1, DP4	a request of the data plane that is under way has a lock on its node that allows it
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "csvfs/check/check.h"
#include "csvfs/glock_internal.h"
#include "csvfs/inode.h"
#include "dlm/dlm_internal.h"
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

static struct cs_life *life_of(struct cs_sim *s, struct cluster_node who)
{
	for (unsigned i = s->n_life; i > 0; i--)
		if (cs_same(s->life[i - 1].who, who))
			return &s->life[i - 1];
	csv_assert(s->n_life < CS_LIVES_MAX);
	s->life[s->n_life] = (struct cs_life){ .who = who };
	return &s->life[s->n_life++];
}

static void ghosts_drop(struct cs_sim *s, const struct cs_life *l)
{
	unsigned out = 0;

	for (unsigned i = 0; i < s->n_ghost; i++) {
		struct cs_ghost *g = &s->ghost[i];

		if (!cs_same(g->who, l->who) || (g->mode < DLM_PW ? !l->fenced : !l->replayed))
			s->ghost[out++] = *g;
	}
	s->n_ghost = out;
}

void cs_oracle_fenced(struct cs_sim *s, struct cluster_node who)
{
	struct cs_life *l = life_of(s, who);

	if (l->fenced)
		return;
	l->fenced = true;
	cs_data_settled(s, who);
	ghosts_drop(s, l);
}

struct ghosts { struct cs_sim *s; struct cluster_node who; bool fenced, replayed; };

static bool ghost_add(void *arg, const struct glock_info *i)
{
	struct ghosts *g = arg;
	struct cs_sim *s = g->s;

	/* The lock of a slot is asked for past phantoms: recovery's own rules guard it. */
	if (i->mode == DLM_NL || i->owner.type == CSV_OWN_SLOT || (i->mode < DLM_PW ? g->fenced : g->replayed))
		return true;
	if (s->n_ghost == s->cap_ghost) {
		s->cap_ghost = s->cap_ghost ? 2 * s->cap_ghost : 256;
		s->ghost = realloc(s->ghost, s->cap_ghost * sizeof(*s->ghost));
		csv_assert(s->ghost);
	}
	s->ghost[s->n_ghost++] = (struct cs_ghost){ g->who, i->owner.type, i->owner.id, i->mode };
	return true;
}

void cs_oracle_down(struct cs_node *n)
{
	const struct cs_life *l = life_of(n->sim, n->self);
	struct ghosts g = { n->sim, n->self, l->fenced, l->replayed };

	if (n->seen && n->seen->state != CSVFS_WITHDRAWN && n->seen->glocks)
		glock_walk(n->seen, ghost_add, &g);
}

static bool recovery_seen(void *arg, const struct csvfs_recovery_info *i)
{
	struct cs_sim *s = arg;
	struct cs_life *l = life_of(s, i->who);

	if (i->replay_start_ns && !l->replay_started) {
		l->replay_started = true;
		cs_count(s, "op.replay");
		cs_replay_begun(s);
	}
	if (i->replayed && i->slot == CSV_NO_SLOT && !l->replayed) {
		l->replayed = true;	/* it had none */
		ghosts_drop(s, l);
	}
	return true;
}

/*
 * A slot that was ACTIVE for a life and is FREE now: its log has been replayed, its blocks are at home.  The announcement comes later,
 * and who mounts may go by the slot.
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
		struct cs_life *l = life_of(s, *was);

		l->replayed = true;
		ghosts_drop(s, l);
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

/* ---- D1 ------------------------------------------------------------------------------------------------------------------------------ */

struct held { uint32_t type; uint64_t id; unsigned mode; struct cluster_node who; };
struct table { struct held *h; unsigned n, cap; struct cluster_node who; struct cs_sim *s; };

static void table_add(struct table *t, struct held h)
{
	if (t->n == t->cap) {
		t->cap = t->cap ? 2 * t->cap : 1024;
		t->h = realloc(t->h, t->cap * sizeof(*t->h));
		csv_assert(t->h);
	}
	t->h[t->n++] = h;
}

static bool add_lock(void *arg, const struct glock_info *i)
{
	struct table *t = arg;

	if (i->mode != DLM_NL && i->owner.type != CSV_OWN_SLOT)
		table_add(t, (struct held){ i->owner.type, i->owner.id, i->mode, t->who });
	return true;
}

static int held_cmp(const void *a, const void *b)
{
	const struct held *x = a, *y = b;

	if (x->type != y->type)
		return x->type < y->type ? -1 : 1;
	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return x->who.nodeid < y->who.nodeid ? -1 : x->who.nodeid > y->who.nodeid;
}

static void check_locks(struct cs_sim *s)
{
	struct table t = { .s = s };

	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		struct cs_node *n = &s->node[i];

		if (!n->seen || n->seen->state == CSVFS_WITHDRAWN || !n->seen->glocks)
			continue;
		t.who = n->self;
		glock_walk(n->seen, add_lock, &t);
	}
	for (unsigned i = 0; i < s->n_ghost; i++)
		table_add(&t, (struct held){ s->ghost[i].type, s->ghost[i].id, s->ghost[i].mode, s->ghost[i].who });
	if (t.n)
		qsort(t.h, t.n, sizeof(*t.h), held_cmp);
	for (unsigned a = 0; a < t.n && !s->failed; a++)
		for (unsigned b = a + 1; b < t.n && t.h[a].type == t.h[b].type && t.h[a].id == t.h[b].id; b++)
			if (!dlm_compatible(t.h[a].mode, t.h[b].mode)) {
				char text[CSV_OWNER_TEXT];

				cs_fail(s, "D1: %s: n%u.%" PRIu64 " holds %s and n%u.%" PRIu64 " holds %s",
					csv_owner_to_text((struct csv_owner){ t.h[a].type, t.h[a].id }, text), t.h[a].who.nodeid,
					t.h[a].who.incarnation, dlm_mode_name(t.h[a].mode), t.h[b].who.nodeid, t.h[b].who.incarnation,
					dlm_mode_name(t.h[b].mode));
				break;
			}
	free(t.h);
}

/* ---- D2 -------------------------------------------------------------------------------------------------------------------------------- */

struct masters { struct cs_sim *s; struct cs_node *n; };

static bool check_resource(void *arg, const uint8_t *name, uint8_t name_len, const struct dlm_holder_info *h, uint32_t n)
{
	struct masters *m = arg;
	struct cs_sim *s = m->s;
	struct dlm *d = m->n->seen->dlm;
	struct dlm_name key = { .len = name_len };

	for (uint32_t a = 0; a < n; a++)
		for (uint32_t b = a + 1; b < n; b++)
			if (!h[a].phantom && !h[b].phantom && h[a].nodeid == h[b].nodeid)
				cs_fail(s, "D2: n%u: node %u is twice on the lists of one resource", m->n->node, h[a].nodeid);
	memcpy(key.b, name, name_len);
	for (unsigned i = m->n->node + 1; i <= s->opt.nodes; i++) {
		struct csvfs *o = s->node[i].seen;

		if (o && o->state != CSVFS_WITHDRAWN && o->dlm && dlm_is_recovered(o->dlm) && ring_eq(o->dlm->view.ring, d->view.ring) &&
		    dlm_res_find(o->dlm, &key))
			cs_fail(s, "D2: n%u and n%u both are masters of one resource in one view", m->n->node, i);
	}
	return !s->failed;
}

static void check_masters(struct cs_sim *s)
{
	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		struct masters m = { s, &s->node[i] };
		struct csvfs *fs = s->node[i].seen;

		if (fs && fs->state != CSVFS_WITHDRAWN && fs->dlm && dlm_is_recovered(fs->dlm))
			dlm_walk(fs->dlm, check_resource, &m);
	}
}

/* ---- GL1, GL2 -------------------------------------------------------------------------------------------------------------------------- */

static void check_holders(struct cs_node *n)
{
	struct glock_table *t = n->fs->glocks;

	for (uint32_t i = 0; i < t->size; i++)
		for (struct glock_priv *p = t->hash[i]; p; p = p->hash_next) {
			struct glock_holder *h;
			unsigned ex = 0, all = 0;
			char text[CSV_OWNER_TEXT];

			cds_list_for_each_entry(h, &p->holders, node) {
				all++;
				ex += h->mode == DLM_EX;
				if (!glock_covers(p->gl.mode, h->mode))
					cs_fail(n->sim, "GL2: n%u: %s is %s here and held as %s", n->node, csv_owner_to_text(p->gl.owner, text),
						dlm_mode_name(p->gl.mode), dlm_mode_name(h->mode));
			}
			if (ex && all > 1)
				cs_fail(n->sim, "GL1: n%u: %s has %u holders, one of them EX", n->node, csv_owner_to_text(p->gl.owner, text), all);
		}
}

static void print_name(void *arg, const char *name)
{
	(void)arg;
	printf(" %s", name);
}

/* For people: what is still in use when it should not be. */
void cs_dump_used(const struct cs_node *n)
{
	struct glock_table *t = n->fs->glocks;

	printf("n%u runs:", n->node);
	sched_each(n->env->sched, print_name, NULL);
	printf("\n");
	for (uint32_t i = 0; i < t->size; i++)
		for (struct glock_priv *p = t->hash[i]; p; p = p->hash_next) {
			const struct inode *ip = p->gl.owner.type == CSV_OWN_INODE ? p->gl.obj : NULL;
			char text[CSV_OWNER_TEXT];

			if (p->refs)
				printf("n%u in use: %s %s, %u references, %s holders, %u opens%s\n", n->node, csv_owner_to_text(p->gl.owner, text),
				       dlm_mode_name(p->gl.mode), p->refs, cds_list_empty(&p->holders) ? "no" : "has", ip ? ip->opens : 0,
				       p->worker ? ", worker" : "");
		}
}

/* ---- DP1, DP4 ------------------------------------------------------------------------------------------------------------------------------ */

static void check_in_flight(struct cs_node *n)
{
	for (unsigned i = 0; i < CS_DP_THREADS; i++) {
		struct cs_dp *d = &n->d[i];
		struct glock *gl;
		enum dlm_mode m;

		if (!d->in_flight)
			continue;
		gl = glock_find(n->fs, OWN_INODE(d->io.ino));
		m = gl ? gl->mode : DLM_NL;
		if (m != DLM_EX && m != DLM_CW && (d->io.write || m != DLM_PR))
			cs_fail(n->sim, "DP1: n%u: a %s of inode %" PRIu64 " is under way and the lock is %s here", n->node,
				d->io.write ? "write" : "read", d->io.ino, dlm_mode_name(m));
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
	uint64_t moved = 0;
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
		if (!n->fs)
			continue;
		if (n->fs->state == CSVFS_WITHDRAWN) {
			cs_node_dead(n);
			continue;
		}
		check_in_flight(n);
		moved += n->fs->dlm->st.messages_received + n->fs->dlm->st.requests + n->fs->dlm->st.downgrades;
	}
	if (moved != s->locks_seen && sim_world_steps(s->w) % 32 == 0) {
		s->locks_seen = moved;
		check_locks(s);
	}
	if (sim_world_steps(s->w) % 256 == 0)
		check_masters(s);
	if (sim_world_steps(s->w) % 64 == 0)
		for (unsigned i = 1; i <= s->opt.nodes; i++)
			if (s->node[i].fs && s->node[i].fs->state != CSVFS_WITHDRAWN)
				check_holders(&s->node[i]);
}
