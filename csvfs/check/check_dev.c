/* SPDX-License-Identifier: GPL-2.0-only */
/* check_dev.c - reading through the overlay of the journals, findings, and the table of 64-bit keys. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "csvfs/check/check_internal.h"
#include "utils/base/prng.h"

/* ---- table --------------------------------------------------------------------------------------------------------- */

static uint64_t slot_of(const struct ck_table *t, uint64_t key)
{
	uint64_t x = key, i = csv_splitmix64(&x) & t->mask;

	while (t->e[i].val && t->e[i].key != key)
		i = (i + 1) & t->mask;
	return i;
}

void *ck_table_get(const struct ck_table *t, uint64_t key)
{
	return t->e ? t->e[slot_of(t, key)].val : NULL;
}

int ck_table_put(struct ck_table *t, uint64_t key, void *val)
{
	uint64_t i;

	if (!t->e || t->n * 4 >= (t->mask + 1) * 3) {
		struct ck_table big = { .mask = t->e ? 2 * t->mask + 1 : 1023, .n = t->n };

		big.e = calloc(big.mask + 1, sizeof(*big.e));
		if (!big.e)
			return -ENOMEM;
		for (i = 0; t->e && i <= t->mask; i++)
			if (t->e[i].val)
				big.e[slot_of(&big, t->e[i].key)] = t->e[i];
		free(t->e);
		*t = big;
	}
	i = slot_of(t, key);
	csv_assert(!t->e[i].val);
	t->e[i].key = key;
	t->e[i].val = val;
	t->n++;
	return 0;
}

void ck_table_free(struct ck_table *t)
{
	for (uint64_t i = 0; t->e && i <= t->mask; i++)
		free(t->e[i].val);
	free(t->e);
	*t = (struct ck_table){ 0 };
}

void ck_table_forget(struct ck_table *t)
{
	free(t->e);
	*t = (struct ck_table){ 0 };
}

/* ---- findings -------------------------------------------------------------------------------------------------------- */

static void report(struct ck *c, enum check_level level, const char *fmt, va_list ap)
{
	uint32_t max = c->o->max_lines ? c->o->max_lines : 1000;
	char line[640];

	if (level == CHECK_ERROR && c->lines++ >= max) {
		if (c->lines == max + 1 && c->o->report)
			c->o->report(c->o->arg, CHECK_NOTE, "more errors are only counted");
		return;
	}
	if (!c->o->report)
		return;
	vsnprintf(line, sizeof(line), fmt, ap);
	c->o->report(c->o->arg, level, line);
}

void ck_finding(struct ck *c, const char *fmt, ...)
{
	va_list ap;

	if (c->quiet)
		return;
	c->res->errors++;
	va_start(ap, fmt);
	report(c, CHECK_ERROR, fmt, ap);
	va_end(ap);
}

void ck_note(struct ck *c, const char *fmt, ...)
{
	va_list ap;

	if (c->quiet)
		return;
	c->res->notes++;
	va_start(ap, fmt);
	report(c, CHECK_NOTE, fmt, ap);
	va_end(ap);
}

int ck_fatal(struct ck *c, int code, const char *fmt, ...)
{
	va_list ap;

	if (c->fatal)
		return c->fatal;
	c->fatal = code;
	va_start(ap, fmt);
	csv_err_vset(c->err, code, fmt, ap);
	va_end(ap);
	return code;
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

int ck_read(struct ck *c, uint64_t blkno, void *buf)
{
	const void *over = ck_table_get(&c->overlay, blkno);
	int r;

	if (c->fatal)
		return c->fatal;
	if (over) {
		memcpy(buf, over, CSV_BLOCK_SIZE);
		return 0;
	}
	r = blk_read(c->dev, blkno << CSV_BLOCK_SHIFT, buf, CSV_BLOCK_SIZE);
	return r < 0 ? ck_fatal(c, r, "block %" PRIu64 ": read: %s", blkno, csv_err_describe(r)) : 0;
}

static int home_read(struct jnl_home *h, uint64_t blkno, void *buf)
{
	return ck_read(container_of(h, struct ck, home), blkno, buf);
}

static int home_write(struct jnl_home *h, uint64_t blkno, const void *buf)
{
	struct ck *c = container_of(h, struct ck, home);
	void *block = ck_table_get(&c->overlay, blkno);
	int r;

	if (!block) {
		block = malloc(CSV_BLOCK_SIZE);
		if (!block)
			return -ENOMEM;
		r = ck_table_put(&c->overlay, blkno, block);
		if (r < 0) {
			free(block);
			return r;
		}
	}
	memcpy(block, buf, CSV_BLOCK_SIZE);
	return 0;
}

void ck_overlay_init(struct ck *c)
{
	c->home = (struct jnl_home){ .read = home_read, .write = home_write };
}

bool ck_all_zero(const void *p, size_t n)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < n; i++)
		if (b[i])
			return false;
	return true;
}

bool ck_mhdr_reserved(struct ck *c, const void *block, const char *what)
{
	const struct csv_mhdr *h = block;

	if (!le32_get(h->reserved0) && ck_all_zero(h->reserved1, sizeof(h->reserved1)))
		return true;
	ck_finding(c, "%s: block %" PRIu64 ": field reserved0 = %u, reserved1 = %" PRIx64 " %" PRIx64 ": must be 0", what,
		   le64_get(h->blkno), le32_get(h->reserved0), le64_get(h->reserved1[0]), le64_get(h->reserved1[1]));
	return false;
}

bool ck_read_meta(struct ck *c, uint64_t blkno, uint32_t magic, struct csv_owner owner, void *buf, const char *what)
{
	const struct csv_mhdr *h = buf;
	struct csv_err err = CSV_ERR_INIT;
	uint32_t group = csv_group_of(&c->g, blkno);

	if (ck_read(c, blkno, buf) < 0)
		return false;
	if (mhdr_check(buf, c->g.uuid, magic, blkno, &owner, &err) < 0) {
		ck_finding(c, "%s: %s", what, err.text);
		return false;
	}
	ck_mhdr_reserved(c, buf, what);
	if (!le64_get(h->generation))
		ck_finding(c, "%s: block %" PRIu64 ": field generation = 0: must be at least 1", what, blkno);
	if (group != CSV_NO_GROUP)
		c->max_gen[group] = csv_max(c->max_gen[group], le64_get(h->generation));
	return true;
}
