/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vm_converge.c - see vm_converge.h.
 */
#include "hvhost/vm_converge.h"

#include <stdio.h>
#include <string.h>

#include "utils/base/base.h"

void vm_converge_init(struct vm_converge *c, unsigned limit_ms, unsigned budget_ms, unsigned throttle_max)
{
	memset(c, 0, sizeof(*c));
	c->limit_ms = limit_ms;
	c->budget_ms = budget_ms;
	c->throttle_max = throttle_max;
	c->best = UINT64_MAX;
}

/* What a pass would still have needed: microseconds, or bytes where QEMU does not say; less by a twentieth is progress. */
static bool progress(struct vm_converge *c, const struct vm_converge_sample *s)
{
	uint64_t need = s->need_ms ? s->need_ms * 1000 : s->remaining;
	bool better = need < c->best - c->best / 20;

	if (better)
		c->best = need;
	return better;
}

static bool throttle_may_grow(struct vm_converge *c)
{
	return c->throttle_max && c->throttle < c->throttle_max && c->idle++ < CO_PATIENCE;
}

static enum vm_converge_act longer_pause(struct vm_converge *c)
{
	unsigned next = c->limit_ms * 2, enough = c->need_ms + c->need_ms / 4;

	if (c->limit_ms >= c->budget_ms)
		return VM_CONVERGE_CANCEL;
	if (enough > next && enough <= c->budget_ms)
		next = enough;
	c->limit_ms = csv_min(next, c->budget_ms);
	return VM_CONVERGE_PAUSE;
}

enum vm_converge_act vm_converge_look(struct vm_converge *c, const struct vm_converge_sample *s)
{
	if (s->throttle > c->throttle) {		/* CO3 */
		c->throttle = s->throttle;
		c->stuck = c->idle = 0;
	}
	if (s->passes <= c->passes)
		return VM_CONVERGE_GO;
	c->passes = s->passes;
	if (s->passes <= 2)				/* the first sends everything, the second what a long pass left */
		return VM_CONVERGE_GO;
	c->need_ms = (unsigned)csv_min(s->need_ms, (uint64_t)3600000);
	if (progress(c, s)) {
		c->stuck = 0;
		return VM_CONVERGE_GO;
	}
	if (++c->stuck < CO_STUCK)
		return VM_CONVERGE_GO;
	c->stuck = 0;
	return throttle_may_grow(c) ? VM_CONVERGE_GO : longer_pause(c);
}

void vm_converge_text(const struct vm_converge *c, unsigned first_ms, char *ret, size_t size)
{
	size_t used = 0;

	ret[0] = '\0';
	if (c->throttle)
		used = (size_t)snprintf(ret, size, "throttled to %u %%", c->throttle);
	if (c->limit_ms > first_ms && used < size)
		snprintf(ret + used, size - used, "%spause up to %u ms", used ? ", " : "", c->limit_ms);
}
