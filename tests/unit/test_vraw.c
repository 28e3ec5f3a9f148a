/* SPDX-License-Identifier: GPL-2.0-only */
/* The disk inside an image with a block map (csvfs/vraw.h): several nodes, absent and present blocks, races to add them, the data plane. */
#define CW_BYTES (256ull << 20)
#include "tests/unit/vraw_world.h"

#include <urcu.h>

#include "csvfs/dataplane.h"

#define MIB (1ull << 20)

/* Nodes die in the middle of coroutines, whose memory nobody frees then. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

static enum vimg_format format_of(int i) { return i ? VIMG_VHD : VIMG_VHDX; }

static struct vimg_usage usage;

static void usage_co(struct csvfs *fs)
{
	vw.n = vw_scan(fs, &usage, &vw.err);
}

static void look_at_bat(unsigned id, uint64_t present)
{
	vw.err = CSV_ERR_INIT;
	on_node(id, usage_co);
	ck_assert_msg(vw.n == 0, "the block table: %s", vw.err.text);
	ck_assert_uint_eq(usage.present, present);
}

START_TEST(a_new_disk_reads_as_zeros_and_keeps_what_is_written_on_every_node)
{
	vw_start(3, format_of(_i), 24 * MIB, MIB);
	vw_check(1, 0, 24 * MIB);
	vw_check(2, 0, 24 * MIB);
	vw_write(1, 5 * MIB + 4096, 8192, 1);
	vw_check(2, 4 * MIB, 3 * MIB);
	vw_write(2, 5 * MIB + 512, 512, 2);		/* present by now: another sector of it */
	vw_write(3, 7 * MIB - 1000, 3000, 3);		/* unaligned, over the border of two blocks */
	vw_write(1, 23 * MIB + 4096 * 17, MIB - 4096 * 17, 4);	/* to the very end */
	for (unsigned id = 1; id <= 3; id++)
		vw_check(id, 0, 24 * MIB);
	look_at_bat(2, 4);
	vw_end(3);
}
END_TEST

/* The log speaks of the image by its path; the number alone is nobody's name. */
START_TEST(a_full_volume_is_said_with_the_path_of_the_image)
{
	char says[200];
	uint64_t off = 0;

	vw_start(1, format_of(_i), 4096 * MIB, MIB);
	vw.len = MIB;
	vw.buf = calloc(1, MIB);
	for (vw.n = MIB; vw.n == MIB && off < vw.spec.size; off += MIB) {
		vw.off = off;
		on_node(1, vw_write_co);
	}
	ck_assert_int_eq(vw.n, -ENOSPC);
	snprintf(says, sizeof(says), "image vms/a disk (inode %llu): no room for another block", (unsigned long long)vw.file.ino);
	ck_assert_msg(strstr(cw.all_log, says) != NULL, "%s: not in\n%s", says, cw.all_log);
	free(vw.buf);
	vw_end(1);
}
END_TEST

START_TEST(the_last_block_may_be_a_part_and_nothing_lies_behind_the_disk)
{
	uint64_t size = 9 * MIB + 512 * 77;

	vw_start(1, format_of(_i), size, MIB);
	vw_write(1, 9 * MIB, 512 * 77, 1);
	vw_check(1, 0, size);
	vw.off = size - 512;
	vw.len = 4096;
	vw.buf = calloc(1, 4096);
	on_node(1, vw_write_co);
	ck_assert_int_eq(vw.n, 512);
	memset(vw.model + vw.off, 0, 512);
	vw.off = size;
	on_node(1, vw_write_co);
	ck_assert_int_eq(vw.n, -ENOSPC);
	on_node(1, vw_read_co);
	ck_assert_int_eq(vw.n, 0);
	free(vw.buf);
	vw_check(1, 0, size);
	vw_end(1);
}
END_TEST

static struct vimg_entry entry;

/* Sectors 8 to 15 of the block lose their bits, what lies there stays; and the view is closed meanwhile. */
static void clear_bits(struct csvfs *fs)
{
	uint8_t map[512], none = 0;
	uint64_t was;

	ck_assert(vraw_entry_cached(vw_inode(1)->vraw, 3, &entry));
	vw_close(fs);
	IS(csvfs_read(fs, vw.file.ino, 0, entry.bitmap_off, map, sizeof(map)), 512);
	memcpy(&was, map, 8);
	ck_assert_uint_eq(was, UINT64_MAX);
	IS(csvfs_write(fs, vw.file.ino, 0, entry.bitmap_off + 1, &none, 1, 0, NULL), 1);
}

static void bits_are_set(struct csvfs *fs)
{
	uint8_t map[512], want[512];

	memset(want, 0xff, sizeof(want));
	IS(csvfs_read(fs, vw.file.ino, 0, entry.bitmap_off, map, 256), 256);	/* a bit a sector of 1 MiB */
	ck_assert_mem_eq(map, want, 256);
}

START_TEST(sectors_whose_bit_is_clear_are_hidden_and_become_zeros_with_the_first_write)
{
	vw_start(2, VIMG_VHD, 24 * MIB, MIB);
	vw_write(1, 3 * MIB, 65536, 1);
	on_node(2, vw_close);
	on_node(1, clear_bits);
	vw_open_on(1, true);
	vw_open_on(2, true);
	memset(vw.model + 3 * MIB + 8 * 512, 0, 8 * 512);
	vw_check(1, 3 * MIB, MIB);
	vw_check(2, 3 * MIB + 9 * 512, 1024);		/* from the middle to the middle */
	vw_write(2, 3 * MIB + 10 * 512, 512, 7);
	vw_check(1, 2 * MIB, 2 * MIB);
	vw_check(2, 2 * MIB, 2 * MIB);
	on_node(1, bits_are_set);
	vw_end(2);
}
END_TEST

static void two_in_one_place(struct csvfs *fs)
{
	struct vraw *v = vw_inode(1)->vraw;
	struct vimg img = v->img;
	uint8_t raw[8];

	ck_assert(vraw_entry_cached(v, 3, &entry));
	vw_close(fs);
	vimg_entry_encode(&img, 5, &entry, raw);
	IS(csvfs_write(fs, vw.file.ino, 0, vimg_entry_off(&img, 5), raw, img.entry_bytes, 0, NULL), img.entry_bytes);
}

START_TEST(an_image_whose_table_names_a_place_twice_is_not_written)
{
	vw_start(1, format_of(_i), 24 * MIB, MIB);
	vw_write(1, 3 * MIB, 4096, 1);
	on_node(1, two_in_one_place);
	vw.writing = true;
	on_node(1, vw_open);
	ck_assert_int_eq(vw.n, -CSV_E_CORRUPT);
	ck_assert_msg(strstr(vw.err.text, "5") && strstr(vw.err.text, "3"), "which blocks: %s", vw.err.text);
	on_node(1, vw_close);
	vw_open_on(1, false);
	vw_check(1, 3 * MIB, 4096);
	vw.off = 3 * MIB;
	vw.len = 512;
	vw.buf = vw.model;
	on_node(1, vw_write_co);
	ck_assert_int_eq(vw.n, -EROFS);
	vw_end(1);
}
END_TEST

/* ---- races -------------------------------------------------------------------------------------------------------------------------- */

#define RACE_MIB 40u
#define RACE_WRITERS 4u			/* a node */

static unsigned running;
static uint32_t writes_left;
static struct csv_prng race_prng;

struct racer { unsigned node, k; struct csv_prng p; };
static struct { uint64_t sector; uint8_t data[VW_SECTOR]; bool is; } on_its_way[4][RACE_WRITERS];	/* by node: sent, not answered */

/* Sectors of 512 are dealt out to the writers in turn, so each knows what it wrote last, while all meet in the same blocks. */
static void race_main(void *arg)
{
	struct racer *x = arg;
	struct csvfs *fs = cw_n(x->node)->fs;
	uint32_t all = 3 * RACE_WRITERS, me = (x->node - 1) * RACE_WRITERS + x->k;
	uint8_t buf[VW_SECTOR], got[VW_SECTOR];

	while (writes_left) {
		uint64_t sectors = RACE_MIB * MIB / VW_SECTOR, s = csv_prng_below(&x->p, sectors / all) * all + me;
		ssize_t n;

		writes_left--;
		fill(buf, sizeof(buf), s, (uint32_t)writes_left);
		on_its_way[x->node][x->k].sector = s;
		memcpy(on_its_way[x->node][x->k].data, buf, sizeof(buf));
		on_its_way[x->node][x->k].is = true;
		n = csvfs_disk_write(fs, vw.file.ino, 0, s * VW_SECTOR, buf, sizeof(buf));
		ck_assert_msg(n == VW_SECTOR, "node %u: write: %zd\n%s", x->node, n, cw.all_log);
		memcpy(vw.model + s * VW_SECTOR, buf, sizeof(buf));
		on_its_way[x->node][x->k].is = false;
		if (csv_prng_chance(&x->p, 1, 4)) {
			s = csv_prng_below(&x->p, sectors / all) * all + me;
			n = csvfs_disk_read(fs, vw.file.ino, 0, s * VW_SECTOR, got, sizeof(got));
			ck_assert_int_eq(n, VW_SECTOR);
			ck_assert_msg(!memcmp(got, vw.model + s * VW_SECTOR, sizeof(got)), "node %u: sector %" PRIu64 " is not what it wrote last",
				      x->node, s);
		}
		if (csv_prng_chance(&x->p, 1, 16))
			OK(csvfs_fsync(fs, vw.file.ino, 0, true));
		coro_sleep_ns(cw_n(x->node)->env.sched, 1 + csv_prng_below(&x->p, 200000));
	}
	running--;
	free(x);
}

static bool race_over(void *arg)
{
	(void)arg;
	return running == 0;
}

static void race_start(uint32_t writes)
{
	writes_left = writes;
	memset(on_its_way, 0, sizeof(on_its_way));
	for (unsigned id = 1; id <= 3; id++) {
		for (unsigned k = 0; k < RACE_WRITERS; k++) {
			struct racer *x = calloc(1, sizeof(*x));

			*x = (struct racer){ .node = id, .k = k };
			csv_prng_fork(&race_prng, &x->p);
			running++;
			ck_assert_int_eq(sched_spawn(cw_n(id)->env.sched, "racer", race_main, x), 0);
		}
	}
}

static void race(uint32_t writes)
{
	race_start(writes);
	ck_assert_msg(cw_run(600000, race_over, NULL), "not done after 10 minutes:\n%s", cw.all_log);
}

START_TEST(three_nodes_that_add_blocks_at_once_lose_nothing_and_give_no_place_twice)
{
	csv_prng_init(&race_prng, 7 + (uint64_t)_i);
	vw_start(3, format_of(_i % 2), RACE_MIB * MIB, MIB);
	race(1200);
	for (unsigned id = 1; id <= 3; id++)
		vw_check(id, 0, RACE_MIB * MIB);
	look_at_bat(1, RACE_MIB);
	vw_end(3);
}
END_TEST

static uint32_t cut_at;

static bool is_cut_time(void *arg)
{
	(void)arg;
	return writes_left <= cut_at;
}

static uint8_t sector_now[VW_SECTOR];

static void read_sector_co(struct csvfs *fs)
{
	IS(csvfs_disk_read(fs, vw.file.ino, 0, vw.off, sector_now, VW_SECTOR), VW_SECTOR);
}

/* What the dead node had sent and nobody answered is there or not; from now on it counts as what it is. */
static void settle(unsigned dead)
{
	const uint8_t *got = sector_now;

	for (unsigned k = 0; k < RACE_WRITERS; k++) {
		uint8_t *model = vw.model + on_its_way[dead][k].sector * VW_SECTOR;

		if (!on_its_way[dead][k].is)
			continue;
		vw.off = on_its_way[dead][k].sector * VW_SECTOR;
		on_node(1, read_sector_co);
		ck_assert_msg(!memcmp(got, model, VW_SECTOR) || !memcmp(got, on_its_way[dead][k].data, VW_SECTOR),
			      "sector %" PRIu64 ": neither what was there nor what the dead node wrote", on_its_way[dead][k].sector);
		memcpy(model, got, VW_SECTOR);
	}
}

/* A node loses power while it adds blocks, with writes that land late or never; comes back, and again.  The log is the story. */
START_TEST(nodes_that_die_while_they_add_blocks_leave_a_whole_image)
{
	csv_prng_init(&race_prng, 77 + (uint64_t)_i);
	vw_start(3, format_of(_i % 2), RACE_MIB * MIB, MIB);
	for (unsigned round = 0; round < 3; round++) {
		race_start(240);
		cut_at = (uint32_t)csv_prng_range(&race_prng, 40, 235);
		ck_assert(cw_run(600000, is_cut_time, NULL));
		if (round % 2) {		/* its last writes hang somewhere between it and the disk */
			cw_n(3)->hold_writes = true;
			cw_settle(2);
		}
		cw_off(3, true);
		running -= RACE_WRITERS;
		cw_land_some(cw_n(3), &race_prng);
		ck_assert_msg(cw_run(600000, race_over, NULL), "survivors are not done after 10 minutes:\n%s", cw.all_log);
		settle(3);
		vw_check(1, 0, RACE_MIB * MIB);
		vw_check(2, 0, RACE_MIB * MIB);
		cw_mount(3);
		vw_open_on(3, true);
		vw_check(3, 0, RACE_MIB * MIB);
	}
	race(200);
	vw_check(3, 0, RACE_MIB * MIB);
	vw.err = CSV_ERR_INIT;
	on_node(2, usage_co);
	ck_assert_msg(vw.n == 0, "the block table: %s", vw.err.text);
	vw_end(3);
}
END_TEST

/* ---- the data plane ------------------------------------------------------------------------------------------------------------------ */

static struct dp_table *table[CW_NODES];

static void tables_start(unsigned nodes)
{
	for (unsigned id = 1; id <= nodes; id++) {
		struct dp_config cfg = { .sched = cw_n(id)->env.sched, .io_align = cw_n(id)->blk.io_align };

		table[id - 1] = dp_table_new(&cfg);
		csvfs_set_dataplane(cw_n(id)->fs, table[id - 1]);
	}
}

/* Could a worker do it alone?  When it can: does the map lead to the bytes of the model? */
static bool in_place(unsigned id, uint64_t off, uint32_t len, bool write)
{
	struct dp_io io = { .ino = 1ull << 62 | vw.file.ino, .gen = vw.file.gen, .off = off, .len = len, .write = write };

	if (dp_io_begin(table[id - 1], &io) != DP_SUBMIT)
		return false;
	for (uint32_t i = 0; i < io.nseg; i++)
		ck_assert_msg(!memcmp(cw.disk + io.seg[i].dev_off, vw.model + off + io.seg[i].buf_off, io.seg[i].len),
			      "the map of node %u leads somewhere else for %" PRIu64, id, off + io.seg[i].buf_off);
	dp_io_end(table[id - 1], &io);
	return true;
}

static uint64_t lock_messages(void)
{
	uint64_t n = 0;

	for (unsigned id = 1; id <= 3; id++) {
		struct dlm_stats s;

		dlm_stats(csvfs_dlm(cw_n(id)->fs), &s);
		n += s.messages_sent;
	}
	return n;
}

START_TEST(what_is_present_needs_no_control_plane_and_no_message_on_any_node)
{
	uint64_t before;

	rcu_register_thread();
	vw_start(3, format_of(_i), 24 * MIB, MIB);
	tables_start(3);
	ck_assert(!in_place(1, 3 * MIB, 4096, false));
	vw_write(1, 3 * MIB, 8192, 1);
	ck_assert(in_place(1, 3 * MIB, 8192, true));
	ck_assert(in_place(1, 3 * MIB + 65536, 4096, true));	/* the rest of the block is zeros, as the model has it */
	ck_assert(!in_place(1, 4 * MIB, 4096, false));		/* absent */
	for (unsigned id = 2; id <= 3; id++) {
		vw_check(id, 3 * MIB, 4096);
		ck_assert(in_place(id, 3 * MIB, 8192, true));
	}
	ck_assert(in_place(1, 3 * MIB, 8192, true));
	before = lock_messages();
	for (unsigned i = 0; i < 50; i++)
		for (unsigned id = 1; id <= 3; id++)
			ck_assert(in_place(id, 3 * MIB + 4096 * i, 4096, i & 1));
	ck_assert_uint_eq(lock_messages() - before, 0);
	vw_end(3);
	rcu_unregister_thread();
}
END_TEST

START_TEST(adding_a_block_takes_nothing_from_the_others_while_there_is_room)
{
	rcu_register_thread();
	vw_start(3, format_of(_i), 24 * MIB, MIB);
	tables_start(3);
	vw_write(1, 3 * MIB, 4096, 1);			/* makes room for several blocks */
	for (unsigned id = 1; id <= 3; id++) {
		vw_check(id, 3 * MIB, 4096);
		ck_assert(in_place(id, 3 * MIB, 4096, true));
	}
	vw_check(3, 9 * MIB, 4096);			/* absent: node 3 knows it */
	vw_write(2, 9 * MIB, 4096, 2);
	for (unsigned id = 1; id <= 3; id++)
		ck_assert(in_place(id, 3 * MIB, 4096, true));
	ck_assert(!in_place(3, 9 * MIB, 4096, false));
	vw_check(3, 9 * MIB, 4096);
	ck_assert(in_place(3, 9 * MIB, 4096, false));
	vw_check(1, 9 * MIB, 4096);
	ck_assert(in_place(1, 9 * MIB, 4096, true));
	vw_end(3);
	rcu_unregister_thread();
}
END_TEST

static struct glock_holder held;
static struct csv_owner what;
static enum dlm_mode how;

static void lock_co(struct csvfs *fs)
{
	OK(glock_get(fs, what, how, GLOCK_LASTING, &held));
}

static void put_co(struct csvfs *fs)
{
	(void)fs;
	glock_put(&held);
}

START_TEST(a_map_goes_with_the_first_lock_it_rests_on)
{
	struct { struct csv_owner o; bool goes; } t[] = {
		{ OWN_VMAP(0), true }, { OWN_INODE(0), true }, { OWN_VNEG(0), false },
	};

	rcu_register_thread();
	vw_start(2, format_of(_i), 24 * MIB, MIB);
	tables_start(2);
	vw_write(1, 3 * MIB, 4096, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		vw_check(1, 3 * MIB, 4096);
		ck_assert(in_place(1, 3 * MIB, 4096, true));
		what = t[i].o;
		what.id = vw.file.ino;
		how = DLM_EX;
		on_node(2, lock_co);
		ck_assert_msg(in_place(1, 3 * MIB, 4096, true) != t[i].goes, "lock %u", i);
		on_node(2, put_co);
	}
	/* and with the view */
	vw_check(1, 3 * MIB, 4096);
	ck_assert(in_place(1, 3 * MIB, 4096, true));
	on_node(1, vw_close);
	ck_assert(!in_place(1, 3 * MIB, 4096, true));
	vw_open_on(1, false);
	vw_check(1, 3 * MIB, 4096);
	ck_assert(in_place(1, 3 * MIB, 4096, false));
	ck_assert(!in_place(1, 3 * MIB, 4096, true));	/* opened for reading */
	vw_end(2);
	rcu_unregister_thread();
}
END_TEST

UNIT_MAIN("vraw", UNIT_LOOP(a_new_disk_reads_as_zeros_and_keeps_what_is_written_on_every_node, 0, 2),
	  UNIT_LOOP(a_full_volume_is_said_with_the_path_of_the_image, 0, 2),
	  UNIT_LOOP(the_last_block_may_be_a_part_and_nothing_lies_behind_the_disk, 0, 2),
	  UNIT_TEST(sectors_whose_bit_is_clear_are_hidden_and_become_zeros_with_the_first_write),
	  UNIT_LOOP(an_image_whose_table_names_a_place_twice_is_not_written, 0, 2),
	  UNIT_SLOW(three_nodes_that_add_blocks_at_once_lose_nothing_and_give_no_place_twice, 0, 4, 120),
	  UNIT_SLOW(nodes_that_die_while_they_add_blocks_leave_a_whole_image, 0, 6, 120),
	  UNIT_LOOP(what_is_present_needs_no_control_plane_and_no_message_on_any_node, 0, 2),
	  UNIT_LOOP(adding_a_block_takes_nothing_from_the_others_while_there_is_room, 0, 2),
	  UNIT_LOOP(a_map_goes_with_the_first_lock_it_rests_on, 0, 2))
