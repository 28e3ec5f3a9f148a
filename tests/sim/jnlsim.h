/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jnlsim.h - shared by jnlsim.c (lives of the nodes, the run, its judgement) and jnlsim_node.c (what a living node does).
 */
#ifndef CSVFS_TESTS_SIM_JNLSIM_H
#define CSVFS_TESTS_SIM_JNLSIM_H

#include "journal/journal.h"
#include "tests/sim/jnlsim_model.h"
#include "tests/sim/sim_disk.h"
#include "utils/base/base.h"

enum node_state { N_DOWN, N_BOOTING, N_UP, N_DEAD /* until its journal is replayed */, N_DONE };

struct js_blk { struct jnl_buf jb; uint32_t version, life; bool freed, valid; uint8_t data[CSV_BLOCK_SIZE]; };

struct js_node {
	struct js *js;
	unsigned id, workers;
	enum node_state state;
	struct blk *blk;
	struct jnl *j;
	struct jnl_geometry g;
	uint8_t *slot_buf;
	struct js_blk *cache;		/* JM_BLOCKS */
	bool recovering;		/* it replays somebody's journal */
	uint32_t undurable[512], n_undurable;	/* its transactions, with ... */
	uint64_t undurable_seq[512];		/* ... their sequences */
};

struct js_lock { unsigned holder; bool in_use, wanted; };

struct js {
	struct sim_world *w;
	struct sim_disk *disk;
	struct jm m;
	struct js_node node[JM_NODES + 1];
	struct js_lock lock[JM_OWNERS];
	uint64_t gen, incarnation, data;
	uint32_t ops, ops_max;
	bool stop, failed, no_revoke, home_early;
	char text[600];
	uint64_t images, lossy;
};

/* The first fault is kept and ends the run. */
void js_fail(struct js *js, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline uint64_t js_below(struct js *js, uint64_t n)
{
	return sim_world_below(js->w, n);
}

static inline bool js_chance(struct js *js, unsigned num, unsigned den)
{
	return sim_world_chance(js->w, num, den);
}

/* ---- coroutines of a node that is up (struct js_node); each counts itself out of node->workers */

void js_releaser(void *arg);
void js_worker(void *arg);

#endif
