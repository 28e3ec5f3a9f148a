/*
 * hvhost/vm_mig.c as source, against a scripted monitor: what a migration that does not get through is told, when, and what people are told.
 */
#include "tests/unit/unit.h"

#include <string.h>

#include "hvhost/jline.h"
#include "hvhost/vm.h"
#include "tests/unit/env_fake.h"

#define TXID 0x7777ull

struct world {
	struct fake_clock clk;
	struct sched *s;
	struct logger log;
	struct rnd_port rnd;
	struct env env;
	struct vm_host h;
	struct vm *vm;
	struct vm_qemu *q;
	struct qmp *qmp;
	struct jline in;
	struct job out;
	/* QEMU */
	const char *run, *mig;
	uint64_t mig_ns;		/* when "migrate" came */
	unsigned throttle, throttle_step, throttle_max;
	uint64_t need_ms;		/* of every pass, before the throttle */
	bool autoconverge, cancelled, begins, switches, resumes, hangs, unreachable;
	unsigned n_cancels;
	unsigned n_broken;
	uint64_t broken_ns;
	json_int_t limit, limits[32];
	unsigned n_limits;
	uint64_t cancel_ns;
	/* people */
	json_t *news;
	char note[200];
};

/* ---- QEMU ------------------------------------------------------------------------------------------------------------------------------ */

static void says_take(struct world *w, json_t *o)
{
	size_t len;
	char *line = jline_encode(o, &len);

	qmp_feed(w->qmp, line, len);
	free(line);
	json_decref(o);
}

static void mig_is(struct world *w, const char *mig)
{
	w->mig = mig;
	says_take(w, json_pack("{s:s, s:{s:s}, s:{s:i, s:i}}", "event", "MIGRATION", "data", "status", mig, "timestamp", "seconds", 1, "microseconds", 1));
}

/* A pass takes 300 ms; the throttle takes from what a pass needs. */
static json_t *query_migrate(struct world *w)
{
	uint64_t passes = w->mig_ns ? (w->clk.now_ns - w->mig_ns) / (300 * NS_PER_MS) + 1 : 0, need;

	if (passes > 4 && w->throttle_step && w->autoconverge)
		w->throttle = (unsigned)csv_min((passes - 4) / 2 * w->throttle_step, (uint64_t)w->throttle_max);
	need = w->need_ms * (100 - w->throttle) / 100;
	w->switches = !strcmp(w->mig, "active") && need <= (uint64_t)w->limit && passes > 2;
	return json_pack("{s:s, s:I, s:i, s:{s:I, s:I, s:I}}", "status", w->mig, "expected-downtime", (json_int_t)need, "cpu-throttle-percentage",
			 (int)w->throttle, "ram", "remaining", (json_int_t)(need << 17), "total", (json_int_t)1 << 28, "dirty-sync-count",
			 (json_int_t)passes);
}

static json_t *capabilities(void)
{
	static const char *const name[] = { "events", "return-path", "pause-before-switchover", "late-block-activate", "validate-uuid", "auto-converge" };
	json_t *a = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(name); i++)
		json_array_append_new(a, json_pack("{s:s, s:b}", "capability", name[i], "state", 0));
	return a;
}

static void set_capabilities(struct world *w, const json_t *args)
{
	json_t *c;
	size_t i;

	json_array_foreach(json_object_get(args, "capabilities"), i, c)
		if (!strcmp(json_string_value(json_object_get(c, "capability")), "auto-converge"))
			w->autoconverge = json_is_true(json_object_get(c, "state"));
}

static void set_parameters(struct world *w, const json_t *args)
{
	const json_t *l = json_object_get(args, "downtime-limit"), *t = json_object_get(args, "max-cpu-throttle");

	if (t)
		w->throttle_max = (unsigned)json_integer_value(t);
	if (!l)
		return;
	w->limit = json_integer_value(l);
	ck_assert_uint_lt(w->n_limits, ARRAY_SIZE(w->limits));
	w->limits[w->n_limits++] = w->limit;
}

static json_t *answer(struct world *w, const char *cmd, const json_t *args)
{
	if (!strcmp(cmd, "query-status"))
		return json_pack("{s:s, s:b}", "status", w->run, "running", !strcmp(w->run, "running"));
	if (!strcmp(cmd, "query-uuid"))
		return json_pack("{s:s}", "UUID", "00000000-0000-0000-0000-000000000000");
	if (!strcmp(cmd, "query-migrate"))
		return query_migrate(w);
	if (!strcmp(cmd, "query-migrate-capabilities"))
		return capabilities();
	if (!strcmp(cmd, "migrate-set-capabilities"))
		set_capabilities(w, args);
	if (!strcmp(cmd, "migrate-set-parameters"))
		set_parameters(w, args);
	if (!strcmp(cmd, "migrate")) {
		w->mig_ns = w->clk.now_ns;
		w->begins = true;
	}
	if (!strcmp(cmd, "migrate_cancel")) {
		w->cancelled = true;
		w->cancel_ns = w->clk.now_ns;
		w->n_cancels++;
		w->resumes = true;
	}
	return json_object();
}

/* What follows from an answer comes after it. */
static void goes_on(struct world *w)
{
	if (w->begins)
		mig_is(w, w->unreachable ? "setup" : "active");
	if (w->switches) {
		w->run = "finish-migrate";
		says_take(w, json_pack("{s:s, s:{s:i, s:i}}", "event", "STOP", "timestamp", "seconds", 1, "microseconds", 1));
		mig_is(w, "pre-switchover");
	}
	if (w->resumes)
		mig_is(w, w->unreachable ? "cancelling" : "cancelled");
	w->begins = w->switches = w->resumes = false;
}

static void serve(struct job *j)
{
	struct world *w = container_of(j, struct world, out);
	struct csv_err err = CSV_ERR_INIT;
	const char *p;
	size_t n = qmp_out(w->qmp, &p);
	json_t *o;

	ck_assert(!jline_feed(&w->in, p, n, &err));
	qmp_out_sent(w->qmp, n);
	if (w->hangs)
		return;
	while (jline_next(&w->in, &o, &err) == 1) {
		json_t *ret = answer(w, json_string_value(json_object_get(o, "execute")), json_object_get(o, "arguments"));

		says_take(w, json_pack("{s:o, s:O}", "return", ret, "id", json_object_get(o, "id")));
		json_decref(o);
		goes_on(w);
	}
}

static void on_out(void *arg)
{
	struct world *w = arg;

	sched_post(w->s, &w->out);
}

static void on_ready(void *arg)
{
	struct world *w = arg;

	vm_qemu_up(w->q, w->qmp);
}

static void on_event(void *arg, const char *name, const json_t *data, uint64_t stamp_us)
{
	struct world *w = arg;

	vm_qemu_event(w->q, name, data, stamp_us);
}

static void on_broken(void *arg, const struct csv_err *err)
{
	(void)arg;
	ck_abort_msg("%s", err->text);
}

/* ---- the host ---------------------------------------------------------------------------------------------------------------------------- */

static void h_nothing(struct vm_host *h, struct vm_qemu *q)
{
	(void)h, (void)q;
}

static int h_mark(struct vm_host *h, struct vm_qemu *q, const struct vmsm_mark *mark)
{
	(void)h, (void)q, (void)mark;
	return 0;
}

static int h_psk(struct vm_host *h, struct vm_qemu *q, const char *key, char *ret_dir, size_t room, struct csv_err *err)
{
	(void)h, (void)q, (void)key, (void)room, (void)err;
	ret_dir[0] = '\0';
	return 0;
}

static void h_propose(struct vm_host *h, struct vm *vm, const struct lease_cas *cas, uint64_t ring)
{
	(void)h, (void)vm, (void)cas, (void)ring;
}

static void h_say(struct vm_host *h, struct vm *vm, uint32_t node, uint64_t txid, json_t *body_take)
{
	(void)h, (void)vm, (void)node, (void)txid;
	json_decref(body_take);
}

static void h_changed(struct vm_host *h, struct vm *vm)
{
	(void)h, (void)vm;
}

static void h_migration(struct vm_host *h, struct vm *vm, json_t *news_take)
{
	struct world *w = container_of(h, struct world, h);

	(void)vm;
	json_decref(w->news);
	w->news = news_take;
}

static void h_event(struct vm_host *h, struct vm *vm, const char *severity, const char *text, const char *command)
{
	struct world *w = container_of(h, struct world, h);

	(void)vm, (void)severity, (void)command;
	snprintf(w->note, sizeof(w->note), "%s", text);
}

static void h_break(struct vm_host *h, struct vm *vm, const char *address, unsigned port)
{
	struct world *w = container_of(h, struct world, h);

	(void)vm;
	ck_assert_str_eq(address, "10.0.0.2");
	ck_assert_uint_eq(port, 4444);
	if (!w->n_broken++)
		w->broken_ns = w->clk.now_ns;
	w->hangs = false;
	w->run = "running";
	if (!w->unreachable)
		mig_is(w, "failed");
	else if (w->n_broken == 2)	/* the first attempt's retry was still on its way */
		mig_is(w, "cancelled");
}

static const struct vm_host_ops host_ops = { h_nothing, h_nothing, h_nothing, h_mark, h_psk, h_propose, h_say, h_changed, h_migration, h_event, NULL, h_break };

static uint64_t rnd(struct rnd_port *p)
{
	(void)p;
	return 4;
}

/* A guest that runs here, and whose migration is to begin as soon as something happens. */
static struct world *world_new(const struct vm_move_params *p)
{
	struct world *w = calloc(1, sizeof(*w));
	struct qmp_events ev = { on_ready, on_event, on_broken, on_out, w };
	struct vmsm_mark mark = { .bound = 1, .config = 1, .resumed = 1 };
	struct lease l = { .vm = "web1", .state = LEASE_RUNNING, .want = LEASE_WANT_RUN, .owner = 1, .peer = 2, .config = 1, .owner_inc = 5,
			   .peer_inc = 6, .epoch = 1, .txid = TXID, .version = 3 };
	json_t *ready = json_pack("{s:i, s:[s], s:i, s:s}", "said", VMSM_SAY_READY, "addresses", "10.0.0.2", "port", 4444, "psk",
				  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");

	fake_clock_init(&w->clk);
	w->s = sched_new(&w->clk.clock);
	w->rnd.u64 = rnd;
	w->env = (struct env){ .sched = w->s, .clock = &w->clk.clock, .rnd = &w->rnd, .log = &w->log };
	w->h = (struct vm_host){ .ops = &host_ops, .env = &w->env,
				 .conf = { .self = 1, .self_inc = 5, .ready_ms = 60000, .announce_ms = 1000, .reap_ms = 1000, .stop_ms = 60000,
					   .handoff_ms = 10000, .retry_ms = 500 } };
	w->log.write = NULL;
	w->env.log = NULL;
	w->run = "running";
	w->mig = "none";
	jline_init(&w->in);
	job_init(&w->out, serve);
	w->vm = vm_new(&w->h, "web1");
	w->q = vm_adopt(w->vm, 1, 0, 1, &mark);
	w->qmp = qmp_new(&ev);
	says_take(w, json_pack("{s:{s:{s:{s:i, s:i, s:i}}}}", "QMP", "version", "qemu", "major", 7, "minor", 2, "micro", 22));
	fake_run_until(&w->clk, w->s, w->clk.now_ns + NS_PER_SEC);
	vm_record(w->vm, &l, 1, false, true);
	if (p)
		vm_migration_params(w->vm, TXID, p);
	vm_heard(w->vm, TXID, ready);
	json_decref(ready);
	return w;
}

static void world_free(struct world *w)
{
	json_decref(w->news);
	vm_free(w->vm);
	sched_free(w->s);
	jline_done(&w->in);
	free(w);
}

/* Its ABORT was committed. */
static void aborted(struct world *w)
{
	struct lease l = vm_sm(w->vm)->rec;

	l.txid = 0;
	l.peer = 0;
	l.peer_inc = 0;
	l.version++;
	vm_record(w->vm, &l, 1, false, true);
	fake_run_until(&w->clk, w->s, w->clk.now_ns + NS_PER_SEC);
}

static void run_s(struct world *w, unsigned s)
{
	fake_run_until(&w->clk, w->s, w->clk.now_ns + s * NS_PER_SEC);
}

static const char *news(const struct world *w, const char *key)
{
	const char *s = json_string_value(json_object_get(w->news, key));

	return s ? s : "";
}

static json_int_t news_int(const struct world *w, const char *key)
{
	return json_integer_value(json_object_get(w->news, key));
}

/* ---- claims -------------------------------------------------------------------------------------------------------------------------------- */

START_TEST(a_guest_that_is_quiet_is_switched_over_without_any_push)
{
	struct vm_move_params p = { 30, 500, 80, 60000, 0 };
	struct world *w = world_new(&p);

	w->need_ms = 20;
	run_s(w, 5);
	ck_assert_uint_eq(w->n_limits, 1);
	ck_assert_int_eq(w->limits[0], 30);
	ck_assert(!w->cancelled);
	ck_assert(w->autoconverge);
	ck_assert_uint_eq(w->throttle_max, 80);
	world_free(w);
}
END_TEST

START_TEST(a_throttled_guest_gets_through_with_the_pause_aimed_at)
{
	struct vm_move_params p = { 30, 500, 80, 600000, 0 };
	struct world *w = world_new(&p);

	w->need_ms = 60;
	w->throttle_step = 10;
	run_s(w, 60);
	ck_assert_str_ne(w->mig, "active");
	ck_assert_uint_eq(w->n_limits, 1);
	ck_assert(!w->cancelled);
	world_free(w);
}
END_TEST

START_TEST(a_guest_that_throttling_does_not_help_is_paused_longer_and_people_are_told)
{
	struct vm_move_params p = { 30, 500, 40, 600000, 0 };
	struct world *w = world_new(&p);

	w->need_ms = 400;
	w->throttle_step = 10;
	run_s(w, 60);
	ck_assert_uint_eq(w->throttle, 40);
	ck_assert_str_ne(w->mig, "active");
	ck_assert_uint_eq(w->n_limits, 2);
	ck_assert_int_ge(w->limits[1], 240);
	ck_assert_int_le(w->limits[1], 500);
	ck_assert_ptr_nonnull(strstr(w->note, "throttled to 40 %, pause up to"));
	ck_assert_ptr_nonnull(strstr(news(w, "policy"), "throttled to 40 %, pause up to"));
	ck_assert_int_eq(news_int(w, "throttle_percent"), 40);
	ck_assert_int_eq(news_int(w, "pause_limit_ms"), w->limits[1]);
	ck_assert_int_gt(news_int(w, "passes"), 3);
	ck_assert(!w->cancelled);
	world_free(w);
}
END_TEST

START_TEST(what_no_allowed_pause_helps_is_cancelled_with_the_numbers_and_the_guest_runs_on)
{
	struct vm_move_params p = { 30, 200, 0, 600000, 0 };
	struct world *w = world_new(&p);

	w->need_ms = 5000;
	run_s(w, 60);
	ck_assert(w->cancelled);
	ck_assert(!w->autoconverge);
	ck_assert_int_eq(w->limits[w->n_limits - 1], 200);
	for (unsigned i = 1; i < w->n_limits; i++)
		ck_assert_int_gt(w->limits[i], w->limits[i - 1]);
	ck_assert_str_eq(w->run, "running");
	aborted(w);
	ck_assert_msg(strstr(news(w, "reason"), "a pause of 200 ms was allowed and 5000 ms would be needed"), "%s", news(w, "reason"));
	ck_assert_uint_le(w->cancel_ns - w->mig_ns, 20 * NS_PER_SEC);
	world_free(w);
}
END_TEST

START_TEST(its_time_limit_ends_it)
{
	struct vm_move_params p = { 30, 60000, 99, 4000, 0 };
	struct world *w = world_new(&p);

	w->need_ms = 100000;
	w->throttle_step = 1;
	run_s(w, 30);
	ck_assert(w->cancelled);
	ck_assert_uint_le(w->cancel_ns - w->mig_ns, 5 * NS_PER_SEC);
	aborted(w);
	ck_assert_str_eq(news(w, "reason"), "not done within its time limit");
	world_free(w);
}
END_TEST

/* It begins as soon as the target waits; migratord's word may come later. */
START_TEST(a_budget_that_is_told_later_counts)
{
	struct vm_move_params p = { 30, 2000, 0, 600000, 0 };
	struct world *w = world_new(NULL);

	w->need_ms = 1500;
	run_s(w, 1);
	vm_migration_params(w->vm, TXID, &p);
	run_s(w, 60);
	ck_assert(!w->cancelled);
	ck_assert_int_gt(w->limits[w->n_limits - 1], 1500);
	ck_assert_str_ne(w->mig, "active");
	world_free(w);
}
END_TEST

START_TEST(a_person_cancels_it)
{
	struct vm_move_params p = { 30, 60000, 99, 600000, 0 };
	struct world *w = world_new(&p);

	w->need_ms = 100000;
	run_s(w, 2);
	ck_assert_str_eq(w->mig, "active");
	vm_cancel(w->vm, TXID);
	run_s(w, 2);
	ck_assert(w->cancelled);
	ck_assert_str_eq(w->run, "running");
	world_free(w);
}
END_TEST

static void target_is_lost(struct world *w)
{
	struct lease l = vm_sm(w->vm)->rec;

	vm_record(w->vm, &l, 2, false, false);
}

/* QEMU sends under its big lock into the void: nothing it is told is answered. */
START_TEST(a_target_that_falls_silent_in_the_switch_over_is_cut_off_for_good)
{
	struct vm_move_params p = { 30, 500, 80, 60000, 0 };
	struct world *w = world_new(&p);

	w->need_ms = 20;
	while (strcmp(w->mig, "pre-switchover"))
		fake_run_until(&w->clk, w->s, w->clk.now_ns + 100 * NS_PER_MS);
	run_s(w, 1);
	w->hangs = true;
	target_is_lost(w);
	w->broken_ns = 0;
	uint64_t lost = w->clk.now_ns;

	run_s(w, 10);
	ck_assert_uint_eq(w->n_broken, 1);
	ck_assert_uint_ge(w->broken_ns - lost, 2 * NS_PER_SEC);
	ck_assert_uint_le(w->broken_ns - lost, 3 * NS_PER_SEC);
	world_free(w);
}
END_TEST

/* QEMU answers migrate_cancel at once, and goes on trying to reach the target for as long as TCP does. */
START_TEST(a_target_that_cannot_be_reached_is_given_up_in_seconds_and_quietly)
{
	struct vm_move_params p = { 30, 500, 80, 60000, 0 };
	struct world *w = world_new(NULL);

	w->unreachable = true;
	vm_migration_params(w->vm, TXID, &p);
	run_s(w, 1);
	ck_assert_str_eq(w->mig, "setup");
	target_is_lost(w);
	run_s(w, 4);
	ck_assert_uint_eq(w->n_broken, 2);
	ck_assert_str_eq(w->mig, "cancelled");
	ck_assert_uint_eq(w->n_cancels, 2);
	ck_assert_str_eq(w->run, "running");
	aborted(w);
	run_s(w, 10);
	ck_assert_uint_eq(w->n_cancels, 2);
	world_free(w);
}
END_TEST

START_TEST(a_target_that_lives_is_not_cut_off_however_long_it_takes)
{
	struct vm_move_params p = { 30, 500, 80, 60000, 0 };
	struct world *w = world_new(&p);

	w->need_ms = 20;
	while (strcmp(w->mig, "pre-switchover"))
		fake_run_until(&w->clk, w->s, w->clk.now_ns + 100 * NS_PER_MS);
	w->hangs = true;
	run_s(w, 20);
	ck_assert_uint_eq(w->n_broken, 0);
	world_free(w);
}
END_TEST

UNIT_MAIN("mig_watch", UNIT_TEST(a_guest_that_is_quiet_is_switched_over_without_any_push),
	  UNIT_TEST(a_throttled_guest_gets_through_with_the_pause_aimed_at),
	  UNIT_TEST(a_guest_that_throttling_does_not_help_is_paused_longer_and_people_are_told),
	  UNIT_TEST(what_no_allowed_pause_helps_is_cancelled_with_the_numbers_and_the_guest_runs_on), UNIT_TEST(its_time_limit_ends_it),
	  UNIT_TEST(a_budget_that_is_told_later_counts), UNIT_TEST(a_person_cancels_it),
	  UNIT_TEST(a_target_that_falls_silent_in_the_switch_over_is_cut_off_for_good),
	  UNIT_TEST(a_target_that_cannot_be_reached_is_given_up_in_seconds_and_quietly),
	  UNIT_TEST(a_target_that_lives_is_not_cut_off_however_long_it_takes))
