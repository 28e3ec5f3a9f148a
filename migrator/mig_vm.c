/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_vm.c - create, stop, delete (start: mig_start.c).  Each is a job of the leader: it changes what is wanted, durably first (MC5), and waits
 * until the leases say that it is so.
 *
 * One thread.
 */
#include "migrator/mig_work.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "utils/base/text.h"

#define DEFINE_MS 120000u		/* kernel and initrd are copied */
#define WANT_MS 15000u
#define MEMORY_DEFAULT (512ll << 20)

/* ---- shared ------------------------------------------------------------------------------------------------------------------------------ */

static json_t *not_settled(void)
{
	return rpc_reply_error(RPC_NO_QUORUM, "the leases are not settled yet (a view change, or a cold start); again in a moment; see: csvctl ha "
			       "status");
}

const struct lease *mig_vm_lease(struct mig *m, const char *vm, json_t **ret_reply)
{
	const struct lease *l = NULL;

	if (!mig_settled(m)) {
		*ret_reply = not_settled();
	} else {
		l = mig_lease(m, vm);
		if (!l)
			*ret_reply = mig_known_refuse(m, vm);
	}
	return l;
}

int mig_set(struct mig *m, const char *vm, int want, int ha, int priority)
{
	uint64_t end = mig_now(m) + 120 * NS_PER_SEC;
	struct lease_cas cas;
	const struct lease *l;
	int rc;

	for (;;) {
		l = mig_lease(m, vm);
		if (!l && mig_settled(m))
			return -ENOENT;
		rc = -CSV_E_NOQUORUM;
		/* Changes queue behind an open txid. */
		if (l && !l->txid && !leasedb_is_open(mig_leases_db(m), vm)) {
			mig_cas(l, LEASE_SET, &cas);
			if (want >= 0)
				cas.want = (uint8_t)want;
			if (ha >= 0)
				cas.flags = ha ? LEASE_HA : 0;
			if (priority >= 0)
				cas.priority = (uint8_t)csv_min(priority, 255);
			rc = mig_propose(m, &cas);
		} else if (l) {
			rc = -EBUSY;
		}
		if (rc != -ESTALE && rc != -EBUSY && rc != -ECANCELED && rc != -CSV_E_NOQUORUM && rc != -EAGAIN)
			return rc;
		if (mig_now(m) > end)
			return rc;
		mig_wait_change(m, mig_now(m) + 100 * NS_PER_MS);
	}
}

enum rpc_code mig_want_durable(struct mig *m, const char *vm, enum lease_want want, char *ret_text, size_t size)
{
	struct mig_answer a;
	uint32_t host = mig_any_host(m);
	enum rpc_code code;
	int rc;

	if (!host) {
		snprintf(ret_text, size, "%s: no node has the volume mounted and hvhostd running", vm);
		return RPC_CONFLICT;
	}
	rc = mig_call(m, host, "vm.want", json_pack("{s:s, s:s}", "vm", vm, "want", lease_want_name(want)), WANT_MS, &a);
	code = rc ? rpc_code_of(rc) : (enum rpc_code)a.code;
	if (code)
		snprintf(ret_text, size, "%s: its definition cannot be changed: %s", vm, rc ? csv_err_describe(rc) : a.message);
	mig_answer_done(&a);
	return code;
}

enum rpc_code mig_want_set(struct mig *m, const char *vm, enum lease_want want, char *ret_text, size_t size)
{
	enum rpc_code code = mig_want_durable(m, vm, want, ret_text, size);
	int rc = code ? 0 : mig_set(m, vm, (int)want, -1, -1);

	if (!rc)
		return code;
	snprintf(ret_text, size, "%s: its lease cannot be changed: %s", vm, csv_err_describe(rc));
	return rpc_code_of(rc);
}

void mig_vm_pin(struct mig *m, const char *vm, uint32_t nodeid)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "pin/%s", vm);
	if (nodeid || mig_item_get(m, key))
		mig_item_put_take(m, key, nodeid ? json_pack("{s:i}", "node", (int)nodeid) : NULL);
}

/* ---- create ---------------------------------------------------------------------------------------------------------------------------------- */

static void uuid_new(struct mig *m, char ret[static CSV_UUID_TEXT_BYTES])
{
	uint64_t v[2] = { env_rnd(m->env), env_rnd(m->env) };
	uint8_t b[16];

	memcpy(b, v, sizeof(b));
	b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
	csv_uuid_to_text(b, ret);
}

/* Relative to the volume; NULL: not on it. */
static const char *on_volume(const char *path, const char *volume)
{
	size_t n = strlen(volume);

	if (path[0] != '/')
		return path;
	if (!n || strncmp(path, volume, n) || path[n] != '/')
		return NULL;
	path += n + 1;
	return !strncmp(path, ".raw/", 5) ? path + 5 : path;
}

static json_t *config_new(struct mig *m, const json_t *args, const char *volume, char *ret_text, size_t size)
{
	json_t *disks = json_array(), *cfg, *d;
	json_int_t memory = mig_int(args, "memory_bytes"), cpus = mig_int(args, "cpus");
	const char *path, *accel = mig_text(args, "accel"), *bridge = mig_text(args, "bridge");
	uint64_t r = env_rnd(m->env);
	char uuid[CSV_UUID_TEXT_BYTES], mac[24];
	size_t i;

	json_array_foreach(json_object_get(args, "disks"), i, d) {
		path = on_volume(json_is_string(d) ? json_string_value(d) : "", volume);
		if (!path || !*path) {
			snprintf(ret_text, size, "--disk %s: must be on the volume %s", json_is_string(d) ? json_string_value(d) : "?", volume);
			json_decref(disks);
			return NULL;
		}
		json_array_append_new(disks, json_pack("{s:s}", "path", path));
	}
	uuid_new(m, uuid);
	cfg = json_pack("{s:s, s:s, s:I, s:I, s:o}", "name", mig_text(args, "name"), "uuid", uuid, "memory_bytes", memory ? memory : MEMORY_DEFAULT,
			"cpus", cpus ? cpus : 1, "disks", disks);
	if (*accel)
		json_object_set_new(cfg, "accel", json_string(accel));
	if (*bridge) {
		snprintf(mac, sizeof(mac), "52:54:00:%02x:%02x:%02x", (unsigned)(r & 255), (unsigned)(r >> 8 & 255), (unsigned)(r >> 16 & 255));
		json_object_set_new(cfg, "nics", json_pack("[{s:s, s:s}]", "bridge", bridge, "mac", mac));
	}
	if (*mig_text(args, "append"))
		json_object_set_new(cfg, "append", json_string(mig_text(args, "append")));
	if (*mig_text(args, "port"))
		json_object_set_new(cfg, "port", json_string(mig_text(args, "port")));
	return cfg;
}

static unsigned priority_of(const json_t *args)
{
	return json_object_get(args, "priority") ? (unsigned)csv_min(csv_max(mig_int(args, "priority"), (json_int_t)0), (json_int_t)255) : 100;
}

static enum rpc_code set_def(struct mig *m, uint32_t host, const json_t *args, char *ret_text, size_t size)
{
	struct mig_answer a;
	int rc = mig_call(m, host, "vm.want", json_pack("{s:s, s:s, s:b, s:i}", "vm", mig_text(args, "name"), "want", "stopped", "ha",
							!json_is_false(json_object_get(args, "ha")), "priority", (int)priority_of(args)), WANT_MS, &a);
	enum rpc_code code = rc ? rpc_code_of(rc) : (enum rpc_code)a.code;

	if (code)
		snprintf(ret_text, size, "%s: its definition cannot be changed: %s", mig_text(args, "name"), rc ? csv_err_describe(rc) : a.message);
	mig_answer_done(&a);
	return code;
}

/* vm.define on the node that was asked: kernel and initrd are its files. */
static enum rpc_code define(struct mig *m, uint32_t host, const json_t *args, bool dry_run, json_t **ret_cfg, char *ret_text, size_t size)
{
	const char *volume = mig_text(json_object_get(mig_host_of(m, host), "host"), "volume");
	json_t *cfg = config_new(m, args, volume, ret_text, size), *cmd;
	struct mig_answer a;
	enum rpc_code code;
	int rc;

	if (!cfg)
		return RPC_USAGE;
	cmd = json_pack("{s:O, s:b}", "config", cfg, "dry_run", dry_run);
	if (*mig_text(args, "kernel"))
		json_object_set(cmd, "kernel", json_object_get(args, "kernel"));
	if (*mig_text(args, "initrd"))
		json_object_set(cmd, "initrd", json_object_get(args, "initrd"));
	rc = mig_call(m, host, "vm.define", cmd, DEFINE_MS, &a);
	code = rc ? rpc_code_of(rc) : (enum rpc_code)a.code;
	if (code)
		snprintf(ret_text, size, "%s: %s", mig_text(args, "name"), rc ? csv_err_describe(rc) : a.message);
	mig_answer_done(&a);
	*ret_cfg = cfg;
	return code || dry_run ? code : set_def(m, host, args, ret_text, size);
}

static void create_job(struct mig_job *j)
{
	struct mig *m = j->m;
	const char *vm = mig_text(j->args, "name");
	struct lease_cas cas = { .move = LEASE_CREATE, .role = LEASE_BY_COORD, .want = LEASE_WANT_STOPPED };
	uint64_t end = mig_now(m) + 60 * NS_PER_SEC;
	json_t *cfg = NULL;
	char text[600];
	enum rpc_code code;
	int rc = 0;

	mig_job_step(j, 10, "writing its definition");
	/* One after the other: a disk that is free for two at once would be had by both. */
	while (m->defining)
		mig_wait_change(m, mig_now(m) + 100 * NS_PER_MS);
	m->defining = true;
	code = define(m, j->from, j->args, false, &cfg, text, sizeof(text));
	m->defining = false;
	mig_poke(m);
	json_decref(cfg);
	if (code) {
		mig_job_done_take(j, code, NULL, "%s", text);
		return;
	}
	snprintf(cas.vm, sizeof(cas.vm), "%s", vm);
	cas.flags = json_is_false(json_object_get(j->args, "ha")) ? 0 : LEASE_HA;
	cas.priority = (uint8_t)priority_of(j->args);
	mig_job_step(j, 80, "making its lease");
	/* The leader's look may have found the definition and done it. */
	while (!mig_lease(m, vm) && mig_now(m) < end) {
		if (mig_settled(m) && !leasedb_is_open(mig_leases_db(m), vm))
			rc = mig_propose(m, &cas);
		if (!mig_lease(m, vm))
			mig_wait_change(m, mig_now(m) + 100 * NS_PER_MS);
	}
	if (!mig_lease(m, vm)) {
		mig_job_done_take(j, rpc_code_of(rc), NULL, "%s: its lease cannot be made: %s; its definition is there, the leader goes on trying", vm,
				  csv_err_describe(rc));
		return;
	}
	if (*mig_text(j->args, "node"))
		mig_vm_pin(m, vm, mig_node_by_name(m, mig_text(j->args, "node")));
	m->defs_ns = 0;			/* its configuration's number and memory */
	mig_poke(m);
	mig_job_done_take(j, RPC_OK, mig_vm_item(m, vm), "%s", "");
}

json_t *mig_vm_create(const struct mig_ask *a)
{
	struct mig *m = a->m;
	const char *vm = mig_text(a->args, "name"), *node = mig_text(a->args, "node");
	const json_t *h;
	enum rpc_code code;
	json_t *reply, *cfg = NULL;
	char text[600];

	if (!lease_vm_valid(vm))
		return rpc_reply_error(RPC_USAGE, "%s: a VM's name has letters, digits, '-', '_', '.', at most %d, and does not begin with '.' or '-'", vm,
				       LEASE_NAME_BYTES - 1);
	if (!json_array_size(json_object_get(a->args, "disks")))
		return rpc_reply_error(RPC_USAGE, "%s: a VM needs at least one --disk", vm);
	if (*node && !mig_node_by_name(m, node))
		return rpc_reply_error(RPC_NOT_FOUND, "%s: no such node in corosync's node list; see: csvctl node list", node);
	if (!mig_settled(m))
		return not_settled();
	if (mig_lease(m, vm))
		return rpc_reply_error(RPC_CONFLICT, "%s: there is a VM of this name; see: csvctl vm show %s", vm, vm);
	if (!mig_host_ready(m, a->from))
		return rpc_reply_error(RPC_CONFLICT, "%s: hvhostd does not run on this node; start it: systemctl start hvhostd", mig_node_name(m, a->from));
	h = json_object_get(mig_host_of(m, a->from), "host");
	if (!*mig_text(h, "volume"))
		return rpc_reply_error(RPC_CONFLICT, "%s: %s%s%s", mig_node_name(m, a->from),
				       *mig_text(h, "mount_reason") ? mig_text(h, "mount_reason") : "no volume is mounted here",
				       *mig_text(h, "mount_command") ? "; then: " : "", mig_text(h, "mount_command"));
	if (!a->dry_run)
		return mig_job_start(a, "create", vm, create_job);
	code = define(m, a->from, a->args, true, &cfg, text, sizeof(text));
	reply = code ? rpc_reply_error(code, "%s", text) : rpc_reply_new("vm");
	if (!code)
		rpc_reply_add_take(reply, json_pack("{s:s, s:s, s:O}", "name", vm, "state", "would be created", "definition", cfg));
	json_decref(cfg);
	return reply;
}

/* ---- stop ------------------------------------------------------------------------------------------------------------------------------------------ */

static void stop_job(struct mig_job *j)
{
	struct mig *m = j->m;
	const char *vm = mig_text(j->args, "name");
	json_int_t grace_s = mig_int(j->args, "grace_s");
	bool force = json_is_true(json_object_get(j->args, "force")), asked = false;
	uint64_t kill_ns = mig_now(m) + (uint64_t)(force ? grace_s : grace_s ? grace_s : 60) * NS_PER_SEC;
	const struct lease *l;
	struct mig_answer a;
	char text[600];
	enum rpc_code code;
	json_t *note;

	mig_job_step(j, 10, "its definition says: stopped");
	code = mig_want_set(m, vm, LEASE_WANT_STOPPED, text, sizeof(text));
	if (code) {
		mig_job_done_take(j, code, NULL, "%s", text);
		return;
	}
	for (;;) {
		l = mig_lease(m, vm);
		if (mig_settled(m) && (!l || l->state == LEASE_FREE))
			break;
		if (l && l->state == LEASE_BLOCKED) {
			note = mig_lease_note(m, l);
			mig_job_done_take(j, RPC_NEEDS_PROOF, NULL, "%s", mig_text(note, "reason"));
			json_decref(note);
			return;
		}
		mig_job_step(j, 50, asked ? "switching it off" : "the guest is asked to shut down");
		if (l && !asked && l->state == LEASE_RUNNING && mig_now(m) >= kill_ns) {
			asked = !mig_call(m, l->owner, "vm.kill", json_pack("{s:s}", "vm", vm), WANT_MS, &a) && !a.code;
			mig_answer_done(&a);
			if (asked)
				continue;
		}
		mig_wait_change(m, mig_now(m) + 500 * NS_PER_MS);
	}
	mig_job_done_take(j, RPC_OK, mig_vm_item(m, vm), "%s", "");
}

json_t *mig_vm_stop(const struct mig_ask *a)
{
	struct mig *m = a->m;
	const char *vm = mig_text(a->args, "name");
	const struct lease *l;
	json_t *reply;

	l = mig_vm_lease(m, vm, &reply);
	if (!l)
		return reply;
	if (l->state == LEASE_FREE && l->want == LEASE_WANT_STOPPED)
		return rpc_reply_error(RPC_CONFLICT, "%s: is stopped already", vm);
	if (!a->dry_run)
		return mig_job_start(a, "stop", vm, stop_job);
	reply = rpc_reply_new("vm");
	rpc_reply_add_take(reply, json_pack("{s:s, s:s, s:s}", "name", vm, "node", mig_node_name(m, l->owner), "state", "would be stopped"));
	return reply;
}

/* ---- delete ------------------------------------------------------------------------------------------------------------------------------------------ */

static void delete_job(struct mig_job *j)
{
	struct mig *m = j->m;
	const char *vm = mig_text(j->args, "name");
	const struct lease *l = mig_lease(m, vm);
	struct mig_answer a = { 0 };
	struct lease_cas cas;
	char key[MIG_KEY_MAX];
	int rc = 0;

	/* Its definition without a lease would be given one again. */
	snprintf(key, sizeof(key), "deleting/%s", vm);
	mig_item_put_take(m, key, json_pack("{s:s}", "vm", vm));
	if (l) {
		mig_cas(l, LEASE_DELETE, &cas);
		rc = mig_propose(m, &cas);
	}
	if (!rc)
		rc = mig_call(m, mig_any_host(m), "vm.delete", json_pack("{s:s, s:b}", "vm", vm, "dry_run", false), WANT_MS, &a);
	if (rc || a.code)
		mig_job_done_take(j, rc ? rpc_code_of(rc) : (enum rpc_code)a.code, NULL, "%s: %s", vm, rc ? csv_err_describe(rc) : a.message);
	else
		mig_job_done_take(j, RPC_OK, json_pack("{s:s, s:s}", "name", vm, "state", "deleted"), "%s", "");
	snprintf(key, sizeof(key), "def/%s", vm);
	if (!rc && !a.code)
		mig_item_put_take(m, key, NULL);
	mig_answer_done(&a);
	snprintf(key, sizeof(key), "deleting/%s", vm);
	mig_item_put_take(m, key, NULL);
	mig_vm_pin(m, vm, 0);
}

json_t *mig_vm_delete(const struct mig_ask *a)
{
	struct mig *m = a->m;
	const char *vm = mig_text(a->args, "name");
	const struct lease *l;
	json_t *reply;

	l = mig_vm_lease(m, vm, &reply);
	if (!l)
		return reply;
	if (l->state == LEASE_FREE && l->want != LEASE_WANT_STOPPED)
		return rpc_reply_error(RPC_CONFLICT, "%s: it is to run, and started as soon as it can be; stop it first: csvctl vm stop %s", vm, vm);
	if (l->state != LEASE_FREE)
		return rpc_reply_error(RPC_CONFLICT, "%s: is %s on %s; stop it first: csvctl vm stop %s", vm,
				       lease_state_name((enum lease_state)l->state), mig_node_name(m, l->owner), vm);
	if (!mig_any_host(m))
		return rpc_reply_error(RPC_CONFLICT, "%s: no node has the volume mounted and hvhostd running", vm);
	if (!a->dry_run)
		return mig_job_start(a, "delete", vm, delete_job);
	reply = rpc_reply_new("vm");
	rpc_reply_add_take(reply, json_pack("{s:s, s:s}", "name", vm, "state", "would be deleted"));
	return reply;
}
