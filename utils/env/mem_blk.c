/*
 * mem_blk.c - a device in memory, for unit tests.  Thread: the scheduler's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "utils/base/base.h"
#include "utils/env/sync_blk.h"

struct mem_blk {
	struct blk blk;
	uint8_t *data;			/* mapped without reserve: a large device costs what is written */
	void (*hook)(void *arg, const struct blk_req *r);
	void *hook_arg;
	uint64_t fail_in;
	int fail_result;
};

static struct mem_blk *mem_of(struct blk *b)
{
	return container_of(b, struct mem_blk, blk);
}

static void mem_submit(struct blk *b, struct blk_req *r)
{
	struct mem_blk *m = mem_of(b);

	if (m->fail_in && --m->fail_in == 0) {
		blk_complete_later(b, r, m->fail_result);
		return;
	}
	if (m->hook)
		m->hook(m->hook_arg, r);
	switch (r->op) {
	case BLK_READ: memcpy(r->buf, m->data + r->off, r->len); break;
	case BLK_WRITE: memcpy(m->data + r->off, r->buf, r->len); break;
	case BLK_DISCARD: memset(m->data + r->off, 0, r->len); break;
	case BLK_FLUSH: break;
	}
	blk_complete_later(b, r, 0);
}

static void mem_close(struct blk *b)
{
	munmap(mem_of(b)->data, b->size_bytes);
	free(mem_of(b));
}

static const struct blk_ops mem_ops = { .submit = mem_submit, .close = mem_close };

int mem_blk_new(struct sched *s, uint64_t size_bytes, uint32_t io_align, struct blk **ret)
{
	struct mem_blk *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	csv_assert(size_bytes && size_bytes % io_align == 0 && (io_align == 512 || io_align == 4096));
	m->data = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->data == MAP_FAILED) {
		free(m);
		return -ENOMEM;
	}
	m->blk.ops = &mem_ops;
	m->blk.sched = s;
	m->blk.size_bytes = size_bytes;
	m->blk.min_io = m->blk.io_align = io_align;
	*ret = &m->blk;
	return 0;
}

uint8_t *mem_blk_data(struct blk *b)
{
	return mem_of(b)->data;
}

void mem_blk_set_hook(struct blk *b, void (*hook)(void *arg, const struct blk_req *r), void *arg)
{
	mem_of(b)->hook = hook;
	mem_of(b)->hook_arg = arg;
}

void mem_blk_fail_at(struct blk *b, uint64_t k, int result)
{
	mem_of(b)->fail_in = k;
	mem_of(b)->fail_result = result;
}
