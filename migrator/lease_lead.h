/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lease_lead.h - what the leader does about one VM: a pure function of the committed record and of what is known about nodes.
 *
 * By level: it is asked again for every VM after every change (settled view, committed record, fence result, SET) and every second;
 * it keeps nothing, so a new leader needs to be told nothing.  It never drives an agent: it changes records, and the agents look.
 * Nothing is done about a record that is LEASE_GUESSED: the caller SETs it from the definition first (and CREATEs records that are missing).
 * The leader is the member with the lowest id of a settled view (leasedb_orderer()).
 */
#ifndef CSVFS_MIGRATOR_LEASE_LEAD_H
#define CSVFS_MIGRATOR_LEASE_LEAD_H

#include "migrator/leasedb.h"

/* What fencing of a node has come to, in its present silence; kept by the caller, forgotten when the node is a member again. */
enum lease_fence { LEASE_FENCE_UNTRIED = 0, LEASE_FENCE_BUSY, LEASE_FENCE_NO_AGENT, LEASE_FENCE_FAILED, LEASE_FENCE_NO_SWITCH };

struct lease_lead {
	const struct leasedb *db;
	/* A node to run the VM on: a member whose agent lives and that may have it; not `avoid` when there is another.  0: none. */
	uint32_t (*place)(void *arg, const struct lease *l, uint32_t avoid);
	uint32_t (*config)(void *arg, const struct lease *l);	/* newest configuration's number; 0: unknown now, wait */
	enum lease_fence (*fence)(void *arg, uint32_t nodeid);
	/*
	 * After a cold start: have absent nodes had the time to come (they may just be booting)?  Until then nobody is fenced for
	 * being absent.
	 */
	bool cold_grace_over;
	uint16_t failures_max;		/* that a VM may fail to start in a row; 3 */
	void *arg;
};

enum lease_act { LEASE_ACT_NONE = 0, LEASE_ACT_PROPOSE, LEASE_ACT_FENCE };
struct lease_action {
	enum lease_act act;
	struct lease_cas cas;		/* LEASE_ACT_PROPOSE */
	uint32_t nodeid;		/* LEASE_ACT_FENCE: this life; 0: whichever it has */
	uint64_t inc;
};
/* `ret` is filled always; ask only for VMs of which no own proposal is open. */
void lease_lead_vm(const struct lease_lead *in, const struct lease *l, struct lease_action *ret);

#endif
