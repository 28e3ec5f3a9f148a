/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_disk.c - a file with a data model that is the disk inside a dynamic image (--disk): every node has its raw view open while it is
 * mounted, so operations and data-plane threads of all nodes meet in its blocks, and add them.
 *
 * How bytes of a file with a data model are reached: as those of the file, or as those of the disk in it.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "csvfs/vhd/vimg.h"
#include "tests/sim/csvsim_work.h"
#include "utils/base/base.h"

ssize_t cs_io_read(struct cs_node *n, const struct cs_file *f, uint64_t off, void *buf, size_t len)
{
	return f->kind == CS_DISK ? csvfs_disk_read(n->fs, f->ino, f->gen, off, buf, len) : csvfs_read(n->fs, f->ino, f->gen, off, buf, len);
}

ssize_t cs_io_write(struct cs_node *n, const struct cs_file *f, uint64_t off, const void *buf, size_t len)
{
	return f->kind == CS_DISK ? csvfs_disk_write(n->fs, f->ino, f->gen, off, buf, len)
				  : csvfs_write(n->fs, f->ino, f->gen, off, buf, len, 0, NULL);
}

int cs_io_fallocate(struct cs_node *n, const struct cs_file *f, int mode, uint64_t off, uint64_t len)
{
	return f->kind == CS_DISK ? csvfs_disk_fallocate(n->fs, f->ino, f->gen, mode, off, len)
				  : csvfs_fallocate(n->fs, f->ino, f->gen, mode, off, len);
}

static struct cs_file *disk_of(struct cs_sim *s)
{
	return s->opt.disk ? &s->file[CS_FILES] : NULL;
}

int cs_disk_make(struct cs_sim *s, struct csvfs *fs)
{
	struct cs_file *f = disk_of(s);
	bool vhdx = s->seed % 2;
	struct vimg_spec spec = { .format = vhdx ? VIMG_VHDX : VIMG_VHD, .type = VIMG_DYNAMIC, .size = (uint64_t)f->sectors * CS_SECTOR,
				  .block_size = vhdx ? 1u << 20 : 512u << 10, .now_s = 1700000000, .guid = { { 1 }, { 2 }, { 3 } } };
	struct csv_err err = CSV_ERR_INIT;
	struct csvfs_attr a, set = { 0 };
	struct vimg_made m;
	int ret = csvfs_create(fs, s->root, 0, f->name, S_IFREG | 0644, 0, 0, 0, false, &a);

	f->ino = a.ino;
	f->gen = a.gen;
	if (!ret)
		ret = vimg_make(&spec, &m, &err);
	if (ret)
		return ret;
	set.size = m.file_size;
	ret = csvfs_setattr(fs, f->ino, f->gen, &set, CSVFS_SET_SIZE, &a);
	for (size_t i = 0; !ret && i < m.n; i++) {
		ssize_t n = m.patch[i].data ? csvfs_write(fs, f->ino, f->gen, m.patch[i].off, m.patch[i].data, m.patch[i].len, 0, NULL) : 0;

		ret = n < 0 ? (int)n : 0;	/* zeros are there already */
	}
	vimg_made_done(&m);
	return ret;
}

void cs_disk_open(struct cs_node *n)
{
	struct cs_file *f = disk_of(n->sim);
	struct csv_err err = CSV_ERR_INIT;
	int ret;

	if (!f || n->disk_open || n->sim->failed || csvfs_open(n->fs, f->ino, f->gen))
		return;
	ret = csvfs_image_open(n->fs, f->ino, f->gen, CSVFS_USE_RAW);
	if (!ret) {
		ret = csvfs_disk_open(n->fs, f->ino, f->gen, true, NULL, &err);
		if (ret)
			csvfs_image_close(n->fs, f->ino, CSVFS_USE_RAW);
	}
	if (ret)
		csvfs_release(n->fs, f->ino);
	n->disk_open = !ret;
	cs_count(n->sim, ret ? "op.disk_open_failed" : "op.disk_open");
	if (ret && csvfs_state(n->fs, NULL) != CSVFS_WITHDRAWN && !n->disk_failed)
		cs_fail(n->sim, "n%u opening the disk in file %s: %d (%s) %s", n->node, f->name, ret, csv_err_describe(ret), err.text);
}

void cs_disk_close(struct cs_node *n)
{
	const struct cs_file *f = disk_of(n->sim);

	if (!n->disk_open)
		return;
	n->disk_open = false;
	csvfs_image_close(n->fs, f->ino, CSVFS_USE_RAW);
	csvfs_release(n->fs, f->ino);
}
