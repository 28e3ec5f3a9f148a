/*
 * envprobe.c - a member of a group that does nothing but say what it sees: views, messages, deaths.  For t-env-corosync.
 *
 *	envprobe GROUP [FENCE.CONF]
 *
 * Every 20 ms it sends a numbered message to the group and one to every other member over the mesh, and checks what arrives:
 * numbers without gap per sender and view.  With FENCE.CONF the lowest member fences who is lost.  Lines on stdout:
 *
 *	MS up NODE incarnation I token MS consensus MS crypto 0|1
 *	MS view RING MEMBERS            MEMBERS: 1:INCARNATION,2:INCARNATION,...
 *	MS votes N                      that corosync expects in all, after each view
 *	MS suspend | ended N:I | procdown N:I | lost TEXT | fenced N MS | unfenced N TEXT
 *	MS got ordered N mesh N         totals, every second
 *	MS ERROR TEXT
 *
 * MS is CLOCK_BOOTTIME in milliseconds: the same for all nodes of a lab.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "utils/base/base.h"
#include "utils/env/real.h"

#define EVERY_NS (20 * NS_PER_MS)

struct probe {
	struct clock clk;
	struct logger log;
	struct sched *s;
	struct loop *l;
	struct cluster_port *port;
	struct cluster *cl;
	struct link_port *link;
	struct mesh *mesh;
	struct real_fence *fence_proc;
	struct fence_port *fence;
	struct timer tick;
	unsigned ticks;
	uint64_t ordered, unicast;		/* totals */
	uint64_t sent[CLUSTER_NODES_MAX + 1];	/* in this view: [0] ordered, else by position */
	uint64_t got_ordered[CLUSTER_NODES_MAX], got_mesh[CLUSTER_NODES_MAX];
	struct cluster_view view, before;
	struct cluster_node dead;		/* last process whose death is proved: needs no fence */
};

struct note { uint32_t from; uint32_t pad; struct ring_id ring; uint64_t count; };

static void say(struct probe *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct probe *p, const char *fmt, ...)
{
	va_list ap;

	printf("%" PRIu64 " ", (uint64_t)(clock_boot_ns(&p->clk) / NS_PER_MS));
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static void log_write(struct logger *l, enum log_level level, const char *text)
{
	(void)l;
	fprintf(stderr, "%c %s\n", "EWNID"[level], text);
}

static int position(const struct probe *p, uint32_t nodeid)
{
	for (uint32_t i = 0; i < p->view.n; i++)
		if (p->view.m[i].nodeid == nodeid)
			return (int)i;
	return -1;
}

static void check(struct probe *p, const char *how, struct cluster_node from, const void *buf, size_t len, uint64_t *got)
{
	int at = position(p, from.nodeid);
	struct note n;

	if (len != sizeof(n) || at < 0) {
		say(p, "ERROR %s: %zu bytes from node %u", how, len, from.nodeid);
		return;
	}
	memcpy(&n, buf, sizeof(n));
	if (!ring_eq(n.ring, p->view.ring) || n.from != from.nodeid)
		say(p, "ERROR %s: of view %" PRIx64 " in view %" PRIx64, how, n.ring.seq, p->view.ring.seq);
	else if (n.count != got[at] + 1)
		say(p, "ERROR %s: from node %u number %" PRIu64 " after %" PRIu64, how, from.nodeid, n.count, got[at]);
	got[at] = n.count;
}

static void on_ordered(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct probe *p = arg;

	check(p, "ordered", from, buf, len, p->got_ordered);
	p->ordered++;
}

static void on_mesh(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct probe *p = arg;

	check(p, "mesh", from, buf, len, p->got_mesh);
	p->unicast++;
}

static void on_suspend(void *arg)
{
	say(arg, "suspend");
}

struct fencing { struct fence_req req; struct probe *p; uint64_t since_ns; };

static void on_fenced(struct fence_req *r)
{
	struct fencing *f = container_of(r, struct fencing, req);

	if (r->result == 0)
		say(f->p, "fenced %u %" PRIu64, r->node.nodeid,
		    (uint64_t)((clock_boot_ns(&f->p->clk) - f->since_ns) / NS_PER_MS));
	else
		say(f->p, "unfenced %u %s", r->node.nodeid, r->err.text);
	free(f);
}

static void fence_the_lost(struct probe *p)
{
	for (uint32_t i = 0; i < p->before.n; i++) {
		struct fencing *f;

		if (cluster_view_find(&p->view, p->before.m[i].nodeid) || p->view.m[0].nodeid != p->port->self ||
		    p->before.m[i].incarnation == p->dead.incarnation)
			continue;
		f = calloc(1, sizeof(*f));
		csv_assert(f);
		f->p = p;
		f->since_ns = clock_boot_ns(&p->clk);
		f->req.node = p->before.m[i];
		f->req.done = on_fenced;
		p->fence->ops->submit(p->fence, &f->req);
	}
}

static void on_view(void *arg, const struct cluster_view *v)
{
	struct probe *p = arg;
	char text[CLUSTER_NODES_MAX * 40] = "";
	size_t at = 0;

	p->before = p->view;
	p->view = *v;
	memset(p->sent, 0, sizeof(p->sent));
	memset(p->got_ordered, 0, sizeof(p->got_ordered));
	memset(p->got_mesh, 0, sizeof(p->got_mesh));
	for (uint32_t i = 0; i < v->n; i++)
		at += snprintf(text + at, sizeof(text) - at, "%s%u:%" PRIx64, i ? "," : "", v->m[i].nodeid, v->m[i].incarnation);
	say(p, "view %u.%" PRIu64 ".%u %s", v->ring.nodeid, v->ring.seq >> CLUSTER_ROUND_BITS,
	    (unsigned)(v->ring.seq & ((1u << CLUSTER_ROUND_BITS) - 1)), text);
	say(p, "votes %u", v->votes);
	if (p->fence)
		fence_the_lost(p);
}

static void on_procdown(void *arg, struct cluster_node who)
{
	((struct probe *)arg)->dead = who;
	say(arg, "procdown %u:%" PRIx64, who.nodeid, who.incarnation);
}

static void on_ended(void *arg, struct cluster_node who)
{
	((struct probe *)arg)->dead = who;	/* its witness will speak: not fenced */
	say(arg, "ended %u:%" PRIx64, who.nodeid, who.incarnation);
}

static void on_lost(void *arg, int err)
{
	say(arg, "lost %s", strerror(-err));
}

static void on_tick(struct timer *t)
{
	struct probe *p = container_of(t, struct probe, tick);
	struct note n = { .from = p->port->self, .ring = p->view.ring };

	timer_set(p->s, t, sched_now_ns(p->s) + EVERY_NS);
	if (++p->ticks % 50 == 0)
		say(p, "got ordered %" PRIu64 " mesh %" PRIu64, p->ordered, p->unicast);
	if (!cluster_current(p->cl))
		return;
	n.count = ++p->sent[0];
	if (cluster_send(p->cl, CHAN_FS, &n, sizeof(n)) < 0)
		say(p, "ERROR cluster_send");
	for (uint32_t i = 0; i < p->view.n; i++) {
		n.count = ++p->sent[i + 1];
		if (mesh_send(p->mesh, p->view.m[i].nodeid, CHAN_FS, &n, sizeof(n)) < 0)
			say(p, "ERROR mesh_send to node %u", p->view.m[i].nodeid);
	}
}

static int die(const struct csv_err *err)
{
	fprintf(stderr, "envprobe: %s\n", err->text);
	return 1;
}

int main(int argc, char **argv)
{
	static struct probe p;
	struct cluster_user u = { on_suspend, on_view, on_ordered, on_procdown, on_lost, &p, on_ended, NULL };
	struct real_witness *witness;
	char lock[64], witness_group[64];
	int lock_fd;
	struct csv_err err = CSV_ERR_INIT;
	struct cluster_facts facts;
	struct rnd_port rnd;
	uint64_t life;

	if (argc != 2 && argc != 3) {
		fprintf(stderr, "usage: envprobe GROUP [FENCE.CONF]\n");
		return 2;
	}
	real_rnd_init(&rnd);
	life = rnd.u64(&rnd) | 1;
	snprintf(lock, sizeof(lock), "/run/envprobe-%.20s.lock", argv[1]);
	snprintf(witness_group, sizeof(witness_group), "%.20s-w", argv[1]);
	lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock_fd < 0 || flock(lock_fd, LOCK_EX | LOCK_NB) || !lock_into_memory(lock_fd)) {
		fprintf(stderr, "envprobe: %s: %s\n", lock, strerror(errno));
		return 1;
	}
	if (real_witness_start(lock, witness_group, life, &witness, &err) < 0)
		return die(&err);
	if (argc == 3 && real_fence_start(argv[2], &p.fence_proc, &err) < 0)
		return die(&err);
	signal(SIGPIPE, SIG_IGN);
	real_clock_init(&p.clk);
	p.log = (struct logger){ log_write, LOG_L_DEBUG };
	p.s = sched_new(&p.clk);
	if (!p.s || loop_new(p.s, &p.l, &err) < 0 || cluster_facts_read(&facts, &err) < 0 ||
	    real_cluster_new(p.l, &p.log, argv[1], &p.port, &err) < 0 ||
	    real_link_new(p.l, &p.log, 0x656e7670726f6265, p.port->self, false, &p.link, &err) < 0)
		return die(&err);
	say(&p, "up %u incarnation %" PRIx64 " token %u consensus %u crypto %d", p.port->self, life, facts.token_ms,
	    facts.consensus_ms, facts.crypto);
	if (p.fence_proc)
		p.fence = real_fence_port(p.fence_proc, p.l);
	p.cl = cluster_new(p.s, p.port, life);
	p.mesh = p.cl ? mesh_new(p.s, p.cl, p.link, 0x656e7670726f6265) : NULL;
	if (!p.mesh || mesh_start(p.mesh) < 0) {
		fprintf(stderr, "envprobe: out of memory\n");
		return 1;
	}
	cluster_register(p.cl, CHAN_FS, &u);
	mesh_register(p.mesh, CHAN_FS, on_mesh, &p);
	if (cluster_start(p.cl) < 0) {
		fprintf(stderr, "envprobe: the group cannot be joined\n");
		return 1;
	}
	timer_init(&p.tick, on_tick);
	timer_set(p.s, &p.tick, sched_now_ns(p.s) + EVERY_NS);
	loop_run(p.l);
	return 0;
}
