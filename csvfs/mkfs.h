/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mkfs.h - making a volume.  Pure: disk, time and randomness come from the caller (mkfs.csvfs, tests, the simulator).
 *
 * Invariants
 *  MK1 Nothing is written before every refusal has been checked.
 *  MK2 The superblock and its copies go first (zeroed, FLUSH) and come last (after a FLUSH of everything else): a device whose mkfs
 *      was interrupted is not a volume, neither the new one nor the old.
 *  MK3 The same options on devices of the same size give the same bytes.
 */
#ifndef CSVFS_CSVFS_MKFS_H
#define CSVFS_CSVFS_MKFS_H

#include "csvfs/format.h"
#include "utils/env/blk.h"

#define CSVFS_MKFS_SLOTS 8u
#define CSVFS_MKFS_JOURNAL_MIB 64u
#define CSVFS_MKFS_JOURNAL_MIB_MIN 4u
#define CSVFS_MKFS_JOURNAL_MIB_MAX 1024u
#define CSVFS_MKFS_BYTES_MIN (64ull << 20)

struct csvfs_mkfs_options {
	char label[33];
	uint32_t slots;			/* 0: CSVFS_MKFS_SLOTS */
	uint32_t journal_mib;		/* of each slot; 0: CSVFS_MKFS_JOURNAL_MIB, less on a small device */
	uint8_t uuid[16];		/* random, not zero */
	uint8_t hash_key[16];		/* random */
	uint64_t now_ns;		/* real time */
	uint32_t root_uid, root_gid;
	/* Groups written so far; NULL: nobody wants to know. */
	void (*progress)(void *arg, uint32_t done, uint32_t groups);
	void *arg;
};

/* Where everything would go.  Pure.  -EINVAL, -ENOSPC with err. */
int csvfs_mkfs_plan(uint64_t dev_bytes, uint32_t min_io, const struct csvfs_mkfs_options *o, struct csv_geom *ret, struct csv_err *err);
/*
 * Is the device in use as a csvfs volume?  Awaits: where there is one, its heartbeats are watched for wait_ms.
 * 0: there is none, or nobody uses it and `force`.  -EEXIST: a volume that nobody uses, without `force`.
 * -EBUSY: a slot is active and `force` is missing.  -CSV_E_BUSY_ELSEWHERE: a heartbeat moves: mounted now; force does not help.
 */
int csvfs_mkfs_check(struct blk *b, bool force, uint32_t wait_ms, struct csv_err *err);
/* Awaits.  ret NULL allowed. */
int csvfs_mkfs(struct blk *b, const struct csvfs_mkfs_options *o, struct csv_geom *ret, struct csv_err *err);

#endif
