/*
 * csvfs/check: a volume in order, crashes, and damage made by hand.
 */
#include "tests/unit/check_volume.h"

#include "csvfs/btree_internal.h"

START_TEST(a_populated_volume_is_in_order_and_counted)
{
	cv_populate();
	cv_check();
	CV_CLEAN();
	ck_assert_uint_eq(cv.res.dirs, 3);
	ck_assert_uint_eq(cv.res.files, 304);
	ck_assert_uint_eq(cv.res.others, 2);
	ck_assert_uint_eq(cv.res.orphans, 0);
	ck_assert_uint_eq(cv.res.slots_active, 0);
	ck_assert_uint_gt(cv.res.data_blk, 1200 * 256);
	cv_teardown();
}
END_TEST

START_TEST(a_crashed_volume_is_checked_as_replay_leaves_it_and_nothing_is_written)
{
	uint64_t writes;

	cv_populate_and_crash();
	cv_check();
	writes = cw_n(4)->blk.n_writes;
	CV_CLEAN();
	ck_assert_uint_eq(writes, 0);
	ck_assert_uint_eq(cv.res.slots_active, 1);
	ck_assert_uint_gt(cv.res.records, 0);
	ck_assert_uint_eq(cv.res.orphans, 1);
	/* Without the journal the volume as it lies there is another one: the check above has seen it through the replay. */
	{
		struct csv_slot_info s;
		uint64_t files = cv.res.files;

		ck_assert_int_eq(csv_slot_decode(&cv.g, 0, cv_blk(csv_slot_blk(&cv.g, 0)), &s, NULL), 0);
		s.state = CSV_SLOT_FREE;
		csv_slot_encode(&cv.g, 0, &s, cv_blk(csv_slot_blk(&cv.g, 0)));
		cv_check();
		ck_assert(cv.res.errors || cv.res.files != files);
	}
	cv_teardown();
}
END_TEST

START_TEST(little_memory_takes_more_passes_and_finds_the_same)
{
	struct check_result one;
	uint64_t last;

	cv_populate_with_orphans();
	/* one leak in each group */
	for (uint32_t grp = 0; grp < cv.g.groups; grp++) {
		last = csv_bitmap_blk(&cv.g, grp, 0);
		csv_bits_set(((struct csv_bitmap *)cv_blk(last))->bits, 12000, CSV_BLK_META);
		cv_seal(last);
	}
	cv_check();
	one = cv.res;
	ck_assert_uint_eq(one.passes, 1);
	ck_assert_uint_gt(one.errors, 1);
	cv.mem = 1;
	cv_check();
	ck_assert_uint_eq(cv.res.passes, cv.g.groups);
	ck_assert_uint_eq(cv.res.errors, one.errors);
	ck_assert_uint_eq(cv.res.files, one.files);
	ck_assert_uint_eq(cv.res.data_blk, one.data_blk);
	ck_assert_uint_eq(cv.res.meta_blk, one.meta_blk);
	ck_assert_uint_eq(cv.res.free_blk, one.free_blk);
	cv.mem = 0;
	cv_teardown();
}
END_TEST

/* ---- damage with a meaning ------------------------------------------------------------------------------------------------- */

static struct csv_inode *inode(uint64_t ino) { return (struct csv_inode *)cv_blk(ino); }
static struct area root_area(uint64_t ino) { return (struct area){ inode(ino)->body_bytes, CSV_BODY_BYTES }; }
static struct area node_area(uint64_t blk) { return (struct area){ ((struct csv_btnode *)cv_blk(blk))->area, CSV_BT_NODE_AREA }; }

static void *item(struct area a, uint32_t i)
{
	struct area_item it;

	area_get(a, i, &it);
	return (void *)it.val;
}

static uint64_t child(uint64_t ino, uint32_t i)
{
	return area_child(root_area(ino), i);
}

static struct csv_extent *first_extent(uint64_t ino)
{
	return area_level(root_area(ino)) ? item(node_area(child(ino, 0)), 0) : item(root_area(ino), 0);
}

static void set_bits(uint64_t blk, enum csv_blk_state st)
{
	struct csv_bitmap_pos p;
	uint64_t b;

	ck_assert(csv_bitmap_pos(&cv.g, blk, &p));
	b = csv_bitmap_blk(&cv.g, p.group, p.bitmap);
	csv_bits_set(((struct csv_bitmap *)cv_blk(b))->bits, p.entry, st);
	cv_seal(b);
}

static uint64_t free_block(void)
{
	for (uint64_t b = cv.g.total_blk - 2; ; b--) {
		struct csv_bitmap_pos p;

		if (csv_bitmap_pos(&cv.g, b, &p) &&
		    !csv_bits_get(((struct csv_bitmap *)cv_blk(csv_bitmap_blk(&cv.g, p.group, p.bitmap)))->bits, p.entry))
			return b;
	}
}

static void leak(void) { set_bits(free_block(), CSV_BLK_DATA); }
static void lost_inode(void) { set_bits(free_block(), CSV_BLK_INODE); }
static void freed_in_use(void) { set_bits(le64_get(first_extent(cv.fixed)->phys), CSV_BLK_FREE); }
static void wrong_state(void) { set_bits(cv.inl, CSV_BLK_DATA); }
static void two_owners(void) { le64_set(&first_extent(cv.fixed)->phys, le64_get(first_extent(cv.big)->phys)); cv_seal(cv.fixed); }
static void into_metadata(void) { le64_set(&first_extent(cv.fixed)->phys, csv_group_start(&cv.g, 0) + 1); cv_seal(cv.fixed); }
static void into_journal(void) { le64_set(&first_extent(cv.fixed)->phys, csv_journal_blk(&cv.g, 1)); cv_seal(cv.fixed); }
static void beyond_device(void) { le64_set(&first_extent(cv.fixed)->phys, cv.g.total_blk); cv_seal(cv.fixed); }
static void len_zero(void) { le32_set(&first_extent(cv.fixed)->len, 0); cv_seal(cv.fixed); }
static void len_huge(void) { le32_set(&first_extent(cv.fixed)->len, UINT32_MAX); cv_seal(cv.fixed); }
static void len_longer(void) { le32_set(&first_extent(cv.many)->len, 5); cv_seal(child(cv.many, 0)); }
static void flag_unknown(void) { le32_set(&first_extent(cv.fixed)->flags, CSV_EXT_SHARED); cv_seal(cv.fixed); }
static void key_wraps(void)
{
	area_set_key(root_area(cv.fixed), area_count(root_area(cv.fixed)) - 1, UINT64_MAX - 3);
	cv_seal(cv.fixed);
}

static void node_loop(void)
{
	struct le64 self = le64_of(child(cv.many, 0));

	/* the second child is the first one */
	memcpy(item(root_area(cv.many), 1), &self, sizeof(self));
	cv_seal(cv.many);
}

static void node_is_root(void)
{
	struct le64 up = le64_of(cv.many);

	memcpy(item(root_area(cv.many), 0), &up, sizeof(up));
	cv_seal(cv.many);
}

static void node_of_another(void)
{
	struct le64 other = le64_of(child(cv.dir, 0));

	memcpy(item(root_area(cv.many), 0), &other, sizeof(other));
	cv_seal(cv.many);
}

static void level_wrong(void)
{
	le16_set(&((struct csv_bt_head *)inode(cv.many)->body_bytes)->level, 2);
	cv_seal(cv.many);
}

static void level_255(void)
{
	le16_set(&((struct csv_bt_head *)inode(cv.many)->body_bytes)->level, 255);
	cv_seal(cv.many);
}

static void key_outside_parent(void)
{
	uint64_t b = child(cv.many, 1);

	area_set_key(node_area(b), 0, 0);
	cv_seal(b);
}

static void node_torn(void) { cv_blk(child(cv.many, 0))[3000] ^= 1; }
static void node_zeroed(void) { memset(cv_blk(child(cv.dir, 0)), 0, CSV_BLOCK_SIZE); }
static void group_zeroed(void) { memset(cv_blk(csv_group_start(&cv.g, 1)), 0, CSV_BLOCK_SIZE); }
static void bitmap_of_other_group(void) { memcpy(cv_blk(csv_bitmap_blk(&cv.g, 1, 0)), cv_blk(csv_bitmap_blk(&cv.g, 0, 0)), CSV_BLOCK_SIZE); }
static void root_gone(void) { memset(cv_blk(cv.root), 0, CSV_BLOCK_SIZE); }
static void inode_of_other_volume(void) { mhdr_seal(cv_blk(cv.inl), (const uint8_t *)"another volume.."); }

static struct csv_dirent *entry_of(uint64_t dir, uint64_t ino)
{
	for (uint32_t i = 0; i < area_count(root_area(dir)); i++) {
		struct csv_dirent *d = item(root_area(dir), i);

		if (le64_get(d->ino) == ino)
			return d;
	}
	ck_abort_msg("no entry of inode %" PRIu64 " in %" PRIu64, ino, dir);
}

static void entry_to_free(void) { le64_set(&entry_of(cv.root, cv.inl)->ino, free_block()); cv_seal(cv.root); }
static void entry_to_super(void) { le64_set(&entry_of(cv.root, cv.inl)->ino, CSV_SB_BLOCK); cv_seal(cv.root); }
static void entry_type(void) { entry_of(cv.root, cv.inl)->type = S_IFDIR >> 12; cv_seal(cv.root); }
static void entry_gen(void) { le32_set(&entry_of(cv.root, cv.inl)->gen, 77777); cv_seal(cv.root); }
static void entry_name(void) { ((char *)(entry_of(cv.root, cv.inl) + 1))[0] = 'I'; cv_seal(cv.root); }
static void entry_slash(void) { ((char *)(entry_of(cv.root, cv.inl) + 1))[0] = '/'; cv_seal(cv.root); }
static void entry_to_root(void)
{
	struct csv_dirent *d = entry_of(cv.root, cv.dir);

	/* dir/... is a way back to the root: a circle */
	d = entry_of(cv.sub, cv.dev);
	le64_set(&d->ino, cv.g.root_ino);
	le32_set(&d->gen, le32_get(inode(cv.root)->gen));
	d->type = S_IFDIR >> 12;
	cv_seal(cv.sub);
}
static void nlink_less(void) { le32_set(&inode(cv.fixed)->nlink, 1); cv_seal(cv.fixed); }
static void nlink_more(void) { le32_set(&inode(cv.inl)->nlink, 2); cv_seal(cv.inl); }
static void dir_nlink(void) { le32_set(&inode(cv.dir)->nlink, 2); cv_seal(cv.dir); }
static void dir_parent(void) { le64_set(&inode(cv.sub)->parent, cv.root); cv_seal(cv.sub); }
static void dir_size(void) { le64_set(&inode(cv.dir)->size, 7); cv_seal(cv.dir); }
static void blocks_wrong(void) { le64_set(&inode(cv.many)->blocks, 1); cv_seal(cv.many); }
static void inline_too_long(void) { le32_set(&inode(cv.inl)->body_len, 1u << 30); cv_seal(cv.inl); }
static void link_nul(void) { inode(cv.link)->body_bytes[3] = 0; cv_seal(cv.link); }
static void gen_future(void) { le64_set(&inode(cv.inl)->h.generation, 1ull << 40); cv_seal(cv.inl); }
static void orphan_slot_other(void) { le32_set(&inode(cv.orphan)->orphan_slot, 1); cv_seal(cv.orphan); }
static void orphan_linked(void) { le32_set(&inode(cv.orphan)->nlink, 1); cv_seal(cv.orphan); }
static void orphan_unknown(void) { le32_set(&inode(cv.inl)->orphan_slot, 2); cv_seal(cv.inl); }
static void orphan_kind(void)
{
	uint64_t b = csv_orphan_blk(&cv.g, 0);

	le32_set(&((struct csv_orphan *)item((struct area){ inode(b)->body_bytes, CSV_BODY_BYTES }, 0))->kind, 9);
	cv_seal(b);
}
static void slot_twice(void)
{
	struct csv_slot_info s = { .state = CSV_SLOT_ACTIVE, .nodeid = 9, .incarnation = 1 };

	csv_slot_encode(&cv.g, 1, &s, cv_blk(csv_slot_blk(&cv.g, 1)));
	csv_slot_encode(&cv.g, 2, &s, cv_blk(csv_slot_blk(&cv.g, 2)));
}
static void journal_zeroed(void) { memset(cv_blk(csv_journal_blk(&cv.g, 2)), 0, CSV_BLOCK_SIZE); }
static void super_primary(void) { memset(cv_blk(CSV_SB_BLOCK), 0, CSV_BLOCK_SIZE); }
static void super_last(void) { cv_blk(cv.g.total_blk - 1)[40] ^= 1; }
static void super_differs(void)
{
	struct csv_geom g = cv.g;

	g.hash_key[0] ^= 1;
	csv_super_encode(&g, csv_super_blk(&g, 1), cv_blk(csv_super_blk(&g, 1)));
}

static const struct { const char *name; void (*fn)(void); const char *says; } damages[] = {
	{ "leaked data block", leak, "bitmap state data: must be free: nothing refers to it" },
	{ "leaked inode", lost_inode, "bitmap state inode: must be free: nothing refers to it" },
	{ "block in use marked free", freed_in_use, "bitmap state free: must be data: it is in use, and could be given away" },
	{ "inode marked as data", wrong_state, "bitmap state data: must be inode" },
	{ "two owners", two_owners, "in use by somebody else already" },
	{ "two owners, both named", two_owners, "used more than once: by inode " },
	{ "extent into metadata", into_metadata, "field phys = " },
	{ "extent into a journal", into_journal, "field phys = " },
	{ "extent beyond the device", beyond_device, "field phys = " },
	{ "extent of no length", len_zero, "field len = 0: must be 1..262144" },
	{ "extent of 4294967295 blocks", len_huge, "field len = 4294967295" },
	{ "extents that overlap", len_longer, "where the extent before ends" },
	{ "extent flag of another version", flag_unknown, "field flags = 0x2" },
	{ "logical block that wraps", key_wraps, "field key = 18446744073709551612" },
	{ "node reached twice", node_loop, "in use by somebody else already" },
	{ "node that is its own root", node_is_root, "in use by somebody else already" },
	{ "node of another inode", node_of_another, "owner_id" },
	{ "level does not fall by one", level_wrong, "field level = 0: must be 1, one below its parent" },
	{ "level 255", level_255, "field level = 255" },
	{ "key outside what the parent says", key_outside_parent, "as its parent says" },
	{ "torn node", node_torn, "crc" },
	{ "node of zeroes", node_zeroed, "magic 0x00000000" },
	{ "group header of zeroes", group_zeroed, "group 1: block" },
	{ "bitmap of another group", bitmap_of_other_group, "blkno" },
	{ "root directory of zeroes", root_gone, "root directory: block" },
	{ "block of another volume", inode_of_other_volume, "crc" },
	{ "entry to a free block", entry_to_free, "magic" },
	{ "entry to the superblock", entry_to_super, "ino 16: must be an inode in a group" },
	{ "entry of another type", entry_type, "field type = 4" },
	{ "entry of another generation", entry_gen, "field gen = 77777" },
	{ "entry under another hash", entry_name, "the hash of the name" },
	{ "entry with a slash", entry_slash, "without '/' and NUL" },
	{ "circle of directories", entry_to_root, "names the root directory" },
	{ "too few links", nlink_less, "field nlink = 1: must be 2" },
	{ "too many links", nlink_more, "field nlink = 2: must be 1" },
	{ "links of a directory", dir_nlink, "field nlink = 2: must be 3" },
	{ "wrong parent", dir_parent, "field parent = " },
	{ "wrong number of entries", dir_size, "field size = 7: must be 301" },
	{ "wrong number of blocks", blocks_wrong, "field blocks = 1: must be " },
	{ "inline data beyond the block", inline_too_long, "body_len 1073741824" },
	{ "symbolic link with a NUL", link_nul, "NUL" },
	{ "generation of the future", gen_future, "field next_generation = " },
	{ "orphan of another slot", orphan_slot_other, "field orphan_slot = 1: must be 0" },
	{ "orphan with a name", orphan_linked, "field nlink = 1: must be 0" },
	{ "orphan in no tree", orphan_unknown, "field orphan_slot = 2: the orphan tree of that slot has no such entry" },
	{ "orphan of an unknown kind", orphan_kind, "field kind = 9" },
	{ "one mount in two slots", slot_twice, "must be one slot a mount" },
	{ "journal of zeroes", journal_zeroed, "journal 2: block" },
	{ "superblock of zeroes", super_primary, "superblock in block 16" },
	{ "torn copy of the superblock", super_last, "copy of the superblock" },
	{ "copy of the superblock that differs", super_differs, "field hash_key: differs" },
};

/* All blocks but those of files, put back after each damage. */
static struct { uint64_t n, *blkno; uint8_t *data; } saved;

static void save(void)
{
	uint64_t n = 0;

	for (int pass = 0; pass < 2; pass++) {
		for (uint64_t b = n = 0; b < cv.g.total_blk; b++) {
			struct csv_bitmap_pos p;

			if (csv_bitmap_pos(&cv.g, b, &p)) {
				const struct csv_bitmap *m = (void *)cv_blk(csv_bitmap_blk(&cv.g, p.group, p.bitmap));
				enum csv_blk_state st = csv_bits_get(m->bits, p.entry);

				if (st == CSV_BLK_FREE || st == CSV_BLK_DATA)
					continue;
			}
			if (pass) {
				saved.blkno[n] = b;
				memcpy(saved.data + n * CSV_BLOCK_SIZE, cv_blk(b), CSV_BLOCK_SIZE);
			}
			n++;
		}
		if (!pass) {
			saved.blkno = calloc(n, sizeof(*saved.blkno));
			saved.data = calloc(n, CSV_BLOCK_SIZE);
		}
	}
	saved.n = n;
}

static void put_back(void)
{
	for (uint64_t i = 0; i < saved.n; i++)
		if (memcmp(cv_blk(saved.blkno[i]), saved.data + i * CSV_BLOCK_SIZE, CSV_BLOCK_SIZE))
			memcpy(cv_blk(saved.blkno[i]), saved.data + i * CSV_BLOCK_SIZE, CSV_BLOCK_SIZE);
}

static void save_free(void)
{
	free(saved.blkno);
	free(saved.data);
}

START_TEST(damage_made_by_hand_is_found_and_named)
{
	cv_populate_with_orphans();
	cv_check();
	CV_CLEAN();
	save();
	for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
		damages[i].fn();
		cv_check();
		ck_assert_msg(cv.r || cv.res.errors, "%s: not found", damages[i].name);
		ck_assert_msg(cv_says(damages[i].says), "%s: must say \"%s\", but says:\n%s", damages[i].name, damages[i].says, cv_lines());
		put_back();
	}
	cv_check();
	CV_CLEAN();
	printf("%zu kinds of damage\n", ARRAY_SIZE(damages));
	save_free();
	cv_teardown();
}
END_TEST

static void repair_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = check_repair_super(&n->blk, &n->err);
	n->done = true;
}

START_TEST(superblock_copies_are_repaired_from_a_good_one)
{
	cv_populate();
	super_primary();
	super_differs();
	cv_check();
	ck_assert(cv.res.super_bad);
	ck_assert_uint_eq(cv.res.errors, 2);
	cw_do(4, repair_coro);
	ck_assert_int_eq(cw_n(4)->ret, 2);
	cv_check();
	CV_CLEAN();
	ck_assert(!cv.res.super_bad);
	cv_teardown();
}
END_TEST

START_TEST(without_any_superblock_there_is_nothing_to_check)
{
	cv_populate();
	for (uint32_t i = 0; i < CSV_SUPER_COPIES; i++)
		memset(cv_blk(csv_super_blk(&cv.g, i)), 0, CSV_BLOCK_SIZE);
	cv_check();
	ck_assert_int_eq(cv.r, -EINVAL);
	CV_SAYS("not a csvfs volume");
	cv_teardown();
}
END_TEST

static struct { char who[160]; bool beat; } alive;

static void beater(void *arg)
{
	(void)arg;
	coro_sleep_ns(cw_n(4)->env.sched, NS_PER_SEC);
	if (alive.beat) {
		struct csv_hbeat_info h = { .incarnation = 5, .counter = 9, .nodeid = 3 };

		csv_hbeat_encode(&cv.g, 1, &h, cv_blk(csv_hbeat_blk(&cv.g, 1)));
	}
}

static void alive_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = check_alive(&n->blk, 3000, alive.who, sizeof(alive.who), &n->err);
	n->done = true;
}

START_TEST(a_heartbeat_that_changes_means_mounted)
{
	cv_populate();
	cw_boot(4);
	cw_do(4, alive_coro);
	ck_assert_int_eq(cw_n(4)->ret, 0);
	alive.beat = true;
	ck_assert_int_eq(sched_spawn(cw_n(4)->env.sched, "beat", beater, NULL), 0);
	cw_do(4, alive_coro);
	ck_assert_int_eq(cw_n(4)->ret, 1);
	ck_assert_msg(strstr(alive.who, "slot 1"), "%s", alive.who);
	cv_teardown();
}
END_TEST

UNIT_MAIN("check", UNIT_TEST(a_populated_volume_is_in_order_and_counted),
	  UNIT_TEST(a_crashed_volume_is_checked_as_replay_leaves_it_and_nothing_is_written),
	  UNIT_TEST(little_memory_takes_more_passes_and_finds_the_same), UNIT_SLOW(damage_made_by_hand_is_found_and_named, 0, 1, 60),
	  UNIT_TEST(superblock_copies_are_repaired_from_a_good_one), UNIT_TEST(without_any_superblock_there_is_nothing_to_check),
	  UNIT_TEST(a_heartbeat_that_changes_means_mounted))
