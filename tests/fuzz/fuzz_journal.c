/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuzz_journal.c - a log of a node that died, with records of one block, of several, with revokes and once around; its descriptors, commits,
 * header and images changed, checksums put right in most cases; replayed.  Only homes may be written, and nothing after an error of what it says.
 */
#include "tests/unit/jnl_crash.h"

#include "tests/fuzz/fuzz.h"

#define LOG_BLK 64u
#define FIELDS 256u

static struct {
	struct jf *f;
	uint8_t *was;			/* the whole device */
	uint32_t at;			/* block of the log, and the window in it */
	uint32_t off;
} jz;

static void put_many(struct jf *f, void *arg)
{
	struct jnl_handle h;

	(void)arg;
	ck_assert_int_eq(jnl_begin(f->j, 6, 0, &h), 0);
	for (unsigned i = 10; i < 16; i++) {
		jnl_dirty(&h, &tb[i].jb);
		tb_set(&tb[i], 500 + i);
	}
	ck_assert_int_eq(jnl_commit(f->j, jnl_end(&h)), 0);
}

static void home(struct jf *f, void *arg)
{
	(void)arg;
	ck_assert_int_eq(jnl_checkpoint(f->j, 0), 0);
}

static void journal_begin(void)
{
	jz.f = jf_new(LOG_BLK);
	tbs_init(64);
	/* 45 blocks are written and home: what follows goes around the end */
	for (unsigned i = 0; i < 3; i++) {
		jf_run(jz.f, put_each, (void *)5);
		jf_run(jz.f, home, NULL);
	}
	jf_run(jz.f, put_each, (void *)4);
	jf_run(jz.f, put_many, NULL);
	jf_run(jz.f, free_block, &tb[2]);
	jf_run(jz.f, put_each, (void *)2);
	crash(jz.f);
	jz.was = snapshot(jz.f);
	csv_assert(!replay(jz.f).r && !device_is(jz.f, jz.was));
	restore(jz.f, jz.was);
}

static void journal_end(void)
{
	free(jz.was);
	jf_free(jz.f);
}

static void journal_sample(struct fuzz_input *in)
{
	jz.at = csv_prng_chance(in->prng, 1, 8) ? 0 : (uint32_t)csv_prng_below(in->prng, LOG_BLK);
	jz.off = csv_prng_chance(in->prng, 3, 4) ? 0 : (uint32_t)csv_prng_below(in->prng, CSV_BLOCK_SIZE - FIELDS);
	memcpy(in->b, jf_home(jz.f, JF_JNL + jz.at) + jz.off, FIELDS);
	in->len = FIELDS;
}

/* Images' sums stand in the tags, the tags' in the commit: put right from there on. */
static void seal_record(uint32_t commit)
{
	uint32_t n, first, image, k = 0;
	uint8_t *c = jf_home(jz.f, JF_JNL + commit), *d;

	n = le32_get(((struct csv_jcommit *)c)->record_blk);
	if (n < 2 || n > commit)
		return;
	first = commit + 1 - n;
	d = jf_home(jz.f, JF_JNL + first);
	image = first + 1;
	for (uint32_t i = 0; i < le32_get(((struct csv_jdesc *)d)->tags) && i < 80; i++) {
		struct csv_jtag *t = (struct csv_jtag *)(d + sizeof(struct csv_jdesc)) + i;

		if (le32_get(t->flags) || image + k >= commit)
			continue;
		le32_set(&t->crc, csv_crc32c(0, jf_home(jz.f, JF_JNL + image + k), CSV_BLOCK_SIZE));
		k++;
	}
	mhdr_seal(d, jz.f->g.uuid);
	le32_set(&((struct csv_jcommit *)c)->record_crc, csv_crc32c(0, d, (size_t)(n - 1) * CSV_BLOCK_SIZE));
	mhdr_seal(c, jz.f->g.uuid);
}

static bool journal_run(struct fuzz_input *in)
{
	uint8_t *p = jf_home(jz.f, JF_JNL + jz.at);
	uint8_t now[CSV_BLOCK_SIZE];
	bool changed = false;
	struct rep r;

	memcpy(p + jz.off, in->b, csv_min((size_t)FIELDS, in->len));
	if (csv_prng_chance(in->prng, 15, 16)) {
		mhdr_seal(p, jz.f->g.uuid);
		for (uint32_t b = 1; b < LOG_BLK; b++)
			if (le32_get(((struct csv_mhdr *)jf_home(jz.f, JF_JNL + b))->magic) == CSV_MAGIC_JCOMMIT)
				seal_record(b);
	}
	memcpy(now, p, sizeof(now));
	jz.f->n_ops = 0;
	r = replay(jz.f);
	csv_assertf(!r.r || r.err.text[0], "an error without a word");
	csv_assert(!memcmp(now, p, sizeof(now)) && jz.f->n_ops < JF_OPS_MAX);	/* RP3 */
	for (unsigned i = 0; i < jz.f->n_ops; i++) {
		const struct jf_op *o = &jz.f->op[i];

		if (o->op != BLK_WRITE)
			continue;
		changed = true;
		csv_assertf(o->blkno >= JF_DATA && o->blkno + o->nblk <= JF_BLOCKS, "block %llu was written", (unsigned long long)o->blkno);
	}
	csv_assertf(!r.r || r.r == -EIO || !changed, "written although it was refused: %s", r.err.text);	/* RP1 */
	if (!r.r && csv_prng_chance(in->prng, 1, 1000)) {		/* twice is as good as once (J7) */
		uint8_t *once = snapshot(jz.f);
		unsigned n = jz.f->n_ops;

		csv_assert(!replay(jz.f).r && device_is(jz.f, once));
		jz.f->n_ops = n;
		free(once);
	}
	for (unsigned i = 0; i < jz.f->n_ops; i++) {
		const struct jf_op *o = &jz.f->op[i];

		if (o->op == BLK_WRITE)
			memcpy(jf_home(jz.f, o->blkno), jz.was + o->blkno * CSV_BLOCK_SIZE, (size_t)o->nblk * CSV_BLOCK_SIZE);
	}
	memcpy(jf_home(jz.f, JF_JNL), jz.was + (size_t)JF_JNL * CSV_BLOCK_SIZE, (size_t)LOG_BLK * CSV_BLOCK_SIZE);
	return changed;
}

const struct fuzz_decoder fuzz_journal[] = {
	{ .name = "journal", .begin = journal_begin, .end = journal_end, .sample = journal_sample, .run = journal_run },	/* decoder journal */
	{ 0 },
};
