/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_proc.c - see hvhostd_proc.h.
 */
#include "hvhost/hvhostd_proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "utils/base/base.h"
#include "utils/env/priority.h"


/* ---- cgroups -------------------------------------------------------------------------------------------------------- */

static int cgroup2_root(char *ret, size_t room, struct csv_err *err)
{
	char line[1024], dir[512], type[64];
	FILE *f = fopen("/proc/self/mounts", "re");
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, "%*s %511s %63s", dir, type) == 2 && !strcmp(type, "cgroup2");
	if (f)
		fclose(f);
	if (!found)
		return csv_err_set(err, -ENOENT, "no cgroup2 is mounted: mount one at /sys/fs/cgroup, VMs need it to be killed for sure");
	snprintf(ret, room, "%s", dir);
	return 0;
}

int proc_base(const char *wanted, char *ret, size_t room, struct csv_err *err)
{
	char root[512], line[512] = "", own[512] = "";
	FILE *f;
	int rc;

	if (wanted && *wanted) {
		snprintf(ret, room, "%s", wanted);
	} else {
		rc = cgroup2_root(root, sizeof(root), err);
		if (rc)
			return rc;
		f = fopen("/proc/self/cgroup", "re");
		while (f && fgets(line, sizeof(line), f))
			if (!strncmp(line, "0::", 3))
				snprintf(own, sizeof(own), "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
		if (f)
			fclose(f);
		if (!strcmp(own, "/") || strstr(own, ".service"))
			own[0] = '\0';
		rc = snprintf(ret, room, "%s%s/csvfs-vms", root, own);
		if (rc < 0 || (size_t)rc >= room)
			return csv_err_set(err, -ENAMETOOLONG, "%s%s: too long a path", root, own);
	}
	if (mkdir(ret, 0755) && errno != EEXIST)
		return csv_err_set(err, -errno, "%s: %s; hvhostd needs a cgroup2 folder that it may write to", ret, strerror(errno));
	return 0;
}

static int cgroup_write(const char *dir, const char *file, const char *text)
{
	char path[600];
	int fd, rc;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

/* The first process in it; 0: empty. */
static pid_t cgroup_pid(const char *dir)
{
	char path[600];
	int pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%d", &pid) != 1)
		pid = 0;
	fclose(f);
	return pid;
}

void proc_each(const char *base, void (*fn)(void *arg, const char *name), void *arg)
{
	DIR *d = opendir(base);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.')
			fn(arg, e->d_name);
	if (d)
		closedir(d);
}

/* ---- its end ----------------------------------------------------------------------------------------------------------- */

static int on_pidfd(void *arg, int fd, int revents)
{
	struct proc *p = arg;
	siginfo_t si = { 0 };

	(void)revents;
	p->status = -1;
	if (p->child && !waitid(P_PIDFD, (id_t)fd, &si, WEXITED))
		p->status = si.si_code == CLD_EXITED ? si.si_status : 128 + si.si_status;
	/* Whatever it left behind (PR2). */
	cgroup_write(p->cgroup, "cgroup.kill", "1");
	loop_del_fd(p->l, fd);
	close(fd);
	p->pid_fd = -1;
	p->gone = true;
	p->exited(p);
	return 0;
}

static int watch(struct proc *p, struct csv_err *err)
{
	int rc = loop_add_fd(p->l, p->pid_fd, POLLIN, on_pidfd, p);

	return rc ? csv_err_set(err, rc, "process %d cannot be watched: %s", (int)p->pid, strerror(-rc)) : 0;
}

void proc_kill(struct proc *p)
{
	if (p->gone || p->pid_fd < 0)
		return;
	/* cgroup.kill is there from Linux 5.14 on */
	if (cgroup_write(p->cgroup, "cgroup.kill", "1"))
		syscall(SYS_pidfd_send_signal, p->pid_fd, SIGKILL, NULL, 0);
}

void proc_forget(struct proc *p)
{
	if (p->pid_fd >= 0) {
		loop_del_fd(p->l, p->pid_fd);
		close(p->pid_fd);
		p->pid_fd = -1;
	} else if (p->gone) {
		rmdir(p->cgroup);	/* EBUSY: something still dies; the next start cleans it away */
	}
}

/* ---- its beginning ------------------------------------------------------------------------------------------------------- */

/* Only what may be called between fork and exec in a process with threads. */
static void csv_noreturn child_main(char *const *argv, const int *keep, unsigned n_keep, int log_fd)
{
	int null = open("/dev/null", O_RDONLY);
	sigset_t none;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	priority_ordinary();
	dup2(null, 0);
	dup2(log_fd, 1);
	dup2(log_fd, 2);
	/* All others are O_CLOEXEC; those to keep lose it. */
	for (unsigned i = 0; i < n_keep; i++)
		fcntl(keep[i], F_SETFD, 0);
	execvp(argv[0], argv);
	dprintf(2, "%s: cannot be run: %s\n", argv[0], strerror(errno));
	_exit(127);
}

static int start(struct proc *p, char *const *argv, const int *keep, unsigned n_keep, int log_fd, int cg_fd, struct csv_err *err)
{
	struct clone_args a = { .flags = CLONE_PIDFD | CLONE_INTO_CGROUP, .pidfd = (uint64_t)(uintptr_t)&p->pid_fd, .exit_signal = SIGCHLD,
				.cgroup = (uint64_t)cg_fd };
	sigset_t all, old;
	long pid;
	int rc;

	/* A handler of ours must not run in the child. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = syscall(SYS_clone3, &a, sizeof(a));
	if (!pid)
		child_main(argv, keep, n_keep, log_fd);
	rc = pid < 0 ? -errno : 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc)
		return csv_err_set(err, rc, "%s: cannot be started in %s: %s", argv[0], p->cgroup, strerror(-rc));
	p->pid = (pid_t)pid;
	p->child = true;
	return 0;
}

int proc_spawn(struct proc *p, struct loop *l, const char *base, const char *name, char *const *argv, const int *keep, unsigned n_keep,
	       const char *log, struct csv_err *err)
{
	int log_fd, cg_fd = -1, rc = 0;

	p->l = l;
	p->pid_fd = -1;
	p->gone = p->child = false;
	snprintf(p->cgroup, sizeof(p->cgroup), "%s/%s", base, name);
	log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log_fd < 0)
		return csv_err_set(err, -errno, "%s: %s", log, strerror(errno));
	if (mkdir(p->cgroup, 0755) && errno != EEXIST)
		rc = csv_err_set(err, -errno, "%s: %s", p->cgroup, strerror(errno));
	else if (cgroup_pid(p->cgroup))
		rc = csv_err_set(err, -EEXIST, "%s: process %d lives there", p->cgroup, (int)cgroup_pid(p->cgroup));
	if (!rc) {
		cg_fd = open(p->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = cg_fd < 0 ? csv_err_set(err, -errno, "%s: %s", p->cgroup, strerror(errno)) : 0;
	}
	if (!rc)
		rc = start(p, argv, keep, n_keep, log_fd, cg_fd, err);
	if (cg_fd >= 0)
		close(cg_fd);
	close(log_fd);
	if (!rc)
		rc = watch(p, err);
	if (rc)
		rmdir(p->cgroup);
	return rc;
}

int proc_adopt(struct proc *p, struct loop *l, const char *base, const char *name, struct csv_err *err)
{
	p->l = l;
	p->pid_fd = -1;
	p->gone = p->child = false;
	snprintf(p->cgroup, sizeof(p->cgroup), "%s/%s", base, name);
	p->pid = cgroup_pid(p->cgroup);
	if (p->pid)
		p->pid_fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
	/* The number may have been used again between the two calls: then it is no longer in the cgroup. */
	if (!p->pid || p->pid_fd < 0 || cgroup_pid(p->cgroup) != p->pid) {
		if (p->pid_fd >= 0)
			close(p->pid_fd);
		p->pid_fd = -1;
		p->gone = true;
		cgroup_write(p->cgroup, "cgroup.kill", "1");
		rmdir(p->cgroup);
		return csv_err_set(err, -ESRCH, "%s: no process lives there", p->cgroup);
	}
	return watch(p, err);
}
