/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_plan.c - what a migration would be like: passes of pre-copy, by how fast the guest changes its memory and how fast the link is.
 *
 * Pass 0 sends all of the memory; each further one what was changed during the one before; when the rest fits into the pause aimed at,
 * the guest is stopped.  It converges while the guest changes less than the link carries.
 *
 * Pure, but for asking the agent.
 */
#include "migrator/mig_work.h"

#include <errno.h>
#include <stdio.h>

#define PASSES_MAX 30u
#define SWITCH_MS 30.0		/* the switch itself, besides the rest of the memory: agreement on the lease, devices, resuming */
#define SETUP_MS 500.0		/* target QEMU, connection */
#define DIRTY_S 1

struct forecast { unsigned passes; double total_ms, pause_ms; bool converges; };

static void forecast(double memory, double dirty_bps, double link_bps, double downtime_ms, struct forecast *ret)
{
	double rest = memory, t;

	*ret = (struct forecast){ .total_ms = SETUP_MS };
	while (ret->passes < PASSES_MAX && rest / link_bps * 1000 > downtime_ms) {
		t = rest / link_bps;
		ret->total_ms += t * 1000;
		ret->passes++;
		rest = csv_min(memory, dirty_bps * t);
		if (dirty_bps >= link_bps)
			break;
	}
	ret->converges = rest / link_bps * 1000 <= downtime_ms;
	ret->pause_ms = SWITCH_MS + rest / link_bps * 1000;
	ret->total_ms += ret->pause_ms;
}

static double link_of(const struct mig *m, uint32_t a, uint32_t b)
{
	json_int_t x = mig_int(mig_host_of(m, a), "link_bps"), y = mig_int(mig_host_of(m, b), "link_bps");
	double bps = (double)csv_min(x ? x : y, y ? y : x);

	if (m->cfg.bandwidth_bps && (!bps || (double)m->cfg.bandwidth_bps < bps))
		bps = (double)m->cfg.bandwidth_bps;
	return bps ? bps / 8 : 125e6;		/* nothing known: 1 Gbit/s */
}

json_t *mig_plan_predict(struct mig *m, const char *vm, uint32_t to, char *ret_text, size_t size, enum rpc_code *ret_code)
{
	const struct lease *l = mig_lease(m, vm);
	uint32_t from = l ? l->owner : 0;
	struct mig_answer a = { 0 };
	struct forecast f;
	double memory, dirty, link;
	int rc;

	rc = mig_call(m, from, "vm.dirty", json_pack("{s:s, s:i}", "vm", vm, "seconds", DIRTY_S), 15000, &a);
	if (rc || a.code) {
		snprintf(ret_text, size, "%s: how fast it changes its memory cannot be measured: %s", vm, rc ? csv_err_describe(rc) : a.message);
		*ret_code = rc ? rpc_code_of(rc) : (enum rpc_code)a.code;
		mig_answer_done(&a);
		return NULL;
	}
	memory = (double)mig_int(a.data, "memory_bytes");
	dirty = (double)mig_int(a.data, "rate_bps") / 8;
	mig_answer_done(&a);
	link = link_of(m, from, to);
	forecast(memory, dirty, link, m->cfg.downtime_ms, &f);
	*ret_code = RPC_OK;
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:i, s:b, s:I, s:I, s:i}", "vm", vm, "from", mig_node_name(m, from), "to",
			 mig_node_name(m, to), "memory_bytes", (json_int_t)memory, "dirty_bytes_per_s", (json_int_t)dirty, "link_bytes_per_s",
			 (json_int_t)link, "passes", (int)f.passes, "converges", f.converges, "total_ms", (json_int_t)f.total_ms, "pause_ms",
			 (json_int_t)f.pause_ms, "pause_budget_ms", (int)m->cfg.pause_budget_ms);
}

json_t *mig_move_plan(const struct mig_ask *a)
{
	struct mig *m = a->m;
	const char *vm = mig_text(a->args, "vm"), *node = mig_text(a->args, "to"), *no;
	const struct lease *l = mig_lease(m, vm);
	uint32_t to = *node ? mig_node_by_name(m, node) : 0;
	enum rpc_code code;
	char text[600];
	json_t *plan, *reply;

	if (!mig_settled(m))
		return rpc_reply_error(RPC_NO_QUORUM, "the leases are not settled; again in a moment");
	if (!l)
		return rpc_reply_error(RPC_NOT_FOUND, "%s: no such VM; see: csvctl vm list", vm);
	if (*node && !to)
		return rpc_reply_error(RPC_NOT_FOUND, "%s: no such node in corosync's node list; see: csvctl node list", node);
	if (l->state != LEASE_RUNNING)
		return rpc_reply_error(RPC_CONFLICT, "%s: does not run", vm);
	if (!to)
		to = mig_place(m, vm, 0, l->owner, text, sizeof(text));
	if (!to)
		return rpc_reply_error(RPC_CONFLICT, "%s: no other node can have it: %s", vm, text);
	if (to == l->owner)
		return rpc_reply_error(RPC_CONFLICT, "%s: is there already", vm);
	no = mig_place_refuses(m, to, vm);
	plan = mig_plan_predict(m, vm, to, text, sizeof(text), &code);
	if (!plan)
		return rpc_reply_error(code, "%s", text);
	reply = rpc_reply_new("migration");
	if (no)
		rpc_reply_warn(reply, "it would be refused: %s %s", mig_node_name(m, to), no);
	if (!json_is_true(json_object_get(plan, "converges")))
		rpc_reply_warn(reply, "it would not converge: the guest changes its memory faster than the link carries it; it would be slowed down, then "
			       "paused longer (up to %u ms), then cancelled", m->cfg.pause_budget_ms);
	rpc_reply_add_take(reply, plan);
	return reply;
}
