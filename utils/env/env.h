/*
 * env.h - the world as a bundle of ports.  The cores (dlm, journal, csvfs, migrator, hvhost) reach clock, disk, network,
 * cluster, fencing, randomness and log only through this, so a whole cluster can run in one thread from one seed.
 * Everything is borrowed; the composition root (a daemon's main file, or the simulator) owns it.
 */
#ifndef CSVFS_UTILS_ENV_ENV_H
#define CSVFS_UTILS_ENV_ENV_H

#include <stdint.h>

#include "utils/env/blk.h"
#include "utils/env/clock.h"
#include "utils/env/cluster.h"
#include "utils/env/fence.h"
#include "utils/env/log.h"
#include "utils/env/mesh.h"
#include "utils/env/sched.h"

struct rnd_port { uint64_t (*u64)(struct rnd_port *p); };

struct env {
	struct sched *sched;
	struct clock *clock;
	struct blk *blk;
	struct cluster *cluster;
	struct mesh *mesh;
	struct fence_port *fence;
	struct rnd_port *rnd;
	struct logger *log;
};

static inline uint64_t env_rnd(struct env *e) { return e->rnd->u64(e->rnd); }

#endif
