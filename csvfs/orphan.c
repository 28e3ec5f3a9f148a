/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * orphan.c - orphan trees: inodes without a name that somebody has open, and truncates under way (csvfs_internal.h).
 *
 * Invariants
 *  OR1 An inode with nlink 0 is in exactly one orphan tree, the one inode.orphan_slot names; entry and field change in one transaction.
 *  OR2 `orphan s` is an ordinary cached lock: the owner of slot s uses it most, but whoever closes an orphan last, or recovers the slot,
 *      takes it as well.  The tree of a slot outlives the slot's owner.
 *  OR3 A reaper holds `inode i` EX from reading the entry to removing it, so an entry has one reaper at a time.  It frees only with
 *      `open i` EX, asked for with NOQUEUE (R8): an open handle or the phantom of a lost node's handle refuses it.  Not asked for an inode
 *      that was made here and whose lock has been EX here ever since (inode.alone): nobody elsewhere ever saw it.
 *  OR4 A number in an orphan tree is believed only if the bitmap says inode, and the inode has the entry's generation and names this
 *      slot (R29).  What is not so is logged, left, and fsck's to judge.
 *  OR5 A group that may be elsewhere is awaited before `orphan s` is taken: the group of a lost node comes with its recovery only, and
 *      meanwhile everybody here who removes a file needs `orphan s`.
 *
 * Who reaps: who closes last; after a lost node was replayed, each member its own slot's tree and the coordinator the lost one's; a
 * mount, the trees of its own and all free slots.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "csvfs/inode_pool.h"

#define SCAN_BATCH 64u
#define REAP_PAUSE_EVERY 16u		/* then REAP_PAUSE_MS: reaping never starves the rest */
#define REAP_PAUSE_MS 2u
#define OPEN_TRIES 3u			/* a cached, unused `open` elsewhere goes within a few ms of being asked for */
#define OPEN_TRY_MS 20u
#define LOCK_TRIES 10u
#define REAP_NOW_MAX 8u
#define REAP_NOW_MS 100u		/* so long an unlink waits for the space that it gives back */

struct reap_item { struct cds_list_head node; uint32_t slot; uint64_t ino; /* 0: scan */ };
struct scan { struct csvfs *fs; uint32_t slot; uint32_t n; uint64_t ino[SCAN_BATCH]; };
/* Freed at once after the last link went, beside whoever removed it. */
struct reap_now {
	struct csvfs *fs;		/* NULL: unused */
	uint32_t slot;
	uint64_t ino;
	struct coro *coro;
	bool done, awaited;
	struct waitq wq;
};
struct reaper {
	struct reap_now now[REAP_NOW_MAX];
	unsigned n_now;
	struct cds_list_head items;
	bool running;
	struct coro *coro;		/* NULL: has not begun, or is over */
	struct scan scan;		/* of the one that runs */
};

/* ---- the tree ------------------------------------------------------------------------------------------------------------------- */

static int tree_open(struct csvfs *fs, uint32_t slot, enum dlm_mode mode, struct orphan_ref *o)
{
	const struct csv_inode *d;
	int ret;

	memset(o, 0, sizeof(*o));
	o->fs = fs;
	o->slot = slot;
	csv_assert(slot < fs->geo.slots);
	ret = glock_get(fs, OWN_ORPHAN(slot), mode, 0, &o->gh);
	if (ret < 0)
		return ret;
	ret = buf_read(fs, csv_orphan_blk(&fs->geo, slot), OWN_ORPHAN(slot), CSV_MAGIC_INODE, &o->root);
	if (ret < 0) {
		glock_put(&o->gh);
		return ret;
	}
	d = buf_data(o->root);
	if (!(le32_get(d->flags) & CSV_INO_ORPHANS) || le32_get(d->body) != CSV_BODY_TREE) {
		fs_log(fs, LOG_L_ERR, "block %" PRIu64 " (orphan inode of slot %u): flags 0x%x, body %u: must be an orphan tree; run fsck.csvfs",
		       o->root->jb.blkno, slot, le32_get(d->flags), le32_get(d->body));
		orphan_unlock(o);
		return -CSV_E_CORRUPT;
	}
	o->bt = (struct btree){ .fs = fs, .root = o->root, .area_off = offsetof(struct csv_inode, body_bytes), .area_len = CSV_BODY_BYTES,
				.owner = OWN_ORPHAN(slot), .kind = CSV_BT_ORPHANS, .blocks = &o->blocks };
	return 0;
}

int orphan_lock(struct csvfs *fs, uint32_t slot, struct orphan_ref *ret_o)
{
	return tree_open(fs, slot, DLM_EX, ret_o);
}

void orphan_unlock(struct orphan_ref *o)
{
	if (!o->gh.gl)
		return;
	buf_put(o->fs, o->root);
	o->root = NULL;
	glock_put(&o->gh);
}

uint32_t orphan_credits(const struct orphan_ref *o)
{
	return bt_credits(&o->bt, 1) + 1;
}

uint32_t orphan_revokes(const struct orphan_ref *o)
{
	return bt_freed_nodes(&o->bt, 1);
}

uint32_t orphan_new_blocks(const struct orphan_ref *o)
{
	return bt_new_nodes(&o->bt, 1);
}

int orphan_groups(struct orphan_ref *o, uint64_t ino, uint32_t *group, uint32_t *inout_n, uint32_t max)
{
	return bt_path_groups(&o->bt, ino, group, inout_n, max);
}

/* What the tree took or gave, into the orphan inode. */
static void tree_account(struct orphan_ref *o, struct jnl_handle *h)
{
	struct csv_inode *d;

	if (!o->blocks)
		return;
	buf_dirty(h, o->root);
	d = buf_data(o->root);
	le64_set(&d->blocks, le64_get(d->blocks) + (uint64_t)o->blocks);
	o->blocks = 0;
}

int orphan_add(struct orphan_ref *o, struct alloc_resv *resv, struct jnl_handle *h, uint64_t ino, uint32_t gen,
	       enum csv_orphan_kind kind, uint64_t target)
{
	struct csv_orphan v = { 0 };
	int ret;

	le32_set(&v.gen, gen);
	le32_set(&v.kind, kind);
	le64_set(&v.target, target);
	o->bt.resv = resv;
	ret = bt_insert(&o->bt, h, ino, &v, sizeof(v));
	if (!ret)
		tree_account(o, h);
	return ret;
}

int orphan_del(struct orphan_ref *o, struct alloc_resv *resv, struct jnl_handle *h, uint64_t ino)
{
	int ret;

	o->bt.resv = resv;
	ret = bt_delete(&o->bt, h, ino);
	if (!ret)
		tree_account(o, h);
	return ret;
}

struct entry { uint64_t ino; uint32_t gen, kind; uint64_t target; };

static int entry_decode(struct csvfs *fs, uint32_t slot, const struct bt_item *it, struct entry *ret)
{
	const struct csv_orphan *v = (const void *)it->val;
	struct entry e;

	if (it->len != sizeof(*v)) {
		fs_log(fs, LOG_L_ERR, "orphan tree of slot %u: entry %" PRIu64 ": %u bytes, must be %zu; run fsck.csvfs", slot, it->key, it->len,
		       sizeof(*v));
		return -CSV_E_CORRUPT;
	}
	e = (struct entry){ it->key, le32_get(v->gen), le32_get(v->kind), le64_get(v->target) };
	if (!csv_blk_is_allocatable(&fs->geo, e.ino) || !e.gen || (e.kind != CSV_ORPHAN_UNLINKED && e.kind != CSV_ORPHAN_TRUNCATE) ||
	    e.target > CSV_FILE_SIZE_MAX) {
		fs_log(fs, LOG_L_ERR, "orphan tree of slot %u: entry %" PRIu64 ": gen %u, kind %u, target %" PRIu64 ": not possible; run fsck.csvfs",
		       slot, e.ino, e.gen, e.kind, e.target);
		return -CSV_E_CORRUPT;
	}
	*ret = e;
	return 0;
}

/* -ENOENT: not there (any more). */
static int entry_find(struct csvfs *fs, uint32_t slot, uint64_t ino, struct entry *ret)
{
	struct orphan_ref o;
	struct bt_item it;
	int rc = tree_open(fs, slot, DLM_PR, &o);

	if (rc < 0)
		return rc;
	rc = bt_lookup(&o.bt, ino, &it);
	if (!rc)
		rc = entry_decode(fs, slot, &it, ret);
	orphan_unlock(&o);
	return rc;
}

/* ---- reaping one -------------------------------------------------------------------------------------------------------------------- */

/* The last transaction: the entry goes, and with it the inode (unlinked) or its mark (truncate).  `inode i` EX is held. */
static int finish(struct csvfs *fs, uint32_t slot, const struct entry *e, struct iref *r)
{
	bool unlinked = e->kind == CSV_ORPHAN_UNLINKED;
	uint32_t group[ALLOC_GROUPS_MAX], n = 0;
	struct alloc_resv resv;
	struct orphan_ref o;
	struct jnl_handle h;
	int ret = 0;

	if (unlinked) {
		group[n++] = alloc_group_of(fs, e->ino);
		ret = alloc_call_groups(fs, group, n);	/* OR5 */
	}
	if (!ret)
		ret = orphan_lock(fs, slot, &o);
	if (ret < 0)
		return ret;
	alloc_resv_init(fs, &resv);
	ret = orphan_groups(&o, e->ino, group, &n, ALLOC_GROUPS_MAX);
	if (!ret && n)
		ret = alloc_lock_groups(&resv, group, n);
	if (!ret && unlinked)
		ret = alloc_may_give(&resv, e->ino, 1, CSV_BLK_INODE);
	if (!ret)
		ret = op_begin(fs, orphan_credits(&o) + alloc_credits(&resv, 1 + orphan_revokes(&o)) + 1, 1 + orphan_revokes(&o), &h);
	if (ret < 0)
		goto out;
	ret = orphan_del(&o, &resv, &h, e->ino);
	if (!ret && unlinked) {
		ret = alloc_give(&resv, &h, e->ino, 1, CSV_BLK_INODE);
		if (!ret) {
			inode_forget(fs, e->ino);
			buf_forget_take(fs, &h, r->buf);
			r->buf = NULL;
		}
	} else if (!ret && r->ip->orphan_slot == slot) {
		inode_dirty(&h, r);
		r->ip->orphan_slot = CSV_NO_SLOT;
		inode_store(r);
	}
	if (ret < 0)
		ret = op_broken(fs, e->ino, "freeing an orphan", ret);
	op_end(fs, &h);
out:
	alloc_resv_done(&resv);
	orphan_unlock(&o);
	return ret;
}

/* OR4 */
static int entry_matches(struct csvfs *fs, uint32_t slot, const struct entry *e, const struct inode *ip)
{
	if (e->kind == CSV_ORPHAN_TRUNCATE || (ip->nlink == 0 && ip->orphan_slot == slot))
		return 0;
	fs_log(fs, LOG_L_ERR, "inode %" PRIu64 ": in the orphan tree of slot %u, but has nlink %u and orphan_slot %u; left alone, run fsck.csvfs",
	       e->ino, slot, ip->nlink, ip->orphan_slot);
	return -CSV_E_CORRUPT;
}

static int reap_locked(struct csvfs *fs, uint32_t slot, const struct entry *e, struct iref *r)
{
	/* The file may have grown again behind what was cut off. */
	uint64_t target = e->kind == CSV_ORPHAN_UNLINKED ? 0 : csv_max(e->target, r->ip->size);
	struct entry now;
	bool done = false;
	int ret = entry_find(fs, slot, e->ino, &now);	/* OR3: it stays now */

	if (ret < 0)
		return ret == -ENOENT ? 0 : ret;
	if (now.gen != e->gen || now.kind != e->kind)
		return -EAGAIN;
	ret = entry_matches(fs, slot, e, r->ip);
	while (!ret && !done) {
		if (fs->stopping)
			return -EAGAIN;
		ret = inode_free_blocks_batch(fs, e->ino, target, &done);
	}
	for (unsigned i = 0; !ret && i < LOCK_TRIES; i++) {
		ret = finish(fs, slot, e, r);
		if (ret != -EAGAIN)
			break;
		ret = 0;
	}
	return ret;
}

/*
 * `open i` EX goes at once, under `inode i` EX: an open file here would find it cached and rest on it, and other nodes' openers would wait
 * for its last close.
 */
static void open_drop(struct csvfs *fs, struct glock_holder *h)
{
	struct glock *gl = h->gl ? glock_ref(fs, h->gl->owner) : NULL;

	glock_put(h);
	if (gl && fs_check(fs) == 0)
		glock_drop(gl, DLM_NL);
	glock_unref(gl);
}

int orphan_reap(struct csvfs *fs, uint32_t slot, uint64_t ino)
{
	struct iref r = IREF_INIT;
	struct glock_holder open = { .gl = NULL };
	struct entry e;
	bool alone = false;
	int ret = fs_check_write(fs);

	if (!ret)
		ret = entry_find(fs, slot, ino, &e);
	if (ret < 0)
		return ret == -ENOENT ? 0 : ret;
	ret = inode_get(fs, ino, e.gen, DLM_EX, 0, &r);
	if (ret == -ESTALE) {
		if (entry_find(fs, slot, ino, &e) == -ENOENT)
			return 0;	/* somebody else has just freed it */
		fs_log(fs, LOG_L_ERR, "orphan tree of slot %u: entry %" PRIu64 ": no inode of generation %u there; left alone, run fsck.csvfs", slot,
		       ino, e.gen);
		return -CSV_E_CORRUPT;
	}
	if (ret < 0)
		return ret;
	alone = r.ip->alone;
	if (e.kind == CSV_ORPHAN_UNLINKED)
		ret = r.ip->opens ? -EAGAIN : alone ? 0 : glock_get(fs, OWN_OPEN(ino), DLM_EX, GLOCK_NOQUEUE, &open);
	if (!ret)
		ret = reap_locked(fs, slot, &e, &r);
	open_drop(fs, &open);
	/* Whoever made it may make the next there; elsewhere it is in the way, but not worth three flushes of its own. */
	if (!ret && e.kind == CSV_ORPHAN_UNLINKED) {
		if (alone)
			inode_pool_add(fs, ino);
		else
			glock_unwanted(r.gh.gl);
	}
	inode_put(&r);
	return ret;
}

/* ---- background ----------------------------------------------------------------------------------------------------------------------- */

static int scan_item(void *arg, const struct bt_item *it)
{
	struct scan *s = arg;
	struct entry e;

	if (!entry_decode(s->fs, s->slot, it, &e))
		s->ino[s->n++] = e.ino;
	return s->n == SCAN_BATCH;
}

static void reap_patiently(struct csvfs *fs, uint32_t slot, uint64_t ino)
{
	for (unsigned i = 0; i < OPEN_TRIES; i++) {
		int ret = orphan_reap(fs, slot, ino);

		if (ret != -EAGAIN) {
			if (ret < 0 && ret != -CSV_E_CORRUPT && ret != -CSV_E_WITHDRAWN && ret != -EROFS && ret != -EINTR)
				fs_log(fs, LOG_L_WARN, "inode %" PRIu64 ": freeing it after its last close: %s; tried again later", ino,
				       csv_err_describe(ret));
			return;
		}
		if (!fs_sleep_ms(fs, OPEN_TRY_MS << (2 * i)))
			return;
	}
	/* Open somewhere: who closes it last frees it. */
}

static void scan_slot(struct csvfs *fs, uint32_t slot)
{
	struct scan *s = &fs->reaper->scan;
	uint64_t key = 0;
	int ret = 1;

	s->fs = fs;
	s->slot = slot;
	while (ret > 0 && !fs->stopping && fs->state != CSVFS_WITHDRAWN) {
		struct orphan_ref o;

		s->n = 0;
		ret = tree_open(fs, slot, DLM_PR, &o);
		if (ret < 0)
			break;
		ret = bt_walk(&o.bt, key, scan_item, s);
		orphan_unlock(&o);
		for (uint32_t i = 0; i < s->n && fs->state != CSVFS_WITHDRAWN; i++) {
			reap_patiently(fs, slot, s->ino[i]);
			if (i % REAP_PAUSE_EVERY == REAP_PAUSE_EVERY - 1 && !fs_sleep_ms(fs, REAP_PAUSE_MS))
				break;
		}
		if (s->n)
			key = s->ino[s->n - 1] + 1;
	}
}

static void reaper_coro(void *arg)
{
	struct csvfs *fs = arg;
	struct reaper *r = fs->reaper;

	r->coro = sched_self(fs->env->sched);
	while (!cds_list_empty(&r->items) && !fs->stopping && fs->state != CSVFS_WITHDRAWN) {
		struct reap_item it, *p = cds_list_first_entry(&r->items, struct reap_item, node);

		it = *p;
		cds_list_del(&p->node);
		free(p);
		if (it.ino)
			reap_patiently(fs, it.slot, it.ino);
		else
			scan_slot(fs, it.slot);
	}
	r->running = false;
	r->coro = NULL;
	sched_wake_all(fs->env->sched, &fs->state_wq);
}

void orphan_reap_later(struct csvfs *fs, uint32_t slot, uint64_t ino)
{
	struct reaper *r = fs->reaper;
	struct reap_item *p;

	if (!r || slot >= fs->geo.slots || fs->stopping || fs_check_write(fs) < 0)
		return;
	cds_list_for_each_entry(p, &r->items, node) {
		if (p->slot == slot && p->ino == ino)
			return;
	}
	p = malloc(sizeof(*p));
	if (!p)
		return;
	p->slot = slot;
	p->ino = ino;
	cds_list_add_tail(&p->node, &r->items);
	if (!r->running)
		r->running = !fs_spawn(fs, "orphan reaper", reaper_coro, fs);
}

static void now_settle(struct reaper *r, struct reap_now *n)
{
	if (!n->done || n->awaited)
		return;
	n->fs = NULL;
	r->n_now--;
}

static void now_coro(void *arg)
{
	struct reap_now *n = arg;
	struct csvfs *fs = n->fs;

	n->coro = sched_self(fs->env->sched);
	if (orphan_reap(fs, n->slot, n->ino) == -EAGAIN)
		orphan_reap_later(fs, n->slot, n->ino);
	n->coro = NULL;
	n->done = true;
	sched_wake_all(fs->env->sched, &n->wq);
	now_settle(fs->reaper, n);
	sched_wake_all(fs->env->sched, &fs->state_wq);
}

void orphan_reap_now(struct csvfs *fs, uint32_t slot, uint64_t ino)
{
	struct reaper *r = fs->reaper;
	uint64_t end = fs_now_ns(fs) + REAP_NOW_MS * NS_PER_MS;
	struct reap_now *n = r->now;

	if (r->n_now == REAP_NOW_MAX || fs->stopping || fs_check(fs)) {
		orphan_reap_later(fs, slot, ino);
		return;
	}
	while (n->fs)
		n++;
	*n = (struct reap_now){ .fs = fs, .slot = slot, .ino = ino, .awaited = true };
	waitq_init(&n->wq);
	r->n_now++;
	if (fs_spawn(fs, "reap", now_coro, n) < 0) {
		n->done = true;
		orphan_reap_later(fs, slot, ino);
	}
	while (!n->done && fs_now_ns(fs) < end && !fs_check(fs))
		sched_wait_until(fs->env->sched, &n->wq, end, false);
	n->awaited = false;
	now_settle(r, n);
}

void orphan_scan_later(struct csvfs *fs, uint32_t slot)
{
	orphan_reap_later(fs, slot, 0);
}

void reaper_stop(struct csvfs *fs)
{
	/* It may wait for a lock of a lost node, whom nobody here recovers any more. */
	if (fs->reaper->coro)
		sched_cancel(fs->env->sched, fs->reaper->coro);
	for (unsigned i = 0; i < REAP_NOW_MAX; i++)
		if (fs->reaper->now[i].coro)
			sched_cancel(fs->env->sched, fs->reaper->now[i].coro);
	while (fs->reaper->running || fs->reaper->n_now)
		sched_wait(fs->env->sched, &fs->state_wq);
}

int reaper_init(struct csvfs *fs)
{
	struct reaper *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	CDS_INIT_LIST_HEAD(&r->items);
	fs->reaper = r;
	return 0;
}

void reaper_free(struct csvfs *fs)
{
	struct reaper *r = fs->reaper;
	struct reap_item *p, *next;

	if (!r)
		return;
	cds_list_for_each_entry_safe(p, next, &r->items, node)
		free(p);
	free(r);
	fs->reaper = NULL;
}
