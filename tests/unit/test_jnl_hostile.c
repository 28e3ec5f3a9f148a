/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * journal: logs that lie; the checksums are right, the numbers are not.
 */
#include "tests/unit/jnl_crash.h"

static void reseal(struct jf *f, unsigned rec)
{
	uint8_t *d = jf_home(f, REC_BLK(rec)), *c = d + 2 * CSV_BLOCK_SIZE;

	mhdr_seal(d, f->g.uuid);
	le32_set(&((struct csv_jcommit *)c)->record_crc, csv_crc32c(0, d, 2 * CSV_BLOCK_SIZE));
	mhdr_seal(c, f->g.uuid);
}

enum where { HEAD, DESC, TAG, IMAGE, COMMIT };
#define LIE(w, type, field, v, t) { w, offsetof(struct type, field), sizeof(((struct type *)0)->field), v, t }
static const struct { enum where where; size_t at, size; uint64_t value; const char *text; } lies[] = {
	LIE(HEAD, csv_mhdr, magic, 0, "magic 0x00000000"),
	LIE(HEAD, csv_mhdr, blkno, 5, "blkno 5"),
	LIE(HEAD, csv_mhdr, owner_id, 4, "owner_id 4"),
	LIE(HEAD, csv_mhdr, owner_type, 2, "owner_type 2"),
	LIE(HEAD, csv_jhead, tail_blk, 0, "tail_blk 0"),
	LIE(HEAD, csv_jhead, tail_blk, 128, "tail_blk 128"),
	LIE(HEAD, csv_jhead, tail_blk, UINT32_MAX, "tail_blk 4294967295"),
	LIE(HEAD, csv_jhead, len_blk, 64, "len_blk 64"),
	LIE(HEAD, csv_jhead, first_seq, 0, "first_seq 0"),
	LIE(HEAD, csv_jhead, first_seq, UINT64_MAX, "first_seq 18446744073709551615"),
	LIE(HEAD, csv_jhead, level, 2, "level 2"),
	LIE(HEAD, csv_jhead, incompat, 1, "incompat 0x1"),
	LIE(HEAD, csv_jhead, incarnation, 8, "incarnation 8"),
	LIE(DESC, csv_jdesc, index, 1, "index 1"),
	LIE(DESC, csv_jdesc, descs, 0, "descs 0"),
	LIE(DESC, csv_jdesc, descs, 127, "descs 127"),
	LIE(DESC, csv_jdesc, descs, UINT32_MAX, "descs 4294967295"),
	LIE(DESC, csv_jdesc, images, UINT32_MAX, "images 4294967295"),
	LIE(DESC, csv_jdesc, images, 126, "images 126"),
	LIE(DESC, csv_jdesc, tags, 84, "tags 84"),
	LIE(DESC, csv_jdesc, tags, UINT32_MAX, "tags 4294967295"),
	LIE(DESC, csv_jdesc, tags, 0, "have 0 image tags, images is 1"),
	LIE(DESC, csv_jdesc, tags, 2, "tag: blkno 0"),
	LIE(TAG, csv_jtag, blkno, CSV_SB_BLOCK, "blkno 16, must be 1024..4095"),
	LIE(TAG, csv_jtag, blkno, JF_JNL + 2, "blkno 66"),
	LIE(TAG, csv_jtag, blkno, JF_BLOCKS, "blkno 4096"),
	LIE(TAG, csv_jtag, blkno, UINT64_MAX, "blkno 18446744073709551615"),
	LIE(TAG, csv_jtag, blkno, 3000, "blkno 2000, must be its own number"),
	LIE(TAG, csv_jtag, owner_type, 0, "owner_type 0"),
	LIE(TAG, csv_jtag, owner_type, CSV_OWN_TYPES, "owner_type 13"),
	LIE(TAG, csv_jtag, owner_type, CSV_OWN_GROUP, "owner_type 2 (inode), must be 3 (group)"),
	LIE(TAG, csv_jtag, owner_id, 77, "owner_id 0, must be 77"),
	LIE(TAG, csv_jtag, crc, 1, "crc 0x00000001"),
	LIE(TAG, csv_jtag, generation, 9, "its tag says 9"),
	LIE(TAG, csv_jtag, seq, 9, "its tag says 1 and 9"),
	LIE(TAG, csv_jtag, flags, 2, "flags 0x2"),
	LIE(TAG, csv_jtag, flags, 1, "have 0 image tags, images is 1"),
	LIE(IMAGE, csv_mhdr, magic, CSV_MAGIC_JDESC, "(journal descriptor), must be inode"),
	LIE(IMAGE, csv_mhdr, magic, CSV_MAGIC_SUPER, "(superblock), must be inode"),
	LIE(IMAGE, csv_mhdr, blkno, 2001, "blkno 2001"),
	LIE(IMAGE, csv_mhdr, owner_id, 5, "owner_id 5"),
	LIE(IMAGE, csv_mhdr, generation, 5, "generation 5"),
	LIE(COMMIT, csv_jcommit, record_blk, 2, "record_blk 2"),
	LIE(COMMIT, csv_jcommit, stable_seq, 1, "stable_seq 1"),
	LIE(COMMIT, csv_jcommit, tail_seq, 2, "tail_seq 2"),
	LIE(COMMIT, csv_jcommit, tail_blk, 0, "tail_blk 0"),
	LIE(COMMIT, csv_jcommit, tail_blk, 128, "tail_blk 128"),
};

START_TEST(a_log_that_lies_is_an_error_that_names_the_field_and_writes_nothing)
{
	struct jf *f = jf_new(128);
	uint8_t *desc = jf_home(f, REC_BLK(0));
	uint8_t *base[] = { jf_home(f, JF_JNL), desc, desc + sizeof(struct csv_jdesc), desc + CSV_BLOCK_SIZE, desc + 2 * CSV_BLOCK_SIZE };
	struct csv_jtag *tag = (void *)(desc + sizeof(struct csv_jdesc));
	uint8_t value[8];
	struct rep p;
	void *now;

	tbs_init(1);
	jf_run(f, put_each, (void *)1);
	crash(f);
	now = snapshot(f);
	p = replay(f);
	ck_assert_int_eq(p.r, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
		void *before;

		restore(f, now);
		for (unsigned b = 0; b < 8; b++)
			value[b] = lies[i].value >> 8 * b;
		memcpy(base[lies[i].where] + lies[i].at, value, lies[i].size);
		if (lies[i].where == HEAD) {
			mhdr_seal(base[HEAD], f->g.uuid);
		} else {
			if (lies[i].where == IMAGE) {
				mhdr_seal(base[IMAGE], f->g.uuid);
				le32_set(&tag->crc, csv_crc32c(0, base[IMAGE], CSV_BLOCK_SIZE));
			}
			reseal(f, 0);
		}
		before = snapshot(f);
		p = replay(f);
		ck_assert_msg(p.r < 0 && p.r != -EIO, "lie %u (%s): replay says %d", i, lies[i].text, p.r);
		ck_assert_msg(strstr(p.err.text, lies[i].text) && strstr(p.err.text, "journal 3: "), "lie %u: wanted \"%s\", got \"%s\"", i,
			      lies[i].text, p.err.text);
		ck_assert(device_is(f, before));
		free(before);
	}
	free(now);
	jf_free(f);
}
END_TEST

START_TEST(any_byte_of_the_log_may_be_anything)
{
	struct jf *f = jf_new(64);
	struct csv_prng p;
	void *now;

	tbs_init(64);
	jf_run(f, put_each, (void *)8);
	jf_run(f, free_block, &tb[3]);
	crash(f);
	now = snapshot(f);
	csv_prng_init(&p, 11);
	for (unsigned i = 0; i < 1500; i++) {
		restore(f, now);
		for (unsigned n = csv_prng_range(&p, 1, 3); n; n--) {
			unsigned rec = csv_prng_below(&p, 8), blk = csv_prng_below(&p, 3);
			uint8_t *d = jf_home(f, REC_BLK(rec) + blk);

			/* the fields more often than the rest */
			d[csv_prng_below(&p, csv_prng_chance(&p, 2, 3) ? 160 : CSV_BLOCK_SIZE)] = csv_prng_u64(&p);
			if (blk == 1)
				mhdr_seal(d, f->g.uuid);
			reseal(f, rec);
		}
		replay(f);		/* must come back, whatever it says; sanitizers watch */
		for (unsigned b = 0; b < JF_JNL; b++)
			ck_assert_msg(!memcmp(jf_home(f, b), (uint8_t *)now + b * CSV_BLOCK_SIZE, CSV_BLOCK_SIZE), "block %u was written", b);
	}
	free(now);
	jf_free(f);
}
END_TEST

UNIT_MAIN("jnl_hostile", UNIT_TEST(a_log_that_lies_is_an_error_that_names_the_field_and_writes_nothing),
	  UNIT_SLOW(any_byte_of_the_log_may_be_anything, 0, 1, 60))
