/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * alloc.c - reservations: which groups an operation works in.  Invariants in alloc.h and alloc_internal.h.
 *
 * Where alloc_reserve() looks, in this order; each step costs more than the one before:
 *   1. groups the reservation holds already
 *   2. the hint's group, then others whose EX is cached here (no message); the run wanted first, then any run
 *   3. the same, waiting for another operation of this node
 *   4. groups that hints do not call full, from this node's own part of the volume on, without waiting for other nodes
 *   5. all groups, waiting where the lock order allows, after a commit has freed what was busy: the true scan (A5)
 * A membership change does nothing here; waits are the glocks' own.
 */
#include <errno.h>
#include <stdlib.h>

#include "csvfs/alloc_internal.h"

#define LOCAL_TRIES 64u

typedef unsigned long long ull;

struct want {
	uint32_t blocks, run;
	bool for_free;
	bool busy_seen;		/* there would be room but for busy blocks */
	bool held_elsewhere;	/* a group was not looked at: it may have room */
	int corrupt;
};

void alloc_resv_init(struct csvfs *fs, struct alloc_resv *r)
{
	r->fs = fs;
	r->n = 0;
}

static void group_unlock(struct alloc_resv *r, struct alloc_group *g)
{
	for (uint32_t i = 0; i < CSV_GROUP_BITMAPS; i++)
		buf_put(r->fs, g->bitmap[i]);
	buf_put(r->fs, g->hdr);
	glock_put(&g->gh);
}

void alloc_resv_done(struct alloc_resv *r)
{
	while (r->n)
		group_unlock(r, &r->g[--r->n]);
}

uint32_t alloc_group_of(const struct csvfs *fs, uint64_t blk)
{
	return csv_group_of(&fs->geo, blk);
}

/* ---- reading a group -------------------------------------------------------------------------------------------------------------- */

#define BAD(fmt, ...) \
	(fs_log(fs, LOG_L_ERR, "group %u: " fmt "; run fsck.csvfs", g->group, ##__VA_ARGS__), -CSV_E_CORRUPT)

/* Of the first n blocks of a bitmap: two bits a block, 32 blocks a word (a block's bits are neighbours in a byte, so the byte order is all one). */
static void count_states(const uint8_t *bits, uint32_t n, uint32_t *inout_free, uint32_t *inout_inodes)
{
	const uint64_t even = 0x5555555555555555ull;
	uint32_t e = 0;

	for (; e + 32 <= n; e += 32) {
		uint64_t v;

		memcpy(&v, bits + e / 4, sizeof(v));
		*inout_free += 32 - (uint32_t)__builtin_popcountll((v | v >> 1) & even);
		*inout_inodes += (uint32_t)__builtin_popcountll(v & v >> 1 & even);
	}
	for (; e < n; e++) {
		*inout_free += csv_bits_get(bits, e) == CSV_BLK_FREE;
		*inout_inodes += csv_bits_get(bits, e) == CSV_BLK_INODE;
	}
}

/* Numbers of the header against their bounds and the bitmaps, once per lock. */
static int group_load(struct csvfs *fs, struct alloc_group *g)
{
	const struct csv_group *d = buf_data(g->hdr);
	struct group_mem *m = g->mem;
	uint32_t most = m->blocks - CSV_GROUP_FIRST_FREE, free_blk = 0, inodes = 0;

	if (le32_get(d->group) != g->group)
		return BAD("field group = %u: must be %u", le32_get(d->group), g->group);
	if (le32_get(d->blocks) != m->blocks)
		return BAD("field blocks = %u: must be %u", le32_get(d->blocks), m->blocks);
	if (le32_get(d->flags) || le64_get(d->refcount_root))
		return BAD("field %s is not 0: a later version wrote it", le32_get(d->flags) ? "flags" : "refcount_root");
	if (le32_get(d->largest_run) > most)
		return BAD("field largest_run = %u: must be at most %u", le32_get(d->largest_run), most);
	for (uint32_t b = 0, left = m->blocks; b < CSV_GROUP_BITMAPS; b++) {
		uint32_t here = csv_min(left, CSV_BITMAP_BYTES * 4u);

		count_states(((struct csv_bitmap *)buf_data(g->bitmap[b]))->bits, here, &free_blk, &inodes);
		left -= here;
	}
	for (uint32_t e = 0; e < CSV_GROUP_FIRST_FREE; e++)
		if (csv_bits_get(((struct csv_bitmap *)buf_data(g->bitmap[0]))->bits, e) != CSV_BLK_META)
			return BAD("bitmap 0 calls block %u of the group %s: must be metadata", e,
				   csv_blk_state_name(csv_bits_get(((struct csv_bitmap *)buf_data(g->bitmap[0]))->bits, e)));
	if (le32_get(d->free_blk) != free_blk)
		return BAD("field free_blk = %u: the bitmaps have %u free blocks", le32_get(d->free_blk), free_blk);
	if (le32_get(d->inodes) != inodes)
		return BAD("field inodes = %u: the bitmaps have %u", le32_get(d->inodes), inodes);
	m->free_blk = free_blk;
	m->inodes = inodes;
	m->largest_run = le32_get(d->largest_run);
	m->loaded = true;
	return 0;
}

static int group_read(struct csvfs *fs, struct alloc_group *g)
{
	uint64_t start = csv_group_start(&fs->geo, g->group);
	int rc;

	rc = busy_prepare(g->mem);
	if (!rc)
		rc = buf_read(fs, start, OWN_GROUP(g->group), CSV_MAGIC_GROUP, &g->hdr);
	for (uint32_t i = 0; !rc && i < CSV_GROUP_BITMAPS; i++)
		rc = buf_read(fs, start + 1 + i, OWN_GROUP(g->group), CSV_MAGIC_BITMAP, &g->bitmap[i]);
	if (!rc && !g->mem->loaded)
		rc = group_load(fs, g);
	return rc;
}

/* Locks and reads one more group.  `w`: not read where its value block says that it has no room (-ENOSPC). */
static int group_lock(struct alloc_resv *r, uint32_t group, unsigned flags, const struct want *w)
{
	struct csvfs *fs = r->fs;
	struct alloc_group *g = &r->g[r->n];
	const struct group_hint *hint = &fs->alloc->hint[group];
	int rc;

	if (r->n == ALLOC_GROUPS_MAX)
		return -E2BIG;
	fs->alloc->probes++;
	*g = (struct alloc_group){ .group = group };
	rc = glock_get(fs, OWN_GROUP(group), DLM_EX, flags, &g->gh);
	if (rc)
		return rc;
	g->mem = group_mem_get(g->gh.gl);
	if (!g->mem)
		rc = -ENOMEM;
	else if (w && !g->mem->loaded && hint->exact && !hint_allows(fs, group, w->blocks, w->run))
		rc = -ENOSPC;
	else
		rc = group_read(fs, g);
	if (rc) {
		group_unlock(r, g);
		return rc;
	}
	group_mem_local(g->mem);
	r->n++;
	return 0;
}

/* ---- choosing ----------------------------------------------------------------------------------------------------------------------- */

static bool mem_allows(const struct group_mem *m, const struct want *w, uint32_t promised)
{
	uint64_t kept = (w->for_free ? 0 : reserve_of(m->fs, m->group)) + (uint64_t)promised;

	return mem_avail(m) >= kept + w->blocks && (w->run <= 1 || m->largest_run >= w->run);
}

/* Does this locked group do?  Then its blocks are promised. */
static bool group_promise(struct alloc_group *g, struct want *w)
{
	struct free_run run;

	if (!mem_allows(g->mem, w, g->promised)) {
		if (g->mem->busy_blk)
			w->busy_seen = true;
		return false;
	}
	if (w->run > 1) {
		map_find_run(g, g->mem->cursor, w->run, &run);
		if (run.len < w->run)
			return false;
	}
	g->promised += w->blocks;
	g->promised_total += w->blocks;
	return true;
}

/* Locks a group and keeps it if it does.  0, -ENOSPC: not this one; others are for the caller of alloc_reserve(). */
static int group_try(struct alloc_resv *r, uint32_t group, unsigned flags, struct want *w)
{
	struct alloc_group *g = &r->g[r->n];
	int rc;

	for (uint32_t i = 0; i < r->n; i++)
		if (r->g[i].group == group)
			return -ENOSPC;	/* looked at already */
	rc = group_lock(r, group, flags, w);
	if (rc == -CSV_E_CORRUPT) {
		/* Named in the log; the others may do. */
		hint_set(r->fs, group, 0, 0, false);
		w->corrupt = rc;
		return -ENOSPC;
	}
	if (rc == -EAGAIN && !(flags & GLOCK_LOCAL_ONLY))
		w->held_elsewhere = true;
	if (rc == -EAGAIN)
		return -ENOSPC;
	if (rc)
		return rc;
	if (group_promise(g, w))
		return 0;
	hint_set(r->fs, group, g->mem->free_blk, g->mem->largest_run, false);
	r->n--;
	group_unlock(r, g);
	return -ENOSPC;
}

static bool may_wait_for(const struct alloc_resv *r, uint32_t group)
{
	for (uint32_t i = 0; i < r->n; i++)
		if (r->g[i].group >= group)
			return false;
	return true;
}

static int try_held(struct alloc_resv *r, struct want *w)
{
	for (uint32_t i = 0; i < r->n; i++)
		if (group_promise(&r->g[i], w))
			return 0;
	return -ENOSPC;
}

/* Groups cached here.  `wait`: for the first one that another operation of this node works in. */
static int try_local(struct alloc_resv *r, uint32_t hint_group, bool wait, struct want *w)
{
	uint32_t cand[LOCAL_TRIES], n = 0;
	struct group_mem *m;
	int rc;

	/* The list changes while locks are taken: candidates first. */
	cds_list_for_each_entry(m, &r->fs->alloc->local, local_node) {
		if (n == LOCAL_TRIES)
			break;
		if (m->loaded && !mem_allows(m, w, 0)) {
			if (m->busy_blk)
				w->busy_seen = true;
			continue;
		}
		cand[n++] = m->group;
		if (m->group == hint_group) {
			cand[n - 1] = cand[0];
			cand[0] = hint_group;
		}
	}
	for (uint32_t i = 0; i < n; i++) {
		if (wait && !may_wait_for(r, cand[i]))
			continue;
		rc = group_try(r, cand[i], wait ? 0 : GLOCK_LOCAL_ONLY, w);
		if (rc != -ENOSPC)
			return rc;
	}
	return -ENOSPC;
}

static uint32_t home_group(struct csvfs *fs)
{
	struct alloc_ctl *a = fs->alloc;

	if (a->home == UINT32_MAX && fs->slot < fs->geo.slots)
		a->home = (uint32_t)((uint64_t)fs->slot * fs->geo.groups / fs->geo.slots);
	return a->home == UINT32_MAX ? 0 : a->home;
}

/* Groups that hints allow, from our own part on, once round; waits for nobody. */
static int try_hinted(struct alloc_resv *r, struct want *w)
{
	struct csvfs *fs = r->fs;
	uint32_t home = home_group(fs);

	for (int round = 0; round < 2; round++) {
		uint32_t end = round ? home : fs->geo.groups;

		for (uint32_t g = round ? 0 : home;; g++) {
			int rc;

			g = hint_next(fs, g, w->blocks, w->run);
			if (g >= end)
				break;
			rc = group_try(r, g, GLOCK_NOQUEUE, w);
			if (rc != -ENOSPC)
				return rc;
		}
	}
	return -ENOSPC;
}

static int try_all(struct alloc_resv *r, struct want *w)
{
	w->held_elsewhere = false;
	for (uint32_t g = 0; g < r->fs->geo.groups; g++) {
		int rc = group_try(r, g, may_wait_for(r, g) ? 0 : GLOCK_NOQUEUE, w);

		if (rc != -ENOSPC)
			return rc;
	}
	return -ENOSPC;
}

int alloc_reserve(struct alloc_resv *r, uint64_t hint_blk, uint32_t blocks, uint32_t run, bool for_free)
{
	struct csvfs *fs = r->fs;
	struct want strict = { .blocks = blocks, .run = csv_min(run, blocks), .for_free = for_free };
	struct want any = { .blocks = blocks, .run = 1, .for_free = for_free };
	uint32_t hint_group = csv_group_of(&fs->geo, hint_blk);
	int rc;

	if (!blocks)
		return 0;
	if (blocks > CSV_GROUP_BLOCKS - CSV_GROUP_FIRST_FREE)
		return -ENOSPC;
	rc = try_held(r, &strict);
	if (rc == -ENOSPC)
		rc = try_local(r, hint_group, false, &strict);
	if (rc == -ENOSPC)
		rc = try_local(r, hint_group, true, &strict);
	if (rc == -ENOSPC && r->n < ALLOC_GROUPS_MAX)
		rc = try_hinted(r, &strict);
	if (rc == -ENOSPC)
		rc = try_held(r, &any);
	if (rc == -ENOSPC)
		rc = try_local(r, hint_group, true, &any);
	if (rc == -ENOSPC && strict.run > 1 && r->n < ALLOC_GROUPS_MAX)
		rc = try_hinted(r, &any);
	if (rc == -ENOSPC)
		rc = try_all(r, &any);
	if (rc == -ENOSPC && any.busy_seen && fs->jnl) {
		/* What this node freed itself becomes free with the commit. */
		rc = jnl_commit(fs->jnl, 0);
		if (!rc)
			rc = try_held(r, &any);
		if (rc == -ENOSPC)
			rc = try_all(r, &any);
	}
	if (rc == -ENOSPC && any.held_elsewhere)
		return -EAGAIN;
	if (rc == -ENOSPC && any.corrupt)
		return any.corrupt;
	return rc;
}

static int cmp_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int alloc_call_groups(struct csvfs *fs, const uint32_t *group, uint32_t n)
{
	int rc = 0;

	for (uint32_t i = 0; i < n && !rc; i++) {
		struct glock_holder gh;

		rc = glock_get(fs, OWN_GROUP(group[i]), DLM_EX, 0, &gh);
		if (!rc)
			glock_put(&gh);
	}
	return rc;
}

int alloc_lock_groups(struct alloc_resv *r, const uint32_t *group, uint32_t n)
{
	uint32_t want[ALLOC_GROUPS_MAX], k = 0;
	int rc;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = 0;

		csv_assertf(group[i] < r->fs->geo.groups, "group %u of %u", group[i], r->fs->geo.groups);
		while (j < k && want[j] != group[i])
			j++;
		if (j < k)
			continue;
		if (k == ALLOC_GROUPS_MAX)
			return -E2BIG;
		want[k++] = group[i];
	}
	qsort(want, k, sizeof(want[0]), cmp_u32);
	for (uint32_t i = 0; i < k; i++) {
		uint32_t j = 0;

		while (j < r->n && r->g[j].group != want[i])
			j++;
		if (j == r->n) {
			rc = group_lock(r, want[i], may_wait_for(r, want[i]) ? 0 : GLOCK_NOQUEUE, NULL);
			if (rc)
				return rc;
		}
		r->g[j].frees = true;
	}
	return 0;
}

uint32_t alloc_credits(const struct alloc_resv *r, uint32_t runs)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < r->n && runs; i++) {
		const struct alloc_group *g = &r->g[i];
		uint32_t all = (uint32_t)csv_div_round_up(csv_group_blocks(&r->fs->geo, g->group), CSV_BITMAP_BLOCKS_COVERED);
		/* A run of n blocks lies in at most 2 + n / covered bitmaps; how long freed runs are is not known here. */
		uint64_t some = 2ull * runs + g->promised_total / CSV_BITMAP_BLOCKS_COVERED;

		sum += 1 + (g->frees ? all : (uint32_t)csv_min((uint64_t)all, some));
	}
	return sum;
}

/* ---- asking ------------------------------------------------------------------------------------------------------------------------- */

int alloc_state(struct csvfs *fs, uint64_t blk, enum csv_blk_state *ret_state)
{
	struct csv_bitmap_pos pos;
	struct glock_holder gh;
	struct buf *b;
	int rc;

	if (!csv_bitmap_pos(&fs->geo, blk, &pos))
		return -EINVAL;
	rc = glock_get(fs, OWN_GROUP(pos.group), DLM_PR, 0, &gh);
	if (rc)
		return rc;
	rc = buf_read(fs, csv_bitmap_blk(&fs->geo, pos.group, pos.bitmap), OWN_GROUP(pos.group), CSV_MAGIC_BITMAP, &b);
	if (!rc) {
		*ret_state = csv_bits_get(((struct csv_bitmap *)buf_data(b))->bits, pos.entry);
		buf_put(fs, b);
	}
	glock_put(&gh);
	return rc;
}
