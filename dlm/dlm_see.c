/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_see.c - what a person can see of a lock manager: counters, who holds and waits, hand-overs, what a recovery waits for.
 *
 * Invariant: looking changes nothing.
 */
#include <stdlib.h>

#include "dlm/dlm_internal.h"

void dlm_stats(const struct dlm *d, struct dlm_stats *ret)
{
	struct dlm_res *r, *tmp;
	struct dlm_lkb *k;

	*ret = d->st;
	ret->resources = d->resources.n;
	ret->locks = d->clients.n;
	ret->phantoms = ret->waiting = ret->converting = 0;
	ret->rtt_ns = d->rtt_ns;
	ret->hold_ns = dlm_hold_ns(d);
	dlm_table_each(r, tmp, &d->resources) {
		cds_list_for_each_entry(k, &r->granted, node)
			ret->phantoms += k->phantom;
		cds_list_for_each_entry(k, &r->converting, node)
			ret->converting++;
		cds_list_for_each_entry(k, &r->waiting, node)
			ret->waiting++;
	}
}

const char *dlm_bad_reason(const struct dlm *d)
{
	return d->bad;
}

static void to_info(struct dlm *d, const struct dlm_lkb *k, bool waiting, struct dlm_holder_info *ret)
{
	ret->nodeid = k->who.nodeid;
	ret->incarnation = k->who.incarnation;
	ret->granted = waiting ? DLM_NL : k->mode;
	ret->wanted = k->want ? k->want : k->mode;
	ret->phantom = k->phantom;
	ret->waiting = waiting || k->want;
	ret->since_ms = (dlm_now_ns(d) - k->since_ns) / NS_PER_MS;
}

void dlm_walk(struct dlm *d, bool (*fn)(void *arg, const uint8_t *name, uint8_t name_len, const struct dlm_holder_info *h,
					uint32_t n), void *arg)
{
	struct dlm_holder_info *info = NULL;
	struct dlm_res *r, *tmp;
	uint32_t room = 0;
	bool more = true;

	dlm_table_each(r, tmp, &d->resources) {
		struct dlm_lkb *k;
		uint32_t n = 0;

		dlm_each_holder(k, r)
			n++;
		cds_list_for_each_entry(k, &r->waiting, node)
			n++;
		if (n > room) {
			free(info);
			room = n * 2;
			info = dlm_alloc(room * sizeof(*info));
		}
		n = 0;
		dlm_each_holder(k, r)
			to_info(d, k, false, &info[n++]);
		cds_list_for_each_entry(k, &r->waiting, node)
			to_info(d, k, true, &info[n++]);
		more = fn(arg, r->name.b, r->name.len, info, n);
		if (!more)
			break;
	}
	free(info);
}

bool dlm_res_stats(struct dlm *d, const uint8_t *name, uint8_t name_len, struct dlm_res_stats *ret)
{
	struct dlm_name key = { .len = name_len };
	struct dlm_res *r;

	if (!name_len || name_len > DLM_NAME_MAX)
		return false;
	memcpy(key.b, name, name_len);
	r = dlm_res_find(d, &key);
	if (!r)
		return false;
	*ret = r->st;
	ret->wait_ms = r->wait_ns / NS_PER_MS;
	ret->hold_ms = r->hold_ns / NS_PER_MS;
	return true;
}

void dlm_recovery_info(struct dlm *d, struct dlm_recovery_info *ret)
{
	memset(ret, 0, sizeof(*ret));
	dlm_recover_explain(d, &ret->state, &ret->waits_for);
	if (d->state == DLM_S_DOWN || dlm_running(d) || d->state == DLM_S_PURGED)
		return;
	ret->since_ms = (dlm_now_ns(d) - d->recovery_started_ns) / NS_PER_MS;
	if (d->state == DLM_S_AGREE) {
		for (uint32_t i = 0; i < d->view.n; i++)
			if (!d->heard[i])
				ret->missing[ret->n_missing++] = d->view.m[i].nodeid;
	} else if (d->state != DLM_S_SURVEY) {
		for (uint32_t i = 0; i < d->part.n; i++)
			if (!(d->ended & 1ull << i))
				ret->missing[ret->n_missing++] = d->part.m[i].nodeid;
	}
}
