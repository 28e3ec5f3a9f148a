/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Many operations at once: coroutines on two or three nodes do random things to the same few directories and files.  Nothing may wait for
 * ever, answer what no single order explains, or leave an inconsistent volume; all nodes see the same in the end.
 */
#include "tests/unit/core_ops.h"

#include "utils/base/prng.h"

#define WORKERS 5		/* a node */
#define OPS 120
#define DIRS 6

struct worker { struct csvfs *fs; unsigned id; struct csv_prng prng; unsigned ok, refused; bool done; uint64_t opened; };
static struct worker w[3 * WORKERS];
static unsigned nodes;
static uint64_t dirs[DIRS], shared;

static void setup(struct csvfs *fs)
{
	/* a chain and siblings, so that locks are asked for up and across */
	dirs[0] = root(fs);
	dirs[1] = mk(fs, dirs[0], "d1", S_IFDIR).ino;
	dirs[2] = mk(fs, dirs[1], "d2", S_IFDIR).ino;
	dirs[3] = mk(fs, dirs[2], "d3", S_IFDIR).ino;
	dirs[4] = mk(fs, dirs[0], "d4", S_IFDIR).ino;
	dirs[5] = mk(fs, dirs[4], "d5", S_IFDIR).ino;
	shared = mk(fs, dirs[0], "shared", S_IFREG).ino;
}

static void judge(struct worker *x, long long r, const char *what)
{
	if (r >= 0) {
		x->ok++;
		return;
	}
	x->refused++;
	switch (r) {
	case -ENOENT: case -EEXIST: case -ENOTEMPTY: case -EISDIR: case -ENOTDIR: case -EINVAL: case -EPERM: case -ESTALE:
		return;
	default:
		ck_abort_msg("worker %u: %s: %lld (%s)\n%s", x->id, what, r, csv_err_describe((int)r), cw.all_log);
	}
}

static void one(struct worker *x)
{
	struct csv_prng *p = &x->prng;
	uint64_t d = dirs[csv_prng_below(p, DIRS)], d2 = dirs[csv_prng_below(p, DIRS)];
	char n[16], n2[16], block[512];
	struct csvfs_attr a;
	int err;

	snprintf(n, sizeof(n), "x%u", (unsigned)csv_prng_below(p, 6));
	snprintf(n2, sizeof(n2), "x%u", (unsigned)csv_prng_below(p, 6));
	switch (csv_prng_below(p, 11)) {
	case 0:
		judge(x, csvfs_create(x->fs, d, 0, n, S_IFREG | 0644, 0, 0, 0, false, &a), "create");
		break;
	case 1:
		judge(x, csvfs_create(x->fs, d, 0, n, S_IFDIR | 0755, 0, 0, 0, false, &a), "mkdir");
		break;
	case 2:
		judge(x, csvfs_unlink(x->fs, d, 0, n), "unlink");
		break;
	case 3:
		judge(x, csvfs_rmdir(x->fs, d, 0, n), "rmdir");
		break;
	case 4: case 5:
		judge(x, csvfs_rename(x->fs, d, 0, n, d2, 0, n2, csv_prng_chance(p, 1, 3) ? RENAME_EXCHANGE : 0), "rename");
		break;
	case 6:
		err = csvfs_lookup(x->fs, d, 0, n, &a);
		judge(x, err, "lookup");
		if (!err)
			judge(x, csvfs_link(x->fs, a.ino, a.gen, d2, 0, n2, &a), "link");
		break;
	case 7:
		err = csvfs_lookup(x->fs, d, 0, n, &a);
		judge(x, err, "lookup");
		if (err || !S_ISREG(a.mode))
			break;
		memset(block, (int)x->id, sizeof(block));
		judge(x, csvfs_write(x->fs, a.ino, a.gen, csv_prng_below(p, 20000), block, sizeof(block), 0, NULL), "write");
		judge(x, csvfs_setattr(x->fs, a.ino, a.gen, &(struct csvfs_attr){ .size = csv_prng_below(p, 9000) }, CSVFS_SET_SIZE, &a), "truncate");
		break;
	case 8:
		memset(block, (int)x->id, sizeof(block));
		judge(x, csvfs_write(x->fs, shared, 0, 0, block, sizeof(block), CSVFS_WRITE_APPEND, NULL), "append");
		break;
	case 9:
		err = x->opened ? -EEXIST : csvfs_lookup(x->fs, d, 0, n, &a);
		judge(x, err, "lookup");
		if (!err) {
			err = csvfs_open(x->fs, a.ino, a.gen);
			judge(x, err, "open");
			x->opened = err ? 0 : a.ino;
		}
		break;
	case 10:
		if (x->opened)
			csvfs_release(x->fs, x->opened);
		x->opened = 0;
		judge(x, csvfs_lookup(x->fs, d, 0, "..", &a), "lookup ..");
		break;
	}
}

static void work(void *arg)
{
	struct worker *x = arg;

	for (unsigned i = 0; i < OPS; i++)
		one(x);
	if (x->opened)
		csvfs_release(x->fs, x->opened);
	x->done = true;
}

static bool all_done(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < nodes * WORKERS; i++) {
		if (!w[i].done)
			return false;
	}
	return true;
}

static struct { char path[64]; struct csvfs_attr a; } seen[4096];
static unsigned n_seen, at_seen;
static bool comparing;

struct level { struct csvfs *fs; unsigned n; struct { char name[16]; uint64_t ino; } e[64]; };
static bool list(void *arg, const struct csvfs_dirent *e)
{
	struct level *l = arg;

	if (e->name[0] == '.')
		return true;
	ck_assert(l->n < 64 && e->name_len < 16);
	memcpy(l->e[l->n].name, e->name, e->name_len);
	l->e[l->n].name[e->name_len] = 0;
	l->e[l->n++].ino = e->ino;
	return true;
}

static void walk(struct csvfs *fs, uint64_t dir)
{
	struct level *l = calloc(1, sizeof(*l));

	l->fs = fs;
	OK(csvfs_readdir(fs, dir, 0, 0, list, l));
	for (unsigned i = 0; i < l->n; i++) {
		struct csvfs_attr a = look(fs, dir, l->e[i].name);

		ck_assert_uint_eq(a.ino, l->e[i].ino);
		if (comparing) {
			ck_assert_str_eq(seen[at_seen].path, l->e[i].name);
			ck_assert_mem_eq(&seen[at_seen].a, &a, sizeof(a));
		} else {
			snprintf(seen[at_seen].path, sizeof(seen[0].path), "%s", l->e[i].name);
			seen[at_seen].a = a;
		}
		at_seen++;
		if (S_ISDIR(a.mode))
			walk(fs, a.ino);
	}
	free(l);
}

static void look_around(struct csvfs *fs)
{
	at_seen = 0;
	walk(fs, root(fs));
	if (!comparing)
		n_seen = at_seen;
	ck_assert_uint_eq(n_seen, at_seen);
}

START_TEST(operations_at_once_end_and_agree)
{
	unsigned ok = 0, refused = 0;

	nodes = 1 + (unsigned)_i % 3;
	memset(w, 0, sizeof(w));
	cw_setup();
	for (unsigned id = 1; id <= nodes; id++)
		cw_mount(id);
	on_node(1, setup);
	for (unsigned i = 0; i < nodes * WORKERS; i++) {
		w[i].fs = cw_n(1 + i % nodes)->fs;
		w[i].id = i;
		csv_prng_init(&w[i].prng, (uint64_t)_i * 1000 + i);
		ck_assert_int_eq(sched_spawn(w[i].fs->env->sched, "worker", work, &w[i]), 0);
	}
	if (!cw_run(3600000, all_done, NULL)) {
		for (unsigned i = 0; i < nodes * WORKERS; i++)
			fprintf(stderr, "worker %u on node %u: %s after %u + %u\n", i, 1 + i % nodes, w[i].done ? "done" : "WAITS", w[i].ok, w[i].refused);
		ck_abort_msg("some wait for ever\n%s", cw.all_log);
	}
	cw_run(3000, NULL, NULL);
	comparing = false;
	for (unsigned id = 1; id <= nodes; id++) {
		on_node(id, look_around);
		comparing = true;
	}
	for (unsigned i = 0; i < nodes * WORKERS; i++) {
		ok += w[i].ok;
		refused += w[i].refused;
	}
	for (unsigned id = nodes; id >= 1; id--)
		cw_umount(id);
	ck_assert_uint_eq(cc_check(), 0);
	printf("%u nodes, %u workers: %u done, %u refused, %u names in the end\n", nodes, nodes * WORKERS, ok, refused, n_seen);
	ck_assert_uint_gt(ok, refused / 3);
	cw_teardown();
}
END_TEST

UNIT_MAIN("ops_many", UNIT_SLOW(operations_at_once_end_and_agree, 0, 12, 60))
