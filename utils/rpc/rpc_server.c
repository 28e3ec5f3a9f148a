/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rpc_server.c - see rpc_server.h.
 *
 *	libqb: msg_process  ->  loop message  ->  request(arg, call)  ...  rpc_call_reply_take()  ->  qb_ipcs_response_send
 *
 * libqb's callbacks come from its loop outside a turn of ours; the loop message brings the request into one.
 */
#include "utils/rpc/rpc_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <qb/qbipcs.h>
#include <qb/qbloop.h>

#include "utils/base/base.h"

#define BUFFER_MAX (2u * RPC_REPLY_MAX)	/* our client asks for a reply and a page */
#define CONNECTIONS_MAX 64u

struct rpc_server {
	struct loop *l;
	struct logger *log;
	qb_ipcs_service_t *qb;
	uid_t allowed;
	void (*request)(void *arg, struct rpc_call *c);
	void *arg;
	struct cds_list_head calls;
	unsigned n_conns, n_calls;
	bool gone;			/* freed while calls are open: the last of them frees it */
	struct rpc_server_stats stats;
};

struct rpc_conn { bool busy, closed, hung_up; };

struct rpc_call {
	struct loop_msg msg;
	struct cds_list_head node;
	struct rpc_server *s;
	qb_ipcs_connection_t *c;	/* referenced */
	struct rpc_conn *conn;
	struct rpc_request req;
	bool bad, hang_up;
	struct csv_err err;
};

/* ---- libqb's loop: the process's only one ---------------------------------------------------------------------------- */

static int32_t on_job_add(enum qb_loop_priority p, void *data, qb_loop_job_dispatch_fn fn)
{
	return qb_loop_job_add(NULL, p, data, fn);
}

static int32_t on_poll_add(enum qb_loop_priority p, int32_t fd, int32_t events, void *data, qb_ipcs_dispatch_fn_t fn)
{
	return qb_loop_poll_add(NULL, p, fd, events, data, fn);
}

static int32_t on_poll_mod(enum qb_loop_priority p, int32_t fd, int32_t events, void *data, qb_ipcs_dispatch_fn_t fn)
{
	return qb_loop_poll_mod(NULL, p, fd, events, data, fn);
}

static int32_t on_poll_del(int32_t fd)
{
	return qb_loop_poll_del(NULL, fd);
}

/* ---- connections ------------------------------------------------------------------------------------------------------- */

static int32_t on_accept(qb_ipcs_connection_t *c, uid_t uid, gid_t gid)
{
	struct rpc_server *s = qb_ipcs_connection_service_context_get(c);
	struct rpc_conn *conn;

	(void)gid;
	if (uid != s->allowed) {
		if (!s->stats.refused_uid++)
			log_to(s->log, LOG_L_WARN, "control socket: a process of user %u was refused, only user %u may use it; further ones "
						   "are counted only", (unsigned)uid, (unsigned)s->allowed);
		return -EACCES;
	}
	/* libqb makes three buffers of the size that the client names, on this thread, and writes each page of them. */
	if ((uint32_t)qb_ipcs_connection_get_buffer_size(c) > BUFFER_MAX) {
		s->stats.refused_many++;
		return -EMSGSIZE;
	}
	if (s->n_conns >= CONNECTIONS_MAX) {
		s->stats.refused_many++;
		return -EAGAIN;
	}
	conn = calloc(1, sizeof(*conn));
	if (!conn)
		return -ENOMEM;
	qb_ipcs_context_set(c, conn);
	s->n_conns++;
	s->stats.connections++;
	return 0;
}

static int32_t on_closed(qb_ipcs_connection_t *c)
{
	struct rpc_conn *conn = qb_ipcs_context_get(c);

	if (conn)
		conn->closed = true;
	return 0;
}

static void on_destroyed(qb_ipcs_connection_t *c)
{
	struct rpc_server *s = qb_ipcs_connection_service_context_get(c);
	struct rpc_conn *conn = qb_ipcs_context_get(c);

	if (!conn)
		return;
	s->n_conns--;
	free(conn);
	qb_ipcs_context_set(c, NULL);
}

/* ---- calls --------------------------------------------------------------------------------------------------------------- */

static void call_free(struct rpc_call *c)
{
	struct rpc_server *s = c->s;

	cds_list_del(&c->node);
	s->n_calls--;
	if (!c->hang_up)
		c->conn->busy = false;
	qb_ipcs_connection_unref(c->c);
	rpc_request_done(&c->req);
	free(c);
	if (s->gone && !s->n_calls)
		free(s);
}

static void call_run(struct loop_msg *m)
{
	struct rpc_call *c = container_of(m, struct rpc_call, msg);

	if (c->hang_up) {
		if (!c->conn->closed)
			qb_ipcs_disconnect(c->c);
		call_free(c);
	} else if (c->bad)
		rpc_call_reply_take(c, rpc_reply_error(RPC_USAGE, "%s", c->err.text));
	else if (c->s->gone)
		call_free(c);
	else
		c->s->request(c->s->arg, c);
}

static int32_t on_message(qb_ipcs_connection_t *qc, void *data, size_t size)
{
	struct rpc_server *s = qb_ipcs_connection_service_context_get(qc);
	struct rpc_conn *conn = qb_ipcs_context_get(qc);
	const size_t head = sizeof(struct qb_ipc_request_header);
	struct rpc_call *c;

	s->stats.calls++;
	if (!conn || conn->hung_up)
		return 0;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;		/* libqb offers it again */
	c->s = s;
	c->c = qc;
	c->conn = conn;
	if (size < head || size > RPC_REQUEST_MAX + head || conn->busy)
		c->hang_up = conn->hung_up = true;	/* not from inside this callback */
	else
		c->bad = rpc_request_decode((char *)data + head, size - head, &c->req, &c->err) != 0;
	s->stats.bad_requests += c->bad || c->hang_up;
	if (!c->hang_up)
		conn->busy = true;
	qb_ipcs_connection_ref(qc);
	cds_list_add_tail(&c->node, &s->calls);
	s->n_calls++;
	c->msg.fn = call_run;
	loop_post(s->l, &c->msg);
	return 0;
}

const char *rpc_call_verb(const struct rpc_call *c)
{
	return c->req.verb;
}

const json_t *rpc_call_args(const struct rpc_call *c)
{
	return c->req.args;
}

static void send_text(struct rpc_call *c, const char *text, size_t len)
{
	struct qb_ipc_response_header h = { .id = QB_IPC_MSG_USER_START, .size = (int32_t)(sizeof(h) + len) };
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)text, len } };

	if (c->conn->closed || c->s->gone || qb_ipcs_response_sendv(c->c, iov, 2) < 0)
		c->s->stats.lost_clients++;
}

void rpc_call_reply_take(struct rpc_call *c, json_t *reply)
{
	static const char no_memory[] = "{\"code\":1,\"message\":\"out of memory\",\"kind\":\"error\",\"items\":[],\"warnings\":[]}";
	static const char too_long[] = "{\"code\":70,\"message\":\"the answer is too long\",\"kind\":\"error\",\"items\":[],\"warnings\":[]}";
	char *text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;

	if (!text) {
		send_text(c, no_memory, sizeof(no_memory) - 1);
	} else if (strlen(text) > RPC_REPLY_MAX) {
		c->s->stats.too_long++;
		send_text(c, too_long, sizeof(too_long) - 1);
	} else {
		send_text(c, text, strlen(text));
	}
	free(text);
	json_decref(reply);
	call_free(c);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

int rpc_server_new(struct loop *l, struct logger *log, const char *name, uid_t allowed, void (*request)(void *arg, struct rpc_call *c),
		   void *arg, struct rpc_server **ret, struct csv_err *err)
{
	struct qb_ipcs_service_handlers h = {
		.connection_accept = on_accept, .msg_process = on_message, .connection_closed = on_closed, .connection_destroyed = on_destroyed,
	};
	struct qb_ipcs_poll_handlers poll = { on_job_add, on_poll_add, on_poll_mod, on_poll_del };
	struct rpc_server *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return csv_err_set(err, -ENOMEM, "control socket: out of memory");
	*s = (struct rpc_server){ .l = l, .log = log, .allowed = allowed, .request = request, .arg = arg };
	CDS_INIT_LIST_HEAD(&s->calls);
	s->qb = qb_ipcs_create(name, 0, QB_IPC_SHM, &h);
	if (!s->qb) {
		rc = -errno;
		free(s);
		return csv_err_set(err, rc ? rc : -EIO, "control socket %s: cannot be made", name);
	}
	qb_ipcs_poll_handlers_set(s->qb, &poll);
	qb_ipcs_service_context_set(s->qb, s);
	qb_ipcs_enforce_buffer_size(s->qb, RPC_REPLY_MAX + 4096);
	rc = qb_ipcs_run(s->qb);
	if (rc) {
		/* qb_ipcs_run() has taken the service with it */
		free(s);
		return csv_err_set(err, rc, "control socket %s: %s", name, rc == -EADDRINUSE ? "another process has it" : strerror(-rc));
	}
	*ret = s;
	return 0;
}

void rpc_server_free(struct rpc_server *s)
{
	if (!s)
		return;
	s->gone = true;
	qb_ipcs_destroy(s->qb);
	if (!s->n_calls)
		free(s);
}

void rpc_server_stats(const struct rpc_server *s, struct rpc_server_stats *ret)
{
	*ret = s->stats;
}

unsigned rpc_server_open_calls(const struct rpc_server *s)
{
	return s->n_calls;
}
