/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vm.h - one VM on one node: its state machine (hvhost/vmsm.h) joined to a real QEMU's monitor.  Facts go in, QMP commands and proposals
 * come out; how a process is made, killed and found again is the host's (struct vm_host), a real one or the simulator's.
 *
 * Invariants
 *  VH1 The machine learns only what is so: from an answer of QEMU, from an event of it, from the pidfd.  A command's DONE comes after a
 *      look at what QEMU is since.
 *  VH2 At most one QEMU of a VM is its machine's.
 *  VH3 The mark is durable (host->mark returned) before the actions behind it.
 *  VH4 Mandatory capabilities are asked of each QEMU before it migrates; one that lacks one is not migrated (-CSV_E_UNSUPPORTED).
 *  VH5 The key of a migration is made for it, by the target, and is used for nothing else.
 *
 * Host functions never call back from inside.  Pure; one thread; uses coroutines of `sched`.
 */
#ifndef CSVFS_HVHOST_VM_H
#define CSVFS_HVHOST_VM_H

#include <jansson.h>

#include "hvhost/qmp.h"
#include "hvhost/vmsm.h"
#include "utils/env/env.h"

#define VM_ADDRESSES_MAX 8
#define VM_ADDRESS_BYTES 46
#define VM_PSK_BYTES 65			/* 32 bytes in hexadecimal, terminated */

struct vm;
struct vm_host;

/* One QEMU.  The host makes nothing of it but `host`. */
struct vm_qemu {
	struct vm *vm;
	uint64_t id;			/* never used twice on this node */
	uint64_t txid;			/* made as target of it; 0 to start */
	uint32_t config;
	bool incoming;
	struct vmsm_mark mark;
	/* from the configuration, set by the host before vm_qemu_up() */
	uint8_t uuid[16];
	unsigned downtime_ms;
	uint64_t memory_bytes;
	char accel[8];
	char psk[VM_PSK_BYTES];		/* of an adopted target: what psk() was given */
	void *host;
	/* the core's */
	struct qmp *qmp;
	enum vmsm_qemu state;
	enum vmsm_mig mig;
	char run[32];			/* QEMU's own word: "running", "io-error", ... */
	char why[200];			/* I/O error, or why it could not be made */
	bool known, gone, killing, stopped, io_error, no_space, guest_off, quitting;
	bool migrating;			/* MIGRATE is being carried out: what QEMU says is of an older one */
	bool continued;			/* migrate-continue was accepted: QEMU says pre-switchover a moment longer */
	bool looking, look_again;
	unsigned missed;		/* looks without an answer in a row */
	unsigned refs;
	uint64_t since_boot_ns;
	struct csv_err err;
};

struct vm_host_ops {
	/* Later vm_qemu_up() or vm_qemu_gone().  q->host is the host's from here to release(). */
	void (*spawn)(struct vm_host *h, struct vm_qemu *q);
	void (*kill)(struct vm_host *h, struct vm_qemu *q);			/* later vm_qemu_gone() */
	void (*release)(struct vm_host *h, struct vm_qemu *q);			/* gone, and nobody looks at it any more */
	int (*mark)(struct vm_host *h, struct vm_qemu *q, const struct vmsm_mark *mark);	/* durable on return */
	/* Writes a key file; the folder for tls-creds-psk, or -errno.  ret "" : no TLS (simulation). */
	int (*psk)(struct vm_host *h, struct vm_qemu *q, const char *key, char *ret_dir, size_t room, struct csv_err *err);
	/* Made from the record of `ring`.  Its outcome comes by vm_outcome(), or a record of a newer ring supersedes it (VM8). */
	void (*propose)(struct vm_host *h, struct vm *vm, const struct lease_cas *cas, uint64_t ring);
	void (*say)(struct vm_host *h, struct vm *vm, uint32_t node, uint64_t txid, json_t *body_take);
	void (*changed)(struct vm_host *h, struct vm *vm);
	void (*migration)(struct vm_host *h, struct vm *vm, json_t *news_take);
	void (*event)(struct vm_host *h, struct vm *vm, const char *severity, const char *text, const char *command);
	/* QEMU's migration stream to that port piles up little before QEMU reads it; NULL: as the system has it. */
	void (*stream_bound)(struct vm_host *h, struct vm_qemu *q, unsigned port);
	/* Ends this node's TCP connections to there; NULL: cannot. */
	void (*stream_break)(struct vm_host *h, struct vm *vm, const char *address, unsigned port);
};
struct vm_host {
	const struct vm_host_ops *ops;
	struct env *env;		/* sched, clock, rnd, log */
	struct vmsm_conf conf;
	char address[VM_ADDRESSES_MAX][VM_ADDRESS_BYTES];	/* own ones, for incoming migrations; best first */
	unsigned n_addresses;
	uint64_t bandwidth_bps;		/* default of a migration; 0: QEMU's greatest */
	uint64_t next_id;
};

/* 0: unknown yet what is here; vm_adopt() or vm_adopt_none() must follow. */
struct vm *vm_new(struct vm_host *h, const char *name);		/* NULL out of memory */
void vm_free(struct vm *vm);					/* QEMU lives on; NULL allowed */
/* Who this node is became known, or changed while nothing of it is here. */
void vm_conf_set(struct vm *vm, const struct vmsm_conf *conf);
void vm_mutate(struct vm *vm, uint32_t mutate);	/* tests only: VMSM_MUT_* */
const char *vm_name(const struct vm *vm);
const struct vmsm *vm_sm(const struct vm *vm);
struct vm_qemu *vm_current(const struct vm *vm);		/* NULL: none */
/* Nothing of it is here, was here, or should be by a lease. */
bool vm_idle(const struct vm *vm);

/* ---- QEMU (from the host) */
/* Of QEMUs that were here in this life of the node, and are gone (VM9): before adopt. */
void vm_remember(struct vm *vm, uint64_t ended);
void vm_adopt_none(struct vm *vm);
/* A QEMU found again.  Then vm_qemu_up() when its monitor answers.  NULL out of memory. */
struct vm_qemu *vm_adopt(struct vm *vm, uint64_t id, uint64_t txid, uint32_t config, const struct vmsm_mark *mark);
void vm_qemu_up(struct vm_qemu *q, struct qmp *qmp);		/* negotiated */
void vm_qemu_event(struct vm_qemu *q, const char *name, const json_t *data, uint64_t stamp_us);
void vm_qemu_down(struct vm_qemu *q);				/* the monitor's connection broke; up() may come again */
/* By pidfd, or it never was made: err says why (NULL: it ended). */
void vm_qemu_gone(struct vm_qemu *q, const struct csv_err *err);
/* Of one whose refs somebody outside raised. */
void vm_qemu_done_with(struct vm_qemu *q);
/* The reaper's and everybody's doubt: look at it again. */
void vm_look(struct vm *vm);

/* ---- leases and letters (from migratord) */
void vm_record(struct vm *vm, const struct lease *l, uint64_t ring, bool open, bool peer_here);
void vm_unsettled(struct vm *vm);
void vm_outcome(struct vm *vm, int status);
void vm_heard(struct vm *vm, uint64_t txid, const json_t *body);
void vm_cancel(struct vm *vm, uint64_t txid);
void vm_storage_ok(struct vm *vm);
/* The QEMU that is bound here is ended, its guest not asked; false: there is none. */
bool vm_kill(struct vm *vm);
/* For the migration `txid`. */
struct vm_move_params {
	unsigned downtime_ms;		/* the pause aimed at; 0: default */
	unsigned budget_ms;		/* the longest pause it may take (vm_converge.h); 0: the VM's own */
	unsigned throttle_max;		/* percent that the guest may be throttled to get through; 0: not at all */
	unsigned timeout_ms;		/* 0: default */
	uint64_t bandwidth_bps;		/* 0: default */
};
void vm_migration_params(struct vm *vm, uint64_t txid, const struct vm_move_params *p);
/* VM7: flags of the cold start's inventory; false: no QEMU.  -EAGAIN: not known yet. */
int vm_inventory(struct vm *vm, struct leasedb_item *ret, bool *ret_there);
/* Frozen by an I/O error: its disks are opened anew, and it goes on (vm_rebind.c).  In a coroutine.  0, or -errno with err. */
int vm_rebind(struct vm *vm, struct csv_err *err);

/* A mark as it lies on tmpfs; -EINVAL, and ret is all 0: a QEMU that is bound to nothing. */
json_t *vm_mark_to_json(const struct vmsm_mark *m);
int vm_mark_from_json(const json_t *o, struct vmsm_mark *ret) csv_must_check;

/* VM of hvhost/agent.h, without console.  `inventory` NULL: unknown. */
json_t *vm_to_json(const struct vm *vm, const struct leasedb_item *inventory);
/* Which mandatory capability this QEMU lacks: "" none.  In a coroutine. */
int vm_capabilities_check(struct qmp *q, struct sched *s, struct csv_err *err);

#endif
