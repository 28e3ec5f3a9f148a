/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_late.c - the events of a time in which a node was away (down, or on the other side of a cut): it gets them when it is back, and the others get
 * what happened to it alone.
 *
 *	had	any member, when a view comes	{"runs": [[node, first number, how many]...], "since"}
 *	late	who has what another lacks	{"e": [event...]}
 *
 * "since": the time of the oldest, when older ones have no room: nothing of that time or before is lacked.  When the words of all members
 * are there, each event of before the view that any of them lacks is told once, to all: by the lowest member that has it.
 *
 * Invariants
 *  EL1 What is told is bounded by the logs (ME2), in messages of EL_BYTES, one per EL_EVERY: requests and leases pass between them.
 *  EL2 Nothing waits for it.  A member that says no "had" (of an older version) gets nothing, and the others what they lack without it after
 *      EL_WAIT; a view that ends early begins again in the next one with what lacks still.
 *  EL3 It is told at most once a view, whatever the members claim.
 *
 * What a membership change does: all is forgotten; the next view asks again.
 *
 * One thread.
 */
#include "migrator/mig_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EL_BYTES (16u * 1024)
#define EL_EVERY_NS (100 * NS_PER_MS)
#define EL_FIRST_NS (2 * NS_PER_SEC)	/* what a change of members makes necessary comes first */
#define EL_WAIT_NS (5 * NS_PER_SEC)
#define EL_RUNS_MAX 512u		/* said; what is beyond is told again, and known */

static int by_id(const void *a, const void *b)
{
	const struct mig_event_id *x = a, *y = b;

	if (x->node != y->node)
		return x->node < y->node ? -1 : 1;
	return x->n < y->n ? -1 : x->n > y->n;
}

static json_t *runs_of(const struct mig *m)
{
	struct mig_event_id *id = malloc((m->events + 1) * sizeof(*id));
	json_t *runs = json_array();
	unsigned n = 0, last;

	for (unsigned i = 0; id && i < m->events; i++)
		if (m->event[i].id.node)
			id[n++] = m->event[i].id;
	if (n)
		qsort(id, n, sizeof(*id), by_id);
	for (unsigned i = 0; i < n && json_array_size(runs) < EL_RUNS_MAX; i = last + 1) {
		for (last = i; last + 1 < n && id[last + 1].node == id[i].node && id[last + 1].n == id[last].n + 1; last++)
			;
		json_array_append_new(runs, json_pack("[I, I, I]", (json_int_t)id[i].node, (json_int_t)id[i].n, (json_int_t)(last - i + 1)));
	}
	free(id);
	return runs;
}

static struct mig_had *had_of(struct mig *m, uint32_t nodeid)
{
	for (unsigned i = 0; i < m->n_had; i++)
		if (m->had[i].nodeid == nodeid)
			return &m->had[i];
	return NULL;
}

static bool has(const struct mig_had *h, struct mig_event_id id)
{
	for (uint32_t i = 0; i < h->n; i++)
		if (h->run[i].node == id.node && id.n >= h->run[i].first && id.n - h->run[i].first < h->run[i].count)
			return true;
	return false;
}

/* A member lacks it, and none before this node has it. */
static bool is_ours_to_tell(const struct mig *m, const struct mig_event *e)
{
	bool lacked = false;

	for (unsigned i = 0; i < m->n_had; i++) {
		const struct mig_had *h = &m->had[i];

		if (h->nodeid == m->cfg.self)
			continue;
		if (!has(h, e->id))
			lacked |= !*h->since || strcmp(mig_text(e->value, "time"), h->since) > 0;
		else if (h->nodeid < m->cfg.self)
			return false;
	}
	return lacked;
}

static void choose(struct mig *m)
{
	m->late = json_array();
	for (unsigned i = 0; m->late && i < m->events; i++)
		if (m->event[i].id.node && m->event[i].seq <= m->viewed_seq && is_ours_to_tell(m, &m->event[i]))
			json_array_append(m->late, m->event[i].value);
}

/* EL1.  The first of them, as many as go into a message. */
static json_t *next_few(struct mig *m)
{
	json_t *few = json_array(), *e;
	size_t bytes = 0;

	while (bytes < EL_BYTES && (e = json_array_get(m->late, 0))) {
		bytes += 256 + strlen(mig_text(e, "text")) + strlen(mig_text(e, "command")) + strlen(mig_text(e, "object"));
		json_array_append(few, e);
		json_array_remove(m->late, 0);
	}
	return few;
}

static void on_time(struct timer *t)
{
	struct mig *m = container_of(t, struct mig, late_timer);

	if (!m->view)
		return;
	if (!m->late)
		choose(m);
	if (!json_array_size(m->late))
		return;
	mig_send_take(m, json_pack("{s:s, s:o}", "t", "late", "e", next_few(m)));
	timer_set(m->env->sched, &m->late_timer, mig_now(m) + EL_EVERY_NS);
}

static bool run_get(const json_t *v, struct mig_event_run *ret)
{
	json_int_t node, first, count;

	if (json_unpack((json_t *)v, "[I, I, I!]", &node, &first, &count) || node <= 0 || node > UINT32_MAX || first <= 0 || first >= (json_int_t)1 << 60 ||
	    count <= 0 || count > MIG_EVENTS_MAX)
		return false;
	*ret = (struct mig_event_run){ (uint32_t)node, (uint32_t)count, (uint64_t)first };
	return true;
}

static void on_had(struct mig *m, uint32_t from, const json_t *msg)
{
	const json_t *runs = json_object_get(msg, "runs");
	size_t n = json_array_size(runs);
	const char *since = mig_text(msg, "since");
	struct mig_had h = { .nodeid = from };

	if (had_of(m, from) || m->late)
		return;		/* EL3; or it is too late */
	h.run = n && n <= EL_RUNS_MAX ? calloc(n, sizeof(*h.run)) : NULL;
	while (h.run && h.n < n && run_get(json_array_get(runs, h.n), &h.run[h.n]))
		h.n++;
	if (!json_is_array(runs) || h.n < n || strlen(since) >= sizeof(h.since)) {
		mig_log(m, LOG_L_WARN, "node %u: what it says of its events is malformed: ignored", from);
		free(h.run);
		return;
	}
	snprintf(h.since, sizeof(h.since), "%s", since);
	csv_assert(m->n_had < ARRAY_SIZE(m->had));
	m->had[m->n_had++] = h;
	if (m->n_had == m->view->n)
		timer_set(m->env->sched, &m->late_timer, m->viewed_ns + csv_max(EL_FIRST_NS, mig_now(m) - m->viewed_ns));
}

void mig_late_got(struct mig *m, uint32_t from, const char *t, const json_t *msg)
{
	const json_t *e;
	size_t i;

	if (!strcmp(t, "had")) {
		on_had(m, from, msg);
		return;
	}
	json_array_foreach(json_object_get(msg, "e"), i, e)
		mig_event_late(m, e);
}

void mig_late_view(struct mig *m)
{
	const char *since = m->events == MIG_EVENTS_MAX ? mig_text(m->event[0].value, "time") : "";

	mig_late_suspend(m);
	m->viewed_seq = m->event_seq;
	timer_set(m->env->sched, &m->late_timer, mig_now(m) + EL_WAIT_NS);
	mig_send_take(m, json_pack("{s:s, s:o, s:s}", "t", "had", "runs", runs_of(m), "since", since));
}

void mig_late_suspend(struct mig *m)
{
	timer_del(m->env->sched, &m->late_timer);
	for (unsigned i = 0; i < m->n_had; i++)
		free(m->had[i].run);
	m->n_had = 0;
	json_decref(m->late);
	m->late = NULL;
}

void mig_late_init(struct mig *m)
{
	timer_init(&m->late_timer, on_time);
}
