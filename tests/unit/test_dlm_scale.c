/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * test_dlm_scale.c - a recovery of many locks costs what their number says: counted in messages, bytes and steps, not in seconds
 * (tests/bench/lock-speed has those); and the tables it stands on.
 */
#include <inttypes.h>

#include "tests/unit/dlm_fake.h"
#include "utils/base/prng.h"

/* ---- the tables ---------------------------------------------------------------------------------------------------------- */

#define THINGS 3000u

struct thing { struct dlm_entry hh; struct dlm_name name; bool in; };
dlm_table_fits(struct thing);

static void thing_name(struct thing *t, uint32_t i)
{
	memset(&t->name, 0, sizeof(t->name));
	t->name.len = 4 + i % (DLM_NAME_MAX - 3);
	for (unsigned k = 0; k < 4; k++)
		t->name.b[k] = (uint8_t)(i >> 8 * k);
}

/* Against a plain array, in random order of adding and taking out; the things are walked in order of adding. */
START_TEST(a_table_finds_what_is_in_it_and_nothing_else)
{
	struct thing *t = calloc(THINGS, sizeof(*t)), *x, *tmp;
	struct dlm_table tab;
	struct csv_prng p;
	uint32_t in = 0;

	dlm_table_init(&tab);
	csv_prng_init(&p, (uint64_t)_i + 1);
	for (uint32_t i = 0; i < THINGS; i++)
		thing_name(&t[i], i);
	for (unsigned step = 0; step < 40 * THINGS; step++) {
		/* grows, then shrinks to nothing, again and again */
		uint32_t span = 1 + (step / 2000 * 977) % THINGS, i = (uint32_t)csv_prng_below(&p, span);
		bool add = csv_prng_chance(&p, (step / 10000) % 2 ? 1 : 3, 4);
		struct dlm_entry *e = dlm_table_find(&tab, &t[i].name);

		ck_assert_ptr_eq(e, t[i].in ? &t[i].hh : NULL);
		if (add == t[i].in)
			continue;
		if (add)
			dlm_table_add(&tab, &t[i].hh);
		else
			dlm_table_del(&tab, &t[i].hh);
		t[i].in = add;
		in += add ? 1 : -1u;
		ck_assert_uint_eq(tab.n, in);
	}
	for (uint32_t i = 0; i < THINGS; i++)
		ck_assert_ptr_eq(dlm_table_find(&tab, &t[i].name), t[i].in ? &t[i].hh : NULL);
	dlm_table_each(x, tmp, &tab) {		/* taken out on the way */
		dlm_table_del(&tab, &x->hh);
		in--;
	}
	ck_assert_uint_eq(in, 0);
	ck_assert_uint_eq(tab.n, 0);
	for (uint32_t i = 0; i < 100; i++)
		dlm_table_add(&tab, &t[i].hh);
	in = 0;
	dlm_table_each(x, tmp, &tab)
		ck_assert_ptr_eq(x, &t[in++]);
	dlm_table_clear(&tab);
	free(t);
}
END_TEST

/* ---- recovery --------------------------------------------------------------------------------------------------------------- */

struct cost { uint64_t messages, bytes, steps; };

static void no_word(struct dlm_lock *l, int status) { ck_assert_int_eq(status, 0); (*(uint32_t *)l->arg)--; }
static void no_bast(struct dlm_lock *l, enum dlm_mode blocked) { (void)l; (void)blocked; }

static void take(struct dw *d, unsigned node, struct dlm_lock *lock, uint32_t first, uint32_t end, uint32_t step)
{
	uint32_t to_go = 0;

	for (uint32_t i = first; i < end; i += step) {
		uint64_t mix = i, name[2] = { csv_splitmix64(&mix), csv_splitmix64(&mix) };

		dlm_lock_init(d->n[node].dlm, &lock[i], name, sizeof(name));
		lock[i].done = no_word;
		lock[i].bast = no_bast;
		lock[i].arg = &to_go;
		to_go++;
		dlm_request(d->n[node].dlm, &lock[i], DLM_PR, 0);
		if (to_go >= 2000 || i + step >= end)
			while (to_go)
				ck_assert(sim_world_step(d->w));
	}
}

static void add_cost(struct dw *d, struct cost *c, int sign)
{
	for (unsigned i = 1; i <= 2; i++) {
		c->messages += sign * d->n[i].dlm->st.messages_sent;
		c->bytes += sign * mesh_stats(d->n[i].env->mesh)->sent_bytes;
	}
}

/* Three nodes, n locks held by two of them, half of the resources mastered on the third, which dies. */
static struct cost recovery(uint32_t n)
{
	struct dlm_lock *lock[3] = { calloc(n, sizeof(struct dlm_lock)), calloc(n, sizeof(struct dlm_lock)), calloc(n, sizeof(struct dlm_lock)) };
	struct dw *d = dw_new(3);
	struct dlm_stats st[2];
	struct cost c = { 0 };

	take(d, 3, lock[2], 0, n / 2, 1);
	for (unsigned k = 0; k < 2; k++) {
		take(d, k + 1, lock[k], k, n / 2, 2);
		take(d, k + 1, lock[k], n / 2 + k, n, 2);
	}
	add_cost(d, &c, -1);
	sim_net_power_cut(d->net, 3);
	dw_run_ms(d, 1000);
	add_cost(d, &c, 1);
	for (unsigned k = 0; k < 2; k++) {
		const struct dlm *m = d->n[k + 1].dlm;

		ck_assert(dlm_is_recovered(m));
		ck_assert_int_eq(d->n[k + 1].recovered, 2);
		dlm_stats(m, &st[k]);
		ck_assert_uint_eq(st[k].bad_messages, 0);
		c.steps += dlm_table_steps(&m->clients) + dlm_table_steps(&m->resources) + dlm_table_steps(&m->dir);
	}
	ck_assert_uint_eq(st[0].resources + st[1].resources, n);	/* each has a master again */
	ck_assert_uint_eq(st[0].phantoms + st[1].phantoms, n / 2);	/* what the lost may have had beside PR */
	dw_free(d);
	for (unsigned k = 0; k < 3; k++)
		free(lock[k]);
	return c;
}

#define FEW 10000u
#define MANY 100000u

START_TEST(a_recovery_of_ten_times_the_locks_costs_ten_times_as_much)
{
	struct cost few = recovery(FEW), many = recovery(MANY);

	printf("figure: recovery on 3 nodes of %u locks: %" PRIu64 " messages, %.1f bytes and %.2f slots looked at a lock; of %u: %" PRIu64
	       " messages, %.1f bytes, %.2f slots\n", FEW, few.messages, (double)few.bytes / FEW, (double)few.steps / FEW, MANY, many.messages,
	       (double)many.bytes / MANY, (double)many.steps / MANY);
	ck_assert_msg(many.bytes < few.bytes * 11, "%" PRIu64 " bytes for %u locks, %" PRIu64 " for %u", few.bytes, FEW, many.bytes, MANY);
	ck_assert_msg(many.messages < few.messages * 11, "%" PRIu64 " messages for %u locks, %" PRIu64 " for %u", few.messages, FEW, many.messages,
		      MANY);
	/* Names go in lists: a message is on average at least a quarter full. */
	ck_assert_msg(many.bytes > many.messages * (DLM_LIST_BYTES / 4), "%" PRIu64 " messages for %" PRIu64 " bytes", many.messages, many.bytes);
	/* Three tables in which a name may be, of both nodes: clients once, resources once, directory twice. */
	ck_assert_msg(many.steps < MANY * 4 * 3ull, "%" PRIu64 " slots looked at for %u locks", many.steps, MANY);
}
END_TEST

UNIT_MAIN("dlm_scale", UNIT_LOOP(a_table_finds_what_is_in_it_and_nothing_else, 0, 3),
	  UNIT_SLOW(a_recovery_of_ten_times_the_locks_costs_ten_times_as_much, 0, 1, 120))
