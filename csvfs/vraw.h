/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vraw.h - the disk inside an image, as its raw view shows it (internal to csvfs/; the calls for the daemon are csvfs_disk_*() of csvfs.h).
 *
 * A fixed VHD is its file, cut at the size of the disk.  Every other image has a block map in the file (BAT): blocks of the disk that are
 * present are bytes of the file, read and written under the file's own lock like any others; the rest reads as zeros until it is written.
 *
 *	vraw.c		opening and closing, log replay		vraw_bat.c	the BAT as this node knows it
 *	vraw_io.c	reading, writing, zeroing		vraw_alloc.c	adding blocks, in batches
 *	vraw_page.c	what the data plane may do by itself	vraw_grow.c	room at the end of the file
 *
 * Locks (R37), in their order:
 *	vmap CW	entries that are present stay as they are: every operation here, and every map of the data plane, rests on it
 *	vmap EX	entries are changed or removed, the log is replayed, a block's bitmap completed
 *	vneg PR	what is absent stays absent		vneg EX	entries are added, the end of the file moves, headers are written
 *	inode	where the file's bytes are; CW in place, EX while the file grows
 *
 * Invariants
 *  VR1 What is cached of the BAT as present is so while vmap is held here in any mode; as absent while vneg is, too.  Both hooks below
 *      forget it before the lock leaves.
 *  VR2 A map of the data plane rests on vmap (vmap hook), on the inode's lock (inode_dp_revoke) and on the view being open here; it is
 *      built while all are held and goes with the first that goes, gate closed and drained.
 *  VR3 Order of writes when a block is added (R36): zeros and the file's new size, FLUSH -> bitmap and data -> one sector of the BAT.  So
 *      after a crash the BAT names only blocks that hold what was written to them or zeros, and what it does not name is free.
 *  VR4 Blocks of the file behind its end belong to whoever holds vneg EX: they are zeroed and given back under it only.
 *  VR5 vneg's value block says where the zeroed room at the end begins, or nothing; it is kept true while EX is held.
 */
#ifndef CSVFS_CSVFS_VRAW_H
#define CSVFS_CSVFS_VRAW_H

#include "csvfs/inode.h"
#include "csvfs/vhd/vimg.h"

struct vraw_chunk;
struct vraw_add;

struct vraw {
	struct csvfs *fs;
	struct inode *ip;
	struct vimg img;
	char who[320];			/* for the log: "image vms/web1/disk.vhdx (inode 77)", or without the path */
	bool writable;			/* checked as a whole, and opened for writing here */
	struct vimg_open *dirty;	/* read-only mount: a log that was not replayed and hides what lies in the file; else NULL */

	/* vraw_bat.c */
	uint64_t file_size;		/* at least what it was when the latest part of the BAT was read */
	struct vraw_chunk **chunk;
	uint32_t n_chunks, loaded;
	uint64_t neg_epoch;		/* changes when vneg leaves */
	uint8_t *full;			/* VHD, a bit a block: its bitmap is known to be full */

	/* vraw_page.c */
	unsigned page_shift;

	/* vraw_alloc.c; but the queue: under vneg EX */
	struct cds_list_head adds;	/* struct vraw_add, waiting */
	bool adding;			/* a coroutine works it off */
	struct waitq add_wq;
	bool space_known;
	struct vimg_scan *scan;		/* places inside the file that nothing refers to; NULL: none, or not looked for */
	uint64_t room_off;		/* zeroed room at the end: records from there on */
	uint32_t room_n;
};

/* vraw.c */
extern const struct glock_ops vraw_vmap_ops, vraw_vneg_ops;
/* The last raw opener of this node has gone (image.c).  Awaits the drain. */
void vraw_close(struct inode *ip);
/* Is the file seen through a block map while its view is open here? */
static inline bool vraw_is_mapped(const struct vraw *v) { return v && v->img.has_bat; }
/* Bytes of the file; all of them or an error (-CSV_E_CORRUPT: it is shorter). */
int vraw_file_read(struct vraw *v, uint64_t off, void *buf, uint64_t len);
int vraw_file_write(struct vraw *v, uint64_t off, const void *buf, uint64_t len);	/* buf NULL: zeros */
int vraw_flush(struct vraw *v);		/* what was written and committed here is durable */
/* An entry, bitmap or BAT is damaged: once a line in the log; returns `err`. */
int vraw_damaged(struct vraw *v, const struct csv_err *err);

/* vraw_bat.c: vmap is held */
int vraw_bat_init(struct vraw *v);
void vraw_bat_done(struct vraw *v);
void vraw_bat_forget(struct vraw *v);		/* all of it; must not await */
/*
 * The entry of a block.  `neg`: the caller holds vneg >= PR.  -EAGAIN (only without): not known to be present, and what is absent cannot
 * be said without vneg.
 */
int vraw_entry(struct vraw *v, uint64_t block, bool neg, struct vimg_entry *ret);
/* As far as it is in memory; false: not. */
bool vraw_entry_cached(struct vraw *v, uint64_t block, struct vimg_entry *ret);
/* vneg EX is held.  The entries of `n` blocks, all in one sector of the BAT: written with one atomic write. */
int vraw_entries_write(struct vraw *v, const uint64_t *block, const struct vimg_entry *e, uint32_t n);
/* VHD: is the bitmap of a present block full?  1, 0, < 0. */
int vraw_bitmap_full(struct vraw *v, uint64_t block, const struct vimg_entry *e);
void vraw_bitmap_set_full(struct vraw *v, uint64_t block);

/* vraw_page.c: vmap is held */
/* [off, off + len) of the disk was just read or written the slow way: next time the data plane may do it.  Never fails. */
void vraw_publish(struct vraw *v, uint64_t off, uint64_t len, bool write);
unsigned vraw_page_shift(const struct vimg *img);

/* vraw_alloc.c: nothing is held */
/* Writes into one block; adds it when it is absent.  -EAGAIN: it turned out to be there and needs another way: look again. */
int vraw_write_absent(struct vraw *v, uint64_t block, uint64_t in, const void *buf, uint64_t len);
void vraw_adds_end(struct vraw *v);		/* nobody writes any more: waits until nothing is being done for them */
/* vneg EX is held: the whole BAT is looked at; afterwards free places are known. */
int vraw_scan(struct vraw *v, struct csv_err *err);
void vraw_space_forget(struct vraw *v);		/* must not await */

/* vraw_grow.c: vneg EX is held */
/* Zeroed room for at least one more record at the end of the file, committed; *ret_n records from *ret_off on. */
int vraw_grow(struct vraw *v, uint64_t *ret_off, uint32_t *ret_n);

#endif
