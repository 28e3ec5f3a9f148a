/*
 * clock.h - the time port.  CLOCK_MONOTONIC for time-outs, CLOCK_BOOTTIME for everything about fencing and leases,
 * real time only for what people see (file times); nothing correct depends on real time.
 * Any thread may call the real implementation (utils/env/real_clock.c); the simulated one belongs to the world's thread.
 */
#ifndef CSVFS_UTILS_ENV_CLOCK_H
#define CSVFS_UTILS_ENV_CLOCK_H

#include <stdint.h>

struct clock;
struct clock_ops {
	uint64_t (*mono_ns)(struct clock *c);
	uint64_t (*boot_ns)(struct clock *c);
	uint64_t (*real_ns)(struct clock *c);
};
struct clock { const struct clock_ops *ops; };

static inline uint64_t clock_mono_ns(struct clock *c) { return c->ops->mono_ns(c); }
static inline uint64_t clock_boot_ns(struct clock *c) { return c->ops->boot_ns(c); }
static inline uint64_t clock_real_ns(struct clock *c) { return c->ops->real_ns(c); }

#define NS_PER_MS 1000000ull
#define NS_PER_SEC 1000000000ull

#endif
