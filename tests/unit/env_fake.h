/*
 * env_fake.h - what the unit tests of utils/env share: a clock that stands still until it is told to go on, a scheduler on it, views compared.
 */
#ifndef CSVFS_TESTS_UNIT_ENV_FAKE_H
#define CSVFS_TESTS_UNIT_ENV_FAKE_H

#include "utils/base/base.h"
#include "utils/env/clock.h"
#include "utils/env/cluster.h"
#include "utils/env/coro.h"
#include "utils/env/sched.h"

#if defined(CTX_TSAN)
#define FAKE_CORO_MANY 500	/* TSan has a small limit of fibres */
#elif defined(CTX_ASAN)
#define FAKE_CORO_MANY 2000
#else
#define FAKE_CORO_MANY 10000
#endif

struct fake_clock {
	struct clock clock;
	uint64_t now_ns;
};

static inline uint64_t fake_clock_now(struct clock *c)
{
	return container_of(c, struct fake_clock, clock)->now_ns;
}

static const struct clock_ops fake_clock_ops = {
	.mono_ns = fake_clock_now,
	.boot_ns = fake_clock_now,
	.real_ns = fake_clock_now,
};

static inline void fake_clock_init(struct fake_clock *f)
{
	f->clock.ops = &fake_clock_ops;
	f->now_ns = NS_PER_SEC;
}

/* Runs everything that is ready, and timers up to `until_ns`, the clock following them. */
static inline void fake_run_until(struct fake_clock *f, struct sched *s, uint64_t until_ns)
{
	for (;;) {
		uint64_t next;

		sched_run(s);
		next = sched_next_deadline(s);
		if (next > until_ns)
			break;
		if (next > f->now_ns)
			f->now_ns = next;
		sched_run_timers(s, f->now_ns);
	}
	f->now_ns = until_ns;
}

/* Was some process in both?  Views of one ring without one in common are of different groups (C3). */
static inline bool fake_views_share_a_life(const struct cluster_view *a, const struct cluster_view *b)
{
	for (uint32_t i = 0; i < a->n; i++) {
		const struct cluster_node *n = cluster_view_find(b, a->m[i].nodeid);

		if (n && n->incarnation == a->m[i].incarnation)
			return true;
	}
	return false;
}

#endif
