/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * migratord_internal.h - the coordinator's daemon around its core: what its files share.
 *
 *	migratord.c		main: order of start and stop, signals, csvctl's socket
 *	migratord_conf.c	command line, corosync's node list, the node's incarnation
 *	migratord_agent.c	the socket of this node's hvhostd
 *	migratord_file.c	the durable event log; the durable copy of what is known of nodes and VMs
 *	migratord_hbeat.c	heartbeats of other nodes on the disks
 */
#ifndef CSVFS_MIGRATOR_MIGRATORD_INTERNAL_H
#define CSVFS_MIGRATOR_MIGRATORD_INTERNAL_H

#include "hvhost/jline.h"
#include "migrator/mig.h"
#include "utils/env/loop.h"
#include "utils/env/real.h"

#define RUN_DIR "/run/csvfs"
#define INCARNATION_PATH RUN_DIR "/incarnation"
#define LEFT_PATH RUN_DIR "/left"

struct migratord_options {
	const char *fence_conf, *agent, *state_dir;
	unsigned parallel, downtime_ms, budget_ms, throttle_percent;
	uint64_t bandwidth_bps;		/* bits */
	bool debug;
};

struct evlog;
struct agent_line {
	struct loop *loop;
	struct logger *log;
	const char *path;
	struct mig *mig;
	struct timer retry;
	int fd;
	bool said;			/* that nobody answers */
	struct jline in;
	char *out;
	size_t out_len, out_cap;
};

struct migratord {
	struct migratord_options opt;
	struct env env;
	struct clock clock;
	struct rnd_port rnd;
	struct logger log;
	struct sched *sched;
	struct loop *loop;
	struct cluster_port *cluster_port;
	struct real_fence *fence;
	struct mig_port port;
	struct mig_config cfg;
	struct mig *mig;
	struct agent_line agent;
	struct evlog *evlog;
	struct rpc_server *srv;
	struct csv_err err;
	int sig_fd, exit_code;
	enum mig_leave how;
	bool new_life;			/* the node gets a new incarnation */
};

/* ---- migratord_conf.c */
/* 0; 1: --help or --version was answered; -EINVAL with err. */
int migratord_options_parse(int argc, char **argv, struct migratord_options *ret, struct csv_err *err);
/* Blocking.  0 or -errno with err. */
int migratord_config_read(const struct migratord_options *o, struct rnd_port *rnd, struct mig_config *ret, struct csv_err *err);
/* left: the node leaves in order. */
int migratord_incarnation_new(struct rnd_port *rnd, bool left);

/* ---- migratord_agent.c */
void agent_line_start(struct agent_line *a, struct loop *l, struct logger *log, const char *path, struct mig *mig);
void agent_line_stop(struct agent_line *a);
bool agent_line_send(struct agent_line *a, const char *line, size_t len);

/* ---- migratord_file.c: a thread writes, so that a slow disk stops nobody */
/* ret_past: what is there, oldest first; ret_kept: what evlog_keep() was given last, NULL when there is none.  Both to be released. */
int evlog_open(const char *dir, struct evlog **ret, json_t **ret_past, json_t **ret_kept, struct csv_err *err);
void evlog_keep(struct evlog *e, const char *text);	/* DIR/known.json, replaced as a whole */
void evlog_append(struct evlog *e, const char *text);
void evlog_close(struct evlog *e);	/* after all is on the disk; NULL allowed */

/* ---- migratord_hbeat.c: a thread a reading */
void hbeat_read(struct loop *l, struct mig_hbeat_req *r);

#endif
