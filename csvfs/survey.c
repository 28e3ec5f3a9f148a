/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * survey.c - the lock manager asks who owns slots: lives of the volume that no member has ever met.
 *
 * Quorum counts nodes, not daemons: two views of the volume that follow each other may have no daemon in common, and then nobody in the
 * second knows whose locks the first has left behind.  The slots on the disk do.
 *
 * Invariants
 *  SV1 The answer holds every ACTIVE slot as it was read after the question.  A slot that cannot be read is read again until it can:
 *      unreadable is never FREE, and until the answer comes nothing that matters is granted.
 *  SV2 One coroutine at a time; a newer question makes it start over.  A membership change needs nothing here: the lock manager
 *      ignores the answer to an old ticket and asks anew.
 *  SV3 A life that only its slot tells of may belong to a node that is starting just now, after all were cut off: it is fenced only when
 *      it has not come back (as another life, which proves the old one gone) within RCV_JOIN_WAIT_MS.  So whoever is to
 *      have it fenced waits as well, when he has the news from another member and never met it.
 */
#include "csvfs/recover_internal.h"

#define RETRY_MS 500u

struct survey { uint32_t n; struct cluster_node who[CSV_SLOTS_MAX]; };

/* False: a slot could not be read. */
static bool read_all(struct csvfs *fs, struct survey *ret)
{
	ret->n = 0;
	for (uint32_t s = 0; s < fs->geo.slots; s++) {
		struct csv_slot_info info;
		struct csv_err err = { 0 };

		if (slot_read(fs, s, &info, &err) < 0) {
			fs_log(fs, LOG_L_ERR, "volume %s: who owns slots cannot be told, new locks wait: %s", fs->geo.label, err.text);
			return false;
		}
		if (info.state == CSV_SLOT_ACTIVE)
			ret->who[ret->n++] = (struct cluster_node){ info.nodeid, info.incarnation };
	}
	return true;
}

/* SV3 */
static void note_found(struct recover *r, const struct survey *sv)
{
	for (uint32_t i = 0; i < sv->n; i++) {
		struct rcv_node *n;

		if (rcv_was_met(r, sv->who[i]))
			continue;
		n = rcv_get(r, sv->who[i]);
		if (!n || n->lost || n->fenced || n->found_ns)
			continue;
		n->found_ns = fs_now_ns(r->fs);
		fs_log(r->fs, LOG_L_NOTE, "node %u: its slot is in use and nobody here has met it: given %u ms to come back before it is fenced",
		       n->who.nodeid, RCV_JOIN_WAIT_MS);
	}
}

static void survey_coro(void *arg)
{
	struct recover *r = arg;
	struct csvfs *fs = r->fs;
	struct survey sv;
	uint64_t ticket;

	do {
		ticket = r->survey_ticket;
		if (read_all(fs, &sv)) {
			if (ticket == r->survey_ticket) {
				note_found(r, &sv);
				dlm_surveyed(fs->dlm, ticket, sv.who, sv.n);
				r->survey_done = ticket;
			}
		} else if (!fs_sleep_ms(fs, RETRY_MS)) {
			break;		/* withdrawn or leaving: no answer, nothing is granted */
		}
	} while (r->survey_ticket != r->survey_done);
	r->surveying = false;
}

void rcv_survey(struct recover *r, uint64_t ticket)
{
	r->survey_ticket = ticket;
	if (r->surveying)
		return;
	r->surveying = true;
	if (fs_spawn(r->fs, "survey", survey_coro, r) < 0) {
		r->surveying = false;
		fs_withdraw(r->fs, "out of memory while the owners of slots are to be read");
	}
}
