/* SPDX-License-Identifier: GPL-2.0-only */
/* test_dlm_recover.c - the lock manager after losses: phantoms, proofs, value blocks, leaving, purged nodes, cold starts. */
#include <errno.h>

#include "tests/unit/dlm_fake.h"

static void lose(struct dw *d, unsigned node)
{
	sim_net_power_cut(d->net, node);
	dw_run_ms(d, 1000);
	for (unsigned i = 1; i <= d->nodes; i++)
		if (d->n[i].dlm)
			ck_assert(dlm_is_recovered(d->n[i].dlm));
}

/* ---- phantoms ------------------------------------------------------------------------------------------------------------ */

/* _i: the lost node's mode. Its master survives, so its real lock stands, until the proof that its mode needs. */
START_TEST(lost_lock_stands_until_its_proof_where_the_master_survived)
{
	struct dw *d = dw_new(3);
	struct cluster_node three = dw_id(d, 3);
	struct dw_lock x, y, z;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	dw_init(d, 3, &z, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_CR, 0));	/* master */
	if (_i == DLM_EX) {
		ck_assert(!dw_lock(d, 3, &z, _i, 0));
		dw_down_to(d, 1, &x, DLM_NL);
	} else {
		ck_assert(dw_lock(d, 3, &z, _i, 0));
		dw_down_to(d, 1, &x, DLM_NL);
	}
	ck_assert_int_eq(z.l.granted, _i);
	lose(d, 3);
	ck_assert_uint_eq(d->n[1].n_lost, 1);
	ck_assert(node_eq(d->n[1].lost[0], three));
	for (int m = DLM_CR; m <= DLM_EX; m++) {
		bool goes = dlm_compatible(m, _i);

		ck_assert_msg(dw_lock(d, 2, &y, m, DLM_NOQUEUE) == goes, "%s against a lost %s", dlm_mode_name(m), dlm_mode_name(_i));
		if (goes)
			dw_down_to(d, 2, &y, DLM_NL);
	}
	ck_assert(!dw_lock(d, 2, &y, DLM_EX, 0));
	dw_proof(d, three, false);
	ck_assert_int_eq(y.l.granted, _i < DLM_PW ? DLM_EX : DLM_NL);
	dw_proof(d, three, true);
	ck_assert_int_eq(y.l.granted, DLM_EX);
	dw_free(d);
}
END_TEST

/* _i: the survivor's mode on a resource whose master is lost: the lost one may have had anything that goes with it. */
START_TEST(where_the_master_is_lost_the_strongest_possible_lock_stands)
{
	static const enum dlm_mode phantom[6] = { DLM_EX, DLM_EX, DLM_CW, DLM_PR, DLM_CR, DLM_NL };
	struct dw *d = dw_new(3);
	struct cluster_node three = dw_id(d, 3);
	struct dw_lock x, y, z;
	char name[16];

	dw_name(d, 3, 0, name);		/* one directory node is lost with it */
	dw_init(d, 1, &x, name);
	dw_init(d, 2, &y, name);
	dw_init(d, 3, &z, name);
	ck_assert(dw_lock(d, 3, &z, DLM_CR, 0));
	if (_i && !dw_lock(d, 1, &x, _i, 0))
		dw_down_to(d, 3, &z, DLM_NL);
	ck_assert_int_eq(x.l.granted, _i);
	lose(d, 3);
	for (int m = DLM_CR; m <= DLM_EX; m++) {
		bool goes = dlm_compatible(m, _i) && dlm_compatible(m, phantom[_i]);

		ck_assert_msg(dw_lock(d, 2, &y, m, DLM_NOQUEUE) == goes, "%s beside a surviving %s", dlm_mode_name(m),
			      dlm_mode_name(_i));
		if (goes)
			dw_down_to(d, 2, &y, DLM_NL);
	}
	dw_proof(d, three, true);
	if (_i)
		dw_down_to(d, 1, &x, DLM_NL);
	ck_assert(dw_lock(d, 2, &y, DLM_EX, 0));
	dw_free(d);
}
END_TEST

START_TEST(a_name_whose_directory_survived_and_has_no_record_is_free)
{
	struct dw *d = dw_new(3);
	struct dw_lock x;
	char name[16];

	dw_name(d, 3, 1, name);
	lose(d, 3);
	dw_init(d, 2, &x, name);
	ck_assert(dw_lock(d, 2, &x, DLM_EX, 0));
	dw_free(d);
}
END_TEST

START_TEST(a_name_that_lost_both_directory_nodes_counts_as_ex)
{
	struct dw *d = dw_new(5);
	struct cluster_node four = dw_id(d, 4), five = dw_id(d, 5);
	struct dw_lock x, y;
	char name[16], other[16];

	dw_name(d, 4, 5, name);
	dw_name(d, 4, 1, other);
	sim_net_power_cut(d->net, 4);
	lose(d, 5);
	dw_init(d, 2, &x, name);
	dw_init(d, 2, &y, other);
	ck_assert(!dw_lock(d, 2, &x, DLM_CR, 0));
	ck_assert(dw_lock(d, 2, &y, DLM_EX, 0));
	dw_proof(d, four, true);
	ck_assert_int_eq(x.l.granted, DLM_NL);
	dw_proof(d, five, false);
	ck_assert_int_eq(x.l.granted, DLM_NL);
	dw_proof(d, five, true);
	ck_assert_int_eq(x.l.granted, DLM_CR);
	dw_free(d);
}
END_TEST

START_TEST(requests_of_recovery_go_past_phantoms_and_not_past_the_living)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y, z;

	dw_init(d, 1, &x, "slot3");
	dw_init(d, 2, &y, "slot3");
	dw_init(d, 3, &z, "slot3");
	ck_assert(dw_lock(d, 3, &z, DLM_EX, 0));
	lose(d, 3);
	ck_assert(!dw_lock(d, 1, &x, DLM_EX, DLM_NOQUEUE));
	ck_assert(dw_lock(d, 1, &x, DLM_EX, DLM_PAST_PHANTOMS));
	ck_assert(!dw_lock(d, 2, &y, DLM_EX, DLM_PAST_PHANTOMS));
	dw_down_to(d, 1, &x, DLM_NL);
	ck_assert_int_eq(y.l.granted, DLM_EX);
	dw_free(d);
}
END_TEST

START_TEST(a_proof_that_comes_before_the_loss_counts)
{
	struct dw *d = dw_new(3);
	struct cluster_node three = dw_id(d, 3);
	struct dw_lock x, z;

	dw_init(d, 1, &x, "r");
	dw_init(d, 3, &z, "r");
	ck_assert(dw_lock(d, 3, &z, DLM_EX, 0));
	dw_proof(d, three, false);
	dw_proof(d, three, true);
	lose(d, 3);
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	ck_assert_uint_eq(d->n[1].n_lost, 0);
	dw_free(d);
}
END_TEST

START_TEST(grants_stay_and_waiting_requests_are_asked_again)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	ck_assert(!dw_lock(d, 2, &y, DLM_PR, 0));
	sim_net_power_cut(d->net, 3);
	dw_run_ms(d, 30);
	ck_assert_int_eq(x.l.granted, DLM_EX);
	dw_run_ms(d, 1000);
	ck_assert_int_eq(x.l.granted, DLM_EX);
	ck_assert_int_eq(y.done, 0);
	dw_down_to(d, 1, &x, DLM_NL);
	ck_assert_int_eq(y.l.granted, DLM_PR);
	dw_free(d);
}
END_TEST

/* ---- value blocks ---------------------------------------------------------------------------------------------------------- */

START_TEST(value_of_a_lost_writer_is_not_valid)
{
	struct dw *d = dw_new(3);
	struct cluster_node three = dw_id(d, 3);
	struct dw_lock x, y, z;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	dw_init(d, 3, &z, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_PW, 0));
	dw_down_to(d, 1, &x, DLM_CR);
	ck_assert(dw_lock(d, 3, &z, DLM_PW, 0));
	ck_assert(z.l.lvb_valid);
	lose(d, 3);
	dw_proof(d, three, true);
	ck_assert(dw_lock(d, 2, &y, DLM_PR, 0));
	ck_assert(!y.l.lvb_valid);
	dw_free(d);
}
END_TEST

START_TEST(value_survives_its_master_with_a_reader)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y, z;
	char name[16];

	dw_name(d, 3, 0, name);
	dw_init(d, 1, &x, name);
	dw_init(d, 2, &y, name);
	dw_init(d, 3, &z, name);
	ck_assert(dw_lock(d, 3, &z, DLM_EX, 0));
	memset(z.l.lvb, 5, DLM_LVB_LEN);
	dw_down_to(d, 3, &z, DLM_PR);
	ck_assert(dw_lock(d, 1, &x, DLM_PR, 0));
	lose(d, 3);
	ck_assert(dw_lock(d, 2, &y, DLM_PR, 0));
	ck_assert(y.l.lvb_valid);
	ck_assert_uint_eq(y.l.lvb[100], 5);
	dw_free(d);
}
END_TEST

/* ---- leaving, purged, cold start ---------------------------------------------------------------------------------------------- */

static void left(void *arg)
{
	*(int *)arg += 1;
}

START_TEST(who_leaves_cleanly_leaves_no_phantoms)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, z;
	int gone = 0;

	dw_init(d, 1, &x, "r");
	dw_init(d, 3, &z, "r");
	ck_assert(dw_lock(d, 3, &z, DLM_EX, 0));
	dw_down_to(d, 3, &z, DLM_NL);
	dlm_lock_done(d->n[3].dlm, &z.l);
	dlm_leave(d->n[3].dlm, left, &gone);
	dw_run_ms(d, 50);
	ck_assert_int_eq(gone, 1);
	sim_net_exit(d->net, 3);
	dw_run_ms(d, 1000);
	ck_assert(dlm_is_recovered(d->n[1].dlm));
	ck_assert_uint_eq(d->n[1].n_lost, 0);
	ck_assert_uint_eq(d->n[2].n_lost, 0);
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	dw_free(d);
}
END_TEST

START_TEST(who_leaves_during_a_recovery_leaves_no_phantoms)
{
	struct dw *d = dw_new_cfg(3, 2000 + _i, (struct dlm_config){ 0 });
	struct dw_lock x, z;
	int gone = 0;

	dw_init(d, 1, &x, "r");
	dw_init(d, 3, &z, "r");
	ck_assert(dw_lock(d, 3, &z, DLM_EX, 0));
	sim_net_token_loss(d->net, 1);
	dw_run_ms(d, 70);
	for (int i = 0; i < _i * 8; i++)
		sim_world_step(d->w);
	dlm_downgrade(d->n[3].dlm, &z.l, DLM_NL);
	dlm_lock_done(d->n[3].dlm, &z.l);
	dlm_leave(d->n[3].dlm, left, &gone);
	dw_run_ms(d, 1000);
	ck_assert_int_eq(gone, 1);
	sim_net_exit(d->net, 3);
	dw_run_ms(d, 1000);
	ck_assert(dlm_is_recovered(d->n[1].dlm));
	ck_assert_uint_eq(d->n[1].n_lost, 0);
	ck_assert_uint_eq(d->n[2].n_lost, 0);
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	dw_free(d);
}
END_TEST

START_TEST(a_node_that_was_gone_is_purged_and_comes_back_empty)
{
	struct dw *d = dw_new(3);
	unsigned side[4] = { 0, 0, 0, 1 };
	struct cluster_node old = dw_id(d, 3), next;
	struct dw_lock x, z, w;

	dw_init(d, 1, &x, "r");
	dw_init(d, 3, &z, "r");
	dw_init(d, 3, &w, "w");
	ck_assert(dw_lock(d, 3, &z, DLM_EX, 0));
	sim_net_partition(d->net, side);
	dw_run_ms(d, 1000);
	ck_assert(!dlm_is_recovered(d->n[3].dlm));
	ck_assert_int_eq(z.l.granted, DLM_EX);		/* cached grants stay in force */
	ck_assert(!dw_lock(d, 3, &w, DLM_PR, 0));	/* nothing new without a view */
	ck_assert(!dw_lock(d, 1, &x, DLM_PR, 0));	/* and the majority respects it */
	sim_net_heal(d->net);
	dw_run_ms(d, 1000);
	ck_assert_int_eq(d->n[3].purged, 1);
	ck_assert_int_eq(w.status, -ENOTCONN);
	ck_assert(dlm_is_recovered(d->n[1].dlm) && dlm_is_recovered(d->n[2].dlm) && !dlm_is_recovered(d->n[3].dlm));
	ck_assert_int_eq(x.l.granted, DLM_NL);		/* not merged, still in force */
	dw_down_to(d, 3, &z, DLM_NL);
	next.incarnation = sim_net_next_incarnation(d->net, 3);
	cluster_new_incarnation(d->n[3].env->cluster, next.incarnation);
	dw_run_ms(d, 1000);
	ck_assert(dlm_is_recovered(d->n[3].dlm));
	dw_proof(d, old, false);
	dw_proof(d, old, true);
	ck_assert_int_eq(x.l.granted, DLM_PR);
	ck_assert(dw_lock(d, 3, &z, DLM_PR, 0));
	dw_free(d);
}
END_TEST

START_TEST(after_a_cold_start_nothing_is_free_before_the_disk_was_asked)
{
	struct dw *d = calloc(1, sizeof(*d));
	struct sim_net_hooks hooks = { .start = dw_start, .down = dw_down, .arg = d };
	struct cluster_node ghost = { 3, 77 };
	struct dw_lock x;

	d->nodes = 3;
	d->hold_survey = true;
	d->active[d->n_active++] = ghost;
	dw_of_survey = d;
	d->w = sim_world_new(1, 3);
	d->net = sim_net_new(d->w, 1, &hooks);
	sim_net_boot(d->net, 1);
	sim_net_boot(d->net, 2);
	dw_init(d, 1, &x, "r");
	dlm_request(d->n[1].dlm, &x.l, DLM_PR, 0);
	dw_run_ms(d, 1000);
	ck_assert_int_ge(d->n[1].surveys, 1);
	ck_assert(!dlm_is_recovered(d->n[1].dlm));
	dlm_surveyed(d->n[1].dlm, d->n[1].ticket + 1, NULL, 0);	/* of another time: ignored */
	for (unsigned i = 1; i <= 2; i++)
		dlm_surveyed(d->n[i].dlm, d->n[i].ticket, d->active, d->n_active);
	dw_run_ms(d, 100);
	ck_assert(dlm_is_recovered(d->n[1].dlm));
	ck_assert_uint_eq(d->n[1].n_lost, 1);
	ck_assert(node_eq(d->n[1].lost[0], ghost));
	ck_assert_int_eq(x.l.granted, DLM_NL);
	dw_proof(d, ghost, true);
	ck_assert_int_eq(x.l.granted, DLM_PR);
	dw_free(d);
}
END_TEST

/* One more node dies at every step of a recovery: it starts anew and comes to its end with the right phantoms. */
START_TEST(a_loss_at_any_step_of_a_recovery_is_recovered)
{
	struct dw *d = dw_new_cfg(5, 1000 + _i, (struct dlm_config){ 0 });
	struct cluster_node four = dw_id(d, 4), five = dw_id(d, 5);
	struct dw_lock x, y, z;

	dw_init(d, 1, &x, "a");
	dw_init(d, 4, &y, "a");
	dw_init(d, 5, &z, "b");
	ck_assert(dw_lock(d, 4, &y, DLM_PR, 0));
	ck_assert(dw_lock(d, 5, &z, DLM_EX, 0));
	sim_net_power_cut(d->net, 5);
	sim_world_run(d->w, sim_world_now_ns(d->w) + 70 * NS_PER_MS, NULL, NULL);
	for (int i = 0; i < _i * 12; i++)
		sim_world_step(d->w);
	sim_net_power_cut(d->net, 4);
	dw_run_ms(d, 2000);
	for (unsigned i = 1; i <= 3; i++) {
		ck_assert(dlm_is_recovered(d->n[i].dlm));
		ck_assert_uint_eq(d->n[i].n_lost, 2);
	}
	ck_assert(!dw_lock(d, 1, &x, DLM_EX, DLM_NOQUEUE));
	dw_proof(d, four, true);
	dw_proof(d, five, true);
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	dw_free(d);
}
END_TEST

UNIT_MAIN("dlm_recover", UNIT_LOOP(lost_lock_stands_until_its_proof_where_the_master_survived, 1, 6),
	  UNIT_LOOP(where_the_master_is_lost_the_strongest_possible_lock_stands, 0, 6),
	  UNIT_TEST(a_name_whose_directory_survived_and_has_no_record_is_free),
	  UNIT_TEST(a_name_that_lost_both_directory_nodes_counts_as_ex),
	  UNIT_TEST(requests_of_recovery_go_past_phantoms_and_not_past_the_living), UNIT_TEST(a_proof_that_comes_before_the_loss_counts),
	  UNIT_TEST(grants_stay_and_waiting_requests_are_asked_again), UNIT_TEST(value_of_a_lost_writer_is_not_valid),
	  UNIT_TEST(value_survives_its_master_with_a_reader), UNIT_TEST(who_leaves_cleanly_leaves_no_phantoms),
	  UNIT_LOOP(who_leaves_during_a_recovery_leaves_no_phantoms, 0, 30),
	  UNIT_TEST(a_node_that_was_gone_is_purged_and_comes_back_empty),
	  UNIT_TEST(after_a_cold_start_nothing_is_free_before_the_disk_was_asked),
	  UNIT_LOOP(a_loss_at_any_step_of_a_recovery_is_recovered, 0, 40))
