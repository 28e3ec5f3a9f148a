/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vm_internal.h - shared by vm.c (facts and actions), vm_qemu.c (one QEMU's monitor) and vm_mig.c (migration, rebind).
 */
#ifndef CSVFS_HVHOST_VM_INTERNAL_H
#define CSVFS_HVHOST_VM_INTERNAL_H

#include "hvhost/vm.h"
#include "hvhost/vm_converge.h"

#define VM_QMP_MS 30000u		/* for a command that is not one of the dangerous four */
#define VM_LOOK_MS 5000u
#define VM_STEPS 8

struct vm_timer { struct timer t; struct vm *vm; enum vmsm_timer which; };

/* A migration as source, for people and for the prediction of the next. */
struct vm_move {
	uint64_t txid;			/* 0: none yet */
	uint32_t to;
	uint64_t at_ns[VM_STEPS + 1];	/* when step n began, CLOCK_BOOTTIME; 0 not yet */
	uint64_t stop_ns, resume_ns;	/* of the guest: here, and as the target says */
	bool asked;			/* migratord has said how: p */
	struct vm_move_params p;
	uint64_t remaining, total;
	struct vm_converge con;
	unsigned told_step;
	bool told_end, cancelled, late;	/* late: a coroutine is about to tell the step */
	/* READY's letter */
	char address[VM_ADDRESSES_MAX][VM_ADDRESS_BYTES];
	unsigned n_addresses;
	unsigned port;
	char psk[VM_PSK_BYTES];
	char reason[240];
};

struct vm {
	struct vm_host *h;
	char name[LEASE_NAME_BYTES];
	struct vmsm sm;
	struct vm_qemu *q;
	struct vm_timer timer[VMSM_T_END];
	struct vm_move move;
	unsigned in_port;		/* as target: of q */
	char in_psk[VM_PSK_BYTES];
	bool freed, rebinding, failed;
	unsigned refs;			/* coroutines */
	struct waitq wq;		/* woken when q changes; rebind waits here */
	char why[240];			/* of the last failure, for people */
};

/* vm.c */
void vm_event(struct vm *vm, struct vmsm_event *ev);
void vm_note(struct vm *vm, const char *severity, const char *command, const char *fmt, ...) csv_printf_like(4, 5);
void vm_get(struct vm *vm);
void vm_put(struct vm *vm);
static inline struct sched *vm_sched(const struct vm *vm) { return vm->h->env->sched; }

/* vm_qemu.c */
struct vm_qemu *vm_qemu_new(struct vm *vm, uint64_t id);
void vm_qemu_get(struct vm_qemu *q);
void vm_qemu_put(struct vm_qemu *q);
/* In a coroutine: asks what it is now; the machine is told.  0, or -errno when it could not be asked. */
int vm_qemu_look(struct vm_qemu *q);
void vm_qemu_look_soon(struct vm_qemu *q);
void vm_qemu_kill(struct vm_qemu *q);
void vm_status(struct vm_qemu *q);		/* tells the machine */

/* vm_mig.c; with QMP in them: in a coroutine */
int vm_incoming(struct vm *vm, struct vm_qemu *q, struct csv_err *err);
void vm_incoming_again(struct vm *vm, struct vm_qemu *q);	/* after adoption: where it waits, with which key */
int vm_migrate(struct vm *vm, struct vm_qemu *q, uint64_t txid, struct csv_err *err);
void vm_migration_watch(struct vm *vm, struct vm_qemu *q);
void vm_cancel_wait(struct vm *vm, struct vm_qemu *q);	/* after migrate_cancel */
void vm_stream_watch(struct vm *vm, struct vm_qemu *q);	/* from the switch-over on */
json_t *vm_letter(struct vm *vm, uint32_t say);
int vm_letter_read(struct vm *vm, uint64_t txid, const json_t *body, uint32_t *ret_said, struct csv_err *err);
void vm_move_begin(struct vm *vm, uint64_t txid, uint32_t to);
void vm_move_step(struct vm *vm, unsigned step);
void vm_move_end(struct vm *vm, const char *status, const char *reason);

#endif
