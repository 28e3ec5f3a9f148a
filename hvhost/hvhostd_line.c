/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_line.c - the socket that migratord connects to (hvhost/agent.h): lines in and out.
 *
 * Invariants
 *  LN1 One connection counts: a newer one closes the older one (AG4).  Its number names it, so that an answer that took long does not go
 *      to its successor.
 *  LN2 A peer that does not read is disconnected at LINE_OUT_MAX; nothing here waits for it.
 */
#include "hvhost/hvhostd_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "migrator/lease_json.h"

#define LINE_OUT_MAX (8u << 20)

struct hvd_line {
	int listen_fd, fd;
	uint64_t conn;			/* number of the present one; 0 none */
	uint64_t conns;
	struct jline in;
	char *out;
	size_t out_fill, out_room;
	bool writing, in_call, broken;
	struct job flush;
	struct hvd *d;
};

static void line_drop(struct hvd_line *n, const char *why)
{
	if (n->fd < 0)
		return;
	if (n->in_call) {
		n->broken = true;	/* not below a callback of it */
		return;
	}
	log_to(&n->d->log, LOG_L_NOTE, "migratord's line is cut: %s; VMs go on", why);
	loop_del_fd(n->d->loop, n->fd);
	close(n->fd);
	n->fd = -1;
	n->conn = 0;
	n->out_fill = 0;
	n->broken = n->writing = false;
	jline_done(&n->in);
	n->d->said_hello = false;
	hvd_disconnected(n->d);
}

static void line_flush(struct hvd_line *n)
{
	while (n->fd >= 0 && n->out_fill) {
		ssize_t w = send(n->fd, n->out, n->out_fill, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0 && errno == EAGAIN)
			break;
		if (w < 0) {
			line_drop(n, strerror(errno));
			return;
		}
		n->out_fill -= (size_t)w;
		memmove(n->out, n->out + w, n->out_fill);
	}
	if (n->fd >= 0 && n->writing != (n->out_fill > 0)) {
		n->writing = !n->writing;
		loop_mod_fd(n->d->loop, n->fd, POLLIN | (n->writing ? POLLOUT : 0));
	}
}

static void flush_run(struct job *j)
{
	line_flush(container_of(j, struct hvd_line, flush));
}

static void line_send(struct hvd_line *n, json_t *o_take)
{
	size_t len = 0;
	char *line = o_take ? jline_encode(o_take, &len) : NULL;

	json_decref(o_take);
	if (n->fd >= 0 && line && n->out_fill + len <= LINE_OUT_MAX) {
		if (n->out_fill + len > n->out_room) {
			size_t room = csv_max(n->out_room, (size_t)4096);
			char *b;

			while (room < n->out_fill + len)
				room *= 2;
			b = realloc(n->out, room);
			if (!b)
				csv_panic("out of memory");
			n->out = b;
			n->out_room = room;
		}
		memcpy(n->out + n->out_fill, line, len);
		n->out_fill += len;
		sched_post(n->d->sched, &n->flush);
	} else if (n->fd >= 0) {
		/* An answer that cannot be given must not be waited for. */
		line_drop(n, line ? "it does not read" : "a text that is too long");
	}
	free(line);
}

static void take_texts(struct hvd_line *n)
{
	struct csv_err err = CSV_ERR_INIT;
	struct agent_msg m;
	json_t *o;
	int rc = 0;

	while (!n->broken && (rc = jline_next(&n->in, &o, &err)) == 1) {
		rc = agent_msg_decode(o, &m, &err);
		if (!rc && m.kind == AGENT_CMD)
			hvd_command(n->d, n->conn, &m);
		else if (!rc)
			rc = csv_err_set(&err, -EPROTO, "commands are wanted here");
		json_decref(o);
		if (rc)
			break;
	}
	if (rc < 0) {
		log_to(&n->d->log, LOG_L_WARN, "migratord's line: %s", err.text);
		n->broken = true;
	}
}

static int on_line(void *arg, int fd, int revents)
{
	struct hvd_line *n = arg;
	char buf[65536];
	ssize_t r;

	(void)revents;
	n->in_call = true;
	r = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (r > 0) {
		struct csv_err err = CSV_ERR_INIT;

		if (jline_feed(&n->in, buf, (size_t)r, &err)) {
			log_to(&n->d->log, LOG_L_WARN, "migratord's line: %s", err.text);
			n->broken = true;
		} else {
			take_texts(n);
		}
	} else if (!r || (errno != EAGAIN && errno != EINTR)) {
		n->broken = true;
	}
	n->in_call = false;
	if (n->broken)
		line_drop(n, r > 0 ? "what it said was no command" : "it was closed");
	else
		line_flush(n);
	return 0;
}

static int on_listen(void *arg, int fd, int revents)
{
	struct hvd_line *n = arg;
	int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred u = { 0 };
	socklen_t len = sizeof(u);

	(void)revents;
	if (c < 0)
		return 0;
	if (getsockopt(c, SOL_SOCKET, SO_PEERCRED, &u, &len) || (u.uid && u.uid != geteuid())) {
		log_to(&n->d->log, LOG_L_WARN, "a process of user %u was refused, only root may manage VMs", (unsigned)u.uid);
		close(c);
		return 0;
	}
	line_drop(n, "another one has come");
	if (loop_add_fd(n->d->loop, c, POLLIN, on_line, n)) {
		close(c);
		return 0;
	}
	n->fd = c;
	n->conn = ++n->conns;
	jline_init(&n->in);
	return 0;
}

int hvd_line_open(struct hvd *d, struct csv_err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct hvd_line *n = calloc(1, sizeof(*n));
	mode_t mask;
	int rc = 0;

	if (!n)
		return csv_err_set(err, -ENOMEM, "out of memory");
	n->d = d;
	n->fd = -1;
	job_init(&n->flush, flush_run);
	if (strlen(d->opt.socket) >= sizeof(a.sun_path)) {
		free(n);
		return csv_err_set(err, -ENAMETOOLONG, "%s: a socket's path may have %zu bytes", d->opt.socket, sizeof(a.sun_path) - 1);
	}
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", d->opt.socket);
	n->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* A lock held by us (hvhostd.c) says that nobody else serves it. */
	unlink(d->opt.socket);
	mask = umask(0177);
	if (n->listen_fd < 0 || bind(n->listen_fd, (struct sockaddr *)&a, sizeof(a)) || listen(n->listen_fd, 8))
		rc = -errno;
	umask(mask);
	if (!rc)
		rc = loop_add_fd(d->loop, n->listen_fd, POLLIN, on_listen, n);
	if (rc) {
		if (n->listen_fd >= 0)
			close(n->listen_fd);
		free(n);
		return csv_err_set(err, rc, "%s: %s", d->opt.socket, strerror(-rc));
	}
	d->line = n;
	return 0;
}

void hvd_line_close(struct hvd *d)
{
	struct hvd_line *n = d->line;

	if (!n)
		return;
	line_flush(n);
	if (n->fd >= 0) {
		loop_del_fd(d->loop, n->fd);
		close(n->fd);
		jline_done(&n->in);
	}
	loop_del_fd(d->loop, n->listen_fd);
	close(n->listen_fd);
	unlink(d->opt.socket);
	sched_unpost(d->sched, &n->flush);
	free(n->out);
	free(n);
	d->line = NULL;
}

void hvd_line_event(struct hvd *d, const char *name, json_t *data_take)
{
	if (!d->line || d->line->fd < 0 || !d->said_hello) {
		json_decref(data_take);
		return;
	}
	line_send(d->line, agent_event_new(name, ++d->seq, clock_boot_ns(&d->clock) / NS_PER_MS, data_take));
}

void hvd_line_reply(struct hvd *d, uint64_t conn, uint64_t id, int code, const char *message, json_t *data_take)
{
	if (!d->line || d->line->conn != conn) {
		json_decref(data_take);
		return;
	}
	line_send(d->line, agent_reply_new(id, code, message, data_take));
}

void hvd_line_propose(struct hvd *d, struct hvd_vm *v, const struct lease_cas *cas, uint64_t ring)
{
	v->proposal = ++d->next_proposal;
	log_to(&d->log, LOG_L_DEBUG, "%s: proposal %llu: %s from version %llu", v->name, (unsigned long long)v->proposal,
	       lease_move_name(cas->move), (unsigned long long)cas->version);
	hvd_line_event(d, "propose", json_pack("{s:I, s:o, s:o}", "proposal", (json_int_t)v->proposal, "ring", agent_u64(ring), "cas",
					       lease_cas_json_encode(cas)));
}
