/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rpc_msg.c - see rpc_msg.h.
 */
#include "utils/rpc/rpc_msg.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum rpc_code rpc_code_of(int err)
{
	switch (err < 0 ? -err : err) {
	case 0: return RPC_OK;
	case ENOENT: case ENODEV: return RPC_NOT_FOUND;
	case EEXIST: case EBUSY: case EROFS: case CSV_E_BUSY_ELSEWHERE: case CSV_E_WITHDRAWN: return RPC_CONFLICT;
	case EACCES: case EPERM: return RPC_PERMISSION;
	case CSV_E_NOQUORUM: return RPC_NO_QUORUM;
	case ETIMEDOUT: case EAGAIN: return RPC_TIMEOUT;
	case ECANCELED: case EINTR: return RPC_CANCELLED;
	case CSV_E_UNSUPPORTED: case EOPNOTSUPP: return RPC_UNSUPPORTED;
	case EINVAL: return RPC_USAGE;
	default: return RPC_FAILED;
	}
}

/* noun.verb: lower case letters, digits, '-', one '.'. */
static bool is_verb(const char *s, size_t n)
{
	size_t dots = 0;

	if (!n || n > RPC_VERB_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		dots += s[i] == '.';
		if (!islower((unsigned char)s[i]) && !isdigit((unsigned char)s[i]) && s[i] != '-' && s[i] != '.')
			return false;
	}
	return dots == 1 && s[0] != '.' && s[n - 1] != '.';
}

static json_t *load(const void *buf, size_t len, size_t max, struct csv_err *err)
{
	json_error_t je;
	json_t *j;

	if (!len || len > max) {
		csv_err_set(err, -EINVAL, "%zu bytes long, must be 1 to %zu", len, max);
		return NULL;
	}
	j = json_loadb(buf, len, JSON_REJECT_DUPLICATES, &je);
	if (!j)
		csv_err_set(err, -EINVAL, "not JSON: byte %d: %s", je.position, je.text);
	else if (!json_is_object(j)) {
		csv_err_set(err, -EINVAL, "not a JSON object");
		json_decref(j);
		j = NULL;
	}
	return j;
}

static int decode_request(json_t *j, struct rpc_request *r, struct csv_err *err)
{
	json_t *verb = json_object_get(j, "verb"), *args = json_object_get(j, "args");
	const char *key;
	json_t *v;

	json_object_foreach(j, key, v)
		if (strcmp(key, "verb") && strcmp(key, "args"))
			return csv_err_set(err, -EINVAL, "unknown key \"%.40s\", must be verb or args", key);
	if (!json_is_string(verb))
		return csv_err_set(err, -EINVAL, "verb: must be a text");
	if (!is_verb(json_string_value(verb), json_string_length(verb)))
		return csv_err_set(err, -EINVAL, "verb: \"%.64s\", must be noun.verb in at most %u characters", json_string_value(verb),
				   RPC_VERB_MAX);
	if (args && !json_is_object(args))
		return csv_err_set(err, -EINVAL, "args: must be an object");
	r->args = args ? json_incref(args) : json_object();
	if (!r->args)
		return csv_err_set(err, -ENOMEM, "out of memory");
	memcpy(r->verb, json_string_value(verb), json_string_length(verb) + 1);
	return 0;
}

int rpc_request_decode(const void *buf, size_t len, struct rpc_request *ret, struct csv_err *err)
{
	struct rpc_request r = { .args = NULL };
	json_t *j = load(buf, len, RPC_REQUEST_MAX, err);
	int rc;

	if (!j)
		rc = -EINVAL;
	else
		rc = decode_request(j, &r, err);
	json_decref(j);
	if (rc) {
		csv_err_prefix(err, "request");
		return rc;
	}
	*ret = r;
	return 0;
}

void rpc_request_done(struct rpc_request *r)
{
	json_decref(r->args);
	r->args = NULL;
}

char *rpc_request_encode(const char *verb, const json_t *args)
{
	json_t *j;
	char *text;

	if (!is_verb(verb, strlen(verb)))
		return NULL;
	j = args ? json_pack("{s:s, s:O}", "verb", verb, "args", args) : json_pack("{s:s}", "verb", verb);
	text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	return text;
}

json_t *rpc_reply_new(const char *kind)
{
	return json_pack("{s:i, s:s, s:s, s:[], s:[]}", "code", RPC_OK, "message", "", "kind", kind, "items", "warnings");
}

json_t *rpc_reply_error(enum rpc_code code, const char *fmt, ...)
{
	char text[sizeof(((struct csv_err *)0)->text)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return json_pack("{s:i, s:s%, s:s, s:[], s:[]}", "code", (int)code, "message", text, strlen(text), "kind", "error", "items",
			 "warnings");
}

void rpc_reply_warn(json_t *reply, const char *fmt, ...)
{
	char text[sizeof(((struct csv_err *)0)->text)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_array_append_new(json_object_get(reply, "warnings"), json_string(text));
}

void rpc_reply_add_take(json_t *reply, json_t *item)
{
	if (item)
		json_array_append_new(json_object_get(reply, "items"), item);
}

enum rpc_code rpc_reply_code(const json_t *reply)
{
	return (enum rpc_code)json_integer_value(json_object_get(reply, "code"));
}

int rpc_reply_decode(const void *buf, size_t len, json_t **ret, struct csv_err *err)
{
	json_t *j = load(buf, len, RPC_REPLY_MAX, err), *code;

	if (!j) {
		csv_err_prefix(err, "reply");
		return -EPROTO;
	}
	code = json_object_get(j, "code");
	if (!json_is_integer(code) || json_integer_value(code) < 0 || json_integer_value(code) > 255 ||
	    !json_is_string(json_object_get(j, "message")) || !json_is_string(json_object_get(j, "kind")) ||
	    !json_is_array(json_object_get(j, "items")) || !json_is_array(json_object_get(j, "warnings"))) {
		json_decref(j);
		return csv_err_set(err, -EPROTO, "reply: code, message, kind, items or warnings is missing or of the wrong type");
	}
	*ret = j;
	return 0;
}
