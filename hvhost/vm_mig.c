/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vm_mig.c - live migration: what QEMU must be told, the letter between source and target, the watch over progress, and what a migration
 * took, step by step.
 *
 *	READY's letter (target -> source): {"said": 1, "addresses": [...], "port": N, "psk": "...", "accel": "tcg"}
 *	FAILED: {"said": 2, "text": "..."}	RESUMED: {"said": 3, "resume_boot_ns": N}
 */
#include "hvhost/vm_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hvhost/agent.h"
#include "utils/base/text.h"

#define WATCH_NS (250 * NS_PER_MS)
#define LATE_NS (200 * NS_PER_MS)
#define STREAM_NS (2 * NS_PER_SEC)	/* so long migrate_cancel has to work in the switch-over */
#define CANCEL_NS (500 * NS_PER_MS)	/* so long it has before that; the connection is ended then */
#define FIRST_DOWNTIME_MS 10u		/* QEMU stops the guest as soon as it believes that the rest fits into it */
#define TIMEOUT_MS 120000u
#define THROTTLE_MAX 80u		/* percent, until migratord says another */

static const char *const mandatory[] = { "events", "return-path", "pause-before-switchover", "late-block-activate", "validate-uuid" };

int vm_capabilities_check(struct qmp *q, struct sched *s, struct csv_err *err)
{
	json_t *list = NULL, *v;
	size_t i, k;
	int rc = q ? qmp_call(q, s, "query-migrate-capabilities", NULL, VM_QMP_MS, &list, err) : -EPIPE;

	for (k = 0; !rc && k < ARRAY_SIZE(mandatory); k++) {
		bool found = false;

		json_array_foreach(list, i, v) {
			const char *c = json_string_value(json_object_get(v, "capability"));

			found |= c && !strcmp(c, mandatory[k]);
		}
		if (!found)
			rc = csv_err_set(err, -CSV_E_UNSUPPORTED, "this QEMU lacks the capability \"%s\"; live migration needs QEMU 7.2 or newer",
					 mandatory[k]);
	}
	json_decref(list);
	return rc;
}

static int capabilities_set(struct qmp *q, struct sched *s, bool source, unsigned throttle, struct csv_err *err)
{
	json_t *a = json_array();

	for (size_t k = 0; k < ARRAY_SIZE(mandatory); k++)
		json_array_append_new(a, json_pack("{s:s, s:b}", "capability", mandatory[k], "state", 1));
	if (source)	/* throttles a guest that writes faster than the line takes: the first answer to no progress (vm_converge.h) */
		json_array_append_new(a, json_pack("{s:s, s:b}", "capability", "auto-converge", "state", throttle != 0));
	return qmp_call(q, s, "migrate-set-capabilities", json_pack("{s:o}", "capabilities", a), VM_QMP_MS, NULL, err);
}

/* The key as QEMU's object; an older one of an attempt before is replaced. */
static int tls_set(struct vm *vm, struct vm_qemu *q, const char *key, bool source, char *ret_id, size_t room, struct csv_err *err)
{
	struct sched *s = vm_sched(vm);
	char dir[256] = "";
	int rc = vm->h->ops->psk(vm->h, q, key, dir, sizeof(dir), err);

	ret_id[0] = '\0';
	if (rc || !*dir)
		return rc;
	snprintf(ret_id, room, source ? "tls-source" : "tls-target");
	rc = qmp_call(q->qmp, s, "object-del", json_pack("{s:s}", "id", ret_id), VM_QMP_MS, NULL, NULL);
	if (rc == -EPIPE || !q->qmp)
		return csv_err_set(err, -EPIPE, "the monitor's connection is gone");
	return qmp_call(q->qmp, s, "object-add", json_pack("{s:s, s:s, s:s, s:s}", "qom-type", "tls-creds-psk", "id", ret_id, "dir", dir,
							   "endpoint", source ? "client" : "server"), VM_QMP_MS, NULL, err);
}

static void uri_of(const char *address, unsigned port, char *ret, size_t room)
{
	snprintf(ret, room, strchr(address, ':') ? "tcp:[%s]:%u" : "tcp:%s:%u", address, port);
}

/* ---- target ---------------------------------------------------------------------------------------------------------------- */

static void key_make(struct vm *vm, char ret[static VM_PSK_BYTES])
{
	for (int i = 0; i < 4; i++)
		snprintf(ret + 16 * i, 17, "%016" PRIx64, env_rnd(vm->h->env));
}

/* QEMU chose the port. */
static int port_ask(struct vm *vm, struct vm_qemu *q, unsigned *ret, struct csv_err *err)
{
	json_t *r = NULL;
	const char *p;
	int rc = qmp_call(q->qmp, vm_sched(vm), "query-migrate", NULL, VM_QMP_MS, &r, err);

	p = json_string_value(json_object_get(json_array_get(json_object_get(r, "socket-address"), 0), "port"));
	*ret = p ? (unsigned)strtoul(p, NULL, 10) : 0;
	if (!rc && (!*ret || *ret > 65535))
		rc = csv_err_set(err, -EPROTO, "QEMU does not say on which port it waits for the migration");
	json_decref(r);
	return rc;
}

int vm_incoming(struct vm *vm, struct vm_qemu *q, struct csv_err *err)
{
	struct sched *s = vm_sched(vm);
	char uri[80], tls[24];
	int rc = vm_capabilities_check(q->qmp, s, err);

	key_make(vm, vm->in_psk);
	if (!rc && q->qmp)
		rc = tls_set(vm, q, vm->in_psk, false, tls, sizeof(tls), err);
	if (!rc && q->qmp)
		rc = capabilities_set(q->qmp, s, false, 0, err);
	if (!rc && q->qmp && *tls)
		rc = qmp_call(q->qmp, s, "migrate-set-parameters", json_pack("{s:s}", "tls-creds", tls), VM_QMP_MS, NULL, err);
	if (!rc && q->qmp) {
		uri_of(vm->h->n_addresses ? vm->h->address[0] : "127.0.0.1", 0, uri, sizeof(uri));
		rc = qmp_call(q->qmp, s, "migrate-incoming", json_pack("{s:s}", "uri", uri), VM_QMP_MS, NULL, err);
	}
	if (!rc && q->qmp)
		rc = port_ask(vm, q, &vm->in_port, err);
	if (!rc && !q->qmp)
		rc = csv_err_set(err, -EPIPE, "the monitor's connection is gone");
	if (!rc && vm->h->ops->stream_bound)
		vm->h->ops->stream_bound(vm->h, q, vm->in_port);
	return rc;
}

void vm_incoming_again(struct vm *vm, struct vm_qemu *q)
{
	memcpy(vm->in_psk, q->psk, sizeof(vm->in_psk));
	port_ask(vm, q, &vm->in_port, NULL);
}

/* ---- letters ------------------------------------------------------------------------------------------------------------------ */

json_t *vm_letter(struct vm *vm, uint32_t say)
{
	json_t *o = json_pack("{s:i}", "said", (int)say), *a;

	if (say == VMSM_SAY_READY) {
		a = json_array();
		for (unsigned i = 0; i < vm->h->n_addresses; i++)
			json_array_append_new(a, json_string(vm->h->address[i]));
		json_object_set_new(o, "addresses", a);
		json_object_set_new(o, "port", json_integer(vm->in_port));
		json_object_set_new(o, "psk", json_string(vm->in_psk));
		json_object_set_new(o, "accel", json_string(vm->q ? vm->q->accel : ""));
	} else if (say == VMSM_SAY_RESUMED) {
		json_object_set_new(o, "resume_boot_ns", json_integer((json_int_t)vm->move.resume_ns));
	} else if (*vm->why) {
		json_object_set_new(o, "text", json_string(vm->why));
	}
	return o;
}

static int ready_read(struct vm *vm, uint64_t txid, const json_t *body, struct csv_err *err)
{
	struct vm_move m = { 0 };
	const json_t *list = json_object_get(body, "addresses"), *v;
	const char *s, *accel = json_string_value(json_object_get(body, "accel"));
	int64_t port;
	size_t i;
	int rc = agent_int(body, "port", 1, 65535, &port, err);

	if (!rc)
		rc = agent_text(body, "psk", VM_PSK_BYTES - 1, &s, err);
	if (rc)
		return rc;
	if (strlen(s) != VM_PSK_BYTES - 1 || strspn(s, "0123456789abcdef") != VM_PSK_BYTES - 1)
		return csv_err_set(err, -EPROTO, "psk: 64 hexadecimal digits are wanted");
	snprintf(m.psk, sizeof(m.psk), "%s", s);
	json_array_foreach(list, i, v) {
		s = json_string_value(v);
		if (!s || strlen(s) >= VM_ADDRESS_BYTES || strspn(s, "0123456789abcdefABCDEF.:") != strlen(s) || !*s)
			return csv_err_set(err, -EPROTO, "addresses: an IP address is wanted");
		if (m.n_addresses < VM_ADDRESSES_MAX)
			snprintf(m.address[m.n_addresses++], VM_ADDRESS_BYTES, "%s", s);
	}
	if (accel && *accel && vm->q && *vm->q->accel && strcmp(accel, vm->q->accel))
		return csv_err_set(err, -CSV_E_UNSUPPORTED, "the target would run it with %s, here it runs with %s", accel, vm->q->accel);
	if (vm->move.txid != txid)
		vm_move_begin(vm, txid, 0);
	vm->move.port = (unsigned)port;
	memcpy(vm->move.psk, m.psk, sizeof(m.psk));
	memcpy(vm->move.address, m.address, sizeof(m.address));
	vm->move.n_addresses = m.n_addresses;
	return 0;
}

int vm_letter_read(struct vm *vm, uint64_t txid, const json_t *body, uint32_t *ret_said, struct csv_err *err)
{
	int64_t said, ns;
	const char *text = json_string_value(json_object_get(body, "text"));
	int rc = agent_int(body, "said", VMSM_SAY_READY, VMSM_SAY_RESUMED, &said, err);

	if (rc)
		return rc;
	*ret_said = (uint32_t)said;
	if (said == VMSM_SAY_READY) {
		rc = ready_read(vm, txid, body, err);
		if (rc == -CSV_E_UNSUPPORTED) {		/* said in order, and not to be followed */
			snprintf(vm->move.reason, sizeof(vm->move.reason), "%.230s", err->text);
			*ret_said = VMSM_SAY_FAILED;
			rc = 0;
		}
	} else if (said == VMSM_SAY_FAILED && vm->move.txid == txid) {
		snprintf(vm->move.reason, sizeof(vm->move.reason), "the target: %.220s", text ? text : "it failed");
	} else if (said == VMSM_SAY_RESUMED && vm->move.txid == txid && !vm->move.told_end) {
		uint64_t now = clock_boot_ns(vm->h->env->clock);

		if (agent_int_or(body, "resume_boot_ns", 0, INT64_MAX, 0, &ns, err))
			ns = 0;
		/* Another host's clock is of no use; of the same machine (a lab) it is exact. */
		vm->move.resume_ns = (uint64_t)ns >= vm->move.stop_ns && (uint64_t)ns <= now ? (uint64_t)ns : now;
		vm_move_step(vm, 7);
		vm_move_end(vm, "completed", "");
	}
	return rc;
}

/* ---- source --------------------------------------------------------------------------------------------------------------------- */

static unsigned throttle_of(const struct vm *vm)
{
	return vm->move.asked ? vm->move.p.throttle_max : THROTTLE_MAX;
}

static unsigned first_ms(const struct vm *vm)
{
	return vm->move.p.downtime_ms ? vm->move.p.downtime_ms : FIRST_DOWNTIME_MS;
}

static unsigned budget_ms(const struct vm *vm, const struct vm_qemu *q)
{
	return vm->move.p.budget_ms ? vm->move.p.budget_ms : q->downtime_ms ? q->downtime_ms : 300;
}

static int parameters_set(struct vm *vm, struct qmp *q, const char *tls, struct csv_err *err)
{
	uint64_t bps = vm->move.p.bandwidth_bps ? vm->move.p.bandwidth_bps : vm->h->bandwidth_bps ? vm->h->bandwidth_bps : 8ull << 30;
	json_t *p = json_pack("{s:I, s:i, s:s}", "max-bandwidth", (json_int_t)(bps / 8), "downtime-limit", (int)first_ms(vm), "tls-creds", tls);

	if (throttle_of(vm))
		json_object_set_new(p, "max-cpu-throttle", json_integer(throttle_of(vm)));
	return qmp_call(q, vm_sched(vm), "migrate-set-parameters", p, VM_QMP_MS, NULL, err);
}

int vm_migrate(struct vm *vm, struct vm_qemu *q, uint64_t txid, struct csv_err *err)
{
	struct sched *s = vm_sched(vm);
	char uri[80], tls[24];
	int rc;

	if (vm->move.txid != txid || !vm->move.port)
		return csv_err_set(err, -ENOTCONN, "the target has not said where it waits");
	rc = vm_capabilities_check(q->qmp, s, err);
	if (!rc && q->qmp)
		rc = tls_set(vm, q, vm->move.psk, true, tls, sizeof(tls), err);
	if (!rc && q->qmp)
		rc = capabilities_set(q->qmp, s, true, throttle_of(vm), err);
	if (!rc && q->qmp)
		rc = parameters_set(vm, q->qmp, tls, err);
	if (!rc && q->qmp) {
		uri_of(vm->move.n_addresses ? vm->move.address[0] : "127.0.0.1", vm->move.port, uri, sizeof(uri));
		rc = qmp_call(q->qmp, s, "migrate", json_pack("{s:s}", "uri", uri), VM_QMP_MS, NULL, err);
	}
	if (!rc && !q->qmp)
		rc = csv_err_set(err, -EPIPE, "the monitor's connection is gone");
	return rc;
}

/* ---- the watch over progress ---------------------------------------------------------------------------------------------------- */

struct watch { struct vm *vm; struct vm_qemu *q; uint64_t txid; };

static uint64_t num(const json_t *o, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(o, key));

	return v > 0 ? (uint64_t)v : 0;
}

static struct vm_converge_sample sample_of(const json_t *r)
{
	const json_t *ram = json_object_get(r, "ram");

	return (struct vm_converge_sample){ .passes = num(ram, "dirty-sync-count"), .remaining = num(ram, "remaining"),
					    .need_ms = num(r, "expected-downtime"), .throttle = (unsigned)num(r, "cpu-throttle-percentage") };
}

static void longer_pause(struct vm *vm, struct vm_qemu *q)
{
	char text[80];

	vm_converge_text(&vm->move.con, first_ms(vm), text, sizeof(text));
	vm_note(vm, "info", "", "its migration does not get through: %s", text);
	qmp_call(q->qmp, vm_sched(vm), "migrate-set-parameters", json_pack("{s:i}", "downtime-limit", (int)vm->move.con.limit_ms), VM_QMP_MS,
		 NULL, NULL);
}

static void give_up(struct vm *vm, uint64_t txid, const char *why)
{
	struct vmsm_event ev = { .ev = VMSM_EV_CANCEL, .txid = txid };

	snprintf(vm->move.reason, sizeof(vm->move.reason), "%s", why);
	vm_event(vm, &ev);
}

static void watch_coro(void *arg)
{
	struct watch *w = arg;
	struct vm *vm = w->vm;
	char text[200];
	struct vm_converge *con = &vm->move.con;
	uint64_t began = sched_now_ns(vm_sched(vm));

	vm_converge_init(con, first_ms(vm), budget_ms(vm, w->q), throttle_of(vm));
	for (;;) {
		struct vm_converge_sample s;
		enum vm_converge_act act;
		json_t *r = NULL;

		coro_sleep_ns(vm_sched(vm), WATCH_NS);
		if (vm->freed || vm->q != w->q || !w->q->qmp || w->q->mig != VMSM_M_ACTIVE || vm->move.txid != w->txid)
			break;
		/* migratord may say later how it is to be done */
		con->budget_ms = budget_ms(vm, w->q);
		if (sched_now_ns(vm_sched(vm)) > began + (vm->move.p.timeout_ms ? vm->move.p.timeout_ms : TIMEOUT_MS) * NS_PER_MS) {
			give_up(vm, w->txid, "not done within its time limit");
			break;
		}
		if (qmp_call(w->q->qmp, vm_sched(vm), "query-migrate", NULL, VM_QMP_MS, &r, NULL))
			continue;
		s = sample_of(r);
		vm->move.remaining = s.remaining;
		vm->move.total = num(json_object_get(r, "ram"), "total");
		json_decref(r);
		act = vm_converge_look(con, &s);
		vm->move.told_step = 0;		/* progress is news */
		vm_move_step(vm, 2);
		if (act == VM_CONVERGE_PAUSE && w->q->qmp)
			longer_pause(vm, w->q);
		if (act == VM_CONVERGE_CANCEL) {
			snprintf(text, sizeof(text), "the guest changes its memory faster than the line takes it: throttled to %u %%, a pause of %u ms was "
				 "allowed and %u ms would be needed", con->throttle, con->limit_ms, con->need_ms);
			give_up(vm, w->txid, text);
			break;
		}
	}
	vm_qemu_put(w->q);
	vm_put(vm);
	free(w);
}

static void stream_end(struct vm *vm)
{
	for (unsigned i = 0; vm->h->ops->stream_break && i < vm->move.n_addresses; i++)
		vm->h->ops->stream_break(vm->h, vm, vm->move.address[i], vm->move.port);
}

/*
 * From the switch-over on QEMU sends under its big lock: when the target's node falls silent its monitor does not answer, migrate_cancel
 * neither.  Then the connection itself is ended.
 */
static void stream_coro(void *arg)
{
	struct watch *w = arg;
	struct vm *vm = w->vm;
	uint64_t lost_ns = 0;

	for (;;) {
		coro_sleep_ns(vm_sched(vm), WATCH_NS);
		if (vm->freed || vm->q != w->q || w->q->gone || w->q->killing || (w->q->mig != VMSM_M_PRESWITCH && w->q->mig != VMSM_M_DEVICE) ||
		    vm->move.txid != w->txid)
			break;
		if (!vm->sm.give_up && vm->sm.peer_here)
			lost_ns = 0;
		else if (!lost_ns)
			lost_ns = sched_now_ns(vm_sched(vm));
		if (!lost_ns || sched_now_ns(vm_sched(vm)) - lost_ns < STREAM_NS)
			continue;
		lost_ns = 0;
		stream_end(vm);
	}
	vm_qemu_put(w->q);
	vm_put(vm);
	free(w);
}

/*
 * QEMU answers migrate_cancel before it is done ("cancelling").  Mostly that is over at once.  But while QEMU still tries to reach a host that
 * fell silent nothing ends it before TCP gives up, which is two minutes: then the attempt is ended from outside.
 */
void vm_cancel_wait(struct vm *vm, struct vm_qemu *q)
{
	struct sched *s = vm_sched(vm);

	for (int i = 0; i < 2; i++) {
		uint64_t end = sched_now_ns(s) + CANCEL_NS;

		while (q->mig == VMSM_M_ACTIVE && q->qmp && !q->gone && !q->killing && sched_wait_until(s, &vm->wq, end, false) != -ETIMEDOUT)
			;
		if (q->mig != VMSM_M_ACTIVE || q->gone || q->killing)
			return;
		if (!i)
			stream_end(vm);
	}
}

static void watch_start(struct vm *vm, struct vm_qemu *q, const char *name, void (*fn)(void *arg))
{
	struct watch *w = malloc(sizeof(*w));

	if (!w)
		return;
	*w = (struct watch){ vm, q, vm->move.txid };
	vm_get(vm);
	vm_qemu_get(q);
	if (sched_spawn(vm_sched(vm), name, fn, w))
		csv_panic("out of memory");
}

void vm_migration_watch(struct vm *vm, struct vm_qemu *q)
{
	if (q->mig == VMSM_M_ACTIVE)
		watch_start(vm, q, "watch", watch_coro);
}

void vm_stream_watch(struct vm *vm, struct vm_qemu *q)
{
	if (q)
		watch_start(vm, q, "stream", stream_coro);
}

void vm_migration_params(struct vm *vm, uint64_t txid, const struct vm_move_params *p)
{
	if (vm->move.txid != txid)
		vm_move_begin(vm, txid, 0);
	vm->move.p = *p;
	vm->move.asked = true;
}

/* ---- what it took ------------------------------------------------------------------------------------------------------------------ */

static double ms_between(uint64_t from, uint64_t to)
{
	return from && to > from ? (double)(to - from) / 1e6 : 0;
}

static void tell(struct vm *vm, const char *status)
{
	static const char *const name[] = { "", "prepare", "transfer", "switchover", "complete", "handoff", "accept", "quit" };
	const struct vm_move *m = &vm->move;
	uint64_t now = clock_boot_ns(vm->h->env->clock), end = m->told_end && m->resume_ns ? m->resume_ns : now;
	json_t *steps = json_array(), *o;
	unsigned last = 0;
	char text[80];

	for (unsigned i = 1; i < VM_STEPS; i++) {
		uint64_t until = now;

		if (!m->at_ns[i])
			continue;
		for (unsigned k = i + 1; k < VM_STEPS; k++)
			if (m->at_ns[k]) {
				until = m->at_ns[k];
				break;
			}
		json_array_append_new(steps, json_pack("{s:i, s:s, s:f}", "step", (int)i, "name", name[i], "ms", ms_between(m->at_ns[i], until)));
		last = i;
	}
	o = json_pack("{s:s, s:o, s:i, s:i, s:s, s:i, s:s, s:f, s:f, s:I, s:I, s:i, s:I, s:o}", "vm", vm->name,
		"txid", agent_u64(m->txid), "from", (int)vm->sm.conf.self, "to", (int)(m->to ? m->to : vm->sm.rec.peer), "status", status, "step",
		(int)last, "reason", m->reason, "total_ms", ms_between(m->at_ns[1], end), "pause_ms", ms_between(m->stop_ns, m->resume_ns),
		"stop_boot_ns", (json_int_t)m->stop_ns, "resume_boot_ns", (json_int_t)m->resume_ns, "percent",
		m->total ? (int)(100 - 100 * csv_min(m->remaining, m->total) / m->total) : 0, "remaining_bytes", (json_int_t)m->remaining,
		"steps", steps);
	if (o && m->con.limit_ms) {
		vm_converge_text(&m->con, first_ms(vm), text, sizeof(text));
		json_object_set_new(o, "passes", json_integer((json_int_t)m->con.passes));
		json_object_set_new(o, "needed_pause_ms", json_integer(m->con.need_ms));
		json_object_set_new(o, "pause_limit_ms", json_integer(m->con.limit_ms));
		json_object_set_new(o, "throttle_percent", json_integer(m->con.throttle));
		json_object_set_new(o, "policy", json_string(text));
	}
	vm->h->ops->migration(vm->h, vm, o);
}

/* From the switch-over on each message is one more that the guest waits for: only a step that lasts is told. */
static void late_coro(void *arg)
{
	struct watch *w = arg;
	struct vm *vm = w->vm;

	coro_sleep_ns(vm_sched(vm), LATE_NS);
	if (!vm->freed && vm->move.txid == w->txid) {
		vm->move.late = false;
		if (!vm->move.told_end)
			tell(vm, "active");
	}
	vm_qemu_put(w->q);
	vm_put(vm);
	free(w);
}

void vm_move_begin(struct vm *vm, uint64_t txid, uint32_t to)
{
	if (vm->move.txid != txid) {
		vm->move = (struct vm_move){ .txid = txid };
		vm->move.at_ns[1] = clock_boot_ns(vm->h->env->clock);
		log_to(vm->h->env->log, LOG_L_INFO, "%s: migration %016" PRIx64 ": step 1", vm->name, txid);
	}
	if (to) {
		vm->move.to = to;
		vm_move_step(vm, 2);
	}
}

void vm_move_step(struct vm *vm, unsigned step)
{
	struct vm_move *m = &vm->move;

	if (!m->txid || m->told_end || (step > 2 && !m->at_ns[2]))
		return;
	if (!m->at_ns[step]) {
		m->at_ns[step] = clock_boot_ns(vm->h->env->clock);
		log_to(vm->h->env->log, LOG_L_INFO, "%s: migration %016" PRIx64 ": step %u", vm->name, m->txid, step);
	}
	if (step > m->told_step) {
		m->told_step = step;
		if (step < 3 || !vm->q) {
			tell(vm, "active");
		} else if (!m->late) {
			m->late = true;
			watch_start(vm, vm->q, "late", late_coro);
		}
	}
}

void vm_move_end(struct vm *vm, const char *status, const char *reason)
{
	struct vm_move *m = &vm->move;

	if (!m->txid || m->told_end)
		return;
	m->told_end = true;
	if (reason != m->reason)
		snprintf(m->reason, sizeof(m->reason), "%s", reason);
	tell(vm, status);
}

/* ---- for people ---------------------------------------------------------------------------------------------------------------------- */

static const char *state_text(const struct vm *vm)
{
	const struct vm_qemu *q = vm->q;

	if (!q)
		return "gone";
	if (!q->known)
		return q->qmp || vm->sm.qemu == VMSM_Q_STARTING ? "starting" : "unresponsive";
	if (q->missed || (!q->qmp && !q->killing))
		return "unresponsive";
	if (q->killing)
		return "shutdown";
	return *q->run ? q->run : "paused";
}

json_t *vm_to_json(const struct vm *vm, const struct leasedb_item *inventory)
{
	const struct vm_qemu *q = vm->q;
	const struct lease *l = &vm->sm.rec;
	const char *role = "none";
	char uuid[CSV_UUID_TEXT_BYTES] = "";
	json_t *o;

	if (q && l->txid && q->txid == l->txid && !(l->flags & LEASE_MOVED && l->owner == vm->sm.conf.self))
		role = "target";
	else if (q && l->txid && q->mark.bound && (l->flags & LEASE_MOVED || l->state == LEASE_HANDOFF || lease_is_intent(l)))
		role = l->owner == vm->sm.conf.self && (l->flags & LEASE_MOVED) ? "run" : "source";
	else if (q && q->mark.bound)
		role = "run";
	o = json_pack("{s:s, s:s, s:I, s:o, s:s, s:s, s:s, s:s, s:I, s:s, s:s}", "vm", vm->name, "uuid", q ? csv_uuid_to_text(q->uuid, uuid) : "",
		      "config", (json_int_t)(q ? q->config : 0), "txid", agent_u64(q ? q->txid : 0), "qemu", state_text(vm), "io_error",
		      q && q->io_error ? q->why : "", "reason", vm->failed || (q && q->missed) ? vm->why : "", "command", "", "since_boot_ms",
		      (json_int_t)(q ? q->since_boot_ns / NS_PER_MS : 0), "accel", q ? q->accel : "", "role", role);
	if (o && inventory) {
		json_object_set_new(o, "epoch", json_integer((json_int_t)inventory->epoch));
		json_object_set_new(o, "flags", json_integer(inventory->flags));
		json_object_set_new(o, "ended", json_integer((json_int_t)inventory->ended));
		json_object_set_new(o, "offered_to", json_integer(inventory->peer));
		json_object_set_new(o, "offered_to_inc", agent_u64(inventory->peer_inc));
	}
	return o;
}
