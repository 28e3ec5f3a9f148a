/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_admin.h - what cluster init, join and validate share: the configuration of a node as a set of files, bundles of it, and
 * which of the configured nodes this one is.
 *
 * Invariants
 *  AD1  admin_files_put() writes all files or, when one that is there stands in the way, none; corosync.conf comes last: it is
 *       what makes the others count.
 *  AD2  A key is never shown, never readable by others (0400), and made by the kernel's random numbers.
 */
#ifndef CSVFS_UTILS_TOOLS_CSVCTL_ADMIN_H
#define CSVFS_UTILS_TOOLS_CSVCTL_ADMIN_H

#include "utils/tools/csvctl.h"
#include "utils/tools/csvctl_conf.h"

enum { ADMIN_KEY, ADMIN_FENCE, ADMIN_COROSYNC, ADMIN_FILES };
struct admin_file { char path[PATH_MAX]; mode_t mode; char *data; size_t n; bool secret; };
struct admin_set { struct admin_file file[ADMIN_FILES]; };
/* Paths and modes, below `root` (NULL or "": /); no content yet. */
void admin_set_init(struct admin_set *s, const char *root);
void admin_set_done(struct admin_set *s);
/* What is there, of all three; RPC_OK or an error with its message.  A missing fence.conf is an empty one. */
enum rpc_code admin_set_read(struct cc *cc, struct admin_set *s);
/* By --dry-run and --force: an item each into the reply. */
enum rpc_code admin_set_put(struct cc *cc, struct admin_set *s);
/* Names the nodes that have none (seen: by their place in the list). */
void admin_fence_warn(struct cc *cc, const struct conf *c, const bool *seen);

/* csvctl_bundle.c: the set as one text, and back. */
char *admin_bundle_encode(const struct admin_set *s, const char *cluster);
int admin_bundle_decode(const char *text, const char *from, struct admin_set *s, struct csv_err *err) csv_must_check;
/*
 * From FILE, "-", or by ssh from a HOST.  *ret_clock_ms: how far the host's clock is ahead of ours, at most this much is not known;
 * INT64_MIN when it was no host.
 */
enum rpc_code admin_bundle_fetch(struct cc *cc, const char *from, struct admin_set *s, int64_t *ret_clock_ms, int64_t *ret_unsure_ms);

/* Members and quorum as corosync has them now; false: it does not answer. */
struct admin_seen { bool quorate; uint32_t n, id[CLUSTER_NODES_MAX]; bool got; };
bool admin_look(struct admin_seen *ret);

/* Does this host have the address (or, with a name, one of its addresses)?  -ENOENT with err: it does not resolve. */
int admin_addr_local(const char *addr, bool *ret_local, struct csv_err *err);
/* The node that this host is, by address, NULL with err: none, or not clear. */
const struct conf_node *admin_self(const struct conf *c, struct csv_err *err);
/* What cluster init, join and validate will not have: two_node and two votes without a quorum device.  The text says what to do. */
bool admin_votes_bad(const struct conf *c, char *ret, size_t size);

/* ---- validate: csvctl_validate.c, csvctl_validate_host.c ---- */
enum val_result { VAL_OK, VAL_WARNING, VAL_WRONG };
struct val { struct cc *cc; struct conf *conf; unsigned n[3]; };
/* action: what to do; NULL for VAL_OK. */
void val_add(struct val *v, enum val_result r, const char *object, const char *check, const char *action, const char *reason, ...)
	csv_printf_like(6, 7);
/* Kernel, FUSE, QEMU, clock, services, programs of this host. */
void val_host(struct val *v);
void val_device(struct val *v, const char *path);
/* The last line of what a program says, and its exit code (127: it is not there, -1: it cannot be run). */
int val_run(char *ret, size_t size, const char *const *argv);

#endif
