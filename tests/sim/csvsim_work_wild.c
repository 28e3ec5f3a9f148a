/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_work_wild.c - operations that collide as they like: of those only the structure, and whose bytes they are, is checked.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/sim/csvsim_work.h"
#include "utils/base/base.h"

#define WILD_NAMES 24u
#define WILD_NAMES_BIG 160u		/* of 200 bytes each: directories of many blocks */
#define WILD_BIG_BYTES 200u

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
	static const uint8_t zero[8];
	uint64_t tag = tag_of(ino, gen);
	uint8_t want[8];

	for (size_t k = 0; k < 8; k++)
		want[k] = (uint8_t)(tag >> (off + k) % 8 * 8);
	for (size_t i = 0; i < len; i++) {
		if (i % 8 == 0 && i + 8 <= len && (!memcmp(buf + i, want, 8) || !memcmp(buf + i, zero, 8))) {
			i += 7;
			continue;
		}
		if (buf[i] && buf[i] != want[i % 8]) {
			*ret_bad = i;
			return false;
		}
	}
	return true;
}

/* ---- operations on them: bytes that tell whose they are ------------------------------------------------------------------------ */

void cs_tag_write(struct cs_worker *w, uint64_t ino, uint32_t gen)
{
	uint64_t off = cs_chance(w, 1, 3) ? cs_below(w, 512) * 8192 : cs_below(w, 40000);
	size_t len = 1 + (size_t)cs_below(w, cs_chance(w, 1, 4) ? CS_BUF_BYTES : 6000);
	uint8_t *buf = malloc(len);
	ssize_t n;

	csv_assert(buf);
	cs_tag_fill(ino, gen, off, buf, len);
	n = csvfs_write(w->n->fs, ino, gen, off, buf, len, 0, NULL);
	cs_count(w->n->sim, "op.write");
	cs_soft(w, n, "write");
	free(buf);
}

void cs_tag_read(struct cs_worker *w, uint64_t ino, uint32_t gen)
{
	uint64_t off = cs_chance(w, 1, 3) ? cs_below(w, 512) * 8192 : cs_below(w, 40000);
	size_t len = 1 + (size_t)cs_below(w, CS_BUF_BYTES), bad = 0;
	uint8_t *buf = malloc(len);
	ssize_t n;

	csv_assert(buf);
	n = csvfs_read(w->n->fs, ino, gen, off, buf, len);
	cs_count(w->n->sim, "op.read");
	if (cs_soft(w, n, "read") && !cs_worker_dead(w) && !cs_tag_check(ino, gen, off, buf, (size_t)n, &bad))
		cs_fail(w->n->sim, "n%u read: inode %" PRIu64 ".%u has 0x%02x at byte %" PRIu64 ", which nobody wrote to it", w->n->node, ino,
			gen, buf[bad], off + bad);
	free(buf);
}

void cs_tag_resize(struct cs_worker *w, uint64_t ino, uint32_t gen)
{
	struct csvfs_attr set = { .size = cs_below(w, cs_chance(w, 1, 2) ? 60000 : 5 << 20) }, a;
	static const int mode[] = { 0, CSVFS_FALLOC_KEEP_SIZE, CSVFS_FALLOC_PUNCH_HOLE | CSVFS_FALLOC_KEEP_SIZE, CSVFS_FALLOC_ZERO_RANGE };
	int ret;

	if (cs_chance(w, 1, 2)) {
		ret = csvfs_setattr(w->n->fs, ino, gen, &set, CSVFS_SET_SIZE, &a);
		cs_count(w->n->sim, "op.truncate");
	} else {
		ret = csvfs_fallocate(w->n->fs, ino, gen, mode[cs_below(w, ARRAY_SIZE(mode))], cs_below(w, 1 << 20), 1 + cs_below(w, 300000));
		cs_count(w->n->sim, "op.fallocate");
	}
	cs_soft(w, ret, "resize");
}

/* ---- wild ones ------------------------------------------------------------------------------------------------------------------------------ */

static uint64_t wild_dir(struct cs_worker *w)
{
	struct cs_sim *s = w->n->sim;
	const struct cs_name *n = &s->name[cs_below(w, CS_DIRS)][cs_below(w, CS_NAMES)];

	if (cs_chance(w, 1, 3) && n->cur.s[0].kind == CS_DIR && n->cur.s[0].ino)
		return n->cur.s[0].ino;
	return s->dir[cs_below(w, CS_DIRS)];
}

static void wild_name(struct cs_worker *w, char *ret, size_t size)
{
	bool big = w->n->sim->big_dirs;
	int len = snprintf(ret, size, "x%u", (unsigned)cs_below(w, big ? WILD_NAMES_BIG : WILD_NAMES));

	if (!big)
		return;
	memset(ret + len, 'y', WILD_BIG_BYTES - (size_t)len);
	ret[WILD_BIG_BYTES] = 0;
}

void cs_work_wild(struct cs_worker *w)
{
	struct csvfs *fs = w->n->fs;
	uint64_t d = wild_dir(w), d2 = wild_dir(w);
	struct csvfs_attr a;
	char n[WILD_BIG_BYTES + 1], n2[WILD_BIG_BYTES + 1];
	int ret;

	wild_name(w, n, sizeof(n));
	wild_name(w, n2, sizeof(n2));
	cs_count(w->n->sim, "op.wild");
	switch (cs_below(w, 16)) {
	case 0: case 1: case 2:
		cs_soft(w, csvfs_create(fs, d, 0, n, S_IFREG | 0644, 0, 0, 0, false, &a), "create");
		return;
	case 3:
		cs_soft(w, csvfs_create(fs, d, 0, n, S_IFDIR | 0755, 0, 0, 0, false, &a), "mkdir");
		return;
	case 4: case 5:
		cs_soft(w, csvfs_unlink(fs, d, 0, n), "unlink");
		return;
	case 6:
		cs_soft(w, csvfs_rmdir(fs, d, 0, n), "rmdir");
		return;
	case 7: case 8:
		cs_soft(w, csvfs_rename(fs, d, 0, n, d2, 0, n2, cs_chance(w, 1, 3) ? REN_EXCHANGE : 0), "rename");
		return;
	case 9:
		cs_soft(w, csvfs_symlink(fs, d, 0, n, "somewhere/else", 0, 0, &a), "symlink");
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
	if (!cs_soft(w, ret, "lookup"))
		return;
	switch (cs_below(w, 6)) {
	case 0:
		cs_soft(w, csvfs_link(fs, a.ino, a.gen, d2, 0, n2, &a), "link");
		break;
	case 1: case 2:
		if (S_ISREG(a.mode))
			cs_tag_write(w, a.ino, a.gen);
		break;
	case 3:
		if (S_ISREG(a.mode))
			cs_tag_read(w, a.ino, a.gen);
		break;
	case 4:
		if (S_ISREG(a.mode))
			cs_tag_resize(w, a.ino, a.gen);
		break;
	case 5:
		if (!w->opened && cs_soft(w, csvfs_open(fs, a.ino, a.gen), "open")) {
			w->opened = a.ino;
			cs_count(w->n->sim, "op.open");
			if (cs_chance(w, 1, 2) && !S_ISDIR(a.mode)) {
				cs_soft(w, csvfs_unlink(fs, d, 0, n), "unlink");
				if (S_ISREG(a.mode))
					cs_tag_read(w, a.ino, a.gen);
			}
		}
		break;
	}
}
