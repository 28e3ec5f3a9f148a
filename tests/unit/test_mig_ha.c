/*
 * migrator/mig_ha.c, mig_proof.c, mig_def.c, mig_place.c: what becomes of VMs when nodes and daemons are lost.
 */
#include "tests/unit/mig_world.h"

#include <errno.h>
#include <string.h>

static bool state_is(struct mw *w, const char *vm, enum lease_state s)
{
	const struct lease *l = mw_lease(w, vm);

	return l && l->state == s;
}

static bool vm1_blocked(struct mw *w) { return state_is(w, "vm1", LEASE_BLOCKED); }
static bool vm1_off_n3(struct mw *w) { return mw_runs_on(w, "vm1") == 1 || mw_runs_on(w, "vm1") == 2; }

static unsigned all_running(struct mw *w, unsigned n)
{
	unsigned k = 0;
	char name[16];

	for (unsigned i = 1; i <= n; i++) {
		snprintf(name, sizeof(name), "vm%u", i);
		k += mw_runs_on(w, name) == 1 || mw_runs_on(w, name) == 2;
	}
	return k;
}
static bool three_run(struct mw *w) { return all_running(w, 3) == 3; }
static bool six_run(struct mw *w) { return all_running(w, 6) == 6; }

static unsigned began_at(struct mw *w, const char *vm)
{
	for (unsigned i = w->n_began; i > 0; i--)
		if (!strcmp(w->began[i - 1], vm))
			return i - 1;
	ck_abort_msg("%s was not begun", vm);
	return 0;
}

/* ---- priority, spreading ------------------------------------------------------------------------------------------------------------------- */

START_TEST(lost_vms_start_by_priority_one_after_the_other)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 3, 10);
	mw_vm_on(w, "vm2", 3, 200);
	mw_vm_on(w, "vm3", 3, 100);
	w->start_ns = 2 * NS_PER_SEC;
	mw_power_cut(w, 3);
	ck_assert(mw_until(w, 60 * NS_PER_SEC, three_run));
	/* HA2: a lower one waits until the higher one runs */
	ck_assert_uint_lt(began_at(w, "vm2"), began_at(w, "vm3"));
	ck_assert_uint_lt(began_at(w, "vm3"), began_at(w, "vm1"));
	ck_assert_uint_ge(w->began_ns[began_at(w, "vm3")], w->began_ns[began_at(w, "vm2")] + w->start_ns);
	ck_assert_uint_ge(w->began_ns[began_at(w, "vm1")], w->began_ns[began_at(w, "vm3")] + w->start_ns);
	mw_free(w);
}
END_TEST

START_TEST(one_that_does_not_start_holds_lower_ones_back_20_s_at_most)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 3, 10);
	mw_vm_on(w, "vm2", 3, 200);
	w->start_ns = 300 * NS_PER_SEC;
	mw_power_cut(w, 3);
	mw_run(w, 60 * NS_PER_SEC);
	ck_assert_uint_lt(began_at(w, "vm2"), began_at(w, "vm1"));
	ck_assert_uint_le(w->began_ns[began_at(w, "vm1")], w->began_ns[began_at(w, "vm2")] + 22 * NS_PER_SEC);
	mw_free(w);
}
END_TEST

START_TEST(one_that_no_node_can_have_holds_nobody_back)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 3, 10);
	mw_vm_on(w, "vm2", 3, 200);
	mw_def_of(w, "vm2")->memory = 100 * MW_GB;
	mw_def_of(w, "vm2")->config = 2;
	mw_run(w, 12 * NS_PER_SEC);	/* the leader reads definitions every 10 s */
	mw_power_cut(w, 3);
	ck_assert(mw_until(w, 10 * NS_PER_SEC, vm1_off_n3));
	mw_free(w);
}
END_TEST

START_TEST(one_that_waits_for_a_place_says_why)
{
	struct mw *w = mw_new();
	json_t *vm;

	mw_define(w, "vm1", "run", 100, 100 * MW_GB);
	mw_run(w, 30 * NS_PER_SEC);
	ck_assert_uint_eq(mw_lease(w, "vm1")->state, LEASE_FREE);
	vm = json_array_get(json_object_get(mw_ask(w, 3, "vm.list", NULL), "items"), 0);
	ck_assert_ptr_nonnull(strstr(mig_text(vm, "reason"), "n2 has not enough free memory"));
	mw_free(w);
}
END_TEST

START_TEST(vms_of_a_lost_node_are_spread)
{
	struct mw *w = mw_new();
	unsigned on[MW_NODES + 1] = { 0 };
	char name[16];

	for (unsigned i = 1; i <= 6; i++) {
		snprintf(name, sizeof(name), "vm%u", i);
		mw_vm_on(w, name, 3, 100);
	}
	mw_power_cut(w, 3);
	ck_assert(mw_until(w, 60 * NS_PER_SEC, six_run));
	for (unsigned i = 1; i <= 6; i++) {
		snprintf(name, sizeof(name), "vm%u", i);
		on[mw_runs_on(w, name)]++;
	}
	ck_assert_msg(on[1] == 3 && on[2] == 3, "%u on n1, %u on n2", on[1], on[2]);
	mw_free(w);
}
END_TEST

START_TEST(no_node_is_given_more_than_its_memory)
{
	struct mw *w = mw_new();
	json_int_t used[MW_NODES + 1] = { 0 };
	unsigned run = 0;
	char name[16];

	for (unsigned i = 1; i <= 6; i++) {
		snprintf(name, sizeof(name), "vm%u", i);
		mw_define(w, name, "stopped", 100, 3 * MW_GB);
		w->node[3].memory = 64 * MW_GB;
	}
	mw_agent_kill(w, 3);
	mw_agent_start(w, 3);
	for (unsigned i = 1; i <= 6; i++) {
		snprintf(name, sizeof(name), "vm%u", i);
		mw_vm_on(w, name, 3, 100);
	}
	mw_power_cut(w, 3);
	mw_run(w, 60 * NS_PER_SEC);
	for (unsigned i = 1; i <= 6; i++) {
		snprintf(name, sizeof(name), "vm%u", i);
		if (mw_runs_on(w, name)) {
			used[mw_runs_on(w, name)] += 3 * MW_GB;
			run++;
		}
	}
	ck_assert_int_le(used[1], 8 * MW_GB);
	ck_assert_int_le(used[2], 8 * MW_GB);
	ck_assert_uint_eq(run, 4);
	mw_free(w);
}
END_TEST

/* ---- failing starts -------------------------------------------------------------------------------------------------------------------------- */

static bool stopped_for_good(struct mw *w)
{
	const struct lease *l = mw_lease(w, "vm1");

	return l && l->state == LEASE_FREE && l->failures >= 3;
}

START_TEST(a_start_that_fails_is_tried_again_elsewhere_with_back_off_then_given_up_with_a_reason)
{
	struct mw *w = mw_new();
	const json_t *e;
	json_t *r;
	uint64_t t[3];

	mw_define(w, "vm1", "run", 100, 256 * MW_MB);
	w->start_fails = 3;
	ck_assert(mw_until(w, 120 * NS_PER_SEC, stopped_for_good));
	ck_assert_uint_eq(w->n_began, 3);
	for (unsigned i = 0; i < 3; i++)
		t[i] = w->began_ns[i];
	ck_assert_uint_ne(w->began_on[0], w->began_on[1]);
	ck_assert_msg(t[1] - t[0] >= w->start_ns + 2 * NS_PER_SEC, "tried again after %.1f s", (double)(t[1] - t[0]) / 1e9);
	ck_assert_uint_ge(t[2] - t[1], 2 * (t[1] - t[0] - w->start_ns));
	mw_run(w, 60 * NS_PER_SEC);
	ck_assert_uint_eq(w->n_began, 3);
	e = mw_event(w, 1, "stopped: ");
	ck_assert_str_ne(mig_text(e, "command"), "");
	r = mw_ask(w, 2, "ha.status", NULL);
	ck_assert_str_ne(mig_text(json_array_get(json_object_get(r, "items"), 0), "reason"), "");
	/* who asks for it by hand is told why it does not start, and what to type */
	w->start_fails = 3;
	e = mw_job(w, 2, "vm.start", json_pack("{s:s}", "name", "vm1"), 60 * NS_PER_SEC);
	ck_assert_int_eq(mig_int(e, "code"), RPC_FAILED);
	ck_assert_msg(strstr(mig_text(e, "message"), "the last was: bridge nobr: No such device") &&
		      strstr(mig_text(e, "message"), "csvctl vm start vm1"), "%s", mig_text(e, "message"));
	r = mw_ask(w, 1, "vm.delete", json_pack("{s:s}", "name", "vm1"));
	ck_assert_msg(strstr(mig_text(r, "message"), "it is to run") != NULL, "%s", mig_text(r, "message"));
	/* a person's word begins anew */
	ck_assert_int_eq(mig_int(mw_job(w, 2, "vm.start", json_pack("{s:s}", "name", "vm1"), 60 * NS_PER_SEC), "code"), 0);
	ck_assert_uint_ne(mw_runs_on(w, "vm1"), 0);
	mw_free(w);
}
END_TEST

static bool runs_again(struct mw *w) { return w->n_began >= 2 && mw_runs_on(w, "vm1"); }

START_TEST(a_qemu_that_dies_now_and_then_is_started_each_time)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 2, 100);
	for (unsigned k = 0; k < 6; k++) {
		uint32_t at = mw_runs_on(w, "vm1");
		struct mw_vm *v = mw_vm_of(w, at, "vm1");

		w->n_began = 1;
		v->there = v->runs = false;
		mw_new_ring(w);		/* its agent looks */
		ck_assert_msg(mw_until(w, 120 * NS_PER_SEC, runs_again), "time %u", k);
		mw_run(w, 900 * NS_PER_SEC);
	}
	mw_free(w);
}
END_TEST

/* ---- daemons that die --------------------------------------------------------------------------------------------------------------------------- */

START_TEST(the_death_of_migratord_fences_nobody)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 2, 100);
	mw_daemon_kill(w, 2);
	mw_run(w, 120 * NS_PER_SEC);
	ck_assert_uint_eq(w->n_fenced[2], 0);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 2);
	ck_assert_ptr_nonnull(mw_event(w, 1, "migratord"));
	ck_assert_ptr_null(mw_event(w, 1, "without a word"));
	ck_assert_str_eq(mig_place_refuses(mw_leader(w), 2, "vm1"), "has no migratord running (there: systemctl start migratord)");
	mw_daemon_start(w, 2);
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert(state_is(w, "vm1", LEASE_RUNNING));
	ck_assert_uint_eq(mw_lease(w, "vm1")->epoch, 1);
	mw_free(w);
}
END_TEST

START_TEST(the_death_of_two_migratords_fences_nobody_and_who_leads_next_knows_it)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 2, 100);
	mw_vm_on(w, "vm2", 1, 100);
	mw_daemon_kill(w, 2);
	mw_run(w, 2 * NS_PER_SEC);
	mw_daemon_kill(w, 1);		/* the leader; it comes back and knows nothing */
	mw_run(w, 1 * NS_PER_SEC);
	mw_daemon_start(w, 1);
	mw_run(w, 60 * NS_PER_SEC);
	ck_assert_uint_eq(w->n_fenced[1] + w->n_fenced[2], 0);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 2);
	ck_assert_uint_eq(mw_runs_on(w, "vm2"), 1);
	mw_free(w);
}
END_TEST

START_TEST(a_node_that_dies_after_its_migratord_is_fenced)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 3, 100);
	mw_daemon_kill(w, 3);
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert_uint_eq(w->n_fenced[3], 0);
	mw_power_cut(w, 3);
	ck_assert(mw_until(w, 20 * NS_PER_SEC, vm1_off_n3));
	ck_assert_uint_ge(w->n_fenced[3], 1);
	mw_free(w);
}
END_TEST

/* ---- the network heals piece by piece (ND4) ---------------------------------------------------------------------------------------------------- */

/* Nobody has quorum for a while; nodes 1 and 2 meet first, vm1 is on node 3. */
static struct mw *apart_then_two_meet(void)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 3, 100);
	mw_apart(w);
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert_ptr_null(mw_leader(w));
	mw_meet(w, 1, 2);
	return w;
}

START_TEST(who_comes_a_moment_late_after_a_time_without_quorum_keeps_its_vms)
{
	struct mw *w = apart_then_two_meet();

	mw_run(w, MW_ROUND_NS - 100 * NS_PER_MS);
	ck_assert(mw_leader(w) && mig_settled(mw_leader(w)));
	ck_assert_uint_eq(w->n_fenced[3], 0);
	ck_assert(state_is(w, "vm1", LEASE_RUNNING));
	ck_assert_ptr_nonnull(mw_event(w, 1, "perhaps on its way"));
	mw_heal(w);
	mw_run(w, 120 * NS_PER_SEC);
	ck_assert_uint_eq(w->n_fenced[3], 0);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 3);
	ck_assert(state_is(w, "vm1", LEASE_RUNNING));
	ck_assert_uint_eq(mw_lease(w, "vm1")->epoch, 1);
	ck_assert_ptr_null(mw_event(w, 1, "without a word"));
	mw_free(w);
}
END_TEST

START_TEST(who_does_not_come_within_a_round_is_fenced_then)
{
	struct mw *w = apart_then_two_meet();
	uint64_t t0 = w->clk.now_ns;

	ck_assert(mw_until(w, 60 * NS_PER_SEC, vm1_off_n3));
	ck_assert_uint_eq(w->n_fenced[3], 1);
	ck_assert_uint_ge(w->clk.now_ns - t0, MW_ROUND_NS + w->fence_ns);
	ck_assert_uint_le(w->clk.now_ns - t0, MW_ROUND_NS + w->fence_ns + 3 * NS_PER_SEC);
	mw_free(w);
}
END_TEST

START_TEST(who_came_and_goes_again_within_the_round_is_fenced_at_once)
{
	struct mw *w = apart_then_two_meet();
	uint64_t t0;

	mw_run(w, 200 * NS_PER_MS);
	mw_heal(w);
	mw_run(w, 200 * NS_PER_MS);
	t0 = w->clk.now_ns;
	mw_power_cut(w, 3);
	ck_assert(mw_until(w, 60 * NS_PER_SEC, vm1_off_n3));
	ck_assert_uint_lt(w->clk.now_ns - t0, w->fence_ns + 2500 * NS_PER_MS);	/* agent, 3 R of heartbeats, start */
	mw_free(w);
}
END_TEST

/* The leader's first view is the one without node 3, which node 2 has seen go. */
START_TEST(a_leader_that_has_just_come_believes_who_saw_the_loss)
{
	struct mw *w = mw_new();
	uint64_t t0;

	mw_vm_on(w, "vm1", 3, 100);
	mw_cut(w, 1);
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert_uint_eq(mig_leader(mw_leader(w)), 2);
	/* One ring has both: node 1 comes, node 3 is gone. */
	w->node[1].part = 0;
	mw_power_cut(w, 3);
	t0 = w->clk.now_ns;
	ck_assert(mw_until(w, 60 * NS_PER_SEC, vm1_off_n3));
	ck_assert_uint_eq(mig_leader(mw_leader(w)), 1);
	ck_assert_uint_eq(w->n_fenced[3], 1);
	ck_assert_msg(w->clk.now_ns - t0 < w->fence_ns + 3 * NS_PER_SEC, "%u ms", (unsigned)((w->clk.now_ns - t0) / NS_PER_MS));
	mw_free(w);
}
END_TEST

/* Its item of the life before said that hvhostd was there. */
START_TEST(a_rebooted_node_gets_no_vm_before_its_hvhostd_is_there)
{
	struct mw *w = mw_new();
	char why[400];

	mw_vm_on(w, "vm1", 2, 100);
	mw_power_cut(w, 3);
	mw_run(w, 5 * NS_PER_SEC);
	mw_boot(w, 3, false);
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert(mig_is_member(mw_leader(w), 3));
	ck_assert_str_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), "has no hvhostd running (there: systemctl start hvhostd)");
	ck_assert_uint_eq(mig_place(mw_leader(w), "vm1", 0, 2, why, sizeof(why)), 1);
	mw_agent_start(w, 3);
	mw_run(w, 2 * NS_PER_SEC);
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), NULL);
	mw_free(w);
}
END_TEST

START_TEST(a_restarted_migratord_believes_its_own_hvhostd_and_not_its_past)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 2, 100);
	mw_daemon_kill(w, 2);
	mw_agent_kill(w, 2);		/* hvhostd died with it, and is not back */
	mw_daemon_start(w, 2);
	mw_run(w, 5 * NS_PER_SEC);
	for (uint32_t i = 1; i <= 3; i++)
		ck_assert_msg(!mig_host_ready(w->node[i].m, 2), "n%u believes that hvhostd is there on n2", i);
	mw_free(w);
}
END_TEST

START_TEST(a_start_on_a_node_whose_hvhostd_dies_is_told_to_people)
{
	struct mw *w = mw_new();

	w->start_ns = 60 * NS_PER_SEC;
	mw_define(w, "vm1", "run", 100, 256 * MW_MB);
	while (!w->n_began)
		mw_run(w, 100 * NS_PER_MS);
	mw_agent_kill(w, w->began_on[0]);
	mw_run(w, 20 * NS_PER_SEC);
	ck_assert_ptr_nonnull(mw_event(w, 1, "hvhostd is away there"));
	mw_free(w);
}
END_TEST

/* ---- proofs --------------------------------------------------------------------------------------------------------------------------------------- */

START_TEST(without_a_fence_agent_it_is_blocked_with_reason_and_command_until_somebody_says_so)
{
	struct mw *w = mw_new();
	json_t *r, *vm;

	w->fence_rc[3] = -ENOENT;
	mw_vm_on(w, "vm1", 3, 100);
	mw_power_cut(w, 3);
	ck_assert(mw_until(w, 20 * NS_PER_SEC, vm1_blocked));
	r = mw_ask(w, 2, "vm.list", NULL);
	vm = json_array_get(json_object_get(r, "items"), 0);
	ck_assert_str_eq(mig_text(vm, "state"), "BLOCKED");
	ck_assert_ptr_nonnull(strstr(mig_text(vm, "command"), "csvctl node confirm-fenced n3"));
	ck_assert_ptr_nonnull(mw_event(w, 2, "BLOCKED: "));
	/* PR3 */
	w->hbeat_moves[3] = true;
	r = mw_ask(w, 2, "node.confirm-fenced", json_pack("{s:i}", "nodeid", 3));
	ck_assert_int_eq(mw_code(r), RPC_REFUSED);
	w->hbeat_moves[3] = false;
	w->hbeat_rc = -EIO;
	r = mw_ask(w, 2, "node.confirm-fenced", json_pack("{s:i}", "nodeid", 3));
	ck_assert_int_eq(mw_code(r), RPC_REFUSED);
	w->hbeat_rc = 0;
	r = mw_ask(w, 2, "node.confirm-fenced", json_pack("{s:i}", "nodeid", 1));
	ck_assert_int_eq(mw_code(r), RPC_REFUSED);
	/* of a member no reason is good enough: its heartbeat would let it pass */
	r = mw_ask(w, 2, "node.confirm-fenced", json_pack("{s:i, s:s}", "nodeid", 1, "force", "I saw it"));
	ck_assert_int_eq(mig_int(r, "code"), RPC_REFUSED);
	ck_assert_ptr_nonnull(strstr(mig_text(r, "message"), "is a member"));
	r = mw_ask(w, 2, "node.confirm-fenced", json_pack("{s:i}", "nodeid", 9));
	ck_assert_int_eq(mw_code(r), RPC_NOT_FOUND);
	ck_assert(vm1_blocked(w));
	r = mw_ask(w, 2, "node.confirm-fenced", json_pack("{s:i}", "nodeid", 3));
	ck_assert_int_eq(mw_code(r), RPC_OK);
	ck_assert(mw_until(w, 20 * NS_PER_SEC, vm1_off_n3));
	mw_free(w);
}
END_TEST

START_TEST(a_forced_word_is_in_the_event_log_with_its_reason)
{
	struct mw *w = mw_new();

	w->fence_rc[3] = -ENOENT;
	w->hbeat_moves[3] = true;
	mw_vm_on(w, "vm1", 3, 100);
	mw_power_cut(w, 3);
	ck_assert(mw_until(w, 20 * NS_PER_SEC, vm1_blocked));
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "node.confirm-fenced", json_pack("{s:i, s:s}", "nodeid", 3, "force", "pulled its plugs"))), RPC_OK);
	ck_assert_ptr_nonnull(mw_event(w, 2, "pulled its plugs"));
	ck_assert(mw_until(w, 20 * NS_PER_SEC, vm1_off_n3));
	mw_free(w);
}
END_TEST

START_TEST(an_agent_that_switches_another_node_is_found_out_by_the_heartbeat)
{
	struct mw *w = mw_new();

	w->fence_lies[3] = true;
	mw_vm_on(w, "vm1", 3, 100);
	mw_cut(w, 3);			/* it lives, and runs the VM */
	ck_assert(mw_until(w, 30 * NS_PER_SEC, vm1_blocked));
	ck_assert_uint_eq(mw_lease(w, "vm1")->reason, LEASE_REASON_NO_SWITCH);
	ck_assert_ptr_nonnull(mw_event(w, 1, "fence device of n3 does not switch n3"));
	mw_run(w, 60 * NS_PER_SEC);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 3);	/* nobody else began it */
	ck_assert_uint_ge(w->n_fenced[3], 3);		/* it goes on trying */
	mw_heal(w);
	mw_run(w, 10 * NS_PER_SEC);
	ck_assert(state_is(w, "vm1", LEASE_RUNNING));
	ck_assert_uint_eq(mw_lease(w, "vm1")->epoch, 1);
	mw_free(w);
}
END_TEST

/* The view goes between the question and the proof: nothing was confirmed, and the answer must say so. */
START_TEST(a_word_that_could_not_be_given_is_not_confirmed)
{
	struct mw *w = mw_new();

	w->fence_rc[3] = -ENOENT;
	mw_vm_on(w, "vm1", 3, 100);
	mw_power_cut(w, 3);
	ck_assert(mw_until(w, 20 * NS_PER_SEC, vm1_blocked));
	mw_ask_begin(w, 1, "node.confirm-fenced", json_pack("{s:i}", "nodeid", 3));
	mw_run(w, 1400 * NS_PER_MS);		/* it looks at the heartbeat for 1.5 s */
	ck_assert(!w->replied);
	mw_cut(w, 1);
	mw_run(w, 40 * NS_PER_SEC);
	ck_assert(w->replied);
	ck_assert_int_ne(mw_code(w->reply), RPC_OK);
	mw_free(w);
}
END_TEST

/* ---- quarantine ----------------------------------------------------------------------------------------------------------------------------------- */

START_TEST(lost_three_times_in_an_hour_it_is_quarantined_two_hours)
{
	struct mw *w = mw_new();
	const json_t *e;

	mw_vm_on(w, "vm1", 2, 100);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), NULL);
		mw_power_cut(w, 3);
		mw_run(w, 600 * NS_PER_SEC);
		mw_boot(w, 3, true);
		mw_run(w, 60 * NS_PER_SEC);
	}
	ck_assert_str_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), "is quarantined after three losses in an hour");
	e = mw_event(w, 1, "no VM is placed there for two hours");
	ck_assert_str_eq(mig_text(e, "command"), "csvctl node resume n3");
	mw_run(w, 7000 * NS_PER_SEC);
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), NULL);
	mw_free(w);
}
END_TEST

START_TEST(three_losses_in_two_hours_are_no_reason_and_resume_forgets_them)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 2, 100);
	for (unsigned i = 0; i < 3; i++) {
		mw_power_cut(w, 3);
		mw_run(w, 5 * NS_PER_SEC);
		mw_boot(w, 3, true);
		mw_run(w, 2000 * NS_PER_SEC);
	}
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), NULL);
	for (unsigned i = 0; i < 2; i++) {
		mw_power_cut(w, 3);
		mw_run(w, 5 * NS_PER_SEC);
		mw_boot(w, 3, true);
		mw_run(w, 10 * NS_PER_SEC);
	}
	ck_assert_ptr_nonnull(mig_place_refuses(mw_leader(w), 3, "vm1"));
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "node.resume", json_pack("{s:i, s:s}", "nodeid", 3, "node", "n3"))), 0);
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), NULL);
	mw_free(w);
}
END_TEST

/* ---- definitions ------------------------------------------------------------------------------------------------------------------------------------- */

static bool vm1_runs(struct mw *w) { return mw_runs_on(w, "vm1") != 0; }

START_TEST(after_all_were_off_vms_start_as_their_definitions_say)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 2, 7);
	mw_vm_on(w, "vm2", 3, 9);
	mw_def_of(w, "vm2")->want = "stopped";
	for (uint32_t i = 1; i <= 3; i++)
		mw_power_cut(w, i);
	for (uint32_t i = 1; i <= 3; i++)
		mw_boot(w, i, true);
	ck_assert(mw_until(w, 60 * NS_PER_SEC, vm1_runs));
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert_uint_eq(mw_lease(w, "vm1")->priority, 7);
	ck_assert(state_is(w, "vm2", LEASE_FREE));
	ck_assert_uint_eq(mw_runs_on(w, "vm2"), 0);
	mw_free(w);
}
END_TEST

START_TEST(a_node_that_stayed_away_from_a_cold_start_blocks_what_may_run_there)
{
	struct mw *w = mw_new();

	w->fence_rc[3] = -ENOENT;
	mw_vm_on(w, "vm1", 3, 100);
	mw_cut(w, 3);
	mw_run(w, 2 * NS_PER_SEC);
	mw_power_cut(w, 1);
	mw_power_cut(w, 2);
	mw_boot(w, 1, true);
	mw_boot(w, 2, true);
	mw_run(w, 60 * NS_PER_SEC);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 3);
	ck_assert(vm1_blocked(w));
	ck_assert_ptr_nonnull(strstr(mig_text(json_array_get(json_object_get(mw_ask(w, 1, "vm.list", NULL), "items"), 0), "command"),
				     "csvctl node confirm-fenced n3"));
	mw_heal(w);
	mw_run(w, 20 * NS_PER_SEC);
	ck_assert(state_is(w, "vm1", LEASE_RUNNING));
	mw_free(w);
}
END_TEST

START_TEST(a_definition_that_cannot_be_read_is_told_and_gets_no_lease)
{
	struct mw *w = mw_new();

	mw_define(w, "vm1", "run", 100, MW_GB)->error = "definition: line 3: want: no such value";
	mw_run(w, 30 * NS_PER_SEC);
	ck_assert_ptr_null(mw_lease(w, "vm1"));
	ck_assert_ptr_nonnull(mw_event(w, 2, "line 3: want"));
	mw_def_of(w, "vm1")->error = NULL;
	ck_assert(mw_until(w, 30 * NS_PER_SEC, vm1_runs));
	mw_free(w);
}
END_TEST

UNIT_MAIN("mig_ha", UNIT_TEST(lost_vms_start_by_priority_one_after_the_other), UNIT_TEST(one_that_does_not_start_holds_lower_ones_back_20_s_at_most),
	  UNIT_TEST(one_that_no_node_can_have_holds_nobody_back), UNIT_TEST(one_that_waits_for_a_place_says_why), UNIT_TEST(vms_of_a_lost_node_are_spread),
	  UNIT_TEST(no_node_is_given_more_than_its_memory),
	  UNIT_TEST(a_start_that_fails_is_tried_again_elsewhere_with_back_off_then_given_up_with_a_reason),
	  UNIT_TEST(a_qemu_that_dies_now_and_then_is_started_each_time), UNIT_TEST(the_death_of_migratord_fences_nobody),
	  UNIT_TEST(the_death_of_two_migratords_fences_nobody_and_who_leads_next_knows_it), UNIT_TEST(a_node_that_dies_after_its_migratord_is_fenced),
	  UNIT_TEST(who_comes_a_moment_late_after_a_time_without_quorum_keeps_its_vms),
	  UNIT_TEST(who_does_not_come_within_a_round_is_fenced_then),
	  UNIT_TEST(who_came_and_goes_again_within_the_round_is_fenced_at_once),
	  UNIT_TEST(a_leader_that_has_just_come_believes_who_saw_the_loss),
	  UNIT_TEST(a_rebooted_node_gets_no_vm_before_its_hvhostd_is_there),
	  UNIT_TEST(a_restarted_migratord_believes_its_own_hvhostd_and_not_its_past),
	  UNIT_TEST(a_start_on_a_node_whose_hvhostd_dies_is_told_to_people),
	  UNIT_TEST(without_a_fence_agent_it_is_blocked_with_reason_and_command_until_somebody_says_so),
	  UNIT_TEST(a_forced_word_is_in_the_event_log_with_its_reason), UNIT_TEST(an_agent_that_switches_another_node_is_found_out_by_the_heartbeat),
	  UNIT_TEST(a_word_that_could_not_be_given_is_not_confirmed), UNIT_TEST(lost_three_times_in_an_hour_it_is_quarantined_two_hours),
	  UNIT_TEST(three_losses_in_two_hours_are_no_reason_and_resume_forgets_them), UNIT_TEST(after_all_were_off_vms_start_as_their_definitions_say),
	  UNIT_TEST(a_node_that_stayed_away_from_a_cold_start_blocks_what_may_run_there),
	  UNIT_TEST(a_definition_that_cannot_be_read_is_told_and_gets_no_lease))
