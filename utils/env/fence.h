/*
 * fence.h - the fencing port: "make sure this node writes nothing any more".
 *
 * Real: a ClusterLabs-style agent program, run by a helper process that was forked before the mount (rule R15), action `off`
 * and then `status`, which must say off.  Simulated: the world drops the node's late writes from then on.
 * done() is called once, from the control thread, with 0 only when it is *confirmed*; every other result leaves the node
 * unproven (its locks and journal stay closed) and may be retried.  err names agent, node, reason, and what to do.
 */
#ifndef CSVFS_UTILS_ENV_FENCE_H
#define CSVFS_UTILS_ENV_FENCE_H

#include "utils/base/err.h"
#include "utils/env/cluster.h"

struct fence_req {
	struct cluster_node node;
	int result;
	struct csv_err err;
	void (*done)(struct fence_req *r);
	void *arg;
};
struct fence_port;
struct fence_port_ops { void (*submit)(struct fence_port *p, struct fence_req *r); };
struct fence_port { const struct fence_port_ops *ops; };

#endif
