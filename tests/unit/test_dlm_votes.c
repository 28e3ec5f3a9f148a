/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * test_dlm_votes.c - how many votes there are: when more than half of them stayed together no ring that was tried in vain can have been
 * quorate, and names without a record are free (dlm/dlm_agree.c, 3c).  All members must compute with the same number, and with the
 * greatest that any of them knows (utils/env/cluster.h, C8).
 */
#include "tests/unit/dlm_fake.h"

static void sides(struct dw *d, const char *of)
{
	unsigned side[DW_NODES + 1] = { 0 };

	for (unsigned i = 1; i <= d->nodes; i++)
		side[i] = (unsigned)(of[i - 1] - 'a');
	sim_net_partition(d->net, side);
	dw_run_ms(d, 1500);
}

/*
 * Three nodes, together, then all apart, then 1 and 2 together: rings were tried in between.  The engines of 1 and 2 say these votes.
 * Whether a name that nobody has ever locked is free before anything about node 3 is proven; it is in any case after that.
 */
static bool free_at_once(uint32_t votes_1, uint32_t votes_2, int *ret_surveys)
{
	struct dw *d = dw_new(3);
	struct cluster_node three = dw_id(d, 3);
	struct dw_lock x;
	bool ret;

	sim_net_expects(d->net, 1, votes_1);
	sim_net_expects(d->net, 2, votes_2);
	sides(d, "abc");
	d->n[1].surveys = d->n[2].surveys = 0;
	sides(d, "aac");
	ck_assert(dlm_is_recovered(d->n[1].dlm) && dlm_is_recovered(d->n[2].dlm));
	*ret_surveys = d->n[1].surveys;
	ck_assert_int_eq(d->n[2].surveys, d->n[1].surveys);	/* both compute alike */
	dw_init(d, 1, &x, "new");
	ret = dw_lock(d, 1, &x, DLM_EX, 0);
	dw_proof(d, three, false);
	ck_assert_int_eq(x.l.granted == DLM_EX, ret);
	dw_proof(d, three, true);
	ck_assert_int_eq(x.l.granted, DLM_EX);
	dw_free(d);
	return ret;
}

START_TEST(names_are_free_at_once_where_more_than_half_of_all_votes_stayed_together)
{
	int surveys;

	ck_assert(free_at_once(3, 3, &surveys));
	ck_assert_int_eq(surveys, 0);
}
END_TEST

START_TEST(where_one_member_does_not_know_the_votes_names_wait_for_the_proof)
{
	int surveys;

	ck_assert(!free_at_once(3, 0, &surveys));
	ck_assert_int_ge(surveys, 1);
	ck_assert(!free_at_once(0, 3, &surveys));
	ck_assert(!free_at_once(0, 0, &surveys));
}
END_TEST

START_TEST(the_greatest_number_of_votes_that_a_member_knows_counts_for_all)
{
	int surveys;

	ck_assert(!free_at_once(3, 4, &surveys));	/* two of four are no majority */
	ck_assert(!free_at_once(4, 3, &surveys));
	ck_assert_int_ge(surveys, 1);
}
END_TEST

/*
 * The cluster has grown from three nodes to five, and node 1 was not told of it.
 *
 *	{2,3,4}		quorate; 1 and 5 are off
 *	{1,4,5} {2,3}	quorate: 4 locks a name that nobody has locked before; 2 and 3 never hear of it
 *	{1,2,3}		4 and 5 died, and the daemon of 1 did: nobody here knows of the view before.  2 and 3 stayed together: of three nodes
 *			that would be a majority, of five it is none
 *
 * Node 1 has the directory record of the name.  Were it to compute with its own number, it would take the name for free.
 */
#define NAMES 32u

static void replayed_on(struct dw *d, unsigned node, struct cluster_node who)
{
	dlm_replayed(d->n[node].dlm, who);
	dw_run_ms(d, 50);
}

static bool lock_is_kept(bool own_votes)
{
	struct dw *d = dw_new(5);
	struct cluster_node life[DW_NODES + 1];
	struct dw_lock x, y[NAMES];
	char name[16];
	uint32_t dir1 = 0, dir2;
	unsigned k = 0;
	bool ret;

	d->own_votes = own_votes;
	for (unsigned i = 1; i <= 5; i++)
		life[i] = dw_id(d, i);
	sim_net_expects(d->net, 1, 3);
	sim_net_power_cut(d->net, 1);
	sim_net_power_cut(d->net, 5);
	dw_run_ms(d, 1500);
	for (unsigned i = 2; i <= 4; i++) {
		ck_assert(dlm_is_recovered(d->n[i].dlm));
		replayed_on(d, i, life[1]);
		replayed_on(d, i, life[5]);
	}
	sides(d, "abbaa");
	sim_net_boot(d->net, 1);
	sim_net_boot(d->net, 5);
	dw_run_ms(d, 3000);
	ck_assert(dlm_is_recovered(d->n[4].dlm) && !dlm_is_recovered(d->n[2].dlm));
	for (unsigned i = 1; i <= 5; i += i == 1 ? 3 : 1) {	/* that 2 and 3 are off is not true; the names are to be free there */
		replayed_on(d, i, life[2]);
		replayed_on(d, i, life[3]);
	}
	for (unsigned i = 0; i < NAMES; i++) {
		snprintf(name, sizeof(name), "name%u", i);
		dw_init(d, 4, &y[i], name);
		ck_assert(dw_lock(d, 4, &y[i], DLM_EX, 0));
	}
	d->active[d->n_active++] = life[4];
	sim_net_power_cut(d->net, 5);
	sim_net_power_cut(d->net, 4);
	sim_net_kill_process(d->net, 1);
	sim_net_boot(d->net, 1);
	dw_run_ms(d, 1500);
	sides(d, "aaabb");
	dw_run_ms(d, 1500);
	for (unsigned i = 1; i <= 3; i++)
		ck_assert_msg(dlm_is_recovered(d->n[i].dlm), "node %u", i);
	for (; k < NAMES && dir1 != 1; k++)
		dlm_dirs(d->n[1].dlm, &(struct dlm_name){ .len = y[k].l.name_len, .b = { 'n', 'a', 'm', 'e', y[k].l.name[4], y[k].l.name[5] } },
			 &dir1, &dir2);
	ck_assert_uint_eq(dir1, 1);
	snprintf(name, sizeof(name), "name%u", k - 1);
	dw_init(d, 1, &x, name);
	ret = !dw_lock(d, 1, &x, DLM_EX, 0);
	if (ret) {
		for (unsigned i = 1; i <= 3; i++)
			replayed_on(d, i, life[4]);
		ck_assert_int_eq(x.l.granted, DLM_EX);	/* it waited for node 4 alone */
	}
	dw_free(d);
	return ret;
}

START_TEST(a_member_whose_node_list_is_old_gives_nothing_away)
{
	ck_assert(lock_is_kept(false));
}
END_TEST

START_TEST(computing_with_ones_own_number_would_give_away_what_another_holds)
{
	/* Negative control: the same without the other members' word. */
	ck_assert(!lock_is_kept(true));
}
END_TEST

UNIT_MAIN("dlm_votes", UNIT_TEST(names_are_free_at_once_where_more_than_half_of_all_votes_stayed_together),
	  UNIT_TEST(where_one_member_does_not_know_the_votes_names_wait_for_the_proof),
	  UNIT_TEST(the_greatest_number_of_votes_that_a_member_knows_counts_for_all),
	  UNIT_TEST(a_member_whose_node_list_is_old_gives_nothing_away),
	  UNIT_TEST(computing_with_ones_own_number_would_give_away_what_another_holds))
