/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_conf.h - corosync.conf as csvctl writes and reads it, and files that are replaced whole or not at all.
 *
 * Invariants
 *  CF1  conf_parse() accepts everything that corosync accepts, and knows what csvfs needs; what it does not know it leaves alone.
 *  CF2  What conf_render() writes, conf_parse() reads back as it was; it always has crypto_cipher, crypto_hash and never two_node.
 *  CF3  conf_file_write(): after a crash the path holds the old content or the new one; a file that is there is replaced only on
 *       demand, and then kept beside it as PATH.old.
 */
#ifndef CSVFS_UTILS_TOOLS_CSVCTL_CONF_H
#define CSVFS_UTILS_TOOLS_CSVCTL_CONF_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "utils/base/err.h"
#include "utils/env/cluster.h"

#define CONF_ADDRS_MAX 8
#define CONF_FILE_MAX (256u * 1024)
#define CONF_KEY_BYTES 256		/* of a key made here */
#define CONF_KEY_MIN 128		/* what corosync takes */
#define CONF_KEY_MAX 4096

#define CONF_COROSYNC "/etc/corosync/corosync.conf"
#define CONF_AUTHKEY "/etc/corosync/authkey"
#define CONF_FENCE "/etc/csvfs/fence.conf"

struct conf_node {
	uint32_t nodeid;
	char name[64];
	unsigned n_addrs;
	char addr[CONF_ADDRS_MAX][64];
};
struct conf {
	char cluster[64], transport[16], cipher[32], hash[32], keyfile[PATH_MAX], provider[64];
	char qdevice[32], qdevice_host[256];		/* model; empty: none */
	uint32_t token_ms, consensus_ms, expected_votes;	/* 0: not given */
	bool two_node, secauth;
	unsigned n;
	struct conf_node node[CLUSTER_NODES_MAX];
};
/* 0; -EINVAL, -E2BIG with err: path, line, what to write. */
int conf_parse(const char *text, const char *path, struct conf *ret, struct csv_err *err) csv_must_check;
/* Terminated text to be freed; NULL: out of memory.  `note`: a line for a comment at the top, or NULL. */
char *conf_render(const struct conf *c, const char *note);
const struct conf_node *conf_node_find(const struct conf *c, const char *name);		/* NULL: none */
/* Are both cipher and hash on? */
bool conf_has_crypto(const struct conf *c);
/* What Debian's package brings before anybody has touched it: a cluster of one, on the loopback. */
bool conf_is_example(const struct conf *c);
/* What corosync makes of `token`: more for each node beyond two. */
uint32_t conf_token_ms(const struct conf *c);
/* A name of cluster or node that is safe everywhere it will stand. */
bool conf_name_ok(const char *s);

/* Terminated content to be freed.  0, -ENOENT, -EFBIG (more than `max`), -errno with err. */
int conf_file_read(const char *path, size_t max, char **ret_data, size_t *ret_n, struct csv_err *err) csv_must_check;
/*
 * 0, or -errno with err; -EEXIST: it is there, and `replace` is not set.  The directory is made when it is missing.
 * A file that is there and the same is left alone but for its mode.
 */
int conf_file_write(const char *path, const void *data, size_t n, mode_t mode, bool replace, struct csv_err *err) csv_must_check;

#endif
