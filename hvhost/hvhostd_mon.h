/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_mon.h - the connection to the monitor of one living QEMU.
 *
 * Invariants
 *  MN1 Connecting is tried until QEMU listens or `until` has passed; a QEMU that took the connection and says nothing is broken then, too.
 *  MN2 events.broken() comes once, from the loop; then only mon_close() makes sense.
 *
 * Control thread.
 */
#ifndef CSVFS_HVHOST_HVHOSTD_MON_H
#define CSVFS_HVHOST_HVHOSTD_MON_H

#include "hvhost/qmp.h"
#include "utils/env/loop.h"

struct mon;

/* `until_ns` of clock_mono_ns(): greeting and negotiation.  0 or -ENOMEM. */
int mon_open(struct loop *l, const char *path, uint64_t until_ns, const struct qmp_events *ev, struct mon **ret) csv_must_check;
/* NULL allowed.  Calls that wait end with -EPIPE; broken() is not called. */
void mon_close(struct mon *m);
bool mon_ready(const struct mon *m);

/* For commands: qmp_execute(), qmp_call(). */
struct qmp *mon_qmp(struct mon *m);

#endif
