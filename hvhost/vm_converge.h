/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vm_converge.h - a migration that does not come to its end: what to do about a guest that changes its memory faster than the link takes it.
 *
 *	three passes without progress -> the guest is throttled (QEMU's auto-converge, up to throttle_max percent)
 *	... and still none		-> a longer pause, doubled, up to budget_ms; at once as long as would do when that is known and allowed
 *	... and still none		-> the migration is cancelled; the guest runs on where it is, at full speed
 *
 * Invariants
 *  CO1 Without progress it ends in CANCEL, after passes whose number the steps of throttle and pause bound.
 *  CO2 The pause never goes above budget_ms, and never below what it was.
 *  CO3 While the throttle still grows, nothing else is tried.
 *
 * Pure.
 */
#ifndef CSVFS_HVHOST_VM_CONVERGE_H
#define CSVFS_HVHOST_VM_CONVERGE_H

#include <stddef.h>
#include <stdint.h>

#define CO_STUCK 3u			/* passes without progress */
#define CO_PATIENCE 2u			/* times CO_STUCK that the throttle may stand still below its greatest */

struct vm_converge {
	unsigned limit_ms;		/* the pause that QEMU may make now */
	unsigned budget_ms, throttle_max;
	unsigned throttle, stuck, idle;
	uint64_t passes, best;
	unsigned need_ms;		/* pause that the last pass would have needed; 0: unknown */
};

/* Of QEMU's query-migrate. */
struct vm_converge_sample {
	uint64_t passes;		/* dirty-sync-count */
	uint64_t remaining;		/* bytes */
	uint64_t need_ms;		/* expected-downtime; 0: it does not say */
	unsigned throttle;		/* cpu-throttle-percentage; 0: none */
};

enum vm_converge_act { VM_CONVERGE_GO, VM_CONVERGE_PAUSE, VM_CONVERGE_CANCEL };

void vm_converge_init(struct vm_converge *c, unsigned limit_ms, unsigned budget_ms, unsigned throttle_max);
/* PAUSE: limit_ms is new.  The limits may be changed between two calls (budget_ms, throttle_max). */
enum vm_converge_act vm_converge_look(struct vm_converge *c, const struct vm_converge_sample *s);
/* For people: "", "throttled to 40 %", "throttled to 40 %, pause up to 120 ms". */
void vm_converge_text(const struct vm_converge *c, unsigned first_ms, char *ret, size_t size);

#endif
