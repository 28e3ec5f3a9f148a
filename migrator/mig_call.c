/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_call.c - between nodes: commands to the agent of any member, letters of agents to each other, and csvctl's requests, which the
 * leader answers whichever node was asked.
 *
 *	cmd	leader -> a node's agent	{"id", "node", "cmd", "args", "ms"}
 *	ans	its answer			{"id", "node", "rc", "code", "message", "data"}
 *	peer	agent -> agent			{"to", "vm", "txid", "body"}
 *	req	any member -> the leader	{"id", "verb", "args"}
 *	rep	its answer			{"id", "reply"}
 *
 * Invariants
 *  CA1 A command is given to an agent only in the view that it was sent in (C5), with that view's ring (MC4).
 *  CA3 Without quorum a request is refused at once: only a view that is just being agreed on is waited for.
 *  CA2 A request is sent again in the next view until it is answered; the leader knows it by its id, so it is not done twice: jobs bear
 *      that id, and everything else only shows.
 *
 * One thread.
 */
#include "migrator/mig_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "migrator/mig_work.h"

#define REQUEST_MS 25000u

/* ---- commands ------------------------------------------------------------------------------------------------------------------------- */

int mig_call(struct mig *m, uint32_t nodeid, const char *cmd, json_t *args_take, unsigned timeout_ms, struct mig_answer *ret)
{
	uint64_t end = mig_now(m) + timeout_ms * NS_PER_MS, id;
	struct mig_wait *w;

	memset(ret, 0, sizeof(*ret));
	if (mig_is_member(m, nodeid) && nodeid == m->cfg.self)
		return mig_agent_call(m, cmd, m->ring, args_take, timeout_ms, ret);
	id = ++m->call_id;
	w = mig_is_member(m, nodeid) ? mig_wait_new(&m->call_waits, id, nodeid) : NULL;
	if (!w) {
		json_decref(args_take);
		return -ENOTCONN;
	}
	if (mig_send_take(m, json_pack("{s:s, s:I, s:i, s:s, s:o, s:i}", "t", "cmd", "id", (json_int_t)id, "node", (int)nodeid, "cmd", cmd, "args",
				       args_take ? args_take : json_object(), "ms", (int)timeout_ms)))
		end = 0;
	return mig_wait_end(m, w, end, ret);
}

struct served { struct mig *m; uint32_t from; json_int_t id; uint64_t ring; json_t *msg; };

static void serve_coro(void *arg)
{
	struct served s = *(struct served *)arg;
	json_t *args = json_object_get(s.msg, "args");
	struct mig_answer a;
	int rc;

	free(arg);
	rc = mig_agent_call(s.m, mig_text(s.msg, "cmd"), s.ring, json_incref(args), (unsigned)mig_int(s.msg, "ms"), &a);
	mig_send_take(s.m, json_pack("{s:s, s:I, s:i, s:i, s:i, s:s, s:O?}", "t", "ans", "id", s.id, "to", (int)s.from, "rc", rc, "code",
				     a.code, "message", a.message, "data", a.data));
	mig_answer_done(&a);
	json_decref(s.msg);
}

static void serve(struct mig *m, uint32_t from, const json_t *msg)
{
	struct served *s;

	if (mig_int(msg, "node") != m->cfg.self || !*mig_text(msg, "cmd") || mig_int(msg, "id") <= 0)
		return;
	s = malloc(sizeof(*s));
	if (s)
		*s = (struct served){ m, from, mig_int(msg, "id"), m->ring, json_incref((json_t *)msg) };
	if (!s || mig_spawn(m, "command", serve_coro, s)) {
		json_decref(s ? s->msg : NULL);
		free(s);
	}
}

static void answered(struct mig *m, const json_t *msg)
{
	struct mig_wait *w;

	if (mig_int(msg, "to") != m->cfg.self)
		return;
	cds_list_for_each_entry(w, &m->call_waits, node) {
		if ((json_int_t)w->id != mig_int(msg, "id") || w->done)
			continue;
		w->done = true;
		w->rc = (int)csv_min(mig_int(msg, "rc"), (json_int_t)0);
		w->code = (int)mig_int(msg, "code");
		snprintf(w->message, sizeof(w->message), "%s", mig_text(msg, "message"));
		w->data = json_is_object(json_object_get(msg, "data")) ? json_incref(json_object_get(msg, "data")) : NULL;
		sched_wake_all(m->env->sched, &w->wq);
	}
}

void mig_calls_suspend(struct mig *m)
{
	struct mig_wait *w;

	cds_list_for_each_entry(w, &m->call_waits, node) {
		if (w->done)
			continue;
		w->done = true;
		w->rc = -ECONNRESET;
		sched_wake_all(m->env->sched, &w->wq);
	}
}

/* ---- requests ----------------------------------------------------------------------------------------------------------------------------- */

struct request {
	struct cds_list_head node;
	char id[40];
	char verb[64];
	json_t *args;
	struct timer timer;
	struct mig *m;
	bool sent;			/* the leader may have it */
	void (*reply)(void *arg, json_t *reply_take);
	void *arg;
};

static void request_end(struct request *r, json_t *reply_take)
{
	cds_list_del(&r->node);
	timer_del(r->m->env->sched, &r->timer);
	r->reply(r->arg, reply_take);
	json_decref(r->args);
	free(r);
}

/* CA3.  NULL: there is quorum, or it is not known yet. */
static json_t *no_quorum(struct mig *m, bool sent)
{
	uint32_t here;

	if (m->view || !cluster_lacks_quorum(m->env->cluster, &here))
		return NULL;
	return rpc_reply_error(RPC_NO_QUORUM, "no quorum: %u of %u nodes %s here, nothing can be changed; start more nodes, or mend the network; see: "
			       "csvctl cluster status%s", here, m->cfg.n_nodes, here == 1 ? "is" : "are",
			       sent ? "; what was asked for may have begun: see csvctl job list" : "");
}

static void on_late(struct timer *t)
{
	struct request *r = container_of(t, struct request, timer);

	if (!r->m->view)
		request_end(r, rpc_reply_error(RPC_NO_QUORUM, "no quorum: nothing can be decided; see: csvctl cluster status"));
	else
		request_end(r, rpc_reply_error(RPC_TIMEOUT, "the leader, %s, does not answer; see: csvctl event list",
					       mig_node_name(r->m, mig_leader(r->m))));
}

static void request_send(struct mig *m, struct request *r)
{
	r->sent = true;
	mig_send_take(m, json_pack("{s:s, s:s, s:s, s:O}", "t", "req", "id", r->id, "verb", r->verb, "args", r->args));
}

void mig_calls_view(struct mig *m)
{
	struct request *r;

	cds_list_for_each_entry(r, &m->requests, node)
		request_send(m, r);
}

void mig_calls_look(struct mig *m)
{
	struct request *r, *tmp;
	json_t *no;

	cds_list_for_each_entry_safe(r, tmp, &m->requests, node) {
		no = no_quorum(m, r->sent);
		if (no)
			request_end(r, no);
	}
}

static void forward(struct mig *m, const struct mig_request *q)
{
	json_t *no = no_quorum(m, false);
	struct request *r = no ? NULL : calloc(1, sizeof(*r));

	if (no) {
		q->reply(q->arg, no);
		return;
	}
	if (!r) {
		q->reply(q->arg, NULL);
		return;
	}
	r->m = m;
	r->reply = q->reply;
	r->arg = q->arg;
	r->args = json_incref((json_t *)q->args);
	snprintf(r->id, sizeof(r->id), "%s-%" PRIx64, mig_node_name(m, m->cfg.self), ++m->call_id);
	snprintf(r->verb, sizeof(r->verb), "%s", q->verb);
	timer_init(&r->timer, on_late);
	cds_list_add_tail(&r->node, &m->requests);
	/* Without a view: not longer than a view change takes. */
	timer_set(m->env->sched, &r->timer, mig_now(m) + (m->view ? REQUEST_MS : REQUEST_MS / 3) * NS_PER_MS);
	if (m->view)
		request_send(m, r);
}

struct asked { struct mig *m; uint32_t from; json_t *msg; json_t *(*fn)(const struct mig_ask *a); };

static void ask_coro(void *arg)
{
	struct asked s = *(struct asked *)arg;
	const json_t *args = json_object_get(s.msg, "args");
	struct mig_ask a = { s.m, mig_text(s.msg, "id"), s.from, args, json_is_true(json_object_get(args, "dry_run")) };
	json_t *reply;

	free(arg);
	reply = mig_job_again(s.m, a.id);	/* CA2: what it checks first has changed since, by that job */
	if (!reply)
		reply = s.fn(&a);
	if (!reply)
		reply = rpc_reply_error(RPC_FAILED, "out of memory");
	mig_send_take(s.m, json_pack("{s:s, s:s, s:o}", "t", "rep", "id", a.id, "reply", reply));
	json_decref(s.msg);
}

static void on_request(struct mig *m, uint32_t from, const json_t *msg)
{
	json_t *(*fn)(const struct mig_ask *a) = mig_verb_of_leader(mig_text(msg, "verb"));
	struct asked *s;

	if (!mig_is_leader(m) || !fn)
		return;
	s = malloc(sizeof(*s));
	if (s)
		*s = (struct asked){ m, from, json_incref((json_t *)msg), fn };
	if (!s || mig_spawn(m, "request", ask_coro, s)) {
		json_decref(s ? s->msg : NULL);
		free(s);
	}
}

static void on_answer(struct mig *m, const json_t *msg)
{
	struct request *r, *tmp;

	cds_list_for_each_entry_safe(r, tmp, &m->requests, node) {
		if (strcmp(r->id, mig_text(msg, "id")))
			continue;
		request_end(r, json_incref(json_object_get(msg, "reply")));
		return;
	}
}

void mig_call_got(struct mig *m, uint32_t from, const char *t, const json_t *msg)
{
	if (!strcmp(t, "cmd"))
		serve(m, from, msg);
	else if (!strcmp(t, "ans"))
		answered(m, msg);
	else if (!strcmp(t, "req"))
		on_request(m, from, msg);
	else if (!strcmp(t, "rep"))
		on_answer(m, msg);
	else if (!strcmp(t, "leave") && mig_int(msg, "node") == m->cfg.self)
		mig_node_leave(m);
	else if (!strcmp(t, "peer") && mig_int(msg, "to") == m->cfg.self)
		mig_agent_tell(m, "peer", m->ring, json_pack("{s:i, s:o, s:s, s:s, s:O}", "from", (int)from, "incarnation",
							     mig_hex(mig_leases_incarnation(m, from)), "vm", mig_text(msg, "vm"), "txid",
							     mig_text(msg, "txid"), "body", json_object_get(msg, "body")));
}

/* ---- csvctl's ------------------------------------------------------------------------------------------------------------------------------- */

void mig_request(struct mig *m, const struct mig_request *q)
{
	json_t *(*here)(struct mig *m, const json_t *args) = mig_verb_here(q->verb);

	if (here)
		q->reply(q->arg, here(m, q->args));
	else if (mig_verb_of_leader(q->verb))
		forward(m, q);
	else
		q->reply(q->arg, rpc_reply_error(RPC_USAGE, "migratord knows no \"%s\"; is csvctl of a newer version than the running daemon?",
						 q->verb));
}
