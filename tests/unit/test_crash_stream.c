/*
 * The whole core on two nodes, its writes recorded: after every write the device as it is then, and as random allowed losses leave
 * it, must be in order for the checker (G2), and what was synced must be there.  Unit of time is a write that reached the device.
 *
 * The checker sees structure, not what is in files: that a missing revoke ruins data is caught by tests/sim/jnlsim.
 *
 * CRASH_OPS=500 makes the run longer.
 */
#include "csvfs/check/check.h"
#include "tests/sim/sim_store.h"
#include "tests/unit/core_ops.h"

#define LOSSY_PER_WINDOW 20u
#define SECTOR 512u
#define DIRS 3u
#define NAMES 14u

struct effect { bool flush; uint64_t off; uint32_t len; uint8_t *data; };
struct synced { uint32_t at; uint64_t files, dirs; };

static struct {
	struct effect *v;
	uint32_t n, cap;
	struct synced *s;
	uint32_t n_synced;
	struct sim_store *durable;	/* before recording; later: what FLUSHes made durable */
	struct sim_store *image;
	struct csv_prng prng;
	bool have[DIRS][NAMES], is_dir[DIRS][NAMES];
	uint64_t dir[DIRS];
	uint32_t done;
	struct check_result res;
	struct csv_err err;
	int r;
	char line[512], text[700];
	uint64_t images;
} cs;

/* ---- recorder -------------------------------------------------------------------------------------------------------------- */

static void record(struct effect e)
{
	if (cs.n == cs.cap) {
		cs.cap = cs.cap ? 2 * cs.cap : 1024;
		cs.v = realloc(cs.v, cs.cap * sizeof(*cs.v));
	}
	cs.v[cs.n++] = e;
}

static void rec_submit(struct blk *b, struct blk_req *r)
{
	struct effect e = { .flush = r->op == BLK_FLUSH, .off = r->off, .len = r->len };

	if (r->op == BLK_WRITE) {
		e.data = malloc(r->len);
		memcpy(e.data, r->buf, r->len);
	}
	if (r->op != BLK_READ)
		record(e);
	cw_blk_ops.submit(b, r);
}
static const struct blk_ops rec_ops = { rec_submit, cw_blk_close };

static void apply(struct sim_store *s, const struct effect *e, uint32_t at, uint32_t len)
{
	if (e->data)
		sim_store_write(s, e->off + at, e->data + at, len);
	else
		sim_store_zero(s, e->off + at, len);
}

static void store_take_disk(void)
{
	static const uint8_t zero[CSV_BLOCK_SIZE];

	cs.durable = sim_store_new(CW_BYTES);
	for (uint64_t off = 0; off < CW_BYTES; off += CSV_BLOCK_SIZE)
		if (memcmp(cw.disk + off, zero, CSV_BLOCK_SIZE))
			sim_store_write(cs.durable, off, cw.disk + off, CSV_BLOCK_SIZE);
}

/* ---- the load ----------------------------------------------------------------------------------------------------------------- */

static const char *name_of(uint32_t i)
{
	static char name[80];

	snprintf(name, sizeof(name), "%s %u", i % 3 ? "a name that takes some room in its directory, so that there are nodes" : "n", i);
	return name;
}

static void make_or_drop(struct csvfs *fs, uint32_t d, uint32_t i)
{
	struct csvfs_attr a;
	bool dir = csv_prng_chance(&cs.prng, 1, 5);

	if (!cs.have[d][i]) {
		if (!dir && csv_prng_chance(&cs.prng, 1, 6))
			OK(csvfs_symlink(fs, cs.dir[d], 0, name_of(i), "somewhere/else", 1, 1, &a));
		else
			mk(fs, cs.dir[d], name_of(i), dir ? S_IFDIR | 0755 : S_IFREG | 0644);
		cs.have[d][i] = true;
		cs.is_dir[d][i] = dir;
	} else {
		if (cs.is_dir[d][i])
			OK(csvfs_rmdir(fs, cs.dir[d], 0, name_of(i)));
		else
			OK(csvfs_unlink(fs, cs.dir[d], 0, name_of(i)));
		cs.have[d][i] = false;
	}
}

static void change_file(struct csvfs *fs, uint32_t d, uint32_t i)
{
	static uint8_t buf[40960];
	uint64_t off = csv_prng_below(&cs.prng, 40) * 4096, ret_off;
	struct csvfs_attr a = look(fs, cs.dir[d], name_of(i));
	ssize_t len = 1 + csv_prng_below(&cs.prng, sizeof(buf));

	if (!S_ISREG(a.mode))
		return;
	switch (csv_prng_below(&cs.prng, 5)) {
	case 0:
		OK(csvfs_fallocate(fs, a.ino, 0, 0, off, len));
		break;
	case 1:
		OK(csvfs_fallocate(fs, a.ino, 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len));
		break;
	case 2: {
		struct csvfs_attr set = { .size = csv_prng_below(&cs.prng, 200000) };

		OK(csvfs_setattr(fs, a.ino, 0, &set, CSVFS_SET_SIZE, &set));
		break;
	}
	default:
		fill(buf, len, off, i);
		IS(csvfs_write(fs, a.ino, 0, off, buf, len, 0, &ret_off), len);
	}
}

static void move(struct csvfs *fs, uint32_t d, uint32_t i)
{
	uint32_t to_d = csv_prng_below(&cs.prng, DIRS), to_i = csv_prng_below(&cs.prng, NAMES);

	char from[80];

	if (cs.have[to_d][to_i] || !cs.have[d][i])
		return;
	snprintf(from, sizeof(from), "%s", name_of(i));
	OK(csvfs_rename(fs, cs.dir[d], 0, from, cs.dir[to_d], 0, name_of(to_i), 0));
	cs.have[to_d][to_i] = true;
	cs.is_dir[to_d][to_i] = cs.is_dir[d][i];
	cs.have[d][i] = false;
}

static void count(uint64_t *ret_files, uint64_t *ret_dirs)
{
	*ret_files = 0;
	*ret_dirs = 1 + DIRS;
	for (uint32_t d = 0; d < DIRS; d++)
		for (uint32_t i = 0; i < NAMES; i++) {
			*ret_files += cs.have[d][i] && !cs.is_dir[d][i];
			*ret_dirs += cs.have[d][i] && cs.is_dir[d][i];
		}
}

/* Everything of both nodes: synced on each. */
static void note_synced(void)
{
	cs.s = realloc(cs.s, (cs.n_synced + 1) * sizeof(*cs.s));
	cs.s[cs.n_synced].at = cs.n;
	count(&cs.s[cs.n_synced].files, &cs.s[cs.n_synced].dirs);
	cs.n_synced++;
}

static void sync_fs(struct csvfs *fs)
{
	OK(csvfs_sync(fs));
}

static void some_ops(struct csvfs *fs)
{
	for (uint32_t k = csv_prng_range(&cs.prng, 1, 6); k; k--, cs.done++) {
		uint32_t d = csv_prng_below(&cs.prng, DIRS), i = csv_prng_below(&cs.prng, NAMES);

		switch (csv_prng_below(&cs.prng, 6)) {
		case 0: case 1:
			make_or_drop(fs, d, i);
			break;
		case 2:
			move(fs, d, i);
			break;
		default:
			if (cs.have[d][i])
				change_file(fs, d, i);
			else
				make_or_drop(fs, d, i);
		}
	}
}

static void make_dirs(struct csvfs *fs)
{
	for (uint32_t d = 0; d < DIRS; d++) {
		char name[8];

		snprintf(name, sizeof(name), "d%u", d);
		cs.dir[d] = mk(fs, root(fs), name, S_IFDIR | 0755).ino;
	}
	OK(csvfs_sync(fs));
}

/* ---- the check --------------------------------------------------------------------------------------------------------------------- */

static void report(void *arg, enum check_level level, const char *line)
{
	(void)arg;
	if (level == CHECK_ERROR && !cs.line[0])
		snprintf(cs.line, sizeof(cs.line), "%s", line);
}

static void check_coro(void *arg)
{
	struct check_options o = { .report = report };
	struct blk *b = sim_store_blk(cs.image, cw_n(4)->env.sched);
	struct cw_node *n = arg;

	cs.line[0] = 0;
	cs.err = CSV_ERR_INIT;
	cs.r = check_volume(b, &o, &cs.res, &cs.err);
	blk_close(b);
	n->done = true;
}

static bool found(const char *fmt, ...) csv_printf_like(1, 2);
static bool found(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cs.text, sizeof(cs.text), fmt, ap);
	va_end(ap);
	return false;
}

static bool check_image(uint32_t at, const char *kind)
{
	cw_do(4, check_coro);
	cs.images++;
	if (!cs.r && !cs.res.errors)
		return true;
	return found("%s image after %u of %u writes: %s", kind, at, cs.n, cs.r ? cs.err.text : cs.line);
}

/* An image exactly at a point of sync has all that there was. */
static bool check_synced(uint32_t at)
{
	for (uint32_t i = 0; i < cs.n_synced; i++) {
		/* removed files and directories that are not reaped yet are counted too */
		uint64_t have = cs.res.files + cs.res.others + cs.res.dirs, want = cs.s[i].files + cs.s[i].dirs + cs.res.orphans;

		if (cs.s[i].at == at && (have != want || cs.res.dirs < cs.s[i].dirs))
			return found("synced after %u writes: %" PRIu64 " files and directories, must be %" PRIu64, at, have, want);
	}
	return true;
}

static void image_lossy(uint32_t first, uint32_t end)
{
	uint64_t keep = csv_prng_range(&cs.prng, 0, 4);
	bool by_sector = csv_prng_chance(&cs.prng, 1, 2);

	cs.image = sim_store_overlay(cs.durable);
	for (uint32_t i = first; i < end; i++)
		for (uint32_t at = 0; at < cs.v[i].len; at += by_sector ? SECTOR : cs.v[i].len)
			if (csv_prng_chance(&cs.prng, keep, 4))
				apply(cs.image, &cs.v[i], at, by_sector ? SECTOR : cs.v[i].len);
}

static bool check_at(uint32_t first, uint32_t at)
{
	uint32_t window = at;
	bool ok;

	cs.image = sim_store_overlay(cs.durable);
	for (uint32_t i = first; i < at; i++)
		apply(cs.image, &cs.v[i], 0, cs.v[i].len);
	ok = check_image(at, "prefix") && check_synced(at);
	sim_store_free(cs.image);
	while (window < cs.n && !cs.v[window].flush)
		window++;
	window -= first;
	for (uint32_t k = 0; ok && first < at && k < csv_div_round_up(LOSSY_PER_WINDOW, window); k++) {
		image_lossy(first, at);
		ok = check_image(at, "lossy");
		sim_store_free(cs.image);
	}
	return ok;
}

static bool check_stream(void)
{
	uint32_t first = 0;

	for (uint32_t at = 0; at <= cs.n; at++) {
		for (; at && cs.v[at - 1].flush && first < at; first++)
			if (!cs.v[first].flush)
				apply(cs.durable, &cs.v[first], 0, cs.v[first].len);
		if (!check_at(first, at))
			return false;
	}
	return true;
}

static void mount_mutant(unsigned id, uint32_t mutate)
{
	cw_boot(id);
	cw_n(id)->opt.mutate = mutate;
	cw_do(id, cw_mount_coro);
	ck_assert_int_eq(cw_n(id)->ret, 0);
}

/* One run and all its crashes.  false: cs.text says what is not in order. */
static bool run(uint64_t seed, uint32_t ops, uint32_t mutate)
{
	uint32_t flushes = 0;
	bool ok;

	memset(&cs, 0, sizeof(cs));
	csv_prng_init(&cs.prng, seed);
	cw_setup();
	mount_mutant(1, mutate);
	mount_mutant(2, mutate);
	on_node(1, make_dirs);
	store_take_disk();
	cw_n(1)->blk.ops = cw_n(2)->blk.ops = &rec_ops;
	while (cs.done < ops) {
		on_node(1 + csv_prng_below(&cs.prng, 2), some_ops);
		if (csv_prng_chance(&cs.prng, 1, 4)) {
			on_node(1, sync_fs);
			on_node(2, sync_fs);
			note_synced();
		}
	}
	on_node(1, sync_fs);
	on_node(2, sync_fs);
	note_synced();
	cw_off(1, false);
	cw_off(2, false);
	cw_boot(4);
	ok = check_stream();
	for (uint32_t i = 0; i < cs.n; i++) {
		flushes += cs.v[i].flush;
		free(cs.v[i].data);
	}
	printf("%u operations on two nodes: %u writes, %u flushes, %" PRIu64 " images, %u points of sync: %s\n", cs.done, cs.n - flushes,
	       flushes, cs.images, cs.n_synced, ok ? "all in order" : cs.text);
	ck_assert_uint_gt(cs.n, 0);
	ck_assert_uint_gt(cs.n_synced, 1);
	sim_store_free(cs.durable);
	free(cs.v);
	free(cs.s);
	cw_teardown();
	return ok;
}

START_TEST(every_crash_leaves_a_volume_in_order)
{
	const char *ops = getenv("CRASH_OPS");

	ck_assert_msg(run(100 + _i, ops ? (uint32_t)atoi(ops) : 50, 0), "%s", cs.text);
}
END_TEST

static bool caught(uint32_t mutate, uint32_t seeds, uint32_t ops)
{
	for (uint32_t seed = 1; seed <= seeds; seed++)
		if (!run(seed, ops, mutate))
			return true;
	return false;
}

START_TEST(a_home_written_before_the_flush_of_its_commit_is_caught)
{
	ck_assert(caught(CSV_MUT_HOME_BEFORE_FLUSH, 20, 50));
}
END_TEST

UNIT_MAIN("crash_stream", UNIT_SLOW(every_crash_leaves_a_volume_in_order, 0, 2, 600),
	  UNIT_SLOW(a_home_written_before_the_flush_of_its_commit_is_caught, 0, 1, 300))
