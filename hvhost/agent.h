/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * agent.h - what migratord and hvhostd of one node say to each other, and the wire form of it.
 *
 * hvhostd listens on a stream socket (AGENT_SOCKET, mode 0600), migratord connects, and connects again after every break.  Both ways
 * one JSON object a line (hvhost/jline.h), asynchronously:
 *
 *	command	migratord -> hvhostd	{"cmd": "lease", "id": 17, "ring": "000000000000002a", "args": {...}}
 *	reply	hvhostd -> migratord	{"reply": 17, "code": 0, "message": "", "data": {...}}		in any order, exactly one each
 *	event	hvhostd -> migratord	{"event": "vm", "seq": 3, "boot_ms": 81234, "data": {...}}
 *
 * `code` is one of enum rpc_code (csvctl's exit codes), `message` is for people and names what to do.  64-bit numbers that are names
 * and not amounts (ring, incarnation, txid) are strings of 16 hexadecimal digits; amounts are JSON integers.
 *
 * Invariants
 *  AG1 Both sides are level-triggered: what matters is told again after a reconnect ("hello", "view", "leases" / the reply to hello
 *      and "propose" of what is still open), so a lost line is never a lost decision.  Events are news only.
 *  AG2 A command with a ring older than the newest "view" is refused with RPC_CONFLICT and changes nothing.  A view that is not
 *      quorate makes every lease *unknown* to hvhostd: unknown means "no cont, no start, no kill".
 *  AG3 hvhostd believes only records that migratord calls committed in the ring of the newest view.  An "outcome" is advice to stop
 *      waiting; the record that decides comes by "lease" or "leases".
 *  AG4 Everything else than hello before the first hello is refused; a second connection takes over (the first is closed).
 *
 * RECORD, a committed lease (struct lease of migrator/lease.h; migrator/lease_json.h makes and reads both):
 *	{"vm": "web1", "version": 12, "epoch": 4, "state": "NONE|FREE|RUNNING|HANDOFF|RECOVERING|BLOCKED", "was": "NONE|…",
 *	 "want": "run|paused|stopped", "reason": 0, "ha": true, "moved": false, "returned": false, "guessed": false, "priority": 100, "failures": 0,
 *	 "owner": 2, "owner_inc": "…", "peer": 3, "peer_inc": "…", "config": 7, "txid": "…"}		state NONE: deleted
 * CAS, a move that is proposed (struct lease_cas); who proposes it is filled in by migratord:
 *	{"vm", "version": 12, "move": "HANDOVER" (lease_move_name), "want", "reason": 0, "ha", "priority", "node": 0, "node_inc": "…",
 *	 "config": 0, "txid": "…"}
 *
 * Commands
 *  hello		{"api": 1, "node": "n1", "nodeid": 1, "incarnation": "…", "addresses": ["10.1.0.1", …]}
 *		addresses: own ones for migration traffic, best first.		data: {"api": 1, "host": HOST, "vms": [VM…]}
 *  view	{"quorate": true, "members": [{"nodeid": 1, "incarnation": "…"}…]}		ring in the envelope; makes leases unknown
 *  leases	{"items": [RECORD…], "open": ["web1"…]}	all of them, committed in this ring: the reaper may act from now on.  A ring may have
 *		so many that they come in parts: "more": true on all but the last.  open: VMs with a proposal of this node without outcome
 *		(leasedb_is_open): their records are not to be acted on until an "outcome" of theirs comes.
 *		"cold": true: after a cold start not every node has spoken yet (leasedb_knows_absent): a VM that is not in the list is *unknown*,
 *		not without a lease, and its QEMU is let alone.  When all have spoken the list comes again, without it
 *  lease	{RECORD}		one changed (committed)
 *  outcome	{"proposal": 5, "vm": "web1", "result": "committed|refused|unknown", "message": "…"}	after the "lease" that it made, if any.
 *		unknown: the view changed; what became of it is in the "leases" that were told before
 *  peer	{"from": 2, "incarnation": "…", "vm": "web1", "txid": "…", "body": {…}}	a letter of another node's hvhostd
 *  migrate	{"vm": "web1", "txid": "…", "to": 3, "downtime_ms": 30, "pause_budget_ms": 500, "throttle_percent": 80, "bandwidth_bps": 0,
 *		 "timeout_ms": 120000}
 *		to the owner's hvhostd only; 0: default, of throttle_percent: never throttled (vm_converge.h).  Code 13: it is under way, "migration" events tell of it; 12 with the reason
 *		when QEMU lacks a mandatory capability.
 *  cancel	{"vm", "txid"}		refused (4) after step 3
 *  inventory	{}			data: {"host": HOST, "vms": [VM…]}
 *  vm.define	{"config": CONFIG, "kernel": PATH, "initrd": PATH, "dry_run": false}	writes the next numbered configuration;
 *		data: {"config": N}.  CONFIG: hvhost/vmconf.h.  kernel, initrd: files of this node, copied into the VM's directory.
 *  vm.want	{"vm", "want"}		durable in the definition before the reply; the lease's want is changed by migratord after it
 *  vm.list	{}			data: {"items": [{"vm", "want", "config", "priority", "error"}…]}  definitions on the volume
 *  vm.show	{"vm", "config": N or 0}	data: {"vm", "want", "config", "newest", "definition": CONFIG, "console": PATH, "qemu": VM}
 *  vm.delete	{"vm", "dry_run"}	definition and configurations; never images.  Refused (4) while a QEMU of it is here.
 *  vm.dirty	{"vm", "seconds": 1}	data: {"pages_per_s", "memory_bytes", "rate_bps"} by calc-dirty-rate, for migration plans
 *  vm.kill	{"vm"}			its QEMU here is ended at once, its guest not asked; 3: none of it runs here.  With want run in its lease it
 *		counts as lost, and starts again
 *  rebind	{"vm"}			vm frozen by io-error: its disks are opened anew and it goes on; hvhostd does so by itself when the volume serves again
 *  quit	{}			hvhostd ends; QEMUs stay
 *
 * Events
 *  propose	{"proposal": 5, "ring": "…", "cas": CAS}	made from the record of that ring (leasedb_propose).  After a break of the connection the agent forgets its open ones:
 *		migratord lets them run to their end, names them in "open", and says "outcome" with "proposal": 0 then
 *  peer	{"to": 3, "vm", "txid", "body": {…}}		to be given to that node's hvhostd, at most once, in order
 *  vm		VM						whenever something of it changes
 *  host	{"host": HOST}					whenever its QEMU or its mount changes; memory that is free comes with "inventory" only
 *  migration	{"vm", "txid", "from", "to", "status": "active|completed|failed|cancelled", "step": 1…7, "reason", "total_ms", "pause_ms",
 *		 "stop_boot_ns", "resume_boot_ns", "percent", "remaining_bytes", "passes", "needed_pause_ms", "pause_limit_ms", "throttle_percent", "policy": TEXT of
 *		 vm_converge.h, "steps": [{"step": 2, "name": "transfer", "ms": 12.5}…]}
 *  event	{"severity": "info|warning|error", "vm", "text", "command"}	for the event log
 *
 * VM	{"vm", "uuid", "config", "txid", "pid", "qemu": STATE, "io_error": "", "reason": "", "command": "", "since_boot_ms",
 *	 "accel", "console": PATH, "role": "run|source|target|none"}
 *	in the reply to "inventory" also, for a cold start (struct leasedb_item): "epoch", "flags" (LEASEDB_ITEM_*), "ended", "offered_to": node,
 *	"offered_to_inc": "…"; a VM whose QEMU is gone is listed too, with qemu "gone", while "ended" has something to say
 *	STATE: starting | prelaunch | inmigrate | running | paused | postmigrate | io-error | shutdown | unresponsive | gone
 * HOST	{"accel": "kvm+slat|kvm|tcg", "accel_reason", "qemu": "7.2.22", "machine": "pc-q35-7.2", "memory_bytes", "memory_free_bytes",
 *	 "cpus", "missing": ["return-path"…], "qemu_reason": "", "agent_incarnation": "…", "volume": "/srv/csv", "mount": "/srv/csv",
 *	 "mount_state": "alive|waits|joining|none|dead", "mount_reason", "mount_command"}
 *	volume: "" where its mount is no place for VMs (hvhost/hvhostd_mount.h); mount: where it would be.  qemu_reason: QEMU could not be asked
 *	yet what it can do, and is asked again
 *
 * Pure; one thread.
 */
#ifndef CSVFS_HVHOST_AGENT_H
#define CSVFS_HVHOST_AGENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "hvhost/jline.h"
#include "utils/base/err.h"
#include "utils/rpc/rpc_msg.h"

#define AGENT_API 1
#define AGENT_SOCKET "/run/csvfs/hvhostd.sock"
#define AGENT_VM_NAME_MAX 63u
#define AGENT_TEXT_MAX 479u

/* A VM's name: letters, digits, '-', '_', '.', not first '.' or '-'; it is a folder's name and part of a cgroup's. */
bool agent_vm_name_valid(const char *name);

/* Names in 64 bits, as 16 hexadecimal digits. */
json_t *agent_u64(uint64_t v);
int agent_u64_get(const json_t *o, const char *key, uint64_t *ret, struct csv_err *err) csv_must_check;

/* What one side got, taken apart.  Strings and objects are borrowed from `text`. */
enum agent_kind { AGENT_CMD, AGENT_REPLY, AGENT_EVENT };
struct agent_msg {
	enum agent_kind kind;
	const char *name;		/* of a command or an event */
	uint64_t id;			/* of a command or a reply; an event's seq */
	bool has_ring;
	uint64_t ring;			/* of a command */
	int code;			/* of a reply */
	const char *message;		/* of a reply, never NULL */
	json_t *body;			/* args or data: an object, never NULL */
};
/* 0; -EPROTO with err: what of it is not as it must be.  `body` of a text without one is an empty object that `text` then holds. */
int agent_msg_decode(json_t *text, struct agent_msg *ret, struct csv_err *err) csv_must_check;

/* New references; body_take may be NULL (empty); NULL out of memory. */
json_t *agent_cmd_new(const char *name, uint64_t id, uint64_t ring, json_t *args_take);
json_t *agent_reply_new(uint64_t id, int code, const char *message, json_t *data_take);
json_t *agent_event_new(const char *name, uint64_t seq, uint64_t boot_ms, json_t *data_take);

/* Fields of a body, with errors that name them.  Text: 0; -EPROTO missing, empty, longer than max or no text. */
int agent_text(const json_t *body, const char *key, size_t max, const char **ret, struct csv_err *err) csv_must_check;
int agent_int(const json_t *body, const char *key, int64_t min, int64_t max, int64_t *ret, struct csv_err *err) csv_must_check;
/* The same, and a missing field is `otherwise`. */
int agent_int_or(const json_t *body, const char *key, int64_t min, int64_t max, int64_t otherwise, int64_t *ret,
		 struct csv_err *err) csv_must_check;

#endif
