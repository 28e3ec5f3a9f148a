/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * migrator/mig_start.c: a start that a person asked for and that fails leaves the VM off, for good; what was to run before goes on being so.
 */
#include "tests/unit/mig_world.h"

#include <string.h>

static json_t *name(const char *vm) { return json_pack("{s:s}", "name", vm); }
static json_t *node(int id) { return json_pack("{s:i, s:s}", "nodeid", id, "node", id == 1 ? "n1" : id == 2 ? "n2" : "n3"); }
static bool vm1_known(struct mw *w) { return mw_lease(w, "vm1") != NULL; }
static bool vm1_runs(struct mw *w) { return mw_runs_on(w, "vm1") != 0; }

static struct mw *world(const char *want)
{
	struct mw *w = mw_new();

	mw_define(w, "vm1", want, 100, 256 * MW_MB);
	ck_assert(mw_until(w, 30 * NS_PER_SEC, vm1_known));
	return w;
}

static void memory(struct mw *w, json_int_t bytes)
{
	for (uint32_t id = 1; id <= MW_NODES; id++) {
		w->node[id].memory = bytes;
		mw_host_news(w, id);
	}
}

/* Whatever happens in the cluster: it stays off until somebody asks again, who then gets it. */
static void check_off(struct mw *w, unsigned began)
{
	ck_assert_str_eq(mw_def_of(w, "vm1")->want, "stopped");
	ck_assert_uint_eq(mw_lease(w, "vm1")->want, LEASE_WANT_STOPPED);
	mw_job(w, 1, "ha.set", json_pack("{s:s, s:b, s:s}", "name", "vm1", "ha", true, "priority", "7"), 30 * NS_PER_SEC);
	mw_power_cut(w, 3);
	mw_run(w, 60 * NS_PER_SEC);
	mw_boot(w, 3, true);
	mw_run(w, 60 * NS_PER_SEC);
	mw_all_off(w);
	for (uint32_t id = 1; id <= MW_NODES; id++)
		mw_boot(w, id, true);
	mw_run(w, 120 * NS_PER_SEC);
	ck_assert_uint_eq(w->n_began, began);
	ck_assert_int_eq(mig_int(mw_job(w, 2, "vm.start", name("vm1"), 60 * NS_PER_SEC), "code"), 0);
	ck_assert(vm1_runs(w));
}

START_TEST(a_start_that_no_node_could_do_is_reported_and_leaves_the_vm_off)
{
	struct mw *w = world("stopped");
	const json_t *job;

	w->start_fails = 3;
	job = mw_job(w, 2, "vm.start", name("vm1"), 120 * NS_PER_SEC);
	ck_assert_int_eq(mig_int(job, "code"), RPC_FAILED);
	ck_assert_msg(strstr(mig_text(job, "message"), "bridge nobr: No such device") && strstr(mig_text(job, "message"), "it stays off"), "%s",
		      mig_text(job, "message"));
	ck_assert_ptr_nonnull(mw_event(w, 3, "it stays off"));
	check_off(w, 3);
	mw_free(w);
}
END_TEST

/* There was a place when it was asked for, and none when its turn came. */
START_TEST(a_start_that_finds_no_place_is_reported_and_leaves_the_vm_off)
{
	struct mw *w = world("stopped");
	const json_t *job = NULL;
	char key[MIG_KEY_MAX];
	json_t *r;

	mw_define(w, "first", "stopped", 200, 256 * MW_MB);
	mw_run(w, 15 * NS_PER_SEC);
	w->start_ns = 15 * NS_PER_SEC;
	ck_assert_int_eq(mw_code(mw_ask(w, 1, "vm.start", name("first"))), RPC_ACCEPTED);
	mw_run(w, NS_PER_SEC);
	r = mw_ask(w, 1, "vm.start", name("vm1"));
	ck_assert_int_eq(mw_code(r), RPC_ACCEPTED);
	snprintf(key, sizeof(key), "job/%s", mig_text(r, "job"));
	mw_run(w, NS_PER_SEC);
	memory(w, 128 * MW_MB);
	for (unsigned s = 0; s < 90 && (!job || !strcmp(mig_text(job, "state"), "running")); s++) {
		mw_run(w, NS_PER_SEC);
		job = mig_item_get(w->node[1].m, key);
	}
	ck_assert_int_eq(mig_int(job, "code"), RPC_CONFLICT);
	ck_assert_msg(strstr(mig_text(job, "message"), "n2 has not enough free memory") && strstr(mig_text(job, "message"), "it stays off"), "%s",
		      mig_text(job, "message"));
	memory(w, 8 * MW_GB);
	w->start_ns = 200 * NS_PER_MS;
	mw_run(w, 120 * NS_PER_SEC);
	ck_assert(!vm1_runs(w));
	ck_assert_uint_eq(w->n_began, 1);
	ck_assert_str_eq(mw_def_of(w, "vm1")->want, "stopped");
	mw_free(w);
}
END_TEST

/* A node that comes in time is taken: a failed start is one that was waited for. */
START_TEST(a_place_that_comes_within_the_wait_is_taken)
{
	struct mw *w = world("stopped");
	const json_t *job;
	char key[MIG_KEY_MAX];
	json_t *r;

	mw_define(w, "first", "stopped", 200, 256 * MW_MB);
	mw_run(w, 15 * NS_PER_SEC);
	w->start_ns = 4 * NS_PER_SEC;
	ck_assert_int_eq(mw_code(mw_ask(w, 1, "vm.start", name("first"))), RPC_ACCEPTED);
	mw_run(w, NS_PER_SEC);
	r = mw_ask(w, 1, "vm.start", name("vm1"));
	snprintf(key, sizeof(key), "job/%s", mig_text(r, "job"));
	mw_run(w, NS_PER_SEC);
	memory(w, 128 * MW_MB);
	mw_run(w, 7 * NS_PER_SEC);
	memory(w, 8 * MW_GB);
	mw_run(w, 10 * NS_PER_SEC);
	job = mig_item_get(w->node[1].m, key);
	ck_assert_msg(!strcmp(mig_text(job, "state"), "done") && !mig_int(job, "code"), "%s: %s", mig_text(job, "state"), mig_text(job, "message"));
	ck_assert(vm1_runs(w));
	mw_free(w);
}
END_TEST

/* It was to run before anybody asked: that wish is not this request's to take back. */
START_TEST(what_was_to_run_before_stays_so_and_the_answer_says_how_to_end_that)
{
	static const char takes_back[] = "it is to run all the same, as before; to take that back: csvctl vm stop vm1";
	struct mw *w = mw_new();
	const json_t *job;
	json_t *r;

	for (int id = 1; id <= 3; id++)
		mw_job(w, 1, "node.drain", node(id), 60 * NS_PER_SEC);
	mw_define(w, "vm1", "run", 100, 256 * MW_MB);
	ck_assert(mw_until(w, 30 * NS_PER_SEC, vm1_known));
	r = mw_ask(w, 2, "vm.start", name("vm1"));
	ck_assert_int_eq(mw_code(r), RPC_CONFLICT);
	ck_assert_msg(strstr(mig_text(r, "message"), takes_back) != NULL, "%s", mig_text(r, "message"));
	w->start_fails = 6;
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "node.resume", node(2))), RPC_OK);
	mw_run(w, 60 * NS_PER_SEC);
	ck_assert_uint_eq(w->n_began, 3);
	job = mw_job(w, 2, "vm.start", name("vm1"), 60 * NS_PER_SEC);
	ck_assert_int_eq(mig_int(job, "code"), RPC_FAILED);
	ck_assert_msg(strstr(mig_text(job, "message"), takes_back) != NULL, "%s", mig_text(job, "message"));
	ck_assert_str_eq(mw_def_of(w, "vm1")->want, "run");
	ck_assert_uint_eq(mw_lease(w, "vm1")->want, LEASE_WANT_RUN);
	mw_free(w);
}
END_TEST

/* Its node was lost after somebody had stopped it: whether it runs is not known, and a start changes nothing about that. */
START_TEST(a_start_of_a_blocked_vm_needs_proof_and_wishes_nothing)
{
	struct mw *w = mw_new();
	const json_t *job;

	w->fence_rc[3] = -5;
	mw_vm_on(w, "vm1", 3, 100);
	mw_cut(w, 3);
	mw_run(w, 20 * NS_PER_SEC);
	ck_assert_uint_eq(mw_lease(w, "vm1")->state, LEASE_BLOCKED);
	ck_assert_int_eq(mig_int(mw_job(w, 1, "vm.stop", name("vm1"), 30 * NS_PER_SEC), "code"), RPC_NEEDS_PROOF);
	ck_assert_uint_eq(mw_lease(w, "vm1")->want, LEASE_WANT_STOPPED);
	job = mw_job(w, 1, "vm.start", name("vm1"), 30 * NS_PER_SEC);
	ck_assert_int_eq(mig_int(job, "code"), RPC_NEEDS_PROOF);
	ck_assert_ptr_null(strstr(mig_text(job, "message"), "stays off"));
	ck_assert_uint_eq(mw_lease(w, "vm1")->want, LEASE_WANT_STOPPED);
	ck_assert_str_eq(mw_def_of(w, "vm1")->want, "stopped");
	mw_free(w);
}
END_TEST

/* The definition cannot be written when it is given up: the wish stands, and that is said. */
START_TEST(a_wish_that_cannot_be_taken_back_is_said_to_stand)
{
	struct mw *w = world("stopped");
	const json_t *job;
	char key[MIG_KEY_MAX];

	mw_run(w, 15 * NS_PER_SEC);
	w->start_fails = 1;
	w->start_ns = NS_PER_SEC;
	snprintf(key, sizeof(key), "job/%s", mig_text(mw_ask(w, 1, "vm.start", name("vm1")), "job"));
	mw_run(w, 1500 * NS_PER_MS);
	for (uint32_t id = 1; id <= MW_NODES; id++)
		mw_agent_kill(w, id);
	mw_run(w, 60 * NS_PER_SEC);
	job = mig_item_get(w->node[1].m, key);
	ck_assert_int_eq(mig_int(job, "code"), RPC_CONFLICT);
	ck_assert_msg(strstr(mig_text(job, "message"), "could not be taken back") && strstr(mig_text(job, "message"), "csvctl vm stop vm1"), "%s",
		      mig_text(job, "message"));
	for (uint32_t id = 1; id <= MW_NODES; id++)
		mw_agent_start(w, id);
	ck_assert(mw_until(w, 60 * NS_PER_SEC, vm1_runs));
	mw_free(w);
}
END_TEST

UNIT_MAIN("mig_start", UNIT_TEST(a_start_that_no_node_could_do_is_reported_and_leaves_the_vm_off),
	  UNIT_TEST(a_start_that_finds_no_place_is_reported_and_leaves_the_vm_off), UNIT_TEST(a_place_that_comes_within_the_wait_is_taken),
	  UNIT_TEST(what_was_to_run_before_stays_so_and_the_answer_says_how_to_end_that),
	  UNIT_TEST(a_start_of_a_blocked_vm_needs_proof_and_wishes_nothing), UNIT_TEST(a_wish_that_cannot_be_taken_back_is_said_to_stand))
