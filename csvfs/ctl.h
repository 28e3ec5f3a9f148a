/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ctl.h - csvfsd's control socket "csvfs-<lockspace>": what csvctl shows of a mounted volume (L4; control thread only).
 *
 * verbs	cluster.status, node.list, volume.list, volume.show, lock.list, lock.show, image.list
 *
 * Invariants
 *  CT1 Every request is answered, also while the volume is joining, paused or withdrawn: nothing here waits for a cluster lock, and
 *      what needs the disk (free space) is given up after CTL_DISK_MS and shown as unknown.
 *  CT2 Nothing here changes the volume.
 */
#ifndef CSVFS_CSVFS_CTL_H
#define CSVFS_CSVFS_CTL_H

#include "csvfs/csvfsd_internal.h"

struct ctl;

/* Borrows all; `f->fs` may be NULL (not mounted yet, or no more).  0 or -errno with err. */
int ctl_start(struct world *w, struct fused *f, const struct csvfsd_options *opt, struct ctl **ret, struct csv_err *err);
void ctl_stop(struct ctl *c);		/* NULL allowed */

#endif
