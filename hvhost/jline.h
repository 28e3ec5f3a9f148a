/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jline.h - JSON texts, one a line, out of a stream of bytes: what QEMU's monitor and the agent protocol have in common.
 *
 * Invariants
 *  JL1 Whatever comes in, memory stays below JLINE_MAX + what one text needs; a longer line is an error, at once and not at its end.
 *  JL2 A text that is no JSON object, has a key twice, is nested deeper than jansson's limit or holds a NUL is an error naming the
 *      place.  After an error the stream is useless: the connection is closed, nothing behind it is looked at (-EPROTO for ever).
 *
 * Pure.  One thread.
 */
#ifndef CSVFS_HVHOST_JLINE_H
#define CSVFS_HVHOST_JLINE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "utils/base/err.h"

#define JLINE_MAX (1024u * 1024)	/* QEMU's longest answer that we ask for is 100 times shorter */

struct jline { char *buf; size_t fill, room, scanned; bool broken; };

void jline_init(struct jline *j);
void jline_done(struct jline *j);
/* Bytes that came in.  0, -ENOMEM, -EPROTO (JL1, or it is broken) with err. */
int jline_feed(struct jline *j, const void *bytes, size_t n, struct csv_err *err) csv_must_check;
/* The next complete text, a new reference; 1 with one, 0 none is complete yet, -EPROTO or -ENOMEM with err.  Empty lines do not count. */
int jline_next(struct jline *j, json_t **ret, struct csv_err *err) csv_must_check;
/* `o` as one line, newline included, to be freed; NULL: out of memory or longer than JLINE_MAX. */
char *jline_encode(const json_t *o, size_t *ret_len);

#endif
