/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_work_name.c - operations on the names of the model: asked, answered, and told to the model (csvsim_name.c).
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "tests/sim/csvsim_work.h"
#include "utils/base/base.h"

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
	struct cs_name *n = &w->n->sim->name[cs_below(w, CS_DIRS)][cs_below(w, CS_NAMES)];

	if (!cs_name_take(n))
		return NULL;
	w->pend.p[w->pend.n].name = n;
	w->pend.p[w->pend.n++].change = false;
	return n;
}

void cs_work_give(struct cs_worker *w)
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
	bool counts = !cs_uncertain(w, ret), refused = cs_refused(w, ret);

	for (unsigned i = 0; i < w->pend.n; i++) {
		if (w->pend.p[i].change && refused)
			cs_name_refused(w->n->sim, w->pend.p[i].name, w->n->self, w->pend.p[i].to);
		else if (w->pend.p[i].change && !counts)
			cs_name_maybe(w->n->sim, w->pend.p[i].name, w->pend.p[i].to);
		w->pend.p[i].change = false;
	}
	return counts;
}

/* false: no answer, or not what it may be.  ret_st: what it is. */
bool cs_work_look(struct cs_worker *w, struct cs_name *n, struct cs_state *ret_st)
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
	if (n->cur.n != 1 || (n->cur.s[0].kind != CS_NONE && !n->cur.s[0].ino) || cs_chance(w, 1, 3))
		return cs_work_look(w, n, ret_st);
	*ret_st = n->cur.s[0];
	return true;
}

/* An answer `ret` where `want` (0 or an error) was the only possible one; ENOSPC and friends: judged. */
static bool expect(struct cs_worker *w, struct cs_name *n, const char *op, int ret, int want)
{
	char text[400];

	if (ret == want)
		return ret == 0;
	if (ret == -ENOSPC || ret == -EINTR || cs_uncertain(w, ret)) {
		cs_judge(w, ret, op);
		if (!w->n->sim->failed)
			return false;
	}
	cs_fail(w->n->sim, "G1: n%u %s: answered %d (%s), must be %d; %s", w->n->node, op, ret, csv_err_describe(ret), want,
		cs_name_describe(n, text, sizeof(text)));
	return false;
}

/*
 * `st` was known of the name when the operation began.  Who changed it last may have died meanwhile without having made it durable:
 * then it may be again what it was before, and both answers are in order.
 */
static bool unsure(const struct cs_name *n, struct cs_state st)
{
	const struct cs_state *c = &n->cur.s[0];

	return n->cur.n != 1 || c->kind != st.kind || (st.kind != CS_NONE && (c->ino != st.ino || c->gen != st.gen));
}

void cs_work_make(struct cs_worker *w, bool dir)
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
	if (unsure(n, st) ? cs_soft(w, ret, "create") : expect(w, n, dir ? "mkdir" : "create", ret, st.kind == CS_NONE ? 0 : -EEXIST))
		cs_name_changed(w->n->sim, n, w->n->self, state_of(&a));
}

void cs_work_remove(struct cs_worker *w, bool dir)
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
	if (unsure(n, st)) {
		if (cs_soft(w, ret, "remove"))
			cs_name_changed(w->n->sim, n, w->n->self, none);
		return;
	}
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

/* Each of what one name may have been is now the other; two names of one file stay as they are. */
static void renamed_unsure(struct cs_worker *w, struct cs_name *a, struct cs_name *b, unsigned flags)
{
	struct cs_states ca = a->cur, cb = b->cur;
	struct cs_state none = { .kind = CS_NONE };

	cs_name_changed(w->n->sim, a, w->n->self, flags & REN_EXCHANGE ? cb.s[0] : none);
	cs_name_changed(w->n->sim, b, w->n->self, ca.s[0]);
	for (unsigned i = 0; i < ca.n; i++) {
		cs_name_maybe(w->n->sim, b, ca.s[i]);
		for (unsigned k = 0; k < cb.n; k++)
			if (ca.s[i].kind != CS_NONE && cb.s[k].kind != CS_NONE && ca.s[i].ino == cb.s[k].ino)
				cs_name_maybe(w->n->sim, a, ca.s[i]);
	}
	for (unsigned k = 0; k < cb.n && flags & REN_EXCHANGE; k++)
		cs_name_maybe(w->n->sim, a, cb.s[k]);
}

void cs_work_rename(struct cs_worker *w)
{
	struct cs_name *a = pick(w), *b = a ? pick(w) : NULL;
	struct cs_state sa, sb, none = { .kind = CS_NONE };
	unsigned flags = cs_chance(w, 1, 4) ? REN_EXCHANGE : cs_chance(w, 1, 4) ? REN_NOREPLACE : 0;
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
	if (unsure(a, sa) || unsure(b, sb)) {
		if (cs_soft(w, ret, "rename"))
			renamed_unsure(w, a, b, flags);
		return;
	}
	if (want == 0 && !(flags & REN_EXCHANGE) && sb.kind == CS_DIR && ret == -ENOTEMPTY)
		return;
	if (!expect(w, a, "rename", ret, want) || (sa.ino == sb.ino && sb.kind != CS_NONE))
		return;
	cs_name_changed(w->n->sim, a, w->n->self, flags & REN_EXCHANGE ? sb : none);
	cs_name_changed(w->n->sim, b, w->n->self, sa);
}

void cs_work_link(struct cs_worker *w)
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
	if (unsure(a, sa) || unsure(b, sb) ? cs_soft(w, ret, "link") : expect(w, b, "link", ret, want))
		cs_name_changed(w->n->sim, b, w->n->self, sa);
}

void cs_work_file(struct cs_worker *w)
{
	struct cs_name *n = pick(w);
	struct csvfs_attr a;
	struct cs_state st;
	int ret;

	if (!n || !know(w, n, &st) || st.kind != CS_FILE)
		return;
	switch (cs_below(w, 4)) {
	case 0:
		cs_tag_write(w, st.ino, st.gen);
		break;
	case 1:
		cs_tag_read(w, st.ino, st.gen);
		break;
	case 2:
		cs_tag_resize(w, st.ino, st.gen);
		break;
	case 3:
		ret = csvfs_getattr(w->n->fs, st.ino, st.gen, &a);
		if (!answered(w, ret))
			break;
		cs_count(w->n->sim, "op.stat");
		if ((unsure(n, st) ? cs_soft(w, ret, "stat") : cs_judge(w, ret, "stat")) && (a.ino != st.ino || a.gen != st.gen || !a.nlink || !S_ISREG(a.mode)))
			cs_fail(w->n->sim, "G1: n%u stat: inode %" PRIu64 ".%u: nlink %u, mode %o", w->n->node, a.ino, a.gen, a.nlink, a.mode);
		break;
	}
}

void cs_work_lookup(struct cs_worker *w)
{
	struct cs_name *n = pick(w);
	struct cs_state st;

	if (n)
		cs_work_look(w, n, &st);
}

/* ---- making durable ---------------------------------------------------------------------------------------------------------------- */

void cs_work_fsync_name(struct cs_worker *w)
{
	struct cs_name *n = pick(w);
	struct cs_state st;
	int ret;

	if (!n || !know(w, n, &st) || st.kind == CS_NONE)
		return;
	ret = csvfs_fsync(w->n->fs, st.ino, st.gen, cs_chance(w, 1, 2));
	if (!answered(w, ret))
		return;
	cs_count(w->n->sim, "op.fsync");
	if (!(unsure(n, st) ? cs_soft(w, ret, "fsync") : cs_judge(w, ret, "fsync")))
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
void cs_work_sync(struct cs_worker *w)
{
	struct cs_sim *s = w->n->sim;
	unsigned dir = (unsigned)cs_below(w, CS_DIRS + 1);
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
	for (unsigned i = 0; dir == CS_DIRS && i < s->n_files; i++)
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

void cs_work_list(struct cs_worker *w, unsigned d)
{
	struct cs_sim *s = w->n->sim;
	struct listing l = { .w = w };
	struct versions v;
	int ret;

	versions_take(s, &v);
	do {
		l.left = 1 + (unsigned)cs_below(w, 12);
		l.in_call = 0;
		ret = csvfs_readdir(w->n->fs, s->dir[d], 0, l.cookie, list_entry, &l);
		if (cs_uncertain(w, ret) || !cs_judge(w, ret, "readdir"))
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
