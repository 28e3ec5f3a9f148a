/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * qmp.h - a client of QEMU's monitor over buffers: bytes in, bytes out, no socket.
 *
 *	GREETING --greeting--> NEGOTIATING --qmp_capabilities answered--> READY
 *	    any of them --nonsense, too much, qmp_break()--> BROKEN (for ever; every open command ends with its error)
 *
 * Invariants
 *  QM1 Every command that qmp_execute() took ends exactly once: by QEMU's answer, by its error, or by the break.  Never inside
 *      qmp_execute(); after qmp_abandon() silently.
 *  QM2 Commands given before READY wait and go out in order then.  At most QMP_OPEN_MAX are open and QMP_OUT_MAX bytes are on their way.
 *  QM3 What QEMU says is checked: an answer to nothing, an answer without id, an event without name, a line over JLINE_MAX break it.
 *      An event's time stamp that is none is 0, not an error (QEMU sends -1 when its clock fails).
 *  QM4 Callbacks may call everything here but qmp_free().
 *
 * Pure; one thread.  Time limits are the caller's (struct qmp_cmd may be abandoned), or qmp_call()'s.
 */
#ifndef CSVFS_HVHOST_QMP_H
#define CSVFS_HVHOST_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <urcu/list.h>

#include "utils/base/err.h"

#define QMP_OPEN_MAX 64u
#define QMP_OUT_MAX (256u * 1024)

enum qmp_state { QMP_GREETING, QMP_NEGOTIATING, QMP_READY, QMP_BROKEN };

struct qmp;
struct qmp_events {
	void (*ready)(void *arg);
	/* `data` is an object or NULL; `stamp_us` real time of QEMU. */
	void (*event)(void *arg, const char *name, const json_t *data, uint64_t stamp_us);
	void (*broken)(void *arg, const struct csv_err *err);	/* once; open commands have ended before */
	void (*out)(void *arg);		/* qmp_out() has something; may be NULL; not to answer from inside */
	void *arg;
};
/* Embedded in the caller's structure; the client's from qmp_execute() to done() or qmp_abandon(). */
struct qmp_cmd {
	struct cds_list_head node;
	uint64_t id;
	struct qmp *q;			/* NULL: not open */
	void (*done)(struct qmp_cmd *c);
	/* At done: 0 and `ret` (borrowed, any JSON); -EOPNOTSUPP QEMU does not know the command, -EREMOTEIO it refused, -EPIPE broken. */
	int result;
	const json_t *ret;
	struct csv_err err;
};

struct qmp *qmp_new(const struct qmp_events *ev);	/* NULL out of memory */
/* Open commands end with -EPIPE, `broken` is not called.  NULL allowed. */
void qmp_free(struct qmp *q);
enum qmp_state qmp_state(const struct qmp *q);
/* Of the greeting: major, minor, micro; 0 before. */
void qmp_version(const struct qmp *q, unsigned ret[3]);

/* Bytes from QEMU; callbacks run inside.  After a break they are ignored. */
void qmp_feed(struct qmp *q, const void *bytes, size_t n);
/* The connection ended or somebody gave up on it. */
void qmp_break(struct qmp *q, const char *why);
/* Bytes for QEMU, and how many of them went. */
size_t qmp_out(const struct qmp *q, const char **ret);
void qmp_out_sent(struct qmp *q, size_t n);

/* 0; -EBUSY (QM2), -EPIPE broken, -ENOMEM, with c->err.  `args_take` NULL: none. */
int qmp_execute(struct qmp *q, struct qmp_cmd *c, const char *command, json_t *args_take) csv_must_check;
/* Nobody waits for it any more: done() is not called.  Harmless when it is not open. */
void qmp_abandon(struct qmp_cmd *c);

/*
 * In a coroutine of `s`: 0 with ret (new reference; ret NULL: not wanted); -ETIMEDOUT, nothing is broken by that; as qmp_execute().
 * The client may be freed meanwhile.
 */
struct sched;
int qmp_call(struct qmp *q, struct sched *s, const char *command, json_t *args_take, unsigned timeout_ms, json_t **ret, struct csv_err *err);

#endif
