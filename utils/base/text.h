/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * text: between bytes and what people read and type: hex dumps, UUIDs, sizes. Any thread.
 */
#ifndef CSV_TEXT_H
#define CSV_TEXT_H

#include <stdio.h>

#include "utils/base/base.h"

/* 16 bytes a line, offset from first_offset, text at the right; runs of equal lines as one "*". */
void csv_hexdump(FILE *out, const void *p, size_t size_bytes, uint64_t first_offset);

#define CSV_UUID_TEXT_BYTES 37
/* Lower case, terminated; returns ret. */
char *csv_uuid_to_text(const uint8_t uuid[static 16], char ret[static CSV_UUID_TEXT_BYTES]);
/* -EINVAL: not a UUID. */
int csv_uuid_parse(const char *text, uint8_t ret[static 16]) csv_must_check;

#define CSV_SIZE_TEXT_BYTES 48
/* "512 B", "4 KiB", "1.5 GiB": for people. Returns ret. */
char *csv_size_to_text(uint64_t size_bytes, char ret[static CSV_SIZE_TEXT_BYTES]);
/*
 * "4096", "64K", "8G", "8GiB" (powers of 1024; K M G T P, either case). -EINVAL: not a size,
 * -ERANGE: more than fits in 63 bits.
 */
int csv_size_parse(const char *text, uint64_t *ret_size_bytes) csv_must_check;

/* Without white space at both ends: cut off in place at the end, what begins behind that of the front is returned. */
char *csv_trim(char *text);

/* In place: what is no UTF-8, and every control character, becomes '?': fit for one line of a log and for JSON. */
void csv_text_clean(char *text);

#endif
