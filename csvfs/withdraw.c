/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * withdraw.c - the one way out when this node can no longer be trusted with the volume.
 *
 *	0	block gate closed: nothing new reaches the device; every waiter answers -CSV_E_WITHDRAWN; state and reason are told
 *	then	the data plane's gates are closed and drained, requests in flight complete
 *	then	only with nothing in flight: "this life has written its last" goes to the others, a proof
 *	then	this node leaves the group; the others replay our journal
 *	10 s	nothing drained: leave without a word, and be fenced (R9)
 *
 * Healed minority (R11): the others went on without us, but nobody has fenced us: what we hold is still ours.  Then the order is: no new
 * operations -> those under way end -> all members have said what they know, and none that we are fenced -> commit, write back, drain
 * -> slot FREE -> as above.  Nothing of our lock state is merged.
 * An unmount meanwhile waits for that: it neither writes before it is known that we are not fenced, nor takes the journal away under it,
 *
 *	heal: waits for the others' word			unmount: ends the journal, which fails half way, and frees it
 *	heal: no journal, nothing to write back: slot FREE	...: what was committed and not home is lost
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "csvfs/csvfs_internal.h"
#include "csvfs/dataplane.h"

#define DRAIN_MS 10000u
#define POLL_MS 5u
#define SAY_MS 2000u

static bool drain(struct csvfs *fs, uint64_t end_ns)
{
	if (fs->dp && !dp_close_all(fs->dp, end_ns))
		return false;
	while (fs->env->blk->inflight) {
		if (fs_now_ns(fs) >= end_ns)
			return false;
		coro_sleep_ns(fs->env->sched, POLL_MS * NS_PER_MS);
	}
	return true;
}

static void withdraw_coro(void *arg)
{
	struct csvfs *fs = arg;
	uint64_t start = fs_now_ns(fs);
	bool drained = drain(fs, start + DRAIN_MS * NS_PER_MS);

	if (drained) {
		uint64_t ms = (fs_now_ns(fs) - start) / NS_PER_MS;

		if (!recover_announce_gone(fs, fs->slot == CSV_NO_SLOT ? CSV_PROOF_RELEASE : CSV_PROOF_WITHDRAW, SAY_MS))
			fs_log(fs, LOG_L_NOTE, "volume %s: I/O drained after %" PRIu64 " ms, the others were told", fs->geo.label, ms);
		else
			fs_log(fs, LOG_L_WARN, "volume %s: I/O drained after %" PRIu64 " ms, but the others cannot be told: they must fence this node",
			       fs->geo.label, ms);
	} else {
		fs_log(fs, LOG_L_ERR, "volume %s: %u requests still in flight after %u ms: leaving without a proof, the others must fence this node",
		       fs->geo.label, fs->env->blk->inflight, DRAIN_MS);
	}
	cluster_stop(fs->env->cluster);
	fs->left = true;
	if (fs->heal == HEAL_ON)
		fs->heal = drained ? HEAL_DONE : HEAL_FAILED;
	sched_wake_all(fs->env->sched, &fs->state_wq);
}

static void gone(struct csvfs *fs, const char *reason)
{
	blk_gate_close(fs->env->blk);		/* FS2: before the state */
	if (fs->state != CSVFS_WITHDRAWN)
		fs_set_state(fs, CSVFS_WITHDRAWN, "%s", reason);
	fs_log(fs, LOG_L_ERR, "volume %s: withdrawn: %s", fs->geo.label, reason);
	glock_withdraw_all(fs);
	if (fs_spawn(fs, "withdraw", withdraw_coro, fs) < 0) {
		fs->heal = HEAL_FAILED;
		fs_log(fs, LOG_L_ERR, "volume %s: out of memory while withdrawing: the others must fence this node", fs->geo.label);
	}
}

void fs_withdraw(struct csvfs *fs, const char *fmt, ...)
{
	char reason[sizeof(fs->reason)];
	va_list ap;

	if (fs->state == CSVFS_WITHDRAWN)
		return;
	va_start(ap, fmt);
	vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	gone(fs, reason);
}

void csvfs_withdraw(struct csvfs *fs, const char *reason)
{
	fs_withdraw(fs, "%s", reason);
}

/* ---- healed minority ------------------------------------------------------------------------------------------------------ */

static bool holder_left(void *arg, const struct glock_info *i)
{
	bool *ret = arg;

	if (i->holders && (i->owner.type == CSV_OWN_INODE || i->owner.type == CSV_OWN_GROUP || i->owner.type == CSV_OWN_ORPHAN ||
			   i->owner.type == CSV_OWN_RENAME))
		*ret = true;
	return !*ret;
}

int fs_jnl_end(struct csvfs *fs)
{
	if (!fs->jnl)
		return fs->jnl_end_ret;
	if (!fs->jnl_ending) {
		fs->jnl_ending = true;
		fs->jnl_end_ret = jnl_shutdown(fs->jnl);
		fs->jnl_ended = true;
		sched_wake_all(fs->env->sched, &fs->state_wq);
	}
	while (!fs->jnl_ended)
		sched_wait(fs->env->sched, &fs->state_wq);
	return fs->jnl_end_ret;
}

void fs_heal_wait(struct csvfs *fs)
{
	while (fs->healing)
		sched_wait(fs->env->sched, &fs->state_wq);
}

static void heal_coro(void *arg)
{
	struct csvfs *fs = arg;
	uint64_t end = fs_now_ns(fs) + DRAIN_MS * NS_PER_MS;
	bool busy = true;
	int ret = 0;

	if (fs->dp && !dp_close_all(fs->dp, end))
		ret = -ETIMEDOUT;
	while (!ret && busy && fs_now_ns(fs) < end) {
		busy = false;
		glock_walk(fs, holder_left, &busy);
		if (busy)
			coro_sleep_ns(fs->env->sched, POLL_MS * NS_PER_MS);
	}
	if (!ret && busy)
		ret = -ETIMEDOUT;
	if (!ret && !recover_unfenced(fs, end))
		ret = -CSV_E_FENCED;
	if (!ret && !fs->env->blk->gate_closed && !(fs->mutate & CSV_MUT_HEAL_NOT_HOME))
		ret = fs_jnl_end(fs);
	if (!ret && fs->slot != CSV_NO_SLOT && !fs->env->blk->gate_closed)
		ret = slot_write_free(fs);
	if (!ret && fs->env->blk->gate_closed)
		ret = -CSV_E_FENCED;
	if (ret < 0) {
		fs->heal = HEAL_FAILED;
		fs_log(fs, LOG_L_ERR, "volume %s: write back after the others went on: %s; unmount and mount again", fs->geo.label,
		       csv_err_describe(ret));
	}
	gone(fs, fs->reason);
	fs->healing = false;
	sched_wake_all(fs->env->sched, &fs->state_wq);
}

void fs_purged(struct csvfs *fs)
{
	if (fs->state == CSVFS_WITHDRAWN)
		return;
	fs_set_state(fs, CSVFS_WITHDRAWN, "the others went on without this node; it writes back what it had, and joins anew");
	fs->heal = HEAL_ON;
	glock_withdraw_all(fs);
	fs->healing = true;
	recover_announce(fs);
	if (fs_spawn(fs, "heal", heal_coro, fs) < 0) {
		fs->healing = false;
		fs->heal = HEAL_FAILED;
		gone(fs, fs->reason);
	}
}

int csvfs_may_rejoin(const struct csvfs *fs)
{
	return fs->heal == HEAL_ON ? -EAGAIN : fs->heal == HEAL_DONE ? 0 : -CSV_E_WITHDRAWN;
}
