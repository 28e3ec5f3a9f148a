/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_work.c - what the workers of a node do: operations on the names of the model, on files with a data model, and wild ones that
 * collide as they like (of those only the structure and whose bytes they are is checked).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/sim/csvsim.h"
#include "utils/base/base.h"

#define REN_NOREPLACE 1u		/* values of renameat2() */
#define REN_EXCHANGE 2u
#define WILD_NAMES 24u
#define BUF_BYTES (64u << 10)

static uint64_t below(struct cs_worker *w, uint64_t n) { return csv_prng_below(&w->prng, n); }
static bool chance(struct cs_worker *w, unsigned num, unsigned den) { return csv_prng_chance(&w->prng, num, den); }

bool cs_worker_dead(const struct cs_worker *w)
{
	return csvfs_state(w->n->fs, NULL) == CSVFS_WITHDRAWN;
}

/* No answer that counts: the node is on its way out, or its disk failed and it will be. */
static bool uncertain(const struct cs_worker *w, long long ret)
{
	return cs_worker_dead(w) || ret == -CSV_E_WITHDRAWN || (ret == -EIO && w->n->disk_failed);
}

bool cs_judge(struct cs_worker *w, long long ret, const char *op)
{
	struct cs_sim *s = w->n->sim;

	if (ret >= 0)
		return true;
	if (ret == -ENOSPC && s->full) {
		cs_count(s, "op.no_space");
		return false;
	}
	if (ret == -EINTR && w->cancelled) {
		cs_count(s, "fault.interrupted");
		return false;
	}
	if (!uncertain(w, ret))
		cs_fail(s, "n%u %s: %lld (%s)", w->n->node, op, ret, csv_err_describe((int)ret));
	return false;
}

/* ---- bytes that tell whose they are --------------------------------------------------------------------------------------- */

static uint64_t tag_of(uint64_t ino, uint32_t gen)
{
	uint64_t x = ino << 32 ^ gen ^ 0x5bd1e995;

	return csv_splitmix64(&x) | 0x0101010101010101ull;
}

void cs_tag_fill(uint64_t ino, uint32_t gen, uint64_t off, uint8_t *buf, size_t len)
{
	uint64_t tag = tag_of(ino, gen);

	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(tag >> (off + i) % 8 * 8);
}

bool cs_tag_check(uint64_t ino, uint32_t gen, uint64_t off, const uint8_t *buf, size_t len, size_t *ret_bad)
{
	uint64_t tag = tag_of(ino, gen);

	for (size_t i = 0; i < len; i++)
		if (buf[i] && buf[i] != (uint8_t)(tag >> (off + i) % 8 * 8)) {
			*ret_bad = i;
			return false;
		}
	return true;
}

/* ---- names of the model ----------------------------------------------------------------------------------------------------- */

static struct cs_state state_of(const struct csvfs_attr *a)
{
	return (struct cs_state){ S_ISDIR(a->mode) ? CS_DIR : CS_FILE, a->ino, a->gen };
}

static uint64_t dir_of(const struct cs_worker *w, const struct cs_name *n)
{
	return w->n->sim->dir[n->dir];
}

static struct cs_name *pick(struct cs_worker *w)
{
	struct cs_name *n = &w->n->sim->name[below(w, CS_DIRS)][below(w, CS_NAMES)];

	if (!cs_name_take(n))
		return NULL;
	w->pend.p[w->pend.n].name = n;
	w->pend.p[w->pend.n++].change = false;
	return n;
}

static void give(struct cs_worker *w)
{
	for (unsigned i = 0; i < w->pend.n; i++)
		cs_name_give(w->pend.p[i].name);
	w->pend.n = 0;
}

/* From here on it may become `to` whatever happens to us. */
static void intend(struct cs_worker *w, unsigned i, struct cs_state to)
{
	w->pend.p[i].to = to;
	w->pend.p[i].change = true;
}

/* The answer has come.  true: it counts. */
static bool answered(struct cs_worker *w, long long ret)
{
	bool counts = !uncertain(w, ret);

	for (unsigned i = 0; i < w->pend.n; i++) {
		if (w->pend.p[i].change && !counts)
			cs_name_maybe(w->n->sim, w->pend.p[i].name, w->pend.p[i].to);
		w->pend.p[i].change = false;
	}
	return counts;
}

/* false: no answer, or not what it may be.  ret_st: what it is. */
static bool look(struct cs_worker *w, struct cs_name *n, struct cs_state *ret_st)
{
	struct csvfs_attr a;
	int ret = csvfs_lookup(w->n->fs, dir_of(w, n), 0, n->text, &a);

	if (!answered(w, ret))
		return false;
	cs_count(w->n->sim, "op.lookup");
	*ret_st = (struct cs_state){ .kind = CS_NONE };
	if (ret == -ENOENT) {
		cs_name_exists(w->n->sim, n, w->n->self, false, "lookup");
	} else if (cs_judge(w, ret, "lookup")) {
		*ret_st = state_of(&a);
		cs_name_seen(w->n->sim, n, w->n->self, *ret_st, "lookup");
	} else {
		return false;
	}
	return !w->n->sim->failed;
}

/* What the model is sure of needs no look; it is taken now and then. */
static bool know(struct cs_worker *w, struct cs_name *n, struct cs_state *ret_st)
{
	if (n->cur.n != 1 || (n->cur.s[0].kind != CS_NONE && !n->cur.s[0].ino) || chance(w, 1, 3))
		return look(w, n, ret_st);
	*ret_st = n->cur.s[0];
	return true;
}

/* An answer `ret` where `want` (0 or an error) was the only possible one; ENOSPC and friends: judged. */
static bool expect(struct cs_worker *w, struct cs_name *n, const char *op, int ret, int want)
{
	char text[400];

	if (ret == want)
		return ret == 0;
	if (ret < 0 && (ret == -ENOSPC || ret == -EINTR || want == 0) && !cs_judge(w, ret, op) && !w->n->sim->failed)
		return false;
	cs_fail(w->n->sim, "G1: n%u %s: answered %d (%s), must be %d; %s", w->n->node, op, ret, csv_err_describe(ret), want,
		cs_name_describe(n, text, sizeof(text)));
	return false;
}

static void op_make(struct cs_worker *w, bool dir)
{
	struct cs_name *n = pick(w);
	struct cs_state st, to = { .kind = dir ? CS_DIR : CS_FILE };
	struct csvfs_attr a = { 0 };
	int ret;

	if (!n || !know(w, n, &st))
		return;
	intend(w, 0, to);
	ret = csvfs_create(w->n->fs, dir_of(w, n), 0, n->text, dir ? S_IFDIR | 0755 : S_IFREG | 0644, 0, 0, 0, false, &a);
	if (!answered(w, ret))
		return;
	cs_count(w->n->sim, dir ? "op.mkdir" : "op.create");
	if (expect(w, n, dir ? "mkdir" : "create", ret, st.kind == CS_NONE ? 0 : -EEXIST))
		cs_name_changed(w->n->sim, n, w->n->self, state_of(&a));
}

static void op_remove(struct cs_worker *w, bool dir)
{
	struct cs_name *n = pick(w);
	struct cs_state st, none = { .kind = CS_NONE };
	int ret, want;

	if (!n || !know(w, n, &st))
		return;
	intend(w, 0, none);
	ret = dir ? csvfs_rmdir(w->n->fs, dir_of(w, n), 0, n->text) : csvfs_unlink(w->n->fs, dir_of(w, n), 0, n->text);
	if (!answered(w, ret))
		return;
	cs_count(w->n->sim, dir ? "op.rmdir" : "op.unlink");
	want = st.kind == CS_NONE ? -ENOENT : (st.kind == CS_DIR) == dir ? 0 : dir ? -ENOTDIR : -EISDIR;
	if (dir && want == 0 && ret == -ENOTEMPTY)
		return;
	if (expect(w, n, dir ? "rmdir" : "unlink", ret, want))
		cs_name_changed(w->n->sim, n, w->n->self, none);
}

static int rename_wants(struct cs_state a, struct cs_state b, unsigned flags)
{
	if (a.kind == CS_NONE)
		return -ENOENT;
	if (flags & REN_EXCHANGE)
		return b.kind == CS_NONE ? -ENOENT : 0;
	if (b.kind == CS_NONE)
		return 0;
	if (flags & REN_NOREPLACE)
		return -EEXIST;
	if (a.ino == b.ino)
		return 0;
	return a.kind == b.kind ? 0 : b.kind == CS_DIR ? -EISDIR : -ENOTDIR;
}

static void op_rename(struct cs_worker *w)
{
	struct cs_name *a = pick(w), *b = a ? pick(w) : NULL;
	struct cs_state sa, sb, none = { .kind = CS_NONE };
	unsigned flags = chance(w, 1, 4) ? REN_EXCHANGE : chance(w, 1, 4) ? REN_NOREPLACE : 0;
	int ret, want;

	if (!b || !know(w, a, &sa) || !know(w, b, &sb))
		return;
	want = rename_wants(sa, sb, flags);
	if (want == 0 && (sa.ino != sb.ino || sb.kind == CS_NONE)) {
		intend(w, 0, flags & REN_EXCHANGE ? sb : none);
		intend(w, 1, sa);
	}
	ret = csvfs_rename(w->n->fs, dir_of(w, a), 0, a->text, dir_of(w, b), 0, b->text, flags);
	if (!answered(w, ret))
		return;
	cs_count(w->n->sim, flags & REN_EXCHANGE ? "op.exchange" : "op.rename");
	if (want == 0 && !(flags & REN_EXCHANGE) && sb.kind == CS_DIR && ret == -ENOTEMPTY)
		return;
	if (!expect(w, a, "rename", ret, want) || (sa.ino == sb.ino && sb.kind != CS_NONE))
		return;
	cs_name_changed(w->n->sim, a, w->n->self, flags & REN_EXCHANGE ? sb : none);
	cs_name_changed(w->n->sim, b, w->n->self, sa);
}

static void op_link(struct cs_worker *w)
{
	struct cs_name *a = pick(w), *b = a ? pick(w) : NULL;
	struct cs_state sa, sb;
	struct csvfs_attr at;
	int ret, want;

	if (!b || !know(w, a, &sa) || !know(w, b, &sb) || sa.kind == CS_NONE)
		return;
	want = sa.kind == CS_DIR ? -EPERM : sb.kind != CS_NONE ? -EEXIST : 0;
	if (!want)
		intend(w, 1, sa);
	ret = csvfs_link(w->n->fs, sa.ino, sa.gen, dir_of(w, b), 0, b->text, &at);
	if (!answered(w, ret))
		return;
	cs_count(w->n->sim, "op.link");
	if (expect(w, b, "link", ret, want))
		cs_name_changed(w->n->sim, b, w->n->self, sa);
}

/* ---- files behind names: bytes that tell whose they are ------------------------------------------------------------------------ */

static bool soft(struct cs_worker *w, long long ret, const char *op)
{
	switch (ret) {
	case -ENOENT: case -EEXIST: case -ENOTEMPTY: case -EISDIR: case -ENOTDIR: case -EINVAL: case -EPERM: case -ESTALE: case -EMLINK:
		cs_count(w->n->sim, "op.refused");
		return false;
	default:
		return cs_judge(w, ret, op);
	}
}

static void tag_write(struct cs_worker *w, uint64_t ino, uint32_t gen)
{
	uint64_t off = chance(w, 1, 3) ? below(w, 512) * 8192 : below(w, 40000);
	size_t len = 1 + (size_t)below(w, chance(w, 1, 4) ? BUF_BYTES : 6000);
	uint8_t *buf = malloc(len);
	ssize_t n;

	csv_assert(buf);
	cs_tag_fill(ino, gen, off, buf, len);
	n = csvfs_write(w->n->fs, ino, gen, off, buf, len, false, NULL);
	cs_count(w->n->sim, "op.write");
	soft(w, n, "write");
	free(buf);
}

static void tag_read(struct cs_worker *w, uint64_t ino, uint32_t gen)
{
	uint64_t off = chance(w, 1, 3) ? below(w, 512) * 8192 : below(w, 40000);
	size_t len = 1 + (size_t)below(w, BUF_BYTES), bad = 0;
	uint8_t *buf = malloc(len);
	ssize_t n;

	csv_assert(buf);
	n = csvfs_read(w->n->fs, ino, gen, off, buf, len);
	cs_count(w->n->sim, "op.read");
	if (soft(w, n, "read") && !cs_worker_dead(w) && !cs_tag_check(ino, gen, off, buf, (size_t)n, &bad))
		cs_fail(w->n->sim, "n%u read: inode %" PRIu64 ".%u has 0x%02x at byte %" PRIu64 ", which nobody wrote to it", w->n->node, ino,
			gen, buf[bad], off + bad);
	free(buf);
}

static void tag_resize(struct cs_worker *w, uint64_t ino, uint32_t gen)
{
	struct csvfs_attr set = { .size = below(w, chance(w, 1, 2) ? 60000 : 5 << 20) }, a;
	static const int mode[] = { 0, CSVFS_FALLOC_KEEP_SIZE, CSVFS_FALLOC_PUNCH_HOLE | CSVFS_FALLOC_KEEP_SIZE, CSVFS_FALLOC_ZERO_RANGE };
	int ret;

	if (chance(w, 1, 2)) {
		ret = csvfs_setattr(w->n->fs, ino, gen, &set, CSVFS_SET_SIZE, &a);
		cs_count(w->n->sim, "op.truncate");
	} else {
		ret = csvfs_fallocate(w->n->fs, ino, gen, mode[below(w, ARRAY_SIZE(mode))], below(w, 1 << 20), 1 + below(w, 300000));
		cs_count(w->n->sim, "op.fallocate");
	}
	soft(w, ret, "resize");
}

static void op_file(struct cs_worker *w)
{
	struct cs_name *n = pick(w);
	struct csvfs_attr a;
	struct cs_state st;
	int ret;

	if (!n || !know(w, n, &st) || st.kind != CS_FILE)
		return;
	switch (below(w, 4)) {
	case 0:
		tag_write(w, st.ino, st.gen);
		break;
	case 1:
		tag_read(w, st.ino, st.gen);
		break;
	case 2:
		tag_resize(w, st.ino, st.gen);
		break;
	case 3:
		ret = csvfs_getattr(w->n->fs, st.ino, st.gen, &a);
		if (!answered(w, ret))
			break;
		cs_count(w->n->sim, "op.stat");
		if (cs_judge(w, ret, "stat") && (a.ino != st.ino || a.gen != st.gen || !a.nlink || !S_ISREG(a.mode)))
			cs_fail(w->n->sim, "G1: n%u stat: inode %" PRIu64 ".%u: nlink %u, mode %o", w->n->node, a.ino, a.gen, a.nlink, a.mode);
		break;
	}
}

/* ---- making durable ---------------------------------------------------------------------------------------------------------------- */

static void op_fsync_name(struct cs_worker *w)
{
	struct cs_name *n = pick(w);
	struct cs_state st;
	int ret;

	if (!n || !know(w, n, &st) || st.kind == CS_NONE)
		return;
	ret = csvfs_fsync(w->n->fs, st.ino, st.gen, chance(w, 1, 2));
	if (!answered(w, ret))
		return;
	cs_count(w->n->sim, "op.fsync");
	if (!cs_judge(w, ret, "fsync"))
		return;
	if (cs_same(n->owner, w->n->self))
		cs_synced(w->n->sim);
	cs_name_synced(w->n->sim, n, w->n->self);
}

struct versions { uint64_t v[CS_DIRS][CS_NAMES]; };

static void versions_take(const struct cs_sim *s, struct versions *v)
{
	for (unsigned d = 0; d < CS_DIRS; d++)
		for (unsigned i = 0; i < CS_NAMES; i++)
			v->v[d][i] = s->name[d][i].busy ? UINT64_MAX : s->name[d][i].version;
}

static bool untouched(const struct cs_sim *s, const struct versions *v, unsigned d, unsigned i)
{
	return !s->name[d][i].busy && s->name[d][i].version == v->v[d][i];
}

/* A directory, or everything of this node. */
static void op_sync(struct cs_worker *w)
{
	struct cs_sim *s = w->n->sim;
	unsigned dir = (unsigned)below(w, CS_DIRS + 1);
	uint64_t before = cs_now(s);
	struct versions v;
	int ret;

	versions_take(s, &v);
	ret = dir < CS_DIRS ? csvfs_fsync(w->n->fs, s->dir[dir], 0, false) : csvfs_sync(w->n->fs);
	if (!answered(w, ret))
		return;
	cs_count(s, dir < CS_DIRS ? "op.fsync_dir" : "op.sync");
	if (!cs_judge(w, ret, "sync"))
		return;
	cs_synced(s);
	for (unsigned d = 0; d < CS_DIRS; d++)
		for (unsigned i = 0; i < CS_NAMES; i++)
			if ((dir == d || dir == CS_DIRS) && untouched(s, &v, d, i))
				cs_name_synced(s, &s->name[d][i], w->n->self);
	for (unsigned i = 0; dir == CS_DIRS && i < CS_FILES; i++)
		cs_data_synced(s, &s->file[i], w->n->self, before);
}

/* ---- listing --------------------------------------------------------------------------------------------------------------------------- */

struct listing {
	struct cs_worker *w;
	unsigned left, in_call;
	uint64_t cookie;
	unsigned times[CS_NAMES];
	struct cs_state st[CS_NAMES];
};

static bool list_entry(void *arg, const struct csvfs_dirent *e)
{
	struct listing *l = arg;

	if (l->in_call == l->left)
		return false;
	l->in_call++;
	l->cookie = e->cookie;
	if (e->name_len == 2 && e->name[0] == 'n' && e->name[1] >= '0' && e->name[1] < '0' + (int)CS_NAMES) {
		l->times[e->name[1] - '0']++;
		l->st[e->name[1] - '0'] = (struct cs_state){ e->type == S_IFDIR >> 12 ? CS_DIR : CS_FILE, e->ino, e->gen };
	}
	return true;
}

static void list_dir(struct cs_worker *w, unsigned d)
{
	struct cs_sim *s = w->n->sim;
	struct listing l = { .w = w };
	struct versions v;
	int ret;

	versions_take(s, &v);
	do {
		l.left = 1 + (unsigned)below(w, 12);
		l.in_call = 0;
		ret = csvfs_readdir(w->n->fs, s->dir[d], 0, l.cookie, list_entry, &l);
		if (uncertain(w, ret) || !cs_judge(w, ret, "readdir"))
			return;
	} while (l.in_call);
	cs_count(s, "op.readdir");
	for (unsigned i = 0; i < CS_NAMES && !s->failed; i++) {
		if (!untouched(s, &v, d, i))
			continue;
		if (l.times[i] > 1)
			cs_fail(s, "n%u readdir: d%u has %s %u times", w->n->node, d, s->name[d][i].text, l.times[i]);
		else if (l.times[i])
			cs_name_seen(s, &s->name[d][i], w->n->self, l.st[i], "readdir");
		else
			cs_name_exists(s, &s->name[d][i], w->n->self, false, "readdir");
	}
}

/* ---- wild ones ------------------------------------------------------------------------------------------------------------------------------ */

static uint64_t wild_dir(struct cs_worker *w)
{
	struct cs_sim *s = w->n->sim;
	const struct cs_name *n = &s->name[below(w, CS_DIRS)][below(w, CS_NAMES)];

	if (chance(w, 1, 3) && n->cur.s[0].kind == CS_DIR && n->cur.s[0].ino)
		return n->cur.s[0].ino;
	return s->dir[below(w, CS_DIRS)];
}

static void op_wild(struct cs_worker *w)
{
	struct csvfs *fs = w->n->fs;
	uint64_t d = wild_dir(w), d2 = wild_dir(w);
	struct csvfs_attr a;
	char n[16], n2[16];
	int ret;

	snprintf(n, sizeof(n), "x%u", (unsigned)below(w, WILD_NAMES));
	snprintf(n2, sizeof(n2), "x%u", (unsigned)below(w, WILD_NAMES));
	cs_count(w->n->sim, "op.wild");
	switch (below(w, 16)) {
	case 0: case 1: case 2:
		soft(w, csvfs_create(fs, d, 0, n, S_IFREG | 0644, 0, 0, 0, false, &a), "create");
		return;
	case 3:
		soft(w, csvfs_create(fs, d, 0, n, S_IFDIR | 0755, 0, 0, 0, false, &a), "mkdir");
		return;
	case 4: case 5:
		soft(w, csvfs_unlink(fs, d, 0, n), "unlink");
		return;
	case 6:
		soft(w, csvfs_rmdir(fs, d, 0, n), "rmdir");
		return;
	case 7: case 8:
		soft(w, csvfs_rename(fs, d, 0, n, d2, 0, n2, chance(w, 1, 3) ? REN_EXCHANGE : 0), "rename");
		return;
	case 9:
		soft(w, csvfs_symlink(fs, d, 0, n, "somewhere/else", 0, 0, &a), "symlink");
		return;
	case 10:
		if (w->opened) {
			csvfs_release(fs, w->opened);
			cs_count(w->n->sim, "op.release");
			w->opened = 0;
			return;
		}
		break;
	default:
		break;
	}
	ret = csvfs_lookup(fs, d, 0, n, &a);
	if (!soft(w, ret, "lookup"))
		return;
	switch (below(w, 6)) {
	case 0:
		soft(w, csvfs_link(fs, a.ino, a.gen, d2, 0, n2, &a), "link");
		break;
	case 1: case 2:
		if (S_ISREG(a.mode))
			tag_write(w, a.ino, a.gen);
		break;
	case 3:
		if (S_ISREG(a.mode))
			tag_read(w, a.ino, a.gen);
		break;
	case 4:
		if (S_ISREG(a.mode))
			tag_resize(w, a.ino, a.gen);
		break;
	case 5:
		if (!w->opened && soft(w, csvfs_open(fs, a.ino, a.gen), "open")) {
			w->opened = a.ino;
			cs_count(w->n->sim, "op.open");
			if (chance(w, 1, 2) && !S_ISDIR(a.mode)) {
				soft(w, csvfs_unlink(fs, d, 0, n), "unlink");
				if (S_ISREG(a.mode))
					tag_read(w, a.ino, a.gen);
			}
		}
		break;
	}
}

/* ---- files with a data model --------------------------------------------------------------------------------------------------------------- */

static void data_write(struct cs_worker *w, struct cs_file *f)
{
	struct cs_sim *s = w->n->sim;
	uint32_t count = 1 + (uint32_t)below(w, 24), first = (uint32_t)below(w, f->sectors - count);
	uint64_t value = s->next_value++, token;
	uint8_t *buf;
	ssize_t n;

	if (chance(w, 1, 2)) {
		count = csv_round_up(count, 8u);
		first = csv_min(csv_round_down(first, 8u), f->sectors - count);
	}
	buf = blk_alloc(count * CS_SECTOR);
	csv_assert(buf);
	cs_data_fill(buf, count, value);
	cs_data_begin(s, f, first, count, w->n->self, value, &token);
	n = csvfs_write(w->n->fs, f->ino, f->gen, (uint64_t)first * CS_SECTOR, buf, count * CS_SECTOR, false, NULL);
	cs_count(s, "op.data_write");
	free(buf);
	if (!uncertain(w, n) && cs_judge(w, n, "data write")) {
		uint32_t done = (uint32_t)n / CS_SECTOR;

		cs_data_end(s, f, first, done, token);
		cs_data_uncertain(s, f, first + done, count - done, token);
	} else {
		cs_data_uncertain(s, f, first, count, token);
	}
}

static void data_read(struct cs_worker *w, struct cs_file *f, uint32_t first, uint32_t count, const char *op)
{
	struct cs_sim *s = w->n->sim;
	uint64_t started = cs_now(s);
	uint8_t *buf = blk_alloc(count * CS_SECTOR);
	ssize_t n;

	csv_assert(buf);
	memset(buf, 0, count * CS_SECTOR);
	w->reading = started;
	n = csvfs_read(w->n->fs, f->ino, f->gen, (uint64_t)first * CS_SECTOR, buf, count * CS_SECTOR);
	cs_count(s, "op.data_read");
	if (!uncertain(w, n) && cs_judge(w, n, op)) {
		memset(buf + n, 0, count * CS_SECTOR - (size_t)n);
		cs_data_read(s, f, first, count, buf, w->n->self, started, op);
	}
	w->reading = 0;
	free(buf);
}

static void data_zero(struct cs_worker *w, struct cs_file *f)
{
	struct cs_sim *s = w->n->sim;
	uint32_t count = 1 + (uint32_t)below(w, 40), first = (uint32_t)below(w, f->sectors - count);
	struct csvfs_attr set, a;
	uint64_t token;
	int ret;

	switch (below(w, f->kind == CS_PLAIN ? 3 : 2)) {
	case 0:
		cs_data_begin(s, f, first, count, w->n->self, 0, &token);
		ret = csvfs_fallocate(w->n->fs, f->ino, f->gen, CSVFS_FALLOC_PUNCH_HOLE | CSVFS_FALLOC_KEEP_SIZE, (uint64_t)first * CS_SECTOR,
				      (uint64_t)count * CS_SECTOR);
		cs_count(s, "op.punch");
		break;
	case 1:
		cs_data_begin(s, f, first, count, w->n->self, 0, &token);
		ret = csvfs_fallocate(w->n->fs, f->ino, f->gen, CSVFS_FALLOC_ZERO_RANGE, (uint64_t)first * CS_SECTOR, (uint64_t)count * CS_SECTOR);
		cs_count(s, "op.zero_range");
		break;
	default:
		count = f->sectors - first;
		set.size = (uint64_t)first * CS_SECTOR;
		cs_data_begin(s, f, first, count, w->n->self, 0, &token);
		ret = csvfs_setattr(w->n->fs, f->ino, f->gen, &set, CSVFS_SET_SIZE, &a);
		cs_count(s, "op.data_truncate");
		break;
	}
	if (!uncertain(w, ret) && cs_judge(w, ret, "zero"))
		cs_data_end(s, f, first, count, token);
	else
		cs_data_uncertain(s, f, first, count, token);
}

static void data_append(struct cs_worker *w, struct cs_file *f)
{
	struct cs_sim *s = w->n->sim;
	uint64_t value = s->next_value++, off = 0;
	uint8_t *buf = blk_alloc(CS_SECTOR);
	ssize_t n;

	csv_assert(buf);
	cs_data_fill(buf, 1, value);
	cs_data_append_begin(s, w->n->self, value);
	n = csvfs_write(w->n->fs, f->ino, f->gen, 0, buf, CS_SECTOR, true, &off);
	cs_count(s, "op.append");
	if (!uncertain(w, n) && cs_judge(w, n, "append"))
		cs_data_appended(s, f, off, w->n->self, value);
	free(buf);
}

/* Attributes come from a value block mostly: the size must not be behind what was appended. */
static void data_stat(struct cs_worker *w, struct cs_file *f)
{
	struct cs_sim *s = w->n->sim;
	uint32_t least = cs_data_appended_sectors(f);
	struct csvfs_attr a;
	int ret = csvfs_getattr(w->n->fs, f->ino, f->gen, &a);

	cs_count(s, "op.data_stat");
	if (!uncertain(w, ret) && cs_judge(w, ret, "stat") && a.size < (uint64_t)csv_min(least, cs_data_appended_sectors(f)) * CS_SECTOR)
		cs_fail(s, "G1: n%u stat: file %s has %" PRIu64 " bytes, %u sectors were appended for certain", w->n->node, f->name, a.size, least);
}

static void data_fsync(struct cs_worker *w, struct cs_file *f)
{
	uint64_t before = cs_now(w->n->sim);
	int ret = csvfs_fsync(w->n->fs, f->ino, f->gen, chance(w, 1, 2));

	cs_count(w->n->sim, "op.data_fsync");
	if (!uncertain(w, ret) && cs_judge(w, ret, "fsync")) {
		cs_data_synced(w->n->sim, f, (struct cluster_node){ 0 }, before);
		cs_synced(w->n->sim);
	}
}

static void op_data(struct cs_worker *w)
{
	struct cs_file *f = &w->n->sim->file[below(w, CS_FILES)];
	uint32_t count = 1 + (uint32_t)below(w, 64);

	if (f->kind == CS_APPEND) {
		if (chance(w, 1, 2))
			data_append(w, f);
		else if (chance(w, 1, 3))
			data_stat(w, f);
		else if (chance(w, 1, 2))
			data_read(w, f, (uint32_t)below(w, 1000), count, "read");
		else
			data_fsync(w, f);
		return;
	}
	switch (below(w, 10)) {
	case 0: case 1: case 2: case 3:
		data_write(w, f);
		break;
	case 4: case 5: case 6:
		data_read(w, f, (uint32_t)below(w, f->sectors - count), count, "read");
		break;
	case 7:
		data_zero(w, f);
		break;
	default:
		data_fsync(w, f);
		break;
	}
}

/* ---- the worker --------------------------------------------------------------------------------------------------------------------------------- */

static const struct { const char *name; unsigned weight; } kinds[] = {
	{ "create", 8 }, { "mkdir", 4 }, { "unlink", 6 }, { "rmdir", 4 }, { "rename", 8 }, { "link", 4 }, { "lookup", 6 }, { "file", 12 },
	{ "fsync", 3 }, { "sync", 1 }, { "readdir", 2 }, { "wild", 26 }, { "data", 26 },
};

static void one(struct cs_worker *w)
{
	unsigned sum = 0, k, at;
	struct cs_state st;
	struct cs_name *n;

	for (k = 0; k < ARRAY_SIZE(kinds); k++)
		sum += kinds[k].weight;
	at = (unsigned)below(w, sum);
	for (k = 0; at >= kinds[k].weight; k++)
		at -= kinds[k].weight;
	w->doing = kinds[k].name;
	w->doing_since_ns = sim_world_now_ns(w->n->sim->w);
	switch (k) {
	case 0: op_make(w, false); break;
	case 1: op_make(w, true); break;
	case 2: op_remove(w, false); break;
	case 3: op_remove(w, true); break;
	case 4: op_rename(w); break;
	case 5: op_link(w); break;
	case 6:
		n = pick(w);
		if (n)
			look(w, n, &st);
		break;
	case 7: op_file(w); break;
	case 8: op_fsync_name(w); break;
	case 9: op_sync(w); break;
	case 10: list_dir(w, (unsigned)below(w, CS_DIRS)); break;
	case 11: op_wild(w); break;
	default: op_data(w); break;
	}
	give(w);
	w->doing = NULL;
}

void cs_worker_main(void *arg)
{
	struct cs_worker *w = arg;
	struct cs_sim *s = w->n->sim;

	while (s->ops_left && !s->failed && !cs_worker_dead(w) && !w->n->leave) {
		s->ops_left--;
		s->last_op_ns = sim_world_now_ns(s->w);
		one(w);
		if (w->cancelled) {
			cs_worker_again(w);
			return;
		}
		if (chance(w, 1, 4))
			coro_sleep_ns(w->n->env->sched, below(w, 2 * NS_PER_MS));
		else
			coro_yield(w->n->env->sched);
	}
	if (w->opened)
		csvfs_release(w->n->fs, w->opened);
	w->opened = 0;
	w->done = true;
	w->n->workers--;
}

/* ---- everything, compared with the model --------------------------------------------------------------------------------------------------- */

struct tree { struct cs_worker *w; unsigned n; struct { char name[16]; uint64_t ino; uint32_t gen, type; } e[160]; };

static bool tree_entry(void *arg, const struct csvfs_dirent *e)
{
	struct tree *t = arg;

	if (e->name[0] == '.' || t->n == ARRAY_SIZE(t->e) || e->name_len >= 16)
		return true;
	memcpy(t->e[t->n].name, e->name, e->name_len);
	t->e[t->n].name[e->name_len] = 0;
	t->e[t->n].ino = e->ino;
	t->e[t->n].gen = e->gen;
	t->e[t->n++].type = e->type;
	return true;
}

static void read_tagged(struct cs_worker *w, uint64_t ino, uint32_t gen, const char *name)
{
	uint8_t *buf = malloc(BUF_BYTES);
	uint64_t off = 0;
	size_t bad = 0;
	ssize_t n;

	csv_assert(buf);
	do {
		n = csvfs_read(w->n->fs, ino, gen, off, buf, BUF_BYTES);
		if (!cs_judge(w, n, "final read"))
			break;
		if (!cs_tag_check(ino, gen, off, buf, (size_t)n, &bad))
			cs_fail(w->n->sim, "n%u: %s, inode %" PRIu64 ".%u, has 0x%02x at byte %" PRIu64 ", which nobody wrote to it",
				w->n->node, name, ino, gen, buf[bad], off + bad);
		off += (uint64_t)n;
	} while (n > 0 && !w->n->sim->failed);
	free(buf);
}

static void walk(struct cs_worker *w, uint64_t dir, unsigned depth)
{
	struct tree *t = calloc(1, sizeof(*t));

	csv_assert(t);
	if (depth < 12 && cs_judge(w, csvfs_readdir(w->n->fs, dir, 0, 0, tree_entry, t), "final readdir"))
		for (unsigned i = 0; i < t->n && !w->n->sim->failed; i++) {
			struct csvfs_attr a;

			if (!cs_judge(w, csvfs_lookup(w->n->fs, dir, 0, t->e[i].name, &a), "final lookup"))
				break;
			if (a.ino != t->e[i].ino || a.gen != t->e[i].gen)
				cs_fail(w->n->sim, "n%u: %s is inode %" PRIu64 ", readdir says %" PRIu64, w->n->node, t->e[i].name, a.ino, t->e[i].ino);
			if (S_ISDIR(a.mode))
				walk(w, a.ino, depth + 1);
			else if (S_ISREG(a.mode) && (t->e[i].name[0] == 'n' || t->e[i].name[0] == 'x'))
				read_tagged(w, a.ino, a.gen, t->e[i].name);
		}
	free(t);
}

/* Runs as a coroutine of its node, with nobody else at work. */
void cs_verify(struct cs_sim *s, unsigned node)
{
	struct cs_worker *w = &s->node[node].w[0];
	struct cs_state st;

	w->n = &s->node[node];
	csv_prng_init(&w->prng, s->seed);
	for (unsigned d = 0; d < CS_DIRS && !s->failed; d++) {
		for (unsigned i = 0; i < CS_NAMES && !s->failed; i++) {
			w->pend.n = 0;
			look(w, &s->name[d][i], &st);
		}
		list_dir(w, d);
	}
	for (unsigned i = 0; i < CS_FILES && !s->failed; i++)
		for (uint32_t at = 0; at < s->file[i].sectors && !s->failed; at += 64)
			data_read(w, &s->file[i], at, 64, "final read");
	walk(w, s->root, 0);
}
