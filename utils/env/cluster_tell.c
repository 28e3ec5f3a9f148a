/*
 * cluster_tell.c - what the view tracker knows and says besides its views: who shares no version with the others (C7), how many votes
 * there are (C8), who is lost and who may be about to come (C9), and what anybody may ask it.
 *
 * Nothing here makes or ends a view; a node that is refused itself leaves through cluster_engine_lost_later().
 *
 * Thread: the control thread.
 */
#include "utils/env/cluster_internal.h"

#include <errno.h>
#include <stdio.h>

#include "utils/base/base.h"
#include "utils/env/clock.h"

#define REFUSED_EVERY_NS (60 * NS_PER_SEC)

/* ---- versions ----------------------------------------------------------------------------------------------------------- */

/* A round whose members share no version: no view comes of it (C7). */
void cluster_versions_refuse(struct cluster *c, const struct proto_member *m, unsigned out, struct proto_range messages, struct proto_range mesh)
{
	const struct proto_member *who = NULL;
	uint64_t now = sched_now_ns(c->sched);
	char name[24];

	if (c->refused_round == c->round)
		return;
	c->refused_round = c->round;
	c->stats.refused += out;
	for (uint32_t i = 0; i < c->n; i++)
		if (m[i].out && (!who || m[i].nodeid == c->port->self))
			who = &m[i];
	csv_assert(who);
	snprintf(name, sizeof(name), "node %u", who->nodeid);
	if (!proto_common(who->messages, messages))
		proto_refusal_text("messages between nodes", name, who->messages, "the other members", messages, c->refusal, sizeof(c->refusal));
	else
		proto_refusal_text("mesh protocol", name, who->mesh, "the other members", mesh, c->refusal, sizeof(c->refusal));
	if (!c->refused_said_ns || now - c->refused_said_ns >= REFUSED_EVERY_NS) {
		c->refused_said_ns = now;
		for (int i = 0; i < CHAN_MAX; i++)
			if (c->registered[i] && c->user[i].refused)
				c->user[i].refused(c->user[i].arg, c->refusal);
	}
	if (who->nodeid == c->port->self)
		cluster_engine_lost_later(c, -EPROTONOSUPPORT);
}

void cluster_set_versions(struct cluster *c, struct proto_range messages, struct proto_range mesh)
{
	csv_assert(!c->started && messages.min && messages.min <= messages.max && mesh.min && mesh.min <= mesh.max && mesh.max <= JOIN_MESH_MASK);
	c->speaks = messages;
	c->mesh = mesh;
}

struct proto_range cluster_versions(const struct cluster *c)
{
	return c->speaks;
}

const char *cluster_refusal(const struct cluster *c)
{
	return c->refusal;
}

/* ---- votes -------------------------------------------------------------------------------------------------------------- */

/* C8 */
uint32_t cluster_votes_of_all(const struct cluster *c)
{
	uint32_t most = 0;

	if (c->mutate_own_votes)
		return c->votes;
	for (uint32_t i = 0; i < c->n; i++) {
		if (!c->m[i].votes)
			return 0;
		most = csv_max(most, c->m[i].votes);
	}
	return most;
}

void cluster_mutate_own_votes(struct cluster *c)
{
	c->mutate_own_votes = true;
}

/* ---- lost, or about to come --------------------------------------------------------------------------------------------- */

/* C9 */
void cluster_seen_note(struct cluster *c)
{
	if (c->apart) {
		c->apart = false;
		c->quorate_ns = sched_now_ns(c->sched);
		c->n_seen = 0;
	}
	for (uint32_t i = 0; i < c->view.n; i++)
		if (!cluster_has_seen(c, c->view.m[i].nodeid) && c->n_seen < CLUSTER_NODES_MAX)
			c->seen[c->n_seen++] = c->view.m[i].nodeid;
}

void cluster_set_round(struct cluster *c, uint64_t round_ns)
{
	csv_assert(!c->started);
	c->round_ns = round_ns;
}

bool cluster_has_seen(const struct cluster *c, uint32_t nodeid)
{
	for (uint32_t i = 0; i < c->n_seen; i++)
		if (c->seen[i] == nodeid)
			return true;
	return false;
}

uint64_t cluster_may_come_ns(const struct cluster *c, uint32_t nodeid)
{
	return c->round_ns && !cluster_has_seen(c, nodeid) ? c->quorate_ns + c->round_ns : 0;
}

/* ---- what anybody may ask ----------------------------------------------------------------------------------------------- */

const struct cluster_node *cluster_view_find(const struct cluster_view *v, uint32_t nodeid)
{
	for (uint32_t i = 0; i < v->n; i++)
		if (v->m[i].nodeid == nodeid)
			return &v->m[i];
	return NULL;
}

const struct cluster_view *cluster_current(const struct cluster *c)
{
	return c->usable ? &c->view : NULL;
}

bool cluster_lacks_quorum(const struct cluster *c, uint32_t *ret_here)
{
	*ret_here = c->n;
	return c->have_ring && c->have_members && c->have_quorum && !c->quorate && ring_eq(c->quorum_ring, c->ring);
}

uint32_t cluster_self(const struct cluster *c)
{
	return c->port->self;
}

uint64_t cluster_incarnation(const struct cluster *c)
{
	return c->next_incarnation ? c->next_incarnation : c->incarnation;
}

const struct cluster_stats *cluster_stats(const struct cluster *c)
{
	return &c->stats;
}
