/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * leasedb_internal.h - between leasedb.c (views, states), leasedb_move.c (ordering, applying, committing),
 * leasedb_cold.c (cold starts), and their tests: messages.
 *
 * All little-endian.  Each begins with kind (1), version (1), ring (4 + 8); one of another ring is dropped.
 *	HELLO	want (1), has_state (1), incarnation (8), base (12), index (8)
 *		frozen for the ring: what was there when the view came.  want: answer me with yours, or with the state
 *	STATE	index (8), part (2), parts (2), floor (8), cold (12), members n (1) {id (4), seq (8)}, nodes n (1) {id, inc,
 *		flags}, records n (2) {lease}
 *		complete with part parts - 1; counts as the sender's ACK of index
 *	PROPOSE	seq (8), entry
 *	ORDER	index (8), by (4), seq (8), entry	counts as the orderer's ACK of index
 *	ACK	index (8), want (1)
 *	entry	kind (1), then MOVE: lease_cas | PROOF: node (4), inc (8), how (1) | INVENTORY: node (4), inc (8), cold (12), n (2) {vm, epoch, ended, peer_inc,
 *		peer, config, flags}
 */
#ifndef CSVFS_MIGRATOR_LEASEDB_INTERNAL_H
#define CSVFS_MIGRATOR_LEASEDB_INTERNAL_H

#include "migrator/leasedb.h"
#include "utils/base/cursor.h"

#define LEASEDB_WIRE_VERSION 2
#ifndef LEASEDB_MSG_MAX
#define LEASEDB_MSG_MAX (CLUSTER_MSG_MAX - 256)	/* the view tracker's header */
#endif

enum leasedb_msg { LEASEDB_M_HELLO = 1, LEASEDB_M_STATE, LEASEDB_M_PROPOSE, LEASEDB_M_ORDER, LEASEDB_M_ACK, LEASEDB_M_END };
enum leasedb_kind { LEASEDB_K_MOVE = 1, LEASEDB_K_PROOF, LEASEDB_K_INVENTORY, LEASEDB_K_END };

/* What of this ring is missing here: nothing, some moves, and then also `com` (a state was coming in). */
enum { LEASEDB_GAP_MOVES = 1, LEASEDB_GAP_COM = 2 };

/* Wire size of one item of an inventory, of one record. */
#define LEASEDB_ITEM_WIRE (LEASE_NAME_BYTES + 36)

static inline struct leasedb_member *leasedb_member(const struct leasedb *db, uint32_t nodeid)
{
	for (uint32_t i = 0; i < db->n_member; i++)
		if (db->member[i].nodeid == nodeid)
			return (struct leasedb_member *)&db->member[i];
	return NULL;
}

static inline struct leasedb_member *leasedb_self(const struct leasedb *db)
{
	return leasedb_member(db, db->conf.self);
}

static inline uint32_t leasedb_votes(const struct leasedb_conf *c, uint32_t nodeid)
{
	for (uint32_t i = 0; i < c->n; i++)
		if (c->node[i].nodeid == nodeid)
			return c->node[i].votes;
	return 0;
}

bool leasedb_is_majority(const struct leasedb *db, uint32_t votes);
void leasedb_ring_put(struct csv_cursor *c, struct ring_id r);
struct ring_id leasedb_ring_get(struct csv_cursor *c);
void leasedb_begin(const struct leasedb *db, struct csv_cursor *c, enum leasedb_msg kind, uint8_t *buf, size_t size);
void leasedb_end(const struct leasedb_io *io, const struct csv_cursor *c);

/* ascending names; index, or where it would be */
bool leasedb_search(const struct lease *l, uint32_t n, const char *vm, uint32_t *ret_at);

/* Into a table; -ENOSPC: no room. */
int leasedb_table_put(struct lease *t, uint32_t *n, const struct lease *l);

/* leasedb_cold.c */
void leasedb_item_decode(struct csv_cursor *c, struct leasedb_item *ret);
/* One item of that node's inventory. */
void leasedb_cold_claim(struct leasedb *db, uint32_t nodeid, uint64_t inc, const struct leasedb_item *item);
/* When no suspect is left: what nobody claimed runs nowhere. */
void leasedb_cold_end(struct leasedb *db);

/* leasedb_move.c */
int leasedb_on_propose(struct leasedb *db, const struct leasedb_io *io, uint32_t from, struct csv_cursor *c);
int leasedb_on_order(struct leasedb *db, const struct leasedb_io *io, uint32_t from, struct csv_cursor *c);
int leasedb_on_ack(struct leasedb *db, const struct leasedb_io *io, uint32_t from, struct csv_cursor *c);
void leasedb_ack(struct leasedb *db, const struct leasedb_io *io, bool want);
/* `from` has this many moves of this ring. */
void leasedb_acked(struct leasedb *db, uint32_t from, uint64_t index);
/* Settles and commits what acknowledgements allow. */
void leasedb_advance(struct leasedb *db, const struct leasedb_io *io);
void leasedb_repeat_proposals(struct leasedb *db, const struct leasedb_io *io);

#endif
