/*
 * real_fence_helper.c - runs ClusterLabs-style fence agents.
 *
 * The configuration (fence_conf.h) is read anew for each request.
 *
 * An agent gets its options on stdin, one a line; `off` must exit with 0, then `status` must exit with 2, which means off
 * (0: on).  Anything else is not a confirmation.
 *
 * Thread: the helper process has one; each request is a child of it, so that a slow device does not hold up another.
 */
#include "utils/env/real_fence_helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "utils/base/base.h"
#include "utils/base/text.h"

#define STATUS_EVERY_MS 500
#define STATUS_OFF 2

/* ---- running an agent -------------------------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

static void agent_child(const struct fence_conf *c, int in, int out)
{
	char *argv[] = { (char *)c->agent, NULL };
	char *env[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", NULL };
	int null = open("/dev/null", O_WRONLY);

	setpgid(0, 0);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	dup2(in, 0);
	dup2(null, 1);
	dup2(out, 2);
	close_range(3, ~0u, 0);
	execve(c->agent, argv, env);
	dprintf(2, "cannot be run: %s\n", strerror(errno));
	_exit(127);
}

/* Keeps the last line that has something in it. */
static void last_line(const char *buf, size_t n, char *line, size_t *at, size_t size, char *ret)
{
	for (size_t i = 0; i < n; i++) {
		if (buf[i] == '\n') {
			if (*at)
				snprintf(ret, size, "%s", line);
			*at = 0;
		} else if (*at + 1 < size) {
			line[(*at)++] = buf[i] >= ' ' ? buf[i] : ' ';
		}
		line[*at] = '\0';
	}
}

/* The exit code (0 … 255), or -errno: -ETIMEDOUT, -ECHILD for a signal.  ret_said: its last words. */
static int agent_run(const struct fence_conf *c, const char *action, int64_t until_ms, char ret_said[160])
{
	int in[2], out[2], status;
	char text[sizeof(c->stdin_keys) + 32], line[160] = "";
	size_t at = 0;
	bool timed_out = false;
	ssize_t n;
	pid_t pid;

	ret_said[0] = '\0';
	if (pipe2(in, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(out, O_CLOEXEC) < 0) {
		n = -errno;
		close(in[0]);
		close(in[1]);
		return n;
	}
	pid = fork();
	if (pid == 0)
		agent_child(c, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	if (pid < 0) {
		close(in[1]);
		close(out[0]);
		return -EAGAIN;
	}
	setpgid(pid, pid);
	/* Fits into the pipe; an agent that does not read it is no reason to stop. */
	n = snprintf(text, sizeof(text), "action=%s\n%s", action, c->stdin_keys);
	if (write(in[1], text, n) < 0)
		n = 0;
	close(in[1]);
	for (;;) {
		struct pollfd p = { .fd = out[0], .events = POLLIN };
		int64_t left = until_ms - now_ms();
		char buf[512];

		if (left <= 0 || poll(&p, 1, (int)csv_min(left, (int64_t)3600000)) == 0) {
			timed_out = true;
			kill(-pid, SIGKILL);
			break;
		}
		n = read(out[0], buf, sizeof(buf));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		last_line(buf, n, line, &at, sizeof(line), ret_said);
	}
	if (at)
		snprintf(ret_said, 160, "%s", line);
	close(out[0]);
	/* It may close its stderr and go on: still not longer than until_ms. */
	while (waitpid(pid, &status, timed_out ? 0 : WNOHANG) != pid) {
		if (now_ms() >= until_ms && !timed_out) {
			timed_out = true;
			kill(-pid, SIGKILL);
		}
		poll(NULL, 0, 10);
	}
	if (timed_out)
		return -ETIMEDOUT;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
}

static int failed(struct csv_err *err, const struct fence_conf *c, uint32_t nodeid, const char *action, int rc, const char *said)
{
	char what[64];

	if (rc == -ETIMEDOUT)
		snprintf(what, sizeof(what), "not done after %u s", c->timeout_s);
	else if (rc == -ECHILD)
		snprintf(what, sizeof(what), "died of a signal");
	else if (rc < 0)
		snprintf(what, sizeof(what), "%s", strerror(-rc));
	else
		snprintf(what, sizeof(what), "exit %d", rc);
	return csv_err_set(err, rc == -ETIMEDOUT ? -ETIMEDOUT : -EIO, "fence device of node %u (%s): %s failed: %s%s%s; it is "
			   "tried again; check the device, or switch the node off and confirm it by hand", nodeid, c->agent,
			   action, what, said[0] ? ": " : "", said);
}

int fence_run(const char *path, uint32_t nodeid, struct csv_err *err)
{
	struct fence_conf c;
	char said[160];
	int64_t until;
	int rc = fence_conf_read(path, nodeid, &c, err);

	if (rc < 0)
		return rc;
	until = now_ms() + c.timeout_s * 1000ll;
	rc = agent_run(&c, "off", until, said);
	if (rc != 0)
		return failed(err, &c, nodeid, "off", rc, said);
	for (;;) {
		rc = agent_run(&c, "status", until, said);
		if (rc == STATUS_OFF)
			return 0;
		if (rc != 0)
			return failed(err, &c, nodeid, "status", rc, said);
		/* Still on: power supplies take their time. */
		if (now_ms() + STATUS_EVERY_MS >= until)
			return csv_err_set(err, -EIO, "fence device of node %u (%s): off reported success, but status still says on "
					   "after %u s: check which machine it switches", nodeid, c.agent, c.timeout_s);
		poll(NULL, 0, STATUS_EVERY_MS);
	}
}

int fence_status(const char *path, uint32_t nodeid, unsigned most_s, bool *ret_on, struct csv_err *err)
{
	struct fence_conf c;
	char said[160];
	int rc = fence_conf_read(path, nodeid, &c, err);

	if (rc < 0)
		return rc;
	c.timeout_s = csv_min(c.timeout_s, most_s);
	rc = agent_run(&c, "status", now_ms() + c.timeout_s * 1000ll, said);
	if (rc != 0 && rc != STATUS_OFF)
		return failed(err, &c, nodeid, "status", rc, said);
	*ret_on = rc == 0;
	return 0;
}

/* ---- the process ---------------------------------------------------------------------------------------------------------- */

static void serve(int fd, const char *conf_path, const struct fence_ask *ask)
{
	struct fence_answer a = { .seq = ask->seq };
	struct csv_err err = CSV_ERR_INIT;

	a.result = fence_run(conf_path, ask->nodeid, &err);
	if (a.result < 0)
		snprintf(a.text, sizeof(a.text), "%.*s", (int)sizeof(a.text) - 1, err.text);
	while (send(fd, &a, sizeof(a), MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

void fence_helper_main(int fd, const char *conf_path)
{
	int null = open("/dev/null", O_RDWR);
	struct fence_ask ask;
	ssize_t n;

	prctl(PR_SET_NAME, "csvfs-fence");
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);		/* or whoever reads the output of mount(8) would wait for our end */
	fd = dup2(fd, 3);
	close_range(4, ~0u, 0);
	/* The terminal's Ctrl-C is for the daemon; an agent at work is brought to its end. */
	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	for (;;) {
		pid_t pid;

		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		n = recv(fd, &ask, sizeof(ask), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n != sizeof(ask))
			_exit(0);	/* the daemon is gone */
		pid = fork();
		if (pid > 0)
			continue;
		serve(fd, conf_path, &ask);
		if (pid == 0)
			_exit(0);
	}
}
