/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mig_item.c - what all members know alike: small JSON values under a key, the newest revision wins.
 *
 *	job/ID		a job			migration/TXID	a live migration
 *	host/NODE	a node's HOST and VMs	node/NODE	drained, quarantined, losses
 *	away/NODE	its migratord ended	def/NAME	a definition on the volume
 *	defs		read, or why not	pin/VM		where it is started first
 *	deleting/VM	a delete is under way	fence/NODE	why there is no proof about it
 *
 * Nothing here decides who may run: that is the leases'.  A value that two sides changed apart is the one of the higher revision.
 *
 * Invariants
 *  MI3 Jobs and migrations: at most so many that are over, on every member; those that began first go.
 *  MI1 A revision is one more than the highest its maker has seen, so what was made knowing of another replaces it.  A restarted maker has
 *      seen nothing: when a value of its life before has the very revision, it makes its own anew.
 *  MI4 A migration that is over stays over: what its source tells late, made without knowing of that, adds figures and changes no state.
 *  MI2 After a view change every member tells all it has; whoever was away, or missed the end of a view, has everything again.
 *
 * One thread.
 */
#include "migrator/mig_work.h"

#define REV_MAX ((json_int_t)1 << 53)		/* nobody gets there by counting: who says more does not count */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static struct mig_item *find(const struct mig *m, const char *key)
{
	struct mig_item *i;

	HASH_FIND_STR(m->items, key, i);
	return i;
}

const json_t *mig_item_get(const struct mig *m, const char *key)
{
	const struct mig_item *i = find(m, key);

	return i && !json_is_null(i->value) ? i->value : NULL;
}

static void drop(struct mig *m, struct mig_item *i)
{
	HASH_DEL(m->items, i);
	json_decref(i->value);
	free(i);
}

static bool is_over(const struct mig_item *i)
{
	const char *st = mig_text(i->value, "state");

	return strcmp(st, "running") && strcmp(st, "active") && strcmp(st, "queued");
}

/* MI3.  One that is told again by somebody slower goes again. */
static void trim(struct mig *m, const struct mig_item *but)
{
	const char *prefix = !strncmp(but->key, "job/", 4) ? "job/" : !strncmp(but->key, "migration/", 10) ? "migration/" : NULL;
	struct mig_item *i, *tmp, *old = NULL;
	unsigned count = 0;

	if (!prefix)
		return;
	HASH_ITER(hh, m->items, i, tmp) {
		if (i == but || strncmp(i->key, prefix, strlen(prefix)) || !is_over(i))
			continue;
		count++;
		if (!old || mig_int(i->value, "began_real_ms") < mig_int(old->value, "began_real_ms"))
			old = i;
	}
	if (count >= (*prefix == 'j' ? MIG_JOBS_MAX : MIG_MIGRATIONS_MAX))
		drop(m, old);
}

/* True: it is news. */
static bool keep(struct mig *m, const char *key, uint64_t rev, uint32_t by, json_t *value)
{
	struct mig_item *i = find(m, key);

	m->rev = csv_max(m->rev, rev);
	if (i && (i->rev > rev || (i->rev == rev && i->by >= by)))
		return false;
	if (!i) {
		i = calloc(1, sizeof(*i));
		if (!i)
			return false;
		snprintf(i->key, sizeof(i->key), "%s", key);
		HASH_ADD_STR(m->items, key, i);
		trim(m, i);
	}
	json_decref(i->value);
	i->value = json_incref(value);
	i->rev = rev;
	i->by = by;
	mig_known_changed(m, key);
	return true;
}

/* Of the disk or of a member.  A migration stands under its own id: the leader ends what it finds by that. */
static bool is_item(const char *key, json_int_t rev, json_int_t by, const json_t *v)
{
	if (!*key || strlen(key) >= MIG_KEY_MAX || rev <= 0 || rev > REV_MAX || by <= 0 || (!json_is_object(v) && !json_is_null(v)))
		return false;
	if (strncmp(key, "migration/", 10) || json_is_null(v))
		return true;
	return strlen(key + 10) == 16 && mig_hex_get(v, "id") && !strcmp(mig_text(v, "id"), key + 10);
}

void mig_item_load(struct mig *m, const json_t *put)
{
	const char *key = mig_text(put, "k");
	json_int_t rev = mig_int(put, "r"), by = mig_int(put, "b");
	json_t *v = json_object_get(put, "v");

	if (is_item(key, rev, by, v))
		keep(m, key, (uint64_t)rev, (uint32_t)by, v);
}

static void tell(struct mig *m, const struct mig_item *i)
{
	if (m->view)
		mig_send_take(m, json_pack("{s:s, s:s, s:I, s:i, s:O}", "t", "put", "k", i->key, "r", (json_int_t)i->rev, "b", (int)i->by,
					   "v", i->value));
}

void mig_item_put_take(struct mig *m, const char *key, json_t *value)
{
	csv_assert(strlen(key) < MIG_KEY_MAX);
	if (!value)
		value = json_null();
	if (keep(m, key, m->rev + 1, m->cfg.self, value)) {
		tell(m, find(m, key));
		mig_poke(m);
	}
	json_decref(value);
}

/* MI4: what came late, with the state that the leader had written already; NULL: it changes none. */
static json_t *still_over(const struct mig *m, const struct mig_item *mine, const char *key, const json_t *v)
{
	static const char *const keys[] = { "state", "step", "percent", "total_ms" };
	const struct mig_item late = { .value = (json_t *)v };
	json_t *all;

	if (strncmp(key, "migration/", 10) || mig_leader(m) != m->cfg.self || !mine || !json_is_object(mine->value) || !is_over(mine) ||
	    !json_is_object(v) || is_over(&late))
		return NULL;
	all = json_deep_copy(v);
	for (size_t i = 0; all && i < ARRAY_SIZE(keys); i++)
		json_object_set(all, keys[i], json_object_get(mine->value, keys[i]));
	return all;
}

void mig_item_got(struct mig *m, uint32_t from, const json_t *msg)
{
	const char *key = mig_text(msg, "k");
	json_int_t rev = mig_int(msg, "r"), by = mig_int(msg, "b");
	json_t *v = json_object_get(msg, "v");
	const struct mig_item *mine;
	json_t *over;

	if (!is_item(key, rev, by, v)) {
		mig_log(m, LOG_L_WARN, "node %u: an item \"%.40s\" is malformed: ignored", from, key);
		return;
	}
	mine = find(m, key);
	if (mine && mine->rev == (uint64_t)rev && mine->by == (uint32_t)by && mine->by == m->cfg.self && !json_equal(mine->value, v)) {
		mig_item_put_take(m, key, json_incref(mine->value));	/* MI1: a life before of this daemon came as far */
		return;
	}
	over = still_over(m, mine, key, v);
	if (!keep(m, key, (uint64_t)rev, (uint32_t)by, v)) {
		json_decref(over);
		return;
	}
	if (over)
		mig_item_put_take(m, key, over);
	if (!strncmp(key, "host/", 5) && strtoul(key + 5, NULL, 10) == m->cfg.self)
		mig_host_tell(m);		/* of a life before: MA3 */
	mig_poke(m);
}

void mig_items_tell(struct mig *m)
{
	struct mig_item *i, *tmp;

	HASH_ITER(hh, m->items, i, tmp)
		tell(m, i);
}

void mig_items_each(const struct mig *m, const char *prefix, bool (*fn)(void *arg, const char *key, const json_t *value), void *arg)
{
	size_t n = strlen(prefix);
	struct mig_item *i, *tmp;

	HASH_ITER(hh, m->items, i, tmp)
		if (!strncmp(i->key, prefix, n) && !json_is_null(i->value) && !fn(arg, i->key, i->value))
			break;
}

void mig_items_free(struct mig *m)
{
	struct mig_item *i, *tmp;

	HASH_ITER(hh, m->items, i, tmp)
		drop(m, i);
}
