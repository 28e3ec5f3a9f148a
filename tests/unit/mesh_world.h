/*
 * mesh_world.h - for the unit tests of the mesh: nodes with real view trackers and meshes, a perfect ordering engine, links that lose what
 * is on them when they break.  Each node's user counts what it sends and gets, and asserts M1 and M2.
 */
#ifndef CSVFS_TESTS_UNIT_MESH_WORLD_H
#define CSVFS_TESTS_UNIT_MESH_WORLD_H

#include <urcu/list.h>

#include "tests/unit/env_fake.h"
#include "utils/base/prng.h"
#include "utils/env/mesh.h"

#define MSW_NODES 4

struct msw_ev {
	struct cds_list_head node;
	enum { EV_TOTEM, EV_MEMBERS, EV_QUORUM, EV_MSG, EV_UP, EV_DOWN, EV_FRAME } kind;
	struct ring_id ring;
	uint32_t from, n, m[MSW_NODES];
	unsigned epoch;
	size_t len;
	uint8_t buf[];
};

struct msw_payload { uint32_t from, to; uint64_t view, count; };

struct msw_node {
	struct cluster_port port;
	struct link_port link;
	struct msw *w;
	uint32_t id;
	struct sched *s;
	struct cluster *cl;
	struct mesh *mesh;
	const struct cluster_raw_events *raw;
	void *raw_arg;
	const struct link_events *lev;
	void *lev_arg;
	struct ring_id ring;
	struct cds_list_head engine;		/* events of the engine, in order */
	struct cds_list_head wire[MSW_NODES];	/* from each node, in order */
	bool wants[MSW_NODES];
	unsigned up_epoch[MSW_NODES];		/* of the connection it was told of */
	/* the user: counts per peer in the current view */
	uint64_t view, sent[MSW_NODES], got[MSW_NODES];
	uint64_t frames_bad;
};

struct msw {
	struct fake_clock clk;
	struct csv_prng prng;
	unsigned n;
	struct msw_node node[MSW_NODES];
	uint64_t seq;
	unsigned epoch[MSW_NODES][MSW_NODES];		/* of the connection, 0: none */
	unsigned next_epoch;
	bool calm;
	uint64_t breaks, lost, delivered;
};

/* The one world of this process. */
extern struct msw msw;

void msw_init(unsigned n, uint64_t seed);
void msw_done(void);
/* A new ring of the nodes of `mask`. */
void msw_new_ring(unsigned mask);
void msw_conn_break(unsigned a, unsigned b);
/* The user of a node says the next of its numbered messages. */
int msw_send(struct msw_node *n, unsigned to, size_t extra);
/* One thing happens, by the dice. */
void msw_step(void);
/* Until nothing happens any more; links come up again. */
void msw_settle(void);
/* Everything sent in the view they are in has arrived and is acknowledged. */
void msw_check_complete(void);

#endif
