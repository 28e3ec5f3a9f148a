/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_msg.c - messages on the wire: encoded, and decoded by a bounded cursor.
 *
 *	header (20)	version u8, type u8, round u8, 0 u8, length of the whole u32, ring node u32, ring sequence u64
 *	body		mode u8, flags u8, name length u8, name, request id u64, record generation u64, node u32,
 *			and when DLM_F_LVB is set: value sequence u64, value (128)
 *			PROBE and CHASE: owner u64, request u64, path u64, round u32, hops u8
 *
 * A service message is header + one body; a list is header + bodies to its end.  Everything that comes in is checked here for
 * form (lengths, ranges, flags that this type may have); whether its sender may say it now is for the receiver of the message.
 */
#include "dlm/dlm_internal.h"
#include "utils/base/cursor.h"

void dlm_header_encode(struct csv_cursor *c, uint8_t type, uint8_t round, struct ring_id ring)
{
	csv_put_u8(c, DLM_WIRE_VERSION);
	csv_put_u8(c, type);
	csv_put_u8(c, round);
	csv_put_u8(c, 0);
	csv_put_u32(c, 0);
	csv_put_u32(c, ring.nodeid);
	csv_put_u64(c, ring.seq);
}

void dlm_header_finish(struct csv_cursor *c)
{
	csv_assert(!csv_cur_error(c));
	*(struct le32 *)(c->begin + 4) = le32_of(csv_cur_used(c));
}

static bool type_is_known(uint8_t t)
{
	return (t >= DLM_M_REQUEST && t < DLM_M_SERVICE_END) || (t >= DLM_M_REG && t < DLM_M_LIST_END) ||
	       (t >= DLM_M_STATE && t < DLM_M_MAX);
}

const char *dlm_header_decode(const void *buf, size_t len, struct csv_cursor *c, struct dlm_header *ret_h)
{
	uint8_t version, zero;

	csv_cursor_init_ro(c, buf, len);
	version = csv_cur_u8(c);
	ret_h->type = csv_cur_u8(c);
	ret_h->round = csv_cur_u8(c);
	zero = csv_cur_u8(c);
	ret_h->len = csv_cur_u32(c);
	ret_h->ring.nodeid = csv_cur_u32(c);
	ret_h->ring.seq = csv_cur_u64(c);
	if (csv_cur_error(c))
		return "shorter than its header";
	if (version != DLM_WIRE_VERSION)
		return "unknown protocol version";
	if (!type_is_known(ret_h->type))
		return "unknown type";
	if (zero || (ret_h->round && ret_h->type != DLM_M_END))
		return "reserved field set";
	if (ret_h->len != len)
		return "length field is not the length received";
	return NULL;
}

static uint8_t flags_allowed(uint8_t type)
{
	switch (type) {
	case DLM_M_REQUEST:
		return DLM_F_NOQUEUE | DLM_F_DIR | DLM_F_PAST | DLM_F_PR;
	case DLM_M_FORWARD:
	case DLM_M_BACK:
		return DLM_F_NOQUEUE | DLM_F_PAST | DLM_F_PR;
	case DLM_M_CONVERT:
		return DLM_F_NOQUEUE | DLM_F_PAST | DLM_F_DEMOTE;
	case DLM_M_GRANT:
		return DLM_F_LVB | DLM_F_NOW;
	case DLM_M_RECORD:
	case DLM_M_MASTER_YOU:
		return DLM_F_LVB | DLM_F_MOVED;
	case DLM_M_MOVE:
	case DLM_M_DOWN:
	case DLM_M_REPORT:
	case DLM_M_STRAY:
	case DLM_M_FWD:
		return DLM_F_LVB;
	case DLM_M_REFUSED:
		return DLM_F_FULL | DLM_F_DEADLOCK;
	default:
		return 0;
	}
}

/* The modes that a type can carry, as a bit mask; what has no mode carries NL. */
static uint8_t modes_allowed(uint8_t type)
{
	switch (type) {
	case DLM_M_REQUEST:
	case DLM_M_FORWARD:
	case DLM_M_BACK:
	case DLM_M_GRANT:
	case DLM_M_CONVERT:
	case DLM_M_BAST:
	case DLM_M_REPORT:
	case DLM_M_STRAY:
	case DLM_M_FWD:
		return 0x3e;
	case DLM_M_DOWN:
		return 0x1f;
	default:
		return 0x01;
	}
}

static bool has_probe(uint8_t type)
{
	return type == DLM_M_PROBE || type == DLM_M_CHASE;
}

const char *dlm_body_decode(struct csv_cursor *c, uint8_t type, struct dlm_msg *ret_m)
{
	struct dlm_msg *m = ret_m;

	memset(m, 0, sizeof(*m));
	m->type = type;
	m->mode = csv_cur_u8(c);
	m->flags = csv_cur_u8(c);
	m->name.len = csv_cur_u8(c);
	if (csv_cur_error(c))
		return "cut off";
	if (m->mode > DLM_EX || !(modes_allowed(type) & 1u << m->mode))
		return "mode out of range";
	if (m->flags & ~flags_allowed(type))
		return "unknown flag";
	if (!m->name.len || m->name.len > DLM_NAME_MAX)
		return "name length out of range";
	csv_cur_bytes(c, m->name.b, m->name.len);
	m->reqid = csv_cur_u64(c);
	m->gen = csv_cur_u64(c);
	m->node = csv_cur_u32(c);
	if (m->flags & DLM_F_LVB) {
		m->lvb_seq = csv_cur_u64(c);
		csv_cur_bytes(c, m->lvb, DLM_LVB_LEN);
	}
	if (has_probe(type)) {
		m->probe.owner = csv_cur_u64(c);
		m->probe.reqid = csv_cur_u64(c);
		m->probe.path = csv_cur_u64(c);
		m->probe.round = csv_cur_u32(c);
		m->probe.hops = csv_cur_u8(c);
	}
	return csv_cur_error(c) ? "cut off" : NULL;
}

void dlm_body_encode(struct csv_cursor *c, const struct dlm_msg *m)
{
	csv_put_u8(c, m->mode);
	csv_put_u8(c, m->flags);
	csv_put_u8(c, m->name.len);
	csv_put_bytes(c, m->name.b, m->name.len);
	csv_put_u64(c, m->reqid);
	csv_put_u64(c, m->gen);
	csv_put_u32(c, m->node);
	if (m->flags & DLM_F_LVB) {
		csv_put_u64(c, m->lvb_seq);
		csv_put_bytes(c, m->lvb, DLM_LVB_LEN);
	}
	if (has_probe(m->type)) {
		csv_put_u64(c, m->probe.owner);
		csv_put_u64(c, m->probe.reqid);
		csv_put_u64(c, m->probe.path);
		csv_put_u32(c, m->probe.round);
		csv_put_u8(c, m->probe.hops);
	}
	csv_assert(!csv_cur_error(c));
}

size_t dlm_msg_encode(const struct dlm_msg *m, struct ring_id ring, uint8_t ret_buf[static DLM_MSG_BYTES_MAX])
{
	struct csv_cursor c;

	csv_cursor_init(&c, ret_buf, DLM_MSG_BYTES_MAX);
	dlm_header_encode(&c, m->type, 0, ring);
	dlm_body_encode(&c, m);
	dlm_header_finish(&c);
	return csv_cur_used(&c);
}
