/*
 * migrator/mig_move.c, mig_plan.c: live migrations asked for, queued, cancelled, judged by the lease; and what they would be like.
 */
#include "tests/unit/mig_world.h"

#include <string.h>

static const json_t *item_of(struct mw *w, uint32_t id, const char *vm)
{
	json_t *r = mw_ask(w, id, "migration.list", NULL), *v, *last = NULL;
	size_t i;

	json_array_foreach(json_object_get(r, "items"), i, v)
		if (!strcmp(mig_text(v, "vm"), vm))
			last = v;
	ck_assert_msg(last, "%s: no migration in the list", vm);
	return last;
}

static json_t *to(const char *vm, const char *node)
{
	return json_pack("{s:s, s:s}", "vm", vm, "to", node);
}

static bool vm1_moves(struct mw *w)
{
	const struct lease *l = mw_lease(w, "vm1");

	return l && lease_is_intent(l);
}

static bool vm1_quiet(struct mw *w)
{
	const struct lease *l = mw_lease(w, "vm1");

	return l && l->state == LEASE_RUNNING && !l->txid;
}

START_TEST(a_migration_is_completed_when_the_lease_says_so_and_everybody_can_list_it)
{
	struct mw *w = mw_new();
	const json_t *job;

	mw_vm_on(w, "vm1", 1, 100);
	job = mw_job(w, 2, "migration.start", to("vm1", "n3"), 30 * NS_PER_SEC);
	ck_assert_int_eq(mig_int(job, "code"), 0);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 3);
	for (uint32_t i = 1; i <= 3; i++) {
		ck_assert_str_eq(mig_text(item_of(w, i, "vm1"), "state"), "completed");
		ck_assert_str_eq(mig_text(item_of(w, i, "vm1"), "from"), "n1");
	}
	ck_assert_int_eq(w->params_budget, 500);
	mw_free(w);
}
END_TEST

START_TEST(what_cannot_be_is_refused_before_anything_happens)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 1, 100);
	mw_define(w, "vm2", "stopped", 100, MW_GB);
	mw_run(w, 15 * NS_PER_SEC);
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "migration.start", to("vm1", "n1"))), RPC_CONFLICT);
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "migration.start", to("vm1", "n9"))), RPC_NOT_FOUND);
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "migration.start", to("nobody", "n2"))), RPC_NOT_FOUND);
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "migration.start", to("vm2", "n2"))), RPC_CONFLICT);
	mw_agent_kill(w, 3);
	mw_run(w, 100 * NS_PER_MS);
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "migration.start", to("vm1", "n3"))), RPC_CONFLICT);
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "migration.cancel", json_pack("{s:s}", "id", "vm1"))), RPC_NOT_FOUND);
	ck_assert_uint_eq(mw_lease(w, "vm1")->txid, 0);
	mw_free(w);
}
END_TEST

START_TEST(one_of_a_node_at_a_time_and_the_others_are_queued_to_be_seen)
{
	struct mw *w = mw_new();
	unsigned active = 0, queued = 0;
	json_t *v;
	size_t i;

	mw_vm_on(w, "vm1", 1, 100);
	mw_vm_on(w, "vm2", 1, 100);
	mw_vm_on(w, "vm3", 1, 100);
	w->move_ns = 5 * NS_PER_SEC;
	mw_ask(w, 1, "migration.start", to("vm1", "n2"));
	mw_ask(w, 1, "migration.start", to("vm2", "n2"));
	mw_ask(w, 1, "migration.start", to("vm3", "n3"));
	mw_run(w, NS_PER_SEC);
	json_array_foreach(json_object_get(mw_ask(w, 3, "migration.list", NULL), "items"), i, v) {
		active += !strcmp(mig_text(v, "state"), "active");
		queued += !strcmp(mig_text(v, "state"), "queued");
	}
	ck_assert_uint_eq(active, 1);
	ck_assert_uint_eq(queued, 2);
	mw_run(w, 40 * NS_PER_SEC);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 2);
	ck_assert_uint_eq(mw_runs_on(w, "vm2"), 2);
	ck_assert_uint_eq(mw_runs_on(w, "vm3"), 3);
	mw_free(w);
}
END_TEST

START_TEST(a_cancelled_one_runs_on_where_it_was)
{
	struct mw *w = mw_new();
	json_t *r;

	mw_vm_on(w, "vm1", 1, 100);
	w->never_moves = true;
	mw_ask(w, 3, "migration.start", to("vm1", "n2"));
	ck_assert(mw_until(w, 5 * NS_PER_SEC, vm1_moves));
	mw_run(w, NS_PER_SEC);
	r = mw_ask(w, 2, "migration.cancel", json_pack("{s:s}", "id", "vm1"));
	ck_assert_msg(!mw_code(r), "%s", mig_text(r, "message"));
	ck_assert_str_eq(mig_text(json_array_get(json_object_get(r, "items"), 0), "state"), "cancelled");
	ck_assert(vm1_quiet(w));
	mw_run(w, NS_PER_SEC);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 1);
	ck_assert_str_eq(mig_text(item_of(w, 3, "vm1"), "state"), "cancelled");
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "migration.cancel", json_pack("{s:s}", "id", mig_text(item_of(w, 2, "vm1"), "id")))), RPC_CONFLICT);
	mw_free(w);
}
END_TEST

START_TEST(a_queued_one_is_cancelled_and_never_begins)
{
	struct mw *w = mw_new();
	json_t *r;

	mw_vm_on(w, "vm1", 1, 100);
	mw_vm_on(w, "vm2", 1, 100);
	w->move_ns = 5 * NS_PER_SEC;
	mw_ask(w, 3, "migration.start", to("vm1", "n2"));
	mw_run(w, 500 * NS_PER_MS);
	mw_ask(w, 3, "migration.start", to("vm2", "n2"));
	mw_run(w, 500 * NS_PER_MS);
	r = mw_ask(w, 3, "migration.cancel", json_pack("{s:s}", "id", "vm2"));
	ck_assert_msg(!mw_code(r), "%s", mig_text(r, "message"));
	mw_run(w, 30 * NS_PER_SEC);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 2);
	ck_assert_uint_eq(mw_runs_on(w, "vm2"), 1);
	ck_assert_str_eq(mig_text(item_of(w, 2, "vm2"), "state"), "cancelled");
	ck_assert_uint_eq(mw_lease(w, "vm2")->epoch, 1);
	mw_free(w);
}
END_TEST

/* The source dies and the VM is begun anew, by chance where it was to go: that is no migration. */
START_TEST(a_restart_on_the_target_is_no_completed_migration)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 3, 100);
	w->never_moves = true;
	mw_ask(w, 2, "migration.start", to("vm1", "n1"));
	ck_assert(mw_until(w, 5 * NS_PER_SEC, vm1_moves));
	mw_agent_kill(w, 2);		/* so that n1 is the only place */
	mw_power_cut(w, 3);
	mw_run(w, 30 * NS_PER_SEC);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 1);
	ck_assert_str_eq(mig_text(item_of(w, 1, "vm1"), "state"), "failed");
	mw_free(w);
}
END_TEST

START_TEST(a_new_leader_sees_a_migration_to_its_end)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 2, 100);
	mw_vm_on(w, "vm2", 2, 100);
	w->move_ns = 8 * NS_PER_SEC;
	mw_ask(w, 2, "migration.start", to("vm1", "n3"));
	ck_assert(mw_until(w, 5 * NS_PER_SEC, vm1_moves));
	mw_ask(w, 2, "migration.start", to("vm2", "n3"));
	mw_run(w, NS_PER_SEC);
	mw_power_cut(w, 1);		/* the leader, with the jobs */
	mw_run(w, 40 * NS_PER_SEC);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 3);
	ck_assert_str_eq(mig_text(item_of(w, 2, "vm1"), "state"), "completed");
	/* one that had not begun does not begin by itself */
	ck_assert_uint_eq(mw_runs_on(w, "vm2"), 2);
	ck_assert_str_eq(mig_text(item_of(w, 2, "vm2"), "state"), "failed");
	ck_assert_str_ne(mig_text(item_of(w, 2, "vm2"), "reason"), "");
	mw_free(w);
}
END_TEST

/* The source tells its last figures without knowing yet that the leader has written it down as completed. */
START_TEST(late_news_of_the_source_make_no_migration_active_again)
{
	struct mw *w = mw_new();
	const struct mig_item *i;
	char key[MIG_KEY_MAX];
	json_t *v, *msg;

	mw_vm_on(w, "vm1", 2, 100);
	mw_job(w, 1, "migration.start", to("vm1", "n3"), 30 * NS_PER_SEC);
	ck_assert_str_eq(mig_text(item_of(w, 1, "vm1"), "state"), "completed");
	snprintf(key, sizeof(key), "migration/%s", mig_text(item_of(w, 1, "vm1"), "id"));
	HASH_FIND_STR(w->node[1].m->items, key, i);
	v = json_deep_copy(i->value);
	json_object_set_new(v, "state", json_string("active"));
	json_object_set_new(v, "passes", json_integer(77));
	msg = json_pack("{s:s, s:s, s:I, s:i, s:o}", "t", "put", "k", key, "r", (json_int_t)i->rev, "b", 2, "v", v);
	for (uint32_t n = 1; n <= 3; n++)
		mig_item_got(w->node[n].m, 2, msg);
	json_decref(msg);
	mw_run(w, NS_PER_SEC);
	for (uint32_t n = 1; n <= 3; n++) {
		ck_assert_str_eq(mig_text(item_of(w, n, "vm1"), "state"), "completed");
		ck_assert_int_eq(mig_int(item_of(w, n, "vm1"), "passes"), 77);
	}
	mw_free(w);
}
END_TEST

/* It takes long, and its source gives up: that is no loss of a leader, and the reason is the source's to give. */
START_TEST(one_that_is_given_up_late_has_a_leader_all_the_time)
{
	struct mw *w = mw_new();
	const json_t *job;

	mw_vm_on(w, "vm1", 2, 100);
	w->moves_fail = true;
	w->move_ns = 18 * NS_PER_SEC;
	job = mw_job(w, 1, "migration.start", to("vm1", "n3"), 60 * NS_PER_SEC);
	ck_assert_int_eq(mig_int(job, "code"), RPC_FAILED);
	ck_assert_msg(!strstr(mig_text(job, "message"), "lost meanwhile"), "%s", mig_text(job, "message"));
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 2);
	ck_assert_str_eq(mig_text(item_of(w, 2, "vm1"), "state"), "failed");
	ck_assert_str_eq(mig_text(item_of(w, 2, "vm1"), "reason"), "");
	mw_free(w);
}
END_TEST

/* The third node is lost between the intent and the command. */
START_TEST(a_view_change_in_between_is_no_reason_to_give_up)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 2, 100);
	mw_ask(w, 1, "migration.start", to("vm1", "n1"));
	w->node[2].mute = true;		/* the command is not answered yet */
	ck_assert(mw_until(w, 5 * NS_PER_SEC, vm1_moves));
	mw_power_cut(w, 3);
	mw_run(w, 100 * NS_PER_MS);
	w->node[2].mute = false;
	mw_agent_kill(w, 2);
	mw_agent_start(w, 2);
	mw_run(w, 60 * NS_PER_SEC);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 1);
	ck_assert_str_eq(mig_text(item_of(w, 1, "vm1"), "state"), "completed");
	mw_free(w);
}
END_TEST

/* ---- forecast ------------------------------------------------------------------------------------------------------------------------------ */

/* 10 MB/s changed (hvhostd's word), 125 MB/s (nothing known of the link). */
START_TEST(a_forecast_adds_up)
{
	struct mw *w = mw_new();
	json_int_t total, pause;
	json_t *r, *p;

	mw_vm_on(w, "vm1", 1, 100);
	r = mw_ask(w, 2, "migration.plan", to("vm1", "n2"));
	ck_assert_msg(!mw_code(r), "%s", mig_text(r, "message"));
	p = json_array_get(json_object_get(r, "items"), 0);
	ck_assert(json_is_true(json_object_get(p, "converges")));
	ck_assert_int_eq(mig_int(p, "memory_bytes"), 256 * MW_MB);
	ck_assert_int_eq(mig_int(p, "dirty_bytes_per_s"), 10000000);
	total = mig_int(p, "total_ms");
	pause = mig_int(p, "pause_ms");
	/* all: 2147 ms; then 172 ms, then 14 ms within the pause; 500 to set it up, 30 to switch */
	ck_assert_msg(total >= 2800 && total <= 2900, "total %lld ms", (long long)total);
	ck_assert_msg(pause >= 40 && pause <= 50, "pause %lld ms", (long long)pause);
	ck_assert_int_eq(mig_int(p, "passes"), 2);
	ck_assert_uint_eq(mw_lease(w, "vm1")->txid, 0);
	mw_free(w);
}
END_TEST

UNIT_MAIN("mig_move", UNIT_TEST(a_migration_is_completed_when_the_lease_says_so_and_everybody_can_list_it),
	  UNIT_TEST(what_cannot_be_is_refused_before_anything_happens), UNIT_TEST(one_of_a_node_at_a_time_and_the_others_are_queued_to_be_seen),
	  UNIT_TEST(a_cancelled_one_runs_on_where_it_was), UNIT_TEST(a_queued_one_is_cancelled_and_never_begins),
	  UNIT_TEST(a_restart_on_the_target_is_no_completed_migration), UNIT_TEST(a_new_leader_sees_a_migration_to_its_end),
	  UNIT_TEST(one_that_is_given_up_late_has_a_leader_all_the_time),
	  UNIT_TEST(a_view_change_in_between_is_no_reason_to_give_up), UNIT_TEST(a_forecast_adds_up),
	  UNIT_TEST(late_news_of_the_source_make_no_migration_active_again))
