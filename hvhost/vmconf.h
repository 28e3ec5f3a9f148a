/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmconf.h - what a virtual machine is: one immutable numbered configuration, and the definition that says what is wanted of it.
 *
 * On the volume, in vms/NAME/:
 *	config.N.json	a configuration (struct vm_conf), written once, N from 1; the lease names the one that runs
 *	definition.json	struct vm_def: want, priority, ha, the newest N; replaced as a whole
 *	kernel.N, initrd.N	copies made for configuration N
 *
 * CONFIG as JSON (defaults in brackets; every other key is an error):
 *	{"name": "web1", "uuid": "…", "memory_bytes": 268435456, "cpus": 1, "machine": ["pc-q35-7.2"], "cpu": ["qemu64"],
 *	 "accel": ["auto"] | "tcg" | "kvm",
 *	 "disks": [{"path": "vms/web1/a.vhdx", "format": "raw|vhd|vhdx" [by the name's end], "read_only": [false], "serial": [""]}…],
 *	 "nics": [{"bridge": "br0", "mac": "52:54:00:12:34:56"}…] [none],
 *	 "kernel": "kernel.1", "initrd": "initrd.1", "append": "…" [none],
 *	 "port": ["" ] a second serial port: QEMU connects it to this socket of the host it runs on,
 *	 "downtime_ms": [300]}
 *
 * Invariants
 *  VC1 A configuration that was decoded is complete and within bounds: encoding it again and decoding gives the same.
 *  VC2 Paths of disks are relative to the volume and stay inside; kernel and initrd are names of files in the VM's own folder.
 *  VC3 An error names the field ("disks[1].path: ...") and what is allowed.
 *
 * Pure.
 */
#ifndef CSVFS_HVHOST_VMCONF_H
#define CSVFS_HVHOST_VMCONF_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "utils/base/err.h"

#define VMCONF_DISKS_MAX 16u
#define VMCONF_NICS_MAX 8u
#define VMCONF_MEMORY_MIN (16ull << 20)
#define VMCONF_MEMORY_MAX (16ull << 40)
#define VMCONF_CPUS_MAX 255
#define VMCONF_TEXT_MAX (64u * 1024)		/* of a file */
#define VMCONF_MACHINE "pc-q35-7.2"
#define VMCONF_CPU "qemu64"
#define VMCONF_PRIORITY_MAX 1000

enum vm_accel { VM_ACCEL_AUTO, VM_ACCEL_TCG, VM_ACCEL_KVM };
enum vm_disk_format { VM_DISK_RAW, VM_DISK_VHD, VM_DISK_VHDX };

struct vm_disk { char path[512]; enum vm_disk_format format; bool read_only; char serial[21]; };
struct vm_nic { char bridge[16]; uint8_t mac[6]; };
struct vm_conf {
	char name[64];
	uint8_t uuid[16];
	uint64_t memory_bytes;
	unsigned cpus;
	char machine[48], cpu[48];
	enum vm_accel accel;
	unsigned n_disks, n_nics;
	struct vm_disk disks[VMCONF_DISKS_MAX];
	struct vm_nic nics[VMCONF_NICS_MAX];
	char kernel[64], initrd[64];		/* "" none */
	char append[1024], port[104];
	unsigned downtime_ms;
};

/* 0; -EINVAL with err (VC3).  To be freed with free(). */
int vmconf_decode(const json_t *o, struct vm_conf **ret, struct csv_err *err) csv_must_check;
json_t *vmconf_encode(const struct vm_conf *c);		/* NULL out of memory */

enum vm_want { VM_WANT_RUN, VM_WANT_PAUSED, VM_WANT_STOPPED };
const char *vm_want_to_text(enum vm_want w);
int vm_want_parse(const char *text, enum vm_want *ret) csv_must_check;

struct vm_def { char name[64]; enum vm_want want; unsigned priority; bool ha; uint32_t newest; };
int vmdef_decode(const json_t *o, struct vm_def *ret, struct csv_err *err) csv_must_check;
json_t *vmdef_encode(const struct vm_def *d);

#endif
