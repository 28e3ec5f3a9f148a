/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * err: errors. Functions return 0 or a negative code: -errno, or -CSV_E_* where errno says too
 * little. Codes are translated to plain errno once, at FUSE, at the command line, at the wire.
 *
 * Where a person must act, a function also takes a `struct csv_err *`: a fixed buffer that the
 * innermost failure fills and every caller on the way out puts its context in front of, so that
 * it ends as "mount vol1: journal 3: record 812: checksum wrong; run fsck.csvfs".
 * Passing NULL is allowed everywhere: then only the code travels.
 *
 * Invariants: 1. text is always terminated; 2. a text that does not fit loses its *end*, never
 * the context at its front, and then ends in "...". No allocation, any thread.
 */
#ifndef CSV_ERR_H
#define CSV_ERR_H

#include <stdarg.h>

#include "utils/base/base.h"

struct csv_err {
	int code; /* negative; 0: nothing has failed */
	char text[480];
};

#define CSV_ERR_INIT ((struct csv_err){.code = 0})

/* Above every errno (4095 is the kernel's MAX_ERRNO). Never stored, never sent as a number. */
enum csv_e {
	CSV_E_FIRST_ = 4096,
	CSV_E_CORRUPT,	     /* a structure on disk or from a peer is not what it must be */
	CSV_E_NOQUORUM,	     /* this node is not in a quorate view */
	CSV_E_WITHDRAWN,     /* this node has given up the volume */
	CSV_E_STALE,	     /* of an older view, incarnation or generation */
	CSV_E_UNSUPPORTED,   /* well-formed, but this version cannot do it */
	CSV_E_FENCED,	     /* this node has been (or is being) cut off */
	CSV_E_BUSY_ELSEWHERE, /* in use on another node */
	CSV_E_END_,
};

/* Fill err (if not NULL) and return code, which must be negative. */
int csv_err_set(struct csv_err *err, int code, const char *fmt, ...) csv_printf_like(3, 4);
int csv_err_vset(struct csv_err *err, int code, const char *fmt, va_list ap)
	csv_printf_like(3, 0);

/* Put "context: " in front of the text. Returns err's code (0 for NULL). */
int csv_err_prefix(struct csv_err *err, const char *fmt, ...) csv_printf_like(2, 3);

/* Back to "nothing has failed". */
void csv_err_clear(struct csv_err *err);

/* "ENOSPC", "CORRUPT", …; sign does not matter; "E4711" for one nobody knows, through buf. */
const char *csv_err_name(int code, char buf[static 16]);

/* "No space left on device", "corrupt", …: for a message where there is only a code. */
const char *csv_err_describe(int code);

/* Positive errno for FUSE and exit paths: private codes translated, others as they are. */
int csv_err_to_errno(int code);

#endif
