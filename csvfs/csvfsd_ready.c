/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvfsd_ready.c - going to the background so that "mount returned 0" means "the volume can be used".
 *
 * The child sends one message through a pipe: "+" or "-text".  No message at all: it died, and the parent says so.
 */
#include "csvfs/csvfsd_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void parent_waits(int fd, pid_t pid) csv_noreturn;

static void parent_waits(int fd, pid_t pid)
{
	char buf[1024];
	size_t used = 0;
	ssize_t n;
	int st = 0;

	while (used < sizeof(buf) - 1 && ((n = read(fd, buf + used, sizeof(buf) - 1 - used)) > 0 || (n < 0 && errno == EINTR)))
		used += n > 0 ? (size_t)n : 0;
	buf[used] = 0;
	if (used && buf[0] == '+')
		_exit(0);
	if (used) {
		fprintf(stderr, "csvfs: %s\n", buf + 1);
		_exit(32);		/* mount(8): mount failure */
	}
	waitpid(pid, &st, 0);
	if (WIFSIGNALED(st))
		fprintf(stderr, "csvfs: the daemon died of signal %d before the volume was mounted; see the system log\n", WTERMSIG(st));
	else
		fprintf(stderr, "csvfs: the daemon left with status %d before the volume was mounted; see the system log\n", WEXITSTATUS(st));
	_exit(32);
}

int ready_background(struct ready *ret, struct csv_err *err)
{
	int p[2], null;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC))
		return csv_err_set(err, -errno, "cannot go to the background: pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0) {
		int e = errno;

		close(p[0]);
		close(p[1]);
		return csv_err_set(err, -e, "cannot go to the background: fork: %s", strerror(e));
	}
	if (pid > 0) {
		close(p[1]);
		parent_waits(p[0], pid);
	}
	close(p[0]);
	setsid();
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		if (null > 2)
			close(null);
	}
	ret->fd = p[1];
	return 0;
}

static void say(struct ready *r, const char *text)
{
	size_t n = strlen(text);

	if (r->fd < 0)
		return;
	while (n) {
		ssize_t w = write(r->fd, text, n);

		if (w < 0 && errno != EINTR)
			break;		/* the parent is gone: nobody to tell */
		if (w > 0) {
			text += w;
			n -= (size_t)w;
		}
	}
	close(r->fd);
	r->fd = -1;
}

/* Standard error stays open until here: whatever goes wrong before is seen by the caller. */
void ready_ok(struct ready *r)
{
	int null;

	if (r->fd < 0)
		return;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, 2);
		close(null);
	}
	say(r, "+");
}

void ready_fail(struct ready *r, const struct csv_err *err)
{
	char buf[sizeof(err->text) + 2];

	if (r->fd < 0) {
		fprintf(stderr, "csvfs: %s\n", err->text);
		return;
	}
	snprintf(buf, sizeof(buf), "-%s", err->text);
	say(r, buf);
}
