/* SPDX-License-Identifier: GPL-2.0-only */
/* test_dlm.c - the lock manager: modes, grants, messages, value blocks, basts, cancel. */
#include <errno.h>
#include <signal.h>

#include "tests/unit/dlm_fake.h"

/* ---- modes --------------------------------------------------------------------------------------------------------------- */

START_TEST(table_is_the_one_of_vms)
{
	static const char *const row[6] = { "YYYYYY", "YYYYYN", "YYYNNN", "YYNYNN", "YYNNNN", "YNNNNN" };

	for (int a = 0; a < 6; a++)
		for (int b = 0; b < 6; b++)
			ck_assert_msg(dlm_compatible(a, b) == (row[a][b] == 'Y'), "%s with %s", dlm_mode_name(a), dlm_mode_name(b));
}
END_TEST

START_TEST(covers_and_join_follow_from_the_table)
{
	ck_assert(dlm_mode_covers(DLM_PW, DLM_CW) && dlm_mode_covers(DLM_PW, DLM_PR) && dlm_mode_covers(DLM_EX, DLM_PW));
	ck_assert(!dlm_mode_covers(DLM_PR, DLM_CW) && !dlm_mode_covers(DLM_CW, DLM_PR) && !dlm_mode_covers(DLM_CR, DLM_PR));
	ck_assert_int_eq(dlm_mode_join(DLM_PR, DLM_CW), DLM_PW);
	ck_assert_int_eq(dlm_mode_join(DLM_NL, DLM_CR), DLM_CR);
	ck_assert_int_eq(dlm_mode_join(DLM_CR, DLM_EX), DLM_EX);
}
END_TEST

START_TEST(phantom_is_the_strongest_that_survivors_allow)
{
	static const enum dlm_mode want[6] = { DLM_EX, DLM_EX, DLM_CW, DLM_PR, DLM_CR, DLM_NL };
	uint32_t none[6] = { 0 };

	ck_assert_int_eq(dlm_mode_phantom(none), DLM_EX);
	for (int m = 0; m < 6; m++) {
		uint32_t one[6] = { 0 };

		one[m] = 1;
		ck_assert_msg(dlm_mode_phantom(one) == want[m], "survivor %s: %s", dlm_mode_name(m),
			      dlm_mode_name(dlm_mode_phantom(one)));
	}
}
END_TEST

/* _i: 6 * first + second */
START_TEST(second_node_is_granted_exactly_what_goes_together)
{
	struct dw *d = dw_new(2);
	enum dlm_mode a = _i / 6, b = _i % 6;
	struct dw_lock x, y;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, a, 0));
	ck_assert_msg(dw_lock(d, 2, &y, b, 0) == dlm_compatible(a, b), "%s then %s", dlm_mode_name(a), dlm_mode_name(b));
	if (!dlm_compatible(a, b)) {
		ck_assert_int_eq(x.basts, 1);
		ck_assert_int_eq(x.last_bast, b);
		dw_down_to(d, 1, &x, DLM_NL);
		ck_assert_int_eq(y.done, 1);
		ck_assert_int_eq(y.status, 0);
	}
	ck_assert_int_eq(y.l.granted, b);
	dw_free(d);
}
END_TEST

/* ---- messages ------------------------------------------------------------------------------------------------------------- */

START_TEST(alone_no_message_is_sent)
{
	struct dw *d = dw_new(1);
	struct dw_lock x;

	dw_init(d, 1, &x, "r");
	for (int i = 0; i < 10; i++) {
		ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
		dw_down_to(d, 1, &x, DLM_NL);
	}
	ck_assert_uint_eq(dw_messages(d), 0);
	dw_free(d);
}
END_TEST

/* Which node asks and which are dir1 and dir2, and what the first lock of a new resource may cost at most. */
START_TEST(first_lock_costs_at_most_three_messages)
{
	static const unsigned dirs[4][2] = { { 1, 2 }, { 2, 1 }, { 2, 3 }, { 3, 2 } }, max[4] = { 2, 2, 3, 3 };
	struct dw *d = dw_new(3);
	struct dw_lock x;
	uint64_t before;
	char name[16];

	dw_init(d, 1, &x, dw_name(d, dirs[_i][0], dirs[_i][1], name));
	before = dw_messages(d);
	ck_assert(dw_lock(d, 1, &x, DLM_PR, 0));
	ck_assert_uint_le(dw_messages(d) - before, max[_i]);
	dw_free(d);
}
END_TEST

START_TEST(master_relocks_without_a_message_while_anybody_holds_a_lock)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y;
	uint64_t before;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_CR, 0));
	ck_assert(dw_lock(d, 2, &y, DLM_CR, 0));
	before = dw_messages(d);
	for (int i = 0; i < 5; i++) {
		dw_down_to(d, 1, &x, DLM_NL);
		ck_assert(dw_lock(d, 1, &x, DLM_PW, 0));
	}
	ck_assert_uint_eq(dw_messages(d) - before, 0);
	dw_free(d);
}
END_TEST

START_TEST(remote_lock_costs_two_messages_and_its_release_one)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y;
	uint64_t before;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_CR, 0));
	ck_assert(dw_lock(d, 2, &y, DLM_CR, 0));	/* learns who is master */
	dw_down_to(d, 2, &y, DLM_NL);
	before = dw_messages(d);
	ck_assert(dw_lock(d, 2, &y, DLM_PW, 0));
	ck_assert_uint_eq(dw_messages(d) - before, 2);
	before = dw_messages(d);
	dw_down_to(d, 2, &y, DLM_CR);
	dw_down_to(d, 2, &y, DLM_NL);
	ck_assert_uint_eq(dw_messages(d) - before, 2);
	dw_free(d);
}
END_TEST

START_TEST(a_holder_in_the_way_costs_one_message_more)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y, z;
	uint64_t before;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	dw_init(d, 3, &z, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_CR, 0));
	ck_assert(dw_lock(d, 2, &y, DLM_CR, 0));
	ck_assert(dw_lock(d, 3, &z, DLM_PR, 0));
	dw_down_to(d, 2, &y, DLM_NL);
	before = dw_messages(d);
	ck_assert(!dw_lock(d, 2, &y, DLM_PW, 0));	/* request, bast */
	ck_assert_uint_eq(dw_messages(d) - before, 2);
	ck_assert_int_eq(z.basts, 1);
	dw_down_to(d, 3, &z, DLM_NL);			/* down, grant */
	ck_assert_uint_eq(dw_messages(d) - before, 4);
	ck_assert_int_eq(y.l.granted, DLM_PW);
	dw_free(d);
}
END_TEST

START_TEST(nothing_is_kept_of_a_resource_without_locks)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y;

	dw_two_readers(d, &x, &y);
	dw_down_to(d, 1, &x, DLM_NL);
	dw_down_to(d, 2, &y, DLM_NL);
	for (unsigned i = 1; i <= 3; i++) {
		ck_assert_uint_eq(d->n[i].dlm->resources.n, 0);
		ck_assert_uint_eq(d->n[i].dlm->dir.n, 0);
	}
	/* The remembered master has forgotten it: the request finds its way all the same. */
	ck_assert(dw_lock(d, 2, &y, DLM_EX, 0));
	dlm_downgrade(d->n[2].dlm, &y.l, DLM_NL);
	dlm_lock_done(d->n[2].dlm, &y.l);
	dw_free(d);
}
END_TEST

/* ---- value blocks ---------------------------------------------------------------------------------------------------------- */

START_TEST(value_written_under_ex_is_read_by_the_next)
{
	struct dw *d = dw_new(2);
	struct dw_lock x, y;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	ck_assert(!x.l.lvb_valid);			/* nobody has written one yet */
	ck_assert(!dw_lock(d, 2, &y, DLM_PR, 0));
	for (int i = 0; i < DLM_LVB_LEN; i++)
		x.l.lvb[i] = i + 1;
	dw_down_to(d, 1, &x, DLM_PR);
	ck_assert_int_eq(y.l.granted, DLM_PR);
	ck_assert(y.l.lvb_valid);
	ck_assert_uint_eq(y.l.lvb_seq, 1);
	ck_assert_int_eq(memcmp(y.l.lvb, x.l.lvb, DLM_LVB_LEN), 0);
	dw_free(d);
}
END_TEST

START_TEST(a_reader_writes_no_value)
{
	struct dw *d = dw_new(2);
	struct dw_lock x, y;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_CR, 0));	/* keeps the resource */
	ck_assert(dw_lock(d, 2, &y, DLM_PW, 0));
	memset(y.l.lvb, 7, DLM_LVB_LEN);
	dw_down_to(d, 2, &y, DLM_PR);
	memset(y.l.lvb, 9, DLM_LVB_LEN);
	dw_down_to(d, 2, &y, DLM_NL);
	dw_down_to(d, 1, &x, DLM_NL);
	/* the last lock took it along; so again with a holder in between */
	ck_assert(dw_lock(d, 1, &x, DLM_CR, 0));
	ck_assert(!x.l.lvb_valid);
	ck_assert(dw_lock(d, 2, &y, DLM_PW, 0));
	memset(y.l.lvb, 7, DLM_LVB_LEN);
	dw_down_to(d, 2, &y, DLM_PR);
	memset(y.l.lvb, 9, DLM_LVB_LEN);
	dw_down_to(d, 2, &y, DLM_NL);
	ck_assert(dw_lock(d, 2, &y, DLM_PR, 0));
	ck_assert(y.l.lvb_valid);
	ck_assert_uint_eq(y.l.lvb[0], 7);
	dw_free(d);
}
END_TEST

/* ---- waiting ------------------------------------------------------------------------------------------------------------------ */

START_TEST(noqueue_is_refused_and_the_holder_hears_of_it)
{
	struct dw *d = dw_new(2);
	struct dw_lock x, y;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	ck_assert(!dw_lock(d, 2, &y, DLM_PR, DLM_NOQUEUE));
	ck_assert_int_eq(y.status, -EAGAIN);
	ck_assert(!y.l.busy && y.l.granted == DLM_NL);
	ck_assert_int_eq(x.basts, 1);
	dw_down_to(d, 1, &x, DLM_CR);
	ck_assert(dw_lock(d, 2, &y, DLM_PR, DLM_NOQUEUE));
	dw_free(d);
}
END_TEST

START_TEST(a_cancelled_request_lets_the_next_pass)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y, z;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	dw_init(d, 3, &z, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_PR, 0));
	ck_assert(!dw_lock(d, 2, &y, DLM_EX, 0));
	ck_assert(!dw_lock(d, 3, &z, DLM_PR, 0));	/* behind it */
	dlm_cancel(d->n[2].dlm, &y.l);
	dw_run_ms(d, 50);
	ck_assert_int_eq(y.status, -ECANCELED);
	ck_assert_int_eq(z.l.granted, DLM_PR);
	dlm_cancel(d->n[3].dlm, &z.l);			/* too late: nothing happens */
	dw_run_ms(d, 50);
	ck_assert_int_eq(z.done, 1);
	dw_free(d);
}
END_TEST

/* Cancelled at every moment of its way: answered exactly once, and the lock is free afterwards or granted. */
START_TEST(cancel_at_any_step_is_answered_once)
{
	struct dw *d = dw_new_cfg(3, 100 + _i, (struct dlm_config){ 0 });
	struct dw_lock x, y;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	dlm_request(d->n[2].dlm, &y.l, DLM_EX, 0);
	for (int i = 0; i < _i; i++)
		sim_world_step(d->w);
	dlm_cancel(d->n[2].dlm, &y.l);
	dw_run_ms(d, 50);
	ck_assert_int_eq(y.done, 1);
	ck_assert_int_eq(y.status, -ECANCELED);
	dw_down_to(d, 1, &x, DLM_NL);
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	ck_assert_int_eq(y.done, 1);
	dw_free(d);
}
END_TEST

START_TEST(bast_comes_again_when_a_stronger_mode_waits)
{
	struct dw *d = dw_new(3);
	struct dw_lock x, y, z;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	dw_init(d, 3, &z, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	ck_assert(!dw_lock(d, 2, &y, DLM_CR, 0));
	ck_assert_int_eq(x.basts, 1);
	ck_assert_int_eq(x.last_bast, DLM_CR);
	ck_assert(!dw_lock(d, 3, &z, DLM_EX, 0));
	ck_assert_int_eq(x.basts, 2);
	ck_assert_int_eq(x.last_bast, DLM_EX);
	dw_down_to(d, 1, &x, DLM_PW);			/* CR goes through; EX asks both of them */
	ck_assert_int_eq(y.l.granted, DLM_CR);
	ck_assert_int_eq(x.basts, 3);
	ck_assert_int_eq(y.basts, 1);
	dw_down_to(d, 1, &x, DLM_NL);
	dw_down_to(d, 2, &y, DLM_NL);
	ck_assert_int_eq(z.l.granted, DLM_EX);
	dw_free(d);
}
END_TEST

START_TEST(who_comes_first_is_served_first)
{
	struct dw *d = dw_new(4);
	struct dw_lock k[5];

	for (unsigned i = 1; i <= 4; i++)
		dw_init(d, i, &k[i], "r");
	ck_assert(dw_lock(d, 1, &k[1], DLM_PR, 0));
	ck_assert(!dw_lock(d, 2, &k[2], DLM_EX, 0));
	ck_assert(!dw_lock(d, 3, &k[3], DLM_PR, 0));	/* would go with the holder, not past the EX */
	ck_assert(!dw_lock(d, 4, &k[4], DLM_PR, DLM_NOQUEUE));
	ck_assert_int_eq(k[4].status, -EAGAIN);
	dw_down_to(d, 1, &k[1], DLM_NL);
	ck_assert_int_eq(k[2].l.granted, DLM_EX);
	ck_assert_int_eq(k[3].l.granted, DLM_NL);
	dw_down_to(d, 2, &k[2], DLM_NL);
	ck_assert_int_eq(k[3].l.granted, DLM_PR);
	dw_free(d);
}
END_TEST

START_TEST(pr_comes_for_cr_only_where_it_is_welcome_and_disturbs_nobody)
{
	struct dw *d = dw_new(4);
	struct dw_lock k[5];

	for (unsigned i = 1; i <= 4; i++)
		dw_init(d, i, &k[i], "r");
	ck_assert(dw_lock(d, 1, &k[1], DLM_CW, 0));
	ck_assert(dw_lock(d, 2, &k[2], DLM_CR, DLM_PR_WELCOME));
	ck_assert_int_eq(k[2].l.granted, DLM_CR);		/* the CW holder is not in the way of CR, and hears nothing */
	ck_assert_int_eq(k[1].basts, 0);
	dw_down_to(d, 2, &k[2], DLM_NL);
	dw_down_to(d, 1, &k[1], DLM_NL);

	ck_assert(dw_lock(d, 1, &k[1], DLM_PR, 0));
	ck_assert(dw_lock(d, 2, &k[2], DLM_CR, DLM_PR_WELCOME));
	ck_assert_int_eq(k[2].l.granted, DLM_PR);
	ck_assert(dw_lock(d, 3, &k[3], DLM_CR, 0));		/* not asked for */
	ck_assert_int_eq(k[3].l.granted, DLM_CR);
	for (unsigned i = 1; i <= 3; i++)
		dw_down_to(d, i, &k[i], DLM_NL);

	/* Somebody waits behind it: what was asked for and no more. */
	ck_assert(dw_lock(d, 1, &k[1], DLM_EX, 0));
	ck_assert(!dw_lock(d, 2, &k[2], DLM_CR, DLM_PR_WELCOME));
	ck_assert(!dw_lock(d, 3, &k[3], DLM_CW, 0));
	dw_down_to(d, 1, &k[1], DLM_NL);
	ck_assert_int_eq(k[2].l.granted, DLM_CR);
	ck_assert_int_eq(k[3].l.granted, DLM_CW);
	dw_free(d);
}
END_TEST

START_TEST(holders_and_waiters_are_to_be_seen)
{
	struct dw *d = dw_new(2);
	struct dw_lock x, y;
	struct dlm_stats st;

	dw_init(d, 1, &x, "r");
	dw_init(d, 2, &y, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_EX, 0));
	ck_assert(!dw_lock(d, 2, &y, DLM_PR, 0));
	dlm_stats(d->n[1].dlm, &st);
	ck_assert_uint_eq(st.resources, 1);
	ck_assert_uint_eq(st.waiting, 1);
	ck_assert_uint_eq(st.phantoms, 0);
	dlm_stats(d->n[2].dlm, &st);
	ck_assert_uint_eq(st.resources, 0);
	ck_assert_uint_eq(st.locks, 1);
	dw_free(d);
}
END_TEST

START_TEST(upward_conversion_is_a_bug_of_the_caller)
{
	struct dw *d = dw_new(1);
	struct dw_lock x;

	dw_init(d, 1, &x, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_PR, 0));
	dlm_request(d->n[1].dlm, &x.l, DLM_EX, 0);
}
END_TEST

START_TEST(downgrade_from_pr_to_cw_is_a_bug_of_the_caller)
{
	struct dw *d = dw_new(1);
	struct dw_lock x;

	dw_init(d, 1, &x, "r");
	ck_assert(dw_lock(d, 1, &x, DLM_PR, 0));
	dlm_downgrade(d->n[1].dlm, &x.l, DLM_CW);
}
END_TEST

UNIT_MAIN("dlm", UNIT_TEST(table_is_the_one_of_vms), UNIT_TEST(covers_and_join_follow_from_the_table),
	  UNIT_TEST(phantom_is_the_strongest_that_survivors_allow), UNIT_LOOP(second_node_is_granted_exactly_what_goes_together, 0, 36),
	  UNIT_TEST(alone_no_message_is_sent), UNIT_LOOP(first_lock_costs_at_most_three_messages, 0, 4),
	  UNIT_TEST(master_relocks_without_a_message_while_anybody_holds_a_lock),
	  UNIT_TEST(remote_lock_costs_two_messages_and_its_release_one), UNIT_TEST(a_holder_in_the_way_costs_one_message_more),
	  UNIT_TEST(nothing_is_kept_of_a_resource_without_locks), UNIT_TEST(value_written_under_ex_is_read_by_the_next),
	  UNIT_TEST(a_reader_writes_no_value), UNIT_TEST(noqueue_is_refused_and_the_holder_hears_of_it),
	  UNIT_TEST(a_cancelled_request_lets_the_next_pass), UNIT_LOOP(cancel_at_any_step_is_answered_once, 0, 40),
	  UNIT_TEST(bast_comes_again_when_a_stronger_mode_waits), UNIT_TEST(who_comes_first_is_served_first),
	  UNIT_TEST(pr_comes_for_cr_only_where_it_is_welcome_and_disturbs_nobody),
	  UNIT_TEST(holders_and_waiters_are_to_be_seen), UNIT_SIGNAL(upward_conversion_is_a_bug_of_the_caller, SIGABRT),
	  UNIT_SIGNAL(downgrade_from_pr_to_cw_is_a_bug_of_the_caller, SIGABRT))
