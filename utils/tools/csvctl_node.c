/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_node.c - nodes as places for virtual machines: emptied, used again, left in order, confirmed to be off.
 */
#include "utils/tools/csvctl.h"

#include <string.h>
#include <unistd.h>

#include "utils/rpc/rpc_client.h"

#define RUN_DIR "/run/csvfs"

void cc_node_add_status(struct cc *cc)
{
	static const char *const keys[] = { "leader", "agent", "drained", "quarantined", "vms", "accel", "memory_free_bytes", "fencing",
					     "problem" };
	struct csv_err err = CSV_ERR_INIT;
	json_t *reply = NULL, *n, *s;
	size_t i, k, j;

	if (rpc_call("csvfs-migrator", "node.status", NULL, cc->timeout_ms, &reply, &err))
		return;
	json_array_foreach(json_object_get(cc->reply, "items"), i, n)
		json_array_foreach(json_object_get(reply, "items"), k, s)
			for (j = 0; j < ARRAY_SIZE(keys); j++)
				if (json_equal(json_object_get(n, "nodeid"), json_object_get(s, "nodeid")))
					json_object_set(n, keys[j], json_object_get(s, keys[j]));
	json_decref(reply);
}

static enum rpc_code node_job(struct cc *cc, const char *verb)
{
	struct cc_node n;
	enum rpc_code code = cc_node_find(cc, cc->n_args ? cc->arg[0] : NULL, &n);

	if (code)
		return code;
	return cc_run_job(cc, verb, json_pack("{s:i, s:s, s:b}", "nodeid", (int)n.id, "node", n.name, "force", cc_opt(cc, "force") != NULL));
}

enum rpc_code cc_node_drain(struct cc *cc)
{
	return node_job(cc, "node.drain");
}

enum rpc_code cc_node_resume(struct cc *cc)
{
	return node_job(cc, "node.resume");
}

/* The life of this node as its coordinator has written it down; ret empty: none. */
static void life_read(char *ret, size_t size)
{
	FILE *f = fopen(RUN_DIR "/incarnation", "re");

	if (!f || !fgets(ret, (int)size, f))
		ret[0] = '\0';
	if (f)
		fclose(f);
}

/* The coordinator of this node ends with it, maybe before it could be asked again: it has left when it wrote that and a new life down. */
enum rpc_code cc_node_shutdown(struct cc *cc)
{
	char before[64] = "", after[64] = "";
	enum rpc_code code;
	struct cc_node n;

	life_read(before, sizeof(before));
	code = node_job(cc, "node.shutdown");
	if (code != RPC_NO_QUORUM || cc_migrator_runs(cc) || access(RUN_DIR "/left", F_OK))
		return code;
	life_read(after, sizeof(after));
	if (!after[0] || !strcmp(before, after) || cc_node_find(cc, NULL, &n))
		return code;
	json_object_set_new(cc->reply, "items", json_array());
	rpc_reply_add_take(cc->reply, json_pack("{s:s, s:s}", "node", n.name, "state", "left"));
	return cc_fail(cc, RPC_OK, "%s", "");
}

/* ---- a person's word that a node is off: for the volumes mounted here, and for the right to run of its virtual machines -------------- */

static enum rpc_code ask_volumes(struct cc *cc, const char *name, uint32_t id, bool *ret_found)
{
	const char *volume = cc_opt(cc, "volume");
	json_t *args = json_pack("{s:i, s:b}", "nodeid", (int)id, "dry_run", cc->dry_run), *item;
	enum rpc_code code;
	unsigned n;
	size_t i;

	code = cc_ask_volumes(cc, &volume, volume ? 1 : 0, "node.confirm-fenced", args, &n);
	json_decref(args);
	json_array_foreach(json_object_get(cc->reply, "items"), i, item) {
		json_object_set_new(item, "node", json_string(name));
		*ret_found |= strcmp(json_string_value(json_object_get(item, "result")), "nothing waits for it") != 0;
	}
	return code;
}

static enum rpc_code ask_leases(struct cc *cc, const char *name, uint32_t id, bool *ret_found)
{
	const char *force = cc_opt(cc, "force");
	json_t *args = json_pack("{s:i, s:s, s:b}", "nodeid", (int)id, "node", name, "dry_run", cc->dry_run), *mine = cc->reply, *item;
	enum rpc_code code;
	size_t i;

	if (force)
		json_object_set_new(args, "force", json_string(force));
	cc->reply = rpc_reply_new("node");
	code = cc_ask_migrator(cc, "node.confirm-fenced", args);
	json_array_foreach(json_object_get(cc->reply, "items"), i, item) {
		json_array_append(json_object_get(mine, "items"), item);
		*ret_found |= json_integer_value(json_object_get(item, "vms")) > 0;
	}
	json_object_set(mine, "message", json_object_get(cc->reply, "message"));
	json_decref(cc->reply);
	cc->reply = mine;
	return code;
}

enum rpc_code cc_node_confirm_fenced(struct cc *cc)
{
	struct cc_node n;
	bool found = false;
	enum rpc_code code = cc_node_find(cc, cc->arg[0], &n);

	if (code)
		return code;
	if (!cc_opt(cc, "yes") && !cc->dry_run)
		return cc_fail(cc, RPC_NEEDS_PROOF,
			       "%s: if it is not off, two nodes write and the volume is lost; make sure with your own eyes that it is off and stays "
			       "off, then say so with --yes", n.name);
	/* The coordinator first: it knows best whether the node lives, and a refusal must leave the volumes alone. */
	code = !cc_opt(cc, "volume") && cc_migrator_runs(cc) ? ask_leases(cc, n.name, n.id, &found) : RPC_OK;
	if (!code)
		code = ask_volumes(cc, n.name, n.id, &found);
	json_object_set_new(cc->reply, "dry_run", json_boolean(cc->dry_run));
	if (!code && !found)
		return cc_fail(cc, RPC_NOT_FOUND, "%s: no volume mounted here waits for a proof that it is off; see: csvctl volume show", n.name);
	return code;
}
