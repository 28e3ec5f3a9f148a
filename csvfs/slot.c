/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * slot.c - slot-state blocks, the slot of this mount, its heartbeat.
 *
 * Invariants
 *  SL1 A slot-state block is written only under `slot n` EX, or by the replayer of its lost owner (one at a time: recover.c, RC4)
 *      while the owner's phantom keeps `slot n` away from everybody else (R9).
 *  SL2 Taking: lock -> block read again under it -> empty log of this life -> ACTIVE + FLUSH -> the log is opened.  A crash at any
 *      point leaves a slot that is FREE, or ACTIVE with an empty log.
 *  SL3 Giving: log shut down (empty, flushed) -> FREE with our own proof + FLUSH -> lock.  The proof says that (node, life) has written
 *      its last, for those who did not get the message.
 *  SL4 A life's incarnation is random; that of a FREE slot is its last owner's + 1, so it changes at every change of state and no
 *      record of an old log carries that of a new one.
 *  SL5 The heartbeat block is written only by the owner, every HBEAT_MS while the slot is ACTIVE.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "csvfs/csvfs_internal.h"

#define HBEAT_MS 500u
#define FULL_LISTED 6u		/* owners named in "slots full" */

struct slot_ctl {
	struct glock_holder gh;		/* slot n EX for the life of the mount */
	void *block, *hb_block;
	struct co_mutex mx;		/* of `block` */
	bool hb_stop, hb_running;
};

const char *slot_proof_name(enum csv_proof p)
{
	static const char *const name[CSV_PROOF_KINDS] = { "own release", "fence agent", "process gone", "came back with a new life", "operator",
							   "withdrew and drained", "being replayed" };

	return (unsigned)p < CSV_PROOF_KINDS ? name[p] : "?";
}

int slot_ctl_init(struct csvfs *fs)
{
	struct slot_ctl *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	co_mutex_init(&c->mx);
	c->block = blk_alloc(CSV_BLOCK_SIZE);
	c->hb_block = blk_alloc(CSV_BLOCK_SIZE);
	fs->slots = c;
	if (!c->block || !c->hb_block) {
		slot_ctl_free(fs);
		return -ENOMEM;
	}
	return 0;
}

void slot_ctl_free(struct csvfs *fs)
{
	struct slot_ctl *c = fs->slots;

	if (!c)
		return;
	free(c->block);
	free(c->hb_block);
	free(c);
	fs->slots = NULL;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------------ */

static uint32_t atomic_len(const struct csvfs *fs)
{
	return csv_max(CSV_ATOMIC_BYTES, fs->env->blk->io_align);
}

int slot_read(struct csvfs *fs, uint32_t slot, struct csv_slot_info *ret, struct csv_err *err)
{
	struct slot_ctl *c = fs->slots;
	int rc;

	co_mutex_lock(fs->env->sched, &c->mx);
	rc = blk_read(fs->env->blk, csv_slot_blk(&fs->geo, slot) << CSV_BLOCK_SHIFT, c->block, CSV_BLOCK_SIZE);
	if (rc < 0)
		csv_err_set(err, rc, "slot %u: read: %s", slot, csv_err_describe(rc));
	else
		rc = csv_slot_decode(&fs->geo, slot, c->block, ret, err);
	co_mutex_unlock(fs->env->sched, &c->mx);
	return rc;
}

int slot_write(struct csvfs *fs, uint32_t slot, struct csv_slot_info *s)
{
	struct slot_ctl *c = fs->slots;
	int rc;

	co_mutex_lock(fs->env->sched, &c->mx);
	s->seq++;
	s->since_real_ns = clock_real_ns(fs->env->clock);
	csv_slot_encode(&fs->geo, slot, s, c->block);
	rc = blk_write(fs->env->blk, csv_slot_blk(&fs->geo, slot) << CSV_BLOCK_SHIFT, c->block, atomic_len(fs));
	if (!rc)
		rc = blk_flush(fs->env->blk);
	co_mutex_unlock(fs->env->sched, &c->mx);
	return rc;
}

void slot_geometry(const struct csvfs *fs, uint32_t slot, uint64_t incarnation, struct jnl_geometry *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->uuid, fs->geo.uuid, 16);
	ret->slot = slot;
	ret->start_blk = csv_journal_blk(&fs->geo, slot);
	ret->len_blk = fs->geo.journal_blk;
	ret->incarnation = incarnation;
}

/* ---- taking -------------------------------------------------------------------------------------------------------------------- */

static void jnl_failed(void *arg, int err, const char *what)
{
	struct csvfs *fs = arg;

	fs_withdraw(fs, "journal of slot %u: %s: %s; check the path to the volume, then unmount and mount again", fs->slot, what,
		    csv_err_describe(err));
}

/* `slot n` EX is held; the block says FREE. */
static int slot_open(struct csvfs *fs, uint32_t slot, struct csv_slot_info *s, struct csv_err *err)
{
	struct jnl_config cfg = {
		.sched = fs->env->sched, .blk = fs->env->blk, .log = fs->env->log, .failed = jnl_failed, .arg = fs,
		.mutate_no_revoke_on_release = fs->mutate & CSV_MUT_NO_REVOKE_ON_RELEASE,
		.mutate_home_before_flush = fs->mutate & CSV_MUT_HOME_BEFORE_FLUSH,
	};
	struct jnl_geometry g;
	int rc;

	slot_geometry(fs, slot, fs->self.incarnation, &g);
	rc = jnl_format(fs->env->blk, &g, err);
	if (rc < 0)
		return rc;
	s->state = CSV_SLOT_ACTIVE;
	s->nodeid = fs->self.nodeid;
	s->incarnation = fs->self.incarnation;
	snprintf(s->node_name, sizeof(s->node_name), "%s", fs->opt.node_name);
	rc = slot_write(fs, slot, s);
	if (rc < 0)
		return csv_err_set(err, rc, "slot %u: write: %s", slot, csv_err_describe(rc));
	fs->slot = slot;
	return jnl_open(&cfg, &g, &fs->jnl, err);
}

/* 0: taken.  -EAGAIN: not this one. */
static int slot_try(struct csvfs *fs, uint32_t slot, struct csv_err *err)
{
	struct slot_ctl *c = fs->slots;
	struct csv_slot_info s;
	int rc = glock_get(fs, OWN_SLOT(slot), DLM_EX, GLOCK_NOQUEUE | GLOCK_LASTING | GLOCK_NOINTR, &c->gh);

	if (rc < 0)
		return rc == -EAGAIN ? rc : csv_err_set(err, rc, "slot %u: lock: %s", slot, csv_err_describe(rc));
	rc = slot_read(fs, slot, &s, err);
	if (!rc)
		rc = s.state == CSV_SLOT_FREE ? slot_open(fs, slot, &s, err) : -EAGAIN;
	if (rc < 0 && fs->slot == CSV_NO_SLOT)
		glock_put(&c->gh);		/* stays cached; whoever wants the slot gets it */
	return rc;
}

int slot_take(struct csvfs *fs, struct csv_err *err)
{
	char list[300] = "";
	size_t at = 0;
	uint32_t active = 0, free_slots = 0;
	int rc;

	/* The slot this node had last comes first: its journal is warm in nobody else's plans. */
	for (int own = 1; own >= 0; own--) {
		for (uint32_t i = 0; i < fs->geo.slots; i++) {
			struct csv_slot_info s;

			rc = slot_read(fs, i, &s, err);
			if (rc < 0)
				return rc;
			if (s.state == CSV_SLOT_ACTIVE) {
				if (!own && active++ < FULL_LISTED)
					at += (size_t)snprintf(list + at, sizeof(list) - at, "%sslot %u by %.40s (node %u)", at ? ", " : "", i,
							       s.node_name[0] ? s.node_name : "?", s.nodeid);
				at = csv_min(at, sizeof(list) - 1);
				continue;
			}
			free_slots += !own;
			if ((s.nodeid == fs->self.nodeid) != own)
				continue;
			rc = slot_try(fs, i, err);
			if (rc != -EAGAIN)
				return rc;
		}
	}
	if (free_slots)
		return -EAGAIN;		/* being taken, or its last owner's locks still stand: again */
	return csv_err_set(err, -CSV_E_BUSY_ELSEWHERE,
			   "all %u slots are in use: %s%s; unmount the volume on one of these nodes, or make a volume with more slots (mkfs.csvfs -n)",
			   fs->geo.slots, list, active > FULL_LISTED ? " and others" : "");
}

/* R10: a heartbeat that is on its way must not land over that of the slot's next owner. */
static void hbeat_end(struct csvfs *fs)
{
	struct slot_ctl *c = fs->slots;

	c->hb_stop = true;
	sched_wake_all(fs->env->sched, &fs->state_wq);
	while (c->hb_running)
		sched_wait(fs->env->sched, &fs->state_wq);
}

int slot_write_free(struct csvfs *fs)
{
	struct csv_slot_info s;
	int rc;

	hbeat_end(fs);
	rc = slot_read(fs, fs->slot, &s, NULL);
	if (rc < 0)
		return rc;
	if (s.state != CSV_SLOT_ACTIVE || s.nodeid != fs->self.nodeid || s.incarnation != fs->self.incarnation)
		return -CSV_E_FENCED;		/* somebody proved us gone and took over */
	s.state = CSV_SLOT_FREE;
	s.incarnation++;
	s.proof_kind = CSV_PROOF_RELEASE;
	s.proof_nodeid = fs->self.nodeid;
	s.proof_incarnation = fs->self.incarnation;
	return slot_write(fs, fs->slot, &s);
}

int slot_give(struct csvfs *fs)
{
	struct slot_ctl *c = fs->slots;		/* NULL: a mount that failed before there were slots */
	struct glock *gl;
	int rc;

	if (fs->slot == CSV_NO_SLOT)
		return 0;
	gl = c->gh.gl;
	rc = slot_write_free(fs);
	if (rc < 0)
		return rc;
	fs->slot = CSV_NO_SLOT;
	glock_ref(fs, gl->owner);
	glock_put(&c->gh);
	rc = glock_drop(gl, DLM_NL);
	glock_unref(gl);
	return rc;
}

/* ---- heartbeat -------------------------------------------------------------------------------------------------------------------- */

static void hbeat_coro(void *arg)
{
	struct csvfs *fs = arg;
	struct slot_ctl *c = fs->slots;
	struct csv_hbeat_info hb = { .incarnation = fs->self.incarnation, .nodeid = fs->self.nodeid };
	uint64_t off = csv_hbeat_blk(&fs->geo, fs->slot) << CSV_BLOCK_SHIFT;
	bool bad = false;

	while (!c->hb_stop && fs->state != CSVFS_WITHDRAWN) {
		uint64_t next = fs_now_ns(fs) + HBEAT_MS * NS_PER_MS;
		int rc;

		hb.counter++;
		hb.seq++;
		csv_hbeat_encode(&fs->geo, fs->slot, &hb, c->hb_block);
		rc = blk_write(fs->env->blk, off, c->hb_block, atomic_len(fs));
		if (rc < 0 && !bad && rc != -CSV_E_WITHDRAWN)
			fs_log(fs, LOG_L_WARN, "volume %s: heartbeat of slot %u: write: %s", fs->geo.label, fs->slot, csv_err_describe(rc));
		bad = rc < 0;
		while (!c->hb_stop && fs->state != CSVFS_WITHDRAWN && fs_now_ns(fs) < next)
			sched_wait_until(fs->env->sched, &fs->state_wq, next, false);
	}
	c->hb_running = false;
}

int slot_heartbeat_start(struct csvfs *fs)
{
	int rc;

	fs->slots->hb_running = true;
	rc = fs_spawn(fs, "heartbeat", hbeat_coro, fs);
	if (rc < 0)
		fs->slots->hb_running = false;
	return rc;
}
