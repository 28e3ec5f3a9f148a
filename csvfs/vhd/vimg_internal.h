/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vimg_internal.h - between the files of csvfs/vhd.
 */
#ifndef CSVFS_CSVFS_VHD_VIMG_INTERNAL_H
#define CSVFS_CSVFS_VHD_VIMG_INTERNAL_H

#include "csvfs/vhd/vimg.h"

#define VIMG_VHD_BLOCKS_MAX (1u << 24)

/* The log's bytes; h->log_guid is not zero.  vhdx_log_replay_done() gives the memory back. */
int vhdx_log_replay(const struct vhdx_header *h, uint64_t file_size, const void *log, struct vimg_replay *ret, struct csv_err *err);
void vhdx_log_replay_done(struct vimg_replay *r);

/* What the engine sees of a footer (and dynamic header) that was believed. */
int vimg_of_vhd(const struct vhd_info *i, const void *footer, struct vimg *ret, struct csv_err *err);
int vimg_of_vhdx(const struct vhdx_params *p, const struct vhdx_regions *r, const struct vhdx_header *h, struct vimg *ret,
		 struct csv_err *err);
/* The area that [off, off + len) overlaps; NULL: none. */
const struct vimg_area *vimg_area_at(const struct vimg *v, uint64_t off, uint64_t len);
/* Bytes from the record's begin to its data's end: what must lie in the file and not overlap. */
uint64_t vimg_record_len(const struct vimg *v, uint64_t block);

#endif
