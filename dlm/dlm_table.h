/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_table.h - the lock manager's tables: from a name to the thing of that name.
 *
 * A recovery looks every name up several times, in tables of hundreds of thousands of things that lie scattered over memory; what counts is
 * how many of them it touches.  So the hashes stand beside the pointers in one array: looking a name up touches the thing that is
 * found, and of the others one in 2^32.  (With uthash, which walks chains through the things themselves and keeps up to ten in one, half of
 * a recovery's time went there.)
 *
 * Invariants
 *  1. slot[] is open addressing with linear probing, at most 3/4 full; there is no gap between a thing's home and its place.
 *  2. all has the things in the order in which they were added: walking is deterministic, and memory is mostly met in order.
 *
 * Thread: the control thread.
 */
#ifndef CSVFS_DLM_DLM_TABLE_H
#define CSVFS_DLM_DLM_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <urcu/list.h>

#include "dlm/dlm.h"
#include "utils/base/base.h"

struct dlm_name {		/* zero padded */
	uint8_t len;
	uint8_t b[DLM_NAME_MAX];
};

/* In the thing, its name directly behind it: dlm_table_fits(). */
struct dlm_entry {
	struct cds_list_head all;
	uint32_t hash;
};
#define dlm_table_fits(type)                                                                                         \
	csv_static_assert(offsetof(type, name) == offsetof(type, hh) + sizeof(struct dlm_entry), "the name follows the entry")

struct dlm_slot { struct dlm_entry *e; uint32_t hash; };
struct dlm_table {
	struct cds_list_head all;
	struct dlm_slot *slot;
	uint32_t n, size;		/* size: a power of two, or 0 */
};

uint64_t dlm_name_hash(const struct dlm_name *name);
void dlm_table_init(struct dlm_table *t);
struct dlm_entry *dlm_table_find(const struct dlm_table *t, const struct dlm_name *name);
void dlm_table_add(struct dlm_table *t, struct dlm_entry *e);	/* its name is not in it yet */
void dlm_table_del(struct dlm_table *t, struct dlm_entry *e);
/* Forgets all at once: whoever calls has freed them, or does it next, and not through dlm_table_del(). */
void dlm_table_clear(struct dlm_table *t);
/* All that `from` has; `to` is empty. */
void dlm_table_move(struct dlm_table *to, struct dlm_table *from);
/* For tests: slots read when each thing is looked up once. */
uint64_t dlm_table_steps(const struct dlm_table *t);

/* In order of adding; x may be taken out and freed, others may be added. */
#define dlm_table_each(x, tmp, t) cds_list_for_each_entry_safe(x, tmp, &(t)->all, hh.all)

#endif
