/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rpc_msg.h - what csvctl and the daemons say to each other on a node's control sockets: JSON texts.
 *
 *	request	{"verb": "volume.show", "args": {...}}			args may be left out
 *	reply	{"code": 0, "message": "", "kind": "volume", "items": [...], "warnings": [...], ...}
 *
 * `code` is an exit code of csvctl (enum rpc_code), `message` is for people and empty when code is 0.  Further keys of a reply
 * (for instance "stats") appear at the top of csvctl's JSON; "next" says where a list that was too long for one reply goes on.
 *
 * Requests come from outside: length, depth, keys and types are checked before anything is believed.  Any thread.
 */
#ifndef CSVFS_UTILS_RPC_RPC_MSG_H
#define CSVFS_UTILS_RPC_RPC_MSG_H

#include <jansson.h>
#include <stddef.h>

#include "utils/base/err.h"

#define RPC_REQUEST_MAX (64u * 1024)
#define RPC_REPLY_MAX (1024u * 1024)
#define RPC_VERB_MAX 63u
#define RPC_PAGE_ITEMS 1000u		/* of a list in one reply */

/* Exit codes of csvctl; they keep their meaning for ever. */
enum rpc_code {
	RPC_OK = 0, RPC_FAILED = 1, RPC_USAGE = 2, RPC_NOT_FOUND = 3, RPC_CONFLICT = 4, RPC_PERMISSION = 5, RPC_NO_QUORUM = 6,
	RPC_TIMEOUT = 7, RPC_PARTIAL = 8, RPC_REFUSED = 9, RPC_CANCELLED = 10, RPC_NEEDS_PROOF = 11, RPC_UNSUPPORTED = 12,
	RPC_ACCEPTED = 13, RPC_BUG = 70, RPC_INTERRUPTED = 130,
};
/* What an error of ours (-errno, -CSV_E_*) is as an exit code. */
enum rpc_code rpc_code_of(int err);

struct rpc_request { char verb[RPC_VERB_MAX + 1]; json_t *args; /* an object, never NULL */ };
/* 0; -EINVAL or -ENOMEM with err.  The request's memory is given back by rpc_request_done(). */
int rpc_request_decode(const void *buf, size_t len, struct rpc_request *ret, struct csv_err *err) csv_must_check;
void rpc_request_done(struct rpc_request *r);
/* Terminated text to be freed; NULL: out of memory or a verb that cannot be one.  `args` may be NULL. */
char *rpc_request_encode(const char *verb, const json_t *args);

/* New references; NULL out of memory. */
json_t *rpc_reply_new(const char *kind);			/* code 0, no items, no warnings */
json_t *rpc_reply_error(enum rpc_code code, const char *fmt, ...) csv_printf_like(2, 3);
void rpc_reply_warn(json_t *reply, const char *fmt, ...) csv_printf_like(2, 3);
void rpc_reply_add_take(json_t *reply, json_t *item);		/* an item; NULL is ignored */
/* A reply that has all it must have.  0; -EPROTO, -ENOMEM with err. */
int rpc_reply_decode(const void *buf, size_t len, json_t **ret, struct csv_err *err) csv_must_check;
enum rpc_code rpc_reply_code(const json_t *reply);

#endif
