/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * migrator/mig_item.c: items of a member that are JSON, complete, and nonsense; found by the fuzzer of coordinators' messages.
 */
#include "tests/unit/mig_world.h"

#include <string.h>

static void say(struct mw *w, uint32_t from, json_t *msg)
{
	char *text = json_dumps(msg, JSON_COMPACT);

	ck_assert_ptr_nonnull(text);
	ck_assert_int_eq(cluster_send(w->node[from].env.cluster, MIG_CHAN, text, strlen(text)), 0);
	free(text);
	json_decref(msg);
}

static json_t *migration(const char *key, const char *id, const char *state, int rev)
{
	return json_pack("{s:s, s:s, s:i, s:i, s:{s:s, s:s, s:s, s:s, s:s, s:i, s:i}}", "t", "put", "k", key, "r", rev, "b", 2, "v", "id", id, "vm", "vm1",
			 "from", "n1", "to", "n2", "state", state, "by", 2, "began_real_ms", 1);
}

/* The leader ended the other one again and again, for it never was the one that was active: messages without an end, and no time left. */
START_TEST(a_migration_that_is_filed_under_the_id_of_another_is_refused)
{
	struct mw *w = mw_new();

	say(w, 2, migration("migration/00000000000000aa", "00000000000000aa", "completed", 1000));
	mw_run(w, NS_PER_SEC);
	ck_assert_str_eq(mig_text(mig_item_get(w->node[1].m, "migration/00000000000000aa"), "state"), "completed");
	say(w, 2, migration("migration/00000000000000bb", "00000000000000aa", "active", 1001));
	say(w, 2, migration("migration/bb", "bb", "active", 1002));
	say(w, 2, migration("migration/", "", "active", 1003));
	mw_run(w, 60 * NS_PER_SEC);
	for (uint32_t i = 1; i <= 3; i++) {
		ck_assert_ptr_null(mig_item_get(w->node[i].m, "migration/00000000000000bb"));
		ck_assert_ptr_null(mig_item_get(w->node[i].m, "migration/bb"));
		ck_assert_ptr_null(mig_item_get(w->node[i].m, "migration/"));
	}
	ck_assert_ptr_nonnull(mw_leader(w));
	mw_free(w);
}
END_TEST

/* Everybody counts on from the highest revision that was seen: with the last one there is, nothing could ever be said again. */
START_TEST(a_revision_from_nowhere_does_not_silence_the_others)
{
	static const json_int_t revs[] = { INT64_MAX, INT64_MAX - 1, (json_int_t)1 << 62, ((json_int_t)1 << 53) + 1 };
	struct mw *w = mw_new();

	for (size_t k = 0; k < ARRAY_SIZE(revs); k++) {
		say(w, 2, json_pack("{s:s, s:s, s:I, s:i, s:{s:i}}", "t", "put", "k", "pin/x", "r", revs[k], "b", 2, "v", "node", 1));
		mw_run(w, NS_PER_SEC);
		mig_item_put_take(w->node[1].m, "pin/a", json_pack("{s:i}", "node", (int)k + 1));
		mw_run(w, NS_PER_SEC);
		for (uint32_t i = 1; i <= 3; i++) {
			ck_assert_int_eq(mig_int(mig_item_get(w->node[i].m, "pin/a"), "node"), (json_int_t)k + 1);
			ck_assert_ptr_null(mig_item_get(w->node[i].m, "pin/x"));
		}
	}
	mw_free(w);
}
END_TEST

UNIT_MAIN("mig_hostile", UNIT_TEST(a_migration_that_is_filed_under_the_id_of_another_is_refused),
	  UNIT_TEST(a_revision_from_nowhere_does_not_silence_the_others))
