/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * recover_work.c - the coordinator's work for one lost life: proof, replay; and what a mount waits for (recover.c).
 *
 * One coroutine a lost life, so a fence that takes long (or never succeeds) delays no other.  Time-line of a power cut:
 *
 *	0		the view without the node; the dlm installs phantoms, `lost`
 *	+ agent		FENCED is said; phantoms below PW fall everywhere
 *	+ replay	log read, blocks home, FLUSH -> slot FREE + FLUSH -> REPLAYED is said; all phantoms fall
 *	then		orphans in the background
 */
#include "csvfs/recover_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MOUNT_WAIT_MS 180000u

static bool worker_goes_on(const struct rcv_node *n)
{
	const struct recover *r = n->rcv;

	return !n->replayed && !r->fs->stopping && r->fs->state != CSVFS_WITHDRAWN && rcv_is_coordinator(r) && !rcv_is_member(r, n->who);
}

/* Sleeps; returns early when a fact became true or the view changed. */
static void worker_sleep(struct rcv_node *n, uint32_t ms)
{
	struct csvfs *fs = n->rcv->fs;
	uint64_t end = fs_now_ns(fs) + ms * NS_PER_MS, view = n->rcv->view_seq;
	bool fenced = n->fenced, went = n->went;

	while (worker_goes_on(n) && n->fenced == fenced && n->went == went && n->rcv->view_seq == view && fs_now_ns(fs) < end)
		sched_wait_until(fs->env->sched, &n->wq, end, false);
}

static void why(struct rcv_node *n, const char *fmt, ...) csv_printf_like(2, 3);
static void why(struct rcv_node *n, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(n->info.why, sizeof(n->info.why), fmt, ap);
	va_end(ap);
}

/* ---- proof ---------------------------------------------------------------------------------------------------------------------- */

struct fencing {
	struct fence_req req;
	struct rcv_node *n;		/* NULL: nobody waits for it any more */
	bool done;
};

static void fence_done(struct fence_req *req)
{
	struct fencing *f = container_of(req, struct fencing, req);

	f->done = true;
	if (!f->n)
		free(f);
	else
		sched_wake_all(f->n->rcv->fs->env->sched, &f->n->wq);
}

/* 0 confirmed; -EINTR no longer ours to do; else the agent's answer, told to people. */
static int fence(struct rcv_node *n)
{
	struct csvfs *fs = n->rcv->fs;
	struct fencing *f;
	int ret;

	if (!fs->env->fence) {
		why(n, "node %u: no fence agent is configured; make sure that it is off, then: csvctl node confirm-fenced %u", n->who.nodeid,
		    n->who.nodeid);
		fs_log(fs, LOG_L_ERR, "%s", n->info.why);
		return -EOPNOTSUPP;
	}
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->req.node = n->who;
	f->req.done = fence_done;
	f->n = n;
	n->fencing = f;
	why(n, "node %u: fencing is under way", n->who.nodeid);
	fs->env->fence->ops->submit(fs->env->fence, &f->req);
	/* Not given up when another takes the coordination over: a confirmation is true all the same. */
	while (!f->done && !n->fenced && !fs->stopping && fs->state != CSVFS_WITHDRAWN)
		sched_wait(fs->env->sched, &n->wq);
	n->fencing = NULL;
	if (!f->done) {
		f->n = NULL;		/* fence_done() frees it */
		return -EINTR;
	}
	ret = f->req.result;
	if (ret < 0) {
		why(n, "node %u could not be fenced: %s; what it held stays locked; make sure that it is off, then: csvctl node confirm-fenced %u",
		    n->who.nodeid, f->req.err.text[0] ? f->req.err.text : csv_err_describe(ret), n->who.nodeid);
		fs_log(fs, LOG_L_ERR, "%s", n->info.why);
	}
	free(f);
	return ret < 0 ? -EIO : 0;	/* whatever the agent's code: not proven */
}

/* The slot that is ACTIVE for this life, or one whose block holds this life's own word that it is gone. */
static int find_slot(struct rcv_node *n, uint32_t *ret_slot, bool *ret_released, struct csv_err *err)
{
	struct csvfs *fs = n->rcv->fs;

	*ret_slot = CSV_NO_SLOT;
	*ret_released = false;
	for (uint32_t i = 0; i < fs->geo.slots; i++) {
		struct csv_slot_info s;
		int ret = slot_read(fs, i, &s, err);

		if (ret < 0)
			return ret;	/* unknown is neither ACTIVE nor FREE */
		if (s.state == CSV_SLOT_ACTIVE && s.nodeid == n->who.nodeid && s.incarnation == n->who.incarnation)
			*ret_slot = i;
		if (s.state == CSV_SLOT_FREE && s.proof_kind == CSV_PROOF_RELEASE && s.proof_nodeid == n->who.nodeid &&
		    s.proof_incarnation == n->who.incarnation)
			*ret_released = true;
	}
	return 0;
}

/* A process that died on a living node has a witness there: fencing the node for it would be much. */
static void hear_witness(struct rcv_node *n)
{
	uint64_t now = fs_now_ns(n->rcv->fs), end = n->ended_ns + RCV_WITNESS_MS * NS_PER_MS;

	while (n->ended_ns && !n->fenced && worker_goes_on(n) && now < end) {
		worker_sleep(n, (uint32_t)((end - now + NS_PER_MS - 1) / NS_PER_MS));
		now = fs_now_ns(n->rcv->fs);
	}
}

/* Until when it may come by itself: SV3 (survey.c), RC6. */
static uint64_t may_come_ns(const struct rcv_node *n)
{
	uint64_t late = 0;

	if (n->went)
		return 0;
	if (!(n->rcv->fs->mutate & CSV_MUT_FENCE_HASTY))
		late = cluster_may_come_ns(n->rcv->fs->env->cluster, n->who.nodeid);
	return csv_max(late, n->found_ns ? n->found_ns + RCV_JOIN_WAIT_MS * NS_PER_MS : 0);
}

static void wait_for_return(struct rcv_node *n)
{
	struct csvfs *fs = n->rcv->fs;
	uint64_t now = fs_now_ns(fs);		/* looked at once a round: it goes on between two looks */
	bool said = false;

	for (; !n->fenced && worker_goes_on(n) && now < may_come_ns(n); now = fs_now_ns(fs)) {
		const struct cluster_view *v = cluster_current(fs->env->cluster);
		uint32_t ms = (uint32_t)((may_come_ns(n) - now + NS_PER_MS - 1) / NS_PER_MS);

		if (v && cluster_view_find(v, n->who.nodeid))
			break;
		why(n, "node %u is not here since this node has quorum: it may be on its way, and is given time to come before it is fenced", n->who.nodeid);
		if (!said && !n->found_ns)
			fs_log(fs, LOG_L_NOTE, "node %u: missing after a time without quorum, perhaps on its way: given %u ms to come before it is fenced",
			       n->who.nodeid, ms);
		said = true;
		worker_sleep(n, ms);
	}
}

static int prove(struct rcv_node *n)
{
	struct recover *r = n->rcv;
	struct csvfs *fs = r->fs;
	const struct cluster_view *v = cluster_current(fs->env->cluster);
	struct csv_err err = CSV_ERR_INIT;
	enum csv_proof kind;
	uint32_t slot;
	bool released;
	int ret;

	if (v && cluster_view_find(v, n->who.nodeid)) {
		kind = CSV_PROOF_REJOIN;	/* not this life: worker_goes_on() */
	} else {
		ret = find_slot(n, &slot, &released, &err);
		if (ret < 0)
			fs_log(fs, LOG_L_ERR, "%s", err.text);
		if (!ret && released) {
			kind = CSV_PROOF_RELEASE;
		} else {
			hear_witness(n);
			wait_for_return(n);
			if (n->fenced)
				return 0;
			v = cluster_current(fs->env->cluster);
			if (!worker_goes_on(n) || (v && cluster_view_find(v, n->who.nodeid)))
				return -EINTR;	/* begun anew; with the proof of a new life, if there is one */
			ret = fence(n);
			if (ret < 0)
				return ret;
			kind = CSV_PROOF_AGENT;
		}
	}
	rcv_set_fenced(n, kind);
	fs_log(fs, LOG_L_NOTE, "node %u: proven gone (%s) %" PRIu64 " ms after it was lost", n->who.nodeid, slot_proof_name(n->kind),
	       (uint64_t)((n->info.fenced_ns - n->info.lost_ns) / NS_PER_MS));
	rcv_announce(r);
	return 0;
}

/* ---- a person's word ----------------------------------------------------------------------------------------------------------------- */

#define CONFIRM_VIEW_MS 5000u
#define CONFIRM_WATCH_MS 2000u		/* four heartbeats */

static int hbeat_counter(struct csvfs *fs, uint32_t slot, uint64_t *ret, struct csv_err *err)
{
	void *block = blk_alloc(CSV_BLOCK_SIZE);
	struct csv_hbeat_info hb;
	int rc = -ENOMEM;

	if (block)
		rc = blk_read(fs->env->blk, csv_hbeat_blk(&fs->geo, slot) << CSV_BLOCK_SHIFT, block, CSV_BLOCK_SIZE);
	if (rc < 0)
		csv_err_set(err, rc, "heartbeat of slot %u: read: %s", slot, csv_err_describe(rc));
	else
		rc = csv_hbeat_decode(&fs->geo, slot, block, &hb, err);
	if (!rc)
		*ret = hb.counter;
	free(block);
	return rc;
}

static int confirm_one(struct rcv_node *n, struct csv_err *err)
{
	struct csvfs *fs = n->rcv->fs;
	uint64_t before = 0, after = 0;
	uint32_t slot;
	bool released;
	int rc = find_slot(n, &slot, &released, err);

	if (!rc && slot != CSV_NO_SLOT) {
		rc = hbeat_counter(fs, slot, &before, err);
		if (!rc && !fs_sleep_ms(fs, CONFIRM_WATCH_MS))
			rc = csv_err_set(err, -CSV_E_WITHDRAWN, "the volume is being given up here");
		if (!rc)
			rc = hbeat_counter(fs, slot, &after, err);
		if (!rc && before != after)
			rc = csv_err_set(err, -CSV_E_BUSY_ELSEWHERE, "node %u: the heartbeat of its slot %u moves: it is not off", n->who.nodeid, slot);
	}
	if (rc < 0 || n->fenced)
		return rc;
	if (rcv_is_member(n->rcv, n->who))
		return csv_err_set(err, -EBUSY, "node %u is a member of the cluster", n->who.nodeid);
	rcv_set_fenced(n, CSV_PROOF_OPERATOR);
	fs_log(fs, LOG_L_WARN, "node %u: taken for off on an operator's word", n->who.nodeid);
	rcv_announce(n->rcv);
	rcv_kick(n->rcv);
	return 0;
}

int csvfs_confirm_fenced(struct csvfs *fs, uint32_t nodeid, struct csv_err *err)
{
	struct rcv_node *n, *found = NULL;
	uint64_t end = fs_now_ns(fs) + CONFIRM_VIEW_MS * NS_PER_MS;

	while (!recover_view_ok(fs) && fs_now_ns(fs) < end)	/* members may just be being agreed on */
		sched_wait_until(fs->env->sched, &fs->state_wq, end, false);
	if (!recover_view_ok(fs))
		return csv_err_set(err, -CSV_E_NOQUORUM, "this node is in no quorate view of the cluster");
	cds_list_for_each_entry(n, &fs->rcv->nodes, node) {
		if (n->who.nodeid == nodeid && n->lost && !n->fenced)
			found = n;
	}
	if (!found)
		return csv_err_set(err, -ENOENT, "node %u: no lost life of it waits for a proof", nodeid);
	if (rcv_is_member(fs->rcv, found->who))
		return csv_err_set(err, -EBUSY, "node %u is a member of the cluster", nodeid);
	return confirm_one(found, err);		/* an unproven life is never forgotten: the pointer stays good */
}

/* ---- replay ----------------------------------------------------------------------------------------------------------------------- */

/* RC5.  False: not yet, its own worker gets the proof. */
static bool replayer_gone(struct rcv_node *n, const struct csv_slot_info *s)
{
	struct recover *r = n->rcv;
	struct cluster_node who = { s->proof_nodeid, s->proof_incarnation };
	struct rcv_node *o;

	if (s->proof_kind != CSV_PROOF_REPLAYING || !who.nodeid || !who.incarnation || (who.nodeid == r->fs->self.nodeid && who.incarnation == r->fs->self.incarnation) || rcv_is_member(r, who) ||
	    r->fs->mutate & CSV_MUT_REPLAY_BEFORE_FENCE)
		return true;
	o = rcv_get(r, who);
	if (!o)
		return false;
	if (!o->lost && !o->fenced) {
		fs_log(r->fs, LOG_L_NOTE, "node %u: it has begun to replay the journal of node %u and is not here any more: it must be proven gone, too",
		       who.nodeid, n->who.nodeid);
		o->found_ns = fs_now_ns(r->fs);
		rcv_set_lost(o);
	}
	if (o->fenced)
		return true;
	o->lost_last = csv_max(o->lost_last, n->lost_last);	/* RC4 */
	rcv_announce(r);
	rcv_kick(r);
	return false;
}

static int replay_slot(struct rcv_node *n, uint32_t slot, struct csv_err *err)
{
	struct csvfs *fs = n->rcv->fs;
	struct jnl_replay_limits lim = {
		.total_blk = fs->geo.total_blk, .data_start_blk = fs->geo.data_start_blk,
		.extra_first_blk = csv_orphan_blk(&fs->geo, 0), .extra_last_blk = csv_orphan_blk(&fs->geo, fs->geo.slots - 1),
	};
	struct jnl_geometry g;
	struct csv_slot_info s;
	int ret;

	ret = slot_read(fs, slot, &s, err);
	if (ret < 0)
		return ret;
	if (s.state == CSV_SLOT_ACTIVE && !replayer_gone(n, &s))
		return -EAGAIN;
	if (s.state != CSV_SLOT_ACTIVE || s.nodeid != n->who.nodeid || s.incarnation != n->who.incarnation)
		return blk_flush(fs->env->blk);	/* whoever was at it before us finished, but may have died before its FLUSH */
	s.proof_kind = CSV_PROOF_REPLAYING;
	s.proof_nodeid = fs->self.nodeid;
	s.proof_incarnation = fs->self.incarnation;
	ret = slot_write(fs, slot, &s);
	if (ret < 0)
		return csv_err_set(err, ret, "slot state: write: %s", csv_err_describe(ret));
	slot_geometry(fs, slot, n->who.incarnation, &g);
	ret = jnl_replay(fs->env->blk, &g, &lim, NULL, &n->info.stats, err);
	if (!ret)
		ret = blk_flush(fs->env->blk);
	if (ret < 0)
		return ret;
	s.state = CSV_SLOT_FREE;
	s.incarnation++;
	s.proof_kind = n->kind;
	s.proof_nodeid = n->who.nodeid;
	s.proof_incarnation = n->who.incarnation;
	ret = slot_write(fs, slot, &s);
	return ret < 0 ? csv_err_set(err, ret, "slot state: write: %s", csv_err_describe(ret)) : 0;
}

/* -EAGAIN: not ours to do yet (RC4). */
static int replay(struct rcv_node *n)
{
	struct csvfs *fs = n->rcv->fs;
	struct csv_err err = CSV_ERR_INIT;
	uint32_t slot;
	bool released;
	int ret;

	if (!rcv_may_replay(n))
		return -EAGAIN;
	n->replaying = true;		/* said in every view from now on; the present one needs no word, only its coordinator starts */
	n->info.replay_start_ns = fs_now_ns(fs);
	ret = find_slot(n, &slot, &released, &err);
	if (!ret && slot != CSV_NO_SLOT) {
		why(n, "node %u: its journal (slot %u) is being replayed", n->who.nodeid, slot);
		ret = replay_slot(n, slot, &err);
	}
	n->replaying = false;
	if (ret == -EAGAIN)
		rcv_announce(n->rcv);	/* no claim any more; RC4 keeps us from coming here again before the proof */
	if (ret == -EINTR || ret == -CSV_E_WITHDRAWN || ret == -EAGAIN)
		return ret;
	if (ret < 0) {
		csv_err_prefix(&err, "slot %u", slot);
		why(n, "node %u: replay: %.150s; what it held stays locked; unmount everywhere and run fsck.csvfs", n->who.nodeid,
		    err.text[0] ? err.text : csv_err_describe(ret));
		fs_log(fs, LOG_L_ERR, "%s", n->info.why);
		return ret;
	}
	rcv_set_replayed(n, slot);
	if (slot == CSV_NO_SLOT)
		fs_log(fs, LOG_L_NOTE, "node %u: recovered, it had no journal in use", n->who.nodeid);
	else
		fs_log(fs, LOG_L_NOTE, "node %u: slot %u replayed in %" PRIu64 " ms: %u records, %u blocks seen, %u written, %u newer at home, %u revoked",
		       n->who.nodeid, slot, (uint64_t)((n->info.replayed_ns - n->info.replay_start_ns) / NS_PER_MS), n->info.stats.records,
		       n->info.stats.blocks_seen, n->info.stats.blocks_written, n->info.stats.skipped_newer, n->info.stats.skipped_revoked);
	rcv_announce(n->rcv);
	return 0;
}

static void worker(void *arg)
{
	struct rcv_node *n = arg;
	struct recover *r = n->rcv;
	struct csvfs *fs = r->fs;
	uint32_t backoff = RCV_BACKOFF_FIRST_MS;

	n->worker = sched_self(fs->env->sched);
	while (worker_goes_on(n)) {
		int ret = 0;		/* no await between this and the claim in replay() but for the proof */

		if (!n->fenced && !(fs->mutate & CSV_MUT_REPLAY_BEFORE_FENCE))
			ret = prove(n);
		if (!ret && worker_goes_on(n))
			ret = replay(n);
		if (ret == -EINTR || ret == -CSV_E_WITHDRAWN)
			break;
		if (ret == -EAGAIN) {
			why(n, "node %u: its replay waits for the proofs of other lost nodes, or another node is at it", n->who.nodeid);
			sched_wait(fs->env->sched, &n->wq);
		} else if (ret < 0) {
			if (n->fenced)
				rcv_announce(r);	/* a replay failed: no claim any more */
			worker_sleep(n, backoff);
			backoff = csv_min(backoff * 2, RCV_BACKOFF_MAX_MS);
		}
	}
	if (fs->mutate & CSV_MUT_REPLAY_BEFORE_FENCE && n->replayed && !n->fenced) {
		rcv_set_fenced(n, CSV_PROOF_AGENT);
		rcv_announce(r);
	}
	n->worker = NULL;
	r->workers--;
	sched_wake_all(fs->env->sched, &fs->state_wq);
	if (!n->replayed)
		rcv_kick(r);		/* the coordination may have come back meanwhile */
}

void rcv_kick(struct recover *r)
{
	struct csvfs *fs = r->fs;
	struct rcv_node *n;

	cds_list_for_each_entry(n, &r->nodes, node) {
		if (n->worker) {
			sched_wake_all(fs->env->sched, &n->wq);
			continue;
		}
		if (!n->lost || !worker_goes_on(n))
			continue;
		r->workers++;
		if (sched_spawn_ret(fs->env->sched, "recover", worker, n, &n->worker) < 0) {
			r->workers--;
			n->worker = NULL;
			fs_log(fs, LOG_L_ERR, "node %u: recovery cannot start: out of memory; it starts with the next view", n->who.nodeid);
		}
	}
}

void recover_stop(struct csvfs *fs)
{
	struct recover *r = fs->rcv;
	struct rcv_node *n;

	cds_list_for_each_entry(n, &r->nodes, node) {
		if (n->worker) {
			sched_cancel(fs->env->sched, n->worker);
			sched_wake_all(fs->env->sched, &n->wq);
		}
	}
	while (r->workers)
		sched_wait(fs->env->sched, &fs->state_wq);
}

/* ---- mount -------------------------------------------------------------------------------------------------------------------------- */

/* True when slot `i`, ACTIVE for `s`, needs recovery before anybody may rely on the volume. `since`: when it was first seen so. */
static bool slot_blocks_mount(struct recover *r, uint32_t i, const struct csv_slot_info *s, uint64_t *since)
{
	struct csvfs *fs = r->fs;
	const struct cluster_view *v = cluster_current(fs->env->cluster);
	struct cluster_node who = { s->nodeid, s->incarnation };
	struct rcv_node *n;
	uint64_t now = fs_now_ns(fs);

	if (!v || rcv_is_member(r, who)) {
		*since = 0;
		return !v;
	}
	if (!*since) {
		*since = now;
		fs_log(fs, LOG_L_NOTE, "volume %s: slot %u was left by node %u (%s): it must be recovered first", fs->geo.label, i, s->nodeid,
		       s->node_name);
	}
	n = rcv_get(r, who);
	if (!n)
		return true;
	n->info.slot = i;
	/* Another life of the same node is here: nothing to wait for. */
	if (!n->lost && (cluster_view_find(v, who.nodeid) || now - *since >= RCV_JOIN_WAIT_MS * NS_PER_MS)) {
		rcv_set_lost(n);
		rcv_announce(r);
		rcv_kick(r);
	}
	return true;
}

/*
 * Nobody relies on the volume before every ACTIVE slot seen belongs to a member: then a life that is lost later leaves phantoms,
 * and one that was lost before anybody now here existed has been replayed.
 */
int recover_at_mount(struct csvfs *fs, struct csv_err *err)
{
	struct recover *r = fs->rcv;
	uint64_t since[CSV_SLOTS_MAX] = { 0 };
	uint64_t end = fs_now_ns(fs) + MOUNT_WAIT_MS * NS_PER_MS;

	for (;;) {
		uint32_t blocked = CSV_NO_SLOT;
		struct csv_slot_info s, first = { 0 };
		struct rcv_node *n;

		for (uint32_t i = 0; i < fs->geo.slots; i++) {
			int ret = slot_read(fs, i, &s, err);

			if (ret < 0)
				return ret;
			if (s.state == CSV_SLOT_ACTIVE && slot_blocks_mount(r, i, &s, &since[i]) && blocked == CSV_NO_SLOT) {
				blocked = i;
				first = s;
			}
		}
		if (fs->state == CSVFS_WITHDRAWN)
			return csv_err_set(err, -CSV_E_WITHDRAWN, "%s", fs->reason);
		if (blocked == CSV_NO_SLOT)
			return 0;
		if (fs_now_ns(fs) >= end) {
			n = rcv_get(r, (struct cluster_node){ first.nodeid, first.incarnation });
			return csv_err_set(err, -CSV_E_BUSY_ELSEWHERE,
					   "slot %u was left by node %u (%.40s) and could not be recovered within %u s: %s", blocked, first.nodeid,
					   first.node_name, MOUNT_WAIT_MS / 1000,
					   n && n->info.why[0] ? n->info.why : "another node is at it; see its log");
		}
		sched_wait_until(fs->env->sched, &fs->state_wq, fs_now_ns(fs) + 500 * NS_PER_MS, false);
	}
}
