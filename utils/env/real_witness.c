/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * real_witness.c - the process that outlives the daemon and says, when it is true, that the daemon's I/O is over (R15).
 *
 * corosync's own word (PROCDOWN) is no such proof: it says the same of every client when it is itself stopped or restarted, while
 * the daemon lives and its writes are under way; and its socket closes before the kernel has waited for the daemon's I/O when
 * somebody else looks into the daemon's memory at that moment (/proc/PID/cmdline is enough).
 *
 *	daemon				witness				other nodes
 *	lock file: flock, mapped,
 *	  descriptor closed
 *	dies				end of the pipe			corosync: its process ended
 *	  kernel waits for its aio	  the file is still locked	  they wait for the witness, else fence
 *	  its memory goes, and with it
 *	  the last hold on the lock	  the lock is free:
 *					  (node, life) is gone ---------> proof
 *	corosync stopped		sees nothing, says nothing	they fence
 *
 * Invariants
 *  W1  The daemon's lock is held by nothing but a mapping in the daemon's memory.  The kernel ends all libaio of an address space
 *      before it takes the mappings down, so whoever sees the lock free knows that none of it is under way.
 *  W2  The witness speaks of one life: the last that it was told of.  (One before has written its last: a healed minority's, R11.)
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <corosync/cpg.h>

#include "utils/base/base.h"
#include "utils/env/real.h"
#include "utils/env/real_witness.h"

#define PIPE_FD 3
#define LOCK_FD 4
#define LOCK_EVERY_MS 1
#define ENGINE_EVERY_MS 10
#define ENGINE_TRIES 1000u

struct real_witness { pid_t pid; int pipe_fd; };

/* ---- the lock ----------------------------------------------------------------------------------------------------------- */

void *lock_into_memory(int fd)
{
	void *p = mmap(NULL, LOCK_MAP_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	int e = errno;

	if (p != MAP_FAILED && madvise(p, LOCK_MAP_BYTES, MADV_DONTFORK)) {
		e = errno;
		munmap(p, LOCK_MAP_BYTES);
		p = MAP_FAILED;
	}
	if (p == MAP_FAILED) {
		errno = e;
		return NULL;
	}
	close(fd);
	return p;
}

/* ---- the process ---------------------------------------------------------------------------------------------------------- */

struct said { uint64_t incarnation; bool heard; };

static void on_deliver(cpg_handle_t h, const struct cpg_name *group, uint32_t nodeid, uint32_t pid, void *msg, size_t len)
{
	struct said *s;

	(void)group;
	(void)nodeid;
	(void)msg;
	(void)len;
	if (cpg_context_get(h, (void **)&s) == CS_OK && pid == (uint32_t)getpid())
		s->heard = true;
}

/* True when it was ordered among the others' messages: then every member that stays connected gets it. */
static bool say(const struct cpg_name *group, uint64_t incarnation)
{
	cpg_model_v1_data_t model = { .model = CPG_MODEL_V1, .cpg_deliver_fn = on_deliver };
	struct witness_msg m = { .magic = le32_of(WITNESS_MAGIC), .incarnation = le64_of(incarnation) };
	struct iovec iov = { &m, sizeof(m) };
	struct said s = { .incarnation = incarnation };
	bool joined = false, sent = false;
	cpg_handle_t h;

	if (cpg_model_initialize(&h, CPG_MODEL_V1, (cpg_model_data_t *)&model, &s) != CS_OK)
		return false;
	for (unsigned i = 0; i < ENGINE_TRIES && !s.heard; i++) {
		cs_error_t rc = CS_OK;

		if (!joined) {
			rc = cpg_join(h, (struct cpg_name *)group);
			joined = rc == CS_OK;
		}
		if (joined && !sent) {
			rc = cpg_mcast_joined(h, CPG_TYPE_AGREED, &iov, 1);
			sent = rc == CS_OK;
		}
		if (rc == CS_OK)
			rc = cpg_dispatch(h, CS_DISPATCH_ALL);
		if (rc != CS_OK && rc != CS_ERR_TRY_AGAIN)
			break;
		if (!s.heard)
			poll(NULL, 0, sent ? 1 : ENGINE_EVERY_MS);
	}
	cpg_finalize(h);
	return s.heard;
}

static void witness_main(int pipe_fd, int lock_fd, const char *group, uint64_t incarnation) csv_noreturn;

static void witness_main(int pipe_fd, int lock_fd, const char *group, uint64_t incarnation)
{
	struct cpg_name name = { .length = 0 };
	int null = open("/dev/null", O_RDWR);
	uint64_t next;
	ssize_t n;

	prctl(PR_SET_NAME, "csvfs-witness");
	pipe_fd = fcntl(pipe_fd, F_DUPFD, LOCK_FD + 1);
	lock_fd = fcntl(lock_fd, F_DUPFD, LOCK_FD + 2);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	if (dup2(pipe_fd, PIPE_FD) < 0 || dup2(lock_fd, LOCK_FD) < 0)
		_exit(1);
	close_range(LOCK_FD + 1, ~0u, 0);
	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	while ((n = read(PIPE_FD, &next, sizeof(next))) == (ssize_t)sizeof(next) || (n < 0 && errno == EINTR))
		incarnation = n > 0 ? next : incarnation;
	if (n > 0)
		_exit(0);		/* it took its leave itself */
	while (flock(LOCK_FD, LOCK_SH | LOCK_NB) && (errno == EWOULDBLOCK || errno == EINTR))
		poll(NULL, 0, LOCK_EVERY_MS);
	flock(LOCK_FD, LOCK_UN);
	name.length = strlen(group);
	memcpy(name.value, group, name.length);
	_exit(say(&name, incarnation) ? 0 : 1);
}

/* ---- the daemon's side ------------------------------------------------------------------------------------------------------ */

int real_witness_start(const char *lock_path, const char *group, uint64_t incarnation, struct real_witness **ret, struct csv_err *err)
{
	struct real_witness *w = calloc(1, sizeof(*w));
	int p[2] = { -1, -1 }, lock_fd, rc;

	if (!w)
		return csv_err_set(err, -ENOMEM, "witness: out of memory");
	csv_assert(strlen(group) < CPG_MAX_NAME_LENGTH);
	lock_fd = open(lock_path, O_RDONLY | O_CLOEXEC);
	rc = lock_fd < 0 || pipe2(p, O_CLOEXEC) ? -errno : 0;
	if (!rc) {
		w->pid = fork();
		if (w->pid == 0) {
			close(p[1]);
			witness_main(p[0], lock_fd, group, incarnation);
		}
		rc = w->pid < 0 ? -errno : 0;
	}
	if (p[0] >= 0)
		close(p[0]);
	if (lock_fd >= 0)
		close(lock_fd);
	if (rc) {
		if (p[1] >= 0)
			close(p[1]);
		free(w);
		return csv_err_set(err, rc, "witness of this daemon (%s): %s", lock_path, strerror(-rc));
	}
	w->pipe_fd = p[1];
	*ret = w;
	return 0;
}

void real_witness_next_life(struct real_witness *w, uint64_t incarnation)
{
	while (write(w->pipe_fd, &incarnation, sizeof(incarnation)) < 0 && errno == EINTR)
		;
}

void real_witness_stop(struct real_witness *w, bool clean)
{
	if (!w)
		return;
	if (clean && write(w->pipe_fd, "", 1) == 1) {
		close(w->pipe_fd);
		waitpid(w->pid, NULL, 0);
	} else {
		close(w->pipe_fd);	/* it waits for the end of our I/O, then speaks */
	}
	free(w);
}
