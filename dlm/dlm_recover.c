/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_recover.c - from a new view to complete lock tables: five rounds, each ended by a mark from every participant.
 *
 *	DOWN --view--> AGREE -----> REBUILD -----> STRAY -----> RESOLVE -----> READY -----> RUN
 *	                | |   STATE   ^    END 2        END 3          END 4         END 5
 *	                | +-> SURVEY -+    (there may have been views that nobody here knows)
 *	                +--> PURGED        (we are not among the participants)
 *
 * What is done in each state, and what a membership change (suspend, later a view) does to it, is one table, row[] below; the code of
 * both moves reads it.
 *
 * Why nothing is lost on the way: a view runs somewhere only after *all* its participants were ready, that is, after all
 * its tables were complete everywhere.  Until a node sees it run, it keeps the older directory as well: in the next
 * recovery both count, as "names of lost masters".  A name too many costs a phantom that falls with the proof; a
 * name too few would be two EX locks.
 *
 *	node 1			node 2			node 3
 *	READY {1,2,3}		READY			READY
 *	sees all: RUN, grants	(END 5 of 3 missing)	crash
 *	view {1,2}: candidate {1,2,3} on both; 3 is lost on both, though 2 never ran with it
 */
#include <errno.h>
#include <stdlib.h>

#include "dlm/dlm_internal.h"

/* ---- the table ------------------------------------------------------------------------------------------------------------ */

enum dir_fate {
	DIR_EMPTY,		/* there is none, or it is the older one that stays */
	DIR_FORGET,		/* half-built: forgotten.  The older one and the old lock lists are there, the next recovery starts from them */
	DIR_OLDER,		/* complete, and the view may have run elsewhere: kept beside the older one */
};

struct recover_row {
	const char *word;			/* for people */
	const char *does;
	const char *waits_for;			/* for people */
	/* a membership change: */
	bool stays;				/* means nothing here */
	enum dir_fate dir;
	bool drop;				/* what was heard, reported, half taken over is forgotten */
	const char *change;			/* why that is enough */
	/* all have ended the round: */
	void (*next)(struct dlm *d);
};

static void enter_ready(struct dlm *d);
static void enter_run(struct dlm *d);

static const struct recover_row row[DLM_S_MAX] = {
	[DLM_S_DOWN] = {
		"no-view", "downgrades are noted; cached grants stay in force, nothing is granted",
		"a quorate view of the cluster", true, DIR_EMPTY, false,
		"nothing is under way", NULL },
	[DLM_S_AGREE] = {
		"agree", "all tell their past; all compute participants, lost, suspects (dlm_agree.c)",
		"what every member of the view tells of its past", false, DIR_FORGET, true,
		"nothing had been changed", NULL },
	[DLM_S_SURVEY] = {
		"survey", "the disk is asked who else may hold locks (there may have been views that nobody here knows)",
		"the slot table on the volume, read after this view began", false, DIR_FORGET, true,
		"the answer, if it still comes, has an old ticket; the next view asks again when it needs to", NULL },
	[DLM_S_REBUILD] = {
		"rebuild", "masters register at dir1 and dir2; old directory nodes tell dir1 the names of lost masters; holders report",
		"the masters' names and the holders' locks of every participant", false, DIR_FORGET, true,
		"old lock lists and the older directory are untouched until READY", dlm_rebuild_stray },
	[DLM_S_STRAY] = {
		"stray", "reports that found no master go to dir1",
		"the locks whose master is lost, from every participant", false, DIR_FORGET, true,
		"as REBUILD", dlm_rebuild_resolve },
	[DLM_S_RESOLVE] = {
		"resolve", "dir1 passes them to a master that has registered, or becomes master of what has none, and says so",
		"every participant to have taken over what has no master", false, DIR_FORGET, true,
		"as REBUILD; resources just taken over are forgotten, their names are in the older directories", enter_ready },
	[DLM_S_READY] = {
		"ready", "own tables are complete: phantoms and value blocks are set, the lost are committed, the view is a candidate",
		"every participant to have complete tables", false, DIR_OLDER, true,
		"it may have run elsewhere: its tables and the older directory both count in the next recovery", enter_run },
	[DLM_S_RUN] = {
		"run", "normal operation; older directories are dropped, the view is the only candidate",
		"", false, DIR_OLDER, false,
		"requests and conversions under way are asked again; attempts to find circles are void (dlm_chase.c)", NULL },
	[DLM_S_PURGED] = {
		"purged", "the others go on without us; downgrades are local",
		"this node to give up all it holds and to come back with a new incarnation", true, DIR_EMPTY, false,
		"only a view with a new incarnation of ours means anything: it starts from empty tables", NULL },
};

void dlm_recover_explain(const struct dlm *d, const char **ret_state, const char **ret_waits_for)
{
	*ret_state = row[d->state].word;
	*ret_waits_for = row[d->state].waits_for;
}

enum dlm_state dlm_type_state(uint8_t type, uint8_t round)
{
	switch (type) {
	case DLM_M_STATE:
		return DLM_S_AGREE;
	case DLM_M_REG:
	case DLM_M_LOSTREC:
	case DLM_M_REPORT:
		return DLM_S_REBUILD;
	case DLM_M_STRAY:
		return DLM_S_STRAY;
	case DLM_M_FWD:
	case DLM_M_NEWREC:
	case DLM_M_ADOPT:
		return DLM_S_RESOLVE;
	case DLM_M_END:
		return round >= 2 && round <= 5 ? DLM_S_REBUILD + round - 2 : DLM_S_MAX;
	default:
		return DLM_S_RUN;
	}
}

/* ---- forgetting an unfinished recovery --------------------------------------------------------------------------------- */

static void held_drop(struct dlm *d, struct cds_list_head *list)
{
	struct dlm_held *h, *tmp;

	cds_list_for_each_entry_safe(h, tmp, list, node) {
		cds_list_del(&h->node);
		dlm_held_free(d, h);
	}
}

void dlm_recover_drop(struct dlm *d)
{
	for (uint32_t i = 0; i < CLUSTER_NODES_MAX; i++) {
		free(d->heard[i]);
		d->heard[i] = NULL;
	}
	free(d->agreed);
	d->agreed = NULL;
	dlm_rebuild_drop(d);
}

static void dir_to_old(struct dlm *d)
{
	struct dlm_rec *r, *tmp, *o;

	if (!d->dir_old.n) {		/* nearly always: no recovery was under way and no name on the move */
		dlm_table_move(&d->dir_old, &d->dir);
		return;
	}
	dlm_table_each(r, tmp, &d->dir) {
		for (o = dlm_rec_find(&d->dir_old, &r->name); o && !node_eq(o->master, r->master); o = o->also)
			;
		if (!o)
			dlm_rec_add(&d->dir_old, &r->name, r->master, 0);
	}
	dlm_rec_clear(&d->dir);
}

void dlm_recover_suspend(struct dlm *d)
{
	const struct recover_row *now = &row[d->state];

	if (now->stays)
		return;
	if (now->dir == DIR_OLDER)
		dir_to_old(d);
	else if (now->dir == DIR_FORGET)
		dlm_rec_clear(&d->dir);
	if (now->drop)
		dlm_recover_drop(d);
	held_drop(d, &d->held);
	held_drop(d, &d->early);
	d->state = DLM_S_DOWN;
	d->recovered_due = d->survey_due = false;
	d->leave_acks = 0;
	d->leave_sent = false;
	dlm_client_suspend(d);
}

/* ---- round 1: agree ------------------------------------------------------------------------------------------------------ */

/* Our next life: whatever was is the old one's, and the others keep it as phantoms until its proofs. */
static void new_life(struct dlm *d)
{
	struct dlm_res *r, *rtmp;
	struct dlm_client *c, *ctmp;
	struct dlm_owed *o, *otmp;

	dlm_table_each(c, ctmp, &d->clients) {
		csv_assertf(c->l->granted == DLM_NL, "%s held through a new incarnation", dlm_mode_name(c->l->granted));
		c->master = (struct cluster_node){ 0, 0 };
	}
	dlm_table_each(r, rtmp, &d->resources)
		dlm_res_free(d, r);
	cds_list_for_each_entry_safe(o, otmp, &d->owed, node) {
		cds_list_del(&o->node);
		free(o);
	}
	dlm_rec_clear(&d->dir);
	dlm_rec_clear(&d->dir_old);
	memset(&d->past, 0, sizeof(d->past));
	d->purged_told = d->left = d->leaving = false;
}

static void send_state(struct dlm *d)
{
	uint8_t *buf = dlm_alloc(MESH_MSG_MAX);
	struct csv_cursor c;

	csv_cursor_init(&c, buf, MESH_MSG_MAX);
	dlm_header_encode(&c, DLM_M_STATE, 0, d->view.ring);
	dlm_past_encode(&c, &d->past);
	dlm_header_finish(&c);
	for (uint32_t i = 0; i < d->view.n; i++)
		dlm_send_raw(d, d->view.m[i].nodeid, buf, csv_cur_used(&c));
	free(buf);
}

void dlm_recover_view(struct dlm *d, const struct cluster_view *v)
{
	const struct cluster_node *me = cluster_view_find(v, d->self);

	csv_assert(me);
	if (d->me.incarnation && d->me.incarnation != me->incarnation)
		new_life(d);
	d->me = *me;
	d->view = *v;
	d->part.n = 0;
	d->state = DLM_S_AGREE;
	d->recovery_started_ns = dlm_now_ns(d);
	send_state(d);
}

static void send_leaving(struct dlm *d)
{
	uint8_t buf[DLM_HEADER_BYTES];
	struct csv_cursor c;

	csv_cursor_init(&c, buf, sizeof(buf));
	dlm_header_encode(&c, DLM_M_LEAVING, 0, d->view.ring);
	dlm_header_finish(&c);
	d->leave_sent = cluster_send(d->env->cluster, CHAN_DLM, buf, sizeof(buf)) == 0;
}

static void leave_finish(struct dlm *d)
{
	if (d->left)
		return;
	d->left = true;
	d->leave_due = true;
	sched_post(d->env->sched, &d->due_job);
}

static void leave_check(struct dlm *d)
{
	uint64_t all = d->part.n == 64 ? UINT64_MAX : (1ull << d->part.n) - 1;
	int self = dlm_part_index(d, d->me);

	if (d->leaving && dlm_running(d) && self >= 0 && (d->leave_acks | 1ull << self) == all)
		leave_finish(d);
}

static void purged(struct dlm *d)
{
	d->past.purged = true;
	dlm_recover_drop(d);
	held_drop(d, &d->held);
	d->state = DLM_S_PURGED;
	if (d->leaving)
		leave_finish(d);	/* that is how they say that they know */
	dlm_client_purge(d);
	if (d->purged_told || d->left)
		return;
	d->purged_told = d->purged_due = true;
	sched_post(d->env->sched, &d->due_job);
}

/* ---- round 5 and the end --------------------------------------------------------------------------------------------------------- */

static void commit_lost(struct dlm *d)
{
	struct dlm_lost_list *next = &d->agreed->lost;

	for (uint32_t i = 0; i < next->n; i++) {
		struct dlm_lost *e = dlm_lost_find(&d->past.lost, next->e[i].who);

		next->e[i].told = e && e->told;
		if (e && e->proof > next->e[i].proof)
			next->e[i].proof = e->proof;
	}
	/* A proof that came during this recovery, of one that took part when it began (it is leaving). */
	for (uint32_t i = 0; i < d->past.lost.n; i++) {
		struct dlm_lost *e = &d->past.lost.e[i];

		if (e->proof == DLM_LOST || dlm_lost_find(next, e->who))
			continue;
		dlm_lost_set(next, e->who, e->proof);
		dlm_lost_find(next, e->who)->told = e->told;
	}
	d->past.lost = *next;
	memcpy(d->past.amnesia, d->agreed->amnesia, sizeof(d->past.amnesia));
	d->past.n_amnesia = d->agreed->n_amnesia;
	dlm_past_prune(&d->past);
	free(d->agreed);
	d->agreed = NULL;
}

static void enter_ready(struct dlm *d)
{
	struct dlm_res *r, *tmp;

	d->state = DLM_S_READY;
	commit_lost(d);
	dlm_past_add_cand(&d->past, &d->part);
	dlm_table_each(r, tmp, &d->resources)
		dlm_res_finish(d, r);
	dlm_rebuild_end_round(d);
}

static void enter_run(struct dlm *d)
{
	struct dlm_res *r, *tmp;

	d->state = DLM_S_RUN;
	d->past.n_cand = 0;
	dlm_past_add_cand(&d->past, &d->part);
	dlm_rec_clear(&d->dir_old);
	dlm_recover_drop(d);
	d->st.recoveries++;
	dlm_table_each(r, tmp, &d->resources)
		dlm_res_settle(d, r);
	dlm_client_resume(d);
	d->st.recovery_ns_last = dlm_now_ns(d) - d->recovery_started_ns;
	for (uint32_t i = 0; i < d->past.lost.n; i++)
		d->lost_due |= !d->past.lost.e[i].told;
	d->recovered_due = true;
	d->recovered_view = d->view;
	sched_post(d->env->sched, &d->due_job);
	if (d->leaving && !d->left)
		send_leaving(d);
	leave_check(d);
}

static void next_state(struct dlm *d)
{
	d->ended = 0;
	csv_assertf(row[d->state].next, "round ended in state %s", row[d->state].word);
	row[d->state].next(d);
}

static void agree(struct dlm *d)
{
	for (uint32_t i = 0; i < d->view.n; i++)
		if (!d->heard[i])
			return;
	d->agreed = dlm_alloc(sizeof(*d->agreed));
	dlm_agree(&d->view, d->heard, d->agreed);
	d->part = d->agreed->part;
	memset(d->peer, 0, sizeof(d->peer));		/* counted again as the tables are rebuilt */
	for (uint32_t i = 0; i < d->part.n; i++)
		d->peer[i].who = d->part.m[i];
	d->ended = 0;
	d->next_gen = 0;
	if (!dlm_part_is(d, d->me)) {
		purged(d);
	} else if (!d->agreed->gap) {
		dlm_rebuild_start(d);
	} else if (!d->ev.survey) {
		dlm_agree_gap(d->agreed);
		dlm_rebuild_start(d);
	} else {
		d->state = DLM_S_SURVEY;
		d->ticket++;
		d->survey_due = true;
		sched_post(d->env->sched, &d->due_job);
	}
}

/* ---- messages ------------------------------------------------------------------------------------------------------------------------ */

static void on_state(struct dlm *d, struct cluster_node from, struct csv_cursor *c)
{
	const struct cluster_node *m = cluster_view_find(&d->view, from.nodeid);
	struct dlm_past *p;
	const char *wrong;

	if (!m || m->incarnation != from.incarnation || d->heard[m - d->view.m]) {
		dlm_bad_msg(d, from, "tells its past twice, or is no member", from.incarnation);
		return;
	}
	p = dlm_alloc(sizeof(*p));
	wrong = dlm_past_decode(c, p);
	if (wrong) {
		dlm_bad_msg(d, from, wrong, 0);
		free(p);
		return;
	}
	d->heard[m - d->view.m] = p;
	agree(d);
}

static void on_end(struct dlm *d, struct cluster_node from)
{
	int i = dlm_part_index(d, from);
	uint64_t all = d->part.n == 64 ? UINT64_MAX : (1ull << d->part.n) - 1;

	if (d->ended & 1ull << i) {
		dlm_bad_msg(d, from, "ends a round twice, state", d->state);
		return;
	}
	d->ended |= 1ull << i;
	if (d->ended == all || (d->cfg.no_barrier && from.nodeid == d->self))
		next_state(d);
}

static void on_list(struct dlm *d, struct cluster_node from, uint8_t type, struct csv_cursor *c)
{
	if (!csv_cur_left(c))
		dlm_bad_msg(d, from, "empty list", type);
	while (csv_cur_left(c)) {
		struct dlm_msg m;
		const char *wrong = dlm_body_decode(c, type, &m);

		if (wrong) {
			dlm_bad_msg(d, from, wrong, type);
			break;
		}
		dlm_rebuild_entry(d, from, &m);
	}
	dlm_rebuild_answers(d);
}

static void on_leave_ack(struct dlm *d, struct cluster_node from)
{
	int i = dlm_part_index(d, from);

	if (!d->leaving || i < 0) {
		d->st.stale_messages++;
		return;
	}
	d->leave_acks |= 1ull << i;
	leave_check(d);
}

/* Of the right state.  Returns with d->state perhaps advanced. */
static void dispatch(struct dlm *d, struct cluster_node from, const struct dlm_header *h, struct csv_cursor *c)
{
	if (h->type == DLM_M_STATE) {
		on_state(d, from, c);
	} else if (h->type < DLM_M_SERVICE_END) {
		struct dlm_msg m;
		const char *wrong = dlm_body_decode(c, h->type, &m);

		if (!wrong && csv_cur_left(c))
			wrong = "longer than its content";
		if (wrong)
			dlm_bad_msg(d, from, wrong, h->type);
		else
			dlm_service(d, from, &m);
	} else if (h->type == DLM_M_END) {
		if (csv_cur_left(c))
			dlm_bad_msg(d, from, "longer than its content", h->type);
		else
			on_end(d, from);
	} else {
		on_list(d, from, h->type, c);
	}
}

static void drain_held(struct dlm *d)
{
	struct dlm_held *h, *tmp;
	enum dlm_state before;

	if (d->draining)
		return;
	d->draining = true;
again:
	before = d->state;
	cds_list_for_each_entry_safe(h, tmp, &d->held, node) {
		struct dlm_header hd;
		struct csv_cursor c;

		if (dlm_header_decode(h->buf, h->len, &c, &hd) || dlm_type_state(hd.type, hd.round) > d->state)
			continue;
		cds_list_del(&h->node);
		if (dlm_part_is(d, h->from))
			dispatch(d, h->from, &hd, &c);
		dlm_held_free(d, h);
		if (d->state != before)
			goto again;
	}
	d->draining = false;
}

void dlm_recover_msg(struct dlm *d, struct cluster_node from, const struct dlm_header *h, struct csv_cursor *c, const void *buf,
		     size_t len)
{
	enum dlm_state needs = dlm_type_state(h->type, h->round), before = d->state;

	if ((!ring_eq(h->ring, d->view.ring) && !d->cfg.old_ring) || d->state == DLM_S_DOWN || d->state == DLM_S_PURGED) {
		d->st.stale_messages++;
		return;
	}
	if (h->type == DLM_M_LEAVING || needs == DLM_S_MAX) {
		dlm_bad_msg(d, from, "type or round that does not come this way", h->type);
		return;
	}
	if (h->type == DLM_M_LEAVE_ACK) {
		on_leave_ack(d, from);
		return;
	}
	if (needs > d->state) {
		dlm_hold(d, &d->held, from, buf, len);
		return;
	}
	if (needs < d->state && !(h->type == DLM_M_ADOPT && d->state == DLM_S_READY)) {
		dlm_bad_msg(d, from, "recovery message after its round, type", h->type);
		return;
	}
	if (d->state != DLM_S_AGREE && !dlm_part_is(d, from)) {
		d->st.stale_messages++;		/* purged: it will hear of it */
		return;
	}
	dispatch(d, from, h, c);
	if (d->state != before)
		drain_held(d);
}

void dlm_surveyed(struct dlm *d, uint64_t ticket, const struct cluster_node *who, uint32_t n)
{
	if (d->state != DLM_S_SURVEY || ticket != d->ticket)
		return;
	for (uint32_t i = 0; i < n; i++)
		if (!dlm_part_is(d, who[i]))
			dlm_lost_set(&d->agreed->lost, who[i], DLM_LOST);
	dlm_agree_gap(d->agreed);
	dlm_rebuild_start(d);
	drain_held(d);
}

/* ---- proofs, leaving -------------------------------------------------------------------------------------------------------------------- */

void dlm_recover_proof(struct dlm *d, struct cluster_node who, enum dlm_proof proof)
{
	dlm_lost_set(&d->past.lost, who, proof);
	if (d->agreed && dlm_lost_find(&d->agreed->lost, who))
		dlm_lost_set(&d->agreed->lost, who, proof);
	dlm_past_prune(&d->past);
	dlm_res_proof(d, who, proof);
}

void dlm_recover_ordered(struct dlm *d, struct cluster_node from, const void *buf, size_t len)
{
	struct dlm_header h;
	struct csv_cursor c;
	const char *wrong = dlm_header_decode(buf, len, &c, &h);
	uint8_t ack[DLM_HEADER_BYTES];

	if (wrong || h.type != DLM_M_LEAVING || csv_cur_left(&c)) {
		dlm_bad_msg(d, from, wrong ? wrong : "ordered message of a type that is not", wrong ? len : h.type);
		return;
	}
	if (from.nodeid == d->self)
		return;				/* proves nothing: it may have reached us alone */
	dlm_recover_proof(d, from, DLM_REPLAYED);
	csv_cursor_init(&c, ack, sizeof(ack));
	dlm_header_encode(&c, DLM_M_LEAVE_ACK, 0, d->view.ring);
	dlm_header_finish(&c);
	dlm_send_raw(d, from.nodeid, ack, sizeof(ack));
}

void dlm_recover_leave(struct dlm *d)
{
	if (d->state == DLM_S_PURGED) {
		leave_finish(d);
		return;
	}
	if (dlm_running(d))
		send_leaving(d);
	leave_check(d);
}
