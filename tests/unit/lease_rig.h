/* SPDX-License-Identifier: GPL-2.0-only */
/* lease_rig.h - a move as tests of the leases and their fuzzer propose it. */
#ifndef CSVFS_TESTS_LEASE_RIG_H
#define CSVFS_TESTS_LEASE_RIG_H

#include <stdio.h>
#include <string.h>

#include "migrator/lease.h"

/* From the version of `l` (NULL: no record yet); a node's life is 16 times its id. */
static inline struct lease_cas lease_rig_cas(const struct lease *l, const char *vm, enum lease_move move, uint32_t node)
{
	struct lease_cas c;

	memset(&c, 0, sizeof(c));
	snprintf(c.vm, sizeof(c.vm), "%s", vm);
	c.version = l ? l->version : 0;
	c.move = move;
	c.role = move == LEASE_STARTED ? LEASE_BY_AGENT : LEASE_BY_COORD;
	c.want = LEASE_WANT_RUN;
	c.flags = LEASE_HA;
	c.node = node;
	c.node_inc = node * 16;
	c.config = 1;
	return c;
}

#endif
