/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * core_check.h - is the volume in core_world.h's memory consistent?  For unit tests, after an unmount: reads the bare disk, shares no code
 * with what it checks but the layout.  Every block is counted: what no tree reaches must be free, what one reaches must be so once.
 * The checker of fsck.csvfs must find the same: nothing (cc_fsck(); with its replay in memory also directly after a crash).
 */
#ifndef CSVFS_TESTS_UNIT_CORE_CHECK_H
#define CSVFS_TESTS_UNIT_CORE_CHECK_H

#include <sys/stat.h>

#include "csvfs/check/check.h"
#include "tests/unit/core_world.h"

struct cc_inode { uint64_t ino; uint32_t links, subdirs; bool orphan; };
struct cc {
	struct csv_geom g;
	uint8_t *state;			/* per block: what the trees say */
	struct cc_inode *in;
	unsigned n, max;
	uint64_t files, dirs, orphans;
};

static const void *cc_blk(uint64_t blk)
{
	return cw.disk + (blk << CSV_BLOCK_SHIFT);
}

static void cc_use(struct cc *c, uint64_t blk, uint64_t len, uint8_t st, uint64_t by)
{
	for (uint64_t b = blk; b < blk + len; b++) {
		if (!csv_blk_is_allocatable(&c->g, b))
			ck_abort_msg("inode %" PRIu64 " uses block %" PRIu64 ", which is in no group", by, b);
		if (c->state[b] != CSV_BLK_FREE)
			ck_abort_msg("block %" PRIu64 " of inode %" PRIu64 " is used twice", b, by);
		c->state[b] = st;
	}
}

static struct cc_inode *cc_in(struct cc *c, uint64_t ino, bool *ret_new)
{
	*ret_new = false;
	for (unsigned i = 0; i < c->n; i++) {
		if (c->in[i].ino == ino)
			return &c->in[i];
	}
	if (c->n == c->max) {
		c->max = c->max ? 2 * c->max : 64;
		c->in = realloc(c->in, c->max * sizeof(*c->in));
	}
	c->in[c->n] = (struct cc_inode){ .ino = ino };
	*ret_new = true;
	return &c->in[c->n++];
}

struct cc_walk { struct cc *c; uint64_t ino, items, nodes, last_key; bool any; void (*item)(struct cc_walk *w, uint64_t key, const void *val, uint32_t len); uint64_t blocks, end; uint32_t subdirs; };

static void cc_tree(struct cc_walk *w, const uint8_t *area, uint32_t size, int level)
{
	const struct csv_bt_head *h = (const void *)area;
	const struct csv_bt_slot *s = (const void *)(h + 1);

	if (level >= 0)
		ck_assert_msg(le16_get(h->level) == level, "inode %" PRIu64 ": node of level %u where %d belongs", w->ino, le16_get(h->level), level);
	for (unsigned i = 0; i < le16_get(h->count); i++) {
		uint64_t key = le64_get(s[i].key);
		const uint8_t *val = area + le16_get(s[i].off);

		ck_assert(le16_get(s[i].off) + le16_get(s[i].len) <= size);
		if (le16_get(h->level) == 0) {
			ck_assert_msg(!w->any || key > w->last_key, "inode %" PRIu64 ": keys out of order", w->ino);
			w->any = true;
			w->last_key = key;
			w->items++;
			w->item(w, key, val, le16_get(s[i].len));
		} else {
			uint64_t child = le64_get(*(const struct le64 *)val);
			const struct csv_btnode *n = cc_blk(child);
			struct csv_err err = CSV_ERR_INIT;

			cc_use(w->c, child, 1, CSV_BLK_META, w->ino);
			ck_assert_msg(!mhdr_check(n, w->c->g.uuid, CSV_MAGIC_BTNODE, child, NULL, &err), "%s", err.text);
			w->nodes++;
			cc_tree(w, n->area, CSV_BT_NODE_AREA, le16_get(h->level) - 1);
		}
	}
}

static void cc_extent(struct cc_walk *w, uint64_t key, const void *val, uint32_t len)
{
	const struct csv_extent *e = val;

	ck_assert_uint_eq(len, sizeof(*e));
	ck_assert_msg(key >= w->end, "inode %" PRIu64 ": extents overlap at %" PRIu64, w->ino, key);
	w->end = key + le32_get(e->len);
	w->blocks += le32_get(e->len);
	cc_use(w->c, le64_get(e->phys), le32_get(e->len), CSV_BLK_DATA, w->ino);
}

static void cc_inode(struct cc *c, uint64_t ino, uint64_t parent, uint32_t gen, uint32_t type, bool orphan);

static void cc_dirent(struct cc_walk *w, uint64_t key, const void *val, uint32_t len)
{
	const struct csv_dirent *d = val;

	(void)key;
	ck_assert_uint_eq(len, sizeof(*d) + d->name_len);
	w->subdirs += d->type == S_IFDIR >> 12;
	cc_inode(w->c, le64_get(d->ino), w->ino, le32_get(d->gen), d->type, false);
}

static void cc_inode(struct cc *c, uint64_t ino, uint64_t parent, uint32_t gen, uint32_t type, bool orphan)
{
	const struct csv_inode *d = cc_blk(ino);
	struct csv_err err = CSV_ERR_INIT;
	uint32_t mode = le32_get(d->mode);
	struct cc_walk w = { .c = c, .ino = ino };
	struct cc_inode *in;
	bool fresh;

	in = cc_in(c, ino, &fresh);
	in->links++;
	in->orphan |= orphan;
	ck_assert_msg(le32_get(d->gen) == gen, "inode %" PRIu64 ": generation %u, its entry says %u", ino, le32_get(d->gen), gen);
	ck_assert_msg(!type || mode >> 12 == type, "inode %" PRIu64 ": mode %o, its entry says %o", ino, mode, type);
	if (!fresh) {
		ck_assert_msg(!S_ISDIR(mode), "directory %" PRIu64 " has two names", ino);
		return;
	}
	cc_use(c, ino, 1, CSV_BLK_INODE, ino);
	ck_assert_msg(!mhdr_check(d, c->g.uuid, CSV_MAGIC_INODE, ino, &(struct csv_owner){ CSV_OWN_INODE, ino }, &err), "%s", err.text);
	if (S_ISDIR(mode)) {
		c->dirs++;
		ck_assert_msg(orphan || le64_get(d->parent) == parent, "directory %" PRIu64 ": parent %" PRIu64 ", must be %" PRIu64, ino,
			      le64_get(d->parent), parent);
		w.item = cc_dirent;
		cc_tree(&w, d->body_bytes, CSV_BODY_BYTES, -1);
		ck_assert_msg(w.items == le64_get(d->size), "directory %" PRIu64 ": size %" PRIu64 ", entries %" PRIu64, ino, le64_get(d->size),
			      w.items);
		for (unsigned i = 0; i < c->n; i++) {
			if (c->in[i].ino == ino)
				c->in[i].subdirs = w.subdirs;
		}
	} else {
		c->files++;
		if (le32_get(d->body) == CSV_BODY_TREE) {
			w.item = cc_extent;
			cc_tree(&w, d->body_bytes, CSV_BODY_BYTES, -1);
		}
	}
	ck_assert_msg(w.nodes + w.blocks == le64_get(d->blocks), "inode %" PRIu64 ": blocks %" PRIu64 ", holds %" PRIu64, ino,
		      le64_get(d->blocks), w.nodes + w.blocks);
}

static void cc_orphan(struct cc_walk *w, uint64_t key, const void *val, uint32_t len)
{
	const struct csv_orphan *o = val;
	const struct csv_inode *d = cc_blk(key);

	ck_assert_uint_eq(len, sizeof(*o));
	w->c->orphans++;
	ck_assert_msg(le32_get(d->orphan_slot) == w->ino, "orphan %" PRIu64 ": slot %u, is in the tree of %" PRIu64, key,
		      le32_get(d->orphan_slot), w->ino);
	if (le32_get(o->kind) == CSV_ORPHAN_UNLINKED)
		cc_inode(w->c, key, 0, le32_get(o->gen), 0, true);
}

/* ---- the checker ---------------------------------------------------------------------------------------------------------------- */

static char cc_lines[4096];

static void cc_report(void *arg, enum check_level level, const char *line)
{
	size_t at = strlen(cc_lines);

	(void)arg;
	if (level == CHECK_ERROR)
		snprintf(cc_lines + at, sizeof(cc_lines) - at, "%s\n", line);
}

static void cc_fsck_coro(void *arg)
{
	struct cw_node *n = arg;
	struct check_options o = { .report = cc_report };
	struct csv_err err = CSV_ERR_INIT;
	struct check_result r;

	cc_lines[0] = 0;
	ck_assert_msg(check_volume(&n->blk, &o, &r, &err) == 0, "check: %s", err.text);
	ck_assert_msg(r.errors == 0, "fsck.csvfs -n finds %" PRIu64 " errors:\n%s", r.errors, cc_lines);
	n->done = true;
}

/* On a node of its own (the last); nothing may be mounted, but slots may be active. */
static csv_unused void cc_fsck(void)
{
	cw_boot(CW_NODES);
	cw_do(CW_NODES, cc_fsck_coro);
	cw_off(CW_NODES, false);
}

/* Fails the test with what is wrong.  Returns the number of orphans. */
static uint64_t cc_check(void)
{
	struct csv_err err = CSV_ERR_INIT;
	struct cc c = { .n = 0 };
	uint64_t orphans;

	ck_assert_msg(!csv_super_decode(cc_blk(CSV_SB_BLOCK), CSV_SB_BLOCK, 0, 0, &c.g, &err), "%s", err.text);
	c.state = calloc(c.g.total_blk, 1);
	cc_inode(&c, c.g.root_ino, c.g.root_ino, le32_get(((const struct csv_inode *)cc_blk(c.g.root_ino))->gen), S_IFDIR >> 12, false);
	for (uint32_t s = 0; s < c.g.slots; s++) {
		const struct csv_inode *d = cc_blk(csv_orphan_blk(&c.g, s));
		struct cc_walk w = { .c = &c, .ino = s, .item = cc_orphan };

		cc_tree(&w, d->body_bytes, CSV_BODY_BYTES, -1);
	}
	for (unsigned i = 0; i < c.n; i++) {
		const struct csv_inode *d = cc_blk(c.in[i].ino);
		uint32_t want = c.in[i].orphan ? 0 : S_ISDIR(le32_get(d->mode)) ? 2 + c.in[i].subdirs : c.in[i].links;

		ck_assert_msg(le32_get(d->nlink) == want, "inode %" PRIu64 ": nlink %u, must be %u", c.in[i].ino, le32_get(d->nlink), want);
	}
	for (uint32_t g = 0; g < c.g.groups; g++) {
		const struct csv_group *h = cc_blk(csv_group_start(&c.g, g));
		uint32_t nfree = 0, inodes = 0;

		for (uint32_t i = CSV_GROUP_FIRST_FREE; i < csv_group_blocks(&c.g, g); i++) {
			uint64_t b = csv_group_start(&c.g, g) + i;
			struct csv_bitmap_pos p;
			const struct csv_bitmap *m;
			unsigned st;

			csv_assert(csv_bitmap_pos(&c.g, b, &p));
			m = cc_blk(csv_bitmap_blk(&c.g, p.group, p.bitmap));
			st = csv_bits_get(m->bits, p.entry);
			if (st != c.state[b])
				ck_abort_msg("block %" PRIu64 ": the bitmap says %s, the trees %s", b, csv_blk_state_name(st),
					     csv_blk_state_name(c.state[b]));
			nfree += st == CSV_BLK_FREE;
			inodes += st == CSV_BLK_INODE;
		}
		ck_assert_msg(le32_get(h->free_blk) == nfree, "group %u: free_blk %u, must be %u", g, le32_get(h->free_blk), nfree);
		ck_assert_msg(le32_get(h->inodes) == inodes, "group %u: inodes %u, must be %u", g, le32_get(h->inodes), inodes);
	}
	orphans = c.orphans;
	free(c.state);
	free(c.in);
	cc_fsck();
	return orphans;
}

#endif
