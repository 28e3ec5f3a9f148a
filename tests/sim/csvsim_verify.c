/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_verify.c - everything, compared with the model, when nobody is at work.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/sim/csvsim_work.h"
#include "utils/base/base.h"

struct tree { unsigned n, cap; struct { char name[256]; uint64_t ino; uint32_t gen; } *e; };

static bool tree_entry(void *arg, const struct csvfs_dirent *e)
{
	struct tree *t = arg;

	if (e->name[0] == '.')
		return true;
	if (t->n == t->cap) {
		t->cap = t->cap ? 2 * t->cap : 64;
		t->e = realloc(t->e, t->cap * sizeof(*t->e));
		csv_assert(t->e);
	}
	memcpy(t->e[t->n].name, e->name, e->name_len);
	t->e[t->n].name[e->name_len] = 0;
	t->e[t->n].ino = e->ino;
	t->e[t->n++].gen = e->gen;
	return true;
}

static void read_tagged(struct cs_worker *w, uint64_t ino, uint32_t gen, const char *name)
{
	uint8_t *buf = malloc(CS_BUF_BYTES);
	uint64_t off = 0;
	size_t bad = 0;
	ssize_t n;

	csv_assert(buf);
	do {
		n = csvfs_read(w->n->fs, ino, gen, off, buf, CS_BUF_BYTES);
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
	struct tree t = { 0 };

	if (depth < 12 && cs_judge(w, csvfs_readdir(w->n->fs, dir, 0, 0, tree_entry, &t), "final readdir"))
		for (unsigned i = 0; i < t.n && !w->n->sim->failed; i++) {
			struct csvfs_attr a;

			if (!cs_judge(w, csvfs_lookup(w->n->fs, dir, 0, t.e[i].name, &a), "final lookup"))
				break;
			if (a.ino != t.e[i].ino || a.gen != t.e[i].gen)
				cs_fail(w->n->sim, "n%u: %s is inode %" PRIu64 ", readdir says %" PRIu64, w->n->node, t.e[i].name, a.ino, t.e[i].ino);
			if (S_ISDIR(a.mode))
				walk(w, a.ino, depth + 1);
			else if (S_ISREG(a.mode) && (t.e[i].name[0] == 'n' || t.e[i].name[0] == 'x'))
				read_tagged(w, a.ino, a.gen, t.e[i].name);
		}
	free(t.e);
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
			cs_work_look(w, &s->name[d][i], &st);
		}
		cs_work_list(w, d);
	}
	if (s->opt.disk && !w->n->disk_open)
		cs_fail(s, "n%u: the disk is not open at the end", node);
	for (unsigned i = 0; i < s->n_files && !s->failed; i++)
		for (uint32_t at = 0; at < s->file[i].sectors && !s->failed; at += 64)
			cs_work_read(w, &s->file[i], at, 64, "final read");
	walk(w, s->root, 0);
}
