/* SPDX-License-Identifier: GPL-2.0-only */
/* ctl_internal.h - shared by ctl.c (socket, verbs), ctl_volume.c (the volume) and ctl_lock.c (locks). */
#ifndef CSVFS_CSVFS_CTL_INTERNAL_H
#define CSVFS_CSVFS_CTL_INTERNAL_H

#include <jansson.h>

#include "csvfs/csvfs_internal.h"
#include "csvfs/ctl.h"
#include "utils/rpc/rpc_server.h"

#define CTL_DISK_MS 1000u
#define CTL_PHANTOMS_MAX 100u

struct ctl {
	struct world *w;
	struct fused *f;
	const struct csvfsd_options *opt;
	struct rpc_server *srv;
	struct cluster_facts facts;
	uint64_t started_ns;
	char dir[4096];
};

/* Each returns a new reply, NULL when out of memory.  In a coroutine of its own. */
json_t *ctl_cluster_status(struct ctl *c, const json_t *args);
json_t *ctl_node_list(struct ctl *c, const json_t *args);
json_t *ctl_node_confirm_fenced(struct ctl *c, const json_t *args);
json_t *ctl_volume_list(struct ctl *c, const json_t *args);
json_t *ctl_volume_show(struct ctl *c, const json_t *args);
json_t *ctl_lock_list(struct ctl *c, const json_t *args);
json_t *ctl_image_list(struct ctl *c, const json_t *args);

const char *ctl_state_name(enum csvfs_state st);
/* "inode:4711"; of a dlm name. */
json_t *ctl_lock_name(struct csv_owner o);
bool ctl_lock_parse(const uint8_t *name, uint8_t len, struct csv_owner *ret);
json_t *ctl_incarnation(uint64_t incarnation);
json_t *ctl_link(struct ctl *c, uint32_t nodeid);	/* the link to a member: up, where, versions; null: ourselves */
json_t *ctl_protocol(struct ctl *c);			/* versions of the messages: of this view, and ours */

#endif
