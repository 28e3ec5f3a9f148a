/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuzz_disk.c - decoders of blocks of the volume: superblock, slot states, heartbeats.  Their checksums are made right after most changes.
 */
#include <stdlib.h>

#include "csvfs/format.h"
#include "csvfs/mkfs.h"
#include "journal/mhdr.h"
#include "tests/fuzz/fuzz.h"

static struct csv_geom geom;

static void geom_make(void)
{
	struct csvfs_mkfs_options o = { .label = "a volume", .slots = 8, .uuid = { 9, 8, 7, 6, 5 }, .now_ns = 1234567890123 };
	struct csv_err err = CSV_ERR_INIT;

	csv_assertf(!csvfs_mkfs_plan(1ull << 30, 512, &o, &geom, &err), "%s", err.text);
}

static void block_end(struct fuzz_input *in, const uint8_t *uuid)
{
	if (in->len < CSV_BLOCK_SIZE)
		memset(in->b + in->len, 0, CSV_BLOCK_SIZE - in->len);
	in->len = CSV_BLOCK_SIZE;
	if (csv_prng_chance(in->prng, 7, 8))
		mhdr_seal(in->b, uuid);
}

static void super_sample(struct fuzz_input *in)
{
	csv_super_encode(&geom, CSV_SB_BLOCK, in->b);
	in->len = 512;			/* where its fields are */
}

static bool super_run(struct fuzz_input *in)
{
	struct csv_err err = CSV_ERR_INIT;
	struct csv_geom g;
	void *p;
	int rc;

	block_end(in, NULL);
	p = fuzz_exact(in);
	rc = csv_super_decode(p, CSV_SB_BLOCK, (1ull << 30) / CSV_BLOCK_SIZE, 512, &g, &err);
	csv_assert(!rc || err.text[0]);
	free(p);
	return !rc;
}

static void slot_sample(struct fuzz_input *in)
{
	struct csv_slot_info s = { .state = CSV_SLOT_ACTIVE, .nodeid = 2, .incarnation = 77, .since_real_ns = 5, .node_name = "n2", .seq = 9 };
	struct csv_hbeat_info h = { .incarnation = 77, .counter = 12, .nodeid = 2, .seq = 4 };

	if (csv_prng_chance(in->prng, 1, 2))
		csv_slot_encode(&geom, 1, &s, in->b);
	else
		csv_hbeat_encode(&geom, 1, &h, in->b);
	in->len = 256;
}

static bool slot_run(struct fuzz_input *in)
{
	struct csv_err err = CSV_ERR_INIT;
	struct csv_slot_info s;
	struct csv_hbeat_info h;
	bool taken;
	void *p;

	block_end(in, geom.uuid);
	p = fuzz_exact(in);
	taken = !csv_slot_decode(&geom, 1, p, &s, &err);
	if (taken)
		csv_assert(memchr(s.node_name, 0, sizeof(s.node_name)));
	else
		csv_assert(err.text[0]);
	taken |= !csv_hbeat_decode(&geom, 1, p, &h, &err);
	free(p);
	return taken;
}

const struct fuzz_decoder fuzz_disk[] = {
	{ .name = "super", .begin = geom_make, .sample = super_sample, .run = super_run },	/* decoder super */
	{ .name = "slot", .begin = geom_make, .sample = slot_sample, .run = slot_run },		/* decoder slot */
	{ 0 },
};
