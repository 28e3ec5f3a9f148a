/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm.c - life of a lock manager, the way of a message in and out.
 *
 *	mesh message -> header checked -> recovery decides whether its time has come (dlm_recover.c) -> dlm_service()
 *
 * A bad message is counted and dropped; what it would have done is not half done (bodies are decoded before anything acts,
 * lists entry by entry).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "dlm/dlm_internal.h"

void *dlm_alloc(size_t bytes)
{
	void *p = calloc(1, bytes);

	if (!p)
		csv_panic("lock manager: out of memory for %zu bytes", bytes);
	return p;
}

int dlm_part_index(const struct dlm *d, struct cluster_node who)
{
	const struct cluster_node *m = cluster_view_find(&d->part, who.nodeid);

	return m && m->incarnation == who.incarnation ? (int)(m - d->part.m) : -1;
}

bool dlm_part_is(const struct dlm *d, struct cluster_node who)
{
	return dlm_part_index(d, who) >= 0;
}

/* ---- out ----------------------------------------------------------------------------------------------------------- */

void dlm_send_raw(struct dlm *d, uint32_t to, const void *buf, size_t len)
{
	int rc = mesh_send(d->env->mesh, to, CHAN_DLM, buf, len);

	if (rc < 0) {
		/* The mesh delivers a prefix of what was sent: nothing more will reach that peer before the next view. */
		if (!d->st.send_failed++)
			log_to(d->env->log, LOG_L_WARN, "lock manager: node %u cannot be reached (%d); waiting for a new view", to,
			       rc);
		return;
	}
	if (to != d->self)
		d->st.messages_sent++;
}

void dlm_send(struct dlm *d, uint32_t to, const struct dlm_msg *m)
{
	uint8_t buf[DLM_MSG_BYTES_MAX];

	dlm_send_raw(d, to, buf, dlm_msg_encode(m, d->view.ring, buf));
}

/* ---- in ------------------------------------------------------------------------------------------------------------ */

void dlm_bad_msg(struct dlm *d, struct cluster_node from, const char *what, uint64_t value)
{
	snprintf(d->bad, sizeof(d->bad), "node %u: %s (%" PRIu64 ")", from.nodeid, what, value);
	if (!d->st.bad_messages++)
		log_to(d->env->log, LOG_L_WARN, "lock manager: bad message dropped: %s; further ones are only counted", d->bad);
}

void dlm_hold(struct dlm *d, struct cds_list_head *list, struct cluster_node from, const void *buf, size_t len)
{
	struct dlm_held *h;

	if (d->held_bytes + sizeof(*h) + len > d->cfg.held_bytes_max) {
		dlm_bad_msg(d, from, "more messages before their time than are kept, bytes", d->held_bytes);
		return;
	}
	h = dlm_alloc(sizeof(*h) + len);
	d->held_bytes += sizeof(*h) + len;
	h->from = from;
	h->len = len;
	memcpy(h->buf, buf, len);
	cds_list_add_tail(&h->node, list);
}

void dlm_held_free(struct dlm *d, struct dlm_held *h)
{
	d->held_bytes -= sizeof(*h) + h->len;
	free(h);
}

static void on_request(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	struct dlm_msg retry = { .type = DLM_M_RETRY, .name = m->name, .reqid = m->reqid };
	struct dlm_res *r;

	if (m->flags & DLM_F_DIR) {
		dlm_dir_ask(d, from, m);
		return;
	}
	r = dlm_res_find(d, &m->name);
	if (r)
		dlm_res_request(d, r, from, m, false);
	else
		dlm_send(d, from.nodeid, &retry);	/* it remembered us from an earlier time */
}

void dlm_service(struct dlm *d, struct cluster_node from, const struct dlm_msg *m)
{
	switch (m->type) {
	case DLM_M_REQUEST:
		on_request(d, from, m);
		break;
	case DLM_M_FORWARD:
	case DLM_M_BACK:
		dlm_dir_forward(d, from, m);
		break;
	case DLM_M_RECORD:
		dlm_dir_record(d, from, m);
		break;
	case DLM_M_MASTER_YOU:
		dlm_dir_master_you(d, from, m);
		break;
	case DLM_M_REMOVE:
		dlm_dir_remove(d, from, m);
		break;
	case DLM_M_UNRECORD:
		dlm_dir_unrecord(d, from, m);
		break;
	case DLM_M_GRANT:
	case DLM_M_REFUSED:
	case DLM_M_QUEUED:
	case DLM_M_RETRY:
	case DLM_M_CANCELLED:
		dlm_client_answer(d, from, m);
		break;
	case DLM_M_BAST:
		dlm_client_bast(d, from, m);
		break;
	case DLM_M_DOWN:
		dlm_res_down(d, from, m);
		break;
	case DLM_M_CANCEL:
		dlm_res_cancel(d, from, m);
		break;
	case DLM_M_CONVERT:
		dlm_conv_request(d, from, m);
		break;
	case DLM_M_DEMOTE:
		dlm_client_demote(d, from, m);
		break;
	case DLM_M_MOVE:
		dlm_dir_move(d, from, m);
		break;
	case DLM_M_MOVED:
		dlm_move_done(d, from, m);
		break;
	case DLM_M_PROBE:
		dlm_chase_probe(d, from, m);
		break;
	case DLM_M_CHASE:
		dlm_chase_holder(d, from, m);
		break;
	}
}

static void on_mesh(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct dlm *d = arg;
	struct dlm_header h;
	struct csv_cursor c;
	const char *wrong = dlm_header_decode(buf, len, &c, &h);

	if (from.nodeid != d->self)
		d->st.messages_received++;
	if (wrong)
		dlm_bad_msg(d, from, wrong, len);
	else
		dlm_recover_msg(d, from, &h, &c, buf, len);
}

static void on_suspend(void *arg)
{
	dlm_recover_suspend(arg);
}

static void on_view(void *arg, const struct cluster_view *v)
{
	dlm_recover_view(arg, v);
}

static void on_ordered(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	dlm_recover_ordered(arg, from, buf, len);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

struct dlm *dlm_new(struct env *env, const struct dlm_events *ev)
{
	struct dlm *d = calloc(1, sizeof(*d));
	struct cluster_user u = { .suspend = on_suspend, .view = on_view, .msg = on_ordered, .arg = d };

	if (!d)
		return NULL;
	d->env = env;
	d->ev = *ev;
	d->self = cluster_self(env->cluster);
	d->cfg.peer_locks_max = DLM_PEER_LOCKS_MAX;
	d->cfg.held_bytes_max = DLM_HELD_BYTES_MAX;
	d->state = DLM_S_DOWN;
	dlm_table_init(&d->clients);
	dlm_table_init(&d->resources);
	dlm_table_init(&d->dir);
	dlm_table_init(&d->dir_old);
	dlm_table_init(&d->orphans);
	CDS_INIT_LIST_HEAD(&d->due);
	CDS_INIT_LIST_HEAD(&d->asked);
	CDS_INIT_LIST_HEAD(&d->owed);
	CDS_INIT_LIST_HEAD(&d->early);
	CDS_INIT_LIST_HEAD(&d->held);
	CDS_INIT_LIST_HEAD(&d->strays);
	job_init(&d->due_job, dlm_due);
	dlm_chase_init(d);
	dlm_hold_init(d);
	cluster_register(env->cluster, CHAN_DLM, &u);
	mesh_register(env->mesh, CHAN_DLM, on_mesh, d);
	return d;
}

void dlm_free(struct dlm *d)
{
	struct dlm_client *c, *ctmp;
	struct dlm_res *r, *rtmp;
	struct dlm_owed *o, *otmp;

	if (!d)
		return;
	sched_unpost(d->env->sched, &d->due_job);
	dlm_recover_suspend(d);
	sched_unpost(d->env->sched, &d->due_job);
	timer_del(d->env->sched, &d->probe_timer);
	timer_del(d->env->sched, &d->rest_timer);
	dlm_table_each(c, ctmp, &d->clients) {
		free(c->chase);
		c->l->priv = NULL;
		free(c);
	}
	dlm_table_each(r, rtmp, &d->resources)
		dlm_res_free(d, r);
	cds_list_for_each_entry_safe(o, otmp, &d->owed, node)
		free(o);
	dlm_rec_clear(&d->dir);
	dlm_rec_clear(&d->dir_old);
	dlm_table_clear(&d->clients);
	dlm_table_clear(&d->resources);
	dlm_table_clear(&d->orphans);
	free(d);
}

void dlm_set_config(struct dlm *d, const struct dlm_config *cfg)
{
	d->cfg = *cfg;
	if (!d->cfg.peer_locks_max)
		d->cfg.peer_locks_max = DLM_PEER_LOCKS_MAX;
	if (!d->cfg.held_bytes_max)
		d->cfg.held_bytes_max = DLM_HELD_BYTES_MAX;
}

void dlm_fence_confirmed(struct dlm *d, struct cluster_node who)
{
	dlm_recover_proof(d, who, DLM_FENCED);
}

void dlm_replayed(struct dlm *d, struct cluster_node who)
{
	dlm_recover_proof(d, who, DLM_REPLAYED);
}

void dlm_leave(struct dlm *d, void (*done)(void *arg), void *arg)
{
	struct dlm_client *c, *tmp;

	dlm_table_each(c, tmp, &d->clients)
		csv_assertf(c->l->granted == DLM_NL && !c->l->busy, "leaving with a lock: name %02x%02x%02x%02x... of %u bytes, %s, wanted %s%s",
			    c->l->name[0], c->l->name[1], c->l->name[2], c->l->name[3], c->l->name_len, dlm_mode_name(c->l->granted),
			    dlm_mode_name(c->l->wanted), c->l->busy ? ", busy" : "");
	csv_assert(!d->leaving);
	d->leaving = true;
	d->leave_done = done;
	d->leave_arg = arg;
	dlm_recover_leave(d);
}

bool dlm_is_recovered(const struct dlm *d)
{
	return dlm_running(d);
}
