/*
 * real_link_conn.c - one TCP connection: buffers, handshake, frames.  See real_link.c for the invariants.
 *
 * Thread: the control thread.
 */
#include "utils/env/real_link_conn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "utils/base/base.h"
#include "utils/base/siphash.h"

#define PORT_FIRST 7400
#define PORT_COUNT 1024
#define IN_BYTES (4 * (4 + LINK_FRAME_MAX))
#define IN_SMALL 256
#define OUT_MAX (16u << 20)
#define READS_PER_TURN 16
#define HANDSHAKE_NS (2 * NS_PER_SEC)
#define USER_TIMEOUT_MS 3000
#define LOG_EVERY_NS (60 * NS_PER_SEC)

static uint64_t now(struct rlink *l)
{
	return sched_now_ns(loop_sched(l->loop));
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

void link_addr_set_port(struct sockaddr_storage *sa, uint16_t port)
{
	if (sa->ss_family == AF_INET6)
		((struct sockaddr_in6 *)sa)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)sa)->sin_port = htons(port);
}

socklen_t link_addr_len(const struct sockaddr_storage *sa)
{
	return sa->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static void addr_text(const struct sockaddr_storage *sa, char *ret, size_t size)
{
	char host[INET6_ADDRSTRLEN], serv[8];

	if (getnameinfo((const struct sockaddr *)sa, link_addr_len(sa), host, sizeof(host), serv, sizeof(serv),
			NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(ret, size, "?");
	else
		snprintf(ret, size, sa->ss_family == AF_INET6 ? "[%.45s]:%.7s" : "%.45s:%.7s", host, serv);
}

/* May ask the resolver: at start only. */
bool link_addr_resolve(const char *text, struct sockaddr_storage *ret)
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

static int on_conn(void *arg, int fd, int revents);

/* Tells nobody. */
void link_conn_free(struct link_conn *c)
{
	struct rlink *l = c->l;

	if (!c->peer)
		l->n_anon--;
	else if (c->peer->conn == c)
		c->peer->conn = NULL;
	else if (c->peer->trying == c)
		c->peer->trying = NULL;
	timer_del(loop_sched(l->loop), &c->deadline);
	if (c->job) {
		c->job->arg = NULL;		/* the descriptor is the handshake thread's: shook() closes it */
		shutdown(c->fd, SHUT_RDWR);
	} else {
		tls_session_end(c->tls, c->cred);
		loop_del_fd(l->loop, c->fd);
		close(c->fd);
	}
	explicit_bzero(&c->auth, sizeof(c->auth));
	cds_list_del(&c->node);
	free(c->in);
	free(c->out);
	free(c);
}

void link_conn_close(struct link_conn *c)
{
	struct rlink *l = c->l;
	struct link_peer *p = c->peer;
	bool was_up = p && p->conn == c;

	link_conn_free(c);
	if (was_up) {
		if (p->n_addrs == 1)
			p->at--;	/* link_peer_next() tries the same again; with several, the next address */
		l->ev->down(l->arg, p->nodeid);
	}
	if (p && l->started)
		link_peer_next(p);
}

static void on_deadline(struct timer *t)
{
	struct link_conn *c = container_of(t, struct link_conn, deadline);

	if (!c->peer) {
		c->l->stats.refused++;
		grumble(c->l, c->where, "did not say who it is in time");
	}
	link_conn_close(c);
}

struct link_conn *link_conn_new(struct rlink *l, int fd, struct link_peer *peer, enum link_state state,
			     const struct sockaddr_storage *sa)
{
	struct link_conn *c = calloc(1, sizeof(*c));
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

bool link_conn_append(struct link_conn *c, const void *buf, size_t len)
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

static void conn_want(struct link_conn *c, int events)
{
	if (c->events != events && loop_mod_fd(c->l->loop, c->fd, events) == 0)
		c->events = events;
}

/* False: the connection is gone. */
bool link_conn_flush(struct link_conn *c)
{
	while (c->out_off < c->out_len && !c->broken) {
		const uint8_t *at = c->out + c->out_off;
		size_t len = c->out_len - c->out_off;
		ssize_t n = c->tls ? tls_send(c->tls, at, len, &c->tls_part) : send(c->fd, at, len, MSG_NOSIGNAL);

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
		link_conn_close(c);
		return false;
	}
	c->out_off = c->out_len = 0;
	conn_want(c, POLLIN);
	return true;
}

static void refuse(struct link_conn *c, const char *why)
{
	c->l->stats.refused++;
	grumble(c->l, c->where, why);
	link_conn_close(c);
}

/*
 * It has proved who it is: is there a version that both speak?  The other end says the same about us.  Lines of their own in the log, so
 * that no noise of strangers hides the one that an administrator needs.  False: no, c is closed.
 */
static bool conn_versions(struct link_conn *c, struct link_peer *p)
{
	struct rlink *l = c->l;
	bool frames = !proto_common(l->mesh, c->talk.mesh);
	char us[24], it[24];

	p->mesh = c->talk.mesh;
	p->messages = c->talk.messages;
	if (!frames && proto_common(l->messages, c->talk.messages)) {
		p->refusal[0] = '\0';
		return true;
	}
	snprintf(us, sizeof(us), "node %u", l->self);
	snprintf(it, sizeof(it), "node %u", p->nodeid);
	if (frames)
		proto_refusal_text("mesh protocol", it, p->mesh, us, l->mesh, p->refusal, sizeof(p->refusal));
	else
		proto_refusal_text("messages between nodes", it, p->messages, us, l->messages, p->refusal, sizeof(p->refusal));
	l->stats.refused_version++;
	if (l->version_logged_ns && now(l) - l->version_logged_ns < LOG_EVERY_NS) {
		l->version_unlogged++;
	} else {
		log_to(l->log, LOG_L_WARN, "link to node %u: refused: %s (%llu more since the last such line)", p->nodeid, p->refusal,
		       (unsigned long long)l->version_unlogged);
		l->version_logged_ns = now(l);
		l->version_unlogged = 0;
	}
	link_conn_close(c);
	return false;
}

/* ---- becoming a link ------------------------------------------------------------------------------------------------------ */

/* c->peer is set and proved.  False: no memory, c is closed. */
static bool conn_up(struct link_conn *c)
{
	struct rlink *l = c->l;
	struct link_peer *p = c->peer;
	uint8_t *in = realloc(c->in, IN_BYTES);

	if (!in) {
		link_conn_close(c);
		return false;
	}
	c->in = in;
	c->in_cap = IN_BYTES;
	timer_del(loop_sched(l->loop), &c->deadline);
	timer_del(loop_sched(l->loop), &p->retry);
	if (p->trying == c)
		p->trying = NULL;
	if (p->conn) {
		link_conn_free(p->conn);
		l->ev->down(l->arg, p->nodeid);
	}
	p->conn = c;
	p->backoff_ns = 0;
	p->version = proto_common(l->mesh, p->mesh);
	c->state = UP;
	log_to(l->log, LOG_L_INFO, "link to node %u: up, %s", p->nodeid, c->where);
	l->ev->up(l->arg, p->nodeid);
	return true;
}

/* One step of the handshake with the bytes at `at`.  Returns how many it used, 0 for "not enough yet", -1 when c is gone. */
static int shake(struct link_conn *c, const uint8_t *at, size_t len)
{
	struct rlink *l = c->l;
	uint8_t proof[AUTH_PROOF_BYTES];
	const char *wrong;
	struct link_peer *p;

	switch (c->state) {
	case WAIT_HELLO:
		if (len < AUTH_HELLO_BYTES)
			return 0;
		wrong = auth_got_hello(&c->auth, &c->talk, at);
		if (!wrong && !link_peer_find(l, c->talk.peer))
			wrong = "says that it is a node which is not in corosync's node list";
		if (!wrong && c->talk.peer > l->self)
			wrong = "has the higher node id and should wait for our call";
		if (wrong || !link_conn_append(c, c->talk.answer, AUTH_ANSWER_BYTES)) {
			refuse(c, wrong ? wrong : "cannot be answered: out of memory");
			return -1;
		}
		c->state = WAIT_PROOF;
		return AUTH_HELLO_BYTES;
	case WAIT_ANSWER:
		if (len < AUTH_ANSWER_BYTES)
			return 0;
		wrong = auth_got_answer(&c->auth, &c->talk, at, proof);
		if (wrong || !link_conn_append(c, proof, sizeof(proof))) {
			refuse(c, wrong ? wrong : "cannot be answered: out of memory");
			return -1;
		}
		/* The proof goes first: without it the other end would not know who it is that cannot speak with it. */
		if (!link_conn_flush(c) || !conn_versions(c, c->peer))
			return -1;
		l->stats.connected++;
		return conn_up(c) ? AUTH_ANSWER_BYTES : -1;
	case WAIT_PROOF:
		if (len < AUTH_PROOF_BYTES)
			return 0;
		wrong = auth_got_proof(&c->auth, &c->talk, at);
		if (wrong) {
			refuse(c, wrong);
			return -1;
		}
		p = link_peer_find(l, c->talk.peer);
		if (!conn_versions(c, p))
			return -1;
		l->n_anon--;
		c->peer = p;
		l->stats.accepted++;
		return conn_up(c) ? AUTH_PROOF_BYTES : -1;
	default:
		return 0;
	}
}

/* The same for frames. */
static int take_frame(struct link_conn *c, const uint8_t *at, size_t len)
{
	struct rlink *l = c->l;
	struct le32 le;
	uint32_t n;

	if (len < sizeof(le))
		return 0;
	memcpy(&le, at, sizeof(le));
	n = le32_get(le);
	if (n && n <= LINK_FRAME_MAX && len < sizeof(le) + n)
		return 0;
	if (!n || n > LINK_FRAME_MAX || l->ev->frame(l->arg, c->peer->nodeid, at + sizeof(le), n) < 0) {
		l->stats.bad_frames++;
		grumble(l, c->where, "sent a bad frame");
		link_conn_close(c);
		return -1;
	}
	return (int)(sizeof(le) + n);
}

/* False: the connection is gone. */
static bool conn_parse(struct link_conn *c)
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

/* ---- the beginning ------------------------------------------------------------------------------------------------------ */

/* What is said is hidden from now on, where it is to be.  False: the connection is gone. */
static bool conn_talk(struct link_conn *c)
{
	c->auth.mesh = c->l->mesh;
	c->auth.messages = c->l->messages;
	if (!c->peer) {
		c->state = WAIT_HELLO;
		return true;
	}
	if (auth_hello(&c->auth, &c->talk, c->peer->nodeid) || !link_conn_append(c, c->talk.hello, AUTH_HELLO_BYTES)) {
		link_conn_close(c);
		return false;
	}
	c->state = WAIT_ANSWER;
	return link_conn_flush(c);
}

static void shook(struct tls_job *j)
{
	struct link_conn *c = j->arg;
	struct tls_job job = *j;

	explicit_bzero(j, sizeof(*j));
	free(j);
	if (!c) {				/* closed meanwhile */
		tls_session_end(job.session, job.cred);
		close(job.fd);
		return;
	}
	c->job = NULL;
	c->tls = job.session;
	c->cred = job.cred;
	c->auth = job.auth;
	explicit_bzero(&job.auth, sizeof(job.auth));
	c->events = POLLIN;
	if (loop_add_fd(c->l->loop, c->fd, POLLIN, on_conn, c) < 0)
		c->events = 0;
	if (job.wrong || !c->events)
		refuse(c, job.wrong ? job.wrong : "cannot be answered: out of memory");
	else
		conn_talk(c);
}

bool link_conn_begin(struct link_conn *c)
{
	if (!c->l->tls) {
		c->auth = c->l->auth;
		return conn_talk(c);
	}
	c->job = calloc(1, sizeof(*c->job));
	if (!c->job) {
		link_conn_close(c);
		return false;
	}
	loop_del_fd(c->l->loop, c->fd);
	c->events = 0;
	c->state = SHAKING;
	*c->job = (struct tls_job){ .fd = c->fd, .server = !c->peer, .done = shook, .arg = c };
	tls_shake(c->l->tls, c->job);
	return true;
}

static bool conn_connected(struct link_conn *c)
{
	int e = 0;
	socklen_t len = sizeof(e);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 || e) {
		link_conn_close(c);
		return false;
	}
	return link_conn_begin(c);
}

static int on_conn(void *arg, int fd, int revents)
{
	struct link_conn *c = arg;

	(void)fd;
	if (c->state == CONNECTING) {
		conn_connected(c);
		return 0;
	}
	if ((revents & POLLOUT) && !link_conn_flush(c))
		return 0;
	if (!(revents & (POLLIN | POLLHUP | POLLERR)))
		return 0;
	/* What lies decrypted in the session is announced by no poll(). */
	for (unsigned i = 0; i < READS_PER_TURN || (c->tls && gnutls_record_check_pending(c->tls)); i++) {
		uint8_t *at = c->in + c->in_len;
		size_t room = c->in_cap - c->in_len;
		ssize_t n = c->tls ? tls_recv(c->tls, at, room) : recv(c->fd, at, room, 0);

		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
			break;
		if (n <= 0) {
			link_conn_close(c);
			return 0;
		}
		c->in_len += n;
		c->l->stats.bytes_received += n;
		if (!conn_parse(c))
			return 0;
	}
	return 0;
}

