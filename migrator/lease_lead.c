/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lease_lead.c - the leader's answer to one record.  What it is asked for and when: lease_lead.h.
 *
 *	record			owner here		owner lost, proven		owner lost, not proven
 *	FREE, want run|paused	START at place()	-				-
 *	RUNNING, RECOVERING	-			TAKE to place(), or to FREE	FENCE; without success BLOCK with the reason
 *	HANDOFF			-			REFUSE: back to the source	the same
 *	BLOCKED			(its agent UNBLOCKs)	as it was before		FENCE again when the caller says UNTRIED; new reason
 *	BLOCKED, COLD		-			(ended by the replicas)		FENCE an absent suspect when the grace is over
 *	RUNNING, moved		CLOSE when the source is lost: its copy is of no use any more
 */
#include "migrator/lease_lead.h"

static struct lease_cas *propose(const struct lease *l, struct lease_action *a, enum lease_move move)
{
	a->act = LEASE_ACT_PROPOSE;
	memcpy(a->cas.vm, l->vm, sizeof(a->cas.vm));
	a->cas.version = l->version;
	a->cas.move = move;
	a->cas.role = LEASE_BY_COORD;
	a->cas.want = l->want;
	return &a->cas;
}

/* Where it goes; false: nowhere now. */
static bool to_place(const struct lease_lead *in, const struct lease *l, struct lease_action *a, enum lease_move move)
{
	uint32_t node = in->place(in->arg, l, l->owner), config = node ? in->config(in->arg, l) : 0;
	const struct leasedb_node *n = leasedb_node(in->db, node);
	struct lease_cas *p;

	if (!node || !config || !n || !leasedb_is_member(in->db, node, n->inc))
		return false;
	p = propose(l, a, move);
	p->node = node;
	p->node_inc = n->inc;
	p->config = config;
	return true;
}

static void start(const struct lease_lead *in, const struct lease *l, struct lease_action *a)
{
	bool failed = l->reason == LEASE_REASON_LOST_QEMU || l->reason == LEASE_REASON_START_FAILED;

	if (l->flags & LEASE_GUESSED)	/* the caller SETs it from the definition first */
		return;
	if (l->want == LEASE_WANT_STOPPED || l->reason == LEASE_REASON_HA_OFF || l->reason == LEASE_REASON_GUEST_OFF)
		return;
	if (failed && (l->failures >= in->failures_max || (l->reason == LEASE_REASON_LOST_QEMU && !(l->flags & LEASE_HA))))
		return;
	(void)to_place(in, l, a, LEASE_START);
}

static void lost(const struct lease_lead *in, const struct lease *l, struct lease_action *a)
{
	uint8_t s = l->state == LEASE_BLOCKED ? l->was : l->state;
	enum lease_reason why;

	if (l->flags & LEASE_GUESSED && !l->txid)
		return;
	if (leasedb_proven(in->db, l->owner, l->owner_inc) || (in->db->mutate & LEASE_MUT_NO_PROOF)) {
		if (s == LEASE_HANDOFF) {
			propose(l, a, LEASE_REFUSE)->txid = l->txid;
		} else if (l->want == LEASE_WANT_STOPPED || !(l->flags & LEASE_HA)) {
			propose(l, a, LEASE_TAKE)->reason = l->want == LEASE_WANT_STOPPED ? LEASE_REASON_NONE : LEASE_REASON_HA_OFF;
		} else {
			(void)to_place(in, l, a, LEASE_TAKE);
		}
		return;
	}
	switch (in->fence(in->arg, l->owner)) {
	case LEASE_FENCE_NO_AGENT:
		why = LEASE_REASON_NO_AGENT;
		break;
	case LEASE_FENCE_FAILED:
		why = LEASE_REASON_AGENT_FAILED;
		break;
	case LEASE_FENCE_NO_SWITCH:
		why = LEASE_REASON_NO_SWITCH;
		break;
	case LEASE_FENCE_UNTRIED:
		a->act = LEASE_ACT_FENCE;
		a->nodeid = l->owner;
		a->inc = l->owner_inc;
		return;
	default:
		return;
	}
	if (l->state != LEASE_BLOCKED || l->reason != why)
		propose(l, a, LEASE_BLOCK)->reason = why;
}

static void cold(const struct lease_lead *in, struct lease_action *a)
{
	for (uint32_t i = 0; in->cold_grace_over && i < LEASEDB_NODES_MAX; i++) {
		const struct leasedb_node *n = &in->db->node[i];

		if (!n->nodeid || !n->suspect || leasedb_is_member(in->db, n->nodeid, n->inc))
			continue;
		if (in->fence(in->arg, n->nodeid) != LEASE_FENCE_UNTRIED)
			continue;
		a->act = LEASE_ACT_FENCE;
		a->nodeid = n->nodeid;
		a->inc = n->inc;
		return;
	}
}

void lease_lead_vm(const struct lease_lead *in, const struct lease *l, struct lease_action *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (!leasedb_is_settled(in->db))
		return;
	if (l->state == LEASE_FREE) {
		start(in, l, ret);
		return;
	}
	if (l->state == LEASE_BLOCKED && l->reason == LEASE_REASON_COLD) {
		if (l->want != LEASE_WANT_STOPPED)
			cold(in, ret);
		return;
	}
	if (!leasedb_is_member(in->db, l->owner, l->owner_inc)) {
		lost(in, l, ret);
		return;
	}
	if (l->state == LEASE_RUNNING && (l->flags & LEASE_MOVED) && !leasedb_is_member(in->db, l->peer, l->peer_inc))
		propose(l, ret, LEASE_CLOSE)->txid = l->txid;
}
