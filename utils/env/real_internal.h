/*
 * real_internal.h - what the real ports know of corosync's configuration.  Blocking calls: at start, not in the running loop.
 */
#ifndef CSVFS_UTILS_ENV_REAL_INTERNAL_H
#define CSVFS_UTILS_ENV_REAL_INTERNAL_H

#include <limits.h>
#include <stdint.h>

#include "utils/base/err.h"
#include "utils/env/cluster.h"

#define REAL_ADDRS_MAX 8		/* rings of one node */

struct real_node {
	uint32_t nodeid;
	unsigned n_addrs;
	char name[64];
	char addr[REAL_ADDRS_MAX][64];	/* as written in corosync.conf */
};

struct real_nodes {
	unsigned n;
	struct real_node node[CLUSTER_NODES_MAX];
	bool no_tls;			/* links in the clear */
	char keyfile[PATH_MAX];		/* of totem, default /etc/corosync/authkey */
};

int real_nodes_read(struct real_nodes *ret, struct csv_err *err);
const struct real_node *real_nodes_find(const struct real_nodes *n, uint32_t nodeid);

#endif
