/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_stream.h - TCP sockets of another process of this node (a QEMU's migration stream), from outside.
 *
 * What QEMU has received and not yet read when the source stops the guest is read before the guest can go on: with the megabytes that
 * Linux lets a fast connection pile up, and TLS in QEMU (a record for each page and for each header), that was 20 to 100 ms of every pause.
 * So the target's socket gets a small buffer. 256 KiB still carry 10 Gbit/s over 0.2 ms.
 *
 * A QEMU that hands its last memory to a host that fell silent sends under its big lock: its monitor does not answer, and nothing but the
 * connection's end wakes it, which TCP finds after a quarter of an hour.
 */
#ifndef CSVFS_HVHOST_HVHOSTD_STREAM_H
#define CSVFS_HVHOST_HVHOSTD_STREAM_H

#include <sys/types.h>

#include "utils/base/err.h"

#define STREAM_BUFFER_BYTES (256u << 10)

/*
 * Connections that the process will accept on that port receive at most `bytes` ahead.  0; -errno with err: -ENOENT it does not listen
 * there, -ESRCH it is gone, -EPERM.  Nothing but a longer pause comes of a failure.
 */
int stream_bound(pid_t pid, int pid_fd, unsigned port, unsigned bytes, struct csv_err *err) csv_must_check;
/* Ends all connections from here to that address and port.  The number of them; -errno with err (the kernel may lack INET_DIAG_DESTROY). */
int stream_break(const char *address, unsigned port, struct csv_err *err) csv_must_check;

#endif
