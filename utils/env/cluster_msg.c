/*
 * cluster_msg.c - what the view tracker sends: the form of its messages, its own JOIN, and users' messages while the engine pushes back.
 *
 * Every message carries ring, round and incarnation of its sender (C5).  Our JOIN goes before all that waits.
 *
 * Thread: the control thread.
 */
#include "utils/env/cluster_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "utils/base/base.h"
#include "utils/base/cursor.h"
#include "utils/env/clock.h"

#define MSG_MAGIC 0x56435643u		/* "CVCV" */
#define MSG_VERSION 1
#define JOIN_BYTES 8
#define RETRY_NS (5 * NS_PER_MS)	/* the engine has no "you may send again" event */
#define QUEUE_BYTES_MAX (64u << 20)

static void put_header(const struct cluster *c, struct csv_cursor *cur, enum msg_kind kind, unsigned chan)
{
	csv_put_u32(cur, MSG_MAGIC);
	csv_put_u16(cur, MSG_VERSION);
	csv_put_u8(cur, kind);
	csv_put_u8(cur, chan);
	csv_put_u32(cur, c->ring.nodeid);
	csv_put_u32(cur, c->round);
	csv_put_u64(cur, c->ring.seq);
	csv_put_u64(cur, c->incarnation);
	/* What a JOIN announces; without meaning in other messages, which are of the version of their view. */
	csv_put_u16(cur, kind == MSG_JOIN ? c->speaks.min : 0);
	csv_put_u16(cur, kind == MSG_JOIN ? c->speaks.max : 0);
	csv_put_u16(cur, kind == MSG_JOIN ? (uint16_t)((c->seated ? JOIN_SEATED : 0) | c->mesh.min << JOIN_MESH_MIN_SHIFT |
						       c->mesh.max << JOIN_MESH_MAX_SHIFT) : 0);
	csv_put_u16(cur, kind == MSG_JOIN && c->votes <= UINT16_MAX ? (uint16_t)c->votes : 0);	/* C8 */
}

bool cluster_msg_get(struct csv_cursor *cur, struct msg_head *h)
{
	uint32_t magic = csv_cur_u32(cur);
	uint16_t version = csv_cur_u16(cur);

	h->kind = csv_cur_u8(cur);
	h->chan = csv_cur_u8(cur);
	h->ring.nodeid = csv_cur_u32(cur);
	h->round = csv_cur_u32(cur);
	h->ring.seq = csv_cur_u64(cur);
	h->incarnation = csv_cur_u64(cur);
	h->min = csv_cur_u16(cur);
	h->max = csv_cur_u16(cur);
	h->flags = csv_cur_u16(cur);
	h->votes = csv_cur_u16(cur);
	return !csv_cur_error(cur) && magic == MSG_MAGIC && version == MSG_VERSION &&
	       (h->kind == MSG_JOIN || h->kind == MSG_USER) && h->chan < CHAN_MAX && h->incarnation &&
	       h->round && h->round <= ROUND_MAX;
}

/* False: the engine pushes back or is gone; a timer is armed or the loss is on its way. */
static bool to_engine(struct cluster *c, const void *buf, size_t len)
{
	int rc = c->port->ops->send(c->port, buf, len);

	if (rc == 0)
		return true;
	if (rc == -EAGAIN) {
		c->stats.pushed_back++;
		timer_set(c->sched, &c->retry, sched_now_ns(c->sched) + RETRY_NS);
	} else {
		cluster_engine_lost_later(c, rc);
	}
	return false;
}

static bool send_join(struct cluster *c)
{
	uint8_t buf[MSG_HEADER_BYTES + JOIN_BYTES];
	struct csv_cursor cur;

	csv_cursor_init(&cur, buf, sizeof(buf));
	put_header(c, &cur, MSG_JOIN, CHAN_VIEW);
	csv_put_u32(&cur, c->members_crc);
	csv_put_u32(&cur, c->n);
	csv_assert(!csv_cur_error(&cur) && csv_cur_left(&cur) == 0);
	if (!to_engine(c, buf, sizeof(buf)))
		return false;
	c->join_due = false;
	c->stats.joins_sent++;
	return true;
}

void cluster_msg_flush(struct cluster *c)
{
	struct packet *p, *tmp;

	if (c->lost || !c->started)
		return;
	if (c->join_due && !send_join(c))
		return;
	cds_list_for_each_entry_safe(p, tmp, &c->queue, node) {
		if (!to_engine(c, p->buf, p->len))
			return;
		cds_list_del(&p->node);
		c->queue_bytes -= p->len;
		free(p);
	}
}

void cluster_msg_retry(struct timer *t)
{
	cluster_msg_flush(container_of(t, struct cluster, retry));
}

int cluster_send(struct cluster *c, enum cluster_chan chan, const void *buf, size_t len)
{
	struct csv_cursor cur;
	struct packet *p;

	csv_assert((unsigned)chan < CHAN_MAX);
	if (len > CLUSTER_MSG_MAX)
		return -EMSGSIZE;
	if (!c->usable)
		return -ENOTCONN;
	if (c->queue_bytes + MSG_HEADER_BYTES + len > QUEUE_BYTES_MAX)
		return -ENOMEM;
	p = malloc(sizeof(*p) + MSG_HEADER_BYTES + len);
	if (!p)
		return -ENOMEM;
	p->from = c->port->self;
	p->len = MSG_HEADER_BYTES + len;
	csv_cursor_init(&cur, p->buf, p->len);
	put_header(c, &cur, MSG_USER, chan);
	csv_put_bytes(&cur, buf, len);
	csv_assert(!csv_cur_error(&cur));
	c->stats.sent++;
	if (cds_list_empty(&c->queue) && to_engine(c, p->buf, p->len)) {
		free(p);
		return 0;
	}
	cds_list_add_tail(&p->node, &c->queue);
	c->queue_bytes += p->len;
	return 0;
}
