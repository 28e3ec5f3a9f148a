/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * use_ask.c - see use_ask.h.
 */
#include "csvfs/use_ask.h"

#include <errno.h>
#include <string.h>

#include "utils/base/base.h"
#include "utils/base/text.h"

csv_assert_size(struct use_msg, 40);

struct use_ask {
	struct use_ask *next;
	uint64_t id, ino;
	unsigned left;
	uint32_t silent[CLUSTER_NODES_MAX];	/* asked, and not answered yet: `left` of them */
	bool found;
	struct use_other who;
	struct waitq wq;
};

static void answer(struct use_asks *a, uint32_t to, const struct use_msg *q)
{
	struct use_msg m = { .type = USE_MSG_ANSWER, .kind = q->kind, .ino = q->ino, .ask = q->ask };
	struct use_other who = { 0 };

	m.found = a->find(a->arg, le64_get(q->ino), (enum csvfs_use)q->kind, &who);
	if (m.found) {
		m.pid = le32_of(who.pid);
		memcpy(m.process, who.process, sizeof(m.process));
	}
	mesh_send(a->env->mesh, to, CHAN_USE, &m, sizeof(m));	/* lost: the asker's time is up some time */
}

static void answered(struct use_asks *a, uint32_t from, const struct use_msg *m)
{
	struct use_ask *o;
	unsigned i;

	for (o = a->open; o && (o->id != le64_get(m->ask) || o->ino != le64_get(m->ino)); o = o->next)
		;
	for (i = 0; o && i < o->left && o->silent[i] != from; i++)
		;
	if (!o || i == o->left)
		return;
	o->silent[i] = o->silent[--o->left];
	if (m->found && !o->found) {
		o->found = true;
		o->who.nodeid = from;
		o->who.pid = le32_get(m->pid);
		memcpy(o->who.process, m->process, sizeof(o->who.process));
		o->who.process[sizeof(o->who.process) - 1] = '\0';
		csv_text_clean(o->who.process);
	}
	sched_wake_all(a->env->sched, &o->wq);
}

static void on_message(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct use_msg m;

	if (len != sizeof(m))
		return;
	memcpy(&m, buf, sizeof(m));
	if (m.type == USE_MSG_ASK && m.kind <= CSVFS_USE_RAW)
		answer(arg, from.nodeid, &m);
	else if (m.type == USE_MSG_ANSWER)
		answered(arg, from.nodeid, &m);
}

void use_asks_start(struct use_asks *a, struct env *env, bool (*find)(void *arg, uint64_t ino, enum csvfs_use kind, struct use_other *ret), void *arg)
{
	a->env = env;
	a->find = find;
	a->arg = arg;
	mesh_register(env->mesh, CHAN_USE, on_message, a);
}

uint64_t use_asks_open(const struct use_asks *a)
{
	return a->open ? a->open->id : 0;
}

bool use_asks_others(struct use_asks *a, uint64_t ino, enum csvfs_use kind, struct use_other *ret)
{
	const struct cluster_view *v = cluster_current(a->env->cluster);
	struct use_ask o = { .id = env_rnd(a->env), .ino = ino }, **p;
	struct use_msg m = { .type = USE_MSG_ASK, .kind = (uint8_t)kind, .ino = le64_of(ino), .ask = le64_of(o.id) };
	struct sched *s = a->env->sched;
	uint64_t end = sched_now_ns(s) + USE_ASK_MS * NS_PER_MS;

	waitq_init(&o.wq);
	o.next = a->open;
	a->open = &o;
	for (uint32_t i = 0; v && i < v->n; i++)
		if (v->m[i].nodeid != cluster_self(a->env->cluster) && !mesh_send(a->env->mesh, v->m[i].nodeid, CHAN_USE, &m, sizeof(m)))
			o.silent[o.left++] = v->m[i].nodeid;
	while (o.left && !o.found && sched_wait_until(s, &o.wq, end, false) != -ETIMEDOUT)
		;
	for (p = &a->open; *p != &o; p = &(*p)->next)
		;
	*p = o.next;
	if (o.found)
		*ret = o.who;
	return o.found;
}
