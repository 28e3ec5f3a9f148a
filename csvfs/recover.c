/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * recover.c - lost nodes: what is known of them, and that all members know the same (csvfs_internal.h).
 *
 * Of each lost life (node, incarnation) there are three facts: LOST, FENCED (with the kind of proof), REPLAYED (with the slot).  They are
 * truths about the world and only ever become true.  Members tell each other all they know in one ordered message:
 *	- at every view that has complete lock tables, so a member that missed the end of the last view learns it (C5); who gives back what
 *	  it has (R11) has none any more, and tells at the view: others that do the same wait for its word,
 *	- whenever a fact becomes true here.
 * The dlm is told on *delivery* in the current view, so all members tell theirs between the same two views; what was delivered before
 * the lock tables were complete is told when they are.  That the sender alone heard its own message does no harm (C6): the fact is
 * true, and what the sender's lock table grants on the strength of it are locks of a life that the others hold as phantoms.
 *
 *	               proof (recover_work.c)             replay
 *	  (unknown) -> LOST ----------------------> FENCED ---------> REPLAYED      who does it: the lowest node id of the view
 *
 * What a membership change does: the facts stay; a worker that is no longer the coordinator's ends and the new coordinator starts its
 * own as RC4 allows.
 *
 * Invariants
 *  RC1 FENCED is set only with one of: the life's own word after its last write (message, or its slot-state block), an agent's
 *      confirmation, its process's witness (R15; what the cluster engine says of a process is none: real_witness.c), another life of
 *      the same node in the present quorate view (csvfsd holds a lock of its node until its last I/O is over).
 *  RC2 REPLAYED only after FENCED and: no slot is ACTIVE for that life, or its log was replayed, flushed, and the slot set FREE durably.
 *  RC4 Nobody writes the homes of a log that another may still be replaying.  A member announces what it is replaying in every view, and
 *      the coordinator starts only after every member has announced in the present one and none claims that log.  A replayer that
 *      is no member any more was lost in the same view as its log's owner or later: all such lives must be FENCED first.  (A lock would
 *      not do: after two losses the lock manager must assume that the owner of the log holds it.)
 *  RC5 Before the first write of a replay the slot names its replayer, durably, until it is FREE.  Who mounts replays before it has a slot
 *      of its own; when it dies at that, and all who met it as well, nothing else tells those who come later that its writes may still be
 *      on their way.  So whoever meets that name in an ACTIVE slot, and not as a member, needs a proof for it, too.
 *  RC6 After a time without quorum who is missing may be on its way: it is fenced the rounds of cluster_may_come_ns() after the view with which this node
 *      came to quorum, and not at all when it comes by then (cluster.h, C9).  Whom a member has seen go from a view is fenced at once; the
 *      member says so with its facts, for the coordinator may have come to quorum only in the ring in which the other one was lost.
 *      Nothing else is earlier or later for it: locks and journal of who is waited for stay closed (RC1, RC2).
 *  RC3 A life that is a member of the present view is never declared to the dlm; its facts wait until it is not.
 */
#include "csvfs/recover_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "utils/base/cursor.h"

#define MSG_MAGIC 0x46535643u		/* "CVSF" */
#define MSG_VERSION 1u
#define MSG_HEAD_BYTES 8u
#define FACT_BYTES 40u
#define FACTS_MAX 256u
enum { FACT_LOST = 1, FACT_FENCED = 2, FACT_REPLAYED = 4, FACT_REPLAYING = 8, FACT_KNOWN = 15 };

struct fact { struct cluster_node who; uint32_t slot; uint8_t flags, kind, went; uint64_t lost_first, lost_last; };

bool rcv_is_member(const struct recover *r, struct cluster_node who)
{
	const struct cluster_view *v = cluster_current(r->fs->env->cluster);
	const struct cluster_node *m = v ? cluster_view_find(v, who.nodeid) : NULL;

	return m && m->incarnation == who.incarnation;
}

bool rcv_is_coordinator(const struct recover *r)
{
	const struct cluster_view *v = cluster_current(r->fs->env->cluster);

	return r->view_ok && v && v->n && v->m[0].nodeid == r->fs->self.nodeid;
}

bool recover_view_ok(const struct csvfs *fs)
{
	return fs->rcv->view_ok;
}

bool recover_is_pending(const struct csvfs *fs)
{
	const struct rcv_node *n;

	cds_list_for_each_entry(n, &fs->rcv->nodes, node) {
		if (n->lost && !n->replayed)
			return true;
	}
	return !fs->rcv->view_ok;
}

/* Has every member of the present view told what it knows? */
static bool heard_all(const struct recover *r)
{
	const struct cluster_view *v = cluster_current(r->fs->env->cluster);

	for (uint32_t i = 0; v && i < v->n; i++) {
		if (!r->heard[i] && v->m[i].nodeid != r->fs->self.nodeid)
			return false;
	}
	return v;
}

bool recover_unfenced(struct csvfs *fs, uint64_t end_ns)
{
	struct recover *r = fs->rcv;

	while (!r->self_fenced && !heard_all(r) && fs_now_ns(fs) < end_ns)
		sched_wait_until(fs->env->sched, &fs->state_wq, end_ns, false);
	return !r->self_fenced && heard_all(r);
}

/* ---- facts ------------------------------------------------------------------------------------------------------------------- */

static void forget_old(struct recover *r)
{
	struct rcv_node *n, *next;
	unsigned done = 0;

	cds_list_for_each_entry(n, &r->nodes, node)
		done += n->replayed;
	cds_list_for_each_entry_safe(n, next, &r->nodes, node) {
		if (done <= RCV_KEEP_DONE)
			break;
		if (!n->replayed || n->worker)
			continue;
		cds_list_del(&n->node);
		free(n);
		done--;
	}
}

static struct rcv_node *rcv_find(const struct recover *r, struct cluster_node who)
{
	struct rcv_node *n;

	cds_list_for_each_entry(n, &r->nodes, node) {
		if (n->who.nodeid == who.nodeid && n->who.incarnation == who.incarnation)
			return n;
	}
	return NULL;
}

struct rcv_node *rcv_get(struct recover *r, struct cluster_node who)
{
	struct rcv_node *n = rcv_find(r, who);

	if (n)
		return n;
	forget_old(r);
	n = calloc(1, sizeof(*n));
	if (!n) {
		fs_log(r->fs, LOG_L_ERR, "out of memory while node %u is being recovered", who.nodeid);
		return NULL;
	}
	n->rcv = r;
	n->who = who;
	n->slot = CSV_NO_SLOT;
	n->info.who = who;
	n->info.slot = CSV_NO_SLOT;
	waitq_init(&n->wq);
	cds_list_add_tail(&n->node, &r->nodes);
	return n;
}

bool rcv_was_met(const struct recover *r, struct cluster_node who)
{
	for (uint32_t i = 0; i < r->n_met; i++)
		if (r->met[i].nodeid == who.nodeid && r->met[i].incarnation == who.incarnation)
			return true;
	return false;
}

static void set_lost(struct rcv_node *n, uint64_t first, uint64_t last)
{
	if (!n->lost)
		n->info.lost_ns = fs_now_ns(n->rcv->fs);
	if (!n->lost && !n->fenced && !n->found_ns && !rcv_was_met(n->rcv, n->who))
		n->found_ns = fs_now_ns(n->rcv->fs);	/* SV3 */
	n->lost_first = n->lost ? csv_min(n->lost_first, first) : first;
	n->lost_last = n->lost ? csv_max(n->lost_last, last) : last;
	n->lost = true;
}

static void log_lost(const struct rcv_node *n)
{
	if (!n->lost)
		fs_log(n->rcv->fs, LOG_L_NOTE, "node %u is lost%s%s", n->who.nodeid, n->fenced ? ", proven gone: " : "",
		       n->fenced ? slot_proof_name(n->kind) : "");
}

void rcv_set_lost(struct rcv_node *n)
{
	if (!n->lost)
		set_lost(n, n->rcv->view_seq, n->rcv->view_seq);
}

void rcv_set_fenced(struct rcv_node *n, enum csv_proof kind)
{
	if (n->fenced)
		return;
	n->fenced = n->info.fenced = true;
	n->kind = n->info.proof = kind;
	n->info.fenced_ns = fs_now_ns(n->rcv->fs);
	n->info.why[0] = 0;
}

void rcv_set_replayed(struct rcv_node *n, uint32_t slot)
{
	if (n->replayed)
		return;
	n->replayed = n->info.replayed = true;
	n->slot = n->info.slot = slot;
	n->info.replayed_ns = fs_now_ns(n->rcv->fs);
	n->info.why[0] = 0;
}

bool rcv_may_replay(const struct rcv_node *n)
{
	const struct recover *r = n->rcv;
	const struct rcv_node *o;

	if (!rcv_is_coordinator(r) || n->claimed_by)
		return false;
	if (!heard_all(r))
		return false;
	if (r->fs->mutate & CSV_MUT_REPLAY_BEFORE_FENCE)
		return true;
	cds_list_for_each_entry(o, &r->nodes, node) {
		if (o->lost && !o->fenced && o->lost_last >= n->lost_first)
			return false;		/* n itself among them */
	}
	return true;
}

/* ---- telling the dlm ------------------------------------------------------------------------------------------------------------ */

static void tell(struct rcv_node *n)
{
	struct recover *r = n->rcv;

	if (!r->view_ok || rcv_is_member(r, n->who))
		return;					/* RC3 */
	if (n->heard_fenced && !n->told_fenced) {
		n->told_fenced = true;
		dlm_fence_confirmed(r->fs->dlm, n->who);
	}
	if (n->heard_replayed && !n->told_replayed) {
		n->told_replayed = true;
		dlm_replayed(r->fs->dlm, n->who);
		/* Its open handles are gone: what it kept alive may be freed now (R8). */
		if (r->fs->state == CSVFS_ACTIVE) {
			orphan_scan_later(r->fs, r->fs->slot);
			if (rcv_is_coordinator(r) && n->slot != CSV_NO_SLOT)
				orphan_scan_later(r->fs, n->slot);
		}
	}
}

/* ---- messages --------------------------------------------------------------------------------------------------------------------- */

static void put_fact(struct csv_cursor *c, const struct fact *f)
{
	csv_put_u32(c, f->who.nodeid);
	csv_put_u32(c, f->slot);
	csv_put_u64(c, f->who.incarnation);
	csv_put_u8(c, f->flags);
	csv_put_u8(c, f->kind);
	csv_put_u8(c, f->went);		/* 1: its sender has seen it go (RC6) */
	csv_put_zero(c, 5);
	csv_put_u64(c, f->lost_first);
	csv_put_u64(c, f->lost_last);
}

static bool get_fact(struct recover *r, struct csv_cursor *c, struct fact *ret)
{
	struct fact f;

	f.who.nodeid = csv_cur_u32(c);
	f.slot = csv_cur_u32(c);
	f.who.incarnation = csv_cur_u64(c);
	f.flags = csv_cur_u8(c);
	f.kind = csv_cur_u8(c);
	f.went = csv_cur_u8(c);
	csv_cur_skip(c, 5);
	f.lost_first = csv_cur_u64(c);
	f.lost_last = csv_cur_u64(c);
	if (csv_cur_error(c) || !f.who.nodeid || !f.who.incarnation || !f.flags || (f.flags & ~FACT_KNOWN) || f.kind > CSV_PROOF_WITHDRAW || f.went > 1 ||
	    (f.slot != CSV_NO_SLOT && f.slot >= r->fs->geo.slots) || f.lost_first > f.lost_last)
		return false;
	if ((f.flags & FACT_REPLAYED) && !(f.flags & FACT_FENCED) && !(r->fs->mutate & CSV_MUT_REPLAY_BEFORE_FENCE))
		return false;
	*ret = f;
	return true;
}

void rcv_announce(struct recover *r)
{
	uint8_t buf[MSG_HEAD_BYTES + FACTS_MAX * FACT_BYTES];
	struct csv_cursor c;
	struct rcv_node *n;
	unsigned count = 0;
	int ret;

	csv_cursor_init(&c, buf, sizeof(buf));
	csv_cur_skip(&c, MSG_HEAD_BYTES);
	if (r->gone_said) {
		put_fact(&c, &(struct fact){ .who = r->fs->self, .slot = CSV_NO_SLOT, .flags = FACT_FENCED, .kind = r->gone_kind });
		count++;
	}
	cds_list_for_each_entry(n, &r->nodes, node) {
		struct fact f = { .who = n->who, .slot = n->slot, .kind = n->kind, .lost_first = n->lost_first, .lost_last = n->lost_last,
				  .went = n->lost && cluster_has_seen(r->fs->env->cluster, n->who.nodeid) };

		f.flags = (n->lost ? FACT_LOST : 0) | (n->fenced ? FACT_FENCED : 0) | (n->replayed ? FACT_REPLAYED : 0) |
			  (n->replaying ? FACT_REPLAYING : 0);
		if (!f.flags || count == FACTS_MAX)
			continue;
		put_fact(&c, &f);
		count++;
	}
	csv_cursor_init(&c, buf, MSG_HEAD_BYTES);
	csv_put_u32(&c, MSG_MAGIC);
	csv_put_u16(&c, MSG_VERSION);
	csv_put_u16(&c, (uint16_t)count);
	ret = cluster_send(r->fs->env->cluster, CHAN_FS, buf, MSG_HEAD_BYTES + count * FACT_BYTES);
	if (ret < 0 && ret != -ENOTCONN)	/* without a view: said again at the next */
		fs_log(r->fs, LOG_L_WARN, "announcing recoveries: %s", csv_err_describe(ret));
}

void recover_announce(struct csvfs *fs)
{
	rcv_announce(fs->rcv);
}

static void heard_of_self(struct recover *r, struct cluster_node from, unsigned flags, enum csv_proof kind)
{
	struct csvfs *fs = r->fs;

	if (from.nodeid == fs->self.nodeid) {
		r->gone_heard |= r->gone_said && (flags & FACT_FENCED);
		sched_wake_all(fs->env->sched, &fs->state_wq);
		return;
	}
	if (flags & FACT_FENCED) {
		r->self_fenced = true;
		blk_gate_close(fs->env->blk);	/* also in the middle of a healed minority's write back */
		sched_wake_all(fs->env->sched, &fs->state_wq);
	}
	if (r->gone_said)
		return;
	if (flags & FACT_FENCED)
		fs_withdraw(fs, "node %u says that this node has been cut off (proof: %s); unmount and mount again", from.nodeid,
			    slot_proof_name(kind));
	else if (flags & FACT_LOST)
		fs_purged(fs);
}

static void heard(struct recover *r, struct cluster_node from, const struct fact *f)
{
	struct rcv_node *n;

	if (f->who.nodeid == r->fs->self.nodeid && f->who.incarnation == r->fs->self.incarnation) {
		heard_of_self(r, from, f->flags, f->kind);
		return;
	}
	n = rcv_get(r, f->who);
	if (!n)
		return;
	if (f->flags & FACT_LOST && !(f->flags & FACT_REPLAYED))
		log_lost(n);		/* another member's word may be here before our own lock manager's */
	if (f->flags & FACT_LOST)
		set_lost(n, f->lost_first, f->lost_last);
	n->went |= f->went;
	if (f->flags & FACT_FENCED) {
		rcv_set_fenced(n, f->kind);
		n->heard_fenced = true;
	}
	if (f->flags & FACT_REPLAYED) {
		rcv_set_replayed(n, f->slot);
		n->heard_replayed = true;
	}
	if ((f->flags & FACT_REPLAYING) && from.nodeid != r->fs->self.nodeid)
		n->claimed_by = from.nodeid;
	tell(n);
}

/* A member's message is all it knows: what it does not claim any more it does not do any more. */
static void heard_from(struct recover *r, struct cluster_node from)
{
	const struct cluster_view *v = cluster_current(r->fs->env->cluster);
	struct rcv_node *n;

	for (uint32_t i = 0; v && i < v->n; i++) {
		if (v->m[i].nodeid == from.nodeid)
			r->heard[i] = true;
	}
	cds_list_for_each_entry(n, &r->nodes, node) {
		if (n->claimed_by == from.nodeid)
			n->claimed_by = 0;
	}
}

static void on_msg(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct recover *r = arg;
	struct csv_cursor c;
	struct fact f;
	uint32_t magic;
	uint16_t version, count;

	csv_cursor_init_ro(&c, buf, len);
	magic = csv_cur_u32(&c);
	version = csv_cur_u16(&c);
	count = csv_cur_u16(&c);
	if (csv_cur_error(&c) || magic != MSG_MAGIC || version != MSG_VERSION || count > FACTS_MAX ||
	    len != MSG_HEAD_BYTES + (size_t)count * FACT_BYTES)
		goto bad;
	for (unsigned i = 0; i < count; i++) {		/* checked whole before anything of it counts */
		if (!get_fact(r, &c, &f))
			goto bad;
	}
	heard_from(r, from);
	csv_cursor_init_ro(&c, buf, len);
	csv_cur_skip(&c, MSG_HEAD_BYTES);
	for (unsigned i = 0; i < count && get_fact(r, &c, &f); i++)
		heard(r, from, &f);
	rcv_kick(r);
	sched_wake_all(r->fs->env->sched, &r->fs->state_wq);
	return;
bad:
	if (!r->bad_messages++)
		fs_log(r->fs, LOG_L_WARN, "message of node %u about recoveries is malformed (%zu bytes): ignored", from.nodeid, len);
}

int recover_announce_gone(struct csvfs *fs, enum csv_proof kind, uint32_t ms)
{
	struct recover *r = fs->rcv;
	uint64_t end = fs_now_ns(fs) + ms * NS_PER_MS;

	r->gone_said = true;
	r->gone_kind = kind;
	r->gone_heard = false;
	rcv_announce(r);
	while (!r->gone_heard && fs_now_ns(fs) < end)
		sched_wait_until(fs->env->sched, &fs->state_wq, end, false);
	return r->gone_heard ? 0 : -ETIMEDOUT;
}

/* ---- views --------------------------------------------------------------------------------------------------------------------------- */

static void on_suspend(void *arg)
{
	struct recover *r = arg;
	struct rcv_node *n;

	r->view_ok = false;
	memset(r->heard, 0, sizeof(r->heard));
	cds_list_for_each_entry(n, &r->nodes, node) {
		n->heard_fenced = n->heard_replayed = n->told_fenced = n->told_replayed = n->went = false;
		n->claimed_by = 0;
	}
	if (r->fs->state == CSVFS_ACTIVE)
		fs_set_state(r->fs, CSVFS_PAUSED, "the members of the cluster are being agreed on; new locks wait");
	rcv_kick(r);
}

static void meet(struct recover *r, struct cluster_node who)
{
	uint32_t i = 0;

	while (i < r->n_met && r->met[i].nodeid != who.nodeid)
		i++;
	if (i == CLUSTER_NODES_MAX)
		return;			/* more nodes than a cluster has, over time: asked to wait, no more */
	r->met[i] = who;
	r->n_met = csv_max(r->n_met, i + 1);
}

static void on_view(void *arg, const struct cluster_view *v)
{
	struct recover *r = arg;

	r->view_seq = v->ring.seq;
	for (uint32_t i = 0; i < v->n; i++)
		meet(r, v->m[i]);
	if (r->fs->healing)
		rcv_announce(r);
}

static void on_procdown(void *arg, struct cluster_node who)
{
	struct recover *r = arg;
	struct rcv_node *n = rcv_get(r, who);

	if (!n)
		return;
	if (!n->fenced)
		fs_log(r->fs, LOG_L_NOTE, "node %u: its process is gone, its I/O with it", who.nodeid);
	rcv_set_fenced(n, CSV_PROOF_PROCESS);
	rcv_announce(r);		/* without a view: at the next */
	rcv_kick(r);
}

static void on_ended(void *arg, struct cluster_node who)
{
	struct recover *r = arg;
	struct rcv_node *n = rcv_get(r, who);

	if (!n)
		return;
	n->ended_ns = fs_now_ns(r->fs);
	fs_log(r->fs, LOG_L_NOTE, "node %u: its process ended, or its corosync is being stopped", who.nodeid);
}

static void on_cluster_lost(void *arg, int err)
{
	struct recover *r = arg;

	if (err == -EPROTONOSUPPORT)
		fs_withdraw(r->fs, "%s", cluster_refusal(r->fs->env->cluster));
	else
		fs_withdraw(r->fs, "the cluster engine is gone (%s); start corosync, then unmount and mount again", csv_err_describe(err));
}

static void on_cluster_refused(void *arg, const char *why)
{
	struct recover *r = arg;

	fs_log(r->fs, LOG_L_WARN, "volume %s: %s", r->fs->geo.label, why);
}

static void on_dlm_lost(void *arg, const struct cluster_node *who, uint32_t count)
{
	struct recover *r = arg;

	for (uint32_t i = 0; i < count; i++) {
		struct rcv_node *n = rcv_get(r, who[i]);

		if (!n)
			continue;
		log_lost(n);
		rcv_set_lost(n);
	}
}

static void on_dlm_purged(void *arg)
{
	struct recover *r = arg;

	fs_purged(r->fs);
}

static void on_dlm_survey(void *arg, uint64_t ticket)
{
	rcv_survey(arg, ticket);
}

static void on_dlm_recovered(void *arg, const struct cluster_view *v)
{
	struct recover *r = arg;
	struct rcv_node *n;

	(void)v;
	r->view_ok = true;
	cds_list_for_each_entry(n, &r->nodes, node)
		tell(n);
	rcv_announce(r);
	if (r->fs->state == CSVFS_PAUSED)
		fs_set_state(r->fs, CSVFS_ACTIVE, "mounted");
	sched_wake_all(r->fs->env->sched, &r->fs->state_wq);
	rcv_kick(r);
}

void csvfs_recovery_walk(struct csvfs *fs, bool (*fn)(void *arg, const struct csvfs_recovery_info *i), void *arg)
{
	struct rcv_node *n;

	cds_list_for_each_entry(n, &fs->rcv->nodes, node) {
		if (n->lost && !fn(arg, &n->info))
			return;
	}
}

const struct dlm_events *recover_dlm_events(struct csvfs *fs)
{
	return &fs->rcv->dlm_events;
}

int recover_init(struct csvfs *fs)
{
	struct recover *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->fs = fs;
	CDS_INIT_LIST_HEAD(&r->nodes);
	r->user = (struct cluster_user){ .suspend = on_suspend, .view = on_view, .msg = on_msg, .procdown = on_procdown, .ended = on_ended,
					  .lost = on_cluster_lost, .refused = on_cluster_refused, .arg = r };
	r->dlm_events = (struct dlm_events){ .recovered = on_dlm_recovered, .lost = on_dlm_lost, .purged = on_dlm_purged, .survey = on_dlm_survey, .arg = r };
	fs->rcv = r;
	return 0;
}

void recover_register(struct csvfs *fs)
{
	cluster_register(fs->env->cluster, CHAN_FS, &fs->rcv->user);
}

void recover_free(struct csvfs *fs)
{
	struct recover *r = fs->rcv;
	struct rcv_node *n, *next;

	if (!r)
		return;
	cds_list_for_each_entry_safe(n, next, &r->nodes, node) {
		free(n->fencing);
		free(n);
	}
	free(r);
	fs->rcv = NULL;
}
