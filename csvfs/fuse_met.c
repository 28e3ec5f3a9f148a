/* SPDX-License-Identifier: GPL-2.0-only */
/* fuse_met.c - see fuse_met.h. */
#include "csvfs/fuse_met.h"

#include <stdio.h>
#include <string.h>

void met_remember(struct mets *t, pid_t tid, uint64_t dir, const char *name, uint64_t ino, uint32_t gen, uint64_t now_ns)
{
	struct met *m = &t->m[t->next++ % METS];

	if (!tid)
		return;
	*m = (struct met){ .tid = tid, .dir = dir, .ino = ino, .gen = gen, .until_ns = now_ns + MET_NS };
	snprintf(m->name, sizeof(m->name), "%s", name);
}

bool met_take(struct mets *t, pid_t tid, uint64_t dir, const char *name, uint64_t now_ns, uint64_t *ret_ino, uint32_t *ret_gen)
{
	bool found = false;

	for (unsigned i = 0; tid && i < METS; i++) {
		struct met *m = &t->m[i];

		if (m->tid != tid || m->dir != dir || strcmp(m->name, name))
			continue;
		m->tid = 0;
		if (now_ns >= m->until_ns)
			continue;
		*ret_ino = m->ino;
		*ret_gen = m->gen;
		found = true;
	}
	return found;
}

void met_forget(struct mets *t, pid_t tid)
{
	for (unsigned i = 0; tid && i < METS; i++)
		if (t->m[i].tid == tid)
			t->m[i].tid = 0;
}

/* no directory has the number 0 */
void met_stale(struct mets *t, pid_t tid, uint64_t now_ns)
{
	met_remember(t, tid, 0, "", 0, 0, now_ns);
}

bool met_stale_take(struct mets *t, pid_t tid, uint64_t now_ns)
{
	uint64_t ino;
	uint32_t gen;

	return met_take(t, tid, 0, "", now_ns, &ino, &gen);
}
