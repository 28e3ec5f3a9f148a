/*
 * migrator/mig_node.c, mig_vm.c, mig_job.c, mig_call.c: nodes drained and left; VMs made, stopped, deleted; requests and jobs when leaders go.
 */
#include "tests/unit/mig_world.h"

#include <errno.h>
#include <string.h>

static json_t *node(int id)
{
	char name[16];

	snprintf(name, sizeof(name), "n%d", id);
	return json_pack("{s:i, s:s}", "nodeid", id, "node", name);
}

static json_t *name(const char *vm)
{
	return json_pack("{s:s}", "name", vm);
}

static unsigned on_node(struct mw *w, uint32_t id)
{
	unsigned n = 0;

	for (unsigned i = 0; i < MW_VMS; i++)
		n += w->node[id].vm[i].runs;
	return n;
}

/* ---- drain, resume, shutdown ----------------------------------------------------------------------------------------------------------------- */

START_TEST(a_drained_node_is_empty_and_stays_so_until_it_is_resumed)
{
	struct mw *w = mw_new();
	char why[400];

	mw_vm_on(w, "vm1", 3, 100);
	mw_vm_on(w, "vm2", 3, 100);
	mw_vm_on(w, "vm3", 3, 100);
	ck_assert_int_eq(mig_int(mw_job(w, 1, "node.drain", node(3), 60 * NS_PER_SEC), "code"), 0);
	ck_assert_uint_eq(on_node(w, 3), 0);
	ck_assert_uint_eq(on_node(w, 1) + on_node(w, 2), 3);
	ck_assert_uint_le(on_node(w, 1), 2);
	ck_assert_uint_le(on_node(w, 2), 2);
	ck_assert_str_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), "is drained");
	mw_power_cut(w, 1);		/* the leader: it is known all the same */
	mw_run(w, 30 * NS_PER_SEC);
	ck_assert_uint_eq(on_node(w, 3), 0);
	ck_assert_uint_eq(on_node(w, 2), 3);
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "node.resume", node(3))), 0);
	ck_assert_uint_eq(mig_place(mw_leader(w), "vm1", 0, 2, why, sizeof(why)), 3);
	mw_free(w);
}
END_TEST

START_TEST(a_drain_says_of_each_vm_that_stays_why_and_stops_none)
{
	struct mw *w = mw_new();
	const json_t *job, *stayed;

	w->node[3].memory = 64 * MW_GB;
	mw_agent_kill(w, 3);
	mw_agent_start(w, 3);
	mw_define(w, "vm1", "stopped", 100, 20 * MW_GB);
	mw_vm_on(w, "vm1", 3, 100);
	mw_vm_on(w, "vm2", 3, 100);
	job = mw_job(w, 1, "node.drain", node(3), 60 * NS_PER_SEC);
	ck_assert_int_eq(mig_int(job, "code"), RPC_PARTIAL);
	stayed = json_object_get(json_object_get(job, "result"), "stayed");
	ck_assert_uint_eq(json_array_size(stayed), 1);
	ck_assert_str_eq(mig_text(json_array_get(stayed, 0), "vm"), "vm1");
	ck_assert_ptr_nonnull(strstr(mig_text(json_array_get(stayed, 0), "reason"), "memory"));
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 3);
	ck_assert_uint_ne(mw_runs_on(w, "vm2"), 3);
	mw_free(w);
}
END_TEST

START_TEST(a_drain_waits_for_what_is_just_starting_there_or_on_its_way)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 1, 100);
	mw_define(w, "vm2", "stopped", 100, MW_GB);
	mw_run(w, 15 * NS_PER_SEC);
	w->start_ns = 5 * NS_PER_SEC;
	w->move_ns = 3 * NS_PER_SEC;
	mw_ask(w, 1, "migration.start", json_pack("{s:s, s:s}", "vm", "vm1", "to", "n3"));
	mw_ask(w, 1, "vm.start", json_pack("{s:s, s:s}", "name", "vm2", "node", "n3"));
	mw_run(w, 500 * NS_PER_MS);
	ck_assert_int_eq(mig_int(mw_job(w, 1, "node.drain", node(3), 120 * NS_PER_SEC), "code"), 0);
	ck_assert_uint_eq(on_node(w, 3), 0);
	ck_assert_uint_ne(mw_runs_on(w, "vm1"), 0);
	ck_assert_uint_ne(mw_runs_on(w, "vm2"), 0);
	mw_free(w);
}
END_TEST

START_TEST(a_node_that_leaves_in_order_is_neither_fenced_nor_counted)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 3, 100);
	ck_assert_int_eq(mig_int(mw_job(w, 1, "node.shutdown", node(3), 60 * NS_PER_SEC), "code"), 0);
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert(w->node[3].left);
	mw_power_cut(w, 3);
	mw_run(w, 60 * NS_PER_SEC);
	ck_assert_uint_eq(w->n_fenced[3], 0);
	ck_assert_ptr_null(mw_event(w, 1, "without a word"));
	ck_assert_ptr_null(mw_event(w, 1, "its migratord ended"));
	ck_assert_uint_ne(mw_runs_on(w, "vm1"), 0);
	/* booted again it is used again */
	mw_boot(w, 3, true);
	mw_run(w, 10 * NS_PER_SEC);
	ck_assert_ptr_null(mig_place_refuses(mw_leader(w), 3, "vm1"));
	mw_free(w);
}
END_TEST

/* The proof that lets it go is its own word: no others that found it dead, and no VM to be killed. */
START_TEST(a_node_that_leaves_in_order_is_not_said_to_be_purged)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 3, 100);
	ck_assert_int_eq(mig_int(mw_job(w, 1, "node.shutdown", node(3), 60 * NS_PER_SEC), "code"), 0);
	mw_run(w, (uint64_t)_i * 500 * NS_PER_MS);
	ck_assert_int_eq(mw_code(mw_ask(w, 1, "node.resume", node(3))), RPC_OK);
	mw_run(w, 10 * NS_PER_SEC);
	ck_assert(w->node[3].left);
	for (uint32_t id = 1; id <= 2; id++) {
		ck_assert_ptr_null(mw_event(w, id, "killed"));
		ck_assert_ptr_null(mw_event(w, id, "have a proof"));
	}
	ck_assert_uint_eq(w->node[3].leaves[MIG_LEAVE_PURGED], 0);
	ck_assert_uint_eq(w->node[3].leaves[MIG_LEAVE_NODE], 1);
	ck_assert_uint_eq(w->n_fenced[3], 0);
	mw_free(w);
}
END_TEST

START_TEST(a_shutdown_stays_where_a_vm_cannot_move_unless_it_is_forced)
{
	struct mw *w = mw_new();
	const json_t *job;

	w->node[3].memory = 64 * MW_GB;
	mw_agent_kill(w, 3);
	mw_agent_start(w, 3);
	mw_define(w, "vm1", "stopped", 100, 20 * MW_GB);
	mw_vm_on(w, "vm1", 3, 100);
	job = mw_job(w, 1, "node.shutdown", node(3), 60 * NS_PER_SEC);
	ck_assert_int_eq(mig_int(job, "code"), RPC_PARTIAL);
	ck_assert_ptr_nonnull(strstr(mig_text(job, "message"), "vm1"));
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert(!w->node[3].left);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 3);
	job = mw_job(w, 1, "node.shutdown", json_pack("{s:i, s:s, s:b}", "nodeid", 3, "node", "n3", "force", true), 90 * NS_PER_SEC);
	ck_assert_msg(!mig_int(job, "code"), "%s", mig_text(job, "message"));
	ck_assert_ptr_nonnull(mw_event(w, 1, "was switched off on n3"));
	ck_assert_ptr_null(mw_event(w, 1, "stopped: "));
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert(w->node[3].left);
	mw_free(w);
}
END_TEST

/* ---- VMs ------------------------------------------------------------------------------------------------------------------------------------------ */

START_TEST(a_vm_is_made_started_stopped_deleted)
{
	struct mw *w = mw_new();
	const json_t *job;

	job = mw_job(w, 2, "vm.create", json_pack("{s:s, s:[s], s:I}", "name", "vm1", "disks", "/srv/csv/vm1.vhdx", "memory_bytes", MW_GB),
		     60 * NS_PER_SEC);
	ck_assert_msg(!mig_int(job, "code"), "%s", mig_text(job, "message"));
	ck_assert_int_eq(mw_code(mw_ask(w, 3, "vm.create", json_pack("{s:s, s:[s]}", "name", "vm1", "disks", "/srv/csv/vm1.vhdx"))), RPC_CONFLICT);
	job = mw_job(w, 3, "vm.start", name("vm1"), 60 * NS_PER_SEC);
	ck_assert_int_eq(mig_int(job, "code"), 0);
	ck_assert_str_eq(mw_def_of(w, "vm1")->want, "run");	/* MC5 */
	ck_assert_int_eq(mw_code(mw_ask(w, 3, "vm.delete", name("vm1"))), RPC_CONFLICT);
	job = mw_job(w, 3, "vm.stop", name("vm1"), 120 * NS_PER_SEC);
	ck_assert_int_eq(mig_int(job, "code"), 0);
	ck_assert_str_eq(mw_def_of(w, "vm1")->want, "stopped");
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 0);
	job = mw_job(w, 3, "vm.delete", name("vm1"), 60 * NS_PER_SEC);
	ck_assert_int_eq(mig_int(job, "code"), 0);
	mw_run(w, 30 * NS_PER_SEC);
	ck_assert_ptr_null(mw_lease(w, "vm1"));
	ck_assert_ptr_null(mw_def_of(w, "vm1"));
	mw_free(w);
}
END_TEST

START_TEST(a_disk_that_is_not_on_the_volume_is_refused)
{
	struct mw *w = mw_new();
	const json_t *job = mw_job(w, 2, "vm.create", json_pack("{s:s, s:[s]}", "name", "vm1", "disks", "/srv/csvx/vm1.vhdx"), 60 * NS_PER_SEC);

	ck_assert_int_eq(mig_int(job, "code"), RPC_USAGE);
	ck_assert_ptr_null(mw_def_of(w, "vm1"));
	mw_free(w);
}
END_TEST

/* The view changes when the guest that does not obey is to be switched off: it is switched off all the same. */
START_TEST(a_switch_off_that_a_view_change_swallowed_is_said_again)
{
	struct mw *w = mw_new();
	const json_t *job;

	mw_vm_on(w, "vm1", 2, 100);
	w->deaf_guests = true;
	w->node[2].mute = false;
	mw_ask(w, 1, "vm.stop", json_pack("{s:s, s:i}", "name", "vm1", "grace_s", 5));
	mw_run(w, 4 * NS_PER_SEC);
	w->node[2].mute = true;		/* the first one is lost */
	mw_run(w, 2 * NS_PER_SEC);
	mw_power_cut(w, 3);
	mw_run(w, 2 * NS_PER_SEC);
	w->node[2].mute = false;
	mw_agent_kill(w, 2);
	mw_agent_start(w, 2);
	mw_run(w, 30 * NS_PER_SEC);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 0);
	job = json_array_get(json_object_get(mw_ask(w, 1, "job.list", NULL), "items"), 0);
	ck_assert_ptr_nonnull(job);
	ck_assert_uint_ge(w->node[2].n_kill, 1);
	mw_free(w);
}
END_TEST

START_TEST(ha_enable_never_changes_what_is_wanted)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 2, 100);
	ck_assert_int_eq(mig_int(mw_job(w, 1, "ha.set", json_pack("{s:s, s:b, s:s}", "name", "vm1", "ha", 0, "priority", "7"), 30 * NS_PER_SEC), "code"), 0);
	ck_assert_str_eq(mw_def_of(w, "vm1")->want, "run");
	ck_assert_int_eq(mw_def_of(w, "vm1")->priority, 7);
	ck_assert(!mw_def_of(w, "vm1")->ha);
	ck_assert_uint_eq(mw_lease(w, "vm1")->priority, 7);
	ck_assert_uint_eq(mw_lease(w, "vm1")->want, LEASE_WANT_RUN);
	/* lost without high availability: stopped, with the reason, and not started elsewhere */
	mw_power_cut(w, 2);
	mw_run(w, 30 * NS_PER_SEC);
	ck_assert_uint_eq(mw_lease(w, "vm1")->state, LEASE_FREE);
	ck_assert_uint_eq(mw_lease(w, "vm1")->reason, LEASE_REASON_HA_OFF);
	mw_free(w);
}
END_TEST

/* ---- requests and jobs when leaders go ------------------------------------------------------------------------------------------------------------- */

/* CA2: the answer is lost with the view; what the request did must not be the reason to refuse it the second time. */
START_TEST(a_request_that_is_sent_again_finds_its_job)
{
	struct mw *w = mw_new();
	char id[40];

	mw_vm_on(w, "vm1", 2, 100);
	snprintf(id, sizeof(id), "n3-%llx", (unsigned long long)w->node[3].m->call_id + 1);	/* as it will be named */
	mig_send_take(w->node[3].m, json_pack("{s:s, s:s, s:s, s:{s:s}}", "t", "req", "id", id, "verb", "vm.stop", "args", "name", "vm1"));
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert_uint_eq(mw_lease(w, "vm1")->state, LEASE_FREE);
	mw_ask(w, 3, "vm.stop", name("vm1"));
	ck_assert_str_eq(mig_text(w->reply, "job"), id);
	ck_assert_msg(mw_code(w->reply) == RPC_ACCEPTED, "%d %s", mw_code(w->reply), mig_text(w->reply, "message"));
	mw_free(w);
}
END_TEST

START_TEST(the_same_request_twice_is_one_job)
{
	struct mw *w = mw_new();
	struct mig *m = mw_leader(w);
	json_t *msg;

	mw_vm_on(w, "vm1", 2, 100);
	msg = json_pack("{s:s, s:s, s:s, s:{s:s}}", "t", "req", "id", "n3-77", "verb", "vm.stop", "args", "name", "vm1");
	mig_send_take(w->node[3].m, json_incref(msg));
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert_uint_eq(mw_lease(w, "vm1")->state, LEASE_FREE);
	ck_assert_str_eq(mig_text(mig_item_get(m, "job/n3-77"), "state"), "done");
	ck_assert_ptr_nonnull(mig_job_again(m, "n3-77"));
	mig_send_take(w->node[3].m, msg);
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert_str_eq(mig_text(mig_item_get(m, "job/n3-77"), "state"), "done");
	mw_free(w);
}
END_TEST

/* CA3 */
START_TEST(without_quorum_a_change_is_refused_at_once_with_what_to_do)
{
	static const char *const verbs[] = { "vm.create", "vm.start", "vm.stop", "vm.delete", "migration.start", "node.drain", "node.resume", "ha.set" };
	struct mw *w = mw_new();
	uint64_t begin;

	w->fence_rc[2] = -EIO;
	mw_vm_on(w, "vm1", 2, 100);
	mw_cut(w, 2);
	mw_run(w, NS_PER_SEC);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		begin = w->clk.now_ns;
		ck_assert_int_eq(mw_code(mw_ask(w, 2, verbs[i], name("vm1"))), RPC_NO_QUORUM);
		ck_assert_msg(w->clk.now_ns - begin < 100 * NS_PER_MS, "%s: after %.1f s", verbs[i], (double)(w->clk.now_ns - begin) / 1e9);
		ck_assert_ptr_nonnull(strstr(mig_text(w->reply, "message"), "no quorum: 1 of 3 nodes is here"));
		ck_assert_ptr_nonnull(strstr(mig_text(w->reply, "message"), "csvctl cluster status"));
	}
	/* one that was under way when quorum went */
	mw_heal(w);
	mw_run(w, 5 * NS_PER_SEC);
	for (uint32_t i = 1; i <= 3; i++)
		w->node[i].mute = true;
	mw_ask_begin(w, 2, "vm.show", name("vm1"));	/* the leader waits for an agent */
	mw_run(w, 100 * NS_PER_MS);
	mw_cut(w, 2);
	begin = w->clk.now_ns;
	while (!w->replied && w->clk.now_ns - begin < 10 * NS_PER_SEC)
		mw_run(w, 100 * NS_PER_MS);
	ck_assert_msg(w->replied && w->clk.now_ns - begin <= 2 * NS_PER_SEC, "after %.1f s", (double)(w->clk.now_ns - begin) / 1e9);
	ck_assert_int_eq(mw_code(w->reply), RPC_NO_QUORUM);
	mw_free(w);
}
END_TEST

/* A view that is being agreed on is no lack of quorum: the request waits for it. */
START_TEST(a_change_asked_for_while_the_view_changes_is_not_refused_for_lack_of_quorum)
{
	struct mw *w = mw_new();
	const json_t *r;

	mw_vm_on(w, "vm1", 2, 100);
	mw_power_cut(w, 3);		/* the new ring has not been told yet */
	r = mw_ask(w, 2, "vm.stop", name("vm1"));
	ck_assert_msg(!strstr(mig_text(r, "message"), "no quorum"), "%s", mig_text(r, "message"));
	mw_free(w);
}
END_TEST

static void fake_job(struct mig *m, const char *id, const char *kind, const char *object, int by, int64_t began)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "job/%s", id);
	mig_item_put_take(m, key, json_pack("{s:s, s:s, s:s, s:s, s:i, s:I}", "id", id, "kind", kind, "object", object, "state", "running", "by", by,
					    "began_real_ms", (json_int_t)began));
}

START_TEST(all_jobs_of_a_lost_leader_end)
{
	struct mw *w = mw_new();
	char id[16];
	json_t *v;
	size_t i;

	mw_vm_on(w, "vm1", 2, 100);
	for (unsigned k = 0; k < 40; k++) {
		snprintf(id, sizeof(id), "n1-%u", k);
		fake_job(w->node[1].m, id, "start", "vm1", 1, k);
	}
	mw_run(w, NS_PER_SEC);
	mw_power_cut(w, 1);
	mw_run(w, 10 * NS_PER_SEC);
	json_array_foreach(json_object_get(mw_ask(w, 2, "job.list", NULL), "items"), i, v)
		ck_assert_msg(strcmp(mig_text(v, "state"), "running"), "%s still runs", mig_text(v, "id"));
	ck_assert_uint_ge(i, 40);
	mw_free(w);
}
END_TEST

START_TEST(a_delete_whose_leader_is_lost_leaves_a_vm_or_none_and_never_a_hidden_one)
{
	struct mw *w = mw_new();

	mw_define(w, "vm1", "stopped", 100, MW_GB);
	mw_run(w, 15 * NS_PER_SEC);
	ck_assert_ptr_nonnull(mw_lease(w, "vm1"));
	for (uint32_t i = 1; i <= 3; i++)
		w->node[i].mute = true;	/* the lease goes, the files stay */
	mw_ask(w, 2, "vm.delete", name("vm1"));
	mw_run(w, NS_PER_SEC);
	ck_assert_ptr_null(mw_lease(w, "vm1"));
	mw_power_cut(w, 1);
	for (uint32_t i = 2; i <= 3; i++)
		w->node[i].mute = false;
	mw_run(w, 40 * NS_PER_SEC);
	ck_assert_ptr_nonnull(mw_lease(w, "vm1"));
	mw_free(w);
}
END_TEST

START_TEST(every_member_forgets_the_oldest_jobs_and_no_running_one)
{
	struct mw *w = mw_new();
	char id[16];

	fake_job(w->node[1].m, "n1-first", "start", "vm1", 1, 0);
	for (unsigned k = 1; k <= 2 * MIG_JOBS_MAX; k++) {
		snprintf(id, sizeof(id), "n1-%u", k);
		fake_job(w->node[1].m, id, "start", "vm1", 1, k);
		mig_item_put_take(w->node[1].m, "x", json_object());
		{
			char key[MIG_KEY_MAX];
			json_t *v;

			snprintf(key, sizeof(key), "job/%s", id);
			v = json_deep_copy(mig_item_get(w->node[1].m, key));
			json_object_set_new(v, "state", json_string("done"));
			mig_item_put_take(w->node[1].m, key, v);
		}
	}
	mw_run(w, NS_PER_SEC);
	for (uint32_t i = 1; i <= 3; i++) {
		size_t n = json_array_size(json_object_get(mw_ask(w, i, "job.list", NULL), "items"));

		ck_assert_msg(n >= MIG_JOBS_MAX && n <= MIG_JOBS_MAX + 1, "n%u keeps %zu jobs", i, n);
		ck_assert_ptr_nonnull(mig_item_get(w->node[i].m, "job/n1-first"));
	}
	mw_free(w);
}
END_TEST

/* ---- items, events ---------------------------------------------------------------------------------------------------------------------------------- */

START_TEST(items_are_alike_on_all_members_also_after_a_partition)
{
	struct mw *w = mw_new();

	mig_item_put_take(w->node[1].m, "pin/a", json_pack("{s:i}", "node", 1));
	mw_run(w, NS_PER_SEC);
	mw_cut(w, 3);
	mw_run(w, NS_PER_SEC);
	mig_item_put_take(w->node[1].m, "pin/a", json_pack("{s:i}", "node", 2));
	mig_item_put_take(w->node[2].m, "pin/b", json_pack("{s:i}", "node", 2));
	mig_item_put_take(w->node[1].m, "pin/a", NULL);
	mw_run(w, NS_PER_SEC);
	ck_assert_int_eq(mig_int(mig_item_get(w->node[3].m, "pin/a"), "node"), 1);
	mw_heal(w);
	mw_run(w, 2 * NS_PER_SEC);
	for (uint32_t i = 1; i <= 3; i++) {
		ck_assert_ptr_null(mig_item_get(w->node[i].m, "pin/a"));
		ck_assert_int_eq(mig_int(mig_item_get(w->node[i].m, "pin/b"), "node"), 2);
	}
	mw_free(w);
}
END_TEST

START_TEST(a_malformed_message_changes_nothing)
{
	static const char *const bad[] = { "{}", "[]", "{\"t\":\"put\"}", "{\"t\":\"put\",\"k\":\"\",\"r\":1,\"b\":1,\"v\":{}}",
					   "{\"t\":\"put\",\"k\":\"pin/a\",\"r\":-1,\"b\":1,\"v\":{}}", "{\"t\":\"put\",\"k\":\"pin/a\",\"r\":9,\"b\":1,\"v\":7}",
					   "{\"t\":\"put\",\"k\":\"pin/a\",\"r\":9,\"b\":0,\"v\":{}}", "{\"t\":\"cmd\",\"node\":1}", "{\"t\":\"ans\"}",
					   "{\"t\":\"req\",\"verb\":\"x\"}", "{\"t\":\"req\"}", "{\"t\":\"rep\"}", "{\"t\":\"peer\",\"to\":1}", "{\"t\":5}",
					   "{\"t\":\"event\"}", "{\"t\":\"leave\"}", "\"t\"", "{\"t\":\"put\",\"t\":\"put\"}" };
	struct mw *w = mw_new();

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		cluster_send(w->node[3].env.cluster, MIG_CHAN, bad[i], strlen(bad[i]));
		cluster_send(w->node[3].env.cluster, MIG_CHAN, bad[i], strlen(bad[i]) / 2);
	}
	mw_run(w, 2 * NS_PER_SEC);
	ck_assert_ptr_null(mig_item_get(w->node[1].m, "pin/a"));
	ck_assert(mig_settled(w->node[1].m));
	mw_free(w);
}
END_TEST

START_TEST(events_are_on_all_members_counted_and_bounded)
{
	struct mw *w = mw_new();
	json_t *r;

	for (unsigned i = 0; i < MIG_EVENTS_MAX + 100; i++)
		mig_event(w->node[2].m, "info", i % 2 ? "vm1" : "vm2", "", "number %u", i);
	mw_run(w, 2 * NS_PER_SEC);
	for (uint32_t id = 1; id <= 3; id++) {
		r = mw_ask(w, id, "event.list", json_pack("{s:i, s:s}", "last", 10, "object", "vm1"));
		ck_assert_uint_eq(json_array_size(json_object_get(r, "items")), 10);
		ck_assert_str_eq(mig_text(json_array_get(json_object_get(r, "items"), 9), "text"), "number 2099");
		ck_assert_str_eq(mig_text(json_array_get(json_object_get(r, "items"), 0), "text"), "number 2081");
	}
	r = mw_ask(w, 2, "event.list", json_pack("{s:i, s:I}", "last", 1000, "after", (json_int_t)w->node[2].m->event_seq - 3));
	ck_assert_uint_eq(json_array_size(json_object_get(r, "items")), 3);
	r = mw_ask(w, 2, "event.list", json_pack("{s:i, s:i}", "last", 100000, "after", 0));
	ck_assert_uint_le(json_array_size(json_object_get(r, "items")), RPC_PAGE_ITEMS);
	mw_free(w);
}
END_TEST

START_TEST(what_hvhostd_says_again_and_again_is_logged_once_and_shown_as_the_reason)
{
	struct mw *w = mw_new();
	json_t *r, *vm;

	mw_vm_on(w, "vm1", 2, 100);
	mw_vm_of(w, 2, "vm1")->runs = false;
	mig_agent_text(w->node[2].m, json_pack("{s:s, s:i, s:i, s:{s:s, s:s, s:i, s:i}}", "event", "vm", "seq", 1, "boot_ms", 1, "data", "vm", "vm1", "qemu",
					       "paused", "epoch", 1, "flags", 0));
	for (unsigned i = 0; i < 50; i++) {
		mig_agent_text(w->node[2].m, json_pack("{s:s, s:i, s:i, s:{s:s, s:s, s:s, s:s}}", "event", "event", "seq", 1, "boot_ms", 1, "data", "severity",
						       "warning", "vm", "vm1", "text", "cont: Transport endpoint is not connected", "command", ""));
		mw_run(w, 100 * NS_PER_MS);
	}
	r = mw_ask(w, 1, "event.list", json_pack("{s:i, s:s}", "last", 100, "object", "vm1"));
	unsigned n = 0;
	size_t i;
	json_t *e;

	json_array_foreach(json_object_get(r, "items"), i, e)
		n += strstr(mig_text(e, "text"), "Transport endpoint") != NULL;
	ck_assert_uint_eq(n, 1);
	vm = json_array_get(json_object_get(mw_ask(w, 3, "vm.list", NULL), "items"), 0);
	ck_assert_msg(strstr(mig_text(vm, "reason"), "Transport endpoint"), "%s", mig_text(vm, "reason"));
	ck_assert_str_eq(mig_text(vm, "command"), "csvctl event list --vm vm1");
	mw_free(w);
}
END_TEST

UNIT_MAIN("mig_node", UNIT_TEST(a_drained_node_is_empty_and_stays_so_until_it_is_resumed), UNIT_TEST(a_drain_says_of_each_vm_that_stays_why_and_stops_none),
	  UNIT_TEST(a_drain_waits_for_what_is_just_starting_there_or_on_its_way),
	  UNIT_TEST(a_node_that_leaves_in_order_is_neither_fenced_nor_counted),
	  UNIT_LOOP(a_node_that_leaves_in_order_is_not_said_to_be_purged, 0, 6),
	  UNIT_TEST(a_shutdown_stays_where_a_vm_cannot_move_unless_it_is_forced), UNIT_TEST(a_vm_is_made_started_stopped_deleted),
	  UNIT_TEST(a_disk_that_is_not_on_the_volume_is_refused), UNIT_TEST(a_switch_off_that_a_view_change_swallowed_is_said_again),
	  UNIT_TEST(ha_enable_never_changes_what_is_wanted), UNIT_TEST(a_request_that_is_sent_again_finds_its_job),
	  UNIT_TEST(the_same_request_twice_is_one_job), UNIT_TEST(without_quorum_a_change_is_refused_at_once_with_what_to_do),
	  UNIT_TEST(a_change_asked_for_while_the_view_changes_is_not_refused_for_lack_of_quorum), UNIT_TEST(all_jobs_of_a_lost_leader_end),
	  UNIT_TEST(a_delete_whose_leader_is_lost_leaves_a_vm_or_none_and_never_a_hidden_one),
	  UNIT_TEST(every_member_forgets_the_oldest_jobs_and_no_running_one), UNIT_TEST(items_are_alike_on_all_members_also_after_a_partition),
	  UNIT_TEST(a_malformed_message_changes_nothing),
	  UNIT_TEST(what_hvhostd_says_again_and_again_is_logged_once_and_shown_as_the_reason), UNIT_TEST(events_are_on_all_members_counted_and_bounded))
