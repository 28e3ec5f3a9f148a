/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * btree_internal.h - areas (the content of one node) and paths, shared by the files of the B+tree.
 *
 * Area functions are pure and work on areas that passed bt_area_check() and on ones they made themselves.
 */
#ifndef CSVFS_CSVFS_BTREE_INTERNAL_H
#define CSVFS_CSVFS_BTREE_INTERNAL_H

#include "csvfs/btree.h"

/* ---- areas ----------------------------------------------------------------------------------------------------------------------- */

#define AREA_ITEM_BYTES(len) ((uint32_t)sizeof(struct csv_bt_slot) + (len))
#define AREA_CHILD_BYTES AREA_ITEM_BYTES(8u)
/* Room for at least three of the largest values: what a split needs. */
#define AREA_BYTES_MIN 2048u
/* Most items an area can have: values are at least one byte. */
#define AREA_ITEMS_MAX ((CSV_BT_NODE_AREA - sizeof(struct csv_bt_head)) / (sizeof(struct csv_bt_slot) + 1))

struct area { uint8_t *p; uint32_t len; };

struct area_item { uint64_t key; const uint8_t *val; uint32_t len; };

void area_init(struct area a, enum csv_bt_kind kind, uint32_t level);
uint32_t area_level(struct area a);
uint32_t area_count(struct area a);
uint64_t area_key(struct area a, uint32_t i);
void area_get(struct area a, uint32_t i, struct area_item *ret);
uint64_t area_child(struct area a, uint32_t i);
/* Bytes of slots and values in use; what may be used at most. */
uint32_t area_used(struct area a);
uint32_t area_room(struct area a);
/* First slot with key >= `key`, count when none; *ret_hit: it is equal. */
uint32_t area_find(struct area a, uint64_t key, bool *ret_hit);
/* The slot of the child that covers `key` (level > 0). */
uint32_t area_find_child(struct area a, uint64_t key);
bool area_fits(struct area a, uint32_t len);		/* one more value of `len`, after compaction where needed */
void area_insert(struct area a, uint32_t i, uint64_t key, const void *val, uint32_t len);	/* must fit */
void area_remove(struct area a, uint32_t i);
void area_set_key(struct area a, uint32_t i, uint64_t key);
/* Items [from, to) of a list, in order, into an empty area (they fit). */
void area_append(struct area a, const struct area_item *item, uint32_t from, uint32_t to);
uint32_t area_list(struct area a, struct area_item *ret);	/* all items; values stay in the area */

/* ---- paths ----------------------------------------------------------------------------------------------------------------------- */

/* lv[0] is the root, lv[depth - 1] the leaf; idx: slot of the child that was taken, in the leaf the place of the key. */
struct bt_node { struct buf *b; struct area a; uint64_t blk; uint32_t idx; };
struct bt_path {
	struct bt_node lv[CSV_BT_LEVELS];
	uint32_t depth;
	uint64_t hi;			/* keys of the leaf are < hi, when hi_set */
	bool hi_set;
	uint64_t lo;			/* >= lo, when lo_set */
	bool lo_set;
	bool hit;
};
struct area bt_root_area(const struct btree *t);
/* Reads and checks every node on the way to `key`; pinned until bt_path_done().  Awaits. */
int bt_path_read(struct btree *t, uint64_t key, struct bt_path *ret);
void bt_path_done(struct btree *t, struct bt_path *p);
/* One child of a node of level `level`, whose keys lie in [lo, hi).  Awaits; pinned. */
int bt_child_read(struct btree *t, uint64_t blk, uint32_t level, bool lo_set, uint64_t lo, bool hi_set, uint64_t hi,
		  struct bt_node *ret);
int bt_corrupt(struct btree *t, uint64_t blk, const char *fmt, ...) csv_printf_like(3, 4);

#endif
