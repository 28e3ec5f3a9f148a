/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_mount.h - is the volume alive on this node?  What a mount says of itself, and its csvfsd of it, put into one word with the reason
 * and what to do.
 *
 *	ALIVE	mounted, and it answers		WAITS	mounted; it waits for something that ends by itself or by a person's word
 *	JOINING	csvfsd is at it, not mounted yet	NONE	nothing is mounted there	DEAD	mounted, and nobody serves it
 *
 * Only ALIVE and WAITS are a place for virtual machines.  Pure, but for mount_is_there() and mount_ask(), which may be called from any thread.
 */
#ifndef CSVFS_HVHOST_HVHOSTD_MOUNT_H
#define CSVFS_HVHOST_HVHOSTD_MOUNT_H

#include <stdbool.h>
#include <stddef.h>

enum mount_state { MOUNT_UNKNOWN = 0, MOUNT_ALIVE, MOUNT_WAITS, MOUNT_JOINING, MOUNT_NONE, MOUNT_DEAD };

struct mount_facts {
	bool mounted;			/* a csvfs is, at the folder */
	int statfs_rc;			/* of the folder; -EINPROGRESS: it has not answered yet */
	int rpc_rc;			/* of its csvfsd: 0 it answered; -ENOENT none ever served the folder; -ECONNREFUSED it is gone; -ETIMEDOUT */
	char state[16];			/* what it says: JOINING, ACTIVE, PAUSED, WITHDRAWN */
	char why[400];
};

struct mount_report {
	enum mount_state state;
	char reason[600];		/* for people; empty: ALIVE */
	char command[300];		/* what to do; may be empty */
};

const char *mount_state_name(enum mount_state st);	/* "alive", "waits", "joining", "none", "dead", "unknown" */
bool mount_is_place(enum mount_state st);
void mount_judge(const char *dir, const struct mount_facts *f, struct mount_report *ret);

/* `dir`, an absolute path, as the kernel names mounts: links are followed, without asking the mount itself. */
void mount_dir(const char *dir, char *ret, size_t size);
/* Does `mountinfo` (a file as /proc/self/mountinfo) have a csvfs at `dir` on top? */
bool mount_is_there(const char *mountinfo, const char *dir);
/* Blocks up to timeout_ms: asks the csvfsd that serves `dir`, by what the daemons wrote into run_dir.  Sets rpc_rc, state, why. */
void mount_ask(const char *run_dir, const char *dir, int timeout_ms, struct mount_facts *f);

#endif
