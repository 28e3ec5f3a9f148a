/*
 * real.h - the real implementations of the ports: the machine's clocks, random source and disks.
 * Control thread, but for the clocks and the random source (any thread).
 */
#ifndef CSVFS_UTILS_ENV_REAL_H
#define CSVFS_UTILS_ENV_REAL_H

#include "utils/base/err.h"
#include "utils/env/blk_open.h"
#include "utils/env/env.h"
#include "utils/env/loop.h"

void real_clock_init(struct clock *c);
void real_rnd_init(struct rnd_port *p);

/*
 * A block device or regular file through libaio: O_DIRECT, O_CLOEXEC.  Requests of one turn of the loop are submitted together; FLUSH
 * is IO_CMD_FDSYNC; DISCARD runs on a thread of its own.  Owner: the caller; blk_close() frees (nothing in flight).  `flags` as
 * blk_file_open().  0 or -errno with err: object, reason, what to do.
 */
int real_blk_open(const char *path, unsigned flags, struct loop *l, struct blk **ret_blk, struct csv_err *err);
/* The descriptor, for the data plane's own aio contexts. */
int real_blk_fd(const struct blk *b);
/* Longest time one io_submit took, ns: it may block in the kernel (for people). */
uint64_t real_blk_submit_ns_max(const struct blk *b);

#endif
