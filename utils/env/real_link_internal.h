/*
 * real_link_internal.h - the TCP links without corosync, for tests, and their counters.
 */
#ifndef CSVFS_UTILS_ENV_REAL_LINK_INTERNAL_H
#define CSVFS_UTILS_ENV_REAL_LINK_INTERNAL_H

#include "utils/env/real.h"
#include "utils/env/real_internal.h"

#define LINK_PORTS 4			/* candidates per volume: several volumes of a node may want the same */

/* The k-th candidate of a volume. */
uint16_t link_port_number(uint64_t lockspace, unsigned k);

/* As real_link_new(), with the nodes and the key file given.  `nodes` is copied. */
int link_new_nodes(struct loop *l, struct logger *log, uint64_t lockspace, uint32_t self, const struct real_nodes *nodes,
		   struct link_port **ret, struct csv_err *err);

/* What this node says that it speaks; before ops->start.  Without: PROTO_MESH, PROTO_MESSAGES. */
void link_set_versions(struct link_port *p, struct proto_range mesh, struct proto_range messages);

#endif
