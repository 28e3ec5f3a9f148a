/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lease.c - the table of moves, names, and the wire form of a lease.  Invariants: lease.h.
 *
 * lease_apply() is the only function that makes a record out of another one.
 */
#include "migrator/lease.h"

#include <errno.h>
#include <stdio.h>

bool lease_vm_valid(const char *vm)
{
	size_t n = strnlen(vm, LEASE_NAME_BYTES);

	if (!n || n >= LEASE_NAME_BYTES || vm[0] == '.' || vm[0] == '-')
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = vm[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
			return false;
	}
	return true;
}

int lease_init(struct lease *l, const char *vm)
{
	if (!lease_vm_valid(vm))
		return -EINVAL;
	memset(l, 0, sizeof(*l));
	memcpy(l->vm, vm, strlen(vm));
	return 0;
}

/* ---- the moves */

struct apply {
	const struct lease *old;
	const struct lease_cas *p;
	const struct lease_world *w;
	struct lease *l;		/* a copy of old, to be changed */
};

static bool proven(const struct apply *a, uint32_t nodeid, uint64_t inc)
{
	return (a->w->mutate & LEASE_MUT_NO_PROOF) || a->w->proven(a->w->arg, nodeid, inc);
}

static bool by_coord(const struct apply *a)
{
	return a->p->role == LEASE_BY_COORD;
}

static bool by_owner(const struct apply *a)
{
	return a->p->role == LEASE_BY_AGENT && a->p->by == a->old->owner && a->p->by_inc == a->old->owner_inc;
}

static bool by_peer(const struct apply *a)
{
	return a->p->role == LEASE_BY_AGENT && a->p->by == a->old->peer && a->p->by_inc == a->old->peer_inc;
}

static void no_migration(struct lease *l)
{
	l->peer = 0;
	l->peer_inc = 0;
	l->txid = 0;
	l->flags &= ~(LEASE_MOVED | LEASE_RETURNED);
}

static void to_free(struct lease *l, uint8_t reason)
{
	no_migration(l);
	l->state = LEASE_FREE;
	l->was = 0;
	l->owner = 0;
	l->owner_inc = 0;
	l->reason = reason;
	l->epoch++;
}

static int to_recovering(const struct apply *a)
{
	struct lease *l = a->l;

	if (!a->p->config)
		return -EINVAL;
	if (!a->w->lives(a->w->arg, a->p->node, a->p->node_inc))
		return -EINVAL;
	no_migration(l);
	l->state = LEASE_RECOVERING;
	l->was = 0;
	l->reason = LEASE_REASON_NONE;
	l->owner = a->p->node;
	l->owner_inc = a->p->node_inc;
	l->config = a->p->config;
	l->epoch++;
	return 0;
}

static void swap_owner(struct lease *l)
{
	uint32_t node = l->owner;
	uint64_t inc = l->owner_inc;

	l->owner = l->peer;
	l->owner_inc = l->peer_inc;
	l->peer = node;
	l->peer_inc = inc;
	l->epoch++;
}

static int move_create(const struct apply *a)
{
	struct lease *l = a->l;

	if (!by_coord(a))
		return -EPERM;
	if (a->p->want >= LEASE_WANT_END)
		return -EINVAL;
	if (lease_init(l, a->p->vm))
		return -EINVAL;
	l->version = a->w->version_floor;
	l->state = LEASE_FREE;
	l->want = a->p->want;
	l->flags = a->p->flags & LEASE_HA;
	l->priority = a->p->priority;
	return 0;
}

static int move_delete(const struct apply *a)
{
	if (!by_coord(a))
		return -EPERM;
	if (a->old->state != LEASE_FREE || a->old->want != LEASE_WANT_STOPPED)
		return -EBUSY;
	a->l->state = LEASE_NONE;
	return 0;
}

static int move_set(const struct apply *a)
{
	struct lease *l = a->l;

	if (!by_coord(a))
		return -EPERM;
	if (a->p->want >= LEASE_WANT_END)
		return -EINVAL;
	if (a->old->txid)
		return -EBUSY;
	l->want = a->p->want;
	l->flags = (l->flags & ~(LEASE_HA | LEASE_GUESSED)) | (a->p->flags & LEASE_HA);
	l->priority = a->p->priority;
	l->failures = 0;
	if (l->state == LEASE_FREE)
		l->reason = LEASE_REASON_NONE;
	return 0;
}

static int move_start(const struct apply *a)
{
	if (!by_coord(a))
		return -EPERM;
	if (a->old->state != LEASE_FREE || a->old->want == LEASE_WANT_STOPPED)
		return -EINVAL;
	return to_recovering(a);
}

static int move_started(const struct apply *a)
{
	if (a->old->state != LEASE_RECOVERING)
		return -EINVAL;
	if (!by_owner(a))
		return -EPERM;
	a->l->state = LEASE_RUNNING;
	return 0;
}

static void count_failure(struct lease *l)
{
	if (l->failures < UINT16_MAX)
		l->failures++;
}

static int move_failed(const struct apply *a)
{
	if (a->old->state != LEASE_RECOVERING)
		return -EINVAL;
	if (!by_owner(a))
		return -EPERM;
	to_free(a->l, a->p->reason);
	if (a->p->reason)
		count_failure(a->l);
	return 0;
}

static int move_release(const struct apply *a)
{
	if (a->old->state != LEASE_RUNNING)
		return -EINVAL;
	if (!by_owner(a))
		return -EPERM;
	if (a->p->want != a->old->want && a->p->want != LEASE_WANT_STOPPED)
		return -EINVAL;
	to_free(a->l, a->p->reason);
	a->l->want = a->p->want;
	if (a->p->reason == LEASE_REASON_LOST_QEMU)
		count_failure(a->l);
	return 0;
}

static int move_take(const struct apply *a)
{
	uint8_t s = a->old->state == LEASE_BLOCKED ? a->old->was : a->old->state;

	if (!by_coord(a))
		return -EPERM;
	if ((s != LEASE_RUNNING && s != LEASE_RECOVERING) || a->old->reason == LEASE_REASON_COLD)
		return -EINVAL;
	if (!proven(a, a->old->owner, a->old->owner_inc))
		return -EACCES;
	if (a->p->node)
		return to_recovering(a);
	to_free(a->l, a->p->reason);
	return 0;
}

static int move_intent(const struct apply *a)
{
	struct lease *l = a->l;

	if (!by_coord(a))
		return -EPERM;
	if (a->old->state != LEASE_RUNNING || !a->p->txid || a->p->node == a->old->owner)
		return -EINVAL;
	/* Guessed: SET comes first, and cannot be made while a migration is under way. */
	if (a->old->txid || (a->old->flags & LEASE_GUESSED))
		return -EBUSY;
	if (!a->w->lives(a->w->arg, a->p->node, a->p->node_inc))
		return -EINVAL;
	l->txid = a->p->txid;
	l->peer = a->p->node;
	l->peer_inc = a->p->node_inc;
	return 0;
}

static int move_abort(const struct apply *a)
{
	if (a->old->state != LEASE_RUNNING || !a->old->txid || a->old->txid != a->p->txid || (a->old->flags & LEASE_MOVED))
		return -EINVAL;
	if (!by_owner(a))
		return -EPERM;
	no_migration(a->l);
	return 0;
}

static int move_handover(const struct apply *a)
{
	if (!lease_is_intent(a->old) || a->old->txid != a->p->txid)
		return -EINVAL;
	if (!by_owner(a))
		return -EPERM;
	if (!a->w->lives(a->w->arg, a->old->peer, a->old->peer_inc))
		return -EINVAL;
	swap_owner(a->l);
	a->l->state = LEASE_HANDOFF;
	return 0;
}

static int move_accept(const struct apply *a)
{
	if (a->old->txid != a->p->txid)
		return -EINVAL;
	if ((a->w->mutate & LEASE_MUT_STEP4) && lease_is_intent(a->old) && by_peer(a)) {
		swap_owner(a->l);
		a->l->flags |= LEASE_MOVED;
		return 0;
	}
	if (a->old->state != LEASE_HANDOFF)
		return -EINVAL;
	if (!by_owner(a))
		return -EPERM;
	a->l->state = LEASE_RUNNING;
	a->l->flags |= LEASE_MOVED;
	return 0;
}

static int move_refuse(const struct apply *a)
{
	bool blocked = a->old->state == LEASE_BLOCKED && a->old->was == LEASE_HANDOFF;

	if (a->old->state != LEASE_HANDOFF && !blocked)
		return -EINVAL;
	if (by_coord(a)) {
		if (!proven(a, a->old->owner, a->old->owner_inc))
			return -EACCES;
	} else if (!by_owner(a)) {
		return -EPERM;
	} else if (blocked || a->old->txid != a->p->txid) {
		return -EINVAL;
	}
	swap_owner(a->l);
	a->l->state = LEASE_RUNNING;
	a->l->was = 0;
	a->l->reason = LEASE_REASON_NONE;
	a->l->flags |= LEASE_RETURNED;
	return 0;
}

static int move_close(const struct apply *a)
{
	if (a->old->state != LEASE_RUNNING || !(a->old->flags & LEASE_MOVED) || a->old->txid != a->p->txid)
		return -EINVAL;
	if (!by_coord(a) && !by_owner(a) && !by_peer(a))
		return -EPERM;
	no_migration(a->l);
	return 0;
}

static int move_block(const struct apply *a)
{
	struct lease *l = a->l;

	if (!by_coord(a))
		return -EPERM;
	if (a->p->reason < LEASE_REASON_NO_AGENT || a->p->reason > LEASE_REASON_NO_SWITCH)
		return -EINVAL;
	if (l->state == LEASE_BLOCKED ? l->reason == LEASE_REASON_COLD : l->state == LEASE_FREE)
		return -EINVAL;
	if (l->state != LEASE_BLOCKED) {
		l->was = l->state;
		l->state = LEASE_BLOCKED;
	}
	l->reason = a->p->reason;
	return 0;
}

static int move_unblock(const struct apply *a)
{
	if (a->old->state != LEASE_BLOCKED || a->old->reason == LEASE_REASON_COLD)
		return -EINVAL;
	if (!by_owner(a))
		return -EPERM;
	a->l->state = a->old->was;
	a->l->was = 0;
	a->l->reason = LEASE_REASON_NONE;
	return 0;
}

int lease_apply(const struct lease *old, const struct lease_cas *cas, const struct lease_world *w, struct lease *ret)
{
	static int (*const move[LEASE_MOVE_END])(const struct apply *) = {
		[LEASE_CREATE] = move_create, [LEASE_DELETE] = move_delete, [LEASE_SET] = move_set, [LEASE_START] = move_start,
		[LEASE_STARTED] = move_started, [LEASE_FAILED] = move_failed, [LEASE_RELEASE] = move_release, [LEASE_TAKE] = move_take,
		[LEASE_INTENT] = move_intent, [LEASE_ABORT] = move_abort, [LEASE_HANDOVER] = move_handover, [LEASE_ACCEPT] = move_accept,
		[LEASE_REFUSE] = move_refuse, [LEASE_CLOSE] = move_close, [LEASE_BLOCK] = move_block, [LEASE_UNBLOCK] = move_unblock,
	};
	struct lease l = *old;
	struct apply a = { old, cas, w, &l };
	bool create = cas->move == LEASE_CREATE;
	int r;

	if (!cas->move || cas->move >= LEASE_MOVE_END || cas->reason >= LEASE_REASON_END)
		return -EINVAL;
	if (create ? old->state != LEASE_NONE : old->state == LEASE_NONE)
		return create ? -EEXIST : -ENOENT;
	if (!create && old->version != cas->version)
		return -ESTALE;
	if (!w->lives(w->arg, cas->by, cas->by_inc))
		return -EPERM;
	r = move[cas->move](&a);
	if (r)
		return r;
	l.version++;
	*ret = l;
	return 0;
}

/* ---- for people */

const char *lease_state_name(enum lease_state s)
{
	static const char *const name[LEASE_STATE_END] = { "NONE", "FREE", "RUNNING", "HANDOFF", "RECOVERING", "BLOCKED" };

	return (unsigned)s < LEASE_STATE_END ? name[s] : "?";
}

const char *lease_want_name(enum lease_want w)
{
	static const char *const name[LEASE_WANT_END] = { "stopped", "paused", "run" };

	return (unsigned)w < LEASE_WANT_END ? name[w] : "?";
}

const char *lease_move_name(enum lease_move m)
{
	static const char *const name[LEASE_MOVE_END] = {
		"?", "CREATE", "DELETE", "SET", "START", "STARTED", "FAILED", "RELEASE", "TAKE", "INTENT", "ABORT", "HANDOVER", "ACCEPT",
		"REFUSE", "CLOSE", "BLOCK", "UNBLOCK" };

	return (unsigned)m < LEASE_MOVE_END ? name[m] : "?";
}

void lease_reason_text(enum lease_reason r, const char *vm, const char *node, char *buf, size_t size)
{
	switch (r) {
	case LEASE_REASON_NO_AGENT:
		snprintf(buf, size, "%s may still run on %s, which cannot be reached, and no fence agent is configured for that node; make sure "
			 "that it is switched off, then: csvctl node confirm-fenced %s", vm, node, node);
		return;
	case LEASE_REASON_AGENT_FAILED:
		snprintf(buf, size, "%s may still run on %s, which cannot be reached, and its fence agent failed (csvctl event list has its words); "
			 "repair the agent, or make sure that the node is switched off, then: csvctl node confirm-fenced %s", vm, node, node);
		return;
	case LEASE_REASON_NO_SWITCH:
		snprintf(buf, size, "%s may still run on %s: the fence device of %s does not switch %s, which went on living after the agent said off; "
			 "correct fence.conf, make sure that the node is switched off, then: csvctl node confirm-fenced %s", vm, node, node, node, node);
		return;
	case LEASE_REASON_COLD:
		snprintf(buf, size, "nobody remembers where %s ran, and %s is not here to say; start that node, or make sure that it is switched off, "
			 "then: csvctl node confirm-fenced %s", vm, node, node);
		return;
	case LEASE_REASON_TWO:
		snprintf(buf, size, "%s was reported running by two nodes; stop it, check its file systems, then: csvctl vm start %s", vm, vm);
		return;
	case LEASE_REASON_START_FAILED:
		snprintf(buf, size, "%s could not be started several times in a row; csvctl event list --vm %s has the reasons; mend it, then: csvctl vm start %s",
			 vm, vm, vm);
		return;
	case LEASE_REASON_LOST_QEMU:
		snprintf(buf, size, "the QEMU of %s ended by itself; csvctl event list --vm %s has its last words; then: csvctl vm start %s", vm, vm, vm);
		return;
	case LEASE_REASON_GUEST_OFF:
		snprintf(buf, size, "the guest of %s shut itself down; to start it: csvctl vm start %s", vm, vm);
		return;
	case LEASE_REASON_NO_PLACE:
		snprintf(buf, size, "no node can take %s now; csvctl node list says why; it is tried again when that changes", vm);
		return;
	case LEASE_REASON_HA_OFF:
		snprintf(buf, size, "%s was on a node that was lost, and high availability is off for it; to start it: csvctl vm start %s", vm, vm);
		return;
	default:
		if (size)
			buf[0] = 0;
	}
}

void lease_to_text(const struct lease *l, char *buf, size_t size)
{
	int n = snprintf(buf, size, "%s v%llu e%llu %s", l->vm[0] ? l->vm : "?", (unsigned long long)l->version, (unsigned long long)l->epoch,
			 lease_state_name(l->state));

	if (l->owner && n > 0 && (size_t)n < size)
		n += snprintf(buf + n, size - n, "(%u.%llx)", l->owner, (unsigned long long)l->owner_inc);
	if (l->state == LEASE_BLOCKED && n > 0 && (size_t)n < size)
		n += snprintf(buf + n, size - n, " was %s, reason %u", lease_state_name(l->was), l->reason);
	if (l->txid && n > 0 && (size_t)n < size)
		n += snprintf(buf + n, size - n, " peer %u tx %llx%s%s", l->peer, (unsigned long long)l->txid, l->flags & LEASE_MOVED ? " moved" : "",
			      l->flags & LEASE_RETURNED ? " returned" : "");
	if (n > 0 && (size_t)n < size)
		snprintf(buf + n, size - n, " want %s", lease_want_name(l->want));
}

/* ---- wire: name (length, bytes), then fields, little-endian */

static void name_encode(struct csv_cursor *c, const char *vm)
{
	size_t n = strnlen(vm, LEASE_NAME_BYTES);

	csv_put_u8(c, n);
	csv_put_bytes(c, vm, n);
}

static void name_decode(struct csv_cursor *c, char *ret_vm)
{
	uint8_t n = csv_cur_u8(c);

	memset(ret_vm, 0, LEASE_NAME_BYTES);
	if (!n || n >= LEASE_NAME_BYTES) {
		csv_cur_fail(c);
		return;
	}
	csv_cur_bytes(c, ret_vm, n);
	if (!csv_cur_error(c) && !(lease_vm_valid(ret_vm) && strnlen(ret_vm, LEASE_NAME_BYTES) == n))
		csv_cur_fail(c);
}

void lease_encode(struct csv_cursor *c, const struct lease *l)
{
	name_encode(c, l->vm);
	csv_put_u8(c, l->state);
	csv_put_u8(c, l->was);
	csv_put_u8(c, l->want);
	csv_put_u8(c, l->reason);
	csv_put_u8(c, l->flags);
	csv_put_u8(c, l->priority);
	csv_put_u16(c, l->failures);
	csv_put_u32(c, l->owner);
	csv_put_u32(c, l->peer);
	csv_put_u32(c, l->config);
	csv_put_u64(c, l->owner_inc);
	csv_put_u64(c, l->peer_inc);
	csv_put_u64(c, l->epoch);
	csv_put_u64(c, l->txid);
	csv_put_u64(c, l->version);
}

static bool state_is_sound(const struct lease *l)
{
	bool cold = l->state == LEASE_BLOCKED && l->reason == LEASE_REASON_COLD;
	bool was_ok = l->state == LEASE_BLOCKED && !cold ? l->was == LEASE_RUNNING || l->was == LEASE_HANDOFF || l->was == LEASE_RECOVERING : !l->was;
	uint8_t s = l->state == LEASE_BLOCKED && !cold ? l->was : l->state;

	if (l->state <= LEASE_NONE || l->state >= LEASE_STATE_END || l->want >= LEASE_WANT_END || l->reason >= LEASE_REASON_END || !was_ok)
		return false;
	if (l->flags & ~(LEASE_HA | LEASE_MOVED | LEASE_RETURNED | LEASE_GUESSED) || !l->version)
		return false;
	if (!cold && (s == LEASE_FREE) != !l->owner)
		return false;
	if (cold ? l->txid || (l->peer && !l->owner) : !l->txid != !l->peer || (s == LEASE_HANDOFF && !l->txid))
		return false;
	return !(l->flags & (LEASE_MOVED | LEASE_RETURNED)) || (s == LEASE_RUNNING && l->txid);
}

void lease_decode(struct csv_cursor *c, struct lease *ret)
{
	struct lease l = { .state = LEASE_NONE };

	name_decode(c, l.vm);
	l.state = csv_cur_u8(c);
	l.was = csv_cur_u8(c);
	l.want = csv_cur_u8(c);
	l.reason = csv_cur_u8(c);
	l.flags = csv_cur_u8(c);
	l.priority = csv_cur_u8(c);
	l.failures = csv_cur_u16(c);
	l.owner = csv_cur_u32(c);
	l.peer = csv_cur_u32(c);
	l.config = csv_cur_u32(c);
	l.owner_inc = csv_cur_u64(c);
	l.peer_inc = csv_cur_u64(c);
	l.epoch = csv_cur_u64(c);
	l.txid = csv_cur_u64(c);
	l.version = csv_cur_u64(c);
	if (csv_cur_error(c))
		return;
	if (!state_is_sound(&l)) {
		csv_cur_fail(c);
		return;
	}
	*ret = l;
}

void lease_cas_encode(struct csv_cursor *c, const struct lease_cas *p)
{
	name_encode(c, p->vm);
	csv_put_u64(c, p->version);
	csv_put_u8(c, p->move);
	csv_put_u8(c, p->role);
	csv_put_u8(c, p->want);
	csv_put_u8(c, p->flags);
	csv_put_u8(c, p->priority);
	csv_put_u8(c, p->reason);
	csv_put_u32(c, p->by);
	csv_put_u64(c, p->by_inc);
	csv_put_u32(c, p->node);
	csv_put_u32(c, p->config);
	csv_put_u64(c, p->node_inc);
	csv_put_u64(c, p->txid);
}

void lease_cas_decode(struct csv_cursor *c, struct lease_cas *ret)
{
	struct lease_cas p;

	memset(&p, 0, sizeof(p));
	name_decode(c, p.vm);
	p.version = csv_cur_u64(c);
	p.move = csv_cur_u8(c);
	p.role = csv_cur_u8(c);
	p.want = csv_cur_u8(c);
	p.flags = csv_cur_u8(c);
	p.priority = csv_cur_u8(c);
	p.reason = csv_cur_u8(c);
	p.by = csv_cur_u32(c);
	p.by_inc = csv_cur_u64(c);
	p.node = csv_cur_u32(c);
	p.config = csv_cur_u32(c);
	p.node_inc = csv_cur_u64(c);
	p.txid = csv_cur_u64(c);
	if (csv_cur_error(c))
		return;
	if (!p.move || p.move >= LEASE_MOVE_END || (p.role != LEASE_BY_AGENT && p.role != LEASE_BY_COORD) || p.want >= LEASE_WANT_END ||
	    p.reason >= LEASE_REASON_END || !p.by) {
		csv_cur_fail(c);
		return;
	}
	*ret = p;
}
