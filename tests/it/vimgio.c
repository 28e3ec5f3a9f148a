/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vimgio - images of plain files read and written through csvfs/vhd, for t-vhd-images:
 *
 *	vimgio cat PATH				the disk's bytes, to standard output (holes of a file on it are kept as holes)
 *	vimgio replay PATH			opens it for writing, which replays its log
 *	vimgio stir PATH RAW SEED COUNT		random writes, the same to the image and to the raw file RAW; also frees blocks
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/vimg_disk.h"
#include "utils/base/prng.h"

#define STEP (1u << 20)

static int fail(const char *path, int rc, const struct csv_err *err)
{
	fprintf(stderr, "vimgio: %s: %s\n", path, err->code ? err->text : csv_err_describe(rc));
	return 1;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

static int cat(struct vdisk *d, struct csv_err *err)
{
	static uint8_t buf[STEP];
	bool seek = lseek(1, 0, SEEK_CUR) >= 0 && !ftruncate(1, (off_t)d->v.virtual_size);
	struct vimg_entry e;
	int rc = 0;

	for (uint64_t at = 0; at < d->v.virtual_size && !rc; at += STEP) {
		size_t n = csv_min((uint64_t)STEP, d->v.virtual_size - at);

		if (seek && d->v.has_bat && at % d->v.block_size == 0) {
			rc = vdisk_entry(d, at / d->v.block_size, &e, err);
			if (!rc && e.state != VIMG_PRESENT && d->v.block_size > STEP) {
				at += d->v.block_size - STEP;
				continue;
			}
		}
		if (rc)
			break;
		rc = vdisk_read(d, at, buf, n, err);
		if (!rc && seek)
			rc = is_zero(buf, n) ? 0 : vdisk_pwrite(1, buf, n, at);
		else if (!rc)
			rc = write(1, buf, n) == (ssize_t)n ? 0 : -EIO;
	}
	return rc;
}

static int stir(struct vdisk *d, const char *raw, uint64_t seed, unsigned count, struct csv_err *err)
{
	static uint8_t buf[3 * STEP];
	int fd = open(raw, O_RDWR | O_CREAT | O_CLOEXEC, 0644), rc = fd < 0 || ftruncate(fd, (off_t)d->v.virtual_size) ? -errno : 0;
	struct csv_prng r;

	csv_prng_init(&r, seed);
	for (unsigned k = 0; k < count && !rc; k++) {
		uint64_t size = d->v.virtual_size, n = 512 * csv_prng_range(&r, 1, sizeof(buf) / 512), at;

		n = csv_min(n, size);
		at = csv_prng_below(&r, (size - n) / 512 + 1) * 512;
		csv_prng_bytes(&r, buf, n);
		if (csv_prng_chance(&r, 1, 16) && d->v.type == VIMG_DYNAMIC) {
			/* a block is given back: it reads as zeroes */
			uint64_t block = at / d->v.block_size, len = vimg_block_len(&d->v, block);

			memset(buf, 0, sizeof(buf));
			rc = vdisk_free_block(d, block, err);
			for (uint64_t o = 0; o < len && !rc; o += STEP)
				rc = vdisk_pwrite(fd, buf, csv_min((uint64_t)STEP, len - o), block * d->v.block_size + o);
			continue;
		}
		rc = vdisk_write(d, at, buf, n, err);
		if (!rc)
			rc = vdisk_pwrite(fd, buf, n, at);
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	bool writing = strcmp(what, "cat");
	struct csv_err err = CSV_ERR_INIT;
	struct vdisk d;
	int fd, rc;

	if (!(argc == 3 && (!writing || !strcmp(what, "replay"))) && !(argc == 6 && !strcmp(what, "stir"))) {
		fprintf(stderr, "usage: vimgio cat PATH | replay PATH | stir PATH RAW SEED COUNT\n");
		return 2;
	}
	fd = open(argv[2], (writing ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (fd < 0)
		return fail(argv[2], -errno, &err);
	rc = vdisk_open(fd, writing, &d, &err);
	if (rc)
		return fail(argv[2], rc, &err);
	if (!writing)
		rc = cat(&d, &err);
	else if (argc == 6)
		rc = stir(&d, argv[3], strtoull(argv[4], NULL, 0), (unsigned)strtoul(argv[5], NULL, 0), &err);
	else
		printf("%s\n", d.replayed ? "replayed" : "clean");
	vdisk_close(&d);
	if (!rc && writing && fsync(fd))
		rc = -errno;
	return rc ? fail(argv[2], rc, &err) : 0;
}
