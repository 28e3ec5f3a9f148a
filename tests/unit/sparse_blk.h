/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sparse_blk.h - a device of any size in memory that keeps of each 4 KiB block only what comes before its trailing zeroes: a made
 * volume of 100 TB takes some 150 MB.  Writes and reads of whole blocks.
 */
#ifndef CSVFS_TESTS_UNIT_SPARSE_BLK_H
#define CSVFS_TESTS_UNIT_SPARSE_BLK_H

#include "utils/env/blk.h"

struct blk *sparse_blk_new(struct sched *s, uint64_t size_bytes, uint32_t min_io);
uint64_t sparse_blk_bytes(struct blk *b);	/* memory in use */

#endif
