/*
 * dataplane.c - see dataplane.h.
 *
 * The gate is two words in struct dp_inode:
 *
 *	worker thread				control thread
 *	inflight++ (seq_cst)			gate = CLOSED (seq_cst)
 *	gate == OPEN ?				inflight == 0 ?
 *	  no: inflight--, notify, go slow	  no: wait for dp_table_drained()
 *	  yes: look up, submit			  yes: act
 *	complete: inflight--;
 *	  0 and gate closed: notify
 *
 * Sequential consistency of the four marked accesses gives DP2.
 */
#include "csvfs/dataplane.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <urcu.h>
#include <urcu/rculfhash.h>
#include <urcu/uatomic.h>

#include "utils/base/base.h"

enum { GATE_CLOSED = 0, GATE_OPEN = 1 };

struct map_box {
	struct rcu_head rcu;
	struct dp_map m;	/* must be last: flexible array */
};

struct dp_pages {
	struct rcu_head rcu;
	uint64_t size;
	unsigned shift;
	uint32_t n;
	struct dp_map *page[];		/* RCU, each */
};

struct dp_inode {
	uint64_t ino;
	uint32_t gen;
	int gate;			/* partner: inflight, see top */
	long inflight;
	int wrote;
	unsigned closers;		/* control thread only */
	struct dp_map *map;		/* RCU; or: */
	struct dp_pages *pages;		/* RCU */
	struct cds_lfht_node node;
	struct cds_list_head all;	/* of t->inodes, or t->dying; control thread only */
	struct rcu_head rcu;
};

struct dp_table {
	struct dp_config cfg;
	struct cds_lfht *ht;
	struct waitq drain;
	struct cds_list_head inodes;
	struct cds_list_head dying;	/* freed by their owner while a request was inside: they stay until it has left */
	bool closed;			/* withdrawn: no gate opens any more */
	uint64_t gate_closes;
	/* counters of workers: relaxed, for people */
	unsigned long fast_reads, fast_writes, slow_gate, slow_map;
};

static unsigned long key_hash(uint64_t ino)
{
	return (unsigned long)(ino * 0x9e3779b97f4a7c15ull >> 16);
}

static int node_match(struct cds_lfht_node *n, const void *key)
{
	return caa_container_of(n, struct dp_inode, node)->ino == *(const uint64_t *)key;
}

static void yield_at(struct dp_table *t, const char *step)
{
	if (t->cfg.yield)
		t->cfg.yield(t->cfg.arg, step);
}

/* ---- maps ------------------------------------------------------------------------------------------------ */

struct dp_map *dp_map_new(uint32_t max_extents)
{
	struct map_box *b;

	if (max_extents > DP_EXTENTS_MAX)
		return NULL;
	b = calloc(1, sizeof(*b) + max_extents * sizeof(struct dp_extent));
	return b ? &b->m : NULL;
}

static void box_free_rcu(struct rcu_head *h)
{
	free(caa_container_of(h, struct map_box, rcu));
}

static struct map_box *box_of(struct dp_map *m)
{
	return caa_container_of(m, struct map_box, m);
}

void dp_map_free(struct dp_map *m)
{
	if (m)
		free(box_of(m));
}

static void pages_free_rcu(struct rcu_head *h)
{
	struct dp_pages *p = caa_container_of(h, struct dp_pages, rcu);

	for (uint32_t i = 0; i < p->n; i++)
		dp_map_free(p->page[i]);
	free(p);
}

static void set_pages(struct dp_inode *d, struct dp_pages *p)
{
	struct dp_pages *old = d->pages;

	rcu_assign_pointer(d->pages, p);
	if (old)
		call_rcu(&old->rcu, pages_free_rcu);
}

static void set_map(struct dp_map **at, struct dp_map *m)
{
	struct dp_map *old = *at;

	rcu_assign_pointer(*at, m);
	if (old)
		call_rcu(&box_of(old)->rcu, box_free_rcu);
}

void dp_publish_take(struct dp_table *t, struct dp_inode *d, struct dp_map *m)
{
	(void)t;
	set_map(&d->map, m);
	set_pages(d, NULL);
}

int dp_pages_start(struct dp_table *t, struct dp_inode *d, uint64_t size, unsigned shift)
{
	uint64_t n = (size >> shift) + 1;
	struct dp_pages *p;

	(void)t;
	if (n > DP_PAGES_MAX)
		return -E2BIG;
	p = calloc(1, sizeof(*p) + n * sizeof(p->page[0]));
	if (!p)
		return -ENOMEM;
	p->size = size;
	p->shift = shift;
	p->n = (uint32_t)n;
	set_pages(d, p);
	set_map(&d->map, NULL);
	return 0;
}

bool dp_in_pages(const struct dp_inode *d)
{
	return d->pages != NULL;
}

void dp_page_take(struct dp_table *t, struct dp_inode *d, uint32_t page, struct dp_map *m)
{
	(void)t;
	csv_assert(d->pages && page < d->pages->n);
	set_map(&d->pages->page[page], m);
}

const struct dp_map *dp_page(const struct dp_inode *d, uint32_t page)
{
	return d->pages && page < d->pages->n ? d->pages->page[page] : NULL;
}

bool dp_has_map(const struct dp_inode *d)
{
	return d->map || d->pages;
}

bool dp_map_allows(const struct dp_inode *d, bool write)
{
	return d->map && (write ? d->map->may_write : d->map->may_read);
}

/* ---- table ----------------------------------------------------------------------------------------------- */

struct dp_table *dp_table_new(const struct dp_config *cfg)
{
	struct dp_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->cfg = *cfg;
	waitq_init(&t->drain);
	CDS_INIT_LIST_HEAD(&t->inodes);
	CDS_INIT_LIST_HEAD(&t->dying);
	t->ht = cds_lfht_new(4096, 4096, 0, 0, NULL);
	if (!t->ht) {
		free(t);
		return NULL;
	}
	return t;
}

struct dp_inode *dp_inode_new(struct dp_table *t, uint64_t ino, uint32_t gen)
{
	struct dp_inode *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->ino = ino;
	d->gen = gen;
	d->gate = GATE_CLOSED;
	d->closers = 1;
	cds_lfht_node_init(&d->node);
	rcu_read_lock();
	cds_lfht_add(t->ht, key_hash(ino), &d->node);
	rcu_read_unlock();
	cds_list_add_tail(&d->all, &t->inodes);
	return d;
}

static void gate_shut(struct dp_table *t, struct dp_inode *d)
{
	d->closers++;
	__atomic_store_n(&d->gate, GATE_CLOSED, __ATOMIC_SEQ_CST);
	t->gate_closes++;
}

static bool is_drained(const struct dp_inode *d)
{
	return __atomic_load_n(&d->inflight, __ATOMIC_SEQ_CST) == 0;
}

/* The caller keeps d alive while it waits: only the owner of the inode frees it. */
void dp_gate_close(struct dp_table *t, struct dp_inode *d)
{
	gate_shut(t, d);
	while (!is_drained(d) && !t->cfg.mutate_not_gated)
		sched_wait(t->cfg.sched, &t->drain);
}

/* ---- the end of an inode ------------------------------------------------------------------------------------- */

static void inode_free_rcu(struct rcu_head *h)
{
	free(caa_container_of(h, struct dp_inode, rcu));
}

/*
 * A gate that is open lets requests in although there is no map any more: between the two halves of dp_io_begin() they hold nothing but
 * inflight (DP1), and that must be true.
 *
 *	worker: inflight++, the gate is open	control: the lock is gone, nobody refers to the inode: dp_inode_free()
 *	worker: preempted			call_rcu: the memory goes
 *	worker: looks d->map up
 *
 * So who is inside keeps it: the gate is shut for good, and as at every closed gate whoever leaves last says so.
 */
void dp_inode_free(struct dp_table *t, struct dp_inode *d)
{
	if (!d)
		return;
	gate_shut(t, d);
	cds_list_del(&d->all);
	rcu_read_lock();
	cds_lfht_del(t->ht, &d->node);
	rcu_read_unlock();
	dp_publish_take(t, d, NULL);
	if (is_drained(d))
		call_rcu(&d->rcu, inode_free_rcu);
	else
		cds_list_add_tail(&d->all, &t->dying);
}

static void bury(struct dp_table *t, bool all)
{
	struct dp_inode *d, *tmp;

	cds_list_for_each_entry_safe(d, tmp, &t->dying, all) {
		if (!all && !is_drained(d))
			continue;
		cds_list_del(&d->all);
		call_rcu(&d->rcu, inode_free_rcu);
	}
}

void dp_table_drained(struct dp_table *t)
{
	bury(t, false);
	sched_wake_all(t->cfg.sched, &t->drain);
}

void dp_table_free(struct dp_table *t)
{
	struct dp_inode *d, *tmp;

	if (!t)
		return;
	cds_list_for_each_entry_safe(d, tmp, &t->inodes, all)
		dp_inode_free(t, d);
	bury(t, true);
	rcu_barrier();
	cds_lfht_destroy(t->ht, NULL);
	free(t);
}

/* ---- all of them ----------------------------------------------------------------------------------------------- */

bool dp_is_drained(const struct dp_table *t)
{
	struct dp_inode *d;

	cds_list_for_each_entry(d, &t->inodes, all)
		if (!is_drained(d))
			return false;
	cds_list_for_each_entry(d, &t->dying, all)
		if (!is_drained(d))
			return false;
	return true;
}

bool dp_close_all(struct dp_table *t, uint64_t deadline_ns)
{
	struct dp_inode *d;

	t->closed = true;
	cds_list_for_each_entry(d, &t->inodes, all)
		gate_shut(t, d);
	while (!dp_is_drained(t))
		if (sched_wait_until(t->cfg.sched, &t->drain, deadline_ns, false))
			return dp_is_drained(t);
	return true;
}

void dp_open_all(struct dp_table *t)
{
	csv_assert(cds_list_empty(&t->inodes));
	t->closed = false;
}

void dp_gate_open(struct dp_table *t, struct dp_inode *d)
{
	csv_assert(d->closers > 0);
	if (--d->closers == 0 && !t->closed)
		__atomic_store_n(&d->gate, GATE_OPEN, __ATOMIC_SEQ_CST);
}

bool dp_take_wrote(struct dp_inode *d)
{
	return __atomic_exchange_n(&d->wrote, 0, __ATOMIC_RELAXED) != 0;
}

/* ---- the steps of a request -------------------------------------------------------------------------------- */

/* The moment inflight is 0 the control thread may free d: the read lock keeps its memory for the look at the gate. */
static void leave(struct dp_table *t, struct dp_inode *d)
{
	bool wake;

	rcu_read_lock();
	wake = __atomic_sub_fetch(&d->inflight, 1, __ATOMIC_SEQ_CST) == 0 &&
	       __atomic_load_n(&d->gate, __ATOMIC_SEQ_CST) == GATE_CLOSED;
	rcu_read_unlock();
	if (wake && t->cfg.notify)
		t->cfg.notify(t->cfg.arg);
}

/* In: RCU read lock held.  Out: inflight is held when true. */
static bool enter(struct dp_table *t, struct dp_io *io)
{
	struct cds_lfht_iter it;
	struct cds_lfht_node *n;
	struct dp_inode *d;

	cds_lfht_lookup(t->ht, key_hash(io->ino), node_match, &io->ino, &it);
	n = cds_lfht_iter_get_node(&it);
	if (!n)
		return false;
	d = caa_container_of(n, struct dp_inode, node);
	if (d->gen != io->gen)
		return false;
	__atomic_add_fetch(&d->inflight, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&d->gate, __ATOMIC_SEQ_CST) != GATE_OPEN) {
		leave(t, d);
		return false;
	}
	io->dp = d;
	return true;
}

/* First extent that ends after `off`; m->n when none. */
static uint32_t extent_after(const struct dp_map *m, uint64_t off)
{
	uint32_t lo = 0, hi = m->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (m->e[mid].off + m->e[mid].len <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* [off, end) through one map. */
static bool lookup_map(const struct dp_map *m, struct dp_io *io, uint64_t off, uint64_t end)
{
	uint32_t i;

	if (!m || !(io->write ? m->may_write : m->may_read) || end > m->size)
		return false;
	for (i = extent_after(m, off); off < end; i++) {
		const struct dp_extent *e;
		struct dp_seg *s;

		if (i == m->n || m->e[i].off > off || io->nseg == DP_SEGS_MAX)
			return false;
		e = &m->e[i];
		s = &io->seg[io->nseg++];
		s->dev_off = e->dev_off + (off - e->off);
		s->buf_off = (uint32_t)(off - io->off);
		s->len = (uint32_t)(csv_min(end, e->off + e->len) - off);
		off += s->len;
	}
	return true;
}

/* In: RCU read lock held and the gate passed. */
static bool lookup(const struct dp_inode *d, struct dp_io *io, uint32_t align)
{
	uint64_t off = io->off, end = io->off + io->len;
	const struct dp_pages *p;

	if (io->len == 0 || end < off || (off | io->len) & (align - 1))
		return false;
	io->nseg = 0;
	p = rcu_dereference(d->pages);
	if (!p)
		return lookup_map(rcu_dereference(d->map), io, off, end);
	if (end > p->size)
		return false;
	while (off < end) {
		uint64_t page = off >> p->shift, page_end = csv_min(end, (page + 1) << p->shift);

		if (!lookup_map(rcu_dereference(p->page[page]), io, off, page_end))
			return false;
		off = page_end;
	}
	return true;
}

enum dp_result dp_io_begin(struct dp_table *t, struct dp_io *io)
{
	struct dp_inode *d;
	bool ok;

	/* Inside: no yield, no await.  The simulator's other threads may run before, between and after the two halves. */
	yield_at(t, "enter");
	rcu_read_lock();
	ok = enter(t, io);
	rcu_read_unlock();
	if (!ok) {
		uatomic_inc(&t->slow_gate);
		return DP_SLOW;
	}
	d = io->dp;		/* alive: inflight is held (DP1) */
	yield_at(t, "lookup");
	rcu_read_lock();
	ok = lookup(d, io, t->cfg.io_align);
	rcu_read_unlock();
	if (!ok) {
		io->dp = NULL;
		leave(t, d);
		uatomic_inc(&t->slow_map);
		return DP_SLOW;
	}
	yield_at(t, "submit");
	return DP_SUBMIT;
}

void dp_io_end(struct dp_table *t, struct dp_io *io)
{
	struct dp_inode *d = io->dp;

	yield_at(t, "complete");
	io->dp = NULL;
	if (io->write) {
		__atomic_store_n(&d->wrote, 1, __ATOMIC_RELAXED);
		uatomic_inc(&t->fast_writes);
	} else {
		uatomic_inc(&t->fast_reads);
	}
	leave(t, d);
}

void dp_stats(const struct dp_table *t, struct dp_stats *ret)
{
	ret->fast_reads = CMM_LOAD_SHARED(t->fast_reads);
	ret->fast_writes = CMM_LOAD_SHARED(t->fast_writes);
	ret->slow_gate = CMM_LOAD_SHARED(t->slow_gate);
	ret->slow_map = CMM_LOAD_SHARED(t->slow_map);
	ret->gate_closes = t->gate_closes;
}
