/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vm_mark.c - a QEMU's mark as JSON.  A field that is missing makes the mark unreadable: half a mark could allow too much.
 */
#include "hvhost/vm.h"

#include <errno.h>
#include <string.h>

#include "hvhost/agent.h"

json_t *vm_mark_to_json(const struct vmsm_mark *m)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:I, s:o, s:I, s:b}", "bound", agent_u64(m->bound), "txid", agent_u64(m->txid), "moving",
			 agent_u64(m->moving), "offered", agent_u64(m->offered), "to", (json_int_t)m->to, "to_inc", agent_u64(m->to_inc), "config",
			 (json_int_t)m->config, "resumed", m->resumed != 0);
}

int vm_mark_from_json(const json_t *o, struct vmsm_mark *ret)
{
	struct vmsm_mark m;
	int64_t config, to;

	memset(&m, 0, sizeof(m));
	memset(ret, 0, sizeof(*ret));
	if (agent_u64_get(o, "bound", &m.bound, NULL) || agent_u64_get(o, "txid", &m.txid, NULL) || agent_u64_get(o, "moving", &m.moving, NULL) ||
	    agent_u64_get(o, "offered", &m.offered, NULL) || agent_int(o, "to", 0, UINT32_MAX, &to, NULL) ||
	    agent_u64_get(o, "to_inc", &m.to_inc, NULL) || agent_int(o, "config", 0, UINT32_MAX, &config, NULL) ||
	    !json_is_boolean(json_object_get(o, "resumed")))
		return -EINVAL;
	m.to = (uint32_t)to;
	m.config = (uint32_t)config;
	m.resumed = json_is_true(json_object_get(o, "resumed"));
	*ret = m;
	return 0;
}
