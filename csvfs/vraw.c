/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vraw.c - opening and closing the disk inside an image, and what its two locks do when they leave (vraw.h).
 *
 *	first open here		what it is, under vmap CW; a dirty log is replayed under vmap EX, where nobody else has anything cached
 *	first for writing here	under vneg EX: the whole BAT is looked at once (no two blocks in one place), new GUIDs in the header
 *	last close		the data plane forgets the view
 *
 * A membership change does nothing here: what a lost node had cached was its own, what it held stays locked until its replay, and who gets
 * vneg EX afterwards finds no valid value block and looks for free places itself.
 */
#include "csvfs/vraw.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "csvfs/publish.h"

#define PROBES 5u

/* ---- what the locks do ------------------------------------------------------------------------------------------------------------ */

static struct inode *image_of(const struct glock *gl)
{
	struct glock *of = glock_find(gl->fs, OWN_INODE(gl->owner.id));

	return of ? of->obj : NULL;
}

static void vmap_gate_close(struct glock *gl, enum dlm_mode to)
{
	struct inode *ip = image_of(gl);
	struct glock *ref;

	if (!ip || to >= DLM_CW)
		return;
	ref = glock_ref(gl->fs, OWN_INODE(ip->ino));	/* it is there: this takes no memory */
	inode_dp_revoke_raw(ip);
	glock_unref(ref);
}

static void vmap_inval(struct glock *gl, enum dlm_mode to)
{
	struct inode *ip = image_of(gl);

	if (ip && ip->vraw && to < DLM_CW)
		vraw_bat_forget(ip->vraw);
}

static void vneg_inval(struct glock *gl, enum dlm_mode to)
{
	struct inode *ip = image_of(gl);

	if (!ip || !ip->vraw)
		return;
	vraw_space_forget(ip->vraw);
	if (to < DLM_PR)
		ip->vraw->neg_epoch++;
}

static void vneg_granted(struct glock *gl, enum dlm_mode mode, const uint8_t *lvb, bool lvb_valid)
{
	static const uint8_t nothing[DLM_LVB_LEN];

	(void)lvb;
	/* What stands there is of an earlier time; nobody must take it for ours (VR5). */
	if (mode == DLM_EX && !lvb_valid)
		glock_lvb_set(gl, nothing);
}

const struct glock_ops vraw_vmap_ops = { .gate_close = vmap_gate_close, .inval = vmap_inval };
const struct glock_ops vraw_vneg_ops = { .inval = vneg_inval, .granted = vneg_granted };

/* ---- what it is --------------------------------------------------------------------------------------------------------------------- */

static int probe_once(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t size, struct vimg_open **ret, struct csv_err *err)
{
	struct vimg_open *o = vimg_open_new(size);
	struct vimg_read rd;
	int rc;

	if (!o)
		return csv_err_set(err, -ENOMEM, "out of memory");
	while ((rc = vimg_open_next(o, &rd, err)) > 0) {
		ssize_t n = csvfs_read(fs, ino, gen, rd.off, rd.buf, rd.len);

		if (n >= 0 && (size_t)n < rd.len)
			n = -ESTALE;		/* it became shorter meanwhile */
		if (n < 0) {
			rc = csv_err_set(err, (int)n, "cannot be read: %s", csv_err_describe((int)n));
			break;
		}
	}
	if (rc == 0)
		*ret = o;
	else
		vimg_open_free(o);
	return rc;
}

/* Whoever asks without vneg may look while another node moves the end of the file: then once more. */
static int probe(struct csvfs *fs, uint64_t ino, uint32_t gen, struct vimg_open **ret, struct csv_err *err)
{
	struct csvfs_attr a, b;
	int rc = 0;

	for (unsigned i = 0; i < PROBES; i++) {
		rc = csvfs_getattr(fs, ino, gen, &a);
		if (rc)
			return csv_err_set(err, rc, "cannot be read: %s", csv_err_describe(rc));
		if (!S_ISREG(a.mode))
			return csv_err_set(err, -EMEDIUMTYPE, "not a regular file");
		rc = probe_once(fs, ino, gen, a.size, ret, err);
		if (!rc || rc == -EINTR || rc == -CSV_E_WITHDRAWN || csvfs_getattr(fs, ino, gen, &b) || b.size == a.size)
			break;
	}
	return rc;
}

int csvfs_disk_size(struct csvfs *fs, uint64_t ino, uint32_t gen, uint64_t *ret_size, struct csv_err *err)
{
	uint64_t open_size = csvfs_raw_size(fs, ino);
	struct vimg_open *o;
	int rc;

	if (open_size) {
		*ret_size = open_size;
		return 0;
	}
	rc = probe(fs, ino, gen, &o, err);
	if (rc)
		return rc;
	rc = vimg_may_read(vimg_open_image(o), err);
	if (!rc)
		*ret_size = vimg_open_image(o)->virtual_size;
	vimg_open_free(o);
	return rc;
}

/* ---- replay of a log ------------------------------------------------------------------------------------------------------------------ */

static void new_guid(struct csvfs *fs, uint8_t ret[static 16])
{
	uint64_t x[2] = { env_rnd(fs->env), env_rnd(fs->env) };

	memcpy(ret, x, 16);
	ret[7] = (uint8_t)((ret[7] & 0x0f) | 0x40);	/* version 4, in the order of bytes of a GUID */
	ret[8] = (uint8_t)((ret[8] & 0x3f) | 0x80);
}

/* vneg EX, or vmap EX, is held.  The header as `v->img` knows it. */
static int write_header(struct vraw *v, bool data, struct csv_err *err)
{
	struct vimg_write *w = malloc(sizeof(*w));
	uint8_t file_guid[16], data_guid[16];
	int rc;

	if (!w)
		return csv_err_set(err, -ENOMEM, "out of memory");
	new_guid(v->fs, file_guid);
	new_guid(v->fs, data_guid);
	rc = vimg_header_new(&v->img, file_guid, data ? data_guid : NULL, w, err);
	if (!rc && w->len) {
		rc = vraw_file_write(v, w->off, w->data, w->len);
		if (!rc)
			rc = vraw_flush(v);
		if (rc)
			csv_err_set(err, rc, "its header cannot be written: %s", csv_err_describe(rc));
	}
	free(w);
	return rc;
}

/* vmap EX is held. */
static int replay(struct vraw *v, struct vimg_open *o, struct csv_err *err)
{
	const struct vimg_replay *r = vimg_open_replay(o);
	struct csvfs_attr a;
	int rc = csvfs_getattr(v->fs, v->ip->ino, 0, &a);

	if (!rc && r->file_size > a.size) {
		a.size = r->file_size;
		rc = csvfs_setattr(v->fs, v->ip->ino, 0, &a, CSVFS_SET_SIZE, &a);
	}
	for (size_t i = 0; !rc && i < r->n; i++)
		rc = vraw_file_write(v, r->patch[i].off, r->patch[i].data, r->patch[i].len);
	if (!rc)
		rc = vraw_flush(v);
	if (rc)
		return csv_err_set(err, rc, "its log cannot be replayed: %s", csv_err_describe(rc));
	v->img = *vimg_open_image(o);
	rc = write_header(v, true, err);
	if (!rc)
		fs_log(v->fs, LOG_L_INFO, "%s: its log was replayed: %zu pieces", v->who, r->n);
	return rc;
}

static int replay_under_lock(struct vraw *v, struct vimg_open **inout_o, struct csv_err *err)
{
	struct glock_holder gh;
	int rc;

	vimg_open_free(*inout_o);
	*inout_o = NULL;
	rc = glock_get(v->fs, OWN_VMAP(v->ip->ino), DLM_EX, 0, &gh);
	if (rc)
		return rc;
	rc = probe(v->fs, v->ip->ino, 0, inout_o, err);
	if (!rc && vimg_open_replay(*inout_o)) {	/* nobody was faster */
		rc = replay(v, *inout_o, err);
		vimg_open_free(*inout_o);
		*inout_o = NULL;
		if (!rc)
			rc = probe(v->fs, v->ip->ino, 0, inout_o, err);
	}
	glock_put(&gh);
	return rc;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------------------------- */

static void view_free(struct vraw *v)
{
	if (!v)
		return;
	vraw_space_forget(v);
	vraw_bat_done(v);
	vimg_open_free(v->dirty);
	free(v);
}

static void name_it(struct vraw *v, const char *path)
{
	unsigned long long ino = v->ip->ino;

	if (path && *path)
		snprintf(v->who, sizeof(v->who), "image %s (inode %llu)", path, ino);
	else if (!*v->who)
		snprintf(v->who, sizeof(v->who), "image inode %llu", ino);
}

static int make_view(struct csvfs *fs, struct inode *ip, const char *path, struct vraw **ret, struct csv_err *err)
{
	struct vraw *v = calloc(1, sizeof(*v));
	struct vimg_open *o = NULL;
	struct glock_holder gh;
	int rc;

	if (!v)
		return csv_err_set(err, -ENOMEM, "out of memory");
	v->fs = fs;
	v->ip = ip;
	name_it(v, path);
	CDS_INIT_LIST_HEAD(&v->adds);
	waitq_init(&v->add_wq);
	rc = glock_get(fs, OWN_VMAP(ip->ino), DLM_CW, 0, &gh);
	if (!rc) {
		rc = probe(fs, ip->ino, 0, &o, err);
		glock_put(&gh);
	}
	if (!rc)
		rc = vimg_may_read(vimg_open_image(o), err);
	if (!rc && vimg_open_replay(o)) {
		if (fs_check_write(fs)) {
			v->dirty = o;
			v->img = *vimg_open_image(o);
			o = NULL;
		} else {
			rc = replay_under_lock(v, &o, err);
		}
	}
	if (!rc) {
		if (o)
			v->img = *vimg_open_image(o);
		v->page_shift = vraw_page_shift(&v->img);
		rc = v->img.has_bat ? vraw_bat_init(v) : 0;
	}
	vimg_open_free(o);
	if (rc)
		view_free(v);
	else
		*ret = v;
	return rc;
}

/* Once on this node while it is open here. */
static int make_writable(struct vraw *v, struct csv_err *err)
{
	struct glock_holder map, neg;
	uint8_t lvb[DLM_LVB_LEN];
	struct vimg_open *o;
	int rc = glock_get(v->fs, OWN_VMAP(v->ip->ino), DLM_CW, 0, &map);

	if (rc)
		return rc;
	rc = glock_get(v->fs, OWN_VNEG(v->ip->ino), DLM_EX, 0, &neg);
	if (rc)
		goto out;
	rc = probe(v->fs, v->ip->ino, 0, &o, err);	/* the header: another node may have written it */
	if (!rc) {
		v->img = *vimg_open_image(o);
		vimg_open_free(o);
		rc = vraw_scan(v, err);
	}
	if (!rc)
		rc = write_header(v, true, err);
	/* What a valid value block says is as good, and needs no looking when vneg comes back. */
	if (glock_lvb(neg.gl, lvb))
		vraw_space_forget(v);
	glock_put(&neg);
out:
	glock_put(&map);
	return rc;
}

int csvfs_disk_open(struct csvfs *fs, uint64_t ino, uint32_t gen, bool writing, const char *path, struct csv_err *err)
{
	struct glock *gl = glock_find(fs, OWN_INODE(ino));
	struct inode *ip = gl ? gl->obj : NULL;
	struct vraw *v = NULL;
	int rc;

	csv_assertf(ip && ip->raw_opens, "the raw view of inode %llu is not announced", (unsigned long long)ino);
	(void)gen;
	rc = co_mutex_lock_intr(fs->env->sched, &ip->vraw_mx);
	if (rc)
		return rc;
	if (!ip->vraw)
		rc = make_view(fs, ip, path, &v, err);
	if (!rc && v) {
		/* A map of an earlier view may have had another end. */
		inode_gate_close(ip);
		ip->vraw = v;
		ip->raw_size = v->img.virtual_size;
		inode_gate_open(ip);
	}
	v = ip->vraw;
	if (!rc)
		name_it(v, path);
	if (!rc && writing && !v->writable) {
		rc = fs_check_write(fs);
		if (!rc)
			rc = vimg_may_write(&v->img, err);
		if (!rc && v->img.has_bat)
			rc = make_writable(v, err);
		if (!rc) {
			/* What was published for reading alone is built anew. */
			inode_dp_revoke_raw(ip);
			v->writable = true;
		}
	}
	co_mutex_unlock(fs->env->sched, &ip->vraw_mx);
	return rc;
}

void vraw_close(struct inode *ip)
{
	struct vraw *v = ip->vraw;

	if (v)
		vraw_adds_end(v);
	ip->raw_size = 0;	/* no new map; requests need an open view */
	inode_dp_revoke_raw(ip);
	ip->vraw = NULL;
	view_free(v);
}
