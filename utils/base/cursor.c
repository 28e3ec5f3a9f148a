/* SPDX-License-Identifier: GPL-2.0-only */
#include "utils/base/cursor.h"

void csv_cursor_init(struct csv_cursor *c, void *p, size_t size_bytes)
{
	*c = (struct csv_cursor){.begin = p, .at = p, .end = (uint8_t *)p + size_bytes};
}

void csv_cursor_init_ro(struct csv_cursor *c, const void *p, size_t size_bytes)
{
	csv_cursor_init(c, (void *)(uintptr_t)p, size_bytes);
	c->readonly = true;
}

/* The next bytes, stepped over; NULL from the first time that they are not there. */
static uint8_t *take(struct csv_cursor *c, size_t size_bytes)
{
	uint8_t *p = c->at;

	if (c->failed || size_bytes > csv_cur_left(c)) {
		c->failed = true;
		return NULL;
	}
	c->at += size_bytes;
	return p;
}

static uint8_t *take_rw(struct csv_cursor *c, size_t size_bytes)
{
	csv_assert(!c->readonly);
	return take(c, size_bytes);
}

uint8_t csv_cur_u8(struct csv_cursor *c)
{
	const uint8_t *p = take(c, 1);

	return p ? *p : 0;
}

uint16_t csv_cur_u16(struct csv_cursor *c)
{
	struct le16 v = {{0}};

	csv_cur_bytes(c, v.b, sizeof(v));
	return le16_get(v);
}

uint32_t csv_cur_u32(struct csv_cursor *c)
{
	struct le32 v = {{0}};

	csv_cur_bytes(c, v.b, sizeof(v));
	return le32_get(v);
}

uint64_t csv_cur_u64(struct csv_cursor *c)
{
	struct le64 v = {{0}};

	csv_cur_bytes(c, v.b, sizeof(v));
	return le64_get(v);
}

void csv_cur_bytes(struct csv_cursor *c, void *ret, size_t size_bytes)
{
	const uint8_t *p = take(c, size_bytes);

	if (!size_bytes)
		return;
	if (p)
		memcpy(ret, p, size_bytes);
	else
		memset(ret, 0, size_bytes);
}

const void *csv_cur_ref(struct csv_cursor *c, size_t size_bytes)
{
	return take(c, size_bytes);
}

void csv_cur_skip(struct csv_cursor *c, size_t size_bytes)
{
	take(c, size_bytes);
}

void csv_put_u8(struct csv_cursor *c, uint8_t x)
{
	csv_put_bytes(c, &x, 1);
}

void csv_put_u16(struct csv_cursor *c, uint16_t x)
{
	struct le16 v = le16_of(x);

	csv_put_bytes(c, v.b, sizeof(v));
}

void csv_put_u32(struct csv_cursor *c, uint32_t x)
{
	struct le32 v = le32_of(x);

	csv_put_bytes(c, v.b, sizeof(v));
}

void csv_put_u64(struct csv_cursor *c, uint64_t x)
{
	struct le64 v = le64_of(x);

	csv_put_bytes(c, v.b, sizeof(v));
}

void csv_put_bytes(struct csv_cursor *c, const void *p, size_t size_bytes)
{
	uint8_t *to = take_rw(c, size_bytes);

	if (to && size_bytes)
		memcpy(to, p, size_bytes);
}

void csv_put_zero(struct csv_cursor *c, size_t size_bytes)
{
	uint8_t *to = take_rw(c, size_bytes);

	if (to && size_bytes)
		memset(to, 0, size_bytes);
}
