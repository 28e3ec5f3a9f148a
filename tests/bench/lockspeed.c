/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lockspeed.c - two lock managers on real links in two network namespaces, and a bare TCP connection between the same two.
 *
 *	lockspeed ADDRESS_1 NETNS_1 ADDRESS_2 NETNS_2 KEYFILE tls|plain LOCKS		(tests/bench/lock-speed calls it)
 *
 * Views come from this program (no corosync: a death is known at once).  Node 2 measures: rounds of bare ping-pong and of remote locks in
 * turn, medians of the rounds.  Then both fight for one lock.  Then node 2 dies and node 1 rebuilds LOCKS locks, half of them mastered there.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dlm/dlm_internal.h"
#include "utils/base/prng.h"
#include "utils/env/real_link_internal.h"

#define ROUNDS 11
#define PINGS 1000
#define PING_BYTES 96
#define PING_PORT 9799
#define FIGHT_NS (2 * NS_PER_SEC)
#define PACKET 65536

enum word { W_MSG = 1, W_READY, W_FIGHT, W_FOUGHT, W_TAKE, W_TAKEN };

struct packet { struct cds_list_head node; uint32_t from; size_t len; uint8_t buf[]; };

struct bench {
	uint32_t self;
	int fd;				/* to the other process: views' messages and what is next */
	struct clock clock;
	struct rnd_port rnd;
	struct sched *sched;
	struct loop *loop;
	struct env env;
	struct dlm *dlm;
	struct link_port *link;
	struct real_nodes nodes;
	struct cluster_port port;
	const struct cluster_raw_events *ev;
	void *ev_arg;
	struct job start, deliver;
	struct cds_list_head queue;
	uint32_t locks;
	/* the lock that is measured, and the fight */
	struct dlm_lock one;
	unsigned round, i, grants;
	uint64_t t0, end_ns;
	double ping_us[ROUNDS], lock_us[ROUNDS];
	bool fighting, wanted;
	struct timer over;
	/* recovery */
	struct dlm_lock *many;
	uint32_t n_many, to_go, first;
	size_t heap_before;
	uint64_t cpu_before;
	int ping_fd;
};

static void die(const char *what)
{
	fprintf(stderr, "lockspeed: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(struct bench *b)
{
	return clock_mono_ns(&b->clock);
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

/* ---- views by hand: node 1 puts messages in order ------------------------------------------------------------------------------------ */

static void tell(struct bench *b, uint8_t word, uint32_t from, const void *buf, size_t len)
{
	uint8_t p[PACKET];

	p[0] = word;
	memcpy(p + 1, &from, 4);
	csv_assert(len + 5 <= sizeof(p));
	memcpy(p + 5, buf, len);
	if (send(b->fd, p, len + 5, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		die("socket between the nodes");
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

static void on_deliver(struct job *j)
{
	struct bench *b = container_of(j, struct bench, deliver);
	struct packet *p, *tmp;

	cds_list_for_each_entry_safe(p, tmp, &b->queue, node) {
		cds_list_del(&p->node);
		b->ev->msg(b->ev_arg, p->from, p->buf, p->len);
		free(p);
	}
}

static int port_start(struct cluster_port *p, const struct cluster_raw_events *ev, void *arg)
{
	struct bench *b = container_of(p, struct bench, port);

	b->ev = ev;
	b->ev_arg = arg;
	sched_post(b->sched, &b->start);
	return 0;
}

static int port_send(struct cluster_port *p, const void *buf, size_t len)
{
	struct bench *b = container_of(p, struct bench, port);

	if (b->self == 1)
		later(b, 1, buf, len);
	tell(b, W_MSG, b->self, buf, len);
	return 0;
}

static void port_stop(struct cluster_port *p) { (void)p; }
static const struct cluster_port_ops port_ops = { .start = port_start, .send = port_send, .stop = port_stop };

static void ring(struct bench *b, uint64_t seq, uint32_t n)
{
	static const uint32_t ids[] = { 1, 2 };
	struct ring_id r = { 1, seq };

	b->ev->totem(b->ev_arg, r);
	b->ev->members(b->ev_arg, ids, n);
	b->ev->quorum(b->ev_arg, r, true);
}

static void on_start(struct job *j)
{
	ring(container_of(j, struct bench, start), 8, 2);
}

/* ---- node 2: ping-pong and locks in turn ----------------------------------------------------------------------------------------------- */

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

static double ping_round(struct bench *b)
{
	char buf[PING_BYTES] = { 0 };
	uint64_t t = now(b);

	for (int i = 0; i < PINGS; i++)
		if (send(b->ping_fd, buf, sizeof(buf), MSG_NOSIGNAL) < 0 || recv(b->ping_fd, buf, sizeof(buf), MSG_WAITALL) != sizeof(buf))
			die("ping-pong");
	return (double)(now(b) - t) / PINGS / 1000;
}

static int by_value(const void *a, const void *b)
{
	return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void lock_round(struct bench *b)
{
	b->ping_us[b->round] = ping_round(b);
	b->i = 0;
	b->t0 = now(b);
	dlm_request(b->dlm, &b->one, DLM_CR, 0);
}

static void locks_measured(struct bench *b)
{
	double ratio[ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		ratio[i] = b->lock_us[i] / b->ping_us[i];
	qsort(ratio, ROUNDS, sizeof(ratio[0]), by_value);
	qsort(b->ping_us, ROUNDS, sizeof(double), by_value);
	qsort(b->lock_us, ROUNDS, sizeof(double), by_value);
	printf("figure: bare TCP ping-pong %.1f us, uncontended remote lock %.1f us, ratio %.2f (medians of %d pairs of %d, links %s)\n",
	       b->ping_us[ROUNDS / 2], b->lock_us[ROUNDS / 2], ratio[ROUNDS / 2], ROUNDS, PINGS, b->nodes.no_tls ? "without TLS" : "with TLS");
	fflush(stdout);
}

/* ---- the fight ----------------------------------------------------------------------------------------------------------------------------- */

static void fight(struct bench *b)
{
	b->wanted = false;
	dlm_request(b->dlm, &b->one, DLM_EX, 0);
}

static void fight_begin(struct bench *b)
{
	b->fighting = true;
	b->grants = 0;
	b->end_ns = now(b) + FIGHT_NS;
	fight(b);
}

static void give_way(struct bench *b)
{
	if (b->one.granted == DLM_EX && !b->one.busy) {
		dlm_downgrade(b->dlm, &b->one, DLM_NL);
		if (now(b) < b->end_ns) {
			fight(b);
		} else if (b->self == 2) {
			b->fighting = false;
			tell(b, W_FOUGHT, 2, &b->grants, sizeof(b->grants));
		} else {
			b->fighting = false;
		}
	}
}

static void take_many(struct bench *b, uint32_t first, uint32_t n);

static void on_done(struct dlm_lock *l, int status)
{
	struct bench *b = l->arg;

	if (status) {
		fprintf(stderr, "lockspeed: node %u: lock: %d\n", b->self, status);
		exit(1);
	}
	if (b->fighting) {
		b->grants++;
		if (b->wanted || now(b) >= b->end_ns)
			give_way(b);
		return;
	}
	if (b->self == 1) {
		tell(b, W_READY, 1, "", 0);
		return;
	}
	dlm_downgrade(b->dlm, l, DLM_NL);
	if (++b->i < PINGS) {
		dlm_request(b->dlm, l, DLM_CR, 0);
		return;
	}
	b->lock_us[b->round] = (double)(now(b) - b->t0) / PINGS / 1000;
	if (++b->round < ROUNDS) {
		lock_round(b);
		return;
	}
	locks_measured(b);
	tell(b, W_FIGHT, 2, "", 0);
}

static void on_bast(struct dlm_lock *l, enum dlm_mode blocked)
{
	struct bench *b = l->arg;

	(void)blocked;
	b->wanted = true;
	if (b->fighting)
		give_way(b);
}

/* ---- recovery --------------------------------------------------------------------------------------------------------------------------- */

static size_t heap(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static void many_done(struct dlm_lock *l, int status)
{
	struct bench *b = l->arg;

	if (status) {
		fprintf(stderr, "lockspeed: node %u: one of many: %d\n", b->self, status);
		exit(1);
	}
	if (--b->to_go)
		return;
	if (b->self == 2) {
		tell(b, W_TAKEN, 2, "", 0);
	} else if (b->first == 0) {		/* those of node 2: mastered there */
		take_many(b, b->locks / 2, b->locks - b->locks / 2);
	} else {
		struct dlm_stats st;

		dlm_stats(b->dlm, &st);
		printf("figure: %u locks here, %u resources mastered here: %zu bytes a lock and half a resource; struct dlm_lock %zu, client %zu, "
		       "resource %zu, grant %zu, record %zu\n", st.locks, st.resources, (heap() - b->heap_before) / b->locks,
		       sizeof(struct dlm_lock), sizeof(struct dlm_client), sizeof(struct dlm_res), sizeof(struct dlm_lkb), sizeof(struct dlm_rec));
		fflush(stdout);
		tell(b, W_TAKEN, 1, "", 0);	/* node 2 ends */
	}
}

static void many_bast(struct dlm_lock *l, enum dlm_mode blocked) { (void)l; (void)blocked; }

/* The same names on both nodes. */
static void take_many(struct bench *b, uint32_t first, uint32_t n)
{
	if (!b->many) {
		b->heap_before = heap();
		b->many = calloc(b->locks, sizeof(*b->many));
		csv_assert(b->many);
	}
	b->first = first;
	b->to_go = n;
	for (uint32_t i = first; i < first + n; i++) {
		uint64_t mix = i, name[2] = { csv_splitmix64(&mix), csv_splitmix64(&mix) };
		struct dlm_lock *l = &b->many[i];

		dlm_lock_init(b->dlm, l, name, sizeof(name));
		l->done = many_done;
		l->bast = many_bast;
		l->arg = b;
		dlm_request(b->dlm, l, DLM_PR, 0);
	}
}

/* ---- both ---------------------------------------------------------------------------------------------------------------------------------- */

static void recovered(void *arg, const struct cluster_view *v)
{
	struct bench *b = arg;
	struct dlm_stats st;

	if (v->n == 1) {
		dlm_stats(b->dlm, &st);
		printf("figure: node lost with half of %u locks mastered there: lock tables rebuilt in %.1f ms, %.1f ms of them on a processor\n", b->locks,
		       (double)st.recovery_ns_last / NS_PER_MS, (double)(cpu_ns() - b->cpu_before) / NS_PER_MS);
		loop_stop(b->loop);
	} else if (b->self == 1) {
		dlm_request(b->dlm, &b->one, DLM_CR, 0);	/* so node 1 is its master */
	}
}

static void lost(void *arg, const struct cluster_node *who, uint32_t n) { (void)arg; (void)who; (void)n; }
static void purged(void *arg) { (void)arg; fprintf(stderr, "lockspeed: purged\n"); exit(1); }

static void over(struct timer *t)
{
	struct bench *b = container_of(t, struct bench, over);

	if (b->one.granted == DLM_EX)
		give_way(b);
}

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
		if (b->self != 1)
			exit(1);
		b->cpu_before = cpu_ns();
		ring(b, 16, 1);			/* node 2 is dead */
		return -1;
	}
	memcpy(&from, p + 1, 4);
	switch ((enum word)p[0]) {
	case W_MSG:
		later(b, from, p + 5, (size_t)n - 5);
		if (b->self == 1)
			tell(b, W_MSG, from, p + 5, (size_t)n - 5);
		break;
	case W_READY:
		lock_round(b);
		break;
	case W_FIGHT:
		if (b->self == 1) {
			dlm_downgrade(b->dlm, &b->one, DLM_NL);
			tell(b, W_FIGHT, 1, "", 0);
		}
		fight_begin(b);
		timer_set(b->sched, &b->over, b->end_ns + 10 * NS_PER_MS);
		break;
	case W_FOUGHT:
		{
			unsigned theirs;

			memcpy(&theirs, p + 5, sizeof(theirs));
			printf("figure: two nodes for one lock: %.0f hand-overs/s, the weaker node has %.0f %%\n",
			       (double)(b->grants + theirs) / ((double)FIGHT_NS / NS_PER_SEC),
			       100.0 * csv_min(b->grants, theirs) / csv_max(1u, b->grants + theirs));
			fflush(stdout);
			tell(b, W_TAKE, 1, "", 0);
		}
		break;
	case W_TAKE:
		take_many(b, 0, b->locks / 2);
		break;
	case W_TAKEN:
		if (b->self == 2)
			_exit(0);
		take_many(b, 0, b->locks / 2);
		break;
	}
	return 0;
}

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

static int node(struct bench *b, char **argv)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PING_PORT) };
	struct dlm_events ev = { .recovered = recovered, .lost = lost, .purged = purged, .arg = b };
	struct csv_err err = CSV_ERR_INIT;
	int one = 1, lfd;
	pthread_t t;

	enter(argv[2 * b->self]);
	lfd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	sa.sin_addr.s_addr = inet_addr(argv[1]);
	if (b->self == 1) {
		setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(lfd, (struct sockaddr *)&sa, sizeof(sa)) || listen(lfd, 1) || pthread_create(&t, NULL, echo, &lfd))
			die("listening");
		tell(b, W_READY, 1, "", 0);
	} else {
		uint8_t p[16];

		if (recv(b->fd, p, sizeof(p), 0) < 5 || connect(lfd, (struct sockaddr *)&sa, sizeof(sa)))
			die("connecting");
		setsockopt(lfd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		b->ping_fd = lfd;
	}
	real_clock_init(&b->clock);
	real_rnd_init(&b->rnd);
	b->sched = sched_new(&b->clock);
	CDS_INIT_LIST_HEAD(&b->queue);
	job_init(&b->start, on_start);
	job_init(&b->deliver, on_deliver);
	timer_init(&b->over, over);
	b->port = (struct cluster_port){ .ops = &port_ops, .self = b->self };
	b->nodes.n = 2;
	b->nodes.no_tls = !strcmp(argv[6], "plain");
	snprintf(b->nodes.keyfile, sizeof(b->nodes.keyfile), "%s", argv[5]);
	for (unsigned i = 0; i < 2; i++) {
		b->nodes.node[i].nodeid = i + 1;
		b->nodes.node[i].n_addrs = 1;
		snprintf(b->nodes.node[i].addr[0], sizeof(b->nodes.node[i].addr[0]), "%s", argv[1 + 2 * i]);
	}
	if (loop_new(b->sched, &b->loop, &err) || link_new_nodes(b->loop, NULL, 77, b->self, &b->nodes, &b->link, &err)) {
		fprintf(stderr, "lockspeed: %s\n", err.text);
		return 1;
	}
	b->env = (struct env){ .sched = b->sched, .clock = &b->clock, .rnd = &b->rnd };
	b->env.cluster = cluster_new(b->sched, &b->port, 100 + b->self);
	b->env.mesh = mesh_new(b->sched, b->env.cluster, b->link, 77);
	b->dlm = dlm_new(&b->env, &ev);
	csv_assert(b->dlm);
	dlm_set_expected_nodes(b->dlm, 2);
	dlm_lock_init(b->dlm, &b->one, "one", 3);
	b->one.done = on_done;
	b->one.bast = on_bast;
	b->one.arg = b;
	if (mesh_start(b->env.mesh) || cluster_start(b->env.cluster) || loop_add_fd(b->loop, b->fd, POLLIN, on_word, b))
		die("start");
	loop_run(b->loop);
	return 0;
}

int main(int argc, char **argv)
{
	static struct bench b;
	int sv[2], status, fail = 0;
	pid_t pid[2];

	if (argc != 8) {
		fprintf(stderr, "usage: lockspeed ADDRESS_1 NETNS_1 ADDRESS_2 NETNS_2 KEYFILE tls|plain LOCKS\n");
		return 2;
	}
	b.locks = (uint32_t)strtoul(argv[7], NULL, 10);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		die("socketpair");
	for (uint32_t i = 0; i < 2; i++) {
		pid[i] = fork();
		if (pid[i] < 0)
			die("fork");
		if (!pid[i]) {
			close(sv[!i]);
			b.self = i + 1;
			b.fd = sv[i];
			exit(node(&b, argv));
		}
	}
	close(sv[0]);
	close(sv[1]);
	for (int i = 0; i < 2; i++)
		fail |= waitpid(pid[i], &status, 0) != pid[i] || status;
	return fail ? 1 : 0;
}
