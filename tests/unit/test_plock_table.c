/* SPDX-License-Identifier: GPL-2.0-only */
/* The table of programs' file locks: ranges, conflicts, waiting, deadlocks, and a random comparison with a table of single bytes. */
#include "csvfs/plock_table.h"

#include <errno.h>

#include "tests/unit/unit.h"
#include "utils/base/prng.h"

#define END UINT64_MAX
#define KEY 42u

struct grants { unsigned n; uint64_t request[64]; };

static void on_granted(void *arg, struct cluster_node node, uint64_t request)
{
	struct grants *g = arg;

	(void)node;
	ck_assert_uint_lt(g->n, 64);
	g->request[g->n++] = request;
}

static struct plock lk(unsigned owner, enum plock_type type, uint64_t start, uint64_t end)
{
	return (struct plock){ .node = { 1 + owner % 3, 77 }, .id = owner, .type = type, .pid = owner, .start = start, .end = end };
}

static int set(struct plock_table *t, unsigned owner, enum plock_type type, uint64_t start, uint64_t end)
{
	struct plock l = lk(owner, type, start, end);

	return plock_table_lock(t, KEY, PLOCK_POSIX, &l, 0, false);
}

static int ask(struct plock_table *t, uint64_t key, unsigned owner, enum plock_type type, uint64_t start, uint64_t end, uint64_t request)
{
	struct plock l = lk(owner, type, start, end);

	return plock_table_lock(t, key, PLOCK_POSIX, &l, request, true);
}

static int clear(struct plock_table *t, unsigned owner, uint64_t start, uint64_t end)
{
	struct plock l = lk(owner, PLOCK_READ, start, end);

	return plock_table_unlock(t, KEY, PLOCK_POSIX, &l);
}

static const struct plock *in_the_way(struct plock_table *t, enum plock_type type, uint64_t at)
{
	struct plock l = lk(999, type, at, at);

	return plock_table_conflict(t, KEY, PLOCK_POSIX, &l);
}

START_TEST(readers_share_and_a_writer_is_alone)
{
	struct grants g = { 0 };
	struct plock_table *t = plock_table_new(on_granted, &g);

	ck_assert_int_eq(set(t, 1, PLOCK_READ, 0, END), 0);
	ck_assert_int_eq(set(t, 2, PLOCK_READ, 10, 20), 0);
	ck_assert_int_eq(set(t, 3, PLOCK_WRITE, 15, 15), -EAGAIN);
	ck_assert_int_eq(clear(t, 1, 0, END), 0);
	ck_assert_int_eq(set(t, 3, PLOCK_WRITE, 15, 15), -EAGAIN);
	ck_assert_int_eq(set(t, 3, PLOCK_WRITE, 21, END), 0);
	ck_assert_int_eq(set(t, 2, PLOCK_READ, 20, 21), -EAGAIN);
	plock_table_free(t);
}
END_TEST

START_TEST(an_owners_locks_replace_join_and_split)
{
	struct grants g = { 0 };
	struct plock_table *t = plock_table_new(on_granted, &g);

	ck_assert_int_eq(set(t, 1, PLOCK_WRITE, 0, 9), 0);
	ck_assert_int_eq(set(t, 1, PLOCK_WRITE, 10, 19), 0);
	ck_assert_uint_eq(plock_table_count(t), 1);		/* they touch: one */
	ck_assert_int_eq(set(t, 1, PLOCK_READ, 5, 14), 0);
	ck_assert_uint_eq(plock_table_count(t), 3);		/* write, read, write */
	ck_assert_ptr_null(in_the_way(t, PLOCK_READ, 5));
	ck_assert_ptr_nonnull(in_the_way(t, PLOCK_READ, 4));
	ck_assert_ptr_nonnull(in_the_way(t, PLOCK_READ, 15));
	ck_assert_int_eq(clear(t, 1, 7, 8), 0);
	ck_assert_uint_eq(plock_table_count(t), 4);
	ck_assert_ptr_null(in_the_way(t, PLOCK_WRITE, 7));
	ck_assert_ptr_nonnull(in_the_way(t, PLOCK_WRITE, 9));
	ck_assert_int_eq(set(t, 1, PLOCK_WRITE, 0, END), 0);
	ck_assert_uint_eq(plock_table_count(t), 1);
	ck_assert_int_eq(clear(t, 1, 0, END), 0);
	ck_assert_uint_eq(plock_table_count(t), 0);
	plock_table_free(t);
}
END_TEST

START_TEST(who_waits_longest_is_served_first_and_a_downgrade_lets_readers_in)
{
	struct grants g = { 0 };
	struct plock_table *t = plock_table_new(on_granted, &g);

	ck_assert_int_eq(set(t, 1, PLOCK_WRITE, 0, 9), 0);
	ck_assert_int_eq(ask(t, KEY, 2, PLOCK_WRITE, 0, 3, 20), -EAGAIN);
	ck_assert_int_eq(ask(t, KEY, 3, PLOCK_WRITE, 0, 3, 30), -EAGAIN);
	ck_assert_int_eq(ask(t, KEY, 4, PLOCK_READ, 8, 9, 40), -EAGAIN);
	ck_assert_int_eq(set(t, 1, PLOCK_READ, 8, 9), 0);
	ck_assert_uint_eq(g.n, 1);
	ck_assert_uint_eq(g.request[0], 40);
	ck_assert_int_eq(clear(t, 1, 0, END), 0);
	ck_assert_uint_eq(g.n, 2);
	ck_assert_uint_eq(g.request[1], 20);
	ck_assert_int_eq(clear(t, 2, 0, END), 0);
	ck_assert_uint_eq(g.n, 3);
	ck_assert_uint_eq(g.request[2], 30);
	plock_table_free(t);
}
END_TEST

START_TEST(who_gave_up_is_not_granted)
{
	struct grants g = { 0 };
	struct plock_table *t = plock_table_new(on_granted, &g);

	ck_assert_int_eq(set(t, 1, PLOCK_WRITE, 0, 9), 0);
	ck_assert_int_eq(ask(t, KEY, 2, PLOCK_WRITE, 0, 3, 20), -EAGAIN);
	ck_assert(!plock_table_cancel(t, lk(1, 0, 0, 0).node, 20));	/* another node's number */
	ck_assert(plock_table_cancel(t, lk(2, 0, 0, 0).node, 20));
	ck_assert(!plock_table_cancel(t, lk(2, 0, 0, 0).node, 20));
	ck_assert_int_eq(clear(t, 1, 0, END), 0);
	ck_assert_uint_eq(g.n, 0);
	plock_table_free(t);
}
END_TEST

START_TEST(a_circle_of_three_is_refused_and_a_chain_is_not)
{
	struct grants g = { 0 };
	struct plock_table *t = plock_table_new(on_granted, &g);

	for (unsigned o = 1; o <= 3; o++)
		ck_assert_int_eq(plock_table_lock(t, o, PLOCK_POSIX, &(struct plock[]){ lk(o, PLOCK_WRITE, 0, 0) }[0], 0, false), 0);
	ck_assert_int_eq(ask(t, 2, 1, PLOCK_WRITE, 0, 0, 12), -EAGAIN);
	ck_assert_int_eq(ask(t, 3, 2, PLOCK_WRITE, 0, 0, 23), -EAGAIN);
	ck_assert_int_eq(ask(t, 1, 3, PLOCK_WRITE, 0, 0, 31), -EDEADLK);
	ck_assert_int_eq(ask(t, 1, 4, PLOCK_WRITE, 0, 0, 41), -EAGAIN);	/* waits for who waits: no circle */
	ck_assert(plock_table_cancel(t, lk(2, 0, 0, 0).node, 23));
	ck_assert_int_eq(ask(t, 1, 3, PLOCK_WRITE, 0, 0, 32), -EAGAIN);
	plock_table_free(t);
}
END_TEST

START_TEST(flock_changes_its_type_by_giving_up_first)
{
	struct grants g = { 0 };
	struct plock_table *t = plock_table_new(on_granted, &g);
	struct plock a = lk(1, PLOCK_READ, 0, END), b = lk(2, PLOCK_READ, 0, END);

	ck_assert_int_eq(plock_table_lock(t, KEY, PLOCK_FLOCK, &a, 1, false), 0);
	ck_assert_int_eq(plock_table_lock(t, KEY, PLOCK_FLOCK, &b, 2, false), 0);
	a.type = b.type = PLOCK_WRITE;
	ck_assert_int_eq(plock_table_lock(t, KEY, PLOCK_FLOCK, &a, 3, true), -EAGAIN);	/* waits, having given up */
	ck_assert_int_eq(plock_table_lock(t, KEY, PLOCK_FLOCK, &b, 4, true), -EAGAIN);
	ck_assert_uint_eq(g.n, 1);
	ck_assert_uint_eq(g.request[0], 3);
	ck_assert_int_eq(plock_table_unlock(t, KEY, PLOCK_FLOCK, &a), 0);
	ck_assert_uint_eq(g.n, 2);
	ck_assert_int_eq(set(t, 3, PLOCK_WRITE, 0, END), 0);		/* the other kind sees nothing of it */
	plock_table_free(t);
}
END_TEST

START_TEST(a_file_has_no_more_locks_than_the_limit)
{
	struct grants g = { 0 };
	struct plock_table *t = plock_table_new(on_granted, &g);

	for (unsigned i = 0; i < PLOCK_PER_FILE_MAX; i++)
		ck_assert_int_eq(set(t, i, PLOCK_READ, i, i), 0);
	ck_assert_int_eq(set(t, PLOCK_PER_FILE_MAX, PLOCK_READ, 0, 0), -ENOLCK);
	ck_assert_int_eq(ask(t, KEY, PLOCK_PER_FILE_MAX, PLOCK_WRITE, 0, 0, 1), -ENOLCK);
	ck_assert_int_eq(clear(t, 0, 0, 0), 0);
	ck_assert_int_eq(set(t, PLOCK_PER_FILE_MAX, PLOCK_READ, 0, 0), 0);
	plock_table_free(t);
}
END_TEST

/* ---- against single bytes ------------------------------------------------------------------------------------------------------- */

#define OWNERS 5u
#define BYTES 24u
enum { NONE, READS, WRITES };

static bool model_conflicts(unsigned char (*m)[BYTES], unsigned owner, int type, unsigned from, unsigned to)
{
	for (unsigned o = 0; o < OWNERS; o++)
		for (unsigned b = from; b <= to; b++)
			if (o != owner && m[o][b] != NONE && (type == WRITES || m[o][b] == WRITES))
				return true;
	return false;
}

static void compare(struct plock_table *t, unsigned char (*m)[BYTES])
{
	for (unsigned b = 0; b < BYTES; b++) {
		for (int type = PLOCK_READ; type <= PLOCK_WRITE; type++) {
			bool want = model_conflicts(m, OWNERS, type == PLOCK_WRITE ? WRITES : READS, b, b);

			ck_assert_msg(!!in_the_way(t, (enum plock_type)type, b) == want, "byte %u type %d", b, type);
		}
	}
	for (unsigned o = 0; o < OWNERS; o++) {
		bool any = false;

		for (unsigned b = 0; b < BYTES; b++)
			any |= m[o][b] != NONE;
		ck_assert(plock_table_holds(t, KEY, PLOCK_POSIX, lk(o, 0, 0, 0).node, o) == any);
	}
}

START_TEST(random_locks_are_those_of_a_table_of_bytes)
{
	struct grants g = { 0 };
	struct plock_table *t = plock_table_new(on_granted, &g);
	unsigned char m[OWNERS][BYTES] = { { 0 } };
	struct csv_prng r;

	csv_prng_init(&r, (uint64_t)_i + 1);
	for (unsigned step = 0; step < 2000; step++) {
		unsigned o = (unsigned)csv_prng_below(&r, OWNERS), from = (unsigned)csv_prng_below(&r, BYTES);
		unsigned to = from + (unsigned)csv_prng_below(&r, BYTES - from);
		int type = csv_prng_below(&r, 2) ? WRITES : READS;

		if (csv_prng_below(&r, 3) == 0) {
			ck_assert_int_eq(clear(t, o, from, to), 0);
			memset(&m[o][from], NONE, to - from + 1);
		} else if (model_conflicts(m, o, type, from, to)) {
			ck_assert_int_eq(set(t, o, type == WRITES ? PLOCK_WRITE : PLOCK_READ, from, to), -EAGAIN);
		} else {
			ck_assert_int_eq(set(t, o, type == WRITES ? PLOCK_WRITE : PLOCK_READ, from, to), 0);
			memset(&m[o][from], type, to - from + 1);
		}
		compare(t, m);
	}
	plock_table_free(t);
}
END_TEST

UNIT_MAIN("plock_table", UNIT_TEST(readers_share_and_a_writer_is_alone), UNIT_TEST(an_owners_locks_replace_join_and_split),
	  UNIT_TEST(who_waits_longest_is_served_first_and_a_downgrade_lets_readers_in), UNIT_TEST(who_gave_up_is_not_granted),
	  UNIT_TEST(a_circle_of_three_is_refused_and_a_chain_is_not), UNIT_TEST(flock_changes_its_type_by_giving_up_first),
	  UNIT_SLOW(a_file_has_no_more_locks_than_the_limit, 0, 1, 120),
	  UNIT_LOOP(random_locks_are_those_of_a_table_of_bytes, 0, 10))
