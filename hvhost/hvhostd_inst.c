/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_inst.c - this node's QEMUs as processes: made, found again after our restart, ended.
 *
 *	RUN/vm/VM.ID/	qmp, console	QEMU's sockets
 *			info.json	what it is: written before it is started
 *			mark, psk/	hvhostd_mark.c
 *	CGROUP/VM.ID	its processes
 *
 * Invariants
 *  HI1 Whatever lives in our cgroup folder is known or is killed: a QEMU whose info cannot be read is nobody's.
 *  HI2 Files of an instance go when its process is gone and its VM has forgotten it.
 *  HI3 Our end leaves QEMUs and their files alone.
 */
#include "hvhost/hvhostd_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hvhost/hvhostd_net.h"
#include "hvhost/hvhostd_store.h"
#include "hvhost/hvhostd_stream.h"
#include "hvhost/qemu_args.h"
#include "utils/base/text.h"

#define UP_MS 60000u
#define AGAIN_NS (500 * NS_PER_MS)

void inst_path(const struct inst *in, const char *file, char *ret, size_t room)
{
	snprintf(ret, room, "%s/%s", in->dir, file);
}

static const char *const files[] = { "qmp", "console", "info.json", "mark", "psk/keys.psk" };

static void files_remove(struct inst *in)
{
	char path[512];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		inst_path(in, files[i], path, sizeof(path));
		unlink(path);
	}
	inst_path(in, "psk", path, sizeof(path));
	rmdir(path);
	rmdir(in->dir);
}

static struct inst *inst_new(struct hvd *d, const char *name)
{
	struct inst *in = calloc(1, sizeof(*in));

	if (!in)
		csv_panic("out of memory");
	in->d = d;
	snprintf(in->name, sizeof(in->name), "%s", name);
	snprintf(in->dir, sizeof(in->dir), "%s/vm/%s", d->opt.run_dir, name);
	cds_list_add_tail(&in->node, &d->insts);
	return in;
}

static void taps_close(struct inst *in)
{
	while (in->n_taps)
		close(in->tap_fds[--in->n_taps]);
}

static void inst_free(struct inst *in)
{
	timer_del(in->d->sched, &in->again);
	mon_close(in->mon);
	taps_close(in);
	proc_forget(&in->proc);
	free(in->conf);
	cds_list_del(&in->node);
	free(in);
}

/* ---- the monitor ------------------------------------------------------------------------------------------------------- */

static void mon_connect(struct inst *in, unsigned timeout_ms);

static void on_ready(void *arg)
{
	struct inst *in = arg;

	vm_qemu_up(in->q, mon_qmp(in->mon));
}

static void on_event(void *arg, const char *name, const json_t *data, uint64_t stamp_us)
{
	struct inst *in = arg;

	log_to(&in->d->log, LOG_L_DEBUG, "%s: %s", in->name, name);
	vm_qemu_event(in->q, name, data, stamp_us);
}

static void again_run(struct timer *t)
{
	struct inst *in = container_of(t, struct inst, again);

	if (in->alive && !in->mon)
		mon_connect(in, UP_MS);
}

static void on_broken(void *arg, const struct csv_err *err)
{
	struct inst *in = arg;

	mon_close(in->mon);
	in->mon = NULL;
	if (!in->q)
		return;
	log_to(&in->d->log, LOG_L_INFO, "%s: %s", in->name, err->text);
	vm_qemu_down(in->q);
	if (in->alive)
		timer_set(in->d->sched, &in->again, sched_now_ns(in->d->sched) + AGAIN_NS);
}

static void mon_connect(struct inst *in, unsigned timeout_ms)
{
	struct qmp_events ev = { .ready = on_ready, .event = on_event, .broken = on_broken, .arg = in };
	char path[512];

	inst_path(in, "qmp", path, sizeof(path));
	if (mon_open(in->d->loop, path, sched_now_ns(in->d->sched) + timeout_ms * NS_PER_MS, &ev, &in->mon))
		csv_panic("out of memory");
}

/* ---- its end -------------------------------------------------------------------------------------------------------------- */

/* The log is the VM's, of all its QEMUs: what is there already is not this one's word. */
static void log_of(struct inst *in, const char *vm)
{
	struct stat st;

	snprintf(in->log, sizeof(in->log), "%s/%s.qemu.log", in->d->opt.log_dir, vm);
	in->log_from = stat(in->log, &st) ? 0 : st.st_size;
}

static void last_words(struct inst *in, struct csv_err *err)
{
	char text[400] = "";
	FILE *f = fopen(in->log, "re");
	struct stat st;

	if (f && !fstat(fileno(f), &st))
		fseek(f, (long)csv_max((off_t)(st.st_size - (off_t)sizeof(text) + 1), in->log_from), SEEK_SET);
	if (f) {
		size_t n = fread(text, 1, sizeof(text) - 1, f);

		while (n && (text[n - 1] == '\n' || text[n - 1] == '\r'))
			n--;
		text[n] = '\0';
		fclose(f);
	}
	csv_err_set(err, -ECHILD, "it ended with status %d%s%s", in->proc.status, *text ? ": " : "", qemu_complaint(text));
}

/* Without a QEMU that anybody knows of, it goes itself. */
static void inst_gone(struct inst *in, const struct csv_err *err)
{
	if (in->q) {
		vm_qemu_gone(in->q, err);
	} else {
		files_remove(in);
		inst_free(in);
	}
}

static void on_exited(struct proc *p)
{
	struct inst *in = container_of(p, struct inst, proc);
	struct csv_err err = CSV_ERR_INIT;

	in->alive = false;
	mon_close(in->mon);
	in->mon = NULL;
	timer_del(in->d->sched, &in->again);
	last_words(in, &err);
	log_to(&in->d->log, LOG_L_NOTE, "%s: QEMU (process %d) is gone: %s", in->name, (int)p->pid, err.text);
	inst_ended_keep(in);
	inst_gone(in, &err);
}

static void host_kill(struct vm_host *h, struct vm_qemu *q)
{
	struct inst *in = q->host;

	(void)h;
	in->kill = true;		/* one that is being made is not started any more */
	if (in->alive)
		proc_kill(&in->proc);
}

static void host_release(struct vm_host *h, struct vm_qemu *q)
{
	struct inst *in = q->host;

	(void)h;
	if (!in)
		return;
	in->q = NULL;
	if (!in->alive && !in->starting) {
		files_remove(in);
		inst_free(in);
	}
}

/* ---- making one --------------------------------------------------------------------------------------------------------------- */

struct conf_read { char *volume, vm[LEASE_NAME_BYTES]; uint32_t n; struct vm_conf *conf; struct csv_err err; };

static void conf_read_drop(void *arg)
{
	struct conf_read *r = arg;

	free(r->volume);
	free(r->conf);
	free(r);
}

static int conf_read_run(void *arg)
{
	struct conf_read *r = arg;

	return store_conf_read(r->volume, r->vm, r->n, &r->conf, &r->err);
}

static int conf_get(struct inst *in, struct csv_err *err)
{
	struct conf_read *r = calloc(1, sizeof(*r));
	bool ran;
	int rc;

	if (!r)
		return -ENOMEM;
	r->volume = strdup(in->d->opt.volume);
	snprintf(r->vm, sizeof(r->vm), "%s", vm_name(in->q->vm));
	r->n = in->q->config;
	rc = work_run(&in->d->work, conf_read_run, r, HVD_STORE_MS, conf_read_drop, &ran, err);
	if (!ran)
		return rc;
	if (rc && err)
		*err = r->err;
	in->conf = r->conf;
	r->conf = NULL;
	conf_read_drop(r);
	return rc;
}

static int accel_choose(struct inst *in, enum vm_accel *ret, struct csv_err *err)
{
	const struct accel_report *r = &in->d->accel;

	*ret = in->conf->accel == VM_ACCEL_AUTO ? r->accel : in->conf->accel;
	if (*ret == VM_ACCEL_KVM && r->accel != VM_ACCEL_KVM)
		return csv_err_set(err, -CSV_E_UNSUPPORTED, "accel: kvm is asked for, and this node has none: %s", r->reason);
	return 0;
}

static void facts_of_conf(struct inst *in, enum vm_accel accel)
{
	struct vm_qemu *q = in->q;

	memcpy(q->uuid, in->conf->uuid, sizeof(q->uuid));
	q->downtime_ms = in->conf->downtime_ms;
	q->memory_bytes = in->conf->memory_bytes;
	snprintf(q->accel, sizeof(q->accel), "%s", accel == VM_ACCEL_KVM ? "kvm" : "tcg");
}

static json_t *info_json(const struct inst *in)
{
	char uuid[CSV_UUID_TEXT_BYTES];

	return json_pack("{s:s, s:s, s:o, s:I, s:i, s:I, s:s}", "vm", vm_name(in->q->vm), "uuid", csv_uuid_to_text(in->q->uuid, uuid), "txid",
			 agent_u64(in->q->txid), "config", (json_int_t)in->q->config, "downtime_ms", (int)in->q->downtime_ms, "memory_bytes",
			 (json_int_t)in->q->memory_bytes, "accel", in->q->accel);
}

static int memory_check(struct inst *in, struct csv_err *err)
{
	uint64_t used = 0;
	struct inst *o;

	cds_list_for_each_entry(o, &in->d->insts, node)
		if (o != in && o->q && (o->alive || o->starting))
			used += o->q->memory_bytes;
	if (used + in->q->memory_bytes > in->d->memory_bytes)
		return csv_err_set(err, -ENOMEM, "%" PRIu64 " MiB are wanted, %" PRIu64 " of this node's %" PRIu64 " MiB are given to VMs already",
				   in->q->memory_bytes >> 20, used >> 20, in->d->memory_bytes >> 20);
	return 0;
}

static int start(struct inst *in, enum vm_accel accel, struct csv_err *err)
{
	struct hvd *d = in->d;
	char vm_dir[600], qmp[512], console[512], console_log[512], **argv = NULL;
	struct qemu_place p = { .qemu = d->opt.qemu, .volume = d->opt.volume, .vm_dir = vm_dir, .qmp = qmp, .console = console,
				.console_log = console_log, .pid_file = "", .accel = accel, .incoming = in->q->incoming };
	int rc = 0;

	snprintf(vm_dir, sizeof(vm_dir), "%s/vms/%s", d->opt.volume, vm_name(in->q->vm));
	inst_path(in, "qmp", qmp, sizeof(qmp));
	inst_path(in, "console", console, sizeof(console));
	snprintf(console_log, sizeof(console_log), "%s/%s.console.log", d->opt.log_dir, vm_name(in->q->vm));
	for (unsigned i = 0; !rc && i < in->conf->n_nics; i++) {
		rc = tap_open(in->conf->nics[i].bridge, &in->tap_fds[i], err);
		in->n_taps += !rc;
	}
	memcpy(p.tap_fds, in->tap_fds, sizeof(p.tap_fds));
	if (!rc)
		rc = qemu_args_new(in->conf, &p, &argv, err);
	if (!rc)
		rc = proc_spawn(&in->proc, d->loop, d->base, in->name, argv, in->tap_fds, in->n_taps, in->log, err);
	taps_close(in);
	qemu_args_free(argv);
	return rc;
}

static void spawn_coro(void *arg)
{
	struct inst *in = arg;
	struct hvd *d = in->d;
	struct csv_err err = CSV_ERR_INIT;
	enum vm_accel accel = VM_ACCEL_TCG;
	int rc = conf_get(in, &err);

	if (!rc && (in->kill || !in->q))
		rc = csv_err_set(&err, -ECANCELED, "not wanted any more");
	if (!rc)
		rc = accel_choose(in, &accel, &err);
	if (!rc) {
		facts_of_conf(in, accel);
		rc = memory_check(in, &err);
	}
	if (!rc && mkdir(in->dir, 0700) && errno != EEXIST)
		rc = csv_err_set(&err, -errno, "%s: %s", in->dir, strerror(errno));
	if (!rc)
		rc = inst_json_put(in, "info.json", info_json(in));
	if (!rc)
		rc = inst_json_put(in, "mark", vm_mark_to_json(&in->q->mark));
	if (!rc)
		rc = start(in, accel, &err);
	in->starting = false;
	if (!rc) {
		in->alive = true;
		log_to(&d->log, LOG_L_NOTE, "%s: QEMU started: process %d, configuration %u, %s%s", in->name, (int)in->proc.pid, in->q->config,
		       in->q->accel, in->q->incoming ? ", waits for a migration" : "");
		mon_connect(in, UP_MS);
		return;
	}
	if (!err.code)
		csv_err_set(&err, rc, "%s", strerror(-rc));
	inst_gone(in, &err);
}

static void host_spawn(struct vm_host *h, struct vm_qemu *q)
{
	struct hvd *d = container_of(h, struct hvd, host);
	char name[HVD_INST_NAME];
	struct inst *in;

	snprintf(name, sizeof(name), "%s.%016" PRIx64, vm_name(q->vm), q->id);
	in = inst_new(d, name);
	in->q = q;
	in->starting = true;
	in->proc.pid_fd = -1;
	in->proc.exited = on_exited;
	timer_init(&in->again, again_run);
	log_of(in, vm_name(q->vm));
	q->host = in;
	if (sched_spawn(d->sched, "spawn", spawn_coro, in))
		csv_panic("out of memory");
}

/* ---- found again ---------------------------------------------------------------------------------------------------------------- */

static int info_read(struct inst *in, struct vm_qemu *facts, char *ret_vm)
{
	int64_t config, downtime, memory;
	char path[512];
	const char *vm, *uuid, *accel;
	json_t *o = NULL;
	int rc;

	inst_path(in, "info.json", path, sizeof(path));
	rc = store_json_read(path, &o, NULL);
	if (!rc && (agent_text(o, "vm", LEASE_NAME_BYTES - 1, &vm, NULL) || !agent_vm_name_valid(vm) ||
		    agent_text(o, "uuid", 40, &uuid, NULL) || csv_uuid_parse(uuid, facts->uuid) || agent_text(o, "accel", 7, &accel, NULL) ||
		    agent_u64_get(o, "txid", &facts->txid, NULL) || agent_int(o, "config", 0, UINT32_MAX, &config, NULL) ||
		    agent_int(o, "downtime_ms", 0, INT32_MAX, &downtime, NULL) || agent_int(o, "memory_bytes", 0, INT64_MAX, &memory, NULL)))
		rc = -EINVAL;
	if (!rc) {
		snprintf(ret_vm, LEASE_NAME_BYTES, "%s", vm);
		snprintf(facts->accel, sizeof(facts->accel), "%s", accel);
		facts->config = (uint32_t)config;
		facts->downtime_ms = (unsigned)downtime;
		facts->memory_bytes = (uint64_t)memory;
	}
	json_decref(o);
	return rc;
}

static void adopt(void *arg, const char *name)
{
	struct hvd *d = arg;
	struct inst *in = NULL;
	struct vm_qemu facts = { 0 };
	struct vmsm_mark mark;
	char vm[LEASE_NAME_BYTES] = "";
	const char *dot = strrchr(name, '.');
	struct hvd_vm *v;

	cds_list_for_each_entry(in, &d->insts, node)
		if (!strcmp(in->name, name))
			return;		/* known */
	if (!strcmp(name, "probe") && d->host.next_id)
		return;
	in = inst_new(d, name);
	in->proc.exited = on_exited;
	timer_init(&in->again, again_run);
	if (proc_adopt(&in->proc, d->loop, d->base, name, NULL)) {
		inst_ended_keep(in);
		files_remove(in);
		inst_free(in);
		return;
	}
	in->alive = true;
	if (!dot || info_read(in, &facts, vm)) {
		hvd_event(d, "error", "", "", "process %d in %s/%s is no QEMU that is known: killed", (int)in->proc.pid, d->base, name);
		proc_kill(&in->proc);
		return;
	}
	log_of(in, vm);
	if (inst_mark_read(in, &mark))		/* an unbound QEMU then; the state machine ends it */
		memset(&mark, 0, sizeof(mark));
	v = hvd_vm_get(d, vm);
	if (!v)
		csv_panic("out of memory");
	if (vm_current(v->vm)) {
		hvd_event(d, "warning", vm, "", "VM %s: a second QEMU of it (process %d) was left from before: killed", vm, (int)in->proc.pid);
		proc_kill(&in->proc);
		return;
	}
	in->q = vm_adopt(v->vm, strtoull(dot + 1, NULL, 16), facts.txid, facts.config, &mark);
	if (!in->q)
		csv_panic("out of memory");
	memcpy(in->q->uuid, facts.uuid, sizeof(facts.uuid));
	memcpy(in->q->accel, facts.accel, sizeof(facts.accel));
	in->q->downtime_ms = facts.downtime_ms;
	in->q->memory_bytes = facts.memory_bytes;
	inst_psk_read(in, in->q->psk);
	in->q->host = in;
	log_to(&d->log, LOG_L_NOTE, "%s: found again: process %d, configuration %u", name, (int)in->proc.pid, facts.config);
	mon_connect(in, UP_MS);
}

/* Files of instances without a process, of a hvhostd that died before it saw to them (HM1). */
static void left_behind(void *arg, const char *name)
{
	struct hvd *d = arg;
	struct inst *in;

	cds_list_for_each_entry(in, &d->insts, node)
		if (!strcmp(in->name, name))
			return;
	in = inst_new(d, name);
	in->proc.pid_fd = -1;
	timer_init(&in->again, again_run);
	inst_ended_keep(in);
	files_remove(in);
	inst_free(in);
}

static void remember(struct hvd *d, const char *vm)
{
	struct hvd_vm *v = hvd_vm_find(d, vm);

	if (v)
		return;
	v = hvd_vm_get(d, vm);
	if (!v)
		csv_panic("out of memory");
	vm_adopt_none(v->vm);
}

int hvd_adopt_all(struct hvd *d, struct csv_err *err)
{
	char dir[400];
	int rc = proc_base(d->opt.cgroup, d->base, sizeof(d->base), err);

	if (rc)
		return rc;
	proc_each(d->base, adopt, d);
	snprintf(dir, sizeof(dir), "%s/vm", d->opt.run_dir);
	proc_each(dir, left_behind, d);
	hvd_ended_each(d, remember);
	return 0;
}

void hvd_reap(struct hvd *d)
{
	struct hvd_vm *v, *tmp;

	proc_each(d->base, adopt, d);
	HASH_ITER(hh, d->vms, v, tmp)
		vm_look(v->vm);
}

void hvd_insts_leave(struct hvd *d)
{
	struct inst *in, *tmp;

	cds_list_for_each_entry_safe(in, tmp, &d->insts, node) {
		in->q = NULL;
		if (!in->starting)
			inst_free(in);
	}
}

/* ---- what the core says --------------------------------------------------------------------------------------------------------- */

static void host_propose(struct vm_host *h, struct vm *vm, const struct lease_cas *cas, uint64_t ring)
{
	struct hvd *d = container_of(h, struct hvd, host);
	struct hvd_vm *v = hvd_vm_of(vm, d);

	if (v && cas->move == LEASE_RELEASE && cas->reason == LEASE_REASON_GUEST_OFF)
		hvd_off_propose(d, v, cas, ring);
	else
		hvd_line_propose(d, v, cas, ring);
}

static void host_say(struct vm_host *h, struct vm *vm, uint32_t node, uint64_t txid, json_t *body_take)
{
	struct hvd *d = container_of(h, struct hvd, host);

	hvd_line_event(d, "peer", json_pack("{s:I, s:s, s:o, s:o}", "to", (json_int_t)node, "vm", vm_name(vm), "txid", agent_u64(txid), "body",
					    body_take));
}

static void host_changed(struct vm_host *h, struct vm *vm)
{
	struct hvd *d = container_of(h, struct hvd, host);
	struct hvd_vm *v = hvd_vm_of(vm, d);

	if (v)
		sched_post(d->sched, &v->changed);
}

static void host_migration(struct vm_host *h, struct vm *vm, json_t *news_take)
{
	(void)vm;
	hvd_line_event(container_of(h, struct hvd, host), "migration", news_take);
}

static void host_event(struct vm_host *h, struct vm *vm, const char *severity, const char *text, const char *command)
{
	hvd_event(container_of(h, struct hvd, host), severity, vm_name(vm), command, "%s", text);
}

static void host_stream_bound(struct vm_host *h, struct vm_qemu *q, unsigned port)
{
	struct inst *in = q->host;
	struct csv_err err = CSV_ERR_INIT;

	(void)h;
	if (stream_bound(in->proc.pid, in->proc.pid_fd, port, STREAM_BUFFER_BYTES, &err))
		log_to(&in->d->log, LOG_L_WARN, "%s: its pause may be longer: %s", in->name, err.text);
}

static void host_stream_break(struct vm_host *h, struct vm *vm, const char *address, unsigned port)
{
	struct csv_err err = CSV_ERR_INIT;
	int rc = stream_break(address, port, &err);

	if (rc < 0)
		host_event(h, vm, "error", err.text, "");
	else if (rc)
		host_event(h, vm, "warning", "the target of its migration fell silent: the connection was ended, it goes on here", "");
}

const struct vm_host_ops hvd_host_ops = {
	.spawn = host_spawn, .kill = host_kill, .release = host_release, .mark = inst_mark_put, .psk = inst_psk_put, .propose = host_propose,
	.say = host_say, .changed = host_changed, .migration = host_migration, .event = host_event,
	.stream_bound = host_stream_bound, .stream_break = host_stream_break,
};
