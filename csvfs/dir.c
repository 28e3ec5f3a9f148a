/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dir.c - directories: finding, listing, looking up.  Invariants in dir.h.
 */
#include "csvfs/dir.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "utils/base/siphash.h"

typedef unsigned long long ull;

#define COOKIE_DOT 1u
#define COOKIE_DOTDOT 2u
#define PARENT_TRIES 16

uint64_t dir_key(const uint8_t hash_key[static 16], const char *name, size_t len)
{
	uint64_t h = csv_siphash(hash_key, name, len) >> 9;

	return (h ? h : 1) << 8;
}

int dir_decode(const struct csv_geom *g, uint64_t dir, const struct bt_item *it, struct dir_entry *ret, struct csv_err *err)
{
	struct csv_dirent d;
	struct dir_entry e = { .key = it->key };

#define BAD(cond, field, val, allowed)                                                                        \
	do {                                                                                                  \
		if (cond)                                                                                     \
			return csv_err_set(err, -CSV_E_CORRUPT,                                               \
					   "inode %llu: entry %#llx: " field " %llu: must be " allowed,       \
					   (ull)dir, (ull)it->key, (ull)(val));                               \
	} while (0)

	BAD(it->len <= sizeof(d), "length of the value", it->len, "a header and a name");
	memcpy(&d, it->val, sizeof(d));
	e.ino = le64_get(d.ino);
	e.gen = le32_get(d.gen);
	e.type = d.type;
	e.name_len = d.name_len;
	BAD(e.name_len == 0 || e.name_len != it->len - sizeof(d), "name_len", e.name_len, "what the value holds");
	memcpy(e.name, it->val + sizeof(d), e.name_len);
	BAD(memchr(e.name, '/', e.name_len) || memchr(e.name, 0, e.name_len), "name", e.name_len, "without '/' and NUL");
	BAD(!strcmp(e.name, ".") || !strcmp(e.name, ".."), "name", e.name_len, "other than . and ..");
	BAD(it->key >> 63 || (it->key & ~255ull) != dir_key(g->hash_key, e.name, e.name_len), "key", it->key,
	    "the hash of the name");
	BAD(!csv_blk_is_allocatable(g, e.ino) || e.ino >= CSV_INO_MAX || e.ino == dir, "ino", e.ino,
	    "an inode in a group, not the directory itself");
	BAD(e.gen == 0, "gen", e.gen, "not 0");
	switch (e.type << 12) {
	case S_IFREG: case S_IFDIR: case S_IFLNK: case S_IFIFO: case S_IFSOCK: case S_IFCHR: case S_IFBLK:
		break;
	default:
		BAD(true, "type", e.type, "a file type");
	}
#undef BAD
	*ret = e;
	return 0;
}

int dir_name_check(const char *name, size_t *ret_len)
{
	size_t len = strnlen(name, CSV_NAME_MAX + 1);

	if (len > CSV_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || memchr(name, '/', len))
		return -EINVAL;
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return -EEXIST;
	*ret_len = len;
	return 0;
}

/* ---- finding ------------------------------------------------------------------------------------------------------------------ */

static int decode(struct csvfs *fs, uint64_t dir, const struct bt_item *it, struct dir_entry *ret)
{
	struct csv_err err = CSV_ERR_INIT;
	int e = dir_decode(&fs->geo, dir, it, ret, &err);

	if (e)
		fs_log(fs, LOG_L_ERR, "%s; run fsck.csvfs", err.text);
	return e;
}

struct find {
	struct csvfs *fs;
	uint64_t dir, base, next;	/* lowest index not seen in use */
	const char *name;
	size_t len;
	struct dir_entry *ret;
};

#define FOUND 1
#define PAST 2

static int find_fn(void *arg, const struct bt_item *it)
{
	struct find *f = arg;
	int err;

	if ((it->key & ~255ull) != f->base)
		return PAST;
	err = decode(f->fs, f->dir, it, f->ret);
	if (err)
		return err;
	if (f->ret->name_len == f->len && !memcmp(f->ret->name, f->name, f->len))
		return FOUND;
	if (it->key == f->next)
		f->next++;
	return 0;
}

int dir_find(struct iref *dir, const char *name, struct dir_entry *ret)
{
	struct csvfs *fs = dir->ip->fs;
	struct find f = { .fs = fs, .dir = dir->ip->ino, .name = name, .len = strlen(name), .ret = ret };
	struct btree t;
	int err;

	f.base = f.next = dir_key(fs->geo.hash_key, name, f.len);
	inode_tree(dir, CSV_BT_DIR, NULL, &t);
	err = bt_walk(&t, f.base, find_fn, &f);
	if (err == FOUND)
		return 0;
	if (err < 0 && err != -ENOENT)
		return err;
	if (f.next - f.base > 255)
		return -ENOSPC;
	ret->key = f.next;
	return -ENOENT;
}

/* ---- changing ------------------------------------------------------------------------------------------------------------------- */

static uint32_t encode(uint8_t *ret_val, const char *name, uint64_t ino, uint32_t gen, uint8_t type)
{
	struct csv_dirent d = { .type = type };
	size_t len = strlen(name);

	csv_assert(len && len <= CSV_NAME_MAX);
	le64_set(&d.ino, ino);
	le32_set(&d.gen, gen);
	d.name_len = (uint8_t)len;
	memcpy(ret_val, &d, sizeof(d));
	memcpy(ret_val + sizeof(d), name, len);
	return (uint32_t)(sizeof(d) + len);
}

int dir_new_nodes(struct iref *dir, uint64_t key, const char *name, uint32_t *ret_n)
{
	struct btree t;
	int fits;

	inode_tree(dir, CSV_BT_DIR, NULL, &t);
	fits = bt_insert_fits(&t, key, (uint32_t)(sizeof(struct csv_dirent) + strlen(name)));
	if (fits < 0)
		return fits;
	*ret_n = fits ? 0 : bt_new_nodes(&t, 1);
	return 0;
}

int dir_insert(struct btree *t, struct jnl_handle *h, uint64_t key, const char *name, uint64_t ino, uint32_t gen, uint8_t type)
{
	uint8_t val[CSV_BT_VALUE_MAX];
	uint32_t len = encode(val, name, ino, gen, type);

	return bt_insert(t, h, key, val, len);
}

int dir_replace(struct btree *t, struct jnl_handle *h, uint64_t key, const char *name, uint64_t ino, uint32_t gen, uint8_t type)
{
	uint8_t val[CSV_BT_VALUE_MAX];
	uint32_t len = encode(val, name, ino, gen, type);

	return bt_replace(t, h, key, val, len);
}

/* ---- lookup ------------------------------------------------------------------------------------------------------------------------ */

/*
 * The parent of a directory.  Its lock comes before the child's, so it is found under the child's lock, taken, and the child asked
 * again; a rename in between starts over.
 */
static int lookup_parent(struct csvfs *fs, uint64_t dir, uint32_t gen, struct csvfs_attr *ret)
{
	for (int i = 0; i < PARENT_TRIES; i++) {
		struct iref d = IREF_INIT, p = IREF_INIT;
		uint64_t parent;
		int err;

		err = inode_get(fs, dir, gen, DLM_PR, 0, &d);
		if (err)
			return err;
		parent = d.ip->parent;
		err = !S_ISDIR(d.ip->mode) ? -ENOTDIR : d.ip->nlink == 0 ? -ENOENT : 0;
		if (!err && parent == dir)
			inode_to_attr(d.ip, ret);
		inode_put(&d);
		if (err || parent == dir)
			return err;
		err = inode_get(fs, parent, 0, DLM_PR, 0, &p);
		if (err == -ESTALE)
			continue;
		if (err)
			return err;
		err = inode_get(fs, dir, gen, DLM_PR, 0, &d);
		if (err) {
			inode_put(&p);
			return err;
		}
		if (d.ip->parent == parent && d.ip->nlink)
			inode_to_attr(p.ip, ret);
		else
			parent = 0;
		inode_put(&d);
		inode_put(&p);
		if (parent)
			return 0;
	}
	return -ESTALE;
}

int csvfs_lookup(struct csvfs *fs, uint64_t dir, uint32_t gen, const char *name, struct csvfs_attr *ret)
{
	struct iref d = IREF_INIT, r = IREF_INIT;
	struct dir_entry e;
	size_t len;
	int err;

	err = dir_name_check(name, &len);
	if (err == -EEXIST)
		return name[1] ? lookup_parent(fs, dir, gen, ret) : csvfs_getattr(fs, dir, gen, ret);
	if (err)
		return err;
	err = inode_get(fs, dir, gen, DLM_PR, 0, &d);
	if (err)
		return err;
	err = !S_ISDIR(d.ip->mode) ? -ENOTDIR : d.ip->nlink == 0 ? -ENOENT : dir_find(&d, name, &e);
	if (err == -ENOSPC)
		err = -ENOENT;
	if (err)
		goto out;
	err = inode_get(fs, e.ino, e.gen, DLM_CR, INODE_ATTR | INODE_TRUSTED, &r);
	if (err == -ESTALE) {
		fs_log(fs, LOG_L_ERR, "inode %llu: entry \"%s\" names inode %llu generation %u, which is not there; run fsck.csvfs",
		       (ull)dir, e.name, (ull)e.ino, e.gen);
		err = -CSV_E_CORRUPT;
	}
	if (err)
		goto out;
	inode_to_attr(r.ip, ret);
	inode_put(&r);
out:
	inode_put(&d);
	return err;
}

/* ---- listing ------------------------------------------------------------------------------------------------------------------------ */

struct list {
	struct csvfs *fs;
	uint64_t dir;
	bool (*fn)(void *arg, const struct csvfs_dirent *e);
	void *arg;
	struct dir_entry e;
};

static int list_fn(void *arg, const struct bt_item *it)
{
	struct list *l = arg;
	struct csvfs_dirent out;
	int err = decode(l->fs, l->dir, it, &l->e);

	if (err)
		return err;
	out = (struct csvfs_dirent){ .cookie = it->key, .ino = l->e.ino, .gen = l->e.gen, .type = l->e.type,
				     .name_len = l->e.name_len, .name = l->e.name };
	return l->fn(l->arg, &out) ? 0 : FOUND;
}

int csvfs_readdir(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t cookie, bool (*fn)(void *arg, const struct csvfs_dirent *e),
		  void *arg)
{
	struct list l = { .fs = fs, .dir = ino, .fn = fn, .arg = arg };
	struct csvfs_dirent out = { .type = S_IFDIR >> 12 };
	struct iref d = IREF_INIT;
	struct btree t;
	int err;

	err = inode_get(fs, ino, gen, DLM_PR, 0, &d);
	if (err)
		return err;
	err = S_ISDIR(d.ip->mode) ? 0 : -ENOTDIR;
	/* A removed directory that is still open has nothing in it, not even "." (POSIX). */
	if (err || d.ip->nlink == 0)
		goto out;
	if (cookie < COOKIE_DOT) {
		out = (struct csvfs_dirent){ COOKIE_DOT, ino, d.ip->gen, S_IFDIR >> 12, 1, "." };
		if (!fn(arg, &out))
			goto out;
	}
	if (cookie < COOKIE_DOTDOT) {
		out = (struct csvfs_dirent){ COOKIE_DOTDOT, d.ip->parent, 0, S_IFDIR >> 12, 2, ".." };
		if (!fn(arg, &out))
			goto out;
	}
	if (cookie == UINT64_MAX)
		goto out;
	inode_tree(&d, CSV_BT_DIR, NULL, &t);
	err = bt_walk(&t, csv_max(cookie, (uint64_t)COOKIE_DOTDOT) + 1, list_fn, &l);
	if (err == FOUND || err == -ENOENT)
		err = 0;
out:
	inode_put(&d);
	return err;
}
