/*
 * utils/env/real_fence.c: the helper process with agents that are shell scripts.
 */
#include <stdio.h>
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "utils/base/base.h"
#include "utils/env/real.h"
#include "utils/env/real_fence_helper.h"

struct rig {
	struct clock clk;
	struct sched *s;
	struct loop *l;
	struct real_fence *f;
	struct fence_port *port;
	char dir[64], conf[96];
	struct fence_req req[2];
	unsigned done;
};

static void put_file(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

/* `agent` is the body of a shell script that has $action and $plug; `conf` has one %s for its path. */
static void rig_init(struct rig *r, const char *agent, const char *conf)
{
	struct csv_err err = CSV_ERR_INIT;
	char path[96], text[1024];

	memset(r, 0, sizeof(*r));
	strcpy(r->dir, "/tmp/test_env_fence.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(r->dir));
	snprintf(path, sizeof(path), "%s/agent", r->dir);
	snprintf(text, sizeof(text), "#!/bin/sh\ncd %s\nwhile read -r line; do eval \"${line%%%%=*}=\\${line#*=}\"; done\n%s\n", r->dir,
		 agent);
	put_file(path, text, 0755);
	snprintf(r->conf, sizeof(r->conf), "%s/fence.conf", r->dir);
	if (conf) {
		snprintf(text, sizeof(text), conf, path);
		put_file(r->conf, text, 0644);
	}
	ck_assert_int_eq(real_fence_start(r->conf, &r->f, &err), 0);
	real_clock_init(&r->clk);
	r->s = sched_new(&r->clk);
	ck_assert_int_eq(loop_new(r->s, &r->l, &err), 0);
	r->port = real_fence_port(r->f, r->l);
}

static void rig_done(struct rig *r)
{
	char cmd[128];

	real_fence_stop(r->f);
	loop_free(r->l);
	sched_free(r->s);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", r->dir);
	ck_assert_int_eq(system(cmd), 0);
}

static void on_done(struct fence_req *q)
{
	struct rig *r = q->arg;

	r->done++;
	loop_stop(r->l);
}

static int fence(struct rig *r, uint32_t nodeid)
{
	r->req[0] = (struct fence_req){ .node = { nodeid, 1 }, .done = on_done, .arg = r };
	r->done = 0;
	r->port->ops->submit(r->port, &r->req[0]);
	ck_assert_uint_eq(r->done, 0);
	loop_run(r->l);
	ck_assert_uint_eq(r->done, 1);
	return r->req[0].result;
}

static void said(struct rig *r, const char *what)
{
	ck_assert_msg(strstr(r->req[0].err.text, what) != NULL, "'%s' is not in '%s'", what, r->req[0].err.text);
}

#define CONF "# nodes\n[node 2]\nagent=/nowhere\n[node 3]\nagent=%s\ntimeout=20\nplug=n3\n"

START_TEST(off_and_then_status_off_is_a_confirmation)
{
	struct rig r;

	rig_init(&r, "echo \"$action $plug\" >>log\n[ $action = status ] && exit 2\nexit 0", CONF);
	ck_assert_msg(fence(&r, 3) == 0, "%s", r.req[0].err.text);
	{
		char path[96], text[64] = "";
		int fd;

		snprintf(path, sizeof(path), "%s/log", r.dir);
		fd = open(path, O_RDONLY);
		ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
		ck_assert_str_eq(text, "off n3\nstatus n3\n");
		close(fd);
	}
	rig_done(&r);
}
END_TEST

START_TEST(a_machine_that_takes_its_time_is_waited_for)
{
	struct rig r;

	rig_init(&r, "[ $action = status ] || exit 0\n[ -e second ] && exit 2\ntouch second\nexit 0", CONF);
	ck_assert_msg(fence(&r, 3) == 0, "%s", r.req[0].err.text);
	rig_done(&r);
}
END_TEST

START_TEST(a_failed_off_is_told_with_the_agents_last_words)
{
	struct rig r;

	rig_init(&r, "echo first >&2\necho 'login refused' >&2\nexit 1", CONF);
	ck_assert_int_eq(fence(&r, 3), -EIO);
	said(&r, "fence device of node 3 (");
	said(&r, "/agent): off failed: exit 1: login refused");
	rig_done(&r);
}
END_TEST

START_TEST(off_without_a_status_of_off_is_no_confirmation)
{
	struct rig r;

	rig_init(&r, "exit 0", "[node 3]\nagent=%s\ntimeout=2\n");
	ck_assert_int_eq(fence(&r, 3), -EIO);
	said(&r, "status still says on after 2 s");
	rig_done(&r);
}
END_TEST

START_TEST(a_status_that_fails_is_no_confirmation)
{
	struct rig r;

	rig_init(&r, "[ $action = off ] && exit 0\necho 'no route' >&2\nexit 1", CONF);
	ck_assert_int_eq(fence(&r, 3), -EIO);
	said(&r, "status failed: exit 1: no route");
	rig_done(&r);
}
END_TEST

START_TEST(an_agent_that_hangs_is_ended_after_its_time)
{
	struct rig r;

	rig_init(&r, "exec sleep 100", "[node 3]\nagent=%s\ntimeout=1\n");
	ck_assert_int_eq(fence(&r, 3), -ETIMEDOUT);
	said(&r, "off failed: not done after 1 s");
	rig_done(&r);
}
END_TEST

START_TEST(an_agent_that_hangs_without_stderr_is_ended_too)
{
	struct rig r;

	rig_init(&r, "exec sleep 100 2>&-", "[node 3]\nagent=%s\ntimeout=1\n");
	ck_assert_int_eq(fence(&r, 3), -ETIMEDOUT);
	rig_done(&r);
}
END_TEST

START_TEST(wrong_configuration_is_told_with_file_and_line)
{
	static const struct { const char *conf, *says; } bad[] = {
		{ NULL, "fence.conf: No such file" },
		{ "[node 1]\nagent=%s\n", "no section [node 3]" },
		{ "[node 3]\nagent=relative\n", "write the absolute path" },
		{ "[node 3]\nplug=1\n", "write the absolute path" },
		{ "[node 3]\nagent=/nowhere/agent\n", "off failed: exit 127: cannot be run: No such file" },
		{ "[node 3]\nnonsense\n", "line 2: 'nonsense': write key=value" },
		{ "[knot 3]\n", "line 1: '[knot 3]': write [node ID]" },
		{ "[node 3]\ntimeout=never\n", "line 2: timeout=never: 1 to 3600" },
		{ "[node 3]\naction=on\n", "action is chosen by csvfs" },
		{ "[node 3]\nagent=/a\n[node 3]\nagent=/b\n", "two sections" },
		{ "[node 3]\nagent=/a\nagent=/b\n", "line 3: node 3 has two agents" },
		{ "[node 3]\nagent=/a\noption=on\n", "line 3: option is chosen by csvfs" },
		{ "[node 4294967299]\nagent=%s\n", "line 1: '[node 4294967299]': write [node ID]" },	/* 3 in 32 bits */
		{ "[node -4294967293]\nagent=%s\n", "write [node ID]" },
		{ "[node 3] x\nagent=%s\n", "write [node ID]" },
		{ "[node3]\nagent=%s\n", "write [node ID]" },
		{ "[node 3]\nagent=%s\ntimeout=18446744073709551617\n", "1 to 3600" },
		{ "[node 3]\nagent=%s\ntimeout=+5\n", "1 to 3600" },
		{ "[node 3]\nagent=%s\nip=x\raction=on\n", "line 3: holds a control character (0xd)" },
		{ "[node 3]\nagent=%s\n[node 4]\nip=\vx\n", "line 4: holds a control character" },
		{ "[node 3]\nagent=%s\n=x\n", "line 3: '': write key=value" },
		{ "ip=x\n[node 3]\nagent=%s\n", "line 1: 'ip' is of no node" },
	};
	struct rig r;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		rig_init(&r, "exit 0", bad[i].conf);
		ck_assert_int_lt(fence(&r, 3), 0);
		said(&r, bad[i].says);
		rig_done(&r);
	}
}
END_TEST

START_TEST(two_nodes_are_fenced_at_the_same_time)
{
	/* each off waits for the other's: one after the other they would never end */
	struct rig r;

	rig_init(&r, "touch $plug\n[ $action = status ] && exit 2\n"
		     "while [ ! -e a ] || [ ! -e b ]; do sleep 0.05; done",
		 "[node 3]\nagent=%s\ntimeout=10\nplug=a\n[node 4]\nagent=/tmp/x\nplug=b\n");
	{
		char text[512], path[96];

		snprintf(path, sizeof(path), "%s/agent", r.dir);
		snprintf(text, sizeof(text), "[node 3]\nagent=%s\ntimeout=10\nplug=a\n[node 4]\nagent=%s\ntimeout=10\nplug=b\n", path,
			 path);
		put_file(r.conf, text, 0644);
	}
	for (unsigned i = 0; i < 2; i++) {
		r.req[i] = (struct fence_req){ .node = { 3 + i, 1 }, .done = on_done, .arg = &r };
		r.port->ops->submit(r.port, &r.req[i]);
	}
	while (r.done < 2)
		loop_run(r.l);
	ck_assert_int_eq(r.req[0].result, 0);
	ck_assert_int_eq(r.req[1].result, 0);
	rig_done(&r);
}
END_TEST

START_TEST(a_dead_helper_is_told_and_never_confirms)
{
	struct rig r;
	char cmd[64];

	rig_init(&r, "exit 0", CONF);
	/* the helper is our only child */
	snprintf(cmd, sizeof(cmd), "/proc/%d/task/%d/children", getpid(), getpid());
	{
		FILE *f = fopen(cmd, "r");
		int pid = 0;

		ck_assert_ptr_nonnull(f);
		ck_assert_int_eq(fscanf(f, "%d", &pid), 1);
		fclose(f);
		kill(pid, SIGKILL);
	}
	ck_assert_int_eq(fence(&r, 3), -EPIPE);
	said(&r, "the helper process is gone");
	ck_assert_int_eq(fence(&r, 3), -EPIPE);
	rig_done(&r);
}
END_TEST

UNIT_MAIN("env_fence",
	  UNIT_TEST(off_and_then_status_off_is_a_confirmation),
	  UNIT_TEST(a_machine_that_takes_its_time_is_waited_for),
	  UNIT_TEST(a_failed_off_is_told_with_the_agents_last_words),
	  UNIT_TEST(off_without_a_status_of_off_is_no_confirmation),
	  UNIT_TEST(a_status_that_fails_is_no_confirmation),
	  UNIT_TEST(an_agent_that_hangs_is_ended_after_its_time),
	  UNIT_TEST(an_agent_that_hangs_without_stderr_is_ended_too),
	  UNIT_TEST(wrong_configuration_is_told_with_file_and_line),
	  UNIT_TEST(two_nodes_are_fenced_at_the_same_time),
	  UNIT_TEST(a_dead_helper_is_told_and_never_confirms))
