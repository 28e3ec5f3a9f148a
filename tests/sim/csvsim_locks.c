/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_locks.c - what must hold of locks after every step.
 *
 *  D1	locks of living nodes, and those of lives that are over and have not been proven silent (below PW) or replayed (PW, EX), all
 *	go together
 *  D2	a node is once on the lists of a resource, and a resource has one master in a view
 *  GL1, GL2	holders on one node go together, and the node's lock covers each of them
 *  VR2	one of the disk in an image has vmap, too
 *  DP1, DP4	a request of the data plane that is under way has a lock on its node that allows it
 *
 * A step changes few locks: the product names them (touched), and they are checked when it is over.  Where more changes at once (a table
 * appears, a view's tables are complete, a life ends) all of it is checked.  SWEEP_STEPS is for a change that was not named.
 *
 * Locks of a life that is over (ghosts) stand
 *  - below PW until nothing of it can take effect any more: it is fenced, its process is reaped, or it withdrew, its gates are closed and
 *    nothing is on its way; or until its own word that it is gone stands in its slot, which it writes last;
 *  - PW and EX until its slot is FREE on the disk (or it is said to have had none).  FREE counts when the write takes effect, before the
 *    FLUSH that follows it: replay and its FLUSH come before that write, so what the locks protect is home and durable.  The word FREE
 *    itself may be lost with the array's power as long as nobody has flushed since.  Then nothing that anybody did on the strength of
 *    it has outlived the power either: a change of metadata counts from the FLUSH of its commit on, which makes FREE durable, too (it
 *    is in the device before the lock is granted, so before that FLUSH begins); a freed block is used again only after such a commit
 *    (R19); and whoever takes the slot flushes before it writes over the old log (jnl_format).  What is left are data written in place
 *    to blocks that were theirs before, where replay writes nothing.  So the log is replayed a second time over what it left the first.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "csvfs/glock_internal.h"
#include "csvfs/inode.h"
#include "dlm/dlm_internal.h"
#include "tests/sim/csvsim.h"
#include "utils/base/base.h"

#define SWEEP_STEPS 4096u

static bool counts(const struct cs_node *n)
{
	return n->seen && n->seen->state != CSVFS_WITHDRAWN && n->seen->glocks;
}

/* ---- what was touched ---------------------------------------------------------------------------------------------------- */

static void glock_seen(void *arg, struct glock *gl)
{
	struct cs_node *n = arg;
	struct cs_locks *l = &n->sim->locks;
	const struct cs_touched *last = l->n_glock ? &l->glock[l->n_glock - 1] : NULL;

	if (last && last->n == n && csv_owner_eq(last->owner, gl->owner))
		return;
	if (l->n_glock == l->cap_glock) {
		l->cap_glock = l->cap_glock ? 2 * l->cap_glock : 64;
		l->glock = realloc(l->glock, l->cap_glock * sizeof(*l->glock));
		csv_assert(l->glock);
	}
	l->glock[l->n_glock++] = (struct cs_touched){ n, gl->owner };
}

static void res_seen(void *arg, const struct dlm_res *r)
{
	struct cs_node *n = arg;
	struct cs_locks *l = &n->sim->locks;

	if (!counts(n) || !dlm_is_recovered(n->seen->dlm))
		return;			/* all of it is looked at when the tables are complete */
	if (l->n_res == l->cap_res) {
		l->cap_res = l->cap_res ? 2 * l->cap_res : 64;
		l->res = realloc(l->res, l->cap_res * sizeof(*l->res));
		csv_assert(l->res);
	}
	l->res[l->n_res].n = n;
	l->res[l->n_res].len = r->name.len;
	memcpy(l->res[l->n_res++].name, r->name.b, r->name.len);
}

/* ---- ghosts ---------------------------------------------------------------------------------------------------------------- */

static bool stands(const struct cs_life *l, unsigned mode)
{
	return mode < DLM_PW ? !l->fenced && !l->released : !l->replayed;
}

void cs_ghosts_drop(struct cs_sim *s, const struct cs_life *l)
{
	unsigned out = 0;

	for (unsigned i = 0; i < s->n_ghost; i++) {
		struct cs_ghost *g = &s->ghost[i];

		if (!cs_same(g->who, l->who) || stands(l, g->mode))
			s->ghost[out++] = *g;
	}
	s->n_ghost = out;
}

struct ghosts { struct cs_sim *s; const struct cs_life *l; };

static bool ghost_add(void *arg, const struct glock_info *i)
{
	struct ghosts *g = arg;
	struct cs_sim *s = g->s;

	/* The lock of a slot is asked for past phantoms: recovery's own rules guard it. */
	if (i->mode == DLM_NL || i->owner.type == CSV_OWN_SLOT || !stands(g->l, i->mode))
		return true;
	if (s->n_ghost == s->cap_ghost) {
		s->cap_ghost = s->cap_ghost ? 2 * s->cap_ghost : 256;
		s->ghost = realloc(s->ghost, s->cap_ghost * sizeof(*s->ghost));
		csv_assert(s->ghost);
	}
	s->ghost[s->n_ghost++] = (struct cs_ghost){ g->l->who, i->owner.type, i->owner.id, i->mode };
	return true;
}

void cs_locks_life_over(struct cs_node *n)
{
	struct ghosts g = { n->sim, cs_life_of(n->sim, n->self) };

	if (n->ghosted || !n->seen || !n->seen->glocks)
		return;
	n->ghosted = true;
	glock_walk(n->seen, ghost_add, &g);
}

/* ---- D1 ------------------------------------------------------------------------------------------------------------------------ */

struct held { struct cluster_node who; unsigned mode; };

static void check_lock(struct cs_sim *s, struct csv_owner o)
{
	struct held h[SIM_NODES_MAX * 4];
	unsigned n = 0;

	if (o.type == CSV_OWN_SLOT)
		return;
	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		const struct glock *gl = counts(&s->node[i]) ? glock_find(s->node[i].seen, o) : NULL;

		if (gl && gl->mode != DLM_NL)
			h[n++] = (struct held){ s->node[i].self, gl->mode };
	}
	for (unsigned i = 0; i < s->n_ghost && n < ARRAY_SIZE(h); i++)
		if (s->ghost[i].id == o.id && s->ghost[i].type == o.type)
			h[n++] = (struct held){ s->ghost[i].who, s->ghost[i].mode };
	for (unsigned a = 0; a < n; a++)
		for (unsigned b = a + 1; b < n; b++)
			if (!dlm_compatible(h[a].mode, h[b].mode)) {
				char text[CSV_OWNER_TEXT];

				cs_fail(s, "D1: %s: n%u.%" PRIu64 " holds %s and n%u.%" PRIu64 " holds %s", csv_owner_to_text(o, text),
					h[a].who.nodeid, h[a].who.incarnation, dlm_mode_name(h[a].mode), h[b].who.nodeid,
					h[b].who.incarnation, dlm_mode_name(h[b].mode));
				return;
			}
}

static bool check_info(void *arg, const struct glock_info *i)
{
	struct cs_sim *s = arg;

	if (i->mode != DLM_NL)
		check_lock(s, i->owner);
	return !s->failed;
}

/* ---- GL1, GL2 -------------------------------------------------------------------------------------------------------------------- */

static void check_holders(struct cs_node *n, const struct glock_priv *p)
{
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

static void check_table(struct cs_node *n)
{
	struct glock_table *t = n->seen->glocks;

	for (uint32_t i = 0; i < t->size; i++)
		for (struct glock_priv *p = t->hash[i]; p; p = p->hash_next)
			check_holders(n, p);
	glock_walk(n->seen, check_info, n->sim);
}

/* ---- D2 ---------------------------------------------------------------------------------------------------------------------------- */

static void check_res(struct cs_node *n, const struct dlm_res *r)
{
	struct cs_sim *s = n->sim;
	const struct dlm *d = n->seen->dlm;
	const struct cds_list_head *lists[] = { &r->granted, &r->waiting };
	uint64_t seen = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(lists); i++) {
		const struct dlm_lkb *k;

		cds_list_for_each_entry(k, lists[i], node) {
			if (k->phantom)
				continue;
			if (seen >> k->who.nodeid & 1)
				cs_fail(s, "D2: n%u: node %u is twice on the lists of one resource", n->node, k->who.nodeid);
			seen |= 1ull << k->who.nodeid;
		}
	}
	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		struct csvfs *o = s->node[i].seen;

		if (i != n->node && counts(&s->node[i]) && o->dlm && dlm_is_recovered(o->dlm) && ring_eq(o->dlm->view.ring, d->view.ring) &&
		    dlm_res_find(o->dlm, &r->name))
			cs_fail(s, "D2: n%u and n%u both are masters of one resource in one view", n->node, i);
	}
}

static void check_touched_res(struct cs_node *n, const uint8_t *name, uint8_t len)
{
	struct dlm_name key = { .len = len };
	const struct dlm_res *r;

	if (!counts(n) || !dlm_is_recovered(n->seen->dlm))
		return;
	memcpy(key.b, name, len);
	r = dlm_res_find(n->seen->dlm, &key);
	if (r)
		check_res(n, r);
}

static void check_all_res(struct cs_node *n)
{
	struct dlm_res *r, *tmp;

	dlm_table_each(r, tmp, &n->seen->dlm->resources)
		check_res(n, r);
}

/* ---- DP1, DP4 ---------------------------------------------------------------------------------------------------------------------- */

static void check_in_flight(struct cs_node *n)
{
	for (unsigned i = 0; i < CS_DP_THREADS; i++) {
		struct cs_dp *d = &n->d[i];
		struct glock *gl;
		enum dlm_mode m;

		if (!d->in_flight)
			continue;
		gl = glock_find(n->fs, OWN_INODE(d->io.ino & ~CS_RAW));
		m = gl ? gl->mode : DLM_NL;
		if (m != DLM_EX && m != DLM_CW && (d->io.write || m != DLM_PR))
			cs_fail(n->sim, "DP1: n%u: a %s of inode %" PRIu64 " is under way and the lock is %s here", n->node,
				d->io.write ? "write" : "read", d->io.ino, dlm_mode_name(m));
		/* In the disk inside an image, the block map as well (VR2). */
		gl = d->io.ino & CS_RAW ? glock_find(n->fs, OWN_VMAP(d->io.ino & ~CS_RAW)) : NULL;
		if (d->io.ino & CS_RAW && (!gl || (gl->mode != DLM_CW && gl->mode != DLM_EX)))
			cs_fail(n->sim, "VR2: n%u: a %s of the disk in inode %" PRIu64 " is under way and vmap is %s here", n->node,
				d->io.write ? "write" : "read", (uint64_t)(d->io.ino & ~CS_RAW), dlm_mode_name(gl ? gl->mode : DLM_NL));
	}
}

/* ---- every step -------------------------------------------------------------------------------------------------------------------- */

/* Nothing of a withdrawn node can take effect any more. */
static bool is_silent(const struct cs_node *n)
{
	const struct blk *b = n->env->blk;

	for (unsigned i = 0; i < CS_DP_THREADS; i++)
		if (n->d[i].in_flight)
			return false;
	return b->gate_closed && !b->inflight && (!n->dp || dp_is_drained(n->dp)) && !sim_disk_pending(n->sim->disk, n->node);
}

/* What has come into being, or is over, since the last step. */
static void watch(struct cs_node *n)
{
	struct csvfs *fs = n->seen;
	bool running;

	if (!fs)
		return;
	if (fs->state == CSVFS_WITHDRAWN) {
		cs_locks_life_over(n);
		if (!n->silent && is_silent(n)) {
			n->silent = true;
			cs_oracle_fenced(n->sim, n->self);
		}
		return;
	}
	if (fs->glocks && !fs->glocks->touched) {
		fs->glocks->touched_arg = n;
		fs->glocks->touched = glock_seen;
		check_table(n);
	}
	if (!fs->dlm)
		return;
	if (!fs->dlm->touched) {
		fs->dlm->touched_arg = n;
		fs->dlm->touched = res_seen;
	}
	running = dlm_is_recovered(fs->dlm);
	if (running && (!n->dlm_ran || !ring_eq(n->dlm_ring, fs->dlm->view.ring)))
		check_all_res(n);
	n->dlm_ran = running;
	n->dlm_ring = fs->dlm->view.ring;
}

void cs_locks_step(struct cs_sim *s)
{
	struct cs_locks *l = &s->locks;
	bool sweep = cs_now(s) % SWEEP_STEPS == 0;

	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		struct cs_node *n = &s->node[i];

		watch(n);
		if (n->fs && counts(n))
			check_in_flight(n);
		if (sweep && counts(n)) {
			check_table(n);
			if (n->seen->dlm && dlm_is_recovered(n->seen->dlm))
				check_all_res(n);
		}
	}
	s->locks_checked += l->n_glock + l->n_res;
	for (unsigned i = 0; i < l->n_glock; i++) {
		struct cs_touched *t = &l->glock[i];
		struct glock *gl = counts(t->n) ? glock_find(t->n->seen, t->owner) : NULL;

		if (gl)
			check_holders(t->n, gl->priv);
		check_lock(s, t->owner);
	}
	for (unsigned i = 0; i < l->n_res; i++)
		check_touched_res(l->res[i].n, l->res[i].name, l->res[i].len);
	l->n_glock = l->n_res = 0;
}

/* ---- for people -------------------------------------------------------------------------------------------------------------------- */

static void print_name(void *arg, const char *name)
{
	(void)arg;
	printf(" %s", name);
}

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
