/*
 * migrator/mig_place.c, mig_ha.c: where VMs go that are to run again, and what is said when there is no place.
 */
#include "tests/unit/mig_world.h"

#include <string.h>

static json_t *node(int id) { return json_pack("{s:i}", "nodeid", id); }
static bool vm1_on_n3(struct mw *w) { return mw_runs_on(w, "vm1") == 3; }
static const json_t *vm1(struct mw *w, uint32_t id, const char *verb) { return json_array_get(json_object_get(mw_ask(w, id, verb, NULL), "items"), 0); }

static void drain(struct mw *w, int id)
{
	ck_assert_int_eq(mig_int(mw_job(w, 1, "node.drain", node(id), 60 * NS_PER_SEC), "code"), 0);
}

/* Three losses in an hour. */
static void quarantine(struct mw *w, uint32_t id)
{
	for (unsigned i = 0; i < 3; i++) {
		mw_power_cut(w, id);
		mw_run(w, 300 * NS_PER_SEC);
		mw_boot(w, id, true);
		mw_run(w, 60 * NS_PER_SEC);
	}
	ck_assert_str_eq(mig_place_refuses(mw_leader(w), id, "vm1"), "is quarantined after three losses in an hour");
}

START_TEST(a_quarantined_node_is_a_better_place_than_none)
{
	struct mw *w = mw_new();
	char why[400];

	mw_vm_on(w, "vm1", 2, 100);
	quarantine(w, 3);
	drain(w, 1);
	ck_assert_uint_eq(mig_place(mw_leader(w), "vm1", 0, 2, why, sizeof(why)), 0);	/* by a person's wish: refused, with the reasons */
	ck_assert_ptr_nonnull(strstr(why, "n3 is quarantined"));
	mw_power_cut(w, 2);
	ck_assert(mw_until(w, 30 * NS_PER_SEC, vm1_on_n3));
	ck_assert_ptr_nonnull(mw_event(w, 1, "starts on n3, though that is quarantined: no other node can have it"));
	mw_free(w);
}
END_TEST

START_TEST(where_another_node_can_have_it_a_quarantined_one_gets_none)
{
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 2, 100);
	quarantine(w, 3);
	mw_power_cut(w, 2);
	mw_run(w, 60 * NS_PER_SEC);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 1);
	mw_free(w);
}
END_TEST

START_TEST(a_lost_vm_that_no_node_can_have_says_so_everywhere_and_runs_as_soon_as_one_can)
{
	static const char *const verbs[] = { "vm.list", "ha.status" };
	struct mw *w = mw_new();

	mw_vm_on(w, "vm1", 2, 100);
	drain(w, 1);
	drain(w, 3);
	mw_power_cut(w, 2);
	mw_run(w, 60 * NS_PER_SEC);
	ck_assert_uint_eq(mw_runs_on(w, "vm1"), 0);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		for (uint32_t id = 1; id <= 3; id += 2) {
			const json_t *v = vm1(w, id, verbs[i]);

			ck_assert_msg(!strncmp(mig_text(v, "reason"), "waits: no node can have it: n1 is drained; n2 is no member", 58), "%s", mig_text(v, "reason"));
			ck_assert_ptr_nonnull(strstr(mig_text(v, "reason"), "n3 is drained"));
			ck_assert_str_eq(mig_text(v, "command"), "csvctl node list");
		}
	ck_assert_str_eq(mig_text(mw_event(w, 1, "waits: no node can have it"), "level"), "error");
	ck_assert_int_eq(mw_code(mw_ask(w, 1, "node.resume", node(3))), 0);
	ck_assert(mw_until(w, 10 * NS_PER_SEC, vm1_on_n3));
	ck_assert_ptr_null(strstr(mig_text(vm1(w, 1, "vm.list"), "reason"), "no node can have it"));
	mw_free(w);
}
END_TEST

UNIT_MAIN("mig_place", UNIT_TEST(a_quarantined_node_is_a_better_place_than_none), UNIT_TEST(where_another_node_can_have_it_a_quarantined_one_gets_none),
	  UNIT_TEST(a_lost_vm_that_no_node_can_have_says_so_everywhere_and_runs_as_soon_as_one_can))
