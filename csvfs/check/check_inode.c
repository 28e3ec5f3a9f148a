/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * check_inode.c - inodes: from the root and the orphan trees to all that hangs on them; bodies, entries, links.
 *
 * An inode is loaded when the first entry names it and put into the queue; its body is walked from the queue, so depth costs no
 * stack.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "csvfs/check/check_internal.h"
#include "csvfs/extent.h"

#define NAME_TEXT 32
static const char *inode_name(uint64_t ino, char ret[static NAME_TEXT])
{
	snprintf(ret, NAME_TEXT, "inode %" PRIu64, ino);
	return ret;
}

/* ---- loading ------------------------------------------------------------------------------------------------------------ */

static void queue_push(struct ck *c, struct ck_inode *i)
{
	if (c->queue_n == c->queue_cap) {
		uint64_t cap = c->queue_cap ? 2 * c->queue_cap : 1024;
		struct ck_inode **q = realloc(c->queue, cap * sizeof(*q));

		if (!q) {
			ck_fatal(c, -ENOMEM, "out of memory for %" PRIu64 " inodes", cap);
			return;
		}
		c->queue = q;
		c->queue_cap = cap;
	}
	c->queue[c->queue_n++] = i;
}

static void count_kind(struct ck *c, uint32_t mode)
{
	if (S_ISREG(mode))
		c->res->files++;
	else if (S_ISDIR(mode))
		c->res->dirs++;
	else
		c->res->others++;
}

/* NULL: no memory, or unreadable (fatal).  An inode that is not in order is returned with `bad`. */
static struct ck_inode *inode_load(struct ck *c, uint64_t ino, const char *who)
{
	struct csv_owner owner = { CSV_OWN_INODE, ino };
	struct ck_inode *i = ck_table_get(&c->inodes, ino);
	struct csv_err err = CSV_ERR_INIT;
	struct inode n = { .ino = ino };
	char name[NAME_TEXT];

	if (i || c->fatal)
		return i;
	i = calloc(1, sizeof(*i));
	if (!i || ck_table_put(&c->inodes, ino, i) < 0) {
		free(i);
		ck_fatal(c, -ENOMEM, "out of memory for an inode");
		return NULL;
	}
	i->ino = ino;
	i->in_orphans = CSV_NO_SLOT;
	i->orphan_slot = CSV_NO_SLOT;
	i->bad = true;
	if (!ck_mark(c, ino, 1, CSV_BLK_INODE, who) || !ck_read_meta(c, ino, CSV_MAGIC_INODE, owner, c->buf, who))
		return c->fatal ? NULL : i;
	if (inode_decode(c->buf, ino, &n, &err) < 0) {
		ck_finding(c, "%s", err.text);
		return i;
	}
	if (n.flags & CSV_INO_ORPHANS)
		ck_finding(c, "%s: field flags = %u: ORPHANS is for orphan inodes only", inode_name(ino, name), n.flags);
	if (!ck_all_zero(((struct csv_inode *)c->buf)->reserved, sizeof(((struct csv_inode *)0)->reserved)))
		ck_finding(c, "%s: field reserved: must be 0", inode_name(ino, name));
	i->bad = false;
	i->gen = n.gen;
	i->mode = n.mode;
	i->nlink = n.nlink;
	i->size = n.size;
	i->parent = n.parent;
	i->orphan_slot = n.orphan_slot;
	count_kind(c, n.mode);
	queue_push(c, i);
	return i;
}

/* ---- extents --------------------------------------------------------------------------------------------------------------- */

struct ext_state { uint64_t next, blocks; };

static bool extent_item(struct ck *c, struct ck_tree *t, const struct bt_item *it)
{
	struct ext_state *s = t->arg;
	const struct csv_extent *e = (const void *)it->val;
	uint64_t phys = le64_get(e->phys), len = le32_get(e->len);
	uint32_t flags = le32_get(e->flags);

#define BAD(bad, field, v, fmt, ...)                                                                                               \
	do {                                                                                                                       \
		if (bad) {                                                                                                         \
			ck_finding(c, "%s: extent at %" PRIu64 ": field " field " = %" PRIu64 ": must be " fmt, t->name, it->key,  \
				   (uint64_t)(v), ##__VA_ARGS__);                                                                  \
			return true;                                                                                               \
		}                                                                                                                  \
	} while (0)
	BAD(len < 1 || len > CSV_GROUP_BLOCKS, "len", len, "1..%u", CSV_GROUP_BLOCKS);
	BAD(it->key < s->next, "key", it->key, "at least %" PRIu64 ", where the extent before ends", s->next);
	BAD(it->key > EXT_LBLK_END || len > EXT_LBLK_END - it->key, "key", it->key, "below the largest file size");
	BAD(!csv_run_is_allocatable(&c->g, phys, len), "phys", phys, "%" PRIu64 " blocks inside one group", len);
	if (flags & ~CSV_EXT_FLAGS_KNOWN)
		ck_finding(c, "%s: extent at %" PRIu64 ": field flags = 0x%x: must be 0 or %u", t->name, it->key, flags, CSV_EXT_FLAGS_KNOWN);
#undef BAD
	s->next = it->key + len;
	s->blocks += len;
	ck_mark(c, phys, len, CSV_BLK_DATA, t->name);
	return true;
}

/* ---- directories ------------------------------------------------------------------------------------------------------------- */

struct dir_state {
	struct ck_inode *dir;
	uint64_t base;			/* names with one hash come one after the other */
	uint32_t n, cap;
	struct dir_name { uint8_t len; char name[CSV_NAME_MAX]; } *same;
};

static bool name_twice(struct ck *c, struct dir_state *s, const struct dir_entry *e)
{
	if ((e->key & ~255ull) != s->base) {
		s->base = e->key & ~255ull;
		s->n = 0;
	}
	for (uint32_t k = 0; k < s->n; k++)
		if (s->same[k].len == e->name_len && !memcmp(s->same[k].name, e->name, e->name_len))
			return true;
	if (s->n == s->cap) {
		struct dir_name *p = realloc(s->same, (s->cap ? 4 * s->cap : 4) * sizeof(*p));

		if (!p)
			return ck_fatal(c, -ENOMEM, "out of memory"), false;
		s->same = p;
		s->cap = s->cap ? 4 * s->cap : 4;
	}
	s->same[s->n].len = e->name_len;
	memcpy(s->same[s->n++].name, e->name, e->name_len);
	return false;
}

/* A name for a terminal. */
static const char *printable(const char *name, char ret[static CSV_NAME_MAX + 1])
{
	uint32_t i;

	for (i = 0; name[i]; i++)
		ret[i] = (unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i];
	ret[i] = 0;
	return ret;
}

static void entry_link(struct ck *c, struct ck_inode *dir, const struct dir_entry *e, const char *who)
{
	char text[CSV_NAME_MAX + 1];
	struct ck_inode *i = inode_load(c, e->ino, who);

	if (!i || i->bad)
		return;
	printable(e->name, text);
	if (i->gen != e->gen)
		ck_finding(c, "%s: entry \"%s\": field gen = %u: inode %" PRIu64 " has %u: must be equal", who, text, e->gen, e->ino, i->gen);
	if ((i->mode & S_IFMT) >> 12 != e->type)
		ck_finding(c, "%s: entry \"%s\": field type = %u: inode %" PRIu64 " has mode 0%o: must be %u", who, text, e->type, e->ino, i->mode,
			   (i->mode & S_IFMT) >> 12);
	i->refs++;
	if (!S_ISDIR(i->mode))
		return;
	dir->subdirs++;
	if (i->ino == c->g.root_ino)
		ck_finding(c, "%s: entry \"%s\": names the root directory: must have no name", who, text);
	else if (i->refs > 1)
		ck_finding(c, "%s: entry \"%s\": directory inode %" PRIu64 " has another name already: must have one", who, text, e->ino);
	else if (i->parent != dir->ino)
		ck_finding(c, "inode %" PRIu64 ": field parent = %" PRIu64 ": must be %" PRIu64 ", which has its entry \"%s\"", e->ino, i->parent,
			   dir->ino, text);
}

static bool dir_item(struct ck *c, struct ck_tree *t, const struct bt_item *it)
{
	struct dir_state *s = t->arg;
	struct csv_err err = CSV_ERR_INIT;
	struct dir_entry e;
	char text[CSV_NAME_MAX + 1];

	if (c->quiet)
		return true;
	s->dir->entries++;
	if (dir_decode(&c->g, s->dir->ino, it, &e, &err) < 0) {
		ck_finding(c, "%s", err.text);
		return true;
	}
	if (le16_get(((const struct csv_dirent *)it->val)->reserved))
		ck_finding(c, "%s: entry \"%s\": field reserved: must be 0", t->name, printable(e.name, text));
	if (name_twice(c, s, &e))
		ck_finding(c, "%s: entry \"%s\": field name: is there twice", t->name, printable(e.name, text));
	entry_link(c, s->dir, &e, t->name);
	return !c->fatal;
}

/* ---- bodies ------------------------------------------------------------------------------------------------------------------- */

static void inline_check(struct ck *c, const struct csv_inode *d, const char *name)
{
	uint32_t len = le32_get(d->body_len), body = le32_get(d->body);

	if (body == CSV_BODY_INLINE && S_ISLNK(le32_get(d->mode)) && memchr(d->body_bytes, 0, len))
		ck_finding(c, "%s: symbolic link: target has a NUL inside its %u bytes: must have none", name, len);
	if (body != CSV_BODY_TREE && !ck_all_zero(d->body_bytes + len, CSV_BODY_BYTES - len))
		ck_finding(c, "%s: bytes behind body_len = %u: must be 0", name, len);
}

static void body_walk(struct ck *c, struct ck_inode *i)
{
	struct csv_inode *d = blk_alloc(CSV_BLOCK_SIZE);
	struct ext_state ext = { 0 };
	struct dir_state dir = { .dir = i };
	char name[NAME_TEXT];
	struct ck_tree t = { .owner = { CSV_OWN_INODE, i->ino }, .kind = CSV_BT_EXTENTS, .name = inode_name(i->ino, name), .root_blk = i->ino,
			     .item = extent_item, .arg = &ext };
	uint64_t blocks;
	bool ok = true;

	if (!d) {
		ck_fatal(c, -ENOMEM, "out of memory");
		return;
	}
	if (ck_read(c, i->ino, d) < 0)
		goto out;
	inline_check(c, d, name);
	if (S_ISDIR(i->mode)) {
		t.kind = CSV_BT_DIR;
		t.item = dir_item;
		t.arg = &dir;
	}
	if (le32_get(d->body) == CSV_BODY_TREE)
		ok = ck_tree_walk(c, &t, d->body_bytes, CSV_BODY_BYTES);
	blocks = t.nodes + ext.blocks;
	if (ok && le64_get(d->blocks) != blocks)
		ck_finding(c, "%s: field blocks = %" PRIu64 ": must be %" PRIu64 " (%" PRIu64 " of data, %" PRIu64 " of its tree)", name,
			   le64_get(d->blocks), blocks, ext.blocks, t.nodes);
	if (!ok && !c->quiet)
		i->bad = true;		/* what follows from its entries is not known */
out:
	free(dir.same);
	free(d);
}

/* ---- orphan trees ---------------------------------------------------------------------------------------------------------------- */

static bool orphan_item(struct ck *c, struct ck_tree *t, const struct bt_item *it)
{
	const struct csv_orphan *o = (const void *)it->val;
	uint32_t kind = le32_get(o->kind), slot = (uint32_t)t->owner.id;
	struct ck_inode *i;

	if (c->quiet)
		return true;
	*(kind == CSV_ORPHAN_TRUNCATE ? &c->res->truncating : &c->res->orphans) += 1;
	if (!csv_blk_is_allocatable(&c->g, it->key)) {
		ck_finding(c, "%s: field key = %" PRIu64 ": must be an inode inside a group", t->name, it->key);
		return true;
	}
	if (kind != CSV_ORPHAN_UNLINKED && kind != CSV_ORPHAN_TRUNCATE) {
		ck_finding(c, "%s: entry %" PRIu64 ": field kind = %u: must be %d or %d", t->name, it->key, kind, CSV_ORPHAN_UNLINKED,
			   CSV_ORPHAN_TRUNCATE);
		return true;
	}
	i = inode_load(c, it->key, t->name);
	if (!i || i->bad)
		return !c->fatal;
	if (i->gen != le32_get(o->gen))
		ck_finding(c, "%s: entry %" PRIu64 ": field gen = %u: the inode has %u: must be equal", t->name, it->key, le32_get(o->gen), i->gen);
	if (i->in_orphans != CSV_NO_SLOT)
		ck_finding(c, "%s: entry %" PRIu64 ": is in the tree of slot %u too: must be in one", t->name, it->key, i->in_orphans);
	i->in_orphans = slot;
	i->truncating = kind == CSV_ORPHAN_TRUNCATE;
	if (i->orphan_slot != slot)
		ck_finding(c, "%s: entry %" PRIu64 ": the inode's field orphan_slot = %u: must be %u", t->name, it->key, i->orphan_slot, slot);
	if (!i->truncating && i->nlink)
		ck_finding(c, "%s: entry %" PRIu64 ": the inode's field nlink = %u: must be 0", t->name, it->key, i->nlink);
	return true;
}

static void orphans_walk(struct ck *c, uint32_t slot)
{
	struct csv_inode *d = blk_alloc(CSV_BLOCK_SIZE);
	uint64_t blkno = csv_orphan_blk(&c->g, slot);
	char name[40];
	struct ck_tree t = { .owner = { CSV_OWN_ORPHAN, slot }, .kind = CSV_BT_ORPHANS, .name = name, .root_blk = blkno, .item = orphan_item };

	snprintf(name, sizeof(name), "orphan tree %u", slot);
	if (!d) {
		ck_fatal(c, -ENOMEM, "out of memory");
		return;
	}
	if (!ck_read_meta(c, blkno, CSV_MAGIC_INODE, t.owner, d, name))
		goto out;
#define FIELD(field, bad, fmt, ...)                                                                                                \
	do {                                                                                                                       \
		if (bad)                                                                                                           \
			ck_finding(c, "%s: block %" PRIu64 ": field " #field " = %" PRIu64 ": must be " fmt, name, blkno,         \
				   (uint64_t)le_any(d->field), ##__VA_ARGS__);                                                     \
	} while (0)
#define le_any(x) _Generic((x), struct le32: le32_any, struct le64: le64_get)(x)
#define le32_any le32_get
	FIELD(flags, le32_get(d->flags) != CSV_INO_ORPHANS, "%d", CSV_INO_ORPHANS);
	FIELD(gen, !le32_get(d->gen), "not 0");
	FIELD(mode, le32_get(d->mode), "0");
	FIELD(body, le32_get(d->body) != CSV_BODY_TREE, "%d", CSV_BODY_TREE);
	FIELD(body_len, le32_get(d->body_len), "0");
	FIELD(orphan_slot, le32_get(d->orphan_slot) != CSV_NO_SLOT, "%u", CSV_NO_SLOT);
	FIELD(parent, le64_get(d->parent), "0");
	FIELD(size, le64_get(d->size), "0");
	FIELD(rdev, le64_get(d->rdev), "0");
	FIELD(xattr_blk, le64_get(d->xattr_blk), "0");
	FIELD(nlink, le32_get(d->nlink) != 1, "1");
	if (!ck_all_zero(d->reserved, sizeof(d->reserved)))
		ck_finding(c, "%s: block %" PRIu64 ": field reserved: must be 0", name, blkno);
	if (le32_get(d->body) == CSV_BODY_TREE && ck_tree_walk(c, &t, d->body_bytes, CSV_BODY_BYTES))
		FIELD(blocks, le64_get(d->blocks) != t.nodes, "%" PRIu64, t.nodes);
#undef FIELD
out:
	free(d);
}

/* ---- all ------------------------------------------------------------------------------------------------------------------------- */

void ck_inodes_walk(struct ck *c)
{
	struct ck_inode *root = inode_load(c, c->g.root_ino, "root directory");
	uint64_t done = 0;

	if (root && !root->bad && !S_ISDIR(root->mode))
		ck_finding(c, "root directory: inode %" PRIu64 ": field mode = 0%o: must be a directory", root->ino, root->mode);
	if (root && !root->bad && root->parent != root->ino)
		ck_finding(c, "root directory: inode %" PRIu64 ": field parent = %" PRIu64 ": must be itself", root->ino, root->parent);
	if (c->g.system_ino)
		inode_load(c, c->g.system_ino, "system directory");
	for (uint32_t s = 0; s < c->g.slots && !c->fatal; s++)
		orphans_walk(c, s);
	while (c->queue_n && !c->fatal) {
		body_walk(c, c->queue[--c->queue_n]);
		if (c->o->progress && ++done % 1000 == 0)
			c->o->progress(c->o->arg, "inodes", done, done + c->queue_n);
	}
}

void ck_inodes_again(struct ck *c)
{
	char name[NAME_TEXT];

	for (uint64_t k = 0; k <= c->inodes.mask && !c->fatal; k++) {
		struct ck_inode *i = c->inodes.e[k].val;

		if (!i)
			continue;
		/* Its own block first; a body that could not be walked before cannot be now. */
		ck_mark(c, i->ino, 1, CSV_BLK_INODE, inode_name(i->ino, name));
		if (i->mode)
			body_walk(c, i);
	}
	for (uint32_t s = 0; s < c->g.slots && !c->fatal; s++)
		orphans_walk(c, s);
}

static void links_check(struct ck *c, const struct ck_inode *i)
{
	char name[NAME_TEXT];
	uint32_t want = i->refs;

	inode_name(i->ino, name);
	if (S_ISDIR(i->mode)) {
		want = i->in_orphans != CSV_NO_SLOT && !i->refs ? 0 : 2 + i->subdirs;
		if (i->size != i->entries)
			ck_finding(c, "%s: field size = %" PRIu64 ": must be %" PRIu64 ", its number of entries", name, i->size, i->entries);
	}
	if (i->nlink != want)
		ck_finding(c, "%s: field nlink = %u: must be %u, %s", name, i->nlink, want,
			   S_ISDIR(i->mode) ? "2 and one a subdirectory" : "the number of its names");
	if (i->nlink == 0 && i->refs)
		ck_finding(c, "%s: field nlink = 0: but it has %u names", name, i->refs);
	if (i->orphan_slot != i->in_orphans && i->in_orphans == CSV_NO_SLOT)
		ck_finding(c, "%s: field orphan_slot = %u: the orphan tree of that slot has no such entry", name, i->orphan_slot);
}

void ck_links_check(struct ck *c)
{
	for (uint64_t k = 0; c->inodes.e && k <= c->inodes.mask; k++)
		if (c->inodes.e[k].val && !((struct ck_inode *)c->inodes.e[k].val)->bad)
			links_check(c, c->inodes.e[k].val);
}
