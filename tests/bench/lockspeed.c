/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lockspeed.c - lock managers and volumes on real links between network namespaces, and a bare TCP connection between the same.
 *
 *	lockspeed locks   KEYFILE tls|plain -      ADDRESS NETNS ADDRESS NETNS			(tests/bench/lock-speed calls it)
 *	lockspeed recover KEYFILE tls|plain LOCKS  ADDRESS NETNS ADDRESS NETNS [ADDRESS NETNS]
 *	lockspeed volume  KEYFILE tls|plain DEVICE ADDRESS NETNS ADDRESS NETNS
 *
 * Exit code 0: all bounds are met; 3: a bound is not met; else: it did not run.
 */
#include "tests/bench/lockspeed.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PING_BYTES 96
#define PING_PORT 9799
#define PACKET 65536
#define LOCKSPACE 77
#define EXIT_BOUND 3

struct packet { struct cds_list_head node; uint32_t from; size_t len; uint8_t buf[]; };	/* from 0: a ring */
struct ring_word { uint64_t seq; uint32_t members; };

bool judged_bad;

void die(const char *what)
{
	fprintf(stderr, "lockspeed: %s: %s\n", what, strerror(errno));
	exit(1);
}

void judge(double value, enum bound how, double bound, const char *unit, const char *fmt, ...)
{
	bool ok = how == AT_MOST ? value <= bound : value >= bound;
	va_list ap;

	judged_bad |= !ok;
	printf("%s %10.2f %-6s %s %8.2f  ", ok ? "pass" : "FAIL", value, unit, how == AT_MOST ? "<=" : ">=", bound);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
}

static int by_value(const void *a, const void *b)
{
	return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), by_value);
	return v[n / 2];
}

/* ---- views by hand: node 1 puts messages in order ------------------------------------------------------------------------------------ */

static void put(struct bench *b, uint32_t to, enum word w, uint32_t from, const void *buf, size_t len)
{
	uint8_t head[5] = { (uint8_t)w };		/* (called on coroutines' small stacks) */
	struct iovec v[2] = { { head, sizeof(head) }, { (void *)(uintptr_t)buf, len } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };

	memcpy(head + 1, &from, 4);
	csv_assert(len + sizeof(head) <= PACKET);
	if (sendmsg(b->fd[to], &m, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		die("socket between the nodes");
}

void tell(struct bench *b, uint32_t to, enum word w, const void *buf, size_t len)
{
	if (b->self != 1) {
		put(b, 1, w, b->self, buf, len);
		return;
	}
	for (uint32_t i = 2; i <= b->n; i++)
		if ((!to || to == i) && b->fd[i] >= 0)
			put(b, i, w, 1, buf, len);
}

static void later(struct bench *b, uint32_t from, const void *buf, size_t len)
{
	struct packet *p = malloc(sizeof(*p) + len);

	csv_assert(p);
	p->from = from;
	p->len = len;
	memcpy(p->buf, buf, len);
	cds_list_add_tail(&p->node, &b->queue);
	sched_post(b->sched, &b->deliver);
}

static void new_ring(struct bench *b, const struct ring_word *w)
{
	struct ring_id r = { 1, w->seq };
	uint32_t ids[NODES_MAX], n = 0;

	for (uint32_t i = 1; i <= b->n; i++)
		if (w->members & 1u << i)
			ids[n++] = i;
	b->ev->expected(b->ev_arg, b->n);
	b->ev->totem(b->ev_arg, r);
	b->ev->members(b->ev_arg, ids, n);
	b->ev->quorum(b->ev_arg, r, true);
}

static void on_deliver(struct job *j)
{
	struct bench *b = container_of(j, struct bench, deliver);
	struct packet *p, *tmp;
	struct ring_word w;

	cds_list_for_each_entry_safe(p, tmp, &b->queue, node) {
		cds_list_del(&p->node);
		if (!b->ev) {
			;				/* has left */
		} else if (!p->from) {
			memcpy(&w, p->buf, sizeof(w));
			new_ring(b, &w);
		} else {
			b->ev->msg(b->ev_arg, p->from, p->buf, p->len);
		}
		free(p);
	}
}

void ring(struct bench *b, uint32_t members)
{
	struct ring_word w = { .seq = b->ring_seq += 8, .members = members };

	later(b, 0, &w, sizeof(w));
	tell(b, 0, W_RING, &w, sizeof(w));
}

/* Hub: the first view comes when all are there. */
static void joined(struct bench *b, uint32_t who)
{
	b->joined |= 1u << who;
	if (b->joined == ((1u << b->n) - 1) << 1)
		ring(b, b->joined);
}

static int port_start(struct cluster_port *p, const struct cluster_raw_events *ev, void *arg)
{
	struct bench *b = container_of(p, struct bench, port);

	b->ev = ev;
	b->ev_arg = arg;
	if (b->self == 1)
		joined(b, 1);
	else
		tell(b, 1, W_JOIN, NULL, 0);
	return 0;
}

static void in_order(struct bench *b, uint32_t from, const void *buf, size_t len)
{
	later(b, from, buf, len);
	for (uint32_t i = 2; i <= b->n; i++)
		if (b->fd[i] >= 0)
			put(b, i, W_MSG, from, buf, len);
}

static int port_send(struct cluster_port *p, const void *buf, size_t len)
{
	struct bench *b = container_of(p, struct bench, port);

	if (b->self == 1)
		in_order(b, 1, buf, len);
	else
		tell(b, 1, W_MSG, buf, len);
	return 0;
}

static void port_stop(struct cluster_port *p)
{
	struct bench *b = container_of(p, struct bench, port);

	if (b->ev && b->self != 1)
		tell(b, 1, W_LEAVE, NULL, 0);
	b->ev = NULL;
}

static const struct cluster_port_ops port_ops = { .start = port_start, .send = port_send, .stop = port_stop };

static int on_word(void *arg, int fd, int revents)
{
	struct bench *b = arg;
	uint8_t p[PACKET];
	ssize_t n = recv(fd, p, sizeof(p), MSG_DONTWAIT);
	uint32_t from;

	(void)revents;
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n < 5) {
		uint32_t who = 1;

		while (b->fd[who] != fd)
			who++;
		if (b->self != 1 || !b->mode->gone)
			exit(1);
		b->fd[who] = -1;
		b->mode->gone(b, who);
		return -1;
	}
	memcpy(&from, p + 1, 4);
	switch ((enum word)p[0]) {
	case W_MSG:
		if (b->self == 1)
			in_order(b, from, p + 5, (size_t)n - 5);
		else
			later(b, from, p + 5, (size_t)n - 5);
		break;
	case W_RING:
		later(b, 0, p + 5, (size_t)n - 5);
		break;
	case W_JOIN:
		joined(b, from);
		break;
	case W_LEAVE:
		b->joined &= ~(1u << from);
		ring(b, b->joined);
		break;
	default:
		b->mode->word(b, p[0], from, p + 5, (size_t)n - 5);
		break;
	}
	return 0;
}

/* ---- the bare connection --------------------------------------------------------------------------------------------------------------- */

static void *echo(void *arg)
{
	int fd = *(int *)arg, one = 1, c = accept(fd, NULL, NULL);
	char buf[PING_BYTES];

	setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	while (recv(c, buf, sizeof(buf), MSG_WAITALL) == (ssize_t)sizeof(buf))
		if (send(c, buf, sizeof(buf), MSG_NOSIGNAL) < 0)
			break;
	close(c);
	return NULL;
}

double ping_round(struct bench *b)
{
	char buf[PING_BYTES] = { 0 };
	uint64_t t = now(b);

	for (int i = 0; i < PINGS; i++)
		if (send(b->ping_fd, buf, sizeof(buf), MSG_NOSIGNAL) < 0 || recv(b->ping_fd, buf, sizeof(buf), MSG_WAITALL) != sizeof(buf))
			die("ping-pong");
	return (double)(now(b) - t) / PINGS / 1000;
}

/* Before any other traffic; the hub listens. */
static void ping_connect(struct bench *b, const char *hub_addr)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PING_PORT) };
	static int lfd;
	int one = 1;
	pthread_t t;

	lfd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	sa.sin_addr.s_addr = inet_addr(hub_addr);
	if (b->self == 1) {
		setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(lfd, (struct sockaddr *)&sa, sizeof(sa)) || listen(lfd, 1) || pthread_create(&t, NULL, echo, &lfd))
			die("listening");
		put(b, 2, W_GO, 1, NULL, 0);
	} else if (b->self == 2) {
		uint8_t p[16];

		if (recv(b->fd[1], p, sizeof(p), 0) < 5 || connect(lfd, (struct sockaddr *)&sa, sizeof(sa)))
			die("connecting");
		setsockopt(lfd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		b->ping_fd = lfd;
	}
}

/* ---- a node ---------------------------------------------------------------------------------------------------------------------------- */

static void enter(const char *netns)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/run/netns/%s", netns);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		die(path);
	close(fd);
}

static void log_write(struct logger *l, enum log_level level, const char *text)
{
	(void)level;
	fprintf(stderr, "lockspeed: node %u: %s\n", container_of(l, struct bench, log)->self, text);
}

static int node(struct bench *b, char **argv)
{
	struct csv_err err = CSV_ERR_INIT;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	enter(argv[4 + 2 * b->self]);
	ping_connect(b, argv[5]);
	real_clock_init(&b->clock);
	real_rnd_init(&b->rnd);
	b->log = (struct logger){ log_write, LOG_L_ERR };
	b->sched = sched_new(&b->clock);
	CDS_INIT_LIST_HEAD(&b->queue);
	job_init(&b->deliver, on_deliver);
	b->port = (struct cluster_port){ .ops = &port_ops, .self = b->self };
	b->nodes.n = b->n;
	b->nodes.no_tls = !strcmp(argv[3], "plain");
	snprintf(b->nodes.keyfile, sizeof(b->nodes.keyfile), "%s", argv[2]);
	for (unsigned i = 0; i < b->n; i++) {
		b->nodes.node[i].nodeid = i + 1;
		b->nodes.node[i].n_addrs = 1;
		snprintf(b->nodes.node[i].addr[0], sizeof(b->nodes.node[i].addr[0]), "%s", argv[5 + 2 * i]);
	}
	if (loop_new(b->sched, &b->loop, &err) || link_new_nodes(b->loop, &b->log, LOCKSPACE, b->self, &b->nodes, &b->link, &err)) {
		fprintf(stderr, "lockspeed: %s\n", err.text);
		return 1;
	}
	b->env = (struct env){ .sched = b->sched, .clock = &b->clock, .rnd = &b->rnd, .log = &b->log };
	b->env.cluster = cluster_new(b->sched, &b->port, 100 + b->self);
	b->env.mesh = mesh_new(b->sched, b->env.cluster, b->link, LOCKSPACE);
	csv_assert(b->env.cluster && b->env.mesh);
	for (unsigned i = 1; i <= b->n; i++)
		if (b->fd[i] >= 0 && loop_add_fd(b->loop, b->fd[i], POLLIN, on_word, b))
			die("start");
	b->mode->start(b);
	loop_run(b->loop);
	return judged_bad ? EXIT_BOUND : 0;
}

int main(int argc, char **argv)
{
	static const struct bench_mode *const modes[] = { &mode_locks, &mode_recover, &mode_volume };
	static struct bench b;
	int sv[NODES_MAX + 1][2], status, bad = 0, fail = 0;
	pid_t pid[NODES_MAX + 1];

	for (unsigned i = 0; argc >= 9 && i < sizeof(modes) / sizeof(modes[0]); i++)
		if (!strcmp(argv[1], modes[i]->name))
			b.mode = modes[i];
	b.n = ((uint32_t)argc - 5) / 2;
	if (!b.mode || b.n > NODES_MAX) {
		fprintf(stderr, "usage: lockspeed locks|recover|volume KEYFILE tls|plain ARGUMENT ADDRESS NETNS ADDRESS NETNS...\n");
		return 2;
	}
	b.arg = argv[4];
	signal(SIGPIPE, SIG_IGN);
	for (uint32_t i = 2; i <= b.n; i++)
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv[i]))
			die("socketpair");
	for (uint32_t i = 1; i <= b.n; i++) {
		pid[i] = fork();
		if (pid[i] < 0)
			die("fork");
		if (pid[i])
			continue;
		b.self = i;
		b.fd[1] = i == 1 ? -1 : sv[i][1];
		for (uint32_t k = 2; k <= b.n; k++) {
			b.fd[k] = i == 1 ? sv[k][0] : -1;
			if (k != i)
				close(sv[k][1]);
			if (i != 1)
				close(sv[k][0]);
		}
		exit(node(&b, argv));
	}
	for (uint32_t i = 2; i <= b.n; i++) {
		close(sv[i][0]);
		close(sv[i][1]);
	}
	for (uint32_t i = 1; i <= b.n; i++) {
		if (waitpid(pid[i], &status, 0) != pid[i])
			die("waiting for the nodes");
		if (!WIFEXITED(status) && fprintf(stderr, "lockspeed: node %u: ended by signal %d\n", i, WTERMSIG(status)))
			fail = 1;
		else if (WEXITSTATUS(status) == EXIT_BOUND)
			bad = 1;
		else
			fail |= WEXITSTATUS(status) != 0;
	}
	return fail ? 1 : bad ? EXIT_BOUND : 0;
}
