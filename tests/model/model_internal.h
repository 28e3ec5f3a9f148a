/* SPDX-License-Identifier: GPL-2.0-only */
/* model_internal.h - between model_world.c (what follows), model_step.c (doing a step) and model_may.c (which may happen). */
#ifndef CSVFS_TESTS_MODEL_INTERNAL_H
#define CSVFS_TESTS_MODEL_INTERNAL_H

#include "tests/model/model.h"

#define QUEUE_MAX 512

enum item_kind { ITEM_MSG, ITEM_EVENT };
struct item {
	enum item_kind kind;
	unsigned node, vm, to;
	size_t len;
	struct vmsm_event ev;
	uint8_t buf[HELD_BYTES];
};

struct io_arg { struct world *w; unsigned node; };

/* model_may.c: which migratords a view of this node's would have, and whether it has quorum */
uint8_t model_wanted_view(const struct mstate *s, unsigned node, bool *ret_quorate);
/* The QEMU at the other end of its stream; NULL: gone, or cannot be reached. */
struct mq *model_other_end(const struct mstate *s, unsigned node, unsigned vm);
bool model_is_sending(const struct mq *q);
int model_leader(const struct mstate *s);	/* the node whose migratord leads; -1 none */

/* model_world.c */
void tell(struct world *w, const char *fmt, ...) csv_printf_like(2, 3);
void violate(struct world *w, const char *fmt, ...) csv_printf_like(2, 3);
/* 0 .. fan - 1; 0: nothing goes wrong */
unsigned choose(struct world *w, unsigned fan);
const char *vm_name(unsigned vm);
bool reach(const struct mstate *s, unsigned a, unsigned b);
struct vmsm_event *push_event(struct world *w, unsigned node, unsigned vm, enum vmsm_ev ev);
void push_all_records(struct world *w, unsigned node);
void push_status(struct world *w, unsigned node, unsigned vm);
void begin_run(struct world *w, unsigned node, unsigned vm);
void end_qemu(struct world *w, unsigned node, unsigned vm);
void hand_over_proposal(struct world *w, unsigned node, unsigned vm, const struct lease_cas *cas, uint64_t ring);
void hv_die(struct world *w, unsigned node);
void replica_view(struct world *w, unsigned node, const struct cluster_view *v);
void replica_tick(struct world *w, unsigned node);
void replica_prove(struct world *w, unsigned node, unsigned other, uint64_t inc);
int leader_proposes(struct world *w, unsigned node, const struct lease_cas *cas);
void deliver_held(struct world *w);
void world_settle_down(struct world *w);
void world_check(struct world *w);

#endif
