/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * crc32c: CRC-32C (Castagnoli), the checksum of every block, log record and message of ours.
 * The standard form: initial value and result inverted, "123456789" gives 0xE3069283.
 * Chains: csv_crc32c(csv_crc32c(0, a, n), b, m) is the checksum of a followed by b.
 * Any thread; length up to SIZE_MAX.
 */
#ifndef CSV_CRC32C_H
#define CSV_CRC32C_H

#include "utils/base/base.h"

uint32_t csv_crc32c(uint32_t seed, const void *p, size_t size_bytes);

#endif
