/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd.c - this node's host agent: options, order of start and stop, the reaper's clock.
 *
 *	start	lock (one hvhostd a run folder) -> QEMUs found again -> capabilities and accelerator probed -> the line is open
 *	stop	(SIGTERM, "quit")  the line is closed, QEMUs stay as they are; so a restart is nothing that a guest notices
 *
 * What a membership change does: hvhostd_cmd.c.
 */
#include "hvhost/hvhostd_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "utils/base/text.h"
#include "utils/env/priority.h"

#define REAP_NS (10 * NS_PER_SEC)
#define RESERVE_BYTES (256ull << 20)	/* of the node's memory, for itself */

/* ---- VMs -------------------------------------------------------------------------------------------------------------------- */

struct hvd_vm *hvd_vm_find(struct hvd *d, const char *name)
{
	struct hvd_vm *v;

	HASH_FIND_STR(d->vms, name, v);
	return v;
}

struct hvd_vm *hvd_vm_of(struct vm *vm, struct hvd *d)
{
	struct hvd_vm *v = hvd_vm_find(d, vm_name(vm));

	return v && v->vm == vm ? v : NULL;
}

static void changed_run(struct job *j)
{
	struct hvd_vm *v = container_of(j, struct hvd_vm, changed);

	hvd_line_event(v->d, "vm", hvd_vm_json(v->d, v, false));
}

struct hvd_vm *hvd_vm_get(struct hvd *d, const char *name)
{
	struct hvd_vm *v = hvd_vm_find(d, name);

	if (v)
		return v;
	v = calloc(1, sizeof(*v));
	if (!v)
		return NULL;
	v->d = d;
	snprintf(v->name, sizeof(v->name), "%s", name);
	job_init(&v->changed, changed_run);
	v->vm = vm_new(&d->host, name);
	if (!v->vm) {
		free(v);
		return NULL;
	}
	vm_remember(v->vm, hvd_ended_get(d, name));
	HASH_ADD_STR(d->vms, name, v);
	return v;
}

void hvd_vm_drop(struct hvd *d, struct hvd_vm *v)
{
	HASH_DEL(d->vms, v);
	sched_unpost(d->sched, &v->changed);
	vm_free(v->vm);
	free(v);
}

void hvd_event(struct hvd *d, const char *severity, const char *vm, const char *command, const char *fmt, ...)
{
	char text[AGENT_TEXT_MAX + 1];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_to(&d->log, !strcmp(severity, "error") ? LOG_L_ERR : !strcmp(severity, "warning") ? LOG_L_WARN : LOG_L_NOTE, "%s", text);
	hvd_line_event(d, "event", json_pack("{s:s, s:s, s:s, s:s}", "severity", severity, "vm", vm, "text", text, "command", command));
}

/* ---- start ------------------------------------------------------------------------------------------------------------------- */

/* --accel kvm is an order: what the probe says against it is told, and VMs use KVM all the same where the device can be opened. */
static void kvm_by_order(struct hvd *d)
{
	if (access("/dev/kvm", R_OK | W_OK)) {
		hvd_event(d, "error", "", "", "--accel kvm: %s", d->accel.reason);
		return;
	}
	hvd_event(d, "warning", "", "", "KVM is used by --accel kvm against the probe: %s", d->accel.reason);
	d->accel.accel = VM_ACCEL_KVM;
}

static void start_coro(void *arg)
{
	struct hvd *d = arg;
	struct csv_err err = CSV_ERR_INIT;

	hvd_host_begin(d);
	if (d->opt.accel == VM_ACCEL_TCG)
		d->accel = (struct accel_report){ .accel = VM_ACCEL_TCG, .reason = "chosen by --accel" };
	else
		accel_probe(d->loop, d->opt.qemu, d->opt.run_dir, d->base, &d->accel);
	if (d->opt.accel == VM_ACCEL_KVM && d->accel.accel != VM_ACCEL_KVM)
		kvm_by_order(d);
	log_to(&d->log, LOG_L_NOTE, "QEMU %s, %s%s%s (probe: %u ms), %" PRIu64 " MiB for VMs", d->qemu_version, accel_text(&d->accel),
	       *d->accel.reason ? ": " : "", d->accel.reason, d->accel.took_ms, d->memory_bytes >> 20);
	if (hvd_line_open(d, &err)) {
		log_to(&d->log, LOG_L_ERR, "%s", err.text);
		loop_stop(d->loop);
		return;
	}
	printf("ready\n");
	fflush(stdout);
}

/* ---- options, start and stop ------------------------------------------------------------------------------------------------------- */

static void log_write(struct logger *l, enum log_level level, const char *text)
{
	static const char *const name[] = { "error", "warning", "notice", "info", "debug" };
	struct timespec ts;

	(void)l;
	clock_gettime(CLOCK_REALTIME, &ts);
	fprintf(stderr, "%lld.%03ld hvhostd[%d] %s: %s\n", (long long)ts.tv_sec, ts.tv_nsec / 1000000, (int)getpid(), name[level], text);
}

static const char help[] =
	"usage: hvhostd [options]\n"
	"This node's host agent: starts, migrates and watches QEMUs, as migratord says. Stays in the foreground.\n"
	"  --volume DIR        where the volume is mounted; VMs are in DIR/vms (/srv/csv)\n"
	"  --run-dir DIR       sockets and marks, on a tmpfs (/run/csvfs)\n"
	"  --log-dir DIR       what QEMUs and consoles say (/var/log/csvfs)\n"
	"  --socket PATH       migratord's socket (RUN-DIR/hvhostd.sock)\n"
	"  --qemu PROGRAM      (qemu-system-x86_64)\n"
	"  --cgroup DIR        cgroup2 folder for VMs (below the own one)\n"
	"  --accel KIND        auto, kvm or tcg (auto: a probe decides; kvm: also against it)\n"
	"  --memory SIZE       for VMs (the node's memory less 256 MiB)\n"
	"  --bandwidth BPS     of a migration, bits per second (as fast as it goes)\n"
	"  -d, --debug         more words\n"
	"  -h, --help          this text\n"
	"  -V, --version       the version\n";

static int usage(const char *fmt, const char *what)
{
	fprintf(stderr, "hvhostd: ");
	fprintf(stderr, fmt, what);
	fprintf(stderr, "; hvhostd --help says more\n");
	return 2;
}

static int parse(struct hvd *d, int argc, char **argv)
{
	static const struct option o[] = {
		{ "volume", 1, NULL, 'v' }, { "run-dir", 1, NULL, 'r' }, { "log-dir", 1, NULL, 'l' }, { "socket", 1, NULL, 's' },
		{ "qemu", 1, NULL, 'q' }, { "cgroup", 1, NULL, 'c' }, { "accel", 1, NULL, 'a' }, { "memory", 1, NULL, 'm' },
		{ "bandwidth", 1, NULL, 'b' }, { "debug", 0, NULL, 'd' }, { "help", 0, NULL, 'h' }, { "version", 0, NULL, 'V' }, { 0 },
	};
	int c;

	d->opt = (struct hvd_options){ .volume = "/srv/csv", .run_dir = "/run/csvfs", .log_dir = "/var/log/csvfs", .qemu = "qemu-system-x86_64" };
	while ((c = getopt_long(argc, argv, "dhV", o, NULL)) >= 0) {
		switch (c) {
		case 'v': d->opt.volume = optarg; break;
		case 'r': d->opt.run_dir = optarg; break;
		case 'l': d->opt.log_dir = optarg; break;
		case 's': d->opt.socket = optarg; break;
		case 'q': d->opt.qemu = optarg; break;
		case 'c': d->opt.cgroup = optarg; break;
		case 'd': d->opt.debug = true; break;
		case 'a':
			if (strcmp(optarg, "auto") && strcmp(optarg, "tcg") && strcmp(optarg, "kvm"))
				return usage("--accel %s: auto, kvm or tcg", optarg);
			d->opt.accel = *optarg == 'a' ? VM_ACCEL_AUTO : *optarg == 't' ? VM_ACCEL_TCG : VM_ACCEL_KVM;
			break;
		case 'm':
			if (csv_size_parse(optarg, &d->memory_bytes) || d->memory_bytes < VMCONF_MEMORY_MIN)
				return usage("--memory %s: a size of at least 16M", optarg);
			break;
		case 'b':
			if (csv_size_parse(optarg, &d->host.bandwidth_bps))
				return usage("--bandwidth %s: bits per second", optarg);
			break;
		case 'h':
			fputs(help, stdout);
			return -1;
		case 'V':
			printf("hvhostd %s\n", PACKAGE_VERSION);
			return -1;
		default:
			return 2;
		}
	}
	if (optind < argc)
		return usage("'%s' is too much", argv[optind]);
	if (*d->opt.volume != '/' || *d->opt.run_dir != '/' || *d->opt.log_dir != '/')
		return usage("%s: absolute paths are wanted", "--volume, --run-dir, --log-dir");
	return 0;
}

static int dir_make(const char *path, struct csv_err *err)
{
	char buf[400];

	snprintf(buf, sizeof(buf), "%s", path);
	for (char *p = strchr(buf + 1, '/');; p = strchr(p + 1, '/')) {
		if (p)
			*p = '\0';
		if (mkdir(buf, 0755) && errno != EEXIST)
			return csv_err_set(err, -errno, "%s: %s", buf, strerror(errno));
		if (!p)
			return 0;
		*p = '/';
	}
}

static int lock(struct hvd *d, struct csv_err *err)
{
	char path[400];
	int fd;

	snprintf(path, sizeof(path), "%s/hvhostd.lock", d->opt.run_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return csv_err_set(err, -errno, "%s: %s", path, strerror(errno));
	/* Held until this process is gone: it is never closed. */
	if (flock(fd, LOCK_EX | LOCK_NB))
		return csv_err_set(err, -EBUSY, "%s: another hvhostd runs here", path);
	return 0;
}

static int on_signal(void *arg, int fd, int revents)
{
	struct hvd *d = arg;
	struct signalfd_siginfo si;

	(void)revents;
	if (read(fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		log_to(&d->log, LOG_L_NOTE, "%s: ending; QEMUs stay", strsignal((int)si.ssi_signo));
		d->stopping = true;
		loop_stop(d->loop);
	}
	return 0;
}

static void on_reap(struct timer *t)
{
	struct hvd *d = container_of(t, struct hvd, reap);

	hvd_reap(d);
	timer_set(d->sched, t, sched_now_ns(d->sched) + REAP_NS);
}

static int setup(struct hvd *d, struct csv_err *err)
{
	char path[400];
	sigset_t set;
	int rc;

	real_clock_init(&d->clock);
	real_rnd_init(&d->rnd);
	d->log = (struct logger){ .write = log_write, .max = d->opt.debug ? LOG_L_DEBUG : LOG_L_INFO };
	CDS_INIT_LIST_HEAD(&d->insts);
	d->own_inc = d->rnd.u64(&d->rnd);
	d->cpus = (unsigned)get_nprocs();
	if (!d->memory_bytes) {
		uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

		d->memory_bytes = all > 2 * RESERVE_BYTES ? all - RESERVE_BYTES : all / 2;
	}
	rc = dir_make(d->opt.run_dir, err);
	if (!rc)
		rc = dir_make(d->opt.log_dir, err);
	snprintf(path, sizeof(path), "%s/vm", d->opt.run_dir);
	if (!rc)
		rc = dir_make(path, err);
	snprintf(path, sizeof(path), "%s/ended", d->opt.run_dir);
	if (!rc)
		rc = dir_make(path, err);
	if (!rc)
		rc = lock(d, err);
	if (rc)
		return rc;
	if (!d->opt.socket) {
		snprintf(path, sizeof(path), "%s/hvhostd.sock", d->opt.run_dir);
		d->opt.socket = strdup(path);
	}
	d->sched = sched_new(&d->clock);
	if (!d->sched || !d->opt.socket)
		return csv_err_set(err, -ENOMEM, "out of memory");
	rc = loop_new(d->sched, &d->loop, err);
	if (rc)
		return rc;
	d->env = (struct env){ .sched = d->sched, .clock = &d->clock, .rnd = &d->rnd, .log = &d->log };
	d->work.l = d->loop;
	d->host.ops = &hvd_host_ops;
	d->host.env = &d->env;
	d->host.conf = vmsm_conf_default(0, 0);
	d->host.next_id = clock_boot_ns(&d->clock);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	d->sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d->sig_fd < 0 || loop_add_fd(d->loop, d->sig_fd, POLLIN, on_signal, d))
		return csv_err_set(err, -errno, "signals: %s", strerror(errno));
	rc = hvd_adopt_all(d, err);
	timer_init(&d->reap, on_reap);
	timer_set(d->sched, &d->reap, sched_now_ns(d->sched) + REAP_NS);
	hvd_frozen_begin(d);
	return rc;
}

int main(int argc, char **argv)
{
	struct csv_err err = CSV_ERR_INIT;
	static struct hvd d;
	int rc;

	priority_first();
	rc = parse(&d, argc, argv);

	if (rc)
		return rc < 0 ? 0 : rc;
	if (setup(&d, &err)) {
		fprintf(stderr, "hvhostd: %s\n", err.text);
		return 1;
	}
	if (sched_spawn(d.sched, "start", start_coro, &d))
		csv_panic("out of memory");
	loop_run(d.loop);
	hvd_line_close(&d);
	hvd_insts_leave(&d);
	/* Suspended coroutines, and threads that hang in the volume, are forgotten as by a crash. */
	fflush(NULL);
	_exit(d.stopping ? 0 : 1);
}
