/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * qemu_args.h - the command line of a VM's QEMU.
 *
 * Invariants
 *  QA1 Two nodes make the same machine of one configuration: machine type pinned, every device has an id and an address on its bus,
 *      no defaults, no user's settings; what differs (paths of sockets, accelerator, descriptors) is nothing the guest sees.
 *  QA2 It starts stopped (-S): only QMP `cont` lets a guest execute.
 *  QA3 Guests' disks: cache direct, errors stop the machine (werror, rerror), images through the volume's raw view.
 *  QA4 A powered-off guest's QEMU stays (-no-shutdown), so that whoever looks later can tell it from a crash.
 *  QA5 The memory of a VM that may run under TCG is no multiple of 64 pages: of a memory that is one, QEMU before 9.0 takes the dirty
 *      bits and leaves the translated code's TLBs as they are, and writes of the guest are lost in a live migration (tests/lab/t-vm-memory).
 *      The configuration decides, not the accelerator of the node (QA1).
 *
 * Pure.
 */
#ifndef CSVFS_HVHOST_QEMU_ARGS_H
#define CSVFS_HVHOST_QEMU_ARGS_H

#include "hvhost/vmconf.h"

#define QEMU_TCG_MORE_KIB 8u /* QA5; QEMU rounds up to this */

struct qemu_place {
	const char *qemu;			/* program */
	const char *volume;			/* where the volume is mounted */
	const char *vm_dir;			/* the VM's folder on it */
	const char *qmp, *console, *console_log;	/* sockets that QEMU makes, and a file, "" none */
	const char *pid_file;			/* "" none */
	enum vm_accel accel;			/* TCG or KVM */
	bool incoming;
	int tap_fds[VMCONF_NICS_MAX];
};

/* NULL-ended, to be given back by qemu_args_free().  0; -ENOMEM; -ENAMETOOLONG a socket's path, with err. */
int qemu_args_new(const struct vm_conf *c, const struct qemu_place *p, char ***ret, struct csv_err *err) csv_must_check;
void qemu_args_free(char **argv);
/* Where QEMU finds a disk: VOLUME/.raw/PATH for images, VOLUME/PATH else. */
void qemu_disk_path(const struct vm_disk *d, const char *volume, char *ret, size_t room);
/* The last line of what QEMU said, without the option that it repeats in front of what is wrong with it. */
const char *qemu_complaint(const char *said);

#endif
