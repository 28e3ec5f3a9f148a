/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * recover.c - lost nodes: what is known of them, and that all members know the same (csvfs_internal.h).
 *
 * Of each lost life (node, incarnation) there are three facts: LOST, FENCED (with the kind of proof), REPLAYED (with the slot).  They are
 * truths about the world and only ever become true.  Members tell each other all they know in one ordered message:
 *	- at every view that has complete lock tables, so a member that missed the end of the last view learns it (C5),
 *	- whenever a fact becomes true here.
 * The dlm is told on *delivery* in the current view, so all members tell theirs between the same two views; what was delivered before
 * the lock tables were complete is told when they are.  That the sender alone heard its own message does no harm (C6): the fact is
 * true, and what the sender's lock table grants on the strength of it are locks of a life that the others hold as phantoms.
 *
 *	               proof (recover_work.c)             replay
 *	  (unknown) -> LOST ----------------------> FENCED ---------> REPLAYED      who does it: the lowest node id of the view
 *
 * What a membership change does: the facts stay; a worker that is no longer the coordinator's ends and the new coordinator starts its
 * own; `replay s` EX keeps two from replaying one log at the same time, also when the first died in the middle (its phantom stands until
 * it is fenced and replayed itself).
 *
 * Invariants
 *  RC1 FENCED is set only with one of: the life's own word after its last write (message, or its slot-state block), an agent's
 *      confirmation, its process gone from a living node (R15), another life of the same node in the present quorate view (csvfsd holds
 *      a lock of its node while it lives).
 *  RC2 REPLAYED only after FENCED and: no slot is ACTIVE for that life, or its log was replayed, flushed, and the slot set FREE durably.
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
#define FACT_BYTES 24u
#define FACTS_MAX 256u
enum { FACT_LOST = 1, FACT_FENCED = 2, FACT_REPLAYED = 4, FACT_KNOWN = 7 };

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

void rcv_set_lost(struct rcv_node *n)
{
	if (n->lost)
		return;
	n->lost = true;
	n->info.lost_ns = fs_now_ns(n->rcv->fs);
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

static void put_fact(struct csv_cursor *c, struct cluster_node who, uint32_t slot, unsigned flags, enum csv_proof kind)
{
	csv_put_u32(c, who.nodeid);
	csv_put_u32(c, slot);
	csv_put_u64(c, who.incarnation);
	csv_put_u8(c, (uint8_t)flags);
	csv_put_u8(c, (uint8_t)kind);
	csv_put_zero(c, 6);
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
		put_fact(&c, r->fs->self, CSV_NO_SLOT, FACT_FENCED, r->gone_kind);
		count++;
	}
	cds_list_for_each_entry(n, &r->nodes, node) {
		unsigned flags = (n->lost ? FACT_LOST : 0) | (n->fenced ? FACT_FENCED : 0) | (n->replayed ? FACT_REPLAYED : 0);

		if (!flags || count == FACTS_MAX)
			continue;
		put_fact(&c, n->who, n->slot, flags, n->kind);
		count++;
	}
	if (!count)
		return;
	csv_cursor_init(&c, buf, MSG_HEAD_BYTES);
	csv_put_u32(&c, MSG_MAGIC);
	csv_put_u16(&c, MSG_VERSION);
	csv_put_u16(&c, (uint16_t)count);
	ret = cluster_send(r->fs->env->cluster, CHAN_FS, buf, MSG_HEAD_BYTES + count * FACT_BYTES);
	if (ret < 0 && ret != -ENOTCONN)	/* without a view: said again at the next */
		fs_log(r->fs, LOG_L_WARN, "announcing recoveries: %s", csv_err_describe(ret));
}

static void heard_of_self(struct recover *r, struct cluster_node from, unsigned flags, enum csv_proof kind)
{
	struct csvfs *fs = r->fs;

	if (from.nodeid == fs->self.nodeid) {
		r->gone_heard |= r->gone_said && (flags & FACT_FENCED);
		sched_wake_all(fs->env->sched, &fs->state_wq);
		return;
	}
	if (r->gone_said)
		return;
	if (flags & FACT_FENCED)
		fs_withdraw(fs, "node %u says that this node has been cut off (proof: %s); unmount and mount again", from.nodeid,
			    slot_proof_name(kind));
	else if (flags & FACT_LOST)
		fs_purged(fs);
}

static void heard(struct recover *r, struct cluster_node from, struct cluster_node who, uint32_t slot, unsigned flags, enum csv_proof kind)
{
	struct rcv_node *n;

	if (who.nodeid == r->fs->self.nodeid && who.incarnation == r->fs->self.incarnation) {
		heard_of_self(r, from, flags, kind);
		return;
	}
	n = rcv_get(r, who);
	if (!n)
		return;
	if (flags & FACT_LOST)
		rcv_set_lost(n);
	if (flags & FACT_FENCED) {
		rcv_set_fenced(n, kind);
		n->heard_fenced = true;
	}
	if (flags & FACT_REPLAYED) {
		rcv_set_replayed(n, slot);
		n->heard_replayed = true;
	}
	tell(n);
}

static void on_msg(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct recover *r = arg;
	struct csv_cursor c;
	uint32_t magic;
	uint16_t version, count;

	csv_cursor_init_ro(&c, buf, len);
	magic = csv_cur_u32(&c);
	version = csv_cur_u16(&c);
	count = csv_cur_u16(&c);
	if (csv_cur_error(&c) || magic != MSG_MAGIC || version != MSG_VERSION || count > FACTS_MAX ||
	    len != MSG_HEAD_BYTES + (size_t)count * FACT_BYTES)
		goto bad;
	for (int pass = 0; pass < 2; pass++) {		/* checked whole before anything of it counts */
		csv_cursor_init_ro(&c, buf, len);
		csv_cur_skip(&c, MSG_HEAD_BYTES);
		for (unsigned i = 0; i < count; i++) {
			struct cluster_node who;
			uint32_t slot;
			uint8_t flags, kind;

			who.nodeid = csv_cur_u32(&c);
			slot = csv_cur_u32(&c);
			who.incarnation = csv_cur_u64(&c);
			flags = csv_cur_u8(&c);
			kind = csv_cur_u8(&c);
			csv_cur_skip(&c, 6);
			if (!who.nodeid || !who.incarnation || (flags & ~FACT_KNOWN) || !flags || kind >= CSV_PROOF_KINDS ||
			    (slot != CSV_NO_SLOT && slot >= r->fs->geo.slots) || ((flags & FACT_REPLAYED) && !(flags & FACT_FENCED)))
				goto bad;
			if (pass)
				heard(r, from, who, slot, flags, kind);
		}
	}
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
	cds_list_for_each_entry(n, &r->nodes, node)
		n->heard_fenced = n->heard_replayed = n->told_fenced = n->told_replayed = false;
	if (r->fs->state == CSVFS_ACTIVE)
		fs_set_state(r->fs, CSVFS_PAUSED, "the members of the cluster are being agreed on; new locks wait");
	rcv_kick(r);
}

static void on_procdown(void *arg, struct cluster_node who)
{
	struct recover *r = arg;
	struct rcv_node *n = rcv_get(r, who);

	if (!n)
		return;
	rcv_set_fenced(n, CSV_PROOF_PROCESS);	/* said to all at the next view */
	fs_log(r->fs, LOG_L_NOTE, "node %u: its process is gone, its I/O with it", who.nodeid);
	rcv_kick(r);
}

static void on_cluster_lost(void *arg, int err)
{
	struct recover *r = arg;

	fs_withdraw(r->fs, "the cluster engine is gone (%s); start corosync, then unmount and mount again", csv_err_describe(err));
}

static void on_dlm_lost(void *arg, const struct cluster_node *who, uint32_t count)
{
	struct recover *r = arg;

	for (uint32_t i = 0; i < count; i++) {
		struct rcv_node *n = rcv_get(r, who[i]);

		if (!n)
			continue;
		if (!n->lost)
			fs_log(r->fs, LOG_L_NOTE, "node %u is lost%s%s", who[i].nodeid, n->fenced ? ", proven gone: " : "",
			       n->fenced ? slot_proof_name(n->kind) : "");
		rcv_set_lost(n);
	}
}

static void on_dlm_purged(void *arg)
{
	struct recover *r = arg;

	fs_purged(r->fs);
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
	r->user = (struct cluster_user){ .suspend = on_suspend, .msg = on_msg, .procdown = on_procdown, .lost = on_cluster_lost, .arg = r };
	r->dlm_events = (struct dlm_events){ .recovered = on_dlm_recovered, .lost = on_dlm_lost, .purged = on_dlm_purged, .arg = r };
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
	cds_list_for_each_entry_safe(n, next, &r->nodes, node)
		free(n);
	free(r);
	fs->rcv = NULL;
}
