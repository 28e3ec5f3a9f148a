/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * publish.c - what of an inode the data plane may do by itself: maps out of the extent tree, and the gate around local exclusive work.
 *
 * Invariants
 *  P1  A map is built and put in force by a coroutine that holds the inode's lock (>= PR, or CW for images), so the tree cannot
 *      change under it; it allows no more than the cached lock mode does (DP4).
 *  P2  A lock leaves the node, or becomes weaker, only after inode_dp_revoke(): gate closed, drained, map gone.
 *      The raw view of an image with a block map rests on vmap as well (vraw.h, VR2).
 *  P3  Exclusive local work (inode_gate_close ... inode_gate_open) ends with no map in force: whoever comes next by the slow path
 *      builds a new one from the tree as it is then.
 */
#include "csvfs/publish.h"

#include <sys/stat.h>

#include "csvfs/dataplane.h"
#include "csvfs/extent.h"
#include "csvfs/vraw.h"

void csvfs_set_dataplane(struct csvfs *fs, struct dp_table *t)
{
	fs->dp = t;
	if (t && fs->state == CSVFS_WITHDRAWN)
		dp_close_all(t, 0);	/* withdrawn before it was there: nothing passes */
}

/* The raw view of an image is one disk with it: the same gate, a map of its own (cut at the disk's size). */
static void each_gate(struct inode *ip, void (*fn)(struct dp_table *t, struct dp_inode *d))
{
	if (ip->dp)
		fn(ip->fs->dp, ip->dp);
	if (ip->dp_raw)
		fn(ip->fs->dp, ip->dp_raw);
}

static void unpublish(struct inode *ip)
{
	if (ip->dp)
		dp_publish_take(ip->fs->dp, ip->dp, NULL);
	if (ip->dp_raw)
		dp_publish_take(ip->fs->dp, ip->dp_raw, NULL);
}

void inode_gate_close(struct inode *ip)
{
	each_gate(ip, dp_gate_close);
}

void inode_gate_open(struct inode *ip)
{
	unpublish(ip);
	each_gate(ip, dp_gate_open);
}

void inode_dp_collect(struct inode *ip)
{
	bool wrote = (ip->dp && dp_take_wrote(ip->dp)) | (ip->dp_raw && dp_take_wrote(ip->dp_raw));

	if (!wrote)
		return;
	ip->pending_mtime_ns = inode_now(ip);
	ip->data_gen++;
}

void inode_dp_revoke(struct inode *ip)
{
	if (!ip->dp && !ip->dp_raw)
		return;
	each_gate(ip, dp_gate_close);
	unpublish(ip);
	inode_dp_collect(ip);
	each_gate(ip, dp_gate_open);
}

void inode_dp_revoke_raw(struct inode *ip)
{
	struct dp_table *t = ip->fs->dp;

	if (!ip->dp_raw)
		return;
	dp_gate_close(t, ip->dp_raw);
	dp_publish_take(t, ip->dp_raw, NULL);
	inode_dp_collect(ip);
	dp_gate_open(t, ip->dp_raw);
}

void inode_dp_free(struct inode *ip)
{
	if (ip->dp)
		dp_inode_free(ip->fs->dp, ip->dp);
	if (ip->dp_raw)
		dp_inode_free(ip->fs->dp, ip->dp_raw);
	ip->dp = ip->dp_raw = NULL;
}

struct build { struct dp_map *m; uint32_t max; };

static int build_add(void *arg, uint64_t off, uint64_t len, uint64_t dev_off)
{
	struct build *b = arg;

	if (b->m->n == b->max)
		return 1;
	b->m->e[b->m->n++] = (struct dp_extent){ off, len, dev_off };
	return 0;
}

bool inode_lock_allows(const struct inode *ip, bool write)
{
	enum dlm_mode m = ip->gl->mode;

	if (m == DLM_EX)
		return true;
	if (ip->flags & CSV_INO_IMAGE)
		return m == DLM_CW;
	return !write && m == DLM_PR;
}

void inode_dp_map_rights(const struct inode *ip, struct dp_map *m, uint64_t size, bool writable)
{
	m->size = size;
	m->may_read = inode_lock_allows(ip, false);
	m->may_write = inode_lock_allows(ip, true) && writable && !(ip->mode & (S_ISUID | S_ISGID)) && !(ip->flags & CSV_INO_IMMUTABLE);
}

/* NULL: not today (out of memory, too many pieces, a block that cannot be read): the slow path goes on serving. */
static struct dp_map *map_build(struct iref *r, uint64_t size)
{
	uint32_t max;

	for (max = 64; max <= DP_EXTENTS_MAX; max *= 8) {
		struct build b = { dp_map_new(max), max };
		int rc;

		if (!b.m)
			return NULL;
		rc = inode_map_range(r, 0, size, build_add, &b);
		if (rc == 0) {
			inode_dp_map_rights(r->ip, b.m, size, true);
			return b.m;
		}
		dp_map_free(b.m);
		if (rc < 0)
			return NULL;
	}
	return NULL;
}

static struct dp_inode *get_dp(struct inode *ip, struct dp_inode **d, uint64_t key)
{
	if (!*d && ip->fs->dp) {
		*d = dp_inode_new(ip->fs->dp, key, ip->gen);
		if (*d)
			dp_gate_open(ip->fs->dp, *d);
	}
	return *d;
}

struct dp_inode *inode_dp_raw(struct inode *ip)
{
	return get_dp(ip, &ip->dp_raw, DP_KEY_RAW | ip->ino);
}

static void publish_one(struct iref *r, struct dp_inode **d, uint64_t key, uint64_t size, bool write)
{
	struct dp_table *t = r->ip->fs->dp;
	struct dp_map *m;

	if (*d && dp_map_allows(*d, write))
		return;
	m = map_build(r, size);
	if (m && get_dp(r->ip, d, key))
		dp_publish_take(t, *d, m);
	else
		dp_map_free(m);
}

void inode_publish(struct iref *r, bool write)
{
	struct inode *ip = r->ip;

	if (!ip->fs->dp || !r->buf || !S_ISREG(ip->mode) || ip->body != CSV_BODY_TREE || !inode_lock_allows(ip, write))
		return;
	if (vraw_is_mapped(ip->vraw))
		return;			/* vraw_page.c */
	publish_one(r, &ip->dp, ip->ino, ip->size, write);
	if (ip->raw_size)
		publish_one(r, &ip->dp_raw, DP_KEY_RAW | ip->ino, ip->raw_size, write);
}
