/*
 * csvfs_format.h - the disk format, layout only.  All integers little-endian in one-member structs (le16_get() ...).
 *
 *	block 0..15	left alone (boot sector, partition table)
 *	block 16	superblock (64 KiB); copies: the last block of the device and the block before data_start
 *	then		slot-state blocks, one a slot (512 bytes used, atomic; only under slot EX; never journaled)
 *	then		heartbeat blocks, one a slot (512 bytes used; only by the slot's owner)
 *	then		orphan inodes, one a slot (metadata, journaled, owner = orphan s)
 *	then		journals, one a slot, contiguous
 *	data_start	allocation groups of CSV_GROUP_BLOCKS blocks: header, bitmap blocks, then data, metadata and inodes
 *
 * Every metadata block begins with struct csv_mhdr: verified before anything else of it is believed.
 * An inode's number is the number of its block (< 2^40) and is believed only where the bitmap says "inode".
 *
 * Version table
 *  1  first version
 */
#ifndef CSVFS_CSVFS_FORMAT_H
#define CSVFS_CSVFS_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "utils/base/base.h"

#define CSV_BLOCK_SIZE 4096u
#define CSV_BLOCK_SHIFT 12
#define CSV_SB_BLOCK 16u
#define CSV_FORMAT_VERSION 1u
#define CSV_SLOTS_MAX 64u
#define CSV_GROUP_BLOCKS 262144u	/* 1 GiB */
#define CSV_BITMAP_BYTES (CSV_BLOCK_SIZE - 64u)
#define CSV_BITMAP_BLOCKS_COVERED (CSV_BITMAP_BYTES * 4u)	/* 16128 two-bit entries */
#define CSV_GROUP_BITMAPS 17u
#define CSV_GROUP_FIRST_FREE (1u + CSV_GROUP_BITMAPS)		/* header and bitmaps occupy the first blocks of a group */
#define CSV_INO_MAX (1ull << 40)
#define CSV_NAME_MAX 255u
#define CSV_SYMLINK_MAX 4095u
#define CSV_LINK_MAX 65000u
#define CSV_FILE_SIZE_MAX (1ull << 60)

/* ---- field lists: one description of every structure feeds declaration, offset checks, dump and doc/format.md --------- */
/* S(type, name, text): one little-endian integer.  A(type, name, count, text): array.                                     */
#define CSV_DECL_S(t, n, text) t n;
#define CSV_DECL_A(t, n, c, text) t n[c];
#define CSV_STRUCT(name, FIELDS) struct name { FIELDS(CSV_DECL_S, CSV_DECL_A) }

/* What lock covers a block: (resource type, id). */
enum csv_owner_type {
	CSV_OWN_NONE = 0, CSV_OWN_SLOT = 1, CSV_OWN_INODE = 2, CSV_OWN_GROUP = 3, CSV_OWN_OPEN = 4, CSV_OWN_VMAP = 5, CSV_OWN_VNEG = 6,
	CSV_OWN_MOUNT = 7, CSV_OWN_RENAME = 8, CSV_OWN_ORPHAN = 9, CSV_OWN_REPLAY = 10, CSV_OWN_PLOCK = 11, CSV_OWN_USE = 12,
	CSV_OWN_TYPES = 13,
};
struct csv_owner { uint32_t type; uint64_t id; };

#define CSV_MAGIC_SUPER   0x53565343u	/* "CSVS" */
#define CSV_MAGIC_GROUP   0x47565343u	/* "CSVG" */
#define CSV_MAGIC_BITMAP  0x42565343u	/* "CSVB" */
#define CSV_MAGIC_INODE   0x49565343u	/* "CSVI" */
#define CSV_MAGIC_BTNODE  0x54565343u	/* "CSVT" */
#define CSV_MAGIC_SLOT    0x4c565343u	/* "CSVL" */
#define CSV_MAGIC_HBEAT   0x48565343u	/* "CSVH" */
#define CSV_MAGIC_JDESC   0x44565343u	/* "CSVD" journal descriptor */
#define CSV_MAGIC_JCOMMIT 0x43565343u	/* "CSVC" journal commit */
#define CSV_MAGIC_JHEAD   0x4a565343u	/* "CSVJ" journal header */

/* crc = crc32c over the whole block with this field zero, seeded with crc32c(0, uuid). */
#define CSV_MHDR_FIELDS(S, A) \
	S(struct le32, magic, "CSV_MAGIC_*") \
	S(struct le32, crc, "crc32c of the block, this field zero, seeded with the volume's uuid") \
	S(struct le64, blkno, "own block number") \
	S(struct le64, generation, "life of this block: the group's counter at allocation") \
	S(struct le64, seq, "logged changes in this life") \
	S(struct le32, owner_type, "enum csv_owner_type: whose lock covers it") \
	S(struct le32, reserved0, "0") \
	S(struct le64, owner_id, "inode, group or slot number") \
	A(struct le64, reserved1, 2, "0")
CSV_STRUCT(csv_mhdr, CSV_MHDR_FIELDS);
csv_static_assert(sizeof(struct csv_mhdr) == 64, "csv_mhdr");

/* ---- superblock (owner mount) ------------------------------------------------------------------------------------------ */
#define CSV_SUPER_FIELDS(S, A) \
	S(struct csv_mhdr, h, "") \
	A(uint8_t, uuid, 16, "of the volume; seeds every crc (the superblock's own crc is seeded with 0)") \
	A(uint8_t, label, 32, "UTF-8, zero-filled") \
	S(struct le32, version, "CSV_FORMAT_VERSION") \
	S(struct le32, block_size, "4096") \
	S(struct le64, compat, "features that any program may ignore") \
	S(struct le64, ro_compat, "unknown bit: read-only") \
	S(struct le64, incompat, "unknown bit: refuse") \
	S(struct le64, total_blk, "blocks of the volume") \
	S(struct le64, data_start_blk, "first allocation group") \
	S(struct le32, groups, "number of groups; the last may be short") \
	S(struct le32, slots, "number of slots, 1..64") \
	S(struct le64, slot_start_blk, "slot-state blocks") \
	S(struct le64, hbeat_start_blk, "heartbeat blocks") \
	S(struct le64, orphan_start_blk, "orphan inodes") \
	S(struct le64, journal_start_blk, "journals") \
	S(struct le32, journal_blk, "blocks of one journal") \
	S(struct le32, min_io, "512 or 4096: smallest in-place write the volume was made for") \
	S(struct le64, root_ino, "inode of the root directory") \
	S(struct le64, system_ino, "inode of the system directory, 0 when none") \
	S(struct le64, lockspace, "lockspace id, from the uuid") \
	A(uint8_t, hash_key, 16, "SipHash key of directory names") \
	S(struct le64, mkfs_time_ns, "real time of mkfs") \
	S(struct le32, protocol_level, "lowest protocol level that may mount") \
	S(struct le32, journal_level, "journal format level")
CSV_STRUCT(csv_super, CSV_SUPER_FIELDS);

/* ---- slots ---------------------------------------------------------------------------------------------------------------- */
enum csv_slot_state { CSV_SLOT_FREE = 0, CSV_SLOT_ACTIVE = 1 };
#define CSV_SLOT_FIELDS(S, A) \
	S(struct csv_mhdr, h, "crc covers the first 512 bytes only: a 512-byte write is atomic") \
	S(struct le32, state, "enum csv_slot_state") \
	S(struct le32, nodeid, "owner, or last owner") \
	S(struct le64, incarnation, "raised at every change of state") \
	S(struct le64, since_real_ns, "for people") \
	S(struct le32, proof_kind, "how the last owner was proven gone: 0 own release, 1 agent, 2 process, 3 rejoin, 4 operator, 5 withdraw; 6 not yet: of an ACTIVE slot, who replays its log") \
	S(struct le32, proof_nodeid, "whose node that was") \
	S(struct le64, proof_incarnation, "and which life") \
	A(uint8_t, node_name, 64, "for people")
CSV_STRUCT(csv_slot, CSV_SLOT_FIELDS);
csv_static_assert(sizeof(struct csv_slot) <= 512, "slot state is one atomic sector");

#define CSV_HBEAT_FIELDS(S, A) \
	S(struct csv_mhdr, h, "crc covers the first 512 bytes only") \
	S(struct le64, incarnation, "of the writer") \
	S(struct le64, counter, "beats") \
	S(struct le32, flags, "1: watchdog armed") \
	S(struct le32, nodeid, "writer")
CSV_STRUCT(csv_hbeat, CSV_HBEAT_FIELDS);
csv_static_assert(sizeof(struct csv_hbeat) <= 512, "heartbeat is one atomic sector");

/* ---- allocation groups (owner group g) -------------------------------------------------------------------------------------- */
#define CSV_GROUP_FIELDS(S, A) \
	S(struct csv_mhdr, h, "") \
	S(struct le32, group, "own number") \
	S(struct le32, blocks, "blocks of this group, header and bitmaps included") \
	S(struct le32, free_blk, "free blocks") \
	S(struct le32, largest_run, "hint: length of the longest free run found last") \
	S(struct le64, next_generation, "counter that gives every allocated metadata block its generation; bumped under group EX") \
	S(struct le32, inodes, "blocks with state inode") \
	S(struct le32, flags, "0") \
	S(struct le64, refcount_root, "0 (reserved)")
CSV_STRUCT(csv_group, CSV_GROUP_FIELDS);

enum csv_blk_state { CSV_BLK_FREE = 0, CSV_BLK_DATA = 1, CSV_BLK_META = 2, CSV_BLK_INODE = 3 };
#define CSV_BITMAP_FIELDS(S, A) \
	S(struct csv_mhdr, h, "") \
	A(uint8_t, bits, CSV_BITMAP_BYTES, "two bits a block, lowest first: enum csv_blk_state")
CSV_STRUCT(csv_bitmap, CSV_BITMAP_FIELDS);
csv_static_assert(sizeof(struct csv_bitmap) == CSV_BLOCK_SIZE, "csv_bitmap");

/* ---- inodes (owner inode i; orphan inodes: owner orphan s) ------------------------------------------------------------------- */
enum csv_inode_flag { CSV_INO_IMAGE = 1u << 0, CSV_INO_IMMUTABLE = 1u << 1, CSV_INO_ORPHANS = 1u << 2 /* the orphan tree of a slot */ };
#define CSV_INODE_FLAGS_KNOWN 7u
enum csv_body { CSV_BODY_NONE = 0, CSV_BODY_INLINE = 1, CSV_BODY_TREE = 2 };
#define CSV_NO_SLOT 0xffffffffu
#define CSV_BODY_BYTES 3776u
#define CSV_INODE_FIELDS(S, A) \
	S(struct csv_mhdr, h, "generation doubles as the block's life") \
	S(struct le32, gen, "inode generation for handles, never 0") \
	S(struct le32, mode, "type and permissions") \
	S(struct le32, uid, "") S(struct le32, gid, "") \
	S(struct le32, nlink, "0: orphan") \
	S(struct le32, flags, "enum csv_inode_flag") \
	S(struct le64, size, "bytes; directory: number of entries") \
	S(struct le64, blocks, "4 KiB blocks held: data, tree nodes, the inode itself not") \
	S(struct le64, atime_ns, "signed ns since 1970") S(struct le64, mtime_ns, "") S(struct le64, ctime_ns, "") S(struct le64, btime_ns, "") \
	S(struct le64, change, "raised at every metadata change") \
	S(struct le64, map_version, "raised when the mapping changes") \
	S(struct le64, parent, "directory: inode of its parent") \
	S(struct le64, rdev, "device files") \
	S(struct le32, orphan_slot, "whose orphan tree holds it; CSV_NO_SLOT") \
	S(struct le32, project, "project id") \
	S(struct le32, body, "enum csv_body") \
	S(struct le32, body_len, "bytes used inline (data or symlink target)") \
	S(struct le64, xattr_blk, "0 (reserved)") \
	A(struct le64, reserved, 16, "0") \
	A(uint8_t, body_bytes, CSV_BODY_BYTES, "inline data, symlink target, or the root of the inode's tree")
CSV_STRUCT(csv_inode, CSV_INODE_FIELDS);
csv_static_assert(sizeof(struct csv_inode) == CSV_BLOCK_SIZE, "csv_inode");
csv_static_assert(offsetof(struct csv_inode, body_bytes) == CSV_BLOCK_SIZE - CSV_BODY_BYTES, "csv_inode body");

/* ---- B+tree: root inline in an inode's body, nodes in blocks of their own (owner = the inode's resource) ----------------------- */
/*
 * An area = csv_bt_head, then `count` csv_bt_slot sorted by key (unique), then free space, then values packed at the end
 * (heap_off..area size).  level 0 = leaf: values are the tree's own; level > 0: value = le64 block of the child whose keys are
 * >= key (the first child also takes smaller keys).
 */
#define CSV_BT_HEAD_FIELDS(S, A) \
	S(struct le16, level, "0 = leaf; at most CSV_BT_LEVELS - 1") \
	S(struct le16, count, "slots in use") \
	S(struct le16, heap_off, "first byte of the value heap, from the start of the area") \
	S(struct le16, garbage, "bytes in the heap that no slot refers to") \
	S(struct le32, kind, "enum csv_bt_kind") \
	S(struct le32, reserved, "0")
CSV_STRUCT(csv_bt_head, CSV_BT_HEAD_FIELDS);
#define CSV_BT_SLOT_FIELDS(S, A) \
	S(struct le64, key, "") \
	S(struct le16, off, "of the value, from the start of the area") \
	S(struct le16, len, "of the value") \
	S(struct le32, reserved, "0")
CSV_STRUCT(csv_bt_slot, CSV_BT_SLOT_FIELDS);
#define CSV_BT_LEVELS 8
#define CSV_BT_VALUE_MAX 512u
enum csv_bt_kind { CSV_BT_EXTENTS = 1, CSV_BT_DIR = 2, CSV_BT_ORPHANS = 3, CSV_BT_XATTR = 4 };
#define CSV_BT_NODE_AREA (CSV_BLOCK_SIZE - 64u)
#define CSV_BTNODE_FIELDS(S, A) \
	S(struct csv_mhdr, h, "") \
	A(uint8_t, area, CSV_BT_NODE_AREA, "csv_bt_head, slots, values")
CSV_STRUCT(csv_btnode, CSV_BTNODE_FIELDS);
csv_static_assert(sizeof(struct csv_btnode) == CSV_BLOCK_SIZE, "csv_btnode");

/* CSV_BT_EXTENTS: key = first logical block. */
enum csv_ext_flag { CSV_EXT_UNWRITTEN = 1, CSV_EXT_SHARED = 2, CSV_EXT_CSUM = 4, CSV_EXT_COMPRESSED = 8 };
#define CSV_EXT_FLAGS_KNOWN 1u
#define CSV_EXTENT_FIELDS(S, A) \
	S(struct le64, phys, "first block on the device") \
	S(struct le32, len, "blocks, 1..CSV_GROUP_BLOCKS") \
	S(struct le32, flags, "enum csv_ext_flag; unknown or reserved: refuse to write")
CSV_STRUCT(csv_extent, CSV_EXTENT_FIELDS);

/* CSV_BT_DIR: key = SipHash-2-4(name) : 55 bits << 8 | index (collisions), top bit 0.  Cookies 0..2 are reserved. */
#define CSV_DIRENT_FIELDS(S, A) \
	S(struct le64, ino, "inode number") \
	S(struct le32, gen, "its generation") \
	S(uint8_t, type, "mode >> 12") \
	S(uint8_t, name_len, "1..255; the name follows, not terminated") \
	S(struct le16, reserved, "0")
CSV_STRUCT(csv_dirent, CSV_DIRENT_FIELDS);

/* CSV_BT_ORPHANS: key = inode number. */
enum csv_orphan_kind { CSV_ORPHAN_UNLINKED = 1, CSV_ORPHAN_TRUNCATE = 2 };
#define CSV_ORPHAN_FIELDS(S, A) \
	S(struct le32, gen, "inode generation") \
	S(struct le32, kind, "enum csv_orphan_kind") \
	S(struct le64, target, "truncate: the size to reach") \
	S(struct le64, step, "where the work stands; 0 at first")
CSV_STRUCT(csv_orphan, CSV_ORPHAN_FIELDS);

/* ---- journal (one a slot) --------------------------------------------------------------------------------------------------------- */
/* Block 0 of a journal: header. Then records: descriptor block(s), images, commit block; circular over blocks 1..len-1. */
#define CSV_JHEAD_FIELDS(S, A) \
	S(struct csv_mhdr, h, "owner slot s") \
	S(struct le64, incarnation, "of the slot's life this log belongs to") \
	S(struct le64, first_seq, "sequence of the record at tail_blk") \
	S(struct le32, tail_blk, "where replay starts, 1..len-1") \
	S(struct le32, len_blk, "blocks of this journal") \
	S(struct le32, level, "journal format level") \
	S(struct le32, incompat, "unknown bit: refuse")
CSV_STRUCT(csv_jhead, CSV_JHEAD_FIELDS);

#define CSV_JTAG_FIELDS(S, A) \
	S(struct le64, blkno, "home of the block, or the block that is revoked") \
	S(struct le32, owner_type, "") \
	S(struct le32, crc, "crc32c of the image (0 for a revoke)") \
	S(struct le64, owner_id, "") \
	S(struct le64, generation, "") \
	S(struct le64, seq, "") \
	S(struct le32, flags, "1: revoke, no image follows") \
	S(struct le32, reserved, "0")
CSV_STRUCT(csv_jtag, CSV_JTAG_FIELDS);
#define CSV_JTAG_REVOKE 1u
#define CSV_JDESC_FIELDS(S, A) \
	S(struct csv_mhdr, h, "magic CSVD, owner slot s, seq = record sequence, blkno = own place on the device") \
	S(struct le64, incarnation, "") \
	S(struct le64, record_seq, "") \
	S(struct le32, tags, "tags in this block") \
	S(struct le32, images, "images of the whole record (first descriptor), else 0") \
	S(struct le32, descs, "descriptor blocks of the record (first), else 0") \
	S(struct le32, index, "of this descriptor in the record")
CSV_STRUCT(csv_jdesc, CSV_JDESC_FIELDS);
#define CSV_JDESC_TAGS ((CSV_BLOCK_SIZE - sizeof(struct csv_jdesc)) / sizeof(struct csv_jtag))
#define CSV_JCOMMIT_FIELDS(S, A) \
	S(struct csv_mhdr, h, "magic CSVC") \
	S(struct le64, incarnation, "") \
	S(struct le64, record_seq, "") \
	S(struct le64, stable_seq, "highest record known to be flushed when this one was written") \
	S(struct le32, tail_blk, "oldest record still needed") \
	S(struct le32, record_blk, "blocks of this record, this one included") \
	S(struct le64, tail_seq, "its sequence") \
	S(struct le32, record_crc, "crc32c of all blocks of the record before this one") \
	S(struct le32, reserved, "0")
CSV_STRUCT(csv_jcommit, CSV_JCOMMIT_FIELDS);

/* ---- directory of lock names: 12 bytes, type then id ---------------------------------------------------------------------------- */
#define CSV_LOCKNAME_LEN 12u

/* Value block of inode i (DLM_LVB_LEN bytes): what `stat` needs, valid only with the right version and generation. */
#define CSV_LVB_VERSION 1u
#define CSV_LVB_INODE_FIELDS(S, A) \
	S(struct le32, version, "CSV_LVB_VERSION") S(struct le32, gen, "") S(struct le64, size, "") S(struct le64, mtime_ns, "") S(struct le64, ctime_ns, "") S(struct le64, atime_ns, "") \
	S(struct le64, change, "") S(struct le64, map_version, "") S(struct le64, blocks, "") S(struct le64, rdev, "") S(struct le64, btime_ns, "") \
	S(struct le32, mode, "") S(struct le32, nlink, "") S(struct le32, uid, "") S(struct le32, gid, "") S(struct le32, flags, "") S(struct le32, reserved, "0")
CSV_STRUCT(csv_lvb_inode, CSV_LVB_INODE_FIELDS);
csv_static_assert(sizeof(struct csv_lvb_inode) <= 128, "inode value block");
#define CSV_LVB_GROUP_FIELDS(S, A) \
	S(struct le32, version, "CSV_LVB_VERSION") S(struct le32, free_blk, "") S(struct le32, largest_run, "") S(struct le32, unlinked, "") S(struct le64, seq, "")
CSV_STRUCT(csv_lvb_group, CSV_LVB_GROUP_FIELDS);

#endif
