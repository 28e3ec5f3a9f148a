/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rpc_server.h - a daemon's control socket: requests over libqb's IPC, answered when the daemon is ready to.
 *
 * Invariants
 *  RS1 Only a process of the uid the server was made for may connect; everybody else is refused by name and counted.
 *  RS2 One request at a time on a connection; a second before the answer ends the connection.
 *  RS3 Every request handed out is answered exactly once, by rpc_call_reply_take(); the client may be gone by then.
 *  RS4 A request that is no request is answered with code 2 and the reason, counted, and never handed out.
 *
 * Threads: the control thread only; requests are handed out from the loop's turn, so awaits of what they start go on by themselves.
 */
#ifndef CSVFS_UTILS_RPC_RPC_SERVER_H
#define CSVFS_UTILS_RPC_RPC_SERVER_H

#include <sys/types.h>

#include "utils/env/log.h"
#include "utils/env/loop.h"
#include "utils/rpc/rpc_msg.h"

struct rpc_server;
struct rpc_call;

struct rpc_server_stats { uint64_t connections, refused_uid, refused_many, calls, bad_requests, lost_clients, too_long; };

/* At most one loop a process (libqb's default loop).  `request` must answer each call some time.  0 or -errno with err. */
int rpc_server_new(struct loop *l, struct logger *log, const char *name, uid_t allowed, void (*request)(void *arg, struct rpc_call *c),
		   void *arg, struct rpc_server **ret, struct csv_err *err);
/* Calls that are open are answered into the void later; the last of them frees the memory. */
void rpc_server_free(struct rpc_server *s);
void rpc_server_stats(const struct rpc_server *s, struct rpc_server_stats *ret);
unsigned rpc_server_open_calls(const struct rpc_server *s);

const char *rpc_call_verb(const struct rpc_call *c);
const json_t *rpc_call_args(const struct rpc_call *c);
/* NULL: out of memory; the client is told so.  The call is gone. */
void rpc_call_reply_take(struct rpc_call *c, json_t *reply);

#endif
