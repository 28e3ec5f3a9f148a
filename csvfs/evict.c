/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * evict.c - members that cannot reach each other over the mesh, although the cluster engine sees both (R4).
 *
 * Such a pair waits for each other for ever: locks of one, answers of the other.  So who has had no acknowledgement from a member for
 * UNREACHABLE_MS says so to all, in one ordered message; a moment later, when the others have said theirs, it asks for the decision,
 * and asks again as long as it is so.  All compute it from the same reports in the same order, so all come to the same result.
 *
 *	n1 (cannot reach n3)		n2			n3 (cannot reach n1)
 *	REPORT {n3}  ==============>	notes 1-3		notes 1-3
 *	notes 3-1			notes 3-1	<====== REPORT {n1}
 *	DECIDE	     ==============>	{n3}: says so		{n3}: that is me
 *	DECIDE	     ==============>	{n3}			{n3}: still, withdraws
 *
 * The decision: as long as two who remain cannot reach each other, one of those goes who was named and says nothing (EV5), else one who
 * has not mounted yet, else the one with the most such neighbours, of equals the highest id.
 *
 * What a membership change does: all reports are forgotten, for the mesh begins anew.  Everybody tells in his first report of a view
 * whether he has mounted.
 *
 * Invariants
 *  EV1 Nobody decides by itself: the set comes from what was delivered in one view up to the DECIDE.
 *  EV2 A report says what is so at present: it replaces the last one of the same member.
 *  EV3 Who was stopped himself does not complain: what is unreachable must be so in two looks, with time between to read what had come.
 *  EV4 Who was stopped and runs again stays: it goes only when it is named again GRACE_MS, of its own running, after it was named first;
 *      by then those who reach it again have said so.
 *  EV5 Who is named in a report answers with his own at once, over corosync.  Who has not by the decision does not run: he goes before
 *      those who complain of him.  (He cannot withdraw then; people are told to end him.)
 */
#include "csvfs/csvfs_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "utils/base/cursor.h"

#define UNREACHABLE_MS 6000u
#define LOOK_MS 500u
#define GRACE_MS 1000u			/* from our report to the decision, and from the first to the one that counts */
#define MSG_MAGIC 0x54435645u		/* "EVCT" */
#define MSG_VERSION 1u
#define MSG_HEAD_BYTES 12u
enum { MSG_REPORT = 1, MSG_DECIDE = 2, MSG_MOUNTED = 0x100 };	/* kind, and a flag of reports */

struct evict {
	struct csvfs *fs;
	struct cluster_user user;
	uint64_t report[CLUSTER_NODES_MAX];	/* by place in the view: bits of places it cannot reach */
	uint64_t fresh;			/* places that have said that they are not mounted yet */
	uint64_t silent;		/* places that were named and have not answered yet */
	uint64_t seen;			/* what we cannot reach by the last look */
	bool told;			/* our report of this view is out, and said: */
	uint64_t said;
	bool said_mounted;
	uint64_t said_ns;
	uint64_t gone;			/* decided in this view */
	uint64_t named_ns;		/* since when it is us; 0: it is not */
	uint64_t bad_messages, evictions;
	bool self;
	struct csvfs_eviction_info last[EVICT_KEEP];
	uint32_t n_last;
};

static const struct cluster_view *view_of(const struct evict *e)
{
	return cluster_current(e->fs->env->cluster);
}

static int place_of(const struct cluster_view *v, uint32_t nodeid)
{
	for (uint32_t i = 0; v && i < v->n; i++)
		if (v->m[i].nodeid == nodeid)
			return (int)i;
	return -1;
}

/* ---- deciding ----------------------------------------------------------------------------------------------------------------------- */

uint64_t evict_choose(const uint64_t *report, uint64_t fresh, uint64_t silent, uint32_t n)
{
	uint64_t edge[CLUSTER_NODES_MAX] = { 0 }, gone = 0;

	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t k = 0; k < n; k++) {
			if (i == k || !(report[i] >> k & 1))
				continue;
			edge[i] |= 1ull << k;
			edge[k] |= 1ull << i;
		}
	}
	for (;;) {
		uint32_t worst = 0;
		int most = 0;

		for (uint32_t i = 0; i < n; i++) {
			int broken = gone >> i & 1 ? 0 : __builtin_popcountll(edge[i] & ~gone);

			if (broken && silent >> i & 1)
				broken += 2 * CLUSTER_NODES_MAX;
			else if (broken && fresh >> i & 1)
				broken += CLUSTER_NODES_MAX;
			if (broken && broken >= most) {
				most = broken;
				worst = i;
			}
		}
		if (!most)
			return gone;
		gone |= 1ull << worst;
	}
}

static void list_names(const struct cluster_view *v, uint64_t set, char *ret, size_t size)
{
	size_t at = 0;

	*ret = 0;
	for (uint32_t i = 0; i < v->n && at < size; i++)
		if (set >> i & 1)
			at += (size_t)snprintf(ret + at, size - at, "%s%u", at ? ", " : "", v->m[i].nodeid);
}

/* With whom it cannot speak. */
static uint64_t neighbours(const struct evict *e, uint32_t n, uint32_t place)
{
	uint64_t set = e->report[place];

	for (uint32_t i = 0; i < n; i++)
		if (e->report[i] >> place & 1)
			set |= 1ull << i;
	return set & ~(1ull << place);
}

/* What people are told, as long as they ask. */
static void note(struct evict *e, struct cluster_node who, bool silent, const char *others)
{
	struct csvfs_eviction_info *i;

	if (e->n_last == EVICT_KEEP)
		memmove(e->last, e->last + 1, sizeof(e->last[0]) * --e->n_last);
	i = &e->last[e->n_last++];
	*i = (struct csvfs_eviction_info){ .who = who, .at_ns = fs_now_ns(e->fs) };
	if (silent)
		snprintf(i->why, sizeof(i->why), "its csvfsd does not answer node %s, although corosync runs there: it is stopped or hangs; if it does not "
			 "go on, on node %u kill -9 the csvfsd of this volume (its pid: /run/csvfs/*.lock), then umount and mount", others, who.nodeid);
	else
		snprintf(i->why, sizeof(i->why), "node %u and node %s cannot reach each other over the network, although corosync can; the members "
			 "agreed that node %u gives the volume up; check firewall and cabling between them, then type on node %u: umount and mount",
			 who.nodeid, others, who.nodeid, who.nodeid);
	fs_log(e->fs, LOG_L_WARN, "volume %s: node %u is evicted: %s", e->fs->geo.label, who.nodeid, i->why);
}

static void give_up(struct evict *e, const struct cluster_view *v, uint32_t me)
{
	char who[200];

	list_names(v, neighbours(e, v->n, me), who, sizeof(who));
	e->self = true;
	fs_withdraw(e->fs, "evicted: this node and node %s cannot reach each other over the network, although corosync can, and the members agreed "
			   "that this node goes; check firewall and cabling between them, then unmount and mount again", who);
}

static void decide(struct evict *e)
{
	const struct cluster_view *v = view_of(e);
	uint64_t gone = evict_choose(e->report, e->fresh, e->silent, v->n), new = gone & ~e->gone, now = fs_now_ns(e->fs);
	char who[200];

	e->gone |= gone;
	for (uint32_t i = 0; i < v->n; i++) {
		if (v->m[i].nodeid == e->fs->self.nodeid) {
			if (!(gone >> i & 1))
				e->named_ns = 0;
			else if (!e->named_ns)
				e->named_ns = now;
			else if (now - e->named_ns >= GRACE_MS * NS_PER_MS)	/* EV4 */
				give_up(e, v, i);
		} else if (new >> i & 1) {
			list_names(v, neighbours(e, v->n, i), who, sizeof(who));
			e->evictions++;
			note(e, v->m[i], e->silent >> i & 1, who);
		}
	}
}

/* Somebody reaches others again before the decision counted. */
static void spare(struct evict *e)
{
	const struct cluster_view *v = view_of(e);
	uint64_t gone = evict_choose(e->report, e->fresh, e->silent, v->n), spared = e->gone & ~gone;
	int me = place_of(v, e->fs->self.nodeid);

	e->gone &= gone;
	if (me >= 0 && !(gone >> me & 1))
		e->named_ns = 0;
	for (uint32_t i = 0; i < v->n; i++) {
		if (!(spared >> i & 1) || (int)i == me)
			continue;
		fs_log(e->fs, LOG_L_NOTE, "volume %s: node %u is reached again, and stays", e->fs->geo.label, v->m[i].nodeid);
		for (uint32_t k = 0; k < e->n_last; k++)
			if (e->last[k].who.nodeid == v->m[i].nodeid && e->last[k].who.incarnation == v->m[i].incarnation)
				memmove(e->last + k, e->last + k + 1, sizeof(e->last[0]) * (--e->n_last - k));
	}
}

/* ---- messages ------------------------------------------------------------------------------------------------------------------------ */

static int say(struct evict *e, unsigned kind, uint64_t set)
{
	const struct cluster_view *v = view_of(e);
	uint8_t buf[MSG_HEAD_BYTES + 4 * CLUSTER_NODES_MAX];
	struct csv_cursor c;
	uint32_t n = 0;

	csv_cursor_init(&c, buf, sizeof(buf));
	csv_put_u32(&c, MSG_MAGIC);
	csv_put_u16(&c, MSG_VERSION);
	csv_put_u16(&c, (uint16_t)kind);
	csv_put_u32(&c, (uint32_t)__builtin_popcountll(set));
	for (uint32_t i = 0; i < v->n; i++) {
		if (!(set >> i & 1))
			continue;
		csv_put_u32(&c, v->m[i].nodeid);
		n++;
	}
	return cluster_send(e->fs->env->cluster, CHAN_EVICT, buf, MSG_HEAD_BYTES + 4 * n);
}

static void on_msg(void *arg, struct cluster_node from, const void *buf, size_t len)
{
	struct evict *e = arg;
	const struct cluster_view *v = view_of(e);
	int at = place_of(v, from.nodeid), me = place_of(v, e->fs->self.nodeid);
	struct csv_cursor c;
	uint16_t version, kind;
	uint32_t magic, n;
	uint64_t set = 0;

	csv_cursor_init_ro(&c, buf, len);
	magic = csv_cur_u32(&c);
	version = csv_cur_u16(&c);
	kind = csv_cur_u16(&c);
	n = csv_cur_u32(&c);
	if (csv_cur_error(&c) || magic != MSG_MAGIC || version != MSG_VERSION ||
	    (kind != MSG_REPORT && kind != (MSG_REPORT | MSG_MOUNTED) && kind != MSG_DECIDE) ||
	    n > CLUSTER_NODES_MAX || len != MSG_HEAD_BYTES + 4 * (size_t)n || at < 0) {
		if (!e->bad_messages++)
			fs_log(e->fs, LOG_L_WARN, "message of node %u about unreachable members is malformed (%zu bytes): ignored", from.nodeid, len);
		return;
	}
	while (n--) {
		int k = place_of(v, csv_cur_u32(&c));

		if (k >= 0 && k != at)
			set |= 1ull << k;
	}
	if (kind == MSG_DECIDE) {
		decide(e);
		return;
	}
	if (me >= 0 && set & ~e->report[at] & 1ull << me)
		say(e, MSG_REPORT | (e->fs->slot != CSV_NO_SLOT ? MSG_MOUNTED : 0), e->said);	/* EV5 */
	e->silent |= set & ~e->report[at];
	e->silent &= ~(1ull << at);
	e->report[at] = set;
	e->fresh = kind & MSG_MOUNTED ? e->fresh & ~(1ull << at) : e->fresh | 1ull << at;
	spare(e);
}

static void on_suspend(void *arg)
{
	struct evict *e = arg;

	memset(e->report, 0, sizeof(e->report));
	e->seen = e->said = e->gone = e->fresh = e->silent = e->named_ns = 0;
	e->told = false;
}

/* Who has come back as another life is not gone any more. */
static void on_view(void *arg, const struct cluster_view *v)
{
	struct evict *e = arg;
	uint32_t n = 0;

	for (uint32_t i = 0; i < e->n_last; i++) {
		const struct cluster_node *m = cluster_view_find(v, e->last[i].who.nodeid);

		if (!m || m->incarnation == e->last[i].who.incarnation)
			e->last[n++] = e->last[i];
	}
	e->n_last = n;
}

/* ---- looking -------------------------------------------------------------------------------------------------------------------------- */

static uint64_t unreachable(const struct evict *e, const struct cluster_view *v)
{
	uint64_t set = 0;

	for (uint32_t i = 0; i < v->n; i++)
		if (v->m[i].nodeid != e->fs->self.nodeid && mesh_unacked_ms(e->fs->env->mesh, v->m[i].nodeid) >= UNREACHABLE_MS)
			set |= 1ull << i;
	return set;
}

static void look(struct evict *e)
{
	const struct cluster_view *v = view_of(e);
	bool mounted = e->fs->slot != CSV_NO_SLOT;
	uint64_t now, both;

	if (!v)
		return;
	now = unreachable(e, v);
	both = now & e->seen;			/* EV3 */
	e->seen = now;
	if (!e->told || both != e->said || mounted != e->said_mounted) {
		e->told = say(e, MSG_REPORT | (mounted ? MSG_MOUNTED : 0), both) >= 0;	/* else at the next look */
		if (both != e->said)
			e->said_ns = fs_now_ns(e->fs);
		e->said = both;
		e->said_mounted = mounted;
	} else if (both && fs_now_ns(e->fs) - e->said_ns >= GRACE_MS * NS_PER_MS) {
		e->said_ns = fs_now_ns(e->fs);
		say(e, MSG_DECIDE, 0);		/* not sent: said again */
	}
}

static void evict_coro(void *arg)
{
	struct csvfs *fs = arg;

	do
		look(fs->evict);
	while (fs_sleep_ms(fs, LOOK_MS));
}

bool csvfs_evicted(const struct csvfs *fs)
{
	return fs->evict && fs->evict->self;
}

void csvfs_eviction_walk(struct csvfs *fs, bool (*fn)(void *arg, const struct csvfs_eviction_info *i), void *arg)
{
	for (uint32_t i = 0; fs->evict && i < fs->evict->n_last; i++)
		if (!fn(arg, &fs->evict->last[i]))
			return;
}

int evict_init(struct csvfs *fs)
{
	struct evict *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->fs = fs;
	e->user = (struct cluster_user){ .suspend = on_suspend, .view = on_view, .msg = on_msg, .arg = e };
	fs->evict = e;
	cluster_register(fs->env->cluster, CHAN_EVICT, &e->user);
	return 0;
}

int evict_start(struct csvfs *fs)
{
	return fs_spawn(fs, "evict", evict_coro, fs);
}

void evict_free(struct csvfs *fs)
{
	free(fs->evict);
	fs->evict = NULL;
}
