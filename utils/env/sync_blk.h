/*
 * sync_blk.h - block ports without a main loop.
 *
 * sync_blk: each request is carried out inside blk_submit() with pread/pwrite/fdatasync and completes through the run
 * queue; sched_run() is all the loop that is needed.  For mkfs, fsck, dump, and tests on files.
 *
 * mem_blk: memory, for unit tests, with a hook that sees every request before it is carried out (write-stream recorder)
 * and a fault that hits the k-th request.
 */
#ifndef CSVFS_UTILS_ENV_SYNC_BLK_H
#define CSVFS_UTILS_ENV_SYNC_BLK_H

#include "utils/base/err.h"
#include "utils/env/blk.h"
#include "utils/env/blk_open.h"

/* Owner: the caller; blk_close() frees.  0 or -errno with err set. */
int sync_blk_open(const char *path, unsigned flags, struct sched *s, struct blk **ret, struct csv_err *err);

/* size_bytes and io_align (512 or 4096) are as given; the content is zeroes.  -ENOMEM. */
int mem_blk_new(struct sched *s, uint64_t size_bytes, uint32_t io_align, struct blk **ret);
uint8_t *mem_blk_data(struct blk *b);
/* The request is borrowed for the call; NULL: no hook. */
void mem_blk_set_hook(struct blk *b, void (*hook)(void *arg, const struct blk_req *r), void *arg);
/* The k-th request from now (1: the next) fails with `result` and has no effect; 0: none does. */
void mem_blk_fail_at(struct blk *b, uint64_t k, int result);

#endif
