/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_store.c - see hvhostd_store.h.
 */
#include "hvhost/hvhostd_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hvhost/agent.h"
#include "hvhost/qemu_args.h"
#include "utils/base/file.h"

#define PATH_BYTES 768
#define TRIES 1000

static void vm_dir(const char *volume, const char *vm, char ret[static PATH_BYTES])
{
	snprintf(ret, PATH_BYTES, "%s/vms/%s", volume, vm);
}

static int failed(struct csv_err *err, int rc, const char *path, const char *what)
{
	return csv_err_set(err, rc, "%s: %s%s%s", path, what, *what ? ": " : "", strerror(-rc));
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

int store_json_read(const char *path, json_t **ret, struct csv_err *err)
{
	char *buf = malloc(VMCONF_TEXT_MAX + 1);
	int fd = buf ? open(path, O_RDONLY | O_CLOEXEC) : -1, rc = 0;
	json_error_t je;
	size_t n = 0;
	ssize_t r = 0;

	if (fd < 0) {
		rc = failed(err, buf ? -errno : -ENOMEM, path, "");
		free(buf);
		return rc;
	}
	while (n <= VMCONF_TEXT_MAX && (r = read(fd, buf + n, VMCONF_TEXT_MAX + 1 - n)) > 0)
		n += (size_t)r;
	if (r < 0)
		rc = failed(err, -errno, path, "");
	close(fd);
	if (!rc && n > VMCONF_TEXT_MAX)
		rc = csv_err_set(err, -EINVAL, "%s: longer than %u bytes", path, VMCONF_TEXT_MAX);
	if (!rc) {
		*ret = json_loadb(buf, n, JSON_REJECT_DUPLICATES, &je);
		if (!*ret)
			rc = csv_err_set(err, -EINVAL, "%s: line %d: %s", path, je.line, je.text);
	}
	free(buf);
	return rc;
}

int store_def_read(const char *volume, const char *vm, struct vm_def *ret, struct csv_err *err)
{
	char dir[PATH_BYTES], path[PATH_BYTES + 32];
	json_t *o = NULL;
	int rc;

	vm_dir(volume, vm, dir);
	snprintf(path, sizeof(path), "%s/definition.json", dir);
	rc = store_json_read(path, &o, err);
	if (!rc) {
		rc = vmdef_decode(o, ret, err);
		if (!rc && strcmp(ret->name, vm))
			rc = csv_err_set(err, -EINVAL, "name: '%s' in the folder of '%s'", ret->name, vm);
		if (rc)
			csv_err_prefix(err, "%s", path);
	}
	json_decref(o);
	return rc;
}

int store_conf_read(const char *volume, const char *vm, uint32_t n, struct vm_conf **ret, struct csv_err *err)
{
	char dir[PATH_BYTES], path[PATH_BYTES + 32];
	json_t *o = NULL;
	int rc;

	vm_dir(volume, vm, dir);
	snprintf(path, sizeof(path), "%s/config.%u.json", dir, n);
	rc = store_json_read(path, &o, err);
	if (!rc) {
		rc = vmconf_decode(o, ret, err);
		if (!rc && strcmp((*ret)->name, vm)) {
			rc = csv_err_set(err, -EINVAL, "name: '%s' in the folder of '%s'", (*ret)->name, vm);
			free(*ret);
		}
		if (rc)
			csv_err_prefix(err, "%s", path);
	}
	json_decref(o);
	return rc;
}

/* ---- writing -------------------------------------------------------------------------------------------------------------- */

static int new_file(const char *path, const char *text, size_t len, unsigned mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode), rc;

	if (fd < 0)
		return -errno;
	rc = csv_write_all(fd, text, len);
	if (!rc && fsync(fd))
		rc = -errno;
	if (close(fd) && !rc)
		rc = -errno;
	if (rc)
		unlink(path);
	return rc;
}

static int parent_sync(const char *path)
{
	char dir[PATH_BYTES + 64];

	snprintf(dir, sizeof(dir), "%s", path);
	*strrchr(dir, '/') = '\0';
	return csv_dir_sync(dir);
}

int store_file_write(const char *path, const char *text, size_t len, unsigned mode, struct csv_err *err)
{
	char tmp[PATH_BYTES + 64];
	int rc;

	snprintf(tmp, sizeof(tmp), "%s.%d.new", path, (int)getpid());
	rc = new_file(tmp, text, len, mode);
	if (!rc && rename(tmp, path))
		rc = -errno;
	if (!rc)
		rc = parent_sync(path);
	if (rc) {
		unlink(tmp);
		return failed(err, rc, path, "cannot be written");
	}
	return 0;
}

static int json_write(const char *path, json_t *o_take, struct csv_err *err)
{
	char *text = o_take ? json_dumps(o_take, JSON_INDENT(2)) : NULL;
	int rc = text ? store_file_write(path, text, strlen(text), 0640, err) : csv_err_set(err, -ENOMEM, "out of memory");

	free(text);
	json_decref(o_take);
	return rc;
}

int store_def_write(const char *volume, const struct vm_def *d, struct csv_err *err)
{
	char dir[PATH_BYTES], path[PATH_BYTES + 32];

	vm_dir(volume, d->name, dir);
	snprintf(path, sizeof(path), "%s/definition.json", dir);
	return json_write(path, vmdef_encode(d), err);
}

static int copy_in(const char *from, const char *dir, const char *name, struct csv_err *err)
{
	char path[PATH_BYTES + 80], tmp[PATH_BYTES + 96], *buf = malloc(1 << 20);
	int in = open(from, O_RDONLY | O_CLOEXEC), out = -1, rc = 0;
	ssize_t n = 0;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	snprintf(tmp, sizeof(tmp), "%s.new", path);
	if (in < 0)
		rc = failed(err, -errno, from, "");
	else
		out = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	if (!rc && out < 0)
		rc = failed(err, -errno, tmp, "");
	while (!rc && buf && (n = read(in, buf, 1 << 20)) > 0) {
		rc = csv_write_all(out, buf, (size_t)n);
		if (rc)
			failed(err, rc, tmp, "");
	}
	if (!rc && (n < 0 || !buf))
		rc = failed(err, buf ? -errno : -ENOMEM, from, "");
	if (!rc && (fsync(out) || rename(tmp, path)))
		rc = failed(err, -errno, path, "");
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	if (out >= 0 && rc)
		unlink(tmp);
	free(buf);
	return rc;
}

static int dirs_make(const char *volume, const char *vm, struct csv_err *err)
{
	char dir[PATH_BYTES];

	snprintf(dir, sizeof(dir), "%s/vms", volume);
	if (mkdir(dir, 0755) && errno != EEXIST)
		return failed(err, -errno, dir, "cannot be made");
	vm_dir(volume, vm, dir);
	if (mkdir(dir, 0750) && errno != EEXIST)
		return failed(err, -errno, dir, "cannot be made");
	snprintf(dir, sizeof(dir), "%s/vms", volume);
	return csv_dir_sync(dir) ? failed(err, -EIO, dir, "cannot be synchronized") : 0;
}

/* The next free number: link(2) fails where somebody was faster. */
static int number_take(const char *dir, struct vm_conf *c, bool kernel, bool initrd, uint32_t first, uint32_t *ret, struct csv_err *err)
{
	char tmp[PATH_BYTES + 48], path[PATH_BYTES + 48];
	int rc = -EEXIST;

	snprintf(tmp, sizeof(tmp), "%s/config.%d.new", dir, (int)getpid());
	for (uint32_t n = first; rc == -EEXIST && n < first + TRIES; n++) {
		json_t *o;

		if (kernel)
			snprintf(c->kernel, sizeof(c->kernel), "kernel.%u", n);
		if (initrd)
			snprintf(c->initrd, sizeof(c->initrd), "initrd.%u", n);
		o = vmconf_encode(c);
		rc = json_write(tmp, o, err);
		if (rc)
			return rc;
		snprintf(path, sizeof(path), "%s/config.%u.json", dir, n);
		rc = link(tmp, path) ? -errno : 0;
		*ret = n;
	}
	unlink(tmp);
	return rc ? failed(err, rc, path, "cannot be made") : 0;
}

/* The disk in it, as the guest would see it. */
static int disk_check(const char *volume, const struct vm_disk *d, unsigned i, const char *path, struct csv_err *err)
{
	char seen[PATH_BYTES + 64];
	struct stat st;

	qemu_disk_path(d, volume, seen, sizeof(seen));
	if (stat(seen, &st))
		return csv_err_set(err, -EINVAL, "disks[%u].path: %s: there is no disk in it (%s); csvctl vhd check %s says what is wrong", i, path,
				   strerror(errno), path);
	if (!st.st_size || st.st_size % 512)
		return csv_err_set(err, -EINVAL, "disks[%u].path: %s: %lld bytes: a disk is some sectors of 512 bytes; csvctl vhd create makes one", i,
				   path, (long long)st.st_size);
	return 0;
}

static int images_check(const char *volume, const struct vm_conf *c, struct csv_err *err)
{
	int rc;

	for (unsigned i = 0; i < c->n_disks; i++) {
		char path[PATH_BYTES + 64];
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", volume, c->disks[i].path);
		if (stat(path, &st))
			return csv_err_set(err, -errno, "disks[%u].path: %s: %s; make the image first (csvctl vhd create)", i, path, strerror(errno));
		if (!S_ISREG(st.st_mode))
			return csv_err_set(err, -EINVAL, "disks[%u].path: %s: not a regular file", i, path);
		rc = disk_check(volume, &c->disks[i], i, path, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- a disk is one VM's ------------------------------------------------------------------------------------------------------ */

struct image_id { dev_t dev; ino_t ino; };

static bool image_id(const char *volume, const struct vm_disk *d, struct image_id *ret)
{
	char path[PATH_BYTES + 64];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", volume, d->path);
	if (stat(path, &st))
		return false;
	*ret = (struct image_id){ st.st_dev, st.st_ino };
	return true;
}

static int disks_differ(const char *volume, const struct vm_conf *c, const struct vm_conf *o, struct csv_err *err)
{
	for (unsigned i = 0; i < c->n_disks; i++) {
		struct image_id mine, other;
		bool have = image_id(volume, &c->disks[i], &mine);

		for (unsigned k = 0; k < o->n_disks; k++) {
			bool same = !strcmp(c->disks[i].path, o->disks[k].path);

			if (!same && have && image_id(volume, &o->disks[k], &other))
				same = mine.dev == other.dev && mine.ino == other.ino;
			if (!same || (c == o && i == k) || (c->disks[i].read_only && o->disks[k].read_only))
				continue;
			if (c == o)
				return csv_err_set(err, -EINVAL, "disks[%u].path: %s: the same image as disks[%u]", i, c->disks[i].path, k);
			return csv_err_set(err, -EBUSY, "disks[%u].path: %s: is a disk of the VM %s already, and a disk is one VM's; make another one "
					   "(csvctl vhd create), or delete that VM first: csvctl vm delete %s", i, c->disks[i].path, o->name, o->name);
		}
	}
	return 0;
}

/* What cannot be read is nobody's: its VM cannot be started either. */
static int disks_free(const char *volume, const struct vm_conf *c, struct csv_err *err)
{
	char dir[PATH_BYTES];
	struct dirent *e;
	int rc = disks_differ(volume, c, c, err);
	DIR *f;

	if (rc)
		return rc;
	snprintf(dir, sizeof(dir), "%s/vms", volume);
	f = opendir(dir);
	if (!f && errno != ENOENT)
		return csv_err_set(err, -errno, "%s: whose the disks are cannot be read: %s; try again", dir, strerror(errno));
	while (f && !rc && (errno = 0, e = readdir(f))) {
		struct csv_err why = CSV_ERR_INIT;
		struct vm_conf *o = NULL;
		struct vm_def d;

		if (!agent_vm_name_valid(e->d_name) || !strcmp(e->d_name, c->name) || store_def_read(volume, e->d_name, &d, &why) ||
		    store_conf_read(volume, e->d_name, d.newest, &o, &why))
			continue;
		rc = disks_differ(volume, c, o, err);
		free(o);
	}
	if (f && !rc && errno)
		rc = csv_err_set(err, -errno, "%s: whose the disks are cannot be read: %s; try again", dir, strerror(errno));
	if (f)
		closedir(f);
	return rc;
}

int store_define(const char *volume, struct vm_conf *c, const char *kernel, const char *initrd, bool dry_run, uint32_t *ret_n,
		 struct csv_err *err)
{
	struct vm_def d = { .want = VM_WANT_STOPPED, .priority = 100, .ha = true };
	char dir[PATH_BYTES];
	uint32_t n = 0;
	int rc = images_check(volume, c, err);

	if (!rc)
		rc = disks_free(volume, c, err);
	if (rc)
		return rc;
	for (int i = 0; i < 2; i++) {
		const char *file = i ? initrd : kernel;

		if (file && access(file, R_OK))
			return failed(err, -errno, file, "");
	}
	vm_dir(volume, c->name, dir);
	rc = store_def_read(volume, c->name, &d, err);
	if (rc && rc != -ENOENT)
		return rc;
	if (dry_run) {
		*ret_n = d.newest + 1;
		return 0;
	}
	snprintf(d.name, sizeof(d.name), "%s", c->name);
	rc = dirs_make(volume, c->name, err);
	if (!rc)
		rc = number_take(dir, c, kernel, initrd, d.newest + 1, &n, err);
	if (!rc && kernel)
		rc = copy_in(kernel, dir, c->kernel, err);
	if (!rc && initrd)
		rc = copy_in(initrd, dir, c->initrd, err);
	if (!rc && csv_dir_sync(dir))
		rc = failed(err, -EIO, dir, "cannot be synchronized");
	d.newest = n;
	if (!rc)
		rc = store_def_write(volume, &d, err);
	if (!rc)
		*ret_n = n;
	return rc;
}

static bool is_ours(const char *name)
{
	static const char *const begin[] = { "config.", "kernel.", "initrd." };

	for (size_t i = 0; i < ARRAY_SIZE(begin); i++) {
		size_t n = strlen(begin[i]), digits;

		if (strncmp(name, begin[i], n))
			continue;
		digits = strspn(name + n, "0123456789");
		if (digits && (!strcmp(name + n + digits, i ? "" : ".json") || !strcmp(name + n + digits, ".new")))
			return true;
	}
	return false;
}

int store_delete(const char *volume, const char *vm, bool dry_run, struct csv_err *err)
{
	char dir[PATH_BYTES], path[PATH_BYTES + 300];
	struct vm_def d;
	struct dirent *e;
	DIR *f;
	int rc = store_def_read(volume, vm, &d, err);

	if (rc == -ENOENT || (!rc && dry_run))
		return rc;
	vm_dir(volume, vm, dir);
	/* The definition first: without it the rest is nobody's.  One that cannot be read can still be deleted. */
	snprintf(path, sizeof(path), "%s/definition.json", dir);
	if (dry_run)
		return rc;
	if (unlink(path))
		return failed(err, -errno, path, "");
	f = opendir(dir);
	while (f && (e = readdir(f)))
		if (is_ours(e->d_name)) {
			snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
			unlink(path);
		}
	if (f)
		closedir(f);
	csv_dir_sync(dir);
	rmdir(dir);		/* only when no image is in it */
	return 0;
}

int store_list(const char *volume, json_t **ret, struct csv_err *err)
{
	char dir[PATH_BYTES];
	json_t *list = json_array();
	struct dirent *e;
	DIR *f;

	snprintf(dir, sizeof(dir), "%s/vms", volume);
	f = opendir(dir);
	if (!f && errno != ENOENT) {
		json_decref(list);
		return failed(err, -errno, dir, "");
	}
	while (f && (errno = 0, e = readdir(f))) {
		struct csv_err why = CSV_ERR_INIT;
		struct vm_def d;
		int rc;

		if (!agent_vm_name_valid(e->d_name))
			continue;
		rc = store_def_read(volume, e->d_name, &d, &why);
		if (rc == -ENOENT || rc == -ENOTDIR)
			continue;
		if (rc)
			json_array_append_new(list, json_pack("{s:s, s:s}", "vm", e->d_name, "error", why.text));
		else
			json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:i, s:b, s:s}", "vm", d.name, "want", vm_want_to_text(d.want),
							      "config", (json_int_t)d.newest, "priority", (int)d.priority, "ha", d.ha, "error", ""));
	}
	if (f && errno) {		/* what is not in the list counts as gone: half a list is none */
		int rc = -errno;

		closedir(f);
		json_decref(list);
		return failed(err, rc, dir, "");
	}
	if (f)
		closedir(f);
	*ret = list;
	return 0;
}
