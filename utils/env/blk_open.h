/*
 * blk_open.h - opening a block device or a regular file as a volume's device, with errors a person can act on.
 * Any thread.
 */
#ifndef CSVFS_UTILS_ENV_BLK_OPEN_H
#define CSVFS_UTILS_ENV_BLK_OPEN_H

#include <stdbool.h>
#include <stdint.h>

#include "utils/base/err.h"

#define BLK_O_RDONLY	0x1u
#define BLK_O_EXCL	0x2u	/* block devices: fail when it is mounted or held by device mapper (O_EXCL) */
#define BLK_O_BUFFERED	0x4u	/* no O_DIRECT where the file system has none: tools on regular files only */

struct blk_file {
	int fd;
	bool is_blkdev, direct, readonly;
	uint64_t size_bytes;		/* whole io_align units */
	uint32_t min_io, io_align;
};

/* O_CLOEXEC always; O_DIRECT always for block devices.  0 or -errno with err set. */
int blk_file_open(const char *path, unsigned flags, struct blk_file *ret, struct csv_err *err);
void blk_file_close(struct blk_file *f);
/* Blocking: frees the range.  0, -EOPNOTSUPP, -errno. */
int blk_file_discard(const struct blk_file *f, uint64_t off, uint64_t len);

#endif
