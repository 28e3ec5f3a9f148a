/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * alloc_hint.c - what this node believes of groups it has not locked: from value blocks and from when it last had them.
 *
 * A search over groups costs a look at one summary word per SUMMARY_GROUPS full groups.  Hints are never trusted to say "no space":
 * alloc.c scans all groups before that.
 */
#include "csvfs/alloc_internal.h"

void hint_set(struct csvfs *fs, uint32_t group, uint32_t free_blk, uint32_t largest, bool exact)
{
	struct alloc_ctl *a = fs->alloc;

	struct group_hint *h = &a->hint[group];

	h->free_blk = free_blk;
	h->largest_run = largest;
	h->known = true;
	h->exact = exact;
	a->summary[group / SUMMARY_GROUPS] = csv_max(a->summary[group / SUMMARY_GROUPS], free_blk);
}

bool hint_allows(const struct csvfs *fs, uint32_t group, uint32_t blocks, uint32_t run)
{
	const struct group_hint *h = &fs->alloc->hint[group];

	return !h->known || (h->free_blk >= blocks && h->largest_run >= run);
}

uint32_t hint_next(struct csvfs *fs, uint32_t from, uint32_t blocks, uint32_t run)
{
	struct alloc_ctl *a = fs->alloc;
	uint32_t groups = fs->geo.groups;

	while (from < groups) {
		uint32_t s = from / SUMMARY_GROUPS, end = csv_min((s + 1) * SUMMARY_GROUPS, groups), most = 0;
		bool whole = from == s * SUMMARY_GROUPS;

		if (a->summary[s] < blocks) {
			from = end;
			continue;
		}
		for (; from < end; from++) {
			if (hint_allows(fs, from, blocks, run))
				return from;
			most = csv_max(most, a->hint[from].free_blk);
		}
		if (whole)
			a->summary[s] = most;	/* all are known, or we would have stopped */
	}
	return groups;
}

uint32_t reserve_of(const struct csvfs *fs, uint32_t group)
{
	uint64_t all = (uint64_t)fs->geo.groups * CSV_GROUP_BLOCKS / 100;
	uint32_t holders = csv_min(fs->geo.groups, RESERVE_GROUPS), share;

	if (group >= holders)
		return 0;
	share = (uint32_t)(csv_min(all, (uint64_t)RESERVE_BLOCKS_MAX) / holders);
	return csv_min(share, csv_group_blocks(&fs->geo, group) / 100);
}

uint64_t alloc_reserved_blocks(const struct csvfs *fs)
{
	uint64_t sum = 0;

	for (uint32_t g = 0; g < csv_min(fs->geo.groups, RESERVE_GROUPS); g++)
		sum += reserve_of(fs, g);
	return sum;
}
