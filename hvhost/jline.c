/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jline.c - see jline.h.
 */
#include "hvhost/jline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void jline_init(struct jline *j)
{
	*j = (struct jline){ 0 };
}

void jline_done(struct jline *j)
{
	free(j->buf);
	*j = (struct jline){ 0 };
}

static int broken(struct jline *j, struct csv_err *err, const char *what)
{
	j->broken = true;
	return csv_err_set(err, -EPROTO, "%s", what);
}

int jline_feed(struct jline *j, const void *bytes, size_t n, struct csv_err *err)
{
	if (j->broken)
		return csv_err_set(err, -EPROTO, "the stream was broken before");
	/* Two lines of the greatest length: one that is not taken out yet and the one that is coming. */
	if (n > 2u * JLINE_MAX - j->fill)
		return broken(j, err, "more than 2 MiB have come and nobody has looked at them");
	if (j->fill + n > j->room) {
		size_t room = j->room ? j->room : 4096;
		char *buf;

		while (room < j->fill + n)
			room *= 2;
		buf = realloc(j->buf, room);
		if (!buf)
			return csv_err_set(err, -ENOMEM, "out of memory");
		j->buf = buf;
		j->room = room;
	}
	if (n)
		memcpy(j->buf + j->fill, bytes, n);
	j->fill += n;
	return 0;
}

static bool is_blank(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r')
			return false;
	return true;
}

/* Takes the first n bytes out; a buffer that one long line made large does not stay so. */
static void drop(struct jline *j, size_t n)
{
	j->fill -= n;
	memmove(j->buf, j->buf + n, j->fill);
	j->scanned = 0;
	if (!j->fill && j->room > 65536) {
		free(j->buf);
		j->buf = NULL;
		j->room = 0;
	}
}

int jline_next(struct jline *j, json_t **ret, struct csv_err *err)
{
	while (!j->broken) {
		char *end = j->fill > j->scanned ? memchr(j->buf + j->scanned, '\n', j->fill - j->scanned) : NULL;
		size_t n = end ? (size_t)(end - j->buf) : j->fill;
		json_error_t je;
		json_t *o;

		if (n > JLINE_MAX)
			return broken(j, err, "a line is longer than 1 MiB");
		if (!end) {
			j->scanned = j->fill;
			return 0;
		}
		if (is_blank(j->buf, n)) {
			drop(j, n + 1);
			continue;
		}
		o = json_loadb(j->buf, n, JSON_REJECT_DUPLICATES, &je);
		if (!o && json_error_code(&je) == json_error_out_of_memory)
			return csv_err_set(err, -ENOMEM, "out of memory");
		drop(j, n + 1);
		if (!o) {
			j->broken = true;
			return csv_err_set(err, -EPROTO, "not JSON: %s at byte %d", je.text, je.position);
		}
		if (!json_is_object(o)) {
			json_decref(o);
			return broken(j, err, "JSON, but no object");
		}
		*ret = o;
		return 1;
	}
	return csv_err_set(err, -EPROTO, "the stream was broken before");
}

char *jline_encode(const json_t *o, size_t *ret_len)
{
	char *text = json_dumps(o, JSON_COMPACT), *line;
	size_t n = text ? strlen(text) : 0;

	if (!text || n > JLINE_MAX) {
		free(text);
		return NULL;
	}
	line = realloc(text, n + 2);
	if (!line) {
		free(text);
		return NULL;
	}
	line[n] = '\n';
	line[n + 1] = '\0';
	*ret_len = n + 1;
	return line;
}
