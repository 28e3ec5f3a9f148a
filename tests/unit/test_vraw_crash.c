/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A crash of all nodes at any write leaves a dynamic image that is whole (R36): two nodes write at random and add blocks, everything that
 * reaches the device is recorded; each prefix, and random allowed losses of what no FLUSH covers, is mounted by a third node, the journals
 * replayed, the image opened and read:
 *
 *	the block table names no place twice and nothing outside; what it does not name is reclaimable
 *	every sector holds what it held at the last point of sync, or what was written there since - never a part of another write, an older
 *	value, or what the blocks of the volume held before they were the image's (all of it is filled with rubbish first)
 */
#define CW_BYTES (256ull << 20)
#include "tests/sim/sim_store.h"
#include "tests/unit/vraw_world.h"

#define MIB (1ull << 20)
#define DISK_MIB 6u
#define SECTORS ((uint32_t)(DISK_MIB * MIB / VW_SECTOR))
#define RUN_SECTORS 16u			/* longest write */
#define WRITERS 3u			/* a node */

/* Nodes die in the middle of coroutines, whose memory nobody frees then. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

struct effect { bool flush; uint64_t off; uint32_t len; uint8_t *data; };
struct written { uint32_t sector, n, at; };		/* value i + 1; issued when `at` effects were recorded */
struct synced { uint32_t at, values; uint32_t *sector; };

static struct {
	struct effect *v;
	uint32_t n, cap;
	struct written *w;
	uint32_t n_written;
	struct synced *s;
	uint32_t n_synced;
	uint32_t *sector;		/* value of each, as acknowledged */
	struct sim_store *durable, *image;
	struct csv_prng prng;
	unsigned running;
	uint32_t left, images, at;
	char text[600];
} vc;

/* ---- recording ------------------------------------------------------------------------------------------------------------------- */

static void rec_submit(struct blk *b, struct blk_req *r)
{
	struct effect e = { .flush = r->op == BLK_FLUSH, .off = r->off, .len = r->len };

	if (r->op == BLK_WRITE) {
		e.data = malloc(r->len);
		memcpy(e.data, r->buf, r->len);
	}
	if (r->op != BLK_READ) {
		if (vc.n == vc.cap) {
			vc.cap = vc.cap ? 2 * vc.cap : 1024;
			vc.v = realloc(vc.v, vc.cap * sizeof(*vc.v));
		}
		vc.v[vc.n++] = e;
	}
	cw_blk_ops.submit(b, r);
}
static const struct blk_ops rec_ops = { rec_submit, cw_blk_close };

static void apply(struct sim_store *s, const struct effect *e, uint32_t at, uint32_t len)
{
	if (e->data)
		sim_store_write(s, e->off + at, e->data + at, len);
	else if (e->len)
		sim_store_zero(s, e->off + at, len);
}

/* ---- the load ---------------------------------------------------------------------------------------------------------------------- */

/* A sector that says which write it is of, and which sector it is. */
static void sector_of(uint8_t *p, uint32_t value, uint32_t sector)
{
	uint32_t words[2] = { value, sector };

	for (uint32_t i = 0; i < VW_SECTOR; i += 8)
		memcpy(p + i, words, 8);
	if (!value)
		memset(p, 0, VW_SECTOR);
}

struct writer { unsigned node; struct csv_prng p; };

/* No two write the same sector at the same time: the sectors are dealt out in runs. */
static void writer_main(void *arg)
{
	struct writer *x = arg;
	uint8_t buf[RUN_SECTORS * VW_SECTOR];

	while (vc.left) {
		uint32_t runs = SECTORS / RUN_SECTORS, turns = 2 * WRITERS, turn = (uint32_t)csv_prng_below(&x->p, WRITERS) * 2 + x->node - 1;
		uint32_t n = 1 + (uint32_t)csv_prng_below(&x->p, RUN_SECTORS);
		uint32_t first = ((uint32_t)csv_prng_below(&x->p, runs / turns) * turns + turn) * RUN_SECTORS, value;
		ssize_t done;

		vc.left--;
		vc.w = realloc(vc.w, (vc.n_written + 1) * sizeof(*vc.w));
		vc.w[vc.n_written++] = (struct written){ first, n, vc.n };
		value = vc.n_written;
		for (uint32_t i = 0; i < n; i++)
			sector_of(buf + i * VW_SECTOR, value, first + i);
		done = csvfs_disk_write(cw_n(x->node)->fs, vw.file.ino, 0, (uint64_t)first * VW_SECTOR, buf, n * VW_SECTOR);
		ck_assert_msg(done == (ssize_t)n * VW_SECTOR, "node %u: write: %zd\n%s", x->node, done, cw.all_log);
		for (uint32_t i = 0; i < n; i++)
			vc.sector[first + i] = csv_max(vc.sector[first + i], value);
	}
	vc.running--;
	free(x);
}

static bool over(void *arg)
{
	(void)arg;
	return vc.running == 0;
}

static void sync_co(struct csvfs *fs)
{
	OK(csvfs_fsync(fs, vw.file.ino, 0, true));
}

static void some_writes(uint32_t n)
{
	vc.left = n;
	for (unsigned k = 0; k < 2 * WRITERS; k++) {
		struct writer *x = calloc(1, sizeof(*x));

		x->node = 1 + k % 2;
		csv_prng_fork(&vc.prng, &x->p);
		vc.running++;
		ck_assert_int_eq(sched_spawn(cw_n(x->node)->env.sched, "writer", writer_main, x), 0);
	}
	ck_assert(cw_run(600000, over, NULL));
}

static void note_synced(void)
{
	struct synced *s;

	on_node(1, sync_co);
	on_node(2, sync_co);
	vc.s = realloc(vc.s, (vc.n_synced + 1) * sizeof(*vc.s));
	s = &vc.s[vc.n_synced++];
	*s = (struct synced){ .at = vc.n, .values = vc.n_written, .sector = malloc(SECTORS * sizeof(uint32_t)) };
	memcpy(s->sector, vc.sector, SECTORS * sizeof(uint32_t));
}

/* ---- after the crash ---------------------------------------------------------------------------------------------------------------- */

static void image_submit(struct blk *b, struct blk_req *r)
{
	if (r->op == BLK_READ)
		sim_store_read(vc.image, r->off, r->buf, r->len);
	else if (r->op == BLK_WRITE)
		sim_store_write(vc.image, r->off, r->buf, r->len);
	else if (r->op == BLK_DISCARD)
		sim_store_zero(vc.image, r->off, r->len);
	blk_complete_later(b, r, 0);
}
static const struct blk_ops image_ops = { image_submit, cw_blk_close };

static bool found(const char *fmt, ...) csv_printf_like(1, 2);
static bool found(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(vc.text, sizeof(vc.text), fmt, ap);
	va_end(ap);
	return false;
}

static bool is_allowed(const struct synced *s, uint32_t sector, uint32_t value)
{
	const struct written *w;

	if (s ? value == s->sector[sector] : !value)
		return true;
	if (!value || value > vc.n_written || value <= (s ? s->values : 0))
		return false;
	w = &vc.w[value - 1];
	return sector >= w->sector && sector < w->sector + w->n && w->at <= vc.at;
}

static bool check_sectors(const uint8_t *disk)
{
	const struct synced *s = NULL;

	for (uint32_t i = 0; i < vc.n_synced && vc.s[i].at <= vc.at; i++)
		s = &vc.s[i];
	for (uint32_t i = 0; i < SECTORS; i++) {
		uint8_t want[VW_SECTOR];
		uint32_t value;

		memcpy(&value, disk + i * VW_SECTOR, 4);
		sector_of(want, value, i);
		if (memcmp(want, disk + i * VW_SECTOR, VW_SECTOR))
			return found("sector %u holds what nobody wrote there: %02x%02x%02x%02x", i, disk[i * VW_SECTOR], disk[i * VW_SECTOR + 1],
				     disk[i * VW_SECTOR + 2], disk[i * VW_SECTOR + 3]);
		if (!is_allowed(s, i, value))
			return found("sector %u holds value %u; synced were %u values, the sector had %u", i, value, s ? s->values : 0,
				     s ? s->sector[i] : 0);
	}
	return true;
}

static bool image_ok;

static void look_co(struct csvfs *fs)
{
	struct vimg_usage u;
	uint8_t *disk;

	vw.writing = true;
	vw_open(fs);
	if (vw.n) {
		image_ok = found("cannot be opened for writing: %zd: %s", vw.n, vw.err.text);
		return;
	}
	disk = malloc(DISK_MIB * MIB);
	IS(csvfs_disk_read(fs, vw.file.ino, 0, 0, disk, DISK_MIB * MIB), (long long)(DISK_MIB * MIB));
	image_ok = check_sectors(disk);
	if (image_ok && vw_scan(fs, &u, &vw.err))
		image_ok = found("block table: %s", vw.err.text);
	free(disk);
}

static bool check_image(uint32_t at, const char *kind)
{
	char text[sizeof(vc.text)];

	vc.images++;
	vc.at = at;
	cw_boot(4);
	cw_n(4)->blk.ops = &image_ops;
	cw.all_log[0] = 0;
	cw_do(4, cw_mount_coro);
	ck_assert_msg(cw_n(4)->ret == 0, "mount after %u writes: %s", at, cw_n(4)->err.text);
	on_node(4, look_co);
	cw_off(4, false);
	if (image_ok)
		return true;
	memcpy(text, vc.text, sizeof(text));
	return found("%s image after %u of %u writes: %.400s", kind, at, vc.n, text);
}

static void image_lossy(uint32_t first, uint32_t end)
{
	uint64_t keep = csv_prng_range(&vc.prng, 0, 4);
	bool by_sector = csv_prng_chance(&vc.prng, 1, 2);

	vc.image = sim_store_overlay(vc.durable);
	for (uint32_t i = first; i < end; i++)
		for (uint32_t at = 0; at < vc.v[i].len; at += by_sector ? VW_SECTOR : vc.v[i].len)
			if (csv_prng_chance(&vc.prng, keep, 4))
				apply(vc.image, &vc.v[i], at, by_sector ? VW_SECTOR : vc.v[i].len);
}

static bool check_at(uint32_t first, uint32_t at)
{
	bool ok;

	vc.image = sim_store_overlay(vc.durable);
	for (uint32_t i = first; i < at; i++)
		apply(vc.image, &vc.v[i], 0, vc.v[i].len);
	ok = check_image(at, "prefix");
	sim_store_free(vc.image);
	if (ok && first < at) {
		image_lossy(first, at);
		ok = check_image(at, "lossy");
		sim_store_free(vc.image);
	}
	return ok;
}

static bool check_stream(void)
{
	uint32_t first = 0;

	for (uint32_t at = 0; at <= vc.n; at++) {
		for (; at && vc.v[at - 1].flush && first < at; first++)
			apply(vc.durable, &vc.v[first], 0, vc.v[first].len);
		if (!check_at(first, at))
			return false;
	}
	return true;
}

/* Every block of the volume that a file can have held something before. */
static void rubbish(struct csvfs *fs)
{
	struct csvfs_attr a = mk(fs, root(fs), "rubbish", S_IFREG | 0600);
	uint8_t *buf = malloc(MIB);

	memset(buf, 0xdb, MIB);
	for (uint64_t off = 0; csvfs_write(fs, a.ino, 0, off, buf, MIB, 0, NULL) == (ssize_t)MIB; off += MIB)
		;
	free(buf);
	OK(csvfs_unlink(fs, root(fs), 0, "rubbish"));
	OK(csvfs_sync(fs));
}

/* As after a crash: places that nothing refers to, with anything in them (VHDX: no footer to be moved). */
static void leak(struct csvfs *fs)
{
	struct csvfs_attr a = attr(fs, vw.file.ino);
	uint8_t *buf = malloc(3 * MIB);

	memset(buf, 0xdb, 3 * MIB);
	IS(csvfs_write(fs, vw.file.ino, 0, a.size, buf, 3 * MIB, 0, NULL), (long long)(3 * MIB));
	OK(csvfs_fsync(fs, vw.file.ino, 0, false));
	free(buf);
}

static void store_take_disk(void)
{
	static const uint8_t zero[CSV_BLOCK_SIZE];

	vc.durable = sim_store_new(CW_BYTES);
	for (uint64_t off = 0; off < CW_BYTES; off += CSV_BLOCK_SIZE)
		if (memcmp(cw.disk + off, zero, CSV_BLOCK_SIZE))
			sim_store_write(vc.durable, off, cw.disk + off, CSV_BLOCK_SIZE);
}

static bool run(uint64_t seed, enum vimg_format format, uint32_t writes, uint32_t mutate)
{
	bool ok;

	memset(&vc, 0, sizeof(vc));
	csv_prng_init(&vc.prng, seed);
	vc.sector = calloc(SECTORS, sizeof(uint32_t));
	memset(&vw, 0, sizeof(vw));
	vw.spec = (struct vimg_spec){ .format = format, .type = VIMG_DYNAMIC, .size = DISK_MIB * MIB, .block_size = MIB, .now_s = 1700000000,
				      .guid = { { 1, 2 }, { 3, 4 }, { 5, 6 } } };
	cw_setup();
	for (unsigned id = 1; id <= 2; id++) {
		cw_boot(id);
		cw_n(id)->opt.mutate = mutate;
		cw_do(id, cw_mount_coro);
		ck_assert_int_eq(cw_n(id)->ret, 0);
	}
	on_node(1, rubbish);
	cw_run(5000, NULL, NULL);
	on_node(1, vw_make);
	if (format == VIMG_VHDX && seed % 2)
		on_node(1, leak);
	store_take_disk();
	cw_n(1)->blk.ops = cw_n(2)->blk.ops = &rec_ops;
	vw_open_on(1, true);
	vw_open_on(2, true);
	for (uint32_t done = 0; done < writes; done += 8) {
		some_writes(8);
		if (csv_prng_chance(&vc.prng, 1, 2))
			note_synced();
	}
	note_synced();
	cw_off(1, false);
	cw_off(2, false);
	ok = check_stream();
	printf("%s: %u writes to the disk by two nodes: %u of the device, %u images, %u points of sync: %s\n", vimg_format_name(format), writes,
	       vc.n, vc.images, vc.n_synced, ok ? "all in order" : vc.text);
	for (uint32_t i = 0; i < vc.n; i++)
		free(vc.v[i].data);
	for (uint32_t i = 0; i < vc.n_synced; i++)
		free(vc.s[i].sector);
	free(vc.v);
	free(vc.w);
	free(vc.s);
	free(vc.sector);
	sim_store_free(vc.durable);
	cw_teardown();
	return ok;
}

START_TEST(every_crash_leaves_a_whole_image_with_what_was_synced)
{
	const char *n = getenv("CRASH_WRITES");

	/* VHDX with and without places to be used again, VHD */
	ck_assert_msg(run(300 + (uint64_t)_i, _i == 2 ? VIMG_VHD : VIMG_VHDX, n ? (uint32_t)atoi(n) : 24, 0), "%s", vc.text);
}
END_TEST

static bool caught(uint32_t mutate, uint32_t seeds)
{
	for (uint32_t seed = 1; seed <= 2 * seeds; seed += 2)
		if (!run(seed, VIMG_VHDX, 16, mutate))
			return true;
	return false;
}

START_TEST(an_entry_written_before_its_block_is_flushed_is_caught)
{
	ck_assert(caught(CSV_MUT_ENTRY_NO_FLUSH, 10));
}
END_TEST

START_TEST(room_that_is_not_zeroed_is_caught)
{
	ck_assert(caught(CSV_MUT_ROOM_NOT_ZEROED, 3));
}
END_TEST

UNIT_MAIN("vraw_crash", UNIT_SLOW(every_crash_leaves_a_whole_image_with_what_was_synced, 0, 3, 600),
	  UNIT_SLOW(an_entry_written_before_its_block_is_flushed_is_caught, 0, 1, 300), UNIT_SLOW(room_that_is_not_zeroed_is_caught, 0, 1, 300))
