/* SPDX-License-Identifier: GPL-2.0-only */
/* check.c - the checker's order of work (check.h). */
#include "csvfs/check/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "csvfs/check/check_internal.h"

#define MEM_DEFAULT (512ull << 20)
#define MEM_MIN (CSV_GROUP_BLOCKS / 4ull)

static int check_all(struct ck *c)
{
	const struct csv_geom *g = &c->g;
	uint64_t mem = c->o->mem_bytes ? c->o->mem_bytes : MEM_DEFAULT, first;

	/* Whole groups; the first window also has the system area in front of them. */
	c->win_max = csv_round_down(csv_max(mem, MEM_MIN) * 4, CSV_GROUP_BLOCKS);
	ck_super_copies(c);
	ck_slots(c);
	ck_journals(c);
	for (first = g->data_start_blk; first < g->total_blk && !c->fatal; first += c->win_max) {
		c->res->passes++;
		if (ck_map_window(c, first) < 0)
			break;
		if (first == g->data_start_blk)
			ck_inodes_walk(c);
		else {
			c->quiet = true;
			ck_inodes_again(c);
			c->quiet = false;
		}
		ck_groups_check(c);
		if (c->n_twice) {
			ck_table_forget(&c->far_nodes);
			c->quiet = c->hunting = true;
			ck_inodes_again(c);
			c->quiet = c->hunting = false;
		}
	}
	if (!c->fatal)
		ck_links_check(c);
	return c->fatal;
}

int check_volume(struct blk *b, const struct check_options *o, struct check_result *ret, struct csv_err *err)
{
	struct check_result res = { 0 };
	struct ck c = { .dev = b, .o = o, .res = &res, .err = err };
	struct csv_err note = CSV_ERR_INIT;
	int r = csv_super_read(b, &c.g, &note, err);

	if (r < 0)
		return r;
	if (c.g.ro_only)
		ck_note(&c, "superblock: field ro_compat = 0x%" PRIx64 ": features this program does not know; what they add is not checked",
			c.g.ro_compat);
	res.total_blk = c.g.total_blk;
	ck_overlay_init(&c);
	c.buf = blk_alloc(CSV_BLOCK_SIZE);
	c.max_gen = calloc(c.g.groups, sizeof(*c.max_gen));
	r = c.buf && c.max_gen ? check_all(&c) : ck_fatal(&c, -ENOMEM, "out of memory");
	free(c.buf);
	free(c.max_gen);
	free(c.map);
	free(c.queue);
	ck_table_free(&c.overlay);
	ck_table_free(&c.inodes);
	ck_table_forget(&c.far_nodes);
	if (!r)
		*ret = res;
	return r;
}
