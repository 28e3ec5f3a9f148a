/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * proto.h - versions of what nodes say to each other, and how they settle on one, so that a cluster can be upgraded node by node.
 *
 * Two things have versions of their own, each node speaks a range of each:
 *	mesh		the frames on a link		settled by the two ends in the exchange before the link is up (real_link_auth.h);
 *							that there is one for every two is looked at in the JOINs, too
 *	messages	what is in frames and in	settled by all members of a view from their JOINs (cluster.c)
 *			ordered messages
 *
 * Invariants
 *  PV1 HELLO, ANSWER, PROOF and JOIN never change their layout, nor do magic number and version of a frame.  A range of zeros is that of
 *      who came before there were ranges: 1..1.
 *  PV2 A version is spoken only where everybody concerned announced it: the highest that is in all ranges.
 *  PV3 All members of a view have the same version of the messages for it: it is computed from the JOINs of the view's round alone, in
 *      which a member's range cannot change.  A message names its view, so it is read by the version it was written in.
 *  PV4 Nobody between two nodes can talk them down to an older version: both ranges are under both macs of the exchange; corosync's word
 *      is under its own.
 *  PV5 Who shares no version goes, the cluster stays: newcomers before those who were in a view in their present life, then the higher
 *      node id.  All compute the same who; until they are gone there is no view, so nobody misunderstands anybody.
 *  PV6 What was settled does not outlive its link or view.  So the version rises by itself when the last old member has gone, and falls when
 *      one comes back.  Nothing that lasts longer (the disk, a lock's value) may depend on it: those have versions of their own.
 *
 * Pure.  Any thread.
 */
#ifndef CSVFS_UTILS_ENV_PROTO_H
#define CSVFS_UTILS_ENV_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct proto_range { uint16_t min, max; };

/* What this build speaks.  Raising a max: keep the min where the last release's max was, or a cluster cannot be upgraded node by node. */
#define PROTO_MESH ((struct proto_range){ 1, 1 })
#define PROTO_MESSAGES ((struct proto_range){ 1, 1 })

#define PROTO_TEXT_MAX 320

static inline bool proto_eq(struct proto_range a, struct proto_range b) { return a.min == b.min && a.max == b.max; }
/* From two words on the wire; false: no range (min 0 or above max). */
bool proto_range_get(uint16_t min, uint16_t max, struct proto_range *ret);
/* The highest version in both, 0: none. */
uint16_t proto_common(struct proto_range a, struct proto_range b);

struct proto_member {
	uint32_t nodeid;
	struct proto_range messages, mesh;
	bool seated;			/* was in a view in its present life */
	bool out;			/* result: shares no version with those who stay */
};
/*
 * `m` in ascending order of node ids.  How many are out; what those who stay have in common, never empty.  (Of frames a pair is enough, but
 * ranges of which every two meet have a version that is in all.)
 */
unsigned proto_settle(struct proto_member *m, unsigned n, struct proto_range *ret_messages, struct proto_range *ret_mesh);

/* For people: "node 3 speaks versions 3..4 of the messages between nodes, node 1 1..2: ..." and what to do. */
void proto_refusal_text(const char *what, const char *a, struct proto_range a_speaks, const char *b, struct proto_range b_speaks, char *ret, size_t size);

#endif
