/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * link_rig.h - a few nodes with links on loopback addresses in one loop, for the unit tests of utils/env/real_link*.c.
 */
#ifndef CSVFS_TESTS_UNIT_LINK_RIG_H
#define CSVFS_TESTS_UNIT_LINK_RIG_H

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "utils/base/base.h"
#include "utils/env/mesh_frame.h"
#include "utils/env/real_link_auth.h"
#include "utils/env/real_link_internal.h"

#define NODES 3

/* Tests that run both ways set it; those of single bytes on the wire have none. */
static bool with_tls;

struct rig;
struct node {
	struct rig *r;
	uint32_t id;
	struct link_port *link;
	unsigned up[NODES + 1], down[NODES + 1];
	uint32_t got[NODES + 1];
	unsigned order_bad;
	bool refuse_frames;
	struct proto_range mesh, messages;	/* zeros: what this build speaks */
	struct logger *log;
};

struct rig {
	struct clock clk;
	struct sched *s;
	struct loop *l;
	uint64_t lockspace;
	unsigned n;
	struct node node[NODES + 1];
	struct real_nodes nodes;
	struct timer poll, over;
	bool (*until)(struct rig *r);
	bool timed_out;
	char key[64], other_key[64];
};

static inline void make_key(char *path, uint8_t fill)
{
	uint8_t key[128];
	int fd;

	strcpy(path, "test_env_link.XXXXXX");
	fd = mkstemp(path);
	memset(key, fill, sizeof(key));
	ck_assert_int_eq(write(fd, key, sizeof(key)), sizeof(key));
	close(fd);
}

static inline void on_up(void *arg, uint32_t peer)
{
	((struct node *)arg)->up[peer]++;
}

static inline void on_down(void *arg, uint32_t peer)
{
	((struct node *)arg)->down[peer]++;
}

static inline int on_frame(void *arg, uint32_t peer, const void *buf, size_t len)
{
	struct node *n = arg;
	uint32_t v;

	if (n->refuse_frames)
		return -EBADMSG;
	ck_assert_uint_ge(len, sizeof(v));
	memcpy(&v, buf, sizeof(v));
	n->order_bad += v != n->got[peer] + 1;
	n->got[peer] = v;
	return 0;
}

static const struct link_events events = { on_up, on_down, on_frame };

static inline void rig_init(struct rig *r, unsigned n)
{
	struct csv_err err = CSV_ERR_INIT;
	struct rnd_port rnd;
	uint64_t v;

	memset(r, 0, sizeof(*r));
	real_clock_init(&r->clk);
	real_rnd_init(&rnd);
	v = rnd.u64(&rnd);
	r->lockspace = rnd.u64(&rnd);
	r->s = sched_new(&r->clk);
	ck_assert_int_eq(loop_new(r->s, &r->l, &err), 0);
	make_key(r->key, 7);
	make_key(r->other_key, 8);
	r->n = n;
	r->nodes.n = n;
	r->nodes.no_tls = !with_tls;
	snprintf(r->nodes.keyfile, sizeof(r->nodes.keyfile), "%s", r->key);
	for (unsigned i = 0; i < n; i++) {
		struct real_node *k = &r->nodes.node[i];

		k->nodeid = i + 1;
		k->n_addrs = 1;
		snprintf(k->addr[0], sizeof(k->addr[0]), "127.%u.%u.%u", (unsigned)(v & 63) + 1, (unsigned)(v >> 8 & 255), i + 1);
		r->node[i + 1].r = r;
		r->node[i + 1].id = i + 1;
	}
}

static inline void node_start(struct rig *r, unsigned id)
{
	struct csv_err err = CSV_ERR_INIT;
	uint32_t all[NODES], n = 0;
	struct node *k = &r->node[id];

	ck_assert_msg(link_new_nodes(r->l, k->log, r->lockspace, id, &r->nodes, &k->link, &err) == 0, "%s", err.text);
	if (k->mesh.min)
		link_set_versions(k->link, k->mesh, k->messages);
	ck_assert_int_eq(k->link->ops->start(k->link, &events, k), 0);
	for (unsigned i = 1; i <= r->n; i++)
		if (i != id)
			all[n++] = i;
	k->link->ops->peers(k->link, all, n);
}

static inline void poll_fn(struct timer *t)
{
	struct rig *r = container_of(t, struct rig, poll);

	if (r->until(r))
		loop_stop(r->l);
	else
		timer_set(r->s, t, sched_now_ns(r->s) + NS_PER_MS);
}

static inline void over_fn(struct timer *t)
{
	struct rig *r = container_of(t, struct rig, over);

	r->timed_out = true;
	loop_stop(r->l);
}

static inline bool run_until(struct rig *r, bool (*until)(struct rig *r), unsigned ms)
{
	r->until = until;
	r->timed_out = false;
	timer_init(&r->poll, poll_fn);
	timer_init(&r->over, over_fn);
	timer_set(r->s, &r->poll, 0);
	timer_set(r->s, &r->over, sched_now_ns(r->s) + ms * NS_PER_MS);
	loop_run(r->l);
	timer_del(r->s, &r->poll);
	timer_del(r->s, &r->over);
	return !r->timed_out;
}

static inline bool all_up(struct rig *r)
{
	for (unsigned i = 1; i <= r->n; i++)
		for (unsigned k = 1; k <= r->n; k++)
			if (i != k && r->node[i].up[k] <= r->node[i].down[k])
				return false;
	return true;
}

static inline bool never(struct rig *r)
{
	(void)r;
	return false;
}

static inline void rig_done(struct rig *r)
{
	for (unsigned i = 1; i <= r->n; i++)
		real_link_free(r->node[i].link);
	run_until(r, never, 1);			/* handshakes that had ended are given back by the loop */
	loop_free(r->l);
	sched_free(r->s);
	unlink(r->key);
	unlink(r->other_key);
}

#endif
