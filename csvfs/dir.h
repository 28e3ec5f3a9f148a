/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dir.h - directories: names in the inode's tree (internal to csvfs/).
 *
 * Invariants
 *  DI1 Key = 55 bits of SipHash-2-4(name) under the volume's key << 8 | index; top bit 0; never below 256 (cookies 0..2 are reserved: start,
 *      "." and "..").  An index is never renumbered, so a key is a readdir cookie that stays good whatever else changes (R30).
 *  DI2 A name is in a directory at most once.  "." and ".." are not stored: ".." is inode.parent.
 *  DI3 inode.size = number of entries; nlink = 2 + number of subdirectories.
 *  DI4 Every entry read is checked before it is used; -CSV_E_CORRUPT names directory, key and field.
 */
#ifndef CSVFS_CSVFS_DIR_H
#define CSVFS_CSVFS_DIR_H

#include "csvfs/inode.h"

struct dir_entry {
	uint64_t key, ino;
	uint32_t gen;
	uint8_t type;			/* mode >> 12 */
	uint8_t name_len;
	char name[CSV_NAME_MAX + 1];	/* terminated */
};

/* Pure, for the checker too.  Lowest key a name may have. */
uint64_t dir_key(const uint8_t hash_key[static 16], const char *name, size_t len);
/* Pure.  Checks one item of directory `dir`. */
int dir_decode(const struct csv_geom *g, uint64_t dir, const struct bt_item *it, struct dir_entry *ret, struct csv_err *err);

/* 0 and the length: a name may be in a directory.  -ENAMETOOLONG, -EINVAL (empty, '/'), -EEXIST ("." or ".."). */
int dir_name_check(const char *name, size_t *ret_len);

/* `dir` is held >= CR with its block.  -ENOENT: then ret->key is free for it (-ENOSPC: 256 names with one hash). */
int dir_find(struct iref *dir, const char *name, struct dir_entry *ret);

/* Under EX, before the transaction: nodes that adding this name may need; 0 where it fits into its leaf (then no group is needed). */
int dir_new_nodes(struct iref *dir, uint64_t key, const char *name, uint32_t *ret_n);

/* Under EX, inside a transaction.  Do not touch times, size or links. `t` has the reservation for nodes. */
int dir_insert(struct btree *t, struct jnl_handle *h, uint64_t key, const char *name, uint64_t ino, uint32_t gen, uint8_t type);
int dir_replace(struct btree *t, struct jnl_handle *h, uint64_t key, const char *name, uint64_t ino, uint32_t gen, uint8_t type);

#endif
