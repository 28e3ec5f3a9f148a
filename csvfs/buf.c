/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * buf.c - cache of metadata blocks (buf.h).
 *
 * A block is in the hash table from the start of its read until it is evicted or its owner's lock goes.  Unpinned and clean blocks
 * are on the LRU list; unpinned and busy ones come back to it from the journal's clean().  The cache may exceed its limit when
 * everything in it is pinned or busy: refusing would mean failing in the middle of a transaction.
 *
 *	state		hashed	pins	uptodate  where
 *	reading		yes	>= 1	no	  readers wait on b->io
 *	in use		yes	>= 1	yes	  owner list of its glock
 *	cached		yes	0	yes	  + LRU, unless busy for the journal
 *	failed		no	>= 1	no	  the last reader frees it (BC3: failures are not cached)
 *
 * A membership change does nothing here: what is cached stays under its lock.
 */
#include "csvfs/buf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "csvfs/csvfs_internal.h"

#define BUF_LIMIT 16384u		/* 64 MiB */
#define BUF_HASH_MIN 1024u

struct buf_cache {
	struct buf **hash;
	uint32_t size;			/* power of 2 */
	uint32_t count, limit;
	struct cds_list_head lru;	/* oldest first */
	uint64_t hits, misses;
};

static uint32_t hash_of(const struct buf_cache *c, uint64_t blkno)
{
	return (uint32_t)((blkno * 0x9e3779b97f4a7c15ull) >> 40) & (c->size - 1);
}

static struct buf *hash_find(const struct buf_cache *c, uint64_t blkno)
{
	struct buf *b = c->hash[hash_of(c, blkno)];

	while (b && b->jb.blkno != blkno)
		b = b->hash_next;
	return b;
}

static void hash_grow(struct buf_cache *c)
{
	struct buf **old = c->hash;
	uint32_t old_size = c->size;

	if (c->count < c->size)
		return;
	c->hash = calloc((size_t)old_size * 2, sizeof(*c->hash));
	if (!c->hash) {			/* slower, not wrong */
		c->hash = old;
		return;
	}
	c->size = old_size * 2;
	for (uint32_t i = 0; i < old_size; i++) {
		for (struct buf *b = old[i], *next; b; b = next) {
			uint32_t h = hash_of(c, b->jb.blkno);

			next = b->hash_next;
			b->hash_next = c->hash[h];
			c->hash[h] = b;
		}
	}
	free(old);
}

static void hash_add(struct buf_cache *c, struct buf *b)
{
	uint32_t h;

	hash_grow(c);
	h = hash_of(c, b->jb.blkno);
	b->hash_next = c->hash[h];
	c->hash[h] = b;
	b->hashed = true;
	c->count++;
}

static void hash_del(struct buf_cache *c, struct buf *b)
{
	struct buf **at = &c->hash[hash_of(c, b->jb.blkno)];

	while (*at != b)
		at = &(*at)->hash_next;
	*at = b->hash_next;
	b->hashed = false;
	c->count--;
}

static void lru_del(struct buf *b)
{
	cds_list_del_init(&b->lru_node);
}

/* Out of all lists; the memory stays. */
static void buf_unlink(struct buf_cache *c, struct buf *b)
{
	if (b->hashed)
		hash_del(c, b);
	lru_del(b);
	cds_list_del_init(&b->owner_node);
}

static void buf_destroy(struct buf *b)
{
	free(b->jb.data);
	free(b);
}

static void cache_trim(struct buf_cache *c)
{
	while (c->count > c->limit && !cds_list_empty(&c->lru)) {
		struct buf *b = cds_list_first_entry(&c->lru, struct buf, lru_node);

		csv_assert(!b->pins && !jnl_buf_busy(&b->jb));		/* BC4 */
		buf_unlink(c, b);
		buf_destroy(b);
	}
}

static void buf_clean(struct jnl_buf *jb)
{
	struct buf *b = container_of(jb, struct buf, jb);

	if (b->pins || !b->hashed || !cds_list_empty(&b->lru_node))
		return;
	cds_list_add_tail(&b->lru_node, &b->fs->bufs->lru);
	cache_trim(b->fs->bufs);
}

static struct buf *buf_alloc(struct csvfs *fs, uint64_t blkno, struct csv_owner owner, struct glock *gl)
{
	struct buf *b = calloc(1, sizeof(*b));
	void *data = b ? blk_alloc(CSV_BLOCK_SIZE) : NULL;

	if (!data) {
		free(b);
		return NULL;
	}
	jnl_buf_init(&b->jb, blkno, data, owner);
	b->jb.clean = buf_clean;
	b->fs = fs;
	b->gl = gl;
	b->pins = 1;
	waitq_init(&b->io);
	CDS_INIT_LIST_HEAD(&b->lru_node);
	CDS_INIT_LIST_HEAD(&b->owner_node);
	hash_add(fs->bufs, b);
	if (gl)
		cds_list_add_tail(&b->owner_node, &gl->bufs);
	cache_trim(fs->bufs);
	return b;
}

/* BC1; the superblock alone is read without a lock. */
static struct glock *owner_glock(struct csvfs *fs, struct csv_owner owner)
{
	struct glock *gl;

	if (owner.type == CSV_OWN_MOUNT)
		return NULL;
	gl = glock_find(fs, owner);
	csv_assertf(gl && gl->mode >= DLM_CR, "block of %s %" PRIu64 " used without its lock", mhdr_owner_name(owner.type), owner.id);
	return gl;
}

/* Fills a block that is in the hash as `reading`. */
static int buf_fill(struct csvfs *fs, struct buf *b, struct csv_owner owner, uint32_t magic)
{
	struct csv_err err = CSV_ERR_INIT;
	int ret = blk_read(fs->env->blk, b->jb.blkno << CSV_BLOCK_SHIFT, b->jb.data, CSV_BLOCK_SIZE);

	if (ret == -ERANGE)
		ret = csv_err_set(&err, -CSV_E_CORRUPT, "block %" PRIu64 " (%s of %s %" PRIu64 "): lies behind the end of the volume",
				  b->jb.blkno, mhdr_magic_name(magic), mhdr_owner_name(owner.type), owner.id);
	else if (ret < 0)
		csv_err_set(&err, ret, "block %" PRIu64 ": read: %s", b->jb.blkno, csv_err_describe(ret));
	else
		ret = mhdr_check(b->jb.data, fs->geo.uuid, magic, b->jb.blkno, &owner, &err);
	if (ret < 0 && ret != -CSV_E_WITHDRAWN)
		fs_log(fs, LOG_L_ERR, "%s%s", err.text, ret == -CSV_E_CORRUPT ? "; unmount everywhere and run fsck.csvfs" : "");
	return ret;
}

int buf_read(struct csvfs *fs, uint64_t blkno, struct csv_owner owner, uint32_t magic, struct buf **ret_buf)
{
	struct buf_cache *c = fs->bufs;
	struct glock *gl = owner_glock(fs, owner);
	struct buf *b = hash_find(c, blkno);
	int ret;

	if (b && b->uptodate && !csv_owner_eq(b->jb.owner, owner)) {
		/* Two structures claim one block: what is cached was verified for its owner, so the caller's pointer is wrong. */
		fs_log(fs, LOG_L_ERR, "block %" PRIu64 " (%s): owner %s %" PRIu64 ", must be %s %" PRIu64 "; unmount everywhere and run fsck.csvfs",
		       blkno, mhdr_magic_name(magic), mhdr_owner_name(b->jb.owner.type), b->jb.owner.id, mhdr_owner_name(owner.type),
		       owner.id);
		return -CSV_E_CORRUPT;
	}
	if (!b) {
		c->misses++;
		b = buf_alloc(fs, blkno, owner, gl);
		if (!b)
			return -ENOMEM;
		b->reading = true;
		ret = buf_fill(fs, b, owner, magic);
		b->reading = false;
		if (ret < 0) {
			b->error = ret;
			buf_unlink(c, b);
		} else {
			b->uptodate = true;
		}
		sched_wake_all(fs->env->sched, &b->io);
	} else {
		c->hits++;
		b->pins++;
		lru_del(b);
		while (b->reading)
			sched_wait(fs->env->sched, &b->io);
	}
	if (b->error) {
		ret = b->error;
		if (!--b->pins)
			buf_destroy(b);
		return ret;
	}
	if (le32_get(((struct csv_mhdr *)b->jb.data)->magic) != magic || !csv_owner_eq(b->jb.owner, owner)) {
		fs_log(fs, LOG_L_ERR, "block %" PRIu64 ": is a %s, must be a %s of %s %" PRIu64 "; unmount everywhere and run fsck.csvfs", blkno,
		       mhdr_magic_name(le32_get(((struct csv_mhdr *)b->jb.data)->magic)), mhdr_magic_name(magic),
		       mhdr_owner_name(owner.type), owner.id);
		buf_put(fs, b);
		return -CSV_E_CORRUPT;
	}
	*ret_buf = b;
	return 0;
}

int buf_new(struct csvfs *fs, struct jnl_handle *h, uint64_t blkno, struct csv_owner owner, uint32_t magic, uint64_t generation,
	    struct buf **ret_buf)
{
	struct glock *gl = owner_glock(fs, owner);
	struct buf *b = hash_find(fs->bufs, blkno);

	if (b) {
		/* An earlier life read without changing it (a peek at a candidate).  In use it cannot be: the bitmap said free. */
		if (b->pins || jnl_buf_busy(&b->jb)) {
			fs_log(fs, LOG_L_ERR, "block %" PRIu64 ": allocated while in use by %s %" PRIu64 "; unmount everywhere and run fsck.csvfs", blkno,
			       mhdr_owner_name(b->jb.owner.type), b->jb.owner.id);
			return -CSV_E_CORRUPT;
		}
		buf_unlink(fs->bufs, b);
		buf_destroy(b);
	}
	b = buf_alloc(fs, blkno, owner, gl);
	if (!b)
		return -ENOMEM;
	memset(b->jb.data, 0, CSV_BLOCK_SIZE);
	mhdr_init(b->jb.data, magic, blkno, generation, owner);
	b->uptodate = true;
	buf_dirty(h, b);
	*ret_buf = b;
	return 0;
}

void buf_put(struct csvfs *fs, struct buf *b)
{
	if (!b)
		return;
	csv_assert(b->pins);
	if (--b->pins || !b->hashed)
		return;
	if (!jnl_buf_busy(&b->jb)) {
		cds_list_add_tail(&b->lru_node, &fs->bufs->lru);
		cache_trim(fs->bufs);
	}
}

void buf_dirty(struct jnl_handle *h, struct buf *b)
{
	csv_assert(b->pins && b->uptodate);
	csv_assertf(!b->gl || b->gl->mode == DLM_EX, "block %" PRIu64 " of %s %" PRIu64 " changed under %s", b->jb.blkno,
		    mhdr_owner_name(b->jb.owner.type), b->jb.owner.id, dlm_mode_name(b->gl->mode));	/* BC2 */
	jnl_dirty(h, &b->jb);
}

void buf_forget_take(struct csvfs *fs, struct jnl_handle *h, struct buf *b)
{
	csv_assertf(b->pins == 1, "block %" PRIu64 " freed with %u pins", b->jb.blkno, b->pins);
	jnl_revoke(h, &b->jb);
	csv_assert(!jnl_buf_busy(&b->jb));
	buf_unlink(fs->bufs, b);
	buf_destroy(b);
}

void buf_drop_owner(struct csvfs *fs, struct csv_owner owner)
{
	struct glock *gl = glock_find(fs, owner);
	struct buf *b, *next;

	if (!gl)
		return;
	cds_list_for_each_entry_safe(b, next, &gl->bufs, owner_node) {
		csv_assertf(!b->pins && !jnl_buf_busy(&b->jb), "block %" PRIu64 " of %s %" PRIu64 ": %u pins, busy %d, while its lock goes",
			    b->jb.blkno, mhdr_owner_name(owner.type), owner.id, b->pins, jnl_buf_busy(&b->jb));
		buf_unlink(fs->bufs, b);
		buf_destroy(b);
	}
}

int buf_cache_init(struct csvfs *fs)
{
	struct buf_cache *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->size = BUF_HASH_MIN;
	c->limit = BUF_LIMIT;
	c->hash = calloc(c->size, sizeof(*c->hash));
	if (!c->hash) {
		free(c);
		return -ENOMEM;
	}
	CDS_INIT_LIST_HEAD(&c->lru);
	fs->bufs = c;
	return 0;
}

void buf_cache_free(struct csvfs *fs)
{
	struct buf_cache *c = fs->bufs;

	if (!c)
		return;
	for (uint32_t i = 0; i < c->size; i++) {
		for (struct buf *b = c->hash[i], *next; b; b = next) {
			next = b->hash_next;
			buf_destroy(b);
		}
	}
	free(c->hash);
	free(c);
	fs->bufs = NULL;
}
