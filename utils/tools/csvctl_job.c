/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_job.c - asking the coordinator, and waiting for the end of what it does as a job.
 *
 * Long work is begun by one request and goes on in the cluster, whatever becomes of csvctl; any node's coordinator can be asked how
 * far it is.  A job's item: id, kind, object, state (running, done, failed, cancelled), step, percent, code, message, result {}.
 */
#include "utils/tools/csvctl_admin.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "utils/rpc/rpc_client.h"

#define MIGRATOR "csvfs-migrator"
#define POLL_MS 100
#define AWAY_MAX_MS 10000		/* a coordinator that restarts meanwhile */

static enum rpc_code call(struct cc *cc, const char *verb, const json_t *args, int timeout_ms, json_t **ret)
{
	struct csv_err err = CSV_ERR_INIT;
	struct admin_seen seen;
	int rc = rpc_call(MIGRATOR, verb, args, timeout_ms, ret, &err);

	if (rc == -ECONNREFUSED)
		return cc_fail(cc, RPC_NO_QUORUM, "the coordinator does not run on this node; start it: systemctl start migratord");
	if (rc == -ETIMEDOUT && admin_look(&seen) && !seen.quorate)
		return cc_fail(cc, RPC_NO_QUORUM, "no quorum: %u node%s here, nothing can be changed; the coordinator waited %d s for it; start more nodes, "
			       "see: csvctl cluster status", seen.n, seen.n == 1 ? " is" : "s are", timeout_ms / 1000);
	if (rc == -ETIMEDOUT)
		return cc_fail(cc, RPC_TIMEOUT, "the coordinator of this node has not answered within %d s; what was asked for may still be done: see csvctl job "
			       "list, and journalctl -u migratord", timeout_ms / 1000);
	return rc ? cc_fail(cc, rpc_code_of(rc), "%s", err.text) : RPC_OK;
}

bool cc_migrator_runs(const struct cc *cc)
{
	struct csv_err err = CSV_ERR_INIT;
	json_t *reply = NULL;
	int rc = rpc_call(MIGRATOR, "ha.ping", NULL, cc->timeout_ms, &reply, &err);

	json_decref(reply);
	return rc != -ECONNREFUSED;
}

enum rpc_code cc_ask_migrator(struct cc *cc, const char *verb, json_t *args)
{
	json_t *reply = NULL;
	enum rpc_code code;

	if (cc->cmd->change)
		json_object_set_new(args, "dry_run", json_boolean(cc->dry_run));
	code = call(cc, verb, args, cc->timeout_ms, &reply);
	json_decref(args);
	if (!reply)
		return code;
	json_decref(cc->reply);
	cc->reply = reply;
	if (cc->cmd->change)
		json_object_set_new(reply, "dry_run", json_boolean(cc->dry_run));
	return rpc_reply_code(reply);
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static void show_progress(const struct cc *cc, const json_t *job)
{
	unsigned pct = (unsigned)json_integer_value(json_object_get(job, "percent"));
	char bar[21];

	if (!cc->progress)
		return;
	pct = csv_min(pct, 100u);
	memset(bar, '.', 20);
	memset(bar, '#', pct / 5);
	bar[20] = 0;
	fprintf(stderr, "\r\033[K%s %s [%s] %3u%% %.60s", text(job, "kind"), text(job, "object"), bar, pct, text(job, "step"));
}

/* The job's end as this command's own: its result is the item; one that failed has none. */
static enum rpc_code finish(struct cc *cc, json_t *reply, const json_t *job)
{
	enum rpc_code code = (enum rpc_code)json_integer_value(json_object_get(job, "code"));
	json_t *result = json_object_get(job, "result"), *items = json_array(), *w;
	size_t i;

	if (json_is_object(result))
		json_array_append(items, result);
	json_object_set_new(cc->reply, "items", items);
	json_object_set_new(cc->reply, "message", json_string(text(job, "message")));
	json_object_set(cc->reply, "job", json_object_get(job, "id"));
	json_array_foreach(json_object_get(job, "warnings"), i, w)
		json_array_append(json_object_get(cc->reply, "warnings"), w);
	json_decref(reply);
	return code;
}

static enum rpc_code wait_for(struct cc *cc, const char *id)
{
	int64_t begin = cc_now_ms(), answered = begin;
	json_t *args = json_pack("{s:s}", "id", id);
	enum rpc_code code = RPC_OK;

	for (;;) {
		json_t *reply = NULL, *job;
		int64_t now = cc_now_ms();

		if (*cc->cancelled) {
			code = cc_fail(cc, RPC_INTERRUPTED, "job %s goes on; see: csvctl job show %s", id, id);
			break;
		}
		if (cc->timeout_given && now - begin >= cc->timeout_ms) {
			code = cc_fail(cc, RPC_TIMEOUT, "job %s is not done after %d ms and goes on; see: csvctl job show %s", id, cc->timeout_ms, id);
			break;
		}
		code = call(cc, "job.show", args, 5000, &reply);
		job = json_array_get(json_object_get(reply, "items"), 0);
		if (code == RPC_OK && job) {
			answered = now;
			show_progress(cc, job);
			if (strcmp(text(job, "state"), "running")) {
				if (cc->progress)
					fputs("\r\033[K", stderr);
				code = finish(cc, reply, job);
				break;
			}
		} else if (now - answered > AWAY_MAX_MS) {
			if (reply)
				code = cc_fail(cc, rpc_reply_code(reply), "job %s: %s", id, text(reply, "message"));
			json_decref(reply);
			break;
		}
		json_decref(reply);
		poll(NULL, 0, POLL_MS);
	}
	json_decref(args);
	return code;
}

enum rpc_code cc_run_job(struct cc *cc, const char *verb, json_t *args)
{
	enum rpc_code code = cc_ask_migrator(cc, verb, args);
	char id[64];

	if (code != RPC_ACCEPTED || cc->no_wait)
		return code;
	snprintf(id, sizeof(id), "%s", text(cc->reply, "job"));
	if (!id[0])
		return cc_fail(cc, RPC_BUG, "the coordinator accepted it, but named no job");
	return wait_for(cc, id);
}

enum rpc_code cc_job_show(struct cc *cc)
{
	return cc_ask_migrator(cc, "job.show", json_pack("{s:s}", "id", cc->arg[0]));
}

enum rpc_code cc_job_list(struct cc *cc)
{
	return cc_ask_migrator(cc, "job.list", json_object());
}
