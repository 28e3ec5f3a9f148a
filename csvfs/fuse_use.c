/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuse_use.c - who has an image open, and how (R41): handles that count, and naming the node and process that is in the way.
 *
 * Who is refused is told in the log, and for csvctl, what is in the way: from the handles here, or by asking the other nodes (use_ask.h).
 */
#include "csvfs/fuse_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "utils/base/base.h"
#include "utils/base/text.h"

static const char *kind_text(enum csvfs_use k)
{
	return k == CSVFS_USE_RAW ? "through " RAW_NAME : "as a plain file for writing";
}

static const struct use *find_other(const struct fused *d, uint64_t ino, enum csvfs_use kind)
{
	const struct use *u;

	for (u = d->uses; u; u = u->next)
		if (u->ino == ino && u->kind != kind)
			return u;
	return NULL;
}

static bool find_here(void *arg, uint64_t ino, enum csvfs_use kind, struct use_other *ret)
{
	const struct fused *d = arg;
	const struct use *u = find_other(d, ino, kind);

	if (!u)
		return false;
	ret->nodeid = cluster_self(d->env->cluster);
	ret->pid = u->pid;
	memcpy(ret->process, u->process, sizeof(ret->process));
	return true;
}

void use_start(struct fused *d)
{
	use_asks_start(&d->asks, d->env, find_here, d);
}

static void refused(struct fused *d, uint64_t ino, enum csvfs_use kind, const char *what)
{
	struct use_refusal r = { .ino = ino, .kind = kind, .at_ns = sched_now_ns(d->sched) };
	enum csvfs_use other = kind == CSVFS_USE_RAW ? CSVFS_USE_PLAIN : CSVFS_USE_RAW;
	char path[NAMES_PATH_BYTES], who[NAMES_PATH_BYTES + 40];

	if (names_path(d->names, ino, path))
		snprintf(who, sizeof(who), "%s (inode %" PRIu64 ")", path, ino);
	else
		snprintf(who, sizeof(who), "inode %" PRIu64, ino);
	if (!find_here(d, ino, kind, &r.who))
		use_asks_others(&d->asks, ino, kind, &r.who);
	d->refusal[d->refusals++ % USE_REFUSALS] = r;
	if (r.who.nodeid)
		log_to(d->log, LOG_L_WARN, "image %s: %s refused: process %" PRIu32 " (%s) on node %" PRIu32 " has it open %s; "
					   "end that first", who, what, r.who.pid, r.who.process, r.who.nodeid, kind_text(other));
	else
		log_to(d->log, LOG_L_WARN, "image %s: %s refused: another node has it open %s (it did not say which process); "
					   "see there: csvctl vhd users", who, what, kind_text(other));
}

static bool is_refusal(int err)
{
	return err == -EBUSY || err == -CSV_E_BUSY_ELSEWHERE;
}

/* ---- handles --------------------------------------------------------------------------------------------------------------------- */

static void process_name(uint32_t pid, char ret[16])
{
	char path[40];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/comm", pid);
	snprintf(ret, 16, "?");
	f = fopen(path, "re");
	if (!f)
		return;
	if (fgets(ret, 16, f))
		ret[strcspn(ret, "\n")] = 0;
	csv_text_clean(ret);
	fclose(f);
}

int use_open(struct fop *op, uint64_t ino, uint32_t gen, enum csvfs_use kind, bool writing, uint64_t *ret_fh)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(op->req);
	struct fused *d = op->d;
	struct use *u;
	int err;

	*ret_fh = 0;
	u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	*u = (struct use){ .ino = ino, .kind = kind, .writing = writing, .pid = ctx ? (uint32_t)ctx->pid : 0 };
	*ret_fh = (uint64_t)(uintptr_t)u;
	names_path(d->names, ino, u->path);
	if (kind == CSVFS_USE_PLAIN && !writing)
		return 0;
	err = csvfs_image_open(d->fs, ino, gen, kind);
	if (err) {
		*ret_fh = 0;
		free(u);
		if (is_refusal(err))
			refused(d, ino, kind, kind == CSVFS_USE_RAW ? "opening it through " RAW_NAME : "opening it for writing");
		return err;
	}
	process_name(u->pid, u->process);
	u->since_ns = sched_now_ns(d->sched);
	u->counted = true;
	u->next = d->uses;
	d->uses = u;
	return 0;
}

const char *use_path(uint64_t fh)
{
	return ((const struct use *)(uintptr_t)fh)->path;
}

void use_close(struct fused *d, uint64_t fh)
{
	struct use *u = (struct use *)(uintptr_t)fh, **p;

	if (!u)
		return;
	csv_assertf(!u->lock_owners, "a handle is closed that programs have locked through");
	if (!u->counted) {
		free(u);
		return;
	}
	for (p = &d->uses; *p && *p != u; p = &(*p)->next)
		;
	csv_assertf(*p == u, "the kernel released a handle that is not open");
	*p = u->next;
	csvfs_image_close(d->fs, u->ino, u->kind);
	free(u);
}

/* ---- operations that an open raw view forbids ------------------------------------------------------------------------------------- */

static int guard_attr(struct fop *op, const struct csvfs_attr *a, struct use_guard *ret)
{
	int err;

	if (!S_ISREG(a->mode) || !(a->flags & CSV_INO_IMAGE))
		return 0;		/* no image: nobody has a raw view of it open */
	err = csvfs_image_open(op->d->fs, a->ino, a->gen, CSVFS_USE_PLAIN);
	if (is_refusal(err))
		refused(op->d, a->ino, CSVFS_USE_PLAIN,
			op->kind == FOP_RENAME ? "renaming it" : op->kind == FOP_UNLINK ? "removing it" : "truncating it");
	if (!err)
		ret->ino = a->ino;
	return err;
}

int use_guard_name(struct fop *op, struct node dir, const char *name, struct use_guard *ret)
{
	struct csvfs_attr a;
	int err = csvfs_lookup(op->d->fs, dir.ino, dir.gen, name, &a);

	ret->ino = 0;
	/* What is wrong with the name is for the operation itself to say. */
	return err == -EINTR || err == -CSV_E_WITHDRAWN ? err : err ? 0 : guard_attr(op, &a, ret);
}

int use_guard_node(struct fop *op, struct node n, struct use_guard *ret)
{
	struct csvfs_attr a;
	int err = csvfs_getattr(op->d->fs, n.ino, n.gen, &a);

	ret->ino = 0;
	return err ? err : guard_attr(op, &a, ret);
}

void use_guard_end(struct fused *d, struct use_guard *g)
{
	if (g->ino)
		csvfs_image_close(d->fs, g->ino, CSVFS_USE_PLAIN);
	g->ino = 0;
}
