/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmsim_hv.c - a node's hvhostd: the real core of every VM on a scheduler of its own, so that it can be killed at any moment; the line
 * to its migratord as the daemon keeps it (hvhost/hvhostd_cmd.c).
 */
#include "tests/sim/vmsim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct up { struct hv *hv; uint64_t life; struct vm_qemu *vq; };
struct hop { struct hv *hv; uint64_t life, line; unsigned vm; struct lease_cas cas; uint64_t ring, number, txid; uint32_t to; json_t *body; };

static struct hv *hv_of(struct vm_host *h)
{
	return container_of(h, struct hv, host);
}

static bool same_life(const struct hv *hv, uint64_t life)
{
	return hv->alive && hv->life == life;
}

/* ---- the host of the core ------------------------------------------------------------------------------------------------ */

static void spawn_fails(void *arg)
{
	struct up *u = arg;
	struct csv_err err = CSV_ERR_INIT;

	csv_err_set(&err, -ENOMEM, "no memory on this node");
	if (same_life(u->hv, u->life))
		vm_qemu_gone(u->vq, &err);
	free(u);
}

static void spawned(void *arg)
{
	struct up *u = arg;
	struct fq *q = u->vq->host;

	if (same_life(u->hv, u->life) && q->alive)
		fq_connect(q, u->hv, u->vq);
	else if (same_life(u->hv, u->life))
		vm_qemu_gone(u->vq, NULL);
	free(u);
}

static void host_spawn(struct vm_host *h, struct vm_qemu *vq)
{
	struct hv *hv = hv_of(h);
	struct world *w = hv->n->w;
	struct up *u = malloc(sizeof(*u));
	struct fq *q;

	*u = (struct up){ hv, hv->life, vq };
	if ((w->faults && chance(w, 1, 25)) || !hv->n->volume) {
		after(w, below(w, 20 * MS), spawn_fails, u);
		return;
	}
	q = fq_new(hv->n, (unsigned)vm_of_name(vm_name(vq->vm)), vq->id, vq->txid, vq->config, vq->incoming);
	q->mark = vq->mark;
	vq->host = q;
	w->counter[N_START]++;
	after(w, 5 * MS + below(w, 100 * MS), spawned, u);
	crash_point(hv->n);
}

static void kill_now(void *arg)
{
	fq_die(arg, "killed");
}

static void host_kill(struct vm_host *h, struct vm_qemu *vq)
{
	struct world *w = hv_of(h)->n->w;

	/* SIGKILL is on its way whatever becomes of the sender. */
	if (vq->host)
		after(w, below(w, 2 * MS), kill_now, vq->host);
}

static void host_release(struct vm_host *h, struct vm_qemu *vq)
{
	(void)h, (void)vq;
}

static int host_mark(struct vm_host *h, struct vm_qemu *vq, const struct vmsm_mark *m)
{
	struct fq *q = vq->host;

	if (q)
		q->mark = *m;
	(void)h;
	return 0;
}

static int host_psk(struct vm_host *h, struct vm_qemu *vq, const char *key, char *ret_dir, size_t room, struct csv_err *err)
{
	(void)h, (void)vq, (void)key, (void)room, (void)err;
	ret_dir[0] = '\0';
	return 0;
}

static void hop_propose(void *arg)
{
	struct hop *p = arg;
	struct mg *mg = &p->hv->n->mg;

	if (mg->alive && mg->line == p->line && p->line)
		mg_propose_for(mg, p->vm, &p->cas, p->ring, p->number, p->line);
	free(p);
}

/* Somebody cancels the migration, at the worst moment as at any other. */
static void cancel(void *arg)
{
	struct hop *p = arg;

	if (same_life(p->hv, p->life) && p->hv->vm[p->vm].vm) {
		story(p->hv->n->w, "%s: its migration is cancelled", vm_name_of(p->vm));
		vm_cancel(p->hv->vm[p->vm].vm, p->txid);
	}
	free(p);
}

static void host_propose(struct vm_host *h, struct vm *vm, const struct lease_cas *cas, uint64_t ring)
{
	struct hv *hv = hv_of(h);
	struct world *w = hv->n->w;
	unsigned i = (unsigned)vm_of_name(vm_name(vm));
	struct hop *p = malloc(sizeof(*p));

	hv->vm[i].number = ++hv->next_number;
	*p = (struct hop){ .hv = hv, .life = hv->life, .line = hv->n->mg.line, .vm = i, .cas = *cas, .ring = ring, .number = hv->next_number };
	story(w, "%s: n%u proposes %s from version %llu", vm_name(vm), hv->n->id, lease_move_name(cas->move), (unsigned long long)cas->version);
	after(w, 100000 + below(w, 500000), hop_propose, p);
	if (w->faults && cas->move == LEASE_HANDOVER && chance(w, 1, 12)) {
		struct hop *c = malloc(sizeof(*c));

		*c = (struct hop){ .hv = hv, .life = hv->life, .vm = i, .txid = cas->txid };
		after(w, below(w, 20 * MS), cancel, c);
	}
	crash_point(hv->n);
}

static void hop_say(void *arg)
{
	struct hop *p = arg;
	struct mg *mg = &p->hv->n->mg;

	if (mg->alive && mg->line == p->line && p->line)
		mg_letter(mg, p->to, p->vm, p->txid, p->body);
	else
		json_decref(p->body);
	free(p);
}

static void host_say(struct vm_host *h, struct vm *vm, uint32_t node, uint64_t txid, json_t *body_take)
{
	struct hv *hv = hv_of(h);
	struct hop *p = malloc(sizeof(*p));

	*p = (struct hop){ .hv = hv, .life = hv->life, .line = hv->n->mg.line, .vm = (unsigned)vm_of_name(vm_name(vm)), .txid = txid, .to = node,
			   .body = body_take };
	after(hv->n->w, 100000 + below(hv->n->w, 500000), hop_say, p);
	crash_point(hv->n);
}

static void host_changed(struct vm_host *h, struct vm *vm)
{
	(void)h, (void)vm;
}

static void host_migration(struct vm_host *h, struct vm *vm, json_t *news_take)
{
	struct world *w = hv_of(h)->n->w;

	(void)vm;
	w->counter[N_MIGRATED] += !strcmp(json_string_value(json_object_get(news_take, "status")), "completed");
	json_decref(news_take);
}

static void host_event(struct vm_host *h, struct vm *vm, const char *severity, const char *text, const char *command)
{
	struct vm_qemu *vq = vm_current(vm);
	const struct fq *q = vq ? vq->host : NULL;

	(void)severity, (void)command;
	if (q && q->alive && q->executing && strstr(text, "may not be"))
		violate(q->w, "VO4: %s: the reaper of n%u ends a QEMU that executes and is the only one", vm_name(vm), q->n->id);
	story(hv_of(h)->n->w, "n%u: %s", hv_of(h)->n->id, text);
}

static const struct vm_host_ops ops = {
	.spawn = host_spawn, .kill = host_kill, .release = host_release, .mark = host_mark, .psk = host_psk, .propose = host_propose,
	.say = host_say, .changed = host_changed, .migration = host_migration, .event = host_event,
};

/* ---- life ------------------------------------------------------------------------------------------------------------------- */

static struct hv_vm *vm_get(struct hv *hv, unsigned vm)
{
	struct hv_vm *v = &hv->vm[vm];

	if (!v->vm) {
		v->vm = vm_new(&hv->host, vm_name_of(vm));
		vm_mutate(v->vm, hv->n->w->mutate_sm);
		vm_remember(v->vm, hv->n->ended[vm]);
	}
	return v;
}

/* hvhostd_rebind.c */
static void rebind_coro(void *arg)
{
	struct vm *vm = arg;
	struct csv_err err = CSV_ERR_INIT;
	struct vm_qemu *vq = vm_current(vm);

	if (vq && vm_rebind(vm, &err))
		story(((struct fq *)vq->host)->w, "%s: %s", vm_name(vm), err.text);
}

static void frozen(void *arg)
{
	struct up *u = arg;

	if (!same_life(u->hv, u->life)) {
		free(u);
		return;
	}
	for (unsigned i = 0; i < VMS && u->hv->n->volume; i++) {
		struct vm *vm = u->hv->vm[i].vm;

		if (vm && vm_current(vm) && vm_current(vm)->state == VMSM_Q_IOERROR && sched_spawn(u->hv->s, "rebind", rebind_coro, vm))
			csv_panic("out of memory");
	}
	after(u->hv->n->w, NS_PER_SEC, frozen, u);
}

void hv_start(struct hv *hv)
{
	struct up *u = malloc(sizeof(*u));
	struct world *w = hv->n->w;
	struct fq *q;

	if (hv->alive || !hv->n->up) {
		free(u);
		return;
	}
	hv->alive = true;
	hv->life++;
	*u = (struct up){ .hv = hv, .life = hv->life };
	after(w, below(w, NS_PER_SEC), frozen, u);
	hv->s = sched_new(&w->clk.clock);
	hv->env = (struct env){ .sched = hv->s, .clock = &w->clk.clock, .rnd = &w->rnd_port };
	hv->host = (struct vm_host){ .ops = &ops, .env = &hv->env, .conf = vmsm_conf_default(hv->n->id, hv->n->inc), .next_id = now(w) };
	hv->host.conf.ready_ms = 5000;
	hv->host.conf.stop_ms = 3000;
	memset(hv->vm, 0, sizeof(hv->vm));
	cds_list_for_each_entry(q, &hv->n->qemus, node_list) {
		struct hv_vm *v;
		struct vm_qemu *vq;

		if (!q->alive)
			continue;
		v = vm_get(hv, q->vm);
		csv_assert(!vm_current(v->vm));
		vq = vm_adopt(v->vm, q->id, q->txid, q->config, &q->mark);
		fq_connect(q, hv, vq);
		w->counter[N_ADOPT]++;
	}
	for (unsigned i = 0; i < VMS; i++)
		if (hv->n->ended[i] && !hv->vm[i].vm)
			vm_adopt_none(vm_get(hv, i)->vm);
	mg_line_up(&hv->n->mg);
}

void hv_kill(struct hv *hv)
{
	struct fq *q;

	if (!hv->alive)
		return;
	hv->alive = false;
	cds_list_for_each_entry(q, &hv->n->qemus, node_list)
		q->c = NULL;
	sched_free(hv->s);
	hv->s = NULL;
	memset(hv->vm, 0, sizeof(hv->vm));
	mg_line_down(&hv->n->mg);
}

/* ---- what migratord says ------------------------------------------------------------------------------------------------------ */

void hv_record(struct hv *hv, const struct lease *l, uint64_t ring, bool open, bool peer_here)
{
	struct hv_vm *v = &hv->vm[vm_of_name(l->vm)];
	bool concerns = l->state != LEASE_NONE && (l->owner == hv->n->id || l->peer == hv->n->id);

	if (!v->vm && (concerns || open)) {
		vm_get(hv, (unsigned)vm_of_name(l->vm));
		vm_adopt_none(v->vm);
	}
	if (!v->vm)
		return;
	v->open = open;
	vm_record(v->vm, l, ring, open, peer_here);
}

void hv_unsettled(struct hv *hv)
{
	for (unsigned i = 0; i < VMS; i++)
		if (hv->vm[i].vm) {
			hv->vm[i].open = false;
			vm_unsettled(hv->vm[i].vm);
		}
}

void hv_outcome(struct hv *hv, unsigned vm, uint64_t number, int status)
{
	struct hv_vm *v = &hv->vm[vm];

	if (v->vm && number && number == v->number) {
		v->number = 0;
		vm_outcome(v->vm, status);
	}
}

void hv_letter(struct hv *hv, unsigned vm, uint64_t txid, json_t *body)
{
	if (hv->vm[vm].vm)
		vm_heard(hv->vm[vm].vm, txid, body);
}

int hv_inventory(struct hv *hv, struct leasedb_item *ret, uint32_t *ret_n)
{
	*ret_n = 0;
	for (unsigned i = 0; i < VMS; i++) {
		bool there;

		if (!hv->vm[i].vm)
			continue;
		if (vm_inventory(hv->vm[i].vm, &ret[*ret_n], &there))
			return -EAGAIN;
		*ret_n += there;
	}
	return 0;
}
