/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * alloc_glock.c - what hangs off the glock of a group: numbers, busy blocks, value block; and the allocator's own beginning and end.
 *
 * Busy blocks (A2).  Two nodes side by side, without the wait in before_release():
 *
 *	node 1 frees block b (inode A), commit pending	|
 *	group lock leaves				| takes group, allocates b for B, writes B's data in place
 *	power lost before the commit			|
 *	replay: A still owns b				| B's data in A
 *
 * (jnl_release() orders the commit before the lock leaves; the wait also makes sure that the callback ran, so nothing refers to
 * this memory.)
 */
#include <errno.h>
#include <stdlib.h>

#include "csvfs/alloc_internal.h"

int alloc_init(struct csvfs *fs)
{
	struct alloc_ctl *a = calloc(1, sizeof(*a));
	uint32_t groups = fs->geo.groups, sums = (uint32_t)csv_div_round_up(groups, SUMMARY_GROUPS);

	if (!a)
		return -ENOMEM;
	a->hint = calloc(groups, sizeof(*a->hint));
	a->summary = calloc(sums, sizeof(*a->summary));
	waitq_init(&a->count_wq);
	if (!a->hint || !a->summary) {
		free(a->hint);
		free(a->summary);
		free(a);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < sums; i++)
		a->summary[i] = UINT32_MAX;
	CDS_INIT_LIST_HEAD(&a->local);
	a->home = UINT32_MAX;		/* the slot is known later */
	fs->alloc = a;
	return 0;
}

void alloc_done(struct csvfs *fs)
{
	struct group_mem *m, *next;

	if (!fs->alloc)
		return;
	cds_list_for_each_entry_safe(m, next, &fs->alloc->local, local_node)
		cds_list_del_init(&m->local_node);
	free(fs->alloc->hint);
	free(fs->alloc->summary);
	free(fs->alloc);
	fs->alloc = NULL;
}

struct group_mem *group_mem_get(struct glock *gl)
{
	struct group_mem *m = gl->obj;

	if (m)
		return m;
	m = calloc(1, sizeof(*m));
	if (!m)
		return NULL;
	m->fs = gl->fs;
	m->gl = gl;
	m->group = (uint32_t)gl->owner.id;
	m->blocks = csv_group_blocks(&gl->fs->geo, m->group);
	m->cursor = CSV_GROUP_FIRST_FREE;
	CDS_INIT_LIST_HEAD(&m->busy);
	CDS_INIT_LIST_HEAD(&m->local_node);
	gl->obj = m;
	return m;
}

static void group_mem_unlocal(struct group_mem *m)
{
	if (cds_list_empty(&m->local_node))
		return;
	cds_list_del_init(&m->local_node);
	m->fs->alloc->hint[m->group].local = false;
	m->fs->alloc->n_local--;
}

void group_mem_local(struct group_mem *m)
{
	group_mem_unlocal(m);
	cds_list_add(&m->local_node, &m->fs->alloc->local);
	m->fs->alloc->hint[m->group].local = true;
	m->fs->alloc->n_local++;
}

static bool group_in_range(const struct glock *gl)
{
	return gl->fs->alloc && gl->owner.id < gl->fs->geo.groups;
}

/* Fresh from the lock manager: what the last holder said. */
static void group_granted(struct glock *gl, enum dlm_mode mode, const uint8_t *lvb, bool lvb_valid)
{
	const struct csv_lvb_group *v = (const struct csv_lvb_group *)lvb;
	struct group_mem *m = gl->obj;
	uint32_t blocks;

	if (!group_in_range(gl))
		return;
	if (m)
		m->loaded = false;
	gl->fs->alloc->hint[gl->owner.id].exact = false;
	if (!lvb_valid || le32_get(v->version) != CSV_LVB_VERSION)
		return;
	if (m)
		m->lvb_seq = le64_get(v->seq);
	blocks = csv_group_blocks(&gl->fs->geo, (uint32_t)gl->owner.id);
	if (le32_get(v->free_blk) <= blocks && le32_get(v->largest_run) <= blocks)
		hint_set(gl->fs, (uint32_t)gl->owner.id, le32_get(v->free_blk), le32_get(v->largest_run), mode == DLM_EX);
}

static void group_before_release(struct glock *gl, enum dlm_mode to)
{
	struct group_mem *m = gl->obj;

	(void)to;
	while (m && !cds_list_empty(&m->busy) && gl->fs->jnl) {
		if (jnl_commit(gl->fs->jnl, 0))
			return;		/* withdrawn: the lock does not leave by a release */
		coro_yield(gl->fs->env->sched);
	}
}

static void group_fill_lvb(struct glock *gl, uint8_t *lvb)
{
	struct csv_lvb_group *v = (struct csv_lvb_group *)lvb;
	struct group_mem *m = gl->obj;

	if (!m || !m->loaded)
		return;			/* we changed nothing: the value block stays as it came */
	memset(lvb, 0, DLM_LVB_LEN);
	le32_set(&v->version, CSV_LVB_VERSION);
	le32_set(&v->free_blk, m->free_blk);
	le32_set(&v->largest_run, m->largest_run);
	le64_set(&v->seq, ++m->lvb_seq);
}

static void group_inval(struct glock *gl, enum dlm_mode to)
{
	struct group_mem *m = gl->obj;

	if (!group_in_range(gl) || to == DLM_EX)
		return;
	gl->fs->alloc->hint[gl->owner.id].exact = false;
	if (!m)
		return;
	csv_assertf(cds_list_empty(&m->busy), "group %u leaves with %u busy blocks", m->group, m->busy_blk);
	if (m->loaded)
		hint_set(gl->fs, m->group, m->free_blk, m->largest_run, false);
	m->loaded = false;
	group_mem_unlocal(m);
}

void busy_epochs_drop(struct group_mem *m)
{
	struct busy_epoch *e, *next;

	cds_list_for_each_entry_safe(e, next, &m->busy, node) {
		cds_list_del(&e->node);
		free(e);
	}
	free(m->spare);
	m->spare = NULL;
	m->busy_blk = 0;
}

/* With epochs left only when everything is forgotten, as by a crash: the journal then calls nobody any more. */
static void group_free(struct glock *gl)
{
	struct group_mem *m = gl->obj;

	if (!m)
		return;
	busy_epochs_drop(m);
	if (gl->fs->alloc)
		group_mem_unlocal(m);
	gl->obj = NULL;
	free(m);
}

const struct glock_ops alloc_group_glock_ops = {
	.before_release = group_before_release,
	.fill_lvb = group_fill_lvb,
	.inval = group_inval,
	.granted = group_granted,
	.free = group_free,
};
