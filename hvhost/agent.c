/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * agent.c - see agent.h.
 */
#include "hvhost/agent.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NAME_MAX_BYTES 63u

bool agent_vm_name_valid(const char *name)
{
	size_t n = strlen(name);

	if (!n || n > AGENT_VM_NAME_MAX || name[0] == '.' || name[0] == '-')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isascii((unsigned char)name[i]) || (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i])))
			return false;
	return true;
}

json_t *agent_u64(uint64_t v)
{
	char text[20];

	snprintf(text, sizeof(text), "%016" PRIx64, v);
	return json_string(text);
}

static int u64_parse(const char *s, uint64_t *ret)
{
	uint64_t v = 0;

	if (strlen(s) != 16)
		return -EPROTO;
	for (; *s; s++) {
		if (!isxdigit((unsigned char)*s))
			return -EPROTO;
		v = v << 4 | (unsigned)(isdigit((unsigned char)*s) ? *s - '0' : tolower((unsigned char)*s) - 'a' + 10);
	}
	*ret = v;
	return 0;
}

int agent_u64_get(const json_t *o, const char *key, uint64_t *ret, struct csv_err *err)
{
	const char *s = json_string_value(json_object_get(o, key));

	if (!s || u64_parse(s, ret))
		return csv_err_set(err, -EPROTO, "%s: 16 hexadecimal digits are wanted", key);
	return 0;
}

int agent_text(const json_t *body, const char *key, size_t max, const char **ret, struct csv_err *err)
{
	const json_t *v = json_object_get(body, key);

	if (!json_is_string(v) || !json_string_length(v) || json_string_length(v) > max)
		return csv_err_set(err, -EPROTO, "%s: %s", key, !v ? "is missing" : !json_is_string(v) ? "a text is wanted" :
				   json_string_length(v) ? "too long" : "is empty");
	*ret = json_string_value(v);
	return 0;
}

int agent_int(const json_t *body, const char *key, int64_t min, int64_t max, int64_t *ret, struct csv_err *err)
{
	const json_t *v = json_object_get(body, key);

	if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max)
		return csv_err_set(err, -EPROTO, "%s: %s a whole number from %" PRId64 " to %" PRId64 " is wanted", key,
				   v ? "" : "is missing:", min, max);
	*ret = json_integer_value(v);
	return 0;
}

int agent_int_or(const json_t *body, const char *key, int64_t min, int64_t max, int64_t otherwise, int64_t *ret, struct csv_err *err)
{
	if (json_object_get(body, key))
		return agent_int(body, key, min, max, ret, err);
	*ret = otherwise;
	return 0;
}

/* ---- envelopes ------------------------------------------------------------------------------------------------------- */

static int body_of(json_t *text, const char *key, json_t **ret, struct csv_err *err)
{
	json_t *b = json_object_get(text, key);

	if (!b) {
		b = json_object();
		if (!b || json_object_set_new(text, key, b))
			return csv_err_set(err, -ENOMEM, "out of memory");
	}
	if (!json_is_object(b))
		return csv_err_set(err, -EPROTO, "%s: an object is wanted", key);
	*ret = b;
	return 0;
}

int agent_msg_decode(json_t *text, struct agent_msg *ret, struct csv_err *err)
{
	struct agent_msg m = { .message = "" };
	int64_t id = 0, code = 0;
	int rc;

	if (json_object_get(text, "cmd")) {
		m.kind = AGENT_CMD;
		rc = agent_text(text, "cmd", NAME_MAX_BYTES, &m.name, err);
		if (!rc)
			rc = agent_int(text, "id", 0, INT64_MAX, &id, err);
		if (!rc && json_object_get(text, "ring")) {
			m.has_ring = true;
			rc = agent_u64_get(text, "ring", &m.ring, err);
		}
		if (!rc)
			rc = body_of(text, "args", &m.body, err);
	} else if (json_object_get(text, "reply")) {
		m.kind = AGENT_REPLY;
		rc = agent_int(text, "reply", 0, INT64_MAX, &id, err);
		if (!rc)
			rc = agent_int(text, "code", 0, 255, &code, err);
		if (!rc && json_object_get(text, "message")) {
			if (json_is_string(json_object_get(text, "message")))
				m.message = json_string_value(json_object_get(text, "message"));
			else
				rc = csv_err_set(err, -EPROTO, "message: a text is wanted");
		}
		if (!rc)
			rc = body_of(text, "data", &m.body, err);
	} else if (json_object_get(text, "event")) {
		m.kind = AGENT_EVENT;
		rc = agent_text(text, "event", NAME_MAX_BYTES, &m.name, err);
		if (!rc)
			rc = agent_int(text, "seq", 0, INT64_MAX, &id, err);
		if (!rc)
			rc = body_of(text, "data", &m.body, err);
	} else {
		return csv_err_set(err, -EPROTO, "neither cmd nor reply nor event");
	}
	if (rc)
		return rc;
	m.id = (uint64_t)id;
	m.code = (int)code;
	*ret = m;
	return 0;
}

static json_t *or_empty(json_t *take)
{
	return take ? take : json_object();
}

json_t *agent_cmd_new(const char *name, uint64_t id, uint64_t ring, json_t *args_take)
{
	return json_pack("{s:s, s:I, s:o, s:o}", "cmd", name, "id", (json_int_t)id, "ring", agent_u64(ring), "args", or_empty(args_take));
}

json_t *agent_reply_new(uint64_t id, int code, const char *message, json_t *data_take)
{
	return json_pack("{s:I, s:i, s:s, s:o}", "reply", (json_int_t)id, "code", code, "message", message, "data", or_empty(data_take));
}

json_t *agent_event_new(const char *name, uint64_t seq, uint64_t boot_ms, json_t *data_take)
{
	return json_pack("{s:s, s:I, s:I, s:o}", "event", name, "seq", (json_int_t)seq, "boot_ms", (json_int_t)boot_ms, "data",
			 or_empty(data_take));
}
