/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lockspeed_fs.c - two nodes with a whole volume each, without FUSE: real disk (libaio), real links, journal, cached locks.
 *
 *	cached	node 1 takes and gives the lock of an inode that it holds, again and again
 *	clean	both want the lock of one inode, exclusively, and change nothing
 *	dirty	both change the modification time of one inode: each hand-over writes it back first, in three steps that each write and FLUSH
 *		(R2).  Rounds of such a step alone (one block written, then a FLUSH, through the same block port) and rounds of the fight,
 *		in turn; the ratio is taken pair by pair
 *
 * In a round of the fight each node has a program, a thread that asks for one operation after the other and sleeps until each is answered,
 * as it would through /dev/fuse: between any two operations the node listens to the others.
 */
#include "tests/bench/lockspeed.h"

#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/stat.h>

#include "csvfs/csvfs_internal.h"
#include "csvfs/glock.h"

#define CACHED_OPS 200000u
#define FLUSHES 40u
#define FIGHT_NS (NS_PER_SEC * 6 / 10)

enum kind { CLEAN, DIRTY, END };

struct file { uint64_t ino; uint32_t gen; };
struct fight { struct file f; enum kind kind; };
struct fought { uint64_t ops, bounces; };

struct vol {
	struct csvfs *fs;
	struct csv_err err;
	struct fight fight;
	struct loop *loop;
	struct loop_msg op, over;	/* from the program */
	sem_t answered;
	struct waitq word_wq;
	bool mounted_there, program_over;
	bool theirs_over, gone;
	struct fought mine, theirs;
	uint64_t stamp;
};

static int ok_or_die(struct bench *b, int rc, const char *what)
{
	struct vol *s = b->priv;

	if (rc >= 0)
		return rc;
	fprintf(stderr, "lockspeed: node %u: %s: %s%s%s\n", b->self, what, csv_err_describe(rc), s->err.code ? ": " : "",
		s->err.code ? s->err.text : "");
	exit(1);
}

static void wait_for(struct bench *b, bool *what)
{
	struct vol *s = b->priv;

	while (!*what)
		sched_wait(b->sched, &s->word_wq);
	*what = false;
}

/* ---- one node -------------------------------------------------------------------------------------------------------------------------- */

static void cached(struct bench *b, struct file *f)
{
	struct csv_owner o = OWN_INODE(f->ino);
	struct vol *s = b->priv;
	struct glock_holder h;
	double ns[ROUNDS];

	for (int r = 0; r < ROUNDS; r++) {
		uint64_t t = now(b);

		for (unsigned i = 0; i < CACHED_OPS; i++) {
			ok_or_die(b, glock_get(s->fs, o, DLM_EX, 0, &h), "cached lock");
			glock_put(&h);
		}
		ns[r] = (double)(now(b) - t) / CACHED_OPS;
		coro_sleep_ns(b->sched, NS_PER_MS);
	}
	judge(median(ns, ROUNDS) / 1000, AT_MOST, 1, "us", "a cached lock taken and given back (inode, exclusive; %d rounds of %u)", ROUNDS, CACHED_OPS);
}

/* Microseconds until a block is written and flushed (the last of the device, as it is), and of them for the FLUSH alone. */
static double flush_round(struct bench *b, double *ret_alone)
{
	struct blk *blk = b->env.blk;
	uint64_t off = blk->size_bytes - CSV_BLOCK_SIZE, t0, t, sum = 0, both = 0;
	void *buf = blk_alloc(CSV_BLOCK_SIZE);

	csv_assert(buf);
	ok_or_die(b, blk_read(blk, off, buf, CSV_BLOCK_SIZE), "read");
	for (unsigned i = 0; i < FLUSHES; i++) {
		t0 = now(b);
		ok_or_die(b, blk_write(blk, off, buf, CSV_BLOCK_SIZE), "write");
		t = now(b);
		ok_or_die(b, blk_flush(blk), "flush");
		sum += now(b) - t;
		both += now(b) - t0;
	}
	free(buf);
	*ret_alone = (double)sum / FLUSHES / 1000;
	return (double)both / FLUSHES / 1000;
}

/* ---- the fight --------------------------------------------------------------------------------------------------------------------------- */

static uint64_t bounces(struct vol *s)
{
	struct dlm_stats st;

	dlm_stats(s->fs->dlm, &st);
	return st.bounces;
}

static int one_op(struct vol *s)
{
	struct csvfs_attr a = { .mtime_ns = (int64_t)++s->stamp * NS_PER_MS };
	struct glock_holder h;
	int rc;

	if (s->fight.kind == DIRTY)
		return csvfs_setattr(s->fs, s->fight.f.ino, s->fight.f.gen, &a, CSVFS_SET_MTIME, &a);
	rc = glock_get(s->fs, OWN_INODE(s->fight.f.ino), DLM_EX, 0, &h);
	if (!rc)
		glock_put(&h);
	return rc;
}

static void op_coro(void *arg)
{
	struct vol *s = arg;

	if (one_op(s)) {
		fprintf(stderr, "lockspeed: an operation failed\n");
		exit(1);
	}
	s->mine.ops++;
	sem_post(&s->answered);
}

static void on_op(struct loop_msg *m)
{
	struct vol *s = container_of(m, struct vol, op);

	if (sched_spawn(loop_sched(s->loop), "operation", op_coro, s))
		die("out of memory");
}

static void on_over(struct loop_msg *m)
{
	struct vol *s = container_of(m, struct vol, over);

	s->program_over = true;
	sched_wake_all(loop_sched(s->loop), &s->word_wq);
}

static void *program(void *arg)
{
	struct bench *b = arg;
	struct vol *s = b->priv;
	uint64_t end = now(b) + FIGHT_NS;

	while (now(b) < end) {
		loop_post(s->loop, &s->op);
		while (sem_wait(&s->answered))
			;
	}
	loop_post(s->loop, &s->over);
	return NULL;
}

static void fight(struct bench *b)
{
	struct vol *s = b->priv;
	uint64_t before = bounces(s);
	pthread_t t;

	s->mine.ops = 0;
	if (pthread_create(&t, NULL, program, b))
		die("thread");
	wait_for(b, &s->program_over);
	pthread_join(t, NULL);
	s->mine.bounces = bounces(s) - before;
}

/* Of node 1's share of each round: that of the node that has less over all rounds. */
static double weaker(double *share, unsigned n)
{
	double m = median(share, n);

	return csv_min(m, 100 - m);
}

/* Hub: one round on both nodes. */
static void fight_round(struct bench *b, struct file *f, enum kind kind, double *ret_per_s, double *ret_share, double *ret_ops)
{
	struct vol *s = b->priv;
	double secs = (double)FIGHT_NS / NS_PER_SEC, all;

	s->fight = (struct fight){ *f, kind };
	tell(b, 2, W_PART, &s->fight, sizeof(s->fight));
	fight(b);
	wait_for(b, &s->theirs_over);
	all = (double)(s->mine.ops + s->theirs.ops);
	*ret_per_s = (double)(s->mine.bounces + s->theirs.bounces) / secs;
	*ret_share = 100.0 * (double)s->mine.ops / all;
	*ret_ops = all / secs;
}

static void clean(struct bench *b, struct file *f)
{
	double rate[ROUNDS], share[ROUNDS], ops[ROUNDS];

	for (int r = 0; r < ROUNDS; r++)
		fight_round(b, f, CLEAN, &rate[r], &share[r], &ops[r]);
	judge(median(rate, ROUNDS), AT_LEAST, 1000, "/s", "hand-overs of one clean inode between two nodes; %.0f operations/s (%d rounds)",
	      median(ops, ROUNDS), ROUNDS);
	judge(weaker(share, ROUNDS), AT_LEAST, 40, "%", "of the operations were the weaker node's");
}

static void dirty(struct bench *b, struct file *f)
{
	double rate[ROUNDS], share[ROUNDS], ops[ROUNDS], flush_us[ROUNDS], alone_us[ROUNDS], ratio[ROUNDS], ratio_alone[ROUNDS];
	uint64_t flushes = 0, handed = 0;

	for (int r = 0; r < ROUNDS; r++) {
		uint64_t before;

		flush_us[r] = flush_round(b, &alone_us[r]);
		before = b->env.blk->n_flushes;
		fight_round(b, f, DIRTY, &rate[r], &share[r], &ops[r]);
		flushes += b->env.blk->n_flushes - before;
		handed += (uint64_t)(rate[r] * FIGHT_NS / NS_PER_SEC);
		ratio[r] = rate[r] * 3 * flush_us[r] / 1e6;
		ratio_alone[r] = rate[r] * 3 * alone_us[r] / 1e6;
	}
	judge(median(ratio, ROUNDS), AT_LEAST, 0.5, "x",
	      "of 1/(3 flushes): %.0f hand-overs/s of one dirty inode, a block written and flushed takes %.0f us; %.0f changes/s (%d pairs)", median(rate, ROUNDS),
	      median(flush_us, ROUNDS), median(ops, ROUNDS), ROUNDS);
	judge(weaker(share, ROUNDS), AT_LEAST, 40, "%", "of the changes were the weaker node's");
	printf("info %10.2f        flushes a hand-over, counted on node 1, which leaves half of the time\n", 2.0 * (double)flushes / (double)csv_max(handed, (uint64_t)1));
	printf("info %10.2f x      of 1/(3 FLUSHes alone, without the writes before them), %.0f us each\n", median(ratio_alone, ROUNDS),
	       median(alone_us, ROUNDS));
	fflush(stdout);
}

/* ---- life -------------------------------------------------------------------------------------------------------------------------------- */

static void make(struct bench *b, const char *name, struct file *ret)
{
	struct vol *s = b->priv;
	struct csvfs_attr a;

	ok_or_die(b, csvfs_create(s->fs, csvfs_root_ino(s->fs), 0, name, S_IFREG | 0644, 0, 0, 0, false, &a), name);
	*ret = (struct file){ a.ino, a.gen };
}

static void mount_it(struct bench *b)
{
	struct csvfs_options o = { .noatime = true, .incarnation = cluster_incarnation(b->env.cluster) };
	struct csvfs_events ev = { .arg = b };
	struct vol *s = b->priv;

	snprintf(o.node_name, sizeof(o.node_name), "n%u", b->self);
	ok_or_die(b, csvfs_mount(&b->env, &o, &ev, &s->fs, &s->err), "mount");
}

static void leave(struct bench *b)
{
	struct vol *s = b->priv;

	ok_or_die(b, csvfs_umount(s->fs, &s->err), "unmount");
	loop_stop(b->loop);
}

static void hub_coro(void *arg)
{
	struct bench *b = arg;
	struct vol *s = b->priv;
	struct file own, both;

	mount_it(b);
	wait_for(b, &s->mounted_there);
	make(b, "own", &own);
	make(b, "both", &both);
	cached(b, &own);
	clean(b, &both);
	dirty(b, &both);
	s->fight.kind = END;
	tell(b, 2, W_PART, &s->fight, sizeof(s->fight));
	wait_for(b, &s->gone);
	leave(b);
}

static void other_coro(void *arg)
{
	struct bench *b = arg;
	struct vol *s = b->priv;

	mount_it(b);
	tell(b, 1, W_GO, NULL, 0);
	s->fight.kind = END;
}

static void other_fight(void *arg)
{
	struct bench *b = arg;
	struct vol *s = b->priv;

	if (s->fight.kind == END) {
		leave(b);
		return;
	}
	fight(b);
	tell(b, 1, W_DONE, &s->mine, sizeof(s->mine));
}

static void fence_never(struct fence_port *p, struct fence_req *r)
{
	(void)p;
	fprintf(stderr, "lockspeed: node %u was to be fenced\n", r->node.nodeid);
	exit(1);
}

static void volume_start(struct bench *b)
{
	static const struct fence_port_ops never_ops = { fence_never };
	static struct fence_port never = { &never_ops };
	struct vol *s = b->priv = calloc(1, sizeof(*s));

	csv_assert(s);
	s->fight.kind = DIRTY;
	s->err = CSV_ERR_INIT;
	s->loop = b->loop;
	s->op.fn = on_op;
	s->over.fn = on_over;
	sem_init(&s->answered, 0, 0);
	waitq_init(&s->word_wq);
	b->env.fence = &never;
	ok_or_die(b, real_blk_open(b->arg, 0, b->loop, &b->env.blk, &s->err), b->arg);
	if (sched_spawn(b->sched, "bench", b->self == 1 ? hub_coro : other_coro, b))
		die("out of memory");
}

static void volume_word(struct bench *b, enum word w, uint32_t from, const uint8_t *buf, size_t len)
{
	struct vol *s = b->priv;

	(void)from;
	if (w == W_GO) {
		s->mounted_there = true;
	} else if (w == W_PART) {
		csv_assert(len == sizeof(s->fight));
		memcpy(&s->fight, buf, len);
		if (sched_spawn(b->sched, "fight", other_fight, b))
			die("out of memory");
	} else {
		csv_assert(len == sizeof(s->theirs));
		memcpy(&s->theirs, buf, len);
		s->theirs_over = true;
	}
	sched_wake_all(b->sched, &s->word_wq);
}

static void volume_gone(struct bench *b, uint32_t who)
{
	struct vol *s = b->priv;

	if (s->fight.kind != END) {
		fprintf(stderr, "lockspeed: node %u has ended too early\n", who);
		exit(1);
	}
	s->gone = true;
	sched_wake_all(b->sched, &s->word_wq);
}

const struct bench_mode mode_volume = { "volume", volume_start, volume_word, volume_gone };
