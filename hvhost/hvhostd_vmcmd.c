/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_vmcmd.c - migratord's commands that wait: for the volume (on a thread of their own) or for QEMU.  Each is a coroutine; the answer
 * goes to the connection that asked, or nowhere.
 */
#include "hvhost/hvhostd_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hvhost/hvhostd_store.h"

struct slow {
	struct hvd *d;
	uint64_t conn, id;
	json_t *args;
	int (*fn)(struct slow *s, json_t **ret, struct csv_err *err);
};

/* ---- on the volume --------------------------------------------------------------------------------------------------------- */

struct vol {			/* belongs to the thread while it runs */
	char *volume;
	json_t *args, *ret;
	struct vm_conf *conf;
	struct csv_err err;
	int (*fn)(struct vol *v);
};

static void vol_drop(void *arg)
{
	struct vol *v = arg;

	free(v->volume);
	json_decref(v->args);
	json_decref(v->ret);
	free(v->conf);
	free(v);
}

static int vol_run(void *arg)
{
	struct vol *v = arg;

	return v->fn(v);
}

/* jansson's counts are atomic here (Debian builds it so); the copy is the thread's alone all the same. */
static int on_volume(struct slow *s, int (*fn)(struct vol *v), json_t **ret, struct csv_err *err)
{
	struct vol *v = calloc(1, sizeof(*v));
	bool ran;
	int rc;

	if (!v)
		return csv_err_set(err, -ENOMEM, "out of memory");
	v->volume = strdup(s->d->opt.volume);
	v->args = json_deep_copy(s->args);
	v->fn = fn;
	rc = work_run(&s->d->work, vol_run, v, HVD_STORE_MS, vol_drop, &ran, err);
	if (!ran)
		return rc;
	if (rc)
		*err = v->err;
	*ret = v->ret;
	v->ret = NULL;
	vol_drop(v);
	return rc;
}

static int vm_arg(const json_t *args, const char **ret, struct csv_err *err)
{
	int rc = agent_text(args, "vm", AGENT_VM_NAME_MAX, ret, err);

	if (!rc && !agent_vm_name_valid(*ret))
		rc = csv_err_set(err, -EINVAL, "vm: '%s' is no name of a VM", *ret);
	return rc;
}

static const char *file_arg(const json_t *args, const char *key)
{
	const char *s = json_string_value(json_object_get(args, key));

	return s && *s ? s : NULL;
}

static int define(struct vol *v)
{
	const char *kernel = file_arg(v->args, "kernel"), *initrd = file_arg(v->args, "initrd");
	json_t *config = json_object_get(v->args, "config");
	uint32_t n = 0;
	int rc;

	/* Their names in the VM's folder are given when the number is known. */
	if (json_is_object(config) && kernel && !json_object_get(config, "kernel"))
		json_object_set_new(config, "kernel", json_string("kernel"));
	rc = vmconf_decode(config, &v->conf, &v->err);
	if (rc)
		return csv_err_prefix(&v->err, "config");
	rc = store_define(v->volume, v->conf, kernel, initrd, json_is_true(json_object_get(v->args, "dry_run")), &n, &v->err);
	if (!rc)
		v->ret = json_pack("{s:I}", "config", (json_int_t)n);
	return rc;
}

static int want(struct vol *v)
{
	const char *vm, *text;
	enum vm_want w = VM_WANT_STOPPED;
	struct vm_def d;
	json_t *x;
	int rc = vm_arg(v->args, &vm, &v->err);

	if (!rc)
		rc = store_def_read(v->volume, vm, &d, &v->err);
	if (!rc && json_object_get(v->args, "want")) {
		rc = agent_text(v->args, "want", 16, &text, &v->err);
		if (!rc && vm_want_parse(text, &w))
			rc = csv_err_set(&v->err, -EINVAL, "want: '%s': run, paused or stopped", text);
		d.want = w;
	}
	x = json_object_get(v->args, "ha");
	if (x)
		d.ha = json_is_true(x);
	x = json_object_get(v->args, "priority");
	if (!rc && x) {
		int64_t p;

		rc = agent_int(v->args, "priority", 0, VMCONF_PRIORITY_MAX, &p, &v->err);
		d.priority = (unsigned)p;
	}
	if (!rc)
		rc = store_def_write(v->volume, &d, &v->err);
	return rc;
}

/* "mounted": the volume is, still, so nothing is missing because it is not. */
static int list(struct vol *v)
{
	json_t *items = NULL;
	char dir[512];
	int rc = store_list(v->volume, &items, &v->err);

	mount_dir(v->volume, dir, sizeof(dir));
	if (!rc)
		v->ret = json_pack("{s:o, s:b}", "items", items, "mounted", mount_is_there("/proc/self/mountinfo", dir));
	return rc;
}

static int show(struct vol *v)
{
	const char *vm;
	struct vm_def d;
	int64_t n = 0;
	int rc = vm_arg(v->args, &vm, &v->err);

	if (!rc)
		rc = agent_int_or(v->args, "config", 0, UINT32_MAX, 0, &n, &v->err);
	if (!rc)
		rc = store_def_read(v->volume, vm, &d, &v->err);
	if (!rc)
		rc = store_conf_read(v->volume, vm, n ? (uint32_t)n : d.newest, &v->conf, &v->err);
	if (!rc)
		v->ret = json_pack("{s:s, s:s, s:I, s:I, s:i, s:b, s:o}", "vm", vm, "want", vm_want_to_text(d.want), "config",
				   (json_int_t)(n ? n : d.newest), "newest", (json_int_t)d.newest, "priority", (int)d.priority, "ha", d.ha,
				   "definition", vmconf_encode(v->conf));
	return rc;
}

static int delete(struct vol *v)
{
	const char *vm;
	int rc = vm_arg(v->args, &vm, &v->err);

	return rc ? rc : store_delete(v->volume, vm, json_is_true(json_object_get(v->args, "dry_run")), &v->err);
}

/* ---- commands ------------------------------------------------------------------------------------------------------------------ */

static int do_define(struct slow *s, json_t **ret, struct csv_err *err)
{
	return on_volume(s, define, ret, err);
}

static int do_want(struct slow *s, json_t **ret, struct csv_err *err)
{
	return on_volume(s, want, ret, err);
}

static int do_list(struct slow *s, json_t **ret, struct csv_err *err)
{
	return on_volume(s, list, ret, err);
}

static int do_show(struct slow *s, json_t **ret, struct csv_err *err)
{
	struct hvd_vm *v;
	const char *vm;
	int rc = vm_arg(s->args, &vm, err);

	if (!rc)
		rc = on_volume(s, show, ret, err);
	if (rc)
		return rc;
	v = hvd_vm_find(s->d, vm);
	if (v && vm_current(v->vm)) {
		json_t *q = hvd_vm_json(s->d, v, false);

		json_object_set(*ret, "console", json_object_get(q, "console"));
		json_object_set_new(*ret, "qemu", q);
	}
	return 0;
}

static int do_delete(struct slow *s, json_t **ret, struct csv_err *err)
{
	struct hvd_vm *v;
	const char *vm;
	int rc = vm_arg(s->args, &vm, err);

	if (rc)
		return rc;
	v = hvd_vm_find(s->d, vm);
	if (v && vm_current(v->vm))
		return csv_err_set(err, -EBUSY, "VM %s: a QEMU of it is here: stop it first (csvctl vm stop %s)", vm, vm);
	return on_volume(s, delete, ret, err);
}

static int qemu_of(struct slow *s, struct hvd_vm **ret, struct csv_err *err)
{
	const char *vm;
	int rc = vm_arg(s->args, &vm, err);

	if (rc)
		return rc;
	*ret = hvd_vm_find(s->d, vm);
	if (!*ret || !vm_current((*ret)->vm))
		return csv_err_set(err, -ENOENT, "VM %s does not run on this node", vm);
	return 0;
}

static int do_dirty(struct slow *s, json_t **ret, struct csv_err *err)
{
	struct hvd_vm *v;
	struct vm_qemu *q;
	int64_t seconds, mib = 0;
	json_t *r = NULL;
	int rc = agent_int_or(s->args, "seconds", 1, 60, 1, &seconds, err);

	if (!rc)
		rc = qemu_of(s, &v, err);
	if (rc)
		return rc;
	q = vm_current(v->vm);
	q->refs++;
	rc = q->qmp ? qmp_call(q->qmp, s->d->sched, "calc-dirty-rate", json_pack("{s:I}", "calc-time", (json_int_t)seconds), 10000, NULL, err)
		    : csv_err_set(err, -EPIPE, "its monitor does not answer");
	for (int i = 0; !rc && i < 100; i++) {
		json_decref(r);
		r = NULL;
		coro_sleep_ns(s->d->sched, i ? 50 * NS_PER_MS : (uint64_t)seconds * NS_PER_SEC);
		rc = q->qmp ? qmp_call(q->qmp, s->d->sched, "query-dirty-rate", NULL, 10000, &r, err)
			    : csv_err_set(err, -EPIPE, "its monitor does not answer");
		if (!rc && !strcmp(json_string_value(json_object_get(r, "status")) ? : "", "measured"))
			break;
	}
	mib = json_integer_value(json_object_get(r, "dirty-rate"));
	if (!rc && (!json_is_integer(json_object_get(r, "dirty-rate")) || mib < 0))
		rc = csv_err_set(err, -ETIMEDOUT, "VM %s: QEMU has not measured its dirty rate", v->name);
	if (!rc)
		*ret = json_pack("{s:I, s:I, s:I}", "pages_per_s", (json_int_t)(mib << 20) / 4096, "memory_bytes", (json_int_t)q->memory_bytes,
				 "rate_bps", (json_int_t)(mib << 23));
	json_decref(r);
	vm_qemu_done_with(q);
	return rc;
}

static int do_rebind(struct slow *s, json_t **ret, struct csv_err *err)
{
	struct hvd_vm *v;
	int rc = qemu_of(s, &v, err);

	(void)ret;
	return rc ? rc : vm_rebind(v->vm, err);
}

static void slow_coro(void *arg)
{
	struct slow *s = arg;
	struct csv_err err = CSV_ERR_INIT;
	json_t *ret = NULL;
	int rc = s->fn(s, &ret, &err);

	hvd_line_reply(s->d, s->conn, s->id, rc ? rpc_code_of(rc) : RPC_OK, rc ? err.text : "", ret);
	json_decref(s->args);
	free(s);
}

bool hvd_slow_command(struct hvd *d, uint64_t conn, const struct agent_msg *m)
{
	static const struct { const char *name; int (*fn)(struct slow *s, json_t **ret, struct csv_err *err); } table[] = {
		{ "vm.define", do_define }, { "vm.want", do_want }, { "vm.list", do_list }, { "vm.show", do_show }, { "vm.delete", do_delete },
		{ "vm.dirty", do_dirty }, { "rebind", do_rebind },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct slow *s;

		if (strcmp(table[i].name, m->name))
			continue;
		s = calloc(1, sizeof(*s));
		if (!s)
			csv_panic("out of memory");
		*s = (struct slow){ d, conn, m->id, json_incref(m->body), table[i].fn };
		if (sched_spawn(d->sched, table[i].name, slow_coro, s))
			csv_panic("out of memory");
		return true;
	}
	return false;
}
