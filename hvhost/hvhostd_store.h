/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_store.h - configurations and definitions of VMs on the volume.  These calls block, for ever when the volume hangs.
 *
 * Invariants
 *  ST1 What is written is durable when a call returns: file, then name, then folder.
 *  ST2 config.N.json is never changed and never written twice, whoever on whatever node tries (link(2) is the decision).
 *  ST3 A crash in between leaves at most a configuration that no definition names, and files *.new.
 *
 * Any thread but the control thread (hvhostd_work.h).
 */
#ifndef CSVFS_HVHOST_HVHOSTD_STORE_H
#define CSVFS_HVHOST_HVHOSTD_STORE_H

#include "hvhost/vmconf.h"

/* -ENOENT: there is no such VM or configuration; -EINVAL: what is there is not as it must be; err names the file. */
int store_def_read(const char *volume, const char *vm, struct vm_def *ret, struct csv_err *err) csv_must_check;
int store_conf_read(const char *volume, const char *vm, uint32_t n, struct vm_conf **ret, struct csv_err *err) csv_must_check;
/*
 * Writes the next configuration and makes it the definition's newest.  kernel, initrd: to be copied, NULL none (then those that
 * `conf` names stay).  `conf` gets the names.  A new VM begins with want stopped.  dry_run: checks only.  -EBUSY: an image of it is a disk of
 * another VM, under whatever name, and not read-only for both; who defines two at once may miss that.
 */
int store_define(const char *volume, struct vm_conf *conf, const char *kernel, const char *initrd, bool dry_run, uint32_t *ret_n,
		 struct csv_err *err) csv_must_check;
int store_def_write(const char *volume, const struct vm_def *d, struct csv_err *err) csv_must_check;
/* Definition and configurations, kernels and initrds; images stay, and the folder with them. */
int store_delete(const char *volume, const char *vm, bool dry_run, struct csv_err *err) csv_must_check;
/* Items of vm.list (hvhost/agent.h). */
int store_list(const char *volume, json_t **ret, struct csv_err *err) csv_must_check;

/* For files of ours elsewhere: durable and whole, or as before. */
int store_file_write(const char *path, const char *text, size_t len, unsigned mode, struct csv_err *err) csv_must_check;
int store_json_read(const char *path, json_t **ret, struct csv_err *err) csv_must_check;

#endif
