/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuse_use.c - who has an image open, and how (R41): handles that count, and naming the node and process that is in the way.
 *
 * The core refuses (csvfs_image_open); it knows no processes.  So whoever is refused asks the other members over the mesh:
 *
 *	refused here  --- question: who uses inode i the other way? --->  every member
 *		      <-- answer: process 4711 (qemu-system-x86), or nobody --
 *
 * and says in the log, and keeps for csvctl, what came back within ASK_MS.  Nothing depends on these messages being right.
 */
#include "csvfs/fuse_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "utils/base/base.h"

#define ASK_MS 300u

enum { MSG_ASK = 1, MSG_ANSWER = 2 };
struct use_msg {
	uint8_t type, kind, found, zero;	/* kind: enum csvfs_use of the one who was refused */
	struct le32 pid;
	struct le64 ino, ask;
	char process[16];
};
csv_assert_size(struct use_msg, 40);

struct use_ask {
	struct use_ask *next;
	uint64_t id, ino;
	unsigned left;
	bool found;
	struct use_refusal who;
	struct waitq wq;
};

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

/* ---- messages ------------------------------------------------------------------------------------------------------------------ */

static void on_message(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct fused *d = arg;
	struct use_msg m;
	struct use_ask *a;

	if (len != sizeof(m))
		return;
	memcpy(&m, buf, sizeof(m));
	if (m.type == MSG_ASK && m.kind <= CSVFS_USE_RAW) {
		const struct use *u = find_other(d, le64_get(m.ino), (enum csvfs_use)m.kind);

		m.type = MSG_ANSWER;
		m.found = u != NULL;
		m.pid = le32_of(u ? u->pid : 0);
		memset(m.process, 0, sizeof(m.process));
		if (u)
			memcpy(m.process, u->process, sizeof(m.process));
		mesh_send(d->env->mesh, from.nodeid, CHAN_USE, &m, sizeof(m));	/* lost: the asker's time is up some time */
	} else if (m.type == MSG_ANSWER) {
		for (a = d->asks; a && a->id != le64_get(m.ask); a = a->next)
			;
		if (!a || a->ino != le64_get(m.ino) || !a->left)
			return;
		a->left--;
		if (m.found && !a->found) {
			a->found = true;
			a->who.nodeid = from.nodeid;
			a->who.pid = le32_get(m.pid);
			memcpy(a->who.process, m.process, sizeof(m.process));
			a->who.process[sizeof(m.process) - 1] = 0;
		}
		sched_wake_all(d->sched, &a->wq);
	}
}

void use_start(struct fused *d)
{
	mesh_register(d->env->mesh, CHAN_USE, on_message, d);
}

/* Who is in the way elsewhere; nodeid 0 when nobody said so in time. */
static void ask(struct fused *d, uint64_t ino, enum csvfs_use kind, struct use_refusal *r)
{
	const struct cluster_view *v = cluster_current(d->env->cluster);
	struct use_ask a = { .id = env_rnd(d->env), .ino = ino }, **p;
	struct use_msg m = { .type = MSG_ASK, .kind = (uint8_t)kind, .ino = le64_of(ino), .ask = le64_of(a.id) };
	uint64_t end = sched_now_ns(d->sched) + ASK_MS * NS_PER_MS;

	waitq_init(&a.wq);
	a.next = d->asks;
	d->asks = &a;
	for (uint32_t i = 0; v && i < v->n; i++)
		if (v->m[i].nodeid != cluster_self(d->env->cluster) && !mesh_send(d->env->mesh, v->m[i].nodeid, CHAN_USE, &m, sizeof(m)))
			a.left++;
	while (a.left && !a.found && sched_wait_until(d->sched, &a.wq, end, false) != -ETIMEDOUT)
		;
	for (p = &d->asks; *p != &a; p = &(*p)->next)
		;
	*p = a.next;
	if (a.found) {
		r->nodeid = a.who.nodeid;
		r->pid = a.who.pid;
		memcpy(r->process, a.who.process, sizeof(r->process));
	}
}

static void refused(struct fused *d, uint64_t ino, enum csvfs_use kind, const char *what)
{
	const struct use *u = find_other(d, ino, kind);
	struct use_refusal r = { .ino = ino, .kind = kind, .at_ns = sched_now_ns(d->sched) };
	enum csvfs_use other = kind == CSVFS_USE_RAW ? CSVFS_USE_PLAIN : CSVFS_USE_RAW;
	char path[NAMES_PATH_BYTES], who[NAMES_PATH_BYTES + 40];

	if (names_path(d->names, ino, path))
		snprintf(who, sizeof(who), "%s (inode %" PRIu64 ")", path, ino);
	else
		snprintf(who, sizeof(who), "inode %" PRIu64, ino);
	if (u) {
		r.nodeid = cluster_self(d->env->cluster);
		r.pid = u->pid;
		memcpy(r.process, u->process, sizeof(r.process));
	} else {
		ask(d, ino, kind, &r);
	}
	d->refusal[d->refusals++ % USE_REFUSALS] = r;
	if (r.nodeid)
		log_to(d->log, LOG_L_WARN, "image %s: %s refused: process %" PRIu32 " (%s) on node %" PRIu32 " has it open %s; "
					   "end that first", who, what, r.pid, r.process, r.nodeid, kind_text(other));
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
