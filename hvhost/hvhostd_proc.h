/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_proc.h - a process that outlives us: in a cgroup of its own, held by a pidfd, found again after our restart.
 *
 * Invariants
 *  PR1 A child is in its cgroup before its first instruction, so killing the cgroup leaves nothing of it, whatever it forked.
 *  PR2 Gone means: the pidfd says so *and* the cgroup is empty.  Never a pid alone: numbers are used again.
 *  PR3 Nothing here ends a child but proc_kill(): neither our end nor our crash.
 *
 * Control thread.
 */
#ifndef CSVFS_HVHOST_HVHOSTD_PROC_H
#define CSVFS_HVHOST_HVHOSTD_PROC_H

#include <stdbool.h>
#include <sys/types.h>

#include "utils/base/err.h"
#include "utils/env/loop.h"

struct proc {
	struct loop *l;
	char cgroup[512];		/* its folder */
	pid_t pid;
	int pid_fd;			/* -1: none, or gone */
	bool child, gone;
	int status;			/* of waitid when it was our child, else -1 */
	void (*exited)(struct proc *p);	/* once, from the loop */
};

/*
 * The folder in which children get theirs, made when missing: below our own cgroup, or, when that is a service of systemd (which
 * would kill them with us), in /csvfs-vms of the hierarchy.  -ENOENT: no cgroup2 here, with err.
 */
int proc_base(const char *wanted, char *ret, size_t room, struct csv_err *err) csv_must_check;
/* `keep`: descriptors that the child gets at the same number; stdout and stderr go to `log` (appended). */
int proc_spawn(struct proc *p, struct loop *l, const char *base, const char *name, char *const *argv, const int *keep, unsigned n_keep,
	       const char *log, struct csv_err *err) csv_must_check;
/* Takes over what lives in BASE/NAME.  -ESRCH: nothing does (the folder is removed). */
int proc_adopt(struct proc *p, struct loop *l, const char *base, const char *name, struct csv_err *err) csv_must_check;
/* SIGKILL to all of the cgroup; exited() follows.  Harmless when it is gone. */
void proc_kill(struct proc *p);
/* Forgets it (it lives on when it lives), or, when it is gone, removes its cgroup. */
void proc_forget(struct proc *p);
/* Calls fn with the name of every folder in BASE. */
void proc_each(const char *base, void (*fn)(void *arg, const char *name), void *arg);

#endif
