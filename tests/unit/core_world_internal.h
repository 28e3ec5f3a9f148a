/* SPDX-License-Identifier: GPL-2.0-only */
/* core_world_internal.h - shared by core_world.c (nodes, time) and core_world_ports.c (the fakes at their ports). */
#ifndef CSVFS_TESTS_UNIT_CORE_WORLD_INTERNAL_H
#define CSVFS_TESTS_UNIT_CORE_WORLD_INTERNAL_H

#include "tests/unit/core_world.h"

struct cw_ev {
	struct cds_list_head node;
	enum { CW_TOTEM, CW_MEMBERS, CW_QUORUM, CW_PROCDOWN, CW_MSG, CW_UP, CW_DOWN, CW_FRAME } kind;
	struct ring_id ring;
	uint32_t from, n, m[CW_NODES];
	size_t len;
	uint8_t buf[];
};
struct cw_write { struct cds_list_head node; uint64_t life; struct blk_req *req; uint64_t off; uint32_t len; bool is_write; uint8_t data[]; };
struct cw_fencing { struct cds_list_head node; struct timer timer; struct cw_node *by; struct fence_req *req; };

extern const struct cluster_port_ops cw_port_ops;
extern const struct link_port_ops cw_link_ops;
extern const struct fence_port_ops cw_fence_ops;

struct cw_ev *cw_ev_new(int kind, const void *buf, size_t len);
void cw_drop(struct cds_list_head *q);
void cw_tell_members(struct cw_node *to);
void cw_link_down(unsigned a, unsigned b);
uint64_t cw_rnd(struct rnd_port *p);
void cw_log_write(struct logger *l, enum log_level level, const char *text);

#endif
