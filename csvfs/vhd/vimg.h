/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vimg.h - a disk image, whatever its format: VHD and VHDX, fixed and dynamic.
 *
 * Pure: memory in, memory out.  Who uses it reads and writes the file, holds the locks, and keeps the order of writes (R36); the
 * places and the bytes come from here.  All numbers are bytes of the file or of the disk, if not said otherwise.
 *
 * Opening, for reading:				struct vimg_open *o = vimg_open_new(file_size);
 *	while ((rc = vimg_open_next(o, &rd, &err)) > 0)
 *		read rd.len bytes at rd.off into rd.buf;	(all of them lie inside the file)
 *	rc == 0: *vimg_open_image(o) is the image.  vimg_open_free(o).
 * vimg_open_replay(o) is then not NULL if a log must be replayed first.  All the above has been read *through* the log: what a reader
 * reads later of BAT and metadata it passes through vimg_replay_overlay(); a writer (nobody else has the image open) instead
 *	scans the BAT through the overlay (VI2: what is damaged stays untouched), writes every patch, makes the file at least replay->file_size long, FLUSH; writes vimg_header_new(), FLUSH; opens it again.
 * Doing it twice, or half and then again, gives the same.  (A reader takes what such a BAT has behind the file's end as zeroes.)
 *
 * Opening, for writing, additionally: vimg_may_write(); once for the whole cluster before the first write after nobody had it open:
 * vimg_header_new() written, FLUSH (VHDX: new file and data GUIDs; VHD: there is nothing to write).
 *
 * A block of the disk is found through its BAT entry:
 *	vimg_entry_off(v, block)	where its entry lies; vimg_sector_of() the sector of 512 bytes to be overwritten atomically
 *	vimg_entry_decode()		its state and place, believed only if inside the file and outside of what is not data
 *	virtual offset o = block * block_size + x is at entry.data_off + x while entry.state == VIMG_PRESENT; else it reads as zeroes
 * A fixed VHD has no BAT (v->has_bat false): offset o of the disk is offset o of the file.
 *
 * A dynamic VHD has a bitmap before each block's data, one bit a sector, highest bit first.  A sector whose bit is 0 reads as zeroes,
 * whatever lies there.  Blocks we make have all bits set.  Before a present block is used in place its bitmap (entry.bitmap_off,
 * v->bitmap_bytes) is read once; vimg_bitmap_is_full() true: nothing more to do, ever, as bits are never cleared.  Else (under
 * `vmap` EX): write zeroes to the sectors that vimg_bitmap_next_clear() names, FLUSH, write vimg_bitmap_full(), FLUSH.
 *
 * Adding n blocks, in R36's order:
 *  1	vimg_append(v, file_size, n, &at): block k's record is at.off + k * v->stride, at.file_size is the new size; reserve it.
 *	Or a free place from vimg_scan_place(): inside the file, so that size and footer stay.
 *  2	vimg_tail(v, at.file_size, &w) says what to write at the new end (VHD: the footer; VHDX: w.len is 0).  Write, FLUSH, commit size.
 *	The old footer is overwritten only in 3.
 *  3	for each: vimg_record_make(v, off, &e); write v->bitmap_bytes of vimg_bitmap_full() at e.bitmap_off (VHD; 0 bytes for VHDX), and
 *	block_size bytes of data at e.data_off (zeroes where the guest wrote nothing).  FLUSH.
 *  4	vimg_entry_encode(v, block, &e, raw) into the BAT sector, write that sector, FLUSH before a guest's flush is answered.
 * Freeing a block: encode one with state VIMG_ABSENT (reads as zeroes afterwards), FLUSH; then zeroes (a hole) for its place, as QEMU takes
 * what it finds behind the last block of a VHD for zeroes; then it may be used again.
 *
 * Invariants
 *  VI1 What vimg_open_next() and vimg_entry_decode() accept needs no further check: no arithmetic on it overflows, every place lies in
 *      the file and outside header, log, regions, BAT and footer.
 *  VI2 One entry is judged alone.  That no two blocks share a place is known after a vimg_scan of the whole BAT, and before an image is
 *      written it is made once.
 *  VI3 Outputs are written on success only.
 *
 * Codes: -EMEDIUMTYPE not an image at all; -CSV_E_CORRUPT damaged: field, value and what is allowed are named; -CSV_E_UNSUPPORTED
 * well-formed, but of a kind we do not do yet (differencing); -EROFS only for reading; -ENOMEM.
 */
#ifndef CSVFS_CSVFS_VHD_VIMG_H
#define CSVFS_CSVFS_VHD_VIMG_H

#include "csvfs/vhd/vhd_format.h"
#include "csvfs/vhd/vhdx_format.h"

enum vimg_format { VIMG_VHD, VIMG_VHDX };
enum vimg_type { VIMG_FIXED, VIMG_DYNAMIC, VIMG_DIFF };
const char *vimg_format_name(enum vimg_format f);	/* "vhd", "vhdx" */
const char *vimg_type_name(enum vimg_type t);		/* "fixed", "dynamic", "differencing" */

#define VIMG_SECTOR 512u
#define VIMG_AREAS_MAX 16u

/* A part of the file that is not data of blocks. */
struct vimg_area { uint64_t off, len; const char *name; };

struct vimg {
	enum vimg_format format;
	enum vimg_type type;
	bool has_parent;
	uint64_t virtual_size;
	uint32_t sector_size;		/* of the disk: 512 or 4096 */
	uint32_t physical_sector_size;
	uint8_t uuid[16];		/* VHD: of the footer; VHDX: page 83 identifier, bytes as in the file */

	bool has_bat;			/* the rest only then */
	uint32_t block_size;		/* a power of two */
	uint64_t blocks;		/* of the disk; the last one may be a part */
	uint64_t bat_off, bat_bytes;	/* that part of the BAT that is used: entries of all blocks (VHDX: and of bitmaps between them) */
	uint32_t entry_bytes;		/* VHD 4, VHDX 8 */
	uint32_t chunk_ratio;		/* VHDX: after so many blocks' entries comes one of a bitmap; VHD: 0 */
	uint32_t bitmap_bytes;		/* VHD: before each block's data, a multiple of 512; VHDX: 0 */
	uint32_t stride;		/* from one record (bitmap and data) to the next when several are appended */
	uint32_t n_areas;
	struct vimg_area area[VIMG_AREAS_MAX];	/* ascending.  VHD: the footer at the end is not one of them, see vimg_data_end() */

	bool log_dirty;			/* VHDX: there is a log to be replayed */
	uint64_t log_off;
	uint32_t log_bytes;

	/* What they were made from; who uses the image has no need to look here. */
	struct vhd_info vhd;
	uint8_t vhd_footer[VHD_FOOTER_BYTES];	/* as it is: also what we know nothing of is written again */
	struct vhdx_header vhdx_header;	/* the current one */
	unsigned vhdx_current;		/* it is number 0 or 1 */
	bool vhdx_other_bad;		/* the other header is not valid (as after a crash) */
	bool vhdx_region_bad;		/* one of the two region tables is not valid, or differs */
};

/* ---- opening ----------------------------------------------------------------------------------------------------------------- */

struct vimg_open;
struct vimg_read { uint64_t off; uint32_t len; void *buf; };
struct vimg_open *vimg_open_new(uint64_t file_size);		/* NULL: out of memory */
void vimg_open_free(struct vimg_open *o);
/* 1: read *ret_read, then call again.  0: it is an image.  < 0: the answer, with err; do not call again. */
int vimg_open_next(struct vimg_open *o, struct vimg_read *ret_read, struct csv_err *err) csv_must_check;
const struct vimg *vimg_open_image(const struct vimg_open *o);	/* after 0; lives as long as o: copy it */
const struct vimg_replay *vimg_open_replay(const struct vimg_open *o);	/* after 0; NULL: nothing to replay; lives as long as o */

/* Differencing ones: -CSV_E_UNSUPPORTED. */
int vimg_may_read(const struct vimg *v, struct csv_err *err) csv_must_check;
/* vimg_may_read(), and: -EROFS. */
int vimg_may_write(const struct vimg *v, struct csv_err *err) csv_must_check;

/* ---- log (VHDX) ---------------------------------------------------------------------------------------------------------------- */

/* Later ones win where they overlap: write them in order. */
struct vimg_patch { uint64_t off, len; const uint8_t *data; };	/* data NULL: zeroes */
struct vimg_replay {
	size_t n;
	struct vimg_patch *patch;
	uint64_t file_size;		/* the file is at least so long afterwards: a multiple of 1 MiB */
	uint8_t *mem;			/* what data points into */
};
/* `buf` was read at `off`: as it will be after the replay.  r NULL: nothing. */
void vimg_replay_overlay(const struct vimg_replay *r, uint64_t off, void *buf, size_t len);

/* ---- BAT ----------------------------------------------------------------------------------------------------------------------- */

enum vimg_state {
	VIMG_ABSENT,		/* reads as zeroes */
	VIMG_ZERO,		/* the same (VHDX): known to be zero */
	VIMG_UNMAPPED,		/* the same (VHDX): was trimmed, or never defined */
	VIMG_PRESENT,
	VIMG_PARTIAL,		/* of a differencing disk: some sectors are the parent's */
};
struct vimg_entry {
	enum vimg_state state;
	uint64_t data_off;	/* VIMG_PRESENT, VIMG_PARTIAL.  Others: 0, or (VHDX) space that this block still owns */
	uint64_t bitmap_off;	/* VHD, present: its bitmap; else 0 */
};
/* block < v->blocks */
uint64_t vimg_entry_off(const struct vimg *v, uint64_t block);
static inline uint64_t vimg_sector_of(uint64_t entry_off) { return entry_off - entry_off % VIMG_SECTOR; }
/* The blocks whose entries lie in `len` bytes of the BAT at `off`; both multiples of the entry's size.  *ret_n may be 0. */
void vimg_blocks_at(const struct vimg *v, uint64_t off, uint64_t len, uint64_t *ret_first, uint64_t *ret_n);
/* `raw`: v->entry_bytes.  `file_size`: as it is now. */
int vimg_entry_decode(const struct vimg *v, uint64_t file_size, uint64_t block, const void *raw, struct vimg_entry *ret,
		      struct csv_err *err) csv_must_check;
/* The entry is one that vimg_entry_decode() would accept. */
void vimg_entry_encode(const struct vimg *v, uint64_t block, const struct vimg_entry *e, void *ret_raw);
/* Bytes of the disk in this block: block_size but for the last. */
uint64_t vimg_block_len(const struct vimg *v, uint64_t block);

/* ---- bitmaps (VHD dynamic) -------------------------------------------------------------------------------------------------------- */

bool vimg_bitmap_is_full(const struct vimg *v, const void *bitmap);
/* Sectors of the block from `sector` on whose bit is 0.  False: there are none. */
bool vimg_bitmap_next_clear(const struct vimg *v, const void *bitmap, uint32_t sector, uint32_t *ret_sector, uint32_t *ret_n);
void vimg_bitmap_full(const struct vimg *v, void *ret_bitmap);

/* ---- adding blocks ------------------------------------------------------------------------------------------------------------------ */

struct vimg_place { uint64_t off, file_size; };
/* -EFBIG: the format cannot say places so far out.  `file_size` is that of a whole image (VHD: its footer at the end). */
int vimg_append(const struct vimg *v, uint64_t file_size, uint32_t n, struct vimg_place *ret, struct csv_err *err) csv_must_check;
/* The entry (state VIMG_PRESENT) of a block whose record is at `off`. */
void vimg_record_make(const struct vimg *v, uint64_t off, struct vimg_entry *ret);
/* First byte behind the last that can hold data of blocks: VHD: where the footer is; VHDX: file_size. */
uint64_t vimg_data_end(const struct vimg *v, uint64_t file_size);

#define VIMG_WRITE_MAX 4096u
struct vimg_write { uint64_t off; uint32_t len; uint8_t data[VIMG_WRITE_MAX]; };	/* len 0: nothing to write */
/* What a file of so many bytes has at its end. */
void vimg_tail(const struct vimg *v, uint64_t file_size, struct vimg_write *ret);
/*
 * A change of the header: the log is empty, GUIDs as given (data_guid NULL: the disk's content does not change; not so after a replay of
 * its log or before a guest writes).  `v` then has the new header: the next call gives the next one.  VHD: ret->len is 0.
 */
int vimg_header_new(struct vimg *v, const uint8_t file_guid[static 16], const uint8_t *data_guid, struct vimg_write *ret,
		    struct csv_err *err) csv_must_check;

/* ---- the whole BAT ------------------------------------------------------------------------------------------------------------------ */

/* Where all blocks are: none overlaps another, and what is free between them.  Memory: VHDX 1 bit a MiB of file, VHD 4 bytes a block. */
struct vimg_scan;
struct vimg_usage {
	uint64_t present;		/* blocks */
	uint64_t free_bytes;		/* space that nothing refers to: leaked by a crash, or freed; places too small for a block (VHD) not */
	uint64_t free_blocks;		/* as many blocks find a place in it */
	uint64_t data_end;		/* behind the last block's record, or behind the last area */
};
struct vimg_scan *vimg_scan_new(const struct vimg *v, uint64_t file_size);	/* NULL: out of memory; `v` must outlive it */
void vimg_scan_free(struct vimg_scan *s);
/* The BAT's next bytes, from v->bat_off to v->bat_off + v->bat_bytes, in pieces that are multiples of the entry's size. */
int vimg_scan_feed(struct vimg_scan *s, const void *raw, size_t len, struct csv_err *err) csv_must_check;
int vimg_scan_end(struct vimg_scan *s, struct vimg_usage *ret, struct csv_err *err) csv_must_check;
/* After vimg_scan_end(): a free place for one record, which is then taken.  False: there is none, append. */
bool vimg_scan_place(struct vimg_scan *s, uint64_t *ret_off);
/* The place of a block that was freed is free (VHD: its bitmap's offset). */
void vimg_scan_free_place(struct vimg_scan *s, uint64_t off);
/* After an append: the file is `file_size` long now, the places added are in use. */
int vimg_scan_grown(struct vimg_scan *s, uint64_t file_size) csv_must_check;	/* 0, -ENOMEM */

/* ---- making --------------------------------------------------------------------------------------------------------------------------- */

struct vimg_spec {
	enum vimg_format format;
	enum vimg_type type;		/* VIMG_FIXED, VIMG_DYNAMIC */
	uint64_t size;			/* of the disk */
	uint32_t block_size;		/* 0: the usual (2 MiB; VHDX of more than 4 TiB: 32 MiB) */
	uint32_t sector_size;		/* VHDX: 512 or 4096; 0: 512 */
	uint8_t guid[3][16];		/* random.  VHD: [0] is its uuid; VHDX: page 83, file write, data write */
	int64_t now_s;
};
struct vimg_made {
	uint64_t file_size;
	uint64_t data_off;		/* fixed: where the disk's bytes begin, all behind one another (to be allocated); dynamic: 0 */
	size_t n;
	struct vimg_patch *patch;	/* to be written into an empty file; what is not written is zero */
	uint8_t *mem;
	struct vimg image;
};
/* -EINVAL: it cannot be, with err beginning with the name of the option ("size ...", "block-size ..."). */
int vimg_make(const struct vimg_spec *spec, struct vimg_made *ret, struct csv_err *err) csv_must_check;
void vimg_made_done(struct vimg_made *m);

#endif
