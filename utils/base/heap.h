/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * heap: intrusive binary min-heap keyed by a uint64_t, for timers and event queues. Any node can be
 * removed. Nodes of equal key come out in the order they were added, so a run is reproducible.
 *
 * Invariants: 1. node[i].key >= node[parent(i)].key, ties by seq; 2. heap->node[n->slot] == n for a
 * node in the heap, and n->slot == CSV_HEAP_OUT for one that is not. One thread.
 */
#ifndef CSV_HEAP_H
#define CSV_HEAP_H

#include "utils/base/base.h"

#define CSV_HEAP_OUT SIZE_MAX

struct csv_heap_node {
	uint64_t key;
	uint64_t seq;
	size_t slot;
};

struct csv_heap {
	struct csv_heap_node **node;
	size_t count;
	size_t capacity;
	uint64_t next_seq;
};

void csv_heap_init(struct csv_heap *heap);
/* Frees the array only: the nodes belong to the caller, and there may still be some in it. */
void csv_heap_done(struct csv_heap *heap);

/* Before a node's first use, so that csv_heap_contains() is right about it. */
void csv_heap_node_init(struct csv_heap_node *n);
static inline bool csv_heap_contains(const struct csv_heap_node *n)
{
	return n->slot != CSV_HEAP_OUT;
}

/* Room for count nodes in all: after it, adding up to that many cannot fail. -ENOMEM. */
int csv_heap_reserve(struct csv_heap *heap, size_t count) csv_must_check;
/* n is not in a heap. -ENOMEM: nothing has changed. */
int csv_heap_add(struct csv_heap *heap, struct csv_heap_node *n, uint64_t key) csv_must_check;
/* n is in this heap. */
void csv_heap_remove(struct csv_heap *heap, struct csv_heap_node *n);
/* n is in this heap; it counts as added last among its new equals. */
void csv_heap_rekey(struct csv_heap *heap, struct csv_heap_node *n, uint64_t key);

/* The least, or NULL. */
struct csv_heap_node *csv_heap_peek(const struct csv_heap *heap);
struct csv_heap_node *csv_heap_pop(struct csv_heap *heap);

#endif
