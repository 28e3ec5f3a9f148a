/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lockspeed_dlm.c - lock managers alone.
 *
 *	locks	node 2 measures rounds of bare ping-pong and of remote locks in turn; then both fight for one lock, in rounds
 *	recover	the last node takes the first half of LOCKS names, so it is their master; then the others lock all of them, each its share, and are masters
 *		of the second half; then the last node dies.  The clock runs from the new ring to the last survivor's recovered().
 */
#include "tests/bench/lockspeed.h"

#include <malloc.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "utils/base/prng.h"

static void lost(void *arg, const struct cluster_node *who, uint32_t n) { (void)arg; (void)who; (void)n; }

static void purged(void *arg)
{
	(void)arg;
	fprintf(stderr, "lockspeed: purged\n");
	exit(1);
}

static struct dlm *dlm_start(struct bench *b, void (*recovered)(void *arg, const struct cluster_view *v))
{
	struct dlm_events ev = { .recovered = recovered, .lost = lost, .purged = purged, .arg = b };
	struct dlm *d = dlm_new(&b->env, &ev);

	csv_assert(d);
	if (mesh_start(b->env.mesh) || cluster_start(b->env.cluster))
		die("start");
	return d;
}

static void granted_or_die(struct bench *b, int status)
{
	if (!status)
		return;
	fprintf(stderr, "lockspeed: node %u: lock: %s\n", b->self, strerror(-status));
	exit(1);
}

/* ---- one lock ------------------------------------------------------------------------------------------------------------------------ */

#define FIGHTS 5
#define FIGHT_NS (NS_PER_SEC / 2)

struct fought { uint64_t grants, bounces; };

struct locks {
	struct dlm *dlm;
	struct dlm_lock one;
	unsigned round, i;
	uint64_t t0;
	double ping_us[ROUNDS], lock_us[ROUNDS], ratio[ROUNDS];
	/* the fight */
	bool fighting, wanted, mine_over, theirs_over;
	uint64_t end_ns, bounces_before;
	struct fought mine, theirs;
	struct timer over;
	unsigned fights;
	double rate[FIGHTS], weaker[FIGHTS];
};

static void fight_next(struct bench *b);

static void lock_round(struct bench *b)
{
	struct locks *s = b->priv;

	s->ping_us[s->round] = ping_round(b);
	s->i = 0;
	s->t0 = now(b);
	dlm_request(s->dlm, &s->one, DLM_CR, 0);
}

static void lock_measured(struct bench *b)
{
	struct locks *s = b->priv;

	dlm_downgrade(s->dlm, &s->one, DLM_NL);
	if (++s->i < PINGS) {
		dlm_request(s->dlm, &s->one, DLM_CR, 0);
		return;
	}
	s->lock_us[s->round] = (double)(now(b) - s->t0) / PINGS / 1000;
	s->ratio[s->round] = s->lock_us[s->round] / s->ping_us[s->round];
	if (++s->round < ROUNDS) {
		lock_round(b);
		return;
	}
	judge(median(s->ratio, ROUNDS), AT_MOST, b->nodes.no_tls ? 2 : 3, "x",
	      "uncontended remote lock %.1f us, bare TCP ping-pong %.1f us (%d pairs of %d, links %s)", median(s->lock_us, ROUNDS),
	      median(s->ping_us, ROUNDS), ROUNDS, PINGS, b->nodes.no_tls ? "without TLS" : "with TLS");
	tell(b, 1, W_PART, NULL, 0);
	fight_next(b);
}

static void fight(struct bench *b)
{
	struct locks *s = b->priv;

	s->wanted = false;
	dlm_request(s->dlm, &s->one, DLM_EX, 0);
}

static uint64_t bounces(struct locks *s)
{
	struct dlm_stats st;

	dlm_stats(s->dlm, &st);
	return st.bounces;
}

static void fight_next(struct bench *b)
{
	struct locks *s = b->priv;

	s->fighting = true;
	s->mine_over = s->theirs_over = false;
	s->mine = (struct fought){ 0 };
	s->bounces_before = bounces(s);
	s->end_ns = now(b) + FIGHT_NS;
	timer_set(b->sched, &s->over, s->end_ns + NS_PER_MS);
	fight(b);
}

/* Hub: both have ended. */
static void fight_judge(struct bench *b)
{
	struct locks *s = b->priv;
	uint64_t all = s->mine.grants + s->theirs.grants;

	if (!s->mine_over || !s->theirs_over)
		return;
	s->rate[s->fights] = (double)(s->mine.bounces + s->theirs.bounces) / ((double)FIGHT_NS / NS_PER_SEC);
	s->weaker[s->fights] = 100.0 * (double)csv_min(s->mine.grants, s->theirs.grants) / (double)csv_max(all, (uint64_t)1);
	if (++s->fights < FIGHTS) {
		tell(b, 2, W_PART, NULL, 0);
		fight_next(b);
		return;
	}
	judge(median(s->rate, FIGHTS), AT_LEAST, 1000, "/s", "hand-overs of one lock between two nodes (lock managers alone, %d rounds)", FIGHTS);
	judge(median(s->weaker, FIGHTS), AT_LEAST, 40, "%", "of the grants went to the weaker node");
	tell(b, 2, W_DONE, NULL, 0);
	loop_stop(b->loop);
}

static void give_way(struct bench *b)
{
	struct locks *s = b->priv;

	if (s->one.granted != DLM_EX || s->one.busy)
		return;
	dlm_downgrade(s->dlm, &s->one, DLM_NL);
	if (now(b) < s->end_ns) {
		fight(b);
		return;
	}
	s->fighting = false;
	s->mine_over = true;
	s->mine.bounces = bounces(s) - s->bounces_before;
	if (b->self == 2)
		tell(b, 1, W_DONE, &s->mine, sizeof(s->mine));
	else
		fight_judge(b);
}

static void over(struct timer *t)
{
	struct locks *s = container_of(t, struct locks, over);

	give_way(s->one.arg);
}

static void one_done(struct dlm_lock *l, int status)
{
	struct bench *b = l->arg;
	struct locks *s = b->priv;

	granted_or_die(b, status);
	if (s->fighting) {
		s->mine.grants++;
		if (s->wanted || now(b) >= s->end_ns)
			give_way(b);
	} else if (b->self == 1) {
		tell(b, 2, W_GO, NULL, 0);
	} else {
		lock_measured(b);
	}
}

static void one_bast(struct dlm_lock *l, enum dlm_mode blocked)
{
	struct bench *b = l->arg;
	struct locks *s = b->priv;

	(void)blocked;
	s->wanted = true;
	if (s->fighting)
		give_way(b);
}

static void locks_recovered(void *arg, const struct cluster_view *v)
{
	struct bench *b = arg;
	struct locks *s = b->priv;

	(void)v;
	if (b->self == 1)
		dlm_request(s->dlm, &s->one, DLM_CR, 0);	/* so node 1 is its master */
}

static void locks_start(struct bench *b)
{
	struct locks *s = b->priv = calloc(1, sizeof(*s));

	csv_assert(s);
	s->dlm = dlm_start(b, locks_recovered);
	timer_init(&s->over, over);
	dlm_lock_init(s->dlm, &s->one, "one", 3);
	s->one.done = one_done;
	s->one.bast = one_bast;
	s->one.arg = b;
}

static void locks_word(struct bench *b, enum word w, uint32_t from, const uint8_t *buf, size_t len)
{
	struct locks *s = b->priv;

	(void)from;
	if (w == W_GO) {
		lock_round(b);
	} else if (w == W_PART) {
		if (s->one.granted == DLM_CR)
			dlm_downgrade(s->dlm, &s->one, DLM_NL);
		fight_next(b);
	} else if (b->self == 2) {
		loop_stop(b->loop);
	} else {
		csv_assert(len == sizeof(s->theirs));
		memcpy(&s->theirs, buf, len);
		s->theirs_over = true;
		fight_judge(b);
	}
}

const struct bench_mode mode_locks = { "locks", locks_start, locks_word, NULL };

/* ---- recovery ------------------------------------------------------------------------------------------------------------------------ */

struct recovered { uint64_t at_ns, cpu_ns, sent; };

struct many {
	struct dlm *dlm;
	struct dlm_lock *lock;
	uint32_t locks, to_go, phase, parts_done;
	size_t heap[3];
	uint64_t t0, cpu0, sent0;
	struct recovered mine, theirs;
	bool mine_there, theirs_there;
	struct real_hurry hurry;	/* as csvfsd's control thread does, from the old view's end to the tables' */
};

static size_t heap(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

static void phase_end(struct bench *b, uint32_t who);

static void many_done(struct dlm_lock *l, int status)
{
	struct bench *b = l->arg;
	struct many *s = b->priv;

	granted_or_die(b, status);
	if (!--s->to_go)
		phase_end(b, b->self);
}

static void many_bast(struct dlm_lock *l, enum dlm_mode blocked) { (void)l; (void)blocked; }

/* Of names [first, end) every `step`th from `at` on; the same names on all nodes. */
static void take_many(struct bench *b, uint32_t first, uint32_t end, uint32_t at, uint32_t step)
{
	struct many *s = b->priv;

	for (uint32_t i = first + at; i < end; i += step)
		s->to_go++;
	for (uint32_t i = first + at; i < end; i += step) {
		uint64_t mix = i, name[2] = { csv_splitmix64(&mix), csv_splitmix64(&mix) };
		struct dlm_lock *l = &s->lock[i];

		dlm_lock_init(s->dlm, l, name, sizeof(name));
		l->done = many_done;
		l->bast = many_bast;
		l->arg = b;
		dlm_request(s->dlm, l, DLM_PR, 0);
	}
}

/* Phases: 0 the node that will die, first half; 1 the others, first half; 2 the others, second half; 3 it dies. */
static void phase_run(struct bench *b)
{
	struct many *s = b->priv;
	uint32_t half = s->locks / 2;

	if (s->phase < 3)
		s->heap[s->phase] = heap();
	if (s->phase == 0 && b->self == b->n)
		take_many(b, 0, half, 0, 1);
	else if (s->phase == 1 && b->self != b->n)
		take_many(b, 0, half, b->self - 1, b->n - 1);
	else if (s->phase == 2 && b->self != b->n)
		take_many(b, half, s->locks, b->self - 1, b->n - 1);
	else if (s->phase == 3 && b->self == b->n)
		_exit(0);
}

static void phase_set(struct bench *b, uint32_t phase)
{
	struct many *s = b->priv;

	s->phase = phase;
	s->parts_done = 0;
	tell(b, 0, W_PART, &phase, sizeof(phase));
	phase_run(b);
}

static void phase_end(struct bench *b, uint32_t who)
{
	struct many *s = b->priv;

	if (b->self != 1) {
		tell(b, 1, W_DONE, NULL, 0);
		return;
	}
	(void)who;
	if (++s->parts_done < (s->phase == 0 ? 1 : b->n - 1))
		return;
	if (s->phase == 2 && b->n == 2) {
		size_t held = (s->heap[2] - s->heap[1]) / (s->locks / 2), both = (heap() - s->heap[2]) / (s->locks / 2);

		printf("info %10zu B      a lock held here, the caller's %zu included, its master elsewhere\n", held + sizeof(struct dlm_lock),
		       sizeof(struct dlm_lock));
		printf("info %10zu B      a resource mastered here, with its one grant and a directory record\n", both > held ? both - held : 0);
		fflush(stdout);
	}
	phase_set(b, s->phase + 1);
}

static void recovery_judge(struct bench *b)
{
	struct many *s = b->priv;

	if (!s->mine_there || (b->n > 2 && !s->theirs_there))
		return;
	judge((double)(csv_max(s->mine.at_ns, s->theirs.at_ns) - s->t0) / NS_PER_MS, AT_MOST, 1000, "ms",
	      "recovery of %u locks, half mastered on the dead one of %u nodes; %.0f ms of it on a processor, %" PRIu64 " messages (links %s)",
	      s->locks, b->n, (double)csv_max(s->mine.cpu_ns, s->theirs.cpu_ns) / NS_PER_MS, s->mine.sent + s->theirs.sent,
	      b->nodes.no_tls ? "without TLS" : "with TLS");
	tell(b, 0, W_GO, NULL, 0);
	loop_stop(b->loop);
}

static void many_recovered(void *arg, const struct cluster_view *v)
{
	struct bench *b = arg;
	struct many *s = b->priv;
	struct recovered r = { .at_ns = now(b), .cpu_ns = cpu_ns() - s->cpu0 };

	real_hurry(&s->hurry, false);
	if (v->n == b->n) {
		if (b->self == 1)
			phase_set(b, 0);
		return;
	}
	r.sent = s->dlm->st.messages_sent - s->sent0;
	if (b->self == 1) {
		s->mine = r;
		s->mine_there = true;
		recovery_judge(b);
	} else {
		tell(b, 1, W_DONE, &r, sizeof(r));
	}
}

static void many_gone(struct bench *b, uint32_t who)
{
	struct many *s = b->priv;

	csv_assert(who == b->n && s->phase == 3);
	s->t0 = now(b);
	s->cpu0 = cpu_ns();
	s->sent0 = s->dlm->st.messages_sent;
	ring(b, b->joined & ~(1u << who));
}

static void many_suspend(void *arg)
{
	struct many *s = ((struct bench *)arg)->priv;

	real_hurry(&s->hurry, true);
}

static void many_start(struct bench *b)
{
	struct cluster_user u = { .suspend = many_suspend, .arg = b };
	struct many *s = b->priv = calloc(1, sizeof(*s));

	csv_assert(s);
	s->locks = (uint32_t)strtoul(b->arg, NULL, 10);
	s->lock = calloc(s->locks, sizeof(*s->lock));
	csv_assert(s->lock && s->locks);
	cluster_register(b->env.cluster, CHAN_FS, &u);
	s->dlm = dlm_start(b, many_recovered);
}

static void many_word(struct bench *b, enum word w, uint32_t from, const uint8_t *buf, size_t len)
{
	struct many *s = b->priv;

	if (w == W_GO) {
		loop_stop(b->loop);
	} else if (w == W_PART) {
		memcpy(&s->phase, buf, sizeof(s->phase));
		s->cpu0 = cpu_ns();
		s->sent0 = s->dlm->st.messages_sent;
		phase_run(b);
	} else if (len) {
		csv_assert(len == sizeof(s->theirs));
		memcpy(&s->theirs, buf, len);
		s->theirs_there = true;
		recovery_judge(b);
	} else {
		phase_end(b, from);
	}
}

const struct bench_mode mode_recover = { "recover", many_start, many_word, many_gone };
