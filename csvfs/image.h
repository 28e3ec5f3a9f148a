/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * image.h - an image and its raw view are one disk (internal to csvfs/; the calls for the daemon are in csvfs.h).  See image.c.
 */
#ifndef CSVFS_CSVFS_IMAGE_H
#define CSVFS_CSVFS_IMAGE_H

#include "csvfs/inode.h"

/* `inode i` EX is about to leave this node (glock hook): writers that were only counted become known to the cluster. Awaits. */
void image_before_release(struct inode *ip);

#endif
