/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmsim.h - VMs on three nodes in one process: the real replicas of leases, the real leader's decisions, the real host agent's core and
 * its monitor client; fake are QEMU (a scripted QMP server), the group engine, the fence device and time.
 *
 *	world	virtual time, network between nodes, views, faults, oracles (vmsim.c)
 *	mg	a node's migratord: replica, leader (vmsim_mg.c)
 *	hv	a node's hvhostd: one struct vm for each VM (vmsim_hv.c)
 *	fq	a QEMU: lives through its hvhostd's death, dies with its node (vmsim_qemu.c)
 *
 * Oracles
 *  VO1 Between a QEMU's RESUME and its STOP or end no other QEMU of the VM executes, on any node, reachable or not (G4).
 *  VO2 A QEMU that is resumed has memory as new as the disk: nobody has executed since it was copied.
 *  VO4 The reaper ends no QEMU that executes: that is always the only one, by VO1, with the newest memory, by VO2.
 *  VO3 After the faults every VM that is wanted runs, or is BLOCKED with a reason and a command.
 */
#ifndef CSVFS_TESTS_SIM_VMSIM_H
#define CSVFS_TESTS_SIM_VMSIM_H

#include "hvhost/jline.h"
#include "hvhost/vm.h"
#include "migrator/lease_lead.h"
#include "tests/unit/env_fake.h"
#include "utils/base/prng.h"

#define NODES 3
#define VMS 2
#define MS NS_PER_MS

struct world;
struct node;
struct hv;

/* ---- QEMU ---- */
struct conn {
	struct hv *hv;
	uint64_t hv_life;
	struct qmp *qmp;
	struct vm_qemu *vq;		/* NULL: closed */
	struct jline in;		/* the server's */
	uint64_t to_server_ns, to_client_ns;	/* when the last piece arrives: streams keep their order */
	struct job out;
};
struct fq {
	struct cds_list_head node_list;
	struct world *w;
	struct node *n;
	unsigned vm;
	uint64_t id, txid;
	uint32_t config;
	bool incoming, alive, executing, fresh, was_running, cancel;
	bool disk_dead;			/* its descriptors are of a mount whose csvfsd died */
	const char *run, *mig;
	struct vmsm_mark mark;		/* on the node's tmpfs */
	uint64_t mem;			/* VO2 */
	unsigned port;
	uint64_t peer_id;		/* of a migration under way */
	unsigned peer_node;
	struct conn *c;
};

/* ---- processes ---- */
struct hv_vm { struct vm *vm; uint64_t number; bool open, have; struct lease rec; };
struct hv {
	struct node *n;
	bool alive;
	uint64_t life;
	struct sched *s;
	struct env env;
	struct vm_host host;
	struct hv_vm vm[VMS];
	uint64_t next_number;
};
struct mg_open { uint64_t id, line, number; unsigned vm; struct mg_open *next; };
struct mg {
	struct node *n;
	bool alive, in_view, asking;
	uint64_t life, line;		/* line: grows with each connection to hvhostd, 0: none */
	struct leasedb *db;
	struct leasedb_io io;
	struct mg_open *open;
	enum lease_fence fence[NODES + 1];
	uint64_t cold_ns;
	bool purged;
};
struct node {
	struct world *w;
	unsigned id;
	bool up;
	bool volume;			/* is mounted */
	uint64_t boots, inc;
	struct hv hv;
	struct mg mg;
	struct cds_list_head qemus;
	uint64_t ended[VMS];		/* tmpfs (VM9) */
};

struct disk { uint64_t version; };

struct world {
	struct fake_clock clk;
	struct sched *s;		/* the world's own events */
	struct csv_prng rnd;
	struct rnd_port rnd_port;
	struct node n[NODES + 1];
	struct disk disk[VMS];
	bool cut[NODES + 1][NODES + 1];	/* from, to */
	bool reform_due;
	bool faults, fence_works;
	uint64_t ring_seq, next_id, next_txid, next_port;
	unsigned mutate_sm, mutate_db;
	bool verbose;
	char violation[400];
	uint64_t counter[32];
};
enum { N_RESUME, N_MIGRATED, N_FAILED, N_HV_KILL, N_MG_KILL, N_QEMU_KILL, N_POWER, N_CUT, N_FENCE, N_PURGED, N_COLD, N_ABORT, N_REFUSE, N_ADOPT,
       N_START, N_RETAKE, N_ALL_MG, N_VOLUME, N_REBOUND, N_END_ };

void violate(struct world *w, const char *fmt, ...) csv_printf_like(2, 3);
void story(struct world *w, const char *fmt, ...) csv_printf_like(2, 3);
static inline uint64_t below(struct world *w, uint64_t n) { return csv_prng_below(&w->rnd, n); }
static inline bool chance(struct world *w, unsigned num, unsigned den) { return below(w, den) < num; }
static inline uint64_t now(struct world *w) { return w->clk.now_ns; }
/* fn(arg) after a time; arg is the caller's. */
void after(struct world *w, uint64_t ns, void (*fn)(void *arg), void *arg);
/* A moment that matters: with faults on, perhaps something of this node dies right here. */
void crash_point(struct node *n);
const char *vm_name_of(unsigned vm);
int vm_of_name(const char *name);

/* vmsim_qemu.c */
struct fq *fq_new(struct node *n, unsigned vm, uint64_t id, uint64_t txid, uint32_t config, bool incoming);
void fq_connect(struct fq *q, struct hv *hv, struct vm_qemu *vq);
void fq_die(struct fq *q, const char *why);		/* hvhostd is told, where it lives */
void fq_disk_dies(struct fq *q);
struct fq *fq_find(struct node *n, uint64_t id);

/* vmsim_hv.c */
void hv_start(struct hv *hv);
void hv_kill(struct hv *hv);
void hv_record(struct hv *hv, const struct lease *l, uint64_t ring, bool open, bool peer_here);
void hv_unsettled(struct hv *hv);
void hv_outcome(struct hv *hv, unsigned vm, uint64_t number, int status);
void hv_letter(struct hv *hv, unsigned vm, uint64_t txid, json_t *body);
/* -EAGAIN: not known yet. */
int hv_inventory(struct hv *hv, struct leasedb_item *ret, uint32_t *ret_n);

/* vmsim_mg.c */
void mg_start(struct mg *mg);
void mg_kill(struct mg *mg);
void mg_line_up(struct mg *mg);
void mg_line_down(struct mg *mg);
void mg_view(struct mg *mg, const struct cluster_view *v);
void mg_suspend(struct mg *mg);
void mg_propose_for(struct mg *mg, unsigned vm, const struct lease_cas *cas, uint64_t ring, uint64_t number, uint64_t line);
void mg_letter(struct mg *mg, uint32_t to, unsigned vm, uint64_t txid, json_t *body_take);
int mg_admin(struct mg *mg, struct lease_cas *cas);

/* vmsim.c */
void node_off(struct node *n, const char *why);
void node_on(struct node *n);
void reform(struct world *w);

#endif
