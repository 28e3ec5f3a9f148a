/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_net.h - a tap on a bridge, for a VM's card.  It goes away with the last process that holds its descriptor.
 */
#ifndef CSVFS_HVHOST_HVHOSTD_NET_H
#define CSVFS_HVHOST_HVHOSTD_NET_H

#include "utils/base/err.h"

/* The descriptor is O_CLOEXEC.  -ENODEV: there is no such bridge. */
int tap_open(const char *bridge, int *ret_fd, struct csv_err *err) csv_must_check;

#endif
