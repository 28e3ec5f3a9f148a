/* SPDX-License-Identifier: GPL-2.0-only */
/* Directories: many names, cookies that stay good, names with one hash, entries that lie; a random namespace against a model. */
#include "tests/unit/core_ops.h"

#include "csvfs/dir.h"
#include "csvfs/namei.h"

struct listing { uint64_t cookie[4000]; char name[4000][24]; unsigned n, max; };
static struct listing ls;

static bool take(void *arg, const struct csvfs_dirent *e)
{
	struct listing *l = arg;

	if (l->n == l->max)
		return false;
	ck_assert(l->n < 4000 && e->name_len < 24);
	l->cookie[l->n] = e->cookie;
	memcpy(l->name[l->n], e->name, e->name_len);
	l->name[l->n][e->name_len] = 0;
	l->n++;
	return true;
}

#define NAMES 1500u

static void body_listing_survives_change(struct csvfs *fs)
{
	uint64_t d = mk(fs, root(fs), "d", S_IFDIR).ino, cookie = 0;
	static bool seen[NAMES];
	unsigned total = 0;
	char name[24];

	for (unsigned i = 0; i < NAMES; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		mk(fs, d, name, S_IFREG);
	}
	ck_assert_uint_eq(attr(fs, d).size, NAMES);
	/* in small bites; between them every third name goes and new ones come */
	for (unsigned round = 0;; round++) {
		ls.n = 0;
		ls.max = 37;
		OK(csvfs_readdir(fs, d, 0, cookie, take, &ls));
		if (ls.n == 0)
			break;
		for (unsigned i = 0; i < ls.n; i++) {
			unsigned k;

			ck_assert_uint_gt(ls.cookie[i], cookie);
			cookie = ls.cookie[i];
			total++;
			if (sscanf(ls.name[i], "f%u", &k) == 1) {
				ck_assert_msg(!seen[k], "%s is listed twice", ls.name[i]);
				seen[k] = true;
			}
		}
		snprintf(name, sizeof(name), "f%u", round * 3 % NAMES);
		if (has(fs, d, name) == 0)
			OK(csvfs_unlink(fs, d, 0, name));
		snprintf(name, sizeof(name), "new%u", round);
		mk(fs, d, name, S_IFREG);
	}
	ck_assert_uint_ge(total, NAMES - NAMES / 37 - 2);
	for (unsigned i = 0; i < NAMES; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		if (has(fs, d, name) == 0)
			ck_assert_msg(seen[i], "%s was there all the time and is not listed", name);
	}
	ls.n = 0;
	ls.max = 4000;
	OK(csvfs_readdir(fs, d, 0, 0, take, &ls));
	ck_assert_uint_eq(ls.n, attr(fs, d).size + 2);
	ck_assert_str_eq(ls.name[0], ".");
	ck_assert_str_eq(ls.name[1], "..");
	ck_assert_uint_eq(ls.cookie[0], 1);
	ck_assert_uint_eq(ls.cookie[1], 2);
	for (unsigned i = 2; i < ls.n; i++)
		OK(csvfs_unlink(fs, d, 0, ls.name[i]));
	OK(csvfs_rmdir(fs, root(fs), 0, "d"));
}
START_TEST(listing_survives_change) { on_new_volume(body_listing_survives_change); } END_TEST

/* Entries put under one hash by hand: the search must tell them apart by name. */
static void body_names_with_one_hash_have_indexes(struct csvfs *fs)
{
	struct csvfs_attr d = mk(fs, root(fs), "d", S_IFDIR), a = mk(fs, root(fs), "a", S_IFREG);
	uint64_t key = dir_key(fs->geo.hash_key, "one", 3);
	struct dir_entry e;
	struct iref r;

	ck_assert_uint_ge(key, 256);
	ck_assert_uint_eq(key >> 63, 0);
	ck_assert_uint_eq(key & 255, 0);
	OK(inode_get(fs, d.ino, 0, DLM_EX, 0, &r));
	IS(dir_find(&r, "one", &e), -ENOENT);
	ck_assert_uint_eq(e.key, key);
	inode_put(&r);
	OK(csvfs_link(fs, a.ino, 0, d.ino, 0, "one", &a));
	OK(inode_get(fs, d.ino, 0, DLM_EX, 0, &r));
	IS(dir_find(&r, "one", &e), 0);
	ck_assert_uint_eq(e.key, key);
	inode_put(&r);
}
START_TEST(names_with_one_hash_have_indexes) { on_new_volume(body_names_with_one_hash_have_indexes); } END_TEST

/* ---- entries that lie ----------------------------------------------------------------------------------------------------------- */

START_TEST(every_field_of_an_entry_is_checked)
{
	struct csv_geom g = { .total_blk = 1000000, .data_start_blk = 1000, .groups = 2, .hash_key = { 9 } };
	struct bt_item good = { .len = sizeof(struct csv_dirent) + 3 }, it;
	struct csv_dirent *d = (void *)good.val;
	struct dir_entry e;
	struct csv_err err;

	good.key = dir_key(g.hash_key, "abc", 3) + 2;
	le64_set(&d->ino, 5000);
	le32_set(&d->gen, 3);
	d->type = S_IFREG >> 12;
	d->name_len = 3;
	memcpy(good.val + sizeof(*d), "abc", 3);
	IS(dir_decode(&g, 77, &good, &e, &err), 0);
	ck_assert_str_eq(e.name, "abc");
	d = (void *)it.val;
#define LIE(change, field)                                                                     \
	do {                                                                                   \
		it = good;                                                                     \
		change;                                                                        \
		IS(dir_decode(&g, 77, &it, &e, &err), -CSV_E_CORRUPT);                         \
		ck_assert_msg(strstr(err.text, field) && strstr(err.text, "inode 77"), "%s", err.text); \
	} while (0)
	LIE(it.len = 5, "length");
	LIE(d->name_len = 4, "name_len");
	LIE(d->name_len = 0, "name_len");
	LIE(it.val[sizeof(*d)] = '/', "name");
	LIE(it.val[sizeof(*d) + 1] = 0, "name");
	LIE(it.val[sizeof(*d)] = 'x', "key");
	LIE(it.key |= 1ull << 63, "key");
	LIE(le64_set(&d->ino, 10), "ino");
	LIE(le64_set(&d->ino, 77), "ino");
	LIE(le64_set(&d->ino, 1ull << 45), "ino");
	LIE(le32_set(&d->gen, 0), "gen");
	LIE(d->type = 3, "type");
#undef LIE
}
END_TEST

/* ---- a random namespace -------------------------------------------------------------------------------------------------------------- */

#define NODES 40
#define POOL 12			/* different names */

/* The model: an array of inodes; a directory is an array of entries by name. */
struct mnode { bool used, dir; unsigned nlink; int ent[POOL]; int parent; uint64_t ino; };
static struct mnode m[NODES];
static struct csv_prng prng;
static unsigned did[8], done_ok[8];

static const char *pname(unsigned i)
{
	static char name[4][24];
	static unsigned k;

	k = (k + 1) % 4;
	snprintf(name[k], sizeof(name[k]), "name-%u", i);
	return name[k];
}

static int m_new(bool dir, int parent)
{
	for (int i = 1; i < NODES; i++) {
		if (m[i].used)
			continue;
		m[i] = (struct mnode){ .used = true, .dir = dir, .nlink = dir ? 2 : 1, .parent = parent };
		return i;
	}
	return -1;
}

static int any_dir(void)
{
	for (;;) {
		int i = (int)csv_prng_below(&prng, NODES);

		if (m[i].used && m[i].dir && (i == 0 || m[i].parent >= 0))
			return i;
	}
}

static bool m_empty(int d)
{
	for (unsigned i = 0; i < POOL; i++) {
		if (m[d].ent[i])
			return false;
	}
	return true;
}

static bool m_below(int x, int top)		/* is x top, or below it? */
{
	for (;; x = m[x].parent) {
		if (x == top)
			return true;
		if (x == 0)
			return false;
	}
}

static void m_drop(int x)
{
	if (m[x].dir) {
		m[m[x].parent].nlink--;
		m[x].used = false;
	} else if (--m[x].nlink == 0) {
		m[x].used = false;
	}
}

static void m_rename(struct csvfs *fs, int od, unsigned on, int nd, unsigned nn, unsigned flags)
{
	int s = m[od].ent[on], t = m[nd].ent[nn], want = 0;

	if (!s || (flags & RENAME_EXCHANGE && !t))
		want = -ENOENT;
	else if (flags & RENAME_NOREPLACE && t)
		want = -EEXIST;
	else if (!flags && t && t != s && m[s].dir != m[t].dir)
		want = m[s].dir ? -ENOTDIR : -EISDIR;
	else if (s == t)
		want = 0;
	else if (m[s].dir && m_below(nd, s))
		want = -EINVAL;
	else if (t && m[t].dir && m_below(od, t))
		want = flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
	else if (!flags && t && m[t].dir && !m_empty(t))
		want = -ENOTEMPTY;
	IS(csvfs_rename(fs, m[od].ino, 0, pname(on), m[nd].ino, 0, pname(nn), flags), want);
	if (want || s == t)
		return;
	done_ok[6]++;
	if (flags & RENAME_EXCHANGE) {
		m[od].ent[on] = t;
		m[nd].ent[nn] = s;
		if (m[t].dir) {
			m[nd].nlink--;
			m[od].nlink++;
			m[t].parent = od;
		}
	} else {
		if (t)
			m_drop(t);
		m[od].ent[on] = 0;
		m[nd].ent[nn] = s;
	}
	if (m[s].dir) {
		m[od].nlink--;
		m[nd].nlink++;
		m[s].parent = nd;
	}
}

static void one_op(struct csvfs *fs)
{
	unsigned op = (unsigned)csv_prng_below(&prng, 8), n = (unsigned)csv_prng_below(&prng, POOL), n2 = (unsigned)csv_prng_below(&prng, POOL);
	int d = any_dir(), d2 = any_dir(), x = m[d].ent[n], want = 0;
	struct csvfs_attr a;

	did[op]++;
	switch (op) {
	case 0:				/* create, mkdir */
	case 1:
		if (x) {
			IS(csvfs_create(fs, m[d].ino, 0, pname(n), op ? S_IFDIR : S_IFREG, 0, 0, 0, false, &a), -EEXIST);
			break;
		}
		x = m_new(op == 1, d);
		if (x < 0)
			break;
		OK(csvfs_create(fs, m[d].ino, 0, pname(n), op ? S_IFDIR : S_IFREG, 0, 0, 0, false, &a));
		m[x].ino = a.ino;
		m[d].ent[n] = x;
		m[d].nlink += m[x].dir;
		done_ok[op]++;
		break;
	case 2:				/* unlink */
		want = !x ? -ENOENT : m[x].dir ? -EISDIR : 0;
		IS(csvfs_unlink(fs, m[d].ino, 0, pname(n)), want);
		break;
	case 3:				/* rmdir */
		want = !x ? -ENOENT : !m[x].dir ? -ENOTDIR : !m_empty(x) ? -ENOTEMPTY : 0;
		IS(csvfs_rmdir(fs, m[d].ino, 0, pname(n)), want);
		break;
	case 4:				/* link */
		if (!x)
			break;
		want = m[x].dir ? -EPERM : m[d2].ent[n2] ? -EEXIST : 0;
		IS(csvfs_link(fs, m[x].ino, 0, m[d2].ino, 0, pname(n2), &a), want);
		if (!want) {
			m[d2].ent[n2] = x;
			m[x].nlink++;
			ck_assert_uint_eq(a.nlink, m[x].nlink);
			done_ok[4]++;
		}
		break;
	case 5:				/* lookup */
		IS(csvfs_lookup(fs, m[d].ino, 0, pname(n), &a), x ? 0 : -ENOENT);
		if (x) {
			ck_assert_uint_eq(a.ino, m[x].ino);
			ck_assert_uint_eq(a.nlink, m[x].nlink);
			done_ok[5]++;
		}
		break;
	case 6:
		m_rename(fs, d, n, d2, n2, 0);
		break;
	case 7:
		m_rename(fs, d, n, d2, n2, n2 % 2 ? RENAME_EXCHANGE : RENAME_NOREPLACE);
		break;
	}
	if ((op == 2 || op == 3) && !want) {
		m[d].ent[n] = 0;
		m_drop(x);
		done_ok[op]++;
	}
}

static unsigned found;
static bool count_entry(void *arg, const struct csvfs_dirent *e)
{
	const struct mnode *d = arg;
	unsigned k;

	found++;
	if (e->name[0] == '.')
		return true;
	ck_assert_int_eq(sscanf(e->name, "name-%u", &k), 1);
	ck_assert(k < POOL && d->ent[k]);
	ck_assert_uint_eq(e->ino, m[d->ent[k]].ino);
	return true;
}

static void same_namespace(struct csvfs *fs)
{
	for (int i = 0; i < NODES; i++) {
		unsigned n = 0;
		struct csvfs_attr a;

		if (!m[i].used)
			continue;
		a = attr(fs, m[i].ino);
		ck_assert_uint_eq(a.nlink, m[i].nlink);
		if (!m[i].dir)
			continue;
		for (unsigned k = 0; k < POOL; k++) {
			n += m[i].ent[k] != 0;
			IS(csvfs_lookup(fs, m[i].ino, 0, pname(k), &a), m[i].ent[k] ? 0 : -ENOENT);
		}
		found = 0;
		OK(csvfs_readdir(fs, m[i].ino, 0, 0, count_entry, &m[i]));
		ck_assert_uint_eq(found, n + 2);
		ck_assert_uint_eq(look(fs, m[i].ino, "..").ino, m[i ? m[i].parent : 0].ino);
	}
}

static void run_ops(struct csvfs *fs)
{
	m[0].ino = root(fs);
	for (unsigned i = 0; i < 1000; i++)
		one_op(fs);
	same_namespace(fs);
}

static void start_model(uint64_t seed)
{
	memset(m, 0, sizeof(m));
	memset(did, 0, sizeof(did));
	memset(done_ok, 0, sizeof(done_ok));
	m[0] = (struct mnode){ .used = true, .dir = true, .nlink = 2 };
	csv_prng_init(&prng, seed);
}

START_TEST(a_namespace_is_what_was_done_to_it)
{
	start_model(500 + (uint64_t)_i);
	cw_setup();
	cw_mount(1);
	on_node(1, run_ops);
	cw_umount(1);
	ck_assert_uint_eq(cc_check(), 0);
	cw_mount(1);
	on_node(1, same_namespace);
	on_node(1, run_ops);
	cw_umount(1);
	ck_assert_uint_eq(cc_check(), 0);
	cw_teardown();
	for (unsigned i = 0; i < 7; i++)
		ck_assert_msg(done_ok[i] > 1, "operation %u succeeded %u times only", i, done_ok[i]);
}
END_TEST

/* The operations go to two nodes in turn; each must see what the other did. */
START_TEST(a_namespace_is_the_same_on_two_nodes)
{
	start_model(900 + (uint64_t)_i);
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	m[0].ino = root(cw_n(1)->fs);
	for (unsigned i = 0; i < 400; i++)
		on_node(1 + (unsigned)csv_prng_below(&prng, 2), one_op);
	on_node(2, same_namespace);
	on_node(1, same_namespace);
	cw_umount(2);
	cw_umount(1);
	ck_assert_uint_eq(cc_check(), 0);
	cw_teardown();
}
END_TEST

UNIT_MAIN("dir", UNIT_TEST(listing_survives_change), UNIT_TEST(names_with_one_hash_have_indexes),
	  UNIT_TEST(every_field_of_an_entry_is_checked), UNIT_LOOP(a_namespace_is_what_was_done_to_it, 0, 4),
	  UNIT_LOOP(a_namespace_is_the_same_on_two_nodes, 0, 2))
