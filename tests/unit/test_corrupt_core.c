/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A mounted volume with damaged metadata (G6): bits flipped in every kind of block, with the checksum put right again, so that only what
 * the fields say can tell.  Every damage has a process of its own, which mounts the volume and calls everything there is.  What must come
 * of it: an end, no crash; and an error of damage names the block or the object and what it should be.
 */
#include "tests/unit/check_volume.h"

#include <signal.h>
#include <sys/wait.h>

#include "csvfs/btree_internal.h"

#ifndef FLIPS
#define FLIPS 24u		/* of one block; at least 20 are asked for */
#endif

static struct csv_prng prng;

enum { QUIET, TOLD, UNNAMED, HANGS };
static unsigned runs, of[4];

/* ---- one process: everything there is, whatever it answers --------------------------------------------------------------------------- */

static void change_all(struct csvfs *fs, uint64_t ino)
{
	static uint8_t buf[20000];
	struct csvfs_attr a;
	uint64_t off;
	int opened;

	cv_note(csvfs_setattr(fs, ino, 0, &(struct csvfs_attr){ .mode = 0600, .uid = 7 }, CSVFS_SET_MODE | CSVFS_SET_UID, &a));
	opened = csvfs_open(fs, ino, 0);
	cv_note(opened);
	cv_note(csvfs_write(fs, ino, 0, 10000, buf, sizeof(buf), false, &off));
	cv_note(csvfs_write(fs, ino, 0, 0, buf, 100, true, &off));
	cv_note(csvfs_fallocate(fs, ino, 0, 0, 1 << 20, 1 << 20));
	cv_note(csvfs_fallocate(fs, ino, 0, CSVFS_FALLOC_PUNCH_HOLE | CSVFS_FALLOC_KEEP_SIZE, 20000, 300000));
	cv_note(csvfs_fsync(fs, ino, 0, false));
	cv_note(csvfs_setattr(fs, ino, 0, &(struct csvfs_attr){ .size = 7000 }, CSVFS_SET_SIZE, &a));
	if (!opened)
		csvfs_release(fs, ino);
}

static void all_calls(struct csvfs *fs)
{
	const uint64_t list[] = { cv.root, cv.dir, cv.sub, cv.many, cv.big, cv.fixed, cv.inl, cv.link, cv.dev };
	struct csvfs_statfs st;
	struct csvfs_attr a;
	char name[64];

	cv_note(csvfs_statfs(fs, &st));
	for (unsigned i = 0; i < ARRAY_SIZE(list); i++)
		cv_read_all(fs, list[i], 65536, 1000);
	for (unsigned i = 0; i < 300; i += 7) {
		snprintf(name, sizeof(name), "a file with a name of some length %u", i);
		cv_note(csvfs_lookup(fs, cv.dir, 0, name, &a));
		cv_note(csvfs_unlink(fs, cv.dir, 0, name));
	}
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "a new name %u", i);
		cv_note(csvfs_create(fs, i % 2 ? cv.dir : cv.root, 0, name, i % 3 ? S_IFREG | 0600 : S_IFDIR | 0700, 1, 2, 0, false, &a));
	}
	cv_note(csvfs_link(fs, cv.inl, 0, cv.dir, 0, "third name", &a));
	cv_note(csvfs_rename(fs, cv.root, 0, "inline", cv.sub, 0, "moved", 0));
	cv_note(csvfs_rename(fs, cv.root, 0, "many extents", cv.dir, 0, "third name", 0));
	cv_note(csvfs_rename(fs, cv.dir, 0, "sub", cv.root, 0, "link", RENAME_EXCHANGE));
	for (unsigned i = 0; i < ARRAY_SIZE(list); i++)
		change_all(fs, list[i]);
	cv_note(csvfs_unlink(fs, cv.root, 0, "big"));
	cv_note(csvfs_unlink(fs, cv.root, 0, "second name"));
	cv_note(csvfs_rmdir(fs, cv.root, 0, "a new name 0"));
	cv_note(csvfs_sync(fs));
}

static bool ends(void (*fn)(void *arg))
{
	cw_start(1, fn);
	return cw_run(600000, cw_is_done, cw_n(1));
}

static void calls_coro(void *arg)
{
	struct cw_node *n = arg;

	all_calls(n->fs);
	n->done = true;
}

/*
 * Is what is damaged named: the block, or what it belongs to?  A number that leads elsewhere (an extent, an inode in a directory, the
 * superblock's places) is noticed there, and that place is named.
 */
static bool named(const char *object)
{
	static const char *const kind[] = { "block ", "inode ", "group ", "journal ", "orphan tree " };
	const char *const said[] = { cw.all_log, cw_n(1)->err.text };

	for (unsigned k = 0; k < ARRAY_SIZE(said); k++) {
		if (strstr(said[k], object))
			return true;
		for (unsigned i = 0; i < ARRAY_SIZE(kind); i++)
			for (const char *at = strstr(said[k], kind[i]); at; at = strstr(at + 1, kind[i]))
				if (at[strlen(kind[i])] >= '0' && at[strlen(kind[i])] <= '9')
					return true;
	}
	return false;
}

static int life(const char *object)
{
	cw.all_log[0] = 0;
	cw_boot(1);
	if (!ends(cw_mount_coro))
		return HANGS;
	if (cw_n(1)->ret)
		return named(object) ? TOLD : UNNAMED;
	if (!ends(calls_coro))
		return HANGS;
	cw_run(5000, NULL, NULL);		/* what goes on in the background */
	if (!ends(cw_umount_coro))
		return HANGS;
	cv_damaged |= cw_n(1)->ret == -CSV_E_CORRUPT;
	if (!cv_damaged)
		return QUIET;
	return named(object) ? TOLD : UNNAMED;
}

/* ---- damage --------------------------------------------------------------------------------------------------------------------------- */

static void one(const char *kind, uint64_t blkno, const char *object, uint32_t byte, uint32_t bit)
{
	const struct csv_mhdr *h = (void *)cv_blk(blkno);
	uint32_t magic = le32_get(h->magic);
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		alarm(60);
		cv_blk(blkno)[byte] ^= 1u << bit;
		mhdr_seal(cv_blk(blkno), magic == CSV_MAGIC_SUPER ? NULL : cv.g.uuid);
		status = life(object);
		if (status > TOLD || getenv("CW_VERBOSE"))
			fprintf(stderr, "%s\n%s\n", cw.all_log, cw_n(1)->err.text);
		_exit(status);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "%s: block %" PRIu64 ", byte %u, bit %u: a crash, signal %d", kind, blkno, byte, bit, WTERMSIG(status));
	ck_assert_msg(WEXITSTATUS(status) <= TOLD, "%s: block %" PRIu64 ", byte %u, bit %u: %s", kind, blkno, byte, bit,
		      WEXITSTATUS(status) == HANGS ? "no end" : WEXITSTATUS(status) == UNNAMED ? "damage is noticed, and what is damaged is not named" :
		      "a failed assertion");
	runs++;
	of[WEXITSTATUS(status)]++;
}

/* Half of the flips where the fields are, half anywhere up to `len`. */
static void flips(const char *kind, uint64_t blkno, const char *fmt, uint64_t id, uint32_t fields, uint32_t len)
{
	char object[40];

	snprintf(object, sizeof(object), fmt, id);
	for (uint32_t i = 0; i < FLIPS; i++)
		one(kind, blkno, object, sizeof(struct csv_mhdr) + csv_prng_below(&prng, (i % 2 ? len : fields) - sizeof(struct csv_mhdr)),
		    csv_prng_below(&prng, 8));
}

static void begin(uint64_t seed)
{
	csv_prng_init(&prng, seed);
	cv_populate();
}

static void end(const char *what)
{
	printf("%s: %u damages, %u told, %u without meaning for these calls\n", what, runs, of[TOLD], of[QUIET]);
	ck_assert_uint_ge(runs, 20);
	ck_assert_uint_gt(of[TOLD], 0);
	cv_teardown();
}

START_TEST(damaged_superblocks_and_slots)
{
	begin(1);
	flips("superblock", CSV_SB_BLOCK, "superblock", 0, sizeof(struct csv_super), sizeof(struct csv_super));
	flips("slot", csv_slot_blk(&cv.g, 0), "slot %" PRIu64, 0, sizeof(struct csv_slot), CSV_BLOCK_SIZE);
	flips("heartbeat", csv_hbeat_blk(&cv.g, 0), "heartbeat", 0, sizeof(struct csv_hbeat), CSV_BLOCK_SIZE);
	flips("journal header", csv_journal_blk(&cv.g, 0), "journal", 0, sizeof(struct csv_jhead), CSV_BLOCK_SIZE);
	end("superblock, slot, heartbeat, journal header");
}
END_TEST

START_TEST(damaged_groups_and_bitmaps)
{
	begin(2);
	flips("group", csv_group_start(&cv.g, 0), "group %" PRIu64, 0, sizeof(struct csv_group), CSV_BLOCK_SIZE);
	flips("bitmap", csv_bitmap_blk(&cv.g, 0, 0), "group %" PRIu64, 0, 200, CSV_BLOCK_SIZE);
	end("group header, bitmap");
}
END_TEST

START_TEST(damaged_inodes)
{
	const uint64_t *const list[] = { &cv.root, &cv.dir, &cv.many, &cv.big, &cv.fixed, &cv.inl, &cv.link, &cv.dev };

	begin(3);
	for (unsigned i = 0; i < ARRAY_SIZE(list); i++)
		flips("inode", *list[i], "inode %" PRIu64, *list[i], offsetof(struct csv_inode, body_bytes), offsetof(struct csv_inode, body_bytes) + 200);
	flips("orphan tree", csv_orphan_blk(&cv.g, 0), "orphan", 0, offsetof(struct csv_inode, body_bytes), offsetof(struct csv_inode, body_bytes) + 100);
	end("inodes");
}
END_TEST

START_TEST(damaged_tree_nodes)
{
	begin(4);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t owner = i % 2 ? cv.dir : cv.many;
		struct area a = { ((struct csv_inode *)cv_blk(owner))->body_bytes, CSV_BODY_BYTES };

		ck_assert_uint_gt(area_level(a), 0);
		flips("tree node", area_child(a, csv_prng_below(&prng, area_count(a))), "inode %" PRIu64, owner, offsetof(struct csv_btnode, area) + 120,
		      CSV_BLOCK_SIZE);
	}
	end("tree nodes");
}
END_TEST

UNIT_MAIN("corrupt_core", UNIT_SLOW(damaged_superblocks_and_slots, 0, 1, 120), UNIT_SLOW(damaged_groups_and_bitmaps, 0, 1, 120),
	  UNIT_SLOW(damaged_inodes, 0, 1, 240), UNIT_SLOW(damaged_tree_nodes, 0, 1, 120))
