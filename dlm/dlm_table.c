/* SPDX-License-Identifier: GPL-2.0-only */
/* dlm_table.c - see dlm_table.h. */
#include "dlm/dlm_table.h"

#include <stdlib.h>
#include <string.h>

#include "utils/base/siphash.h"

#define SIZE_MIN 32u

static const struct dlm_name *name_of(const struct dlm_entry *e)
{
	return (const struct dlm_name *)(e + 1);
}

uint64_t dlm_name_hash(const struct dlm_name *name)
{
	static const uint8_t key[CSV_SIPHASH_KEY_BYTES] = "csvfs-dlm-dir-1";

	return csv_siphash(key, name->b, name->len);
}

void dlm_table_init(struct dlm_table *t)
{
	*t = (struct dlm_table){ 0 };
	CDS_INIT_LIST_HEAD(&t->all);
}

struct dlm_entry *dlm_table_find(const struct dlm_table *t, const struct dlm_name *name)
{
	uint32_t hash, mask = t->size - 1;

	if (!t->n)
		return NULL;
	hash = (uint32_t)dlm_name_hash(name);
	for (uint32_t i = hash & mask; t->slot[i].e; i = (i + 1) & mask)
		if (t->slot[i].hash == hash && !memcmp(name_of(t->slot[i].e), name, sizeof(*name)))
			return t->slot[i].e;
	return NULL;
}

static void put(struct dlm_table *t, struct dlm_entry *e)
{
	uint32_t i, mask = t->size - 1;

	for (i = e->hash & mask; t->slot[i].e; i = (i + 1) & mask)
		;
	t->slot[i] = (struct dlm_slot){ e, e->hash };
}

static void grow(struct dlm_table *t)
{
	struct dlm_slot *old = t->slot;
	uint32_t old_size = t->size;

	t->size = old_size ? 2 * old_size : SIZE_MIN;
	t->slot = calloc(t->size, sizeof(*t->slot));
	if (!t->slot)
		csv_panic("lock manager: out of memory for a table of %u locks", t->n);
	for (uint32_t i = 0; i < old_size; i++)
		if (old[i].e)
			put(t, old[i].e);
	free(old);
}

void dlm_table_add(struct dlm_table *t, struct dlm_entry *e)
{
	if (4 * ((uint64_t)t->n + 1) > 3 * (uint64_t)t->size)
		grow(t);
	e->hash = (uint32_t)dlm_name_hash(name_of(e));
	put(t, e);
	t->n++;
	cds_list_add_tail(&e->all, &t->all);
}

void dlm_table_del(struct dlm_table *t, struct dlm_entry *e)
{
	uint32_t mask = t->size - 1, gap = e->hash & mask;

	while (t->slot[gap].e != e) {
		csv_assert(t->slot[gap].e);
		gap = (gap + 1) & mask;
	}
	/* Whoever would be cut off from its home by the gap moves into it (invariant 1). */
	for (uint32_t i = (gap + 1) & mask; t->slot[i].e; i = (i + 1) & mask) {
		if (((i - t->slot[i].hash) & mask) >= ((i - gap) & mask)) {
			t->slot[gap] = t->slot[i];
			gap = i;
		}
	}
	t->slot[gap].e = NULL;
	cds_list_del(&e->all);
	if (!--t->n && t->size > SIZE_MIN)
		dlm_table_clear(t);
}

void dlm_table_clear(struct dlm_table *t)
{
	free(t->slot);
	dlm_table_init(t);
}

void dlm_table_move(struct dlm_table *to, struct dlm_table *from)
{
	csv_assert(!to->n);
	dlm_table_clear(to);
	cds_list_splice(&from->all, &to->all);
	to->slot = from->slot;
	to->n = from->n;
	to->size = from->size;
	dlm_table_init(from);
}

uint64_t dlm_table_steps(const struct dlm_table *t)
{
	uint32_t mask = t->size - 1;
	uint64_t steps = 0;

	for (uint32_t i = 0; i < t->size; i++)
		if (t->slot[i].e)
			steps += ((i - t->slot[i].hash) & mask) + 1;
	return steps;
}
