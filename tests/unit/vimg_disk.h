/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vimg_disk.h - the smallest engine: one user of an image in a file (or a memfd), written with csvfs/vhd/vimg.h as its manual says,
 * in R36's order.  For unit tests and for tests/it/vimgio.
 */
#ifndef CSVFS_TESTS_UNIT_VIMG_DISK_H
#define CSVFS_TESTS_UNIT_VIMG_DISK_H

#include "csvfs/vhd/vimg.h"

struct vdisk {
	int fd;
	bool writing, replayed;
	uint64_t file_size;
	struct vimg v;
	struct vimg_open *o;		/* keeps the log's patches while reading */
	const struct vimg_replay *replay;
	struct vimg_scan *scan;		/* NULL: no BAT */
	struct vimg_usage usage;
	unsigned *writes_left;		/* NULL: any number; at 0 the power goes, also in the middle of a write */
};

/* Opens, replays a log when writing, scans the BAT. 0 or the error with err. */
int vdisk_open(int fd, bool writing, struct vdisk *ret, struct csv_err *err) csv_must_check;
/* The same with a power cut: -EIO from then on. */
int vdisk_open_until(int fd, bool writing, unsigned *writes_left, struct vdisk *ret, struct csv_err *err) csv_must_check;
void vdisk_close(struct vdisk *d);
int vdisk_read(struct vdisk *d, uint64_t off, void *buf, size_t len, struct csv_err *err) csv_must_check;
int vdisk_write(struct vdisk *d, uint64_t off, const void *buf, size_t len, struct csv_err *err) csv_must_check;
/* The block becomes absent, its place free. */
int vdisk_free_block(struct vdisk *d, uint64_t block, struct csv_err *err) csv_must_check;
int vdisk_entry(struct vdisk *d, uint64_t block, struct vimg_entry *ret, struct csv_err *err) csv_must_check;

/* Whole or an error; behind the end of the file: zeroes. */
int vdisk_pread(int fd, void *buf, size_t len, uint64_t off) csv_must_check;
int vdisk_pwrite(int fd, const void *buf, size_t len, uint64_t off) csv_must_check;
uint64_t vdisk_fd_size(int fd);
/* Makes an image in an empty file.  0, or the error with err. */
int vdisk_make(int fd, const struct vimg_spec *spec, struct csv_err *err) csv_must_check;

#endif
