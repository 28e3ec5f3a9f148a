/* SPDX-License-Identifier: GPL-2.0-only */
/* core_fake.c - the fakes of core_fake.h: what buf.c, glock.c and the journal would give. */
#include "tests/unit/core_fake.h"

#include <errno.h>
#include <stdlib.h>

static struct fake_core *fake_of(struct csvfs *fs)
{
	return container_of(fs, struct fake_core, fs);
}

static bool hit(struct fake_core *f, uint64_t *k)
{
	if (!*k || --*k)
		return false;
	f->faults++;
	return true;
}

static uint32_t hash_of(uint64_t n)
{
	return (uint32_t)(n * 0x9e3779b97f4a7c15ull >> 48);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------------- */

struct buf *fake_buf_find(struct fake_core *f, uint64_t blkno)
{
	struct buf *b = f->hash[hash_of(blkno)];

	while (b && b->jb.blkno != blkno)
		b = b->hash_next;
	return b;
}

static struct buf *fake_buf_add(struct fake_core *f, uint64_t blkno, struct csv_owner owner)
{
	struct buf *b = calloc(1, sizeof(*b));

	b->jb.data = blk_alloc(CSV_BLOCK_SIZE);
	b->jb.blkno = blkno;
	b->jb.owner = owner;
	b->pins = 1;
	b->uptodate = true;
	b->hash_next = f->hash[hash_of(blkno)];
	f->hash[hash_of(blkno)] = b;
	f->n_bufs++;
	f->n_pins++;
	return b;
}

static void fake_buf_del(struct fake_core *f, struct buf *b)
{
	struct buf **at = &f->hash[hash_of(b->jb.blkno)];

	while (*at != b)
		at = &(*at)->hash_next;
	*at = b->hash_next;
	memset(b->jb.data, 0xdd, CSV_BLOCK_SIZE);
	free(b->jb.data);
	free(b);
	f->n_bufs--;
}

static void check_lock(struct fake_core *f, struct csv_owner owner, enum dlm_mode least)
{
	struct fake_lock *l;

	if (owner.type != CSV_OWN_GROUP)
		return;		/* locks of inodes are the caller's business, not played here */
	l = fake_lock_of(f, owner);
	csv_assertf(l->holders && l->gl.mode >= least, "block of group %llu without its lock", (unsigned long long)owner.id);
}

int buf_read(struct csvfs *fs, uint64_t blkno, struct csv_owner owner, uint32_t magic, struct buf **ret_buf)
{
	struct fake_core *f = fake_of(fs);
	struct buf *b = fake_buf_find(f, blkno);
	struct csv_err err = CSV_ERR_INIT;
	int rc;

	check_lock(f, owner, DLM_PR);
	if (!b) {
		f->n_reads++;
		b = fake_buf_add(f, blkno, owner);
		rc = blk_read(fs->env->blk, blkno * CSV_BLOCK_SIZE, b->jb.data, CSV_BLOCK_SIZE);
		if (hit(f, &f->fail_read))
			rc = -EIO;
		if (!rc)
			rc = mhdr_check(b->jb.data, fs->geo.uuid, magic, blkno, &owner, &err);
		if (rc) {
			f->n_pins--;
			fake_buf_del(f, b);
			if (rc == -CSV_E_CORRUPT)
				fs_log(fs, LOG_L_ERR, "%s", err.text);
			return rc;
		}
	} else {
		if (!csv_owner_eq(b->jb.owner, owner) || le32_get(((struct csv_mhdr *)b->jb.data)->magic) != magic)
			return -CSV_E_CORRUPT;
		b->pins++;
		f->n_pins++;
	}
	*ret_buf = b;
	return 0;
}

int buf_new(struct csvfs *fs, struct jnl_handle *h, uint64_t blkno, struct csv_owner owner, uint32_t magic, uint64_t generation,
	    struct buf **ret_buf)
{
	struct fake_core *f = fake_of(fs);
	struct buf *b = fake_buf_find(f, blkno);

	if (hit(f, &f->fail_new))
		return -ENOMEM;
	csv_assertf(!b, "block %llu allocated while it is in the cache", (unsigned long long)blkno);
	b = fake_buf_add(f, blkno, owner);
	memset(b->jb.data, 0, CSV_BLOCK_SIZE);
	mhdr_init(b->jb.data, magic, blkno, generation, owner);
	buf_dirty(h, b);
	*ret_buf = b;
	return 0;
}

void buf_put(struct csvfs *fs, struct buf *b)
{
	if (!b)
		return;
	csv_assert(b->pins);
	b->pins--;
	fake_of(fs)->n_pins--;
}

/* The handle's `j` is the fake core, its `txn` the fake transaction. */
void buf_dirty(struct jnl_handle *h, struct buf *b)
{
	struct fake_txn *t = (struct fake_txn *)h->txn;

	csv_assert(b->pins && t->open);
	check_lock((struct fake_core *)h->j, b->jb.owner, DLM_EX);
	b->jb.running = h->txn;
	for (uint32_t i = 0; i < t->n_dirty; i++)
		if (t->dirty[i] == b->jb.blkno)
			return;
	csv_assertf(t->n_dirty < t->blocks, "block %llu is the %uth of a transaction with room for %u", (unsigned long long)b->jb.blkno,
		    t->n_dirty + 1, t->blocks);
	if (t->n_dirty == t->max_dirty) {
		t->max_dirty = t->max_dirty * 2 + 16;
		t->dirty = realloc(t->dirty, t->max_dirty * sizeof(*t->dirty));
	}
	t->dirty[t->n_dirty++] = b->jb.blkno;
}

void buf_forget_take(struct csvfs *fs, struct jnl_handle *h, struct buf *b)
{
	struct fake_txn *t = (struct fake_txn *)h->txn;
	struct fake_core *f = fake_of(fs);

	csv_assertf(b->pins == 1, "block %llu freed with %u pins", (unsigned long long)b->jb.blkno, b->pins);
	csv_assertf(t->used_revokes < t->revokes, "%u revokes do not suffice", t->revokes);
	t->used_revokes++;
	f->n_pins--;
	fake_buf_del(f, b);
}

static void write_back(struct fake_core *f, struct buf *b)
{
	mhdr_seal(b->jb.data, f->fs.geo.uuid);
	csv_assert(blk_write(f->env.blk, b->jb.blkno * CSV_BLOCK_SIZE, b->jb.data, CSV_BLOCK_SIZE) == 0);
}

static void drop_bufs(struct fake_core *f, const struct csv_owner *owner)
{
	for (uint32_t i = 0; i < FAKE_HASH; i++) {
		struct buf *b = f->hash[i], *next;

		for (; b; b = next) {
			next = b->hash_next;
			if (b->pins || (owner && !csv_owner_eq(*owner, b->jb.owner)))
				continue;
			write_back(f, b);
			fake_buf_del(f, b);
		}
	}
}

void fake_evict(struct fake_core *f)
{
	drop_bufs(f, NULL);
}

/* ---- locks -------------------------------------------------------------------------------------------------------------------- */

struct fake_lock *fake_lock_of(struct fake_core *f, struct csv_owner o)
{
	uint32_t h = hash_of(o.id * 16 + o.type);
	struct fake_lock *l = f->lock[h];

	while (l && !csv_owner_eq(l->gl.owner, o))
		l = l->next;
	if (l)
		return l;
	l = calloc(1, sizeof(*l));
	l->gl.fs = &f->fs;
	l->gl.owner = o;
	l->gl.ops = o.type == CSV_OWN_GROUP ? &alloc_group_glock_ops : NULL;
	l->next = f->lock[h];
	f->lock[h] = l;
	return l;
}

struct glock *glock_find(struct csvfs *fs, struct csv_owner res)
{
	return &fake_lock_of(fake_of(fs), res)->gl;
}

void fake_release(struct fake_core *f, struct fake_lock *l)
{
	const struct glock_ops *ops = l->gl.ops;
	bool ex = l->gl.mode == DLM_EX;

	csv_assert(!l->holders);
	if (l->gl.mode == DLM_NL)
		return;
	if (ex && ops->before_release)
		ops->before_release(&l->gl, DLM_NL);
	if (ex && ops->fill_lvb)
		ops->fill_lvb(&l->gl, l->lvb);
	l->lvb_valid = l->lvb_valid || ex;
	if (ops->inval)
		ops->inval(&l->gl, DLM_NL);
	drop_bufs(f, &l->gl.owner);
	l->gl.mode = DLM_NL;
}

int glock_get(struct csvfs *fs, struct csv_owner res, enum dlm_mode mode, unsigned flags, struct glock_holder *ret_h)
{
	struct fake_core *f = fake_of(fs);
	struct fake_lock *l = fake_lock_of(f, res);

	ret_h->gl = NULL;
	if (l->gl.mode < mode || l->holders) {
		if (flags & GLOCK_LOCAL_ONLY)
			return -EAGAIN;
		f->n_locks_asked++;
		if (hit(f, &f->fail_lock))
			return -EINTR;
		if ((flags & GLOCK_NOQUEUE) && (l->held_elsewhere || l->holders))
			return -EAGAIN;
		csv_assertf(!l->holders, "group %llu: would wait for ever", (unsigned long long)res.id);
		csv_assertf(!l->held_elsewhere, "group %llu is held elsewhere: would wait for ever", (unsigned long long)res.id);
		if (l->gl.mode != DLM_NL)
			fake_release(f, l);
		l->gl.mode = mode;
		l->grants++;
		if (l->gl.ops && l->gl.ops->granted)
			l->gl.ops->granted(&l->gl, mode, l->lvb, l->lvb_valid);
	}
	l->holders++;
	ret_h->gl = &l->gl;
	ret_h->mode = mode;
	return 0;
}

void glock_put(struct glock_holder *h)
{
	if (!h->gl)
		return;
	csv_assert(container_of(h->gl, struct fake_lock, gl)->holders);
	container_of(h->gl, struct fake_lock, gl)->holders--;
	h->gl = NULL;
}

/* ---- transactions --------------------------------------------------------------------------------------------------------------- */

void fake_begin(struct fake_core *f, uint32_t blocks, uint32_t revokes, struct jnl_handle *ret_h)
{
	struct fake_txn *t = f->running;

	if (!t) {
		t = f->running = calloc(1, sizeof(*t));
		CDS_INIT_LIST_HEAD(&t->on_commit);
	}
	csv_assert(!t->open);
	t->open = true;
	t->blocks = blocks;
	t->revokes = revokes;
	t->n_dirty = t->used_revokes = 0;
	*ret_h = (struct jnl_handle){ .j = (struct jnl *)f, .txn = (struct jnl_txn *)t };
}

void fake_end(struct fake_core *f, struct jnl_handle *h)
{
	struct fake_txn *t = (struct fake_txn *)h->txn;

	csv_assert(t == f->running && t->open);
	t->open = false;
	f->peak_blocks = t->n_dirty;
	f->peak_revokes = t->used_revokes;
}

static void txn_over(struct fake_core *f, int status)
{
	struct fake_txn *t = f->running;
	struct jnl_on_commit *c, *next;

	if (!t)
		return;
	csv_assert(!t->open);
	f->running = NULL;
	cds_list_for_each_entry_safe(c, next, &t->on_commit, node) {
		cds_list_del(&c->node);
		c->fn(c, status);
	}
	free(t->dirty);
	free(t);
}

void fake_commit_all(struct fake_core *f)
{
	f->n_commits++;
	txn_over(f, 0);
}

void jnl_on_commit(struct jnl_handle *h, struct jnl_on_commit *c)
{
	cds_list_add_tail(&c->node, &((struct fake_txn *)h->txn)->on_commit);
}

int jnl_commit(struct jnl *j, uint64_t seq)
{
	struct fake_core *f = (struct fake_core *)j;

	(void)seq;
	if (hit(f, &f->fail_commit))
		return -CSV_E_WITHDRAWN;
	coro_yield(f->sched);
	fake_commit_all(f);
	return 0;
}

/* What mkfs needs; the real one is the journal's and tested there. */
int jnl_format(struct blk *blk, const struct jnl_geometry *g, struct csv_err *err)
{
	uint8_t *buf = blk_alloc(CSV_BLOCK_SIZE);
	int rc;

	memset(buf, 0, CSV_BLOCK_SIZE);
	mhdr_init(buf, CSV_MAGIC_JHEAD, g->start_blk, 0, (struct csv_owner){ CSV_OWN_SLOT, g->slot });
	mhdr_seal(buf, g->uuid);
	rc = blk_write(blk, g->start_blk * CSV_BLOCK_SIZE, buf, CSV_BLOCK_SIZE);
	free(buf);
	return rc ? csv_err_set(err, rc, "journal %u: %s", g->slot, csv_err_describe(rc)) : 0;
}

/* ---- the whole -------------------------------------------------------------------------------------------------------------------- */

static void log_write(struct logger *l, enum log_level level, const char *text)
{
	struct fake_core *f = container_of(l, struct fake_core, logger);

	(void)level;
	f->log_lines++;
	snprintf(f->log_last, sizeof(f->log_last), "%s", text);
}

struct fake_core *fake_core_new_on(struct blk *(*make)(struct sched *s, void *arg), void *arg, const struct csv_geom *geo)
{
	struct fake_core *f = calloc(1, sizeof(*f));

	fake_clock_init(&f->clock);
	f->sched = sched_new(&f->clock.clock);
	f->logger = (struct logger){ .write = log_write, .max = LOG_L_DEBUG };
	f->env = (struct env){ .sched = f->sched, .clock = &f->clock.clock, .log = &f->logger };
	f->env.blk = make(f->sched, arg);
	f->fs.env = &f->env;
	f->fs.state = CSVFS_ACTIVE;
	f->fs.jnl = (struct jnl *)f;
	if (geo) {
		f->fs.geo = *geo;
		csv_assert(alloc_init(&f->fs) == 0);
	}
	return f;
}

static struct blk *make_mem(struct sched *s, void *arg)
{
	struct blk *b;

	csv_assert(mem_blk_new(s, *(uint64_t *)arg, 512, &b) == 0);
	return b;
}

struct mk { struct fake_core *f; struct csvfs_mkfs_options o; };

static void mk_run(void *arg)
{
	struct mk *m = arg;
	struct csv_err err = CSV_ERR_INIT;
	int rc = csvfs_mkfs(m->f->env.blk, &m->o, &m->f->fs.geo, &err);

	csv_assertf(rc == 0, "%s", err.text);
}

struct fake_core *fake_core_new(uint64_t dev_bytes, uint32_t slots)
{
	struct fake_core *f = fake_core_new_on(make_mem, &dev_bytes, NULL);
	struct mk m = { .f = f, .o = { .slots = slots, .uuid = { 1, 2, 3, 4 }, .now_ns = 5 } };

	fake_run(f, mk_run, &m);
	csv_assert(alloc_init(&f->fs) == 0);
	return f;
}

void fake_core_free(struct fake_core *f)
{
	csv_assertf(f->n_pins == 0, "%llu pins are left", (unsigned long long)f->n_pins);
	txn_over(f, -CSV_E_WITHDRAWN);
	for (uint32_t i = 0; i < FAKE_HASH; i++) {
		struct fake_lock *l, *next;

		while (f->hash[i])
			fake_buf_del(f, f->hash[i]);
		for (l = f->lock[i]; l; l = next) {
			next = l->next;
			csv_assertf(!l->holders, "lock of %llu is still held", (unsigned long long)l->gl.owner.id);
			if (l->gl.ops && l->gl.ops->free)
				l->gl.ops->free(&l->gl);
			free(l);
		}
	}
	alloc_done(&f->fs);
	blk_close(f->env.blk);
	sched_free(f->sched);
	free(f);
}

void fake_run(struct fake_core *f, void (*fn)(void *arg), void *arg)
{
	csv_assert(sched_spawn(f->sched, "test", fn, arg) == 0);
	while (sched_coros(f->sched)) {
		sched_run(f->sched);
		if (sched_next_deadline(f->sched) != UINT64_MAX) {
			f->clock.now_ns = csv_max(f->clock.now_ns, sched_next_deadline(f->sched));
			sched_run_timers(f->sched, f->clock.now_ns);
		} else {
			csv_assertf(!sched_coros(f->sched) || sched_ready(f->sched), "the test waits for ever");
		}
	}
}
