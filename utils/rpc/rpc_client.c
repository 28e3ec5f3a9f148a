/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rpc_client.c - see rpc_client.h.
 */
#include "utils/rpc/rpc_client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <qb/qbipcc.h>

#define PAGES_MAX 10000

static int exchange(qb_ipcc_connection_t *qc, const char *verb, const json_t *args, int timeout_ms, json_t **ret, struct csv_err *err)
{
	const size_t max = RPC_REPLY_MAX + 4096;
	struct qb_ipc_request_header h = { .id = QB_IPC_MSG_USER_START };
	struct qb_ipc_response_header *rh;
	char *text = rpc_request_encode(verb, args), *buf = malloc(max);
	struct iovec iov[2] = { { &h, sizeof(h) }, { text, text ? strlen(text) : 0 } };
	ssize_t n;
	int rc;

	if (!text || !buf) {
		rc = csv_err_set(err, -ENOMEM, "out of memory");
		goto out;
	}
	h.size = (int32_t)(sizeof(h) + iov[1].iov_len);
	n = qb_ipcc_sendv_recv(qc, iov, 2, buf, max, timeout_ms);
	rh = (struct qb_ipc_response_header *)buf;
	if (n == -ETIMEDOUT || n == -EAGAIN)
		rc = csv_err_set(err, -ETIMEDOUT, "no answer within %d ms", timeout_ms);
	else if (n < 0)
		rc = csv_err_set(err, (int)n, "the connection broke: %s", strerror((int)-n));
	else if ((size_t)n < sizeof(*rh) || rh->size != n)
		rc = csv_err_set(err, -EPROTO, "an answer of %zd bytes that says it has %d", n, (size_t)n < sizeof(*rh) ? 0 : rh->size);
	else
		rc = rpc_reply_decode(buf + sizeof(*rh), (size_t)n - sizeof(*rh), ret, err);
out:
	free(text);
	free(buf);
	return rc;
}

/* The reply has "next": fetch on from there and put the items behind. */
static int more_pages(qb_ipcc_connection_t *qc, const char *verb, const json_t *args, int timeout_ms, json_t *reply, struct csv_err *err)
{
	json_t *next = json_object_get(reply, "next");
	int rc = 0, n;

	for (n = 0; !rc && json_is_integer(next) && n < PAGES_MAX; n++) {
		json_t *a = args ? json_copy((json_t *)args) : json_object(), *page = NULL;

		json_object_set(a, "from", next);
		rc = exchange(qc, verb, a, timeout_ms, &page, err);
		json_decref(a);
		if (rc)
			break;
		json_array_extend(json_object_get(reply, "items"), json_object_get(page, "items"));
		next = json_object_get(page, "next");
		json_object_del(reply, "next");
		if (next)
			json_object_set(reply, "next", next);
		json_decref(page);
		next = json_object_get(reply, "next");
	}
	json_object_del(reply, "next");
	return rc;
}

/* A daemon that is stopped or stuck accepts nobody: the time limit is for this too.  NULL with errno. */
static qb_ipcc_connection_t *connect_within(const char *service, int timeout_ms)
{
	struct pollfd p = { .events = POLLIN };
	qb_ipcc_connection_t *qc = qb_ipcc_connect_async(service, RPC_REPLY_MAX + 4096, &p.fd);
	int rc;

	if (!qc)
		return NULL;
	do
		rc = poll(&p, 1, timeout_ms);
	while (rc < 0 && errno == EINTR);
	if (rc <= 0) {
		/* libqb cannot take back a connection that was not accepted: what it has of it stays until we end. */
		errno = rc ? errno : ETIMEDOUT;
		return NULL;
	}
	rc = qb_ipcc_connect_continue(qc);
	if (rc) {
		errno = -rc;
		return NULL;
	}
	return qc;
}

int rpc_call(const char *service, const char *verb, const json_t *args, int timeout_ms, json_t **ret, struct csv_err *err)
{
	qb_ipcc_connection_t *qc = connect_within(service, timeout_ms);
	json_t *reply = NULL;
	int rc;

	if (!qc) {
		if (errno == EACCES || errno == EPERM)
			return csv_err_set(err, -EACCES, "%s: permission denied; run as root", service);
		if (errno == ECONNREFUSED || errno == ENOENT)
			return csv_err_set(err, -ECONNREFUSED, "%s: no daemon answers there", service);
		if (errno == ETIMEDOUT)
			return csv_err_set(err, -ETIMEDOUT, "%s: the daemon does not answer within %d ms; is it stopped?", service, timeout_ms);
		return csv_err_set(err, errno ? -errno : -EIO, "%s: %s", service, strerror(errno));
	}
	rc = exchange(qc, verb, args, timeout_ms, &reply, err);
	if (!rc)
		rc = more_pages(qc, verb, args, timeout_ms, reply, err);
	qb_ipcc_disconnect(qc);
	if (rc) {
		json_decref(reply);
		csv_err_prefix(err, "%s", service);
		return rc;
	}
	*ret = reply;
	return 0;
}
