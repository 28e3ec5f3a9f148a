/*
 * real_link_conn.h - one TCP connection of the links: its buffers, its handshake, its frames.  Private to real_link*.c.
 */
#ifndef CSVFS_UTILS_ENV_REAL_LINK_CONN_H
#define CSVFS_UTILS_ENV_REAL_LINK_CONN_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "utils/env/mesh_frame.h"
#include "utils/env/real_link_auth.h"
#include "utils/env/real_link_internal.h"
#include "utils/env/real_link_tls.h"

#define LINK_FRAME_MAX (MESH_HEADER_BYTES + MESH_MSG_MAX)

/* SHAKING: its descriptor is the handshake thread's */
enum link_state { CONNECTING, SHAKING, WAIT_ANSWER, WAIT_HELLO, WAIT_PROOF, UP };

struct link_peer;
struct link_conn {
	struct cds_list_head node;
	struct rlink *l;
	struct link_peer *peer;		/* NULL: accepted, not proved yet */
	int fd, events;
	enum link_state state;
	bool broken;			/* closed at the end of the turn */
	struct tls_job *job;		/* SHAKING */
	gnutls_session_t tls;		/* NULL: plain */
	gnutls_psk_client_credentials_t cred;
	size_t tls_part;
	struct auth auth;
	struct auth_talk talk;
	struct timer deadline;
	char where[INET6_ADDRSTRLEN + 8];
	uint8_t *in, *out;
	size_t in_len, in_cap, out_off, out_len, out_cap;
};

struct link_peer {
	uint32_t nodeid;
	bool wanted;
	unsigned n_addrs;
	struct sockaddr_storage addr[REAL_ADDRS_MAX];
	struct link_conn *conn;		/* UP */
	struct link_conn *trying;
	unsigned at;			/* candidate: address and port */
	struct timer retry;
	uint64_t backoff_ns;
	struct proto_range mesh, messages;	/* what it said last, proved */
	uint16_t version;		/* of frames, while conn */
	char refusal[PROTO_TEXT_MAX];	/* why it is no link, "" */
	struct rlink *l;
};

struct rlink {
	struct link_port port;
	struct loop *loop;
	struct logger *log;
	struct auth auth;
	struct link_tls *tls;		/* NULL: switched off */
	uint32_t self;
	uint64_t lockspace;
	const struct link_events *ev;
	void *arg;
	bool started;
	unsigned n_listen;
	int listen_fd[REAL_ADDRS_MAX];
	unsigned n_peers;
	struct link_peer peer[CLUSTER_NODES_MAX];
	struct cds_list_head conns;
	unsigned n_anon;
	struct loop_hook hook;
	struct proto_range mesh, messages;	/* what we speak */
	uint64_t logged_ns, unlogged;
	uint64_t version_logged_ns, version_unlogged;
	struct real_link_stats stats;
};

struct link_peer *link_peer_find(struct rlink *l, uint32_t nodeid);
/* In real_link.c: the next address and port, at once; after all of them with a pause. */
void link_peer_next(struct link_peer *p);

/* Starts the TLS handshake of a fresh connection, or without TLS what comes after it.  False: the connection is gone. */
bool link_conn_begin(struct link_conn *c);
/* NULL: no memory; `fd` is still the caller's.  `peer` NULL: accepted, not proved yet. */
struct link_conn *link_conn_new(struct rlink *l, int fd, struct link_peer *peer, enum link_state state,
				const struct sockaddr_storage *sa);
void link_conn_free(struct link_conn *c);	/* tells nobody */
void link_conn_close(struct link_conn *c);	/* tells down(), tries the next address */
/* False: no room; the connection is closed at the end of the turn. */
bool link_conn_append(struct link_conn *c, const void *buf, size_t len);
bool link_conn_flush(struct link_conn *c);	/* false: the connection is gone */

void link_addr_set_port(struct sockaddr_storage *sa, uint16_t port);
socklen_t link_addr_len(const struct sockaddr_storage *sa);
/* May ask the resolver: at start only. */
bool link_addr_resolve(const char *text, struct sockaddr_storage *ret);

#endif
