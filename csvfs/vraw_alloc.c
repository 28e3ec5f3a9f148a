/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vraw_alloc.c - adding blocks to an image: writes to absent blocks, in batches.
 *
 * Whoever writes to an absent block puts the write into a queue, which a coroutine works off in rounds: it takes the locks, then all that
 * wait; those who come meanwhile are in the next round.  A round:
 *
 *	vmap CW, vneg EX			what is still absent under them gets a place
 *	place	1. inside the file, where nothing refers to (it may hold anything: it is zeroed)
 *		2. zeroed room at the end of the file, which vraw_grow() makes for several blocks at once
 *	bitmap, data of all writes		the rest of the block is zeros already
 *	FLUSH					for places of kind 1, whose zeros are not on the disk yet; see below (VR3)
 *	a write for each sector of the BAT	answered; durable with the guest's next flush
 *
 * Without a FLUSH an entry may be on the disk before the writes of its round are, which nobody was promised to find after a crash: then
 * the block reads as zeros there, as it did before.  That is so because the zeros of the room at the end are on the disk before anything
 * is placed in it (vraw_grow.c); it is not so for a place that was used before.
 *
 * The room at the end travels with vneg in its value block (VR5).  Places inside the file are known from a look at the whole BAT, by who
 * finds no valid value block: the first one after nobody had the image in use, and the next one after a node died with vneg EX.  While
 * such a node still has some left, it says nothing in the value block, so the next one looks for itself.
 */
#include "csvfs/vraw.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROUND_MAX 64u
#define LVB_VERSION 1u
#define SCAN_PIECE (256u << 10)

struct vraw_add {
	struct cds_list_head node;
	uint64_t block, in, len;
	const void *buf;
	bool taken, done;
	int status;
};

/* vneg's value block. */
struct space_lvb { struct le32 version, n; struct le64 off, file_size; };
csv_assert_size(struct space_lvb, 24);

struct fresh { uint64_t block; struct vimg_entry e; };
struct round {
	struct vraw_add *a[ROUND_MAX];
	uint32_t n;
	struct fresh f[ROUND_MAX];
	uint32_t n_fresh;
	bool wrote[ROUND_MAX];		/* into a fresh block: answered when its entry is written */
	bool reused;			/* there are places among them that held something else on the disk */
};

/* ---- space ------------------------------------------------------------------------------------------------------------------------ */

void vraw_space_forget(struct vraw *v)
{
	vimg_scan_free(v->scan);
	v->scan = NULL;
	v->space_known = false;
	v->room_n = 0;
}

/* vneg EX is held. */
static void space_say(struct vraw *v)
{
	struct glock *gl = glock_find(v->fs, OWN_VNEG(v->ip->ino));
	uint8_t lvb[DLM_LVB_LEN] = { 0 };
	struct space_lvb s = { 0 };

	if (!v->scan) {
		s.version = le32_of(LVB_VERSION);
		s.n = le32_of(v->room_n);
		s.off = le64_of(v->room_off);
		s.file_size = le64_of(v->ip->size);
	}
	memcpy(lvb, &s, sizeof(s));
	glock_lvb_set(gl, lvb);
}

int vraw_scan(struct vraw *v, struct csv_err *err)
{
	uint64_t off = v->img.bat_off, end = off + v->img.bat_bytes;
	struct csvfs_attr a;
	struct vimg_usage u;
	struct vimg_scan *s;
	uint8_t *buf;
	int rc;

	vraw_space_forget(v);
	rc = csvfs_getattr(v->fs, v->ip->ino, 0, &a);
	if (rc)
		return csv_err_set(err, rc, "its size cannot be read");
	s = vimg_scan_new(&v->img, a.size);
	buf = blk_alloc(SCAN_PIECE);
	rc = s && buf ? 0 : csv_err_set(err, -ENOMEM, "out of memory");
	while (!rc && off < end) {
		uint64_t n = csv_min(end - off, (uint64_t)SCAN_PIECE);

		rc = vraw_file_read(v, off, buf, n);
		if (rc)
			csv_err_set(err, rc, "its block table cannot be read: %s", csv_err_describe(rc));
		else
			rc = vimg_scan_feed(s, buf, n, err);
		off += n;
	}
	if (!rc)
		rc = vimg_scan_end(s, &u, err);
	free(buf);
	if (rc) {
		vimg_scan_free(s);
		return rc;
	}
	v->scan = s;
	v->space_known = true;
	return 0;
}

static int space_learn(struct vraw *v)
{
	struct glock *gl = glock_find(v->fs, OWN_VNEG(v->ip->ino));
	struct csv_err err = CSV_ERR_INIT;
	uint8_t lvb[DLM_LVB_LEN];
	struct space_lvb s;
	struct csvfs_attr a;
	int rc;

	if (v->space_known)
		return 0;
	if (glock_lvb(gl, lvb)) {
		memcpy(&s, lvb, sizeof(s));
		rc = csvfs_getattr(v->fs, v->ip->ino, 0, &a);
		if (rc)
			return rc;
		if (le32_get(s.version) == LVB_VERSION && le64_get(s.file_size) == a.size) {
			v->room_off = le64_get(s.off);
			v->room_n = le32_get(s.n);
			v->space_known = true;
			return 0;
		}
	}
	rc = vraw_scan(v, &err);
	return rc == -CSV_E_CORRUPT ? vraw_damaged(v, &err) : rc;
}

/* *ret_dirty: what lies there is not zeros. */
static int take_place(struct vraw *v, uint64_t *ret_off, bool *ret_dirty)
{
	int err = space_learn(v);

	if (err)
		return err;
	*ret_dirty = false;
	if (v->scan && vimg_scan_place(v->scan, ret_off)) {
		*ret_dirty = true;
		space_say(v);
		return 0;
	}
	vimg_scan_free(v->scan);
	v->scan = NULL;
	if (!v->room_n) {
		err = vraw_grow(v, &v->room_off, &v->room_n);
		if (err) {
			space_say(v);
			return err;
		}
	}
	*ret_off = v->room_off;
	v->room_off += v->img.stride;
	v->room_n--;
	space_say(v);
	return 0;
}

/* ---- a round ------------------------------------------------------------------------------------------------------------------------ */

static int write_bitmap(struct vraw *v, const struct vimg_entry *e)
{
	void *map;
	int err;

	if (!v->img.bitmap_bytes)
		return 0;
	map = malloc(v->img.bitmap_bytes);
	if (!map)
		return -ENOMEM;
	vimg_bitmap_full(&v->img, map);
	err = vraw_file_write(v, e->bitmap_off, map, v->img.bitmap_bytes);
	free(map);
	return err;
}

static struct fresh *find_fresh(struct round *r, uint64_t block)
{
	for (uint32_t i = 0; i < r->n_fresh; i++)
		if (r->f[i].block == block)
			return &r->f[i];
	return NULL;
}

/* A place with zeros in it for a block that is absent; `old`: space that it owns already, or none. */
static int make_fresh(struct vraw *v, struct round *r, uint64_t block, const struct vimg_entry *old, struct fresh **ret)
{
	struct fresh *f = &r->f[r->n_fresh];
	uint64_t off;
	bool dirty = true;
	int err = 0;

	f->block = block;
	if (old->data_off) {
		f->e = *old;
		f->e.state = VIMG_PRESENT;
	} else {
		err = take_place(v, &off, &dirty);
		if (err)
			return err;
		vimg_record_make(&v->img, off, &f->e);
	}
	if (dirty) {
		r->reused = true;
		err = vraw_file_write(v, f->e.data_off, NULL, v->img.block_size);
	}
	if (!err)
		err = write_bitmap(v, &f->e);
	if (err)
		return err;
	r->n_fresh++;
	*ret = f;
	return 0;
}

static int write_one(struct vraw *v, struct round *r, uint32_t i)
{
	struct vraw_add *a = r->a[i];
	struct fresh *f = find_fresh(r, a->block);
	struct vimg_entry e;
	int err;

	if (!f) {
		err = vraw_entry(v, a->block, true, &e);
		if (!err && e.state == VIMG_PRESENT)
			err = -EAGAIN;			/* somebody was faster: it is there */
		if (!err)
			err = make_fresh(v, r, a->block, &e, &f);
		if (err)
			return err;
	}
	r->wrote[i] = true;
	return vraw_file_write(v, f->e.data_off + a->in, a->buf, a->len);
}

static int write_entries(struct vraw *v, struct round *r)
{
	bool done[ROUND_MAX] = { false };
	int err = r->reused && !(v->fs->mutate & CSV_MUT_ENTRY_NO_FLUSH) ? vraw_flush(v) : 0;

	for (uint32_t i = 0; !err && i < r->n_fresh; i++) {
		uint64_t block[ROUND_MAX], sector = vimg_sector_of(vimg_entry_off(&v->img, r->f[i].block));
		struct vimg_entry e[ROUND_MAX];
		uint32_t n = 0;

		if (done[i])
			continue;
		for (uint32_t k = i; k < r->n_fresh; k++) {
			if (vimg_sector_of(vimg_entry_off(&v->img, r->f[k].block)) != sector)
				continue;
			done[k] = true;
			block[n] = r->f[k].block;
			e[n++] = r->f[k].e;
		}
		err = vraw_entries_write(v, block, e, n);
		for (uint32_t k = 0; !err && k < n; k++)
			vraw_bitmap_set_full(v, block[k]);
	}
	return err;
}

static void run_round(struct vraw *v, struct round *r)
{
	int err;

	for (uint32_t i = 0; i < r->n; i++)
		r->a[i]->status = write_one(v, r, i);
	err = r->n_fresh ? write_entries(v, r) : 0;
	for (uint32_t i = 0; i < r->n; i++) {
		struct vraw_add *a = r->a[i];

		if (r->wrote[i] && !a->status)
			a->status = err;
		if (!a->status)
			vraw_publish(v, a->block * v->img.block_size + a->in, a->len, true);
		a->done = true;
	}
}

/* An error is of the locks: nothing was done. */
static int one_round(struct vraw *v)
{
	struct glock_holder map, neg;
	struct round *r = calloc(1, sizeof(*r));
	int err = r ? glock_get(v->fs, OWN_VMAP(v->ip->ino), DLM_CW, 0, &map) : -ENOMEM;

	if (err)
		goto out;
	err = glock_get(v->fs, OWN_VNEG(v->ip->ino), DLM_EX, 0, &neg);
	if (!err) {
		while (r->n < ROUND_MAX && !cds_list_empty(&v->adds)) {
			struct vraw_add *a = cds_list_first_entry(&v->adds, struct vraw_add, node);

			cds_list_del(&a->node);
			a->taken = true;
			r->a[r->n++] = a;
		}
		run_round(v, r);
		glock_put(&neg);
	}
	glock_put(&map);
out:
	free(r);
	return err;
}

/* Lives while somebody waits.  Nobody who is interrupted takes others with him: it is nobody's coroutine but its own. */
static void adder(void *arg)
{
	struct vraw *v = arg;
	int err = 0;

	while (!cds_list_empty(&v->adds)) {
		struct vraw_add *a, *next;

		err = one_round(v);
		if (err) {
			cds_list_for_each_entry_safe(a, next, &v->adds, node) {
				cds_list_del(&a->node);
				a->status = err;
				a->done = true;
			}
		}
		sched_wake_all(v->fs->env->sched, &v->add_wq);
	}
	v->adding = false;
	sched_wake_all(v->fs->env->sched, &v->add_wq);
}

void vraw_adds_end(struct vraw *v)
{
	while (v->adding)
		sched_wait(v->fs->env->sched, &v->add_wq);
}

int vraw_write_absent(struct vraw *v, uint64_t block, uint64_t in, const void *buf, uint64_t len)
{
	struct sched *s = v->fs->env->sched;
	struct vraw_add *a = calloc(1, sizeof(*a));
	int err = 0;

	if (!a)
		return -ENOMEM;
	*a = (struct vraw_add){ .block = block, .in = in, .len = len, .buf = buf };
	cds_list_add_tail(&a->node, &v->adds);
	if (!v->adding) {
		v->adding = true;
		err = fs_spawn(v->fs, "image add", adder, v);
		v->adding = !err;
	}
	while (!a->done && !err) {
		if (a->taken)
			sched_wait(s, &v->add_wq);	/* its bytes are being looked at */
		else if (sched_wait_intr(s, &v->add_wq) == -EINTR && !a->taken && !a->done)
			err = -EINTR;
	}
	if (a->done)
		err = a->status;
	else
		cds_list_del(&a->node);
	free(a);
	return err;
}
