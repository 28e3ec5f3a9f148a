/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_proof.c - execution proofs: the fence agent's, checked against the node's own heartbeat, and a person's word.
 *
 *	UNTRIED -> BUSY: agent off, status says off -> the heartbeat stays as it is for 3 R -> proof given to the replicas
 *			 |				   | it moves
 *			 v				   v
 *		   NO_AGENT, FAILED: tried again	NO_SWITCH: "fence device of n3 does not switch n3"; tried again
 *
 * Invariants
 *  PR1 A node that is a member is never fenced; one that becomes a member meanwhile is not proven by what was begun before.
 *  PR2 An "off" that the node's heartbeat contradicts is void.  A heartbeat that cannot be read contradicts nothing and confirms
 *      nothing: without any reading there is no proof.
 *  PR5 Why there is no proof is an item that every member has (fence/NODE): shown alike on all, also by who leads next, until there is a proof or the
 *      node is a member again.
 *  PR4 A node of which only migratord ended is not fenced: its VMs run on (mig_node.c, ND3); nor is one that may be on its way (ND5).
 *  PR3 A person's word is refused while the node is a member or its heartbeat moves, unless --force names a reason, which is an event.
 *
 * One thread.
 */
#include "migrator/mig_work.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define AGAIN_NS (10 * NS_PER_SEC)
#define READ_NS (5 * NS_PER_SEC)

struct proof {
	struct cds_list_head node;
	struct mig *m;
	uint32_t nodeid;
	uint64_t inc;
	enum lease_fence state;
	uint64_t tried_ns;
};

static struct proof *find(const struct mig *m, uint32_t nodeid)
{
	struct proof *p;

	cds_list_for_each_entry(p, &m->proofs, node)
		if (p->nodeid == nodeid)
			return p;
	return NULL;
}

enum lease_fence mig_proof_state(const struct mig *m, uint32_t nodeid)
{
	const struct proof *p = find(m, nodeid);

	/* What failed is tried again after a while; until then it is the reason. */
	if (p && p->state > LEASE_FENCE_BUSY && mig_now(m) - p->tried_ns >= AGAIN_NS)
		return LEASE_FENCE_UNTRIED;
	return p ? p->state : LEASE_FENCE_UNTRIED;
}

const char *mig_proof_why(const struct mig *m, uint32_t nodeid)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "fence/%u", nodeid);
	return mig_text(mig_item_get(m, key), "why");
}

/* PR5.  "": there is a proof, or none is needed. */
static void say_why(struct mig *m, uint32_t nodeid, const char *why)
{
	char key[MIG_KEY_MAX];

	if (!strcmp(mig_proof_why(m, nodeid), why))
		return;
	snprintf(key, sizeof(key), "fence/%u", nodeid);
	mig_item_put_take(m, key, *why ? json_pack("{s:s}", "why", why) : NULL);
}

void mig_proof_view(struct mig *m)
{
	struct proof *p;

	cds_list_for_each_entry(p, &m->proofs, node)
		if (mig_is_member(m, p->nodeid) && p->state != LEASE_FENCE_BUSY) {
			p->state = LEASE_FENCE_UNTRIED;
			p->tried_ns = 0;
		}
	for (unsigned i = 0; i < m->cfg.n_nodes; i++)
		if (mig_is_member(m, m->cfg.node[i].nodeid))
			say_why(m, m->cfg.node[i].nodeid, "");
}

/* ---- the heartbeat ------------------------------------------------------------------------------------------------------------------------ */

struct reading { struct mig_hbeat_req req; struct mig *m; struct completion done; unsigned refs; };

static void reading_put(struct reading *r)
{
	if (!--r->refs)
		free(r);
}

static void on_read(struct mig_hbeat_req *req)
{
	struct reading *r = container_of(req, struct reading, req);

	completion_done(r->m->env->sched, &r->done, req->result);
	reading_put(r);
}

static int read_beats(struct mig *m, uint32_t nodeid, uint64_t *ret)
{
	struct reading *r = calloc(1, sizeof(*r));
	uint64_t end = mig_now(m) + READ_NS;
	int rc = 0;

	if (!r)
		return -ENOMEM;
	r->m = m;
	r->refs = 2;
	r->req.nodeid = nodeid;
	r->req.done = on_read;
	completion_init(&r->done);
	m->port->ops->hbeat_read(m->port, &r->req);
	while (!r->done.done && !rc)
		rc = sched_wait_until(m->env->sched, &r->done.wq, end, false);
	if (r->done.done)
		rc = r->req.result;
	if (!rc)
		*ret = r->req.beats;
	reading_put(r);
	return rc;
}

int mig_proof_beats(struct mig *m, uint32_t nodeid, unsigned *ret_moved)
{
	uint64_t first, now;
	int rc = read_beats(m, nodeid, &first);

	*ret_moved = 0;
	for (unsigned i = 0; !rc && i < 6 && !*ret_moved; i++) {
		coro_sleep_ns(m->env->sched, MIG_HBEAT_R_MS / 2 * NS_PER_MS);
		rc = read_beats(m, nodeid, &now);
		if (!rc && now != first)
			*ret_moved = 1;
	}
	return rc;
}

/* ---- the agent ---------------------------------------------------------------------------------------------------------------------------- */

struct fencing { struct fence_req req; struct mig *m; struct completion done; };

static void on_fenced(struct fence_req *req)
{
	struct fencing *f = container_of(req, struct fencing, req);

	completion_done(f->m->env->sched, &f->done, req->result);
}

static int run_agent(struct mig *m, uint32_t nodeid, uint64_t inc, struct csv_err *err)
{
	struct fencing f = { .m = m };
	int rc;

	f.req.node = (struct cluster_node){ nodeid, inc };
	f.req.done = on_fenced;
	completion_init(&f.done);
	m->env->fence->ops->submit(m->env->fence, &f.req);
	rc = completion_wait(m->env->sched, &f.done);
	*err = f.req.err;
	return rc;
}

static void failed(struct proof *p, enum lease_fence st, const char *why)
{
	struct mig *m = p->m;
	char cmd[128];

	if (p->state == LEASE_FENCE_BUSY && strcmp(mig_proof_why(m, p->nodeid), why)) {
		snprintf(cmd, sizeof(cmd), "csvctl node confirm-fenced %s --yes", mig_node_name(m, p->nodeid));
		mig_event(m, "error", mig_node_name(m, p->nodeid), cmd, "no proof that it is off: %s", why);
	}
	p->state = st;
	say_why(m, p->nodeid, why);
}

/* Until the replicas have it, the view changed, or it is a member. */
static void give(struct mig *m, uint32_t nodeid, uint64_t inc, enum leasedb_proof kind)
{
	struct leasedb *db = mig_leases_db(m);
	uint64_t end = mig_now(m) + 30 * NS_PER_SEC;

	while (!leasedb_proven(db, nodeid, inc) && mig_now(m) < end && !mig_is_member(m, nodeid)) {
		mig_prove_once(m, nodeid, inc, kind);
		mig_wait_change(m, mig_now(m) + 100 * NS_PER_MS);
	}
}

static void fence_coro(void *arg)
{
	struct proof *p = arg;
	struct mig *m = p->m;
	const char *name = mig_node_name(m, p->nodeid);
	struct csv_err err = CSV_ERR_INIT;
	unsigned moved = 0;
	char text[256];
	int rc;

	if (!*mig_proof_why(m, p->nodeid))
		mig_event(m, "warning", name, "", "lost with VMs whose right to run it has: its fence agent is asked to switch it off");
	rc = run_agent(m, p->nodeid, p->inc, &err);
	if (!rc && mig_is_member(m, p->nodeid)) {
		p->state = LEASE_FENCE_UNTRIED;
	} else if (rc) {
		failed(p, rc == -ENOENT ? LEASE_FENCE_NO_AGENT : LEASE_FENCE_FAILED, err.text);
	} else {
		rc = mig_proof_beats(m, p->nodeid, &moved);
		if (rc) {
			snprintf(text, sizeof(text), "its fence agent says off, but its heartbeat cannot be read: %s", csv_err_describe(rc));
			failed(p, LEASE_FENCE_FAILED, text);
		} else if (moved) {
			snprintf(text, sizeof(text), "fence device of %s does not switch %s: off was confirmed, and its heartbeat goes on", name, name);
			failed(p, LEASE_FENCE_NO_SWITCH, text);
		} else {
			say_why(m, p->nodeid, "");
			mig_event(m, "info", name, "", "switched off by its fence agent, and its heartbeat stands still: its VMs may go on elsewhere");
			give(m, p->nodeid, p->inc, LEASEDB_PROOF_FENCED);
			p->state = LEASE_FENCE_UNTRIED;
		}
	}
	p->tried_ns = mig_now(m);
	mig_poke(m);
}

void mig_proof_fence(struct mig *m, uint32_t nodeid, uint64_t inc)
{
	struct proof *p = find(m, nodeid);

	if (mig_is_member(m, nodeid) || mig_node_is_away(m, nodeid) || mig_node_may_come(m, nodeid))
		return;
	if (!p) {
		p = calloc(1, sizeof(*p));
		if (!p)
			return;
		p->m = m;
		p->nodeid = nodeid;
		cds_list_add_tail(&p->node, &m->proofs);
	}
	if (p->state == LEASE_FENCE_BUSY || (p->inc == inc && p->tried_ns && mig_now(m) - p->tried_ns < AGAIN_NS))
		return;
	p->inc = inc;
	p->state = LEASE_FENCE_BUSY;
	if (mig_spawn(m, "fence", fence_coro, p))
		p->state = LEASE_FENCE_UNTRIED;
}

void mig_proof_free(struct mig *m)
{
	struct proof *p, *next;

	cds_list_for_each_entry_safe(p, next, &m->proofs, node)
		free(p);
}

/* ---- a person's word ------------------------------------------------------------------------------------------------------------------------ */

static unsigned vms_of(struct mig *m, uint32_t nodeid)
{
	struct leasedb *db = mig_leases_db(m);
	unsigned n = 0;

	for (uint32_t i = 0; i < leasedb_count(db); i++) {
		const struct lease *l = leasedb_at(db, i);

		n += (l->state > LEASE_FREE && l->owner == nodeid) || (l->state == LEASE_BLOCKED && !l->owner);
	}
	return n;
}

json_t *mig_proof_confirm(const struct mig_ask *a)
{
	struct mig *m = a->m;
	uint32_t nodeid = (uint32_t)mig_int(a->args, "nodeid");
	const char *name = mig_node_name(m, nodeid), *force = json_string_value(json_object_get(a->args, "force"));
	const struct leasedb_node *n = leasedb_node(mig_leases_db(m), nodeid);
	unsigned moved = 0, vms;
	uint64_t inc;
	json_t *reply;
	int rc;

	if (!mig_node_of(m, nodeid))
		return rpc_reply_error(RPC_NOT_FOUND, "node %u: not in corosync's node list", nodeid);
	if (mig_is_member(m, nodeid))
		return rpc_reply_error(RPC_REFUSED, "%s: is a member of the cluster: it is not off", name);
	if (!mig_settled(m))
		return rpc_reply_error(RPC_NO_QUORUM, "the leases are not settled yet; again in a moment");
	rc = mig_proof_beats(m, nodeid, &moved);
	if (moved && (!force || !*force))
		return rpc_reply_error(RPC_REFUSED, "%s: its heartbeat on the disk moves: it is not off; switch it off first", name);
	if (rc && (!force || !*force))
		return rpc_reply_error(RPC_REFUSED, "%s: its heartbeat cannot be read (%s), so nobody can see that it stands still; if you are "
				       "sure: --force=REASON", name, csv_err_describe(rc));
	if (mig_is_member(m, nodeid))
		return rpc_reply_error(RPC_REFUSED, "%s: is a member of the cluster: it is not off", name);
	vms = vms_of(m, nodeid);
	reply = rpc_reply_new("node");
	rpc_reply_add_take(reply, json_pack("{s:s, s:s, s:s, s:i}", "node", name, "volume", "virtual machines", "result",
					    !vms ? "nothing waits for it" : a->dry_run ? "would be opened" : "confirmed", "vms", (int)vms));
	if (a->dry_run || !n || (!vms && !n->suspect))
		return reply;
	mig_event(m, "warning", name, "", "an operator says that it is off%s%s", moved || rc ? ", though its heartbeat says otherwise: " : "",
		  moved || rc ? force : "");
	inc = n->inc;
	give(m, nodeid, inc, LEASEDB_PROOF_OPERATOR);
	if (leasedb_proven(mig_leases_db(m), nodeid, inc))
		say_why(m, nodeid, "");
	mig_poke(m);
	if (!leasedb_proven(mig_leases_db(m), nodeid, inc)) {
		json_decref(reply);
		return rpc_reply_error(RPC_NO_QUORUM, "%s: nothing is confirmed: the cluster changed meanwhile; again in a moment", name);
	}
	return reply;
}
