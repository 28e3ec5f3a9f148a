/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * inode_table.h - what the inodes of one mount share, and the disk form of an inode (for inode.c, inode_disk.c, file.c).
 */
#ifndef CSVFS_CSVFS_INODE_TABLE_H
#define CSVFS_CSVFS_INODE_TABLE_H

#include "csvfs/inode.h"

struct inode_table {
	/* One device FLUSH for everybody who waits for one (file_sync.c). */
	bool flush_busy;
	uint64_t flushes_begun, flushes_done;
	int flush_err;			/* of flushes_done */
	struct waitq flush_wq;
};

/* Value block. from_lvb: sets `loaded` and `verified` when it can be believed, else leaves `ip` alone. */
void inode_to_lvb(const struct inode *ip, struct csv_lvb_inode *ret);
void inode_from_lvb(const struct csv_lvb_inode *l, struct inode *ip);

#endif
