/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_mon.c - see hvhostd_mon.h.
 */
#include "hvhost/hvhostd_mon.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RETRY_NS (20 * NS_PER_MS)

struct mon {
	struct loop *l;
	struct sched *s;
	struct qmp *q;
	struct qmp_events ev;
	struct timer timer;		/* next try, or the end of patience before READY */
	struct job end;			/* closing when callbacks are on the stack */
	struct job out;
	uint64_t until_ns;
	int fd;
	bool writing, closed, told;
	unsigned busy;			/* callbacks that still look at it */
	char path[108];
};

static void shut(struct mon *m)
{
	if (m->fd < 0)
		return;
	loop_del_fd(m->l, m->fd);
	close(m->fd);
	m->fd = -1;
}

static void maybe_free(struct mon *m)
{
	if (!m->closed || m->busy)
		return;
	sched_unpost(m->s, &m->end);
	sched_unpost(m->s, &m->out);
	qmp_free(m->q);
	free(m);
}

static void end_run(struct job *j)
{
	maybe_free(container_of(j, struct mon, end));
}

/* ---- the monitor's client --------------------------------------------------------------------------------------------- */

static void on_ready(void *arg)
{
	struct mon *m = arg;

	timer_del(m->s, &m->timer);
	if (!m->closed)
		m->ev.ready(m->ev.arg);
}

static void on_event(void *arg, const char *name, const json_t *data, uint64_t stamp_us)
{
	struct mon *m = arg;

	if (!m->closed)
		m->ev.event(m->ev.arg, name, data, stamp_us);
}

static void on_broken(void *arg, const struct csv_err *err)
{
	struct mon *m = arg;

	timer_del(m->s, &m->timer);
	shut(m);
	if (m->closed || m->told)
		return;
	m->told = true;
	m->ev.broken(m->ev.arg, err);
}

static void flush(struct mon *m)
{
	const char *p;
	size_t n;

	while (m->fd >= 0 && (n = qmp_out(m->q, &p))) {
		ssize_t w = send(m->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0 && errno == EAGAIN)
			break;
		if (w < 0) {
			qmp_break(m->q, "QEMU closed its monitor");
			return;
		}
		qmp_out_sent(m->q, (size_t)w);
	}
	if (m->fd >= 0 && m->writing != (qmp_out(m->q, &p) > 0)) {
		m->writing = !m->writing;
		loop_mod_fd(m->l, m->fd, POLLIN | (m->writing ? POLLOUT : 0));
	}
}

static void out_run(struct job *j)
{
	struct mon *m = container_of(j, struct mon, out);

	m->busy++;
	flush(m);
	m->busy--;
	maybe_free(m);
}

static void on_out(void *arg)
{
	struct mon *m = arg;

	sched_post(m->s, &m->out);
}

static int on_fd(void *arg, int fd, int revents)
{
	struct mon *m = arg;
	char buf[65536];
	ssize_t n;

	m->busy++;
	if (revents & (POLLIN | POLLHUP | POLLERR)) {
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n > 0)
			qmp_feed(m->q, buf, (size_t)n);
		else if (!n || (errno != EAGAIN && errno != EINTR))
			qmp_break(m->q, "QEMU closed its monitor");
	}
	m->busy--;
	if (m->closed)
		sched_post(m->s, &m->end);
	return 0;
}

/* ---- connecting --------------------------------------------------------------------------------------------------------- */

static int connect_once(struct mon *m)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc;

	if (fd < 0)
		return -errno;
	memcpy(a.sun_path, m->path, sizeof(a.sun_path));
	rc = connect(fd, (struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
	if (!rc)
		rc = loop_add_fd(m->l, fd, POLLIN, on_fd, m);
	if (rc) {
		close(fd);
		return rc;
	}
	m->fd = fd;
	return 0;
}

static void on_timer(struct timer *t)
{
	struct mon *m = container_of(t, struct mon, timer);
	uint64_t now = sched_now_ns(m->s);
	char why[160];
	int rc = 0;

	m->busy++;
	if (m->fd < 0 && now < m->until_ns)
		rc = connect_once(m);
	if (now >= m->until_ns) {
		snprintf(why, sizeof(why), m->fd < 0 ? "QEMU does not listen at %s" : "QEMU took the connection at %s and says nothing", m->path);
		qmp_break(m->q, why);
	} else {
		timer_set(m->s, &m->timer, rc ? csv_min(now + RETRY_NS, m->until_ns) : m->until_ns);
	}
	m->busy--;
	if (m->closed)
		sched_post(m->s, &m->end);
}

int mon_open(struct loop *l, const char *path, uint64_t until_ns, const struct qmp_events *ev, struct mon **ret)
{
	struct mon *m = calloc(1, sizeof(*m));
	struct qmp_events own = { on_ready, on_event, on_broken, on_out, m };

	if (!m)
		return -ENOMEM;
	m->l = l;
	m->s = loop_sched(l);
	m->ev = *ev;
	m->fd = -1;
	m->until_ns = until_ns;
	m->q = qmp_new(&own);
	if (!m->q) {
		free(m);
		return -ENOMEM;
	}
	snprintf(m->path, sizeof(m->path), "%s", path);
	job_init(&m->end, end_run);
	job_init(&m->out, out_run);
	timer_init(&m->timer, on_timer);
	timer_set(m->s, &m->timer, sched_now_ns(m->s));
	*ret = m;
	return 0;
}

void mon_close(struct mon *m)
{
	if (!m || m->closed)
		return;
	m->closed = true;
	timer_del(m->s, &m->timer);
	shut(m);
	qmp_break(m->q, "the connection was given up");		/* ends the calls */
	sched_post(m->s, &m->end);
}

bool mon_ready(const struct mon *m)
{
	return m && !m->closed && qmp_state(m->q) == QMP_READY;
}

struct qmp *mon_qmp(struct mon *m)
{
	return m->q;
}
