/*
 * btree.h - the one B+tree (internal to csvfs/): unsigned 64-bit keys, values of 1..CSV_BT_VALUE_MAX bytes, the root inline in an
 * inode block, nodes in blocks owned by the same resource.
 *
 * Invariants
 *  T1  Keys are strictly ascending in a node and across leaves; levels fall by one; depth <= CSV_BT_LEVELS.
 *  T2  Every node read is checked (bt_area_check) before use: counts, offsets, overlap, order, child range.
 *  T3  Changing calls need a handle with bt_credits() of room and never await anything but block I/O; they read the whole path before
 *      the first change, so an error leaves the tree untouched.
 *  T4  A node is freed only when its group is locked in t->resv.  A delete that empties nodes needs their groups there
 *      (bt_path_groups() of every key that is to be deleted, before the first change); others are merged only where they happen to be.
 *  T5  No node but the root is empty.
 */
#ifndef CSVFS_CSVFS_BTREE_H
#define CSVFS_CSVFS_BTREE_H

#include "csvfs/alloc.h"
#include "csvfs/buf.h"

struct btree {
	struct csvfs *fs;
	struct buf *root;		/* the inode's block */
	uint32_t area_off, area_len;	/* of the root area inside it */
	struct csv_owner owner;
	enum csv_bt_kind kind;
	struct alloc_resv *resv;	/* where nodes come from and go to; needed by changing calls */
	int64_t *blocks;		/* adjusted by +1/-1 for every node allocated/freed */
};

void bt_root_init(void *area, uint32_t area_len, enum csv_bt_kind kind);
/* 0, or -CSV_E_CORRUPT with a text naming field, value and range.  Pure; used by the checker too. */
int bt_area_check(const void *area, uint32_t area_len, enum csv_bt_kind kind, struct csv_err *err);

/* next: the key behind it in its leaf; UINT64_MAX: it is the last there. */
struct bt_item { uint64_t key, next; uint32_t len; uint8_t val[CSV_BT_VALUE_MAX]; };
int bt_lookup(struct btree *t, uint64_t key, struct bt_item *ret);		/* exact; -ENOENT */
int bt_seek_ge(struct btree *t, uint64_t key, struct bt_item *ret);		/* first with key >= ; -ENOENT */
int bt_seek_le(struct btree *t, uint64_t key, struct bt_item *ret);		/* last with key <= ; -ENOENT */
/* Distinct blocks that `inserts` inserts (or deletes) can dirty at most, allocation not included; new nodes at most. */
uint32_t bt_credits(const struct btree *t, uint32_t inserts);
uint32_t bt_new_nodes(const struct btree *t, uint32_t inserts);
/* 1: an insert of `key` with a value of `len` needs no new node, as the tree is now.  0: it may.  -errno.  Awaits. */
int bt_insert_fits(struct btree *t, uint64_t key, uint32_t len);
/* Nodes that `deletes` deletes can free at most: revokes for jnl_begin(), takes or gives for alloc_credits(). */
uint32_t bt_freed_nodes(const struct btree *t, uint32_t deletes);
int bt_insert(struct btree *t, struct jnl_handle *h, uint64_t key, const void *val, uint32_t len);	/* -EEXIST */
int bt_replace(struct btree *t, struct jnl_handle *h, uint64_t key, const void *val, uint32_t len);	/* any length; -ENOENT */
int bt_delete(struct btree *t, struct jnl_handle *h, uint64_t key);					/* -ENOENT */
/* -EXDEV: a node becomes empty and its group is not locked (T4): a mistake of the caller, nothing has changed.
 * -ENOSPC (insert, replace): the reservation has no room for new nodes; nothing has changed. */
/* Groups of the nodes on the path to `key` (they may be freed by a delete): appended without doubles. */
int bt_path_groups(struct btree *t, uint64_t key, uint32_t *group, uint32_t *inout_n, uint32_t max);
/* All items from `key` on until fn returns nonzero (returned). */
int bt_walk(struct btree *t, uint64_t key, int (*fn)(void *arg, const struct bt_item *i), void *arg);

#endif
