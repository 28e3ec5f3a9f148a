/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * core_ops.h - what the unit tests of the operations share: a body run as a coroutine on a mounted node, short names for the calls, a disk
 * whose k-th request fails.
 */
#ifndef CSVFS_TESTS_UNIT_CORE_OPS_H
#define CSVFS_TESTS_UNIT_CORE_OPS_H

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "tests/unit/core_check.h"

static void (*co_body)(struct csvfs *fs);

static void co_main(void *arg)
{
	struct cw_node *n = arg;

	co_body(n->fs);
	n->done = true;
}

static csv_unused void on_node(unsigned id, void (*fn)(struct csvfs *fs))
{
	co_body = fn;
	cw_do(id, co_main);
}

/* One body on node 1 of a new volume; afterwards the volume must be consistent and without orphans. */
static csv_unused void on_new_volume(void (*fn)(struct csvfs *fs))
{
	cw_setup();
	cw_mount(1);
	on_node(1, fn);
	cw_umount(1);
	ck_assert_uint_eq(cc_check(), 0);
	cw_teardown();
}

#define OK(call)                                                                        \
	do {                                                                            \
		long long r_ = (call);                                                  \
		ck_assert_msg(r_ == 0, "%s:%d: %s: %lld (%s)\n%s", __FILE__, __LINE__, #call, r_, \
			      csv_err_describe((int)r_), cw.all_log);                   \
	} while (0)
#define IS(call, want)                                                                  \
	do {                                                                            \
		long long r_ = (call), w_ = (want);                                     \
		ck_assert_msg(r_ == w_, "%s:%d: %s: %lld (%s), want %lld\n%s", __FILE__, __LINE__, #call, r_, \
			      r_ < 0 ? csv_err_describe((int)r_) : "", w_, cw.all_log);  \
	} while (0)

static csv_unused uint64_t root(struct csvfs *fs) { return csvfs_root_ino(fs); }

static csv_unused struct csvfs_attr mk(struct csvfs *fs, uint64_t dir, const char *name, uint32_t mode)
{
	struct csvfs_attr a;

	OK(csvfs_create(fs, dir, 0, name, mode, 10, 20, 0, false, &a));
	return a;
}

static csv_unused struct csvfs_attr look(struct csvfs *fs, uint64_t dir, const char *name)
{
	struct csvfs_attr a;

	OK(csvfs_lookup(fs, dir, 0, name, &a));
	return a;
}

static csv_unused int has(struct csvfs *fs, uint64_t dir, const char *name)
{
	struct csvfs_attr a;

	return csvfs_lookup(fs, dir, 0, name, &a);
}

static csv_unused struct csvfs_attr attr(struct csvfs *fs, uint64_t ino)
{
	struct csvfs_attr a;

	OK(csvfs_getattr(fs, ino, 0, &a));
	return a;
}

/* Bytes of a file that tell where they belong. */
static csv_unused void fill(uint8_t *buf, size_t len, uint64_t off, uint32_t salt)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(((off + i) * 2654435761u >> 7) + salt + 1);
}

/* ---- the k-th request fails ------------------------------------------------------------------------------------------------- */

static struct { uint64_t at, seen; unsigned node; bool hit; bool stay; } co_fault;

static csv_unused void co_submit(struct blk *b, struct blk_req *r)
{
	if (co_fault.at && ++co_fault.seen >= co_fault.at && (co_fault.stay || !co_fault.hit)) {
		co_fault.hit = true;
		blk_complete_later(b, r, -EIO);
		return;
	}
	if (r->op == BLK_DISCARD && r->off % 4096 == 0 && r->len % 4096 == 0) {
		madvise(cw.disk + r->off, r->len, MADV_DONTNEED);	/* zeros, without the memory */
		blk_complete_later(b, r, 0);
		return;
	}
	cw_blk_ops.submit(b, r);
}
static const struct blk_ops co_blk_ops = { co_submit, cw_blk_close };

/* From now on: the k-th request of the node fails (0: none). */
static csv_unused void co_fail_at(unsigned id, uint64_t k)
{
	cw_n(id)->blk.ops = &co_blk_ops;
	co_fault.at = k;
	co_fault.seen = 0;
	co_fault.hit = false;
}

#endif
