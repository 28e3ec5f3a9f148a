/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * migratord_agent.c - the socket of this node's hvhostd: connected whenever it is there.
 *
 * Invariants
 *  AL1 The core is told of every connection and of its end; what a broken connection still held is dropped before the next begins.
 *  AL2 Nothing here blocks; an agent that does not read is disconnected at OUT_MAX.
 */
#include "migrator/migratord_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "utils/base/base.h"

#define RETRY_NS (200 * NS_PER_MS)
#define OUT_MAX (16u << 20)

static void try_again(struct agent_line *a)
{
	timer_set(loop_sched(a->loop), &a->retry, sched_now_ns(loop_sched(a->loop)) + RETRY_NS);
}

static void hang_up(struct agent_line *a, const char *why)
{
	if (a->fd < 0)
		return;
	loop_del_fd(a->loop, a->fd);
	close(a->fd);
	a->fd = -1;
	a->out_len = 0;
	jline_done(&a->in);
	jline_init(&a->in);
	mig_agent_down(a->mig, why);
	try_again(a);
}

/* False: the connection is gone. */
static bool flush(struct agent_line *a)
{
	size_t done = 0;

	while (done < a->out_len) {
		ssize_t n = send(a->fd, a->out + done, a->out_len - done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return false;
		if (n < 0)
			break;
		done += (size_t)n;
	}
	memmove(a->out, a->out + done, a->out_len - done);
	a->out_len -= done;
	loop_mod_fd(a->loop, a->fd, POLLIN | (a->out_len ? POLLOUT : 0));
	return true;
}

static bool take(struct agent_line *a, struct csv_err *err)
{
	char buf[65536];
	ssize_t n = recv(a->fd, buf, sizeof(buf), MSG_DONTWAIT);
	json_t *text;
	int rc;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0) {
		csv_err_set(err, -ECONNRESET, "%s", n ? strerror(errno) : "it closed the connection");
		return false;
	}
	rc = jline_feed(&a->in, buf, (size_t)n, err);
	while (!rc && a->fd >= 0 && (rc = jline_next(&a->in, &text, err)) > 0) {
		mig_agent_text(a->mig, text);
		json_decref(text);
		rc = 0;
	}
	return rc >= 0;
}

static int on_fd(void *arg, int fd, int revents)
{
	struct agent_line *a = arg;
	struct csv_err err = CSV_ERR_INIT;

	(void)fd;
	if (revents & (POLLIN | POLLHUP | POLLERR) && !take(a, &err))
		hang_up(a, err.text);
	else if (a->fd >= 0 && revents & POLLOUT && !flush(a))
		hang_up(a, "writing to it failed");
	return 0;
}

static void on_retry(struct timer *t)
{
	struct agent_line *a = container_of(t, struct agent_line, retry);
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	if (strlen(a->path) >= sizeof(sa.sun_path))
		return;
	strcpy(sa.sun_path, a->path);
	a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (a->fd < 0 || connect(a->fd, (struct sockaddr *)&sa, sizeof(sa)) || loop_add_fd(a->loop, a->fd, POLLIN, on_fd, a)) {
		if (!a->said)
			log_to(a->log, LOG_L_NOTE, "hvhostd does not answer at %s yet: %s", a->path, strerror(errno));
		a->said = true;
		if (a->fd >= 0)
			close(a->fd);
		a->fd = -1;
		try_again(a);
		return;
	}
	a->said = false;
	mig_agent_up(a->mig);
}

bool agent_line_send(struct agent_line *a, const char *line, size_t len)
{
	if (a->fd < 0)
		return false;
	if (a->out_len + len > a->out_cap) {
		size_t cap = csv_max(a->out_cap * 2, a->out_len + len + 65536);
		char *p = cap > OUT_MAX ? NULL : realloc(a->out, cap);

		if (!p) {
			log_to(a->log, LOG_L_ERR, "hvhostd does not read what it is told: %zu bytes wait; disconnected", a->out_len);
			shutdown(a->fd, SHUT_RDWR);	/* ends in on_fd, not inside this call */
			return false;
		}
		a->out = p;
		a->out_cap = cap;
	}
	memcpy(a->out + a->out_len, line, len);
	a->out_len += len;
	if (!flush(a))
		shutdown(a->fd, SHUT_RDWR);
	return true;
}

void agent_line_start(struct agent_line *a, struct loop *l, struct logger *log, const char *path, struct mig *mig)
{
	*a = (struct agent_line){ .loop = l, .log = log, .path = path, .mig = mig, .fd = -1 };
	jline_init(&a->in);
	timer_init(&a->retry, on_retry);
	timer_set(loop_sched(l), &a->retry, 0);
}

void agent_line_stop(struct agent_line *a)
{
	if (!a->loop)
		return;
	timer_del(loop_sched(a->loop), &a->retry);
	if (a->fd >= 0) {
		loop_del_fd(a->loop, a->fd);
		close(a->fd);
	}
	jline_done(&a->in);
	free(a->out);
}
