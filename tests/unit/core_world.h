/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * core_world.h - several nodes of the real core in one process, for unit tests: real view tracker, mesh, dlm, journal and core;
 * fakes only at the ports.  One clock, a scheduler a node, a perfect ordering engine, links that lose nothing, one shared disk.
 *
 * Disk: writes reach it at once, unless the node holds them back (hold_writes): then they are on their way like writes of a node
 * that has died, and land with cw_land(), or never once the node was fenced.
 */
#ifndef CSVFS_TESTS_UNIT_CORE_WORLD_H
#define CSVFS_TESTS_UNIT_CORE_WORLD_H

#include "tests/unit/unit.h"

#include <errno.h>
#include <inttypes.h>
#include <urcu/list.h>

#include "csvfs/csvfs_internal.h"
#include "csvfs/mkfs.h"
#include "tests/unit/env_fake.h"
#include "utils/base/prng.h"

#define CW_NODES 4
#ifndef CW_BYTES
#define CW_BYTES (160ull << 20)
#endif
#define CW_SLOTS 3u

struct cw_node {
	uint32_t id;
	bool on, in_group;
	bool cut;				/* in the minority part of a partition */
	uint64_t incarnation;
	struct cluster_port port;
	struct link_port link;
	struct fence_port fence;
	struct rnd_port rnd;
	struct logger log;
	struct blk blk;
	struct env env;
	const struct cluster_raw_events *raw;
	void *raw_arg;
	const struct link_events *lev;
	void *lev_arg;
	struct cds_list_head engine, wire[CW_NODES];
	bool wants[CW_NODES], linked[CW_NODES];
	bool deaf[CW_NODES];			/* nothing that node sends gets here; it waits on the way */
	struct cds_list_head agents;		/* struct cw_fencing */
	bool hold_writes;
	uint64_t hold_off;			/* not 0: writes to this place only */
	unsigned fail_writes;			/* the next so many answer -EIO */
	struct cds_list_head late;		/* struct cw_write on their way */
	struct csvfs_options opt;
	struct csvfs *fs;
	struct csv_err err;
	int ret;
	bool done;
};

struct cw {
	struct fake_clock clk;
	uint8_t *disk;
	uint64_t disk_bytes;
	struct cw_node node[CW_NODES];
	uint64_t ring_seq, next_incarnation, rnd;
	unsigned fence_calls, fence_fail;	/* fail the next so many */
	uint64_t fence_ns;			/* how long the agent takes */
	bool no_quorum, fence_lies;
	uint64_t round_ns;			/* of the membership protocol */
	uint32_t votes;				/* expected, as the engine says; 0: nothing */
	unsigned fail_reads;			/* the next so many answer -EIO */
	char last_log[CW_NODES][512];
	char all_log[65536];
};

/* The one world of this process. */
extern struct cw cw;

/* ---- the world: a volume just made on the shared disk, no node on */

void cw_setup_bytes(uint64_t bytes);
static inline void cw_setup(void)
{
	cw_setup_bytes(CW_BYTES);
}
void cw_teardown(void);

/* ---- nodes, by their numbers from 1 */

struct cw_node *cw_n(unsigned id);
/* A life begins: ports and scheduler; nothing mounted. */
void cw_boot(unsigned id);
/* Its memory goes; `ring`: the others learn it by a new ring, else by procdown or not at all. */
void cw_off(unsigned id, bool ring);
void cw_power_cut(unsigned id);
/* The process dies, the node lives: nothing of it is in flight any more. */
void cw_process_dies(unsigned id);
/* These nodes (a bit each, from bit 1) are cut off from the rest and have no quorum; 0 heals. */
void cw_partition(unsigned mask);
/* For all who are in the group, as they are. */
void cw_new_ring(void);
/* Boot and mount, unmount and off; the coroutines alone leave what came of it in node->ret and node->err. */
void cw_mount(unsigned id);
void cw_umount(unsigned id);
void cw_mount_coro(void *arg);
void cw_umount_coro(void *arg);

/* ---- time goes by, coroutines run */

/* Until stop() or `ms` of world time have passed; whether stop() did. */
bool cw_run(uint64_t ms, bool (*stop)(void *arg), void *arg);
/* So much time goes by. */
void cw_settle(uint64_t ms);
/* Starts fn as a coroutine of the node, which is its argument; its end is to set node->done. */
void cw_start(unsigned id, void (*fn)(void *arg));
/* And runs until then. */
void cw_do(unsigned id, void (*fn)(void *arg));
bool cw_is_done(void *arg);

/* ---- disk and log */

extern const struct blk_ops cw_blk_ops;
void cw_blk_submit(struct blk *b, struct blk_req *r);
void cw_blk_close(struct blk *b);
/* What is on its way arrives, in order; the node may be dead. Returns how many. */
unsigned cw_land(struct cw_node *n);
/* Each of them arrives or never does, by the dice. */
void cw_land_some(struct cw_node *n, struct csv_prng *p);
/* A node has said so since the world began. */
bool cw_logged(const char *text);

/* ---- a small change of metadata: a number in the header of group 0 */

int cw_group_set(struct csvfs *fs, uint32_t value, bool commit);
int cw_group_get(struct csvfs *fs, uint32_t *ret_value);
/* What is at home on the disk. */
uint32_t cw_group_on_disk(const struct csv_geom *g);

#endif
