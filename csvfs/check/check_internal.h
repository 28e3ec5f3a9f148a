/* SPDX-License-Identifier: GPL-2.0-only */
/* check_internal.h - what the files of the checker share (check.h). */
#ifndef CSVFS_CSVFS_CHECK_CHECK_INTERNAL_H
#define CSVFS_CSVFS_CHECK_CHECK_INTERNAL_H

#include "csvfs/btree.h"
#include "csvfs/check/check.h"
#include "csvfs/dir.h"
#include "csvfs/format.h"
#include "csvfs/inode.h"
#include "journal/journal.h"
#include "journal/mhdr.h"

/* ---- a table of 64-bit keys ---------------------------------------------------------------------------------------- */

struct ck_table { struct { uint64_t key; void *val; } *e; uint64_t mask, n; };	/* val NULL: unused */
void *ck_table_get(const struct ck_table *t, uint64_t key);
int ck_table_put(struct ck_table *t, uint64_t key, void *val);		/* key is not in it; -ENOMEM */
void ck_table_free(struct ck_table *t);					/* frees the values */
void ck_table_forget(struct ck_table *t);				/* does not */

#define CK_TWICE_MAX 64u

/* What is known of an inode. */
struct ck_inode {
	uint64_t ino, parent, size, entries;
	uint32_t gen, mode, nlink, refs, subdirs, orphan_slot;
	uint32_t in_orphans;		/* slot whose tree has it, CSV_NO_SLOT */
	bool bad, truncating, by_parent;	/* by_parent: the entry that names it is in inode.parent */
};

struct ck {
	struct blk *dev;
	const struct check_options *o;
	struct check_result *res;
	struct csv_geom g;
	struct ck_table overlay;	/* blkno -> block after replay */
	struct jnl_home home;
	struct ck_table inodes;		/* ino -> struct ck_inode */
	struct ck_inode **queue;	/* found, body not walked */
	uint64_t queue_n, queue_cap;
	uint64_t *max_gen;		/* by group: highest generation seen */
	/* the map: blocks [win_first, win_end), two bits each */
	uint8_t *map;
	uint64_t win_first, win_end, win_max;
	struct ck_table far_nodes;	/* tree nodes outside the window: seen in this pass */
	bool quiet;			/* a later pass: only marks */
	/* what was found to be used twice in this window; who else has it is hunted for afterwards */
	struct { uint64_t blkno, len; } twice[CK_TWICE_MAX];
	uint32_t n_twice;
	bool hunting;
	uint32_t lines;
	void *buf;			/* one block, for short use between awaits */
	int fatal;			/* I/O error or no memory: stop */
	struct csv_err *err;
};

/* check_dev.c */
int ck_read(struct ck *c, uint64_t blkno, void *buf);			/* through the overlay; fatal when it fails */
void ck_overlay_init(struct ck *c);
void ck_finding(struct ck *c, const char *fmt, ...) csv_printf_like(2, 3);	/* not in a later pass */
void ck_note(struct ck *c, const char *fmt, ...) csv_printf_like(2, 3);
int ck_fatal(struct ck *c, int code, const char *fmt, ...) csv_printf_like(3, 4);
/* A metadata block: read, header checked, generation noted.  false: a finding was made (`what` names who refers to it). */
bool ck_read_meta(struct ck *c, uint64_t blkno, uint32_t magic, struct csv_owner owner, void *buf, const char *what);
bool ck_mhdr_reserved(struct ck *c, const void *block, const char *what);
bool ck_all_zero(const void *p, size_t n);

/* check_map.c */
int ck_map_window(struct ck *c, uint64_t first);			/* sets the window and clears the map */
/* A run is in use.  false when part of it was in use already (a finding was made). */
bool ck_mark(struct ck *c, uint64_t blkno, uint64_t len, enum csv_blk_state state, const char *who);
bool ck_marked(const struct ck *c, uint64_t blkno);
void ck_groups_check(struct ck *c);					/* those of the window: headers, bitmaps, map */

/* check_tree.c */
struct ck_tree {
	struct csv_owner owner;
	enum csv_bt_kind kind;
	const char *name;		/* "inode 42" */
	uint64_t root_blk;
	uint64_t nodes;			/* found */
	bool (*item)(struct ck *c, struct ck_tree *t, const struct bt_item *it);	/* false: stop */
	void *arg;
};
/* false: something was wrong (findings were made). */
bool ck_tree_walk(struct ck *c, struct ck_tree *t, const void *root_area, uint32_t area_len);

/* check_inode.c */
void ck_inodes_walk(struct ck *c);		/* root, orphan trees, all that hangs on them */
void ck_inodes_again(struct ck *c);		/* marks only, for the next window; or hunts */
void ck_links_check(struct ck *c);

/* check_slot.c */
void ck_super_copies(struct ck *c);
void ck_slots(struct ck *c);
void ck_journals(struct ck *c);

#endif
