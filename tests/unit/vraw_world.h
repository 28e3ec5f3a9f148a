/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vraw_world.h - an image with a block map on the nodes of core_world.h: made, opened through its raw view, written and read by
 * coroutines of several nodes, and held against a model of its disk.
 */
#ifndef CSVFS_TESTS_UNIT_VRAW_WORLD_H
#define CSVFS_TESTS_UNIT_VRAW_WORLD_H

#include "csvfs/vraw.h"
#include "tests/unit/core_ops.h"

#define VW_SECTOR 512u

struct vw {
	struct vimg_spec spec;
	struct csvfs_attr file;
	uint8_t *model;			/* of the disk */
	bool writing;
	uint64_t off, len;
	uint8_t *buf;
	ssize_t n;
	struct csv_err err;
};
static struct vw vw;

static csv_unused void vw_make(struct csvfs *fs)
{
	struct csv_err err = CSV_ERR_INIT;
	struct csvfs_attr set = { 0 };
	struct vimg_made m;
	int rc = vimg_make(&vw.spec, &m, &err);

	ck_assert_msg(rc == 0, "making an image: %s", err.text);
	OK(csvfs_create(fs, root(fs), 0, "disk", S_IFREG | 0644, 1, 1, 0, false, &vw.file));
	set.size = m.file_size;
	OK(csvfs_setattr(fs, vw.file.ino, 0, &set, CSVFS_SET_SIZE, &set));
	for (size_t i = 0; i < m.n; i++) {
		uint8_t *zero = NULL;

		if (!m.patch[i].data)
			zero = calloc(1, m.patch[i].len);
		IS(csvfs_write(fs, vw.file.ino, 0, m.patch[i].off, zero ? zero : m.patch[i].data, m.patch[i].len, 0, NULL),
		   (long long)m.patch[i].len);
		free(zero);
	}
	OK(csvfs_fsync(fs, vw.file.ino, 0, false));
	vimg_made_done(&m);
}

static csv_unused void vw_open(struct csvfs *fs)
{
	vw.err = CSV_ERR_INIT;
	OK(csvfs_open(fs, vw.file.ino, 0));
	OK(csvfs_image_open(fs, vw.file.ino, 0, CSVFS_USE_RAW));
	vw.n = csvfs_disk_open(fs, vw.file.ino, 0, vw.writing, "vms/a disk", &vw.err);
}

static csv_unused void vw_close(struct csvfs *fs)
{
	csvfs_image_close(fs, vw.file.ino, CSVFS_USE_RAW);
	csvfs_release(fs, vw.file.ino);
}

static csv_unused void vw_open_on(unsigned id, bool writing)
{
	vw.writing = writing;
	on_node(id, vw_open);
	ck_assert_msg(vw.n == 0, "node %u: opening the disk: %zd: %s\n%s", id, vw.n, vw.err.text, cw.all_log);
}

static csv_unused void vw_start(unsigned nodes, enum vimg_format format, uint64_t size, uint32_t block_size)
{
	memset(&vw, 0, sizeof(vw));
	vw.spec = (struct vimg_spec){ .format = format, .type = VIMG_DYNAMIC, .size = size, .block_size = block_size, .now_s = 1700000000,
				      .guid = { { 1, 2 }, { 3, 4 }, { 5, 6 } } };
	vw.model = calloc(1, size);
	cw_setup();
	for (unsigned id = 1; id <= nodes; id++)
		cw_mount(id);
	on_node(1, vw_make);
	for (unsigned id = 1; id <= nodes; id++)
		vw_open_on(id, true);
}

/* What the core and the checker think of the volume afterwards. */
static csv_unused void vw_end(unsigned nodes)
{
	for (unsigned id = 1; id <= nodes; id++)
		on_node(id, vw_close);
	for (unsigned id = 1; id <= nodes; id++)
		cw_umount(id);
	ck_assert_uint_eq(cc_check(), 0);
	cw_teardown();
	free(vw.model);
}

static csv_unused void vw_read_co(struct csvfs *fs)
{
	vw.n = csvfs_disk_read(fs, vw.file.ino, 0, vw.off, vw.buf, vw.len);
}

static csv_unused void vw_write_co(struct csvfs *fs)
{
	vw.n = csvfs_disk_write(fs, vw.file.ino, 0, vw.off, vw.buf, vw.len);
}

/* Is what the node reads what the model says? */
static csv_unused void vw_check(unsigned id, uint64_t off, uint64_t len)
{
	vw.off = off;
	vw.len = len;
	vw.buf = malloc(len);
	memset(vw.buf, 0xee, len);
	on_node(id, vw_read_co);
	ck_assert_msg(vw.n == (ssize_t)len, "node %u: read at %" PRIu64 ": %zd\n%s", id, off, vw.n, cw.all_log);
	for (uint64_t i = 0; memcmp(vw.buf, vw.model + off, len) && i < len; i++)
		if (vw.buf[i] != vw.model[off + i])
			ck_abort_msg("node %u: byte %" PRIu64 " of the disk is %02x, must be %02x", id, off + i,
			      vw.buf[i], vw.model[off + i]);
	free(vw.buf);
}

static csv_unused void vw_write(unsigned id, uint64_t off, uint64_t len, uint32_t salt)
{
	fill(vw.model + off, len, off, salt);
	vw.off = off;
	vw.len = len;
	vw.buf = vw.model + off;
	on_node(id, vw_write_co);
	ck_assert_msg(vw.n == (ssize_t)len, "node %u: write at %" PRIu64 ": %zd\n%s", id, off, vw.n, cw.all_log);
}

static csv_unused struct inode *vw_inode(unsigned id)
{
	struct glock *gl = glock_find(cw_n(id)->fs, OWN_INODE(vw.file.ino));

	return gl ? gl->obj : NULL;
}

/* The whole BAT is in order: how many blocks are present, and how many bytes of the file nothing refers to.  From a coroutine. */
static csv_unused int vw_scan(struct csvfs *fs, struct vimg_usage *ret, struct csv_err *err)
{
	struct vraw v = { .fs = fs };
	struct vimg_open *o;
	struct vimg_read rd;
	struct vimg_scan *s;
	struct csvfs_attr a;
	uint8_t *bat;
	int rc;

	OK(csvfs_getattr(fs, vw.file.ino, 0, &a));
	o = vimg_open_new(a.size);
	while ((rc = vimg_open_next(o, &rd, err)) > 0)
		IS(csvfs_read(fs, vw.file.ino, 0, rd.off, rd.buf, rd.len), rd.len);
	if (rc) {
		vimg_open_free(o);
		return rc;
	}
	v.img = *vimg_open_image(o);
	vimg_open_free(o);
	bat = malloc(v.img.bat_bytes);
	IS(csvfs_read(fs, vw.file.ino, 0, v.img.bat_off, bat, v.img.bat_bytes), (long long)v.img.bat_bytes);
	s = vimg_scan_new(&v.img, a.size);
	rc = vimg_scan_feed(s, bat, v.img.bat_bytes, err);
	if (!rc)
		rc = vimg_scan_end(s, ret, err);
	vimg_scan_free(s);
	free(bat);
	return rc;
}

#endif
