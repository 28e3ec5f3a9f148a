/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvfsd_world.c - the ports of csvfsd, put together: clock, disk, corosync, mesh, fencing, log.
 *
 * Order matters (R15): witness and fencing helper are forked before the volume is opened, so that no child of ours ever holds a
 * descriptor of the volume or of the process group.
 */
#include "csvfs/csvfsd_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "utils/base/base.h"
#include "utils/base/text.h"
#include "utils/env/sync_blk.h"

#define RUN_DIR "/run/csvfs"
#define LOCK_WAIT_MS 1000u
#define LEAVE_WAIT_MS 60000u		/* write back, lock tables given over, neighbours that do not answer */
#define LEAVING "leaving\n"
#define LOCK_EVERY_MS 10u

/* ---- log: standard error in the foreground, syslog otherwise ------------------------------------------------------ */

static const char *const level_name[] = { "error", "warning", "notice", "info", "debug" };

static void log_stderr(struct logger *l, enum log_level level, const char *text)
{
	(void)l;
	fprintf(stderr, "csvfsd: %s: %s\n", level_name[level], text);
}

static void log_syslog(struct logger *l, enum log_level level, const char *text)
{
	static const int prio[] = { LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG };
	const char *path = getenv("CSVFSD_LOG");
	int fd;

	(void)l;
	syslog(prio[level], "%s", text);
	if (!path)
		return;
	/* A machine without syslog: whole lines, appended. */
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	if (fd >= 0) {
		struct timespec ts;

		clock_gettime(CLOCK_REALTIME, &ts);
		dprintf(fd, "%lld.%03ld csvfsd[%d] %s: %s\n", (long long)ts.tv_sec, ts.tv_nsec / 1000000, getpid(), level_name[level],
			text);
		close(fd);
	}
}

static void log_open(struct world *w, const struct csvfsd_options *o)
{
	w->log.max = o->debug ? LOG_L_DEBUG : LOG_L_INFO;
	w->log.write = o->foreground ? log_stderr : log_syslog;
	if (!o->foreground)
		openlog("csvfsd", LOG_PID | LOG_CONS, LOG_DAEMON);
}

/* ---- the volume: who is it, and is it mounted here already ----------------------------------------------------------- */

struct probe { struct blk *blk; struct world *w; int rc; struct csv_err note, *err; };

static void probe_coro(void *arg)
{
	struct probe *p = arg;

	p->rc = csv_super_read(p->blk, &p->w->geo, &p->note, p->err);
}

static int probe_volume(struct world *w, const struct csvfsd_options *o, struct csv_err *err)
{
	struct probe p = { .w = w, .err = err, .rc = -EIO };
	struct sched *s = sched_new(&w->clock);
	int rc;

	if (!s)
		return csv_err_set(err, -ENOMEM, "out of memory");
	rc = sync_blk_open(o->device, BLK_O_RDONLY, s, &p.blk, err);
	if (!rc) {
		rc = sched_spawn(s, "probe", probe_coro, &p);
		sched_run(s);
		if (!rc)
			rc = p.rc;
		blk_close(p.blk);
		if (rc)
			csv_err_prefix(err, "%s", o->device);
	}
	if (!rc && p.note.code)
		log_to(&w->log, LOG_L_WARN, "%s: %s", o->device, p.note.text);
	sched_free(s);
	return rc;
}

void world_leaving(struct world *w)
{
	int fd = open(w->lock_path, O_WRONLY | O_APPEND | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, LEAVING, strlen(LEAVING)) < 0)
		log_to(&w->log, LOG_L_WARN, "%s: %s: the next mount on this node may be refused while this daemon leaves", w->lock_path,
		       strerror(errno));
	close(fd);
}

/* The holder's pid; ret_leaving: it said that it goes. */
static int lock_holder(int fd, bool *ret_leaving)
{
	char buf[3 * PATH_MAX];
	ssize_t n = pread(fd, buf, sizeof(buf) - 1, 0);
	int pid = 0;

	buf[n < 0 ? 0 : n] = 0;
	*ret_leaving = strstr(buf, "\n" LEAVING) != NULL;
	sscanf(buf, "pid %d", &pid);
	return pid;
}

/*
 * Who holds the lock has the volume mounted, is leaving (a mount that follows an unmount waits for it), or was just killed, its I/O
 * on the way to its end.  Only what stays is an error.
 */
static int lock_wait(int fd, const char *device, const char *path, struct csv_err *err)
{
	unsigned waited = 0;
	bool leaving = false;
	int pid;

	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return csv_err_set(err, -errno, "%s: %s", path, strerror(errno));
		pid = lock_holder(fd, &leaving);
		if (waited >= (leaving ? LEAVE_WAIT_MS : LOCK_WAIT_MS)) {
			if (leaving)
				return csv_err_set(err, -EBUSY,
						   "%s: the last daemon of this node (process %d) is still leaving the volume after %u s; see the system log and /proc/%d/stack",
						   device, pid, LEAVE_WAIT_MS / 1000, pid);
			return csv_err_set(err, -EBUSY, "%s: this volume is mounted on this node already (process %d); see /proc/mounts", device, pid);
		}
		poll(NULL, 0, LOCK_EVERY_MS);
		waited += LOCK_EVERY_MS;
	}
	return 0;
}

/*
 * Held until the process's memory is gone, which is after the kernel waited for the process's I/O (lock_into_memory()), so who
 * gets it knows that no earlier daemon of this node writes to the volume any more.
 */
static int lock_volume(struct world *w, const struct csvfsd_options *o, struct csv_err *err)
{
	char path[128], dir[PATH_MAX], uuid[CSV_UUID_TEXT_BYTES];
	int fd, rc;

	if (!realpath(o->dir, dir))
		return csv_err_set(err, -errno, "%s: %s", o->dir, strerror(errno));

	if (mkdir(RUN_DIR, 0755) && errno != EEXIST)
		return csv_err_set(err, -errno, "%s: cannot be made: %s", RUN_DIR, strerror(errno));
	snprintf(path, sizeof(path), RUN_DIR "/%016" PRIx64 ".lock", w->geo.lockspace);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return csv_err_set(err, -errno, "%s: %s", path, strerror(errno));
	rc = lock_wait(fd, o->device, path, err);
	if (rc) {
		close(fd);
		return rc;
	}
	/* For csvctl and umount: who, what, where.  The file stays when the lock goes; only a held lock means "mounted". */
	if (ftruncate(fd, 0) || dprintf(fd, "pid %d\ndevice %s\ndir %s\nuuid %s\n", getpid(), o->device, dir,
					csv_uuid_to_text(w->geo.uuid, uuid)) < 0) {
		close(fd);
		return csv_err_set(err, -EIO, "%s: cannot be written; is /run full?", path);
	}
	snprintf(w->lock_path, sizeof(w->lock_path), "%s", path);
	w->lock = lock_into_memory(fd);
	if (!w->lock) {
		close(fd);
		return csv_err_set(err, -ENOMEM, "%s: cannot be mapped", path);
	}
	return 0;
}

/* ---- putting it together ------------------------------------------------------------------------------------------------- */

static int open_cluster(struct world *w, struct csv_err *err)
{
	int rc;

	rc = real_cluster_new(w->loop, &w->log, w->group, &w->cluster_port, err);
	if (rc)
		return rc;
	w->env.cluster = cluster_new(w->sched, w->cluster_port, w->incarnation);
	if (!w->env.cluster)
		return csv_err_set(err, -ENOMEM, "out of memory");
	cluster_set_round(w->env.cluster, w->round_ns);
	rc = real_link_new(w->loop, &w->log, w->geo.lockspace, w->nodeid, w->no_tls, &w->link_port, err);
	if (rc)
		return rc;
	w->env.mesh = mesh_new(w->sched, w->env.cluster, w->link_port, w->geo.lockspace);
	return w->env.mesh ? 0 : csv_err_set(err, -ENOMEM, "out of memory");
}

static int check_facts(const struct cluster_facts *f, struct world *w, struct csv_err *err)
{
	if (f->two_node && !f->has_qdevice)
		return csv_err_set(err, -EINVAL,
				   "corosync.conf: two_node: 1 makes both halves of a split quorate; remove it, or configure a quorum device "
				   "(corosync-qdevice) as the third vote");
	if (!f->crypto)
		log_to(&w->log, LOG_L_WARN, "corosync.conf: crypto_cipher and crypto_hash are not set: anyone on its network can take "
					    "part in the cluster");
	snprintf(w->node_name, sizeof(w->node_name), "%s", f->node_name);
	w->nodeid = f->self;
	w->round_ns = cluster_facts_round_ns(f);
	return 0;
}

static void new_incarnation(struct world *w)
{
	do {
		w->incarnation = w->rnd.u64(&w->rnd);
	} while (!w->incarnation);
}

static void close_cluster(struct world *w)
{
	if (w->env.cluster)
		cluster_stop(w->env.cluster);
	mesh_free(w->env.mesh);
	w->env.mesh = NULL;
	if (w->link_port)
		real_link_free(w->link_port);
	w->link_port = NULL;
	cluster_free(w->env.cluster);
	w->env.cluster = NULL;
	if (w->cluster_port)
		real_cluster_free(w->cluster_port);
	w->cluster_port = NULL;
}

int world_next_life(struct world *w, struct csv_err *err)
{
	close_cluster(w);
	new_incarnation(w);
	real_witness_next_life(w->witness, w->incarnation);
	blk_gate_open(w->env.blk);
	return open_cluster(w, err);
}

void csvfsd_core_options(const struct world *w, const struct csvfsd_options *o, struct csvfs_options *ret)
{
	*ret = (struct csvfs_options){ .read_only = o->read_only, .noatime = true, .incarnation = w->incarnation };
	snprintf(ret->node_name, sizeof(ret->node_name), "%s", w->node_name);
}

int world_open(struct world *w, const struct csvfsd_options *o, struct csv_err *err)
{
	struct cluster_facts facts;
	struct real_fence *fence = NULL;
	char witness_group[64];
	int rc;

	memset(w, 0, sizeof(*w));
	w->clean = true;
	real_clock_init(&w->clock);
	real_rnd_init(&w->rnd);
	log_open(w, o);
	w->no_tls = o->no_tls;
	new_incarnation(w);
	rc = probe_volume(w, o, err);
	if (!rc)
		rc = lock_volume(w, o, err);
	if (!rc)
		rc = cluster_facts_read(&facts, err);
	if (!rc)
		rc = check_facts(&facts, w, err);
	snprintf(w->group, sizeof(w->group), "csvfs-%016" PRIx64, w->geo.lockspace);
	snprintf(witness_group, sizeof(witness_group), "%s-w", w->group);
	if (!rc)
		rc = real_witness_start(w->lock_path, witness_group, w->incarnation, &w->witness, err);
	if (!rc)
		rc = real_fence_start(o->fence_conf, &fence, err);
	w->fence_helper = fence;
	if (!rc) {
		w->sched = sched_new(&w->clock);
		rc = w->sched ? loop_new(w->sched, &w->loop, err) : csv_err_set(err, -ENOMEM, "out of memory");
	}
	if (!rc)
		rc = real_blk_open(o->device, 0, w->loop, &w->env.blk, err);
	if (!rc)
		rc = open_cluster(w, err);
	if (rc) {
		world_close(w);
		return rc;
	}
	w->env.sched = w->sched;
	w->env.clock = &w->clock;
	w->env.rnd = &w->rnd;
	w->env.log = &w->log;
	w->env.fence = real_fence_port(fence, w->loop);
	return 0;
}

void world_close(struct world *w)
{
	close_cluster(w);
	if (w->env.blk)
		blk_close(w->env.blk);
	real_fence_stop(w->fence_helper);
	loop_free(w->loop);
	if (w->sched)
		sched_free(w->sched);
	real_witness_stop(w->witness, w->clean);
	/* w->lock goes with the process, not before */
}
