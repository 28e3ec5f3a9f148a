/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cursor: bounded little-endian reading and writing over a byte buffer, with an error that sticks.
 * A decoder reads all its fields and asks once at the end:
 *
 *	struct csv_cursor c;
 *
 *	csv_cursor_init(&c, buf, size);
 *	kind = csv_cur_u16(&c);
 *	count = csv_cur_u32(&c);
 *	if (csv_cur_error(&c) || count > LIMIT)
 *		return -CSV_E_CORRUPT;
 *
 * Invariants: 1. at <= end: nothing outside the buffer is touched, whatever is asked; 2. after the
 * first access that does not fit, reads give 0 (bytes: zeroes; pointers: NULL) and writes do
 * nothing, so a value read is believed only after csv_cur_error() said no. One thread.
 */
#ifndef CSV_CURSOR_H
#define CSV_CURSOR_H

#include "utils/base/base.h"

struct csv_cursor {
	uint8_t *begin;
	uint8_t *at;
	uint8_t *end;
	bool failed;
	bool readonly;
};

/* For reading and writing. */
void csv_cursor_init(struct csv_cursor *c, void *p, size_t size_bytes);
/* For reading: a csv_put_*() on it is a bug and asserts. */
void csv_cursor_init_ro(struct csv_cursor *c, const void *p, size_t size_bytes);

static inline bool csv_cur_error(const struct csv_cursor *c)
{
	return c->failed;
}

/* Bytes behind and before the cursor. */
static inline size_t csv_cur_used(const struct csv_cursor *c)
{
	return c->at - c->begin;
}

static inline size_t csv_cur_left(const struct csv_cursor *c)
{
	return c->end - c->at;
}

/* A decoder's own check failed: as if the buffer had been too short. */
static inline void csv_cur_fail(struct csv_cursor *c)
{
	c->failed = true;
}

uint8_t csv_cur_u8(struct csv_cursor *c);
uint16_t csv_cur_u16(struct csv_cursor *c);
uint32_t csv_cur_u32(struct csv_cursor *c);
uint64_t csv_cur_u64(struct csv_cursor *c);
void csv_cur_bytes(struct csv_cursor *c, void *ret, size_t size_bytes);
/* The next bytes in place: valid as long as the buffer; NULL when they are not all there. */
const void *csv_cur_ref(struct csv_cursor *c, size_t size_bytes);
void csv_cur_skip(struct csv_cursor *c, size_t size_bytes);

void csv_put_u8(struct csv_cursor *c, uint8_t x);
void csv_put_u16(struct csv_cursor *c, uint16_t x);
void csv_put_u32(struct csv_cursor *c, uint32_t x);
void csv_put_u64(struct csv_cursor *c, uint64_t x);
void csv_put_bytes(struct csv_cursor *c, const void *p, size_t size_bytes);
void csv_put_zero(struct csv_cursor *c, size_t size_bytes);

#endif
