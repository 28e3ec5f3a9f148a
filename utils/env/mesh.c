/*
 * mesh.c - exactly-once, in-order unicast within a view over links that break.
 *
 * Sender: mesh_send.c.
 *
 * Receiver: acknowledges with every frame it sends, else after ACK_DELAY_NS or a quarter of the window.
 * Frames of a view that is not ours yet wait in the peer's stash, numbered like everything else; a conforming peer cannot
 * have more than a window there.  view() delivers them from the run queue, after all users have the view.
 *
 * View change: suspend() drops all but the stashes.  A view never comes back (cluster.h, rounds), so what is not after the
 * last view is old for ever.
 *
 * Thread: the control thread.
 */
#include "utils/env/mesh_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "utils/base/base.h"

#define STASH_BYTES_MAX (MESH_WINDOW_BYTES + MESH_HEADER_BYTES + MESH_MSG_MAX)

/* ---- peers ------------------------------------------------------------------------------------------------------- */

struct peer *mesh_peer_find(struct mesh *m, uint32_t nodeid)
{
	struct peer *p;

	cds_list_for_each_entry(p, &m->peers, node)
		if (p->nodeid == nodeid)
			return p;
	return NULL;
}

static void drop_ins(struct cds_list_head *head)
{
	struct in *i, *tmp;

	cds_list_for_each_entry_safe(i, tmp, head, node) {
		cds_list_del(&i->node);
		free(i);
	}
}

static uint64_t count_ins(struct cds_list_head *head)
{
	struct in *i;
	uint64_t n = 0;

	cds_list_for_each_entry(i, head, node)
		n++;
	return n;
}

static void drop_stash(struct peer *p)
{
	p->mesh->stats.dropped_old_view += count_ins(&p->stash);
	drop_ins(&p->stash);
	p->stash_bytes = 0;
	p->stash_last = 0;
	p->stash_ring = (struct ring_id){ 0, 0 };
}

static bool stash_is_of_view(const struct peer *p)
{
	return p->mesh->in_view && p->member && !cds_list_empty((struct cds_list_head *)&p->stash) &&
	       ring_eq(p->stash_ring, p->mesh->view.ring);
}

/* Everything that belonged to the view (M3). */
static void peer_reset(struct peer *p)
{
	struct out *o, *tmp;

	cds_list_for_each_entry_safe(o, tmp, &p->out, node) {
		cds_list_del(&o->node);
		free(o);
	}
	p->unsent = &p->out;
	p->member = false;
	p->next_seq = 1;
	p->acked = p->received = 0;
	p->window_bytes = p->queue_bytes = p->unacked_bytes = 0;
	p->ack_due = false;
	timer_del(p->mesh->sched, &p->ack_timer);
}

static struct peer *peer_get(struct mesh *m, uint32_t nodeid)
{
	struct peer *p = mesh_peer_find(m, nodeid);

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->mesh = m;
	p->nodeid = nodeid;
	CDS_INIT_LIST_HEAD(&p->out);
	CDS_INIT_LIST_HEAD(&p->stash);
	timer_init(&p->ack_timer, mesh_ack_timer);
	peer_reset(p);
	cds_list_add_tail(&p->node, &m->peers);
	return p;
}

static void peer_free(struct peer *p)
{
	peer_reset(p);
	drop_stash(p);
	cds_list_del(&p->node);
	free(p);
}

/* ---- receiving ------------------------------------------------------------------------------------------------------ */

static int bad(struct mesh *m, uint32_t peer, const char *what, uint64_t value)
{
	m->stats.dropped_bad++;
	snprintf(m->bad, sizeof(m->bad), "node %u: bad frame: %s (%llu)", peer, what, (unsigned long long)value);
	return -EBADMSG;
}

static void to_user(struct mesh *m, unsigned chan, struct cluster_node from, const void *msg, uint32_t len)
{
	if (m->user[chan].msg)
		m->user[chan].msg(m->user[chan].arg, from, msg, len);
}

static void received(struct mesh *m, unsigned chan, uint32_t len)
{
	m->stats.received[chan]++;
	m->stats.received_bytes += len;
}

static int stash(struct peer *p, const struct mesh_frame *f)
{
	struct mesh *m = p->mesh;
	struct in *i;

	if (!ring_eq(p->stash_ring, f->ring) || p->stash_incarnation != f->incarnation) {
		if (ring_after(p->stash_ring, f->ring)) {
			m->stats.dropped_old_view++;
			return 0;
		}
		drop_stash(p);		/* overtaken: that peer is in a newer view */
		p->stash_ring = f->ring;
		p->stash_incarnation = f->incarnation;
	}
	if (f->type == MESH_ACK)
		return 0;		/* we have sent nothing in that view */
	if (f->seq <= p->stash_last) {
		m->stats.duplicates++;
		return 0;
	}
	if (f->seq != p->stash_last + 1)
		return bad(m, p->nodeid, "gap in the sequence numbers", f->seq);
	if (p->stash_bytes + frame_bytes(f->len) > STASH_BYTES_MAX)
		return bad(m, p->nodeid, "more than a window for a view to come", p->stash_bytes);
	i = malloc(sizeof(*i) + f->len);
	if (!i)
		return -ENOMEM;		/* breaks the link; it is sent again */
	i->from = (struct cluster_node){ p->nodeid, f->incarnation };
	i->chan = f->chan;
	i->len = f->len;
	memcpy(i->msg, f->msg, f->len);
	cds_list_add_tail(&i->node, &p->stash);
	p->stash_last = f->seq;
	p->stash_bytes += frame_bytes(f->len);
	m->stats.stashed++;
	return 0;
}

static int frame_of_view(struct peer *p, const struct mesh_frame *f)
{
	struct mesh *m = p->mesh;

	if (mesh_out_acked(p, f->ack) < 0)
		return bad(m, p->nodeid, "acknowledges what was never sent", f->ack);
	if (f->type == MESH_ACK)
		return 0;
	if (stash_is_of_view(p))
		return stash(p, f);	/* behind what waits there already */
	if (f->seq <= p->received) {
		m->stats.duplicates++;
		p->ack_due = true;	/* it does not know that we have it */
		mesh_ack_owe(p);
		return 0;
	}
	if (f->seq != p->received + 1)
		return bad(m, p->nodeid, "gap in the sequence numbers", f->seq);
	p->received = f->seq;
	p->unacked_bytes += frame_bytes(f->len);
	p->ack_due = true;
	received(m, f->chan, f->len);
	to_user(m, f->chan, (struct cluster_node){ p->nodeid, f->incarnation }, f->msg, f->len);
	mesh_ack_owe(p);
	return 0;
}

static int on_frame(void *arg, uint32_t from, const void *buf, size_t len)
{
	struct mesh *m = arg;
	struct peer *p = mesh_peer_find(m, from);
	struct mesh_frame f;
	const char *wrong = mesh_frame_decode(buf, len, &f);

	if (wrong)
		return bad(m, from, wrong, len);
	if (f.lockspace != m->lockspace)
		return bad(m, from, "of another lockspace", f.lockspace);
	if (f.from != from || from == m->self)
		return bad(m, from, "names another sender", f.from);
	if (!p)
		return bad(m, from, "from a node without a link", from);
	if (f.version != p->version)
		return bad(m, from, "of a version that was not settled for this link", f.version);
	if (m->in_view && ring_eq(f.ring, m->view.ring)) {
		if (!p->member)
			return bad(m, from, "of our view from a node that is not in it", f.ring.seq);
		if (f.incarnation != p->incarnation) {
			m->stats.dropped_old_view++;
			return 0;
		}
		return frame_of_view(p, &f);
	}
	if (!ring_after(f.ring, m->view.ring)) {
		if (m->mutation == MESH_MUTATE_OLD_RING && m->in_view && p->member && f.type == MESH_DATA)
			to_user(m, f.chan, (struct cluster_node){ from, p->incarnation }, f.msg, f.len);
		m->stats.dropped_old_view++;
		return 0;
	}
	return stash(p, &f);
}

/* Runs after all users have the view: local messages, then each stash, one message at a time, in order per peer. */
static void deliver(struct job *j)
{
	struct mesh *m = container_of(j, struct mesh, deliver);
	struct peer *p;
	struct in *i;

	if (!cds_list_empty(&m->local)) {
		i = cds_list_first_entry(&m->local, struct in, node);
		cds_list_del(&i->node);
		sched_post(m->sched, j);
		to_user(m, i->chan, i->from, i->msg, i->len);
		free(i);
		return;
	}
	cds_list_for_each_entry(p, &m->peers, node) {
		if (!stash_is_of_view(p))
			continue;
		i = cds_list_first_entry(&p->stash, struct in, node);
		cds_list_del(&i->node);
		p->stash_bytes -= frame_bytes(i->len);
		p->received++;
		p->unacked_bytes += frame_bytes(i->len);
		p->ack_due = true;
		received(m, i->chan, i->len);
		sched_post(m->sched, j);
		to_user(m, i->chan, i->from, i->msg, i->len);
		free(i);
		mesh_ack_owe(p);
		return;
	}
}

/* ---- links and views -------------------------------------------------------------------------------------------------- */

static void on_up(void *arg, uint32_t nodeid)
{
	struct mesh *m = arg;
	struct peer *p = peer_get(m, nodeid);

	m->stats.connects++;
	if (!p)
		return;		/* its frames will break the link, it comes again */
	p->up = true;
	p->version = (uint8_t)(m->link->settled ? m->link->settled(m->link, nodeid) : PROTO_MESH.max);
	mesh_out_rewind(p);
	mesh_out_pump(p);
}

static void on_down(void *arg, uint32_t nodeid)
{
	struct peer *p = mesh_peer_find(arg, nodeid);

	if (p)
		p->up = false;
}

static const struct link_events link_events = { .up = on_up, .down = on_down, .frame = on_frame };

static void on_suspend(void *arg)
{
	struct mesh *m = arg;
	struct peer *p;

	m->in_view = false;
	drop_ins(&m->local);
	cds_list_for_each_entry(p, &m->peers, node) {
		if (ring_eq(p->stash_ring, m->view.ring))
			drop_stash(p);
		peer_reset(p);
	}
}

static void on_view(void *arg, const struct cluster_view *v)
{
	struct mesh *m = arg;
	uint32_t ids[CLUSTER_NODES_MAX], n = 0;
	struct peer *p, *tmp;

	m->view = *v;
	m->in_view = true;
	cds_list_for_each_entry(p, &m->peers, node)
		peer_reset(p);
	for (uint32_t i = 0; i < v->n; i++) {
		if (v->m[i].nodeid == m->self)
			continue;
		ids[n++] = v->m[i].nodeid;
		p = peer_get(m, v->m[i].nodeid);
		if (!p)
			continue;	/* mesh_send() to it says -ENOTCONN */
		p->member = true;
		p->incarnation = v->m[i].incarnation;
		if (ring_after(v->ring, p->stash_ring) ||
		    (ring_eq(v->ring, p->stash_ring) && p->stash_incarnation != p->incarnation))
			drop_stash(p);
	}
	cds_list_for_each_entry_safe(p, tmp, &m->peers, node)
		if (!p->member && !p->up)
			peer_free(p);
	m->link->ops->peers(m->link, ids, n);
	sched_post(m->sched, &m->deliver);
}

static void on_lost(void *arg, int err)
{
	struct mesh *m = arg;

	(void)err;
	m->link->ops->peers(m->link, NULL, 0);
}

/* ---- life --------------------------------------------------------------------------------------------------------------- */

struct mesh *mesh_new(struct sched *s, struct cluster *cl, struct link_port *link, uint64_t lockspace)
{
	struct mesh *m = calloc(1, sizeof(*m));
	struct cluster_user u = { .suspend = on_suspend, .view = on_view, .lost = on_lost, .arg = m };

	if (!m)
		return NULL;
	m->sched = s;
	m->cl = cl;
	m->link = link;
	m->lockspace = lockspace;
	m->self = cluster_self(cl);
	CDS_INIT_LIST_HEAD(&m->peers);
	CDS_INIT_LIST_HEAD(&m->local);
	job_init(&m->deliver, deliver);
	cluster_register(cl, CHAN_VIEW, &u);
	return m;
}

int mesh_start(struct mesh *m)
{
	int rc = m->link->ops->start(m->link, &link_events, m);

	m->started = rc == 0;
	return rc;
}

void mesh_free(struct mesh *m)
{
	struct peer *p, *tmp;

	if (!m)
		return;
	if (m->started)
		m->link->ops->stop(m->link);
	cds_list_for_each_entry_safe(p, tmp, &m->peers, node)
		peer_free(p);
	drop_ins(&m->local);
	sched_unpost(m->sched, &m->deliver);
	free(m);
}

void mesh_register(struct mesh *m, enum cluster_chan chan,
		   void (*msg)(void *arg, struct cluster_node from, const void *buf, size_t len), void *arg)
{
	csv_assert((unsigned)chan < CHAN_MAX && !m->user[chan].msg);
	m->user[chan].msg = msg;
	m->user[chan].arg = arg;
}

void mesh_mutate(struct mesh *m, enum mesh_mutation what)
{
	m->mutation = what;
}

const struct mesh_stats *mesh_stats(const struct mesh *m)
{
	return &m->stats;
}

const char *mesh_bad_reason(const struct mesh *m)
{
	return m->bad;
}
