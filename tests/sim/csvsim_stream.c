/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_stream.c - the write stream of a run, replayed: as if power had gone for all after every single write, with nothing lost and with
 * random allowed losses in every flush window.  Each image must be clean after replay of its journals in memory (G2).
 */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/csvsim.h"
#include "utils/base/base.h"

#define LOSSY_PER_WINDOW 20u

static void check_image(struct cs_sim *s, struct sim_store *image, const struct sim_cursor *c, const char *kind)
{
	char when[100];

	snprintf(when, sizeof(when), "%s image after write %u of %u", kind, sim_cursor_at(c), sim_disk_recorded(s->disk));
	cs_check_store(s, image, when);
	sim_store_free(image);
}

void cs_stream_check(struct cs_sim *s)
{
	struct sim_cursor *c = sim_cursor_new(s->disk);
	struct csv_prng p;

	csv_prng_init(&p, s->seed);
	do {
		uint32_t writes = sim_cursor_window(c), n = writes ? csv_div_round_up(LOSSY_PER_WINDOW, writes) : 0;

		check_image(s, sim_cursor_image(c), c, "prefix");
		cs_count(s, "stream.prefixes");
		sim_world_count(s->w, "stream.windows", sim_cursor_after_flush(c));
		for (uint32_t i = 0; !s->failed && sim_cursor_volatile(c) && i < n; i++) {
			check_image(s, sim_cursor_image_lossy(c, &p), c, "lossy");
			cs_count(s, "stream.lossy");
		}
	} while (!s->failed && sim_cursor_next(c));
	sim_cursor_free(c);
}
