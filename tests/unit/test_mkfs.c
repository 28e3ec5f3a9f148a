/* SPDX-License-Identifier: GPL-2.0-only */
/* test_mkfs - making a volume on devices in memory: what is written, in what order, and what is refused. */
#include "csvfs/mkfs.h"

#include <errno.h>
#include <sys/stat.h>

#include "csvfs/btree.h"
#include "journal/mhdr.h"
#include "tests/unit/core_fake.h"
#include "tests/unit/unit.h"

#define MB (1ull << 20)

struct world {
	struct fake_clock clock;
	struct sched *s;
	struct blk *b;
	struct csvfs_mkfs_options o;
	struct csv_geom g;
	struct csv_err err;
	int rc;
};

static void world_init(struct world *w, uint64_t bytes, uint32_t io)
{
	memset(w, 0, sizeof(*w));
	fake_clock_init(&w->clock);
	w->s = sched_new(&w->clock.clock);
	ck_assert_int_eq(mem_blk_new(w->s, bytes, io, &w->b), 0);
	w->o = (struct csvfs_mkfs_options){ .label = "first", .slots = 4, .uuid = { 1, 2, 3 }, .hash_key = { 4 }, .now_ns = 77 };
}

static void world_done(struct world *w)
{
	blk_close(w->b);
	sched_free(w->s);
}

static void run(struct world *w, void (*fn)(void *arg))
{
	csv_err_clear(&w->err);
	ck_assert_int_eq(sched_spawn(w->s, "test", fn, w), 0);
	fake_run_until(&w->clock, w->s, w->clock.now_ns + 20 * NS_PER_SEC);
	ck_assert_uint_eq(sched_coros(w->s), 0);
}

static void mkfs(void *arg)
{
	struct world *w = arg;

	w->rc = csvfs_mkfs(w->b, &w->o, &w->g, &w->err);
}

static void read_super(void *arg)
{
	struct world *w = arg;

	w->rc = csv_super_read(w->b, &w->g, NULL, &w->err);
}

static void check(void *arg)
{
	struct world *w = arg;

	w->rc = csvfs_mkfs_check(w->b, false, 2000, &w->err);
}

static void check_force(void *arg)
{
	struct world *w = arg;

	w->rc = csvfs_mkfs_check(w->b, true, 2000, &w->err);
}

static const void *block(struct world *w, uint64_t blkno)
{
	return mem_blk_data(w->b) + blkno * CSV_BLOCK_SIZE;
}

/* Everything a mount, a check and an allocation look at. */
static void volume_check(struct world *w, bool all_copies)
{
	const struct csv_geom *g = &w->g;
	struct csv_err err = CSV_ERR_INIT;
	const struct csv_inode *d;
	struct csv_slot_info si;
	struct csv_hbeat_info hi;
	struct csv_geom sb;
	struct csv_owner own;

	for (uint32_t i = 0; all_copies && i < CSV_SUPER_COPIES; i++)
		ck_assert_msg(csv_super_decode(block(w, csv_super_blk(g, i)), csv_super_blk(g, i), w->b->size_bytes / CSV_BLOCK_SIZE, w->b->min_io,
					       &sb, &err) == 0, "%s", err.text);
	for (uint32_t s = 0; s < g->slots; s++) {
		ck_assert_msg(csv_slot_decode(g, s, block(w, csv_slot_blk(g, s)), &si, &err) == 0, "%s", err.text);
		ck_assert_int_eq(si.state, CSV_SLOT_FREE);
		ck_assert_uint_ne(si.incarnation, 0);
		ck_assert_msg(csv_hbeat_decode(g, s, block(w, csv_hbeat_blk(g, s)), &hi, &err) == 0, "%s", err.text);
		own = (struct csv_owner){ CSV_OWN_ORPHAN, s };
		d = block(w, csv_orphan_blk(g, s));
		ck_assert_msg(mhdr_check(d, g->uuid, CSV_MAGIC_INODE, csv_orphan_blk(g, s), &own, &err) == 0, "%s", err.text);
		ck_assert_uint_eq(le32_get(d->mode), 0);
		ck_assert_uint_eq(le32_get(d->flags), CSV_INO_ORPHANS);
		ck_assert_int_eq(bt_area_check(d->body_bytes, CSV_BODY_BYTES, CSV_BT_ORPHANS, &err), 0);
		own = (struct csv_owner){ CSV_OWN_SLOT, s };
		ck_assert_msg(mhdr_check(block(w, csv_journal_blk(g, s)), g->uuid, CSV_MAGIC_JHEAD, csv_journal_blk(g, s), &own, &err) == 0, "%s",
			      err.text);
	}
	for (uint32_t k = 0; k < g->groups; k++) {
		const struct csv_group *h = block(w, csv_group_start(g, k));
		uint32_t n[4] = { 0 };

		own = (struct csv_owner){ CSV_OWN_GROUP, k };
		ck_assert_msg(mhdr_check(h, g->uuid, CSV_MAGIC_GROUP, csv_group_start(g, k), &own, &err) == 0, "%s", err.text);
		for (uint32_t i = 0; i < CSV_GROUP_BITMAPS; i++)
			ck_assert_msg(mhdr_check(block(w, csv_bitmap_blk(g, k, i)), g->uuid, CSV_MAGIC_BITMAP, csv_bitmap_blk(g, k, i), &own, &err) == 0,
				      "%s", err.text);
		for (uint32_t e = 0; e < csv_group_blocks(g, k); e++) {
			struct csv_bitmap_pos p;

			csv_assert(csv_bitmap_pos(g, csv_group_start(g, k) + e, &p));
			n[csv_bits_get(((const struct csv_bitmap *)block(w, csv_bitmap_blk(g, k, p.bitmap)))->bits, p.entry)]++;
		}
		ck_assert_uint_eq(n[CSV_BLK_META], CSV_GROUP_FIRST_FREE);
		ck_assert_uint_eq(n[CSV_BLK_INODE], k == 0);
		ck_assert_uint_eq(n[CSV_BLK_FREE], le32_get(h->free_blk));
		ck_assert_uint_eq(le32_get(h->inodes), k == 0);
		ck_assert_uint_eq(le32_get(h->blocks), csv_group_blocks(g, k));
	}
	d = block(w, g->root_ino);
	own = (struct csv_owner){ CSV_OWN_INODE, g->root_ino };
	ck_assert_msg(mhdr_check(d, g->uuid, CSV_MAGIC_INODE, g->root_ino, &own, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(le32_get(d->mode), S_IFDIR | 0755);
	ck_assert_uint_eq(le32_get(d->nlink), 2);
	ck_assert_uint_ne(le32_get(d->gen), 0);
	ck_assert_uint_eq(le64_get(d->parent), g->root_ino);
	ck_assert_int_eq(bt_area_check(d->body_bytes, CSV_BODY_BYTES, CSV_BT_DIR, &err), 0);
}

START_TEST(a_made_volume_is_whole)
{
	static const struct { uint64_t bytes; uint32_t io, slots, journal; } on[] = {
		{ 64 * MB, 512, 0, 0 }, { 64 * MB + 512, 512, 8, 4 }, { 100 * MB, 4096, 1, 0 }, { 1200 * MB, 512, 64, 4 }, { 2500 * MB, 4096, 8, 0 },
	};
	struct world w;

	for (size_t i = 0; i < ARRAY_SIZE(on); i++) {
		world_init(&w, on[i].bytes, on[i].io);
		w.o.slots = on[i].slots;
		w.o.journal_mib = on[i].journal;
		run(&w, mkfs);
		ck_assert_msg(w.rc == 0, "%s", w.err.text);
		ck_assert_uint_eq(w.g.slots, on[i].slots ? on[i].slots : 8);
		ck_assert_uint_eq(w.g.min_io, on[i].io);
		volume_check(&w, true);
		run(&w, read_super);
		ck_assert_int_eq(w.rc, 0);
		ck_assert_uint_eq(w.g.from_blk, CSV_SB_BLOCK);
		world_done(&w);
	}
}
END_TEST

START_TEST(same_options_give_the_same_bytes)
{
	struct world a, b;

	world_init(&a, 100 * MB, 512);
	world_init(&b, 100 * MB, 512);
	run(&a, mkfs);
	run(&b, mkfs);
	run(&b, mkfs);	/* over itself, too */
	ck_assert_int_eq(memcmp(mem_blk_data(a.b), mem_blk_data(b.b), 100 * MB), 0);
	world_done(&a);
	world_done(&b);
}
END_TEST

START_TEST(impossible_wishes_are_refused_with_a_reason)
{
	static const struct { uint64_t bytes; uint32_t io, slots, journal; const char *text; } on[] = {
		{ 4096, 512, 8, 4, "needs at least 64 MiB" }, { 63 * MB, 512, 1, 4, "needs at least 64 MiB" },
		{ 64 * MB, 512, 64, 0, "64 slots with journals of 4 MiB take" }, { 1000 * MB, 512, 8, 1024, "take fewer slots (-n) or smaller journals" },
		{ 64 * MB, 512, 65, 0, "between 1 and 64" }, { 64 * MB, 512, 8, 3, "between 4 and 1024" }, { 64 * MB, 512, 8, 1025, "between 4 and 1024" },
		{ 64 * MB, 8192, 8, 0, "sectors of 8192 bytes" }, { 1ull << 53, 512, 8, 0, "at most" },
	};
	struct csvfs_mkfs_options o = { .uuid = { 1 } };
	struct csv_err err = CSV_ERR_INIT;
	struct csv_geom g;

	for (size_t i = 0; i < ARRAY_SIZE(on); i++) {
		o.slots = on[i].slots;
		o.journal_mib = on[i].journal;
		ck_assert_int_lt(csvfs_mkfs_plan(on[i].bytes, on[i].io, &o, &g, &err), 0);
		ck_assert_msg(strstr(err.text, on[i].text), "case %zu: \"%s\" lacks \"%s\"", i, err.text, on[i].text);
	}
	memset(o.uuid, 0, sizeof(o.uuid));
	o.slots = o.journal_mib = 0;
	ck_assert_int_eq(csvfs_mkfs_plan(1000 * MB, 512, &o, &g, &err), -EINVAL);
	o.uuid[0] = 1;
	strcpy(o.label, "a\nb");
	ck_assert_int_eq(csvfs_mkfs_plan(1000 * MB, 512, &o, &g, &err), -EINVAL);
}
END_TEST

/* ---- interrupted ---------------------------------------------------------------------------------------------------------------------- */

/* Neither the old volume nor a half one is there: nothing, or the whole new one. */
static void nothing_or_new(struct world *w, const char *what, uint64_t k)
{
	struct csv_geom g = w->g;

	run(w, read_super);
	if (w->rc == 0) {
		ck_assert_msg(!strcmp(w->g.label, "second"), "%s %llu: the old volume is back", what, (unsigned long long)k);
		volume_check(w, false);
	}
	w->g = g;
}

static uint64_t requests(const struct blk *b)
{
	return b->n_reads + b->n_writes + b->n_flushes + b->n_discards;
}

START_TEST(the_kth_failed_request_leaves_no_volume_or_the_new_one)
{
	uint32_t none = 0, whole = 0, old = 0;

	uint64_t total = 1;

	for (uint64_t k = 1; k <= total; k++) {
		struct world w;
		uint64_t before;

		world_init(&w, 64 * MB, 512);
		run(&w, mkfs);
		ck_assert_int_eq(w.rc, 0);
		strcpy(w.o.label, "second");
		w.o.uuid[0]++;
		w.o.slots = 3;		/* copies elsewhere */
		before = requests(w.b);
		mem_blk_fail_at(w.b, k, -EIO);
		run(&w, mkfs);
		mem_blk_fail_at(w.b, 0, 0);
		total = csv_max(total, requests(w.b) - before);
		if (w.rc)
			ck_assert_msg(strstr(w.err.text, "block") || strstr(w.err.text, "flush") || strstr(w.err.text, "journal"), "%s", w.err.text);
		run(&w, read_super);
		if (w.rc == 0 && !strcmp(w.g.label, "first")) {
			/* only while nothing of it was wiped durably: the first requests */
			ck_assert_uint_le(k, 8);
			old++;
		} else {
			whole += w.rc == 0;
			none += w.rc != 0;
			nothing_or_new(&w, "request", k);
		}
		world_done(&w);
	}
	printf("failed requests: %u left no volume, %u the new one, %u (of the wipe itself) the old one\n", none, whole, old);
	ck_assert_uint_gt(none, 10);
	ck_assert_uint_ge(whole, 1);
}
END_TEST

struct recorder { uint64_t n, stop_at; uint8_t *image; uint64_t bytes; bool wiped; uint64_t flushes; };
static void record(void *arg, const struct blk_req *r)
{
	struct recorder *c = arg;

	c->n++;
	if (r->op == BLK_FLUSH)
		c->flushes++;
	if (r->op == BLK_WRITE && c->n <= c->stop_at)
		memcpy(c->image + r->off, r->buf, r->len);
	if (c->n == c->stop_at)
		c->wiped = c->flushes >= 1;
}

START_TEST(power_cut_after_any_write_leaves_no_volume_or_the_new_one)
{
	uint64_t total = 1;

	for (uint64_t stop = 1; stop <= total; stop++) {
		struct recorder c = { .stop_at = stop, .bytes = 64 * MB };
		struct world w, v;

		world_init(&w, c.bytes, 512);
		run(&w, mkfs);
		c.image = malloc(c.bytes);
		memcpy(c.image, mem_blk_data(w.b), c.bytes);
		strcpy(w.o.label, "second");
		w.o.uuid[0]++;
		w.o.slots = 3;
		mem_blk_set_hook(w.b, record, &c);
		run(&w, mkfs);
		mem_blk_set_hook(w.b, NULL, NULL);
		ck_assert_int_eq(w.rc, 0);
		total = c.n;
		world_init(&v, c.bytes, 512);
		memcpy(mem_blk_data(v.b), c.image, c.bytes);
		if (c.wiped)
			nothing_or_new(&v, "write", stop);
		world_done(&v);
		world_done(&w);
		free(c.image);
	}
	ck_assert_uint_gt(total, 20);
}
END_TEST

/* ---- in use ---------------------------------------------------------------------------------------------------------------------------- */

static void slot_put(struct world *w, uint32_t slot, enum csv_slot_state st)
{
	struct csv_slot_info i = { .state = st, .nodeid = 12, .incarnation = 5, .node_name = "n12", .seq = 9 };

	csv_slot_encode(&w->g, slot, &i, mem_blk_data(w->b) + csv_slot_blk(&w->g, slot) * CSV_BLOCK_SIZE);
}

struct beater { struct timer t; struct world *w; uint64_t counter; uint32_t slot, times; };
static void beat(struct timer *t)
{
	struct beater *b = container_of(t, struct beater, t);
	struct csv_hbeat_info i = { .incarnation = 5, .counter = ++b->counter, .nodeid = 12 };

	csv_hbeat_encode(&b->w->g, b->slot, &i, mem_blk_data(b->w->b) + csv_hbeat_blk(&b->w->g, b->slot) * CSV_BLOCK_SIZE);
	if (b->counter < b->times)
		timer_set(b->w->s, t, sched_now_ns(b->w->s) + 500 * NS_PER_MS);
}

START_TEST(a_volume_in_use_is_not_overwritten)
{
	struct beater b = { .slot = 2 };
	struct world w;

	world_init(&w, 64 * MB, 512);
	/* nothing there */
	run(&w, check);
	ck_assert_int_eq(w.rc, 0);
	run(&w, mkfs);
	/* there, and nobody uses it */
	run(&w, check);
	ck_assert_int_eq(w.rc, -EEXIST);
	ck_assert_msg(strstr(w.err.text, "\"first\"") && strstr(w.err.text, "use -f"), "%s", w.err.text);
	run(&w, check_force);
	ck_assert_int_eq(w.rc, 0);
	/* a slot is active, no sign of life */
	slot_put(&w, 2, CSV_SLOT_ACTIVE);
	run(&w, check);
	ck_assert_int_eq(w.rc, -EBUSY);
	ck_assert_msg(strstr(w.err.text, "slot 2 is in use by node 12 (n12)"), "%s", w.err.text);
	run(&w, check_force);
	ck_assert_int_eq(w.rc, 0);
	/* its heart beats: neither way */
	b.w = &w;
	for (int force = 0; force < 2; force++) {
		b.times = (uint32_t)b.counter + 3;
		timer_init(&b.t, beat);
		timer_set(w.s, &b.t, sched_now_ns(w.s) + 500 * NS_PER_MS);
		run(&w, force ? check_force : check);
		ck_assert_int_eq(w.rc, -CSV_E_BUSY_ELSEWHERE);
		ck_assert_msg(strstr(w.err.text, "mounted now: node 12 (n12)") && strstr(w.err.text, "-f does not help"), "%s", w.err.text);
	}
	/* an unreadable volume needs -f */
	mem_blk_data(w.b)[CSV_SB_BLOCK * CSV_BLOCK_SIZE + 100] ^= 1;
	mem_blk_data(w.b)[csv_super_blk(&w.g, 1) * CSV_BLOCK_SIZE + 100] ^= 1;
	mem_blk_data(w.b)[csv_super_blk(&w.g, 2) * CSV_BLOCK_SIZE + 100] ^= 1;
	run(&w, check);
	ck_assert_int_eq(w.rc, -EEXIST);
	run(&w, check_force);
	ck_assert_int_eq(w.rc, 0);
	world_done(&w);
}
END_TEST

UNIT_MAIN("mkfs", UNIT_SLOW(a_made_volume_is_whole, 0, 1, 60), UNIT_SLOW(same_options_give_the_same_bytes, 0, 1, 60),
	  UNIT_TEST(impossible_wishes_are_refused_with_a_reason), UNIT_SLOW(the_kth_failed_request_leaves_no_volume_or_the_new_one, 0, 1, 60),
	  UNIT_SLOW(power_cut_after_any_write_leaves_no_volume_or_the_new_one, 0, 1, 120), UNIT_TEST(a_volume_in_use_is_not_overwritten))
