/*
 * cluster.c - the view tracker: from totem, group, quorum and JOIN events to usable views.
 *
 * The engine delivers ring changes, group changes and messages of one ring in the same order everywhere, but quorum on a
 * way of its own.  So everything that the members must agree on is computed from the ordered stream since the last
 * ring or group change alone, and quorum only delays the moment when this node believes it:
 *
 *	config   a ring or group change.  All JOINs are forgotten, a round is proposed: the highest seen in this ring + 1.
 *	agreed   a JOIN of every member, of this ring, for this member list, all of the same round, and a version that all of them
 *		 speak.  Whoever sees a higher round than its own takes it over and announces itself again, so any member can
 *		 force a new round.  Where there is no such version, all name the same members as those who have to go
 *		 (proto_settle()); these leave the group, which is a new config.
 *	usable   agreed, and quorum's ring is this ring and quorate.  Messages that come between agreed and usable are kept.
 *
 *	          config                    all JOINs                quorum
 *	NOTHING ----------> GATHERING ------------------> AGREED ------------> USABLE
 *	                        ^                           |                     |
 *	                        +--- config / higher round -+---------------------+
 *	                        ^                                                 | quorum lost in the same ring
 *	                        +--------------- new round, when quorum is back --+
 *
 * Why a round and not only the ring: node 3's daemon restarts, totem does not notice.  Views {1,2,3}, {1,2}, {1,2,3} of one
 * ring must differ, or a message of the first would count in the third.
 *
 *	node 1                                node 3
 *	JOIN(R, round 5, {1,2,3})  -- view R.5
 *	                                      exits, starts: its first JOIN is round 1
 *	JOIN(R, round 7, {1,2,3})             JOIN(R, round 1, {1,2,3})
 *	                                      sees round 7: JOIN(R, round 7, {1,2,3})   -- view R.7 on both
 *
 * What is sent, and its form: cluster_msg.c.  Who is refused, votes, who may be about to come: cluster_tell.c.
 *
 * Thread: the control thread.
 */
#include "utils/env/cluster_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "utils/base/base.h"
#include "utils/base/crc32c.h"
#include "utils/base/cursor.h"
#include "utils/env/clock.h"
#include "utils/env/sched.h"

#define STASH_BYTES_MAX (64u << 20)

static struct member *find(struct member *m, uint32_t n, uint32_t nodeid)
{
	for (uint32_t i = 0; i < n; i++)
		if (m[i].nodeid == nodeid)
			return &m[i];
	return NULL;
}

static void drop_packets(struct cds_list_head *head, size_t *bytes)
{
	struct packet *p, *tmp;

	cds_list_for_each_entry_safe(p, tmp, head, node) {
		cds_list_del(&p->node);
		free(p);
	}
	*bytes = 0;
}

/* ---- losing the view ------------------------------------------------------------------------------------------ */

/* C2: the users hear of it before anything else happens. */
static void suspend(struct cluster *c)
{
	if (!c->usable)
		return;
	c->usable = false;
	c->spent = true;
	c->stats.suspends++;
	drop_packets(&c->queue, &c->queue_bytes);	/* nobody would deliver them any more */
	for (int i = CHAN_MAX - 1; i >= 0; i--)
		if (c->registered[i] && c->user[i].suspend)
			c->user[i].suspend(c->user[i].arg);
}

static void disagree(struct cluster *c)
{
	suspend(c);
	c->agreed = false;
	c->spent = false;
	drop_packets(&c->stash, &c->stash_bytes);
}

static void engine_lost(struct cluster *c, int err)
{
	if (c->lost)
		return;
	c->lost = true;
	disagree(c);
	c->have_ring = c->have_members = c->have_quorum = c->join_due = false;
	timer_del(c->sched, &c->retry);
	for (int i = 0; i < CHAN_MAX; i++)
		if (c->registered[i] && c->user[i].lost)
			c->user[i].lost(c->user[i].arg, err);
}

/* The same from inside a user's call: through the run queue. */
void cluster_engine_lost_later(struct cluster *c, int err)
{
	if (!c->lost_err)
		c->lost_err = err;
	sched_post(c->sched, &c->job);
}

/* ---- agreeing on a view -------------------------------------------------------------------------------------------- */

static void propose(struct cluster *c, uint32_t round)
{
	if (round > ROUND_MAX) {	/* a million group changes in one ring: something is wrong */
		cluster_engine_lost_later(c, -EOVERFLOW);
		return;
	}
	c->round = round;
	c->round_seen = csv_max(c->round_seen, round);
	c->join_due = true;
	cluster_msg_flush(c);
}

static void deliver(struct cluster *c, const struct cluster_node *from, const uint8_t *buf, size_t len)
{
	unsigned chan = buf[7];

	c->stats.received++;
	if (c->registered[chan] && c->user[chan].msg)
		c->user[chan].msg(c->user[chan].arg, *from, buf + MSG_HEADER_BYTES, len - MSG_HEADER_BYTES);
}

static void become_usable(struct cluster *c)
{
	struct ring_id ring = c->view.ring;

	c->usable = c->seated = true;
	c->stats.views++;
	cluster_seen_note(c);
	/* A user may end the view from inside its callback: then the rest must not get it. */
	for (int i = 0; i < CHAN_MAX && c->usable && ring_eq(ring, c->view.ring); i++)
		if (c->registered[i] && c->user[i].view)
			c->user[i].view(c->user[i].arg, &c->view);
	while (c->usable && ring_eq(ring, c->view.ring) && !cds_list_empty(&c->stash)) {
		struct packet *p = cds_list_first_entry(&c->stash, struct packet, node);
		struct cluster_node from = *cluster_view_find(&c->view, p->from);

		cds_list_del(&p->node);
		c->stash_bytes -= p->len;
		c->stats.stashed++;
		deliver(c, &from, p->buf, p->len);
		free(p);
	}
}

static void agree(struct cluster *c)
{
	struct proto_member m[CLUSTER_NODES_MAX];
	struct proto_range common, mesh;
	unsigned out;

	for (uint32_t i = 0; i < c->n; i++) {
		if (c->mutate_ignore_ring ? !c->m[i].incarnation : c->m[i].round != c->round)
			return;
	}
	if (!find(c->m, c->n, c->port->self))
		return;
	for (uint32_t i = 0; i < c->n; i++)
		m[i] = (struct proto_member){ c->m[i].nodeid, c->m[i].speaks, c->m[i].mesh, c->m[i].seated, false };
	out = proto_settle(m, c->n, &common, &mesh);
	if (out) {
		cluster_versions_refuse(c, m, out, common, mesh);
		return;
	}
	c->agreed = true;
	c->view.version = common.max;
	c->view.ring.nodeid = c->ring.nodeid;
	c->view.ring.seq = c->ring.seq << CLUSTER_ROUND_BITS | c->round;
	c->view.votes = cluster_votes_of_all(c);
	c->view.n = c->n;
	for (uint32_t i = 0; i < c->n; i++)
		c->view.m[i] = (struct cluster_node){ c->m[i].nodeid, c->m[i].incarnation };
}

static bool quorum_ok(const struct cluster *c)
{
	return c->have_quorum && c->quorate && (c->mutate_ignore_ring || ring_eq(c->quorum_ring, c->ring));
}

/* After every change of what C1 depends on. */
static void evaluate(struct cluster *c)
{
	if (c->lost || !c->have_ring || !c->have_members)
		return;
	if (!c->agreed)
		agree(c);
	if (c->usable && !quorum_ok(c))
		suspend(c);
	if (!c->agreed || c->usable || !quorum_ok(c))
		return;
	if (c->spent) {
		/* Others may not have noticed that quorum was away: the view that comes is a new one for all. */
		disagree(c);
		propose(c, c->round_seen + 1);
		return;
	}
	become_usable(c);
}

/* ---- raw events ------------------------------------------------------------------------------------------------------ */

static void raw_totem(void *arg, struct ring_id ring)
{
	struct cluster *c = arg;

	if (c->lost)
		return;
	if (ring.seq >> (64 - CLUSTER_ROUND_BITS)) {
		engine_lost(c, -EOVERFLOW);
		return;
	}
	disagree(c);
	c->have_ring = true;
	c->have_members = false;
	c->join_due = false;
	c->ring = ring;
	c->round = c->round_seen = c->refused_round = 0;
	c->n_gone = 0;
	if (!c->mutate_ignore_ring)
		c->n = 0;
}

static void raw_members(void *arg, const uint32_t *nodeid, uint32_t n)
{
	struct cluster *c = arg;
	struct member old[CLUSTER_NODES_MAX];
	uint32_t n_old = c->n;

	if (c->lost)
		return;
	if (n > CLUSTER_NODES_MAX) {
		engine_lost(c, -EOVERFLOW);
		return;
	}
	disagree(c);
	memcpy(old, c->m, sizeof(old));
	c->n = n;
	c->members_crc = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct member *was = find(old, n_old, nodeid[i]);
		struct member *gone = find(c->gone, c->n_gone, nodeid[i]);
		struct le32 le = le32_of(nodeid[i]);

		csv_assert(i == 0 || nodeid[i - 1] < nodeid[i]);
		/* The incarnation only for a death notice; a view needs a new JOIN. */
		c->m[i] = (struct member){ .nodeid = nodeid[i] };
		if (was) {
			c->m[i] = *was;
			c->m[i].round = 0;
		}
		c->members_crc = csv_crc32c(c->members_crc, &le, sizeof(le));
		if (gone)	/* back again: a later death is that of its new process */
			*gone = c->gone[--c->n_gone];
	}
	for (uint32_t i = 0; i < n_old; i++)
		if (!find(c->m, n, old[i].nodeid) && c->n_gone < CLUSTER_NODES_MAX)
			c->gone[c->n_gone++] = old[i];
	c->have_members = true;
	if (c->have_ring)
		propose(c, csv_max(c->round, c->round_seen) + 1);
	evaluate(c);
}

static void raw_quorum(void *arg, struct ring_id ring, bool quorate)
{
	struct cluster *c = arg;

	if (c->have_quorum && !c->quorate && !ring_eq(c->quorum_ring, ring))
		c->apart = true;	/* the last word about a ring that is over */
	c->have_quorum = true;
	c->quorum_ring = ring;
	c->quorate = quorate;
	evaluate(c);
}

/* Never less than before: a view that nobody here knows of may have been one of more votes (C8). */
static void raw_expected(void *arg, uint32_t votes)
{
	struct cluster *c = arg;

	c->votes_most = csv_max(c->votes_most, votes);
	c->votes = votes ? c->votes_most : 0;
}

static void got_join(struct cluster *c, uint32_t from, const struct msg_head *h, struct csv_cursor *cur)
{
	uint32_t crc = csv_cur_u32(cur), n = csv_cur_u32(cur);
	struct proto_range speaks, mesh;
	struct member *m;

	if (csv_cur_error(cur) || csv_cur_left(cur) || !proto_range_get(h->min, h->max, &speaks) ||
	    !proto_range_get(h->flags >> JOIN_MESH_MIN_SHIFT & JOIN_MESH_MASK, h->flags >> JOIN_MESH_MAX_SHIFT & JOIN_MESH_MASK, &mesh)) {
		c->stats.dropped_bad++;
		return;
	}
	if (!c->have_ring || (!ring_eq(h->ring, c->ring) && !c->mutate_ignore_ring)) {
		c->stats.dropped_old++;
		return;
	}
	c->round_seen = csv_max(c->round_seen, h->round);
	m = c->have_members ? find(c->m, c->n, from) : NULL;
	if (!m || ((crc != c->members_crc || n != c->n) && !c->mutate_ignore_ring)) {
		/* For another config of this ring: its sender announces itself again for ours, or we for its. */
		c->stats.dropped_old++;
		return;
	}
	if (h->round <= m->round) {
		c->stats.dropped_old++;
		return;
	}
	if (c->agreed)
		disagree(c);
	m->round = h->round;
	m->incarnation = h->incarnation;
	m->speaks = speaks;
	m->mesh = mesh;
	m->seated = h->flags & JOIN_SEATED;
	m->votes = h->votes;
	if (h->round > c->round)
		propose(c, h->round);
	evaluate(c);
}

static void got_user(struct cluster *c, uint32_t from, const struct msg_head *h, const uint8_t *buf, size_t len)
{
	const struct cluster_node *who = c->agreed ? cluster_view_find(&c->view, from) : NULL;
	struct packet *p;

	if (len - MSG_HEADER_BYTES > CLUSTER_MSG_MAX) {
		c->stats.dropped_bad++;
		return;
	}
	if (!who || c->spent || h->round != c->round || !ring_eq(h->ring, c->ring) || h->incarnation != who->incarnation) {
		c->stats.dropped_old++;
		return;
	}
	/* Also behind what is still in the stash: a callback of become_usable() may be on the stack. */
	if (c->usable && cds_list_empty(&c->stash)) {
		struct cluster_node node = *who;

		deliver(c, &node, buf, len);
		return;
	}
	p = c->stash_bytes + len <= STASH_BYTES_MAX ? malloc(sizeof(*p) + len) : NULL;
	if (!p) {
		engine_lost(c, -ENOBUFS);	/* a message the others have is missing here: no way to go on */
		return;
	}
	p->from = from;
	p->len = len;
	memcpy(p->buf, buf, len);
	cds_list_add_tail(&p->node, &c->stash);
	c->stash_bytes += len;
}

static void raw_msg(void *arg, uint32_t from, const void *buf, size_t len)
{
	struct cluster *c = arg;
	struct csv_cursor cur;
	struct msg_head h;

	if (c->lost)
		return;
	csv_cursor_init_ro(&cur, buf, len);
	if (!cluster_msg_get(&cur, &h)) {
		c->stats.dropped_bad++;
		return;
	}
	if (h.kind == MSG_JOIN)
		got_join(c, from, &h, &cur);
	else
		got_user(c, from, &h, buf, len);
}

/*
 * A proof for exactly the process that died: only what it has announced itself, in this ring, since it is in the group, counts.
 * The incarnation of an earlier life (it may still be draining its I/O on the other side of a partition) must not.
 */
static void raw_procdown(void *arg, uint32_t nodeid)
{
	struct cluster *c = arg;
	struct member *m = find(c->m, c->n, nodeid);
	struct cluster_node who;

	if (c->lost)
		return;
	if (!m)
		m = find(c->gone, c->n_gone, nodeid);
	if (!m || !m->incarnation)
		return;
	who = (struct cluster_node){ nodeid, m->incarnation };
	m->incarnation = 0;
	m->round = 0;
	disagree(c);
	for (int i = 0; i < CHAN_MAX; i++)
		if (c->registered[i] && c->user[i].procdown)
			c->user[i].procdown(c->user[i].arg, who);
}

static void raw_process_ended(void *arg, uint32_t nodeid)
{
	struct cluster *c = arg;
	struct member *m = find(c->m, c->n, nodeid);
	struct cluster_node who;

	if (c->lost || !m || !m->incarnation)
		return;
	who = (struct cluster_node){ nodeid, m->incarnation };
	for (int i = 0; i < CHAN_MAX; i++)
		if (c->registered[i] && c->user[i].ended)
			c->user[i].ended(c->user[i].arg, who);
}

static void raw_process_gone(void *arg, uint32_t nodeid, uint64_t incarnation)
{
	struct cluster *c = arg;
	struct cluster_node who = { nodeid, incarnation };

	if (c->lost || !nodeid || !incarnation || (nodeid == c->port->self && incarnation == c->incarnation))
		return;
	for (int i = 0; i < CHAN_MAX; i++)
		if (c->registered[i] && c->user[i].procdown)
			c->user[i].procdown(c->user[i].arg, who);
}

static void raw_lost(void *arg, int err)
{
	engine_lost(arg, err);
}

static const struct cluster_raw_events raw_events = {
	.totem = raw_totem,
	.members = raw_members,
	.quorum = raw_quorum,
	.msg = raw_msg,
	.procdown = raw_procdown,
	.process_ended = raw_process_ended,
	.process_gone = raw_process_gone,
	.lost = raw_lost,
	.expected = raw_expected,
};

/* ---- life -------------------------------------------------------------------------------------------------------------- */

static void job_run(struct job *j)
{
	struct cluster *c = container_of(j, struct cluster, job);

	if (c->lost_err) {
		/* The others wait for it; what this life holds on the disk, if anything, needs a proof as after any loss (R9). */
		if (c->lost_err == -EPROTONOSUPPORT && c->started) {
			c->port->ops->stop(c->port);
			c->started = false;
		}
		engine_lost(c, c->lost_err);
		return;
	}
	if (!c->next_incarnation)
		return;
	c->incarnation = c->next_incarnation;
	c->next_incarnation = 0;
	c->seated = false;
	if (!c->have_ring || !c->have_members || c->lost)
		return;
	disagree(c);
	propose(c, c->round_seen + 1);
}

struct cluster *cluster_new(struct sched *s, struct cluster_port *port, uint64_t incarnation)
{
	struct cluster *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	csv_assert(incarnation);
	c->sched = s;
	c->port = port;
	c->incarnation = incarnation;
	c->speaks = PROTO_MESSAGES;
	c->mesh = PROTO_MESH;
	c->apart = true;
	CDS_INIT_LIST_HEAD(&c->queue);
	CDS_INIT_LIST_HEAD(&c->stash);
	timer_init(&c->retry, cluster_msg_retry);
	job_init(&c->job, job_run);
	return c;
}

void cluster_free(struct cluster *c)
{
	if (!c)
		return;
	cluster_stop(c);
	free(c);
}

void cluster_register(struct cluster *c, enum cluster_chan chan, const struct cluster_user *u)
{
	csv_assert((unsigned)chan < CHAN_MAX && !c->registered[chan] && !c->started);
	c->user[chan] = *u;
	c->registered[chan] = true;
}

int cluster_start(struct cluster *c)
{
	int rc;

	csv_assert(!c->started);
	c->started = true;
	c->lost = false;
	rc = c->port->ops->start(c->port, &raw_events, c);
	if (rc < 0)
		c->started = false;
	return rc;
}

void cluster_stop(struct cluster *c)
{
	if (c->started)
		c->port->ops->stop(c->port);
	c->started = false;
	c->lost = true;		/* late events are ignored */
	c->agreed = c->usable = c->spent = false;
	c->apart = true;
	c->have_ring = c->have_members = c->have_quorum = c->join_due = false;
	c->n = c->n_gone = 0;
	c->lost_err = 0;
	drop_packets(&c->queue, &c->queue_bytes);
	drop_packets(&c->stash, &c->stash_bytes);
	timer_del(c->sched, &c->retry);
	sched_unpost(c->sched, &c->job);
}

void cluster_new_incarnation(struct cluster *c, uint64_t incarnation)
{
	csv_assert(incarnation && incarnation != c->incarnation);
	c->next_incarnation = incarnation;
	sched_post(c->sched, &c->job);
}

void cluster_mutate_ignore_ring(struct cluster *c)
{
	c->mutate_ignore_ring = true;
}
