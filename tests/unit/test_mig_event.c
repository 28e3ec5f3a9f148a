/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * migrator/mig_event.c, mig_late.c: the events of a time in which a node was away.
 */
#include "tests/unit/mig_world.h"

#include <string.h>

/* One about "it" on node `id`, at a time of its own. */
static void happens(struct mw *w, uint32_t id, const char *text)
{
	mig_event(w->node[id].m, "info", "it", "", "%s", text);
	mw_run(w, 10 * NS_PER_MS);
}

/* "a b c": what node `id` has about "it", in its order; those that came late in brackets. */
static const char *log_of(struct mw *w, uint32_t id)
{
	static char text[4][400];
	static unsigned at;
	char *s = text[at++ % ARRAY_SIZE(text)];
	json_t *r = mw_ask(w, id, "event.list", json_pack("{s:i, s:s}", "last", 1000, "object", "it")), *e;
	size_t i, used = 0;

	s[0] = '\0';
	json_array_foreach(json_object_get(r, "items"), i, e) {
		bool late = json_is_true(json_object_get(e, "late"));

		used += (size_t)snprintf(s + used, sizeof(text[0]) - used, late ? "%s(%s)" : "%s%s", used ? " " : "", mig_text(e, "text"));
		ck_assert_uint_lt(used, sizeof(text[0]));
	}
	return s;
}

static unsigned count(struct mw *w, uint32_t id, const char *prefix)
{
	const struct mig_event *e;
	unsigned n = 0;

	for (unsigned back = 0; (e = mig_event_back(w->node[id].m, back)); back++)
		n += !strncmp(mig_text(e->value, "text"), prefix, strlen(prefix));
	return n;
}

START_TEST(what_happened_on_both_sides_of_a_cut_is_in_all_logs_in_the_order_of_time)
{
	struct mw *w = mw_new();

	happens(w, 1, "a");
	mw_cut(w, 3);
	mw_run(w, NS_PER_SEC);
	happens(w, 1, "b");
	happens(w, 3, "c");
	happens(w, 2, "d");
	happens(w, 3, "e");
	ck_assert_str_eq(log_of(w, 3), "a c e");
	mw_heal(w);
	mw_run(w, NS_PER_SEC);
	happens(w, 3, "f");
	mw_run(w, 10 * NS_PER_SEC);
	ck_assert_str_eq(log_of(w, 1), "a b (c) d (e) f");
	ck_assert_str_eq(log_of(w, 2), "a b (c) d (e) f");
	ck_assert_str_eq(log_of(w, 3), "a (b) c (d) e f");
	mw_free(w);
}
END_TEST

START_TEST(a_node_that_was_off_has_what_it_missed_and_keeps_it)
{
	struct mw *w = mw_new();
	json_t *last;

	happens(w, 3, "a");
	mw_power_cut(w, 3);
	mw_run(w, NS_PER_SEC);
	happens(w, 1, "b");
	happens(w, 2, "c");
	mw_boot(w, 3, true);
	mw_run(w, NS_PER_SEC);
	happens(w, 2, "d");
	mw_run(w, 10 * NS_PER_SEC);
	happens(w, 3, "e");
	ck_assert_str_eq(log_of(w, 3), "a (b) (c) d e");
	mw_daemon_kill(w, 3);
	mw_run(w, NS_PER_SEC);
	happens(w, 1, "f");
	mw_daemon_start(w, 3);
	mw_run(w, 10 * NS_PER_SEC);
	ck_assert_str_eq(log_of(w, 3), "a (b) (c) d e (f)");
	ck_assert_str_eq(log_of(w, 1), "a b c d e f");
	/* who watches sees them as they come: their numbers go on */
	last = mw_ask(w, 3, "event.list", json_pack("{s:i, s:s, s:I}", "last", 10, "object", "it", "after", (json_int_t)w->node[3].m->event_seq - 1));
	ck_assert_uint_le(json_array_size(json_object_get(last, "items")), 1);
	mw_free(w);
}
END_TEST

/* The log of a node that is new: all that the others keep, and no more is said in the view after. */
START_TEST(an_empty_log_is_filled_and_the_oldest_go_first)
{
	struct mw *w = mw_new();
	uint64_t seq[MW_NODES + 1];

	mw_power_cut(w, 3);
	json_array_clear(w->node[3].durable);
	for (unsigned i = 0; i < MIG_EVENTS_MAX + 100; i++) {
		mig_event(w->node[1].m, "info", "it", "", "number %u", i);
		mw_run(w, NS_PER_MS);
	}
	mw_boot(w, 3, true);
	mw_run(w, 60 * NS_PER_SEC);
	ck_assert_uint_eq(w->node[3].m->events, MIG_EVENTS_MAX);
	for (uint32_t id = 2; id <= 3; id++)
		for (unsigned back = 0; back < MIG_EVENTS_MAX; back++)
			ck_assert_str_eq(mig_text(mig_event_back(w->node[id].m, back)->value, "id"), mig_text(mig_event_back(w->node[1].m, back)->value, "id"));
	for (uint32_t id = 1; id <= 3; id++)
		seq[id] = w->node[id].m->event_seq;
	mw_new_ring(w);
	mw_run(w, 60 * NS_PER_SEC);
	for (uint32_t id = 1; id <= 3; id++)
		ck_assert_uint_eq(w->node[id].m->event_seq, seq[id]);
	mw_free(w);
}
END_TEST

START_TEST(who_tells_may_be_lost_meanwhile)
{
	struct mw *w = mw_new();
	unsigned had;

	mw_power_cut(w, 3);
	for (unsigned i = 0; i < 1000; i++)
		happens(w, 2, "m");
	mw_boot(w, 3, true);
	mw_run(w, 2500 * NS_PER_MS);
	had = count(w, 3, "m");
	ck_assert_msg(had > 0 && had < 1000, "%u of 1000 after half a second", had);
	mw_power_cut(w, 1);
	mw_run(w, 60 * NS_PER_SEC);
	ck_assert_uint_eq(count(w, 3, "m"), 1000);
	mw_free(w);
}
END_TEST

static const struct cluster_port_ops *real_ops;

static int mute_start(struct cluster_port *p, const struct cluster_raw_events *ev, void *arg) { return real_ops->start(p, ev, arg); }
static void mute_stop(struct cluster_port *p) { real_ops->stop(p); }

static int mute_send(struct cluster_port *p, const void *buf, size_t len)
{
	return memmem(buf, len, "\"had\"", 5) ? 0 : real_ops->send(p, buf, len);
}

static const struct cluster_port_ops mute_ops = { mute_start, mute_send, mute_stop };

START_TEST(a_member_that_does_not_say_what_it_has_keeps_nobody_waiting)
{
	struct mw *w = mw_new();

	real_ops = w->node[1].cport.ops;
	mw_power_cut(w, 3);
	mw_run(w, NS_PER_SEC);
	happens(w, 2, "a");
	w->node[1].cport.ops = &mute_ops;
	mw_boot(w, 3, true);
	mw_run(w, 4 * NS_PER_SEC);
	ck_assert_str_eq(log_of(w, 3), "");
	mw_run(w, 5 * NS_PER_SEC);
	ck_assert_str_eq(log_of(w, 3), "(a)");
	ck_assert_str_eq(log_of(w, 1), "a");
	mw_free(w);
}
END_TEST

static void say(struct mw *w, uint32_t from, json_t *msg)
{
	char *text = json_dumps(msg, JSON_COMPACT);

	ck_assert_ptr_nonnull(text);
	ck_assert_int_eq(cluster_send(w->node[from].env.cluster, MIG_CHAN, text, strlen(text)), 0);
	free(text);
	json_decref(msg);
	mw_run(w, 10 * NS_PER_MS);
}

static json_t *event(const char *time, const char *id, const char *text)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "time", time, "node", "n2", "level", "info", "object", "it", "text", text, "command", "", "id", id);
}

#define EARLY "1970-01-01T00:00:01.000Z"

/* Ids and times are other nodes' words: what is none is ignored, and an id that was used up before its time hides nothing. */
START_TEST(malformed_events_are_ignored_and_hide_none)
{
	static const char *const ids[] = { "", "-", "2-", "-1", "0-1", "2-0", "2-1x", "2-1000000000000000", "9999999999-1", "4294967296-1", "2 -1", "2-A", "2--1" };
	static const char *const times[] = { "", "yesterday", "1970-01-01T00:00:01.000", "1970-01-01T00:00:01.000Z ", "1970/01/01T00:00:01.000Z" };
	static const char *const hads[] = { "5", "[5]", "[[1]]", "[[1,1]]", "[[1,1,0]]", "[[1,1,2001]]", "[[0,1,1]]", "[[1,0,1]]", "[[1,-1,1]]",
					    "[[1,9223372036854775807,5]]", "[[4294967296,1,1]]", "[[1,1,1,1]]", "[[1,1,1],null]", "{}" };
	struct mw *w = mw_new();
	char big[3000], id[40];

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		say(w, 2, json_pack("{s:s, s:[o]}", "t", "late", "e", event(EARLY, ids[i], "bad id")));
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		say(w, 2, json_pack("{s:s, s:[o]}", "t", "late", "e", event(times[i], "2-1", "bad time")));
		say(w, 2, json_pack("{s:s, s:o}", "t", "event", "e", event(times[i], "2-1", "bad time")));
	}
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	say(w, 2, json_pack("{s:s, s:[o, i, n, []]}", "t", "late", "e", event(EARLY, "2-1", big), 5));
	say(w, 2, json_pack("{s:s, s:o}", "t", "event", "e", event(EARLY, "3-1", "in another's name")));
	say(w, 2, json_pack("{s:s, s:i}", "t", "event", "e", 5));
	for (size_t i = 0; i < ARRAY_SIZE(hads); i++)
		say(w, 2, json_pack("{s:s, s:o, s:s}", "t", "had", "runs", json_loads(hads[i], JSON_DECODE_ANY, NULL), "since", ""));
	say(w, 2, json_pack("{s:s, s:[], s:s}", "t", "had", "runs", "since", big));
	for (uint32_t i = 1; i <= 3; i += 2)
		ck_assert_str_eq(log_of(w, i), "");
	snprintf(id, sizeof(id), "1-%llx", (unsigned long long)w->node[1].m->event_n + 1);
	say(w, 2, json_pack("{s:s, s:[o, o]}", "t", "late", "e", event(EARLY, id, "a"), event(EARLY, id, "again")));
	happens(w, 1, "b");
	for (uint32_t i = 1; i <= 3; i++)
		ck_assert_str_eq(log_of(w, i), "(a) b");
	mw_free(w);
}
END_TEST

START_TEST(a_node_may_have_any_number_that_corosync_gives)
{
	struct mw *w = mw_new();

	say(w, 2, json_pack("{s:s, s:[o]}", "t", "late", "e", event(EARLY, "4294967295-1", "far")));
	for (uint32_t i = 1; i <= 3; i++)
		ck_assert_str_eq(log_of(w, i), "(far)");
	mw_free(w);
}
END_TEST

UNIT_MAIN("mig_event", UNIT_TEST(what_happened_on_both_sides_of_a_cut_is_in_all_logs_in_the_order_of_time),
	  UNIT_TEST(a_node_that_was_off_has_what_it_missed_and_keeps_it), UNIT_TEST(an_empty_log_is_filled_and_the_oldest_go_first),
	  UNIT_TEST(who_tells_may_be_lost_meanwhile), UNIT_TEST(a_member_that_does_not_say_what_it_has_keeps_nobody_waiting),
	  UNIT_TEST(malformed_events_are_ignored_and_hide_none),
	  UNIT_TEST(a_node_may_have_any_number_that_corosync_gives))
