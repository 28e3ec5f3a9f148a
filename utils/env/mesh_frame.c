/*
 * mesh_frame.c - encoding and checked decoding of frames.  Any thread.
 */
#include "utils/env/mesh_frame.h"

#include "utils/base/base.h"
#include "utils/base/crc32c.h"
#include "utils/base/cursor.h"
#include "utils/env/mesh.h"

#define CRC_AT 8

void mesh_frame_encode(const struct mesh_frame *f, uint32_t msg_crc, uint8_t *ret)
{
	struct csv_cursor c;
	struct le32 crc;

	csv_cursor_init(&c, ret, MESH_HEADER_BYTES);
	csv_put_u32(&c, MESH_FRAME_MAGIC);
	csv_put_u8(&c, f->version);
	csv_put_u8(&c, f->type);
	csv_put_u8(&c, f->chan);
	csv_put_u8(&c, 0);
	csv_put_u32(&c, 0);
	csv_put_u32(&c, MESH_HEADER_BYTES + f->len);
	csv_put_u64(&c, f->lockspace);
	csv_put_u64(&c, f->ring.seq);
	csv_put_u32(&c, f->ring.nodeid);
	csv_put_u32(&c, f->from);
	csv_put_u64(&c, f->incarnation);
	csv_put_u64(&c, f->seq);
	csv_put_u64(&c, f->ack);
	csv_assert(!csv_cur_error(&c) && csv_cur_left(&c) == 0);
	crc = le32_of(csv_crc32c(msg_crc, ret, MESH_HEADER_BYTES));
	memcpy(ret + CRC_AT, &crc, sizeof(crc));
}

const char *mesh_frame_decode(const void *buf, size_t len, struct mesh_frame *ret)
{
	uint8_t head[MESH_HEADER_BYTES];
	struct csv_cursor c;
	uint32_t magic, crc, total;
	uint8_t flags;

	if (len < MESH_HEADER_BYTES)
		return "shorter than its header";
	if (len > MESH_HEADER_BYTES + MESH_MSG_MAX)
		return "longer than allowed";
	csv_cursor_init_ro(&c, buf, MESH_HEADER_BYTES);
	magic = csv_cur_u32(&c);
	ret->version = csv_cur_u8(&c);
	ret->type = csv_cur_u8(&c);
	ret->chan = csv_cur_u8(&c);
	flags = csv_cur_u8(&c);
	crc = csv_cur_u32(&c);
	total = csv_cur_u32(&c);
	ret->lockspace = csv_cur_u64(&c);
	ret->ring.seq = csv_cur_u64(&c);
	ret->ring.nodeid = csv_cur_u32(&c);
	ret->from = csv_cur_u32(&c);
	ret->incarnation = csv_cur_u64(&c);
	ret->seq = csv_cur_u64(&c);
	ret->ack = csv_cur_u64(&c);
	csv_assert(!csv_cur_error(&c) && csv_cur_left(&c) == 0);
	if (magic != MESH_FRAME_MAGIC)
		return "magic number wrong";
	if (ret->version < PROTO_MESH.min || ret->version > PROTO_MESH.max)
		return "unknown protocol version";
	if (total != len)
		return "length field is not the length received";
	ret->len = len - MESH_HEADER_BYTES;
	ret->msg = (const uint8_t *)buf + MESH_HEADER_BYTES;
	memcpy(head, buf, sizeof(head));
	memset(head + CRC_AT, 0, sizeof(crc));
	if (csv_crc32c(csv_crc32c(0, ret->msg, ret->len), head, sizeof(head)) != crc)
		return "checksum wrong";
	if (ret->type != MESH_DATA && ret->type != MESH_ACK)
		return "unknown frame type";
	if (flags)
		return "unknown flag bits";
	if (ret->chan >= CHAN_MAX)
		return "unknown channel";
	if (!ret->incarnation)
		return "incarnation 0";
	if (ret->type == MESH_DATA && !ret->seq)
		return "sequence number 0";
	if (ret->type == MESH_ACK && (ret->seq || ret->len))
		return "acknowledgement with a message";
	return NULL;
}
