/*
 * mig_world_internal.h - between the world and its fake hvhostd.
 */
#ifndef CSVFS_TESTS_UNIT_MIG_WORLD_INTERNAL_H
#define CSVFS_TESTS_UNIT_MIG_WORLD_INTERNAL_H

#include "tests/unit/mig_world.h"

/* Something that happens later; fn frees nothing. */
struct later {
	struct cds_list_head node;
	uint64_t due_ns;
	struct mw_node *n;
	void (*fn)(struct later *l);
	struct mw_vm *vm;
	uint64_t epoch, txid;
	struct fence_req *fence;
	struct mig_hbeat_req *hbeat;
	struct mig *m;
};
void mw_later(struct mw_node *n, uint64_t ns, struct later what, void (*fn)(struct later *l));

/* ---- mig_world_hv.c */
struct mw_vm *mw_vm_slot(struct mw_node *n, const char *name);	/* made when it is not there */
bool mw_line_take(struct mw_node *n);				/* one line of migratord; false: there is none */
void mw_lines_drop(struct mw_node *n);
bool mw_agent_send(struct mig_port *p, const char *text, size_t len);

#endif
