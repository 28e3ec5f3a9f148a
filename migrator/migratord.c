/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * migratord.c - the coordinator's daemon: order of start and stop.
 *
 *	start	options -> corosync's node list, incarnation -> fencing helper (before threads) -> event log -> loop -> cluster -> core ->
 *		agent's socket, csvctl's socket -> joined
 *	stop	(SIGTERM, corosync gone, the node leaves)	sockets closed -> group left -> log written; the VMs stay as they are
 *
 * It may be killed at any time: what matters is in the leases of the others, and in QEMUs and marks of this node.
 */
#include "migrator/migratord_internal.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "utils/env/priority.h"
#include "utils/rpc/rpc_server.h"

#define GROUP "csvfs-migrator"
#define SERVICE "csvfs-migrator"

static void log_stderr(struct logger *l, enum log_level level, const char *text)
{
	static const char *const name[] = { "error", "warning", "notice", "info", "debug" };
	struct timespec ts;
	struct tm tm;

	(void)l;
	clock_gettime(CLOCK_REALTIME, &ts);
	localtime_r(&ts.tv_sec, &tm);
	if (getenv("JOURNAL_STREAM"))
		fprintf(stderr, "%s: %s\n", name[level], text);
	else
		fprintf(stderr, "%02d:%02d:%02d.%03ld migratord[%d] %s: %s\n", tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000000, getpid(),
			name[level], text);
}

/* ---- ports of the core ------------------------------------------------------------------------------------------------------------------- */

static bool port_agent_send(struct mig_port *p, const char *line, size_t len)
{
	return agent_line_send(&container_of(p, struct migratord, port)->agent, line, len);
}

static void port_event_append(struct mig_port *p, const char *text)
{
	evlog_append(container_of(p, struct migratord, port)->evlog, text);
}

static void port_keep(struct mig_port *p, const char *text)
{
	evlog_keep(container_of(p, struct migratord, port)->evlog, text);
}

static void port_hbeat_read(struct mig_port *p, struct mig_hbeat_req *r)
{
	hbeat_read(container_of(p, struct migratord, port)->loop, r);
}

static void port_leave(struct mig_port *p, enum mig_leave how, const char *why)
{
	struct migratord *d = container_of(p, struct migratord, port);

	log_to(&d->log, LOG_L_NOTE, "leaving: %s", why);
	d->how = how;
	d->exit_code = how == MIG_LEAVE_ENGINE;
	d->new_life = how != MIG_LEAVE_ENGINE;
	loop_stop(d->loop);
}

static const struct mig_port_ops port_ops = { port_agent_send, port_event_append, port_keep, port_hbeat_read, port_leave };

/* ---- csvctl's socket -------------------------------------------------------------------------------------------------------------------------- */

static void answer(void *arg, json_t *reply_take)
{
	rpc_call_reply_take(arg, reply_take);
}

static void on_request(void *arg, struct rpc_call *call)
{
	struct migratord *d = arg;
	struct mig_request r = { rpc_call_verb(call), rpc_call_args(call), answer, call };

	mig_request(d->mig, &r);
}

/* ---- start and stop ------------------------------------------------------------------------------------------------------------------------------ */

static int on_signal(void *arg, int fd, int revents)
{
	struct migratord *d = arg;
	struct signalfd_siginfo si;

	(void)revents;
	if (read(fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		log_to(&d->log, LOG_L_NOTE, "ending: %s; the VMs of this node run on", strsignal((int)si.ssi_signo));
		loop_stop(d->loop);
	}
	return 0;
}

static int signals_open(struct migratord *d)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	d->sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return d->sig_fd < 0 ? -errno : loop_add_fd(d->loop, d->sig_fd, POLLIN, on_signal, d);
}

static int cluster_open(struct migratord *d)
{
	struct cluster_facts f;
	uint64_t life = 0;
	int rc = cluster_facts_read(&f, &d->err);

	if (!rc)
		rc = real_cluster_new(d->loop, &d->log, GROUP, &d->cluster_port, &d->err);
	if (rc)
		return rc;
	while (!life)
		life = d->rnd.u64(&d->rnd);
	d->env.cluster = cluster_new(d->sched, d->cluster_port, life);
	if (!d->env.cluster)
		return csv_err_set(&d->err, -ENOMEM, "out of memory");
	cluster_set_round(d->env.cluster, cluster_facts_round_ns(&f));
	return 0;
}

static int start(struct migratord *d, json_t **past)
{
	json_t *kept = NULL;
	int rc;

	real_clock_init(&d->clock);
	real_rnd_init(&d->rnd);
	d->log.max = d->opt.debug ? LOG_L_DEBUG : LOG_L_INFO;
	d->log.write = log_stderr;
	d->port.ops = &port_ops;
	rc = migratord_config_read(&d->opt, &d->rnd, &d->cfg, &d->err);
	if (!rc)
		rc = real_fence_start(d->opt.fence_conf, &d->fence, &d->err);
	if (!rc)
		rc = evlog_open(d->opt.state_dir, &d->evlog, past, &kept, &d->err);
	if (rc)
		return rc;
	d->sched = sched_new(&d->clock);
	rc = d->sched ? loop_new(d->sched, &d->loop, &d->err) : csv_err_set(&d->err, -ENOMEM, "out of memory");
	if (!rc && signals_open(d))
		rc = csv_err_set(&d->err, -EIO, "signals: %s", strerror(errno));
	if (!rc)
		rc = cluster_open(d);
	if (rc)
		return rc;
	d->env.sched = d->sched;
	d->env.clock = &d->clock;
	d->env.rnd = &d->rnd;
	d->env.log = &d->log;
	d->env.fence = real_fence_port(d->fence, d->loop);
	rc = mig_new(&d->env, &d->port, &d->cfg, *past, kept, &d->mig, &d->err);
	json_decref(kept);
	if (!rc)
		rc = rpc_server_new(d->loop, &d->log, SERVICE, 0, on_request, d, &d->srv, &d->err);
	if (!rc)
		rc = cluster_start(d->env.cluster);
	if (rc)
		return d->err.code ? rc : csv_err_set(&d->err, rc, "corosync: joining: %s", strerror(-rc));
	agent_line_start(&d->agent, d->loop, &d->log, d->opt.agent, d->mig);
	return 0;
}

static void stop(struct migratord *d)
{
	agent_line_stop(&d->agent);
	rpc_server_free(d->srv);
	if (d->env.cluster)
		cluster_stop(d->env.cluster);
	mig_free(d->mig);
	cluster_free(d->env.cluster);
	if (d->cluster_port)
		real_cluster_free(d->cluster_port);
	real_fence_stop(d->fence);
	evlog_close(d->evlog);
	if (d->loop)
		loop_free(d->loop);
	if (d->sched)
		sched_free(d->sched);
}

int main(int argc, char **argv)
{
	struct migratord *d = calloc(1, sizeof(*d));
	json_t *past = NULL;
	int rc;

	if (!d)
		return 1;
	priority_first();
	rc = migratord_options_parse(argc, argv, &d->opt, &d->err);
	if (rc > 0)
		return 0;
	if (rc) {
		fprintf(stderr, "migratord: %s\n", d->err.text);
		return 2;
	}
	rc = start(d, &past);
	if (rc) {
		fprintf(stderr, "migratord: %s\n", d->err.text);
		d->exit_code = 1;
	} else {
		log_to(&d->log, LOG_L_NOTE, "started on %s, node %u of %u", d->cfg.cluster_name, d->cfg.self, d->cfg.n_nodes);
		loop_run(d->loop);
	}
	json_decref(past);
	stop(d);
	if (d->new_life && migratord_incarnation_new(&d->rnd, d->how == MIG_LEAVE_NODE))
		return 1;
	if (d->new_life && d->how == MIG_LEAVE_PURGED)
		execv("/proc/self/exe", argv);
	return d->exit_code;
}
