/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_accel.h - does /dev/kvm work?  A guest of 64-bit code that says one word in time is the only answer that is believed: the device may
 * be there and refuse, hang, run a guest wrongly, or emulate it (nested virtualization).
 *
 *	kvm+slat	it ran, and the processor translates guests' addresses (EPT, NPT)
 *	kvm		it ran
 *	tcg		there is none, or it did not run within the limit; everything works, slower
 */
#ifndef CSVFS_HVHOST_HVHOSTD_ACCEL_H
#define CSVFS_HVHOST_HVHOSTD_ACCEL_H

#include "hvhost/vmconf.h"
#include "utils/env/loop.h"

#define ACCEL_PROBE_MS 5000u

struct accel_report { enum vm_accel accel; bool slat; char reason[200]; unsigned took_ms; };

/*
 * What a guest has answered is kept in `dir` (a tmpfs, so until the node's next boot): a restart of hvhostd does not wait for it again.
 *
 * In a coroutine.  Never fails: what it cannot find out is tcg with a reason.  `dir` is for its files, `base` for its
 * cgroup.
 */
void accel_probe(struct loop *l, const char *qemu, const char *dir, const char *base, struct accel_report *ret);
const char *accel_text(const struct accel_report *r);

#endif
