/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * super.c - life of a mount (csvfs.h).
 *
 *	JOINING	superblock read and checked -> join the group -> usable view, lock tables complete -> `mount` PR -> every ACTIVE slot
 *		belongs to a member (recover_at_mount) -> a slot of our own -> heartbeat
 *	ACTIVE	operations; PAUSED while the members are being agreed on: cached locks go on, new ones wait
 *	umount	no new operations -> background ends -> commit -> locks given up in batches -> log shut down -> slot FREE -> `mount`
 *		-> leave told and acknowledged -> out of the group
 *	WITHDRAWN	see withdraw.c; csvfs_umount() then only tidies up
 *
 * The caller makes env with cluster and mesh not yet started; csvfs_mount() starts them, csvfs_umount() and a withdrawal leave the group.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "csvfs/inode_pool.h"
#include "csvfs/csvfs_internal.h"
#include "csvfs/vraw.h"

#define VIEW_WAIT_MS 60000u
#define SLOT_WAIT_MS 15000u
#define SLOT_RETRY_MS 100u
#define LEAVE_WAIT_MS 3000u

/* ---- parts ------------------------------------------------------------------------------------------------------------------- */

static bool plocks_settled(void *arg)
{
	return !recover_is_pending(arg);
}

static void plocks_lost(void *arg)
{
	struct csvfs *fs = arg;

	if (fs->ev.locks_lost)
		fs->ev.locks_lost(fs->ev.arg);
}

static void plocks_fail(void *arg, const char *why)
{
	fs_withdraw(arg, "%s", why);
}

struct plock_ctl *csvfs_plocks(struct csvfs *fs)
{
	return fs->plocks;
}

static int parts_init(struct csvfs *fs, struct csv_err *err)
{
	int ret;

	fs->glock_ops[CSV_OWN_INODE] = &inode_glock_ops;
	fs->glock_ops[CSV_OWN_GROUP] = &alloc_group_glock_ops;
	fs->glock_ops[CSV_OWN_VMAP] = &vraw_vmap_ops;
	fs->glock_ops[CSV_OWN_VNEG] = &vraw_vneg_ops;
	ret = buf_cache_init(fs);
	if (!ret)
		ret = glock_table_init(fs);
	if (!ret)
		ret = slot_ctl_init(fs);
	if (!ret)
		ret = recover_init(fs);
	if (!ret)
		ret = evict_init(fs);
	if (!ret)
		ret = reaper_init(fs);
	if (!ret)
		ret = inode_table_init(fs);
	if (!ret)
		ret = inode_pool_init(fs);
	if (!ret)
		ret = alloc_init(fs);
	if (!ret) {
		fs->dlm = dlm_new(fs->env, recover_dlm_events(fs));
		if (!fs->dlm)
			ret = -ENOMEM;
	}
	if (!ret) {
		fs->plocks = plock_new(fs->env, &(struct plock_user){ .settled = plocks_settled, .lost = plocks_lost, .fail = plocks_fail,
									.arg = fs });
		if (!fs->plocks)
			ret = -ENOMEM;
	}
	if (ret < 0)
		return csv_err_set(err, ret, "out of memory");
	if (fs->mutate & CSV_MUT_NO_PHANTOM)
		dlm_set_config(fs->dlm, &(struct dlm_config){ .no_phantom = true });
	if (fs->mutate & CSV_MUT_IGNORE_RING)
		cluster_mutate_ignore_ring(fs->env->cluster);
	recover_register(fs);
	return 0;
}

/* Whatever is there is forgotten; nothing of it may run again. */
void csvfs_free(struct csvfs *fs)
{
	if (!fs)
		return;
	jnl_free(fs->jnl);
	if (fs->dlm)
		dlm_free(fs->dlm);	/* its locks lie in the glocks */
	plock_free(fs->plocks);
	glock_table_free(fs);
	inode_table_free(fs);
	inode_pool_free(fs);
	alloc_done(fs);
	reaper_free(fs);
	evict_free(fs);
	recover_free(fs);
	slot_ctl_free(fs);
	buf_cache_free(fs);
	sched_unpost(fs->env->sched, &fs->state_job);
	free(fs->sb_block);
	free(fs);
}

static void wait_coros(struct csvfs *fs)
{
	while (fs->coros)
		sched_wait(fs->env->sched, &fs->state_wq);
}

/* ---- mount --------------------------------------------------------------------------------------------------------------------- */

static int super_load(struct csvfs *fs, struct csv_err *err)
{
	struct csv_err note = CSV_ERR_INIT;
	int ret = csv_super_read(fs->env->blk, &fs->geo, &note, err);

	if (ret < 0)
		return ret;
	if (note.code)
		fs_log(fs, LOG_L_WARN, "volume %s: %s", fs->geo.label, note.text);
	if (fs->geo.ro_only && !fs->opt.read_only)
		return csv_err_set(err, -CSV_E_UNSUPPORTED,
				   "superblock: ro_compat 0x%" PRIx64 " has features this version cannot write; mount with -o ro, or use a newer version",
				   fs->geo.ro_compat);
	fs->sb_block = blk_alloc(CSV_BLOCK_SIZE);
	if (!fs->sb_block)
		return csv_err_set(err, -ENOMEM, "out of memory");
	csv_super_encode(&fs->geo, CSV_SB_BLOCK, fs->sb_block);
	if (!fs->geo.label[0])			/* messages need a name; as in /run/csvfs and csvctl volume show */
		snprintf(fs->geo.label, sizeof(fs->geo.label), "%016" PRIx64, fs->geo.lockspace);
	return 0;
}

/* Who owns slots decides what may be granted: damage there is said at once, not found as a wait without end. */
static int slots_readable(struct csvfs *fs, struct csv_err *err)
{
	struct csv_slot_info s;
	int ret = 0;

	for (uint32_t i = 0; i < fs->geo.slots && ret >= 0; i++)
		ret = slot_read(fs, i, &s, err);
	return ret;
}

static int join(struct csvfs *fs, struct csv_err *err)
{
	uint64_t end;
	int ret = slots_readable(fs, err);

	if (ret < 0)
		return ret;
	if (evict_start(fs) < 0)
		return csv_err_set(err, -ENOMEM, "out of memory");
	ret = mesh_start(fs->env->mesh);
	if (ret < 0)
		return csv_err_set(err, ret, "network to the other nodes: %s", csv_err_describe(ret));
	ret = cluster_start(fs->env->cluster);
	if (ret < 0)
		return csv_err_set(err, ret, "joining the group: %s; is corosync running on this node? (systemctl status corosync)",
				   csv_err_describe(ret));
	fs->joined = true;
	end = fs_now_ns(fs) + VIEW_WAIT_MS * NS_PER_MS;
	while (!recover_view_ok(fs) && fs->state != CSVFS_WITHDRAWN) {
		if (sched_wait_until(fs->env->sched, &fs->state_wq, end, true) == -EINTR)
			return csv_err_set(err, -EINTR, "interrupted while waiting for the cluster");
		if (fs_now_ns(fs) >= end && !recover_view_ok(fs))
			return csv_err_set(err, -CSV_E_NOQUORUM,
					   "no quorum: this node is in no quorate view of the cluster for %u s; start more nodes, see: corosync-quorumtool -s",
					   VIEW_WAIT_MS / 1000);
	}
	return fs->state == CSVFS_WITHDRAWN ? csv_err_set(err, -CSV_E_WITHDRAWN, "%s", fs->reason) : 0;
}

static int take_slot(struct csvfs *fs, struct csv_err *err)
{
	uint64_t end = fs_now_ns(fs) + SLOT_WAIT_MS * NS_PER_MS;
	int ret;

	for (;;) {
		ret = slot_take(fs, err);
		if (ret != -EAGAIN)
			return ret;
		if (fs_now_ns(fs) >= end)
			return csv_err_set(err, -CSV_E_BUSY_ELSEWHERE,
					   "no slot could be locked within %u s although some are free: their last owners' locks still stand; see: csvctl lock list",
					   SLOT_WAIT_MS / 1000);
		if (!fs_sleep_ms(fs, SLOT_RETRY_MS))
			return csv_err_set(err, -CSV_E_WITHDRAWN, "%s", fs->reason);
	}
}

static int mount_steps(struct csvfs *fs, struct csv_err *err)
{
	int ret = super_load(fs, err);

	if (!ret)
		ret = parts_init(fs, err);
	if (!ret)
		ret = join(fs, err);
	if (ret < 0)
		return ret;
	ret = glock_get(fs, OWN_MOUNT, DLM_PR, GLOCK_LASTING, &fs->mount_gh);
	if (ret < 0)
		return csv_err_set(err, ret, "mount lock: %s", csv_err_describe(ret));
	ret = recover_at_mount(fs, err);
	if (!ret)
		ret = take_slot(fs, err);
	if (!ret && slot_heartbeat_start(fs) < 0)
		ret = csv_err_set(err, -ENOMEM, "out of memory");
	return ret;
}

static void leave_done(void *arg)
{
	struct csvfs *fs = arg;

	fs->leave_acked = true;
	sched_wake_all(fs->env->sched, &fs->state_wq);
}

/* The slot is FREE, nothing is locked any more. */
static void leave(struct csvfs *fs)
{
	uint64_t end = fs_now_ns(fs) + LEAVE_WAIT_MS * NS_PER_MS;

	if (!fs->joined)
		return;
	if (fs->mount_gh.gl) {
		struct glock *gl = glock_ref(fs, OWN_MOUNT);

		glock_put(&fs->mount_gh);
		glock_drop(gl, DLM_NL);
		glock_unref(gl);
	}
	if (recover_view_ok(fs)) {
		if (!glock_drop_all(fs)) {
			dlm_leave(fs->dlm, leave_done, fs);
			while (!fs->leave_acked && recover_view_ok(fs) && fs_now_ns(fs) < end)
				sched_wait_until(fs->env->sched, &fs->state_wq, end, false);
		}
		recover_announce_gone(fs, CSV_PROOF_RELEASE, LEAVE_WAIT_MS);
	}
	/* Who missed it finds our own word in the slot-state block. */
	cluster_stop(fs->env->cluster);
}

/* Also of a mount that failed half way. */
static int tidy(struct csvfs *fs)
{
	int ret = 0;

	fs->stopping = true;
	sched_wake_all(fs->env->sched, &fs->state_wq);
	if (fs->rcv)
		recover_stop(fs);
	if (fs->reaper)
		reaper_stop(fs);
	inode_pool_stop(fs);
	if (fs->state != CSVFS_WITHDRAWN && fs->jnl) {
		ret = jnl_commit(fs->jnl, 0);
		if (!ret)
			ret = glock_drop_all(fs);
	}
	fs_heal_wait(fs);
	if (fs->jnl) {
		int shut = fs_jnl_end(fs);

		fs_heal_wait(fs);		/* that began meanwhile */
		if (!ret)
			ret = shut;
		jnl_free(fs->jnl);
		fs->jnl = NULL;
	}
	if (!ret && fs->state != CSVFS_WITHDRAWN)
		ret = slot_give(fs);
	if (!ret && fs->state != CSVFS_WITHDRAWN) {
		leave(fs);
	} else if (fs->state != CSVFS_WITHDRAWN) {
		fs_withdraw(fs, "unmount: write back: %s", csv_err_describe(ret));
	}
	wait_coros(fs);
	return fs->state == CSVFS_WITHDRAWN ? -CSV_E_WITHDRAWN : ret;
}

int csvfs_mount(struct env *env, const struct csvfs_options *opt, const struct csvfs_events *ev, struct csvfs **ret_fs,
		struct csv_err *err)
{
	struct csvfs *fs = calloc(1, sizeof(*fs));
	uint64_t start;
	int ret;

	if (!fs)
		return csv_err_set(err, -ENOMEM, "out of memory");
	fs->env = env;
	fs->opt = *opt;
	if (ev)
		fs->ev = *ev;
	fs->mutate = opt->mutate;
	fs->self = (struct cluster_node){ cluster_self(env->cluster), cluster_incarnation(env->cluster) };
	fs_state_init(fs);
	*ret_fs = fs;
	start = fs_now_ns(fs);
	ret = mount_steps(fs, err);
	if (ret < 0 && fs->state == CSVFS_WITHDRAWN)
		csv_err_set(err, ret, "%s", fs->reason);
	if (ret < 0) {
		tidy(fs);
		*ret_fs = NULL;
		csvfs_free(fs);
		return ret;
	}
	fs_set_state(fs, CSVFS_ACTIVE, "mounted");
	if (!recover_view_ok(fs))
		fs_set_state(fs, CSVFS_PAUSED, "the members of the cluster are being agreed on; new locks wait");
	fs_log(fs, LOG_L_NOTE, "volume %s: mounted by node %u in slot %u after %" PRIu64 " ms", fs->geo.label, fs->self.nodeid, fs->slot,
	       (uint64_t)((fs_now_ns(fs) - start) / NS_PER_MS));
	if (!fs->opt.read_only) {
		orphan_scan_later(fs, fs->slot);
		for (uint32_t i = 0; i < fs->geo.slots; i++) {
			struct csv_slot_info s;

			if (i != fs->slot && !slot_read(fs, i, &s, NULL) && s.state == CSV_SLOT_FREE)
				orphan_scan_later(fs, i);
		}
	}
	return 0;
}

/* ---- umount ---------------------------------------------------------------------------------------------------------------------- */

struct count_used { struct csvfs *fs; unsigned n; };

static bool count_used(void *arg, const struct glock_info *i)
{
	struct count_used *c = arg;

	if ((i->holders && i->owner.type != CSV_OWN_SLOT && i->owner.type != CSV_OWN_MOUNT) || inode_is_open(c->fs, i->owner))
		c->n++;
	return true;
}

int csvfs_umount(struct csvfs *fs, struct csv_err *err)
{
	struct count_used used = { .fs = fs };
	int ret;

	if (fs->state == CSVFS_WITHDRAWN) {
		tidy(fs);
		return 0;
	}
	fs->stopping = true;
	sched_wake_all(fs->env->sched, &fs->state_wq);
	reaper_stop(fs);
	inode_pool_stop(fs);
	glock_walk(fs, count_used, &used);
	if (used.n) {
		fs->stopping = false;
		return csv_err_set(err, -EBUSY, "volume %s: %u files or operations are still open on this node; close them first", fs->geo.label, used.n);
	}
	ret = tidy(fs);
	if (ret < 0)
		return csv_err_set(err, ret, "volume %s: unmount: %s", fs->geo.label, fs->reason[0] ? fs->reason : csv_err_describe(ret));
	fs_set_state(fs, CSVFS_WITHDRAWN, "unmounted");
	return 0;
}
