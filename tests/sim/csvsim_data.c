/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_data.c - what each sector of the files with a data model may contain.
 *
 * A sector is a register.  A read that ran from rs to re may return the value of a write w that began before re, unless another write
 * that certainly happened began after w ended and ended before rs.  A write that did not get its answer may happen until the life that
 * asked for it is fenced.  A crash makes what its node wrote and nobody synced or saw elsewhere doubtful, unless it had given its slot
 * back itself (R9, R11); a power loss of the array what nobody synced.  What was read is certain again.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/csvsim.h"
#include "utils/base/base.h"

#define NEVER UINT64_MAX

/* --watch: the life of one sector, for people. */
static void watched(struct cs_sim *s, const struct cs_sector *c, const char *what, struct cluster_node by, uint64_t value)
{
	if (!s->opt.watch || c != &s->file[s->opt.watch_file].sec[s->opt.watch_sector])
		return;
	printf("watch: %.6f s, step %" PRIu64 ": n%u.%" PRIu64 " %s %" PRIu64 ":", (double)sim_world_now_ns(s->w) / 1e9, cs_now(s), by.nodeid,
	       by.incarnation, what, value);
	for (unsigned i = 0; i < c->n; i++) {
		const struct cs_write *w = &c->w[i];

		printf(" [%" PRIu64 " n%u %" PRIu64 "..%" PRId64 "%s%s%s]", w->value, w->by.nodeid, w->start, (int64_t)w->end,
		       w->durable ? " durable" : "", w->seen ? " seen" : "", w->maylost ? " may be lost" : "");
	}
	printf("\n");
}

void cs_data_init(struct cs_sim *s)
{
	s->n_files = CS_FILES + s->opt.disk;
	for (unsigned i = 0; i < s->n_files; i++) {
		struct cs_file *f = &s->file[i];

		f->kind = i < 3 ? CS_PLAIN : i < 5 ? CS_IMAGE : i < CS_FILES ? CS_APPEND : CS_DISK;
		f->sectors = f->kind == CS_PLAIN ? 128 : f->kind == CS_IMAGE ? 512 : f->kind == CS_APPEND ? 8192 : 16384;
		snprintf(f->name, sizeof(f->name), "f%u", i);
		f->sec = calloc(f->sectors, sizeof(*f->sec));
		csv_assert(f->sec);
		for (uint32_t k = 0; k < f->sectors; k++) {
			f->sec[k].w = calloc(4, sizeof(*f->sec[k].w));
			csv_assert(f->sec[k].w);
			f->sec[k].cap = 4;
			f->sec[k].n = 1;
			f->sec[k].w[0].durable = true;	/* zeros, from the beginning */
		}
	}
	s->next_value = 1;
}

/* Is `v` gone from sight for whoever looks from `from` on? */
static bool overwritten(const struct cs_sector *c, const struct cs_write *v, uint64_t from, bool for_ever)
{
	for (unsigned i = 0; i < c->n; i++) {
		const struct cs_write *w = &c->w[i];

		if (w != v && !w->maylost && w->end != NEVER && w->start > v->end && w->end < from && (!for_ever || w->durable))
			return true;
	}
	return false;
}

/*
 * No read under way, and none that is still to come, began before this step.  Until then a value that was overwritten may still be
 * returned: a read of 304 that began before the write of 331 ended,
 *
 *	n2: read begins ............................. 304
 *	n3:          write 331 ends, fsync: durable
 *
 * is in order, for it is one of before and after.  So what is overwritten for ever goes from the model when the overwriting ended
 * before the oldest read began: overwritten() is then true of it for every read, for ever.
 */
static uint64_t oldest_read(const struct cs_sim *s)
{
	uint64_t oldest = cs_now(s);

	for (unsigned i = 1; i <= s->opt.nodes; i++) {
		const struct cs_node *n = &s->node[i];

		for (unsigned k = 0; k < CS_WORKERS + CS_DP_THREADS; k++) {
			const struct cs_worker *w = k < CS_WORKERS ? &n->w[k] : &n->d[k - CS_WORKERS].w;

			if (w->reading && w->reading < oldest)
				oldest = w->reading;
		}
	}
	return oldest;
}

static void prune(struct cs_sector *c, uint64_t from)
{
	unsigned out = 0;

	for (unsigned i = 0; i < c->n; i++)
		if (!overwritten(c, &c->w[i], from, true)) {
			struct cs_write w = c->w[i];

			/* Kept in order; what is dropped is moved behind, so that overwritten() sees all of them meanwhile. */
			memmove(&c->w[out + 1], &c->w[out], (i - out) * sizeof(w));
			c->w[out++] = w;
		}
	c->n = out;
}

static struct cs_write *add(struct cs_sector *c, struct cs_write w, uint64_t from)
{
	prune(c, from);
	if (c->n == c->cap) {
		c->cap *= 2;
		c->w = realloc(c->w, c->cap * sizeof(*c->w));
		csv_assert(c->w);
	}
	c->w[c->n] = w;
	return &c->w[c->n++];
}

/* The token is the time of the beginning: two of one node do not begin in one step. */
void cs_data_begin(struct cs_sim *s, struct cs_file *f, uint32_t first, uint32_t count, struct cluster_node by, uint64_t value,
		   uint64_t *ret_token)
{
	uint64_t from = oldest_read(s);

	csv_assert(first + count <= f->sectors);
	for (uint32_t i = first; i < first + count; i++) {
		add(&f->sec[i], (struct cs_write){ .value = value, .start = cs_now(s), .end = NEVER, .by = by }, from);
		watched(s, &f->sec[i], "begins to write", by, value);
	}
	*ret_token = cs_now(s);
}

static struct cs_write *find(struct cs_sector *c, uint64_t token)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->w[i].start == token && c->w[i].end == NEVER)
			return &c->w[i];
	return NULL;
}

void cs_data_end(struct cs_sim *s, struct cs_file *f, uint32_t first, uint32_t count, uint64_t token)
{
	for (uint32_t i = first; i < first + count; i++) {
		struct cs_write *w = find(&f->sec[i], token);

		if (!w)
			continue;
		w->end = cs_now(s);
		w->returned = true;
		watched(s, &f->sec[i], "has written", w->by, w->value);
	}
}

void cs_data_uncertain(struct cs_sim *s, struct cs_file *f, uint32_t first, uint32_t count, uint64_t token)
{
	for (uint32_t i = first; i < first + count; i++) {
		struct cs_write *w = find(&f->sec[i], token);

		if (!w)
			continue;
		w->maylost = true;
		watched(s, &f->sec[i], "got no answer for", w->by, w->value);
	}
}

void cs_data_fill(void *buf, uint32_t sectors, uint64_t value)
{
	uint64_t *p = buf;

	for (uint32_t i = 0; i < sectors * (CS_SECTOR / 8); i++)
		p[i] = value;
}

/* An append whose place was not known is found at its place. */
static void append_found(struct cs_sim *s, struct cs_file *f, struct cs_sector *c, uint64_t value)
{
	if (f->kind != CS_APPEND || !value)
		return;
	for (unsigned i = 0; i < s->n_append; i++) {
		struct cs_append *a = &s->append[i];

		if (a->value != value)
			continue;
		add(c, (struct cs_write){ .value = value, .start = a->start, .end = NEVER, .by = a->by }, oldest_read(s));
		*a = s->append[--s->n_append];
		return;
	}
}

static void read_sector(struct cs_sim *s, struct cs_file *f, uint32_t at, uint64_t value, struct cluster_node by, uint64_t started,
			const char *op)
{
	struct cs_sector *c = &f->sec[at];
	struct cs_write *hit = NULL;
	unsigned out = 0, hits = 0;
	bool known = false;

	watched(s, c, "reads", by, value);
	append_found(s, f, c, value);
	for (unsigned i = 0; i < c->n; i++) {
		if (c->w[i].value != value)
			continue;
		known = true;
		if (overwritten(c, &c->w[i], started, false))
			continue;
		hit = &c->w[i];
		hits++;
	}
	if (hits > 1)
		return;			/* zeros: which of several it was tells nothing */
	if (!hit) {
		uint64_t newest = 0;

		for (unsigned i = 0; i < c->n; i++)
			if (!c->w[i].maylost && c->w[i].end < started)
				newest = c->w[i].value;
		cs_fail(s, "G1: n%u %s: file %s sector %u: value %" PRIu64 " %s; the last one written for certain is %" PRIu64
			", the read began in step %" PRIu64, by.nodeid, op, f->name, at, value,
			known ? "was overwritten before" : "was never written there or was lost for good", newest, started);
		return;
	}
	hit->end = csv_min(hit->end, cs_now(s));
	hit->maylost = false;
	hit->seen |= !cs_same(hit->by, by);
	/* What certainly came after it and is not there is lost. */
	for (unsigned i = 0; i < c->n; i++) {
		const struct cs_write *w = &c->w[i];

		if (w != hit && w->maylost && w->end != NEVER && w->start > hit->end && w->end < started)
			continue;
		if (&c->w[out] != w)
			c->w[out] = *w;
		out++;
	}
	c->n = out;
}

void cs_data_read(struct cs_sim *s, struct cs_file *f, uint32_t first, uint32_t count, const void *buf, struct cluster_node by,
		  uint64_t started, const char *op)
{
	const uint64_t *p = buf;

	csv_assert(oldest_read(s) <= started);
	for (uint32_t i = 0; i < count && !s->failed; i++, p += CS_SECTOR / 8) {
		for (unsigned k = 1; k < CS_SECTOR / 8; k++)
			if (p[k] != p[0]) {
				cs_fail(s, "n%u %s: file %s sector %u is torn: %" PRIu64 " and %" PRIu64 " at byte %u", by.nodeid, op, f->name,
					first + i, p[0], p[k], k * 8);
				return;
			}
		read_sector(s, f, first + i, p[0], by, started, op);
	}
}

void cs_data_append_begin(struct cs_sim *s, struct cluster_node by, uint64_t value)
{
	csv_assert(s->n_append < ARRAY_SIZE(s->append));
	s->append[s->n_append++] = (struct cs_append){ value, cs_now(s), by, false };
}

void cs_data_append_refused(struct cs_sim *s, uint64_t value)
{
	for (unsigned i = 0; i < s->n_append; i++)
		if (s->append[i].value == value)
			s->append[i].refused = true;
}

/* Its answer came: there it is, and nothing else was. */
void cs_data_appended(struct cs_sim *s, struct cs_file *f, uint64_t off, struct cluster_node by, uint64_t value)
{
	uint32_t at = (uint32_t)(off / CS_SECTOR);
	struct cs_sector *c;

	if (off % CS_SECTOR || at >= f->sectors) {
		cs_fail(s, "R26: n%u append: at offset %" PRIu64 ", must be a multiple of %u below %u", by.nodeid, off, CS_SECTOR,
			f->sectors * CS_SECTOR);
		return;
	}
	c = &f->sec[at];
	append_found(s, f, c, value);
	for (unsigned i = 0; i < c->n; i++) {
		struct cs_write *w = &c->w[i];

		if (w->value == value) {
			w->end = csv_min(w->end, cs_now(s));
			w->returned = true;
		} else if (w->value && !w->maylost) {
			cs_fail(s, "R26: n%u append: at offset %" PRIu64 ", where value %" PRIu64 " of n%u was appended before", by.nodeid, off,
				w->value, w->by.nodeid);
			return;
		}
	}
}

void cs_data_synced(struct cs_sim *s, struct cs_file *f, struct cluster_node by, uint64_t before)
{
	uint64_t from = oldest_read(s);

	for (uint32_t i = 0; i < f->sectors; i++) {
		struct cs_sector *c = &f->sec[i];

		for (unsigned k = 0; k < c->n; k++)
			if (c->w[k].end < before && !c->w[k].maylost && (!by.nodeid || cs_same(c->w[k].by, by)))
				c->w[k].durable = true;
		if (c->n > 1)
			prune(c, from);
		watched(s, c, "syncs what ended before", by, before);
	}
}

static void each(struct cs_sim *s, void (*fn)(struct cs_sim *s, struct cs_write *w, struct cluster_node who), struct cluster_node who,
		 const char *what)
{
	for (unsigned i = 0; i < s->n_files; i++)
		for (uint32_t k = 0; k < s->file[i].sectors; k++) {
			for (unsigned j = 0; j < s->file[i].sec[k].n; j++)
				fn(s, &s->file[i].sec[k].w[j], who);
			watched(s, &s->file[i].sec[k], what, who, 0);
		}
}

static void dead(struct cs_sim *s, struct cs_write *w, struct cluster_node who)
{
	(void)s;
	if (cs_same(w->by, who) && !w->durable && !w->seen)
		w->maylost = true;
}

static void released(struct cs_sim *s, struct cs_write *w, struct cluster_node who)
{
	(void)s;
	if (cs_same(w->by, who) && w->returned)
		w->maylost = false;
}

static void settled(struct cs_sim *s, struct cs_write *w, struct cluster_node who)
{
	if (cs_same(w->by, who) && w->end == NEVER)
		w->end = cs_now(s);
}

static void power_loss(struct cs_sim *s, struct cs_write *w, struct cluster_node who)
{
	(void)who;
	if (!w->durable)
		w->maylost = true;
	w->end = csv_min(w->end, cs_now(s));
}

void cs_data_dead(struct cs_sim *s, struct cluster_node who)
{
	each(s, dead, who, "is dead");
}

void cs_data_released(struct cs_sim *s, struct cluster_node who)
{
	each(s, released, who, "has given back");
	for (unsigned i = s->n_append; i > 0; i--)
		if (cs_same(s->append[i - 1].by, who) && s->append[i - 1].refused)
			s->append[i - 1] = s->append[--s->n_append];
}

void cs_data_settled(struct cs_sim *s, struct cluster_node who)
{
	each(s, settled, who, "is settled");
}

void cs_data_power_loss(struct cs_sim *s)
{
	each(s, power_loss, (struct cluster_node){ 0 }, "is the array without power");
}

uint32_t cs_data_appended_sectors(const struct cs_file *f)
{
	for (uint32_t i = f->sectors; i > 0; i--)
		for (unsigned k = 0; k < f->sec[i - 1].n; k++)
			if (f->sec[i - 1].w[k].value && !f->sec[i - 1].w[k].maylost && f->sec[i - 1].w[k].end != NEVER)
				return i;
	return 0;
}
