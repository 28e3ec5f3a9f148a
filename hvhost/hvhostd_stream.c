/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_stream.c - see hvhostd_stream.h.  Ending: NETLINK_SOCK_DIAG asks for the connections, and has the kernel end those that are meant.
 * Bounding: pidfd_getfd(2) gives us the process's own socket; accepted ones inherit what is set on it (tcp(7)).
 */
#include "hvhost/hvhostd_stream.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>

#include "utils/base/base.h"

#define STREAMS_MAX 16u
#define ANSWER_S 2

struct request { struct nlmsghdr h; struct inet_diag_req_v2 r; };
struct peer { uint8_t family, address[16]; uint16_t port; };
struct found { struct inet_diag_sockid id[STREAMS_MAX]; unsigned n; };

static int peer_of(const char *address, unsigned port, struct peer *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->port = htons((uint16_t)port);
	ret->family = strchr(address, ':') ? AF_INET6 : AF_INET;
	return inet_pton(ret->family, address, ret->address) == 1 ? 0 : -EINVAL;
}

static int ask(int fd, const struct peer *p, uint16_t type, uint16_t flags, const struct inet_diag_sockid *id)
{
	struct request q = { .h = { .nlmsg_len = sizeof(q), .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags },
			     .r = { .sdiag_family = p->family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = 1 << TCP_ESTABLISHED | 1 << TCP_SYN_SENT |
				    1 << TCP_FIN_WAIT1 | 1 << TCP_CLOSE_WAIT | 1 << TCP_LAST_ACK } };
	struct sockaddr_nl to = { .nl_family = AF_NETLINK };

	if (id)
		q.r.id = *id;
	return sendto(fd, &q, sizeof(q), 0, (struct sockaddr *)&to, sizeof(to)) < 0 ? -errno : 0;
}

static void look(const struct peer *p, const struct nlmsghdr *h, struct found *f)
{
	const struct inet_diag_msg *m = NLMSG_DATA(h);

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) || m->idiag_family != p->family || m->id.idiag_dport != p->port ||
	    memcmp(m->id.idiag_dst, p->address, p->family == AF_INET ? 4 : 16) || f->n == STREAMS_MAX)
		return;
	f->id[f->n++] = m->id;
}

/* All messages until the end of the list or an answer; 0, -errno. */
static int take(int fd, const struct peer *p, struct found *f)
{
	_Alignas(struct nlmsghdr) char buf[16384];

	for (;;) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);
		const struct nlmsghdr *h = (const struct nlmsghdr *)buf;

		if (n < 0)
			return -errno;
		for (size_t len = (size_t)n; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			if (h->nlmsg_type == NLMSG_ERROR)
				return ((const struct nlmsgerr *)NLMSG_DATA(h))->error;
			if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY)
				look(p, h, f);
		}
	}
}

int stream_break(const char *address, unsigned port, struct csv_err *err)
{
	struct timeval limit = { .tv_sec = ANSWER_S };
	struct found f = { .n = 0 };
	struct peer p;
	int rc = peer_of(address, port, &p), fd;

	if (rc)
		return csv_err_set(err, rc, "%s is no address", address);
	fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0)
		return csv_err_set(err, -errno, "sock_diag: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	rc = ask(fd, &p, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, NULL);
	if (!rc)
		rc = take(fd, &p, &f);
	for (unsigned i = 0; !rc && i < f.n; i++) {
		rc = ask(fd, &p, SOCK_DESTROY, NLM_F_ACK, &f.id[i]);
		if (!rc)
			rc = take(fd, &p, &f);
		if (rc == -ENOENT)		/* it ended by itself */
			rc = 0;
	}
	close(fd);
	return rc ? csv_err_set(err, rc, "connection to %s port %u: cannot be ended: %s", address, port, strerror(-rc)) : (int)f.n;
}

/* ---- buffers ------------------------------------------------------------------------------------------------------------------ */

static bool listens_on(int fd, unsigned port)
{
	union { struct sockaddr any; struct sockaddr_in in; struct sockaddr_in6 in6; } a;
	socklen_t len = sizeof(int);
	int listening = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) || !listening)
		return false;
	len = sizeof(a);
	if (getsockname(fd, &a.any, &len))
		return false;
	return (a.any.sa_family == AF_INET && ntohs(a.in.sin_port) == port) || (a.any.sa_family == AF_INET6 && ntohs(a.in6.sin6_port) == port);
}

/* FORCE: beyond net.core.rmem_max, for which CAP_NET_ADMIN is needed.  The kernel doubles it for its own book-keeping. */
static int receive_at_most(int fd, unsigned bytes)
{
	int n = (int)bytes;

	if (!setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &n, sizeof(n)) || !setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &n, sizeof(n)))
		return 0;
	return -errno;
}

int stream_bound(pid_t pid, int pid_fd, unsigned port, unsigned bytes, struct csv_err *err)
{
	int rc = -ENOENT, failed = 0;
	char path[64];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	if (!d)
		return csv_err_set(err, errno == ENOENT ? -ESRCH : -errno, "process %d: its sockets cannot be listed: %s", (int)pid, strerror(errno));
	while (rc && (e = readdir(d))) {
		int fd = e->d_name[0] == '.' ? -1 : (int)syscall(SYS_pidfd_getfd, pid_fd, atoi(e->d_name), 0);

		if (fd < 0) {
			if (e->d_name[0] != '.' && errno != EBADF)
				failed = -errno;
			continue;
		}
		if (listens_on(fd, port))
			rc = receive_at_most(fd, bytes);
		close(fd);
	}
	closedir(d);
	if (rc == -ENOENT && failed)
		rc = failed;
	return rc ? csv_err_set(err, rc, "process %d, port %u: its receive buffer cannot be bounded: %s", (int)pid, port,
				rc == -ENOENT ? "it does not listen there" : strerror(-rc)) : 0;
}
