/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fence_conf.h - which fence agent switches a node off, and what it is told.
 *
 *	# comment
 *	[node 3]
 *	agent=/usr/sbin/fence_ipmilan
 *	timeout=60
 *	ip=192.0.2.13		<- this and every other key goes to the agent on stdin
 *
 * Any thread.
 */
#ifndef CSVFS_UTILS_ENV_FENCE_CONF_H
#define CSVFS_UTILS_ENV_FENCE_CONF_H

#include <limits.h>
#include <stdint.h>
#include <stdio.h>

#include "utils/base/err.h"

/* One node's section of the file. */
struct fence_conf {
	char agent[PATH_MAX];
	unsigned timeout_s;
	char stdin_keys[4096];		/* key=value lines for the agent: no other control characters, and no action */
};
#define FENCE_TIMEOUT_S 60

/* Blocking.  0 or -errno with err: file, line, what to do. */
int fence_conf_read(const char *path, uint32_t nodeid, struct fence_conf *ret, struct csv_err *err);
/* The same of an open file; `path` is its name for people. */
int fence_conf_parse(FILE *f, const char *path, uint32_t nodeid, struct fence_conf *ret, struct csv_err *err);

#endif
