/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lease_json.c - see lease_json.h.
 */
#include "migrator/lease_json.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct in { const json_t *o; struct csv_err *err; int rc; };

static json_t *hex(uint64_t v)
{
	char text[20];

	snprintf(text, sizeof(text), "%016" PRIx64, v);
	return json_string(text);
}

static uint64_t get_hex(struct in *in, const char *key)
{
	const char *s = json_string_value(json_object_get(in->o, key)), *p = s;
	uint64_t v = 0;

	for (; p && isxdigit((unsigned char)*p); p++)
		v = v << 4 | (unsigned)(isdigit((unsigned char)*p) ? *p - '0' : tolower((unsigned char)*p) - 'a' + 10);
	if (!in->rc && (!p || *p || p - s != 16))
		in->rc = csv_err_set(in->err, -EPROTO, "%s: 16 hexadecimal digits are wanted", key);
	return in->rc ? 0 : v;
}

static uint64_t get_int(struct in *in, const char *key, uint64_t max)
{
	const json_t *v = json_object_get(in->o, key);

	if (!in->rc && (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max))
		in->rc = csv_err_set(in->err, -EPROTO, "%s: a whole number from 0 to %" PRIu64 " is wanted", key, max);
	return in->rc ? 0 : (uint64_t)json_integer_value(v);
}

static bool get_bool(struct in *in, const char *key)
{
	const json_t *v = json_object_get(in->o, key);

	if (!in->rc && !json_is_boolean(v))
		in->rc = csv_err_set(in->err, -EPROTO, "%s: true or false is wanted", key);
	return json_is_true(v);
}

static void get_vm(struct in *in, char *ret, size_t room)
{
	const char *s = json_string_value(json_object_get(in->o, "vm"));

	if (!in->rc && (!s || !lease_vm_valid(s) || strlen(s) >= room))
		in->rc = csv_err_set(in->err, -EPROTO, "vm: the name of a VM is wanted");
	if (!in->rc)
		memcpy(ret, s, strlen(s) + 1);
}

/* A name out of an enumeration's, which begins at `first`. */
static unsigned get_name(struct in *in, const char *key, const char *(*name)(unsigned v), unsigned first, unsigned end)
{
	const char *s = json_string_value(json_object_get(in->o, key));

	for (unsigned v = first; s && v < end; v++)
		if (!strcmp(s, name(v)))
			return v;
	if (!in->rc)
		in->rc = csv_err_set(in->err, -EPROTO, "%s: '%.40s' is none that is known", key, s ? s : "");
	return 0;
}

static const char *state_name(unsigned v)
{
	return v == LEASE_NONE ? "NONE" : lease_state_name((enum lease_state)v);
}

static const char *want_name(unsigned v)
{
	return lease_want_name((enum lease_want)v);
}

static const char *move_name(unsigned v)
{
	return lease_move_name((enum lease_move)v);
}

json_t *lease_json_encode(const struct lease *l)
{
	return json_pack("{s:s, s:I, s:I, s:s, s:s, s:s, s:i, s:b, s:b, s:b, s:b, s:i, s:i, s:I, s:o, s:I, s:o, s:I, s:o}", "vm", l->vm, "version",
			 (json_int_t)l->version, "epoch", (json_int_t)l->epoch, "state", state_name(l->state), "was", state_name(l->was),
			 "want", want_name(l->want), "reason", (int)l->reason, "ha", !!(l->flags & LEASE_HA), "moved",
			 !!(l->flags & LEASE_MOVED), "returned", !!(l->flags & LEASE_RETURNED), "guessed", !!(l->flags & LEASE_GUESSED), "priority",
			 (int)l->priority, "failures", (int)l->failures, "owner", (json_int_t)l->owner, "owner_inc", hex(l->owner_inc), "peer", (json_int_t)l->peer, "peer_inc", hex(l->peer_inc),
			 "config", (json_int_t)l->config, "txid", hex(l->txid));
}

int lease_json_decode(const json_t *o, struct lease *ret, struct csv_err *err)
{
	struct in in = { o, err, 0 };
	struct lease l;

	memset(&l, 0, sizeof(l));
	get_vm(&in, l.vm, sizeof(l.vm));
	l.version = get_int(&in, "version", INT64_MAX);
	l.epoch = get_int(&in, "epoch", INT64_MAX);
	l.state = (uint8_t)get_name(&in, "state", state_name, LEASE_NONE, LEASE_STATE_END);
	l.was = (uint8_t)get_name(&in, "was", state_name, LEASE_NONE, LEASE_STATE_END);
	l.want = (uint8_t)get_name(&in, "want", want_name, 0, LEASE_WANT_END);
	l.reason = (uint8_t)get_int(&in, "reason", LEASE_REASON_END - 1);
	l.flags = (uint8_t)((get_bool(&in, "ha") ? LEASE_HA : 0) | (get_bool(&in, "moved") ? LEASE_MOVED : 0) |
			    (get_bool(&in, "returned") ? LEASE_RETURNED : 0) | (get_bool(&in, "guessed") ? LEASE_GUESSED : 0));
	l.priority = (uint8_t)get_int(&in, "priority", UINT8_MAX);
	l.failures = (uint16_t)get_int(&in, "failures", UINT16_MAX);
	l.owner = (uint32_t)get_int(&in, "owner", UINT32_MAX);
	l.owner_inc = get_hex(&in, "owner_inc");
	l.peer = (uint32_t)get_int(&in, "peer", UINT32_MAX);
	l.peer_inc = get_hex(&in, "peer_inc");
	l.config = (uint32_t)get_int(&in, "config", UINT32_MAX);
	l.txid = get_hex(&in, "txid");
	if (!in.rc)
		*ret = l;
	return in.rc;
}

json_t *lease_cas_json_encode(const struct lease_cas *c)
{
	return json_pack("{s:s, s:I, s:s, s:s, s:i, s:b, s:i, s:I, s:o, s:I, s:o}", "vm", c->vm, "version", (json_int_t)c->version, "move",
			 move_name(c->move), "want", want_name(c->want), "reason", (int)c->reason, "ha", !!(c->flags & LEASE_HA),
			 "priority", (int)c->priority, "node", (json_int_t)c->node, "node_inc", hex(c->node_inc), "config",
			 (json_int_t)c->config, "txid", hex(c->txid));
}

int lease_cas_json_decode(const json_t *o, struct lease_cas *ret, struct csv_err *err)
{
	struct in in = { o, err, 0 };
	struct lease_cas c;

	memset(&c, 0, sizeof(c));
	get_vm(&in, c.vm, sizeof(c.vm));
	c.version = get_int(&in, "version", INT64_MAX);
	c.move = (uint8_t)get_name(&in, "move", move_name, LEASE_CREATE, LEASE_MOVE_END);
	c.want = (uint8_t)get_name(&in, "want", want_name, 0, LEASE_WANT_END);
	c.reason = (uint8_t)get_int(&in, "reason", LEASE_REASON_END - 1);
	c.flags = get_bool(&in, "ha") ? LEASE_HA : 0;
	c.priority = (uint8_t)get_int(&in, "priority", UINT8_MAX);
	c.node = (uint32_t)get_int(&in, "node", UINT32_MAX);
	c.node_inc = get_hex(&in, "node_inc");
	c.config = (uint32_t)get_int(&in, "config", UINT32_MAX);
	c.txid = get_hex(&in, "txid");
	if (!in.rc)
		*ret = c;
	return in.rc;
}
