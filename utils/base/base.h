/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * base: what every file may use. No dependency, no state but the assertion hook.
 *
 *  - struct le16/le32/le64: how integers lie on disk and on the wire. One-member structs, so that
 *    arithmetic or a comparison on the raw bytes does not compile; go through leNN_get/leNN_set.
 *    They have the alignment of a byte: a disk structure made of them has no padding.
 *  - csv_assert(): always on, for what our own code guarantees. What disk, network, guests and
 *    people say is *checked* and answered with an error instead.
 *  - small arithmetic helpers, each evaluating its arguments once.
 *
 * Lists: <urcu/list.h> (cds_list_head), <urcu/hlist.h>. Hash tables of one thread: <uthash.h>.
 * Any thread may call everything here.
 */
#ifndef CSV_BASE_H
#define CSV_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define csv_likely(x)	__builtin_expect(!!(x), 1)
#define csv_unlikely(x) __builtin_expect(!!(x), 0)

#define csv_printf_like(fmt_arg, first_arg) __attribute__((format(printf, fmt_arg, first_arg)))
#define csv_must_check	__attribute__((warn_unused_result))
#define csv_noreturn	__attribute__((noreturn))
#define csv_unused	__attribute__((unused))

/* ---- assertions ---------------------------------------------------------------------------- */

/* Called with the text of a failed assertion before abort(): the daemon's log, a test's trace. */
typedef void (*csv_assert_fn)(void *arg, const char *file, int line, const char *message);

/* Install a hook (NULL: none). Once, at the start of a program, before other threads exist. */
void csv_assert_hook_set(csv_assert_fn fn, void *arg);

/* Print "file:line: message" to stderr, call the hook, abort. */
csv_noreturn void csv_assert_fail(const char *file, int line, const char *fmt, ...)
	csv_printf_like(3, 4);

#define csv_assert(cond)                                                                   \
	do {                                                                               \
		if (csv_unlikely(!(cond)))                                                 \
			csv_assert_fail(__FILE__, __LINE__, "assertion failed: %s", #cond); \
	} while (0)

/* The same with figures: csv_assertf(used <= size, "used %u of %u", used, size). */
#define csv_assertf(cond, fmt, ...)                                                           \
	do {                                                                                  \
		if (csv_unlikely(!(cond)))                                                    \
			csv_assert_fail(__FILE__, __LINE__, "assertion failed: %s: " fmt, #cond, \
					##__VA_ARGS__);                                       \
	} while (0)

#define csv_panic(fmt, ...) csv_assert_fail(__FILE__, __LINE__, fmt, ##__VA_ARGS__)

/* Layouts of disk and wire are nailed down at compile time. */
#define csv_static_assert(cond, text)	     _Static_assert(cond, text)
#define csv_assert_size(type, bytes)                                                       \
	_Static_assert(sizeof(type) == (bytes), "size of " #type " is not " #bytes)
#define csv_assert_offset(type, member, bytes)                                             \
	_Static_assert(offsetof(type, member) == (bytes),                                  \
		       "offset of " #member " in " #type " is not " #bytes)

/* ---- arithmetic ---------------------------------------------------------------------------- */

#ifndef container_of
#define container_of(ptr, type, member)                                                    \
	({                                                                                 \
		const __typeof__(((type *)0)->member) *csv_mptr_ = (ptr);                  \
		(type *)((char *)csv_mptr_ - offsetof(type, member));                      \
	})
#endif

#define csv_same_type_(a, b) __builtin_types_compatible_p(__typeof__(a), __typeof__(b))
#ifndef ARRAY_SIZE
/* An error for a pointer. */
#define ARRAY_SIZE(a)                                                                      \
	(sizeof(a) / sizeof((a)[0]) +                                                      \
	 0 * sizeof(struct { int not_an_array : 1 - 2 * !!csv_same_type_(a, &(a)[0]); }))
#endif

#define csv_min(a, b)                                                                      \
	({                                                                                 \
		__typeof__(a) csv_a_ = (a);                                                \
		__typeof__(b) csv_b_ = (b);                                                \
		csv_a_ < csv_b_ ? csv_a_ : csv_b_;                                         \
	})
#define csv_max(a, b)                                                                      \
	({                                                                                 \
		__typeof__(a) csv_a_ = (a);                                                \
		__typeof__(b) csv_b_ = (b);                                                \
		csv_a_ > csv_b_ ? csv_a_ : csv_b_;                                         \
	})

static inline bool csv_is_power_of_2(uint64_t x)
{
	return x && !(x & (x - 1));
}

/* step > 0; the caller knows that x + step - 1 fits in 64 bits. */
static inline uint64_t csv_div_round_up(uint64_t x, uint64_t step)
{
	return (x + step - 1) / step;
}

static inline uint64_t csv_round_down(uint64_t x, uint64_t step)
{
	return x - x % step;
}

static inline uint64_t csv_round_up(uint64_t x, uint64_t step)
{
	return csv_round_down(x + step - 1, step);
}

/* floor(log2(x)), x > 0 */
static inline unsigned csv_ilog2(uint64_t x)
{
	return 63 - (unsigned)__builtin_clzll(x);
}

/* For sizes that come from outside: true and *ret untouched when it does not fit. */
static inline csv_must_check bool csv_add_overflow(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return true;
	*ret = sum;
	return false;
}

static inline csv_must_check bool csv_mul_overflow(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t product;

	if (__builtin_mul_overflow(a, b, &product))
		return true;
	*ret = product;
	return false;
}

/* ---- integers of disk and wire, little endian ------------------------------------------------- */

struct le16 {
	uint8_t b[2];
};
struct le32 {
	uint8_t b[4];
};
struct le64 {
	uint8_t b[8];
};
csv_assert_size(struct le16, 2);
csv_assert_size(struct le32, 4);
csv_assert_size(struct le64, 8);

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define csv_le_swap16_(x) (x)
#define csv_le_swap32_(x) (x)
#define csv_le_swap64_(x) (x)
#else
#define csv_le_swap16_(x) __builtin_bswap16(x)
#define csv_le_swap32_(x) __builtin_bswap32(x)
#define csv_le_swap64_(x) __builtin_bswap64(x)
#endif

static inline uint16_t le16_get(struct le16 v)
{
	uint16_t x;

	memcpy(&x, v.b, sizeof(x));
	return csv_le_swap16_(x);
}

static inline uint32_t le32_get(struct le32 v)
{
	uint32_t x;

	memcpy(&x, v.b, sizeof(x));
	return csv_le_swap32_(x);
}

static inline uint64_t le64_get(struct le64 v)
{
	uint64_t x;

	memcpy(&x, v.b, sizeof(x));
	return csv_le_swap64_(x);
}

/* le32_of(x): the value; le32_set(&field, x): stored. */
static inline struct le16 le16_of(uint16_t x)
{
	struct le16 v;

	x = csv_le_swap16_(x);
	memcpy(v.b, &x, sizeof(x));
	return v;
}

static inline struct le32 le32_of(uint32_t x)
{
	struct le32 v;

	x = csv_le_swap32_(x);
	memcpy(v.b, &x, sizeof(x));
	return v;
}

static inline struct le64 le64_of(uint64_t x)
{
	struct le64 v;

	x = csv_le_swap64_(x);
	memcpy(v.b, &x, sizeof(x));
	return v;
}

static inline void le16_set(struct le16 *ret, uint16_t x)
{
	*ret = le16_of(x);
}

static inline void le32_set(struct le32 *ret, uint32_t x)
{
	*ret = le32_of(x);
}

static inline void le64_set(struct le64 *ret, uint64_t x)
{
	*ret = le64_of(x);
}

#endif
