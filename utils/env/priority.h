/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * priority.h - who gets the processor first on a host whose processors are all taken by guests.
 *
 * The daemons are asked for little at a time, and what they answer is what guests wait for: their I/O, the right to run, the end of a
 * pause. So they go first (nice -15, setpriority(2)); guests and other programs that they start have the ordinary 0.
 *
 * Any thread; priority_ordinary() also between fork and exec. Without the privilege nothing changes, and nothing else depends on it.
 */
#ifndef CSVFS_UTILS_ENV_PRIORITY_H
#define CSVFS_UTILS_ENV_PRIORITY_H

/* Of the calling thread and of those that it creates: call it first in main. */
void priority_first(void);
void priority_ordinary(void);

#endif
