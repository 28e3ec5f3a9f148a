/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_mark.c - what is kept beside each QEMU on tmpfs, and of those that are gone: marks, keys, RUN/ended.
 *
 *	RUN/vm/VM.ID/mark	struct vmsm_mark of a QEMU that is here (VM6)
 *	RUN/ended/VM		the highest epoch that a QEMU of it was bound to and is gone (VM9), 16 hexadecimal digits
 *
 * Invariant
 *  HM1 What a mark says was bound is in RUN/ended before the mark goes, whoever dies in between: files of an instance that has no process are
 *      read by the next hvhostd before it removes them.
 */
#include "hvhost/hvhostd_internal.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hvhost/hvhostd_store.h"

/* tmpfs: no fsync needed for what must not outlive the node, only for the rename's order; store_file_write does both. */
int inst_json_put(const struct inst *in, const char *file, json_t *o_take)
{
	char path[512], *text = json_dumps(o_take, JSON_COMPACT);
	struct csv_err err = CSV_ERR_INIT;
	int rc;

	inst_path(in, file, path, sizeof(path));
	rc = text ? store_file_write(path, text, strlen(text), 0600, &err) : -ENOMEM;
	if (rc)
		log_to(&in->d->log, LOG_L_ERR, "%s", err.text);
	free(text);
	json_decref(o_take);
	return rc;
}

int inst_mark_read(const struct inst *in, struct vmsm_mark *ret)
{
	char path[512];
	json_t *o = NULL;
	int rc;

	memset(ret, 0, sizeof(*ret));
	inst_path(in, "mark", path, sizeof(path));
	rc = store_json_read(path, &o, NULL);
	if (!rc)
		rc = vm_mark_from_json(o, ret);
	json_decref(o);
	return rc;
}

int inst_mark_put(struct vm_host *h, struct vm_qemu *q, const struct vmsm_mark *m)
{
	(void)h;
	return inst_json_put(q->host, "mark", vm_mark_to_json(m));
}

/* ---- of those that are gone ------------------------------------------------------------------------------------------------- */

static void ended_path(const struct hvd *d, const char *vm, char *ret, size_t room)
{
	snprintf(ret, room, "%s/ended/%s", d->opt.run_dir, vm);
}

uint64_t hvd_ended_get(const struct hvd *d, const char *vm)
{
	char path[512];
	uint64_t epoch = 0;
	FILE *f;

	ended_path(d, vm, path, sizeof(path));
	f = fopen(path, "re");
	if (f && fscanf(f, "%16" SCNx64, &epoch) != 1)
		epoch = 0;
	if (f)
		fclose(f);
	return epoch;
}

void inst_ended_keep(const struct inst *in)
{
	const char *dot = strrchr(in->name, '.');
	struct csv_err err = CSV_ERR_INIT;
	char vm[LEASE_NAME_BYTES], path[512], text[24];
	struct vmsm_mark m;

	if (!dot || (size_t)(dot - in->name) >= sizeof(vm))
		return;
	snprintf(vm, sizeof(vm), "%.*s", (int)(dot - in->name), in->name);
	if (!agent_vm_name_valid(vm) || inst_mark_read(in, &m) || m.bound <= hvd_ended_get(in->d, vm))
		return;
	ended_path(in->d, vm, path, sizeof(path));
	snprintf(text, sizeof(text), "%016" PRIx64 "\n", m.bound);
	if (store_file_write(path, text, strlen(text), 0600, &err))
		log_to(&in->d->log, LOG_L_ERR, "%s: VM %s: %s", in->name, vm, err.text);
}

void hvd_ended_each(struct hvd *d, void (*fn)(struct hvd *d, const char *vm))
{
	char dir[400];
	struct dirent *e;
	DIR *f;

	snprintf(dir, sizeof(dir), "%s/ended", d->opt.run_dir);
	f = opendir(dir);
	while (f && (e = readdir(f)))
		if (agent_vm_name_valid(e->d_name) && hvd_ended_get(d, e->d_name))
			fn(d, e->d_name);
	if (f)
		closedir(f);
}

/* ---- keys --------------------------------------------------------------------------------------------------------------------- */

int inst_psk_put(struct vm_host *h, struct vm_qemu *q, const char *key, char *ret_dir, size_t room, struct csv_err *err)
{
	struct inst *in = q->host;
	char path[512], text[VM_PSK_BYTES + 16];

	(void)h;
	inst_path(in, "psk", ret_dir, room);
	if (mkdir(ret_dir, 0700) && errno != EEXIST)
		return csv_err_set(err, -errno, "%s: %s", ret_dir, strerror(errno));
	inst_path(in, "psk/keys.psk", path, sizeof(path));
	snprintf(text, sizeof(text), "qemu:%s\n", key);
	return store_file_write(path, text, strlen(text), 0600, err);
}

void inst_psk_read(const struct inst *in, char ret[static VM_PSK_BYTES])
{
	char path[512], text[VM_PSK_BYTES + 16] = "";
	FILE *f;

	inst_path(in, "psk/keys.psk", path, sizeof(path));
	f = fopen(path, "re");
	if (f && fgets(text, sizeof(text), f) && !strncmp(text, "qemu:", 5))
		snprintf(ret, VM_PSK_BYTES, "%.64s", text + 5);
	if (f)
		fclose(f);
}
