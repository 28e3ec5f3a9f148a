/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvfsd.c - the daemon of one mounted volume: order of start and stop.
 *
 *	start	options -> background -> ports (fencing helper first) -> core mounts (joins, slot, recovery) -> FUSE mount -> workers
 *		-> "mounted" to the caller
 *	stop	(umount(8), SIGTERM, or the kernel ended the connection)
 *		FUSE unmounted -> workers joined -> core unmounts (commit, write back, slot FREE) -> ports closed
 *
 * The core withdrawing is no stop: the mount stays and answers EIO until somebody unmounts it; or it joins anew (csvfsd_rejoin.c).
 */
#include "csvfs/csvfsd_internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <urcu.h>

#include "csvfs/csvfs_internal.h"
#include "csvfs/ctl.h"
#include "utils/env/priority.h"

#define HURRY_NS (5 * NS_PER_SEC)

struct csvfsd {
	struct csvfsd_options opt;
	struct world w;
	struct ready ready;
	struct fused f;
	struct ctl *ctl;
	struct rejoin *rejoin;
	struct real_hurry hurry;	/* the control thread's, while the members agree and the lock tables are rebuilt */
	struct timer hurry_end;		/* not for as long as there is no quorum */
	struct csv_err err;
	bool mounted, stopping;
	int sig_fd, exit_code;
};

/* ---- data plane and FUSE ------------------------------------------------------------------------------------------- */

static void drain_run(struct loop_msg *m)
{
	struct fused *f = container_of(m, struct fused, drain_msg);

	__atomic_store_n(&f->drain_posted, 0, __ATOMIC_SEQ_CST);
	dp_table_drained(f->dp);
}

/* From any thread; one message in the queue is enough for any number of notes. */
static void drain_notify(void *arg)
{
	struct fused *f = arg;

	if (!__atomic_exchange_n(&f->drain_posted, 1, __ATOMIC_SEQ_CST))
		loop_post(f->loop, &f->drain_msg);
}

static int data_plane_start(struct csvfsd *d)
{
	struct fused *f = &d->f;
	struct dp_config cfg = { .sched = d->w.sched, .io_align = d->w.env.blk->io_align, .notify = drain_notify, .arg = f };

	f->drain_msg.fn = drain_run;
	f->dp = dp_table_new(&cfg);
	if (!f->dp)
		return csv_err_set(&d->err, -ENOMEM, "out of memory");
	csvfs_set_dataplane(f->fs, f->dp);
	return 0;
}

static int fuse_start(struct csvfsd *d)
{
	struct fused *f = &d->f;
	char opts[512], *argv[] = { "csvfsd", "-o", opts, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = d->opt.workers ? d->opt.workers : (unsigned)(cores < 1 ? 1 : cores > 8 ? 8 : cores);

	snprintf(opts, sizeof(opts), "fsname=%s,subtype=csvfs,allow_other,default_permissions,dev,suid,max_read=%u%s", d->opt.device, IO_MAX,
		 d->opt.fuse_opts);
	f->se = fuse_session_new(&args, &fuse_ops, sizeof(fuse_ops), f);
	if (!f->se)
		return csv_err_set(&d->err, -EINVAL, "FUSE refuses the options \"%s\"", opts);
	if (fuse_session_mount(f->se, d->opt.dir))
		return csv_err_set(&d->err, -EIO, "%s: FUSE mount failed; is /dev/fuse there and DIR an empty directory?", d->opt.dir);
	d->mounted = true;
	if (!utab_add(d->opt.device, d->opt.dir))
		log_to(&d->w.log, LOG_L_WARN, "/run/mount/utab cannot be written: umount(8) of %s will not wait until the node has left the volume",
		       d->opt.dir);
	return workers_start(f, n, &d->err);
}

/* ---- stop ------------------------------------------------------------------------------------------------------------ */

static void stop_coro(void *arg)
{
	struct csvfsd *d = arg;
	struct csv_err err = { 0 };
	int rc = 0;

	if (d->mounted) {
		fuse_session_unmount(d->f.se);
		utab_remove(d->opt.device, d->opt.dir);
	}
	rejoin_stop(d->rejoin);		/* requests that wait for the next life answer */
	workers_stop(&d->f);
	if (d->f.fs && csvfs_plocks(d->f.fs))
		plock_close(csvfs_plocks(d->f.fs));
	while (d->f.ops)
		coro_sleep_ns(d->w.sched, 10 * NS_PER_MS);	/* requests that are still on the control plane answer into the void */
	if (d->f.fs) {
		bool in_order = csvfs_state(d->f.fs, NULL) != CSVFS_WITHDRAWN;

		csvfs_release_all(d->f.fs);	/* what programs still had open when the mount was forced away */
		rc = csvfs_umount(d->f.fs, &err);
		d->w.clean = in_order && !rc;
	}
	if (rc) {
		log_to(&d->w.log, LOG_L_ERR, "unmount: %s", err.text);
		d->exit_code = 1;
	}
	loop_stop(d->w.loop);
}

static void stop(struct csvfsd *d, const char *why)
{
	if (d->stopping)
		return;
	d->stopping = true;
	log_to(&d->w.log, LOG_L_NOTE, "%s: unmounting: %s", d->opt.dir, why);
	world_leaving(&d->w);
	if (sched_spawn(d->w.sched, "stop", stop_coro, d))
		csv_panic("out of memory while unmounting");
}

static void session_ended(struct loop_msg *m)
{
	stop(container_of(m, struct csvfsd, f.ended_msg), "the mount is gone");
}

static int on_signal(void *arg, int fd, int revents)
{
	struct csvfsd *d = arg;
	struct signalfd_siginfo si;

	(void)revents;
	if (read(fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
		stop(d, strsignal((int)si.ssi_signo));
	return 0;
}

/* ---- start ------------------------------------------------------------------------------------------------------------- */

static void on_locks_lost(void *arg)
{
	struct csvfsd *d = arg;

	if (!lock_nothing_held(&d->f))
		log_to(&d->w.log, LOG_L_ERR, "%s: the others went on without this node and may have given its programs' file locks away: files that were "
					     "locked here answer EIO until they are closed", d->opt.dir);
	lock_all_lost(&d->f);
}

static void on_hurry_end(struct timer *t)
{
	real_hurry(&container_of(t, struct csvfsd, hurry_end)->hurry, false);
}

static void hurry(struct csvfsd *d, bool on)
{
	real_hurry(&d->hurry, on);
	if (on)
		timer_set(d->w.sched, &d->hurry_end, clock_mono_ns(&d->w.clock) + HURRY_NS);
	else
		timer_del(d->w.sched, &d->hurry_end);
}

static void on_state(void *arg, enum csvfs_state st, const char *reason)
{
	static const char *const name[] = { "JOINING", "ACTIVE", "PAUSED", "WITHDRAWN" };
	struct csvfsd *d = arg;

	if (st == CSVFS_WITHDRAWN && !strcmp(reason, "unmounted"))	/* the core's last word, nothing went wrong */
		log_to(&d->w.log, LOG_L_NOTE, "%s: unmounted", d->opt.dir);
	else
		log_to(&d->w.log, st == CSVFS_WITHDRAWN ? LOG_L_ERR : LOG_L_NOTE, "%s: %s%s%s", d->opt.dir, name[st], *reason ? ": " : "",
		       reason);
	hurry(d, st == CSVFS_PAUSED);
	rejoin_state(d->rejoin, st);
}

static void start_coro(void *arg)
{
	struct csvfsd *d = arg;
	struct csvfs_events ev = { .state = on_state, .locks_lost = on_locks_lost, .arg = d };
	struct csvfs_options o;
	struct fused *f = &d->f;
	int rc;

	csvfsd_core_options(&d->w, &d->opt, &o);
	d->w.clean = false;
	rc = csvfs_mount(&d->w.env, &o, &ev, &f->fs, &d->err);
	if (rc) {
		csv_err_prefix(&d->err, "mount %s", d->opt.device);
		f->fs = NULL;
	} else {
		f->root_ino = csvfs_root_ino(f->fs);
		f->names = names_new(f->root_ino);
		rc = data_plane_start(d);
	}
	if (!rc)
		rc = fuse_start(d);
	if (rc) {
		d->exit_code = 32;
		log_to(&d->w.log, LOG_L_ERR, "%s", d->err.text);
		ready_fail(&d->ready, &d->err);
		stop(d, "it could not be mounted");
		return;
	}
	log_to(&d->w.log, LOG_L_NOTE, "%s mounted at %s, slot %u, %u data-plane threads", d->opt.device, d->opt.dir, csvfs_slot(f->fs),
	       f->n_workers);
	ready_ok(&d->ready);
}

static int signals_open(struct csvfsd *d)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (pthread_sigmask(SIG_BLOCK, &set, NULL))
		return -errno;
	signal(SIGPIPE, SIG_IGN);
	d->sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d->sig_fd < 0)
		return -errno;
	return loop_add_fd(d->w.loop, d->sig_fd, POLLIN, on_signal, d);
}

/* What keeps the daemon answering when memory is short (pitfall: waiting for write-back of its own clients). */
static void memory_guard(struct csvfsd *d)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	FILE *oom;

	if (!d->opt.no_mlock) {
		setrlimit(RLIMIT_MEMLOCK, &unlimited);
		if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
			log_to(&d->w.log, LOG_L_WARN, "memory cannot be locked: %s; under memory pressure this node's I/O may stall",
			       strerror(errno));
	}
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		log_to(&d->w.log, LOG_L_INFO, "PR_SET_IO_FLUSHER: %s; under memory pressure this node's I/O may stall", strerror(errno));
	oom = fopen("/proc/self/oom_score_adj", "we");
	if (oom) {
		fputs("-1000", oom);
		fclose(oom);
	}
}

/* The mount of a daemon that has died answers ENOTCONN to everything: nobody can be using it. */
static void clear_dead_mount(const char *dir)
{
	struct stat st;

	if (stat(dir, &st) && errno == ENOTCONN && !umount2(dir, MNT_DETACH))
		fprintf(stderr, "csvfs: %s: the mount of a daemon that has died was removed\n", dir);
}

static int check_dir(const char *dir, struct csv_err *err)
{
	struct stat st;

	clear_dead_mount(dir);
	if (stat(dir, &st))
		return csv_err_set(err, -errno, "%s: %s; the mount point must be an existing directory", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return csv_err_set(err, -ENOTDIR, "%s: not a directory; the mount point must be an existing directory", dir);
	return 0;
}

static int run(struct csvfsd *d)
{
	int rc = world_open(&d->w, &d->opt, &d->err);

	if (rc) {
		ready_fail(&d->ready, &d->err);
		return 32;
	}
	rcu_register_thread();
	d->f.loop = d->w.loop;
	d->f.sched = d->w.sched;
	d->f.log = &d->w.log;
	d->f.env = &d->w.env;
	timer_init(&d->hurry_end, on_hurry_end);
	use_start(&d->f);
	d->f.dev_fd = real_blk_fd(d->w.env.blk);
	d->f.ended_msg.fn = session_ended;
	fop_watch_init(&d->f);
	waitq_init(&d->f.life_wq);
	pthread_mutex_init(&d->f.buf_lock, NULL);
	rc = signals_open(d);
	if (!rc) {
		d->rejoin = rejoin_new(&d->w, &d->f, &d->opt, &(struct csvfs_events){ .state = on_state, .locks_lost = on_locks_lost, .arg = d });
		rc = d->rejoin ? 0 : -ENOMEM;
	}
	if (!rc)
		rc = ctl_start(&d->w, &d->f, &d->opt, &d->ctl, &d->err);
	if (!rc)
		rc = sched_spawn(d->w.sched, "start", start_coro, d);
	if (rc) {
		if (!d->err.code)
			csv_err_set(&d->err, rc, "cannot start: %s", strerror(-rc));
		ready_fail(&d->ready, &d->err);
		d->exit_code = 32;
	} else {
		memory_guard(d);
		loop_run(d->w.loop);
	}
	ctl_stop(d->ctl);
	if (d->f.se)
		fuse_session_destroy(d->f.se);
	if (d->f.fs)
		csvfs_free(d->f.fs);
	if (d->f.dp)
		dp_table_free(d->f.dp);
	iobuf_free_all(&d->f);
	names_free(d->f.names);
	free(d->rejoin);
	world_close(&d->w);
	if (d->sig_fd > 0)
		close(d->sig_fd);
	rcu_unregister_thread();
	return d->exit_code;
}

int main(int argc, char **argv)
{
	struct csvfsd *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return 32;
	d->ready.fd = -1;
	priority_first();
	rc = csvfsd_options_parse(argc, argv, &d->opt, &d->err);
	if (rc > 0)
		return 0;
	if (!rc)
		rc = check_dir(d->opt.dir, &d->err);
	if (!rc && !d->opt.foreground)
		rc = ready_background(&d->ready, &d->err);
	if (rc) {
		fprintf(stderr, "csvfs: %s\n", d->err.text);
		return rc == -EINVAL ? 1 : 32;
	}
	rc = run(d);
	free(d);
	return rc;
}
