/*
 * mesh_send.c - sending over the mesh: the window to each peer, what waits for it, and acknowledgements.
 *
 * Sender, per peer and view: one list of messages with sequence numbers 1, 2, 3, …
 *
 *	| sent, not acknowledged (<= MESH_WINDOW_BYTES) | waits for the window or the link (<= MESH_QUEUE_BYTES) |
 *	^ list head                                     ^ unsent
 *
 * A link that comes up again gets everything from the list head; the receiver drops what it has.  So nothing but a broken
 * link makes us send twice, and no resend timer is needed: a link that neither breaks nor delivers is the link port's
 * business (TCP_USER_TIMEOUT), and a gap in the numbers is a bad frame, which breaks it.
 *
 * Thread: the control thread.
 */
#include "utils/env/mesh_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "utils/base/base.h"
#include "utils/base/crc32c.h"

#define ACK_DELAY_NS (10 * NS_PER_MS)
#define ACK_BYTES (MESH_WINDOW_BYTES / 4)

static int send_frame(struct peer *p, enum mesh_frame_type type, struct out *o)
{
	struct mesh *m = p->mesh;
	uint8_t ack_frame[MESH_HEADER_BYTES];
	uint8_t *buf = o ? o->frame : ack_frame;
	struct mesh_frame f = {
		.version = p->version,
		.type = type,
		.chan = o ? o->chan : 0,
		.lockspace = m->lockspace,
		.ring = m->view.ring,
		.from = m->self,
		.incarnation = cluster_view_find(&m->view, m->self)->incarnation,
		.seq = o ? o->seq : 0,
		.ack = p->received,
		.len = o ? o->len : 0,
	};
	int rc;

	mesh_frame_encode(&f, o ? o->msg_crc : 0, buf);
	rc = m->link->ops->send(m->link, p->nodeid, buf, frame_bytes(f.len));
	if (rc < 0) {
		p->up = false;		/* down() is on its way, up() will send again */
		return rc;
	}
	p->ack_due = false;
	p->unacked_bytes = 0;
	timer_del(m->sched, &p->ack_timer);
	return 0;
}

static void send_ack(struct peer *p)
{
	if (p->up && p->mesh->in_view && p->member && send_frame(p, MESH_ACK, NULL) == 0)
		p->mesh->stats.acks_sent++;
}

void mesh_ack_timer(struct timer *t)
{
	send_ack(container_of(t, struct peer, ack_timer));
}

void mesh_ack_owe(struct peer *p)
{
	if (!p->ack_due)
		return;
	if (p->unacked_bytes >= ACK_BYTES)
		send_ack(p);
	else if (!p->ack_timer.armed)
		timer_set(p->mesh->sched, &p->ack_timer, sched_now_ns(p->mesh->sched) + ACK_DELAY_NS);
}

void mesh_out_pump(struct peer *p)
{
	struct cds_list_head *at;
	struct mesh *m = p->mesh;

	if (!p->up || !m->in_view || !p->member)
		return;
	while ((at = p->unsent) != &p->out) {
		struct out *o = cds_list_entry(at, struct out, node);
		size_t bytes = frame_bytes(o->len);

		if (p->window_bytes && p->window_bytes + bytes > MESH_WINDOW_BYTES)
			return;
		if (send_frame(p, MESH_DATA, o) < 0)
			return;
		o->sent = true;
		p->unsent = at->next;
		if (o->ever_sent)
			m->stats.resent++;
		o->ever_sent = true;
		p->window_bytes += bytes;
		p->queue_bytes -= bytes;
	}
}

void mesh_out_rewind(struct peer *p)
{
	struct out *o;

	cds_list_for_each_entry(o, &p->out, node) {
		if (!o->sent || p->mesh->mutation == MESH_MUTATE_NO_RESEND)
			break;
		o->sent = false;
		p->window_bytes -= frame_bytes(o->len);
		p->queue_bytes += frame_bytes(o->len);
	}
	if (p->mesh->mutation != MESH_MUTATE_NO_RESEND)
		p->unsent = p->out.next;
	csv_assert(p->window_bytes == 0 || p->mesh->mutation);
}

int mesh_out_acked(struct peer *p, uint64_t ack)
{
	struct out *o, *tmp;

	if (ack >= p->next_seq)
		return -1;
	if (ack <= p->acked)
		return 0;
	cds_list_for_each_entry_safe(o, tmp, &p->out, node) {
		size_t bytes = frame_bytes(o->len);

		if (o->seq > ack)
			break;
		/* It may have come over the last link and be waiting to go over this one. */
		if (o->sent)
			p->window_bytes -= bytes;
		else
			p->queue_bytes -= bytes;
		if (p->unsent == &o->node)
			p->unsent = o->node.next;
		cds_list_del(&o->node);
		free(o);
	}
	p->acked = ack;
	mesh_out_pump(p);
	return 0;
}

static int send_local(struct mesh *m, enum cluster_chan chan, const void *buf, size_t len)
{
	struct in *i = malloc(sizeof(*i) + len);

	if (!i)
		return -ENOMEM;
	i->from = *cluster_view_find(&m->view, m->self);
	i->chan = chan;
	i->len = len;
	if (len)
		memcpy(i->msg, buf, len);
	cds_list_add_tail(&i->node, &m->local);
	sched_post(m->sched, &m->deliver);
	return 0;
}

int mesh_send(struct mesh *m, uint32_t to, enum cluster_chan chan, const void *buf, size_t len)
{
	struct peer *p;
	struct out *o;

	csv_assert((unsigned)chan < CHAN_MAX);
	if (len > MESH_MSG_MAX)
		return -EMSGSIZE;
	if (!m->in_view)
		return -ENOTCONN;
	if (to == m->self)
		return send_local(m, chan, buf, len);
	p = mesh_peer_find(m, to);
	if (!p || !p->member)
		return -ENOTCONN;
	if (p->queue_bytes + frame_bytes(len) > MESH_QUEUE_BYTES)
		return -ENOBUFS;
	o = malloc(sizeof(*o) + frame_bytes(len));
	if (!o)
		return -ENOMEM;
	o->seq = p->next_seq++;
	o->since_ns = sched_now_ns(m->sched);
	o->len = len;
	o->chan = chan;
	o->sent = o->ever_sent = false;
	if (len)
		memcpy(o->frame + MESH_HEADER_BYTES, buf, len);
	o->msg_crc = csv_crc32c(0, o->frame + MESH_HEADER_BYTES, len);
	cds_list_add_tail(&o->node, &p->out);
	if (p->unsent == &p->out)
		p->unsent = &o->node;
	p->queue_bytes += frame_bytes(len);
	m->stats.sent[chan]++;
	m->stats.sent_bytes += len;
	mesh_out_pump(p);
	return 0;
}

uint64_t mesh_unacked_ms(struct mesh *m, uint32_t peer)
{
	struct peer *p = mesh_peer_find(m, peer);
	uint64_t since;

	if (!p || cds_list_empty(&p->out))
		return 0;
	since = cds_list_first_entry(&p->out, struct out, node)->since_ns;
	/* 0 means none: what has just been sent is one millisecond old. */
	return csv_max((sched_now_ns(m->sched) - since) / NS_PER_MS, (uint64_t)1);
}
