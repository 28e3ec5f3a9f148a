/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmsm.h - one VM on one node: what its agent does about the QEMU that is here, or should be, given the committed lease.
 *
 * Pure and by level: an event changes facts (the record, what QEMU is, what the other side said), then one function looks at all facts and
 * says what to do.  So a lost event costs time and never safety, and re-adoption after a restart is nothing special: tell the facts.
 * hvhostd, the model checker (tests/model) and the tests with the scripted QMP server run this source.
 *
 * The table of steps as it is built (S source, T target, r the committed record):
 *
 *	1  r = RUNNING(S), txid, peer T (INTENT by the coordinator)	T: SPAWN_INCOMING, announces READY
 *	2  S hears READY						S: MIGRATE
 *	3  S: pre-switchover, paused					S: MIGRATE_CONTINUE; no quorum or T gone: MIGRATE_CANCEL
 *	4  S: completed, both paused and complete			only S may go on: T gone or no quorum: CONT, ABORT
 *	5  S: mark "offered", HANDOVER -> r = HANDOFF(T)		S gives no CONT from here until r says RUNNING(S) again
 *	6  T: complete: mark, ACCEPT -> r = RUNNING(T), moved		T: CONT, ANNOUNCE_SELF, announces RESUMED
 *	   T: gone: REFUSE -> r = RUNNING(S), returned			S: CONT, ABORT
 *	7  S hears RESUMED						S: QUIT; gone: CLOSE
 *
 * Start and failover are one thing: r = RECOVERING(n) -> SPAWN, prelaunch -> STARTED -> r = RUNNING(n) -> mark, CONT.
 *
 * Invariants
 *  VM1 CONT is given only when the last settled record is RUNNING(here), no proposal about the VM is open, and the QEMU is the one *bound* to
 *      the record's epoch: started for it, accepted for it, resumed under it, or returned with the txid that it was offered with.
 *      Memory of another epoch may be older than the disk: such a QEMU is killed.
 *  VM2 HANDOVER is proposed only when QEMU says completed and is stopped; from the mark on ("offered") until the outcome is final, no CONT.
 *  VM3 ACCEPT only from HANDOFF(here) with the incoming QEMU of that txid complete; STARTED only with the QEMU of that epoch in prelaunch.
 *  VM4 RELEASE, FAILED, REFUSE, CLOSE say "no QEMU of it is here" and are proposed only when that is known by pidfd (or none was ever made).
 *  VM5 Unknown is not "not mine": without settled records nothing is started, killed or resumed (one exception: a source whose migration
 *      ended before anything was offered goes on, for it is still the owner; nobody can have taken it without a proof about this node).
 *  VM6 The mark is on the node's tmpfs before the action that it speaks of; it dies with the node, as the QEMU does.
 *  VM7 An inventory is told from the facts, after UNSETTLED and RECORD of the view that asks; what CONT may have reached counts as executing.
 *  VM8 A proposal names the ring whose record it was made from; migratord refuses it in another one (leasedb_propose).  So after a
 *      view change nothing old can still be on its way, and the new view's record is the whole truth.
 *  VM9 What a QEMU that is gone was bound to is kept as long as the node lives (`ended`, on tmpfs beside the marks) and told with every inventory:
 *      the others' older copies of its memory are judged by it.
 *
 * No pointers, no padding that differs: struct vmsm may be copied and hashed as bytes.  One thread; actions are returned, never done.
 */
#ifndef CSVFS_HVHOST_VMSM_H
#define CSVFS_HVHOST_VMSM_H

#include "migrator/lease.h"
#include "migrator/leasedb.h"

/* What QEMU is, from query-status and pidfd. */
enum vmsm_qemu {
	VMSM_Q_UNKNOWN = 0,	/* hvhostd has just started and has not looked yet */
	VMSM_Q_NONE,		/* there is none: never made, or gone by pidfd */
	VMSM_Q_STARTING,	/* asked for */
	VMSM_Q_PRELAUNCH,	/* made with -S, never resumed */
	VMSM_Q_INCOMING,	/* inmigrate: not complete */
	VMSM_Q_RUNNING,
	VMSM_Q_PAUSED,		/* also a complete target, finish-migrate, postmigrate */
	VMSM_Q_IOERROR,		/* stopped by an I/O error: resumed only after VMSM_EV_STORAGE_OK */
	VMSM_Q_DYING,		/* killed, its pidfd still waits */
	VMSM_Q_END
};
/* What its migration is, from query-migrate. */
enum vmsm_mig {
	VMSM_M_NONE = 0,
	VMSM_M_ASKED,		/* MIGRATE was given */
	VMSM_M_ACTIVE,		/* setup, active, cancelling */
	VMSM_M_PRESWITCH,
	VMSM_M_DEVICE,		/* after MIGRATE_CONTINUE */
	VMSM_M_COMPLETED,
	VMSM_M_FAILED,		/* failed or cancelled */
	VMSM_M_END
};

/* What is kept beside each QEMU on tmpfs (VM6), given back by VMSM_EV_ADOPT. */
struct vmsm_mark {
	uint64_t bound;		/* the epoch whose QEMU this is; 0: none yet (incoming) */
	uint64_t txid;		/* made as target of this migration; 0: made to start */
	uint64_t moving;	/* MIGRATE was given for this txid, and no CONT since; 0: no */
	uint64_t offered;	/* a HANDOVER with this txid may have been proposed; 0: no */
	uint64_t to_inc;	/* and to which life of */
	uint32_t to;		/* which node */
	uint32_t config;
	uint32_t resumed;	/* CONT may have been given under `bound` */
	uint32_t pad;
};

struct vmsm_conf {
	uint32_t self, pad;
	uint64_t self_inc;
	uint32_t ready_ms;	/* source: how long for READY; 60000 */
	uint32_t announce_ms;	/* repeat announcements; 1000 */
	uint32_t reap_ms;	/* between STOP and KILL of what may not run; 1000 */
	uint32_t stop_ms;	/* guest's time to shut down; 60000 */
	uint32_t handoff_ms;	/* target: an incomplete QEMU's time in HANDOFF; 10000 */
	uint32_t retry_ms;	/* after a refused proposal; 500 */
};

struct vmsm {
	char vm[LEASE_NAME_BYTES];
	struct vmsm_conf conf;
	struct lease rec;		/* last settled record */
	uint8_t have_rec;		/* rec was told since hvhostd began */
	uint8_t settled;		/* and is of the present view */
	uint8_t open;			/* a proposal of this node about it has no outcome: an older hvhostd's, or ours (prop) */
	uint8_t peer_here;
	uint8_t qemu;			/* enum vmsm_qemu */
	uint8_t mig;			/* enum vmsm_mig */
	uint8_t busy;			/* a command to QEMU has not been answered: enum vmsm_act */
	uint8_t prop;			/* our proposal without outcome: enum lease_move, 0 none */
	uint8_t refused;		/* this move was refused from rec.version: not again before VMSM_T_RETRY */
	uint8_t ready, resumed;		/* heard from the other side, for rec.txid */
	uint8_t give_up;		/* the migration rec.txid is to end: cancelled, READY never came, target failed */
	uint8_t failed;			/* SPAWN failed, for failed_key */
	uint8_t guest_off;		/* the QEMU that is gone said that the guest shut itself down */
	uint8_t asked_off;		/* POWERDOWN was given */
	uint8_t reaping;		/* STOP was given by the reaper */
	uint8_t storage_bad;		/* io-error, and VMSM_EV_STORAGE_OK has not come */
	uint8_t pad0;
	uint8_t cool;			/* a QEMU command failed: none before VMSM_T_RETRY */
	uint8_t timers;			/* armed: 1 << enum vmsm_timer */
	uint32_t mutate;		/* tests only: VMSM_MUT_* */
	uint64_t failed_key;		/* epoch or txid */
	uint64_t ring;			/* of rec */
	uint64_t ended;			/* the highest epoch that a QEMU was bound to here and is gone (VM9) */
	struct vmsm_mark mark;
};
#define VMSM_MUT_HANDOFF	1u	/* a source takes HANDOFF back by itself when the target is lost */
#define VMSM_MUT_NO_REAPER	2u	/* what may not be here stays, and is used when a lease comes */
#define VMSM_MUT_STEP4		4u	/* a complete target whose source is lost adopts */
#define VMSM_MUT_FORGET		16u	/* an inventory is silent about QEMUs that are gone */
#define VMSM_MUT_NO_OPEN	8u	/* a source whose completed migration has an open HANDOVER goes on when the target is lost */

enum vmsm_timer { VMSM_T_READY = 0, VMSM_T_ANNOUNCE, VMSM_T_REAP, VMSM_T_STOP, VMSM_T_HANDOFF, VMSM_T_RETRY, VMSM_T_END };

enum vmsm_ev {
	VMSM_EV_NONE = 0,
	VMSM_EV_RECORD,		/* rec, ring, open, peer_here: committed in the present view, or the whole table was settled; or membership changed */
	VMSM_EV_UNSETTLED,	/* no quorum, no migratord, a view change: records are unknown */
	VMSM_EV_OUTCOME,	/* of our proposal: status (leasedb.h); after the record that it made */
	VMSM_EV_ADOPT,		/* hvhostd has looked: qemu (NONE or a state), mig, mark */
	VMSM_EV_STATUS,		/* qemu and mig as they are now (any QMP event; before DONE, what the answer means) */
	VMSM_EV_SPAWNED,	/* status 0: QMP answers, qemu and mig as in STATUS; else it could not be made and there is none */
	VMSM_EV_GONE,		/* pidfd: there is none any more; guest_off */
	VMSM_EV_DONE,		/* a QEMU command was answered: done, status */
	VMSM_EV_HEARD,		/* announcement of the other side: said, txid */
	VMSM_EV_CANCEL,		/* a person or the watch over progress: txid */
	VMSM_EV_TIMER,		/* timer */
	VMSM_EV_STORAGE_OK,	/* the volume serves again */
	VMSM_EV_KILL,		/* somebody wants the QEMU ended without asking its guest */
};
enum vmsm_said { VMSM_SAY_READY = 1, VMSM_SAY_FAILED, VMSM_SAY_RESUMED };

struct vmsm_event {
	enum vmsm_ev ev;
	struct lease rec;		/* state LEASE_NONE: there is none */
	uint64_t ring;			/* .seq of the settled view */
	bool open;			/* leasedb_is_open() */
	bool peer_here;			/* the other one of the migration (rec.peer on the owner's node, else rec.owner) is a member in that life */
	bool guest_off;
	int status;
	enum vmsm_qemu qemu;
	enum vmsm_mig mig;
	struct vmsm_mark mark;
	uint32_t done;			/* enum vmsm_act */
	uint32_t said;			/* enum vmsm_said */
	uint64_t txid;
	enum vmsm_timer timer;
};

enum vmsm_act {
	VMSM_A_NONE = 0,
	/* QEMU: each is answered by VMSM_EV_DONE (SPAWN*: VMSM_EV_SPAWNED; KILL, QUIT: VMSM_EV_GONE alone) */
	VMSM_A_SPAWN,			/* -S, configuration `config` */
	VMSM_A_SPAWN_INCOMING,		/* -S -incoming defer, capabilities, migrate-incoming, then SPAWNED; txid, config */
	VMSM_A_CONT, VMSM_A_STOP,
	VMSM_A_MIGRATE,			/* to `node`, txid: capabilities and parameters, then migrate */
	VMSM_A_MIGRATE_CONTINUE, VMSM_A_MIGRATE_CANCEL,
	VMSM_A_ANNOUNCE_SELF,		/* not answered */
	VMSM_A_POWERDOWN,		/* ask the guest; not answered */
	VMSM_A_KILL,			/* SIGKILL */
	VMSM_A_QUIT,			/* of a paused source that has moved: quit, or SIGKILL */
	/* the rest of the world */
	VMSM_A_MARK,			/* write sm->mark beside the QEMU, before what follows in this list */
	VMSM_A_PROPOSE,			/* cas, made from the record of `ring` */
	VMSM_A_SAY,			/* say, txid to node `node` */
	VMSM_A_TIMER,			/* timer, ms: (re)arm */
	VMSM_A_EVENT,			/* note: for the event log */
};
enum vmsm_note {
	VMSM_NOTE_REAPED = 1,		/* a QEMU was here that may not be */
	VMSM_NOTE_STALE,		/* its memory is of another epoch: killed, the VM starts anew */
	VMSM_NOTE_QEMU_LOST,		/* QEMU died */
	VMSM_NOTE_MIGRATION_FAILED,	/* the source goes on */
	VMSM_NOTE_START_FAILED,
	VMSM_NOTE_NO_SHUTDOWN,		/* the guest did not shut down in time: killed */
};
struct vmsm_action {
	enum vmsm_act act;
	struct lease_cas cas;
	uint64_t txid, ring;
	uint32_t node, config, ms;
	uint32_t say;			/* enum vmsm_said */
	enum vmsm_timer timer;
	enum vmsm_note note;
};
#define VMSM_ACTIONS_MAX 8

/* self_inc: node incarnation.  qemu is UNKNOWN until VMSM_EV_ADOPT (for a new VM: with VMSM_Q_NONE). */
void vmsm_init(struct vmsm *sm, const char *vm, const struct vmsm_conf *conf);
/* After vmsm_init(), from tmpfs (VM9). */
void vmsm_remember(struct vmsm *sm, uint64_t ended);
struct vmsm_conf vmsm_conf_default(uint32_t self, uint64_t self_inc);
/* Fills ret[] and returns how many: to be done in this order.  CONT and PROPOSE are never done out of an older list after a newer event. */
unsigned vmsm_step(struct vmsm *sm, const struct vmsm_event *ev, struct vmsm_action ret[VMSM_ACTIONS_MAX]);
/* This VM's part of the inventory (VM7).  false: there is nothing to tell of it.  Only when qemu is not UNKNOWN. */
bool vmsm_inventory(struct vmsm *sm, struct leasedb_item *ret);

const char *vmsm_qemu_name(enum vmsm_qemu q);
const char *vmsm_mig_name(enum vmsm_mig m);
const char *vmsm_act_name(enum vmsm_act a);
/* Which step of the table (1..7) it is in as source or target, 0: none; for people. */
unsigned vmsm_migration_step(const struct vmsm *sm);

#endif
