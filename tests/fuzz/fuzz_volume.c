/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuzz_volume.c - blocks of metadata of a volume that the core has made, with one of everything, changed where they have fields and their
 * checksum put right.  Decoded alone (inode, extent, dir), and as they are met: by who mounts the volume and uses it, and by the checker.
 *
 * What is changed is a window of a block (its head, its tree's slots, or anywhere); the rest of the block is as it was.
 */
#define CW_BYTES (160ull << 20)		/* one short group: what takes time is groups */
#define CV_BIG_BYTES (40ull << 20)
#include "tests/unit/check_volume.h"

#include "csvfs/btree_internal.h"
#include "csvfs/dir.h"
#include "csvfs/extent.h"
#include "tests/fuzz/fuzz.h"

#define KINDS 10u
#define BLOCKS_MAX 2000u
#define UNDO_MAX 20000u

static const uint32_t magics[KINDS] = { CSV_MAGIC_INODE, CSV_MAGIC_BTNODE, CSV_MAGIC_GROUP, CSV_MAGIC_BITMAP, CSV_MAGIC_SUPER, CSV_MAGIC_SLOT,
					CSV_MAGIC_HBEAT, CSV_MAGIC_JHEAD, CSV_MAGIC_INODE, CSV_MAGIC_BTNODE };

static struct {
	struct { uint64_t blkno[BLOCKS_MAX]; unsigned n; } of[KINDS];
	uint64_t blkno;				/* that of this execution */
	uint32_t off, len;			/* the window */
	uint8_t was[CSV_BLOCK_SIZE];
	struct { uint64_t off; uint32_t len; uint8_t *data; } undo[UNDO_MAX];
	unsigned n_undo;
	bool recording;
} vf;

static void volume_begin(void)
{
	cv_populate();
	for (uint64_t b = 0; b < cv.g.total_blk; b++) {
		uint32_t magic = le32_get(((struct csv_mhdr *)cv_blk(b))->magic);

		for (unsigned k = 0; k < KINDS && magic; k++)
			if (magic == magics[k] && vf.of[k].n < BLOCKS_MAX)
				vf.of[k].blkno[vf.of[k].n++] = b;
	}
	for (unsigned k = 0; k < KINDS; k++)
		csv_assertf(vf.of[k].n, "no block of kind %u in the volume", k);
}

static void volume_end(void)
{
	cv_teardown();
}

static void sample(struct fuzz_input *in, unsigned kind)
{
	const struct csv_mhdr *h;
	uint32_t area = sizeof(struct csv_mhdr);

	vf.blkno = vf.of[kind].blkno[csv_prng_below(in->prng, vf.of[kind].n)];
	memcpy(vf.was, cv_blk(vf.blkno), CSV_BLOCK_SIZE);
	h = (void *)vf.was;
	if (le32_get(h->magic) == CSV_MAGIC_INODE)
		area = offsetof(struct csv_inode, body_bytes);
	else if (le32_get(h->magic) == CSV_MAGIC_BTNODE)
		area = offsetof(struct csv_btnode, area);
	switch (csv_prng_below(in->prng, 4)) {
	case 0:				/* all before the tree or the bits */
	case 1:
		vf.off = 0;
		vf.len = csv_max(area, 160u);
		break;
	case 2:				/* the tree's head and its first slots */
		vf.off = area;
		vf.len = csv_min(256u, (uint32_t)CSV_BLOCK_SIZE - area);
		break;
	default:			/* anywhere; values lie at the end */
		vf.len = 512;
		vf.off = csv_prng_below(in->prng, 2) ? CSV_BLOCK_SIZE - vf.len : csv_prng_below(in->prng, CSV_BLOCK_SIZE - vf.len);
	}
	memcpy(in->b, vf.was + vf.off, vf.len);
	in->len = vf.len;
}

/* The block as it is now, on the volume; its checksum right but for a few. */
static void damage(struct fuzz_input *in)
{
	uint8_t *p = cv_blk(vf.blkno);

	memcpy(p + vf.off, in->b, csv_min((size_t)vf.len, in->len));
	if (csv_prng_chance(in->prng, 15, 16))
		mhdr_seal(p, le32_get(((struct csv_mhdr *)vf.was)->magic) == CSV_MAGIC_SUPER ? NULL : cv.g.uuid);
}

static void repair(void)
{
	memcpy(cv_blk(vf.blkno), vf.was, CSV_BLOCK_SIZE);
}

/* ---- decoders alone ------------------------------------------------------------------------------------------------------------------ */

static bool is_dir(const struct inode *ip)
{
	return S_ISDIR(ip->mode);
}

/* Everything that a checked area holds can be got, and lies inside. */
static void area_walk(struct area a, enum csv_bt_kind kind, uint64_t dir)
{
	struct area_item it[AREA_ITEMS_MAX];
	uint32_t n = area_count(a);
	bool hit;

	csv_assert(n <= AREA_ITEMS_MAX && area_used(a) <= area_room(a) && area_list(a, it) == n);
	for (uint32_t i = 0; i < n; i++) {
		csv_assert(it[i].val >= a.p && it[i].val + it[i].len <= a.p + a.len);
		csv_assert(area_find(a, it[i].key, &hit) == i && hit);
		csv_assert(i == 0 || it[i].key > it[i - 1].key);
		if (area_level(a)) {
			area_child(a, i);
		} else if (kind == CSV_BT_DIR) {
			struct csv_err err = CSV_ERR_INIT;
			struct bt_item item = { .key = it[i].key, .len = it[i].len };
			struct dir_entry e;

			memcpy(item.val, it[i].val, it[i].len);
			if (!dir_decode(&cv.g, dir, &item, &e, &err))
				csv_assert(e.name_len && !e.name[e.name_len] && strlen(e.name) == e.name_len && !strchr(e.name, '/'));
			else
				csv_assert(err.text[0]);
		}
	}
}

static bool inode_run(struct fuzz_input *in)
{
	struct csv_owner owner = { CSV_OWN_INODE, vf.blkno };
	struct csv_err err = CSV_ERR_INIT;
	struct csv_inode *d = malloc(sizeof(*d)), again;
	struct inode ino, back;
	bool taken = false;

	csv_assert(d);
	damage(in);
	memcpy(d, cv_blk(vf.blkno), sizeof(*d));
	repair();
	memset(&ino, 0, sizeof(ino));
	memset(&back, 0, sizeof(back));
	if (mhdr_check(d, cv.g.uuid, CSV_MAGIC_INODE, vf.blkno, &owner, &err) || inode_decode(d, vf.blkno, &ino, &err)) {
		csv_assert(err.text[0]);
	} else {
		taken = true;
		memcpy(&again, d, sizeof(again));
		inode_encode(&ino, &again);
		csv_assertf(!memcmp(&again, d, sizeof(again)), "what was taken is written differently");
		csv_assert(!inode_decode(&again, vf.blkno, &back, &err));
		if (ino.body == CSV_BODY_TREE) {
			enum csv_bt_kind kind = is_dir(&ino) ? CSV_BT_DIR : CSV_BT_EXTENTS;

			if (!bt_area_check(d->body_bytes, sizeof(d->body_bytes), kind, &err))
				area_walk((struct area){ d->body_bytes, sizeof(d->body_bytes) }, kind, vf.blkno);
			else
				csv_assert(err.text[0]);
		}
	}
	free(d);
	return taken;
}

static void inode_sample(struct fuzz_input *in) { sample(in, 0); }

/* ---- trees, read as an inode's root ---------------------------------------------------------------------------------------------------- */

/* A leaf as the root of an inode's tree: nothing has to be read for it.  `size` bytes of exactly that length. */
static unsigned lines;

static void count_line(struct logger *l, enum log_level level, const char *text)
{
	(void)l;
	(void)level;
	csv_assert(text[0]);
	lines++;
}

struct root { struct csvfs *fs; struct buf buf; struct btree t; };

static void root_make(struct root *r, uint8_t *area, uint32_t len, enum csv_bt_kind kind)
{
	static struct logger log = { .write = count_line, .max = LOG_L_DEBUG };
	static struct env env;

	memset(r, 0, sizeof(*r));
	lines = 0;
	r->fs = calloc(1, sizeof(*r->fs));
	csv_assert(r->fs);
	env.log = &log;
	r->fs->env = &env;
	r->fs->geo = cv.g;
	r->buf.jb.blkno = vf.blkno;
	r->buf.jb.data = area;
	r->t = (struct btree){ .fs = r->fs, .root = &r->buf, .area_len = len, .owner = { CSV_OWN_INODE, vf.blkno }, .kind = kind };
}

static uint8_t *leaf(struct fuzz_input *in, enum csv_bt_kind kind, uint32_t *ret_len)
{
	uint8_t *p = malloc(CSV_BT_NODE_AREA);
	struct csv_err err = CSV_ERR_INIT;

	csv_assert(p);
	damage(in);
	memcpy(p, ((struct csv_btnode *)cv_blk(vf.blkno))->area, CSV_BT_NODE_AREA);
	repair();
	*ret_len = CSV_BT_NODE_AREA;
	if (bt_area_check(p, CSV_BT_NODE_AREA, kind, &err)) {
		csv_assert(err.text[0]);
		return p;
	}
	area_walk((struct area){ p, CSV_BT_NODE_AREA }, kind, cv.dir);
	return p;
}

/* One of that kind: extents or names. */
static void leaf_sample(struct fuzz_input *in, enum csv_bt_kind kind)
{
	do {
		sample(in, 1);
	} while (le32_get(((struct csv_bt_head *)((struct csv_btnode *)vf.was)->area)->kind) != kind ||
		 le16_get(((struct csv_bt_head *)((struct csv_btnode *)vf.was)->area)->level));
}

static void extent_sample(struct fuzz_input *in) { leaf_sample(in, CSV_BT_EXTENTS); }
static void dir_sample(struct fuzz_input *in) { leaf_sample(in, CSV_BT_DIR); }

static bool extent_run(struct fuzz_input *in)
{
	struct extent e, before = { 0 };
	uint64_t at = 0;
	struct root r;
	uint32_t len;
	uint8_t *p = leaf(in, CSV_BT_EXTENTS, &len);
	bool level = le16_get(((struct csv_bt_head *)p)->level);
	int rc = 0;

	root_make(&r, p, len, CSV_BT_EXTENTS);
	if (level) {			/* leads elsewhere: `mount` and `fsck` go there */
		struct csv_err err = CSV_ERR_INIT;

		rc = bt_area_check(p, len, CSV_BT_EXTENTS, &err) ? -EINVAL : 0;
	} else {
		while (at < EXT_LBLK_END && !(rc = ext_map(&r.t, at, &e))) {
			csv_assert(e.lblk == at && e.len && e.len <= EXT_LBLK_END - at);
			csv_assert(!e.phys || (csv_run_is_allocatable(&cv.g, e.phys, e.len) && !(e.flags & ~CSV_EXT_FLAGS_KNOWN)));
			at += e.len;
		}
		for (at = 0; !rc && !ext_next(&r.t, at, &e); at = ext_end(&e)) {
			csv_assert(e.lblk >= at && e.phys);
			before = e;
			csv_assert(!ext_prev(&r.t, e.lblk, &before) && before.lblk == e.lblk);
		}
		if (!rc && before.len)
			csv_assert(!ext_last(&r.t, &e) && e.lblk == before.lblk);
		csv_assert(rc != -CSV_E_CORRUPT || lines);
	}
	free(r.fs);
	free(p);
	return !rc;
}

static int each_name(void *arg, const struct bt_item *it)
{
	struct csv_err err = CSV_ERR_INIT;
	struct dir_entry e;
	int rc = dir_decode(&cv.g, cv.dir, it, &e, &err);

	*(int *)arg = rc ? rc : *(int *)arg;
	return 0;
}

static bool dir_run(struct fuzz_input *in)
{
	struct bt_item it;
	struct root r;
	uint32_t len;
	uint8_t *p = leaf(in, CSV_BT_DIR, &len);
	int rc = 0, walked;

	root_make(&r, p, len, CSV_BT_DIR);
	if (le16_get(((struct csv_bt_head *)p)->level)) {
		rc = -EINVAL;
	} else {
		walked = bt_walk(&r.t, csv_prng_below(in->prng, 2) ? 0 : csv_prng_u64(in->prng), each_name, &rc);
		rc = walked ? walked : rc;
		if (!walked && !bt_seek_ge(&r.t, 0, &it))
			csv_assert(!bt_lookup(&r.t, it.key, &it) && !bt_seek_le(&r.t, it.key, &it));
	}
	free(r.fs);
	free(p);
	return !rc;
}

/* ---- the checker --------------------------------------------------------------------------------------------------------------------- */

static void any_sample(struct fuzz_input *in)
{
	sample(in, csv_prng_below(in->prng, KINDS));
}

static bool fsck_run(struct fuzz_input *in)
{
	bool fine;

	damage(in);
	cv.mem = 64 << 20;
	cv_check();
	fine = !cv.r && !cv.res.errors;
	csv_assert(fine || cv.r || cv.n);		/* says what it is */
	csv_assert(!cv.r || cv.err.text[0]);
	repair();
	return fine;
}

/* ---- mounting and using it --------------------------------------------------------------------------------------------------------------- */

static void rec_submit(struct blk *b, struct blk_req *r)
{
	if (vf.recording && (r->op == BLK_WRITE || r->op == BLK_DISCARD)) {
		csv_assertf(vf.n_undo < UNDO_MAX, "more than %u writes", UNDO_MAX);
		vf.undo[vf.n_undo].off = r->off;
		vf.undo[vf.n_undo].len = r->len;
		vf.undo[vf.n_undo].data = malloc(r->len);
		csv_assert(vf.undo[vf.n_undo].data);
		memcpy(vf.undo[vf.n_undo++].data, cw.disk + r->off, r->len);
	}
	cw_blk_submit(b, r);
}

static const struct blk_ops rec_ops = { rec_submit, cw_blk_close };

static void undo_all(void)
{
	while (vf.n_undo) {
		vf.n_undo--;
		memcpy(cw.disk + vf.undo[vf.n_undo].off, vf.undo[vf.n_undo].data, vf.undo[vf.n_undo].len);
		free(vf.undo[vf.n_undo].data);
	}
}

static bool thorough;	/* also what takes long: whole files given back; one in eight */

static void use_it(struct csvfs *fs, uint64_t ino)
{
	static const uint8_t buf[5000];
	struct csvfs_attr a;
	uint64_t off;

	cv_read_all(fs, ino, 16384, 400);
	cv_note(csvfs_write(fs, ino, 0, 10000, buf, sizeof(buf), false, &off));
	if (!thorough)
		return;
	cv_note(csvfs_fallocate(fs, ino, 0, CSVFS_FALLOC_PUNCH_HOLE | CSVFS_FALLOC_KEEP_SIZE, 4096, 65536));
	cv_note(csvfs_setattr(fs, ino, 0, &(struct csvfs_attr){ .size = 7000 }, CSVFS_SET_SIZE, &a));
}

static void use_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csvfs *fs = n->fs;
	struct csvfs_statfs st;
	struct csvfs_attr a;

	const uint64_t which[] = { cv.root, cv.dir, cv.sub, cv.many, cv.big, cv.fixed, cv.inl, cv.link, cv.dev };
	uint64_t hit = cv.root;

	/* what the damaged block belongs to, and one of all */
	if (le32_get(((struct csv_mhdr *)vf.was)->owner_type) == CSV_OWN_INODE)
		hit = le64_get(((struct csv_mhdr *)vf.was)->owner_id);
	cv_note(csvfs_statfs(fs, &st));
	use_it(fs, hit);
	use_it(fs, which[vf.blkno % ARRAY_SIZE(which)]);
	cv_note(csvfs_lookup(fs, cv.dir, 0, "a file with a name of some length 7", &a));
	cv_note(csvfs_unlink(fs, cv.dir, 0, "a file with a name of some length 7"));
	cv_note(csvfs_create(fs, cv.dir, 0, "new", S_IFREG | 0600, 1, 2, 0, false, &a));
	cv_note(csvfs_create(fs, cv.root, 0, "new dir", S_IFDIR | 0700, 1, 2, 0, false, &a));
	cv_note(csvfs_rename(fs, cv.root, 0, "inline", cv.sub, 0, "moved", 0));
	if (thorough)
		cv_note(csvfs_unlink(fs, cv.root, 0, "many extents"));
	cv_note(csvfs_sync(fs));
	n->done = true;
}

/* It ends; or it waits, and says so, for what somebody holds whose log is beyond repair (a slot that says it is in use). */
static bool ends(void (*fn)(void *arg), const char *what)
{
	cw_start(1, fn);
	if (cw_run(600000, cw_is_done, cw_n(1)))
		return true;
	csv_assertf(cw_logged("what it held stays locked"), "%s does not end; block %llu; log:\n%s", what, (unsigned long long)vf.blkno, cw.all_log);
	return false;
}

static bool mount_run(struct fuzz_input *in)
{
	bool mounted, ended;

	damage(in);
	cv_damaged = false;
	thorough = csv_prng_chance(in->prng, 1, 8);
	cw.all_log[0] = '\0';
	cw_boot(1);
	cw_n(1)->blk.ops = &rec_ops;
	vf.recording = true;
	ended = ends(cw_mount_coro, "mount");
	mounted = ended && !cw_n(1)->ret;
	csv_assert(mounted || !ended || cw_n(1)->err.text[0]);
	if (mounted) {
		cv_damaged |= !ends(use_coro, "using it") || !ends(cw_umount_coro, "unmounting");
		cv_damaged |= cw_n(1)->ret == -CSV_E_CORRUPT;
	}
	csv_assertf(!cv_damaged || cw.all_log[0], "damage is answered, and nothing is said of it");
	cw_off(1, false);
	vf.recording = false;
	undo_all();
	repair();
	return mounted && !cv_damaged;
}

const struct fuzz_decoder fuzz_volume[] = {
	{ .name = "inode", .begin = volume_begin, .end = volume_end, .sample = inode_sample, .run = inode_run },	/* decoder inode */
	{ .name = "extent", .begin = volume_begin, .end = volume_end, .sample = extent_sample, .run = extent_run },	/* decoder extent */
	{ .name = "dir", .begin = volume_begin, .end = volume_end, .sample = dir_sample, .run = dir_run },		/* decoder dir */
	{ .name = "fsck", .slow = true, .begin = volume_begin, .end = volume_end, .sample = any_sample, .run = fsck_run },	/* decoder fsck */
	{ .name = "mount", .slow = true, .begin = volume_begin, .end = volume_end, .sample = any_sample, .run = mount_run },	/* decoder mount */
	{ 0 },
};
