/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * siphash: SipHash-2-4 with 64 bits out: keyed hash for directory names and for tables whose keys
 * a guest or a peer chooses. The result is part of the disk format (directory keys): the reference
 * test vectors are in tests/unit/test_base.c. Any thread.
 */
#ifndef CSV_SIPHASH_H
#define CSV_SIPHASH_H

#include "utils/base/base.h"

#define CSV_SIPHASH_KEY_BYTES 16

uint64_t csv_siphash(const uint8_t key[static CSV_SIPHASH_KEY_BYTES], const void *p,
		     size_t size_bytes);

#endif
