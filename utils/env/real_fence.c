/*
 * real_fence.c - the fence port: hands requests to the helper process and its answers back.
 *
 * Invariants
 *  RF1 done() is called once per request, from the loop, with 0 only for what the agent's status has confirmed.
 *  RF2 When the helper is gone every open and later request is answered with an error that says so.
 *
 * Thread: the control thread; real_fence_start() before there are others.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <urcu/list.h>

#include "utils/base/base.h"
#include "utils/env/real.h"
#include "utils/env/real_fence_helper.h"

struct open_ask {
	struct cds_list_head node;
	uint32_t seq;
	struct fence_req *req;
};

struct real_fence {
	struct fence_port port;
	struct loop *loop;
	int fd;
	pid_t pid;
	bool gone;
	uint32_t seq;
	struct cds_list_head open;
	struct job fail;		/* answers what cannot be asked */
};

static void answer(struct open_ask *o, int result)
{
	struct fence_req *r = o->req;

	cds_list_del(&o->node);
	free(o);
	r->result = result;
	r->done(r);
}

static void fail_all(struct job *j)
{
	struct real_fence *f = container_of(j, struct real_fence, fail);
	struct open_ask *o;

	while (!cds_list_empty(&f->open)) {
		o = cds_list_first_entry(&f->open, struct open_ask, node);
		csv_err_set(&o->req->err, -EPIPE, "fence device of node %u: the helper process is gone: restart this daemon, or "
			    "switch the node off and confirm it by hand", o->req->node.nodeid);
		answer(o, -EPIPE);
	}
}

static int on_answer(void *arg, int fd, int revents)
{
	struct real_fence *f = arg;
	struct fence_answer a;
	struct open_ask *o;
	ssize_t n = recv(fd, &a, sizeof(a), MSG_DONTWAIT);

	(void)revents;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n != sizeof(a)) {
		f->gone = true;
		sched_post(loop_sched(f->loop), &f->fail);
		return -1;
	}
	cds_list_for_each_entry(o, &f->open, node) {
		if (o->seq != a.seq)
			continue;
		csv_err_clear(&o->req->err);
		a.text[sizeof(a.text) - 1] = '\0';
		if (a.result < 0)
			csv_err_set(&o->req->err, a.result, "%s", a.text);
		answer(o, csv_min(a.result, 0));
		break;
	}
	return 0;
}

static void submit(struct fence_port *p, struct fence_req *r)
{
	struct real_fence *f = container_of(p, struct real_fence, port);
	struct open_ask *o = malloc(sizeof(*o));
	struct fence_ask ask = { .seq = ++f->seq, .nodeid = r->node.nodeid };

	csv_assertf(o, "out of memory for %zu bytes", sizeof(*o));	/* done() must come, and there is nothing to keep it in */
	o->seq = ask.seq;
	o->req = r;
	cds_list_add_tail(&o->node, &f->open);
	if (!f->gone && send(f->fd, &ask, sizeof(ask), MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(ask))
		return;
	f->gone = true;
	sched_post(loop_sched(f->loop), &f->fail);
}

static const struct fence_port_ops ops = { submit };

int real_fence_start(const char *conf_path, struct real_fence **ret, struct csv_err *err)
{
	struct real_fence *f = calloc(1, sizeof(*f));
	int sv[2], rc;

	if (!f)
		return csv_err_set(err, -ENOMEM, "fence helper: out of memory");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0) {
		rc = csv_err_set(err, -errno, "fence helper: socketpair: %s", strerror(errno));
		free(f);
		return rc;
	}
	f->pid = fork();
	if (f->pid == 0) {
		close(sv[0]);
		fence_helper_main(sv[1], conf_path);
	}
	close(sv[1]);
	if (f->pid < 0) {
		rc = csv_err_set(err, -errno, "fence helper: fork: %s", strerror(errno));
		close(sv[0]);
		free(f);
		return rc;
	}
	f->port.ops = &ops;
	f->fd = sv[0];
	CDS_INIT_LIST_HEAD(&f->open);
	job_init(&f->fail, fail_all);
	*ret = f;
	return 0;
}

struct fence_port *real_fence_port(struct real_fence *f, struct loop *l)
{
	csv_assert(!f->loop);
	f->loop = l;
	if (loop_add_fd(l, f->fd, POLLIN, on_answer, f) < 0)
		f->gone = true;
	return &f->port;
}

void real_fence_stop(struct real_fence *f)
{
	struct open_ask *o, *tmp;

	if (!f)
		return;
	if (f->loop) {
		loop_del_fd(f->loop, f->fd);
		sched_unpost(loop_sched(f->loop), &f->fail);
	}
	close(f->fd);
	waitpid(f->pid, NULL, 0);	/* it ends with its socket; agents at work go on as its children */
	cds_list_for_each_entry_safe(o, tmp, &f->open, node) {
		cds_list_del(&o->node);
		free(o);
	}
	free(f);
}
