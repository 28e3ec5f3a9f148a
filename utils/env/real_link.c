/*
 * real_link.c - the link port on TCP.
 *
 * Invariants
 *  RL1 One link per pair: the lower node id connects, the higher accepts.  An authenticated new one replaces the old (the old
 *      one's end may not have been noticed yet): down(), then up().
 *  RL2 Nothing blocks and nothing sleeps: sockets are non-blocking, retries and deadlines are timers.
 *  RL3 What send() takes is written once a turn of the loop, in one system call per link.
 *  RL4 A connection that has not proved itself costs a few hundred bytes, at most ANON_MAX of them at most HANDSHAKE_NS long.
 *  RL5 Frames are bounded by LINK_FRAME_MAX before anything is allocated for them; what waits in one link by OUT_MAX.
 *  RL6 A link is up only with a version of frames, and one of messages, that both ends speak (proto.h): looked at when both have proved
 *      themselves.  Who shares none is refused, counted, said in the log at most once a minute, and may call again.
 *
 *	connector: CONNECTING -> SHAKING (TLS) -> WAIT_ANSWER -------------> UP       frame inside: u32 length, bytes
 *	acceptor:                SHAKING       -> WAIT_HELLO  -> WAIT_PROOF -> UP
 *	any state -> closed; the connector tries its next address, after a round of all of them with a growing pause
 *
 * Thread: the control thread.
 */
#include "utils/env/real_link_conn.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "utils/base/base.h"

#define ANON_MAX 32
#define BACKOFF_MIN_NS (50 * NS_PER_MS)
#define BACKOFF_MAX_NS (2 * NS_PER_SEC)
#define ACCEPTS_PER_TURN 16

static struct rlink *rl_of(const struct link_port *p)
{
	return container_of(p, struct rlink, port);
}

static uint64_t now(struct rlink *l)
{
	return sched_now_ns(loop_sched(l->loop));
}

struct link_peer *link_peer_find(struct rlink *l, uint32_t nodeid)
{
	for (unsigned i = 0; i < l->n_peers; i++)
		if (l->peer[i].nodeid == nodeid)
			return &l->peer[i];
	return NULL;
}

static void on_turn(struct loop_hook *h)
{
	struct rlink *l = container_of(h, struct rlink, hook);
	struct link_conn *c, *tmp;

	cds_list_for_each_entry_safe(c, tmp, &l->conns, node)
		if (c->state != CONNECTING && c->state != SHAKING && (c->broken || (c->out_len && !(c->events & POLLOUT))))
			link_conn_flush(c);
}

/* ---- being called --------------------------------------------------------------------------------------------- */

static int on_accept(void *arg, int fd, int revents)
{
	struct rlink *l = arg;

	(void)revents;
	for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
		struct sockaddr_storage sa;
		struct link_conn *c;
		socklen_t len = sizeof(sa);
		int s = accept4(fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (s < 0)
			break;
		c = l->n_anon < ANON_MAX ? link_conn_new(l, s, NULL, WAIT_HELLO, &sa) : NULL;
		if (c) {
			link_conn_begin(c);
		} else {
			l->stats.refused++;
			close(s);
		}
	}
	return 0;
}

/* ---- calling ------------------------------------------------------------------------------------------------------------------ */

static void peer_try(struct link_peer *p)
{
	struct rlink *l = p->l;
	struct sockaddr_storage sa = p->addr[p->at % p->n_addrs];
	int fd;

	link_addr_set_port(&sa, link_port_number(l->lockspace, p->at / p->n_addrs));
	fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		link_peer_next(p);
		return;
	}
	if (connect(fd, (struct sockaddr *)&sa, link_addr_len(&sa)) < 0 && errno != EINPROGRESS) {
		close(fd);
		link_peer_next(p);
		return;
	}
	p->trying = link_conn_new(l, fd, p, CONNECTING, &sa);
	if (!p->trying) {
		close(fd);
		link_peer_next(p);
	}
}

static void on_retry(struct timer *t)
{
	struct link_peer *p = container_of(t, struct link_peer, retry);

	if (p->wanted && !p->conn && !p->trying)
		peer_try(p);
}

/* The next address and port, at once; after all of them with a pause. */
void link_peer_next(struct link_peer *p)
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
		struct link_peer *p = link_peer_find(l, nodeid[i]);

		if (p)
			p->wanted = true;
		else
			log_to(l->log, LOG_L_ERR, "link to node %u: not in corosync's node list as it was at start: restart this "
			       "daemon after adding nodes", nodeid[i]);
	}
	for (unsigned i = 0; i < l->n_peers; i++) {
		struct link_peer *p = &l->peer[i];

		if (!p->wanted) {
			timer_del(loop_sched(l->loop), &p->retry);
			if (p->trying)
				link_conn_free(p->trying);
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
	struct link_peer *p = link_peer_find(l, nodeid);
	struct le32 le = le32_of((uint32_t)len);

	csv_assert(len && len <= LINK_FRAME_MAX);
	if (!p || !p->conn || p->conn->broken)
		return -ENOTCONN;
	if (!link_conn_append(p->conn, &le, sizeof(le)) || !link_conn_append(p->conn, buf, len))
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
	if (l->tls)
		rc = link_tls_start(l->tls);
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
	struct link_conn *c, *tmp;

	if (!l->started)
		return;
	l->started = false;
	loop_del_hook(l->loop, &l->hook);
	for (unsigned i = 0; i < l->n_listen; i++)
		loop_del_fd(l->loop, l->listen_fd[i]);
	for (unsigned i = 0; i < l->n_peers; i++)
		timer_del(loop_sched(l->loop), &l->peer[i].retry);
	cds_list_for_each_entry_safe(c, tmp, &l->conns, node)
		link_conn_free(c);
	if (l->tls)
		link_tls_stop(l->tls);
}

static uint16_t rlink_settled(struct link_port *port, uint32_t nodeid)
{
	const struct link_peer *p = link_peer_find(rl_of(port), nodeid);

	csv_assert(p && p->conn);
	return p->version;
}

static const struct link_port_ops rlink_ops = { rlink_start, rlink_peers, rlink_send, rlink_stop };

static int listen_on(struct rlink *l, const char *text, struct csv_err *err)
{
	struct sockaddr_storage sa;
	int one = 1, fd, e = 0;

	if (!link_addr_resolve(text, &sa))
		return csv_err_set(err, -EADDRNOTAVAIL, "corosync.conf: address %s of this node: cannot be resolved: write an IP "
				   "address or fix the name", text);
	fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return csv_err_set(err, -errno, "%s: socket: %s", text, strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof(one));	/* a ring that is down now may come up later */
	for (unsigned k = 0; k < LINK_PORTS; k++) {
		link_addr_set_port(&sa, link_port_number(l->lockspace, k));
		/* listen() here already: with SO_REUSEADDR two may bind, only one may listen */
		if (bind(fd, (struct sockaddr *)&sa, link_addr_len(&sa)) == 0 && listen(fd, 64) == 0) {
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
	struct link_peer *p = &l->peer[l->n_peers++];

	p->l = l;
	p->nodeid = n->nodeid;
	timer_init(&p->retry, on_retry);
	for (unsigned i = 0; i < n->n_addrs; i++) {
		if (link_addr_resolve(n->addr[i], &p->addr[p->n_addrs]))
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
	l->port.settled = rlink_settled;
	l->mesh = PROTO_MESH;
	l->messages = PROTO_MESSAGES;
	l->loop = loop;
	l->log = log;
	l->self = self;
	l->lockspace = lockspace;
	l->hook.fn = on_turn;
	CDS_INIT_LIST_HEAD(&l->conns);
	rc = auth_init(&l->auth, nodes->keyfile, lockspace, self, err);
	if (nodes->no_tls)
		log_to(log, LOG_L_WARN, "links to the other nodes: TLS is switched off: what they say can be read and changed on the way");
	if (!rc && !nodes->no_tls)
		rc = link_tls_new(loop, nodes->keyfile, lockspace, self, &l->tls, err);
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

int real_link_new(struct loop *l, struct logger *log, uint64_t lockspace, uint32_t self, bool plain, struct link_port **ret,
		  struct csv_err *err)
{
	struct real_nodes *nodes = malloc(sizeof(*nodes));
	int rc;

	if (!nodes)
		return csv_err_set(err, -ENOMEM, "links: out of memory");
	rc = real_nodes_read(nodes, err);
	nodes->no_tls = plain;
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
	link_tls_free(l->tls);
	for (unsigned i = 0; i < l->n_listen; i++)
		close(l->listen_fd[i]);
	explicit_bzero(&l->auth, sizeof(l->auth));
	free(l);
}

void link_set_versions(struct link_port *p, struct proto_range mesh, struct proto_range messages)
{
	struct rlink *l = rl_of(p);

	csv_assert(!l->started);
	l->mesh = mesh;
	l->messages = messages;
}

bool real_link_info(const struct link_port *p, uint32_t nodeid, struct real_link_info *ret)
{
	const struct link_peer *peer = link_peer_find(rl_of(p), nodeid);

	if (!peer)
		return false;
	*ret = (struct real_link_info){ .nodeid = nodeid, .up = peer->conn, .where = peer->conn ? peer->conn->where : "",
					.mesh_version = peer->conn ? peer->version : 0, .mesh = peer->mesh, .messages = peer->messages,
					.refusal = peer->refusal };
	return true;
}

const struct real_link_stats *real_link_stats(const struct link_port *p)
{
	return &rl_of(p)->stats;
}
