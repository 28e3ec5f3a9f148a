/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * names.c - see names.h.
 */
#include "csvfs/names.h"

#include <stdlib.h>
#include <string.h>

#include "csvfs/csvfs_format.h"
#include "utils/base/base.h"
#include "utils/base/text.h"

#define PLACES 256u
#define DEPTH_MAX 64u

struct place { uint64_t ino, dir; char name[CSV_NAME_MAX + 1]; };
struct names { uint64_t root; struct place place[PLACES]; };

static unsigned place_of(uint64_t ino)
{
	return (unsigned)((ino * 0x9e3779b97f4a7c15ull) >> 56);
}

struct names *names_new(uint64_t root_ino)
{
	struct names *t = calloc(1, sizeof(*t));

	if (t)
		t->root = root_ino;
	return t;
}

void names_free(struct names *t)
{
	free(t);
}

void names_seen(struct names *t, uint64_t dir, const char *name, uint64_t ino)
{
	struct place *p = t ? &t->place[place_of(ino)] : NULL;
	size_t len = strlen(name);

	if (!p || ino == t->root || len >= sizeof(p->name) || !strcmp(name, ".") || !strcmp(name, ".."))
		return;
	p->ino = ino;
	p->dir = dir;
	memcpy(p->name, name, len + 1);
}

/* In front of what is there. */
static void put_before(char *buf, size_t *at, const char *s, size_t len)
{
	csv_assert(len <= *at);
	*at -= len;
	memcpy(buf + *at, s, len);
}

bool names_path(const struct names *t, uint64_t ino, char ret[NAMES_PATH_BYTES])
{
	static const char cut[] = "...";
	char buf[NAMES_PATH_BYTES];
	size_t at = sizeof(buf) - 1;
	unsigned depth = 0;

	ret[0] = '\0';
	buf[at] = '\0';
	for (uint64_t i = ino; t && i != t->root; depth++) {
		const struct place *p = &t->place[place_of(i)];
		size_t len = strlen(p->name);

		if (p->ino != i || !*p->name || depth == DEPTH_MAX)
			return false;
		/* Room for what says that more comes before. */
		bool all = len + 1 + sizeof(cut) <= at;
		size_t fits = all ? len : csv_min(len, at - sizeof(cut));

		if (depth)
			put_before(buf, &at, "/", 1);
		put_before(buf, &at, p->name + len - fits, fits);
		if (!all) {
			put_before(buf, &at, cut, sizeof(cut) - 1);
			break;
		}
		i = p->dir;
	}
	if (!buf[at])
		return false;
	memcpy(ret, buf + at, sizeof(buf) - at);
	csv_text_clean(ret);
	return true;
}
