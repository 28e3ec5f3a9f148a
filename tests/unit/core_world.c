/* SPDX-License-Identifier: GPL-2.0-only */
/* core_world.c - nodes of core_world.h begin and end, time goes by, coroutines run to their end. */
#include "tests/unit/core_world_internal.h"

#include <sys/mman.h>

struct cw cw;

/* ---- nodes ----------------------------------------------------------------------------------------------------------------------- */

struct cw_node *cw_n(unsigned id)
{
	return &cw.node[id - 1];
}

void cw_boot(unsigned id)
{
	struct cw_node *n = cw_n(id);

	ck_assert(!n->on);
	if (!cds_list_empty(&n->late) && !cw.fence_lies) {
		struct cw_write *w, *next;

		/* The machine that starts again is the proof that the old life's writes are gone or done. */
		cds_list_for_each_entry_safe(w, next, &n->late, node) {
			cds_list_del(&w->node);
			free(w);
		}
	}
	n->id = id;
	n->on = true;
	n->cut = false;
	n->hold_writes = false;
	n->hold_off = 0;
	n->incarnation = ++cw.next_incarnation * 1000 + id;
	n->port = (struct cluster_port){ &cw_port_ops, id };
	n->link.ops = &cw_link_ops;
	n->fence.ops = &cw_fence_ops;
	n->rnd.u64 = cw_rnd;
	n->log = (struct logger){ cw_log_write, LOG_L_INFO };
	n->env.sched = sched_new(&cw.clk.clock);
	n->blk = (struct blk){ .ops = &cw_blk_ops, .sched = n->env.sched, .size_bytes = cw.disk_bytes, .min_io = 512, .io_align = 512 };
	n->env.clock = &cw.clk.clock;
	n->env.blk = &n->blk;
	n->env.fence = &n->fence;
	n->env.rnd = &n->rnd;
	n->env.log = &n->log;
	n->env.cluster = cluster_new(n->env.sched, &n->port, n->incarnation);
	cluster_set_round(n->env.cluster, cw.round_ns);
	n->env.mesh = mesh_new(n->env.sched, n->env.cluster, &n->link, 0x1234);
	n->opt = (struct csvfs_options){ .incarnation = n->incarnation, .noatime = true };
	snprintf(n->opt.node_name, sizeof(n->opt.node_name), "n%u", id);
	n->fs = NULL;
	n->err = CSV_ERR_INIT;
}

void cw_off(unsigned id, bool ring)
{
	struct cw_node *n = cw_n(id);
	struct cw_fencing *f, *next;

	n->on = n->in_group = false;
	csvfs_free(n->fs);
	mesh_free(n->env.mesh);
	cluster_free(n->env.cluster);
	sched_free(n->env.sched);
	n->fs = NULL;
	cds_list_for_each_entry_safe(f, next, &n->agents, node) {
		cds_list_del(&f->node);
		free(f);
	}
	cw_drop(&n->engine);
	for (unsigned i = 0; i < CW_NODES; i++) {
		cw_link_down(id - 1, i);
		cw_drop(&n->wire[i]);
		n->wants[i] = false;
	}
	if (ring)
		cw_new_ring();
}

void cw_power_cut(unsigned id)
{
	cw_off(id, true);
}

void cw_partition(unsigned mask)
{
	for (unsigned id = 1; id <= CW_NODES; id++)
		cw_n(id)->cut = mask & 1u << id;
	for (unsigned a = 0; a < CW_NODES; a++) {
		for (unsigned b = 0; b < a; b++) {
			if (cw.node[a].cut != cw.node[b].cut)
				cw_link_down(a, b);
		}
	}
	cw_new_ring();
}

void cw_process_dies(unsigned id)
{
	cw_land(cw_n(id));
	for (unsigned i = 0; i < CW_NODES; i++) {
		struct cw_ev *e;

		if (!cw.node[i].in_group || i == id - 1)
			continue;
		e = cw_ev_new(CW_PROCDOWN, NULL, 0);
		e->from = id;
		cds_list_add_tail(&e->node, &cw.node[i].engine);
	}
	cw_n(id)->in_group = false;
	for (unsigned i = 0; i < CW_NODES; i++) {
		if (cw.node[i].in_group)
			cw_tell_members(&cw.node[i]);
	}
	cw_off(id, false);
}

static bool cw_feed(struct cw_node *n)
{
	struct cw_ev *e = NULL;
	unsigned from = 0;

	if (!cds_list_empty(&n->engine)) {
		e = cds_list_first_entry(&n->engine, struct cw_ev, node);
	} else {
		for (; !e && from < CW_NODES; from++) {
			if (!cds_list_empty(&n->wire[from]) && !n->deaf[from]) {
				e = cds_list_first_entry(&n->wire[from], struct cw_ev, node);
				break;
			}
		}
	}
	if (!e)
		return false;
	cds_list_del(&e->node);
	switch (e->kind) {
	case CW_TOTEM:
		n->raw->expected(n->raw_arg, cw.votes);
		n->raw->totem(n->raw_arg, e->ring);
		break;
	case CW_MEMBERS: n->raw->members(n->raw_arg, e->m, e->n); break;
	case CW_QUORUM: n->raw->quorum(n->raw_arg, e->ring, e->n); break;
	case CW_PROCDOWN: n->raw->procdown(n->raw_arg, e->from); break;
	case CW_MSG: n->raw->msg(n->raw_arg, e->from, e->buf, e->len); break;
	case CW_UP: n->lev->up(n->lev_arg, from + 1); break;
	case CW_DOWN: n->lev->down(n->lev_arg, from + 1); break;
	case CW_FRAME: n->lev->frame(n->lev_arg, from + 1, e->buf, e->len); break;
	}
	free(e);
	return true;
}

bool cw_run(uint64_t ms, bool (*stop)(void *arg), void *arg)
{
	uint64_t end = cw.clk.now_ns + ms * NS_PER_MS;

	for (;;) {
		uint64_t next = UINT64_MAX;
		bool busy = true;

		while (busy) {
			if (stop && stop(arg))
				return true;
			busy = false;
			for (unsigned i = 0; i < CW_NODES; i++) {
				struct cw_node *n = &cw.node[i];

				if (!n->on)
					continue;
				busy |= cw_feed(n);
				while (sched_step(n->env.sched))
					busy = true;
			}
		}
		for (unsigned i = 0; i < CW_NODES; i++) {
			if (cw.node[i].on)
				next = csv_min(next, sched_next_deadline(cw.node[i].env.sched));
		}
		if (next > end) {
			cw.clk.now_ns = end;
			return false;
		}
		cw.clk.now_ns = csv_max(next, cw.clk.now_ns);
		for (unsigned i = 0; i < CW_NODES; i++) {
			if (cw.node[i].on)
				sched_run_timers(cw.node[i].env.sched, cw.clk.now_ns);
		}
	}
}

void cw_settle(uint64_t ms)
{
	cw_run(ms, NULL, NULL);
}

bool cw_is_done(void *arg)
{
	return ((struct cw_node *)arg)->done;
}

void cw_start(unsigned id, void (*fn)(void *arg))
{
	struct cw_node *n = cw_n(id);

	n->done = false;
	ck_assert_int_eq(sched_spawn(n->env.sched, "test", fn, n), 0);
}

void cw_do(unsigned id, void (*fn)(void *arg))
{
	cw_start(id, fn);
	ck_assert_msg(cw_run(600000, cw_is_done, cw_n(id)), "node %u: not done after 10 minutes; log:\n%s", id, cw.all_log);
}

void cw_mount_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = csvfs_mount(&n->env, &n->opt, NULL, &n->fs, &n->err);
	n->done = true;
}

void cw_umount_coro(void *arg)
{
	struct cw_node *n = arg;

	n->ret = csvfs_umount(n->fs, &n->err);
	n->done = true;
}

void cw_mount(unsigned id)
{
	cw_boot(id);
	cw_do(id, cw_mount_coro);
	ck_assert_msg(cw_n(id)->ret == 0, "node %u: mount: %d %s\n%s", id, cw_n(id)->ret, cw_n(id)->err.text, cw.all_log);
}

void cw_umount(unsigned id)
{
	cw_do(id, cw_umount_coro);
	ck_assert_msg(cw_n(id)->ret == 0, "node %u: umount: %d %s\n%s", id, cw_n(id)->ret, cw_n(id)->err.text, cw.all_log);
	cw_off(id, false);
}

static void cw_mkfs_coro(void *arg)
{
	struct cw_node *n = arg;
	struct csvfs_mkfs_options o = { .label = "vol1", .slots = CW_SLOTS, .journal_mib = 4, .uuid = { 1, 2, 3 }, .hash_key = { 4 } };

	n->ret = csvfs_mkfs(&n->blk, &o, NULL, &n->err);
	n->done = true;
}

void cw_setup_bytes(uint64_t bytes)
{
	memset(&cw, 0, sizeof(cw));
	cw.disk_bytes = bytes;
	fake_clock_init(&cw.clk);
	cw.ring_seq = 4;
	cw.fence_ns = 100 * NS_PER_MS;
	cw.disk = mmap(NULL, cw.disk_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert_ptr_ne(cw.disk, MAP_FAILED);
	for (unsigned i = 0; i < CW_NODES; i++) {
		CDS_INIT_LIST_HEAD(&cw.node[i].engine);
		CDS_INIT_LIST_HEAD(&cw.node[i].late);
		CDS_INIT_LIST_HEAD(&cw.node[i].agents);
		for (unsigned k = 0; k < CW_NODES; k++)
			CDS_INIT_LIST_HEAD(&cw.node[i].wire[k]);
	}
	cw_boot(1);
	cw_do(1, cw_mkfs_coro);
	ck_assert_msg(cw_n(1)->ret == 0, "mkfs: %s", cw_n(1)->err.text);
	cw_off(1, false);
}

void cw_teardown(void)
{
	for (unsigned id = 1; id <= CW_NODES; id++) {
		struct cw_write *w, *next;

		if (cw_n(id)->on)
			cw_off(id, false);
		cds_list_for_each_entry_safe(w, next, &cw_n(id)->late, node)
			free(w);
	}
	munmap(cw.disk, cw.disk_bytes);
}

/* ---- a small change of metadata: a number in the header of group 0 -------------------------------------------------------------------- */

int cw_group_set(struct csvfs *fs, uint32_t value, bool commit)
{
	struct glock_holder gh;
	struct jnl_handle h;
	struct buf *b;
	uint64_t seq;
	int ret = glock_get(fs, OWN_GROUP(0), DLM_EX, 0, &gh);

	if (ret < 0)
		return ret;
	ret = buf_read(fs, csv_group_start(&fs->geo, 0), OWN_GROUP(0), CSV_MAGIC_GROUP, &b);
	if (!ret) {
		ret = jnl_begin(fs->jnl, 1, 0, &h);
		if (!ret) {
			buf_dirty(&h, b);
			le32_set(&((struct csv_group *)buf_data(b))->largest_run, value);
			seq = jnl_end(&h);
			if (commit)
				ret = jnl_commit(fs->jnl, seq);
		}
		buf_put(fs, b);
	}
	glock_put(&gh);
	return ret;
}

int cw_group_get(struct csvfs *fs, uint32_t *ret_value)
{
	struct glock_holder gh;
	struct buf *b;
	int ret = glock_get(fs, OWN_GROUP(0), DLM_PR, 0, &gh);

	if (ret < 0)
		return ret;
	ret = buf_read(fs, csv_group_start(&fs->geo, 0), OWN_GROUP(0), CSV_MAGIC_GROUP, &b);
	if (!ret) {
		*ret_value = le32_get(((struct csv_group *)buf_data(b))->largest_run);
		buf_put(fs, b);
	}
	glock_put(&gh);
	return ret;
}

uint32_t cw_group_on_disk(const struct csv_geom *g)
{
	return le32_get(((struct csv_group *)(cw.disk + (csv_group_start(g, 0) << CSV_BLOCK_SHIFT)))->largest_run);
}
