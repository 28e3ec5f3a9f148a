/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_def.c - what VMs are defined on the volume: asked of an agent, kept as items def/NAME so that every member has them at hand when
 * the volume itself has to be recovered first.
 *
 * A definition without a lease (the first start, or a cold one) is given one, with the `want` that the definition has.
 *
 * One thread.
 */
#include "migrator/mig_work.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define FRESH_NS (10 * NS_PER_SEC)
#define LIST_MS 3000u

const json_t *mig_def(const struct mig *m, const char *vm)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "def/%.*s", LEASE_NAME_BYTES, vm);
	return mig_item_get(m, key);
}

static bool has_volume(const struct mig *m, uint32_t nodeid)
{
	return mig_host_ready(m, nodeid) && *mig_text(json_object_get(mig_host_of(m, nodeid), "host"), "volume");
}

static uint32_t host_but(const struct mig *m, uint32_t but)
{
	if (!m->view)
		return 0;
	if (m->cfg.self != but && has_volume(m, m->cfg.self))
		return m->cfg.self;
	for (uint32_t i = 0; i < m->view->n; i++)
		if (m->view->m[i].nodeid != but && has_volume(m, m->view->m[i].nodeid))
			return m->view->m[i].nodeid;
	return 0;
}

uint32_t mig_any_host(const struct mig *m)
{
	return host_but(m, 0);
}

/* What the list does not say, and never changes in a configuration. */
static json_int_t memory_of(struct mig *m, uint32_t host, const char *vm, json_int_t config)
{
	const json_t *old = mig_def(m, vm);
	struct mig_answer a;
	json_int_t v;

	if (old && mig_int(old, "config") == config && mig_int(old, "memory_bytes"))
		return mig_int(old, "memory_bytes");
	if (mig_call(m, host, "vm.show", json_pack("{s:s, s:I}", "vm", vm, "config", config), LIST_MS, &a))
		return 0;
	v = a.code ? 0 : mig_int(json_object_get(a.data, "definition"), "memory_bytes");
	mig_answer_done(&a);
	return v;
}

static void keep(struct mig *m, uint32_t host, const json_t *d)
{
	const char *vm = mig_text(d, "vm");
	char key[MIG_KEY_MAX];
	json_t *v;

	if (!lease_vm_valid(vm))
		return;
	v = json_pack("{s:s, s:s, s:I, s:I, s:b, s:s, s:I}", "vm", vm, "want", mig_text(d, "want"), "config", mig_int(d, "config"), "priority",
		      mig_int(d, "priority"), "ha", !json_is_false(json_object_get(d, "ha")), "error", mig_text(d, "error"), "memory_bytes",
		      memory_of(m, host, vm, mig_int(d, "config")));
	snprintf(key, sizeof(key), "def/%s", vm);
	if (*mig_text(d, "error") && strcmp(mig_text(d, "error"), mig_text(mig_item_get(m, key), "error")))
		mig_event(m, "error", vm, "", "its definition cannot be read, so it is not started: %s", mig_text(d, "error"));
	if (v && !json_equal(v, (json_t *)mig_item_get(m, key)))
		mig_item_put_take(m, key, v);
	else
		json_decref(v);
}

static enum lease_want want_of(const json_t *d)
{
	const char *w = mig_text(d, "want");

	return !strcmp(w, "run") ? LEASE_WANT_RUN : !strcmp(w, "paused") ? LEASE_WANT_PAUSED : LEASE_WANT_STOPPED;
}

struct lacking { struct mig *m; char vm[64][LEASE_NAME_BYTES]; unsigned n; const json_t *list; };

static bool in_list(const json_t *list, const char *vm)
{
	const json_t *d;
	size_t i;

	json_array_foreach(list, i, d)
		if (!strcmp(mig_text(d, "vm"), vm))
			return true;
	return false;
}

static bool find_gone(void *arg, const char *key, const json_t *value)
{
	struct lacking *g = arg;

	(void)value;
	if (!in_list(g->list, key + 4) && g->n < ARRAY_SIZE(g->vm))
		snprintf(g->vm[g->n++], LEASE_NAME_BYTES, "%s", key + 4);
	return true;
}

static bool deleting(const struct mig *m, const char *vm)
{
	char key[MIG_KEY_MAX];

	snprintf(key, sizeof(key), "deleting/%s", vm);
	return mig_item_get(m, key) != NULL;
}

static void give_lease(struct mig *m, const json_t *d)
{
	const char *vm = mig_text(d, "vm");
	const struct lease *l = mig_lease(m, vm);
	struct lease_cas cas = { .move = LEASE_CREATE, .role = LEASE_BY_COORD };

	/* one that a cold start made from an inventory knows nothing of the definition */
	if (l && (l->flags & LEASE_GUESSED) && !l->txid) {
		cas.move = LEASE_SET;
		cas.version = l->version;
	} else if (l) {
		return;
	}
	if (!lease_vm_valid(vm) || leasedb_is_open(mig_leases_db(m), vm) || deleting(m, vm) || *mig_text(d, "error"))
		return;
	snprintf(cas.vm, sizeof(cas.vm), "%s", vm);
	cas.want = want_of(d);
	cas.flags = json_is_false(json_object_get(d, "ha")) ? 0 : LEASE_HA;
	cas.priority = (uint8_t)csv_min(csv_max(mig_int(d, "priority"), (json_int_t)0), (json_int_t)255);
	mig_propose_unwatched(m, &cas);
}

static void refresh_coro(void *arg)
{
	struct mig *m = arg;
	struct lacking gone = { .m = m };
	uint32_t other = host_but(m, m->defs_failed), host = other ? other : mig_any_host(m);
	struct mig_answer a = { 0 };
	char key[MIG_KEY_MAX];
	bool whole, ours;
	json_t *d;
	size_t i;
	int rc = host ? mig_call(m, host, "vm.list", NULL, LIST_MS, &a) : -ENOENT;

	ours = mig_is_leader(m) && mig_settled(m);
	m->defs_failed = rc || a.code ? host : 0;		/* the next time another one is asked, where there is one */
	if (ours && host && (rc ? rc != -ECONNRESET : a.code != 0))	/* a view that ends takes the answer along */
		mig_known_unread(m, host, rc ? csv_err_describe(rc) : a.message);
	if (!rc && !a.code && ours) {
		gone.list = json_object_get(a.data, "items");
		json_array_foreach(gone.list, i, d)
			keep(m, host, d);
		whole = json_is_array(gone.list) && json_is_true(json_object_get(a.data, "mounted"));
		if (whole)
			mig_items_each(m, "def/", find_gone, &gone);
		for (unsigned k = 0; k < gone.n; k++) {
			snprintf(key, sizeof(key), "def/%s", gone.vm[k]);
			mig_item_put_take(m, key, NULL);
		}
		if (whole)
			mig_known_read(m);
		json_array_foreach(gone.list, i, d)
			give_lease(m, d);
	}
	mig_answer_done(&a);
	m->defs_asking = false;
	mig_poke(m);
}

void mig_defs_refresh(struct mig *m)
{
	if (m->defs_asking || !mig_any_host(m) || (m->defs_ring == m->ring && mig_now(m) - m->defs_ns < FRESH_NS))
		return;
	m->defs_ring = m->ring;
	m->defs_ns = mig_now(m);
	/* Beside: a volume that has to be recovered first must not keep the leader from looking. */
	m->defs_asking = !mig_spawn(m, "definitions", refresh_coro, m);
}
