/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * real_link_tls.h - what the links say to each other is hidden and sealed: TLS 1.3 under a key derived from corosync's authkey.
 *
 *	control thread			handshake thread
 *	tls_shake(job) ------------->	handshake of up to TLS_JOBS_MAX connections at once, each at most TLS_SHAKE_MS
 *	job->done(job) <-------------	session, or why not
 *
 * The key file is looked at before every handshake and read again when it has changed; who calls names the key it has, and who answers takes the
 * present one or the one before, so a key can be changed node by node.  Links that are up stay up.
 *
 * Private to real_link*.c.  Thread: the control thread.
 */
#ifndef CSVFS_UTILS_ENV_REAL_LINK_TLS_H
#define CSVFS_UTILS_ENV_REAL_LINK_TLS_H

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <urcu/list.h>

#include "utils/env/loop.h"
#include "utils/env/real_link_auth.h"

#define TLS_JOBS_MAX 128
#define TLS_SHAKE_MS 2000

struct link_tls;
struct tls_job {
	/* set by the caller */
	int fd;				/* non-blocking; the handshake thread's until done() */
	bool server;
	void (*done)(struct tls_job *j);	/* on the control thread, exactly once */
	void *arg;
	/* for done() */
	const char *wrong;		/* NULL: the handshake is through; else a literal or gnutls's own, without end of life */
	gnutls_session_t session;	/* NULL when wrong; the caller's now, to be ended with tls_session_end() */
	struct auth auth;		/* of the key that both have */
	/* private */
	struct link_tls *t;
	struct cds_list_head node;
	struct loop_msg msg;
	gnutls_psk_client_credentials_t cred;
	uint64_t end_ms;
};

/* Reads the key.  0 or -errno with err set; no thread yet. */
int link_tls_new(struct loop *l, const char *keyfile, uint64_t lockspace, uint32_t self, struct link_tls **ret, struct csv_err *err);
int link_tls_start(struct link_tls *t);		/* the thread: after the daemon went to the background.  0, -errno */
/* Jobs under way are done() first, with `wrong`; what the thread has finished already comes through the loop. */
void link_tls_stop(struct link_tls *t);
void link_tls_free(struct link_tls *t);		/* NULL allowed */
void tls_shake(struct link_tls *t, struct tls_job *j);
void tls_session_end(gnutls_session_t s, gnutls_psk_client_credentials_t cred);	/* NULLs allowed */

/* As send(2) and recv(2) on a non-blocking socket; `*inout_part`: bytes that gnutls has taken and not yet sent. */
ssize_t tls_send(gnutls_session_t s, const void *buf, size_t len, size_t *inout_part);
ssize_t tls_recv(gnutls_session_t s, void *buf, size_t len);

#endif
