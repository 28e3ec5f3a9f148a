/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_internal.h - shared by the daemon's files: hvhostd.c (options, start, stop), hvhostd_host.c (facts of this host), hvhostd_inst.c
 * (QEMUs: made, found again, ended), hvhostd_line.c (migratord's line), hvhostd_cmd.c and hvhostd_vmcmd.c (its commands).
 */
#ifndef CSVFS_HVHOST_HVHOSTD_INTERNAL_H
#define CSVFS_HVHOST_HVHOSTD_INTERNAL_H

#include <uthash.h>

#include "hvhost/agent.h"
#include "hvhost/hvhostd_accel.h"
#include "hvhost/hvhostd_mon.h"
#include "hvhost/hvhostd_mount.h"
#include "hvhost/hvhostd_proc.h"
#include "hvhost/hvhostd_work.h"
#include "hvhost/vm.h"
#include "hvhost/vmconf.h"
#include "utils/env/loop.h"
#include "utils/env/real.h"

#define HVD_MEMBERS_MAX 64u
#define HVD_STORE_MS 20000u
#define HVD_INST_NAME 96

struct hvd_options {
	const char *volume, *run_dir, *log_dir, *socket, *qemu, *cgroup;
	enum vm_accel accel;		/* AUTO: probe */
	bool debug;
};

/* A VM that this node has to do with. */
struct hvd_vm {
	UT_hash_handle hh;
	char name[LEASE_NAME_BYTES];
	struct hvd *d;
	struct vm *vm;
	uint64_t proposal;		/* open on the line; 0 none */
	bool open;			/* migratord named it: a proposal of an older line has no outcome yet */
	struct lease rec;
	bool have_rec;
	struct job changed;		/* told once a turn */
	uint64_t rebind_at_ns;		/* next try; 0: it does not stand still */
	unsigned rebind_s;		/* pause before the one after it */
	bool rebinding;
	bool off_writing;		/* hvhostd_off.c */
	uint64_t off_ring;
	struct lease_cas off_cas;
};

/* A QEMU's process, files and monitor; `q->host`. */
struct inst {
	struct cds_list_head node;
	struct hvd *d;
	struct vm_qemu *q;		/* NULL: released */
	char name[HVD_INST_NAME];	/* VM.ID: of its cgroup and of its folder */
	char dir[400], log[400];
	off_t log_from;			/* where this QEMU's words begin */
	struct proc proc;
	struct mon *mon;
	struct timer again;		/* the monitor is to be connected to again */
	bool alive, starting, kill;
	int tap_fds[VMCONF_NICS_MAX];
	unsigned n_taps;
	struct vm_conf *conf;
};

struct hvd_member { uint32_t nodeid; uint64_t inc; };

struct hvd {
	struct hvd_options opt;
	struct clock clock;
	struct rnd_port rnd;
	struct logger log;
	struct sched *sched;
	struct loop *loop;
	struct env env;
	struct vm_host host;
	struct work_pool work;
	char base[400];			/* cgroup */
	char node[64];
	uint32_t nodeid;
	uint64_t node_inc, own_inc;	/* the node's life; hvhostd's */
	struct hvd_vm *vms;
	struct cds_list_head insts;
	unsigned adopting;		/* found again, not looked at yet */
	bool stopping;
	int sig_fd;
	struct timer reap, frozen;
	/* view and leases */
	uint64_t ring;
	bool have_ring, quorate, settled;
	bool leases_more;		/* a "leases" list has more parts to come */
	struct hvd_member member[HVD_MEMBERS_MAX];
	unsigned n_members;
	/* the line (hvhostd_line.c) */
	struct hvd_line *line;
	bool said_hello;
	uint64_t seq, next_proposal;
	/* facts of this host */
	struct accel_report accel;
	char qemu_version[32];
	char missing[160];		/* capabilities that QEMU lacks, with blanks between; "QEMU": it could not be asked */
	char qemu_reason[300];		/* why not, and when it is asked again */
	char mount_dir[400];		/* the volume's folder as the kernel names it */
	struct mount_facts mount_facts;
	struct mount_report mount;
	struct timer mount_timer;
	bool mount_looking, mount_hangs;	/* a look is under way; a question to the mount itself has not come back */
	uint64_t mount_ask_ns;		/* its csvfsd is not asked before */
	unsigned mount_mute;		/* so often it has not answered */
	uint64_t memory_bytes;
	unsigned cpus;
};

/* hvhostd.c */
struct hvd_vm *hvd_vm_get(struct hvd *d, const char *name);	/* made when there is none; NULL out of memory */
struct hvd_vm *hvd_vm_find(struct hvd *d, const char *name);
void hvd_vm_drop(struct hvd *d, struct hvd_vm *v);
struct hvd_vm *hvd_vm_of(struct vm *vm, struct hvd *d);
void hvd_event(struct hvd *d, const char *severity, const char *vm, const char *command, const char *fmt, ...) csv_printf_like(5, 6);

/* hvhostd_host.c: what this host is and can do, looked at again and again */
void hvd_host_begin(struct hvd *d);				/* in a coroutine; returns when all of it is known */

/* hvhostd_inst.c */
extern const struct vm_host_ops hvd_host_ops;
int hvd_adopt_all(struct hvd *d, struct csv_err *err);		/* what lives in our cgroup; at start */
void hvd_reap(struct hvd *d);					/* what lives there and nobody knows */
void hvd_insts_leave(struct hvd *d);				/* at our end: QEMUs live on */
/* Sockets and folder of an instance. */
void inst_path(const struct inst *in, const char *file, char *ret, size_t room);

/* hvhostd_mark.c */
int inst_json_put(const struct inst *in, const char *file, json_t *o_take);
int inst_mark_read(const struct inst *in, struct vmsm_mark *ret);
int inst_mark_put(struct vm_host *h, struct vm_qemu *q, const struct vmsm_mark *m);
int inst_psk_put(struct vm_host *h, struct vm_qemu *q, const char *key, char *ret_dir, size_t room, struct csv_err *err);
void inst_psk_read(const struct inst *in, char ret[static VM_PSK_BYTES]);
/* Its process is gone: what its mark says is kept for the node's life. */
void inst_ended_keep(const struct inst *in);
uint64_t hvd_ended_get(const struct hvd *d, const char *vm);	/* 0: none */
void hvd_ended_each(struct hvd *d, void (*fn)(struct hvd *d, const char *vm));

/* hvhostd_off.c: RELEASE of a VM whose guest switched itself off, once its definition says so */
void hvd_off_propose(struct hvd *d, struct hvd_vm *v, const struct lease_cas *cas, uint64_t ring);

/* hvhostd_rebind.c */
void hvd_frozen_begin(struct hvd *d);	/* VMs that an I/O error has stopped are looked after from now on */

/* hvhostd_line.c */
int hvd_line_open(struct hvd *d, struct csv_err *err);
void hvd_line_close(struct hvd *d);
void hvd_line_event(struct hvd *d, const char *name, json_t *data_take);	/* dropped when nobody is there */
void hvd_line_reply(struct hvd *d, uint64_t conn, uint64_t id, int code, const char *message, json_t *data_take);
void hvd_line_propose(struct hvd *d, struct hvd_vm *v, const struct lease_cas *cas, uint64_t ring);

/* hvhostd_cmd.c */
void hvd_command(struct hvd *d, uint64_t conn, const struct agent_msg *m);
void hvd_disconnected(struct hvd *d);
json_t *hvd_vm_json(struct hvd *d, struct hvd_vm *v, bool inventory);
json_t *hvd_host_json(struct hvd *d);

/* hvhostd_vmcmd.c: those that wait for the volume or for QEMU */
bool hvd_slow_command(struct hvd *d, uint64_t conn, const struct agent_msg *m);	/* false: not one of them */

#endif
