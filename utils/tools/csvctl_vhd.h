/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_vhd.h - between the files of "csvctl vhd".
 */
#ifndef CSVFS_UTILS_TOOLS_CSVCTL_VHD_H
#define CSVFS_UTILS_TOOLS_CSVCTL_VHD_H

#include "csvfs/vhd/vimg.h"
#include "utils/tools/csvctl.h"

/* How an image is shown; NULL: out of memory. */
json_t *cc_vhd_item(const char *path, const struct vimg *v, uint64_t file_size);

#endif
