/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * real_link_tls.c - see real_link_tls.h.
 *
 * Invariants
 *  LT1 A session is touched by one thread at a time: the handshake thread from tls_shake() to done(), then the control thread.
 *  LT2 The handshake thread never waits for one peer: all handshakes are in one poll(2).
 *  LT3 A key is used for a handshake only if it is that of the file as it was when the handshake began, or the one before.
 */
#include "utils/env/real_link_tls.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "utils/base/base.h"

#define PRIORITY "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:-GROUP-ALL:+GROUP-X25519:-CIPHER-ALL:+AES-128-GCM:+CHACHA20-POLY1305"
#define ID_BYTES 8
#define RECORD_MAX 16384u

struct key { bool valid; struct auth auth; uint8_t psk[AUTH_KEY_BYTES]; char id[2 * ID_BYTES + 1]; };

/* A file that is another one, or was written again. */
struct stamp { dev_t dev; ino_t ino; off_t size; struct timespec written, changed; };

struct link_tls {
	struct loop *loop;
	char keyfile[PATH_MAX];
	uint64_t lockspace;
	uint32_t self;
	gnutls_priority_t priority;
	gnutls_psk_server_credentials_t server;
	pthread_t thread;
	bool started;
	int wake_fd;
	pthread_mutex_t lock;		/* queue, stop */
	struct cds_list_head queue;
	bool stop;
	/* the handshake thread's */
	struct key now, before;
	struct stamp seen;		/* the file as `now` was read from it */
	struct cds_list_head jobs;
	unsigned n_jobs;
	struct cds_list_head ended;	/* when it stops: not for the loop, which may not run any more */
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- keys ---------------------------------------------------------------------------------------------------------------------- */

static struct stamp stamp_of(const struct stat *st)
{
	struct stamp s;

	memset(&s, 0, sizeof(s));		/* compared as bytes */
	s.dev = st->st_dev;
	s.ino = st->st_ino;
	s.size = st->st_size;
	s.written = st->st_mtim;
	s.changed = st->st_ctim;
	return s;
}

static int key_read(struct link_tls *t, struct key *ret, struct stamp *ret_seen, struct csv_err *err)
{
	uint8_t id[AUTH_KEY_BYTES];
	struct stat st;
	int rc = stat(t->keyfile, &st) ? -errno : 0;

	if (rc)
		return csv_err_set(err, rc, "%s: %s", t->keyfile, strerror(-rc));
	rc = auth_init(&ret->auth, t->keyfile, t->lockspace, t->self, err);
	if (rc)
		return rc;
	auth_derive(&ret->auth, "csvfs tls 1", ret->psk);
	auth_derive(&ret->auth, "csvfs key id 1", id);
	for (int i = 0; i < ID_BYTES; i++)
		snprintf(ret->id + 2 * i, 3, "%02x", id[i]);
	ret->valid = true;
	*ret_seen = stamp_of(&st);
	return 0;
}

/* A file that cannot be read now (it is being replaced) leaves the key that we have. */
static void key_look(struct link_tls *t)
{
	struct csv_err err = CSV_ERR_INIT;
	struct stamp seen;
	struct key k = { 0 };
	struct stat st;

	if (stat(t->keyfile, &st))
		return;
	seen = stamp_of(&st);
	if (!memcmp(&seen, &t->seen, sizeof(seen)) || key_read(t, &k, &seen, &err))
		return;
	t->seen = seen;
	if (strcmp(k.id, t->now.id)) {
		t->before = t->now;
		t->now = k;
	}
	explicit_bzero(&k, sizeof(k));
}

static int on_username(gnutls_session_t s, const char *name, gnutls_datum_t *ret_key)
{
	struct tls_job *j = gnutls_session_get_ptr(s);
	const struct key *k = !strcmp(name, j->t->now.id) ? &j->t->now : j->t->before.valid && !strcmp(name, j->t->before.id) ? &j->t->before : NULL;

	if (!k)
		return -1;
	ret_key->data = gnutls_malloc(sizeof(k->psk));
	if (!ret_key->data)
		return -1;
	memcpy(ret_key->data, k->psk, sizeof(k->psk));
	ret_key->size = sizeof(k->psk);
	j->auth = k->auth;
	return 0;
}

/* ---- one handshake ----------------------------------------------------------------------------------------------------------------- */

static const char *job_begin(struct tls_job *j)
{
	struct link_tls *t = j->t;
	const gnutls_datum_t key = { t->now.psk, sizeof(t->now.psk) };
	int rc;

	key_look(t);
	rc = gnutls_init(&j->session, (j->server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);
	if (rc < 0) {
		j->session = NULL;
		return gnutls_strerror(rc);
	}
	gnutls_session_set_ptr(j->session, j);
	gnutls_transport_set_int(j->session, j->fd);
	gnutls_handshake_set_timeout(j->session, GNUTLS_INDEFINITE_TIMEOUT);	/* ours: end_ms */
	rc = gnutls_priority_set(j->session, t->priority);
	if (rc >= 0 && j->server) {
		rc = gnutls_credentials_set(j->session, GNUTLS_CRD_PSK, t->server);
	} else if (rc >= 0) {
		j->auth = t->now.auth;
		rc = gnutls_psk_allocate_client_credentials(&j->cred);
		if (rc >= 0)
			rc = gnutls_psk_set_client_credentials(j->cred, t->now.id, &key, GNUTLS_PSK_KEY_RAW);
		if (rc >= 0)
			rc = gnutls_credentials_set(j->session, GNUTLS_CRD_PSK, j->cred);
	}
	return rc < 0 ? gnutls_strerror(rc) : NULL;
}

static void job_run(struct loop_msg *m)
{
	struct tls_job *j = container_of(m, struct tls_job, msg);

	j->done(j);
}

/* Not in any list any more. */
static void job_end(struct tls_job *j, const char *wrong, bool stopping)
{
	j->wrong = wrong;
	if (wrong) {
		tls_session_end(j->session, j->cred);
		j->session = NULL;
		j->cred = NULL;
	}
	j->msg.fn = job_run;
	if (stopping)
		cds_list_add_tail(&j->node, &j->t->ended);
	else
		loop_post(j->t->loop, &j->msg);
}

static const char *reason(int rc)
{
	switch (rc) {
	case GNUTLS_E_INSUFFICIENT_CREDENTIALS: case GNUTLS_E_ILLEGAL_PARAMETER:
	case GNUTLS_E_INVALID_REQUEST: case GNUTLS_E_KEYFILE_ERROR:
	case GNUTLS_E_DECRYPTION_FAILED: case GNUTLS_E_ERROR_IN_FINISHED_PACKET: case GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER:
		return "does not have the cluster's key";
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return "refuses us: it has another key, or is of another version";
	case GNUTLS_E_PREMATURE_TERMINATION: case GNUTLS_E_PULL_ERROR: case GNUTLS_E_PUSH_ERROR:
		return "went away before it had said who it is";
	default:
		return gnutls_error_is_fatal(rc) ? "does not speak TLS as a member does" : NULL;
	}
}

/* False: it is over and gone from the list. */
static bool job_step(struct tls_job *j)
{
	int rc;

	do
		rc = gnutls_handshake(j->session);
	while (rc < 0 && rc != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(rc));
	if (rc == GNUTLS_E_AGAIN)
		return true;
	cds_list_del(&j->node);
	j->t->n_jobs--;
	job_end(j, rc < 0 ? reason(rc) : NULL, false);
	return false;
}

/* ---- the thread ------------------------------------------------------------------------------------------------------------------------- */

static bool take_queue(struct link_tls *t)
{
	struct cds_list_head list;
	struct tls_job *j, *next;
	bool stop;

	CDS_INIT_LIST_HEAD(&list);
	pthread_mutex_lock(&t->lock);
	cds_list_splice(&t->queue, &list);
	CDS_INIT_LIST_HEAD(&t->queue);
	stop = t->stop;
	pthread_mutex_unlock(&t->lock);
	cds_list_for_each_entry_safe(j, next, &list, node) {
		const char *wrong = stop ? "the links are being closed" : t->n_jobs >= TLS_JOBS_MAX ? "too many calls at once" : job_begin(j);

		cds_list_del(&j->node);
		if (wrong) {
			job_end(j, wrong, stop);
			continue;
		}
		j->end_ms = now_ms() + TLS_SHAKE_MS;
		cds_list_add_tail(&j->node, &t->jobs);
		t->n_jobs++;
		job_step(j);
	}
	return !stop;
}

static void wait_for_work(struct link_tls *t)
{
	struct pollfd fds[1 + TLS_JOBS_MAX] = { { .fd = t->wake_fd, .events = POLLIN } };
	struct tls_job *j, *next;
	unsigned n = 1;
	uint64_t count;

	cds_list_for_each_entry(j, &t->jobs, node)
		fds[n++] = (struct pollfd){ .fd = j->fd, .events = gnutls_record_get_direction(j->session) ? POLLOUT : POLLIN };
	poll(fds, n, t->n_jobs ? 100 : -1);
	if (fds[0].revents && read(t->wake_fd, &count, sizeof(count)) < 0)
		count = 0;
	n = 1;
	cds_list_for_each_entry_safe(j, next, &t->jobs, node) {
		bool ready = fds[n++].revents;

		if (ready && !job_step(j))
			continue;
		if (now_ms() < j->end_ms)
			continue;
		cds_list_del(&j->node);
		t->n_jobs--;
		job_end(j, "did not say who it is in time", false);
	}
}

static void *thread_main(void *arg)
{
	struct link_tls *t = arg;
	struct tls_job *j, *next;

	pthread_setname_np(pthread_self(), "csvfs-tls");
	while (take_queue(t))
		wait_for_work(t);
	cds_list_for_each_entry_safe(j, next, &t->jobs, node) {
		cds_list_del(&j->node);
		job_end(j, "the links are being closed", true);
	}
	return NULL;
}

/* ---- life -------------------------------------------------------------------------------------------------------------------------------- */

int link_tls_new(struct loop *l, const char *keyfile, uint64_t lockspace, uint32_t self, struct link_tls **ret, struct csv_err *err)
{
	struct link_tls *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return csv_err_set(err, -ENOMEM, "links: out of memory");
	t->loop = l;
	t->lockspace = lockspace;
	t->self = self;
	t->wake_fd = -1;
	snprintf(t->keyfile, sizeof(t->keyfile), "%s", keyfile);
	pthread_mutex_init(&t->lock, NULL);
	CDS_INIT_LIST_HEAD(&t->queue);
	CDS_INIT_LIST_HEAD(&t->jobs);
	CDS_INIT_LIST_HEAD(&t->ended);
	rc = key_read(t, &t->now, &t->seen, err);
	if (!rc && (gnutls_priority_init(&t->priority, PRIORITY, NULL) < 0 || gnutls_psk_allocate_server_credentials(&t->server) < 0))
		rc = csv_err_set(err, -EOPNOTSUPP, "links: this GnuTLS has no TLS 1.3 with pre-shared keys");
	if (!rc) {
		gnutls_psk_set_server_credentials_function(t->server, on_username);
		t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (t->wake_fd < 0)
			rc = csv_err_set(err, -errno, "links: eventfd: %s", strerror(errno));
	}
	if (rc) {
		link_tls_free(t);
		return rc;
	}
	*ret = t;
	return 0;
}

int link_tls_start(struct link_tls *t)
{
	sigset_t all, old;
	int rc;

	/* Signals are the main thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&t->thread, NULL, thread_main, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	t->started = !rc;
	return -rc;
}

static void wake(struct link_tls *t)
{
	const uint64_t one = 1;

	while (write(t->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void link_tls_stop(struct link_tls *t)
{
	struct tls_job *j, *next;

	if (!t->started)
		return;
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_mutex_unlock(&t->lock);
	wake(t);
	pthread_join(t->thread, NULL);
	t->started = t->stop = false;
	cds_list_for_each_entry_safe(j, next, &t->ended, node) {
		cds_list_del(&j->node);
		j->done(j);
	}
}

void link_tls_free(struct link_tls *t)
{
	if (!t)
		return;
	link_tls_stop(t);
	if (t->wake_fd >= 0)
		close(t->wake_fd);
	if (t->server)
		gnutls_psk_free_server_credentials(t->server);
	if (t->priority)
		gnutls_priority_deinit(t->priority);
	explicit_bzero(&t->now, sizeof(t->now));
	explicit_bzero(&t->before, sizeof(t->before));
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void tls_shake(struct link_tls *t, struct tls_job *j)
{
	j->t = t;
	j->session = NULL;
	j->cred = NULL;
	pthread_mutex_lock(&t->lock);
	cds_list_add_tail(&j->node, &t->queue);
	pthread_mutex_unlock(&t->lock);
	wake(t);
}

/* ---- sessions ------------------------------------------------------------------------------------------------------------------------------ */

void tls_session_end(gnutls_session_t s, gnutls_psk_client_credentials_t cred)
{
	if (s)
		gnutls_deinit(s);
	if (cred)
		gnutls_psk_free_client_credentials(cred);
}

static ssize_t as_errno(ssize_t n)
{
	if (n >= 0)
		return n;
	errno = n == GNUTLS_E_AGAIN || !gnutls_error_is_fatal((int)n) ? EAGAIN : EPROTO;
	return -1;
}

ssize_t tls_send(gnutls_session_t s, const void *buf, size_t len, size_t *inout_part)
{
	size_t part = *inout_part ? *inout_part : csv_min(len, (size_t)RECORD_MAX);
	/* What it has taken lies encrypted in the session; it wants to be asked again without data. */
	ssize_t n = *inout_part ? gnutls_record_send(s, NULL, 0) : gnutls_record_send(s, buf, part);

	if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED) {
		*inout_part = part;
		errno = EAGAIN;
		return -1;
	}
	*inout_part = 0;
	return as_errno(n);
}

ssize_t tls_recv(gnutls_session_t s, void *buf, size_t len)
{
	return as_errno(gnutls_record_recv(s, buf, len));
}
