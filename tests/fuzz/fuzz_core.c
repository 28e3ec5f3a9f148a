/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuzz_core.c - two nodes of the real core have a volume mounted; the second says changed messages about lost nodes (decoder facts) and about
 * members that cannot reach each other (decoder evict) to both.  What a member says is believed, so either may have to give the volume up;
 * then a new life of the world begins.  Whoever stays must still work at the end.
 */
#include "tests/unit/core_ops.h"

#include "csvfs/recover_internal.h"
#include "tests/fuzz/fuzz.h"
#include "utils/base/cursor.h"

static unsigned made;

static void world_begin(void)
{
	cw_setup();
	cw_mount(1);
	cw_mount(2);
	cw_settle(3000);
}

static void still_works(struct csvfs *fs)
{
	char name[32];

	snprintf(name, sizeof(name), "file %u", made++);
	mk(fs, root(fs), name, S_IFREG | 0644);
	OK(csvfs_sync(fs));
}

static bool is_well(unsigned id)
{
	return cw_n(id)->on && csvfs_state(cw_n(id)->fs, NULL) == CSVFS_ACTIVE;
}

static void world_end(void)
{
	cw_settle(30000);
	for (unsigned id = 1; id <= 2; id++)
		if (is_well(id))
			on_node(id, still_works);
	cw_teardown();
}

/* Somebody had to give up: that is an end, too, and it has said why. */
static bool over(void)
{
	if (is_well(1) && is_well(2))
		return false;
	for (unsigned id = 1; id <= 2; id++)
		if (csvfs_state(cw_n(id)->fs, NULL) == CSVFS_WITHDRAWN)
			csv_assertf(cw_logged("withdrawn: "), "withdrawn without a word");
	return true;
}

static bool say(struct fuzz_input *in, enum cluster_chan chan, uint64_t *bad_of_1)
{
	uint64_t bad = *bad_of_1;
	bool taken;

	cw.all_log[0] = '\0';
	cluster_send(cw_n(2)->env.cluster, chan, in->b, in->len);
	cw_settle(csv_prng_chance(in->prng, 1, 50) ? 3000 : 5);
	taken = *bad_of_1 == bad;
	if (over()) {
		cw_settle(30000);
		world_end();
		world_begin();
	}
	return taken;
}

/* ---- lost nodes --------------------------------------------------------------------------------------------------------------------- */

static void facts_sample(struct fuzz_input *in)
{
	uint32_t n = (uint32_t)csv_prng_below(in->prng, 4);
	struct csv_cursor c;

	csv_cursor_init(&c, in->b, FUZZ_ROOM);
	csv_put_u32(&c, 0x46535643u);
	csv_put_u16(&c, 1);
	csv_put_u16(&c, (uint16_t)n);
	for (; n; n--) {
		bool us = csv_prng_chance(in->prng, 1, 16);
		unsigned id = us ? 1 + (unsigned)csv_prng_below(in->prng, 2) : 3 + (unsigned)csv_prng_below(in->prng, 2);
		unsigned flags = 1 + (unsigned)csv_prng_below(in->prng, 15);

		csv_put_u32(&c, id);
		csv_put_u32(&c, csv_prng_chance(in->prng, 1, 2) ? CSV_NO_SLOT : (uint32_t)csv_prng_below(in->prng, CW_SLOTS));
		csv_put_u64(&c, us ? cw_n(id)->incarnation : 5000 + csv_prng_below(in->prng, 3));
		csv_put_u8(&c, (uint8_t)(flags & 4 ? flags | 2 : flags));
		csv_put_u8(&c, (uint8_t)csv_prng_below(in->prng, 6));
		csv_put_zero(&c, 6);
		csv_put_u64(&c, 100);
		csv_put_u64(&c, 100 + csv_prng_below(in->prng, 3));
	}
	csv_assert(!csv_cur_error(&c));
	in->len = csv_cur_used(&c);
}

static bool facts_run(struct fuzz_input *in)
{
	struct recover *r = cw_n(1)->fs->rcv;

	return say(in, CHAN_FS, &r->bad_messages);
}

/* ---- members that cannot reach each other ---------------------------------------------------------------------------------------------- */

static void evict_sample(struct fuzz_input *in)
{
	static const uint16_t kinds[] = { 1, 2, 0x101 };
	uint32_t n = (uint32_t)csv_prng_below(in->prng, 4);
	struct csv_cursor c;

	csv_cursor_init(&c, in->b, FUZZ_ROOM);
	csv_put_u32(&c, 0x54435645u);
	csv_put_u16(&c, 1);
	csv_put_u16(&c, kinds[csv_prng_below(in->prng, ARRAY_SIZE(kinds))]);
	csv_put_u32(&c, n);
	for (; n; n--)
		csv_put_u32(&c, 1 + (uint32_t)csv_prng_below(in->prng, 4));
	in->len = csv_cur_used(&c);
}

static bool evict_run(struct fuzz_input *in)
{
	static uint64_t none;

	return say(in, CHAN_EVICT, &none) && !cw_logged("is malformed");
}

const struct fuzz_decoder fuzz_core[] = {
	{ .name = "facts", .life = 500, .gentle = true, .begin = world_begin, .end = world_end, .sample = facts_sample, .run = facts_run },
	{ .name = "evict", .life = 500, .gentle = true, .begin = world_begin, .end = world_end, .sample = evict_sample, .run = evict_run },
	{ 0 },
};
/* decoder facts, decoder evict */
