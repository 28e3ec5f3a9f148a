/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * alloc_count.c - how much is free on the whole volume: statfs and df.
 *
 * Exact: group after group under its lock; this takes locks from nodes that work.  Approximate: from what is cached here, and for
 * the other groups from their headers as they lie on the disk, read without a lock.  A header at home is never older than what this
 * node knew when it gave the lock away (releasing writes it home), and may lag behind what its present holder has done.  At most
 * COUNT_READS headers are read a call and not more often than every COUNT_EVERY_NS, in turns; groups that nobody looked at yet
 * count as the average of the others.  One call at a time reads; a disk that does not answer is asked no more meanwhile: the other calls
 * tell what was known last.
 */
#include <errno.h>
#include <stdlib.h>

#include "csvfs/alloc_internal.h"

#define COUNT_READS 256u
#define COUNT_EVERY_NS (500 * NS_PER_MS)

static struct group_mem *mem_loaded(struct csvfs *fs, uint32_t group)
{
	struct glock *gl = glock_find(fs, OWN_GROUP(group));
	struct group_mem *m = gl ? gl->obj : NULL;

	return m && m->loaded ? m : NULL;
}

static int count_locked(struct csvfs *fs, uint32_t group, uint64_t *inout_sum)
{
	const struct group_hint *hint = &fs->alloc->hint[group];
	struct group_mem *m = mem_loaded(fs, group);
	struct glock_holder gh;
	struct buf *b;
	int rc;

	if (m) {
		*inout_sum += m->free_blk;
		return 0;
	}
	rc = glock_get(fs, OWN_GROUP(group), DLM_PR, 0, &gh);
	if (rc)
		return rc;
	if (hint->exact) {
		*inout_sum += hint->free_blk;
	} else {
		rc = buf_read(fs, csv_group_start(&fs->geo, group), OWN_GROUP(group), CSV_MAGIC_GROUP, &b);
		if (!rc) {
			uint32_t free_blk = le32_get(((struct csv_group *)buf_data(b))->free_blk);

			free_blk = csv_min(free_blk, csv_group_blocks(&fs->geo, group));
			*inout_sum += free_blk;
			hint_set(fs, group, free_blk, le32_get(((struct csv_group *)buf_data(b))->largest_run), false);
			buf_put(fs, b);
		}
	}
	glock_put(&gh);
	return rc;
}

struct peek {
	struct blk_req req;
	struct csvfs *fs;
	uint32_t group;
	unsigned *left;
	struct completion *done;
};

static void peek_done(struct blk_req *r)
{
	struct peek *p = container_of(r, struct peek, req);
	const struct csv_owner owner = OWN_GROUP(p->group);
	const struct csv_group *d = r->buf;
	struct csvfs *fs = p->fs;
	uint32_t blocks = csv_group_blocks(&fs->geo, p->group);

	if (!r->result && !mem_loaded(fs, p->group) && !fs->alloc->hint[p->group].exact &&
	    !mhdr_check(d, fs->geo.uuid, CSV_MAGIC_GROUP, csv_group_start(&fs->geo, p->group), &owner, NULL) &&
	    le32_get(d->free_blk) <= blocks && le32_get(d->largest_run) <= blocks)
		hint_set(fs, p->group, le32_get(d->free_blk), le32_get(d->largest_run), false);
	if (!--*p->left)
		completion_done(fs->env->sched, p->done, 0);
}

/* A few headers from the disk, all at once; errors and torn blocks leave the hint as it was. */
static int refresh(struct csvfs *fs)
{
	struct alloc_ctl *a = fs->alloc;
	uint32_t n = csv_min(fs->geo.groups, COUNT_READS), k = 0;
	struct peek *peek = calloc(n, sizeof(*peek));
	uint8_t *data = blk_alloc(n * CSV_BLOCK_SIZE);
	struct completion done;
	unsigned left = 1;

	if (!peek || !data) {
		free(peek);
		free(data);
		return -ENOMEM;
	}
	completion_init(&done);
	for (uint32_t i = 0; i < fs->geo.groups && k < n; i++) {
		uint32_t g = a->count_next;

		a->count_next = (g + 1) % fs->geo.groups;
		if (mem_loaded(fs, g) || a->hint[g].exact)
			continue;
		peek[k] = (struct peek){
			.req = { .op = BLK_READ, .off = csv_group_start(&fs->geo, g) * CSV_BLOCK_SIZE, .len = CSV_BLOCK_SIZE,
				 .buf = data + (size_t)k * CSV_BLOCK_SIZE, .done = peek_done },
			.fs = fs, .group = g, .left = &left, .done = &done,
		};
		left++;
		blk_submit(fs->env->blk, &peek[k++].req);
	}
	if (--left)
		completion_wait(fs->env->sched, &done);
	free(peek);
	free(data);
	return 0;
}

int alloc_count_free(struct csvfs *fs, bool exact, uint64_t *ret_free)
{
	struct alloc_ctl *a = fs->alloc;
	uint64_t sum = 0, seen = 0, unseen = 0;
	int rc = 0;

	if (exact) {
		for (uint32_t g = 0; !rc && g < fs->geo.groups; g++)
			rc = count_locked(fs, g, &sum);
		if (!rc)
			*ret_free = sum;
		return rc;
	}
	while (!rc && a->counting && !a->counted_ns)		/* nothing is known yet */
		rc = sched_wait_intr(fs->env->sched, &a->count_wq);
	if (!rc && !a->counting && (!a->counted_ns || fs_now_ns(fs) - a->counted_ns >= COUNT_EVERY_NS)) {
		a->counting = true;
		rc = refresh(fs);
		a->counting = false;
		if (!rc)
			a->counted_ns = fs_now_ns(fs);
		sched_wake_all(fs->env->sched, &a->count_wq);
	}
	if (rc)
		return rc;
	for (uint32_t g = 0; g < fs->geo.groups; g++) {
		struct group_mem *m = a->hint[g].local ? mem_loaded(fs, g) : NULL;
		uint32_t blocks = csv_group_blocks(&fs->geo, g);

		if (!m && !a->hint[g].known) {
			unseen += blocks;
			continue;
		}
		sum += m ? m->free_blk : a->hint[g].free_blk;
		seen += blocks;
	}
	if (unseen && seen)
		sum += (uint64_t)((double)unseen * (double)sum / (double)seen);
	else
		sum += unseen;
	*ret_free = sum;
	return 0;
}
