/*
 * real_link.c - the link port on TCP.
 *
 * Invariants
 *  RL1 One link per pair: the lower node id connects, the higher accepts.  An authenticated new one replaces the old (the old
 *      one's end may not have been noticed yet): down(), then up().
 *  RL2 Nothing blocks and nothing sleeps: sockets are non-blocking, retries and deadlines are timers.
 *  RL3 What send() takes is written once a turn of the loop, in one system call per link.
 *  RL4 A connection that has not proved itself costs a few hundred bytes, at most ANON_MAX of them at most HANDSHAKE_NS long.
 *  RL5 Frames are bounded by FRAME_MAX before anything is allocated for them; what waits in one link by OUT_MAX.
 *
 *	connector: CONNECTING -> WAIT_ANSWER -------------> UP       frame on the wire: u32 length, bytes
 *	acceptor:                WAIT_HELLO  -> WAIT_PROOF -> UP
 *	any state -> closed; the connector tries its next address, after a round of all of them with a growing pause
 *
 * Thread: the control thread.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "utils/base/base.h"
#include "utils/base/siphash.h"
#include "utils/env/mesh_frame.h"
#include "utils/env/real_link_auth.h"
#include "utils/env/real_link_internal.h"

#define PORT_FIRST 7400
#define PORT_COUNT 1024
#define FRAME_MAX (MESH_HEADER_BYTES + MESH_MSG_MAX)
#define IN_BYTES (4 * (4 + FRAME_MAX))
#define IN_SMALL 256
#define OUT_MAX (16u << 20)
#define ANON_MAX 32
#define READS_PER_TURN 16
#define HANDSHAKE_NS (2 * NS_PER_SEC)
#define BACKOFF_MIN_NS (50 * NS_PER_MS)
#define BACKOFF_MAX_NS (2 * NS_PER_SEC)
#define USER_TIMEOUT_MS 3000
#define LOG_EVERY_NS (60 * NS_PER_SEC)

enum conn_state { CONNECTING, WAIT_ANSWER, WAIT_HELLO, WAIT_PROOF, UP };

struct peer;
struct conn {
	struct cds_list_head node;
	struct rlink *l;
	struct peer *peer;		/* NULL: accepted, not proved yet */
	int fd, events;
	enum conn_state state;
	bool broken;			/* closed at the end of the turn */
	struct auth_talk talk;
	struct timer deadline;
	char where[INET6_ADDRSTRLEN + 8];
	uint8_t *in, *out;
	size_t in_len, in_cap, out_off, out_len, out_cap;
};

struct peer {
	uint32_t nodeid;
	bool wanted;
	unsigned n_addrs;
	struct sockaddr_storage addr[REAL_ADDRS_MAX];
	struct conn *conn;		/* UP */
	struct conn *trying;
	unsigned at;			/* candidate: address and port */
	struct timer retry;
	uint64_t backoff_ns;
	struct rlink *l;
};

struct rlink {
	struct link_port port;
	struct loop *loop;
	struct logger *log;
	struct auth auth;
	uint32_t self;
	uint64_t lockspace;
	const struct link_events *ev;
	void *arg;
	bool started;
	unsigned n_listen;
	int listen_fd[REAL_ADDRS_MAX];
	unsigned n_peers;
	struct peer peer[CLUSTER_NODES_MAX];
	struct cds_list_head conns;
	unsigned n_anon;
	struct loop_hook hook;
	uint64_t logged_ns, unlogged;
	struct real_link_stats stats;
};

static struct rlink *rl_of(const struct link_port *p)
{
	return container_of(p, struct rlink, port);
}

static uint64_t now(struct rlink *l)
{
	return sched_now_ns(loop_sched(l->loop));
}

static struct peer *peer_find(struct rlink *l, uint32_t nodeid)
{
	for (unsigned i = 0; i < l->n_peers; i++)
		if (l->peer[i].nodeid == nodeid)
			return &l->peer[i];
	return NULL;
}

/* Strangers must not fill the log. */
static void grumble(struct rlink *l, const char *where, const char *what)
{
	if (l->logged_ns && now(l) - l->logged_ns < LOG_EVERY_NS) {
		l->unlogged++;
		return;
	}
	log_to(l->log, LOG_L_WARN, "link: %s %s: connection closed (%llu more since the last such line)", where, what,
	       (unsigned long long)l->unlogged);
	l->logged_ns = now(l);
	l->unlogged = 0;
}

/* ---- addresses ----------------------------------------------------------------------------------------------------- */

uint16_t link_port_number(uint64_t lockspace, unsigned k)
{
	static const uint8_t key[CSV_SIPHASH_KEY_BYTES] = "csvfs mesh port";
	struct le64 v = le64_of(lockspace);

	return PORT_FIRST + (csv_siphash(key, &v, sizeof(v)) + k * 97) % PORT_COUNT;
}

static void set_port(struct sockaddr_storage *sa, uint16_t port)
{
	if (sa->ss_family == AF_INET6)
		((struct sockaddr_in6 *)sa)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)sa)->sin_port = htons(port);
}

static socklen_t addr_len(const struct sockaddr_storage *sa)
{
	return sa->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static void addr_text(const struct sockaddr_storage *sa, char *ret, size_t size)
{
	char host[INET6_ADDRSTRLEN], serv[8];

	if (getnameinfo((const struct sockaddr *)sa, addr_len(sa), host, sizeof(host), serv, sizeof(serv),
			NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(ret, size, "?");
	else
		snprintf(ret, size, sa->ss_family == AF_INET6 ? "[%.45s]:%.7s" : "%.45s:%.7s", host, serv);
}

/* May ask the resolver: at start only. */
static bool resolve(const char *text, struct sockaddr_storage *ret)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *ai;

	if (getaddrinfo(text, NULL, &hints, &ai))
		return false;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(ai);
	return ret->ss_family == AF_INET || ret->ss_family == AF_INET6;
}

/* ---- connections ------------------------------------------------------------------------------------------------------ */

static void peer_next(struct peer *p);
static int on_conn(void *arg, int fd, int revents);

/* Tells nobody. */
static void conn_free(struct conn *c)
{
	struct rlink *l = c->l;

	if (!c->peer)
		l->n_anon--;
	else if (c->peer->conn == c)
		c->peer->conn = NULL;
	else if (c->peer->trying == c)
		c->peer->trying = NULL;
	timer_del(loop_sched(l->loop), &c->deadline);
	loop_del_fd(l->loop, c->fd);
	close(c->fd);
	cds_list_del(&c->node);
	free(c->in);
	free(c->out);
	free(c);
}

static void conn_close(struct conn *c)
{
	struct rlink *l = c->l;
	struct peer *p = c->peer;
	bool was_up = p && p->conn == c;

	conn_free(c);
	if (was_up) {
		if (p->n_addrs == 1)
			p->at--;	/* peer_next() tries the same again; with several, the next address */
		l->ev->down(l->arg, p->nodeid);
	}
	if (p && l->started)
		peer_next(p);
}

static void on_deadline(struct timer *t)
{
	struct conn *c = container_of(t, struct conn, deadline);

	if (!c->peer) {
		c->l->stats.refused++;
		grumble(c->l, c->where, "did not say who it is in time");
	}
	conn_close(c);
}

static struct conn *conn_new(struct rlink *l, int fd, struct peer *peer, enum conn_state state,
			     const struct sockaddr_storage *sa)
{
	struct conn *c = calloc(1, sizeof(*c));
	int one = 1, idle = 30, ms = USER_TIMEOUT_MS;

	if (!c)
		return NULL;
	c->l = l;
	c->fd = fd;
	c->peer = peer;
	c->state = state;
	c->in_cap = IN_SMALL;
	c->in = malloc(c->in_cap);
	c->events = state == CONNECTING ? POLLOUT : POLLIN;
	addr_text(sa, c->where, sizeof(c->where));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	if (!c->in || loop_add_fd(l->loop, fd, c->events, on_conn, c) < 0) {
		free(c->in);
		free(c);
		return NULL;
	}
	timer_init(&c->deadline, on_deadline);
	timer_set(loop_sched(l->loop), &c->deadline, now(l) + HANDSHAKE_NS);
	cds_list_add_tail(&c->node, &l->conns);
	if (!peer)
		l->n_anon++;
	return c;
}

static bool out_append(struct conn *c, const void *buf, size_t len)
{
	if (c->out_len + len > c->out_cap) {
		size_t cap = c->out_cap ? c->out_cap : 4096;
		uint8_t *out;

		while (cap < c->out_len + len)
			cap *= 2;
		out = cap <= OUT_MAX ? realloc(c->out, cap) : NULL;
		if (!out) {
			c->broken = true;
			return false;
		}
		c->out = out;
		c->out_cap = cap;
	}
	memcpy(c->out + c->out_len, buf, len);
	c->out_len += len;
	return true;
}

static void conn_want(struct conn *c, int events)
{
	if (c->events != events && loop_mod_fd(c->l->loop, c->fd, events) == 0)
		c->events = events;
}

/* False: the connection is gone. */
static bool conn_flush(struct conn *c)
{
	while (c->out_off < c->out_len && !c->broken) {
		ssize_t n = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			conn_want(c, POLLIN | POLLOUT);
			/* The front is not needed any more: without this a slow peer would let the buffer grow for ever. */
			memmove(c->out, c->out + c->out_off, c->out_len - c->out_off);
			c->out_len -= c->out_off;
			c->out_off = 0;
			return true;
		}
		if (n < 0) {
			c->broken = true;
			break;
		}
		c->out_off += n;
		c->l->stats.writes++;
		c->l->stats.bytes_sent += n;
	}
	if (c->broken) {
		conn_close(c);
		return false;
	}
	c->out_off = c->out_len = 0;
	conn_want(c, POLLIN);
	return true;
}

static void on_turn(struct loop_hook *h)
{
	struct rlink *l = container_of(h, struct rlink, hook);
	struct conn *c, *tmp;

	cds_list_for_each_entry_safe(c, tmp, &l->conns, node)
		if (c->state != CONNECTING && (c->broken || (c->out_len && !(c->events & POLLOUT))))
			conn_flush(c);
}

/* ---- becoming a link ------------------------------------------------------------------------------------------------------ */

/* c->peer is set and proved.  False: no memory, c is closed. */
static bool conn_up(struct conn *c)
{
	struct rlink *l = c->l;
	struct peer *p = c->peer;
	uint8_t *in = realloc(c->in, IN_BYTES);

	if (!in) {
		conn_close(c);
		return false;
	}
	c->in = in;
	c->in_cap = IN_BYTES;
	timer_del(loop_sched(l->loop), &c->deadline);
	timer_del(loop_sched(l->loop), &p->retry);
	if (p->trying == c)
		p->trying = NULL;
	if (p->conn) {
		conn_free(p->conn);
		l->ev->down(l->arg, p->nodeid);
	}
	p->conn = c;
	p->backoff_ns = 0;
	c->state = UP;
	log_to(l->log, LOG_L_INFO, "link to node %u: up, %s", p->nodeid, c->where);
	l->ev->up(l->arg, p->nodeid);
	return true;
}

static void refuse(struct conn *c, const char *why)
{
	c->l->stats.refused++;
	grumble(c->l, c->where, why);
	conn_close(c);
}

/* One step of the handshake with the bytes at `at`.  Returns how many it used, 0 for "not enough yet", -1 when c is gone. */
static int shake(struct conn *c, const uint8_t *at, size_t len)
{
	struct rlink *l = c->l;
	uint8_t proof[AUTH_PROOF_BYTES];
	const char *wrong;
	struct peer *p;

	switch (c->state) {
	case WAIT_HELLO:
		if (len < AUTH_HELLO_BYTES)
			return 0;
		wrong = auth_got_hello(&l->auth, &c->talk, at);
		if (!wrong && !peer_find(l, c->talk.peer))
			wrong = "says that it is a node which is not in corosync's node list";
		if (!wrong && c->talk.peer > l->self)
			wrong = "has the higher node id and should wait for our call";
		if (wrong || !out_append(c, c->talk.answer, AUTH_ANSWER_BYTES)) {
			refuse(c, wrong ? wrong : "cannot be answered: out of memory");
			return -1;
		}
		c->state = WAIT_PROOF;
		return AUTH_HELLO_BYTES;
	case WAIT_ANSWER:
		if (len < AUTH_ANSWER_BYTES)
			return 0;
		wrong = auth_got_answer(&l->auth, &c->talk, at, proof);
		if (wrong || !out_append(c, proof, sizeof(proof))) {
			refuse(c, wrong ? wrong : "cannot be answered: out of memory");
			return -1;
		}
		l->stats.connected++;
		return conn_up(c) ? AUTH_ANSWER_BYTES : -1;
	case WAIT_PROOF:
		if (len < AUTH_PROOF_BYTES)
			return 0;
		wrong = auth_got_proof(&l->auth, &c->talk, at);
		if (wrong) {
			refuse(c, wrong);
			return -1;
		}
		p = peer_find(l, c->talk.peer);
		l->n_anon--;
		c->peer = p;
		l->stats.accepted++;
		return conn_up(c) ? AUTH_PROOF_BYTES : -1;
	default:
		return 0;
	}
}

/* The same for frames. */
static int take_frame(struct conn *c, const uint8_t *at, size_t len)
{
	struct rlink *l = c->l;
	struct le32 le;
	uint32_t n;

	if (len < sizeof(le))
		return 0;
	memcpy(&le, at, sizeof(le));
	n = le32_get(le);
	if (n && n <= FRAME_MAX && len < sizeof(le) + n)
		return 0;
	if (!n || n > FRAME_MAX || l->ev->frame(l->arg, c->peer->nodeid, at + sizeof(le), n) < 0) {
		l->stats.bad_frames++;
		grumble(l, c->where, "sent a bad frame");
		conn_close(c);
		return -1;
	}
	return (int)(sizeof(le) + n);
}

/* False: the connection is gone. */
static bool conn_parse(struct conn *c)
{
	size_t off = 0;

	for (;;) {
		int n = c->state == UP ? take_frame(c, c->in + off, c->in_len - off)
				       : shake(c, c->in + off, c->in_len - off);

		if (n < 0)
			return false;
		if (!n)
			break;
		off += n;
	}
	memmove(c->in, c->in + off, c->in_len - off);
	c->in_len -= off;
	return true;
}

static bool conn_connected(struct conn *c)
{
	int e = 0;
	socklen_t len = sizeof(e);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 || e ||
	    auth_hello(&c->l->auth, &c->talk, c->peer->nodeid) || !out_append(c, c->talk.hello, AUTH_HELLO_BYTES)) {
		conn_close(c);
		return false;
	}
	c->state = WAIT_ANSWER;
	return conn_flush(c);
}

static int on_conn(void *arg, int fd, int revents)
{
	struct conn *c = arg;

	(void)fd;
	if (c->state == CONNECTING) {
		conn_connected(c);
		return 0;
	}
	if ((revents & POLLOUT) && !conn_flush(c))
		return 0;
	if (!(revents & (POLLIN | POLLHUP | POLLERR)))
		return 0;
	for (unsigned i = 0; i < READS_PER_TURN; i++) {
		ssize_t n = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, 0);

		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
			break;
		if (n <= 0) {
			conn_close(c);
			return 0;
		}
		c->in_len += n;
		c->l->stats.bytes_received += n;
		if (!conn_parse(c))
			return 0;
	}
	return 0;
}

static int on_accept(void *arg, int fd, int revents)
{
	struct rlink *l = arg;

	(void)revents;
	for (unsigned i = 0; i < READS_PER_TURN; i++) {
		struct sockaddr_storage sa;
		socklen_t len = sizeof(sa);
		int s = accept4(fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (s < 0)
			break;
		if (l->n_anon >= ANON_MAX || !conn_new(l, s, NULL, WAIT_HELLO, &sa)) {
			l->stats.refused++;
			close(s);
		}
	}
	return 0;
}

/* ---- calling ------------------------------------------------------------------------------------------------------------------ */

static void peer_try(struct peer *p)
{
	struct rlink *l = p->l;
	struct sockaddr_storage sa = p->addr[p->at % p->n_addrs];
	int fd;

	set_port(&sa, link_port_number(l->lockspace, p->at / p->n_addrs));
	fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		peer_next(p);
		return;
	}
	if (connect(fd, (struct sockaddr *)&sa, addr_len(&sa)) < 0 && errno != EINPROGRESS) {
		close(fd);
		peer_next(p);
		return;
	}
	p->trying = conn_new(l, fd, p, CONNECTING, &sa);
	if (!p->trying) {
		close(fd);
		peer_next(p);
	}
}

static void on_retry(struct timer *t)
{
	struct peer *p = container_of(t, struct peer, retry);

	if (p->wanted && !p->conn && !p->trying)
		peer_try(p);
}

/* The next address and port, at once; after all of them with a pause. */
static void peer_next(struct peer *p)
{
	uint64_t pause = 0;

	if (!p->wanted || p->conn || p->trying || p->nodeid < p->l->self || !p->n_addrs || p->retry.armed)
		return;
	if (++p->at >= p->n_addrs * LINK_PORTS) {
		p->at = 0;
		p->backoff_ns = csv_min(csv_max(p->backoff_ns * 2, (uint64_t)BACKOFF_MIN_NS), (uint64_t)BACKOFF_MAX_NS);
		pause = p->backoff_ns;
	}
	timer_set(loop_sched(p->l->loop), &p->retry, now(p->l) + pause);
}

static void rlink_peers(struct link_port *port, const uint32_t *nodeid, uint32_t n)
{
	struct rlink *l = rl_of(port);

	for (unsigned i = 0; i < l->n_peers; i++)
		l->peer[i].wanted = false;
	for (uint32_t i = 0; i < n; i++) {
		struct peer *p = peer_find(l, nodeid[i]);

		if (p)
			p->wanted = true;
		else
			log_to(l->log, LOG_L_ERR, "link to node %u: not in corosync's node list as it was at start: restart this "
			       "daemon after adding nodes", nodeid[i]);
	}
	for (unsigned i = 0; i < l->n_peers; i++) {
		struct peer *p = &l->peer[i];

		if (!p->wanted) {
			timer_del(loop_sched(l->loop), &p->retry);
			if (p->trying)
				conn_free(p->trying);
			if (p->conn)
				p->conn->broken = true;		/* told by down() at the end of the turn */
			continue;
		}
		if (p->conn || p->trying || p->nodeid < l->self || !p->n_addrs)
			continue;
		p->at = 0;
		p->backoff_ns = 0;
		timer_set(loop_sched(l->loop), &p->retry, now(l));
	}
}

static int rlink_send(struct link_port *port, uint32_t nodeid, const void *buf, size_t len)
{
	struct rlink *l = rl_of(port);
	struct peer *p = peer_find(l, nodeid);
	struct le32 le = le32_of((uint32_t)len);

	csv_assert(len && len <= FRAME_MAX);
	if (!p || !p->conn || p->conn->broken)
		return -ENOTCONN;
	if (!out_append(p->conn, &le, sizeof(le)) || !out_append(p->conn, buf, len))
		return -ENOTCONN;
	return 0;
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

static int rlink_start(struct link_port *port, const struct link_events *ev, void *arg)
{
	struct rlink *l = rl_of(port);
	int rc = 0;

	l->ev = ev;
	l->arg = arg;
	for (unsigned i = 0; i < l->n_listen && rc == 0; i++)
		rc = listen(l->listen_fd[i], 64) < 0 ? -errno : loop_add_fd(l->loop, l->listen_fd[i], POLLIN, on_accept, l);
	if (rc < 0) {
		for (unsigned i = 0; i < l->n_listen; i++)
			loop_del_fd(l->loop, l->listen_fd[i]);
		return rc;
	}
	l->started = true;
	loop_add_hook(l->loop, &l->hook);
	return 0;
}

static void rlink_stop(struct link_port *port)
{
	struct rlink *l = rl_of(port);
	struct conn *c, *tmp;

	if (!l->started)
		return;
	l->started = false;
	loop_del_hook(l->loop, &l->hook);
	for (unsigned i = 0; i < l->n_listen; i++)
		loop_del_fd(l->loop, l->listen_fd[i]);
	for (unsigned i = 0; i < l->n_peers; i++)
		timer_del(loop_sched(l->loop), &l->peer[i].retry);
	cds_list_for_each_entry_safe(c, tmp, &l->conns, node)
		conn_free(c);
}

static const struct link_port_ops rlink_ops = { rlink_start, rlink_peers, rlink_send, rlink_stop };

static int listen_on(struct rlink *l, const char *text, struct csv_err *err)
{
	struct sockaddr_storage sa;
	int one = 1, fd, e = 0;

	if (!resolve(text, &sa))
		return csv_err_set(err, -EADDRNOTAVAIL, "corosync.conf: address %s of this node: cannot be resolved: write an IP "
				   "address or fix the name", text);
	fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return csv_err_set(err, -errno, "%s: socket: %s", text, strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof(one));	/* a ring that is down now may come up later */
	for (unsigned k = 0; k < LINK_PORTS; k++) {
		set_port(&sa, link_port_number(l->lockspace, k));
		/* listen() here already: with SO_REUSEADDR two may bind, only one may listen */
		if (bind(fd, (struct sockaddr *)&sa, addr_len(&sa)) == 0 && listen(fd, 64) == 0) {
			l->listen_fd[l->n_listen++] = fd;
			return 0;
		}
		e = errno;
		if (e != EADDRINUSE)
			break;
		close(fd);
		fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return csv_err_set(err, -errno, "%s: socket: %s", text, strerror(errno));
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof(one));
	}
	close(fd);
	return csv_err_set(err, -e, "%s: listening on TCP port %u, %u, %u or %u: %s: is this volume mounted here already?", text,
			   link_port_number(l->lockspace, 0), link_port_number(l->lockspace, 1),
			   link_port_number(l->lockspace, 2), link_port_number(l->lockspace, 3), strerror(e));
}

static void add_peer(struct rlink *l, const struct real_node *n)
{
	struct peer *p = &l->peer[l->n_peers++];

	p->l = l;
	p->nodeid = n->nodeid;
	timer_init(&p->retry, on_retry);
	for (unsigned i = 0; i < n->n_addrs; i++) {
		if (resolve(n->addr[i], &p->addr[p->n_addrs]))
			p->n_addrs++;
		else
			log_to(l->log, LOG_L_WARN, "link to node %u: address %s cannot be resolved and is not used", n->nodeid,
			       n->addr[i]);
	}
}

int link_new_nodes(struct loop *loop, struct logger *log, uint64_t lockspace, uint32_t self, const struct real_nodes *nodes,
		   struct link_port **ret, struct csv_err *err)
{
	const struct real_node *me = real_nodes_find(nodes, self);
	struct rlink *l;
	int rc;

	if (!me)
		return csv_err_set(err, -ENOENT, "corosync.conf: this node, nodeid %u, is not in the nodelist", self);
	l = calloc(1, sizeof(*l));
	if (!l)
		return csv_err_set(err, -ENOMEM, "links: out of memory");
	l->port.ops = &rlink_ops;
	l->loop = loop;
	l->log = log;
	l->self = self;
	l->lockspace = lockspace;
	l->hook.fn = on_turn;
	CDS_INIT_LIST_HEAD(&l->conns);
	rc = auth_init(&l->auth, nodes->keyfile, lockspace, self, err);
	for (unsigned i = 0; i < me->n_addrs && rc == 0; i++)
		rc = listen_on(l, me->addr[i], err);
	if (rc < 0) {
		real_link_free(&l->port);
		return rc;
	}
	for (unsigned i = 0; i < nodes->n; i++)
		if (nodes->node[i].nodeid != self)
			add_peer(l, &nodes->node[i]);
	*ret = &l->port;
	return 0;
}

int real_link_new(struct loop *l, struct logger *log, uint64_t lockspace, uint32_t self, struct link_port **ret,
		  struct csv_err *err)
{
	struct real_nodes *nodes = malloc(sizeof(*nodes));
	int rc;

	if (!nodes)
		return csv_err_set(err, -ENOMEM, "links: out of memory");
	rc = real_nodes_read(nodes, err);
	if (rc == 0)
		rc = link_new_nodes(l, log, lockspace, self, nodes, ret, err);
	free(nodes);
	return rc;
}

void real_link_free(struct link_port *p)
{
	struct rlink *l;

	if (!p)
		return;
	l = rl_of(p);
	rlink_stop(p);
	for (unsigned i = 0; i < l->n_listen; i++)
		close(l->listen_fd[i]);
	explicit_bzero(&l->auth, sizeof(l->auth));
	free(l);
}

const struct real_link_stats *real_link_stats(const struct link_port *p)
{
	return &rl_of(p)->stats;
}
