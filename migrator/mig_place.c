/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_place.c - where a VM may be, and where it is best: hard reasons first, then the fewest VMs, then the most free memory.
 * A quarantine keeps VMs away from a node as long as another one can have them, and a restart by ha, not by a person's wish, may ignore it:
 * a doubtful node is a better place than none.
 *
 * Pure.
 */
#include "migrator/mig_work.h"

#include <stdio.h>

const json_t *mig_node_flags(const struct mig *m, uint32_t nodeid)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "node/%u", nodeid);
	return mig_item_get(m, key);
}

bool mig_node_quarantined(const struct mig *m, uint32_t nodeid)
{
	return mig_int(mig_node_flags(m, nodeid), "quarantined_until_real_ms") > (json_int_t)(clock_real_ns(m->env->clock) / NS_PER_MS);
}

/*
 * What is left for VMs there: of what the host calls free, less what is on its way to it; and never more of all VMs' memory than it has, for
 * a guest takes what it was promised when it likes.  Negative: more than all is promised.
 */
static json_int_t memory_left(const struct mig *m, uint32_t nodeid, const char *but)
{
	const struct leasedb *db = mig_leases_db((struct mig *)m);
	const json_t *h = json_object_get(mig_host_of(m, nodeid), "host");
	json_int_t left = mig_int(h, "memory_free_bytes"), all = mig_int(h, "memory_bytes"), bytes;

	for (uint32_t i = 0; i < leasedb_count(db); i++) {
		const struct lease *l = leasedb_at(db, i);
		bool owns = l->state > LEASE_FREE && l->owner == nodeid;

		if (!strcmp(l->vm, but) || (!owns && !(lease_is_intent(l) && l->peer == nodeid)))
			continue;
		bytes = mig_int(mig_def(m, l->vm), "memory_bytes");
		all -= bytes;
		left -= mig_vm_on(m, nodeid, l->vm) ? 0 : bytes;
	}
	return mig_int(h, "memory_bytes") ? csv_min(left, all) : left;
}

/* hvhost/hvhostd_mount.h */
static const char *mount_refuses(const json_t *h)
{
	const char *st = mig_text(h, "mount_state");

	if (!strcmp(st, "dead"))
		return "has a dead mount of the volume: its csvfsd is gone, or gave it up";
	return !strcmp(st, "joining") ? "has not mounted the volume yet" : "has no volume mounted";
}

static const char *refuses(const struct mig *m, uint32_t nodeid, const char *vm, bool any_node)
{
	const json_t *h = json_object_get(mig_host_of(m, nodeid), "host"), *d = mig_def(m, vm);
	json_int_t wants = mig_int(d, "memory_bytes");

	if (!mig_is_member(m, nodeid))
		return mig_node_is_away(m, nodeid) ? "has no migratord running (there: systemctl start migratord)" : "is no member of the cluster";
	if (!mig_host_ready(m, nodeid))
		return "has no hvhostd running (there: systemctl start hvhostd)";
	if (!*mig_text(h, "volume"))
		return mount_refuses(h);
	if (*mig_text(h, "qemu_reason"))
		return "has a QEMU that could not be asked yet what it can do";
	if (json_array_size(json_object_get(h, "missing")))
		return "has a QEMU that cannot migrate as it must";
	if (json_is_true(json_object_get(mig_node_flags(m, nodeid), "drained")))
		return "is drained";
	if (!any_node && mig_node_quarantined(m, nodeid))
		return "is quarantined after three losses in an hour";
	if (wants && mig_int(h, "memory_free_bytes") && wants > memory_left(m, nodeid, vm))
		return "has not enough free memory";
	return NULL;
}

const char *mig_place_refuses(const struct mig *m, uint32_t nodeid, const char *vm)
{
	return refuses(m, nodeid, vm, false);
}

static unsigned owned(const struct mig *m, uint32_t nodeid)
{
	const struct leasedb *db = mig_leases_db((struct mig *)m);
	unsigned n = 0;

	for (uint32_t i = 0; i < leasedb_count(db); i++)
		n += leasedb_at(db, i)->state > LEASE_FREE && leasedb_at(db, i)->owner == nodeid;
	return n;
}

static uint32_t pinned(const struct mig *m, const char *vm)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "pin/%s", vm);
	return (uint32_t)mig_int(mig_item_get(m, key), "node");
}

static uint32_t place(const struct mig *m, const char *vm, uint32_t avoid, uint32_t avoid_hard, bool any_node, char *ret_why, size_t size)
{
	uint32_t best = 0, pin = pinned(m, vm);
	unsigned best_n = 0;
	json_int_t best_free = 0;
	size_t used = 0;

	ret_why[0] = 0;
	if (pin && pin != avoid && pin != avoid_hard && !refuses(m, pin, vm, any_node))
		return pin;
	for (unsigned i = 0; i < m->cfg.n_nodes; i++) {
		uint32_t id = m->cfg.node[i].nodeid;
		const char *no = id == avoid_hard ? "is where it is" : refuses(m, id, vm, any_node);
		unsigned n;
		json_int_t mem;

		if (no) {
			if (used < size)
				used += (size_t)snprintf(ret_why + used, size - used, "%s%s %s", used ? "; " : "", m->cfg.node[i].name, no);
			continue;
		}
		n = owned(m, id) + (id == avoid ? 10000 : 0);
		mem = memory_left(m, id, vm);
		if (!best || n < best_n || (n == best_n && mem > best_free + (json_int_t)(256 << 20))) {
			best = id;
			best_n = n;
			best_free = mem;
		}
	}
	return best;
}

uint32_t mig_place(const struct mig *m, const char *vm, uint32_t avoid, uint32_t avoid_hard, char *ret_why, size_t size)
{
	return place(m, vm, avoid, avoid_hard, false, ret_why, size);
}

uint32_t mig_place_ha(const struct mig *m, const char *vm, uint32_t avoid, char *ret_why, size_t size)
{
	uint32_t node = place(m, vm, avoid, 0, false, ret_why, size);

	return node ? node : place(m, vm, avoid, 0, true, ret_why, size);
}

bool mig_place_waits(const struct mig *m, const struct lease *l, char *ret_why, size_t size)
{
	const struct leasedb *db = mig_leases_db((struct mig *)m);
	bool free_one = l->state == LEASE_FREE && !l->reason && !l->failures;
	bool lost = l->state != LEASE_FREE && l->state != LEASE_BLOCKED && l->flags & LEASE_HA && !mig_is_member(m, l->owner) &&
		    leasedb_proven(db, l->owner, l->owner_inc);

	return (free_one || lost) && l->want != LEASE_WANT_STOPPED && !mig_place_ha(m, l->vm, 0, ret_why, size);
}
