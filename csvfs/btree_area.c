/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * btree_area.c - the content of one B+tree node: a head, slots sorted by key, values in a heap that grows from the end.
 *
 * Invariants (what bt_area_check() demands and every function keeps)
 *  AR1 head + 16 * count <= heap_off <= len; every value lies in [heap_off, len), none overlaps another.
 *  AR2 heap_off + lengths of all values + garbage == len: what is not referred to is counted as garbage.
 *  AR3 keys strictly ascending; reserved fields 0; values of level > 0 are 8 bytes.
 * Pure; any thread.
 */
#include <errno.h>

#include "csvfs/btree_internal.h"

#define HEAD_BYTES ((uint32_t)sizeof(struct csv_bt_head))
#define SLOT_BYTES ((uint32_t)sizeof(struct csv_bt_slot))

static struct csv_bt_head *head(struct area a)
{
	return (struct csv_bt_head *)a.p;
}

static struct csv_bt_slot *slot(struct area a, uint32_t i)
{
	return (struct csv_bt_slot *)(a.p + HEAD_BYTES) + i;
}

void area_init(struct area a, enum csv_bt_kind kind, uint32_t level)
{
	memset(a.p, 0, a.len);
	le16_set(&head(a)->level, (uint16_t)level);
	le16_set(&head(a)->heap_off, (uint16_t)a.len);
	le32_set(&head(a)->kind, kind);
}

void bt_root_init(void *area, uint32_t area_len, enum csv_bt_kind kind)
{
	csv_assertf(area_len >= AREA_BYTES_MIN && area_len <= CSV_BT_NODE_AREA, "area of %u bytes", area_len);
	area_init((struct area){ area, area_len }, kind, 0);
}

uint32_t area_level(struct area a)
{
	return le16_get(head(a)->level);
}

uint32_t area_count(struct area a)
{
	return le16_get(head(a)->count);
}

uint64_t area_key(struct area a, uint32_t i)
{
	csv_assertf(i < area_count(a), "slot %u of %u", i, area_count(a));
	return le64_get(slot(a, i)->key);
}

void area_get(struct area a, uint32_t i, struct area_item *ret)
{
	ret->key = area_key(a, i);
	ret->val = a.p + le16_get(slot(a, i)->off);
	ret->len = le16_get(slot(a, i)->len);
}

uint64_t area_child(struct area a, uint32_t i)
{
	struct area_item it;
	struct le64 v;

	area_get(a, i, &it);
	csv_assertf(it.len == sizeof(v), "child pointer of %u bytes", it.len);
	memcpy(&v, it.val, sizeof(v));
	return le64_get(v);
}

uint32_t area_room(struct area a)
{
	return a.len - HEAD_BYTES;
}

static uint32_t heap_bytes(struct area a)
{
	return a.len - le16_get(head(a)->heap_off);
}

uint32_t area_used(struct area a)
{
	return area_count(a) * SLOT_BYTES + heap_bytes(a) - le16_get(head(a)->garbage);
}

bool area_fits(struct area a, uint32_t len)
{
	return area_used(a) + AREA_ITEM_BYTES(len) <= area_room(a);
}

uint32_t area_find(struct area a, uint64_t key, bool *ret_hit)
{
	uint32_t lo = 0, hi = area_count(a);

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (area_key(a, mid) < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret_hit = lo < area_count(a) && area_key(a, lo) == key;
	return lo;
}

uint32_t area_find_child(struct area a, uint64_t key)
{
	bool hit;
	uint32_t i = area_find(a, key, &hit);

	csv_assert(area_count(a) > 0);
	return hit || i == 0 ? i : i - 1;
}

uint32_t area_list(struct area a, struct area_item *ret)
{
	uint32_t n = area_count(a);

	for (uint32_t i = 0; i < n; i++)
		area_get(a, i, &ret[i]);
	return n;
}

void area_append(struct area a, const struct area_item *item, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		area_insert(a, area_count(a), item[i].key, item[i].val, item[i].len);
}

/* Values pushed together; the heap is without garbage afterwards. */
static void area_compact(struct area a)
{
	uint8_t old[CSV_BT_NODE_AREA];
	uint32_t n = area_count(a), heap = a.len;

	memcpy(old, a.p, a.len);
	for (uint32_t i = 0; i < n; i++) {
		struct csv_bt_slot *s = slot(a, i);
		uint32_t len = le16_get(s->len);

		heap -= len;
		memcpy(a.p + heap, old + le16_get(s->off), len);
		le16_set(&s->off, (uint16_t)heap);
	}
	le16_set(&head(a)->heap_off, (uint16_t)heap);
	le16_set(&head(a)->garbage, 0);
	/* What was deleted is not left on the disk. */
	memset(a.p + HEAD_BYTES + n * SLOT_BYTES, 0, heap - HEAD_BYTES - n * SLOT_BYTES);
}

void area_insert(struct area a, uint32_t i, uint64_t key, const void *val, uint32_t len)
{
	uint32_t n = area_count(a), heap;

	csv_assertf(i <= n && area_fits(a, len), "place %u of %u, %u bytes more, %u of %u used", i, n, len, area_used(a), area_room(a));
	if (HEAD_BYTES + (n + 1) * SLOT_BYTES + len > le16_get(head(a)->heap_off))
		area_compact(a);
	heap = le16_get(head(a)->heap_off) - len;
	memcpy(a.p + heap, val, len);
	le16_set(&head(a)->heap_off, (uint16_t)heap);
	memmove(slot(a, i + 1), slot(a, i), (n - i) * SLOT_BYTES);
	*slot(a, i) = (struct csv_bt_slot){ .key = le64_of(key), .off = le16_of((uint16_t)heap), .len = le16_of((uint16_t)len) };
	le16_set(&head(a)->count, (uint16_t)(n + 1));
}

void area_remove(struct area a, uint32_t i)
{
	uint32_t n = area_count(a), len, off;

	csv_assertf(i < n, "slot %u of %u", i, n);
	len = le16_get(slot(a, i)->len);
	off = le16_get(slot(a, i)->off);
	memset(a.p + off, 0, len);
	memmove(slot(a, i), slot(a, i + 1), (n - i - 1) * SLOT_BYTES);
	memset(slot(a, n - 1), 0, SLOT_BYTES);
	le16_set(&head(a)->count, (uint16_t)(n - 1));
	if (n == 1) {
		le16_set(&head(a)->heap_off, (uint16_t)a.len);
		le16_set(&head(a)->garbage, 0);
	} else if (off == le16_get(head(a)->heap_off)) {
		le16_set(&head(a)->heap_off, (uint16_t)(off + len));
	} else {
		le16_set(&head(a)->garbage, (uint16_t)(le16_get(head(a)->garbage) + len));
	}
}

void area_set_key(struct area a, uint32_t i, uint64_t key)
{
	csv_assertf(i < area_count(a), "slot %u of %u", i, area_count(a));
	le64_set(&slot(a, i)->key, key);
}

/* ---- check -------------------------------------------------------------------------------------------------------------------- */

static bool kind_known(uint32_t kind)
{
	return kind == CSV_BT_EXTENTS || kind == CSV_BT_DIR || kind == CSV_BT_ORPHANS || kind == CSV_BT_XATTR;
}

/* Lengths a value may have, by kind and level. */
static void value_bounds(uint32_t kind, uint32_t level, uint32_t *ret_lo, uint32_t *ret_hi)
{
	*ret_lo = 1;
	*ret_hi = CSV_BT_VALUE_MAX;
	if (level > 0)
		*ret_lo = *ret_hi = sizeof(struct le64);
	else if (kind == CSV_BT_EXTENTS)
		*ret_lo = *ret_hi = sizeof(struct csv_extent);
	else if (kind == CSV_BT_ORPHANS)
		*ret_lo = *ret_hi = sizeof(struct csv_orphan);
	else if (kind == CSV_BT_DIR)
		*ret_lo = sizeof(struct csv_dirent) + 1, *ret_hi = sizeof(struct csv_dirent) + CSV_NAME_MAX;
}

#define BAD(...) csv_err_set(err, -CSV_E_CORRUPT, __VA_ARGS__)

/* Marks [off, off + len) in a bitmap of bytes; false when a byte was marked already. */
static bool mark(uint64_t *map, uint32_t off, uint32_t len)
{
	while (len) {
		uint32_t bit = off % 64, n = csv_min(64 - bit, len);
		uint64_t m = (n == 64 ? ~0ull : (1ull << n) - 1) << bit;

		if (map[off / 64] & m)
			return false;
		map[off / 64] |= m;
		off += n;
		len -= n;
	}
	return true;
}

int bt_area_check(const void *area, uint32_t area_len, enum csv_bt_kind kind, struct csv_err *err)
{
	struct area a = { (uint8_t *)area, area_len };
	uint64_t map[(CSV_BT_NODE_AREA + 63) / 64] = { 0 }, prev = 0;
	uint32_t level = area_level(a), n = area_count(a), heap = le16_get(head(a)->heap_off), sum = 0, lo, hi;

	csv_assertf(area_len >= AREA_BYTES_MIN && area_len <= CSV_BT_NODE_AREA, "area of %u bytes", area_len);
	if (!kind_known(kind) || le32_get(head(a)->kind) != (uint32_t)kind)
		return BAD("field kind = %u: must be %u", le32_get(head(a)->kind), kind);
	if (level >= CSV_BT_LEVELS)
		return BAD("field level = %u: must be between 0 and %u", level, CSV_BT_LEVELS - 1);
	if (le32_get(head(a)->reserved))
		return BAD("field reserved = %u: must be 0", le32_get(head(a)->reserved));
	if (n > (area_len - HEAD_BYTES) / SLOT_BYTES)
		return BAD("field count = %u: must be at most %u", n, (area_len - HEAD_BYTES) / SLOT_BYTES);
	if (level > 0 && n == 0)
		return BAD("field count = 0: must be at least 1 at level %u", level);
	if (heap < HEAD_BYTES + n * SLOT_BYTES || heap > area_len)
		return BAD("field heap_off = %u: must be between %u and %u", heap, HEAD_BYTES + n * SLOT_BYTES, area_len);
	value_bounds(kind, level, &lo, &hi);
	for (uint32_t i = 0; i < n; i++) {
		const struct csv_bt_slot *s = slot(a, i);
		uint64_t key = le64_get(s->key);
		uint32_t off = le16_get(s->off), len = le16_get(s->len);

		if (i && key <= prev)
			return BAD("slot %u: field key = %llu: must be above %llu, the key before", i, (unsigned long long)key,
				   (unsigned long long)prev);
		prev = key;
		if (le32_get(s->reserved))
			return BAD("slot %u: field reserved = %u: must be 0", i, le32_get(s->reserved));
		if (len < lo || len > hi)
			return BAD("slot %u: field len = %u: must be between %u and %u", i, len, lo, hi);
		if (off < heap || off > area_len - len)
			return BAD("slot %u: field off = %u: must be between %u and %u", i, off, heap, area_len - len);
		if (!mark(map, off, len))
			return BAD("slot %u: field off = %u, len %u: overlaps another value", i, off, len);
		sum += len;
	}
	if (le16_get(head(a)->garbage) != area_len - heap - sum)
		return BAD("field garbage = %u: must be %u (heap %u, values %u)", le16_get(head(a)->garbage), area_len - heap - sum,
			   area_len - heap, sum);
	return 0;
}
