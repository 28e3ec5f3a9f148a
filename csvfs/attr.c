/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * attr.c - attributes of inodes and of the volume.  Permission is the kernel's business (default_permissions).
 */
#include "csvfs/fmap.h"

#include <errno.h>
#include <sys/stat.h>

#include "csvfs/publish.h"

int csvfs_getattr(struct csvfs *fs, uint64_t ino, uint32_t gen, struct csvfs_attr *ret)
{
	struct iref r;
	int err;

	/* CR: a writer elsewhere writes its times back and keeps a shared mode; nobody's in-place I/O is disturbed (R7). */
	err = inode_get(fs, ino, gen, DLM_CR, INODE_ATTR, &r);
	if (err)
		return err;
	inode_dp_collect(r.ip);
	inode_to_attr(r.ip, ret);
	inode_put(&r);
	return 0;
}

uint32_t inode_killed_mode(const struct inode *ip)
{
	uint32_t mode = ip->mode;

	if (S_ISDIR(mode))
		return mode;
	return mode & ~(uint32_t)(S_ISUID | (mode & S_IXGRP ? S_ISGID : 0));
}

struct change { const struct csvfs_attr *set; uint32_t mask; };

static void apply(struct iref *r, void *arg)
{
	const struct change *c = arg;
	struct inode *ip = r->ip;
	int64_t now;

	if (c->mask & CSVFS_SET_KILLPRIV)
		ip->mode = inode_killed_mode(ip);
	if (c->mask & CSVFS_SET_MODE)
		ip->mode = (ip->mode & S_IFMT) | (c->set->mode & 07777);
	if (c->mask & CSVFS_SET_UID)
		ip->uid = c->set->uid;
	if (c->mask & CSVFS_SET_GID)
		ip->gid = c->set->gid;
	inode_touch(ip, INODE_T_CTIME);
	now = ip->ctime_ns;
	if (c->mask & (CSVFS_SET_ATIME | CSVFS_SET_ATIME_NOW))
		ip->atime_ns = c->mask & CSVFS_SET_ATIME_NOW ? now : c->set->atime_ns;
	if (c->mask & (CSVFS_SET_MTIME | CSVFS_SET_MTIME_NOW)) {
		ip->mtime_ns = c->mask & CSVFS_SET_MTIME_NOW ? now : c->set->mtime_ns;
		ip->pending_mtime_ns = 0;
	}
}

int csvfs_setattr(struct csvfs *fs, uint64_t ino, uint32_t gen, const struct csvfs_attr *set, uint32_t mask, struct csvfs_attr *ret)
{
	struct iref r;
	int err;

	err = fs_check_write(fs);
	if (!err)
		err = inode_get(fs, ino, gen, DLM_EX, 0, &r);
	if (err)
		return err;
	if (r.ip->flags & CSV_INO_IMMUTABLE)
		err = -EPERM;
	else if (mask & CSVFS_SET_SIZE && !S_ISREG(r.ip->mode))
		err = S_ISDIR(r.ip->mode) ? -EISDIR : -EINVAL;
	if (!err) {
		inode_gate_close(r.ip);
		inode_dp_collect(r.ip);
		if (mask & CSVFS_SET_SIZE)
			err = trunc_set_size(&r, set->size);
		if (!err && mask & ~(CSVFS_SET_SIZE | CSVFS_SET_CTIME))
			err = fmap_change(&r, apply, &(struct change){ set, mask });
		inode_gate_open(r.ip);
	}
	if (!err)
		inode_to_attr(r.ip, ret);
	inode_put(&r);
	return err;
}

int csvfs_statfs(struct csvfs *fs, struct csvfs_statfs *ret)
{
	uint64_t nfree, total = 0, reserved;
	int err;

	err = fs_check(fs);
	if (!err)
		err = alloc_count_free(fs, false, &nfree);
	if (err)
		return err;
	for (uint32_t g = 0; g < fs->geo.groups; g++)
		total += csv_group_blocks(&fs->geo, g) - CSV_GROUP_FIRST_FREE;
	reserved = csv_min(alloc_reserved_blocks(fs), nfree);
	*ret = (struct csvfs_statfs){ .blocks = total, .bfree = nfree, .bavail = nfree - reserved, .files = total, .ffree = nfree,
				      .bsize = CSV_BLOCK_SIZE, .namelen = CSV_NAME_MAX };
	return 0;
}
