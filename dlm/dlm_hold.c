/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_hold.c - minimum hold: a lock that two nodes fight for is used at least as long as it takes to travel (D9).
 *
 *	round trip	measured by both: REQUEST to GRANT less what it waited at the master, GRANT to the first DOWN less what it was held;
 *			so also, and alike, while two nodes fight.  A shorter one counts at once, a longer one by 1/32 at a time:
 *			nearly the shortest of the last ones, for what was late because a processor was busy is no measure of the way
 *	minimum hold	DLM_HOLD_RTTS round trips from the grant on, at most DLM_HOLD_MAX_NS: bast() waits so long, nothing else does
 *
 * Invariants
 *  1. The end of a hold is fixed when a bast first meets it and never moves: neither more basts nor a slower network put it off.
 *  2. It is at most DLM_HOLD_MAX_NS after the grant, whatever was measured (a node that answered late once does not starve others).
 *  3. A lock without waiters pays nothing; a hold that is over delays nothing.
 *
 * What a view change does: nothing; the bast comes when its hold is over if the lock is still in the way of the mode it was for, and
 * the new master asks anew.
 */
#include "dlm/dlm_internal.h"

#define RTT_FIRST_NS (200 * 1000ull)	/* before the first is measured */

void dlm_hold_measure(struct dlm *d, uint64_t took_ns, uint64_t there_ns)
{
	uint64_t before = d->rtt_ns ? d->rtt_ns : RTT_FIRST_NS, rtt_ns = took_ns - there_ns;

	if (there_ns >= took_ns)
		return;				/* no truth can look like that */
	d->rtt_ns = csv_min(rtt_ns, before + before / 32 + 1);
}

uint64_t dlm_hold_ns(const struct dlm *d)
{
	uint64_t hold = DLM_HOLD_RTTS * (d->rtt_ns ? d->rtt_ns : RTT_FIRST_NS);

	if (d->cfg.hold_uncapped)
		return 20 * hold;
	return csv_min(hold, (uint64_t)DLM_HOLD_MAX_NS);
}

static void rest_timer(struct timer *t)
{
	struct dlm *d = container_of(t, struct dlm, rest_timer);
	uint64_t now = dlm_now_ns(d), next = UINT64_MAX;
	struct dlm_client *c, *tmp;

	cds_list_for_each_entry_safe(c, tmp, &d->rest, rest) {
		if (c->rest_end_ns > now) {
			next = csv_min(next, c->rest_end_ns);
			continue;
		}
		dlm_hold_forget(d, c);
		dlm_client_due(d, c);
	}
	if (next != UINT64_MAX)
		timer_set(d->env->sched, t, next);
}

void dlm_hold_init(struct dlm *d)
{
	CDS_INIT_LIST_HEAD(&d->rest);
	timer_init(&d->rest_timer, rest_timer);
}

bool dlm_hold_back(struct dlm *d, struct dlm_client *c)
{
	uint64_t end = c->granted_ns + dlm_hold_ns(d), now = dlm_now_ns(d);

	if (c->resting)
		return true;
	if (now >= end || c->rest_end_ns)		/* 0 since the grant: the end is fixed once (1) */
		return false;
	c->rest_end_ns = end;
	c->resting = true;
	cds_list_add_tail(&c->rest, &d->rest);
	d->st.held_back++;
	if (!d->rest_timer.armed || d->rest_timer_ns > end) {
		d->rest_timer_ns = end;
		timer_set(d->env->sched, &d->rest_timer, end);
	}
	return true;
}

void dlm_hold_forget(struct dlm *d, struct dlm_client *c)
{
	(void)d;
	if (c->resting)
		cds_list_del(&c->rest);
	c->resting = false;
}
