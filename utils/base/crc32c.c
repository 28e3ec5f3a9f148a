/* SPDX-License-Identifier: GPL-2.0-only */
/* isa-l's crc32_iscsi() inverts neither at the start nor at the end, and takes an int length. */
#include "utils/base/crc32c.h"

#include <isa-l/crc.h>

#define PIECE_BYTES (1u << 30)

uint32_t csv_crc32c(uint32_t seed, const void *p, size_t size_bytes)
{
	/* the prototype lacks const; it only reads */
	unsigned char *at = (unsigned char *)(uintptr_t)p;
	uint32_t crc = ~seed;

	while (size_bytes) {
		int n = (int)csv_min(size_bytes, (size_t)PIECE_BYTES);

		crc = crc32_iscsi(at, n, crc);
		at += n;
		size_bytes -= n;
	}
	return ~crc;
}
