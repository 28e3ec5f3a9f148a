/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * proto.c - see proto.h.
 */
#include "utils/env/proto.h"

#include <stdio.h>

#include "utils/base/base.h"

bool proto_range_get(uint16_t min, uint16_t max, struct proto_range *ret)
{
	if (!min && !max)			/* PV1 */
		min = max = 1;
	if (!min || min > max)
		return false;
	*ret = (struct proto_range){ min, max };
	return true;
}

static struct proto_range both(struct proto_range a, struct proto_range b)
{
	return (struct proto_range){ csv_max(a.min, b.min), csv_min(a.max, b.max) };
}

uint16_t proto_common(struct proto_range a, struct proto_range b)
{
	struct proto_range r = both(a, b);

	return r.min <= r.max ? r.max : 0;
}

unsigned proto_settle(struct proto_member *m, unsigned n, struct proto_range *ret_messages, struct proto_range *ret_mesh)
{
	struct proto_range messages = { 1, UINT16_MAX }, mesh = { 1, UINT16_MAX };
	unsigned out = 0;

	for (unsigned newcomers = 0; newcomers < 2; newcomers++) {
		for (unsigned i = 0; i < n; i++) {
			struct proto_range a = both(messages, m[i].messages), b = both(mesh, m[i].mesh);

			if (m[i].seated == !!newcomers)
				continue;
			m[i].out = a.min > a.max || b.min > b.max;
			if (m[i].out) {
				out++;
			} else {
				messages = a;
				mesh = b;
			}
		}
	}
	*ret_messages = messages;
	*ret_mesh = mesh;
	return out;
}

void proto_refusal_text(const char *what, const char *a, struct proto_range a_speaks, const char *b, struct proto_range b_speaks, char *ret, size_t size)
{
	bool a_is_old = a_speaks.max < b_speaks.min;

	snprintf(ret, size, "%s speaks versions %u..%u of the %s, %s %u..%u: none in common: upgrade csvfs on %s to a release that speaks version %u, "
		 "or put the release before back on %s", a, a_speaks.min, a_speaks.max, what, b, b_speaks.min, b_speaks.max, a_is_old ? a : b,
		 a_is_old ? b_speaks.min : a_speaks.min, a_is_old ? b : a);
}
