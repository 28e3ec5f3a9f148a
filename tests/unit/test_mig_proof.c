/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * migrator/mig_proof.c: why there is no proof about a lost node is the same on every node, whoever leads.
 */
#include "tests/unit/mig_world.h"

#include <errno.h>
#include <string.h>

static const struct { int rc; bool lies; const char *says; } reasons[] = {
	{ -ENOENT, false, "no fence agent is configured for node 3" },
	{ -EIO, false, "agent fence_x: Input/output error" },
	{ 0, true, "fence device of n3 does not switch n3: off was confirmed, and its heartbeat goes on" },
};

static bool vm1_blocked(struct mw *w) { return mw_lease(w, "vm1") && mw_lease(w, "vm1")->state == LEASE_BLOCKED; }
static bool vm1_off_n3(struct mw *w) { return mw_runs_on(w, "vm1") == 1 || mw_runs_on(w, "vm1") == 2; }

static const json_t *item_of(const json_t *reply, const char *name)
{
	const json_t *v;
	size_t i;

	json_array_foreach(json_object_get(reply, "items"), i, v)
		if (!strcmp(mig_text(v, "name"), name))
			return v;
	ck_abort_msg("no item %s", name);
	return NULL;
}

/* `says` ("": nothing) is what node `id` has of n3. */
static void check_node(struct mw *w, uint32_t id, const char *says)
{
	const json_t *n3 = item_of(mw_ask(w, id, "node.status", NULL), "n3");

	ck_assert_str_eq(mig_text(n3, "fencing"), says);
	ck_assert_msg(strstr(mig_text(n3, "problem"), says), "n%u: node list: %s", id, mig_text(n3, "problem"));
}

/* ... and of vm1, in all places. */
static void check_says(struct mw *w, uint32_t id, const char *says)
{
	static const char *const verbs[] = { "ha.status", "vm.list", "vm.show" };
	const char *text;

	check_node(w, id, says);
	for (size_t k = 0; k < ARRAY_SIZE(verbs); k++) {
		text = mig_text(item_of(mw_ask(w, id, verbs[k], json_pack("{s:s}", "name", "vm1")), "vm1"), "reason");
		ck_assert_msg(*says ? strstr(text, says) != NULL : !*text, "n%u: %s: \"%s\" without \"%s\"", id, verbs[k], text, says);
	}
}

START_TEST(why_there_is_no_proof_is_the_same_on_every_node_and_goes_when_the_node_is_back)
{
	struct mw *w = mw_new();

	w->fence_rc[3] = reasons[_i].rc;
	w->fence_lies[3] = reasons[_i].lies;
	mw_vm_on(w, "vm1", 3, 100);
	mw_cut(w, 3);
	ck_assert(mw_until(w, 30 * NS_PER_SEC, vm1_blocked));
	mw_run(w, NS_PER_SEC);
	check_says(w, 1, reasons[_i].says);
	check_says(w, 2, reasons[_i].says);
	mw_heal(w);
	mw_run(w, 10 * NS_PER_SEC);
	for (uint32_t id = 1; id <= 3; id++)
		check_says(w, id, "");
	mw_free(w);
}
END_TEST

/* ... before it has tried for itself; and again in the log only when it is another reason. */
START_TEST(who_leads_next_and_who_comes_later_say_it_too)
{
	struct mw *w = mw_new();
	json_t *r, *e;
	unsigned told = 0;
	size_t i;

	w->fence_rc[3] = -EIO;
	mw_vm_on(w, "vm1", 3, 100);
	mw_cut(w, 3);
	ck_assert(mw_until(w, 30 * NS_PER_SEC, vm1_blocked));
	w->fence_ns = 20 * NS_PER_SEC;
	mw_daemon_kill(w, 1);
	mw_run(w, 2 * NS_PER_SEC);
	check_node(w, 2, reasons[1].says);
	mw_daemon_start(w, 1);
	mw_run(w, 2 * NS_PER_SEC);
	check_node(w, 1, reasons[1].says);
	mw_run(w, 120 * NS_PER_SEC);
	check_node(w, 1, reasons[1].says);
	r = mw_ask(w, 2, "event.list", json_pack("{s:i, s:s}", "last", 1000, "object", "n3"));
	json_array_foreach(json_object_get(r, "items"), i, e)
		told += strstr(mig_text(e, "text"), "no proof that it is off") != NULL;
	ck_assert_uint_eq(told, 1);
	mw_free(w);
}
END_TEST

START_TEST(a_proof_ends_it)
{
	struct mw *w = mw_new();

	w->fence_rc[3] = -EIO;
	mw_vm_on(w, "vm1", 3, 100);
	mw_power_cut(w, 3);
	ck_assert(mw_until(w, 30 * NS_PER_SEC, vm1_blocked));
	if (_i)
		ck_assert_int_eq(mw_code(mw_ask(w, 2, "node.confirm-fenced", json_pack("{s:i}", "nodeid", 3))), RPC_OK);
	else
		w->fence_rc[3] = 0;
	ck_assert(mw_until(w, 60 * NS_PER_SEC, vm1_off_n3));
	mw_run(w, NS_PER_SEC);
	check_says(w, 1, "");
	check_says(w, 2, "");
	mw_free(w);
}
END_TEST

/* It was believed to be off, and is back in its old life, its VMs gone already. */
START_TEST(a_node_that_was_purged_says_what_is_done_and_no_more)
{
	struct mw *w = mw_new();
	const json_t *e;

	w->fence_rc[3] = -EIO;
	mw_vm_on(w, "vm1", 3, 100);
	mw_cut(w, 3);
	ck_assert(mw_until(w, 30 * NS_PER_SEC, vm1_blocked));
	mw_vm_of(w, 3, "vm1")->runs = mw_vm_of(w, 3, "vm1")->there = false;
	mw_agent_kill(w, 3);
	if (!_i)
		mw_agent_start(w, 3);
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "node.confirm-fenced", json_pack("{s:i, s:s}", "nodeid", 3, "force", "saw it"))), RPC_OK);
	ck_assert(mw_until(w, 60 * NS_PER_SEC, vm1_off_n3));
	mw_heal(w);
	mw_run(w, 10 * NS_PER_SEC);
	e = mw_event(w, 1, "the others have a proof that this node was off");
	ck_assert_ptr_nonnull(e);
	ck_assert_msg(strstr(mig_text(e, "text"), _i ? "it waits for hvhostd" : "it begins anew; no VM is here"), "%s", mig_text(e, "text"));
	ck_assert_uint_eq(w->node[3].leaves[MIG_LEAVE_PURGED], !_i);
	mw_free(w);
}
END_TEST

UNIT_MAIN("mig_proof", UNIT_LOOP(why_there_is_no_proof_is_the_same_on_every_node_and_goes_when_the_node_is_back, 0, ARRAY_SIZE(reasons)),
	  UNIT_TEST(who_leads_next_and_who_comes_later_say_it_too), UNIT_LOOP(a_proof_ends_it, 0, 2),
	  UNIT_LOOP(a_node_that_was_purged_says_what_is_done_and_no_more, 0, 2))
