/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_host.c - what this host is and can do: its QEMU, and the mount of its volume; migratord is told when that changes ("host").
 *
 * Invariants
 *  HF1 A QEMU that could not be asked what it can do is asked again, after 2, 4 ... 60 s, until it answers; only what it answered is final.
 *  HF2 The mount is looked at once a second.  At most one question to the mount itself is open, however long it hangs; its csvfsd is asked
 *      only where the mount does not answer, and one that does not answer either is asked more and more seldom.
 */
#include "hvhost/hvhostd_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define AGAIN_FIRST_S 2u
#define AGAIN_MAX_S 60u
#define MOUNT_LOOK_NS NS_PER_SEC
#define MOUNT_ANSWER_MS 2000u
#define CSVFSD_ANSWER_MS 3000
#define CSVFSD_AGAIN_S 15u		/* one that did not answer; doubled each time, AGAIN_MAX times at most */
#define CSVFSD_AGAIN_DOUBLED 5u
#define CSVFS_RUN_DIR "/run/csvfs"

static void host_changed(struct hvd *d)
{
	hvd_line_event(d, "host", json_pack("{s:o}", "host", hvd_host_json(d)));
}

/* ---- QEMU ---------------------------------------------------------------------------------------------------------------------- */

struct probe_qemu { struct hvd *d; struct proc p; struct mon *mon; struct waitq wq; bool ended, ready, broken; };

static void probe_exited(struct proc *p)
{
	struct probe_qemu *r = container_of(p, struct probe_qemu, p);

	r->ended = true;
	sched_wake_all(r->d->sched, &r->wq);
}

static void probe_ready(void *arg)
{
	struct probe_qemu *r = arg;

	r->ready = true;
	sched_wake_all(r->d->sched, &r->wq);
}

static void probe_broken(void *arg, const struct csv_err *err)
{
	struct probe_qemu *r = arg;

	(void)err;
	r->broken = true;
	sched_wake_all(r->d->sched, &r->wq);
}

static void probe_event(void *arg, const char *name, const json_t *data, uint64_t stamp_us)
{
	(void)arg, (void)name, (void)data, (void)stamp_us;
}

/* One that has no machine is asked.  0 it answered, whatever; else err says what went wrong. */
static int ask_qemu(struct hvd *d, struct csv_err *err)
{
	struct probe_qemu r = { .d = d, .p.exited = probe_exited };
	struct qmp_events ev = { .ready = probe_ready, .event = probe_event, .broken = probe_broken, .arg = &r };
	char sock[300], log[300], chardev[340];
	char *argv[] = { (char *)d->opt.qemu, "-S", "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-chardev", chardev,
			 "-mon", "chardev=q,mode=control", NULL };
	unsigned v[3];
	int rc;

	waitq_init(&r.wq);
	snprintf(sock, sizeof(sock), "%s/probe.qmp", d->opt.run_dir);
	snprintf(log, sizeof(log), "%s/probe.log", d->opt.run_dir);
	snprintf(chardev, sizeof(chardev), "socket,id=q,path=%s,server=on,wait=off", sock);
	unlink(sock);
	rc = proc_spawn(&r.p, d->loop, d->base, "probe", argv, NULL, 0, log, err);
	if (rc)
		return csv_err_prefix(err, "%s cannot be started", d->opt.qemu);
	if (mon_open(d->loop, sock, sched_now_ns(d->sched) + 20 * NS_PER_SEC, &ev, &r.mon))
		csv_panic("out of memory");
	while (!r.ready && !r.broken && !r.ended)
		sched_wait(d->sched, &r.wq);
	if (r.ready) {
		qmp_version(mon_qmp(r.mon), v);
		snprintf(d->qemu_version, sizeof(d->qemu_version), "%u.%u.%u", v[0], v[1], v[2]);
		rc = vm_capabilities_check(mon_qmp(r.mon), d->sched, err);
		if (!rc)
			d->missing[0] = '\0';
		if (rc == -CSV_E_UNSUPPORTED) {
			snprintf(d->missing, sizeof(d->missing), "%.150s", strchr(err->text, '"') ? strchr(err->text, '"') : "capabilities");
			rc = 0;
		}
	} else {
		rc = csv_err_set(err, -ETIMEDOUT, "%s %s; %s has its words", d->opt.qemu, r.ended ? "ended at once" : "does not answer on its monitor", log);
	}
	mon_close(r.mon);
	proc_kill(&r.p);
	while (!r.ended)
		sched_wait(d->sched, &r.wq);
	proc_forget(&r.p);
	unlink(sock);
	return rc;
}

/* True: it has answered. */
static bool try_qemu(struct hvd *d, unsigned again_s)
{
	struct csv_err err = CSV_ERR_INIT;
	bool first = !*d->qemu_reason;

	if (ask_qemu(d, &err)) {
		snprintf(d->qemu_version, sizeof(d->qemu_version), "unknown");
		snprintf(d->missing, sizeof(d->missing), "QEMU");
		snprintf(d->qemu_reason, sizeof(d->qemu_reason), "QEMU could not be asked what it can do: %.180s; it is asked again in %u s", err.text,
			 again_s);
		if (first)
			hvd_event(d, "error", "", "", "%s", d->qemu_reason);
		else
			log_to(&d->log, LOG_L_WARN, "%s", d->qemu_reason);
		return false;
	}
	d->qemu_reason[0] = '\0';
	return true;
}

/* HF1 */
static void again_coro(void *arg)
{
	struct hvd *d = arg;
	unsigned pause_s = AGAIN_FIRST_S;
	bool answered;

	do {
		coro_sleep_ns(d->sched, pause_s * NS_PER_SEC);
		pause_s = csv_min(pause_s * 2, AGAIN_MAX_S);
		answered = try_qemu(d, pause_s);
		host_changed(d);
	} while (!answered);
	hvd_event(d, "info", "", "", "QEMU was asked again what it can do: it is %s%s%s", d->qemu_version, *d->missing ? ", and lacks " : "",
		  d->missing);
}

/* ---- the mount of the volume ----------------------------------------------------------------------------------------------------- */

struct look {				/* the thread's while it runs */
	struct hvd *d;			/* of the control thread only */
	char dir[400];
	struct mount_facts f;
};

static int run_statfs(void *arg)
{
	struct look *k = arg;
	struct statfs st;

	return statfs(k->dir, &st) ? -errno : 0;
}

static void statfs_came_late(void *arg)
{
	struct look *k = arg;

	k->d->mount_hangs = false;
	free(k);
}

static struct look *look_new(struct hvd *d)
{
	struct look *k = calloc(1, sizeof(*k));

	if (!k)
		csv_panic("out of memory");
	k->d = d;
	snprintf(k->dir, sizeof(k->dir), "%s", d->mount_dir);
	return k;
}

/* -EINPROGRESS: it has not answered. */
static int ask_mount(struct hvd *d)
{
	struct csv_err err = CSV_ERR_INIT;
	struct look *k;
	bool ran;
	int rc;

	if (d->mount_hangs)
		return -EINPROGRESS;
	k = look_new(d);
	d->mount_hangs = true;
	rc = work_run(&d->work, run_statfs, k, MOUNT_ANSWER_MS, statfs_came_late, &ran, &err);
	if (!ran)
		return -EINPROGRESS;
	d->mount_hangs = false;
	free(k);
	return rc;
}

static int run_ask(void *arg)
{
	struct look *k = arg;

	mount_ask(CSVFS_RUN_DIR, k->dir, CSVFSD_ANSWER_MS, &k->f);
	return 0;
}

static void ask_csvfsd(struct hvd *d, struct mount_facts *f)
{
	struct csv_err err = CSV_ERR_INIT;
	uint64_t now = sched_now_ns(d->sched);
	struct look *k;
	bool ran;

	f->rpc_rc = d->mount_facts.rpc_rc;	/* its last word */
	memcpy(f->state, d->mount_facts.state, sizeof(f->state));
	memcpy(f->why, d->mount_facts.why, sizeof(f->why));
	if (now < d->mount_ask_ns)
		return;
	k = look_new(d);
	work_run(&d->work, run_ask, k, CSVFSD_ANSWER_MS * 3, free, &ran, &err);
	f->rpc_rc = -ETIMEDOUT;
	if (ran) {
		f->rpc_rc = k->f.rpc_rc;
		memcpy(f->state, k->f.state, sizeof(f->state));
		memcpy(f->why, k->f.why, sizeof(f->why));
		free(k);
	}
	d->mount_mute = f->rpc_rc == -ETIMEDOUT ? csv_min(d->mount_mute + 1, CSVFSD_AGAIN_DOUBLED) : 0;
	d->mount_ask_ns = d->mount_mute ? sched_now_ns(d->sched) + (CSVFSD_AGAIN_S << (d->mount_mute - 1)) * NS_PER_SEC : 0;
}

static void mount_look(struct hvd *d)
{
	struct mount_facts f = { .mounted = mount_is_there("/proc/self/mountinfo", d->mount_dir) };
	struct mount_report r;

	f.statfs_rc = f.mounted ? ask_mount(d) : -ENOENT;
	if (f.mounted && !f.statfs_rc)
		d->mount_mute = 0, d->mount_ask_ns = 0;
	else
		ask_csvfsd(d, &f);
	d->mount_facts = f;
	mount_judge(d->opt.volume, &f, &r);
	if (r.state == d->mount.state && !strcmp(r.reason, d->mount.reason) && !strcmp(r.command, d->mount.command))
		return;
	log_to(&d->log, mount_is_place(r.state) ? LOG_L_NOTE : LOG_L_WARN, "the volume at %s: %s%s%s", d->opt.volume, mount_state_name(r.state),
	       *r.reason ? ": " : "", r.reason);
	d->mount = r;
	host_changed(d);
}

static void mount_coro(void *arg)
{
	struct hvd *d = arg;

	mount_look(d);
	d->mount_looking = false;
}

static void on_mount(struct timer *t)
{
	struct hvd *d = container_of(t, struct hvd, mount_timer);

	if (!d->mount_looking) {
		d->mount_looking = true;
		if (sched_spawn(d->sched, "mount", mount_coro, d))
			csv_panic("out of memory");
	}
	timer_set(d->sched, t, sched_now_ns(d->sched) + MOUNT_LOOK_NS);
}

/* ---- at start ------------------------------------------------------------------------------------------------------------------------ */

void hvd_host_begin(struct hvd *d)
{
	mount_dir(d->opt.volume, d->mount_dir, sizeof(d->mount_dir));
	if (!try_qemu(d, AGAIN_FIRST_S) && sched_spawn(d->sched, "qemu", again_coro, d))
		csv_panic("out of memory");
	mount_look(d);
	timer_init(&d->mount_timer, on_mount);
	timer_set(d->sched, &d->mount_timer, sched_now_ns(d->sched) + MOUNT_LOOK_NS);
}
