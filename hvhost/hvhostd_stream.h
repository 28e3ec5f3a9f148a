/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_stream.h - the end of a TCP connection of another process of this node (a QEMU's migration stream), from outside.
 *
 * A QEMU that hands its last memory to a host that fell silent sends under its big lock: its monitor does not answer, and nothing but the
 * connection's end wakes it, which TCP finds after a quarter of an hour.
 */
#ifndef CSVFS_HVHOST_HVHOSTD_STREAM_H
#define CSVFS_HVHOST_HVHOSTD_STREAM_H

#include "utils/base/err.h"

/* Ends all connections from here to that address and port.  The number of them; -errno with err (the kernel may lack INET_DIAG_DESTROY). */
int stream_break(const char *address, unsigned port, struct csv_err *err) csv_must_check;

#endif
