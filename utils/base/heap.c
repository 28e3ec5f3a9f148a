/* SPDX-License-Identifier: GPL-2.0-only */
#include "utils/base/heap.h"

#include <errno.h>
#include <stdlib.h>

static bool less(const struct csv_heap_node *a, const struct csv_heap_node *b)
{
	return a->key != b->key ? a->key < b->key : a->seq < b->seq;
}

static void put(struct csv_heap *heap, size_t slot, struct csv_heap_node *n)
{
	heap->node[slot] = n;
	n->slot = slot;
}

static void sift_up(struct csv_heap *heap, size_t slot, struct csv_heap_node *n)
{
	while (slot) {
		size_t parent = (slot - 1) / 2;

		if (!less(n, heap->node[parent]))
			break;
		put(heap, slot, heap->node[parent]);
		slot = parent;
	}
	put(heap, slot, n);
}

static void sift_down(struct csv_heap *heap, size_t slot, struct csv_heap_node *n)
{
	for (;;) {
		size_t child = 2 * slot + 1;

		if (child >= heap->count)
			break;
		if (child + 1 < heap->count && less(heap->node[child + 1], heap->node[child]))
			child++;
		if (!less(heap->node[child], n))
			break;
		put(heap, slot, heap->node[child]);
		slot = child;
	}
	put(heap, slot, n);
}

/* n may be too small or too large for the place: one of the two moves it. */
static void settle(struct csv_heap *heap, size_t slot, struct csv_heap_node *n)
{
	if (slot && less(n, heap->node[(slot - 1) / 2]))
		sift_up(heap, slot, n);
	else
		sift_down(heap, slot, n);
}

void csv_heap_init(struct csv_heap *heap)
{
	*heap = (struct csv_heap){0};
}

void csv_heap_done(struct csv_heap *heap)
{
	free(heap->node);
	*heap = (struct csv_heap){0};
}

void csv_heap_node_init(struct csv_heap_node *n)
{
	*n = (struct csv_heap_node){.slot = CSV_HEAP_OUT};
}

int csv_heap_reserve(struct csv_heap *heap, size_t count)
{
	size_t capacity = csv_max(heap->capacity, (size_t)16);
	struct csv_heap_node **node;

	if (count <= heap->capacity)
		return 0;
	while (capacity < count) {
		if (capacity > SIZE_MAX / 2)
			return -ENOMEM;
		capacity *= 2;
	}
	node = reallocarray(heap->node, capacity, sizeof(*node));
	if (!node)
		return -ENOMEM;
	heap->node = node;
	heap->capacity = capacity;
	return 0;
}

int csv_heap_add(struct csv_heap *heap, struct csv_heap_node *n, uint64_t key)
{
	int rc;

	csv_assert(!csv_heap_contains(n));
	rc = csv_heap_reserve(heap, heap->count + 1);
	if (rc)
		return rc;
	n->key = key;
	n->seq = heap->next_seq++;
	sift_up(heap, heap->count++, n);
	return 0;
}

void csv_heap_remove(struct csv_heap *heap, struct csv_heap_node *n)
{
	struct csv_heap_node *last;
	size_t slot = n->slot;

	csv_assert(slot < heap->count && heap->node[slot] == n);
	last = heap->node[--heap->count];
	n->slot = CSV_HEAP_OUT;
	if (last != n)
		settle(heap, slot, last);
}

void csv_heap_rekey(struct csv_heap *heap, struct csv_heap_node *n, uint64_t key)
{
	csv_assert(n->slot < heap->count && heap->node[n->slot] == n);
	n->key = key;
	n->seq = heap->next_seq++;
	settle(heap, n->slot, n);
}

struct csv_heap_node *csv_heap_peek(const struct csv_heap *heap)
{
	return heap->count ? heap->node[0] : NULL;
}

struct csv_heap_node *csv_heap_pop(struct csv_heap *heap)
{
	struct csv_heap_node *n = csv_heap_peek(heap);

	if (n)
		csv_heap_remove(heap, n);
	return n;
}
