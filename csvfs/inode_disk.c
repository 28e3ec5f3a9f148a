/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * inode_disk.c - the disk form of an inode and its value block: decode checks every field, encode mirrors it.  Pure, any thread.
 */
#include "csvfs/inode.h"

#include <string.h>
#include <sys/stat.h>

#include "csvfs/inode_table.h"

typedef unsigned long long ull;

/* Everything decoded, before it is believed. */
static int check(const struct inode *n, const struct csv_inode *d, struct csv_err *err)
{
	ull ino = n->ino;
	uint32_t type = n->mode & S_IFMT;

#define BAD(cond, field, val, allowed)                                                                            \
	do {                                                                                                      \
		if (cond)                                                                                         \
			return csv_err_set(err, -CSV_E_CORRUPT, "inode %llu: block %llu: " field " %llu: must be " \
					   allowed, ino, ino, (ull)(val));                                        \
	} while (0)

	BAD(n->gen == 0, "gen", n->gen, "not 0");
	BAD(type != S_IFREG && type != S_IFDIR && type != S_IFLNK && type != S_IFIFO && type != S_IFSOCK &&
	    type != S_IFCHR && type != S_IFBLK, "mode", n->mode, "a file, directory, link, fifo, socket or device");
	BAD(n->mode & ~(S_IFMT | 07777u), "mode", n->mode, "type and permissions only");
	BAD(n->nlink > CSV_LINK_MAX, "nlink", n->nlink, "at most 65000");
	BAD(n->flags & ~CSV_INODE_FLAGS_KNOWN, "flags", n->flags, "of this version (0..7)");
	BAD((n->flags & CSV_INO_IMAGE) && type != S_IFREG, "flags", n->flags, "IMAGE on a regular file only");
	BAD(n->blocks < 0 || (uint64_t)n->blocks > CSV_INO_MAX, "blocks", n->blocks, "less than a volume");
	BAD(n->size > CSV_FILE_SIZE_MAX, "size", n->size, "at most 2^60");
	BAD(n->orphan_slot != CSV_NO_SLOT && n->orphan_slot >= CSV_SLOTS_MAX, "orphan_slot", n->orphan_slot,
	    "a slot or none");
	BAD(n->nlink == 0 && n->orphan_slot == CSV_NO_SLOT && !(n->flags & CSV_INO_ORPHANS), "nlink", n->nlink,
	    "not 0 without a place in an orphan tree");
	BAD(type == S_IFDIR && (n->parent == 0 || n->parent >= CSV_INO_MAX), "parent", n->parent, "an inode");
	BAD(type != S_IFDIR && n->parent != 0, "parent", n->parent, "0 but for directories");
	BAD(type != S_IFCHR && type != S_IFBLK && n->rdev != 0, "rdev", n->rdev, "0 but for devices");
	BAD(n->body > CSV_BODY_TREE, "body", n->body, "none, inline or tree");
	BAD(n->body_len > CSV_BODY_BYTES, "body_len", n->body_len, "at most 3776");
	BAD(n->body != CSV_BODY_INLINE && n->body_len != 0, "body_len", n->body_len, "0 without inline data");
	BAD(n->body != CSV_BODY_TREE && n->blocks != 0, "blocks", n->blocks, "0 without a tree");
	BAD(le64_get(d->xattr_blk) != 0, "xattr_blk", le64_get(d->xattr_blk), "0");

	switch (type) {
	case S_IFREG:
		BAD(n->body == CSV_BODY_INLINE && n->size != n->body_len, "size", n->size, "that of the inline data");
		BAD(n->body == CSV_BODY_NONE && n->size != 0, "size", n->size, "0 without a body");
		BAD((n->flags & CSV_INO_IMAGE) && n->body == CSV_BODY_INLINE, "body", n->body, "not inline for an image");
		break;
	case S_IFDIR:
		BAD(n->body != CSV_BODY_TREE, "body", n->body, "a tree for a directory");
		break;
	case S_IFLNK:
		BAD(n->size == 0 || n->size > CSV_SYMLINK_MAX, "size", n->size, "1..4095 for a symbolic link");
		BAD(n->body == CSV_BODY_NONE, "body", n->body, "inline or tree for a symbolic link");
		BAD(n->body == CSV_BODY_INLINE && n->size != n->body_len, "size", n->size, "that of the inline target");
		break;
	default:
		BAD(n->body != CSV_BODY_NONE && !(n->flags & CSV_INO_ORPHANS), "body", n->body,
		    "none for a device, fifo or socket");
		BAD(n->size != 0 && !(n->flags & CSV_INO_ORPHANS), "size", n->size, "0 for a device, fifo or socket");
		break;
	}
#undef BAD
	return 0;
}

int inode_decode(const struct csv_inode *d, uint64_t ino, struct inode *ret, struct csv_err *err)
{
	struct inode n = { .ino = ino };
	int e;

	n.gen = le32_get(d->gen);
	n.mode = le32_get(d->mode);
	n.uid = le32_get(d->uid);
	n.gid = le32_get(d->gid);
	n.nlink = le32_get(d->nlink);
	n.flags = le32_get(d->flags);
	n.size = le64_get(d->size);
	n.blocks = (int64_t)le64_get(d->blocks);
	n.atime_ns = (int64_t)le64_get(d->atime_ns);
	n.mtime_ns = (int64_t)le64_get(d->mtime_ns);
	n.ctime_ns = (int64_t)le64_get(d->ctime_ns);
	n.btime_ns = (int64_t)le64_get(d->btime_ns);
	n.change = le64_get(d->change);
	n.map_version = le64_get(d->map_version);
	n.parent = le64_get(d->parent);
	n.rdev = le64_get(d->rdev);
	n.orphan_slot = le32_get(d->orphan_slot);
	n.project = le32_get(d->project);
	n.body = le32_get(d->body);
	n.body_len = le32_get(d->body_len);
	e = check(&n, d, err);
	if (e)
		return e;

	ret->gen = n.gen;
	ret->mode = n.mode;
	ret->uid = n.uid;
	ret->gid = n.gid;
	ret->nlink = n.nlink;
	ret->flags = n.flags;
	ret->size = n.size;
	ret->blocks = n.blocks;
	ret->atime_ns = n.atime_ns;
	ret->mtime_ns = n.mtime_ns;
	ret->ctime_ns = n.ctime_ns;
	ret->btime_ns = n.btime_ns;
	ret->change = n.change;
	ret->map_version = n.map_version;
	ret->parent = n.parent;
	ret->rdev = n.rdev;
	ret->orphan_slot = n.orphan_slot;
	ret->project = n.project;
	ret->body = n.body;
	ret->body_len = n.body_len;
	ret->has_body = true;
	return 0;
}

void inode_encode(const struct inode *ip, struct csv_inode *ret)
{
	le32_set(&ret->gen, ip->gen);
	le32_set(&ret->mode, ip->mode);
	le32_set(&ret->uid, ip->uid);
	le32_set(&ret->gid, ip->gid);
	le32_set(&ret->nlink, ip->nlink);
	le32_set(&ret->flags, ip->flags);
	le64_set(&ret->size, ip->size);
	le64_set(&ret->blocks, (uint64_t)ip->blocks);
	le64_set(&ret->atime_ns, (uint64_t)ip->atime_ns);
	le64_set(&ret->mtime_ns, (uint64_t)ip->mtime_ns);
	le64_set(&ret->ctime_ns, (uint64_t)ip->ctime_ns);
	le64_set(&ret->btime_ns, (uint64_t)ip->btime_ns);
	le64_set(&ret->change, ip->change);
	le64_set(&ret->map_version, ip->map_version);
	le64_set(&ret->parent, ip->parent);
	le64_set(&ret->rdev, ip->rdev);
	le32_set(&ret->orphan_slot, ip->orphan_slot);
	le32_set(&ret->project, ip->project);
	le32_set(&ret->body, ip->body);
	le32_set(&ret->body_len, ip->body_len);
}

void inode_to_lvb(const struct inode *ip, struct csv_lvb_inode *ret)
{
	le32_set(&ret->version, CSV_LVB_VERSION);
	le32_set(&ret->gen, ip->gen);
	le64_set(&ret->size, ip->size);
	le64_set(&ret->mtime_ns, (uint64_t)ip->mtime_ns);
	le64_set(&ret->ctime_ns, (uint64_t)ip->ctime_ns);
	le64_set(&ret->atime_ns, (uint64_t)ip->atime_ns);
	le64_set(&ret->change, ip->change);
	le64_set(&ret->map_version, ip->map_version);
	le64_set(&ret->blocks, (uint64_t)ip->blocks);
	le64_set(&ret->rdev, ip->rdev);
	le64_set(&ret->btime_ns, (uint64_t)ip->btime_ns);
	le32_set(&ret->mode, ip->mode);
	le32_set(&ret->nlink, ip->nlink);
	le32_set(&ret->uid, ip->uid);
	le32_set(&ret->gid, ip->gid);
	le32_set(&ret->flags, ip->flags);
	le32_set(&ret->reserved, 0);
}

void inode_from_lvb(const struct csv_lvb_inode *l, struct inode *ip)
{
	/* From a peer: an impossible value only means that the block has to be read. */
	if (le32_get(l->version) != CSV_LVB_VERSION || le32_get(l->gen) == 0 ||
	    (int64_t)le64_get(l->blocks) < 0 || (le32_get(l->flags) & ~CSV_INODE_FLAGS_KNOWN))
		return;
	ip->gen = le32_get(l->gen);
	ip->mode = le32_get(l->mode);
	ip->uid = le32_get(l->uid);
	ip->gid = le32_get(l->gid);
	ip->nlink = le32_get(l->nlink);
	ip->flags = le32_get(l->flags);
	ip->size = le64_get(l->size);
	ip->blocks = (int64_t)le64_get(l->blocks);
	ip->atime_ns = (int64_t)le64_get(l->atime_ns);
	ip->mtime_ns = (int64_t)le64_get(l->mtime_ns);
	ip->ctime_ns = (int64_t)le64_get(l->ctime_ns);
	ip->btime_ns = (int64_t)le64_get(l->btime_ns);
	ip->change = le64_get(l->change);
	ip->map_version = le64_get(l->map_version);
	ip->rdev = le64_get(l->rdev);
	ip->has_body = false;
	ip->loaded = ip->verified = true;
}
