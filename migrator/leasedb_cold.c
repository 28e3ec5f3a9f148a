/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * leasedb_cold.c - a cold start: records made again from what the nodes say of their QEMUs.  Invariants: leasedb.h (DB5, DB7, DB8).
 *
 * A copy that was offered in a migration is a good one if its target, T, speaks for the very life in which it was offered to it and has never
 * had a QEMU bound to a later epoch that is gone.  Why that is enough: the right leaves the source only by HANDOVER to T, and goes
 * on from T only when T was bound to it (ACCEPT) or by a proof about that life of T.  A T that was bound and whose QEMU is there says so
 * itself (EXEC, SURE, or a later offered copy of its own); one whose QEMU is gone says `ended`; one that has a new life cannot say.
 */
#include "migrator/leasedb_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "utils/base/err.h"

void leasedb_item_decode(struct csv_cursor *c, struct leasedb_item *ret)
{
	uint8_t n = csv_cur_u8(c);

	memset(ret, 0, sizeof(*ret));
	if (!n || n >= LEASE_NAME_BYTES) {
		csv_cur_fail(c);
		return;
	}
	csv_cur_bytes(c, ret->vm, n);
	ret->epoch = csv_cur_u64(c);
	ret->ended = csv_cur_u64(c);
	ret->peer_inc = csv_cur_u64(c);
	ret->peer = csv_cur_u32(c);
	ret->config = csv_cur_u32(c);
	ret->flags = csv_cur_u8(c);
	if (!csv_cur_error(c) && (!lease_vm_valid(ret->vm) || strlen(ret->vm) != n))
		csv_cur_fail(c);
}

/* ---- claims ---------------------------------------------------------------------------------------------------------------- */

static bool is_undecided(const struct lease *l)
{
	return l->state == LEASE_BLOCKED && l->reason == LEASE_REASON_COLD;
}

static void no_copy(struct lease *l)
{
	l->owner = l->peer = 0;
	l->owner_inc = l->peer_inc = 0;
}

/* The one of that name, BLOCKED where there is none yet.  NULL: no room. */
static struct lease *record_of(struct leasedb *db, const char *vm)
{
	struct lease fresh;
	uint32_t at;

	if (leasedb_search(db->acc, db->n_acc, vm, &at))
		return &db->acc[at];
	if (lease_init(&fresh, vm))
		return NULL;
	fresh.state = LEASE_BLOCKED;
	fresh.reason = LEASE_REASON_COLD;
	fresh.want = LEASE_WANT_RUN;
	fresh.flags = LEASE_GUESSED;
	fresh.version = db->version_floor;
	if (leasedb_table_put(db->acc, &db->n_acc, &fresh) || !leasedb_search(db->acc, db->n_acc, vm, &at))
		return NULL;
	return &db->acc[at];
}

void leasedb_cold_claim(struct leasedb *db, uint32_t nodeid, uint64_t inc, const struct leasedb_item *item)
{
	struct lease *l = record_of(db, item->vm);

	if (!l)
		return;
	l->version++;
	if (!is_undecided(l)) {
		if ((item->flags & LEASEDB_ITEM_EXEC) && l->owner && l->owner != nodeid)
			l->reason = LEASE_REASON_TWO;
		return;
	}
	if (item->ended > l->epoch) {	/* who was offered less has an old memory */
		no_copy(l);
		l->epoch = item->ended;
	}
	if (item->flags & (LEASEDB_ITEM_EXEC | LEASEDB_ITEM_SURE)) {
		no_copy(l);
		l->state = LEASE_RUNNING;
		l->reason = LEASE_REASON_NONE;
	} else if (!(item->flags & LEASEDB_ITEM_RESUMED) || item->epoch < l->epoch || (l->owner && item->epoch == l->epoch)) {
		return;
	} else {
		l->peer = item->peer;
		l->peer_inc = item->peer_inc;
	}
	l->owner = nodeid;
	l->owner_inc = inc;
	l->epoch = item->epoch;
	l->config = item->config;
}

/* Its peer has spoken, in the life in which it was offered to it. */
static bool is_good_copy(const struct leasedb *db, const struct lease *l)
{
	const struct leasedb_node *n = leasedb_node(db, l->peer);

	return l->owner && n && !n->dead && n->inc == l->peer_inc;
}

void leasedb_cold_end(struct leasedb *db)
{
	uint32_t n = 0;

	if (leasedb_suspects(db))
		return;
	for (uint32_t i = 0; i < db->n_acc; i++) {
		struct lease *l = &db->acc[i];

		if (is_undecided(l)) {
			bool good = is_good_copy(db, l);

			if (!good && (l->flags & LEASE_GUESSED)) {	/* perhaps of a VM that was deleted: by its definition, if it has one */
				db->version_floor = csv_max(db->version_floor, l->version);
				continue;
			}
			l->reason = LEASE_REASON_NONE;
			l->version++;
			l->peer = 0;
			l->peer_inc = 0;
			if (good) {
				l->state = LEASE_RUNNING;
			} else {
				l->state = LEASE_FREE;
				l->owner = 0;
				l->owner_inc = 0;
				l->epoch++;
			}
		}
		if (n != i)
			db->acc[n] = *l;
		n++;
	}
	memset(&db->acc[n], 0, (db->n_acc - n) * sizeof(db->acc[0]));
	db->n_acc = n;
}

/* An inventory or a proof that is applied and not committed is not known yet; nothing is ordered beside it. */
bool leasedb_knows_absent(const struct leasedb *db)
{
	if (db->mutate & LEASEDB_MUT_ABSENT)
		return leasedb_is_settled(db);
	return leasedb_is_settled(db) && !leasedb_suspects(db) && (!db->n_window || db->window[0].kind == LEASEDB_K_MOVE);
}

/* ---- telling -------------------------------------------------------------------------------------------------------------------- */

bool leasedb_wants_inventory(const struct leasedb *db)
{
	const struct leasedb_node *n = leasedb_node(db, db->conf.self);

	return leasedb_is_settled(db) && n && n->suspect && n->inc == db->conf.self_inc;
}

int leasedb_inventory(struct leasedb *db, const struct leasedb_io *io, const struct leasedb_item *item, uint32_t n)
{
	size_t size = 128 + n * (size_t)LEASEDB_ITEM_WIRE;
	uint8_t *buf;
	struct csv_cursor c;

	if (!leasedb_is_settled(db))
		return -CSV_E_NOQUORUM;
	if (n > LEASEDB_ITEMS_MAX)
		return -E2BIG;
	for (uint32_t i = 0; i < n; i++)
		if (!lease_vm_valid(item[i].vm))
			return -EINVAL;
	buf = malloc(size);
	if (!buf)
		return -ENOMEM;
	leasedb_begin(db, &c, LEASEDB_M_PROPOSE, buf, size);
	csv_put_u64(&c, 0);
	csv_put_u8(&c, LEASEDB_K_INVENTORY);
	csv_put_u32(&c, db->conf.self);
	csv_put_u64(&c, db->conf.self_inc);
	leasedb_ring_put(&c, db->cold);
	csv_put_u16(&c, n);
	for (uint32_t i = 0; i < n; i++) {
		size_t len = strlen(item[i].vm);

		csv_put_u8(&c, len);
		csv_put_bytes(&c, item[i].vm, len);
		csv_put_u64(&c, item[i].epoch);
		csv_put_u64(&c, item[i].ended);
		csv_put_u64(&c, item[i].peer_inc);
		csv_put_u32(&c, item[i].peer);
		csv_put_u32(&c, item[i].config);
		csv_put_u8(&c, item[i].flags);
	}
	leasedb_end(io, &c);
	free(buf);
	return 0;
}
