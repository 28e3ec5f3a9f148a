/*
 * real_clock.c - the machine's clocks, its random source, and whose turn it is.
 */
#include "utils/env/real.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "utils/base/base.h"

static uint64_t read_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t mono_ns(struct clock *c)
{
	(void)c;
	return read_ns(CLOCK_MONOTONIC);
}

static uint64_t boot_ns(struct clock *c)
{
	(void)c;
	return read_ns(CLOCK_BOOTTIME);
}

static uint64_t real_ns(struct clock *c)
{
	(void)c;
	return read_ns(CLOCK_REALTIME);
}

static const struct clock_ops clock_ops = { mono_ns, boot_ns, real_ns };

void real_clock_init(struct clock *c)
{
	c->ops = &clock_ops;
}

static uint64_t rnd_u64(struct rnd_port *p)
{
	uint64_t v;

	(void)p;
	while (getrandom(&v, sizeof(v), 0) != (ssize_t)sizeof(v))
		csv_assertf(errno == EINTR, "getrandom: %s", strerror(errno));
	return v;
}

void real_rnd_init(struct rnd_port *p)
{
	p->u64 = rnd_u64;
}

void real_hurry(struct real_hurry *h, bool on)
{
	struct sched_param p = { .sched_priority = h->priority };
	int policy = h->policy;

	if (h->on == on)
		return;
	/* 0: this thread alone; threads that it makes meanwhile are ordinary ones. */
	if (on) {
		h->policy = sched_getscheduler(0);
		if (h->policy < 0 || sched_getparam(0, &p))
			return;
		h->priority = p.sched_priority;
		policy = SCHED_RR | SCHED_RESET_ON_FORK;
		p.sched_priority = csv_max(sched_get_priority_min(SCHED_RR), h->priority);
	}
	if (!sched_setscheduler(0, policy, &p))
		h->on = on;
}
