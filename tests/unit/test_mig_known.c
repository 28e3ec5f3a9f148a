/*
 * migrator/mig_known.c, mig_place.c, mig_node.c: what is said while VMs cannot be known; which mounts are a place; what outlives a cold start.
 */
#include "tests/unit/mig_world.h"

#include <string.h>

#define JOINING "the volume at /srv/csv is not mounted yet: /srv/csv: node 3 is lost and not recovered: node 3 could not be fenced: agent fence_x: timed " \
		"out; what it held stays locked; make sure that it is off, then: csvctl node confirm-fenced 3"

static json_t *node(int id)
{
	char name[16];

	snprintf(name, sizeof(name), "n%d", id);
	return json_pack("{s:i, s:s}", "nodeid", id, "node", name);
}

static const json_t *item_of(const json_t *reply, const char *name)
{
	const json_t *v;
	size_t i;

	json_array_foreach(json_object_get(reply, "items"), i, v)
		if (!strcmp(mig_text(v, "name"), name))
			return v;
	return NULL;
}

static bool warned(const json_t *reply, const char *text)
{
	const json_t *v;
	size_t i;

	json_array_foreach(json_object_get(reply, "warnings"), i, v)
		if (strstr(json_string_value(v), text))
			return true;
	return false;
}

static bool vm1_runs(struct mw *w) { return mw_runs_on(w, "vm1") != 0; }

/* Power was cut everywhere but at n3, which runs vm1 on behind a cut; the volume waits for a proof about n3, and so do the leases. */
static struct mw *isolated(void)
{
	struct mw *w = mw_new();

	w->fence_rc[3] = -5;
	mw_vm_on(w, "vm1", 3, 100);
	mw_vm_on(w, "vm2", 1, 100);
	mw_run(w, 15 * NS_PER_SEC);	/* definitions are read every 10 s */
	mw_cut(w, 3);
	mw_power_cut(w, 1);
	mw_power_cut(w, 2);
	for (int i = 1; i <= 2; i++) {
		mw_mount_is(w, i, "joining", JOINING, "csvctl node confirm-fenced 3");
		mw_boot(w, i, true);
	}
	mw_run(w, 40 * NS_PER_SEC);
	ck_assert(mig_settled(mw_leader(w)));
	return w;
}

static void free_isolated(struct mw *w)
{
	ck_assert_uint_eq(w->n_began, 2);
	mw_free(w);
}

START_TEST(vms_that_cannot_be_known_are_shown_blocked_with_reason_and_command)
{
	static const char *const verbs[] = { "vm.list", "ha.status" };
	struct mw *w = isolated();
	const json_t *vm, *u;
	json_t *r;

	for (uint32_t id = 1; id <= 2; id++) {
		for (size_t k = 0; k < 2; k++) {
			r = mw_ask(w, id, verbs[k], NULL);
			for (int i = 1; i <= 2; i++) {
				vm = item_of(r, i == 1 ? "vm1" : "vm2");
				ck_assert_msg(vm, "%s on n%u: no vm%d", verbs[k], id, i);
				ck_assert_str_eq(mig_text(vm, "state"), "BLOCKED");
				ck_assert_str_eq(mig_text(vm, "command"), "csvctl node confirm-fenced n3");
				ck_assert_msg(strstr(mig_text(vm, "reason"), "VMs of volume /srv/csv are not known yet: the volume waits for a proof about n3"),
					      "%s", mig_text(vm, "reason"));
			}
			u = json_array_get(json_object_get(r, "unknown"), 0);
			ck_assert_str_eq(mig_text(u, "volume"), "/srv/csv");
			ck_assert_str_eq(mig_text(u, "command"), "csvctl node confirm-fenced n3");
			u = json_array_get(json_object_get(r, "waits_for_nodes"), 0);
			ck_assert_str_eq(mig_text(u, "node"), "n3");
			ck_assert_str_eq(mig_text(u, "command"), "csvctl node confirm-fenced n3");
			ck_assert(warned(r, "VMs of volume /srv/csv are not known yet: the volume waits for a proof about n3"));
		}
	}
	r = mw_ask(w, 2, "vm.show", json_pack("{s:s}", "name", "vm1"));
	ck_assert_int_eq(mw_code(r), 0);
	ck_assert_str_eq(mig_text(item_of(r, "vm1"), "state"), "BLOCKED");
	ck_assert_ptr_nonnull(mw_event(w, 1, "VMs of volume /srv/csv are not known yet"));
	free_isolated(w);
}
END_TEST

START_TEST(where_nothing_at_all_is_known_it_is_said_in_so_many_words)
{
	struct mw *w = mw_new();
	json_t *r;

	mw_all_off(w);
	for (int i = 1; i <= 3; i++) {
		free(w->node[i].kept);
		w->node[i].kept = NULL;
	}
	for (int i = 1; i <= 2; i++) {
		mw_mount_is(w, i, "joining", JOINING, "csvctl node confirm-fenced 3");
		mw_boot(w, i, true);
	}
	mw_run(w, 5 * NS_PER_SEC);
	r = mw_ask(w, 2, "vm.list", NULL);
	ck_assert_uint_eq(json_array_size(json_object_get(r, "items")), 0);
	ck_assert(warned(r, "VMs of volume /srv/csv are not known yet: the volume waits for a proof about n3"));
	ck_assert(warned(r, "csvctl node confirm-fenced n3"));
	r = mw_ask(w, 2, "vm.show", json_pack("{s:s}", "name", "vm1"));
	ck_assert_int_eq(mw_code(r), RPC_NEEDS_PROOF);
	ck_assert_ptr_nonnull(strstr(mig_text(r, "message"), "csvctl node confirm-fenced n3"));
	r = mw_ask(w, 2, "vm.start", json_pack("{s:s}", "name", "vm1"));
	ck_assert_int_eq(mw_code(r), RPC_NEEDS_PROOF);
	mw_free(w);
}
END_TEST

START_TEST(without_any_hvhostd_or_mount_the_reason_is_that)
{
	struct mw *w = mw_new();
	json_t *r;

	mw_all_off(w);
	mw_boot(w, 1, false);
	mw_boot(w, 2, false);
	mw_run(w, 5 * NS_PER_SEC);
	r = mw_ask(w, 1, "vm.list", NULL);
	ck_assert(warned(r, "hvhostd runs on no node"));
	ck_assert(warned(r, "on n2: systemctl start hvhostd"));
	for (int i = 1; i <= 2; i++) {
		mw_mount_is(w, i, "none", "no csvfs volume is mounted at /srv/csv", "mount /srv/csv");
		mw_agent_start(w, i);
	}
	mw_run(w, 5 * NS_PER_SEC);
	r = mw_ask(w, 1, "vm.list", NULL);
	ck_assert(warned(r, "no csvfs volume is mounted at /srv/csv: mount /srv/csv"));
	mw_free(w);
}
END_TEST

/* The volume is there (its own proof came first), the leases have none yet. */
START_TEST(with_the_volume_the_isolated_nodes_vm_is_blocked_until_the_proof_and_starts_once)
{
	struct mw *w = isolated();
	const json_t *vm;
	json_t *r;

	for (uint32_t i = 1; i <= 2; i++)
		mw_mount_is(w, i, NULL, NULL, NULL);
	mw_run(w, 15 * NS_PER_SEC);
	r = mw_ask(w, 2, "vm.list", NULL);
	ck_assert_ptr_null(json_object_get(r, "unknown"));
	vm = item_of(r, "vm1");
	ck_assert_str_eq(mig_text(vm, "state"), "BLOCKED");
	ck_assert_str_eq(mig_text(vm, "command"), "csvctl node confirm-fenced n3");
	ck_assert_uint_eq(w->n_began, 2);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 3);
	mw_power_cut(w, 3);
	ck_assert_int_eq(mw_code(mw_ask(w, 1, "node.confirm-fenced", node(3))), 0);
	ck_assert(mw_until(w, 30 * NS_PER_SEC, vm1_runs));
	r = mw_ask(w, 2, "vm.list", NULL);
	ck_assert_ptr_null(json_object_get(r, "waits_for_nodes"));
	ck_assert_ptr_null(mw_event(w, 1, "stopped"));		/* "stopped: " without a word why */
	ck_assert_ptr_null(mw_event(w, 1, "was switched off"));
	ck_assert_ptr_nonnull(mw_event(w, 1, "runs nowhere, as is known now"));
	mw_free(w);
}
END_TEST

START_TEST(definitions_that_cannot_be_read_are_said_to_be_so_on_every_node)
{
	struct mw *w = mw_new();
	json_t *r;

	mw_vm_on(w, "vm1", 2, 100);
	mw_run(w, 15 * NS_PER_SEC);
	mw_all_off(w);
	w->list_fails = "/srv/csv/vms: Input/output error";
	for (uint32_t i = 1; i <= 3; i++)
		mw_boot(w, i, true);
	mw_run(w, 60 * NS_PER_SEC);
	for (uint32_t i = 1; i <= 3; i++) {
		r = mw_ask(w, i, "vm.list", NULL);
		ck_assert(warned(r, "cannot be read on n"));
		ck_assert(warned(r, "/srv/csv/vms: Input/output error"));
		ck_assert(!warned(r, "just now"));
		ck_assert_str_eq(mig_text(item_of(r, "vm1"), "state"), "BLOCKED");
	}
	ck_assert_ptr_nonnull(mw_event(w, 2, "/srv/csv/vms: Input/output error"));
	w->list_fails = NULL;
	mw_run(w, 15 * NS_PER_SEC);
	r = mw_ask(w, 3, "vm.list", NULL);
	ck_assert_ptr_null(json_object_get(r, "unknown"));
	ck_assert(!warned(r, "cannot be read"));
	mw_free(w);
}
END_TEST

START_TEST(where_one_node_cannot_read_the_definitions_another_is_asked)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 2, 100);
	mw_run(w, 15 * NS_PER_SEC);
	mw_all_off(w);
	w->list_fails = "/srv/csv/vms: Input/output error";
	w->list_fails_on = 1;
	for (uint32_t i = 1; i <= 3; i++)
		mw_boot(w, i, true);
	ck_assert(mw_until(w, 60 * NS_PER_SEC, vm1_runs));
	ck_assert_ptr_null(json_object_get(mw_ask(w, 1, "vm.list", NULL), "unknown"));
	mw_free(w);
}
END_TEST

/* A folder without its volume has no definitions: that is no word about VMs. */
START_TEST(an_unmounted_volume_makes_no_definition_vanish)
{
	struct mw *w = mw_new();
	json_t *r;

	mw_vm_on(w, "vm1", 2, 100);
	mw_run(w, 15 * NS_PER_SEC);
	for (uint32_t i = 1; i <= 3; i++)
		w->node[i].mount_state = "none";	/* not told yet: it was unmounted just now */
	mw_leader(w)->defs_ns = 0;
	mw_run(w, 2 * NS_PER_SEC);
	ck_assert_ptr_nonnull(mig_def(mw_leader(w), "vm1"));
	r = mw_ask(w, 1, "vm.list", NULL);
	ck_assert_ptr_nonnull(item_of(r, "vm1"));
	mw_free(w);
}
END_TEST

/* ---- where the volume is alive --------------------------------------------------------------------------------------------------------------- */

START_TEST(a_node_with_a_dead_mount_is_no_target_and_the_reason_says_so)
{
	struct mw *w = mw_new();
	const json_t *n;
	char why[400];
	json_t *r;

	mw_vm_on(w, "vm1", 3, 100);
	mw_mount_is(w, 2, "dead", "the volume at /srv/csv is dead: its csvfsd is gone (Transport endpoint is not connected)", "umount -l /srv/csv");
	mw_run(w, NS_PER_SEC);
	r = mw_ask(w, 1, "migration.plan", json_pack("{s:s, s:s}", "vm", "vm1", "to", "n2"));
	ck_assert(warned(r, "n2 has a dead mount of the volume"));
	r = mw_ask(w, 1, "migration.start", json_pack("{s:s, s:s}", "vm", "vm1", "to", "n2"));
	ck_assert_msg(strstr(mig_text(r, "message"), "dead mount"), "%s", mig_text(r, "message"));
	ck_assert_uint_eq(mig_place(mw_leader(w), "vm1", 0, 3, why, sizeof(why)), 1);
	n = item_of(mw_ask(w, 3, "node.status", NULL), "n2");
	ck_assert_ptr_nonnull(strstr(mig_text(n, "problem"), "its csvfsd is gone"));
	mw_power_cut(w, 3);
	ck_assert(mw_until(w, 30 * NS_PER_SEC, vm1_runs));
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 1);
	mw_free(w);
}
END_TEST

START_TEST(a_mount_that_only_waits_is_a_target)
{
	struct mw *w = mw_new();

	mw_mount_is(w, 2, "waits", "the volume at /srv/csv waits: the members of the cluster are being agreed on", "");
	mw_run(w, NS_PER_SEC);
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 2, "vm1"), NULL);
	mw_mount_is(w, 2, "joining", JOINING, "csvctl node confirm-fenced 3");
	mw_run(w, NS_PER_SEC);
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 2, "vm1"), "has not mounted the volume yet");
	mw_mount_is(w, 2, NULL, NULL, NULL);
	mw_run(w, NS_PER_SEC);
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 2, "vm1"), NULL);
	mw_free(w);
}
END_TEST

START_TEST(a_qemu_that_could_not_be_asked_is_no_target_until_it_answers)
{
	struct mw *w = mw_new();
	const json_t *n;

	w->node[2].qemu_reason = "QEMU could not be asked what it can do: it does not answer on its monitor; it is asked again in 4 s";
	mw_host_news(w, 2);
	mw_run(w, NS_PER_SEC);
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 2, "vm1"), "has a QEMU that could not be asked yet what it can do");
	n = item_of(mw_ask(w, 1, "node.status", NULL), "n2");
	ck_assert_ptr_nonnull(strstr(mig_text(n, "problem"), "it is asked again in 4 s"));
	w->node[2].qemu_reason = NULL;
	mw_host_news(w, 2);
	mw_run(w, NS_PER_SEC);
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 2, "vm1"), NULL);
	ck_assert_str_eq(mig_text(item_of(mw_ask(w, 1, "node.status", NULL), "n2"), "problem"), "");
	mw_free(w);
}
END_TEST

/* ---- what outlives restarts and cold starts ------------------------------------------------------------------------------------------------------ */

static void drain(struct mw *w, int id)
{
	ck_assert_int_eq(mig_int(mw_job(w, 1, "node.drain", node(id), 60 * NS_PER_SEC), "code"), 0);
}

static bool is_drained(struct mw *w, uint32_t id)
{
	const char *no = mig_place_refuses(mw_leader(w), id, "vm1");

	return no && !strcmp(no, "is drained");
}

START_TEST(a_drained_node_stays_so_when_every_migratord_restarts)
{
	struct mw *w = mw_new();

	drain(w, 3);
	for (uint32_t i = 1; i <= 3; i++)
		mw_daemon_kill(w, i);
	for (uint32_t i = 1; i <= 3; i++)
		mw_daemon_start(w, i);
	mw_run(w, 10 * NS_PER_SEC);
	ck_assert(is_drained(w, 3));
	mw_free(w);
}
END_TEST

START_TEST(a_drained_node_stays_so_through_a_cold_start_until_it_is_resumed)
{
	struct mw *w = mw_new();

	drain(w, 3);
	for (unsigned k = 0; k < 2; k++) {
		mw_all_off(w);
		for (uint32_t i = 1; i <= 3; i++)
			mw_boot(w, i, true);
		mw_run(w, 10 * NS_PER_SEC);
		ck_assert(is_drained(w, 3));
		ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 2, "vm1"), NULL);
	}
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "node.resume", node(3))), 0);
	mw_all_off(w);
	for (uint32_t i = 1; i <= 3; i++)
		mw_boot(w, i, true);
	mw_run(w, 10 * NS_PER_SEC);
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), NULL);
	mw_free(w);
}
END_TEST

/* n1 was off when n3 was resumed: its copy is older, whoever comes first. */
START_TEST(of_two_durable_copies_the_newer_one_wins)
{
	struct mw *w = mw_new();

	drain(w, 3);
	mw_power_cut(w, 1);
	mw_run(w, 10 * NS_PER_SEC);
	ck_assert_int_eq(mw_code(mw_ask(w, 2, "node.resume", node(3))), 0);
	mw_run(w, NS_PER_SEC);
	mw_all_off(w);
	mw_boot(w, 1, true);
	mw_run(w, 2 * NS_PER_SEC);
	mw_boot(w, 2, true);
	mw_boot(w, 3, true);
	mw_run(w, 10 * NS_PER_SEC);
	ck_assert_uint_eq(mig_leader(w->node[1].m), 1);
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), NULL);
	mw_free(w);
}
END_TEST

START_TEST(a_quarantine_outlives_a_cold_start)
{
	struct mw *w = mw_new();

	for (unsigned k = 0; k < 3; k++) {
		mw_power_cut(w, 3);
		mw_run(w, 20 * NS_PER_SEC);
		mw_boot(w, 3, true);
		mw_run(w, 10 * NS_PER_SEC);
	}
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), "is quarantined after three losses in an hour");
	mw_all_off(w);
	for (uint32_t i = 1; i <= 3; i++)
		mw_boot(w, i, true);
	mw_run(w, 10 * NS_PER_SEC);
	ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), "is quarantined after three losses in an hour");
	mw_free(w);
}
END_TEST

START_TEST(a_node_drained_by_a_person_stays_so_when_it_is_shut_down_and_comes_back)
{
	struct mw *w = mw_new();

	drain(w, 3);
	ck_assert_int_eq(mig_int(mw_job(w, 1, "node.shutdown", node(3), 60 * NS_PER_SEC), "code"), 0);
	mw_run(w, 5 * NS_PER_SEC);
	mw_power_cut(w, 3);
	mw_run(w, 5 * NS_PER_SEC);
	mw_boot(w, 3, true);
	mw_run(w, 10 * NS_PER_SEC);
	ck_assert(is_drained(w, 3));
	mw_free(w);
}
END_TEST

START_TEST(a_durable_copy_that_is_rubbish_is_no_copy)
{
	static const char *const bad[] = { "[]", "{}", "{\"nodes\": 7, \"definitions\": []}", "{\"nodes\": [7, {}, {\"k\": \"lease/1\", \"r\": 1, \"b\": 1, \"v\": {}}, "
					   "{\"k\": \"node/3\", \"r\": -1, \"b\": 1, \"v\": {}}, {\"k\": \"node/3\", \"r\": 9, \"b\": 1, \"v\": 4}], \"definitions\": {\"x\": 7}}" };

	for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
		struct mw *w = mw_new();

		mw_all_off(w);
		for (uint32_t i = 1; i <= 3; i++) {
			free(w->node[i].kept);
			w->node[i].kept = strdup(bad[k]);
			mw_boot(w, i, true);
		}
		mw_mount_is(w, 1, "none", "x", "");
		mw_run(w, 10 * NS_PER_SEC);
		ck_assert_pstr_eq(mig_place_refuses(mw_leader(w), 3, "vm1"), NULL);
		ck_assert_ptr_null(mig_item_get(w->node[1].m, "lease/1"));
		mw_ask(w, 1, "vm.list", NULL);
		mw_free(w);
	}
}
END_TEST

UNIT_MAIN("mig_known", UNIT_TEST(vms_that_cannot_be_known_are_shown_blocked_with_reason_and_command),
	  UNIT_TEST(where_nothing_at_all_is_known_it_is_said_in_so_many_words), UNIT_TEST(without_any_hvhostd_or_mount_the_reason_is_that),
	  UNIT_TEST(with_the_volume_the_isolated_nodes_vm_is_blocked_until_the_proof_and_starts_once),
	  UNIT_TEST(definitions_that_cannot_be_read_are_said_to_be_so_on_every_node),
	  UNIT_TEST(where_one_node_cannot_read_the_definitions_another_is_asked),
	  UNIT_TEST(an_unmounted_volume_makes_no_definition_vanish), UNIT_TEST(a_node_with_a_dead_mount_is_no_target_and_the_reason_says_so),
	  UNIT_TEST(a_mount_that_only_waits_is_a_target), UNIT_TEST(a_qemu_that_could_not_be_asked_is_no_target_until_it_answers),
	  UNIT_TEST(a_drained_node_stays_so_when_every_migratord_restarts),
	  UNIT_TEST(a_drained_node_stays_so_through_a_cold_start_until_it_is_resumed), UNIT_TEST(of_two_durable_copies_the_newer_one_wins),
	  UNIT_TEST(a_quarantine_outlives_a_cold_start), UNIT_TEST(a_node_drained_by_a_person_stays_so_when_it_is_shut_down_and_comes_back),
	  UNIT_TEST(a_durable_copy_that_is_rubbish_is_no_copy))
