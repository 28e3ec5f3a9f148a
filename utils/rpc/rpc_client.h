/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rpc_client.h - asking a daemon of this node.  Blocks; for the command-line tools.
 */
#ifndef CSVFS_UTILS_RPC_RPC_CLIENT_H
#define CSVFS_UTILS_RPC_RPC_CLIENT_H

#include "utils/rpc/rpc_msg.h"

/*
 * 0 with a reply (whatever its code says); -ECONNREFUSED nobody listens; -EACCES; -ETIMEDOUT; -EPROTO; each with err.
 * Lists that come in several replies are put together.
 */
int rpc_call(const char *service, const char *verb, const json_t *args, int timeout_ms, json_t **ret, struct csv_err *err);

#endif
