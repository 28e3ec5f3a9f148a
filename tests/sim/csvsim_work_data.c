/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_work_data.c - operations on the files with a data model (csvsim_data.c).
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/csvsim_work.h"
#include "utils/base/base.h"

/* ---- files with a data model --------------------------------------------------------------------------------------------------------------- */

static void data_write(struct cs_worker *w, struct cs_file *f)
{
	struct cs_sim *s = w->n->sim;
	uint32_t count = 1 + (uint32_t)cs_below(w, 24), first = (uint32_t)cs_below(w, f->sectors - count);
	uint64_t value = s->next_value++, token;
	uint8_t *buf;
	ssize_t n;

	if (cs_chance(w, 1, 2)) {
		count = csv_round_up(count, 8u);
		first = csv_min(csv_round_down(first, 8u), f->sectors - count);
	}
	buf = blk_alloc(count * CS_SECTOR);
	csv_assert(buf);
	cs_data_fill(buf, count, value);
	cs_data_begin(s, f, first, count, w->n->self, value, &token);
	n = cs_io_write(w->n, f, (uint64_t)first * CS_SECTOR, buf, count * CS_SECTOR);
	cs_count(s, "op.data_write");
	free(buf);
	if (!cs_uncertain(w, n) && cs_judge(w, n, "data write")) {
		uint32_t done = (uint32_t)n / CS_SECTOR;

		cs_data_end(s, f, first, done, token);
		cs_data_uncertain(s, f, first + done, count - done, token);
	} else {
		cs_data_uncertain(s, f, first, count, token);
	}
}

void cs_work_read(struct cs_worker *w, struct cs_file *f, uint32_t first, uint32_t count, const char *op)
{
	struct cs_sim *s = w->n->sim;
	uint64_t started = cs_now(s);
	uint8_t *buf = blk_alloc(count * CS_SECTOR);
	ssize_t n;

	csv_assert(buf);
	memset(buf, 0, count * CS_SECTOR);
	w->reading = started;
	n = cs_io_read(w->n, f, (uint64_t)first * CS_SECTOR, buf, count * CS_SECTOR);
	cs_count(s, "op.data_read");
	if (!cs_uncertain(w, n) && cs_judge(w, n, op)) {
		memset(buf + n, 0, count * CS_SECTOR - (size_t)n);
		cs_data_read(s, f, first, count, buf, w->n->self, started, op);
	}
	w->reading = 0;
	free(buf);
}

static void data_zero(struct cs_worker *w, struct cs_file *f)
{
	struct cs_sim *s = w->n->sim;
	uint32_t count = 1 + (uint32_t)cs_below(w, 40), first = (uint32_t)cs_below(w, f->sectors - count);
	struct csvfs_attr set, a;
	uint64_t token;
	int ret;

	switch (cs_below(w, f->kind == CS_PLAIN ? 3 : 2)) {
	case 0:
		cs_data_begin(s, f, first, count, w->n->self, 0, &token);
		ret = cs_io_fallocate(w->n, f, CSVFS_FALLOC_PUNCH_HOLE | CSVFS_FALLOC_KEEP_SIZE, (uint64_t)first * CS_SECTOR,
				      (uint64_t)count * CS_SECTOR);
		cs_count(s, "op.punch");
		break;
	case 1:
		cs_data_begin(s, f, first, count, w->n->self, 0, &token);
		ret = cs_io_fallocate(w->n, f, CSVFS_FALLOC_ZERO_RANGE, (uint64_t)first * CS_SECTOR, (uint64_t)count * CS_SECTOR);
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
	if (!cs_uncertain(w, ret) && cs_judge(w, ret, "zero"))
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
	n = csvfs_write(w->n->fs, f->ino, f->gen, 0, buf, CS_SECTOR, CSVFS_WRITE_APPEND, &off);
	cs_count(s, "op.append");
	if (!cs_uncertain(w, n) && cs_judge(w, n, "append"))
		cs_data_appended(s, f, off, w->n->self, value);
	else if (cs_refused(w, n))
		cs_data_append_refused(s, value);
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
	if (!cs_uncertain(w, ret) && cs_judge(w, ret, "stat") && a.size < (uint64_t)csv_min(least, cs_data_appended_sectors(f)) * CS_SECTOR)
		cs_fail(s, "G1: n%u stat: file %s has %" PRIu64 " bytes, %u sectors were appended for certain", w->n->node, f->name, a.size, least);
}

static void data_fsync(struct cs_worker *w, struct cs_file *f)
{
	uint64_t before = cs_now(w->n->sim);
	int ret = csvfs_fsync(w->n->fs, f->ino, f->gen, cs_chance(w, 1, 2));

	cs_count(w->n->sim, "op.data_fsync");
	if (!cs_uncertain(w, ret) && cs_judge(w, ret, "fsync")) {
		cs_data_synced(w->n->sim, f, (struct cluster_node){ 0 }, before);
		cs_synced(w->n->sim);
	}
}

void cs_work_data(struct cs_worker *w)
{
	struct cs_file *f = &w->n->sim->file[cs_below(w, CS_FILES)];
	uint32_t count = 1 + (uint32_t)cs_below(w, 64);

	if (w->n->disk_open && cs_chance(w, 1, 2))
		f = &w->n->sim->file[CS_FILES];
	if (f->kind == CS_APPEND) {
		if (cs_chance(w, 1, 2))
			data_append(w, f);
		else if (cs_chance(w, 1, 3))
			data_stat(w, f);
		else if (cs_chance(w, 1, 2))
			cs_work_read(w, f, (uint32_t)cs_below(w, 1000), count, "read");
		else
			data_fsync(w, f);
		return;
	}
	switch (cs_below(w, 10)) {
	case 0: case 1: case 2: case 3:
		data_write(w, f);
		break;
	case 4: case 5: case 6:
		cs_work_read(w, f, (uint32_t)cs_below(w, f->sectors - count), count, "read");
		break;
	case 7:
		data_zero(w, f);
		break;
	default:
		data_fsync(w, f);
		break;
	}
}
