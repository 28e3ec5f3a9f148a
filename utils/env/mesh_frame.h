/*
 * mesh_frame.h - the frame of the mesh on the wire: 64 bytes of header, then the message.  Little endian.
 *
 * The checksum covers the message and then the header with the checksum as zero, so that a resend with a newer
 * acknowledgement does not read the message again.  Magic number and version stay where they are for ever (proto.h, PV1).
 */
#ifndef CSVFS_UTILS_ENV_MESH_FRAME_H
#define CSVFS_UTILS_ENV_MESH_FRAME_H

#include "utils/env/cluster.h"

#define MESH_FRAME_MAGIC 0x534d5643u	/* "CVMS" */
#define MESH_HEADER_BYTES 64

enum mesh_frame_type { MESH_DATA = 1, MESH_ACK = 2 };

struct mesh_frame {
	uint8_t version;		/* one of PROTO_MESH */
	uint8_t type;			/* enum mesh_frame_type */
	uint8_t chan;
	uint64_t lockspace;
	struct ring_id ring;
	uint32_t from;
	uint64_t incarnation;		/* of the sender */
	uint64_t seq;			/* DATA: 1, 2, … in this view; ACK: 0 */
	uint64_t ack;			/* the last one received in order from the other side, 0: none */
	uint32_t len;			/* of the message */
	const uint8_t *msg;
};

/* ret: MESH_HEADER_BYTES; msg_crc is the csv_crc32c() of the message. */
void mesh_frame_encode(const struct mesh_frame *f, uint32_t msg_crc, uint8_t *ret);
/* Checks everything that needs no knowledge of the views.  NULL, or what is wrong (a literal); f->msg points into buf. */
const char *mesh_frame_decode(const void *buf, size_t len, struct mesh_frame *ret);

#endif
