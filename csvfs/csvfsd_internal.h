/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvfsd_internal.h - the daemon of one mounted volume: what its files share.
 *
 *	csvfsd.c	  main: order of start and stop, signals
 *	csvfsd_options.c  command line
 *	csvfsd_ready.c	  going to the background; telling the caller of mount how it went
 *	csvfsd_rejoin.c	  a healed minority joins anew under its mount
 *	csvfsd_utab.c	  what umount(8) is told
 *	csvfsd_world.c	  the ports, put together (struct env)
 *	fuse_*.c	  requests
 */
#ifndef CSVFS_CSVFS_CSVFSD_INTERNAL_H
#define CSVFS_CSVFS_CSVFSD_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "csvfs/format.h"
#include "csvfs/fuse_internal.h"
#include "utils/base/err.h"
#include "utils/env/real.h"

struct csvfsd_options {
	const char *device, *dir;
	const char *fence_conf;		/* default /etc/csvfs/fence.conf */
	char fuse_opts[256];		/* flags that the kernel's mount understands: ro,nosuid,nodev,noexec,... */
	unsigned workers;		/* 0: one a core, at most 8 */
	bool foreground, debug, read_only, no_mlock, no_tls;
};
/* 0; 1: --help or --version was answered; -EINVAL with err. */
int csvfsd_options_parse(int argc, char **argv, struct csvfsd_options *ret, struct csv_err *err);

/* ---- csvfsd_ready.c ---------------------------------------------------------------------------------------------- */
struct ready { int fd; };		/* -1: foreground, the caller reads stderr */
/* Forks; the parent waits for ready_ok()/ready_fail() and exits with the answer.  Returns in the child. */
int ready_background(struct ready *ret, struct csv_err *err);
void ready_ok(struct ready *r);
void ready_fail(struct ready *r, const struct csv_err *err);

/* ---- csvfsd_rejoin.c ------------------------------------------------------------------------------------------------- */
struct world;
struct rejoin;
struct rejoin *rejoin_new(struct world *w, struct fused *f, const struct csvfsd_options *opt, const struct csvfs_events *ev);
void rejoin_state(struct rejoin *r, enum csvfs_state st);	/* with every change of state */
void rejoin_stop(struct rejoin *r);		/* the mount ends: nobody waits for a next life any more; awaits */

/* ---- csvfsd_utab.c --------------------------------------------------------------------------------------------------- */
/* umount(8) of this mount waits until the daemon has left; false: it cannot be told (after mounting, before "mounted" is said). */
bool utab_add(const char *device, const char *dir);
void utab_remove(const char *device, const char *dir);

/* ---- csvfsd_world.c ------------------------------------------------------------------------------------------------ */
struct world {
	struct env env;			/* what the core sees */
	struct clock clock;
	struct rnd_port rnd;
	struct logger log;
	struct sched *sched;
	struct loop *loop;
	struct csv_geom geo;
	uint64_t incarnation;
	char node_name[64];
	void *lock;			/* node-local: this volume is mounted here at most once; held by memory alone */
	char lock_path[128], group[48];
	uint32_t nodeid;
	uint64_t round_ns;		/* cluster_facts_round_ns() */
	struct real_witness *witness;
	bool no_tls;
	bool clean;			/* never joined, or left in order: the witness has nothing to say */
	struct cluster_port *cluster_port;
	struct link_port *link_port;
	void *fence_helper;
};
/* Before any thread: the fencing helper is forked here (R15). 0 or -errno with err. Everything is undone on failure. */
int world_open(struct world *w, const struct csvfsd_options *o, struct csv_err *err);
void csvfsd_core_options(const struct world *w, const struct csvfsd_options *o, struct csvfs_options *ret);
/* The old core is gone: another incarnation, its own way into the group and to its peers.  May be tried again when it fails. */
int world_next_life(struct world *w, struct csv_err *err);
/* For the next mount on this node: it waits until this daemon has gone. */
void world_leaving(struct world *w);
/* Nothing in flight any more. */
void world_close(struct world *w);

#endif
