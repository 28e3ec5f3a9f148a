/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_start.c - a person asks for a start.
 *
 *	want run, durably -> it runs							done
 *			  -> FAILURES_MAX starts in a row failed			\
 *			  -> no node could have it for PLACE_NS				 > want as it was, durably; the answer says why
 *			  -> it may still run on a node that is lost (BLOCKED)		/
 *
 * Invariants
 *  SJ1 A start that is answered with a failure is over: the VM is not begun whatever comes (nodes, room, a cold start) until somebody asks again,
 *      unless it was to run before; then the answer says so, and how to take that back.
 *  SJ2 Where the wish cannot be taken back (no quorum, no volume), or its leader was lost meanwhile, it stands, and the answer says so.
 *
 * What a membership change does: the job goes on if its leader does; else it ends (mig_job.c), and the wish stands.
 *
 * One thread.
 */
#include "migrator/mig_work.h"

#include <errno.h>
#include <stdio.h>

#define ERRORS_AMONG 200u		/* so many events back why a VM does not start is looked for */
#define FAILURES_MAX 3u			/* as mig_ha.c's */
#define PLACE_NS (10 * NS_PER_SEC)

/* Why it does not start, as the host that tried last has it (hvhost/vm.c). */
static const char *start_error(const struct mig *m, const char *vm)
{
	static const char says[] = "could not be started: ";

	for (unsigned back = 0; back < ERRORS_AMONG && mig_event_back(m, back); back++) {
		const json_t *e = mig_event_back(m, back)->value;

		if (!strcmp(mig_text(e, "object"), vm) && strstr(mig_text(e, "text"), says))
			return strstr(mig_text(e, "text"), says) + strlen(says);
	}
	return "";
}

static bool is_off(const struct lease *l)
{
	return l && (l->state == LEASE_FREE || l->state == LEASE_BLOCKED);
}

/* SJ1.  False: it began after all, the job goes on. */
static bool give_up(struct mig_job *j, enum lease_want was, enum rpc_code code, const char *why)
{
	struct mig *m = j->m;
	const char *vm = mig_text(j->args, "name");
	char text[600];
	enum rpc_code rc;

	if (was == LEASE_WANT_RUN) {
		mig_job_done_take(j, code, NULL, "%s; it is to run all the same, as before; to take that back: csvctl vm stop %s", why, vm);
		return true;
	}
	mig_job_step(j, 90, "it is given up: its definition says: %s", lease_want_name(was));
	rc = mig_want_durable(m, vm, was, text, sizeof(text));
	if (!rc && mig_settled(m) && !is_off(mig_lease(m, vm)) && !mig_want_set(m, vm, LEASE_WANT_RUN, text, sizeof(text)))
		return false;
	if (!rc)
		rc = mig_want_set(m, vm, was, text, sizeof(text));
	mig_vm_pin(m, vm, 0);
	if (rc) {
		mig_job_done_take(j, code, NULL, "%s; that it is to run could not be taken back (%s): it is started as soon as it can be; to take it back: "
				  "csvctl vm stop %s", why, text, vm);
		return true;
	}
	if (code == RPC_NEEDS_PROOF) {		/* off or not is what nobody knows */
		mig_job_done_take(j, code, NULL, "%s; when that is known, ask for the start again", why);
		return true;
	}
	mig_event(m, "warning", vm, "", "a start that was asked for is given up, it stays off: %s", why);
	mig_job_done_take(j, code, NULL, "%s; it stays off", why);
	return true;
}

/* It cannot go on: the code, and why.  RPC_OK: it can. */
static enum rpc_code stuck(struct mig *m, const char *vm, const struct lease *l, unsigned failures, uint64_t *inout_no_place_ns, char *ret, size_t size)
{
	bool worn = l->state == LEASE_FREE && failures >= FAILURES_MAX;
	char why[400];
	json_t *note;

	if ((l->state == LEASE_BLOCKED && l->owner) || worn) {
		note = mig_lease_note(m, l);
		if (*mig_text(note, "reason"))		/* it names the VM */
			snprintf(ret, size, "%s%s%.250s", mig_text(note, "reason"), worn && *start_error(m, vm) ? "; the last was: " : "",
				 worn ? start_error(m, vm) : "");
		else
			snprintf(ret, size, "%s: could not be started; see: csvctl event list --vm %s", vm, vm);
		json_decref(note);
		return worn ? RPC_FAILED : RPC_NEEDS_PROOF;
	}
	if (l->state != LEASE_FREE || mig_place(m, vm, 0, 0, why, sizeof(why))) {
		*inout_no_place_ns = 0;
		return RPC_OK;
	}
	if (!*inout_no_place_ns)
		*inout_no_place_ns = mig_now(m);
	if (mig_now(m) - *inout_no_place_ns < PLACE_NS)
		return RPC_OK;
	snprintf(ret, size, "%s: no node can have it: %s", vm, why);
	return RPC_CONFLICT;
}

static void start_job(struct mig_job *j)
{
	struct mig *m = j->m;
	const char *vm = mig_text(j->args, "name"), *node = mig_text(j->args, "node");
	const struct lease *l = mig_lease(m, vm);
	enum lease_want was = l ? (enum lease_want)l->want : LEASE_WANT_STOPPED;
	uint64_t no_place_ns = 0;
	unsigned failures = 0;
	char text[1000];
	enum rpc_code code;

	mig_job_step(j, 10, "its definition says: run");
	mig_vm_pin(m, vm, *node ? mig_node_by_name(m, node) : 0);
	m->defs_ns = 0;
	code = mig_want_set(m, vm, LEASE_WANT_RUN, text, sizeof(text));
	if (code) {
		mig_job_done_take(j, code, NULL, "%s; if its definition says run by now, it is started later; to take that back: csvctl vm stop %s", text,
				  vm);
		return;
	}
	for (;;) {
		l = mig_lease(m, vm);
		if (mig_settled(m) && !l) {
			mig_job_done_take(j, RPC_NOT_FOUND, NULL, "%s: deleted meanwhile", vm);
			return;
		}
		if (l && l->state == LEASE_RUNNING && !strcmp(mig_text(mig_vm_on(m, l->owner, vm), "qemu"), "running"))
			break;
		if (l && l->want != LEASE_WANT_RUN) {
			mig_job_done_take(j, RPC_CANCELLED, NULL, "%s: stopped meanwhile", vm);
			return;
		}
		if (l && l->state == LEASE_RECOVERING)
			mig_job_step(j, 50, "starting on %s", mig_node_name(m, l->owner));
		failures = l ? l->failures : failures;
		code = l && mig_settled(m) ? stuck(m, vm, l, failures, &no_place_ns, text, sizeof(text)) : RPC_OK;
		if (code && give_up(j, was, code, text))
			return;
		if (no_place_ns)
			mig_job_step(j, 30, "waits for a node that can have it");
		mig_wait_change(m, mig_now(m) + NS_PER_SEC);
	}
	mig_vm_pin(m, vm, 0);
	mig_job_done_take(j, RPC_OK, mig_vm_item(m, vm), "%s", "");
}

json_t *mig_vm_start(const struct mig_ask *a)
{
	struct mig *m = a->m;
	const char *vm = mig_text(a->args, "name"), *node = mig_text(a->args, "node");
	const struct lease *l;
	uint32_t to = 0;
	const char *no;
	char why[400];
	json_t *reply;

	l = mig_vm_lease(m, vm, &reply);
	if (!l)
		return reply;
	if (*node) {
		to = mig_node_by_name(m, node);
		no = to ? mig_place_refuses(m, to, vm) : NULL;
		if (!to)
			return rpc_reply_error(RPC_NOT_FOUND, "%s: no such node in corosync's node list; see: csvctl node list", node);
		if (no)
			return rpc_reply_error(RPC_CONFLICT, "%s: %s %s", vm, node, no);
	}
	if (l->state == LEASE_RUNNING || l->state == LEASE_HANDOFF)
		return rpc_reply_error(RPC_CONFLICT, "%s: runs already, on %s", vm, mig_node_name(m, l->owner));
	if (l->state == LEASE_FREE && !to && !mig_place(m, vm, 0, 0, why, sizeof(why))) {
		if (l->want != LEASE_WANT_RUN)
			return rpc_reply_error(RPC_CONFLICT, "%s: no node can have it: %s", vm, why);
		return rpc_reply_error(RPC_CONFLICT, "%s: no node can have it: %s; it is to run all the same, as before; to take that back: csvctl vm "
				       "stop %s", vm, why, vm);
	}
	if (!a->dry_run)
		return mig_job_start(a, "start", vm, start_job);
	reply = rpc_reply_new("vm");
	rpc_reply_add_take(reply, json_pack("{s:s, s:s, s:s}", "name", vm, "node", mig_node_name(m, to ? to : mig_place(m, vm, 0, 0, why, sizeof(why))),
					    "state", "would be started"));
	return reply;
}
