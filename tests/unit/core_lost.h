/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * core_lost.h - what the tests of lost nodes share: one number in a group, set here and asked for there; slots as the disk has them.
 */
#ifndef CSVFS_TESTS_UNIT_CORE_LOST_H
#define CSVFS_TESTS_UNIT_CORE_LOST_H

#include "tests/unit/core_world.h"

/* Nodes die here in the middle of coroutines, whose memory nobody frees then: not a leak of the core. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

static uint32_t arg_value, got_value;

static inline void set_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = cw_group_set(n->fs, arg_value, true);
	n->done = true;
}

static inline void get_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = cw_group_get(n->fs, &got_value);
	n->done = true;
}

static inline void set(unsigned id, uint32_t value)
{
	arg_value = value;
	cw_do(id, set_coro);
	ck_assert_int_eq(cw_n(id)->ret, 0);
}

static inline uint32_t get(unsigned id)
{
	got_value = UINT32_MAX;
	cw_do(id, get_coro);
	ck_assert_msg(cw_n(id)->ret == 0, "node %u: %d\n%s", id, cw_n(id)->ret, cw.all_log);
	return got_value;
}

static inline struct csv_slot_info slot_on_disk(const struct csv_geom *g, uint32_t slot)
{
	struct csv_slot_info s;
	struct csv_err err = CSV_ERR_INIT;

	ck_assert_msg(csv_slot_decode(g, slot, cw.disk + (csv_slot_blk(g, slot) << CSV_BLOCK_SHIFT), &s, &err) == 0, "%s", err.text);
	return s;
}

static inline uint32_t geom_slot_state(uint32_t slot)
{
	struct csv_geom g;

	ck_assert_int_eq(csv_super_decode(cw.disk + CSV_SB_BLOCK * CSV_BLOCK_SIZE, CSV_SB_BLOCK, 0, 0, &g, NULL), 0);
	return slot_on_disk(&g, slot).state;
}

static inline bool replay_has_begun(void *arg)
{
	struct cw_node *n = arg;

	return !cds_list_empty(&n->late);
}

#endif
