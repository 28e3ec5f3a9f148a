/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_name.c - what each name of the model may be.
 *
 * Operations of the model on one name do not overlap, so without crashes there is exactly one possibility.  What a node changed and has
 * not made durable goes back to any earlier state since the last durable one when that node dies; it is durable once the name was
 * changed or seen by another node (a lock leaves only after commit and write back, R2) or synced; and when the node gave its slot back
 * itself, for only who has written everything home may do that (R9, R11).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/csvsim.h"
#include "utils/base/base.h"

static bool state_eq(struct cs_state a, struct cs_state b)
{
	return a.kind == b.kind && (a.kind == CS_NONE || (a.ino == b.ino && a.gen == b.gen));
}

static void states_add(struct cs_sim *s, struct cs_states *t, struct cs_state st)
{
	for (unsigned i = 0; i < t->n; i++)
		if (state_eq(t->s[i], st))
			return;
	if (t->n == CS_STATES_MAX) {
		cs_fail(s, "the model is too small: more than %u possible states of one name", CS_STATES_MAX);
		return;
	}
	t->s[t->n++] = st;
}

/* --watch: what happens to one name, for people. */
static void watched(struct cs_sim *s, const struct cs_name *n, struct cluster_node by, const char *what, const char *op)
{
	char text[900];

	if (!s->opt.watch_name || n->dir != s->opt.watch_file || n->idx != s->opt.watch_sector)
		return;
	printf("watch: %.6f s, step %" PRIu64 ": n%u.%" PRIu64 " %s %s: %s; %u to go back to, changed last by n%u.%" PRIu64 "\n",
	       (double)sim_world_now_ns(s->w) / 1e9, cs_now(s), by.nodeid, by.incarnation, what, op,
	       cs_name_describe(n, text, sizeof(text)), n->back.n, n->owner.nodeid, n->owner.incarnation);
}

static void states_join(struct cs_sim *s, struct cs_states *t, const struct cs_states *more)
{
	for (unsigned i = 0; i < more->n; i++)
		states_add(s, t, more->s[i]);
}

static void durable(struct cs_name *n)
{
	n->back.n = 0;
	n->owner = (struct cluster_node){ 0 };
}

void cs_names_init(struct cs_sim *s)
{
	for (unsigned d = 0; d < CS_DIRS; d++)
		for (unsigned i = 0; i < CS_NAMES; i++) {
			struct cs_name *n = &s->name[d][i];

			n->dir = d;
			n->idx = i;
			snprintf(n->text, sizeof(n->text), "n%u", i);
			n->cur.n = 1;
			n->cur.s[0] = (struct cs_state){ .kind = CS_NONE };
		}
}

/* Somebody has looked at it, or changed it: what became of the dead is known. */
static void dead_is_known(struct cs_name *n)
{
	n->dead = (struct cluster_node){ 0 };
}

bool cs_name_take(struct cs_name *n)
{
	if (n->busy)
		return false;
	n->busy = true;
	n->version++;
	return true;
}

void cs_name_give(struct cs_name *n)
{
	csv_assert(n->busy);
	n->busy = false;
	n->version++;
}

static const char *kind_name(enum cs_kind k)
{
	return k == CS_NONE ? "nothing" : k == CS_FILE ? "file" : "directory";
}

char *cs_name_describe(const struct cs_name *n, char *buf, size_t size)
{
	size_t at = 0;

	at += snprintf(buf + at, size - at, "d%u/%s may be", n->dir, n->text);
	for (unsigned i = 0; i < n->cur.n && at < size; i++)
		at += snprintf(buf + at, size - at, "%s %s %" PRIu64 ".%u", i ? " or" : "", kind_name(n->cur.s[i].kind), n->cur.s[i].ino,
			       n->cur.s[i].gen);
	return buf;
}

void cs_name_seen(struct cs_sim *s, struct cs_name *n, struct cluster_node by, struct cs_state st, const char *op)
{
	char text[400];
	bool ok = false;

	watched(s, n, by, st.kind == CS_NONE ? "sees nothing" : st.kind == CS_DIR ? "sees a directory" : "sees a file", op);
	for (unsigned i = 0; i < n->cur.n; i++) {
		struct cs_state *c = &n->cur.s[i];

		ok |= state_eq(*c, st) || (c->kind == st.kind && !c->ino);
	}
	if (!ok) {
		cs_fail(s, "G1: n%u %s: %s, but was found as %s %" PRIu64 ".%u", by.nodeid, op, cs_name_describe(n, text, sizeof(text)),
			kind_name(st.kind), st.ino, st.gen);
		return;
	}
	dead_is_known(n);
	n->cur.n = 1;
	n->cur.s[0] = st;
	if (n->owner.nodeid && !cs_same(n->owner, by))
		durable(n);
}

void cs_name_exists(struct cs_sim *s, struct cs_name *n, struct cluster_node by, bool exists, const char *op)
{
	struct cs_states left = { 0 };
	char text[400];

	watched(s, n, by, exists ? "sees something" : "sees nothing", op);
	for (unsigned i = 0; i < n->cur.n; i++)
		if ((n->cur.s[i].kind != CS_NONE) == exists)
			left.s[left.n++] = n->cur.s[i];
	if (!left.n) {
		cs_fail(s, "G1: n%u %s: %s, but %s there", by.nodeid, op, cs_name_describe(n, text, sizeof(text)),
			exists ? "something is" : "nothing is");
		return;
	}
	dead_is_known(n);
	n->cur = left;
	if (n->owner.nodeid && !cs_same(n->owner, by))
		durable(n);
}

bool cs_name_may_be(const struct cs_name *n, enum cs_kind kind)
{
	for (unsigned i = 0; i < n->cur.n; i++)
		if (n->cur.s[i].kind == kind)
			return true;
	return false;
}

void cs_name_changed(struct cs_sim *s, struct cs_name *n, struct cluster_node by, struct cs_state to)
{
	dead_is_known(n);
	if (n->owner.nodeid && !cs_same(n->owner, by))
		durable(n);
	states_join(s, &n->back, &n->cur);
	n->cur.n = 1;
	n->cur.s[0] = to;
	n->owner = by;
	watched(s, n, by, "has changed it", "");
}

void cs_name_maybe(struct cs_sim *s, struct cs_name *n, struct cs_state to)
{
	states_add(s, &n->cur, to);
	if (n->dead.nodeid)
		states_add(s, &n->before, to);
	watched(s, n, (struct cluster_node){ 0 }, "got no answer", "");
}

void cs_name_refused(struct cs_sim *s, struct cs_name *n, struct cluster_node by, struct cs_state to)
{
	if (!n->dead.nodeid) {
		n->before = n->cur;
		n->dead = by;
	}
	states_add(s, &n->cur, to);
	watched(s, n, by, "was refused", "");
}

void cs_name_synced(struct cs_sim *s, struct cs_name *n, struct cluster_node by)
{
	if (cs_same(n->owner, by))
		durable(n);
	watched(s, n, by, "has synced it", "");
}

void cs_names_dead(struct cs_sim *s, struct cluster_node who)
{
	for (unsigned d = 0; d < CS_DIRS; d++)
		for (unsigned i = 0; i < CS_NAMES; i++) {
			struct cs_name *n = &s->name[d][i];

			if (!cs_same(n->owner, who))
				continue;
			n->before = n->cur;
			n->dead = who;
			states_join(s, &n->cur, &n->back);
			durable(n);
			watched(s, n, who, "is dead", "");
		}
}

void cs_names_released(struct cs_sim *s, struct cluster_node who)
{
	for (unsigned d = 0; d < CS_DIRS; d++)
		for (unsigned i = 0; i < CS_NAMES; i++) {
			struct cs_name *n = &s->name[d][i];

			if (!cs_same(n->dead, who))
				continue;
			n->cur = n->before;
			dead_is_known(n);
			watched(s, n, who, "has given back", "");
		}
}

void cs_names_left(struct cs_sim *s, struct cluster_node who)
{
	for (unsigned d = 0; d < CS_DIRS; d++)
		for (unsigned i = 0; i < CS_NAMES; i++)
			if (cs_same(s->name[d][i].owner, who))
				durable(&s->name[d][i]);
}
