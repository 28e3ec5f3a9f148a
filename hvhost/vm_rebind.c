/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vm_rebind.c - a VM whose volume went away under it gets its disks anew, in the QEMU that it has.
 *
 * When csvfsd dies, every descriptor that QEMU has on its mount is dead for ever: requests fail, werror and rerror stop the guest, and QEMU
 * keeps the requests.  When the volume is mounted again:
 *
 *	each disk: blockdev-add (a new file node and a new raw node, the same path) -> qom-set drive (the device takes the new node,
 *	nothing is flushed into the old one) -> blockdev-del (the old nodes, and with them the dead descriptors)
 *	all disks: VMSM_EV_STORAGE_OK -> `cont`: the kept requests are done again, on the new nodes
 *
 * Where the volume was full nothing is dead: once there is room, `cont` alone does the kept requests again.
 *
 * Why not by a migration into a fresh QEMU: QEMU flushes all disks before it hands over, the flush into a dead descriptor fails, and so
 * does the migration.  It would also want the memory twice.
 *
 * Invariants
 *  RB1 The guest stands still from the error to the end of this: only the state machine gives `cont`, by the lease (VM1).
 *  RB2 A disk that cannot be opened anew leaves the VM as it is, frozen, with the reason; what was done already stays, and the next try does the rest.
 */
#include "hvhost/vm_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NODE_BYTES 32		/* QEMU's limit */

struct disk { const char *qdev, *node, *path; bool read_only; };

static int call(struct vm *vm, struct vm_qemu *q, const char *command, json_t *args_take, json_t **ret, struct csv_err *err)
{
	if (!q->qmp || q->gone) {
		json_decref(args_take);
		return csv_err_set(err, -EPIPE, "the monitor's connection is gone");
	}
	return qmp_call(q->qmp, vm_sched(vm), command, args_take, VM_QMP_MS, ret, err);
}

/* The nodes' options are those of qemu_args.c. */
static int disk_anew(struct vm *vm, struct vm_qemu *q, const struct disk *d, struct csv_err *err)
{
	uint64_t id = ++vm->h->next_id & 0xffffffffffull;
	char file[NODE_BYTES], node[NODE_BYTES], path[128], old_file[NODE_BYTES + 8];
	int rc;

	snprintf(file, sizeof(file), "file-%" PRIx64, id);
	snprintf(node, sizeof(node), "disk-%" PRIx64, id);
	snprintf(path, sizeof(path), "/machine/peripheral/%.64s", d->qdev);
	rc = call(vm, q, "blockdev-add", json_pack("{s:s, s:s, s:s, s:b, s:b, s:s, s:{s:b, s:b}}", "driver", "file", "node-name", file, "filename",
						   d->path, "read-only", d->read_only, "auto-read-only", 0, "discard", "unmap", "cache",
						   "direct", 1, "no-flush", 0), NULL, err);
	if (rc)
		return csv_err_prefix(err, "%s", d->path);
	rc = call(vm, q, "blockdev-add", json_pack("{s:s, s:s, s:s, s:b, s:s, s:{s:b, s:b}}", "driver", "raw", "node-name", node, "file", file,
						   "read-only", d->read_only, "discard", "unmap", "cache", "direct", 1, "no-flush", 0), NULL, err);
	if (rc) {
		call(vm, q, "blockdev-del", json_pack("{s:s}", "node-name", file), NULL, NULL);
		return csv_err_prefix(err, "%s", d->path);
	}
	rc = call(vm, q, "qom-set", json_pack("{s:s, s:s, s:s}", "path", path, "property", "drive", "value", node), NULL, err);
	if (rc) {
		call(vm, q, "blockdev-del", json_pack("{s:s}", "node-name", node), NULL, NULL);
		call(vm, q, "blockdev-del", json_pack("{s:s}", "node-name", file), NULL, NULL);
		return csv_err_prefix(err, "%s", d->qdev);
	}
	/* Their names differ in the first four letters.  Old nodes that stay cost descriptors and nothing else. */
	call(vm, q, "blockdev-del", json_pack("{s:s}", "node-name", d->node), NULL, NULL);
	snprintf(old_file, sizeof(old_file), "file%s", d->node + 4);
	call(vm, q, "blockdev-del", json_pack("{s:s}", "node-name", old_file), NULL, NULL);
	return 0;
}

/* -ENODATA: nothing that has to be opened anew. */
static int disk_of(const json_t *o, struct disk *ret)
{
	const json_t *in = json_object_get(o, "inserted");
	const char *qdev = json_string_value(json_object_get(o, "qdev"));

	ret->node = json_string_value(json_object_get(in, "node-name"));
	ret->path = json_string_value(json_object_get(in, "file"));
	ret->read_only = json_is_true(json_object_get(in, "ro"));
	if (!qdev || !ret->node || !ret->path || strncmp(ret->node, "disk", 4))
		return -ENODATA;
	ret->qdev = strrchr(qdev, '/') ? strrchr(qdev, '/') + 1 : qdev;
	return 0;
}

static bool status_is(const json_t *disk, const char *status)
{
	const char *s = json_string_value(json_object_get(disk, "io-status"));

	return s && !strcmp(s, status);
}

/* *ret_room: it was room that was missing. */
static int rebind(struct vm *vm, struct vm_qemu *q, bool *ret_room, struct csv_err *err)
{
	json_t *list = NULL, *v;
	size_t i;
	int rc = call(vm, q, "query-block", NULL, &list, err);

	*ret_room = false;
	json_array_foreach(list, i, v)
		*ret_room |= status_is(v, "nospace");
	for (i = 0; !rc && i < json_array_size(list); i++) {
		struct disk d;

		v = json_array_get(list, i);
		if (!disk_of(v, &d) && (!*ret_room || status_is(v, "failed")))
			rc = disk_anew(vm, q, &d, err);
	}
	json_decref(list);
	return rc;
}

int vm_rebind(struct vm *vm, struct csv_err *err)
{
	struct vm_qemu *q = vm->q;
	bool room = false;
	int rc;

	if (!q || !q->known || q->gone || q->killing || q->state != VMSM_Q_IOERROR)
		return csv_err_set(err, -EBUSY, "VM %s: does not stand still because of an I/O error here", vm->name);
	if (q->mig >= VMSM_M_ACTIVE && q->mig <= VMSM_M_DEVICE)
		return csv_err_set(err, -EBUSY, "VM %s: a migration of it is under way", vm->name);
	if (vm->rebinding)
		return csv_err_set(err, -EBUSY, "VM %s: its disks are being opened anew", vm->name);
	vm->rebinding = true;
	vm_get(vm);
	vm_qemu_get(q);
	rc = rebind(vm, q, &room, err);
	vm->rebinding = false;
	if (rc) {
		csv_err_prefix(err, "VM %s: its disks cannot be opened anew", vm->name);
	} else if (!vm->freed && vm->q == q) {
		vm_note(vm, "info", "", room ? "VM %s: there is room on the volume again: it goes on" :
			"VM %s: the volume serves again: its disks are opened anew, it goes on", vm->name);
		vm_storage_ok(vm);
	}
	vm_qemu_put(q);
	vm_put(vm);
	return rc;
}
