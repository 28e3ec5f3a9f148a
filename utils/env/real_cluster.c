/*
 * real_cluster.c - the cluster port on corosync: libcpg model V1 and libquorum model V1.
 *
 * Invariants
 *  RC1 The library's callbacks come from its dispatch in our descriptor callback, so never inside start() or send().
 *  RC2 corosync tells a group change before the ring change it belongs to, or alone when only a process came or went.  Every
 *      totem() is therefore followed by members() with the group as it is, and members() before the first totem() waits for it.
 *  RC3 corosync says PROCDOWN of a process that died, and of every process when it is itself stopped, so it is passed on as
 *      process_ended(); the proof is the word of that process's witness, which comes in a group of its own (real_witness.c).
 *  RC4 How many votes there are is asked at each ring (cluster.h, C8), in a call that corosync answers from its memory.  Where the rules of
 *      quorum let the number shrink by itself (last_man_standing, allow_downscale) it is not known.
 *
 * Joining can be refused for a moment while corosync itself forms a ring: a timer tries again, the control thread never waits.
 * Thread: the control thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <corosync/corotypes.h>
#include <corosync/cpg.h>
#include <corosync/quorum.h>
#include <corosync/votequorum.h>

#include "utils/base/base.h"
#include "utils/env/real.h"
#include "utils/env/real_witness.h"

#define RETRY_NS (50 * NS_PER_MS)

struct proc { uint32_t nodeid, pid; };

struct rcluster {
	struct cluster_port port;
	struct loop *loop;
	struct logger *log;
	const struct cluster_raw_events *ev;
	void *arg;
	struct cpg_name group, witness_group;
	cpg_handle_t cpg, witness;
	quorum_handle_t quorum;
	votequorum_handle_t votes;
	bool have_cpg, have_witness, have_quorum, have_votes;	/* handles to be finalized */
	int cpg_fd, witness_fd, quorum_fd;	/* in the loop when >= 0 */
	bool started, listening, joined, tracking, dead, waited;
	struct timer retry;
	bool have_ring;
	unsigned n;
	struct proc m[CPG_MEMBERS_MAX];
};

static struct rcluster *rc_of(struct cluster_port *p)
{
	return container_of(p, struct rcluster, port);
}

static int cs_errno(cs_error_t rc)
{
	switch (rc) {
	case CS_OK: return 0;
	case CS_ERR_TRY_AGAIN:
	case CS_ERR_QUEUE_FULL: return -EAGAIN;
	case CS_ERR_NO_MEMORY: return -ENOMEM;
	case CS_ERR_ACCESS: return -EACCES;
	case CS_ERR_INVALID_PARAM:
	case CS_ERR_TOO_BIG: return -EINVAL;
	default: return -ECONNRESET;
	}
}

static void lost(struct rcluster *c, int err, const char *what)
{
	if (c->dead || !c->started)
		return;
	c->dead = true;
	timer_del(loop_sched(c->loop), &c->retry);
	log_to(c->log, LOG_L_ERR, "corosync: %s: %s: this node is out of the cluster; check corosync and its log", what,
	       strerror(-err));
	c->ev->lost(c->arg, err);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static int compare_procs(const void *a, const void *b)
{
	const struct proc *x = a, *y = b;

	if (x->nodeid != y->nodeid)
		return x->nodeid < y->nodeid ? -1 : 1;
	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static bool node_in_group(const struct rcluster *c, uint32_t nodeid)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->m[i].nodeid == nodeid)
			return true;
	return false;
}

static void tell_members(struct rcluster *c)
{
	uint32_t ids[CPG_MEMBERS_MAX], n = 0;

	for (unsigned i = 0; i < c->n; i++)
		if (!n || ids[n - 1] != c->m[i].nodeid)
			ids[n++] = c->m[i].nodeid;
	c->ev->members(c->arg, ids, n);
}

static void on_confchg(cpg_handle_t h, const struct cpg_name *group, const struct cpg_address *m, size_t n_m,
		       const struct cpg_address *left, size_t n_left, const struct cpg_address *joined, size_t n_joined)
{
	struct rcluster *c;
	bool first;

	(void)group;
	if (cpg_context_get(h, (void **)&c) != CS_OK || c->dead || !c->started)
		return;
	first = c->n == 0;
	c->n = csv_min(n_m, (size_t)CPG_MEMBERS_MAX);
	for (unsigned i = 0; i < c->n; i++)
		c->m[i] = (struct proc){ m[i].nodeid, m[i].pid };
	qsort(c->m, c->n, sizeof(c->m[0]), compare_procs);
	for (unsigned i = 0; first && i < c->n; i++) {
		if (c->m[i].nodeid != c->port.self || c->m[i].pid == (uint32_t)getpid())
			continue;
		log_to(c->log, LOG_L_ERR, "group %s: process %u of this node is in it already: one per node; stop that one first",
		       c->group.value, c->m[i].pid);
		lost(c, -EEXIST, "joining the group");
		return;
	}
	for (size_t i = 0; i < n_joined; i++)
		log_to(c->log, LOG_L_DEBUG, "group: node %u process %u joined (reason %u)", joined[i].nodeid, joined[i].pid,
		       joined[i].reason);
	for (size_t i = 0; i < n_left; i++) {
		log_to(c->log, LOG_L_DEBUG, "group: node %u process %u left (reason %u)", left[i].nodeid, left[i].pid,
		       left[i].reason);
		if (c->have_ring && left[i].reason == CPG_REASON_PROCDOWN && left[i].nodeid != c->port.self &&
		    !node_in_group(c, left[i].nodeid))
			c->ev->process_ended(c->arg, left[i].nodeid);
	}
	if (c->have_ring && !c->dead)
		tell_members(c);
}

/* RC4 */
static uint32_t expected_votes(const struct rcluster *c)
{
	struct votequorum_info i;

	if (votequorum_getinfo(c->votes, c->port.self, &i) != CS_OK || !i.node_votes ||
	    i.flags & (VOTEQUORUM_INFO_LAST_MAN_STANDING | VOTEQUORUM_INFO_ALLOW_DOWNSCALE))
		return 0;
	return csv_max(i.node_expected_votes, i.highest_expected);
}

static void on_totem(cpg_handle_t h, struct cpg_ring_id ring, uint32_t n, const uint32_t *nodes)
{
	struct rcluster *c;

	(void)n;
	(void)nodes;
	if (cpg_context_get(h, (void **)&c) != CS_OK || c->dead || !c->started)
		return;
	c->have_ring = true;
	c->ev->expected(c->arg, expected_votes(c));
	c->ev->totem(c->arg, (struct ring_id){ ring.nodeid, ring.seq });
	if (!c->dead)
		tell_members(c);
}

static void on_deliver(cpg_handle_t h, const struct cpg_name *group, uint32_t nodeid, uint32_t pid, void *msg, size_t len)
{
	struct rcluster *c;

	(void)group;
	(void)pid;
	if (cpg_context_get(h, (void **)&c) != CS_OK || c->dead || !c->started || !c->have_ring)
		return;
	c->ev->msg(c->arg, nodeid, msg, len);
}

static void on_witness(cpg_handle_t h, const struct cpg_name *group, uint32_t nodeid, uint32_t pid, void *msg, size_t len)
{
	struct witness_msg m;
	struct rcluster *c;

	(void)group;
	if (cpg_context_get(h, (void **)&c) != CS_OK || c->dead || !c->started)
		return;
	if (len == sizeof(m))
		memcpy(&m, msg, sizeof(m));
	if (len != sizeof(m) || le32_get(m.magic) != WITNESS_MAGIC || !le64_get(m.incarnation)) {
		log_to(c->log, LOG_L_WARN, "group %s: node %u process %u: message of %zu bytes is malformed: ignored", c->witness_group.value,
		       nodeid, pid, len);
		return;
	}
	c->ev->process_gone(c->arg, nodeid, le64_get(m.incarnation));
}

static void on_quorum(quorum_handle_t h, uint32_t quorate, struct quorum_ring_id ring, uint32_t n, const uint32_t *members)
{
	struct rcluster *c;

	(void)n;
	(void)members;
	if (quorum_context_get(h, (const void **)&c) != CS_OK || c->dead || !c->started)
		return;
	c->ev->quorum(c->arg, (struct ring_id){ ring.nodeid, ring.seq }, quorate);
}

/* libquorum calls it without looking whether it is there. */
static void on_nodelist(quorum_handle_t h, struct quorum_ring_id ring, uint32_t n, const uint32_t *m, uint32_t n_joined,
			const uint32_t *joined, uint32_t n_left, const uint32_t *left)
{
	(void)h;
	(void)ring;
	(void)n;
	(void)m;
	(void)n_joined;
	(void)joined;
	(void)n_left;
	(void)left;
}

static int dispatch(struct rcluster *c, cs_error_t rc, const char *what)
{
	if (rc == CS_OK || rc == CS_ERR_TRY_AGAIN)
		return c->dead ? -1 : 0;
	lost(c, cs_errno(rc), what);
	return -1;
}

static int on_cpg_fd(void *arg, int fd, int revents)
{
	struct rcluster *c = arg;
	int rc;

	(void)fd;
	(void)revents;
	rc = dispatch(c, cpg_dispatch(c->cpg, CS_DISPATCH_ALL), "process group");
	if (rc < 0)
		c->cpg_fd = -1;
	return rc;
}

static int on_witness_fd(void *arg, int fd, int revents)
{
	struct rcluster *c = arg;
	int rc;

	(void)fd;
	(void)revents;
	rc = dispatch(c, cpg_dispatch(c->witness, CS_DISPATCH_ALL), "group of witnesses");
	if (rc < 0)
		c->witness_fd = -1;
	return rc;
}

static int on_quorum_fd(void *arg, int fd, int revents)
{
	struct rcluster *c = arg;
	int rc;

	(void)fd;
	(void)revents;
	rc = dispatch(c, quorum_dispatch(c->quorum, CS_DISPATCH_ALL), "quorum");
	if (rc < 0)
		c->quorum_fd = -1;
	return rc;
}

/* ---- joining --------------------------------------------------------------------------------------------------------- */

static void try_join(struct rcluster *c)
{
	cs_error_t rc = CS_OK;

	if (!c->listening) {
		rc = cpg_join(c->witness, &c->witness_group);
		c->listening = rc == CS_OK;
	}
	if (c->listening && !c->joined) {
		rc = cpg_join(c->cpg, &c->group);
		c->joined = rc == CS_OK;
	}
	if (c->joined && !c->tracking) {
		rc = quorum_trackstart(c->quorum, CS_TRACK_CHANGES | CS_TRACK_CURRENT);
		c->tracking = rc == CS_OK;
	}
	if (c->joined && c->tracking)
		return;
	if (cs_errno(rc) != -EAGAIN) {
		lost(c, cs_errno(rc), "joining the group");
		return;
	}
	if (!c->waited)
		log_to(c->log, LOG_L_NOTE, "corosync: busy forming a ring, joining as soon as it is done");
	c->waited = true;
	timer_set(loop_sched(c->loop), &c->retry, sched_now_ns(loop_sched(c->loop)) + RETRY_NS);
}

static void on_retry(struct timer *t)
{
	try_join(container_of(t, struct rcluster, retry));
}

static void unwatch(struct rcluster *c, int *fd)
{
	if (*fd >= 0)
		loop_del_fd(c->loop, *fd);
	*fd = -1;
}

static int watch(struct rcluster *c, int fd, int (*fn)(void *arg, int fd, int revents), int *ret_fd)
{
	int rc;

	fcntl(fd, F_SETFD, FD_CLOEXEC);
	rc = loop_add_fd(c->loop, fd, POLLIN, fn, c);
	if (!rc)
		*ret_fd = fd;
	return rc;
}

static int watch_all(struct rcluster *c)
{
	int cpg, witness, quorum, rc;

	if (cpg_fd_get(c->cpg, &cpg) != CS_OK || cpg_fd_get(c->witness, &witness) != CS_OK || quorum_fd_get(c->quorum, &quorum) != CS_OK)
		return -ECONNRESET;
	rc = watch(c, cpg, on_cpg_fd, &c->cpg_fd);
	if (!rc)
		rc = watch(c, witness, on_witness_fd, &c->witness_fd);
	if (!rc)
		rc = watch(c, quorum, on_quorum_fd, &c->quorum_fd);
	if (rc < 0) {
		unwatch(c, &c->cpg_fd);
		unwatch(c, &c->witness_fd);
	}
	return rc;
}

static int rcluster_start(struct cluster_port *p, const struct cluster_raw_events *ev, void *arg)
{
	struct rcluster *c = rc_of(p);
	int rc;

	csv_assert(!c->started);
	if (c->dead)
		return -ENOTCONN;
	c->ev = ev;
	c->arg = arg;
	c->have_ring = c->waited = false;
	c->n = 0;
	rc = watch_all(c);
	if (rc < 0)
		return rc;
	c->started = true;
	/* Through the timer: what fails there is told by lost(), not inside this call. */
	timer_set(loop_sched(c->loop), &c->retry, 0);
	return 0;
}

static int rcluster_send(struct cluster_port *p, const void *buf, size_t len)
{
	struct rcluster *c = rc_of(p);
	struct iovec iov = { (void *)buf, len };
	cpg_flow_control_state_t state;

	if (!c->started || c->dead)
		return -ENOTCONN;
	if (cpg_flow_control_state_get(c->cpg, &state) == CS_OK && state == CPG_FLOW_CONTROL_ENABLED)
		return -EAGAIN;
	return cs_errno(cpg_mcast_joined(c->cpg, CPG_TYPE_AGREED, &iov, 1));
}

static void rcluster_stop(struct cluster_port *p)
{
	struct rcluster *c = rc_of(p);

	if (!c->started)
		return;
	c->started = false;
	timer_del(loop_sched(c->loop), &c->retry);
	unwatch(c, &c->cpg_fd);
	unwatch(c, &c->witness_fd);
	unwatch(c, &c->quorum_fd);
	if (c->tracking && !c->dead)
		quorum_trackstop(c->quorum);
	if (c->joined && !c->dead)
		cpg_leave(c->cpg, &c->group);
	if (c->listening && !c->dead)
		cpg_leave(c->witness, &c->witness_group);
	c->listening = c->joined = c->tracking = false;
}

static const struct cluster_port_ops rcluster_ops = { rcluster_start, rcluster_send, rcluster_stop };

/* ---- life -------------------------------------------------------------------------------------------------------------- */

static int cannot(struct csv_err *err, cs_error_t rc, const char *what)
{
	if (rc == CS_ERR_ACCESS)
		return csv_err_set(err, -EACCES, "corosync: %s: permission denied: run as root", what);
	return csv_err_set(err, -ECONNREFUSED, "corosync: %s: %s: is it running? systemctl start corosync", what, cs_strerror(rc));
}

int real_cluster_new(struct loop *l, struct logger *log, const char *group, struct cluster_port **ret, struct csv_err *err)
{
	cpg_model_v1_data_t cpg_model = {
		.model = CPG_MODEL_V1,
		.cpg_deliver_fn = on_deliver,
		.cpg_confchg_fn = on_confchg,
		.cpg_totem_confchg_fn = on_totem,
		.flags = CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF,
	};
	cpg_model_v1_data_t witness_model = { .model = CPG_MODEL_V1, .cpg_deliver_fn = on_witness };
	quorum_model_v1_data_t quorum_model = {
		.model = QUORUM_MODEL_V1,
		.quorum_notify_fn = on_quorum,
		.nodelist_notify_fn = on_nodelist,
	};
	struct rcluster *c = calloc(1, sizeof(*c));
	uint32_t quorum_type;
	unsigned self;
	int fd;
	cs_error_t rc;

	if (!c)
		return csv_err_set(err, -ENOMEM, "corosync: out of memory");
	c->loop = l;
	c->log = log;
	c->port.ops = &rcluster_ops;
	c->cpg_fd = c->witness_fd = c->quorum_fd = -1;
	timer_init(&c->retry, on_retry);
	c->group.length = strlen(group);
	c->witness_group.length = c->group.length + strlen(WITNESS_SUFFIX);
	if (!c->group.length || c->witness_group.length >= CPG_MAX_NAME_LENGTH) {
		free(c);
		return csv_err_set(err, -EINVAL, "process group '%s': 1 to %zu bytes are allowed", group,
				   CPG_MAX_NAME_LENGTH - 1 - strlen(WITNESS_SUFFIX));
	}
	memcpy(c->group.value, group, c->group.length);
	snprintf(c->witness_group.value, sizeof(c->witness_group.value), "%s" WITNESS_SUFFIX, group);
	rc = cpg_model_initialize(&c->cpg, CPG_MODEL_V1, (cpg_model_data_t *)&cpg_model, c);
	if (rc != CS_OK) {
		free(c);
		return cannot(err, rc, "process groups");
	}
	c->have_cpg = true;
	rc = cpg_model_initialize(&c->witness, CPG_MODEL_V1, (cpg_model_data_t *)&witness_model, c);
	c->have_witness = rc == CS_OK;
	if (rc == CS_OK)
		rc = cpg_local_get(c->cpg, &self);
	if (rc == CS_OK)
		rc = quorum_model_initialize(&c->quorum, QUORUM_MODEL_V1, (quorum_model_data_t *)&quorum_model, &quorum_type, c);
	if (rc != CS_OK) {
		real_cluster_free(&c->port);
		return cannot(err, rc, "quorum");
	}
	c->have_quorum = true;
	if (quorum_type != QUORUM_SET) {
		real_cluster_free(&c->port);
		return csv_err_set(err, -EINVAL, "corosync: no quorum provider: set provider: corosync_votequorum in the quorum "
				   "section of corosync.conf");
	}
	rc = votequorum_initialize(&c->votes, NULL);
	if (rc != CS_OK) {
		real_cluster_free(&c->port);
		return cannot(err, rc, "votes");
	}
	c->have_votes = true;
	if (votequorum_fd_get(c->votes, &fd) == CS_OK)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	c->port.self = self;
	*ret = &c->port;
	return 0;
}

void real_cluster_free(struct cluster_port *p)
{
	struct rcluster *c;

	if (!p)
		return;
	c = rc_of(p);
	rcluster_stop(p);
	if (c->have_votes)
		votequorum_finalize(c->votes);
	if (c->have_quorum)
		quorum_finalize(c->quorum);
	if (c->have_witness)
		cpg_finalize(c->witness);
	if (c->have_cpg)
		cpg_finalize(c->cpg);
	free(c);
}
